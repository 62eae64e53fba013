"""The pictures of a call: what is no picture is named with what is, and each picture is made ready once."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from kling_mcp.catalog.models import load
from kling_mcp.catalog.plan import plan
from kling_mcp.errors import InputRefused
from kling_mcp.jobs.pictures import framed
from kling_mcp.media.pictures import Picture
from kling_mcp.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from kling_mcp.jobs.draft import Frame

MINE = "/videos/2026-11-25_o3-standard_fox_4f6a9c21.mp4"


async def nothing_saved(_: str) -> str | None:
    return None


async def job_of(place: str) -> str | None:
    return "kj_fox" if place in {MINE, "https://v3.fal.media/files/fox.mp4"} else None


async def looked_at(folder: Path, **pictures: str) -> tuple[Frame, ...]:
    wanted = plan(load(), "image_to_video", {"prompt": "The camera pulls back.", **pictures})
    settings = Settings.from_environment(
        {"KLING_MCP_INPUT_DIRS": str(folder), "KLING_MCP_DATA_DIR": str(folder / "state")}
    )
    return await framed(wanted, settings, nothing_saved, job_of=job_of)


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
