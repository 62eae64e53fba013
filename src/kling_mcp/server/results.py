"""
What a tool, a resource, a task and the command line show: one rendering of one ledger row.

Claude Code, Codex and VS Code give the model the structured half of a result
and drop the text, Zed and Gemini CLI do the opposite. So each half is whole.
A refusal has no structured half, because that would hide its text.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING, Any, Final, cast

import mcp_types as t

from kling_mcp.jobs.budget import dollars
from kling_mcp.texts import showable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kling_mcp.errors import KlingError
    from kling_mcp.jobs.job import Job, State
    from kling_mcp.jobs.ledger import DaySpend

__all__ = [
    "Json",
    "cents",
    "job_failure",
    "job_result",
    "job_uri",
    "job_view",
    "jobs_view",
    "last_frame_uri",
    "refusal",
    "result",
    "spend_view",
    "usd",
]

Json = dict[str, Any]

RESULT_BYTES: Final = 8_000
"""About 2,000 tokens: hosts cut longer results, some in the middle."""

DASHBOARD: Final = "https://fal.ai/dashboard/requests"


def job_uri(job_id: str) -> str:
    """The resource that shows a job."""
    return f"kling://jobs/{job_id}"


def last_frame_uri(job_id: str) -> str:
    """The resource that is the last frame of a job's video."""
    return f"kling://jobs/{job_id}/last-frame"


def usd(amount: Decimal) -> float:
    """*amount* as a JSON number, rounded for display to a hundredth of a cent."""
    return float(round(amount, 4))


def cents(amount: Decimal) -> str:
    """*amount* in dollars and cents, rounded up: what is repeated as a limit must be enough."""
    return str(amount.quantize(Decimal("0.01"), ROUND_CEILING))


