"""
A file that only this process sees: what is uploaded is what was checked, and it is gone when nothing needs it.

It has no name (on Windows, one that is removed with it), so it is gone after a kill as well. Reading it needs no
position of its own, so several threads can read at once.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
import threading
import weakref
from typing import TYPE_CHECKING, Final

from kling_mcp.errors import NotAvailable

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["FULL", "PrivateFile", "no_room"]

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""How a disk says that nothing more fits."""


def no_room() -> NotAvailable:
    """What is said where a copy does not fit on the disk."""
    return NotAvailable(
        f"There is no room for a copy of the file in {tempfile.gettempdir()}.",
        "Once there is room on that disk, the same call works; TMPDIR names another folder for such copies.",
    )


class PrivateFile:
    """
    The bytes of *pieces*, on the disk.

    It is closed and removed when it is collected, so whoever drops it on the way leaves nothing behind.

    Args:
        pieces: What it holds; written and forgotten one after the other.

    Raises:
        NotAvailable: The disk has no room for it.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        with tempfile.TemporaryFile(prefix="kling-mcp-", buffering=0) as file:
            self._descriptor = os.dup(file.fileno())
        self.close = weakref.finalize(self, os.close, self._descriptor)
        self._lock = threading.Lock()
        digest = hashlib.sha256()
        self.size = 0
        for piece in pieces:
            digest.update(piece)
            self.size += len(piece)
            self._write(piece)
        self.sha256 = digest.hexdigest()

    def _write(self, piece: bytes) -> None:
        view = memoryview(piece)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise no_room() from None

    def read(self, offset: int, count: int) -> bytes:
        """At most *count* bytes from *offset* on."""
        with self._lock:
            os.lseek(self._descriptor, offset, os.SEEK_SET)
            return os.read(self._descriptor, count)
