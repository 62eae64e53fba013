"""What a job says of itself in each state, read from its row alone: the advice may never make anybody pay twice."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import mcp_types as t
import pytest

from kling_mcp.errors import InvalidArguments, NoApiKey, UnknownJob
from kling_mcp.jobs.job import Again, Fault, Job, NewVoice
from kling_mcp.server.results import job_failure, job_result, refusal, result
from kling_mcp.server.views import JobsView, JobView, SpendTodayView, View, arguments_of, compact
from tests.jobs.support import NOW_MS, intent, job

MOST_BYTES = 8_000
"""2,000 tokens."""

PICTURE = "data:image/jpeg;base64," + "A" * 853_336
URL = "https://v3.fal.media/files/a/out.mp4"
TODAY = SpendTodayView(today_usd=1.25, held_usd=0.5, remaining_usd=23.25, limit_usd=25.0)
TAKE = re.compile(r"\btake\b|try again|once more|another attempt", re.IGNORECASE)


class _Shown(View):
    request: dict[str, Any]


def ended(state: Any = "failed", billed: Any = "no", again: Again | None = None, code: str = "fal_rejected") -> Job:
    return job(state=state, fault=Fault(code, "It was refused.", billed, again=again))


def completed(video: Any, **changes: Any) -> Job:
    return job(state="completed", result={"video": video}, request_id="r-1", **changes)


def voiced(result: dict[str, Any]) -> Job:
    voice = NewVoice("Anna", "sha256:one", "voice_id")
    return job(state="completed", result=result, intent=intent(voice=voice, mode="create-voice"))


STEPS: dict[str, tuple[Job, str, bool]] = {
    "waits": (job(state="queued"), "wait_seconds 45", False),
    "unknown": (job(state="unknown"), "resolve_job", False),
    "not submitted": (ended("not_submitted"), "the same call starts the job", False),
    "dropped by fal": (ended("cancelled", again="same_call"), "the same call starts the job", False),
    "failed inside fal": (ended(again="next_take", code="fal_unreachable"), "take 2", True),
    "content, free": (ended(again="changed_call"), "Change the prompt or the picture", False),
    "content, of an older ledger": (ended(), "Change the prompt or the picture", False),
    "content, perhaps charged": (ended(billed="maybe"), "Change the prompt or the picture", False),
    "perhaps charged": (ended(billed="maybe", code="fal_unreachable"), "may have been charged", False),
    "perhaps charged, though a take would work": (
        ended(billed="maybe", again="next_take", code="fal_unreachable"),
        "may have been charged",
        False,
    ),
    "cancelled while it ran": (ended("cancelled", "maybe", code="cancelled"), "may have been charged", False),
    "charged, as the user says": (ended(billed="yes"), "was charged", False),
    "saved": (completed({"url": URL}, saved_to="/v/fox.mp4"), "last-frame", False),
    "not saved yet": (completed({"url": URL}), "is being saved", False),
    "cannot be saved": (completed({"url": URL}, save_trouble="The disk is full."), "video.url", False),
    "a voice": (voiced({"voice_id": "8301"}), "'Anna' or 8301 in voice_ids", False),
    "no voice": (voiced({}), "without a voice in its answer", False),
    "no video": (completed({}), "without a video in its answer", False),
    "no address": (completed({"url": None}), "without a video in its answer", False),
    "a number": (completed({"url": 7}), "without a video in its answer", False),
    "no object": (completed("gone"), "without a video in its answer", False),
    "a file in the place of an address": (completed({"url": PICTURE}, saved_to="/v/fox.mp4"), "video.saved_to", False),
}


@pytest.mark.parametrize("name", STEPS)
def test_the_next_step_is_one_that_works_and_no_second_payment(name: str) -> None:
    """
    A take is offered only where the first certainly cost nothing; the number is the next one.
    """
    shown, says, offers_a_take = STEPS[name]

    view = JobView.of(shown, NOW_MS).data()

    assert says in view["next_step"]
    assert (TAKE.search(json.dumps(view["next_step"])) is not None) is offers_a_take
    assert ("link" in view["next_step"] or "video.url" in view["next_step"]) <= (
        view["video"] is not None and view["video"]["url"] is not None
    )
    later = JobView.of(replace(shown, intent=replace(shown.intent, take=4)), NOW_MS)
    assert later.next_step == view["next_step"].replace("take 2", "take 5")
    if shown.fault is not None and shown.state in {"failed", "not_submitted"}:
        text = said(job_failure(shown, NOW_MS))
        assert view["next_step"] in text
        assert "It was refused." in text


@pytest.mark.parametrize("asked", [False, True])
def test_what_is_shown_is_short_whatever_a_job_holds(asked: bool) -> None:
    """
    Long texts, pictures as texts, long names and addresses: both halves under 2,000 tokens, and the address whole.
    """
    arguments = {
        "image": PICTURE,
        "prompt": "Füchse! " * 312,
        "negative_prompt": "狐" * 2_500,
        "elements": [{"frontal_image": PICTURE}],
        "max_cost_usd": 3,
        "wait_seconds": 45,
    }
    url = f"https://v3.fal.media/files/a/out.mp4?{'s' * 3_000}"
    shown = completed({"url": url, "file_name": "n" * 900, "content_type": 7, "file_size": "big"})
    shown = replace(shown, intent=intent(arguments=arguments))

    both = job_result(shown, NOW_MS, with_arguments=asked)

    view = both.structured_content
    assert view is not None
    assert len(said(both).encode()) <= MOST_BYTES
    assert json.loads(said(both).partition("\n")[2]) == view
    assert view["video"] == {"url": url, "content_type": None, "file_size": None, "saved_to": None}
    assert len(view["prompt"]) == 160
    assert "AAAA" not in said(both)
    if asked:
        assert view["arguments"]["image"] == "data:image/jpeg (640 kB)"
        assert view["arguments"]["elements"] == [{"frontal_image": "data:image/jpeg (640 kB)"}]
        assert view["arguments"]["negative_prompt"].endswith("(cut; whole in kling://jobs/kj_1)")
        # The user's yes to a price was for one purchase.
        assert not {"max_cost_usd", "wait_seconds"} & set(view["arguments"])
    assert arguments_of(shown)["negative_prompt"] == arguments["negative_prompt"]


def test_twenty_rows_fit_a_page_and_more_have_a_cursor() -> None:
    """
    Rows say what each job is, what it cost and where its video is.
    """
    path = "/home/somebody/Videos/Kling/2026-11-21_o3-standard_the-camera-circles-a-vase_eMrSpShA.mp4"
    wish = {"prompt": "The camera circles a vase on a table by the window while the light changes. " * 4}
    rows = [
        replace(
            completed({"url": URL}, saved_to=path, cost_microusd=250_000, cost_source="billed"),
            seq=seq,
            intent=intent(f"kj_{seq:_<22}", arguments=wish),
        )
        for seq in range(40, 0, -1)
    ]

    view = JobsView.of(rows[:21], 20, TODAY)
    page = view.data()

    assert len(compact(page).encode()) + 100 <= MOST_BYTES
    assert len(page["jobs"]) == 20
    assert page["next_cursor"] == "21"
    assert page["spend"] == TODAY.data()
    assert page["jobs"][0] == {
        "job_id": rows[0].job_id,
        "state": "completed",
        "prompt": f"{wish['prompt'][:79].rstrip()}…",
        "model": "o3-standard",
        "seconds": 5,
        "usd": 0.25,
        "created_at": "2026-11-21T10:00:00Z",
        "saved_to": path,
        "error": None,
    }
    assert view.headline == "20 jobs; next_cursor leads to older ones."
    long = JobsView.of([replace(row, saved_to="/" + "x" * 3_000) for row in rows[:21]], 20, TODAY).data()
    assert len(compact(long).encode()) <= MOST_BYTES
    assert long["next_cursor"] == str(rows[len(long["jobs"]) - 1].seq)
    failed = replace(ended(), intent=intent(arguments={"shots": [{"prompt": "a"}, {"prompt": "b"}]}))
    (other,) = JobsView.of([failed], 1, TODAY).data()["jobs"]
    assert (other["prompt"], other["url"], other["error"]) == ("a / b", None, "fal_rejected: It was refused.")


@pytest.mark.parametrize(
    ("error", "spends", "money"),
    [
        (InvalidArguments("cfg_scale is 7.", "It takes 0 to 1."), True, "Nothing was charged."),
        (InvalidArguments("limit is 700.", "It takes 1 to 100."), False, None),
        (NoApiKey(), True, "Nothing was charged."),
        (UnknownJob("kj_nobody"), False, None),
        (UnknownJob("kj_nobody"), True, None),
        (InvalidArguments("It is open.", "Wait.", billed="maybe", job_id="kj_1"), False, "It may have been charged."),
    ],
)
def test_a_refusal_speaks_of_money_only_where_money_is_meant(error: Any, spends: bool, money: str | None) -> None:
    """
    "Nothing was charged" beside a job that was not found reads as news of that job.
    """
    text = said(refusal(error, spends=spends))

    assert text == " ".join(filter(None, (f"{error.code}: {error.what}", money, error.next_step)))
    assert ("charged" in text) is (money is not None)


def test_a_picture_given_as_text_is_named_in_every_kind_of_result() -> None:
    """
    A host that sends megabytes does not get them back.
    """
    fault = Fault("fal_rejected", f"fal.ai cannot read {PICTURE}.", "no", upstream_detail=PICTURE)
    failed = job(state="failed", fault=fault, warnings=(f"{PICTURE} was turned.",))
    for answer in (
        result("An estimate.", _Shown(request={"image_url": PICTURE, "elements": [{"url": PICTURE}]})),
        job_result(failed, NOW_MS, with_arguments=True),
        job_failure(failed, NOW_MS),
        refusal(InvalidArguments(f"image is {PICTURE!r}.", "Give a picture."), spends=True),
    ):
        whole = answer.model_dump_json()
        assert "data:image/jpeg (640 kB)" in whole
        assert len(whole) < 4_000


def said(answer: t.CallToolResult) -> str:
    (block,) = answer.content
    assert isinstance(block, t.TextContent)
    return block.text
