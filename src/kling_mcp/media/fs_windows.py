"""
Files by handle on Windows, where no open is relative to a folder and none refuses links.

So the file is opened first and judged afterwards: the final path of the handle has to be the path that was asked for,
which it is not when any component was a link, a junction or a short name at the moment of opening. The names are those
of ``fs_posix.py``. The tests of this repository run on POSIX and do not exercise this module.
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
    from collections.abc import Sequence
    from pathlib import Path

_MAX_COLLISIONS: Final = 1000
# Beyond any video: a lock on Windows keeps others from reading what it covers.
_LOCK_AT: Final = 1 << 40


class NameTaken(OSError):
    """Something that this program did not put there is in the way."""


if sys.platform == "win32":  # pragma: no cover - needs Windows
    import msvcrt

    __all__ = ["FolderHandle", "NameTaken", "list_inside", "open_inside", "owned_by_us"]

    def open_inside(folder: Path, names: Sequence[str]) -> int:
        """Open the file *names* below *folder* for reading; the caller closes the descriptor."""
        return _open_exactly(folder.joinpath(*names), os.O_RDONLY)

    def list_inside(folder: Path, names: Sequence[str]) -> list[str]:
        """The names in the folder *names* below *folder*."""
        return [entry.name for entry in folder.joinpath(*names).iterdir()]

    def owned_by_us(status: os.stat_result) -> bool:
        """Whether the file is ours: Windows' access lists decide, and the open has succeeded."""
        return status.st_uid == 0

    class FolderHandle:
        """A folder that files are written to, made if it is missing; every open file is checked to lie in it."""

        def __init__(self, folder: Path) -> None:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder = folder

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            """Nothing is held."""

        def create(self, name: str) -> int:
            """Make the new file *name*."""
            return _open_exactly(self._folder / name, os.O_RDWR | os.O_CREAT | os.O_EXCL)

        def reopen(self, name: str) -> int | None:
            """Open the earlier file *name* for reading and writing; None when it does not exist."""
            try:
                descriptor = _open_exactly(self._folder / name, os.O_RDWR)
            except FileNotFoundError:
                return None
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return descriptor
            os.close(descriptor)
            raise NameTaken(errno.EEXIST, "something else than a file has the name")

        def lock(self, descriptor: int) -> bool | None:
            """Keep other processes from this file until it is closed; false when one has it already."""
            os.lseek(descriptor, _LOCK_AT, os.SEEK_SET)
            try:
                return disk.lock(descriptor)
            finally:
                os.lseek(descriptor, 0, os.SEEK_SET)

        def is_still(self, name: str, descriptor: int) -> bool:
            """Whether *name* still means the file that is open."""
            try:
                return os.path.samestat((self._folder / name).lstat(), os.fstat(descriptor))
            except FileNotFoundError:
                return False

        def published(self, name: str, descriptor: int) -> str | None:
            """The final name of the open file: none, because a rename on Windows leaves no second name behind."""
            return None

        def remove(self, name: str) -> None:
            """Remove *name* if it is there."""
            with contextlib.suppress(FileNotFoundError):
                (self._folder / name).unlink()

        def publish(self, part: str, descriptor: int, name: str) -> str:
            """Give the finished file its name in one step, never over another file, and close it."""
            try:
                disk.sync(descriptor)
            finally:
                # An open file cannot be renamed on Windows.
                os.close(descriptor)
            stem, dot, ending = name.rpartition(".")
            for candidate in (name, *(f"{stem} ({number}){dot}{ending}" for number in range(2, _MAX_COLLISIONS + 1))):
                with contextlib.suppress(FileExistsError):
                    (self._folder / part).rename(self._folder / candidate)
                    return candidate
            raise NameTaken(errno.EEXIST, "a thousand names like it are taken")

    def _open_exactly(path: Path, flags: int) -> int:
        descriptor = os.open(path, flags | os.O_BINARY | os.O_NOINHERIT, 0o600)
        if _final_path(descriptor).casefold() == str(path).casefold():
            return descriptor
        os.close(descriptor)
        raise NameTaken(errno.ELOOP, "is or passes through a link")

    def _final_path(descriptor: int) -> str:
        buffer = ctypes.create_unicode_buffer(32768)
        call = ctypes.windll.kernel32.GetFinalPathNameByHandleW
        call.argtypes = (ctypes.c_void_p, ctypes.c_wchar_p, ctypes.c_uint32, ctypes.c_uint32)
        if not call(msvcrt.get_osfhandle(descriptor), buffer, len(buffer), 0):
            raise OSError(errno.EACCES, "the final path of the file cannot be asked for")
        return buffer.value.removeprefix("\\\\?\\")
