"""
Endpoint models: everything that is known about each Kling endpoint, read from one JSON file each.

A file holds fal.ai's schemas, how the tools' arguments become fal.ai's fields, the rules across fields, media limits,
dated prices, timing and sources. It is validated once, when it is read. No field name, enum, default, range or price
is in Python, so a new Kling version is a new file.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    PrivateAttr,
    ValidationError,
    model_validator,
)
from pydantic_core import to_json

from kling_mcp.errors import ArgumentFault, UnknownModel
from kling_mcp.ids import unwrapped
from kling_mcp.json_types import items_of, members_of
from kling_mcp.texts import showable

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = [
    "JOB_TOOLS",
    "TOOLS",
    "Argument",
    "ArgumentKind",
    "Billed",
    "Catalog",
    "CatalogError",
    "Endpoint",
    "JobTool",
    "MediaLimits",
    "Mode",
    "Price",
    "Rule",
    "RuleKind",
    "Sound",
    "Timing",
    "Tool",
    "load",
    "read_endpoint",
]

JobTool: TypeAlias = Literal[
    "image_to_video",
    "multi_shot_video",
    "text_to_video",
    "reference_to_video",
    "edit_video",
    "motion_control",
    "lip_sync",
    "talking_avatar",
    "create_voice",
]
Tool: TypeAlias = JobTool | Literal["estimate_cost"]
Mode: TypeAlias = Literal[
    "image-to-video",
    "text-to-video",
    "reference-to-video",
    "edit",
    "reference-video",
    "motion-control",
    "lip-sync",
    "avatar",
    "create-voice",
]
TOOLS: Final[Mapping[Mode, tuple[JobTool, ...]]] = {
    "image-to-video": ("image_to_video", "multi_shot_video"),
    "text-to-video": ("text_to_video", "multi_shot_video"),
    "reference-to-video": ("reference_to_video",),
    "edit": ("edit_video",),
    "reference-video": ("edit_video",),
    "motion-control": ("motion_control",),
    "lip-sync": ("lip_sync",),
    "avatar": ("talking_avatar",),
    "create-voice": ("create_voice",),
}
"""The tools that start a job of each mode."""
JOB_TOOLS: Final[tuple[JobTool, ...]] = tuple(dict.fromkeys(tool for tools in TOOLS.values() for tool in tools))

Sound: TypeAlias = Literal["switchable", "always", "none", "kept", "unknown"]
ArgumentKind: TypeAlias = Literal[
    "picture",
    "video",
    "audio",
    "https_url",
    "text",
    "number",
    "sound",
    "keep_sound",
    "flag",
    "choice",
    "length",
    "voice",
    "object",
    "shot",
    "json",
]
RuleKind: TypeAlias = Literal[
    "exactly_one",
    "count",
    "total",
    "together",
    "text_length",
    "seconds",
    "value",
    "needs",
    "reference",
    "given",
    "one_group",
    "beside",
]

_BUNDLED: Final = Path(__file__).with_name("endpoints")
_STEP: Final = re.compile(r"[a-z_]+(?:\[\])?")


class CatalogError(ValueError):
    """An endpoint file cannot be used; the message names the file, the place in it, and what belongs there."""


def _amount(value: object) -> Decimal:
    """A decimal number written as text, because a JSON number would pass through a float."""
    if not isinstance(value, str):
        raise ValueError("a text")  # noqa: TRY004 - pydantic expects a ValueError
    try:
        amount = Decimal(value)
    except InvalidOperation:
        raise ValueError("a decimal number as text") from None
    if not amount.is_finite() or amount <= 0:
        raise ValueError("a number above zero as text")
    return amount


_Text: TypeAlias = Annotated[str, Field(min_length=1)]
_Whole: TypeAlias = Annotated[int, Field(ge=0)]
_Amount: TypeAlias = Annotated[Decimal, PlainValidator(_amount)]
Schema: TypeAlias = Mapping[str, object]


class _Part(BaseModel):
    # Validators are built when a file is read: once for all, as parts of the endpoint's.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class MediaLimits(_Part):
    """
    What fal.ai takes as a picture, video or sound in one place of a request.

    Attributes:
        formats: Names such as ``jpeg`` and ``png``; empty where no source says.
        inferred: Whether the figures are taken over from a sibling endpoint.
        basis: Where the figures come from.

    """

    max_bytes: _Whole | None = None
    min_width: _Whole | None = None
    min_height: _Whole | None = None
    max_width: _Whole | None = None
    max_height: _Whole | None = None
    min_aspect_ratio: _Amount | None = None
    max_aspect_ratio: _Amount | None = None
    min_seconds: _Amount | None = None
    max_seconds: _Amount | None = None
    min_fps: _Whole | None = None
    max_fps: _Whole | None = None
    formats: tuple[_Text, ...] = ()
    fetch_timeout_seconds: _Whole | None = None
    inferred: bool = False
    basis: _Text


class Argument(_Part):
    """
    One argument of the tools, and the field of the endpoint that it becomes.

    Attributes:
        field: fal.ai's name, beside its siblings in the request.
        kind: How a value is read; with *many*, how each member of the list is.
        required: Whether the tools that take it need it.
        own_tools: The job tools that take it, where not all of its endpoint's mode do; ``tools`` in the file.
        items: The arguments inside, for the kinds ``object`` and ``shot``.
        limits_name: The entry of the endpoint's limits that holds here; ``limits`` in the file.
        send_default_with: Another argument; beside it the default is sent explicitly.
        instead: What works with a model that does not take it.

    """

    field: _Text
    kind: ArgumentKind
    description: _Text
    many: bool = False
    required: bool = False
    own_tools: Annotated[tuple[JobTool, ...], Field(alias="tools")] = ()
    items: Mapping[str, "Argument"] = {}
    limits_name: Annotated[str | None, Field(alias="limits")] = None
    send_default_with: str | None = None
    instead: str = ""
    _name: str = PrivateAttr("")
    _value_schema: Schema = PrivateAttr(default_factory=dict[str, object])
    _limits: MediaLimits | None = PrivateAttr(None)
    _mode_tools: tuple[JobTool, ...] = PrivateAttr(())

    def bind(
        self, name: str, value_schema: Schema, limits: MediaLimits | None, mode_tools: tuple[JobTool, ...]
    ) -> None:
        """Take what the file says of this argument in other places; once, when the file is read."""
        self._name, self._value_schema, self._limits, self._mode_tools = name, value_schema, limits, mode_tools

    @property
    def name(self) -> str:
        """The name a caller uses."""
        return self._name

    @property
    def tools(self) -> tuple[JobTool, ...]:
        """The job tools that take it."""
        return self.own_tools or self._mode_tools

    @property
    def value_schema(self) -> Schema:
        """The endpoint's own schema of a value (of a member, with *many*)."""
        return self._value_schema

    @property
    def limits(self) -> MediaLimits | None:
        """What a picture or video in this place may be."""
        return self._limits

    @property
    def default(self) -> object:
        """The endpoint's own default; None where it has none."""
        return self._value_schema.get("default")

    @property
    def choices(self) -> tuple[str, ...]:
        """The values that the endpoint lists, as text; empty when it lists none."""
        return tuple(str(value) for value in items_of(self._value_schema.get("enum")))

    @property
    def lengths(self) -> tuple[int, ...]:
        """The lengths in seconds that the endpoint lists, or has between its bounds."""
        if self.choices:
            return tuple(int(value) for value in self.choices)
        low, high = self._value_schema.get("minimum"), self._value_schema.get("maximum")
        return tuple(range(low, high + 1)) if isinstance(low, int) and isinstance(high, int) else ()

    def sent_length(self, seconds: int) -> object:
        """*seconds* as the endpoint writes a length: the member of its list, or a whole number."""
        return items_of(self._value_schema["enum"])[self.choices.index(str(seconds))] if self.choices else seconds


