"""
The OpenAPI document of an endpoint, in the form in which fal publishes it.

It is made from the catalog's schemas: what is nested becomes a component of its own, what may be null a choice with
null in it, and limits of media are ``x-fal`` beside a field. The operations are those of the queue, with the longer
paths that fal's documents name.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from kling_mcp.json_types import is_object, items_of, members_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kling_mcp.catalog.models import Argument, Endpoint, MediaLimits

__all__ = ["document"]

Json = dict[str, object]

_BESIDE: Final = ("description", "default")
"""What stands beside the choice with null, not inside it."""

_X_FAL: Final = {
    "max_bytes": "max_file_size",
    "min_width": "min_width",
    "min_height": "min_height",
    "max_width": "max_width",
    "max_height": "max_height",
    "min_aspect_ratio": "min_aspect_ratio",
    "max_aspect_ratio": "max_aspect_ratio",
    "min_seconds": "min_duration",
    "max_seconds": "max_duration",
    "min_fps": "min_fps",
    "max_fps": "max_fps",
    "fetch_timeout_seconds": "timeout",
}
_CONTROLS: Final = {"picture": "image", "video": "video", "audio": "audio"}
_OWNER: Final = "fal-ai/"
_SERVER: Final = "https://queue.fal.run"


def document(endpoint: Endpoint, category: str) -> Json:
    """The document of *endpoint*, which fal lists under *category*."""
    name = _pascal(endpoint.endpoint_id.removeprefix(_OWNER))
    components = _Components()
    components.add(f"{name}Input", endpoint.input_schema, endpoint.arguments)
    components.add(f"{name}Output", endpoint.output_schema, {})
    components.schemas["QueueStatus"] = _QUEUE_STATUS
    page = f"https://fal.ai/models/{endpoint.endpoint_id}"
    return {
        "openapi": "3.0.4",
        "info": {
            "title": f"Queue OpenAPI for {endpoint.endpoint_id}",
            "version": "1.0.0",
            "description": f"The OpenAPI schema for the {endpoint.endpoint_id} queue.",
            "x-fal-metadata": {
                "endpointId": endpoint.endpoint_id,
                "category": category,
                "playgroundUrl": page,
                "documentationUrl": f"{page}/api",
            },
        },
        # By name: what is nested can come before the request itself.
        "components": {"securitySchemes": _SECURITY, "schemas": dict(sorted(components.schemas.items()))},
        "paths": _paths(endpoint.endpoint_id, name),
        "servers": [{"url": _SERVER}],
        "security": [{"apiKeyAuth": []}],
    }


class _Components:
    """The named schemas of a document."""

    def __init__(self) -> None:
        self.schemas: Json = {}

    def add(self, name: str, schema: Mapping[str, object], arguments: Mapping[str, Argument]) -> Json:
        """Keep *schema*, that of an object, as *name*, and give a reference to it."""
        by_field = {argument.field: argument for argument in arguments.values()}
        properties: Json = {}
        for field, value in members_of(schema.get("properties")).items():
            argument = by_field.get(field)
            properties[field] = {
                "title": field.replace("_", " ").title(),
                **self._value(field, members_of(value), argument.items if argument else {}),
                **(_of_media(argument) if argument else {}),
            }
        found: Json = {
            "type": "object",
            "title": name,
            "properties": properties,
            "x-fal-order-properties": list(properties),
        }
        if required := items_of(schema.get("required")):
            found["required"] = required
        self.schemas[name] = found
        return {"$ref": f"#/components/schemas/{name}"}

    def _value(self, field: str, schema: Mapping[str, object], arguments: Mapping[str, Argument]) -> Json:
        beside = {name: schema[name] for name in _BESIDE if schema.get(name) is not None}
        plain = {name: value for name, value in schema.items() if name not in {*_BESIDE, "type", "anyOf"}}
        if "enum" in plain:
            plain["enum"] = [value for value in items_of(plain["enum"]) if value is not None]
        kinds = items_of(schema.get("type")) or [schema.get("type")]
        options = [self._one(field, {"type": kind, **plain}, arguments) for kind in kinds if kind not in {None, "null"}]
        options += [self._value(field, members_of(one), arguments) for one in items_of(schema.get("anyOf"))]
        if "null" in kinds:
            options.append({"type": "null"})
        if len(options) > 1:
            return {"anyOf": options, **beside}
        only = options[0] if options else plain
        # Beside a reference nothing counts in OpenAPI 3.0.
        return {**({"allOf": [only]} if "$ref" in only and beside else only), **beside}

    def _one(self, field: str, schema: Json, arguments: Mapping[str, Argument]) -> Json:
        """*schema*, which has one type."""
        if is_object(schema.get("properties")):
            is_file = "url" in members_of(schema["properties"])
            return self.add("File" if is_file else f"Kling{_pascal(field)}Input", schema, arguments)
        if "items" in schema:
            return {**schema, "items": self._value(field, members_of(schema["items"]), arguments)}
        return schema


def _of_media(argument: Argument) -> Json:
    """What fal says of a picture, video or sound; what is only inferred it does not say."""
    found: Json = {}
    if argument.kind in _CONTROLS:
        found["ui"] = {"field": _CONTROLS[argument.kind]}
    if argument.limits is not None and not argument.limits.inferred:
        found["x-fal"] = _x_fal(argument.limits)
    return found


def _x_fal(limits: MediaLimits) -> Json:
    stated: dict[str, int | Decimal | None] = {theirs: getattr(limits, ours) for ours, theirs in _X_FAL.items()}
    return {
        name: float(value) if isinstance(value, Decimal) else value
        for name, value in stated.items()
        if value is not None
    }


def _paths(endpoint_id: str, name: str) -> Json:
    one = f"/{endpoint_id}/requests/{{request_id}}"
    request_id = {
        "name": "request_id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "description": "Request ID"},
    }
    logs = {"name": "logs", "in": "query", "required": False, "schema": {"type": "number", "description": "Logs"}}
    success = {"type": "object", "properties": {"success": {"type": "boolean"}}}
    status = {"$ref": "#/components/schemas/QueueStatus"}
    request, result = ({"$ref": f"#/components/schemas/{name}{end}"} for end in ("Input", "Output"))
    return {
        f"{one}/status": {"get": {"parameters": [request_id, logs], "responses": _ok("The status.", status)}},
        f"{one}/cancel": {"put": {"parameters": [request_id], "responses": _ok("Cancelled.", success)}},
        f"/{endpoint_id}": {
            "post": {
                "requestBody": {"required": True, "content": _json(request)},
                "responses": _ok("The status.", status),
            }
        },
        one: {"get": {"parameters": [request_id], "responses": _ok("The result.", result)}},
    }


def _ok(what: str, schema: object) -> Json:
    return {"200": {"description": what, "content": _json(schema)}}


def _json(schema: object) -> Json:
    return {"application/json": {"schema": schema}}


def _pascal(text: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in re.split(r"[^A-Za-z0-9]+", text))


_SECURITY: Final[Json] = {
    "apiKeyAuth": {"type": "apiKey", "in": "header", "name": "Authorization", "description": "Fal Key"}
}
_QUEUE_STATUS: Final[Json] = {
    "type": "object",
    "properties": {
        "status": {"type": "string", "enum": ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]},
        "request_id": {"type": "string", "description": "The request id."},
        "response_url": {"type": "string", "description": "The response url."},
        "status_url": {"type": "string", "description": "The status url."},
        "cancel_url": {"type": "string", "description": "The cancel url."},
        # A list or null in truth; the documents say this.
        "logs": {"type": "object", "description": "The logs.", "additionalProperties": True},
        "metrics": {"type": "object", "description": "The metrics.", "additionalProperties": True},
        "queue_position": {"type": "integer", "description": "The queue position."},
    },
    "required": ["status", "request_id"],
}
