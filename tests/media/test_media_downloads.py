"""Downloads: whole or not there, never over another file, continued where they broke off."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import stat
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import anyio
import pytest

from kling_mcp.media import fs_posix
from kling_mcp.media.allowed_paths import AllowedFolder, FolderHandle
from kling_mcp.media.disk import Calls
from kling_mcp.media.downloads import DownloadError, Reason, save, video_name, write_sidecar
from kling_mcp.media.partial_file import UnfinishedFile, disk_errors

from .loopback import Answer, LoopbackFetch, VideoHost, a_video, killable_downloads, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .loopback import DownloadProcesses

pytestmark = pytest.mark.anyio

NAME = "2026-11-21_o3-standard_a-fox_1234.mp4"


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    """The kernel itself refuses to write beyond *size*, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_video_is_saved_whole_and_private(tmp_path: Path) -> None:
    body = a_video(700_000)
    folder = tmp_path / "new" / "Kling"

    with anyio.fail_after(10):
        async with VideoHost(body).serving() as host:
            saved = await save(LoopbackFetch(), host.url, folder, NAME, expected_size=len(body))

    assert saved == folder / NAME
    assert files(folder) == {NAME: body}
    assert stat.S_IMODE((folder / NAME).stat().st_mode) == 0o600


class Trouble:
    """A first attempt that goes wrong after so many bytes, in one of the ways that follow."""

    def __init__(self, host: VideoHost, folder: Path, processes: DownloadProcesses, at: int) -> None:
        self.host = host
        self.folder = folder
        self.processes = processes
        self.at = at

    async def killed(self) -> None:
        self.host.answers = [Answer(stall_at=self.at)]
        pid = self.processes.start(self.host.url, self.folder, NAME)
        await self.host.stalled.wait()
        await until(lambda: size_of(self.folder / f"{NAME}.part") >= 200_000)
        await self.processes.kill(pid)

    async def disk_full(self) -> None:
        with files_no_longer_than(self.at):
            assert await self.attempt() is Reason.DISK_FULL

    async def changed(self) -> None:
        await self.broken_off()
        self.host.body, self.host.etag = a_video(650_000, 999), '"two"'

    async def wrong_start(self) -> None:
        await self.broken_off()
        self.host.answers = [Answer(content_range="bytes 5-99/100")]

    async def wrong_total(self) -> None:
        await self.broken_off()
        size = len(self.host.body)
        self.host.answers = [Answer(content_range=f"bytes {self.at}-{size}/{size + 1}")]

    async def other_etag(self) -> None:
        await self.broken_off()
        self.host.answers = [Answer(etag='"other"')]

    async def cut_short(self) -> None:
        await self.broken_off()
        self.host.answers = [Answer(stop_at=1000)]

    async def range_refused(self) -> None:
        await self.broken_off()
        self.host.answers = [Answer(status=416, body=b"")]

    async def no_etag(self) -> None:
        await self.broken_off(etag="")

    async def no_length(self) -> None:
        await self.broken_off()
        self.host.answers = [Answer(status=200, length=False)]

    async def broken_off(self, etag: str | None = None) -> None:
        """The first request breaks off and the second brings nothing, so that the attempt ends."""
        self.host.answers = [Answer(stop_at=self.at, etag=etag), Answer(stop_at=0, etag=etag)]
        assert await self.attempt() is Reason.INTERRUPTED

    async def attempt(self) -> Reason:
        with pytest.raises(DownloadError) as failed:
            await save(LoopbackFetch(), self.host.url, self.folder, NAME)
        return failed.value.reason


TROUBLES = (
    Trouble.killed, Trouble.disk_full, Trouble.changed, Trouble.wrong_start, Trouble.wrong_total,
    Trouble.other_etag, Trouble.cut_short, Trouble.range_refused, Trouble.no_etag, Trouble.no_length,
)  # fmt: skip


