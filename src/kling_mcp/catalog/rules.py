"""
The rules across fields, which no schema of a single field can state.

Each endpoint's file lists its rules as data; here is what the kinds mean.

* ``exactly_one``  one of the arguments, not several and not none
* ``count``        at most so many values; a selector ending in ``[]`` counts the members of each list by itself
* ``total``        at most so many values of several lists together; with ``of``, only beside one of these
* ``together``     arguments that do not go together
* ``text_length``  at most so many characters
* ``seconds``      a video or sound is at most so long, if another argument has a value; checked once it is measured
* ``value``        one value of an argument is worth a remark, or refused
* ``needs``        a value needs another argument to have a value
* ``reference``    a marker in a text, such as one with a number, names something that is there
* ``given``        an argument is worth a remark whenever it is given
* ``one_group``    an object is described by one group of its members
* ``beside``       the first member of a group needs one of the others beside it
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final, TypeAlias

from kling_mcp.catalog.models import TOOLS
from kling_mcp.catalog.values import show
from kling_mcp.errors import ArgumentFault
from kling_mcp.json_types import is_object, items_of, members_of

if TYPE_CHECKING:
    from kling_mcp.catalog.models import Catalog, Endpoint, Rule, RuleKind
    from kling_mcp.catalog.values import ValidationReport

__all__ = ["check", "of_lengths"]

Given: TypeAlias = Mapping[str, object]

_PART: Final = re.compile(r"(\w+)|\[(\d+)\]")


def check(catalog: Catalog, endpoint: Endpoint, given: Given, findings: ValidationReport) -> None:
    """
    Hold *given*, the values of a call, against the rules of *endpoint*; what is broken goes to *findings*.

    A rule about an argument that already has a fault is skipped.
    """
    case = _Case(catalog, endpoint, given, findings)
    faulty = findings.faulty
    for rule in endpoint.rules:
        about = (*rule.of, *rule.counts, *([rule.argument] if rule.argument else []))
        if not faulty & {re.split(r"[.\[]", selector, maxsplit=1)[0] for selector in about}:
            _CHECKS[rule.kind](rule, case)


def of_lengths(endpoint: Endpoint, given: Given) -> tuple[Rule, ...]:
    """The rules on how long a video or sound may be that hold for *given*."""
    return tuple(
        rule
        for rule in endpoint.rules
        if rule.kind == "seconds" and (not rule.argument or given.get(rule.argument) == rule.value)
    )


@dataclass(frozen=True, slots=True)
class _Case:
    catalog: Catalog
    endpoint: Endpoint
    given: Given
    findings: ValidationReport

    def select(self, selector: str) -> list[tuple[str, object]]:
        """The values that *selector* names, each with its path."""
        found: list[tuple[str, object]] = [("", self.given)]
        for step in selector.split("."):
            name = step.removesuffix("[]")
            members = [
                (f"{path}.{name}" if path else name, holder[name])
                for path, holder in found
                if is_object(holder) and name in holder
            ]
            found = _spread(members) if step.endswith("[]") else members
        return found

    def broken(self, rule: Rule, field: str, what: str, next_step: str, allowed: tuple[str, ...] = ()) -> None:
        """Refuse, or warn, as the rule says."""
        if rule.level == "warn":
            self.findings.warnings.append(f"{what} {rule.say}".strip())
            return
        value = self._value_at(field)
        self.findings.faults.append(ArgumentFault(f"{what} {rule.say}".strip(), next_step, field, value, allowed))

    def _value_at(self, path: str) -> str | None:
        """What was given there, short enough to be shown."""
        found: object = self.given
        for name, index in _PART.findall(path):
            members = items_of(found)
            found = members_of(found).get(name) if name else next(iter(members[int(index) :]), None)
        return None if found is None else show(found)


def _spread(members: list[tuple[str, object]]) -> list[tuple[str, object]]:
    return [(f"{path}[{index}]", value) for path, values in members for index, value in enumerate(items_of(values))]


def _exactly_one(rule: Rule, case: _Case) -> None:
    given = [name for name in rule.of if case.select(name)]
    names = " or ".join(rule.of)
    if len(given) > 1:
        case.broken(rule, given[-1], f"{' and '.join(given)} are both given.", f"Give either {names}.", rule.of)
    if not given and not case.findings.estimating:
        case.broken(rule, rule.of[0], f"Neither {' nor '.join(rule.of)} is given.", f"Give either {names}.", rule.of)


def _count(rule: Rule, case: _Case) -> None:
    most = rule.max
    for selector in rule.of:
        lists = case.select(selector.removesuffix("[]"))
        if selector.endswith("[]"):
            counted = [(path, len(items_of(values))) for path, values in lists]
        else:
            counted = [(lists[-1][0], len(lists))] if lists else []
        for path, count in counted:
            if count > most:
                what = (
                    f"{path} has {count} entries." if selector.endswith("[]") else f"{selector} is given {count} times."
                )
                case.broken(rule, path, what, f"Give at most {most}.", (f"up to {most}",))


def _total(rule: Rule, case: _Case) -> None:
    if rule.of and not any(case.select(name) for name in rule.of):
        return
    count = sum(len(case.select(name)) for name in rule.counts)
    if count > rule.max:
        names = " and ".join(name.removesuffix("[]") for name in rule.counts)
        field = next(name.removesuffix("[]") for name in rule.counts if case.select(name))
        beside = f" beside {' or '.join(rule.of)}" if rule.of else ""
        allowed = (f"up to {rule.max} in all",)
        case.broken(rule, field, f"{names} have {count} entries in all.", f"Give at most {rule.max}{beside}.", allowed)


def _seconds(rule: Rule, case: _Case) -> None:
    """Nothing yet: how long a file is shows when it is measured."""


def _value(rule: Rule, case: _Case) -> None:
    for selector in rule.of:
        for path, value in case.select(selector):
            if value == rule.value:
                argument = case.endpoint.arguments.get(selector)
                others = tuple(choice for choice in argument.choices if choice != value) if argument else ()
                case.broken(rule, path, f"{path} is {value}.", f"Give another {path}.", others)


def _together(rule: Rule, case: _Case) -> None:
    if all(case.select(name) for name in rule.of):
        case.broken(
            rule, rule.of[0], f"{' and '.join(rule.of)} are given together.", f"Leave out one of {', '.join(rule.of)}."
        )


def _text_length(rule: Rule, case: _Case) -> None:
    most = rule.max
    for selector in rule.of:
        for path, value in case.select(selector):
            count = len(str(value))
            if count > most:
                case.broken(
                    rule, path, f"{path} has {count:,} characters.", f"Allowed are up to {most:,}.", (f"up to {most}",)
                )


def _needs(rule: Rule, case: _Case) -> None:
    needed = rule.argument
    if case.given.get(needed) == rule.value:
        return
    for selector in rule.of:
        for path, _ in case.select(selector):
            wanted = str(rule.value).lower() if isinstance(rule.value, bool) else rule.value
            case.broken(
                rule,
                needed,
                f"{path} needs {needed} to be {wanted}.",
                f"Set {needed} to {wanted}, or leave out {path}.",
                (str(wanted),),
            )


def _reference(rule: Rule, case: _Case) -> None:
    before, after = rule.marker.split("{n}", 1)
    pattern = re.compile(f"{re.escape(before)}([0-9]+){re.escape(after)}", re.IGNORECASE)
    there = sum(len(case.select(name)) or (name in case.findings.missing) for name in rule.counts)
    for selector in rule.of:
        for path, text in case.select(selector):
            for match in pattern.finditer(str(text)):
                # A number of any length can be typed; nine digits are more than any list has.
                number = int(match[1][:9])
                exact = f"{before}{match[1]}{after}"
                if match[0] != exact:
                    case.findings.warnings.append(f"{path} says {match[0]}; only {exact} is read as a reference.")
                elif not 1 <= number <= there:
                    _refuse_reference(rule, case, path, exact[:40], there)


def _refuse_reference(rule: Rule, case: _Case, path: str, marker: str, there: int) -> None:
    counted = " and ".join(name.removesuffix("[]") for name in rule.counts)
    names = tuple(rule.marker.replace("{n}", str(number)) for number in range(1, there + 1))
    if not counted:
        case.broken(
            rule,
            path,
            f"{path} refers to {marker}, and {case.endpoint.model} takes nothing that it could name.",
            f"Leave the reference out{_who_takes(rule.marker, case)}.",
        )
        return
    have = f"Allowed here: {', '.join(names)}; or" if names else "Leave the reference out, or"
    case.broken(
        rule,
        path,
        f"{path} refers to {marker}, which is not there: the call has {there} in {counted}.",
        f"{have} add to {counted}. Numbers start at 1, in list order.",
        names,
    )


def _who_takes(marker: str, case: _Case) -> str:
    """The models of the same mode that take what *marker* names; where there are none, the tools that do."""
    takers = [
        endpoint
        for endpoint in case.catalog.endpoints
        if any(rule.marker == marker and rule.counts for rule in endpoint.rules)
    ]
    models = [endpoint.model for endpoint in takers if endpoint.mode == case.endpoint.mode]
    tools = dict.fromkeys(tool for endpoint in takers for tool in TOOLS[endpoint.mode])
    if models:
        return f", or use a model that takes it: {', '.join(models)}"
    return f", or call a tool that takes it: {', '.join(tools)}" if tools else ""


def _given(rule: Rule, case: _Case) -> None:
    for selector in rule.of:
        for path, _ in case.select(selector):
            case.broken(rule, path, "", f"Leave out {path}.")
            case.findings.ceiling_times = max(case.findings.ceiling_times, rule.ceiling_times or Decimal(1))


def _one_group(rule: Rule, case: _Case) -> None:
    names = tuple(name for group in rule.groups for name in group)
    for selector in rule.of:
        for path, value in case.select(selector):
            present = [group for group in rule.groups if any(name in members_of(value) for name in group)]
            if not present and case.findings.estimating:
                case.findings.missing.append(f"{path}.{names[0]}")
            elif not present:
                case.broken(rule, path, f"{path} has none of {', '.join(names)}.", "Give one of them.", names)
            elif len(present) > 1:
                case.findings.warnings.append(f"{path} has members of several kinds. {rule.say}")


def _beside(rule: Rule, case: _Case) -> None:
    for selector in rule.of:
        for path, value in case.select(selector):
            for first, *others in rule.groups:
                if first in members_of(value) and not set(others) & set(members_of(value)):
                    names = " or ".join(others)
                    case.broken(
                        rule, f"{path}.{others[0]}", f"{path} has {first} without {names}.", f"Add {names} to {path}."
                    )


_CHECKS: Final[Mapping[RuleKind, Callable[[Rule, _Case], None]]] = {
    "exactly_one": _exactly_one,
    "count": _count,
    "total": _total,
    "seconds": _seconds,
    "value": _value,
    "together": _together,
    "text_length": _text_length,
    "needs": _needs,
    "reference": _reference,
    "given": _given,
    "one_group": _one_group,
    "beside": _beside,
}
