"""server.json, and that every file that names the program tells the same about it."""

from __future__ import annotations

import json
import re
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator, FormatChecker
from mcp.client.client import Client

from kling_mcp import __version__
from kling_mcp.server.app import build
from kling_mcp.settings import VARIABLES, FalHosts, Settings
from tests.packaging.installing import ROOT

SCHEMA = json.loads(Path(__file__).with_name("server.schema.json").read_text(encoding="utf-8"))
SERVER: dict[str, Any] = json.loads((ROOT / "server.json").read_text(encoding="utf-8"))
MANIFEST: dict[str, Any] = json.loads((ROOT / "bundle/manifest.json").read_text(encoding="utf-8"))
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
(PACKAGE,) = SERVER["packages"]


def test_server_json_fits_the_registrys_schema() -> None:
    validator = Draft7Validator(SCHEMA, format_checker=FormatChecker())

    assert [error.message for error in validator.iter_errors(SERVER)] == []
    assert SERVER["$schema"] == SCHEMA["$id"]


def test_the_schema_would_find_a_description_that_is_too_long() -> None:
    """The registry refuses more than 100 characters; so does the copy of its schema."""
    wrong = {**SERVER, "description": "x" * 101}

    assert not Draft7Validator(SCHEMA).is_valid(wrong)
    assert len(SERVER["description"]) <= 100


@pytest.mark.anyio
async def test_one_version_everywhere() -> None:
    async with Client(build(Settings.from_environment())) as client:
        assert client.server_info is not None
        told = client.server_info.version

    everywhere = {
        "the package": __version__,
        "its metadata": version("kling-mcp"),
        "pyproject.toml": PROJECT["version"],
        "server.json": SERVER["version"],
        "server.json, package": PACKAGE["version"],
        "the bundle": MANIFEST["version"],
        "serverInfo": told,
        "the changelog": re.findall(r"^## (\d\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[
            0
        ],
    }
    assert set(everywhere.values()) == {__version__}, everywhere


def test_the_readme_that_goes_to_the_index_proves_who_owns_the_name() -> None:
    readme = (ROOT / PROJECT["readme"]).read_text(encoding="utf-8")

    assert re.findall(r"mcp-name: (\S+)", readme) == [SERVER["name"]]
    assert PACKAGE["identifier"] == PROJECT["name"]
    assert PROJECT["name"] in PROJECT["scripts"]


def test_the_registry_lists_every_setting_with_its_default() -> None:
    variables = {variable["name"]: variable for variable in PACKAGE["environmentVariables"]}
    secret = [name for name, variable in variables.items() if variable.get("isSecret")]
    given = {name: variable["default"] for name, variable in variables.items() if "default" in variable}

    assert tuple(variables) == VARIABLES
    assert secret == ["FAL_KEY"]
    assert Settings.from_environment(given) == Settings.from_environment({})
    assert given["KLING_MCP_QUEUE_URL"] == FalHosts().queue
    for variable in variables.values():
        for choice in variable.get("choices", ()):
            Settings.from_environment({variable["name"]: choice})


def test_every_link_about_the_project_leads_to_the_same_place() -> None:
    home = PROJECT["urls"]["Homepage"]

    assert {SERVER["websiteUrl"], SERVER["repository"]["url"], MANIFEST["homepage"], MANIFEST["repository"]["url"]} == {
        home
    }
    assert SERVER["name"] == "io.github." + home.removeprefix("https://github.com/")
    (icon,) = SERVER["icons"]
    assert (ROOT / icon["src"].partition("/main/")[2]).is_file()