class Rule(_Part):
    """
    A rule across fields, as data.

    ``of``, ``counts`` and ``groups`` hold selectors: ``shots[].prompt`` is the prompt of every shot, ``shots[]`` every
    shot. ``kling_mcp.catalog.rules`` says what the kinds mean. Where one of kind ``given`` applies, ``ceiling_times``
    as much as the price is held.
    """

    kind: RuleKind
    of: tuple[_Text, ...] = ()
    level: Literal["refuse", "warn"] = "refuse"
    say: str = ""
    source: str = ""
    max: _Whole = 0
    argument: str = ""
    value: bool | str | None = None
    marker: str = ""
    counts: tuple[_Text, ...] = ()
    groups: tuple[tuple[_Text, ...], ...] = ()
    ceiling_times: _Amount | None = None


class Price(_Part):
    """
    What one source said at one time that a job costs, in US dollars: a second of it in each tier, or the whole call.

    The tiers are ``flat`` alone; ``audio_off``, ``audio_on`` and ``voice_control``; or the values of the endpoint's
    ``tier_argument``.
    """

    as_of: Annotated[str, Field(pattern=r"^\d{4}(-\d{2}(-\d{2})?)?$")]
    source: _Text
    usd_per_second: Mapping[_Text, _Amount] = {}
    usd_per_call: _Amount | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.usd_per_second) is (self.usd_per_call is not None):
            raise ValueError("either usd_per_second or usd_per_call")
        return self

    @property
    def rates(self) -> tuple[Decimal, ...]:
        """Every amount that it names."""
        return (self.usd_per_call,) if self.usd_per_call is not None else tuple(self.usd_per_second.values())

    def rate(self, tier: str) -> Decimal:
        """
        The price of a second in *tier*, or of the call, in US dollars.

        A flat price holds in every tier, a price without voice control holds for voices as for any sound, and of
        tiers that are not named the dearest holds.
        """
        if self.usd_per_call is not None:
            return self.usd_per_call
        known = self.usd_per_second
        for name in ("flat", tier, *(["audio_on"] if tier == "voice_control" else [])):
            if name in known:
                return known[name]
        return max(known.values())