async def test_two_hundred_troubled_downloads_overwrite_nothing_and_end_identical(tmp_path: Path) -> None:
    """
    Each video meets one trouble at a random byte, and is asked for again.

    For every second one somebody else's file has its name already.
    """
    dice = random.Random(5)
    resumed = 0

    with anyio.fail_after(120), killable_downloads() as processes:
        for number in range(200):
            folder = tmp_path / str(number)
            folder.mkdir()
            theirs = {NAME: b"somebody else's film"} if number // len(TROUBLES) % 2 else {}
            for name, content in theirs.items():
                (folder / name).write_bytes(content)
            host = VideoHost(a_video(dice.randrange(600_000, 1_000_000), number))
            async with host.serving():
                trouble = Trouble(host, folder, processes, dice.randrange(300_000, 590_000))
                await TROUBLES[number % len(TROUBLES)](trouble)
                assert {name: data for name, data in files(folder).items() if name.endswith(".mp4")} == theirs
                saved = await save(LoopbackFetch(), host.url, folder, NAME)

            assert saved.name == (NAME.replace(".mp4", " (2).mp4") if theirs else NAME)
            assert files(folder) == theirs | {saved.name: host.body}
            resumed += any(asked is not None for asked in host.ranges)

    assert resumed >= 100


async def test_a_download_that_breaks_off_is_continued_within_one_call(tmp_path: Path) -> None:
    body = a_video(900_000)
    host = VideoHost(body, answers=[Answer(stop_at=300_000), Answer(stop_at=300_000)])

    with anyio.fail_after(10):
        async with host.serving():
            saved = await save(LoopbackFetch(), host.url, tmp_path, NAME)

    assert saved.read_bytes() == body
    assert host.ranges == [None, "bytes=300000-", "bytes=600000-"]


@pytest.mark.parametrize(
    ("answer", "reason", "word"),
    [
        (Answer(status=404), Reason.EXPIRED, "no longer good (HTTP 404)"),
        (Answer(status=403), Reason.EXPIRED, "no longer good (HTTP 403)"),
        (Answer(status=302), Reason.REFUSED_HOST, "leads elsewhere"),
        (Answer(status=503), Reason.INTERRUPTED, "HTTP 503"),
        (Answer(status=206), Reason.INTERRUPTED, "HTTP 206"),
        (Answer(status=416), Reason.INTERRUPTED, "HTTP 416"),
        (Answer(stop_at=0), Reason.INTERRUPTED, "broke off"),
        (Answer(body=b"<html>a page instead of the video</html>"), Reason.DAMAGED, "no MP4 video"),
        (Answer(body=b""), Reason.DAMAGED, "no MP4 video"),
        (Answer(body=a_video(2_000_001)), Reason.DAMAGED, "at most 2,000,000 are taken"),
        (Answer(body=a_video(2_100_000), length=False), Reason.DAMAGED, "more than 2,000,000 bytes came"),
    ],
    ids=[
        "gone",
        "forbidden",
        "redirect",
        "unavailable",
        "part",
        "range",
        "nothing",
        "page",
        "empty",
        "long",
        "endless",
    ],
)
async def test_a_failure_has_a_reason_and_leaves_nothing_that_looks_like_a_video(
    tmp_path: Path, answer: Answer, reason: Reason, word: str
) -> None:
    with anyio.fail_after(10):
        async with VideoHost(a_video(600_000), answers=[answer]).serving() as host:
            with pytest.raises(DownloadError) as failed:
                await save(LoopbackFetch(), host.url, tmp_path, NAME, max_bytes=2_000_000)

            assert failed.value.reason is reason
            assert word in str(failed.value)
            assert str(failed.value).startswith("The video was not saved: ")
            assert not [name for name in files(tmp_path) if name.endswith(".mp4")]
            assert (await save(LoopbackFetch(), host.url, tmp_path, NAME)).stat().st_size == 600_000


