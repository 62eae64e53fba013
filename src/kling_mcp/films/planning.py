"""
Film planning: turns the arguments of a film into clips, each a checked and priced call of a tool.

It needs no key and no network. One refusal lists everything that is wrong with any clip, before anything is paid for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeAlias

from kling_mcp.catalog.plan import plan, usual_endpoint
from kling_mcp.catalog.pricing import quote_plan
from kling_mcp.errors import ArgumentFault, InvalidArguments, KlingError
from kling_mcp.ids import job_id_in
from kling_mcp.jobs.film import CONTINUE, PlannedClip
from kling_mcp.json_types import items_of, members_of
from kling_mcp.money import micro_dollars

if TYPE_CHECKING:
    from kling_mcp.catalog.models import Catalog, Endpoint, Tool
    from kling_mcp.catalog.plan import Plan
    from kling_mcp.catalog.pricing import Quote
    from kling_mcp.jobs.draft import Draft

__all__ = ["MOST_CLIPS", "ClipCall", "FilmPlan", "at_clip", "call_of", "plan_film", "refuse_mixed_shapes", "shape_of"]

MOST_CLIPS: Final = 24

_OF_A_FILM: Final = ("model", "generate_audio", "negative_prompt", "aspect_ratio", "elements")
"""Arguments for all clips. A clip whose model does not take one is made without it."""

_OF_A_CLIP: Final = ("prompt", "shots", "duration", "end_image", "model")
_DRIFTS_AFTER: Final = 3
"""How many clips may continue one another before colours and faces visibly drift."""

_STAND_IN: Final = "kling://jobs/kj_0000000000000000000000/last-frame"
"""Stands for the last frame of a clip that is not made yet."""

Arguments: TypeAlias = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class ClipCall:
    """The call of a tool that makes a clip."""

    tool: Tool
    endpoint: Endpoint
    arguments: Arguments
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FilmPlan:
    """
    A film that can be made.

    Attributes:
        arguments: The user's arguments, as they are stored and compared.
        clips: The clips, as they are stored.
        plans: The checked call of each clip; None for a finished job.
        warnings: For the user, before anything is paid for.
    """

    title: str
    arguments: Arguments
    clips: tuple[PlannedClip, ...]
    plans: tuple[Plan | None, ...]
    warnings: tuple[str, ...]


def call_of(catalog: Catalog, clip: Arguments, image: str | None) -> ClipCall:
    """
    The call that makes *clip*, whose arguments are its own and those of its film.

    Args:
        image: Its first picture; None for a clip from text alone.

    Raises:
        UnknownModel: No model that can make it has that name.
    """
    tool: Tool = "multi_shot_video" if clip.get("shots") else "image_to_video" if image else "text_to_video"
    arguments = {**clip, **({"image": image} if image else {})}
    named = {name: value for name, value in arguments.items() if name not in _OF_A_FILM or name == "model"}
    endpoint = _endpoint_of(catalog, tool, named)
    taken = {name for name, argument in endpoint.arguments.items() if tool in argument.tools}
    left_out = tuple(name for name in _OF_A_FILM if name in arguments and name != "model" and name not in taken)
    return ClipCall(
        tool, endpoint, {name: value for name, value in arguments.items() if name not in left_out}, left_out
    )


def _endpoint_of(catalog: Catalog, tool: Tool, arguments: Arguments) -> Endpoint:
    """The endpoint that a call of *tool* means."""
    model = arguments.get("model")
    if not isinstance(model, str):
        return usual_endpoint(catalog, tool, arguments)
    mode = "text-to-video" if "image" not in arguments else "image-to-video"
    return catalog.model(model, mode)


def plan_film(catalog: Catalog, given: Arguments, *, chains: str | None) -> FilmPlan:
    """
    Check and price every clip of the film that *given* describes.

    Args:
        given: `clips`, `title`, and the arguments for all clips.
        chains: Why clips cannot continue one another on this machine; None if they can.

    Raises:
        InvalidArguments: Something is wrong with one or several clips; each has its path.
    """
    clips = [members_of(clip) for clip in items_of(given.get("clips"))]
    if not 1 <= len(clips) <= MOST_CLIPS:
        raise InvalidArguments(
            f"A film has 1 to {MOST_CLIPS} clips; here are {len(clips)}.",
            'Give clips as a list, such as [{"prompt": "…", "start": "…"}].',
            field="clips",
        )
    faults: list[ArgumentFault] = []
    planned: list[PlannedClip] = []
    plans: list[Plan | None] = []
    warnings: list[str] = []
    for index, own in enumerate(clips):
        try:
            clip, made, said = _clip(catalog, given, own, index, chains)
        except KlingError as error:
            faults += [at_clip(fault, index) for fault in error.faults]
            continue
        planned.append(clip)
        plans.append(made)
        warnings += said
    if faults:
        raise InvalidArguments.of(faults)
    warnings += _about_chains(planned)
    title = given.get("title")
    return FilmPlan(
        title=title.strip()[:120] if isinstance(title, str) else "",
        arguments=given,
        clips=tuple(planned),
        plans=tuple(plans),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _clip(
    catalog: Catalog, film: Arguments, own: Arguments, index: int, chains: str | None
) -> tuple[PlannedClip, Plan | None, Sequence[str]]:
    unknown = [name for name, value in own.items() if value is not None and name not in (*_OF_A_CLIP, "start")]
    if unknown:
        names = ", ".join((*_OF_A_CLIP, "start"))
        raise InvalidArguments(f"A clip has no {unknown[0][:40]!r}.", f"It takes {names}.", field=unknown[0][:40])
    start = _start(own.get("start"), index)
    if start.startswith("kj_"):
        return PlannedClip({}, start, 0, 0, 0), None, ()
    if start == CONTINUE and chains is not None:
        raise InvalidArguments(
            f"A clip cannot continue the one before it here: {chains}.",
            "Give each clip a picture of its own as start.",
            field="start",
        )
    arguments = {name: film[name] for name in _OF_A_FILM if film.get(name) is not None}
    arguments |= {name: own[name] for name in _OF_A_CLIP if own.get(name) is not None}
    call = call_of(catalog, arguments, _STAND_IN if start == CONTINUE else start or None)
    made = plan(catalog, call.tool, call.arguments, call.endpoint)
    price: Quote = quote_plan(made)
    clip = PlannedClip(
        arguments, start, price.seconds, micro_dollars(price.estimated_usd), micro_dollars(price.ceiling_usd)
    )
    left_out = [
        f"Clip {index + 1} is made without {name}: {call.endpoint.model} does not take it in this mode."
        for name in call.left_out
        if name != "aspect_ratio"
    ]
    return clip, made, [*(f"Clip {index + 1}: {said}" for said in (*made.warnings, *price.warnings)), *left_out]


def _start(value: object, index: int) -> str:
    """The start of a clip: a picture, `CONTINUE`, a job's id, or "" for none."""
    text = value.strip() if isinstance(value, str) else ""
    if not text:
        return "" if index == 0 else CONTINUE
    if text.lower() == CONTINUE:
        if index == 0:
            raise InvalidArguments(
                "The first clip has nothing before it to continue.",
                "Leave start out to begin from text, or give a picture or the job_id of a finished video.",
                field="start",
            )
        return CONTINUE
    found = job_id_in(text)
    return found if found.startswith("kj_") and "last-frame" not in text else text


