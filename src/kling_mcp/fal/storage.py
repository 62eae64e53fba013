"""
Pictures to fal's storage, where its models fetch them from.

Two ways, as in fal's own clients: a token for the CDN, then the bytes there; and
where that fails, a signed address, then the bytes there. The key goes to the
configured REST host only. Uploads cost nothing, so they are repeated as needed;
what they make is a public link, which is why it has a lifetime.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kling_mcp.errors import FalUnreachable
from kling_mcp.fal.failures import error_for, explain
from kling_mcp.fal.http import FREE_TRIES, TransportError
from kling_mcp.fal.urls import Address
from kling_mcp.fal.wire import StorageAnswer, json_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from kling_mcp.fal.http import Deadline, FalHttp, Pool, Response

__all__ = ["SEVEN_DAYS_SECONDS", "FalStorage"]

SEVEN_DAYS_SECONDS: Final = 7 * 24 * 3600

_STORAGE_HOSTS: Final = ("fal.media", "fal.ai", "storage.googleapis.com")
"""Where fal's storage answers that uploads go, and where the files are then."""

_ABOUT_THE_ACCOUNT: Final = frozenset({401, 402, 403})
_EARLY_SECONDS: Final = 60.0
"""A token that ends sooner than this is not begun with."""


class FalStorage:
    """
    Uploads.

    Args:
        http: The connection to fal.
        media_hosts: Hosts besides fal's own that uploads may go to.
        now: Seconds since 1970.
    """

    def __init__(self, http: FalHttp, media_hosts: Iterable[str], *, now: Callable[[], float] = time.time) -> None:
        self._http = http
        self._hosts = (*_STORAGE_HOSTS, *media_hosts)
        self._now = now
        self._token: _Token | None = None

    async def upload(
        self, data: bytes, content_type: str, file_name: str, *, lifetime_seconds: int = SEVEN_DAYS_SECONDS
    ) -> str:
        """
        Store *data* and return its public address.

        Raises:
            FalRejected, AccountLocked, NoApiKey: fal does not take uploads with this key.
            FalUnreachable: Neither way led to the end.
        """
        upload = _Upload(data, _header_safe(content_type), _plain_name(file_name), lifetime_seconds)
        try:
            return await self._by_token(upload)
        except _Refused as refused:
            raise error_for(explain(refused.answer, "free", authenticated=self._http.has_key)) from None
        except _Failed:
            self._token = None
        try:
            return await self._by_signed_address(upload)
        except _Refused as refused:
            raise error_for(explain(refused.answer, "free", authenticated=self._http.has_key)) from None
        except _Failed as failed:
            next_step = "The same call starts over; a public https link to the picture works without an upload."
            if failed.is_setting:
                next_step = "Once that is put right, the same call works."
            raise FalUnreachable(f"The picture could not be uploaded to fal.ai: {failed.reason}.", next_step) from None

    async def _by_token(self, upload: _Upload) -> str:
        token = self._token
        if token is None or token.expires_at - self._now() < _EARLY_SECONDS:
            token = self._token = await self._new_token()
        answer = await self._send(
            "POST",
            f"{token.base_url}/files/upload",
            {
                "Authorization": f"{token.kind} {token.value}",
                "X-Fal-File-Name": upload.file_name,
                "Content-Type": upload.content_type,
                **upload.lifecycle,
            },
            upload.data,
            to_upload_host=True,
        )
        return self._public(answer.access_url)

    async def _new_token(self) -> _Token:
        url = f"{self._http.hosts.rest}/storage/auth/token?storage_type=fal-cdn-v3"
        answer = await self._send("POST", url, {"Content-Type": "application/json"}, b"{}")
        kind, value = answer.token_type, answer.token
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", kind) or not re.fullmatch(r"[!-~]{1,8192}", value):
            raise _Failed("the upload token is malformed")
        # Where the time cannot be read the token is used once.
        return _Token(kind, value, self._public(answer.base_url).rstrip("/"), (answer.expires_at or 0) / 1000)

    async def _by_signed_address(self, upload: _Upload) -> str:
        url = f"{self._http.hosts.rest}/storage/upload/initiate?storage_type=gcs"
        asked = json.dumps({"file_name": upload.file_name, "content_type": upload.content_type}).encode()
        headers = {"Content-Type": "application/json", **upload.lifecycle}
        answer = await self._send("POST", url, headers, asked)
        upload_url, file_url = self._public(answer.upload_url), self._public(answer.file_url)
        await self._send("PUT", upload_url, {"Content-Type": upload.content_type}, upload.data, to_upload_host=True)
        return file_url

    async def _send(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes, *, to_upload_host: bool = False
    ) -> StorageAnswer:
        pool: Pool = "upload" if to_upload_host else "api"
        deadline: Deadline = self._http.deadlines.upload_of(len(content))
        try:
            answer = await self._http.request(
                method,
                url,
                deadline=deadline,
                headers=headers,
                content=content,
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
        return StorageAnswer.read(json_of(answer))

    def _public(self, url: str) -> str:
        """*url* if it is an address of fal's storage."""
        if not url:
            raise _Failed("its answer could not be read")
        address = Address.read(url)
        if address is None or not address.is_at(self._hosts):
            raise _Failed("it named an address that is not one of its storage")
        return url


@dataclass(frozen=True, slots=True)
class _Upload:
    data: bytes
    content_type: str
    file_name: str
    lifetime_seconds: int

    @property
    def lifecycle(self) -> dict[str, str]:
        """The CDN reads the one header, the storage behind it the other."""
        wish = json.dumps({"expiration_duration_seconds": self.lifetime_seconds})
        return {"X-Fal-Object-Lifecycle": wish, "X-Fal-Object-Lifecycle-Preference": wish}


@dataclass(frozen=True, slots=True, repr=False)
class _Token:
    kind: str
    value: str
    base_url: str
    expires_at: float


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
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip("._")[-80:] or "picture"


def _header_safe(content_type: str) -> str:
    return (
        content_type if re.fullmatch(r"[A-Za-z0-9.+-]+/[A-Za-z0-9.+-]+", content_type) else "application/octet-stream"
    )
