"""
Confirmation: when a job needs the user's agreement to its price, and how the user is asked.

A client that can show a form is asked, in both protocol eras. Any other has
to repeat the price as `max_cost_usd`, which is what an assistant does once
its user has agreed. A confirmation carries a number that the ledger accepts
for one job only, so replaying it finds that job and makes no second one.

Some hosts declare forms and answer them without showing them. An answer other
than yes that comes faster than a person reads counts as such: the client is
treated as one without forms.
"""

from __future__ import annotations

import json
import logging
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

import anyio
import mcp_types as t
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from pydantic import SerializerFunctionWrapHandler, ValidationError, model_serializer

from kling_mcp.money import cents, usd
from kling_mcp.server.eras import MODERN, shows_forms
from kling_mcp.server.results import result
from kling_mcp.server.views import ConfirmationView, CostView

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from mcp.server.context import ServerRequestContext

    from kling_mcp.jobs.draft import Draft
    from kling_mcp.jobs.service import JobService
    from kling_mcp.runtime import Runtime
    from kling_mcp.settings import Settings

__all__ = ["Go", "asks", "gate"]

log = logging.getLogger(__name__)

_ANSWER_WITHIN_SECONDS: Final = 170.0
"""Hosts that declare forms and never show them are known; a call must not hang on them."""

_QUESTION: Final = "confirm_cost"

_FORM: Final[dict[str, Any]] = {"type": "object", "properties": {}}
"""No fields: accepting is the answer, and a field would be one more thing to fill in."""

_FASTEST_PERSON_MS: Final = 1_000
"""Hosts that decline or cancel by themselves take about ten milliseconds; no person reads a price in a second."""

Word: TypeAlias = Literal["decline", "cancel", "not shown", "no answer"]

_ONLY_THE_LIST_PRICE: Final = "the endpoint was added from its list price alone, and twice that is held"

_SAID: Final[Mapping[Word, str]] = {"decline": "said no", "cancel": "did not decide"}
_UNSEEN: Final[Mapping[Word, str]] = {
    "not shown": "This host answered the question about the price by itself, so the user has not seen it",
    "no answer": "The user was asked about the price and no answer came",
}


@dataclass(frozen=True, slots=True)
class Go:
    """The job may start; *nonce* makes its confirmation valid for one job only."""

    nonce: str | None = None