@pytest.mark.parametrize("size", [0, 1, 4999, 1 << 40])
@pytest.mark.parametrize("length", [True, False])
async def test_the_size_in_fals_result_is_only_a_hint(tmp_path: Path, size: int, length: bool) -> None:
    body = a_video(5000)
    room = None if size == 1 << 40 else 1 << 30
    with anyio.fail_after(10):
        async with VideoHost(body, answers=[Answer(length=length)]).serving() as host:
            saved = await save(LoopbackFetch(), host.url, tmp_path, NAME, expected_size=size, free_bytes=lambda _: room)

    assert files(tmp_path) == {saved.name: body}


async def test_a_folder_without_locks_takes_a_video(tmp_path: Path) -> None:
    def lacks_locks(folder: Path) -> FolderHandle:
        return FolderHandle(folder, calls=Calls(locks=()))

    part = UnfinishedFile.claim(tmp_path, NAME, open_folder=lacks_locks)
    part.append(a_video(5000))

    assert part.is_whole_mp4()
    assert part.publish(NAME) == NAME
    part.close()


CUT = {
    "in its pictures": a_video(5000)[:-1],
    "in its first box": a_video(5000)[:20],
    "before its index": a_video(5000)[:24],
    "in a box with a long size": a_video(5000)[:32] + b"\0\0\0\1mdat" + (1 << 40).to_bytes(8) + bytes(100),
}


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("name", CUT)
async def test_a_video_that_ends_too_early_is_not_saved(tmp_path: Path, name: str, length: bool) -> None:
    with anyio.fail_after(10):
        async with VideoHost(a_video(5000), answers=[Answer(body=CUT[name], length=length)]).serving() as host:
            with pytest.raises(DownloadError, match="only a part of it came") as failed:
                await save(LoopbackFetch(), host.url, tmp_path, NAME)

    assert failed.value.reason is Reason.DAMAGED
    assert files(tmp_path) == {}


WHOLE = {
    "a last box to the end of the file": a_video(5000)[:32] + b"\0\0\0\0mdat" + bytes(100),
    "a box with a long size": a_video(5000)[:32] + b"\0\0\0\1mdat" + (116).to_bytes(8) + bytes(100),
    "zeros behind it": a_video(5000) + bytes(100),
    "a few bytes behind it": a_video(5000) + b"abc",
}


@pytest.mark.parametrize("name", WHOLE)
async def test_an_unusual_but_whole_video_is_saved(tmp_path: Path, name: str) -> None:
    with anyio.fail_after(10):
        async with VideoHost(WHOLE[name]).serving() as host:
            saved = await save(LoopbackFetch(), host.url, tmp_path, NAME)

    assert files(tmp_path) == {saved.name: WHOLE[name]}


async def test_a_host_that_is_not_allowed_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DownloadError) as failed:
        await save(LoopbackFetch(), "http://evil.example/video.mp4", tmp_path, NAME)

    assert failed.value.reason is Reason.REFUSED_HOST


async def test_a_disk_without_room_is_noticed_before_the_first_byte(tmp_path: Path) -> None:
    room = 600_000 + 64 * 1024 * 1024

    with anyio.fail_after(10):
        async with VideoHost(a_video(600_000)).serving() as host:
            with pytest.raises(DownloadError) as failed:
                await save(LoopbackFetch(), host.url, tmp_path, NAME, free_bytes=lambda _: room - 1)
            assert not [data for name, data in files(tmp_path).items() if name.endswith(".part") and data]

            saved = await save(LoopbackFetch(), host.url, tmp_path, NAME, free_bytes=lambda _: room)

    assert failed.value.reason is Reason.DISK_FULL
    assert saved.stat().st_size == 600_000


async def test_a_folder_that_cannot_be_written_to_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "swapped").mkdir()
    swapped = AllowedFolder.at(tmp_path / "swapped")
    (tmp_path / "swapped").rename(tmp_path / "away")
    (tmp_path / "swapped").symlink_to(tmp_path / "away")

    for folder in (tmp_path / "file", swapped):
        with pytest.raises(DownloadError) as failed:
            await save(LoopbackFetch(), "http://127.0.0.1:1/", folder, NAME)

        assert failed.value.reason is Reason.NO_PERMISSION
    assert files(tmp_path / "away") == {}


