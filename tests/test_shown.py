"""Pictures inside a text are named in what is shown and recorded, and everything else stays as it is."""

from __future__ import annotations

import base64

import pytest

from kling_mcp.shown import shorten_data_uris

PICTURE = base64.b64encode(bytes(640_000)).decode()
LINES = "\n".join(PICTURE[start : start + 76] for start in range(0, len(PICTURE), 76))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (f"data:image/jpeg;base64,{PICTURE}", "data:image/jpeg (640 kB)"),
        (f"DATA:image/PNG;BASE64,{PICTURE}", "data:image/png (640 kB)"),
        (f"data:image/jpeg;base64,{LINES}", "data:image/jpeg (640 kB)"),
        (f'"data:image/jpeg;base64,{PICTURE}"', '"data:image/jpeg (640 kB)"'),
        (f"data:image/png;name=a.png;base64,{PICTURE}", "data:image/png (640 kB)"),
        ("data:image/svg+xml,%3Csvg/%3E", "data:image/svg+xml (1 kB)"),
        (f"image is data:image/gif;base64,{PICTURE}; a path", "image is data:image/gif (640 kB); a path"),
        (PICTURE, "base64 (640 kB)"),
        (f"data:;base64,{PICTURE}", "data:;base64 (853 kB)"),
        ("data:image/svg+xml;utf8,<svg a='b'>" + "x" * 5000, "data:image/svg+xml;utf8 (5 kB)"),
    ],
    ids=[
        "plain",
        "in capitals",
        "in lines",
        "in quotes",
        "with a name",
        "not base64",
        "in a sentence",
        "bare",
        "no type",
        "as text",
    ],
)
def test_a_picture_in_a_text_is_named_with_its_type_and_size(value: str, shown: str) -> None:
    assert shorten_data_uris(value) == shown
    assert shorten_data_uris(shown) == shown


def test_pictures_are_found_at_any_depth() -> None:
    uri = "data:image/webp;base64,UklGRg=="
    value = {"image": uri, "elements": [{"reference_images": [uri, "https://a.example/b.png"]}], "pair": (uri, 1)}

    assert shorten_data_uris(value) == {
        "image": "data:image/webp (1 kB)",
        "elements": [{"reference_images": ["data:image/webp (1 kB)", "https://a.example/b.png"]}],
        "pair": ("data:image/webp (1 kB)", 1),
    }


@pytest.mark.parametrize(
    "value",
    [
        "The data: a fox, running",
        "https://a.example/" + "x" * 5000 + ".png?token=" + "A" * 900,
        "data:image/jpeg (640 kB)",
        5,
        None,
        "a fox " * 400,
        "data: a fox, " * 400,
    ],
)
def test_anything_else_stays_as_it_is(value: object) -> None:
    assert shorten_data_uris(value) == value
