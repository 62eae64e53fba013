"""
Derives an endpoint file from fal.ai's OpenAPI document of the endpoint and its list price.

Which argument a field of fal.ai's is, and of which kind, is in ``fields.json``. A field that is not there stays an
argument under fal.ai's own name, with its type, values, range and default. Nothing here does I/O.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ConfigDict

from kling_mcp.catalog.models import ArgumentKind, CatalogError, Endpoint, JobTool, Mode, read_endpoint
from kling_mcp.catalog.openapi import DocumentError, Json, Schema, is_number, read_document
from kling_mcp.catalog.values import span
from kling_mcp.json_types import items_of, members_of
from kling_mcp.texts import clean

if TYPE_CHECKING:
    from collections.abc import Iterable
    from decimal import Decimal

__all__ = ["DeriveError", "Derived", "ListPrice", "derive", "media_limit_names", "plain_id"]

_ORDER: Final = 1000
"""After every bundled endpoint, so that none that is added is the default of a mode."""

_BUNDLED_OWNER: Final = "fal-ai/kling-video/"
_ID: Final = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)*(?:/[a-z0-9]+(?:[.-][a-z0-9]+)*){1,7}")
_LONGEST_ID: Final = 120
_ADDRESS: Final = re.compile(r"https://(?:(?:www\.)?fal\.ai/models|queue\.fal\.run|fal\.run)/")
_LONGEST_SECONDS: Final = 600
_FEW: Final = 8
_LONGEST_TITLE: Final = 80
_MEDIA: Final[tuple[ArgumentKind, ...]] = ("picture", "video", "audio")


class DeriveError(ValueError):
    """No endpoint file can be derived; the message is one line that says why, and what would work."""


@dataclass(frozen=True, slots=True)
class ListPrice:
    """fal.ai's list price of one unit of an endpoint."""

    amount: Decimal
    unit: str
    currency: str


@dataclass(frozen=True, slots=True)
class Derived:
    """
    An endpoint file, and what is to be said of it.

    Attributes:
        data: The file.
        endpoint: What the program reads from it.
        understood: Arguments with names of this program, each with fal.ai's where that differs.
        own: Arguments under fal.ai's own names, each with what it takes.
        left_out: Fields that cannot be given, each with the reason.
        unknown: What neither document nor price says.

    """

    data: Json
    endpoint: Endpoint
    understood: tuple[str, ...]
    own: tuple[str, ...]
    left_out: tuple[str, ...]
    unknown: tuple[str, ...]


def derive(
    endpoint_id: str,
    document: Mapping[str, object],
    price: ListPrice | None,
    *,
    as_of: str,
    title: str | None = None,
) -> Derived:
    """
    The file of the endpoint *endpoint_id*.

    Args:
        endpoint_id: As ``plain_id`` gives it.
        document: fal.ai's OpenAPI document of the endpoint.
        price: Its list price, if there is one.
        as_of: The day on which fal.ai was asked, as an ISO date.
        title: What fal.ai calls the endpoint.

    Raises:
        DeriveError: no file can be made.

    """
    try:
        request, result = read_document(endpoint_id, document)
    except DocumentError as reason:
        raise DeriveError(f"{endpoint_id} was not understood. {reason}") from None
    known, model = _mode(endpoint_id, request, result)
    made = _made(endpoint_id, known.mode, result)
    arguments = _Arguments(known.mode)
    arguments.fill(request)
    billed = _billed(known.mode, arguments)
    prices, priceless = _prices(price, as_of, counted=bool(billed) or "length" in arguments.kinds)
    sound = _sound(arguments.kinds) if made == "video" else "none"
    rules = _rules(arguments.data, arguments.own_names)
    _require_by_tool(rules, arguments.data)
    rules += _unpriced_videos(known.mode, arguments.data)
    data: Json = {
        "model": model,
        "endpoint_id": endpoint_id,
        "title": clean(title, _LONGEST_TITLE) or model,
        "summary": "Added from fal.ai's OpenAPI document.",
        "mode": known.mode,
        **({"when": known.when} if known.when else {}),
        "order": _ORDER,
        "sound": sound,
        **({} if made == "video" else {"result": made}),
        "arguments": arguments.data,
        "rules": rules,
        "limits": arguments.limits,
        **({"billed": billed} if billed else {}),
        "prices": prices,
        "tiers_known": False,
        "timing": None,
        "input_schema": request.checked,
        "output_schema": result.checked,
        "sources": [f"fal.ai's OpenAPI document of this endpoint, {as_of}"],
        "conflicts": [],
        "notes": [],
    }
    unknown = [*_unknown(sound, known.mode, priced=bool(prices)), *priceless]
    data["notes"] = [f"Not known: {one}" for one in unknown]
    try:
        endpoint = read_endpoint(json.dumps(data).encode(), "it")
    except CatalogError as error:
        raise DeriveError(f"{endpoint_id} was not understood: {clean(str(error), 200)}.") from None
    left_out = tuple(f"{name}: {reason}" for name, reason in request.left_out.items())
    return Derived(data, endpoint, tuple(arguments.understood), tuple(arguments.own), left_out, tuple(unknown))


