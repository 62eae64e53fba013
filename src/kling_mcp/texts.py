"""
Texts that UTF-8 cannot encode: half a character from JavaScript, or the name of a file from before Unicode.

Python holds both as lone surrogates. They break whatever sends, stores or prints them.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["BLANKS", "showable", "unencodable"]

BLANKS: Final = (
    "".join(map(chr, [*range(0x21), 0x7F, 0x85, 0xA0, 0x1680, *range(0x2000, 0x2010), 0x2028, 0x2029, 0x202F, 0x205F]))
    + "\u2060\u3000\ufeff"
)
"""Characters around a text that nobody sees: blanks of every width, control characters, marks of no width."""

_DEEPEST: Final = 100


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
