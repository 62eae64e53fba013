"""Job ids as people, hosts and models write them."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

__all__ = ["job_id_in", "unwrapped"]

_WRAPPING: Final = " \t\r\n\f\v\u00a0\u200b\ufeff\"'`\u201c\u201d\u2018\u2019\u00ab\u00bb"
_AROUND: Final = _WRAPPING + "<>()[]{}*.,;:"
_LABEL: Final = re.compile(r"(?:(?:job|request)[ _-]?(?:id)?|id)(?:\s*[:=#]\s*|\s+)", re.IGNORECASE)
_ADDRESS: Final = re.compile(r"kling:/*(?:jobs/)?", re.IGNORECASE)
_PREFIX: Final = re.compile(r"kj\\?[_-]", re.IGNORECASE)
_WITHOUT_PREFIX: Final = re.compile(r"[A-Za-z0-9_-]{22}")


def unwrapped(text: str) -> str:
    """*text* without the blanks, quotes and backticks around it."""
    return text.strip(_WRAPPING)


def job_id_in(text: str) -> str:
    """
    The id that *text* names: of a job here, or fal's request id or whatever else it is, as it was written.

    Read are ids in backticks, quotes or brackets, behind a label, in an address such as
    ``kling://jobs/kj_…/last-frame``, and without ``kj_``.
    """
    found = _LABEL.sub("", text.strip(_AROUND), count=1).strip(_AROUND)
    if _ADDRESS.match(found):
        found = unquote(re.split(r"[/?#]", _ADDRESS.sub("", found, count=1), maxsplit=1)[0]).strip(_AROUND)
    if prefix := _PREFIX.match(found):
        return "kj_" + found[prefix.end() :].replace("\\", "")
    return f"kj_{found}" if _WITHOUT_PREFIX.fullmatch(found) else found
