"""Paths from a model's arguments: inside the allowed folders, or nothing."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kling_mcp.errors import InputRefused
from kling_mcp.media import confined, windows
from kling_mcp.media.confined import AllowedFolder

if TYPE_CHECKING:
    from collections.abc import Iterator

CANARY = b"canary: this must never be read"
INSIDE = b"a picture inside"


class House:
    """An allowed folder with a picture in it, a canary beside it, and every way in that came to mind."""

    def __init__(self, base: Path) -> None:
        self.allowed = base / "safe"
        self.secret = base / "secret"
        (self.allowed / "sub").mkdir(parents=True)
        self.secret.mkdir()
        (base / "safe-evil").mkdir()
        self.canary = self.secret / "canary.png"
        for file in (self.canary, base / "safe-evil" / "canary.png", self.allowed / ".hidden.png"):
            file.write_bytes(CANARY)
        for name in ("picture.png", "sub/picture.png"):
            (self.allowed / name).write_bytes(INSIDE)
        (self.allowed / "link.png").symlink_to(self.canary)
        (self.allowed / "linked").symlink_to(self.secret)
        (self.allowed / "loop").symlink_to("loop")
        (self.allowed / "inner-link.png").symlink_to("picture.png")
        os.link(self.canary, self.allowed / "hard.png")
        os.mkfifo(self.allowed / "pipe.png")
        (self.allowed / ".dots").mkdir()
        (self.allowed / ".dots" / "canary.png").write_bytes(CANARY)
        for name in ("con.png", "a:b.png", "dot.", "space ", "~tilde.png", "back\\slash.png"):
            (self.allowed / name).write_bytes(CANARY)
        (self.allowed / "empty.png").touch()

    def read(self, requested: str) -> bytes | None:
        """What was read; None when it was refused in the proper way."""
        try:
            return confined.read(requested, [self.allowed], max_bytes=1000, field="image").data
        except InputRefused as error:
            refusal = error
        assert refusal.field == "image"
        assert "KLING_MCP_INPUT_DIRS" in refusal.next_step
        assert str(self.secret) in requested or str(self.secret) not in str(refusal)
        return None


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp("house"))


def hostile_paths(house: House) -> Iterator[str]:
    root, secret = str(house.allowed), str(house.secret)
    targets = ["canary.png", "../secret/canary.png", "secret/canary.png"]
    climbs = [
        "..",
        "../",
        "./..",
        "sub/..",
        "sub/../..",
        "sub/../../secret",
        "linked",
        "linked/.",
        "sub//../..",
        "...",
        "loop",
    ]
    for climb in climbs:
        for target in targets:
            for glue in ("/", "//", "/./", "\\", "/\x00/", "/ /", "/%2e%2e/", "/..;/"):
                yield f"{root}/{climb}{glue}{target}"
    for name in (
        "link.png", "hard.png", "pipe.png", ".hidden.png", ".dots/canary.png", "linked/canary.png", "loop/canary.png",
        "inner-link.png", "con.png", "a:b.png", "dot.", "space ", "~tilde.png", "back\\slash.png", "empty.png", "sub",
        "", "missing.png", "picture.png/x", "a" * 300, "sub/" * 2000 + "x.png", "PICTURE.PNG", "picture.png\x00.png",
        "picture.png\n", "\u202egnp.erutcip", "picture.png::$DATA", "picture.png:stream", "nul",
        "COM1.png", "lpt9", "\ud800.png",
    ):  # fmt: skip
        yield f"{root}/{name}"
    for path in (
        secret,
        f"{root}-evil",
        "/etc",
        "/proc/self",
        "/dev",
        "/proc/1/root",
        f"/proc/self/root{secret}",
        "/dev/fd",
    ):
        for name in ("canary.png", "passwd", "environ", "zero", "0", "mem", "fd/0", "cwd/canary.png", "hosts"):
            yield f"{path}/{name}"
            yield f"/{path}/{name}"
            yield path + "\\" + name
    for prefix in (
        "~",
        "~root",
        "$HOME",
        "%USERPROFILE%",
        "",
        ".",
        "..",
        "C:",
        "C:\\",
        "\\\\?\\",
        "\\\\.\\",
        "//server/share",
        "\\\\server\\share",
        "file:",
        "/.",
        "/~",
    ):
        for name in ("canary.png", "picture.png", ".ssh/id_rsa", "secret/canary.png", root + "/picture.png" + "/x"):
            yield f"{prefix}/{name}"
            yield f"{prefix}{name}"
    yield from ("", " ", "/", "//", "\x00", "x" * 5000, root, root + "/", str(house.canary).upper())


def test_no_hostile_path_reads_anything(house: House) -> None:
    paths = list(dict.fromkeys(hostile_paths(house)))

    assert len(paths) >= 500
    assert [path for path in paths if house.read(path) is not None] == []


PIECES = [
    "..",
    ".",
    "sub",
    "linked",
    "link.png",
    "hard.png",
    "secret",
    "canary.png",
    "loop",
    "~",
    ".dots",
    "",
    " ",
    "safe",
    "con",
    "\x00",
    "safe-evil",
    "pipe.png",
]


@given(
    st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=6)), max_size=8),
    st.sampled_from(["/", "//", "\\", "/./"]),
    st.booleans(),
)
@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_combination_of_pieces_reads_what_is_outside(
    house: House, pieces: list[str], glue: str, rooted: bool
) -> None:
    start = str(house.allowed) if rooted else ""

    assert house.read(start + glue + glue.join(pieces)) in {None, INSIDE}


@given(st.text(max_size=300))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_refused_as_a_path_or_is_one(house: House, text: str) -> None:
    assert house.read(text) in {None, INSIDE}
    assert house.read(f"{house.allowed}/{text}") in {None, INSIDE}


def test_a_picture_in_an_allowed_folder_is_read_with_its_name(house: House) -> None:
    assert confined.read(f"{house.allowed}/sub//picture.png", [house.secret, house.allowed], max_bytes=16) == (
        confined.Contents("picture.png", INSIDE)
    )


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("missing.png", "does not exist"),
        ("link.png", "is or passes through a link"),
        ("linked/canary.png", "is or passes through a link"),
        ("hard.png", "is a hard link"),
        ("pipe.png", "is not a regular file"),
        ("socket.png", "is not a regular file"),
        ("sub", "is not a regular file"),
        ("empty.png", "is empty"),
        ("big.png", "has 2,000 bytes; at most 1,000 are read"),
        (".hidden.png", "starts with a dot"),
        ("sub/../picture.png", "has '.' or '..' in it"),
        ("con.png", "has the name of a device"),
        ("a:b.png", "has a ':'"),
        ("dot.", "ends with a dot or a space"),
        ("~tilde.png", "has a '~'"),
        ("back\\slash.png", "backslashes are not read"),
        ("x\x07.png", "has a control character"),
        ("n" * 300, "is too long"),
        ("../secret/canary.png", "has '.' or '..' in it"),
    ],
)
def test_a_refusal_names_the_rule_and_the_setting_and_no_target(house: House, name: str, rule: str) -> None:
    (house.allowed / "big.png").write_bytes(b"x" * 2000)
    if not (house.allowed / "socket.png").exists():
        here = Path.cwd()
        os.chdir(house.allowed)  # the address of a socket is short
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket.png")
        os.chdir(here)

    with pytest.raises(InputRefused, match="KLING_MCP_INPUT_DIRS") as refused:
        confined.read(f"{house.allowed}/{name}", [house.allowed], max_bytes=1000)

    assert rule in str(refused.value)
    assert "Nothing was charged." in str(refused.value)
    assert str(house.canary) not in str(refused.value)


def test_a_file_of_another_user_is_refused(house: House) -> None:
    theirs = house.allowed / "theirs.png"
    if os.geteuid() == 0:
        theirs.write_bytes(CANARY)
        os.chown(theirs, 54321, 54321)
        path, folder = theirs, house.allowed
    else:
        path, folder = Path("/etc/passwd"), Path("/etc")

    with pytest.raises(InputRefused, match="belongs to another user"):
        confined.read(str(path.resolve()), [folder], max_bytes=1_000_000)


def test_whether_a_file_outside_exists_makes_no_difference(house: House) -> None:
    texts: set[str] = set()
    for name in ("canary.png", "nothing.png"):
        with pytest.raises(InputRefused) as refused:
            confined.read(f"{house.secret}/{name}", [house.allowed], max_bytes=1000)
        texts.add(str(refused.value).replace(name, "…"))

    assert len(texts) == 1


@pytest.mark.parametrize(
    "path",
    [
        "/mnt/user-data/uploads/cat.png",
        "/home/claude/cat.png",
        "/mnt/data/cat.png",
        "sandbox:/mnt/data/cat.png",
        "/mnt/data",
    ],
)
def test_a_path_of_the_assistants_sandbox_is_explained(house: House, path: str) -> None:
    with pytest.raises(InputRefused, match="assistant's own sandbox, which this server cannot see") as refused:
        confined.read(path, [house.allowed], max_bytes=1000)

    assert "save the picture on their own machine" in refused.value.next_step
    assert "https URL" in refused.value.next_step


def test_a_folder_that_the_operator_reached_by_a_link_works_under_both_names(tmp_path: Path) -> None:
    real = tmp_path / "disk" / "pictures"
    real.mkdir(parents=True)
    (real / "a.png").write_bytes(INSIDE)
    (tmp_path / "Pictures").symlink_to(real)
    folder = AllowedFolder.at(tmp_path / "Pictures")

    for path in (tmp_path / "Pictures" / "a.png", real / "a.png"):
        assert confined.read(str(path), [folder], max_bytes=100).data == INSIDE


def test_a_folder_stays_where_it_was_when_the_program_looked(tmp_path: Path) -> None:
    """What a link points to later does not matter."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(name.encode())
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "first")
    folder = AllowedFolder.at(link)

    link.unlink()
    link.symlink_to(tmp_path / "second")

    assert confined.read(f"{link}/a.png", [folder], max_bytes=100).data == b"first"
    (tmp_path / "first").rename(tmp_path / "moved")
    (tmp_path / "first").symlink_to(tmp_path / "second")
    with pytest.raises(InputRefused, match="is or passes through a link"):
        confined.read(f"{link}/a.png", [folder], max_bytes=100)


