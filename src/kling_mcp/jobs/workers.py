"""Workers of the job service: they send, follow, save and reconcile jobs; made together when the first is needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kling_mcp.jobs.poller import Poller
from kling_mcp.jobs.reconciler import Reconciler
from kling_mcp.jobs.saver import Saver
from kling_mcp.jobs.submitter import Submitter

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.abc import TaskGroup

    from kling_mcp.fal.client import Fal
    from kling_mcp.jobs.store import JobStore
    from kling_mcp.settings import Settings

__all__ = ["Workers", "make_workers"]


@dataclass(frozen=True, slots=True)
class Workers:
    """What moves jobs on in the background."""

    submitter: Submitter
    poller: Poller
    reconciler: Reconciler


def make_workers(
    store: JobStore, settings: Settings, fal: Callable[[], Fal], tasks: Callable[[], TaskGroup]
) -> Workers:
    """
    The workers of one service.

    Args:
        fal: Gives the client of fal.ai, which is made on first use.
        tasks: Gives the service's task group.
    """
    poller = Poller(store, settings, fal, Saver(store, settings, fal), tasks)
    submitter = Submitter(store, settings, fal, poller.follow)
    simulated = settings.backend == "simulator"
    can_ask = simulated or settings.fal_key is not None
    reconciler = Reconciler(store, fal, poller, under_way=submitter.under_way, can_ask=can_ask, simulated=simulated)
    return Workers(submitter, poller, reconciler)
