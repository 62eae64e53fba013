"""
fal's JSON on one page: each answer that is read, and the members of it that are used.

Answers about a paid job differ from what fal documents more often than one would think. So nothing here fails: a
member that is missing or of another type has its default, and an object is also found in a list or in a usual wrapper
around it. Whether what is left is enough is for the caller to decide.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Final, Self
from urllib.parse import quote

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, PlainValidator

from kling_mcp.fal import tolerant_json
from kling_mcp.fal.tolerant_json import NotJson, items, members, text
from kling_mcp.fal.urls import Address
from kling_mcp.json_types import is_list
from kling_mcp.texts import clean

if TYPE_CHECKING:
    from kling_mcp.fal.http import Response

__all__ = [
    "Complaint",
    "HistoryEntry",
    "ListPage",
    "ModelEntry",
    "PriceEntry",
    "RequestStatus",
    "StorageAnswer",
    "SubmitAnswer",
    "Video",
    "error_inside",
    "has_typed_errors",
    "json_of",
    "standard_result",
    "video_of_body",
]


def _word(value: object) -> str | None:
    """A short text from outside, cleaned."""
    return clean(value, 100) or None


def _count(value: object) -> int | None:
    """A whole number that can be one of bytes or places."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**15 else None


def _http_status(value: object) -> int | None:
    return value if isinstance(value, int) and 100 <= value < 600 else None


def _milliseconds(value: object) -> int | None:
    """An ISO time, in UTC where it does not say, as milliseconds since 1970."""
    try:
        moment = datetime.fromisoformat(text(value))
        return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


def _amount(value: object) -> Decimal | None:
    if not isinstance(value, (int, Decimal)) or isinstance(value, bool):
        return None
    amount = Decimal(value)
    return amount if 0 <= amount < 1_000_000 else None


def _list(value: object) -> Sequence[object] | None:
    return value if is_list(value) else None


Text = Annotated[str, PlainValidator(text)]
Keyword = Annotated[str, PlainValidator(lambda value: text(value).strip().upper())]
Count = Annotated[int | None, PlainValidator(_count)]
Moment = Annotated[int | None, PlainValidator(_milliseconds)]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)

    @classmethod
    def read(cls, value: object) -> Self:
        """What *value* says, or all defaults where it is no object."""
        return cls.model_validate(members(value))


# ---- the queue


class SubmitAnswer(_Answer):
    """The answer to a request that fal takes. It is read where fal documents it only: the id decides what is paid."""

    request_id: Text = ""
    status_url: Text = ""
    response_url: Text = ""
    cancel_url: Text = ""
    queue_position: Count = None


class RequestStatus(_Answer):
    """The answer to a question about a request, an event of its stream, and the answer to a cancel."""

    status: Keyword = ""
    queue_position: Count = None
    logs: object = None
    error: object = None
    errors: object = None
    detail: object = None
    error_type: object = None
    success: object = None

    @classmethod
    def read(cls, value: object) -> Self:
        """The same, wherever in *value* an object with a status is."""
        return super().read(_object_with("status", value))

    @property
    def last_log(self) -> str | None:
        """The newest line of the log, cleaned. Schemas call it an object; fal sends a list or null."""
        entries = items(self.logs) or (self.logs,)
        lines = (clean(members(entry).get("message", entry)) for entry in entries[: -_KEPT_LOGS - 1 : -1])
        return next(filter(None, lines), None)


_KEPT_LOGS: Final = 200


# ---- the result


@dataclass(frozen=True, slots=True)
class Video:
    """The finished video as the result names it; *url* may be a ``data:`` URI."""

    url: str
    content_type: str | None
    file_name: str | None
    file_size: int | None


def video_of_body(body: object) -> Video | None:
    """The video that a result names, if it can be fetched."""
    found = (_video(value, named) for value, named in _inside(body))
    return next((video for video in found if video is not None), None)


