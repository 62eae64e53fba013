"""
HTTP requests to fal, each with a deadline and a byte cap; the key goes to three hosts and is never redirected.

A failed request leaves as `TransportError`, which says whether it may have arrived.
"""

from __future__ import annotations

import random
import time
from base64 import b64encode
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final, Literal, Self

import anyio

from kling_mcp.fal import tolerant_json
from kling_mcp.fal.transport import (
    Deadline,
    Deadlines,
    RequestProgress,
    TooLarge,
    TransportError,
    capped,
    content_encoding,
    headers_of,
    open_client,
    refuse_encoded,
    timeout,
    unpacked,
)
from kling_mcp.fal.urls import Address

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping

    import httpx

    from kling_mcp.settings import FalHosts, Secret

__all__ = [
    "FREE_TRIES",
    "JSON_BYTES",
    "Deadline",
    "Deadlines",
    "FalHttp",
    "Pool",
    "Response",
    "TooLarge",
    "TransportError",
]

FREE_TRIES: Final = 3
"""How often a call is made that costs nothing."""
JSON_BYTES: Final = 1024 * 1024
"""The largest answer that is read as JSON, where a call does not say otherwise."""

Pool = Literal["submit", "api", "upload", "stream"]

_RETRY_AFTER_CAP_SECONDS: Final = 300.0
_LONGEST_PAUSE_SECONDS: Final = 60.0
_SHORTEST_SECRET: Final = 16


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer: status, lower-case headers, and the bytes of the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self, *, exact: bool = False) -> object:
        """
        The body as JSON, fractions as `Decimal` if *exact*.

        Raises:
            NotJson: The body holds no JSON.
        """
        return tolerant_json.parse(self.body, exact=exact)


