"""
The simulator as a program of its own: ``python -m kling_mcp.simulator``.

It prints one line of JSON with its URLs and the settings that point kling-mcp
there, then serves until it is interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

from kling_mcp.simulator.app import Simulator
from kling_mcp.simulator.faults import named
from kling_mcp.simulator.published import read_folder
from kling_mcp.simulator.render import default_renderer, sample_video
from kling_mcp.simulator.serve import bind, serving, urls_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kling_mcp.simulator.app import Accepted
    from kling_mcp.simulator.faults import CallKind
    from kling_mcp.simulator.published import Published

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until interrupted."""
    options = _parser().parse_args(arguments)
    listener = bind(options.port)
    urls = urls_of(listener)
    line = {**dataclasses.asdict(urls), "environment": urls.environment()}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()

    simulator = Simulator(
        published=options.published,
        key=options.key,
        speed=options.speed,
        concurrency=options.concurrency,
        renderer=sample_video if options.sample_video else default_renderer(),
        on_accept=None if options.state_file is None else _written_to(options.state_file),
    )
    for kind, name, times in options.fault:
        simulator.faults.add(kind, named(name), times=times)

    async def serve() -> None:
        async with serving(simulator, listener=listener):
            await asyncio.Event().wait()

    try:
        asyncio.run(serve())
    except KeyboardInterrupt:
        return 0
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m kling_mcp.simulator", description="fal's queue on this machine.")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (default: a free one)")
    parser.add_argument("--speed", type=float, default=10.0, help="how many times as fast as on fal (default: 10)")
    parser.add_argument("--key", help="the only key that is accepted (default: any)")
    parser.add_argument("--concurrency", type=int, default=1, help="requests of one account that run at once")
    parser.add_argument("--sample-video", action="store_true", help="answer the bundled video instead of drawing one")
    parser.add_argument(
        "--published", type=_published, default=(), metavar="FOLDER", help="JSON files of what fal publishes besides"
    )
    parser.add_argument("--state-file", type=Path, help="append each accepted request here as a line of JSON")
    parser.add_argument(
        "--fault",
        type=_fault,
        action="append",
        default=[],
        metavar="KIND=NAME[*TIMES]",
        help="let calls go wrong, such as submit=drop-after-accept or result=504*2 (*0: always)",
    )
    return parser


def _published(text: str) -> tuple[Published, ...]:
    try:
        return read_folder(Path(text))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _fault(text: str) -> tuple[CallKind, str, int | None]:
    kind, equals, rest = text.partition("=")
    name, _, times = rest.partition("*")
    if not equals or not (times or "1").isdigit():
        raise argparse.ArgumentTypeError("a fault reads KIND=NAME or KIND=NAME*TIMES")
    try:
        named(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return cast("CallKind", kind), name, int(times or 1) or None


def _written_to(path: Path) -> Callable[[Accepted], None]:
    """Append to *path* and wait for the disk, so that the truth outlives a process that is killed."""

    def write(accepted: Accepted) -> None:
        line = json.dumps(dataclasses.asdict(accepted), default=dict)
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    return write


if __name__ == "__main__":
    sys.exit(main())
