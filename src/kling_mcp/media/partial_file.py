"""
The unfinished file of a download: one owner at a time, and nothing under a final name before it is whole.

The bytes are in ``<name>.part`` and what is needed to go on after a kill is in ``<name>.part.json``. The notes name the
part's inode: a file that merely has the name is somebody else's, and is neither overwritten nor continued.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from kling_mcp.media.allowed_paths import FolderHandle, system

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path
    from typing import BinaryIO

__all__ = ["DownloadError", "Reason", "UnfinishedFile", "disk_errors", "write_new"]

_MAX_PARTS: Final = 9
_MAX_NOTES_BYTES: Final = 4096
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Reason(StrEnum):
    """Why a video could not be saved."""

    EXPIRED = "expired"
    REFUSED_HOST = "refused_host"
    DISK_FULL = "disk_full"
    NO_PERMISSION = "no_permission"
    DAMAGED = "damaged"
    INTERRUPTED = "interrupted"
    BUSY = "busy"


_NEXT_STEPS: Final = {
    Reason.EXPIRED: "The video was made; get_job tries the link again.",
    Reason.REFUSED_HOST: (
        "The video itself was made; open its URL in a browser, or allow its host with KLING_MCP_MEDIA_HOSTS."
    ),
    Reason.DISK_FULL: "Once there is room, get_job saves it.",
    Reason.NO_PERMISSION: "Once KLING_MCP_OUTPUT_DIR names a folder that can be written to, get_job saves it.",
    Reason.DAMAGED: "get_job fetches it from the beginning.",
    Reason.INTERRUPTED: "get_job continues where it stopped.",
    Reason.BUSY: "get_job shows where it is saved when that has finished.",
}


class DownloadError(Exception):
    """
    The video was made and paid for, but is not in the output folder.

    No refusal: the job stays completed, and the text is a warning on it.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"The video was not saved: {detail}. {_NEXT_STEPS[reason]}")
        self.reason = reason


@contextlib.contextmanager
def disk_errors() -> Generator[None]:
    """
    Tell what the disk refuses in the terms of a download.

    Raises:
        DownloadError: For every `OSError` inside.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DownloadError(Reason.DISK_FULL, "the disk is full") from None
        if isinstance(error, system.NameTaken):
            detail = str(error.args[1])
        else:
            detail = f"the output folder cannot be written to ({os.strerror(error.errno or errno.EIO)})"
        raise DownloadError(Reason.NO_PERMISSION, detail) from None


@dataclass(frozen=True, slots=True)
class _Notes:
    """What is known of the bytes in a part."""

    file: int
    etag: str | None
    total: int | None
    kling_mcp_part: int = 1

    @classmethod
    def read(cls, text: bytes) -> _Notes | None:
        """None when *text* is something else."""
        try:
            match json.loads(text):
                case {
                    "kling_mcp_part": 1,
                    "file": int(file),
                    "etag": str() | None as etag,
                    "total": int() | None as total,
                }:
                    return cls(file, etag, total)
                case _:
                    return None
        except ValueError:
            return None


class UnfinishedFile:
    """A part that this process alone writes to; close it in any case."""

    def __init__(self, folder: FolderHandle, part: str, descriptor: int, notes: _Notes | None) -> None:
        self._folder = folder
        self._part = part
        self._descriptor: int | None = descriptor
        self._file = os.fstat(descriptor).st_ino
        self._notes = notes
        self.published: str | None = None
        """The final name that an earlier process gave it just before it was killed."""

    @classmethod
    def claim(
        cls, folder: Path, name: str, *, open_folder: Callable[[Path], FolderHandle] = FolderHandle
    ) -> UnfinishedFile:
        """
        The part of the video *name* in *folder*, made or continued.

        Raises:
            DownloadError: Another process is saving this video, or the folder cannot be written to.
        """
        with disk_errors(), contextlib.ExitStack() as stack:
            handle = stack.enter_context(open_folder(folder))
            for number in range(1, _MAX_PARTS + 1):
                part = f"{name}.part" if number == 1 else f"{name}.{number}.part"
                with contextlib.suppress(system.NameTaken):
                    claimed = _claim(cls, handle, part, name)
                    stack.pop_all()
                    return claimed
            raise system.NameTaken(errno.EEXIST, f"other files are in the way of {name}.part")

    @property
    def size(self) -> int:
        """Bytes so far."""
        return os.fstat(self._open).st_size

    @property
    def total(self) -> int | None:
        """Bytes that the whole file has, as far as the server said."""
        return self._notes.total if self._notes else None

    @property
    def etag(self) -> str | None:
        """The strong validator of the bytes so far; None when they cannot be continued."""
        return self._notes.etag if self._notes else None

    def restart(self, etag: str | None, total: int | None) -> None:
        """Drop the bytes so far; what comes now belongs to *etag*."""
        with disk_errors():
            # In this order: a kill in between leaves an empty part, which is safe under any notes.
            os.ftruncate(self._open, 0)
            self._notes = _Notes(self._file, etag, total)
            _write_notes(self._folder, f"{self._part}.json", self._notes)

    def append(self, data: bytes) -> None:
        """Write *data* at the end."""
        with disk_errors():
            os.lseek(self._open, 0, os.SEEK_END)
            view = memoryview(data)
            while view:
                view = view[os.write(self._open, view) :]

    def rewritten(self) -> BinaryIO:
        """The part, emptied, for what writes here and there; to be closed before it is published."""
        self.restart(None, None)
        with disk_errors():
            return os.fdopen(os.dup(self._open), "r+b")

    def is_whole_mp4(self) -> bool | None:
        """
        Whether every box is complete (ISO/IEC 14496-12, 4.2) and the index is among them; None if this is no MP4.

        So a download without a length that was cut is told from a whole one. What follows the last box is no harm.
        """
        with disk_errors():
            at, end, kinds = 0, self.size, list[bytes]()
            while at + 8 <= end:
                os.lseek(self._open, at, os.SEEK_SET)
                head = os.read(self._open, 16)
                size = int.from_bytes(head[:4])
                size = int.from_bytes(head[8:16]) if size == 1 else size or end - at
                if size < 8:
                    break
                kinds.append(head[4:8])
                at += size
        return at <= end and b"moov" in kinds if kinds[:1] == [b"ftyp"] else None

    def publish(self, name: str) -> str:
        """
        Give the file its final name, which is returned: *name*, or with `` (2)`` when that is taken.

        Raises:
            DownloadError: The disk refuses.
        """
        descriptor, self._descriptor = self._open, None
        with disk_errors():
            final = self._folder.publish(self._part, descriptor, name)
            self._folder.remove(f"{self._part}.json")
        return final

    def discard(self) -> None:
        """Remove the part; the next attempt starts over."""
        with disk_errors():
            self._folder.remove(self._part)
            self._folder.remove(f"{self._part}.json")

    def close(self) -> None:
        """Close the file; a part stays for the next attempt."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._folder.__exit__(None, None, None)

    @property
    def _open(self) -> int:
        assert self._descriptor is not None, "the file has been published"  # noqa: S101 - a defect of the caller
        return self._descriptor


