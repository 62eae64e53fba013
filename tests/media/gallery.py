"""
Some 350 pictures of four coloured quarters, as cameras, phones and programs make them, and what has to become of each.

Every one that has room for it carries `CANARY` wherever its format can hold words.
"""

from __future__ import annotations

import io
import random
import struct
import zlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import av
from PIL import Image, ImageCms, PngImagePlugin

from kling_mcp.media.pictures import MediaLimits

if TYPE_CHECKING:
    from collections.abc import Iterator

CANARY: Final = b"CANARY-51.4779-north"
RED, GREEN, BLUE, YELLOW = (210, 40, 40), (40, 150, 60), (40, 60, 190), (220, 190, 50)
UPRIGHT: Final = (RED, GREEN, BLUE, YELLOW)
GREYS: Final = (30, 90, 160, 230)
WHITE: Final = (255, 255, 255)
LIMITS: Final = MediaLimits(400_000, 300, 300, 0.4, 2.5, ("jpg", "jpeg", "png", "webp", "gif", "avif"))
_STORED: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
_TIFF_TYPES: Final = {"byte": (1, "B"), "short": (3, "H"), "long": (4, "I")}


@dataclass(frozen=True)
class Given:
    """A picture as the user has it; *colours* is None where it has to be refused, with or without the imaging part."""

    name: str
    data: bytes
    colours: tuple[tuple[int, int, int], ...] | None = UPRIGHT
    plain: bool = False
    """Whether it leaves also without the imaging part."""
    unseen: bool = False
    """Whether only a decoder can tell what is wrong with it."""


def quarters(size: tuple[int, int] = (400, 320), colours: tuple[Any, ...] = UPRIGHT, mode: str = "RGB") -> Image.Image:
    image = Image.new(mode, size, colours[3])
    half_width, half_height = size[0] // 2, size[1] // 2
    image.paste(colours[0], (0, 0, half_width, half_height))
    image.paste(colours[1], (half_width, 0, size[0], half_height))
    image.paste(colours[2], (0, half_height, half_width, size[1]))
    return image


def detailed(size: tuple[int, int] = (400, 320), mode: str = "RGB") -> Image.Image:
    """The quarters with grain over them, so that a picture has rows that are worth their bytes."""
    grain = Image.frombytes("L", size, random.Random(7).randbytes(size[0] * size[1]))
    return Image.blend(quarters(size), grain.convert("RGB"), 0.1).convert(mode)


def encoded(image: Image.Image, name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def exif(orientation: int, order: str = "MM", kind: str = "short") -> bytes:
    """A TIFF block with an orientation and the canary as description."""
    sign = "<" if order == "II" else ">"
    number, letter = _TIFF_TYPES[kind]
    value = struct.pack(sign + letter, orientation).ljust(4, b"\0")
    text = CANARY + b"\0"
    entries = struct.pack(f"{sign}HHII", 0x010E, 2, len(text), 8 + 2 + 2 * 12 + 4)
    entries += struct.pack(f"{sign}HHI", 0x0112, number, 1) + value
    start = (b"II*\0" if order == "II" else b"MM\0*") + struct.pack(f"{sign}I", 8)
    return start + struct.pack(f"{sign}H", 2) + entries + bytes(4) + text


def xmp(orientation: int, *, element: bool = False) -> bytes:
    said = f"<tiff:Orientation>{orientation}</tiff:Orientation>" if element else ""
    attribute = "" if element else f' tiff:Orientation="{orientation}"'
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description{attribute} dc:title="{CANARY.decode()}">{said}'
        "</rdf:Description></x:xmpmeta>"
    ).encode()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(colour: int, depth: int, rows: list[bytes], size: tuple[int, int], *extra: bytes) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0))
    pixels = png_chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + pixels + png_chunk(b"IEND", b"")


def interlaced_png(image: Image.Image) -> bytes:
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    data, width = image.tobytes(), image.width
    rows = b"".join(
        b"\0" + b"".join(data[3 * (y * width + x) : 3 * (y * width + x) + 3] for x in range(left, width, across))
        for left, top, across, down in passes
        for y in range(top, image.height, down)
    )
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", *image.size, 8, 2, 0, 0, 1))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")


