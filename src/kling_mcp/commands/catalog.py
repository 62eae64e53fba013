"""
``kling-mcp catalog check``: are the bundled and added schemas and prices still fal.ai's?

Compared is what decides whether a request is accepted and what it costs:
fields, which of them are required, their types, values, defaults and limits.
Not compared are wording, titles, examples, and whether null is taken, which is
never sent.

fal.ai's price API names one price of a unit for an endpoint, whatever the
tier. That a second costs a number of units that goes in tenths is an
inference from every price published so far, so a unit price that does not fit
it is a difference to be looked at, not a new price.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final, TypeVar

import anyio

from kling_mcp.catalog.added import added_endpoints
from kling_mcp.catalog.derive import DeriveError, derive, media_limit_names
from kling_mcp.catalog.openapi import schemas_of
from kling_mcp.errors import FalRejected, RateLimited, SettingsError
from kling_mcp.fal.http import FalHttp
from kling_mcp.fal.platform import FalPlatform
from kling_mcp.json_types import is_list, items_of, members_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from kling_mcp.catalog.models import Argument, Endpoint, MediaLimits
    from kling_mcp.fal.platform import PublishedModel, UnitPrice
    from kling_mcp.settings import Settings

__all__ = ["Comparison", "Difference", "check", "compare", "differences", "patiently"]

Schema = Mapping[str, object]

_PAUSES_SECONDS: Final = (15.0, 30.0, 60.0, 60.0)
"""fal.ai refuses for a minute after about ten quick calls without a key."""

_COMPARED: Final = (
    *("type", "enum", "default", "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    *("multipleOf", "minLength", "maxLength", "minItems", "maxItems"),
)
_ANY_DAY: Final = "2000-01-01"
"""Of a file that is derived to be compared, and not kept."""
_NOTHING: Final = object()
_DEEPEST: Final = 20
_FEWEST_UNITS: Final = Decimal("0.5")

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Difference:
    """
    One thing that is not as the catalog has it.

    Args:
        place: Such as ``input.multi_prompt[].duration.enum``.
        ours: What the catalog says; None where it has nothing.
        theirs: What fal.ai says; None where it has nothing.
        known: The catalog keeps this on purpose, with a warning at each use.
    """

    place: str
    ours: str | None
    theirs: str | None
    known: bool = False


def check(settings: Settings, sleep: Callable[[float], Awaitable[None]] = anyio.sleep) -> int:
    """
    Print how the catalog differs from fal.ai; 1 if it does.

    Raises:
        SettingsError: The settings lead to the simulator of another process.
        KlingError: fal.ai cannot be asked.
    """
    if settings.backend == "simulator":
        raise SettingsError(
            "KLING_MCP_BACKEND is simulator. catalog check asks fal.ai: leave it unset for this command."
        )
    found = anyio.run(compare, settings, sleep)
    for endpoint, every in found.differences.items():
        counted = [difference for difference in every if not difference.known]
        said = "as added" if endpoint in found.added else "as bundled"
        print(f"{_label(endpoint):<40} {_several(len(counted)) if counted else said}")
        for difference in every:
            _print(difference, "added" if endpoint in found.added else "bundled")
    for note in (*found.notes, *found.left_out):
        print(note)
    total = len(found.differences)
    changed = sum(not all(one.known for one in every) for every in found.differences.values())
    print(f"\n{f'{changed} of {total} endpoints differ.' if changed else f'{total} endpoints as fal.ai has them.'}")
    return 1 if changed or found.left_out else 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """
    How the catalog differs from fal.ai.

    Args:
        differences: Those of each endpoint.
        added: The endpoints that are not bundled.
        notes: What else there is to say.
        left_out: A line for each file of an added endpoint that cannot be used.
    """

    differences: Mapping[Endpoint, list[Difference]]
    added: frozenset[Endpoint]
    notes: list[str]
    left_out: tuple[str, ...]


async def compare(settings: Settings, sleep: Callable[[float], Awaitable[None]] = anyio.sleep) -> Comparison:
    """
    The differences of every endpoint, and what else there is to say.

    Raises:
        KlingError: fal.ai cannot be asked.
    """
    known = added_endpoints(settings.data_dir)
    endpoints = known.catalog.endpoints
    added = frozenset(endpoint for _, endpoint in known.files)
    ids = [endpoint.endpoint_id for endpoint in endpoints]
    async with FalHttp(settings.hosts, settings.fal_key, sleep=sleep) as http:
        platform = FalPlatform(http)
        published = await patiently(lambda: platform.models(ids), sleep)
        prices, notes = await _prices(platform, ids, sleep, authenticated=http.has_key)
    cheapest, dearest = _range([endpoint for endpoint in endpoints if endpoint not in added])
    found: dict[Endpoint, list[Difference]] = {}
    for endpoint in endpoints:
        theirs, price = published.get(endpoint.endpoint_id), prices.get(endpoint.endpoint_id)
        if endpoint in added:
            found[endpoint] = [*_differences_of_added(endpoint, theirs), *_price_of_added(endpoint, price)]
        else:
            found[endpoint] = [
                *differences(endpoint, theirs),
                *_price_differences(endpoint, price, cheapest, dearest),
            ]
    return Comparison(found, added, notes, known.left_out)


def differences(endpoint: Endpoint, published: PublishedModel | None) -> list[Difference]:
    """How what fal.ai publishes of *endpoint* differs from the catalog."""
    if published is None or published.openapi is None:
        return [Difference("endpoint", endpoint.endpoint_id, None)]
    components = members_of(members_of(published.openapi.get("components")).get("schemas"))
    request, result = (_plain(one, components) for one in schemas_of(endpoint.endpoint_id, published.openapi))
    found = [*_status_differences(published)]
    for part, ours, theirs in (("input", endpoint.input_schema, request), ("output", endpoint.output_schema, result)):
        if not theirs:
            found.append(Difference(part, "a schema", None))
            continue
        found += _Comparison(components, open_ended=part == "output").objects(part, ours, theirs)
    contested = _contested(endpoint)
    found = [
        Difference(one.place, one.ours, one.theirs, known=one.theirs is None and one.place in contested)
        for one in [*found, *_limits_in("input", endpoint.arguments, request, components)]
    ]
    return sorted(found, key=lambda one: one.place)


def _differences_of_added(endpoint: Endpoint, published: PublishedModel | None) -> list[Difference]:
    """How an added endpoint differs from what would be added today; what adding leaves out is left out of both."""
    if published is None or published.openapi is None:
        return [Difference("endpoint", endpoint.endpoint_id, None)]
    try:
        today = derive(endpoint.endpoint_id, published.openapi, None, as_of=_ANY_DAY).endpoint
    except DeriveError as reason:
        return [Difference("document", "one that can be used", str(reason))]
    found = [
        *_status_differences(published),
        *_Comparison({}, open_ended=False).objects("input", endpoint.input_schema, today.input_schema),
        *_Comparison({}, open_ended=True).objects("output", endpoint.output_schema, today.output_schema),
    ]
    for name, limits in today.limits.items():
        ours = endpoint.limits.get(name)
        stated = limits.model_dump(exclude_defaults=True, exclude={"basis", "inferred"})
        for limit, theirs in stated.items() if not limits.inferred else ():
            mine = getattr(ours, limit, None)
            if mine != theirs:
                found.append(Difference(f"limits.{name}.{limit}", None if mine is None else str(mine), str(theirs)))
    return sorted(found, key=lambda one: one.place)


def _status_differences(published: PublishedModel) -> Iterator[Difference]:
    if published.status and published.status != "active":
        yield Difference("status", "active", published.status[:40])


async def patiently(ask: Callable[[], Awaitable[_T]], sleep: Callable[[float], Awaitable[None]]) -> _T:
    """What *ask* answers, however long fal.ai's rate limit makes it wait."""
    for pause_seconds in _PAUSES_SECONDS:
        try:
            return await ask()
        except RateLimited:
            print(f"fal.ai asks for fewer requests; asking again in {pause_seconds:g} s.", file=sys.stderr)
            await sleep(pause_seconds)
    return await ask()


