"""
Change notifier: tells clients that a job has changed, each in the way of its protocol era.

A client of the newer era listens on a stream of its own
(`subscriptions/listen`); one of the older era subscribes to single resources
and is told on its connection. Jobs move in this process and in others that
share the ledger, so while a client listens the ledger is watched as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import mcp_types as t
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourcesListChanged, ResourceUpdated
from mcp.shared.exceptions import MCPError

from kling_mcp.errors import KlingError
from kling_mcp.ids import last_frame_uri
from kling_mcp.jobs.store import JOBS_FOLLOWED
from kling_mcp.server.eras import MODERN
from kling_mcp.server.resources import list_resources
from kling_mcp.server.views import job_uri

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mcp.server.context import ServerRequestContext
    from mcp.server.session import ServerSession

    from kling_mcp.jobs.job import Job
    from kling_mcp.jobs.store import JobStore
    from kling_mcp.server.context import AppContext

__all__ = ["ChangeNotifier"]

_MOST_SUBSCRIPTIONS: Final = 1_000


class ChangeNotifier:
    """Which client is told of which changes."""

    def __init__(self) -> None:
        bus = InMemorySubscriptionBus()
        self._streams = ListenHandler(bus)
        self.publish = bus.publish
        """Tells every stream of the newer era that listens for such events."""
        self._listening = 0
        # Of the older era: connections by the identity of their `initialize`, and which subscribed to each resource.
        self._connections: dict[int, ServerSession] = {}
        self._subscribed: dict[str, set[int]] = {}
        self._newest_seq: int | None = None
        self._store: JobStore | None = None

    # ---- requests

    async def listen(
        self, ctx: ServerRequestContext[AppContext], params: t.SubscriptionsListenRequestParams
    ) -> t.SubscriptionsListenResult:
        """Serve one stream of the newer era until its client leaves."""
        await self._follow_others(ctx.lifespan_context)
        self._listening += 1
        try:
            return await self._streams(ctx, params)
        finally:
            self._listening -= 1
            self._unfollow_if_unwanted()

    async def subscribe(self, ctx: ServerRequestContext[AppContext], params: t.SubscribeRequestParams) -> t.EmptyResult:
        """Tell this connection of changes of a resource from now on."""
        uri = str(params.uri)
        if uri not in self._subscribed and len(self._subscribed) >= _MOST_SUBSCRIPTIONS:
            raise MCPError(code=t.INVALID_REQUEST, message="There are too many subscriptions")
        await self._follow_others(ctx.lifespan_context)
        self._subscribed.setdefault(uri, set()).add(self._remember(ctx))
        return t.EmptyResult()

    async def unsubscribe(
        self, ctx: ServerRequestContext[AppContext], params: t.UnsubscribeRequestParams
    ) -> t.EmptyResult:
        """Tell this connection of this resource no more."""
        uri = str(params.uri)
        self._subscribed.get(uri, set()).discard(self._remember(ctx))
        if not self._subscribed.get(uri):
            self._subscribed.pop(uri, None)
        self._unfollow_if_unwanted()
        return t.EmptyResult()

    async def list_resources(
        self, ctx: ServerRequestContext[AppContext], params: t.PaginatedRequestParams | None
    ) -> t.ListResourcesResult:
        """The list of resources; who has asked for it is told when it changes."""
        if ctx.protocol_version < MODERN:
            self._remember(ctx)
        result, jobs = await list_resources(ctx.lifespan_context, params.cursor if params else None)
        self._listed(jobs)
        return result

    def _listed(self, jobs: Sequence[Job]) -> None:
        """Note that *jobs*, newest first, have been listed as all that there are."""
        self._newest_seq = max(self._newest_seq or 0, jobs[0].seq if jobs else 0)

    def _remember(self, ctx: ServerRequestContext[AppContext]) -> int:
        """Tell the connection of *ctx* when the list of resources changes; the key of the connection."""
        # A session lives for one request, what the client said at first for the whole connection.
        key = id(ctx.session.client_params)
        self._connections.setdefault(key, ctx.session)
        return key

    # ---- changes

    async def job_changed(self, job: Job) -> None:
        """Tell every client that listens for it that *job* has changed."""
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

    async def _follow_others(self, app: AppContext) -> None:
        """Hear of what other processes change too, beginning before the first listener is confirmed."""
        if self._listening or self._subscribed:
            return
        self._store = app.store
        try:
            jobs = await app.call_budget().within(lambda: app.store.page(None, JOBS_FOLLOWED))
        except KlingError:
            jobs = ()
        self._listed(jobs)
        self._store.follow_others(jobs)

    def _unfollow_if_unwanted(self) -> None:
        if not self._listening and not self._subscribed and self._store is not None:
            self._store.unfollow_others()
