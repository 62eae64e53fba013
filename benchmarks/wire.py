"""
A server on standard input and output, spoken to in bare lines of JSON-RPC.

The SDK's own client costs more than what is measured here, so this one only
writes lines and reads lines. It speaks the 2025-11-25 era, which most hosts speak.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["FLOOR", "OURS", "Server", "clean_environment"]

OURS: Final = (sys.executable, "-m", "kling_mcp")
FLOOR: Final = (sys.executable, str(Path(__file__).with_name("floor.py")))

_LONGEST_SECONDS: Final = 120.0


class Server:
    """
    A child process that serves MCP; it ends with the block.

    Attributes:
        notices: What arrived without being asked for: the time since 1970 and the message.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self.notices: list[tuple[float, dict[str, Any]]] = []
        self._buffer = b""
        self._number = 0
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**clean_environment(), **(environment or {})},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._input.close()
        self._output.close()

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def open(self) -> None:
        """Shake hands."""
        self._write(self._request("initialize", _HELLO), _INITIALIZED)
        self._answer()

    def list_tools_at_once(self) -> dict[str, Any]:
        """Shake hands and ask for the tools without waiting between; the answer to the latter."""
        self._write(self._request("initialize", _HELLO), _INITIALIZED, self._request("tools/list", {}))
        return self._answer()

    def ask(self, method: str, params: Mapping[str, object]) -> dict[str, Any]:
        """The answer to one request."""
        self._write(self._request(method, params))
        return self._answer()

    def call(self, tool: str, **arguments: object) -> dict[str, Any]:
        """The result of one tool."""
        return self.ask("tools/call", {"name": tool, "arguments": arguments})

    def send(self, tool: str, **arguments: object) -> None:
        """Call a tool and let its answer come among the notices."""
        self._write(self._request("tools/call", {"name": tool, "arguments": arguments}))

    def listen(self, seconds: float) -> None:
        """Note what arrives within *seconds*."""
        until = time.monotonic() + seconds
        while (line := self._line(until)) is not None:
            self.notices.append((time.time(), json.loads(line)))

    def peak_mb(self) -> float:
        """The most memory that the process has held, in MB."""
        return self._kilobytes("VmHWM") / 1000

    def now_mb(self) -> float:
        """The memory that the process holds, in MB."""
        return self._kilobytes("VmRSS") / 1000

    def cpu_seconds(self) -> float:
        """The processor time that the process has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _kilobytes(self, name: str) -> int:
        lines = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name))

    @property
    def _input(self) -> Any:
        return self._process.stdin

    @property
    def _output(self) -> Any:
        return self._process.stdout

    def _request(self, method: str, params: Mapping[str, object]) -> dict[str, object]:
        self._number += 1
        return {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params}

    def _write(self, *messages: Mapping[str, object]) -> None:
        self._input.write(b"".join(json.dumps(message).encode() + b"\n" for message in messages))
        self._input.flush()

    def _answer(self) -> dict[str, Any]:
        until = time.monotonic() + _LONGEST_SECONDS
        while (line := self._line(until)) is not None:
            message = json.loads(line)
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(message["error"])
                return message["result"]
            self.notices.append((time.time(), message))
        raise TimeoutError

    def _line(self, until: float) -> bytes | None:
        """The next line, or None when the deadline passes first."""
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._output], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                return None
            chunk = os.read(self._output.fileno(), 65536)
            if not chunk:
                raise EOFError(f"the server ended with {self._process.wait()}")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


def clean_environment() -> dict[str, str]:
    """
    This process's environment without a key, a setting of ours or a proxy.

    Bytecode is written, as everywhere but in some containers: else the first
    start compiles what every later one would find compiled.
    """
    mine = ("FAL_", "KLING_MCP_", "PYTHONDONTWRITEBYTECODE")
    return {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(mine) and not name.lower().endswith("_proxy")
    }


_HELLO: Final = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "benchmarks", "version": "1"},
}
_INITIALIZED: Final = {"jsonrpc": "2.0", "method": "notifications/initialized"}
