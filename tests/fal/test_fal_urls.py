"""Which addresses are what they seem to be."""

from __future__ import annotations

import pytest

from kling_mcp.fal.urls import Address

QUEUE = "https://queue.fal.run"
HOSTS = ("fal.media", "storage.googleapis.com", "127.0.0.1:8123", "test.example:8443")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://queue.fal.run/a", Address("https", "queue.fal.run", 443, "/a", "")),
        ("HTTPS://Queue.FAL.run:443/A?b=/c?d", Address("https", "queue.fal.run", 443, "/A", "?b=/c?d")),
        ("http://[::1]:8000", Address("http", "::1", 8000, "", "")),
        ("http://127.0.0.1/?x", Address("http", "127.0.0.1", 80, "/", "?x")),
        ("https://host/a/[0]", Address("https", "host", 443, "/a/[0]", "")),
        ("https://user@host/", None),
        ("https://user:word@host/", None),
        ("https://host:0/", None),
        ("https://host:99999/", None),
        ("https://host:port/", None),
        ("https:///path", None),
        ("https://ho st/", None),
        ("https://host\\@evil/", None),
        ("https://host/a\\b", None),
        ("https://host/#x", None),
        ("https://host/\n", None),
        ("\thttps://host/", None),
        ("https://\u212aost/", None),
        ("https://%68ost/", None),
        ("ftp://host/", None),
        ("//host/", None),
        ("host/", None),
        ("", None),
        (None, None),
        (b"https://host/", None),
        ("https://host/" + "a" * 8200, None),
    ],
)
def test_only_plain_addresses_are_read(url: object, expected: Address | None) -> None:
    assert Address.read(url) == expected


@pytest.mark.parametrize(
    ("url", "base", "path"),
    [
        (f"{QUEUE}/a/b", QUEUE, "/a/b"),
        (f"{QUEUE}:443/a/b", QUEUE, "/a/b"),
        (f"{QUEUE}/", QUEUE, "/"),
        ("https://api.fal.ai/v1/models?x=%2e", "https://api.fal.ai/v1", "/models"),
        ("https://api.fal.ai/v1", "https://api.fal.ai/v1", None),
        ("https://api.fal.ai/v12/models", "https://api.fal.ai/v1", None),
        ("https://api.fal.ai/v2/models", "https://api.fal.ai/v1", None),
        ("https://api.fal.ai/v1/../keys", "https://api.fal.ai/v1", None),
        ("https://api.fal.ai/v1/./models", "https://api.fal.ai/v1", None),
        ("https://api.fal.ai/v1/%2e%2e/keys", "https://api.fal.ai/v1", None),
        ("https://api.fal.ai/v1//models", "https://api.fal.ai/v1", None),
        (QUEUE, QUEUE, None),
        ("http://queue.fal.run/a", QUEUE, None),
        (f"{QUEUE}:8443/a", QUEUE, None),
        (f"{QUEUE}.evil.example/a", QUEUE, None),
        ("https://queue.fal.run./a", QUEUE, None),
        (f"{QUEUE}/a", "not a base", None),
    ],
)
def test_only_what_is_below_a_base_is_below_it(url: str, base: str, path: str | None) -> None:
    address = Address.read(url)

    assert address is not None
    assert address.path_under(base) == path


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://fal.media/x", True),
        ("https://v3b.fal.media/x", True),
        ("https://storage.googleapis.com/falserverless/x", True),
        ("http://127.0.0.1:8123/x", True),
        ("https://127.0.0.1:8123/x", True),
        ("https://test.example:8443/x", True),
        ("http://test.example:8443/x", False),
        ("http://127.0.0.1:8124/x", False),
        ("http://fal.media/x", False),
        ("https://fal.media:8443/x", False),
        ("https://evilfal.media/x", False),
        ("https://fal.media.evil.example/x", False),
        ("https://fal.media./x", False),
        ("https://169.254.169.254/x", False),
    ],
)
def test_only_named_hosts_are_named(url: str, allowed: bool) -> None:
    address = Address.read(url)

    assert address is not None
    assert address.is_at(HOSTS) is allowed
