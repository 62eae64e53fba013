"""What the tests of this room share: a client whose pauses take no time, and deadlines that are soon over."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kling_mcp.fal.http import Deadline, Deadlines, FalHttp
from kling_mcp.fal.queue import Receipt
from kling_mcp.settings import FalHosts, Secret
from tests.conftest import CANARY_KEY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from kling_mcp.fal.storage import Content

ENDPOINT = "fal-ai/kling-video/o3/standard/image-to-video"
REQUEST_ID = "7d1f7f9e-6c1c-4d43-9a0c-3f7f1d1f0b1a"
NOW_SECONDS = 1_795_255_200.0
"""2026-11-21T10:00:00Z."""

_SOON = Deadline(2.0, 0.1, 0.25)
SOON = Deadlines(submit=_SOON, status=_SOON, stream=_SOON, result=_SOON, cancel=_SOON, lookup=_SOON, upload=_SOON)
"""Deadlines for servers that never finish."""


def client(
    url: str,
    pauses: list[float] | None = None,
    *,
    deadlines: Deadlines | None = None,
    key: str | None = CANARY_KEY,
    while_pausing: Callable[[], Awaitable[None]] | None = None,
) -> FalHttp:
    """fal at *url*; the seconds that it would have waited are added to *pauses*."""

    async def sleep(seconds: float) -> None:
        if pauses is not None:
            pauses.append(seconds)
        if while_pausing is not None:
            await while_pausing()

    http = FalHttp(
        FalHosts(queue=f"{url}/queue", rest=f"{url}/rest", api=f"{url}/api/v1"),
        None if key is None else Secret(key),
        deadlines=deadlines,
        sleep=sleep,
        chance=lambda: 0.5,
        now=lambda: NOW_SECONDS,
    )
    # Loading httpx and the certificates is not to use up a deadline that a test has shortened.
    http._client("submit")
    http._client("api")
    return http


def receipt(url: str, path: str = "fal-ai/kling-video", request_id: str = REQUEST_ID) -> Receipt:
    """What fal at *url* gives for a request."""
    address = f"{url}/queue/{path}/requests/{request_id}"
    return Receipt(request_id, f"{address}/status", address, f"{address}/cancel", 0)


def a_file(data: bytes, content_type: str, file_name: str) -> Content:
    """*data* as something to be uploaded."""
    return _File(data, content_type, file_name)


@dataclass(frozen=True)
class _File:
    data: bytes
    content_type: str
    file_name: str

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, count: int) -> bytes:
        return self.data[offset : offset + count]


def own_certificate(folder: Path, host: str = "127.0.0.1") -> ssl.SSLContext:
    """A server's TLS with a certificate for *host* that only ``certificate.pem`` in *folder* vouches for."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    named = x509.IPAddress(ipaddress.ip_address(host)) if host[0].isdigit() else x509.DNSName(host)
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=9))
        .add_extension(x509.SubjectAlternativeName([named]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path = folder / "key.pem"
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, key_path)
    return context
