"""
What the documents show is what the program does.

Blocks that are made from the program are compared with it (renewed by
``uv run python -m tests.docs_blocks``), every JSON and TOML block is parsed and
used, and every command is run or taken apart.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import pytest
from mcp.client.client import Client

import kling_mcp
from kling_mcp.catalog.derive import derive
from kling_mcp.catalog.models import load, read_endpoint
from kling_mcp.catalog.plan import plan
from kling_mcp.catalog.pricing import quote
from kling_mcp.cli import run
from kling_mcp.server.app import build
from kling_mcp.settings import Settings
from tests import docs_blocks
from tests.catalog.documents import KLING_4, document
from tests.docs_blocks import README, ROOT, SERVER

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
_FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def fenced(page: Path, language: str) -> list[str]:
    """The blocks of a language on a page, without their indentation."""
    found = _FENCE.findall(page.read_text(encoding="utf-8"))
    return [re.sub(f"^{indent}", "", text, flags=re.MULTILINE) for indent, named, text in found if named == language]


# ---- made from the program


@pytest.mark.parametrize("name", ["links", "models", "tools", "settings"])
def test_a_block_of_the_readme_is_what_the_program_says(name: str) -> None:
    assert docs_blocks.block(name) == docs_blocks.BLOCKS[name]()


def test_the_bundle_lists_the_tools_as_they_are() -> None:
    assert docs_blocks.MANIFEST.read_text(encoding="utf-8") == docs_blocks.manifest()


def test_the_demo_in_the_readme_is_a_run_of_the_demo() -> None:
    shown, played = docs_blocks.block("demo"), docs_blocks.demo()

    assert docs_blocks.same_every_time(shown) == docs_blocks.same_every_time(played)


@pytest.mark.anyio
async def test_the_resources_and_prompts_that_the_pages_name_exist() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    with anyio.fail_after(20):
        async with Client(build(Settings.from_environment({}))) as client:
            tools = (await client.list_tools()).tools
            fixed = {str(resource.uri) for resource in (await client.list_resources()).resources}
            shaped = {one.uri_template for one in (await client.list_resource_templates()).resource_templates}
            prompts = [prompt.name for prompt in (await client.list_prompts()).prompts]

    assert set(re.findall(r"`(kling://[^`]+)`", text)) <= fixed | shaped
    assert f"three prompts help with wording: {', '.join(f'`{name}`' for name in prompts)}." in text
    assert (len(tools), "The assistant gets ten tools" in text, "Ten tools" in text) == (10, True, True)


# ---- for people to paste


def server_in(config: dict[str, Any]) -> dict[str, Any]:
    """What a host's configuration says about this server, whatever the host calls the list."""
    (listed,) = (config[name] for name in ("mcpServers", "servers", "context_servers", "mcp_servers") if name in config)
    return {name: value for name, value in listed["kling"].items() if name in SERVER}


def test_every_configuration_starts_the_same_server() -> None:
    blocks = [json.loads(text) for text in fenced(README, "json")]
    configurations = [server_in(one) for one in blocks if "tool" not in one]
    configurations += [server_in(tomllib.loads(text)) for text in fenced(README, "toml")]

    assert len(configurations) == 5
    for config in configurations:
        assert {**config, "env": set(config["env"])} == {**SERVER, "env": {"FAL_KEY"}}
        assert config["env"]["FAL_KEY"] in {"YOUR_FAL_KEY", "${FAL_KEY}", "${input:fal_key}"}


def test_the_one_click_links_carry_it_too() -> None:
    links = dict(re.findall(r"\[([^]]+)\]\((\S+)\)", docs_blocks.block("links")))
    asked = {host: parse_qs(urlsplit(url).query) for host, url in links.items()}

    for host in ("Cursor", "LM Studio"):
        assert json.loads(base64.b64decode(asked[host]["config"][0])) == SERVER
    for host in ("VS Code", "VS Code Insiders"):
        config, (key,) = json.loads(asked[host]["config"][0]), json.loads(asked[host]["inputs"][0])
        assert (config["command"], config["args"]) == (SERVER["command"], SERVER["args"])
        assert config["env"] == {"FAL_KEY": f"${{input:{key['id']}}}"}
        assert key["password"] is True
    assert [asked["Goose"][name] for name in ("cmd", "arg")] == [["uvx"], ["kling-mcp"]]
    assert {query["name" if "name" in query else "id"][0] for query in asked.values()} <= {"kling", "Kling Video"}


COMMANDS = [line for text in fenced(README, "sh") for part in text.splitlines() for line in part.split(" && ")]

ELSEWHERE = {
    # What these do is done by .ci/run, by the tests that run now, or needs the network.
    "git clone https://github.com/kling-mcp/kling-mcp",
    "cd kling-mcp",
    "pip install uv",
    "uv run kling-mcp demo",
    "uv sync",
    "uv run pytest",
    "uv run ruff check",
    "uv run pyright",
    "uv run lint-imports",
}


