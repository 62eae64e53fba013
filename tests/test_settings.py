"""What the environment means, and what stops the start."""

from __future__ import annotations

import os
from decimal import Decimal
from pathlib import Path

import pytest

from kling_mcp.errors import SettingsError
from kling_mcp.settings import VARIABLES, FalHosts, Folders, Secret, Settings

HOME = Path("/people/ada")


def folders() -> Folders:
    return Folders(HOME / "Videos", HOME / "Pictures", HOME / "Downloads", HOME / "Desktop", HOME / "state", HOME)


def settings(**environment: str) -> Settings:
    return Settings.from_environment(environment, folders)


def test_without_any_variable_everything_has_a_safe_value() -> None:
    found = settings()

    assert found == Settings(
        data_dir=HOME / "state",
        output_dir=HOME / "Videos" / "Kling",
        input_dirs=(
            HOME / "Pictures",
            HOME / "Downloads",
            HOME / "Desktop",
            HOME / "Videos",
            HOME / "Videos" / "Kling",
        ),
    )
    assert (found.confirm_above_usd, found.max_job_usd, found.daily_budget_usd) == (
        Decimal("1.00"),
        Decimal(10),
        Decimal(25),
    )


@pytest.mark.parametrize("value", ["", "   ", "${user_config.output_dir}", "${FAL_KEY}"])
def test_an_empty_value_or_a_placeholder_that_a_host_left_counts_as_unset(value: str) -> None:
    assert settings(**dict.fromkeys(VARIABLES, value)) == settings()


def test_every_variable_changes_what_it_is_for() -> None:
    found = settings(
        FAL_KEY="id:secret",
        KLING_MCP_BACKEND="Simulator",
        KLING_MCP_OUTPUT_DIR="/films",
        KLING_MCP_INPUT_DIRS=os.pathsep.join(["/a", " /b "]),
        KLING_MCP_DATA_DIR="/state",
        KLING_MCP_CONFIRM="always",
        KLING_MCP_CONFIRM_ABOVE_USD="0.5",
        KLING_MCP_MAX_JOB_USD="3",
        KLING_MCP_DAILY_BUDGET_USD="12.25",
        KLING_MCP_QUEUE_URL="https://proxy.example/queue/",
        KLING_MCP_REST_URL="http://127.0.0.1:9000",
        KLING_MCP_API_URL="http://localhost:9000/v1",
        KLING_MCP_MEDIA_HOSTS="Fal.media, 127.0.0.1:9000, *.cdn.example, .files.example.",
        KLING_MCP_POLL_SECONDS="0.5",
        KLING_MCP_LOG_LEVEL="debug",
        KLING_MCP_SIMULATOR_SPEED="100",
    )

    assert found.fal_key is not None
    assert found.fal_key.reveal() == "id:secret"
    assert found.backend == "simulator"
    assert found.output_dir == Path("/films")
    assert found.input_dirs == (Path("/a"), Path("/b"))
    assert found.data_dir == Path("/state")
    assert found.confirm == "always"
    assert found.confirm_above_usd == Decimal("0.5")
    assert found.max_job_usd == Decimal(3)
    assert found.daily_budget_usd == Decimal("12.25")
    assert found.hosts == FalHosts("https://proxy.example/queue", "http://127.0.0.1:9000", "http://localhost:9000/v1")
    added = ("127.0.0.1:9000", "cdn.example", "files.example")
    assert found.media_hosts == ("fal.media", "storage.googleapis.com", *added)
    assert found.poll_seconds == 0.5
    assert found.log_level == "DEBUG"
    assert found.simulator_speed == 100


def test_none_turns_saving_off_and_leaves_the_folder_out_of_the_inputs() -> None:
    found = settings(KLING_MCP_OUTPUT_DIR="none")

    assert found.output_dir is None
    assert HOME / "Videos" / "Kling" not in found.input_dirs


