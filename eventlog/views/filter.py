r"""The grammar of ``filter_data``: text to conditions and back. Pure.

::

    filter    = condition *( ("," / "&&") condition )      ; all must hold
    condition = field operator value
    field     = 1*( ALPHA / DIGIT / "_" )
    operator  = "=" / "!=" / "~" / "<" / ">" / "<=" / ">="
    value     = DQUOTE *( char / "\" DQUOTE / "\\" ) DQUOTE

Blanks may stand between the parts. Quotes are mandatory, for numbers too (reference 4.5), so a comma or ``&&`` in a
value needs no escape. The manual shows one condition and ``= ~ < >``; the rest is ours and additive. What a value means
depends on the column: that is ``predicates``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, cast, get_args

from eventlog.views.port import Condition, Operator
from rbcore.errors import InvalidRequest

PARAMETER: Final = "filter_data"

CONDITIONS_MAX: Final = 64
TEXT_LENGTH_MAX: Final = 65_536
"""Characters of a whole filter; more than any request line that gets here."""

OPERATORS: Final[frozenset[str]] = frozenset(get_args(Operator))

_BLANKS = re.compile(r"[ \t\r\n]*")
_FIELD = re.compile(r"[A-Za-z0-9_]+")
_OPERATOR = re.compile(r"!=|<=|>=|=|~|<|>")
_JOINT = re.compile(r",|&&")
_PLAIN = re.compile(r'[^"\\]+')


def parse(text: str) -> tuple[Condition, ...]:
    """Conditions in the order they stand; none for empty or blank text.

    Raises ``InvalidRequest`` with ``errors`` under the field's name where it is known, else under ``filter_data``. The
    sentence names the position of the offending character, counted from 1.
    """
    if len(text) > TEXT_LENGTH_MAX:
        raise _malformed(PARAMETER, f"is longer than {TEXT_LENGTH_MAX} characters")
    at = _skip_blanks(text, 0)
    if at == len(text):
        return ()
    found: list[Condition] = []
    while True:
        condition, at = _condition(text, at)
        found.append(condition)
        if len(found) > CONDITIONS_MAX:
            raise _malformed(PARAMETER, f"has more than {CONDITIONS_MAX} conditions")
        at = _skip_blanks(text, at)
        if at == len(text):
            return tuple(found)
        joint = _JOINT.match(text, at)
        if joint is None:
            raise _unexpected(condition.field, text, at, 'a "," or "&&" before the next condition')
        at = _skip_blanks(text, joint.end())


def render(conditions: Iterable[Condition]) -> str:
    """The text that ``parse`` reads back as the same conditions."""
    return ",".join(f"{one.field}{one.operator}{quoted(one.value)}" for one in conditions)


def quoted(value: str) -> str:
    """``value`` as it stands in a filter: in quotes, with quotes and backslashes escaped."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _condition(text: str, at: int) -> tuple[Condition, int]:
    name = _FIELD.match(text, at)
    if name is None:
        raise _unexpected(PARAMETER, text, at, "the name of a field")
    field = name.group()
    at = _skip_blanks(text, name.end())
    operator = _OPERATOR.match(text, at)
    if operator is None:
        raise _unexpected(field, text, at, "one of = != ~ < > <= >=")
    at = _skip_blanks(text, operator.end())
    value, at = _quoted_value(field, text, at)
    return Condition(field, cast(Operator, operator.group()), value), at


def _quoted_value(field: str, text: str, start: int) -> tuple[str, int]:
    if text[start : start + 1] != '"':
        raise _unexpected(field, text, start, "a value in double quotes")
    parts: list[str] = []
    at = start + 1
    while at < len(text):
        plain = _PLAIN.match(text, at)
        if plain is not None:
            parts.append(plain.group())
            at = plain.end()
            continue
        if text[at] == '"':
            return "".join(parts), at + 1
        escaped = text[at + 1 : at + 2]
        if escaped not in ('"', "\\"):
            raise _unexpected(field, text, at + 1, r"\" or \\ (only quotes and backslashes are escaped)")
        parts.append(escaped)
        at += 2
    raise _malformed(field, f"the value that begins at position {start + 1} of {PARAMETER} has no closing quote")


def _skip_blanks(text: str, at: int) -> int:
    blanks = _BLANKS.match(text, at)
    assert blanks is not None, "the pattern matches the empty text"
    return blanks.end()


def _unexpected(field: str, text: str, at: int, wanted: str) -> InvalidRequest:
    met = f"{text[at]!r} stands" if at < len(text) else "the text ends"
    return _malformed(field, f"at position {at + 1} of {PARAMETER} {met} where {wanted} is expected")


def _malformed(field: str, sentence: str) -> InvalidRequest:
    return InvalidRequest(
        f'{PARAMETER} cannot be read: {field}: {sentence}. Example: pool_name~"te",pool_type="File system".',
        errors={field: [sentence]},
    )
