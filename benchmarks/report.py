"""A measurement as a table that a person reads and a file that a program compares."""

from __future__ import annotations

import os
import platform
import statistics
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Goal", "Table", "environment", "median", "percentile"]

Cell = str | float | int | None


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure should be, what it is, and whether that is good enough."""

    text: str
    measured: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Table:
    """The figures of one benchmark."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    goals: tuple[Goal, ...] = ()
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """The table as it stands in the documentation."""
        lines = [f"### {self.title}", "", _line(self.columns), _line(["---"] * len(self.columns))]
        lines += [_line([_shown(cell) for cell in row]) for row in self.rows]
        lines += [
            "",
            *(f"* {'Holds' if goal.holds else 'Missed'}: {goal.text}; {goal.measured}." for goal in self.goals),
        ]
        lines += [f"* {note}" for note in self.notes]
        return "\n".join(lines) + "\n"

    def data(self) -> dict[str, object]:
        """The same for a program."""
        return asdict(self)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Table:
        """The table that `data` was made from."""
        goals = tuple(Goal(**goal) for goal in data["goals"])
        rows = tuple(tuple(row) for row in data["rows"])
        return cls(data["name"], data["title"], tuple(data["columns"]), rows, goals, tuple(data["notes"]))


def environment() -> dict[str, object]:
    """Where and when the figures were taken."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {_memory()}",
        "python": platform.python_version(),
        "mcp": version("mcp"),
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(values)


def percentile(values: Sequence[float], part: float) -> float:
    """The value below which *part* (0 to 1) of them lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def _memory() -> str:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines() if Path("/proc/meminfo").exists() else []
    return next((f"{int(line.split()[1]) / 2**20:.0f} GiB" for line in lines if line.startswith("MemTotal")), "? GiB")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _shown(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.2f}"
    return f"{cell:,}" if isinstance(cell, int) else cell
