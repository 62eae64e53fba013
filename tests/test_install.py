"""`kling-mcp install` and `uninstall`: one entry in a file that belongs to somebody else."""

from __future__ import annotations

import json
import os
import stat
import tomllib
from difflib import ndiff
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_mcp.commands.install import HOSTS, Machine, install, launch, uninstall
from kling_mcp.commands.json_edit import JsonTextError, parse, remove, set_value
from kling_mcp.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "11111111-2222-3333-4444-555555555555:0123456789abcdef0123456789abcdef"
HOME = Path("/home/ada")
MAC, ROAMING = "Library/Application Support", "AppData/Roaming"
PATHS = {
    "claude-desktop": {
        "darwin": f"{MAC}/Claude/claude_desktop_config.json",
        "win32": f"{ROAMING}/Claude/claude_desktop_config.json",
        "linux": ".config/Claude/claude_desktop_config.json",
    },
    "claude-code": dict.fromkeys(("darwin", "win32", "linux"), ".claude.json"),
    "codex": dict.fromkeys(("darwin", "win32", "linux"), ".codex/config.toml"),
    "cursor": dict.fromkeys(("darwin", "win32", "linux"), ".cursor/mcp.json"),
    "vscode": {
        "darwin": f"{MAC}/Code/User/mcp.json",
        "win32": f"{ROAMING}/Code/User/mcp.json",
        "linux": ".config/Code/User/mcp.json",
    },
    "gemini": dict.fromkeys(("darwin", "win32", "linux"), ".gemini/settings.json"),
    "windsurf": dict.fromkeys(("darwin", "win32", "linux"), ".codeium/windsurf/mcp_config.json"),
    "zed": {
        "darwin": ".config/zed/settings.json",
        "win32": f"{ROAMING}/Zed/settings.json",
        "linux": ".config/zed/settings.json",
    },
    "lm-studio": dict.fromkeys(("darwin", "win32", "linux"), ".lmstudio/mcp.json"),
}
JSON_FILE = """// my settings
{
    "theme": "dark", // as ever
    "SERVERS": {
        /* the first */
        "files": { "command": "files", "args": ["-v",] }, // keep
    },
    "last": [1, 2]
}
"""
TOML_FILE = """# my settings
model = "gpt" # as ever

[mcp_servers.files] # keep
command = "files"

[tui]
theme = "dark"
"""


def machine(home: Path, key: str | None = KEY, ask: Callable[[str], str] | None = None) -> Machine:
    environment = {} if key is None else {"FAL_KEY": key}
    return Machine("linux", home, environment, find={"uvx": "/opt/uv/uvx"}.get, ask=ask)


def file_of(host: str, home: Path) -> tuple[Path, str]:
    """Where *host* has its servers, with a file of somebody in it, and what that file says."""
    path = machine(home).path(HOSTS[host])
    path.parent.mkdir(parents=True, exist_ok=True)
    text = TOML_FILE if path.suffix == ".toml" else JSON_FILE.replace("SERVERS", HOSTS[host].servers)
    path.write_bytes(text.encode())
    return path, text


def read(path: Path) -> Any:
    text = path.read_bytes().decode()
    return tomllib.loads(text) if path.suffix == ".toml" else parse(text)


def test_the_hosts_are_those_of_the_table() -> None:
    assert list(HOSTS) == list(PATHS)


@pytest.mark.parametrize("platform", ["darwin", "win32", "linux"])
@pytest.mark.parametrize("host", PATHS)
def test_a_host_has_its_file_where_its_documentation_says(host: str, platform: str) -> None:
    at = Machine(platform, HOME, {})

    assert at.path(HOSTS[host]) == HOME / PATHS[host][platform]


@pytest.mark.parametrize(
    ("found", "command"),
    [
        ({"uvx": "/opt/uv/uvx", "kling-mcp": "/bin/kling-mcp"}, ("/opt/uv/uvx", ["kling-mcp"])),
        ({"kling-mcp": "/bin/kling-mcp"}, ("/bin/kling-mcp", [])),
        ({}, ("/env/python", ["-m", "kling_mcp"])),
    ],
)
def test_the_command_has_its_whole_path(found: dict[str, str], command: tuple[str, list[str]]) -> None:
    assert launch(Machine("linux", HOME, {}, find=found.get, python="/env/python")) == command


