"""
``kling-mcp install HOST``: this server as an entry in the configuration of an assistant.

Everything about a host is a row of `HOSTS`. The change is made in the text of
the file, shown before it is written, and believed only if the parsed file
differs in nothing but the entry.
"""

from __future__ import annotations

import difflib
import getpass
import itertools
import os
import re
import secrets
import shutil
import stat
import sys
import tomllib
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from kling_mcp.commands import json_edit
from kling_mcp.errors import SettingsError
from kling_mcp.json_types import is_object, items_of, members_of
from kling_mcp.keys import plain_key

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

__all__ = ["HOSTS", "Host", "Machine", "install", "launch", "uninstall"]

Entry: TypeAlias = dict[str, object]

NAME: Final = "kling"
_KEY_HERE: Final = "YOUR_FAL_KEY"
_KEY_IN_FILE: Final = re.compile(r"""(FAL_KEY["']?\s*[:=]\s*["'])([^"'$]+)""")


@dataclass(frozen=True)
class Host:
    """
    A program that starts MCP servers, and where it reads which.

    Args:
        title: Its name, for people.
        paths: Its file per platform, after ``~`` or a variable such as ``%APPDATA%``; ``""`` stands for all others.
        folder_variable: An environment variable that names the folder of the file.
        servers: Where the servers stand in the file.
        extra: What an entry says besides command, arguments and environment.
        reference: What an entry says in place of the key where the host itself has it, in its environment or its store.
        stored: Whether the host asks for the key and keeps it.
        next_step: What makes the host read the file.
    """

    title: str
    paths: Mapping[str, str]
    servers: str = "mcpServers"
    folder_variable: str | None = None
    extra: Mapping[str, object] = field(default_factory=dict[str, object])
    reference: Mapping[str, object] | None = None
    stored: bool = False
    next_step: str = "Restart it."


HOSTS: Final[Mapping[str, Host]] = {
    # https://modelcontextprotocol.io/docs/develop/connect-local-servers
    "claude-desktop": Host(
        "Claude Desktop",
        {
            "darwin": "~/Library/Application Support/Claude/claude_desktop_config.json",
            "win32": "%APPDATA%/Claude/claude_desktop_config.json",
            "": "~/.config/Claude/claude_desktop_config.json",
        },
        next_step="Quit Claude Desktop and start it again.",
    ),
    # https://code.claude.com/docs/en/mcp
    "claude-code": Host(
        "Claude Code",
        {"": "~/.claude.json"},
        folder_variable="CLAUDE_CONFIG_DIR",
        extra={"type": "stdio"},
        reference={"env": {"FAL_KEY": "${FAL_KEY}"}},
        next_step="Start a new session; /mcp shows the server.",
    ),
    # https://developers.openai.com/codex/mcp: its first turn waits only for a server that is required.
    "codex": Host(
        "Codex",
        {"": "~/.codex/config.toml"},
        servers="mcp_servers",
        folder_variable="CODEX_HOME",
        extra={"required": True, "startup_timeout_sec": 60},
        reference={"env_vars": ["FAL_KEY"]},
        next_step="Start a new session; /mcp shows the server.",
    ),
    # https://cursor.com/docs/context/mcp
    "cursor": Host("Cursor", {"": "~/.cursor/mcp.json"}, next_step="Switch the server on in Settings, MCP."),
    # https://code.visualstudio.com/docs/copilot/chat/mcp-servers
    "vscode": Host(
        "VS Code",
        {
            "darwin": "~/Library/Application Support/Code/User/mcp.json",
            "win32": "%APPDATA%/Code/User/mcp.json",
            "": "~/.config/Code/User/mcp.json",
        },
        servers="servers",
        extra={"type": "stdio"},
        reference={"env": {"FAL_KEY": "${input:fal_key}"}},
        stored=True,
        next_step="Run “MCP: List Servers” and start kling; VS Code asks for the key once and keeps it.",
    ),
    # https://google-gemini.github.io/gemini-cli/docs/tools/mcp-server.html
    "gemini": Host(
        "Gemini CLI",
        {"": "~/.gemini/settings.json"},
        reference={"env": {"FAL_KEY": "$FAL_KEY"}},
        next_step="Start a new session.",
    ),
    # https://docs.windsurf.com/windsurf/cascade/mcp
    "windsurf": Host(
        "Windsurf",
        {"": "~/.codeium/windsurf/mcp_config.json"},
        reference={"env": {"FAL_KEY": "${env:FAL_KEY}"}},
        next_step="Press the refresh button of Cascade's MCP list.",
    ),
    # https://zed.dev/docs/ai/mcp
    "zed": Host(
        "Zed",
        {"win32": "%APPDATA%/Zed/settings.json", "": "~/.config/zed/settings.json"},
        servers="context_servers",
        next_step="Zed starts the server by itself.",
    ),
    # https://lmstudio.ai/docs/app/mcp
    "lm-studio": Host("LM Studio", {"": "~/.lmstudio/mcp.json"}, next_step="Switch the server on in the Program tab."),
}

