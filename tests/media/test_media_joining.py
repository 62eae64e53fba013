"""Clips become one film: every picture, in its order, and the sound where it was."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

import anyio
import av
import pytest

from kling_mcp.errors import NotAvailable
from kling_mcp.media.joining import BeingJoined, Clip, Joined, join, join_here
from kling_mcp.media.partial_file import UnfinishedFile
from tests.media import clips as made

if TYPE_CHECKING:
    from pathlib import Path

MOST_KB = 100 * 1024
PEAK_OF_CHILD = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-m", "kling_mcp.media.joining"], input=sys.stdin.buffer.read(), check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
"""

pytestmark = pytest.mark.anyio

SOUNDS: list[tuple[tuple[int, str] | None, float | None]] = [
    (None, None),
    ((44_100, "stereo"), None),
    ((48_000, "mono"), None),
    ((44_100, "stereo"), 0.9),
    ((48_000, "stereo"), 1.6),
]
DIFFERENT = {
    "another size": made.Clip(size=(240, 140)),
    "another rate": made.Clip(rate=30, frames=30),
    "another rate of film": made.Clip(rate=25, frames=25),
    "no B-frames": made.Clip(options={"crf": "12", "preset": "veryfast", "bf": "0"}),
    "another profile": made.Clip(options={"crf": "12", "preset": "veryfast", "profile": "main"}),
    "HEVC": made.Clip(codec="libx265", options={"crf": "12", "preset": "ultrafast", "x265-params": "log-level=error"}),
    "fuller colours": made.Clip(pixels="yuv444p"),
}


def _clips(folder: Path, *clips: made.Clip) -> list[Clip]:
    return [Clip(made.write(folder / f"{number}.mp4", clip)) for number, clip in enumerate(clips)]


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _expected_clicks(*clips: made.Clip) -> list[float]:
    """A quarter of a second into each second of each clip's sound, as far as its pictures last."""
    found, begin = list[float](), Fraction(0)
    for clip in clips:
        length = Fraction(clip.frames, clip.rate)
        heard = 0.0 if clip.sound is None else min(float(length), clip.sound_seconds or float(length))
        found += [float(begin) + 0.25 + second for second in range(int(heard) + 1) if 0.25 + second < heard]
        begin += length
    return found


def _worst_ms(expected: list[float], found: list[float]) -> float:
    assert len(found) == len(expected)
    return max(abs(one - other) for one, other in zip(expected, found, strict=True)) * 1000


def test_clips_that_are_coded_alike_are_copied_picture_by_picture_with_their_sound_in_place(tmp_path: Path) -> None:
    plans = [
        made.Clip(frames=24 + number, begins_with=100 * number, sound=sound, sound_seconds=seconds)
        for number, (sound, seconds) in enumerate(SOUNDS)
    ]
    sources = _clips(tmp_path, *plans)

    joined = join_here(sources, tmp_path / "film.mp4")

    count = sum(plan.frames for plan in plans)
    assert joined == Joined(tmp_path / "film.mp4", "copied", Decimal("5.417"), count)
    shown = made.numbers_in(joined.path)
    assert [number for number, _ in shown] == [
        plan.begins_with + number for plan in plans for number in range(plan.frames)
    ]
    assert [time for _, time in shown] == [Fraction(number, 24) for number in range(count)]
    assert made.packets_in(joined.path) == [packet for clip in sources for packet in made.packets_in(clip.video)]
    assert _worst_ms(_expected_clicks(*plans), made.clicks_by_pyav(joined.path)) <= 1


@pytest.mark.parametrize("what", DIFFERENT)
def test_a_clip_that_is_coded_otherwise_makes_the_film_be_encoded_with_exact_counts(tmp_path: Path, what: str) -> None:
    """Film, acceptance 6."""
    if DIFFERENT[what].codec not in av.codecs_available:
        pytest.skip("this PyAV has no HEVC encoder")
    plans = [made.Clip(), made.Clip(begins_with=300), DIFFERENT[what]]
    sources = _clips(tmp_path, *plans)

    joined = join_here([sources[0], Clip(sources[1].video, drops_first=True), sources[2]], tmp_path / "film.mp4")

    assert (joined.how, joined.frames) == ("rendered", 24 + 23 + 24)
    shown = made.numbers_in(joined.path)
    assert [number for number, _ in shown[:47]] == [*range(24), *range(301, 324)]
    assert len(shown) == 71
    assert [time for _, time in shown] == [Fraction(number, 24) for number in range(71)]
    expected = [0.25, 1 + 0.25 - 1 / 24, 47 / 24 + 0.25]
    assert _worst_ms(expected, made.clicks_by_pyav(joined.path)) <= 1