def write_new(target: Path, write: Callable[[BinaryIO], object]) -> Path:
    """
    Make the file *target* with *write*; it has its name only once it is whole.

    Returns:
        The file: *target*, or with `` (2)`` where that is taken.

    Raises:
        DownloadError: The disk refuses, or another process is writing the same file.
    """
    unfinished = UnfinishedFile.claim(target.parent, target.name)
    if unfinished.published is not None:
        # A killed process had just published its file. That one is kept, and this is another.
        unfinished.close()
        unfinished = UnfinishedFile.claim(target.parent, target.name)
    try:
        with unfinished.rewritten() as file:
            write(file)
        return target.parent / unfinished.publish(target.name)
    except BaseException:
        unfinished.discard()
        raise
    finally:
        unfinished.close()


def _claim(kind: type[UnfinishedFile], folder: FolderHandle, part: str, name: str) -> UnfinishedFile:
    descriptor = _open_locked(folder, part)
    try:
        status = os.fstat(descriptor)
        if status.st_nlink != 1:
            # Killed between the two halves of a publication, or a hard link that leads out of the folder.
            final = folder.published(name, descriptor)
            if final is None:
                raise system.NameTaken(errno.EEXIST, "the part is a hard link")
            folder.remove(part)
            folder.remove(f"{part}.json")
            claimed = kind(folder, part, descriptor, None)
            claimed.published = final
            return claimed
        notes = _read_notes(folder, f"{part}.json")
        ours = notes is not None and notes.file == status.st_ino
        if status.st_size and not ours:
            raise system.NameTaken(errno.EEXIST, "a file of somebody else has the name")
        return kind(folder, part, descriptor, notes if ours else None)
    except BaseException:
        os.close(descriptor)
        raise


def _open_locked(folder: FolderHandle, part: str) -> int:
    """The part, which no other process has; a process that has just published it is waited out by trying again."""
    while True:
        descriptor = folder.reopen(part)
        if descriptor is None:
            try:
                descriptor = folder.create(part)
            except FileExistsError:
                continue
        if folder.lock(descriptor) is False:
            os.close(descriptor)
            raise DownloadError(Reason.BUSY, "another process is saving it at this moment")
        if folder.is_still(part, descriptor):
            return descriptor
        os.close(descriptor)


def _read_notes(folder: FolderHandle, name: str) -> _Notes | None:
    """The notes *name*; none when they are missing or empty; `NameTaken` when the file is something else."""
    descriptor = folder.reopen(name)
    if descriptor is None:
        return None
    try:
        text = os.read(descriptor, _MAX_NOTES_BYTES)
        notes = _Notes.read(text)
        if os.fstat(descriptor).st_nlink != 1 or (text and notes is None):
            raise system.NameTaken(errno.EEXIST, "a file of somebody else has the name of the notes")
        return notes
    finally:
        os.close(descriptor)


def _write_notes(folder: FolderHandle, name: str, notes: _Notes) -> None:
    # Read first: only notes are replaced, and only while the part is locked.
    _read_notes(folder, name)
    folder.remove(name)
    descriptor = folder.create(name)
    try:
        os.write(descriptor, json.dumps(asdict(notes)).encode())
    finally:
        os.close(descriptor)
