"""The queue's wire, seen through HTTP."""

from __future__ import annotations

import json
import uuid
from typing import Any

import anyio
import pytest

from kling_mcp.simulator.app import Switches
from kling_mcp.simulator.render import sample_video

from .calls import BODY, ENDPOINT, WORK_SECONDS, fal

pytestmark = pytest.mark.anyio

LOG_SPELLINGS = [("1", True), ("true", True), ("0", False), ("false", False)]


async def test_a_submit_answers_where_to_ask_below_owner_and_app() -> None:
    async with fal() as it:
        response = await it.submit()

        answer = response.json()
        request_id = answer["request_id"]
        base = f"{it.urls.queue}/fal-ai/kling-video/requests/{request_id}"
        assert response.status_code == 200
        assert answer == {
            "status": "IN_QUEUE",
            "request_id": str(uuid.UUID(request_id)),
            "response_url": base,
            "status_url": f"{base}/status",
            "cancel_url": f"{base}/cancel",
            "queue_position": 0,
        }
        assert response.headers["x-fal-request-id"] == request_id


async def test_what_was_accepted_is_kept_with_headers_and_tags() -> None:
    async with fal() as it:
        job = await it.submitted(x_fal_tags="kling_intent=kj_1, team=film,nonsense", x_fal_queue_priority="normal")

        (accepted,) = it.simulator.accepted
        assert (accepted.request_id, accepted.endpoint_id, accepted.body) == (job["request_id"], ENDPOINT, BODY)
        assert accepted.tags == {"kling_intent": "kj_1", "team": "film"}
        assert accepted.headers["x-fal-queue-priority"] == "normal"
        assert accepted.at == it.clock.now()
        (call,) = it.simulator.requests
        assert (call.kind, call.method, call.path) == ("submit", "POST", f"/queue/{ENDPOINT}")
        assert json.loads(call.body) == BODY


async def test_a_submit_may_answer_202_as_fal_has_been_seen_to() -> None:
    async with fal(Switches(submit_status=202)) as it:
        assert (await it.submit()).status_code == 202


@pytest.mark.parametrize("authorization", ["", "Key", "Key id:wrong", "Bearer id:secret", "id:secret"])
async def test_a_missing_or_wrong_key_is_401_and_nothing_is_accepted(authorization: str) -> None:
    async with fal() as it:
        headers = {"Authorization": authorization}

        responses = [
            await it.http.post(f"{it.urls.queue}/{ENDPOINT}", json=BODY, headers=headers),
            await it.http.get(f"{it.urls.queue}/fal-ai/kling-video/requests/{uuid.uuid4()}/status", headers=headers),
        ]

        assert [response.status_code for response in responses] == [401, 401]
        assert it.simulator.accepted == []


async def test_an_unknown_endpoint_is_404() -> None:
    async with fal() as it:
        response = await it.http.post(f"{it.urls.queue}/fal-ai/kling-video/o9/image-to-video", json=BODY)

        assert response.status_code == 404
        assert it.simulator.accepted == []


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff"])
async def test_a_body_that_is_no_object_is_refused_at_the_door(body: bytes) -> None:
    async with fal() as it:
        response = await it.http.post(f"{it.urls.queue}/{ENDPOINT}", content=body)

        assert response.status_code == 422
        assert it.simulator.accepted == []


async def test_a_job_waits_runs_and_is_done_as_the_clock_says() -> None:
    async with fal() as it:
        job = await it.submitted()

        looks: list[Any] = []
        for seconds in (0.5, 1.0, WORK_SECONDS - 1.0, 1.0):
            it.clock.advance(seconds)
            response = await it.get(job["status_url"])
            looks.append((response.status_code, response.json()["status"], response.headers["x-fal-request-id"]))

        request_id = job["request_id"]
        assert looks == [
            (202, "IN_QUEUE", request_id),
            (202, "IN_PROGRESS", request_id),
            (202, "IN_PROGRESS", request_id),
            (200, "COMPLETED", request_id),
        ]
        assert (await it.get(job["status_url"])).json()["metrics"] == {"inference_time": WORK_SECONDS}


