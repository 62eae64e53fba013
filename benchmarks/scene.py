"""A simulated fal, and our server pointed at it with everything of its own."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.wire import OURS, Server
from kling_mcp.simulator.app import Simulator, Switches
from kling_mcp.simulator.render import sample_video
from kling_mcp.simulator.serve import running_in_thread

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from kling_mcp.simulator.serve import BaseUrls

__all__ = ["ENDPOINT", "KEY", "MEMORY", "MODEL_SECONDS", "arguments", "body", "our_server", "simulated"]

ENDPOINT: Final = "fal-ai/kling-video/o3/standard/image-to-video"
KEY: Final = "id:secret"
MODEL_SECONDS: Final = 94.0
"""How long the simulator makes a job of five seconds with the default model last at speed 1."""

MEMORY: Final = Path("/dev/shm")
"""A file system on which a sync costs nothing, where the machine has one."""

_PICTURE: Final = "https://v3.fal.media/files/benchmarks/boat.png"


@contextmanager
def simulated(
    *, speed: float = 10.0, concurrency: int = 2000, immediate: bool = False
) -> Generator[tuple[Simulator, BaseUrls]]:
    """fal on this machine, in a thread; *immediate* lets work begin at once."""
    switches = Switches(dispatch_seconds=0.0) if immediate else Switches()
    simulator = Simulator(speed=speed, concurrency=concurrency, renderer=sample_video, switches=switches)
    with running_in_thread(simulator) as urls:
        yield simulator, urls


@contextmanager
def our_server(
    urls: BaseUrls,
    environment: Mapping[str, str] | None = None,
    *,
    command: Sequence[str] = OURS,
    disk: Path | None = None,
) -> Generator[Server]:
    """Our server with folders of its own on *disk*, after the handshake."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=disk)))
        server = stack.enter_context(
            Server(
                command,
                {
                    "FAL_KEY": KEY,
                    **urls.environment(),
                    "KLING_MCP_DATA_DIR": str(folder / "state"),
                    "KLING_MCP_OUTPUT_DIR": str(folder / "videos"),
                    "KLING_MCP_DAILY_BUDGET_USD": "1000000",
                    "KLING_MCP_CONFIRM": "never",
                    **(environment or {}),
                },
            )
        )
        server.open()
        yield server


def arguments(number: int) -> dict[str, Any]:
    """A call like no other; the picture is a link, so that nothing is uploaded."""
    return {"image": _PICTURE, "prompt": f"Boat {number} drifts out of the harbour while the fog lifts.", "duration": 5}


def body(number: int) -> dict[str, Any]:
    """The same as fal's own body."""
    return {"image_url": _PICTURE, "prompt": arguments(number)["prompt"], "duration": "5", "generate_audio": True}