@pytest.mark.parametrize("name", ["../x.mp4", "a/b.mp4", ".hidden.mp4", "", "x\n.mp4", "a" * 200 + ".mp4"])
async def test_a_name_that_video_name_does_not_make_is_a_defect_of_the_caller(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="video_name"):
        await save(LoopbackFetch(), "http://127.0.0.1:1/", tmp_path, name)


async def test_of_two_processes_one_saves_the_video_and_the_other_is_told(tmp_path: Path) -> None:
    body = a_video(900_000)
    host = VideoHost(body, answers=[Answer(stall_at=500_000)])

    with anyio.fail_after(20), killable_downloads() as processes:
        async with host.serving():
            pid = processes.start(host.url, tmp_path, NAME)
            await host.stalled.wait()
            with pytest.raises(DownloadError) as failed:
                await save(LoopbackFetch(), host.url, tmp_path, NAME)
            await processes.kill(pid)
            saved = await save(LoopbackFetch(), host.url, tmp_path, NAME)

    assert failed.value.reason is Reason.BUSY
    assert files(tmp_path) == {NAME: body}
    assert saved.read_bytes() == body


async def test_many_processes_at_once_save_the_same_video_without_harm(tmp_path: Path) -> None:
    body = a_video(700_000)

    with anyio.fail_after(30), killable_downloads() as processes:
        async with VideoHost(body).serving() as host:
            pids = [processes.start(host.url, tmp_path, NAME) for _ in range(8)]
            for pid in pids:
                await processes.gone(pid)

    assert NAME in files(tmp_path)
    assert set(files(tmp_path).values()) == {body}


async def test_a_download_killed_between_its_two_names_is_recognised(tmp_path: Path) -> None:
    """Killed after the final name was given and before the part's name was taken away."""
    body = a_video(5000)
    for taken in (0, 1):
        folder = tmp_path / str(taken)
        folder.mkdir()
        final = NAME.replace(".mp4", " (2).mp4") if taken else NAME
        if taken:
            (folder / NAME).write_bytes(b"somebody else's film")
        (folder / f"{NAME}.part").write_bytes(body)
        os.link(folder / f"{NAME}.part", folder / final)

        saved = await save(LoopbackFetch(), "http://127.0.0.1:1/not-asked", folder, NAME)

        assert saved == folder / final
        assert set(files(folder)) == {NAME, final}


async def test_a_download_killed_before_it_got_its_name_is_not_fetched_again(tmp_path: Path) -> None:
    body = a_video(5000)
    part = UnfinishedFile.claim(tmp_path, NAME)
    part.restart('"one"', 5000)
    part.append(body)
    part.close()

    saved = await save(LoopbackFetch(), "http://127.0.0.1:1/not-asked", tmp_path, NAME)

    assert saved.read_bytes() == body
    assert files(tmp_path) == {NAME: body}


@pytest.mark.parametrize(
    "kind", ["file", "link", "dangling", "hard link", "folder", "pipe", "notes", "broken notes", "linked notes"]
)
async def test_what_lies_in_the_parts_way_is_neither_written_to_nor_removed(tmp_path: Path, kind: str) -> None:
    folder, outside = tmp_path / "out", tmp_path / "outside"
    folder.mkdir()
    outside.write_bytes(b"mine")
    part, notes = folder / f"{NAME}.part", folder / f"{NAME}.part.json"
    match kind:
        case "file":
            part.write_bytes(b"mine")
        case "link":
            part.symlink_to(outside)
        case "dangling":
            part.symlink_to(tmp_path / "new")
        case "hard link":
            os.link(outside, part)
        case "folder":
            part.mkdir()
        case "pipe":
            os.mkfifo(part)
        case "notes":
            notes.write_text('{"mine": true}')
        case "broken notes":
            notes.write_text('["mine"]')
        case _:
            os.link(outside, notes)
    body = a_video(5000)

    with anyio.fail_after(10):
        async with VideoHost(body).serving() as host:
            saved = await save(LoopbackFetch(), host.url, folder, NAME)

    assert saved.read_bytes() == body
    assert outside.read_bytes() == b"mine"
    assert not (tmp_path / "new").exists()
    assert (notes if "notes" in kind else part) in folder.iterdir()