class _Question(t.ElicitRequest):
    """A form of the older era, without a mode: only 2025-11-25 knows modes, and one without is a form there too."""

    @model_serializer(mode="wrap")
    def _without_mode(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        whole: dict[str, Any] = handler(self)
        whole["params"].pop("mode", None)
        return whole


async def gate(
    draft: Draft, service: JobService, ctx: ServerRequestContext[Any], params: t.CallToolRequestParams
) -> Go | t.CallToolResult | t.InputRequiredResult:
    """Decide whether *draft* may be paid for: yes, a question to the user, or a result that says what is missing."""
    ceiling = draft.quote.ceiling_usd
    cap = draft.plan.max_cost_usd
    price = cents(ceiling)
    if cap is not None and ceiling > cap:
        return _needed(
            draft,
            f"It could cost up to ${price}, which is above max_cost_usd {cap}. Nothing was charged.",
            f"If the user agrees, call again with max_cost_usd {price}; estimate_cost compares cheaper models.",
        )
    if draft.quote.needs_max_cost and cap is None:
        return _needed(
            draft,
            f"It could cost up to ${price} as far as is known: {_ONLY_THE_LIST_PRICE}. Nothing was charged.",
            f"Tell the user so; if they agree, call again with the same arguments and max_cost_usd {price}.",
        )
    if not asks(service.settings, ceiling):
        return Go()
    why = f"It could cost up to ${price}, which needs the user's agreement first."
    unanswered = draft.fingerprint(service.settings.account)
    if shows_forms(ctx) and not (cap is not None and unanswered in service.unanswered):
        answer = await _ask(draft, service.runtime, ctx, params)
        if isinstance(answer, Go | t.InputRequiredResult):
            return answer
        if answer in _SAID:
            return _needed(
                draft,
                f"The user was asked about ${price} and {_SAID[answer]}. Nothing was charged.",
                "The user can say what to change; estimate_cost compares cheaper models and lengths.",
            )
        if answer == "no answer":
            service.unanswered.add(unanswered)
            cap = None
        why = f"{_UNSEEN[answer]} (it could cost up to ${price})."
    if cap is not None:
        return Go()
    return _needed(
        draft,
        f"{why} Nothing was charged.",
        f"Tell the user the price; if they agree, call again with the same arguments and max_cost_usd {price}.",
    )


def asks(settings: Settings, ceiling: Decimal) -> bool:
    """Whether the user is asked before a job that may cost *ceiling*."""
    match settings.confirm:
        case "never":
            return False
        case "always":
            return True
        case "auto":
            return ceiling > settings.confirm_above_usd


async def _ask(
    draft: Draft, runtime: Runtime, ctx: ServerRequestContext[Any], params: t.CallToolRequestParams
) -> Go | t.InputRequiredResult | Word:
    question = _question(draft)
    if ctx.protocol_version >= MODERN:
        answer = (params.input_responses or {}).get(_QUESTION)
        if params.request_state is None or not isinstance(answer, t.ElicitResult):
            return _put(question, runtime.now_ms())
        # Sealed by the SDK; if the price has changed since, the user is asked again.
        state: dict[str, Any] = json.loads(params.request_state)
        if state.get("question") != question:
            return _put(question, runtime.now_ms())
        return _verdict(answer, runtime.now_ms() - int(state["asked_ms"]), str(state["nonce"]))
    asked_ms = runtime.now_ms()
    answer = await _answer(question, runtime, ctx)
    took_ms = runtime.now_ms() - asked_ms
    if answer == "not shown" and not _by_itself(took_ms):
        # Perhaps a person has closed the form, and this is how the host says so.
        return "no answer"
    if isinstance(answer, str):
        return answer
    return _verdict(answer, took_ms, secrets.token_hex(16))


async def _answer(question: str, runtime: Runtime, ctx: ServerRequestContext[Any]) -> t.ElicitResult | Word:
    """The answer to a form of the older era, if one comes in time."""
    answer: t.ElicitResult | Word = "no answer"
    async with anyio.create_task_group() as tasks:

        async def give_up() -> None:
            await runtime.sleep(_ANSWER_WITHIN_SECONDS)
            tasks.cancel_scope.cancel()

        tasks.start_soon(give_up)
        try:
            form = _Question(params=t.ElicitRequestFormParams(message=question, requested_schema=_FORM))
            answer = await ctx.session.send_request(
                form, t.ElicitResult, metadata=ServerMessageMetadata(related_request_id=ctx.request_id)
            )
        except (MCPError, ValidationError) as refusal:
            # The message comes from outside and can have any length.
            log.info("the host showed no form", extra={"why": str(refusal)[:200]})
            answer = "not shown"
        tasks.cancel_scope.cancel()
    return answer


def _put(question: str, asked_ms: int) -> t.InputRequiredResult:
    form = t.ElicitRequest(params=t.ElicitRequestFormParams(message=question, requested_schema=_FORM))
    state = json.dumps({"nonce": secrets.token_hex(16), "question": question, "asked_ms": asked_ms})
    return t.InputRequiredResult(input_requests={_QUESTION: form}, request_state=state)


def _verdict(answer: t.ElicitResult, took_ms: int, nonce: str) -> Go | Word:
    if answer.action == "accept":
        return Go(nonce)
    return "not shown" if _by_itself(took_ms) else answer.action


def _by_itself(took_ms: int) -> bool:
    """Whether a host answered before a person can; a negative time means that the clock was set back."""
    return 0 <= took_ms < _FASTEST_PERSON_MS


def _question(draft: Draft) -> str:
    quote, plan = draft.quote, draft.plan
    price = f"${cents(quote.ceiling_usd)}"
    if quote.estimated_usd != quote.ceiling_usd:
        price = f"about ${cents(quote.estimated_usd)}, at most {price}"
    files = [given for given in draft.inputs if given.slot.kind != "voice"]
    places = [
        "uploaded from this computer to fal.ai as a public link"
        if given.url is None
        else f"fetched by fal.ai from {urlsplit(given.url).hostname}"
        for given in files
    ]
    called = "Pictures" if all(given.slot.kind == "picture" for given in files) else "Files"
    made = "voice" if plan.endpoint.result == "voice" else f"{quote.seconds} s Kling video"
    return (
        f"Make a {made} with {plan.endpoint.model} for {price}? ({quote.basis})"
        + (f" {called}: {', '.join(dict.fromkeys(places))}." if places else "")
        + (f" This is take {plan.take}." if plan.take > 1 else "")
    )


def _needed(draft: Draft, what: str, next_step: str) -> t.CallToolResult:
    view = ConfirmationView(
        state="needs_confirmation",
        job_id=None,
        model=draft.plan.endpoint.model,
        cost=CostView(
            estimated_usd=usd(draft.quote.estimated_usd),
            ceiling_usd=usd(draft.quote.ceiling_usd),
            actual_usd=None,
            basis=draft.quote.basis,
        ),
        warnings=list(draft.warnings),
        next_step=f"{what} {next_step}",
    )
    return result("Not started: the price needs the user's agreement.", view)
