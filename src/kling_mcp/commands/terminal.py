"""Terminal output of the commands: bars, paragraphs, and a block of lines that is redrawn in place."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
import unicodedata
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

__all__ = ["Screen", "bar", "clip", "paragraph", "plain", "rendered", "terminal_size"]

_BAR: Final = 30
_LOG_LINE: Final = re.compile(r"Shot (\d+) of \d+: (\d+)%")
"""The simulator's log line, which is more exact than the elapsed time."""


def terminal_size() -> os.terminal_size:
    """The columns and lines of the terminal; 80 and 24 where there is none."""
    return shutil.get_terminal_size((80, 24))


class Screen:
    """
    Where a command writes.

    On a terminal it keeps a block of lines at the bottom, which `draw` replaces; `write` adds text above it. Elsewhere
    only the text appears.

    Args:
        out: Standard output if not given.
        size: Called before each drawing, because a window can be resized.
    """

    def __init__(self, out: TextIO | None = None, size: Callable[[], os.terminal_size] = terminal_size) -> None:
        self._out = sys.stdout if out is None else out
        self._size = size
        self._drawn: Sequence[str] = ()
        self.live: Final = self._out.isatty()

    @property
    def width(self) -> int:
        """Columns that a line may have; at least 40."""
        return max(self._size().columns, 40)

    def draw(self, lines: Sequence[str]) -> None:
        """Replace the block with *lines*, as many as fit. Does nothing where there is no terminal."""
        if not self.live:
            return
        columns, rows = self._size()
        # A line of full width may wrap, and a block higher than the terminal cannot be redrawn.
        shown = [clip(line, columns - 1) for line in lines]
        if len(shown) > rows - 1:
            fit = max(rows - 2, 0)
            shown = [*shown[:fit], clip(f"… and {len(shown) - fit} more lines", columns - 1)]
        if shown != self._drawn:
            self._replace(shown)

    def write(self, text: str) -> None:
        """Write *text*, one or several lines, above the block."""
        drawn = self._drawn
        if drawn:
            self._replace(())
        print(text, file=self._out, flush=True)
        if drawn:
            self._replace(drawn)

    def end(self) -> None:
        """Keep the block as it is, and continue below it."""
        if self._drawn:
            self._drawn = ()
            print(file=self._out, flush=True)

    def _replace(self, lines: Sequence[str]) -> None:
        up = len(self._drawn) - 1
        top = f"\033[{up}A" if up > 0 else ""
        below = "\033[J" if len(self._drawn) > max(len(lines), 1) else ""
        frame = "\n".join(f"\r\033[K{line}" for line in lines or [""])
        print(f"{top}{below}{frame}", end="", file=self._out, flush=True)
        self._drawn = lines


def bar(part: float, cuts: Sequence[int] = (), cells: int = _BAR) -> str:
    """
    A bar of which *part*, from 0 to 1, is filled.

    Args:
        cuts: The start of each shot and the end of the last, in seconds; a line is drawn between shots.
        cells: Its width in characters, without those lines.
    """
    drawn = ["█" if cell < round(part * cells) else "░" for cell in range(cells)]
    for cut in reversed(cuts[1:-1]):
        drawn.insert(round(cut / cuts[-1] * cells), "│")
    return "".join(drawn)


def rendered(note: str | None) -> tuple[int, float] | None:
    """The shot being rendered and the part of the video that is done, if *note* has them."""
    found = _LOG_LINE.search(note or "")
    return None if found is None else (int(found[1]), min(int(found[2]) / 100, 1.0))


def plain(text: str) -> str:
    r"""*text* on one line without control characters; undecodable bytes of a file name as ``\xe9``."""
    readable = text.encode("utf-8", "backslashreplace").decode()
    line = " ".join(readable.split())
    return "".join(character for character in line if character.isprintable())


def clip(text: str, columns: int) -> str:
    """*text* cut to *columns* of a terminal. Chinese characters and most emoji take two columns."""
    if text.isascii() and len(text) <= columns:
        return text
    used, end = 0, 0
    for at, character in enumerate(text):
        used += _columns(character)
        if used <= columns - 1:
            end = at + 1
    return text if used <= columns else f"{text[:end].rstrip()}…"


def paragraph(head: str, text: str, width: int) -> str:
    """*text* wrapped at *width*, with *head* before the first line and the others indented as far."""
    body = textwrap.wrap(text, max(width - len(head), 20), break_long_words=False, break_on_hyphens=False)
    return (head + f"\n{' ' * len(head)}".join(body)).rstrip()


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