def job_view(job: Job, now_ms: int) -> Json:
    """A job as everybody sees it."""
    intent = job.intent
    view = {
        "job_id": job.job_id,
        "state": job.state,
        "model": intent.model,
        "endpoint": intent.endpoint_id,
        "request_id": job.request_id,
        "queue_position": job.queue_position if job.state == "queued" else None,
        "created_at": _moment(job.created_ms),
        "elapsed_seconds": max(0, ((job.ended_ms or now_ms) - job.created_ms) // 1000),
        "expected_seconds": intent.expected_seconds,
        "cost": {
            "estimated_usd": usd(dollars(intent.estimate_u)),
            "ceiling_usd": usd(dollars(intent.ceiling_u)),
            "actual_usd": usd(dollars(job.cost_u)) if job.cost_u is not None and job.cost_source == "billed" else None,
            "basis": intent.basis,
        },
        "video": _video(job),
        "error": _error(job),
        "warnings": [*job.warnings, *([job.save_trouble] if job.save_trouble else [])],
        "resource": job_uri(job.job_id),
        "next_step": _next_step(job),
    }
    return showable(view)


def jobs_view(jobs: Sequence[Job], now_ms: int, limit: int) -> tuple[Json, str]:
    """
    A page of jobs that is not longer than a result may be, and its headline.

    *jobs* holds one more than *limit* where there are more.
    """
    page: list[Json] = []
    size = 0
    for job in jobs[:limit]:
        view = job_view(job, now_ms)
        size += len(json.dumps(view, ensure_ascii=False).encode())
        if page and size > RESULT_BYTES - 400:
            break
        page.append(view)
    more = len(page) < len(jobs)
    next_cursor = str(jobs[len(page) - 1].seq) if more and page else None
    headline = (
        f"{len(page)} job{'' if len(page) == 1 else 's'}{', more with cursor ' + next_cursor if next_cursor else ''}."
    )
    return {"jobs": page, "next_cursor": next_cursor}, headline


def spend_view(days: Sequence[DaySpend], job_limit: Decimal, day_limit: Decimal) -> Json:
    """Budgets and what is held and spent of them, newest day first."""
    today = days[0]
    remaining = max(day_limit - dollars(today.held_u + today.spent_u), dollars(0))
    return {
        "limits": {"job_usd": usd(job_limit), "day_usd": usd(day_limit)},
        "today": {**_day(today), "remaining_usd": usd(remaining)},
        "days": [_day(day) for day in days],
    }


def result(headline: str, data: Json, *links: t.ContentBlock) -> t.CallToolResult:
    """*data* twice, as structure and as text behind a *headline*, and *links*."""
    headline, data = showable(headline), showable(data)
    text = f"{headline}\n{json.dumps(data, ensure_ascii=False)}"
    return t.CallToolResult(content=[t.TextContent(type="text", text=text), *links], structured_content=data)


def job_result(job: Job, now_ms: int, *warnings: str) -> t.CallToolResult:
    """A job as a tool's result, with a link to its video once there is one."""
    view = job_view(job, now_ms)
    view["warnings"] = [*view["warnings"], *warnings]
    return result(_headline(view), view, *_links(job, view))


def job_failure(job: Job, now_ms: int) -> t.CallToolResult:
    """A job without a video as an error: text alone, because a structured half would hide it."""
    view = job_view(job, now_ms)
    fault = view["error"] or {"code": "internal", "message": "", "field": None}
    return _refused(
        f"{fault['code']}: {_headline(view)}",
        {
            "code": fault["code"],
            "message": fault["message"],
            "field": fault["field"],
            "allowed": [],
            "next_step": view["next_step"],
            "job_id": job.job_id,
        },
    )


def refusal(error: KlingError) -> t.CallToolResult:
    """An error as text alone; the same as data is in `_meta` for programs."""
    data = {
        "code": error.code,
        "message": error.what,
        "field": error.field,
        "allowed": list(error.allowed),
        "next_step": error.next_step,
        "job_id": error.job_id,
    }
    return _refused(str(error), data)


def _refused(text: str, data: Json) -> t.CallToolResult:
    return t.CallToolResult(
        content=[t.TextContent(type="text", text=text)], is_error=True, _meta={"kling-mcp/error": data}
    )


def _headline(view: Json) -> str:
    parts = [f"Job {view['job_id']} is {view['state']} ({view['model']}, about ${view['cost']['estimated_usd']:.2f})."]
    if view["error"]:
        parts.append(view["error"]["message"])
    parts.append(view["next_step"])
    return " ".join(parts)


def _links(job: Job, view: Json) -> list[t.ContentBlock]:
    if view["video"] is None:
        return []
    video = view["video"]
    return [
        t.ResourceLink(
            type="resource_link",
            name=video["file_name"] or f"{job.job_id}.mp4",
            title="Finished video",
            uri=video["url"],
            mime_type=video["content_type"] or "video/mp4",
            size=video["file_size"],
            annotations=t.Annotations(audience=["user", "assistant"], priority=1.0),
        )
    ]


def _video(job: Job) -> Json | None:
    file = (job.result or {}).get("video")
    if not isinstance(file, dict):
        return None
    known = cast("Json", file)
    names = ("url", "content_type", "file_name", "file_size")
    return {name: known.get(name) for name in names} | {"saved_to": job.saved_to}


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


_WAITING: Final[frozenset[State]] = frozenset({"preparing", "submitting", "queued", "running"})


def _next_step(job: Job) -> str:
    if job.state in _WAITING:
        return f"Call get_job with job_id {job.job_id} and wait_seconds 45."
    match job.state:
        case "completed" if job.saved_to:
            return (
                f"The video is saved at {job.saved_to}. view_video shows frames of it; "
                f"{last_frame_uri(job.job_id)} as image continues it in another job."
            )
        case "completed" if job.save_trouble:
            return "Give the user the link in video.url; get_job tries to save the file once more."
        case "completed":
            return f"The video is at video.url and is being saved; get_job with job_id {job.job_id} gives the path."
        case "unknown":
            return (
                "fal.ai may have this request, so it is not sent again; kling-mcp keeps looking for it. The user can "
                f"look at {DASHBOARD}; resolve_job with job_id {job.job_id} then settles it as charged or not_charged."
            )
        case "not_submitted":
            return "Nothing was charged. Once the cause is mended, the same call starts a new job."
        case "failed" if job.fault is not None and job.fault.billed != "no":
            return f"The user can see at {DASHBOARD} whether it was charged. A new attempt is a new charge: take 2."
        case "cancelled":
            return "A new attempt of the same job needs take 2."
        case _:
            return "Nothing was charged. A new attempt of the same job needs take 2, or changed arguments."


def _day(day: DaySpend) -> Json:
    return {"day": day.day, "held_usd": usd(dollars(day.held_u)), "spent_usd": usd(dollars(day.spent_u))}


def _moment(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
