"""
How many of the branches of each room its own tests take.

`python -m tests.branches` runs those tests and exits with 1 where a room has less
than it must. Tests of processes that are killed are left out, because those report
nothing, and so are the made-up histories, which would take any branch at some time.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

LEAST = {"catalog": 0.95, "fal": 0.95, "jobs": 0.95, "films": 0.90, "server": 0.90, "media": 0.90, "simulator": 0.85}
"""The share that must be taken; money goes through the first three."""


def main() -> int:
    """Print a line for each room."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "coverage.json"
        failed = pytest.main(
            [
                *("-q", "--cov-branch", f"--cov-report=json:{report}"),
                *(f"--cov=kling_mcp.{room}" for room in LEAST),
                *(f"tests/{room}" for room in LEAST),
                *("--ignore=tests/jobs/processes", "--ignore=tests/jobs/test_histories.py"),
                "--deselect=tests/jobs/test_films.py::test_no_history_of_twenty_thousand_pays_twice",
            ]
        )
        files = json.loads(report.read_text("utf-8"))["files"] if report.exists() else {}
    taken: Counter[str] = Counter()
    there: Counter[str] = Counter()
    for file, found in files.items():
        room = Path(file).as_posix().rpartition("kling_mcp/")[2].split("/")[0]
        taken[room] += found["summary"]["covered_branches"]
        there[room] += found["summary"]["num_branches"]
    for room in LEAST:
        print(f"{room}: {taken[room]} of {there[room]} branches, {taken[room] / max(there[room], 1):.1%}")
    enough = all(there[room] and taken[room] >= LEAST[room] * there[room] for room in LEAST)
    return int(failed) or (0 if enough else 1)


if __name__ == "__main__":
    sys.exit(main())
