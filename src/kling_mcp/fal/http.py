"""
One HTTP exchange at a time, with everything bounded: where the key goes, how long it takes, how much comes back.

The one module that knows httpx, which is imported on first use. httpx bounds
each read and not the whole call, decompresses without a limit and follows the
environment; here each exchange has a deadline and a byte cap, also for what is
unpacked, no redirect is followed with the key, no cookie is kept, and what goes
wrong leaves as `TransportError`, which says whether the request may have arrived.
"""

from __future__ import annotations

import logging
import os
import random
import re
import socket
import time
import zlib
from base64 import b64decode, b64encode
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final, Literal, Self, cast
from urllib.parse import unquote_to_bytes, urljoin

import anyio

from kling_mcp import __version__
from kling_mcp.errors import FalUnreachable, InputRefused
from kling_mcp.fal import tolerant_json
from kling_mcp.fal.urls import LOOPBACK, Address

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
    from types import TracebackType

    import httpx
    from anyio.abc import AsyncResource

    from kling_mcp.settings import FalHosts, Secret

__all__ = [
    "JSON_BYTES",
    "Deadline",
    "Deadlines",
    "FalHttp",
    "Fetched",
    "MediaClient",
    "Pool",
    "Response",
    "TooLarge",
    "TransportError",
]

JSON_BYTES: Final = 1024 * 1024
"""The largest answer that is read as JSON, where a call does not say otherwise."""

Pool = Literal["submit", "api", "upload", "stream"]

_RETRY_AFTER_CAP_SECONDS: Final = 300.0
_LONGEST_PAUSE_SECONDS: Final = 60.0
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS: Final = 3
_USER_AGENT: Final = f"kling-mcp/{__version__}"


@dataclass(frozen=True, slots=True)
class Deadline:
    """How long an exchange may take: to connect, for one read or write, and altogether."""

    connect_seconds: float
    read_seconds: float
    total_seconds: float


@dataclass(frozen=True, slots=True)
class Deadlines:
    """A deadline for each kind of call."""

    submit: Deadline = Deadline(5, 45, 60)
    status: Deadline = Deadline(5, 15, 20)
    stream: Deadline = Deadline(5, 30, 30)
    result: Deadline = Deadline(5, 30, 60)
    cancel: Deadline = Deadline(5, 10, 15)
    lookup: Deadline = Deadline(5, 20, 30)
    upload: Deadline = Deadline(5, 60, 30)
    upload_bytes_per_second: int = 100_000
    download: Deadline = Deadline(5, 30, 1800)

    def upload_of(self, size_bytes: int) -> Deadline:
        """The deadline for *size_bytes* on a slow line."""
        slow_seconds = size_bytes / self.upload_bytes_per_second
        return Deadline(self.upload.connect_seconds, self.upload.read_seconds, self.upload.total_seconds + slow_seconds)


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


