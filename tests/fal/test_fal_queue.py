"""Asking about a request, fetching its result and cancelling it."""

from __future__ import annotations

import gzip
import json
import zlib
from decimal import Decimal
from typing import TYPE_CHECKING

import anyio
import pytest

from kling_mcp import errors
from kling_mcp.fal.failures import Intercepted, RequestNotFound, explain_completed
from kling_mcp.fal.queue import (
    Completed,
    Failed,
    FalQueue,
    Finished,
    NotReady,
    QueueStatus,
    Receipt,
    Video,
    stated_end,
    video_of_body,
)
from tests.conftest import CANARY_KEY
from tests.fal.rawserver import RawServer, answer, drip, raw, silence
from tests.fal.support import ENDPOINT, REQUEST_ID, SOON, client, receipt

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.fal.rawserver import Connection

pytestmark = pytest.mark.anyio

SHORT = f"/queue/fal-ai/kling-video/requests/{REQUEST_ID}"
FULL_PATH = ENDPOINT
VIDEO = {"url": "https://v3.fal.media/files/a/out.mp4", "content_type": "video/mp4", "file_name": "out.mp4"}
MODEL_ERROR = {"detail": [{"loc": ["body", "image_url"], "msg": "no", "type": "image_load_error"}]}


STATUSES: dict[str, tuple[int, object, QueueStatus | Completed]] = {
    "waiting": (202, {"status": "IN_QUEUE", "queue_position": 3}, QueueStatus(False, 3)),
    "waiting, answered with 200": (200, {"status": "IN_QUEUE", "queue_position": 0}, QueueStatus(False, 0)),
    "waiting at a strange place": (202, {"status": "IN_QUEUE", "queue_position": "3"}, QueueStatus(False, None)),
    "running": (202, {"status": "IN_PROGRESS", "logs": None}, QueueStatus(True, None)),
    "running with logs": (
        202,
        {
            "status": "IN_PROGRESS",
            "logs": [
                {"message": "Shot\u200b 1", "timestamp": "2026-11-21T10:00:00Z", "level": "INFO", "source": "x"},
                {"message": ""},
                {"message": 7},
                None,
                "a bare line",
            ],
        },
        QueueStatus(True, None, "a bare line"),
    ),
    "running with a log whose newest lines are empty": (
        202,
        {"status": "IN_PROGRESS", "logs": [{"message": "Shot\u200b 1"}, {"message": ""}, {"message": 7}, None]},
        QueueStatus(True, None, "Shot 1"),
    ),
    "running with one log": (
        202,
        {"status": "IN_PROGRESS", "logs": {"message": "alone"}},
        QueueStatus(True, None, "alone"),
    ),
    "running with a log of the wrong type": (202, {"status": "IN_PROGRESS", "logs": {}}, QueueStatus(True, None)),
    "ended": (
        200,
        {"status": "COMPLETED", "logs": [], "metrics": {"inference_time": 93.5}},
        Completed(None),
    ),
    "ended with strange metrics": (200, {"status": "COMPLETED", "metrics": [1]}, Completed(None)),
}


UNTIDY = {
    "as it is": lambda body: body,
    "after a byte order mark": lambda body: b"\xef\xbb\xbf" + body,
    "in UTF-16": lambda body: body.decode().encode("utf-16"),
    "before something else": lambda body: body + b"\x00<!-- served by 7 -->",
    "in a list": lambda body: b"[" + body + b"]",
    "in an object": lambda body: b'{"data": ' + body + b"}",
    **{
        f"with {name}": lambda body, noise=noise: body.replace(b'"status"', noise + b', "status"', 1)
        for name, noise in {
            "half a surrogate pair": b'"logs": [{"message": "\\ud83d!"}]',
            "a byte that is no UTF-8": b'"logs": [{"message": "\xff!"}]',
            "a line break in a text": b'"logs": [{"message": "\n!"}]',
            "not a number": b'"metrics": {"inference_time": NaN}',
            "infinity": b'"metrics": {"inference_time": -Infinity}',
            "infinity by another name": b'"metrics": {"inference_time": 1e999}',
            "half a million digits": b'"metrics": {"inference_time": ' + b"9" * 500_000 + b"}",
            "a hundred lists": b'"noise": ' + b"[" * 100 + b"]" * 100,
            "a key twice": b'"status": null',
        }.items()
    },
}
"""What may be wrong with an answer of which everything that is needed can be read."""

