"""Queries on one table: which SQL answers a page or a record, and how its rows become wire values.

A page is found in two steps within one statement: the row ids in order, then the columns and the names of references of
those few rows alone. The total comes from ``totals``, and knowing it decides how the page is looked for (``_hint``).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from datetime import tzinfo
from functools import lru_cache, partial
from typing import Any, Final

import msgspec

from eventlog.views import moments, past
from eventlog.views.by_name import can_walk, rows_by_name, rows_by_value, rows_without
from eventlog.views.port import Page, Query, Visible
from eventlog.views.predicates import ID, PredicateBuilder, Where, column_of, holds_sql, refused, shown_name_sql
from eventlog.views.schema import (
    POSITION_TABLE,
    Column,
    EntityTable,
    Kind,
    Table,
    ViewSchema,
    current_index,
    quoted,
)
from eventlog.views.totals import Totals
from rbcore.errors import InvalidRequest

LIMIT_MAX: Final = 1000
OFFSET_MAX: Final = 2**62

TIMES_CACHED: Final = 16_384
"""Times of a column whose text is remembered: lists are looked at again and again, and rendering is their largest cost."""

Convert = Callable[[Any], Any]


class TableReader:
    """Answers queries on one table. Holds no connection: every method takes one, inside a read transaction."""

    def __init__(
        self, schema: ViewSchema, table: Table, totals: Totals, zone: tzinfo, time_at: Callable[[int], int] | None
    ) -> None:
        """``time_at``: nanoseconds of the event at a position of the log, when somebody can say."""
        self._schema, self._table, self._totals, self._zone, self._time_at = schema, table, totals, zone, time_at
        columns = list(table.columns.values())
        self._detail = _Selection(schema, columns, zone)
        self._list = _Selection(schema, [one for one in columns if one.in_list], zone)

    def row(
        self, connection: sqlite3.Connection, *, id: int, at: int | None, visible: Visible = None
    ) -> tuple[dict[str, Any] | None, int]:
        """The record and the position of the answer: one statement, a primary-key read."""
        table, where = self._table, Where()
        if visible is not None:
            builder = self._builder(connection, at)
            builder.add_scope(visible)
            where = builder.where
        found = connection.execute(
            f"SELECT v.position, {self._detail.sql(at)} FROM {POSITION_TABLE} AS v LEFT JOIN {table.quoted} AS t"
            f" ON t.id = :id AND {holds_sql(table, at)}{where.sql()}",
            {**where.parameters, "id": id, "at": at},
        ).fetchone()
        position = self._position(found[0], at)
        return (None if found[1] is None else self._detail.wire(found[1:])), position

    def page(self, connection: sqlite3.Connection, *, query: Query) -> Page:
        """Raises ``InvalidRequest``."""
        (head,) = connection.execute(f"SELECT position FROM {POSITION_TABLE}").fetchone()
        position = self._position(head, query.at)
        key = self._sort_key(query)
        skip = _checked_skip(query)
        where = self._where(connection, query)

        def scalar(sql: str, parameters: dict[str, Any]) -> int:
            number: int = connection.execute(sql, parameters).fetchone()[0]
            return number

        total = self._totals.total(scalar, self._table, where, query.at, head)
        if skip >= total:
            return Page(rows=[], total=total, position=position)
        moment = past.parameters(query.at, head)
        chosen = self._chosen(connection, query, key, where, moment, total, skip)
        if chosen is not None:
            rows = connection.execute(self._chosen_sql(query.at), {**moment, "chosen": str(chosen)}).fetchall()
        else:
            rows = self._walked(connection, query, key, where, moment, total, skip)
        return Page(rows=[self._list.wire(row) for row in rows], total=total, position=position)

    def _chosen(
        self,
        connection: sqlite3.Connection,
        query: Query,
        key: Column,
        where: Where,
        moment: Mapping[str, Any],
        total: int,
        skip: int,
    ) -> list[int] | None:
        """Row ids of the page where they are best found group by group (``by_name``)."""
        table = self._table
        if not isinstance(table, EntityTable) or not can_walk(key, total):
            return None
        if key.kind is Kind.REFERENCE:
            return rows_by_name(connection, self._schema, table, key, query, where, moment, skip)
        if query.at is not None and query.descending and not key.event_time:
            return rows_by_value(connection, table, key, query, where, moment, skip)
        return None

    def _walked(
        self,
        connection: sqlite3.Connection,
        query: Query,
        key: Column,
        where: Where,
        moment: Mapping[str, Any],
        total: int,
        skip: int,
    ) -> list[Any]:
        """Rows of the page along an index, or sorted. In the past, and from the end, the walk begins where the values of that time end."""
        bound = {**where.parameters, **moment, "limit": query.limit, "skip": skip}
        table, begin = self._table, self._begin(connection, query, key)
        if begin is None or not isinstance(table, EntityTable):
            return connection.execute(self._page_sql(connection, query, key, where, total, skip), bound).fetchall()
        sql = self._page_sql(connection, query, key, where, total, skip, f" AND t.{key.quoted} <= :begin")
        rows = connection.execute(sql, bound | {"begin": begin}).fetchall()
        missing = min(query.limit, total - skip) - len(rows)
        if missing and (rows or not skip):  # what comes last has no time at all
            rest = msgspec.structs.replace(query, limit=missing)
            chosen = rows_without(connection, table, key, rest, where, moment)
            rows += connection.execute(self._chosen_sql(query.at), {**moment, "chosen": str(chosen)}).fetchall()
        elif missing:
            return connection.execute(self._page_sql(connection, query, key, where, total, skip), bound).fetchall()
        return rows

    def _begin(self, connection: sqlite3.Connection, query: Query, key: Column) -> int | None:
        """Nothing at that position had a larger value; None: that is not known."""
        if query.at is None or not query.descending or not isinstance(self._table, EntityTable):
            return None
        if key is ID:
            return past.last_id(connection, self._table, query.at)
        if key.event_time and self._time_at is not None and self._index_in_order(key):
            return self._time_at(query.at) // 1000
        return None

    def _chosen_sql(self, at: int | None) -> str:
        return (
            f"SELECT {self._list.sql(at)} FROM json_each(:chosen) AS k CROSS JOIN {self._table.quoted} AS t"
            " ON t.rowid = k.value ORDER BY k.key"
        )

    def _page_sql(
        self,
        connection: sqlite3.Connection,
        query: Query,
        key: Column,
        where: Where,
        total: int,
        skip: int,
        begin: str = "",
    ) -> str:
        table, at = self._table, query.at
        direction = "DESC" if query.descending else "ASC"
        if key.kind is Kind.REFERENCE:
            sort, hint = shown_name_sql(self._schema, key, at), ""
        else:
            hint, plus = self._hint(connection, query, key, where, total, skip)
            sort = f"{plus}t.{key.quoted}"
        matching = " UNION ALL ".join(
            f"SELECT t.rowid AS chosen, {sort} AS sorted, t.id AS number {source}{begin}{where.sql()}"
            for source in past.sources(table, at, hint)
        )
        order = f"ORDER BY sorted {direction}, number {direction}"
        return (
            f"SELECT {self._list.sql(at)} FROM ({matching} {order} LIMIT :limit OFFSET :skip) AS k"
            f" CROSS JOIN {table.quoted} AS t ON t.rowid = k.chosen"
            f" ORDER BY k.sorted {direction}, k.number {direction}"
        )

    def _hint(
        self, connection: sqlite3.Connection, query: Query, key: Column, where: Where, total: int, skip: int
    ) -> tuple[str, str]:
        """(index to use, prefix of the sort column).

        Either the rows are walked in the order asked for, passing over those that do not match, until the page is full; or those
        that match are found by an index of theirs, if there is one, and sorted. Walking reads about (skip + limit) * rows / total
        rows, sorting reads ``total``. SQLite keeps no statistics of that kind, but the total is known here.
        """
        walked = self._index_in_order(key)
        if not walked:
            return "", ""
        if where.selective:
            (rows,) = connection.execute(f"SELECT max(id) FROM {self._table.quoted}").fetchone()
            if (skip + query.limit) * (rows or 0) > total * total:
                # An index of one value has its rows in the order of ids already: then nothing needs to be sorted.
                return "", "" if key is ID else "+"
        return f" INDEXED BY {quoted(walked)}", ""

    def _index_in_order(self, key: Column) -> str:
        """The index whose order is that of ``key``; empty when there is none."""
        if isinstance(self._table, EntityTable):
            return current_index(self._table.name, key.name) if key is ID or key.in_list or key.indexed else ""
        return current_index(self._table.name, key.name) if key is not ID and key.indexed else ""

    def _sort_key(self, query: Query) -> Column:
        key = column_of(self._table, query.sort_by)
        if not key.sortable:
            raise refused(key.name, "cannot be sorted by: it holds a list or free-form parameters")
        return key

    def _where(self, connection: sqlite3.Connection, query: Query) -> Where:
        builder = self._builder(connection, query.at)
        for condition in query.conditions:
            builder.add(condition)
        if query.visible is not None:
            builder.add_scope(query.visible)
        return builder.where

    def _builder(self, connection: sqlite3.Connection, at: int | None) -> PredicateBuilder:
        def lookup(sql: str, parameters: dict[str, Any]) -> list[int]:
            return [row[0] for row in connection.execute(sql, parameters)]

        return PredicateBuilder(self._schema, self._table, at, self._zone, lookup)

    @staticmethod
    def _position(head: int, at: int | None) -> int:
        if at is None:
            return head
        if not 0 <= at <= head:
            sentence = f"positions go from 0 to {head}, where the views stand"
            raise InvalidRequest(f"at={at} is no position to look at: {sentence}.", errors={"at": [sentence]})
        return at


class _Selection:
    """Some columns of a table: the SQL that fetches them and the wire values of what it fetched. ``id`` comes first."""

    def __init__(self, schema: ViewSchema, columns: Sequence[Column], zone: tzinfo) -> None:
        self._names = ("id", *(one.name for one in columns))
        self._now = self._expressions(schema, columns, None)
        self._then = self._expressions(schema, columns, 0)
        converts = {index: _converter(one, zone) for index, one in enumerate(columns, start=1)}
        self._converts = [(index, convert) for index, convert in converts.items() if convert is not None]

    @staticmethod
    def _expressions(schema: ViewSchema, columns: Sequence[Column], at: int | None) -> str:
        shown = [
            shown_name_sql(schema, one, at) if one.kind is Kind.REFERENCE else f"t.{one.quoted}" for one in columns
        ]
        return ", ".join(["t.id", *shown])

    def sql(self, at: int | None) -> str:
        return self._now if at is None else self._then

    def wire(self, values: Sequence[Any]) -> dict[str, Any]:
        row = list(values)
        for index, convert in self._converts:
            if row[index] is not None:
                row[index] = convert(row[index])
        return dict(zip(self._names, row, strict=True))


def _converter(column: Column, zone: tzinfo) -> Convert | None:
    match column.kind:
        case Kind.BOOLEAN:
            return bool
        case Kind.YES_NO:
            return lambda stored: "yes" if stored else "no"
        case Kind.TIME:
            return lru_cache(TIMES_CACHED)(partial(moments.render, zone=zone))
        case Kind.LIST | Kind.JSON:
            return msgspec.json.decode
        case _:
            return None


def _checked_skip(query: Query) -> int:
    errors = {}
    if query.page < 1 or (query.page - 1) * LIMIT_MAX > OFFSET_MAX:
        errors["page"] = ["pages are counted from 1"]
    if not 1 <= query.limit <= LIMIT_MAX:
        errors["limit"] = [f"1 to {LIMIT_MAX} rows can be asked for"]
    if errors:
        sentences = "; ".join(f"{name}: {sentence}" for name, (sentence,) in errors.items())
        raise InvalidRequest(f"The list cannot be answered: {sentences}.", errors=errors)
    return (query.page - 1) * query.limit
