"""
Film service: plans films, starts and cancels them, and says what is still to be paid for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kling_mcp.errors import InputRefused, InvalidArguments, KlingError, NoApiKey
from kling_mcp.films.driver import FilmDriver
from kling_mcp.films.planning import at_clip, plan_film, refuse_mixed_shapes, shape_of
from kling_mcp.jobs.film import CONTINUE, FilmCut
from kling_mcp.jobs.ledger import Limits
from kling_mcp.media import joining
from kling_mcp.media.optional import SHOWS_VIDEOS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from kling_mcp.catalog.models import Catalog
    from kling_mcp.errors import ArgumentFault
    from kling_mcp.films.planning import FilmPlan
    from kling_mcp.jobs.film import Clip, Film
    from kling_mcp.jobs.service import JobService

__all__ = ["FilmService", "PlannedFilm", "Remaining"]

_KEPT: Final = ("clips", "title", "model", "generate_audio", "negative_prompt", "aspect_ratio", "elements")


@dataclass(frozen=True, slots=True)
class PlannedFilm:
    """A recorded film, with warnings for the user."""

    film: Film
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Remaining:
    """
    What is left to make of a film, and its cost in micro-dollars.

    Attributes:
        clips: The clips that need a job.
        estimated_microusd: What they are expected to cost.
        ceiling_microusd: What they may cost at most.
        used_microusd: What the film has cost so far, plus what its open jobs may still cost.
        agreed: Whether the agreement covers all of it.
    """

    clips: tuple[Clip, ...]
    estimated_microusd: int
    ceiling_microusd: int
    used_microusd: int
    agreed: bool


class FilmService:
    """
    Films, from plan to joined file.

    Args:
        join: Joins the clips of a film into a file; PyAV in a child process if not given.
    """

    def __init__(
        self, jobs: JobService, catalog: Catalog, join: Callable[[Film], Awaitable[FilmCut]] | None = None
    ) -> None:
        self._jobs = jobs
        self._catalog = catalog
        able = SHOWS_VIDEOS and jobs.settings.output_dir is not None
        self.driver = FilmDriver(jobs, catalog, join or (self._joined if able else None))

    async def plan(self, given: Mapping[str, object], film_id: str | None = None) -> PlannedFilm:
        """
        Check, price and record a film. With *film_id* it changes that film, and keeps what *given* leaves out.

        Raises:
            InvalidArguments: Something is wrong with one or several clips.
            UnknownJob: There is no such film.
        """
        own = {name: given[name] for name in _KEPT if given.get(name) is not None}
        if film_id is not None:
            known = await self.get(film_id)
            own = {**known.arguments, **own}
        planned = plan_film(self._catalog, own, chains=self._why_no_chains())
        await self._look_at_inputs(planned)
        now_ms = self._jobs.runtime.now_ms()
        if film_id is None:
            film_id = await self._jobs.store.run(lambda ledger: ledger.draft_of(planned.arguments))
            if film_id is not None:
                return PlannedFilm(await self.get(film_id), planned.warnings)
        new_id = film_id or f"fm_{self._jobs.runtime.new_id().removeprefix('kj_')}"
        film = await self._jobs.store.run(
            lambda ledger: ledger.plan_film(new_id, planned.title, planned.arguments, planned.clips, now_ms)
        )
        self._jobs.store.film_changed()
        return PlannedFilm(film, planned.warnings)

    def _why_no_chains(self) -> str | None:
        if not SHOWS_VIDEOS:
            return "PyAV, which takes the last frame of a video, is not installed"
        if self._jobs.settings.output_dir is None:
            return "videos are not saved, because KLING_MCP_OUTPUT_DIR is none"
        return None

    async def _look_at_inputs(self, planned: FilmPlan) -> None:
        """Refuse pictures and jobs that cannot be used, and clips of different shapes, before anything is paid for."""
        faults: list[ArgumentFault] = []
        shapes: dict[int, str] = {}
        for index, (clip, made) in enumerate(zip(planned.clips, planned.plans, strict=True)):
            try:
                if clip.given is not None:
                    await self._finished(clip.given)
                elif made is not None and clip.start != CONTINUE:
                    shape = shape_of(await self._jobs.prepare(made, clip.arguments))
                    shapes |= {index: shape} if shape else {}
            except KlingError as error:
                faults += [at_clip(fault, index) for fault in error.faults]
        if faults:
            raise InputRefused.of(faults)
        refuse_mixed_shapes(shapes)

    async def _finished(self, job_id: str) -> None:
        job = await self._jobs.store.get(job_id)
        if job.state != "completed" or job.intent.voice is not None:
            raise InvalidArguments(
                f"Job {job_id} is {job.state}, so it is no clip yet.",
                "A clip can be a finished job with a video; get_job shows how it is.",
                field="start",
            )

    async def get(self, film_id: str) -> Film:
        """
        One film.

        Raises:
            UnknownJob: There is no such film.
        """
        return await self._jobs.store.run(lambda ledger: ledger.film(film_id))

    async def wait(self, film: Film, seconds: float) -> Film:
        """The film as soon as it differs from *film*, or as it is after *seconds*."""
        return await self._jobs.store.wait_for_film(film, seconds)

    def remaining(self, film: Film, *, only: Sequence[int] = (), retake: Sequence[int] = ()) -> Remaining:
        """
        The clips that `make` would start, and their cost.

        Raises:
            InvalidArguments: There is no such clip, or one of *only* continues a clip that is not made.
        """
        for name, numbers in (("only", only), ("retake", retake)):
            for number in numbers:
                if not 1 <= number <= len(film.clips):
                    raise InvalidArguments(
                        f"Film {film.film_id} has no clip {number}.",
                        f"Its clips are 1 to {len(film.clips)}.",
                        field=name,
                    )
        wanted = [clip for clip in film.clips if (not only or clip.number in only) and clip.planned.given is None]
        clips = [clip for clip in wanted if _is_to_be_made(clip) or (clip.number in retake and clip.made)]
        numbers = {clip.number for clip in clips}
        for clip in clips:
            before = film.clips[clip.number - 2]
            if clip.planned.start == CONTINUE and before.number not in numbers and before.job is None:
                raise InvalidArguments(
                    f"Clip {clip.number} continues clip {before.number}, which is not made.",
                    f"Add {before.number} to only, or leave only out.",
                    field="only",
                )
        ceiling = sum(clip.planned.ceiling_microusd for clip in clips)
        used = film.spent_microusd + film.held_microusd
        return Remaining(
            clips=tuple(clips),
            estimated_microusd=sum(clip.planned.estimate_microusd for clip in clips),
            ceiling_microusd=ceiling,
            used_microusd=used,
            agreed=film.agreed_microusd is not None and used + ceiling <= film.agreed_microusd,
        )

    async def check(self, remaining: Remaining) -> None:
        """
        Refuse a film that cannot be paid for, before the user is asked about its price.

        Raises:
            NoApiKey: There is no key to pay with.
            OverBudget: A clip, or all of them together, would pass a limit.
            LedgerUnavailable: The ledger cannot be written.
        """
        settings, limits = self._jobs.settings, Limits.of(self._jobs.settings)
        if settings.backend == "fal" and settings.fal_key is None:
            raise NoApiKey
        dearest_microusd = max((clip.planned.ceiling_microusd for clip in remaining.clips), default=0)
        of_all = Limits(remaining.ceiling_microusd, limits.day_microusd)
        now_ms = self._jobs.runtime.now_ms()
        await self._jobs.store.run(lambda ledger: ledger.afford(dearest_microusd, limits, now_ms))
        await self._jobs.store.run(lambda ledger: ledger.afford(remaining.ceiling_microusd, of_all, now_ms))

    async def make(
        self, film_id: str, agreed_microusd: int | None, *, only: Sequence[int] = (), retake: Sequence[int] = ()
    ) -> Film:
        """Make the film, or go on with it; *agreed_microusd* raises the agreement and never lowers it."""
        now_ms = self._jobs.runtime.now_ms()
        film = await self._jobs.store.run(
            lambda ledger: ledger.agree(film_id, agreed_microusd, only=only, retake=retake, now_ms=now_ms)
        )
        self._jobs.store.film_changed()
        self.driver.go_on(film_id)
        return film

    async def cancel(self, film_id: str) -> Film:
        """Pause the film and cancel jobs that wait in fal's queue; a job that is running finishes and is billed."""
        film = await self._jobs.store.run(lambda ledger: ledger.pause_film(film_id, "cancelled", ""))
        for clip in film.clips:
            if clip.job is not None and clip.job.open and clip.planned.given is None:
                await self._jobs.withdraw(clip.job.job_id)
        self._jobs.store.film_changed()
        return await self.get(film_id)

    async def _joined(self, film: Film) -> FilmCut:
        folder = self._jobs.settings.output_dir or Path()
        clips = [
            joining.Clip(Path(clip.job.saved_to), drops_first=clip.begins_with is not None and film.matches(clip))
            for clip in film.clips
            if clip.job is not None and clip.job.saved_to is not None
        ]
        made = await joining.join(clips, folder / f"{_file_name(film)}.mp4")
        return FilmCut(0, film.job_ids, str(made.path), made.how)


def _is_to_be_made(clip: Clip) -> bool:
    """Whether it has no job, or one that ended without a video."""
    return clip.job is None or clip.job.state in {"failed", "cancelled", "not_submitted"}


def _file_name(film: Film) -> str:
    """The title in characters that every file system accepts, and part of the id, because titles repeat."""
    words = re.sub(r"[^\w]+", "-", film.title).strip("-")[:60]
    return f"{words or 'film'}-{film.film_id.removeprefix('fm_')[:8]}"
