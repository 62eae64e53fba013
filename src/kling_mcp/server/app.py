"""
The server: which request goes where, and what lives as long as it serves.

Before the first answer nothing is opened: no database, no network, no HTTP
library. The ledger is brought up to date shortly after.
"""

from __future__ import annotations

import importlib
import logging
import secrets
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

import anyio
import anyio.to_thread
import mcp_types as t
from mcp.server.caching import CacheHint
from mcp.server.lowlevel.server import NotificationOptions, Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.shared.exceptions import MCPError
from pydantic import ValidationError

from kling_mcp import __version__
from kling_mcp.catalog.models import Catalog, load
from kling_mcp.errors import Internal, InvalidArguments, KlingError, LedgerUnavailable
from kling_mcp.jobs.service import JobService
from kling_mcp.server import confirm, prompts, resources, results, tasks
from kling_mcp.server.call_budget import CallBudget
from kling_mcp.server.eras import known_to_the_client
from kling_mcp.server.instructions import instructions
from kling_mcp.server.notifier import ChangeNotifier
from kling_mcp.server.tools import TOOLS, Call, definitions
from kling_mcp.server.ui import page
from kling_mcp.settings import FalHosts, Secret, Settings
from kling_mcp.texts import showable, unencodable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping

    from mcp.server.context import CallNext, HandlerResult, ServerRequestContext

    from kling_mcp.fal.client import Fal
    from kling_mcp.jobs.job import Job
    from kling_mcp.jobs.ledger import DaySpend, Ledger
    from kling_mcp.runtime import Runtime
    from kling_mcp.server.tools import Tool

__all__ = ["App", "KlingServer", "build"]

log = logging.getLogger(__name__)

_NAME: Final = "kling-mcp"
_WARM_AFTER_SECONDS: Final = 0.5
_NEEDED_BY_THE_FIRST_JOB: Final = (
    "jsonschema",
    "kling_mcp.catalog.plan",
    "kling_mcp.catalog.pricing",
    "kling_mcp.jobs.pictures",
    "kling_mcp.jobs.sqlite.engine",
    "kling_mcp.jobs.workers",
    "kling_mcp.fal.client",
    "httpx",
)
_HOUR_MS: Final = 3_600_000


class App:
    """
    What every request works with, for as long as the server serves.

    Args:
        source: Where tasks are kept; the jobs themselves if not given.
    """

    def __init__(
        self,
        catalog: Catalog,
        service: JobService,
        notifier: ChangeNotifier,
        tools: Mapping[str, Tool] = TOOLS,
        source: Callable[[App], tasks.TaskSource] | None = None,
    ) -> None:
        self.catalog = catalog
        self.service = service
        self.notifier = notifier
        self.tools = tools
        self.jobs = tasks.JobTasks(self)
        self.tasks = tasks.Tasks(source(self) if source else self.jobs)

    def now_ms(self) -> int:
        """UTC milliseconds since 1970."""
        return self.service.runtime.now_ms()

    def call_budget(self) -> CallBudget:
        """The time of one call, from now on."""
        return CallBudget(
            lambda work: self.service.in_background(cast("Callable[[], Coroutine[Any, Any, None]]", work))
        )

    async def spent_today(self, budget: CallBudget) -> DaySpend | None:
        """What is held and spent today; None if the ledger cannot say."""
        try:
            # A price is worth more at once than with the rest of the budget.
            return (await budget.within(self.service.store.spend, extra_seconds=-3))[0]
        except KlingError:
            return None

    async def spend_today(self, budget: CallBudget) -> results.Json:
        """What is spent, held and left of today's budget."""
        today = (await budget.within(self.service.store.spend))[0]
        return results.spend_today(today, self.service.settings.daily_budget_usd)

    async def cancel(self, job_id: str, budget: CallBudget) -> tuple[Job, str]:
        """
        Ask for a job to be cancelled; fal is not waited for longer than a call may take.

        Raises:
            UnknownJob: No such job.
        """
        silent = LedgerUnavailable("", "")
        try:
            return await budget.within(lambda: self.service.cancel(job_id), silent, extra_seconds=-1)
        except LedgerUnavailable as trouble:
            if trouble is not silent:
                raise
        job = await budget.within(lambda: self.service.store.get(job_id))
        return job, "fal.ai has not answered yet whether it drops the job: it may still run and be billed."

    def repair_in_background(self, job: Job) -> None:
        """Try once more to save a finished video that could not be saved."""
        self.service.repair_in_background(job)


