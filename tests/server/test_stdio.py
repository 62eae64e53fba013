"""
Standard input and output: the eras on one pipe, what is imported before the first answer, hostile lines.

`test_what_the_sdk_does_not_document_is_where_it_was` is the one that fails
first when an upgrade of the SDK moves what `server/stdio.py` reaches into.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import inspect
import json
import os
import random
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from kling_mcp.simulator.faults import Answer
from tests.server.hosts import ERAS, NEWER, OLDER, SHORT, house
from tests.server.pipes import SERVER, greeting, modern, piped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.server.pipes import Pipe

pytestmark = pytest.mark.anyio


# ---- eras on one pipe


async def test_a_probe_and_then_a_handshake_work_on_the_same_pipe(tmp_path: Path) -> None:
    """
    Claude Code and Copilot CLI ask `server/discover` and then `initialize`; the SDK alone refuses the second.
    """
    async with piped(tmp_path) as pipe:
        found = (await pipe.ask("server/discover", modern()))["result"]
        greeted = (await pipe.ask("initialize", greeting(), 2))["result"]
        await pipe.send("notifications/initialized")
        listed = (await pipe.ask("tools/list", {}, 3))["result"]
        assert await pipe.end() == 0

    assert found["supportedVersions"] == [NEWER]
    assert greeted["protocolVersion"] == OLDER
    assert greeted["serverInfo"]["name"] == "kling-mcp"
    assert len(listed["tools"]) >= 8
    assert "resultType" not in listed


async def test_a_probe_and_then_calls_of_the_newer_era_work(tmp_path: Path) -> None:
    """
    What a client of the newer era does.
    """
    async with piped(tmp_path) as pipe:
        found = (await pipe.ask("server/discover", modern()))["result"]
        again = (await pipe.ask("server/discover", modern(), 2))["result"]
        listed = (await pipe.ask("tools/list", modern(), 3))["result"]
        called = (await pipe.ask("tools/call", modern(name="estimate_cost", arguments={}), 4))["result"]
        assert await pipe.end() == 0

    assert found == again
    assert found["resultType"] == listed["resultType"] == called["resultType"] == "complete"
    assert "io.modelcontextprotocol/tasks" in found["capabilities"]["extensions"]
    assert called["structuredContent"]["models"]


async def test_a_probe_for_a_version_of_the_future_is_answered_with_ours_and_harms_nothing(tmp_path: Path) -> None:
    """
    -32022 says what is supported, and the client goes on with that.
    """
    future = modern()
    future["_meta"]["io.modelcontextprotocol/protocolVersion"] = "2099-01-01"
    async with piped(tmp_path) as pipe:
        refused = await pipe.ask("server/discover", future)
        listed = await pipe.ask("tools/list", modern(), 2)
        assert await pipe.end() == 0

    assert refused["error"]["code"] == -32022
    assert NEWER in refused["error"]["data"]["supported"]
    assert listed["result"]["tools"]


@pytest.mark.parametrize("asked", ["2024-11-05", "2025-03-26", "2025-06-18", OLDER, "1999-01-01"])
async def test_a_handshake_alone_works_in_every_version_that_there_was(asked: str, tmp_path: Path) -> None:
    """
    A version that nobody knows gets the newest that has a handshake.
    """
    async with piped(tmp_path) as pipe:
        greeted = await pipe.ask("initialize", {**greeting(), "protocolVersion": asked})
        await pipe.send("notifications/initialized")
        listed = await pipe.ask("tools/list", {}, 2)
        assert await pipe.end() == 0

    assert greeted["result"]["protocolVersion"] == (OLDER if asked == "1999-01-01" else asked)
    assert listed["result"]["tools"]


async def test_calls_of_the_newer_era_need_no_probe(tmp_path: Path) -> None:
    """
    The first line may be the call itself.
    """
    async with piped(tmp_path) as pipe:
        called = await pipe.ask("tools/call", modern(name="list_models", arguments={"model": "o3-pro"}))
        assert await pipe.end() == 0

    assert called["result"]["structuredContent"]["model"] == "o3-pro"


async def test_what_the_sdk_does_not_document_is_where_it_was() -> None:
    """
    Everything undocumented that `server/stdio.py` uses, with the arguments that it uses.

    See docs/sdk.md for what to do when this fails.
    """
    from mcp.os.win32.utilities import rebind_std_handle_to_fd
    from mcp.server.connection import Connection
    from mcp.server.runner import serve_dual_era_loop, serve_one
    from mcp.shared._context_streams import create_context_streams
    from mcp.shared.exceptions import NoBackChannelError
    from mcp.shared.inbound import InboundLadderRejection, classify_inbound_request
    from mcp.shared.transport_context import TransportContext

    assert importlib.metadata.version("mcp").split(".")[0] == "2"
    loop = inspect.signature(serve_dual_era_loop).parameters
    assert {"lifespan_state", "init_options"} <= set(loop)
    assert [*loop][:3] == ["server", "read_stream", "write_stream"]
    one = inspect.signature(serve_one).parameters
    assert [*one][:4] == ["server", "dctx", "method", "params"]
    assert {"connection", "lifespan_state"} <= set(one)
    assert [*inspect.signature(Connection.from_envelope).parameters][:3] == [
        "protocol_version",
        "client_info",
        "client_capabilities",
    ]
    send, receive = create_context_streams[str](0)
    async with send, receive, anyio.create_task_group() as tasks:
        tasks.start_soon(send.send, "passed on")
        assert await receive.receive() == "passed on"
    route = classify_inbound_request({"method": "server/discover", "params": modern()})
    assert not isinstance(route, InboundLadderRejection)
    assert route.protocol_version == NEWER
    assert isinstance(classify_inbound_request({"method": "server/discover", "params": {}}), InboundLadderRejection)
    assert [*inspect.signature(rebind_std_handle_to_fd).parameters] == ["fd"]
    assert TransportContext(kind="stdio", can_send_request=False).kind == "stdio"
    assert issubclass(NoBackChannelError, Exception)


# ---- before the first answer

_WITHOUT_US = """
import sys
import mcp.server.caching, mcp.server.connection, mcp.server.lowlevel.server, mcp.server.request_state
import mcp.server.runner, mcp.server.stdio, mcp.server.subscriptions
print(*sorted(sys.modules))
"""

_WITH_US = """
import sys
import anyio
from kling_mcp.server.app import build
from kling_mcp.server.stdio import serve
from kling_mcp.settings import Settings

