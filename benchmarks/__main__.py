"""`python -m benchmarks [--tiny] [NAME …]`: measure, print, and write `artifacts/benchmarks.json`."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.counts import FULL, TINY
from benchmarks.report import environment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.counts import Counts
    from benchmarks.report import Table

__all__ = ["NAMES", "main", "measure"]

NAMES: Final = {
    "cold_start": "spawn to the answer to tools/list, beside a bare server",
    "paid_call": "image_to_video up to fal's door, beside a bare POST",
    "reads": "get_job and resources, beside a tool that does nothing",
    "completion": "the end of a job to the client's notice, and the requests for it, beside fal's own clients",
    "scale": "memory, processor and waiting with many jobs and a large ledger",
    "context": "what tools/list and a whole job cost in tokens",
    "faults": "paid requests after one lost answer, beside fal's own clients",
}

_FILE: Final = Path("artifacts") / "benchmarks.json"


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
    return 0


def measure(name: str, counts: Counts) -> Table:
    """The figures of one benchmark."""
    return importlib.import_module(f"benchmarks.{name}").measure(counts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measured beside something.")
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*NAMES, []], help=f"of: {', '.join(NAMES)}")
    parser.add_argument("--list", action="store_true", help="name the benchmarks and do nothing")
    parser.add_argument("--tiny", action="store_true", help="see that they run; the figures mean nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
