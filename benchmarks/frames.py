"""The last frame and a contact sheet of a finished video, beside decoding it from its beginning."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import av
from PIL import Image

from benchmarks.report import Goal, Table, median
from kling_mcp.media.frames import contact_sheet, last_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.counts import Counts

__all__ = ["measure"]

_SIZE: Final = (1920, 1080)
_FPS: Final = 24
_MOST_SECONDS: Final = 1.0


def measure(counts: Counts) -> Table:
    """A video as long as Kling makes them, or a moment of one."""
    length = 15 if counts.peers else 1
    with tempfile.TemporaryDirectory() as folder:
        video = _moving(Path(folder) / "video.mp4", length * _FPS)
        ways: dict[str, Callable[[], object]] = {
            "last frame": lambda: last_frame(video),
            "nine frames on a sheet": lambda: contact_sheet(video, 9, []),
            "decoding all of it": lambda: _decoded(video),
        }
        taken = {name: [_seconds(work) for _ in range(min(counts.calls, 5))] for name, work in ways.items()}
    last = median(taken["last frame"])
    return Table(
        name="frames",
        title=f"Frames of {length} seconds of 1080p",
        columns=("what", "median, ms"),
        rows=tuple((name, 1000 * median(times)) for name, times in taken.items()),
        goals=(Goal(f"the last frame: under {_MOST_SECONDS:g} s", f"{last:.2f} s", last < _MOST_SECONDS),),
        notes=("PNG of full size, and JPEG of at most 300 kB, included.",),
    )


def _moving(path: Path, frames: int) -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=_FPS, options={"preset": "veryfast"})
        stream.width, stream.height = _SIZE
        stream.pix_fmt = "yuv420p"
        noise = Image.effect_noise((_SIZE[0] // 4, _SIZE[1] // 4), 60).resize((_SIZE[0] + frames, _SIZE[1]))
        for number in range(frames):
            picture = noise.crop((number, 0, number + _SIZE[0], _SIZE[1])).convert("RGB")
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())
    return path


def _decoded(video: Path) -> int:
    with av.open(str(video)) as container:
        return sum(1 for _ in container.decode(container.streams.video[0]))


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
