"""
The endpoints, read from one JSON file each.

A file holds all there is to know about an endpoint: fal.ai's schemas, how
the tools' arguments become fal.ai's fields, the rules across fields, picture
limits, dated prices, timing and sources. It is parsed here once into frozen
values that cannot be built wrong; no field name, enum, default, range or price
stands in Python, so a new Kling version is a new file.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, TypeVar, cast, get_args

from kling_mcp.errors import ArgumentFault, UnknownModel
from kling_mcp.ids import unwrapped
from kling_mcp.texts import showable

__all__ = [
    "Argument",
    "ArgumentKind",
    "Catalog",
    "CatalogError",
    "Endpoint",
    "PictureLimits",
    "Price",
    "Rule",
    "RuleKind",
    "Sound",
    "Tier",
    "Timing",
    "Tool",
    "load",
]

Tool: TypeAlias = Literal["image_to_video", "multi_shot_video", "estimate_cost"]
Mode: TypeAlias = Literal["image-to-video"]
Sound: TypeAlias = Literal["switchable", "always", "none"]
Tier: TypeAlias = Literal["flat", "audio_off", "audio_on", "voice_control"]
Level: TypeAlias = Literal["refuse", "warn"]
ArgumentKind: TypeAlias = Literal[
    "picture", "https_url", "text", "number", "audio", "choice", "length", "voice", "object", "shot"
]
RuleKind: TypeAlias = Literal[
    "exactly_one", "count", "together", "text_length", "needs", "reference", "given", "one_group"
]
Schema: TypeAlias = Mapping[str, object]

_BUNDLED: Final = Path(__file__).with_name("endpoints")
_MODES: Final[tuple[Mode, ...]] = get_args(Mode)
_SOUNDS: Final[tuple[Sound, ...]] = get_args(Sound)
_TIERS: Final[tuple[Tier, ...]] = get_args(Tier)
_LEVELS: Final[tuple[Level, ...]] = get_args(Level)
_ARGUMENT_KINDS: Final[tuple[ArgumentKind, ...]] = get_args(ArgumentKind)
_RULE_KINDS: Final[tuple[RuleKind, ...]] = get_args(RuleKind)
_JOBS: Final[tuple[Tool, ...]] = ("image_to_video", "multi_shot_video")
_STEP: Final = re.compile(r"[a-z_]+(?:\[\])?")


class CatalogError(ValueError):
    """An endpoint file cannot be used; the message names the file, the place in it, and what belongs there."""


@dataclass(frozen=True, slots=True)
class PictureLimits:
    """
    What fal.ai takes as a picture or video in one place of a request.

    Attributes:
        formats: Names such as ``jpeg`` and ``png``; empty where no source says.
        inferred: Whether the figures are taken over from a sibling endpoint.
        basis: Where the figures come from.

    """

    max_bytes: int | None
    min_width: int | None
    min_height: int | None
    max_width: int | None
    max_height: int | None
    min_aspect_ratio: Decimal | None
    max_aspect_ratio: Decimal | None
    min_seconds: Decimal | None
    max_seconds: Decimal | None
    min_fps: int | None
    max_fps: int | None
    formats: tuple[str, ...]
    fetch_timeout_seconds: int | None
    inferred: bool
    basis: str


@dataclass(frozen=True, slots=True, eq=False)
class Argument:
    """
    One argument of the tools, and the field of the endpoint that it becomes.

    Attributes:
        name: The name a caller uses.
        field: fal.ai's name, beside its siblings in the request.
        kind: How a value is read; with *many*, how each member of the list is.
        schema: The endpoint's own schema of a value (of a member, with *many*).
        required: Whether the tools that take it need it.
        tools: The job tools that take it. ``estimate_cost`` takes all.
        items: The arguments inside, for the kinds ``object`` and ``shot``.
        limits: What a picture or video in this place may be.
        send_default_with: Another argument; beside it the default is sent explicitly.
        instead: What works with a model that does not take it.

    """

    name: str
    field: str
    kind: ArgumentKind
    description: str
    schema: Schema
    many: bool
    required: bool
    tools: tuple[Tool, ...]
    items: Mapping[str, Argument]
    limits: PictureLimits | None
    send_default_with: str | None
    instead: str

    @property
    def choices(self) -> tuple[str, ...]:
        """The values that the endpoint lists, as text; empty when it lists none."""
        return tuple(str(value) for value in _sequence(self.schema.get("enum")))

    @property
    def lengths(self) -> tuple[int, ...]:
        """The lengths in seconds that the endpoint lists."""
        return tuple(int(value) for value in self.choices)


@dataclass(frozen=True, slots=True)
class Rule:
    """
    A rule across fields, as data.

    ``of``, ``counts`` and ``groups`` hold selectors: ``shots[].prompt`` is the prompt of every shot, ``shots[]`` every
    shot. What the kinds mean stands in ``kling_mcp.catalog.rules``.
    """

    kind: RuleKind
    of: tuple[str, ...]
    level: Level = "refuse"
    say: str = ""
    source: str = ""
    maximum: int | None = None
    argument: str | None = None
    value: bool | str | None = None
    marker: str | None = None
    counts: tuple[str, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Price:
    """What one source said at one time that a second of finished video costs, in US dollars per tier."""

    as_of: str
    source: str
    usd_per_second: Mapping[Tier, Decimal]

    def rate(self, tier: Tier) -> Decimal:
        """
        The price of a second in *tier*, in US dollars.

        A flat price holds in every tier, and a price without voice control holds for voices as for any sound.
        """
        if "flat" in self.usd_per_second:
            return self.usd_per_second["flat"]
        if tier == "voice_control" and tier not in self.usd_per_second:
            tier = "audio_on"
        return self.usd_per_second[tier]


@dataclass(frozen=True, slots=True)
class Timing:
    """How many seconds a job took, or is guessed to take, for a video of a given length."""

    seconds: int
    for_video_seconds: int
    guess: bool
    basis: str


@dataclass(frozen=True, slots=True, eq=False)
class Endpoint:
    """One Kling endpoint on fal.ai: what it accepts, costs, and answers."""

    model: str
    endpoint_id: str
    title: str
    summary: str
    mode: Mode
    order: int
    is_default: bool
    sound: Sound
    arguments: Mapping[str, Argument]
    rules: tuple[Rule, ...]
    limits: Mapping[str, PictureLimits]
    prices: tuple[Price, ...]
    timing: Timing | None
    input_schema: Schema
    output_schema: Schema
    sources: tuple[str, ...]
    conflicts: tuple[Mapping[str, object], ...]
    notes: tuple[str, ...]

    def expected_seconds(self, video_seconds: int) -> int | None:
        """
        How long a job for *video_seconds* of video may take; None where no source gives a time.

        A guess: the one length with a known time, scaled.
        """
        if self.timing is None:
            return None
        return round(self.timing.seconds * video_seconds / self.timing.for_video_seconds)

    def argument_of(self, kind: ArgumentKind) -> Argument | None:
        """The argument of *kind* at the top of a call, if the endpoint has one."""
        return next((argument for argument in self.arguments.values() if argument.kind == kind), None)


@dataclass(frozen=True, slots=True, eq=False)
class Catalog:
    """All endpoints, in the order in which they are shown."""

    endpoints: tuple[Endpoint, ...]

    def __post_init__(self) -> None:
        for name in ("model", "endpoint_id"):
            seen: set[str] = set()
            for endpoint in self.endpoints:
                value = cast("str", getattr(endpoint, name))
                if value in seen:
                    raise CatalogError(f"two endpoint files have {name} {value}")
                seen.add(value)
        if len([endpoint for endpoint in self.endpoints if endpoint.is_default]) != 1:
            raise CatalogError("exactly one endpoint file must say that it is the default")

    @property
    def models(self) -> tuple[str, ...]:
        """The short names of all models."""
        return tuple(endpoint.model for endpoint in self.endpoints)

    @property
    def default(self) -> Endpoint:
        """The endpoint that is used when a call names no model."""
        return next(endpoint for endpoint in self.endpoints if endpoint.is_default)

    def model(self, name: str) -> Endpoint:
        """
        The endpoint with the short name *name*.

        Raises:
            UnknownModel: no model has that name; the nearest one and all names are given.

        """
        wanted = unwrapped(name).lower()
        for endpoint in self.endpoints:
            if endpoint.model == wanted:
                return endpoint
        nearest = self._nearest_model(name)
        hint = f"The nearest is {nearest}. " if nearest else ""
        fault = ArgumentFault(
            f"No model is called {name[:80]!r}.",
            f"{hint}Models: {', '.join(self.models)}.",
            "model",
            showable(name[:80]),
            self.models,
            nearest,
        )
        raise UnknownModel.of([fault])

    def by_endpoint_id(self, endpoint_id: str) -> Endpoint | None:
        """The endpoint with fal.ai's id *endpoint_id*, if it is in the catalogue."""
        return next((endpoint for endpoint in self.endpoints if endpoint.endpoint_id == endpoint_id), None)

    def takers(self, argument: str) -> tuple[str, ...]:
        """The models that take *argument*."""
        return tuple(endpoint.model for endpoint in self.endpoints if argument in endpoint.arguments)

    def of_kind(self, name: str) -> tuple[str, ...]:
        """The models that have a word of *name* in theirs, such as ``4k``."""
        words = _words(name)
        return tuple(endpoint.model for endpoint in self.endpoints if words & set(endpoint.model.split("-")))

    def _nearest_model(self, name: str) -> str | None:
        by_id = self.by_endpoint_id(unwrapped(name).strip("/"))
        if by_id is not None:
            return by_id.model
        words = _words(name[:80])
        spelt = re.sub(r"[\s_/.]+", "-", unwrapped(name[:80]).lower())

        def likeness(endpoint: Endpoint) -> tuple[float, float]:
            own = set(endpoint.model.split("-"))
            return len(own & words) - len(own - words) / 2, difflib.SequenceMatcher(None, spelt, endpoint.model).ratio()

        near = [endpoint for endpoint in self.endpoints if words & set(endpoint.model.split("-"))]
        if near:
            return max(near, key=likeness).model
        return next(iter(difflib.get_close_matches(spelt, self.models, n=1)), None)


