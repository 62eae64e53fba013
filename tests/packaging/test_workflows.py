"""The workflow files, as far as they can be checked without GitHub: what they run exists, and their rights are few."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.packaging.installing import ROOT

if TYPE_CHECKING:
    from pathlib import Path

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def test_the_matrix_is_what_the_package_promises() -> None:
    text = (ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8")
    promised = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))

    (matrix,) = re.findall(r"python: \[(.*)\]", text)
    assert re.findall(r"3\.\d+", matrix) == promised
    assert "os: [ubuntu-latest, macos-latest, windows-latest]" in text


def test_the_lowest_dependencies_run_the_tests_too() -> None:
    text = (ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8")

    lowest = text.partition("lowest-dependencies:")[2]
    assert "--resolution lowest-direct" in lowest
    assert "run: uv run --no-sync pytest\n" in lowest


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_says_that_it_was_not_run_pins_its_actions_and_names_files_that_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    assert text.startswith("# Not run on GitHub yet")
    assert "\npermissions:\n  contents: read\n" in text
    used = re.findall(r"uses: (\S+)", text)
    pinned = re.compile(r"uses: (\./\S+|[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+)$", re.MULTILINE)
    assert len(pinned.findall(text)) == len(used)
    named = re.findall(r"(?:bash|python) ([\w./-]+/[\w.-]+)", text) + [one[2:] for one in used if one.startswith("./")]
    assert [name for name in named if not (ROOT / name).is_file()] == []
    # What comes from outside reaches a shell as a variable, never as text of the script.
    scripts = re.findall(r"run: (.*(?:\n {10,}.*)*)", text)
    assert not [script for script in scripts if "${{" in script]
