"""The benchmark command names what it measures, and the cheap measurements run. No figure is judged here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from benchmarks.__main__ import NAMES, main, measure
from benchmarks.counts import TINY
from benchmarks.report import Goal, Table

if TYPE_CHECKING:
    from pathlib import Path


def test_the_command_lists_its_benchmarks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0

    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(NAMES)


def test_a_name_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["warm_start"])

    assert end.value.code == 2
    assert "cold_start" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["paid_call", "context", "frames", "film"])
def test_a_cheap_benchmark_runs_and_prints_its_goals(name: str) -> None:
    table = measure(name, TINY)

    assert table.name == name
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert table.goals[0].text in table.markdown()


def test_figures_are_kept_beside_those_of_other_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "benchmarks.json").write_text('{"context": {}}', encoding="utf-8")

    assert main(["--tiny", "reads"]) == 0

    assert "Reading over stdio" in capsys.readouterr().out
    found = (tmp_path / "artifacts" / "benchmarks.json").read_text(encoding="utf-8")
    assert '"context"' in found
    assert '"reads"' in found


def test_a_table_is_markdown_with_a_line_for_each_goal() -> None:
    rows = (("ours", 0.5, 1234, None), ("theirs", 123.4, 2, "none"))
    made = Table("t", "Title", ("who", "ms", "n", "note"), rows, (Goal("at most 1", "2", False),), ("a note",))
    table = Table.of(json.loads(json.dumps(made.data())))

    assert table == made
    assert table.markdown() == (
        "### Title\n\n"
        "| who | ms | n | note |\n"
        "| --- | --- | --- | --- |\n"
        "| ours | 0.50 | 1,234 | - |\n"
        "| theirs | 123 | 2 | none |\n\n"
        "* Missed: at most 1; 2.\n"
        "* a note\n"
    )
