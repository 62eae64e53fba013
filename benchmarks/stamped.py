"""
Our server with a watch: what each paid call spends in the ledger, and when it passes which point.

Writes lines of JSON to the file that the first argument names. Otherwise it is
the server as it is: the same parts, put together by the same function.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import anyio

from kling_mcp.jobs.sqlite.engine import SqliteLedger
from kling_mcp.runtime import Runtime
from kling_mcp.server.app import build
from kling_mcp.server.stdio import serve
from kling_mcp.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from kling_mcp.jobs.ledger import Ledger


class Watched:
    """A ledger that tells how long each of its answers took."""

    def __init__(self, ledger: SqliteLedger, stamp: Callable[..., None]) -> None:
        self._ledger = ledger
        self._stamp = stamp

    def __getattr__(self, name: str) -> Any:
        """The ledger's own answer, timed."""
        found = getattr(self._ledger, name)
        if not callable(found):
            return found

        def timed(*arguments: Any, **named: Any) -> Any:
            began = time.time()
            try:
                return found(*arguments, **named)
            finally:
                self._stamp(f"ledger.{name}", time.time() - began)

        return timed


def main(file: Path) -> None:
    """Serve, and write down what happens."""
    settings = Settings.from_environment()
    with file.open("a", encoding="utf-8") as out:

        def stamp(what: str, seconds: float = 0.0) -> None:
            out.write(json.dumps([time.time(), what, seconds]) + "\n")
            out.flush()

        def ledger() -> Ledger:
            return cast("Ledger", Watched(SqliteLedger(settings.data_dir, lambda: "benchmark"), stamp))

        server = build(settings, runtime=Runtime(checkpoint=stamp), open_ledger=ledger)

        async def serving() -> None:
            await serve(server, server.close)

        anyio.run(serving)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
