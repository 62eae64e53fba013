"""A job is found by its id in every form that people, hosts and models write."""

from __future__ import annotations

import pytest

from kling_mcp.ids import job_id_in

OURS = "kj_Ab-9_fGhIjKlMnOpQrStU-"
FALS = "764cabcf-b745-4b3e-ae38-1200304cf45b"


@pytest.mark.parametrize(
    "written",
    [
        OURS,
        f"`{OURS}`",
        f'"{OURS}"',
        f"  {OURS}\n",
        f"\u201c{OURS}\u201d",
        f"<{OURS}>",
        f"**{OURS}**",
        f"{OURS}.",
        f"kling://jobs/{OURS}",
        f"`kling://jobs/{OURS}/`",
        f"KLING://jobs/{OURS}/last-frame",
        f"kling://jobs/{OURS}/video",
        f"kling://jobs/{OURS.removeprefix('kj_')}",
        OURS.removeprefix("kj_"),
        OURS.replace("kj_", "KJ_"),
        OURS.replace("_", "\\_"),
        f"job_id: {OURS}",
        f"job {OURS}",
        f"/jobs/{OURS}",
        f"{OURS} (completed)",
        f"the job {OURS}, which is done",
        f'{{"job_id": "{OURS}"}}',
        f"[{OURS}](kling://jobs/{OURS})",
        f"kling%3A%2F%2Fjobs%2F{OURS}",
        f"{OURS} (request {FALS})",
    ],
)
def test_an_id_of_ours_is_read_in_any_form(written: str) -> None:
    assert job_id_in(written) == OURS


@pytest.mark.parametrize(
    "written",
    [
        *(FALS, f"`{FALS}`", f"request_id: {FALS}", f" {FALS} ", FALS.upper()),
        *(f"https://fal.ai/dashboard/requests/{FALS}", f"https://queue.fal.run/fal-ai/x/requests/{FALS}/status"),
    ],
)
def test_an_id_of_fal_stays_what_it_is(written: str) -> None:
    assert job_id_in(written) == FALS


@pytest.mark.parametrize(
    "written", ["fox", "kj_1", "", "the video of the fox", f"{OURS} and {OURS[:-1]}_", f"{FALS} {FALS[:-1]}a"]
)
def test_anything_else_stays_as_it_is(written: str) -> None:
    assert job_id_in(written) == written
