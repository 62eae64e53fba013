"""The platform API and its oddities."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from kling_mcp.catalog.derive import derive
from kling_mcp.catalog.models import load
from kling_mcp.commands.catalog import differences
from kling_mcp.fal.platform import PublishedModel
from kling_mcp.simulator.app import Switches
from kling_mcp.simulator.clock import iso
from kling_mcp.simulator.published import Published, UnitPrice, read_folder
from tests.catalog.documents import KLING_4, document

from .calls import BODY, ENDPOINT, WORK_SECONDS, fal

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

UNKNOWN = "fal-ai/kling-video/v3/pro/elements"


async def test_every_model_of_the_catalog_is_listed_and_can_be_paged() -> None:
    async with fal() as it:
        first = (await it.get(f"{it.urls.api}/models", limit="4")).json()
        second = (await it.get(f"{it.urls.api}/models", limit="100", cursor=first["next_cursor"])).json()

        ids = [row["endpoint_id"] for row in (*first["models"], *second["models"])]
        assert ids == [endpoint.endpoint_id for endpoint in load().endpoints]
        assert (first["has_more"], second["has_more"], second["next_cursor"]) == (True, False, None)
        assert first["models"][0]["metadata"]["status"] == "active"
        assert "openapi" not in first["models"][0]


async def test_the_document_of_every_endpoint_says_what_the_catalog_knows_and_in_the_shape_of_fals_own() -> None:
    endpoints = load().endpoints
    async with fal() as it:
        rows: list[dict[str, Any]] = []
        for first in range(0, len(endpoints), 50):
            ids = ",".join(endpoint.endpoint_id for endpoint in endpoints[first : first + 50])
            rows += (await it.get(f"{it.urls.api}/models", endpoint_id=ids, expand="openapi-3.0")).json()["models"]

    for endpoint, row in zip(endpoints, rows, strict=True):
        document = row["openapi"]
        assert list(document["paths"]) == [
            f"/{endpoint.endpoint_id}/requests/{{request_id}}/status",
            f"/{endpoint.endpoint_id}/requests/{{request_id}}/cancel",
            f"/{endpoint.endpoint_id}",
            f"/{endpoint.endpoint_id}/requests/{{request_id}}",
        ]
        published = PublishedModel(endpoint.endpoint_id, "active", document)
        assert differences(endpoint, published) == []
        derived = derive(endpoint.endpoint_id, document, None, as_of="2026-11-21")
        assert derived.left_out == ()
        assert (derived.endpoint.mode, derived.endpoint.result) == (endpoint.mode, endpoint.result)
        assert derived.endpoint.input_schema["required"] == endpoint.input_schema["required"]


async def test_what_is_nested_is_a_component_and_what_may_be_null_a_choice() -> None:
    endpoint_id = "fal-ai/kling-video/v3/pro/image-to-video"
    async with fal() as it:
        page = (await it.get(f"{it.urls.api}/models", endpoint_id=endpoint_id, expand="openapi-3.0")).json()

    schemas = page["models"][0]["openapi"]["components"]["schemas"]
    fields = schemas["KlingVideoV3ProImageToVideoInput"]["properties"]
    # The first whose name ends in Input is not the request.
    assert next(iter(schemas)) == "File"
    assert next(name for name in schemas if name.endswith("Input")) == "KlingElementsInput"
    assert fields["elements"]["anyOf"] == [
        {"type": "array", "items": {"$ref": "#/components/schemas/KlingElementsInput"}},
        {"type": "null"},
    ]
    assert fields["start_image_url"]["x-fal"] == {
        "max_file_size": 10_485_760,
        "min_width": 300,
        "min_height": 300,
        "min_aspect_ratio": 0.4,
        "max_aspect_ratio": 2.5,
        "timeout": 20,
    }
    assert schemas["KlingVideoV3ProImageToVideoOutput"]["properties"]["video"]["allOf"] == [
        {"$ref": "#/components/schemas/File"}
    ]


KLING_4_ID = "kling/v4/image-to-video"
KLING_4_PUBLISHED = Published(
    endpoint_id=KLING_4_ID,
    title="Kling 4",
    openapi=document(KLING_4_ID, KLING_4[KLING_4_ID]),
    price=UnitPrice(unit_price=Decimal("0.157")),
)


async def test_a_folder_adds_endpoints_that_are_listed_priced_and_take_jobs(tmp_path: Path) -> None:
    (tmp_path / "v4.json").write_text(KLING_4_PUBLISHED.model_dump_json(), encoding="utf-8")
    body = {"start_image_url": "https://example.com/a.png", "prompt": "A door.", "duration": 10}
    async with fal(published=read_folder(tmp_path)) as it:
        (row,) = (await it.get(f"{it.urls.api}/models", q="kling 4", expand="openapi-3.0")).json()["models"]
        (price,) = (await it.get(f"{it.urls.api}/models/pricing", endpoint_id=KLING_4_ID)).json()["prices"]
        results = []
        for given in (body, {**body, "resolution": "8k"}):
            job = (await it.http.post(f"{it.urls.queue}/{KLING_4_ID}", json=given)).json()
            it.clock.advance(1000)
            results.append(await it.get(job["response_url"]))

    assert row["openapi"] == KLING_4_PUBLISHED.openapi
    assert price == {"endpoint_id": KLING_4_ID, "unit_price": 0.157, "unit": "seconds", "currency": "USD"}
    assert job["status_url"].startswith(f"{it.urls.queue}/kling/v4/requests/")
    assert [result.status_code for result in results] == [200, 422]
    assert results[0].headers["x-fal-billable-units"] == "10"
    assert results[1].json()["detail"][0]["loc"] == ["body", "resolution"]


async def test_anything_can_be_published_also_in_the_place_of_what_is_there() -> None:
    hostile: dict[str, object] = {"paths": {f"/{KLING_4_ID}": {"post": []}}}
    async with fal(published=[KLING_4_PUBLISHED]) as it:
        for endpoint_id in (ENDPOINT, "kling/v5/image-to-video"):
            it.simulator.publish(Published(endpoint_id=endpoint_id, status="deprecated", openapi=hostile))
        page = (await it.get(f"{it.urls.api}/models", status="deprecated", expand="openapi-3.0")).json()
        refused = await it.http.post(f"{it.urls.queue}/kling/v5/image-to-video", json={})

        assert [row["endpoint_id"] for row in page["models"]] == [ENDPOINT, "kling/v5/image-to-video"]
        assert [row["openapi"] for row in page["models"]] == [hostile, hostile]
        assert refused.status_code == 404
        await it.submitted()


def test_a_file_that_is_not_what_fal_publishes_is_named(tmp_path: Path) -> None:
    (tmp_path / "v4.json").write_text('{"openapi": {}}', encoding="utf-8")

    with pytest.raises(
        ValueError, match=r"v4\.json is not what fal publishes of an endpoint: endpoint_id: Field required"
    ):
        read_folder(tmp_path)


async def test_an_unknown_id_is_a_success_whose_expansion_failed() -> None:
    async with fal() as it:
        url = f"{it.urls.api}/models"

        response = await it.get(url, endpoint_id=f"{ENDPOINT},{UNKNOWN}", expand="openapi-3.0")

        known, unknown = response.json()["models"]
        assert response.status_code == 200
        assert "metadata" in known
        assert "metadata" not in unknown
        assert unknown["openapi"]["error"]["code"] == "expansion_failed"


async def test_models_can_be_searched_and_not_more_than_fifty_named() -> None:
    async with fal() as it:
        found = (await it.get(f"{it.urls.api}/models", q="O1")).json()["models"]
        refused = await it.get(f"{it.urls.api}/models", endpoint_id=",".join(["a"] * 51))

        assert {"o1" in row["endpoint_id"] for row in found} == {True}
        assert (refused.status_code, refused.json()["error"]["type"]) == (400, "validation_error")


async def test_without_a_key_ten_calls_pass_and_then_none_for_a_minute() -> None:
    async with fal() as it:
        url, keyless = f"{it.urls.api}/models", {"Authorization": ""}

        codes = [(await it.http.get(url, headers=keyless)).status_code for _ in range(12)]
        refused = await it.http.get(url, headers=keyless)
        with_key = await it.http.get(url)
        it.clock.advance(59)
        still = await it.http.get(url, headers=keyless)
        it.clock.advance(2)
        again = await it.http.get(url, headers=keyless)

        assert codes == [200] * 10 + [429] * 2
        assert refused.json() == {"error": {"type": "rate_limited", "message": "Too many requests"}}
        assert [with_key.status_code, still.status_code, again.status_code] == [200, 429, 200]


async def test_one_call_every_seven_seconds_is_never_refused() -> None:
    async with fal(Switches(rate_limit_with_key=True)) as it:
        codes: list[int] = []
        for _ in range(20):
            codes.append((await it.get(f"{it.urls.api}/models")).status_code)
            it.clock.advance(7)

        assert codes == [200] * 20


async def test_prices_are_one_unit_price_per_endpoint_and_need_a_key() -> None:
    async with fal() as it:
        url = f"{it.urls.api}/models/pricing"

        priced = await it.get(url, endpoint_id=f"{ENDPOINT},{UNKNOWN}")
        keyless = await it.http.get(url, params={"endpoint_id": ENDPOINT}, headers={"Authorization": ""})
        nothing = await it.get(url, endpoint_id=UNKNOWN)

        expected = {"endpoint_id": ENDPOINT, "unit_price": 0.14, "unit": "seconds", "currency": "USD"}
        assert priced.json() == {"prices": [expected], "next_cursor": None, "has_more": False}
        assert (keyless.status_code, keyless.json()["error"]["type"]) == (401, "authorization_error")
        assert (nothing.status_code, nothing.json()["error"]["type"]) == (404, "not_found")


async def test_the_history_shows_what_has_ended_latest_first() -> None:
    async with fal() as it:
        it.simulator.faults.fail("content_policy_violation")
        jobs = [await it.submitted() for _ in range(3)]
        it.clock.advance(1 + WORK_SECONDS * 2 + 1)
        url = f"{it.urls.api}/models/requests/by-endpoint"

        page = (await it.get(url, endpoint_id=ENDPOINT)).json()
        other = (await it.get(url, endpoint_id=UNKNOWN)).json()

        items = page["items"]
        assert [item["request_id"] for item in items] == [jobs[1]["request_id"], jobs[0]["request_id"]]
        assert [item["status_code"] for item in items] == [200, 422]
        assert items[1]["sent_at"] == "2026-01-01T00:00:00.000000Z"
        assert items[1]["started_at"] == "2026-01-01T00:00:01.000000Z"
        assert items[0]["duration"] == WORK_SECONDS
        assert "json_input" not in items[0]
        assert other["items"] == []


async def test_the_history_has_payloads_on_request_unless_they_were_not_to_be_kept() -> None:
    async with fal() as it:
        kept = await it.submitted()
        await it.submitted(x_fal_store_io="0")
        it.clock.advance(1000)

        page = await it.get(
            f"{it.urls.api}/models/requests/by-endpoint", endpoint_id=ENDPOINT, expand="payloads", limit="100"
        )

        (item,) = page.json()["items"]
        result = (await it.get(kept["response_url"])).json()
        assert item["request_id"] == kept["request_id"]
        assert (item["json_input"], item["json_output"]) == (BODY, result)


async def test_the_history_lags_as_long_as_it_is_told_to() -> None:
    async with fal(Switches(history_lag_seconds=900)) as it:
        await it.submitted()
        url = f"{it.urls.api}/models/requests/by-endpoint"
        counts: list[int] = []
        for seconds in (1 + WORK_SECONDS, 899, 1):
            it.clock.advance(seconds)
            counts.append(len((await it.get(url, endpoint_id=ENDPOINT)).json()["items"]))

        assert counts == [0, 0, 1]


async def test_the_history_is_bounded_filtered_and_paged() -> None:
    async with fal() as it:
        it.simulator.faults.fail("runner_server_error")
        jobs = [await it.submitted() for _ in range(5)]
        it.clock.advance(1000)
        end = [1 + WORK_SECONDS * (number + 1) for number in range(5)]
        start = it.clock.now() - 1000
        url = f"{it.urls.api}/models/requests/by-endpoint"

        async def ids(**query: str) -> list[int]:
            page = (await it.get(url, endpoint_id=ENDPOINT, **query)).json()
            return [
                next(n for n, job in enumerate(jobs) if job["request_id"] == i["request_id"]) for i in page["items"]
            ]

        assert await ids(start=iso(start + end[1]), end=iso(start + end[3])) == [3, 2, 1]
        assert await ids(limit="2") == [4, 3]
        assert await ids(limit="2", cursor="4") == [0]
        assert await ids(status="error") == [0]
        assert await ids(request_id=jobs[2]["request_id"]) == [2]
        assert sorted(await ids(sort_by="duration")) == [0, 1, 2, 3, 4]
        it.clock.advance(86_400 * 2)
        assert await ids() == []
        assert await ids(request_id=jobs[2]["request_id"]) == [2]


@pytest.mark.parametrize(
    "query",
    [{}, {"endpoint_id": ENDPOINT, "limit": "101"}, {"endpoint_id": ENDPOINT, "start": "yesterday"}],
)
async def test_the_history_refuses_what_it_cannot_read(query: dict[str, str]) -> None:
    async with fal() as it:
        response = await it.get(f"{it.urls.api}/models/requests/by-endpoint", **query)

        assert (response.status_code, response.json()["error"]["type"]) == (400, "validation_error")


async def test_the_history_is_for_its_account_only() -> None:
    async with fal(key=None) as it:
        await it.finished()
        url = f"{it.urls.api}/models/requests/by-endpoint?endpoint_id={ENDPOINT}"

        other = await it.http.get(url, headers={"Authorization": "Key other:key"})
        nobody = await it.http.get(url, headers={"Authorization": ""})

        assert (other.json()["items"], nobody.status_code) == ([], 401)


async def test_the_balance_needs_an_admin_key() -> None:
    async with fal() as it:
        url = f"{it.urls.api}/account/billing?expand=credits"

        refused = await it.get(url)
        it.simulator.switches = Switches(admin_key=True, balance_usd=Decimal("7.25"))
        told = await it.get(url)
        keyless = await it.http.get(url, headers={"Authorization": ""})

        assert (refused.status_code, refused.json()["error"]["type"]) == (403, "authorization_error")
        assert told.json()["credits"] == {"current_balance": 7.25, "currency": "USD"}
        assert keyless.status_code == 401


async def test_meta_needs_no_key() -> None:
    async with fal() as it:
        response = await it.http.get(f"{it.urls.api}/meta", headers={"Authorization": ""})

        assert response.json() == {"webhook_ip_ranges": ["127.0.0.1/32"]}
