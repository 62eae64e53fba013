"""
What an assistant can see of a video, and the next video that begins where one ended.

The simulator draws each shot with a square of its own colour, so a picture tells which shot it is from.
"""

from __future__ import annotations

import base64
import io
import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import av
import mcp_types as t
import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.shared.exceptions import MCPError
from PIL import Image, ImageChops, ImageStat

from kling_mcp.media.frames import contact_sheet, last_frame
from kling_mcp.media.optional import INSTALL_HINT
from kling_mcp.simulator.app import Simulator
from kling_mcp.simulator.faults import Hang
from kling_mcp.simulator.render import MARKERS, sample_picture, sample_video
from kling_mcp.simulator.serve import serving
from tests.server.hosts import NEWER, OLDER, ServerHarness, data, finished, house, refused

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

pytestmark = pytest.mark.anyio

MOST_BYTES = 300_000
SHOTS = [
    {"prompt": "Wide shot: the boat drifts.", "duration": 5},
    {"prompt": "Medium shot: the sail.", "duration": 3},
    {"prompt": "Close-up: the sun.", "duration": 4},
]


@asynccontextmanager
async def cinema(tmp_path: Path, transport: str = "memory") -> AsyncGenerator[ServerHarness]:
    """A house whose videos are drawn, with a picture to begin them from."""
    await anyio.Path(tmp_path / "boat.jpg").write_bytes(sample_picture())
    simulator = Simulator(speed=200)
    async with house(tmp_path, KLING_MCP_CONFIRM_ABOVE_USD="5") as plain, serving(simulator) as urls:
        yield ServerHarness(simulator, plain.environment | urls.environment(), transport)


