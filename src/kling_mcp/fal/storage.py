"""
Files to fal's storage, where its models fetch them from.

Two ways, as in fal's own clients: a token for the CDN, then the bytes there; and
where that fails, a signed address, then the bytes there. Either takes large files
in parts, each of which is repeated by itself. The key goes to the configured REST
host only. Uploads cost nothing, so they are repeated as needed; what they make is
a public link, which is why it has a lifetime.
"""

from __future__ import annotations

import json
import math
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from anyio import create_task_group, to_thread

from kling_mcp.errors import FalUnreachable
from kling_mcp.fal.failures import error_for, explain
from kling_mcp.fal.http import FREE_TRIES, TransportError
from kling_mcp.fal.urls import Address
from kling_mcp.fal.wire import StorageAnswer, json_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping

    from kling_mcp.fal.http import Deadline, FalHttp, Pool, Response

__all__ = ["IN_PARTS_ABOVE_BYTES", "PART_BYTES", "SEVEN_DAYS_SECONDS", "Content", "FalStorage"]

SEVEN_DAYS_SECONDS: Final = 7 * 24 * 3600
IN_PARTS_ABOVE_BYTES: Final = 100 * 1024 * 1024
"""Above this the Python client uploads in parts."""
PART_BYTES: Final = 10 * 1024 * 1024
"""How large its parts are."""

_STORAGE_HOSTS: Final = ("fal.media", "fal.ai", "storage.googleapis.com")
"""Where fal's storage answers that uploads go, and where the files are then."""

_ABOUT_THE_ACCOUNT: Final = frozenset({401, 402, 403})
_EARLY_SECONDS: Final = 60.0
"""A token that ends sooner than this is not begun with."""
_PARTS_AT_ONCE: Final = 3
_PIECE_BYTES: Final = 1024 * 1024
_JSON: Final = {"Content-Type": "application/json"}
_PATH_SEGMENT: Final = re.compile(r"[A-Za-z0-9._~=+-]{1,1024}")
_ETAG: Final = re.compile(r"[!-~]{1,200}")


class Content(Protocol):
    """A file to be uploaded: pictures, videos and sound are each such a thing."""

    @property
    def content_type(self) -> str:
        """Such as ``video/mp4``."""
        ...

    @property
    def file_name(self) -> str:
        """A name that fal may know."""
        ...

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    def read(self, offset: int, count: int, /) -> bytes:
        """At most *count* bytes from *offset* on; it may block, and is called from several threads."""
        ...


