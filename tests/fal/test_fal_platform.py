"""Past requests, prices and schemas."""

from __future__ import annotations

from decimal import Decimal
from urllib.parse import parse_qs, urlsplit

import pytest

from kling_mcp import errors
from kling_mcp.fal.platform import FalPlatform, PastRequest, PublishedModel, UnitPrice
from tests.conftest import CANARY_KEY
from tests.fal.rawserver import RawServer, answer, raw
from tests.fal.support import ENDPOINT, NOW_SECONDS, client

pytestmark = pytest.mark.anyio

NOW_MS = int(NOW_SECONDS * 1000)
ENTRY = {
    "request_id": "r1",
    "endpoint_id": ENDPOINT,
    "sent_at": "2026-11-21T10:00:00.250Z",
    "started_at": "2026-11-21T11:00:01+01:00",
    "ended_at": "2026-11-21T10:01:00",
    "status_code": 200,
    "duration": 60,
    "json_input": {"prompt": "x", "cfg_scale": 0.5},
    "json_output": {"video": {"url": "https://v3.fal.media/a"}},
}
PRICE = {"endpoint_id": ENDPOINT, "unit_price": 0.14, "unit": "seconds", "currency": "usd"}


async def history(platform: FalPlatform) -> list[PastRequest]:
    return [request async for request in platform.history(ENDPOINT, start_ms=NOW_MS, end_ms=NOW_MS + 60_000)]


async def test_the_history_is_read_to_its_last_page() -> None:
    pages = [
        {"items": [ENTRY, {"no": "id"}, 7], "next_cursor": "c 2", "has_more": True},
        {
            "items": [{"request_id": "r2", "status_code": "200", "sent_at": "yesterday", "json_input": None}],
            "next_cursor": None,
            "has_more": False,
        },
    ]
    async with RawServer(plan=[answer(200, page) for page in pages]) as server, client(server.url) as http:
        found = await history(FalPlatform(http))
        asked = [urlsplit(request.target) for request in server.received]

    assert found == [
        PastRequest(
            "r1", ENDPOINT, NOW_MS + 250, NOW_MS + 60_000, 200,
            {"prompt": "x", "cfg_scale": 0.5}, {"video": {"url": "https://v3.fal.media/a"}},
        ),
        PastRequest("r2", ENDPOINT, None, None, None, None, None),
    ]  # fmt: skip
    question = {
        "endpoint_id": [ENDPOINT],
        "start": ["2026-11-21T10:00:00Z"],
        "end": ["2026-11-21T10:01:00Z"],
        "limit": ["100"],
        "sort_by": ["ended_at"],
        "expand": ["payloads"],
    }
    assert [url.path for url in asked] == ["/api/v1/models/requests/by-endpoint"] * 2
    assert [parse_qs(url.query) for url in asked] == [question, {**question, "cursor": ["c 2"]}]


ENDLESS = {
    "the same page for ever": {"items": [ENTRY], "next_cursor": "c", "has_more": True},
    "more without a cursor": {"items": [ENTRY], "next_cursor": None, "has_more": True},
    "no list": {"items": None},
    "a list": [ENTRY],
}


@pytest.mark.parametrize("name", ENDLESS)
async def test_a_history_that_cannot_be_read_to_its_end_is_no_history(name: str) -> None:
    async with RawServer(default=answer(200, ENDLESS[name])) as server, client(server.url, []) as http:
        with pytest.raises(errors.FalUnreachable):
            await history(FalPlatform(http))

        assert len(server.received) <= 2


async def test_a_history_of_pages_without_end_is_given_up() -> None:
    plan = [answer(200, {"items": [], "next_cursor": f"c{number}"}) for number in range(200)]
    async with RawServer(plan=plan) as server, client(server.url, []) as http:
        with pytest.raises(errors.FalUnreachable, match="does not end"):
            await history(FalPlatform(http))

        assert len(server.received) == 100


async def test_prices_are_decimals_of_what_was_asked_for() -> None:
    rows = [
        PRICE,
        {**PRICE, "endpoint_id": "fal-ai/other"},
        {**PRICE, "endpoint_id": "a/b", "unit_price": "0.14"},
        {**PRICE, "endpoint_id": "a/c", "unit_price": -1},
        {**PRICE, "endpoint_id": "a/d", "unit_price": True},
        {**PRICE, "endpoint_id": "a/e", "unit_price": 2},
    ]
    asked_for = [ENDPOINT, "a/b", "a/c", "a/d", "a/e"]
    async with RawServer(default=answer(200, {"prices": rows})) as server, client(server.url) as http:
        assert await FalPlatform(http).prices(asked_for) == {
            ENDPOINT: UnitPrice(ENDPOINT, Decimal("0.14"), "seconds", "USD"),
            "a/e": UnitPrice("a/e", Decimal(2), "seconds", "USD"),
        }
        assert parse_qs(urlsplit(server.received[0].target).query) == {"endpoint_id": [",".join(asked_for)]}
        assert server.received[0].headers["authorization"] == f"Key {CANARY_KEY}"