@pytest.mark.parametrize("written", ["~", "$HOME", "${HOME}", "%USERPROFILE%"])
@pytest.mark.parametrize("separator", ["/", ""])
def test_a_home_folder_that_no_shell_filled_in_is_filled_in(tmp_path: Path, written: str, separator: str) -> None:
    rest = "films" if separator else ""

    found = settings(
        HOME=str(tmp_path),
        KLING_MCP_OUTPUT_DIR=f"{written}{separator}{rest}",
        KLING_MCP_INPUT_DIRS=os.pathsep.join(["/a", f" {written}{separator}{rest} "]),
    )

    assert found.output_dir == tmp_path / rest
    assert found.input_dirs == (Path("/a"), tmp_path / rest)


def test_a_tilde_without_a_home_folder_is_refused_like_any_other_path_that_is_not_absolute() -> None:
    with pytest.raises(SettingsError, match="KLING_MCP_DATA_DIR is '~nobody-has-this-name/x'"):
        settings(KLING_MCP_DATA_DIR="~nobody-has-this-name/x")


@pytest.mark.parametrize(
    "wide",
    [HOME, HOME.parent, Path("/"), HOME / "." / ".." / "ada"],
)
def test_a_standard_folder_that_is_the_home_folder_or_above_it_is_not_read_from(wide: Path) -> None:
    usual = Folders(HOME / "Videos", wide, wide, HOME / "Desktop", HOME / "state", HOME)

    found = Settings.from_environment({}, lambda: usual)

    assert found.input_dirs == (HOME / "Desktop", HOME / "Videos", HOME / "Videos" / "Kling")
    assert set(found.too_wide_dirs) == {wide}
    assert Settings.from_environment({"KLING_MCP_INPUT_DIRS": str(HOME)}, lambda: usual).input_dirs == (HOME,), (
        "what the operator names is their choice"
    )


def test_a_home_folder_that_is_a_link_or_the_output_folder_is_not_read_from(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "link").symlink_to(home)
    usual = Folders(tmp_path / "link", home / "Pictures", home, home / "Desktop", home / "state", home)

    found = Settings.from_environment({"KLING_MCP_OUTPUT_DIR": str(home)}, lambda: usual)

    assert found.input_dirs == (home / "Pictures", home / "Desktop")
    assert found.too_wide_dirs == (home, tmp_path / "link", home)
    assert found.output_dir == home


def test_one_folder_may_have_the_separator_of_lists_in_its_name() -> None:
    assert settings(KLING_MCP_OUTPUT_DIR=f"/a{os.pathsep}b").output_dir == Path(f"/a{os.pathsep}b")


def nobodys_folders() -> Folders:
    raise OSError("no home folder")


