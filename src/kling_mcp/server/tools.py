"""
The tools: what an assistant reads about each, and what each does.

A description says first whether the tool spends money, and states facts: an
order in a description reads like an injection to a host that reviews it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import mcp_types as t

from kling_mcp.errors import FalUnreachable, InvalidArguments, LedgerUnavailable
from kling_mcp.jobs.job import STATES
from kling_mcp.media.optional import SHOWS_VIDEOS
from kling_mcp.server import confirm, job_response, models, resources, results, schemas, view
from kling_mcp.server.arguments import read
from kling_mcp.server.storyboard import storyboard
from kling_mcp.server.ui import page

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from mcp.server.context import ServerRequestContext

    from kling_mcp.catalog.models import Catalog
    from kling_mcp.catalog.models import Tool as JobTool
    from kling_mcp.errors import Billed
    from kling_mcp.jobs.job import Job
    from kling_mcp.server.app import App
    from kling_mcp.server.call_budget import CallBudget
    from kling_mcp.server.schemas import Schema
    from kling_mcp.settings import Settings

__all__ = ["TOOLS", "Call", "Tool", "definitions"]

Answer = t.CallToolResult | t.InputRequiredResult | dict[str, Any]


@dataclass(slots=True)
class Call:
    """One call of a tool: what it works with and what it was given, and whether money may have moved by it so far."""

    app: App
    ctx: ServerRequestContext[App]
    params: t.CallToolRequestParams
    budget: CallBudget
    billed: Billed = "no"

    @property
    def arguments(self) -> Mapping[str, object]:
        """The arguments as they came."""
        return cast("Mapping[str, object]", self.params.arguments or {})


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool: its face to the assistant, and its hands."""

    name: str
    title: str
    description: str
    annotations: t.ToolAnnotations
    schema: Callable[[Catalog], Schema]
    run: Callable[[Call], Awaitable[Answer]]
    output: Schema | None
    shown: bool = False
    """Whether hosts that can show the job's page beside the result."""

    @property
    def spends(self) -> bool:
        """Whether a call may cost money."""
        return self.annotations is _SPENDS

    def definition(self, catalog: Catalog, *, asked_by_host: bool) -> t.Tool:
        """What `tools/list` says about it."""
        schema = self.schema(catalog)
        return t.Tool(
            name=self.name,
            title=self.title,
            description=self.description.replace("{prices}", models.price_range(catalog)),
            input_schema=schema if self.name == schemas.FIRST else schemas.in_words(schema),
            output_schema=self.output,
            annotations=self.annotations,
            _meta=self._meta(asked_by_host=asked_by_host),
        )

    def _meta(self, *, asked_by_host: bool) -> dict[str, Any] | None:
        asks = {"anthropic/requiresUserInteraction": True} if self.spends and asked_by_host else {}
        return {**(page.TOOL_META if self.shown else {}), **asks} or None


def definitions(
    tools: Mapping[str, Tool], catalog: Catalog, settings: Settings, *, forms: bool = False
) -> list[t.Tool]:
    """
    All *tools*, in a fixed order.

    Args:
        forms: Whether the client shows forms: our own question has the price in it, and the host's would be a second.
    """
    asked_by_host = settings.confirm == "always" and not forms
    return [tool.definition(catalog, asked_by_host=asked_by_host) for tool in tools.values()]


# ---- spending


async def _image_to_video(call: Call) -> Answer:
    return await _make(call, "image_to_video")


async def _multi_shot_video(call: Call) -> Answer:
    return await _make(call, "multi_shot_video")


async def _make(call: Call, tool: JobTool) -> Answer:
    from kling_mcp.catalog.plan import plan
    from kling_mcp.catalog.pricing import quote

    service = call.app.service
    wanted = plan(call.app.catalog, tool, call.arguments)
    price = quote(wanted.endpoint, seconds=wanted.seconds, audio=wanted.audio, voice=wanted.voice)
    draft = await service.prepare(wanted, price, call.arguments)
    duplicate = await call.budget.within(lambda: service.find_duplicate(draft))
    again = duplicate is not None
    if duplicate is None:
        await call.budget.within(lambda: service.check(draft))
        with call.budget.paused():
            decision = await confirm.gate(draft, service, call.ctx, call.params)
        if not isinstance(decision, confirm.Go):
            return decision
        call.billed = "maybe"
        started = await call.budget.within(lambda: service.start(draft, decision.nonce), _late())
        duplicate, again = started.job, not started.fresh
    call.billed = duplicate.billed
    warnings = [_again(duplicate)] if again else []
    # What stands already is no second task: a host would report it as a second video.
    return await job_response.job(call, duplicate, wanted.wait_seconds or 0, warnings, as_task=not again)


