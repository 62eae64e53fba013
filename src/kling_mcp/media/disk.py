"""
What a folder can do: one place for file systems that lack locks, hard links, syncing or a count of free space.

SMB, exFAT, NFS without its lock service and many FUSE systems refuse one or the other, each with an errno of its own.
What they cannot do is a step down to something that they can; what goes wrong is still an `OSError`.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["CANNOT", "SYSTEM", "Calls", "free_bytes", "lock", "sync"]

CANNOT: Final = frozenset(
    {
        errno.ENOSYS,
        errno.ENOTSUP,
        errno.EOPNOTSUPP,
        errno.EINVAL,
        errno.ENOLCK,
        errno.EXDEV,
        errno.EMLINK,
        errno.EPERM,
        errno.ENOTTY,
        # ENOTSUP of macOS and of Linux, and EOPNOTSUPP of macOS: a server's number is not always translated.
        45,
        95,
        102,
    }
)
"""How a file system says that it has no such operation."""


if sys.platform == "win32":  # pragma: no cover - exercised on Windows only
    import msvcrt

    def _lock_file(descriptor: int, blocking: bool) -> None:
        while True:
            try:
                msvcrt.locking(descriptor, msvcrt.LK_LOCK if blocking else msvcrt.LK_NBLCK, 1)
            except OSError:
                # LK_LOCK gives up after ten seconds by itself.
                if not blocking:
                    raise BlockingIOError(errno.EAGAIN, "locked") from None
            else:
                return

    _LOCKS = (_lock_file,)
else:
    import fcntl

    def _flock(descriptor: int, blocking: bool) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX if blocking else fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _record_lock(descriptor: int, blocking: bool) -> None:
        fcntl.lockf(descriptor, fcntl.LOCK_EX if blocking else fcntl.LOCK_EX | fcntl.LOCK_NB)

    _LOCKS = (_flock, _record_lock)


@dataclass(frozen=True, slots=True)
class Calls:
    """
    The operations that not every file system has.

    Args:
        locks: The ways to lock an open file, best first; the second argument is whether to wait.
        sync: Puts an open file on the disk.
        link: `os.link`.
        rename: `os.rename`.
        free: The free bytes of a folder's file system.
    """

    locks: tuple[Callable[[int, bool], None], ...] = _LOCKS
    sync: Callable[[int], None] = os.fsync
    link: Callable[..., None] = os.link
    rename: Callable[..., None] = os.rename
    free: Callable[[Path], int] = field(default=lambda folder: shutil.disk_usage(folder).free)


SYSTEM: Final = Calls()


def lock(descriptor: int, *, blocking: bool = False, calls: Calls = SYSTEM) -> bool:
    """
    Keep other processes from an open file until it is closed; false when one has it already.

    Raises:
        OSError: There are no locks on this file system; its errno is one of `CANNOT`.
    """
    lacking: OSError | None = None
    for way in calls.locks:
        try:
            way(descriptor, blocking)
        except (BlockingIOError, PermissionError) as error:
            # POSIX lets a record lock that somebody has be told as either.
            if error.errno != errno.EPERM:
                return False
            lacking = error
        except OSError as error:
            if error.errno not in CANNOT:
                raise
            lacking = error
        else:
            return True
    raise lacking or OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def sync(descriptor: int, *, calls: Calls = SYSTEM) -> None:
    """
    Put an open file on the disk, as far as its file system can.

    Raises:
        OSError: It can, and failed.
    """
    try:
        calls.sync(descriptor)
    except OSError as error:
        if error.errno not in CANNOT:
            raise


def free_bytes(folder: Path, *, calls: Calls = SYSTEM) -> int | None:
    """The free space of *folder*; None where its file system does not say, or says 0, as some do that have plenty."""
    try:
        return calls.free(folder) or None
    except OSError:
        return None
