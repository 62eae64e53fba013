"""Names of saved videos: what a person looks for in a folder, in letters that every file system takes."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["video_name"]

_MAX_CHARACTERS: Final = 80
_ENDING: Final = ".mp4"
_TAIL_CHARACTERS: Final = 8
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9]+")


def video_name(created: datetime, model: str, prompt: str, job_id: str) -> str:
    """
    A name such as ``2026-11-21_o3-standard_a-red-fox-runs_4f6a9c21.mp4``.

    It has the date, the model, the first words of the prompt and the end of the job's id, at most 80 characters of
    ``A-Z a-z 0-9 . _ -``, and does not start with a dot. Accents are dropped; other
    scripts than Latin are left out.
    """
    date = f"{created:%Y-%m-%d}"
    tail = _plain(job_id)[-_TAIL_CHARACTERS:].strip("-")
    model = _plain(model)[:24].strip("-")
    room = _MAX_CHARACTERS - len(_ENDING) - sum(len(part) + 1 for part in (date, model, tail))
    parts = (date, model, _whole_words(_plain(prompt), room), tail)
    return "_".join(part for part in parts if part) + _ENDING


def _plain(text: str) -> str:
    letters = unicodedata.normalize("NFKD", text[:400]).encode("ascii", "ignore").decode("ascii")
    return _UNSAFE.sub("-", letters).strip("-")


def _whole_words(text: str, room: int) -> str:
    if len(text) <= room:
        return text
    cut, _, _ = text[: room + 1].rpartition("-")
    return cut or text[:room]