_SPELLINGS: Final[tuple[tuple[str, str], ...]] = (
    (r"\bomni[\s_.-]*v?(\d)(?:\.0)?\b", r" o\1"),
    (r"\bv?(\d)(?:\.0)?[\s_.-]*omni\b", r" o\1"),
    (r"(\d)\.0\b", r"\1"),
    (r"\bo[\s_.-]*(?=\d(?!\d|\s?k))", " o"),
    (r"\b(?:kling|version|ver|v)[\s_.-]*(?=\d(?!\d|\s?k))", " v"),
    (r"\b(?:std|basic)\b", "standard"),
    (r"\bprofessional\b", "pro"),
    (r"\b(?:uhd|ultra\s?hd|2160p?|\d{4}\s?x\s?2160|4\s?k)\b", " 4k"),
    (r"\bfast\b", "turbo"),
)
"""How names of models are written elsewhere, and the words of ours."""


def _words(name: str) -> set[str]:
    """The words of a model's name as it is spelt here: "Kling 3.0 Pro" has v3 and pro."""
    spelt = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_", " ", name).lower()
    for pattern, word in _SPELLINGS:
        spelt = re.sub(pattern, word, spelt)
    words = set(re.findall(r"[a-z0-9.]+", spelt))
    return words | {f"v{word}" for word in words if word.isdigit()}


