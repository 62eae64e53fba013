"""
Views: what a job, a price or a refusal looks like in results, resources and tasks.

Fields stand in a result in the order in which they are written here. A field
with a default is left out of the result where it is not set.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, JsonValue, model_validator

from kling_mcp.catalog.models import Mode
from kling_mcp.errors import Billed, KlingError
from kling_mcp.jobs.job import Job, State
from kling_mcp.jobs.warnings import place_in_line, warnings_of
from kling_mcp.money import dollars, usd
from kling_mcp.server.job_texts import next_step
from kling_mcp.shown import shorten_data_uris
from kling_mcp.texts import showable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kling_mcp.catalog.models import Price
    from kling_mcp.jobs.ledger import DaySpend

__all__ = [
    "RESULT_BYTES",
    "ArgumentFaultView",
    "BudgetView",
    "ComparedModel",
    "ConfirmationView",
    "CostView",
    "ErrorView",
    "EstimateView",
    "JobRow",
    "JobView",
    "JobsView",
    "ModelRow",
    "ModelView",
    "ModelsView",
    "PriceView",
    "PricesView",
    "RefusalView",
    "Sound",
    "SpendTodayView",
    "SpendView",
    "UnsuitableModel",
    "VideoView",
    "View",
    "VoiceRow",
    "VoiceView",
    "VoicesView",
    "arguments_of",
    "cleaned",
    "compact",
    "job_uri",
    "moment",
    "prompt_of",
]

RESULT_BYTES: Final = 8_000
"""About 2,000 tokens: hosts cut longer results, some in the middle."""

_PROMPT_CHARACTERS: Final = 160
_ROW_CHARACTERS: Final = 80
_ROW_URL_CHARACTERS: Final = 300
_LISTED_VOICES: Final = 50
_OF_ONE_CALL: Final = frozenset({"wait_seconds", "max_cost_usd"})
"""Arguments that are no part of a job; the user's agreement to a price is given for one purchase only."""


# ---- values


def job_uri(job_id: str) -> str:
    """The resource that shows a job."""
    return f"kling://jobs/{job_id}"


def moment(at_ms: int) -> str:
    """A time as people and programs read it."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def cleaned(data: object) -> Any:
    """*data* as it may be shown: embedded pictures are named, and every text can be encoded."""
    return showable(shorten_data_uris(data))


def compact(data: object) -> str:
    """*data* as JSON without blanks between its parts."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def prompt_of(job: Job, most_characters: int) -> str:
    """What the job was to show or is made from, on one line of at most *most_characters*."""
    return _cut(" ".join(cleaned(job.intent.description).split()), most_characters)


def arguments_of(job: Job, most_characters: int | None = None) -> dict[str, JsonValue]:
    """
    What to send for the same job again.

    Args:
        most_characters: Where longer texts are cut; the job's resource has them whole.
    """
    given: dict[str, JsonValue] = cleaned(
        {name: value for name, value in job.intent.arguments.items() if name not in _OF_ONE_CALL}
    )
    if most_characters is None:
        return given
    return {name: _cut_within(value, most_characters, job_uri(job.job_id)) for name, value in given.items()}


def _cut(text: str, most_characters: int) -> str:
    return text if len(text) <= most_characters else f"{text[: most_characters - 1].rstrip()}…"


def _cut_within(value: JsonValue, most_characters: int, whole_at: str) -> JsonValue:
    """*value* with its long texts cut, each saying so."""
    if isinstance(value, str) and len(value) > most_characters:
        return f"{_cut(value, most_characters)} (cut; whole in {whole_at})"
    if isinstance(value, dict):
        return {name: _cut_within(member, most_characters, whole_at) for name, member in value.items()}
    if isinstance(value, list):
        return [_cut_within(member, most_characters, whole_at) for member in value]
    return value


# ---- views