def test_the_deepest_allowed_folder_counts_so_a_hidden_one_can_be_allowed(tmp_path: Path) -> None:
    hidden = tmp_path / ".pictures"
    hidden.mkdir()
    (hidden / "a.png").write_bytes(INSIDE)

    assert confined.read(str(hidden / "a.png"), [hidden, tmp_path], max_bytes=100).data == INSIDE


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        (r"C:\Users\Me\Pictures\cat.png", ("cat.png",)),
        (r"c:/users/ME/pictures/trip/cat.png", ("trip", "cat.png")),
        (r"C:\Users\Me\Pictures\cat.png:stream", None),
        (r"C:\Users\Me\Pictures\PROGRA~1.png", None),
        (r"C:\Users\Me\Pictures\..\x.png", None),
        (r"C:\Users\Me\Pictures\nul.png", None),
        (r"C:\Users\Me\Pictures\cat.png ", None),
        (r"C:\Users\Me\Pictures-evil\cat.png", None),
        (r"C:Pictures\cat.png", None),
        (r"\\server\share\cat.png", None),
        (r"\\?\C:\Users\Me\Pictures\cat.png", None),
        (r"\\.\C:\Users\Me\Pictures\cat.png", None),
        (r"\Users\Me\Pictures\cat.png", None),
        (r"D:\Users\Me\Pictures\cat.png", None),
        ("/mnt/user-data/uploads/cat.png", None),
    ],
)
def test_windows_paths_are_judged_by_windows_rules(path: str, inside: tuple[str, ...] | None) -> None:
    root = Path(r"C:\Users\Me\Pictures")
    folder = AllowedFolder(root, root)

    if inside is None:
        with pytest.raises(InputRefused):
            confined.locate(path, [folder], windows=True)
    else:
        assert confined.locate(path, [folder], windows=True) == (folder, inside)


def test_the_module_for_windows_has_nothing_to_offer_elsewhere() -> None:
    assert not hasattr(windows, "open_inside")