def test_clips_ten_decibels_apart_are_equally_loud_in_the_film(tmp_path: Path) -> None:
    """Film, acceptance 6."""
    plans = [made.Clip(frames=48, tone=True, loudness=level) for level in (0.2, 0.2 * 10 ** (-10 / 20), 0.2)]

    joined = join_here(_clips(tmp_path, *plans), tmp_path / "film.mp4")

    levels = list[float]()
    with av.open(str(joined.path)) as container:
        sums: dict[int, list[float]] = {}
        for frame in container.decode(audio=0):
            assert frame.pts is not None
            time = float(frame.pts * Fraction(frame.time_base or 0))
            # Away from the fades at both ends.
            if 0.5 < time % 2 < 1.5:
                values = memoryview(bytes(frame.planes[0])).cast("f")[: frame.samples]
                sums.setdefault(int(time // 2), []).append(max(values))
        levels = [max(values) for _, values in sorted(sums.items())]
    # 1 LU is a decibel.
    assert max(levels) / min(levels) <= 10 ** (1 / 20)


def test_a_film_of_silent_clips_has_no_sound_track(tmp_path: Path) -> None:
    joined = join_here(_clips(tmp_path, made.Clip(sound=None), made.Clip(sound=None)), tmp_path / "film.mp4")

    with av.open(str(joined.path)) as container:
        assert not container.streams.audio


def test_a_file_that_has_the_name_stays_and_the_film_gets_another(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"mine")

    joined = join_here(_clips(tmp_path, made.Clip(sound=None)), tmp_path / "film.mp4")

    assert (tmp_path / "film.mp4").read_bytes() == b"mine"
    assert joined.path == tmp_path / "film (2).mp4"
    assert len(made.numbers_in(joined.path)) == 24


def test_a_file_that_a_killed_process_had_just_published_is_kept_and_the_film_is_another(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"an earlier film")
    (tmp_path / "film.mp4.part").hardlink_to(tmp_path / "film.mp4")

    joined = join_here(_clips(tmp_path, made.Clip(sound=None)), tmp_path / "film.mp4")

    assert (tmp_path / "film.mp4").read_bytes() == b"an earlier film"
    assert (joined.path, len(made.numbers_in(joined.path))) == (tmp_path / "film (2).mp4", 24)


async def test_a_film_that_another_process_is_joining_is_left_to_it(tmp_path: Path) -> None:
    sources = _clips(tmp_path, made.Clip(sound=None))
    other = UnfinishedFile.claim(tmp_path, "film.mp4")

    with anyio.fail_after(60), pytest.raises(BeingJoined):
        await join(sources, tmp_path / "film.mp4")
    other.close()


async def test_the_child_process_joins_and_leaves_nothing_beside_the_film(tmp_path: Path) -> None:
    sources = _clips(tmp_path, made.Clip(), made.Clip(begins_with=50))

    with anyio.fail_after(60):
        joined = await join(sources, tmp_path / "film.mp4")

    assert joined == Joined(tmp_path / "film.mp4", "copied", Decimal(2), 48)
    assert _names(tmp_path) == ["0.mp4", "1.mp4", "film.mp4"]


async def test_a_damaged_clip_is_named_as_the_reason_and_no_film_is_left(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")

    with anyio.fail_after(60), pytest.raises(NotAvailable, match="a clip is damaged"):
        await join([Clip(tmp_path / "bad.mp4")], tmp_path / "film.mp4")

    assert _names(tmp_path) == ["bad.mp4"]


async def test_a_join_beyond_its_time_ends_and_the_next_one_takes_up_its_place(tmp_path: Path) -> None:
    sources = _clips(tmp_path, made.Clip())

    with anyio.fail_after(60), pytest.raises(NotAvailable, match="took longer than 0 seconds"):
        await join(sources, tmp_path / "film.mp4", timeout_seconds=0.01)

    assert not (tmp_path / "film.mp4").exists()
    assert join_here(sources, tmp_path / "film.mp4").path == tmp_path / "film.mp4"


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="other systems count memory in other units")
def test_twenty_four_large_clips_are_copied_in_a_hundred_megabytes(tmp_path: Path) -> None:
    """Film, acceptance 5."""
    large = made.Clip(frames=24, size=(1280, 720), options={"preset": "ultrafast", "qp": "1", "threads": "1"})
    clip = made.write(tmp_path / "clip.mp4", large)
    order = {"clips": [[str(clip), False]] * 24, "target": str(tmp_path / "film.mp4")}

    done = subprocess.run(
        [sys.executable, "-c", PEAK_OF_CHILD], input=json.dumps(order).encode(), capture_output=True, check=True
    )

    assert json.loads(done.stdout)["how"] == "copied"
    assert int(done.stderr.split()[-1]) <= MOST_KB


@pytest.mark.long
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the ffmpeg program is not installed")
async def test_twenty_four_clips_of_mixed_sound_do_not_drift_in_either_decoder(tmp_path: Path) -> None:
    """Film, acceptance 5."""
    plans = [
        made.Clip(frames=(72, 120, 121)[number % 3], begins_with=125 * number, sound=sound, sound_seconds=None)
        for number, (sound, _) in ((number, SOUNDS[number % len(SOUNDS)]) for number in range(24))
    ]
    sources = _clips(tmp_path, *plans)

    with anyio.fail_after(240):
        joined = await join(sources, tmp_path / "film.mp4")

    assert joined.how == "copied"
    shown = made.numbers_in(joined.path)
    assert [number for number, _ in shown] == [
        plan.begins_with + number for plan in plans for number in range(plan.frames)
    ]
    assert [time for _, time in shown] == [Fraction(number, 24) for number in range(joined.frames)]
    assert made.packets_in(joined.path) == [packet for clip in sources for packet in made.packets_in(clip.video)]
    assert _worst_ms(_expected_clicks(*plans), made.clicks_by_pyav(joined.path)) <= 1
    assert _worst_ms(_expected_clicks(*plans), made.clicks_by_ffmpeg(joined.path)) <= 1