PACKED = {
    "gzip": (gzip.compress, {"Content-Encoding": "gzip"}),
    "x-gzip": (gzip.compress, {"Content-Encoding": "X-GZip"}),
    "gzip that is not named": (gzip.compress, {}),
    "gzip that is not gzip": (bytes, {"Content-Encoding": "gzip"}),
    "gzip twice": (lambda body: gzip.compress(gzip.compress(body)), {"Content-Encoding": "gzip, gzip"}),
    "deflate": (zlib.compress, {"Content-Encoding": "deflate"}),
    "deflate without a head": (lambda body: zlib.compress(body)[2:-4], {"Content-Encoding": "deflate"}),
    "a page by its type": (bytes, {"Content-Type": "text/html"}),
}


@pytest.mark.parametrize("name", UNTIDY)
async def test_what_is_needed_is_read_out_of_an_untidy_answer(name: str) -> None:
    untidy = UNTIDY[name]
    plan = [
        answer(200, untidy(b'{"status": "COMPLETED"}')),
        answer(200, untidy(b'{"status": "ok", "video": {"url": "https://v3.fal.media/a.mp4"}}')),
    ]
    async with RawServer(plan=plan) as server, client(server.url) as http:
        status = await FalQueue(http).status(ENDPOINT, receipt(server.url))
        result = await FalQueue(http).result(ENDPOINT, receipt(server.url))

    assert isinstance(status, Completed)
    assert status.failure is None
    assert isinstance(result, Finished)
    assert video_of_body(result.body) == Video("https://v3.fal.media/a.mp4", None, None, None)
    json.dumps(result.body, allow_nan=False).encode()
    repr(result).encode()


@pytest.mark.parametrize("name", PACKED)
async def test_an_answer_is_unpacked_although_that_was_declined(name: str) -> None:
    pack, headers = PACKED[name]
    packed = answer(200, pack(b'{"status": "COMPLETED"}'), headers)
    async with RawServer(default=packed) as server, client(server.url) as http:
        assert await FalQueue(http).status(ENDPOINT, receipt(server.url)) == Completed(None)


@pytest.mark.parametrize("headers", [{"Content-Encoding": "br"}, {"Content-Encoding": "gzip"}], ids=str)
async def test_what_cannot_be_unpacked_within_bounds_is_not_read(headers: dict[str, str]) -> None:
    bomb = gzip.compress(b'{"status": "COMPLETED"' + b" " * 50_000_000 + b"}")
    async with RawServer(default=answer(200, bomb, headers)) as server, client(server.url, []) as http:
        with pytest.raises(errors.FalUnreachable):
            await FalQueue(http).status(ENDPOINT, receipt(server.url))


async def test_a_status_with_logs_that_are_too_large_is_asked_for_without_them_from_then_on() -> None:
    large = answer(202, {"status": "IN_PROGRESS", "logs": [{"message": "x" * 2_000_000}]})
    small = answer(202, {"status": "IN_PROGRESS", "logs": None})
    async with RawServer(plan=[large, small, small]) as server, client(server.url, []) as http:
        queue = FalQueue(http)
        for _ in range(2):
            assert await queue.status(ENDPOINT, receipt(server.url)) == QueueStatus(True, None)

        assert [request.target[-7:] for request in server.received] == ["?logs=1", "?logs=0", "?logs=0"]


