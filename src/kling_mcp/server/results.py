"""
What a tool, a resource, a task and the command line show: one rendering of one ledger row.

Claude Code, Codex and VS Code give the model the structured half of a result
and drop the text, Zed and Gemini CLI do the opposite. So each half is whole.
A refusal has no structured half, because that would hide its text.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import mcp_types as t

from kling_mcp.jobs.warnings import place_in_line, warnings_of
from kling_mcp.media.optional import SHOWS_VIDEOS
from kling_mcp.money import dollars, usd
from kling_mcp.shown import shorten_data_uris
from kling_mcp.texts import showable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal

    from kling_mcp.errors import KlingError
    from kling_mcp.jobs.job import Job, State
    from kling_mcp.jobs.ledger import DaySpend
    from kling_mcp.settings import Secret

__all__ = [
    "Json",
    "arguments_of",
    "cleaned",
    "compact",
    "job_failure",
    "job_result",
    "job_uri",
    "job_view",
    "jobs_headline",
    "jobs_view",
    "last_frame_uri",
    "moment",
    "prompt_of",
    "refusal",
    "result",
    "spend_today",
    "spend_view",
]

Json = dict[str, Any]
_V = TypeVar("_V")

RESULT_BYTES: Final = 8_000
"""About 2,000 tokens: hosts cut longer results, some in the middle."""

DASHBOARD: Final = "https://fal.ai/dashboard/requests"

_PROMPT_CHARACTERS: Final = 160
_ROW_CHARACTERS: Final = 80
_ROW_URL_CHARACTERS: Final = 300
_OF_ONE_CALL: Final = frozenset({"wait_seconds", "max_cost_usd"})
"""Arguments that are no part of a job; the user's agreement to a price is given for one purchase only."""


def job_uri(job_id: str) -> str:
    """The resource that shows a job."""
    return f"kling://jobs/{job_id}"


def last_frame_uri(job_id: str) -> str:
    """The resource that is the last frame of a job's video."""
    return f"kling://jobs/{job_id}/last-frame"


def cleaned(data: _V) -> _V:
    """*data* as it may be shown: pictures that are texts are named, and every text can be sent."""
    return showable(shorten_data_uris(data))


def compact(data: Any) -> str:
    """*data* as JSON without a needless blank."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def moment(at_ms: int) -> str:
    """A time as people and programs read it."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def prompt_of(job: Job, most_characters: int) -> str:
    """What the job was to show, on one line of at most *most_characters*."""
    return _cut(" ".join(cleaned(job.intent.prompt).split()), most_characters)


