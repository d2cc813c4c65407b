"""Queries on one table: which SQL answers a page or a record, and how its rows become wire values.

Rows are walked along an index in the order asked for, or their ids are put in order first and the columns of the page's rows read then (``search``); names
of references and wire values come after that, for those few rows alone (``selection``). The total comes from ``totals``, and knowing it
decides how the page is looked for (``_hint``).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import tzinfo
from typing import Any, Final

from eventlog.views import past
from eventlog.views.by_name import InGroups, can_walk, rows_without
from eventlog.views.names import NamesOf
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
from eventlog.views.search import Search
from eventlog.views.selection import Selection
from eventlog.views.totals import Totals
from rbcore.errors import InvalidRequest

LIMIT_MAX: Final = 1000
OFFSET_MAX: Final = 2**62


class TableReader:
    """Answers queries on one table. Holds no connection: every method takes one, inside a read transaction."""

    def __init__(
        self,
        schema: ViewSchema,
        table: Table,
        totals: Totals,
        names_of: NamesOf,
        zone: tzinfo,
        time_at: Callable[[int], int] | None,
    ) -> None:
        """``time_at``: nanoseconds of the event at a position of the log, when somebody can say."""
        self._schema, self._table, self._totals, self._zone, self._time_at = schema, table, totals, zone, time_at
        columns = list(table.columns.values())
        self._detail = Selection(table.name, schema, columns, zone, names_of)
        self._list = Selection(table.name, schema, [one for one in columns if one.in_list], zone, names_of)
        self._groups = InGroups(names_of)
        self._last_ids = past.LastIds(table)

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
            f"SELECT v.position, {self._detail.shown_sql(at)} FROM {POSITION_TABLE} AS v LEFT JOIN {table.quoted} AS t"
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
            return Page(records=[], total=total, position=position)
        search = Search(
            connection=connection,
            table=self._table,
            columns=self._list.stored_sql,
            query=query,
            key=key,
            where=where,
            moment=past.parameters(query.at, head),
            last_ids=self._last_ids,
            head=head,
            total=total,
            skip=skip,
        )
        rows = self._in_groups(search)
        if rows is None:
            rows = self._walked(search)
        records = self._list.records(connection, rows, query.at, head)
        return Page(records=records, total=total, position=position)

    def _in_groups(self, search: Search) -> list[Any] | None:
        """Rows of the page where they are best found group by group (``by_name``)."""
        key, query = search.key, search.query
        if not isinstance(self._table, EntityTable) or not can_walk(key, search.total):
            return None
        if key.kind is Kind.REFERENCE:
            return self._groups.by_name(search)
        if query.at is not None and query.descending and not key.event_time:
            return self._groups.by_value(search)
        return None

    def _walked(self, search: Search) -> list[Any]:
        """Rows of the page along an index, or sorted. In the past, and from the end, the walk begins where the values of that time end."""
        begin = self._begin(search)
        if begin is None:
            return self._page_rows(search)
        rows = self._page_rows(search, begin)
        missing = search.wanted - len(rows)
        if missing and (rows or not search.skip):  # what comes last has no time at all
            rows += rows_without(search, missing)
        elif missing:
            return self._page_rows(search)
        return rows

    def _begin(self, search: Search) -> int | None:
        """Nothing at that position had a larger value; None: that is not known."""
        key, query = search.key, search.query
        if query.at is None or not query.descending or not isinstance(self._table, EntityTable):
            return None
        if key is ID:
            return search.last_ids.at(search.connection, query.at)
        if key.event_time and self._time_at is not None and self._index_in_order(key):
            return self._time_at(query.at) // 1000
        return None

    def _page_rows(self, search: Search, begin: int | None = None) -> list[Any]:
        key, query = search.key, search.query
        if key.kind is Kind.REFERENCE:
            hint, sort = "", shown_name_sql(self._schema, key, query.at)
        else:
            hint, plus = self._hint(search)
            sort = f"{plus}t.{key.quoted}"
        bound = {**search.where.parameters, **search.moment, "limit": query.limit, "skip": search.skip, "begin": begin}
        until = "" if begin is None else f" AND t.{key.quoted} <= :begin"
        matching = [f"{one}{until}{search.where.sql()}" for one in past.sources(self._table, query.at, hint)]
        order = [sort] if key is ID else [sort, "t.id"]
        return search.fetch(matching, order, bound, in_order=bool(hint))

    def _hint(self, search: Search) -> tuple[str, str]:
        """(index to use, prefix of the sort column).

        Either the rows are walked in the order asked for, passing over those that do not match, until the page is full; or those
        that match are found by an index of theirs, if there is one, and sorted. Walking reads about (skip + limit) * rows / total
        rows, sorting reads ``total``. SQLite keeps no statistics of that kind, but the total is known here.
        """
        key, total = search.key, search.total
        walked = self._index_in_order(key)
        if not walked:
            return "", ""
        if key is ID and search.where.of_one_value:
            return "", ""  # an index of one value has its rows in the order of ids already
        if search.where.selective:
            (rows,) = search.connection.execute(f"SELECT max(id) FROM {self._table.quoted}").fetchone()
            if (search.skip + search.query.limit) * (rows or 0) > total * total:
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
