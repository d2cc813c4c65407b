"""Conditions of a query as SQL over typed columns, with bound parameters only.

What a comparison means follows from the column's kind:

- numbers and times compare as such, ``~`` does not apply to them; truth values know ``=`` and ``!=``;
- texts compare by code point; ``~`` is a substring without regard to case, for every script;
- references compare by the name that stands on the wire;
- lists: ``=`` some element equals, ``~`` some element contains, ``!=`` no element equals;
- an empty value means "none": ``=`` finds rows without a value (null, empty text, empty list), ``!=`` those with one;
- ``!=`` is always the complement of ``=``; every other comparison is false for a row without a value.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Any, Final

from eventlog.views import moments
from eventlog.views.port import Condition, Operator
from eventlog.views.schema import Column, EntityTable, Kind, Table, ViewSchema, quoted
from rbcore.errors import InvalidRequest

INTEGER_MIN: Final = -(2**63)
INTEGER_MAX: Final = 2**63 - 1
_DIGITS = re.compile(r"[+-]?[0-9]{1,19}")
_TRUTH = {"true": 1, "yes": 1, "false": 0, "no": 0}
ID: Final = Column("id", Kind.INTEGER, None, "id", indexed=True)

INLINE_IDS_MAX: Final = 1000
"""Targets of a reference condition that are looked up first and handed in as ids; more of them become a subquery."""


@dataclass(slots=True)
class Where:
    """Conjunction over the row alias ``t``.

    ``local``: it depends on the row version alone, so that a total can be brought from one position to another by looking at
    the versions that began or ended between them. ``selective``: some clause is one that an index can answer, not only a look
    at every row. ``of_one_value``: some clause names one value, whose rows stand in an index in the order of ids.
    """

    clauses: list[str] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)
    local: bool = True
    selective: bool = False
    of_one_value: bool = False

    def bind(self, value: Any) -> str:
        """Bind ``value`` and return its mark."""
        name = f"p{len(self.parameters)}"
        self.parameters[name] = value
        return f":{name}"

    def sql(self) -> str:
        return "".join(f" AND {clause}" for clause in self.clauses)


Lookup = Callable[[str, dict[str, Any]], list[int]]
"""Runs a query for ids in the transaction of the page."""


class PredicateBuilder:
    """Builds a ``Where`` for one query: conditions, then access scope."""

    def __init__(self, schema: ViewSchema, table: Table, at: int | None, zone: tzinfo, lookup: Lookup) -> None:
        self._schema, self._table, self._at, self._zone, self._lookup = schema, table, at, zone, lookup
        self.where = Where()

    def add(self, condition: Condition) -> None:
        """Raises ``InvalidRequest`` naming the field."""
        column = column_of(self._table, condition.field)
        if len(condition.value.encode("utf-8", "surrogatepass")) > _VALUE_BYTES_MAX:
            raise refused(column.name, f"the value is longer than {_VALUE_BYTES_MAX} bytes")
        if not condition.value.isprintable():
            _refuse_surrogates(condition)
        self.where.clauses.append(f"({self._clause(column, condition)})")
        by_index = condition.operator != "~" or column.kind is Kind.REFERENCE
        if by_index and condition.operator != "!=" and column.sortable and condition.value:
            self.where.selective = True
            if condition.operator == "=" and (column.in_list or column.indexed) and column.kind is not Kind.REFERENCE:
                self.where.of_one_value = True

    def add_scope(self, visible: Sequence[tuple[str, Sequence[int]]]) -> None:
        """Only rows in which some (id, reference or other field that holds ids) is one of its allowed ids. A field that does not
        exist is a bug of the caller."""
        clauses = []
        for name, allowed in visible or [("id", ())]:  # a constant would keep SQLite from using the index it is told to
            column = ID if name == "id" else self._table.columns[name]
            assert column.kind in (Kind.INTEGER, Kind.REFERENCE), "scopes are sets of ids"
            clauses.append(f"t.{column.quoted} IN {self._ids(allowed)}")
        self.where.clauses.append(f"({' OR '.join(clauses)})")
        self.where.selective = True

    def _clause(self, column: Column, condition: Condition) -> str:
        operator, value = condition.operator, condition.value
        match column.kind:
            case Kind.INTEGER | Kind.TIME | Kind.BOOLEAN | Kind.YES_NO:
                return self._scalar(column, operator, value)
            case Kind.TEXT:
                return text_clause(f"t.{column.quoted}", operator, value, self.where.bind)
            case Kind.REFERENCE:
                return self._reference(column, operator, value)
            case Kind.LIST:
                return self._list(column, operator, value)
            case Kind.JSON:
                raise refused(column.name, "cannot be filtered by: it holds free-form parameters")

    def _scalar(self, column: Column, operator: Operator, value: str) -> str:
        expression = f"t.{column.quoted}"
        truth = column.kind in (Kind.BOOLEAN, Kind.YES_NO)
        allowed = ("=", "!=") if truth else ("=", "!=", "<", ">", "<=", ">=")
        if operator not in allowed:
            raise refused(column.name, f"cannot be compared by {operator}; {' '.join(allowed)} can be used")
        if value == "" and operator in ("=", "!="):
            return f"{expression} IS {'NOT ' if operator == '!=' else ''}NULL"
        mark = self.where.bind(converted(column, value, self._zone))
        if operator == "!=":
            return f"{expression} IS NOT {mark}"
        return f"{expression} {operator} {mark}"

    def _list(self, column: Column, operator: Operator, value: str) -> str:
        expression = f"t.{column.quoted}"
        if operator not in ("=", "!=", "~"):
            raise refused(column.name, f"is a list and cannot be compared by {operator}; = != ~ can be used")
        if value == "" and operator != "~":
            some = f"ifnull(json_array_length({expression}), 0) > 0"
            return some if operator == "!=" else f"NOT ({some})"
        inner = text_clause("e.value", "=" if operator == "!=" else operator, value, self.where.bind)
        some = f"EXISTS (SELECT 1 FROM json_each(ifnull({expression}, '[]')) AS e WHERE {inner})"
        return f"NOT {some}" if operator == "!=" else some

    def _reference(self, column: Column, operator: Operator, value: str) -> str:
        """By the target's name at the same position. Matching targets are few as a rule: they are looked up first, so that the
        condition becomes one on ids, which an index answers and which depends on the row version alone."""
        negated = operator == "!="
        parameters: dict[str, Any] = {}
        valid = valid_sql("r", self._at)
        selects = []
        # Without or with a name: a target that is there, whatever it is called.
        is_about_any = value == "" and operator in ("=", "!=")
        if is_about_any:
            negated = operator == "="
        for target in self._schema.targets_of(column):
            inner = "1"
            if not is_about_any:
                inner, parameters = self._target_clause(target.by, "=" if negated else operator, value)
            selects.append(f"SELECT {target.sign}r.id AS id FROM {target.table.quoted} AS r WHERE {valid} AND {inner}")
        matching = " UNION ALL ".join(selects)
        ids = self._lookup(f"{matching} LIMIT {INLINE_IDS_MAX + 1}", {**parameters, "at": self._at})
        if len(ids) <= INLINE_IDS_MAX:
            chosen = self._ids(sorted(ids))
        else:
            self.where.local = False
            for name, bound in parameters.items():
                matching = re.sub(rf":{name}\b", self.where.bind(bound), matching)
            chosen = f"({matching})"
        found = f"t.{column.quoted} IN {chosen}"
        return f"ifnull(NOT ({found}), 1)" if negated else found

    def _target_clause(self, by: str, operator: Operator, value: str) -> tuple[str, dict[str, Any]]:
        parameters: dict[str, Any] = {}

        def bind(bound: Any) -> str:
            name = f"r{len(parameters)}"
            parameters[name] = bound
            return f":{name}"

        return f"({text_clause(f'r.{quoted(by)}', operator, value, bind)})", parameters

    def _ids(self, ids: Sequence[int]) -> str:
        """A parenthesised set of ids; a single one without the detour over JSON, so that the planner sees an equality."""
        if len(ids) == 1:
            return f"({self.where.bind(ids[0])})"
        return f"(SELECT value FROM json_each({self.where.bind(str(list(ids)))}))"


_VALUE_BYTES_MAX: Final = 16_384


def column_of(table: Table, name: str) -> Column:
    """Raises ``InvalidRequest`` naming what is not there."""
    column = ID if name == "id" else table.columns.get(name)
    if column is None:
        known = ", ".join(["id", *table.columns])
        raise refused(name, f"is not a field of {table.name}; fields are {known}")
    return column


def refused(field: str, sentence: str) -> InvalidRequest:
    return InvalidRequest(f"The list cannot be answered: {field} {sentence}.", errors={field: [f"{field} {sentence}"]})


def converted(column: Column, value: str, zone: tzinfo) -> int:
    """The stored form of a number, time or truth value. Raises ``InvalidRequest`` naming the field and the value."""
    text = value.strip()
    if column.kind is Kind.TIME:
        try:
            return moments.parse(text, zone)
        except ValueError:
            wanted = "an ISO 8601 time such as 2024-08-19T19:20:28.614838+03:00"
    elif column.kind is Kind.INTEGER:
        if _DIGITS.fullmatch(text) and INTEGER_MIN <= int(text) <= INTEGER_MAX:
            return int(text)
        wanted = "a whole number of at most 64 bits"
    else:
        if text.lower() in _TRUTH:
            return _TRUTH[text.lower()]
        wanted = "true, false, yes or no"
    raise refused(column.name, f"cannot be compared with {_shortened(value)!r}; {wanted} is expected")


def text_clause(expression: str, operator: Operator, value: str, bind: Callable[[Any], str]) -> str:
    if operator == "~":
        return contains_clause(expression, value, bind)
    if value == "" and operator == "=":
        return f"ifnull({expression}, '') = ''"
    if value == "" and operator == "!=":
        return f"{expression} != ''"
    if operator == "!=":
        return f"{expression} IS NOT {bind(value)}"
    return f"{expression} {operator} {bind(value)}"


def contains_clause(expression: str, value: str, bind: Callable[[Any], str]) -> str:
    """Case-folded substring.

    SQLite folds ASCII only, and a call back into Python costs ten times a native comparison (bench/views.py), so that one is
    made only for rows that hold other characters: those whose length in bytes and in characters differ.
    """
    folded = value.casefold()
    if folded == "":
        return f"{expression} IS NOT NULL"
    if folded.isascii() and "\0" not in folded:
        escaped = folded.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        ascii_rows = f"{expression} LIKE {bind(f'%{escaped}%')} ESCAPE '\\'"
    else:
        ascii_rows = "0"
    if "\0" in folded:  # length() ends at it, so only the function can tell
        return f"contains_folded({expression}, {bind(folded)})"
    return (
        f"CASE WHEN length({expression}) = length(CAST({expression} AS BLOB)) THEN {ascii_rows}"
        f" ELSE contains_folded({expression}, {bind(folded)}) END"
    )


def register_functions(connection: sqlite3.Connection) -> None:
    """Make ``contains_folded(text, folded needle)`` known to a connection."""
    connection.create_function("contains_folded", 2, _contains_folded, deterministic=True)


def valid_sql(alias: str, at: int | None) -> str:
    """Which row versions hold: the current ones, or those at position ``:at``."""
    if at is None:
        return f"{alias}.to_position IS NULL"
    return f"{alias}.from_position <= :at AND ({alias}.to_position IS NULL OR {alias}.to_position > :at)"


def holds_sql(table: Table, at: int | None) -> str:
    """``valid_sql`` of row ``t`` of any table: lines hold for ever."""
    if isinstance(table, EntityTable):
        return valid_sql("t", at)
    return "1" if at is None else "t.position <= :at"


def shown_name_sql(schema: ViewSchema, column: Column, at: int | None) -> str:
    """Expression for the name that the reference ``column`` of row ``t`` shows; null when there is none, or its target is gone."""
    names = [
        f"(SELECT r.{quoted(target.by)} FROM {target.table.quoted} AS r"
        f" WHERE r.id = {target.sign}t.{column.quoted} AND {valid_sql('r', at)})"
        for target in schema.targets_of(column)
    ]
    return names[0] if len(names) == 1 else f"coalesce({', '.join(names)})"


def _contains_folded(text: str | None, folded: str) -> int:
    return int(text is not None and folded in text.casefold())


def _refuse_surrogates(condition: Condition) -> None:
    try:
        condition.value.encode()
    except UnicodeEncodeError:
        raise refused(condition.field, "is compared with characters that cannot be encoded") from None


def _shortened(value: str) -> str:
    return value if len(value) <= 80 else f"{value[:80]}..."
