"""
Which addresses this program may use, decided from the text of a URL alone.

Every URL that fal.ai returns is text from the network. It is read here with one
narrow grammar (no user names, no escapes in the host, no backslashes), so that
what is checked is what is later connected to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["LOOPBACK", "Address"]

LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
"""Hosts that plain http is accepted for."""

_MAX_LENGTH: Final = 8192
# Printable ASCII only, and no flag that ignores case: with it a Kelvin sign is a k.
_GRAMMAR: Final = re.compile(
    r"(?P<scheme>[Hh][Tt][Tt][Pp][Ss]?)://(?:(?P<name>[A-Za-z0-9.-]+)|\[(?P<six>[0-9A-Fa-f:.]+)\])"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<path>/[!-\[\]-~]*?)?(?P<query>\?[!-\[\]-~]*)?"
)
_PORTS: Final = {"https": 443, "http": 80}
_PLAIN_PATH: Final = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*/?")


@dataclass(frozen=True, slots=True)
class Address:
    """A URL in parts; the port is always explicit, the host lower case, the query has its question mark."""

    scheme: str
    host: str
    port: int
    path: str
    query: str

    @classmethod
    def read(cls, url: object) -> Address | None:
        """The parts of *url*, or None where it is anything but a plain http(s) URL."""
        if not isinstance(url, str) or len(url) > _MAX_LENGTH or "#" in url or not (match := _GRAMMAR.fullmatch(url)):
            return None
        scheme = match["scheme"].lower()
        port = int(match["port"]) if match["port"] else _PORTS[scheme]
        host = (match["name"] or match["six"]).lower()
        return cls(scheme, host, port, match["path"] or "", match["query"] or "") if 0 < port <= 65535 else None

    @property
    def is_private(self) -> bool:
        """Whether nobody between here and there can read along: https, or this machine itself."""
        return self.scheme == "https" or self.host in LOOPBACK

    def path_under(self, base: str) -> str | None:
        """
        The path below *base*, or None where the address is not below it.

        Scheme, host and port must be those of the base. A path with dots or
        escapes in a segment's place is never below anything, as servers differ in
        how they resolve it.
        """
        root = Address.read(base)
        if root is None or (self.scheme, self.host, self.port) != (root.scheme, root.host, root.port):
            return None
        prefix = root.path.rstrip("/")
        if not _PLAIN_PATH.fullmatch(self.path) or not self.path.startswith(prefix + "/"):
            return None
        return self.path[len(prefix) :]

    def is_at(self, hosts: Iterable[str]) -> bool:
        """
        Whether the address is at one of *hosts*.

        A plain name stands for itself and its subdomains over https on the
        usual port. A ``host:port`` stands for exactly that, and for plain http
        too where it is this machine.
        """
        return any(self._is_at(host) for host in hosts)

    def _is_at(self, host: str) -> bool:
        if ":" in host:
            return f"{self.host}:{self.port}" == host and self.is_private
        return (
            self.scheme == "https"
            and self.port == _PORTS["https"]
            and (self.host == host or self.host.endswith(f".{host}"))
        )
