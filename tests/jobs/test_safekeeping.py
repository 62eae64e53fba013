"""The last places: names that only the living hold, journals, and a store whose ledger fails."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
import subprocess
import sys
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

import pytest

from kling_mcp.errors import FalUnreachable, LedgerUnavailable
from kling_mcp.jobs.job import Accepted, Fault, Finished, LostTrack, NotSent, Sending
from kling_mcp.jobs.journal import AcceptanceJournal, journaled
from kling_mcp.jobs.poller import Poller
from kling_mcp.jobs.process_lock import ProcessLock
from kling_mcp.jobs.reconciler import Reconciler
from kling_mcp.jobs.sqlite.engine import SqliteLedger
from kling_mcp.jobs.store import JobStore
from kling_mcp.jobs.submitter import Submitter
from kling_mcp.money import dollars, micro_dollars
from kling_mcp.runtime import Runtime
from kling_mcp.settings import Settings
from tests.jobs.model import ModelFal
from tests.jobs.support import NOW_MS, WIDE, intent

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path

    from kling_mcp.fal.platform import PastRequest

RECEIPT = Accepted("r-1", "https://q/s", "https://q/r", "https://q/c", 2)


# ---- names


def test_a_name_is_held_by_the_living_and_by_nobody_else(tmp_path: Path) -> None:
    me, other = ProcessLock(tmp_path, "me"), ProcessLock(tmp_path, "other")

    assert me.alive("me")
    assert me.alive("other")
    assert not me.alive("somebody who never was")
    other.close()
    other.close()
    assert not me.alive("other")
    assert not other.alive("other")
    me.close()
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_was_killed_is_dead_and_its_file_is_removed(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib\nfrom kling_mcp.jobs.process_lock import ProcessLock\n"
        f"owner = ProcessLock(pathlib.Path({str(tmp_path)!r}), 'victim')\nprint('up', flush=True)\nsys.stdin.read()"
    )
    me = ProcessLock(tmp_path, "me")
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"up\n"
        assert me.alive("victim")
        victim.kill()
        victim.wait()
        assert not me.alive("victim")

    assert [path.name for path in tmp_path.iterdir()] == ["me"]
    me.close()


def test_an_owner_that_cannot_be_looked_at_is_not_taken_for_dead(tmp_path: Path) -> None:
    me = ProcessLock(tmp_path, "me")
    (tmp_path / "a-folder").mkdir()

    assert me.alive("a-folder")
    me.close()


def test_a_name_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    me = ProcessLock(tmp_path / "owners", "me")

    assert not me.alive("../precious")
    assert (tmp_path / "precious").exists()
    me.close()


# ---- journals


def test_a_spool_keeps_what_it_is_given_and_goes_away_when_that_is_nothing(tmp_path: Path) -> None:
    empty, used = AcceptanceJournal(tmp_path, "empty"), AcceptanceJournal(tmp_path, "used")
    size = (tmp_path / "used.spool").stat().st_size

    used.keep("kj_1", RECEIPT)
    used.keep("kj_2", Accepted("r-2"))
    empty.close()
    used.close()

    (left,) = journaled(tmp_path)
    assert (left.owner, left.path.name) == ("used", "used.spool")
    assert left.entries == (("kj_1", RECEIPT), ("kj_2", Accepted("r-2")))
    assert (tmp_path / "used.spool").stat().st_size == size, "its room was taken when it was made"


def test_a_line_that_was_cut_does_not_hide_the_others(tmp_path: Path) -> None:
    journal = AcceptanceJournal(tmp_path, "cut")
    journal.keep("kj_1", RECEIPT)
    journal.close()
    path = tmp_path / "cut.spool"
    whole = path.read_bytes().rstrip(b"\n")
    path.write_bytes(b'{"job_id": "kj_0"}\n' + whole[:40] + b"\n[]\n" + whole + b"\n" + whole[:60])

    (left,) = journaled(tmp_path)

    assert left.entries == (("kj_1", RECEIPT),)


def test_a_spool_is_refused_where_there_is_only_room_for_a_part_of_it(tmp_path: Path) -> None:
    """A nearly full disk takes a part of what is written and reports no error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            AcceptanceJournal(tmp_path, "small")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)

    assert list(tmp_path.iterdir()) == []


