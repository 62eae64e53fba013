"""Resources: models, prices, jobs and money, which a person can attach and a program can watch."""

from __future__ import annotations

import base64
import logging
import re
from typing import TYPE_CHECKING, Final, Literal

import mcp_types as t
from mcp.shared.exceptions import MCPError

from kling_mcp.catalog.models import JOB_TOOLS
from kling_mcp.errors import KlingError, LedgerUnavailable, UnknownJob, UnknownModel
from kling_mcp.ids import job_id_in
from kling_mcp.jobs.job import ENDED
from kling_mcp.media.optional import SHOWS_VIDEOS
from kling_mcp.server import models, views
from kling_mcp.server.eras import MODERN
from kling_mcp.server.prompts import PROMPTS
from kling_mcp.server.ui import page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mcp.server.context import ServerRequestContext

    from kling_mcp.jobs.job import Job, State
    from kling_mcp.server.call_budget import CallBudget
    from kling_mcp.server.context import AppContext

__all__ = ["TEMPLATES", "complete", "jobs_page", "list_resources", "list_templates", "read_resource"]

log = logging.getLogger(__name__)

_LISTED_JOBS: Final = 10
_TITLE_CHARACTERS: Final = 80
_PAGE: Final = 50
_JSON: Final = "application/json"
_LONG_MS: Final = 3_600_000
_SHORT_MS: Final = 2_000

_FIXED: Final = [
    t.Resource(uri=uri, name=name, title=title, description=description, mime_type=_JSON)
    for uri, name, title, description in (
        ("kling://models", "models", "Kling models", "Every model with its price and abilities."),
        ("kling://pricing", "pricing", "Prices", "Every dated price of every model, with its source."),
        ("kling://jobs", "jobs", "Jobs", "The jobs of this machine, newest first."),
        ("kling://voices", "voices", "Voices", "Voices made here, newest first: name, id and date."),
        ("kling://spend", "spend", "Spending", "Budgets, and what is held and spent of them, by UTC day."),
    )
]

TEMPLATES: Final = [
    t.ResourceTemplate(uri_template=uri, name=name, title=title, description=description, mime_type=mime_type)
    for uri, name, title, description, mime_type in (
        (
            "kling://models/{model}",
            "model",
            "A Kling model",
            "One model in full: schema, limits, prices, sources.",
            _JSON,
        ),
        ("kling://jobs/{job_id}", "job", "A job", "State, cost and video of one job.", _JSON),
        (
            "kling://jobs/{job_id}/last-frame",
            "last-frame",
            "Last frame",
            "The last frame of a finished video, to look at or to continue from.",
            "image/png",
        ),
    )
][: None if SHOWS_VIDEOS else -1]

_MODEL: Final = re.compile(r"kling://models/([a-z0-9.-]+)")
_JOB: Final = re.compile(r"kling://jobs/([^/?#]+)/?")
_LAST_FRAME: Final = re.compile(r"kling://jobs/([^/?#]+)/last-frame/?")


async def list_resources(app: AppContext, cursor: str | None) -> tuple[t.ListResourcesResult, Sequence[Job]]:
    """The fixed resources and the newest jobs, and these jobs; few, because some hosts make a tool of each."""
    if cursor:
        raise MCPError(
            code=t.INVALID_PARAMS, message="cursor is not valid: the whole list is one page, so leave cursor out"
        )
    jobs = await _newest(app, _LISTED_JOBS)
    listed = [
        t.Resource(
            uri=views.job_uri(job.job_id),
            name=job.job_id,
            title=views.prompt_of(job, _TITLE_CHARACTERS) or job.job_id,
            # Nothing here changes while the job goes on: a client may keep the list until another job is added.
            description=", ".join(
                (
                    job.intent.model,
                    *([] if job.intent.voice else [f"{job.intent.video_seconds} s"]),
                    f"started {views.moment(job.created_ms)}",
                )
            ),
            mime_type=_JSON,
        )
        for job in jobs
    ]
    return t.ListResourcesResult(resources=[*_FIXED, page.resource(), *listed]), jobs


async def list_templates(
    ctx: ServerRequestContext[AppContext], params: t.PaginatedRequestParams | None
) -> t.ListResourceTemplatesResult:
    """The resources that have a name in them."""
    return t.ListResourceTemplatesResult(resource_templates=TEMPLATES)


async def read_resource(
    ctx: ServerRequestContext[AppContext], params: t.ReadResourceRequestParams
) -> t.ReadResourceResult:
    """
    One resource.

    Raises:
        MCPError: No resource has that address; the code is that of the client's protocol era.
    """
    uri = str(params.uri)
    try:
        found = await _read(ctx.lifespan_context, uri)
    except (UnknownJob, UnknownModel):
        found = None
    except KlingError as error:
        raise MCPError(code=t.INTERNAL_ERROR, message=str(error)) from error
    if found is None:
        # The code changed with SEP-2164.
        code = t.INVALID_PARAMS if ctx.protocol_version >= MODERN else -32002
        raise MCPError(code=code, message=f"There is no resource {uri[:200]!r}", data={"uri": uri[:200]})
    return found


