"""Models, prices, jobs and money as resources: what a person can attach and a program can watch."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, Final

import mcp_types as t
from mcp.shared.exceptions import MCPError

from kling_mcp.errors import KlingError, LedgerUnavailable, UnknownJob, UnknownModel
from kling_mcp.jobs.job import ENDED
from kling_mcp.media.optional import SHOWS_VIDEOS
from kling_mcp.server import models, prompts, results
from kling_mcp.server.ui import page as job_page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mcp.server.context import ServerRequestContext

    from kling_mcp.jobs.job import Job
    from kling_mcp.server.app import App

__all__ = ["TEMPLATES", "before", "complete", "listed", "read", "templates"]

log = logging.getLogger(__name__)

_LISTED_JOBS: Final = 10
_TITLE_CHARACTERS: Final = 80
_PAGE: Final = 50
_JSON: Final = "application/json"
_LONG_MS: Final = 3_600_000
_SHORT_MS: Final = 2_000

_FIXED: Final = (
    ("kling://models", "models", "Kling models", "Every model with its price and abilities."),
    ("kling://pricing", "pricing", "Prices", "Every dated price of every model, with its source."),
    ("kling://jobs", "jobs", "Jobs", "The jobs of this machine, newest first."),
    ("kling://spend", "spend", "Spending", "Budgets, and what is held and spent of them, by UTC day."),
)

TEMPLATES: Final = (
    ("kling://models/{model}", "model", "A Kling model", "One model in full: schema, limits, prices, sources.", _JSON),
    ("kling://jobs/{job_id}", "job", "A job", "State, cost and video of one job.", _JSON),
    (
        "kling://jobs/{job_id}/last-frame",
        "last-frame",
        "Last frame",
        "The last frame of a finished video, to look at or to continue from.",
        "image/png",
    ),
)[: None if SHOWS_VIDEOS else -1]

_MODEL: Final = re.compile(r"kling://models/([a-z0-9.-]+)")
_JOB: Final = re.compile(r"kling://jobs/([A-Za-z0-9_-]+)")
_LAST_FRAME: Final = re.compile(r"kling://jobs/([A-Za-z0-9_-]+)/last-frame")


async def listed(app: App, cursor: str | None) -> t.ListResourcesResult:
    """The fixed resources and the newest jobs: some hosts make a tool of each, or fetch the list again and again."""
    if cursor is not None:
        raise MCPError(
            code=t.INVALID_PARAMS, message="cursor is not valid: the whole list is one page, so leave cursor out"
        )
    jobs = await _newest(app, _LISTED_JOBS)
    app.notifier.listed(jobs)
    return t.ListResourcesResult(resources=[*_fixed(), job_page.resource(), *(_listed(job) for job in jobs)])


def _listed(job: Job) -> t.Resource:
    # Nothing here changes while the job goes on: a client may keep the list until another job is added.
    words = f"{job.intent.model}, {job.intent.video_seconds} s, started {results.moment(job.created_ms)}"
    return t.Resource(
        uri=results.job_uri(job.job_id),
        name=job.job_id,
        title=results.prompt_of(job, _TITLE_CHARACTERS) or job.job_id,
        description=words,
        mime_type=_JSON,
    )


def templates() -> t.ListResourceTemplatesResult:
    """The resources that have a name in them."""
    return t.ListResourceTemplatesResult(
        resource_templates=[
            t.ResourceTemplate(uri_template=uri, name=name, title=title, description=description, mime_type=mime_type)
            for uri, name, title, description, mime_type in TEMPLATES
        ]
    )


async def read(app: App, ctx: ServerRequestContext[App], uri: str) -> t.ReadResourceResult:
    """
    One resource.

    Raises:
        MCPError: There is no resource at *uri*; the code is that of the client's protocol era.
    """
    try:
        return await _read(app, ctx, uri)
    except (UnknownJob, UnknownModel) as error:
        raise _not_found(ctx, uri) from error
    except KlingError as error:
        raise MCPError(code=t.INTERNAL_ERROR, message=str(error)) from error


async def _read(app: App, ctx: ServerRequestContext[App], uri: str) -> t.ReadResourceResult:
    match uri:
        case "kling://models":
            return _json(uri, models.overview(app.catalog), _LONG_MS)
        case "kling://pricing":
            return _json(uri, models.prices(app.catalog), _LONG_MS)
        case "kling://jobs":
            jobs = await app.call_budget().within(lambda: app.service.store.page(None, _PAGE + 1, None))
            return _json(uri, results.jobs_view(jobs, _PAGE, await app.spend_today(app.call_budget())), _SHORT_MS)
        case "kling://spend":
            days = await app.call_budget().within(app.service.store.spend)
            settings = app.service.settings
            return _json(uri, results.spend_view(days, settings.max_job_usd, settings.daily_budget_usd), _SHORT_MS)
        case job_page.URI:
            return t.ReadResourceResult(contents=[job_page.contents()], ttl_ms=_LONG_MS, cache_scope="public")
        case _:
            pass
    if match := _MODEL.fullmatch(uri):
        return _json(uri, models.in_full(app.catalog.model(match[1])), _LONG_MS)
    if match := _JOB.fullmatch(uri):
        job_id = match[1]
        job = await app.call_budget().within(lambda: app.service.store.get(job_id))
        ended = job.state in ENDED and app.service.is_settled(job)
        data = results.job_view(job, app.now_ms()) | results.arguments_of(job)
        return _json(uri, data, _LONG_MS if ended else _SHORT_MS)
    if match := _LAST_FRAME.fullmatch(uri):
        import base64

        blob = base64.b64encode(await app.service.last_frame(match[1])).decode()
        contents = t.BlobResourceContents(uri=uri, mime_type="image/png", blob=blob)
        return t.ReadResourceResult(contents=[contents], ttl_ms=_LONG_MS, cache_scope="private")
    raise _not_found(ctx, uri)


async def complete(app: App, params: t.CompleteRequestParams) -> t.CompleteResult:
    """
    Names of models and jobs that begin with what is there already.

    Raises:
        MCPError: No prompt, or no template, is the one named.
    """
    match params.ref:
        case t.PromptReference(name=prompt) if prompt not in prompts.PROMPTS:
            raise MCPError(code=t.INVALID_PARAMS, message=f"There is no prompt {prompt[:60]!r}")
        case t.ResourceTemplateReference(uri=uri) if uri not in {template[0] for template in TEMPLATES}:
            raise MCPError(code=t.INVALID_PARAMS, message=f"There is no template {uri[:200]!r}")
        case _:
            pass
    name, start = params.argument.name, params.argument.value
    if name == "model":
        values = [model for model in app.catalog.models if model.startswith(start)]
    elif name == "job_id":
        jobs = await _newest(app, 1000)
        values = [job.job_id for job in jobs if job.job_id.startswith(start)]
    else:
        values = []
    return t.CompleteResult(completion=t.Completion(values=values[:100], total=len(values), has_more=len(values) > 100))


def before(cursor: str) -> int | None:
    """The row that a page's cursor stands for; None if it is no cursor."""
    return int(cursor) if cursor.isascii() and cursor.isdigit() and len(cursor) < 19 else None


