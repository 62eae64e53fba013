"""
Storyboard: the planned shots of a job with their times, and the picture that it begins with.

Both are read from the call that started the job, by the same rules as then, so
a job of an earlier conversation has them too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from kling_mcp.catalog.models import TOOLS
from kling_mcp.catalog.plan import plan
from kling_mcp.errors import KlingError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kling_mcp.catalog.models import Catalog
    from kling_mcp.catalog.plan import InputSlot
    from kling_mcp.jobs.job import Job

__all__ = ["PlannedShot", "Storyboard", "storyboard"]


@dataclass(frozen=True, slots=True)
class PlannedShot:
    """One shot: its number from 1, what it shows, and where it stands in the video, in seconds."""

    number: int
    prompt: str
    start_seconds: int
    end_seconds: int


@dataclass(frozen=True, slots=True)
class Storyboard:
    """
    The shots of a job in order, and its first picture.

    Attributes:
        image: The first picture as the caller named it.
        image_url: Where fal reads it; None until it is uploaded.

    """

    shots: tuple[PlannedShot, ...]
    image: str | None
    image_url: str | None


def storyboard(catalog: Catalog, job: Job) -> Storyboard:
    """The storyboard of *job*; without shots where this catalog no longer takes its call."""
    intent = job.intent
    image = intent.arguments.get("image")
    call = json.dumps(intent.arguments, default=dict)
    shots, slot = _planned(catalog, intent.endpoint_id, intent.video_seconds, call)
    return Storyboard(shots, image if isinstance(image, str) else None, None if slot is None else _url(job.body, slot))


@lru_cache(maxsize=256)
def _planned(
    catalog: Catalog, endpoint_id: str, seconds: int, call: str
) -> tuple[tuple[PlannedShot, ...], InputSlot | None]:
    """
    The shots of a *call*, given as JSON, and its first picture; remembered, because a job is shown many times.

    Args:
        seconds: The length of the video, where the call does not say it.
    """
    arguments: dict[str, object] = json.loads(call)
    endpoint = catalog.by_endpoint_id(endpoint_id)
    if endpoint is None or endpoint.result != "video":
        return (), None
    tools = TOOLS[endpoint.mode]
    try:
        planned = plan(catalog, tools[-1] if arguments.get("shots") else tools[0], arguments, endpoint)
    except KlingError:
        return (), None
    parts = [(shot.prompt, shot.seconds) for shot in planned.shots]
    parts = parts or [(str(arguments.get("prompt") or arguments.get("text") or ""), planned.seconds or seconds)]
    shots: list[PlannedShot] = []
    start_seconds = 0
    for number, (prompt, seconds) in enumerate(parts, 1):
        shots.append(PlannedShot(number, prompt, start_seconds, start_seconds + seconds))
        start_seconds += seconds
    return tuple(shots), next((slot for slot in planned.pictures if slot.argument == "image"), None)


def _url(body: Mapping[str, object] | None, slot: InputSlot) -> str | None:
    """The URL in the place of *slot* in the request that was sent."""
    place: Any = body
    try:
        for part in slot.path:
            place = place[part]
    except (KeyError, IndexError, TypeError):
        return None
    return place if isinstance(place, str) else None