# ---- schemas


@dataclass(frozen=True, slots=True)
class _Comparison:
    """
    Two schemas side by side.

    Args:
        components: What a ``$ref`` of fal.ai's leads to.
        open_ended: More than the catalog lists is no difference.
    """

    components: Mapping[str, object]
    open_ended: bool

    def objects(self, place: str, ours: Schema, theirs: Schema) -> Iterator[Difference]:
        """Field by field."""
        mine, yours = members_of(ours.get("properties")), members_of(theirs.get("properties"))
        for name in mine:
            if name in yours:
                yield from self.values(f"{place}.{name}", members_of(mine[name]), members_of(yours[name]))
            else:
                yield Difference(f"{place}.{name}", "a field", None)
        for name in yours:
            if name not in mine and not self.open_ended:
                kind = _text(_plain(members_of(yours[name]), self.components).get("type"))
                yield Difference(f"{place}.{name}", None, f"a field, type {kind}")
        needed, asked = _names(ours.get("required")), _names(theirs.get("required"))
        for name in sorted((needed ^ asked) & mine.keys() & yours.keys()):
            words = ("required", "optional") if name in needed else ("optional", "required")
            yield Difference(f"{place}.{name}.required", *words)

    def values(self, place: str, ours: Schema, theirs: Schema) -> Iterator[Difference]:
        """One value, and what is inside it."""
        ours, theirs = _plain(ours, {}), _plain(theirs, self.components)
        for name in ("type",) if self.open_ended else _COMPARED:
            mine, yours = _stated(ours, name), _stated(theirs, name)
            if mine != yours:
                yield Difference(f"{place}.{name}", _text(mine), _text(yours))
        if "items" in ours and "items" in theirs:
            yield from self.values(f"{place}[]", members_of(ours["items"]), members_of(theirs["items"]))
        if "properties" in ours and "properties" in theirs:
            yield from self.objects(place, ours, theirs)


