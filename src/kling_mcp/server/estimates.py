"""Estimates: what a job would cost with one model, or with each of them."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias, TypedDict

from kling_mcp.catalog.plan import plan, usual_endpoint
from kling_mcp.catalog.pricing import quote_plan
from kling_mcp.catalog.values import is_given
from kling_mcp.errors import InvalidArguments, KlingError, NotAvailable
from kling_mcp.jobs.inputs import length_faults
from kling_mcp.money import usd, usd_text
from kling_mcp.server.confirm import asks
from kling_mcp.server.views import BudgetView, ComparedModel, EstimateView, PriceView, SpendTodayView, UnsuitableModel

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from kling_mcp.catalog.models import Catalog, Endpoint
    from kling_mcp.catalog.plan import Plan
    from kling_mcp.catalog.pricing import Quote
    from kling_mcp.jobs.ledger import DaySpend
    from kling_mcp.server.views import Sound
    from kling_mcp.settings import Settings

__all__ = ["estimate", "estimate_headline", "to_measure"]

Lengths: TypeAlias = "Mapping[str, Decimal | None]"
_NOTHING: Final[Lengths] = MappingProxyType({})


def to_measure(catalog: Catalog, arguments: Mapping[str, object]) -> Plan | None:
    """A plan of *arguments* whose price depends on the length of what they give; None where it depends on none."""
    named = is_given(arguments.get("model"))
    usual = usual_endpoint(catalog, "estimate_cost", arguments)
    for endpoint in (None,) if named else _compared_with(catalog, usual):
        try:
            planned = plan(catalog, "estimate_cost", arguments, endpoint)
        except KlingError:
            continue
        if planned.input_seconds:
            return planned
    return None


def estimate(
    catalog: Catalog,
    arguments: Mapping[str, object],
    settings: Settings,
    today: DaySpend | None,
    measured: Lengths = _NOTHING,
) -> EstimateView:
    """
    What a job with *arguments* would cost: one model, or all of them where none is named.

    Args:
        today: What is held and spent today; None if the ledger cannot say.
        measured: How long the videos and sounds are that they give, by argument.

    Raises:
        InvalidArguments: No model would take the arguments, or what they give is too long.
        UnknownModel: The model named does not exist.
    """
    named = is_given(arguments.get("model"))
    rows: list[ComparedModel | UnsuitableModel] = []
    usual = endpoint = None
    if not named:
        usual = endpoint = usual_endpoint(catalog, "estimate_cost", arguments)
        rows = _compared(catalog, usual, arguments, settings, measured)
        taking = [row.model for row in rows if isinstance(row, ComparedModel)]
        if usual.model not in taking and taking:
            endpoint = catalog.model(taking[0], usual.mode)
    chosen = _planned(catalog, arguments, endpoint, measured)
    price = quote_plan(chosen, measured)
    whole = named and not chosen.missing
    warnings = [*chosen.warnings, *price.warnings]
    if usual is not None and chosen.endpoint is not usual:
        warnings.append(f"{usual.model}, the default, does not take this call: the job needs a model.")
    if named and chosen.missing:
        warnings.append(f"request is null because {' and '.join(chosen.missing)} would be needed.")
    if whole and any(slot.kind != "voice" and not slot.value.startswith("https:") for slot in chosen.inputs):
        warnings.append("Files that are not https URLs are uploaded first; request then has their links.")
    left = None if today is None else SpendTodayView.of(today, settings.daily_budget_usd)
    return EstimateView(
        tool=chosen.tool,
        model=chosen.endpoint.model,
        mode=chosen.endpoint.mode,
        seconds=price.seconds,
        **_figures(chosen, settings, price),
        basis=price.basis,
        sources=[PriceView.of(source) for source in chosen.endpoint.prices],
        request=chosen.body if whole else None,
        models=rows,
        budget=BudgetView(
            job_limit_usd=usd(settings.max_job_usd),
            remaining_today_usd=left.remaining_usd if left else None,
            held_usd=left.held_usd if left else None,
            spent_usd=left.today_usd if left else None,
        ),
        warnings=warnings,
    )


def estimate_headline(catalog: Catalog, view: EstimateView) -> str:
    """The price in a sentence."""
    if not view.models:
        prices = f"about {usd_text(view.estimated_usd)}, at most {usd_text(view.ceiling_usd)}"
        asks_first = " The user is asked first." if view.asks_first else ""
        return f"{view.model}: {prices}. {view.basis}.{asks_first}"
    taking = [row for row in view.models if isinstance(row, ComparedModel)]
    listed = ", ".join(f"{row.model} {_price(row)}" for row in taking)
    asked = [row.model for row in taking if row.asks_first]
    usual = catalog.default_of(view.mode).model
    default = f"Without a model a job uses {usual}"
    default += ", which does not take this call." if view.model != usual else "."
    if asked:
        default += f" The user is asked first for {'each' if len(asked) == len(taking) else ', '.join(asked)}."
    return f"{view.seconds} s, cheapest first: {listed}. {default}"


def _price(row: ComparedModel) -> str:
    most = f" (at most {usd_text(row.ceiling_usd)})" if row.ceiling_usd != row.estimated_usd else ""
    return f"{usd_text(row.estimated_usd)}{most}"


class _Figures(TypedDict):
    """What is the same for one model and for each in a comparison."""

    sound: Sound
    estimated_usd: float
    ceiling_usd: float
    asks_first: bool


def _figures(chosen: Plan, settings: Settings, price: Quote) -> _Figures:
    if chosen.audio is None:
        sound = "always" if chosen.endpoint.sound == "always" else "never"
    else:
        sound = "on" if chosen.audio else "off"
    return {
        "sound": sound,
        "estimated_usd": usd(price.estimated_usd),
        "ceiling_usd": usd(price.ceiling_usd),
        "asks_first": price.needs_max_cost or asks(settings, price.ceiling_usd),
    }


def _planned(catalog: Catalog, arguments: Mapping[str, object], endpoint: Endpoint | None, measured: Lengths) -> Plan:
    planned = plan(catalog, "estimate_cost", arguments, endpoint)
    if too_long := length_faults(planned, measured):
        raise InvalidArguments.of(too_long)
    return planned


def _compared_with(catalog: Catalog, usual: Endpoint) -> tuple[Endpoint, ...]:
    """Every endpoint for the mode of *usual*."""
    return tuple(endpoint for endpoint in catalog.of(usual.mode) if endpoint.when == usual.when)


def _compared(
    catalog: Catalog, usual: Endpoint, arguments: Mapping[str, object], settings: Settings, measured: Lengths
) -> list[ComparedModel | UnsuitableModel]:
    """Every model for the mode of *usual*: those that take *arguments* by price, then the others."""
    taking: list[ComparedModel] = []
    others: list[UnsuitableModel] = []
    for endpoint in _compared_with(catalog, usual):
        try:
            chosen = _planned(catalog, arguments, endpoint, measured)
            price = quote_plan(chosen, measured)
        except (InvalidArguments, NotAvailable) as refusal:
            why_not = " ".join(fault.what for fault in refusal.faults)[:200]
            others.append(UnsuitableModel(model=endpoint.model, estimated_usd=None, ceiling_usd=None, why_not=why_not))
            continue
        figures = _figures(chosen, settings, price)
        expected_seconds = endpoint.expected_seconds(price.seconds)
        taking.append(ComparedModel(model=endpoint.model, **figures, expected_seconds=expected_seconds))
    return [*sorted(taking, key=lambda row: row.estimated_usd), *others]
