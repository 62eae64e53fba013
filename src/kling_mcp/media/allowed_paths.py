"""
Reading and writing inside the folders that the operator allowed, and nowhere else.

A path in an argument may come from a model that has read somebody's instructions, and an uploaded file becomes a
public link. So a path is judged by its letters here, and opened component by component from the handle of an allowed
folder (`fs_posix.py`), never through a link. Where a link is met, what it resolves to is opened in the same way, if
that lies in an allowed folder too: a link swapped in between gains nothing.
A refusal names the rule, the setting and the allowed folders; it never says where a link leads or whether a file
outside exists.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import re
import stat
import sys
import unicodedata
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Final

from kling_mcp.errors import InputRefused
from kling_mcp.settings import expanded

if sys.platform == "win32":  # pragma: no cover - needs Windows
    from kling_mcp.media import fs_windows as system
else:
    from kling_mcp.media import fs_posix as system

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

__all__ = ["AllowedFolder", "Contents", "FolderHandle", "OpenFile", "explained", "locate", "opened", "read"]

FolderHandle = system.FolderHandle
"""An open folder that files are written to: see ``fs_posix.py``."""

_MAX_PATH_CHARACTERS: Final = 4096
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# Folders inside the machine of an assistant's host. A path there means a file that this machine has never seen.
_SANDBOX: Final = re.compile(r"(?:sandbox:/*)?/?(?:mnt/user-data|mnt/data|home/claude)(?:/|$)|sandbox:", re.IGNORECASE)
# https://learn.microsoft.com/windows/win32/fileio/naming-a-file: reserved with any extension, on every path.
_DEVICE: Final = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|clock\$|(?:com|lpt)[0-9¹²³])(?:[. ].*)?", re.IGNORECASE
)
_SHORT_NAME: Final = re.compile(r"~[0-9]")

_SHELL_ESCAPE: Final = re.compile(r"\\(.)")
# How answers show what is not printed as it is; so it comes back.
_SHOWN_ESCAPE: Final = re.compile(r"\\(?:x([89a-f][0-9a-f])|u([0-9a-f]{4}))")
# Marks that are typed, stored or copied in several ways: every kind of blank, quotes, dashes, what is not seen.
_TYPED: Final = {
    **dict.fromkeys(map(ord, "\u2018\u2019\u02bc"), "'"),
    **dict.fromkeys(map(ord, "\u201c\u201d"), '"'),
    **dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212"), "-"),
    **dict.fromkeys(map(ord, "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"), ""),
}
_MAX_COMPARED: Final = 5_000
_MAX_SHOWN_FOLDERS: Final = 8
_TURNS: Final = 8
"""How often a path may turn out to be another one, by links and corrected names."""

_DOWNLOAD: Final = "is in the cloud and not on this machine yet."
_DOWNLOAD_STEP: Final = (
    "The user can open the file once (or choose to keep it on this device), so that iCloud, OneDrive or Dropbox "
    "downloads it; then the same call works."
)
_GONE: Final = "is on a disk or network folder that does not answer"
_GONE_STEP: Final = (
    "Once that disk or network folder is connected again, the same call works; or copy the file to this disk."
)
_LEAVE_STEP: Final = "The user can give that account leave to read it, or copy it to a folder where it has that."
_PRIVACY_STEP: Final = (
    "On macOS the user can allow it in System Settings, Privacy & Security, Files and Folders for the "
    "app that starts this server; or copy the file to another allowed folder."
)
_CHANGED: Final = "changed while it was being read."
_LATER_STEP: Final = "The same call works a little later."
_RULES_BY_ERRNO: Final[dict[int, tuple[str, str | None]]] = {
    errno.ENOENT: ("does not exist.", None),
    errno.ENOTDIR: ("is or passes through a link, or something that is not a folder.", None),
    errno.EISDIR: ("is a folder.", None),
    errno.ELOOP: ("is or passes through a link that leads nowhere.", None),
    errno.EACCES: ("may not be read by the account that this server runs as.", _LEAVE_STEP),
    errno.EPERM: (
        "is kept from this program by the operating system.",
        _PRIVACY_STEP,
    ),
    errno.ENAMETOOLONG: ("is too long for a path.", None),
    errno.ENXIO: ("is not a regular file.", None),
    errno.EDEADLK: (_DOWNLOAD, _DOWNLOAD_STEP),
    errno.ETIMEDOUT: (f"{_GONE}, or in the cloud and not downloaded.", f"{_GONE_STEP} {_DOWNLOAD_STEP}"),
    errno.EIO: (f"{_GONE}, or is damaged.", _GONE_STEP),
}
for _names, _told in (
    (
        "ESTALE ENOTCONN ENODEV EHOSTDOWN EHOSTUNREACH ENETDOWN ENETUNREACH ECONNRESET ECONNABORTED EREMOTE",
        (f"{_GONE}.", _GONE_STEP),
    ),
    ("EMFILE ENFILE ENOMEM", ("is not opened, because too many files are open or memory is short.", _LATER_STEP)),
    ("EBUSY ETXTBSY EAGAIN EINTR", ("is in use by another program.", _LATER_STEP)),
):
    # Not every system has all of them.
    _RULES_BY_ERRNO.update((getattr(errno, _name), _told) for _name in _names.split() if hasattr(errno, _name))
# https://learn.microsoft.com/windows/win32/debug/system-error-codes: ERROR_CLOUD_FILE_…, and that a file is in use.
_CLOUD_BY_WINDOWS: Final = range(358, 408)
_IN_USE_BY_WINDOWS: Final = frozenset({32, 33})


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


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file in an allowed folder while it is open: its descriptor, its name without the folder, and its bytes."""

    descriptor: int
    name: str
    size: int


