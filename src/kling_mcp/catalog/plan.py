"""
Plans a call: from the tools' arguments to the body that fal.ai reads.

The tools have one set of argument names for every model; each endpoint has its
own. ``plan`` checks a call against the endpoint's schema and rules before
anything is uploaded or spent, and writes the endpoint's own body. It does no
I/O: pictures stay as the caller gave them, listed as slots to be filled.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias, cast

from kling_mcp.catalog import rules
from kling_mcp.catalog.models import JOB_TOOLS, TOOLS
from kling_mcp.catalog.values import (
    ValidationReport,
    also_called,
    choice,
    is_given,
    nearest,
    nothing,
    opened,
    read,
    refused,
    seconds_to_wait,
    show,
    span,
    text,
    truth,
    whole,
)
from kling_mcp.decoders import SHOWS_VIDEOS
from kling_mcp.errors import ArgumentFault, InvalidArguments, UnknownModel
from kling_mcp.ids import unwrapped
from kling_mcp.json_types import is_list, is_object, items_of, members_of
from kling_mcp.texts import showable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jsonschema.exceptions import ValidationError

    from kling_mcp.catalog.models import Argument, Billed, Catalog, Endpoint, JobTool, MediaLimits, Mode, Rule, Tool

__all__ = [
    "COMMON_ARGUMENTS",
    "EDIT_MODES",
    "MAX_NAME_CHARACTERS",
    "MAX_TAKE",
    "MAX_WAIT_SECONDS",
    "VOICE_ARGUMENTS",
    "InputKind",
    "InputSlot",
    "Plan",
    "Shot",
    "modes_of",
    "plan",
    "usual_endpoint",
    "wish",
]

BodyPath: TypeAlias = tuple[str | int, ...]

COMMON_ARGUMENTS: Final = ("model", "max_cost_usd", "take", "wait_seconds")
"""The arguments of the job tools that are this program's own; no endpoint sees them."""

VOICE_ARGUMENTS: Final = ("name",)
"""The same of the tool that makes a voice: what the voice is called here."""

EDIT_MODES: Final[Mapping[str, Mode]] = {"edit": "edit", "reference": "reference-video"}
"""What ``mode`` of edit_video may be: the only tool whose arguments do not say which mode is meant."""

MAX_NAME_CHARACTERS: Final = 60
MAX_TAKE: Final = 99
MAX_WAIT_SECONDS: Final = 45


InputKind: TypeAlias = Literal["picture", "video", "audio", "voice"]
_INPUT_KINDS: Final[Mapping[str, InputKind]] = {
    "picture": "picture",
    "video": "video",
    "audio": "audio",
    "voice": "voice",
}


@dataclass(frozen=True, slots=True)
class InputSlot:
    """
    A picture, video, sound or voice of a call, and where its URL or id belongs.

    Attributes:
        argument: The caller's name of it, such as ``elements[0].frontal_image``.
        path: Where it stands in the body.
        value: What the caller gave: a URL, a path, a ``data:`` URI, a resource of an earlier job; of a voice, its id
            or the name that it was made with.
        limits: What the endpoint takes there, if a source says.

    """

    argument: str
    path: BodyPath
    value: str
    limits: MediaLimits | None
    kind: InputKind = "picture"


@dataclass(frozen=True, slots=True)
class Shot:
    """One shot of a multi-shot job."""

    prompt: str
    seconds: int


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """
    A checked call.

    Attributes:
        tool: The tool that starts the job.
        body: The endpoint's own request; what is in *inputs* still stands there as the caller gave it.
        seconds: The length of the whole video, the longest where it is left to fal.ai; 0 where an input decides it.
        audio: Whether there is sound; None where the endpoint has no switch.
        voice: Whether the call uses voice control.
        tier: The value of the endpoint's ``tier_argument``.
        input_seconds: The inputs whose length sets the price, each with the seconds that an estimate assumes.
        longest: How long the inputs may be, in seconds, by argument.
        length_rules: The rules behind that, besides the limits of each input.
        name: What the voice that is made is to be called; None where the call has no name.
        ceiling_times: How many times its price the job may cost, where sources leave that open.
        missing: What a real call would need besides; only in an estimate.

    """

    endpoint: Endpoint
    tool: JobTool
    body: dict[str, object]
    inputs: tuple[InputSlot, ...]
    seconds: int
    audio: bool | None
    voice: bool
    shots: tuple[Shot, ...]
    warnings: tuple[str, ...]
    take: int
    max_cost_usd: Decimal | None
    wait_seconds: int | None
    missing: tuple[str, ...]
    tier: str = ""
    input_seconds: Mapping[str, Decimal | None] = field(default_factory=dict[str, "Decimal | None"])
    longest: Mapping[str, Decimal] = field(default_factory=dict[str, Decimal])
    length_rules: tuple[Rule, ...] = ()
    name: str | None = None
    ceiling_times: Decimal = Decimal(1)

    @property
    def pictures(self) -> tuple[InputSlot, ...]:
        """The inputs that are pictures."""
        return tuple(slot for slot in self.inputs if slot.kind == "picture")


