"""
What a finished request has to show: a video, or one of fal's errors in fal's own shapes.

There are two shapes. The model's own errors are a list under ``detail``; the
infrastructure's are a text with an ``error_type`` and a header of the same name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ERROR_TYPES", "Outcome", "cancelled", "docs_url", "failure", "invalid", "start_timeout", "success"]

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    The answer that a result request will get.

    ``body`` is None for a success: the video's address depends on who asks.
    ``error`` and ``error_type`` are what the status says beside COMPLETED.
    """

    status: int = 200
    body: Mapping[str, object] | None = None
    error: str | None = None
    error_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: _NOTHING)


@dataclass(frozen=True, slots=True)
class _ErrorType:
    status: int
    message: str
    context: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    location: tuple[str, ...] = ("body",)
    infrastructure: bool = False


def _image(message: str, **context: object) -> _ErrorType:
    return _ErrorType(422, message, context, ("body", "image_url"))


def _infrastructure(status: int, message: str) -> _ErrorType:
    return _ErrorType(status, message, infrastructure=True)


ERROR_TYPES: Final[Mapping[str, _ErrorType]] = MappingProxyType(
    {
        "internal_server_error": _ErrorType(500, "Internal server error"),
        "generation_timeout": _ErrorType(504, "Generation timed out"),
        "downstream_service_error": _ErrorType(400, "Downstream service error"),
        "downstream_service_unavailable": _ErrorType(500, "Downstream service unavailable"),
        "content_policy_violation": _ErrorType(
            422,
            "The content could not be processed because it was flagged by a content checker.",
            {},
            ("body", "prompt"),
        ),
        "no_media_generated": _ErrorType(422, "No media was generated."),
        "image_too_small": _image("Image dimensions are too small.", min_height=300, min_width=300),
        "image_too_large": _image("Image dimensions are too large.", max_height=4000, max_width=4000),
        "image_aspect_ratio_error": _image("Aspect ratio is out of range.", min_aspect_ratio=0.4, max_aspect_ratio=2.5),
        "image_load_error": _image("Failed to load the image."),
        "file_download_error": _image("Failed to download the file."),
        "face_detection_error": _image("Could not detect a face in the image."),
        "file_too_large": _image("File size exceeds the limit.", max_size=10_485_760),
        "greater_than": _ErrorType(422, "Input should be greater than 0", {"gt": 0}),
        "greater_than_equal": _ErrorType(422, "Input should be greater than or equal to 0", {"ge": 0}),
        "less_than": _ErrorType(422, "Input should be less than 1", {"lt": 1}),
        "less_than_equal": _ErrorType(422, "Input should be less than or equal to 1", {"le": 1}),
        "multiple_of": _ErrorType(422, "Input should be a multiple of 5", {"multiple_of": 5}),
        "sequence_too_short": _ErrorType(422, "Sequence has too few items.", {"min_length": 1}),
        "sequence_too_long": _ErrorType(422, "Sequence has too many items.", {"max_length": 6}),
        "one_of": _ErrorType(422, "Value is not one of the expected.", {"expected": ["5", "10"]}),
        "feature_not_supported": _ErrorType(422, "This combination of features is not supported."),
        "invalid_archive": _ErrorType(422, "Invalid archive.", {"supported_extensions": [".zip"]}),
        "archive_file_count_below_minimum": _ErrorType(422, "Too few files.", {"min_count": 2, "provided_count": 1}),
        "archive_file_count_exceeds_maximum": _ErrorType(422, "Too many files.", {"max_count": 2, "provided_count": 3}),
        "audio_duration_too_long": _ErrorType(422, "Audio is too long.", {"max_duration": 60, "provided_duration": 61}),
        "audio_duration_too_short": _ErrorType(422, "Audio is too short.", {"min_duration": 2, "provided_duration": 1}),
        "video_duration_too_long": _ErrorType(422, "Video is too long.", {"max_duration": 10, "provided_duration": 11}),
        "video_duration_too_short": _ErrorType(422, "Video is too short.", {"min_duration": 3, "provided_duration": 2}),
        "unsupported_audio_format": _ErrorType(422, "Unsupported audio format.", {"supported_formats": ["mp3", "wav"]}),
        "unsupported_image_format": _image("Unsupported image format.", supported_formats=["jpg", "jpeg", "png"]),
        "unsupported_video_format": _ErrorType(422, "Unsupported video format.", {"supported_formats": ["mp4", "mov"]}),
        "request_timeout": _infrastructure(504, "Request timed out"),
        "startup_timeout": _infrastructure(504, "Runner startup timed out"),
        "runner_scheduling_failure": _infrastructure(503, "Could not schedule a runner"),
        "runner_connection_timeout": _infrastructure(503, "Connection to the runner timed out"),
        "runner_disconnected": _infrastructure(503, "Runner disconnected"),
        "runner_connection_refused": _infrastructure(503, "Runner refused the connection"),
        "runner_connection_error": _infrastructure(503, "Connection to the runner failed"),
        "runner_incomplete_response": _infrastructure(502, "Runner sent an incomplete response"),
        "runner_server_error": _infrastructure(500, "Runner failed"),
        "internal_error": _infrastructure(500, "Internal error"),
        "bad_request": _infrastructure(400, "Bad request"),
        "client_disconnected": _infrastructure(499, "Client disconnected"),
        "client_cancelled": _infrastructure(499, "Request was cancelled by the client"),
    }
)
"""Every error type in fal's documentation, with its status, a message of its kind and its context."""


