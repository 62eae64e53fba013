"""
fal's platform API as far as kling-mcp calls it: models, prices, request history, billing, meta.

Its errors have a shape of their own. A model that does not exist is no error
when its schema is asked for, and the history shows a request only some time
after it has ended: both oddities are fal's.
"""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from kling_mcp.simulator.clock import iso

if TYPE_CHECKING:
    from starlette.requests import Request

    from kling_mcp.simulator.backend import Backend
    from kling_mcp.simulator.published import Published
    from kling_mcp.simulator.queue import Job

__all__ = ["Platform"]

# Seen from outside without a key: about ten calls in 15 s, then a minute of refusals.
_FREE_CALLS: Final = 10
_FREE_SECONDS: Final = 15.0
_PENALTY_SECONDS: Final = 60.0
_DAY: Final = 86_400.0
_PUBLISHED_AT: Final = "2026-09-01T00:00:00.000Z"


class Platform:
    """The platform API of *backend* as routes."""

    def __init__(self, backend: Backend) -> None:
        self._sim = backend
        self._keyless: deque[float] = deque()
        self._refused_until = 0.0

    def routes(self) -> list[Route]:
        """What the platform host answers below ``/v1``."""
        return [
            Route("/models", self._models, methods=["GET"]),
            Route("/models/pricing", self._pricing, methods=["GET"]),
            Route("/models/requests/by-endpoint", self._history, methods=["GET"]),
            Route("/account/billing", self._billing, methods=["GET"]),
            Route("/meta", self._meta, methods=["GET"]),
        ]

    async def _models(self, request: Request) -> Response:
        if self._over_rate(request):
            return _error(429, "rate_limited", "Too many requests")
        wanted = _listed(request, "endpoint_id")
        if len(wanted) > 50:
            return _error(400, "validation_error", "endpoint_id takes at most 50 ids")
        query = request.query_params
        with_schema = "openapi-3.0" in _listed(request, "expand")
        every = {one.endpoint_id: one for one in self._sim.published(with_documents=with_schema)}
        if wanted:
            rows = [_model(every.get(name), name, with_schema=with_schema) for name in wanted]
        else:
            rows = [
                _model(one, one.endpoint_id, with_schema=with_schema)
                for one in every.values()
                if query.get("q", "").lower() in f"{one.endpoint_id} {one.title}".lower()
                and query.get("category") in {None, one.category}
                and query.get("status") in {None, one.status}
            ]
        return _page(request, "models", rows)

    async def _pricing(self, request: Request) -> Response:
        if self._sim.account(request) is None:
            return _error(401, "authorization_error", "Authentication is required")
        prices = {one.endpoint_id: one.price for one in self._sim.published()}
        rows: list[dict[str, object]] = [
            {
                "endpoint_id": name,
                "unit_price": float(price.unit_price),
                "unit": price.unit,
                "currency": price.currency,
            }
            for name in _listed(request, "endpoint_id")
            if (price := prices.get(name)) is not None
        ]
        if not rows:
            return _error(404, "not_found", "No prices for these endpoints")
        return _page(request, "prices", rows)

    async def _history(self, request: Request) -> Response:
        account = self._sim.account(request)
        if account is None:
            return _error(401, "authorization_error", "Authentication is required")
        query = request.query_params
        endpoint_id, now = query.get("endpoint_id"), self._sim.clock.now()
        if not endpoint_id:
            return _error(400, "validation_error", "endpoint_id is required")
        wanted = query.get("request_id")
        try:
            start = _moment(query["start"]) if "start" in query else now - (90 if wanted else 1) * _DAY
            end = _moment(query["end"]) if "end" in query else now
            limit = int(query.get("limit", "50"))
        except ValueError:
            return _error(400, "validation_error", "start, end or limit is not valid")
        if not 1 <= limit <= 100:
            return _error(400, "validation_error", "limit must be from 1 to 100")
        jobs = [
            job
            for job in self._sim.queue.ended(account, now - self._sim.switches.history_lag_seconds)
            if job.endpoint_id == endpoint_id
            and job.in_history
            and (wanted is None or job.request_id == wanted)
            and start <= (job.ended_at or 0.0) <= end
            and query.get("status") in {None, _status_word(job.outcome.status)}
        ]
        payloads = "payloads" in _listed(request, "expand")
        rows = [await self._item(job, request, payloads=payloads) for job in jobs]
        if query.get("sort_by") == "duration":
            rows.sort(key=lambda row: float(str(row["duration"])), reverse=True)
        return _page(request, "items", rows, limit)

    async def _item(self, job: Job, request: Request, *, payloads: bool) -> dict[str, object]:
        started = job.started_at if job.started_at is not None else job.sent_at
        item: dict[str, object] = {
            "request_id": job.request_id,
            "endpoint_id": job.endpoint_id,
            "started_at": iso(started),
            "sent_at": iso(job.sent_at),
            "ended_at": iso(job.ended_at or 0.0),
            "status_code": job.outcome.status,
            "duration": round((job.ended_at or 0.0) - started, 3),
        }
        if payloads:
            media = f"{request.url.scheme}://{request.url.netloc}/media"
            item["json_input"] = job.body
            item["json_output"] = job.outcome.body or await self._sim.result(job, media)
        return item

    async def _billing(self, request: Request) -> Response:
        if self._sim.account(request) is None:
            return _error(401, "authorization_error", "Authentication is required")
        if not self._sim.switches.admin_key:
            return _error(403, "authorization_error", "This key has no admin scope")
        balance = float(self._sim.switches.balance_usd)
        return JSONResponse({"username": "simulator", "credits": {"current_balance": balance, "currency": "USD"}})

    async def _meta(self, _: Request) -> Response:
        return JSONResponse({"webhook_ip_ranges": ["127.0.0.1/32"]})

    def _over_rate(self, request: Request) -> bool:
        if self._sim.account(request) is not None and not self._sim.switches.rate_limit_with_key:
            return False
        now = self._sim.clock.now()
        if now < self._refused_until:
            return True
        while self._keyless and self._keyless[0] <= now - _FREE_SECONDS:
            self._keyless.popleft()
        if len(self._keyless) >= _FREE_CALLS:
            self._refused_until = now + _PENALTY_SECONDS
            return True
        self._keyless.append(now)
        return False