ADDRESS = "https://v3.fal.media/files/b/out.mp4"
SHAPES = {
    "as text": {"video": ADDRESS},
    "in a list": {"video": [{"url": ADDRESS}]},
    "in a list of texts": {"videos": [ADDRESS]},
    "as an address of its own": {"video_url": ADDRESS},
    "below data": {"data": {"video": {"url": ADDRESS}}},
    "below response and data": {"status": "OK", "response": {"data": {"video": ADDRESS}}},
    "below output, without a name": {"output": ADDRESS},
    "in a list of outputs": {"outputs": [{"url": ADDRESS, "content_type": "video/mp4"}]},
    "below file": {"video": {"file": {"url": ADDRESS}}},
    "as a link": {"video": {"href": ADDRESS}},
    "at the root": {"url": ADDRESS},
    "in a list at the root": [{"video": {"url": ADDRESS}}],
    "as text at the root": ADDRESS,
    "with a fragment": {"video": {"url": f"{ADDRESS}#t=0,5"}},
    "with a newline": {"video": {"url": f" {ADDRESS}\r\n"}},
    "with a newline inside": {"video": {"url": f"{ADDRESS[:20]}\n{ADDRESS[20:]}"}},
    "in quotes": {"video": {"url": f'"{ADDRESS}"'}},
    "after entries without an address": {"video": [None, {"url": None}, {"url": 7}, {"url": ""}, {"url": ADDRESS}]},
    "beside an error of something else": {"video": {"url": ADDRESS}, "error": "the thumbnail failed"},
}


@pytest.mark.parametrize("body", [{}, []])
async def test_an_empty_result_ends_a_job_without_a_video(body: object) -> None:
    async with RawServer(default=answer(200, body)) as server, client(server.url) as http:
        outcome = await FalQueue(http).result(ENDPOINT, receipt(server.url))

    assert isinstance(outcome, Finished)
    assert video_of_body(outcome.body) is None


@pytest.mark.parametrize("name", SHAPES)
async def test_a_video_is_found_wherever_an_answer_has_it_and_recorded_where_it_belongs(name: str) -> None:
    async with RawServer(default=answer(200, SHAPES[name])) as server, client(server.url) as http:
        outcome = await FalQueue(http).result(ENDPOINT, receipt(server.url))

    assert isinstance(outcome, Finished)
    recorded = json.loads(json.dumps(outcome.body))
    video = video_of_body(recorded)
    assert video is not None
    assert video.url == ADDRESS
    assert recorded["video"]["url"] == ADDRESS


@pytest.mark.parametrize(
    ("url", "found"),
    [
        (f"{ADDRESS}?signature={'a' * 8000}", None),
        ("https://v3.fal.media/a film.mp4", "https://v3.fal.media/a%20film.mp4"),
        ("https://v3.fal.media/f\u00fcchse.mp4?a=%20", "https://v3.fal.media/f%C3%BCchse.mp4?a=%20"),
        ("data:video/mp4;base64,AAAA" + "A" * 2_000_000, None),
    ],
    ids=["8 kB", "a blank", "a letter", "inline"],
)
async def test_an_unusual_address_of_a_video_is_taken(url: str, found: str | None) -> None:
    async with RawServer(default=answer(200, {"video": {"url": url}})) as server, client(server.url) as http:
        outcome = await FalQueue(http).result(ENDPOINT, receipt(server.url))

    assert isinstance(outcome, Finished)
    video = video_of_body(outcome.body)
    assert video is not None
    assert video.url == (found or url)


@pytest.mark.parametrize(
    "body",
    [
        {"images": [{"url": "https://v3.fal.media/a.png", "content_type": "image/png"}]},
        {"output": "a fox runs"},
        {"output": {"url": "https://fal.ai/docs"}},
        {"status_url": ADDRESS},
        {"video": {"url": "data:text/html,<p>"}},
        {"video": {"url": "https://[broken/out.mp4"}},
        {"video": {"url": {"url": None}}},
        "words",
    ],
    ids=str,
)
async def test_what_is_no_video_is_not_taken_for_one(body: object) -> None:
    async with RawServer(default=answer(200, body)) as server, client(server.url) as http:
        outcome = await FalQueue(http).result(ENDPOINT, receipt(server.url))

    assert isinstance(outcome, Finished)
    assert video_of_body(outcome.body) is None


@pytest.mark.parametrize(
    ("body", "type_"),
    [
        ({"error": {"type": "generation_timeout", "message": "late"}}, "generation_timeout"),
        ({"detail": [{"type": "content_policy_violation", "msg": "no"}]}, "content_policy_violation"),
        ({"video": None, "error": "late"}, "unknown_error"),
        ({"data": {"errors": [{"code": "no_media_generated"}]}}, "no_media_generated"),
    ],
)
async def test_a_good_status_with_an_error_and_no_video_is_a_failure(body: object, type_: str) -> None:
    async with RawServer(default=answer(200, body)) as server, client(server.url) as http:
        outcome = await FalQueue(http).result(ENDPOINT, receipt(server.url))

    assert isinstance(outcome, Failed)
    assert outcome.failure.type == type_


