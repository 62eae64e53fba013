"""The commands for the person who runs it: what they say, what they exit with, and what they leave alone."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from kling_mcp import __version__
from kling_mcp.catalog.models import Catalog, load
from kling_mcp.commands import catalog as check
from kling_mcp.commands.doctor import _first_day, _prices, examine
from kling_mcp.fal.platform import PublishedModel
from kling_mcp.jobs.job import Accepted, Failed, Fault, Finished, Intent, LostTrack, Sending
from kling_mcp.jobs.ledger import Limits
from kling_mcp.jobs.sqlite.engine import SqliteLedger
from kling_mcp.settings import Settings
from kling_mcp.simulator.app import Simulator, Switches
from kling_mcp.simulator.clock import ManualClock
from kling_mcp.simulator.faults import Answer
from kling_mcp.simulator.serve import bind, running_in_thread, urls_of
from tests.conftest import CANARY_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOUR_MS = 3_600_000
NOW_MS = 1_795_255_200_000
"""2026-11-21T10:00:00Z."""


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kling_mcp", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


@pytest.fixture
def fal() -> Iterator[tuple[Simulator, dict[str, str]]]:
    """A simulator that takes the key of the tests, and the settings that lead there."""
    simulator = Simulator(key=CANARY_KEY, clock=ManualClock())
    with running_in_thread(simulator) as urls:
        yield simulator, {**urls.environment(), "FAL_KEY": CANARY_KEY}


def test_the_version_is_the_packages() -> None:
    assert command("--version").stdout == f"kling-mcp {__version__}\n"


def test_a_wrong_setting_stops_the_server_with_one_line() -> None:
    done = command(KLING_MCP_MAX_JOB_USD="lots")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "KLING_MCP_MAX_JOB_USD is 'lots'" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="takes a user id that nobody has")
def test_an_account_without_a_home_folder_is_told_so_in_one_line_and_works_once_every_folder_is_set(
    tmp_path: Path,
) -> None:
    folders = ("KLING_MCP_OUTPUT_DIR", "KLING_MCP_INPUT_DIRS", "KLING_MCP_DATA_DIR")

    def homeless(*arguments: str, folder: str) -> subprocess.CompletedProcess[str]:
        # The real user id has no entry in passwd; the effective one may still read this interpreter's files.
        program = (
            "import os, sys; os.setresuid(54321, 0, 0); from kling_mcp.cli import run; sys.exit(run(sys.argv[1:]))"
        )
        return subprocess.run(
            [sys.executable, "-c", program, *arguments],
            env={**os.environ, "HOME": "", **dict.fromkeys(folders, folder)},
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )

    lost, settled = homeless(folder=""), homeless("jobs", folder=str(tmp_path))

    assert (lost.returncode, lost.stdout, lost.stderr.count("\n")) == (2, "", 1)
    assert all(name in lost.stderr for name in folders)
    assert (settled.returncode, settled.stderr) == (0, "")


def test_a_home_folder_that_the_platform_names_for_pictures_is_said_by_doctor(tmp_path: Path) -> None:
    (tmp_path / "user-dirs.dirs").write_text(f'XDG_PICTURES_DIR="{tmp_path}"\n')

    told = command(
        "doctor",
        HOME=str(tmp_path),
        XDG_CONFIG_HOME=str(tmp_path),
        XDG_PICTURES_DIR=str(tmp_path),
        KLING_MCP_INPUT_DIRS="",
        KLING_MCP_BACKEND="simulator",
    ).stdout

    assert "is not read from: it is or holds the home folder" in " ".join(told.split())


# ---- jobs


def intent(name: str, *, estimate_microusd: int = 560_000) -> Intent:
    return Intent(
        job_id=f"kj_{name:_<22}",
        account="0" * 12,
        fingerprint=name,
        take=1,
        model="v3-turbo-standard",
        endpoint_id="fal-ai/kling-video/v3/turbo/standard/image-to-video",
        arguments={"prompt": "The fox looks up; slow push in, then night falls over the harbour and a light goes on."},
        estimate_microusd=estimate_microusd,
        ceiling_microusd=estimate_microusd,
        basis="5 s",
        video_seconds=5,
        expected_seconds=94,
    )


def ledger(folder: Path) -> SqliteLedger:
    return SqliteLedger(folder, lambda: "an id")


def fill(folder: Path) -> None:
    """Four jobs: completed and saved, failed, unknown, and one in fal's line."""
    book = ledger(folder)
    limits = Limits(job_microusd=10_000_000, day_microusd=25_000_000)
    for age, name in enumerate(("saved", "failed", "unknown", "queued")):
        one = intent(name)
        started_ms = NOW_MS - age * HOUR_MS
        book.reserve(one, limits, "nobody", started_ms)
        book.apply(one.job_id, Sending({}), started_ms)
        if name == "unknown":
            book.apply(one.job_id, LostTrack("the connection broke"), started_ms)
            continue
        book.apply(one.job_id, Accepted(f"request-{name}"), started_ms)
        if name == "saved":
            result = {"video": {"url": "https://v3.fal.media/a.mp4"}}
            book.apply(one.job_id, Finished(result, 504_000), started_ms)
            book.mark_saved(one.job_id, str(folder / "a long folder name" / "2026-11-21_o3-standard_fox.mp4"), None, 1)
        elif name == "failed":
            fault = Fault("content_policy_violation", "fal.ai refused the picture. More words. " * 5, "maybe")
            book.apply(one.job_id, Failed(fault), started_ms)
    book.close()


