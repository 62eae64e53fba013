"""
``kling-mcp catalog add`` and ``catalog remove``: endpoints of fal.ai's that are not bundled.

A file is written only if everything about it is in order; whatever is wrong before that changes nothing, and is one
line on standard error.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import anyio

from kling_mcp.catalog.added import FOLDER, added_endpoints, clash, files_in
from kling_mcp.catalog.derive import DeriveError, ListPrice, derive, plain_id
from kling_mcp.catalog.models import load
from kling_mcp.commands.catalog import patiently
from kling_mcp.errors import FalRejected, SettingsError
from kling_mcp.fal.http import FalHttp
from kling_mcp.fal.platform import FalPlatform
from kling_mcp.json_types import members_of
from kling_mcp.texts import clean

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from kling_mcp.catalog.derive import Derived
    from kling_mcp.fal.platform import PublishedModel, UnitPrice
    from kling_mcp.settings import Settings

__all__ = ["add", "remove"]

_MARGIN: Final = "  "


def add(settings: Settings, text: str, sleep: Callable[[float], Awaitable[None]] = anyio.sleep) -> int:
    """
    Add the endpoint whose id is *text*, and print what is known of it; 1 if it cannot be added.

    Raises:
        SettingsError: The settings lead to the simulator, or the file cannot be written.
        KlingError: fal.ai cannot be asked.
    """
    if settings.backend == "simulator":
        raise SettingsError("KLING_MCP_BACKEND is simulator. catalog add asks fal.ai: leave it unset for this command.")
    try:
        endpoint_id = plain_id(text)
        known = added_endpoints(settings.data_dir)
        there = known.catalog.by_endpoint_id(endpoint_id)
        if there is not None:
            raise DeriveError(_there(endpoint_id, there.model, there.mode, added=there not in load().endpoints))
        published, price, without_key = anyio.run(_asked, settings, endpoint_id, sleep)
        if published is None or published.openapi is None:
            raise DeriveError(
                f"fal.ai publishes no endpoint {endpoint_id}. Its page shows the id that it has; nothing was added."
            )
        found = derive(
            endpoint_id,
            published.openapi,
            None if price is None else ListPrice(price.unit_price, price.unit, price.currency),
            as_of=datetime.now(UTC).date().isoformat(),
            title=published.title,
        )
        if (why := clash(found.endpoint, known.catalog.endpoints)) is not None:
            raise DeriveError(f"{endpoint_id} cannot be added. {why}.")
    except DeriveError as error:
        print(f"kling-mcp: {error}", file=sys.stderr)
        return 1
    path = settings.data_dir / FOLDER / _name(found)
    _write(path, found)
    _report(found, path, published, without_key=without_key)
    return 0


def remove(settings: Settings, model: str, mode: str) -> int:
    """
    Remove what was added of *model* in *mode*; 1 if nothing was.

    Raises:
        SettingsError: The file cannot be removed.
    """
    found = [path for path in files_in(settings.data_dir) if (model, mode) in _keys(path)]
    for path in found:
        try:
            path.unlink()
        except OSError as error:
            raise SettingsError(f"{path} cannot be removed: {error.strerror or error}.") from None
        print(
            f"Removed {path}. Jobs that were made with it stay in the ledger. A running server knows it until its end."
        )
    if found:
        return 0
    if any((one.model, one.mode) == (model, mode) for one in load().endpoints):
        print(f"kling-mcp: {model} ({mode}) is bundled, and stays.", file=sys.stderr)
        return 1
    added = [f"{one.model} {one.mode}" for _, one in added_endpoints(settings.data_dir).files]
    shown = f"{clean(model, 80)} ({clean(mode, 40)})"
    print(f"kling-mcp: {shown} was not added. Added are: {', '.join(added) or 'none'}.", file=sys.stderr)
    return 1


def _there(endpoint_id: str, model: str, mode: str, *, added: bool) -> str:
    if added:
        again = f"kling-mcp catalog remove {model} {mode}"
        return f"{endpoint_id} is added already, as {model} ({mode}). To add it anew: {again}, then add it."
    return f"{endpoint_id} is bundled, as {model} ({mode}); it needs no adding."


async def _asked(
    settings: Settings, endpoint_id: str, sleep: Callable[[float], Awaitable[None]]
) -> tuple[PublishedModel | None, UnitPrice | None, bool]:
    """What fal.ai publishes of an endpoint, its price, and whether that was not asked for because there is no key."""
    async with FalHttp(settings.hosts, settings.fal_key, sleep=sleep) as http:
        platform = FalPlatform(http)
        published = (await patiently(lambda: platform.models([endpoint_id]), sleep)).get(endpoint_id)
        if not http.has_key:
            return published, None, True
        try:
            prices = await patiently(lambda: platform.prices([endpoint_id]), sleep)
        except FalRejected:
            # So it answers where an endpoint has no price.
            return published, None, False
    return published, prices.get(endpoint_id), False


def _name(found: Derived) -> str:
    """Of letters, digits, dots and dashes only: the catalog takes no other model."""
    endpoint = found.endpoint
    return f"{'-'.join(filter(None, (f'{endpoint.model}.{endpoint.mode}', endpoint.when)))}.json"


def _write(path: Path, found: Derived) -> None:
    """
    Write the file in one step.

    Raises:
        SettingsError: It cannot be written.
    """
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            raise SettingsError(f"{path} is there already. It was left as it is; remove it first.")
        with new.open("x", encoding="utf-8") as file:
            file.write(json.dumps(found.data, indent=2, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror or error}. Nothing was added.") from None


def _keys(path: Path) -> list[tuple[str, str]]:
    """Model and mode as a file says, and as its name does: one that cannot be used can be removed too."""
    model, _, mode = path.stem.rpartition(".")
    try:
        said = members_of(json.loads(path.read_bytes()[:1_000_000]))
    except (OSError, ValueError, RecursionError):
        said = members_of(None)
    return [(model, mode), (str(said.get("model")), str(said.get("mode")))]


# ---- words


def _report(found: Derived, path: Path, published: PublishedModel, *, without_key: bool) -> None:
    endpoint = found.endpoint
    print(f"Added {endpoint.model} ({endpoint.mode}) for {endpoint.endpoint_id}.")
    if published.status and published.status != "active":
        print(f"fal.ai calls it {clean(published.status, 40)}.")
    _list("Understood", [", ".join(found.understood)])
    _list("Under fal.ai's own name", found.own)
    _list("Left out", found.left_out)
    _list("Not known", found.unknown)
    if endpoint.prices:
        (price,) = endpoint.prices
        rate = f"${price.usd_per_call} a call" if price.usd_per_call else f"${price.rate('')} a second"
        print(f"Price: {rate} by fal.ai's list. Twice that is held, and every job of it needs max_cost_usd.")
    elif without_key:
        print("Price: none, because fal.ai tells prices only with a key, and FAL_KEY is not set.")
    print(f"The file can be edited: {path}\nA running server knows it after its next start.")


def _list(heading: str, lines: Sequence[str]) -> None:
    if lines and lines[0]:
        print(f"{heading}:")
        for line in lines:
            print(f"{_MARGIN}{line}")
