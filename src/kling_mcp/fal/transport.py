"""
Connections: proxies and certificates, time and byte limits, and whether a failed request can have left this machine.

With `http`, `media_client` and `public_files`, the only modules that know httpx, which is imported on first use. httpx
limits the time of each read and not of the whole call, unpacks without a limit and keeps cookies; what is opened here
does not.
"""

from __future__ import annotations

import logging
import os
import socket
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import anyio

from kling_mcp import __version__
from kling_mcp.fal.urls import LOOPBACK, Address

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    import httpx

__all__ = [
    "Deadline",
    "Deadlines",
    "RequestProgress",
    "TooLarge",
    "TransportError",
    "capped",
    "content_encoding",
    "headers_of",
    "open_client",
    "refuse_encoded",
    "timeout",
    "unpacked",
    "unpacked_stream",
]

_COMPRESSED: Final = "the answer is compressed although that was declined"
_PIECE_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Deadline:
    """How long a request may take: to connect, for one read or write, and altogether."""

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

    def upload_of(self, size_bytes: int) -> Deadline:
        """The deadline for *size_bytes* on a slow line."""
        slow_seconds = size_bytes / self.upload_bytes_per_second
        return Deadline(self.upload.connect_seconds, self.upload.read_seconds, self.upload.total_seconds + slow_seconds)


