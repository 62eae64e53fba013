"""A job that is checked and priced and has cost nothing yet: plan, quote, and its files as they will be sent."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kling_mcp.catalog.plan import wish
from kling_mcp.jobs.job import Intent, NewVoice
from kling_mcp.json_types import items_of
from kling_mcp.money import micro_dollars
from kling_mcp.shown import shorten_data_uris

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from decimal import Decimal

    from kling_mcp.catalog.plan import InputSlot, Plan
    from kling_mcp.catalog.pricing import Quote
    from kling_mcp.media.pictures import Picture
    from kling_mcp.media.recordings import Recording

__all__ = ["Draft", "PreparedInput", "filled"]


@dataclass(frozen=True, slots=True)
class PreparedInput:
    """
    An input of the job as it will be sent: a link that fal fetches, a file that is uploaded for it, or a voice's id.

    Attributes:
        job_id: The job that made it, where it is the video of one.
        seconds: How long a video or sound is; None where that is not known.
        warning: What the user should know of it.
    """

    slot: InputSlot
    content: str | Picture | Recording
    job_id: str | None = None
    seconds: Decimal | None = None
    warning: str | None = None

    @property
    def url(self) -> str | None:
        """The link, where the file is one already."""
        return self.content if isinstance(self.content, str) and self.slot.kind != "voice" else None

    @property
    def identity(self) -> str:
        """
        A key that is equal for equal inputs.

        A job's video is that of the same job whether it is sent as fal's link or as the file that was saved: the call
        made again after it was saved must not be another one.
        """
        if self.job_id is not None:
            return f"kling://jobs/{self.job_id}/video"
        return self.content if isinstance(self.content, str) else f"sha256:{self.content.sha256}"


@dataclass(frozen=True, slots=True)
class Draft:
    """A job that is checked and priced, and has cost nothing yet."""

    plan: Plan
    quote: Quote
    arguments: Mapping[str, object]
    inputs: tuple[PreparedInput, ...]

    def fingerprint(self, account: str) -> str:
        """A key that is equal for equal calls: account, endpoint, request with the files' contents, and take."""
        body = filled(self.plan.body, [(given.slot.path, given.identity) for given in self.inputs])
        whole = [account, self.plan.endpoint.endpoint_id, wish(self.plan.endpoint, body), self.plan.take]
        if self.voice is not None and self.voice.key:
            whole.append(self.voice.key)
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know before it costs anything."""
        of_inputs = (given.warning for given in self.inputs if given.warning)
        return (*self.plan.warnings, *self.quote.warnings, *of_inputs)

    @property
    def voice(self) -> NewVoice | None:
        """The voice that the job makes; None where it makes a video."""
        endpoint = self.plan.endpoint
        if endpoint.result != "voice":
            return None
        sample = next((given.identity for given in self.inputs if given.slot.kind in {"audio", "video"}), "")
        required = items_of(endpoint.output_schema.get("required"))
        return NewVoice(self.plan.name, sample, str(next(iter(required), "")))

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
            warnings=(*self.warnings, *_changes(self.inputs)),
            nonce=nonce,
            sound=_sound(plan),
            mode=plan.endpoint.mode,
            voice=self.voice,
        )


def _sound(plan: Plan) -> bool | None:
    """Whether the video has sound; None where that is not known."""
    if plan.audio is not None:
        return plan.audio
    return (
        None if plan.endpoint.sound == "unknown" or plan.endpoint.result == "voice" else plan.endpoint.sound == "always"
    )


def _plain(draft: Draft) -> Mapping[str, object]:
    """The arguments with their shots as a list, also where a host sent it as text; files in them are named only."""
    plain = {name: value for name, value in shorten_data_uris(draft.arguments).items() if name != "shots"}
    shots = [{"prompt": shot.prompt, "duration": shot.seconds} for shot in draft.plan.shots]
    return {**plain, "shots": shots} if shots else plain


def _changes(inputs: Sequence[PreparedInput]) -> tuple[str, ...]:
    return tuple(change for given in inputs if not isinstance(given.content, str) for change in given.content.changes)


def filled(body: Mapping[str, object], values: Sequence[tuple[tuple[str | int, ...], str]]) -> dict[str, object]:
    """A copy of *body* with *values* put where their paths say."""
    filled: dict[str, object] = json.loads(json.dumps(body))
    for path, value in values:
        place: object = filled
        for part in path[:-1]:
            place = place[part]  # type: ignore[index]  # a path of the plan leads through its own body
        place[path[-1]] = value  # type: ignore[index]
    return filled