def deep_png(colour: int) -> bytes:
    """16 bits a sample: 0 grey, 2 colours, 4 grey with alpha, 6 colours with alpha."""
    image = quarters(colours=GREYS, mode="L") if colour in {0, 4} else quarters()
    if colour in {4, 6}:
        image.putalpha(255)
    bands = len(image.getbands())
    data, width = image.tobytes(), image.width * bands
    rows = [b"".join(bytes((v, v)) for v in data[y * width : (y + 1) * width]) for y in range(image.height)]
    return png(colour, 16, rows, image.size)


def profile(*primaries: tuple[float, float, float]) -> bytes:
    """A colour profile of the given primaries and a gamma of 2.2, with the canary as its description."""
    description = b"desc" + bytes(4) + struct.pack(">I", len(CANARY) + 1) + CANARY + bytes(90)
    tags = {b"desc": description, b"wtpt": _xyz((0.9642, 1.0, 0.8249))}
    tags |= {name: _xyz(primary) for name, primary in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)}
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(2.2 * 256)) + b"\0\0"
    return _profile(b"RGB ", tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve))


def grey_profile(gamma: float) -> bytes:
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    return _profile(b"GRAY", {b"wtpt": _xyz((0.9642, 1.0, 0.8249)), b"kTRC": curve})


def _xyz(values: tuple[float, float, float]) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    table, body, start = b"", b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    header = struct.pack(">I4s4s4s4s4s", start + len(body), b"test", b"\2\x10\0\0", b"mntr", space, b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + _xyz((0.9642, 1.0, 0.8249))[8:] + bytes(48)
    return header + struct.pack(">I", len(tags)) + table + body


_PRIMARIES: Final = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7142))
SWAPPED: Final = profile(*reversed(_PRIMARIES))
"""What is stored as red is shown as blue, so nobody can miss whether the profile counts."""
NEAR: Final = profile(*_PRIMARIES)
SRGB: Final = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@cache
def _hevc(pixels: bytes, size: tuple[int, int]) -> tuple[bytes, bytes]:
    """One picture of HEVC: the box with its parameters, and its coded pixels."""
    output = io.BytesIO()
    with av.open(output, "w", format="mp4") as container:
        stream = container.add_stream(
            "libx265", rate=1, options={"x265-params": "log-level=none:bframes=0", "crf": "10"}
        )
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.codec_tag = "hvc1"
        frame = av.VideoFrame.from_image(Image.frombytes("RGB", size, pixels))
        frame.pts = 0
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    video = output.getvalue()
    at = video.index(b"hvcC") - 4
    config = video[at : at + struct.unpack_from(">I", video, at)[0]]
    at = video.index(b"mdat")
    return config, video[at + 4 : at - 4 + struct.unpack_from(">I", video, at - 4)[0]]


def heic(image: Image.Image, *, turns: int | None = None, mirror: int | None = None, brand: bytes = b"heic") -> bytes:
    """A HEIC as phones make them: one HEVC picture in the boxes of ISO/IEC 23008-12, with EXIF beside it."""
    config, pixels = _hevc(image.tobytes(), image.size)
    note = bytes(4) + exif(3) + bytes(5000)  # cameras leave room for what is written into it later

    def box(kind: bytes, *parts: bytes) -> bytes:
        body = b"".join(parts)
        return struct.pack(">I", len(body) + 8) + kind + body

    properties = [config, box(b"ispe", bytes(4), struct.pack(">II", *image.size))]
    properties += [box(b"irot", bytes((turns,)))] if turns is not None else []
    properties += [box(b"imir", bytes((mirror,)))] if mirror is not None else []
    used = bytes(0x80 | number for number in range(1, len(properties) + 1))
    entries = [
        box(b"infe", b"\2\0\0\0", struct.pack(">HH", number, 0), kind, b"\0")
        for number, kind in ((1, b"hvc1"), (2, b"Exif"))
    ]

    def meta(first: int) -> bytes:
        places = b"".join(
            struct.pack(">HHHII", number, 0, 1, start, length)
            for number, start, length in ((1, first, len(pixels)), (2, first + len(pixels), len(note)))
        )
        return box(
            b"meta", bytes(4), box(b"hdlr", bytes(8), b"pict", bytes(13)), box(b"pitm", bytes(4), b"\0\1"),
            box(b"iloc", bytes(4), b"\x44\0", b"\0\2", places),
            box(b"iinf", bytes(4), b"\0\2", *entries),
            box(b"iref", bytes(4), box(b"cdsc", struct.pack(">HHH", 2, 1, 1))),
            box(b"iprp", box(b"ipco", *properties),
                box(b"ipma", bytes(4), struct.pack(">IHB", 1, 1, len(used)), used)),
        )  # fmt: skip

    kind = box(b"ftyp", brand, bytes(4), b"mif1", brand)
    first = len(kind) + len(meta(0)) + 8
    return kind + meta(first) + box(b"mdat", pixels, note)


