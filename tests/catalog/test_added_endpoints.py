"""``kling-mcp catalog add``: from what fal.ai publishes of an endpoint to a job with it, and out again."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from mcp.client.client import Client

from kling_mcp.catalog.added import added_endpoints
from kling_mcp.catalog.models import Catalog, load
from kling_mcp.catalog.plan import plan
from kling_mcp.commands import catalog as check
from kling_mcp.commands.demo import _film
from kling_mcp.commands.doctor import examine
from kling_mcp.commands.endpoints import add, remove
from kling_mcp.errors import InvalidArguments, SettingsError
from kling_mcp.server.app import build
from kling_mcp.settings import Secret, Settings
from kling_mcp.simulator.app import Simulator
from kling_mcp.simulator.clock import ManualClock
from kling_mcp.simulator.faults import Answer
from kling_mcp.simulator.serve import running_in_thread, serving
from tests.catalog.documents import KLING_4, document
from tests.conftest import CANARY_KEY

if TYPE_CHECKING:
    from pathlib import Path

KLING_4_ID = "kling/v4/image-to-video"
NAME = "kling-v4.image-to-video.json"
IMAGE = "https://example.com/first.png"


def settings(**environment: str) -> Settings:
    return Settings.from_environment({**os.environ, "KLING_MCP_POLL_SECONDS": "0.05", **environment})


def row(endpoint_id: str, openapi: object, **metadata: object) -> Answer:
    known = {"display_name": "Kling 4", "status": "active", **metadata}
    models = [{"endpoint_id": endpoint_id, "metadata": known, "openapi": openapi}]
    return Answer(200, {"models": models, "next_cursor": None, "has_more": False})


def priced(endpoint_id: str, unit_price: float | None, unit: str = "seconds") -> Answer:
    if unit_price is None:
        return Answer(404, {"error": {"type": "not_found", "message": "No prices for these endpoints"}})
    prices = [{"endpoint_id": endpoint_id, "unit_price": unit_price, "unit": unit, "currency": "USD"}]
    return Answer(200, {"prices": prices, "next_cursor": None, "has_more": False})


def adding(
    endpoint_id: str = KLING_4_ID,
    *,
    openapi: object = None,
    price: float | None = 0.157,
    key: str = CANARY_KEY,
    unit: str = "seconds",
    **metadata: object,
) -> int:
    """The exit code of adding an endpoint that fal.ai publishes so."""
    simulator = Simulator(key=CANARY_KEY)
    published = openapi if openapi is not None else document(endpoint_id, KLING_4[endpoint_id])
    simulator.faults.add("models", row(endpoint_id, published, **metadata))
    simulator.faults.add("pricing", priced(endpoint_id, price, unit))
    with running_in_thread(simulator) as urls:
        return add(settings(**urls.environment(), FAL_KEY=key), endpoint_id)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "endpoints"


def put(folder: Path, name: str = NAME, **changed: object) -> Path:
    """A file in the folder of added endpoints: that of Kling 4 with a change."""
    adding()
    data = json.loads((folder / NAME).read_bytes())
    (folder / NAME).unlink()
    path = folder / name
    path.write_text(json.dumps(data | changed), encoding="utf-8")
    return path


def test_adding_writes_a_file_and_says_what_is_understood_and_what_is_not(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert adding() == 0

    assert [path.name for path in folder.iterdir()] == [NAME]
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "Added kling-v4 (image-to-video) for kling/v4/image-to-video."
    assert "  middle_image_urls: pictures." in shown
    assert "  resolution: choice. 720p or 1080p (default 720p)." in shown
    assert (
        "Price: $0.157 a second by fal.ai's list. Twice that is held, and every job of it needs max_cost_usd." in shown
    )
    assert f"The file can be edited: {folder / NAME}" in shown
    endpoint = added_endpoints(folder.parent).catalog.model("kling-v4")
    assert (endpoint.title, endpoint.endpoint_id) == ("Kling 4", KLING_4_ID)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"price": None}, "its list price; it cannot run until its file has one."),
        ({"key": ""}, "Price: none, because fal.ai tells prices only with a key, and FAL_KEY is not set."),
        ({"unit": "credits"}, "fal.ai's is 0.157 USD for a unit (credits), which is not understood"),
        ({"status": "deprecated"}, "fal.ai calls it deprecated."),
    ],
)
def test_what_the_price_or_the_endpoint_lacks_is_said(
    options: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert adding(**options) == 0

    assert said in capsys.readouterr().out


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a bundled endpoint": (
        {"endpoint_id": "fal-ai/kling-video/v3/pro/image-to-video", "openapi": {}},
        "is bundled, as v3-pro (image-to-video); it needs no adding.",
    ),
    "no id": ({"endpoint_id": "../v4", "openapi": {}}, "is not the id of an endpoint"),
    "an endpoint that is not there": (
        {"openapi": {"error": {"code": "expansion_failed"}}},
        "fal.ai publishes no endpoint kling/v4/image-to-video.",
    ),
    "a document that says nothing": ({"openapi": {"openapi": "3.0.4"}}, "has no schema of the request"),
    "a model and mode that is bundled": (
        {
            "endpoint_id": "fal-ai/kling-video/o1/pro/image-to-video",
            "openapi": document("fal-ai/kling-video/o1/pro/image-to-video", KLING_4[KLING_4_ID]),
        },
        "o1-pro (image-to-video) is there already, for fal-ai/kling-video/o1/image-to-video.",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_added_changes_nothing_and_is_one_line(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options, said = REFUSED[name]

    assert adding(**options) == 1

    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert said in shown.err
    assert not folder.exists()


def test_what_is_added_is_added_once_and_removed_by_model_and_mode(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert adding() == 0
    before = (folder / NAME).read_bytes()

    assert adding() == 1
    assert "is added already, as kling-v4 (image-to-video)" in capsys.readouterr().err
    assert (folder / NAME).read_bytes() == before

    assert remove(settings(), "kling-v4", "text-to-video") == 1
    assert "kling-v4 (text-to-video) was not added. Added are: kling-v4 image-to-video." in capsys.readouterr().err
    assert remove(settings(), "o3-pro", "image-to-video") == 1
    assert "o3-pro (image-to-video) is bundled, and stays." in capsys.readouterr().err
    assert remove(settings(), "../../x", "../y") == 1

    assert remove(settings(), "kling-v4", "image-to-video") == 0
    assert list(folder.iterdir()) == []
    assert adding() == 0


def test_a_file_that_cannot_be_written_is_one_line(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("in the way")

    with pytest.raises(SettingsError, match=r"cannot be written: .*\. Nothing was added\."):
        adding()


def test_the_simulator_is_not_asked() -> None:
    with pytest.raises(SettingsError, match=r"catalog add asks fal\.ai"):
        add(settings(KLING_MCP_BACKEND="simulator"), KLING_4_ID)


# ---- files that the program reads


LEFT_OUT: dict[str, tuple[dict[str, Any], str]] = {
    "a price that is a number": (
        {"prices": [{"as_of": "2026-11", "source": "edited", "usd_per_second": {"flat": 0.157}}]},
        "prices[0].usd_per_second.flat: a text expected, found 0.157",
    ),
    "a default": ({"default": True}, "default: an added endpoint cannot be the default"),
    "a bundled model": (
        {"model": "o3-pro"},
        "model: o3-pro (image-to-video) is there already, for fal-ai/kling-video/o3",
    ),
    "a bundled endpoint": (
        {"endpoint_id": "fal-ai/kling-video/o3/pro/image-to-video"},
        "endpoint_id: fal-ai/kling-video/o3/pro/image-to-video is there already, as o3-pro (image-to-video)",
    ),
    "nothing but noise": ({"notes": ["x" * 1_000_001]}, "it is larger than 1,000,000 bytes"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", LEFT_OUT)
async def test_a_file_that_cannot_be_used_is_left_out_and_said_once(
    name: str, folder: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    changed, said = LEFT_OUT[name]
    path = await anyio.to_thread.run_sync(lambda: put(folder, "mine.json", **changed))
    mine = settings(KLING_MCP_BACKEND="simulator")

    with caplog.at_level(logging.WARNING):
        async with Client(build(mine)) as client:
            found = await client.call_tool("estimate_cost", {})
    assert found.structured_content is not None
    (line,) = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert line.startswith(f"{path} is left out. mine.json: {said}")

    (finding,) = [one for one in await examine(mine) if one.subject == "added"]
    assert (finding.mark, finding.text) == ("note", line)


def test_a_file_without_sense_is_left_out_and_two_for_one_endpoint_are_one(folder: Path) -> None:
    path = put(folder, "b.json")
    (folder / "a.json").write_text("{", encoding="utf-8")
    (folder / "c.json").write_bytes(path.read_bytes())
    (folder / "d.json").mkdir()
    (folder / "notes.txt").write_text("not one of them", encoding="utf-8")

    found = added_endpoints(folder.parent)

    assert [path.name for path, _ in found.files] == ["b.json"]
    assert [line.partition(" is left out. ")[2] for line in found.left_out] == [
        "a.json: not JSON: EOF while parsing an object at line 1 column 1.",
        "c.json: endpoint_id: kling/v4/image-to-video is there already, as kling-v4 (image-to-video).",
    ]
    assert remove(settings(), "kling-v4", "image-to-video") == 0
    assert [path.name for path in sorted(folder.iterdir())] == ["a.json", "d.json", "notes.txt"]


# ---- catalog check


def checked(catalog: Catalog) -> int:
    """The exit code of a check against a fal with *catalog*."""
    with running_in_thread(Simulator(catalog, key=CANARY_KEY, clock=ManualClock())) as urls:
        return check.check(settings(**urls.environment(), FAL_KEY=CANARY_KEY))


def changed(folder: Path, **changes: Any) -> Catalog:
    """The catalog with what is added, as fal.ai might have it one day."""
    catalog = added_endpoints(folder.parent).catalog
    mine = catalog.model("kling-v4")
    return Catalog(tuple(one.model_copy(update=changes) if one is mine else one for one in catalog.endpoints))


def test_check_compares_what_was_added_with_what_would_be_added_today(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adding()
    schema = json.loads(json.dumps(dict(added_endpoints(folder.parent).catalog.model("kling-v4").input_schema)))
    schema["properties"]["resolution"]["enum"].append("4k")
    capsys.readouterr()

    assert checked(changed(folder)) == 0
    assert "kling-v4 image-to-video                  as added\n" in capsys.readouterr().out

    assert checked(changed(folder, input_schema=schema)) == 1
    shown = capsys.readouterr().out
    assert "kling-v4 image-to-video                  1 difference\n  input.resolution.enum\n    - added:   [" in shown
    assert shown.endswith(f"\n1 of {len(load().endpoints) + 1} endpoints differ.\n")

    schema["properties"].pop("start_image_url")
    schema["required"].clear()
    assert checked(changed(folder, input_schema=schema)) == 1
    assert "has no input that could be image" in capsys.readouterr().out


def test_check_says_which_file_is_left_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = put(folder, default=True)

    assert checked(load()) == 1

    assert f"\n{path} is left out. {NAME}: default: an added" in capsys.readouterr().out


# ---- jobs


def server(tmp_path: Path, urls: Any, **environment: str) -> Settings:
    found = settings(
        **urls.environment(),
        KLING_MCP_OUTPUT_DIR=str(tmp_path / "videos"),
        KLING_MCP_CONFIRM="never",
        **environment,
    )
    return replace(found, fal_key=Secret(CANARY_KEY))


@pytest.mark.anyio
async def test_kling_4_goes_from_its_document_to_a_saved_video(folder: Path, tmp_path: Path) -> None:
    assert await anyio.to_thread.run_sync(adding) == 0
    simulator = Simulator(added_endpoints(folder.parent).catalog, speed=100)
    frames = ["https://example.com/2.png", "https://example.com/3.png"]
    wanted: dict[str, Any] = {
        "model": "kling-v4",
        "image": IMAGE,
        "prompt": "A door opens.",
        "duration": 30,
        "middle_image_urls": frames,
        "resolution": "1080p",
    }

    with anyio.fail_after(60):
        async with serving(simulator) as urls, Client(build(server(tmp_path, urls))) as client:
            listed = {tool.name: tool for tool in (await client.list_tools()).tools}
            price = (await client.call_tool("estimate_cost", wanted)).structured_content
            unasked = (await client.call_tool("image_to_video", wanted)).structured_content
            agreed = {**wanted, "max_cost_usd": 9.42, "wait_seconds": 45}
            job = (await client.call_tool("image_to_video", agreed)).structured_content
            shots = {
                "model": "kling-v4",
                "image": IMAGE,
                "shots": [{"prompt": "A door.", "duration": 2}, {"prompt": "A room."}],
                "max_cost_usd": 10,
                "wait_seconds": 45,
            }
            second = (await client.call_tool("multi_shot_video", shots)).structured_content
        assert await anyio.to_thread.run_sync(lambda: remove(settings(), "kling-v4", "image-to-video")) == 0
        async with serving(simulator) as urls, Client(build(server(tmp_path, urls))) as client:
            unknown = await client.call_tool("estimate_cost", {"model": "kling-v4"})
            later = (await client.call_tool("get_job", {"job_id": job["job_id"] if job else ""})).structured_content
            every = (await client.call_tool("list_jobs", {})).structured_content

    assert {"middle_image_urls", "resolution"} <= listed["image_to_video"].input_schema["properties"].keys()
    assert price is not None
    assert (price["estimated_usd"], price["ceiling_usd"], price["asks_first"]) == (4.71, 9.42, True)
    assert any("twice as much is held" in warning for warning in price["warnings"])
    assert unasked is not None
    assert (unasked["state"], unasked["job_id"]) == ("needs_confirmation", None)
    assert "max_cost_usd 9.42" in unasked["next_step"]
    first, other = simulator.accepted
    assert (first.endpoint_id, first.body) == (
        KLING_4_ID,
        {
            "start_image_url": IMAGE,
            "prompt": "A door opens.",
            "duration": 30,
            "middle_image_urls": frames,
            "resolution": "1080p",
        },
    )
    assert other.body == {
        "start_image_url": IMAGE,
        "multi_prompt": [{"prompt": "A door.", "duration": 2}, {"prompt": "A room.", "duration": 5}],
        "duration": 7,
    }
    for done in (job, second):
        assert done is not None
        assert done["state"] == "completed", done["error"]
        assert done["video"]["saved_to"] is not None
        assert done["sound"] is None
    assert unknown.is_error
    assert later is not None
    assert (later["state"], later["model"], later["video"]) == ("completed", "kling-v4", job and job["video"])
    assert every is not None
    assert [one["model"] for one in every["jobs"]] == ["kling-v4", "kling-v4"]


@pytest.mark.parametrize("wanted", [True, False])
def test_sound_cannot_be_chosen_where_fal_says_nothing_of_it(folder: Path, wanted: bool) -> None:
    adding()
    call = {"model": "kling-v4", "image": IMAGE, "prompt": "A door.", "generate_audio": wanted}

    with pytest.raises(InvalidArguments, match=r"kling-v4 may make sound or not, which fal\.ai does not say"):
        plan(added_endpoints(folder.parent).catalog, "image_to_video", call)


@pytest.mark.anyio
async def test_an_endpoint_without_a_price_is_listed_and_does_not_run(folder: Path, tmp_path: Path) -> None:
    assert await anyio.to_thread.run_sync(lambda: adding(price=None)) == 0
    simulator = Simulator(added_endpoints(folder.parent).catalog)

    with anyio.fail_after(60):
        async with serving(simulator) as urls, Client(build(server(tmp_path, urls))) as client:
            listed = (await client.call_tool("list_models", {"model": "kling-v4"})).structured_content
            compared = (await client.call_tool("estimate_cost", {})).structured_content
            call = {"model": "kling-v4", "image": IMAGE, "prompt": "A door.", "max_cost_usd": 10}
            refused = await client.call_tool("image_to_video", call)

    assert listed is not None
    assert listed["endpoint"] == KLING_4_ID
    assert compared is not None
    (mine,) = [one for one in compared["models"] if one["model"] == "kling-v4"]
    assert "No list price is known of kling-v4" in mine["why_not"]
    assert refused.is_error
    assert simulator.accepted == []


def test_the_demo_takes_an_added_model(folder: Path) -> None:
    adding()
    found = added_endpoints(folder.parent)

    film = _film("kling-v4", None, found)

    assert (film.endpoint.model, film.file) == ("kling-v4", folder / NAME)
    assert _film("o3-standard", None, found).file is None
