"""``kling-mcp jobs JOB_ID``: one job in full."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from kling_mcp.commands.terminal import paragraph, plain
from kling_mcp.jobs.warnings import warnings_of
from kling_mcp.json_types import is_list, is_object
from kling_mcp.money import dollars, usd_text
from kling_mcp.server.job_texts import describe_status, next_step
from kling_mcp.server.views import VideoView, arguments_of, moment
from kling_mcp.settings import expanded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kling_mcp.jobs.job import Job

__all__ = ["age", "cuts_of", "job_page", "price", "short_path"]

_AGES: Final = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
_LABEL: Final = 10
_WIDEST: Final = 120
_SAID_ELSEWHERE: Final = frozenset({"prompt", "shots", "model", "duration", "take", "generate_audio"})
_MOVING: Final = frozenset({"preparing", "submitting", "queued", "running"})
_BILLED: Final = {"no": "Nothing was charged.", "maybe": "It may have been charged.", "yes": "It was charged."}


def price(job: Job) -> str:
    """What *job* cost; with a tilde where that is the estimate."""
    if job.cost_microusd is None:
        return f"~{_usd(job.intent.estimate_microusd)}"
    return f"{'~' if job.cost_microusd and job.cost_source == 'estimated' else ''}{_usd(job.cost_microusd)}"


def age(age_ms: int) -> str:
    """*age_ms* in its largest unit: ``3 min``."""
    seconds = max(age_ms // 1000, 0)
    unit, size = next(((unit, size) for unit, size in _AGES if seconds >= size), _AGES[-1])
    return f"{seconds // size} {unit}"


def short_path(path: Path) -> str:
    """*path*, from ``~`` where it is in the home folder."""
    home = Path(expanded("~"))
    return f"~/{path.relative_to(home).as_posix()}" if path.is_relative_to(home) and home != path else str(path)


def cuts_of(job: Job) -> tuple[int, ...]:
    """The start of each shot and the end of the last, in seconds; empty if unknown."""
    cuts = [0]
    for shot in _shots(job):
        seconds = shot.get("duration")
        if not isinstance(seconds, int):
            return ()
        cuts.append(cuts[-1] + seconds)
    return tuple(cuts) if len(cuts) > 1 and cuts[-1] > 0 else ()


def job_page(job: Job, now_ms: int, width: int) -> str:
    """Everything about *job*, wrapped at *width*."""
    width = min(width, _WIDEST)
    lines: list[str] = []
    label = ""
    for name, text in _entries(job, now_ms):
        lines.append(paragraph(f"{'' if name == label else name:<{_LABEL}}", text, width))
        label = name
    return "\n".join(lines)


def _entries(job: Job, now_ms: int) -> Iterator[tuple[str, str]]:
    """Labels and texts. Consecutive texts with the same label are shown under it."""
    intent = job.intent
    yield "Job", job.job_id
    state = job.state.replace("_", " ")
    yield "State", state
    # Trouble with fal.ai is among the warnings below.
    if job.trouble is None and (words := describe_status(job, now_ms)) not in {state, "finished"}:
        yield "State", plain(words)
    yield from _content(job)
    length = "makes a voice" if intent.voice else f"{intent.video_seconds} s"
    sound = {True: ", with sound", False: ", without sound", None: ""}[intent.sound]
    yield "Model", f"{intent.model}, {length}{sound}{f', take {intent.take}' if intent.take > 1 else ''}"
    yield "Mode", f"{intent.mode} ({intent.endpoint_id})"
    yield "Price", f"estimated {_usd(intent.estimate_microusd)}, at most {_usd(intent.ceiling_microusd)}; {_paid(job)}"
    yield "Price", plain(intent.basis)
    for words, at_ms in (
        ("asked for", job.created_ms),
        ("sent", job.sent_ms),
        ("accepted", job.accepted_ms),
        ("started", job.started_ms),
        ("ended", job.ended_ms),
    ):
        if at_ms is not None:
            yield "Times", f"{words:<10}{moment(at_ms)}, {age(now_ms - at_ms)} ago"
    if job.request_id is not None:
        yield "Request", plain(job.request_id)
    yield from _made(job)
    for warning in warnings_of(job, now_ms):
        yield "Warning", plain(warning)
    if job.fault is not None:
        yield "Error", f"{plain(f'{job.fault.code}: {job.fault.message}')} {_BILLED[job.fault.billed]}"
        if job.fault.upstream_detail:
            yield "Error", f"fal.ai said: {plain(job.fault.upstream_detail)}"
    yield "Next", _next(job)


def _content(job: Job) -> Iterator[tuple[str, str]]:
    """Its shots or prompt, and its other arguments."""
    given = arguments_of(job)
    cuts = cuts_of(job)
    for number, shot in enumerate(_shots(job), 1):
        seconds = f"{cuts[number - 1]}-{cuts[number]} s  " if cuts else ""
        yield f"Shot {number}", f"{seconds}{plain(str(shot.get('prompt') or ''))}"
    if prompt := given.get("prompt"):
        yield "Prompt", plain(str(prompt))
    for name, value in given.items():
        if name not in _SAID_ELSEWHERE and value not in (None, "", [], {}):
            yield "With", f"{name}: {plain(str(value))}"


def _shots(job: Job) -> Iterator[Mapping[str, object]]:
    listed: object = arguments_of(job).get("shots")
    if is_list(listed):
        for shot in listed:
            if is_object(shot):
                yield shot


def _paid(job: Job) -> str:
    if job.cost_microusd is None:
        return "not settled; the maximum is held"
    if job.cost_microusd and job.cost_source == "estimated":
        return f"counted as {_usd(job.cost_microusd)}, because fal.ai has not said what it billed"
    return f"actual {_usd(job.cost_microusd)}"


def _made(job: Job) -> Iterator[tuple[str, str]]:
    """Where the video is, or the id of the voice."""
    if job.voice_id is not None:
        yield "Voice", plain(job.voice_id)
    video = VideoView.of(job)
    if video is None:
        return
    if video.saved_to is not None:
        yield "Video", short_path(Path(video.saved_to))
    if video.url is not None:
        yield "Video", plain(video.url)


def _next(job: Job) -> str:
    if job.state in _MOVING:
        return f"kling-mcp jobs {job.job_id} --watch follows it."
    if job.state == "completed" and job.saved_to:
        return f"Open the video, or let the assistant continue it: kling://jobs/{job.job_id}/last-frame as image."
    return plain(next_step(job, has_video=VideoView.of(job) is not None))


def _usd(amount_microusd: int) -> str:
    return usd_text(dollars(amount_microusd))
