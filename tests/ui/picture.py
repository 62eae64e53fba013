"""
The picture of the job's page in the README, made anew by ``python -m tests.ui.picture``.

It is what a host shows: the page, the server and the simulator's video, photographed while it plays.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path
from typing import Final

import anyio

from . import chromium
from .host import DARK, theatre

TARGET: Final = Path(__file__).parents[2] / "docs" / "images" / "job-card.png"
MOST_BYTES: Final = 150_000

_SHOTS: Final = [
    {"prompt": "Wide shot: a small boat drifts across the bay at dusk.", "duration": 5},
    {"prompt": "Medium shot: the sail catches the last light, pan left.", "duration": 3},
    {"prompt": "Close-up: the sun touches the horizon, static camera.", "duration": 4},
]


def main() -> int:
    """Make the picture; 1 where there is no Chromium."""
    if chromium.binary() is None:
        sys.stderr.write("Chromium is not installed.\n")
        return 1
    with tempfile.TemporaryDirectory() as folder, chromium.running(Path(folder) / "profile") as debugger:
        png = _small(anyio.run(_photographed, Path(folder), debugger))
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_bytes(png)
    sys.stdout.write(f"{TARGET}: {len(png)} bytes\n")
    return 0


async def _photographed(folder: Path, debugger: str) -> bytes:
    async with theatre(folder, debugger) as house:
        call = {"image": str(house.image), "shots": _SHOTS, "generate_audio": True}
        job = (await house.client.call_tool("multi_shot_video", call)).structured_content
        house.clock.advance(211)
        while not (job and job["video"] and job["video"]["saved_to"]):
            looked = {"job_id": job["job_id"] if job else "", "wait_seconds": 5}
            job = (await house.client.call_tool("get_job", looked)).structured_content
            house.clock.advance(5)
        # Nobody's folder, in place of a temporary one.
        elsewhere = {str(folder): "/home/ana"}
        shown = {"arguments": {"job_id": job["job_id"]}, "context": DARK, "stale": elsewhere}
        async with house.show("get_job", **shown, width=640, scale=1.5) as view:
            await view.page.until("!player.hidden && player.duration > 0")
            await view.page.run("seek(6)")
            await view.page.until("player.currentTime > 6.6")
            return await view.picture()


def _small(png: bytes) -> bytes:
    """The picture in 256 colours, which it can do with."""
    from PIL import Image

    file = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256, kmeans=4).save(file, "PNG", optimize=True)
    assert len(file.getvalue()) <= MOST_BYTES, len(file.getvalue())
    return file.getvalue()


if __name__ == "__main__":
    sys.exit(main())
