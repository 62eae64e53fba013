"""Four clips as one film, beside ffmpeg's own joining, and the animatic that shows it before it is paid for."""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
import time
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import av
from PIL import Image

from benchmarks.report import Goal, Table, median
from kling_mcp.media.animatic import AnimaticShot, animatic, small_animatic
from kling_mcp.media.joining import Clip, join

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.counts import Counts

__all__ = ["measure"]

_SIZE: Final = (1280, 720)
_FPS: Final = 24
_RATE: Final = 48_000
_CLIPS: Final = 4
_MOST_ANIMATIC_SECONDS: Final = 6.0


def measure(counts: Counts) -> Table:
    """Four clips of five seconds, or of one."""
    length = 5 if counts.peers else 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = [_clip(folder / f"clip {number}.mp4", length * _FPS, "veryfast") for number in range(_CLIPS)]
        other = _clip(folder / "other.mp4", length * _FPS, "ultrafast")
        still = _still()
        shots = [AnimaticShot(f"Clip {number}", "A fox leaps.", Decimal(length), still) for number in range(1, 4)]
        ways: dict[str, Callable[[], object]] = {
            "join, copied": lambda: anyio.run(join, [Clip(clip) for clip in clips], folder / "film.mp4"),
            "join, rendered": lambda: anyio.run(join, [Clip(clips[0]), Clip(other)], folder / "film.mp4"),
            "animatic, three stills": lambda: animatic(shots, folder / "animatic.mp4"),
            "animatic that is sent": lambda: small_animatic(shots),
        }
        if shutil.which("ffmpeg"):
            listed = folder / "list.txt"
            listed.write_text("".join(f"file '{clip}'\n" for clip in clips), encoding="utf-8")
            ways["ffmpeg -f concat -c copy"] = lambda: _concatenated(listed, folder / "theirs.mp4")
        taken = {what: [_seconds(work) for _ in range(min(counts.calls, 3))] for what, work in ways.items()}
        offsets = [
            ("sound of the last clip, kling-mcp", _late_ms(folder / "film.mp4", length)),
            *([("sound of the last clip, ffmpeg", _late_ms(folder / "theirs.mp4", length))] if len(ways) > 4 else []),
        ]
    shown = median(taken["animatic, three stills"])
    return Table(
        name="film",
        title=f"A film of {_CLIPS} clips of {length} s of 720p",
        columns=("what", "median, ms"),
        rows=(*((what, 1000 * median(times)) for what, times in taken.items()), *offsets),
        goals=(
            Goal("the sound of the last clip: within 1 ms", f"{offsets[0][1]:.2f} ms", abs(offsets[0][1]) <= 1),
            Goal(
                f"the animatic: under {_MOST_ANIMATIC_SECONDS:g} s",
                f"{shown:.1f} s",
                shown < _MOST_ANIMATIC_SECONDS,
            ),
        ),
        notes=(
            "Joining includes the start of its process. Rendered: two clips, coded differently.",
            "The sound of the last clip is how much later it begins than its first picture, as PyAV decodes it.",
        ),
    )


def _clip(path: Path, frames: int, preset: str) -> Path:
    """Moving noise, and a tone that begins with it."""
    opened: Any = av.open(str(path), "w")
    with opened as container:
        video = container.add_stream("libx264", rate=_FPS, options={"preset": preset})
        video.width, video.height = _SIZE
        video.pix_fmt = "yuv420p"
        sound = container.add_stream("aac", rate=_RATE)
        sound.layout = "mono"
        noise = Image.effect_noise((_SIZE[0] // 4, _SIZE[1] // 4), 60).resize((_SIZE[0] + frames, _SIZE[1]))
        for number in range(frames):
            picture = noise.crop((number, 0, number + _SIZE[0], _SIZE[1])).convert("RGB")
            container.mux(video.encode(av.VideoFrame.from_image(picture)))
        container.mux(video.encode(None))
        kind: Any = av.AudioFrame
        samples = frames * _RATE // _FPS
        for begin in range(0, samples, 1024):
            heard = kind(format="fltp", layout="mono", samples=min(1024, samples - begin))
            heard.sample_rate, heard.pts, heard.time_base = _RATE, begin, Fraction(1, _RATE)
            # Loud from a quarter to a half of a second, and nothing else.
            data = memoryview(bytearray(heard.planes[0].buffer_size)).cast("f")
            for at in range(heard.samples):
                if _RATE // 4 <= begin + at < _RATE // 2:
                    data[at] = 0.5 if (begin + at) // 12 % 2 else -0.5
            heard.planes[0].update(data.tobytes())
            container.mux(sound.encode(heard))
        container.mux(sound.encode(None))
    return path


def _late_ms(film: Path, length: int) -> float:
    """How much later than it should the last clip is heard."""
    due = (_CLIPS - 1) * length
    with av.open(str(film), "r") as container:
        for frame in container.decode(audio=0):
            begin = float((frame.pts or 0) * Fraction(frame.time_base or 0))
            data = memoryview(bytes(frame.planes[0])).cast("f")
            for at in range(frame.samples):
                if begin + at / _RATE > due and abs(data[at]) > 0.15:
                    return 1000 * (begin + at / _RATE - due - 0.25)
    return float("inf")


def _still() -> bytes:
    buffer = io.BytesIO()
    noise = Image.effect_noise((64, 36), 80).resize((1920, 1080), Image.Resampling.BICUBIC)
    Image.merge("RGB", (noise, noise.transpose(Image.Transpose.FLIP_LEFT_RIGHT), noise)).save(buffer, "JPEG")
    return buffer.getvalue()


def _concatenated(listed: Path, target: Path) -> None:
    command = ["ffmpeg", "-v", "error", "-y", "-f", "concat", "-safe", "0", "-i", str(listed), "-c", "copy"]
    subprocess.run([*command, str(target)], check=True, capture_output=True)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