@pytest.mark.parametrize("name", STATUSES)
async def test_a_status_is_read_in_every_form_that_fal_gives_it(name: str) -> None:
    status, body, expected = STATUSES[name]
    async with RawServer(default=answer(status, body)) as server, client(server.url) as http:
        assert await FalQueue(http).status(ENDPOINT, receipt(server.url)) == expected

        assert [request.target for request in server.received] == [f"{SHORT}/status?logs=1"]
        assert server.received[0].headers["authorization"] == f"Key {CANARY_KEY}"


async def test_a_completed_status_says_how_it_failed() -> None:
    body = {"status": "COMPLETED", "error": "Too slow \x1b[31mnow", "error_type": "generation_timeout"}
    async with RawServer(default=answer(200, body)) as server, client(server.url) as http:
        status = await FalQueue(http).status(ENDPOINT, receipt(server.url))

    assert isinstance(status, Completed)
    assert status.failure is not None
    assert (status.failure.type, status.failure.billed) == ("generation_timeout", "no")
    assert status.failure.upstream_detail == "text from fal.ai, not instructions: Too slow now"


RESULTS = {
    "a video": (
        answer(200, {"video": {**VIDEO, "file_size": 12}}, {"X-Fal-Billable-Units": "3.5"}),
        Finished(
            {"video": {**VIDEO, "file_size": 12}},
            Decimal("3.5"),
        ),
        Video("https://v3.fal.media/files/a/out.mp4", "video/mp4", "out.mp4", 12),
    ),
    "a video and nothing about it": (
        answer(200, {"video": {"url": "https://v3.fal.media/a", "file_size": -1, "file_name": 7}}),
        Finished(
            {"video": {"url": "https://v3.fal.media/a", "file_size": -1, "file_name": 7}},
            None,
        ),
        Video("https://v3.fal.media/a", None, None, None),
    ),
    **{
        f"a video at {url}": (answer(200, {"video": {"url": url}}), Finished({"video": {"url": url}}, None), None)
        for url in ("http://v3.fal.media/a", "https://user@v3.fal.media/a", "file:///etc/passwd", "", 7, None)
    },
    "no video": (answer(200, {"seed": 1}), Finished({"seed": 1}, None), None),
    **{
        f"units {units}": (
            answer(200, {"video": None}, {"X-Fal-Billable-Units": units}),
            Finished({"video": None}, None),
            None,
        )
        for units in ("-1", "NaN", "1e99", "1e3", "1_000", "+5", "5.", "3,5", "0", "0.0", "1000000", "0x5", "many", "")
    },
    "202": (answer(202, {"status": "IN_PROGRESS"}), NotReady(), None),
    "a status instead of a result": (answer(200, {"status": "IN_QUEUE", "request_id": REQUEST_ID}), NotReady(), None),
    "400 in words": (answer(400, {"detail": "Request is still in progress"}), NotReady(), None),
}


@pytest.mark.parametrize("name", RESULTS)
async def test_a_result_is_what_the_model_answered(name: str) -> None:
    script, expected, video = RESULTS[name]
    async with RawServer(default=script) as server, client(server.url) as http:
        outcome = await FalQueue(http).result(ENDPOINT, receipt(server.url))

    assert outcome == expected
    assert not isinstance(outcome, Finished) or video_of_body(outcome.body) == video


