"""Reading a JSON request body strictly: what is ambiguous or hostile is refused with the field's name, never guessed.

msgspec parses (and refuses invalid UTF-8, lone surrogates, NaN and trailing bytes); a scan over the parsed text's tokens
refuses what a parser silently accepts: a key that stands twice in one object, and nesting without reason.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from rbcore.errors import InvalidRequest

DEPTH_MAX = 32
"""Levels of nesting; the deepest documented body has five."""

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\],:]')
_decode = msgspec.json.Decoder().decode


def refuse(sentence: str, field: str = "_schema") -> InvalidRequest:
    """The error of a malformed body; ``errors`` names the field (reference 4.7)."""
    return InvalidRequest("Bad request", errors={field: [sentence]})


def read_object(raw: bytes) -> dict[str, Any]:
    """The body as an object. Raises ``InvalidRequest``."""
    _check_structure(raw)
    try:
        document = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise refuse(f"The body is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise refuse("The body must be a JSON object.")
    _check_text(document, "")
    return document


def _check_structure(raw: bytes) -> None:
    """Refuse duplicate keys and deep nesting. The text need not be valid yet: whatever this lets through, the parser judges."""
    objects: list[set[str] | None] = []
    previous = b""
    for match in _TOKEN.finditer(raw):
        token = match.group()
        if token in (b"{", b"["):
            objects.append(set() if token == b"{" else None)
            if len(objects) > DEPTH_MAX:
                raise refuse(f"The body is nested deeper than {DEPTH_MAX} levels.")
        elif token in (b"}", b"]"):
            if objects:
                objects.pop()
        elif token == b":" and previous[:1] == b'"' and objects and (keys := objects[-1]) is not None:
            try:
                name = _decode(previous)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise refuse(f"The body is not valid JSON: {error}") from error
            if name in keys:
                raise refuse("This key stands twice in one object.", name)
            keys.add(name)
        previous = token


def _check_text(value: Any, field: str) -> None:
    """NUL means nothing in any documented text and ends a name early in system calls."""
    if isinstance(value, str):
        if "\0" in value:
            raise refuse("A text must not contain the NUL character.", field or "_schema")
    elif isinstance(value, dict):
        for name, inner in value.items():
            _check_text(name, name.replace("\0", ""))
            _check_text(inner, name)
    elif isinstance(value, list):
        for inner in value:
            _check_text(inner, field)


def field_of(error: msgspec.ValidationError) -> tuple[str, str]:
    """``(field, sentence)`` of a msgspec refusal: ``Expected `int`, got `str` - at `$.data.task_id```."""
    text = str(error)
    sentence, _, where = text.partition(" - at `$")
    path = where.rstrip("`").lstrip(".")
    if match := re.search(r"unknown field `([^`]*)`", sentence):
        return match.group(1), "This field is not known here."
    if match := re.search(r"missing required field `([^`]*)`", sentence):
        return match.group(1), "This field is required."
    name = re.sub(r"\[[^\]]*\]", "", path).rpartition(".")[2]
    return name or "_schema", sentence + "."
