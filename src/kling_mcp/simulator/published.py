"""
What fal publishes of endpoints: a name, an OpenAPI document, a price of a unit.

Of the catalog's endpoints it is made from the catalog. Others, such as a model that is not out yet or a document that
is broken on purpose, come from a test or from the files of a folder.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from kling_mcp.simulator.openapi import document

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kling_mcp.catalog.models import Endpoint, Mode

__all__ = ["Published", "UnitPrice", "of_endpoint", "read_folder"]

_CREDIT_USD: Final = Decimal("0.14")
_CATEGORIES: Final[Mapping[Mode, str]] = {
    "edit": "video-to-video",
    "reference-video": "video-to-video",
    "reference-to-video": "image-to-video",
    "motion-control": "video-to-video",
    "lip-sync": "text-to-video",
    "avatar": "image-to-video",
    "create-voice": "text-to-speech",
}
"""Where fal lists the modes that are no category of their own."""


class UnitPrice(BaseModel):
    """A row of the price API, without its endpoint."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unit_price: Decimal
    unit: str = "seconds"
    currency: str = "USD"


class Published(BaseModel):
    """
    What fal publishes of one endpoint.

    Attributes:
        openapi: Its document, whatever it holds; None where fal fails to make one.
        price: None where the price API does not know it.

    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint_id: str
    title: str = ""
    description: str = ""
    category: str = "image-to-video"
    status: str = "active"
    openapi: dict[str, object] | None = None
    price: UnitPrice | None = None


def of_endpoint(endpoint: Endpoint, *, with_document: bool = False) -> Published:
    """What fal publishes of *endpoint*."""
    category = _CATEGORIES.get(endpoint.mode, endpoint.mode)
    return Published(
        endpoint_id=endpoint.endpoint_id,
        title=endpoint.title,
        description=endpoint.summary,
        category=category,
        openapi=document(endpoint, category) if with_document else None,
        price=_unit_price(endpoint),
    )


def read_folder(folder: Path) -> tuple[Published, ...]:
    """
    The JSON files of *folder*, each with the fields of `Published`.

    Raises:
        OSError: It cannot be read.
        ValueError: A file is not of that form; the message names it.
    """
    found: list[Published] = []
    for path in sorted(path for path in folder.iterdir() if path.suffix == ".json"):
        try:
            found.append(Published.model_validate_json(path.read_bytes()))
        except ValidationError as error:
            place = ".".join(map(str, error.errors()[0]["loc"]))
            what = f"{place}: {error.errors()[0]['msg']}".removeprefix(": ")
            raise ValueError(f"{path.name} is not what fal publishes of an endpoint: {what}") from None
    return tuple(found)


def _unit_price(endpoint: Endpoint) -> UnitPrice | None:
    """
    What fal's price API names for a unit.

    It was seen to be the rate itself where a model has one (v2.1-master), and a credit, of which a second costs
    several, where the rate depends on sound.
    """
    if not endpoint.prices:
        return None
    price = endpoint.prices[-1]
    if price.usd_per_call is not None:
        return UnitPrice(unit_price=price.usd_per_call, unit="generations")
    return UnitPrice(unit_price=price.usd_per_second.get("flat", _CREDIT_USD))
