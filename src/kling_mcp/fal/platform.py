"""
fal's platform API: past requests, list prices, and the schemas that fal publishes.

Past requests find a job whose answer was lost. They come late, sorted by their
end, and those still running may be missing, so absence here proves nothing by
itself. Prices and schemas are for comparing the bundled catalog with fal's.
The platform limits callers to about one call in seven seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlencode

from kling_mcp.errors import FalUnreachable, KlingError
from kling_mcp.fal.failures import error_for, explain
from kling_mcp.fal.http import FREE_TRIES, TransportError
from kling_mcp.fal.tolerant_json import NotJson, members
from kling_mcp.fal.wire import HistoryEntry, ListPage, ModelEntry, PriceEntry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence
    from decimal import Decimal

    from kling_mcp.fal.http import FalHttp

__all__ = ["FalPlatform", "PastRequest", "PublishedModel", "UnitPrice"]

_PAGE: Final = 100
_MAX_PAGES: Final = 100
_MODELS_PER_CALL: Final = 10

_Entry = TypeVar("_Entry", HistoryEntry, PriceEntry, ModelEntry)


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
    status: str | None
    openapi: Mapping[str, object] | None
    title: str | None = None


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
        async for entry in self._pages(HistoryEntry, "/models/requests/by-endpoint", question):
            if entry.request_id:
                yield PastRequest(
                    entry.request_id,
                    entry.endpoint_id or endpoint_id,
                    entry.sent_at,
                    entry.ended_at,
                    entry.status_code,
                    None if entry.json_input is None else members(entry.json_input),
                    None if entry.json_output is None else members(entry.json_output),
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
        async for entry in self._of_endpoints(ModelEntry, "/models", endpoint_ids, {"expand": "openapi-3.0"}):
            if entry.endpoint_id in endpoint_ids:
                openapi = entry.openapi if entry.openapi and "error" not in entry.openapi else None
                found[entry.endpoint_id] = PublishedModel(
                    entry.endpoint_id, entry.metadata.status, openapi, entry.metadata.display_name
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

    async def _prices_of(self, endpoint_ids: Sequence[str], tries: int = FREE_TRIES) -> AsyncGenerator[UnitPrice, None]:
        async for entry in self._of_endpoints(PriceEntry, "/models/pricing", endpoint_ids, {}, tries):
            if entry.endpoint_id in endpoint_ids and entry.unit_price is not None:
                yield UnitPrice(entry.endpoint_id, entry.unit_price, entry.unit, entry.currency)

    async def _of_endpoints(
        self,
        kind: type[_Entry],
        path: str,
        endpoint_ids: Sequence[str],
        question: Mapping[str, str],
        tries: int = FREE_TRIES,
    ) -> AsyncGenerator[_Entry, None]:
        for first in range(0, len(endpoint_ids), _MODELS_PER_CALL):
            asked = ",".join(endpoint_ids[first : first + _MODELS_PER_CALL])
            async for entry in self._pages(kind, path, {"endpoint_id": asked, **question}, tries):
                yield entry

    async def _pages(
        self, kind: type[_Entry], path: str, question: Mapping[str, str], tries: int = FREE_TRIES
    ) -> AsyncGenerator[_Entry, None]:
        cursor = ""
        for _ in range(_MAX_PAGES):
            page = await self._get(path, {**question, **({"cursor": cursor} if cursor else {})}, tries)
            if page.entries is None:
                raise _unreachable("its answer could not be read")
            for entry in page.entries:
                yield kind.read(entry)
            if not (bool(page.next_cursor) if page.has_more is None else page.has_more):
                return
            if page.next_cursor in {"", cursor}:
                raise _unreachable("its list does not end")
            cursor = page.next_cursor
        raise _unreachable("its list does not end")

    async def _get(self, path: str, question: Mapping[str, str], tries: int) -> ListPage:
        url = f"{self._http.hosts.api}{path}?{urlencode(question)}"
        try:
            answer = await self._http.request(
                "GET", url, deadline=self._http.deadlines.lookup, slow_down=True, tries=tries
            )
        except TransportError as interrupted:
            raise _unreachable(interrupted.reason) from None
        if 400 <= answer.status < 500:
            raise error_for(explain(answer, "free", authenticated=self._http.has_key))
        try:
            if answer.status == 200:
                return ListPage.read(answer.json(exact=path == "/models/pricing"))
        except NotJson:
            raise _unreachable("its answer could not be read") from None
        raise _unreachable(f"it answered with HTTP status {answer.status}")


def _stamp(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _unreachable(why: str) -> FalUnreachable:
    return FalUnreachable(
        f"fal.ai's platform could not be asked: {why}.", "The question is free and can be asked again later."
    )