async def test_when_every_name_for_a_part_is_taken_it_says_so(tmp_path: Path) -> None:
    for part in (f"{NAME}.part", *(f"{NAME}.{number}.part" for number in range(2, 10))):
        (tmp_path / part).write_bytes(b"mine")

    with pytest.raises(DownloadError, match="other files are in the way") as failed:
        await save(LoopbackFetch(), "http://127.0.0.1:1/", tmp_path, NAME)

    assert failed.value.reason is Reason.NO_PERMISSION


async def test_a_cancelled_download_keeps_what_came(tmp_path: Path) -> None:
    body = a_video(900_000)
    host = VideoHost(body, answers=[Answer(stall_at=600_000)])

    with anyio.fail_after(10):
        async with host.serving(), anyio.create_task_group() as tasks:
            tasks.start_soon(save, LoopbackFetch(), host.url, tmp_path, NAME)
            await host.stalled.wait()
            await until(lambda: size_of(tmp_path / f"{NAME}.part") >= 500_000)
            size = size_of(tmp_path / f"{NAME}.part")
            tasks.cancel_scope.cancel()
        async with host.serving():
            saved = await save(LoopbackFetch(), host.url, tmp_path, NAME)

    assert saved.read_bytes() == body
    assert host.ranges == [None, f"bytes={size}-"]


@pytest.mark.parametrize(
    "publishers",
    [
        (fs_posix.by_link,),
        (fs_posix.by_exclusive_rename,),
        (fs_posix.by_reservation,),
        (lambda *_: False, fs_posix.by_exclusive_rename),
    ],
    ids=["link", "rename", "reservation", "second choice"],
)
def test_every_way_of_naming_a_file_keeps_the_one_that_has_the_name(
    tmp_path: Path, publishers: tuple[fs_posix.Publisher, ...]
) -> None:
    (tmp_path / "video.mp4").write_bytes(b"mine")
    (tmp_path / "video (2).mp4").symlink_to(tmp_path / "nowhere")

    with FolderHandle(tmp_path, publishers) as folder:
        descriptor = folder.create("video.part")
        os.write(descriptor, b"new")
        assert folder.publish("video.part", descriptor, "video.mp4") == "video (3).mp4"

    assert (tmp_path / "video.mp4").read_bytes() == b"mine"
    assert (tmp_path / "video (3).mp4").read_bytes() == b"new"
    assert not (tmp_path / "video.part").exists()
    assert not (tmp_path / "nowhere").exists()


def test_without_any_way_of_naming_a_file_nothing_gets_a_name(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with FolderHandle(tmp_path, (fs_posix.by_link, fs_posix.by_exclusive_rename)) as folder:
        # A folder has no hard links and cannot be moved into itself: both ways say that they are none.
        assert not fs_posix.by_link(folder._folder, "folder", "other")
        assert not fs_posix.by_exclusive_rename(folder._folder, "folder", "folder/inside")
        with pytest.raises(FileNotFoundError):
            fs_posix.by_link(folder._folder, "missing", "other")
        with pytest.raises(FileNotFoundError):
            fs_posix.by_exclusive_rename(folder._folder, "missing", "other")
    with FolderHandle(tmp_path, ()) as folder, pytest.raises(fs_posix.NameTaken, match="can neither link nor rename"):
        folder.publish("part", folder.create("part"), "video.mp4")


def test_a_file_put_in_the_parts_place_does_not_get_the_videos_name(tmp_path: Path) -> None:
    with FolderHandle(tmp_path) as folder:
        descriptor = folder.create("part")
        (tmp_path / "part").unlink()
        (tmp_path / "part").write_bytes(b"something else")

        with pytest.raises(fs_posix.NameTaken, match="another file was put in the place"):
            folder.publish("part", descriptor, "video.mp4")

    assert not (tmp_path / "video.mp4").exists()


def test_after_a_thousand_names_it_gives_up(tmp_path: Path) -> None:
    for name in ("v.mp4", *(f"v ({number}).mp4" for number in range(2, 1001))):
        (tmp_path / name).touch()

    with FolderHandle(tmp_path) as folder, pytest.raises(fs_posix.NameTaken, match="a thousand names"):
        folder.publish("part", folder.create("part"), "v.mp4")


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, Reason.DISK_FULL),
        (errno.EDQUOT, Reason.DISK_FULL),
        (errno.EROFS, Reason.NO_PERMISSION),
        (errno.EACCES, Reason.NO_PERMISSION),
        (None, Reason.NO_PERMISSION),
    ],
)
def test_what_a_disk_refuses_is_told_in_plain_words(number: int | None, reason: Reason) -> None:
    with pytest.raises(DownloadError) as failed, disk_errors():
        raise OSError(number, "in the library's words")

    assert failed.value.reason is reason
    assert "library" not in str(failed.value)


