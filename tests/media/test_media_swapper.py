"""
Links swapped in while files are read and written: the race that a check before an open loses.

Another process exchanges the folders and files of a path with links to a canary, as fast as the kernel allows.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kling_mcp.errors import InputRefused
from kling_mcp.media import allowed_paths
from kling_mcp.media.allowed_paths import AllowedFolder, FolderHandle
from kling_mcp.media.partial_file import DownloadError, UnfinishedFile

if TYPE_CHECKING:
    from collections.abc import Iterator

TRIES = 100_000
INSIDE = b"inside"
CANARY = b"canary"

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="exchanges names with Linux's renameat2"),
    pytest.mark.xdist_group("swapper"),
]

# Folders are held open, so that an exchange happens where it is meant even while a folder's own name leads elsewhere:
# otherwise the swapper would move the canary itself into the allowed folder.
SWAPPER = """
import ctypes, os, sys
rename = ctypes.CDLL(None).renameat2
pairs = []
for argument in sys.argv[1:]:
    here, there, target = argument.split("|")
    opened = [(os.open(os.path.dirname(p), os.O_PATH), os.fsencode(os.path.basename(p))) for p in (here, there)]
    pairs.append((*opened[0], *opened[1], target))
print("ready", flush=True)
while True:
    for folder, name, folder2, name2, target in pairs:
        rename(folder, name, folder2, name2, 2)
    for _, _, folder2, name2, target in pairs:
        if target:
            try:
                os.symlink(target, name2, dir_fd=folder2)
            except FileExistsError:
                pass
"""


@contextmanager
def swapping(*triples: tuple[Path, Path, Path | None]) -> Iterator[None]:
    """Exchange each first with each second name until the end; a second that vanishes becomes a link to the third."""
    arguments = ["|".join(str(part or "") for part in triple) for triple in triples]
    with subprocess.Popen([sys.executable, "-c", SWAPPER, *arguments], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield
        finally:
            process.kill()


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder in memory where there is one: the race is about names, not about a disk's speed."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def outside(base: Path) -> Path:
    outside = base / "outside"
    (outside / "sub").mkdir(parents=True)
    for name in ("picture", "sub/picture", "hard"):
        (outside / name).write_bytes(CANARY)
    return outside


def test_a_link_swapped_in_never_changes_what_is_read(base: Path, outside: Path) -> None:
    allowed = base / "allowed"
    (allowed / "sub").mkdir(parents=True)
    (allowed / "sub" / "picture").write_bytes(INSIDE)
    (base / "link-to-root").symlink_to(outside)
    (base / "link-to-folder").symlink_to(outside / "sub")
    (base / "link-to-file").symlink_to(outside / "picture")
    os.link(outside / "hard", base / "hard")
    requested = str(allowed / "sub" / "picture")
    folder = AllowedFolder.at(allowed)
    read = refused = leaked = 0

    with swapping(
        (allowed, base / "link-to-root", None),
        (allowed / "sub", base / "link-to-folder", None),
        (allowed / "sub" / "picture", base / "link-to-file", None),
        (allowed / "sub" / "picture", base / "hard", None),
    ):
        for _ in range(TRIES):
            try:
                data = allowed_paths.read(requested, [folder], max_bytes=100).data
            except InputRefused:
                refused += 1
            else:
                read += data == INSIDE
                leaked += data != INSIDE
        baseline = sum(_checked_then_opened(requested, allowed) for _ in range(TRIES // 5))

    assert leaked == 0
    assert read
    assert refused
    assert baseline, "the swapper has to be fast enough to beat a check before an open"


def _checked_then_opened(requested: str, allowed: Path) -> bool:
    """Whether the usual way of doing it reads the canary."""
    with contextlib.suppress(OSError):
        if os.path.realpath(requested) == f"{allowed}/sub/picture":
            with Path(requested).open("rb") as file:
                return file.read() == CANARY
    return False


def test_a_link_swapped_in_never_changes_where_is_written(base: Path, outside: Path) -> None:
    out = base / "out"
    out.mkdir()
    (base / "link-to-folder").symlink_to(outside)
    for name in ("link-to-part", "link-to-final"):
        (base / name).symlink_to(outside / "picture")
    before = _everything_in(outside)
    written = refused = 0

    with swapping(
        (out, base / "link-to-folder", None),
        (out / "video.mp4.part", base / "link-to-part", outside / "picture"),
        (out / "video.mp4", base / "link-to-final", outside / "sub" / "new"),
        (out / "video.mp4.part.json", base / "link-to-notes", outside / "picture"),
    ):
        for number in range(TRIES):
            try:
                written += _publish(out) if number % 10 else _download(out)
            except (OSError, DownloadError):
                refused += 1

    assert _everything_in(outside) == before
    assert written
    assert refused


def _publish(out: Path) -> bool:
    with FolderHandle(out) as folder:
        for name in ("video.mp4.part", "video.mp4", "video (2).mp4"):
            folder.remove(name)
        descriptor = folder.create("video.mp4.part")
        os.write(descriptor, INSIDE)
        folder.publish("video.mp4.part", descriptor, "video.mp4")
    return True


def _download(out: Path) -> bool:
    part = UnfinishedFile.claim(out, "video.mp4")
    try:
        if part.published is None:
            part.restart(None, len(INSIDE))
            part.append(INSIDE)
            part.publish("video.mp4")
    finally:
        part.close()
    return True


def _everything_in(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
