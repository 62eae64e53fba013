"""What the tools and a whole job cost of an assistant's context, in tokens of four bytes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from benchmarks.peers import OTHER_SERVER, fal_mcp_server
from benchmarks.report import Goal, Table
from benchmarks.scene import arguments, our_server, simulated
from benchmarks.wire import Server

if TYPE_CHECKING:
    from benchmarks.counts import Counts
    from benchmarks.report import Cell

__all__ = ["measure"]

_LIMIT_TOKENS = 3_000
_PEERS = "other servers for video models, as others measured them: 1,100 to 17,000"


def measure(counts: Counts) -> Table:
    """Have one conversation from price to video, and count both sides of it."""
    rows: list[tuple[Cell, ...]] = []
    with simulated(speed=100) as (_, urls), our_server(urls) as server:
        listed = server.ask("tools/list", {})
        tools = _tokens(listed["tools"])
        rows.append(("tools/list, kling-mcp", len(listed["tools"]), tools, tools))
        other = fal_mcp_server() if counts.peers else None
        if other is not None:
            with Server((str(other),), {"FAL_KEY": "id:secret"}) as theirs:
                their_tools = theirs.list_tools_at_once()["tools"]
                rows.append(
                    (f"tools/list, {OTHER_SERVER}", len(their_tools), _tokens(their_tools), _tokens(their_tools))
                )
        given = arguments(0)
        asked = {key: value for key, value in given.items() if key != "prompt"}
        whole = [0, 0]
        job_id = ""
        for tool in ("estimate_cost", "image_to_video", "get_job", "get_job"):
            call: dict[str, Any] = {
                "estimate_cost": {"model": "o3-standard", **asked},
                "image_to_video": given,
                "get_job": {"job_id": job_id, "wait_seconds": 45},
            }[tool]
            result = server.call(tool, **call)
            job_id = result["structuredContent"].get("job_id") or job_id
            halves = [_tokens(result["content"]), _tokens(result["structuredContent"])]
            cost = [_tokens(call) + half for half in halves]
            whole = [so_far + more for so_far, more in zip(whole, cost, strict=True)]
            rows.append((f"{tool}: arguments and answer", None, *cost))
        rows.append(("the whole conversation", None, *whole))
    rows.append(("tools and conversation", None, tools + whole[0], tools + whole[1]))
    return Table(
        name="context",
        title="Tokens of an assistant's context",
        columns=("", "tools", "tokens where the text is shown", "tokens where the data is shown"),
        rows=tuple(rows),
        goals=(Goal(f"tools/list under {_LIMIT_TOKENS:,} tokens", f"{tools:,}", tools < _LIMIT_TOKENS),),
        notes=("a host shows either the text or the data of an answer", _PEERS),
    )


def _tokens(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()) // 4