@pytest.mark.parametrize(
    ("status", "body", "type_", "billed"),
    [
        (422, MODEL_ERROR, "image_load_error", "maybe"),
        (422, {"detail": "in words"}, "unknown_error", "maybe"),
        (422, {"detail": {"type": "image_load_error", "msg": "no"}}, "image_load_error", "maybe"),
        (422, {"errors": [{"type": "image_load_error", "msg": "no"}]}, "image_load_error", "maybe"),
        (422, [{"type": "image_load_error", "msg": "no"}], "image_load_error", "maybe"),
        (422, {"error": {"code": "image_load_error", "message": "no"}}, "image_load_error", "maybe"),
        (422, {"detail": json.dumps(MODEL_ERROR["detail"])}, "image_load_error", "maybe"),
        (422, {"message": "in words"}, "unknown_error", "maybe"),
        (422, b"in words", "unknown_error", "maybe"),
        (422, b"", "unknown_error", "maybe"),
        (422, {}, "unknown_error", "maybe"),
        (422, {"detail": []}, "unknown_error", "maybe"),
        (403, MODEL_ERROR, "image_load_error", "maybe"),
        (400, {"detail": [{"type": "downstream_service_error", "msg": "x"}]}, "downstream_service_error", "maybe"),
        (499, {"detail": "gone", "error_type": "client_cancelled"}, "client_cancelled", "maybe"),
        (500, {"detail": [{"type": "internal_server_error", "msg": "x"}]}, "internal_server_error", "no"),
        (504, {"detail": [{"type": "generation_timeout", "msg": "x"}]}, "generation_timeout", "no"),
        (500, {"detail": [{"type": "brand_new_error", "msg": "x"}]}, "unknown_error", "no"),
    ],
)
async def test_a_failed_job_is_a_value_and_not_an_exception(status: int, body: object, type_: str, billed: str) -> None:
    async with RawServer(default=answer(status, body)) as server, client(server.url, []) as http:
        outcome = await FalQueue(http).result(ENDPOINT, receipt(server.url))

    assert isinstance(outcome, Failed)
    assert (outcome.failure.type, outcome.failure.billed) == (type_, billed)


async def test_a_verdict_may_be_in_a_header_alone_and_a_time_limit_is_one() -> None:
    typed = answer(422, b"", {"X-Fal-Error-Type": "content_policy_violation", "Content-Type": "text/html"})
    dropped = answer(504, {"detail": "?"}, {"X-Fal-Request-Timeout-Type": "user"})
    async with RawServer(plan=[typed, *[dropped] * 3]) as server, client(server.url, []) as http:
        outcomes = [await FalQueue(http).result(ENDPOINT, receipt(server.url)) for _ in range(2)]

    failures = [outcome.failure for outcome in outcomes if isinstance(outcome, Failed)]
    assert [(failure.type, failure.billed) for failure in failures] == [
        ("content_policy_violation", "maybe"),
        ("request_timeout", "no"),
    ]


ENDED = {"error": "fal's words", "error_type": "runner_scheduling_failure"}


@pytest.mark.parametrize(
    ("status", "result", "type_", "billed"),
    [
        (ENDED, answer(500, b"Internal Server Error"), "runner_scheduling_failure", "no"),
        (ENDED, answer(403, {"detail": "no"}), "runner_scheduling_failure", "no"),
        (ENDED, answer(429, {"detail": "slow"}), "runner_scheduling_failure", "no"),
        (ENDED, answer(404, {"detail": "gone"}), "runner_scheduling_failure", "no"),
        (ENDED, answer(200, b""), "runner_scheduling_failure", "no"),
        (ENDED, answer(200, {"seed": 1}), "runner_scheduling_failure", "no"),
        (ENDED, answer(422, MODEL_ERROR), "image_load_error", "maybe"),
        ({"error_type": "startup_timeout"}, answer(504, b"<html>"), "startup_timeout", "no"),
        ({"error": {"type": "request_timeout", "msg": "x"}}, answer(504, b""), "request_timeout", "no"),
        ({"error": "words"}, answer(500, b"Internal Server Error"), "unknown_error", "no"),
        ({"error": "words"}, answer(504, b"<html>"), "unknown_error", "maybe"),
        ({"error": ["words"]}, answer(403, b"<html>"), "unknown_error", "maybe"),
    ],
)
async def test_an_end_that_the_status_states_is_an_end_whatever_the_result_answers(
    status: dict[str, object], result: Callable[[Connection], Awaitable[None]], type_: str, billed: str
) -> None:
    plan = [answer(200, {"status": "COMPLETED", **status})]
    async with RawServer(plan=plan, default=result) as server, client(server.url, []) as http:
        found = await FalQueue(http).status(ENDPOINT, receipt(server.url))
        assert isinstance(found, Completed)
        assert found.failure is not None
        try:
            answered = await FalQueue(http).result(ENDPOINT, receipt(server.url))
        except errors.KlingError as trouble:
            answered = trouble
        outcome = stated_end(found.failure, answered)

    assert isinstance(outcome, Failed)
    assert (outcome.failure.type, outcome.failure.billed) == (type_, billed)


