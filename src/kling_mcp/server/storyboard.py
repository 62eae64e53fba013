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
    arguments = job.intent.arguments
    image = arguments.get("image")
    shots, slot = _planned(catalog, json.dumps(arguments, default=dict))
    return Storyboard(shots, image if isinstance(image, str) else None, None if slot is None else _url(job.body, slot))


@lru_cache(maxsize=256)
def _planned(catalog: Catalog, call: str) -> tuple[tuple[PlannedShot, ...], InputSlot | None]:
    """The shots of a *call*, given as JSON, and its first picture; remembered, because a job is shown many times."""
    arguments: dict[str, object] = json.loads(call)
    try:
        planned = plan(catalog, "multi_shot_video" if arguments.get("shots") else "image_to_video", arguments)
    except KlingError:
        return (), None
    parts = [(shot.prompt, shot.seconds) for shot in planned.shots]
    parts = parts or [(str(arguments.get("prompt") or ""), planned.seconds)]
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
