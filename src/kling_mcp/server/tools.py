"""
Tools: what an assistant reads about each, and who answers a call of it.

A description says first whether the tool spends money, and states facts: an
order in a description reads like an injection to a host that reviews it.
To add a tool: its input in `inputs`, its entry in `TOOLS`, its function in `calls`.
"""

from __future__ import annotations

import json
import logging
import secrets
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import mcp_types as t
from mcp.shared.exceptions import MCPError

from kling_mcp.errors import Internal, InvalidArguments, KlingError
from kling_mcp.media.optional import SHOWS_VIDEOS
from kling_mcp.server import inputs
from kling_mcp.server.context import Answer, AppContext, Call
from kling_mcp.server.eras import shows_forms
from kling_mcp.server.models import price_range
from kling_mcp.server.results import refusal
from kling_mcp.server.schemas import estimate_schema, in_words, job_schema
from kling_mcp.server.ui import page
from kling_mcp.server.views import EstimateView, JobsView, JobView, ModesView, View
from kling_mcp.texts import unencodable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from mcp.server.context import ServerRequestContext

    from kling_mcp.catalog.models import Catalog
    from kling_mcp.server.schemas import Schema
    from kling_mcp.settings import Toolset

__all__ = ["TOOLS", "Tool", "call_tool", "list_tools"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """
    A tool as hosts and assistants see it.

    Attributes:
        takes: Its input: a model, or the schema of what fal.ai's endpoints take.
        toolset: The set that must be chosen for it to be offered.
        gives: Its result; None where it has no structured half.
        shown: Whether hosts that can show the job's page beside the result.
        run: What a call does; by default, what `calls` has under its name.

    """

    name: str
    title: str
    description: str
    annotations: t.ToolAnnotations
    takes: type[inputs.Input] | Callable[[Catalog], Schema]
    gives: type[View] | None
    toolset: Toolset = "core"
    shown: bool = False
    run: Callable[[Call], Awaitable[Answer]] | None = None

    @property
    def spends(self) -> bool:
        """Whether a call may cost money."""
        return self.annotations is _SPENDS

    def definition(self, catalog: Catalog, *, asked_by_host: bool) -> t.Tool:
        """
        What `tools/list` says about it.

        Args:
            asked_by_host: Whether the host asks its user before each call that spends.
        """
        schema = inputs.input_schema(self.takes) if isinstance(self.takes, type) else self.takes(catalog)
        meta = dict(page.TOOL_META) if self.shown else {}
        if self.spends and asked_by_host:
            meta["anthropic/requiresUserInteraction"] = True
        description = self.description
        if "{prices}" in description:
            description = description.replace("{prices}", price_range(catalog, self.name))
        return t.Tool(
            name=self.name,
            title=self.title,
            description=description,
            input_schema=in_words(schema),
            # Of a view only that it is an object: many of its members can be null, and a host that meets a list of
            # types drops the tool. That results fit the whole of their views is tested.
            output_schema={"type": "object"} if self.gives else None,
            annotations=self.annotations,
            _meta=meta or None,
        )


async def list_tools(
    tools: Mapping[str, Tool], ctx: ServerRequestContext[AppContext], params: t.PaginatedRequestParams | None
) -> t.ListToolsResult:
    """All *tools*, in their order."""
    app = ctx.lifespan_context
    # Where the client shows forms, our own question has the price in it, and the host's would be a second.
    asked_by_host = app.settings.confirm == "always" and not shows_forms(ctx)
    return t.ListToolsResult(
        tools=[tool.definition(app.catalog, asked_by_host=asked_by_host) for tool in tools.values()]
    )


async def call_tool(
    tools: Mapping[str, Tool], ctx: ServerRequestContext[AppContext], params: t.CallToolRequestParams
) -> t.CallToolResult | t.InputRequiredResult:
    """Answer a call of one of *tools*; every error but those of the protocol becomes a refusal."""
    # What a call needs takes as long to load as everything that the list of tools needs.
    from kling_mcp.server.calls import HANDLERS

    tool = tools.get(params.name)
    if tool is None:
        raise MCPError(code=t.INVALID_PARAMS, message=f"There is no tool {params.name[:60]!r}")
    app = ctx.lifespan_context
    call = Call(app, ctx, params, app.call_budget())
    try:
        if (where := unencodable(params.arguments)) is not None:
            raise InvalidArguments(
                f"The text of {where} is not Unicode: it holds half a character (such as half an emoji), or bytes that "
                "are not UTF-8.",
                "Send it again with whole characters.",
                field=where,
            )
        key = app.settings.fal_key
        if key is not None and key.reveal() in json.dumps(params.arguments, ensure_ascii=False):
            raise InvalidArguments(
                "The arguments hold the key for fal.ai. It would be in the prompt or an address that others see.",
                "Send the call without it: the server has the key, and no tool needs it. The user should know that the "
                "key is in the conversation; a new one is made at https://fal.ai/dashboard/keys.",
            )
        # A task, for which the SDK has no type, is a dictionary.
        answer: Any = await (tool.run or HANDLERS[tool.name])(call)
    except KlingError as error:
        return refusal(error, spends=tool.spends, key=app.settings.fal_key)
    except MCPError:
        raise
    except Exception:
        reference = secrets.token_hex(4)
        log.exception("tool failed", extra={"tool": params.name, "reference": reference})
        return refusal(Internal(reference, billed=call.billed), spends=tool.spends)
    return answer


# ---- the list


def _hints(*, reads: bool = False, destroys: bool = True, reaches_out: bool = False) -> t.ToolAnnotations:
    # Idempotent each: the same call is the same job.
    return t.ToolAnnotations(
        read_only_hint=reads, destructive_hint=destroys, idempotent_hint=True, open_world_hint=reaches_out
    )


# Not that something is lost: a paid call is worth the host's question.
_SPENDS: Final = _hints(reaches_out=True)
_ENDS: Final = _hints(reaches_out=True)
_SETTLES: Final = _hints()
_READS: Final = _hints(reads=True, destroys=False)

TOOLS: Final[dict[str, Tool]] = {
    tool.name: tool
    for tool in (
        Tool(
            name="image_to_video",
            title="Image to video",
            description="Spends money: {prices} a video. Starts a Kling job on fal.ai that animates a picture; answers "
            "with a job_id in seconds. The video takes 1.5 to 10 minutes and is saved on this machine.",
            annotations=_SPENDS,
            takes=partial(job_schema, tool="image_to_video"),
            gives=JobView,
            shown=True,
        ),
        Tool(
            name="multi_shot_video",
            title="Multi-shot video",
            description="Spends money, by the sum of the shots: as image_to_video, with up to six shots.",
            annotations=_SPENDS,
            takes=partial(job_schema, tool="multi_shot_video"),
            gives=JobView,
            shown=True,
        ),
        Tool(
            name="text_to_video",
            title="Text to video",
            description="Spends money: as image_to_video, without a picture.",
            annotations=_SPENDS,
            takes=partial(job_schema, tool="text_to_video"),
            gives=JobView,
            shown=True,
        ),
        Tool(
            name="estimate_cost",
            title="Estimate cost",
            description="Free, without key or network. The price of a job, its source, and the request that would be "
            "sent.",
            annotations=_READS,
            takes=estimate_schema,
            gives=EstimateView,
        ),
        Tool(
            name="list_models",
            title="List models",
            description="Free. The Kling models with prices and abilities, or one in full.",
            annotations=_READS,
            takes=inputs.ListModels,
            gives=ModesView,
        ),
        Tool(
            name="get_job",
            title="Get job",
            description="Free. State, cost and arguments of a job, and its video; waits up to wait_seconds.",
            annotations=_READS,
            takes=inputs.GetJob,
            gives=JobView,
            shown=True,
        ),
        Tool(
            name="view_video",
            title="View video",
            description="Free. Frames of a saved video on one JPEG, each with its time and shot.",
            annotations=_READS,
            takes=inputs.ViewVideo,
            gives=None,
        ),
        Tool(
            name="list_jobs",
            title="List jobs",
            description="Free. Jobs of this machine, newest first, also of earlier conversations.",
            annotations=_READS,
            takes=inputs.ListJobs,
            gives=JobsView,
        ),
        Tool(
            name="cancel_job",
            title="Cancel job",
            description="Free. Asks fal.ai to drop a job: unbilled while it waits; one that runs may still finish and "
            "be billed.",
            annotations=_ENDS,
            takes=inputs.CancelJob,
            gives=JobView,
        ),
        Tool(
            name="resolve_job",
            title="Resolve job",
            description="Free. Settles a job in state unknown by the user's word, after they looked at "
            "https://fal.ai/dashboard/requests.",
            annotations=_SETTLES,
            takes=inputs.ResolveJob,
            gives=JobView,
        ),
        Tool(
            name="reference_to_video",
            title="Reference to video",
            description="Spends money: as image_to_video, with pictures or elements that the prompt names.",
            annotations=_SPENDS,
            takes=partial(job_schema, tool="reference_to_video"),
            gives=JobView,
            toolset="reference",
            shown=True,
        ),
        Tool(
            name="create_voice",
            title="Create voice",
            description="Spends money ({prices}): makes a voice from a recording, for voice_ids and voice_id. "
            "kling://voices lists them.",
            annotations=_SPENDS,
            takes=partial(job_schema, tool="create_voice", short=True),
            gives=JobView,
            toolset="reference",
        ),
        Tool(
            name="edit_video",
            title="Edit video",
            description="Spends money ({prices}): edits a video by its prompt.",
            annotations=_SPENDS,
            takes=partial(job_schema, tool="edit_video", short=True),
            gives=JobView,
            toolset="edit",
        ),
        Tool(
            name="motion_control",
            title="Motion control",
            description="Spends money ({prices}): a pictured person moves as in a video.",
            annotations=_SPENDS,
            takes=partial(job_schema, tool="motion_control", short=True),
            gives=JobView,
            toolset="edit",
        ),
        Tool(
            name="lip_sync",
            title="Lip sync",
            description="Spends money ({prices}): a video's lips follow audio or text.",
            annotations=_SPENDS,
            takes=partial(job_schema, tool="lip_sync", short=True),
            gives=JobView,
            toolset="edit",
        ),
        Tool(
            name="talking_avatar",
            title="Talking avatar",
            description="Spends money ({prices}): a pictured person speaks audio.",
            annotations=_SPENDS,
            takes=partial(job_schema, tool="talking_avatar", short=True),
            gives=JobView,
            toolset="edit",
        ),
    )
    if SHOWS_VIDEOS or tool.name != "view_video"
}
