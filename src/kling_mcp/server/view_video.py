"""
`view_video`: frames of a finished video, for an assistant that cannot play one.

The answer is one picture and a short text. It has no structured half, and the
tool no output schema: several hosts drop a picture that stands beside one.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio.to_thread
import mcp_types as t

from kling_mcp.errors import InvalidArguments, NotAvailable
from kling_mcp.jobs.job import ENDED
from kling_mcp.media.frames import contact_sheet
from kling_mcp.server.arguments import read
from kling_mcp.server.inputs import ViewVideo
from kling_mcp.server.storyboard import storyboard
from kling_mcp.texts import showable

if TYPE_CHECKING:
    from kling_mcp.jobs.job import Job
    from kling_mcp.server.context import Call
    from kling_mcp.server.storyboard import PlannedShot

__all__ = ["view_video"]

_PROMPT_CHARACTERS: Final = 160


async def view_video(call: Call) -> t.CallToolResult:
    """
    Frames of the video of a job, as a picture.

    Raises:
        InvalidArguments: The arguments are wrong, or the job has no video (yet).
        UnknownJob: No such job.
        NotAvailable: The video is not on this machine or cannot be read.
    """
    app, given = call.app, read(call.arguments, ViewVideo)
    job = await call.budget.within(lambda: app.store.get(given.job_id))
    if job.saved_to is None:
        raise _nothing_to_show(job, saves_videos=app.settings.output_dir is not None)
    shots = storyboard(app.catalog, job).shots
    labels = [(float(shot.start_seconds), f"shot {shot.number}") for shot in shots]
    sheet = await anyio.to_thread.run_sync(contact_sheet, Path(job.saved_to), given.frames, labels)
    return t.CallToolResult(
        content=[
            t.TextContent(type="text", text=showable(_caption(job, given.frames, shots))),
            t.ImageContent(type="image", data=base64.b64encode(sheet).decode(), mime_type="image/jpeg"),
        ]
    )


def _caption(job: Job, frames: int, shots: tuple[PlannedShot, ...]) -> str:
    several = "One frame" if frames == 1 else f"{frames} frames in reading order"
    planned: list[str] = []
    for shot in shots:
        prompt = " ".join(shot.prompt.split())
        if len(prompt) > _PROMPT_CHARACTERS:
            prompt = f"{prompt[: _PROMPT_CHARACTERS - 1]}…"
        planned.append(f"shot {shot.number}, {shot.start_seconds} to {shot.end_seconds} s: {prompt}")
    shown = "; ".join(planned).rstrip(".") or "unknown"
    return f"{several} of the video of job {job.job_id}, saved at {job.saved_to}. Planned: {shown}."


def _nothing_to_show(job: Job, *, saves_videos: bool) -> InvalidArguments | NotAvailable:
    """Why *job* has no frames to show, and what would help."""
    get_job = f"get_job with job_id {job.job_id}"
    if job.intent.voice is not None:
        return InvalidArguments(
            f"Job {job.job_id} makes a voice, so there is no video to look at.",
            f"{get_job} has the voice's id; list_jobs shows the jobs with videos.",
            field="job_id",
            billed=job.billed,
            job_id=job.job_id,
        )
    if job.state != "completed":
        step = f"{get_job} says what became of it." if job.state in ENDED else f"{get_job} and wait_seconds 45 waits."
        return InvalidArguments(
            f"Job {job.job_id} is {job.state}, so there is no video to look at.",
            step,
            field="job_id",
            # Of the job: that looking is free is no news, and must not be read as news of the job.
            billed=job.billed,
            job_id=job.job_id,
        )
    if job.save_trouble is not None:
        what, step = f"could not be saved: {job.save_trouble}", f"{get_job} tries to save it once more."
    elif not saves_videos:
        what = "was not saved, because KLING_MCP_OUTPUT_DIR is set to none."
        step = f"{get_job} has the link for the user; the videos of a server that saves them can be viewed."
    else:
        what, step = "is still being saved.", f"{get_job} and wait_seconds 45 waits for it."
    return NotAvailable(
        f"The video of job {job.job_id} {what}", step, field="job_id", billed=job.billed, job_id=job.job_id
    )
