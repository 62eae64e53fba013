"""
Claude Code and Codex as they are installed from npm, with a model that is written beforehand.

Each buys a video of $2.10 from the simulator. Run by a program, they answer the question about the price by
themselves; in a terminal, their users are asked.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kling_mcp.commands.install import Machine, install, uninstall
from tests.hosts.models import END, Model, answering
from tests.hosts.screen import TMUX, screen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PROGRAMS = Path(__file__).parent / "node_modules" / ".bin"
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        sys.platform == "win32" or not all((PROGRAMS / name).exists() for name in ("claude", "codex")),
        reason="Claude Code and Codex are not installed: tests/hosts/install.sh brings them",
    ),
]
needs_tmux = pytest.mark.skipif(TMUX is None, reason="tmux, which shows a terminal to a test, is not installed")

CALL = {"image": "https://pictures.example.com/boat.png", "prompt": "The boat drifts.", "model": "o3-4k", "duration": 5}
NO = "The user was asked about $2.10 and said no. Nothing was charged."
UNDECIDED = "The user was asked about $2.10 and did not decide. Nothing was charged."
PRICE = "Make a 5 s Kling video with o3-4k for $2.10?"


@dataclass(frozen=True)
class InstalledHost:
    """A host in a home of its own: what starts it, alone and in a terminal, and where its server keeps its jobs."""

    alone: Sequence[str]
    in_a_terminal: Sequence[str]
    env: Mapping[str, str]
    work: Path
    server: Mapping[str, str]

    def jobs(self) -> str:
        """The ledger, as `kling-mcp jobs` shows it."""
        return subprocess.run(
            [sys.executable, "-m", "kling_mcp", "jobs"],
            env={**os.environ, **self.server},
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=True,
        ).stdout


def host(name: str, url: str, folder: Path) -> InstalledHost:
    server = {
        "KLING_MCP_BACKEND": "simulator",
        "KLING_MCP_SIMULATOR_SPEED": "200",
        "KLING_MCP_POLL_SECONDS": "0.05",
        "KLING_MCP_DATA_DIR": str(folder / "state"),
        "KLING_MCP_OUTPUT_DIR": str(folder / "videos"),
    }
    work = folder / "work"
    work.mkdir()
    env = {"HOME": str(folder), "PATH": os.environ["PATH"], "TERM": "xterm-256color", "LANG": "C.UTF-8"}
    return (_claude if name == "claude" else _codex)(url, folder, work, env, server)


def _claude(url: str, folder: Path, work: Path, env: dict[str, str], server: dict[str, str]) -> InstalledHost:
    key = "no-key-but-a-text-that-is-long-enough"
    servers = folder / "servers.json"
    kling = {"command": sys.executable, "args": ["-m", "kling_mcp"], "env": server}
    servers.write_text(json.dumps({"mcpServers": {"kling": kling}}), encoding="utf-8")
    # What the first start asks: the theme, the key, and whether the folder is trusted.
    answered = {
        "hasCompletedOnboarding": True,
        "theme": "dark",
        "customApiKeyResponses": {"approved": [key[-20:]], "rejected": []},
        "projects": {str(work): {"hasTrustDialogAccepted": True}},
    }
    (folder / ".claude.json").write_text(json.dumps(answered), encoding="utf-8")
    command = [str(PROGRAMS / "claude"), "--mcp-config", str(servers), "--strict-mcp-config"]
    command += ["--allowedTools", "mcp__kling"]
    env |= {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": key, "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}
    # Every tool by its name.
    env |= {"ENABLE_TOOL_SEARCH": "0"}
    return InstalledHost([*command, "-p", "Make it."], command, env, work, server)


def _codex(url: str, folder: Path, work: Path, env: dict[str, str], server: dict[str, str]) -> InstalledHost:
    home = folder / ".codex"
    home.mkdir()
    settings = [
        'model = "scripted"',
        'model_provider = "scripted"',
        "check_for_update_on_startup = false",
        "[analytics]",
        "enabled = false",
        # The daemon would outlive the test, and looks for updates.
        "[features]",
        "daemon_auto_start = false",
        "in_app_updates = false",
        "[model_providers.scripted]",
        'name = "scripted"',
        f"base_url = {json.dumps(url + '/v1')}",
        'wire_api = "responses"',
        "[mcp_servers.kling]",
        f"command = {json.dumps(sys.executable)}",
        'args = ["-m", "kling_mcp"]',
        "required = true",
        # Without it Codex refuses, when nobody can be asked, every tool that does more than read.
        'default_tools_approval_mode = "approve"',
        "[mcp_servers.kling.env]",
        *(f"{name} = {json.dumps(value)}" for name, value in server.items()),
        f"[projects.{json.dumps(str(work))}]",
        'trust_level = "trusted"',
    ]
    (home / "config.toml").write_text("\n".join(settings) + "\n", encoding="utf-8")
    program = str(PROGRAMS / "codex")
    alone = [program, "exec", "--skip-git-repo-check", "Make it."]
    return InstalledHost(alone, [program, "--no-daemon"], env | {"CODEX_HOME": str(home)}, work, server)


def run_alone(name: str, folder: Path, *calls: tuple[str, dict[str, Any]]) -> tuple[list[str], str]:
    """What the tools told the model that makes *calls* where nobody can be asked, and the ledger afterwards."""
    model = Model(calls)
    with answering(model) as url:
        place = host(name, url, folder)
        done = subprocess.run(
            place.alone,
            cwd=place.work,
            env=dict(place.env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=120,
            check=False,
        )
    assert (done.returncode, END in done.stdout) == (0, True), done.stdout + done.stderr
    return model.told, place.jobs()


both = pytest.mark.parametrize("name", ["claude", "codex"])


@both
def test_a_host_that_answers_the_question_by_itself_buys_with_the_users_amount(name: str, tmp_path: Path) -> None:
    bought = {**CALL, "max_cost_usd": 2.10, "wait_seconds": 45}
    (asked, made, listed), jobs = run_alone(
        name, tmp_path, ("image_to_video", CALL), ("image_to_video", bought), ("list_jobs", {})
    )

    assert "needs_confirmation" in asked
    assert "answered the question about the price by itself" in asked
    assert "call again with the same arguments and max_cost_usd 2.10" in asked
    assert "completed" in made
    assert listed.count("kj_") == 1
    assert jobs.count("kj_") == 1
    assert len(list((tmp_path / "videos").glob("*.mp4"))) == 1


@both
def test_a_host_that_answers_the_question_by_itself_buys_nothing_without_the_whole_amount(
    name: str, tmp_path: Path
) -> None:
    """
    With no amount, with one below the price, and with one that was agreed for a shorter video.
    """
    told, jobs = run_alone(
        name,
        tmp_path,
        ("image_to_video", CALL),
        ("image_to_video", {**CALL, "max_cost_usd": 2.09}),
        ("image_to_video", {**CALL, "duration": 10, "max_cost_usd": 2.10}),
    )

    assert [("needs_confirmation" in text, "kj_" in text) for text in told] == [(True, False)] * 3
    assert "kj_" not in jobs


@needs_tmux
@pytest.mark.parametrize(
    ("name", "keys", "jobs", "told"),
    [
        ("claude", ["Enter"], 1, "kj_"),
        ("claude", ["Right", "Enter"], 0, NO),
        ("claude", ["Escape"], 0, UNDECIDED),
        ("codex", ["Enter"], 1, "kj_"),
        ("codex", ["Down", "Enter"], 0, NO),
        ("codex", ["Down", "Down", "Enter"], 0, UNDECIDED),
        ("codex", ["Escape"], 0, UNDECIDED),
    ],
)
def test_the_word_of_the_user_decides_in_a_terminal(
    name: str, keys: list[str], jobs: int, told: str, tmp_path: Path
) -> None:
    model = Model([("image_to_video", CALL)])
    with answering(model) as url:
        place = host(name, url, tmp_path)
        with screen(place.in_a_terminal, env=place.env, cwd=place.work, folder=tmp_path) as shown:
            shown.until("auto mode on" if name == "claude" else "Ask Codex")
            asked = ""
            while asked != PRICE:
                without = f"There is no such tool, time {model.turns_without + 1}."
                shown.type("-l", "Make it.")
                # Keys in one burst are a text that is pasted.
                shown.until("Make it.")
                shown.type("Enter")
                asked = shown.until(PRICE, without)
            shown.read_by_a_person()
            for key in keys:
                shown.type(key)
            shown.until(END)

    assert told in model.told[0].replace("\\", "")
    assert place.jobs().count("kj_") == jobs


@pytest.mark.parametrize(
    ("name", "command", "shown"),
    [
        ("claude-code", ["claude", "mcp", "list"], "kling: .* Connected"),
        ("codex", ["codex", "mcp", "list"], r"kling +\S*python\S* +-m kling_mcp +FAL_KEY=\*+ +- +enabled"),
    ],
)
def test_what_install_writes_is_what_the_program_reads(
    name: str, command: list[str], shown: str, tmp_path: Path
) -> None:
    key = "11111111-2222-3333-4444-555555555555:0123456789abcdef0123456789abcdef"
    install(name, Machine(sys.platform, tmp_path, {"FAL_KEY": key}, find=lambda _: None))

    def says() -> str:
        done = subprocess.run(
            [str(PROGRAMS / command[0]), *command[1:]],
            env={"HOME": str(tmp_path), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
            cwd=tmp_path,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=True,
        )
        return done.stdout

    assert re.search(shown, says())
    uninstall(name, Machine(sys.platform, tmp_path, {}))
    assert "kling" not in says()