def load(*folders: Path) -> Catalog:
    """
    The bundled endpoints, and those of the JSON files in *folders*.

    Raises:
        CatalogError: a file cannot be used.

    """
    if not folders:
        return _bundled()
    extra = [_read(path) for folder in folders for path in sorted(folder.glob("*.json"))]
    return Catalog(tuple(sorted([*_bundled().endpoints, *extra], key=_shown)))


@cache
def _bundled() -> Catalog:
    return Catalog(tuple(sorted((_read(path) for path in _BUNDLED.glob("*.json")), key=_shown)))


def _shown(endpoint: Endpoint) -> tuple[int, str]:
    return endpoint.order, endpoint.model


def _read(path: Path) -> Endpoint:
    try:
        data: object = json.loads(path.read_bytes())
    except ValueError as error:
        raise CatalogError(f"{path.name}: not JSON: {error}") from None
    try:
        return _endpoint(_Node(data, ""))
    except _Wrong as error:
        raise CatalogError(f"{path.name}: {error}") from None


class _Wrong(Exception):
    """Something in a file is not what belongs there; the message starts with the place."""


_T = TypeVar("_T")
_L = TypeVar("_L", bound=str)


@dataclass(frozen=True, slots=True)
class _Node:
    """A value of a file and its place, so that every complaint names the place."""

    value: object
    place: str

    def wrong(self, expected: str) -> _Wrong:
        return _Wrong(f"{self.place or 'the file'}: {expected} expected, found {json.dumps(self.value)[:80]}")

    def only(self, *names: str) -> None:
        for name in self.mapping():
            if name not in names:
                raise _Wrong(f"{self.at(name).place}: unknown name; known are {', '.join(names)}")

    def mapping(self) -> dict[str, object]:
        value = self.value
        if not isinstance(value, dict):
            raise self.wrong("an object")
        return cast("dict[str, object]", value)

    def fields(self) -> dict[str, _Node]:
        return {name: self.at(name) for name in self.mapping()}

    def at(self, name: str) -> _Node:
        return _Node(self.mapping().get(name), f"{self.place}.{name}" if self.place else name)

    def members(self) -> list[_Node]:
        value = self.value
        if not isinstance(value, list):
            raise self.wrong("a list")
        members = cast("list[object]", value)
        return [_Node(member, f"{self.place}[{index}]") for index, member in enumerate(members)]

    def text(self, default: str | None = None) -> str:
        if self.value is None and default is not None:
            return default
        if not isinstance(self.value, str) or not self.value:
            raise self.wrong("a text")
        return self.value

    def texts(self) -> tuple[str, ...]:
        return tuple(member.text() for member in self.members()) if self.value is not None else ()

    def whole(self) -> int:
        if not isinstance(self.value, int) or isinstance(self.value, bool) or self.value < 0:
            raise self.wrong("a whole number")
        return self.value

    def flag(self, *, default: bool = False) -> bool:
        if self.value is None:
            return default
        if not isinstance(self.value, bool):
            raise self.wrong("true or false")
        return self.value

    def amount(self) -> Decimal:
        """A decimal number written as text, because a JSON number would pass through a float."""
        try:
            amount = Decimal(self.text())
        except InvalidOperation:
            raise self.wrong("a decimal number as text") from None
        if not amount.is_finite() or amount <= 0:
            raise self.wrong("a number above zero as text")
        return amount

    def one_of(self, known: tuple[_L, ...], default: _L | None = None) -> _L:
        for name in known:
            if name == self.text(default):
                return name
        raise self.wrong(f"one of {', '.join(known)}")

    def whole_or_none(self) -> int | None:
        return None if self.value is None else self.whole()

    def amount_or_none(self) -> Decimal | None:
        return None if self.value is None else self.amount()


