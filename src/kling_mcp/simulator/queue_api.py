"""
fal's queue over HTTP: submit, status, status stream, result, cancel.

Status, result and cancel live below the first two segments of an endpoint id;
both official clients build them so, and fal's own answer names them so. The
longer form that some documents list is answered too, or answered as fal was
once seen to: empty.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import anyio
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from kling_mcp.json_types import is_object
from kling_mcp.simulator.clock import iso
from kling_mcp.simulator.outcomes import cancelled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from kling_mcp.simulator.backend import Backend
    from kling_mcp.simulator.queue import Job, Look

__all__ = ["QueueApi"]

# Namespaces before the owner, as in both official clients.
_NAMESPACES: Final = frozenset({"workflows", "comfy"})
# How many log lines a status shows: a moving window, as on fal.
_LOG_WINDOW: Final = 5
# Real time between two looks of a status stream at the clock.
_STREAM_SECONDS: Final = 0.02
_CANCEL_STATUS: Final = {"OK": 200, "CANCELLATION_REQUESTED": 202, "ALREADY_COMPLETED": 400}


class QueueApi:
    """The queue of *backend* as routes."""

    def __init__(self, backend: Backend) -> None:
        self._sim = backend

    def routes(self) -> list[Route]:
        """What the queue host answers, below its root."""
        one = "/{app:path}/requests/{request_id}"
        return [
            Route(f"{one}/status/stream", self._stream, methods=["GET"]),
            Route(f"{one}/status", self._status, methods=["GET"]),
            Route(f"{one}/cancel", self._cancel, methods=["PUT"]),
            Route(f"{one}/response", self._result, methods=["GET"]),
            Route(one, self._result, methods=["GET"]),
            Route("/{endpoint:path}", self._submit, methods=["POST"]),
        ]

    async def _submit(self, request: Request) -> Response:
        account = self._sim.account(request)
        if account is None:
            return _unauthorised()
        endpoint_id = str(request.path_params["endpoint"]).strip("/")
        endpoint = self._sim.endpoint(endpoint_id)
        if endpoint is None:
            return JSONResponse({"detail": f"Application '{_app_of(endpoint_id)}' or its path not found"}, 404)
        body = await _json_object(request)
        if body is None:
            return JSONResponse({"detail": "The request body must be a JSON object"}, 422)
        longest = request.query_params.get("fal_max_queue_length", "")
        if longest.isdigit() and self._sim.queue.waiting(account) > int(longest):
            return JSONResponse({"detail": "Queue is too long"}, 429, {"X-Fal-Needs-Retry": "1"})
        job = self._sim.take(endpoint, account, body, request.headers)
        if isinstance(job, Response):
            return job
        base = _base(request, job)
        answer = {
            "status": "IN_QUEUE",
            "request_id": job.request_id,
            "response_url": base,
            "status_url": f"{base}/status",
            "cancel_url": f"{base}/cancel",
            "queue_position": self._sim.queue.look(job).before,
        }
        return JSONResponse(answer, self._sim.switches.submit_status, {"x-fal-request-id": job.request_id})

    async def _status(self, request: Request) -> Response:
        job = self._job(request)
        if isinstance(job, Response):
            return job
        if self._misdirected(request):
            return Response(status_code=200, headers={"x-fal-request-id": job.request_id})
        look = self._sim.queue.look(job)
        body = self._status_body(job, look, request)
        if _with_logs(request) and "logs" in body:
            body["logs"] = _lines(job, look)[-_LOG_WINDOW:]
        return JSONResponse(body, 200 if body["status"] == "COMPLETED" else 202, {"x-fal-request-id": job.request_id})

    async def _stream(self, request: Request) -> Response:
        job = self._job(request)
        if isinstance(job, Response):
            return job

        async def events() -> AsyncIterator[bytes]:
            """Each state once, with the log lines that are new: a client adds them up."""
            shown, last = 0, None
            while True:
                look = self._sim.queue.look(job)
                body, lines = self._status_body(job, look, request), _lines(job, look) if _with_logs(request) else []
                if _with_logs(request) and "logs" in body:
                    body["logs"] = lines[shown:]
                if (look.state, look.before, len(lines)) != last:
                    shown, last = len(lines), (look.state, look.before, len(lines))
                    yield f"data: {json.dumps(body)}\n\n".encode()
                if look.state == "COMPLETED":
                    return
                await anyio.sleep(_STREAM_SECONDS)

        return StreamingResponse(events(), media_type="text/event-stream", headers={"x-fal-request-id": job.request_id})

    async def _result(self, request: Request) -> Response:
        job = self._job(request)
        if isinstance(job, Response):
            return job
        if self._misdirected(request):
            return Response(status_code=200, headers={"x-fal-request-id": job.request_id})
        look = self._sim.queue.look(job)
        headers = {"x-fal-request-id": job.request_id, "X-Fal-Served-From": "simulator"}
        if look.state != "COMPLETED":
            return JSONResponse({"detail": "Request is still in progress"}, 400, headers)
        if (job.ended_at or 0.0) + self._sim.switches.result_seconds <= look.at:
            return JSONResponse({"detail": "Request not found"}, 404, headers)
        if job.outcome.body is not None:
            return JSONResponse(job.outcome.body, job.outcome.status, {**headers, **job.outcome.headers})
        units = self._sim.billable_units(job)
        if self._sim.switches.billable_units and units is not None:
            headers["X-Fal-Billable-Units"] = f"{units:f}"
        result = await self._sim.result(job, f"{request.url.scheme}://{request.url.netloc}/media")
        return JSONResponse(result, 200, headers)

    async def _cancel(self, request: Request) -> Response:
        job = self._job(request)
        if isinstance(job, Response):
            return job
        if self._misdirected(request):
            return Response(status_code=405, headers={"x-fal-request-id": job.request_id})
        word = self._sim.queue.cancel(job, cancelled(), stops_running=self._sim.switches.cancel_stops_running)
        return JSONResponse({"status": word}, _CANCEL_STATUS[word], {"x-fal-request-id": job.request_id})

    def _job(self, request: Request) -> Job | Response:
        account = self._sim.account(request)
        if account is None:
            return _unauthorised()
        job = self._sim.queue.get(request.path_params["request_id"])
        path = str(request.path_params["app"]).strip("/")
        if job is None or job.account != account or path not in {_app_of(job.endpoint_id), job.endpoint_id}:
            return JSONResponse({"status": "NOT_FOUND"}, 404)
        return job

    def _misdirected(self, request: Request) -> bool:
        """Whether this call came by the long path while the simulator plays fal's oddity there."""
        path = str(request.path_params["app"]).strip("/")
        return self._sim.switches.full_path == "empty" and path != _app_of(path)

    def _status_body(self, job: Job, look: Look, request: Request) -> dict[str, object]:
        base = _base(request, job)
        body: dict[str, object] = {
            "status": look.state,
            "request_id": job.request_id,
            "response_url": base,
            "status_url": f"{base}/status",
            "cancel_url": f"{base}/cancel",
        }
        if look.state == "IN_QUEUE":
            return {**body, "queue_position": look.before}
        body["logs"] = None
        if look.state == "COMPLETED":
            ran = 0.0 if job.started_at is None else (job.ended_at or 0.0) - job.started_at
            body["metrics"] = {"inference_time": round(ran, 3)}
            if job.outcome.error is not None:
                body["error"], body["error_type"] = job.outcome.error, job.outcome.error_type
        return body


def _app_of(endpoint_id: str) -> str:
    parts = endpoint_id.split("/")
    return "/".join(parts[: 3 if parts[0] in _NAMESPACES else 2])


def _base(request: Request, job: Job) -> str:
    root = f"{request.url.scheme}://{request.url.netloc}/queue"
    return f"{root}/{_app_of(job.endpoint_id)}/requests/{job.request_id}"


def _lines(job: Job, look: Look) -> list[dict[str, str]]:
    return [
        {"message": line.message, "timestamp": iso(line.at), "level": "INFO", "source": "USER"}
        for line in job.logs(look.at)
    ]


def _with_logs(request: Request) -> bool:
    # The Python client writes true and false, the JavaScript client 1 and 0.
    return request.query_params.get("logs", "").lower() in {"1", "true"}


async def _json_object(request: Request) -> dict[str, object] | None:
    try:
        value: object = json.loads(await request.body())
    except ValueError:
        return None
    return dict(value) if is_object(value) else None


def _unauthorised() -> Response:
    return JSONResponse({"detail": "Authentication is required to access this application"}, 401)
