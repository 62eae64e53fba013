"""
fal's storage: the three ways in which its clients upload, and the one way in which files come back.

* a token from the REST host, then the bytes to the CDN (the Python client),
* the same in parts (the Python client above 100 MiB),
* an upload address from the REST host, then a PUT there, whole or in parts (the JavaScript client).

Files live in memory and are public once they exist, as on fal's own CDN.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from kling_mcp.json_types import is_object, items_of, members_of
from kling_mcp.simulator.clock import iso

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.requests import Request

    from kling_mcp.simulator.clock import Clock

__all__ = ["Files", "Storage", "StoredFile", "file_answer"]

_TOKEN_SECONDS: Final = 3600


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file and what was said about it; ``expires_at`` is in seconds since 1970."""

    data: bytes = field(repr=False)
    content_type: str
    name: str
    lifecycle: Mapping[str, object] = field(default_factory=dict[str, object])
    expires_at: float = math.inf

    @property
    def etag(self) -> str:
        """A strong entity tag of the bytes."""
        return f'"{hashlib.md5(self.data, usedforsecurity=False).hexdigest()}"'


class Files:
    """Every stored file by its path below the media host."""

    def __init__(self, clock: Clock, new_id: Callable[[], str]) -> None:
        self._clock = clock
        self._new_id = new_id
        self._files: dict[str, StoredFile] = {}

    def new_path(self, name: str) -> str:
        """A path nobody has, ending in *name* as far as a URL can hold it."""
        safe = re.sub(r"[^A-Za-z0-9._-]", "_", name or "file.bin")
        return f"files/sim/{self._new_id().replace('-', '')[:20]}_{safe}"

    def put(self, path: str, file: StoredFile) -> None:
        """Keep *file* at *path*."""
        self._files[path] = file

    def get(self, path: str) -> StoredFile | None:
        """The file at *path*, unless it never was there or its time is over."""
        file = self._files.get(path)
        return None if file is None or file.expires_at <= self._clock.now() else file

    def by_url(self, url: str) -> StoredFile | None:
        """The file that *url* of this simulator names."""
        _, _, path = urlsplit(url).path.partition("/media/")
        return self.get(path)

    def __len__(self) -> int:
        return len(self._files)


@dataclass(slots=True)
class _Parts:
    """An upload that is still coming in."""

    path: str
    content_type: str
    name: str
    headers: Mapping[str, str]
    parts: dict[int, bytes] = field(default_factory=dict[int, bytes])


