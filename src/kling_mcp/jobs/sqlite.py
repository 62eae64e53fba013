"""
The ledger on SQLite: several processes, one file, nothing lost on power failure.

* `journal_mode=PERSIST` and a padded row: recording an accepted request is an
  update in place, which still commits on a disk that is completely full.
  WAL would need new space for it.
* `synchronous=EXTRA`: a transaction is on disk before the next byte goes out.
* `BEGIN IMMEDIATE` always: with a deferred transaction two processes read the
  same budget and both spend it.
* A ledger that is damaged, gone or another one than before turns spending
  off. It is never replaced by an empty one, which would hand out a new budget.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, cast

from kling_mcp.errors import LedgerUnavailable, OverBudget, UnknownJob
from kling_mcp.jobs.job import (
    Accepted,
    CancelledAtFal,
    Failed,
    Fault,
    Finished,
    IllegalTransitionError,
    Intent,
    Job,
    LostTrack,
    NotSent,
    Progressed,
    ProvenAbsent,
    Sending,
    SettledByUser,
    step,
)
from kling_mcp.jobs.ledger import DEDUPE_WINDOW_MS, DaySpend, Found, Reservation, Upload
from kling_mcp.jobs.owners import exclusive

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from pathlib import Path

    from kling_mcp.jobs.job import Event, State, Step
    from kling_mcp.jobs.ledger import Limits

__all__ = ["MIGRATIONS", "SqliteLedger"]

_PAD_BYTES: Final = 2048
"""Room kept in a row for what fal's answer adds to it: an id and three addresses."""

_BUSY_MS: Final = 30_000

_WRITER: Final = 1
"""Version of what this program writes; a ledger may ask for a newer one."""

MIGRATIONS: Final[list[Callable[[sqlite3.Connection], None]]] = []
"""The history of the schema, oldest first. Only ever added to."""


def _m001_jobs(db: sqlite3.Connection) -> None:
    for statement in (
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
        "CREATE TABLE budget (day TEXT PRIMARY KEY, held_u INTEGER NOT NULL, spent_u INTEGER NOT NULL) STRICT",
        """CREATE TABLE job (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            fingerprint TEXT NOT NULL,
            nonce TEXT UNIQUE,
            endpoint TEXT NOT NULL,
            intent TEXT NOT NULL,
            seal TEXT NOT NULL,
            day TEXT NOT NULL,
            ceiling_u INTEGER NOT NULL CHECK (ceiling_u > 0),
            created_ms INTEGER NOT NULL,
            owner TEXT NOT NULL,
            state TEXT NOT NULL,
            open INTEGER NOT NULL,
            busy INTEGER NOT NULL,
            attempt INTEGER NOT NULL DEFAULT 0,
            updated_ms INTEGER NOT NULL,
            body TEXT, request_id TEXT, status_url TEXT, response_url TEXT, cancel_url TEXT,
            queue_position INTEGER, progress_note TEXT,
            sent_ms INTEGER, accepted_ms INTEGER, started_ms INTEGER, ended_ms INTEGER,
            cancel_requested INTEGER NOT NULL DEFAULT 0,
            cost_u INTEGER, cost_source TEXT,
            result TEXT, fault TEXT, saved_to TEXT, save_trouble TEXT, warnings TEXT NOT NULL DEFAULT '[]',
            pad TEXT NOT NULL
        ) STRICT""",
        "CREATE INDEX job_by_fingerprint ON job (fingerprint)",
        "CREATE INDEX job_busy ON job (seq) WHERE busy = 1",
        """CREATE TABLE event (
            seq INTEGER PRIMARY KEY, job TEXT NOT NULL, at_ms INTEGER NOT NULL,
            old TEXT, new TEXT NOT NULL, why TEXT NOT NULL
        ) STRICT""",
        """CREATE TABLE orphan (
            request_id TEXT PRIMARY KEY, job TEXT, endpoint TEXT NOT NULL, seen_ms INTEGER NOT NULL
        ) STRICT""",
        "CREATE TABLE upload (sha256 TEXT PRIMARY KEY, url TEXT NOT NULL, expires_ms INTEGER NOT NULL) STRICT",
    ):
        db.execute(statement)


