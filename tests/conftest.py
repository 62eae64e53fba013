"""What every test stands on: nothing of this machine, nothing outside loopback."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

CANARY_KEY = "canary-5b0c1d2e:f00dfeed0123456789abcdef00c0ffee"
"""The fal key of every test; it must never turn up in anything that the program writes."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def nothing_from_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reads the developer's key or writes to their folders."""
    for name in [name for name in os.environ if name.startswith(("KLING_MCP_", "FAL_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KLING_MCP_DATA_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("KLING_MCP_OUTPUT_DIR", str(tmp_path / "videos"))


_WRITTEN = {"", ".backup", ".id", ".json", ".jsonl", ".log", ".part", ".spool", ".sqlite3", ".sqlite3-journal", ".txt"}


@pytest.fixture(autouse=True)
def the_key_stays_where_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Generator[None]:
    """Whatever a test does, the program leaves its key neither in a file nor in a log."""
    yield

    secrets = [CANARY_KEY, CANARY_KEY.split(":")[1]]
    assert not [secret for secret in secrets if secret in caplog.text]
    for path in tmp_path.rglob("*"):
        if path.suffix in _WRITTEN and path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            assert not [secret for secret in secrets if secret.encode() in content], path


LONG = (
    "tests/hosts/",
    "tests/jobs/processes/",
    "tests/jobs/test_histories.py",
    "tests/media/test_media_swapper.py",
    "tests/packaging/",
    "tests/server/test_conformance.py",
    "tests/server/test_inspector.py",
    "tests/server/test_call_budget.py",
    "tests/test_benchmarks.py",
    "tests/test_demo.py",
    "tests/ui/test_job_page.py",
)
"""Proofs that take longer than all the rest together: killed processes, other programs, Chromium, waits."""


def pytest_configure(config: pytest.Config) -> None:
    """`pytest` alone is over in three minutes; a path or `-m long` asks for the rest."""
    if config.args_source is pytest.Config.ArgsSource.TESTPATHS and not config.option.markexpr:
        config.option.markexpr = "not long"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith(LONG):
            item.add_marker("long")


def pytest_xdist_auto_num_workers() -> int:
    """Two for each processor: most tests wait for loopback or for a child process."""
    return 2 * (os.cpu_count() or 1)
