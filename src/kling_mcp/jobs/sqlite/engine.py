"""
The ledger on SQLite: several processes, one file, nothing lost on power failure.

* `journal_mode=PERSIST`, a small row of its own for each job, and padding in
  it: recording an accepted request changes one page in place and reuses the
  journal, so it still commits on a disk that is completely full. WAL would
  need new space for it, and so would a row that spills over its page.
* `synchronous=EXTRA`: a transaction is on disk before the next byte goes out.
* `BEGIN IMMEDIATE` always: with a deferred transaction two processes read the
  same budget and both spend it.
* A ledger that is damaged, gone or another one than before turns spending
  off. It is never replaced by an empty one, which would hand out a new budget.
  What is true is still written down as far as it goes.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from decimal import ROUND_CEILING, ROUND_FLOOR
from typing import TYPE_CHECKING, Final

from kling_mcp.errors import LedgerUnavailable, OverBudget, UnknownJob
from kling_mcp.jobs.job import OPEN, Accepted, CancelledAtFal, Failed, IllegalTransitionError, step
from kling_mcp.jobs.ledger import DEDUPE_WINDOW_MS, ApplyResult, DaySpend, KnownRequest, Reservation, Upload
from kling_mcp.jobs.process_lock import exclusive
from kling_mcp.jobs.sqlite.films import FilmTable
from kling_mcp.jobs.sqlite.migrations import MIGRATIONS, migrate
from kling_mcp.jobs.sqlite.row_codec import (
    JOB,
    NOTE,
    PAYLOAD,
    DamagedRowError,
    changes_of,
    checksum_of,
    job_of,
    note_of,
    text_of,
    text_of_path,
    two_rows,
)
from kling_mcp.jobs.voices import refuse_taken
from kling_mcp.money import microusd_text
from kling_mcp.texts import showable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from kling_mcp.jobs.film import Film, FilmCut, FilmStep, PlannedClip, Why
    from kling_mcp.jobs.job import Event, Intent, Job, State, Step, Trouble
    from kling_mcp.jobs.ledger import Limits
    from kling_mcp.jobs.sqlite.migrations import Migration

__all__ = ["SQLITE_VERSION", "SqliteLedger"]

SQLITE_VERSION: Final = sqlite3.sqlite_version

_PAD_BYTES: Final = 1536
"""Room kept in the small row for what fal's answer adds to it: an id of 128 and three addresses of 400 bytes."""

_BUSY_MS: Final = 30_000

_LOOKED_AT: Final = 1000
"""How many of the newest jobs are read when the ledger is opened; all of them take part in the sums."""

_WRITER: Final = 1
"""Version of what this program writes; a ledger may ask for a newer one."""

_PASSING: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISUSE,
    }
)
"""What says nothing about the file's contents."""


