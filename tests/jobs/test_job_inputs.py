"""
The inputs of a call: what is not of its kind is named with what is, each picture is made ready once, and videos and
sound are measured.
"""

from __future__ import annotations

import io
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from kling_mcp.catalog.models import load
from kling_mcp.catalog.plan import plan
from kling_mcp.catalog.pricing import quote_plan
from kling_mcp.errors import InputRefused, KlingError, UnknownJob
from kling_mcp.jobs.inputs import Lookup, lengths, prepared
from kling_mcp.media.pictures import Picture
from kling_mcp.settings import Settings
from kling_mcp.simulator.render import sample_picture
from tests.jobs.support import job
from tests.media.recorded import Clip, made

if TYPE_CHECKING:
    from pathlib import Path

    from kling_mcp.catalog.models import Tool
    from kling_mcp.catalog.pricing import Quote
    from kling_mcp.jobs.draft import PreparedInput
    from kling_mcp.jobs.job import Job

MINE = "/videos/2026-11-25_o3-standard_fox_4f6a9c21.mp4"


async def no_jobs(job_id: str) -> Job:
    raise UnknownJob(job_id)


async def job_of(place: str) -> str | None:
    return "kj_fox" if place in {MINE, "https://v3.fal.media/files/fox.mp4"} else None


async def looked_at(folder: Path, **pictures: str) -> tuple[PreparedInput, ...]:
    wanted = plan(load(), "image_to_video", {"prompt": "The camera pulls back.", **pictures})
    settings = Settings.from_environment(
        {"KLING_MCP_INPUT_DIRS": str(folder), "KLING_MCP_DATA_DIR": str(folder / "state")}
    )
    return await prepared(wanted, settings, Lookup(no_jobs, job_of))


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("image", "said", "way_out"),
    [
        (MINE, "is a video, and a picture is expected", "kling://jobs/kj_fox/last-frame"),
        (
            "https://v3.fal.media/files/fox.mp4",
            "is a video, and a picture is expected",
            "kling://jobs/kj_fox/last-frame",
        ),
        ("/videos/holiday.MOV", "is a video, and a picture is expected", "kling://jobs/{job_id}/last-frame"),
        ("https://example.com/a.webm?x=1", "is a video, and a picture is expected", "kling://jobs/{job_id}/last-frame"),
        ("https://example.com/IMG_1.HEIC", "a HEIC picture, which fal.ai cannot read", "HEIC is converted here"),
        ("https://example.com/logo.svg", "an SVG drawing, which fal.ai cannot read", "save the others as JPEG"),
        ("https://drive.google.com/file/d/1/view", "is a page of Google Drive", "Download the file"),
    ],
)
async def test_what_is_no_picture_is_refused_with_what_works(
    tmp_path: Path, image: str, said: str, way_out: str
) -> None:
    with pytest.raises(InputRefused) as refused:
        await looked_at(tmp_path, image=image)

    assert said in refused.value.what
    assert way_out in refused.value.next_step
    assert refused.value.field == "image"


@pytest.mark.anyio
async def test_a_picture_is_made_ready_once_for_all_places_and_calls_that_have_it(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (400, 320), "teal").save(buffer, "JPEG", exif=turned.tobytes())
    for name in ("one.jpg", "same.jpg"):
        (tmp_path / name).write_bytes(buffer.getvalue())

    first = await looked_at(tmp_path, image=str(tmp_path / "one.jpg"), end_image=f"`{tmp_path / 'same.jpg'}`")
    again = await looked_at(tmp_path, image=str(tmp_path / "same.jpg"))

    assert isinstance(again[0].content, Picture)
    assert (again[0].content.width, again[0].content.height) == (320, 400)
    assert first[0].content is first[1].content is again[0].content


# ---- videos and sound


def speaker(seconds: float = 3.0, size: tuple[int, int] = (1280, 720)) -> bytes:
    return made(Clip("mp4", seconds, size))


FILES = {
    "speaker.mp4": lambda: speaker(),
    "small.mp4": lambda: speaker(size=(320, 240)),
    "long.mp4": lambda: speaker(12.0),
    "speech.mp3": lambda: made(Clip("mp3", 4.0)),
    "still.jpg": sample_picture,
}


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for name, make in FILES.items():
        (folder / name).write_bytes(make())
    return folder


async def ready(
    files: Path, tool: Tool, lookup: Lookup | None = None, **arguments: str
) -> tuple[tuple[PreparedInput, ...], Quote]:
    """The inputs of a call whose values name *files*, and its price."""
    given = {name: str(files / value) if value in FILES else value for name, value in arguments.items()}
    wanted = plan(load(), tool, given)
    settings = Settings.from_environment(
        {"KLING_MCP_INPUT_DIRS": str(files), "KLING_MCP_DATA_DIR": str(files / "state"), "KLING_MCP_OUTPUT_DIR": "none"}
    )
    inputs = await prepared(wanted, settings, lookup or Lookup(no_jobs))
    return inputs, quote_plan(wanted, lengths(inputs))