def plain_id(text: str) -> str:
    """
    The endpoint id in *text*, which may be the address of the endpoint's page.

    Raises:
        DeriveError: it is no endpoint id.

    """
    name = _ADDRESS.sub("", text.strip(), count=1).split("?")[0].strip("/").removesuffix("/api")
    if len(name) > _LONGEST_ID or not _ID.fullmatch(name):
        raise DeriveError(
            f"{clean(text, 80)!r} is not the id of an endpoint. An id is like "
            "fal-ai/kling-video/v3/pro/image-to-video; fal.ai shows it at the top of the endpoint's page."
        )
    return name


# ---- the table


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Field(_Entry):
    """
    What a field of fal.ai's is here.

    Attributes:
        kinds: Tried in order.
        modes: In which it is that; all, if none is named.
        tools: The tools that take it, in modes where not all do.
        described: The description in some modes.
        stands_for: The argument in whose place it can be given.
        items: What is inside.

    """

    argument: str
    kinds: tuple[ArgumentKind, ...]
    description: str
    many: bool = False
    modes: tuple[Mode, ...] = ()
    tools: Mapping[Mode, tuple[JobTool, ...]] = {}
    described: Mapping[Mode, str] = {}
    send_default_with: str = ""
    stands_for: str = ""
    items: Mapping[str, _Field] = {}


class _Known(_Entry):
    """
    A mode, and which endpoints have it.

    Attributes:
        part_of_id: What their id has; empty for endpoints that are known by their inputs.
        needs: The arguments that the tools of the mode need; of endpoints that are known by their inputs, also the
            only media that are required.
        when: The argument that tells them from others of the mode.
        inputs: In words, what is needed.

    """

    mode: Mode
    part_of_id: str = ""
    needs: tuple[str, ...]
    when: str = ""
    inputs: str = ""


class _Table(_Entry):
    modes: tuple[_Known, ...]
    fields: Mapping[str, _Field]
    reserved: frozenset[str]
    media: Mapping[ArgumentKind, frozenset[str]]
    media_limits: Mapping[str, str]
    rules: tuple[Mapping[str, object], ...]
    billed: Mapping[Mode, tuple[str, ...]]
    longest_unknown_seconds: int
    units: Mapping[str, frozenset[str]]


@cache
def _table() -> _Table:
    return _Table.model_validate_json(Path(__file__).with_name("fields.json").read_bytes())


def media_limit_names() -> Mapping[str, str]:
    """fal.ai's names of media limits in a schema's ``x-fal``, and the catalog's."""
    return _table().media_limits


# ---- modes


