"""Context: what a request works with (catalog, job service, settings), and what a call of a tool adds to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mcp_types as t

from kling_mcp.server.call_budget import CALL_SECONDS, CallBudget

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from mcp.server.context import ServerRequestContext

    from kling_mcp.catalog.models import Catalog
    from kling_mcp.errors import Billed
    from kling_mcp.jobs.service import JobService

__all__ = ["Answer", "AppContext", "Call"]

Answer = t.CallToolResult | t.InputRequiredResult | dict[str, Any]
"""What a tool answers; a dictionary is a task."""


class AppContext:
    """What every request works with, for as long as the server serves; *tools* are the names of those offered."""

    def __init__(self, catalog: Catalog, service: JobService, tools: Collection[str]) -> None:
        self.catalog = catalog
        self.tools = tools
        self.service = service
        self.store = service.store
        self.settings = service.settings
        self.now_ms = service.runtime.now_ms

    def call_budget(self, seconds: float = CALL_SECONDS) -> CallBudget:
        """The time of one call, from now on."""
        return CallBudget(self.service.in_background, seconds)


@dataclass(slots=True)
class Call:
    """One call of a tool: its arguments, its time, and whether money may have moved by it so far."""

    app: AppContext
    ctx: ServerRequestContext[AppContext]
    params: t.CallToolRequestParams
    budget: CallBudget
    billed: Billed = "no"

    @property
    def arguments(self) -> Mapping[str, object]:
        """The arguments as they came."""
        return self.params.arguments or {}
