"""Columns of a table to wire values: of one record by name, of a page as records that are JSON in one step.

A page is converted column by column: its references and times are few and come again, so a look into a dictionary per value is all
they cost. What the row of a list then is, is a struct with the declared fields; it is built and encoded in a tenth of the time of a ``dict``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from datetime import tzinfo
from typing import Any, Final

import msgspec

from eventlog.views import moments
from eventlog.views.names import NamesOf
from eventlog.views.predicates import shown_name_sql
from eventlog.views.schema import Column, Kind, ViewSchema

TIMES_MAX: Final = 16_384
"""Times whose text is remembered: lists are looked at again and again, and rendering is dear."""

Convert = Callable[[Any], Any]


class Selection:
    """Some columns of a table: the SQL that fetches them and the wire values of what it fetched. ``id`` comes first."""

    def __init__(
        self, name: str, schema: ViewSchema, columns: Sequence[Column], zone: tzinfo, names_of: NamesOf
    ) -> None:
        self._fields = ("id", *(one.name for one in columns))
        self._record = msgspec.defstruct(name, [(one, Any) for one in self._fields], frozen=True, gc=False)
        self.stored_sql = ", ".join(["t.id", *(f"t.{one.quoted}" for one in columns)])
        """References as ids: what ``records`` takes."""
        self._now, self._then = (
            ", ".join(
                ["t.id"]
                + [
                    shown_name_sql(schema, one, at) if one.kind is Kind.REFERENCE else f"t.{one.quoted}"
                    for one in columns
                ]
            )
            for at in (None, 0)
        )
        numbered = list(enumerate(columns, start=1))
        self._references = [(index, names_of(one)) for index, one in numbered if one.kind is Kind.REFERENCE]
        converts = [(index, _converter(one, zone)) for index, one in numbered]
        self._converts = [(index, convert) for index, convert in converts if convert is not None]

    def shown_sql(self, at: int | None) -> str:
        """References as names: what ``wire`` takes."""
        return self._now if at is None else self._then

    def wire(self, values: Sequence[Any]) -> dict[str, Any]:
        """Of one row."""
        row = list(values)
        for index, convert in self._converts:
            row[index] = convert(row[index])
        return dict(zip(self._fields, row, strict=True))

    def records(
        self, connection: sqlite3.Connection, rows: Sequence[Sequence[Any]], at: int | None, head: int
    ) -> list[msgspec.Struct]:
        """Of a page. ``head``: position of the read transaction."""
        if not rows:
            return []
        columns: list[Any] = list(zip(*rows, strict=True))
        for index, names in self._references:
            shown = names.shown(connection, columns[index], at, head)
            columns[index] = map(shown.__getitem__, columns[index])
        for index, convert in self._converts:
            columns[index] = map(convert, columns[index])
        return list(map(self._record, *columns))


class _Times(dict[int | None, str | None]):
    """Stored time -> text, in one zone; bounded. Threads may share it."""

    def __init__(self, zone: tzinfo) -> None:
        super().__init__()
        self._zone = zone

    def __missing__(self, stored: int | None) -> str | None:
        if len(self) >= TIMES_MAX:
            self.clear()
        text = self[stored] = None if stored is None else moments.render(stored, self._zone)
        return text


_TRUTH: Final[dict[int | None, bool | None]] = {None: None, 0: False, 1: True}
_YES_NO: Final[dict[int | None, str | None]] = {None: None, 0: "no", 1: "yes"}


def _converter(column: Column, zone: tzinfo) -> Convert | None:
    match column.kind:
        case Kind.BOOLEAN:
            return _TRUTH.__getitem__
        case Kind.YES_NO:
            return _YES_NO.__getitem__
        case Kind.TIME:
            return _Times(zone).__getitem__
        case Kind.LIST | Kind.JSON:
            return lambda stored: None if stored is None else msgspec.json.decode(stored)
        case _:
            return None