# ---- a store whose ledger fails


class Failing:
    """A ledger that fails at chosen events."""

    def __init__(self, ledger: SqliteLedger) -> None:
        self._ledger = ledger
        self.fails: dict[type, Exception] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    def apply(self, job_id: str, event: Any, now_ms: int) -> Any:
        if type(event) in self.fails:
            raise self.fails[type(event)]
        return self._ledger.apply(job_id, event, now_ms)


class Room:
    """A store, its parts, and a model of fal."""

    def __init__(self, folder: Path, fal: ModelFal | None = None) -> None:
        self.fal = fal or ModelFal()
        self.ledger = SqliteLedger(folder, lambda: "ledger-1")
        self.failing = Failing(self.ledger)
        self.store = JobStore(folder, Runtime(now_ms=lambda: self.fal.now_ms), lambda: cast("Any", self.failing))
        settings = Settings(folder, None, ())
        self.poller = Poller(
            self.store, settings, lambda: cast("Any", self.fal), cast("Any", None), lambda: cast("Any", _Nobody())
        )
        self.submitter = Submitter(self.store, settings, lambda: cast("Any", self.fal), self.poller.follow)
        self.reconciler = Reconciler(
            self.store, lambda: cast("Any", self.fal), self.poller,
            under_way=self.submitter.under_way, can_ask=True,
        )  # fmt: skip

    async def reserved(self) -> Any:
        owner = (await self.store.owner()).mine
        return self.ledger.reserve(intent("kj_1"), WIDE, owner, self.fal.now_ms).job


class _Nobody:
    def start_soon(self, *_: object) -> None:
        pass


@pytest.fixture
def room(tmp_path: Path) -> Generator[Room]:
    room = Room(tmp_path)
    yield room
    room.store.close()
    room.ledger.close()


UNAVAILABLE = LedgerUnavailable("The disk is full.", "Free some space.")


@pytest.mark.anyio
async def test_nothing_is_sent_where_sending_cannot_be_recorded(room: Room) -> None:
    job = await room.reserved()
    room.failing.fails = {Sending: UNAVAILABLE}

    with pytest.raises(LedgerUnavailable):
        await room.submitter._send(job, {"prompt": "x"})

    assert room.fal.posts == []
    ended = room.ledger.get("kj_1")
    assert (ended.state, ended.cost_microusd) == ("not_submitted", 0)
    assert ended.fault is not None
    assert ended.fault.code == "ledger_unavailable"


@pytest.mark.anyio
async def test_an_unknown_outcome_that_cannot_be_recorded_is_never_released(room: Room) -> None:
    job = await room.reserved()
    room.failing.fails = {LostTrack: UNAVAILABLE}
    room.fal.answer = "answer lost"

    with pytest.raises(LedgerUnavailable):
        await room.submitter._send(job, {"prompt": "x"})

    assert room.ledger.get("kj_1").state == "submitting"
    room.failing.fails = {}
    await room.reconciler.recover()
    assert room.ledger.get("kj_1").state == "unknown"


@pytest.mark.anyio
async def test_an_intent_whose_release_failed_is_released_a_minute_later(room: Room) -> None:
    await room.reserved()

    await room.reconciler.recover()

    assert room.ledger.get("kj_1").state == "not_submitted"


@pytest.mark.anyio
async def test_an_id_goes_to_the_spool_and_from_there_into_the_ledger(room: Room) -> None:
    job = await room.reserved()
    room.failing.fails = {Accepted: RuntimeError("not foreseen")}

    await room.submitter._send(job, {"prompt": "x"})

    request_id = room.fal.requests[0].request_id
    assert room.ledger.get("kj_1").request_id is None
    assert [entry[1].request_id for left in journaled(room.store.folder / "owners") for entry in left.entries] == [
        request_id
    ]
    room.failing.fails = {}
    await room.reconciler.recover()
    assert room.ledger.get("kj_1").request_id == request_id
    assert room.poller.followed == {"kj_1"}


