"""
A whole job as a client would do it, against the simulator: no key, no money, a real mp4.

The server runs as a child process and is driven over its standard input and
output by the SDK's own client. What works here works in a host.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import anyio

from kling_mcp.catalog.added import FOLDER, added_endpoints
from kling_mcp.commands.terminal import Screen, bar, rendered
from kling_mcp.errors import SettingsError, UnknownModel
from kling_mcp.money import usd_text
from kling_mcp.settings import Settings, expanded

if TYPE_CHECKING:
    from mcp.client.client import Client

    from kling_mcp.catalog.added import AddedEndpoints
    from kling_mcp.catalog.models import Endpoint

__all__ = ["demo", "is_mp4"]

_SAMPLE: Final = Path(__file__).parent.parent / "simulator" / "sample.jpg"
_STORY: Final = (
    "Wide shot: morning light comes up over the hills, slow push in.",
    "Medium shot: the grass moves in the wind, the camera pans left.",
    "Close-up: a bird lands on a branch, shallow depth of field.",
    "Low angle: clouds pass quickly, static camera.",
    "Tracking shot: a hare runs through the meadow.",
    "Wide shot: the sun sets, the camera pulls back.",
)
_SHOTS: Final = 3
_SHOT_SECONDS: Final = 3
_ONE_SHOT_SECONDS: Final = 5
_SPEED: Final = 25.0
_LONGEST_SECONDS: Final = 300.0
_WAITING: Final = frozenset({"preparing", "submitting", "queued", "running"})


class _Refused(Exception):
    """The server refused a call; the message is what it said."""


@dataclass(frozen=True, slots=True)
class _Film:
    """What the demo asks for: a model, so many seconds for each shot, and the model's file where it was added."""

    endpoint: Endpoint
    seconds: tuple[int, ...]
    file: Path | None = None

    @property
    def shots(self) -> int:
        return len(self.seconds)

    @property
    def cuts(self) -> tuple[int, ...]:
        """Where the shots begin, in seconds, and where the last one ends."""
        return tuple(accumulate(self.seconds, initial=0))


def demo(image: str | None, model: str | None, shots: int | None) -> int:
    """
    Run a job of *shots* shots; 0 only if its video is on disk and is an mp4.

    Without *shots* the model decides: three where it takes shots, else one.

    Raises:
        SettingsError: An option cannot be used.
    """

    # Of the person's own settings, where endpoints were added, and what is chosen for the demo.
    added = added_endpoints(Settings.from_environment(_named("KLING_MCP_DATA_DIR")).data_dir)
    film = _film(model, shots, added)
    picture = Path(expanded(image)).absolute() if image else _SAMPLE
    if not picture.is_file():
        raise SettingsError(f"--image is {picture}, which is not a file.")
    chosen = _named("KLING_MCP_OUTPUT_DIR", "KLING_MCP_SIMULATOR_SPEED")
    settings = Settings.from_environment(chosen)
    videos = settings.output_dir if "KLING_MCP_OUTPUT_DIR" in chosen else None
    speed = settings.simulator_speed if "KLING_MCP_SIMULATOR_SPEED" in chosen else _SPEED
    return anyio.run(_demo, film, picture, videos or Path(tempfile.mkdtemp(prefix="kling-demo-")), speed)


def _named(*names: str) -> dict[str, str]:
    return {name: os.environ[name] for name in names if os.environ.get(name)}


def is_mp4(path: Path) -> bool:
    """Whether *path* is a file of whole MP4 boxes that has a header, an index and pictures (ISO/IEC 14496-12)."""
    found: list[bytes] = []
    with path.open("rb") as file:
        size, at = path.stat().st_size, 0
        while at < size:
            file.seek(at)
            head = file.read(16)
            length, kind = int.from_bytes(head[:4]), head[4:8]
            if length == 1:
                length = int.from_bytes(head[8:16])
            if length < 8 or at + length > size:
                return False
            found.append(kind)
            at += length
    return found[:1] == [b"ftyp"] and {b"moov", b"mdat"} <= set(found)


