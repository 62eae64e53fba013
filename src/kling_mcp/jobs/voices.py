"""
Voices that jobs have made: which name means which id.

A voice is kept as the job that made it, so a name is taken from the moment on in which the job is on disk, and an id
is there as soon as fal's result is.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from kling_mcp.errors import InputRefused, InvalidArguments
from kling_mcp.ids import job_id_in, unwrapped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kling_mcp.jobs.job import Job, NewVoice

__all__ = ["refuse_taken", "voice_meant"]


def refuse_taken(voices: Sequence[Job], wanted: NewVoice) -> None:
    """
    See whether a new voice may be called so; the same sample may be made into a voice of the same name again.

    Raises:
        InvalidArguments: One of *voices* has the name, and another sample.
    """
    for job in voices:
        voice = job.intent.voice
        if wanted.key and voice is not None and voice.key == wanted.key and voice.sample != wanted.sample:
            raise InvalidArguments(
                f"A voice made from another sample is called {voice.name} already (job {job.job_id}).",
                "Give another name; kling://voices lists those that are there.",
                field="name",
            )


def voice_meant(value: str, voices: Sequence[Job], field: str) -> tuple[str, str | None]:
    """
    The id that *value* means, a voice's name, its job or an id from elsewhere, and a warning where that is a guess.

    Args:
        voices: The jobs that have made a voice, or still may, newest first.
        field: The argument that it came in.

    Raises:
        InputRefused: It is none of them, or the voice is still being made.
    """
    key, job_id = " ".join(unwrapped(value).casefold().split()), job_id_in(value)
    named = [job for job in voices if (job.intent.voice and job.intent.voice.key == key) or job.job_id == job_id]
    if found := next((job.voice_id for job in named if job.voice_id), None):
        return found, None
    if named:
        raise InputRefused(
            f"{field} is {value[:80]!r}, a voice that job {named[0].job_id} is still making (it is {named[0].state}).",
            f"get_job with job_id {named[0].job_id} and wait_seconds 45 waits for it.",
            field=field,
        )
    if any(job.voice_id == value for job in voices) or any(letter.isdigit() for letter in value):
        return value, None
    names = tuple(dict.fromkeys(job.intent.voice.name for job in voices if job.intent.voice and job.intent.voice.name))
    nearest = get_close_matches(key, [name.casefold() for name in names], n=1, cutoff=0.6)
    meant = next((name for name in names if [name.casefold()] == nearest), None)
    if meant is not None or len(key.split()) > 1:
        hint = f"The nearest is {meant}. " if meant else ""
        listed = f"Voices made here: {', '.join(names)}." if names else "create_voice makes one."
        raise InputRefused(
            f"{field} is {value[:80]!r}, which is no voice that was made here, and no id of fal.ai's.",
            f"{hint}{listed}",
            field=field,
            allowed=names,
        )
    return value, f"{field} {value[:80]} is no voice that was made here, so it is sent to fal.ai as the id of one."
