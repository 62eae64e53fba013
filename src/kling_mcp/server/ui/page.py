"""
The page that a host shows beside a job (MCP Apps, `io.modelcontextprotocol/ui`, 2026-01-26).

One HTML file that loads nothing from elsewhere. The host shows it in a sandbox
and relays its messages; this server only sees calls of its own tools. The page is
declared to every client: VS Code rendered pages before it declared that it could.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import mcp_types as t

if TYPE_CHECKING:
    from kling_mcp.server.storyboard import Storyboard

__all__ = ["EXTENSION", "STORYBOARD", "TOOL_META", "URI", "contents", "html", "resource", "with_ui"]

EXTENSION: Final = "io.modelcontextprotocol/ui"
URI: Final = "ui://kling/job.html"
STORYBOARD: Final = "kling-mcp/storyboard"
"""The key in a result's `_meta` that only the page reads."""

# Hosts read the flat key before the specification was final.
TOOL_META: Final[dict[str, Any]] = {"ui": {"resourceUri": URI}, "ui/resourceUri": URI}

_MIME: Final = "text/html;profile=mcp-app"
# fal's media hosts and nothing else. A `domain` would stop Claude from rendering it.
_META: Final[dict[str, Any]] = {
    "ui": {
        "csp": {"resourceDomains": ["https://*.fal.media", "https://fal.media", "https://storage.googleapis.com"]},
        "prefersBorder": True,
    }
}
_PROMPT_CHARACTERS: Final = 400


@cache
def html() -> str:
    """The page."""
    return resources.files("kling_mcp.server.ui").joinpath("job.html").read_text(encoding="utf-8")


def resource() -> t.Resource:
    """What `resources/list` says about it."""
    return t.Resource(
        uri=URI,
        name="job-page",
        title="Job page",
        description="Shows a job as it goes on.",
        mime_type=_MIME,
        _meta=_META,
    )


def contents() -> t.TextResourceContents:
    """What `resources/read` answers."""
    return t.TextResourceContents(uri=URI, mime_type=_MIME, text=html(), _meta=_META)


def with_ui(result: t.CallToolResult, board: Storyboard) -> t.CallToolResult:
    """*result* with the storyboard of its job, where hosts show it to the page and not to the model."""
    shots = [asdict(shot) | {"prompt": shot.prompt[:_PROMPT_CHARACTERS]} for shot in board.shots]
    # A data URI would make every result as large as the picture; the page had it with the call.
    image = None if board.image is None or board.image.startswith("data:") else board.image
    url = None if board.image_url is None or board.image_url.startswith("data:") else board.image_url
    meta = {**(result.meta or {}), STORYBOARD: {"shots": shots, "image": image, "image_url": url}}
    return result.model_copy(update={"meta": meta})
