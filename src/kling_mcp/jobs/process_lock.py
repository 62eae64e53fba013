"""
Which server processes are alive, known from a kernel lock.

A process holds a lock on a file of its own for as long as it lives. A lock
says more than a process id or a heartbeat: it survives reuse of ids, sleep
and clock jumps, and the kernel releases it whatever kills the process.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kling_mcp.media import disk

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["ProcessLock", "ProcessRegistry", "exclusive"]


class ProcessRegistry(Protocol):
    """Who owns jobs, and who of them is still there."""

    @property
    def mine(self) -> str:
        """The name of this process."""
        ...

    def alive(self, owner: str) -> bool:
        """Whether the process of that name still runs."""
        ...

    def close(self) -> None:
        """Give the name up."""
        ...


class ProcessLock:
    """
    This process, named by a locked file in *folder*.

    Args:
        folder: Made if it is missing; holds one small file per running process.
        name: A name that nobody else has.
    """

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._name = name
        self._descriptor: int | None = os.open(folder / name, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            disk.lock(self._descriptor, blocking=True)
        except OSError:
            self.close()
            raise

    @property
    def mine(self) -> str:
        """The name of this process."""
        return self._name

    def alive(self, owner: str) -> bool:
        """Whether the process of that name still holds its lock."""
        if owner == self._name:
            return self._descriptor is not None
        path = self._folder / Path(owner).name
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return False
        except OSError:
            # It cannot be looked at: out of descriptors, say. A living owner must not be taken for dead.
            return True
        try:
            gone = disk.lock(descriptor)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        if gone:
            with contextlib.suppress(OSError):
                path.unlink()
        return not gone

    def close(self) -> None:
        """Give the name up."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                (self._folder / self._name).unlink()
            os.close(self._descriptor)
            self._descriptor = None


@contextlib.contextmanager
def exclusive(path: Path) -> Generator[None]:
    """Hold the lock file at *path*, waiting for the process that holds it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        disk.lock(descriptor, blocking=True)
        yield
    finally:
        os.close(descriptor)
