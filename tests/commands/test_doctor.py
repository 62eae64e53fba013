"""How what doctor finds is shown: in groups, and with what to do first in the last line."""

from __future__ import annotations

import pytest

from kling_mcp.commands.doctor import Finding, report

OK = Finding("ok", "version", "kling-mcp 1.")
STOP = Finding("stop", "key", "FAL_KEY is not set.", "Make a key.")
LATER = Finding("stop", "data", "/data cannot be written.", "Let /data be written.")
NOTE = Finding("note", "media", "PyAV is missing.", "Install PyAV.")
CHOICE = Finding("note", "videos", "Videos are not saved.")

SHOWN: dict[str, tuple[list[Finding], str]] = {
    "all is well": (
        [OK],
        """
OK
✓ version   kling-mcp 1.

All is well: a job would work. Nothing was spent.""",
    ),
    "what nothing has to be done about": (
        [OK, CHOICE],
        """
Worth knowing
! videos    Videos are not saved.

OK
✓ version   kling-mcp 1.

All is well: a job would work. Nothing was spent.""",
    ),
    "something worth knowing": (
        [OK, CHOICE, NOTE],
        """
Worth knowing
! videos    Videos are not saved.
! media     PyAV is missing.

OK
✓ version   kling-mcp 1.

A job would work. Nothing was spent.
Do this first: Install PyAV.""",
    ),
    "two stops among others": (
        [OK, NOTE, STOP, CHOICE, LATER],
        """
Would stop a job
✗ key       FAL_KEY is not set.
✗ data      /data cannot be written.

Worth knowing
! media     PyAV is missing.
! videos    Videos are not saved.

OK
✓ version   kling-mcp 1.

2 of these would stop a job. Nothing was spent.
Do this first: Make a key.""",
    ),
}


@pytest.mark.parametrize("name", SHOWN)
def test_stops_come_first_and_what_to_do_first_comes_last(name: str) -> None:
    findings, shown = SHOWN[name]

    assert list("\n".join(report(findings, 80)).splitlines()) == shown.splitlines()[1:]


def test_a_long_finding_stays_beside_its_subject() -> None:
    lines = "\n".join(report([Finding("note", "media", "word " * 20)], 40)).splitlines()

    assert lines[1:3] == ["! media     word word word word word", "            word word word word word"]