_ASKED: Final[Entry] = {
    "type": "promptString",
    "id": "fal_key",
    "description": "fal.ai key (https://fal.ai/dashboard/keys)",
    "password": True,
}


@dataclass(frozen=True)
class Machine:
    """What of a machine an installation depends on."""

    platform: str
    home: Path
    environment: Mapping[str, str]
    find: Callable[[str], str | None] = shutil.which
    python: str = sys.executable
    ask: Callable[[str], str] | None = None
    """Asks a person for something that is not shown; None where nobody is there."""

    @classmethod
    def this(cls) -> Machine:
        """The machine that this program runs on."""
        ask = getpass.getpass if sys.stdin is not None and sys.stdin.isatty() else None
        return cls(sys.platform, Path.home(), os.environ, ask=ask)

    def path(self, host: Host) -> Path:
        """The file that *host* reads."""
        named = host.paths.get(self.platform, host.paths[""])
        folder = self.environment.get(host.folder_variable, "") if host.folder_variable else ""
        if folder:
            return Path(folder) / PurePosixPath(named).name
        start, _, rest = named.partition("/")
        if start == "~":
            return self.home / rest
        base = self.environment.get(start.strip("%"), "")
        return (Path(base) if base else self.home / "AppData" / "Roaming") / rest


def launch(machine: Machine) -> tuple[str, list[str]]:
    """
    The command that starts the server, with its arguments.

    The path is whole: a host with windows is often started without the user's PATH.
    """
    uvx = machine.find("uvx")
    if uvx is not None:
        return uvx, ["kling-mcp"]
    here = machine.find("kling-mcp")
    return (here, []) if here is not None else (machine.python, ["-m", "kling_mcp"])


def install(name: str, machine: Machine, *, only_print: bool = False, reference: bool = False) -> int:
    """
    Write this server into the configuration of the host *name*, or show what would be written.

    Args:
        reference: Whether the host reads the key from its environment, where it can, instead of the file.

    Raises:
        SettingsError: The file or the key cannot be used; nothing was changed.
    """
    host = HOSTS[name]
    path = machine.path(host)
    before = _text_of(path)
    key = _KEY_HERE if only_print else _key(host, machine, reference=reference)
    if host.reference is not None and (host.stored or reference or key is None):
        key, secret = None, host.reference
    else:
        secret = {"env": {"FAL_KEY": key}}
    command, arguments = launch(machine)
    entry: Entry = {**host.extra, "command": command, "args": arguments, **secret}
    with _naming(path):
        after = _toml_with(before, host, entry) if path.suffix == ".toml" else _json_with(before, host, entry)
        _check(path, before, after, host)
    _show(path, before, after)
    if only_print or before == after:
        return 0
    _write(path, before, after)
    print(f"\n{host.title} has kling-mcp now. {host.next_step}")
    if key is None and not host.stored:
        print(f"It takes the key from the variable FAL_KEY of the environment that {host.title} is started in.")
    return 0


def uninstall(name: str, machine: Machine) -> int:
    """
    Take this server out of the configuration of the host *name*.

    Raises:
        SettingsError: The file cannot be used; nothing was changed.
    """
    host = HOSTS[name]
    path = machine.path(host)
    before = _text_of(path)
    if not before.strip():
        after = before
    else:
        with _naming(path):
            after = _toml_without(before, host) if path.suffix == ".toml" else _json_without(before, host)
            _check(path, before, after, host)
    if before == after:
        print(f"{path} has no kling-mcp.")
        return 0
    _show(path, before, after)
    _write(path, before, after)
    print(f"\nkling-mcp is out of {host.title}. It ends when {host.title} does.")
    return 0


def _key(host: Host, machine: Machine, *, reference: bool) -> str | None:
    """The key that is written into the file; None where the host has it from elsewhere."""
    if host.stored or (reference and host.reference is not None):
        return None
    if reference:
        raise SettingsError(f"{host.title} takes no key from its environment; without --key-from-environment it works.")
    given = machine.environment.get("FAL_KEY", "")
    if not given and machine.ask is not None:
        empty = " Empty: from the variable FAL_KEY, each time." if host.reference is not None else ""
        print(f"fal.ai key, from https://fal.ai/dashboard/keys; what you type is not shown.{empty}")
        try:
            given = machine.ask("FAL_KEY: ")
        except (EOFError, KeyboardInterrupt):
            raise SettingsError("No key was given. Nothing was changed.") from None
    key = plain_key(given)
    if key is None and host.reference is None:
        raise SettingsError("FAL_KEY is not set, and there was no key to put into the file.")
    return key


