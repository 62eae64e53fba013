"""
Web addresses of pictures.

fal.ai fetches them, not this program. So an address is no way into this machine, but it is one into fal's network and
one out for a secret. Only https addresses of named public hosts pass, and what passes is returned in one spelling, so
that the host the user is shown is the host that is asked. A page that shows a picture is not the picture: fal would
fetch the page, and the job would fail after it is paid for. Pages of known hosts become the address of the file where
that is certain, and are refused otherwise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

from kling_mcp.errors import InputRefused

__all__ = ["check_url"]

MAX_URL_CHARACTERS: Final = 8192
"""Signed links of clouds have a few thousand; most servers read 8 kB."""

_UNSEEN: Final = re.compile(r"[^\S ]|[\\\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
# What browsers and C libraries read as an address: the last part is a number (https://url.spec.whatwg.org/#ends-in-a-number-checker).
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_LOCAL_ENDINGS: Final = (
    "localhost",
    "localdomain",
    "local",
    "internal",
    "intranet",
    "private",
    "corp",
    "home",
    "lan",
    "home.arpa",
    "in-addr.arpa",
    "ip6.arpa",
    "onion",
    "invalid",
    "test",
    "alt",
)
# Public names that mean whatever address stands in them, or this machine.
_ADDRESS_NAMES: Final = (
    "nip.io",
    "sslip.io",
    "xip.io",
    "traefik.me",
    "localtest.me",
    "lvh.me",
    "vcap.me",
    "lacolhost.com",
)
_LONE_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
# RFC 3986, section 3.3 and 3.4. What is escaped already stays as it is.
_PLAIN_IN_PATH: Final = "/%:@!$&'()*+,;=~-._"
_PLAIN_IN_QUERY: Final = f"{_PLAIN_IN_PATH}?[]"
_EXAMPLES: Final = {"picture": "picture.jpg", "video": "video.mp4", "audio file": "sound.mp3"}
_SAVE_IT: Final = (
    "Download the file to one of the folders that KLING_MCP_INPUT_DIRS names and give its path, or give an address "
    "that opens the file alone in a browser window where nobody is signed in."
)
_SCHEMES: Final = {
    "http": "is plain http, which anybody on the way can read and change; only https is taken.",
    "blob": "is a blob: address, which exists only inside one browser tab.",
    "ftp": "is an ftp address; fal.ai fetches over https only.",
    "s3": "is an S3 address and not a link; a presigned https link to the object works.",
    "gs": "is a Cloud Storage address and not a link; a signed https link to the object works.",
    "cid": "means an attachment of a mail, which this program cannot see.",
    "attachment": "means an attachment of a chat, which this program cannot see.",
    "content": "means a file inside an app of a phone, which this program cannot see.",
    "ipfs": "is an IPFS address; the https address of it at a gateway works.",
}
_SCHEME_STEPS: Final = {
    "http": "If the same address works with https:// in a browser, give that. If not: " + _SAVE_IT,
    "s3": _SAVE_IT,
    "gs": _SAVE_IT,
}


@dataclass(frozen=True, slots=True)
class _Page:
    """
    Pages of a host that are not the file they show.

    Args:
        host: The end of the host's name.
        path: What the path and query of such a page look like.
        name: What the page is called.
        file: The address of the file, where it is certain: host, path and query, filled from *path*.
        hint: How the address of the file itself begins, where there is one.
    """

    host: str
    path: re.Pattern[str]
    name: str
    file: str | None = None
    hint: str | None = None


def _page(host: str, path: str, name: str, *, file: str | None = None, hint: str | None = None) -> _Page:
    return _Page(host, re.compile(path, re.IGNORECASE), name, file, hint)


# Paths are matched from their beginning. The first page that fits counts.
_PAGES: Final = (
    _page("github.com", r"/([^/]+/[^/]+)/blob/([^?]+)", "GitHub", file=r"raw.githubusercontent.com/\1/\2"),
    _page("github.com", r"/(?!user-attachments/|[^/]+/[^/]+/(?:raw|releases/download|assets|files)/|[^/?]+\.png\b"
          r"|[^?]*[?&]raw=(?:true|1)\b)", "GitHub",
          hint="raw.githubusercontent.com"),
    _page("gist.github.com", r"/(?!.*/raw/)", "GitHub", hint="gist.githubusercontent.com/…/raw/…"),
    _page("gitlab.com", r"/(.+)/-/blob/([^?]+)", "GitLab", file=r"gitlab.com/\1/-/raw/\2"),
    _page("bitbucket.org", r"/([^/]+/[^/]+)/src/([^?]+)", "Bitbucket", file=r"bitbucket.org/\1/raw/\2"),
    _page("codeberg.org", r"/([^/]+/[^/]+)/src/([^?]+)", "Codeberg", file=r"codeberg.org/\1/raw/\2"),
    _page("huggingface.co", r"/(.+)/blob/([^?]+)", "Hugging Face", file=r"huggingface.co/\1/resolve/\2"),
    # https://help.dropbox.com/share/force-download: dl=1 is the file, dl=0 or nothing its page.
    _page("dropbox.com", r"/(?:s|scl/fi)/[^?]*\?(?:.*&)?(?:raw|dl)=1\b", "Dropbox", file=""),
    _page("dropbox.com", r"/((?:s|scl/fi)/[^?]+)\?(.*&)?dl=0(&.*)?$", "Dropbox",
          file=r"www.dropbox.com/\1?\2dl=1\3"),
    _page("dropbox.com", r"/((?:s|scl/fi)/[^?]+)\?(.+)$", "Dropbox", file=r"www.dropbox.com/\1?\2&dl=1"),
    _page("dropbox.com", r"/((?:s|scl/fi)/[^?]+)$", "Dropbox", file=r"www.dropbox.com/\1?dl=1"),
    _page("dropbox.com", r"/", "Dropbox"),
    _page("commons.wikimedia.org", r"/wiki/File:([^?]+)", "Wikimedia Commons",
          file=r"commons.wikimedia.org/wiki/Special:FilePath/\1"),
    _page("wikipedia.org", r"/wiki/", "Wikipedia", hint="upload.wikimedia.org"),
    _page("drive.google.com", r"/(?!uc\?(?:.*&)?id=|thumbnail\?)", "Google Drive"),
    _page("docs.google.com", r"/(?!uc\?)", "Google Docs"),
    _page("photos.google.com", r"/", "Google Photos"),
    _page("photos.app.goo.gl", r"/", "Google Photos"),
    _page("google.com", r"/(?:imgres|search|url)\b", "Google's search"),
    _page("bing.com", r"/(?:images/)?search\b", "Bing's search"),
    _page("duckduckgo.com", r"/\?", "DuckDuckGo's search"),
    _page("1drv.ms", r"/", "OneDrive"),
    _page("onedrive.live.com", r"/(?!download)", "OneDrive"),
    _page("sharepoint.com", r"/(?!.*[?&]download=1)", "SharePoint"),
    _page("icloud.com", r"/", "iCloud"),
    _page("box.com", r"/(?!shared/static/)", "Box"),
    _page("mega.nz", r"/", "MEGA"),
    _page("mediafire.com", r"/(?:file|view|folder)/", "MediaFire"),
    _page("wetransfer.com", r"/", "WeTransfer"),
    _page("we.tl", r"/", "WeTransfer"),
    _page("tmpfiles.org", r"/(?:dl/)?(\d+/[^?]+)", "tmpfiles.org", file=r"tmpfiles.org/dl/\1"),
    _page("pixeldrain.com", r"/u/([^/?]+)$", "Pixeldrain", file=r"pixeldrain.com/api/file/\1"),
    _page("gofile.io", r"/d/", "Gofile"),
    _page("db.tt", r"/", "Dropbox"),
    _page("yadi.sk", r"/", "Yandex Disk"),
    _page("disk.yandex.com", r"/[a-z]/", "Yandex Disk"),
    _page("disk.yandex.ru", r"/[a-z]/", "Yandex Disk"),
    _page("pan.baidu.com", r"/s/", "Baidu"),
    _page("drive.proton.me", r"/", "Proton Drive"),
    _page("swisstransfer.com", r"/", "SwissTransfer"),
    _page("fromsmash.com", r"/", "Smash"),
    _page("gemini.google.com", r"/", "Gemini"),
    _page("claude.ai", r"/", "Claude"),
    _page("t.me", r"/", "Telegram"),
    _page("pcloud.link", r"/publink", "pCloud"),
    _page("transfernow.net", r"/", "TransferNow"),
    _page("imgur.com", r"/(?:a|gallery|t|r)/|/[^/.?]+/?(?:\?|$)", "Imgur", hint="i.imgur.com"),
    _page("ibb.co", r"/[^/.?]+/?(?:\?|$)", "ImgBB", hint="i.ibb.co"),
    _page("postimg.cc", r"/(?:gallery/)?[^/.?]+/?(?:\?|$)", "Postimages", hint="i.postimg.cc"),
    _page("prnt.sc", r"/", "Lightshot"),
    _page("gyazo.com", r"/[0-9a-f]{32}/?(?:\?|$)", "Gyazo", hint="i.gyazo.com"),
    _page("flickr.com", r"/photos/", "Flickr", hint="live.staticflickr.com"),
    _page("flic.kr", r"/", "Flickr", hint="live.staticflickr.com"),
    _page("unsplash.com", r"/(?:[a-z]{2}/)?photos/(?!.*/download)", "Unsplash", hint="images.unsplash.com"),
    _page("pexels.com", r"/(?:[a-z-]+/)?photo/", "Pexels", hint="images.pexels.com"),
    _page("pixabay.com", r"/(?:[a-z]{2}/)?(?:photos|illustrations|vectors)/", "Pixabay", hint="cdn.pixabay.com"),
    _page("giphy.com", r"/(?:gifs|clips|stickers)/", "GIPHY", hint="i.giphy.com"),
    _page("tenor.com", r"/(?:[a-z-]+/)?view/", "Tenor", hint="media.tenor.com"),
    _page("pinterest.com", r"/pin/", "Pinterest", hint="i.pinimg.com"),
    _page("pin.it", r"/", "Pinterest", hint="i.pinimg.com"),
    _page("instagram.com", r"/", "Instagram"),
    _page("facebook.com", r"/", "Facebook"),
    _page("x.com", r"/", "X", hint="pbs.twimg.com"),
    _page("twitter.com", r"/", "X", hint="pbs.twimg.com"),
    _page("reddit.com", r"/", "Reddit", hint="i.redd.it"),
    _page("tumblr.com", r"/(?!.*\.(?:jpe?g|png|gif|webp|pnj)\b)", "Tumblr", hint="64.media.tumblr.com"),
    _page("deviantart.com", r"/", "DeviantArt", hint="images-wixmp-….wixmp.com"),
    _page("artstation.com", r"/artwork/", "ArtStation", hint="cdna.artstation.com"),
    _page("behance.net", r"/gallery/", "Behance"),
    _page("midjourney.com", r"/jobs/", "Midjourney", hint="cdn.midjourney.com"),
    _page("discord.com", r"/channels/", "Discord", hint="cdn.discordapp.com"),
    _page("slack.com", r"/(?:archives|files)", "Slack"),
    _page("figma.com", r"/(?:file|design|proto)/", "Figma"),
    _page("canva.com", r"/design/", "Canva"),
    _page("notion.so", r"/(?!image/)", "Notion"),
    _page("youtube.com", r"/", "YouTube", hint="i.ytimg.com"),
    _page("youtu.be", r"/", "YouTube", hint="i.ytimg.com"),
    _page("vimeo.com", r"/", "Vimeo"),
    _page("tiktok.com", r"/", "TikTok"),
    _page("chatgpt.com", r"/", "ChatGPT"),
    _page("fal.ai", r"/(?:models|dashboard)\b", "fal.ai", hint="v3.fal.media"),
)  # fmt: skip
# Hosts below these names that serve files and no pages.
_FILE_HOSTS: Final = (
    "i.imgur.com",
    "i.ibb.co",
    "i.postimg.cc",
    "i.gyazo.com",
    "i.giphy.com",
    "media.giphy.com",
    "media.tenor.com",
    "c.tenor.com",
    "media.tumblr.com",
    "dl.boxcloud.com",
    "live.staticflickr.com",
    "dl.dropbox.com",
)


def check_url(url: str, *, field: str | None = None, what: str = "picture") -> str:
    """
    The address *url* in its plain spelling: lower-case ASCII host, what has to be escaped escaped, no fragment.

    Args:
        url: An address as the caller wrote it.
        field: The argument that it came in, for the refusal.
        what: What the file should be, for the refusal: ``picture``, ``video`` or ``audio file``.

    Raises:
        InputRefused: It is not a plain https address of a named public host, or that of a page.
    """
    try:
        return _file_behind(_plain(url.strip()), what)
    except _Broken as broken:
        usual = (
            f"Give an https URL of a public host, such as https://example.com/{_EXAMPLES[what]}, or a path in one of "
            "the folders that KLING_MCP_INPUT_DIRS names."
        )
        raise InputRefused(f"The address {_shown(url)} {broken.rule}", broken.step or usual, field=field) from None


class _Broken(Exception):
    """The rule that an address breaks, as the end of a sentence, and what works instead where that is not the usual."""

    def __init__(self, rule: str, step: str | None = None) -> None:
        super().__init__(rule)
        self.rule = rule
        self.step = step


def _file_behind(url: str, what: str) -> str:
    """
    The file that the page *url* shows, or *url* itself where it is no page that is known.

    Raises:
        _Broken: It is a page, and which file it shows cannot be told.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if _ends_in(host, _FILE_HOSTS):
        return url
    path = parts.path + ("?" + parts.query if parts.query else "")
    for page in _PAGES:
        match = page.path.match(path) if _ends_in(host, (page.host,)) else None
        if match is None:
            continue
        if page.file is not None:
            return "https://" + match.expand(page.file) if page.file else url
        # Other hosts that are named serve pictures only.
        hint = page.hint if what == "picture" or page.name == "GitHub" else None
        where = f" The address of the {what} itself begins with https://{hint}." if hint else ""
        raise _Broken(f"is a page of {page.name} and not {_a(what)}; fal.ai would fetch the page.{where}", _SAVE_IT)
    if re.search(r"\.(?:html?|aspx?|jsp)$", parts.path, re.IGNORECASE):
        raise _Broken(f"is a web page and not {_a(what)}; fal.ai would fetch the page.", _SAVE_IT)
    return url


