"""
What is derived from a document takes and refuses the same calls as the file that was written by hand.

For every bundled endpoint a document is made of its row in `facts.json`. The calls are good ones and ones with a
mistake, by chance; ``KLING_SEED`` chooses others. Where the two files do not agree, the reason is one of those listed.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from kling_mcp.catalog import models
from kling_mcp.catalog.derive import ListPrice, derive
from kling_mcp.catalog.models import TOOLS, Catalog, Endpoint, load, read_endpoint
from kling_mcp.catalog.plan import plan
from kling_mcp.errors import InvalidArguments, UnknownModel
from tests.catalog.documents import document
from tests.catalog.test_facts import ANY, FACTS

if TYPE_CHECKING:
    from kling_mcp.catalog.models import Argument, Tool

SEED: Final = int(os.environ.get("KLING_SEED", "4"))
AGREEING: Final = 0.95
FILES: Final = {
    data["endpoint_id"]: data
    for path in Path(models.__file__).with_name("endpoints").glob("*.json")
    if (data := json.loads(path.read_text("utf-8")))
}
BUNDLED: Final = [endpoint.endpoint_id for endpoint in load().endpoints]


# ---- reasons: each makes the file that was written by hand say what fal.ai's document says


def other_sources(data: dict[str, Any], derived: dict[str, Any]) -> None:
    """Rules that no schema states: from fal.ai's texts, or from Kling's own documents."""
    known = [(rule["kind"], rule.get("marker")) for rule in derived["rules"]]
    data["rules"] = [rule for rule in data["rules"] if (rule["kind"], rule.get("marker")) in known]


def siblings(data: dict[str, Any], _: dict[str, Any]) -> None:
    """Longest texts, taken over from a sibling endpoint."""
    fields = FACTS[data["endpoint_id"]]["fields"]
    for name, schema in data["input_schema"]["properties"].items():
        if "maxLength" not in fields.get(name, {"maxLength": 0}):
            schema.pop("maxLength", None)


def older_documents(data: dict[str, Any], _: dict[str, Any]) -> None:
    """Fields that an older document had."""
    for field in FACTS[data["endpoint_id"]].get("kept", ()):
        name = next(name for name, argument in data["arguments"].items() if argument["field"] == field)
        del data["arguments"][name], data["input_schema"]["properties"][field]
        data["rules"] = [rule for rule in data["rules"] if name not in json.dumps(rule)]


def meaningful_values(data: dict[str, Any], _: dict[str, Any]) -> None:
    """Values that have a meaning, where fal.ai takes any text."""
    for name, field in FACTS[data["endpoint_id"]]["fields"].items():
        if field.get("enum") == ANY:
            del data["input_schema"]["properties"][name]["enum"]
            next(one for one in data["arguments"].values() if one["field"] == name)["kind"] = "text"


def sound(data: dict[str, Any], derived: dict[str, Any]) -> None:
    """Whether the videos of an endpoint without a switch have sound."""
    data["sound"] = derived["sound"]


REASONS: Final = (other_sources, siblings, older_documents, meaningful_values, sound)


# ---- calls


def calls(endpoint: Endpoint, count: int, seed: str) -> list[tuple[Tool, dict[str, Any]]]:
    """Calls of the tools that use *endpoint*: about half of them with a mistake."""
    chance = random.Random(f"{SEED} {seed}")
    tools: list[Tool] = list(TOOLS[endpoint.mode])
    if endpoint.argument_of("shot") is None and "multi_shot_video" in tools:
        tools.remove("multi_shot_video")
    return [(tool, _call(endpoint, tool, chance)) for tool in chance.choices(tools, k=count)]


def _call(endpoint: Endpoint, tool: Tool, chance: random.Random) -> dict[str, Any]:
    taken = {name: argument for name, argument in endpoint.arguments.items() if tool in argument.tools}
    call: dict[str, Any] = {
        name: _value(argument, chance)
        for name, argument in taken.items()
        if chance.random() < (0.98 if argument.required else 0.5)
    }
    if endpoint.when:
        call[endpoint.when] = _value(endpoint.arguments[endpoint.when], chance)
    if {"prompt", "shots"} <= call.keys() and chance.random() < 0.9:
        del call[chance.choice(["prompt", "shots"])]
    if chance.random() < 0.4 and call:
        name = chance.choice(list(call))
        call[name] = _mistake(taken[name], call[name], chance) if name in taken else None
    if chance.random() < 0.1:
        name = chance.choice([*_names(), *(argument.field for argument in taken.values()), "colour"])
        call.setdefault(name, chance.choice(["x", 1, True, False, None, "16:9"]))
    return {"model": endpoint.model, **call}


@cache
def _names() -> list[str]:
    return sorted({name for endpoint in load().endpoints for name in endpoint.arguments})


def _value(argument: Argument, chance: random.Random) -> Any:
    if argument.many:
        return [_one(argument, chance) for _ in range(chance.choice([1, 1, 1, 2, 3]))]
    return _one(argument, chance)


def _one(argument: Argument, chance: random.Random) -> Any:
    match argument.kind:
        case "picture":
            return chance.choice(["https://example.com/a.png", "/pictures/b.jpg", "data:image/png;base64,iVBORw0KGgo="])
        case "video":
            return chance.choice(
                ["https://example.com/a.mp4", "/videos/b.mov", "kling://jobs/kj_0000000000000000000000"]
            )
        case "audio" | "https_url":
            return "https://example.com/a.mp3"
        case "length":
            return chance.choice([chance.choice(argument.lengths), str(chance.choice(argument.lengths))])
        case "choice":
            return chance.choice(argument.choices)
        case "number":
            low, high = argument.value_schema.get("minimum", 0), argument.value_schema.get("maximum", 1)
            return chance.choice([low, high, str(high)])
        case "sound" | "keep_sound" | "flag":
            return chance.choice([True, False, "true"])
        case "object" | "shot":
            return {
                name: _value(item, chance)
                for name, item in argument.items.items()
                if item.required or chance.random() < 0.5
            }
        case _:
            words = chance.choices(
                ["A door", "opens", "at dusk", "@Element1", "@Image1", "<<<voice_1>>>"], (30, 30, 30, 1, 1, 1), k=3
            )
            return " ".join(words)


def _mistake(argument: Argument, good: Any, chance: random.Random) -> Any:
    wrong: list[Any] = [None, "", 10**9, -1, "nonsense", True, [], [good], {"a": 1}, "x" * 2501, {"prompt": 3}]
    if argument.many:
        wrong += [good * 3, [*good, *good, None], [None, *good], good[0], [{"nobody": 1}], ["x", 7]]
    return chance.choice(wrong)


# ---- comparing


@dataclass
class Pair:
    """
    The two files of one endpoint.

    Attributes:
        catalogs: With the file as bundled, as derived, as each reason makes it, and as all of them do.

    """

    endpoint: Endpoint
    catalogs: dict[str, Catalog]

    def outcome(self, which: str, tool: Tool, call: dict[str, Any]) -> dict[str, object] | None:
        """The body of *call*; None where it is refused."""
        catalog = self.catalogs[which]
        try:
            # Of this endpoint, also where its model has another that the same tool uses.
            return plan(catalog, tool, call, catalog.by_endpoint_id(self.endpoint.endpoint_id)).body
        except (InvalidArguments, UnknownModel):
            return None

    def reason(self, tool: Tool, call: dict[str, Any]) -> str | None:
        """Why the two do not agree; empty where they do, None where no reason is known."""
        wanted = self.outcome("derived", tool, call)
        if self.outcome("bundled", tool, call) == wanted:
            return ""
        names = [which for which in self.catalogs if which not in {"bundled", "derived"}]
        return next((name for name in names if self.outcome(name, tool, call) == wanted), None)


def pair(endpoint_id: str) -> Pair:
    bundled = FILES[endpoint_id]
    price = ListPrice(Decimal("0.14"), "seconds", "USD")
    data = derive(endpoint_id, document(endpoint_id, FACTS[endpoint_id]["fields"]), price, as_of="2026-11-25").data
    # Under the bundled name, so that both are called alike.
    data |= {name: bundled[name] for name in ("model", "order", "default", "when") if name in bundled}
    files = {"bundled": bundled, "derived": data}
    for reasons in (*((one,) for one in REASONS), REASONS):
        changed = json.loads(json.dumps(bundled))
        for change in reasons:
            change(changed, data)
        files[" and ".join(change.__name__ for change in reasons)] = changed
    others = [one for one in load().endpoints if one.endpoint_id != endpoint_id]
    catalogs = {
        name: Catalog(tuple(sorted([*others, read_endpoint(json.dumps(file).encode(), name)], key=lambda it: it.order)))
        for name, file in files.items()
    }
    return Pair(next(one for one in load().endpoints if one.endpoint_id == endpoint_id), catalogs)


@pytest.mark.parametrize("count", [30, pytest.param(500, marks=pytest.mark.long)])
def test_nearly_every_call_is_taken_or_refused_alike_and_every_difference_has_a_reason(count: int) -> None:
    found: Counter[str] = Counter()
    for endpoint_id in BUNDLED:
        both = pair(endpoint_id)
        for call in calls(both.endpoint, count, endpoint_id):
            reason = both.reason(*call)
            assert reason is not None, call
            found[reason] += 1

    print(found)
    assert found[""] >= AGREEING * found.total()


def test_about_half_of_the_calls_are_taken() -> None:
    """They would agree on nothing if all were refused."""
    both = pair(BUNDLED[0])
    taken = [both.outcome("derived", *call) is not None for call in calls(both.endpoint, 200, "half")]

    assert 0.3 < sum(taken) / len(taken) < 0.8