def usual_endpoint(catalog: Catalog, tool: Tool, arguments: Mapping[str, object]) -> Endpoint:
    """The endpoint of a call of *tool* that names no model."""
    findings = ValidationReport(estimating=tool == "estimate_cost")
    if findings.estimating:
        tool = _estimated(catalog, arguments, findings)
    return _chosen(catalog, tool, {**arguments, "model": None}, findings)[0]


def plan(catalog: Catalog, tool: Tool, arguments: Mapping[str, object], endpoint: Endpoint | None = None) -> Plan:
    """
    Check *arguments*, a call of *tool*, and write the body for its endpoint: *endpoint*, or the one that they mean.

    Raises:
        UnknownModel: no model has the name in ``model``; what else is wrong is among its faults.
        InvalidArguments: everything that fal.ai would not take, or that is not among the tool's arguments.

    """
    findings = ValidationReport(estimating=tool == "estimate_cost")
    if findings.estimating:
        tool = _estimated(catalog, arguments, findings)
    endpoint, certain = (endpoint, True) if endpoint else _chosen(catalog, tool, arguments, findings)
    given = _given(catalog, endpoint, tool, arguments, findings)
    job_tool = _job_tool(endpoint, tool, given)
    _note_names(catalog, endpoint, tool, job_tool, arguments, findings, certain=certain)
    _require(catalog, endpoint, job_tool, arguments, given, findings)
    take, max_cost_usd, wait_seconds = _own(arguments, findings)
    called = _name(arguments.get("name"), findings) if endpoint.result == "voice" else None
    audio = _settle_sound(endpoint, given)
    if endpoint.sound == "unknown":
        findings.warnings.append(f"Whether videos of {endpoint.model} have sound is not known.")
    _settle_defaults(endpoint, given)
    if certain:
        rules.check(catalog, endpoint, given, findings)
    seconds = _settle_length(catalog, endpoint, given, findings)
    assumed = _assumed_seconds(catalog, endpoint, arguments, given, findings)
    if findings.faults:
        raise findings.refusal.of(findings.faults)
    inputs: list[InputSlot] = []
    body = _body(endpoint.arguments, given, "", (), inputs)
    _guard(endpoint, body, findings)
    tier = endpoint.arguments.get(endpoint.tier_argument)
    case = next((case for case in endpoint.billed if not case.given or case.given in given), None)
    return Plan(
        endpoint=endpoint,
        tool=job_tool,
        body=body,
        inputs=tuple(inputs),
        seconds=seconds,
        audio=audio,
        voice=_has_voice(endpoint.arguments, given),
        shots=_shots(endpoint, given),
        warnings=tuple(findings.warnings),
        take=take,
        max_cost_usd=max_cost_usd,
        wait_seconds=wait_seconds,
        missing=tuple(findings.missing),
        tier="" if tier is None else str(given.get(tier.name, tier.default) or ""),
        input_seconds={} if case is None else _paid_inputs(endpoint, case, assumed),
        longest=_longest(endpoint, case, given),
        length_rules=rules.of_lengths(endpoint, given),
        name=called,
        ceiling_times=findings.ceiling_times,
    )


def wish(endpoint: Endpoint, body: Mapping[str, object]) -> dict[str, object]:
    """
    What *body* asks of *endpoint*, however it is spelt: without defaults that need not be sent, numbers by value.

    Two bodies with the same wish make the same video.
    """
    always = {"length", "sound", "keep_sound"}
    defaults = {
        argument.field: argument.default
        for argument in endpoint.arguments.values()
        if argument.default is not None and argument.kind not in always and not argument.send_default_with
    }
    return {name: _by_value(value) for name, value in body.items() if name not in defaults or value != defaults[name]}


