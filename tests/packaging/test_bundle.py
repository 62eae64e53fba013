"""The bundle for Claude Desktop: judged and packed by Anthropic's tool, unpacked, and started as the manifest says."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from bundle.build import mcpb

from kling_mcp import __version__
from kling_mcp.server.tools import TOOLS
from kling_mcp.settings import VARIABLES, Settings
from tests.packaging.installing import ROOT, UV, listed, needs_uv

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST: dict[str, Any] = json.loads((ROOT / "bundle/manifest.json").read_text(encoding="utf-8"))
CONFIG: dict[str, Any] = MANIFEST["server"]["mcp_config"]

needs_mcpb = pytest.mark.skipif(mcpb() is None, reason="Anthropic's mcpb is not installed: npm install in tests/node")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle as Claude Desktop lays it out."""
    folder = tmp_path_factory.mktemp("bundle")
    packed = folder / "kling-mcp.mcpb"
    done = subprocess.run(
        [sys.executable, str(ROOT / "bundle/build.py"), str(packed)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


@pytest.mark.node
@pytest.mark.xdist_group("packaging")
@needs_mcpb
def test_the_bundle_holds_the_program_and_what_uv_needs(unpacked: Path) -> None:
    assert (CONFIG["command"], MANIFEST["server"]["type"]) == ("uv", "uv")
    assert (unpacked / MANIFEST["server"]["entry_point"]).is_file()
    assert sorted(path.name for path in unpacked.iterdir()) == [
        "LICENSE",
        "README.md",
        "icon.png",
        "manifest.json",
        "pyproject.toml",
        "src",
    ]
    assert not list(unpacked.rglob("__pycache__"))


def filled(text: str, folder: Path) -> str:
    """*text* as a host leaves it that fills in only its own folder."""
    return text.replace("${__dirname}", str(folder))


@pytest.mark.node
@pytest.mark.xdist_group("packaging")
@needs_mcpb
@needs_uv
@pytest.mark.anyio
async def test_the_unpacked_bundle_starts_and_answers_with_every_setting_unfilled(unpacked: Path) -> None:
    """A host may leave a placeholder as it stands; uv is what Claude Desktop brings along."""
    arguments = [filled(argument, unpacked) for argument in CONFIG["args"]]
    tools, name, version = await listed(UV or "", arguments, CONFIG["env"])

    usual = {name for name, tool in TOOLS.items() if tool.toolset == "core"}
    assert (tools, name, version) == (usual, "kling-mcp", __version__)


def test_the_bundle_settings_are_settings_and_unfilled_ones_are_unset() -> None:
    asked = {value.removeprefix("${user_config.").removesuffix("}") for value in CONFIG["env"].values()}

    assert set(CONFIG["env"]) <= set(VARIABLES)
    assert asked == set(MANIFEST["user_config"])
    assert Settings.from_environment(CONFIG["env"]) == Settings.from_environment({})


def test_the_key_is_hidden_and_folders_are_picked() -> None:
    config = MANIFEST["user_config"]

    assert [name for name, field in config.items() if field.get("sensitive")] == ["fal_key"]
    assert {name for name, field in config.items() if field["type"] == "directory"} == {"output_dir", "input_dir"}
    defaults = {
        variable: str(config[re.sub(r"\W|user_config", "", value)].get("default", ""))
        for variable, value in CONFIG["env"].items()
    }
    assert Settings.from_environment(defaults) == Settings.from_environment({})


def test_the_icon_is_a_square_of_512_pixels() -> None:
    head = (ROOT / "assets/icon.png").read_bytes()[:24]

    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", head[16:24]) == (512, 512)
