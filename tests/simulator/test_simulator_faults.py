"""Each fault from the caller's side, beside what the simulator knows to be true."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

from kling_mcp.simulator.faults import (
    Answer,
    CallKind,
    ChangedEtag,
    Delay,
    Drip,
    DropAfterAccept,
    DropBeforeAccept,
    Endless,
    Fault,
    Garbage,
    Gzip,
    Hang,
    NoRequestId,
    Redirect,
    ShortBody,
    Truncated,
    WrongHost,
    WrongRange,
    exhausted_balance,
    expired,
    named,
    nginx,
    too_many,
)
from kling_mcp.simulator.outcomes import ERROR_TYPES, failure
from kling_mcp.simulator.render import sample_video

from .calls import BODY, ENDPOINT, fal

if TYPE_CHECKING:
    from .calls import Fal

pytestmark = pytest.mark.anyio

VIDEO = sample_video((), None, None)


async def quick_submit(it: Fal) -> httpx.Response:
    return await it.http.post(f"{it.urls.queue}/{ENDPOINT}", json=BODY, timeout=0.5)


@pytest.mark.parametrize(
    ("fault", "seen", "accepted"),
    [
        (DropBeforeAccept(), httpx.ReadError, 0),
        (DropAfterAccept(), httpx.ReadError, 1),
        (DropAfterAccept(reset=False), httpx.RemoteProtocolError, 1),
        (Hang(), httpx.ReadTimeout, 1),
        (Hang(accepted=False), httpx.ReadTimeout, 0),
        (Delay(3.0), httpx.ReadTimeout, 1),
        (Truncated(), httpx.RemoteProtocolError, 1),
        (Truncated(share=0.0), httpx.RemoteProtocolError, 1),
    ],
    ids=repr,
)
async def test_a_broken_connection_looks_the_same_whether_or_not_fal_has_the_request(
    fault: Fault, seen: type[Exception], accepted: int
) -> None:
    async with fal() as it:
        it.simulator.faults.add("submit", fault)

        with pytest.raises(seen):
            await quick_submit(it)

        assert len(it.simulator.accepted) == accepted
        assert (await quick_submit(it)).status_code == 200


@pytest.mark.parametrize(
    ("fault", "status", "body", "headers", "accepted"),
    [
        *[(Answer(code), code, "Simulated failure", {}, 0) for code in (408, 409, 425, 500, 503, 504)],
        *[(Answer(code, accepted=True), code, "Simulated failure", {}, 1) for code in (408, 409, 500, 503)],
        (too_many(), 429, "Concurrent requests", {"x-fal-needs-retry": "1"}, 0),
        (too_many("7"), 429, "Concurrent requests", {"retry-after": "7"}, 0),
        (exhausted_balance(), 403, "User is locked. Reason: Exhausted balance. Top up", {}, 0),
        (Redirect("https://example.com/x"), 307, "", {"location": "https://example.com/x"}, 0),
        (Redirect("https://example.com/x", 302, accepted=True), 302, "", {"location": "https://example.com/x"}, 1),
        (nginx(), 502, "nginx", {"content-type": "text/html"}, 0),
        (nginx(504, accepted=True), 504, "nginx", {}, 1),
        (Garbage(), 200, '{"request_id": "0f3c', {}, 1),
    ],
    ids=repr,
)
async def test_another_answer_than_the_true_one(
    fault: Fault, status: int, body: str, headers: dict[str, str], accepted: int
) -> None:
    async with fal() as it:
        it.simulator.faults.add("submit", fault)

        response = await it.submit()

        assert response.status_code == status
        assert body in response.content.decode(errors="replace")
        assert headers.items() <= dict(response.headers).items()
        assert len(it.simulator.accepted) == accepted


async def test_only_the_proxy_in_front_answers_without_fals_request_id() -> None:
    async with fal() as it:
        it.simulator.faults.add("any", Answer(502))
        it.simulator.faults.add("any", nginx(), after=0)

        assert "x-fal-request-id" in (await it.submit()).headers
        assert "x-fal-request-id" not in (await it.submit()).headers


async def test_a_success_without_a_request_id_was_accepted() -> None:
    async with fal() as it:
        it.simulator.faults.add("submit", NoRequestId())

        answer = (await it.submit()).json()

        assert "request_id" not in answer
        assert "status_url" in answer
        assert len(it.simulator.accepted) == 1


async def test_addresses_may_point_at_a_foreign_host() -> None:
    async with fal() as it:
        it.simulator.faults.add("submit", WrongHost("https://evil.example"))

        answer = (await it.submit()).json()

        for name in ("status_url", "response_url", "cancel_url"):
            assert answer[name].startswith("https://evil.example/queue/fal-ai/kling-video/requests/")


async def test_a_job_can_end_in_every_error_that_fal_documents() -> None:
    async with fal(concurrency=100) as it:
        error_types = [*ERROR_TYPES, "something_new"]
        for error_type in error_types:
            it.simulator.faults.fail(error_type)
        jobs = [await it.submitted() for _ in error_types]
        it.clock.advance(1000)

        for error_type, job in zip(error_types, jobs, strict=True):
            status = (await it.get(job["status_url"])).json()
            result = await it.get(job["response_url"])

            known = ERROR_TYPES.get(error_type)
            assert (status["status"], status["error_type"]) == ("COMPLETED", error_type)
            assert result.status_code == (422 if known is None else known.status)
            if known is not None and known.infrastructure:
                assert (result.json()["error_type"], result.headers["x-fal-error-type"]) == (error_type, error_type)
            else:
                assert result.json()["detail"][0]["type"] == error_type
                assert result.headers["x-fal-retryable"] in {"true", "false"}


async def test_an_old_endpoint_says_what_went_wrong_in_plain_text() -> None:
    async with fal() as it:
        it.simulator.faults.fail(failure("content_policy_violation", "No.", plain=True))
        job = await it.finished()

        assert (await it.get(job["response_url"])).json() == {"detail": "No."}


async def test_failures_are_used_up_in_order_and_then_all_is_well() -> None:
    async with fal() as it:
        it.simulator.faults.fail("image_load_error")
        it.simulator.faults.fail("runner_server_error", times=2)
        jobs = [await it.submitted() for _ in range(4)]
        it.clock.advance(1000)

        codes = [(await it.get(job["response_url"])).status_code for job in jobs]

        assert codes == [422, 500, 500, 200]


async def test_a_result_that_fails_twice_is_there_the_third_time() -> None:
    async with fal() as it:
        it.simulator.faults.add("result", Answer(504), times=2)
        job = await it.finished()

        assert [(await it.get(job["response_url"])).status_code for _ in range(3)] == [504, 504, 200]


async def test_a_fault_can_wait_last_for_ever_and_be_called_off() -> None:
    async with fal() as it:
        it.simulator.faults.add("status", Answer(500), times=None, after=2)
        job = await it.submitted()

        codes = [(await it.get(job["status_url"])).status_code for _ in range(5)]
        it.simulator.faults.clear()

        assert codes == [202, 202, 500, 500, 500]
        assert (await it.get(job["status_url"])).status_code == 202


async def test_an_expired_result_is_not_found() -> None:
    async with fal() as it:
        it.simulator.faults.add("result", expired())
        job = await it.finished()

        assert (await it.get(job["response_url"])).status_code == 404


async def test_a_late_answer_is_still_the_true_one() -> None:
    async with fal() as it:
        it.simulator.faults.add("submit", Delay(0.01))

        assert (await it.submit()).json()["request_id"] == it.simulator.accepted[0].request_id


async def test_a_body_can_come_drop_by_drop() -> None:
    async with fal() as it:
        job = await it.submitted()
        whole = (await it.get(job["status_url"])).content
        it.simulator.faults.add("status", Drip(0.005))
        received = b""

        async with it.http.stream("GET", job["status_url"]) as response:
            async for chunk in response.aiter_raw():
                received += chunk
                if len(received) > 2:
                    break

        assert whole.startswith(received)
        assert len(received) < len(whole) == int(response.headers["content-length"])


async def test_an_endless_body_lasts_until_the_caller_has_had_enough() -> None:
    async with fal() as it:
        job = await it.submitted()
        it.simulator.faults.add("status", Endless())
        received = 0

        with anyio.fail_after(10):
            async with it.http.stream("GET", job["status_url"]) as response:
                async for chunk in response.aiter_raw():
                    received += len(chunk)
                    if received > 1_000_000:
                        break

        assert response.status_code == 202
        assert (await it.get(job["status_url"])).json()["status"] == "IN_QUEUE"


async def test_a_compressed_body_is_sent_to_a_caller_who_wants_none() -> None:
    async with fal() as it:
        job = await it.submitted()
        it.simulator.faults.add("status", Gzip(padding=2_000_000))
        url = job["status_url"]

        async with it.http.stream("GET", url, headers={"Accept-Encoding": "identity"}) as response:
            raw = b"".join([chunk async for chunk in response.aiter_raw()])

        assert response.headers["content-encoding"] == "gzip"
        assert len(raw) < 10_000
        assert len(gzip.decompress(raw)) > 2_000_000


async def downloaded(it: Fal, fault: Fault | None, **headers: str) -> httpx.Response:
    job = await it.finished()
    url = (await it.get(job["response_url"])).json()["video"]["url"]
    if fault is not None:
        it.simulator.faults.add("download", fault)
    return await it.http.get(url, headers=headers)


@pytest.mark.parametrize(
    ("fault", "headers", "status", "body"),
    [
        (None, {}, 200, VIDEO),
        (ShortBody(10), {}, 200, VIDEO[:-10]),
        (ChangedEtag(), {"Range": "bytes=100-"}, 206, VIDEO[100:]),
        (WrongRange(), {"Range": "bytes=100-199"}, 206, VIDEO[100:200]),
        (Answer(503), {}, 503, b'{"detail": "Simulated failure"}'),
    ],
    ids=repr,
)
async def test_a_download_can_be_wrong(fault: Fault | None, headers: dict[str, str], status: int, body: bytes) -> None:
    async with fal() as it:
        response = await downloaded(it, fault, **headers)

        assert (response.status_code, response.content) == (status, body)
        if isinstance(fault, ChangedEtag):
            assert response.headers["etag"] == '"changed"'
        if isinstance(fault, WrongRange):
            assert response.headers["content-range"].startswith("bytes 1-")


async def test_a_download_can_break_off_in_the_middle() -> None:
    async with fal() as it:
        with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
            await downloaded(it, Truncated(0.3))


@pytest.mark.parametrize("kind", ["status", "result", "cancel", "token", "initiate", "upload", "models", "history"])
async def test_every_kind_of_call_can_be_hit(kind: CallKind) -> None:
    async with fal() as it:
        job = await it.submitted()
        it.simulator.faults.add(kind, Answer(599))
        calls: dict[str, Any] = {
            "status": ("GET", job["status_url"]),
            "result": ("GET", job["response_url"]),
            "cancel": ("PUT", job["cancel_url"]),
            "token": ("POST", f"{it.urls.rest}/storage/auth/token?storage_type=fal-cdn-v3"),
            "initiate": ("POST", f"{it.urls.rest}/storage/upload/initiate?storage_type=gcs"),
            "upload": ("POST", f"{it.urls.media}/files/upload"),
            "models": ("GET", f"{it.urls.api}/models"),
            "history": ("GET", f"{it.urls.api}/models/requests/by-endpoint?endpoint_id=x"),
        }

        codes = [(await it.http.request(*calls[other])).status_code for other in calls if other != kind]

        assert 599 not in codes
        assert (await it.http.request(*calls[kind])).status_code == 599


async def test_dropping_needs_a_real_connection() -> None:
    from kling_mcp.simulator.app import Simulator

    simulator = Simulator()
    simulator.faults.add("submit", DropAfterAccept())
    transport = httpx.ASGITransport(simulator.app)

    async with httpx.AsyncClient(transport=transport, base_url="http://sim") as http:
        with pytest.raises(RuntimeError, match=r"kling_mcp\.simulator\.serve"):
            await http.post(f"/queue/{ENDPOINT}", json=BODY, headers={"Authorization": "Key k"})


async def test_a_simulator_stops_while_callers_still_wait_for_an_answer() -> None:
    with anyio.fail_after(10):
        # Two blocks: the simulator stops while the task of the outer one still waits.
        async with anyio.create_task_group() as tasks:  # noqa: SIM117
            async with fal() as it:
                it.simulator.faults.add("submit", Hang())
                errors: list[Exception] = []
                url = f"{it.urls.queue}/{ENDPOINT}"

                async def wait() -> None:
                    async with httpx.AsyncClient(headers={"Authorization": "Key id:secret"}, timeout=30) as http:
                        try:
                            await http.post(url, json=BODY)
                        except httpx.TransportError as error:
                            errors.append(error)

                tasks.start_soon(wait)
                while not it.simulator.accepted:
                    await anyio.lowlevel.checkpoint()

    assert len(errors) == 1


def test_a_command_line_can_name_faults() -> None:
    names = ["drop-after-accept", "drop-before-accept", "hang", "429", "504", "exhausted-balance", "redirect"]

    assert [type(named(name)) for name in names] == [
        DropAfterAccept,
        DropBeforeAccept,
        Hang,
        Answer,
        Answer,
        Answer,
        Redirect,
    ]


@pytest.mark.parametrize("name", ["", "200", "nonsense"])
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match="drop-after-accept"):
        named(name)