def gallery() -> Iterator[Given]:
    """All of them."""
    yield from _turned()
    yield from _kinds()
    yield from _profiles()
    yield from _carriers()
    yield from _cut()
    yield from _sizes()


def _with_exif(name: str, image: Image.Image, block: bytes) -> bytes:
    return encoded(image, name, exif=(b"Exif\0\0" if name == "JPEG" else b"") + block, quality=90)


def _turned() -> Iterator[Given]:
    for number in range(1, 9):
        image = quarters() if number == 1 else quarters().transpose(_STORED[number])
        for order in ("II", "MM"):
            for kind in _TIFF_TYPES:
                for name in ("JPEG", "PNG", "WEBP"):
                    data = _with_exif(name, image, exif(number, order, kind))
                    yield Given(f"{name} exif {number} {order} {kind}", data, plain=number == 1)
        for element in (True, False):
            said = xmp(number, element=element)
            notes = PngImagePlugin.PngInfo()
            notes.add_itxt("XML:com.adobe.xmp", said.decode())
            for name, options in {"JPEG": {"xmp": said}, "WEBP": {"xmp": said}, "PNG": {"pnginfo": notes}}.items():
                yield Given(f"{name} xmp {number} {element}", encoded(image, name, **options), plain=number == 1)
        block = b"Exif\0\0" + exif(number)
        listed = f"\nexif\n{len(block):8}\n{block.hex()}\n".encode()
        for kind, text in {
            b"tEXt": b"Raw profile type exif\0" + listed,
            b"zTXt": b"Raw profile type APP1\0\0" + zlib.compress(listed),
            b"iTXt": b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp(number)),
        }.items():
            small = encoded(image, "PNG")
            data = small[:33] + png_chunk(kind, text) + small[33:]
            yield Given(f"PNG with its turn in {kind!r} {number}", data, plain=number == 1)
        yield Given(f"AVIF {number}", encoded(image, "AVIF", exif=exif(number)))
    # Quarter turns anticlockwise, then the mirror: 0 top to bottom, 1 left to right.
    for turns in range(4):
        turned = quarters().transpose(_BACK[turns]) if turns else quarters()
        yield Given(f"HEIC turned {turns}", heic(turned, turns=turns))
    yield Given("HEIC", heic(quarters()))
    yield Given("HEIC mirrored left to right", heic(quarters().transpose(_STORED[2]), mirror=1))
    yield Given("HEIC mirrored top to bottom", heic(quarters().transpose(_STORED[4]), mirror=0))
    yield Given("HEIC mif1", heic(quarters(), brand=b"mif1"))


# What is stored so that the given number of quarter turns anticlockwise brings it upright.
_BACK: Final = {1: Image.Transpose.ROTATE_270, 2: Image.Transpose.ROTATE_180, 3: Image.Transpose.ROTATE_90}


