"""What fal.ai receives of 500 pictures: upright, in the right colours, within its limits, without a private byte."""

from __future__ import annotations

import io
from functools import cache

import pytest
from PIL import Image

from kling_mcp.errors import InputRefused
from kling_mcp.media.pictures import Picture, prepare
from tests.media.gallery import CANARY, LIMITS, Given, gallery

SAMPLE = 7
"""Every so many of them are looked at in the quick run."""

WAYS_OUT = ("Give a ", "Once the whole file is there", "save it as", "export it as")


@cache
def hung() -> tuple[Given, ...]:
    return tuple(gallery())


def made(given: Given, *, imaging: bool) -> Picture | str:
    try:
        return prepare(given.data, f"{CANARY.decode()}.jpg", limits=LIMITS, pillow=imaging, heif=imaging)
    except InputRefused as refusal:
        return str(refusal)


def faults(given: Given, picture: Picture) -> list[str]:
    found = []
    if CANARY in picture.data or CANARY[:8] in picture.file_name.encode():
        found.append("a private byte")
    if len(picture.data) > (LIMITS.max_bytes or 0):
        found.append(f"{len(picture.data)} bytes")
    # As a program reads it that knows no orientation, no colour profile and no alpha.
    with Image.open(io.BytesIO(picture.data)) as opened:
        if opened.size != (picture.width, picture.height) or min(opened.size) < 300:
            found.append(f"{opened.size}")
        image = opened.convert("RGB")
    for number, wanted in enumerate(given.colours or ()):
        at = image.width * (1 + 2 * (number % 2)) // 4, image.height * (1 + 2 * (number // 2)) // 4
        # The mean of a patch, so that grain does not count.
        patch = image.crop((at[0] - 20, at[1] - 20, at[0] + 20, at[1] + 20)).resize((1, 1), Image.Resampling.BOX)
        seen = patch.getpixel((0, 0))
        assert isinstance(seen, tuple)
        if any(abs(a - b) > 26 for a, b in zip(seen, wanted, strict=True)):
            found.append(f"{seen} for {wanted} in quarter {number}")
    return found


def wrong(pictures: tuple[Given, ...], *, imaging: bool) -> dict[str, object]:
    found: dict[str, object] = {}
    for given in pictures:
        got = made(given, imaging=imaging)
        if isinstance(got, Picture):
            trouble = [] if given.unseen and not imaging else faults(given, got) if given.colours else ["taken"]
        elif given.colours is not None and (imaging or given.plain):
            trouble = [got]
        else:
            trouble = [] if any(way in got for way in WAYS_OUT) else [got]
        if trouble:
            found[given.name] = trouble
    return found


@pytest.mark.parametrize("imaging", [True, False])
def test_some_of_the_gallery_comes_out_right(imaging: bool) -> None:
    assert wrong(hung()[::SAMPLE], imaging=imaging) == {}


@pytest.mark.long
@pytest.mark.parametrize("imaging", [True, False])
def test_the_whole_gallery_comes_out_right(imaging: bool) -> None:
    assert len(hung()) > 300
    assert wrong(hung(), imaging=imaging) == {}
