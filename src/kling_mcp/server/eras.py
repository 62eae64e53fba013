"""
Eras: what a client's protocol version and capabilities let it take; it is sent no field that its version lacks.

The SDK shapes every answer of the older era like 2025-11-25, also for clients
that agreed on an earlier version; those that read strictly then drop a tool, or
the whole answer. What a version brought is in its own schema and changelog
(modelcontextprotocol.io, `schema/<version>/schema.ts`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
    from pydantic import JsonValue

__all__ = ["MODERN", "PROGRESS_HAS_WORDS", "known_to_the_client", "shows_forms"]

MODERN: Final = "2026-07-28"
"""The first version of the newer era."""

_FORMS_SINCE: Final = "2025-06-18"

PROGRESS_HAS_WORDS: Final = "2025-03-26"
"""The version that brought `message` to progress notifications."""

_NAMED: Final = {"title": "2025-06-18", "_meta": "2025-06-18", "icons": "2025-11-25"}
_BLOCK: Final = {"_meta": "2025-06-18", "annotations.lastModified": "2025-06-18"}

_SINCE: Final[Mapping[str, Mapping[str, Mapping[str, str]]]] = {
    "initialize": {
        "serverInfo": {
            "title": "2025-06-18",
            "description": "2025-11-25",
            "icons": "2025-11-25",
            "websiteUrl": "2025-11-25",
        },
        "capabilities": {"completions": "2025-03-26", "tasks": "2025-11-25"},
    },
    "tools/list": {
        "tools": {**_NAMED, "annotations": "2025-03-26", "outputSchema": "2025-06-18", "execution": "2025-11-25"}
    },
    "tools/call": {"": {"structuredContent": "2025-06-18"}, "content": _BLOCK, "content.resource": _BLOCK},
    "resources/list": {"resources": {**_NAMED, "size": "2025-03-26", "annotations.lastModified": "2025-06-18"}},
    "resources/templates/list": {"resourceTemplates": _NAMED},
    "resources/read": {"contents": {"_meta": "2025-06-18"}},
    "prompts/list": {"prompts": _NAMED, "prompts.arguments": {"title": "2025-06-18"}},
    "prompts/get": {"messages.content": _BLOCK},
}
"""By method and place in its result: the fields that not every version has, and the version that brought each."""

_BLOCKS_SINCE: Final = {"audio": "2025-03-26", "resource_link": "2025-06-18"}


async def known_to_the_client(ctx: ServerRequestContext[Any], call_next: CallNext) -> HandlerResult:
    """Leave out of an answer the fields that came after its client's protocol version."""
    result = await call_next(ctx)
    places = _SINCE.get(ctx.method)
    if places is None or not isinstance(result, Mapping):
        return result
    # Until `initialize` is answered, the version that was agreed on is only in its answer.
    version = str(result.get("protocolVersion") or ctx.protocol_version)
    whole = result
    for place, since in places.items():
        for found in _at(whole, place.split(".") if place else []):
            for name in [name for name, first in since.items() if version < first]:
                *path, last = name.split(".")
                for holder in _at(found, path):
                    holder.pop(last, None)
    if ctx.method == "tools/call" and isinstance(whole.get("content"), list):
        whole["content"] = [block for block in whole["content"] if version >= _BLOCKS_SINCE.get(block["type"], "")]
    return whole


def _at(value: JsonValue, path: Sequence[str]) -> list[dict[str, JsonValue]]:
    """Every object at *path*; a list on the way means each of its members."""
    if isinstance(value, list):
        return [found for member in value for found in _at(member, path)]
    if not isinstance(value, dict):
        return []
    return _at(value.get(path[0]), path[1:]) if path else [value]


def shows_forms(ctx: ServerRequestContext[Any]) -> bool:
    """Whether the client can show a form to its user."""
    capabilities = ctx.session.client_capabilities
    asked = capabilities.elicitation if capabilities else None
    # An empty object means forms: the mode came later than the capability.
    return ctx.protocol_version >= _FORMS_SINCE and asked is not None and (asked.form is not None or asked.url is None)
