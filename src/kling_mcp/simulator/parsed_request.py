"""
What a request body asks for: shots, pictures, sound.

Which field means what is the catalog's knowledge, so an endpoint that is
added there can be simulated without a change here.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes, urlsplit

from kling_mcp.json_types import is_list, is_object, items_of
from kling_mcp.simulator.queue import Shot

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kling_mcp.catalog.models import Argument, Endpoint
    from kling_mcp.simulator.storage import Files

__all__ = ["ParsedRequest", "missing_files", "picture", "read"]


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """
    A body, understood.

    ``first`` and ``last`` are the frames as they were given: an address or a
    ``data:`` URI. ``audio`` is None where the endpoint has no switch for it.
    """

    shots: tuple[Shot, ...]
    first: str | None
    last: str | None
    audio: bool | None
    voice: bool
    addresses: tuple[str, ...]

    @property
    def seconds(self) -> int:
        """The length of the whole video."""
        return sum(shot.seconds for shot in self.shots)


def read(endpoint: Endpoint, body: Mapping[str, object]) -> ParsedRequest:
    """What *body* asks of *endpoint*. A body that does not fit its schema is read as far as it goes."""
    pictures = [argument for argument in endpoint.arguments.values() if argument.kind == "picture"]
    frames = [body.get(argument.field) for argument in pictures if not argument.many][:2]
    first, last = [frame if isinstance(frame, str) else None for frame in (*frames, None, None)][:2]
    audio = endpoint.argument_of("sound")
    return ParsedRequest(
        shots=_shots(endpoint, body),
        first=first,
        last=last,
        audio=None if audio is None else bool(body.get(audio.field, audio.default)),
        voice=any(_values(endpoint.arguments, body, "voice")),
        addresses=tuple(_values(endpoint.arguments, body, "picture")),
    )


def missing_files(wish: ParsedRequest, files: Files) -> list[str]:
    """The addresses of *wish* that name this simulator's own storage and lead nowhere."""
    own = [url for url in wish.addresses if "/media/files/" in urlsplit(url).path]
    return [url for url in own if files.by_url(url) is None]


def picture(given: str | None, files: Files) -> bytes | None:
    """The bytes behind an address of this simulator or a ``data:`` URI; nothing else is fetched."""
    if given is None:
        return None
    if not given.startswith("data:"):
        file = files.by_url(given)
        return None if file is None else file.data
    head, _, payload = given.partition(",")
    try:
        return base64.b64decode(payload, validate=True) if head.endswith(";base64") else unquote_to_bytes(payload)
    except binascii.Error:
        return None


def _shots(endpoint: Endpoint, body: Mapping[str, object]) -> tuple[Shot, ...]:
    listed = endpoint.argument_of("shot")
    members = [] if listed is None else _objects(body.get(listed.field))
    if listed is not None and members:
        text, length = (_of_kind(listed.items, kind) for kind in ("text", "length"))
        return tuple(Shot(_text(text, member), _seconds(length, member)) for member in members)
    text, length = (_of_kind(endpoint.arguments, kind) for kind in ("text", "length"))
    return (Shot(_text(text, body), _seconds(length, body)),)


def _values(arguments: Mapping[str, Argument], body: Mapping[str, object], kind: str) -> Iterator[str]:
    """Every text that stands where an argument of *kind* goes, also inside lists and objects."""
    for argument in arguments.values():
        value = body.get(argument.field)
        for member in value if is_list(value) else [value]:
            if argument.kind == kind and isinstance(member, str) and member:
                yield member
            if argument.items and is_object(member):
                yield from _values(argument.items, member, kind)


def _of_kind(arguments: Mapping[str, Argument], kind: str) -> Argument | None:
    return next((argument for argument in arguments.values() if argument.kind == kind), None)


def _text(argument: Argument | None, body: Mapping[str, object]) -> str:
    return "" if argument is None else str(body.get(argument.field) or "")


def _seconds(argument: Argument | None, body: Mapping[str, object]) -> int:
    if argument is None:
        return 5
    value = str(body.get(argument.field, argument.default))
    return int(value) if value.isdigit() and 0 < int(value) <= 60 else 5


def _objects(value: object) -> list[Mapping[str, object]]:
    return [member for member in items_of(value) if is_object(member)]