class KlingServer(Server[App]):
    """The SDK's server, with change notifications declared to clients of the older era too."""

    app: App | None = None

    async def close(self) -> None:
        """Bring work to an end within two seconds; what cannot end stays as it is in the ledger."""
        if self.app is not None:
            await self.app.service.close()

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> Any:
        """What `initialize` answers."""
        options = notification_options or NotificationOptions(resources_changed=True)
        return super().create_initialization_options(options, experimental_capabilities, extensions)


def build(
    settings: Settings,
    *,
    catalog: Callable[[], Catalog] = load,
    runtime: Runtime | None = None,
    open_fal: Callable[[Settings], Fal] | None = None,
    open_ledger: Callable[[], Ledger] | None = None,
    tools: Mapping[str, Tool] = TOOLS,
    task_source: Callable[[App], tasks.TaskSource] | None = None,
) -> KlingServer:
    """
    A server for *settings*; nothing is opened until it serves.

    Args:
        catalog: Reads the endpoints.
        runtime: Clock, pauses, ids and chance.
        open_fal: Makes the client of fal.ai.
        open_ledger: Opens the ledger.
        tools: What can be called, by name, in the order of `tools/list`.
        task_source: Where tasks are kept; the jobs themselves if not given.
    """
    notifier = ChangeNotifier()

    @asynccontextmanager
    async def lifespan(_: Server[App]) -> AsyncGenerator[App]:
        async with AsyncExitStack() as stack:
            mine = (
                await stack.enter_async_context(_simulated(settings)) if settings.backend == "simulator" else settings
            )
            service = JobService(mine, lambda: (open_fal or _fal)(mine), open_ledger, runtime)
            await stack.enter_async_context(service.open())
            app = App(catalog(), service, notifier, tools, task_source)
            service.store.subscribe(notifier.job_changed)
            service.in_background(_warm, app)
            server.app = app
            yield app

    server = KlingServer(
        _NAME,
        version=__version__,
        title="Kling Video",
        instructions=showable(instructions(settings)),
        website_url="https://github.com/kling-mcp/kling-mcp",
        lifespan=lifespan,
        cache_hints={
            "server/discover": CacheHint(_HOUR_MS, "public"),
            "tools/list": CacheHint(_HOUR_MS, "public"),
            "prompts/list": CacheHint(_HOUR_MS, "public"),
            "resources/templates/list": CacheHint(_HOUR_MS, "public"),
        },
        on_list_tools=_list_tools,
        on_call_tool=_call_tool,
        on_list_resources=_list_resources,
        on_list_resource_templates=_list_templates,
        on_read_resource=_read_resource,
        on_subscribe_resource=notifier.subscribe,
        on_unsubscribe_resource=notifier.unsubscribe,
        on_subscriptions_listen=notifier.listen,
        on_list_prompts=_list_prompts,
        on_get_prompt=_get_prompt,
        on_completion=_complete,
    )
    tasks.serve(server, _tasks_of)
    server.extensions[page.EXTENSION] = {}
    server.middleware += [_guard, known_to_the_client]
    # Seals what a confirmation carries from one call to the next, so that no client can make one up.
    server.middleware.append(RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=_NAME))
    return server


def _fal(settings: Settings) -> Fal:
    from kling_mcp.fal.client import Fal

    return Fal(settings)


@asynccontextmanager
async def _simulated(settings: Settings) -> AsyncGenerator[Settings]:
    """fal's queue in this process, and settings that point to it."""
    from kling_mcp.simulator.app import Simulator
    from kling_mcp.simulator.serve import bind, serving, urls_of

    listener = bind()
    urls = urls_of(listener)
    async with serving(Simulator(speed=settings.simulator_speed), listener=listener):
        yield replace(
            settings,
            fal_key=Secret("simulator:simulator"),
            hosts=FalHosts(urls.queue, urls.rest, urls.api),
            media_hosts=(*settings.media_hosts, urls.media_host),
        )