def test_a_folder_that_the_environment_names_comes_first() -> None:
    environment = {"APPDATA": "/roaming", "CODEX_HOME": "/elsewhere", "CLAUDE_CONFIG_DIR": "/claude"}
    at = Machine("win32", HOME, environment)

    assert at.path(HOSTS["zed"]) == Path("/roaming/Zed/settings.json")
    assert at.path(HOSTS["codex"]) == Path("/elsewhere/config.toml")
    assert at.path(HOSTS["claude-code"]) == Path("/claude/.claude.json")


@pytest.mark.parametrize("host", PATHS)
def test_the_entry_is_all_that_changes_and_can_be_taken_out_again(
    host: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, text = file_of(host, tmp_path)

    assert install(host, machine(tmp_path)) == 0

    now = path.read_text()
    entry = read(path)[HOSTS[host].servers]["kling"]
    assert (entry["command"], entry["args"]) == ("/opt/uv/uvx", ["kling-mcp"])
    expected_key = "${input:fal_key}" if host == "vscode" else KEY
    assert entry["env"] == {"FAL_KEY": expected_key}
    gone = [line for line in ndiff(text.splitlines(), now.splitlines()) if line.startswith("- ")]
    # VS Code's question is a new last member, so the one before it gets a comma.
    assert gone == (['-     "last": [1, 2]'] if host == "vscode" else [])
    assert path.with_name(f"{path.name}.before-kling-mcp").read_text() == text
    assert KEY not in capsys.readouterr().out

    assert install(host, machine(tmp_path)) == 0
    assert path.read_text() == now
    assert "as it should be" in capsys.readouterr().out

    assert uninstall(host, machine(tmp_path)) == 0
    after = path.read_text()
    expected = text if host != "vscode" else text.replace("[1, 2]", '[1, 2],\n    "inputs": []')
    assert after == expected
    assert KEY not in capsys.readouterr().out


@pytest.mark.parametrize("host", PATHS)
def test_a_host_without_a_file_gets_one_that_only_its_user_can_read(host: str, tmp_path: Path) -> None:
    path = machine(tmp_path).path(HOSTS[host])

    install(host, machine(tmp_path))

    assert list(read(path)[HOSTS[host].servers]) == ["kling"]
    assert os.name == "nt" or stat.S_IMODE(path.stat().st_mode) == 0o600


def test_print_shows_the_change_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, text = file_of("claude-desktop", tmp_path)

    assert install("claude-desktop", machine(tmp_path), only_print=True) == 0

    assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]
    assert '"FAL_KEY": "YOUR_FAL_KEY"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("host", "reference"),
    [
        ("claude-code", {"env": {"FAL_KEY": "${FAL_KEY}"}}),
        ("codex", {"env_vars": ["FAL_KEY"]}),
        ("gemini", {"env": {"FAL_KEY": "$FAL_KEY"}}),
        ("windsurf", {"env": {"FAL_KEY": "${env:FAL_KEY}"}}),
        ("vscode", {"env": {"FAL_KEY": "${input:fal_key}"}}),
    ],
)
@pytest.mark.parametrize("way", ["asked for", "nobody to ask", "no answer"])
def test_a_host_that_fills_the_key_in_needs_none_in_its_file(
    host: str, reference: dict[str, object], way: str, tmp_path: Path
) -> None:
    at = machine(tmp_path, KEY if way == "asked for" else None, ask=(lambda _: "") if way == "no answer" else None)

    install(host, at, reference=way == "asked for")

    entry = read(at.path(HOSTS[host]))[HOSTS[host].servers]["kling"]
    assert reference.items() <= entry.items()
    assert KEY not in at.path(HOSTS[host]).read_text()