async def test_many_endpoints_are_asked_for_ten_at_a_time() -> None:
    async with RawServer(default=answer(200, {"prices": []})) as server, client(server.url) as http:
        assert await FalPlatform(http).prices([f"a/{number}" for number in range(21)]) == {}

        assert len(server.received) == 3


async def test_the_real_cost_is_units_times_the_list_price_which_is_asked_for_once() -> None:
    async with RawServer(plan=[answer(200, {"prices": [PRICE]})]) as server, client(server.url) as http:
        platform = FalPlatform(http)
        costs = [await platform.cost_usd(ENDPOINT, Decimal("3.5")) for _ in range(2)]

    assert costs == [Decimal("0.490"), Decimal("0.490")]


@pytest.mark.parametrize("status", [401, 404, 429, 503])
async def test_the_real_cost_is_left_open_rather_than_waited_for(status: int) -> None:
    pauses: list[float] = []
    async with RawServer(default=answer(status, b"", {"Retry-After": "60"})) as server:
        async with client(server.url, pauses) as http:
            assert await FalPlatform(http).cost_usd(ENDPOINT, Decimal(1)) is None

        assert len(server.received) == 1
    assert pauses == []


@pytest.mark.parametrize("rows", [[], [{**PRICE, "currency": "EUR"}]], ids=["no price", "other money"])
async def test_a_price_that_is_no_dollar_price_is_no_cost(rows: list[object]) -> None:
    async with RawServer(default=answer(200, {"prices": rows})) as server, client(server.url) as http:
        assert await FalPlatform(http).cost_usd(ENDPOINT, Decimal(1)) is None


async def test_a_schema_that_fal_has_not_is_told_from_one_that_it_has() -> None:
    published = {"endpoint_id": ENDPOINT, "metadata": {"status": "active"}, "openapi": {"openapi": "3.0.4"}}
    unknown = {"endpoint_id": "a/b", "openapi": {"error": {"code": "expansion_failed", "message": "?"}}}
    stranger = {"endpoint_id": "a/c"}
    body = {"models": [published, unknown, stranger], "next_cursor": None, "has_more": False}
    async with RawServer(default=answer(200, body)) as server, client(server.url) as http:
        assert await FalPlatform(http).models([ENDPOINT, "a/b"]) == {
            ENDPOINT: PublishedModel(ENDPOINT, "active", {"openapi": "3.0.4"}),
            "a/b": PublishedModel("a/b", None, None),
        }
        assert parse_qs(urlsplit(server.received[0].target).query) == {
            "endpoint_id": [f"{ENDPOINT},a/b"],
            "expand": ["openapi-3.0"],
        }


async def test_a_platform_that_is_asked_too_often_is_asked_again_later() -> None:
    pauses: list[float] = []
    plan = [answer(429, b"slow"), answer(429, b"", {"Retry-After": "60"}), answer(200, {"prices": [PRICE]})]
    async with RawServer(plan=plan) as server, client(server.url, pauses) as http:
        assert ENDPOINT in await FalPlatform(http).prices([ENDPOINT])

    assert pauses == [1.0, 60.0]


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, b"", errors.FalRejected),
        (403, b'{"error": {"type": "authorization_error", "message": "no"}}', errors.FalRejected),
        (429, b"", errors.RateLimited),
        (500, b"", errors.FalUnreachable),
        (302, b"", errors.FalUnreachable),
        (200, b"<html>", errors.FalUnreachable),
    ],
)
async def test_a_platform_that_does_not_answer_is_told_plainly(
    status: int, body: bytes, kind: type[errors.KlingError]
) -> None:
    async with RawServer(default=answer(status, body)) as server, client(server.url, []) as http:
        with pytest.raises(kind) as caught:
            await FalPlatform(http).models([ENDPOINT])

    assert caught.value.billed == "no"


async def test_a_platform_that_hangs_up_is_unreachable() -> None:
    async with RawServer(default=raw(b"", reset=True)) as server, client(server.url, []) as http:
        with pytest.raises(errors.FalUnreachable, match="the connection broke"):
            await FalPlatform(http).prices([ENDPOINT])
