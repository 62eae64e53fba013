"""
Telling clients that a job has changed, each in the way of its protocol era.

A client of the newer era listens on a stream of its own
(`subscriptions/listen`); one of the older era subscribes to single resources
and is told on its connection. Jobs move in this process and in others that
share the ledger, so while somebody listens the ledger is watched as well.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import anyio
import mcp_types as t
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourcesListChanged, ResourceUpdated
from mcp.shared.exceptions import MCPError

from kling_mcp.errors import KlingError
from kling_mcp.server.results import job_uri, last_frame_uri

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mcp.server.context import ServerRequestContext
    from mcp.server.session import ServerSession
    from mcp.server.subscriptions import ServerEvent

    from kling_mcp.jobs.job import Job
    from kling_mcp.jobs.service import JobService
    from kling_mcp.server.app import App

__all__ = ["ChangeNotifier"]

log = logging.getLogger(__name__)

_LOOK_EVERY_SECONDS: Final = 1.0
_WATCHED_JOBS: Final = 50
_MOST_SUBSCRIPTIONS: Final = 1_000


class ChangeNotifier:
    """Who wants to hear of what."""

    def __init__(self) -> None:
        self._bus = InMemorySubscriptionBus()
        self._streams = ListenHandler(self._bus)
        self._listening = 0
        # Of the older era: connections by the identity of what they said at first, and what each subscribed to.
        self._connections: dict[int, ServerSession] = {}
        self._subscribed: dict[str, set[int]] = {}
        self._wanted = anyio.Event()
        self._known: dict[str, Job] = {}
        self._newest_seq: int | None = None
        self._counter: int | None = None

    # ---- who listens

    async def listen(
        self, ctx: ServerRequestContext[Any], params: t.SubscriptionsListenRequestParams
    ) -> t.SubscriptionsListenResult:
        """Serve one stream of the newer era until its client leaves."""
        await self._attend(ctx.lifespan_context)
        self._listening += 1
        try:
            return await self._streams(ctx, params)
        finally:
            self._listening -= 1
            self._rest()

    async def subscribe(self, ctx: ServerRequestContext[Any], params: t.SubscribeRequestParams) -> t.EmptyResult:
        """Tell this connection of changes of a resource from now on."""
        uri = str(params.uri)
        if uri not in self._subscribed and len(self._subscribed) >= _MOST_SUBSCRIPTIONS:
            raise MCPError(code=t.INVALID_REQUEST, message="There are too many subscriptions")
        await self._attend(ctx.lifespan_context)
        self._subscribed.setdefault(uri, set()).add(self.remember(ctx))
        return t.EmptyResult()

    async def unsubscribe(self, ctx: ServerRequestContext[Any], params: t.UnsubscribeRequestParams) -> t.EmptyResult:
        """Tell this connection no more."""
        uri = str(params.uri)
        self._subscribed.get(uri, set()).discard(self.remember(ctx))
        if not self._subscribed.get(uri):
            self._subscribed.pop(uri, None)
        self._rest()
        return t.EmptyResult()

    def listed(self, jobs: Sequence[Job]) -> None:
        """Note that *jobs*, newest first, have been shown as all that there are."""
        self._newest_seq = max(self._newest_seq or 0, jobs[0].seq if jobs else 0)

    def remember(self, ctx: ServerRequestContext[Any]) -> int:
        """Tell the connection of *ctx* when the list of resources changes; the key of the connection."""
        # A session lives for one request, what the client said at first for the whole connection.
        key = id(ctx.session.client_params)
        self._connections.setdefault(key, ctx.session)
        return key

    # ---- what is told

    async def publish(self, event: ServerEvent) -> None:
        """Tell every stream of the newer era that wants to know."""
        await self._bus.publish(event)

    async def job_changed(self, job: Job) -> None:
        """Tell everybody who wants to know that *job* is not what it was."""
        before = self._known.get(job.job_id)
        if before == job:
            return
        self._known[job.job_id] = job
        # The list has titles and no states: hosts fetch it whole at each notice, so only a job that is added is one.
        if self._newest_seq is not None and job.seq > self._newest_seq:
            self._newest_seq = job.seq
            await self.publish(ResourcesListChanged())
            for session in list(self._connections.values()):
                await session.send_resource_list_changed()
        uris = [job_uri(job.job_id), "kling://jobs", "kling://spend"]
        if job.saved_to is not None:
            uris.append(last_frame_uri(job.job_id))
        for uri in uris:
            await self.publish(ResourceUpdated(uri=uri))
            for key in list(self._subscribed.get(uri, ())):
                await self._connections[key].send_resource_updated(uri)

    # ---- other processes

    async def watch(self, service: JobService) -> None:
        """Find out about jobs that other processes move, for as long as somebody wants to know."""
        while True:
            await self._wanted.wait()
            await service.runtime.sleep(_LOOK_EVERY_SECONDS)
            try:
                for job in await self._moved(service):
                    await self.job_changed(job)
            except KlingError as trouble:
                log.debug("the ledger could not be watched", extra={"why": trouble.what})

    async def _attend(self, app: App) -> None:
        """Note how the jobs stand before the first listener is told that it is heard."""
        if self._wanted.is_set():
            return
        try:
            jobs = await app.call_budget().within(lambda: self._moved(app.service))
        except KlingError:
            jobs = ()
        for job in jobs:
            self._known[job.job_id] = job
        self.listed(jobs[::-1])
        self._wanted.set()

    def _rest(self) -> None:
        if not self._listening and not self._subscribed and self._wanted.is_set():
            self._wanted = anyio.Event()
            self._counter = None
            self._known.clear()

    async def _moved(self, service: JobService) -> Sequence[Job]:
        """The newest jobs, oldest first, if any process has changed the ledger since the last look."""
        counter = await service.store.run(lambda ledger: ledger.change_counter())
        if counter == self._counter:
            return ()
        jobs = [*reversed(await service.page(None, _WATCHED_JOBS, None))]
        self._counter = counter
        return jobs