def read(
    requested: str,
    folders: Iterable[Path | AllowedFolder],
    *,
    max_bytes: int,
    field: str | None = None,
    open_inside: Callable[[Path, Sequence[str]], int] = system.open_inside,
) -> Contents:
    """
    Read the file *requested*, which must lie in one of *folders*: see `opened`.

    Raises:
        InputRefused: The path breaks a rule, or what is there is not a plain file that can be read.
    """
    with opened(requested, folders, max_bytes=max_bytes, field=field, open_inside=open_inside) as file:
        return Contents(file.name, _read_whole(file))


@contextlib.contextmanager
def opened(
    requested: str,
    folders: Iterable[Path | AllowedFolder],
    *,
    max_bytes: int,
    field: str | None = None,
    what: str = "picture",
    open_inside: Callable[[Path, Sequence[str]], int] = system.open_inside,
) -> Generator[OpenFile]:
    """
    The file *requested*, which must lie in one of *folders*, while it is open.

    At the end it must be as it was, so that what was read of it belongs together.

    Args:
        requested: An absolute path, as the caller wrote it; ``~`` is the home folder.
        folders: The folders that may be read from.
        max_bytes: The most bytes that a file may have.
        field: The argument that the path came in, for the refusal.
        what: What the file should be, for the refusal: ``picture``, ``video`` or ``audio file``.
        open_inside: Opens a file below a folder without following a link.

    Raises:
        InputRefused: The path breaks a rule, what is there is not a plain file that can be read, or it changed.
    """
    allowed = [AllowedFolder.at(folder) for folder in folders]
    folder, inside = locate(requested, allowed, field=field, what=what)
    try:
        descriptor, name = _opened(folder, inside, allowed, open_inside)
        try:
            before = os.fstat(descriptor)
            _judge_file(before, max_bytes)
            yield OpenFile(descriptor, name, before.st_size)
            if _moment(before) != _moment(os.fstat(descriptor)):
                raise _Broken(_CHANGED)
        finally:
            os.close(descriptor)
    except OSError as error:
        rule, step = explained(error)
        raise _refused(requested, rule, allowed, field, step, what=what) from None
    except _Broken as broken:
        raise _refused(requested, str(broken), allowed, field, broken.step, what=what) from None