def _endpoint(node: _Node) -> Endpoint:
    node.only(
        *("model", "endpoint_id", "title", "summary", "mode", "order", "default", "sound", "arguments", "rules"),
        *("limits", "prices", "timing", "input_schema", "output_schema", "sources", "conflicts", "notes"),
    )
    limits = {name: _limits(member) for name, member in node.at("limits").fields().items()}
    schema = _object_schema(node.at("input_schema"))
    arguments = _arguments(node.at("arguments"), schema, limits)
    _check_roles(arguments, node.at("arguments"))
    return Endpoint(
        model=_matching(node.at("model"), r"[a-z0-9]+(-[a-z0-9]+)*"),
        endpoint_id=_matching(node.at("endpoint_id"), r"[a-z0-9.-]+(/[a-z0-9.-]+)+"),
        title=node.at("title").text(),
        summary=node.at("summary").text(),
        mode=node.at("mode").one_of(_MODES),
        order=node.at("order").whole(),
        is_default=node.at("default").flag(),
        sound=node.at("sound").one_of(_SOUNDS),
        arguments=arguments,
        rules=tuple(_rule(member, arguments) for member in node.at("rules").members()),
        limits=MappingProxyType(limits),
        prices=_prices(node.at("prices")),
        timing=_timing(node.at("timing")),
        input_schema=schema,
        output_schema=_object_schema(node.at("output_schema")),
        sources=node.at("sources").texts(),
        conflicts=tuple(member.mapping() for member in _objects(node.at("conflicts"))),
        notes=node.at("notes").texts(),
    )