class FalHttp:
    """
    Requests to fal's three hosts, and requests without a key to its upload hosts.

    Args:
        hosts: The base URLs that the key may be sent to, and no other.
        key: The key, or None to send none.
        deadlines: How long each kind of call may take.
        sleep: Waits so many seconds.
        chance: A random number from 0 to 1, for jitter.
        now: Seconds since 1970, for a Retry-After that is a date.
    """

    def __init__(
        self,
        hosts: FalHosts,
        key: Secret | None,
        *,
        deadlines: Deadlines | None = None,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
        chance: Callable[[], float] = random.random,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.hosts = hosts
        self.deadlines = deadlines or Deadlines()
        self.sleep = sleep
        self._key = key
        self._chance = chance
        self._now = now
        self._clients: dict[Pool, httpx.AsyncClient] = {}

    @property
    def has_key(self) -> bool:
        """Whether there is a key to send."""
        return self._key is not None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection; the next request would open new ones."""
        clients = list(self._clients.values())
        self._clients.clear()
        for client in clients:
            await client.aclose()

    async def request(
        self,
        method: str,
        url: str,
        *,
        deadline: Deadline,
        headers: Mapping[str, str] | None = None,
        content: bytes | Callable[[], AsyncIterator[bytes]] | None = None,
        pool: Pool = "api",
        authenticated: bool = True,
        max_bytes: int = JSON_BYTES,
        tries: int = 1,
        slow_down: bool = False,
    ) -> Response:
        """
        Send a request and read the whole answer, of *max_bytes* at the most.

        It is sent once, except for calls that may be made twice: with more *tries* it is sent again after a transport
        error or a 5xx answer, and after a 429 answer too if *slow_down*. Cancelling closes the connection; the request
        may have arrived by then. A *content* that is a function is called for each try, and must come with its
        Content-Length among the *headers*.

        Raises:
            TransportError: No whole answer came to the last try.
        """
        client = self._client(pool)
        attempt = 0
        while True:
            attempt += 1
            answer = None
            progress = RequestProgress(url, deadline)
            try:
                with progress.scope:
                    async with client.stream(
                        method,
                        url,
                        headers={**(headers or {}), **(self._authorization(url) if authenticated else {})},
                        content=content() if callable(content) else content,
                        timeout=timeout(deadline),
                        extensions={"trace": progress.trace},
                    ) as response:
                        packed = b"".join([chunk async for chunk in capped(response, max_bytes)])
                        answer = self._masked(response, unpacked(packed, content_encoding(response), max_bytes))
                if answer is None:
                    raise progress.out_of_time()
            except Exception as error:
                failure = progress.failed(error)
                if attempt >= tries or not failure.temporary:
                    raise failure from None
            else:
                again = answer.status >= 500 or (slow_down and answer.status == 429)
                if attempt >= tries or not again:
                    return answer
            finally:
                await progress.close()
            await self.sleep(self.pause_seconds(attempt, answer))

    @asynccontextmanager
    async def listen(self, url: str, *, deadline: Deadline) -> AsyncGenerator[tuple[Response, AsyncIterator[bytes]]]:
        """
        Open an answer that comes line by line: its head, and the lines as they come.

        Only connecting and the silence between two pieces have a deadline; the caller decides how long to listen.

        Raises:
            TransportError: There is no answer, or it broke.
        """
        headers = {"Accept": "text/event-stream", **self._authorization(url)}
        client = self._client("stream")
        async with AsyncExitStack() as stack:
            try:
                opening = client.stream("GET", url, headers=headers, timeout=timeout(deadline))
                response = await stack.enter_async_context(opening)
                refuse_encoded(response)
            except Exception as error:
                raise RequestProgress(url, deadline).failed(error) from None
            yield self._masked(response, b""), self._lines(response)

    async def _lines(self, response: httpx.Response) -> AsyncIterator[bytes]:
        unfinished = b""
        async for chunk in capped(response, JSON_BYTES):
            *lines, unfinished = (unfinished + chunk).split(b"\n")
            for line in lines:
                yield self._without_secrets(line.rstrip(b"\r"))

    def pause_seconds(self, attempt: int, answer: Response | None = None) -> float:
        """
        How long to wait after the *attempt*-th failure: doubling, with full jitter, at most a minute.

        Where *answer* has a Retry-After, at least as long as that asks for, up to five minutes.
        """
        pause = self._chance() * min(_LONGEST_PAUSE_SECONDS, 2.0**attempt)
        return max(pause, min(self.asked_seconds(answer) or 0.0, _RETRY_AFTER_CAP_SECONDS))

    def asked_seconds(self, answer: Response | None) -> float | None:
        """What the answer's Retry-After asks for in seconds (RFC 9110 §10.2.3: a number or a date), if it has one."""
        value = answer.headers.get("retry-after", "").strip() if answer else ""
        if value.isascii() and value.isdigit():
            return float(value[:9])
        try:
            until = parsedate_to_datetime(value).timestamp()
        except (ValueError, TypeError, OverflowError):
            return None
        return max(0.0, until - self._now())

    def _authorization(self, url: str) -> dict[str, str]:
        """The one place where the key becomes a header: for an address under a configured base."""
        address = Address.read(url)
        if self._key is None or address is None or not address.is_private:
            return {}
        bases = (self.hosts.queue, self.hosts.rest, self.hosts.api)
        if all(address.path_under(base) is None for base in bases):
            return {}
        return {"Authorization": f"Key {self._key.reveal()}"}

    def _client(self, pool: Pool) -> httpx.AsyncClient:
        client = self._clients.get(pool)
        if client is None:
            import httpx

            limits = {
                # A kept socket that the server has closed meanwhile fails in a way that cannot be told from
                # an accepted request, so a submit never uses one.
                "submit": httpx.Limits(max_connections=16, max_keepalive_connections=0),
                "api": httpx.Limits(max_connections=16, max_keepalive_connections=8, keepalive_expiry=30),
                "upload": httpx.Limits(max_connections=4, max_keepalive_connections=0),
                # A stream that is left before its end takes its connection with it.
                "stream": httpx.Limits(max_connections=40, max_keepalive_connections=0),
            }[pool]
            client = self._clients[pool] = open_client(limits)
            if pool == "submit":
                client.headers["Connection"] = "close"
        return client

    def _masked(self, response: httpx.Response, body: bytes) -> Response:
        headers = {name: self._without_secrets(value.encode()).decode() for name, value in headers_of(response).items()}
        return Response(response.status_code, headers, self._without_secrets(body))

    def _without_secrets(self, text: bytes) -> bytes:
        """*text* without what must not come back: the key, its halves and its base64 form, unless they are short."""
        if self._key is not None:
            key = self._key.reveal()
            for secret in (key, b64encode(key.encode()).decode(), *key.split(":")):
                if len(secret) >= _SHORTEST_SECRET:
                    text = text.replace(secret.encode(), b"[key]")
        return text