class FalStorage:
    """
    Uploads.

    Args:
        http: The connection to fal.
        media_hosts: Hosts besides fal's own that uploads may go to.
        now: Seconds since 1970.
        in_parts_above: The size in bytes above which a file goes up in parts.
        part_bytes: The size of a part.
    """

    def __init__(
        self,
        http: FalHttp,
        media_hosts: Iterable[str],
        *,
        now: Callable[[], float] = time.time,
        in_parts_above: int = IN_PARTS_ABOVE_BYTES,
        part_bytes: int = PART_BYTES,
    ) -> None:
        self._http = http
        self._hosts = (*_STORAGE_HOSTS, *media_hosts)
        self._now = now
        self._in_parts_above = in_parts_above
        self._part_bytes = part_bytes
        self._token: _Token | None = None

    async def upload(
        self,
        content: Content,
        *,
        lifetime_seconds: int = SEVEN_DAYS_SECONDS,
        progress: Callable[[int, int], None] | None = None,
    ) -> str:
        """
        Store *content* and return its public address.

        Args:
            content: The file; it is read piece by piece, more than once where the way is bad.
            lifetime_seconds: How long fal keeps it.
            progress: Told how many bytes of how many have been sent, never fewer than before.

        Raises:
            FalRejected, AccountLocked, NoApiKey: fal does not take uploads with this key.
            FalUnreachable: Neither way led to the end.
        """
        upload = _Upload(content, lifetime_seconds, progress)
        whole = content.size <= self._in_parts_above
        try:
            return await (self._by_token(upload) if whole else self._by_token_in_parts(upload))
        except _Refused as refused:
            raise error_for(explain(refused.answer, "free", authenticated=self._http.has_key)) from None
        except _Failed:
            self._token = None
        try:
            return await (self._by_signed_address(upload) if whole else self._by_signed_address_in_parts(upload))
        except _Refused as refused:
            raise error_for(explain(refused.answer, "free", authenticated=self._http.has_key)) from None
        except _Failed as failed:
            next_step = "The same call starts over; a public https link to the file works without an upload."
            if failed.is_setting:
                next_step = "Once that is put right, the same call works."
            raise FalUnreachable(f"The file could not be uploaded to fal.ai: {failed.reason}.", next_step) from None

    async def _by_token(self, upload: _Upload) -> str:
        token = await self._good_token()
        url = f"{token.base_url}/files/upload"
        headers = {**token.header, **upload.described, **upload.lifecycle}
        answer = await self._send("POST", url, headers, upload.whole(), to_upload_host=True)
        return self._public(answer.access_url)

    async def _by_token_in_parts(self, upload: _Upload) -> str:
        token = await self._good_token()
        headers = {**token.header, **upload.described, **upload.lifecycle}
        url = f"{token.base_url}/files/upload/multipart"
        begun = await self._send("POST", url, headers, _NOTHING, to_upload_host=True)
        file_url = self._public(begun.access_url)
        if not _PATH_SEGMENT.fullmatch(begun.upload_id):
            raise _Failed("its answer could not be read")
        await self._in_parts(upload, f"{file_url}/multipart/{begun.upload_id}", "", with_token=True)
        return file_url

    async def _good_token(self) -> _Token:
        token = self._token
        if token is None or token.expires_at - self._now() < _EARLY_SECONDS:
            token = self._token = await self._new_token()
        return token

    async def _new_token(self) -> _Token:
        url = f"{self._http.hosts.rest}/storage/auth/token?storage_type=fal-cdn-v3"
        answer = await self._send("POST", url, _JSON, _bytes(b"{}"))
        kind, value = answer.token_type, answer.token
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", kind) or not re.fullmatch(r"[!-~]{1,8192}", value):
            raise _Failed("the upload token is malformed")
        # Where the time cannot be read the token is used once.
        return _Token(kind, value, self._public(answer.base_url).rstrip("/"), (answer.expires_at or 0) / 1000)

    async def _by_signed_address(self, upload: _Upload) -> str:
        answer = await self._initiated(upload, "initiate?storage_type=gcs")
        upload_url, file_url = self._public(answer.upload_url), self._public(answer.file_url)
        headers = {"Content-Type": upload.content_type}
        await self._send("PUT", upload_url, headers, upload.whole(), to_upload_host=True)
        return file_url

    async def _by_signed_address_in_parts(self, upload: _Upload) -> str:
        answer = await self._initiated(upload, "initiate-multipart?storage_type=fal-cdn-v3")
        upload_url, file_url = self._public(answer.upload_url), self._public(answer.file_url)
        address, question_mark, signature = upload_url.partition("?")
        await self._in_parts(upload, address, question_mark + signature, with_token=False)
        return file_url

    async def _initiated(self, upload: _Upload, way: str) -> StorageAnswer:
        url = f"{self._http.hosts.rest}/storage/upload/{way}"
        asked = json.dumps({"file_name": upload.file_name, "content_type": upload.content_type}).encode()
        return await self._send("POST", url, {**_JSON, **upload.lifecycle}, _bytes(asked))

    async def _in_parts(self, upload: _Upload, address: str, query: str, *, with_token: bool) -> None:
        """Send each part to its number below *address*, a few at a time, and then their list."""
        etags: dict[int, str] = {}
        numbers = iter(range(1, math.ceil(upload.size / self._part_bytes) + 1))

        async def headers() -> Mapping[str, str]:
            return (await self._good_token()).header if with_token else {}

        async def send_some() -> None:
            for number in numbers:
                part = upload.part((number - 1) * self._part_bytes, self._part_bytes)
                url = f"{address}/{number}{query}"
                described = {"Content-Type": upload.content_type, **await headers()}
                answer = await self._send("PUT", url, described, part, to_upload_host=True)
                if not _ETAG.fullmatch(answer.etag):
                    raise _Failed("it did not confirm a part of the file")
                etags[number] = answer.etag

        await _together(send_some, _PARTS_AT_ONCE)
        named = {"parts": [{"partNumber": number, "etag": etags[number]} for number in sorted(etags)]}
        done = {**_JSON, **await headers()}
        await self._send(
            "POST", f"{address}/complete{query}", done, _bytes(json.dumps(named).encode()), to_upload_host=True
        )

    async def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: _Body, *, to_upload_host: bool = False
    ) -> StorageAnswer:
        pool: Pool = "upload" if to_upload_host else "api"
        deadline: Deadline = self._http.deadlines.upload_of(body.size)
        try:
            answer = await self._http.request(
                method,
                url,
                deadline=deadline,
                headers={**headers, "Content-Length": str(body.size)},
                content=body.pieces,
                pool=pool,
                authenticated=not to_upload_host,
                tries=FREE_TRIES,
                slow_down=True,
            )
        except TransportError as interrupted:
            is_setting = not (interrupted.may_have_arrived or interrupted.temporary)
            raise _Failed(interrupted.reason, is_setting=is_setting) from None
        if answer.status in _ABOUT_THE_ACCOUNT and not to_upload_host:
            raise _Refused(answer)
        if not 200 <= answer.status < 300:
            raise _Failed(f"it answered with HTTP status {answer.status}")
        read = StorageAnswer.read(json_of(answer))
        # The Python client takes the entity tag from the header, the JavaScript client from the body.
        return read.model_copy(update={"etag": answer.headers.get("etag") or read.etag})

    def _public(self, url: str) -> str:
        """*url* if it is an address of fal's storage."""
        if not url:
            raise _Failed("its answer could not be read")
        address = Address.read(url)
        if address is None or not address.is_at(self._hosts):
            raise _Failed("it named an address that is not one of its storage")
        return url