class View(BaseModel):
    """The shape of a result, or of a part of one."""

    # Built on first use: `tools/list` needs none of them.
    model_config = ConfigDict(frozen=True, defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _cleaned(cls, fields: Any) -> Any:
        if not hasattr(fields, "keys") and not isinstance(fields, View):
            fields = {name: getattr(fields, name) for name in cls.model_fields}
        return cleaned(fields)

    def data(self) -> dict[str, Any]:
        """This as JSON data."""
        return self.model_dump(exclude_unset=True)


class CostView(View):
    """What a job is expected to cost, may cost at most, and did cost as far as fal.ai said."""

    estimated_usd: float
    ceiling_usd: float
    actual_usd: float | None
    basis: str


class VideoView(View):
    """A finished video: where fal.ai has it and where it is saved."""

    url: str | None
    content_type: str | None
    file_size: int | None
    saved_to: str | None

    @classmethod
    def of(cls, job: Job) -> Self | None:
        """The video of *job*; what stands in the place of its address without being one is not shown."""
        known = job.video_file
        url, content_type, file_size = known.get("url"), known.get("content_type"), known.get("file_size")
        if not isinstance(url, str) or not url.lower().startswith(("https://", "http://")):
            url = None
        if url is None and job.saved_to is None:
            return None
        return cls(
            url=url,
            content_type=content_type if isinstance(content_type, str) else None,
            file_size=file_size if isinstance(file_size, int) else None,
            saved_to=job.saved_to,
        )


class VoiceView(View):
    """The voice of a job that makes one: its name here, and its id once it is made."""

    voice_id: str | None
    name: str | None

    @classmethod
    def of(cls, job: Job) -> Self | None:
        """The voice of *job*; None where it makes a video."""
        voice = job.intent.voice
        return None if voice is None else cls(voice_id=job.voice_id, name=voice.name)


class ErrorView(View):
    """Why a job ended without a video."""

    code: str
    message: str
    field: str | None
    billed: Billed
    upstream_detail: str | None


class JobView(View):
    """A job, the same in every place."""

    job_id: str
    state: State
    prompt: str
    model: str
    mode: str
    seconds: int
    sound: bool | None
    take: int
    endpoint: str
    request_id: str | None
    queue_position: int | None
    progress: str | None
    created_at: str
    elapsed_seconds: int
    expected_seconds: int | None
    cost: CostView
    video: VideoView | None
    error: ErrorView | None
    warnings: list[str]
    resource: str
    next_step: str
    arguments: dict[str, Any] | None = None
    """What to send for the same job again; None where there is no room for it."""
    voice: VoiceView | None = None
    """Of a job that makes one."""

    @classmethod
    def of(cls, job: Job, now_ms: int, *more_warnings: str) -> Self:
        """The row of *job* as it is at *now_ms*."""
        intent, fault, video, voice = job.intent, job.fault, VideoView.of(job), VoiceView.of(job)
        billed_microusd = job.cost_microusd if job.cost_source == "billed" else None
        view = cls(
            job_id=job.job_id,
            state=job.state,
            prompt=prompt_of(job, _PROMPT_CHARACTERS),
            model=intent.model,
            mode=intent.mode,
            seconds=intent.video_seconds,
            sound=intent.sound,
            take=intent.take,
            endpoint=intent.endpoint_id,
            request_id=job.request_id,
            queue_position=place_in_line(job),
            progress=job.progress_note if job.state in {"preparing", "running"} else None,
            created_at=moment(job.created_ms),
            elapsed_seconds=max(0, ((job.ended_ms or now_ms) - job.created_ms) // 1000),
            expected_seconds=intent.expected_seconds,
            cost=CostView(
                estimated_usd=usd(dollars(intent.estimate_microusd)),
                ceiling_usd=usd(dollars(intent.ceiling_microusd)),
                actual_usd=None if billed_microusd is None else usd(dollars(billed_microusd)),
                basis=intent.basis,
            ),
            video=video,
            error=None if fault is None else ErrorView.model_validate(fault),
            warnings=list(dict.fromkeys((*warnings_of(job, now_ms), *more_warnings))),
            resource=job_uri(job.job_id),
            next_step=next_step(job, has_video=video is not None),
        )
        return view if voice is None else view.model_copy(update={"voice": voice})


class JobRow(View):
    """A job in a list: `saved_to` where its video is saved, else `url`."""

    job_id: str
    state: State
    prompt: str
    model: str
    seconds: int
    usd: float
    created_at: str
    saved_to: str | None = None
    url: str | None = None
    error: str | None

    @classmethod
    def of(cls, job: Job) -> Self:
        """*job* in a few words."""
        video = VideoView.of(job)
        # Half an address leads nowhere, and get_job has it whole.
        url = video.url if video and video.url and len(video.url) <= _ROW_URL_CHARACTERS else None
        cost_microusd = job.intent.estimate_microusd if job.cost_microusd is None else job.cost_microusd
        return cls(
            job_id=job.job_id,
            state=job.state,
            prompt=prompt_of(job, _ROW_CHARACTERS),
            model=job.intent.model,
            seconds=job.intent.video_seconds,
            usd=usd(dollars(cost_microusd)),
            created_at=moment(job.created_ms),
            error=None if job.fault is None else _cut(f"{job.fault.code}: {job.fault.message}", _ROW_CHARACTERS),
            **({"saved_to": job.saved_to} if job.saved_to else {"url": url}),
        )


class SpendTodayView(View):
    """What is spent, held and left of the day's budget."""

    today_usd: float
    held_usd: float
    remaining_usd: float
    limit_usd: float

    @classmethod
    def of(cls, today: DaySpend, day_limit: Decimal) -> Self:
        """*today* against the limit of a day."""
        spent, held = dollars(today.spent_microusd), dollars(today.held_microusd)
        left = max(day_limit - held - spent, Decimal(0))
        return cls(today_usd=usd(spent), held_usd=usd(held), remaining_usd=usd(left), limit_usd=usd(day_limit))


class JobsView(View):
    """A page of jobs, newest first."""

    jobs: list[JobRow]
    next_cursor: str | None
    spend: SpendTodayView

    @classmethod
    def of(cls, jobs: Sequence[Job], limit: int, spend: SpendTodayView) -> Self:
        """
        A page that is not longer than a result may be.

        Args:
            jobs: One more than *limit* where there are more.
            spend: Today's money.
        """
        rows: list[JobRow] = []
        size_bytes = 0
        for job in jobs[:limit]:
            row = JobRow.of(job)
            size_bytes += len(compact(row.data()).encode()) + 1
            if rows and size_bytes > RESULT_BYTES - 500:
                break
            rows.append(row)
        next_cursor = str(jobs[len(rows) - 1].seq) if rows and len(rows) < len(jobs) else None
        return cls(jobs=rows, next_cursor=next_cursor, spend=spend)

    @property
    def headline(self) -> str:
        """How many jobs the page has."""
        count = len(self.jobs)
        more = "; next_cursor leads to older ones" if self.next_cursor else ""
        return f"{count or 'No'} job{'' if count == 1 else 's'}{more}."


class VoiceRow(View):
    """A voice that was made here."""

    name: str | None
    voice_id: str | None
    created_at: str
    job_id: str


class VoicesView(View):
    """Voices that were made here, newest first."""

    voices: list[VoiceRow]
    more: int
    """How many older ones there are besides."""

    @classmethod
    def of(cls, jobs: Sequence[Job]) -> Self:
        """The voices of *jobs*, as many as a result may have."""
        made = [job for job in jobs if job.voice_id]
        listed = [
            VoiceRow(
                name=job.intent.voice and job.intent.voice.name,
                voice_id=job.voice_id,
                created_at=moment(job.ended_ms or job.created_ms),
                job_id=job.job_id,
            )
            for job in made[:_LISTED_VOICES]
        ]
        return cls(voices=listed, more=len(made) - len(listed))


class SpendLimitsView(View):
    """The operator's limits."""

    job_usd: float
    day_usd: float


class DayView(View):
    """The money of one UTC day."""

    day: str
    held_usd: float
    spent_usd: float
    remaining_usd: float = 0
    """Of the day's budget; only today's is known."""


class SpendView(View):
    """Budgets and what is held and spent of them, newest day first."""

    limits: SpendLimitsView
    today: DayView
    days: list[DayView]

    @classmethod
    def of(cls, days: Sequence[DaySpend], job_limit: Decimal, day_limit: Decimal) -> Self:
        """*days*, of which the first is today."""
        listed = [
            DayView(day=day.day, held_usd=usd(dollars(day.held_microusd)), spent_usd=usd(dollars(day.spent_microusd)))
            for day in days
        ]
        left_usd = SpendTodayView.of(days[0], day_limit).remaining_usd
        return cls(
            limits=SpendLimitsView(job_usd=usd(job_limit), day_usd=usd(day_limit)),
            today=listed[0].model_copy(update={"remaining_usd": left_usd}),
            days=listed,
        )


class ConfirmationView(View):
    """A job that is not started, because its price needs the user's agreement."""

    state: Literal["needs_confirmation"]
    job_id: None
    model: str
    cost: CostView
    warnings: list[str]
    next_step: str


class PriceView(View):
    """What one source said at one time that a job costs: a second of it by tier, or the call."""

    as_of: str
    source: str
    usd_per_second: dict[str, float]
    usd_per_call: float | None = None

    @classmethod
    def of(cls, price: Price) -> Self:
        """*price* as JSON numbers."""
        rates = {str(tier): usd(rate) for tier, rate in price.usd_per_second.items()}
        call = None if price.usd_per_call is None else usd(price.usd_per_call)
        return cls(as_of=price.as_of, source=price.source, usd_per_second=rates, usd_per_call=call)


class PricesView(View):
    """Every dated price of every model."""

    currency: str
    unit: str
    models: dict[str, dict[str, list[PriceView]]]


class ModelRow(View):
    """A model in a few words."""

    model: str
    title: str
    summary: str
    endpoint: str
    usd_per_second: dict[str, float]
    usd_per_call: float | None
    video_seconds: str
    sound: str
    takes: list[str]
    expected_seconds_for_5_s: int | None


class ModesView(View):
    """What each model can do, with price and lengths; and the tools of each mode."""

    default: str
    modes: dict[str, list[str]]
    models: dict[str, dict[str, str]]
    more: str | None


class ModelsView(View):
    """Every model of a mode in a few words."""

    mode: str
    tools: list[str]
    default: str
    models: list[ModelRow]


class ModelView(ModelRow):
    """A model's endpoint with everything that the catalog knows of it."""

    mode: str
    tools: list[str]
    other_modes: list[str]
    prices: list[PriceView]
    arguments: dict[str, str]
    input_schema: dict[str, Any]
    limits: dict[str, dict[str, Any]]
    timing: str | None
    sources: list[str]
    alternatives: list[dict[str, Any]]


Sound = Literal["on", "off", "always", "never"]


class ComparedModel(View):
    """What a job costs with one of the models that take it."""

    model: str
    sound: Sound
    estimated_usd: float
    ceiling_usd: float
    asks_first: bool
    expected_seconds: int | None


class UnsuitableModel(View):
    """A model that does not take a job."""

    model: str
    estimated_usd: None
    ceiling_usd: None
    why_not: str


class BudgetView(View):
    """The operator's limits, and what is left of the day's; null where the ledger cannot say."""

    job_limit_usd: float
    remaining_today_usd: float | None
    held_usd: float | None
    spent_usd: float | None


class EstimateView(View):
    """What a job would cost: with one model, or with each of them."""

    tool: str
    model: str
    mode: Mode
    seconds: int
    sound: Sound
    estimated_usd: float
    ceiling_usd: float
    asks_first: bool
    basis: str
    sources: list[PriceView]
    request: dict[str, Any] | None
    models: list[ComparedModel | UnsuitableModel]
    budget: BudgetView
    warnings: list[str]


class ArgumentFaultView(View):
    """One thing that is wrong with the arguments of a call."""

    path: str | None
    value: Any
    allowed: list[str]
    nearest: str | None
    models: list[str]


class RefusalView(View):
    """A refusal, for programs; people and models read its text."""

    code: str
    message: str
    field: str | None
    allowed: list[str]
    next_step: str
    job_id: str | None
    faults: list[ArgumentFaultView]

    @classmethod
    def of(cls, error: KlingError) -> Self:
        """*error* as data."""
        return cls(
            code=error.code,
            message=error.what,
            field=error.field,
            allowed=list(error.allowed),
            next_step=error.next_step,
            job_id=error.job_id,
            faults=[ArgumentFaultView.model_validate(fault) for fault in error.faults],
        )
