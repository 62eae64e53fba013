"""Why jobs end without a video: every reason that this program gives itself, and those that fal.ai gives."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from kling_mcp.fal.error_catalog import UNKNOWN_FAILURE
from kling_mcp.jobs.job import Again, CancelledAtFal, Failed, Fault, Job

if TYPE_CHECKING:
    from kling_mcp.errors import KlingError
    from kling_mcp.fal.failures import Failure

CANCELLED_BEFORE: Final = Fault("cancelled", "It was cancelled before anything was sent.", "no")
CANCELLED_IN_QUEUE: Final = Fault(
    "cancelled", "It was taken out of fal.ai's queue before it ran.", "no", again="next_take"
)
STOPPED: Final = Fault(
    "internal", "The server was stopped before the request was sent. The same call starts the job again.", "no"
)
UPLOAD_BROKE: Final = Fault(
    "internal", "A picture could not be brought to fal.ai, so the request was not sent. The log says why.", "no"
)
PROVEN_ABSENT: Final = Fault(
    "fal_unreachable",
    "The request never reached fal.ai: its history shows earlier and later requests and not this one.",
    "no",
)
SIMULATOR_GONE: Final = Fault(
    "fal_unreachable", "The simulator that had this job has been stopped, which ends its jobs.", "no", again="same_call"
)
SAID_CHARGED: Final = Fault(
    "fal_rejected",
    "The user says that fal.ai charged it. The video, if there is one, is at https://fal.ai/dashboard/requests.",
    "yes",
)
SAID_NOT_CHARGED: Final = Fault("fal_rejected", "The user says that fal.ai has no such request.", "no")

_NEVER_STARTED: Final = frozenset({"request_timeout", "startup_timeout"})
"""How fal ends a request that it has not started in time."""


def of_error(error: KlingError) -> Fault:
    """Why a job was not sent, where something here was in the way."""
    return Fault(error.code, f"{error.what} {error.next_step}", error.billed, error.field)


def of_refusal(failure: Failure) -> Fault:
    """Why fal did not take a request."""
    return replace(_fault(failure), billed="no")


def end_of(failure: Failure, job: Job) -> CancelledAtFal | Failed:
    """How *job* ends by what fal says of its request."""
    again: Again | None = None
    if failure.type in _NEVER_STARTED and failure.billed == "no" and job.started_ms is None:
        again = "same_call"
    elif failure.retryable or failure.type == "client_cancelled":
        again = "next_take"
    elif failure.type != UNKNOWN_FAILURE.type and failure.code == "fal_rejected":
        again = "changed_call"
    fault = replace(_fault(failure), again=again)
    if again in {"same_call", "next_take"}:
        # Which call brings the video all the same depends on the job, and is said with it.
        fault = replace(fault, message=failure.sentence)
    return CancelledAtFal(fault) if failure.type == "client_cancelled" else Failed(fault)


def _fault(failure: Failure) -> Fault:
    message = f"{failure.sentence} {failure.next_step}"
    return Fault(failure.code, message, failure.billed, failure.field, failure.upstream_detail)
