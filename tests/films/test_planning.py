"""
What the user says of a film becomes clips that are checked and priced; what cannot be is refused whole, before money.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from kling_mcp.catalog.models import load
from kling_mcp.catalog.plan import plan
from kling_mcp.catalog.pricing import quote_plan
from kling_mcp.errors import InvalidArguments
from kling_mcp.films.planning import FilmPlan, plan_film, refuse_mixed_shapes
from kling_mcp.money import dollars

PICTURE = "https://example.com/fox.jpg"


def film(*clips: dict[str, Any], chains: str | None = None, **whole: Any) -> FilmPlan:
    return plan_film(load(), {"clips": list(clips), **whole}, chains=chains)


FIRST = {"prompt": "A fox wakes."}

CLIPS: list[tuple[dict[str, Any], str, str, str]] = [
    # the second clip, its start, its mode, what of the film it takes
    ({"prompt": "It runs."}, "continue", "image-to-video", "the last frame before"),
    ({"prompt": "It runs.", "start": " Continue "}, "continue", "image-to-video", "the same"),
    ({"prompt": "It runs.", "start": PICTURE}, PICTURE, "image-to-video", "its own picture"),
    ({"shots": [{"prompt": "It runs."}, {"prompt": "It stops."}]}, "continue", "image-to-video", "shots"),
]


@pytest.mark.parametrize(("second", "start", "mode", "why"), CLIPS)
def test_a_clip_begins_where_it_is_told_or_with_the_last_frame_before_it(
    second: dict[str, Any], start: str, mode: str, why: str
) -> None:
    planned = film(FIRST, second)

    assert [clip.start for clip in planned.clips] == ["", start], why
    assert [made.endpoint.mode for made in planned.plans if made] == ["text-to-video", mode]


def test_what_is_said_of_the_whole_film_holds_for_each_clip_that_can_take_it() -> None:
    planned = film(
        FIRST,
        {"prompt": "It runs.", "model": "v3-pro"},
        {"prompt": "It jumps.", "generate_audio": None, "duration": "7"},
        model="o3-standard",
        generate_audio=False,
        negative_prompt="blur",
        aspect_ratio="9:16",
    )

    models = [(made.endpoint.model, made.seconds, made.audio) for made in planned.plans if made]
    assert models == [("o3-standard", 5, False), ("v3-pro", 5, False), ("o3-standard", 7, False)]
    bodies = [made.body for made in planned.plans if made]
    assert bodies[0]["aspect_ratio"] == "9:16"
    assert bodies[1]["negative_prompt"] == "blur"
    assert "Clip 1 is made without negative_prompt: o3-standard does not take it in this mode." in planned.warnings


def test_a_film_costs_exactly_what_its_clips_cost_alone() -> None:
    """Acceptance 3."""
    lengths = [3 + number % 8 for number in range(24)]
    planned = film(
        *({"prompt": f"Clip {n}.", "duration": seconds, "start": PICTURE} for n, seconds in enumerate(lengths))
    )
    alone = [
        quote_plan(plan(load(), "image_to_video", {"image": PICTURE, "prompt": "x", "duration": seconds}))
        for seconds in lengths
    ]

    assert dollars(sum(clip.estimate_microusd for clip in planned.clips)) == sum(
        (one.estimated_usd for one in alone), Decimal(0)
    )
    assert dollars(sum(clip.ceiling_microusd for clip in planned.clips)) == sum(
        (one.ceiling_usd for one in alone), Decimal(0)
    )
    assert sum(clip.seconds for clip in planned.clips) == sum(lengths)


def test_a_finished_job_is_a_clip_without_a_prompt_or_a_price() -> None:
    given = "kj_0123456789abcdefghijkl"
    planned = film({"start": f"`{given}`"}, {"prompt": "It goes on.", "start": f"kling://jobs/{given}/last-frame"})

    assert (planned.clips[0].given, planned.clips[0].ceiling_microusd) == (given, 0)
    assert planned.clips[1].given is None


REFUSED: list[tuple[list[dict[str, Any]], str, str]] = [
    ([], "clips", "1 to 24 clips"),
    ([FIRST] * 25, "clips", "here are 25"),
    ([{**FIRST, "start": "continue"}], "clips[0].start", "nothing before it"),
    ([FIRST, {"prompt": "x", "duration": 99}], "clips[1].duration", "Clip 2"),
    ([FIRST, {}], "clips[1].prompt", "Clip 2"),
    ([FIRST, {"prompt": "x", "model": "v9"}], "clips[1].model", "Clip 2"),
    ([FIRST, {"prompt": "x", "seconds": 5}], "clips[1].seconds", "no 'seconds'"),
]


@pytest.mark.parametrize(("clips", "field", "words"), REFUSED)
def test_a_clip_that_cannot_be_made_is_refused_with_its_place(
    clips: list[dict[str, Any]], field: str, words: str
) -> None:
    with pytest.raises(InvalidArguments) as refusal:
        film(*clips)

    assert refusal.value.field == field
    assert words in str(refusal.value)


def test_everything_that_is_wrong_with_any_clip_is_in_one_refusal() -> None:
    with pytest.raises(InvalidArguments) as refusal:
        film({"prompt": "x", "duration": 99}, {}, {"prompt": "x", "model": "v9"})

    assert [fault.path for fault in refusal.value.faults] == ["clips[0].duration", "clips[1].prompt", "clips[2].model"]


def test_a_chain_is_refused_where_no_clip_can_go_on_from_another() -> None:
    """Acceptance 10."""
    with pytest.raises(InvalidArguments, match="videos are not saved") as refusal:
        film(FIRST, {"prompt": "x"}, chains="videos are not saved")
    assert refusal.value.field == "clips[1].start"
    assert film(FIRST, {"prompt": "x", "start": PICTURE}, chains="videos are not saved").clips


def test_long_chains_are_warned_of_and_mixed_shapes_refused() -> None:
    assert any("drift" in said for said in film(*[FIRST] * 5).warnings)
    assert not any("drift" in said for said in film(*[FIRST] * 4).warnings)
    refuse_mixed_shapes({0: "portrait", 2: "portrait"})
    with pytest.raises(InvalidArguments, match="Clip 1 is portrait and clip 3 is landscape"):
        refuse_mixed_shapes({0: "portrait", 2: "landscape"})