def _mode(endpoint_id: str, request: Schema, result: Schema) -> tuple[_Known, str]:
    """The mode of an endpoint, and the name of its model."""
    parts = endpoint_id.removeprefix(_BUNDLED_OWNER)
    for known in _table().modes:
        if not known.part_of_id:
            continue
        rest = re.sub(rf"(?:^|/){re.escape(known.part_of_id)}(?=/|$)", "", parts, count=1)
        if rest == parts:
            continue
        there = _argument_names(request, known.mode)
        lacking = [name for name in known.needs if name not in there]
        if lacking:
            raise DeriveError(
                f"{endpoint_id} has no input that could be {' or '.join(lacking)}, which {known.mode} needs. Its "
                f"inputs are {', '.join(request.members)}."
            )
        return known, (rest.strip("/") or known.mode).replace("/", "-")
    return _mode_by_inputs(endpoint_id, request), parts.replace("/", "-")


def _mode_by_inputs(endpoint_id: str, request: Schema) -> _Known:
    """The mode of an endpoint whose id names none."""
    by_inputs = [known for known in _table().modes if known.inputs]
    media = {name for name in request.required if _guessed(name, request.members[name].each) in _MEDIA}
    for known in by_inputs:
        there = _argument_names(request, known.mode)
        needed = {there.get(name, "") for name in known.needs}
        single = {
            name for name in needed if name in request.members and _guessed(name, request.members[name]) in _MEDIA
        }
        if "" not in needed and single <= media <= needed:
            return known
    would = "; ".join(f"{known.inputs} ({known.mode})" for known in by_inputs)
    raise DeriveError(
        f"The id {endpoint_id} names no known mode, and its required inputs ({', '.join(sorted(request.required))}) "
        f"fit none. An endpoint can be added that takes one of: {would}."
    )


def _argument_names(request: Schema, mode: Mode) -> Mapping[str, str]:
    """The arguments that the fields of *request* are or stand for, each with fal.ai's name."""
    claims = _claims(request, _table().fields, mode)
    found = {entry.stands_for: name for name, (entry, _) in claims.items() if entry.stands_for}
    return found | {entry.argument: name for name, (entry, _) in claims.items()}


def _made(endpoint_id: str, mode: Mode, result: Schema) -> str:
    """What a job makes: a video or a voice."""
    if mode == "create-voice":
        if [name for name in result.required if result.members[name].type == "string"]:
            return "voice"
        raise DeriveError(f"{endpoint_id} answers with no id of a voice; its results are {', '.join(result.members)}.")
    video = result.members.get("video")
    if video is None or "url" not in video.members:
        raise DeriveError(
            f"{endpoint_id} answers with no video, so its result could not be saved; its results are "
            f"{', '.join(result.members)}. An endpoint can be added whose result has video.url."
        )
    return "video"


# ---- kinds


def _is_of_kind(kind: ArgumentKind, schema: Schema) -> bool:
    """Whether values of *schema* can be read as *kind*."""
    match kind:
        case "picture" | "video" | "audio" | "https_url" | "text" | "voice":
            return schema.type == "string" and not schema.values
        case "choice":
            return bool(schema.values) and schema.type in {"string", "integer", "number"}
        case "number":
            return schema.type in {"integer", "number"} and not schema.values
        case "sound" | "keep_sound":
            return schema.type == "boolean" and isinstance(schema.default, bool)
        case "flag":
            return schema.type == "boolean" and not schema.values
        case "length":
            return bool(_lengths(schema))
        case "object" | "shot":
            return schema.type == "object" and bool(schema.members)
        case "json":
            return True


def _lengths(schema: Schema) -> tuple[int, ...]:
    """The lengths in seconds that a schema allows; none where it is not a length."""
    if schema.values:
        texts = [str(value) for value in schema.values]
        seconds = tuple(int(text) for text in texts if re.fullmatch(r"[1-9][0-9]{0,2}", text))
        return seconds if len(seconds) == len(texts) and max(seconds) <= _LONGEST_SECONDS else ()
    low, high = schema.checked.get("minimum"), schema.checked.get("maximum")
    if schema.type not in {"integer", "number"} or not (isinstance(low, int) and isinstance(high, int)):
        return ()
    return tuple(range(low, high + 1)) if 0 < low <= high <= _LONGEST_SECONDS else ()


def _guessed(name: str, schema: Schema) -> ArgumentKind:
    """The kind of a value that the table does not have: an address by its name and text, anything else by its type."""
    for kind in _BY_TYPE:
        if _is_of_kind(kind, schema):
            return _kind_of_text(name, schema) if kind == "text" else kind
    return "json"