def success() -> Outcome:
    """The video exists."""
    return Outcome()


def failure(error_type: str, message: str | None = None, *, plain: bool = False) -> Outcome:
    """
    The request fails with *error_type*; a type that is not in the table is a 422 of the model.

    Args:
        error_type: One of ``ERROR_TYPES``, or any other word.
        message: The text, when it matters.
        plain: ``detail`` is a text, as on endpoints that fal has not brought to the new form.
    """
    known = ERROR_TYPES.get(error_type, _ErrorType(422, f"Request failed: {error_type}"))
    text = message or known.message
    if known.infrastructure:
        return _request_error(known.status, error_type, text)
    entry: dict[str, object] = {
        "loc": list(known.location),
        "msg": text,
        "type": error_type,
        "url": docs_url(error_type),
    }
    if known.context:
        entry["ctx"] = dict(known.context)
    return _model_error(known.status, text if plain else [entry], text, error_type)


def invalid(entries: list[dict[str, object]]) -> Outcome:
    """The body does not fit the endpoint's schema; *entries* say where and why."""
    first = entries[0]
    return _model_error(422, entries, str(first["msg"]), str(first["type"]))


def docs_url(error_type: str) -> str:
    """The page that fal names beside an error."""
    return f"https://docs.fal.ai/errors#{error_type}"


def cancelled() -> Outcome:
    """What a cancelled request reads as afterwards. That it does is an inference: fal documents only the type."""
    return failure("client_cancelled")


def start_timeout() -> Outcome:
    """The caller's own deadline for the start passed while the request was still in line."""
    late = failure("request_timeout", "Request timed out before it started")
    return Outcome(
        late.status, late.body, late.error, late.error_type, {**late.headers, "X-Fal-Request-Timeout-Type": "user"}
    )


def _model_error(status: int, detail: object, error: str, error_type: str) -> Outcome:
    # Both names of the header: the documentation has the one, fal's own toolkit still sends the other.
    again = "true" if status >= 500 else "false"
    headers = {"X-Fal-Needs-Retry": "1" if status >= 500 else "0", "X-Fal-Retryable": again}
    return Outcome(status, {"detail": detail}, error, error_type, headers)


def _request_error(status: int, error_type: str, text: str) -> Outcome:
    return Outcome(
        status, {"detail": text, "error_type": error_type}, text, error_type, {"X-Fal-Error-Type": error_type}
    )
