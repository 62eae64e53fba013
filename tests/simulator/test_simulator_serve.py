"""Serving: in this loop, in a thread, and as a program of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest

from kling_mcp.settings import Folders, Settings
from kling_mcp.simulator.app import Simulator
from kling_mcp.simulator.serve import bind, running_in_thread, serving, urls_of

from .calls import BODY, ENDPOINT

if TYPE_CHECKING:
    from pathlib import Path

KEY = {"Authorization": "Key any:key"}


@pytest.mark.anyio
async def test_the_port_is_known_before_the_server_exists() -> None:
    listener = bind()
    promised = urls_of(listener)

    async with serving(Simulator(), listener=listener) as urls, httpx.AsyncClient(headers=KEY) as http:
        response = await http.get(f"{promised.api}/meta")

    assert urls == promised
    assert response.status_code == 200


@pytest.mark.anyio
async def test_serving_leaves_signals_alone_and_frees_its_port() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    async with serving(Simulator()) as urls:
        during = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    assert during == before
    async with httpx.AsyncClient() as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(f"{urls.api}/meta")
    async with serving(Simulator(), int(urls.media_host.partition(":")[2])) as again:
        assert again == urls


@pytest.mark.anyio
async def test_a_cancelled_block_still_closes_the_server() -> None:
    with anyio.CancelScope() as scope:
        async with serving(Simulator()) as urls:
            scope.cancel()
            await anyio.sleep_forever()

    async with httpx.AsyncClient() as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(f"{urls.api}/meta")


@pytest.mark.anyio
async def test_a_taken_port_is_an_error_at_once() -> None:
    with bind() as listener, pytest.raises(OSError, match="in use"):
        bind(listener.getsockname()[1])


def test_code_without_an_event_loop_serves_from_a_thread() -> None:
    simulator = Simulator(key="any:key")

    with running_in_thread(simulator) as urls:
        response = httpx.post(f"{urls.queue}/{ENDPOINT}", json=BODY, headers=KEY)
        assert [one.request_id for one in simulator.accepted] == [response.json()["request_id"]]

    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{urls.api}/meta")


def test_the_settings_accept_the_urls_that_point_here(tmp_path: Path) -> None:
    with bind() as listener:
        urls = urls_of(listener)

        settings = Settings.from_environment(urls.environment(), lambda: Folders(*[tmp_path] * 5))

    assert (settings.hosts.queue, settings.hosts.rest, settings.hosts.api) == (urls.queue, urls.rest, urls.api)
    assert urls.media_host in settings.media_hosts


def test_a_program_of_its_own_writes_the_truth_to_disk_before_it_answers(tmp_path: Path) -> None:
    state = tmp_path / "accepted.jsonl"
    command = [sys.executable, "-m", "kling_mcp.simulator", "--speed", "50", "--key", "any:key", "--sample-video"]
    command += ["--state-file", str(state), "--fault", "submit=drop-after-accept*2", "--fault", "status=503"]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert program.stdout is not None
        urls = json.loads(program.stdout.readline())
        tagged = {**KEY, "X-Fal-Tags": "kling_intent=kj_1"}
        url = f"{urls['queue']}/{ENDPOINT}"

        for _ in range(2):
            with pytest.raises(httpx.ReadError):
                httpx.post(url, json=BODY, headers=tagged)
        answer = httpx.post(url, json=BODY, headers=tagged).json()
        status = httpx.get(answer["status_url"], headers=KEY)
    finally:
        os.kill(program.pid, signal.SIGKILL)
        program.wait(10)
        if program.stdout is not None:
            program.stdout.close()

    lines = [json.loads(line) for line in state.read_text(encoding="utf-8").splitlines()]
    assert [line["tags"] for line in lines] == [{"kling_intent": "kj_1"}] * 3
    assert lines[2]["request_id"] == answer["request_id"]
    assert (lines[2]["endpoint_id"], lines[2]["body"]) == (ENDPOINT, BODY)
    assert status.status_code == 503
    assert urls["environment"]["KLING_MCP_QUEUE_URL"] == urls["queue"]


@pytest.mark.parametrize("fault", ["submit", "submit=nonsense", "submit=hang*x"])
def test_the_program_refuses_a_fault_it_does_not_know(fault: str) -> None:
    command = [sys.executable, "-m", "kling_mcp.simulator", "--fault", fault]

    refused = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    assert refused.returncode == 2
    assert "fault" in refused.stderr


def test_importing_the_package_loads_no_web_server() -> None:
    code = "import sys, kling_mcp.simulator, kling_mcp.simulator.serve; print([n for n in sys.modules if n in %r])"
    heavy = ("uvicorn", "starlette", "av", "PIL", "jsonschema", "httpx")

    seen = subprocess.run([sys.executable, "-c", code % (heavy,)], capture_output=True, text=True, check=True)

    assert seen.stdout.strip() == "[]"
