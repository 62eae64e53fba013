"""Paths from a model's arguments: inside the allowed folders, or nothing."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kling_mcp.errors import InputRefused
from kling_mcp.media import allowed_paths, fs_windows
from kling_mcp.media.allowed_paths import AllowedFolder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CANARY = b"canary: this must never be read"
INSIDE = b"a picture inside"

ODD_NAMES = (
    "con.png", "a:b.png", "dot.", "space ", "~tilde.png", "back\\slash.png", "Screenshot 9.41.07\u202fAM.png",
    "two  blanks.png", "cafe\u0301.png", "Anna\u2019s \u2013 fox.png",
)  # fmt: skip


class PictureFolders:
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
        (self.allowed / "hidden-link.png").symlink_to(".dots/canary.png")
        (self.allowed / "far-link.png").symlink_to("sub/linked-back/../../secret/canary.png")
        (self.allowed / "sub" / "linked-back").symlink_to(self.allowed / "sub")
        os.link(self.canary, self.allowed / "hard.png")
        os.mkfifo(self.allowed / "pipe.png")
        (self.allowed / ".dots").mkdir()
        (self.allowed / ".dots" / "canary.png").write_bytes(CANARY)
        for name in ODD_NAMES:
            (self.allowed / name).write_bytes(INSIDE)
        (self.allowed / "empty.png").touch()

    def read(self, requested: str) -> bytes | None:
        """What was read; None when it was refused in the proper way."""
        try:
            return allowed_paths.read(requested, [self.allowed], max_bytes=1000, field="image").data
        except InputRefused as error:
            refusal = error
        assert refusal.field == "image"
        assert "KLING_MCP_INPUT_DIRS" in refusal.next_step
        assert str(self.allowed) in refusal.next_step
        assert str(self.secret) in requested or str(self.secret) not in str(refusal)
        return None


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> PictureFolders:
    return PictureFolders(tmp_path_factory.mktemp("tree"))


def hostile_paths(tree: PictureFolders) -> Iterator[str]:
    root, secret = str(tree.allowed), str(tree.secret)
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
        "hidden-link.png", "far-link.png", "empty.png", "sub", "con", "dot", "spac", "~", "~tilde",
        "", "missing.png", "picture.png/x", "a" * 300, "sub/" * 2000 + "x.png", "PICTURE.PNG", "picture.png\x00.png",
        "\u202egnp.erutcip", "picture.png::$DATA", "picture.png:stream", "nul",
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
    yield from ("", " ", "/", "//", "\x00", "x" * 5000, root, root + "/", str(tree.canary).upper())


def test_no_hostile_path_reads_anything(tree: PictureFolders) -> None:
    paths = list(dict.fromkeys(hostile_paths(tree)))

    assert len(paths) >= 500
    assert [path for path in paths if tree.read(path) is not None] == []


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
    tree: PictureFolders, pieces: list[str], glue: str, rooted: bool
) -> None:
    start = str(tree.allowed) if rooted else ""

    assert tree.read(start + glue + glue.join(pieces)) in {None, INSIDE}


@given(st.text(max_size=300))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_refused_as_a_path_or_is_one(tree: PictureFolders, text: str) -> None:
    assert tree.read(text) in {None, INSIDE}
    assert tree.read(f"{tree.allowed}/{text}") in {None, INSIDE}


def test_a_picture_in_an_allowed_folder_is_read_with_its_name(tree: PictureFolders) -> None:
    assert allowed_paths.read(f"{tree.allowed}/sub//picture.png", [tree.secret, tree.allowed], max_bytes=16) == (
        allowed_paths.Contents("picture.png", INSIDE)
    )


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("missing.png", "does not exist"),
        ("Picture.png", "does not exist. The nearest there: 'picture.png'"),
        ("PICTURE.PNG", "does not exist. The nearest there: 'picture.png'"),
        ("sbu/picture.png", "does not exist: there is no folder 'sbu'. The nearest there: 'sub'."),
        ("picture.png/x", "is or passes through a link, or something that is not a folder"),
        ("loop", "is or passes through a link"),
        ("hidden-link.png", "starts with a dot"),
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
        ("x\x07.png", "has a control character"),
        ("n" * 300, "is too long"),
        ("../secret/canary.png", "has '.' or '..' in it"),
    ],
)
def test_a_refusal_names_the_rule_and_the_setting_and_no_target(tree: PictureFolders, name: str, rule: str) -> None:
    (tree.allowed / "big.png").write_bytes(b"x" * 2000)
    if not (tree.allowed / "socket.png").exists():
        here = Path.cwd()
        os.chdir(tree.allowed)  # the address of a socket is short
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket.png")
        os.chdir(here)

    with pytest.raises(InputRefused, match="KLING_MCP_INPUT_DIRS") as refused:
        allowed_paths.read(f"{tree.allowed}/{name}", [tree.allowed], max_bytes=1000)

    assert rule in str(refused.value)
    assert "Nothing was charged." in str(refused.value)
    assert str(tree.canary) not in str(refused.value)


def test_a_readable_file_of_another_user_is_read(tree: PictureFolders) -> None:
    """In a container, what the person mounts often belongs to somebody else."""
    theirs = tree.allowed / "theirs.png"
    theirs.write_bytes(INSIDE)
    if os.geteuid() == 0:
        os.chown(theirs, 54321, 54321)

    assert tree.read(str(theirs)) == INSIDE


@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_that_only_windows_reads_otherwise_are_names_elsewhere(tree: PictureFolders, name: str) -> None:
    assert tree.read(f"{tree.allowed}/{name}") == INSIDE


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("Screenshot 9.41.07 AM.png", "Screenshot 9.41.07\u202fAM.png"),
        ("Screenshot\u00a09.41.07\u2009AM.png", "Screenshot 9.41.07\u202fAM.png"),
        (r"Screenshot 9.41.07\u202fAM.png", "Screenshot 9.41.07\u202fAM.png"),
        (r"Screenshot\xa09.41.07 AM.png", "Screenshot 9.41.07\u202fAM.png"),
        ("two blanks.png", "two  blanks.png"),
        ("two\\ \\ blanks.png", "two  blanks.png"),
        ("caf\u00e9.png", "cafe\u0301.png"),
        ("Anna's - fox.png", "Anna\u2019s \u2013 fox.png"),
        ("pic\u200bture.png", "picture.png"),
        ("picture.png\n", "picture.png"),
        ("sub\u00a0/picture.png", "picture.png"),
        ("inner-link.png", "picture.png"),
        ("sub/linked-back/picture.png", "picture.png"),
    ],
)
def test_the_one_file_that_can_be_meant_is_read(tree: PictureFolders, written: str, meant: str) -> None:
    for path in (f"{tree.allowed}/{written}", f"  '{tree.allowed}/{written}' "):
        found = allowed_paths.read(path, [tree.allowed], max_bytes=1000)
        assert found == allowed_paths.Contents(meant if "link" not in written else found.name, INSIDE)


def test_of_several_files_that_can_be_meant_none_is_taken_and_they_are_named(tmp_path: Path) -> None:
    for blank in ("\u00a0", "\u202f"):
        (tmp_path / f"a{blank}fox.png").write_bytes(INSIDE)

    with pytest.raises(InputRefused, match=r"does not exist\. The nearest there: 'a\\") as refused:
        allowed_paths.read(f"{tmp_path}/a fox.png", [tmp_path], max_bytes=100)

    assert all(name in str(refused.value) for name in (r"'a\u202ffox.png'", r"'a\xa0fox.png'"))


def test_a_file_that_macos_has_moved_to_the_cloud_is_told_apart_from_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / ".fox.png.icloud").write_bytes(b"bplist00")

    with pytest.raises(InputRefused, match="is in the cloud and not on this machine yet") as refused:
        allowed_paths.read(f"{tmp_path}/fox.png", [tmp_path], max_bytes=100)

    assert "downloads it" in refused.value.next_step


def test_a_file_whose_name_is_no_text_is_found_by_what_is_shown_of_it(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")).write_bytes(INSIDE)

    for shown in ("caf?.png", "caf\ufffd.png", r"caf\xe9.png", r"caf\udce9.png"):
        assert allowed_paths.read(f"{tmp_path}/{shown}", [tmp_path], max_bytes=100).data == INSIDE


def test_a_link_from_one_allowed_folder_into_another_is_followed_and_one_out_of_them_is_not(tmp_path: Path) -> None:
    for name in ("one", "two", "else"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "fox.png").write_bytes(INSIDE if name == "two" else CANARY)
        if name != "one":
            (tmp_path / "one" / f"to {name}.png").symlink_to(tmp_path / name / "fox.png")
            (tmp_path / "one" / name).symlink_to(f"../{name}")
    folders = [tmp_path / "one", tmp_path / "two"]

    for way in ("to two.png", "two/fox.png"):
        assert allowed_paths.read(f"{tmp_path}/one/{way}", folders, max_bytes=100) == allowed_paths.Contents(
            "fox.png", INSIDE
        )
        with pytest.raises(InputRefused, match="link that leads out of the folders"):
            allowed_paths.read(f"{tmp_path}/one/{way}", folders[:1], max_bytes=100)
        with pytest.raises(InputRefused, match="link that leads out of the folders"):
            allowed_paths.read(f"{tmp_path}/one/{way.replace('two', 'else')}", folders, max_bytes=100)


def test_a_setting_and_a_path_may_reach_the_same_folder_by_different_ways(tmp_path: Path) -> None:
    """A home folder that is a link, or /var, which is /private/var."""
    (tmp_path / "private" / "Pictures").mkdir(parents=True)
    (tmp_path / "private" / "fox.png").write_bytes(CANARY)
    (tmp_path / "private" / "Pictures" / "fox.png").write_bytes(INSIDE)
    for name in ("var", "home"):
        (tmp_path / name).symlink_to("private")
    folder = tmp_path / "var" / "Pictures"

    for way in ("home", "private", "var"):
        assert allowed_paths.read(f"{tmp_path}/{way}/Pictures/fox.png", [folder], max_bytes=100).data == INSIDE
        with pytest.raises(InputRefused, match="is outside the folders"):
            allowed_paths.read(f"{tmp_path}/{way}/fox.png", [folder], max_bytes=100)


def test_a_tilde_is_the_home_folder(tmp_path: Path, tree: PictureFolders) -> None:
    """The fixture of every test makes a folder of its own the home folder."""
    (tmp_path / "Pictures").mkdir()
    (tmp_path / "Pictures" / "fox.png").write_bytes(INSIDE)
    (tmp_path / "fox.png").write_bytes(CANARY)

    for home in ("~", "$HOME", "${HOME}", "%USERPROFILE%", "'~"):
        path = f"{home}/Pictures/fox.png{home[0] if home[0] == chr(39) else ''}"
        assert allowed_paths.read(path, [tmp_path / "Pictures"], max_bytes=100).data == INSIDE
    for outside in ("~/fox.png", "~/Pictures/../fox.png", "~root/x.png", "~", "~~/Pictures/fox.png"):
        with pytest.raises(InputRefused):
            allowed_paths.read(outside, [tmp_path / "Pictures"], max_bytes=100)


def test_a_refusal_lists_the_folders_that_may_be_read_from(tmp_path: Path) -> None:
    many = [tmp_path / str(number) for number in range(20)]

    for folders, told in (
        (many[:2], f"{many[0]}, {many[1]}; or an https URL"),
        (many, f"{many[7]}, 12 more; or"),
        ([], "names no folder"),
    ):
        with pytest.raises(InputRefused) as refused:
            allowed_paths.read("/elsewhere/fox.png", folders, max_bytes=100)
        assert told in refused.value.next_step


@pytest.mark.parametrize(
    ("number", "rule", "step"),
    [
        (errno.EDEADLK, "is in the cloud", "downloads it"),
        (errno.ETIMEDOUT, "does not answer, or in the cloud", "downloads it"),
        (errno.ESTALE, "does not answer", "connected again"),
        (errno.ENOTCONN, "does not answer", "connected again"),
        (errno.EHOSTDOWN, "does not answer", "connected again"),
        (errno.ENODEV, "does not answer", "connected again"),
        (errno.EIO, "does not answer, or is damaged", "connected again"),
        (errno.EPERM, "kept from this program by the operating system", "Privacy & Security"),
        (errno.EACCES, "may not be read by the account", "leave to read it"),
        (errno.EMFILE, "too many files are open", "a little later"),
        (errno.ENFILE, "too many files are open", "a little later"),
        (errno.EBUSY, "in use by another program", "a little later"),
        (errno.ENAMETOOLONG, "too long", "KLING_MCP_INPUT_DIRS"),
        (errno.EPROTO, "cannot be read (Protocol error)", "copy it"),
        (None, "does not answer, or is damaged", "connected again"),
    ],
)
def test_what_keeps_a_file_from_being_read_is_told_with_what_helps(
    tree: PictureFolders, number: int | None, rule: str, step: str
) -> None:
    def unable(_: Path, __: Sequence[str]) -> int:
        raise OSError(number, "in the library's words")

    with pytest.raises(InputRefused) as refused:
        allowed_paths.read(f"{tree.allowed}/picture.png", [tree.allowed], max_bytes=100, open_inside=unable)

    assert rule in refused.value.what
    assert step in refused.value.next_step
    assert "library" not in str(refused.value)


@pytest.mark.parametrize(("number", "rule"), [(362, "is in the cloud"), (395, "is in the cloud"), (32, "is in use")])
def test_what_windows_says_of_a_file_is_told_in_the_same_words(number: int, rule: str) -> None:
    error = OSError(errno.EACCES, "in the library's words")
    error.winerror = number  # pyright: ignore[reportAttributeAccessIssue]  # elsewhere than on Windows nobody declares it

    assert rule in allowed_paths.explained(error)[0]


def test_whether_a_file_outside_exists_makes_no_difference(tree: PictureFolders) -> None:
    texts: set[str] = set()
    for name in ("canary.png", "nothing.png"):
        with pytest.raises(InputRefused) as refused:
            allowed_paths.read(f"{tree.secret}/{name}", [tree.allowed], max_bytes=1000)
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
def test_a_path_of_the_assistants_sandbox_is_explained(tree: PictureFolders, path: str) -> None:
    with pytest.raises(InputRefused, match="assistant's own sandbox, which this server cannot see") as refused:
        allowed_paths.read(path, [tree.allowed], max_bytes=1000)

    assert "save the picture on their own machine" in refused.value.next_step
    assert "https URL" in refused.value.next_step


def test_a_folder_that_the_operator_reached_by_a_link_works_under_both_names(tmp_path: Path) -> None:
    real = tmp_path / "disk" / "pictures"
    real.mkdir(parents=True)
    (real / "a.png").write_bytes(INSIDE)
    (tmp_path / "Pictures").symlink_to(real)
    folder = AllowedFolder.at(tmp_path / "Pictures")

    for path in (tmp_path / "Pictures" / "a.png", real / "a.png"):
        assert allowed_paths.read(str(path), [folder], max_bytes=100).data == INSIDE


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

    assert allowed_paths.read(f"{link}/a.png", [folder], max_bytes=100).data == b"first"
    (tmp_path / "first").rename(tmp_path / "moved")
    (tmp_path / "first").symlink_to(tmp_path / "second")
    with pytest.raises(InputRefused, match="is or passes through a link"):
        allowed_paths.read(f"{link}/a.png", [folder], max_bytes=100)


def test_the_deepest_allowed_folder_counts_so_a_hidden_one_can_be_allowed(tmp_path: Path) -> None:
    hidden = tmp_path / ".pictures"
    hidden.mkdir()
    (hidden / "a.png").write_bytes(INSIDE)

    assert allowed_paths.read(str(hidden / "a.png"), [hidden, tmp_path], max_bytes=100).data == INSIDE


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        (r"C:\Users\Me\Pictures\cat.png", ("cat.png",)),
        (r"c:/users/ME/pictures/trip/cat.png", ("trip", "cat.png")),
        (r"C:\Users\Me\Pictures\cat.png:stream", None),
        (r"C:\Users\Me\Pictures\PROGRA~1.png", None),
        (r"C:\Users\Me\Pictures\..\x.png", None),
        (r"C:\Users\Me\Pictures\nul.png", None),
        (r"C:\Users\Me\Pictures\.hidden.png", None),
        (r"C:\Users\Me\Pictures\dot.", None),
        (r"C:\Users\Me\Pictures\~draft.png", ("~draft.png",)),
        (r"C:\Users\Me\Pictures\cat.png ", ("cat.png",)),
        (r"C:\Users\Me\Pictures\trip \cat.png", None),
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
            allowed_paths.locate(path, [folder], windows=True)
    else:
        assert allowed_paths.locate(path, [folder], windows=True) == (folder, inside)


def test_the_module_for_windows_has_nothing_to_offer_elsewhere() -> None:
    assert not hasattr(fs_windows, "open_inside")
