"""Telling clients that a job has changed, each in the way of its protocol era."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import mcp_types as t
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourcesListChanged, ResourceUpdated

from kling_mcp.server.results import job_uri, last_frame_uri

if TYPE_CHECKING:
    from mcp.server.context import ServerRequestContext
    from mcp.server.session import ServerSession

    from kling_mcp.jobs.job import Job

__all__ = ["News"]

log = logging.getLogger(__name__)


class News:
    """
    Who wants to hear of what.

    A client of the newer era listens on a stream of its own
    (`subscriptions/listen`); one of the older era subscribes to single
    resources and is told on its connection.
    """

    def __init__(self) -> None:
        self._bus = InMemorySubscriptionBus()
        self.listen = ListenHandler(self._bus)
        self._subscribed: dict[str, dict[int, ServerSession]] = {}
        self._seen: set[str] = set()

    async def subscribe(self, ctx: ServerRequestContext[Any], params: t.SubscribeRequestParams) -> t.EmptyResult:
        """Tell this session of changes of a resource from now on."""
        self._subscribed.setdefault(str(params.uri), {})[id(ctx.session)] = ctx.session
        return t.EmptyResult()

    async def unsubscribe(self, ctx: ServerRequestContext[Any], params: t.UnsubscribeRequestParams) -> t.EmptyResult:
        """Tell this session no more."""
        self._subscribed.get(str(params.uri), {}).pop(id(ctx.session), None)
        return t.EmptyResult()

    async def job_changed(self, job: Job) -> None:
        """Tell everybody who wants to know that *job* is not what it was."""
        if job.job_id not in self._seen:
            self._seen.add(job.job_id)
            await self._bus.publish(ResourcesListChanged())
        uris = [job_uri(job.job_id), "kling://jobs", "kling://spend"]
        if job.saved_to is not None:
            uris.append(last_frame_uri(job.job_id))
        for uri in uris:
            await self._bus.publish(ResourceUpdated(uri=uri))
            for key, session in list(self._subscribed.get(uri, {}).items()):
                try:
                    await session.send_resource_updated(uri)
                except Exception:
                    # A session of the older era dies without a word.
                    log.debug("a subscriber is gone", exc_info=True)
                    self._subscribed[uri].pop(key, None)
