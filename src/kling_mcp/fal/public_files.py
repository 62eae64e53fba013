"""
A few bytes of a file that somebody else has put on the web, for what it says of itself in its head.

The address comes from a conversation, so this is where a request could be turned against the network that this program
runs in. It goes to public addresses only, by https, to the very address that was judged, without a key, and brings no
more than it was asked for. Redirects are not followed: where they lead is judged by who asks.
"""

from __future__ import annotations

import ipaddress
import socket
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import anyio

from kling_mcp.errors import FalUnreachable
from kling_mcp.fal.transport import (
    Deadline,
    RequestProgress,
    content_encoding,
    headers_of,
    open_client,
    refuse_encoded,
    timeout,
)
from kling_mcp.fal.urls import Address

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    import httpx

__all__ = ["Excerpt", "PublicFiles", "is_public"]

_DEADLINE: Final = Deadline(3, 5, 8)
# RFC 6052: IPv4 addresses as a network translates them into IPv6.
_TRANSLATED: Final = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Excerpt:
    """An answer: status, lower-case headers, and the bytes of the body, at most as many as were asked for."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class PublicFiles:
    """
    Reads files of the web in part.

    Args:
        test_hosts: Servers as ``host:port`` that are asked whatever their address is, as results of theirs are.
        resolve: The addresses of a host at a port.
        allowed: Whether an address may be asked.
        deadline: How long an answer may take.
    """

    def __init__(
        self,
        test_hosts: Iterable[str] = (),
        *,
        resolve: Callable[[str, int], Awaitable[list[str]]] | None = None,
        allowed: Callable[[str], bool] | None = None,
        deadline: Deadline = _DEADLINE,
    ) -> None:
        self._test_hosts = tuple(host for host in test_hosts if ":" in host)
        self._resolve = resolve or _addresses_of
        self._allowed = allowed or is_public
        self._deadline = deadline
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

    async def read(self, url: str, offset: int, count: int) -> Excerpt:
        """
        At most *count* bytes of *url* from *offset* on, as far as its server knows ranges; else from its beginning.

        Raises:
            FalUnreachable: It is at no public address, or there is no answer in time.
        """
        with anyio.move_on_after(self._deadline.total_seconds):
            return await self._read(url, offset, count)
        raise _not_read("it took too long")

    async def _read(self, url: str, offset: int, count: int) -> Excerpt:
        address = Address.read(url)
        if address is None:
            raise _not_read("it is no plain address")
        headers = {"Accept": "*/*", "Range": f"bytes={offset}-{offset + count - 1}"}
        target, extensions = url, dict[str, str]()
        if not address.is_at(self._test_hosts):
            target = await self._judged(address)
            # The certificate has to be that of the name, whatever address it was found at.
            headers["Host"] = address.host if address.port == 443 else f"{address.host}:{address.port}"
            extensions = {"sni_hostname": address.host}
        async with AsyncExitStack() as stack:
            try:
                if self._client is None:
                    import httpx

                    self._client = open_client(httpx.Limits(max_connections=4, max_keepalive_connections=0))
                request = self._client.build_request(
                    "GET", target, headers=headers, timeout=timeout(self._deadline), extensions=extensions
                )
                response = await self._client.send(request, stream=True)
                stack.push_async_callback(response.aclose)
                if content_encoding(response):
                    refuse_encoded(response)
                body = bytearray()
                async for piece in response.aiter_raw():
                    body += piece
                    if len(body) >= count:
                        break
            except Exception as error:
                raise _not_read(RequestProgress(url, self._deadline).failed(error).reason) from None
            return Excerpt(response.status_code, headers_of(response), bytes(body[:count]))

    async def _judged(self, address: Address) -> str:
        """*address* with the number that its name means at this moment, every one of which must be public."""
        if address.scheme != "https":
            raise _not_read("it is not https")
        try:
            numbers = await self._resolve(address.host, address.port)
        except OSError:
            raise _not_read("its host was not found") from None
        if not numbers or not all(self._allowed(number) for number in numbers):
            raise _not_read("its host is not a public one")
        number = f"[{numbers[0]}]" if ":" in numbers[0] else numbers[0]
        return f"https://{number}:{address.port}{address.path or '/'}{address.query}"


def is_public(number: str) -> bool:
    """Whether the IP address *number* is one of the public network, whichever way it is written."""
    try:
        address = ipaddress.ip_address(number)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _TRANSLATED:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if address.teredo is not None:
            return False
        address = inner or address
    return address.is_global and not address.is_multicast


async def _addresses_of(host: str, port: int) -> list[str]:
    found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(place[0]) for *_, place in found))


def _not_read(reason: str) -> FalUnreachable:
    return FalUnreachable(
        f"The file could not be looked into: {reason}.", "It is sent to fal.ai as a link all the same."
    )
