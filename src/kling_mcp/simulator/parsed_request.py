"""
What a request body asks for: shots, pictures, recordings, sound.

Which field means what is the catalog's knowledge, so an endpoint that is
added there can be simulated without a change here.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes, urlsplit

from kling_mcp.json_types import is_list, is_object, items_of
from kling_mcp.simulator.media import Recording, Unreadable, first_frame, recording_of
from kling_mcp.simulator.queue import Shot

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kling_mcp.catalog.models import Argument, Endpoint
    from kling_mcp.simulator.storage import Files

__all__ = ["MediaInput", "ParsedRequest", "opening", "read"]

_MEDIA: Final = frozenset({"picture", "video", "audio"})
_RECORDINGS: Final = frozenset({"video", "audio"})
_USUAL_SECONDS: Final = 5
"""How long a video is of an input that cannot be looked at."""


@dataclass(frozen=True, slots=True, eq=False)
class MediaInput:
    """
    A picture, video or sound of a body.

    Attributes:
        argument: What the catalog knows of its place.
        name: The argument at the top of a call that it belongs to.
        place: Where it stands, as fal's errors say it without ``body``.
        value: An address or a ``data:`` URI.
    """

    argument: Argument
    name: str
    place: tuple[str | int, ...]
    value: str

    def is_missing(self, files: Files) -> bool:
        """Whether it names this simulator's own storage and leads nowhere."""
        return "/media/files/" in urlsplit(self.value).path and files.by_url(self.value) is None

    def data(self, files: Files) -> bytes | None:
        """The bytes behind an address of this simulator or a ``data:`` URI; nothing else is fetched."""
        if not self.value.startswith("data:"):
            file = files.by_url(self.value)
            return None if file is None else file.data
        head, _, payload = self.value.partition(",")
        try:
            return base64.b64decode(payload, validate=True) if head.endswith(";base64") else unquote_to_bytes(payload)
        except binascii.Error:
            return b""

    def recording(self, files: Files) -> Recording | None:
        """What the video or sound is, if it is at hand and can be read."""
        data = self.data(files)
        try:
            return None if data is None else recording_of(data)
        except Unreadable:
            return None


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """
    A body, understood.

    Attributes:
        first: What the video begins with: a picture, or a video whose first frame it is.
        last: The picture that it ends with.
        shape: Width by height, where the body says it.
        audio: None where the endpoint has no switch for it.
        sound: Whether there is sound in the video.
        tier: What the price depends on, where that is an argument of its own.
        lengths: The arguments that are given, with the seconds of those that are videos and sounds.
    """

    shots: tuple[Shot, ...]
    inputs: tuple[MediaInput, ...]
    first: MediaInput | None
    last: MediaInput | None
    shape: float | None
    audio: bool | None
    sound: bool
    voice: bool
    tier: str
    lengths: Mapping[str, Decimal | None]

    @property
    def seconds(self) -> float:
        """The length of the whole video."""
        return sum(shot.seconds for shot in self.shots)


def read(endpoint: Endpoint, body: Mapping[str, object], files: Files) -> ParsedRequest:
    """What *body* asks of *endpoint*. A body that does not fit its schema is read as far as it goes."""
    inputs = tuple(_inputs(endpoint.arguments, body))
    recordings = {given: given.recording(files) for given in inputs if given.argument.kind in _RECORDINGS}
    lengths: dict[str, Decimal | None] = {
        name: None for name, argument in endpoint.arguments.items() if body.get(argument.field) is not None
    }
    for given, recording in recordings.items():
        seconds = _usual_seconds(given.argument) if recording is None else recording.seconds
        lengths[given.name] = (lengths[given.name] or Decimal(0)) + seconds
    frames = [argument for argument in endpoint.arguments.values() if argument.kind == "picture" and not argument.many]
    first, last, *_ = *(_given_as(argument.name, inputs) for argument in frames), None, None
    audio = endpoint.argument_of("sound")
    tier = endpoint.arguments.get(endpoint.tier_argument)
    return ParsedRequest(
        shots=_shots(endpoint, body, lengths),
        inputs=inputs,
        first=first or next((given for given in inputs if given.argument.kind == "video"), None),
        last=last,
        shape=_shape(endpoint, body),
        audio=None if audio is None else bool(body.get(audio.field, audio.default)),
        sound=_sound(endpoint, body, recordings),
        voice=any(_values(endpoint.arguments, body, "voice")),
        tier="" if tier is None else str(body.get(tier.field, tier.default)),
        lengths=lengths,
    )