def _kinds() -> Iterator[Given]:
    greys = tuple((grey, grey, grey) for grey in GREYS)
    grey = quarters(colours=GREYS, mode="L")
    pierced = quarters().convert("RGBA")
    pierced.paste((0, 0, 0, 0), (200, 0, 400, 160))
    holed = (RED, WHITE, BLUE, YELLOW)
    opaque = quarters().convert("RGBA")
    half = quarters().convert("RGBA")
    half.putalpha(128)
    faded = tuple(tuple((value + 255) // 2 for value in colour) for colour in UPRIGHT)

    for options in ({}, {"progressive": True}, {"optimize": True}, {"subsampling": 0}, {"restart_marker_rows": 1}):
        yield Given(f"JPEG {options}", encoded(detailed(), "JPEG", **options), plain=True)
    # Where nothing changes there is nearly nothing to write, and libwebp writes zeros.
    for name, options in {"JPEG": {"progressive": True}, "WEBP": {}, "AVIF": {}, "PNG": {}}.items():
        flat = encoded(Image.new("RGB", (3200, 2400), RED), name, **options)
        yield Given(f"{name} of one colour", flat, (RED,) * 4, plain=name != "AVIF")
    yield Given("JPEG grey", encoded(grey, "JPEG"), greys, plain=True)
    cmyk = encoded(quarters().convert("CMYK"), "JPEG", quality=95)
    yield Given("JPEG cmyk, inverted as Adobe does", cmyk)
    for name, options in {"png": {}, "webp": {"lossless": True}, "webp lossy": {}, "gif": {}}.items():
        kind = name.split()[0].upper()
        yield Given(f"{name} colours", encoded(quarters(), kind, **options), plain=True)
        yield Given(f"{name} grey", encoded(grey, kind, **options), greys, plain=True)
        yield Given(f"{name} pierced", encoded(pierced, kind, **options), holed)
        if kind != "GIF":
            yield Given(f"{name} opaque alpha", encoded(opaque, kind, **options))
            yield Given(f"{name} half", encoded(half, kind, **options), faded)  # type: ignore[arg-type]
    for compress in range(1, 10):
        yield Given(
            f"png opaque alpha {compress}", encoded(detailed(mode="RGBA"), "PNG", compress_level=compress), plain=True
        )
    yield Given("png grey opaque alpha", encoded(grey.convert("LA"), "PNG"), greys, plain=True)
    yield Given("png palette", encoded(quarters().quantize(8), "PNG"), plain=True)
    yield Given("png palette pierced", encoded(pierced.quantize(8), "PNG"), holed)
    yield Given("png two colours", encoded(quarters(colours=(0, 255, 255, 0), mode="L").convert("1"), "PNG"),
                ((0, 0, 0), WHITE, WHITE, (0, 0, 0)), plain=True)  # fmt: skip
    for colour in (0, 2, 4, 6):
        yield Given(f"png 16 bits {colour}", deep_png(colour), greys if colour in {0, 4} else UPRIGHT)
    hidden = png_chunk(b"tRNS", struct.pack(">H", GREYS[1] * 257))
    whiter = (greys[0], WHITE, greys[2], greys[3])
    yield Given("png 16 bits, one grey hidden", deep_png(0)[:33] + hidden + deep_png(0)[33:], whiter)
    yield Given("png interlaced", interlaced_png(quarters()), plain=True)
    yield Given("png animated", encoded(quarters(), "PNG", save_all=True, append_images=[Image.new("RGB", (400, 320))]))
    moved = [Image.new("RGB", (400, 320), CANARY[0])]
    yield Given(
        "gif animated", encoded(quarters(), "GIF", save_all=True, append_images=moved, comment=CANARY), plain=True
    )
    yield Given("webp animated", encoded(quarters(), "WEBP", save_all=True, append_images=moved))
    yield Given("avif pierced", encoded(pierced, "AVIF"), holed)


def _profiles() -> Iterator[Given]:
    swapped = quarters(colours=tuple(colour[::-1] for colour in UPRIGHT))
    for name in ("JPEG", "PNG", "WEBP", "AVIF"):
        yield Given(f"{name} swapped", encoded(swapped, name, icc_profile=SWAPPED, quality=95))
        for kind, icc in {"sRGB": SRGB, "sRGB by another": NEAR, "nonsense": CANARY * 20}.items():
            data = encoded(quarters(), name, icc_profile=icc, quality=95)
            yield Given(f"{name} {kind} profile", data, plain=name != "AVIF")
    yield Given("PNG swapped alpha", encoded(swapped.convert("RGBA"), "PNG", icc_profile=SWAPPED))
    yield Given("PNG swapped palette", encoded(swapped.quantize(8), "PNG", icc_profile=SWAPPED))
    # 255 * (v / 255) ** 2.2 with a linear profile is v again.
    linear = tuple(round(255 * (grey / 255) ** 2.2) for grey in GREYS)
    greys = tuple((grey, grey, grey) for grey in GREYS)
    yield Given(
        "PNG linear grey", encoded(quarters(colours=linear, mode="L"), "PNG", icc_profile=grey_profile(1.0)), greys
    )
    dark = [bytes(linear[2 * (y >= 160) + (x >= 200)] for x in range(400)) for y in range(320)]
    gamma = png_chunk(b"gAMA", struct.pack(">I", 100_000))
    yield Given("PNG linear by gAMA", png(0, 8, dark, (400, 320), gamma), greys)


def _carriers() -> Iterator[Given]:
    """The canary in every place that a format has for words, and in some that it has not."""
    jpeg, small = encoded(quarters(), "JPEG", quality=90), encoded(quarters(), "PNG")
    for marker in (*range(0xE0, 0xF0), 0xFE, 0xF7):
        for start in (
            b"",
            b"JFIF\0\1\2\1\0H\0H\x20\x20",
            b"Exif\0\0",
            b"ICC_PROFILE\0\1\1",
            b"Adobe\0d\0\0\0\0\1",
            b"MPF\0",
        ):
            body = start + CANARY
            segment = struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
            if marker == 0xEE and start.startswith(b"Adobe"):
                segment = segment.replace(b"\0\0\0\0\1CAN", b"\0\0\0\0\1CAN")
            yield Given(f"JPEG segment {marker:x} {start[:5]!r}", jpeg[:20] + segment + jpeg[20:])
    yield Given("JPEG stray bytes between segments", jpeg[:20] + CANARY + jpeg[20:], plain=True)
    for kind in (
        b"tEXt",
        b"zTXt",
        b"iTXt",
        b"eXIf",
        b"tIME",
        b"caBX",
        b"prVt",
        b"pHYs",
        b"sPLT",
        b"bKGD",
        b"hIST",
        b"dSIG",
        b"vpAg",
    ):
        chunk = png_chunk(kind, b"key\0" + CANARY)
        yield Given(f"PNG chunk {kind!r} first", small[:33] + chunk + small[33:], plain=True)
        yield Given(f"PNG chunk {kind!r} last", small[:-12] + chunk + small[-12:], plain=True)
    webp = encoded(quarters(), "WEBP", exif=exif(1), xmp=xmp(1))
    chunk = b"NOTE" + struct.pack("<I", len(CANARY)) + CANARY
    yield Given(
        "WebP unknown chunk", b"RIFF" + struct.pack("<I", len(webp) - 8 + len(chunk)) + webp[8:] + chunk, plain=True
    )
    gif = encoded(quarters(), "GIF", comment=CANARY)
    application = b"\x21\xff\x0bXMP DataXMP" + bytes((len(CANARY),)) + CANARY + b"\0"
    yield Given("GIF comment", gif, plain=True)
    yield Given(
        "GIF application", gif[: gif.index(b"\x21\xfe")] + application + gif[gif.index(b"\x21\xfe") :], plain=True
    )
    avif = encoded(quarters(), "AVIF", exif=exif(1), xmp=xmp(1))
    whole = {"JPEG": jpeg, "PNG": small, "WebP": webp, "GIF": gif, "AVIF": avif, "HEIC": heic(quarters())}
    for name, data in whole.items():
        yield Given(f"{name} with bytes after its end", data + CANARY * 3, plain=name not in {"AVIF", "HEIC"})
    packed = zlib.compress(b"".join(b"\0" + quarters().tobytes()[1200 * y : 1200 * (y + 1)] for y in range(320)))
    hidden = small[:33] + png_chunk(b"IDAT", packed + CANARY) + small[-12:]
    yield Given("PNG with bytes after its pixels", hidden, plain=True)
    rows = b"".join(b"\0" + quarters().tobytes()[1200 * y : 1200 * (y + 1)] for y in range(320))
    for surplus in (CANARY, CANARY * 500):
        stored = png_chunk(b"IDAT", zlib.compress(rows + surplus, 0))
        yield Given(f"PNG with {len(surplus)} bytes too many in its pixels", small[:33] + stored + small[-12:])
    for progressive in (False, True):
        coded = encoded(detailed(), "JPEG", quality=95, progressive=progressive)
        stray = coded[:-2] + CANARY + coded[-2:]
        yield Given(f"JPEG with bytes before its end, progressive {progressive}", stray, unseen=True)


def _cut() -> Iterator[Given]:
    grain = detailed()
    whole = {
        "JPEG": encoded(grain, "JPEG", quality=90),
        "progressive": encoded(grain, "JPEG", quality=90, progressive=True),
        "restarts": encoded(grain, "JPEG", quality=90, restart_marker_rows=2),
        "PNG": encoded(grain, "PNG"),
        "WebP": encoded(grain, "WEBP"),
        "lossless": encoded(grain, "WEBP", lossless=True),
        "GIF": encoded(grain, "GIF"),
        "AVIF": encoded(grain, "AVIF", quality=90),
        "HEIC": heic(grain),
    }
    for name, data in whole.items():
        for part in (0.02, 0.3, 0.5, 0.7, 0.9):
            kept = data[: int(len(data) * part)]
            yield Given(f"{name} cut at {part}", kept, None)
            yield Given(f"{name} with zeros from {part}", kept + bytes(len(data) - len(kept)), None)
            yield Given(f"{name} with ones from {part}", kept + b"\xff" * (len(data) - len(kept)), None, unseen=True)
            if "JPEG" in name or name in {"progressive", "restarts"}:
                yield Given(f"{name} cut at {part} with an end", kept.rstrip(b"\xff") + b"\xff\xd9", None, unseen=True)
        # In a flat picture the codes of these can be zeros.
        if name not in {"progressive", "restarts", "lossless"}:
            hole = data[: len(data) // 2] + bytes(4096) + data[len(data) // 2 + 4096 :]
            yield Given(f"{name} with a hole", hole, None, unseen=True)
        yield Given(f"{name} before zeros", data + bytes(5000), unseen=True)
    yield Given("JPEG without its end marker", whole["JPEG"][:-2])
    yield Given("JPEG whose end is zeros", whole["JPEG"][:-2] + bytes(5000))
    yield Given("progressive without its end marker", whole["progressive"][:-2])
    yield Given("PNG without IEND", whole["PNG"][:-12], plain=True)
    yield Given("PNG cut in its last checksum", whole["PNG"][:-14], plain=True)
    yield Given("GIF without its trailer", whole["GIF"][:-1], plain=True)
    yield Given("nothing", b"", None)
    yield Given("zeros", bytes(100_000), None)


def _sizes() -> Iterator[Given]:
    for size, fits in {
        (300, 300): True, (299, 300): False, (300, 299): False, (400, 1000): True, (1000, 400): True,
        (399, 1000): False, (1001, 400): False, (300, 750): True, (750, 300): True,
        (5000, 2000): True, (1200, 3000): True,
    }.items():  # fmt: skip
        for name in ("JPEG", "PNG"):
            yield Given(f"{name} {size}", encoded(quarters(size), name), UPRIGHT if fits else None, plain=fits)
    # Grain does not pack: these have more bytes than are taken.
    for name in ("JPEG", "PNG", "WEBP"):
        data = encoded(detailed((1500, 1000)), name, quality=97, exif=exif(1))
        yield Given(f"{name} of {len(data):,} bytes", data)
        turned = detailed((1500, 1000)).transpose(_STORED[6])
        yield Given(f"{name} turned, of many bytes", _with_exif(name, turned, exif(6)))
