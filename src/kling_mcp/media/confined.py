"""
Reading and writing inside the folders that the operator allowed, and nowhere else.

A path in an argument may come from a model that has read somebody's instructions, and an uploaded file becomes a
public link. So a path is judged twice: by its letters here, before the file system is asked anything, and then
component by component from a directory handle (``posix.py``), so that a link swapped in between gains nothing.
A refusal names the rule and the setting; it never says where a link leads or whether a file outside exists.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Final

from kling_mcp.errors import InputRefused

if sys.platform == "win32":  # pragma: no cover - needs Windows
    from kling_mcp.media import windows as system
else:
    from kling_mcp.media import posix as system

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["AllowedFolder", "Contents", "FolderHandle", "locate", "read"]

FolderHandle = system.FolderHandle
"""An open folder that files are written to: see ``posix.py``."""

_MAX_PATH_CHARACTERS: Final = 4096
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# Folders inside the machine of an assistant's host. A path there means a file that this machine has never seen.
_SANDBOX: Final = re.compile(r"(?:sandbox:/*)?/?(?:mnt/user-data|mnt/data|home/claude)(?:/|$)|sandbox:", re.IGNORECASE)
# https://learn.microsoft.com/windows/win32/fileio/naming-a-file: reserved with any extension, on every path.
_DEVICE: Final = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|clock\$|(?:com|lpt)[0-9¹²³])(?:[. ].*)?", re.IGNORECASE
)
_SHORT_NAME: Final = re.compile(r"~[0-9]")

_NEXT_STEP: Final = (
    "Give the absolute path of a picture in one of the folders that KLING_MCP_INPUT_DIRS names, or an https URL."
)
_SANDBOX_STEP: Final = (
    "Ask the user to save the picture on their own machine in one of the folders that KLING_MCP_INPUT_DIRS names and "
    "give that path, or give an https URL."
)
_RULES_BY_ERRNO: Final = {
    errno.ENOENT: "does not exist.",
    errno.ENOTDIR: "is or passes through a link, or through something that is not a folder; links are not followed.",
    errno.ELOOP: "is or passes through a link; links are not followed.",
    errno.EACCES: "may not be read by the account that this server runs as.",
    errno.EPERM: "may not be read by the account that this server runs as.",
    errno.ENAMETOOLONG: "is too long for a path.",
    errno.ENXIO: "is not a regular file.",
}


@dataclass(frozen=True, slots=True)
class AllowedFolder:
    """
    A folder that the operator chose, and where it was when the program looked.

    The folder may be a link or lie under one: that was the operator's choice. It is resolved once, so make it when the
    program starts and keep it; what it points to later does not matter.
    """

    path: Path
    real: Path

    @classmethod
    def at(cls, folder: Path | AllowedFolder) -> AllowedFolder:
        """*folder* as it is now; an allowed folder is kept as it was."""
        return folder if isinstance(folder, AllowedFolder) else cls(folder, Path(os.path.realpath(folder)))


@dataclass(frozen=True, slots=True)
class Contents:
    """What a file held, and its name without the folder."""

    name: str
    data: bytes


def read(
    requested: str, folders: Iterable[Path | AllowedFolder], *, max_bytes: int, field: str | None = None
) -> Contents:
    """
    Read the file *requested*, which must lie in one of *folders*.

    Args:
        requested: An absolute path, as the caller wrote it.
        folders: The folders that may be read from.
        max_bytes: The most bytes that a file may have.
        field: The argument that the path came in, for the refusal.

    Raises:
        InputRefused: The path breaks a rule, or what is there is not a plain file of this user.
    """
    folder, inside = locate(requested, folders, field=field)
    try:
        descriptor = system.open_inside(folder.real, inside)
        try:
            data = _read_whole(descriptor, max_bytes)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _refused(requested, _RULES_BY_ERRNO.get(error.errno or 0, "cannot be read."), field) from None
    except _Broken as rule:
        raise _refused(requested, str(rule), field) from None
    return Contents(inside[-1], data)


def locate(
    requested: str,
    folders: Iterable[Path | AllowedFolder],
    *,
    field: str | None = None,
    windows: bool = sys.platform == "win32",
) -> tuple[AllowedFolder, tuple[str, ...]]:
    """
    The allowed folder that *requested* lies in and the names below it, judged by the letters alone.

    Args:
        requested: An absolute path, as the caller wrote it.
        folders: The folders that may be read from.
        field: The argument that the path came in, for the refusal.
        windows: Whether the path is one of Windows.

    Raises:
        InputRefused: The path breaks a rule or lies in none of the folders.
    """
    _judge_letters(requested, field)
    allowed = [AllowedFolder.at(folder) for folder in folders]
    try:
        parts = _absolute_parts(requested, field, windows=windows)
    except InputRefused:
        _explain_sandbox(requested, field)
        raise
    found = _longest_match(parts, allowed, windows=windows)
    if found is None:
        _explain_sandbox(requested, field)
        raise _refused(requested, "is outside the folders that pictures may be read from.", field)
    folder, inside = found
    for name in inside:
        _judge_name(requested, name, field)
    return folder, inside


def _judge_letters(requested: str, field: str | None) -> None:
    """Refuse what no path of a picture has, on any system."""
    if not requested or len(requested) > _MAX_PATH_CHARACTERS:
        raise _refused(requested, f"is not a path: it has to have 1 to {_MAX_PATH_CHARACTERS} characters.", field)
    if _CONTROL.search(requested) or any("\ud800" <= character <= "\udfff" for character in requested):
        raise _refused(requested, "has a control character or half a character in it.", field)


def _absolute_parts(requested: str, field: str | None, *, windows: bool) -> tuple[str, ...]:
    pure = PureWindowsPath(requested) if windows else PurePosixPath(requested)
    if requested.startswith(("\\\\", "//")) or (not windows and "\\" in requested):
        raise _refused(requested, "has a network, device or foreign form; backslashes are not read here.", field)
    names = re.split(r"[\\/]" if windows else "/", requested)
    if any(name in {".", ".."} for name in names):
        raise _refused(requested, "has '.' or '..' in it.", field)
    if any(name.startswith("~") or (windows and _SHORT_NAME.search(name)) for name in names):
        raise _refused(requested, "has a '~' in it, which is not expanded here.", field)
    if not pure.is_absolute():
        raise _refused(requested, "is not an absolute path of this machine.", field)
    return pure.parts


def _longest_match(
    parts: tuple[str, ...], folders: list[AllowedFolder], *, windows: bool
) -> tuple[AllowedFolder, tuple[str, ...]] | None:
    """The deepest of *folders* that is the beginning of *parts*, under the name it was given or its real one."""
    best: tuple[AllowedFolder, tuple[str, ...]] | None = None
    for folder in folders:
        for form in (folder.path, folder.real):
            # Names are compared, not letters: /safe does not allow /safe-evil. Only Windows ignores case here; on a
            # macOS disk that would, another case is refused, which is the safe answer.
            root = PureWindowsPath(form).parts if windows else form.parts
            head, inside = parts[: len(root)], parts[len(root) :]
            same = [name.casefold() for name in head] == [name.casefold() for name in root] if windows else head == root
            if same and inside and (best is None or len(inside) < len(best[1])):
                best = folder, inside
    return best


def _judge_name(requested: str, name: str, field: str | None) -> None:
    """Refuse names that are hidden, or that some system opens as something else than it checked."""
    if name.startswith("."):
        raise _refused(requested, "has a name that starts with a dot.", field)
    if ":" in name:
        raise _refused(requested, "has a ':' in a name, which some systems read as another stream of the file.", field)
    if name.endswith((".", " ")):
        raise _refused(requested, "has a name that ends with a dot or a space.", field)
    if _DEVICE.fullmatch(name):
        raise _refused(requested, "has the name of a device.", field)


class _Broken(Exception):
    """The rule that an open file breaks, as the end of a sentence."""


def _read_whole(descriptor: int, max_bytes: int) -> bytes:
    before = os.fstat(descriptor)
    _judge_file(before, max_bytes)
    pieces: list[bytes] = []
    # One byte more than there should be, so that a file that grows is noticed.
    missing = before.st_size + 1
    while missing and (piece := os.read(descriptor, missing)):
        pieces.append(piece)
        missing -= len(piece)
    if missing != 1 or _moment(before) != _moment(os.fstat(descriptor)):
        raise _Broken("changed while it was being read.")
    return b"".join(pieces)


def _judge_file(status: os.stat_result, max_bytes: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _Broken("is not a regular file.")
    if status.st_nlink != 1:
        raise _Broken("is a hard link (the same file has another name), which may lead out of the folder.")
    if not system.owned_by_us(status):
        raise _Broken("belongs to another user.")
    if status.st_size == 0:
        raise _Broken("is empty.")
    if status.st_size > max_bytes:
        raise _Broken(f"has {status.st_size:,} bytes; at most {max_bytes:,} are read.")


def _moment(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_nlink


def _explain_sandbox(requested: str, field: str | None) -> None:
    if _SANDBOX.match(requested):
        raise InputRefused(
            f"The path {_shown(requested)} is in the assistant's own sandbox, which this server cannot see: "
            "it runs on the user's machine.",
            _SANDBOX_STEP,
            field=field,
        )


def _refused(requested: str, rule: str, field: str | None) -> InputRefused:
    return InputRefused(f"The path {_shown(requested)} {rule}", _NEXT_STEP, field=field)


def _shown(requested: str) -> str:
    """The path as the caller wrote it, on one line and of bounded length."""
    return repr(requested if len(requested) <= 200 else f"{requested[:199]}…")
