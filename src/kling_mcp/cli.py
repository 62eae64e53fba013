"""The command line: the server, and the commands for the person who runs it."""

from __future__ import annotations

import gc
import logging
import os
import sys
from typing import TYPE_CHECKING

from kling_mcp.errors import KlingError, SettingsError
from kling_mcp.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["run"]


def run(arguments: Sequence[str]) -> int:
    """Run the command that *arguments* name, or the server; the exit code is the answer."""
    try:
        # What a host starts has no arguments, and waits for an answer.
        if not arguments:
            return _serve(Settings.from_environment())
        # Not at the top: the server does not wait for what it never uses.
        from kling_mcp.commands.main import command

        return command(arguments)
    except SettingsError as error:
        print(f"kling-mcp: {error}", file=sys.stderr)
        return 2
    except KlingError as error:
        print(f"kling-mcp: {error}", file=sys.stderr)
        return 1


def _serve(settings: Settings) -> int:
    # Not at the top: they take most of a second, which no command needs.
    import anyio

    from kling_mcp import logs
    from kling_mcp.server.app import build
    from kling_mcp.server.stdio import serve

    gc.freeze()
    gc.enable()
    logs.configure(settings)
    server = build(settings)

    async def serving() -> None:
        await serve(server, server.close)

    code = 1
    try:
        anyio.run(serving)
        code = 0
    except Exception:
        logging.getLogger(__name__).exception("the server ended by a defect")
    finally:
        # A thread that still reads standard input, or a log that nobody reads, would keep the interpreter from ending.
        logs.flush()
        os._exit(code)
