"""
Results: a view as the answer of a tool.

Claude Code, Codex and VS Code give the model the structured half of a result
and drop the text; Zed and Gemini CLI do the opposite. So each half is whole.
A refusal has no structured half, because that would hide its text.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import mcp_types as t

from kling_mcp.server.job_texts import state_words
from kling_mcp.server.views import RESULT_BYTES, JobView, RefusalView, View, arguments_of, cleaned, compact

if TYPE_CHECKING:
    from kling_mcp.errors import KlingError
    from kling_mcp.jobs.job import Job
    from kling_mcp.settings import Secret

__all__ = ["job_failure", "job_result", "refusal", "result"]


def result(headline: str, view: View) -> t.CallToolResult:
    """*view* twice, as structure and as text behind a *headline*."""
    data = view.data()
    text = f"{cleaned(headline)}\n{compact(data)}"
    return t.CallToolResult(content=[t.TextContent(type="text", text=text)], structured_content=data)


def job_result(job: Job, now_ms: int, *warnings: str, with_arguments: bool = False) -> t.CallToolResult:
    """
    A job as a tool's result.

    Args:
        with_arguments: Whether it also says what to send for the same job again, as far as there is room.
    """
    view = JobView.of(job, now_ms, *warnings)
    if with_arguments:
        room_bytes = RESULT_BYTES - len(compact(view.data()).encode()) - 200
        cuts = (arguments_of(job, most_characters) for most_characters in (None, 1_200, 500, 200))
        fitting = next((cut for cut in cuts if len(compact(cut).encode()) + 15 <= room_bytes), None)
        view = view.model_copy(update={"arguments": fitting})
    return result(f"Job {job.job_id} is {state_words(job)}.", view)


def job_failure(job: Job, now_ms: int) -> t.CallToolResult:
    """A job without a video as an error: text alone, because a structured half would hide it."""
    view = JobView.of(job, now_ms)
    fault = view.error
    code, message = (fault.code, fault.message) if fault else ("internal", "It ended without a video.")
    words = [f"{code}: Job {job.job_id} is {state_words(job)}. {message}"]
    if fault and fault.upstream_detail:
        words.append(fault.upstream_detail)
    refused = RefusalView(
        code=code,
        message=message,
        field=fault.field if fault else None,
        allowed=[],
        next_step=view.next_step,
        job_id=job.job_id,
        faults=[],
    )
    return _refused(" ".join([*words, view.next_step]), refused.data())


def refusal(error: KlingError, *, spends: bool, key: Secret | None = None) -> t.CallToolResult:
    """
    An error as text alone; the same as data is in `_meta` for programs.

    Args:
        spends: Whether the call could have cost money; of one that could not, nothing is said about money.
        key: Not repeated, even where it was given as an argument.
    """
    text, data = error.told(money=spends or error.job_id is not None), RefusalView.of(error).data()
    if key is not None:
        text = text.replace(key.reveal(), "[key]")
        data = json.loads(json.dumps(data).replace(key.reveal(), "[key]"))
    return _refused(text, data)


def _refused(text: str, data: dict[str, Any]) -> t.CallToolResult:
    content = t.TextContent(type="text", text=cleaned(text))
    return t.CallToolResult(content=[content], is_error=True, _meta={"kling-mcp/error": data})
