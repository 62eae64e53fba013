"""
fal's platform API: past requests, list prices, and the schemas that fal publishes.

Past requests find a job whose answer was lost. They come late, sorted by their
end, and those still running may be missing, so absence here proves nothing by
itself. Prices and schemas are for comparing the bundled catalogue with fal's.
The platform limits callers to about one call in seven seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from kling_mcp.errors import FalUnreachable, KlingError
from kling_mcp.fal.failures import error_for, explain
from kling_mcp.fal.http import TransportError
from kling_mcp.fal.sanitize import clean
from kling_mcp.fal.tolerant_json import NotJson, items, members, text

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from kling_mcp.fal.http import FalHttp

__all__ = ["FalPlatform", "PastRequest", "PublishedModel", "UnitPrice"]

_PAGE: Final = 100
_MAX_PAGES: Final = 100
_TRIES: Final = 3
_MODELS_PER_CALL: Final = 10


@dataclass(frozen=True, slots=True)
class PastRequest:
    """
    A request in the account's history.

    Args:
        sent_ms: When fal got it, in milliseconds since 1970.
        ended_ms: When it ended.
        status_code: The HTTP status of its result.
        input: Its body, perhaps with defaults filled in; None where fal does not keep payloads.
        output: Its result.
    """

    request_id: str
    endpoint_id: str
    sent_ms: int | None
    started_ms: int | None
    ended_ms: int | None
    status_code: int | None
    input: Mapping[str, object] | None
    output: Mapping[str, object] | None


@dataclass(frozen=True, slots=True)
class UnitPrice:
    """fal's list price of one unit; what a unit is (seconds, credits) is in *unit*."""

    endpoint_id: str
    unit_price: Decimal
    unit: str
    currency: str


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """What fal publishes about an endpoint; *openapi* is None where it says that it has none."""

    endpoint_id: str
    metadata: Mapping[str, object] | None
    openapi: Mapping[str, object] | None


