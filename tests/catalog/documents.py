"""OpenAPI documents in the form in which fal.ai publishes them, made from tables such as those in `facts.json`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["KLING_4", "document"]

_NOT_IN_A_SCHEMA = ("required", "x-fal")


def document(endpoint_id: str, fields: Mapping[str, Mapping[str, Any]], **changed: Any) -> dict[str, Any]:
    """
    The document of an endpoint with *fields*, by paths such as ``multi_prompt[].prompt``.

    As fal.ai has it: lists of objects by reference, null as a second form of what is optional, defaults and limits of
    media beside that, and operations of the queue. An enum of "any" is a text.
    """
    name = "".join(word.capitalize() for word in re.split(r"[/.-]", endpoint_id))
    components: dict[str, Any] = {}
    components[f"{name}Input"] = _object(fields, "", name, components)
    components |= {
        f"{name}Output": {
            "type": "object",
            "title": "Output",
            "properties": {
                "video": {"allOf": [{"$ref": "#/components/schemas/File"}], "description": "The video."},
                "voice_id": {"type": "string"},
            },
            "required": ["voice_id"] if "create-voice" in endpoint_id else ["video"],
        },
        "File": {
            "type": "object",
            "properties": {
                "url": {"type": "string"},
                "file_size": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            },
            "required": ["url"],
        },
        "QueueStatus": {"type": "object", "properties": {"status": {"type": "string"}}},
    }
    request = {"requestBody": {"required": True, "content": _json(f"{name}Input")}, "responses": _ok("QueueStatus")}
    paths = {
        f"/{endpoint_id}/requests/{{request_id}}/status": {"get": {"responses": _ok("QueueStatus")}},
        f"/{endpoint_id}/requests/{{request_id}}": {"get": {"responses": _ok(f"{name}Output")}},
        f"/{endpoint_id}": {"post": request},
    }
    return {"openapi": "3.0.4", "paths": paths, "components": {"schemas": components}, **changed}


def _object(
    fields: Mapping[str, Mapping[str, Any]], prefix: str, name: str, components: dict[str, Any]
) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for path, field in fields.items():
        own = path.removeprefix(prefix)
        if not path.startswith(prefix) or "." in own:
            continue
        schema = {key: value for key, value in field.items() if key not in _NOT_IN_A_SCHEMA and value != "any"}
        if schema.get("type") == "array" and any(other.startswith(f"{path}[].") for other in fields):
            inside = f"{name}{own.title().replace('_', '')}"
            components[inside] = _object(fields, f"{path}[].", inside, components)
            schema["items"] = {"$ref": f"#/components/schemas/{inside}"}
        elif schema.get("type") == "array":
            schema.setdefault("items", {"type": "string"})
        beside = {key: field[key] for key in ("default", "x-fal", "description") if key in field}
        if not field.get("required") and "default" not in field:
            schema = {"anyOf": [{key: value for key, value in schema.items() if key not in beside}, {"type": "null"}]}
        properties[own] = {**schema, "title": own.replace("_", " ").title(), **beside}
    return {
        "type": "object",
        "title": name,
        "properties": properties,
        "x-fal-order-properties": list(properties),
        "required": [own for own in properties if fields[prefix + own].get("required")],
    }


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _ok(name: str) -> dict[str, Any]:
    return {"200": {"description": "Done.", "content": _json(name)}}


_SHOTS: dict[str, dict[str, Any]] = {
    "multi_prompt": {"type": "array"},
    "multi_prompt[].prompt": {"type": "string", "required": True},
    "multi_prompt[].duration": {"type": "integer", "minimum": 1, "maximum": 30, "default": 5},
}
_SECONDS = {"type": "integer", "minimum": 3, "maximum": 30, "default": 5}
_RESOLUTION = {"type": "string", "enum": ["720p", "1080p"], "default": "720p"}
_PICTURE = {
    "max_file_size": 31_457_280,
    "min_width": 300,
    "min_height": 300,
    "min_aspect_ratio": 0.4,
    "max_aspect_ratio": 2.5,
    "timeout": 20.0,
}
KLING_4: dict[str, dict[str, dict[str, Any]]] = {
    "kling/v4/image-to-video": {
        "prompt": {"type": "string", "maxLength": 2500},
        "start_image_url": {"type": "string", "required": True, "x-fal": _PICTURE},
        "middle_image_urls": {"type": "array", "maxItems": 8, "description": "Keyframes in order."},
        "end_image_url": {"type": "string"},
        **_SHOTS,
        "duration": _SECONDS,
        "resolution": _RESOLUTION,
    },
    "kling/v4/text-to-video": {"prompt": {"type": "string"}, **_SHOTS, "duration": _SECONDS, "resolution": _RESOLUTION},
    "kling/v4/reference-to-video": {
        "prompt": {"type": "string"},
        **_SHOTS,
        "start_image_url": {"type": "string"},
        "image_urls": {"type": "array", "maxItems": 10},
        "video_urls": {"type": "array", "maxItems": 5},
        "elements": {"type": "array"},
        "elements[].frontal_image_url": {"type": "string"},
        "duration": _SECONDS,
        "resolution": _RESOLUTION,
    },
    "kling/v4/video-to-video/edit": {
        "prompt": {"type": "string", "required": True},
        "video_url": {
            "type": "string",
            "required": True,
            "x-fal": {"max_file_size": 314_572_800, "min_duration": 3.0, "max_duration": 30.05, "min_fps": 23.9},
        },
        "image_urls": {"type": "array"},
        "resolution": _RESOLUTION,
    },
}
"""What is known of Kling 4; where shots, resolution and elements were not seen, they are as its siblings have them."""