class Billed(_Part):
    """
    One way of counting what is paid for, where that is not the length that the call names.

    Attributes:
        given: The argument with which it holds; empty for always.
        seconds_of: Whose seconds count: arguments that are a video or sound, or ``length``, the made video.
        step_seconds: What the seconds are rounded up to; None where no source says how a part of one is counted.
        at_least_lengths: At least so many times the length of the made video.
        tier_suffix: What is added to the tier's name.

    """

    given: str = ""
    seconds_of: Annotated[tuple[_Text, ...], Field(min_length=1)] = ("length",)
    step_seconds: Annotated[int, Field(ge=1)] | None = None
    at_least_lengths: _Whole = 0
    tier_suffix: str = ""


class Timing(_Part):
    """How many seconds a job took, or is guessed to take, for a video of a given length."""

    seconds: _Whole
    for_video_seconds: Annotated[int, Field(ge=1)]
    basis: _Text
    guess: bool = False


def _newest_last(prices: tuple[Price, ...]) -> tuple[Price, ...]:
    """In the order of their dates; a bare year counts as older than any month of it."""
    return tuple(sorted(prices, key=lambda price: price.as_of))


class Endpoint(_Part):
    """
    One Kling endpoint on fal.ai: what it accepts, costs, and answers.

    Attributes:
        when: The argument with which it is used, where its model has two endpoints for the mode.
        result: What a job makes: a video, or the id of a voice.
        billed: How what is paid for is counted; empty where it is the length that the call names.
        tier_argument: The argument whose value is the price's tier; empty where sound and voices decide.
        tiers_known: Whether prices names every tier; else twice its amount is held.

    """

    model: Annotated[str, Field(pattern=r"^[a-z0-9]+([.-][a-z0-9]+)*$")]
    endpoint_id: Annotated[str, Field(pattern=r"^[a-z0-9.-]+(/[a-z0-9.-]+)+$")]
    title: _Text
    summary: _Text
    mode: Mode
    order: _Whole
    sound: Sound
    arguments: Mapping[str, Argument]
    rules: tuple[Rule, ...]
    limits: Mapping[str, MediaLimits]
    prices: Annotated[tuple[Price, ...], AfterValidator(_newest_last)]
    input_schema: Schema
    output_schema: Schema
    conflicts: tuple[Schema, ...]
    default: bool = False
    when: str = ""
    result: Literal["video", "voice"] = "video"
    billed: tuple[Billed, ...] = ()
    tier_argument: str = ""
    tiers_known: bool = True
    timing: Timing | None = None
    sources: tuple[_Text, ...] = ()
    notes: tuple[_Text, ...] = ()

    # Two endpoints are never the same, and one is the key of what is kept for it.
    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("input_schema", "output_schema"):
            schema: Schema = getattr(self, name)
            if schema.get("type") != "object":
                raise _wrong(f"{name}.type", "one of object", schema.get("type"))
            if not isinstance(schema.get("properties"), dict):
                raise _wrong(f"{name}.properties", "an object", schema.get("properties"))
        _bind("arguments", self.arguments, self.input_schema, self.limits, TOOLS[self.mode])
        kinds: list[ArgumentKind] = [argument.kind for argument in self.arguments.values()]
        for kind in ("length", "sound", "keep_sound", "shot"):
            if kinds.count(kind) > 1:
                raise _Misfit(f"arguments: at most one argument may be of kind {kind}")
        for index, rule in enumerate(self.rules):
            _check_rule(f"rules[{index}]", rule, self.arguments)
        self._check_price(kinds)
        return self

    def _check_price(self, kinds: Sequence[ArgumentKind]) -> None:
        for needed, there in (("when", self.when), ("tier_argument", self.tier_argument)):
            if there and there not in self.arguments:
                raise _wrong(needed, f"one of {', '.join(self.arguments)}", there)
        if self.sound == "kept" and "keep_sound" not in kinds:
            raise _Misfit("sound: an argument of kind keep_sound must say whether it is kept")
        if not self.billed and "length" not in kinds and any(price.usd_per_second for price in self.prices):
            raise _Misfit("billed: it must say what is paid for, because no argument is of kind length")
        if self.billed and self.billed[-1].given:
            raise _Misfit("billed: the last one must hold always")
        for index, case in enumerate(self.billed):
            for name in (*case.seconds_of, *([case.given] if case.given else [])):
                argument = self.arguments.get(name)
                if argument is None and not (name == "length" and "length" in kinds):
                    raise _wrong(f"billed[{index}]", f"one of {', '.join(self.arguments)}", name)
            for name in self.measured(case):
                limits = self.arguments[name].limits
                if limits is None or limits.max_seconds is None:
                    raise _Misfit(f"billed[{index}]: the limits of {name} must have max_seconds, which is held")
        for index, price in enumerate(self.prices):
            tiers = set(price.usd_per_second) - {"voice_control"}
            if not self.tier_argument and tiers not in ({"flat"}, {"audio_off", "audio_on"}, set[str]()):
                place = f"prices[{index}].usd_per_second"
                raise _wrong(place, "flat alone, or audio_off and audio_on", dict.fromkeys(tiers))

    def measured(self, case: Billed) -> tuple[str, ...]:
        """The arguments whose length must be measured for *case*."""
        return tuple(name for name in case.seconds_of if name != "length")

    def expected_seconds(self, video_seconds: int) -> int | None:
        """
        How long a job for *video_seconds* of video may take; None where no source gives a time.

        A guess: the one length with a known time, scaled.
        """
        if self.timing is None:
            return None
        if not video_seconds:
            # A voice has no length.
            return self.timing.seconds
        return round(self.timing.seconds * video_seconds / self.timing.for_video_seconds)

    @property
    def key(self) -> tuple[str, Mode, str]:
        """What tells it from every other: model, mode, and the argument with which it is used."""
        return self.model, self.mode, self.when

    @property
    def length(self) -> Argument | None:
        """The argument that says how long the video is, if the endpoint has one."""
        return self.argument_of("length")

    def argument_of(self, kind: ArgumentKind) -> Argument | None:
        """The argument of *kind* at the top of a call, if the endpoint has one."""
        return next((argument for argument in self.arguments.values() if argument.kind == kind), None)


