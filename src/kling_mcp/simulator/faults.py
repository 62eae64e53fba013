"""
What can go wrong between a caller and fal, as a script.

A fault is a value with an ``apply``; a `Script` says for which kind of call it
is meant, how often, and after how many undisturbed calls. The simulator's own
list of accepted requests stays the truth, whatever the caller gets to see:

    simulator.faults.add("submit", DropAfterAccept())           # accepted, answer lost
    simulator.faults.add("result", Answer(504), times=2)        # the third try works
    simulator.faults.add("status", Hang(), times=None)          # always
    simulator.faults.fail("content_policy_violation")           # the next request fails when it ends
"""

from __future__ import annotations

import gzip
import itertools
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, Protocol

import anyio

from kling_mcp.json_types import is_object
from kling_mcp.simulator.outcomes import Outcome, failure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

__all__ = [
    "Answer",
    "CallKind",
    "ChangedEtag",
    "Delay",
    "Drip",
    "DropAfterAccept",
    "DropBeforeAccept",
    "Endless",
    "Exchange",
    "Fault",
    "Garbage",
    "Gzip",
    "Hang",
    "NoRequestId",
    "Redirect",
    "Reply",
    "Script",
    "ShortBody",
    "Truncated",
    "WrongHost",
    "WrongRange",
    "exhausted_balance",
    "expired",
    "named",
    "nginx",
    "too_many",
]

