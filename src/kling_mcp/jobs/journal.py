"""
Acceptance journal: keeps the ids of accepted requests when the ledger cannot be written.

Each process keeps a small file whose blocks are on disk before anything is
paid for. Writing into it needs no new space, so an id can be kept while the
ledger fails; recovery reads it into the ledger later.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from kling_mcp.jobs.job import Accepted
from kling_mcp.media import disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["AcceptanceJournal", "JournaledAcceptances", "journaled"]

_BLOCKS: Final = 64 * 1024


class AcceptanceJournal:
    """
    A file of *owner* in *folder*, reserved in full when it is made.

    Raises:
        OSError: There is no room for it, so nothing should be spent either.
    """

    def __init__(self, folder: Path, owner: str) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = folder / f"{owner}.spool"
        self._offset = 0
        self._descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR | getattr(os, "O_BINARY", 0), 0o600)
        try:
            self._write(0, b"\n" * _BLOCKS)
        except OSError:
            self.close()
            raise

    def keep(self, job_id: str, accepted: Accepted) -> None:
        """
        Write down that fal accepted *job_id*; it is on disk when this returns.

        Raises:
            OSError: The file cannot be written.
        """
        line = json.dumps({"job_id": job_id, "accepted": asdict(accepted)}).encode() + b"\n"
        self._write(self._offset, line)
        self._offset += len(line)

    def close(self) -> None:
        """Close the file, and remove it if nothing was kept."""
        os.close(self._descriptor)
        if self._offset == 0:
            self._path.unlink(missing_ok=True)

    def _write(self, offset: int, data: bytes) -> None:
        os.lseek(self._descriptor, offset, os.SEEK_SET)
        # A disk that is nearly full takes a part and reports no error.
        while data:
            data = data[os.write(self._descriptor, data) :]
        disk.sync(self._descriptor)


@dataclass(frozen=True, slots=True)
class JournaledAcceptances:
    """An acceptance that is not in the ledger yet, and the file to remove once it is."""

    owner: str
    path: Path
    entries: tuple[tuple[str, Accepted], ...]


def journaled(folder: Path, wanted: Callable[[str], bool] = lambda _: True) -> Iterator[JournaledAcceptances]:
    """
    What processes have left behind in *folder*.

    Args:
        wanted: Asked about each owner before its file is read, so that nothing is added after the read.
    """
    for path in sorted(folder.glob("*.spool")):
        if not wanted(path.stem):
            continue
        try:
            kept = path.read_bytes()
        except FileNotFoundError:
            continue  # another process has recorded it in the meantime
        entries: list[tuple[str, Accepted]] = []
        # The rest of the file is line ends, tens of thousands of them.
        for line in kept.rstrip(b"\n").splitlines():
            try:
                record = json.loads(line)
                entries.append((str(record["job_id"]), Accepted(**record["accepted"])))
            except (ValueError, KeyError, TypeError):
                continue  # a line that a power failure cut
        yield JournaledAcceptances(path.stem, path, tuple(entries))
