"""
The parts of the README and of the bundle's manifest that are made from the program: ``python -m tests.docs_blocks``.

`tests/test_docs.py` compares them, so a price, a tool or a setting cannot
change without the page that tells of it.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import anyio
from mcp.client.client import Client

from kling_mcp.catalog.models import TOOLS as TOOLS_OF
from kling_mcp.catalog.models import load
from kling_mcp.catalog.pricing import quote as price_of
from kling_mcp.catalog.values import span
from kling_mcp.server.app import build
from kling_mcp.server.models import price_text
from kling_mcp.server.tools import TOOLS
from kling_mcp.settings import Settings

if TYPE_CHECKING:
    import mcp_types as t

    from kling_mcp.catalog.models import Endpoint, Mode

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
MANIFEST = ROOT / "bundle/manifest.json"

SERVER = {"command": "uvx", "args": ["kling-mcp"], "env": {"FAL_KEY": "YOUR_FAL_KEY"}}
"""What every host needs to know."""

_BLOCK = re.compile(r"(<!-- (\w+): written by [^>]* -->\n)(.*?)(<!-- /\2 -->)", re.DOTALL)


def block(name: str) -> str:
    """What stands in the README between the marks of *name*."""
    found = {match[2]: match[3] for match in _BLOCK.finditer(README.read_text(encoding="utf-8"))}
    return found[name]


def demo() -> str:
    """What the demo prints, with the folders of this machine left out."""
    with tempfile.TemporaryDirectory() as videos:
        done = subprocess.run(
            [sys.executable, "-m", "kling_mcp", "demo"],
            env={**os.environ, "KLING_MCP_OUTPUT_DIR": videos},
            capture_output=True,
            encoding="utf-8",
            timeout=200,
            check=True,
        )
        return f"```text\n{_shown(done.stdout, videos)}```\n"


def _shown(transcript: str, videos: str) -> str:
    transcript = re.sub(
        r"(Picture +)\S.*[/\\](kling_mcp[/\\]simulator)[/\\]", r"\1src/kling_mcp/simulator/", transcript
    )
    return re.sub(
        re.escape(str(Path(videos).resolve())) + r"[/\\]|" + re.escape(videos) + r"[/\\]", "~/Videos/Kling/", transcript
    )


def same_every_time(transcript: str) -> str:
    """A transcript of the demo without what is another at every run: ids, dates, sizes, times."""
    for pattern, words in (
        (r"kj_[\w-]{22}", "kj_…"),
        (r"\d{4}-\d\d-\d\d_(\S+)_[\w-]{8}\.mp4", r"DATE_\1_ID.mp4"),
        (r"\d+ kB mp4, after \d+ s at \d+", "N kB mp4, after N s at N"),
        (r".*in line, place \d+\n", ""),
    ):
        transcript = re.sub(pattern, words, transcript)
    return transcript


def links() -> str:
    """One-click links: the server's configuration, in the spelling of each host."""
    config = quote(base64.b64encode(json.dumps(SERVER, separators=(",", ":")).encode()).decode(), safe="")
    inputs = [{"type": "promptString", "id": "fal_key", "description": "fal.ai API key", "password": True}]
    prompted = {"type": "stdio", **SERVER, "env": {"FAL_KEY": "${input:fal_key}"}}
    vscode = f"inputs={_url_json(inputs)}&config={_url_json(prompted)}"
    found = {
        "Cursor": f"https://cursor.com/en/install-mcp?name=kling&config={config}",
        "VS Code": f"https://insiders.vscode.dev/redirect/mcp/install?name=kling&{vscode}",
        "VS Code Insiders": f"https://insiders.vscode.dev/redirect/mcp/install?name=kling&{vscode}&quality=insiders",
        "LM Studio": f"https://lmstudio.ai/install-mcp?name=kling&config={config}",
        "Goose": "https://block.github.io/goose/extension?cmd=uvx&arg=kling-mcp&id=kling"
        f"&name={quote('Kling Video')}&env={quote('FAL_KEY=fal.ai API key', safe='')}",
    }
    return "".join(f"[{host}]({url})\n" for host, url in found.items()).replace(")\n[", ") ·\n[")


def _url_json(value: object) -> str:
    return quote(json.dumps(value, separators=(",", ":")), safe="")