async def test_a_faster_simulator_shortens_the_wait_and_keeps_the_dates() -> None:
    async with fal(speed=10.0) as it:
        job = await it.submitted()
        before = it.clock.now()

        it.clock.advance(0.1 + WORK_SECONDS / 10)

        assert await it.state(job) == "COMPLETED"
        assert it.clock.now() - before < 10


async def test_one_job_of_an_account_runs_and_the_others_know_their_place() -> None:
    async with fal() as it:
        jobs = [await it.submitted() for _ in range(3)]
        assert [job["queue_position"] for job in jobs] == [0, 1, 2]
        it.clock.advance(2)

        looks = [(await it.get(job["status_url"])).json() for job in jobs]

        assert [(look["status"], look.get("queue_position")) for look in looks] == [
            ("IN_PROGRESS", None),
            ("IN_QUEUE", 0),
            ("IN_QUEUE", 1),
        ]
        it.clock.advance(WORK_SECONDS)
        assert [await it.state(job) for job in jobs] == ["COMPLETED", "IN_PROGRESS", "IN_QUEUE"]


async def test_accounts_do_not_wait_for_each_other_and_do_not_see_each_other() -> None:
    async with fal(key=None) as it:
        mine = await it.submitted()
        theirs = await it.submitted(authorization="Key other:key")
        it.clock.advance(2)

        assert await it.state(mine) == "IN_PROGRESS"
        other = {"Authorization": "Key other:key"}
        assert (await it.http.get(theirs["status_url"], headers=other)).json()["status"] == "IN_PROGRESS"
        assert (await it.http.get(mine["status_url"], headers=other)).status_code == 404


async def test_an_account_with_two_runners_runs_two_jobs() -> None:
    async with fal(concurrency=2) as it:
        jobs = [await it.submitted() for _ in range(3)]
        it.clock.advance(2)

        assert [await it.state(job) for job in jobs] == ["IN_PROGRESS", "IN_PROGRESS", "IN_QUEUE"]


async def test_a_low_priority_job_lets_the_others_past() -> None:
    async with fal() as it:
        running, low, normal = (
            await it.submitted(),
            await it.submitted(x_fal_queue_priority="low"),
            await it.submitted(),
        )
        it.clock.advance(2 + WORK_SECONDS)

        assert [await it.state(job) for job in (running, low, normal)] == ["COMPLETED", "IN_QUEUE", "IN_PROGRESS"]


@pytest.mark.parametrize(("spelling", "shown"), LOG_SPELLINGS)
async def test_logs_are_asked_for_in_either_clients_spelling(spelling: str, shown: bool) -> None:
    async with fal() as it:
        job = await it.submitted()
        it.clock.advance(50)

        body = (await it.get(job["status_url"], logs=spelling)).json()

        assert (body["logs"] is not None) == shown


async def test_the_log_is_a_moving_window_that_names_the_shots() -> None:
    async with fal() as it:
        shots = [{"prompt": f"Shot {number}", "duration": "2"} for number in range(1, 5)]
        job = await it.finished({"image_url": BODY["image_url"], "multi_prompt": shots})

        logs = (await it.get(job["status_url"], logs="1")).json()["logs"]

        assert [line["message"] for line in logs] == [
            "Shot 3 of 4: 50% of the video.",
            "Shot 3 of 4: 62% of the video.",
            "Shot 4 of 4: 75% of the video.",
            "Shot 4 of 4: 88% of the video.",
            "Generation finished.",
        ]
        assert [line["timestamp"] for line in logs] == sorted(line["timestamp"] for line in logs)
        assert {key for line in logs for key in line} == {"message", "timestamp", "level", "source"}


async def test_the_stream_tells_each_state_once_with_new_lines_only_and_ends() -> None:
    async with fal() as it:
        job = await it.submitted()
        events: list[dict[str, Any]] = []
        headers = {"Accept": "text/event-stream"}
        url = f"{job['status_url']}/stream?logs=1"

        with anyio.fail_after(10):
            async with it.http.stream("GET", url, headers=headers) as response:
                async for line in response.aiter_lines():
                    if line.startswith("data: "):
                        events.append(json.loads(line.removeprefix("data: ")))
                        it.clock.advance(60)

        assert response.headers["content-type"].startswith("text/event-stream")
        assert [event["status"] for event in events] == ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]
        messages = [line["message"] for event in events[1:] for line in event["logs"]]
        assert messages == list(dict.fromkeys(messages))
        assert messages[0].startswith("Runner ready")
        assert messages[-1] == "Generation finished."


