"""
From what a caller asks to the body that fal.ai reads.

The tools have one set of argument names for every model; each endpoint has its
own. ``plan`` checks a call against the endpoint's schema and rules before
anything is uploaded or spent, and writes the endpoint's own body. It does no
I/O: pictures stay as the caller gave them, listed as slots to be filled.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, cast

from kling_mcp.catalog import rules
from kling_mcp.catalog.values import Findings, is_given, nearest, opened, read, show, span, whole
from kling_mcp.errors import InvalidArguments

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jsonschema.exceptions import ValidationError

    from kling_mcp.catalog.endpoint import Argument, Catalog, Endpoint, PictureLimits, Tool

__all__ = ["COMMON_ARGUMENTS", "MAX_TAKE", "MAX_WAIT_SECONDS", "PictureSlot", "Plan", "Shot", "plan"]

BodyPath: TypeAlias = tuple[str | int, ...]

COMMON_ARGUMENTS: Final = ("model", "max_cost_usd", "take", "wait_seconds")
"""The arguments of the job tools that are this program's own; no endpoint sees them."""

MAX_TAKE: Final = 99
MAX_WAIT_SECONDS: Final = 45


@dataclass(frozen=True, slots=True)
class PictureSlot:
    """
    A picture of a call, and where its URL belongs.

    Attributes:
        argument: The caller's name of it, such as ``elements[0].frontal_image``.
        path: Where it stands in the body.
        value: What the caller gave: a URL, a path, a ``data:`` URI, or a resource of an earlier job.
        limits: What the endpoint takes there, if a source says.

    """

    argument: str
    path: BodyPath
    value: str
    limits: PictureLimits | None


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
        body: The endpoint's own request; picture slots still hold what the caller gave.
        seconds: The length of the whole video.
        audio: Whether sound is made; None where the endpoint has no switch.
        audio_was_default: Whether *audio* is the endpoint's default because the call did not say.
        voice: Whether the call uses voice control.
        missing: What a real call would need besides; only in an estimate.

    """

    endpoint: Endpoint
    body: dict[str, object]
    pictures: tuple[PictureSlot, ...]
    seconds: int
    audio: bool | None
    audio_was_default: bool
    voice: bool
    shots: tuple[Shot, ...]
    warnings: tuple[str, ...]
    take: int
    max_cost_usd: Decimal | None
    wait_seconds: int | None
    missing: tuple[str, ...]


def plan(catalog: Catalog, tool: Tool, arguments: Mapping[str, object]) -> Plan:
    """
    Check *arguments*, a call of *tool*, and write the body for its endpoint.

    Raises:
        UnknownModel: no model has the name in ``model``.
        InvalidArguments: anything else that fal.ai would not take, or that is not among the tool's arguments.

    """
    endpoint = _chosen(catalog, arguments)
    _refuse_names(catalog, endpoint, tool, arguments)
    findings = Findings(estimating=tool == "estimate_cost")
    given = _given(catalog, endpoint, arguments, findings)
    _require(endpoint, _job_tool(endpoint, tool, given), arguments, given, findings)
    audio, audio_was_default = _settle_audio(endpoint, given)
    _settle_defaults(endpoint, given)
    rules.check(catalog, endpoint, given, findings)
    seconds = _settle_length(catalog, endpoint, given)
    pictures: list[PictureSlot] = []
    body = _body(endpoint.arguments, given, "", (), pictures)
    _guard(endpoint, body, findings)
    return Plan(
        endpoint=endpoint,
        body=body,
        pictures=tuple(pictures),
        seconds=seconds,
        audio=audio,
        audio_was_default=audio_was_default,
        voice=_has_voice(endpoint.arguments, given),
        shots=_shots(endpoint, given),
        warnings=tuple(findings.warnings),
        take=_whole_within(arguments, "take", 1, MAX_TAKE) or 1,
        max_cost_usd=_max_cost_usd(arguments),
        wait_seconds=_whole_within(arguments, "wait_seconds", 0, MAX_WAIT_SECONDS),
        missing=tuple(findings.missing),
    )


def _chosen(catalog: Catalog, arguments: Mapping[str, object]) -> Endpoint:
    model = arguments.get("model")
    if not is_given(model):
        return catalog.default
    if not isinstance(model, str):
        raise InvalidArguments(
            f"model is {show(model)}; the name of a model is expected.",
            f"Models: {', '.join(catalog.models)}.",
            field="model",
            allowed=catalog.models,
        )
    return catalog.model(model.strip())


def _takes(endpoint: Endpoint, tool: Tool, name: str) -> bool:
    argument = endpoint.arguments.get(name)
    return argument is not None and (tool == "estimate_cost" or tool in argument.tools)


def _refuse_names(catalog: Catalog, endpoint: Endpoint, tool: Tool, arguments: Mapping[str, object]) -> None:
    """Refuse a name that the tool, or the model, does not take."""
    if tool == "multi_shot_video" and endpoint.argument_of("shot") is None:
        models = tuple(other.model for other in catalog.endpoints if other.argument_of("shot"))
        raise InvalidArguments(
            f"model is {endpoint.model}, which makes single shots only.",
            f"Models that take several shots: {', '.join(models)}.",
            field="model",
            allowed=models,
        )
    for name, value in arguments.items():
        if name in COMMON_ARGUMENTS or _takes(endpoint, tool, name):
            continue
        known = any(name in other.arguments for other in catalog.endpoints)
        # Some hosts send every optional argument that they know, as null or empty.
        if not (known and not is_given(value)):
            raise _misplaced(catalog, endpoint, tool, name) if known else _unknown(catalog, endpoint, tool, name, value)


def _misplaced(catalog: Catalog, endpoint: Endpoint, tool: Tool, name: str) -> InvalidArguments:
    """An argument of another model, or of the other tool."""
    takers = [other for other in catalog.endpoints if _takes(other, tool, name)]
    allowed = _names(endpoint, tool)
    if takers:
        models = tuple(other.model for other in takers)
        return InvalidArguments(
            f"{endpoint.model} does not take {name}.",
            f"Leave it out, or use a model that takes it: {', '.join(models)}.",
            field=name,
            allowed=allowed,
        )
    argument = next(other.arguments[name] for other in catalog.endpoints if name in other.arguments)
    sum_of_shots = " The length of several shots is their sum." if argument.kind == "length" else ""
    return InvalidArguments(
        f"{tool} does not take {name}; {' and '.join(argument.tools)} does.{sum_of_shots}",
        f"Leave it out, or call {argument.tools[0]}. Arguments of {tool} here: {', '.join(allowed)}.",
        field=name,
        allowed=allowed,
    )


def _unknown(catalog: Catalog, endpoint: Endpoint, tool: Tool, name: str, value: object) -> InvalidArguments:
    """A name that nobody takes; a name of fal.ai's own leads to the argument that becomes it."""
    allowed = _names(endpoint, tool)
    everywhere = [argument for other in (endpoint, *catalog.endpoints) for argument in other.arguments.values()]
    meanings = {argument.field: argument.name for argument in reversed(everywhere)}
    meanings |= {argument.name: argument.name for argument in everywhere} | {known: known for known in allowed}
    meant = meanings.get(nearest(name, meanings) or "")
    hint = ""
    if meant in allowed:
        hint = f"The nearest is {meant}. "
    elif meant is not None:
        models = ", ".join(catalog.takers(meant))
        tools = next(" and ".join(argument.tools) for argument in everywhere if argument.name == meant)
        hint = f"The nearest is {meant}, which {tools} takes with {models}. "
    return InvalidArguments(
        f"{tool} has no argument {name[:40]!r} (given as {show(value)}).",
        f"{hint}Arguments of {tool} with {endpoint.model}: {', '.join(allowed)}.",
        field=name[:40],
        allowed=allowed,
    )


