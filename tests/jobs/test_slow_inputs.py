"""A picture that a drive does not hand over holds no call up and costs nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import pytest

from kling_mcp.catalog.models import load
from kling_mcp.catalog.plan import plan
from kling_mcp.errors import InputRefused
from kling_mcp.jobs.inputs import Lookup, prepared
from kling_mcp.settings import Settings
from tests.jobs.support import job

if TYPE_CHECKING:
    from pathlib import Path

    from kling_mcp.jobs.job import Job


@pytest.mark.anyio
async def test_a_drive_that_does_not_answer_is_given_up_before_the_call_is_late(tmp_path: Path) -> None:
    """The saved video of the earlier job lies on a pipe that nobody writes to: opening it never ends."""
    video = tmp_path / "video.mp4"
    os.mkfifo(video)
    wanted = plan(
        load(), "image_to_video", {"image": "kling://jobs/kj_earlier/last-frame", "prompt": "The camera pulls back."}
    )

    async def saved(_: str) -> Job:
        return job("kj_earlier", state="completed", saved_to=str(video))

    with anyio.fail_after(30):
        with pytest.raises(InputRefused, match="could not be read within") as caught:
            await prepared(wanted, Settings.from_environment(), Lookup(saved), within_seconds=0.05)
        # Somebody has to open the other end once the thread is there, or it would wait for ever.
        os.close(await anyio.to_thread.run_sync(os.open, video, os.O_WRONLY))

    assert "Nothing was charged." in str(caught.value)