MIGRATIONS.append(_m001_jobs)


class SqliteLedger:
    """
    A `Ledger` in the file *folder*/*name*.sqlite3.

    Args:
        new_id: Makes the id of a new ledger, which a small file beside it repeats.

    Raises:
        LedgerUnavailable: The file cannot be opened at all.
    """

    def __init__(self, folder: Path, new_id: Callable[[], str], name: str = "ledger") -> None:
        self._file = folder / f"{name}.sqlite3"
        self._id_file = folder / f"{name}.id"
        self._trouble: str | None = None
        self._own_changes = 0
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with exclusive(folder / f"{name}.lock"):
                self._db = self._open(new_id)
        except (OSError, sqlite3.Error, UnicodeDecodeError) as error:
            raise self._unavailable(f"The ledger {self._file} cannot be opened ({_plain(error)}).") from error

    # ---- opening

    def _open(self, new_id: Callable[[], str]) -> sqlite3.Connection:
        if sqlite3.sqlite_version_info < (3, 37):
            raise sqlite3.NotSupportedError(f"SQLite {sqlite3.sqlite_version} is older than 3.37")
        known_id = self._id_file.read_text("ascii", errors="replace").strip() if self._id_file.exists() else None
        there = self._file.exists() and self._file.stat().st_size > 0
        if known_id and not there:
            self._trouble = (
                f"The ledger {self._file} is gone or empty, though jobs were recorded in it. "
                f"Put it back from a backup, or delete {self._id_file.name} beside it to start a new record."
            )
            db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            _migrate(db)
            return db
        if not there:
            self._file.touch(mode=0o600)
        db = sqlite3.connect(self._file, isolation_level=None, check_same_thread=False, timeout=_BUSY_MS / 1000)
        try:
            self._prepare(db, new_id, known_id)
        except (sqlite3.Error, UnicodeDecodeError) as error:
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
        _migrate(db, backup=self._file.with_suffix(".backup"))
        values = dict(db.execute("SELECT name, value FROM meta").fetchall())
        ledger_id = cast("str | None", values.get("ledger_id"))
        if int(values.get("min_writer", "1")) > _WRITER:
            self._trouble = "The ledger was written by a newer kling-mcp. Install that version to spend again."
            return
        if ledger_id is None:
            ledger_id = new_id()
            db.execute("INSERT INTO meta VALUES ('ledger_id', ?)", (ledger_id,))
        if known_id is None:
            self._remember_id(ledger_id)
        elif known_id != ledger_id:
            self._trouble = (
                f"The ledger {self._file} is not the one that was used before. Put the old one back, or delete "
                f"{self._id_file.name} beside it to go on with this one."
            )
            return
        for (verdict,) in db.execute("PRAGMA quick_check(1)"):
            if verdict != "ok":
                self._trouble = self._damaged(str(verdict)[:120])
                return
        self._trouble = _sums(db)

    def _remember_id(self, ledger_id: str) -> None:
        draft = self._id_file.with_suffix(".id.new")
        with draft.open("w", encoding="ascii") as file:
            file.write(ledger_id + "\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._id_file)

    @property
    def trouble(self) -> str | None:
        """Why nothing may be spent, or None."""
        return self._trouble

    # ---- jobs and money

    def reserve(self, intent: Intent, limits: Limits, owner: str, now_ms: int) -> Reservation:
        """Record *intent* and hold its ceiling, or find the job that already answers for it."""
        if self._trouble is not None:
            raise self._unavailable(self._trouble)
        with self._writing() as db:
            now_ms = _advance(db, now_ms)
            first = self._standing(db, intent.fingerprint, intent.nonce, now_ms)
            if first is not None:
                return Reservation(first, fresh=False)
            day = _day(now_ms)
            self._hold(db, intent, limits, day)
            text = json.dumps(asdict(intent), ensure_ascii=False, sort_keys=True)
            db.execute(
                "INSERT INTO job (id, fingerprint, nonce, endpoint, intent, seal, day, ceiling_u, created_ms,"
                " updated_ms, owner, state, open, busy, warnings, pad) VALUES (:id, :fingerprint, :nonce, :endpoint,"
                " :intent, :seal, :day, :ceiling_u, :now, :now, :owner, 'preparing', 1, 1, :warnings, :pad)",
                {
                    "id": intent.job_id,
                    "fingerprint": intent.fingerprint,
                    "nonce": intent.nonce,
                    "endpoint": intent.endpoint_id,
                    "intent": text,
                    "seal": _seal(text, day, now_ms),
                    "day": day,
                    "ceiling_u": intent.ceiling_u,
                    "now": now_ms,
                    "owner": owner,
                    "warnings": json.dumps(intent.warnings, ensure_ascii=False),
                    "pad": " " * _PAD_BYTES,
                },
            )
            _note(db, intent.job_id, now_ms, None, "preparing", "reserved")
            return Reservation(self._row(db, intent.job_id), fresh=True)

    def standing(self, fingerprint: str, now_ms: int) -> Job | None:
        """The newest job that answers for the same call."""
        with self._reading() as db:
            return self._standing(db, fingerprint, None, max(now_ms, _last_ms(db)))

    def _standing(self, db: sqlite3.Connection, fingerprint: str, nonce: str | None, now_ms: int) -> Job | None:
        """The job that a confirmation already made, or the newest that still answers for the same call."""
        row = db.execute(
            "SELECT id FROM job WHERE nonce = :nonce OR (fingerprint = :fingerprint AND state <> 'not_submitted'"
            " AND (open = 1 OR ended_ms > :since)) ORDER BY nonce IS :nonce DESC, seq DESC LIMIT 1",
            {
                "nonce": nonce,
                "fingerprint": fingerprint,
                "since": now_ms - DEDUPE_WINDOW_MS,
            },
        ).fetchone()
        return None if row is None else self._row(db, row[0])

    def _hold(self, db: sqlite3.Connection, intent: Intent, limits: Limits, day: str) -> None:
        if intent.ceiling_u > limits.job_u:
            raise OverBudget(
                f"This job could cost up to {_usd(intent.ceiling_u)}, and the operator's limit for one job is "
                f"{_usd(limits.job_u)} (KLING_MCP_MAX_JOB_USD).",
                "A shorter video or a cheaper model costs less; estimate_cost without a model compares them.",
            )
        db.execute("INSERT INTO budget VALUES (?, 0, 0) ON CONFLICT DO NOTHING", (day,))
        held = db.execute(
            "UPDATE budget SET held_u = held_u + :u"
            " WHERE day = :day AND held_u + spent_u + :u <= :limit RETURNING held_u",
            {"u": intent.ceiling_u, "day": day, "limit": limits.day_u},
        ).fetchall()
        if not held:
            used = db.execute("SELECT held_u + spent_u FROM budget WHERE day = ?", (day,)).fetchone()[0]
            raise OverBudget(
                f"This job could cost up to {_usd(intent.ceiling_u)}, and of today's {_usd(limits.day_u)} "
                f"(KLING_MCP_DAILY_BUDGET_USD, UTC day {day}) {_usd(used)} is spent or held for running jobs.",
                "A cheaper job may fit; the budget is renewed at midnight UTC, or the operator can raise it.",
            )

    def apply(self, job_id: str, event: Event, now_ms: int) -> Found:
        """Move a job by *event*, if its state allows; a late or repeated event changes nothing."""
        if isinstance(event, Accepted):
            return self._accept(job_id, event, now_ms)
        with self._writing() as db:
            job = self._row(db, job_id)
            try:
                leads_to = step(job, event)
            except IllegalTransitionError:
                return Found(job, changed=False)
            now_ms = _advance(db, now_ms)
            changes = _changes(job, event, leads_to, now_ms)
            self._update(db, job_id, changes)
            if leads_to.settle_u is not None:
                db.execute(
                    "UPDATE budget SET held_u = held_u - ?, spent_u = spent_u + ? WHERE day = ?",
                    (job.intent.ceiling_u, leads_to.settle_u, job.day),
                )
            if job.state != leads_to.state:
                _note(db, job_id, now_ms, job.state, leads_to.state, type(event).__name__)
            return Found(self._row(db, job_id), changed=True)

    def _accept(self, job_id: str, event: Accepted, now_ms: int) -> Found:
        """
        Record what fal accepted: one update in place, and nothing else in the transaction.

        No index holds a column that it sets and the row shrinks its padding by what it
        gains, so that the commit needs no new page: it works on a full disk.
        """
        with self._writing() as db:
            job = self._row(db, job_id)
            if job.request_id == event.request_id:
                return Found(job, changed=False)
            try:
                leads_to = step(job, event)
            except IllegalTransitionError:
                leads_to = None
            other = db.execute("SELECT id FROM job WHERE request_id = ?", (event.request_id,)).fetchone()
            if leads_to is None or other is not None:
                if other is None:
                    db.execute(
                        "INSERT INTO orphan VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                        (event.request_id, job_id, job.intent.endpoint_id, now_ms),
                    )
                return Found(job, changed=False)
            gained = [event.request_id, event.status_url, event.response_url, event.cancel_url]
            room = _PAD_BYTES - sum(len((text or "").encode()) for text in gained) - 64
            self._update(
                db,
                job_id,
                {
                    "state": leads_to.state,
                    "request_id": event.request_id,
                    "status_url": event.status_url,
                    "response_url": event.response_url,
                    "cancel_url": event.cancel_url,
                    "queue_position": event.queue_position,
                    "accepted_ms": now_ms,
                    "updated_ms": now_ms,
                    "attempt": job.attempt,
                    "pad": " " * max(room, 0),
                },
            )
        # History is worth less than the id: it may fail on a full disk.
        with contextlib.suppress(LedgerUnavailable), self._writing() as db:
            _note(db, job_id, now_ms, job.state, "queued", "Accepted")
        return Found(self.get(job_id), changed=True)

    def adopt(self, job_id: str, old_owner: str, owner: str, now_ms: int) -> bool:
        """Take a job over from an owner that is gone; False if another process was faster."""
        with self._writing() as db:
            taken = db.execute(
                "UPDATE job SET owner = ?, updated_ms = ? WHERE id = ? AND owner = ?",
                (owner, now_ms, job_id, old_owner),
            )
            return taken.rowcount == 1

    def mark_cancel(self, job_id: str, now_ms: int) -> Job:
        """Note that the user wants the job cancelled."""
        return self._mark(job_id, now_ms, {"cancel_requested": 1})

    def mark_saved(self, job_id: str, path: str | None, trouble: str | None, now_ms: int) -> Job:
        """Note where the video was saved, or why it was not."""
        return self._mark(job_id, now_ms, {"saved_to": path, "save_trouble": trouble, "busy": 0})

    def warn(self, job_id: str, warning: str, now_ms: int) -> Job:
        """Add *warning* to a job, once."""
        warnings = self.get(job_id).warnings
        if warning in warnings:
            return self.get(job_id)
        return self._mark(job_id, now_ms, {"warnings": json.dumps([*warnings, warning], ensure_ascii=False)})

    def _mark(self, job_id: str, now_ms: int, changes: dict[str, object]) -> Job:
        with self._writing() as db:
            self._row(db, job_id)
            self._update(db, job_id, {**changes, "updated_ms": now_ms})
            return self._row(db, job_id)

    # ---- reading

    def get(self, job_id: str) -> Job:
        """One job."""
        with self._reading() as db:
            return self._row(db, job_id)

    def page(self, *, state: State | None = None, limit: int = 20, before_seq: int | None = None) -> Sequence[Job]:
        """Jobs, newest first."""
        with self._reading() as db:
            rows = db.execute(
                f"SELECT {_COLUMNS} FROM job WHERE (:state IS NULL OR state = :state)"  # noqa: S608 - column names of ours
                " AND (:before IS NULL OR seq < :before) ORDER BY seq DESC LIMIT :limit",
                {"state": state, "before": before_seq, "limit": limit},
            ).fetchall()
            return [self._job(row) for row in rows]

    def unfinished(self) -> Sequence[Job]:
        """Jobs that are open, and finished ones whose video is still to be saved."""
        with self._reading() as db:
            rows = db.execute(f"SELECT {_COLUMNS} FROM job WHERE busy = 1 ORDER BY seq").fetchall()  # noqa: S608
            return [self._job(row) for row in rows]

    def request_ids(self, endpoint_id: str) -> frozenset[str]:
        """Every request id of an endpoint that the ledger knows, orphans included."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT request_id FROM job WHERE endpoint = :e AND request_id IS NOT NULL"
                " UNION SELECT request_id FROM orphan WHERE endpoint = :e",
                {"e": endpoint_id},
            ).fetchall()
            return frozenset(row[0] for row in rows)

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

    def change_counter(self) -> int:
        """A number that is another one after any process changed the ledger."""
        with self._reading() as db:
            return db.execute("PRAGMA data_version").fetchone()[0] + self._own_changes

    def check(self) -> str | None:
        """What is wrong with the file or its sums, or None: for doctor and tests."""
        with self._reading() as db:
            for (verdict,) in db.execute("PRAGMA integrity_check(1)"):
                if verdict != "ok":
                    return self._damaged(str(verdict)[:120])
            for row in db.execute(f"SELECT {_COLUMNS} FROM job"):  # noqa: S608
                self._job(row)
            return _sums(db)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    # ---- plumbing

    @contextlib.contextmanager
    def _writing(self) -> Generator[sqlite3.Connection]:
        with self._guarded():
            self._db.execute("BEGIN IMMEDIATE")
            try:
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
    def _guarded(self) -> Generator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise self._unavailable(f"The ledger {self._file} could not be used just now ({_plain(error)}).") from error
        except (sqlite3.Error, UnicodeDecodeError) as error:
            self._trouble = self._damaged(_plain(error))
            raise self._unavailable(self._trouble) from error

    def _row(self, db: sqlite3.Connection, job_id: str) -> Job:
        row = db.execute(f"SELECT {_COLUMNS} FROM job WHERE id = ?", (job_id,)).fetchone()  # noqa: S608
        if row is None:
            raise UnknownJob(job_id)
        return self._job(row)

    def _update(self, db: sqlite3.Connection, job_id: str, changes: Mapping[str, object]) -> None:
        names = ", ".join(f"{name} = :{name}" for name in changes)
        db.execute(f"UPDATE job SET {names} WHERE id = :id", {**changes, "id": job_id})  # noqa: S608

    def _job(self, row: tuple[Any, ...]) -> Job:
        values = dict(zip(_NAMES, row, strict=True))
        text, seal = values.pop("intent"), values.pop("seal")
        if seal != _seal(text, values["day"], values["created_ms"]):
            self._trouble = self._damaged("a job's record does not match its seal")
            raise self._unavailable(self._trouble)
        for name in ("body", "result"):
            values[name] = None if values[name] is None else json.loads(values[name])
        fault = values.pop("fault")
        values["fault"] = None if fault is None else Fault(**json.loads(fault))
        values["warnings"] = tuple(json.loads(values["warnings"]))
        values["cancel_requested"] = bool(values["cancel_requested"])
        intent = json.loads(text)
        intent["warnings"] = tuple(intent["warnings"])
        return Job(intent=Intent(**intent), **values)

    def _damaged(self, how: str) -> str:
        return (
            f"The ledger {self._file} is damaged ({how}). Jobs can still be read where possible. "
            f"Put a backup in its place, or move it and {self._id_file.name} away to start a new record of spending."
        )

    def _unavailable(self, what: str) -> LedgerUnavailable:
        return LedgerUnavailable(what, "Nothing is spent until this is mended; kling-mcp doctor checks it.")


_NAMES: Final = (
    "seq",
    "intent",
    "seal",
    "state",
    "owner",
    "day",
    "created_ms",
    "updated_ms",
    "attempt",
    "body",
    "request_id",
    "status_url",
    "response_url",
    "cancel_url",
    "queue_position",
    "progress_note",
    "sent_ms",
    "accepted_ms",
    "started_ms",
    "ended_ms",
    "cancel_requested",
    "cost_u",
    "cost_source",
    "result",
    "fault",
    "saved_to",
    "save_trouble",
    "warnings",
)
_COLUMNS: Final = ", ".join(_NAMES)


def _changes(job: Job, event: Event, leads_to: Step, now_ms: int) -> dict[str, object]:
    """The columns that *event* sets."""
    changes: dict[str, object] = {"state": leads_to.state, "updated_ms": now_ms}
    match event:
        case Sending(body=body):
            changes |= {"body": _json(body), "sent_ms": now_ms, "attempt": job.attempt + 1}
        case Progressed(running=running, queue_position=position, note=note):
            changes |= {"queue_position": position, "progress_note": note}
            if running and job.started_ms is None:
                changes["started_ms"] = now_ms
        case Finished(result=result):
            changes |= {"result": _json(result), "queue_position": None}
        case NotSent(fault=fault) | Failed(fault=fault) | CancelledAtFal(fault=fault) | ProvenAbsent(fault=fault):
            changes |= {"fault": _json(asdict(fault)), "queue_position": None}
        case SettledByUser(fault=fault):
            changes["fault"] = _json(asdict(fault))
        case LostTrack(reason=reason):
            changes["progress_note"] = reason
        case Accepted():  # pragma: no cover - recorded by SqliteLedger._accept
            pass
    if leads_to.settle_u is not None:
        changes |= {"open": 0, "ended_ms": now_ms, "cost_u": leads_to.settle_u, "cost_source": leads_to.cost_source}
        changes["busy"] = 1 if leads_to.state == "completed" else 0
    return changes


def _migrate(db: sqlite3.Connection, backup: Path | None = None) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version >= len(MIGRATIONS):
        return
    if version and backup is not None:
        with contextlib.closing(sqlite3.connect(backup)) as copy:
            db.backup(copy)
    db.execute("BEGIN EXCLUSIVE")
    for number, migrate in enumerate(MIGRATIONS[version:], version + 1):
        migrate(db)
        db.execute(f"PRAGMA user_version = {number}")
    db.execute("COMMIT")


def _sums(db: sqlite3.Connection) -> str | None:
    """Compare the budget with the jobs that it is the sum of."""
    rows = db.execute(
        "SELECT day, SUM(held), SUM(spent) FROM ("
        " SELECT day, held_u AS held, spent_u AS spent FROM budget UNION ALL"
        " SELECT day, CASE open WHEN 1 THEN -ceiling_u ELSE 0 END, -COALESCE(cost_u, 0) FROM job"
        ") GROUP BY day HAVING SUM(held) <> 0 OR SUM(spent) <> 0"
    ).fetchall()
    if not rows:
        return None
    return (
        f"The ledger's budget does not add up for {', '.join(row[0] for row in rows)}. "
        "Put a backup in its place, or report this as a defect."
    )


def _advance(db: sqlite3.Connection, now_ms: int) -> int:
    """The ledger's own time, which never goes back, whatever the clock does."""
    now_ms = max(now_ms, _last_ms(db))
    db.execute(
        "INSERT INTO meta VALUES ('last_ms', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", (str(now_ms),)
    )
    return now_ms


def _last_ms(db: sqlite3.Connection) -> int:
    row = db.execute("SELECT value FROM meta WHERE name = 'last_ms'").fetchone()
    return 0 if row is None else int(row[0])


def _note(db: sqlite3.Connection, job_id: str, now_ms: int, old: str | None, new: str, why: str) -> None:
    db.execute("INSERT INTO event (job, at_ms, old, new, why) VALUES (?, ?, ?, ?, ?)", (job_id, now_ms, old, new, why))


def _day(now_ms: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y-%m-%d")


def _seal(text: str, day: str, created_ms: int) -> str:
    return hashlib.sha256(f"{day} {created_ms} {text}".encode()).hexdigest()


def _json(value: Mapping[str, object]) -> str:
    return json.dumps(value, ensure_ascii=False)


def _usd(micro_dollars: int) -> str:
    dollars, rest = divmod(micro_dollars, 1_000_000)
    return f"${dollars}.{rest // 10_000:02d}"


def _plain(error: Exception) -> str:
    return "text that is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)[:120]
