"""
One value of a call: read by its kind, checked against the endpoint's schema of it, or refused in the caller's words.

Hosts differ in what they send for an argument that was left out (nothing,
null, an empty text or list) and some send lists and objects as JSON text; both
are evened out here.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast

from kling_mcp.errors import InvalidArguments

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kling_mcp.catalog.endpoint import Argument, ArgumentKind

__all__ = ["Findings", "is_given", "nearest", "opened", "read", "show", "span", "whole"]

_SHOWN_CHARACTERS: Final = 60
_HTTPS: Final = re.compile(r"https://[^\s/@?#]+(?:[/?#]\S*)?", re.IGNORECASE)
_NAMED: Final[dict[ArgumentKind, str]] = {
    "picture": "an https URL, a path on this machine, a data: URI, or kling://jobs/{job_id}/last-frame",
    "https_url": "an https URL",
    "text": "a text",
    "choice": "a text",
    "voice": "a voice id as text",
    "object": "an object",
    "shot": "an object",
}


@dataclass(slots=True)
class Findings:
    """
    What turned up on the way that is no refusal.

    Attributes:
        estimating: Whether what is missing is noted instead of refused.
        missing: Paths of what a real call would need.
        warnings: Sentences for the caller.

    """

    estimating: bool
    missing: list[str] = field(default_factory=list[str])
    warnings: list[str] = field(default_factory=list[str])


def is_given(value: object) -> bool:
    """Whether *value* says anything: null, blank text and an empty list count as left out."""
    return bool(value.strip()) if isinstance(value, str) else value is not None and value != []


def opened(argument: Argument, value: object, path: str) -> object:
    """
    The list or object that *value* holds as JSON text, or *value* itself where none is expected.

    Raises:
        InvalidArguments: a list or object is expected, and the text is not JSON.

    """
    if not isinstance(value, str) or not is_given(value) or not (argument.many or argument.items):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        expected = "a list" if argument.many else "an object"
        raise _refused(path, value, f"{expected} is expected", f"Give {expected}. {argument.description}") from None


def read(argument: Argument, value: object, path: str, findings: Findings) -> object:
    """
    What *argument* takes from *value*: a text, number, truth, length in whole seconds, object, or list of these.

    Raises:
        InvalidArguments: *value* is not what the endpoint accepts there.

    """
    if not argument.many:
        return _one(argument, value, path, findings)
    if not isinstance(value, list):
        raise _refused(path, value, "a list is expected", f"Give a list. {argument.description}")
    members = cast("list[object]", value)
    return [_one(argument, member, f"{path}[{index}]", findings) for index, member in enumerate(members)]


def whole(value: object) -> int | None:
    """The whole number in *value*, also when it comes as a text or as a float such as 5.0; otherwise None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        digits = value.strip()
        return int(digits) if re.fullmatch(r"-?[0-9]{1,9}", digits) else None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) else None


def show(value: object) -> str:
    """*value* as a caller wrote it, short enough for a message."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = f"of type {type(value).__name__}"
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def span(lengths: tuple[int, ...]) -> str:
    """The seconds in *lengths* in words: a range where there is no gap."""
    if len(lengths) > 1 and lengths == tuple(range(lengths[0], lengths[-1] + 1)):
        return f"{lengths[0]} to {lengths[-1]} seconds"
    return f"{', '.join(str(length) for length in lengths)} seconds"


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The one of *names* that *name* may have been meant to be."""
    spelt = re.sub(r"(?<=[a-z])(?=[A-Z])|[\s-]+", "_", name[:80]).lower()
    return next(iter(difflib.get_close_matches(spelt, list(names), n=1, cutoff=0.5)), None)


def _one(argument: Argument, value: object, path: str, findings: Findings) -> object:
    match argument.kind:
        case "length":
            return _length(argument, value, path)
        case "audio":
            return _truth(value, path)
        case "number":
            return _number(argument, value, path)
        case "choice":
            return _choice(argument, value, path)
        case "object" | "shot":
            return _object(argument, value, path, findings)
        case "https_url":
            return _https_url(_text(argument, value, path), path)
        case "text":
            return _text(argument, value, path)
        case "picture" | "voice":
            return _text(argument, value, path).strip()