class FalPlatform:
    """The platform API at the configured address."""

    def __init__(self, http: FalHttp) -> None:
        self._http = http
        self._prices: dict[str, UnitPrice] = {}

    async def history(
        self, endpoint_id: str, *, start_ms: int, end_ms: int | None = None
    ) -> AsyncGenerator[PastRequest, None]:
        """
        The account's requests to *endpoint_id* in a time, latest end first.

        Raises:
            FalRejected, AccountLocked, RateLimited, NoApiKey: fal refuses the question.
            FalUnreachable: No answer, or none that can be read to its end; what came before is not all.
        """
        question = {
            "endpoint_id": endpoint_id,
            "start": _stamp(start_ms),
            **({} if end_ms is None else {"end": _stamp(end_ms)}),
            "limit": str(_PAGE),
            "sort_by": "ended_at",
            "expand": "payloads",
        }
        async for entry in self._pages("/models/requests/by-endpoint", question, "items"):
            request_id = text(entry.get("request_id"))
            if request_id:
                yield PastRequest(
                    request_id,
                    text(entry.get("endpoint_id")) or endpoint_id,
                    _milliseconds(entry.get("sent_at")),
                    _milliseconds(entry.get("started_at")),
                    _milliseconds(entry.get("ended_at")),
                    _status_code(entry.get("status_code")),
                    _payload(entry.get("json_input")),
                    _payload(entry.get("json_output")),
                )

    async def prices(self, endpoint_ids: Sequence[str]) -> Mapping[str, UnitPrice]:
        """
        fal's list prices of those endpoints that have one.

        Raises:
            FalRejected, AccountLocked, RateLimited, NoApiKey: fal refuses the question.
            FalUnreachable: No answer, or none that can be read.
        """
        return {price.endpoint_id: price async for price in self._prices_of(endpoint_ids)}

    async def models(self, endpoint_ids: Sequence[str]) -> Mapping[str, PublishedModel]:
        """
        What fal publishes about those endpoints that it lists, with their schemas.

        An endpoint that fal does not know is answered with 200 and an error in the
        schema's place.

        Raises:
            FalRejected, AccountLocked, RateLimited: fal refuses the question.
            FalUnreachable: No answer, or none that can be read.
        """
        found: dict[str, PublishedModel] = {}
        async for entry in self._of_endpoints("/models", endpoint_ids, {"expand": "openapi-3.0"}, "models"):
            endpoint_id, openapi = text(entry.get("endpoint_id")), members(entry.get("openapi"))
            if endpoint_id in endpoint_ids:
                found[endpoint_id] = PublishedModel(
                    endpoint_id,
                    members(entry.get("metadata")) or None,
                    None if not openapi or "error" in openapi else openapi,
                )
        return found

    async def cost_usd(self, endpoint_id: str, units: Decimal) -> Decimal | None:
        """
        What *units* of an endpoint cost by fal's list price; None where fal does not say at once.

        It is asked between a result and its record, so it is asked only once, and
        any trouble means that the estimate stands. A price that came is kept.
        """
        price = self._prices.get(endpoint_id)
        if price is None:
            try:
                async for found in self._prices_of([endpoint_id], tries=1):
                    self._prices[endpoint_id] = price = found
            except KlingError:
                return None
        return price.unit_price * units if price is not None and price.currency == "USD" else None

    async def _prices_of(self, endpoint_ids: Sequence[str], tries: int = _TRIES) -> AsyncGenerator[UnitPrice, None]:
        async for entry in self._of_endpoints("/models/pricing", endpoint_ids, {}, "prices", tries):
            endpoint_id, amount = text(entry.get("endpoint_id")), _amount(entry.get("unit_price"))
            if endpoint_id in endpoint_ids and amount is not None:
                yield UnitPrice(
                    endpoint_id, amount, clean(entry.get("unit"), 40), clean(entry.get("currency"), 10).upper()
                )

    async def _of_endpoints(
        self, path: str, endpoint_ids: Sequence[str], question: Mapping[str, str], name: str, tries: int = _TRIES
    ) -> AsyncGenerator[Mapping[str, object], None]:
        for first in range(0, len(endpoint_ids), _MODELS_PER_CALL):
            asked = ",".join(endpoint_ids[first : first + _MODELS_PER_CALL])
            async for entry in self._pages(path, {"endpoint_id": asked, **question}, name, tries):
                yield entry

    async def _pages(
        self, path: str, question: Mapping[str, str], name: str, tries: int = _TRIES
    ) -> AsyncGenerator[Mapping[str, object], None]:
        cursor = ""
        for _ in range(_MAX_PAGES):
            page = await self._get(path, {**question, **({"cursor": cursor} if cursor else {})}, tries)
            entries = page.get(name)
            if not isinstance(entries, list):
                raise _unreachable("its answer could not be read")
            for entry in items(page.get(name)):
                yield members(entry)
            following = text(page.get("next_cursor"))
            if not page.get("has_more", bool(following)):
                return
            if not following or following == cursor:
                raise _unreachable("its list does not end")
            cursor = following
        raise _unreachable("its list does not end")

    async def _get(self, path: str, question: Mapping[str, str], tries: int) -> Mapping[str, object]:
        url = f"{self._http.hosts.api}{path}?{urlencode(question)}"
        try:
            answer = await self._http.request_with_retries(
                "GET", url, deadline=self._http.deadlines.lookup, slow_down=True, tries=tries
            )
        except TransportError as interrupted:
            raise _unreachable(interrupted.reason) from None
        if 400 <= answer.status < 500:
            raise error_for(explain(answer, "free", authenticated=self._http.has_key))
        try:
            if answer.status == 200:
                return members(answer.json(exact=path == "/models/pricing"))
        except NotJson:
            raise _unreachable("its answer could not be read") from None
        raise _unreachable(f"it answered with HTTP status {answer.status}")


def _stamp(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _milliseconds(value: object) -> int | None:
    """An ISO time, in UTC where it does not say, as milliseconds since 1970."""
    try:
        moment = datetime.fromisoformat(text(value))
        return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


def _status_code(value: object) -> int | None:
    return value if isinstance(value, int) and 100 <= value < 600 else None


def _payload(value: object) -> Mapping[str, object] | None:
    return None if value is None else members(value)


def _amount(value: object) -> Decimal | None:
    if not isinstance(value, (int, Decimal)) or isinstance(value, bool):
        return None
    amount = Decimal(value)
    return amount if 0 <= amount < 1_000_000 else None


def _unreachable(why: str) -> FalUnreachable:
    return FalUnreachable(
        f"fal.ai's platform could not be asked: {why}.", "The question is free and can be asked again later."
    )
