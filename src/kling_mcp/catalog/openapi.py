"""
Reads what an OpenAPI document of fal.ai's says about the request and the result of one endpoint.

The document comes from outside. Its size and depth are limited, its texts are cleaned, references lead only to its own
schemas, and what is kept are the keywords that decide which values are taken. Patterns are not among them: one from
outside could take forever to match. Whether null is taken is not kept either, since null is never sent.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeAlias

from kling_mcp.catalog.validity import accepts
from kling_mcp.json_types import is_list, is_object, items_of, members_of
from kling_mcp.texts import clean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import TypeIs

__all__ = ["DocumentError", "Json", "Schema", "is_number", "read_document", "schemas_of"]

Json: TypeAlias = dict[str, object]

_DEEPEST: Final = 12
_DEEPEST_DOCUMENT: Final = 48
_MOST_CHARACTERS: Final = 1_000_000
_MOST_SCHEMAS: Final = 1_000
_MOST_FIELDS: Final = 60
_MOST_VALUES: Final = 200
_LONGEST_VALUE: Final = 100
_LONGEST_DEFAULT: Final = 2_000
_LONGEST_SAID: Final = 160
_LARGEST_NUMBER: Final = 10**12

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,59}")
_COMPONENT: Final = "#/components/schemas/"
_SCALARS: Final = ("string", "integer", "number", "boolean")
_TYPES: Final = (*_SCALARS, "object", "array")
_BOUNDS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_COUNTS: Final = ("minLength", "maxLength", "minItems", "maxItems")
_COMBINED: Final = frozenset({"$ref", "allOf", "anyOf", "oneOf"})


class DocumentError(ValueError):
    """The document cannot be used; the message is a sentence that says why."""


class _Unclear(ValueError):
    """One schema cannot be used; the message says why, after the name of its field."""


@dataclass(frozen=True, slots=True)
class Schema:
    """
    A schema that has been read: what is checked, and what tells how a value is meant.

    Attributes:
        checked: The schema for a validator.
        said: fal.ai's description, or else its title.
        shown_as: The control that fal.ai's own page has for it, such as ``image``.
        limits: Limits of a picture, video or sound, by fal.ai's names.
        members: Of an object.
        item: Of a list.
        left_out: Members that cannot be used, each with the reason.

    """

    checked: Json
    said: str = ""
    shown_as: str = ""
    limits: Mapping[str, object] = field(default_factory=dict[str, object])
    members: Mapping[str, Schema] = field(default_factory=dict[str, "Schema"])
    item: Schema | None = None
    left_out: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def type(self) -> str:
        """Its one type; empty where it has several or none."""
        kinds = _types(self.checked)
        return kinds[0] if len(kinds) == 1 else ""

    @property
    def values(self) -> list[object]:
        """The values that it lists."""
        return items_of(self.checked.get("enum"))

    @property
    def default(self) -> object:
        """Its default; None where it has none."""
        return self.checked.get("default")

    @property
    def required(self) -> frozenset[str]:
        """The members that an object needs."""
        return frozenset(map(str, items_of(self.checked.get("required"))))

    @property
    def each(self) -> Schema:
        """What a list holds, or the schema itself."""
        return self.item or self


def schemas_of(endpoint_id: str, document: Mapping[str, object]) -> tuple[Mapping[str, object], Mapping[str, object]]:
    """The schemas of the request and the result, as the operations in *document* name them; empty where none is."""
    paths = {str(path): members_of(item) for path, item in members_of(document.get("paths")).items()}
    bodies = {
        path: _content(members_of(members_of(item.get("post")).get("requestBody"))) for path, item in paths.items()
    }
    path = next((path for path in paths if path.strip("/") == endpoint_id), next(filter(bodies.get, paths), ""))
    operations = [item.get("get") for name, item in paths.items() if re.search(r"/requests/\{[^/}]*\}/?$", name)]
    # A document of fal.run, not of its queue, has the result where the queue has the answer to a submission.
    operations.append(members_of(paths.get(path)).get("post"))
    results = [_content(members_of(members_of(members_of(one).get("responses")).get("200"))) for one in operations]
    return bodies.get(path, members_of(None)), next(filter(None, results), members_of(None))


def _content(holder: Mapping[str, object]) -> Mapping[str, object]:
    return members_of(members_of(members_of(holder.get("content")).get("application/json")).get("schema"))


def read_document(endpoint_id: str, document: Mapping[str, object]) -> tuple[Schema, Schema]:
    """
    What *document* says of the request and of the result.

    Raises:
        DocumentError: it is too large, or says nothing that can be used.

    """
    _check_size(document)
    reader = _Reader(members_of(members_of(document.get("components")).get("schemas")))
    found: list[Schema] = []
    for part, schema in zip(("request", "result"), schemas_of(endpoint_id, document), strict=True):
        if not schema:
            raise DocumentError(f"Its OpenAPI document has no schema of the {part}.")
        try:
            read = reader.read(schema)
        except _Unclear as reason:
            raise DocumentError(f"The schema of its {part} cannot be used: {reason}.") from None
        if not read.members:
            raise DocumentError(f"The schema of its {part} is no object with fields.")
        found.append(read)
    return found[0], found[1]


def _check_size(document: object) -> None:
    characters, waiting = 0, [(document, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > _DEEPEST_DOCUMENT:
            raise DocumentError(f"Its OpenAPI document is nested deeper than {_DEEPEST_DOCUMENT} levels.")
        if is_object(value):
            characters += sum(map(len, value))
            waiting += [(member, depth + 1) for member in value.values()]
        elif is_list(value):
            waiting += [(member, depth + 1) for member in value]
        characters += len(value) if isinstance(value, str) else 4
        if characters > _MOST_CHARACTERS:
            raise DocumentError(f"Its OpenAPI document is larger than {_MOST_CHARACTERS:,} characters.")


class _Reader:
    def __init__(self, components: Mapping[str, object]) -> None:
        self._components = components
        self._count = 0

    def read(self, schema: object, depth: int = 0) -> Schema:
        """
        What *schema* says.

        Raises:
            _Unclear: it cannot be used.
            DocumentError: references make it endless.

        """
        plain = self._plain(schema, depth)
        kinds = _types(plain) or _implied(plain)
        found = Schema(
            checked={},
            said=clean(plain.get("description"), _LONGEST_SAID) or clean(plain.get("title"), _LONGEST_SAID),
            shown_as=clean(plain.get("_fal_ui_field") or members_of(plain.get("ui")).get("field"), 40),
            limits=members_of(plain.get("x-fal")),
        )
        if kinds:
            found.checked["type"] = kinds[0] if len(kinds) == 1 else kinds
        if found.said:
            found.checked["description"] = found.said
        if "object" in kinds and plain.get("properties"):
            found = self._with_members(found, plain, depth)
        if "array" in kinds and "items" in plain:
            item = self.read(plain["items"], depth + 1)
            found.checked["items"] = item.checked
            found = replace(found, item=item)
        if options := items_of(plain.get("anyOf")):
            found.checked["anyOf"] = [self.read(option, depth + 1).checked for option in options]
        _copy_values(plain, found.checked)
        return found

    def _with_members(self, found: Schema, plain: Mapping[str, object], depth: int) -> Schema:
        fields = members_of(plain.get("properties"))
        if len(fields) > _MOST_FIELDS:
            raise _Unclear(f"it has more than {_MOST_FIELDS} fields")
        members: dict[str, Schema] = {}
        left_out: dict[str, str] = {}
        order = [str(name) for name in items_of(plain.get("x-fal-order-properties"))]
        for name in dict.fromkeys([*(name for name in order if name in fields), *fields]):
            try:
                if not _NAME.fullmatch(name):
                    raise _Unclear("an argument cannot have such a name")
                members[name] = self.read(fields[name], depth + 1)
            except _Unclear as reason:
                left_out[clean(name, 60)] = str(reason)
        required = dict.fromkeys(str(name) for name in items_of(plain.get("required")))
        for name in required:
            if name not in members:
                shown = clean(name, 60)
                raise _Unclear(f"it requires {shown}, and {left_out.get(shown, 'has no such field')}")
        found.checked["properties"] = {name: member.checked for name, member in members.items()}
        found.checked["required"] = list(required)
        found.checked["additionalProperties"] = False
        return replace(found, members=members, left_out=left_out)

    def _plain(self, schema: object, depth: int) -> Mapping[str, object]:
        """*schema* without references, without combinations of one, and without null."""
        outer: Json
        for _ in range(_DEEPEST):
            self._count += 1
            if self._count > _MOST_SCHEMAS:
                raise DocumentError(f"Its OpenAPI document has more than {_MOST_SCHEMAS:,} schemas, counted by use.")
            if depth > _DEEPEST:
                raise _Unclear("it is nested too deeply")
            if not is_object(schema):
                raise _Unclear("it has no schema")
            outer = {name: value for name, value in schema.items() if name not in _COMBINED}
            options = [members_of(one) for name in ("anyOf", "oneOf") for one in items_of(schema.get(name))]
            real = [option for option in options if option.get("type") != "null"]
            if "$ref" in schema:
                schema = {**self._component(schema["$ref"]), **outer}
            elif parts := items_of(schema.get("allOf")):
                schema = _merged([*(self._plain(part, depth + 1) for part in parts), outer])
            elif len(real) == 1:
                schema = {**real[0], **outer}
            else:
                return {**outer, "anyOf": real} if real else outer
        raise _Unclear("its references do not end")

    def _component(self, reference: object) -> Mapping[str, object]:
        name = reference if isinstance(reference, str) else ""
        found = self._components.get(name.removeprefix(_COMPONENT))
        if not name.startswith(_COMPONENT) or not is_object(found):
            raise _Unclear(f"it refers to {clean(name, 80)!r}, which is not in the document")
        return found


def _merged(parts: Sequence[Mapping[str, object]]) -> Mapping[str, object]:
    """All of *parts* in one."""
    together: Json = {name: value for part in parts for name, value in part.items()}
    if "properties" in together:
        found: Json = {}
        for part in parts:
            found.update(members_of(part.get("properties")))
        together["properties"] = found
        together["required"] = [name for part in parts for name in items_of(part.get("required"))]
    return together


def _types(schema: Mapping[str, object]) -> list[str]:
    """The types that *schema* names, without null."""
    named = schema.get("type")
    return [kind for kind in _TYPES if kind == named or kind in items_of(named)]


def _implied(schema: Mapping[str, object]) -> list[str]:
    """The type of a schema that names none."""
    if is_object(schema.get("properties")):
        return ["object"]
    if "items" in schema:
        return ["array"]
    values = [schema["const"]] if "const" in schema else items_of(schema.get("enum"))
    values = [value for value in values if value is not None]
    return ["string"] if values and all(isinstance(value, str) for value in values) else []


def _copy_values(plain: Mapping[str, object], checked: Json) -> None:
    """Copy the values, ranges and default that can be used."""
    listed = [plain["const"]] if "const" in plain else items_of(plain.get("enum"))
    values = [_integral(value) for value in listed if value is not None]
    if len(values) > _MOST_VALUES or not all(_is_plain(value, _LONGEST_VALUE) for value in values):
        raise _Unclear("its list of values cannot be used")
    if values:
        # 1 and true are equal here, and two values there.
        checked["enum"] = list({(type(value), value): value for value in values}.values())
    for name in _BOUNDS:
        bound = plain.get(name)
        # A step of nothing is no step, and divides by zero.
        if is_number(bound) and (name != "multipleOf" or bound > 0):
            checked[name] = _integral(bound)
    for name, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        # As OpenAPI 3.0 writes it.
        if plain.get(exclusive) is True and name in checked:
            checked[exclusive] = checked.pop(name)
    for name in _COUNTS:
        count = _integral(plain.get(name))
        if is_number(count) and isinstance(count, int) and count >= 0:
            checked[name] = count
    default = _integral(plain.get("default"))
    if _is_plain(default, _LONGEST_DEFAULT) and accepts(checked, default):
        checked["default"] = default


def _integral(value: object) -> object:
    """A number such as 5.0 as the integer that it is."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < _LARGEST_NUMBER else value


def is_number(value: object) -> TypeIs[int | float]:
    """Whether *value* is a number of a size that is meant."""
    # Told apart first: a bool is an int.
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and abs(value) < _LARGEST_NUMBER


def _is_plain(value: object, longest: int) -> bool:
    """Whether *value* can be shown as it stands."""
    if isinstance(value, str):
        return len(value) <= longest and clean(value, longest) == value
    return isinstance(value, bool) or is_number(value)
