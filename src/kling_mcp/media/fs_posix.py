"""
Files by handle: every name is opened relative to a directory that is already open, and no link is followed.

Between a check of a path and its use, any component can be exchanged. A descriptor cannot: what was judged is what is
read or written. ``allowed_paths.py`` and ``downloads.py`` use these; ``fs_windows.py`` has the same names.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import sys
from typing import TYPE_CHECKING, Final, Self

from kling_mcp.media import disk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

__all__ = ["FolderHandle", "NameTaken", "list_inside", "open_inside", "owned_by_us"]

# O_PATH where there is one: walking through a folder needs leave to search it, not to list it.
_FOLDER: Final = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_STEP: Final = _FOLDER | getattr(os, "O_PATH", 0)
# Not blocking, so that a pipe put in the file's place is refused instead of waited for.
_FILE: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NO_HARD_LINKS: Final = disk.CANNOT | {errno.EACCES}
_RENAME_NOREPLACE: Final = 1
_MAX_COLLISIONS: Final = 1000


class NameTaken(OSError):
    """Something that this program did not put there is in the way."""


def open_inside(folder: Path, names: Sequence[str]) -> int:
    """
    Open the file *names* below *folder* for reading; the caller closes the descriptor.

    Raises:
        OSError: A component is missing, is a link, or may not be opened.
    """
    last = _descend(folder, names[:-1])
    try:
        return os.open(names[-1], os.O_RDONLY | _FILE, dir_fd=last)
    finally:
        os.close(last)


def list_inside(folder: Path, names: Sequence[str]) -> list[str]:
    """
    The names in the folder *names* below *folder*.

    Raises:
        OSError: A component is missing, is a link, or may not be listed.
    """
    step = _descend(folder, names)
    try:
        listed = os.open(".", os.O_RDONLY | _FOLDER, dir_fd=step)
    finally:
        os.close(step)
    try:
        return os.listdir(listed)  # noqa: PTH208 - of a handle
    finally:
        os.close(listed)


def owned_by_us(status: os.stat_result) -> bool:
    """Whether the file belongs to the user that this process runs as."""
    return status.st_uid == os.geteuid()


class FolderHandle:
    """
    An open folder that files are written to, made if it is missing.

    Whatever happens to the folder's name meanwhile, files land in the folder that was opened.

    Args:
        folder: The folder's real path; no component of it may be a link.
        publishers: How a finished file gets its name, best first (the tests name one).
        calls: What the file system may lack.

    Raises:
        OSError: The folder cannot be made or opened, or is or passes through a link.
    """

    def __init__(
        self, folder: Path, publishers: Sequence[Publisher] | None = None, calls: disk.Calls = disk.SYSTEM
    ) -> None:
        step = _descend(folder, (), create=True)
        try:
            # A step may be open for walking only, and such a handle cannot be synced.
            self._folder = os.open(".", os.O_RDONLY | _FOLDER, dir_fd=step)
        finally:
            os.close(step)
        self._publishers = PUBLISHERS if publishers is None else publishers
        self._calls = calls

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._folder)

    def create(self, name: str) -> int:
        """
        Make the new file *name*, readable and writable by this user only.

        Raises:
            FileExistsError: The name is in use, also when it is a link that leads nowhere.
        """
        return os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FILE, 0o600, dir_fd=self._folder)

    def reopen(self, name: str) -> int | None:
        """
        Open the earlier file *name* for reading and writing; None when it does not exist.

        Raises:
            NameTaken: It is a link, not a regular file, or another user's.
        """
        try:
            descriptor = os.open(name, os.O_RDWR | _FILE, dir_fd=self._folder)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.EISDIR, errno.ENXIO}:
                raise NameTaken(errno.EEXIST, "a link or something else than a file has the name") from None
            raise
        status = os.fstat(descriptor)
        # Where every file is shown as the same user's (SMB, exFAT, a container's volume), ours are as well.
        ours = owned_by_us(status) or status.st_uid == os.fstat(self._folder).st_uid
        if stat.S_ISREG(status.st_mode) and ours:
            return descriptor
        os.close(descriptor)
        raise NameTaken(errno.EEXIST, "something else than a file of this user has the name")

    def lock(self, descriptor: int) -> bool | None:
        """Keep others from this file until it is closed; false when one has it, None where there are no locks."""
        try:
            return disk.lock(descriptor, calls=self._calls)
        except OSError as error:
            if error.errno not in disk.CANNOT:
                raise
            return None

    def is_still(self, name: str, descriptor: int) -> bool:
        """Whether *name* still means the file that is open."""
        try:
            named = os.stat(name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(named, os.fstat(descriptor))

    def published(self, name: str, descriptor: int) -> str | None:
        """The final name like *name* that means the file that is open; None when it has none yet."""
        for candidate in _candidates(name):
            if self.is_still(candidate, descriptor):
                return candidate
            # Names are tried in this order, so the file has no name after the first free one.
            if not self._exists(candidate):
                break
        return None

    def remove(self, name: str) -> None:
        """Remove *name* if it is there; a link is removed itself."""
        try:
            os.unlink(name, dir_fd=self._folder)
        except FileNotFoundError:
            return

    def publish(self, part: str, descriptor: int, name: str) -> str:
        """
        Give the finished file its name in one step, never over another file, and close it.

        Args:
            part: The name it has so far.
            descriptor: The file, open.
            name: The wanted name; when that is taken, `` (2)`` and so on is put before the ending.

        Returns:
            The name it got.

        Raises:
            NameTaken: Another file has come under the name *part*, or a thousand names are taken.
        """
        try:
            disk.sync(descriptor, calls=self._calls)
            for candidate in _candidates(name):
                try:
                    self._place(part, candidate)
                except FileExistsError:
                    continue
                if not self.is_still(candidate, descriptor):
                    self.remove(candidate)
                    raise NameTaken(errno.EEXIST, "another file was put in the place of the unfinished one")
                self._sync()
                return candidate
        finally:
            os.close(descriptor)
        raise NameTaken(errno.EEXIST, "a thousand names like it are taken")

    def _exists(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def _sync(self) -> None:
        # The file has its name by now; a file system that cannot sync a folder does not take that back.
        with contextlib.suppress(OSError):
            os.fsync(self._folder)

    def _place(self, part: str, name: str) -> None:
        for publisher in self._publishers:
            if publisher(self._folder, part, name, self._calls):
                return
        raise NameTaken(errno.EOPNOTSUPP, "the file system can neither link nor rename without overwriting")


def _descend(folder: Path, names: Sequence[str], *, create: bool = False) -> int:
    """Walk from the root of the file system to *names* below *folder*, one open folder at a time."""
    here = os.open("/", _STEP)
    for name in (*folder.parts[1:], *names):
        try:
            try:
                step = os.open(name, _STEP, dir_fd=here)
            except FileNotFoundError:
                if not create:
                    raise
                os.mkdir(name, 0o700, dir_fd=here)
                step = os.open(name, _STEP, dir_fd=here)
        finally:
            os.close(here)
        here = step
    return here


def _candidates(name: str) -> list[str]:
    stem, dot, ending = name.rpartition(".")
    return [name, *(f"{stem} ({number}){dot}{ending}" for number in range(2, _MAX_COLLISIONS + 1))]


def by_link(folder: int, part: str, name: str, calls: disk.Calls = disk.SYSTEM) -> bool:
    """A second name, which fails when it is taken, and then the first one goes. False without hard links."""
    try:
        calls.link(part, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno in _NO_HARD_LINKS:
            return False
        raise
    with contextlib.suppress(OSError):  # it has its name; that it has two is told from a whole video by the next claim
        os.unlink(part, dir_fd=folder)
    return True


def by_exclusive_rename(folder: int, part: str, name: str, calls: disk.Calls = disk.SYSTEM) -> bool:
    """Linux's rename that does not replace, for exFAT and network folders. False where the system has no such call."""
    if not sys.platform.startswith("linux"):  # pragma: no cover - needs another system
        return False
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:  # pragma: no cover - needs a C library from before 2018
        return False
    if call(folder, os.fsencode(part), folder, os.fsencode(name), _RENAME_NOREPLACE) == 0:
        return True
    number = ctypes.get_errno()
    if number in disk.CANNOT:
        return False
    raise OSError(number, os.strerror(number), name)


def by_reservation(folder: int, part: str, name: str, calls: disk.Calls = disk.SYSTEM) -> bool:
    """Take the name with an empty file of our own, then rename over that: for exFAT on macOS."""
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE, 0o600, dir_fd=folder))
    try:
        calls.rename(part, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError as error:
        os.unlink(name, dir_fd=folder)
        if error.errno in _NO_HARD_LINKS:
            return False
        raise
    return True


if TYPE_CHECKING:
    Publisher = Callable[[int, str, str, disk.Calls], bool]

PUBLISHERS: Final[Sequence[Publisher]] = (by_link, by_exclusive_rename, by_reservation)
"""The ways in which a file gets its final name, best first."""