def _model(published: Published | None, name: str, *, with_schema: bool) -> dict[str, object]:
    if published is None:
        # fal answers 200 here, with an entry that has no metadata.
        return {"endpoint_id": name, **({"openapi": _expansion_failed(name)} if with_schema else {})}
    metadata: dict[str, object] = {
        "display_name": published.title,
        "category": published.category,
        "description": published.description,
        "status": published.status,
        "tags": [],
        "updated_at": _PUBLISHED_AT,
        "model_url": f"https://fal.run/{name}",
        "date": _PUBLISHED_AT,
        "kind": "inference",
        "license_type": "commercial",
    }
    row: dict[str, object] = {"endpoint_id": name, "metadata": metadata}
    if not with_schema:
        return row
    return {**row, "openapi": _expansion_failed(name) if published.openapi is None else published.openapi}


def _expansion_failed(name: str) -> dict[str, object]:
    return {"error": {"code": "expansion_failed", "message": f"Failed to expand OpenAPI for endpoint '{name}'"}}


def _page(request: Request, name: str, rows: list[dict[str, object]], limit: int | None = None) -> Response:
    asked = request.query_params.get("limit", "50")
    size = limit or (min(100, int(asked)) if asked.isdigit() and int(asked) else 50)
    cursor = request.query_params.get("cursor", "")
    first = int(cursor) if cursor.isdigit() else 0
    more = first + size < len(rows)
    page = {name: rows[first : first + size], "next_cursor": str(first + size) if more else None, "has_more": more}
    return JSONResponse(page)


def _listed(request: Request, name: str) -> list[str]:
    return [part for value in request.query_params.getlist(name) for part in value.split(",") if part]


def _moment(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _status_word(status: int) -> str:
    if status < 400:
        return "success"
    return "user_error" if status < 500 else "error"


def _error(status: int, kind: str, message: str) -> Response:
    return JSONResponse({"error": {"type": kind, "message": message}}, status)
