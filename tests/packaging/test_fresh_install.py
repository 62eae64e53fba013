"""What a user gets: the wheel in an empty environment, without a lock, with and without what decodes videos."""

from __future__ import annotations

import re
import subprocess
import zipfile
from typing import TYPE_CHECKING

import pytest

from kling_mcp import __version__
from kling_mcp.server.tools import TOOLS
from tests.packaging.installing import ROOT, environment, listed, needs_uv, script, uv

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [needs_uv, pytest.mark.xdist_group("packaging")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    uv("build", "--wheel", "--out-dir", str(folder))
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_one_package_its_data_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(f"kling_mcp-{__version__}.dist-info/METADATA").decode()

    package = {name for name in names if name.startswith("kling_mcp/")}
    about = {name.partition("/")[0] for name in names - package}
    source = ROOT / "src"
    tree = {
        path.relative_to(source).as_posix()
        for path in (source / "kling_mcp").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert about == {f"kling_mcp-{__version__}.dist-info"}
    assert package == tree
    data = {name.removeprefix("kling_mcp/") for name in package if not name.endswith(".py")}
    models = {f"catalog/endpoints/{file.name}" for file in (source / "kling_mcp/catalog/endpoints").glob("*.json")}
    assert data == {
        *models,
        "catalog/also_called.json",
        "catalog/fields.json",
        "py.typed",
        "simulator/sample.jpg",
        "simulator/sample.mp4",
        "server/ui/job.html",
    }
    assert not [name for name in names if re.search(r"(^|/)(tests?|conftest|benchmarks?)(/|_|\.)", name)]
    assert "mcp-name: io.github.kling-mcp/kling-mcp" in metadata


@pytest.mark.anyio
async def test_a_new_environment_serves_and_plays_the_demo_with_and_without_what_decodes_videos(
    wheel: Path, tmp_path: Path
) -> None:
    home = tmp_path / "environment"
    uv("venv", "--quiet", str(home), cwd=tmp_path)
    python = str(script(home, "python"))
    # The extra is of older configurations.
    uv("pip", "install", "--quiet", "--python", python, f"kling-mcp[media] @ {wheel.as_uri()}", cwd=tmp_path)
    for missing in ((), ("av", "pillow", "pi-heif")):
        if missing:
            uv("pip", "uninstall", "--quiet", "--python", python, *missing, cwd=tmp_path)

        told = await listed(str(script(home, "kling-mcp")), [], {})
        usual = {name for name, tool in TOOLS.items() if tool.toolset == "core"}
        videos = tmp_path / f"videos without {len(missing)}"
        played = run(home, tmp_path, "demo", KLING_MCP_OUTPUT_DIR=str(videos), KLING_MCP_SIMULATOR_SPEED="200")
        examined = run(home, tmp_path, "doctor", KLING_MCP_BACKEND="simulator")

        assert told == (usual - ({"view_video"} if missing else set()), "kling-mcp", __version__)
        assert (played.returncode, played.stderr) == (0, ""), played.stdout
        assert len(list(videos.glob("*.mp4"))) == 1
        assert ("! media" if missing else "✓ media") in examined.stdout


def run(home: Path, cwd: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """A command of the new environment, far from the sources."""
    return subprocess.run(
        [str(script(home, "kling-mcp")), *arguments],
        cwd=cwd,
        env=environment(**settings),
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