def models() -> str:
    """Models by mode with what they can, and their prices; five seconds are priced with the model's own sound."""
    head = (
        "model | seconds | shots | sound | $/s silent | $/s with sound | $/s with voices | as of | $ for 5 s | at most"
    )
    catalog = load()
    parts = [_heading("image-to-video"), f"| {head} |", f"|{'---|' * 10}"]
    parts += [f"| {' | '.join(_row(endpoint))} |" for endpoint in catalog.of("image-to-video")]
    for mode in catalog.modes[1:]:
        if not set(TOOLS_OF[mode]) & set(TOOLS):
            continue
        parts += ["", _heading(mode), "| model | price | makes | as of |", "|---|---|---|---|"]
        parts += [f"| {' | '.join(_short_row(endpoint))} |" for endpoint in catalog.of(mode)]
    return "\n".join(parts) + "\n"


def _heading(mode: Mode) -> str:
    tools = [TOOLS[tool] for tool in TOOLS_OF[mode] if tool in TOOLS]
    extra = "" if tools[0].toolset == "core" else f", in the toolset `{tools[0].toolset}`"
    return f"**{mode.capitalize()}** ({', '.join(f'`{tool.name}`' for tool in tools)}{extra})\n"


def _short_row(endpoint: Endpoint) -> list[str]:
    name = f"`{endpoint.model}`{f' with {endpoint.when}' if endpoint.when else ''}"
    price, _, made = price_text(endpoint).partition(", ")
    return [name, price, made or f"a {endpoint.result}", endpoint.prices[-1].as_of]


def _row(endpoint: Endpoint) -> list[str]:
    length, listed = endpoint.argument_of("length"), endpoint.argument_of("shot")
    lengths = length.lengths if length is not None else ()
    most_shots = [rule.max for rule in endpoint.rules if rule.kind == "count" and rule.of == ("shots[]",)]
    audio = endpoint.argument_of("sound")
    on = audio is not None and audio.default is True
    sound = {"switchable": "on, can be off" if on else "off, can be on"}.get(endpoint.sound, endpoint.sound)
    newest = endpoint.prices[-1]
    offered: dict[str, bool] = {
        "audio_off": endpoint.sound != "always",
        "audio_on": endpoint.sound != "none",
        "voice_control": any(a.kind == "voice" for a in _all(endpoint.arguments.values())),
    }
    rates = [f"{newest.rate(tier).normalize():f}" if there else "" for tier, there in offered.items()]
    five = price_of(endpoint, seconds=5, audio=None if audio is None else on, voice=False)
    return [
        f"`{endpoint.model}`{' (default)' if endpoint.default else ''}",
        span(lengths),
        f"1 to {most_shots[0]}" if listed is not None else "1",
        sound,
        *rates,
        newest.as_of,
        f"{five.estimated_usd:.2f}",
        f"{five.ceiling_usd:.2f}",
    ]


def _all(arguments: Any) -> list[Any]:
    return [one for argument in arguments for one in (argument, *_all(argument.items.values()))]


def settings() -> str:
    """The settings, from what the registry is told."""
    (package,) = json.loads((ROOT / "server.json").read_text(encoding="utf-8"))["packages"]
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for variable in package["environmentVariables"]:
        default = f"`{variable['default']}`" if "default" in variable else ""
        rows.append(f"| `{variable['name']}` | {default} | {variable['description']} |")
    return "\n".join(rows) + "\n"


def tools() -> str:
    """The tools as an assistant reads about them."""
    rows = ["| tool | what the assistant is told |", "|---|---|"]
    rows += [f"| `{tool.name}` | {tool.description} |" for tool in listed()]
    return "\n".join(rows) + "\n"


def listed() -> list[t.Tool]:
    async def ask() -> list[t.Tool]:
        with anyio.fail_after(20):
            async with Client(build(Settings.from_environment({}))) as client:
                return (await client.list_tools()).tools

    return anyio.run(ask)


def manifest() -> str:
    """The bundle's manifest with the tools as they are."""
    known = json.loads(MANIFEST.read_text(encoding="utf-8"))
    known["tools"] = [{"name": tool.name, "description": tool.description} for tool in listed()]
    return json.dumps(known, indent=2, ensure_ascii=False) + "\n"


BLOCKS = {"demo": demo, "links": links, "models": models, "tools": tools, "settings": settings}


def main() -> None:
    """Write every block anew; a run of the demo only where it tells something else."""

    def renewed(match: re.Match[str]) -> str:
        text = BLOCKS[match[2]]()
        same = match[2] == "demo" and same_every_time(text) == same_every_time(match[3])
        return match[0] if same else f"{match[1]}{text}{match[4]}"

    page = _BLOCK.sub(renewed, README.read_text(encoding="utf-8"))
    README.write_text(page, encoding="utf-8")
    MANIFEST.write_text(manifest(), encoding="utf-8")


if __name__ == "__main__":
    main()
