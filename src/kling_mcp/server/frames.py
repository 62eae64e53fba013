"""
Frames: one line from a client, read as a message for the SDK or as faults to answer.

The SDK does not answer a request that it cannot read, and its client waits for
ever. So lines are read here: strictly, but with the id found even in text that
is not JSON, because a refusal is useful only with the id of its request.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from math import inf
from typing import Any, Final, cast

import mcp_types as t
from pydantic import JsonValue, ValidationError

from kling_mcp.texts import showable, unencodable

__all__ = ["Fault", "Frame", "malformed", "read_frame", "too_long"]

_BOM: Final = b"\xef\xbb\xbf"
_SCANNED_CHARACTERS: Final = 1_000_000
_LONGEST_ID: Final = 10_000
_EMPTY_OF_PHP: Final = " An empty one is {}; PHP writes [] for an empty array, and {} for (object) []."

_TOKEN: Final = re.compile(r'"(?P<text>[^"\\]*(?:\\.[^"\\]*)*)"|(?P<bracket>[{}\[\]])|(?P<open>")', re.DOTALL)
_COLON: Final = re.compile(r"\s*:\s*")
_VALUE: Final = re.compile(
    r'(?P<text>"[^"\\]*(?:\\.[^"\\]*)*")|(?P<number>-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?)(?=\s*[,}])', re.DOTALL
)
_AT_THE_END: Final = re.compile(
    r'"id"\s*:\s*("[ !#-\[\]-~]{0,200}"|-?(?:0|[1-9]\d{0,40}))\s*(?:,\s*"jsonrpc"\s*:\s*"2.0"\s*)?\}\s*$'
)

Message = t.JSONRPCRequest | t.JSONRPCNotification | t.JSONRPCResponse | t.JSONRPCError


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a line is refused, and the id of the request as JSON text; None where no answer is expected."""

    code: int
    why: str
    id: str | None

    def line(self) -> bytes | None:
        """The answer, if one is expected."""
        if self.id is None:
            return None
        error = json.dumps({"code": self.code, "message": self.why})
        return f'{{"jsonrpc":"2.0","id":{self.id},"error":{error}}}'.encode()


@dataclass(frozen=True, slots=True)
class Frame:
    """What a line held: a message, faults (several for a batch), or a message with a bad text in it."""

    message: Message | None = None
    faults: tuple[Fault, ...] = ()
    remark: str | None = None


def read_frame(line: bytes) -> Frame:
    """The content of *line*; nothing in it makes this raise."""
    # What is not UTF-8 becomes lone surrogates, so one bad text does not spoil the whole line.
    text = line.removeprefix(_BOM).decode("utf-8", "surrogateescape").strip()
    if not text:
        return Frame()
    try:
        value: JsonValue = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_no_name_twice)
        bad = unencodable(value)
    except _NotARequest as error:
        return _unreadable(text, t.INVALID_REQUEST, str(error))
    except json.JSONDecodeError as error:
        return _unreadable(text, t.PARSE_ERROR, f"The line is not JSON: {error.msg} at character {error.pos + 1}.")
    except ValueError:
        return _unreadable(text, t.PARSE_ERROR, "The line holds a number that is too large, or NaN or Infinity.")
    except RecursionError:
        return _unreadable(text, t.PARSE_ERROR, "The line is nested too deeply.")
    if isinstance(value, list):
        why = "Batches are not supported. Send each request as a line of its own."
        requests = [member for member in value if isinstance(member, dict)]
        waiting = [_id_of(request) for request in requests if "method" in request and "id" in request]
        return Frame(faults=tuple(Fault(t.INVALID_REQUEST, why, which) for which in waiting or [None]))
    if not isinstance(value, dict):
        return Frame(faults=(Fault(t.INVALID_REQUEST, "A message must be a JSON object.", None),))
    if "method" not in value and ("result" in value or "error" in value):
        return _response(value)
    return _request(value, bad)


def too_long(start: bytes, end: bytes, most_bytes: int) -> Frame:
    """The refusal of a line of which only *start* and *end* were read."""
    text = start.decode("utf-8", "surrogateescape")
    tail = end.decode("utf-8", "surrogateescape")
    fault = Fault(
        t.INVALID_REQUEST,
        f"The line is longer than {most_bytes // 2**20} MiB. Give large pictures and videos as a path or an https URL.",
        next(reversed(_ids_in(text)), None) or _id_at_the_end(tail),
    )
    return Frame(faults=(fault,))


def malformed(error: ValidationError) -> str | None:
    """What is wrong with the params of a request; None where *error* is about something else."""
    for found in error.errors(include_url=False, include_context=False):
        if found["loc"][:1] == ("params",):
            # Without the names of the SDK's classes.
            parts = [str(part) for part in found["loc"] if not str(part)[:1].isupper()]
            where = showable(".".join(parts))[:200]
            what = _MALFORMED.get(found["type"], "is not what this method takes")
            return f"{where} {what}.{_EMPTY_OF_PHP if found['input'] == [] else ''}"
    return None


_MALFORMED: Final = {
    "missing": "is missing",
    "dict_type": "is not an object",
    "model_type": "is not an object",
    "string_type": "is not a text",
}


