"""The ledger's file when something happens to it: damage, replacement, a newer program, a full disk."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import json
import os
import random
import shutil
import sqlite3
import sys
from typing import TYPE_CHECKING

import pytest

from kling_mcp.errors import KlingError, LedgerUnavailable
from kling_mcp.jobs.job import Accepted, Fault, Finished, LostTrack, NotSent, Sending
from kling_mcp.jobs.sqlite.engine import SqliteLedger
from kling_mcp.jobs.sqlite.migrations import MIGRATIONS
from kling_mcp.jobs.sqlite.row_codec import checksum_of
from tests.jobs.support import NOW_MS, WIDE, intent

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from kling_mcp.jobs.job import Job

FREE = Fault("fal_rejected", "It failed.", "no")
RECEIPT = Accepted("r-1", "https://q.example/" + "s" * 150, "https://q.example/r", "https://q.example/c", 3)


def opened(folder: Path, **named: object) -> SqliteLedger:
    return SqliteLedger(folder, lambda: "ledger-1", **named)  # type: ignore[arg-type]


def filled(folder: Path, jobs: int = 12) -> SqliteLedger:
    """A ledger with jobs in every state."""
    ledger = opened(folder)
    for number in range(jobs):
        name = f"kj_{number}"
        ledger.reserve(intent(name, nonce=f"n{number}"), WIDE, "me", NOW_MS)
        events = [
            Sending({"prompt": "x" * 900}),
            Accepted(f"r-{number}", "https://q.example/s", None, None, 1),
            Finished({"video": {"url": "https://x/a.mp4"}}, 450_000),
        ]
        for event in events[: number % 4]:
            ledger.apply(name, event, NOW_MS)
    return ledger


def spends(ledger: SqliteLedger) -> bool:
    try:
        return ledger.reserve(intent("kj_new"), WIDE, "me", NOW_MS + 1).fresh
    except LedgerUnavailable:
        return False


# ---- damage


def test_flipped_bits_are_found_before_money_is_spent_and_never_reset_the_budget(tmp_path: Path) -> None:
    """
    Three hundred and twenty ledgers, each with a few bits flipped or a block zeroed.

    Whatever was hit: nothing crashes, and a ledger that still spends has every
    job and every dollar as they were.
    """
    source = tmp_path / "source"
    ledger = filled(source)
    jobs, spend = list(ledger.page(limit=99)), list(ledger.spend(NOW_MS))
    ledger.close()
    whole = (source / "ledger.sqlite3").read_bytes()
    chance = random.Random(20261121)
    refused = unnoticed = 0

    for number in range(320):
        folder = tmp_path / f"damaged-{number}"
        shutil.copytree(source, folder)
        data = bytearray(whole)
        for _ in range(chance.choice((1, 1, 3))):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        if chance.random() < 0.2:
            start = chance.randrange(len(data))
            data[start : start + 512] = bytes(len(data[start : start + 512]))
        (folder / "ledger.sqlite3").write_bytes(data)

        with contextlib.closing(opened(folder)) as damaged:
            with contextlib.suppress(KlingError):
                damaged.page(limit=99)
                damaged.unfinished()
                damaged.get("kj_3")
            if damaged.trouble is None and spends(damaged):
                unnoticed += 1
                assert list(damaged.page(limit=99))[1:] == jobs
                assert damaged.spend(NOW_MS)[0].held_microusd == spend[0].held_microusd + 500_000
                assert damaged.spend(NOW_MS)[0].spent_microusd == spend[0].spent_microusd
                again = damaged.reserve(intent("kj_again", fingerprint="fingerprint of kj_0"), WIDE, "me", NOW_MS)
                assert not again.fresh
            else:
                refused += 1
                assert damaged.trouble is not None
                assert "ledger.sqlite3" in damaged.trouble
                assert "Put " in damaged.trouble
        shutil.rmtree(folder)

    assert refused > 60
    assert refused + unnoticed == 320


def test_a_changed_price_is_seen_when_it_is_read_and_the_others_stay_readable(tmp_path: Path) -> None:
    ledger = filled(tmp_path)
    other = sqlite3.connect(tmp_path / "ledger.sqlite3", isolation_level=None)
    other.execute("UPDATE paper SET intent = replace(intent, '500000', '100000') WHERE seq = 2")

    with pytest.raises(LedgerUnavailable, match="does not match its checksum"):
        ledger.get("kj_1")

    assert "kj_1" not in {job.job_id for job in ledger.page(limit=99)}
    assert ledger.get("kj_2").job_id == "kj_2"
    assert not spends(ledger)
    assert "checksum" in (ledger.check() or "")
    other.close()
    ledger.close()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE budget SET held_u = 0",
        "UPDATE budget SET spent_u = spent_u - 1",
        "DELETE FROM budget",
        "UPDATE job SET cost_u = 1 WHERE seq = 4",
        "DELETE FROM job WHERE seq = 4",
        "UPDATE job SET state = 'not_submitted', seal = '' WHERE seq = 3",
        "DELETE FROM paper WHERE seq = 3",
        "UPDATE meta SET value = '4102444800000' WHERE name = 'last_ms'",
        "UPDATE meta SET value = 'x' WHERE name = 'last_ms'",
        "UPDATE meta SET value = 'x' WHERE name = 'ledger_id'",
        "DROP TABLE event",
        "DROP TABLE budget",
        "DROP TABLE meta",
    ],
)
def test_a_change_that_leaves_the_file_whole_turns_spending_off(tmp_path: Path, change: str) -> None:
    filled(tmp_path).close()
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.sqlite3", isolation_level=None)) as other:
        other.execute(change)

    with contextlib.closing(opened(tmp_path)) as ledger:
        assert not spends(ledger)


def test_sums_are_compared_before_every_reservation(tmp_path: Path) -> None:
    with contextlib.closing(filled(tmp_path)) as ledger:
        with contextlib.closing(sqlite3.connect(tmp_path / "ledger.sqlite3", isolation_level=None)) as other:
            other.execute("UPDATE budget SET held_u = 0")

        with pytest.raises(LedgerUnavailable, match="budget does not add up for 2026-11-21"):
            ledger.reserve(intent("kj_new"), WIDE, "me", NOW_MS)


def test_states_and_papers_that_cannot_be_are_damage(tmp_path: Path) -> None:
    with contextlib.closing(filled(tmp_path)) as ledger:
        other = sqlite3.connect(tmp_path / "ledger.sqlite3", isolation_level=None)
        for table, seq, change in (("job", 5, "state = 'lost'"), ("paper", 6, "intent = '{'")):
            other.execute(f"UPDATE {table} SET {change} WHERE seq = {seq}")
            columns = [row[1] for row in other.execute(f"PRAGMA table_info({table})") if row[1] not in {"pad", "seal"}]
            row = other.execute(f"SELECT {', '.join(columns)} FROM {table} WHERE seq = {seq}").fetchone()
            other.execute(f"UPDATE {table} SET seal = ? WHERE seq = {seq}", (checksum_of(row),))
            with pytest.raises(LedgerUnavailable, match=r"state that does not exist|cannot be read"):
                ledger.get(f"kj_{seq - 1}")
        other.close()


# ---- gone, emptied, swapped


@pytest.mark.parametrize("emptied", [True, False])
def test_a_ledger_that_is_gone_is_not_replaced_by_an_empty_one(tmp_path: Path, emptied: bool) -> None:
    filled(tmp_path).close()
    file = tmp_path / "ledger.sqlite3"
    file.write_bytes(b"") if emptied else file.unlink()

    for _ in range(2):
        with contextlib.closing(opened(tmp_path)) as ledger:
            with pytest.raises(LedgerUnavailable, match=r"gone or empty.*backup.*delete ledger\.id"):
                ledger.reserve(intent("kj_new"), WIDE, "me", NOW_MS)
            assert ledger.page() == []

    (tmp_path / "ledger.id").unlink()
    with contextlib.closing(opened(tmp_path)) as ledger:
        assert spends(ledger)


def test_another_ledger_in_its_place_is_not_spent_from(tmp_path: Path) -> None:
    filled(tmp_path / "mine").close()
    SqliteLedger(tmp_path / "other", lambda: "ledger-2").close()
    shutil.copy(tmp_path / "other" / "ledger.sqlite3", tmp_path / "mine" / "ledger.sqlite3")

    with (
        contextlib.closing(opened(tmp_path / "mine")) as ledger,
        pytest.raises(LedgerUnavailable, match=r"not the one that was used before.*delete ledger\.id"),
    ):
        ledger.reserve(intent("kj_new"), WIDE, "me", NOW_MS)


@pytest.mark.parametrize("swapped", [True, False])
def test_a_file_that_is_taken_away_from_a_running_server_is_not_spent_from(tmp_path: Path, swapped: bool) -> None:
    with contextlib.closing(filled(tmp_path)) as ledger:
        (tmp_path / "ledger.sqlite3").rename(tmp_path / "elsewhere")
        if swapped:
            shutil.copy(tmp_path / "elsewhere", tmp_path / "ledger.sqlite3")

        assert not spends(ledger)
        assert "gone" in (ledger.trouble or "")


def test_a_lost_id_file_is_written_again_for_a_whole_ledger(tmp_path: Path) -> None:
    filled(tmp_path).close()
    (tmp_path / "ledger.id").unlink()

    with contextlib.closing(opened(tmp_path)) as ledger:
        assert spends(ledger)

    assert (tmp_path / "ledger.id").read_text() == "ledger-1\n"


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")

    with pytest.raises(LedgerUnavailable, match=r"ledger\.sqlite3 cannot be opened"):
        opened(tmp_path / "file")


def test_a_ledger_that_is_only_busy_is_not_called_damaged(tmp_path: Path) -> None:
    with contextlib.closing(filled(tmp_path)) as ledger:
        ledger._db.execute("PRAGMA busy_timeout = 0")
        other = sqlite3.connect(tmp_path / "ledger.sqlite3", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")

        with pytest.raises(LedgerUnavailable, match=r"could not be used just now \(database is locked\)"):
            ledger.apply("kj_0", NotSent(FREE), NOW_MS)

        other.execute("ROLLBACK")
        other.close()
        assert ledger.trouble is None
        assert spends(ledger)


def test_a_ledger_that_cannot_be_opened_just_now_is_not_called_damaged(tmp_path: Path) -> None:
    filled(tmp_path).close()
    (tmp_path / "ledger.sqlite3-journal").unlink()
    (tmp_path / "ledger.sqlite3-journal").mkdir()

    with pytest.raises(LedgerUnavailable, match=r"ledger\.sqlite3 cannot be opened"):
        opened(tmp_path, migrations=(*MIGRATIONS, _add_a_column))

    (tmp_path / "ledger.sqlite3-journal").rmdir()
    with contextlib.closing(opened(tmp_path)) as ledger:
        assert spends(ledger)


def test_a_ledger_that_was_closed_is_not_called_damaged(tmp_path: Path) -> None:
    ledger = filled(tmp_path)
    ledger.close()

    with pytest.raises(LedgerUnavailable, match="could not be used just now"):
        ledger.apply("kj_0", NotSent(FREE), NOW_MS)

    assert ledger.trouble is None


# ---- versions


def _add_a_column(db: sqlite3.Connection) -> None:
    db.execute("ALTER TABLE job ADD COLUMN mood TEXT")


def _need_a_newer_program(db: sqlite3.Connection) -> None:
    db.execute("INSERT INTO meta VALUES ('min_writer', '2', ?)", (checksum_of(("min_writer", "2")),))


def test_a_migration_is_made_once_after_a_copy_and_an_older_server_goes_on(tmp_path: Path) -> None:
    older = filled(tmp_path)

    with contextlib.closing(opened(tmp_path, migrations=(*MIGRATIONS, _add_a_column))) as newer:
        assert newer.get("kj_3") == older.get("kj_3")
        assert newer.reserve(intent("kj_by_newer"), WIDE, "me", NOW_MS).fresh
        assert spends(older)
        assert older.check() is None
    with contextlib.closing(opened(tmp_path, migrations=(*MIGRATIONS, _add_a_column))) as again:
        assert again.trouble is None
    older.close()

    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.backup")) as backup:
        assert backup.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert backup.execute("SELECT count(*) FROM job").fetchone() == (12,)


def test_jobs_of_a_version_that_made_no_notes_are_read_and_an_older_version_reads_ours(tmp_path: Path) -> None:
    """A row that says more than a version knows is damage to it; a table that it does not know is not."""
    filled(tmp_path).close()
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.sqlite3")) as db, db:
        (payload,) = zip(*db.execute("SELECT intent FROM paper"), strict=True)
        db.execute("DELETE FROM note")

    assert not any({"sound", "again", "mode", "voice"} & json.loads(paper).keys() for paper in payload)
    with contextlib.closing(opened(tmp_path)) as ledger:
        assert ledger.check() is None
        assert ledger.get("kj_3").intent.sound is None
        assert ledger.get("kj_3").intent.mode == "image-to-video"


def test_a_job_keeps_the_names_that_earlier_versions_gave_it_in_the_file(tmp_path: Path) -> None:
    """As an earlier version wrote it, letter by letter: another version may have the same ledger open."""
    paper = (
        '{"account": "a1b2c3d4e5f6", "arguments": {"prompt": "A fox."}, "basis": "5 s", "ceiling_u": 700000,'
        ' "endpoint_id": "fal-ai/kling-video/o3/standard/image-to-video", "estimate_u": 560000,'
        ' "expected_seconds": 94, "fingerprint": "f", "job_id": "kj_0", "model": "o3-standard", "nonce": null,'
        ' "take": 1, "video_seconds": 5, "warnings": []}'
    )
    with contextlib.closing(filled(tmp_path, jobs=4)) as ledger:
        with contextlib.closing(sqlite3.connect(tmp_path / "ledger.sqlite3", isolation_level=None)) as other:
            [(ours,)] = other.execute("SELECT intent FROM paper WHERE seq = 1").fetchall()
            assert list(json.loads(ours)) == list(json.loads(paper))

            _, *rest = other.execute("SELECT intent, body, result, fault, warnings FROM paper WHERE seq = 1").fetchone()
            checksum = checksum_of((1, paper, *rest))
            other.execute("UPDATE paper SET intent = ?, seal = ? WHERE seq = 1", (paper, checksum))

        intended = ledger.get("kj_0").intent
        assert (intended.estimate_microusd, intended.ceiling_microusd) == (560_000, 700_000)
        assert ledger.get("kj_3").cost_microusd == 450_000


@pytest.mark.parametrize("undone", [False, True], ids=["undone by us", "undone by SQLite"])
def test_a_migration_that_fails_changes_nothing(tmp_path: Path, undone: bool) -> None:
    filled(tmp_path).close()

    def fails(db: sqlite3.Connection) -> None:
        _add_a_column(db)
        if undone:
            # Some errors, such as a full disk, end the transaction by themselves.
            db.execute("ROLLBACK")
        db.execute("SELECT * FROM nowhere")

    with contextlib.closing(opened(tmp_path, migrations=(*MIGRATIONS, fails))) as broken:
        assert not spends(broken)
        with contextlib.closing(opened(tmp_path)) as ledger:
            assert spends(ledger)


def test_an_older_program_reads_a_ledger_that_it_must_not_write(tmp_path: Path) -> None:
    older = filled(tmp_path)
    opened(tmp_path, migrations=(*MIGRATIONS, _need_a_newer_program)).close()

    with contextlib.closing(opened(tmp_path)) as late:
        for ledger in (older, late):
            for write in (
                lambda one=ledger: one.reserve(intent("kj_new"), WIDE, "me", NOW_MS),
                lambda one=ledger: one.apply("kj_0", NotSent(FREE), NOW_MS),
                lambda one=ledger: one.apply("kj_1", RECEIPT, NOW_MS),
            ):
                with pytest.raises(LedgerUnavailable, match=r"newer kling-mcp\. Install that version"):
                    write()
            assert ledger.get("kj_0").state == "preparing"
            assert len(ledger.page(limit=99)) == 12
            assert "newer" in (ledger.trouble or "")
    older.close()


# ---- a full disk


SIZES = [(10, 10), (10, 2_500), (1_500, 500), (500, 6_000), (2_500, 2_500), (15_000, 15_000)]
"""Characters of the friendly arguments and of the body: within a page, about a page, many pages."""


def _fill_to_the_brim(folder: Path) -> None:
    for size in (65_536, 512, 1):
        with contextlib.suppress(OSError), (folder / f"ballast-{size}").open("wb", buffering=0) as file:
            while file.write(b"x" * size) == size:
                pass


@contextlib.contextmanager
def _small_disk(folder: Path) -> Generator[Path | None]:
    """A file system of two megabytes; None where this user may not mount one."""
    folder.mkdir()
    name = ctypes.util.find_library("c")
    libc = None if name is None or sys.platform != "linux" else ctypes.CDLL(name)
    if libc is None or libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"size=2m") != 0:
        yield None
        return
    try:
        yield folder
    finally:
        libc.umount2(os.fsencode(folder), 2)


@pytest.mark.parametrize(("arguments", "body"), SIZES)
@pytest.mark.parametrize("lost_first", [False, True])
def test_an_acceptance_is_recorded_on_a_disk_that_is_completely_full(
    tmp_path: Path, arguments: int, body: int, lost_first: bool
) -> None:
    with _small_disk(tmp_path / "disk") as disk:
        folder = (disk or tmp_path) / "state"
        with contextlib.closing(opened(folder)) as ledger, contextlib.closing(opened(folder)) as other:
            ledger.reserve(intent("kj_1", arguments={"prompt": "a" * arguments}), WIDE, "me", NOW_MS)
            ledger.apply("kj_1", Sending({"prompt": "b" * body}), NOW_MS)
            if lost_first:
                ledger.apply("kj_1", LostTrack("the connection broke"), NOW_MS)
            if disk is not None:
                _fill_to_the_brim(disk)
            sizes = {file.name: file.stat().st_size for file in folder.iterdir()}

            # History comes after the acceptance, and may need room of its own.
            ledger._db.execute(
                "CREATE TEMP TRIGGER no_history BEFORE INSERT ON event BEGIN SELECT RAISE(FAIL, ''); END"
            )
            found = ledger.apply("kj_1", RECEIPT, NOW_MS)

            assert found.changed
            assert other.get("kj_1").request_id == "r-1"
            assert {file.name: file.stat().st_size for file in folder.iterdir()} == sizes, "a file has grown"
            if disk is not None:
                assert _refused_for_want_of_room(other)
                assert other.trouble is None


def _refused_for_want_of_room(ledger: SqliteLedger) -> bool:
    """The proof that the disk was full: an intent finds no room, so nothing would be sent."""
    try:
        for number in range(40):
            ledger.reserve(intent(f"kj_more_{number}"), WIDE, "me", NOW_MS)
    except LedgerUnavailable as error:
        return "full" in error.what
    return False


def test_check_finds_nothing_wrong_with_a_whole_ledger(tmp_path: Path) -> None:
    with contextlib.closing(filled(tmp_path)) as ledger:
        assert ledger.check() is None
        assert ledger.trouble is None
        jobs: list[Job] = list(ledger.page(limit=99))
        assert len(jobs) == 12
