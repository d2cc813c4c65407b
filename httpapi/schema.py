"""JSON Schema of declared fields: what a resource looks like on the wire, in answers and in request bodies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rbcore.resource import (
    Boolean,
    Choice,
    Computed,
    Field,
    Integer,
    Interval,
    JsonObject,
    Reference,
    Resource,
    Text,
    TextList,
    Timestamp,
    YesNo,
)

Schema = dict[str, Any]

ID: Schema = {"type": "integer", "minimum": 1, "maximum": 2**63 - 1}
TIME_TEXT = "ISO 8601 with microseconds, in the server's zone without an offset."
ENVELOPE_KEYS = ("is_error", "message", "data", "errors")


def _integer(field: Any) -> Schema:
    schema: Schema = {"type": "integer", "minimum": field.minimum, "maximum": field.maximum}
    if field.multiple_of > 1:
        schema["multipleOf"] = field.multiple_of
    if field.unit:
        schema["x-unit"] = field.unit
    return schema


def _text(field: Any) -> Schema:
    schema: Schema = {"type": "string", "maxLength": field.max_length}
    if field.pattern:
        schema["pattern"] = f"^(?:{field.pattern})$"
    return schema


def _reference_text(field: Any) -> str:
    targets = [(field.by, field.to)] + ([(field.or_by, field.or_to)] if field.or_to else [])
    return ", or ".join(f"`{by}` of a {kind.replace('_', ' ')}" for by, kind in targets) + "."


def _computed(field: Any) -> Schema:
    return dict(_COMPUTED[field.kind])


_COMPUTED: dict[str, Schema] = {
    "text": {"type": ["string", "null"]},
    "integer": {"type": ["integer", "null"]},
    "boolean": {"type": "boolean"},
    "timestamp": {"type": ["string", "null"], "description": TIME_TEXT},
}

_BY_TYPE: dict[type[Field], Callable[[Any], Schema]] = {
    Integer: _integer,
    Text: _text,
    Boolean: lambda _: {"type": "boolean"},
    YesNo: lambda _: {"type": "string", "enum": ["yes", "no"]},
    Choice: lambda field: {"type": "string", "enum": list(field.values)},
    Timestamp: lambda _: {"type": ["string", "null"], "description": TIME_TEXT},
    Interval: lambda _: {"type": "string", "description": "An interval such as `30 days` or `1 year`."},
    Reference: lambda field: {"type": "string", "description": _reference_text(field)},
    TextList: lambda _: {"type": "array", "items": {"type": "string"}},
    JsonObject: lambda _: {"type": "object"},
    Computed: _computed,
}


def of_field(field: Field, *, in_answer: bool) -> Schema:
    schema = _BY_TYPE[type(field)](field)
    nullable = field.nullable or (in_answer and isinstance(field, Reference))
    if nullable and isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]
        if "enum" in schema:
            schema["enum"] = [*schema["enum"], None]
    if not in_answer and isinstance(field, Boolean | YesNo):
        schema = {"enum": [True, False, "yes", "no"]}
    if field.description:
        schema["description"] = field.description
    if field.example is not None:
        schema["examples"] = [field.example]
    return schema


def record(resource: Resource, *, in_list: bool) -> Schema:
    """A row of a list, or the whole record."""
    return fields_object([one for one in resource.fields if one.in_list or not in_list])


def fields_object(fields: Sequence[Field]) -> Schema:
    properties: Schema = {"id": ID} | {one.name: of_field(one, in_answer=True) for one in fields}
    return {"type": "object", "properties": properties, "required": list(properties)}


def listing(item: Schema) -> Schema:
    """``data`` of a list."""
    return {
        "type": "object",
        "properties": {
            "items": {"type": "array", "items": item},
            "total": {"type": "integer", "minimum": 0, "description": "Records that match, on all pages."},
            "page": {"type": "integer", "minimum": 1},
            "limit": {"type": "integer", "minimum": 1},
        },
        "required": ["items", "total", "page", "limit"],
    }


def wrapped(data: Schema) -> Schema:
    """A request body ``{"data": ...}``."""
    return {"type": "object", "properties": {"data": data}, "required": ["data"], "additionalProperties": False}


def given(fields: Sequence[Field], *, creating: bool, ignored: Sequence[str] = ()) -> Schema:
    """An object in a request: of a create (required keys, defaults) or of a change (any subset).

    ``ignored``: fields that answers have; a client may send them back, and nothing comes of it.
    """
    properties: Schema = {name: {"readOnly": True} for name in ignored}
    for one in fields:
        properties[one.name] = of_field(one, in_answer=False)
        if creating and one.default is not None and not isinstance(one, Reference | Timestamp):  # kept as a number
            properties[one.name]["default"] = one.default
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    if creating and (required := [one.name for one in fields if one.required]):
        schema["required"] = required
    return schema


def envelope(data: Schema, *, is_error: bool) -> Schema:
    texts: Schema = {"type": "array", "items": {"type": "string"}}
    errors: Schema = {"type": "object", "additionalProperties": texts}
    if not is_error:
        errors["maxProperties"] = 0
    return {
        "type": "object",
        "properties": {
            "is_error": {"const": is_error},
            "message": {"type": "string"},
            "data": data,
            "errors": errors,
        },
        "required": list(ENVELOPE_KEYS),
        "additionalProperties": False,
    }
