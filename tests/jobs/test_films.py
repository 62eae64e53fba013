"""
A film in the ledger: what is decided for it, what may be spent for it, and what a retake does to the clips after it.

Histories of a film (acceptance 1 of the design): two processes ask the real ledger and the real `decide` in any order,
are killed between any two steps, and jobs end as they please. Money is counted where it would move, at the POST.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from kling_mcp.errors import LedgerUnavailable, OverBudget, UnknownJob
from kling_mcp.jobs import faults
from kling_mcp.jobs.film import (
    AGREED_FOR_MS,
    CONTINUE,
    Film,
    FilmCut,
    FilmPaused,
    FilmStep,
    Join,
    Pause,
    PlannedClip,
    Start,
    decide,
)
from kling_mcp.jobs.job import (
    Accepted,
    Failed,
    Fault,
    Finished,
    LostTrack,
    NotSent,
    ProvenAbsent,
    Sending,
    SettledByUser,
)
from kling_mcp.jobs.sqlite.engine import SqliteLedger
from tests.jobs.support import NOW_MS, WIDE, intent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from kling_mcp.jobs.film import Action, Why
    from kling_mcp.jobs.job import Event

FILM = "fm_1"
CEILING = 500_000
BROKEN = Fault("fal_rejected", "It went wrong.", "no")


def clip(start: str = CONTINUE, prompt: str = "A fox runs.") -> PlannedClip:
    return PlannedClip({"prompt": prompt}, start, 5, 400_000, CEILING)


def chain(length: int, *own: int) -> list[PlannedClip]:
    """Clips that continue each other, but for the first and those of *own*, which begin with a picture."""
    return [clip("" if n == 1 else "fox.jpg" if n in own else CONTINUE) for n in range(1, length + 1)]


@pytest.fixture
def ledger(tmp_path: Path) -> SqliteLedger:
    return SqliteLedger(tmp_path, lambda: "ledger-1")


def planned(ledger: SqliteLedger, clips: Sequence[PlannedClip], agreed: int | None = 10_000_000) -> Film:
    ledger.plan_film(FILM, "Fox", {"clips": len(clips)}, clips, NOW_MS)
    if agreed is not None:
        ledger.agree(FILM, agreed, only=(), retake=(), now_ms=NOW_MS)
    return ledger.film(FILM)


def start(ledger: SqliteLedger, step: FilmStep, now_ms: int = NOW_MS) -> str:
    wanted = intent(f"kj_{step.number}_{step.take}_{step.attempt}", nonce=step.nonce, fingerprint="all the same")
    return ledger.reserve(wanted, WIDE, "me", now_ms, step).job.job_id


def end(ledger: SqliteLedger, job_id: str, *events: Event, saved: bool = True) -> None:
    for event in (Sending({}), Accepted(f"r of {job_id}"), *events):
        ledger.apply(job_id, event, NOW_MS)
    if saved and isinstance(events[-1], Finished):
        ledger.mark_saved(job_id, f"/videos/{job_id}.mp4", None, NOW_MS)


def starts(film: Film, now_ms: int = NOW_MS) -> list[FilmStep]:
    return [action.step for action in decide(film, now_ms) if isinstance(action, Start)]


def go_on(ledger: SqliteLedger, most_rounds: int = 40) -> Film:
    """Make whatever is decided, each job at once, until nothing is."""
    for _ in range(most_rounds):
        film = ledger.film(FILM)
        actions = decide(film, NOW_MS)
        if not actions:
            return film
        for action in actions:
            match action:
                case Start(step=step):
                    end(ledger, start(ledger, step), Finished({}))
                case Pause(why=why):
                    ledger.pause_film(FILM, why, "")
                case Join(job_ids=job_ids):
                    ledger.add_cut(FILM, FilmCut(0, job_ids, f"/videos/{len(film.cuts)}.mp4", "copied"))
    raise AssertionError("the film is never finished or paused")


def test_a_film_is_a_draft_until_its_price_is_agreed_to_and_then_each_clip_is_one_job(ledger: SqliteLedger) -> None:
    draft = planned(ledger, chain(3), agreed=None)
    assert (draft.state, decide(draft, NOW_MS)) == ("draft", ())

    ledger.agree(FILM, 3 * CEILING, only=(), retake=(), now_ms=NOW_MS)
    assert ledger.film(FILM).state == "making"
    film = go_on(ledger)

    assert film.state == "ready"
    assert film.cut == FilmCut(1, ("kj_1_1_1", "kj_2_1_1", "kj_3_1_1"), "/videos/0.mp4", "copied")
    assert [one.begins_with for one in film.takes] == [None, "kj_1_1_1", "kj_2_1_1"]


def test_a_clip_that_continues_waits_for_the_saved_video_and_others_run_two_at_a_time(ledger: SqliteLedger) -> None:
    film = planned(ledger, chain(5, 3, 5))
    assert [step.number for step in starts(film)] == [1, 3]

    first = start(ledger, starts(film)[0])
    assert [step.number for step in starts(ledger.film(FILM))] == [3]
    end(ledger, first, Finished({}), saved=False)
    assert [step.number for step in starts(ledger.film(FILM))] == [3, 5]
    ledger.mark_saved(first, "/videos/1.mp4", None, NOW_MS)
    assert [step.number for step in starts(ledger.film(FILM))] == [2, 3]


def test_two_equal_clips_are_two_jobs_and_one_take_is_one_job_however_often_it_is_reserved(
    ledger: SqliteLedger,
) -> None:
    film = planned(ledger, [clip("a.jpg"), clip("a.jpg")])
    one, two = starts(film)

    assert start(ledger, one) != start(ledger, two)
    again = ledger.reserve(intent("kj_other", nonce=one.nonce), WIDE, "another", NOW_MS, one)
    assert (again.fresh, again.job.job_id) == (False, "kj_1_1_1")
    assert len(ledger.film(FILM).takes) == 2


def test_a_process_that_is_late_leads_no_clip_back_to_an_earlier_attempt(ledger: SqliteLedger) -> None:
    (first,) = starts(planned(ledger, chain(1)))
    ledger.apply(start(ledger, first), NotSent(BROKEN), NOW_MS)
    ledger.agree(FILM, None, only=(), retake=(), now_ms=NOW_MS)
    (second,) = starts(ledger.film(FILM))
    start(ledger, second)
    start(ledger, first)

    (clip_now,) = ledger.film(FILM).clips
    assert (clip_now.attempt, clip_now.job and clip_now.job.state) == (2, "preparing")


STOPS: list[tuple[str, list[Event], Why | None, list[tuple[int, int, int]]]] = [
    # what happens to clip 1's job, why the film is paused, and which take and attempt starts when it is asked for again
    ("it fails", [Failed(BROKEN)], "clip_failed", [(1, 2, 1)]),
    ("it is not sent", [], "clip_not_sent", [(1, 1, 2)]),
    ("nobody can tell", [], None, []),
]


@pytest.mark.parametrize(("name", "events", "why", "then"), STOPS)
def test_a_clip_that_went_wrong_is_not_made_again_until_the_user_asks_for_it(
    ledger: SqliteLedger, name: str, events: list[Event], why: Why | None, then: list[tuple[int, int, int]]
) -> None:
    film = planned(ledger, chain(2))
    job_id = start(ledger, starts(film)[0])
    if events:
        end(ledger, job_id, *events)
    elif name == "it is not sent":
        ledger.apply(job_id, NotSent(BROKEN), NOW_MS)
    else:
        ledger.apply(job_id, Sending({}), NOW_MS)
        ledger.apply(job_id, LostTrack("the answer was lost"), NOW_MS)

    film = ledger.film(FILM)
    assert decide(film, NOW_MS) == (() if why is None else (Pause(why),))
    assert film.state == ("paused" if why is None else "making")
    ledger.agree(FILM, None, only=(), retake=(), now_ms=NOW_MS)
    ledger.agree(FILM, None, only=(), retake=(), now_ms=NOW_MS)
    assert [(s.number, s.take, s.attempt) for s in starts(ledger.film(FILM))] == then, "asking twice is asking once"


@pytest.mark.parametrize(
    ("settled", "then"),
    [
        (SettledByUser(charged=False, fault=faults.SAID_NOT_CHARGED), [(1, 1, 2)]),
        (ProvenAbsent(faults.STOPPED), [(1, 1, 2)]),
        (SettledByUser(charged=True, fault=faults.SAID_CHARGED), []),
        (ProvenAbsent(faults.PROVEN_ABSENT), []),
    ],
)
def test_a_film_continues_by_itself_only_after_a_job_that_was_never_sent_and_that_nobody_refused(
    ledger: SqliteLedger, settled: Event, then: list[tuple[int, int, int]]
) -> None:
    film = planned(ledger, chain(2))
    job_id = start(ledger, starts(film)[0])
    for event in (Sending({}), LostTrack("the answer was lost"), settled):
        ledger.apply(job_id, event, NOW_MS)

    film = ledger.film(FILM)
    assert [(s.number, s.take, s.attempt) for s in starts(film)] == then
    assert film.going


def test_no_clip_is_started_beyond_the_agreement_nor_a_day_after_it(ledger: SqliteLedger) -> None:
    """Acceptance 4: a retake beyond the agreement sends nothing."""
    film = planned(ledger, chain(2, 2), agreed=2 * CEILING - 1)
    one, two = starts(film)
    start(ledger, one)
    with pytest.raises(OverBudget, match=r"of the \$0\.99 agreed .* max_cost_usd 1\.00"):
        start(ledger, two)
    assert len(ledger.film(FILM).takes) == 1

    assert decide(film, NOW_MS + AGREED_FOR_MS + 1) == (Pause("agreement_old"),)
    ledger.agree(FILM, 2 * CEILING, only=(), retake=(), now_ms=NOW_MS)
    start(ledger, two)
    ledger.agree(FILM, CEILING, only=(), retake=(), now_ms=NOW_MS)
    assert ledger.film(FILM).agreed_microusd == 2 * CEILING, "an agreement is never taken back"


def test_a_job_that_cost_less_leaves_the_rest_of_the_agreement_for_others(ledger: SqliteLedger) -> None:
    planned(ledger, chain(2, 2), agreed=2 * CEILING - 100_000)
    film = go_on(ledger)

    assert (film.state, film.spent_microusd, film.held_microusd) == ("ready", 800_000, 0)


def test_a_paused_film_starts_nothing_and_a_take_that_is_over_cannot_be_reserved(ledger: SqliteLedger) -> None:
    film = planned(ledger, chain(1))
    (step,) = starts(film)
    ledger.pause_film(FILM, "cancelled", "")
    for late in (step, replace(step, number=9)):
        with pytest.raises(FilmPaused):
            start(ledger, late)
    ledger.agree(FILM, None, only=(), retake=(), now_ms=NOW_MS)
    with pytest.raises(FilmPaused):
        start(ledger, replace(step, take=2))


def test_a_retake_marks_only_the_clip_that_continues_it_and_is_joined_when_the_user_says_so(
    ledger: SqliteLedger,
) -> None:
    """Acceptance 9."""
    planned(ledger, chain(5, 4))
    go_on(ledger)
    ledger.agree(FILM, None, only=(), retake=(2,), now_ms=NOW_MS)
    film = go_on(ledger)

    assert [film.matches(one) for one in film.clips] == [True, True, False, True, True]
    assert (film.state, film.why, film.cut) == ("paused", "clips_differ", None)
    assert [one.takes for one in film.clips] == [1, 2, 1, 1, 1]

    ledger.agree(FILM, None, only=(), retake=(), now_ms=NOW_MS)
    joined = go_on(ledger)
    assert (joined.state, joined.cut and joined.cut.version) == ("ready", 2)

    ledger.agree(FILM, None, only=(), retake=(3,), now_ms=NOW_MS)
    film = go_on(ledger)
    assert [film.matches(one) for one in film.clips] == [True, True, True, True, True], "clip 4 has its own picture"
    assert film.state == "ready"


def test_only_some_clips_can_be_made_now_and_the_others_later(ledger: SqliteLedger) -> None:
    planned(ledger, chain(3))
    ledger.agree(FILM, None, only=(1,), retake=(), now_ms=NOW_MS)
    film = go_on(ledger)
    assert (film.state, film.why, [one.made for one in film.clips]) == ("paused", "only_some", [True, False, False])

    ledger.agree(FILM, None, only=(), retake=(), now_ms=NOW_MS)
    assert go_on(ledger).state == "ready"


def test_a_finished_job_costs_nothing_as_a_clip_and_only_a_changed_clip_is_made_again(ledger: SqliteLedger) -> None:
    ledger.reserve(intent("kj_given"), WIDE, "me", NOW_MS)
    end(ledger, "kj_given", Finished({}))
    clips = [clip("kj_given"), clip(), clip("fox.jpg")]
    planned(ledger, clips)
    film = go_on(ledger)
    assert film.job_ids == ("kj_given", "kj_2_1_1", "kj_3_1_1")
    assert film.spent_microusd == 800_000

    same = ledger.plan_film(FILM, "A fox", {"clips": 3}, clips, NOW_MS)
    assert (same.title, same.state, same.why) == ("A fox", "ready", None)
    changed = ledger.plan_film(FILM, "Fox", {}, [*clips[:2], clip("fox.jpg", "A fox sleeps.")], NOW_MS)
    assert (changed.state, changed.why, changed.clips[2].job) == ("paused", "changed", None)
    ledger.agree(FILM, None, only=(), retake=(), now_ms=NOW_MS)
    assert go_on(ledger).job_ids == ("kj_given", "kj_2_1_1", "kj_3_2_1")
    assert [one.film_id for one in ledger.films(going=True)] == []


def test_the_same_plan_is_found_as_a_draft_and_a_damaged_film_is_not_paid_for(
    ledger: SqliteLedger, tmp_path: Path
) -> None:
    planned(ledger, chain(2), agreed=None)
    assert ledger.draft_of({"clips": 2}) == FILM
    assert ledger.draft_of({"clips": 3}) is None
    ledger.agree(FILM, 1, only=(), retake=(), now_ms=NOW_MS)
    assert ledger.draft_of({"clips": 2}) is None
    with pytest.raises(UnknownJob):
        ledger.film("fm_2")

    (step,) = starts(ledger.film(FILM))
    with SqliteLedger(tmp_path, lambda: "ledger-1")._db as db:
        db.execute("UPDATE film SET agreed_u = 99999999")
    with pytest.raises(LedgerUnavailable, match="damaged"):
        start(ledger, step)


# ---- histories


@dataclass
class Variant:
    """The program, or one of its mutants."""

    nonce: Callable[[FilmStep], str] = lambda step: step.nonce
    step: Callable[[FilmStep], FilmStep | None] = lambda step: step
    decide: Callable[[Film, int], Sequence[Action]] = decide


@dataclass
class World:
    """One film, two processes, and a fal that counts what is paid for."""

    ledger: SqliteLedger
    chance: random.Random
    variant: Variant
    paid: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    """POSTs that fal took, by clip and take."""
    faults: list[str] = field(default_factory=list[str])
    numbers: int = 0
    agreed: int = 0
    steps: int = 0
    crashes: int = 0
    posts: int = 0

    def run(self, most_steps: int) -> None:
        self.film()
        waiting: list[tuple[str, FilmStep]] = []
        seen: dict[int, Film] = {}
        for _ in range(most_steps):
            self.steps += 1
            roll = self.chance.random()
            if roll < 0.3:
                # A process looks, and acts on what it saw only later: in between anything may happen.
                seen[self.chance.randrange(2)] = self.ledger.film(FILM)
            elif roll < 0.67 and seen:
                which = self.chance.choice(list(seen))
                if self.chance.random() < 0.45:
                    self.crashes += 1
                    del seen[which]
                    continue
                self.act(seen.pop(which), waiting)
            elif roll < 0.92 and waiting:
                job_id, step = waiting.pop(self.chance.randrange(len(waiting)))
                self.happens(job_id, step, waiting)
            elif roll > 0.94:
                self.says()
        self.judge()

    def film(self) -> None:
        length = self.chance.randint(2, 5)
        own = [n for n in range(2, length + 1) if self.chance.random() < 0.3]
        self.ledger.plan_film(FILM, "", {}, chain(length, *own), NOW_MS)
        self.says()

    def says(self) -> None:
        """The user goes on, perhaps with more money, perhaps with a retake."""
        film = self.ledger.film(FILM)
        more = self.agreed + CEILING * self.chance.randint(1, len(film.clips))
        more = self.chance.choice([None, more]) if self.agreed else more
        self.agreed = max(self.agreed, more or 0)
        retake = [one.number for one in film.clips if one.made and self.chance.random() < 0.2]
        self.ledger.agree(FILM, more, only=(), retake=retake, now_ms=NOW_MS)

    def act(self, film: Film, waiting: list[tuple[str, FilmStep]]) -> None:
        for action in self.variant.decide(film, NOW_MS):
            match action:
                case Pause(why=why):
                    self.ledger.pause_film(FILM, why, "")
                case Join(job_ids=job_ids):
                    self.ledger.add_cut(FILM, FilmCut(0, job_ids, "/film.mp4", "copied"))
                case Start(step=step):
                    self.start(step, waiting)

    def start(self, step: FilmStep, waiting: list[tuple[str, FilmStep]]) -> None:
        self.numbers += 1
        wanted = intent(f"kj_{self.numbers}", nonce=self.variant.nonce(step))
        try:
            made = self.ledger.reserve(wanted, WIDE, "me", NOW_MS, self.variant.step(step))
        except (OverBudget, FilmPaused):
            return
        if not made.fresh:
            return
        if self.chance.random() < 0.1:
            # Killed before anything was sent; the reconciler ends such a job.
            self.crashes += 1
            self.ledger.apply(made.job.job_id, NotSent(self.chance.choice((BROKEN, faults.STOPPED))), NOW_MS)
            return
        planned = self.ledger.film(FILM).clips[step.number - 1].planned
        if planned.start == CONTINUE and step.begins_with is None:
            self.faults.append("started before its predecessor")
        self.post(made.job.job_id, step, waiting)

    def post(self, job_id: str, step: FilmStep, waiting: list[tuple[str, FilmStep]]) -> None:
        self.ledger.apply(job_id, Sending({}), NOW_MS)
        self.posts += 1
        self.paid[step.number, step.take] = self.paid.get((step.number, step.take), 0) + 1
        if self.chance.random() < 0.12:
            self.ledger.apply(job_id, LostTrack("lost"), NOW_MS)
        else:
            self.ledger.apply(job_id, Accepted(f"r of {job_id}"), NOW_MS)
        waiting.append((job_id, step))

    def happens(self, job_id: str, step: FilmStep, waiting: list[tuple[str, FilmStep]]) -> None:
        job = self.ledger.get(job_id)
        if job.state == "unknown":
            if self.chance.random() < 0.5:
                waiting.append((job_id, step))
                return
            self.ledger.apply(job_id, Accepted(f"r of {job_id}"), NOW_MS)
            waiting.append((job_id, step))
            return
        self.ledger.apply(job_id, Failed(BROKEN) if self.chance.random() < 0.15 else Finished({}), NOW_MS)
        if self.ledger.get(job_id).state == "completed":
            self.ledger.mark_saved(job_id, f"/{job_id}.mp4", None, NOW_MS)

    def judge(self) -> None:
        film = self.ledger.film(FILM)
        if any(times > 1 for times in self.paid.values()):
            self.faults.append("paid twice for one take")
        # What fal was asked for, whether the ledger still counts it to the film or not.
        all_jobs = self.ledger.page(limit=10_000)
        worth = sum(one.intent.ceiling_microusd if one.open else one.cost_microusd or 0 for one in all_jobs)
        if worth > self.agreed:
            self.faults.append("over the agreement")
        if {one.job_id for one in film.takes} < {one.job_id for one in all_jobs}:
            self.faults.append("a job that is in no film")


def histories(folder: Path, variant: Variant, seeds: range) -> list[World]:
    worlds: list[World] = []
    for seed in seeds:
        ledger = SqliteLedger(folder / str(seed), lambda: "ledger-1")
        ledger._db.execute("PRAGMA synchronous = OFF")
        ledger._db.execute("PRAGMA journal_mode = MEMORY")
        worlds.append(World(ledger, random.Random(seed), variant))
        worlds[-1].run(most_steps=90)
        ledger.close()
    return worlds


def test_no_history_of_a_film_pays_twice_loses_a_job_or_passes_the_agreement(tmp_path: Path) -> None:
    worlds = histories(tmp_path, Variant(), range(150))

    assert [(seed, world.faults) for seed, world in enumerate(worlds) if world.faults] == []
    assert sum(world.posts for world in worlds) > 300
    assert sum(world.crashes for world in worlds) > 300


@pytest.mark.long
@pytest.mark.parametrize("part", range(8))
def test_no_history_of_twenty_thousand_pays_twice(part: int, tmp_path: Path) -> None:
    """Acceptance 1: with at least 150,000 crashes in all."""
    first = 1_000 + 2_500 * part
    worlds = histories(tmp_path, Variant(), range(first, first + 2_500))

    assert [(seed, world.faults) for seed, world in enumerate(worlds, first) if world.faults] == []
    assert sum(world.crashes for world in worlds) > 150_000 / 8


def _sends_what_is_unknown_again(film: Film, now_ms: int) -> Sequence[Action]:
    clips = tuple(
        replace(one, job=None, attempt=one.attempt + 1) if one.job and one.job.state == "unknown" else one
        for one in film.clips
    )
    return decide(replace(film, clips=clips), now_ms)


def _waits_for_nothing(film: Film, now_ms: int) -> Sequence[Action]:
    clips = tuple(replace(one, planned=replace(one.planned, start="fox.jpg")) for one in film.clips)
    return decide(replace(film, clips=clips), now_ms)


_numbers: Any = iter(range(10**9))

MUTANTS: dict[str, tuple[Variant, str]] = {
    "no nonce": (Variant(nonce=lambda _: f"any {next(_numbers)}"), "paid twice for one take"),
    "no agreement": (Variant(step=lambda _: None), "over the agreement"),
    "no waiting for the clip before": (Variant(decide=_waits_for_nothing), "started before its predecessor"),
    "what is unknown is sent again": (Variant(decide=_sends_what_is_unknown_again), "paid twice for one take"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_film_with_a_fault_is_caught(name: str, tmp_path: Path) -> None:
    """Acceptance 1: the four mutants."""
    variant, caught = MUTANTS[name]

    assert caught in {fault for world in histories(tmp_path, variant, range(60)) for fault in world.faults}
