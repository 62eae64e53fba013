"""The price before the spend: every way in which a person may be asked, and may answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import mcp_types as t
import pytest

from kling_mcp.jobs.world import World
from tests.server.hosts import DEAR, ERAS, NEWER, OLDER, SHORT, code_of, data, everywhere, house

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

PRICE = 4.20


class Person:
    """Answers every question in the same way, and remembers what was asked."""

    def __init__(self, action: Any, proceed: bool | None = None) -> None:
        self.asked: list[t.ElicitRequestFormParams] = []
        self.answers(action, proceed)

    def answers(self, action: Any, proceed: bool | None = None) -> None:
        self._answer = t.ElicitResult(action=action, content=None if proceed is None else {"proceed": proceed})

    async def __call__(self, context: Any, params: t.ElicitRequestParams) -> t.ElicitResult:
        assert isinstance(params, t.ElicitRequestFormParams)
        self.asked.append(params)
        return self._answer


@everywhere
async def test_a_person_who_agrees_is_asked_once_with_the_price(transport: str, era: str, tmp_path: Path) -> None:
    """
    The question says model, length, price and where the picture comes from.
    """
    person = Person("accept", True)
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
    assert list(question.requested_schema["properties"]) == ["proceed"]
    assert job["job_id"] == again["job_id"]
    assert place.accepted == 1


@everywhere
async def test_whoever_does_not_agree_pays_nothing(transport: str, era: str, tmp_path: Path) -> None:
    """
    Not confirmed is an answer like any other, with the price in it.
    """
    person = Person("decline")
    async with house(tmp_path, transport) as place, place.connect(era, elicitation_callback=person) as client:
        for action, proceed, words in (
            ("decline", None, "said no"),
            ("accept", False, "said no"),
            ("accept", None, "said no"),
            ("cancel", None, "did not decide"),
        ):
            person.answers(action, proceed)
            answer = data(await client.call_tool("image_to_video", DEAR))
            assert answer["state"] == "needs_confirmation"
            assert answer["job_id"] is None
            assert answer["cost"]["ceiling_usd"] == PRICE
            assert words in answer["next_step"]
            assert "Nothing was charged." in answer["next_step"]

    assert len(person.asked) == 4
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
    person = Person("accept", True)
    async with house(tmp_path) as place, place.connect(era, elicitation_callback=person) as client:
        answer = data(await client.call_tool("image_to_video", {**SHORT, "max_cost_usd": 0.01}))

    assert answer["state"] == "needs_confirmation"
    assert person.asked == []
    assert place.accepted == 0


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(("confirm", "asks"), [("always", 1), ("auto", 0), ("never", 0)])
async def test_the_operator_decides_what_is_asked_about(confirm: str, asks: int, era: str, tmp_path: Path) -> None:
    """
    A cheap job: asked about only if everything is; and then tools say that they need a person.
    """
    person = Person("accept", True)
    async with (
        house(tmp_path, KLING_MCP_CONFIRM=confirm) as place,
        place.connect(era, elicitation_callback=person) as client,
    ):
        tools = (await client.list_tools()).tools
        await client.call_tool("image_to_video", SHORT)

    need = {tool.name for tool in tools if (tool.meta or {}).get("anthropic/requiresUserInteraction")}
    assert need == ({"image_to_video", "multi_shot_video"} if confirm == "always" else set())
    assert len(person.asked) == asks
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
        house(tmp_path, transport, world=World(sleep=sleep)) as place,
        place.connect(OLDER, elicitation_callback=silent) as client,
    ):
        with anyio.fail_after(10):
            answer = data(await client.call_tool("image_to_video", DEAR))

    assert waited == [170.0]
    assert answer["state"] == "needs_confirmation"
    assert "no answer came" in answer["next_step"]
    assert "KLING_MCP_CONFIRM" in answer["next_step"]
    assert place.accepted == 0


async def test_a_host_that_cannot_show_its_form_after_all_gets_an_answer(tmp_path: Path) -> None:
    """
    An error in place of an answer is no agreement, and no failure of the call either.
    """

    async def broken(context: Any, params: t.ElicitRequestParams) -> t.ErrorData:
        return t.ErrorData(code=t.INTERNAL_ERROR, message="no window")

    async with house(tmp_path) as place, place.connect(OLDER, elicitation_callback=broken) as client:
        answer = data(await client.call_tool("image_to_video", DEAR))

    assert answer["state"] == "needs_confirmation"
    assert place.accepted == 0


AGREED: dict[str, Any] = {"confirm_cost": t.ElicitResult(action="accept", content={"proceed": True})}


@pytest.mark.parametrize("transport", ["memory", "stdio", "http"])
async def test_a_confirmation_that_is_replayed_gives_the_job_that_it_made(transport: str, tmp_path: Path) -> None:
    """
    The seal holds for ten minutes and any number of times; the ledger counts what it carries once.
    """
    async with house(tmp_path, transport) as place:
        person = Person("accept", True)
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
