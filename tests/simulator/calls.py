"""How the simulator's own tests talk to it: plain HTTP, as any client of fal would."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from kling_mcp.simulator.app import Simulator, Switches
from kling_mcp.simulator.clock import ManualClock
from kling_mcp.simulator.render import sample_video
from kling_mcp.simulator.serve import serving

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from kling_mcp.simulator.serve import BaseUrls

ENDPOINT = "fal-ai/kling-video/o3/standard/image-to-video"
BODY = {"image_url": "https://example.com/boat.png", "prompt": "The boat drifts.", "duration": "5"}
WORK_SECONDS = 94.0
"""How long the catalog says that five seconds of this endpoint take."""


@dataclass(slots=True)
class Fal:
    """A served simulator whose clock the test moves, and a client with a key."""

    simulator: Simulator
    clock: ManualClock
    urls: BaseUrls
    http: httpx.AsyncClient

    async def submit(self, body: dict[str, Any] | None = None, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.post(f"{self.urls.queue}/{ENDPOINT}", json=BODY if body is None else body, headers=named)

    async def submitted(self, body: dict[str, Any] | None = None, **headers: str) -> dict[str, Any]:
        response = await self.submit(body, **headers)
        assert response.is_success, response.text
        return response.json()

    async def get(self, url: str, **query: str) -> httpx.Response:
        return await self.http.get(url, params=query)

    async def state(self, job: dict[str, Any]) -> str:
        return (await self.get(job["status_url"])).json()["status"]

    async def finished(self, body: dict[str, Any] | None = None, **headers: str) -> dict[str, Any]:
        job = await self.submitted(body, **headers)
        self.clock.advance(1000)
        return job


@asynccontextmanager
async def fal(
    switches: Switches | None = None, *, key: str | None = "id:secret", **arguments: Any
) -> AsyncGenerator[Fal]:
    """A simulator with a clock of its own, the sample video and one accepted key unless *key* is None."""
    clock = ManualClock()
    simulator = Simulator(clock=clock, key=key, switches=switches, **{"renderer": sample_video, **arguments})
    async with serving(simulator) as urls, httpx.AsyncClient(headers={"Authorization": "Key id:secret"}) as http:
        yield Fal(simulator, clock, urls, http)