async def _read(app: AppContext, uri: str) -> t.ReadResourceResult | None:
    match uri:
        case "kling://models":
            return _json(uri, models.overview(app.catalog, JOB_TOOLS), _LONG_MS)
        case "kling://pricing":
            return _json(uri, models.prices(app.catalog), _LONG_MS)
        case "kling://jobs":
            return _json(uri, await jobs_page(app, app.call_budget(), None, _PAGE, None), _SHORT_MS)
        case "kling://voices":
            voices = await app.call_budget().within(app.service.voices)
            return _json(uri, views.VoicesView.of(voices), _SHORT_MS)
        case "kling://spend":
            days = await app.call_budget().within(app.store.spend)
            limits = app.settings.max_job_usd, app.settings.daily_budget_usd
            return _json(uri, views.SpendView.of(days, *limits), _SHORT_MS)
        case page.URI:
            return t.ReadResourceResult(contents=[page.contents()], ttl_ms=_LONG_MS, cache_scope="public")
        case _:
            pass
    if match := _MODEL.fullmatch(uri):
        return _json(uri, models.in_full(app.catalog.all_of(match[1])), _LONG_MS)
    if match := _JOB.fullmatch(uri):
        job_id = job_id_in(match[1])
        job = await app.call_budget().within(lambda: app.store.get(job_id))
        ended = job.state in ENDED and app.service.is_settled(job)
        view = views.JobView.of(job, app.now_ms()).model_copy(update={"arguments": views.arguments_of(job)})
        return _json(uri, view, _LONG_MS if ended else _SHORT_MS)
    if match := _LAST_FRAME.fullmatch(uri):
        blob = base64.b64encode(await app.service.last_frame(job_id_in(match[1]))).decode()
        contents = t.BlobResourceContents(uri=uri, mime_type="image/png", blob=blob)
        return t.ReadResourceResult(contents=[contents], ttl_ms=_LONG_MS, cache_scope="private")
    return None


async def jobs_page(
    app: AppContext, budget: CallBudget, state: State | Literal["open"] | None, limit: int, before_seq: int | None
) -> views.JobsView:
    """A page of jobs, newest first, and today's money."""
    if state == "open":
        # They are few, and the ledger has them all at hand.
        unfinished = await budget.within(lambda: app.store.run(lambda ledger: ledger.unfinished()))
        jobs = [job for job in unfinished if job.open and (before_seq is None or job.seq < before_seq)]
        jobs.sort(key=lambda job: -job.seq)
    else:
        jobs = await budget.within(lambda: app.store.page(state, limit + 1, before_seq))
    today = (await budget.within(app.store.spend))[0]
    return views.JobsView.of(jobs, limit, views.SpendTodayView.of(today, app.settings.daily_budget_usd))


async def complete(ctx: ServerRequestContext[AppContext], params: t.CompleteRequestParams) -> t.CompleteResult:
    """
    Names of models and jobs that begin with what is there already.

    Raises:
        MCPError: No prompt, or no template, is the one named.
    """
    app = ctx.lifespan_context
    match params.ref:
        case t.PromptReference(name=prompt) if prompt not in PROMPTS:
            raise MCPError(code=t.INVALID_PARAMS, message=f"There is no prompt {prompt[:60]!r}")
        case t.ResourceTemplateReference(uri=uri) if uri not in {template.uri_template for template in TEMPLATES}:
            raise MCPError(code=t.INVALID_PARAMS, message=f"There is no template {uri[:200]!r}")
        case _:
            pass
    names: Sequence[str] = ()
    if params.argument.name == "model":
        names = app.catalog.models
    elif params.argument.name == "job_id":
        names = [job.job_id for job in await _newest(app, 1000)]
    values = [name for name in names if name.startswith(params.argument.value)]
    return t.CompleteResult(completion=t.Completion(values=values[:100], total=len(values), has_more=len(values) > 100))


async def _newest(app: AppContext, limit: int) -> Sequence[Job]:
    """Jobs for a list; none where the ledger cannot be read, because the rest is still worth showing."""
    try:
        return await app.call_budget().within(lambda: app.store.page(None, limit))
    except LedgerUnavailable as trouble:
        log.warning("jobs could not be listed", extra={"why": trouble.what})
        return ()


def _json(uri: str, view: views.View, ttl_ms: int) -> t.ReadResourceResult:
    contents = t.TextResourceContents(uri=uri, mime_type=_JSON, text=views.compact(view.data()))
    # How long a client may keep it: a finished job does not change any more.
    return t.ReadResourceResult(contents=[contents], ttl_ms=ttl_ms, cache_scope="private")