@dataclass(frozen=True, slots=True, eq=False)
class Catalog:
    """All endpoints, in the order in which they are shown."""

    endpoints: tuple[Endpoint, ...]

    def __post_init__(self) -> None:
        seen: set[object] = set()
        for endpoint in self.endpoints:
            key = " ".join(filter(None, endpoint.key))
            for name, value in (("model and mode", key), ("endpoint_id", endpoint.endpoint_id)):
                if (name, value) in seen:
                    raise CatalogError(f"two endpoint files have {name} {value}")
                seen.add((name, value))
        if len([endpoint for endpoint in self.endpoints if endpoint.default]) != 1:
            raise CatalogError("exactly one endpoint file must say that it is the default")

    @property
    def models(self) -> tuple[str, ...]:
        """The short names of all models."""
        return _models(self.endpoints)

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes of all models."""
        return tuple(dict.fromkeys(endpoint.mode for endpoint in self.endpoints))

    @property
    def default(self) -> Endpoint:
        """The endpoint that is used when a call names no model, as an endpoint of image-to-video."""
        return next(endpoint for endpoint in self.endpoints if endpoint.default)

    def of(self, *modes: Mode) -> tuple[Endpoint, ...]:
        """The endpoints of *modes*."""
        return tuple(endpoint for endpoint in self.endpoints if endpoint.mode in modes)

    def default_of(self, *modes: Mode) -> Endpoint:
        """The endpoint of *modes* that is used when a call names no model: the default model's, or the first."""
        able = self.of(*modes)
        return next((endpoint for endpoint in able if endpoint.model == self.default.model), able[0])

    def model(self, name: str, *modes: Mode) -> Endpoint:
        """
        The first endpoint, of *modes* if any are given, of the model with the short name *name*.

        Raises:
            UnknownModel: no model has that name; the nearest one and all names are given.

        """
        wanted = unwrapped(name).lower()
        among = self.of(*modes) if modes else self.endpoints
        for endpoint in (*among, *self.endpoints):
            if endpoint.model == wanted:
                return endpoint
        names = _models(among)
        nearest = self._nearest_model(name, among)
        hint = f"The nearest is {nearest}. " if nearest else ""
        fault = ArgumentFault(
            f"No model is called {name[:80]!r}.",
            f"{hint}Models: {', '.join(names)}.",
            "model",
            showable(name[:80]),
            names,
            nearest,
        )
        raise UnknownModel.of([fault])

    def all_of(self, name: str, mode: Mode | None = None) -> tuple[Endpoint, ...]:
        """
        Every endpoint of the model with the short name *name*, those of *mode* first.

        Raises:
            UnknownModel: no model has that name; the nearest one and all names are given.

        """
        first = self.model(name, mode) if mode else self.model(name)
        own = [endpoint for endpoint in self.endpoints if endpoint.model == first.model]
        return tuple(sorted(own, key=lambda endpoint: endpoint.mode != first.mode))

    def by_endpoint_id(self, endpoint_id: str) -> Endpoint | None:
        """The endpoint with fal.ai's id *endpoint_id*, if it is in the catalog."""
        return next((endpoint for endpoint in self.endpoints if endpoint.endpoint_id == endpoint_id), None)

    def of_kind(self, name: str, *modes: Mode) -> tuple[str, ...]:
        """The models of *modes* that *name*, such as ``4k``, can mean: those with each of its words that any has."""
        models = _models(self.of(*modes))
        words = _words(name) & {word for model in models for word in model.split("-")}
        return tuple(model for model in models if words and words <= set(model.split("-")))

    def same_version(self, model: str, *modes: Mode) -> str | None:
        """The model of *modes* that is nearest to *model* and of its version, if there is one."""
        meant = self._nearest_model(model, self.of(*modes))
        shared = set((meant or "").split("-")) & set(model.split("-"))
        return meant if any(word[1:2].isdigit() for word in shared) else None

    def _nearest_model(self, name: str, among: tuple[Endpoint, ...]) -> str | None:
        by_id = self.by_endpoint_id(unwrapped(name).strip("/"))
        if by_id is not None:
            return by_id.model
        words = _words(name[:80])
        spelt = re.sub(r"[\s_/.]+", "-", unwrapped(name[:80]).lower())

        def likeness(endpoint: Endpoint) -> float:
            own = set(endpoint.model.split("-"))
            # A version that has no such tier is nearer than the tier of another version.
            return sum(2 if word[1:2].isdigit() else 1 for word in own & words) - len(own - words) / 2

        near = [endpoint for endpoint in among if words & set(endpoint.model.split("-"))]
        if near:
            # Of several that are as near, the first: a family without its tier means no dear one.
            return max(near, key=likeness).model
        return next(iter(difflib.get_close_matches(spelt, _models(among), n=1)), None)


