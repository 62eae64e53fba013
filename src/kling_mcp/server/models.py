"""Models as an assistant reads them: abilities, schemas, limits and dated prices, from the catalog."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from kling_mcp.catalog.values import span
from kling_mcp.money import usd, usd_text
from kling_mcp.server.views import ModelRow, ModelsView, ModelView, PricesView, PriceView

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kling_mcp.catalog.models import Catalog, Endpoint, MediaLimits

__all__ = ["in_full", "overview", "price_range", "prices"]


def overview(catalog: Catalog) -> ModelsView:
    """Every model in a few words."""
    return ModelsView(
        default=catalog.default.model, models=[_row(endpoint) for endpoint in catalog.of("image-to-video")]
    )


def in_full(endpoint: Endpoint) -> ModelView:
    """One model with everything that the catalog knows of it."""
    arguments = endpoint.arguments.items()
    return ModelView(
        **dict(_row(endpoint)),
        prices=[PriceView.of(price) for price in endpoint.prices],
        arguments={name: f"{argument.field}: {argument.description}" for name, argument in arguments},
        input_schema=_without_words(endpoint.input_schema),
        limits={name: _limits(limits) for name, limits in endpoint.limits.items()},
        timing=None if endpoint.timing is None else endpoint.timing.basis,
        sources=list(endpoint.sources),
    )


def prices(catalog: Catalog) -> PricesView:
    """Every dated price of every model."""
    return PricesView(
        currency="USD",
        unit="second of finished video",
        models={
            endpoint.model: [PriceView.of(price) for price in endpoint.prices]
            for endpoint in catalog.of("image-to-video")
        },
    )


def price_range(catalog: Catalog) -> str:
    """From the shortest video of the cheapest model to the longest of the dearest, at the highest list prices."""
    videos = [endpoint for endpoint in catalog.of("image-to-video") if endpoint.prices]
    shortest = min(_lengths(endpoint)[0] * min(endpoint.prices[-1].rates) for endpoint in videos)
    longest = max(
        _lengths(endpoint)[-1] * max(rate for price in endpoint.prices for rate in price.rates) for endpoint in videos
    )
    return f"{usd_text(shortest)} to {usd_text(longest)}"


def _lengths(endpoint: Endpoint) -> tuple[int, ...]:
    argument = endpoint.argument_of("length")
    return argument.lengths if argument else (0,)


def _row(endpoint: Endpoint) -> ModelRow:
    return ModelRow(
        model=endpoint.model,
        title=endpoint.title,
        summary=endpoint.summary,
        endpoint=endpoint.endpoint_id,
        usd_per_second=PriceView.of(endpoint.prices[-1]).usd_per_second if endpoint.prices else {},
        video_seconds=span(_lengths(endpoint)),
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