def test_without_a_ledger_there_are_no_jobs_and_none_is_made(tmp_path: Path) -> None:
    done = command("jobs")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"No jobs yet: there is no ledger in {tmp_path / 'state'}.\n"
    assert not (tmp_path / "state").exists()


def test_the_ledger_is_a_table_of_80_columns_with_paths_below(tmp_path: Path) -> None:
    fill(tmp_path / "state")

    done = command("jobs", HOME=str(tmp_path), USERPROFILE=str(tmp_path), COLUMNS="80")

    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["JOB", "STATE", "MODEL", "VIDEO", "PRICE", "AGE"]
    rows = [line.split()[:7] for line in lines if line.startswith("kj_")]
    assert [(row[1], row[5]) for row in rows] == [
        ("queued", "~$0.56"),
        ("unknown", "~$0.56"),
        ("failed", "~$0.56"),
        ("completed", "$0.50"),
    ]
    assert rows[0][:5] == [intent("queued").job_id, "queued", "v3-turbo-standard", "5", "s"]
    assert "    ~/state/a long folder name/2026-11-21_o3-standard_fox.mp4" in lines
    assert "    content_policy_violation: fal.ai refused the picture" in lines
    assert lines.count(f"    {intent('saved').prompt[:75]}…") == 4
    assert "$10.00" in lines[-1]
    assert max(map(len, lines[:-1])) <= 80


def test_jobs_takes_an_id_of_several_words_and_follows(tmp_path: Path) -> None:
    fill(tmp_path / "state")
    saved = intent("saved").job_id

    page, followed, missing = (
        command("jobs", *words) for words in (("job", "id:", saved), ("--watch", saved), ("kj_nobody",))
    )

    assert (page.returncode, page.stderr, page.stdout.splitlines()[0]) == (0, "", f"Job       {saved}")
    assert (followed.returncode, followed.stderr, followed.stdout.count("\n")) == (0, "", 1)
    assert f"{saved}  completed, $0.50: " in followed.stdout
    assert (missing.returncode, missing.stdout, missing.stderr.count("\n")) == (1, "", 1)


def test_a_ledger_that_is_gone_is_told_and_not_replaced(tmp_path: Path) -> None:
    fill(tmp_path / "state")
    (tmp_path / "state" / "ledger.sqlite3").unlink()

    done = command("jobs")

    assert done.returncode == 1
    assert "is gone or empty, though jobs were recorded in it" in done.stderr
    assert not (tmp_path / "state" / "ledger.sqlite3").exists()


