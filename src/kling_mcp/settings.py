"""The environment, read once into one frozen object."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeVar, cast, get_args
from urllib.parse import urlsplit

from kling_mcp.errors import SettingsError
from kling_mcp.keys import plain_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["VARIABLES", "Backend", "Confirm", "FalHosts", "Folders", "LogLevel", "Secret", "Settings", "expanded"]

Backend = Literal["fal", "simulator"]
Confirm = Literal["auto", "always", "never"]
_T = TypeVar("_T")
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]

VARIABLES: Final = (
    "FAL_KEY",
    "KLING_MCP_BACKEND",
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


@dataclass(frozen=True, slots=True)
class FalHosts:
    """Base URLs without a trailing slash; the key is sent to these three only."""

    queue: str = "https://queue.fal.run"
    rest: str = "https://rest.fal.ai"
    api: str = "https://api.fal.ai/v1"


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
    fal_key: Secret | None = None
    backend: Backend = "fal"
    confirm: Confirm = "auto"
    confirm_above_usd: Decimal = Decimal("1.00")
    max_job_usd: Decimal = Decimal(10)
    daily_budget_usd: Decimal = Decimal(25)
    hosts: FalHosts = field(default_factory=FalHosts)
    media_hosts: tuple[str, ...] = _MEDIA_HOSTS
    poll_seconds: float = 3.0
    log_level: LogLevel = "INFO"
    simulator_speed: float = 10.0

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
        env = _Environment(os.environ if environment is None else environment)
        standard = cache(folders)
        output = env.text("KLING_MCP_OUTPUT_DIR")
        output_dir = (
            None
            if output is not None and output.lower() == "none"
            else env.folder("KLING_MCP_OUTPUT_DIR", lambda: standard().videos / "Kling")
        )

        def pictures() -> tuple[Path, ...]:
            usual = standard()
            media = (usual.pictures, usual.downloads, usual.desktop, usual.videos)
            return media if output_dir is None else (*media, output_dir)

        data_dir = env.folder("KLING_MCP_DATA_DIR", lambda: standard().state)
        input_dirs, too_wide_dirs = env.folders("KLING_MCP_INPUT_DIRS", pictures), ()
        if env.text("KLING_MCP_INPUT_DIRS") is None:
            too_wide_dirs = tuple(path for path in input_dirs if _holds(path, standard().home))
            input_dirs = tuple(path for path in input_dirs if path not in too_wide_dirs)
        key = plain_key(env.text("FAL_KEY") or "")
        return cls(
            data_dir=data_dir,
            output_dir=output_dir,
            input_dirs=input_dirs,
            too_wide_dirs=too_wide_dirs,
            fal_key=None if key is None else Secret(key),
            backend=cast("Backend", env.choice("KLING_MCP_BACKEND", get_args(Backend), "fal")),
            confirm=cast("Confirm", env.choice("KLING_MCP_CONFIRM", get_args(Confirm), "auto")),
            confirm_above_usd=env.dollars("KLING_MCP_CONFIRM_ABOVE_USD", Decimal("1.00")),
            max_job_usd=env.dollars("KLING_MCP_MAX_JOB_USD", Decimal(10)),
            daily_budget_usd=env.dollars("KLING_MCP_DAILY_BUDGET_USD", Decimal(25)),
            hosts=FalHosts(
                queue=env.base_url("KLING_MCP_QUEUE_URL", FalHosts().queue),
                rest=env.base_url("KLING_MCP_REST_URL", FalHosts().rest),
                api=env.base_url("KLING_MCP_API_URL", FalHosts().api),
            ),
            media_hosts=env.more_hosts("KLING_MCP_MEDIA_HOSTS", _MEDIA_HOSTS),
            poll_seconds=env.seconds("KLING_MCP_POLL_SECONDS", 3.0),
            log_level=cast("LogLevel", env.choice("KLING_MCP_LOG_LEVEL", get_args(LogLevel), "INFO", fold=str.upper)),
            simulator_speed=env.seconds("KLING_MCP_SIMULATOR_SPEED", 10.0),
        )


class _Environment:
    """One variable at a time, each with its own complaint."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def text(self, name: str) -> str | None:
        value = self._values.get(name, "").strip()
        return None if not value or _PLACEHOLDER.search(value) else value

    def choice(self, name: str, allowed: tuple[str, ...], default: str, fold: Callable[[str], str] = str.lower) -> str:
        value = self.text(name)
        if value is None:
            return default
        if fold(value) not in allowed:
            raise SettingsError(f"{name} is {value!r}. It takes one of: {', '.join(allowed)}.")
        return fold(value)

    def dollars(self, name: str, default: Decimal) -> Decimal:
        value = self.text(name)
        if value is None:
            return default
        try:
            amount = Decimal(value)
        except InvalidOperation:
            amount = Decimal("NaN")
        if not amount.is_finite() or not 0 <= amount <= 1_000_000:
            raise SettingsError(f"{name} is {value!r}. It takes an amount in US dollars, such as 2.50.")
        return amount

    def seconds(self, name: str, default: float) -> float:
        value = self.text(name)
        if value is None:
            return default
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not 0.01 <= number <= 3600:
            raise SettingsError(f"{name} is {value!r}. It takes a number from 0.01 to 3600.")
        return number

    def folder(self, name: str, default: Callable[[], Path]) -> Path:
        value = self.path_text(name)
        return _standard(name, default) if value is None else _absolute(name, value)

    def folders(self, name: str, default: Callable[[], tuple[Path, ...]]) -> tuple[Path, ...]:
        value = self.path_text(name)
        if value is None:
            return _standard(name, default)
        parts = (part.strip() for part in value.split(os.pathsep))
        return tuple(_absolute(name, part) for part in parts if part)

    def path_text(self, name: str) -> str | None:
        """The text of one path or several, with a home folder that no shell has filled in."""
        parts = self._values.get(name, "").split(os.pathsep)
        value = os.pathsep.join(expanded(part.strip(), self._values) for part in parts).strip()
        return None if not value.strip(os.pathsep) or _PLACEHOLDER.search(value) else value

    def more_hosts(self, name: str, known: tuple[str, ...]) -> tuple[str, ...]:
        """The hosts in *known* and those that the variable adds."""
        hosts = tuple(part.strip().lower() for part in (self.text(name) or "").split(",") if part.strip())
        for host in hosts:
            if not re.fullmatch(r"[a-z0-9.-]+(:\d{1,5})?", host):
                raise SettingsError(f"{name} has {host!r}. It takes host names or host:port, separated by commas.")
        return tuple(dict.fromkeys((*known, *hosts)))

    def base_url(self, name: str, default: str) -> str:
        value = self.text(name)
        if value is None:
            return default
        try:
            url = urlsplit(value)
            host, _ = url.hostname, url.port
        except ValueError:
            host, url = None, urlsplit("")
        if not host or url.username or url.query or url.fragment or url.scheme not in {"https", "http"}:
            raise SettingsError(f"{name} is {value!r}. It takes a base URL such as {default}.")
        if url.scheme == "http" and host not in _LOOPBACK:
            raise SettingsError(f"{name} is {value!r}. Plain http is accepted for this machine only (127.0.0.1).")
        return value.rstrip("/")


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
