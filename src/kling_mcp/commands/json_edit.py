"""
Sets or removes one entry of a JSON file that people edit by hand.

Comments, order, indentation and line ends of everything else stay as they are,
so the change is made in the text and not in a parsed copy. Comments and
trailing commas are allowed, as VS Code and Zed allow them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["JsonTextError", "parse", "remove", "set_value"]

_TRIVIA: Final = re.compile(r"(?:\s+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_REST_OF_LINE: Final = re.compile(r"(?:[^\S\r\n]+|,|/\*[^\n]*?\*/)*(?://[^\r\n]*)?")
_COMMENT: Final = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_DECODER: Final = json.JSONDecoder()
_CLOSING: Final = {"{": "}", "[": "]"}


class JsonTextError(ValueError):
    """The text is not JSON, or holds something else where an object is needed; the message names the line."""


@dataclass
class _Node:
    """A value and its place in the text; members by name, those of a list by their number."""

    start: int
    end: int
    value: object
    members: dict[str, _Member] = field(default_factory=dict[str, "_Member"])


@dataclass
class _Member:
    start: int
    """Where its name begins, or its value in a list."""
    node: _Node


def parse(text: str) -> object:
    """
    What *text* says, without its comments.

    Raises:
        JsonTextError: It is not JSON.
    """
    return _read(text).value


def set_value(text: str, path: Sequence[str], value: object) -> str:
    """
    *text* with *value* at *path*; objects on the way that are missing are made, ``-`` is the end of a list (RFC 6901).

    Raises:
        JsonTextError: It is not JSON, or something else than an object is on the way.
    """
    if not text.strip("\ufeff \t\r\n"):
        text += "{}\n"
    node, depth = _read(text), 0
    while depth < len(path) and path[depth] in node.members:
        node, depth = node.members[path[depth]].node, depth + 1
    if depth == len(path):
        return text[: node.start] + _written(value, text, _indent(text, node.start)) + text[node.end :]
    if not isinstance(node.value, list if path[depth] == "-" else dict):
        raise JsonTextError(f"line {_line(text, node.start)}: {'.'.join(path[:depth]) or 'the file'} is no object")
    for name in reversed(path[depth + 1 :]):
        value = [value] if name == "-" else {name: value}
    return _with_member(text, node, "" if path[depth] == "-" else f"{json.dumps(path[depth])}: ", value)


def remove(text: str, path: Sequence[str]) -> str:
    """
    *text* without the entry at *path*; the same text where there is no entry.

    Raises:
        JsonTextError: It is not JSON.
    """
    node = _read(text)
    for name in path[:-1]:
        if name not in node.members:
            return text
        node = node.members[name].node
    if path[-1] not in node.members:
        return text
    without = _without(text, node, path[-1], tidy=True)
    try:
        _read(without)
    except JsonTextError:
        # The line break that it stood on ended a comment.
        return _without(text, node, path[-1], tidy=False)
    return without


def _without(text: str, node: _Node, name: str, *, tidy: bool) -> str:
    """*text* without the member *name* of *node*; with *tidy* also without the line break and the indent before it."""
    members = list(node.members.values())
    place = members.index(node.members[name])
    start, end = members[place].start, members[place].node.end
    if tidy:
        start = len(text[:start].rstrip(" \t\r\n"))
    after = _after_trivia(text, end)
    if text[after] == ",":
        return text[:start] + text[end:after] + text[after + 1 :]
    if place:
        # It was the last one: the comma before it goes, comments between them stay.
        before = members[place - 1].node.end
        comma = _after_trivia(text, before)
        return text[:before] + text[before:comma] + text[comma + 1 : start] + text[end:]
    return text[:start] + text[end if _COMMENT.search(text, end, after) else after :]


def _with_member(text: str, node: _Node, name: str, value: object) -> str:
    """*text* with a new last member of *node*; comments on the line of the present last one stay there."""
    newline = _newline(text)
    outer = _indent(text, node.start)
    closing = node.end - 1
    if not node.members:
        indent = outer + _unit(outer)
        entry = f"{newline}{indent}{name}{_written(value, text, indent)}"
        return f"{text[:closing].rstrip()}{entry}{newline}{outer}{text[closing:]}"
    last = list(node.members.values())[-1]
    has_own_line = not text[: last.start].rpartition("\n")[2].strip()
    indent = _indent(text, last.start) if has_own_line else outer + _unit(outer)
    rest = _REST_OF_LINE.match(text, last.node.end, closing)
    between = "" if rest is None else rest[0].rstrip()
    comma = "" if "," in _COMMENT.sub("", between) else ","
    tail = text[last.node.end + len(between) :]
    if not text[last.node.end + len(between) : closing].strip(" \t"):
        tail = newline + outer + text[closing:]
    entry = f"{newline}{indent}{name}{_written(value, text, indent)}"
    trailing = "," if not comma and not _after_comma_is_more(text, last.node.end, closing) else ""
    return f"{text[: last.node.end]}{comma}{between}{entry}{trailing}{tail}"


def _after_comma_is_more(text: str, end: int, closing: int) -> bool:
    return bool(_COMMENT.sub("", text[end:closing]).strip(" \t\r\n,"))


def _written(value: object, text: str, indent: str) -> str:
    written = json.dumps(value, indent=_unit(indent), ensure_ascii=False)
    return written.replace("\n", _newline(text) + indent)


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _unit(indent: str) -> str:
    return "\t" if "\t" in indent else "  "


def _indent(text: str, position: int) -> str:
    line = text[:position].rpartition("\n")[2].removeprefix("\ufeff")
    return line[: len(line) - len(line.lstrip())]


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _read(text: str) -> _Node:
    try:
        node = _node(text, _after_trivia(text, int(text.startswith("\ufeff"))))
    except RecursionError:
        raise JsonTextError("too deeply nested") from None
    end = _after_trivia(text, node.end)
    if end != len(text):
        raise _not_json(text, end)
    return node


def _node(text: str, start: int) -> _Node:
    opening = text[start : start + 1]
    if opening not in _CLOSING:
        return _scalar(text, start)
    members: dict[str, _Member] = {}
    position = _after_trivia(text, start + 1)
    while text[position : position + 1] != _CLOSING[opening]:
        member, name = position, str(len(members))
        if opening == "{":
            key = _scalar(text, position)
            position = _after_trivia(text, key.end)
            if not isinstance(key.value, str) or text[position : position + 1] != ":":
                raise _not_json(text, position)
            name, position = key.value, _after_trivia(text, position + 1)
        members[name] = _Member(member, _node(text, position))
        position = _after_trivia(text, members[name].node.end)
        if text[position : position + 1] == ",":
            position = _after_trivia(text, position + 1)
        elif text[position : position + 1] != _CLOSING[opening]:
            raise _not_json(text, position)
    values = {name: member.node.value for name, member in members.items()}
    return _Node(start, position + 1, values if opening == "{" else list(values.values()), members)


def _scalar(text: str, start: int) -> _Node:
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        raise _not_json(text, start) from None
    if isinstance(value, dict | list):
        raise _not_json(text, start)
    return _Node(start, end, value)


def _after_trivia(text: str, position: int) -> int:
    match = _TRIVIA.match(text, position)
    return position if match is None else match.end()


def _not_json(text: str, position: int) -> JsonTextError:
    return JsonTextError(f"line {_line(text, position)}: not JSON")