def standard_result(answer: object) -> tuple[Mapping[str, object], Video | None]:
    """A result with its video where fal documents it, so that only this module looks for it, and the video."""
    body = members(answer) or {"output": answer}
    video = video_of_body(answer)
    if video is None or members(body.get("video")).get("url") == video.url:
        return body, video
    file = {
        "url": video.url,
        "content_type": video.content_type,
        "file_name": video.file_name,
        "file_size": video.file_size,
    }
    kept = {name: value for name, value in body.items() if name not in {*_VIDEO_NAMES, *_WRAPPERS}}
    return {**kept, "video": file}, video


def _object_with(name: str, answer: object) -> Mapping[str, object]:
    """The object in *answer* that has a member *name*, else the answer itself if it is an object."""
    found = (members(value) for value, _ in _inside(answer))
    return next((body for body in found if body.get(name) is not None), members(answer))


def _inside(answer: object) -> Iterator[tuple[object, bool]]:
    """*answer* and what it holds in lists and usual members, nearest first, and whether that is called a video."""
    waiting = [(answer, False)]
    for _ in range(_LOOKED_AT):
        if not waiting:
            return
        value, named = waiting.pop(0)
        yield value, named
        body = members(value)
        waiting += [(item, named) for item in items(value)[:_LOOKED_AT]]
        waiting += [(body[name], True) for name in _VIDEO_NAMES if name in body]
        waiting += [(body[name], named) for name in _WRAPPERS if name in body]


def _video(value: object, named: bool) -> Video | None:
    """*value* as a video, where it is called one or its address is that of one."""
    file = members(value)
    content_type = _word(file.get("content_type"))
    for address in (value, *(file.get(name) for name in _ADDRESS_NAMES)):
        url = _fetchable(address)
        if url and (named or (content_type or "").startswith("video/") or _VIDEO_FILE.fullmatch(url)):
            return Video(url, content_type, _word(file.get("file_name")), _count(file.get("file_size")))
    return None


def _fetchable(value: object) -> str | None:
    """*value* as the address of a file, without what surrounds or follows it; None where it is not one."""
    url = text(value).strip(" \t\r\n\"'`<>")
    if _INLINE.match(url):
        return url
    url = quote(re.sub(r"[\r\n\t]", "", url).partition("#")[0], safe=_PRINTABLE)
    address = Address.read(url)
    return url if address is not None and address.is_private else None


_WRAPPERS: Final = ("data", "response", "output", "outputs", "result", "results", "payload", "file", "files")
"""Members in which another object may wrap the one that is looked for."""
_VIDEO_NAMES: Final = ("video", "videos", "video_url")
_ADDRESS_NAMES: Final = ("url", "uri", "href")
_LOOKED_AT: Final = 100
_VIDEO_FILE: Final = re.compile(r"https?://[^?]*\.(mp4|mov|webm|m4v)(\?.*)?|data:video/.*", re.IGNORECASE | re.DOTALL)
_INLINE: Final = re.compile(r"data:(video/[a-z0-9.+-]+|application/octet-stream)?(;[^,;]{1,80})*,", re.IGNORECASE)
_PRINTABLE: Final = "".join(map(chr, range(0x21, 0x7F)))


# ---- errors


