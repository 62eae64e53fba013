"""
Edit list: a film as an OpenTimelineIO file (``.otio``), for video editors.

Each clip of the film is a clip of the timeline. Its takes are media references, with the take in the film active, and
its shots are markers. Ranges are in whole pictures at the film's rate, so that an editor rounds nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from fractions import Fraction
    from pathlib import Path

__all__ = ["EditClip", "Shot", "Take", "edit_list"]

_ACTIVE: Final = "DEFAULT_MEDIA"
_COLOUR: Final = "GREEN"


@dataclass(frozen=True, slots=True)
class Take:
    """
    A video that was made for a clip.

    Args:
        name: What it is called in the editor, such as ``Take 2``.
        video: Its file.
        frames: How many pictures it has, at the film's rate.
    """

    name: str
    video: Path
    frames: int


@dataclass(frozen=True, slots=True)
class Shot:
    """
    Where a shot begins.

    Args:
        name: What it is called.
        start_frame: Its first picture, counted in the clip from 0.
        frames: How many pictures it has.
        prompt: What it was asked to show.
    """

    name: str
    start_frame: int
    frames: int
    prompt: str = ""


@dataclass(frozen=True, slots=True)
class EditClip:
    """
    A clip of the film.

    Args:
        name: What it is called.
        take: What is in the film.
        frames: How many pictures of it are in the film.
        others: Its other takes.
        shots: Its shots.
        start_frame: The first picture of the take that is in the film.
        facts: Metadata, such as its job and prompt.
    """

    name: str
    take: Take
    frames: int
    others: tuple[Take, ...] = ()
    shots: tuple[Shot, ...] = ()
    start_frame: int = 0
    facts: Mapping[str, str] = field(default_factory=dict[str, str])


def edit_list(title: str, clips: Sequence[EditClip], rate: Fraction, *, sound: bool) -> bytes:
    """
    The ``.otio`` file of a film.

    Args:
        title: The film's.
        clips: In their order.
        rate: Pictures per second.
        sound: Whether there is a track of sound beside the pictures.
    """
    fps = float(rate)
    kinds = ["Video", "Audio"] if sound else ["Video"]
    timeline: dict[str, object] = {
        "OTIO_SCHEMA": "Timeline.1",
        "name": title,
        "metadata": {},
        "global_start_time": _time(0, fps),
        "tracks": {
            "OTIO_SCHEMA": "Stack.1",
            "name": "tracks",
            "metadata": {},
            "source_range": None,
            "effects": [],
            "markers": [],
            "children": [_track(kind, clips, fps) for kind in kinds],
        },
    }
    return json.dumps(timeline, ensure_ascii=False, indent=1).encode("utf-8", "replace")


def _track(kind: str, clips: Sequence[EditClip], fps: float) -> dict[str, object]:
    return {
        "OTIO_SCHEMA": "Track.1",
        "name": kind,
        "kind": kind,
        "metadata": {},
        "source_range": None,
        "effects": [],
        "markers": [],
        # Markers on one track are enough.
        "children": [_clip(clip, fps, marked=kind == "Video") for clip in clips],
    }


def _clip(clip: EditClip, fps: float, *, marked: bool) -> dict[str, object]:
    return {
        "OTIO_SCHEMA": "Clip.2",
        "name": clip.name,
        "metadata": {"kling-mcp": dict(clip.facts)} if clip.facts else {},
        "source_range": _range(clip.start_frame, clip.frames, fps),
        "effects": [],
        "markers": [_marker(shot, clip.start_frame, fps) for shot in clip.shots] if marked else [],
        "enabled": True,
        "media_references": {
            _ACTIVE: _media(clip.take, fps),
            **{_key(clip, number): _media(take, fps) for number, take in enumerate(clip.others)},
        },
        "active_media_reference_key": _ACTIVE,
    }


def _key(clip: EditClip, number: int) -> str:
    """A name for another take that no other in the clip has."""
    name = clip.others[number].name
    taken = {_ACTIVE, "", *(take.name for take in clip.others[:number])}
    return f"{name} ({number + 2})" if name in taken else name


def _media(take: Take, fps: float) -> dict[str, object]:
    return {
        "OTIO_SCHEMA": "ExternalReference.1",
        "name": take.name,
        "metadata": {},
        "available_range": _range(0, take.frames, fps),
        "available_image_bounds": None,
        "target_url": take.video.absolute().as_uri(),
    }


def _marker(shot: Shot, begin: int, fps: float) -> dict[str, object]:
    return {
        "OTIO_SCHEMA": "Marker.2",
        "name": shot.name,
        "comment": shot.prompt,
        "color": _COLOUR,
        "metadata": {},
        "marked_range": _range(begin + shot.start_frame, shot.frames, fps),
    }


def _range(start: int, frames: int, fps: float) -> dict[str, object]:
    return {
        "OTIO_SCHEMA": "TimeRange.1",
        "start_time": _time(start, fps),
        "duration": _time(frames, fps),
    }


def _time(value: int, fps: float) -> dict[str, object]:
    return {"OTIO_SCHEMA": "RationalTime.1", "rate": fps, "value": float(value)}
