"""What a job costs, as estimate and as ceiling."""

from __future__ import annotations

from decimal import Decimal

import pytest

from kling_mcp.catalog.models import load
from kling_mcp.catalog.plan import plan
from kling_mcp.catalog.pricing import quote, quote_plan

PRICES: list[tuple[str, int, bool | None, bool, str, str]] = [
    # model, seconds, audio, voice, estimate, ceiling
    ("o3-standard", 5, False, False, "0.42", "0.42"),
    ("o3-standard", 5, True, False, "0.56", "0.56"),
    ("o3-standard", 15, True, False, "1.68", "1.68"),
    ("o3-standard", 5, True, True, "0.56", "0.56"),
    ("o3-pro", 5, False, False, "0.56", "0.56"),
    ("o3-pro", 5, True, False, "0.70", "0.84"),
    ("o3-4k", 5, False, False, "2.10", "2.10"),
    ("o3-4k", 10, True, False, "4.20", "4.20"),
    ("v3-standard", 5, False, False, "0.42", "0.84"),
    ("v3-standard", 5, True, False, "0.63", "1.26"),
    ("v3-standard", 5, True, True, "0.77", "1.54"),
    ("v3-pro", 5, False, False, "0.56", "1.12"),
    ("v3-pro", 5, True, False, "0.84", "1.68"),
    ("v3-pro", 5, True, True, "0.98", "1.96"),
    ("v3-4k", 5, True, True, "2.10", "2.10"),
    ("v3-turbo-standard", 5, None, False, "0.56", "0.56"),
    ("v3-turbo-pro", 5, None, False, "0.70", "0.70"),
    ("o1-standard", 10, None, False, "0.84", "0.84"),
    ("o1-pro", 10, None, False, "1.12", "1.12"),
]


@pytest.mark.parametrize(("model", "seconds", "audio", "voice", "estimate", "ceiling"), PRICES)
def test_a_job_costs_its_seconds_at_the_rate_of_its_tier(
    model: str, seconds: int, audio: bool | None, voice: bool, estimate: str, ceiling: str
) -> None:
    it = quote(load().model(model), seconds=seconds, audio=audio, voice=voice)

    assert (Decimal(estimate), Decimal(ceiling)) == (it.estimated_usd, it.ceiling_usd)
    assert bool(it.warnings) is (it.estimated_usd != it.ceiling_usd)


def test_the_basis_is_the_sum_with_the_date_and_source_of_the_rate() -> None:
    it = quote(load().model("o3-standard"), seconds=5, audio=True, voice=False)

    assert it.basis == (
        "5 s \N{MULTIPLICATION SIGN} $0.112/s (audio on); "
        "list price 2026-08-27, fal.ai model page and model catalog of o3/standard"
    )
    assert it.sources == ("2026-08-27, fal.ai model page and model catalog of o3/standard",)


@pytest.mark.parametrize(
    ("model", "audio", "voice", "words"),
    [
        ("v3-pro", False, False, "$0.112/s (audio off)"),
        ("v3-pro", True, True, "$0.196/s (audio on with voice control)"),
        ("o3-4k", True, False, "$0.42/s (one rate with or without audio)"),
        ("v3-turbo-pro", None, False, "$0.14/s (one rate, audio included)"),
        ("o1-pro", None, False, "$0.112/s (one rate, no audio)"),
    ],
)
def test_the_basis_names_the_tier(model: str, audio: bool | None, voice: bool, words: str) -> None:
    assert words in quote(load().model(model), seconds=3, audio=audio, voice=voice).basis


def test_sources_that_disagree_are_both_named_with_their_dates() -> None:
    it = quote(load().model("v3-standard"), seconds=5, audio=True, voice=True)

    assert it.sources == (
        "2026-07, fal.ai llms.txt of v3/standard image-to-video, current copy",
        "2026-02, fal.ai llms.txt of v3/standard image-to-video, launch copy",
    )
    (warning,) = it.warnings
    assert warning == (
        f"Sources disagree on the price: $0.154/s ({it.sources[0]}) makes $0.77, "
        f"$0.308/s ({it.sources[1]}) makes $1.54. The estimate uses the newest, the ceiling the highest."
    )


def test_a_disagreement_keeps_fractions_of_a_cent() -> None:
    (warning,) = quote(load().model("o3-pro"), seconds=9, audio=True, voice=False).warnings

    assert "makes $1.26," in warning
    assert "makes $1.512." in warning


def test_half_as_much_again_is_held_where_sources_leave_open_whether_a_video_of_an_element_is_billed() -> None:
    call = {"prompt": "@Element1 runs.", "duration": 5, "model": "o3-pro"}
    face = {"frontal_image": "https://example.com/a.png", "reference_images": ["https://example.com/b.png"]}
    pictured, filmed = (
        quote_plan(plan(load(), "reference_to_video", {**call, "elements": [element]}))
        for element in (face, {"video": "https://example.com/a.mp4"})
    )

    assert filmed.estimated_usd == pictured.estimated_usd
    assert filmed.ceiling_usd == pictured.ceiling_usd * Decimal("1.5")