def at_clip(fault: ArgumentFault, index: int) -> ArgumentFault:
    """*fault* with its path in the film's arguments, where a clip's first picture is called start."""
    path = fault.path or ""
    own = "start" + path.removeprefix("image") if path.split(".")[0] == "image" else path
    place = f"clips[{index}].{own}" if own else f"clips[{index}]"
    return replace(fault, path=place, what=f"Clip {index + 1}: {fault.what}")


def shape_of(draft: Draft) -> str | None:
    """Whether a clip is portrait, landscape or square, by its first picture or its aspect ratio; None if unknown."""
    first = next((given for given in draft.inputs if given.slot.argument == "image"), None)
    if first is not None:
        size = None if isinstance(first.content, str) or first.slot.kind != "picture" else first.content
        return None if size is None else _shape(getattr(size, "width", 0), getattr(size, "height", 0))
    width, _, height = str(draft.arguments.get("aspect_ratio", "")).partition(":")
    return _shape(int(width), int(height)) if width.isdigit() and height.isdigit() else None


def _shape(width: int, height: int) -> str:
    return "square" if width == height else "portrait" if width < height else "landscape"


def refuse_mixed_shapes(shapes: Mapping[int, str]) -> None:
    """
    Refuse a film of clips of different shapes, which do not join.

    Args:
        shapes: The shape of each clip that is known, by its place from 0.

    Raises:
        InvalidArguments: Two of them differ.
    """
    for index, shape in shapes.items():
        first, other = next(iter(shapes.items()))
        if shape != other:
            raise InvalidArguments(
                f"Clip {first + 1} is {other} and clip {index + 1} is {shape}: they do not join into one film.",
                "Give all clips pictures or an aspect_ratio of one shape.",
                field=f"clips[{index}].start",
            )


def _about_chains(clips: Sequence[PlannedClip]) -> Sequence[str]:
    longest = current = 0
    for clip in clips:
        current = current + 1 if clip.start == CONTINUE else 0
        longest = max(longest, current)
    if longest <= _DRIFTS_AFTER:
        return ()
    said = (
        "A picture of its own as start, or the same picture as end_image of one clip and start of the next, keeps them."
    )
    return [f"{longest} clips continue one another: colours and faces drift with each. {said}"]
