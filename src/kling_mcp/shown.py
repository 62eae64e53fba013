"""
Values as they are shown and recorded, with embedded pictures named instead of repeated.

A picture as a ``data:`` URI can be megabytes of base64, which no reader of a
result or of the ledger has any use for.
"""

from __future__ import annotations

import re
from typing import Final, TypeVar, cast
from urllib.parse import unquote_to_bytes

from kling_mcp.json_types import is_list, is_object

__all__ = ["shorten_data_uris"]

_V = TypeVar("_V")

_BASE64_LINE: Final = r"[A-Za-z0-9+/_=%-]"
_DATA_URI: Final = re.compile(
    # The type is required, so that a sentence such as "data:, and" stays.
    r"\bdata:\s?(?P<type>[a-z0-9.+-]{1,60}/[a-z0-9.+-]{1,60})(?:;(?!base64)[^;,\s\"']{0,100}){0,5}"
    rf"(?:(?P<base64>;\s?base64),(?P<lines>\s*{_BASE64_LINE}+(?:\s+{_BASE64_LINE}{{40,}})*(?:\s+{_BASE64_LINE}+\s*$)?)"
    r"|,(?P<text>[^\s\"'<>]*))",
    re.IGNORECASE,
)
_WHOLE_URI: Final = re.compile(r"\W*data:[^\s,]{0,100}[/;][^\s,]{0,100},", re.IGNORECASE)
_LONGEST_SHOWN: Final = 300
_BARE_BASE64: Final = re.compile(r"\s*[A-Za-z0-9+/_-]{512}[A-Za-z0-9+/_=\s-]*")


def shorten_data_uris(value: _V) -> _V:
    """*value* with every ``data:`` URI in it, at any depth, as ``data:image/jpeg (640 kB)``."""
    shortened: object = value
    if isinstance(value, str):
        shortened = f"base64 ({_kb(_base64_bytes(value))})" if _BARE_BASE64.fullmatch(value) else _in_text(value)
        if len(shortened) > _LONGEST_SHOWN and _WHOLE_URI.match(value):
            # Written in a way that is not found inside a sentence; there is nothing else in it.
            shortened = f"{value.partition(',')[0][:60].lower()} ({_kb(len(value))})"
    elif is_object(value):
        shortened = {name: shorten_data_uris(member) for name, member in value.items()}
    elif is_list(value):
        shortened = [shorten_data_uris(member) for member in value]
    elif isinstance(value, tuple):
        shortened = tuple(shorten_data_uris(member) for member in cast("tuple[object, ...]", value))
    return cast("_V", shortened)


def _in_text(text: str) -> str:
    return _DATA_URI.sub(_named, text)


def _named(uri: re.Match[str]) -> str:
    payload = uri["lines"] or uri["text"] or ""
    size_bytes = _base64_bytes(payload) if uri["base64"] else len(unquote_to_bytes(payload))
    return f"data:{uri['type'].lower()} ({_kb(size_bytes)})"


def _base64_bytes(payload: str) -> int:
    return len(re.sub(r"[\s=]|%[0-9A-Fa-f]{2}", "", payload)) * 3 // 4


def _kb(size_bytes: int) -> str:
    return f"{max(1, round(size_bytes / 1000))} kB"