def _matching(node: _Node, pattern: str) -> str:
    if not re.fullmatch(pattern, node.text()):
        raise node.wrong(f"a text like {pattern}")
    return node.text()


def _objects(node: _Node) -> list[_Node]:
    for member in node.members():
        member.mapping()
    return node.members()


def _object_schema(node: _Node) -> Schema:
    node.at("type").one_of(("object",))
    node.at("properties").mapping()
    return MappingProxyType(node.mapping())


def _arguments(node: _Node, schema: Schema, limits: Mapping[str, PictureLimits]) -> Mapping[str, Argument]:
    """The arguments at one level, each tied to its field in *schema*."""
    properties = cast("Mapping[str, Schema]", schema.get("properties", {}))
    arguments: dict[str, Argument] = {}
    for name, member in node.fields().items():
        field = member.at("field").one_of(tuple(properties))
        arguments[name] = _argument(name, member, field, properties[field], limits)
    fed = {argument.field for argument in arguments.values() if argument.required}
    for field in _sequence(schema.get("required")):
        if field not in fed:
            raise _Wrong(f"{node.place}: no required argument becomes the required field {field}")
    return MappingProxyType(arguments)


def _argument(name: str, node: _Node, field: str, schema: Schema, limits: Mapping[str, PictureLimits]) -> Argument:
    node.only(
        *(
            "field",
            "kind",
            "many",
            "required",
            "tools",
            "items",
            "limits",
            "send_default_with",
            "description",
            "instead",
        ),
    )
    many = node.at("many").flag()
    if many:
        schema = cast("Schema", schema.get("items", {}))
    kind: ArgumentKind = node.at("kind").one_of(_ARGUMENT_KINDS)
    named = node.at("limits")
    argument = Argument(
        name=name,
        field=field,
        kind=kind,
        description=node.at("description").text(),
        schema=schema,
        many=many,
        required=node.at("required").flag(),
        tools=tuple(tool.one_of(_JOBS) for tool in node.at("tools").members()) if node.at("tools").value else _JOBS,
        items=_arguments(node.at("items"), schema, limits) if kind in ("object", "shot") else MappingProxyType({}),
        limits=None if named.value is None else limits[named.one_of(tuple(limits))],
        send_default_with=node.at("send_default_with").text("") or None,
        instead=node.at("instead").text(""),
    )
    _check_kind(argument, node)
    return argument


def _check_kind(argument: Argument, node: _Node) -> None:
    """Refuse a field whose schema does not carry what its kind is read by."""
    choices = argument.choices
    if argument.kind in ("choice", "length") and not choices:
        raise _Wrong(f"{node.place}: the schema of {argument.field} lists no values")
    if argument.kind == "length" and not all(choice.isdigit() for choice in choices):
        raise _Wrong(f"{node.place}: the schema of {argument.field} lists values that are not seconds")
    if argument.kind == "length" and str(argument.schema.get("default")) not in choices:
        raise _Wrong(f"{node.place}: the schema of {argument.field} has no default among its values")
    if argument.kind == "audio" and not isinstance(argument.schema.get("default"), bool):
        raise _Wrong(f"{node.place}: the schema of {argument.field} has no default of true or false")
    if argument.kind == "shot" and not (argument.many and {"text", "length"} <= _kinds(argument.items)):
        raise _Wrong(f"{node.place}: shots are a list whose items are of kind text and length")
    if argument.send_default_with and "default" not in argument.schema:
        raise _Wrong(f"{node.place}: the schema of {argument.field} has no default to send")


def _kinds(arguments: Mapping[str, Argument]) -> set[ArgumentKind]:
    return {argument.kind for argument in arguments.values()}


def _check_roles(arguments: Mapping[str, Argument], node: _Node) -> None:
    """Refuse a set of arguments that leaves the length of a video, which is what is paid for, in doubt."""
    kinds = [argument.kind for argument in arguments.values()]
    if kinds.count("length") != 1:
        raise _Wrong(f"{node.place}: exactly one argument must be of kind length")
    for kind in ("audio", "shot"):
        if kinds.count(kind) > 1:
            raise _Wrong(f"{node.place}: at most one argument may be of kind {kind}")


