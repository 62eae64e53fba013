"""`python -m benchmarks [--tiny] [NAME …]`: measure, print, and write `artifacts/benchmarks.json`."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.counts import FULL, TINY
from benchmarks.report import Table, environment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.counts import Counts

__all__ = ["NAMES", "main", "measure"]

NAMES: Final = {
    "cold_start": "spawn to the answer to tools/list, beside a bare server",
    "paid_call": "image_to_video up to fal's door, beside a bare POST",
    "reads": "get_job and resources, beside a tool that does nothing",
    "completion": "the end of a job to the client's notice, and the requests for it, beside fal's own clients",
    "scale": "memory, processor and waiting with many jobs and a large ledger",
    "context": "what tools/list and a whole job cost in tokens",
    "frames": "the last frame and a sheet of a finished video, beside decoding all of it",
    "film": "clips joined into a film, beside ffmpeg's own way, and its animatic",
    "faults": "paid requests after one lost answer, beside fal's own clients",
}

_FILE: Final = Path("artifacts") / "benchmarks.json"
_PAGE: Final = Path(__file__).parents[1] / "docs" / "performance.md"
_BEGIN, _END = "<!-- tables: begin -->", "<!-- tables: end -->"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is named, or everything."""
    options = _parser().parse_args(arguments)
    if options.list:
        for name, what in NAMES.items():
            print(f"{name:12} {what}")
        return 0
    found = json.loads(_FILE.read_text(encoding="utf-8")) if _FILE.exists() else {}
    print(json.dumps(environment()))
    for name in options.names or NAMES:
        print(f"\n… {name}", file=sys.stderr)
        began = environment()
        table = measure(name, TINY if options.tiny else FULL)
        print(f"\n{table.markdown()}", flush=True)
        found[name] = {"environment": began, **table.data()}
        _FILE.parent.mkdir(exist_ok=True)
        _FILE.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if options.write:
        _write(found)
    return 0


def measure(name: str, counts: Counts) -> Table:
    """The figures of one benchmark."""
    return importlib.import_module(f"benchmarks.{name}").measure(counts)


def _write(found: Mapping[str, Any]) -> None:
    """Put the newest figures of each benchmark on the page that explains them."""
    before, _, rest = _PAGE.read_text(encoding="utf-8").partition(_BEGIN)
    tables = [_dated(found[name]) for name in NAMES if name in found]
    _PAGE.write_text("\n\n".join([before + _BEGIN, *tables, _END]) + rest.partition(_END)[2], encoding="utf-8")


def _dated(table: Mapping[str, Any]) -> str:
    where = table["environment"]
    taken = f"{where['at'][:16]} UTC, {where['machine']}, Python {where['python']}, mcp {where['mcp']}"
    head, _, body = Table.of(table).markdown().strip().partition("\n\n")
    return f"{head}\n\n{taken}, load {where['load'][0]}. `python -m benchmarks {table['name']}`\n\n{body}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measured beside something.")
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*NAMES, []], help=f"of: {', '.join(NAMES)}")
    parser.add_argument("--list", action="store_true", help="name the benchmarks and do nothing")
    parser.add_argument("--write", action="store_true", help="put the figures into docs/performance.md")
    parser.add_argument("--tiny", action="store_true", help="see that they run; the figures mean nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
