"""The catalog as an assistant reads it: models, prices, and what a job would cost."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

from kling_mcp.catalog.values import span
from kling_mcp.errors import InvalidArguments
from kling_mcp.money import dollars, usd, usd_text
from kling_mcp.server.confirm import asks
from kling_mcp.shown import shorten_data_uris

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kling_mcp.catalog.models import Argument, Catalog, Endpoint, PictureLimits, Price
    from kling_mcp.catalog.plan import Plan
    from kling_mcp.catalog.pricing import Quote
    from kling_mcp.jobs.ledger import DaySpend
    from kling_mcp.server.results import Json
    from kling_mcp.settings import Settings

__all__ = ["estimate", "estimate_headline", "in_full", "overview", "price_range", "prices"]


def estimate(catalog: Catalog, arguments: Mapping[str, object], settings: Settings, today: DaySpend | None) -> Json:
    """
    What a job with *arguments* would cost: one model, or all of them where none is named.

    Args:
        today: What is held and spent today; None if the ledger cannot say.

    Raises:
        InvalidArguments: No model would take the arguments.
        UnknownModel: The model named does not exist.
    """
    from kling_mcp.catalog.plan import plan
    from kling_mcp.catalog.values import is_given

    named = is_given(arguments.get("model"))
    rows: list[Json] = []
    if not named:
        rows = _compared(catalog, arguments, settings)
        taking = [row["model"] for row in rows if row["estimated_usd"] is not None]
        if catalog.default.model not in taking and taking:
            arguments = {**arguments, "model": taking[0]}
    chosen = plan(catalog, "estimate_cost", arguments)
    price = _quoted(chosen)
    whole = named and not chosen.missing
    notes = list(price.warnings)
    if not named and chosen.endpoint is not catalog.default:
        notes.append(f"{catalog.default.model}, the default, does not take this call: the job needs a model.")
    if named and chosen.missing:
        notes.append(f"request is null because {' and '.join(chosen.missing)} would be needed.")
    if whole and any(not slot.value.startswith("https:") for slot in chosen.pictures):
        notes.append("Pictures that are not https URLs are uploaded first; their links take their places in request.")
    return {
        "tool": chosen.tool,
        "model": chosen.endpoint.model,
        "mode": chosen.endpoint.mode,
        "seconds": chosen.seconds,
        **_figures(chosen, price, settings),
        "basis": price.basis,
        "sources": [_dated(source) for source in chosen.endpoint.prices],
        "request": shorten_data_uris(chosen.body) if whole else None,
        "models": rows,
        "budget": _budget(settings, today),
        "warnings": [*chosen.warnings, *notes],
    }


def estimate_headline(catalog: Catalog, data: Json) -> str:
    """The price in a sentence."""
    if not data["models"]:
        asks = " The user is asked first." if data["asks_first"] else ""
        return (
            f"{data['model']}: about {usd_text(data['estimated_usd'])}, at most {usd_text(data['ceiling_usd'])}. "
            f"{data['basis']}.{asks}"
        )
    taking = [row for row in data["models"] if row["estimated_usd"] is not None]
    listed = ", ".join(f"{row['model']} {_price(row)}" for row in taking)
    asked = [row["model"] for row in taking if row["asks_first"]]
    default = f"Without a model a job uses {catalog.default.model}"
    default += ", which does not take this call." if data["model"] != catalog.default.model else "."
    if asked:
        default += f" The user is asked first for {'each' if len(asked) == len(taking) else ', '.join(asked)}."
    return f"{data['seconds']} s, cheapest first: {listed}. {default}"


def _price(row: Json) -> str:
    most = f" (at most {usd_text(row['ceiling_usd'])})" if row["ceiling_usd"] != row["estimated_usd"] else ""
    return f"{usd_text(row['estimated_usd'])}{most}"


def _figures(chosen: Plan, price: Quote, settings: Settings) -> Json:
    """What is the same for one model and for each in a comparison."""
    sound = {True: "on", False: "off", None: "always" if chosen.endpoint.sound == "always" else "never"}
    return {
        "sound": sound[chosen.audio],
        "estimated_usd": usd(price.estimated_usd),
        "ceiling_usd": usd(price.ceiling_usd),
        "asks_first": asks(settings, price.ceiling_usd),
    }


def _budget(settings: Settings, today: DaySpend | None) -> Json:
    held = None if today is None else dollars(today.held_microusd)
    spent = None if today is None else dollars(today.spent_microusd)
    left = None if held is None or spent is None else max(settings.daily_budget_usd - held - spent, Decimal(0))
    return {
        "job_limit_usd": usd(settings.max_job_usd),
        "remaining_today_usd": None if left is None else usd(left),
        "held_usd": None if held is None else usd(held),
        "spent_usd": None if spent is None else usd(spent),
    }


def _compared(catalog: Catalog, arguments: Mapping[str, object], settings: Settings) -> list[Json]:
    from kling_mcp.catalog.plan import plan

    rows: list[Json] = []
    for endpoint in catalog.endpoints:
        try:
            chosen = plan(catalog, "estimate_cost", {**arguments, "model": endpoint.model})
        except InvalidArguments as refusal:
            why_not = " ".join(fault.what for fault in refusal.faults)
            rows.append({"model": endpoint.model, "estimated_usd": None, "ceiling_usd": None, "why_not": why_not[:200]})
            continue
        rows.append(
            {
                "model": endpoint.model,
                **_figures(chosen, _quoted(chosen), settings),
                "expected_seconds": endpoint.expected_seconds(chosen.seconds),
            }
        )
    return sorted(rows, key=lambda row: (row["estimated_usd"] is None, row["estimated_usd"] or 0))


def _quoted(chosen: Plan) -> Quote:
    from kling_mcp.catalog.pricing import quote

    return quote(chosen.endpoint, seconds=chosen.seconds, audio=chosen.audio, voice=chosen.voice)


def overview(catalog: Catalog) -> Json:
    """Every model in a few words."""
    return {"default": catalog.default.model, "models": [_row(endpoint) for endpoint in catalog.endpoints]}


def in_full(endpoint: Endpoint) -> Json:
    """One model with everything that the catalog knows of it."""
    return {
        **_row(endpoint),
        "prices": [_dated(price) for price in endpoint.prices],
        "arguments": {name: _argument(argument) for name, argument in endpoint.arguments.items()},
        "input_schema": _without_words(endpoint.input_schema),
        "limits": {name: _limits(limits) for name, limits in endpoint.limits.items()},
        "timing": None if endpoint.timing is None else endpoint.timing.basis,
        "sources": list(endpoint.sources),
    }


def prices(catalog: Catalog) -> Json:
    """Every dated price of every model."""
    return {
        "currency": "USD",
        "unit": "second of finished video",
        "models": {endpoint.model: [_dated(price) for price in endpoint.prices] for endpoint in catalog.endpoints},
    }


def price_range(catalog: Catalog) -> str:
    """From the shortest video of the cheapest model to the longest of the dearest, at the highest list prices."""
    shortest = min(
        _lengths(endpoint)[0] * min(endpoint.prices[-1].usd_per_second.values()) for endpoint in catalog.endpoints
    )
    longest = max(
        _lengths(endpoint)[-1] * max(rate for price in endpoint.prices for rate in price.usd_per_second.values())
        for endpoint in catalog.endpoints
    )
    return f"{usd_text(shortest)} to {usd_text(longest)}"


def _lengths(endpoint: Endpoint) -> tuple[int, ...]:
    argument = endpoint.argument_of("length")
    return argument.lengths if argument else (0,)


def _row(endpoint: Endpoint) -> Json:
    return {
        "model": endpoint.model,
        "title": endpoint.title,
        "summary": endpoint.summary,
        "endpoint": endpoint.endpoint_id,
        "usd_per_second": _rates(endpoint.prices[-1]),
        "video_seconds": span(_lengths(endpoint)),
        "sound": endpoint.sound,
        "takes": [name for name, argument in endpoint.arguments.items() if not argument.required or name == "shots"],
        "expected_seconds_for_5_s": endpoint.expected_seconds(5),
    }


def _rates(price: Price) -> Json:
    return {str(tier): usd(rate) for tier, rate in price.usd_per_second.items()}


def _dated(price: Price) -> Json:
    return {"as_of": price.as_of, "source": price.source, "usd_per_second": _rates(price)}


def _argument(argument: Argument) -> str:
    return f"{argument.field}: {argument.description}"


def _limits(limits: PictureLimits) -> Json:
    known: Json = {}
    for name, value in limits:
        if value not in (None, (), False):
            known[name] = usd(value) if isinstance(value, Decimal) else value
    return known


def _without_words(schema: Any) -> Any:
    """A schema without its descriptions, which `arguments` already gives."""
    if isinstance(schema, list):
        return [_without_words(member) for member in cast("list[Any]", schema)]
    if hasattr(schema, "items"):
        return {
            name: _without_words(value)
            for name, value in schema.items()
            if name not in {"description", "$schema"} or not isinstance(value, str)
        }
    return schema