def _rule(node: _Node, arguments: Mapping[str, Argument]) -> Rule:
    node.only(
        *("kind", "of", "level", "say", "source", "max", "argument", "value", "marker", "counts", "groups"),
    )
    value = node.at("value").value
    rule = Rule(
        kind=node.at("kind").one_of(_RULE_KINDS),
        of=node.at("of").texts(),
        level=node.at("level").one_of(_LEVELS, "refuse"),
        say=node.at("say").text(""),
        source=node.at("source").text(""),
        maximum=node.at("max").whole_or_none(),
        argument=node.at("argument").text("") or None,
        value=value if isinstance(value, bool | str) else None,
        marker=node.at("marker").text("") or None,
        counts=node.at("counts").texts(),
        groups=tuple(group.texts() for group in node.at("groups").members()) if node.at("groups").value else (),
    )
    named = (*rule.of, *rule.counts, *([rule.argument] if rule.argument else []))
    for selector in named:
        _check_selector(selector, arguments, node)
    if rule.kind in ("count", "text_length") and rule.maximum is None:
        raise node.at("max").wrong("a whole number")
    if rule.kind == "reference" and "{n}" not in (rule.marker or ""):
        raise node.at("marker").wrong("a text with {n}")
    if rule.kind == "needs" and (rule.argument is None or rule.value is None):
        raise node.wrong("an argument and its value")
    return rule


def _check_selector(selector: str, arguments: Mapping[str, Argument], node: _Node) -> None:
    level = arguments
    for step in selector.split("."):
        name = step.removesuffix("[]")
        if not _STEP.fullmatch(step) or name not in level:
            raise _Wrong(f"{node.place}: {selector} names no argument of this endpoint")
        if step.endswith("[]") and not level[name].many:
            raise _Wrong(f"{node.place}: {selector} takes {name} for a list")
        level = level[name].items


def _limits(node: _Node) -> PictureLimits:
    names = tuple(PictureLimits.__dataclass_fields__)
    node.only(*names)
    return PictureLimits(
        max_bytes=node.at("max_bytes").whole_or_none(),
        min_width=node.at("min_width").whole_or_none(),
        min_height=node.at("min_height").whole_or_none(),
        max_width=node.at("max_width").whole_or_none(),
        max_height=node.at("max_height").whole_or_none(),
        min_aspect_ratio=node.at("min_aspect_ratio").amount_or_none(),
        max_aspect_ratio=node.at("max_aspect_ratio").amount_or_none(),
        min_seconds=node.at("min_seconds").amount_or_none(),
        max_seconds=node.at("max_seconds").amount_or_none(),
        min_fps=node.at("min_fps").whole_or_none(),
        max_fps=node.at("max_fps").whole_or_none(),
        formats=node.at("formats").texts(),
        fetch_timeout_seconds=node.at("fetch_timeout_seconds").whole_or_none(),
        inferred=node.at("inferred").flag(),
        basis=node.at("basis").text(),
    )


def _prices(node: _Node) -> tuple[Price, ...]:
    """All dated prices, the newest last; a bare year counts as older than any month of it."""
    prices = [_price(member) for member in node.members()]
    if not prices:
        raise node.wrong("at least one price")
    return tuple(sorted(prices, key=lambda price: price.as_of))


def _price(node: _Node) -> Price:
    node.only("as_of", "source", "usd_per_second")
    rates = node.at("usd_per_second")
    rates.only(*_TIERS)
    usd_per_second: dict[Tier, Decimal] = {
        tier: rates.at(tier).amount() for tier in _TIERS if rates.at(tier).value is not None
    }
    if set(usd_per_second) != {"flat"} and not {"audio_off", "audio_on"} <= set(usd_per_second) - {"flat"}:
        raise rates.wrong("flat alone, or audio_off and audio_on")
    return Price(
        as_of=_matching(node.at("as_of"), r"\d{4}(-\d{2}(-\d{2})?)?"),
        source=node.at("source").text(),
        usd_per_second=MappingProxyType(usd_per_second),
    )


def _timing(node: _Node) -> Timing | None:
    if node.value is None:
        return None
    node.only("seconds", "for_video_seconds", "guess", "basis")
    return Timing(
        seconds=node.at("seconds").whole(),
        for_video_seconds=node.at("for_video_seconds").whole(),
        guess=node.at("guess").flag(),
        basis=node.at("basis").text(),
    )


def _sequence(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else []
