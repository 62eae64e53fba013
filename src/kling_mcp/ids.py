"""Job ids as people, hosts and models write them, and the addresses made of them."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

from kling_mcp.texts import BLANKS

__all__ = ["job_id_in", "last_frame_uri", "unwrapped"]

_WRAPPING: Final = BLANKS + "\"'`\u201c\u201d\u2018\u2019\u00ab\u00bb"
_AROUND: Final = _WRAPPING + "<>()[]{}*.,;:"
_LONGEST: Final = 2_000
_LABEL: Final = re.compile(r"(?:(?:job|request)[ _-]?(?:id)?|id)(?:\s*[:=#]\s*|\s+)", re.IGNORECASE)
_ADDRESS: Final = re.compile(r"kling:/*(?:jobs/)?", re.IGNORECASE)
_PREFIX: Final = re.compile(r"kj\\?[_-]", re.IGNORECASE)
_WITHOUT_PREFIX: Final = re.compile(r"[A-Za-z0-9_-]{22}")
_OURS: Final = re.compile(r"(?<![A-Za-z0-9])kj[_-]([A-Za-z0-9_-]{22})(?![A-Za-z0-9_-])", re.IGNORECASE)
_FALS: Final = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE)


def unwrapped(text: str) -> str:
    """*text* without the blanks, quotes and backticks around it."""
    return text.strip(_WRAPPING)


def job_id_in(text: str) -> str:
    """
    The id that *text* names: of a job here, or fal's request id or whatever else it is, as it was written.

    A whole id is found anywhere in a text that has no other one: in quotes, in JSON, in an address of ours or of fal.
    Read are also ids behind a label, in an address such as ``kling://jobs/…/last-frame``, and without ``kj_``.
    """
    plain = unquote(text[:_LONGEST]).replace("\\", "")
    for ids in ({f"kj_{one}" for one in _OURS.findall(plain)}, {one.lower() for one in _FALS.findall(plain)}):
        if len(ids) == 1:
            return ids.pop()
        if ids:
            return text.strip(_AROUND)
    found = _LABEL.sub("", text.strip(_AROUND), count=1).strip(_AROUND)
    if _ADDRESS.match(found):
        found = unquote(re.split(r"[/?#]", _ADDRESS.sub("", found, count=1), maxsplit=1)[0]).strip(_AROUND)
    if prefix := _PREFIX.match(found):
        return "kj_" + found[prefix.end() :].replace("\\", "")
    return f"kj_{found}" if _WITHOUT_PREFIX.fullmatch(found) else found


def last_frame_uri(job_id: str) -> str:
    """The resource, and picture argument, that is the last frame of a job's video."""
    return f"kling://jobs/{job_id}/last-frame"
