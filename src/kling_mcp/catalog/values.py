"""
One value of a call: read by its kind, checked against the endpoint's schema of it, or refused in the caller's words.

Hosts and models differ in how they write a value: numbers and truths as text,
lists and objects as JSON text, and many words for nothing. All of that is
normalised here, for every tool.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import re
import string
import unicodedata
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kling_mcp.catalog.validity import accepts
from kling_mcp.decoders import SHOWS_VIDEOS
from kling_mcp.errors import ArgumentFault, InvalidArguments, UnknownModel
from kling_mcp.ids import job_id_in, unwrapped
from kling_mcp.json_types import is_list, is_object, items_of
from kling_mcp.shown import shorten_data_uris
from kling_mcp.texts import BLANKS, showable

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    from kling_mcp.catalog.models import Argument, ArgumentKind

__all__ = [
    "ValidationReport",
    "also_called",
    "choice",
    "is_given",
    "nearest",
    "normal",
    "nothing",
    "opened",
    "read",
    "refused",
    "seconds_to_wait",
    "show",
    "span",
    "text",
    "truth",
    "whole",
]

_SHOWN_CHARACTERS: Final = 60
_HTTPS: Final = re.compile(r"https://[^\s/@?#]+(?:[/?#]\S*)?", re.IGNORECASE)
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]{1,300}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,2})?")
_NOTHING: Final = frozenset(
    {
        *("", "null", "none", "nil", "undefined", "n/a", "na", "nan", "nat", "not given", "not specified"),
        *("not applicable", "not provided", "not set", "unset", "nonetype", "void 0", "no value", "nullptr", "nothing"),
        *("object object", "dbnull"),
    }
)
"""What programs and models write where nothing was filled in; any case, and any quotes and brackets around."""

_LONGEST_NOTHING: Final = 200
_REPEATED: Final = frozenset({"null", "none", "nil", "undefined", "nan"})
_AROUND_NOTHING: Final = BLANKS + string.punctuation + "\u2013\u2014\u2026\u201c\u201d\u2018\u2019\u00ab\u00bb"
_UNFILLED: Final = re.compile(r"\[object \w+\]|\$?\{\{?\s*[\w.-]+\s*\}?\}|<[\w-]+>|%[\w-]+%")
"""What programs write for an object, and places of a template that nobody filled in."""
_PLAIN_JSON: Final = re.compile(r"-?[0-9][0-9.e+-]*|true|false|null")
# A path or an address that ends as a video's does is looked up among the jobs: jobs/inputs.py.
_VIDEO: Final = re.compile(r"data:\s*video/.*|kling:/*jobs/[^/]+(?:/video/?)?|kj_[\w-]{22}", re.IGNORECASE | re.DOTALL)
_JOB: Final = re.compile(r"kj_[A-Za-z0-9_-]{1,64}")
_LAST_FRAME: Final = re.compile(r"kling:/*jobs/[^/]+/last[-_]frame/?", re.IGNORECASE)
_NAMED: Final[dict[ArgumentKind, str]] = {
    "picture": "an https URL, a path on this machine, a data: URI, or kling://jobs/{job_id}/last-frame"
    if SHOWS_VIDEOS
    else "an https URL, a path on this machine, or a data: URI",
    "https_url": "an https URL",
    "video": "an https URL, a path on this machine, a data: URI, or kling://jobs/{job_id}/video",
    "audio": "an https URL, a path on this machine, or a data: URI",
    "text": "a text",
    "choice": "a text",
    "voice": "a voice id as text",
    "object": "an object",
    "shot": "an object",
}


@cache
def _also_called() -> dict[str, list[str]]:
    """Arguments and values with the names that other programs have for them."""
    return json.loads(Path(__file__).with_name("also_called.json").read_bytes())


@dataclass(slots=True)
class ValidationReport:
    """
    What turned up while a call was read.

    Attributes:
        estimating: Whether what is missing is noted instead of refused.
        missing: Paths of what a real call would need.
        warnings: Sentences for the caller.
        faults: What is wrong.
        ceiling_times: How many times its price the job may cost.
        refusal: The error that they make together.

    """

    estimating: bool
    missing: list[str] = field(default_factory=list[str])
    warnings: list[str] = field(default_factory=list[str])
    faults: list[ArgumentFault] = field(default_factory=list[ArgumentFault])
    ceiling_times: Decimal = Decimal(1)
    refusal: type[InvalidArguments | UnknownModel] = InvalidArguments

    @contextlib.contextmanager
    def noting(self) -> Generator[None]:
        """Collect what is refused inside the block, and go on after it."""
        try:
            yield
        except InvalidArguments as error:
            self.faults += error.faults

    @property
    def faulty(self) -> set[str]:
        """The arguments that something is wrong with."""
        return {re.split(r"[.\[]", fault.path, maxsplit=1)[0] for fault in self.faults if fault.path}


# ---- values that are not given


def is_given(value: object) -> bool:
    """Whether *value* says anything: null, blanks, empty lists and objects, and the words for nothing do not."""
    if isinstance(value, str):
        return not _is_word_for_nothing(value)
    if isinstance(value, float):
        return not math.isnan(value)
    if is_object(value):
        return any(is_given(member) for member in value.values())
    if is_list(value):
        return any(is_given(member) for member in value)
    return value is not None


def nothing(value: object) -> str:
    """How it is said that *value*, which is not given, was sent."""
    blank = isinstance(value, str) and not value.strip(BLANKS)
    if value is None or blank or not any(character.isalpha() for character in show(value)):
        return "is empty"
    return f'is {show(value)}, which programs write for "nothing"'


def _is_word_for_nothing(value: str) -> bool:
    value = value.strip(BLANKS)
    if len(value) > _LONGEST_NOTHING:
        return False
    words = [part.strip(_AROUND_NOTHING).casefold().split() for part in value.split(",")]
    if all(" ".join(some) in _NOTHING or _REPEATED.issuperset(some) for some in words) or _UNFILLED.fullmatch(value):
        return True
    if value[:1] in {"[", "{"}:
        with contextlib.suppress(ValueError, RecursionError):
            return not is_given(json.loads(value))
    return False


# ---- reading


def normal(value: str) -> str:
    """*value* without blanks around it, with one kind of line ends, composed as most programs write it."""
    lines = value.replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", lines).strip(BLANKS)


def opened(argument: Argument, value: object, path: str) -> object:
    """
    The list or object that *value* holds as JSON text, or *value* itself where none is expected.

    Raises:
        InvalidArguments: a list or object is expected, and the text is not JSON.

    """
    if not isinstance(value, str) or not is_given(value) or not (argument.many or argument.items):
        return value
    try:
        return _unpacked(value)
    except (ValueError, RecursionError):
        expected = "a list" if argument.many else "an object"
        raise refused(path, value, f"{expected} is expected", f"Give {expected}. {argument.description}") from None


def _unpacked(value: str) -> object:
    """What JSON text holds, also where it was packed twice."""
    held: object = json.loads(value)
    if isinstance(held, str) and held.lstrip()[:1] in {"[", "{"}:
        return json.loads(held)
    return held


def read(argument: Argument, value: object, path: str, findings: ValidationReport) -> object:
    """
    What *argument* takes from *value*: a text, number, truth, length in whole seconds, object, or list of these.

    What is wrong inside a list or object goes to *findings*.

    Raises:
        InvalidArguments: *value* is not what the endpoint accepts there.

    """
    if not argument.many:
        return _one(argument, value, path, findings)
    if not is_list(value):
        raise refused(path, value, "a list is expected", f"Give a list. {argument.description}")
    found: list[object] = []
    left_out: str | None = None
    for index, member in enumerate(value):
        place = f"{path}[{index}]"
        if not (is_given(member) or (argument.kind == "shot" and is_object(member))):
            left_out = left_out or place
            continue
        if left_out and argument.kind in _NUMBERED:
            # The others would get other numbers in the prompt, or another place in the video.
            findings.faults.append(ArgumentFault(f"{left_out} is empty.", "Leave it out of the list.", left_out))
            left_out = None
        with findings.noting():
            found.append(_one(argument, member, place, findings))
    return found


_NUMBERED: Final = frozenset({"object", "shot", "voice"})


def whole(value: object) -> int | None:
    """The whole number in *value*, also when it comes as a text or as a float such as 5.0; otherwise None."""
    number = _number_in(value)
    return int(number) if number is not None and (isinstance(number, int) or number.is_integer()) else None


def truth(value: object) -> bool | None:
    """True or false, also when it comes as a text; otherwise None."""
    if isinstance(value, str):
        return {"true": True, "false": False}.get(unwrapped(value).casefold())
    return value if isinstance(value, bool) else None


def seconds_to_wait(value: object, path: str, longest: int) -> int:
    """
    The seconds that a call waits: never below 0, never above *longest*.

    Raises:
        InvalidArguments: *value* is no number.

    """
    number = _number_in(value)
    if number is None and isinstance(value, float) and math.isinf(value):
        number = longest if value > 0 else 0
    if number is None:
        raise refused(path, value, "a whole number is expected", f"Allowed: 0 to {longest}.", (f"0 to {longest}",))
    return int(min(max(number, 0), longest))


def text(value: object, path: str, expected: str = "a text", longest: int | None = None) -> str:
    """
    The text in *value*; a number is its digits.

    Raises:
        InvalidArguments: The text is missing, too long, or not valid Unicode.

    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = whole(value)
        value = str(value if number is None else number) if isinstance(value, float) or abs(value) < 10**100 else value
    if not isinstance(value, str):
        raise refused(path, value, f"{expected} is expected", f"Give {expected}.")
    if not is_given(value):
        raise refused(path, value, "it is empty", f"Give {expected}, or leave it out.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise refused(path, value, "it holds half a character", "Send the text as valid Unicode.") from None
    value = normal(value)
    if longest is not None and len(value) > longest:
        raise refused(
            path, value, f"it has {len(value):,} characters", f"Allowed are up to {longest:,}.", (f"up to {longest}",)
        )
    return value


def choice(value: object, path: str, choices: Sequence[str]) -> int:
    """
    Which of *choices* *value* is.

    Raises:
        InvalidArguments: none of them.

    """
    if isinstance(value, str | int) and not isinstance(value, bool):
        spelt = _spelt(str(value)) if isinstance(value, str) or abs(value) < 10**9 else ""
        for index, known in enumerate(choices):
            if spelt == _spelt(known):
                return index
    meant = nearest(value, choices) if isinstance(value, str) else None
    hint = f"The nearest is {meant}. " if meant else ""
    raise refused(
        path, value, "it is not one of the values", f"{hint}Allowed: {', '.join(choices)}.", tuple(choices), meant
    )


# ---- texts for messages


def show(value: object) -> str:
    """*value* as a caller wrote it, short enough for a message."""
    try:
        shown = json.dumps(shorten_data_uris(value), ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        shown = f"of type {type(value).__name__}"
    shown = showable(shown)
    return shown if len(shown) <= _SHOWN_CHARACTERS else shown[: _SHOWN_CHARACTERS - 1] + "…"


def span(lengths: tuple[int, ...]) -> str:
    """The seconds in *lengths* in words: a range where there is no gap."""
    if len(lengths) > 1 and lengths == tuple(range(lengths[0], lengths[-1] + 1)):
        return f"{lengths[0]} to {lengths[-1]}"
    return " or ".join(str(length) for length in lengths)


def also_called(name: str, names: Iterable[str]) -> str | None:
    """The one of *names* that *name* is, or is called elsewhere."""
    known = list(names)
    spelt = _spelt(name)
    if spelt in known:
        return spelt
    return next((meant for meant in known if spelt in _also_called().get(meant, [])), None)


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The one of *names* that *name* may have been meant to be."""
    known = list(names)
    return also_called(name, known) or next(iter(difflib.get_close_matches(_spelt(name), known, n=1, cutoff=0.7)), None)


def refused(
    path: str, value: object, why: str, next_step: str, allowed: tuple[str, ...] = (), meant: str | None = None
) -> InvalidArguments:
    """The refusal of *value* in the place *path*."""
    shown = show(value)
    whole_text = isinstance(value, str) and len(value) <= _SHOWN_CHARACTERS
    kept = value if whole_text or _PLAIN_JSON.fullmatch(shown) else shown
    kept = showable(kept) if isinstance(kept, str) else kept
    return InvalidArguments.of([ArgumentFault(f"{path} is {shown}; {why}.", next_step, path, kept, allowed, meant)])


def _spelt(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[\s-]+", "_", unwrapped(name[:80])).lower()


# ---- kinds


def _one(argument: Argument, value: object, path: str, findings: ValidationReport) -> object:
    match argument.kind:
        case "length":
            return _length(argument, value, path)
        case "sound" | "keep_sound" | "flag":
            return _truth(value, path)
        case "json":
            return _json(argument, value)
        case "video":
            return _video(value, path)
        case "audio":
            return _audio(value, path)
        case "number":
            return _number(argument, value, path)
        case "choice":
            return items_of(argument.value_schema["enum"])[choice(value, path, argument.choices)]
        case "object" | "shot":
            return _object(argument, value, path, findings)
        case "https_url":
            return _https_url(_text(argument, value, path), path)
        case "text":
            return _text(argument, value, path)
        case "picture":
            return _picture(argument, value, path)
        case "voice":
            return unwrapped(_text(argument, value, path))


def _text(argument: Argument, value: object, path: str) -> str:
    limit = argument.value_schema.get("maxLength")
    return text(value, path, _NAMED[argument.kind], limit if isinstance(limit, int) else None)


def _address(value: object, path: str, expected: str) -> str:
    """The URL, path, ``data:`` URI or resource in *value*."""
    if not isinstance(value, str) or not is_given(value):
        raise refused(path, value, f"{expected} is expected", f"Give {expected}.")
    text(value, path)
    # Not composed: a path is the bytes of a name.
    address = unwrapped(value)
    return address if re.match(r"(?:https?|data|kling):", address, re.IGNORECASE) else value.strip()


def _video(value: object, path: str) -> str:
    given = _address(value, path, _NAMED["video"])
    if _LAST_FRAME.fullmatch(given):
        meant = f"kling://jobs/{job_id_in(given)}/video"
        raise refused(
            path, value, "this is a picture, and a video is expected", f"{meant} is that job's video.", meant=meant
        )
    if given.lower().startswith("data:image/"):
        raise refused(path, value, "this is a picture, and a video is expected", f"Give {_NAMED['video']}.")
    if not given.lower().startswith("data:") and _VIDEO.fullmatch(given):
        return f"kling://jobs/{job_id_in(given)}/video"
    return given


def _audio(value: object, path: str) -> str:
    given = _address(value, path, _NAMED["audio"])
    if _LAST_FRAME.fullmatch(given) or given.lower().startswith("data:image/"):
        raise refused(path, value, "this is a picture, and sound is expected", f"Give {_NAMED['audio']}.")
    return given


def _picture(argument: Argument, value: object, path: str) -> str:
    given = _address(value, path, _NAMED[argument.kind])
    if _LAST_FRAME.fullmatch(given):
        return f"kling://jobs/{job_id_in(given)}/last-frame"
    if _VIDEO.fullmatch(given):
        job = _JOB.search(given)
        frame = f"kling://jobs/{job[0] if job else '{job_id}'}/last-frame"
        step = (
            f"{frame} is the last frame of {'that job' if job else 'a finished job, if this is its video'}; "
            "of any other video, a frame of it as a picture works."
        )
        raise refused(
            path,
            value,
            "this is a video, and a picture is expected",
            step if SHOWS_VIDEOS else "A frame of it, saved as a picture, works.",
            meant=frame if job and SHOWS_VIDEOS else None,
        )
    return given


def _https_url(value: str, path: str) -> str:
    address = unwrapped(value)
    if not _HTTPS.fullmatch(address):
        # fal.ai fetches a video itself; only pictures are uploaded from here.
        raise refused(path, value, "an https URL is expected", "Give an https URL that fal.ai can fetch.")
    return address


def _json(argument: Argument, value: object) -> object:
    """*value*, or what it holds as JSON text where the endpoint takes that and not the text."""
    if isinstance(value, str) and not accepts(argument.value_schema, value):
        with contextlib.suppress(ValueError, RecursionError):
            held = _unpacked(value)
            return held if accepts(argument.value_schema, held) else value
    return value


def _length(argument: Argument, value: object, path: str) -> int:
    seconds = whole(value)
    allowed = f"{span(argument.lengths)} seconds"
    if seconds is None:
        raise refused(path, value, "a whole number of seconds is expected", f"Allowed: {allowed}.", argument.choices)
    if seconds not in argument.lengths:
        closest = str(min(argument.lengths, key=lambda length: abs(length - seconds)))
        raise refused(path, value, "this length is not accepted", f"Allowed: {allowed}.", argument.choices, closest)
    return seconds


def _truth(value: object, path: str) -> bool:
    found = truth(value)
    if found is None:
        raise refused(path, value, "true or false is expected", "Give true or false.", ("true", "false"))
    return found


def _number(argument: Argument, value: object, path: str) -> int | float:
    number = _number_in(value)
    lowest, highest = argument.value_schema.get("minimum"), argument.value_schema.get("maximum")
    allowed = tuple(
        f"{word} {bound}" for word, bound in (("at least", lowest), ("at most", highest)) if bound is not None
    )
    wanted = f"a number {' and '.join(allowed)}".rstrip()
    if number is None:
        raise refused(path, value, "a number is expected", f"Give {wanted}.", allowed)
    below = isinstance(lowest, int | float) and number < lowest
    above = isinstance(highest, int | float) and number > highest
    if below or above:
        raise refused(path, value, "this is out of range", f"Give {wanted}.", allowed)
    return number


def _number_in(value: object) -> int | float | None:
    if isinstance(value, str):
        digits = unwrapped(value)
        return float(digits) if _NUMBER.fullmatch(digits) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if isinstance(value, int) or math.isfinite(value) else None


def _object(argument: Argument, value: object, path: str, findings: ValidationReport) -> dict[str, object]:
    names = ", ".join(argument.items)
    if isinstance(value, str):
        with contextlib.suppress(ValueError, RecursionError):
            value = _unpacked(value)
    if not is_object(value):
        raise refused(path, value, "an object is expected", f"Give an object with {names}.", tuple(argument.items))
    findings.faults += [
        _unknown_item(argument, name, value[name], path) for name in value if name not in argument.items
    ]
    found: dict[str, object] = {}
    for name, item in argument.items.items():
        place = f"{path}.{name}"
        with findings.noting():
            member = opened(item, value.get(name), place)
            if is_given(member):
                found[name] = read(item, member, place, findings)
            elif item.required and findings.estimating:
                findings.missing.append(place)
            elif item.required:
                state = nothing(member) if str(member or "").strip() else "is missing"
                raise InvalidArguments(f"{place} {state}.", f"Give it: {item.description}", field=place)
            elif item.kind == "length":
                found[name] = int(str(item.default))
    return found


def _unknown_item(argument: Argument, name: str, value: object, path: str) -> ArgumentFault:
    meanings = {item.field: item.name for item in argument.items.values()} | {name: name for name in argument.items}
    meant = meanings.get(nearest(name, meanings) or "")
    hint = f"The nearest is {meant}. " if meant else ""
    return ArgumentFault(
        f"{path} has no {name[:40]!r} (given as {show(value)}).",
        f"{hint}Allowed: {', '.join(argument.items)}.",
        showable(f"{path}.{name[:40]}"),
        show(value),
        tuple(argument.items),
        meant,
    )