_BY_TYPE: Final[tuple[ArgumentKind, ...]] = ("choice", "number", "flag", "object", "text")


def _kind_of_text(name: str, schema: Schema) -> ArgumentKind:
    """What a text is: the address of a picture, video or sound, another address, or a text."""
    media: dict[str, ArgumentKind] = {word: kind for kind, words in _table().media.items() for word in words}
    *words, last = name.lower().split("_")
    shown_as = schema.shown_as.lower()
    if last not in {"url", "urls", "uri", "uris"}:
        # What has a longest length is written, whatever it is shown as.
        return media[shown_as] if shown_as in media and "maxLength" not in schema.checked else "text"
    # The word before "url" says what is there, as in video_cover_image_url.
    for word in (*reversed(words), shown_as, *re.findall(r"[a-z]+", schema.said.lower())):
        if word in media:
            return media[word]
    return "https_url"


# ---- arguments


@dataclass(slots=True)
class _Arguments:
    """
    The arguments of one endpoint, as its file has them.

    Attributes:
        data: By name.
        limits: What pictures, videos and sounds may be, by the path of the argument.
        understood: As in ``Derived``.
        own: As in ``Derived``.

    """

    mode: Mode
    data: dict[str, Json] = field(default_factory=dict[str, Json])
    limits: dict[str, Json] = field(default_factory=dict[str, Json])
    understood: list[str] = field(default_factory=list[str])
    own: list[str] = field(default_factory=list[str])

    @property
    def own_names(self) -> list[str]:
        """The arguments under fal.ai's own names."""
        return [said.partition(":")[0] for said in self.own]

    @property
    def kinds(self) -> dict[str, str]:
        """The arguments by their kinds."""
        return {str(argument["kind"]): name for name, argument in self.data.items()}

    def fill(self, request: Schema) -> None:
        """Take the fields of *request*: first those that the table knows, in its order."""
        fields = _table().fields
        known = _claims(request, fields, self.mode)
        for name, (entry, kind) in known.items():
            self.data[entry.argument] = self._known(name, request, entry, kind, entry.argument)
            self.understood.append(entry.argument if entry.argument == name else f"{entry.argument} ({name})")
        ours = {entry.argument for entry in fields.values() if not entry.modes or self.mode in entry.modes}
        for name, schema in request.members.items():
            if name not in known:
                argument = f"fal_{name}" if name in ours | _table().reserved else name
                self.data[argument] = self._own(name, request, argument)
                self.own.append(f"{argument}: {_in_words(str(self.data[argument]['kind']), schema)}")

    def _known(self, name: str, holder: Schema, entry: _Field, kind: ArgumentKind, path: str) -> Json:
        schema = holder.members[name]
        said = f"{entry.described.get(self.mode, entry.description)} {_figures(kind, schema.each)}".strip()
        argument = self._argument(name, holder, kind, said, path)
        if tools := entry.tools.get(self.mode):
            argument["tools"] = list(tools)
        if entry.send_default_with and schema.default is not None:
            argument["send_default_with"] = entry.send_default_with
        if kind in ("object", "shot"):
            argument["items"] = self._items(schema.each, entry.items, path)
        return argument

    def _own(self, name: str, holder: Schema, path: str) -> Json:
        schema = holder.members[name]
        kind = _guessed(name, schema.each)
        said = f"{schema.said or f'{name}, as fal.ai calls it.'} {_figures(kind, schema.each)}".strip()
        argument = self._argument(name, holder, kind, said, path)
        if kind == "object":
            argument["items"] = self._items(schema.each, {}, path)
        return argument

    def _items(self, holder: Schema, fields: Mapping[str, _Field], path: str) -> dict[str, Json]:
        known = _claims(holder, fields, self.mode)
        found = {
            entry.argument: self._known(name, holder, entry, kind, f"{path}.{entry.argument}")
            for name, (entry, kind) in known.items()
        }
        for name in holder.members:
            if name not in known:
                argument = f"fal_{name}" if name in found else name
                found[argument] = self._own(name, holder, f"{path}.{argument}")
        return found

    def _argument(self, name: str, holder: Schema, kind: ArgumentKind, said: str, path: str) -> Json:
        schema = holder.members[name]
        argument: Json = {"field": name, "kind": kind, "description": said}
        if schema.item is not None and kind != "json":
            argument["many"] = True
        if name in holder.required:
            argument["required"] = True
        if kind in _MEDIA and (limits := _limits(schema)):
            self.limits[path] = limits
            argument["limits"] = path
        return argument


