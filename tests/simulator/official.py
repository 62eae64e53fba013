"""
What fal's own clients send, recorded by the simulator.

    session = record("python", tmp_path)
    session.requests    every call in order: kind, method, path, query, headers, body
    session.seen        what the client made of the answers

A test that compares another client with them takes ``session.first("submit")``.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from kling_mcp.simulator.app import Simulator
from kling_mcp.simulator.render import sample_picture, sample_video
from kling_mcp.simulator.serve import Certificate, running_in_thread

from .calls import ENDPOINT

if TYPE_CHECKING:
    from kling_mcp.simulator.fault_middleware import Recorded
    from kling_mcp.simulator.faults import CallKind
    from kling_mcp.simulator.serve import BaseUrls

KEY = "id:secret"
SPEED = 100.0
"""A job of five seconds of video takes about one."""

_NODE = Path(__file__).parents[1] / "node"
_PYTHON = Path(__file__).with_name("official_python.py")


@dataclass(frozen=True, slots=True)
class Session:
    """One session of an official client."""

    simulator: Simulator
    urls: BaseUrls
    seen: dict[str, Any]

    @property
    def requests(self) -> list[Recorded]:
        """Every call that arrived, in order."""
        return self.simulator.requests

    def all(self, kind: CallKind) -> list[Recorded]:
        """Every call of *kind*."""
        return [request for request in self.requests if request.kind == kind]

    def first(self, kind: CallKind) -> Recorded:
        """The first call of *kind*."""
        return self.all(kind)[0]

    def file(self, url: str) -> bytes:
        """The bytes of an uploaded file."""
        file = self.simulator.files.by_url(url)
        assert file is not None
        return file.data


def record(client: Literal["python", "javascript"], folder: Path) -> Session:
    """
    Run a whole session of *client* and return what it sent.

    Skips the test when the JavaScript client is not installed.

    Args:
        client: Which of the two.
        folder: Where files may be written.
    """
    simulator = Simulator(key=KEY, speed=SPEED, renderer=sample_video)
    picture = str(folder / "picture.jpg")
    Path(picture).write_bytes(sample_picture())
    if client == "python":
        tls = throw_away_certificate(folder)
        with running_in_thread(simulator, tls=tls) as urls:
            given = {"rest": urls.rest, "media": urls.media, "endpoint": ENDPOINT, "key": KEY, "picture": picture}
            # Both names are the client's and httpx's own, documented ones.
            environment = {"FAL_QUEUE_RUN_HOST": f"{urls.media_host}/queue", "SSL_CERT_FILE": str(tls.certificate)}
            return Session(simulator, urls, _run([sys.executable, str(_PYTHON)], given, environment))
    node = shutil.which("node")
    if node is None or not (_NODE / "node_modules" / "@fal-ai" / "client").is_dir():
        pytest.skip("the JavaScript client is not installed: npm install in tests/node")
    with running_in_thread(simulator) as urls:
        given = {
            "queue": urls.queue,
            "rest": urls.rest,
            "endpoint": ENDPOINT,
            "key": KEY,
            "picture": picture,
            "large": True,
        }
        return Session(simulator, urls, _run([node, str(_NODE / "fal-client.mjs")], given, {}))


def throw_away_certificate(folder: Path) -> Certificate:
    """A certificate for 127.0.0.1 that is its own authority, good for a day."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "simulated fal")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = Certificate(folder / "certificate.pem", folder / "key.pem")
    paths.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


def _run(command: list[str], given: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
    # The loopback server is not behind a proxy of this machine, and no key of its user is needed.
    clean = {name: value for name, value in os.environ.items() if not re.search("_proxy$|^FAL_", name, re.I)}
    program = subprocess.run(
        [*command, json.dumps(given)],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert program.returncode == 0, program.stderr
    return json.loads(program.stdout)