CallKind = Literal[
    "submit",
    "status",
    "stream",
    "result",
    "cancel",
    "token",
    "upload",
    "initiate",
    "put",
    "download",
    "models",
    "pricing",
    "history",
    "account",
    "meta",
    "other",
]

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole HTTP answer."""

    status: int
    headers: Headers
    body: bytes

    def with_body(self, body: bytes) -> Reply:
        """The same answer with another body and the length that belongs to it."""
        kept = [(name, value) for name, value in self.headers if name.lower() != b"content-length"]
        return Reply(self.status, [*kept, (b"content-length", b"%d" % len(body))], body)

    def with_header(self, name: bytes, value: bytes) -> Reply:
        """The same answer with one header set."""
        kept = [pair for pair in self.headers if pair[0].lower() != name]
        return Reply(self.status, [*kept, (name, value)], self.body)


class Exchange(Protocol):
    """One call while it happens, as a fault may handle it."""

    async def accept(self) -> Reply:
        """Let the simulator do what was asked; its answer goes nowhere by itself."""
        ...

    async def send(self, reply: Reply) -> None:
        """Send *reply* whole."""
        ...

    async def send_in_pieces(self, reply: Reply, pieces: AsyncIterator[bytes]) -> None:
        """Send the head of *reply*, then *pieces* as they come; stops when the caller goes away."""
        ...

    async def gone(self) -> None:
        """Wait until the caller has gone away."""
        ...

    async def hang_up(self, *, reset: bool) -> None:
        """Close the connection: by a reset, or in order after what was sent."""
        ...


class Fault(Protocol):
    """Something that goes wrong with one call."""

    async def apply(self, exchange: Exchange) -> None:
        """Handle *exchange* to its bad end."""
        ...


@dataclass(frozen=True, slots=True)
class DropBeforeAccept:
    """The connection is reset before the request is read: fal has nothing."""

    async def apply(self, exchange: Exchange) -> None:
        """Reset without looking."""
        await exchange.hang_up(reset=True)


@dataclass(frozen=True, slots=True)
class DropAfterAccept:
    """fal has the request, and the answer is lost: by a reset, or by an orderly close."""

    reset: bool = True

    async def apply(self, exchange: Exchange) -> None:
        """Accept, then hang up."""
        await exchange.accept()
        await exchange.hang_up(reset=self.reset)


@dataclass(frozen=True, slots=True)
class Delay:
    """The answer comes *seconds* of real time later; the request is accepted at once."""

    seconds: float

    async def apply(self, exchange: Exchange) -> None:
        """Accept, wait, answer."""
        reply = await exchange.accept()
        with anyio.move_on_after(self.seconds):
            await exchange.gone()
            return
        await exchange.send(reply)


@dataclass(frozen=True, slots=True)
class Hang:
    """The answer never comes; the caller has to give up. *accepted* says whether fal has the request."""

    accepted: bool = True

    async def apply(self, exchange: Exchange) -> None:
        """Wait for the caller to give up."""
        if self.accepted:
            await exchange.accept()
        await exchange.gone()


@dataclass(frozen=True, slots=True)
class Answer:
    """
    Another answer instead of the true one.

    Args:
        status: The HTTP status.
        body: JSON, or bytes as they are.
        headers: Headers besides the content type.
        accepted: Whether the request was carried out all the same.
        bare: Without ``x-fal-request-id``, as from a proxy in front of fal.
    """

    status: int
    body: Mapping[str, object] | bytes = field(default_factory=lambda: {"detail": "Simulated failure"})
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    accepted: bool = False
    bare: bool = False

    async def apply(self, exchange: Exchange) -> None:
        """Send the other answer."""
        true = await exchange.accept() if self.accepted else None
        raw = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        kind = b"text/html" if isinstance(self.body, bytes) else b"application/json"
        headers: Headers = [(b"content-type", kind)]
        if not self.bare:
            given = dict(true.headers).get(b"x-fal-request-id") if true else None
            headers.append((b"x-fal-request-id", given or b"00000000-0000-4000-8000-000000000000"))
        headers += [(name.lower().encode(), value.encode()) for name, value in self.headers.items()]
        await exchange.send(Reply(self.status, headers, b"").with_body(raw))


@dataclass(frozen=True, slots=True)
class Redirect:
    """A 3xx to *location*; the request is not carried out unless *accepted*."""

    location: str
    status: int = 307
    accepted: bool = False

    async def apply(self, exchange: Exchange) -> None:
        """Point elsewhere."""
        await Answer(self.status, {}, {"location": self.location}, accepted=self.accepted).apply(exchange)


@dataclass(frozen=True, slots=True)
class Truncated:
    """The head promises the whole body, the connection ends after *share* of it."""

    share: float = 0.5

    async def apply(self, exchange: Exchange) -> None:
        """Accept, send a part, hang up."""
        reply = await exchange.accept()
        reply = reply.with_body(reply.body)
        part = reply.body[: int(len(reply.body) * self.share)]
        await exchange.send_in_pieces(reply, _pieces([part]))
        await exchange.hang_up(reset=False)


@dataclass(frozen=True, slots=True)
class Garbage:
    """A success whose body is not what it should be."""

    body: bytes = b'{"request_id": "0f3c\xff\xfe'

    async def apply(self, exchange: Exchange) -> None:
        """Accept, answer nonsense."""
        await exchange.send((await exchange.accept()).with_body(self.body))


@dataclass(frozen=True, slots=True)
class NoRequestId:
    """A submit that succeeds and does not say which request it made."""

    async def apply(self, exchange: Exchange) -> None:
        """Accept, answer without the id."""
        await exchange.send(_edited(await exchange.accept(), lambda body: body.pop("request_id", None)))


@dataclass(frozen=True, slots=True)
class WrongHost:
    """A submit whose addresses point at *base*: the key must not go there."""

    base: str = "https://queue.fal.run.example.com"

    async def apply(self, exchange: Exchange) -> None:
        """Accept, answer with foreign addresses."""

        def elsewhere(body: dict[str, object]) -> None:
            for name in ("status_url", "response_url", "cancel_url"):
                if name in body:
                    path = str(body[name]).partition("://")[2].partition("/")[2]
                    body[name] = f"{self.base}/{path}"

        await exchange.send(_edited(await exchange.accept(), elsewhere))


@dataclass(frozen=True, slots=True)
class Drip:
    """The body comes one byte at a time, *seconds* of real time apart."""

    seconds: float = 0.2

    async def apply(self, exchange: Exchange) -> None:
        """Accept, answer drop by drop."""
        reply = await exchange.accept()

        async def drops() -> AsyncIterator[bytes]:
            for byte in reply.body:
                yield bytes([byte])
                await anyio.sleep(self.seconds)

        await exchange.send_in_pieces(reply.with_body(reply.body), drops())


@dataclass(frozen=True, slots=True)
class Endless:
    """A body that never ends, *chunk* bytes at a time."""

    chunk: int = 65_536

    async def apply(self, exchange: Exchange) -> None:
        """Accept, answer without end."""
        reply = await exchange.accept()
        head = Reply(reply.status, [pair for pair in reply.headers if pair[0].lower() != b"content-length"], b"")
        await exchange.send_in_pieces(head, _pieces(itertools.chain([b"{"], itertools.repeat(b" " * self.chunk))))


@dataclass(frozen=True, slots=True)
class Gzip:
    """A compressed body, asked for or not, blown up with *padding* spaces."""

    padding: int = 0

    async def apply(self, exchange: Exchange) -> None:
        """Accept, answer compressed."""
        reply = await exchange.accept()
        packed = gzip.compress(reply.body + b" " * self.padding, compresslevel=9, mtime=0)
        await exchange.send(reply.with_body(packed).with_header(b"content-encoding", b"gzip"))


@dataclass(frozen=True, slots=True)
class ChangedEtag:
    """The file was replaced between two reads: what is sent, whole or a range, is of another entity tag."""

    etag: str = '"changed"'

    async def apply(self, exchange: Exchange) -> None:
        """Answer under the other tag."""
        await exchange.send((await exchange.accept()).with_header(b"etag", self.etag.encode()))


@dataclass(frozen=True, slots=True)
class WrongRange:
    """A 206 that is not the range that was asked for: *shift* bytes further on, by its own account."""

    shift: int = 1

    async def apply(self, exchange: Exchange) -> None:
        """Answer another range."""
        reply = await exchange.accept()
        size = len(reply.body)
        span = f"bytes {self.shift}-{self.shift + size - 1}/{self.shift + size}".encode()
        await exchange.send(Reply(206, reply.headers, reply.body).with_header(b"content-range", span))


@dataclass(frozen=True, slots=True)
class ShortBody:
    """A complete answer that is *missing* bytes shorter than the file."""

    missing: int = 1

    async def apply(self, exchange: Exchange) -> None:
        """Answer less."""
        reply = await exchange.accept()
        await exchange.send(reply.with_body(reply.body[: max(0, len(reply.body) - self.missing)]))


def too_many(retry_after: str | None = None) -> Answer:
    """429 on submit as fal words it; nothing is queued. *retry_after* is the header's value."""
    headers = {"X-Fal-Needs-Retry": "1", "X-Fal-Error-Type": "concurrent_requests_limit"}
    if retry_after is not None:
        headers["Retry-After"] = retry_after
    body = {"detail": "Concurrent requests limit reached", "error_type": "concurrent_requests_limit"}
    return Answer(429, body, headers)