class _DiesOnceSeen:
    """This process among others, of which each dies right after it was seen alive."""

    def __init__(self, mine: str) -> None:
        self.mine = mine
        self._seen: set[str] = set()

    def alive(self, owner: str) -> bool:
        alive = owner not in self._seen
        self._seen.add(owner)
        return alive

    def close(self) -> None:
        pass


@pytest.mark.anyio
async def test_a_job_is_not_called_lost_while_its_id_is_in_a_spool_that_was_not_read(room: Room) -> None:
    """Its process was alive when the journals were read, and dead when its jobs were looked at."""
    room.store._owner = _DiesOnceSeen((await room.store.owner()).mine)
    room.ledger.reserve(intent("kj_1"), WIDE, "another", NOW_MS)
    room.ledger.apply("kj_1", Sending({"prompt": "x"}), NOW_MS)
    journal = AcceptanceJournal(room.store.folder / "owners", "another")
    journal.keep("kj_1", RECEIPT)
    journal.close()

    await room.reconciler.recover()

    assert room.ledger.get("kj_1").request_id == RECEIPT.request_id


def test_a_spool_is_read_only_once_its_owner_is_known_to_be_gone(tmp_path: Path) -> None:
    """What it keeps at the last moment is in what is read."""

    def gone(owner: str) -> bool:
        journal.keep("kj_1", RECEIPT)
        journal.close()
        return True

    journal = AcceptanceJournal(tmp_path, "another")

    (left,) = journaled(tmp_path, gone)

    assert left.entries == (("kj_1", RECEIPT),)


def test_a_spool_that_another_process_brings_in_meanwhile_is_nothing_to_read(tmp_path: Path) -> None:
    def brought_in(owner: str) -> bool:
        (tmp_path / f"{owner}.spool").unlink()
        return True

    (tmp_path / "another.spool").write_text("\n")

    assert list(journaled(tmp_path, brought_in)) == []


@pytest.mark.anyio
async def test_an_id_that_has_no_place_at_all_is_in_the_log(room: Room, caplog: pytest.LogCaptureFixture) -> None:
    room.failing.fails = {Accepted: UNAVAILABLE}

    assert await room.store.keep_accepted("kj_1", RECEIPT) is None

    (record,) = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert (record.message, record.__dict__["request_id"], record.__dict__["job_id"]) == (
        "PAID-UNRECORDED",
        "r-1",
        "kj_1",
    )


@pytest.mark.anyio
async def test_an_id_that_no_job_can_take_is_kept_and_in_the_log(room: Room, caplog: pytest.LogCaptureFixture) -> None:
    await room.reserved()
    room.ledger.apply("kj_1", NotSent(Fault("cancelled", "It was cancelled.", "no")), room.fal.now_ms)

    job = await room.store.keep_accepted("kj_1", RECEIPT)

    assert job is not None
    assert job.state == "not_submitted"
    assert [record.message for record in caplog.records if record.levelno == logging.CRITICAL] == ["PAID-UNPLACED"]
    assert "r-1" in room.ledger.requests(intent().endpoint_id)


def test_a_desk_that_was_never_used_closes(tmp_path: Path) -> None:
    JobStore(tmp_path, Runtime(), lambda: SqliteLedger(tmp_path, lambda: "x")).close()

    assert list(tmp_path.iterdir()) == []


