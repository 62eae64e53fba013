"""Inputs of the tools that start no job: schema, limits and defaults of each, from one model."""

from __future__ import annotations

from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import BaseModel, ConfigDict, Field

from kling_mcp.jobs.job import State
from kling_mcp.server.schemas import WAIT, object_schema

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from kling_mcp.server.schemas import Schema

__all__ = ["CancelJob", "GetJob", "Input", "ListJobs", "ListModels", "ResolveJob", "ViewVideo", "input_schema"]

_MOST_JOBS: Final = 100
_JOBS: Final = 20
_MOST_FRAMES: Final = 9
_FRAMES: Final = 4


class Input(BaseModel):
    """Arguments of a tool, each a text, a whole number or one of several texts; `arguments.read` makes it of a call."""

    model_config = ConfigDict(frozen=True, defer_build=True)


_JobId = Annotated[str, Field(description="Job id.")]


class ListModels(Input):
    """Of `list_models`."""

    # No enums: an unknown name is refused as such, with the nearest one.
    mode: str | None = Field(None, description="Such as text-to-video.")
    model: str | None = Field(None, description="One model in full.")


class GetJob(Input):
    """Of `get_job`."""

    job_id: _JobId
    wait_seconds: int = Field(0, description=WAIT)


class ViewVideo(Input):
    """Of `view_video`."""

    job_id: str = Field(description="A completed job.")
    frames: int = Field(_FRAMES, ge=1, le=_MOST_FRAMES, description=f"1 to {_MOST_FRAMES} (default {_FRAMES}).")


class ListJobs(Input):
    """Of `list_jobs`."""

    state: Literal[State, "open"] | None = Field(
        None, description=f"{', '.join(get_args(State))}, or open (not ended)."
    )
    limit: int = Field(_JOBS, ge=1, le=_MOST_JOBS, description=f"1 to {_MOST_JOBS} (default {_JOBS}).")
    cursor: str | None = Field(None, description="next_cursor of the page before.")


class CancelJob(Input):
    """Of `cancel_job`."""

    job_id: _JobId


class ResolveJob(Input):
    """Of `resolve_job`."""

    job_id: _JobId
    outcome: Literal["charged", "not_charged"] = Field(description="What the user saw at fal.ai.")
    request_id: str | None = Field(None, description="With charged: fal.ai's id, to fetch the video.")


def input_schema(model: type[Input]) -> Schema:
    """
    The JSON Schema of *model*.

    Not pydantic's own: that has titles, and `anyOf` for what may be left out, which make hosts drop a tool.
    """
    fields = model.model_fields
    return object_schema(
        {name: _property(field) for name, field in fields.items()},
        [name for name, field in fields.items() if field.is_required()],
    )


def _property(field: FieldInfo) -> Schema:
    kind: Any = field.annotation
    if NoneType in get_args(kind):
        (kind,) = (member for member in get_args(kind) if member is not NoneType)
    schema: Schema = {"type": "integer" if kind is int else "string"}
    if get_origin(kind) is Literal:
        schema["enum"] = list(get_args(kind))
    for limit in field.metadata:
        match limit:
            case Ge(ge=least):
                schema["minimum"] = least
            case Le(le=most):
                schema["maximum"] = most
            case _:
                pass
    return {**schema, "description": field.description}
