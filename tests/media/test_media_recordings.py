"""Videos and sound: known by their bytes, measured, checked against what an endpoint takes, copied before they go."""

from __future__ import annotations

import base64
import hashlib
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from kling_mcp.errors import InputRefused
from kling_mcp.media import recordings
from kling_mcp.media.limits import MediaLimits
from tests.media.recorded import Clip, made

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


def test_a_recording_in_a_data_uri_is_taken() -> None:
    data = made(Clip("mp3"))
    source = f"data:video/mp4;base64,{base64.b64encode(data).decode()}"

    assert recordings.load(source, kind="audio", folders=[]).file_name == "audio.mp3"
