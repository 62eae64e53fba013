"""The environment, read once into one frozen object."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias, TypeVar, get_args
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, PlainValidator, TypeAdapter, ValidationError, ValidationInfo

from kling_mcp.errors import SettingsError
from kling_mcp.keys import plain_key
from kling_mcp.texts import showable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic_core import ErrorDetails

__all__ = [
    "VARIABLES",
    "Backend",
    "Confirm",
    "FalHosts",
    "Folders",
    "LogLevel",
    "Secret",
    "Settings",
    "Toolset",
    "expanded",
]

Backend = Literal["fal", "simulator"]
Toolset = Literal["core", "film", "reference", "edit"]
Confirm = Literal["auto", "always", "never"]
_T = TypeVar("_T")
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]

VARIABLES: Final = (
    "FAL_KEY",
    "KLING_MCP_BACKEND",
    "KLING_MCP_TOOLSETS",
    "KLING_MCP_OUTPUT_DIR",
    "KLING_MCP_INPUT_DIRS",
    "KLING_MCP_DATA_DIR",
    "KLING_MCP_CONFIRM",
    "KLING_MCP_CONFIRM_ABOVE_USD",
    "KLING_MCP_MAX_JOB_USD",
    "KLING_MCP_DAILY_BUDGET_USD",
    "KLING_MCP_QUEUE_URL",
    "KLING_MCP_REST_URL",
    "KLING_MCP_API_URL",
    "KLING_MCP_MEDIA_HOSTS",
    "KLING_MCP_POLL_SECONDS",
    "KLING_MCP_LOG_LEVEL",
    "KLING_MCP_SIMULATOR_SPEED",
)
"""Every variable that is read, in the order of the documentation."""

_FIELDS: Final = {name.removeprefix("KLING_MCP_").removesuffix("_URL").lower(): name for name in VARIABLES}
"""The variable of each field of `Settings` and `FalHosts`."""

_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_MEDIA_HOSTS: Final = ("fal.media", "storage.googleapis.com")
# How a home folder is written by people, shells and Windows; what only a shell would fill in arrives as it stands.
_HOME: Final = re.compile(r"(?:~|\$HOME|\$\{HOME\}|%USERPROFILE%|%HOME%)(?=[\\/]|$)", re.IGNORECASE)
# A host that does not fill a bundle's placeholder passes it on as it stands.
_PLACEHOLDER: Final = re.compile(r"\$\{[^}]*\}")


class Secret:
    """A value that does not show itself in a representation, a log or a traceback."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself, for the one header it belongs in."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('…')"

    __str__ = __repr__


def _base_url(value: str, field: ValidationInfo) -> str:
    setting = str(field.field_name)
    name = _FIELDS[setting]
    try:
        url = urlsplit(value)
        host, _ = url.hostname, url.port
    except ValueError:
        host, url = None, urlsplit("")
    # Bytes that are no text come as half characters, which are not printable.
    readable = value.isprintable() and " " not in value
    if not (host and readable) or url.username or url.query or url.fragment or url.scheme not in {"https", "http"}:
        raise SettingsError(f"{name} is {value!r}. It takes a base URL such as {getattr(FalHosts(), setting)}.")
    if url.scheme == "http" and host not in _LOOPBACK:
        raise SettingsError(f"{name} is {value!r}. Plain http is accepted for this machine only (127.0.0.1).")
    return value.rstrip("/")


def _more_hosts(value: str, field: ValidationInfo) -> tuple[str, ...]:
    """The usual hosts and those that the variable adds."""
    # A name stands for what is below it too, which others write as *.name or .name .
    hosts = tuple(part.strip().lower().removeprefix("*").strip(".") for part in value.split(",") if part.strip())
    for host in hosts:
        if not re.fullmatch(r"[a-z0-9.-]+(:\d{1,5})?", host):
            name = _FIELDS[str(field.field_name)]
            raise SettingsError(f"{name} has {host!r}. It takes host names or host:port, separated by commas.")
    return tuple(dict.fromkeys((*_MEDIA_HOSTS, *hosts)))