def _plain(schema: Schema, components: Mapping[str, object]) -> Schema:
    """*schema* without references, and without the forms in which null is allowed."""
    for _ in range(_DEEPEST):
        options = [members_of(one) for name in ("anyOf", "oneOf", "allOf") for one in items_of(schema.get(name))]
        real = [option for option in options if option.get("type") != "null"]
        if "$ref" in schema:
            schema = {**members_of(components.get(str(schema["$ref"]).rpartition("/")[2])), **_without(schema, "$ref")}
        elif len(real) == 1:
            schema = {**real[0], **_without(schema, "anyOf", "oneOf", "allOf")}
        else:
            break
    kinds = [kind for kind in items_of(schema.get("type")) if kind != "null"]
    return {**schema, "type": kinds[0] if len(kinds) == 1 else kinds} if kinds else schema


def _stated(schema: Schema, name: str) -> object:
    """What *schema* says under *name*, in a form that can be compared; a null says nothing."""
    value = schema.get(name)
    if value is None:
        return _NOTHING
    if name in {"enum", "type"} and is_list(value):
        return sorted((one for one in value if one is not None), key=_enum_order)
    return value


def _enum_order(value: object) -> tuple[float, str]:
    text = str(value)
    return (float(text) if text.isdigit() else float("inf"), text)


def _contested(endpoint: Endpoint) -> set[str]:
    """The fields that some documents list and others do not; the catalog takes them with a warning."""
    named = {name for rule in endpoint.rules if rule.kind == "given" and rule.level == "warn" for name in rule.of}
    return {f"input.{endpoint.arguments[name].field}" for name in named if name in endpoint.arguments}


def _limits_in(
    place: str, arguments: Mapping[str, Argument], theirs: Schema, components: Mapping[str, object]
) -> Iterator[Difference]:
    """Limits of pictures and videos, where fal.ai publishes any."""
    fields = members_of(theirs.get("properties"))
    for argument in arguments.values():
        path = f"{place}.{argument.field}{'[]' if argument.many else ''}"
        field = _plain(members_of(fields.get(argument.field)), components)
        inside = _plain(members_of(field.get("items")), components) if argument.many else field
        if argument.limits is not None:
            stated = members_of(field.get("x-fal")) or members_of(inside.get("x-fal"))
            yield from _limits_of(path, argument.limits, stated)
        yield from _limits_in(path, argument.items, inside, components)


def _limits_of(place: str, limits: MediaLimits, stated: Mapping[str, object]) -> Iterator[Difference]:
    for name, value in stated.items():
        ours_is = media_limit_names().get(name)
        if ours_is is None or not isinstance(value, (int, float)) or isinstance(value, bool):
            continue
        ours: int | Decimal | None = getattr(limits, ours_is)
        if ours is None or Decimal(ours) != Decimal(str(value)):
            yield Difference(f"{place}.{name}", None if ours is None else str(ours), str(value))