async def test_a_result_is_the_models_own_answer_with_fals_headers() -> None:
    async with fal() as it:
        job = await it.finished({**BODY, "generate_audio": True})

        response = await it.get(job["response_url"])
        alias = await it.get(f"{job['response_url']}/response")

        video = response.json()["video"]
        assert response.status_code == 200
        assert video["content_type"] == "video/mp4"
        assert (await it.http.get(video["url"])).content == sample_video((), None, None)
        assert video["file_size"] == len(sample_video((), None, None))
        # 5 s with sound at $0.112, in units of $0.14.
        assert response.headers["x-fal-billable-units"] == "4"
        assert response.headers["x-fal-request-id"] == job["request_id"]
        assert alias.json() == response.json()


async def test_billable_units_can_be_left_out() -> None:
    async with fal(Switches(billable_units=False)) as it:
        job = await it.finished()

        assert "x-fal-billable-units" not in (await it.get(job["response_url"])).headers


async def test_a_result_is_400_before_the_end_and_404_after_its_time() -> None:
    async with fal() as it:
        job = await it.submitted()

        early = await it.get(job["response_url"])
        it.clock.advance(WORK_SECONDS + 1 + 3599)
        kept = await it.get(job["response_url"])
        it.clock.advance(2)
        late = await it.get(job["response_url"])

        assert [early.status_code, kept.status_code, late.status_code] == [400, 200, 404]
        assert (await it.get(job["status_url"])).json()["status"] == "COMPLETED"


async def test_an_unknown_request_is_not_found_everywhere() -> None:
    async with fal() as it:
        base = f"{it.urls.queue}/fal-ai/kling-video/requests/{uuid.uuid4()}"

        responses = [
            await it.get(f"{base}/status"),
            await it.get(f"{base}/status/stream"),
            await it.get(base),
            await it.http.put(f"{base}/cancel"),
        ]

        assert [response.status_code for response in responses] == [404] * 4
        assert {response.text for response in responses} == {'{"status":"NOT_FOUND"}'}
        assert all(response.headers["x-fal-request-id"] for response in responses)


async def test_a_request_is_not_found_below_another_app() -> None:
    async with fal() as it:
        job = await it.submitted()

        response = await it.get(f"{it.urls.queue}/fal-ai/flux/requests/{job['request_id']}/status")

        assert response.status_code == 404


async def test_the_long_path_answers_unless_fals_oddity_is_switched_on() -> None:
    async with fal() as it:
        job = await it.finished()
        long = f"{it.urls.queue}/{ENDPOINT}/requests/{job['request_id']}"

        assert (await it.get(f"{long}/status")).json()["status"] == "COMPLETED"
        assert (await it.get(long)).json()["video"]["content_type"] == "video/mp4"

        it.simulator.switches = Switches(full_path="empty")
        status, result, cancel = (
            await it.get(f"{long}/status"),
            await it.get(long),
            await it.http.put(f"{long}/cancel"),
        )
        assert (status.status_code, status.content) == (200, b"")
        assert (result.status_code, result.content) == (200, b"")
        assert cancel.status_code == 405
        assert await it.state(job) == "COMPLETED"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"prompt": "x"}, [(["body", "image_url"], "missing")]),
        ({**BODY, "duration": "16"}, [(["body", "duration"], "literal_error")]),
        ({**BODY, "duration": 5}, [(["body", "duration"], "literal_error"), (["body", "duration"], "string_type")]),
        ({**BODY, "start_image_url": "x"}, [(["body", "start_image_url"], "extra_forbidden")]),
        ({**BODY, "prompt": "x" * 2501}, [(["body", "prompt"], "string_too_long")]),
        ({**BODY, "multi_prompt": [{}]}, [(["body", "multi_prompt", 0, "prompt"], "missing")]),
        ({"image_url": "x"}, [(["body", "root"], "value_error")]),
    ],
)
async def test_a_body_that_does_not_fit_fails_after_it_has_queued(body: dict[str, Any], expected: list[Any]) -> None:
    async with fal() as it:
        job = await it.submitted(body)
        assert await it.state(job) == "IN_QUEUE"
        it.clock.advance(5)

        status = (await it.get(job["status_url"])).json()
        result = await it.get(job["response_url"])

        detail = result.json()["detail"]
        assert result.status_code == 422
        assert sorted((entry["loc"], entry["type"]) for entry in detail) == expected
        assert all({"loc", "msg", "type", "url", "input"} <= set(entry) for entry in detail)
        assert (status["status"], status["error_type"]) == ("COMPLETED", detail[0]["type"])
        assert result.headers["x-fal-retryable"] == "false"


