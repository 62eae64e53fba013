"""
The key through a whole session at DEBUG level, with faults and errors: it is in none of what the server writes.

Looked for in standard output and error, in the ledger and every other file of
the session, whole, in halves, and in base64 at each of its three alignments.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import anyio
import pytest

from kling_mcp.simulator.faults import Answer, DropAfterAccept, Garbage, Redirect, Truncated, WrongHost, nginx
from tests.conftest import CANARY_KEY
from tests.jobs.processes.fork_server import ROOT, Process
from tests.jobs.processes.pipe_client import PipeClient
from tests.jobs.processes.scene import PICTURE, Home, call, instant_fal

if TYPE_CHECKING:
    from pathlib import Path

    from kling_mcp.simulator.faults import CallKind, Fault

pytestmark = pytest.mark.anyio

# What fal, or a proxy that says it is fal, might echo to the sender.
ECHO = {"detail": f"Invalid key: Key {CANARY_KEY}", "debug": {"headers": {"authorization": f"Key {CANARY_KEY}"}}}
FAULTS: list[tuple[CallKind, Fault]] = [
    ("submit", Answer(401, ECHO)),
    ("submit", Answer(422, {"detail": [{"loc": ["body", "prompt"], "msg": ECHO["detail"], "type": "x"}]})),
    ("submit", Answer(500, ECHO, {"x-echo": CANARY_KEY}, accepted=True)),
    ("submit", DropAfterAccept()),
    ("submit", Garbage(CANARY_KEY.encode())),
    ("submit", Truncated()),
    ("submit", WrongHost(f"https://{CANARY_KEY}.example")),
    ("submit", Redirect(f"https://evil.example/{CANARY_KEY}")),
    ("token", Answer(403, ECHO)),
    ("upload", Answer(400, ECHO)),
    ("status", Answer(401, ECHO)),
    ("status", nginx(502)),
    ("result", Answer(422, {"detail": CANARY_KEY, "error_type": CANARY_KEY})),
    ("result", Answer(200, {"video": {"url": f"https://v3.fal.media/{CANARY_KEY}.mp4"}, "note": CANARY_KEY})),
    ("download", Answer(403, ECHO)),
]


async def test_the_key_is_in_nothing_that_a_session_leaves(tmp_path: Path) -> None:
    said = await _session(tmp_path)

    secrets = _forms(CANARY_KEY)
    written = _files(tmp_path)
    assert len(said) >= len(FAULTS)
    assert {"ledger.sqlite3", "errors.txt"} <= {path.name for path in written}
    assert any(path.suffix == ".mp4" for path in written)
    assert any(path.suffix == ".json" for path in written)
    assert b'"level": "WARNING"' in (tmp_path / "errors.txt").read_bytes()
    for place, content in [*written.items(), *(("standard output", line) for line in said)]:
        assert [secret for secret in secrets if secret in content] == [], place


def _files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_looked_for_would_be_found() -> None:
    for text in (CANARY_KEY, f"a{CANARY_KEY}", f"ab{CANARY_KEY}", f'{{"k": "{CANARY_KEY}"}}'):
        encoded = base64.b64encode(text.encode())
        assert any(form in encoded for form in _forms(CANARY_KEY))


def _forms(key: str) -> list[bytes]:
    """The key and its halves as they are, and what any text with the key in it has in base64."""
    whole = [key, *key.split(":")]
    encoded: list[bytes] = []
    for shift in range(3):
        code = base64.b64encode(b"\0" * shift + key.encode())
        # The letters at both ends depend on the neighbours.
        encoded.append(code[4 if shift else 0 : -4])
    return [*(text.encode() for text in whole), *encoded]


async def _session(folder: Path) -> list[bytes]:
    """Use a server in every way that could bring the key to light; every line that it said."""
    errors = (folder / "errors.txt").open("wb")
    async with instant_fal() as (fal, urls):
        home = Home(folder, CANARY_KEY, urls)
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
        environment |= home.environment(KLING_MCP_LOG_LEVEL="DEBUG")
        stdin, to_server = os.pipe()
        from_server, stdout = os.pipe()
        command = [sys.executable, "-m", "kling_mcp"]
        with errors, _started(command, stdin=stdin, stdout=stdout, stderr=errors, env=environment, cwd=ROOT) as server:
            os.close(stdin)
            os.close(stdout)
            async with Process(lambda _: server.wait(5), server.pid, to_server, from_server) as process:
                host = PipeClient(process)
                with anyio.fail_after(100):
                    await host.hello()
                    for number, (kind, fault) in enumerate(FAULTS):
                        fal.faults.clear()
                        fal.faults.add(kind, fault)
                        picture = PICTURE if kind in {"token", "upload"} else "https://example.com/a.png"
                        arguments = {**call(f"video {number}"), "image": picture, "wait_seconds": 1}
                        await host.answer(host.tool("image_to_video", arguments))
                    await _look_everywhere(host)
                    process.close_input()
                    assert await process.gone() == 0
    return host.said


async def _look_everywhere(host: PipeClient) -> None:
    for name, arguments in (
        ("image_to_video", {"image": CANARY_KEY, "prompt": 7}),
        ("estimate_cost", {}),
        ("list_models", {}),
        ("list_jobs", {"limit": 50}),
        ("get_job", {"job_id": "kj_no"}),
    ):
        await host.answer(host.tool(name, arguments))
    for uri in ("kling://jobs", "kling://spend", "kling://models", "kling://nothing"):
        await host.answer(host.send("resources/read", {"uri": uri}))
    await host.answer(host.send("no/such/method", {}))


def _started(command: list[str], **options: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, **options)  # type: ignore[call-overload, no-any-return]
