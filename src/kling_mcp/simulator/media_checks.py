"""
The checks of the pictures, videos and sounds of a body, complaining as fal's runners do.

What is in the simulator's own storage, or in a ``data:`` URI, is looked at; what is elsewhere cannot be fetched and
passes. fal has no words for a video of the wrong size or frame rate, so these are not checked.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Final

from kling_mcp.simulator.media import Unreadable, picture_of, recording_of
from kling_mcp.simulator.outcomes import ERROR_TYPES
from kling_mcp.simulator.validation import Complaint, entry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from kling_mcp.catalog.models import Endpoint, MediaLimits
    from kling_mcp.simulator.media import Picture
    from kling_mcp.simulator.parsed_request import MediaInput
    from kling_mcp.simulator.storage import Files

__all__ = ["media_complaints"]

_ALIASES: Final = {"jpg": "jpeg", "quicktime": "mov", "mpeg": "mp3", "x-wav": "wav", "x-m4a": "m4a"}


def media_complaints(
    endpoint: Endpoint, body: Mapping[str, object], inputs: Iterable[MediaInput], files: Files
) -> list[Complaint]:
    """What is wrong with *inputs*, those of *body*: for each the first that fal would find."""
    found: list[Complaint] = []
    for given in inputs:
        for kind, context in _faults(endpoint, body, given, files):
            shown = "data:" if given.value.startswith("data:") else given.value
            found.append(entry(["body", *given.place], kind, ERROR_TYPES[kind].message, shown, context))
            break
    return found


def _faults(
    endpoint: Endpoint, body: Mapping[str, object], given: MediaInput, files: Files
) -> Iterator[tuple[str, Complaint]]:
    if given.is_missing(files):
        yield "file_download_error", {}
    data, limits = given.data(files), given.argument.limits
    if data is None:
        return
    if limits is not None and limits.max_bytes is not None and len(data) > limits.max_bytes:
        yield "file_too_large", {"max_size": limits.max_bytes}
    if given.argument.kind == "picture":
        yield from _picture_faults(data, limits)
    else:
        yield from _recording_faults(data, limits, given.argument.kind, list(_rules(endpoint, body, given)))


def _picture_faults(data: bytes, limits: MediaLimits | None) -> Iterator[tuple[str, Complaint]]:
    try:
        picture = picture_of(data)
    except Unreadable:
        yield "image_load_error", {}
        return
    if picture is None or limits is None:
        return
    if limits.formats and picture.format not in _formats(limits):
        yield "unsupported_image_format", {"supported_formats": list(limits.formats)}
    if picture.width < (limits.min_width or 0) or picture.height < (limits.min_height or 0):
        yield "image_too_small", {"min_height": limits.min_height, "min_width": limits.min_width}
    if _is_over(picture.width, limits.max_width) or _is_over(picture.height, limits.max_height):
        yield "image_too_large", {"max_height": limits.max_height, "max_width": limits.max_width}
    if not _has_ratio(picture, limits):
        least, most = limits.min_aspect_ratio, limits.max_aspect_ratio
        yield (
            "image_aspect_ratio_error",
            {"min_aspect_ratio": least and float(least), "max_aspect_ratio": most and float(most)},
        )


def _has_ratio(picture: Picture, limits: MediaLimits) -> bool:
    ratio = Decimal(picture.width) / picture.height
    return ratio >= (limits.min_aspect_ratio or 0) and not _is_over(ratio, limits.max_aspect_ratio)


def _recording_faults(
    data: bytes, limits: MediaLimits | None, kind: str, longest: list[Decimal]
) -> Iterator[tuple[str, Complaint]]:
    formats = [] if limits is None else list(limits.formats)
    try:
        recording = recording_of(data)
    except Unreadable:
        yield f"unsupported_{kind}_format", {"supported_formats": formats}
        return
    if limits is not None and recording is not None and formats and recording.format not in _formats(limits):
        yield f"unsupported_{kind}_format", {"supported_formats": formats}
    if recording is None:
        return
    if limits is not None and limits.max_seconds is not None:
        longest = [*longest, limits.max_seconds]
    provided = float(recording.seconds)
    if limits is not None and limits.min_seconds is not None and recording.seconds < limits.min_seconds:
        yield f"{kind}_duration_too_short", {"min_duration": float(limits.min_seconds), "provided_duration": provided}
    if longest and recording.seconds > min(longest):
        yield f"{kind}_duration_too_long", {"max_duration": float(min(longest)), "provided_duration": provided}


def _rules(endpoint: Endpoint, body: Mapping[str, object], given: MediaInput) -> Iterator[Decimal]:
    """How long *given* may be beside what else is in *body*."""
    for rule in endpoint.rules:
        if rule.kind != "seconds" or given.argument.name not in rule.of:
            continue
        other = endpoint.arguments.get(rule.argument)
        if other is None or body.get(other.field, other.default) == rule.value:
            yield Decimal(rule.max)


def _formats(limits: MediaLimits) -> set[str]:
    names = (name.lower().rpartition("/")[2].removeprefix(".") for name in limits.formats)
    return {_ALIASES.get(name, name) for name in names}


def _is_over(value: Decimal | int, most: Decimal | int | None) -> bool:
    return most is not None and value > most