async def _newest(app: App, limit: int) -> Sequence[Job]:
    """Jobs for a list: without a ledger there are none to show, and the rest is still worth showing."""
    try:
        return await app.call_budget().within(lambda: app.service.store.page(None, limit, None))
    except LedgerUnavailable as trouble:
        log.warning("jobs could not be listed", extra={"why": trouble.what})
        return ()


def _fixed() -> list[t.Resource]:
    return [
        t.Resource(uri=uri, name=name, title=title, description=description, mime_type=_JSON)
        for uri, name, title, description in _FIXED
    ]


def _json(uri: str, data: dict[str, Any], ttl_ms: int) -> t.ReadResourceResult:
    text = results.compact(results.cleaned(data))
    contents = t.TextResourceContents(uri=uri, mime_type=_JSON, text=text)
    # How long a client may keep it: a finished job does not change any more.
    return t.ReadResourceResult(contents=[contents], ttl_ms=ttl_ms, cache_scope="private")


def _not_found(ctx: ServerRequestContext[App], uri: str) -> MCPError:
    # The code changed with SEP-2164.
    code = t.INVALID_PARAMS if ctx.protocol_version >= "2026-07-28" else -32002
    return MCPError(code=code, message=f"There is no resource {uri[:200]!r}", data={"uri": uri[:200]})
