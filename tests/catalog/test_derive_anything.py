"""Whatever a document says, an endpoint file is derived that works, or the refusal is one line."""

from __future__ import annotations

import contextlib
import copy
import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kling_mcp.catalog.derive import Derived, DeriveError, ListPrice, derive
from kling_mcp.catalog.models import JOB_TOOLS, TOOLS, Catalog, load
from kling_mcp.catalog.plan import plan
from kling_mcp.errors import InvalidArguments
from kling_mcp.server.schemas import job_schema
from tests.catalog.documents import KLING_4, document
from tests.catalog.test_every_call import ANYTHING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kling_mcp.catalog.models import Mode

DOCUMENTS = {endpoint_id: document(endpoint_id, fields) for endpoint_id, fields in KLING_4.items()}
WORDS = [
    *("type", "enum", "default", "minimum", "maximum", "items", "properties", "required", "anyOf", "allOf", "$ref"),
    *("maxLength", "x-fal", "description", "const", "nullable", "string", "object", "array", "number", "duration"),
    *("#/components/schemas/File", "#/components/schemas/KlingV4ImageToVideoInput", "prompt", "\u202e", "a b"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(WORDS),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=9), inner, max_size=4)
    ),
    max_leaves=12,
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of *value*, as what holds it and the name or number in that."""
    for name, member in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, name
        if isinstance(member, dict | list):
            yield from places(member)


def derived(endpoint_id: str, changed: dict[str, Any], price: ListPrice) -> Derived | None:
    """What is derived; None where it is refused, in one line."""
    try:
        return derive(endpoint_id, changed, price, as_of="2026-11-25")
    except DeriveError as refusal:
        said = str(refusal)
    assert said.isprintable()
    return None


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_document_with_anything_in_it_gives_a_file_that_works_or_one_line(data: st.DataObject) -> None:
    endpoint_id = data.draw(st.sampled_from(sorted(DOCUMENTS)))
    changed = copy.deepcopy(DOCUMENTS[endpoint_id])
    for _ in range(data.draw(st.integers(1, 3))):
        holder, name = data.draw(st.sampled_from(list(places(changed))))
        holder[name] = data.draw(JSON)
    price = ListPrice(Decimal("0.157"), data.draw(st.sampled_from(["seconds", "video", "x"])), "USD")

    found = derived(endpoint_id, changed, price)
    if found is None:
        return

    json.dumps(found.data, allow_nan=False).encode()
    for said in (*found.understood, *found.own, *found.left_out, *found.unknown):
        assert said.isprintable()
    catalog = Catalog((*load().endpoints, found.endpoint))
    for tool in JOB_TOOLS:
        modes: list[Mode] = [mode for mode, tools in TOOLS.items() if tool in tools]
        if catalog.of(*modes):
            described = job_schema(catalog, tool)["properties"].values()
            assert all(one["type"] and one["description"] for one in described)
    names = st.sampled_from(sorted(found.endpoint.arguments))
    call = data.draw(st.dictionaries(names, ANYTHING, max_size=4))
    with contextlib.suppress(InvalidArguments):
        plan(catalog, TOOLS[found.endpoint.mode][0], {"model": found.endpoint.model, **call})
