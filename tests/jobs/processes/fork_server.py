"""The test's side of `warm`: starts processes, talks to them, and sees them end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["ForkServer", "Process"]

ROOT = Path(__file__).parents[3]


class ForkServer:
    """Makes processes by forking one that is warm."""

    def __init__(self, home: Path) -> None:
        # An empty folder of certificates: reading the real ones would take most of a child's life.
        certificates = home / "certificates"
        certificates.mkdir(parents=True)
        ours, theirs = socket.socketpair()
        with theirs:
            self._program = subprocess.Popen(
                [sys.executable, "-m", "tests.jobs.processes.warm", str(theirs.fileno())],
                cwd=ROOT,
                env={
                    "PATH": os.environ["PATH"],
                    "HOME": str(home),
                    "PYTHONPATH": str(ROOT),
                    "SSL_CERT_DIR": str(certificates),
                },
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self._control = ours
        self._answers = ours.makefile("rb")
        self._answer()

    def start(
        self, program: str, environment: Mapping[str, str], errors: Path | None = None, **options: object
    ) -> Process:
        """
        Start one of `programs.PROGRAMS`.

        Args:
            environment: Its settings; nothing is inherited.
            errors: A file that its standard error is appended to.
            options: What the program is to do.
        """
        stdin, to_process = os.pipe()
        from_process, stdout = os.pipe()
        stderr = os.open(errors or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        order = {"program": program, "environment": dict(environment), "options": options}
        try:
            socket.send_fds(self._control, [json.dumps(order).encode() + b"\n"], [stdin, stdout, stderr])
            return Process(self.status, self._answer()["pid"], to_process, from_process)
        finally:
            for descriptor in (stdin, stdout, stderr):
                os.close(descriptor)

    def status(self, pid: int) -> int:
        """The exit code of a process that has ended, or the negative number of the signal that ended it."""
        self._control.sendall(json.dumps({"status": pid}).encode() + b"\n")
        return self._answer()["exit_code"]

    def close(self) -> None:
        """Let the warm process go."""
        self._answers.close()
        self._control.close()
        self._program.wait(10)

    def _answer(self) -> dict[str, Any]:
        return json.loads(self._answers.readline())


class Process:
    """
    A process with pipes at its standard input and output; the block's end kills what is left of it.

    Args:
        status: Tells the exit code of a process that has ended.
    """

    def __init__(self, status: Callable[[int], int], pid: int, to_process: int, from_process: int) -> None:
        self.pid = pid
        self._status = status
        self._to: int | None = to_process
        self._from = from_process
        self._unread = b""
        self._exit_code: int | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.signal(signal.SIGKILL)
        with anyio.CancelScope(shield=True), anyio.fail_after(10):
            await self.gone()
        self.close_input()
        os.close(self._from)

    def write(self, data: bytes) -> None:
        """Give it *data*; whether it still reads is its own affair."""
        if self._to is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._to, data)

    def close_input(self) -> None:
        """The end of its standard input."""
        if self._to is not None:
            os.close(self._to)
            self._to = None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it is known to be gone."""
        if self._exit_code is None:
            os.kill(self.pid, number)

    async def line(self) -> bytes:
        """
        The next line that it writes.

        Raises:
            EOFError: It has ended.
        """
        while b"\n" not in self._unread:
            await self._read()
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    async def gone(self) -> int:
        """Wait until it has ended; its exit code, or the negative number of the signal that ended it."""
        with contextlib.suppress(EOFError):
            while self._exit_code is None:
                await self._read()
        if self._exit_code is None:
            self._exit_code = self._status(self.pid)
        return self._exit_code

    async def _read(self) -> None:
        await anyio.wait_readable(self._from)
        data = os.read(self._from, 65536)
        if not data:
            raise EOFError
        self._unread += data
