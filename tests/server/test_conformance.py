"""
The official conformance suites, against our server class with the fixtures that they name.

They are Node programs that speak HTTP. `npm install` in `tests/node` brings
them, and the Node 22 that they need; without that these tests are skipped.
"""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

HERE = Path(__file__).parent
NODE_MODULES = HERE.parent / "node" / "node_modules"
NODE = NODE_MODULES / "node" / "bin" / "node"
NEWEST = NODE_MODULES / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
ACTIVE = NODE_MODULES / "conformance-active" / "dist" / "index.js"
EXPECTED = HERE / "conformance-expected.yml"
LOGGING = {"logging-set-level", "tools-call-with-logging"}

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(not NODE.exists() or not NEWEST.exists(), reason="npm install in tests/node brings the suites"),
]


@contextmanager
def fixture_server(folder: Path) -> Generator[str]:
    """Our server with the fixtures, in a process of its own; its URL."""
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-m", "tests.server.fixture_server", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=HERE.parents[1],
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            # The suites check that the host is local by its name.
            yield process.stdout.readline().strip().replace("127.0.0.1", "localhost")
        finally:
            process.stdin.close()
            process.wait(10)


def run(suite: Path, folder: Path, *arguments: str) -> dict[str, tuple[int, int]]:
    """Every scenario with what passed and what failed in it."""
    with fixture_server(folder) as url:
        command = [str(NODE), str(suite), "server", "--url", url, "--expected-failures", str(EXPECTED), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder, check=False)
    found = re.findall(r"^[✓✗] (\S+): (\d+) passed, (\d+) failed", done.stdout, re.MULTILINE)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    return {name: (int(passed), int(failed)) for name, passed, failed in found}


@pytest.mark.parametrize(
    ("suite", "arguments", "scenarios", "checks"),
    [
        pytest.param(ACTIVE, ["--suite", "active"], 30, 38, id="0.1.16 active"),
        pytest.param(NEWEST, ["--requirements", "2025-11-25"], 33, 82, id="alpha 2025-11-25"),
    ],
)
def test_the_suites_of_the_older_era_miss_nothing_but_logging(
    suite: Path, arguments: list[str], scenarios: int, checks: int, tmp_path: Path
) -> None:
    """
    Counted as well: a suite that skips what it cannot find passes, too.
    """
    found = run(suite, tmp_path, *arguments)

    assert {name for name, (_, failed) in found.items() if failed} == LOGGING
    assert len(found) >= scenarios
    assert sum(passed for passed, _ in found.values()) >= checks


def test_the_suite_of_the_newer_era_passes_with_every_task_scenario(tmp_path: Path) -> None:
    """
    The extension's scenarios run with the others but do not score, so they are counted here.
    """
    found = run(NEWEST, tmp_path, "--requirements", "2026-07-28")

    assert {name for name, (_, failed) in found.items() if failed} == set()
    assert len(found) >= 50
    assert sum(passed for passed, _ in found.values()) >= 196
    tasks = {name: passed for name, (passed, _) in found.items() if name.startswith("tasks-")}
    # The suite itself leaves out the notifications, until it listens where they are sent now.
    assert tasks.pop("tasks-status-notifications") == 0
    assert tasks == {
        "tasks-lifecycle": 9,
        "tasks-capability-negotiation": 5,
        "tasks-wire-fields": 4,
        "tasks-request-state-removal": 3,
        "tasks-mrtr-input": 4,
        "tasks-request-headers": 5,
        "tasks-dispatch-and-envelope": 9,
        "tasks-required-task-error": 3,
        "tasks-mrtr-composition": 2,
    }