def explained(error: OSError) -> tuple[str, str | None]:
    """Why a file cannot be read as the end of a sentence, and what the user can do where that is something special."""
    number = getattr(error, "winerror", None)
    if number in _CLOUD_BY_WINDOWS:
        return _DOWNLOAD, _DOWNLOAD_STEP
    code = errno.EBUSY if number in _IN_USE_BY_WINDOWS else error.errno or errno.EIO
    usual = (f"cannot be read ({os.strerror(code)}).", "The user can copy it to another allowed folder.")
    return _RULES_BY_ERRNO.get(code, usual)


def locate(
    requested: str,
    folders: Iterable[Path | AllowedFolder],
    *,
    field: str | None = None,
    what: str = "picture",
    windows: bool = sys.platform == "win32",
) -> tuple[AllowedFolder, tuple[str, ...]]:
    """
    The allowed folder that *requested* lies in and the names below it.

    It is judged by the letters; only where they lead to none of *folders* is the file system asked whether the path
    reaches one of them by another way.

    Args:
        requested: An absolute path, as the caller wrote it.
        folders: The folders that may be read from.
        field: The argument that the path came in, for the refusal.
        what: What the file should be, for the refusal.
        windows: Whether the path is one of Windows.

    Raises:
        InputRefused: The path breaks a rule or lies in none of the folders.
    """
    allowed = [AllowedFolder.at(folder) for folder in folders]
    try:
        path = expanded(_unquoted(requested))
        _judge_letters(path)
        parts = _absolute_parts(path, windows=windows)
        found = _longest_match(parts, allowed, windows=windows)
        if found is None and not windows and "\\" in path:
            # As a terminal writes a path that is dragged into it.
            parts = _absolute_parts(_SHELL_ESCAPE.sub(r"\1", path), windows=False)
            found = _longest_match(parts, allowed, windows=False)
        if found is None and windows == (sys.platform == "win32"):
            found = _reached(os.path.join(*parts), allowed)  # noqa: PTH118 - from parts of either system
        if found is None:
            raise _Broken("is outside the folders that files may be read from.")
        for name in found[1]:
            _judge_name(name, windows=windows)
    except _Broken as broken:
        _explain_sandbox(requested, allowed, field, what)
        raise _refused(requested, str(broken), allowed, field, broken.step, what=what) from None
    return found


def _opened(
    folder: AllowedFolder,
    inside: tuple[str, ...],
    allowed: list[AllowedFolder],
    open_inside: Callable[[Path, Sequence[str]], int],
) -> tuple[int, str]:
    """The open file and its name; a link or a name that is written otherwise is another path, opened like the first."""
    for _ in range(_TURNS):
        try:
            return open_inside(folder.real, inside), inside[-1]
        except OSError as error:
            if error.errno == errno.ENOENT:
                other = folder, _meant(folder, inside)
            elif error.errno in {errno.ELOOP, errno.ENOTDIR}:
                other = _reached(folder.real.joinpath(*inside), allowed)
            else:
                raise
            if other == (folder, inside):
                raise
        if other is None:
            raise _Broken("is or passes through a link that leads out of the folders that may be read from.")
        folder, inside = other
        for name in inside:
            _judge_name(name, windows=sys.platform == "win32")
    raise OSError(errno.ELOOP, "too many links")


def _reached(path: str | Path, allowed: list[AllowedFolder]) -> tuple[AllowedFolder, tuple[str, ...]] | None:
    """The allowed folder that *path* lies in once links are resolved, under whatever name the folder is reached."""
    try:
        real = Path(os.path.realpath(path))
    except OSError:  # a link that may not be read
        return None
    for depth, parent in enumerate(real.parents, start=1):
        for folder in allowed:
            with contextlib.suppress(OSError, ValueError):
                if parent == folder.real or os.path.samefile(parent, folder.real):  # noqa: PTH121 - both are paths
                    return folder, real.parts[-depth:]
    return None


