"""One job in full, and open jobs as they progress. While the command pauses, a server changes the ledger."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from kling_mcp.commands.jobs import jobs
from kling_mcp.commands.terminal import Screen
from kling_mcp.errors import UnknownJob
from kling_mcp.jobs.job import Accepted, Failed, Fault, Finished, Intent, LostTrack, Progressed, Sending, Trouble
from kling_mcp.jobs.ledger import Limits
from kling_mcp.jobs.sqlite.engine import SqliteLedger
from kling_mcp.settings import Settings
from tests.commands.test_terminal import Terminal, size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

NOW_MS = 1_795_255_200_000
"""2026-11-21T10:00:00Z."""

FOX, OWL = "kj_fox___________________", "kj_owl___________________"
REQUEST = "019a2b3c-1111-4222-8333-444455556666"
SHOTS = [{"prompt": "A fox looks up", "duration": 3}, {"prompt": "night falls", "duration": 6}]
VIDEO = {"video": {"url": "https://v3.fal.media/fox.mp4"}}


def intent(job_id: str, **arguments: object) -> Intent:
    return Intent(
        job_id=job_id,
        account="0" * 12,
        fingerprint=job_id,
        take=1,
        model="o3-standard",
        endpoint_id="fal-ai/kling-video/o3/standard/image-to-video",
        arguments={"image": "/pictures/fox.jpg", **arguments},
        estimate_microusd=1_008_000,
        ceiling_microusd=1_512_000,
        basis="9 s at $0.112/s",
        video_seconds=9,
        expected_seconds=100,
        sound=True,
    )


class Server:
    """A server that changes jobs in the ledger while the command reads it."""

    def __init__(self, folder: Path) -> None:
        self.ledger = SqliteLedger(folder, lambda: "an id")
        self.now = NOW_MS

    def start(self, one: Intent) -> None:
        self.ledger.reserve(one, Limits(10_000_000, 25_000_000), "nobody", self.now)
        self.ledger.apply(one.job_id, Sending({}), self.now)

    def accept(self, job_id: str, request_id: str = REQUEST) -> None:
        self.ledger.apply(job_id, Accepted(request_id, queue_position=1), self.now)

    def progress(self, job_id: str, note: str) -> None:
        self.ledger.apply(job_id, Progressed(running=True, note=note), self.now)

    def finish(self, job_id: str, path: str | None) -> None:
        self.ledger.apply(job_id, Finished(VIDEO, 900_000), self.now)
        if path is not None:
            self.save(job_id, path)

    def save(self, job_id: str, path: str) -> None:
        self.ledger.mark_saved(job_id, path, None, self.now)

    def fail(self, job_id: str, fault: Fault) -> None:
        self.ledger.apply(job_id, Failed(fault), self.now)

    def lose(self, job_id: str) -> None:
        self.ledger.apply(job_id, LostTrack("the connection broke"), self.now)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "state")
    yield server
    server.ledger.close()


def looked(server: Server, named: str = "") -> str:
    out = io.StringIO()
    assert jobs(Settings.from_environment(), named, screen=Screen(out, size), now_ms=lambda: server.now) == 0
    return out.getvalue()


def watched(
    server: Server, *between: Callable[[], object], named: str = "", terminal: io.StringIO | None = None
) -> tuple[int, str]:
    """The exit code and what was written, where *between* happens in the pauses, 10 s each."""
    out = io.StringIO() if terminal is None else terminal
    happens = iter(between)

    def pause(_: float) -> None:
        server.now += 10_000
        next(happens)()

    screen = Screen(out, lambda: size(100))
    code = jobs(Settings.from_environment(), named, follow=True, screen=screen, now_ms=lambda: server.now, pause=pause)
    assert next(happens, None) is None
    return code, out.getvalue()


# ---- all jobs


@pytest.mark.parametrize("columns", [80, 100, 200])
def test_prompts_in_the_table_are_cut_to_the_width(columns: int, server: Server) -> None:
    server.start(intent(FOX, prompt="\033[31mThe fox looks up " * 30))

    out = io.StringIO()
    jobs(Settings.from_environment(), screen=Screen(out, lambda: size(columns)), now_ms=lambda: server.now)

    prompt = out.getvalue().splitlines()[2]
    assert prompt.startswith("    [31mThe fox looks up")
    assert columns - 2 <= len(prompt) <= columns
    assert "~$1.01" in out.getvalue()


# ---- one job


def entries(told: str) -> dict[str, list[str]]:
    """The lines of a page by their labels."""
    found: dict[str, list[str]] = {}
    label = ""
    for line in told.splitlines():
        label = line[:10].strip() or label
        found.setdefault(label, []).append(line[10:])
    return found


def _queued(server: Server) -> None:
    server.accept(FOX)


def _troubled(server: Server) -> None:
    server.accept(FOX)
    server.ledger.note_trouble(FOX, Trouble("fal_unreachable", "It answers with 503.", NOW_MS))


def _saved(server: Server) -> None:
    server.accept(FOX)
    server.progress(FOX, "frames")
    server.now += 90_000
    server.finish(FOX, "/videos/two  blanks.mp4")


def _refused(server: Server) -> None:
    server.accept(FOX)
    fault = Fault("fal_rejected", "fal.ai refused the picture.", "maybe", upstream_detail="\033[2Jface")
    server.fail(FOX, fault)


def _lost(server: Server) -> None:
    server.lose(FOX)


FULL: dict[str, tuple[Callable[[Server], None], Mapping[str, str]]] = {
    "in fal's line": (
        _queued,
        {
            "Job": FOX,
            "State": "queued queued at fal.ai, place 2 in line, then about 100 s",
            "Prompt": "A fox looks up",
            "With": "image: /pictures/fox.jpg",
            "Model": "o3-standard, 9 s, with sound",
            "Mode": "image-to-video (fal-ai/kling-video/o3/standard/image-to-video)",
            "Price": "estimated $1.01, at most $1.51; not settled; the maximum is held",
            "Times": "asked for 2026-11-21T10:00:00Z, 0 s ago",
            "Request": REQUEST,
            "Next": f"kling-mcp jobs {FOX} --watch follows it.",
        },
    ),
    "nothing heard of it": (_troubled, {"Warning": "Since 2026-11-21 10:00 UTC fal.ai has not said how this job"}),
    "saved": (
        _saved,
        {
            "State": "completed",
            "Price": "estimated $1.01, at most $1.51; actual $0.90",
            "Video": "/videos/two  blanks.mp4",
            "Next": "Open the video, or let the assistant continue it:",
        },
    ),
    "refused": (
        _refused,
        {
            "State": "failed",
            "Price": "estimated $1.01, at most $1.51; counted as $1.01, because fal.ai has not said",
            "Error": "fal_rejected: fal.ai refused the picture. It may have been charged.",
            "Next": "It may have been charged; the user can look at",
        },
    ),
    "in state unknown": (
        _lost,
        {"State": "unknown", "Next": "fal.ai may have this request, so it is not sent again;"},
    ),
}


@pytest.mark.parametrize("name", FULL)
def test_one_job_is_shown_in_full(name: str, server: Server) -> None:
    move, expected = FULL[name]
    server.start(intent(FOX, prompt="A fox looks up"))
    move(server)

    told = looked(server, FOX)

    found = entries(told)
    assert {label: " ".join(found[label]).startswith(text) for label, text in expected.items()} == dict.fromkeys(
        expected, True
    ), told
    assert "\033" not in told
    assert max(map(len, told.splitlines())) <= 80


def test_every_time_of_a_job_that_ended_is_told(server: Server) -> None:
    server.start(intent(FOX, prompt="A fox"))
    _saved(server)

    assert entries(looked(server, FOX))["Times"] == [
        "asked for 2026-11-21T10:00:00Z, 1 min ago",
        "sent      2026-11-21T10:00:00Z, 1 min ago",
        "accepted  2026-11-21T10:00:00Z, 1 min ago",
        "started   2026-11-21T10:00:00Z, 1 min ago",
        "ended     2026-11-21T10:01:30Z, 0 s ago",
    ]


def test_what_fal_said_of_a_failure_is_told_as_fals(server: Server) -> None:
    server.start(intent(FOX, prompt="A fox"))
    _refused(server)

    assert entries(looked(server, FOX))["Error"][-1] == "fal.ai said: [2Jface"


def test_shots_are_told_with_their_times_and_an_embedded_picture_by_its_size(server: Server) -> None:
    server.start(intent(FOX, shots=SHOTS, image="data:image/png;base64," + "A" * 4000))

    found = entries(looked(server, FOX))

    assert (found["Shot 1"], found["Shot 2"]) == (["0-3 s  A fox looks up"], ["3-9 s  night falls"])
    assert found["With"] == ["image: data:image/png (3 kB)"]


@pytest.mark.parametrize(
    "spelling",
    [
        FOX,
        FOX.removeprefix("kj_"),
        f'"{FOX}"',
        f"job_id: {FOX}",
        f"kling://jobs/{FOX}/last-frame",
        REQUEST,
        f"https://queue.fal.run/fal-ai/kling-video/requests/{REQUEST}/status",
    ],
)
def test_a_job_is_found_by_every_spelling_of_its_id(spelling: str, server: Server) -> None:
    server.start(intent(FOX, prompt="A fox"))
    server.accept(FOX)

    assert entries(looked(server, spelling))["Job"] == [FOX]


@pytest.mark.parametrize("there", [True, False])
def test_a_job_that_is_not_there_is_an_error(there: bool, tmp_path: Path) -> None:
    if there:
        SqliteLedger(tmp_path / "state", lambda: "an id").close()

    with pytest.raises(UnknownJob, match="kj_nobody"):
        jobs(Settings.from_environment(), "kj_nobody", screen=Screen(io.StringIO(), size))
    assert (tmp_path / "state").exists() == there


# ---- following


def test_without_a_terminal_every_event_is_a_line(server: Server) -> None:
    server.start(intent(FOX, prompt="A fox"))

    code, told = watched(
        server,
        lambda: server.accept(FOX),
        lambda: None,
        lambda: server.progress(FOX, "first frames"),
        lambda: None,
        lambda: server.finish(FOX, None),
        lambda: server.save(FOX, "/videos/fox.mp4"),
    )

    assert (code, told.splitlines()) == (
        0,
        [
            f"2026-11-21T10:00:00Z  {FOX}  sending the request to fal.ai",
            f"2026-11-21T10:00:10Z  {FOX}  queued at fal.ai, place 2 in line, then about 100 s",
            f"2026-11-21T10:00:30Z  {FOX}  rendering, about 100 s left: first frames",
            f"2026-11-21T10:00:50Z  {FOX}  finished, saving the video",
            f"2026-11-21T10:01:00Z  {FOX}  completed, $0.90: /videos/fox.mp4",
            "No job is open.",
        ],
    )


def test_on_a_terminal_each_open_job_has_a_bar_and_one_that_ends_goes_above_them(server: Server) -> None:
    server.start(intent(FOX, shots=SHOTS))
    server.accept(FOX)
    seen: list[list[str]] = []
    terminal = Terminal()

    def see() -> None:
        seen.append(terminal.shown)

    def run() -> None:
        see()
        server.progress(FOX, "")
        server.now += 40_000
        server.start(intent(OWL, prompt="An owl"))

    def half() -> None:
        see()
        server.finish(FOX, "/videos/fox.mp4")

    def last() -> None:
        see()
        server.accept(OWL, "another")
        server.fail(OWL, Fault("fal_rejected", "No owls.", "no"))

    code, _ = watched(server, run, half, last, terminal=terminal)

    how = "Ctrl-C stops watching. The jobs go on in the assistant's server."
    fox, owl = f"{FOX}  o3-standard  ~$1.01  A fox looks up / night falls", f"{OWL}  o3-standard  ~$1.01  An owl"
    ended = f"2026-11-21T10:01:00Z  {FOX}  completed, $0.90: /videos/fox.mp4"
    sending = f"    {'░' * 20}   0%  sending the request to fal.ai"
    assert seen == [
        [
            fox,
            f"    {'░' * 7}│{'░' * 13}   0%  queued at fal.ai, place 2 in line, then about 100 s",
            how,
        ],
        [fox, f"    {'█' * 7}│{'█'}{'░' * 12}  40%  rendering, about 60 s left", owl, sending, how],
        [ended, owl, sending, how],
    ]
    assert (code, terminal.shown) == (
        0,
        [ended, f"2026-11-21T10:01:10Z  {OWL}  failed, $0.00: fal_rejected: No owls.", "No job is open.", ""],
    )


def _stop() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("terminal", [Terminal(), io.StringIO()])
def test_ctrl_c_stops_watching_and_leaves_the_cursor_on_a_new_line(terminal: io.StringIO, server: Server) -> None:
    server.start(intent(FOX, prompt="A fox"))

    code, told = watched(server, _stop, terminal=terminal)

    assert (code, told[-1]) == (130, "\n")
    assert server.ledger.get(FOX).state == "submitting"


def test_a_job_in_state_unknown_is_told_and_not_waited_for(server: Server) -> None:
    server.start(intent(FOX, prompt="A fox"))

    code, told = watched(server, lambda: server.lose(FOX))

    assert code == 0
    assert told.splitlines()[-3:] == [
        f"2026-11-21T10:00:10Z  {FOX}  unknown, ~$1.01",
        "No other job is open.",
        f"In state unknown, so perhaps charged: kling-mcp jobs {FOX} says what to do.",
    ]


def test_one_job_can_be_followed_alone(server: Server) -> None:
    for job_id, request_id in ((FOX, REQUEST), (OWL, "another")):
        server.start(intent(job_id, prompt="An animal"))
        server.accept(job_id, request_id)

    code, told = watched(server, lambda: server.finish(FOX, "/videos/fox.mp4"), named=REQUEST)

    assert (code, told.count("\n"), OWL in told) == (0, 2, False)
    assert told.endswith("completed, $0.90: /videos/fox.mp4\n")


def test_following_what_has_ended_says_how_it_ended(server: Server) -> None:
    server.start(intent(FOX, prompt="A fox"))
    _saved(server)

    assert watched(server) == (0, "No job is open.\n")
    assert watched(server, named=FOX) == (
        0,
        f"2026-11-21T10:01:30Z  {FOX}  completed, $0.90: /videos/two  blanks.mp4\n",
    )


def test_looking_changes_nothing(server: Server, tmp_path: Path) -> None:
    server.start(intent(FOX, prompt="A fox"))
    server.accept(FOX)
    before = {path.name: path.read_bytes() for path in (tmp_path / "state").iterdir()}

    looked(server)
    looked(server, FOX)
    watched(server, _stop)

    assert {path.name: path.read_bytes() for path in (tmp_path / "state").iterdir()} == before


@pytest.mark.parametrize(
    ("note", "expected_seconds", "drawn"),
    [
        ("frames", None, f"{'░' * 20}   0%  rendering: frames"),
        ("frames", 40, f"{'█' * 10}{'░' * 10}  50%  rendering, about 20 s left: frames"),
        ("frames", 10, f"{'█' * 20}  99%  rendering, longer than expected: frames"),
        ("Shot 1 of 1: 35% of it", 40, f"{'█' * 7}{'░' * 13}  35%  rendering, about 20 s left: Shot 1"),
    ],
)
def test_a_bar_goes_by_what_is_said_of_the_job_or_else_by_its_time(
    note: str, expected_seconds: int | None, drawn: str, server: Server
) -> None:
    server.start(replace(intent(FOX, prompt="A fox"), expected_seconds=expected_seconds))
    server.accept(FOX)
    server.progress(FOX, note)
    server.now += 20_000

    _, told = watched(server, _stop, terminal=Terminal())

    assert drawn in told
