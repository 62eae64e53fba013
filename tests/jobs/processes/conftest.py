"""One warm process for all tests of a file, and a folder that costs no disk."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.jobs.processes.fork_server import ForkServer

if TYPE_CHECKING:
    from collections.abc import Generator

_MEMORY = Path("/dev/shm")


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Generator[ForkServer]:
    forks = ForkServer(tmp_path_factory.mktemp("forks"))
    try:
        yield forks
    finally:
        forks.close()


@pytest.fixture
def ram(tmp_path: Path) -> Generator[Path]:
    """
    A folder in memory where there is one.

    A kill takes nothing that the kernel has been given, so waiting for a disk proves nothing here.
    """
    if not os.access(_MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="kling-mcp-test-", dir=_MEMORY) as folder:
        yield Path(folder)
