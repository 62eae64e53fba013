"""Models as an assistant reads them: abilities, schemas, limits and dated prices, from the catalog."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from kling_mcp.catalog.models import TOOLS
from kling_mcp.catalog.pricing import price_span
from kling_mcp.catalog.values import span
from kling_mcp.money import usd, usd_text
from kling_mcp.server.views import ModelRow, ModelsView, ModelView, ModesView, PricesView, PriceView

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from kling_mcp.catalog.models import Catalog, Endpoint, MediaLimits, Mode, Sound

__all__ = ["in_full", "overview", "price_range", "price_text", "prices"]


def overview(catalog: Catalog, tools: Collection[str], mode: Mode | None = None) -> ModelsView | ModesView:
    """
    Every model of *mode* in a few words; without a mode, what each model can do and costs.

    Args:
        tools: The tools that are offered; what they cannot make is left out and counted.
    """
    if mode is not None:
        endpoints = catalog.of(mode)
        return ModelsView(
            mode=mode,
            tools=list(TOOLS[mode]),
            default=catalog.default_of(mode).model,
            models=[_row(endpoint) for endpoint in endpoints],
        )
    offered: list[Mode] = [mode for mode in catalog.modes if any(tool in tools for tool in TOOLS[mode])]
    others = [mode for mode in catalog.modes if mode not in offered]
    able: dict[str, dict[str, str]] = {}
    for endpoint in catalog.of(*offered):
        able.setdefault(endpoint.model, {})[endpoint.mode] = price_text(endpoint)
    return ModesView(
        default=catalog.default.model,
        modes={mode: [tool for tool in TOOLS[mode] if tool in tools] for mode in offered},
        models=able,
        more=f"{', '.join(others)}: with KLING_MCP_TOOLSETS=all." if others else None,
    )


def price_text(endpoint: Endpoint) -> str:
    """Price, lengths and sound: ``$0.084-0.112/s, 3 to 15 s, sound optional``."""
    if not endpoint.prices:
        return "no list price yet, so it cannot run"
    newest = endpoint.prices[-1]
    least, most = (f"{rate.normalize():f}" for rate in (min(newest.rates), max(newest.rates)))
    unit = "a call" if newest.usd_per_call is not None else "/s"
    price = f"${least}{'' if least == most else f'-{most}'}{' ' if unit[0] == 'a' else ''}{unit}"
    if endpoint.result != "video":
        return price
    return f"{price}, {_lengths(endpoint)}{' s' if endpoint.length else ''}, {_SOUND[endpoint.sound]}"


_SOUND: Final[Mapping[Sound, str]] = {
    "switchable": "sound optional",
    "always": "with sound",
    "none": "silent",
    "kept": "sound kept on request",
    "unknown": "sound not known",
}


def in_full(endpoints: Sequence[Endpoint]) -> ModelView:
    """
    A model's endpoint with everything that the catalog knows of it: the first of *endpoints*.

    The others are named: its other modes, and what else its mode may be asked with.
    """
    endpoint, *others = endpoints
    arguments = endpoint.arguments.items()
    return ModelView(
        **dict(_row(endpoint)),
        mode=endpoint.mode,
        tools=list(TOOLS[endpoint.mode]),
        other_modes=[other.mode for other in others if other.mode != endpoint.mode],
        prices=[PriceView.of(price) for price in endpoint.prices],
        arguments={name: f"{argument.field}: {argument.description}" for name, argument in arguments},
        input_schema=_without_words(endpoint.input_schema),
        limits={name: _limits(limits) for name, limits in endpoint.limits.items()},
        timing=None if endpoint.timing is None else endpoint.timing.basis,
        sources=list(endpoint.sources),
        alternatives=[in_full([other]).model_dump(mode="json") for other in others if other.mode == endpoint.mode],
    )


def prices(catalog: Catalog) -> PricesView:
    """Every dated price of every model."""
    found: dict[str, dict[str, list[PriceView]]] = {}
    for endpoint in catalog.endpoints:
        found.setdefault(endpoint.model, {})[endpoint.mode] = [PriceView.of(price) for price in endpoint.prices]
    return PricesView(currency="USD", unit="second that is paid for, or call", models=found)


def price_range(catalog: Catalog, tool: str) -> str:
    """From the least that a job of *tool* can cost to the most, at list prices."""
    spans = [
        found
        for endpoint in catalog.endpoints
        if tool in TOOLS[endpoint.mode] and (found := price_span(endpoint)) is not None
    ]
    if not spans:
        return "an unknown amount"
    least, most = min(low for low, _ in spans), max(high for _, high in spans)
    return usd_text(least) if least == most else f"{usd_text(least)} to {usd_text(most)}"


def _lengths(endpoint: Endpoint) -> str:
    """How long a video can be, in words."""
    if endpoint.result != "video":
        return "none: a call makes no video"
    if endpoint.length is not None:
        return span(endpoint.length.lengths)
    inputs = [name for case in endpoint.billed for name in endpoint.measured(case)]
    return f"as long as {' or '.join(dict.fromkeys(inputs))}"


def _row(endpoint: Endpoint) -> ModelRow:
    """A model in a few words."""
    price = PriceView.of(endpoint.prices[-1]) if endpoint.prices else None
    return ModelRow(
        model=endpoint.model,
        title=endpoint.title,
        summary=endpoint.summary,
        endpoint=endpoint.endpoint_id,
        usd_per_second=price.usd_per_second if price else {},
        usd_per_call=price.usd_per_call if price else None,
        video_seconds=_lengths(endpoint),
        sound=endpoint.sound,
        takes=[name for name, argument in endpoint.arguments.items() if not argument.required or name == "shots"],
        expected_seconds_for_5_s=endpoint.expected_seconds(5),
    )


def _limits(limits: MediaLimits) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for name, value in limits:
        if value not in (None, (), False):
            known[name] = usd(value) if isinstance(value, Decimal) else value
    return known


def _without_words(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema without its descriptions, which `arguments` already gives."""

    def bare(value: Any) -> Any:
        if hasattr(value, "items"):
            return _without_words(value)
        members: Sequence[Any] = value
        return [bare(member) for member in members] if isinstance(value, list) else value

    return {
        name: bare(value)
        for name, value in schema.items()
        if name not in {"description", "$schema"} or not isinstance(value, str)
    }
