"""
Our requests beside those of fal's own clients, field by field.

Every difference is written down here with its reason; any other one fails.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import anyio
import pytest

from kling_mcp.fal.http import FalHttp
from kling_mcp.fal.queue import Accepted, FalQueue
from kling_mcp.fal.storage import FalStorage
from kling_mcp.settings import Settings
from kling_mcp.simulator import faults
from kling_mcp.simulator.app import Simulator
from kling_mcp.simulator.render import sample_picture, sample_video
from kling_mcp.simulator.serve import serving
from tests.fal.support import a_file
from tests.simulator.official import KEY, SPEED, Session, record

if TYPE_CHECKING:
    from kling_mcp.simulator.fault_middleware import Recorded
    from kling_mcp.simulator.faults import CallKind

pytestmark = pytest.mark.xdist_group("official")

ENDPOINT = "fal-ai/kling-video/o3/standard/image-to-video"

TRANSPORT = {
    # What belongs to the HTTP library or names the program; fal does not act on it.
    "host", "connection", "user-agent", "accept", "accept-encoding", "accept-language", "sec-fetch-mode",
    "content-length",
}  # fmt: skip

OURS = "+"
THEIRS = "-"

SUBMIT = {
    "x-fal-tags": OURS,  # a lost request can be found by it
    "x-fal-store-io": OURS,  # and is kept in the history
    "x-fal-request-start-timeout": OURS,  # the newer name of the next one
    "x-fal-request-timeout": THEIRS,
    "x-fal-runner-hint": THEIRS,  # asked for by the recorded session only
    "x-fal-queue-priority": THEIRS,  # the same
}
BODYLESS = {"content-type": THEIRS}  # the JavaScript client names a type for a body that is not there

PYTHON: dict[CallKind, dict[str, str]] = {
    "token": {},
    "upload": {},
    "submit": SUBMIT,
    "status": {"query": "logs=1 logs=false"},  # ours wants the logs
    "result": {},
    "cancel": {},
    "initiate": {
        # the recorded call gave no lifetime; with one the Python client sends the same two
        "x-fal-object-lifecycle": OURS,
        "x-fal-object-lifecycle-preference": OURS,
    },
}
JAVASCRIPT: dict[CallKind, dict[str, str]] = {
    "submit": SUBMIT,
    "status": BODYLESS,
    "result": BODYLESS,
    "cancel": BODYLESS,
    "initiate": {
        "query": "storage_type=gcs storage_type=fal-cdn-v3",  # as the Python client does it
        "x-fal-object-lifecycle-preference": OURS,  # the storage behind reads this one
    },
    "put": {},
}

IN_PARTS: dict[str, dict[str, str]] = {
    # the recorded call gave no lifetime; with one the Python client sends the same two
    "/files/upload/multipart": {"x-fal-object-lifecycle": OURS, "x-fal-object-lifecycle-preference": OURS},
    "/1": {},
    "/5": {},
    "/complete": {},
}


@pytest.fixture(scope="module")
def ours() -> list[Recorded]:
    """A session of ours with the picture, prompt and lifetime of the recorded ones."""
    return anyio.run(_our_session)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return record("python", tmp_path_factory.mktemp("python"))


@pytest.fixture(scope="module")
def javascript(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return record("javascript", tmp_path_factory.mktemp("javascript"))


@pytest.mark.parametrize("kind", PYTHON)
def test_we_ask_as_the_python_client_does(kind: CallKind, ours: list[Recorded], python: Session) -> None:
    assert differences(first(ours, kind), python.first(kind)) == PYTHON[kind]


@pytest.mark.parametrize("kind", JAVASCRIPT)
def test_we_ask_as_the_javascript_client_does(kind: CallKind, ours: list[Recorded], javascript: Session) -> None:
    assert differences(last(ours, kind), javascript.first(kind)) == JAVASCRIPT[kind]


@pytest.mark.parametrize("end", IN_PARTS)
def test_we_send_parts_as_the_python_client_does(end: str, ours: list[Recorded], python: Session) -> None:
    assert differences(in_parts(ours, end), in_parts(python.requests, end)) == IN_PARTS[end]


def in_parts(requests: list[Recorded], end: str) -> Recorded:
    return next(call for call in requests if "/multipart" in call.path and call.path.endswith(end))


def differences(ours: Recorded, theirs: Recorded) -> dict[str, str]:
    """The fields in which two requests differ: who has it, or both values."""
    mine, other = fields(ours), fields(theirs)
    found: dict[str, str] = {}
    for name in mine.keys() | other.keys():
        if name not in other:
            found[name] = OURS
        elif name not in mine:
            found[name] = THEIRS
        elif mine[name] != other[name]:
            found[name] = f"{mine[name]} {other[name]}"
    return found


def fields(request: Recorded) -> dict[str, str]:
    """A request as named values, with what is made anew in every session replaced by its name."""
    found = {name: value for name, value in request.headers.items() if name not in TRANSPORT}
    found = {name: _same(value) for name, value in found.items()}
    found["method"] = request.method
    found["path"] = _same(request.path)
    found["query"] = "&".join(f"{name}={_same(value)}" for name, value in request.query)
    if request.headers.get("content-type") == "application/json" and request.body:
        body = json.loads(request.body)
        if "parts" in body:
            # The Python client sends parts side by side, and names them in the order in which they were done.
            body["parts"].sort(key=lambda part: part["partNumber"])
        found["body"] = _same(json.dumps(body, sort_keys=True))
    else:
        found["body"] = _same(repr(request.body))
    return found


def _same(value: str) -> str:
    value = re.sub(r"https?://127\.0\.0\.1:\d+", "<host>", value)
    value = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<id>", value)
    value = re.sub(r"[0-9a-f]{64}", "<signature>", value)
    value = re.sub(r"[0-9a-f]{20}_", "<file>_", value)
    return json.dumps(json.loads(value)) if value.startswith("{") else value


def first(requests: list[Recorded], kind: CallKind) -> Recorded:
    return next(request for request in requests if request.kind == kind)


def last(requests: list[Recorded], kind: CallKind) -> Recorded:
    return first(requests[::-1], kind)


async def _our_session() -> list[Recorded]:
    simulator = Simulator(key=KEY, speed=SPEED, renderer=sample_video)
    async with serving(simulator) as urls:
        settings = Settings.from_environment({"FAL_KEY": KEY, **urls.environment()})
        async with FalHttp(settings.hosts, settings.fal_key) as http:
            queue, storage = FalQueue(http), FalStorage(http, settings.media_hosts)
            url = await storage.upload(a_file(sample_picture(), "image/jpeg", "boat.jpg"), lifetime_seconds=3600)
            body = {"image_url": url, "prompt": "The boat drifts.", "duration": "5"}
            outcome = await queue.submit(ENDPOINT, body, job_id="kj_1")
            assert isinstance(outcome, Accepted)
            await queue.status(ENDPOINT, outcome.receipt)
            await queue.cancel(ENDPOINT, outcome.receipt)
            await queue.result(ENDPOINT, outcome.receipt)
            parts = FalStorage(http, settings.media_hosts, in_parts_above=200_000, part_bytes=100_000)
            await parts.upload(a_file(bytes(450_000), "application/octet-stream", "big.bin"))
            # By signed address too: the Python client's picture first, then the JavaScript client's.
            for data, content_type, name in (
                (b"another", "image/jpeg", "boat.jpg"),
                (sample_picture(), "image/jpeg", "boat.jpg"),
            ):
                simulator.faults.add("upload", faults.Answer(404))
                await storage.upload(a_file(data, content_type, name), lifetime_seconds=3600)
    return simulator.requests