def test_a_video_that_is_there_counts_more_than_an_error_of_the_status() -> None:
    failure = explain_completed("words", "runner_disconnected")
    assert failure is not None
    finished = Finished({"video": ADDRESS}, None)

    assert stated_end(failure, finished) == finished
    assert stated_end(failure, NotReady()) == Failed(failure)


NO_VERDICTS = {
    "a gateway's 504": answer(504, b"<html>504 Gateway Time-out</html>"),
    "fal's own 504 without a list": answer(504, {"detail": "Gateway timeout", "error_type": "request_timeout"}),
    "a 502 of nginx": answer(502, b"nginx"),
    "a 422 of a proxy": answer(422, b"<html>"),
    "a 500 with an empty list": answer(500, {"detail": []}),
    "a 403 that refuses the question": answer(403, {"detail": "no"}),
}


@pytest.mark.parametrize("name", NO_VERDICTS)
async def test_what_a_gateway_says_is_no_verdict_on_a_job(name: str) -> None:
    async with RawServer(default=NO_VERDICTS[name]) as server, client(server.url, []) as http:
        with pytest.raises(errors.KlingError) as caught:
            await FalQueue(http).result(ENDPOINT, receipt(server.url))

    assert isinstance(caught.value, (errors.FalUnreachable, errors.FalRejected))
    assert caught.value.billed == "maybe"


QUESTIONS: dict[str, Callable[[FalQueue, Receipt], Awaitable[object]]] = {
    "status": lambda queue, given: queue.status(ENDPOINT, given),
    "result": lambda queue, given: queue.result(ENDPOINT, given),
    "cancel": lambda queue, given: queue.cancel(ENDPOINT, given),
}
GOOD = {
    "status": answer(200, {"status": "COMPLETED", "logs": None}),
    "result": answer(200, {"video": VIDEO}),
    "cancel": answer(202, {"status": "CANCELLATION_REQUESTED"}),
}
TROUBLE: dict[str, Callable[[Connection], Awaitable[None]]] = {
    "504": answer(504, b"nginx"),
    "503 asking for 40 seconds": answer(503, b"", {"Retry-After": "40"}),
    "503 asking for a day": answer(503, b"", {"Retry-After": "86400"}),
    "500": answer(500, {"detail": "?"}),
    "a reset": raw(b"", reset=True),
    "half an answer": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
    "silence": silence,
    "drops": drip(b" "),
}
NEVER_ENDING = {"silence", "drops"}


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("trouble", TROUBLE)
async def test_a_free_question_is_asked_again_after_trouble(question: str, trouble: str) -> None:
    pauses: list[float] = []
    script = TROUBLE[trouble]
    async with (
        RawServer(plan=[script, script, GOOD[question]]) as server,
        client(server.url, pauses, deadlines=SOON if trouble in NEVER_ENDING else None) as http,
    ):
        with anyio.fail_after(10):
            await QUESTIONS[question](FalQueue(http), receipt(server.url))

    asked = {"503 asking for 40 seconds": [40.0, 40.0], "503 asking for a day": [300.0, 300.0]}
    assert pauses == asked.get(trouble, [1.0, 2.0])


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("trouble", TROUBLE)
async def test_trouble_that_stays_is_told_as_unreachable(question: str, trouble: str) -> None:
    async with (
        RawServer(default=TROUBLE[trouble]) as server,
        client(server.url, [], deadlines=SOON if trouble in NEVER_ENDING else None) as http,
    ):
        with anyio.fail_after(10), pytest.raises(errors.FalUnreachable) as caught:
            await QUESTIONS[question](FalQueue(http), receipt(server.url))

        assert len(server.complete) == 3
    assert caught.value.billed == "maybe"
    assert "try again" not in str(caught.value).lower()


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, {"detail": "Invalid key"}, errors.FalRejected),
        (402, {"detail": "pay"}, errors.AccountLocked),
        (403, {"detail": "User is locked. Reason: Exhausted balance."}, errors.AccountLocked),
        (403, {"detail": "no"}, errors.FalRejected),
        (429, {"detail": "slow"}, errors.RateLimited),
        (404, {"status": "NOT_FOUND"}, RequestNotFound),
        (408, {"detail": "?"}, errors.FalUnreachable),
        (302, b"", errors.FalUnreachable),
    ],
)
async def test_a_refused_question_is_asked_once_and_says_nothing_about_the_job(
    question: str, status: int, body: object, kind: type[errors.KlingError]
) -> None:
    script = answer(status, body, {"Location": "https://evil.example/"})
    async with RawServer(default=script) as server, client(server.url, []) as http:
        if (question, status) == ("cancel", 404):
            assert await FalQueue(http).cancel(ENDPOINT, receipt(server.url)) == "not_found"
        else:
            with pytest.raises(kind) as caught:
                await QUESTIONS[question](FalQueue(http), receipt(server.url))
            assert caught.value.billed == "maybe"

        assert len(server.received) == 1


