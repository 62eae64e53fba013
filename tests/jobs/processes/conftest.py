"""One warm process for all tests of a file, and a folder that costs no disk."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.jobs.processes.nursery import Nursery

if TYPE_CHECKING:
    from collections.abc import Generator

_MEMORY = Path("/dev/shm")


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Generator[Nursery]:
    nursery = Nursery(tmp_path_factory.mktemp("nursery"))
    try:
        yield nursery
    finally:
        nursery.close()


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