def _toolsets(value: str, field: ValidationInfo) -> tuple[Toolset, ...]:
    """Which tools are offered; those of ``core`` always are, because every job needs them."""
    named = {part.strip().lower() for part in value.split(",") if part.strip()}
    known = get_args(Toolset)
    if wrong := sorted(named - {*known, "all"}):
        name = _FIELDS[str(field.field_name)]
        raise SettingsError(f"{name} has {wrong[0]!r}. It takes {', '.join(known)} or all, separated by commas.")
    return tuple(name for name in known if name in named or name == "core" or "all" in named)


def _word(value: str) -> str:
    return str(showable(value)).lower()


def _key(value: str) -> Secret | None:
    key = plain_key(value)
    return None if key is None else Secret(key)


_BaseUrl: TypeAlias = Annotated[str, PlainValidator(_base_url)]
_Dollars: TypeAlias = Annotated[Decimal, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
_Seconds: TypeAlias = Annotated[float, Field(ge=0.01, le=3600, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class FalHosts:
    """Base URLs without a trailing slash; the key is sent to these three only."""

    queue: _BaseUrl = "https://queue.fal.run"
    rest: _BaseUrl = "https://rest.fal.ai"
    api: _BaseUrl = "https://api.fal.ai/v1"


@dataclass(frozen=True, slots=True)
class Folders:
    """The standard folders of the person at this machine; without a *home* nothing is compared with it."""

    videos: Path
    pictures: Path
    downloads: Path
    desktop: Path
    state: Path
    home: Path | None = None

    @classmethod
    def of_this_machine(cls) -> Folders:
        """
        The folders that the platform names.

        Raises:
            OSError: The account has no home folder.
        """
        import platformdirs

        home = _home(os.environ)
        if home is None:
            raise OSError("no home folder")
        return cls(
            videos=platformdirs.user_videos_path(),
            pictures=platformdirs.user_pictures_path(),
            downloads=platformdirs.user_downloads_path(),
            desktop=platformdirs.user_desktop_path(),
            state=platformdirs.user_state_path("kling-mcp", appauthor=False),
            home=Path(home),
        )


@dataclass(frozen=True, slots=True)
class Settings:
    """
    What the operator decided.

    Money is in US dollars, time in seconds.
    """

    data_dir: Path
    output_dir: Path | None
    input_dirs: tuple[Path, ...]
    too_wide_dirs: tuple[Path, ...] = ()
    """Folders that would be read from by default, but are the home folder or above it."""
    fal_key: Annotated[Secret | None, PlainValidator(_key)] = None
    backend: Annotated[Backend, BeforeValidator(_word)] = "fal"
    toolsets: Annotated[tuple[Toolset, ...], PlainValidator(_toolsets)] = ("core", "film")
    confirm: Annotated[Confirm, BeforeValidator(_word)] = "auto"
    confirm_above_usd: _Dollars = Decimal("1.00")
    max_job_usd: _Dollars = Decimal(10)
    daily_budget_usd: _Dollars = Decimal(25)
    hosts: FalHosts = field(default_factory=FalHosts)
    media_hosts: Annotated[tuple[str, ...], PlainValidator(_more_hosts)] = _MEDIA_HOSTS
    poll_seconds: _Seconds = 3.0
    log_level: Annotated[LogLevel, BeforeValidator(lambda value: _word(value).upper())] = "INFO"
    simulator_speed: _Seconds = 10.0

    @property
    def account(self) -> str:
        """A short name for the key, which tells jobs of different keys apart and does not give it away."""
        if self.fal_key is None:
            return "none"
        return hashlib.sha256(self.fal_key.reveal().encode()).hexdigest()[:12]

    @classmethod
    def from_environment(
        cls,
        environment: Mapping[str, str] | None = None,
        folders: Callable[[], Folders] = Folders.of_this_machine,
    ) -> Settings:
        """
        Read *environment*, or the process's own.

        Raises:
            SettingsError: A value cannot be used; the message is one line.
        """
        environment = os.environ if environment is None else environment
        standard = cache(folders)

        def folder(name: str, usual: Callable[[Folders], Path]) -> Path:
            value = _given_path(environment, name)
            return _standard(name, lambda: usual(standard())) if value is None else _absolute(name, value)

        output_dir = None
        if (_given(environment, "KLING_MCP_OUTPUT_DIR") or "").lower() != "none":
            output_dir = folder("KLING_MCP_OUTPUT_DIR", lambda usual: usual.videos / "Kling")
        data_dir = folder("KLING_MCP_DATA_DIR", lambda usual: usual.state)
        too_wide_dirs: tuple[Path, ...] = ()
        named_dirs = _given_path(environment, "KLING_MCP_INPUT_DIRS")
        if named_dirs is not None:
            parts = (part.strip() for part in named_dirs.split(os.pathsep))
            input_dirs = tuple(_absolute("KLING_MCP_INPUT_DIRS", part) for part in parts if part)
        else:
            usual = _standard("KLING_MCP_INPUT_DIRS", standard)
            input_dirs = (usual.pictures, usual.downloads, usual.desktop, usual.videos)
            input_dirs += () if output_dir is None else (output_dir,)
            too_wide_dirs = tuple(path for path in input_dirs if _holds(path, usual.home))
            input_dirs = tuple(path for path in input_dirs if path not in too_wide_dirs)
        dirs = {
            "data_dir": data_dir, "output_dir": output_dir, "input_dirs": input_dirs, "too_wide_dirs": too_wide_dirs
        }  # fmt: skip
        given = {
            name: text for name, variable in _FIELDS.items() if (text := _given(environment, variable)) is not None
        }
        try:
            return _checked().validate_python({**given, **dirs, "hosts": given})
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0])
            raise SettingsError(f"{_FIELDS[name]} is {given[name]!r}. It takes {_takes(first, name)}.") from None


@cache
def _checked() -> TypeAdapter[Settings]:
    return TypeAdapter(Settings)


def _takes(error: ErrorDetails, name: str) -> str:
    if error["type"] == "literal_error":
        return f"one of: {', '.join(re.findall('[A-Za-z]{3,}', error.get('ctx', {})['expected']))}"
    return "an amount in US dollars, such as 2.50" if name.endswith("_usd") else "a number from 0.01 to 3600"


def _given(environment: Mapping[str, str], name: str) -> str | None:
    value = environment.get(name, "").strip()
    return None if not value or _PLACEHOLDER.search(value) else value


def _given_path(environment: Mapping[str, str], name: str) -> str | None:
    """The text of one path or several, with a home folder that no shell has filled in."""
    parts = environment.get(name, "").split(os.pathsep)
    value = os.pathsep.join(expanded(part.strip(), environment) for part in parts).strip()
    return None if not value.strip(os.pathsep) or _PLACEHOLDER.search(value) else value


def expanded(path: str, environment: Mapping[str, str] | None = None) -> str:
    """*path* with the home folder for a leading ``~``, ``$HOME`` or ``%USERPROFILE%``; as it stands without a home."""
    found = _HOME.match(path)
    if found is None:
        return path
    home = _home(os.environ if environment is None else environment)
    return path if home is None else home.rstrip("/\\") + (path[found.end() :] or "/")


def _home(environment: Mapping[str, str]) -> str | None:
    home = environment.get("USERPROFILE" if os.name == "nt" else "HOME", "")
    if os.path.isabs(home):  # noqa: PTH117 - a text that need not be a path
        return home
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_dir
    except (ImportError, KeyError):
        return None


def _absolute(name: str, value: str) -> Path:
    path = Path(value)
    if value.startswith("~"):
        with contextlib.suppress(RuntimeError):  # nobody has that name, or this account no home
            path = path.expanduser()
    if not path.is_absolute() or "\0" in value:
        raise SettingsError(f"{name} is {value!r}. It takes an absolute path.")
    return path


def _standard(name: str, default: Callable[[], _T]) -> _T:
    try:
        return default()
    except (OSError, RuntimeError, KeyError):
        raise SettingsError(
            f"{name} is not set, and its standard folder is not known because this account has no home folder. "
            "Set HOME, or all of KLING_MCP_OUTPUT_DIR, KLING_MCP_INPUT_DIRS and KLING_MCP_DATA_DIR."
        ) from None


def _holds(folder: Path, home: Path | None) -> bool:
    """Whether *folder* is *home*, or a folder that it lies in."""
    return home is not None and Path(os.path.realpath(home)).is_relative_to(os.path.realpath(folder))