def _film(model: str | None, shots: int | None, added: AddedEndpoints) -> _Film:
    catalog = added.catalog
    try:
        endpoint = catalog.default if model is None else catalog.model(model, "image-to-video")
    except UnknownModel as error:
        raise SettingsError(f"--model is {model!r}. {error.next_step}") from None
    listed = endpoint.argument_of("shot")
    most = len(_STORY) if listed is not None else 1
    wanted = min(_SHOTS, most) if shots is None else shots
    if not 1 <= wanted <= most:
        takes = f"1 to {most}" if most > 1 else f"1 with {endpoint.model}"
        raise SettingsError(f"--shots is {wanted}. It takes {takes}.")
    length = endpoint.length
    if endpoint.mode != "image-to-video" or length is None:
        raise SettingsError(f"--model is {model!r}, which animates no picture.")
    each = _ONE_SHOT_SECONDS if wanted == 1 else min(_SHOT_SECONDS, max(length.lengths) // wanted)
    file = next((path for path, one in added.files if one is endpoint), None)
    return _Film(endpoint, (each,) * wanted, file)


async def _demo(film: _Film, picture: Path, videos: Path, speed: float) -> int:
    from mcp.client.client import Client
    from mcp.client.stdio import StdioServerParameters

    print(f"Picture   {picture}")
    with tempfile.TemporaryDirectory(prefix="kling-demo-state-", ignore_cleanup_errors=True) as state:
        if picture == _SAMPLE:
            # Installers link files from their caches, and the server takes no picture that has a second name.
            picture = Path(shutil.copy(picture, state))
        if film.file is not None:
            folder = anyio.Path(state, "data", FOLDER)
            await folder.mkdir(parents=True)
            shutil.copy(film.file, folder)
        # Neither the key nor the limits of the person at this machine have a part in it.
        mine = {name: value for name, value in os.environ.items() if not name.startswith(("FAL_", "KLING_MCP_"))}
        server = StdioServerParameters(
            command=sys.executable,
            args=["-m", "kling_mcp"],
            env={
                **mine,
                "KLING_MCP_BACKEND": "simulator",
                "KLING_MCP_SIMULATOR_SPEED": str(speed),
                "KLING_MCP_POLL_SECONDS": "0.1",
                "KLING_MCP_DATA_DIR": str(Path(state, "data")),
                "KLING_MCP_OUTPUT_DIR": str(videos),
                "KLING_MCP_INPUT_DIRS": str(picture.parent),
                "KLING_MCP_LOG_LEVEL": "ERROR",
            },
        )
        with anyio.fail_after(_LONGEST_SECONDS):
            async with Client(server) as client:
                try:
                    return await _play(client, film, picture, speed)
                except _Refused as refused:
                    # Caught in here: outside, the client's task groups have wrapped it.
                    print(f"Refused   {refused}")
                    return 1


async def _play(client: Client, film: _Film, picture: Path, speed: float) -> int:
    arguments = _arguments(film, picture)
    for number, (line, start, end) in enumerate(zip(_STORY, film.cuts, film.cuts[1:], strict=False), 1):
        print(f"Shot {number}    {start:>2}-{end} s  {line}")
    price = await _call(client, "estimate_cost", arguments)
    print(f"Price     {usd_text(price['estimated_usd'])}, at most {usd_text(price['ceiling_usd'])}: {price['basis']}")
    tool = "multi_shot_video" if film.shots > 1 else "image_to_video"
    job = await _call(client, tool, {**arguments, "max_cost_usd": price["ceiling_usd"]})
    if job["job_id"] is None:
        print(f"Stopped   {job['next_step']}")
        return 1
    print(f"Job       {job['job_id']} on {job['model']}")
    began = time.monotonic()
    progress = _Progress(film, Screen())
    while job["state"] in _WAITING or _unsaved(job):
        progress.queued(job["queue_position"])
        job = await _call(client, "get_job", {"job_id": job["job_id"], "wait_seconds": 1}, progress.said)
    progress.end(job["state"])
    return _report(job, time.monotonic() - began, speed)


def _arguments(film: _Film, picture: Path) -> dict[str, Any]:
    """The call of a tool, with sound where the model has a switch for it."""
    arguments: dict[str, Any] = {"image": str(picture), "model": film.endpoint.model}
    if film.endpoint.argument_of("sound") is not None:
        arguments["generate_audio"] = True
    if film.shots > 1:
        arguments["shots"] = [
            {"prompt": line, "duration": seconds} for line, seconds in zip(_STORY, film.seconds, strict=False)
        ]
    else:
        arguments |= {"prompt": _STORY[0], "duration": film.seconds[0]}
    return arguments


async def _call(client: Client, tool: str, arguments: dict[str, Any], progress: Any = None) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments, progress_callback=progress)
    if result.is_error or result.structured_content is None:
        raise _Refused(" ".join(getattr(block, "text", "") for block in result.content))
    return cast("dict[str, Any]", result.structured_content)


