# ruff: noqa: RUF001, E501 - letters that look like others are the point, and a table reads better in full lines
"""Web addresses of pictures: public https hosts by name, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kling_mcp.errors import InputRefused
from kling_mcp.media.addresses import check_url

if TYPE_CHECKING:
    from collections.abc import Iterator

# Spellings of addresses and of local names; each is tried with several things around it.
ADDRESSES = (
    "127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "0x7f.1", "017700000001", "0177.0.0.1",
    "0177.0x0.0.1", "127.0.0.1.", "0", "0.0.0.0", "0x0", "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254",
    "0xa9fea9fe", "2852039166", "0251.0376.0251.0376", "100.64.0.1", "8.8.8.8", "255.255.255.255", "1.2.3.4.5",
    "127.0.0.0x1", "999.999.999.999", "1.1.1", "0x", "１２７.0.0.1", "127。0。0。1", "①②⑦.0.0.1", "127．0．0．1",
    "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:0:0:1]", "[fe80::1%25eth0]", "[fd00::1]",
    "[2606:4700::1111]", "[64:ff9b::7f00:1]", "[::1", "::1", "[v1.x]", "[127.0.0.1]", "[example.com]",
)  # fmt: skip
NAMES = (
    "localhost", "LOCALHOST", "localhost.", "a.localhost", "localhost.localdomain", "printer.local", "nas.lan",
    "router.home", "x.internal", "metadata.google.internal", "x.home.arpa", "1.0.0.127.in-addr.arpa", "intranet",
    "x.intranet", "x.corp", "x.private", "x.test", "x.invalid", "x.onion", "host", "com", "127.0.0.1.nip.io",
    "x.sslip.io", "localtest.me", "a.lvh.me", "ⓛocalhost", "ｌｏｃａｌｈｏｓｔ", "localhoſt", "", ".", "..", "a..b",
    ".example.com", "-a.com", "a-.com", "exa mple.com", "exam%70le.com", "%31%32%37.0.0.1", "a_b@c.com", "a" * 64 + ".com",
    "a." * 130 + "com", "example.com\\.evil.org", "xn--a.com%00.org", "例え。local", "☃.☃.localhost", "a\u200d.localhost",
)  # fmt: skip
WHOLE = (
    "", "https:", "https:/", "https://", "https:///", "https:///x.png", "https:example.com", "https:/example.com/x",
    "http://example.com/x.png", "HTTP://example.com", "ftp://example.com/x", "file:///etc/passwd", "data:image/png;base64,",
    "javascript:alert(1)", "gopher://example.com", "//example.com/x.png", "example.com/x.png", "kling://jobs/x/last-frame",
    "https://example.com:0/", "https://example.com:99999/",
    "https://example.com:-1/", "https://example.com:４４４/", "https://example.com:443x/", "https://user@example.com/",
    "https://user:pass@example.com/", "https://example.com@evil.org/", "https://example.com:443@evil.org/",
    "https://@example.com/", "https://:@example.com/", "https://example.com\\@evil.org/",
    "https://exa\tmple.com/", "https://exam\nple.com/", "https://example.com/a\nb", "\x00https://example.com/", "https://exam ple.com/a",
    "https://example.com/\u202egnp", "https://example.com/\u200b", "https://example.com/\ud800", "https:// example.com/",
    "https://example.com/" + "a" * 8192, "https://example.com/" + "ä" * 2000, "https://example.com／x", "https://example.com＠evil.org/",
    "https://example.com？x", "https://[", "https://]", "https://[]/",
)  # fmt: skip


def hostile_urls() -> Iterator[str]:
    for host in (*ADDRESSES, *NAMES):
        for form in (
            "https://{}/x.png",
            "https://{}",
            "HTTPS://{}:443/",
            "https://{}?q=1",
            "https://{}#x",
            "https://u@{}/",
        ):
            yield form.format(host)
    yield from WHOLE


def accepted(url: str) -> str | None:
    try:
        return check_url(url, field="image")
    except InputRefused:
        return None


def test_no_hostile_address_is_taken() -> None:
    urls = list(dict.fromkeys(hostile_urls()))

    assert len(urls) >= 500
    assert [url for url in urls if accepted(url) is not None] == []


@given(
    st.sampled_from(["https://", "HTTPS://", "https:", "http://", ""]),
    st.text(alphabet="a0.:@[]/%\\#?x-1。２ⓛ\u200d ", max_size=24),
    st.sampled_from(["", "/", ":443", ":80", ".local", ".com/x", "@127.0.0.1", "#@a.b"]),
)
@settings(max_examples=800, deadline=None)
def test_what_is_taken_is_plain_and_stays_the_same(scheme: str, middle: str, end: str) -> None:
    plain = accepted(scheme + middle + end)

    if plain is not None:
        parts = urlsplit(plain)
        assert parts.scheme == "https"
        host = parts.hostname or ""
        assert parts.netloc in {host, f"{host}:{parts.port}"}
        assert "." in host
        assert not host.rpartition(".")[2].isdecimal()
        assert plain.isascii()
        assert parts.fragment == ""
        assert accepted(plain) == plain


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("https://example.com/a.png", "https://example.com/a.png"),
        ("HTTPS://Example.COM:443/A%20b.png?x=1&y=[2]#part", "https://example.com/A%20b.png?x=1&y=[2]"),
        ("https://example.com.", "https://example.com/"),
        ("https://Bücher.example.com/ä.png?q=ü", "https://xn--bcher-kva.example.com/%C3%A4.png?q=%C3%BC"),
        ("https://straße.de/", "https://xn--strae-oqa.de/"),
        ("https://v3b.fal.media/files/b/cat.jpeg", "https://v3b.fal.media/files/b/cat.jpeg"),
        ("https://my_bucket.s3.amazonaws.com/a", "https://my_bucket.s3.amazonaws.com/a"),
        ("https://notlocalhost.com/", "https://notlocalhost.com/"),
        ("https://1password.com/", "https://1password.com/"),
        ("https://cdn.example.com:8443/a.png", "https://cdn.example.com:8443/a.png"),
        (
            " https://example.com/my cat 100%.png?name=my cat\n",
            "https://example.com/my%20cat%20100%25.png?name=my%20cat",
        ),
        ("https://example.com/a.png?x=1&amp;sig=%2B", "https://example.com/a.png?x=1&sig=%2B"),
        ("www.example.com/a.png", "https://www.example.com/a.png"),
        ("https://example.com/a?sig=" + "x" * 7000, "https://example.com/a?sig=" + "x" * 7000),
        (
            "https://github.com/me/art/blob/main/in/my cat.png?raw=true",
            "https://raw.githubusercontent.com/me/art/main/in/my%20cat.png",
        ),
        ("https://github.com/me/art/raw/main/cat.png", "https://github.com/me/art/raw/main/cat.png"),
        ("https://github.com/user-attachments/assets/0a1b", "https://github.com/user-attachments/assets/0a1b"),
        ("https://github.com/me.png?size=400", "https://github.com/me.png?size=400"),
        ("https://tmpfiles.org/123/cat.png", "https://tmpfiles.org/dl/123/cat.png"),
        ("https://pixeldrain.com/u/abc", "https://pixeldrain.com/api/file/abc"),
        ("https://gitlab.com/a/b/c/-/blob/main/cat.png", "https://gitlab.com/a/b/c/-/raw/main/cat.png"),
        (
            "https://huggingface.co/datasets/a/b/blob/main/cat.png",
            "https://huggingface.co/datasets/a/b/resolve/main/cat.png",
        ),
        (
            "https://www.dropbox.com/scl/fi/abc/cat.png?rlkey=k&dl=0",
            "https://www.dropbox.com/scl/fi/abc/cat.png?rlkey=k&dl=1",
        ),
        (
            "https://www.dropbox.com/scl/fi/abc/cat.png?dl=0&rlkey=k",
            "https://www.dropbox.com/scl/fi/abc/cat.png?dl=1&rlkey=k",
        ),
        ("https://www.dropbox.com/s/abc/cat.png", "https://www.dropbox.com/s/abc/cat.png?dl=1"),
        (
            "https://dropbox.com/scl/fi/abc/cat.png?rlkey=k&raw=1",
            "https://dropbox.com/scl/fi/abc/cat.png?rlkey=k&raw=1",
        ),
        (
            "https://commons.wikimedia.org/wiki/File:Red_fox.jpg",
            "https://commons.wikimedia.org/wiki/Special:FilePath/Red_fox.jpg",
        ),
        ("https://drive.google.com/uc?export=download&id=1abc", "https://drive.google.com/uc?export=download&id=1abc"),
        ("https://i.imgur.com/abc.jpg", "https://i.imgur.com/abc.jpg"),
        ("https://imgur.com/abc.jpg", "https://imgur.com/abc.jpg"),
        ("https://dropbox.com.example.org/x", "https://dropbox.com.example.org/x"),
    ],
)
def test_a_public_address_comes_back_in_its_plain_spelling(url: str, plain: str) -> None:
    assert check_url(url) == plain


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("example.com/x.png", "does not start with https://"),
        ("https://example.com:0/", "has a port that does not exist"),
        ("ftp://example.com/x.png", "is an ftp address"),
        ("blob:https://example.com/6b1e", "exists only inside one browser tab"),
        ("https://user:secret-word@example.com/", "has a user name or password"),
        ("https://0x7f.1/", "has an address literal"),
        ("https://[::1]/", "has an address literal"),
        ("https://printer.local/", "has a host of a local network"),
        ("https://x.nip.io/", "stands for an address"),
        ("https://a..b/", "has no valid host name"),
        ("https://example.com/" + "x" * 9000, "has 9,020 characters; at most 8,192 are taken"),
    ],
)
def test_a_refusal_names_the_rule_and_keeps_a_password_to_itself(url: str, rule: str) -> None:
    with pytest.raises(InputRefused, match="https URL of a public host") as refused:
        check_url(url, field="end_image")

    assert rule in refused.value.what
    assert refused.value.field == "end_image"
    assert "secret-word" not in str(refused.value)
    assert len(str(refused.value)) < 700


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://example.com/a.png", "plain http"),
        ("https://drive.google.com/file/d/1abc/view?usp=sharing", "Google Drive"),
        ("https://drive.google.com/open?id=1abc", "Google Drive"),
        ("https://photos.app.goo.gl/abc", "Google Photos"),
        ("https://www.dropbox.com/scl/fo/abc/folder?dl=0", "Dropbox"),
        ("https://www.dropbox.com/home/cat.png", "Dropbox"),
        ("https://github.com/me/art", "GitHub"),
        ("https://github.com/me/art/tree/main/in", "GitHub"),
        ("https://github.com/me/art/commit/0a1b2c", "GitHub"),
        ("https://github.com/me/art/discussions/3", "GitHub"),
        ("https://github.com/me/art/releases/tag/v1", "GitHub"),
        ("https://github.com/me", "GitHub"),
        ("https://gofile.io/d/abc", "Gofile"),
        ("https://yadi.sk/i/abc", "Yandex Disk"),
        ("https://pan.baidu.com/s/abc", "Baidu"),
        ("https://db.tt/abc", "Dropbox"),
        ("https://gist.github.com/me/123", "GitHub"),
        ("https://1drv.ms/i/s!abc", "OneDrive"),
        ("https://onedrive.live.com/?id=1", "OneDrive"),
        ("https://company-my.sharepoint.com/:i:/g/personal/x", "SharePoint"),
        ("https://www.icloud.com/iclouddrive/0abc", "iCloud"),
        ("https://share.icloud.com/photos/0abc", "iCloud"),
        ("https://imgur.com/a/abc", "Imgur"),
        ("https://imgur.com/gallery/abc", "i.imgur.com"),
        ("https://imgur.com/abc", "Imgur"),
        ("https://www.google.com/imgres?imgurl=https://x.example/a.png", "Google"),
        ("https://unsplash.com/photos/abc", "images.unsplash.com"),
        ("https://www.instagram.com/p/abc/", "Instagram"),
        ("https://example.com/gallery/cat.HTML", "web page"),
    ],
)
def test_a_page_that_only_shows_a_picture_is_refused_with_what_works(url: str, name: str) -> None:
    with pytest.raises(InputRefused, match="Download the file to one of the folders") as refused:
        check_url(url, field="image")

    assert name in refused.value.what


@pytest.mark.parametrize(
    ("url", "told", "step"),
    [
        (
            "https://www.youtube.com/watch?v=abc",
            "is a page of YouTube and not a video; fal.ai would",
            "Download the file",
        ),
        ("https://github.com/a/b", "The address of the video itself begins with https://raw.githubuser", "Download"),
        ("https://example.com/clip.html", "is a web page and not a video", "Download the file"),
        ("https://localhost/clip.mp4", "has a host of a local network", "such as https://example.com/video.mp4"),
    ],
)
def test_the_address_of_a_video_is_refused_as_one(url: str, told: str, step: str) -> None:
    with pytest.raises(InputRefused) as refused:
        check_url(url, what="video")

    assert told in refused.value.what
    assert "picture" not in refused.value.what + refused.value.next_step
    assert step in refused.value.next_step
