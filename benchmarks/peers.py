"""The programs of others that ours is measured beside; each may be absent."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

__all__ = ["OTHER_SERVER", "fal_mcp_server", "node_with_fal"]

OTHER_SERVER: Final = "fal-mcp-server 1.18"

_REPOSITORY: Final = Path(__file__).parents[1]
_PLACE: Final = _REPOSITORY / "artifacts" / "benchmarks" / "peer"
# With a newer SDK it does not start: it was written for the first one.
_REQUIREMENTS: Final = ("fal-mcp-server==1.18.*", "mcp<2")


def fal_mcp_server() -> Path | None:
    """The command of `fal-mcp-server` in an environment of its own, made when it is first wanted."""
    command = _PLACE / "bin" / "fal-mcp"
    if not command.exists():
        uv = os.environ.get("UV") or shutil.which("uv")
        if uv is None:
            return None
        # Its libraries are compiled beforehand, as ours are.
        steps = (
            [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(_PLACE)],
            [uv, "pip", "install", "--quiet", "--python", str(_PLACE / "bin" / "python"), *_REQUIREMENTS],
            [str(_PLACE / "bin" / "python"), "-m", "compileall", "-q", str(_PLACE / "lib")],
        )
        for step in steps:
            ended = subprocess.run(step, capture_output=True, check=False)
            if ended.returncode != 0 and "compileall" not in step:
                return None
    return command if command.exists() else None


def node_with_fal() -> tuple[str, Path] | None:
    """Node and the folder in which fal's JavaScript client is installed."""
    node, folder = shutil.which("node"), _REPOSITORY / "tests" / "node"
    if node is None or not (folder / "node_modules" / "@fal-ai" / "client").is_dir():
        return None
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.match(r"v(\d+)", said)
    return (node, folder) if version and int(version[1]) >= 20 else None
