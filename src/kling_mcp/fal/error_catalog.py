"""
Every error that fal.ai is known to give, and what this program says about it.

Types are from fal's pages on model errors and request errors, from what its
toolkit raises, and from both generations of pydantic, whose errors fal passes
on. A type that is not here gets a general sentence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kling_mcp.errors import Billed

__all__ = ["UNKNOWN_FAILURE", "Code", "Meaning", "intercepted", "of_account", "of_status", "of_type"]

Code = Literal["fal_rejected", "fal_unreachable", "account_locked", "rate_limited", "no_api_key"]
"""The codes of failures that come from fal."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """
    A fixed sentence, and forms of a second one, of which the first is said whose numbers came along.

    Args:
        billed_at_the_end: Whether money moved where a job ended with this.
    """

    type: str
    sentence: str
    next_step: str
    numbers: tuple[str, ...] = ()
    retryable: bool = False
    code: Code = "fal_rejected"
    billed_at_the_end: Billed = "maybe"


def of_account(status: int, name: str, words: str, *, authenticated: bool) -> Meaning | None:
    """What concerns the key or the account, whatever else the body says; None where nothing does."""
    if status == 401:
        return _KEY_REJECTED if authenticated else _NO_KEY
    if status == 429:
        return _TOO_MANY_JOBS if name == _TOO_MANY_JOBS.type else _TOO_MANY_REQUESTS
    words = words.lower()
    # fal gives the reason in words only: "User is locked. Reason: Exhausted balance. …"
    if status == 402 or (status == 403 and "locked" in words):
        return next((meaning for word, meaning in _LOCK_REASONS if word in words), _LOCKED)
    return None


def of_type(name: str) -> Meaning | None:
    """What a type means; None where this program does not know it."""
    name = _OTHER_NAMES.get(name, name)
    return _BY_TYPE.get("value_error" if _ABOUT_A_VALUE.fullmatch(name) else name)


def of_status(status: int, *, about_a_request: bool = False) -> Meaning:
    """What a status means that came without a type that is known, to a question about a request or to another."""
    if status == 404 and about_a_request:
        return _REQUEST_NOT_FOUND
    return _BY_STATUS.get(status) or (UNKNOWN_FAILURE if status >= 500 else _UNKNOWN_REFUSAL)


def intercepted(status: int) -> Meaning:
    """That an answer was not fal's."""
    return Meaning(
        "intercepted",
        f"Something between this machine and fal.ai answered, with HTTP status {status}.",
        "The user can look for a proxy, a VPN, a firewall or a network that asks to log in first.",
        code="fal_unreachable",
    )


# Both generations of pydantic name dozens of ways in which a value is wrong.
_ABOUT_A_VALUE: Final = re.compile(r"(value_error|type_error)(\.[a-z_.]{1,60})?|[a-z]{1,20}_(type|parsing)")

_ANOTHER_TIME: Final = "The same request may work at another time."
_OTHER_PICTURE: Final = "Use another picture."
_OTHER_VALUE: Final = "list_models shows what the model accepts."
_AT_FAL: Final = "The user can see the request at https://fal.ai/dashboard/requests."


def _of_queue(name: str, sentence: str) -> Meaning:
    return Meaning(name, sentence, _ANOTHER_TIME, retryable=True, code="fal_unreachable", billed_at_the_end="no")


def _of_model(name: str, sentence: str) -> Meaning:
    return Meaning(name, sentence, _ANOTHER_TIME, retryable=True, billed_at_the_end="no")