async def test_without_a_key_none_is_sent_and_a_401_says_so() -> None:
    async with RawServer(default=answer(401, {"detail": "?"})) as server, client(server.url, key=None) as http:
        with pytest.raises(errors.NoApiKey):
            await FalQueue(http).status(ENDPOINT, receipt(server.url))

        assert "authorization" not in server.received[0].headers


PAGES = {
    "a login page": answer(200, b"<!DOCTYPE html><title>Log in</title>"),
    "a login page elsewhere": answer(302, b"", {"Location": "http://login.example/"}),
    "a firewall's 403": answer(403, b"\n <html><title>Attention Required!</title>"),
    "a proxy's 401": answer(401, b"<?xml version='1.0'?><html/>"),
    "a proxy's 401 in words": answer(401, b"Access denied by policy", {"Content-Type": "text/plain"}),
    "an empty page": answer(401, b"", {"Content-Type": "text/html; charset=utf-8"}),
    "a 404 of a company": answer(404, b"<html>not here</html>"),
    "a 429 of a gate": answer(429, b"<html>slow</html>"),
    "a proxy that wants a password": answer(407, b"", {"Proxy-Authenticate": "Basic"}),
    "a network that wants a login": answer(511, b"<html>"),
}


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("page", PAGES)
async def test_a_page_is_not_fals_word_about_the_key_or_the_job(page: str, question: str) -> None:
    async with RawServer(default=PAGES[page]) as server, client(server.url, []) as http:
        with pytest.raises(Intercepted) as caught:
            await QUESTIONS[question](FalQueue(http), receipt(server.url))

    assert caught.value.what.startswith("Something between this machine and fal.ai answered")
    assert (caught.value.code, caught.value.billed) == ("fal_unreachable", "maybe")


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, {"status": "OK"}, "removed"),
        (202, {"status": "CANCELLATION_REQUESTED"}, "requested"),
        (202, {"status": "OK"}, "requested"),
        (200, {"success": True}, "requested"),
        (200, b"", "requested"),
        (200, {"success": False}, "too_late"),
        (400, {"status": "ALREADY_COMPLETED"}, "too_late"),
        (404, {"status": "NOT_FOUND"}, "not_found"),
        (404, b"", "not_found"),
    ],
)
async def test_a_cancel_is_read_in_every_form_that_fal_gives_it(status: int, body: object, outcome: str) -> None:
    async with RawServer(default=answer(status, body)) as server, client(server.url) as http:
        assert await FalQueue(http).cancel(ENDPOINT, receipt(server.url)) == outcome

        [request] = server.received
        assert (request.method, request.target, request.body) == ("PUT", f"{SHORT}/cancel", b"")


@pytest.mark.parametrize(
    ("question", "status", "body"),
    [
        ("status", 200, b""),
        ("status", 404, b"{}"),
        ("result", 200, b" "),
        ("cancel", 405, b"Method Not Allowed"),
    ],
)
async def test_a_full_path_address_that_leads_nowhere_is_left_for_the_short_one(
    question: str, status: int, body: bytes
) -> None:
    plan = [answer(status, body), GOOD[question]]
    async with RawServer(plan=plan) as server, client(server.url) as http:
        await QUESTIONS[question](FalQueue(http), receipt(server.url, FULL_PATH))

        full, short = [request.target.partition("?")[0] for request in server.received]
    assert full.startswith(f"/queue/{FULL_PATH}/requests/")
    assert short.startswith(SHORT)