@pytest.mark.anyio
async def test_no_name_is_kept_where_there_is_no_room_for_the_spool(tmp_path: Path) -> None:
    """Each further call would leave another open file behind."""
    store = JobStore(tmp_path, Runtime(), lambda: SqliteLedger(tmp_path, lambda: "x"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    open_before = _open_files()
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        for _ in range(5):
            with pytest.raises(LedgerUnavailable, match="no room for"):
                await store.owner()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)

    assert list((tmp_path / "owners").iterdir()) == []
    assert _open_files() <= open_before
    store.close()


def _open_files() -> int:
    """How many there are; 0 where the platform does not say."""
    return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0  # noqa: PTH208


@pytest.mark.anyio
async def test_recovery_that_fails_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    failures: list[Exception] = [UNAVAILABLE, RuntimeError("not foreseen")]
    room = Room(tmp_path)

    class Enough(BaseException):
        pass

    async def sleep(_: float) -> None:
        if not failures:
            raise Enough

    def opens() -> Any:
        raise failures.pop()

    store = JobStore(tmp_path, Runtime(sleep=sleep), opens)
    reconciler = Reconciler(store, room.reconciler._fal, room.poller, under_way=lambda _: False, can_ask=False)

    with contextlib.suppress(Enough):
        await reconciler.run()

    assert [record.message for record in caplog.records] == ["recovery was put off", "recovery was put off"]
    room.store.close()
    room.ledger.close()


class _NotThatFarBack(ModelFal):
    """A history that does not end within what is read of it, where it begins a month ago."""

    async def history(
        self, endpoint_id: str, *, start_ms: int, end_ms: int | None = None
    ) -> AsyncGenerator[PastRequest, None]:
        if start_ms < self.now_ms - 5 * 86_400_000:
            raise FalUnreachable("The list does not end.", "It can be asked again.")
        async for past in super().history(endpoint_id, start_ms=start_ms, end_ms=end_ms):
            yield past


@pytest.mark.anyio
async def test_a_request_is_found_in_a_history_that_is_too_long_to_prove_anything(tmp_path: Path) -> None:
    room = Room(tmp_path, fal := _NotThatFarBack())
    room.ledger.reserve(intent("kj_0"), WIDE, "me", fal.now_ms)
    for event in (Sending({"prompt": "y"}), RECEIPT, Finished({}, 1)):
        room.ledger.apply("kj_0", event, fal.now_ms)
    fal.now_ms += 20 * 86_400_000
    job = await room.reserved()
    fal.answer = "answer lost"
    await room.submitter._send(job, {"prompt": "x"})
    fal.finish(fal.requests[0], "video")
    fal.now_ms += 60_000

    await room.reconciler.look(intent().endpoint_id)

    assert room.ledger.get("kj_1").request_id == fal.requests[0].request_id
    room.store.close()
    room.ledger.close()


@pytest.mark.anyio
async def test_the_history_is_not_read_for_what_was_settled_meanwhile(room: Room) -> None:
    await room.reserved()
    room.fal.reachable = False

    await room.reconciler.look(intent().endpoint_id)


@pytest.mark.anyio
async def test_a_server_that_closes_between_the_record_and_the_request_sends_nothing(tmp_path: Path) -> None:
    room = Room(tmp_path)
    job = await room.reserved()
    await room.submitter.drain(0)

    await room.submitter._send(job, {"prompt": "x"})

    ended = room.ledger.get("kj_1")
    assert (ended.state, ended.cost_microusd, room.fal.posts) == ("not_submitted", 0, [])
    room.store.close()
    room.ledger.close()


@pytest.mark.anyio
async def test_without_a_key_nothing_is_asked_of_the_history(room: Room) -> None:
    await room.reserved()
    for event in (Sending({"prompt": "x"}), LostTrack("?")):
        room.ledger.apply("kj_1", event, NOW_MS)
    silent = Reconciler(room.store, cast("Any", None), room.poller, under_way=room.submitter.under_way, can_ask=False)

    await silent.recover()

    assert room.ledger.get("kj_1").state == "unknown"


# ---- money


def test_money_is_rounded_up_and_comes_back_exactly() -> None:
    assert micro_dollars(Decimal("0.4200001")) == 420_001
    assert dollars(420_001) == Decimal("0.420001")