class SqliteLedger:
    """
    A `Ledger` in the file *folder*/*name*.sqlite3.

    Args:
        new_id: Makes the id of a new ledger, which a small file beside it repeats.
        migrations: The history of the schema.
        step: Where an event leads.

    Raises:
        LedgerUnavailable: The file cannot be opened at all, or not just now.
    """

    def __init__(
        self,
        folder: Path,
        new_id: Callable[[], str],
        name: str = "ledger",
        migrations: Sequence[Migration] = MIGRATIONS,
        *,
        step: Callable[[Job, Event], Step] = step,
    ) -> None:
        self._step = step
        self._file = folder / f"{name}.sqlite3"
        self._id_file = folder / f"{name}.id"
        self._migrations = migrations
        self._trouble: str | None = None
        self._newer = False
        self._own_changes = 0
        self._identity: tuple[int, int] | None = None
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with exclusive(folder / f"{name}.lock"):
                self._db = self._open(new_id)
        except (OSError, sqlite3.Error) as error:
            raise self._unavailable(f"The ledger {self._file} cannot be opened ({_plain(error)}).") from error

    # ---- opening

    def _open(self, new_id: Callable[[], str]) -> sqlite3.Connection:
        if sqlite3.sqlite_version_info < (3, 37):
            raise sqlite3.NotSupportedError(f"SQLite {sqlite3.sqlite_version} is older than 3.37")
        known_id = self._id_file.read_text("ascii", errors="replace").strip() if self._id_file.exists() else None
        there = self._file.exists() and self._file.stat().st_size > 0
        if known_id and not there:
            self._trouble = self._gone()
            db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            migrate(db, self._migrations)
            return db
        if not there:
            self._file.touch(mode=0o600)
        self._identity = self._file_identity()
        db = sqlite3.connect(self._file, isolation_level=None, check_same_thread=False, timeout=_BUSY_MS / 1000)
        try:
            self._prepare(db, new_id, known_id)
        except (sqlite3.Error, ValueError) as error:
            if _passes(error):
                db.close()
                raise
            self._trouble = self._damaged(_plain(error))
        return db

    def _prepare(self, db: sqlite3.Connection, new_id: Callable[[], str], known_id: str | None) -> None:
        for pragma in (
            f"busy_timeout = {_BUSY_MS}",
            "journal_mode = PERSIST",
            "journal_size_limit = -1",
            "synchronous = EXTRA",
            "fullfsync = 1",
            "trusted_schema = OFF",
            "cell_size_check = ON",
            "mmap_size = 0",
        ):
            db.execute(f"PRAGMA {pragma}")
        migrate(db, self._migrations, backup=self._file.with_suffix(".backup"))
        if _min_writer(db) > _WRITER:
            self._trouble = self._too_new()
            return
        ledger_id = _meta(db, "ledger_id")
        if ledger_id is None:
            ledger_id = new_id()
            _set_meta(db, "ledger_id", ledger_id)
        if known_id is None:
            self._remember_id(ledger_id)
        elif known_id != ledger_id:
            self._trouble = (
                f"The ledger {self._file} is not the one that was used before. Put the old one back, or delete "
                f"{self._id_file.name} beside it to go on with this one."
            )
            return
        self._trouble = self._what_is_wrong(db, newest=_LOOKED_AT)

    def _remember_id(self, ledger_id: str) -> None:
        draft = self._id_file.with_suffix(".id.new")
        with draft.open("w", encoding="ascii") as file:
            file.write(ledger_id + "\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._id_file)

    def _file_identity(self) -> tuple[int, int] | None:
        try:
            found = self._file.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    @property
    def trouble(self) -> str | None:
        """Why nothing may be spent, or None."""
        if self._trouble is None and self._identity != self._file_identity():
            # The file was deleted while in use: writes from here on would be lost.
            self._trouble = self._gone()
        return self._trouble

    # ---- jobs and money

    def reserve(
        self, intent: Intent, limits: Limits, owner: str, now_ms: int, film_step: FilmStep | None = None
    ) -> Reservation:
        """Record *intent* and hold its ceiling, or find the job that already answers for it."""
        with self._writing() as db:
            now_ms = self._about_to_spend(db, now_ms)
            used = self._of_nonce(db, intent.nonce)
            # Two equal clips are two jobs: only the nonce decides.
            first = used or (None if film_step else self._duplicate(db, intent.fingerprint, now_ms))
            if first is None:
                if film_step is not None:
                    self._films(db).allow(film_step, intent.ceiling_microusd)
                if intent.voice is not None:
                    refuse_taken(self._voices(db), intent.voice)
                day = _day(now_ms)
                self._hold(db, intent, limits, day)
                first = self._insert(db, intent, day, owner, now_ms)
                job, fresh = first, True
            else:
                job, fresh = first, False
            if intent.nonce is not None and used is None:
                db.execute("INSERT INTO answered VALUES (?, ?)", (intent.nonce, job.job_id))
            if film_step is not None:
                self._films(db).took(film_step, job.job_id)
            return Reservation(job, fresh)

    def afford(self, ceiling_microusd: int, limits: Limits, now_ms: int) -> None:
        """See whether a job of that ceiling could be reserved now; nothing is held."""
        # It writes like a reservation, so that a file that takes no writes says so here.
        with self._writing() as db:
            day = _day(self._about_to_spend(db, now_ms))
            row = db.execute("SELECT held_u + spent_u FROM budget WHERE day = ?", (day,)).fetchone()
            used_microusd = 0 if row is None else row[0]
            if ceiling_microusd > limits.job_microusd or used_microusd + ceiling_microusd > limits.day_microusd:
                raise _over_budget(ceiling_microusd, limits, day, used_microusd)

    def _about_to_spend(self, db: sqlite3.Connection, now_ms: int) -> int:
        """The record has to be whole before it decides about money: its day is added up again each time."""
        self._trouble = self.trouble or self._sums(db, _day(max(now_ms, _last_ms(db))))
        if self._trouble is not None:
            raise self._unavailable(self._trouble)
        return _advance(db, now_ms)

    def find_duplicate(self, fingerprint: str, now_ms: int) -> Job | None:
        """The newest job that answers for the same call."""
        with self._reading() as db:
            return self._duplicate(db, fingerprint, max(now_ms, _last_ms(db)))

    def _duplicate(self, db: sqlite3.Connection, fingerprint: str, now_ms: int) -> Job | None:
        row = db.execute(
            "SELECT id FROM job LEFT JOIN note USING (seq) WHERE fingerprint = ? AND state <> 'not_submitted'"
            " AND (open = 1 OR ended_ms > ? AND again IS NOT 'same_call') ORDER BY seq DESC LIMIT 1",
            (fingerprint, now_ms - DEDUPE_WINDOW_MS),
        ).fetchone()
        return None if row is None else self._row(db, row[0])

    def _of_nonce(self, db: sqlite3.Connection, nonce: str | None) -> Job | None:
        """The job that a confirmation was already used for: replaying it makes no second one."""
        row = db.execute("SELECT job FROM answered WHERE nonce = ?", (nonce,)).fetchone()
        return None if row is None else self._row(db, row[0])

    def _hold(self, db: sqlite3.Connection, intent: Intent, limits: Limits, day: str) -> None:
        if intent.ceiling_microusd > limits.job_microusd:
            raise _over_budget(intent.ceiling_microusd, limits, day, 0)
        db.execute("INSERT INTO budget VALUES (?, 0, 0) ON CONFLICT DO NOTHING", (day,))
        held = db.execute(
            "UPDATE budget SET held_u = held_u + :u"
            " WHERE day = :day AND held_u + spent_u + :u <= :limit RETURNING held_u",
            {"u": intent.ceiling_microusd, "day": day, "limit": limits.day_microusd},
        ).fetchall()
        if not held:
            used = db.execute("SELECT held_u + spent_u FROM budget WHERE day = ?", (day,)).fetchone()[0]
            raise _over_budget(intent.ceiling_microusd, limits, day, used)

    def _insert(self, db: sqlite3.Connection, intent: Intent, day: str, owner: str, now_ms: int) -> Job:
        small, large = two_rows(intent, day, owner, now_ms)
        small |= {"pad": " " * _PAD_BYTES, "seal": ""}
        seq = db.execute(f"INSERT INTO job {_values(small)} RETURNING seq", small).fetchone()[0]
        large |= {"seq": seq, "seal": ""}
        db.execute(f"INSERT INTO paper {_values(large)}", large)
        self._write_checksum(db, "job", JOB, seq)
        self._write_checksum(db, "paper", PAYLOAD, seq)
        _keep(db, seq, **note_of(seq, intent))
        _note(db, intent.job_id, now_ms, None, "preparing", "reserved")
        return self._row(db, intent.job_id)

    def apply(self, job_id: str, event: Event, now_ms: int) -> ApplyResult:
        """Move a job by *event*, if its state allows; a late or repeated event changes nothing."""
        if isinstance(event, Accepted):
            return self._accept(job_id, event, now_ms)
        with self._writing() as db:
            job = self._row(db, job_id)
            try:
                leads_to = self._step(job, event)
            except IllegalTransitionError:
                return ApplyResult(job, changed=False)
            now_ms = _advance(db, now_ms)
            small, large = changes_of(job, event, leads_to, now_ms)
            self._update(db, job.seq, small, large)
            if isinstance(event, Failed | CancelledAtFal) and event.fault.again is not None:
                _keep(db, job.seq, again=event.fault.again)
            if leads_to.settle_microusd is not None:
                db.execute(
                    "UPDATE budget SET held_u = held_u - ?, spent_u = spent_u + ? WHERE day = ?",
                    (job.intent.ceiling_microusd, leads_to.settle_microusd, job.day),
                )
            if job.state != leads_to.state:
                _note(db, job_id, now_ms, job.state, leads_to.state, type(event).__name__)
            return ApplyResult(self._row(db, job_id), changed=True)

    def _accept(self, job_id: str, event: Accepted, now_ms: int) -> ApplyResult:
        """
        Record what fal accepted: one small row changed in place, and nothing else in the transaction.

        No index has a column that it sets, and the padding shrinks by what the row
        gains, so the commit needs no new page: it works on a full disk.
        """
        with self._writing() as db:
            job = self._row(db, job_id)
            if job.request_id == event.request_id:
                return ApplyResult(job, changed=False)
            if self._has_request(db, event.request_id):
                return ApplyResult(job, changed=False)
            try:
                leads_to = self._step(job, event)
            except IllegalTransitionError:
                return ApplyResult(self._orphan(db, job, event.request_id, now_ms), changed=False)
            small, _ = changes_of(job, event, leads_to, max(now_ms, job.updated_ms))
            room = _PAD_BYTES - sum(len(text.encode()) for text in small.values() if isinstance(text, str)) - 64
            if room < 0:
                # The addresses can be built from the id; the id cannot be built from anything.
                small |= {"status_url": None, "response_url": None, "cancel_url": None}
                room = _PAD_BYTES // 2
            self._update(db, job.seq, {**small, "pad": " " * room}, {})
            accepted = self._row(db, job_id)
        # History is worth less than the id: it may fail on a full disk.
        with contextlib.suppress(LedgerUnavailable), self._writing() as db:
            _note(db, job_id, now_ms, job.state, leads_to.state, "Accepted")
        return ApplyResult(accepted, changed=True)

    def _orphan(self, db: sqlite3.Connection, job: Job, request_id: str, now_ms: int) -> Job:
        """Keep a request that fal has accepted and that no job can take."""
        db.execute(
            "INSERT INTO orphan VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (request_id, job.job_id, job.intent.endpoint_id, now_ms),
        )
        return self._warned(
            db,
            job,
            f"fal.ai also accepted request {request_id} for this job, which may have been charged. "
            "The user can look for it at https://fal.ai/dashboard/requests.",
        )

    def _has_request(self, db: sqlite3.Connection, request_id: str) -> bool:
        """Whether a job has that request."""
        return db.execute(_BY_REQUEST, {"id": request_id}).fetchone() is not None

    def adopt(self, job_id: str, old_owner: str, owner: str, now_ms: int) -> bool:
        """Take a job over from an owner that is gone; False if another process was faster."""
        with self._writing() as db:
            job = self._row(db, job_id)
            if job.owner != old_owner:
                return False
            self._update(db, job.seq, {"owner": owner}, {})
            return True

    def mark_cancel(self, job_id: str, now_ms: int) -> Job:
        """Note that the user wants the job cancelled."""
        with self._writing() as db:
            # Not a change of the job: when it last changed tells how old an unknown request can be.
            self._update(db, self._row(db, job_id).seq, {"cancel_requested": 1}, {})
            return self._row(db, job_id)

    def mark_saved(
        self, job_id: str, path: str | None, trouble: str | None, now_ms: int, *, again: bool = False
    ) -> Job:
        """Note where the video was saved, or why it was not; with *again* the job stays among the unfinished."""
        with self._writing() as db:
            job = self._row(db, job_id)
            if path is not None or job.saved_to is None:
                noted = {
                    "saved_to": text_of_path(path),
                    "save_trouble": showable(trouble),
                    "busy": 1 if again else 0,
                    "updated_ms": now_ms,
                }
                self._update(db, job.seq, noted, {})
            return self._row(db, job_id)

    def note_trouble(self, job_id: str, trouble: Trouble | None) -> Job:
        """Note why it cannot be learned how a job is, or that it can be again."""
        with self._writing() as db:
            noted = (None, None, None) if trouble is None else (trouble.code, trouble.message, trouble.since_ms)
            seq = self._row(db, job_id).seq
            _keep(db, seq, **dict(zip(("trouble_code", "trouble", "trouble_since_ms"), noted, strict=True)))
            return self._row(db, job_id)

    def warn(self, job_id: str, warning: str, now_ms: int) -> Job:
        """Add *warning* to a job, once."""
        with self._writing() as db:
            return self._warned(db, self._row(db, job_id), warning)

    def _warned(self, db: sqlite3.Connection, job: Job, warning: str) -> Job:
        if warning not in job.warnings:
            self._update(db, job.seq, {}, {"warnings": text_of([*job.warnings, warning])})
        return self._row(db, job.job_id)

    # ---- reading

    def get(self, job_id: str) -> Job:
        """One job."""
        with self._reading() as db:
            return self._row(db, job_id)

    def of_request(self, request_id: str) -> Job | None:
        """The job that fal knows as *request_id*."""
        with self._reading() as db:
            row = db.execute(_BY_REQUEST, {"id": request_id}).fetchone()
            return None if row is None else self._row(db, row[0])

    def page(self, *, state: State | None = None, limit: int = 20, before_seq: int | None = None) -> Sequence[Job]:
        """Jobs, newest first."""
        with self._reading() as db:
            # Each of the three is answered by an index of its own.
            among = "" if state is None else " AND state = :state AND " + ("busy = 1" if state in OPEN else "open = 0")
            rows = db.execute(
                f"{_SELECT} WHERE job.seq < :before{among} ORDER BY job.seq DESC LIMIT :limit",
                {"state": state, "before": 2**62 if before_seq is None else before_seq, "limit": limit},
            ).fetchall()
            return self._readable(rows)

    def voices(self) -> Sequence[Job]:
        """Jobs that have made a voice, or still may, newest first."""
        with self._reading() as db:
            return self._voices(db)

    def _voices(self, db: sqlite3.Connection) -> Sequence[Job]:
        rows = db.execute(f"{_SELECT} WHERE note.makes_voice = 1 ORDER BY job.seq DESC").fetchall()
        return [job for job in self._readable(rows) if job.open or job.voice_id]

    def unfinished(self) -> Sequence[Job]:
        """Jobs that are open, and finished ones whose video is still to be saved."""
        with self._reading() as db:
            return self._readable(db.execute(f"{_SELECT} WHERE busy = 1 ORDER BY job.seq").fetchall())

    def requests(self, endpoint_id: str) -> Mapping[str, KnownRequest | None]:
        """Every request id of an endpoint that the ledger knows, orphans included."""
        with self._reading() as db:
            rows = db.execute(
                # A request that was found again has no addresses: those come with fal's answer only.
                "SELECT request_id, created_ms, CASE WHEN status_url IS NULL THEN NULL ELSE sent_ms END, ended_ms,"
                " json_extract(intent, '$.account')"
                " FROM job JOIN paper USING (seq) WHERE endpoint = :e AND request_id IS NOT NULL"
                " UNION ALL SELECT request_id, NULL, NULL, NULL, NULL FROM orphan WHERE endpoint = :e",
                {"e": endpoint_id},
            ).fetchall()
            return {request_id: None if times[1] is None else KnownRequest(*times) for request_id, *times in rows}

    def spend(self, now_ms: int, days: int = 30) -> Sequence[DaySpend]:
        """Money by day, newest first; today is always there."""
        with self._reading() as db:
            today = _day(max(now_ms, _last_ms(db)))
            rows = db.execute("SELECT day, held_u, spent_u FROM budget ORDER BY day DESC LIMIT ?", (days,)).fetchall()
        found = [DaySpend(*row) for row in rows]
        if not found or found[0].day < today:
            found.insert(0, DaySpend(today, 0, 0))
        return found

    def upload(self, sha256: str, now_ms: int) -> Upload | None:
        """Where fal's storage has this content, if it still has."""
        with self._reading() as db:
            row = db.execute(
                "SELECT sha256, url, expires_ms FROM upload WHERE sha256 = ? AND expires_ms > ?", (sha256, now_ms)
            ).fetchone()
            return None if row is None else Upload(*row)

    def remember_upload(self, upload: Upload) -> None:
        """Note where fal's storage has a content."""
        with self._writing() as db:
            db.execute(
                "INSERT INTO upload VALUES (?, ?, ?) ON CONFLICT (sha256) DO UPDATE"
                " SET url = excluded.url, expires_ms = excluded.expires_ms",
                (upload.sha256, upload.url, upload.expires_ms),
            )

    # ---- films

    def plan_film(
        self, film_id: str, title: str, plan: Mapping[str, object], clips: Sequence[PlannedClip], now_ms: int
    ) -> Film:
        """Record a new film, or change one: a clip whose plan differs gets its next take, and the film is paused."""
        with self._writing() as db:
            films = self._films(db)
            films.put(film_id, title, plan, clips, _advance(db, now_ms))
            return films.get(film_id)

    def draft_of(self, plan: Mapping[str, object]) -> str | None:
        """The newest film of the same plan that nobody has agreed to."""
        with self._reading() as db:
            return self._films(db).draft_of(plan)

    def film(self, film_id: str) -> Film:
        """One film with its jobs."""
        with self._consistent() as db:
            return self._films(db).get(film_id)

    def films(self, *, going: bool = False, limit: int = 50) -> Sequence[Film]:
        """Films, newest first."""
        with self._consistent() as db:
            films = self._films(db)
            return [films.get(film_id) for film_id in films.ids(going=going, limit=limit)]

    def films_of(self, job_id: str) -> Sequence[str]:
        """The films that a job made a take of."""
        with self._reading() as db:
            return self._films(db).of_job(job_id)

    def agree(
        self, film_id: str, agreed_microusd: int | None, *, only: Sequence[int], retake: Sequence[int], now_ms: int
    ) -> Film:
        """Make a film, or go on with it; *agreed_microusd* raises the agreement and never lowers it."""
        with self._writing() as db:
            films = self._films(db)
            films.agree(film_id, agreed_microusd, only=only, retake=retake, now_ms=_advance(db, now_ms))
            return films.get(film_id)

    def pause_film(self, film_id: str, why: Why, detail: str) -> Film:
        """Pause a film."""
        with self._writing() as db:
            films = self._films(db)
            films.pause(film_id, why, detail)
            return films.get(film_id)

    def add_cut(self, film_id: str, cut: FilmCut) -> bool:
        """Record a joined film; False if the same jobs are joined already."""
        with self._writing() as db:
            return self._films(db).add_cut(film_id, cut)

    def _films(self, db: sqlite3.Connection) -> FilmTable:
        return FilmTable(db, lambda job_id: self._row(db, job_id))

    def change_counter(self) -> int:
        """A number that is another one after any process changed the ledger."""
        with self._reading() as db:
            return db.execute("PRAGMA data_version").fetchone()[0] + self._own_changes

    def check(self) -> str | None:
        """What is wrong with the file, a row or the sums, or None: for doctor and tests."""
        with self._reading() as db:
            try:
                return self._what_is_wrong(db, newest=-1)
            except sqlite3.Error as error:
                return self._damaged(_plain(error))

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    # ---- plumbing

    @contextlib.contextmanager
    def _writing(self) -> Generator[sqlite3.Connection]:
        with self._guarded():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                if _min_writer(self._db) > _WRITER:
                    # A newer program has changed the file while this one was running.
                    self._trouble = self._too_new()
                    raise self._unavailable(self._trouble)
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            self._own_changes += 1

    @contextlib.contextmanager
    def _reading(self) -> Generator[sqlite3.Connection]:
        with self._guarded():
            yield self._db

    @contextlib.contextmanager
    def _consistent(self) -> Generator[sqlite3.Connection]:
        """A read transaction: several queries see the same state."""
        with self._guarded():
            self._db.execute("BEGIN")
            try:
                yield self._db
            finally:
                self._db.execute("ROLLBACK")

    @contextlib.contextmanager
    def _guarded(self) -> Generator[None]:
        try:
            yield
        except (DamagedRowError, UnicodeDecodeError) as error:
            # A damaged schema may hold names that are not UTF-8, which sqlite repeats in its message.
            self._trouble = self._damaged(_plain(error))
            raise self._unavailable(self._trouble) from error
        except sqlite3.Error as error:
            if _passes(error):
                raise self._unavailable(
                    f"The ledger {self._file} could not be used just now ({_plain(error)})."
                ) from error
            self._trouble = self._damaged(_plain(error))
            raise self._unavailable(self._trouble) from error

    def _row(self, db: sqlite3.Connection, job_id: str) -> Job:
        row = db.execute(f"{_SELECT} WHERE id = ?", (job_id,)).fetchone()
        if row is None:
            raise UnknownJob(job_id)
        return self._job(row)

    def _job(self, row: Sequence[Any]) -> Job:
        return job_of(row, checked=not self._newer)

    def _readable(self, rows: Iterable[Sequence[Any]]) -> list[Job]:
        """The jobs whose rows are whole; a damaged one turns spending off and hides nothing else."""
        jobs: list[Job] = []
        for row in rows:
            try:
                jobs.append(self._job(row))
            except DamagedRowError as error:
                self._trouble = self._damaged(str(error))
        return jobs

    def _update(
        self, db: sqlite3.Connection, seq: int, small: Mapping[str, object], large: Mapping[str, object]
    ) -> None:
        for table, columns, changes in (("job", JOB, small), ("paper", PAYLOAD, large)):
            if changes:
                names = ", ".join(f"{name} = :{name}" for name in changes)
                db.execute(f"UPDATE {table} SET {names} WHERE seq = :seq", {**changes, "seq": seq})  # noqa: S608
                self._write_checksum(db, table, columns, seq)

    def _write_checksum(self, db: sqlite3.Connection, table: str, columns: Sequence[str], seq: int) -> None:
        row = db.execute(f"SELECT {', '.join(columns)} FROM {table} WHERE seq = ?", (seq,)).fetchone()  # noqa: S608
        db.execute(f"UPDATE {table} SET seal = ? WHERE seq = ?", (checksum_of(row), seq))  # noqa: S608

    def _what_is_wrong(self, db: sqlite3.Connection, newest: int) -> str | None:
        # Not quick_check: an index that misses a row makes a repeated call a second job.
        for (verdict,) in db.execute("PRAGMA integrity_check(1)"):
            if verdict != "ok":
                return self._damaged(str(verdict)[:120])
        try:
            for row in db.execute(f"{_SELECT} ORDER BY job.seq DESC LIMIT ?", (newest,)):
                self._job(row)
        except DamagedRowError as error:
            return self._damaged(str(error))
        return self._sums(db)

    def _sums(self, db: sqlite3.Connection, day: str | None = None) -> str | None:
        """Compare the budget (of one day) with the jobs that it is the sum of."""
        rows = db.execute(
            "SELECT day, SUM(held), SUM(spent) FROM ("  # noqa: S608 - words of ours
            " SELECT day, held_u AS held, spent_u AS spent FROM budget WHERE :day IS NULL OR day = :day UNION ALL"
            " SELECT day, CASE open WHEN 1 THEN -ceiling_u ELSE 0 END, -COALESCE(cost_u, 0)"
            + (" FROM job" if day is None else " FROM job WHERE day = :day")
            + ") GROUP BY day HAVING SUM(held) <> 0 OR SUM(spent) <> 0",
            {"day": day},
        ).fetchall()
        if not rows:
            return None
        return self._damaged(f"its budget does not add up for {', '.join(row[0] for row in rows)[:80]}")

    def _damaged(self, how: str) -> str:
        return (
            f"The ledger {self._file} is damaged ({how}). Jobs can still be read where possible. "
            f"Put a backup in its place, or move it and {self._id_file.name} away to start a new record of spending."
        )

    def _gone(self) -> str:
        return (
            f"The ledger {self._file} is gone or empty, though jobs were recorded in it. "
            f"Put it back from a backup, or delete {self._id_file.name} beside it to start a new record."
        )

    def _too_new(self) -> str:
        self._newer = True
        return "The ledger was written by a newer kling-mcp. Install that version to spend again."

    def _unavailable(self, what: str) -> LedgerUnavailable:
        return LedgerUnavailable(what, "Nothing is spent until this is fixed; kling-mcp doctor checks it.")


_SELECT: Final = (
    f"SELECT {', '.join(f'job.{name}' for name in JOB)}, job.seal,"  # noqa: S608 - column names of ours
    f" {', '.join(f'paper.{name}' for name in PAYLOAD)}, paper.seal, {', '.join(f'note.{name}' for name in NOTE)}"
    " FROM job LEFT JOIN paper USING (seq) LEFT JOIN note USING (seq)"
)

_BY_REQUEST: Final = (
    "SELECT id FROM job WHERE busy = 1 AND request_id = :id"
    " UNION ALL SELECT id FROM job WHERE open = 0 AND request_id = :id LIMIT 1"
)
"""Open jobs are few and looked through, ended ones have an index."""


def _values(columns: Mapping[str, object]) -> str:
    return f"({', '.join(columns)}) VALUES ({', '.join(f':{name}' for name in columns)})"


def _meta(db: sqlite3.Connection, name: str) -> str | None:
    row = db.execute("SELECT name, value, seal FROM meta WHERE name = ?", (name,)).fetchone()
    if row is None:
        return None
    if row[2] != checksum_of(row[:2]):
        raise DamagedRowError(f"{name} does not match its checksum")
    return str(row[1])


def _set_meta(db: sqlite3.Connection, name: str, value: str) -> None:
    db.execute(
        "INSERT INTO meta VALUES (?, ?, ?)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value, seal = excluded.seal",
        (name, value, checksum_of((name, value))),
    )


def _number(db: sqlite3.Connection, name: str) -> int:
    return int(_meta(db, name) or "0")


def _min_writer(db: sqlite3.Connection) -> int:
    return _number(db, "min_writer")


def _last_ms(db: sqlite3.Connection) -> int:
    return _number(db, "last_ms")


def _advance(db: sqlite3.Connection, now_ms: int) -> int:
    """The ledger's own time, which never goes back, whatever the clock does."""
    now_ms = max(now_ms, _last_ms(db))
    _set_meta(db, "last_ms", str(now_ms))
    return now_ms


def _note(db: sqlite3.Connection, job_id: str, now_ms: int, old: str | None, new: str, why: str) -> None:
    db.execute("INSERT INTO event (job, at_ms, old, new, why) VALUES (?, ?, ?, ?, ?)", (job_id, now_ms, old, new, why))


def _keep(db: sqlite3.Connection, seq: int, **noted: str | int | None) -> None:
    names = ", ".join(noted)
    db.execute(
        f"INSERT INTO note (seq, {names}) VALUES (:seq, {', '.join(f':{name}' for name in noted)})"  # noqa: S608
        f" ON CONFLICT (seq) DO UPDATE SET {', '.join(f'{name} = :{name}' for name in noted)}",
        {**noted, "seq": seq},
    )


def _over_budget(ceiling_microusd: int, limits: Limits, day: str, used_microusd: int) -> OverBudget:
    # A cost is rounded up and a limit down, so that what is refused never looks as if it fitted.
    cost = microusd_text(ceiling_microusd, ROUND_CEILING)
    if ceiling_microusd > limits.job_microusd:
        return OverBudget(
            f"This job could cost up to {cost}, and the operator's limit for one job is "
            f"{microusd_text(limits.job_microusd, ROUND_FLOOR)} (KLING_MCP_MAX_JOB_USD).",
            "A shorter video or a cheaper model costs less; estimate_cost without a model compares them.",
        )
    return OverBudget(
        f"This job could cost up to {cost}, and of today's "
        f"{microusd_text(limits.day_microusd, ROUND_FLOOR)} (KLING_MCP_DAILY_BUDGET_USD, UTC day {day}) "
        f"{microusd_text(used_microusd, ROUND_CEILING)} is spent or held for running jobs.",
        "A cheaper job may fit; the budget is renewed at midnight UTC, or the operator can raise it.",
    )


def _day(now_ms: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y-%m-%d")


def _passes(error: Exception) -> bool:
    if isinstance(error, sqlite3.ProgrammingError):
        return True
    # Text that is not UTF-8 is reported without a code.
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(code, int) and (code & 0xFF) in _PASSING


def _plain(error: Exception) -> str:
    return str(error)[:120]