def exhausted_balance() -> Answer:
    """The account is locked until somebody pays."""
    reason = "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing"
    return Answer(403, {"detail": reason})


def expired() -> Answer:
    """The result is no longer kept."""
    return Answer(404, {"detail": "Request not found"})


def nginx(status: int = 502, *, accepted: bool = False) -> Answer:
    """The proxy in front of fal answers, with its own page and without fal's request id."""
    words = {502: "Bad Gateway", 503: "Service Temporarily Unavailable", 504: "Gateway Time-out"}[status]
    page = f"<html><head><title>{status} {words}</title></head><body><center>nginx</center></body></html>"
    return Answer(status, page.encode(), accepted=accepted, bare=True)


_NAMED: Final[Mapping[str, Callable[[], Fault]]] = {
    "drop-before-accept": DropBeforeAccept,
    "drop-after-accept": DropAfterAccept,
    "close-after-accept": lambda: DropAfterAccept(reset=False),
    "hang": Hang,
    "truncated": Truncated,
    "garbage": Garbage,
    "no-request-id": NoRequestId,
    "wrong-host": WrongHost,
    "drip": Drip,
    "endless": Endless,
    "gzip": Gzip,
    "changed-etag": ChangedEtag,
    "wrong-range": WrongRange,
    "short-body": ShortBody,
    "redirect": lambda: Redirect("https://example.com/"),
    "exhausted-balance": exhausted_balance,
    "expired": expired,
    "nginx-502": nginx,
    "429": too_many,
}


def named(name: str) -> Fault:
    """
    The fault of that name, for a command line; a bare number is an answer with that status.

    Raises:
        ValueError: There is no such fault.
    """
    if name in _NAMED:
        return _NAMED[name]()
    if name.isdigit() and 400 <= int(name) <= 599:
        return Answer(int(name))
    raise ValueError(f"no fault {name!r}; there are {', '.join(_NAMED)} and the statuses 400 to 599")


@dataclass(slots=True)
class _Entry:
    kind: CallKind | Literal["any"]
    fault: Fault
    left: int | None
    skip: int

    def takes(self, kind: CallKind) -> bool:
        if self.left == 0 or self.kind not in {kind, "any"}:
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.left is not None:
            self.left -= 1
        return True


class Script:
    """Which calls go wrong, in the order in which it was written."""

    def __init__(self) -> None:
        self._calls: list[_Entry] = []
        self._failures: list[tuple[Outcome, int | None]] = []

    def add(self, kind: CallKind | Literal["any"], fault: Fault, *, times: int | None = 1, after: int = 0) -> None:
        """Let *fault* happen to the next *times* calls of *kind*, or to all (None), once *after* have gone well."""
        self._calls.append(_Entry(kind, fault, times, after))

    def fail(self, outcome: Outcome | str, *, times: int | None = 1) -> None:
        """Let the next *times* accepted requests, or all (None), end with *outcome* or with that fal error type."""
        self._failures.append((failure(outcome) if isinstance(outcome, str) else outcome, times))

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        self._calls.clear()
        self._failures.clear()

    def next_for(self, kind: CallKind) -> Fault | None:
        """The fault of this call, if it has one."""
        return next((entry.fault for entry in self._calls if entry.takes(kind)), None)

    def next_failure(self) -> Outcome | None:
        """How the request that is being accepted will fail, if it will."""
        for index, (outcome, left) in enumerate(self._failures):
            if left != 0:
                self._failures[index] = (outcome, None if left is None else left - 1)
                return outcome
        return None


def _edited(reply: Reply, edit: Callable[[dict[str, object]], object]) -> Reply:
    body: object = json.loads(reply.body)
    if not is_object(body):
        return reply
    edited = dict(body)
    edit(edited)
    return reply.with_body(json.dumps(edited).encode())


async def _pieces(parts: Iterable[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
