"""What holds for any call: an accepted one fits its endpoint and has a price, a refused one is refused in our words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from kling_mcp.catalog.models import JOB_TOOLS, Argument, Endpoint, Tool, load
from kling_mcp.catalog.plan import COMMON_ARGUMENTS, Plan, modes_of, plan
from kling_mcp.catalog.pricing import quote_plan
from kling_mcp.errors import InvalidArguments, UnknownModel

if TYPE_CHECKING:
    from collections.abc import Mapping

TOOLS: tuple[Tool, ...] = tuple(tool for tool in (*JOB_TOOLS, "estimate_cost") if modes_of(load(), tool))
VALIDATORS = {it.key: Draft202012Validator(dict(it.input_schema)) for it in load().endpoints}
TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40).filter(str.strip)
ADDRESSES = st.sampled_from(["https://example.com/a.png", "/pictures/b.jpg", "data:image/png;base64,iVBORw0KGgo="])
ANYTHING: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=15), inner, max_size=4),
    max_leaves=8,
)
on_a_slow_machine = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def values(argument: Argument) -> st.SearchStrategy[Any]:
    """Values that the argument by itself takes."""
    low, high = argument.value_schema.get("minimum", 0), argument.value_schema.get("maximum", 1)
    assert isinstance(low, int | float)
    assert isinstance(high, int | float)
    one: dict[str, st.SearchStrategy[Any]] = {
        "picture": ADDRESSES,
        "https_url": st.just("https://example.com/clip.mp4"),
        "video": st.just("https://example.com/clip.mp4"),
        "audio": st.just("https://example.com/speech.mp3"),
        "text": TEXTS,
        "number": st.floats(low, high) | st.sampled_from([low, high, str(high)]),
        "sound": st.booleans(),
        "keep_sound": st.booleans(),
        "flag": st.booleans(),
        "voice": TEXTS,
    }
    if argument.kind in ("object", "shot"):
        value = objects(argument.items)
    elif argument.kind == "length":
        value = st.sampled_from([*argument.lengths, *argument.choices])
    elif argument.kind == "choice":
        value = st.sampled_from(argument.choices)
    else:
        value = one[argument.kind]
    return st.lists(value, min_size=1, max_size=4) if argument.many else value


def objects(arguments: Mapping[str, Argument]) -> st.SearchStrategy[dict[str, Any]]:
    parts = {name: values(item) for name, item in arguments.items()}
    required = {name: part for name, part in parts.items() if arguments[name].required}
    return st.fixed_dictionaries(
        required, optional={name: part for name, part in parts.items() if name not in required}
    )


def calls_of(tool: Tool, endpoint: Endpoint) -> st.SearchStrategy[tuple[Tool, dict[str, Any]]]:
    taken = {name: it for name, it in endpoint.arguments.items() if tool == "estimate_cost" or tool in it.tools}
    parts = {name: values(it) for name, it in taken.items()}
    own = {"take": st.integers(1, 99), "wait_seconds": st.integers(0, 45), "max_cost_usd": st.floats(0.01, 100)}
    required = {name: parts.pop(name) for name in list(parts) if taken[name].required and tool != "estimate_cost"}
    arguments = st.fixed_dictionaries({"model": st.just(endpoint.model), **required}, optional={**parts, **own})
    return st.tuples(st.just(tool), arguments)


CALLS_OF = {tool: st.one_of(*(calls_of(tool, one) for one in load().of(*modes_of(load(), tool)))) for tool in TOOLS}
CALLS = st.sampled_from(TOOLS).flatmap(CALLS_OF.__getitem__)
NAMES = sorted({name for endpoint in load().endpoints for name in endpoint.arguments} | set(COMMON_ARGUMENTS))


def planned(tool: Tool, arguments: dict[str, Any]) -> Plan | None:
    try:
        return plan(load(), tool, arguments)
    except (InvalidArguments, UnknownModel) as error:
        refusal = error
    assert refusal.field is not None
    assert str(refusal).count("Nothing was charged.") == 1
    return None


def check(it: Plan) -> None:
    body: Any = it.body
    errors = [error for error in VALIDATORS[it.endpoint.key].iter_errors(body) if error.validator != "required"]
    assert errors == []
    assert it.missing or VALIDATORS[it.endpoint.key].is_valid(body)
    cost = quote_plan(it)
    assert cost.ceiling_usd >= cost.estimated_usd > 0


@on_a_slow_machine
@given(CALLS)
def test_an_accepted_call_fits_its_endpoint_and_has_a_price(call: tuple[Tool, dict[str, Any]]) -> None:
    it = planned(*call)

    if it is not None:
        check(it)


@on_a_slow_machine
@given(CALLS)
def test_planning_again_gives_the_same_body_and_leaves_the_call_as_it_was(call: tuple[Tool, dict[str, Any]]) -> None:
    before = repr(call)
    first = planned(*call)
    second = planned(*call)

    assert repr(call) == before
    assert (first and first.body) == (second and second.body)


@on_a_slow_machine
@given(st.sampled_from(TOOLS), st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=12), ANYTHING, max_size=6))
def test_nonsense_is_refused_in_our_words(tool: Tool, arguments: dict[str, Any]) -> None:
    it = planned(tool, arguments)

    if it is not None:
        check(it)


@on_a_slow_machine
@given(CALLS, st.sampled_from(NAMES), ANYTHING)
def test_one_value_of_nonsense_in_a_good_call_is_refused_in_our_words(
    call: tuple[Tool, dict[str, Any]], name: str, value: object
) -> None:
    tool, arguments = call
    it = planned(tool, {**arguments, name: value})

    if it is not None:
        check(it)


def test_most_generated_calls_of_each_tool_are_accepted() -> None:
    """The properties above would hold for nothing if nothing were accepted."""
    accepted: dict[Tool, int] = dict.fromkeys(TOOLS, 0)

    @given(CALLS)
    @settings(on_a_slow_machine, max_examples=400, database=None, derandomize=True)
    def count(call: tuple[Tool, dict[str, Any]]) -> None:
        accepted[call[0]] += planned(*call) is not None

    count()

    assert min(accepted.values()) >= 5, accepted