@dataclass(frozen=True, slots=True)
class _Body:
    """The body of a request: its size, and its pieces anew for each try."""

    size: int
    pieces: Callable[[], AsyncIterator[bytes]]


def _bytes(data: bytes) -> _Body:
    async def pieces() -> AsyncIterator[bytes]:
        yield data

    return _Body(len(data), pieces)


_NOTHING: Final = _bytes(b"")


class _Upload:
    """A file on its way, whichever way it goes."""

    def __init__(self, content: Content, lifetime_seconds: int, progress: Callable[[int, int], None] | None) -> None:
        self._read = content.read
        self._progress = progress
        self._sent: dict[int, int] = {}
        self._told = 0
        self._lifetime_seconds = lifetime_seconds
        self.size = content.size
        self.content_type = _header_safe(content.content_type)
        self.file_name = _plain_name(content.file_name)

    @property
    def described(self) -> dict[str, str]:
        """What the CDN is told of the file."""
        return {"X-Fal-File-Name": self.file_name, "Content-Type": self.content_type}

    @property
    def lifecycle(self) -> dict[str, str]:
        """The CDN reads the one header, the storage behind it the other."""
        wish = json.dumps({"expiration_duration_seconds": self._lifetime_seconds})
        return {"X-Fal-Object-Lifecycle": wish, "X-Fal-Object-Lifecycle-Preference": wish}

    def whole(self) -> _Body:
        """The file as one body."""
        return self.part(0, self.size)

    def part(self, offset: int, count: int) -> _Body:
        """*count* bytes of it from *offset* on, fewer at its end."""
        end = min(self.size, offset + count)

        async def pieces() -> AsyncIterator[bytes]:
            at = offset
            while at < end and (piece := await to_thread.run_sync(self._read, at, min(_PIECE_BYTES, end - at))):
                yield piece
                at += len(piece)
                self._note(offset, at - offset)

        return _Body(end - offset, pieces)

    def _note(self, offset: int, sent: int) -> None:
        """Tell how far it is, where it is further than before."""
        self._sent[offset] = sent
        total = sum(self._sent.values())
        if self._progress is not None and total > self._told:
            self._told = total
            self._progress(total, self.size)


async def _together(work: Callable[[], Awaitable[None]], workers: int) -> None:
    """Run *work* so many times at once; the first that fails ends all, and its error is raised by itself."""
    failures: list[_Failed | _Refused] = []

    async def guarded() -> None:
        try:
            await work()
        except (_Failed, _Refused) as failure:
            failures.append(failure)
            tasks.cancel_scope.cancel()

    async with create_task_group() as tasks:
        for _ in range(workers):
            tasks.start_soon(guarded)
    if failures:
        raise failures[0]


@dataclass(frozen=True, slots=True, repr=False)
class _Token:
    kind: str
    value: str
    base_url: str
    expires_at: float

    @property
    def header(self) -> dict[str, str]:
        """What an upload shows it by."""
        return {"Authorization": f"{self.kind} {self.value}"}


class _Failed(Exception):
    """This way did not work; the other may."""

    def __init__(self, reason: str, *, is_setting: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_setting = is_setting
        """Whether a setting of this machine is in the way of every connection."""


class _Refused(Exception):
    """The key or the account was refused, so the other way would be too."""

    def __init__(self, answer: Response) -> None:
        super().__init__()
        self.answer = answer


def _plain_name(name: str) -> str:
    """*name* in the letters that any header and any file system takes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip("._")[-80:] or "file"


def _header_safe(content_type: str) -> str:
    return (
        content_type if re.fullmatch(r"[A-Za-z0-9.+-]+/[A-Za-z0-9.+-]+", content_type) else "application/octet-stream"
    )