def _unsaved(job: dict[str, Any]) -> bool:
    return job["state"] == "completed" and job["video"]["saved_to"] is None and not job["warnings"]


class _Progress:
    """A bar with the film's cuts: redrawn on a terminal, a line for each thing that happens elsewhere."""

    def __init__(self, film: _Film, screen: Screen) -> None:
        self._film = film
        self._screen = screen
        self._place: int | None = None
        self._shot = 0

    def queued(self, position: int | None) -> None:
        """The place in fal's line, 0 for the next one to start."""
        if position is None or self._shot:
            return
        if self._screen.live or position != self._place:
            self._draw(0.0, f"in line, place {position + 1}")
        self._place = position

    async def said(self, progress: float, total: float | None, message: str | None) -> None:
        """What the server reports while a call waits."""
        if (found := rendered(message)) is not None:
            self._rendering(*found)

    def end(self, state: str) -> None:
        """The last state, on a line of its own."""
        if state == "completed":
            self._rendering(self._film.shots, 1.0)
        self._draw(1.0 if state == "completed" else 0.0, state)
        self._screen.end()

    def _rendering(self, shot: int, part: float) -> None:
        if self._screen.live:
            self._shot = shot
            self._draw(part, f"rendering shot {shot} of {self._film.shots}")
            return
        # Every shot has its line, also one that began and ended between two looks.
        for number in range(self._shot + 1, shot + 1):
            begins = self._film.cuts[number - 1] / self._film.cuts[-1]
            self._draw(begins, f"rendering shot {number} of {self._film.shots}")
            self._shot = number

    def _draw(self, part: float, words: str) -> None:
        line = f"          {bar(part, self._film.cuts)} {part:4.0%}  {words}"
        if self._screen.live:
            self._screen.draw([line])
        else:
            self._screen.write(line)


def _report(job: dict[str, Any], took_seconds: float, speed: float) -> int:
    saved = job["video"] and job["video"]["saved_to"]
    if not saved or not Path(saved).is_file() or not is_mp4(Path(saved)):
        reason = job["error"]["message"] if job["error"] else "; ".join(job["warnings"])
        print(f"Failed    {job['state']}: {reason or 'no mp4 was saved'}")
        return 1
    cost = job["cost"]
    paid = cost["actual_usd"] if cost["actual_usd"] is not None else cost["estimated_usd"]
    size_kb = Path(saved).stat().st_size / 1000
    print(f"Video     {saved}")
    print(f"          {size_kb:.0f} kB mp4, after {took_seconds:.0f} s at {speed:g} times fal.ai's speed")
    print(f"Cost      {usd_text(paid)}, simulated: nothing was charged")
    return 0
