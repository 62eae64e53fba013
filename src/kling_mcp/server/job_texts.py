"""Job texts: what a job's state is called, and which call to make next; a person or a model reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kling_mcp.jobs.warnings import place_in_line, trouble_words
from kling_mcp.media.optional import SHOWS_VIDEOS

if TYPE_CHECKING:
    from kling_mcp.jobs.job import Job, State

__all__ = ["describe_status", "next_step", "state_words"]

_DASHBOARD: Final = "https://fal.ai/dashboard/requests"
_ABOUT_THE_CALL: Final = frozenset({"fal_rejected", "input_refused", "invalid_arguments"})
_CHANGED: Final = "Change the prompt or the picture, as the error says: the same would be refused again."
_STATE_WORDS: Final[dict[State, str]] = {"not_submitted": "not submitted", "unknown": "in state unknown"}


def state_words(job: Job) -> str:
    """The state of *job* as it follows "Job kj_… is"."""
    return _STATE_WORDS.get(job.state, job.state)


def describe_status(job: Job, now_ms: int) -> str:
    """The status of *job* for a person who waits for it."""
    expected = job.intent.expected_seconds
    trouble = trouble_words(job)
    trouble = "" if trouble is None else f". {trouble}"
    match job.state:
        case "preparing":
            return job.progress_note or "uploading files"
        case "submitting":
            return "sending the request to fal.ai"
        case "queued":
            place = place_in_line(job)
            words = "" if place is None else f", place {place + 1} in line"
            then = "" if expected is None else f", then about {expected} s"
            return f"queued at fal.ai{words}{then}{trouble}"
        case "running":
            left = ""
            if expected is not None:
                left_seconds = expected - (now_ms - (job.started_ms or job.accepted_ms or job.created_ms)) // 1000
                left = f", about {left_seconds} s left" if left_seconds > 0 else ", longer than expected"
            note = f": {job.progress_note}" if job.progress_note else ""
            return f"rendering{left}{note}{trouble}"
        case "completed":
            return "finished" if job.saved_to or job.intent.voice else "finished, saving the video"
        case _:
            return job.state.replace("_", " ")


def next_step(job: Job, *, has_video: bool) -> str:
    """What can be done about *job* now."""
    get_job = f"get_job with job_id {job.job_id}"
    match job.state:
        case "preparing" | "submitting" | "queued" | "running":
            return f"{get_job} and wait_seconds 45 waits for it."
        case "completed" if job.voice_id and job.intent.voice:
            called = f"{job.intent.voice.name!r} or {job.voice_id}" if job.intent.voice.name else job.voice_id
            return (
                f"The voice can be used: {called} in voice_ids, or as voice_id of an element, where the model takes "
                "one. kling://voices lists all voices."
            )
        case "completed" if has_video:
            return _with_video(job, get_job)
        case "completed":
            request = f" (request {job.request_id})" if job.request_id else ""
            made = "voice" if job.intent.voice else "video"
            return (
                f"fal.ai ended this job as completed without a {made} in its answer, and it may have charged it. The "
                f"user can look for the {made} at {_DASHBOARD}{request}."
            )
        case "unknown":
            return (
                "fal.ai may have this request, so it is not sent again; kling-mcp keeps looking for it. The user can "
                f"look at {_DASHBOARD}; resolve_job with job_id {job.job_id} then settles it as charged or not_charged."
            )
        case _:
            return _without_video(job)


def _with_video(job: Job, get_job: str) -> str:
    if job.saved_to and not SHOWS_VIDEOS:
        return "The video is saved at video.saved_to."
    if job.saved_to:
        return (
            "The video is saved at video.saved_to. view_video shows frames of it; "
            f"kling://jobs/{job.job_id}/last-frame as image continues it in another job."
        )
    if job.save_trouble:
        return "The user can open the link in video.url; each get_job tries to save the file."
    return f"The video is at video.url and is being saved; {get_job} gives the path."


def _without_video(job: Job) -> str:
    """What can still bring the video; nothing here makes anybody pay twice without knowing."""
    fault = job.fault
    if fault is None or fault.billed != "no":
        charged = "was" if fault is not None and fault.billed == "yes" else "may have been"
        content = f" {_CHANGED}" if fault is not None and fault.code in _ABOUT_THE_CALL and charged != "was" else ""
        return f"It {charged} charged; the user can look at {_DASHBOARD}.{content}"
    again = fault.again or ("changed_call" if fault.code in _ABOUT_THE_CALL else "next_take")
    if job.state == "not_submitted" or again == "same_call":
        return "Nothing was charged. Once the cause is gone, the same call starts the job."
    if again == "next_take":
        return f"Nothing was charged. The same call with take {job.intent.take + 1} is another attempt."
    return f"Nothing was charged. {_CHANGED}"
