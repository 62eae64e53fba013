"""
The simulator is faithful as far as fal's own clients can tell.

Two programs that this project did not write, in the versions that are pinned,
go through upload, submit, status, stream, result and cancel, and find what they
expect of fal.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest

from kling_mcp.simulator.render import sample_picture, sample_video

from .calls import ENDPOINT
from .official import KEY, Session, record

if TYPE_CHECKING:
    from kling_mcp.simulator.faults import CallKind

pytestmark = pytest.mark.xdist_group("official")

LOGS = [
    "Runner ready, generation started.",
    "Shot 1 of 1: 0% of the video.",
    "Shot 1 of 1: 50% of the video.",
    "Generation finished.",
]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return record("python", tmp_path_factory.mktemp("python"))


@pytest.fixture(scope="module")
def javascript(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return record("javascript", tmp_path_factory.mktemp("javascript"))


def test_the_python_client_is_the_version_that_the_facts_are_about(python: Session) -> None:
    assert version("fal-client") == "1.0.3"
    assert python.first("submit").headers["user-agent"] == "fal-client/1.0.3 (python)"


def test_the_python_client_uploads_by_token_in_parts_and_by_address(python: Session) -> None:
    seen = python.seen

    assert python.file(seen["uploaded"]) == sample_picture()
    assert python.file(seen["uploaded_in_parts"]) == bytes(450_000)
    assert python.file(seen["uploaded_by_initiate"]) == b"another"
    assert len(python.all("token")) == 1
    assert python.first("upload").headers["x-fal-file-name"] == "boat.jpg"
    assert len([call for call in python.all("put") if "/multipart/" in call.path]) == 5
    assert python.first("initiate").query == (("storage_type", "gcs"),)


def test_the_python_client_follows_a_job_to_its_video(python: Session) -> None:
    seen = python.seen
    video = seen["result"]["video"]

    assert seen["events"][-1] == "Completed"
    assert set(seen["events"]) <= {"Queued", "InProgress", "Completed"}
    assert seen["logs"] == LOGS
    assert seen["metrics"] == ["inference_time"]
    assert python.file(video["url"]) == sample_video((), None, None)
    assert seen["result_by_id"] == seen["result"]
    assert seen["status_by_id"] == "Completed"
    assert seen["async_result"]["video"]["content_type"] == "video/mp4"


def test_the_python_client_sees_cancelling_and_failing_as_fal_words_them(python: Session) -> None:
    seen = python.seen

    assert (seen["waiting"], seen["cancelled"], seen["cancelled_again"]) == ("Queued", "client_cancelled", 400)
    status, detail = seen["invalid"]
    assert (status, detail[0]["loc"], detail[0]["type"]) == (422, ["body", "image_url"], "missing")
    assert (seen["unknown_endpoint"], seen["wrong_key"]) == (404, 401)


@pytest.mark.node
def test_the_javascript_client_is_the_version_that_the_facts_are_about(javascript: Session) -> None:
    assert javascript.first("submit").headers["user-agent"] == "@fal-ai/client/1.10.1"


@pytest.mark.node
def test_the_javascript_client_uploads_whole_in_parts_and_on_its_own(javascript: Session) -> None:
    seen = javascript.seen

    assert javascript.file(seen["uploaded"]) == sample_picture()
    assert len(javascript.file(seen["uploadedInParts"])) == 91 * 1024 * 1024
    assert javascript.first("initiate").query == (("storage_type", "fal-cdn-v3"),)
    automatic = json.loads(javascript.all("submit")[2].body)["image_url"]
    assert javascript.file(automatic) == sample_picture()


@pytest.mark.node
@pytest.mark.parametrize("mode", ["polling", "streaming"])
def test_the_javascript_client_subscribes_either_way(javascript: Session, mode: str) -> None:
    seen = javascript.seen[mode]

    assert seen["states"][-1] == "COMPLETED"
    assert set(seen["states"]) <= {"IN_QUEUE", "IN_PROGRESS", "COMPLETED"}
    assert seen["logs"] == LOGS
    assert javascript.file(seen["data"]["video"]["url"]) == sample_video((), None, None)
    assert seen["requestId"] in {accepted.request_id for accepted in javascript.simulator.accepted}


@pytest.mark.node
def test_the_javascript_client_streams_a_status_to_its_end(javascript: Session) -> None:
    seen = javascript.seen

    assert (seen["streamed"][-1], seen["streamEnd"]) == ("COMPLETED", "COMPLETED")
    assert seen["result"]["requestId"] == seen["submitted"]["request_id"]


@pytest.mark.node
def test_the_javascript_client_sees_cancelling_and_failing_as_fal_words_them(javascript: Session) -> None:
    seen = javascript.seen

    assert (seen["waiting"]["status"], seen["waiting"]["queue_position"]) == ("IN_QUEUE", 0)
    assert seen["cancelledAgain"]["status"] == 400
    assert seen["early"]["status"] == 400
    assert seen["invalid"] == {"status": 422, "fields": [[["body", "image_url"], "missing"]]}
    assert (seen["unknownEndpoint"]["status"], seen["wrongKey"]["status"]) == (404, 401)


@pytest.mark.parametrize("client", ["python", pytest.param("javascript", marks=pytest.mark.node)])
def test_what_the_clients_send_is_kept_for_comparison(client: str, request: pytest.FixtureRequest) -> None:
    session: Session = request.getfixturevalue(client)
    submit = session.first("submit")
    kinds: list[CallKind] = ["submit", "status", "result", "cancel", "initiate", "put"]

    assert (submit.method, submit.path, submit.query) == ("POST", f"/queue/{ENDPOINT}", ())
    assert submit.headers["authorization"] == f"Key {KEY}"
    assert submit.headers["x-fal-queue-priority"] == "low"
    assert float(submit.headers["x-fal-request-timeout"]) == 3600
    assert json.loads(submit.body) == dict(session.simulator.accepted[0].body)
    assert all(session.all(kind) for kind in kinds)
    # Both ask below the first two segments of the endpoint id only.
    for kind in ("status", "result", "cancel"):
        assert session.first(kind).path.startswith("/queue/fal-ai/kling-video/requests/")