class TransportError(Exception):
    """
    No whole answer came.

    Args:
        reason: Why, in plain words of this program, without a final stop.
        may_have_arrived: False only where it is certain that no byte of the request was sent.
        temporary: Whether the same call could go better a little later.
    """

    def __init__(self, reason: str, *, may_have_arrived: bool, temporary: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.may_have_arrived = may_have_arrived
        self.temporary = temporary


class TooLarge(TransportError):
    """An answer came, and it is larger than what is read."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"the answer is larger than {max_bytes} bytes", may_have_arrived=True, temporary=False)


def open_client(limits: httpx.Limits) -> httpx.AsyncClient:
    """
    A client with the proxies and certificates of this machine.

    Raises:
        TransportError: They cannot be used, so nothing was sent; the next call reads them again.
    """
    import http.cookiejar
    import ssl

    import httpx

    # These log addresses, and signed upload addresses are secrets.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        # Certificate files of the environment count; that a certificate is checked is not up to it.
        verifying = httpx.create_ssl_context(verify=True, trust_env=True)
        verifying.check_hostname = True
        verifying.verify_mode = ssl.CERT_REQUIRED
        return httpx.AsyncClient(
            headers={
                "User-Agent": f"kling-mcp/{__version__}",
                "Accept": "application/json",
                "Accept-Encoding": "identity",
            },
            cookies=http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(allowed_domains=[])),
            follow_redirects=False,
            limits=limits,
            trust_env=True,
            verify=verifying,
            # What is meant for this machine goes to no proxy, whatever the environment says.
            mounts={f"all://{f'[{host}]' if ':' in host else host}": None for host in LOOPBACK},
        )
    except Exception:
        raise TransportError(_unusable_setting(), may_have_arrived=False, temporary=False) from None


def _unusable_setting() -> str:
    """Which variable of the environment no client can be made with."""
    import ssl

    import httpx

    try:
        httpx.create_ssl_context(verify=True, trust_env=True)
    except (OSError, ValueError, ssl.SSLError):
        for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
            if os.environ.get(name):
                return f"the certificates that {name} names cannot be read"
        if os.environ.get("SSLKEYLOGFILE"):
            return "the file that SSLKEYLOGFILE names cannot be written"
    for name, value in os.environ.items():
        if name.upper() in {"ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY"} and value:
            try:
                httpx.Proxy(value if "://" in value else f"http://{value}")
            except (ValueError, httpx.InvalidURL):
                return f"{name} names no proxy that can be used; it takes http://host:port or socks5://host:port"
    for name, value in os.environ.items():
        if name.upper() == "NO_PROXY" and value:
            return f"{name} has a part that cannot be used; it takes names of hosts, separated by commas"
    return "no connection can be made with the proxy and certificate settings of this machine"


def timeout(deadline: Deadline) -> httpx.Timeout:
    """*deadline* as httpx takes it, which has none for the whole call."""
    import httpx

    return httpx.Timeout(deadline.read_seconds, connect=deadline.connect_seconds, pool=deadline.connect_seconds)


class RequestProgress:
    """
    How far one request has got, which decides whether anything of it can have left this machine.

    httpcore names each step before it takes it. Only steps that are known to come before the request count as such,
    so a step with a new name, in a later httpcore, means that the request may have left.

    Args:
        url: Where the request goes.
        deadline: How long it may take; what comes before its first byte may take three times as long as a connection.
    """

    def __init__(self, url: str, deadline: Deadline) -> None:
        now = anyio.current_time()
        self._end = now + deadline.total_seconds
        self._deadline = deadline
        self.scope = anyio.CancelScope(deadline=now + min(deadline.total_seconds, 3 * deadline.connect_seconds))
        address = Address.read(url)
        self._target = "fal.ai" if address is None else f"{address.host}:{address.port}"
        self._place = self._target
        self._begun = self._may_have_left = self._asked_proxy = False
        self._socks_stream: object = None

    async def trace(self, event: str, details: Mapping[str, object]) -> None:
        """Note a step, by httpcore's name for it."""
        if event.startswith("socks.setup_socks5_connection.") and not event.endswith(".failed"):
            self._socks_stream = details.get("stream")
        if not event.endswith(".started"):
            return
        self._begun = True
        step = event.removesuffix(".started")
        if getattr(details.get("request"), "method", None) == b"CONNECT":
            self._asked_proxy = True
        elif step.endswith(".connect_tcp"):
            self._place = f"{details.get('host')}:{details.get('port')}"
        elif step not in _BEFORE_THE_REQUEST:
            self._may_have_left = True
            self.scope.deadline = self._end

    async def close(self) -> None:
        """Close what httpcore leaves open where a SOCKS proxy makes no connection."""
        if (close := getattr(self._socks_stream, "aclose", None)) is not None:
            with anyio.CancelScope(shield=True):
                await close()

    def failed(self, error: Exception) -> TransportError:
        """What *error* means for the request."""
        import httpx

        if isinstance(error, TransportError):
            return error
        if isinstance(error, (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL)):
            return TransportError("the request could not be written", may_have_arrived=False, temporary=False)
        if isinstance(error, httpx.PoolTimeout):
            return TransportError("too many calls were open already", may_have_arrived=False)
        never = isinstance(error, (httpx.ConnectTimeout, httpx.ConnectError, httpx.ProxyError))
        if never or (self._begun and not self._may_have_left):
            return TransportError(self._no_connection(error), may_have_arrived=False)
        return TransportError(_no_answer(error), may_have_arrived=True)

    def out_of_time(self) -> TransportError:
        """What it means that the deadline has passed."""
        if self._begun and not self._may_have_left:
            return TransportError(self._no_connection(TimeoutError()), may_have_arrived=False)
        msg = f"the call took longer than {self._deadline.total_seconds:g} seconds"
        return TransportError(msg, may_have_arrived=True)

    def _no_connection(self, error: Exception) -> str:
        """Why there is no connection, with what the user can look at."""
        import ssl

        import httpx

        proxied = self._place != self._target
        # A proxy that is itself spoken to in TLS fails before it is asked for anything.
        at_proxy = proxied and not self._asked_proxy and self._socks_stream is None
        speaker = f"the proxy at {self._place}" if at_proxy else self._target
        place = f"the proxy at {self._place}" if proxied else self._place
        causes = list(_causes(error))
        late = isinstance(error, (httpx.TimeoutException, TimeoutError))

        def found(kind: type[BaseException]) -> BaseException | None:
            return next((cause for cause in causes if isinstance(cause, kind)), None)

        if (untrusted := found(ssl.SSLCertVerificationError)) is not None:
            reason = (
                f"the certificate of {speaker} is not trusted here "
                f"({getattr(untrusted, 'verify_message', '') or 'it cannot be verified'}); where a company's proxy or "
                "a virus scanner reads along, SSL_CERT_FILE must name its certificates"
            )
        elif found(ssl.SSLError):
            reason = f"the encryption (TLS) of the one to {speaker} failed"
        elif found(socket.gaierror):
            reason = f"the name of {place} was not found (DNS)"
        elif found(ConnectionRefusedError):
            reason = f"{place} refused it"
        elif isinstance(error, httpx.ProxyError):
            status = str(error)[:3]
            said = f"it answered with HTTP status {status}" if status.isdigit() else "it could not reach the host"
            wanted = ", so it wants a user name and a password" if status == "407" else ""
            return f"the proxy made no connection: {said}{wanted}"
        elif self._asked_proxy or (proxied and not found(OSError)):
            return f"the proxy made no connection: {place} {'did not answer in time' if late else 'gave no answer'}"
        else:
            reason = f"{place} did not answer in time" if late else f"there is no way to {place}"
        return f"no connection could be made: {reason}"


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
        waiting += [inner for inner in getattr(cause, "exceptions", ()) if isinstance(inner, BaseException)]


def _no_answer(error: Exception) -> str:
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


# ---- bodies


async def capped(response: httpx.Response, max_bytes: int) -> AsyncIterator[bytes]:
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
        raise TransportError(_no_answer(error), may_have_arrived=True) from None


def headers_of(response: httpx.Response) -> dict[str, str]:
    """The headers, their names in lower case."""
    return {name.lower(): value for name, value in response.headers.items()}


def content_encoding(response: httpx.Response) -> str:
    """How the body says that it is compressed."""
    return response.headers.get("content-encoding", "").strip().lower()


def refuse_encoded(response: httpx.Response) -> None:
    """
    Refuse a compressed body where it cannot be unpacked.

    Raises:
        TransportError: It is compressed.
    """
    if content_encoding(response) not in {"", "identity"}:
        raise TransportError(_COMPRESSED, may_have_arrived=True)


_WINDOW_BITS: Final[Mapping[str, tuple[int, ...]]] = {"": (47,), "gzip": (47,), "x-gzip": (47,), "deflate": (47, -15)}
"""How zlib is to read each: 47 finds out whether it is gzip or zlib, -15 is without a head."""


def unpacked(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """
    *body* without the compression that was declined, at most *max_bytes* of it.

    What is gzip is unpacked also where no header says so, and what only claims to be is taken as it is.
    """
    for kind in reversed([kind.strip() for kind in encoding.split(",")]):
        if kind not in {*_WINDOW_BITS, "identity"}:
            raise TransportError(_COMPRESSED, may_have_arrived=True)
        if kind == "identity" or (kind != "deflate" and not body.startswith(b"\x1f\x8b")):
            continue
        for window_bits in _WINDOW_BITS[kind]:
            try:
                plain = zlib.decompressobj(window_bits).decompress(body, max_bytes + 1)
            except zlib.error:
                continue
            if len(plain) > max_bytes:
                raise TooLarge(max_bytes)
            body = plain
            break
    return body


async def unpacked_stream(pieces: AsyncIterator[bytes], max_bytes: int) -> AsyncIterator[bytes]:
    """The same for a body that comes in *pieces*, which must come to its end."""
    unpack = None
    received = 0
    async for packed in pieces:
        if unpack is None and (received or not packed.startswith((b"\x1f\x8b", b"\x78"))):
            received += len(packed)
            yield packed
            continue
        unpack = unpack or zlib.decompressobj(47)
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