def _claims(holder: Schema, fields: Mapping[str, _Field], mode: Mode) -> dict[str, tuple[_Field, ArgumentKind]]:
    """The members of *holder* that *fields* has, with their kinds; of two for one argument, the first of *fields*."""
    found: dict[str, tuple[_Field, ArgumentKind]] = {}
    for name, entry in fields.items():
        schema = holder.members.get(name)
        if schema is None or (entry.modes and mode not in entry.modes) or entry.many is not (schema.item is not None):
            continue
        if entry.argument in {other.argument for other, _ in found.values()}:
            continue
        inside = {kind for _, kind in _claims(schema.each, entry.items, mode).values()}
        for kind in entry.kinds:
            # A shot that lacks a text or a length is an object like any other.
            if _is_of_kind(kind, schema.each) and (kind != "shot" or {"text", "length"} <= inside):
                found[name] = (entry, kind)
                break
    return found


def _in_words(kind: str, schema: Schema) -> str:
    """What a field under fal.ai's own name takes."""
    one, several = _WORDS[kind]
    figures = _figures(kind, schema.each)
    return f"{one if schema.item is None or kind == 'json' else several}. {figures}".strip()


_WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "picture": ("picture", "pictures"),
    "video": ("video", "videos"),
    "audio": ("sound", "sounds"),
    "https_url": ("address", "addresses"),
    "text": ("text", "texts"),
    "number": ("number", "numbers"),
    "choice": ("choice", "choices"),
    "flag": ("true or false", "list of true or false"),
    "object": ("object", "objects"),
    "json": ("any value that fal.ai's schema allows", ""),
}


def _figures(kind: str, schema: Schema) -> str:
    """The values, range and default of a field, in words."""
    checked, default = schema.checked, schema.default
    words = ""
    if kind == "length":
        words = span(_lengths(schema))
    elif kind == "choice":
        values = [str(value) for value in schema.values]
        words = (
            " or ".join(values) if len(values) <= _FEW else f"{', '.join(values[:_FEW])} and {len(values) - _FEW} more"
        )
    elif "minimum" in checked and "maximum" in checked:
        words = f"{checked['minimum']} to {checked['maximum']}"
    elif "maxLength" in checked:
        words = f"up to {checked['maxLength']} characters"
    if isinstance(default, bool):
        default = "on" if default else "off"
    usual = f"default {clean(str(default), _LONGEST_TITLE)}" if default not in (None, "") else ""
    said = f"{words} ({usual})" if words and usual else words or usual
    return f"{said[:1].upper()}{said[1:]}." if said else ""


def _limits(schema: Schema) -> Json:
    """What fal.ai publishes of a picture, video or sound; nothing where it publishes nothing."""
    stated = schema.limits or schema.each.limits
    found: Json = {}
    for name, ours in _table().media_limits.items():
        value = stated.get(name)
        if not is_number(value) or value <= 0:
            continue
        if ours.endswith(("_ratio", "_seconds")) and not ours.startswith("fetch"):
            found[ours] = f"{value:f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
        else:
            # Of 23.9 frames a second, the limit that refuses less.
            found[ours] = math.floor(value) if ours.startswith("min_") else math.ceil(value)
    return {**found, "basis": "fal.ai's OpenAPI document of this endpoint."} if found else {}


# ---- rules and prices


