"""
How many of the branches of the rooms that money goes through their own tests take.

`python -m tests.branches` runs those tests and exits with 1 where a room has less
than it must. Child processes are not measured, so the tests that live in them
are left out, and so are the made-up histories, which would take any branch at
some time.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

ROOMS = ("catalog", "fal", "jobs")
LEAST = 0.95


def main() -> int:
    """Print a line for each room."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "coverage.json"
        failed = pytest.main(
            [
                *("-q", "--cov-branch", f"--cov-report=json:{report}"),
                *(f"--cov=kling_mcp.{room}" for room in ROOMS),
                *(f"tests/{room}" for room in ROOMS),
                *("--ignore=tests/jobs/processes", "--ignore=tests/jobs/test_histories.py"),
            ]
        )
        files = json.loads(report.read_text("utf-8"))["files"] if report.exists() else {}
    taken: Counter[str] = Counter()
    there: Counter[str] = Counter()
    for file, found in files.items():
        room = Path(file).as_posix().rpartition("kling_mcp/")[2].split("/")[0]
        taken[room] += found["summary"]["covered_branches"]
        there[room] += found["summary"]["num_branches"]
    for room in ROOMS:
        print(f"{room}: {taken[room]} of {there[room]} branches, {taken[room] / max(there[room], 1):.1%}")
    enough = all(there[room] and taken[room] >= LEAST * there[room] for room in ROOMS)
    return int(failed) or (0 if enough else 1)


if __name__ == "__main__":
    sys.exit(main())