class Storage:
    """
    The storage calls of the REST host and of the CDN.

    Args:
        files: Where files are kept.
        clock: The time, for tokens and lifetimes.
        new_id: Makes identifiers.
        authorised: Whether a request carries an accepted key.
    """

    def __init__(
        self, files: Files, clock: Clock, new_id: Callable[[], str], authorised: Callable[[Request], bool]
    ) -> None:
        self._files = files
        self._clock = clock
        self._new_id = new_id
        self._authorised = authorised
        self._tokens: dict[str, float] = {}
        self._uploads: dict[str, _Parts] = {}

    def rest_routes(self) -> list[Route]:
        """What the REST host answers."""
        return [
            Route("/storage/auth/token", self._token, methods=["POST"]),
            Route("/storage/upload/initiate", self._initiate, methods=["POST"]),
            Route("/storage/upload/initiate-multipart", self._initiate, methods=["POST"]),
        ]

    def media_routes(self) -> list[Route]:
        """What the CDN takes in. Downloads are with the videos, in the application."""
        return [
            Route("/files/upload", self._upload, methods=["POST"]),
            Route("/files/upload/multipart", self._begin_multipart, methods=["POST"]),
            Route("/{path:path}/multipart/{upload_id}/complete", self._complete_multipart, methods=["POST"]),
            Route("/{path:path}/multipart/{upload_id}/{number:int}", self._part, methods=["PUT"]),
            Route("/upload/{upload_id}/complete", self._complete_signed, methods=["POST"]),
            Route("/upload/{upload_id}/{number:int}", self._part, methods=["PUT"]),
            Route("/upload/{upload_id}", self._put, methods=["PUT"]),
        ]

    async def _token(self, request: Request) -> Response:
        if not self._authorised(request):
            return _no("Authentication is required")
        token, expires_at = self._new_id(), self._clock.now() + _TOKEN_SECONDS
        self._tokens[token] = expires_at
        return JSONResponse(
            {
                "token": token,
                "token_type": "Bearer",
                "base_url": _media(request),
                "expires_at": iso(expires_at),
            }
        )

    async def _initiate(self, request: Request) -> Response:
        if not self._authorised(request):
            return _no("Authentication is required")
        try:
            asked: object = json.loads(await request.body())
        except ValueError:
            asked = None
        if not is_object(asked):
            return JSONResponse({"detail": "A JSON object is required"}, 422)
        name, content_type = str(asked.get("file_name", "")), str(asked.get("content_type", ""))
        upload_id, path = self._new_id(), self._files.new_path(name)
        self._uploads[upload_id] = _Parts(path, content_type, name, dict(request.headers))
        signature = hashlib.sha256(upload_id.encode()).hexdigest()
        return JSONResponse(
            {
                "upload_url": f"{_media(request)}/upload/{upload_id}?signature={signature}",
                "file_url": f"{_media(request)}/{path}",
            }
        )

    async def _upload(self, request: Request) -> Response:
        if not self._token_accepted(request):
            return _no("Invalid upload token")
        headers = dict(request.headers)
        name = headers.get("x-fal-file-name", "")
        path = self._files.new_path(name)
        self._keep(path, await request.body(), headers.get("content-type", ""), name, headers)
        return JSONResponse({"access_url": f"{_media(request)}/{path}"})

    async def _begin_multipart(self, request: Request) -> Response:
        if not self._token_accepted(request):
            return _no("Invalid upload token")
        headers = dict(request.headers)
        name = headers.get("x-fal-file-name", "")
        upload_id, path = self._new_id(), self._files.new_path(name)
        self._uploads[upload_id] = _Parts(path, headers.get("content-type", ""), name, headers)
        return JSONResponse({"access_url": f"{_media(request)}/{path}", "uploadId": upload_id})

    async def _part(self, request: Request) -> Response:
        upload = self._uploads.get(request.path_params["upload_id"])
        if upload is None:
            return _gone()
        if "path" in request.path_params and not self._token_accepted(request):
            return _no("Invalid upload token")
        if "path" not in request.path_params and not _signed(request):
            return _no("Invalid signature", 403)
        number = int(request.path_params["number"])
        data = upload.parts[number] = await request.body()
        etag = _etag(data)
        return JSONResponse({"partNumber": number, "etag": etag}, headers={"ETag": etag})

    async def _complete_multipart(self, request: Request) -> Response:
        if not self._token_accepted(request):
            return _no("Invalid upload token")
        return await self._complete(request)

    async def _complete_signed(self, request: Request) -> Response:
        return await self._complete(request) if _signed(request) else _no("Invalid signature", 403)

    async def _complete(self, request: Request) -> Response:
        upload = self._uploads.get(request.path_params["upload_id"])
        if upload is None:
            return _gone()
        try:
            named = [members_of(part) for part in items_of(members_of(json.loads(await request.body())).get("parts"))]
            wanted = {(int(str(part["partNumber"])), str(part["etag"])) for part in named}
        except (ValueError, KeyError):
            return JSONResponse({"detail": "A list of parts is required"}, 422)
        if wanted != {(number, _etag(data)) for number, data in upload.parts.items()}:
            return JSONResponse({"detail": "Parts do not match"}, 400)
        data = b"".join(upload.parts[number] for number in sorted(upload.parts))
        self._keep(upload.path, data, upload.content_type, upload.name, upload.headers)
        del self._uploads[request.path_params["upload_id"]]
        return JSONResponse({"access_url": f"{_media(request)}/{upload.path}"})

    async def _put(self, request: Request) -> Response:
        upload = self._uploads.pop(request.path_params["upload_id"], None) if _signed(request) else None
        if upload is None:
            return _no("Invalid signature", 403)
        data = await request.body()
        self._keep(
            upload.path, data, request.headers.get("content-type", upload.content_type), upload.name, upload.headers
        )
        return Response(status_code=200, headers={"ETag": _etag(data)})

    def _keep(self, path: str, data: bytes, content_type: str, name: str, headers: Mapping[str, str]) -> None:
        lifecycle = _lifecycle(headers)
        seconds = lifecycle.get("expiration_duration_seconds")
        lives = float(seconds) if isinstance(seconds, int | float) else math.inf
        self._files.put(
            path,
            StoredFile(data, content_type or "application/octet-stream", name, lifecycle, self._clock.now() + lives),
        )

    def _token_accepted(self, request: Request) -> bool:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return scheme == "Bearer" and self._tokens.get(token, 0.0) > self._clock.now()


def file_answer(request: Request, file: StoredFile) -> Response:
    """
    *file* as a CDN sends it: whole, or the one range that was asked for (RFC 9110, section 14).

    A range whose ``If-Range`` names another version gets the whole new one.
    """
    headers = {"ETag": file.etag, "Accept-Ranges": "bytes", "Cache-Control": "public, max-age=31536000"}
    size = len(file.data)
    wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", "").strip())
    if wanted is None or request.headers.get("if-range", file.etag) != file.etag:
        return Response(file.data, media_type=file.content_type, headers=headers)
    span = _span(wanted[1], wanted[2], size)
    if span is None:
        return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{size}"})
    first, last = span
    return Response(
        file.data[first : last + 1],
        206,
        {**headers, "Content-Range": f"bytes {first}-{last}/{size}"},
        file.content_type,
    )


def _span(first: str, last: str, size: int) -> tuple[int, int] | None:
    if not first:
        return (max(0, size - int(last)), size - 1) if int(last or 0) and size else None
    end = min(int(last), size - 1) if last else size - 1
    return (int(first), end) if int(first) <= end else None


def _lifecycle(headers: Mapping[str, str]) -> Mapping[str, object]:
    # The CDN reads the first, storage initiation the second; the Python client sends both.
    text = headers.get("x-fal-object-lifecycle") or headers.get("x-fal-object-lifecycle-preference")
    try:
        value: object = json.loads(text) if text else {}
    except ValueError:
        value = {}
    return members_of(value)


def _media(request: Request) -> str:
    return f"{request.url.scheme}://{request.url.netloc}/media"


def _signed(request: Request) -> bool:
    expected = hashlib.sha256(str(request.path_params["upload_id"]).encode()).hexdigest()
    return request.query_params.get("signature") == expected


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


def _no(detail: str, status: int = 401) -> Response:
    return JSONResponse({"detail": detail}, status)


def _gone() -> Response:
    return JSONResponse({"detail": "Upload not found"}, 404)
