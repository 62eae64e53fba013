"""
Arguments of the tools that start no job, read into the tool's input model.

Values are read as those of a job are, by `kling_mcp.catalog.values`, however
a host or a model writes them; only then is the model made of them.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, TypeVar

from kling_mcp.catalog.values import (
    ValidationReport,
    choice,
    is_given,
    nearest,
    nothing,
    refused,
    seconds_to_wait,
    show,
    whole,
)
from kling_mcp.catalog.values import text as text_in
from kling_mcp.errors import ArgumentFault, InvalidArguments
from kling_mcp.ids import job_id_in, unwrapped
from kling_mcp.server.inputs import Input, input_schema
from kling_mcp.server.schemas import LONGEST_WAIT_SECONDS
from kling_mcp.texts import showable

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["opened", "read"]

I = TypeVar("I", bound=Input)  # noqa: E741


def opened(arguments: object) -> object:
    """The arguments of a call as an object, also where a host sends them as JSON text, or PHP an empty list."""
    if not is_given(arguments):
        return {}
    if isinstance(arguments, str):
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(arguments)
    return arguments


def read(arguments: Mapping[str, object], model: type[I]) -> I:
    """
    The given *arguments* as *model*; those that say nothing have their defaults.

    Raises:
        InvalidArguments: Some are unknown, missing, or not what the model allows; all of them are named.
    """
    schema = input_schema(model)
    properties: dict[str, dict[str, Any]] = schema["properties"]
    findings = ValidationReport(estimating=False)
    found: dict[str, Any] = {}
    for name, value in arguments.items():
        if not is_given(value):
            continue
        with findings.noting():
            if name not in properties:
                raise _unknown(name, value, tuple(properties))
            found[name] = _checked(name, value, properties[name])
    for name in schema.get("required", ()):
        if name not in found and name not in findings.faulty:
            about = properties[name]["description"]
            state = nothing(arguments[name]) if name in arguments else "is missing"
            findings.faults.append(ArgumentFault(f"{name} {state}.", f"Give it: {about}", name))
    if findings.faults:
        raise InvalidArguments.of(findings.faults)
    return model(**found)


def _unknown(name: str, value: object, names: tuple[str, ...]) -> InvalidArguments:
    meant = nearest(name, names)
    hint = f"The nearest is {meant}. " if meant else ""
    shown = showable(name[:60])
    what = f"{name[:60]!r} is not an argument of this tool."
    return InvalidArguments.of(
        [ArgumentFault(what, f"{hint}It takes: {', '.join(names)}.", shown, show(value), names, meant)]
    )


def _checked(name: str, value: object, schema: Mapping[str, Any]) -> object:
    if schema["type"] == "integer":
        if name == "wait_seconds":
            return seconds_to_wait(value, name, LONGEST_WAIT_SECONDS)
        low, high = schema["minimum"], schema["maximum"]
        number = whole(value)
        if number is None or not low <= number <= high:
            allowed = f"{low} to {high}"
            near = None if number is None else str(min(max(number, low), high))
            raise refused(name, value, "a whole number is expected", f"Allowed: {allowed}.", (allowed,), near)
        return number
    if "enum" in schema:
        return schema["enum"][choice(value, name, schema["enum"])]
    given = text_in(value, name)
    return job_id_in(given) if name == "job_id" else unwrapped(given)
