"""Videos and sound: known by their bytes, measured, checked against what an endpoint takes, copied before they go."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import random
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import av
import pytest

from kling_mcp.errors import InputRefused, NotAvailable
from kling_mcp.media import frames, recordings
from kling_mcp.media.limits import MediaLimits
from tests.media.recorded import Clip, made
from tests.media.videos import MATRICES, Video, write

if TYPE_CHECKING:
    from pathlib import Path

    from kling_mcp.media.recordings import Kind, Recording

VIDEOS = ("mp4", "mov", "webm", "mkv")
SOUNDS = ("mp3", "wav", "m4a", "aac", "ogg", "flac")


def loaded(folder: Path, data: bytes, kind: Kind = "video", limits: MediaLimits | None = None) -> Recording:
    path = folder / "Lisbon 2026.bin"
    path.write_bytes(data)
    return recordings.load(str(path), kind=kind, folders=[folder], limits=limits, field="video")


def whole(recording: Recording) -> bytes:
    return recording.read(0, recording.size)


@pytest.mark.parametrize("kind", [*VIDEOS, *SOUNDS])
def test_a_recording_is_known_by_its_bytes_and_measured(tmp_path: Path, kind: str) -> None:
    recording = loaded(tmp_path, made(Clip(kind)), "video" if kind in VIDEOS else "audio")

    assert recording.seconds is not None
    assert abs(recording.seconds - 2) < Decimal("0.1")
    assert recording.sound
    pictures = (64, 48, Decimal(10)) if kind in VIDEOS else (None, None, None)
    assert (recording.width, recording.height, recording.fps) == pictures
    assert recording.file_name == f"{'video' if kind in VIDEOS else 'audio'}.{kind}"
    assert recording.sha256 == hashlib.sha256(whole(recording)).hexdigest()


def test_all_that_is_wrong_with_a_recording_is_told_at_once(tmp_path: Path) -> None:
    limits = MediaLimits(
        max_bytes=1000,
        min_width=720,
        min_height=720,
        max_aspect_ratio=Decimal("1.2"),
        formats=("mp4", "mov"),
        min_seconds=Decimal(3),
        max_seconds=Decimal("10.05"),
        min_fps=24,
        max_fps=60,
    )
    with pytest.raises(InputRefused) as refused:
        loaded(tmp_path, made(Clip("mkv")), limits=limits)

    assert len(refused.value.faults) == 6
    assert all(fault.path == "video" for fault in refused.value.faults)
    for part in ("6 things", "is mkv", "bytes", "64 x 48", "1.33", "2 seconds long", "3 to 10.05", "24 to 60"):
        assert part in refused.value.what


CANARY = "CANARY of Lisbon"
TELLING = {
    "title": CANARY,
    "artist": CANARY,
    "comment": CANARY,
    "location": "+51.4779-000.0015/",
    "creation_time": "2026-05-01T10:00:00Z",
}
PLACE = "the place where it was taken (GPS) and other metadata removed"


def shown(data: bytes) -> list[tuple[str, int | None, bytes]]:
    """Every picture and every stretch of sound, with its time."""
    opened: Any = av.open(io.BytesIO(data))
    with opened as container:
        streams = [stream for stream in container.streams if stream.type in {"video", "audio"}]
        frames = list(container.decode(*streams))
    return [(type(frame).__name__, frame.pts, b"".join(map(bytes, frame.planes))) for frame in frames]


@pytest.mark.parametrize("kind", [*VIDEOS, *SOUNDS])
def test_what_tells_about_the_owner_stays_here_and_what_is_shown_goes_unchanged(tmp_path: Path, kind: str) -> None:
    words = f"GPS {CANARY}".encode() if kind in {"mp4", "mov"} else b""
    options = {"movflags": "use_metadata_tags"} if kind == "mov" else {}
    data = made(Clip(kind, metadata=TELLING, words=words, options=options))
    sent, again = (loaded(tmp_path, data, "video" if kind in VIDEOS else "audio") for _ in range(2))

    assert (CANARY.encode() in data) == (kind != "aac")
    for secret in (CANARY.encode(), b"51.4779", b"2026-05-01"):
        assert secret not in whole(sent)
    with av.open(io.BytesIO(whole(sent))) as container:
        assert not {"title", "artist", "comment", "location", "creation_time"} & container.metadata.keys()
        assert {stream.type for stream in container.streams} <= {"video", "audio"}
    assert sorted(shown(data)) == sorted(shown(whole(sent)))
    assert sent.changes == {"aac": (), "wav": ("metadata removed",)}.get(kind, (PLACE,))
    assert sent.sha256 == again.sha256


@pytest.mark.parametrize("kind", [*VIDEOS, *SOUNDS])
def test_what_programs_write_of_themselves_is_not_worth_a_word(tmp_path: Path, kind: str) -> None:
    assert loaded(tmp_path, made(Clip(kind)), "video" if kind in VIDEOS else "audio").changes == ()


@pytest.mark.parametrize(
    ("video", "seconds"),
    [
        (Video(turned=MATRICES["a quarter to the right"][0]), "2"),
        (Video(edit=(0.3, 1.7)), "1.4"),
        (Video(mov="frag_keyframe+empty_moov", options={"g": "5"}), "2"),
        (Video(ending="mov", codec="prores_ks", options={}, pixels="yuv422p10le"), "2"),
        (Video(codec="libx265", options={"x265-params": "log-level=none"}), "2"),
    ],
    ids=["turned", "edited", "fragmented", "prores", "hevc"],
)
def test_every_kind_of_video_is_measured_and_shown_as_before(tmp_path: Path, video: Video, seconds: str) -> None:
    path = write(video, tmp_path)
    sent = loaded(tmp_path, path.read_bytes())
    copy = tmp_path / f"copy.{video.ending}"
    copy.write_bytes(whole(sent))

    assert sent.seconds == Decimal(seconds)
    assert (sent.width, sent.height) == (video.size[::-1] if video.turned else video.size)
    assert frames.last_frame(copy) == frames.last_frame(path)


@pytest.mark.parametrize("kind", ["mp4", "mov", "webm", "wav", "flac"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_recording_that_is_not_all_there_is_refused(tmp_path: Path, kind: str, share: float) -> None:
    data = made(Clip(kind, seconds=6))
    with pytest.raises(InputRefused, match="not all of it is here"):
        loaded(tmp_path, data[: int(len(data) * share)], "video" if kind in VIDEOS else "audio")


OTHERS: dict[str, tuple[Kind, bytes, tuple[str, ...] | None, str]] = {
    "a picture": ("video", b"\x89PNG\r\n\x1a\n" + bytes(99), None, "is a picture, and a video is expected"),
    "a page": ("audio", b"<!DOCTYPE html><html>", None, "is text and no recording, and an audio file is expected"),
    "an AVI": ("video", b"RIFF\0\0\0\0AVI LIST" + bytes(99), None, "is an AVI"),
    "noise": ("video", bytes(range(256)), None, "not known here"),
    "sound for a video": ("video", made(Clip("mp3")), None, "has sound alone (mp3)"),
    "sound in a video's form": ("video", made(Clip("m4a")).replace(b"M4A ", b"isom"), None, "has sound alone (m4a)"),
    "a video for sound": ("audio", made(Clip("mp4")), None, "is mp4; this model takes mp3, wav here"),
    "a silent video for sound": ("audio", made(Clip("mp4", sound=False)), ("mp3", "mp4"), "no sound in it"),
    "another kind of sound": ("audio", made(Clip("ogg")), ("audio/mpeg", ".WAV"), "is ogg; this model takes mp3, wav"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_such_recording_is_refused_in_words(tmp_path: Path, name: str) -> None:
    kind, data, formats, told = OTHERS[name]
    with pytest.raises(InputRefused) as refused:
        loaded(tmp_path, data, kind, MediaLimits(formats=formats))

    assert told in refused.value.what
    assert "Lisbon 2026.bin" in refused.value.what


def test_a_video_with_sound_is_taken_for_sound_where_the_model_takes_videos(tmp_path: Path) -> None:
    assert loaded(tmp_path, made(Clip("mp4")), "audio", MediaLimits(formats=("mp3", "mp4"))).file_name == "video.mp4"


@pytest.mark.parametrize("secret", [b"-----BEGIN RSA PRIVATE KEY-----", b"id:the-key"])
def test_a_recording_with_a_key_in_it_is_refused(tmp_path: Path, secret: bytes) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(made(Clip("wav", seconds=30))[:-3_000_000] + secret + bytes(3_000_000 - len(secret)))

    with pytest.raises(InputRefused, match="a key or another secret"):
        recordings.load(str(path), kind="audio", folders=[tmp_path], forbidden=[b"id:the-key"])


@pytest.mark.parametrize("table", [b"stsz", b"stts", b"ctts"])
def test_a_table_that_counts_more_than_can_be_is_not_believed(tmp_path: Path, table: bytes) -> None:
    data = bytearray(made(Clip("mp4")))
    at = data.index(table) + (8 if table == b"stsz" else 12)
    data[at : at + 8] = (1).to_bytes(4) + (2**31 - 1).to_bytes(4) if table == b"stsz" else (2**31 - 1).to_bytes(4) * 2

    with pytest.raises(InputRefused, match="cannot be read"):
        loaded(tmp_path, bytes(data))


def test_a_damaged_recording_is_refused_or_taken_and_nothing_else(tmp_path: Path) -> None:
    chance = random.Random(5)
    for kind in (*VIDEOS, *SOUNDS):
        data = made(Clip(kind, seconds=0.3, metadata=TELLING))
        for _ in range(60):
            damaged = bytearray(data)
            # Where the structure is: at both ends, most of it.
            for _ in range(chance.randint(1, 4)):
                near = chance.choice([chance.randrange(200), chance.randrange(len(data)), -1 - chance.randrange(900)])
                damaged[near % len(data)] = chance.choice([0, 1, 0x7F, 0xFF, chance.randrange(256)])
            with contextlib.suppress(InputRefused):
                loaded(tmp_path, bytes(damaged), "video" if kind in VIDEOS else "audio")


@pytest.mark.parametrize("kind", [*VIDEOS, *SOUNDS])
def test_without_a_decoder_the_head_tells_the_length(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(made(Clip(kind, rate=10, metadata=TELLING if kind != "ogg" else {})))
    recording = recordings.load(str(path), kind="video" if kind in VIDEOS else "audio", folders=[tmp_path], av=False)

    if kind == "aac":
        assert recording.seconds is None
    else:
        assert recording.seconds is not None
        assert abs(recording.seconds - 2) < Decimal("0.05")
    if kind in VIDEOS:
        assert (recording.width, recording.height) == (64, 48)
    assert CANARY.encode() not in whole(recording)


def test_a_recording_that_cannot_be_cleaned_goes_as_it_is_unless_it_tells_a_place(tmp_path: Path) -> None:
    path = tmp_path / "a.ogg"
    path.write_bytes(made(Clip("ogg", metadata={"title": CANARY})))
    sent = recordings.load(str(path), kind="audio", folders=[tmp_path], av=False)

    assert whole(sent) == path.read_bytes()
    assert "none was removed" in sent.changes[0]
    path.write_bytes(made(Clip("ogg", metadata=TELLING)))
    with pytest.raises(InputRefused, match="says where it was taken"):
        recordings.load(str(path), kind="audio", folders=[tmp_path], av=False)


def test_a_path_elsewhere_is_refused_as_that_of_a_picture_is(tmp_path: Path) -> None:
    allowed, outside = tmp_path / "in", tmp_path / "clip.mp4"
    allowed.mkdir()
    outside.write_bytes(made(Clip("mp4")))
    (allowed / "link.mp4").symlink_to(outside)

    for path in (outside, allowed / "link.mp4"):
        with pytest.raises(InputRefused) as refused:
            recordings.load(str(path), kind="video", folders=[allowed])
        assert "Give the absolute path of a video" in refused.value.next_step


def test_what_a_job_has_saved_is_taken_wherever_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes(made(Clip("mp4")))

    assert recordings.of_saved(path, kind="video").seconds == 2
    with pytest.raises(InputRefused, match="does not exist"):
        recordings.of_saved(tmp_path / "gone.mp4", kind="video")


def test_the_copy_is_of_one_moment_private_and_gone_with_the_last_who_needs_it(tmp_path: Path) -> None:
    data = made(Clip("mp4"))
    recording = loaded(tmp_path, data)
    before = whole(recording)
    (tmp_path / "Lisbon 2026.bin").write_bytes(b"something else")

    assert whole(recording) == before
    assert recording.read(recording.size - 3, 9) == before[-3:]
    assert [path.name for path in tmp_path.iterdir()] == ["Lisbon 2026.bin"]
    close = recording.file.close
    del recording
    assert not close.alive


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    import resource

    path = tmp_path / "a.wav"
    path.write_bytes(made(Clip("wav", seconds=3)))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        with pytest.raises(NotAvailable, match="no room"):
            recordings.load(str(path), kind="audio", folders=[tmp_path])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def test_a_recording_in_a_data_uri_is_taken() -> None:
    data = made(Clip("mp3"))
    source = f"data:video/mp4;base64,{base64.b64encode(data).decode()}"

    assert recordings.load(source, kind="audio", folders=[]).file_name == "audio.mp3"