# ---- prices


async def _prices(
    platform: FalPlatform, ids: Sequence[str], sleep: Callable[[float], Awaitable[None]], *, authenticated: bool
) -> tuple[Mapping[str, UnitPrice], list[str]]:
    """fal.ai's unit prices by endpoint id, and what to tell about them."""
    if not authenticated:
        return {}, ["Prices were not compared: fal.ai tells them only with a key, and FAL_KEY is not set."]
    try:
        prices = await patiently(lambda: platform.prices(ids), sleep)
    except FalRejected as error:
        return {}, [f"Prices were not compared. {error.what}"]
    units = sorted({f"{price.unit_price.normalize():f} {price.currency} ({price.unit})" for price in prices.values()})
    notes = [f"fal.ai's price of a unit: {', '.join(units)}."] if units else []
    missing = len(ids) - len(prices)
    return prices, [*notes, *([f"fal.ai names no price for {missing} of {len(ids)} models."] if missing else [])]


def _range(endpoints: Sequence[Endpoint]) -> tuple[Decimal, Decimal]:
    """The lowest rate of those that depend on sound and the highest of all, in US dollars for a second."""
    newest = [endpoint.prices[-1].usd_per_second for endpoint in endpoints]
    tiered = [rate for rates in newest if "flat" not in rates for rate in rates.values()]
    return min(tiered, default=Decimal(0)), max(rate for rates in newest for rate in rates.values())


def _price_differences(
    endpoint: Endpoint, price: UnitPrice | None, cheapest: Decimal, dearest: Decimal
) -> Iterator[Difference]:
    if price is None:
        return
    theirs = f"{price.unit_price.normalize():f} {price.currency} for a unit ({price.unit})"
    newest = endpoint.prices[-1]
    if newest.usd_per_call is not None:
        if price.unit_price != newest.usd_per_call or price.currency != "USD":
            yield Difference("price", f"{newest.usd_per_call} USD for a call", theirs)
        return
    rates = newest.usd_per_second
    ours = ", ".join(f"{tier} {rate}" for tier, rate in rates.items()) + " USD for a second"
    # The price of a second itself, or a credit: above the cheapest second, and a second costs tenths of it.
    is_rate = price.unit_price == rates.get("flat")
    is_credit = cheapest < price.unit_price <= dearest and all(
        _is_in_tenths(rate / price.unit_price) for rate in rates.values()
    )
    if not (price.currency == "USD" and price.unit.startswith("second") and (is_rate or is_credit)):
        yield Difference("price", ours, theirs)


def _price_of_added(endpoint: Endpoint, price: UnitPrice | None) -> Iterator[Difference]:
    """The list price is among the prices of the file, or the file has been edited; what it has none of is asked."""
    ours = {rate for one in endpoint.prices for rate in one.rates}
    if price is not None and price.unit_price not in ours:
        said = ", ".join(f"{rate.normalize():f}" for rate in sorted(ours))
        theirs = f"{price.unit_price.normalize():f} {price.currency} for a unit ({price.unit})"
        yield Difference("price", f"{said} USD" if said else None, theirs)


def _is_in_tenths(units: Decimal) -> bool:
    """Whether a second can cost so many units, as far as is known: half of one or more, in tenths."""
    return units >= _FEWEST_UNITS and units * 10 == (units * 10).to_integral_value()


# ---- words


def _label(endpoint: Endpoint) -> str:
    return " ".join(filter(None, endpoint.key))


def _print(difference: Difference, ours: str) -> None:
    print(f"  {difference.place}{'  (known: taken with a warning)' if difference.known else ''}")
    if difference.ours is not None:
        print(f"    - {ours + ':':<8} {difference.ours}")
    if difference.theirs is not None:
        print(f"    + fal.ai:  {difference.theirs}")
    elif difference.place == "endpoint":
        print("    + fal.ai:  publishes no such endpoint")


def _several(count: int) -> str:
    return f"{count} difference{'' if count == 1 else 's'}"


def _text(value: object) -> str | None:
    return None if value is _NOTHING else json.dumps(value, ensure_ascii=False)[:200]


def _names(value: object) -> set[str]:
    return {str(one) for one in items_of(value)}


def _without(schema: Schema, *names: str) -> Schema:
    return {name: value for name, value in schema.items() if name not in names}
