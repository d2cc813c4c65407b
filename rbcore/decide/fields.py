"""From the wire to stored values: each type of declared field, in one place.

``accept`` takes what a body says and gives what an entity holds; what is wrong is a ``ValueError`` with a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from rbcore.entities import ENTITIES, Client
from rbcore.errors import InvalidRequest
from rbcore.interval import parse_interval, parse_moment
from rbcore.resource import (
    Boolean,
    Choice,
    Field,
    Integer,
    Interval,
    JsonObject,
    Reference,
    Text,
    TextList,
    Timestamp,
    YesNo,
)
from rbcore.state import State

OBJECT_BYTES_MAX: Final = 256 * 1024
"""Size of a free-form object, encoded."""
LIST_LENGTH_MAX: Final = 10_000


class Unacceptable(ValueError):
    """A value that cannot be taken; the text goes on after the field's name: ``must not be null``."""


_CLIENT = re.compile(r".+ \(([0-9a-f]+)\)", re.ASCII | re.DOTALL)
_YES_NO: Final = {"yes": True, "no": False}


def accept(state: State, field: Field, value: Any) -> Any:
    """The stored form of ``value``. Raises ``ValueError``."""
    if value is None:
        if not field.nullable:
            raise Unacceptable("must not be null")
        return 0 if isinstance(field, Reference | Timestamp) else None
    return _ACCEPT[type(field)](state, field, value)


def accept_all(
    state: State, fields: Sequence[Field], given: Mapping[str, Any], *, subject: str, creating: bool
) -> dict[str, Any]:
    """Every given field by its attribute; when creating, also the defaults of the others. ``InvalidRequest`` names every fault."""
    by_name = {one.name: one for one in fields}
    errors: dict[str, list[str]] = {}
    accepted: dict[str, Any] = {}
    for name, value in given.items():
        field = by_name.get(name)
        if field is None:
            errors[name] = ["This field is not known here."]
            continue
        try:
            accepted[field.source] = accept(state, field, value)
        except ValueError as wrong:
            errors[name] = [f"{name}: {wrong}"]
    if creating:
        for field in fields:
            if field.name in given:
                continue
            if field.required:
                errors[field.name] = ["This field is required."]
            else:
                accepted[field.source] = field.default
    if errors:
        raise invalid(subject, errors)
    return accepted


def invalid(subject: str, errors: Mapping[str, Sequence[str]]) -> InvalidRequest:
    """``Task Queue: these fields are not acceptable: pool, crypto.``"""
    fields = [name for name in errors if name != "_schema"]
    if fields:
        return InvalidRequest(f"{subject}: not acceptable: {', '.join(fields)}.", errors=errors)
    return InvalidRequest(f"{subject}: {errors['_schema'][0]}", errors=errors)


def text(value: Any, length_max: int = 4096) -> str:
    """A text that can be stored. Raises ``ValueError``."""
    if not isinstance(value, str):
        raise Unacceptable("must be a text")
    if len(value) > length_max:
        raise Unacceptable(f"has {len(value)} characters; at most {length_max} are allowed")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Unacceptable("is not valid Unicode") from None
    if "\0" in value:
        raise Unacceptable("must not contain a NUL character")
    return value


def json_object(value: Any) -> dict[str, Any]:
    """Free-form parameters that can be stored and read back as they came. Raises ``ValueError``."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise Unacceptable("must be an object")
    try:
        size = len(msgspec.msgpack.encode(value))
    except (OverflowError, UnicodeEncodeError, RecursionError, TypeError, ValueError):
        raise Unacceptable("holds a value that cannot be kept: numbers have 64 bits, texts are valid Unicode") from None
    if size > OBJECT_BYTES_MAX:
        raise Unacceptable(f"is too large; at most {OBJECT_BYTES_MAX} bytes are kept")
    return value


def _integer(state: State, field: Integer, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise Unacceptable("must be a whole number")
    if not field.minimum <= value <= field.maximum:
        raise Unacceptable(f"must be between {field.minimum} and {field.maximum}")
    if value % field.multiple_of:
        raise Unacceptable(f"must be a multiple of {field.multiple_of}")
    return value


def _text(state: State, field: Text, value: Any) -> str:
    found = text(value, field.max_length)
    if field.pattern and not re.fullmatch(field.pattern, found, re.DOTALL):
        raise Unacceptable("must not be empty" if not found.strip() else f"must have the form {field.pattern}")
    return found


def _boolean(state: State, field: Boolean, value: Any) -> bool:
    if isinstance(value, str) and value.lower() in _YES_NO:
        return _YES_NO[value.lower()]
    if not isinstance(value, bool):
        raise Unacceptable("must be true or false")
    return value


def _yes_no(state: State, field: YesNo, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, str) or value.lower() not in _YES_NO:
        raise Unacceptable('must be "yes" or "no"')
    return value.lower()


def _choice(state: State, field: Choice, value: Any) -> str:
    if not isinstance(value, str) or value not in field.values:
        raise Unacceptable(f"must be one of: {', '.join(field.values)}")
    return value


def _timestamp(state: State, field: Timestamp, value: Any) -> int:
    return parse_moment(text(value, 64))


def _interval(state: State, field: Interval, value: Any) -> str:
    return str(parse_interval(text(value, 200)))


def _reference(state: State, field: Reference, value: Any) -> int:
    key = text(value)
    if field.to == Client.KIND:
        return client_named(state, key).id
    found = state.by_key(ENTITIES[field.to], key)
    if found is not None:
        return found.id
    other = state.by_key(ENTITIES[field.or_to], key) if field.or_to else None
    if other is not None:
        return -other.id
    if field.placeholder and key == field.placeholder:
        return 0
    neither = f" and no {field.or_to.replace('_', ' ')} of that name" if field.or_to else ""
    raise Unacceptable(f"there is no {field.to.replace('_', ' ')} '{key}'{neither}")


def client_named(state: State, name: str) -> Client:
    """``hostname (hwid)``: the hwid decides, the host name is a hint. Raises ``ValueError``."""
    match = _CLIENT.fullmatch(name)
    if match is None:
        raise Unacceptable("a client is named as hostname (hwid), for example 'myhost (525a99154f3505a2)'")
    found = state.by_key(Client, match[1])
    if found is None:
        raise Unacceptable(f"there is no authorised client '{name}'")
    return found


def _text_list(state: State, field: TextList, value: Any) -> list[str]:
    if not isinstance(value, list) or len(value) > LIST_LENGTH_MAX:
        raise Unacceptable(f"must be a list of at most {LIST_LENGTH_MAX} texts")
    return [text(one) for one in value]


def _json_object(state: State, field: JsonObject, value: Any) -> dict[str, Any]:
    return json_object(value)


_ACCEPT: dict[type[Field], Callable[[State, Any, Any], Any]] = {
    Integer: _integer,
    Text: _text,
    Boolean: _boolean,
    YesNo: _yes_no,
    Choice: _choice,
    Timestamp: _timestamp,
    Interval: _interval,
    Reference: _reference,
    TextList: _text_list,
    JsonObject: _json_object,
}
"""``Computed`` is missing: nobody can send one."""
