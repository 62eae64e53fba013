"""
Texts as they can be sent and shown.

What UTF-8 cannot encode, half a character from JavaScript or the name of a file from before Unicode, Python holds as
lone surrogates. They break whatever sends, stores or prints them. Texts from outside may hold what nobody sees.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any, Final

__all__ = ["BLANKS", "clean", "showable", "unencodable"]

BLANKS: Final = (
    "".join(map(chr, [*range(0x21), 0x7F, 0x85, 0xA0, 0x1680, *range(0x2000, 0x2010), 0x2028, 0x2029, 0x202F, 0x205F]))
    + "\u2060\u3000\ufeff"
)
"""Characters around a text that nobody sees: blanks of every width, control characters, marks of no width."""

_DEEPEST: Final = 100
_LONGEST_LINE: Final = 300


def showable(value: Any) -> Any:
    r"""*value* with every text in a form that can be sent and read: the bytes of a file name as ``\xe9``."""
    match value:
        case str() if not _encodable(value):
            try:
                return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            except UnicodeEncodeError:
                return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {showable(name): showable(member) for name, member in value.items()}  # pyright: ignore[reportUnknownVariableType]
        case list() | tuple():
            return [showable(member) for member in value]  # pyright: ignore[reportUnknownVariableType]
        case _:
            return value


def unencodable(value: Any, path: str = "", depth: int = 0) -> str | None:
    """
    The path of the first text in *value* that cannot be encoded, such as ``shots[1].prompt``; None if all of them can.

    Raises:
        RecursionError: *value* is nested deeper than anything that is meant to be read.
    """
    if depth > _DEEPEST:
        raise RecursionError
    match value:
        case str():
            return None if _encodable(value) else path
        case dict():
            members = ((name, f"{path}.{showable(name)}".lstrip("."), member) for name, member in value.items())  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
            for name, where, member in members:  # pyright: ignore[reportUnknownVariableType]
                if not _encodable(name):
                    return where
                if (found := unencodable(member, where, depth + 1)) is not None:
                    return found
        case list():
            for number, member in enumerate(value):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
                if (found := unencodable(member, f"{path}[{number}]", depth + 1)) is not None:
                    return found
        case _:
            pass
    return None


def _encodable(text: Any) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def clean(text: object, longest: int = _LONGEST_LINE) -> str:
    """
    One short visible line of *text*, or nothing where it is not text.

    Removed are terminal sequences, control, formatting and invisible characters
    (bidirectional marks, zero-width characters, tags, variation selectors) and
    links, in the order in which one could hide another.
    """
    if not isinstance(text, str):
        return ""
    # Long enough for any message, short enough that cleaning it takes no time.
    text = _ANSI.sub("", text[: longest * 20])
    visible = "".join(
        " " if character.isspace() or unicodedata.category(character) in {"Zl", "Zp"} else character
        for character in text
        if character.isspace() or not _invisible(character)
    )
    line = " ".join(_LINK.sub("", visible).split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def _invisible(character: str) -> bool:
    return (
        unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Cn"}
        or "\ufe00" <= character <= "\ufe0f"
        or "\U000e0100" <= character <= "\U000e01ef"
        or character in _BLANKS
    )


# Letters and symbols by their category, but nothing to be seen.
_BLANKS: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_ANSI: Final = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?")
_LINK: Final = re.compile(r"(?:[a-z][a-z0-9+.-]{1,20}://|www\.|mailto:|data:|javascript:)\S*", re.IGNORECASE)
