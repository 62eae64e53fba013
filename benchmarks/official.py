"""
fal's own clients, each as a program of its own, against the simulator.

`wait` submits a job and waits for its result as the client's documentation says,
with the polling that the client does by default. `submit` only submits.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from benchmarks.peers import node_with_fal
from benchmarks.scene import ENDPOINT, KEY, body
from benchmarks.wire import clean_environment
from kling_mcp.simulator.serve import Certificate, running_in_thread

if TYPE_CHECKING:
    from kling_mcp.simulator.app import Simulator

__all__ = ["CLIENTS", "Client", "run"]

Client = Literal["fal-client 1.0.3 (Python)", "@fal-ai/client 1.10.1 (JavaScript)"]
CLIENTS: tuple[Client, ...] = ("fal-client 1.0.3 (Python)", "@fal-ai/client 1.10.1 (JavaScript)")

_PYTHON = Path(__file__).with_name("official_python.py")
_JAVASCRIPT = Path(__file__).with_name("official.mjs")
_LONGEST_SECONDS = 180


def run(client: Client, simulator: Simulator, what: Literal["wait", "submit"], number: int) -> float | None:
    """
    Do *what* with *client*; when it was done, in seconds since 1970.

    None where the client is not installed. A client that gives up is done then.
    """
    given = {"endpoint": ENDPOINT, "key": KEY, "what": what, "body": body(number)}
    if client == CLIENTS[0]:
        # It speaks TLS to whatever host its environment names.
        with tempfile.TemporaryDirectory() as folder:
            tls = _certificate(Path(folder))
            with running_in_thread(simulator, tls=tls) as urls:
                host = {"FAL_QUEUE_RUN_HOST": f"{urls.media_host}/queue", "SSL_CERT_FILE": str(tls.certificate)}
                return _ended([sys.executable, str(_PYTHON), json.dumps(given)], host)
    node = node_with_fal()
    if node is None:
        return None
    command, packages = node
    with running_in_thread(simulator) as urls:
        given |= {"queue": urls.queue, "packages": str(packages)}
        return _ended([command, str(_JAVASCRIPT), json.dumps(given)], {})


def _ended(command: list[str], environment: dict[str, str]) -> float:
    program = subprocess.run(
        command,
        env={**clean_environment(), **environment},
        capture_output=True,
        text=True,
        timeout=_LONGEST_SECONDS,
        check=False,
    )
    if not program.stdout.strip():
        raise RuntimeError(program.stderr[-2000:])
    return float(json.loads(program.stdout)["at"])


def _certificate(folder: Path) -> Certificate:
    """A certificate for 127.0.0.1 that is its own authority, good for a day."""
    from tests.simulator.official import throw_away_certificate

    return throw_away_certificate(folder)
