"""
Film driver: starts clips and joins films, whenever one of their jobs changes and every minute.

It does what `decide` says. Films have no owner and no lock: every server with the ledger runs a driver, and the nonce
of a take keeps two of them from making it twice.
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
from kling_mcp.media.joining import BeingJoined

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
    Does what `decide` says for each film.

    Args:
        join: Joins a film's clips; None where this machine does not save videos, or cannot join them.
    """

    def __init__(self, jobs: JobService, catalog: Catalog, join: Callable[[Film], Awaitable[FilmCut]] | None) -> None:
        self._jobs = jobs
        self._catalog = catalog
        self._join = join
        self._under_way: set[str] = set()
        self._look_again: set[str] = set()
        self._stopping = False
        """Whether this server is stopping. Another server, or the next start, continues the films."""

    async def run(self) -> None:
        """Check every film now and each minute, and in between when one of its jobs changes."""
        self._jobs.store.subscribe(self._job_changed)
        while True:
            try:
                for film in await self._jobs.store.run(lambda ledger: ledger.films(going=True)):
                    self.go_on(film.film_id)
            except KlingError as trouble:
                log.warning("films could not be read", extra={"why": trouble.what})
            await self._jobs.runtime.sleep(_EVERY_SECONDS)

    async def _job_changed(self, job: Job) -> None:
        for film_id in await self._jobs.store.run(lambda ledger: ledger.films_of(job.job_id)):
            self.go_on(film_id)

    def go_on(self, film_id: str) -> None:
        """Check a film in the background; once more afterwards if that is under way already."""
        if film_id in self._under_way:
            self._look_again.add(film_id)
            return
        self._under_way.add(film_id)
        self._jobs.in_background(self._check, film_id)

    async def _check(self, film_id: str) -> None:
        seen: Film | None = None
        try:
            while True:
                self._look_again.discard(film_id)
                film = await self._jobs.store.run(lambda ledger: ledger.film(film_id))
                actions = decide(film, self._jobs.runtime.now_ms())
                # What did not change the film last time is left for the next event or minute.
                if not self._stopping and actions and film != seen:
                    seen = film
                    async with anyio.create_task_group() as tasks:
                        for action in actions:
                            tasks.start_soon(self._try, film, action)
                elif self._stopping or film_id not in self._look_again:
                    return
        except KlingError as trouble:
            log.warning("a film could not be read", extra={"film_id": film_id, "why": trouble.what})
        finally:
            self._under_way.discard(film_id)

    async def _try(self, film: Film, action: Action) -> None:
        """Do *action*; what goes wrong with one film must not stop the server."""
        try:
            await self._do(film, action)
        except KlingError as trouble:
            log.warning("a film was put off", extra={"film_id": film.film_id, "why": trouble.what})
        except Exception:
            log.exception("a film was put off", extra={"film_id": film.film_id})

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
            # The take tells a retake from the job before it, as it does for single jobs.
            arguments = {**call.arguments, "take": step.take}
            draft = await self._jobs.prepare(plan(self._catalog, call.tool, arguments, call.endpoint), arguments)
            started = await self._jobs.start(draft, film_step=step)
            # Of its own job only: one that another server had stopped says nothing of this one.
            self._stopping = self._stopping or (started.fresh and started.job.fault == faults.STOPPED)
        except FilmPaused:
            return
        except KlingError as error:
            if error.billed != "no":
                # There is a job, and its state decides what comes next.
                return
            why: Why = "over_agreement" if isinstance(error, OverBudget) and "agreed" in error.what else "refused"
            await self._pause(film, why, f"Clip {clip.number}: {error.what} {error.next_step}")

    async def _join_clips(self, film: Film) -> None:
        if self._join is None:
            await self._pause(film, "not_joined", "")
            return
        try:
            cut = await self._join(film)
        except BeingJoined:
            return
        except KlingError as error:
            await self._pause(film, "join_failed", error.what)
            return
        if not await self._jobs.store.run(lambda ledger: ledger.add_cut(film.film_id, cut)):
            # Another server was faster; its file is the film.
            await anyio.Path(cut.path).unlink(missing_ok=True)
        self._jobs.store.film_changed()

    async def _pause(self, film: Film, why: Why, detail: str) -> None:
        await self._jobs.store.run(lambda ledger: ledger.pause_film(film.film_id, why, detail))
        self._jobs.store.film_changed()