server = build(Settings.from_environment())

async def spy(ctx, call_next):
    answer = await call_next(ctx)
    if ctx.method == "tools/list":
        print(*sorted(sys.modules), file=sys.stderr, flush=True)
    return answer

server.middleware.insert(0, spy)

async def main():
    await serve(server, server.close)

anyio.run(main)
"""

HEAVY = {"httpx", "sqlite3", "PIL", "av", "uvicorn", "jsonschema", "starlette", "numpy", "rich", "click"}


async def test_nothing_heavy_is_imported_before_the_tools_are_listed(tmp_path: Path) -> None:
    """
    Hosts wait for the list of tools at every start. What the SDK itself brings is not ours to save.
    """
    bare = await anyio.run_process([sys.executable, "-c", _WITHOUT_US])
    async with piped(tmp_path, [sys.executable, "-c", _WITH_US]) as pipe:
        assert (await pipe.ask("tools/list", modern()))["result"]["tools"]
        assert await pipe.end() == 0
    log = (tmp_path / "log").read_text()

    ours = {name.partition(".")[0] for name in log.splitlines()[0].split()}
    assert "kling_mcp" in ours
    assert (ours - {name.partition(".")[0] for name in bare.stdout.decode().split()}) & HEAVY == set()
    assert not (tmp_path / "state").exists()


# ---- hostile lines

CALLS_AT_ONCE = 200


def hostile_lines(chance: random.Random, era: str) -> Iterator[bytes]:
    """A thousand lines that no client should send, a different order for each era."""

    def envelope(**params: Any) -> dict[str, Any]:
        return modern(**params) if era == NEWER else params

    def message(**members: Any) -> bytes:
        return json.dumps({"jsonrpc": "2.0", **members}).encode()

    whole = message(id=7, method="tools/list", params=envelope())
    wrong: list[object] = [None, True, -1, 1.5, "x", [], [1], {}, {"a": 1}, "\ud800", 2**200, float("nan")]
    kinds = [
        lambda: whole[: chance.randrange(1, len(whole))],
        lambda: chance.randbytes(chance.randrange(1, 200)).replace(b"\n", b" "),
        lambda: b"",
        lambda: b"\xff\xfe" + whole,
        lambda: json.dumps(chance.choice(wrong)).encode(),
        lambda: json.dumps([json.loads(whole)] * 3).encode(),
        lambda: message(id=chance.choice(wrong), method="tools/list", params=envelope()),
        lambda: message(id=7, method=chance.choice(wrong), params=envelope()),
        lambda: message(id=7, method="tools/call", params=chance.choice(wrong)),
        lambda: message(id=7, method="tools/call", params=envelope(name=chance.choice(wrong), arguments={})),
        lambda: message(id=7, method="tools/call", params=envelope(name="get_job", arguments=chance.choice(wrong))),
        lambda: message(
            id=7,
            method="tools/call",
            params=envelope(name="estimate_cost", arguments={"duration": chance.choice(wrong)}),
        ),
        lambda: message(
            id=7, method="tools/call", params=envelope(name="list_jobs", arguments={"limit": chance.choice(wrong)})
        ),
        lambda: message(id=7, method="resources/read", params=envelope(uri=chance.choice(wrong))),
        lambda: message(id=7, method="resources/list", params=envelope(cursor=chance.choice(wrong))),
        lambda: message(id=7, method="completion/complete", params=envelope(ref=chance.choice(wrong))),
        lambda: message(id=7, method="prompts/get", params=envelope(name="storyboard", arguments=chance.choice(wrong))),
        lambda: message(id=7, method="tasks/get", params=envelope(taskId=chance.choice(wrong))),
        lambda: message(id=7, method="no/such/method", params=envelope()),
        lambda: message(method="no/such/notification", params=chance.choice(wrong)),
        lambda: message(method="notifications/cancelled", params=envelope(requestId=chance.choice(wrong))),
        lambda: message(method="notifications/progress", params=envelope(progressToken=chance.choice(wrong))),
        lambda: message(id=chance.randrange(1000), result=chance.choice(wrong)),
        lambda: message(id=chance.randrange(1000), error=chance.choice(wrong)),
        lambda: b'{"jsonrpc": "1.0", "id": 7, "method": "tools/list"}',
        lambda: b'{"id": 7, "method": "tools/list"}',
        lambda: b"[" * 20_000,
        lambda: b'{"a":' * 20_000,
    ]
    lines = [chance.choice(kinds)() for _ in range(999)]
    # One line of ten megabytes, where a picture might be.
    arguments = {"image": "data:image/png;base64," + "A" * 10_000_000, "prompt": "x"}
    big = message(id="big", method="tools/call", params=envelope(name="image_to_video", arguments=arguments))
    lines.insert(chance.randrange(len(lines)), big)
    yield from lines


@pytest.mark.parametrize("era", ERAS)
async def test_a_thousand_hostile_lines_leave_a_server_that_works(era: str, tmp_path: Path) -> None:
    """
    The process lives, answers, and has written nothing but JSON-RPC.
    """
    chance = random.Random(20261121)
    async with piped(tmp_path, KLING_MCP_BACKEND="simulator", KLING_MCP_LOG_LEVEL="ERROR") as pipe:
        if era == OLDER:
            await pipe.ask("initialize", greeting(), "hello")
            await pipe.send("notifications/initialized")
        else:
            await pipe.ask("server/discover", modern(), "hello")
            await pipe.ask("tools/list", modern(), "settled")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_write_all, pipe, hostile_lines(chance, era))
            await pipe.answer("big")
            await pipe.answer("all written")

        envelope = modern if era == NEWER else dict
        for number in range(CALLS_AT_ONCE):
            call = envelope(name="estimate_cost", arguments={"duration": 3 + number % 13})
            await pipe.send("tools/call", call, f"call {number}")
        # A storm of cancels, for calls that wait and for calls that nobody made.
        for number in range(100):
            call = envelope(name="get_job", arguments={"job_id": "kj_nobody", "wait_seconds": 45})
            await pipe.send("tools/call", call, f"cancelled {number}")
            await pipe.send("notifications/cancelled", {"requestId": f"cancelled {number}", "reason": "storm"})
            await pipe.send("notifications/cancelled", {"requestId": f"nobody {number}"})
        await pipe.send("tools/list", envelope(), "last")
        seen: set[str] = set()
        with anyio.fail_after(30):
            while not {"last", *(f"call {number}" for number in range(CALLS_AT_ONCE))} <= seen:
                seen.add(str((await pipe.receive()).get("id")))
        assert await pipe.end() == 0

    called = [message for message in pipe.heard if str(message.get("id")).startswith("call ")]
    answers = [message["id"] for message in called]
    assert all(message["result"]["structuredContent"]["models"] for message in called)
    assert len(answers) == len(set(answers)) == CALLS_AT_ONCE
    errors = [message["error"]["message"] for message in pipe.heard if "error" in message]
    assert not [text for text in errors if "Traceback" in text or "pydantic" in text.lower()]


async def _write_all(pipe: Pipe, lines: Iterator[bytes]) -> None:
    for line in lines:
        await pipe.write(line)
    await pipe.send(
        "ping" if pipe.heard[0]["result"].get("protocolVersion") else "server/discover", modern(), "all written"
    )


# ---- a log that nobody reads

_SCALED = """
import os, sys, time
from dataclasses import replace
import anyio
from kling_mcp import cli, logs
from kling_mcp.runtime import Runtime
from kling_mcp.server import app
from kling_mcp.settings import Settings

