"""
App: wires the server, its handlers and what lives as long as it serves.

Before the first answer nothing is opened: no database, no network, no HTTP
library. The ledger is brought up to date shortly after.
"""

from __future__ import annotations

import importlib
import logging
import secrets
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread
import mcp_types as t
from mcp.server.caching import CacheHint
from mcp.server.lowlevel.server import NotificationOptions, Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.shared.exceptions import MCPError
from pydantic import ValidationError

from kling_mcp import __version__
from kling_mcp.catalog.added import added_endpoints
from kling_mcp.errors import Internal
from kling_mcp.jobs.service import JobService
from kling_mcp.server import prompts, resources, tasks
from kling_mcp.server.arguments import opened
from kling_mcp.server.context import AppContext
from kling_mcp.server.eras import known_to_the_client
from kling_mcp.server.frames import malformed
from kling_mcp.server.instructions import instructions
from kling_mcp.server.notifier import ChangeNotifier
from kling_mcp.server.tools import TOOLS, Tool, call_tool, list_tools
from kling_mcp.server.ui import page
from kling_mcp.settings import FalHosts, Secret, Settings
from kling_mcp.texts import showable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from mcp.server.context import CallNext, HandlerResult, ServerRequestContext

    from kling_mcp.catalog.models import Catalog
    from kling_mcp.fal.client import Fal
    from kling_mcp.jobs.ledger import Ledger
    from kling_mcp.runtime import Runtime

__all__ = ["KlingServer", "build"]

log = logging.getLogger(__name__)

_NAME: Final = "kling-mcp"
_WARM_AFTER_SECONDS: Final = 0.5
_NEEDED_BY_THE_FIRST_JOB: Final = (
    "jsonschema",
    "kling_mcp.server.calls",
    "kling_mcp.jobs.inputs",
    "kling_mcp.jobs.sqlite.engine",
    "kling_mcp.jobs.workers",
    "kling_mcp.fal.client",
    "httpx",
)
_HOUR_MS: Final = 3_600_000


class KlingServer(Server[AppContext]):
    """The SDK's server, with change notifications declared to clients of the older era too."""

    service: JobService | None = None

    async def close(self) -> None:
        """Bring work to an end within two seconds; what cannot end stays as it is in the ledger."""
        if self.service is not None:
            await self.service.close()

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
    catalog: Callable[[], Catalog] | None = None,
    runtime: Runtime | None = None,
    open_fal: Callable[[Settings], Fal] | None = None,
    open_ledger: Callable[[], Ledger] | None = None,
    tools: Mapping[str, Tool] | None = None,
    task_source: tasks.TaskSource | None = None,
    notifier: ChangeNotifier | None = None,
) -> KlingServer:
    """
    A server for *settings*; nothing is opened until it serves.

    Args:
        catalog: Reads the endpoints; those that are bundled and added if not given.
        runtime: Clock, pauses, ids and chance.
        open_fal: Makes the client of fal.ai.
        open_ledger: Opens the ledger.
        tools: What can be called, by name, in the order of `tools/list`; the chosen toolsets if not given.
        task_source: Where tasks are kept; the jobs themselves if not given.
        notifier: Tells clients of changes.
    """
    changes = notifier or ChangeNotifier()
    chosen = {name: tool for name, tool in TOOLS.items() if tool.toolset in settings.toolsets}
    offered = chosen if tools is None else tools

    @asynccontextmanager
    async def lifespan(_: Server[AppContext]) -> AsyncGenerator[AppContext]:
        async with AsyncExitStack() as stack:
            used, known = settings, catalog() if catalog else _with_added(settings)
            if settings.backend == "simulator":
                used = await stack.enter_async_context(_simulated(settings, known))
            service = JobService(used, lambda: (open_fal or _fal)(used), open_ledger, runtime)
            await stack.enter_async_context(service.open())
            service.store.subscribe(changes.job_changed)
            service.in_background(_warm, service)
            server.service = service
            yield AppContext(known, service, offered)

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
        on_list_tools=partial(list_tools, offered),
        on_call_tool=partial(call_tool, offered),
        on_list_resources=changes.list_resources,
        on_list_resource_templates=resources.list_templates,
        on_read_resource=resources.read_resource,
        on_subscribe_resource=changes.subscribe,
        on_unsubscribe_resource=changes.unsubscribe,
        on_subscriptions_listen=changes.listen,
        on_list_prompts=prompts.list_prompts,
        on_get_prompt=prompts.get_prompt,
        on_completion=resources.complete,
    )
    tasks.serve(server, task_source or tasks.JobTasks())
    server.extensions[page.EXTENSION] = {}
    server.middleware += [_without_details, known_to_the_client]
    # Seals what a confirmation carries from one call to the next, so that no client can make one up.
    server.middleware.append(RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=_NAME))
    return server


def _with_added(settings: Settings) -> Catalog:
    """The endpoints that are bundled and added; a file that cannot be used is a line in the log, and no more."""
    found = added_endpoints(settings.data_dir)
    for line in found.left_out:
        log.warning(line)
    return found.catalog


def _fal(settings: Settings) -> Fal:
    # With httpx, which takes a fifth of a second to load.
    from kling_mcp.fal.client import Fal

    return Fal(settings)


@asynccontextmanager
async def _simulated(settings: Settings, catalog: Catalog) -> AsyncGenerator[Settings]:
    """The simulator in this process; gives settings that point to it."""
    # With Starlette and uvicorn, which only this backend needs.
    from kling_mcp.simulator import app, serve

    listener = serve.bind()
    urls = serve.urls_of(listener)
    async with serve.serving(app.Simulator(catalog, speed=settings.simulator_speed), listener=listener):
        yield replace(
            settings,
            fal_key=Secret("simulator:simulator"),
            hosts=FalHosts(urls.queue, urls.rest, urls.api),
            media_hosts=(*settings.media_hosts, urls.media_host),
        )


async def _warm(service: JobService) -> None:
    """Once the first answers are out: load what the first job needs, and bring the ledger up to date."""
    await anyio.sleep(_WARM_AFTER_SECONDS)
    for module in _NEEDED_BY_THE_FIRST_JOB:
        await anyio.to_thread.run_sync(importlib.import_module, module, abandon_on_cancel=True)
    await service.recover()


async def _without_details(ctx: ServerRequestContext[AppContext], call_next: CallNext) -> HandlerResult:
    """Keep the text of a defect in the log, which the SDK sends to older clients, and say what is malformed."""
    if ctx.method == "tools/call" and ctx.params and "arguments" in ctx.params:
        ctx = replace(ctx, params={**ctx.params, "arguments": opened(ctx.params["arguments"])})
    try:
        return await call_next(ctx)
    except MCPError:
        raise
    except ValidationError as error:
        if (why := malformed(error)) is None:
            raise
        raise MCPError(code=t.INVALID_PARAMS, message=why) from error
    except Exception as error:
        reference = secrets.token_hex(4)
        log.exception("request failed", extra={"method": ctx.method, "reference": reference})
        raise MCPError(code=t.INTERNAL_ERROR, message=str(Internal(reference))) from error
