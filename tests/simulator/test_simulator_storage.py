"""Uploads by every road, and downloads as a CDN sends them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kling_mcp.simulator.storage import StoredFile

from .calls import fal

if TYPE_CHECKING:
    from .calls import Fal

pytestmark = pytest.mark.anyio

PICTURE = bytes(range(256)) * 40


async def token(it: Fal) -> dict[str, Any]:
    response = await it.http.post(f"{it.urls.rest}/storage/auth/token?storage_type=fal-cdn-v3", json={})
    assert response.status_code == 200
    return response.json()


def bearer(granted: dict[str, Any], **more: str) -> dict[str, str]:
    named = {name.replace("_", "-"): value for name, value in more.items()}
    return {"Authorization": f"{granted['token_type']} {granted['token']}", **named}


async def test_a_token_uploads_to_the_host_it_names() -> None:
    async with fal() as it:
        granted = await token(it)
        headers = bearer(granted, content_type="image/png", x_fal_file_name="my boat.png")

        response = await it.http.post(f"{granted['base_url']}/files/upload", content=PICTURE, headers=headers)

        url = response.json()["access_url"]
        download = await it.http.get(url, headers={"Authorization": ""})
        assert granted["base_url"] == it.urls.media
        assert granted["expires_at"] == "2026-01-01T01:00:00.000000Z"
        assert url.endswith("_my_boat.png")
        assert (download.status_code, download.content) == (200, PICTURE)
        assert download.headers["content-type"] == "image/png"


async def test_a_token_is_needed_right_and_fresh() -> None:
    async with fal() as it:
        granted = await token(it)
        url = f"{it.urls.media}/files/upload"
        wrong = {"Authorization": "Bearer nonsense"}
        keyless = await it.http.post(f"{it.urls.rest}/storage/auth/token", headers={"Authorization": ""})

        with_key = await it.http.post(url, content=PICTURE)
        with_wrong = await it.http.post(url, content=PICTURE, headers=wrong)
        it.clock.advance(3601)
        too_late = await it.http.post(url, content=PICTURE, headers=bearer(granted))

        assert [r.status_code for r in (keyless, with_key, with_wrong, too_late)] == [401] * 4
        assert len(it.simulator.files) == 0


async def test_a_large_file_comes_in_parts_in_any_order() -> None:
    async with fal() as it:
        granted = await token(it)
        headers = bearer(granted, content_type="video/mp4", x_fal_file_name="big.mp4")
        begun = (await it.http.post(f"{it.urls.media}/files/upload/multipart", headers=headers)).json()
        one = f"{begun['access_url']}/multipart/{begun['uploadId']}"
        etags: dict[int, str] = {}
        for number, data in ((2, PICTURE[5000:]), (1, PICTURE[:5000])):
            etags[number] = (await it.http.put(f"{one}/{number}", content=data, headers=bearer(granted))).headers[
                "etag"
            ]

        missing = {"parts": [{"partNumber": 1, "etag": etags[1]}]}
        parts = {"parts": [{"partNumber": number, "etag": etag} for number, etag in etags.items()]}
        refused = await it.http.post(f"{one}/complete", json=missing, headers=bearer(granted))
        nothing = await it.http.post(f"{one}/complete", content=b"words", headers=bearer(granted))
        unnamed = await it.http.post(f"{one}/complete", json={"parts": [{}]}, headers=bearer(granted))
        completed = await it.http.post(f"{one}/complete", json=parts, headers=bearer(granted))

        assert (refused.status_code, completed.status_code) == (400, 200)
        assert (nothing.status_code, unnamed.status_code) == (422, 422)
        assert (await it.http.get(begun["access_url"])).content == PICTURE


async def test_an_upload_address_takes_the_bytes_once_and_without_a_key() -> None:
    async with fal() as it:
        asked = {"file_name": "boat.jpg", "content_type": "image/jpeg"}
        url = f"{it.urls.rest}/storage/upload/initiate?storage_type=fal-cdn-v3"
        granted = (await it.http.post(url, json=asked)).json()
        keyless = {"Authorization": "", "Content-Type": "image/jpeg"}

        first = await it.http.put(granted["upload_url"], content=PICTURE, headers=keyless)
        again = await it.http.put(granted["upload_url"], content=b"other", headers=keyless)
        unsigned = await it.http.put(granted["upload_url"].partition("?")[0], content=b"other", headers=keyless)

        assert [first.status_code, again.status_code, unsigned.status_code] == [200, 403, 403]
        assert (await it.http.get(granted["file_url"])).content == PICTURE
        assert (await it.http.post(url, json=asked, headers={"Authorization": ""})).status_code == 401
        assert (await it.http.post(url, json=[])).status_code == 422


async def test_an_upload_address_takes_parts_too() -> None:
    async with fal() as it:
        asked = {"file_name": "big.bin", "content_type": "application/octet-stream"}
        url = f"{it.urls.rest}/storage/upload/initiate-multipart?storage_type=fal-cdn-v3"
        granted = (await it.http.post(url, json=asked)).json()
        address, _, signature = granted["upload_url"].partition("?")
        answers = [
            (await it.http.put(f"{address}/{number}?{signature}", content=data)).json()
            for number, data in ((1, PICTURE[:4000]), (2, PICTURE[4000:]))
        ]

        unsigned = await it.http.put(f"{address}/3", content=b"x")
        completed = await it.http.post(f"{address}/complete?{signature}", json={"parts": answers})
        again = await it.http.post(f"{address}/complete?{signature}", json={"parts": answers})

        assert [unsigned.status_code, completed.status_code, again.status_code] == [403, 200, 404]
        assert (await it.http.get(granted["file_url"])).content == PICTURE


@pytest.mark.parametrize("header", ["X-Fal-Object-Lifecycle", "X-Fal-Object-Lifecycle-Preference"])
async def test_a_file_lives_as_long_as_it_was_asked_to(header: str) -> None:
    async with fal() as it:
        granted = await token(it)
        headers = {**bearer(granted), header: '{"expiration_duration_seconds": 3600}'}
        answer = await it.http.post(f"{it.urls.media}/files/upload", content=PICTURE, headers=headers)
        url = answer.json()["access_url"]

        before = await it.http.get(url)
        it.clock.advance(3600)
        after = await it.http.get(url)

        assert (before.status_code, after.status_code) == (200, 404)


ETAG = StoredFile(PICTURE, "", "").etag
SIZE = len(PICTURE)


@pytest.mark.parametrize(
    ("headers", "status", "body", "content_range"),
    [
        ({}, 200, PICTURE, None),
        ({"Range": "bytes=0-9"}, 206, PICTURE[:10], f"bytes 0-9/{SIZE}"),
        ({"Range": "bytes=10-"}, 206, PICTURE[10:], f"bytes 10-{SIZE - 1}/{SIZE}"),
        ({"Range": f"bytes=10-{SIZE * 2}"}, 206, PICTURE[10:], f"bytes 10-{SIZE - 1}/{SIZE}"),
        ({"Range": "bytes=-7"}, 206, PICTURE[-7:], f"bytes {SIZE - 7}-{SIZE - 1}/{SIZE}"),
        ({"Range": f"bytes={SIZE}-"}, 416, b"", f"bytes */{SIZE}"),
        ({"Range": "bytes=9-3"}, 416, b"", f"bytes */{SIZE}"),
        ({"Range": "bytes=-0"}, 416, b"", f"bytes */{SIZE}"),
        ({"Range": "lines=1-2"}, 200, PICTURE, None),
        ({"Range": "bytes=10-19", "If-Range": ETAG}, 206, PICTURE[10:20], f"bytes 10-19/{SIZE}"),
        ({"Range": "bytes=10-19", "If-Range": '"old"'}, 200, PICTURE, None),
    ],
)
async def test_ranges(headers: dict[str, str], status: int, body: bytes, content_range: str | None) -> None:
    async with fal() as it:
        it.simulator.files.put("files/a.bin", StoredFile(PICTURE, "video/mp4", "a.bin"))

        response = await it.http.get(f"{it.urls.media}/files/a.bin", headers=headers)

        assert (response.status_code, response.content) == (status, body)
        assert response.headers.get("content-range") == content_range
        assert response.headers["content-length"] == str(len(body))
        assert (response.headers["etag"], response.headers["accept-ranges"]) == (ETAG, "bytes")


async def test_a_head_tells_the_size_without_the_bytes() -> None:
    async with fal() as it:
        it.simulator.files.put("files/a.bin", StoredFile(PICTURE, "video/mp4", "a.bin"))

        response = await it.http.head(f"{it.urls.media}/files/a.bin")

        assert (response.headers["content-length"], response.content) == (str(SIZE), b"")