class TransportError(Exception):
    """
    No whole answer came.

    Args:
        reason: Why, in plain words of this program, without a final stop.
        may_have_arrived: False only where it is certain that no byte of the request was sent.
        passing: Whether the same call could go better a little later.
    """

    def __init__(self, reason: str, *, may_have_arrived: bool, passing: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.may_have_arrived = may_have_arrived
        self.passing = passing


class TooLarge(TransportError):
    """An answer came, and more of it than is read."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"the answer is larger than {max_bytes} bytes", may_have_arrived=True, passing=False)


class FalHttp:
    """
    Exchanges with fal's three hosts, and key-less ones with its upload hosts.

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

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection; the next exchange would open new ones."""
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
        content: bytes | None = None,
        pool: Pool = "api",
        authenticated: bool = True,
        max_bytes: int = JSON_BYTES,
    ) -> Response:
        """
        Send one request, once, and read the whole answer, of *max_bytes* at the most.

        Cancelling it closes the connection; the request may have arrived by then.

        Raises:
            TransportError: No whole answer came.
        """
        sent_headers = {**(headers or {}), **(self._authorization(url) if authenticated else {})}
        client = self._client(pool)
        way = _Way(url, deadline)
        try:
            with way.scope:
                async with client.stream(
                    method,
                    url,
                    headers=sent_headers,
                    content=content,
                    timeout=_timeout(deadline),
                    extensions={"trace": way.noted},
                ) as response:
                    packed = b"".join([chunk async for chunk in _capped(response, max_bytes)])
                    body = _unpacked(packed, response.headers.get("content-encoding", ""), max_bytes)
                    return Response(response.status_code, self._masked_headers(response), self._masked(body))
        except TransportError:
            raise
        except Exception as error:
            raise way.told(error) from None
        finally:
            await way.clear()
        raise way.out_of_time()

    @asynccontextmanager
    async def listen(self, url: str, *, deadline: Deadline) -> AsyncGenerator[tuple[Response, AsyncIterator[bytes]]]:
        """
        Open an answer that comes line by line: its head, and the lines as they come.

        Only connecting and the silence between two pieces have a deadline; the caller
        decides how long to listen.

        Raises:
            TransportError: There is no answer, or it broke.
        """
        headers = {"Accept": "text/event-stream", **self._authorization(url)}
        client = self._client("stream")
        async with AsyncExitStack() as stack:
            try:
                opening = client.stream("GET", url, headers=headers, timeout=_timeout(deadline))
                response = await stack.enter_async_context(opening)
                _refuse_encoded(response)
            except TransportError:
                raise
            except Exception as error:
                raise _Way(url, deadline).told(error) from None
            yield Response(response.status_code, self._masked_headers(response), b""), self._lines(response)

    async def _lines(self, response: httpx.Response) -> AsyncIterator[bytes]:
        unfinished = b""
        async for chunk in _capped(response, JSON_BYTES):
            *lines, unfinished = (unfinished + chunk).split(b"\n")
            for line in lines:
                yield self._masked(line.rstrip(b"\r"))

    async def request_with_retries(
        self,
        method: str,
        url: str,
        *,
        deadline: Deadline,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        pool: Pool = "api",
        authenticated: bool = True,
        max_bytes: int = JSON_BYTES,
        tries: int = 3,
        slow_down: bool = False,
    ) -> Response:
        """
        The same for a call that may be made twice: repeated after a transport error or a 5xx answer.

        Args:
            tries: How often at most.
            slow_down: Repeat it after a 429 answer too.

        Raises:
            TransportError: No whole answer came to the last try.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                answer = await self.request(
                    method,
                    url,
                    deadline=deadline,
                    headers=headers,
                    content=content,
                    pool=pool,
                    authenticated=authenticated,
                    max_bytes=max_bytes,
                )
            except TransportError as interrupted:
                if attempt >= tries or not interrupted.passing:
                    raise
                answer = None
            if answer is not None:
                again = answer.status >= 500 or (slow_down and answer.status == 429)
                if attempt >= tries or not again:
                    return answer
            await self.sleep(self.pause_seconds(attempt, answer))

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
            client = self._clients[pool] = _opened(limits)
            if pool == "submit":
                client.headers["Connection"] = "close"
        return client

    def _masked(self, body: bytes) -> bytes:
        for secret in self._secrets():
            body = body.replace(secret.encode(), b"[key]")
        return body

    def _masked_headers(self, response: httpx.Response) -> dict[str, str]:
        headers = _headers(response)
        for secret in self._secrets():
            headers = {name: value.replace(secret, "[key]") for name, value in headers.items()}
        return headers

    def _secrets(self) -> Iterable[str]:
        """What must not come back in an answer: the key, its halves, and its base64 form; never a short word."""
        if self._key is None:
            return
        key = self._key.reveal()
        for text in (key, b64encode(key.encode()).decode(), *key.split(":")):
            if len(text) >= 16:
                yield text


class MediaClient:
    """
    Downloads from the hosts that results may come from. It has no key to lose.

    Args:
        media_hosts: Names (with their subdomains, https only) and ``host:port`` of test servers.
        deadline: How long a download may take.
        max_bytes: The largest download.
    """

    def __init__(
        self,
        media_hosts: Iterable[str],
        *,
        deadline: Deadline | None = None,
        max_bytes: int = 1024**3,
    ) -> None:
        self._hosts = tuple(media_hosts)
        self._deadline = deadline or Deadlines().download
        self._max_bytes = max_bytes
        self._client: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
            yield Fetched(200, {"content-length": str(len(body))}, _pieces(body))
            return
        headers = {"Accept": "*/*"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if etag is not None:
                headers["If-Range"] = etag
        with anyio.move_on_after(self._deadline.total_seconds) as scope:
            async with AsyncExitStack() as stack:
                response = await self._follow(url, headers, stack)
                headers, pieces = _headers(response), _capped(response, self._max_bytes)
                if headers.pop("content-encoding", "").strip().lower() in _STREAMED:
                    # The length, the tag and the ranges are those of what was compressed.
                    headers = {name: headers[name] for name in headers if name not in _OF_THE_PACKED}
                    pieces = _inflated(pieces, self._max_bytes)
                yield Fetched(response.status_code, headers, pieces)
        if scope.cancelled_caught:
            raise _download_failed(f"it took longer than {self._deadline.total_seconds:g} seconds")

    async def _follow(self, url: str, headers: Mapping[str, str], stack: AsyncExitStack) -> httpx.Response:
        for _ in range(_MAX_REDIRECTS + 1):
            address = Address.read(url)
            if address is None or not address.is_at(self._hosts):
                raise _download_refused(address)
            try:
                response = await self._send(url, headers)
                stack.push_async_callback(response.aclose)
                if response.status_code != 200 or _encoding(response) not in _STREAMED:
                    _refuse_encoded(response)
            except TransportError as interrupted:
                raise _download_failed(interrupted.reason) from None
            except Exception as error:
                raise _download_failed(_Way(url, self._deadline).told(error).reason) from None
            if response.status_code not in _REDIRECTS:
                return response
            url = urljoin(url, response.headers.get("location", ""))
        raise _download_failed(f"there were more than {_MAX_REDIRECTS} redirects")

    async def _send(self, url: str, headers: Mapping[str, str]) -> httpx.Response:
        if self._client is None:
            import httpx

            self._client = _opened(httpx.Limits(max_connections=4, max_keepalive_connections=0))
        request = self._client.build_request("GET", url, headers=dict(headers), timeout=_timeout(self._deadline))
        return await self._client.send(request, stream=True)


class Fetched:
    """An open download: status, lower-case headers, and the bytes as they come."""

    def __init__(self, status: int, headers: Mapping[str, str], pieces: AsyncIterator[bytes]) -> None:
        self.status = status
        self.headers = headers
        self._pieces = pieces

    async def chunks(self) -> AsyncIterator[bytes]:
        """
        The body, piece by piece.

        Raises:
            FalUnreachable: The download broke or is too large.
        """
        try:
            async for chunk in self._pieces:
                yield chunk
        except TransportError as interrupted:
            raise _download_failed(interrupted.reason) from None


def _opened(limits: httpx.Limits) -> httpx.AsyncClient:
    """
    A client of this machine's proxies and certificates.

    Raises:
        TransportError: They cannot be used, so nothing was sent; the next call looks again.
    """
    try:
        return _open_client(limits)
    except Exception:
        raise TransportError(_wrong_setting(), may_have_arrived=False, passing=False) from None


def _wrong_setting() -> str:
    """Which variable of the environment no client can be made with."""
    import ssl

    import httpx

    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        try:
            httpx.create_ssl_context(verify=True, trust_env=True)
        except (OSError, ValueError, ssl.SSLError):
            if os.environ.get(name):
                return f"the certificates that {name} names cannot be read"
    for name, value in os.environ.items():
        if name.upper() in {"ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY"} and value:
            try:
                httpx.Proxy(value if "://" in value else f"http://{value}")
            except (ValueError, httpx.InvalidURL):
                return f"{name} names no proxy that can be used; it takes http://host:port or socks5://host:port"
    return "no connection can be made with the proxy and certificate settings of this machine"


def _open_client(limits: httpx.Limits) -> httpx.AsyncClient:
    import http.cookiejar

    import httpx

    # These log addresses, and signed upload addresses are secrets.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    no_cookies = http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
    return httpx.AsyncClient(
        headers={"User-Agent": _USER_AGENT, "Accept": "application/json", "Accept-Encoding": "identity"},
        cookies=no_cookies,
        follow_redirects=False,
        limits=limits,
        # Proxies and certificate files of the environment count; that a certificate is checked is not up to it.
        trust_env=True,
        verify=_verifying(),
        # What is meant for this machine goes to no proxy, whatever the environment says.
        mounts={f"all://{f'[{host}]' if ':' in host else host}": None for host in LOOPBACK},
    )


def _verifying() -> ssl.SSLContext:
    import ssl

    import httpx

    context = httpx.create_ssl_context(verify=True, trust_env=True)
    context.check_hostname = True
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _timeout(deadline: Deadline) -> httpx.Timeout:
    import httpx

    return httpx.Timeout(deadline.read_seconds, connect=deadline.connect_seconds, pool=deadline.connect_seconds)


def _headers(response: httpx.Response) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def _unpacked(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """
    *body* without the compression that was declined, at most *max_bytes* of it.

    What is gzip is unpacked also where nothing says so, and what only claims to be is taken as it is.
    """
    for kind in reversed([kind.strip().lower() for kind in encoding.split(",")]):
        if kind not in _WINDOW_BITS or (kind != "deflate" and not body.startswith(b"\x1f\x8b")):
            if kind in {*_WINDOW_BITS, "identity"}:
                continue
            raise TransportError("the answer is compressed although that was declined", may_have_arrived=True)
        for window_bits in _WINDOW_BITS[kind]:
            try:
                unpacked = zlib.decompressobj(window_bits).decompress(body, max_bytes + 1)
            except zlib.error:
                continue
            if len(unpacked) > max_bytes:
                raise TooLarge(max_bytes)
            body = unpacked
            break
    return body


_WINDOW_BITS: Final[Mapping[str, tuple[int, ...]]] = {"": (47,), "gzip": (47,), "x-gzip": (47,), "deflate": (47, -15)}
"""How zlib is to read each: 47 finds out whether it is gzip or zlib, -15 is without a head."""


_STREAMED: Final = frozenset({"gzip", "x-gzip", "deflate"})
_OF_THE_PACKED: Final = frozenset({"content-length", "content-range", "accept-ranges", "etag"})


async def _inflated(pieces: AsyncIterator[bytes], max_bytes: int) -> AsyncIterator[bytes]:
    """*pieces* unpacked, up to *max_bytes*; what only claims to be compressed comes as it is."""
    unpack = None
    received = 0
    async for packed in pieces:
        if not received and unpack is None and not packed.startswith((b"\x1f\x8b", b"\x78")):
            yield packed
            received += len(packed)
            continue
        unpack = unpack or (None if received else zlib.decompressobj(47))
        if unpack is None:
            yield packed
            continue
        while packed and not unpack.eof:
            try:
                piece = unpack.decompress(packed, _PIECE_BYTES)
            except zlib.error:
                raise TransportError("the answer cannot be unpacked", may_have_arrived=True) from None
            packed = unpack.unconsumed_tail
            received += len(piece)
            if received > max_bytes:
                raise TooLarge(max_bytes)
            yield piece
    if unpack is not None and not unpack.eof:
        raise TransportError("the answer broke off", may_have_arrived=True)


_PIECE_BYTES: Final = 1024 * 1024


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), _PIECE_BYTES):
        yield body[start : start + _PIECE_BYTES]


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


def _encoding(response: httpx.Response) -> str:
    return response.headers.get("content-encoding", "").strip().lower()


def _refuse_encoded(response: httpx.Response) -> None:
    if _encoding(response) not in {"", "identity"}:
        raise TransportError("the answer is compressed although that was declined", may_have_arrived=True)


async def _capped(response: httpx.Response, max_bytes: int) -> AsyncIterator[bytes]:
    """The body of *response* as it comes, up to *max_bytes*; only `TransportError` is raised."""
    received = 0
    try:
        async for chunk in response.aiter_raw():
            received += len(chunk)
            if received > max_bytes:
                raise TooLarge(max_bytes)
            yield chunk
    except TransportError:
        raise
    except Exception as error:
        raise TransportError(_broken(error), may_have_arrived=True) from None


class _Way:
    """
    How far one request has got, which decides whether anything of it can have left this machine.

    httpcore tells of each step before it is taken. Only the steps that are known
    to come before the request count as such, so that one of another name, of a
    later httpcore, means that it may have left.

    Args:
        url: Where it goes.
        deadline: How long it may take; what comes before its first byte may take three times that of one connection.
    """

    def __init__(self, url: str, deadline: Deadline) -> None:
        now = anyio.current_time()
        self._end = now + deadline.total_seconds
        self._deadline = deadline
        self.scope = anyio.CancelScope(deadline=now + min(deadline.total_seconds, 3 * deadline.connect_seconds))
        address = Address.read(url)
        self._target = "fal.ai" if address is None else f"{address.host}:{address.port}"
        self._place = self._target
        self._begun = self._left = self._asked_proxy = False
        self._greeted: AsyncResource | None = None

    async def noted(self, event: str, details: Mapping[str, object]) -> None:
        """Take note of a step, by httpcore's name for it."""
        if event.startswith("socks.setup_socks5_connection.") and not event.endswith(".failed"):
            self._greeted = cast("AsyncResource | None", details.get("stream"))
        if not event.endswith(".started"):
            return
        self._begun = True
        step = event.removesuffix(".started")
        if getattr(details.get("request"), "method", None) == b"CONNECT":
            self._asked_proxy = True
        elif step.endswith(".connect_tcp"):
            self._place = f"{details.get('host')}:{details.get('port')}"
        elif step not in _BEFORE_THE_REQUEST:
            self._left = True
            self.scope.deadline = self._end

    async def clear(self) -> None:
        """Close what httpcore leaves open where a SOCKS proxy makes no connection."""
        if self._greeted is not None:
            with anyio.CancelScope(shield=True):
                await self._greeted.aclose()

    def told(self, error: Exception) -> TransportError:
        """What *error* says about the request."""
        import httpx

        if isinstance(error, (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL)):
            return TransportError("the request could not be written", may_have_arrived=False, passing=False)
        if isinstance(error, httpx.PoolTimeout):
            return TransportError("too many calls were open already", may_have_arrived=False)
        never = isinstance(error, (httpx.ConnectTimeout, httpx.ConnectError, httpx.ProxyError))
        if never or (self._begun and not self._left):
            return TransportError(self._unconnected(error), may_have_arrived=False)
        return TransportError(_broken(error), may_have_arrived=True)

    def out_of_time(self) -> TransportError:
        """What it means that the time was over."""
        if self._begun and not self._left:
            return TransportError(self._unconnected(TimeoutError()), may_have_arrived=False)
        msg = f"the call took longer than {self._deadline.total_seconds:g} seconds"
        return TransportError(msg, may_have_arrived=True)

    def _unconnected(self, error: Exception) -> str:
        import ssl

        import httpx

        proxied = self._place != self._target
        place = f"the proxy at {self._place}" if proxied else self._place
        causes = list(_causes(error))

        def found(*kinds: type[BaseException]) -> BaseException | None:
            return next((cause for cause in causes if isinstance(cause, kinds)), None)

        untrusted = found(ssl.SSLCertVerificationError)
        if untrusted is not None:
            why = getattr(untrusted, "verify_message", "") or "it cannot be verified"
            return (
                f"no connection could be made: the certificate of {self._target} is not trusted here ({why}); where a "
                "company's proxy or a virus scanner reads along, SSL_CERT_FILE must name its certificates"
            )
        if found(ssl.SSLError):
            return f"no connection could be made: the encryption (TLS) of the one to {self._target} failed"
        if found(socket.gaierror):
            return f"no connection could be made: the name of {place} was not found (DNS)"
        if found(ConnectionRefusedError):
            return f"no connection could be made: {place} refused it"
        if isinstance(error, httpx.ProxyError):
            status = str(error)[:3]
            said = f"it answered with HTTP status {status}" if status.isdigit() else "it could not reach the host"
            wanted = ", so it wants a user name and a password" if status == "407" else ""
            return f"the proxy made no connection: {said}{wanted}"
        if self._asked_proxy or (proxied and not found(OSError)):
            late = isinstance(error, (httpx.TimeoutException, TimeoutError))
            return f"the proxy made no connection: {place} {'did not answer in time' if late else 'gave no answer'}"
        if isinstance(error, (httpx.TimeoutException, TimeoutError)):
            return f"no connection could be made: {place} did not answer in time"
        return f"no connection could be made: there is no way to {place}"


_BEFORE_THE_REQUEST: Final = frozenset(
    {
        "connection.retry",
        "connection.start_tls",
        "proxy.start_tls",
        "socks.setup_socks5_connection",
        "socks.start_tls",
        # Comes at the end of whatever was there: of CONNECT, too.
        "http11.response_closed",
    }
)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """*error*, what it came from, and what those came from."""
    waiting = [error]
    seen: set[int] = set()
    while waiting:
        cause = waiting.pop(0)
        if cause is None or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        waiting += [cause.__cause__, cause.__context__]
        if isinstance(cause, BaseExceptionGroup):
            waiting += cast("BaseExceptionGroup[BaseException]", cause).exceptions


def _broken(error: Exception) -> str:
    """Why there is no whole answer to a request that may have arrived."""
    import httpx

    match error:
        case httpx.TimeoutException():
            return "no answer came in time"
        case httpx.RemoteProtocolError():
            return "the answer broke off or was not HTTP"
        case httpx.NetworkError():
            return "the connection broke"
        case _:
            return "the answer could not be read"


def _download_refused(address: Address | None) -> InputRefused:
    place = "is not a plain https address" if address is None else f"is at {address.host[:100]}:{address.port}"
    return InputRefused(
        f"The file {place}, where files are not fetched from.",
        "The operator can allow a host with KLING_MCP_MEDIA_HOSTS.",
        billed="yes",
    )


def _download_failed(reason: str) -> FalUnreachable:
    return FalUnreachable(f"The file could not be fetched: {reason}.", "Fetching it again costs nothing.", billed="yes")
