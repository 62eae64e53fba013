"""An estimate is true for the model that it is about, also where none is named."""

from __future__ import annotations

import base64
import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from kling_mcp.catalog.models import load
from kling_mcp.jobs.ledger import DaySpend
from kling_mcp.server.estimates import estimate, estimate_headline
from kling_mcp.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

SHOTS = [{"prompt": "Wide.", "duration": 5}, {"prompt": "Close.", "duration": 3}]
SILENT = {
    *("o1-standard", "o1-pro", "v2.5-turbo-standard", "v2.5-turbo-pro"),
    *("v2.1-standard", "v2.1-pro", "v2.1-master", "v1.6-standard", "v1.6-pro"),
}
TODAY = DaySpend("2026-11-25", 1_500_000, 2_000_000)


def settings(tmp_path: Path, **environment: str) -> Settings:
    return Settings.from_environment({"HOME": str(tmp_path), **environment})


def estimated(tmp_path: Path, arguments: dict[str, Any], **environment: str) -> dict[str, Any]:
    return estimate(load(), arguments, settings(tmp_path, **environment), TODAY).data()


def headline(tmp_path: Path, arguments: dict[str, Any]) -> str:
    return estimate_headline(load(), estimate(load(), arguments, settings(tmp_path), TODAY))


def rows(data: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["model"]: row for row in data["models"]}


def test_a_comparison_says_of_each_model_its_sound_its_ceiling_and_whether_the_user_is_asked(tmp_path: Path) -> None:
    data = estimated(tmp_path, {})
    by_model = rows(data)

    assert (data["tool"], data["model"], data["mode"]) == ("image_to_video", "o3-standard", "image-to-video")
    assert {model: row["sound"] for model, row in by_model.items()} == {
        **dict.fromkeys(("o3-standard", "o3-pro", "o3-4k"), "off"),
        **dict.fromkeys(("v3-standard", "v3-pro", "v3-4k"), "on"),
        **dict.fromkeys(("v3-turbo-standard", "v3-turbo-pro"), "always"),
        **dict.fromkeys(SILENT, "never"),
        "v2.6-pro": "on",
    }
    prices = [row["estimated_usd"] for row in data["models"]]
    assert prices == sorted(prices)
    assert [model for model, row in by_model.items() if row["asks_first"]] == [
        "v3-standard",
        "v3-pro",
        "v2.1-master",
        "o3-4k",
        "v3-4k",
    ]
    said = headline(tmp_path, {})
    assert "v3-standard $0.63 (at most $1.26)" in said
    assert "Without a model a job uses o3-standard." in said
    assert "asked first for v3-standard, v3-pro, v2.1-master, o3-4k, v3-4k." in said


@pytest.mark.parametrize(("wish", "out"), [(True, SILENT), (False, {"v3-turbo-standard", "v3-turbo-pro"})])
def test_a_sound_that_cannot_be_switched_satisfies_the_same_wish(tmp_path: Path, wish: bool, out: set[str]) -> None:
    by_model = rows(estimated(tmp_path, {"generate_audio": wish}))

    assert {model for model, row in by_model.items() if row["estimated_usd"] is None} == out
    for model in out:
        assert "makes" in by_model[model]["why_not"]


def test_a_call_that_the_default_does_not_take_is_not_said_to_use_it(tmp_path: Path) -> None:
    data = estimated(tmp_path, {"voice_ids": ["a"]})

    assert data["model"] == "v3-standard"
    assert any("o3-standard, the default, does not take this call" in warning for warning in data["warnings"])
    assert "uses o3-standard, which does not take this call." in headline(tmp_path, {"voice_ids": ["a"]})


@pytest.mark.parametrize(
    ("arguments", "tool"),
    [
        ({"shots": SHOTS}, "multi_shot_video"),
        ({"shots": json.dumps(SHOTS), "duration": 5}, "multi_shot_video"),
        ({"shots": "[]"}, "image_to_video"),
        ({"tool": "multi_shot_video", "shots": SHOTS}, "multi_shot_video"),
        ({"tool": "multi-shot video"}, "multi_shot_video"),
        ({"tool": "null", "prompt": "x"}, "image_to_video"),
    ],
)
def test_the_tool_is_the_one_that_is_named_or_that_the_arguments_belong_to(
    tmp_path: Path, arguments: dict[str, Any], tool: str
) -> None:
    assert estimated(tmp_path, {"model": "o3-standard", **arguments})["tool"] == tool


def test_a_picture_in_the_call_is_not_given_back(tmp_path: Path) -> None:
    picture = "data:image/jpeg;base64," + base64.b64encode(bytes(640_000)).decode()
    data = estimated(tmp_path, {"model": "o3-standard", "image": picture, "prompt": "x"})

    assert data["request"]["image_url"] == "data:image/jpeg (640 kB)"
    assert len(json.dumps(data)) < 3_000


def test_the_budget_says_what_is_held_spent_and_left(tmp_path: Path) -> None:
    own = settings(tmp_path, KLING_MCP_DAILY_BUDGET_USD="10", KLING_MCP_MAX_JOB_USD="4")

    assert estimate(load(), {}, own, TODAY).budget.data() == {
        "job_limit_usd": 4.0,
        "remaining_today_usd": 6.5,
        "held_usd": 1.5,
        "spent_usd": 2.0,
    }
    unknown = estimate(load(), {}, own, None).budget.data()
    assert (unknown["job_limit_usd"], unknown["remaining_today_usd"]) == (4.0, None)


@pytest.mark.parametrize(("confirm", "asked"), [("never", 0), ("auto", 5), ("always", 18)])
def test_who_is_asked_follows_the_setting(tmp_path: Path, confirm: str, asked: int) -> None:
    data = estimated(tmp_path, {}, KLING_MCP_CONFIRM=confirm)

    assert sum(row["asks_first"] for row in data["models"]) == asked
    assert Decimal(str(data["estimated_usd"])) == Decimal("0.42")
