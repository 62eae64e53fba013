"""
fal on this machine: queue, storage and platform API as one application on one port.

    /queue    what queue.fal.run answers
    /rest     what rest.fal.ai answers
    /api/v1   what api.fal.ai/v1 answers
    /media    the CDN: uploads and finished videos
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from kling_mcp.simulator.backend import Accepted, Backend, Switches
from kling_mcp.simulator.fault_middleware import FaultMiddleware
from kling_mcp.simulator.platform import Platform
from kling_mcp.simulator.queue_api import QueueApi
from kling_mcp.simulator.storage import Storage, file_answer

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp

__all__ = ["Accepted", "Simulator", "Switches"]


class Simulator(Backend):
    """fal for one test or one demo, as an application."""

    async def _download(self, request: Request) -> Response:
        file = self.files.get(f"files/{request.path_params['path']}")
        return JSONResponse({"detail": "File not found"}, 404) if file is None else file_answer(request, file)

    @cached_property
    def app(self) -> ASGIApp:
        """All routes, behind the faults."""
        storage = Storage(self.files, self.clock, self.new_id, lambda request: self.account(request) is not None)
        routes = [
            Mount("/queue", routes=QueueApi(self).routes()),
            Mount("/rest", routes=storage.rest_routes()),
            Mount("/api/v1", routes=Platform(self).routes()),
            Mount("/media", routes=[*storage.media_routes(), Route("/files/{path:path}", self._download)]),
        ]
        return FaultMiddleware(Starlette(routes=routes), self.faults, self.requests, self.clock, self.new_id)
