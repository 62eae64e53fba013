"""
Pack the bundle for Claude Desktop: ``python bundle/build.py dist/kling-mcp.mcpb``.

The bundle is the manifest, the icon, and what uv needs to install the program.
Packing is done by Anthropic's `mcpb`, from ``tests/node`` or the path.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def stage(folder: Path) -> None:
    """Lay out the bundle's files in *folder*."""
    for source, name in {
        "bundle/manifest.json": "manifest.json",
        "bundle/.mcpbignore": ".mcpbignore",
        "assets/icon.png": "icon.png",
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        "LICENSE": "LICENSE",
    }.items():
        shutil.copyfile(ROOT / source, folder / name)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))


def mcpb() -> str | None:
    """Where Anthropic's bundle tool is, if it is installed."""
    return shutil.which("mcpb", path=str(ROOT / "tests/node/node_modules/.bin")) or shutil.which("mcpb")


def main(target: Path) -> int:
    """Validate and pack; the tool's exit code is the answer."""
    tool = mcpb()
    if tool is None:
        sys.stderr.write("mcpb is not installed: npm install in tests/node\n")
        return 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stage(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        for command in (["validate", str(folder / "manifest.json")], ["pack", str(folder), str(target.absolute())]):
            done = subprocess.run([tool, *command], check=False)
            if done.returncode:
                return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