def test_the_sidecar_lies_beside_the_video_and_over_nothing(tmp_path: Path) -> None:
    data = {"job_id": "kj_1", "prompt": "ein Fuchs läuft", "cost": 0.56}

    first = write_sidecar(tmp_path, "fox.mp4", data)
    second = write_sidecar(tmp_path, "fox.mp4", data | {"job_id": "kj_2"})

    assert (first.name, second.name) == ("fox.json", "fox (2).json")
    assert json.loads(first.read_text(encoding="utf-8")) == data
    assert "läuft" in first.read_text(encoding="utf-8")
    assert set(files(tmp_path)) == {"fox.json", "fox (2).json"}


def test_a_sidecar_that_does_not_fit_on_the_disk_leaves_nothing(tmp_path: Path) -> None:
    with files_no_longer_than(500), pytest.raises(DownloadError) as failed:
        write_sidecar(tmp_path, "fox.mp4", {"prompt": "x" * 1000})

    assert failed.value.reason is Reason.DISK_FULL
    assert files(tmp_path) == {}


def test_a_sidecar_killed_between_its_two_names_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "fox.json").write_text("{}")
    os.link(tmp_path / "fox.json", tmp_path / "fox.json.part")

    assert write_sidecar(tmp_path, "fox.mp4", {}) == tmp_path / "fox.json"
    assert set(files(tmp_path)) == {"fox.json"}


@pytest.mark.parametrize(
    ("model", "prompt", "job_id", "name"),
    [
        ("o3-standard", "A red fox runs", "kj_01ABCDEF2345", "2026-11-21_o3-standard_A-red-fox-runs_CDEF2345.mp4"),
        ("o3-pro", "Ein Fuchs läuft über Schnee!", "kj_1", "2026-11-21_o3-pro_Ein-Fuchs-lauft-uber-Schnee_kj-1.mp4"),
        ("o3-pro", "狐が走る", "kj_1", "2026-11-21_o3-pro_kj-1.mp4"),
        ("o3-pro", "../../etc/passwd\0.mp4", "kj_1", "2026-11-21_o3-pro_etc-passwd-mp4_kj-1.mp4"),
        ("", "", "", "2026-11-21.mp4"),
    ],
)
def test_a_name_tells_date_model_words_and_job(model: str, prompt: str, job_id: str, name: str) -> None:
    assert video_name(datetime(2026, 11, 21, 9, 0, tzinfo=UTC), model, prompt, job_id) == name


def test_a_long_name_is_cut_between_words() -> None:
    created = datetime(2026, 11, 21, tzinfo=UTC)

    words = video_name(created, "v3-turbo-standard", "the camera slowly circles " * 40, "kj_0123456789")
    one = video_name(created, "m" * 90, "x" * 500, "kj_0123456789")

    assert words == "2026-11-21_v3-turbo-standard_the-camera-slowly-circles-the-camera_23456789.mp4"
    assert len(one) == 80
