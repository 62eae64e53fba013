"""The workflow files, as far as they can be judged without GitHub: what they run is here, and their rights are few."""

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


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_says_that_it_was_not_run_pins_its_actions_and_names_files_that_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    assert text.startswith("# Not run yet")
    assert "\npermissions:\n  contents: read\n" in text
    used = re.findall(r"uses: (\S+)", text)
    assert all(action.startswith("./") or re.search(r"@(v\d+|release/v1)$", action) for action in used)
    named = re.findall(r"(?:bash|python) ([\w./-]+/[\w.-]+)", text) + [one[2:] for one in used if one.startswith("./")]
    assert [name for name in named if not (ROOT / name).is_file()] == []
    # What comes from outside reaches a shell as a variable, never as text of the script.
    scripts = re.findall(r"run: (.*(?:\n {10,}.*)*)", text)
    assert not [script for script in scripts if "${{" in script]