def _by_value(value: object) -> object:
    if is_object(value):
        return {name: _by_value(member) for name, member in value.items()}
    if is_list(value):
        return [_by_value(member) for member in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _estimated(catalog: Catalog, arguments: Mapping[str, object], findings: ValidationReport) -> Tool:
    """The tool that a price is asked for; where none is named, the arguments say which."""
    if is_given(arguments.get("tool")):
        tools: tuple[JobTool, ...] = tuple(tool for tool in JOB_TOOLS if modes_of(catalog, tool))
        with findings.noting():
            return tools[choice(arguments["tool"], "tool", tools)]
    return "estimate_cost"


def modes_of(catalog: Catalog, tool: Tool) -> tuple[Mode, ...]:
    """The modes that *tool* may mean."""
    return tuple(mode for mode in catalog.modes if tool == "estimate_cost" or tool in TOOLS[mode])


def _chosen(
    catalog: Catalog, tool: Tool, arguments: Mapping[str, object], findings: ValidationReport
) -> tuple[Endpoint, bool]:
    """The endpoint of a call, and whether it is certain; else the default stands in, to find what else is wrong."""
    modes = modes_of(catalog, tool)
    if "edit" in modes and is_given(arguments.get("mode")) and _names_edit_mode(tool, arguments["mode"]):
        with findings.noting():
            modes = (list(EDIT_MODES.values())[choice(arguments["mode"], "mode", tuple(EDIT_MODES))],)
    elif tool == "edit_video":
        modes = modes[:1]
    model = arguments.get("model")
    able = catalog.of(*modes)
    if is_given(model):
        named = _named(catalog, tool, modes, model, findings)
        if named is None:
            return _stand_in(catalog, _mode_meant(able, tool, arguments), arguments), False
        able = tuple(endpoint for endpoint in able if endpoint.model == named)
        return _by_argument(able, _mode_meant(able, tool, arguments), arguments), True
    return _stand_in(catalog, _mode_meant(able, tool, arguments), arguments), True


def _names_edit_mode(tool: Tool, value: object) -> bool:
    return tool == "edit_video" or (
        tool == "estimate_cost" and isinstance(value, str) and unwrapped(value) in EDIT_MODES
    )


def _named(
    catalog: Catalog, tool: Tool, modes: tuple[Mode, ...], model: object, findings: ValidationReport
) -> str | None:
    """The model that is named, if it has one of *modes*; else what is wrong is noted."""
    models = tuple(dict.fromkeys(endpoint.model for endpoint in catalog.of(*modes)))
    try:
        if not isinstance(model, str):
            raise refused("model", model, "the name of a model is expected", f"Models: {', '.join(models)}.", models)
        endpoint = catalog.model(model, *modes)
    except (InvalidArguments, UnknownModel) as error:
        findings.faults += error.faults
        findings.refusal = type(error)
        return None
    if endpoint.mode not in modes:
        own = [other for other in catalog.endpoints if other.model == endpoint.model]
        tools = ", ".join(other for other in JOB_TOOLS if any(one in _usable(catalog, other) for one in own))
        meant = catalog.same_version(endpoint.model, *modes)
        hint = f"The nearest is {meant}. " if meant else ""
        findings.faults.append(
            ArgumentFault(
                f"model is {endpoint.model}, which {tool} cannot use.",
                f"{hint}Models that it can use: {', '.join(models)}. {endpoint.model} is for {tools}.",
                "model",
                endpoint.model,
                models,
                meant,
                models,
            )
        )
        return None
    if tool == "multi_shot_video" and endpoint.argument_of("shot") is None:
        shooting = tuple(dict.fromkeys(other.model for other in catalog.of(*modes) if other.argument_of("shot")))
        findings.faults.append(
            ArgumentFault(
                f"model is {endpoint.model}, which makes single shots only.",
                f"Models that take several shots: {', '.join(shooting)}.",
                "model",
                endpoint.model,
                shooting,
                models=shooting,
            )
        )
        return None
    return endpoint.model


def _mode_meant(able: tuple[Endpoint, ...], tool: Tool, arguments: Mapping[str, object]) -> Mode:
    """The mode whose endpoints take most of the arguments; of several, the first that has all that it needs."""
    names = {name for name, value in arguments.items() if is_given(value)}

    def fits(mode: Mode) -> tuple[int, bool]:
        of_mode = [endpoint for endpoint in able if endpoint.mode == mode]
        taken = {name for endpoint in of_mode for name in endpoint.arguments if _takes(endpoint, tool, name)}
        # An estimate may leave out what the job needs.
        whole = tool == "estimate_cost" or any(
            names.issuperset(
                name for name, argument in endpoint.arguments.items() if argument.required and tool in argument.tools
            )
            for endpoint in of_mode
        )
        return len(names & taken), whole

    return max(dict.fromkeys(endpoint.mode for endpoint in able), key=fits)


def _stand_in(catalog: Catalog, mode: Mode, arguments: Mapping[str, object]) -> Endpoint:
    """The endpoint of *mode* for a call that names no model."""
    model = catalog.default_of(mode).model
    return _by_argument(tuple(one for one in catalog.endpoints if one.model == model), mode, arguments)


def _by_argument(able: tuple[Endpoint, ...], mode: Mode, arguments: Mapping[str, object]) -> Endpoint:
    """Of a model's endpoints for *mode*, the one whose argument is given, or that takes most of what is given."""
    of_mode = [endpoint for endpoint in able if endpoint.mode == mode]
    given = {name for name, value in arguments.items() if is_given(value)}
    return max(of_mode, key=lambda one: (one.when in given, len(given & set(one.arguments))))


def _takes(endpoint: Endpoint, tool: Tool, name: str) -> bool:
    argument = endpoint.arguments.get(name)
    return argument is not None and (tool == "estimate_cost" or tool in argument.tools)


def _own_names(catalog: Catalog, endpoint: Endpoint, tool: Tool, *, estimating: bool) -> tuple[str, ...]:
    """The arguments that are this program's own; no endpoint sees them."""
    names = COMMON_ARGUMENTS
    if tool == "edit_video" or endpoint.mode in EDIT_MODES.values():
        names = (*names, "mode")
    if endpoint.result == "voice":
        names = (*names, *VOICE_ARGUMENTS)
    if not estimating:
        return names
    # In an estimate, the assumed length of what is given.
    return (*names, "tool", *([_length_name(catalog)] if endpoint.billed and endpoint.length is None else []))


def _length_name(catalog: Catalog) -> str:
    """What a length is called in a call."""
    return catalog.default.length.name if catalog.default.length else ""


def _note_names(
    catalog: Catalog,
    endpoint: Endpoint,
    tool: Tool,
    job_tool: Tool,
    arguments: Mapping[str, object],
    findings: ValidationReport,
    *,
    certain: bool,
) -> None:
    """Note every name that the tool, or the model, does not take; what asks for nothing special is left out."""
    own = _own_names(catalog, endpoint, tool, estimating=findings.estimating)
    for name, value in arguments.items():
        if name in own or _takes(endpoint, tool, name):
            continue
        takers = [other.arguments[name] for other in _nearest_first(catalog, tool) if name in other.arguments]
        if not takers:
            findings.faults.append(_unknown(catalog, endpoint, tool, name, value))
        # Some hosts send every argument that they know, whatever the model takes.
        elif is_given(value) and certain and not _belongs_to_shots(endpoint, job_tool, name):
            left_out = _left_out(endpoint, takers, name, value)
            if left_out:
                findings.warnings.append(left_out)
            elif _means_another(catalog, endpoint, tool, name, value):
                findings.faults.append(_unknown(catalog, endpoint, tool, name, value))
            else:
                findings.faults.append(_misplaced(catalog, endpoint, tool, name, arguments))


def _nearest_first(catalog: Catalog, tool: Tool) -> tuple[Endpoint, ...]:
    """All endpoints, those that *tool* uses first."""
    own = modes_of(catalog, tool)
    return (*catalog.of(*own), *(endpoint for endpoint in catalog.endpoints if endpoint.mode not in own))


def _usable(catalog: Catalog, tool: Tool) -> tuple[Endpoint, ...]:
    """The endpoints that *tool* uses."""
    able = catalog.of(*modes_of(catalog, tool))
    return tuple(one for one in able if tool != "multi_shot_video" or one.argument_of("shot") is not None)


def _means_another(catalog: Catalog, endpoint: Endpoint, tool: Tool, name: str, value: object) -> bool:
    """Whether *name*, an argument of other tools, is what others call one of *tool* that takes such a *value*."""
    if any(name in other.arguments for other in catalog.of(*modes_of(catalog, tool))):
        return False
    usable = (endpoint, *_usable(catalog, tool))
    meanings = _meanings(usable)
    meant = meanings.get(also_called(name, meanings) or "")
    single = value[0] if is_list(value) and len(value) == 1 else value
    return any(
        _read(other.arguments[meant], form) is not None
        for other in usable
        if meant is not None and meant in other.arguments
        for form in (value, [value], single)
    )


def _belongs_to_shots(endpoint: Endpoint, tool: Tool, name: str) -> bool:
    """Whether *name* is the length beside shots, which is compared with their sum."""
    return tool == "multi_shot_video" and endpoint.length is not None and name == endpoint.length.name


def _left_out(endpoint: Endpoint, takers: Sequence[Argument], name: str, value: object) -> str | None:
    """Why *value* may be left out: it asks for what happens anyway. None where it asks for more."""
    if takers[0].kind == "sound":
        makes = {"always": True, "none": False}.get(endpoint.sound)
        if makes is None or truth(value) is not makes:
            return None
        return f"{endpoint.model} {'always makes' if makes else 'makes no'} sound, so {name} was left out."
    for taker in takers:
        if taker.default is not None and _read(taker, value) == _read(taker, taker.default):
            return f"{endpoint.model} does not take {name}; {show(value)} is its usual value, so it was left out."
    return None


def _read(argument: Argument, value: object) -> object:
    """What *argument* takes from *value*; None where it does not take it."""
    findings = ValidationReport(estimating=False)
    found = None
    with findings.noting():
        found = read(argument, opened(argument, value, argument.name), argument.name, findings)
    return None if findings.faults else found


def _misplaced(
    catalog: Catalog, endpoint: Endpoint, tool: Tool, name: str, arguments: Mapping[str, object]
) -> ArgumentFault:
    """An argument of another model, or of another tool."""
    takers = [other for other in _usable(catalog, tool) if _takes(other, tool, name)]
    takers = [other for other in takers if other.mode == endpoint.mode] or takers
    own = [other for other in (endpoint, *catalog.of(*modes_of(catalog, tool))) if name in other.arguments]
    others = takers or own or _likeliest(catalog, name, arguments)
    argument = others[0].arguments[name]
    allowed, value = _names(catalog, endpoint, tool), show(arguments[name])
    itself = next((other for other in takers if other.model == endpoint.model), None)
    if itself is not None:
        what, step = _otherwise(endpoint, itself, tool, name, arguments)
        return ArgumentFault(what, f"Leave it out, or {step}.", name, value, allowed)
    why, known = _why_not(endpoint, argument)
    if takers:
        models = tuple(dict.fromkeys(other.model for other in takers))
        instead = next((f" {taker.arguments[name].instead}" for taker in takers if taker.arguments[name].instead), "")
        return ArgumentFault(
            f"{why}{endpoint.model} does not take {name}.",
            f"Leave it out, or use a model that takes it: {', '.join(models)}.{instead}",
            name,
            value,
            allowed,
            models=models,
        )
    tools = argument.tools
    return ArgumentFault(
        f"{why}{tool} does not take {name}; {' and '.join(tools)} {'do' if tools[1:] else 'does'}.",
        f"Leave it out{'' if known else f', or call {tools[0]}'}. Arguments of {tool} here: {', '.join(allowed)}.",
        name,
        value,
        allowed,
        known or None,
    )


def _otherwise(
    endpoint: Endpoint, itself: Endpoint, tool: Tool, name: str, arguments: Mapping[str, object]
) -> tuple[str, str]:
    """How a call is not for *endpoint* but for *itself*, which is of the same model and takes *name*."""
    if endpoint.mode == itself.mode:
        return f"With {endpoint.when}, {tool} does not take {name}.", f"give {itself.when} instead of {endpoint.when}"
    words = {mode: word for word, mode in EDIT_MODES.items()}
    if {endpoint.mode, itself.mode} <= set(words):
        what = f"With mode {words[endpoint.mode]}, {tool} does not take {name}."
        return what, f"set mode to {words[itself.mode]}"
    own = [other for other in endpoint.arguments if other not in itself.arguments and is_given(arguments.get(other))]
    if tool != "estimate_cost" and own:
        return f"With {' and '.join(own)}, {tool} does not take {name}.", f"leave out {' and '.join(own)}"
    what = f"{endpoint.model} does not take {name} for {TOOLS[endpoint.mode][0]}."
    return what, f"set tool to {' or '.join(TOOLS[itself.mode])}"


def _likeliest(catalog: Catalog, name: str, arguments: Mapping[str, object]) -> list[Endpoint]:
    """The endpoints with an argument *name*, first those that take most of what is given and lack nothing."""
    given = {name for name, value in arguments.items() if is_given(value)}

    def fit(endpoint: Endpoint) -> tuple[int, bool]:
        needed = {name for name, argument in endpoint.arguments.items() if argument.required}
        return len(given & set(endpoint.arguments)), given >= needed

    able = [endpoint for endpoint in catalog.endpoints if name in endpoint.arguments]
    return sorted(able, key=fit, reverse=True)


def _why_not(endpoint: Endpoint, argument: Argument) -> tuple[str, str]:
    """Why no choice is left where *endpoint* lacks *argument*, and the argument that decides; empty where there is."""
    measured = endpoint.measured(endpoint.billed[-1]) if endpoint.billed else ()
    keeps = endpoint.argument_of("keep_sound")
    if argument.kind == "length" and endpoint.length is None and measured:
        return f"{endpoint.model} makes a video that is as long as {measured[0]}: ", measured[0]
    if argument.kind == "sound" and keeps is not None:
        return f"{endpoint.model} keeps or drops the sound of its input, as {keeps.name} says: ", keeps.name
    if argument.kind == "sound" and endpoint.result == "video" and endpoint.sound != "switchable":
        does = {"always": "always makes sound", "unknown": "may make sound or not, which fal.ai does not say"}
        return f"{endpoint.model} {does.get(endpoint.sound, 'makes no sound')}: ", ""
    return "", ""


def _unknown(catalog: Catalog, endpoint: Endpoint, tool: Tool, name: str, value: object) -> ArgumentFault:
    """A name that the tool does not know; what others call an argument, or a name of fal.ai's, leads to it."""
    allowed = _names(catalog, endpoint, tool)
    usable = _usable(catalog, tool)
    near = (endpoint, *usable, *catalog.endpoints)
    own = _meanings((endpoint, *usable)) | {known: known for known in allowed}
    every = _meanings(near) | own
    meant = next(
        (known[found] for search in (also_called, nearest) for known in (own, every) if (found := search(name, known))),
        None,
    )
    kind = value if isinstance(value, str) and len(value.split()) <= _KIND_WORDS else name if truth(value) else ""
    models = catalog.of_kind(kind, *modes_of(catalog, tool)) if meant in {None, "model"} else ()
    takers = {other: other.arguments[meant] for other in near if meant is not None and meant in other.arguments}
    instead = next((f"{taker.instead} " for taker in takers.values() if taker.instead), "")
    hint = ""
    if models:
        # Such as resolution "4K" or mode "pro": what others set by an argument is part of a model's name here.
        decides = f"The model decides this; the nearest are {', '.join(models)}. "
        hint = f"The nearest is model. {decides}" if meant else decides
        meant = "model"
    elif meant in allowed:
        hint = f"The nearest is {meant}. {instead}"
    elif meant is not None:
        tools = next(iter(takers.values())).tools
        able = dict.fromkeys(other.model for other, taker in takers.items() if set(taker.tools) & set(tools))
        hint = f"The nearest is {meant}, which {' or '.join(tools)} takes with {', '.join(able)}. {instead}"
    elsewhere = dict.fromkeys(it for one in near if name in one.arguments for it in one.arguments[name].tools)
    if elsewhere:
        hint += f"{name} is an argument of {', '.join(elsewhere)}. "
    return ArgumentFault(
        f"{tool} has no argument {name[:40]!r} (given as {show(value)}).",
        f"{hint}Arguments of {tool} with {endpoint.model}: {', '.join(allowed)}.",
        showable(name[:40]),
        show(value),
        allowed,
        meant,
        models,
    )


def _meanings(endpoints: Iterable[Endpoint]) -> dict[str, str]:
    """The arguments of *endpoints* by their names and by fal.ai's; what comes first counts."""
    arguments = [argument for endpoint in endpoints for argument in endpoint.arguments.values()]
    return {one.field: one.name for one in reversed(arguments)} | {one.name: one.name for one in arguments}


_KIND_WORDS: Final = 2


def _names(catalog: Catalog, endpoint: Endpoint, tool: Tool) -> tuple[str, ...]:
    own = _own_names(catalog, endpoint, tool, estimating=False)
    return (*(name for name in endpoint.arguments if _takes(endpoint, tool, name)), *own)


def _given(
    catalog: Catalog, endpoint: Endpoint, tool: Tool, arguments: Mapping[str, object], findings: ValidationReport
) -> dict[str, object]:
    given: dict[str, object] = {}
    for name, argument in endpoint.arguments.items():
        if not (_takes(endpoint, tool, name) or _belongs_to_shots(endpoint, tool, name)):
            continue
        before = len(findings.faults)
        with findings.noting():
            value = opened(argument, arguments.get(name), name)
            if is_given(value):
                given[name] = read(argument, value, name, findings)
        if len(findings.faults) > before:
            takers = _would_take(catalog.of(endpoint.mode), endpoint, name, arguments[name])
            longer = "" if takers else _longer(argument, arguments[name])
            findings.faults[before:] = [
                replace(fault, models=takers, next_step=fault.next_step + longer) for fault in findings.faults[before:]
            ]
    return given


def _longer(argument: Argument, value: object) -> str:
    """How a video gets longer than one job makes it."""
    return _CONTINUE if argument.kind == "length" and (whole(value) or 0) > argument.lengths[-1] else ""


_CONTINUE: Final = (
    " For a longer video, another job continues the finished one: its image is kling://jobs/{job_id}/last-frame."
    if SHOWS_VIDEOS
    else ""
)


def _would_take(able: tuple[Endpoint, ...], endpoint: Endpoint, name: str, value: object) -> tuple[str, ...]:
    """The other models that accept the value that *endpoint* does not."""
    models = [
        other.model
        for other in able
        if other is not endpoint and name in other.arguments and _read(other.arguments[name], value) is not None
    ]
    return tuple(dict.fromkeys(models))


def _job_tool(endpoint: Endpoint, tool: Tool, given: Mapping[str, object]) -> JobTool:
    """The tool that would start the job: an estimate is for the one that its arguments belong to."""
    if tool != "estimate_cost":
        return tool
    shots = endpoint.argument_of("shot")
    if shots is not None and shots.name in given:
        return shots.tools[0]
    return TOOLS[endpoint.mode][0]


def _require(
    catalog: Catalog,
    endpoint: Endpoint,
    tool: Tool,
    arguments: Mapping[str, object],
    given: Mapping[str, object],
    findings: ValidationReport,
) -> None:
    required = (argument for argument in endpoint.arguments.values() if argument.required and tool in argument.tools)
    missing = [argument for argument in required if argument.name not in {*given, *findings.faulty}]
    if findings.estimating:
        findings.missing[:0] = [argument.name for argument in missing]
        return
    others = sorted({one.when for one in catalog.of(endpoint.mode) if one.model == endpoint.model} - {endpoint.when})
    for argument in missing:
        state = nothing(arguments[argument.name]) if argument.name in arguments else "is missing"
        from_text = endpoint.mode == "image-to-video" and argument.kind == "picture"
        instead = " Without a picture, text_to_video makes a video from text alone." if from_text else ""
        if argument.name == endpoint.when:
            instead = f" Or give {' or '.join(others)} instead." if others else ""
        findings.faults.append(
            ArgumentFault(
                f"{argument.name} {state}; {tool} needs it.",
                f"Give it: {argument.description}{instead}",
                argument.name,
                show(arguments[argument.name]) if argument.name in arguments else None,
            )
        )


def _settle_length(catalog: Catalog, endpoint: Endpoint, given: dict[str, object], findings: ValidationReport) -> int:
    """
    The length of the video in seconds: as given, as the sum of the shots, or by default; also written to *given*.

    Where neither the call nor the endpoint says it, the longest. 0 where the endpoint has no length.
    """
    length = endpoint.length
    if length is None:
        return 0
    shots = endpoint.argument_of("shot")
    usual = None if length.default is None else int(str(length.default))
    if shots is not None and shots.name in given and shots.name not in findings.faulty:
        seconds = sum(shot.seconds for shot in _shots(endpoint, given))
        stated = given.get(length.name)
        if stated not in (None, seconds, usual):
            findings.faults.append(
                ArgumentFault(
                    f"{length.name} is {stated}, and the {shots.name} add up to {seconds} s.",
                    f"Leave {length.name} out: it is the sum of the {shots.name}.",
                    length.name,
                    stated,
                    (str(seconds),),
                    str(seconds),
                )
            )
        elif stated not in (None, seconds):
            findings.warnings.append(
                f"{length.name} {stated} was left out: the length is the sum of the {shots.name}, {seconds} s."
            )
        if seconds not in length.lengths:
            takers = tuple(
                other.model
                for other in catalog.of(endpoint.mode)
                if shots.name in other.arguments and other.length is not None and seconds in other.length.lengths
            )
            findings.faults.append(
                ArgumentFault(
                    f"The {shots.name} add up to {seconds} s, a length that {endpoint.model} does not make.",
                    f"Allowed in sum: {span(length.lengths)} seconds.{'' if takers else _longer(length, seconds)}",
                    shots.name,
                    seconds,
                    tuple(str(allowed) for allowed in length.lengths),
                    models=takers,
                )
            )
        given[length.name] = seconds
        return seconds
    if usual is not None:
        given.setdefault(length.name, usual)
    return int(str(given.get(length.name, length.lengths[-1])))


def _assumed_seconds(
    catalog: Catalog,
    endpoint: Endpoint,
    arguments: Mapping[str, object],
    given: Mapping[str, object],
    findings: ValidationReport,
) -> Decimal | None:
    """In an estimate, how long the video or sound that sets the price is said to be."""
    name = _length_name(catalog)
    value = arguments.get(name)
    if not findings.estimating or endpoint.length is not None or not endpoint.billed or not is_given(value):
        return None
    seconds = whole(value)
    case = next(case for case in endpoint.billed if not case.given or case.given in given)
    for_input, most = min(_longest(endpoint, case, given).items(), key=lambda item: item[1])
    if seconds is None or not 1 <= seconds <= most:
        allowed = f"1 to {most:f} seconds"
        why = "a whole number of seconds is expected" if seconds is None else f"{for_input} cannot have that length"
        with findings.noting():
            raise refused(name, value, why, f"Allowed here, as the length of {for_input}: {allowed}.", (allowed,))
        return None
    return Decimal(seconds)


def _paid_inputs(endpoint: Endpoint, case: Billed, assumed: Decimal | None) -> dict[str, Decimal | None]:
    return dict.fromkeys(endpoint.measured(case), assumed)


def _longest(endpoint: Endpoint, case: Billed | None, given: Mapping[str, object]) -> dict[str, Decimal]:
    """How long each input may be that is paid for or has a rule, by its limits and by the rules that hold here."""
    found: dict[str, Decimal] = {}
    lengths = rules.of_lengths(endpoint, given)
    for name in (*(endpoint.measured(case) if case else ()), *(name for rule in lengths for name in rule.of)):
        limits = endpoint.arguments[name].limits if name in endpoint.arguments else None
        bounds = [Decimal(rule.max) for rule in lengths if name in rule.of]
        if limits is not None and limits.max_seconds is not None:
            bounds.append(limits.max_seconds)
        found[name] = min(bounds)
    return found


def _settle_sound(endpoint: Endpoint, given: dict[str, object]) -> bool | None:
    """
    Whether there is sound; always written to *given*, since it may set the price. None where there is no switch.
    """
    switch = endpoint.argument_of("sound") or endpoint.argument_of("keep_sound")
    if switch is None:
        return None
    return given.setdefault(switch.name, switch.default) is True


def _settle_defaults(endpoint: Endpoint, given: dict[str, object]) -> None:
    for name, argument in endpoint.arguments.items():
        if argument.send_default_with in given:
            given.setdefault(name, argument.default)


def _body(
    arguments: Mapping[str, Argument],
    given: Mapping[str, object],
    path: str,
    place: BodyPath,
    inputs: list[InputSlot],
) -> dict[str, object]:
    """What *given* is called and looks like in the endpoint's request; inputs are noted on the way."""

    def one(argument: Argument, value: object, path: str, place: BodyPath) -> object:
        if argument.items:
            return _body(argument.items, members_of(value), f"{path}.", place, inputs)
        if argument.kind == "length":
            return argument.sent_length(int(str(value)))
        if kind := _INPUT_KINDS.get(argument.kind):
            inputs.append(InputSlot(path, place, str(value), argument.limits, kind))
        return value

    body: dict[str, object] = {}
    for name, argument in arguments.items():
        if name not in given:
            continue
        here, there = f"{path}{name}", (*place, argument.field)
        if argument.many:
            body[argument.field] = [
                one(argument, member, f"{here}[{index}]", (*there, index))
                for index, member in enumerate(items_of(given[name]))
            ]
        else:
            body[argument.field] = one(argument, given[name], here, there)
    return body


def _has_voice(arguments: Mapping[str, Argument], given: Mapping[str, object]) -> bool:
    for name, value in given.items():
        argument = arguments[name]
        members = items_of(value) if argument.many else [value]
        if argument.kind == "voice":
            return True
        if argument.items and any(_has_voice(argument.items, members_of(member)) for member in members):
            return True
    return False


def _shots(endpoint: Endpoint, given: Mapping[str, object]) -> tuple[Shot, ...]:
    shots = endpoint.argument_of("shot")
    if shots is None:
        return ()
    prompt = next(name for name, item in shots.items.items() if item.kind == "text")
    length = next(name for name, item in shots.items.items() if item.kind == "length")
    members = [members_of(shot) for shot in items_of(given.get(shots.name))]
    return tuple(Shot(str(shot.get(prompt, "")), int(str(shot[length]))) for shot in members)


def _own(arguments: Mapping[str, object], findings: ValidationReport) -> tuple[int, Decimal | None, int | None]:
    """The arguments that no endpoint sees: take, max_cost_usd and wait_seconds."""
    take, max_cost_usd, wait_seconds = 1, None, None
    with findings.noting():
        take = _take(arguments.get("take"))
    with findings.noting():
        max_cost_usd = _max_cost_usd(arguments)
    with findings.noting():
        wait = arguments.get("wait_seconds")
        wait_seconds = seconds_to_wait(wait, "wait_seconds", MAX_WAIT_SECONDS) if is_given(wait) else None
    return take, max_cost_usd, wait_seconds


def _name(value: object, findings: ValidationReport) -> str | None:
    """What a voice is to be called: a text that cannot be taken for an id of fal.ai's or of a job."""
    if not is_given(value):
        return None
    with findings.noting():
        name = " ".join(unwrapped(text(value, "name", "a name", MAX_NAME_CHARACTERS)).split())
        if not any(letter.isalpha() for letter in name) or name.lower().startswith("kj_"):
            raise refused("name", value, "it could be an id", "Give a name with a letter in it, such as Anna.")
        return name
    return None


def _take(value: object) -> int:
    if not is_given(value):
        return 1
    number = whole(value)
    if number is None or not 1 <= number <= MAX_TAKE:
        allowed = f"1 to {MAX_TAKE}"
        raise refused("take", value, "a whole number is expected", f"Allowed: {allowed}.", (allowed,))
    return number


def _max_cost_usd(arguments: Mapping[str, object]) -> Decimal | None:
    value = arguments.get("max_cost_usd")
    if not is_given(value):
        return None
    try:
        amount = Decimal(unwrapped(str(value))) if isinstance(value, int | float | str) else Decimal("NaN")
    except (InvalidOperation, ValueError):
        amount = Decimal("NaN")
    if isinstance(value, bool) or not amount.is_finite() or amount <= 0:
        raise refused(
            "max_cost_usd",
            value,
            "an amount in US dollars above 0 is expected",
            "Give a number such as 1.5, without a currency sign.",
            ("a number above 0",),
        )
    return amount


def _guard(endpoint: Endpoint, body: Mapping[str, object], findings: ValidationReport) -> None:
    """Check the body against the endpoint's own schema, for what no kind or rule has checked."""
    faults = [
        _translated(endpoint, error)
        for error in _validator(endpoint).iter_errors(body)
        if not (error.validator == "required" and findings.missing)
    ]
    if faults:
        raise InvalidArguments.of(faults)


class _Validator(Protocol):
    def iter_errors(self, instance: object) -> Iterable[ValidationError]: ...


@cache
def _validator(endpoint: Endpoint) -> _Validator:
    # Not at the top: importing jsonschema takes longer than reading the whole catalog.
    from jsonschema import Draft202012Validator

    return cast("_Validator", Draft202012Validator(dict(endpoint.input_schema)))


def _translated(endpoint: Endpoint, error: ValidationError) -> ArgumentFault:
    path, arguments = "", endpoint.arguments
    none: Mapping[str, Argument] = {}
    for step in error.absolute_path:
        if isinstance(step, int):
            path += f"[{step}]"
            continue
        argument = next((argument for argument in arguments.values() if argument.field == step), None)
        # Inside a value of kind json there are no arguments.
        name = argument.name if argument else str(step)
        path += f".{name}" if path else name
        arguments = argument.items if argument else none
    wanted = f"{error.validator} {show(error.validator_value)}"
    return ArgumentFault(
        f"{path or 'The request'} is {show(error.instance)}; {endpoint.model} does not accept that.",
        f"Its schema asks for {wanted}.",
        path or None,
        show(error.instance),
        (wanted,),
    )