@pytest.mark.anyio
async def test_a_video_and_sound_are_measured_and_the_price_is_that_of_their_length(files: Path) -> None:
    inputs, price = await ready(files, "lip_sync", video="speaker.mp4", audio="speech.mp3")

    assert [(given.slot.argument, given.url) for given in inputs] == [("video", None), ("audio", None)]
    assert [round(given.seconds or 0) for given in inputs] == [3, 4]
    # In steps of five seconds.
    assert (price.estimated_usd, price.seconds) == (Decimal("0.070"), 3)
    again, _ = await ready(files, "lip_sync", video=f"file://{files / 'speaker.mp4'}", audio="speech.mp3")
    assert [given.identity for given in again] == [given.identity for given in inputs]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        (
            "lip_sync",
            {"video": "small.mp4", "audio": "still.jpg"},
            ["is 320 x 240 pixels", "is a picture, and an audio file is expected"],
        ),
        (
            "motion_control",
            {"image": "still.jpg", "video": "long.mp4", "orientation": "image"},
            ["video is 12 s long; v3-standard takes at most 10 s with orientation image"],
        ),
        (
            "motion_control",
            {"image": "https://example.com/a.mp4", "video": "https://example.com/a.png", "orientation": "video"},
            ["which is a video, and a picture is expected", "is that of a picture, and a video is expected"],
        ),
        ("edit_video", {"video": "kling://jobs/kj_gone/video", "prompt": "Rain."}, ["No job 'kj_gone'"]),
        ("edit_video", {"video": "/etc/passwd", "prompt": "Rain."}, ["is outside the folders"]),
    ],
)
async def test_everything_that_is_wrong_with_the_files_is_said_at_once(
    files: Path, tool: Tool, arguments: dict[str, Any], said: list[str]
) -> None:
    with pytest.raises(KlingError) as refused:
        await ready(files, tool, **arguments)

    assert len(refused.value.faults) == len(said)
    for words in said:
        assert words in refused.value.what
    assert refused.value.billed == "no"


@pytest.mark.anyio
@pytest.mark.parametrize(("seconds", "held_usd"), [(None, "1.89"), ("4.2", "0.63")])
async def test_a_link_is_sent_as_it_is_and_holds_the_longest_where_its_length_cannot_be_told(
    files: Path, seconds: str | None, held_usd: str
) -> None:
    async def length_of(_: str) -> Decimal | None:
        return Decimal(seconds) if seconds else None

    link = "https://example.com/rain.mp4"
    inputs, price = await ready(
        files, "edit_video", Lookup(no_jobs, length_of=length_of), video=link, prompt="Rain.", model="o3-standard"
    )

    assert inputs[0].content == link
    assert price.ceiling_usd == Decimal(held_usd)


@pytest.mark.anyio
async def test_a_video_of_a_job_is_the_saved_file_or_else_the_link_and_the_same_to_the_ledger(files: Path) -> None:
    link = "https://v3.fal.media/files/rain.mp4"
    there = True

    async def still_there(url: str) -> bool:
        return there and url == link

    async def rain(job_id: str, saved_to: str | None) -> tuple[PreparedInput, Quote]:
        async def found(_: str) -> Job:
            return job(job_id, state="completed", saved_to=saved_to, result={"video": {"url": link}})

        lookup = Lookup(found, still_there=still_there)
        inputs, price = await ready(
            files, "edit_video", lookup, video=f"kling://jobs/{job_id}/video", prompt="Rain.", model="o3-standard"
        )
        return inputs[0], price

    saved, measured = await rain("kj_rain", str(files / "speaker.mp4"))
    linked, longest = await rain("kj_rain", str(files / "moved.mp4"))

    assert saved.url is None
    assert linked.url == link
    assert saved.identity == linked.identity == "kling://jobs/kj_rain/video"
    assert measured.estimated_usd < longest.estimated_usd
    there = False
    with pytest.raises(InputRefused, match="leads nowhere any more"):
        await rain("kj_rain", None)


@pytest.mark.anyio
async def test_a_job_that_has_not_ended_has_no_video_yet(files: Path) -> None:
    async def found(job_id: str) -> Job:
        return job(job_id, state="running")

    with pytest.raises(InputRefused, match="which is running, so there is none"):
        await ready(files, "edit_video", Lookup(found), video="kling://jobs/kj_rain/video", prompt="Rain.")
