"""
What the simulator knows: requests, jobs, files and planned faults, whatever route they came by.

``accepted`` holds every request that fal would have charged, whatever its sender got to know: the ground truth of a
test.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import uuid
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Final, Literal

import anyio
from starlette.responses import JSONResponse, Response

from kling_mcp.catalog.models import load
from kling_mcp.catalog.pricing import quote
from kling_mcp.json_types import items_of, members_of
from kling_mcp.simulator.clock import ScaledClock
from kling_mcp.simulator.faults import Script
from kling_mcp.simulator.media_checks import media_complaints
from kling_mcp.simulator.outcomes import invalid, success
from kling_mcp.simulator.parsed_request import ParsedRequest, opening, read
from kling_mcp.simulator.published import of_endpoint
from kling_mcp.simulator.queue import Job, Queue
from kling_mcp.simulator.render import default_renderer, shaped
from kling_mcp.simulator.storage import Files, StoredFile
from kling_mcp.simulator.validation import complaints

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from starlette.requests import Request

    from kling_mcp.catalog.models import Catalog, Endpoint
    from kling_mcp.simulator.clock import Clock
    from kling_mcp.simulator.fault_middleware import Recorded
    from kling_mcp.simulator.published import Published
    from kling_mcp.simulator.render import Renderer

__all__ = ["Accepted", "Backend", "Switches"]

_ANY_DAY: Final = "2026-01-01"


@dataclass(frozen=True, slots=True)
class Accepted:
    """One request that fal has taken; ``at`` is in seconds since 1970, header names are in lower case."""

    request_id: str
    endpoint_id: str
    body: Mapping[str, object]
    headers: Mapping[str, str]
    tags: Mapping[str, str]
    at: float


@dataclass(frozen=True, slots=True)
class Switches:
    """
    Where fal's behaviour is known in more than one form, and what an account decides.

    Args:
        validate_at_once: A body that does not fit is refused at the door, not on the runner.
        submit_status: The success of a submit; both 200 and 202 have been seen.
        full_path: Status below the whole endpoint id is answered, or has an empty body.
        billable_units: Results carry ``X-Fal-Billable-Units``.
        cancel_stops_running: A running request stops when cancelled instead of finishing.
        history_lag_seconds: How long after its end a request appears in the history.
        result_seconds: How long a result is kept.
        dispatch_seconds: Time between submit and the earliest start.
        refusal_seconds: How long a runner needs to find a body invalid.
        rate_limit_with_key: The models call is limited with a key as well.
        admin_key: Keys may read the balance.
        balance_usd: What is left on the account.
    """

    validate_at_once: bool = False
    submit_status: int = 200
    full_path: Literal["answers", "empty"] = "answers"
    billable_units: bool = True
    cancel_stops_running: bool = False
    history_lag_seconds: float = 0.0
    result_seconds: float = 3600.0
    dispatch_seconds: float = 1.0
    refusal_seconds: float = 2.0
    rate_limit_with_key: bool = False
    admin_key: bool = False
    balance_usd: Decimal = Decimal("100.00")


def _new_id() -> str:
    return str(uuid.uuid4())


@dataclass(slots=True)
class _Video:
    """A finished video, rendered when first asked for."""

    path: str
    lock: anyio.Lock = field(default_factory=anyio.Lock)


class Backend:
    """
    An account at fal: what it has sent, what is made of it, and which faults wait.

    Args:
        catalog: The endpoints that exist; the bundled ones by default.
        published: What fal publishes besides, or of an endpoint of the catalog instead; see `publish`.
        key: The one key that is accepted; any key when None. An account is a key.
        switches: See `Switches`; may be replaced while it runs.
        clock: The time; the real one by default.
        speed: How many times as fast as on fal a video is made. Only the waiting shrinks: dates stay true.
        concurrency: How many requests of one account run at once.
        renderer: Makes the videos; drawn ones when PyAV and Pillow are installed, else the bundled sample.
        new_id: Makes request ids.
        on_accept: Called with each accepted request before its sender is answered.
    """

    def __init__(
        self,
        catalog: Catalog | None = None,
        *,
        published: Iterable[Published] = (),
        key: str | None = None,
        switches: Switches | None = None,
        clock: Clock | None = None,
        speed: float = 1.0,
        concurrency: int = 1,
        renderer: Renderer | None = None,
        new_id: Callable[[], str] = _new_id,
        on_accept: Callable[[Accepted], None] | None = None,
    ) -> None:
        self._endpoints = {one.endpoint_id: one for one in (catalog or load()).endpoints}
        self._published: dict[str, Published] = {}
        self.switches = switches or Switches()
        self.clock: Clock = clock or ScaledClock()
        self.queue = Queue(self.clock, concurrency=concurrency)
        self.files = Files(self.clock, new_id)
        self.faults = Script()
        self.accepted: list[Accepted] = []
        self.requests: list[Recorded] = []
        self._key = key
        self._speed = speed
        self._render = renderer or default_renderer()
        self.new_id = new_id
        self._on_accept = on_accept
        self._wishes: dict[str, ParsedRequest] = {}
        self._videos: dict[str, _Video] = {}
        for one in published:
            self.publish(one)

    def account(self, request: Request) -> str | None:
        """The account behind the key of *request*, or None when the key is missing or not accepted."""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme != "Key" or not key or self._key not in {None, key}:
            return None
        return key

    def publish(self, published: Published) -> None:
        """
        Publish one more endpoint, or something else of one that is there.

        A new endpoint takes jobs if its document can be understood, by that and by its price.
        """
        self._published[published.endpoint_id] = published
        if published.endpoint_id in self._endpoints or published.openapi is None:
            return
        # Not at the top: a demo, which publishes nothing, would wait for it.
        from kling_mcp.catalog.derive import DeriveError, ListPrice, derive

        price = published.price
        known = None if price is None else ListPrice(price.unit_price, price.unit, price.currency)
        with contextlib.suppress(DeriveError):
            derived = derive(published.endpoint_id, published.openapi, known, as_of=_ANY_DAY, title=published.title)
            self._endpoints[published.endpoint_id] = derived.endpoint

    def published(self, *, with_documents: bool = False) -> list[Published]:
        """What fal publishes of every endpoint; documents, which take longer to make, only where asked for."""
        own = {
            name: of_endpoint(endpoint, with_document=with_documents)
            for name, endpoint in self._endpoints.items()
            if name not in self._published
        }
        return [*own.values(), *self._published.values()]

    def endpoint(self, endpoint_id: str) -> Endpoint | None:
        """What the simulator knows of the endpoint *endpoint_id*; None where it takes no jobs."""
        return self._endpoints.get(endpoint_id)

    def take(
        self, endpoint: Endpoint, account: str, body: Mapping[str, object], headers: Mapping[str, str]
    ) -> Job | Response:
        """Accept a submit, or answer why not."""
        wrong = complaints(endpoint, body)
        if wrong and self.switches.validate_at_once:
            refused = invalid(wrong)
            return JSONResponse(refused.body, refused.status, dict(refused.headers))
        now, wish = self.clock.now(), read(endpoint, body, self.files)
        planned = None if wrong else self.faults.next_failure()
        if planned is None:
            wrong = wrong or media_complaints(endpoint, body, wish.inputs, self.files)
        outcome = planned or (invalid(wrong) if wrong else success())
        seconds = self.switches.refusal_seconds if wrong else _work_seconds(endpoint, wish)
        job = Job(
            request_id=self.new_id(),
            endpoint_id=endpoint.endpoint_id,
            account=account,
            body=body,
            headers=dict(headers),
            tags=_tags(headers),
            sent_at=now,
            ready_at=now + self.switches.dispatch_seconds / self._speed,
            work_seconds=seconds / self._speed,
            outcome=outcome,
            shots=wish.shots,
            start_by=_start_by(headers, now),
            low_priority=headers.get("x-fal-queue-priority") == "low",
            in_history=headers.get("x-fal-store-io") != "0",
        )
        self._wishes[job.request_id] = wish
        accepted = Accepted(job.request_id, job.endpoint_id, body, job.headers, job.tags, now)
        self.accepted.append(accepted)
        if self._on_accept is not None:
            self._on_accept(accepted)
        self.queue.add(job)
        return job

    def billable_units(self, job: Job) -> Decimal | None:
        """
        What fal would bill for *job*, in units of its price API; None where the endpoint has no price.

        That units times unit price is the price on the model's page is an
        inference: every published price is a multiple of the unit.
        """
        endpoint = self._endpoints[job.endpoint_id]
        wish = self._wishes[job.request_id]
        unit = of_endpoint(endpoint).price
        if unit is None:
            return None
        if job.outcome.status >= 400:
            return Decimal(0)
        price = quote(
            endpoint,
            seconds=round(wish.seconds) if endpoint.length is not None else None,
            audio=wish.audio,
            voice=wish.voice,
            tier=wish.tier,
            inputs=wish.lengths,
        ).estimated_usd
        return (price / unit.unit_price).quantize(Decimal("0.0001")).normalize()

    async def result(self, job: Job, media: str) -> dict[str, object]:
        """The result of a job that went well, as the model words it; *media* is the CDN's base URL."""
        endpoint = self._endpoints[job.endpoint_id]
        fields = members_of(endpoint.output_schema.get("properties"))
        if endpoint.result == "voice":
            name = str(items_of(endpoint.output_schema.get("required"))[0])
            return {name: str(int(hashlib.sha256(job.request_id.encode()).hexdigest()[:15], 16))}
        file, path = await self._video(job.request_id)
        video = {
            "url": f"{media}/{path}",
            "content_type": file.content_type,
            "file_name": file.name,
            "file_size": len(file.data),
        }
        length = {"duration": self._wishes[job.request_id].seconds} if "duration" in fields else {}
        return {"video": video, **length}

    async def _video(self, request_id: str) -> tuple[StoredFile, str]:
        video = self._videos.setdefault(request_id, _Video(self.files.new_path("output.mp4")))
        async with video.lock:
            file = self.files.get(video.path)
            if file is None:
                wish = self._wishes[request_id]
                data = await anyio.to_thread.run_sync(self._drawn, wish)
                file = StoredFile(data, "video/mp4", "output.mp4")
                self.files.put(video.path, file)
        return file, video.path

    def _drawn(self, wish: ParsedRequest) -> bytes:
        first = opening(wish, self.files)
        if first is None and wish.shape is not None:
            first = shaped(wish.shape)
        last = None if wish.last is None else wish.last.data(self.files)
        return self._render(wish.shots, first, last, sound=wish.sound)


def _work_seconds(endpoint: Endpoint, wish: ParsedRequest) -> float:
    return float(endpoint.expected_seconds(round(wish.seconds)) or 20 * wish.seconds)


def _start_by(headers: Mapping[str, str], now: float) -> float:
    """
    Until when the caller wants its request started, in seconds since 1970.

    The newer of fal's two headers wins; a value that is no number is ignored.
    """
    for name in ("x-fal-request-start-timeout", "x-fal-request-timeout"):
        try:
            return now + float(headers.get(name, ""))
        except ValueError:
            continue
    return math.inf


def _tags(headers: Mapping[str, str]) -> dict[str, str]:
    """The ``X-Fal-Tags`` of a request; what does not read as ``k=v`` is left out and never fails it."""
    pairs = (part.partition("=") for part in headers.get("x-fal-tags", "").split(","))
    return {key.strip(): value.strip() for key, equals, value in pairs if equals and key.strip()}
