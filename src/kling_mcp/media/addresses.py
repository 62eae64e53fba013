"""
Web addresses of pictures.

fal.ai fetches them, not this program. So an address is no way into this machine, but it is one into fal's network and
one out for a secret. Only plain https addresses of named public hosts pass, and what passes is returned in one
spelling, so that the host the user is shown is the host that is asked.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, urlsplit

from kling_mcp.errors import InputRefused

__all__ = ["check_url"]

MAX_URL_CHARACTERS: Final = 2048

_UNSEEN: Final = re.compile(r"[\s\\\x00-\x20\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
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
# RFC 3986, section 3.3 and 3.4. What is escaped already stays as it is.
_PLAIN_IN_PATH: Final = "/%:@!$&'()*+,;=~-._"
_PLAIN_IN_QUERY: Final = f"{_PLAIN_IN_PATH}?[]"
_NEXT_STEP: Final = (
    "Give an https URL of a public host, such as https://example.com/picture.jpg, or a path in one of the folders that "
    "KLING_MCP_INPUT_DIRS names."
)


def check_url(url: str, *, field: str | None = None) -> str:
    """
    The address *url* in its plain spelling: lower-case ASCII host, no port, no fragment.

    Args:
        url: An address as the caller wrote it.
        field: The argument that it came in, for the refusal.

    Raises:
        InputRefused: It is not a plain https address of a named public host.
    """
    try:
        return _plain(url)
    except _Broken as rule:
        raise InputRefused(f"The address {_shown(url)} {rule}", _NEXT_STEP, field=field) from None


class _Broken(Exception):
    """The rule that an address breaks, as the end of a sentence."""


def _plain(url: str) -> str:
    if len(url) > MAX_URL_CHARACTERS:
        raise _Broken(f"has {len(url):,} characters; at most {MAX_URL_CHARACTERS:,} are taken.")
    if _UNSEEN.search(url):
        raise _Broken("has a space, a backslash, or a control or invisible character in it.")
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
    if port not in {None, 443}:
        raise _Broken("has a port other than 443.")
    host = _plain_host(parts.hostname or "")
    path = quote(parts.path or "/", safe=_PLAIN_IN_PATH)
    query = "?" + quote(parts.query, safe=_PLAIN_IN_QUERY) if parts.query else ""
    plain = f"https://{host}{path}{query}"
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