def job_view(job: Job, now_ms: int, *more_warnings: str) -> Json:
    """A job as everybody sees it."""
    intent = job.intent
    view = {
        "job_id": job.job_id,
        "state": job.state,
        "prompt": prompt_of(job, _PROMPT_CHARACTERS),
        "model": intent.model,
        "mode": intent.endpoint_id.rpartition("/")[2],
        "seconds": intent.video_seconds,
        "sound": intent.sound,
        "take": intent.take,
        "endpoint": intent.endpoint_id,
        "request_id": job.request_id,
        "queue_position": place_in_line(job),
        "progress": job.progress_note if job.state == "running" else None,
        "created_at": moment(job.created_ms),
        "elapsed_seconds": max(0, ((job.ended_ms or now_ms) - job.created_ms) // 1000),
        "expected_seconds": intent.expected_seconds,
        "cost": {
            "estimated_usd": usd(dollars(intent.estimate_microusd)),
            "ceiling_usd": usd(dollars(intent.ceiling_microusd)),
            "actual_usd": usd(dollars(job.cost_microusd))
            if job.cost_microusd is not None and job.cost_source == "billed"
            else None,
            "basis": intent.basis,
        },
        "video": _video(job),
        "error": _error(job),
        "warnings": list(dict.fromkeys((*warnings_of(job, now_ms), *more_warnings))),
        "resource": job_uri(job.job_id),
        "next_step": _next_step(job),
    }
    return cleaned(view)


def arguments_of(job: Job, most_characters: int | None = None) -> Json:
    """
    What to send for the same job again, under its key.

    Args:
        most_characters: Where longer texts are cut; the job's resource has them whole.
    """
    given = {name: value for name, value in job.intent.arguments.items() if name not in _OF_ONE_CALL}
    whole = cleaned(given)
    return {"arguments": whole if most_characters is None else _cut_within(whole, most_characters, job_uri(job.job_id))}


def jobs_view(jobs: Sequence[Job], limit: int, today: Json) -> Json:
    """
    A page of jobs, one short row each, that is not longer than a result may be.

    Args:
        jobs: One more than *limit* where there are more.
        today: What is spent and left today.
    """
    page: list[Json] = []
    size_bytes = 0
    for job in jobs[:limit]:
        row = cleaned(_row(job))
        size_bytes += len(compact(row).encode()) + 1
        if page and size_bytes > RESULT_BYTES - 500:
            break
        page.append(row)
    next_cursor = str(jobs[len(page) - 1].seq) if page and len(page) < len(jobs) else None
    return {"jobs": page, "next_cursor": next_cursor, "spend": today}


def jobs_headline(data: Json) -> str:
    """How many jobs a page has."""
    count = len(data["jobs"])
    more = "; next_cursor leads to older ones" if data["next_cursor"] else ""
    return f"{count or 'No'} job{'' if count == 1 else 's'}{more}."


def _row(job: Job) -> Json:
    video = _video(job)
    where = {"saved_to": job.saved_to} if job.saved_to else {"url": _cut_url(video["url"]) if video else None}
    cost_microusd = job.intent.estimate_microusd if job.cost_microusd is None else job.cost_microusd
    return {
        "job_id": job.job_id,
        "state": job.state,
        "prompt": prompt_of(job, _ROW_CHARACTERS),
        "model": job.intent.model,
        "seconds": job.intent.video_seconds,
        "usd": usd(dollars(cost_microusd)),
        "created_at": moment(job.created_ms),
        **where,
        "error": None if job.fault is None else _cut(f"{job.fault.code}: {job.fault.message}", _ROW_CHARACTERS),
    }


def _cut_url(url: str | None) -> str | None:
    """An address that a row has room for; half an address leads nowhere, and get_job has it whole."""
    return url if url is not None and len(url) <= _ROW_URL_CHARACTERS else None


def spend_view(days: Sequence[DaySpend], job_limit: Decimal, day_limit: Decimal) -> Json:
    """Budgets and what is held and spent of them, newest day first."""
    today = days[0]
    return {
        "limits": {"job_usd": usd(job_limit), "day_usd": usd(day_limit)},
        "today": {**_day(today), "remaining_usd": _remaining(today, day_limit)},
        "days": [_day(day) for day in days],
    }


def spend_today(today: DaySpend, day_limit: Decimal) -> Json:
    """What is spent, held and left of the day's budget."""
    return {
        "today_usd": usd(dollars(today.spent_microusd)),
        "held_usd": usd(dollars(today.held_microusd)),
        "remaining_usd": _remaining(today, day_limit),
        "limit_usd": usd(day_limit),
    }


def result(headline: str, data: Json) -> t.CallToolResult:
    """*data* twice, as structure and as text behind a *headline*."""
    data = cleaned(data)
    text = f"{cleaned(headline)}\n{compact(data)}"
    return t.CallToolResult(content=[t.TextContent(type="text", text=text)], structured_content=data)


def job_result(job: Job, now_ms: int, *warnings: str, with_arguments: bool = False) -> t.CallToolResult:
    """
    A job as a tool's result.

    Args:
        with_arguments: Whether it also says what to send for the same job again, as far as there is room.
    """
    view = job_view(job, now_ms, *warnings)
    if with_arguments:
        room = RESULT_BYTES - len(compact(view).encode()) - 200
        view |= next(
            (cut for most in (None, 1_200, 500, 200) if len(compact(cut := arguments_of(job, most)).encode()) <= room),
            {"arguments": None},
        )
    return result(f"Job {job.job_id} is {_STANDING.get(job.state, job.state)}.", view)


def job_failure(job: Job, now_ms: int) -> t.CallToolResult:
    """A job without a video as an error: text alone, because a structured half would hide it."""
    view = job_view(job, now_ms)
    fault = view["error"] or {"code": "internal", "message": "It ended without a video.", "field": None}
    words: list[str] = [f"Job {job.job_id} is {_STANDING.get(job.state, job.state)}. {fault['message']}"]
    if fault.get("upstream_detail"):
        words.append(str(fault["upstream_detail"]))
    return _refused(
        f"{fault['code']}: {' '.join(words)} {view['next_step']}",
        {
            "code": fault["code"],
            "message": fault["message"],
            "field": fault["field"],
            "allowed": [],
            "next_step": view["next_step"],
            "job_id": job.job_id,
            "faults": [],
        },
    )


def refusal(error: KlingError, *, spends: bool, key: Secret | None = None) -> t.CallToolResult:
    """
    An error as text alone; the same as data is in `_meta` for programs.

    Args:
        spends: Whether the call could have cost money; of one that could not, nothing is said about money.
        key: Not repeated, also where it was given as an argument.
    """
    data = {
        "code": error.code,
        "message": error.what,
        "field": error.field,
        "allowed": list(error.allowed),
        "next_step": error.next_step,
        "job_id": error.job_id,
        "faults": [
            {
                "path": fault.path,
                "value": fault.value,
                "allowed": list(fault.allowed),
                "nearest": fault.nearest,
                "models": list(fault.models),
            }
            for fault in error.faults
        ],
    }
    text = error.told(money=spends or error.job_id is not None)
    if key is not None:
        text = text.replace(key.reveal(), "[key]")
        data = json.loads(json.dumps(data).replace(key.reveal(), "[key]"))
    return _refused(text, data)


def _refused(text: str, data: Json) -> t.CallToolResult:
    return t.CallToolResult(
        content=[t.TextContent(type="text", text=cleaned(text))],
        is_error=True,
        _meta={"kling-mcp/error": cleaned(data)},
    )


def _video(job: Job) -> Json | None:
    """The video with the address that fal gave, as far as it is one; a file in the place of an address is not shown."""
    file = (job.result or {}).get("video")
    known = cast("Json", file) if isinstance(file, dict) else {}
    url, content_type, file_size = known.get("url"), known.get("content_type"), known.get("file_size")
    web = isinstance(url, str) and url.lower().startswith(("https://", "http://"))
    if not web and job.saved_to is None:
        return None
    return {
        "url": url if web else None,
        "content_type": content_type if isinstance(content_type, str) else None,
        "file_size": file_size if isinstance(file_size, int) else None,
        "saved_to": job.saved_to,
    }


def _error(job: Job) -> Json | None:
    if job.fault is None:
        return None
    return {
        "code": job.fault.code,
        "message": job.fault.message,
        "field": job.fault.field,
        "billed": job.fault.billed,
        "upstream_detail": job.fault.upstream_detail,
    }


_STANDING: Final[dict[State, str]] = {
    "not_submitted": "not submitted",
    "unknown": "in state unknown",
}
_ABOUT_THE_CALL: Final = frozenset({"fal_rejected", "input_refused", "invalid_arguments"})
_CHANGED: Final = "Change the prompt or the picture, as the error says: the same would be refused again."
_WAITING: Final[frozenset[State]] = frozenset({"preparing", "submitting", "queued", "running"})


def _next_step(job: Job) -> str:
    get_job = f"get_job with job_id {job.job_id}"
    if job.state in _WAITING:
        return f"{get_job} and wait_seconds 45 waits for it."
    match job.state:
        case "completed":
            return _with_the_video(job, get_job)
        case "unknown":
            return (
                "fal.ai may have this request, so it is not sent again; kling-mcp keeps looking for it. The user can "
                f"look at {DASHBOARD}; resolve_job with job_id {job.job_id} then settles it as charged or not_charged."
            )
        case _:
            return _without_a_video(job)


def _with_the_video(job: Job, get_job: str) -> str:
    video = _video(job)
    if video is None:
        return (
            "fal.ai ended this job as completed without a video in its answer, and it may have charged it. The user "
            f"can look for the video at {DASHBOARD}{f' (request {job.request_id})' if job.request_id else ''}."
        )
    if job.saved_to and not SHOWS_VIDEOS:
        return "The video is saved at video.saved_to."
    if job.saved_to:
        return (
            "The video is saved at video.saved_to. view_video shows frames of it; "
            f"{last_frame_uri(job.job_id)} as image continues it in another job."
        )
    if job.save_trouble:
        return "The user can open the link in video.url; each get_job tries to save the file."
    return f"The video is at video.url and is being saved; {get_job} gives the path."


def _without_a_video(job: Job) -> str:
    """What can still bring the video; nothing here makes somebody pay twice without knowing."""
    fault = job.fault
    if fault is None or fault.billed != "no":
        charged = "was" if fault is not None and fault.billed == "yes" else "may have been"
        content = f" {_CHANGED}" if fault is not None and fault.code in _ABOUT_THE_CALL and charged != "was" else ""
        return f"It {charged} charged; the user can look at {DASHBOARD}.{content}"
    again = fault.again or ("changed_call" if fault.code in _ABOUT_THE_CALL else "next_take")
    if job.state == "not_submitted" or again == "same_call":
        return "Nothing was charged. Once the cause is gone, the same call starts the job."
    if again == "next_take":
        return f"Nothing was charged. The same call with take {job.intent.take + 1} is another attempt."
    return f"Nothing was charged. {_CHANGED}"


def _remaining(today: DaySpend, day_limit: Decimal) -> float:
    return usd(max(day_limit - dollars(today.held_microusd + today.spent_microusd), dollars(0)))


def _day(day: DaySpend) -> Json:
    return {"day": day.day, "held_usd": usd(dollars(day.held_microusd)), "spent_usd": usd(dollars(day.spent_microusd))}


def _cut(text: str, most_characters: int) -> str:
    return text if len(text) <= most_characters else f"{text[: most_characters - 1].rstrip()}…"


def _cut_within(value: Any, most_characters: int, whole_at: str) -> Any:
    """*value* with its long texts cut, each saying so."""
    if isinstance(value, str) and len(value) > most_characters:
        return f"{_cut(value, most_characters)} (cut; whole in {whole_at})"
    if isinstance(value, dict):
        members = cast("Json", value)
        return {name: _cut_within(member, most_characters, whole_at) for name, member in members.items()}
    if isinstance(value, (list, tuple)):
        return [_cut_within(member, most_characters, whole_at) for member in cast("list[Any]", value)]
    return value