def _text(argument: Argument, value: object, path: str) -> str:
    expected = _NAMED[argument.kind]
    if not isinstance(value, str):
        raise _refused(path, value, f"{expected} is expected", f"Give {expected}.")
    if not is_given(value):
        raise _refused(path, value, "it is empty", f"Give {expected}, or leave it out.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _refused(path, value, "it holds half a character", "Send the text as valid Unicode.") from None
    limit = argument.schema.get("maxLength")
    if isinstance(limit, int) and len(value) > limit:
        raise _refused(
            path, value, f"it has {len(value):,} characters", f"Allowed are up to {limit:,}.", (f"up to {limit}",)
        )
    return value


def _https_url(value: str, path: str) -> str:
    address = value.strip()
    if not _HTTPS.fullmatch(address):
        # fal.ai fetches a video itself; only pictures are uploaded from here.
        raise _refused(path, value, "an https URL is expected", "Give an https URL that fal.ai can fetch.")
    return address


def _length(argument: Argument, value: object, path: str) -> int:
    seconds = whole(value)
    allowed = span(argument.lengths)
    if seconds is None:
        raise _refused(path, value, "a whole number of seconds is expected", f"Allowed: {allowed}.", argument.choices)
    if seconds not in argument.lengths:
        raise _refused(path, value, "this length is not accepted", f"Allowed: {allowed}.", argument.choices)
    return seconds


def _truth(value: object, path: str) -> bool:
    if not isinstance(value, bool):
        raise _refused(path, value, "true or false is expected", "Give true or false.", ("true", "false"))
    return value


def _number(argument: Argument, value: object, path: str) -> int | float:
    number = _parsed_number(value)
    lowest, highest = argument.schema.get("minimum"), argument.schema.get("maximum")
    allowed = tuple(
        f"{word} {bound}" for word, bound in (("at least", lowest), ("at most", highest)) if bound is not None
    )
    wanted = f"a number {' and '.join(allowed)}".rstrip()
    if number is None:
        raise _refused(path, value, "a number is expected", f"Give {wanted}.", allowed)
    below = isinstance(lowest, int | float) and number < lowest
    above = isinstance(highest, int | float) and number > highest
    if below or above:
        raise _refused(path, value, "this is out of range", f"Give {wanted}.", allowed)
    return number


def _parsed_number(value: object) -> int | float | None:
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,9}(\.[0-9]{1,9})?", value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if isinstance(value, int) or math.isfinite(value) else None


def _choice(argument: Argument, value: object, path: str) -> object:
    choices = argument.choices
    members = cast("list[object]", argument.schema["enum"])
    if isinstance(value, str | int) and str(value).strip() in choices:
        return members[choices.index(str(value).strip())]
    meant = nearest(value, choices) if isinstance(value, str) else None
    hint = f"The nearest is {meant}. " if meant else ""
    raise _refused(path, value, "it is not one of the values", f"{hint}Allowed: {', '.join(choices)}.", choices)


def _object(argument: Argument, value: object, path: str, findings: Findings) -> dict[str, object]:
    names = ", ".join(argument.items)
    if isinstance(value, str):
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(value)
    if not isinstance(value, Mapping):
        raise _refused(path, value, "an object is expected", f"Give an object with {names}.", tuple(argument.items))
    members = cast("Mapping[str, object]", value)
    for name in members:
        if name not in argument.items:
            raise _unknown_item(argument, name, members[name], path)
    found: dict[str, object] = {}
    for name, item in argument.items.items():
        place = f"{path}.{name}"
        member = opened(item, members.get(name), place)
        if is_given(member):
            found[name] = read(item, member, place, findings)
        elif item.required and findings.estimating:
            findings.missing.append(place)
        elif item.required:
            raise InvalidArguments(f"{place} is missing.", f"Give it: {item.description}", field=place)
        elif item.kind == "length":
            found[name] = int(str(item.schema["default"]))
    return found


def _unknown_item(argument: Argument, name: str, value: object, path: str) -> InvalidArguments:
    meanings = {item.field: item.name for item in argument.items.values()} | {name: name for name in argument.items}
    key = nearest(name, meanings)
    hint = f"The nearest is {meanings[key]}. " if key else ""
    return InvalidArguments(
        f"{path} has no {name[:40]!r} (given as {show(value)}).",
        f"{hint}Allowed: {', '.join(argument.items)}.",
        field=f"{path}.{name[:40]}",
        allowed=tuple(argument.items),
    )


def _refused(path: str, value: object, why: str, next_step: str, allowed: tuple[str, ...] = ()) -> InvalidArguments:
    return InvalidArguments(f"{path} is {show(value)}; {why}.", next_step, field=path, allowed=allowed)