# ---- doctor


def settings(**environment: str) -> Settings:
    return Settings.from_environment({**os.environ, **environment})


def test_a_machine_that_is_ready_has_no_stop(fal: tuple[Simulator, dict[str, str]], tmp_path: Path) -> None:
    fill(tmp_path / "state")
    before = sorted(path.name for path in tmp_path.rglob("*"))

    done = command("doctor", **fal[1])

    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "✓ key       FAL_KEY is set, and fal.ai takes it." in done.stdout
    assert "In state unknown, so perhaps charged: kj_unknown" in " ".join(done.stdout.split())
    assert done.stdout.splitlines()[-2:] == [
        "A job would work. Nothing was spent.",
        f"Do this first: Ask the assistant to resolve job {intent('unknown').job_id}.",
    ]
    assert CANARY_KEY.partition(":")[2] not in done.stdout
    assert not fal[0].accepted
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_a_stop_is_an_exit_code_too() -> None:
    done = command("doctor", KLING_MCP_CONFIRM="sometimes")

    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("Would stop a job\n✗ settings  KLING_MCP_CONFIRM is 'sometimes'")
    assert done.stdout.endswith("\nDo this first: Fix that setting in the server's configuration.\n")


def _file_in_the_way(folder: Path) -> dict[str, str]:
    (folder / "file").touch()
    return {"KLING_MCP_OUTPUT_DIR": str(folder / "file" / "videos")}


def _damaged(folder: Path) -> dict[str, str]:
    fill(folder / "state")
    (folder / "state" / "ledger.sqlite3").write_bytes(b"not a database" * 1000)
    return {}


def _gone(folder: Path) -> dict[str, str]:
    fill(folder / "state")
    (folder / "state" / "ledger.sqlite3").unlink()
    return {}


def _nobody_there(_: Path) -> dict[str, str]:
    listener = bind()
    nowhere = urls_of(listener).environment()
    listener.close()
    return nowhere