def _meant(folder: AllowedFolder, inside: tuple[str, ...]) -> tuple[str, ...]:
    """*inside* with the first name that is not there replaced by the only one that can be meant."""
    for depth, name in enumerate(inside):
        try:
            entries = system.list_inside(folder.real, inside[:depth])
        except OSError:
            return inside
        if name in entries:
            continue
        if f".{name}.icloud" in entries:  # what macOS puts in the place of a file that it has moved to the cloud
            raise _Broken(_DOWNLOAD, _DOWNLOAD_STEP)
        there = [entry for entry in entries if not entry.startswith(".")]
        same = [entry for entry in there if _typed(entry) == _typed(name)]
        if len(same) == 1:
            return (*inside[:depth], same[0], *inside[depth + 1 :])
        near = same or _nearest(name, there[:_MAX_COMPARED])
        what = "does not exist." if depth == len(inside) - 1 else f"does not exist: there is no folder {_shown(name)}."
        raise _Broken(f"{what} The nearest there: {', '.join(map(_shown, near[:3]))}." if near else what)
    return inside


def _nearest(name: str, there: list[str]) -> list[str]:
    """The names most like *name*, whatever their capitals."""
    folded: dict[str, list[str]] = {}
    for entry in there:
        folded.setdefault(_typed(entry).casefold(), []).append(entry)
    close = difflib.get_close_matches(_typed(name).casefold(), folded, 3)
    return [entry for match in close for entry in folded[match]]


def _typed(name: str) -> str:
    """*name* as it would be typed: names of which this is the same differ in nothing that a reader sees."""
    name = _SHOWN_ESCAPE.sub(_unescaped, name)
    plain = unicodedata.normalize("NFC", name.translate(_TYPED).replace("\\", ""))
    # Bytes that are no character are shown as a question mark or a box.
    plain = re.sub("[?\ufffd\udc80-\udcff]+", "?", plain)
    return " ".join(plain.split())


def _unescaped(escape: re.Match[str]) -> str:
    # A byte that is no character, but for the blank that has the same number.
    return chr(int(escape[2], 16)) if escape[2] else "\xa0" if escape[1] == "a0" else "?"


def _unquoted(requested: str) -> str:
    """*requested* without the blanks and quotes that a shell or a chat put around it."""
    path = requested.strip()
    quoted = len(path) > 1 and path[0] == path[-1] and path[0] in "'\"`"
    return path[1:-1].strip() if quoted else path


def _judge_letters(path: str) -> None:
    """Refuse what no path of a file has, on any system."""
    if not path or len(path) > _MAX_PATH_CHARACTERS:
        raise _Broken(f"is not a path: it has to have 1 to {_MAX_PATH_CHARACTERS} characters.")
    if _CONTROL.search(path) or any("\ud800" <= character <= "\udfff" for character in path):
        raise _Broken("has a control character or half a character in it.")


def _absolute_parts(path: str, *, windows: bool) -> tuple[str, ...]:
    pure = PureWindowsPath(path) if windows else PurePosixPath(path)
    names = re.split(r"[\\/]" if windows else "/", path)
    if path.startswith(("\\\\", "//")) or (not windows and re.match(r"[A-Za-z]:\\", path)):
        raise _Broken("has a network, device or foreign form.")
    if any(name in {".", ".."} for name in names):
        raise _Broken("has '.' or '..' in it.")
    if windows and any(_SHORT_NAME.search(name) for name in names):
        raise _Broken("has a short name with '~' in it.")
    if names[0].startswith("~"):
        raise _Broken("begins with a '~' that is not the home folder of this account.")
    if not pure.is_absolute():
        raise _Broken("is not an absolute path of this machine.")
    return pure.parts