def _request(message: dict[str, Any], bad: str | None) -> Frame:
    which = _id_of(message) if "id" in message else None
    number = message.get("id")
    if isinstance(number, float) and number.is_integer():
        # JSON does not tell 1.0 from 1: to the MCP schema it is an integer.
        message["id"] = int(number)
    params = message.get("params")
    in_arguments = (
        bad is not None and message.get("method") == "tools/call" and re.match(r"params\.arguments\b", bad) is not None
    )
    why = None
    if message.get("jsonrpc") != "2.0":
        why = 'A message needs "jsonrpc": "2.0".'
    elif "id" in message and (isinstance(message["id"], bool) or not isinstance(message["id"], str | int)):
        why = "An id must be a text or a whole number."
    elif not isinstance(message.get("method"), str):
        why = "A request needs its method as a text."
    elif not isinstance(params, dict | None):
        hint = _EMPTY_OF_PHP if params == [] else ""
        why = f"params must be an object, with the arguments by name.{hint}"
    elif bad is not None and not in_arguments:
        why = f"The text of {bad} is not Unicode: it holds half a character, or bytes that are not UTF-8."
    if why is None:
        try:
            kind = t.JSONRPCRequest if "id" in message else t.JSONRPCNotification
            return Frame(
                kind.model_validate(message, by_name=False), remark=f"the text of {bad} is not Unicode" if bad else None
            )
        except ValidationError:
            why = "The message is not a request."
    return Frame(faults=(Fault(t.INVALID_REQUEST, why, which),))


def _response(message: dict[str, Any]) -> Frame:
    kind = t.JSONRPCResponse if "result" in message else t.JSONRPCError
    result = message.get("result")
    if isinstance(result, dict) and "action" in result:
        # Our form has no fields: what is sent as its content means nothing, and PHP sends a list.
        result = cast("dict[str, Any]", result)
        message["result"] = {name: value for name, value in result.items() if name != "content"}
    try:
        return Frame(kind.model_validate(showable(message), by_name=False))
    except ValidationError:
        return _unreadable_response(message.get("id"), "The answer to a request of ours cannot be read.")


def _unreadable_response(which: object, why: str) -> Frame:
    """A response is not answered; but the code here that waits for it gets an error."""
    fault = Fault(t.PARSE_ERROR, why, None)
    if not isinstance(which, str | int) or isinstance(which, bool):
        return Frame(faults=(fault,))
    error = t.ErrorData(code=fault.code, message=why)
    return Frame(t.JSONRPCError(jsonrpc="2.0", id=which, error=error), (fault,))


def _unreadable(text: str, code: int, why: str) -> Frame:
    head = text[:_SCANNED_CHARACTERS]
    names = _names_in(head)
    ids = _ids_in(head)
    if not ids and text[0] not in "{[":
        # The rest of a message that a raw line break cut in two.
        ids = [which] if (which := _id_at_the_end(text[-1000:])) else []
    if ids and "method" not in names and names & {"result", "error"}:
        # Ours are short: a long number would not be one that Python reads.
        return _unreadable_response(json.loads(ids[-1]) if len(ids[-1]) < 100 else None, why)
    waiting = ids if text[0] == "[" else ids[-1:]
    return Frame(faults=tuple(Fault(code, why, which) for which in waiting or [None]))


def _members(text: str) -> list[tuple[str, int]]:
    """The names in the outermost object, or in each object of the outermost list, and where their values begin."""
    depth, top = 0, 2 if text.startswith("[") else 1
    found: list[tuple[str, int]] = []
    for token in _TOKEN.finditer(text):
        if token["open"]:
            break
        if token["bracket"]:
            depth += 1 if token["bracket"] in "{[" else -1
        elif depth == top and (colon := _COLON.match(text, token.end())):
            found.append((token["text"], colon.end()))
    return found


def _names_in(text: str) -> set[str]:
    return {name for name, _ in _members(text)}


def _ids_in(text: str) -> list[str]:
    """The ids in a text that is not JSON, each as JSON text."""
    ids: list[str] = []
    for name, begin in _members(text):
        if name != "id":
            continue
        value = _VALUE.match(text, begin)
        if value is None:
            # Cut off, or not a valid id.
            if re.match(r"[^,}]*[,}]", text[begin : begin + 1000]):
                ids.append("null")
        elif value["number"] and len(value["number"]) <= _LONGEST_ID:
            ids.append(value["number"])
        elif value["text"]:
            try:
                ids.append(json.dumps(json.loads(value["text"], strict=False)))
            except ValueError:
                ids.append("null")
    return ids


def _id_at_the_end(text: str) -> str | None:
    found = _AT_THE_END.search(text)
    return found[1] if found else None


def _id_of(message: dict[str, Any]) -> str:
    which = message["id"]
    if isinstance(which, bool) or not isinstance(which, str | int | float) or which in {inf, -inf}:
        return "null"
    return json.dumps(which)


class _NotARequest(ValueError):
    """JSON that is ambiguous as a message."""


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _NotARequest(f"The message has {json.dumps(twice[:60])} twice in one object.")
    return members


def _no_constant(_: str) -> None:
    raise ValueError
