"""The price before the spend: every way in which a person may be asked, and may answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import mcp_types as t
import pytest

from kling_mcp.runtime import Runtime
from tests.server.hosts import DEAR, ERAS, NEWER, OLDER, SHORT, code_of, data, everywhere, house, refused

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

PRICE = 4.20


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self) -> None:
        self.now_ms = 1_795_255_200_000

    def runtime(self) -> Runtime:
        return Runtime(now_ms=lambda: self.now_ms)


class Person:
    """Answers every question in the same way, after *took_ms* on *clock*, and remembers what was asked."""

    def __init__(
        self, action: Any, content: dict[str, Any] | None = None, *, clock: Clock | None = None, took_ms: int = 0
    ) -> None:
        self.asked: list[t.ElicitRequestFormParams] = []
        self._clock, self._took_ms = clock, took_ms
        self.answers(action, content)

    def answers(self, action: Any, content: dict[str, Any] | None = None) -> None:
        self._answer = t.ElicitResult(action=action, content=content)

    async def __call__(self, context: Any, params: t.ElicitRequestParams) -> t.ElicitResult:
        assert isinstance(params, t.ElicitRequestFormParams)
        self.asked.append(params)
        if self._clock is not None:
            self._clock.now_ms += self._took_ms
        return self._answer


@everywhere
async def test_a_person_who_agrees_is_asked_once_with_the_price(transport: str, era: str, tmp_path: Path) -> None:
    """
    The question says model, length, price and where the picture comes from.
    """
    person = Person("accept")
    async with (
        house(tmp_path, transport) as place,
        place.connect(era, elicitation_callback=person) as client,
    ):
        job = data(await client.call_tool("image_to_video", DEAR))
        # What stands already is not asked about again.
        again = data(await client.call_tool("image_to_video", DEAR))

    (question,) = person.asked
    assert "o3-4k" in question.message
    assert "10 s" in question.message
    assert "$4.20" in question.message
    assert "pictures.example.com" in question.message
    assert question.requested_schema == {"type": "object", "properties": {}}, "accepting is the answer"
    assert job["job_id"] == again["job_id"]
    assert place.accepted == 1


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("transport", ["memory", "http"])
@pytest.mark.parametrize(("action", "words"), [("decline", "said no"), ("cancel", "did not decide")])
async def test_a_person_who_does_not_agree_pays_nothing_whatever_ceiling_was_given(
    action: str, words: str, transport: str, era: str, tmp_path: Path
) -> None:
    """
    Not confirmed is an answer like any other, with the price in it.
    """
    clock = Clock()
    person = Person(action, clock=clock, took_ms=1_000)
    async with (
        house(tmp_path, transport, runtime=clock.runtime()) as place,
        place.connect(era, elicitation_callback=person) as client,
    ):
        for more in ({}, {"max_cost_usd": PRICE}):
            answer = data(await client.call_tool("image_to_video", {**DEAR, **more}))
            assert answer["state"] == "needs_confirmation"
            assert answer["job_id"] is None
            assert answer["cost"]["ceiling_usd"] == PRICE
            assert words in answer["next_step"]
            assert "Nothing was charged." in answer["next_step"]

    assert len(person.asked) == 2
    assert place.accepted == 0


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("content", [None, {}, {"proceed": False}, {"something": "else"}])
async def test_accepting_is_a_yes_whatever_comes_with_it(content: Any, era: str, tmp_path: Path) -> None:
    async with house(tmp_path) as place, place.connect(era, elicitation_callback=Person("accept", content)) as client:
        job = data(await client.call_tool("image_to_video", DEAR))

    assert job["job_id"].startswith("kj_")
    assert place.accepted == 1


@everywhere
@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_a_host_that_answers_before_a_person_can_read_is_one_without_forms(
    action: str, transport: str, era: str, tmp_path: Path
) -> None:
    """
    Nobody has said no, so the ceiling that was given decides, and only one that is high enough.
    """
    clock = Clock()
    person = Person(action, clock=clock, took_ms=999)
    async with (
        house(tmp_path, transport, runtime=clock.runtime()) as place,
        place.connect(era, elicitation_callback=person) as client,
    ):
        asked = data(await client.call_tool("image_to_video", DEAR))
        low = data(await client.call_tool("image_to_video", {**DEAR, "max_cost_usd": 4.19}))
        unspent = place.accepted
        started = data(await client.call_tool("image_to_video", {**DEAR, "max_cost_usd": PRICE}))

    assert asked["state"] == low["state"] == "needs_confirmation"
    assert "has not seen it" in asked["next_step"]
    assert "max_cost_usd 4.20" in asked["next_step"]
    assert unspent == 0
    assert started["job_id"].startswith("kj_")
    assert place.accepted == 1


@pytest.mark.parametrize("era", ERAS)
async def test_a_clock_that_is_set_back_makes_no_haste(era: str, tmp_path: Path) -> None:
    clock = Clock()
    person = Person("decline", clock=clock, took_ms=-60_000)
    async with (
        house(tmp_path, runtime=clock.runtime()) as place,
        place.connect(era, elicitation_callback=person) as client,
    ):
        answer = data(await client.call_tool("image_to_video", {**DEAR, "max_cost_usd": PRICE}))

    assert "said no" in answer["next_step"]
    assert place.accepted == 0


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    ("settings", "arguments", "code"),
    [
        ({"FAL_KEY": ""}, {}, "no_api_key"),
        ({"KLING_MCP_MAX_JOB_USD": "4.19"}, {}, "over_budget"),
        ({"KLING_MCP_DAILY_BUDGET_USD": "4.19"}, {}, "over_budget"),
        ({"KLING_MCP_DATA_DIR": "{folder}/file/state"}, {}, "ledger_unavailable"),
        ({}, {"image": "{folder}/nothing.png"}, "input_refused"),
        ({}, {"image": "{folder}/file"}, "input_refused"),
        ({}, {"image": "http://127.0.0.1/fox.png"}, "input_refused"),
        ({}, {"image": "kling://jobs/kj_none/last-frame"}, "unknown_job"),
        ({}, {"prompt": " "}, "invalid_arguments"),
    ],
)
async def test_nobody_is_asked_about_a_job_that_cannot_be_made(
    settings: dict[str, str], arguments: dict[str, str], code: str, era: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder, and not a picture")
    person = Person("accept")
    environment: dict[str, Any] = {name: value.format(folder=tmp_path) for name, value in settings.items()}
    call = {**DEAR, **{name: value.format(folder=tmp_path) for name, value in arguments.items()}}
    async with (
        house(tmp_path, **environment) as place,
        place.connect(era, elicitation_callback=person) as client,
    ):
        error = refused(await client.call_tool("image_to_video", call))

    assert error["code"] == code
    assert person.asked == []
    assert place.accepted == 0


@everywhere
async def test_without_forms_the_price_is_repeated_as_an_argument(transport: str, era: str, tmp_path: Path) -> None:
    """
    The portable gate: the answer names the argument and the amount, and exactly that amount is enough.
    """
    async with house(tmp_path, transport) as place, place.connect(era) as client:
        asked = data(await client.call_tool("image_to_video", DEAR))
        low = data(await client.call_tool("image_to_video", {**DEAR, "max_cost_usd": 4.19}))
        unspent = place.accepted
        started = data(await client.call_tool("image_to_video", {**DEAR, "max_cost_usd": PRICE}))

    assert asked["state"] == low["state"] == "needs_confirmation"
    assert "max_cost_usd 4.20" in asked["next_step"]
    assert "above max_cost_usd 4.19" in low["next_step"]
    assert unspent == 0
    assert started["job_id"].startswith("kj_")
    assert place.accepted == 1


@pytest.mark.parametrize("era", ERAS)
async def test_a_ceiling_holds_where_a_person_could_be_asked_too(era: str, tmp_path: Path) -> None:
    """
    Above max_cost_usd nobody is asked and nothing is sent, however cheap.
    """
    person = Person("accept")
    async with house(tmp_path) as place, place.connect(era, elicitation_callback=person) as client:
        answer = data(await client.call_tool("image_to_video", {**SHORT, "max_cost_usd": 0.01}))

    assert answer["state"] == "needs_confirmation"
    assert person.asked == []
    assert place.accepted == 0


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("forms", [True, False])
@pytest.mark.parametrize(("confirm", "asks"), [("always", True), ("auto", False), ("never", False)])
async def test_the_operator_decides_what_is_asked_about_and_it_is_asked_once(
    confirm: str, asks: bool, forms: bool, era: str, tmp_path: Path
) -> None:
    """
    A cheap job. A host that shows forms shows ours, with the price; only another one is told to ask by itself.
    """
    person = Person("accept")
    options: dict[str, Any] = {"elicitation_callback": person} if forms else {}
    async with house(tmp_path, KLING_MCP_CONFIRM=confirm) as place, place.connect(era, **options) as client:
        tools = (await client.list_tools()).tools
        await client.call_tool("image_to_video", {**SHORT, "max_cost_usd": 1})

    need = {tool.name for tool in tools if (tool.meta or {}).get("anthropic/requiresUserInteraction")}
    assert need == ({"image_to_video", "multi_shot_video", "text_to_video"} if asks and not forms else set())
    assert len(person.asked) == (1 if asks and forms else 0)
    assert place.accepted == 1


@pytest.mark.parametrize("transport", ["memory", "http"])
async def test_a_host_that_never_answers_is_not_waited_for_forever(transport: str, tmp_path: Path) -> None:
    """
    Hosts are known that declare forms and never show them.
    """
    waited: list[float] = []
    asked = anyio.Event()

    async def sleep(seconds: float) -> None:
        if seconds < 100:
            await anyio.sleep(min(seconds, 0.05))
            return
        waited.append(seconds)
        await asked.wait()

    async def silent(context: Any, params: t.ElicitRequestParams) -> t.ElicitResult:
        asked.set()
        await anyio.sleep_forever()
        raise AssertionError

    async with (
        house(tmp_path, transport, runtime=Runtime(sleep=sleep)) as place,
        place.connect(OLDER, elicitation_callback=silent) as client,
    ):
        with anyio.fail_after(10):
            answer = data(await client.call_tool("image_to_video", DEAR))
            unspent = place.accepted
            started = data(await client.call_tool("image_to_video", {**DEAR, "max_cost_usd": PRICE}))

    assert waited == [170.0], "who was told the way on is not asked again"
    assert answer["state"] == "needs_confirmation"
    assert "no answer came" in answer["next_step"]
    assert "max_cost_usd 4.20" in answer["next_step"]
    assert unspent == 0
    assert started["job_id"].startswith("kj_")
    assert place.accepted == 1


async def test_silence_is_no_agreement_to_a_ceiling_that_was_given_before_it(tmp_path: Path) -> None:
    """
    The person may be away from the machine; only a call made after the silence counts without them.
    """

    async def sleep(seconds: float) -> None:
        await anyio.sleep(0.05)

    async def silent(context: Any, params: t.ElicitRequestParams) -> t.ElicitResult:
        await anyio.sleep_forever()
        raise AssertionError

    async with (
        house(tmp_path, runtime=Runtime(sleep=sleep)) as place,
        place.connect(OLDER, elicitation_callback=silent) as client,
    ):
        answer = data(await client.call_tool("image_to_video", {**DEAR, "max_cost_usd": PRICE}))

    assert answer["state"] == "needs_confirmation"
    assert place.accepted == 0


_ERROR = t.ErrorData(code=t.INTERNAL_ERROR, message="no window")
_NONSENSE = t.ElicitResult.model_construct(action="perhaps", content=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("broken", [_ERROR, _NONSENSE], ids=["error", "nonsense"])
async def test_a_host_that_cannot_show_its_form_after_all_is_one_without_forms(broken: Any, tmp_path: Path) -> None:
    """
    No answer that can be read is no agreement, no failure of the call, and nothing that may have been charged.
    """

    async def answers(context: Any, params: t.ElicitRequestParams) -> Any:
        return broken

    async with house(tmp_path) as place, place.connect(OLDER, elicitation_callback=answers) as client:
        answer = data(await client.call_tool("image_to_video", DEAR))
        unspent = place.accepted
        started = data(await client.call_tool("image_to_video", {**DEAR, "max_cost_usd": PRICE}))

    assert answer["state"] == "needs_confirmation"
    assert "max_cost_usd 4.20" in answer["next_step"]
    assert unspent == 0
    assert started["job_id"].startswith("kj_")


async def test_an_answer_that_cannot_be_read_but_came_from_a_person_agrees_to_nothing(tmp_path: Path) -> None:
    """
    It may mean no: a ceiling that was given with the call does not count, only one that is given after it.
    """
    clock = Clock()

    async def answers(context: Any, params: t.ElicitRequestParams) -> Any:
        clock.now_ms += 1_000
        return _ERROR

    async with (
        house(tmp_path, runtime=clock.runtime()) as place,
        place.connect(OLDER, elicitation_callback=answers) as client,
    ):
        answer = data(await client.call_tool("image_to_video", {**DEAR, "max_cost_usd": PRICE}))
        unspent = place.accepted
        started = data(await client.call_tool("image_to_video", {**DEAR, "max_cost_usd": PRICE}))

    assert "no answer came" in answer["next_step"]
    assert "max_cost_usd 4.20" in answer["next_step"]
    assert unspent == 0
    assert started["job_id"].startswith("kj_")


AGREED: dict[str, Any] = {"confirm_cost": t.ElicitResult(action="accept", content=None)}


@pytest.mark.parametrize("transport", ["memory", "stdio", "http"])
async def test_a_confirmation_that_is_replayed_gives_the_job_that_it_made(transport: str, tmp_path: Path) -> None:
    """
    The seal holds for ten minutes and any number of times; the ledger counts what it carries once.
    """
    async with house(tmp_path, transport) as place:
        person = Person("accept")
        async with place.connect(NEWER, elicitation_callback=person) as client:
            question = await client.session.call_tool("image_to_video", DEAR, allow_input_required=True)
            assert isinstance(question, t.InputRequiredResult)
            assert list(question.input_requests or {}) == ["confirm_cost"]
            answers = [
                data(
                    await client.call_tool(
                        "image_to_video", DEAR, input_responses=AGREED, request_state=question.request_state
                    )
                )
                for _ in range(3)
            ]

    assert len({answer["job_id"] for answer in answers}) == 1
    assert person.asked == []
    assert place.accepted == 1


async def test_a_confirmation_is_worth_nothing_for_another_call(tmp_path: Path) -> None:
    """
    Sealed to its arguments: changed ones, a made-up state and a broken seal are refused or asked about anew.
    """
    async with house(tmp_path) as place, place.connect(NEWER, elicitation_callback=Person("decline")) as client:
        question = await client.session.call_tool("image_to_video", DEAR, allow_input_required=True)
        assert isinstance(question, t.InputRequiredResult)
        state = question.request_state or ""

        async def confirm(arguments: dict[str, Any], request_state: str) -> Any:
            return await client.session.call_tool(
                "image_to_video",
                arguments,
                input_responses=AGREED,
                request_state=request_state,
                allow_input_required=True,
            )

        assert await code_of(confirm({**DEAR, "duration": 15}, state)) == t.INVALID_PARAMS
        assert await code_of(confirm({**DEAR, "take": 2}, state)) == t.INVALID_PARAMS
        assert await code_of(confirm(DEAR, '{"nonce": "1", "question": "?"}')) == t.INVALID_PARAMS
        assert await code_of(confirm(DEAR, state[:-4] + "AAAA")) == t.INVALID_PARAMS
        unsealed = await client.session.call_tool(
            "image_to_video", DEAR, input_responses=AGREED, allow_input_required=True
        )

    assert isinstance(unsealed, t.InputRequiredResult)
    assert place.accepted == 0