def _late() -> LedgerUnavailable:
    return LedgerUnavailable(
        "The record of jobs is busy: another program holds it. The job starts once that program is done with it.",
        "list_jobs then shows it; the same call finds it and makes no second one.",
        billed="maybe",
    )


def _again(duplicate: Job) -> str:
    said = f"This call was made before: it is answered by job {duplicate.job_id}, and nothing new was sent or charged."
    # Only where it is certain what became of the money: of anything else another take could be paid twice.
    if duplicate.state != "completed":
        return said
    return f"{said} Another video of it is take {duplicate.intent.take + 1}, for a new charge."


# ---- looking


async def _estimate_cost(call: Call) -> Answer:
    app = call.app
    today = await app.spent_today(call.budget)
    data = models.estimate(app.catalog, call.arguments, app.service.settings, today)
    return results.result(models.estimate_headline(app.catalog, data), data)


async def _list_models(call: Call) -> Answer:
    arguments = read(call.arguments, TOOLS["list_models"].schema(call.app.catalog))
    name = arguments.get("model")
    if name is None:
        data = models.overview(call.app.catalog)
        return results.result(f"{len(data['models'])} models; the default is {data['default']}.", data)
    data = models.in_full(call.app.catalog.model(str(name)))
    return results.result(f"{data['title']}: {data['summary']}", data)


async def _get_job(call: Call) -> Answer:
    arguments = read(call.arguments, TOOLS["get_job"].schema(call.app.catalog))
    job = await call.budget.within(lambda: call.app.service.store.get(str(arguments["job_id"])))
    call.app.repair_in_background(job)
    return await job_response.job(call, job, cast("int", arguments.get("wait_seconds", 0)), as_task=False)


async def _view_video(call: Call) -> Answer:
    return await view.view(call)


async def _list_jobs(call: Call) -> Answer:
    arguments = read(call.arguments, TOOLS["list_jobs"].schema(call.app.catalog))
    limit = cast("int", arguments.get("limit", _PAGE))
    cursor = arguments.get("cursor")
    before_seq = None if cursor is None else resources.before(str(cursor))
    if cursor is not None and before_seq is None:
        raise InvalidArguments(
            f"cursor is {str(cursor)[:40]!r}, which is no cursor of this tool.",
            "Use next_cursor of the page before.",
            field="cursor",
        )
    jobs = await call.budget.within(lambda: _page(call.app, arguments.get("state"), limit + 1, before_seq))
    data = results.jobs_view(jobs, limit, await call.app.spend_today(call.budget))
    return results.result(results.jobs_headline(data), data)


async def _page(app: App, state: object, limit: int, before_seq: int | None) -> Sequence[Job]:
    """Jobs, newest first; the open ones are few, and the ledger has them all at hand."""
    if state != _OPEN:
        return await app.service.store.page(cast("Any", state), limit, before_seq)
    unfinished = await app.service.store.run(lambda ledger: ledger.unfinished())
    jobs = sorted((job for job in unfinished if job.open), key=lambda job: -job.seq)
    return [job for job in jobs if before_seq is None or job.seq < before_seq][:limit]


# ---- ending


async def _cancel_job(call: Call) -> Answer:
    arguments = read(call.arguments, TOOLS["cancel_job"].schema(call.app.catalog))
    job, said = await call.app.cancel(str(arguments["job_id"]), call.budget)
    return page.with_ui(results.job_result(job, call.app.now_ms(), said), storyboard(call.app.catalog, job))


async def _resolve_job(call: Call) -> Answer:
    arguments = read(call.arguments, TOOLS["resolve_job"].schema(call.app.catalog))
    job_id, request_id = str(arguments["job_id"]), arguments.get("request_id")
    late = FalUnreachable(
        "fal.ai has not confirmed the request id yet; it is still being asked.",
        f"get_job with job_id {job_id} shows whether it did.",
        billed="maybe",
        job_id=job_id,
    )
    job = await call.budget.within(
        lambda: call.app.service.resolve(
            job_id,
            charged=arguments["outcome"] == "charged",
            request_id=None if request_id is None else str(request_id),
        ),
        late if request_id else None,
    )
    return results.job_result(job, call.app.now_ms())


# ---- the list

_OPEN: Final = "open"
_PAGE: Final = 20
_MOST: Final = 100