async def _warm(app: App) -> None:
    """Once the first answers are out: load what the first job needs, and bring the ledger up to date."""
    await anyio.sleep(_WARM_AFTER_SECONDS)
    await anyio.to_thread.run_sync(_load, abandon_on_cancel=True)
    await app.service.recover()


def _load() -> None:
    for module in _NEEDED_BY_THE_FIRST_JOB:
        importlib.import_module(module)


# ---- requests


async def _list_tools(ctx: ServerRequestContext[App], params: t.PaginatedRequestParams | None) -> t.ListToolsResult:
    app = ctx.lifespan_context
    return t.ListToolsResult(
        tools=definitions(app.tools, app.catalog, app.service.settings, forms=confirm.shows_forms(ctx))
    )


async def _call_tool(
    ctx: ServerRequestContext[App], params: t.CallToolRequestParams
) -> t.CallToolResult | t.InputRequiredResult:
    app = ctx.lifespan_context
    tool = app.tools.get(params.name)
    if tool is None:
        raise MCPError(code=t.INVALID_PARAMS, message=f"There is no tool {params.name[:60]!r}")
    call = Call(app, ctx, params, app.call_budget())
    try:
        if (where := unencodable(params.arguments)) is not None:
            raise InvalidArguments(
                f"The text of {where} is not Unicode: it holds half a character (such as half an emoji), or bytes that "
                "are not UTF-8.",
                "Send it again with whole characters.",
                field=where,
            )
        answer: Any = await tool.run(call)
    except KlingError as error:
        return results.refusal(error, spends=tool.spends, key=app.service.settings.fal_key)
    except MCPError:
        raise
    except Exception:
        reference = secrets.token_hex(4)
        log.exception("tool failed", extra={"tool": params.name, "reference": reference})
        return results.refusal(Internal(reference, billed=call.billed), spends=tool.spends)
    return answer


async def _list_resources(
    ctx: ServerRequestContext[App], params: t.PaginatedRequestParams | None
) -> t.ListResourcesResult:
    if ctx.protocol_version < tasks.MODERN:
        ctx.lifespan_context.notifier.remember(ctx)
    return await resources.listed(ctx.lifespan_context, params.cursor if params else None)


async def _list_templates(
    ctx: ServerRequestContext[App], params: t.PaginatedRequestParams | None
) -> t.ListResourceTemplatesResult:
    return resources.templates()


async def _read_resource(ctx: ServerRequestContext[App], params: t.ReadResourceRequestParams) -> t.ReadResourceResult:
    return await resources.read(ctx.lifespan_context, ctx, str(params.uri))


async def _list_prompts(ctx: ServerRequestContext[App], params: t.PaginatedRequestParams | None) -> t.ListPromptsResult:
    return prompts.listed()


async def _get_prompt(ctx: ServerRequestContext[App], params: t.GetPromptRequestParams) -> t.GetPromptResult:
    return prompts.get(params)


async def _complete(ctx: ServerRequestContext[App], params: t.CompleteRequestParams) -> t.CompleteResult:
    return await resources.complete(ctx.lifespan_context, params)


def _tasks_of(app: App) -> tasks.Tasks:
    return app.tasks


async def _guard(ctx: ServerRequestContext[App], call_next: CallNext) -> HandlerResult:
    """Let no message of a defect out: the SDK sends its text to clients of the older era."""
    try:
        return await call_next(ctx)
    except (MCPError, ValidationError):
        # What the protocol has a code for; the SDK says nothing of what is in a ValidationError.
        raise
    except Exception as error:
        reference = secrets.token_hex(4)
        log.exception("request failed", extra={"method": ctx.method, "reference": reference})
        raise MCPError(code=t.INTERNAL_ERROR, message=str(Internal(reference))) from error
