"""
The films of the SQLite ledger: four tables, read and written within the engine's transactions.

What a film has cost is never stored; it is added up from its jobs. A film's row has a checksum, as a job's has, because
it says how much may be spent.
"""

from __future__ import annotations

import json
from decimal import ROUND_CEILING, ROUND_FLOOR
from typing import TYPE_CHECKING, Any, Final

from kling_mcp.errors import OverBudget, UnknownJob
from kling_mcp.jobs.film import Clip, Film, FilmCut, FilmPaused, FilmTake, PlannedClip
from kling_mcp.jobs.sqlite.row_codec import DamagedRowError, checksum_of, path_of_text, text_of, text_of_path
from kling_mcp.money import microusd_text

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping, Sequence

    from kling_mcp.jobs.film import FilmStep, Why
    from kling_mcp.jobs.job import Job

__all__ = ["SCHEMA", "FilmTable"]

SCHEMA: Final = (
    """CREATE TABLE film (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        title TEXT NOT NULL, plan TEXT NOT NULL, created_ms INTEGER NOT NULL,
        agreed_u INTEGER, agreed_ms INTEGER,
        going INTEGER NOT NULL, why TEXT, detail TEXT NOT NULL, only_clips TEXT NOT NULL, accepted TEXT NOT NULL,
        seal TEXT NOT NULL
    ) STRICT""",
    "CREATE INDEX film_going ON film (seq) WHERE going = 1",
    """CREATE TABLE clip (
        film TEXT NOT NULL, n INTEGER NOT NULL, planned TEXT NOT NULL, take INTEGER NOT NULL, attempt INTEGER NOT NULL,
        PRIMARY KEY (film, n)
    ) STRICT""",
    """CREATE TABLE film_take (
        film TEXT NOT NULL, n INTEGER NOT NULL, take INTEGER NOT NULL, attempt INTEGER NOT NULL,
        job TEXT NOT NULL, begins_with TEXT,
        PRIMARY KEY (film, n, take, attempt)
    ) STRICT""",
    "CREATE INDEX film_take_by_job ON film_take (job)",
    """CREATE TABLE film_cut (
        film TEXT NOT NULL, version INTEGER NOT NULL, jobs TEXT NOT NULL, path TEXT NOT NULL, how TEXT NOT NULL,
        edit_list TEXT,
        PRIMARY KEY (film, version)
    ) STRICT""",
)

_FILM: Final = (
    *("seq", "id", "title", "plan", "created_ms", "agreed_u", "agreed_ms"),
    *("going", "why", "detail", "only_clips", "accepted"),
)
"""The checked columns of a film."""

_READ: Final = f"SELECT {', '.join(_FILM)}, seal FROM film WHERE id = ?"  # noqa: S608 - column names of ours


