"""
Schema migrations of the SQLite ledger, oldest first; new ones are appended, old ones never change.

A migration adds tables, columns with a default, or indexes: a server of an
older version may run beside a newer one all day. One that an older server must
not write to raises `min_writer` in `meta`.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Final, TypeAlias

from kling_mcp.jobs.sqlite import films

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

__all__ = ["MIGRATIONS", "Migration", "migrate"]

Migration: TypeAlias = "Callable[[sqlite3.Connection], None]"


def _m001_jobs(db: sqlite3.Connection) -> None:
    for statement in (
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL, seal TEXT NOT NULL) STRICT",
        "CREATE TABLE budget (day TEXT PRIMARY KEY, held_u INTEGER NOT NULL, spent_u INTEGER NOT NULL) STRICT",
        """CREATE TABLE job (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            fingerprint TEXT NOT NULL,
            endpoint TEXT NOT NULL,
            day TEXT NOT NULL,
            ceiling_u INTEGER NOT NULL,
            created_ms INTEGER NOT NULL,
            updated_ms INTEGER NOT NULL,
            owner TEXT NOT NULL,
            state TEXT NOT NULL,
            open INTEGER NOT NULL,
            busy INTEGER NOT NULL,
            attempt INTEGER NOT NULL,
            request_id TEXT, status_url TEXT, response_url TEXT, cancel_url TEXT,
            queue_position INTEGER, progress_note TEXT,
            sent_ms INTEGER, accepted_ms INTEGER, started_ms INTEGER, ended_ms INTEGER,
            cancel_requested INTEGER NOT NULL,
            cost_u INTEGER, cost_source TEXT,
            saved_to TEXT, save_trouble TEXT,
            pad TEXT NOT NULL, seal TEXT NOT NULL
        ) STRICT""",
        # No index has a column that an acceptance sets: it must change one page in place.
        "CREATE INDEX job_by_fingerprint ON job (fingerprint)",
        "CREATE INDEX job_by_day ON job (day)",
        "CREATE INDEX job_busy ON job (seq) WHERE busy = 1",
        """CREATE TABLE paper (
            seq INTEGER PRIMARY KEY,
            intent TEXT NOT NULL, body TEXT, result TEXT, fault TEXT, warnings TEXT NOT NULL,
            seal TEXT NOT NULL
        ) STRICT""",
        "CREATE TABLE answered (nonce TEXT PRIMARY KEY, job TEXT NOT NULL) STRICT",
        """CREATE TABLE event (
            seq INTEGER PRIMARY KEY, job TEXT NOT NULL, at_ms INTEGER NOT NULL,
            old TEXT, new TEXT NOT NULL, why TEXT NOT NULL
        ) STRICT""",
        """CREATE TABLE orphan (
            request_id TEXT PRIMARY KEY, job TEXT NOT NULL, endpoint TEXT NOT NULL, seen_ms INTEGER NOT NULL
        ) STRICT""",
        "CREATE TABLE upload (sha256 TEXT PRIMARY KEY, url TEXT NOT NULL, expires_ms INTEGER NOT NULL) STRICT",
    ):
        db.execute(statement)


def _m002_ended_jobs_are_found_by_request_and_state(db: sqlite3.Connection) -> None:
    """A job enters these when it ends, so that the columns are there and an acceptance still changes no index."""
    db.execute("CREATE INDEX job_ended_by_request ON job (request_id) WHERE open = 0")
    db.execute("CREATE INDEX job_ended_by_state ON job (state, seq) WHERE open = 0")


def _m003_notes(db: sqlite3.Connection) -> None:
    """
    What came later to be known of a job, in a table of its own.

    A program of an older version refuses a row in which there is more than it knows. Nothing here decides what is
    spent, so it has no checksum.
    """
    db.execute(
        """CREATE TABLE note (
            seq INTEGER PRIMARY KEY,
            sound INTEGER, again TEXT,
            trouble_code TEXT, trouble TEXT, trouble_since_ms INTEGER
        ) STRICT"""
    )


def _m004_modes_and_voices(db: sqlite3.Connection) -> None:
    """What a job makes, as JSON with a checksum, beside the rest that an older version does not know."""
    for column in ("made TEXT", "makes_voice INTEGER", "made_seal TEXT"):
        db.execute(f"ALTER TABLE note ADD COLUMN {column}")
    db.execute("CREATE INDEX note_makes_voice ON note (makes_voice) WHERE makes_voice = 1")


def _m005_films(db: sqlite3.Connection) -> None:
    """Films: plan and agreement, the takes of each clip, and the joined files."""
    for statement in films.SCHEMA:
        db.execute(statement)


MIGRATIONS: Final[tuple[Migration, ...]] = (
    _m001_jobs,
    _m002_ended_jobs_are_found_by_request_and_state,
    _m003_notes,
    _m004_modes_and_voices,
    _m005_films,
)


def migrate(db: sqlite3.Connection, migrations: Sequence[Migration], backup: Path | None = None) -> None:
    """
    Migrate *db* to the last of *migrations*, all or nothing; a newer one is left alone.

    Args:
        backup: Where a copy of a ledger is kept as it was before.
    """
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version >= len(migrations):
        return
    if version and backup is not None:
        with contextlib.closing(sqlite3.connect(backup)) as copy:
            db.backup(copy)
    db.execute("BEGIN EXCLUSIVE")
    try:
        for number, step in enumerate(migrations[version:], version + 1):
            step(db)
            db.execute(f"PRAGMA user_version = {number}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