@dataclass(frozen=True, slots=True)
class Complaint:
    """What is in an error answer, not yet believed."""

    type: str = ""
    text: str = ""
    location: Sequence[object] = ()
    numbers: Mapping[str, object] = field(default_factory=dict[str, object])

    @classmethod
    def of_answer(cls, answer: Response) -> Complaint:
        """The first complaint in *answer*: in its body, or else its type in a header."""
        named = answer.headers.get("x-fal-error-type", "")
        if not named and answer.headers.get("x-fal-request-timeout-type") == "user":
            named = "request_timeout"
        document = json_of(answer)
        if document is None and not answer.body.lstrip().startswith(b"<"):
            document = answer.body.decode("utf-8", "replace")
        found = cls.of_document(document)
        return replace(found, type=found.type or named)

    @classmethod
    def of_document(cls, document: object, depth: int = 6) -> Complaint:
        """The first complaint in *document*: words, or an object or a list that has them under a usual name."""
        if isinstance(document, str) and document.lstrip().startswith(("{", "[")):
            with contextlib.suppress(NotJson):
                document = tolerant_json.parse(document.encode())
        if isinstance(document, str):
            return cls(text=document)
        body = members(document)
        parts = items(document) or [body.get(name) for name in _ERROR_NAMES]
        parts = [*parts, *(body.get(name) for name in _WRAPPERS if not isinstance(body.get(name), str))]
        inner = next((cls.of_document(part, depth - 1) for part in parts if part and depth), cls())
        return cls(
            type=text(body.get("error_type")) or inner.type or text(body.get("type")) or text(body.get("code")),
            text=inner.text or next((words for name in _WORDS if (words := text(body.get(name)))), ""),
            location=items(body.get("loc")) or inner.location,
            numbers=members(body.get("ctx")) or inner.numbers,
        )


def error_inside(body: Mapping[str, object]) -> Complaint | None:
    """The error in an answer whose HTTP status says that all is well; None for an answer without an error."""
    if not any(_object_with(name, body).get(name) for name in ("error_type", "message", *_ERROR_NAMES)):
        return None
    return Complaint.of_document(body)


def has_typed_errors(answer: Response) -> bool:
    """Whether *answer* is a list of errors as only the model itself writes it."""
    return any(text(members(item).get("type")) for item in items(members(json_of(answer)).get("detail")))


def json_of(answer: Response) -> object:
    """What the body says; None where it is not JSON."""
    try:
        return answer.json()
    except NotJson:
        return None


_ERROR_NAMES: Final = ("detail", "errors", "error")
_WORDS: Final = ("msg", "message", "reason", "description", "title")


# ---- the storage


class StorageAnswer(_Answer):
    """What the storage answers to a request for a token, for a signed address, and to an upload."""

    token_type: Text = ""
    token: Text = ""
    base_url: Text = ""
    expires_at: Moment = None
    upload_url: Text = ""
    file_url: Text = ""
    access_url: Text = ""
    upload_id: Annotated[str, PlainValidator(text)] = Field("", validation_alias="uploadId")
    etag: Text = ""


# ---- the platform


class ListPage(_Answer):
    """A page of a list, whatever is listed; *entries* is None where there is no list."""

    entries: Annotated[Sequence[object] | None, PlainValidator(_list)] = Field(
        None, validation_alias=AliasChoices("items", "models", "prices")
    )
    next_cursor: Text = ""
    has_more: object = None


class HistoryEntry(_Answer):
    """A past request."""

    request_id: Text = ""
    endpoint_id: Text = ""
    sent_at: Moment = None
    ended_at: Moment = None
    status_code: Annotated[int | None, PlainValidator(_http_status)] = None
    json_input: object = None
    json_output: object = None


class PriceEntry(_Answer):
    """A list price. Only here are fractions read as `Decimal`."""

    endpoint_id: Text = ""
    unit_price: Annotated[Decimal | None, PlainValidator(_amount)] = None
    unit: Annotated[str, PlainValidator(lambda value: clean(value, 40))] = ""
    currency: Annotated[str, PlainValidator(lambda value: clean(value, 10).upper())] = ""


class ModelMetadata(_Answer):
    """What is published about an endpoint beside its schemas."""

    status: Annotated[str | None, PlainValidator(lambda value: text(value) or None)] = None
    display_name: Annotated[str | None, PlainValidator(_word)] = None


class ModelEntry(_Answer):
    """An endpoint; one that fal does not know is listed with an error in the place of its schemas."""

    endpoint_id: Text = ""
    metadata: Annotated[ModelMetadata, PlainValidator(ModelMetadata.read)] = ModelMetadata()
    openapi: Annotated[Mapping[str, object], PlainValidator(members)] = {}