_KNOWN: Final = (
    # Errors of a model (fal's page "errors", and the types that its toolkit raises).
    _of_model("internal_server_error", "The model failed inside fal.ai."),
    _of_model("generation_timeout", "The model did not finish in the time that fal.ai gives it."),
    _of_model("downstream_service_error", "Kling's own service reported an error to fal.ai."),
    _of_model("downstream_service_unavailable", "Kling's own service could not be reached by fal.ai."),
    Meaning(
        "content_policy_violation",
        "The content check refused the prompt or a picture.",
        "Change the prompt or the picture; the same request would be refused again.",
    ),
    Meaning(
        "no_media_generated",
        "The model finished without making a video.",
        "Change the prompt or the picture.",
    ),
    Meaning(
        "image_too_small",
        "A picture is too small.",
        "Use a larger picture.",
        ("It needs at least {min_width} x {min_height} pixels.",),
    ),
    Meaning(
        "image_too_large",
        "A picture has too many pixels.",
        "Use a smaller picture.",
        (
            "It may have at most {max_width} x {max_height} pixels.",
            "It may have at most {max_resolution} pixels a side.",
        ),
    ),
    Meaning(
        "image_aspect_ratio_error",
        "A picture is too narrow or too wide.",
        "Crop the picture, or use another one.",
        ("Width divided by height must be from {min_aspect_ratio} to {max_aspect_ratio}.",),
    ),
    Meaning("image_load_error", "fal.ai could not read a picture.", "Use a JPEG or PNG file that opens elsewhere."),
    Meaning(
        "file_download_error",
        "fal.ai could not fetch a file from its address.",
        "The address must be public, without a login, and answer quickly; a file on this machine works too.",
    ),
    Meaning("face_detection_error", "No usable face was found in a picture.", "Use a picture with one clear face."),
    Meaning(
        "file_too_large", "A file is too large.", "Use a smaller file.", ("It may have at most {max_size} bytes.",)
    ),
    Meaning(
        "greater_than",
        "A number is too small.",
        _OTHER_VALUE,
        ("It must be more than {gt}.", "It must be more than {limit_value}."),
    ),
    Meaning(
        "greater_than_equal",
        "A number is too small.",
        _OTHER_VALUE,
        ("It must be at least {ge}.", "It must be at least {limit_value}."),
    ),
    Meaning(
        "less_than",
        "A number is too large.",
        _OTHER_VALUE,
        ("It must be less than {lt}.", "It must be less than {limit_value}."),
    ),
    Meaning(
        "less_than_equal",
        "A number is too large.",
        _OTHER_VALUE,
        ("It must be at most {le}.", "It must be at most {limit_value}."),
    ),
    Meaning(
        "multiple_of", "A number is not one of the steps.", _OTHER_VALUE, ("It must be a multiple of {multiple_of}.",)
    ),
    Meaning("sequence_too_short", "A list is too short.", _OTHER_VALUE, ("It needs at least {min_length} entries.",)),
    Meaning("sequence_too_long", "A list is too long.", _OTHER_VALUE, ("It may have at most {max_length} entries.",)),
    Meaning("string_too_short", "A text is too short.", _OTHER_VALUE, ("It needs at least {min_length} characters.",)),
    Meaning("string_too_long", "A text is too long.", _OTHER_VALUE, ("It may have at most {max_length} characters.",)),
    Meaning(
        "one_of",
        "A value is not one of those allowed.",
        _OTHER_VALUE,
        ("Allowed: {expected}.", "Allowed: {permitted}.", "Allowed: {enum_values}."),
    ),
    Meaning("feature_not_supported", "The model does not support this combination.", _OTHER_VALUE),
    Meaning("invalid_archive", "An archive could not be read.", _OTHER_VALUE, ("Supported: {supported_extensions}.",)),
    Meaning(
        "archive_file_count_below_minimum", "An archive has too few files.", _OTHER_VALUE, ("It needs {min_count}.",)
    ),
    Meaning(
        "archive_file_count_exceeds_maximum",
        "An archive has too many files.",
        _OTHER_VALUE,
        ("It may have {max_count}.",),
    ),
    Meaning("audio_duration_too_long", "A sound is too long.", "Shorten it.", ("At most {max_duration} seconds.",)),
    Meaning(
        "audio_duration_too_short", "A sound is too short.", "Use a longer one.", ("At least {min_duration} seconds.",)
    ),
    Meaning("video_duration_too_long", "A video is too long.", "Shorten it.", ("At most {max_duration} seconds.",)),
    Meaning(
        "video_duration_too_short", "A video is too short.", "Use a longer one.", ("At least {min_duration} seconds.",)
    ),
    Meaning(
        "unsupported_audio_format", "A sound has the wrong format.", "Convert it.", ("Supported: {supported_formats}.",)
    ),
    Meaning(
        "unsupported_image_format",
        "A picture has the wrong format.",
        "Convert it to JPEG or PNG.",
        ("Supported: {supported_formats}.",),
    ),
    Meaning(
        "unsupported_video_format", "A video has the wrong format.", "Convert it.", ("Supported: {supported_formats}.",)
    ),
    # Errors of pydantic, which checks the body before the model runs.
    Meaning("missing", "A field that the model needs is missing.", _OTHER_VALUE),
    Meaning("extra_forbidden", "The model does not take one of the fields.", _OTHER_VALUE),
    Meaning("value_error", "The model does not accept a value or a combination of values.", _OTHER_VALUE),
    # Errors of the queue (fal's page on request errors).
    _of_queue("request_timeout", "fal.ai dropped the request because it had not started in time."),
    _of_queue("startup_timeout", "No runner of fal.ai started in time."),
    _of_queue("runner_scheduling_failure", "fal.ai found no runner for the request."),
    _of_queue("runner_connection_timeout", "A runner of fal.ai did not answer."),
    _of_queue("runner_disconnected", "A runner of fal.ai went away in the middle."),
    _of_queue("runner_connection_refused", "A runner of fal.ai refused the request."),
    _of_queue("runner_connection_error", "A runner of fal.ai could not be reached."),
    _of_queue("runner_incomplete_response", "A runner of fal.ai gave half an answer."),
    _of_queue("runner_server_error", "A runner of fal.ai failed."),
    _of_queue("internal_error", "fal.ai failed inside."),
    Meaning("bad_request", "fal.ai could not read the request.", _OTHER_VALUE),
    Meaning("client_disconnected", "fal.ai dropped the request because its sender was gone.", _ANOTHER_TIME),
    Meaning("client_cancelled", "The request was cancelled.", _ANOTHER_TIME),
    # Errors of the platform API.
    Meaning(
        "authorization_error",
        "The fal.ai key may not do this.",
        "The user can make another key at https://fal.ai/dashboard/keys.",
    ),
    Meaning("validation_error", "fal.ai's platform did not accept the question.", _AT_FAL),
    Meaning("not_found", "fal.ai does not know what was asked for.", _AT_FAL),
    Meaning("not_implemented", "fal.ai's platform cannot do this.", _AT_FAL),
    _of_queue("server_error", "fal.ai's platform failed inside."),
)
_BY_TYPE: Final[Mapping[str, Meaning]] = {meaning.type: meaning for meaning in _KNOWN}