_SPENDS: Final = t.ToolAnnotations(
    read_only_hint=False,
    # Not that something is lost: a paid call is worth the host's question.
    destructive_hint=True,
    # The same call is the same job.
    idempotent_hint=True,
    open_world_hint=True,
)
_READS: Final = t.ToolAnnotations(
    read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
)
_ENDS: Final = t.ToolAnnotations(
    read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=True
)
_SETTLES: Final = t.ToolAnnotations(
    read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
)

_JOB_ID: Final[Schema] = {"type": "string", "description": "Job id."}


_OBJECT: Final[Schema] = {"type": "object"}
"""What every result is. Types of its members are left out: many can be null, and a list of types loses the tool."""

TOOLS: Final[dict[str, Tool]] = {
    tool.name: tool
    for tool in (
        Tool(
            "image_to_video",
            "Image to video",
            "Spends money: {prices} a video. Starts a Kling job on fal.ai that animates a picture and answers with a "
            "job_id in seconds. The video takes 1.5 to 10 minutes, goes on without the conversation and is saved on "
            "this machine.",
            _SPENDS,
            lambda catalog: schemas.job_schema(catalog, "image_to_video"),
            _image_to_video,
            _OBJECT,
            shown=True,
        ),
        Tool(
            "multi_shot_video",
            "Multi-shot video",
            "Spends money, by the sum of the shots: as image_to_video, for one video of up to six shots.",
            _SPENDS,
            lambda catalog: schemas.job_schema(catalog, "multi_shot_video"),
            _multi_shot_video,
            _OBJECT,
            shown=True,
        ),
        Tool(
            "estimate_cost",
            "Estimate cost",
            "Free, without key or network. The price of a job, its source, and the request that would be sent.",
            _READS,
            schemas.estimate_schema,
            _estimate_cost,
            _OBJECT,
        ),
        Tool(
            "list_models",
            "List models",
            "Free. The Kling models with prices and abilities, or one of them in full.",
            _READS,
            # No enum: an unknown name is refused as such, with the nearest one.
            lambda _: schemas.object_schema({"model": {"type": "string", "description": "One model in full."}}),
            _list_models,
            _OBJECT,
        ),
        Tool(
            "get_job",
            "Get job",
            "Free. State, cost and arguments of a job, and its finished video; waits up to wait_seconds.",
            _READS,
            lambda _: schemas.object_schema({"job_id": _JOB_ID, "wait_seconds": schemas.WAIT}, ["job_id"]),
            _get_job,
            _OBJECT,
            shown=True,
        ),
        Tool(
            "view_video",
            "View video",
            view.DESCRIPTION,
            _READS,
            lambda _: view.schema(),
            _view_video,
            None,
        ),
        Tool(
            "list_jobs",
            "List jobs",
            "Free. The jobs of this machine, newest first, also of earlier conversations.",
            _READS,
            lambda _: schemas.object_schema(
                {
                    "state": {
                        "type": "string",
                        "enum": [*STATES, _OPEN],
                        "description": "Only these; open: not ended.",
                    },
                    "limit": {
                        "type": "integer",
                        "minimum": 1,
                        "maximum": _MOST,
                        "description": f"1 to {_MOST} (default {_PAGE}).",
                    },
                    "cursor": {"type": "string", "description": "next_cursor of the page before."},
                }
            ),
            _list_jobs,
            _OBJECT,
        ),
        Tool(
            "cancel_job",
            "Cancel job",
            "Free. Asks fal.ai to drop a job: unbilled while it waits; one that runs may still finish and be billed.",
            _ENDS,
            lambda _: schemas.object_schema({"job_id": _JOB_ID}, ["job_id"]),
            _cancel_job,
            _OBJECT,
            shown=True,
        ),
        Tool(
            "resolve_job",
            "Resolve job",
            "Free. Settles a job in state unknown by the user's word, after they looked at "
            "https://fal.ai/dashboard/requests.",
            _SETTLES,
            lambda _: schemas.object_schema(
                {
                    "job_id": _JOB_ID,
                    "outcome": {
                        "type": "string",
                        "enum": ["charged", "not_charged"],
                        "description": "What the user saw at fal.ai.",
                    },
                    "request_id": {
                        "type": "string",
                        "description": "With charged: fal.ai's request id, to fetch the video.",
                    },
                },
                ["job_id", "outcome"],
            ),
            _resolve_job,
            _OBJECT,
        ),
    )
    if SHOWS_VIDEOS or tool.run is not _view_video
}
