"""What the tests of this room share: uv, Node's bundle tool, and a server behind a pipe."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]

UV = os.environ.get("UV") or shutil.which("uv")
needs_uv = pytest.mark.skipif(
    UV is None, reason="uv is not on the path; `uv run pytest` and `pip install uv` put it there"
)

# Asked before any test moves HOME: what was downloaded once is not downloaded again.
_CACHE = subprocess.run([UV, "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip() if UV else ""


def environment(**more: str) -> dict[str, str]:
    """The test's environment, without the virtual environment that runs the tests."""
    kept = {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    return {**kept, "UV_CACHE_DIR": _CACHE, **more}


def uv(*arguments: str, cwd: Path = ROOT) -> None:
    assert UV is not None
    done = subprocess.run(
        [UV, *arguments], cwd=cwd, env=environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


def script(folder: Path, name: str) -> Path:
    """A command of the virtual environment *folder*."""
    return folder / "Scripts" / f"{name}.exe" if sys.platform == "win32" else folder / "bin" / name


async def listed(command: str, arguments: Sequence[str], settings: Mapping[str, str]) -> tuple[set[str], str, str]:
    """The tools of a server over its pipe, and what it calls itself."""
    server = StdioServerParameters(command=command, args=list(arguments), env=environment(**settings))
    with anyio.fail_after(240):
        async with Client(server) as client:
            tools = {tool.name for tool in (await client.list_tools()).tools}
            assert client.server_info is not None
            return tools, client.server_info.name, client.server_info.version
