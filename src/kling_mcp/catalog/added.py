"""
Endpoints that the user has added: files of the same form as the bundled ones, in ``<data dir>/endpoints``.

A file that cannot be used is left out and said; what is bundled works all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kling_mcp.catalog.models import Catalog, CatalogError, Endpoint, load, read_endpoint
from kling_mcp.texts import showable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["FOLDER", "AddedEndpoints", "added_endpoints", "clash", "files_in"]

FOLDER: Final = "endpoints"
"""In the data directory."""

_MOST_BYTES: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class AddedEndpoints:
    """
    What is bundled and what is added.

    Attributes:
        catalog: All endpoints that can be used.
        files: The file of each added endpoint.
        left_out: A line for each file that cannot be used: its path, and why.

    """

    catalog: Catalog
    files: tuple[tuple[Path, Endpoint], ...] = ()
    left_out: tuple[str, ...] = ()


def added_endpoints(data_dir: Path) -> AddedEndpoints:
    """The catalog with what was added in *data_dir*."""
    bundled = load()
    files: list[tuple[Path, Endpoint]] = []
    left_out: list[str] = []
    for path in files_in(data_dir):
        try:
            endpoint = _read(path)
            others = [*bundled.endpoints, *(one for _, one in files)]
            if (why := clash(endpoint, others)) is not None:
                raise CatalogError(f"{path.name}: {why}")
        except CatalogError as error:
            left_out.append(f"{showable(str(path))} is left out. {showable(str(error))}.")
            continue
        files.append((path, endpoint))
    if not files:
        return AddedEndpoints(bundled, left_out=tuple(left_out))
    shown = sorted([*bundled.endpoints, *(endpoint for _, endpoint in files)], key=lambda one: (one.order, one.model))
    return AddedEndpoints(Catalog(tuple(shown)), tuple(files), tuple(left_out))


def files_in(data_dir: Path) -> list[Path]:
    """The files of added endpoints; none where there is no folder for them, or none that can be read."""
    try:
        return sorted(path for path in (data_dir / FOLDER).iterdir() if path.suffix == ".json" and path.is_file())
    except OSError:
        return []


def clash(endpoint: Endpoint, others: Sequence[Endpoint]) -> str | None:
    """Why *endpoint* cannot stand beside *others*; None where it can."""
    if endpoint.default:
        return "default: an added endpoint cannot be the default"
    for other in others:
        if other.endpoint_id == endpoint.endpoint_id:
            return f"endpoint_id: {other.endpoint_id} is there already, as {other.model} ({other.mode})"
        if other.key == endpoint.key:
            return f"model: {other.model} ({other.mode}) is there already, for {other.endpoint_id}"
    return None


def _read(path: Path) -> Endpoint:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise CatalogError(f"{path.name}: {error.strerror or type(error).__name__}") from None
    if len(data) > _MOST_BYTES:
        raise CatalogError(f"{path.name}: it is larger than {_MOST_BYTES:,} bytes")
    return read_endpoint(data, path.name)
