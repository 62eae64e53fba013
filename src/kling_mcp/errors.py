"""
What can go wrong, in the caller's terms.

* KlingError
  + InvalidArguments   the arguments cannot become a Kling job
  + UnknownModel       no model has that name
  + UnknownJob         no job with that id was started here
  + NoApiKey           spending needs FAL_KEY
  + OverBudget         the operator's limit would be passed
  + InputRefused       a picture, path or address may not be used
  + FalRejected        fal.ai refused the request
  + FalUnreachable     fal.ai could not be reached, or did not answer as fal.ai does
  + AccountLocked      fal.ai has locked the account (balance, payment, budget)
  + RateLimited        fal.ai asks for fewer requests
  + LedgerUnavailable  the record of jobs and money cannot be written, so nothing may be spent
  + NotAvailable       what it needs is not installed
  + Internal           a defect of this program; the log has the details

Every message is read by a model deciding what to do next. It says what
happened, whether money moved, and what would work, in that order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from kling_mcp.texts import showable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

__all__ = [
    "AccountLocked",
    "ArgumentFault",
    "Billed",
    "FalRejected",
    "FalUnreachable",
    "InputRefused",
    "Internal",
    "InvalidArguments",
    "KlingError",
    "LedgerUnavailable",
    "NoApiKey",
    "NotAvailable",
    "OverBudget",
    "RateLimited",
    "SettingsError",
    "UnknownJob",
    "UnknownModel",
]

Billed = Literal["no", "maybe", "yes"]

_MONEY: dict[Billed, str] = {
    "no": "Nothing was charged.",
    "maybe": "It may have been charged.",
    "yes": "It was charged.",
}


_MOST_FAULTS = 12


def _numbered(sentences: Sequence[str]) -> str:
    return " ".join(f"({number}) {sentence}" for number, sentence in enumerate(sentences, 1))


class SettingsError(Exception):
    """A setting has a value that cannot be used; the message names the variable and what it accepts."""


@dataclass(frozen=True, slots=True)
class ArgumentFault:
    """
    One thing that is wrong with the arguments of a call.

    Attributes:
        what: What is wrong, as a sentence.
        next_step: What would work, as a sentence.
        path: The argument, as a path such as ``shots[1].duration``.
        value: What was given, short enough to be shown.
        allowed: What would be accepted.
        nearest: The name or value that may have been meant.
        models: The models that would accept it.
    """

    what: str
    next_step: str
    path: str | None = None
    value: object = None
    allowed: tuple[str, ...] = ()
    nearest: str | None = None
    models: tuple[str, ...] = ()

    @property
    def way_out(self) -> str:
        """What would work, with the models that take it."""
        models = ", ".join(self.models)
        return f"{self.next_step} Models that take it: {models}." if models not in self.next_step else self.next_step


class KlingError(Exception):
    """
    What happened, whether money moved, and what would work.

    Args:
        what: What happened, as a sentence.
        next_step: What would work, as a sentence.
        field: The argument it is about, as a path such as ``shots[1].duration``.
        allowed: The values that would be accepted.
        billed: Whether money moved.
        job_id: The job it is about.
        faults: Everything that is wrong, where that may be more than one thing.
    """

    code: ClassVar[str] = "internal"
    about_money: ClassVar[bool] = True
    """Whether it could be read as news of a job that was paid for."""

    def __init__(
        self,
        what: str,
        next_step: str,
        *,
        field: str | None = None,
        allowed: tuple[str, ...] = (),
        billed: Billed = "no",
        job_id: str | None = None,
        faults: Sequence[ArgumentFault] = (),
    ) -> None:
        # Some name a file, and the names of files need not be Unicode.
        self.what = showable(what)
        self.next_step = showable(next_step)
        self.field = None if field is None else showable(field)
        self.allowed = tuple(showable(value) for value in allowed)
        self.billed: Billed = billed
        self.job_id = job_id
        self.faults = tuple(faults) or (ArgumentFault(self.what, self.next_step, self.field, None, self.allowed),)
        super().__init__(self.told())

    def told(self, *, money: bool = True) -> str:
        """
        What a caller reads.

        Args:
            money: Whether the call could have cost money.
        """
        moved = f"{_MONEY[self.billed]} " if money and self.about_money else ""
        return f"{self.code}: {self.what} {moved}{self.next_step}"

    @classmethod
    def of(cls, faults: Sequence[ArgumentFault]) -> Self:
        """One error for all *faults*, numbered where there are several; the first gives the field."""
        shown = faults[:_MOST_FAULTS]
        if len(faults) == 1:
            what, next_step = faults[0].what, faults[0].way_out
        else:
            what = f"{len(faults)} things are wrong. {_numbered([fault.what for fault in shown])}"
            next_step = f"What would work: {_numbered([fault.way_out for fault in shown])}"
        return cls(what, next_step, field=faults[0].path, allowed=faults[0].allowed, faults=shown)


class InvalidArguments(KlingError):
    """The arguments cannot become a Kling job."""

    code = "invalid_arguments"


class UnknownModel(KlingError):
    """No model has that name."""

    code = "unknown_model"


class UnknownJob(KlingError):
    """No job with that id was started here."""

    code = "unknown_job"
    about_money = False

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"No job {job_id[:64]!r} is in this ledger.",
            "list_jobs shows the ones that exist.",
            field="job_id",
        )


class NoApiKey(KlingError):
    """Spending needs a fal.ai key."""

    code = "no_api_key"

    def __init__(self) -> None:
        super().__init__(
            "FAL_KEY is not set for this server.",
            "The user can make a key at https://fal.ai/dashboard/keys and put it in the server's configuration as "
            "FAL_KEY; KLING_MCP_BACKEND=simulator tries everything without a key or money.",
        )


class OverBudget(KlingError):
    """The operator's limit would be passed."""

    code = "over_budget"


class InputRefused(KlingError):
    """A picture, path or address may not be used."""

    code = "input_refused"


class FalRejected(KlingError):
    """fal.ai refused the request."""

    code = "fal_rejected"


class FalUnreachable(KlingError):
    """fal.ai could not be reached, or did not answer as fal.ai does."""

    code = "fal_unreachable"


class AccountLocked(KlingError):
    """fal.ai has locked the account."""

    code = "account_locked"


class RateLimited(KlingError):
    """fal.ai asks for fewer requests."""

    code = "rate_limited"


class LedgerUnavailable(KlingError):
    """The record of jobs and money cannot be written, so nothing may be spent."""

    code = "ledger_unavailable"


class NotAvailable(KlingError):
    """What it needs is not installed."""

    code = "not_available"


class Internal(KlingError):
    """A defect of this program; the log has the details under the reference."""

    code = "internal"

    def __init__(self, reference: str, *, billed: Billed = "no") -> None:
        super().__init__(
            f"An unexpected error happened inside kling-mcp (reference {reference}).",
            "list_jobs shows what was started; the server's log has the details under the reference.",
            billed=billed,
        )
        self.reference = reference