def test_standard_folders_are_looked_up_only_where_a_setting_is_left_out() -> None:
    chosen = {
        "KLING_MCP_OUTPUT_DIR": "/out",
        "KLING_MCP_INPUT_DIRS": "/in",
        "KLING_MCP_DATA_DIR": "/data",
    }

    assert Settings.from_environment(chosen, nobodys_folders).input_dirs == (Path("/in"),)
    for left_out in chosen:
        rest = {name: value for name, value in chosen.items() if name != left_out}
        with pytest.raises(SettingsError, match=f"^{left_out} is not set") as caught:
            Settings.from_environment(rest, nobodys_folders)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("FAL_KEY", "id:se cret", "no fal.ai key has"),
        ("KLING_MCP_BACKEND", "live", "fal, simulator"),
        ("KLING_MCP_BACKEND", "Live", "is 'Live'. It takes"),
        ("KLING_MCP_BACKEND", "caf\udce9", "It takes one of: fal, simulator"),
        ("KLING_MCP_CONFIRM", "sometimes", "auto, always, never"),
        ("KLING_MCP_LOG_LEVEL", "loud", "DEBUG, INFO, WARNING, ERROR"),
        ("KLING_MCP_OUTPUT_DIR", "films", "absolute path"),
        ("KLING_MCP_INPUT_DIRS", "pictures", "absolute path"),
        ("KLING_MCP_DATA_DIR", "./state", "absolute path"),
        ("KLING_MCP_MAX_JOB_USD", "ten", "US dollars"),
        ("KLING_MCP_MAX_JOB_USD", "NaN", "US dollars"),
        ("KLING_MCP_DAILY_BUDGET_USD", "-1", "US dollars"),
        ("KLING_MCP_CONFIRM_ABOVE_USD", "1e99", "US dollars"),
        ("KLING_MCP_POLL_SECONDS", "0", "0.01 to 3600"),
        ("KLING_MCP_POLL_SECONDS", "soon", "0.01 to 3600"),
        ("KLING_MCP_QUEUE_URL", "http://queue.example", "Plain http"),
        ("KLING_MCP_QUEUE_URL", "ftp://127.0.0.1", "base URL"),
        ("KLING_MCP_QUEUE_URL", "https://queue\udcff.example", "base URL"),
        ("KLING_MCP_API_URL", "https://api.example/a b", "base URL"),
        ("KLING_MCP_REST_URL", "https://user:word@rest.example", "base URL"),
        ("KLING_MCP_API_URL", "https://[broken", "base URL"),
        ("KLING_MCP_MEDIA_HOSTS", "https://fal.media/", "host names"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line_that_names_the_variable(variable: str, value: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(**{variable: value})

    assert variable in str(caught.value)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


KEY = "0a1b2c3d-1111-4222-8333-444455556666:0123456789abcdef0123456789abcdef"
PASTED = {
    "in quotes": f'"{KEY}"',
    "in single quotes": f"'{KEY}'",
    "in backticks": f"`{KEY}`",
    "in printed quotes": f"\u201c{KEY}\u201d",
    "in brackets": f"<{KEY}>",
    "with its variable": f"FAL_KEY={KEY}",
    "with its variable and quotes": f'FAL_KEY = "{KEY}"',
    "with another spelling of it": f"fal_api_key: {KEY}",
    "out of a shell": f"export FAL_KEY='{KEY}'",
    "out of a Windows shell": f"set FAL_KEY={KEY}",
    "out of PowerShell": f'$env:FAL_KEY="{KEY}"',
    "out of a command": f"--env FAL_KEY={KEY}",
    "out of JSON": f'"FAL_KEY": "{KEY}",',
    "out of a JSON object": f'{{"FAL_KEY":"{KEY}"}}',
    "out of YAML": f"FAL_KEY: {KEY}  # mine",
    "out of a header": f"Authorization: Key {KEY}",
    "with its scheme": f"Key {KEY}",
    "with its scheme in small letters": f"key {KEY}",
    "with another scheme": f"Bearer {KEY}",
    "with a line break": f"{KEY}\r\n",
    "after a byte order mark": f"\ufeff{KEY}",
    "with a zero-width space": f"{KEY}\u200b",
    "with a hard space": f"\xa0{KEY}\xa0",
    "broken over two lines": f"{KEY[:50]}\n{KEY[50:]}",
    "with a blank after its colon": KEY.replace(":", ": "),
    "twice": f"{KEY}\n{KEY}",
    "twice without a gap": KEY + KEY,
    "twice in two spellings": f"FAL_KEY={KEY} Key {KEY}",
    "with its name": f"production {KEY}",
    "with a variable of its own": f"FAL_AI_KEY={KEY}",
    "with a name for it": f"apiKey={KEY}",
    "with a name and no blank": f"Key:{KEY}",
    "with its variable twice": f"FAL_KEY=FAL_KEY={KEY}",
    "out of another header": f"x-fal-key: {KEY}",
    "out of a call": f'credentials="{KEY}"',
    "with a line break that a program wrote": f"{KEY}\\r\\n",
}


@pytest.mark.parametrize("name", PASTED)
def test_a_key_is_taken_out_of_what_it_was_pasted_with(name: str) -> None:
    found = settings(FAL_KEY=PASTED[name]).fal_key

    assert found is not None
    assert found.reveal() == KEY


@pytest.mark.parametrize(
    "key",
    [
        "id:secret",
        "FAL_KEY=id:secret",
        "KEY=id:secret",
        "api_key: id:secret",
        "id:secret\\n",
        "'id:secret'",
        "Key id:secret",
        "id:secret\nid:secret",
    ],
)
def test_a_key_of_another_shape_is_taken_too(key: str) -> None:
    found = settings(FAL_KEY=key).fal_key

    assert found is not None
    assert found.reveal() == "id:secret"


@pytest.mark.parametrize("value", ["''", "FAL_KEY=", "Bearer ", "export FAL_KEY=", '""'])
def test_what_surrounds_a_key_without_one_counts_as_unset(value: str) -> None:
    assert settings(FAL_KEY=value).fal_key is None


OTHER = KEY.replace("0a1b", "ffff")
NOT_FALS_KEY = {
    "two keys": (f"{KEY} {OTHER}", "2 different keys"),
    "two keys on two lines": (f"{KEY}\n{OTHER}\n", "2 different keys"),
    "two keys of another shape": ("first:secret-1,second:secret-2", "2 different keys"),
    "two keys of others": ("sk-proj-abc\nr8_abcdef", "2 different keys"),
    "OpenAI": ("sk-proj-abcdefghijkl", "OpenAI"),
    "Anthropic": ("sk-ant-abcdefghijkl", "Anthropic"),
    "Google": ('"AIzaSyAbcdefghijkl"', "Google"),
    "Replicate": ("Bearer r8_abcdefghijkl", "Replicate"),
    "a signed token": ("eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJhIn0.abc", "another service"),
    "an example": ("YOUR_FAL_KEY", "example"),
    "an example in brackets": ("<your-fal-key-here>", "example"),
    "a label": ("fal.ai API key", "example"),
    "an example to be pasted over": ("PASTE_YOUR_FAL_KEY_HERE", "example"),
    "an example of both halves": ("<key_id>:<key_secret>", "example"),
    "a row of crosses": ("xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx:xxxxxxxxxxxx", "example"),
    "a program's nothing": ("undefined", "example"),
    "a variable of a shell": ("$FAL_KEY", "variable"),
    "a variable of Windows": ("%FAL_KEY%", "variable"),
    "a key hidden in part": (f"{KEY[:37]}********", "hidden"),
    "the page of keys": ("https://fal.ai/dashboard/keys?tab=all", "web address"),
    "another's key with its variable": ("OPENAI_API_KEY=sk-proj-abcdefghijkl", "OpenAI"),
    "two keys of two shapes": (f"first:secret-1 {OTHER}", "2 different keys"),
    "a blank inside": ("id:se cret", "no fal.ai key has"),
    "a foreign letter": ("id:secr\u00e9t", "no fal.ai key has"),
}


@pytest.mark.parametrize("name", NOT_FALS_KEY)
def test_a_key_that_cannot_be_meant_is_told_without_being_shown(name: str) -> None:
    value, says = NOT_FALS_KEY[name]
    with pytest.raises(SettingsError) as caught:
        settings(FAL_KEY=value)

    told = str(caught.value)
    assert told.startswith("FAL_KEY ")
    assert says in told
    assert "\n" not in told
    assert not any(part in told for part in value.split() if len(part) > 8)


def test_a_secret_shows_itself_nowhere_but_where_it_is_asked_for() -> None:
    secret = Secret("id:do-not-show")

    assert "do-not-show" not in f"{secret} {secret!r} {[secret]} {settings(FAL_KEY='id:do-not-show')}"
    assert secret.reveal() == "id:do-not-show"


def test_the_standard_folders_are_those_of_the_platform() -> None:
    found = Folders.of_this_machine()

    assert all(path.is_absolute() for path in (found.videos, found.pictures, found.downloads, found.desktop))
    assert found.state.name == "kling-mcp"