def _rules(arguments: Mapping[str, Json], own: Iterable[str]) -> list[Json]:
    """The rules of the table that are about arguments that are there."""
    # What a reference in a prompt names can be in a list that is not understood.
    all_lists_known = not any(arguments[name].get("many") for name in own)
    found: list[Json] = []
    for known in _table().rules:
        rule = dict(known)
        for name in ("of", "counts"):
            if name in rule:
                rule[name] = [selector for selector in items_of(rule[name]) if _selects(str(selector), arguments)]
        whole = rule["of"] == known["of"] or rule["kind"] not in {"exactly_one", "together"}
        counted = rule.get("counts", True) or all_lists_known
        if whole and rule["of"] and counted and rule.get("argument", "") in ("", *arguments):
            found.append(rule)
    return found


def _require_by_tool(rules: Iterable[Json], arguments: Mapping[str, Json]) -> None:
    """Where one of several is needed, and each belongs to a tool of its own, each is what its tool needs."""
    for rule in rules:
        several = [arguments[str(name)] for name in items_of(rule["of"]) if rule["kind"] == "exactly_one"]
        tools = [tool for argument in several for tool in items_of(argument.get("tools"))]
        if len(tools) == len(set(map(str, tools))) == len(several):
            for argument in several:
                argument["required"] = True


def _selects(selector: str, arguments: Mapping[str, object]) -> bool:
    level = arguments
    for step in selector.split("."):
        argument = members_of(level.get(step.removesuffix("[]")))
        if not argument or (step.endswith("[]") and not argument.get("many")):
            return False
        level = members_of(argument.get("items"))
    return True


def _unpriced_videos(mode: Mode, arguments: Mapping[str, Json]) -> Iterable[Json]:
    """Warnings of videos whose seconds may be billed too."""
    for name, argument in arguments.items():
        if argument["kind"] == "video" and name not in _table().billed.get(mode, ()):
            said = f"What {name} adds to the price is not known: the job may cost more than is held."
            yield {"kind": "given", "of": [name], "level": "warn", "say": said}


def _billed(mode: Mode, arguments: _Arguments) -> list[Json]:
    """What is paid for where the mode is not paid by the length that the call names."""
    inputs = _table().billed.get(mode, ())
    for name in inputs:
        argument = arguments.data[name]
        limits = arguments.limits.setdefault(str(argument.setdefault("limits", name)), {})
        if "max_seconds" not in limits:
            limits["max_seconds"] = str(_table().longest_unknown_seconds)
            limits["inferred"] = True
            limits["basis"] = (
                "fal.ai's document says nothing of the longest; so much is held where it cannot be measured."
            )
    return [{"seconds_of": list(inputs)}] if inputs else []


def _prices(price: ListPrice | None, as_of: str, *, counted: bool) -> tuple[list[Json], list[str]]:
    """The price in the file's form, and why there is none."""
    if price is None:
        return [], ["its list price; it cannot run until its file has one."]
    unit = clean(price.unit, 40).lower()
    said = f"its list price: fal.ai's is {price.amount.normalize():f} {clean(price.currency, 10)} for a unit ({unit})"
    per = next((form for form, units in _table().units.items() if unit in units), None)
    if per is None or price.currency != "USD" or price.amount <= 0:
        return [], [f"{said}, which is not understood; it cannot run until its file has a price."]
    if per == "seconds" and not counted:
        return [], [f"{said}, and its seconds are not known; it cannot run until its file has a price."]
    amount = f"{price.amount.normalize():f}"
    form: Json = {"usd_per_second": {"flat": amount}} if per == "seconds" else {"usd_per_call": amount}
    return [{"as_of": as_of, "source": "fal.ai's list price, from its API", **form}], []


def _sound(kinds: Mapping[str, str]) -> str:
    return "switchable" if "sound" in kinds else "kept" if "keep_sound" in kinds else "unknown"


def _unknown(sound: str, mode: Mode, *, priced: bool) -> Iterable[str]:
    if sound == "unknown":
        yield "whether its videos have sound."
    if priced:
        yield "what sound, resolution or other choices add to the price; twice the list price is held."
    if mode in _table().billed:
        yield "how what it is given is billed; of a video that is edited, its seconds are held twice, in and out."
    yield "how long a job takes."
