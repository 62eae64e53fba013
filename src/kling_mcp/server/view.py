"""
`view_video`: frames of a finished video, for an assistant that cannot play one.

The answer is one picture and a short text. It has no structured half, and the
tool no output schema: several hosts drop a picture that stands beside one.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import anyio.to_thread
import mcp_types as t

from kling_mcp.errors import InvalidArguments, NotAvailable
from kling_mcp.jobs.job import ENDED
from kling_mcp.server import schemas
from kling_mcp.server.arguments import read
from kling_mcp.server.storyboard import storyboard
from kling_mcp.texts import showable

if TYPE_CHECKING:
    from kling_mcp.jobs.job import Job
    from kling_mcp.server.app import App
    from kling_mcp.server.storyboard import PlannedShot
    from kling_mcp.server.tools import Call

__all__ = ["DESCRIPTION", "schema", "view"]

MOST_FRAMES: Final = 9
_FRAMES: Final = 4
_PROMPT_CHARACTERS: Final = 160

DESCRIPTION: Final = "Free. Frames of a finished, saved video on one JPEG, each with its time and shot."


def schema() -> schemas.Schema:
    """What the tool takes."""
    return schemas.object_schema(
        {
            "job_id": {"type": "string", "description": "A completed job."},
            "frames": {
                "type": "integer",
                "minimum": 1,
                "maximum": MOST_FRAMES,
                "description": f"1 to {MOST_FRAMES} (default {_FRAMES}).",
            },
        },
        ["job_id"],
    )


async def view(call: Call) -> t.CallToolResult:
    """
    Frames of the video of a job, as a picture.

    Raises:
        InvalidArguments: The arguments are wrong, or the job has no video (yet).
        UnknownJob: No such job.
        NotAvailable: The video is not on this machine or cannot be read.
    """
    from kling_mcp.media.frames import contact_sheet

    app, given = call.app, read(call.arguments, schema())
    frames = cast("int", given.get("frames", _FRAMES))
    job = await call.budget.within(lambda: app.service.store.get(str(given["job_id"])))
    saved_to = job.saved_to or _refuse(app, job)
    shots = storyboard(app.catalog, job).shots
    labels = [(float(shot.start_seconds), f"shot {shot.number}") for shot in shots]
    sheet = await anyio.to_thread.run_sync(contact_sheet, Path(saved_to), frames, labels)
    return t.CallToolResult(
        content=[
            t.TextContent(type="text", text=showable(_caption(job, frames, shots))),
            t.ImageContent(type="image", data=base64.b64encode(sheet).decode(), mime_type="image/jpeg"),
        ]
    )


def _caption(job: Job, frames: int, shots: tuple[PlannedShot, ...]) -> str:
    several = "One frame" if frames == 1 else f"{frames} frames in reading order"
    planned = "; ".join(
        f"shot {shot.number}, {shot.start_seconds} to {shot.end_seconds} s: {_short(shot.prompt)}" for shot in shots
    )
    planned = planned.rstrip(".") or "unknown"
    return f"{several} of the video of job {job.job_id}, saved at {job.saved_to}. Planned: {planned}."


def _short(prompt: str) -> str:
    line = " ".join(prompt.split())
    return line if len(line) <= _PROMPT_CHARACTERS else line[: _PROMPT_CHARACTERS - 1] + "…"


def _refuse(app: App, job: Job) -> str:
    """
    Say why there is nothing to show, and what would help.

    Raises:
        InvalidArguments: The job has no video.
        NotAvailable: Its video is not on this machine.
    """
    get_job = f"get_job with job_id {job.job_id}"
    if job.state != "completed":
        step = f"{get_job} says what became of it." if job.state in ENDED else f"{get_job} and wait_seconds 45 waits."
        raise InvalidArguments(
            f"Job {job.job_id} is {job.state}, so there is no video to look at.",
            step,
            field="job_id",
            # Of the job: that looking is free is no news, and must not be read as news of the job.
            billed=job.billed,
            job_id=job.job_id,
        )
    if job.save_trouble is not None:
        what, step = f"could not be saved: {job.save_trouble}", f"{get_job} tries to save it once more."
    elif app.service.settings.output_dir is None:
        what = "was not saved, because KLING_MCP_OUTPUT_DIR is set to none."
        step = f"{get_job} has the link for the user; the videos of a server that saves them can be viewed."
    else:
        what, step = "is still being saved.", f"{get_job} and wait_seconds 45 waits for it."
    raise NotAvailable(
        f"The video of job {job.job_id} {what}", step, field="job_id", billed=job.billed, job_id=job.job_id
    )
