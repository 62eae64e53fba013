"""
Driver: brings films on, whenever one of their jobs changes and each minute.

It asks `decide` what is to be done and does it. There is no lock and no owner: every server that has the ledger does
the same, and the nonce of a take lets the ledger make each of them once.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, assert_never

import anyio

from kling_mcp.catalog.plan import plan
from kling_mcp.errors import KlingError, OverBudget
from kling_mcp.films.planning import call_of
from kling_mcp.ids import last_frame_uri
from kling_mcp.jobs import faults
from kling_mcp.jobs.film import FilmPaused, Join, Pause, Start, decide

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kling_mcp.catalog.models import Catalog
    from kling_mcp.jobs.film import Action, Film, FilmCut, Why
    from kling_mcp.jobs.job import Job
    from kling_mcp.jobs.service import JobService

__all__ = ["FilmDriver"]

log = logging.getLogger(__name__)

_EVERY_SECONDS: Final = 60.0


class FilmDriver:
    """
    Does what films need.

    Args:
        join: Joins a film's clips; None where clips are not saved or cannot be joined on this machine.
    """

    def __init__(self, jobs: JobService, catalog: Catalog, join: Callable[[Film], Awaitable[FilmCut]] | None) -> None:
        self._jobs = jobs
        self._catalog = catalog
        self._join = join
        self._under_way: set[str] = set()
        self._look_again: set[str] = set()
        self._stopping = False
        """Whether this server sends nothing any more; another, or the next, goes on."""

    async def run(self) -> None:
        """Bring every film on now and each minute; its jobs bring it on in between."""
        self._jobs.store.subscribe(self._job_changed)
        while True:
            try:
                for film in await self._jobs.store.run(lambda ledger: ledger.films(going=True)):
                    self.go_on(film.film_id)
            except KlingError as trouble:
                log.warning("films were put off", extra={"why": trouble.what})
            await self._jobs.runtime.sleep(_EVERY_SECONDS)

    async def _job_changed(self, job: Job) -> None:
        for film_id in await self._jobs.store.run(lambda ledger: ledger.films_of(job.job_id)):
            self.go_on(film_id)

    def go_on(self, film_id: str) -> None:
        """See what a film needs, in the background; once more after that if it is being seen to already."""
        if film_id in self._under_way:
            self._look_again.add(film_id)
            return
        self._under_way.add(film_id)
        self._jobs.in_background(self._bring_on, film_id)

    async def _bring_on(self, film_id: str) -> None:
        try:
            while True:
                self._look_again.discard(film_id)
                film = await self._jobs.store.run(lambda ledger: ledger.film(film_id))
                actions = decide(film, self._jobs.runtime.now_ms())
                async with anyio.create_task_group() as tasks:
                    for action in actions:
                        tasks.start_soon(self._do, film, action)
                if self._stopping or (not actions and film_id not in self._look_again):
                    return
        except KlingError as trouble:
            log.warning("a film was put off", extra={"film_id": film_id, "why": trouble.what})
        finally:
            self._under_way.discard(film_id)

    async def _do(self, film: Film, action: Action) -> None:
        match action:
            case Start():
                await self._start(film, action)
            case Pause(why=why):
                await self._pause(film, why, "")
            case Join():
                await self._join_clips(film)
            case _:
                assert_never(action)

    async def _start(self, film: Film, action: Start) -> None:
        clip, step = action.clip, action.step
        image = last_frame_uri(step.begins_with) if step.begins_with else clip.planned.start
        try:
            call = call_of(self._catalog, clip.planned.arguments, image or None)
            # With its take, so that fal's request of it and the page of it are told from those before.
            arguments = {**call.arguments, "take": step.take}
            draft = await self._jobs.prepare(plan(self._catalog, call.tool, arguments, call.endpoint), arguments)
            started = await self._jobs.start(draft, film_step=step)
            self._stopping = self._stopping or started.job.fault == faults.STOPPED
        except FilmPaused:
            return
        except KlingError as error:
            if error.billed != "no":
                # The job is recorded: how it is decides what comes next.
                return
            why: Why = "over_agreement" if isinstance(error, OverBudget) and "agreed" in error.what else "refused"
            await self._pause(film, why, f"Clip {clip.number}: {error.what} {error.next_step}")

    async def _join_clips(self, film: Film) -> None:
        if self._join is None:
            await self._pause(film, "not_joined", "")
            return
        try:
            cut = await self._join(film)
        except KlingError as error:
            await self._pause(film, "join_failed", error.what)
            return
        await self._jobs.store.run(lambda ledger: ledger.add_cut(film.film_id, cut))
        self._jobs.store.film_changed()

    async def _pause(self, film: Film, why: Why, detail: str) -> None:
        await self._jobs.store.run(lambda ledger: ledger.pause_film(film.film_id, why, detail))
        self._jobs.store.film_changed()
