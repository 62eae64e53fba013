"""Pictures: judged by their header, freed of what tells about their owner, made to fit or refused with numbers."""

from __future__ import annotations

import base64
import io
import os
import random
import socket
import struct
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from kling_mcp.errors import InputRefused
from kling_mcp.media.image_probe import Malformed, inspect
from kling_mcp.media.optional import INSTALL_HINT
from kling_mcp.media.pictures import MediaLimits, Picture, kind_of, load, prepare
from kling_mcp.media.sources import path_of

LOCATION = b"51.4779 north"
ORIENTATION, GPS_BLOCK, GPS_LATITUDE_REF, DESCRIPTION = 0x0112, 0x8825, 1, 0x010E


def drawn(size: tuple[int, int] = (40, 30), mode: str = "RGB") -> Image.Image:
    """A picture whose upper left corner is red, so that turning shows."""
    image = Image.new(mode, size, "blue")
    image.paste("red", (0, 0, size[0] // 2, size[1] // 2))
    return image


def noise(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    count = size[0] * size[1] * len(Image.new(mode, (1, 1)).getbands())
    return Image.frombytes(mode, size, random.Random(1).randbytes(count))


def encoded(image: Image.Image, name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def exif(orientation: int = 1, *, place: bool = True) -> bytes:
    block = Image.Exif()
    block[ORIENTATION] = orientation
    if place:
        block[DESCRIPTION] = LOCATION.decode()
        block[GPS_BLOCK] = {GPS_LATITUDE_REF: "N"}
    return block.tobytes()


def opened(picture: Picture) -> Image.Image:
    return Image.open(io.BytesIO(picture.data))


SAMPLES = {
    "jpeg": encoded(drawn(), "JPEG"),
    "progressive": encoded(drawn(), "JPEG", progressive=True),
    "png": encoded(drawn(), "PNG"),
    "gif": encoded(drawn(), "GIF"),
    "webp": encoded(drawn(), "WEBP"),
    "lossless": encoded(drawn(), "WEBP", lossless=True),
    "extended": encoded(drawn(mode="RGBA"), "WEBP", exif=exif()),
    "avif": encoded(drawn(), "AVIF"),
}
FORMATS = {"progressive": "jpeg", "lossless": "webp", "extended": "webp"}


@pytest.mark.parametrize("name", SAMPLES)
def test_format_and_size_come_from_the_header(name: str) -> None:
    header = inspect(SAMPLES[name])

    assert (header.format, header.width, header.height) == (FORMATS.get(name, name), 40, 30)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
def test_a_picture_on_its_side_is_measured_as_it_is_seen(name: str, orientation: int) -> None:
    header = inspect(encoded(drawn(), name, exif=exif(orientation)))

    assert (header.width, header.height) == ((30, 40) if orientation >= 5 else (40, 30))
    assert header.orientation == orientation
    assert header.location


@given(st.sampled_from(sorted(SAMPLES)), st.data())
@settings(max_examples=1500, deadline=None)
def test_damaged_bytes_are_a_picture_or_a_refusal_and_never_another_error(name: str, data: st.DataObject) -> None:
    damaged = bytearray(SAMPLES[name])
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, min(len(damaged) - 1, 400)))] = data.draw(st.integers(0, 255))
    cut = bytes(damaged[: data.draw(st.integers(0, len(damaged)))]) if data.draw(st.booleans()) else bytes(damaged)

    try:
        picture = prepare(cut, "x", pillow=False)
    except InputRefused:
        return
    assert picture.width > 0
    assert picture.height > 0


@given(
    st.sampled_from(
        [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\x20\0\0\0WEBP", b"\0\0\0\x14ftypavif"]
    ),
    st.binary(max_size=200),
)
@settings(max_examples=1500, deadline=None)
def test_magic_bytes_alone_make_no_picture(magic: bytes, rest: bytes) -> None:
    try:
        header = inspect(magic + rest)
    except Malformed:
        return
    assert magic
    assert header.width > 0


@pytest.mark.parametrize("number", range(40))
def test_pillow_never_sees_a_damaged_file_through_to_the_caller(number: int) -> None:
    """Turning needs decoding, and what a decoder meets is a refusal."""
    dice = random.Random(number)
    data = bytearray(encoded(noise((64, 48)), ("JPEG", "PNG", "WEBP")[number % 3], exif=exif(6)))
    for _ in range(30):
        data[dice.randrange(len(data))] = dice.randrange(256)

    try:
        picture = prepare(bytes(data[: dice.randrange(200, len(data))]), "x", pillow=True)
    except InputRefused as error:
        refusal = str(error)
    else:
        refusal = "input_refused" if inspect(picture.data) else ""
    assert refusal.startswith("input_refused")


@pytest.mark.parametrize(
    "data",
    [
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<html></html>",
        b"PK\x03\x04archive",
        b"%PDF-1.7",
        b"BM bitmap",
        b"II*\0tiff",
        b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom",
        b"root:x:0:0:root:/root:/bin/bash",
        b"GIF89a is how this letter begins, and it goes on",
        b"",
    ],
    ids=repr,
)
def test_other_files_are_no_pictures(data: bytes) -> None:
    with pytest.raises(InputRefused, match=r"JPEG, PNG, WebP, GIF, AVIF or HEIC file|Not all of"):
        prepare(data, "cat.png")


@pytest.mark.parametrize("header", ["RSA ", "OPENSSH ", "EC ", "", "ENCRYPTED "])
def test_a_picture_with_a_private_key_in_it_is_refused(header: str) -> None:
    with pytest.raises(InputRefused, match="has a key or another secret in it"):
        prepare(SAMPLES["png"] + f"-----BEGIN {header}PRIVATE KEY-----".encode(), "cat.png")


def test_a_picture_with_a_forbidden_string_in_it_is_refused() -> None:
    with pytest.raises(InputRefused, match="has a key or another secret in it"):
        prepare(SAMPLES["gif"] + b"the-fal-key", "cat.gif", forbidden=[b"", b"the-fal-key"])


@pytest.mark.parametrize("pillow", [True, False])
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
def test_the_place_is_removed_and_no_pixel_changes(name: str, pillow: bool) -> None:
    data = encoded(drawn(), name, exif=exif(), quality=80)

    picture = prepare(data, "cat.x", pillow=pillow)

    assert LOCATION in data
    assert LOCATION not in picture.data
    assert not opened(picture).getexif()
    assert opened(picture).convert("RGB").tobytes() == Image.open(io.BytesIO(data)).convert("RGB").tobytes()
    assert picture.changes == ("the place where it was taken (GPS) and other metadata removed",)


def test_what_follows_the_picture_and_what_is_written_into_it_goes() -> None:
    notes = PngImagePlugin.PngInfo()
    notes.add_text("prompt", LOCATION.decode())
    profile = b"profile" * 20  # no viewer uses such a one
    for data in (
        encoded(drawn(), "PNG", pnginfo=notes),
        encoded(drawn(), "PNG") + LOCATION,
        encoded(drawn(), "JPEG", comment=LOCATION, icc_profile=profile),
        encoded(drawn(), "JPEG", icc_profile=profile) + LOCATION,
        encoded(drawn(), "WEBP", xmp=LOCATION),
        encoded(drawn(), "WEBP") + LOCATION,
    ):
        picture = prepare(data, "cat", pillow=False)

        assert LOCATION in data
        assert LOCATION not in picture.data
        assert picture.changes == ("metadata removed",)
        assert opened(picture).convert("RGB").getpixel((5, 5)) == Image.open(io.BytesIO(data)).convert("RGB").getpixel(
            (5, 5)
        )
        assert "icc_profile" not in opened(picture).info


def test_a_square_stays_one_however_much_smaller_it_gets() -> None:
    data = encoded(noise((300, 300)), "PNG")

    for most in range(20_000, 200_000, 9_000):
        picture = prepare(data, "square", limits=MediaLimits(max_bytes=most, formats=("png",)), pillow=True)
        assert picture.width == picture.height


def test_sixteen_bits_are_rounded_to_eight_and_not_cut_off() -> None:
    for deep, shown in ((0, 0), (128, 0), (129, 1), (32767, 127), (32768, 128), (65406, 254), (65535, 255)):
        picture = prepare(encoded(Image.new("I;16", (40, 30), deep), "PNG"), "scan.png", pillow=True)

        assert opened(picture).convert("L").getpixel((20, 15)) == shown


@pytest.mark.parametrize("name", ["jpeg", "progressive", "png", "gif", "webp", "lossless"])
@pytest.mark.parametrize("pillow", [True, False])
def test_a_picture_without_metadata_is_not_touched(name: str, pillow: bool) -> None:
    picture = prepare(SAMPLES[name], "cat", pillow=pillow)

    assert picture.data == SAMPLES[name]
    assert picture.changes == ()


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
def test_without_pillow_a_turned_picture_is_refused_with_what_to_do(name: str, orientation: int) -> None:
    with pytest.raises(InputRefused, match=r"stored turned or mirrored.*save it as an ordinary JPEG"):
        prepare(encoded(drawn(), name, exif=exif(orientation)), "cat", pillow=False)


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
def test_with_pillow_a_picture_is_turned_upright(name: str, orientation: int) -> None:
    upright = drawn((64, 48))
    # Each turn is its own inverse but for the two quarter turns, which undo each other.
    stored = upright.transpose(
        {
            2: Image.Transpose.FLIP_LEFT_RIGHT,
            3: Image.Transpose.ROTATE_180,
            4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE,
            6: Image.Transpose.ROTATE_90,
            7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_270,
        }[orientation]
    )

    picture = prepare(encoded(stored, name, exif=exif(orientation)), "cat.x", pillow=True)

    assert (picture.width, picture.height) == opened(picture).size == (64, 48)
    assert not opened(picture).getexif()
    red, _, blue = opened(picture).convert("RGB").getpixel((10, 10))  # type: ignore[misc]
    assert red > 200 > 60 > blue
    assert "turned upright" in picture.changes


def test_an_avif_with_metadata_is_converted_or_refused() -> None:
    data = encoded(drawn((64, 48)).transpose(Image.Transpose.ROTATE_90), "AVIF", exif=exif(6))

    picture = prepare(data, "cat.avif", pillow=True)

    assert (picture.content_type, picture.file_name) == ("image/jpeg", "picture.jpg")
    assert opened(picture).size == (64, 48)
    assert "converted from AVIF to JPEG" in picture.changes
    with pytest.raises(InputRefused, match="is an AVIF picture"):
        prepare(data, "cat.avif", pillow=False)


def test_a_picture_of_too_many_bytes_is_scaled_down_or_refused_with_numbers() -> None:
    data = encoded(noise((300, 200)), "JPEG", quality=95)
    limits = MediaLimits(max_bytes=30_000)

    picture = prepare(data, "cat.jpeg", limits=limits, pillow=True)

    assert len(picture.data) <= 30_000
    assert picture.width < 300
    assert picture.width / picture.height == pytest.approx(1.5, abs=0.02)
    assert picture.changes[-1].startswith("scaled down from 300 x 200 to ")
    with pytest.raises(InputRefused, match="at most 30,000") as refused:
        prepare(data, "cat.jpeg", limits=limits, pillow=False)
    assert f"has {len(data):,} bytes" in refused.value.what
    assert INSTALL_HINT in refused.value.next_step


def test_a_large_png_becomes_a_jpeg_before_it_loses_pixels() -> None:
    data = encoded(noise((300, 200)), "PNG")
    limits = MediaLimits(max_bytes=170_000)

    picture = prepare(data, "cat.png", limits=limits, pillow=True)
    see_through = prepare(encoded(noise((300, 200), "RGBA"), "PNG"), "cat.png", limits=limits, pillow=True)
    only_png = prepare(data, "cat.png", limits=MediaLimits(max_bytes=170_000, formats=("png",)), pillow=True)

    assert (picture.content_type, picture.width) == ("image/jpeg", 300)
    assert picture.changes == ("converted from PNG to JPEG",)
    assert see_through.content_type == "image/jpeg"
    assert see_through.changes[:2] == ("what is see-through put on white", "converted from PNG to JPEG")
    assert only_png.content_type == "image/png"
    assert only_png.width < 300


@pytest.mark.parametrize(
    ("data", "accepted", "content_type"),
    [
        (SAMPLES["gif"], ("jpg", "png"), "image/png"),
        (SAMPLES["webp"], ("image/png",), "image/png"),
        (SAMPLES["avif"], ("jpeg",), "image/jpeg"),
        (encoded(drawn(mode="RGBA"), "WEBP"), ("jpeg", "png"), "image/jpeg"),
        (encoded(Image.new("RGBA", (40, 30), (255, 0, 0, 90)), "WEBP"), ("jpeg", "png"), "image/jpeg"),
        (encoded(Image.new("RGBA", (40, 30), (255, 0, 0, 90)), "WEBP"), ("jpeg",), "image/jpeg"),
        (encoded(drawn().convert("P"), "PNG", transparency=0), (".jpg",), "image/jpeg"),
        (encoded(drawn().convert("L"), "PNG"), ("WEBP",), "image/webp"),
        (encoded(drawn().convert("CMYK"), "JPEG"), ("png",), "image/png"),
    ],
    ids=["gif", "webp", "avif", "opaque", "see-through", "see-through-to-jpeg", "palette", "grey", "cmyk"],
)
def test_a_format_that_is_not_taken_is_converted_or_refused(
    data: bytes, accepted: tuple[str, ...], content_type: str
) -> None:
    limits = MediaLimits(formats=accepted)

    picture = prepare(data, "cat.old", limits=limits, pillow=True)

    assert picture.content_type == content_type
    assert picture.file_name == "picture" + {"jpeg": ".jpg", "png": ".png", "webp": ".webp"}[content_type[6:]]
    assert any(change.startswith("converted from") for change in picture.changes)
    with pytest.raises(InputRefused, match=r"this model takes|the part that decodes pictures is not installed"):
        prepare(data, "cat.old", limits=limits, pillow=False)


def test_of_an_animation_the_first_frame_is_used() -> None:
    data = encoded(drawn(), "GIF", save_all=True, append_images=[Image.new("RGB", (40, 30), "green")])

    picture = prepare(data, "cat.gif", limits=MediaLimits(formats=("png",)), pillow=True)

    assert "only the first picture of the animation is used" in picture.changes
    assert opened(picture).convert("RGB").getpixel((5, 5)) == (255, 0, 0)


@pytest.mark.parametrize("pillow", [True, False])
@pytest.mark.parametrize(
    ("size", "limits", "numbers"),
    [
        ((299, 400), MediaLimits(min_width=300, min_height=300), ("299 x 400", "at least 300 x 300")),
        ((400, 299), MediaLimits(min_height=300), ("400 x 299", "at least 1 x 300")),
        ((399, 1000), MediaLimits(min_aspect_ratio=0.4, max_aspect_ratio=2.5), ("399 x 1000", "0.40", "0.4 to 2.5")),
        ((1001, 400), MediaLimits(max_aspect_ratio=Decimal("2.5")), ("1001 x 400", "2.50", "0 to 2.5")),
        ((100, 400), MediaLimits(min_aspect_ratio=Decimal("0.4")), ("100 x 400", "0.25", "0.4 to any")),
    ],
)
def test_a_shape_that_does_not_fit_is_refused_with_numbers(
    size: tuple[int, int], limits: MediaLimits, numbers: tuple[str, ...], pillow: bool
) -> None:
    with pytest.raises(InputRefused) as refused:
        prepare(encoded(drawn(size), "PNG"), "cat.png", limits=limits, pillow=pillow, field="end_image")

    assert all(number in refused.value.what for number in numbers)
    assert refused.value.field == "end_image"
    assert "pip install" not in refused.value.next_step


@pytest.mark.parametrize("size", [(400, 1000), (1000, 400), (300, 300)])
def test_a_shape_at_the_very_limit_fits(size: tuple[int, int]) -> None:
    limits = MediaLimits(10_000_000, 300, 300, 0.4, 2.5, ("jpg", "png"))

    assert prepare(encoded(drawn(size), "PNG"), "cat.png", limits=limits).width == size[0]


def test_a_picture_that_unpacks_to_gigabytes_is_not_decoded() -> None:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + b"\0\0\0\0" + b"\0\0\0\0IEND\xae\x42\x60\x82"

    with pytest.raises(InputRefused, match="60000 x 60000 pixels; at most 256,000,000"):
        prepare(bomb, "bomb.png", limits=MediaLimits(formats=("jpeg",)), pillow=True)


def test_a_picture_comes_from_a_path_a_file_address_or_a_data_uri(tmp_path: Path) -> None:
    path = tmp_path / "cät 1.png"
    path.write_bytes(SAMPLES["png"])
    if sys.platform == "linux":  # elsewhere every name is Unicode
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/c\xe4t 2.png")).write_bytes(SAMPLES["png"])
    else:
        (tmp_path / "c\ufffdt 2.png").write_bytes(SAMPLES["png"])
    text = base64.b64encode(SAMPLES["png"]).decode()
    sources = {
        str(path): "picture.png",
        f"file://{tmp_path}/c%C3%A4t%201.png": "picture.png",
        f"FILE://localhost{tmp_path}/cät 1.png": "picture.png",
        f"file://LOCALHOST{tmp_path}/c%C3%A4t%201.png": "picture.png",
        f"file://{socket.gethostname()}{tmp_path}/c%C3%A4t%201.png": "picture.png",
        f"file://{tmp_path}/c%E4t%202.png": "picture.png",
        f"data:image/png;base64,{text}": "picture.png",
        f"data:;base64,{text[:20]}\n {text[20:]}": "picture.png",
        f"`{path}`": "picture.png",
        f"file:{tmp_path}/cät 1.png": "picture.png",
        f'"{text.rstrip("=")}"': "picture.png",
        text.replace("+", "-").replace("/", "_"): "picture.png",
        f"image/png;base64,{text}": "picture.png",
        f"data:image/png;base64,data:image/png;base64,{text}": "picture.png",
        text.replace("/", "\\/"): "picture.png",
        f"b'{text}'": "picture.png",
        f"data:image/png;base64,b'{text}'": "picture.png",
        f"data:image/png,{text}": "picture.png",
        f"data:base64,{text}": "picture.png",
        f"base64:{text}": "picture.png",
        f"![a fox](data:image/png;base64,{text})": "picture.png",
        f'url("data:image/png;base64,{text}")': "picture.png",
        f"\ufeff{text}\u200b": "picture.png",
        f"data:image/png;base64,{text.replace('+', ' ')}": "picture.png",
        f"{text[:76]} {text[76:]}".replace("+", "-"): "picture.png",
        "\\n".join([text[:76], text[76:]]): "picture.png",
        "data:image/png," + "".join(f"%{byte:02x}" for byte in SAMPLES["png"]): "picture.png",
        f"DATA:image/jpeg;charset=utf-8;base64,{text.replace('+', '%2B').replace('=', '%3D')}": "picture.png",
    }

    for source, name in sources.items():
        picture = load(source, folders=[tmp_path])

        assert (picture.data, picture.file_name, picture.content_type) == (SAMPLES["png"], name, "image/png")
        assert len(picture.sha256) == 64


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("data:image/png,plain", "not a picture"),
        ("data:", "not base64"),
        ("data:image/png;base64,@@@@", "not base64"),
        ("data:image/png;base64,AAAAA", "is cut off"),
        ("data:image/png;base64,ä", "not base64"),
        ("data:image/png;base64,", "no picture in it"),
        ("data:image/svg+xml;base64,PHN2Zz4=", "not a picture"),
        ("data:text/html;base64,PGh0bWw+", "not a picture"),
        ("data:image/png;base64," + "A" * 14_100_000, "more than 10,485,760 bytes"),
        ("data:image/png;base64," + "A" * 13_981_016, "more than 10,485,760 bytes"),
        ("file:///etc/passwd", "outside the folders"),
        ("file://server/share/x.png", "not an absolute path"),
        ("file:///%ff.png", "outside the folders"),
        ("file:///tmp/%2e%2e/x", "'.' or '..'"),
    ],
    ids=lambda text: f"{text[:40]} {len(text)}",
)
def test_other_sources_are_refused_in_words(tmp_path: Path, source: str, rule: str) -> None:
    with pytest.raises(InputRefused) as refused:
        load(source, folders=[tmp_path], field="image")

    assert rule in refused.value.what
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("https://example.com/x", "url"),
        ("HTTP://example.com/x", "url"),
        ("data:image/png;base64,", "data"),
        ("kling://jobs/kj_1/last-frame", "job"),
        ("/home/me/x.png", "path"),
        ("file:///home/me/x.png", "path"),
        (r"C:\x.png", "path"),
        ("", "path"),
        ("blob:https://example.com/6b1e", "url"),
        ("ftp://example.com/x.png", "url"),
        ("www.example.com/x.png", "url"),
        ("![a fox](https://example.com/x.png)", "url"),
        ("`~/Pictures/fox.png`", "path"),
        ("/9j/x.png", "path"),
        ("/9j/" + "A" * 200, "data"),
        ("AAAAHGZ0eXBoZWlj" + "A" * 200, "data"),
    ],
)
def test_an_argument_says_what_it_is(source: str, kind: str) -> None:
    assert kind_of(source) == kind


def test_a_file_address_of_windows_has_its_drive_first() -> None:
    assert path_of("file:///C:/Users/cat.png", windows=True) == "C:/Users/cat.png"