async def test_validation_at_the_door_accepts_nothing() -> None:
    async with fal(Switches(validate_at_once=True)) as it:
        response = await it.submit({"prompt": "x"})

        assert response.status_code == 422
        assert response.json()["detail"][0]["type"] == "missing"
        assert it.simulator.accepted == []


async def test_a_picture_that_is_not_in_storage_cannot_be_downloaded() -> None:
    async with fal() as it:
        job = await it.finished({**BODY, "image_url": f"{it.urls.media}/files/sim/nowhere.png"})

        result = await it.get(job["response_url"])

        assert result.status_code == 422
        assert result.json()["detail"][0]["type"] == "file_download_error"


async def test_cancel_has_a_code_for_each_moment() -> None:
    async with fal() as it:
        running, queued = await it.submitted(), await it.submitted()
        it.clock.advance(2)

        answers = [await it.http.put(job["cancel_url"]) for job in (queued, running)]
        it.clock.advance(WORK_SECONDS)
        answers.append(await it.http.put(running["cancel_url"]))

        assert [(answer.status_code, answer.json()["status"]) for answer in answers] == [
            (200, "OK"),
            (202, "CANCELLATION_REQUESTED"),
            (400, "ALREADY_COMPLETED"),
        ]
        # What runs may finish all the same, and is then billed.
        assert (await it.get(running["response_url"])).status_code == 200
        cancelled = await it.get(queued["response_url"])
        assert (cancelled.status_code, cancelled.headers["x-fal-error-type"]) == (499, "client_cancelled")


async def test_a_cancelled_runner_can_be_made_to_stop_and_frees_its_place() -> None:
    async with fal(Switches(cancel_stops_running=True)) as it:
        running, queued = await it.submitted(), await it.submitted()
        it.clock.advance(2)

        await it.http.put(running["cancel_url"])

        assert (await it.get(running["status_url"])).json()["error_type"] == "client_cancelled"
        assert await it.state(queued) == "IN_PROGRESS"


@pytest.mark.parametrize(
    "headers",
    [
        {"x_fal_request_start_timeout": "30"},
        {"x_fal_request_timeout": "30"},
        {"x_fal_request_start_timeout": "30", "x_fal_request_timeout": "3600"},
    ],
)
async def test_a_job_that_does_not_start_in_time_is_given_up_unbilled(headers: dict[str, str]) -> None:
    async with fal() as it:
        first, late = await it.submitted(), await it.submitted(None, **headers)
        it.clock.advance(31)

        result = await it.get(late["response_url"])

        assert await it.state(first) == "IN_PROGRESS"
        assert result.status_code == 504
        assert result.headers["x-fal-request-timeout-type"] == "user"
        assert result.json()["error_type"] == "request_timeout"
        assert "x-fal-billable-units" not in result.headers


async def test_a_deadline_for_the_start_does_not_stop_what_has_started() -> None:
    async with fal() as it:
        job = await it.finished(x_fal_request_start_timeout="30")

        assert (await it.get(job["response_url"])).status_code == 200


async def test_a_queue_longer_than_the_caller_allows_is_429() -> None:
    async with fal() as it:
        url = f"{it.urls.queue}/{ENDPOINT}?fal_max_queue_length=1"
        codes = [(await it.http.post(url, json=BODY)).status_code for _ in range(3)]

        assert codes == [200, 200, 429]
        assert len(it.simulator.accepted) == 2


async def test_the_date_header_is_the_simulators_own() -> None:
    async with fal() as it:
        assert (await it.submit()).headers["date"] == "Thu, 01 Jan 2026 00:00:00 GMT"