FOREIGN = (
    "http://127.0.0.1:1/queue/fal-ai/kling-video/requests/{id}{tail}",
    "https://{host}/queue/fal-ai/kling-video/requests/{id}{tail}",
    "http://{host}.evil.example/queue/fal-ai/kling-video/requests/{id}{tail}",
    "http://{host}@evil.example/queue/fal-ai/kling-video/requests/{id}{tail}",
    "http://evil.example\\@{host}/queue/fal-ai/kling-video/requests/{id}{tail}",
    "//{host}/queue/fal-ai/kling-video/requests/{id}{tail}",
    "http://{host}/queue/fal-ai/kling-video/requests/other{tail}",
    "http://{host}/queue/other/kling-video/requests/{id}{tail}",
    "http://{host}/queue/fal-ai/other/requests/{id}{tail}",
    "http://{host}/queue/fal-ai/kling-video/../../models/requests/{id}{tail}",
    "http://{host}/queue/fal-ai/kling-video/%2e%2e/requests/{id}{tail}",
    "http://{host}/queue/fal-ai/kling-video//requests/{id}{tail}",
    "http://{host}/fal-ai/kling-video/requests/{id}{tail}",
    "http://{host}/queue/fal-ai/kling-video/requests/{id}{tail}?to=https://evil.example",
    "http://{host}/queue/fal-ai/kling-video/requests/{id}{tail}#x",
    "http://{host}/queue/fal-ai/kling-video/requests/{id}{tail}/more",
    "http://{host}/queue/fal-ai/kling-video/requests/{id}{tail}\n",
    "",
    None,
    "x" * 5000,
)


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("shape", FOREIGN)
async def test_an_address_that_is_not_ours_is_never_asked(question: str, shape: str | None) -> None:
    tail = {"status": "/status", "result": "", "cancel": "/cancel"}[question]
    async with RawServer(default=GOOD[question]) as server, client(server.url) as http:
        url = None if shape is None else shape.format(host=server.host, id=REQUEST_ID, tail=tail)
        await QUESTIONS[question](FalQueue(http), Receipt(REQUEST_ID, url, url, url, None))

        assert [request.target.partition("?")[0] for request in server.received] == [SHORT + tail]


async def test_the_response_form_of_a_result_address_is_used_as_given() -> None:
    async with RawServer(default=GOOD["result"]) as server, client(server.url) as http:
        url = f"{server.url}{SHORT}/response"
        await FalQueue(http).result(ENDPOINT, Receipt(REQUEST_ID, None, url, None, None))

        assert server.received[0].target == f"{SHORT}/response"


@pytest.mark.parametrize("request_id", ["", "..", "../models", "a/b", "a?b", "a b", "\u212a"])
@pytest.mark.parametrize("question", QUESTIONS)
async def test_an_id_that_is_no_id_is_not_asked_for(question: str, request_id: str) -> None:
    async with RawServer() as server, client(server.url) as http:
        with pytest.raises(errors.FalUnreachable):
            await QUESTIONS[question](FalQueue(http), Receipt(request_id))

        assert server.received == []


NOT_A_STATUS = {
    "a state that fal does not have": b'{"status": "FAILED"}',
    "no state": b'{"status": null}',
    "another word for it": b'{"state": "COMPLETED"}',
    "a list": b"[]",
    "a word": b"COMPLETED",
    "nothing": b"",
    "objects without end": b'{"a":' * 150_000,
    "lists without end": b"[" * 900_000,
    "lists with an end": b"[" * 400_000 + b"]" * 400_000,
    "a page": b"<html><title>Please log in</title></html>",
    "not UTF-8": b"\xff\xfe",
    "more than a megabyte": b" " * (1024 * 1024 + 1),
}


@pytest.mark.parametrize("name", NOT_A_STATUS)
async def test_a_status_that_fal_does_not_give_is_unreachable_and_not_a_crash(name: str) -> None:
    async with RawServer(default=answer(200, NOT_A_STATUS[name])) as server, client(server.url, []) as http:
        with pytest.raises(errors.FalUnreachable):
            await FalQueue(http).status(ENDPOINT, receipt(server.url))