def film(tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {"image": str(tmp_path / "boat.jpg"), "shots": SHOTS, "generate_audio": False, **more}


def seen(result: t.CallToolResult) -> tuple[str, bytes]:
    """The text and the JPEG of an answer that has nothing else."""
    assert not result.is_error, result.content
    assert result.structured_content is None
    text, picture = result.content
    assert isinstance(text, t.TextContent)
    assert isinstance(picture, t.ImageContent)
    assert picture.mime_type == "image/jpeg"
    return text.text, base64.b64decode(picture.data)


def shown(data: bytes, kind: str = "JPEG") -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    assert picture.format == kind
    return picture


def shot_at(picture: Image.Image, x: int, y: int) -> int:
    """The number of the shot whose colour is at a place."""
    found = picture.getpixel((x, y))
    assert isinstance(found, tuple)
    distances = [sum(abs(a - b) for a, b in zip(found, colour, strict=True)) for colour in MARKERS]
    assert min(distances) < 60, found
    return distances.index(min(distances)) + 1


@pytest.mark.parametrize(("transport", "era"), [("memory", OLDER), ("stdio", NEWER), ("http", NEWER)])
async def test_the_frames_are_the_shots_in_their_order(transport: str, era: str, tmp_path: Path) -> None:
    """
    Twelve seconds of three shots, cut at 5 and 8: the middles of four parts are at 1.5, 4.5, 7.5 and 10.5.
    """
    with anyio.fail_after(60):
        async with cinema(tmp_path, transport) as place, place.connect(era) as client:
            job_id = data(await client.call_tool("multi_shot_video", film(tmp_path)))["job_id"]
            saved = Path((await finished(client, job_id))["video"]["saved_to"])
            four, nine, one = [
                seen(await client.call_tool("view_video", {"job_id": job_id, **frames}))
                for frames in ({}, {"frames": 9}, {"frames": "1"})
            ]

    for (_, sheet), count, columns, expected in (
        (four, 4, 2, [1, 1, 2, 3]),
        # At 0.7, 2.0, 3.3, 4.7, 6.0, 7.3, 8.7, 10.0 and 11.3 seconds.
        (nine, 9, 3, [1, 1, 1, 1, 2, 2, 3, 3, 3]),
        (one, 1, 1, [2]),
    ):
        picture = shown(sheet)
        width, height = picture.width // columns, picture.height // columns
        corners = [(number % columns * width + 20, number // columns * height + 20) for number in range(count)]
        assert [shot_at(picture, *corner) for corner in corners] == expected
        assert len(sheet) <= MOST_BYTES
        # Times and shots are written as `contact_sheet` writes them, which its own tests look at.
        assert sheet == contact_sheet(saved, count, [(0.0, "shot 1"), (5.0, "shot 2"), (8.0, "shot 3")])
    assert four[0].startswith(f"4 frames in reading order of the video of job {job_id}, saved at {saved}.")
    assert "shot 2, 5 to 8 s: Medium shot: the sail." in four[0]


async def test_a_video_of_one_shot_and_a_call_with_words_for_numbers_are_understood(tmp_path: Path) -> None:
    """
    The times are those that the job was planned with, not those that the call spelt.
    """
    long = "The boat drifts. " * 30
    calls = [
        ("image_to_video", {"image": str(tmp_path / "boat.jpg"), "prompt": long}, [(0.0, "shot 1")]),
        (
            "multi_shot_video",
            {"image": str(tmp_path / "boat.jpg"), "shots": '[{"prompt": "a", "duration": "2"}, {"prompt": "b"}]'},
            [(0.0, "shot 1"), (2.0, "shot 2")],
        ),
    ]
    with anyio.fail_after(60):
        async with cinema(tmp_path) as place, place.connect(NEWER) as client:
            for tool, arguments, labels in calls:
                job_id = data(await client.call_tool(tool, arguments))["job_id"]
                saved = Path((await finished(client, job_id))["video"]["saved_to"])
                text, sheet = seen(await client.call_tool("view_video", {"job_id": job_id, "frames": 2}))
                assert sheet == contact_sheet(saved, 2, labels)
                assert len(text) < 700


async def test_a_video_that_is_not_there_is_refused_with_what_would_help(tmp_path: Path) -> None:
    """
    Whatever is missing, the answer says what to do, and says nothing of the money that is not so.
    """
    call = {"image": "https://pictures.example.com/boat.png", "prompt": "The boat drifts.", "duration": 3}
    file = tmp_path / "no-folder"
    await anyio.Path(file).write_text("a file")
    with anyio.fail_after(60):
        async with house(tmp_path / "a") as place, place.connect(NEWER) as client:
            for arguments, field in (({}, "job_id"), ({"job_id": "kj_x", "frames": 10}, "frames")):
                error = refused(await client.call_tool("view_video", arguments))
                assert (error["code"], error["field"]) == ("invalid_arguments", field)
            assert refused(await client.call_tool("view_video", {"job_id": "kj_none"}))["code"] == "unknown_job"

            place.simulator.faults.fail("content_policy_violation")
            job_id = (await started(client, call))["job_id"]
            assert (await finished(client, job_id))["state"] == "failed"
            result = await client.call_tool("view_video", {"job_id": job_id})
            assert refused(result)["code"] == "invalid_arguments"
            assert "is failed" in said(result)
            assert "what became of it" in said(result)

            place.simulator.faults.add("download", Hang())
            job_id = (await started(client, {**call, "take": 2}))["job_id"]
            while data(await client.call_tool("get_job", {"job_id": job_id}))["state"] != "completed":
                await anyio.lowlevel.checkpoint()
            result = await client.call_tool("view_video", {"job_id": job_id})
            assert refused(result)["code"] == "not_available"
            assert "still being saved. It was charged. get_job" in said(result)

        async with house(tmp_path / "b", speed=0.1) as place, place.connect(NEWER) as client:
            job_id = (await started(client, call))["job_id"]
            result = await client.call_tool("view_video", {"job_id": job_id})
            assert refused(result)["next_step"] == f"get_job with job_id {job_id} and wait_seconds 45 waits."
            assert "Nothing was charged" not in said(result)

        for folder, words in (("none", "KLING_MCP_OUTPUT_DIR is set to none"), (str(file), "could not be saved")):
            place_of = tmp_path / str(len(folder))
            async with (
                house(place_of, KLING_MCP_OUTPUT_DIR=folder) as place,
                place.connect(NEWER) as client,
            ):
                job_id = (await started(client, call))["job_id"]
                await client.call_tool("get_job", {"job_id": job_id, "wait_seconds": 20})
                result = await client.call_tool("view_video", {"job_id": job_id})
                assert refused(result)["code"] == "not_available"
                assert words in said(result)
                assert f"get_job with job_id {job_id}" in said(result)


async def test_a_saved_video_that_somebody_took_away_is_said_to_be_gone(tmp_path: Path) -> None:
    with anyio.fail_after(60):
        async with cinema(tmp_path) as place, place.connect(NEWER) as client:
            job_id = data(await client.call_tool("multi_shot_video", film(tmp_path)))["job_id"]
            saved = anyio.Path((await finished(client, job_id))["video"]["saved_to"])
            await saved.unlink()
            result = await client.call_tool("view_video", {"job_id": job_id})
            await saved.mkdir()
            again = {"image": f"kling://jobs/{job_id}/last-frame", "prompt": "It goes on."}
            continued = await client.call_tool("image_to_video", again)

    for answer in (result, continued):
        assert refused(answer)["code"] == "not_available"
        assert "not there" in said(answer)
        assert "get_job has the link" in said(answer)


async def test_where_videos_cannot_be_decoded_nothing_offers_it_and_everything_else_works(tmp_path: Path) -> None:
    """
    A server without PyAV and Pillow: its simulator shows the bundled video.
    """
    without = "import sys; sys.modules.update(av=None, PIL=None); from kling_mcp.__main__ import main; sys.exit(main())"
    command = StdioServerParameters(
        command=sys.executable,
        args=["-c", without],
        env={
            **os.environ,
            "KLING_MCP_BACKEND": "simulator",
            "KLING_MCP_SIMULATOR_SPEED": "200",
            "KLING_MCP_POLL_SECONDS": "0.05",
            "KLING_MCP_DATA_DIR": str(tmp_path / "state"),
            "KLING_MCP_OUTPUT_DIR": str(tmp_path / "videos"),
        },
    )
    call = {"image": "https://pictures.example.com/boat.png", "prompt": "The boat drifts."}
    with anyio.fail_after(60):
        async with Client(command) as client:
            job = await finished(client, (await started(client, call))["job_id"])
            offered = [
                *(tool.model_dump_json() for tool in (await client.list_tools()).tools),
                *(one.model_dump_json() for one in (await client.list_resource_templates()).resource_templates),
                client.instructions or "",
                str(job),
            ]
            with pytest.raises(MCPError, match="There is no tool 'view_video'"):
                await client.call_tool("view_video", {"job_id": job["job_id"]})
            continued = await client.call_tool(
                "image_to_video", {**call, "image": f"kling://jobs/{job['job_id']}/last-frame"}
            )

            for wrong in (
                {"image": job["video"]["saved_to"]},
                {"image": job["video"]["url"]},
                {"image": "clip.mp4"},
                {"image": f"kling://jobs/{job['job_id']}/video"},
                {"image": "kling://somewhere"},
                {"image": None},
                {"duration": 60},
            ):
                offered.append(refused(await client.call_tool("image_to_video", {**call, **wrong}))["next_step"])

    assert await anyio.Path(job["video"]["saved_to"]).read_bytes() == sample_video((), None, None)
    assert len(offered) > 10
    assert [text for text in offered if "view_video" in text or "last-frame" in text] == []
    assert refused(continued)["code"] == "not_available"
    assert INSTALL_HINT in said(continued)


async def test_a_video_goes_on_where_another_ended_shot_after_shot(tmp_path: Path) -> None:
    """
    Three jobs, each begun with the last frame of the one before: fal is given that very picture.
    """
    with anyio.fail_after(90):
        async with cinema(tmp_path) as place, place.connect(NEWER) as client:
            image, before = str(tmp_path / "boat.jpg"), None
            for prompt in ("The boat drifts.", "It turns.", "It lands."):
                call = {"image": image, "prompt": prompt, "duration": 3}
                job = await finished(client, data(await client.call_tool("image_to_video", call))["job_id"])
                saved = Path(job["video"]["saved_to"])
                if before is not None:
                    accepted = place.simulator.accepted[-1]
                    uploaded = place.simulator.files.by_url(str(accepted.body["image_url"]))
                    assert uploaded is not None
                    assert uploaded.content_type == "image/png"
                    given = shown(uploaded.data, "PNG")
                    assert difference(given, shown(last_frame(before), "PNG")) == 0
                    assert difference(given, frame_of(before, last=True)) < 3
                    assert difference(unmarked(given), unmarked(frame_of(saved, last=False))) < 6
                    # It is not just that all pictures are alike here.
                    assert difference(given, frame_of(before, last=False)) > 6
                before, image = saved, f"kling://jobs/{job['job_id']}/last-frame"
            (part,) = (await client.read_resource(image)).contents

    assert isinstance(part, t.BlobResourceContents)
    assert part.mime_type == "image/png"
    assert before is not None
    assert base64.b64decode(part.blob) == last_frame(before)
    assert len(place.simulator.accepted) == 3


def frame_of(video: Path, *, last: bool) -> Image.Image:
    with av.open(str(video)) as container:
        frames = list(container.decode(video=0))
    return frames[-1 if last else 0].to_image()


def difference(one: Image.Image, other: Image.Image) -> float:
    """How far the pictures are apart on average, of 255."""
    assert one.size == other.size
    return sum(ImageStat.Stat(ImageChops.difference(one.convert("RGB"), other.convert("RGB"))).mean) / 3


def unmarked(picture: Image.Image) -> Image.Image:
    """The part of a drawn picture that holds no caption and no colour of a shot."""
    return picture.crop((150, 150, picture.width, picture.height - 170))


async def started(client: Client, call: dict[str, Any]) -> dict[str, Any]:
    return data(await client.call_tool("image_to_video", call))


def said(result: t.CallToolResult) -> str:
    (text,) = result.content
    assert isinstance(text, t.TextContent)
    return text.text
