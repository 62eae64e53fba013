"""Jobs and intents as the tests of this room need them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kling_mcp.jobs.job import Intent, Job
from kling_mcp.jobs.ledger import Limits
from kling_mcp.settings import FalHosts, Secret, Settings
from tests.conftest import CANARY_KEY

if TYPE_CHECKING:
    from pathlib import Path

    from kling_mcp.jobs.job import State
    from kling_mcp.simulator.serve import BaseUrls

ENDPOINT = "fal-ai/kling-video/o3/standard/image-to-video"
ACCOUNT = "0123456789ab"
NOW_MS = 1_795_255_200_000
"""2026-11-21T10:00:00Z."""

WIDE = Limits(10_000_000, 1_000_000_000)


def paid_settings(folder: Path, urls: BaseUrls, **changes: Any) -> Settings:
    """Settings of a user with a key and folders in *folder*, whose fal is the simulator at *urls*."""
    plain = Settings(
        folder / "state",
        folder / "videos",
        (folder / "pictures",),
        fal_key=Secret(CANARY_KEY),
        hosts=FalHosts(urls.queue, urls.rest, urls.api),
        media_hosts=(urls.media_host,),
    )
    return replace(plain, **changes)


def intent(name: str = "kj_1", **changes: Any) -> Intent:
    """An intent whose fingerprint is its own."""
    plain = Intent(
        job_id=name,
        account=ACCOUNT,
        fingerprint=f"fingerprint of {name}",
        take=1,
        model="o3-standard",
        endpoint_id=ENDPOINT,
        arguments={"image": "https://example.com/a.png", "prompt": "the camera circles a vase; café"},
        estimate_microusd=400_000,
        ceiling_microusd=500_000,
        basis="5 s at $0.08/s",
        video_seconds=5,
        expected_seconds=94,
    )
    return replace(plain, **changes)


def job(name: str = "kj_1", *, state: State = "preparing", **changes: Any) -> Job:
    """A job that is in no ledger."""
    plain = Job(
        seq=1,
        intent=intent(name),
        state=state,
        owner="me",
        day="2026-11-21",
        created_ms=NOW_MS,
        updated_ms=NOW_MS,
    )
    return replace(plain, **changes)
