"""The demo, driven as a person drives it; the longest way is one run of each kind of model."""

from __future__ import annotations

import io
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import kling_mcp
from kling_mcp.catalog.added import AddedEndpoints
from kling_mcp.catalog.models import load
from kling_mcp.catalog.plan import plan
from kling_mcp.commands.demo import _arguments, _film, _Progress, is_mp4
from kling_mcp.commands.terminal import Screen
from kling_mcp.errors import SettingsError

SPEED = "200"
BUNDLED = AddedEndpoints(load())
SAMPLES = Path(kling_mcp.__file__).parent / "simulator"


def run(*arguments: str, videos: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kling_mcp", "demo", *arguments],
        env={**os.environ, "KLING_MCP_SIMULATOR_SPEED": SPEED, "KLING_MCP_OUTPUT_DIR": str(videos), **environment},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def test_a_job_of_three_shots_is_priced_rendered_and_saved(tmp_path: Path) -> None:
    done = run(videos=tmp_path, FAL_KEY="not:used", KLING_MCP_MAX_JOB_USD="0.01")

    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line[:30] for line in lines if line.startswith("Shot")] == [
        "Shot 1     0-3 s  Wide shot: m",
        "Shot 2     3-6 s  Medium shot:",
        "Shot 3     6-9 s  Close-up: a ",
    ]
    happened = [line.split("%  ")[1] for line in lines if "%  " in line]
    assert happened[-4:] == [*(f"rendering shot {number} of 3" for number in (1, 2, 3)), "completed"]
    assert set(happened[:-4]) <= {"in line, place 1"}
    assert [line.count("█") for line in lines if "%  " in line][-4:] == [0, 10, 20, 30]
    assert re.search(r"^Price +\$1\.01, at most \$1\.01: 9 s . \$0\.112/s", done.stdout, re.MULTILINE)
    assert re.search(r"^Cost +\$1\.01, simulated: nothing was charged$", done.stdout, re.MULTILINE)
    (video,) = tmp_path.glob("*.mp4")
    assert f"Video     {video}\n" in done.stdout
    assert is_mp4(video)


@pytest.mark.parametrize(
    ("options", "first", "tool_basis"),
    [
        (["--model", "o1-pro"], "Shot 1     0-5 s", "$0.112/s (one rate, no audio)"),
        (["--model", "v3-turbo-standard", "--shots", "6"], "Shot 1     0-2 s", "$0.112/s (one rate, audio included)"),
    ],
)
def test_models_without_shots_or_sound_have_their_demo_too(
    options: list[str], first: str, tool_basis: str, tmp_path: Path
) -> None:
    picture = tmp_path / "my picture.jpg"
    shutil.copyfile(SAMPLES / "sample.jpg", picture)

    done = run(*options, "--image", str(picture), videos=tmp_path / "videos")

    assert (done.returncode, done.stderr) == (0, "")
    assert f"Picture   {picture}\n{first}" in done.stdout
    assert tool_basis in done.stdout
    assert len(list((tmp_path / "videos").glob("*.mp4"))) == 1


class Terminal(io.StringIO):
    """A terminal that keeps everything that was drawn on it."""

    def isatty(self) -> bool:
        return True


@pytest.mark.anyio
async def test_on_a_terminal_one_line_is_drawn_again_and_again() -> None:
    terminal = Terminal()
    progress = _Progress(_film("o3-standard", 2, BUNDLED), Screen(terminal))

    progress.queued(1)
    progress.queued(0)
    await progress.said(1.0, 100.0, "rendering, about 9 s left: Shot 1 of 2: 25% of the video.")
    await progress.said(2.0, 100.0, "rendering, about 5 s left")
    progress.queued(0)
    await progress.said(3.0, 100.0, "rendering, about 4 s left: Shot 2 of 2: 50% of the video.")
    progress.end("completed")

    drawn = [frame.split() for frame in terminal.getvalue().split("\r\033[K") if frame]
    assert [(bar.count("█"), " ".join(words)) for bar, _, *words in drawn] == [
        (0, "in line, place 2"),
        (0, "in line, place 1"),
        (8, "rendering shot 1 of 2"),
        (15, "rendering shot 2 of 2"),
        (30, "rendering shot 2 of 2"),
        (30, "completed"),
    ]
    assert {bar.index("│") for bar, *_ in drawn} == {15}


@pytest.mark.parametrize("model", [endpoint.model for endpoint in load().of("image-to-video")])
@pytest.mark.parametrize("shots", [None, 1, 2, 6])
def test_every_model_takes_what_the_demo_asks_of_it(model: str, shots: int | None) -> None:
    if load().model(model).argument_of("shot") is None and shots not in {None, 1}:
        with pytest.raises(SettingsError, match=f"1 with {model}"):
            _film(model, shots, BUNDLED)
        return
    film = _film(model, shots, BUNDLED)

    arguments = _arguments(film, SAMPLES / "sample.jpg")
    chosen = plan(load(), "multi_shot_video" if film.shots > 1 else "image_to_video", arguments)

    assert (chosen.endpoint.model, len(chosen.shots) or 1, chosen.seconds) == (model, film.shots, film.cuts[-1])


WRONG = {
    "a picture that is not there": (["--image", "nowhere.png"], 2, "which is not a file"),
    "an unknown model": (["--model", "o3-standart"], 2, "The nearest is o3-standard"),
    "a model that takes no picture to animate": (["--model", "lipsync"], 2, "animates no picture"),
    "no shots": (["--shots", "0"], 2, "It takes 1 to 6"),
    "seven shots": (["--shots", "7"], 2, "It takes 1 to 6"),
    "shots where the model takes one": (["--model", "o1-standard", "--shots", "3"], 2, "It takes 1 with o1-standard"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_option_that_cannot_be_used_ends_it_with_one_line(name: str, tmp_path: Path) -> None:
    options, code, words = WRONG[name]

    done = run(*options, videos=tmp_path)

    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_video_that_cannot_be_saved_fails_the_demo(tmp_path: Path) -> None:
    in_the_way = tmp_path / "a file"
    in_the_way.touch()

    done = run("--shots", "1", videos=in_the_way / "videos")

    assert done.returncode == 1
    assert re.search(r"^Failed +completed: ", done.stdout, re.MULTILINE)


def box(kind: bytes, payload: bytes = b"") -> bytes:
    return struct.pack(">I", 8 + len(payload)) + kind + payload


MP4 = box(b"ftyp", b"isom") + box(b"moov", b"....") + box(b"mdat", b"....")
FILES = {
    "three boxes": (MP4, True),
    "a box with a long length": (MP4 + struct.pack(">I4sQ", 1, b"free", 16), True),
    "nothing": (b"", False),
    "no pictures": (MP4[:-12], False),
    "a box that is cut": (MP4[:-1], False),
    "text": (b"<html>not a video</html>", False),
    "a box of no length": (MP4 + bytes(8), False),
    "another order": (box(b"moov") + box(b"ftyp") + box(b"mdat"), False),
}


@pytest.mark.parametrize("name", FILES)
def test_an_mp4_is_known_by_its_boxes(name: str, tmp_path: Path) -> None:
    data, expected = FILES[name]
    path = tmp_path / "video.mp4"
    path.write_bytes(data)

    assert is_mp4(path) is expected


def test_the_bundled_video_is_an_mp4() -> None:
    assert is_mp4(SAMPLES / "sample.mp4")
