"""
Files as arguments name them: a web address, a ``data:`` URI or base64, a job's address, or a path.

Models, chats and notes put quotes, brackets and Markdown around what they name; where the meaning is certain, that is
taken off.
"""

from __future__ import annotations

import base64
import binascii
import re
import socket
import sys
from typing import Final, Literal
from urllib.parse import unquote_to_bytes

from kling_mcp.errors import InputRefused

__all__ = ["MAX_DATA_URI_BYTES", "Source", "decoded", "kind_of", "path_of", "unwrapped"]

MAX_DATA_URI_BYTES: Final = 10 * 1024 * 1024
_MAX_WRAPPED_CHARACTERS: Final = 16_384
# RFC 2397; programs leave out its beginning, or write it twice.
_DATA_URI: Final = re.compile(
    r"data:[^,]{0,200}?(?P<base64>;\s*base64)?\s*,|(?:(?:image|video|audio)/[a-z0-9.+-]{1,40};\s*)?base64\s*[,:]",
    re.IGNORECASE,
)
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_=%\s\\-]+")
# How the base64 of each format begins, pictures first. What is as short as a path may be one.
_BARE_BASE64: Final = re.compile(
    r"(?:/9j/|_9j_|\\/9j\\/|iVBORw0KGgo|R0lGOD|UklGR|AAAA[A-Za-z0-9+/_-]{2}Z0eXB|GkXfo|SUQz|T2dnU|ZkxhQ)"
)
_MIN_BARE_CHARACTERS: Final = 64
# What programs, chats and notes put around an address.
_WRAPPING: Final = {'"': '"', "'": "'", "`": "`", "<": ">", "\u201c": "\u201d", "\u2018": "\u2019", "«": "»"}
_MARKDOWN: Final = re.compile(r"!?\[[^\]]*\]\(\s*<?(\S+?)>?(?:\s+[\"'][^)]*)?\s*\)")
_WRAPPED_DATA: Final = re.compile(r"(?:!?\[[^\]]*\]|url)\(\s*(?=[\"'<]?data:)", re.IGNORECASE)
_PYTHON_BYTES: Final = re.compile(r"b(?=['\"](?:data:|/9j/|iVBORw0KGgo|R0lGOD|UklGR|AAAA))")
_BLANKS: Final = " \t\r\n\v\f\xa0\u200b\u200c\u200d\u2060\ufeff"
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:(?=\S)")
_EXAMPLES: Final = {"picture": "image/png", "video": "video/mp4", "audio file": "audio/mpeg"}

Source = Literal["url", "data", "job", "path"]


def unwrapped(source: str) -> str:
    """*source* without the blanks, quotes, brackets and Markdown around it."""
    source = source.strip(_BLANKS)
    if (link := _WRAPPED_DATA.match(source[:400])) and source.endswith(")"):
        source = source[link.end() : -1].strip()
    elif len(source) <= _MAX_WRAPPED_CHARACTERS and (link := _MARKDOWN.fullmatch(source)):
        source = link[1]
    if _PYTHON_BYTES.match(source):
        source = source[1:]
    while len(source) > 1 and _WRAPPING.get(source[0]) == source[-1]:
        source = source[1:-1].strip()
    return source


def kind_of(source: str) -> Source:
    """What an argument is: a web address, a ``data:`` URI or base64, a job's address, or else a path."""
    source = unwrapped(source)
    if _DATA_URI.match(source[:300]) or source[:5].lower() == "data:":
        return "data"
    if _BARE_BASE64.match(source) and len(source) >= _MIN_BARE_CHARACTERS and _BASE64.fullmatch(source):
        return "data"
    scheme = match[0].lower() if (match := _SCHEME.match(source[:40])) else ""
    if scheme == "kling:":
        return "job"
    if source[:4].lower() == "www.":
        return "url"
    return "path" if scheme in {"", "file:", "sandbox:"} else "url"


def decoded(source: str, *, what: str, field: str | None) -> bytes:
    """
    The bytes that a ``data:`` URI or base64 is.

    Args:
        source: Without what stands around it.
        what: What it should be, for a refusal: ``picture``, ``video`` or ``audio file``.
        field: The argument that it came in.

    Raises:
        InputRefused: It cannot be decoded, is empty, or is too long.
    """
    payload, base64_coded = source, True
    while start := _DATA_URI.match(payload[:300]):
        base64_coded = start["base64"] is not None or start[0][:5].lower() != "data:"
        payload = payload[start.end() :]
    if base64_coded or _BARE_BASE64.match(payload):
        base64_coded, payload = True, unwrapped(payload)
    # Four characters carry three bytes; what is longer need not be decoded to be too long.
    if len(payload) * 3 // 4 > MAX_DATA_URI_BYTES + 3 + payload.count("\n") * 2:
        raise _too_long(what, field)
    data = _from_base64(payload) if base64_coded else unquote_to_bytes(payload)
    if data is None or payload[:5].lower() == "data:":
        raise InputRefused(
            "The data: URI has characters in it that are not base64, or is cut off.",
            f"Give the whole {what} as data:{_EXAMPLES[what]};base64,…, or save it as a file and give the path.",
            field=field,
        )
    if not data:
        raise InputRefused(f"The data: URI has no {what} in it.", f"Give the {what} itself, or its path.", field=field)
    if len(data) > MAX_DATA_URI_BYTES:
        raise _too_long(what, field)
    return data


def _from_base64(payload: str) -> bytes | None:
    """The bytes, however they are cut into lines, escaped and padded (RFC 4648, both alphabets), or None."""
    text = unquote_to_bytes(payload).decode("latin-1") if "%" in payload else payload
    parts = text.strip().split(" ")
    # Read as the field of a form, each plus has become a blank; one after every so many fours is a line break instead.
    lines = len({len(part) for part in parts[:-1]}) < 2 and len(parts[0]) % 4 == 0
    if not lines and not re.search(r"[+\-_\\\r\n]", text):
        text = "+".join(parts)
    text = re.sub(r"\\[nrt]|\s", "", text).replace("\\/", "/").replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def _too_long(what: str, field: str | None) -> InputRefused:
    return InputRefused(
        f"The data: URI has more than {MAX_DATA_URI_BYTES:,} bytes.",
        f"Save the {what} in one of the folders that KLING_MCP_INPUT_DIRS names and give its path.",
        field=field,
    )


def path_of(source: str, *, windows: bool = sys.platform == "win32") -> str:
    """The path in a ``file://`` address (RFC 8089), or *source* itself."""
    if source[:5].lower() != "file:":
        return source
    rest = source[5:]
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        rest = slash + path if host.lower() in {"", "localhost", "127.0.0.1", _this_host()} else rest[2:]
    # A byte that is no UTF-8 is found like one in a path, by what is shown of it.
    path = unquote_to_bytes(rest).decode(errors="replace")
    return path.removeprefix("/") if windows and re.match(r"/[A-Za-z]:", path) else path


def _this_host() -> str:
    """The name of this machine, which desktops put into the addresses of files that are dragged."""
    return socket.gethostname().lower()
