"""A terminal that a test looks at and types into, by tmux."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from pathlib import Path

__all__ = ["TMUX", "Screen", "screen"]

TMUX = shutil.which("tmux")


class Screen:
    """What a program shows. It is looked at whenever the program writes."""

    def __init__(self, socket: Path, written: int) -> None:
        self._socket = socket
        self._written = written

    def until(self, *words: str, within_seconds: float = 60) -> str:
        """Look until one of *words* is there, however the lines are broken; which one it is."""
        deadline = time.monotonic() + within_seconds
        while not (found := [one for one in words if one in (text := self.text())]):
            left = deadline - time.monotonic()
            assert left > 0, f"none of {words} came in {within_seconds:g} seconds: {text}"
            if select.select([self._written], [], [], left)[0]:
                os.read(self._written, 1 << 16)
        return found[0]

    def read_by_a_person(self) -> None:
        """Take the time that a person takes to read a question: an answer within a second is a program's."""
        select.select([], [], [], 1.3)

    def text(self) -> str:
        """All that is shown, with single blanks."""
        return " ".join(self._tmux("capture-pane", "-p").split())

    def type(self, *keys: str) -> None:
        """Press *keys*, by tmux's names."""
        self._tmux("send-keys", *keys)

    def _tmux(self, *arguments: str) -> str:
        done = subprocess.run(
            [str(TMUX), "-S", str(self._socket), "-f", os.devnull, *arguments],
            capture_output=True,
            encoding="utf-8",
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def screen(command: Sequence[str], *, env: Mapping[str, str], cwd: Path, folder: Path) -> Generator[Screen]:
    """*command* in a terminal of 150 by 50 characters, with nothing but *env*; its socket and pipe are in *folder*."""
    pipe = folder / "written"
    os.mkfifo(pipe)
    written = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    shown = Screen(folder / "tmux", written)
    variables = [f"{name}={value}" for name, value in env.items()]
    try:
        shown._tmux("new-session", "-d", "-x", "150", "-y", "50", "-c", str(cwd), "env", "-i", *variables, *command)
        try:
            shown._tmux("pipe-pane", "-O", f"cat > '{pipe}'")
            yield shown
        finally:
            shown._tmux("kill-server")
    finally:
        os.close(written)