def _models(endpoints: Iterable[Endpoint]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(endpoint.model for endpoint in endpoints))


_SPELLINGS: Final[tuple[tuple[str, str], ...]] = (
    (r"\bomni[\s_.-]*v?(\d)(?:\.0)?\b", r" o\1"),
    (r"\bv?(\d)(?:\.0)?[\s_.-]*omni\b", r" o\1"),
    (r"(\d)\.0\b", r"\1"),
    (r"\b(v?\d)[\s-]+(\d)\b", r"\1.\2"),
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
    return words | {f"v{word}" for word in words if word.replace(".", "", 1).isdigit()}


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
    return read_endpoint(path.read_bytes(), path.name)


def read_endpoint(data: bytes, name: str) -> Endpoint:
    """
    The endpoint in *data*, the bytes of the file *name*.

    Raises:
        CatalogError: it cannot be used.

    """
    try:
        return Endpoint.model_validate_json(data)
    except ValidationError as error:
        raise CatalogError(f"{name}: {_said(error.errors()[0])}") from None


class _Misfit(ValueError):
    """Parts of a file do not fit each other; the message starts with the place."""


def _wrong(place: str, expected: str, found: object) -> _Misfit:
    return _Misfit(f"{place or 'the file'}: {expected} expected, found {to_json(found).decode()[:80]}")


def _said(error: "ErrorDetails") -> str:
    """What pydantic finds wrong, as a sentence with the place and what belongs there."""
    kind, context, place = error["type"], error.get("ctx", {}), error["loc"]
    if kind == "json_invalid":
        return f"not JSON: {context['error']}"
    if isinstance(cause := context.get("error"), _Misfit):
        return str(cause)
    if place and place[-1] == "[key]":
        return f"{_place(place[:-1])}: unknown name; known are {_choices(context['expected'])}"
    if kind == "extra_forbidden":
        part: type[BaseModel] = Endpoint if len(place) == 1 else _PARTS[str(place[0])]
        known = (form.alias or name for name, form in part.model_fields.items())
        return f"{_place(place)}: unknown name; known are {', '.join(known)}"
    if kind == "missing":
        return f"{_place(place)}: is missing"
    expected = (
        _EXPECTED.get(kind)
        or ("expected" in context and f"one of {_choices(context['expected'])}")
        or ("pattern" in context and f"a text like {context['pattern'].strip('^$')}")
        or (str(cause) if cause else error["msg"])
    )
    return str(_wrong(_place(place), expected, error["input"]))


_PARTS: Final[dict[str, type[BaseModel]]] = {
    "arguments": Argument,
    "rules": Rule,
    "limits": MediaLimits,
    "prices": Price,
    "billed": Billed,
    "timing": Timing,
}
_EXPECTED: Final = {
    **dict.fromkeys(("model_type", "dict_type", "mapping_type"), "an object"),
    **dict.fromkeys(("tuple_type", "list_type"), "a list"),
    **dict.fromkeys(("string_type", "string_too_short"), "a text"),
    **dict.fromkeys(("int_type", "int_from_float", "greater_than_equal"), "a whole number"),
    "bool_type": "true or false",
    "too_short": "at least one",
}


def _place(steps: tuple[int | str, ...]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")


def _choices(expected: str) -> str:
    return ", ".join(re.findall(r"'([^']*)'", expected))


def _bind(
    place: str,
    arguments: Mapping[str, Argument],
    schema: Schema,
    limits: Mapping[str, MediaLimits],
    tools: tuple[JobTool, ...],
) -> None:
    """Tie the arguments of one level to their fields in *schema*, to *limits*, and to *tools* where they name none."""
    properties = members_of(schema.get("properties"))
    for name, argument in arguments.items():
        here = f"{place}.{name}"
        if argument.field not in properties:
            raise _wrong(f"{here}.field", f"one of {', '.join(properties)}", argument.field)
        if argument.limits_name is not None and argument.limits_name not in limits:
            raise _wrong(f"{here}.limits", f"one of {', '.join(limits)}", argument.limits_name)
        own = members_of(properties[argument.field])
        if argument.many:
            own = members_of(own.get("items"))
        if wrong := [tool for tool in argument.own_tools if tool not in tools]:
            raise _wrong(f"{here}.tools", f"one of {', '.join(tools)}", wrong[0])
        argument.bind(name, own, limits.get(argument.limits_name or ""), tools)
        _bind(f"{here}.items", argument.items, own, limits, tools)
        if fault := _unreadable(argument):
            raise _Misfit(f"{here}: {fault}")
    fed = {argument.field for argument in arguments.values() if argument.required}
    for needed in items_of(schema.get("required")):
        if needed not in fed:
            raise _Misfit(f"{place}: no required argument becomes the required field {needed}")


def _unreadable(argument: Argument) -> str | None:
    """What the argument's schema lacks that its kind is read by."""
    kind, schema, choices = argument.kind, f"the schema of {argument.field}", argument.choices
    if kind == "choice" and not choices:
        return f"{schema} lists no values"
    if kind == "length" and not all(choice.isdigit() for choice in choices):
        return f"{schema} lists values that are not seconds"
    if kind == "length" and not argument.lengths:
        return f"{schema} lists no values, and has no minimum and maximum"
    if kind == "length" and argument.default is not None and str(argument.default) not in map(str, argument.lengths):
        return f"{schema} has a default that is not among its values"
    if kind in ("sound", "keep_sound") and not isinstance(argument.default, bool):
        return f"{schema} has no default of true or false"
    inside = {item.kind for item in argument.items.values()}
    if kind == "shot" and not (argument.many and {"text", "length"} <= inside):
        return "shots are a list whose items are of kind text and length"
    if inside and kind not in ("object", "shot"):
        return f"an argument of kind {kind} has no items"
    if argument.send_default_with and argument.default is None:
        return f"{schema} has no default to send"
    return None


def _check_rule(place: str, rule: Rule, arguments: Mapping[str, Argument]) -> None:
    for selector in (*rule.of, *rule.counts, *([rule.argument] if rule.argument else [])):
        level = arguments
        for step in selector.split("."):
            name = step.removesuffix("[]")
            if not _STEP.fullmatch(step) or name not in level:
                raise _Misfit(f"{place}: {selector} names no argument of this endpoint")
            if step.endswith("[]") and not level[name].many:
                raise _Misfit(f"{place}: {selector} takes {name} for a list")
            level = level[name].items
    if rule.kind in ("count", "total", "text_length", "seconds") and "max" not in rule.model_fields_set:
        raise _wrong(f"{place}.max", "a whole number", None)
    if rule.kind == "reference" and "{n}" not in rule.marker:
        raise _wrong(f"{place}.marker", "a text with {n}", rule.marker)
    if rule.kind == "needs" and (not rule.argument or rule.value is None):
        raise _Misfit(f"{place}: an argument and its value expected")
    if rule.kind == "value" and rule.value is None:
        raise _Misfit(f"{place}: a value expected")