def _names(endpoint: Endpoint, tool: Tool) -> tuple[str, ...]:
    return (*(name for name in endpoint.arguments if _takes(endpoint, tool, name)), *COMMON_ARGUMENTS)


def _given(
    catalog: Catalog, endpoint: Endpoint, arguments: Mapping[str, object], findings: Findings
) -> dict[str, object]:
    given: dict[str, object] = {}
    for name, argument in endpoint.arguments.items():
        value = opened(argument, arguments.get(name), name)
        if not is_given(value):
            continue
        try:
            given[name] = read(argument, value, name, findings)
        except InvalidArguments as error:
            raise _with_takers(error, _would_take(catalog, endpoint, name, value)) from None
    return given


def _would_take(catalog: Catalog, endpoint: Endpoint, name: str, value: object) -> tuple[str, ...]:
    """The other models that accept the value that *endpoint* does not."""

    def accepts(argument: Argument) -> bool:
        try:
            read(argument, value, name, Findings(estimating=False))
        except InvalidArguments:
            return False
        return True

    return tuple(
        other.model
        for other in catalog.endpoints
        if other is not endpoint and name in other.arguments and accepts(other.arguments[name])
    )


def _with_takers(error: InvalidArguments, takers: tuple[str, ...]) -> InvalidArguments:
    if not takers:
        return error
    next_step = f"{error.next_step} Models that take it: {', '.join(takers)}."
    return InvalidArguments(error.what, next_step, field=error.field, allowed=error.allowed)