def _a(what: str) -> str:
    return f"an {what}" if what[0] == "a" else f"a {what}"


def _plain(url: str) -> str:
    if len(url) > MAX_URL_CHARACTERS:
        raise _Broken(f"has {len(url):,} characters; at most {MAX_URL_CHARACTERS:,} are taken.")
    if _UNSEEN.search(url):
        raise _Broken("has a line break, a backslash, or a control or invisible character in it.")
    if url[:4].lower() == "www.":
        url = f"https://{url}"
    scheme = url.partition(":")[0].lower()
    if scheme in _SCHEMES:
        raise _Broken(_SCHEMES[scheme], _SCHEME_STEPS.get(scheme))
    if not url.lower().startswith("https://"):
        raise _Broken("does not start with https://.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _Broken("cannot be read as an address.") from None
    if "@" in parts.netloc:
        raise _Broken("has a user name or password in it.")
    if "[" in parts.netloc or "]" in parts.netloc:
        raise _Broken("has an address literal for a host; only names are taken.")
    if port == 0:
        raise _Broken("has a port that does not exist.")
    host = _plain_host(parts.hostname or "")
    path = quote(_LONE_PERCENT.sub("%25", parts.path) or "/", safe=_PLAIN_IN_PATH)
    # Copied out of HTML, the signs between the fields of a signed link are written as &amp; .
    fields = _LONE_PERCENT.sub("%25", parts.query.replace("&amp;", "&"))
    query = "?" + quote(fields, safe=_PLAIN_IN_QUERY) if fields else ""
    plain = f"https://{host}{'' if port in {None, 443} else f':{port}'}{path}{query}"
    if len(plain) > MAX_URL_CHARACTERS:
        raise _Broken(f"has more than {MAX_URL_CHARACTERS:,} characters when it is written out.")
    return plain


def _plain_host(host: str) -> str:
    name = host.lower() if host.isascii() else _in_ascii(host)
    name = name.removesuffix(".")
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise _Broken("has no valid host name.")
    if _NUMBER.fullmatch(labels[-1]):
        raise _Broken("has an address literal for a host; only names are taken.")
    if len(labels) == 1 or _ends_in(name, _LOCAL_ENDINGS):
        raise _Broken("has a host of a local network.")
    if _ends_in(name, _ADDRESS_NAMES):
        raise _Broken("has a host name that stands for an address.")
    return name


def _in_ascii(host: str) -> str:
    import idna  # comes with httpx; its tables are loaded for such a name only

    try:
        return idna.encode(host, uts46=True).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError):
        raise _Broken("has no valid host name.") from None


def _ends_in(name: str, endings: tuple[str, ...]) -> bool:
    return any(name == ending or name.endswith(f".{ending}") for ending in endings)


def _shown(url: str) -> str:
    """The address on one line, without a password, and of bounded length."""
    shown = re.sub(r"//[^/?#]*@", "//…@", url)
    return repr(shown if len(shown) <= 200 else f"{shown[:199]}…")
