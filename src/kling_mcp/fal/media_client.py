"""
Downloads of finished videos: a client without a key, for the hosts that results may come from.

`media/downloads.py` writes what comes; no other module asks for files.
"""

from __future__ import annotations

import re
from base64 import b64decode
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import unquote_to_bytes, urljoin

import anyio

from kling_mcp.errors import FalUnreachable, InputRefused
from kling_mcp.fal.transport import (
    Deadline,
    RequestProgress,
    TransportError,
    capped,
    content_encoding,
    headers_of,
    open_client,
    refuse_encoded,
    timeout,
    unpacked_stream,
)
from kling_mcp.fal.urls import Address

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping

    import httpx

__all__ = ["Fetched", "MediaClient"]

_DOWNLOAD: Final = Deadline(5, 30, 1800)
_PIECE_BYTES: Final = 1024 * 1024
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS: Final = 3
_STREAMED: Final = frozenset({"gzip", "x-gzip", "deflate"})
_OF_THE_PACKED: Final = frozenset({"content-encoding", "content-length", "content-range", "accept-ranges", "etag"})
"""Headers about the compressed bytes."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """An open download: status, lower-case headers, and the bytes as they come."""

    status: int
    headers: Mapping[str, str]
    pieces: AsyncIterator[bytes]

    async def chunks(self) -> AsyncIterator[bytes]:
        """
        The body, piece by piece.

        Raises:
            FalUnreachable: The download broke or is too large.
        """
        try:
            async for chunk in self.pieces:
                yield chunk
        except TransportError as error:
            raise _download_failed(error.reason) from None


class MediaClient:
    """
    Downloads from the hosts that results may come from.

    Args:
        media_hosts: Names (with their subdomains, https only) and ``host:port`` of test servers.
        deadline: How long a download may take.
        max_bytes: The largest download.
    """

    def __init__(self, media_hosts: Iterable[str], *, deadline: Deadline = _DOWNLOAD, max_bytes: int = 1024**3) -> None:
        self._hosts = tuple(media_hosts)
        self._deadline = deadline
        self._max_bytes = max_bytes
        self._client: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    @asynccontextmanager
    async def fetch(self, url: str, offset: int = 0, etag: str | None = None) -> AsyncGenerator[Fetched]:
        """
        Open a download, from byte *offset* on if the file still has *etag*.

        A ``data:`` URI, which is the file itself, is given in the same way.

        Up to three redirects are followed, each to an address that is allowed in
        itself. Money does not move here, but what is fetched has been paid for.

        Raises:
            InputRefused: The address, or one that it leads to, is not allowed.
            FalUnreachable: The download broke, took too long or is too large.
        """
        if url[:5].lower() == "data:":
            body = _inline(url)
            yield Fetched(200, {"content-length": str(len(body))}, _in_pieces(body))
            return
        asked = {"Accept": "*/*"}
        if offset:
            asked["Range"] = f"bytes={offset}-"
            if etag is not None:
                asked["If-Range"] = etag
        with anyio.move_on_after(self._deadline.total_seconds) as scope:
            async with AsyncExitStack() as stack:
                response = await self._open(url, asked, stack)
                headers, pieces = headers_of(response), capped(response, self._max_bytes)
                if content_encoding(response) in _STREAMED:
                    headers = {name: headers[name] for name in headers if name not in _OF_THE_PACKED}
                    pieces = unpacked_stream(pieces, self._max_bytes)
                yield Fetched(response.status_code, headers, pieces)
        if scope.cancelled_caught:
            raise _download_failed(f"it took longer than {self._deadline.total_seconds:g} seconds")

    async def _open(self, url: str, headers: Mapping[str, str], stack: AsyncExitStack) -> httpx.Response:
        """The answer at *url* or at the end of its redirects; *stack* closes it."""
        for _ in range(_MAX_REDIRECTS + 1):
            address = Address.read(url)
            if address is None or not address.is_at(self._hosts):
                place = "is not a plain https address"
                if address is not None:
                    place = f"is at {address.host[:100]}:{address.port}"
                raise InputRefused(
                    f"The file {place}, where files are not fetched from.",
                    "The operator can allow a host with KLING_MCP_MEDIA_HOSTS.",
                    billed="yes",
                )
            try:
                if self._client is None:
                    import httpx

                    self._client = open_client(httpx.Limits(max_connections=4, max_keepalive_connections=0))
                request = self._client.build_request("GET", url, headers=headers, timeout=timeout(self._deadline))
                response = await self._client.send(request, stream=True)
                stack.push_async_callback(response.aclose)
                if response.status_code != 200 or content_encoding(response) not in _STREAMED:
                    refuse_encoded(response)
            except Exception as error:
                raise _download_failed(RequestProgress(url, self._deadline).failed(error).reason) from None
            if response.status_code not in _REDIRECTS:
                return response
            url = urljoin(url, response.headers.get("location", ""))
        raise _download_failed(f"there were more than {_MAX_REDIRECTS} redirects")


def _inline(url: str) -> bytes:
    """
    The file that a ``data:`` URI (RFC 2397) is, also without padding or in the form for addresses.

    Raises:
        FalUnreachable: It cannot be decoded.
    """
    head, _, payload = url.partition(",")
    if not head.lower().rstrip().endswith(";base64"):
        return unquote_to_bytes(payload)
    plain = re.sub(rb"\s", b"", unquote_to_bytes(payload)).translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
    try:
        return b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
    except ValueError:
        raise _download_failed("the file in fal.ai's answer cannot be decoded") from None


async def _in_pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), _PIECE_BYTES):
        yield body[start : start + _PIECE_BYTES]


def _download_failed(reason: str) -> FalUnreachable:
    return FalUnreachable(f"The file could not be fetched: {reason}.", "Fetching it again costs nothing.", billed="yes")
