"""Files of the web: asked in part, at public addresses only, by the address that was judged, without a key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from kling_mcp import errors
from kling_mcp.fal.client import Fal
from kling_mcp.fal.http import Deadline
from kling_mcp.fal.public_files import PublicFiles, is_public
from kling_mcp.media.links import looked_into
from kling_mcp.settings import Settings
from kling_mcp.simulator.app import Simulator
from kling_mcp.simulator.render import sample_video
from kling_mcp.simulator.serve import serving
from kling_mcp.simulator.storage import StoredFile
from tests.conftest import CANARY_KEY
from tests.fal.rawserver import RawServer, answer, endless, silence
from tests.fal.support import own_certificate

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

SOON = Deadline(2.0, 0.2, 0.5)
NAME = "video.example.org"


@pytest.mark.parametrize(
    ("number", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("64:ff9b::5db8:d822", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("192.168.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("2001:0:7f00:1::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("a name", False),
    ],
)
def test_an_address_is_public_whichever_way_it_is_written(number: str, public: bool) -> None:
    assert is_public(number) is public


async def test_a_name_that_means_this_network_is_not_asked() -> None:
    async with RawServer(default=answer(200, b"x")) as server:
        for numbers in (["127.0.0.1"], ["93.184.216.34", "127.0.0.1"], []):

            async def resolve(host: str, port: int, numbers: list[str] = numbers) -> list[str]:
                return numbers

            async with PublicFiles(resolve=resolve) as files:
                with pytest.raises(errors.FalUnreachable, match="not a public one"):
                    await files.read(f"https://{NAME}:{server.port}/a", 0, 9)
        async with PublicFiles() as files:
            for url in (f"http://{NAME}/a", "https://user@example.org/a", "file:///etc/passwd", f"{server.url}/a"):
                with pytest.raises(errors.FalUnreachable):
                    await files.read(url, 0, 9)

        assert server.connections == 0


async def test_the_address_that_was_judged_is_asked_and_has_to_prove_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    tls = own_certificate(tmp_path, NAME)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    part = answer(206, b"0123456789", {"Content-Range": "bytes 5-14/99", "Set-Cookie": "a=b"})
    async with (
        RawServer(default=part, tls=tls) as server,
        PublicFiles(resolve=resolve, allowed=lambda number: number == "127.0.0.1") as files,
    ):
        found = await files.read(f"https://{NAME}:{server.port}/a?b=c", 5, 4)
        await files.read(f"https://{NAME}:{server.port}/a?b=c", 5, 4)
        with pytest.raises(errors.FalUnreachable, match="certificate"):
            await files.read(f"https://other.example.org:{server.port}/a", 0, 9)

    assert (found.status, found.body, found.headers["content-range"]) == (206, b"0123", "bytes 5-14/99")
    for request in server.received:
        assert request.target == "/a?b=c"
        assert request.headers["host"] == f"{NAME}:{server.port}"
        assert request.headers["range"] == "bytes=5-8"
        assert request.headers.keys() == {"host", "accept", "accept-encoding", "connection", "user-agent", "range"}
    assert len(server.received) == 2


async def test_no_more_comes_than_was_asked_for_and_nothing_is_followed() -> None:
    async with RawServer() as server, PublicFiles([server.host], deadline=SOON) as files:
        server.plan = [
            endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 1000),
            answer(302, b"", {"Location": "/elsewhere"}),
            silence,
            answer(200, b"packed", {"Content-Encoding": "gzip"}),
        ]
        with anyio.fail_after(10):
            assert (await files.read(f"{server.url}/a", 0, 5000)).body == b"x" * 5000
            moved = await files.read(f"{server.url}/a", 0, 5000)
            assert (moved.status, moved.headers["location"]) == (302, "/elsewhere")
            for _ in range(2):
                with pytest.raises(errors.FalUnreachable):
                    await files.read(f"{server.url}/a", 0, 9)
        assert len(server.received) == 4


async def test_a_video_that_fal_keeps_is_looked_into_without_the_key() -> None:
    simulator = Simulator(key=CANARY_KEY, renderer=sample_video)
    video = sample_video((), None, None)
    simulator.files.put("files/a.mp4", StoredFile(video, "video/mp4", "a.mp4"))
    async with serving(simulator) as urls:
        fal = Fal(Settings.from_environment({"FAL_KEY": CANARY_KEY, **urls.environment()}))
        try:
            found = await looked_into(fal.public, f"{urls.media}/files/a.mp4")
        finally:
            await fal.aclose()

    assert found is not None
    assert found.size == len(video)
    assert found.measured.seconds > 1
    assert all("authorization" not in request.headers for request in simulator.requests)