def opening(wish: ParsedRequest, files: Files) -> bytes | None:
    """The picture that the video of *wish* begins with, if it is at hand."""
    data = None if wish.first is None else wish.first.data(files)
    return first_frame(data) if data and wish.first and wish.first.argument.kind == "video" else data


def _inputs(
    arguments: Mapping[str, Argument], body: Mapping[str, object], name: str = "", place: tuple[str | int, ...] = ()
) -> Iterator[MediaInput]:
    """Every picture, video and sound, also inside lists and objects."""
    for argument in arguments.values():
        value = body.get(argument.field)
        here = (*place, argument.field)
        members = enumerate(value) if is_list(value) else [(None, value)]
        for index, member in members:
            there = here if index is None else (*here, index)
            if argument.kind in _MEDIA and isinstance(member, str) and member:
                yield MediaInput(argument, name or argument.name, there, member)
            if argument.items and is_object(member):
                yield from _inputs(argument.items, member, name or argument.name, there)


def _values(arguments: Mapping[str, Argument], body: Mapping[str, object], kind: str) -> Iterator[str]:
    """Every text that stands where an argument of *kind* goes, also inside lists and objects."""
    for argument in arguments.values():
        value = body.get(argument.field)
        for member in value if is_list(value) else [value]:
            if argument.kind == kind and isinstance(member, str) and member:
                yield member
            if argument.items and is_object(member):
                yield from _values(argument.items, member, kind)


def _given_as(name: str, inputs: tuple[MediaInput, ...]) -> MediaInput | None:
    return next((given for given in inputs if given.name == name), None)


def _usual_seconds(argument: Argument) -> Decimal:
    limits, usual = argument.limits, Decimal(_USUAL_SECONDS)
    if limits is None:
        return usual
    return max(limits.min_seconds or usual, min(limits.max_seconds or usual, usual))


def _sound(endpoint: Endpoint, body: Mapping[str, object], recordings: Mapping[MediaInput, Recording | None]) -> bool:
    switch = endpoint.argument_of("sound") or endpoint.argument_of("keep_sound")
    if endpoint.sound in {"always", "none"} or switch is None:
        return endpoint.sound == "always"
    on = bool(body.get(switch.field, switch.default))
    # What has no sound has none to be kept.
    own = [seen for given, seen in recordings.items() if given.argument.name == given.name]
    return on and not (endpoint.sound == "kept" and any(seen is not None and not seen.sound for seen in own))


def _shape(endpoint: Endpoint, body: Mapping[str, object]) -> float | None:
    argument = endpoint.arguments.get("aspect_ratio")
    value = "" if argument is None else str(body.get(argument.field, argument.default))
    sides = re.fullmatch(r"([1-9]\d?):([1-9]\d?)", value)
    return int(sides[1]) / int(sides[2]) if sides else None


def _shots(endpoint: Endpoint, body: Mapping[str, object], lengths: Mapping[str, Decimal | None]) -> tuple[Shot, ...]:
    listed = endpoint.argument_of("shot")
    members = [] if listed is None else [one for one in items_of(body.get(listed.field)) if is_object(one)]
    if listed is not None and members:
        text, length = (_of_kind(listed.items, kind) for kind in ("text", "length"))
        return tuple(Shot(_text(text, member), _seconds(length, member)) for member in members)
    text, length = _of_kind(endpoint.arguments, "text"), endpoint.length
    if length is not None:
        return (Shot(_text(text, body), _seconds(length, body)),)
    # What is made is as long as what is paid for, or else as the first video or sound.
    measured = [name for case in endpoint.billed for name in endpoint.measured(case)]
    known = [lengths.get(name) for name in (*measured, *lengths)]
    return (Shot(_text(text, body), float(next(filter(None, known), _USUAL_SECONDS))),)


def _of_kind(arguments: Mapping[str, Argument], kind: str) -> Argument | None:
    return next((argument for argument in arguments.values() if argument.kind == kind), None)


def _text(argument: Argument | None, body: Mapping[str, object]) -> str:
    return "" if argument is None else str(body.get(argument.field) or "")


def _seconds(argument: Argument | None, body: Mapping[str, object]) -> int:
    """The length that *body* says, or the endpoint's own, or its longest."""
    if argument is None:
        return _USUAL_SECONDS
    value = str(body.get(argument.field, argument.default))
    if value.isdigit() and 0 < int(value) <= 60:
        return int(value)
    return argument.lengths[-1] if argument.default is None and argument.lengths else _USUAL_SECONDS