@contextmanager
def _naming(path: Path) -> Generator[None]:
    """Trouble with the text of a file names the file."""
    try:
        yield
    except (json_edit.JsonTextError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: {error}. Nothing was changed.") from None


def _text_of(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}. Nothing was changed.") from None


def _json_with(text: str, host: Host, entry: Entry) -> str:
    text = json_edit.set_value(text, [host.servers, NAME], entry)
    if not host.stored or _input_of(text) is not None:
        return text
    has_list = isinstance(members_of(json_edit.parse(text)).get("inputs"), list)
    return json_edit.set_value(text, ["inputs", "-"] if has_list else ["inputs"], _ASKED if has_list else [_ASKED])


def _json_without(text: str, host: Host) -> str:
    text = json_edit.remove(text, [host.servers, NAME])
    place = _input_of(text)
    if not host.stored or place is None or "${input:fal_key}" in text:
        return text
    return json_edit.remove(text, ["inputs", place])


def _input_of(text: str) -> str | None:
    """The number of the question for the key among the inputs of VS Code."""
    numbered = enumerate(items_of(members_of(json_edit.parse(text)).get("inputs")))
    return next((str(number) for number, asked in numbered if members_of(asked).get("id") == _ASKED["id"]), None)


def _toml_with(text: str, host: Host, entry: Entry) -> str:
    import tomlkit

    if not isinstance(tomllib.loads(text).get(host.servers, {}), dict):
        raise tomllib.TOMLDecodeError(f"{host.servers} is no table")
    document = tomlkit.parse(text)
    servers = document.setdefault(host.servers, tomlkit.table(is_super_table=True))
    table = tomlkit.table()
    for name, value in entry.items():
        table[name] = value
        if is_object(value):
            table[name] = inline = tomlkit.inline_table()
            for inner, text_of_it in value.items():
                inline[inner] = text_of_it
    servers[NAME] = table
    return tomlkit.dumps(document)


def _toml_without(text: str, host: Host) -> str:
    import tomlkit

    if NAME not in members_of(tomllib.loads(text).get(host.servers)):
        return text
    document = tomlkit.parse(text)
    servers = cast("dict[str, object]", document[host.servers])
    del servers[NAME]
    if not servers:
        del document[host.servers]
    return tomlkit.dumps(document)


def _check(path: Path, before: str, after: str, host: Host) -> None:
    """
    See that this server is all that the file differs in.

    Raises:
        SettingsError: It does; the text was not understood.
    """
    read = tomllib.loads if path.suffix == ".toml" else json_edit.parse
    was, now = (_without_ours(read(text) if text.strip() else {}, host) for text in (before, after))
    if was != now:
        raise SettingsError(
            f"{path} has a form that this command does not know. Nothing was changed; --print shows what to add."
        )


def _without_ours(parsed: object, host: Host) -> Mapping[str, object]:
    others = dict(members_of(parsed))
    others[host.servers] = {name: entry for name, entry in members_of(others.get(host.servers)).items() if name != NAME}
    if host.stored:
        asked = items_of(others.get("inputs"))
        others["inputs"] = [one for one in asked if members_of(one).get("id") != _ASKED["id"]]
    return others


def _show(path: Path, before: str, after: str) -> None:
    """Print what changes, without the key: neither the new one nor one that was there."""
    print(path)
    if before == after:
        print("  is as it should be.")
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=2)
    for line in list(lines)[2:]:
        print(f"  {_KEY_IN_FILE.sub(_shown, line)}")


def _shown(found: re.Match[str]) -> str:
    named, key = found.groups()
    return found[0] if key == _KEY_HERE else f"{named}{key[:4]}…"


def _write(path: Path, before: str, after: str) -> None:
    """
    Replace the file in one step, after a copy of it; a link stays a link.

    Raises:
        SettingsError: It cannot be written; it is as it was.
    """
    try:
        target = path.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o600
        if target.exists():
            copy = _free(target.with_name(f"{target.name}.before-kling-mcp"))
            shutil.copy2(target, copy)
            held = " (it holds the key)" if _KEY_IN_FILE.search(before) else ""
            print(f"\nThe file as it was{held}: {copy}")
        new = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(after.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        new.chmod(mode)
        new.replace(target)
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error}. It is as it was.") from None


def _free(path: Path) -> Path:
    numbered = (path.with_name(f"{path.name}.{number}") for number in itertools.count(2))
    return next(candidate for candidate in itertools.chain([path], numbered) if not candidate.exists())