def _longest_match(
    parts: tuple[str, ...], folders: list[AllowedFolder], *, windows: bool
) -> tuple[AllowedFolder, tuple[str, ...]] | None:
    """The deepest of *folders* that is the beginning of *parts*, under the name it was given or its real one."""
    best: tuple[AllowedFolder, tuple[str, ...]] | None = None
    # Names are compared, not letters: /safe does not allow /safe-evil. What is typed otherwise counts only where
    # nothing is the same; what is below the folder is looked for in the folder itself, so this opens no other.
    for same in (str, _typed):
        for folder in folders:
            for form in (folder.path, folder.real):
                root = PureWindowsPath(form).parts if windows else form.parts
                head, inside = parts[: len(root)], parts[len(root) :]
                alike = [same(name) for name in head] == [same(name) for name in root]
                if windows:
                    alike = [name.casefold() for name in head] == [name.casefold() for name in root]
                if alike and inside and (best is None or len(inside) < len(best[1])):
                    best = folder, inside
        if best is not None:
            break
    return best


def _judge_name(name: str, *, windows: bool) -> None:
    """Refuse names that are hidden, or that Windows opens as something else than it checked."""
    if name.startswith("."):
        raise _Broken("has a name that starts with a dot.")
    if not windows:
        return
    if ":" in name:
        raise _Broken("has a ':' in a name, which Windows reads as another stream of the file.")
    if name.endswith((".", " ")):
        raise _Broken("has a name that ends with a dot or a space.")
    if _DEVICE.fullmatch(name):
        raise _Broken("has the name of a device.")


class _Broken(Exception):
    """The rule that a path or an open file breaks, as the end of a sentence, and what would work."""

    def __init__(self, rule: str, step: str | None = None) -> None:
        super().__init__(rule)
        self.step = step


def _read_whole(file: OpenFile) -> bytes:
    pieces: list[bytes] = []
    # One byte more than there should be, so that a file that grows is noticed.
    missing = file.size + 1
    while missing and (piece := os.read(file.descriptor, missing)):
        pieces.append(piece)
        missing -= len(piece)
    if missing != 1:
        raise _Broken(_CHANGED)
    return b"".join(pieces)


def _judge_file(status: os.stat_result, max_bytes: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _Broken("is not a regular file.")
    if status.st_nlink > 1:
        raise _Broken("is a hard link (the same file has another name), which may lead out of the folder.")
    if status.st_size == 0:
        raise _Broken("is empty.")
    if status.st_size > max_bytes:
        raise _Broken(f"has {status.st_size:,} bytes; at most {max_bytes:,} are read.")


def _moment(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_nlink


def _explain_sandbox(requested: str, allowed: list[AllowedFolder], field: str | None, what: str) -> None:
    if _SANDBOX.match(requested):
        raise InputRefused(
            f"The path {_shown(requested)} is in the assistant's own sandbox, which this server cannot see: "
            "it runs on the user's machine.",
            f"Ask the user to save the {what} on their own machine. {_next_step(allowed, what)}",
            field=field,
        )


def _refused(
    requested: str, rule: str, allowed: list[AllowedFolder], field: str | None, step: str | None = None, *, what: str
) -> InputRefused:
    return InputRefused(f"The path {_shown(requested)} {rule}", step or _next_step(allowed, what), field=field)


def _next_step(allowed: list[AllowedFolder], what: str) -> str:
    if not allowed:
        return "KLING_MCP_INPUT_DIRS names no folder that may be read from: give an https URL."
    names = [str(folder.path)[:200] for folder in allowed[:_MAX_SHOWN_FOLDERS]]
    more = [f"{len(allowed) - len(names)} more"] if len(allowed) > len(names) else []
    return (
        f"Give the absolute path of {'an' if what[0] == 'a' else 'a'} {what} in one of the folders that may be read "
        "from (KLING_MCP_INPUT_DIRS): "
        f"{', '.join([*names, *more])}; or an https URL."
    )


def _shown(requested: str) -> str:
    """The path as the caller wrote it, on one line and of bounded length."""
    return repr(requested if len(requested) <= 200 else f"{requested[:199]}…")