def _job_tool(endpoint: Endpoint, tool: Tool, given: Mapping[str, object]) -> Tool:
    """The tool that would start the job: an estimate is for the one that its arguments belong to."""
    if tool != "estimate_cost":
        return tool
    shots = endpoint.argument_of("shot")
    return "multi_shot_video" if shots is not None and shots.name in given else "image_to_video"


def _require(
    endpoint: Endpoint, tool: Tool, arguments: Mapping[str, object], given: Mapping[str, object], findings: Findings
) -> None:
    required = (argument for argument in endpoint.arguments.values() if argument.required and tool in argument.tools)
    missing = [argument for argument in required if argument.name not in given]
    if findings.estimating:
        findings.missing[:0] = [argument.name for argument in missing]
    elif missing:
        name = missing[0].name
        state = "empty" if name in arguments else "missing"
        raise InvalidArguments(f"{name} is {state}; {tool} needs it.", f"Give it: {missing[0].description}", field=name)


def _settle_length(catalog: Catalog, endpoint: Endpoint, given: dict[str, object]) -> int:
    """The length of the video in seconds: as given, as the sum of the shots, or by default; also written to *given*."""
    length = cast("Argument", endpoint.argument_of("length"))
    shots = endpoint.argument_of("shot")
    if shots is not None and shots.name in given:
        seconds = sum(shot.seconds for shot in _shots(endpoint, given))
        stated = given.get(length.name)
        if stated is not None and stated != seconds:
            raise InvalidArguments(
                f"{length.name} is {stated}, and the {shots.name} add up to {seconds} s.",
                f"Leave {length.name} out: it is the sum of the {shots.name}.",
                field=length.name,
                allowed=(str(seconds),),
            )
        if seconds not in length.lengths:
            takers = tuple(
                other.model
                for other in catalog.endpoints
                if shots.name in other.arguments and seconds in cast("Argument", other.argument_of("length")).lengths
            )
            raise _with_takers(
                InvalidArguments(
                    f"The {shots.name} add up to {seconds} s, a length that {endpoint.model} does not make.",
                    f"Allowed in sum: {span(length.lengths)}.",
                    field=shots.name,
                    allowed=length.choices,
                ),
                takers,
            )
        given[length.name] = seconds
    return cast("int", given.setdefault(length.name, int(str(length.schema["default"]))))


def _settle_audio(endpoint: Endpoint, given: dict[str, object]) -> tuple[bool | None, bool]:
    """Whether sound is made, and whether that is the default; always written to *given*, since it sets the price."""
    audio = endpoint.argument_of("audio")
    if audio is None:
        return None, False
    was_default = audio.name not in given
    return cast("bool", given.setdefault(audio.name, audio.schema["default"])), was_default


def _settle_defaults(endpoint: Endpoint, given: dict[str, object]) -> None:
    for name, argument in endpoint.arguments.items():
        if argument.send_default_with in given:
            given.setdefault(name, argument.schema["default"])