STOPS: dict[str, tuple[Callable[[Path], dict[str, str]], str, str]] = {
    "no key": (lambda _: {"FAL_KEY": ""}, "key", "FAL_KEY is not set"),
    "a key that fal does not know": (lambda _: {"FAL_KEY": "another:one"}, "key", "fal.ai"),
    "nobody at fal's addresses": (_nobody_there, "hosts", "could not be reached"),
    "a folder for videos that cannot be made": (_file_in_the_way, "videos", "KLING_MCP_OUTPUT_DIR can name another"),
    "a damaged ledger": (_damaged, "ledger", "damaged"),
    "a ledger that is gone": (_gone, "ledger", "gone or empty"),
    "a day's budget below any price": (
        lambda _: {"KLING_MCP_DAILY_BUDGET_USD": "0.10"},
        "budget",
        "KLING_MCP_DAILY_BUDGET_USD is too low",
    ),
    "a job's limit below any price": (lambda _: {"KLING_MCP_MAX_JOB_USD": "0.1"}, "budget", "KLING_MCP_MAX_JOB_USD"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", STOPS)
async def test_what_would_stop_a_job_is_found(name: str, fal: tuple[Simulator, dict[str, str]], tmp_path: Path) -> None:
    break_it, subject, words = STOPS[name]

    found = await examine(settings(**{**fal[1], **break_it(tmp_path)}))

    stops = [finding for finding in found if finding.mark == "stop"]
    assert {finding.subject for finding in stops} == {subject}
    assert words in stops[0].text
    assert all(stop.remedy and "\n" not in stop.remedy for stop in stops)


NOWHERE = Path(os.sep, "no such folder").absolute()

NOTES: dict[str, tuple[dict[str, str], str, str]] = {
    "the simulator": ({"KLING_MCP_BACKEND": "simulator", "FAL_KEY": ""}, "backend", "It was not started"),
    "videos that are not saved": ({"KLING_MCP_OUTPUT_DIR": "none"}, "videos", "only linked"),
    "no folder for pictures": (
        {"KLING_MCP_INPUT_DIRS": str(NOWHERE)},
        "pictures",
        "https URLs",
    ),
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", NOTES)
async def test_what_is_worth_knowing_stops_nothing(name: str, fal: tuple[Simulator, dict[str, str]]) -> None:
    environment, subject, words = NOTES[name]

    found = {finding.subject: finding for finding in await examine(settings(**{**fal[1], **environment}))}

    assert "stop" not in {finding.mark for finding in found.values()}
    assert found[subject].mark == "note"
    assert words in found[subject].text


@pytest.mark.anyio
async def test_a_busy_fal_does_not_condemn_the_key(fal: tuple[Simulator, dict[str, str]]) -> None:
    simulator, environment = fal
    simulator.faults.add("pricing", Answer(500), times=None)

    found = {finding.subject: finding for finding in await examine(settings(**environment))}

    assert found["key"].mark == "note"


@pytest.mark.parametrize(("days", "mark"), [(0, "ok"), (120, "ok"), (121, "note")])
def test_prices_grow_old(days: int, mark: str) -> None:
    newest = max(price.as_of for endpoint in load().endpoints for price in endpoint.prices)

    found = _prices(_first_day(newest) + timedelta(days=days))

    assert (found.mark, f"from {newest}, {days} days ago" in found.text) == (mark, True)


@pytest.mark.parametrize(
    ("as_of", "first"),
    [("2026", date(2026, 1, 1)), ("2026-08", date(2026, 8, 1)), ("2026-08-19", date(2026, 8, 19))],
)
def test_a_date_without_day_or_month_counts_from_its_first_day(as_of: str, first: date) -> None:
    assert _first_day(as_of) == first


# ---- catalog check


def edited(model: str, edit: Callable[[dict[str, Any]], None]) -> Catalog:
    """The catalog as fal might have it one day: one input schema with a change."""
    endpoint = load().model(model)
    schema = cast("dict[str, Any]", json.loads(json.dumps(dict(endpoint.input_schema))))
    edit(schema)
    others = [one for one in load().endpoints if one is not endpoint]
    return Catalog((*others, endpoint.model_copy(update={"input_schema": schema})))


def checked(catalog: Catalog, sleeps: list[float] | None = None, **switches: Any) -> tuple[int, Simulator]:
    """The exit code of a check against a fal with that catalog; pauses move its clock."""
    simulator = Simulator(catalog, key=CANARY_KEY, clock=(clock := ManualClock()), switches=Switches(**switches))

    async def sleep(seconds: float) -> None:
        clock.advance(seconds)
        if sleeps is not None:
            sleeps.append(seconds)

    with running_in_thread(simulator) as urls:
        return check.check(settings(**urls.environment(), FAL_KEY=CANARY_KEY), sleep), simulator


def test_a_catalog_that_is_fals_is_as_bundled(fal: tuple[Simulator, dict[str, str]]) -> None:
    done = command("catalog", "check", **fal[1])

    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split() for line in lines[: len(load().endpoints)]] == [
        [*filter(None, one.key), "as", "bundled"] for one in load().endpoints
    ]
    assert any(line.startswith("fal.ai's price of a unit: ") and "0.14 USD (seconds)" in line for line in lines)
    assert not fal[0].accepted


def test_a_fal_that_changed_is_an_exit_code_and_a_diff() -> None:
    def longer(schema: dict[str, Any]) -> None:
        schema["properties"]["duration"]["enum"].append("30")

    listener = bind()
    with running_in_thread(Simulator(edited("o3-pro", longer)), listener=listener):
        done = command("catalog", "check", **urls_of(listener).environment())

    assert (done.returncode, done.stderr) == (1, "")
    assert (
        "o3-pro image-to-video                    1 difference\n  input.duration.enum\n    - bundled: [" in done.stdout
    )
    assert '"15", "30"]\n' in done.stdout
    assert "Prices were not compared" in done.stdout
    assert done.stdout.endswith(f"\n1 of {len(load().endpoints)} endpoints differ.\n")


EDITS: dict[str, tuple[Callable[[dict[str, Any]], Any], set[str]]] = {
    "a field more": (
        lambda schema: schema["properties"].update(seed={"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        {"input.seed"},
    ),
    "a field less": (lambda schema: schema["properties"].pop("cfg_scale"), {"input.cfg_scale"}),
    "a field that is now required": (
        lambda schema: schema["required"].append("duration"),
        {"input.duration.required"},
    ),
    "a field that is now optional": (
        lambda schema: schema["required"].clear(),
        {"input.start_image_url.required"},
    ),
    "another default": (
        lambda schema: schema["properties"]["generate_audio"].update(default=False),
        {"input.generate_audio.default"},
    ),
    "another limit": (
        lambda schema: schema["properties"]["cfg_scale"].update(maximum=2),
        {"input.cfg_scale.maximum"},
    ),
    "a limit more": (
        lambda schema: schema["properties"]["multi_prompt"].update(maxItems=6),
        {"input.multi_prompt.maxItems"},
    ),
    "another type": (
        lambda schema: schema["properties"]["duration"].update(type="integer"),
        {"input.duration.type"},
    ),
    "a change inside a list": (
        lambda schema: schema["properties"]["multi_prompt"]["items"]["properties"].update(seed={"type": "integer"}),
        {"input.multi_prompt[].seed"},
    ),
    "null instead of a default": (
        lambda schema: schema["properties"]["end_image_url"].update(default=None),
        set(),
    ),
    "values in another order": (lambda schema: schema["properties"]["duration"]["enum"].reverse(), set()),
    "other words": (lambda schema: schema["properties"]["prompt"].update(description="x", title="y"), set()),
}


@pytest.mark.parametrize("name", EDITS)
def test_each_change_of_a_schema_is_named_by_its_place(name: str) -> None:
    edit, expected = EDITS[name]
    endpoint = load().model("v3-pro")
    schema = copy.deepcopy(json.loads(json.dumps(dict(endpoint.input_schema))))
    edit(schema)

    found = check.differences(endpoint, published(endpoint.model, schema))

    assert {difference.place for difference in found} == expected


def published(model: str, schema: dict[str, Any], status: str = "active") -> PublishedModel:
    endpoint = load().model(model)
    return PublishedModel(endpoint.endpoint_id, status, openapi(schema, dict(endpoint.output_schema)))


def openapi(request: dict[str, Any], result: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A document whose operations name the schemas; one of the others ends as that of the request does."""

    def body(name: str) -> dict[str, Any]:
        return {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}}

    post = {"requestBody": body("KlingVideoInput"), "responses": {"200": body("QueueStatus")}}
    return {
        "components": {"schemas": {"ElementInput": {}, **more, "KlingVideoInput": request, "KlingVideoOutput": result}},
        "paths": {
            "/a/video": {"post": post},
            "/a/video/requests/{request_id}": {"get": {"responses": {"200": body("KlingVideoOutput")}}},
        },
    }


def test_references_and_limits_of_media_are_read_as_fal_writes_them() -> None:
    """The forms of fal's live documents: a component per object, anyOf with null, and x-fal beside a field."""
    endpoint = load().model("v3-pro")
    schema = json.loads(json.dumps(dict(endpoint.input_schema)))
    shot = schema["properties"]["multi_prompt"]["items"]
    schema["properties"]["multi_prompt"] = {
        "anyOf": [{"type": "array", "items": {"$ref": "#/components/schemas/Shot"}}, {"type": "null"}]
    }
    schema["properties"]["start_image_url"]["x-fal"] = {"max_file_size": 10_485_760, "min_width": 400, "timeout": 20.0}
    document = openapi(schema, dict(endpoint.output_schema), Shot=shot)

    found = check.differences(endpoint, PublishedModel(endpoint.endpoint_id, None, document))

    assert found == [check.Difference("input.start_image_url.min_width", "300", "400")]


def test_a_field_that_is_kept_with_a_warning_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    """voice_ids is in the seed of v3-standard and dropped from newer documents."""
    code, _ = checked(edited("v3-standard", lambda schema: schema["properties"].pop("voice_ids")))

    assert code == 0
    shown = capsys.readouterr().out
    assert (
        "v3-standard image-to-video               as bundled\n  input.voice_ids  (known: taken with a warning)\n"
        in shown
    )


def test_an_endpoint_that_fal_cannot_expand_differs(capsys: pytest.CaptureFixture[str]) -> None:
    """fal answers 200 with an error in the schema's place."""
    gone = Catalog(tuple(one for one in load().endpoints if one is not load().model("o1-pro")))

    code, _ = checked(gone)

    assert code == 1
    shown = capsys.readouterr().out
    assert "o1-pro image-to-video                    1 difference\n  endpoint\n" in shown
    assert "    - bundled: fal-ai/kling-video/o1/image-to-video\n" in shown
    assert "publishes no such endpoint" in shown
    assert f"fal.ai names no price for 1 of {len(load().endpoints)} models." in shown


def test_a_deprecated_endpoint_differs() -> None:
    endpoint = load().model("o3-pro")

    found = check.differences(endpoint, published("o3-pro", dict(endpoint.input_schema), status="deprecated"))

    assert found == [check.Difference("status", "active", "deprecated")]


def test_a_rate_limit_is_waited_out(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a key fal refuses for a minute after ten quick calls; the pauses are the simulator's time."""
    sleeps: list[float] = []
    simulator = Simulator(clock=(clock := ManualClock()), switches=Switches(rate_limit_with_key=True))

    async def sleep(seconds: float) -> None:
        clock.advance(seconds)
        sleeps.append(seconds)

    with running_in_thread(simulator) as urls:
        simulator.faults.add("models", Answer(429, {"error": {"type": "rate_limited", "message": "slow"}}), times=7)
        code = check.check(settings(**urls.environment(), FAL_KEY=CANARY_KEY), sleep)

    assert code == 0
    assert "asking again in 15 s" in capsys.readouterr().err
    assert sum(sleeps) >= 45


PRICES = {"0.14": False, "0.07": True, "0.15": True, "0.28": True, "14": True}


@pytest.mark.parametrize("unit_price", PRICES)
def test_a_unit_price_that_the_rates_do_not_fit_differs(unit_price: str, capsys: pytest.CaptureFixture[str]) -> None:
    endpoint = load().model("o3-standard")
    row = {"endpoint_id": endpoint.endpoint_id, "unit_price": float(unit_price), "unit": "seconds", "currency": "USD"}
    simulator = Simulator(key=CANARY_KEY)
    simulator.faults.add("pricing", Answer(200, {"prices": [row], "next_cursor": None, "has_more": False}))

    with running_in_thread(simulator) as urls:
        code = check.check(settings(**urls.environment(), FAL_KEY=CANARY_KEY))

    shown = capsys.readouterr().out
    assert (code == 1) is PRICES[unit_price]
    assert (f"+ fal.ai:  {unit_price} USD for a unit (seconds)" in shown) is PRICES[unit_price]


def test_the_simulator_is_not_fal() -> None:
    done = command("catalog", "check", KLING_MCP_BACKEND="simulator")

    assert (done.returncode, done.stdout) == (2, "")
    assert "catalog check asks fal.ai" in done.stderr


def test_a_fal_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    done = command("catalog", "check", **_nobody_there(tmp_path))

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("kling-mcp: fal_unreachable: ")
    assert done.stderr.count("\n") == 1
