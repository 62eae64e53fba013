"""What the drivers share: they run in the environments of other programs, so only the standard library is here."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine


def run(drive: Callable[[dict[str, Any]], Coroutine[Any, Any, Any]]) -> None:
    """Print what *drive* saw, as JSON; the one argument says how the server is started and what to call."""
    print(json.dumps(asyncio.run(drive(json.loads(sys.argv[1])))))


async def in_turn(order: dict[str, Any], call: Callable[[str, dict[str, Any]], Awaitable[Any]]) -> None:
    """Make each call of the order by *call*; JOB in its arguments is the job that the first answer names."""
    job = "JOB"
    for name, arguments in order["calls"]:
        answer = await call(name, json.loads(json.dumps(arguments).replace("JOB", job)))
        if job == "JOB" and (found := re.search(r"kj_[\w-]+", str(answer))):
            job = found.group()