def _body(
    arguments: Mapping[str, Argument],
    given: Mapping[str, object],
    path: str,
    place: BodyPath,
    pictures: list[PictureSlot],
) -> dict[str, object]:
    """What *given* is called and looks like in the endpoint's request; pictures are noted on the way."""

    def one(argument: Argument, value: object, path: str, place: BodyPath) -> object:
        if argument.items:
            return _body(argument.items, cast("Mapping[str, object]", value), f"{path}.", place, pictures)
        if argument.kind == "length":
            return cast("list[object]", argument.schema["enum"])[argument.lengths.index(cast("int", value))]
        if argument.kind == "picture":
            pictures.append(PictureSlot(path, place, cast("str", value), argument.limits))
        return value

    body: dict[str, object] = {}
    for name, argument in arguments.items():
        if name not in given:
            continue
        here, there = f"{path}{name}", (*place, argument.field)
        if argument.many:
            members = cast("list[object]", given[name])
            body[argument.field] = [
                one(argument, member, f"{here}[{index}]", (*there, index)) for index, member in enumerate(members)
            ]
        else:
            body[argument.field] = one(argument, given[name], here, there)
    return body


def _has_voice(arguments: Mapping[str, Argument], given: Mapping[str, object]) -> bool:
    for name, value in given.items():
        argument = arguments[name]
        members = cast("list[object]", value) if argument.many else [value]
        if argument.kind == "voice" or any(
            _has_voice(argument.items, cast("Mapping[str, object]", member)) for member in members if argument.items
        ):
            return True
    return False


def _shots(endpoint: Endpoint, given: Mapping[str, object]) -> tuple[Shot, ...]:
    shots = endpoint.argument_of("shot")
    if shots is None:
        return ()
    prompt = next(name for name, item in shots.items.items() if item.kind == "text")
    length = next(name for name, item in shots.items.items() if item.kind == "length")
    members = cast("list[Mapping[str, object]]", given.get(shots.name, []))
    return tuple(Shot(cast("str", shot.get(prompt, "")), cast("int", shot[length])) for shot in members)


def _whole_within(arguments: Mapping[str, object], name: str, lowest: int, highest: int) -> int | None:
    value = arguments.get(name)
    if not is_given(value):
        return None
    number = whole(value)
    if number is None or not lowest <= number <= highest:
        raise InvalidArguments(
            f"{name} is {show(value)}; a whole number is expected.",
            f"Allowed: {lowest} to {highest}.",
            field=name,
            allowed=(f"{lowest} to {highest}",),
        )
    return number


def _max_cost_usd(arguments: Mapping[str, object]) -> Decimal | None:
    value = arguments.get("max_cost_usd")
    if not is_given(value):
        return None
    try:
        amount = Decimal(str(value).strip()) if isinstance(value, int | float | str) else Decimal("NaN")
    except (InvalidOperation, ValueError):
        amount = Decimal("NaN")
    if isinstance(value, bool) or not amount.is_finite() or amount <= 0:
        raise InvalidArguments(
            f"max_cost_usd is {show(value)}; an amount in US dollars above 0 is expected.",
            "Give a number such as 1.5, without a currency sign.",
            field="max_cost_usd",
            allowed=("a number above 0",),
        )
    return amount


def _guard(endpoint: Endpoint, body: Mapping[str, object], findings: Findings) -> None:
    """The last word has the endpoint's own schema, whatever it asks that no kind or rule has checked."""
    for error in _validator(endpoint).iter_errors(body):
        if not (error.validator == "required" and findings.missing):
            raise _translated(endpoint, error)


class _Validator(Protocol):
    def iter_errors(self, instance: object) -> Iterable[ValidationError]: ...


@cache
def _validator(endpoint: Endpoint) -> _Validator:
    # Not at the top: importing jsonschema takes longer than reading the whole catalogue.
    from jsonschema import Draft202012Validator

    return cast("_Validator", Draft202012Validator(dict(endpoint.input_schema)))


def _translated(endpoint: Endpoint, error: ValidationError) -> InvalidArguments:
    path, arguments = "", endpoint.arguments
    for step in error.absolute_path:
        if isinstance(step, int):
            path += f"[{step}]"
            continue
        argument = next(argument for argument in arguments.values() if argument.field == step)
        path += f".{argument.name}" if path else argument.name
        arguments = argument.items
    wanted = f"{error.validator} {show(error.validator_value)}"
    return InvalidArguments(
        f"{path or 'The request'} is {show(error.instance)}; {endpoint.model} does not accept that.",
        f"Its schema asks for {wanted}.",
        field=path or None,
        allowed=(wanted,),
    )