def test_every_command_is_known_to_a_test() -> None:
    hosts = [command for command in COMMANDS if command.startswith(("claude ", "codex "))]
    own = [command for command in COMMANDS if command.startswith("uvx kling-mcp ")]

    assert set(COMMANDS) == {*ELSEWHERE, *hosts, *own}
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    for command in ELSEWHERE:
        if command.startswith(("uv run", "uv sync")):
            assert command in script


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith(("claude ", "codex "))])
def test_a_host_is_told_name_key_and_command_in_the_order_that_it_can_read(command: str) -> None:
    """Claude Code's --env takes every word up to the next option: a name behind it would be swallowed."""
    options, server = " ".join(shlex.split(command)).split(" -- ")
    words = options.split()

    assert server.split() == [SERVER["command"], *SERVER["args"]]
    assert words[1:4] == ["mcp", "add", "kling"]
    assert words[-2:] == ["--env", "FAL_KEY=YOUR_FAL_KEY"]


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("uvx kling-mcp ")])
def test_a_command_of_the_readme_exists(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What each does is in tests/test_cli.py; here argparse knows it."""
    with pytest.raises(SystemExit) as ended:
        run([*shlex.split(command)[2:], "--help"])

    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: kling-mcp ")


def test_a_command_that_the_readme_does_not_show_would_be_refused() -> None:
    done = subprocess.run([sys.executable, "-m", "kling_mcp", "render"], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.anyio
async def test_the_first_things_to_say_lead_to_calls_that_work(tmp_path: Path) -> None:
    calls = [one for text in fenced(README, "json") if "tool" in (one := json.loads(text))]
    picture = Path(kling_mcp.__file__).with_name("simulator") / "sample.jpg"
    copy = tmp_path / "fox.jpg"
    copy.write_bytes(picture.read_bytes())
    settings = Settings.from_environment(
        {
            "KLING_MCP_BACKEND": "simulator",
            "KLING_MCP_SIMULATOR_SPEED": "500",
            "KLING_MCP_POLL_SECONDS": "0.05",
            "KLING_MCP_INPUT_DIRS": str(tmp_path),
            "KLING_MCP_OUTPUT_DIR": str(tmp_path / "videos"),
            "KLING_MCP_DATA_DIR": str(tmp_path / "state"),
        }
    )

    answers: list[dict[str, Any]] = []
    with anyio.fail_after(60):
        async with Client(build(settings)) as client:
            for call in calls:
                arguments = json.loads(json.dumps(call["arguments"]).replace("/Users/you/Pictures/fox.jpg", str(copy)))
                result = await client.call_tool(call["tool"], arguments)
                assert not result.is_error, result.content
                answers.append(result.structured_content or {})

    priced, single, several = answers
    assert len(priced["models"]) == len(load().of("image-to-video"))
    assert single["job_id"] != several["job_id"]
    assert {single["state"], several["state"]} <= {"preparing", "submitting", "queued", "running", "completed"}


# ---- pages


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_inside_the_project_leads_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = {target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target}

    for target in targets:
        path, _, anchor = target.partition("#")
        where = (page.parent / path).resolve() if path else page
        assert where.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", where.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}, target


def test_the_walk_through_for_a_new_endpoint_can_be_walked(tmp_path: Path) -> None:
    """The file of the page, in a folder of its own, is listed, priced and planned."""
    _, text = fenced(ROOT / "docs/adding-an-endpoint.md", "json")
    data = json.loads(text)
    (tmp_path / f"{data['model']}.json").write_text(text, encoding="utf-8")

    catalog = load(tmp_path)
    endpoint = catalog.model(data["model"])
    chosen = plan(
        catalog,
        "image_to_video",
        {"model": endpoint.model, "image": "https://example.com/a.png", "prompt": "A boat drifts.", "duration": 10},
    )
    price = quote(endpoint, seconds=chosen.seconds, audio=chosen.audio, voice=chosen.voice)

    assert set(catalog.models) == {*load().models, endpoint.model}
    assert chosen.body == {"image_url": "https://example.com/a.png", "prompt": "A boat drifts.", "duration": "10"}
    assert str(price.estimated_usd) in (ROOT / "docs/adding-an-endpoint.md").read_text(encoding="utf-8")


def test_the_prices_that_the_page_adds_to_kling_4_make_its_price() -> None:
    page = ROOT / "docs/adding-an-endpoint.md"
    edit, _ = fenced(page, "json")
    endpoint_id = "kling/v4/image-to-video"
    found = derive(endpoint_id, document(endpoint_id, KLING_4[endpoint_id]), None, as_of="2026-11-25")
    endpoint = read_endpoint(json.dumps(found.data | json.loads(edit)).encode(), "edited")

    price = quote(endpoint, seconds=30, audio=None, voice=False, tier="1080p")

    assert price.estimated_usd == price.ceiling_usd
    assert not price.needs_max_cost
    assert f"Thirty seconds in 1080p then cost ${price.estimated_usd.normalize():f}" in page.read_text(encoding="utf-8")


def test_the_pages_name_every_state_of_a_job_and_every_setting_of_money() -> None:
    from kling_mcp.jobs.job import STATES

    text = (ROOT / "docs/ledger.md").read_text(encoding="utf-8")

    assert [state for state in STATES if f"`{state}`" not in text] == []
    assert "KLING_MCP_DAILY_BUDGET_USD" in text
