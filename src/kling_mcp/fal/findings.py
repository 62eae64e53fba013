"""
Where in an answer about a paid job the thing is that is looked for.

fal documents one place for each. An answer that has it in another one, in a
list or in an object around the usual one, is still about a job that is paid.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from kling_mcp.fal.sanitize import clean
from kling_mcp.fal.tolerant_json import items, members, text
from kling_mcp.fal.urls import Address

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["AROUND", "Video", "count", "object_with", "standard_result", "video_of_body", "word"]

AROUND: Final = ("data", "response", "output", "outputs", "result", "results", "payload")
"""Members in which another object may wrap the one that is looked for."""
_VIDEO_NAMES: Final = ("video", "videos", "video_url")
_ADDRESS_NAMES: Final = ("url", "uri")
_LOOKED_AT: Final = 100
_VIDEO_FILE: Final = re.compile(r"https?://[^?]*\.(mp4|mov|webm|m4v)(\?.*)?|data:video/.*", re.IGNORECASE | re.DOTALL)
_INLINE: Final = re.compile(r"data:(video/[a-z0-9.+-]+|application/octet-stream)?(;[^,;]{1,80})*,", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Video:
    """The finished video as the result names it; *url* may be a ``data:`` URI."""

    url: str
    content_type: str | None
    file_name: str | None
    file_size: int | None


def object_with(name: str, answer: object) -> Mapping[str, object]:
    """The object in *answer* that has a member *name*, else the answer itself if it is an object."""
    found = (members(value) for value, _ in _inside(answer))
    return next((body for body in found if body.get(name) is not None), members(answer))


def video_of_body(body: object) -> Video | None:
    """The video that a result names, if it can be fetched."""
    found = (_video(value, named) for value, named in _inside(body))
    return next((video for video in found if video is not None), None)


def standard_result(answer: object) -> tuple[Mapping[str, object], Video | None]:
    """A result with its video where fal documents it, so that only this module looks for it, and the video."""
    body = members(answer) or {"output": answer}
    video = video_of_body(answer)
    if video is None or members(body.get("video")).get("url") == video.url:
        return body, video
    file = {
        "url": video.url,
        "content_type": video.content_type,
        "file_name": video.file_name,
        "file_size": video.file_size,
    }
    kept = {name: value for name, value in body.items() if name not in {*_VIDEO_NAMES, *AROUND}}
    return {**kept, "video": file}, video


def word(value: object) -> str | None:
    """A short text from outside, cleaned."""
    return clean(value, 100) or None


def count(value: object) -> int | None:
    """A whole number that can be one of bytes or places."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**15 else None


def _inside(answer: object) -> Iterator[tuple[object, bool]]:
    """*answer* and what it holds in lists and usual members, nearest first, and whether that is called a video."""
    waiting = [(answer, False)]
    for _ in range(_LOOKED_AT):
        if not waiting:
            return
        value, named = waiting.pop(0)
        yield value, named
        body = members(value)
        waiting += [(item, named) for item in items(value)[:_LOOKED_AT]]
        waiting += [(body[name], True) for name in _VIDEO_NAMES if name in body]
        waiting += [(body[name], named) for name in AROUND if name in body]


def _video(value: object, named: bool) -> Video | None:
    """*value* as a video, where it is called one or its address is that of one."""
    file = members(value)
    content_type = word(file.get("content_type"))
    for address in (value, *(file.get(name) for name in _ADDRESS_NAMES)):
        url = _fetchable(address)
        if url and (named or (content_type or "").startswith("video/") or _VIDEO_FILE.fullmatch(url)):
            return Video(url, content_type, word(file.get("file_name")), count(file.get("file_size")))
    return None


def _fetchable(value: object) -> str | None:
    """*value* as the address of a file, without what surrounds or follows it; None where it is not one."""
    url = text(value).strip(" \t\r\n\"'`<>")
    if _INLINE.match(url):
        return url
    url = quote(re.sub(r"[\r\n\t]", "", url).partition("#")[0], safe=_PRINTABLE)
    address = Address.read(url)
    return url if address is not None and address.is_private else None


_PRINTABLE: Final = "".join(map(chr, range(0x21, 0x7F)))