SCALE = float(os.environ["SCALE"])
began = time.time()

def now_ms():
    return int((began + (time.time() - began) * SCALE) * 1000)

async def sleep(seconds):
    print("stray text, printed", flush=True)
    sys.stderr.write("stray text, on standard error" * 20)
    await anyio.sleep(seconds / SCALE)

runtime = replace(Runtime(), now_ms=now_ms, sleep=sleep)
build = app.build
app.build = lambda settings: build(settings, runtime=runtime)
cli.run([])
"""
SCALE = 300
OUTAGE_SECONDS = 600


@pytest.mark.skipif(sys.platform == "win32", reason="the size of a pipe cannot be set, and there are no signals")
@pytest.mark.parametrize("end", ["end of file", "SIGTERM"])
async def test_a_host_that_never_reads_the_log_loses_nothing_through_an_outage(end: str, tmp_path: Path) -> None:
    """
    Standard error is full from the start: every write to it blocks for ever. fal is away for ten minutes of the
    server's clock, in which calls are answered; then all videos are saved, and the server leaves when it is told to.
    """
    import fcntl

    reading, writing = os.pipe()
    fcntl.fcntl(writing, getattr(fcntl, "F_SETPIPE_SZ", 1031), 4096)
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x")
    os.set_blocking(writing, True)

    async with house(tmp_path, "stdio", KLING_MCP_LOG_LEVEL="DEBUG", SCALE=str(SCALE)) as it:  # noqa: SIM117
        async with piped(tmp_path, [sys.executable, "-c", _SCALED], log=writing, **it.environment) as pipe:
            await pipe.ask("initialize", greeting())
            await pipe.send("notifications/initialized")
            it.simulator.faults.add("status", Answer(503), times=None)
            jobs: list[str] = []
            for take in (1, 2, 3):
                call = {"name": "image_to_video", "arguments": {**SHORT, "take": take, "wait_seconds": 0}}
                jobs.append(
                    (await pipe.ask("tools/call", call, f"job {take}"))["result"]["structuredContent"]["job_id"]
                )
            over = anyio.current_time() + OUTAGE_SECONDS / SCALE
            while anyio.current_time() < over:
                await pipe.write(b"{ not JSON")
                assert (await pipe.ask("tools/list", {}, "listed"))["result"]["tools"]
                look = {"name": "get_job", "arguments": {"job_id": jobs[0], "wait_seconds": 0}}
                assert not (await pipe.ask("tools/call", look, "looked"))["result"]["isError"]
            it.simulator.faults.clear()
            for job_id in jobs:
                saved = None
                while not saved:
                    look = {"name": "get_job", "arguments": {"job_id": job_id, "wait_seconds": 1}}
                    job = (await pipe.ask("tools/call", look, "waits"))["result"]["structuredContent"]
                    saved = job["state"] == "completed" and job["video"]["saved_to"]
                assert (await anyio.Path(saved).stat()).st_size == job["video"]["file_size"]
            if end == "SIGTERM":
                pipe.process.send_signal(signal.SIGTERM)
                with anyio.fail_after(10):
                    assert await pipe.process.wait() == 0
            else:
                assert await pipe.end() == 0
    os.close(writing)
    assert os.read(reading, 8192) == b"x" * 4096
    os.close(reading)


# ---- names that are not Unicode


@pytest.mark.skipif(sys.platform in {"win32", "darwin"}, reason="every file name is Unicode there")
async def test_a_whole_job_works_in_folders_whose_names_are_not_unicode(tmp_path: Path) -> None:
    """
    Every place that shows a path shows it, the next job starts from the saved video, and the commands print it.
    """
    home = tmp_path / os.fsdecode(b"caf\xe9")
    (home / "in").mkdir(parents=True)
    folders = {
        "KLING_MCP_DATA_DIR": str(home / "state"),
        "KLING_MCP_OUTPUT_DIR": str(home / "videos"),
        "KLING_MCP_INPUT_DIRS": f"{home / 'in'}{os.pathsep}{home / 'videos'}",
        "KLING_MCP_BACKEND": "simulator",
        "KLING_MCP_SIMULATOR_SPEED": "200",
        "KLING_MCP_POLL_SECONDS": "0.05",
    }
    async with piped(tmp_path, log=None, **folders) as pipe:

        async def call(tool: str, **arguments: Any) -> dict[str, Any]:
            return (await pipe.ask("tools/call", {"name": tool, "arguments": arguments}, tool))["result"]

        greeted = await pipe.ask("initialize", greeting())
        await pipe.send("notifications/initialized")
        outside = await call("image_to_video", image="/nowhere/fox.png", prompt="x")
        started = await call("image_to_video", image="https://pictures.example.com/fox.png", prompt="x", duration=3)
        job_id = started["structuredContent"]["job_id"]
        saved = None
        while not saved:
            job = (await call("get_job", job_id=job_id, wait_seconds=5))["structuredContent"]
            assert not job["warnings"]
            saved = job["state"] == "completed" and job["video"]["saved_to"]
        listed = await call("list_jobs")
        seen = await call("view_video", job_id=job_id)
        read = await pipe.ask("resources/read", {"uri": f"kling://jobs/{job_id}"}, "read")
        again = await call("image_to_video", image=f"kling://jobs/{job_id}/last-frame", prompt="on", duration=3)
        assert await pipe.end() == 0

    assert "instructions" in greeted["result"]
    assert outside["_meta"]["kling-mcp/error"]["code"] == "input_refused"
    assert saved.startswith(f"{tmp_path}/caf\\xe9/videos/")
    assert (home / "videos" / saved.rpartition("/")[2]).stat().st_size == job["video"]["file_size"]
    assert listed["structuredContent"]["jobs"]
    assert not seen["isError"]
    assert job_id in read["result"]["contents"][0]["text"]
    assert not again["isError"]
    for command in ("doctor", "jobs"):
        done = await anyio.run_process([*SERVER, command], env={**os.environ, **folders}, check=False)
        assert done.stderr == b""
        assert b"caf\\udce9" in done.stdout
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no terminal to open")
async def test_on_a_terminal_one_line_says_what_the_server_waits_for() -> None:
    """
    Somebody tried what the README tells a host to start.
    """
    import pty

    outer, inner = pty.openpty()
    process = await anyio.open_process(SERVER, stdin=inner, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr is not None
    with anyio.fail_after(30):
        said = await process.stderr.receive()
        os.close(inner)
        os.close(outer)
        assert await process.wait() == 0
    assert said.startswith(b"kling-mcp waits for an MCP client on standard input")
    assert said.count(b"\n") == 1
