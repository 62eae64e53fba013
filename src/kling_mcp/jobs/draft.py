"""A job that is checked and priced and has cost nothing yet: plan, quote, and the pictures as they will be sent."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kling_mcp.catalog.plan import wish
from kling_mcp.jobs.job import Intent
from kling_mcp.money import micro_dollars
from kling_mcp.shown import shorten_data_uris

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kling_mcp.catalog.plan import InputSlot, Plan
    from kling_mcp.catalog.pricing import Quote
    from kling_mcp.media.pictures import Picture

__all__ = ["Draft", "Frame", "filled"]


@dataclass(frozen=True, slots=True)
class Frame:
    """A picture of the job: a link that fal fetches, or bytes that are uploaded for it."""

    slot: InputSlot
    content: str | Picture

    @property
    def url(self) -> str | None:
        """The link, where the picture is one already."""
        return self.content if isinstance(self.content, str) else None

    @property
    def identity(self) -> str:
        """A key that is equal for equal pictures."""
        return self.content if isinstance(self.content, str) else f"sha256:{self.content.sha256}"


@dataclass(frozen=True, slots=True)
class Draft:
    """A job that is checked and priced, and has cost nothing yet."""

    plan: Plan
    quote: Quote
    arguments: Mapping[str, object]
    frames: tuple[Frame, ...]

    def fingerprint(self, account: str) -> str:
        """A key that is equal for equal calls: account, endpoint, request with the pictures' contents, and take."""
        body = filled(self.plan.body, [(frame.slot.path, frame.identity) for frame in self.frames])
        whole = [account, self.plan.endpoint.endpoint_id, wish(self.plan.endpoint, body), self.plan.take]
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()

    def intent(self, job_id: str, account: str, nonce: str | None) -> Intent:
        """What the ledger records of it before anything leaves this machine."""
        plan, quote = self.plan, self.quote
        return Intent(
            job_id=job_id,
            account=account,
            fingerprint=self.fingerprint(account),
            take=plan.take,
            model=plan.endpoint.model,
            endpoint_id=plan.endpoint.endpoint_id,
            arguments=_plain(self),
            estimate_microusd=micro_dollars(quote.estimated_usd),
            ceiling_microusd=micro_dollars(quote.ceiling_usd),
            basis=quote.basis,
            video_seconds=quote.seconds,
            expected_seconds=plan.endpoint.expected_seconds(quote.seconds),
            warnings=(*plan.warnings, *quote.warnings, *_changes(self.frames)),
            nonce=nonce,
            sound=_sound(plan),
        )


def _sound(plan: Plan) -> bool | None:
    """Whether the video has sound; None where that is not known."""
    if plan.audio is not None:
        return plan.audio
    return None if plan.endpoint.sound == "unknown" else plan.endpoint.sound == "always"


def _plain(draft: Draft) -> Mapping[str, object]:
    """The arguments with their shots as a list, also where a host sent it as text; pictures in them are named only."""
    plain = {name: value for name, value in shorten_data_uris(draft.arguments).items() if name != "shots"}
    shots = [{"prompt": shot.prompt, "duration": shot.seconds} for shot in draft.plan.shots]
    return {**plain, "shots": shots} if shots else plain


def _changes(frames: Sequence[Frame]) -> tuple[str, ...]:
    return tuple(change for frame in frames if not isinstance(frame.content, str) for change in frame.content.changes)


def filled(body: Mapping[str, object], values: Sequence[tuple[tuple[str | int, ...], str]]) -> dict[str, object]:
    """A copy of *body* with *values* put where their paths say."""
    filled: dict[str, object] = json.loads(json.dumps(body))
    for path, value in values:
        place: object = filled
        for part in path[:-1]:
            place = place[part]  # type: ignore[index]  # a path of the plan leads through its own body
        place[path[-1]] = value  # type: ignore[index]
    return filled