class FilmTable:
    """
    Films in the ledger *db*, each call within a transaction of the engine.

    Args:
        job: Reads a job.
    """

    def __init__(self, db: sqlite3.Connection, job: Callable[[str], Job]) -> None:
        self._db = db
        self._job = job

    # ---- reading

    def get(self, film_id: str) -> Film:
        """
        One film with its jobs.

        Raises:
            UnknownJob: No such film.
            DamagedRowError: Its row is not what was written.
        """
        row = self._db.execute(_READ, (film_id,)).fetchone()
        if row is None:
            raise UnknownJob(film_id)
        if row[-1] != checksum_of(row[:-1]):
            raise DamagedRowError("a film's record does not match its checksum")
        values: dict[str, Any] = dict(zip(_FILM, row[:-1], strict=True))
        takes = tuple(
            FilmTake(*found)
            for found in self._db.execute(
                "SELECT n, take, attempt, job, begins_with FROM film_take WHERE film = ? ORDER BY n, take, attempt",
                (film_id,),
            )
        )
        jobs = {take.job_id: self._job(take.job_id) for take in takes}
        return Film(
            film_id=film_id,
            title=values["title"],
            arguments=json.loads(values["plan"]),
            clips=tuple(self._clips(film_id, takes, jobs)),
            takes=takes,
            cuts=tuple(
                FilmCut(version, tuple(json.loads(made_of)), path_of_text(path) or "", how, path_of_text(edit_list))
                for version, made_of, path, how, edit_list in self._db.execute(
                    "SELECT version, jobs, path, how, edit_list FROM film_cut WHERE film = ? ORDER BY version",
                    (film_id,),
                )
            ),
            agreed_microusd=values["agreed_u"],
            agreed_ms=values["agreed_ms"],
            going=bool(values["going"]),
            why=values["why"],
            detail=values["detail"],
            only=tuple(json.loads(values["only_clips"])),
            accepted=tuple(json.loads(values["accepted"])),
            created_ms=values["created_ms"],
            spent_microusd=sum(job.cost_microusd or 0 for job in jobs.values() if not job.open),
            held_microusd=sum(job.intent.ceiling_microusd for job in jobs.values() if job.open),
        )

    def _clips(self, film_id: str, takes: Sequence[FilmTake], jobs: Mapping[str, Job]) -> Sequence[Clip]:
        clips: list[Clip] = []
        for number, planned, take, attempt in self._db.execute(
            "SELECT n, planned, take, attempt FROM clip WHERE film = ? ORDER BY n", (film_id,)
        ).fetchall():
            found = PlannedClip(**json.loads(planned))
            own = [one for one in takes if one.number == number]
            now = next((one for one in own if (one.take, one.attempt) == (take, attempt)), None)
            job = None if now is None else jobs[now.job_id]
            if found.given is not None:
                job = self._job(found.given)
            begins_with = None if now is None else now.begins_with
            clips.append(Clip(number, found, take, attempt, job, begins_with, len({one.take for one in own})))
        return clips

    def ids(self, *, going: bool = False, limit: int = 50) -> Sequence[str]:
        """Films, newest first."""
        among = " WHERE going = 1" if going else ""
        rows = self._db.execute(f"SELECT id FROM film{among} ORDER BY seq DESC LIMIT ?", (limit,))  # noqa: S608
        return [row[0] for row in rows]

    def of_job(self, job_id: str) -> Sequence[str]:
        """The films that *job_id* is a take of."""
        return [row[0] for row in self._db.execute("SELECT DISTINCT film FROM film_take WHERE job = ?", (job_id,))]

    def draft_of(self, plan: Mapping[str, object]) -> str | None:
        """The newest film of the same plan that nobody has agreed to."""
        row = self._db.execute(
            "SELECT id FROM film WHERE plan = ? AND agreed_ms IS NULL ORDER BY seq DESC LIMIT 1", (text_of(plan),)
        ).fetchone()
        return None if row is None else row[0]

    # ---- planning

    def put(
        self, film_id: str, title: str, plan: Mapping[str, object], clips: Sequence[PlannedClip], now_ms: int
    ) -> None:
        """Record a new film, or change one: a clip whose plan differs gets its next take, and the film is paused."""
        known = self._db.execute("SELECT 1 FROM film WHERE id = ?", (film_id,)).fetchone()
        if known is None:
            self._db.execute(
                "INSERT INTO film (id, title, plan, created_ms, going, detail, only_clips, accepted, seal)"
                " VALUES (?, ?, ?, ?, 0, '', '[]', '[]', '')",
                (film_id, title, text_of(plan), now_ms),
            )
            self._seal(film_id)
        else:
            self._set(film_id, title=title, plan=text_of(plan))
        removed = self._db.execute("DELETE FROM clip WHERE film = ? AND n > ?", (film_id, len(clips))).rowcount
        changed = removed > 0
        for number, planned in enumerate(clips, 1):
            written = text_of(
                {
                    "arguments": planned.arguments,
                    "start": planned.start,
                    "seconds": planned.seconds,
                    "estimate_microusd": planned.estimate_microusd,
                    "ceiling_microusd": planned.ceiling_microusd,
                }
            )
            before = self._db.execute("SELECT planned FROM clip WHERE film = ? AND n = ?", (film_id, number)).fetchone()
            if before is not None and _wish(before[0]) == _wish(written):
                self._db.execute("UPDATE clip SET planned = ? WHERE film = ? AND n = ?", (written, film_id, number))
                continue
            changed = True
            last = self._db.execute(
                "SELECT COALESCE(MAX(take), 0) FROM film_take WHERE film = ? AND n = ?", (film_id, number)
            ).fetchone()[0]
            self._db.execute(
                "INSERT INTO clip VALUES (?, ?, ?, ?, 1) ON CONFLICT (film, n) DO UPDATE"
                " SET planned = excluded.planned, take = excluded.take, attempt = 1",
                (film_id, number, written, last + 1),
            )
        if known is not None and changed and self.get(film_id).agreed_ms is not None:
            self._set(film_id, going=0, why="changed", detail="", only_clips="[]")

    # ---- what the user decides

    def agree(
        self,
        film_id: str,
        agreed_microusd: int | None,
        *,
        only: Sequence[int],
        retake: Sequence[int],
        now_ms: int,
    ) -> None:
        """
        Make the film, or go on with it; *agreed_microusd* raises the agreement and never lowers it.

        A clip gets its next take where its job failed, or where it is in *retake* and has a video. It gets its next
        attempt where its job was not sent. Jobs that are open are left alone, so calling this twice changes nothing.
        """
        film = self.get(film_id)
        for clip in film.clips:
            if clip.job is None or clip.planned.given is not None:
                continue
            if clip.job.state in {"failed", "cancelled"} or (clip.number in retake and clip.made):
                self._db.execute(
                    "UPDATE clip SET take = take + 1, attempt = 1 WHERE film = ? AND n = ?", (film_id, clip.number)
                )
            elif clip.job.state == "not_submitted":
                self._db.execute(
                    "UPDATE clip SET attempt = attempt + 1 WHERE film = ? AND n = ?", (film_id, clip.number)
                )
        more = {} if agreed_microusd is None else {"agreed_u": max(agreed_microusd, film.agreed_microusd or 0)}
        self._set(
            film_id,
            going=1,
            why=None,
            detail="",
            agreed_ms=now_ms,
            only_clips=text_of(sorted(set(only))),
            accepted=text_of([] if retake else film.job_ids),
            **more,
        )

    def pause(self, film_id: str, why: Why, detail: str) -> None:
        """Start nothing more for the film."""
        self._set(film_id, going=0, why=why, detail=detail)

    def add_cut(self, film_id: str, cut: FilmCut) -> bool:
        """Record a joined film, which ends the work on it; False if these jobs are joined already."""
        jobs = text_of(cut.job_ids)
        known = self._db.execute("SELECT 1 FROM film_cut WHERE film = ? AND jobs = ?", (film_id, jobs)).fetchone()
        if known is not None:
            return False
        self._db.execute(
            "INSERT INTO film_cut SELECT ?, COALESCE(MAX(version), 0) + 1, ?, ?, ?, ? FROM film_cut WHERE film = ?",
            (film_id, jobs, text_of_path(cut.path), cut.how, text_of_path(cut.edit_list), film_id),
        )
        self._set(film_id, going=0, why=None, detail="")
        return True

    # ---- money

    def allow(self, step: FilmStep, ceiling_microusd: int) -> None:
        """
        Check that a job may be reserved for *step*: the film is going, and the agreement covers the cost.

        Raises:
            FilmPaused: The film is paused, or has moved on to another take.
            OverBudget: The agreement has too little left.
        """
        film = self.get(step.film_id)
        clip = next((one for one in film.clips if one.number == step.number), None)
        if not film.going or clip is None or clip.take != step.take or step.attempt < clip.attempt:
            raise FilmPaused(
                f"Clip {step.number} of film {step.film_id} was not started: the film is paused or has changed.",
                f"get_job with job_id {step.film_id} shows the film.",
            )
        used_microusd = film.spent_microusd + film.held_microusd
        if used_microusd + ceiling_microusd > (film.agreed_microusd or 0):
            missing = microusd_text(used_microusd + ceiling_microusd, ROUND_CEILING)
            raise OverBudget(
                f"Clip {step.number} could cost up to {microusd_text(ceiling_microusd, ROUND_CEILING)}, and of the "
                f"{microusd_text(film.agreed_microusd or 0, ROUND_FLOOR)} agreed for film {step.film_id} "
                f"{microusd_text(used_microusd, ROUND_CEILING)} is spent or held.",
                f"If the user agrees, make_film with film_id {step.film_id} and max_cost_usd {missing[1:]} goes on.",
            )

    def took(self, step: FilmStep, job_id: str) -> None:
        """Record that *job_id* makes the take of *step*."""
        self._db.execute(
            "INSERT INTO film_take VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (step.film_id, step.number, step.take, step.attempt, job_id, step.begins_with),
        )
        # A process that is late must not lead back to an earlier attempt.
        self._db.execute(
            "UPDATE clip SET attempt = MAX(attempt, ?) WHERE film = ? AND n = ? AND take = ?",
            (step.attempt, step.film_id, step.number, step.take),
        )

    # ---- rows

    def _set(self, film_id: str, **columns: str | int | None) -> None:
        names = ", ".join(f"{name} = :{name}" for name in columns)
        self._db.execute(f"UPDATE film SET {names} WHERE id = :id", {**columns, "id": film_id})  # noqa: S608
        self._seal(film_id)

    def _seal(self, film_id: str) -> None:
        row = self._db.execute(f"SELECT {', '.join(_FILM)} FROM film WHERE id = ?", (film_id,)).fetchone()  # noqa: S608
        self._db.execute("UPDATE film SET seal = ? WHERE id = ?", (checksum_of(row), film_id))


def _wish(planned: str) -> object:
    """What the user asks of a clip, without its price."""
    found: dict[str, Any] = json.loads(planned)
    return found["arguments"], found["start"]
