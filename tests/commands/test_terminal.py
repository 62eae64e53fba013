"""What is drawn, where, and how wide; a terminal is an object that keeps what it gets."""

from __future__ import annotations

import io
import os

import pytest

from kling_mcp.commands.terminal import Screen, bar, clip, paragraph, plain


class Terminal(io.StringIO):
    """A terminal that keeps everything that was drawn on it, and of which `shown` reads what is to be seen."""

    def isatty(self) -> bool:
        return True

    @property
    def shown(self) -> list[str]:
        lines, row = [""], 0
        text = self.getvalue()
        while text:
            if text.startswith("\033["):
                count, text = text[2:].lstrip("0123456789"), text
                number = text[2 : len(text) - len(count)]
                action, text = count[0], count[1:]
                if action == "A":
                    row -= int(number)
                elif action == "K":
                    lines[row] = ""
                else:
                    assert action == "J"
                    lines[row:] = [""]
                continue
            character, text = text[0], text[1:]
            if character == "\n":
                row += 1
                if row == len(lines):
                    lines.append("")
            elif character != "\r":
                lines[row] += character
        return lines


def size(columns: int = 80, lines: int = 24) -> os.terminal_size:
    return os.terminal_size((columns, lines))


def test_what_is_drawn_stays_in_its_place_and_what_is_written_goes_above_it() -> None:
    screen = Screen(terminal := Terminal(), size)

    screen.draw(["one", "two", "three"])
    screen.draw(["one, longer", "two"])
    assert terminal.shown == ["one, longer", "two"]
    screen.write("done: three")
    assert terminal.shown == ["done: three", "one, longer", "two"]
    screen.draw([])
    screen.write("done: all")
    screen.end()

    assert terminal.shown == ["done: three", "done: all", ""]


def test_the_same_is_not_drawn_twice() -> None:
    screen = Screen(terminal := Terminal(), size)

    screen.draw(["one"])
    before = terminal.getvalue()
    screen.draw(["one"])

    assert terminal.getvalue() == before


def test_nothing_is_drawn_where_there_is_no_terminal() -> None:
    screen = Screen(out := io.StringIO(), size)

    screen.draw(["one"])
    screen.write("done")
    screen.end()

    assert out.getvalue() == "done\n"


def test_lines_fit_the_terminal_in_width_and_height() -> None:
    screen = Screen(terminal := Terminal(), lambda: size(20, 4))

    screen.draw([f"line {number} is longer than the terminal" for number in range(5)])

    assert terminal.shown == ["line 0 is longer t…", "line 1 is longer t…", "… and 3 more lines"]


@pytest.mark.parametrize(
    ("part", "cuts", "drawn"),
    [
        (0.0, (), "░░░░░░"),
        (0.5, (), "███░░░"),
        (1.0, (), "██████"),
        (0.5, (0, 3, 9), "██│█░░░"),
        (1.0, (0, 3, 6, 9), "██│██│██"),
    ],
)
def test_a_bar_has_its_part_filled_and_a_line_between_shots(part: float, cuts: tuple[int, ...], drawn: str) -> None:
    assert bar(part, cuts, cells=6) == drawn


@pytest.mark.parametrize(
    ("text", "columns", "cut"),
    [
        ("a fox", 5, "a fox"),
        ("a fox looks up", 5, "a fo…"),
        ("a fox looks up", 7, "a fox…"),
        ("ein Füchs", 9, "ein Füchs"),
        ("狐が見上げる", 12, "狐が見上げる"),
        ("狐が見上げる", 11, "狐が見上げ…"),
        ("狐が見上げる", 6, "狐が…"),
        ("e\u0301e\u0301e\u0301", 3, "e\u0301e\u0301e\u0301"),
    ],
)
def test_a_text_is_cut_to_the_columns_that_it_takes(text: str, columns: int, cut: str) -> None:
    assert clip(text, columns) == cut


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\nlines\tand  blanks", "two lines and blanks"),
        ("red \033[31m\a\u202e\u200b", "red [31m"),
        ("caf\udce9", r"caf\udce9"),
        ("狐 🦊 é", "狐 🦊 é"),
    ],
)
def test_a_text_from_outside_cannot_steer_the_terminal(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_a_paragraph_stands_beside_its_head() -> None:
    told = paragraph("Prompt    ", "A fox looks up and then night falls", 30)

    assert told.splitlines() == ["Prompt    A fox looks up and", "          then night falls"]