def test_the_key_is_asked_for_and_cleaned_of_what_was_pasted_with_it(tmp_path: Path) -> None:
    at = machine(tmp_path, None, ask=lambda _: f' export FAL_KEY="{KEY}" ')

    install("cursor", at)

    assert read(at.path(HOSTS["cursor"]))["mcpServers"]["kling"]["env"] == {"FAL_KEY": KEY}


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    dotfiles = tmp_path / "dotfiles.json"
    dotfiles.write_text("{}")
    path = machine(tmp_path).path(HOSTS["cursor"])
    path.parent.mkdir()
    path.symlink_to(dotfiles)

    install("cursor", machine(tmp_path))

    assert path.is_symlink()
    assert "kling" in parse(dotfiles.read_text())["mcpServers"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("host", "content", "what"),
    [
        ("cursor", b'{"mcpServers": {', "line 1: not JSON"),
        ("cursor", b'{\n"a": 1\n"b": 2}', "line 3: not JSON"),
        ("cursor", b'{"a": 1} {}', "line 1: not JSON"),
        ("cursor", b'{\n"mcpServers": []}', "line 2: mcpServers is no object"),
        ("cursor", b"[]", "line 1: the file is no object"),
        ("cursor", b'{"a": "\xff"}', "cannot be read"),
        ("cursor", b"[" * 100_000, "nested"),
        ("codex", b"a = ", "Nothing was changed"),
        ("codex", b"mcp_servers = 1\n", "mcp_servers is no table"),
    ],
)
def test_a_file_that_is_not_understood_is_left_alone(host: str, content: bytes, what: str, tmp_path: Path) -> None:
    path, _ = file_of(host, tmp_path)
    path.write_bytes(content)

    with pytest.raises(SettingsError, match=what):
        install(host, machine(tmp_path))

    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("host", "key", "what"),
    [
        ("cursor", None, "no key to put into the file"),
        ("cursor", "sk-ant-1234567890", "a key of Anthropic"),
        ("claude-code", "YOUR_FAL_KEY", "an example"),
    ],
)
def test_without_a_key_of_fal_nothing_is_written(host: str, key: str | None, what: str, tmp_path: Path) -> None:
    path, text = file_of(host, tmp_path)

    with pytest.raises(SettingsError, match=what):
        install(host, machine(tmp_path, key))

    assert path.read_text() == text


def test_where_there_is_nothing_uninstall_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, text = file_of("codex", tmp_path)

    assert uninstall("codex", machine(tmp_path)) == 0
    assert uninstall("zed", machine(tmp_path)) == 0

    assert path.read_text() == text
    assert capsys.readouterr().out.count("has no kling-mcp") == 2


# ---- the text of a JSON file, made up

blanks = st.sampled_from(["", " ", "\n", "\n\n    ", "\t", " // note, {\n", " /* , */ ", "\r\n  "])
names = st.text('abc "\\é', max_size=3).filter(lambda name: name != "new")
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def texts(draw: st.DrawFn, value: object) -> str:
    """*value* as somebody could have written it."""

    def space() -> str:
        return draw(blanks)

    if isinstance(value, dict):
        members = [
            f"{space()}{json.dumps(name)}{space()}:{space()}{draw(texts(member))}{space()}"
            for name, member in value.items()
        ]
        return "{" + ",".join(members) + (("," if draw(st.booleans()) else "") if members else "") + space() + "}"
    if isinstance(value, list):
        members = [f"{space()}{draw(texts(member))}{space()}" for member in value]
        return "[" + ",".join(members) + (("," if draw(st.booleans()) else "") if members else "") + space() + "]"
    return json.dumps(value)


def comments(text: str) -> list[str]:
    return [word for word in ("// note, {", "/* , */") for _ in range(text.count(word))]


@given(st.data())
def test_whatever_the_text_only_the_entry_changes(data: st.DataObject) -> None:
    whole = data.draw(st.dictionaries(names, values, max_size=3))
    whole["servers"] = data.draw(st.dictionaries(names, values, max_size=3))
    text = data.draw(blanks) + data.draw(texts(whole)) + data.draw(blanks)
    entry = {"command": "uvx", "args": ["kling-mcp"]}

    with_it = set_value(text, ["servers", "new"], entry)
    without_it = remove(with_it, ["servers", "new"])

    assert parse(with_it) == {**whole, "servers": {**whole["servers"], "new": entry}}
    assert parse(without_it) == whole
    assert comments(with_it) == comments(without_it) == comments(text)
    assert set_value(with_it, ["servers", "new"], entry) == with_it
    assert remove(text, ["servers", "new"]) == text


def test_a_value_in_the_place_of_an_object_is_told_with_its_line() -> None:
    with pytest.raises(JsonTextError, match="line 2: a is no object"):
        set_value('{\n"a": 1}', ["a", "b"], 2)