_OTHER_NAMES: Final[Mapping[str, str]] = {
    "value_error.missing": "missing",
    "value_error.extra": "extra_forbidden",
    "value_error.number.not_gt": "greater_than",
    "value_error.number.not_ge": "greater_than_equal",
    "value_error.number.not_lt": "less_than",
    "value_error.number.not_le": "less_than_equal",
    "value_error.number.not_multiple": "multiple_of",
    "value_error.any_str.min_length": "string_too_short",
    "value_error.any_str.max_length": "string_too_long",
    "value_error.list.min_items": "sequence_too_short",
    "value_error.list.max_items": "sequence_too_long",
    "value_error.const": "one_of",
    "type_error.enum": "one_of",
    "literal_error": "one_of",
    "enum": "one_of",
    "too_short": "sequence_too_short",
    "too_long": "sequence_too_long",
    "runner_connection_disconnected": "runner_disconnected",
}

_KEY_REJECTED: Final = Meaning(
    "key_rejected",
    "fal.ai does not accept the key in FAL_KEY.",
    "The user can make a new key at https://fal.ai/dashboard/keys and set it as FAL_KEY.",
)
_NO_KEY: Final = Meaning(
    "no_api_key",
    "FAL_KEY is not set for this server.",
    "The user can make a key at https://fal.ai/dashboard/keys and set it as FAL_KEY.",
    code="no_api_key",
)
_TOO_MANY_REQUESTS: Final = Meaning(
    "rate_limited",
    "fal.ai asks for fewer requests.",
    "Wait a minute before the next call.",
    retryable=True,
    code="rate_limited",
)
_TOO_MANY_JOBS: Final = Meaning(
    "concurrent_requests_limit",
    "The account has as many jobs at fal.ai as it may have at once.",
    "Wait until one of them has ended; list_jobs shows them.",
    retryable=True,
    code="rate_limited",
)


def _locked(sentence: str, next_step: str) -> Meaning:
    return Meaning("account_locked", sentence, next_step, code="account_locked", billed_at_the_end="no")


_LOCKED: Final = _locked(
    "fal.ai has locked the account.", "The user can see why at https://fal.ai/dashboard/billing or ask fal.ai."
)
_LOCK_REASONS: Final = (
    (
        "exhausted balance",
        _locked("The fal.ai balance is used up.", "The user can add credit at https://fal.ai/dashboard/billing."),
    ),
    (
        "payment method",
        _locked(
            "fal.ai wants a payment method for the account.",
            "The user can add one at https://fal.ai/dashboard/billing.",
        ),
    ),
    (
        "budget",
        _locked(
            "The budget that is set for this account at fal.ai is used up.",
            "The user can raise it at https://fal.ai/dashboard/billing.",
        ),
    ),
    ("archived", _locked("The fal.ai account is archived.", "The user needs another account or help from fal.ai.")),
    ("admin", _locked("fal.ai has locked the account by hand.", "The user has to ask fal.ai's support.")),
)

_REQUEST_NOT_FOUND: Final = Meaning("not_found", "fal.ai does not know the request, or no longer.", _AT_FAL)
_UNKNOWN_REFUSAL: Final = Meaning(
    "unknown_error", "fal.ai refused the request for a reason that this program does not know.", _AT_FAL
)
UNKNOWN_FAILURE: Final = Meaning(
    "unknown_error", "The request failed at fal.ai for a reason that this program does not know.", _AT_FAL
)
_BY_STATUS: Final[Mapping[int, Meaning]] = {
    403: Meaning(
        "forbidden", "fal.ai does not allow this key to make the request.", _BY_TYPE["authorization_error"].next_step
    ),
    404: _BY_TYPE["not_found"],
    405: Meaning("method_not_allowed", "fal.ai does not take this kind of request there.", _AT_FAL),
    413: Meaning("body_too_large", "The request is larger than fal.ai takes.", "Use links or files, not inline data."),
    415: Meaning("body_type", "fal.ai does not take this kind of body.", _AT_FAL),
    501: _BY_TYPE["not_implemented"],
}
