"""Rows in an order that no index walk gives cheaply: group by group.

The name that a reference shows stands in another table, so no index has its order. But rows refer to few targets as a rule: sort the targets by
name, then take the rows target by target from the index of the reference until the page is full. That costs what the
page and the number of targets cost, not what the list does.

In the past, and from the end: a column of few values (a status) has nearly all rows under one of them, and in the order of ids those come first that did not
exist then. Value by value the walk begins at the last id of that time (``past.last_id``).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any, Final

from eventlog.views import past
from eventlog.views.port import Query
from eventlog.views.predicates import Where, shown_name_sql
from eventlog.views.schema import Column, EntityTable, ViewSchema, current_index, quoted

SORTED_ROWS_MAX: Final = 200
"""Up to so many matching rows are simply sorted."""
VALUES_MAX: Final = 100
"""Columns of more values than that are walked in their own order."""

Group = list[Any]
"""Stored values that sort alike; None among them: the rows without one."""


def can_walk(key: Column, total: int) -> bool:
    """Is there an index to walk along, and is it worth it?"""
    return (key.in_list or key.indexed) and total > SORTED_ROWS_MAX


def rows_by_name(
    connection: sqlite3.Connection,
    schema: ViewSchema,
    table: EntityTable,
    key: Column,
    query: Query,
    where: Where,
    moment: Mapping[str, Any],
    skip: int,
) -> list[int]:
    """Row ids of the page: by name, rows without one first; ties go by id. ``moment`` is what ``past.sources`` refers to."""
    groups = _groups_by_name(connection, schema, table, key, query, moment)
    return _rows(connection, table, key, query, where, moment, skip, groups)


def rows_by_value(
    connection: sqlite3.Connection,
    table: EntityTable,
    key: Column,
    query: Query,
    where: Where,
    moment: Mapping[str, Any],
    skip: int,
) -> list[int] | None:
    """The same in the order of a column's own values. None: it has too many of them, or no index."""
    if not (key.in_list or key.indexed):
        return None
    values = _values(connection, table, key, query, moment, VALUES_MAX + 1)
    if len(values) > VALUES_MAX:
        return None
    ordered: list[Any] = [None, *sorted(values)]
    groups = [[one] for one in (reversed(ordered) if query.descending else ordered)]
    return _rows(connection, table, key, query, where, moment, skip, groups)


def rows_without(
    connection: sqlite3.Connection,
    table: EntityTable,
    key: Column,
    query: Query,
    where: Where,
    moment: Mapping[str, Any],
) -> list[int]:
    """The first rows that have no value there."""
    return _rows(connection, table, key, query, where, moment, 0, [[None]])


def _rows(
    connection: sqlite3.Connection,
    table: EntityTable,
    key: Column,
    query: Query,
    where: Where,
    moment: Mapping[str, Any],
    skip: int,
    groups: Iterable[Group],
) -> list[int]:
    direction = "DESC" if query.descending else "ASC"
    # Otherwise SQLite may prefer an index of the filter, and look through all rows that pass it for the few of a group.
    hint = f" INDEXED BY {quoted(current_index(table.name, key.name))}"
    chosen: list[int] = []
    bound = {**where.parameters, **moment}
    born = ""
    if query.at is not None and query.descending:
        born, bound["last"] = " AND t.id <= :last", past.last_id(connection, table, query.at)
    for group in groups:
        conditions, number, values = _members(key, group)
        bound |= values
        sources = past.sources(table, query.at, hint)
        matching = [f"{source}{born} AND {one}{where.sql()}" for source in sources for one in conditions]
        if skip:
            counts = " + ".join(f"(SELECT count(*) {one})" for one in matching)
            (count,) = connection.execute(f"SELECT {counts}", bound).fetchone()
            if count <= skip:
                skip -= count
                continue
        union = " UNION ALL ".join(f"SELECT t.rowid, {number} AS number {one}" for one in matching)
        rows = connection.execute(
            f"{union} ORDER BY number {direction} LIMIT :limit OFFSET :skip",
            {**bound, "limit": query.limit - len(chosen), "skip": skip},
        )
        chosen += [row[0] for row in rows]
        skip = 0
        if len(chosen) == query.limit:
            break
    return chosen


def _members(key: Column, group: Group) -> tuple[list[str], str, dict[str, Any]]:
    """(conditions that the rows of a group meet one of, their order, bound values). Only the rows of one value stand in the index in the order of ids; for
    several the order must not tempt SQLite to walk all rows by id instead (that is what the ``+`` says)."""
    values = {f"v{at}": one for at, one in enumerate(one for one in group if one is not None)}
    conditions = [f"t.{key.quoted} IS NULL"] if None in group else []
    if len(values) == 1:
        conditions.append(f"t.{key.quoted} = :v0")
    elif values:
        conditions.append(f"t.{key.quoted} IN ({', '.join(f':{name}' for name in values)})")
    return conditions, "t.id" if len(group) == 1 else "+t.id", values


def _groups_by_name(
    connection: sqlite3.Connection,
    schema: ViewSchema,
    table: EntityTable,
    key: Column,
    query: Query,
    moment: Mapping[str, Any],
) -> Iterator[Group]:
    """Ids of targets that show the same name, in the order of names; None and targets that are gone show none and are one group."""
    ids = sorted(_values(connection, table, key, query, moment, -1))
    named: list[tuple[int | None, Any]] = connection.execute(
        f"SELECT t.{key.quoted}, {shown_name_sql(schema, key, query.at)}"
        f" FROM (SELECT value AS {key.quoted} FROM json_each(:ids)) AS t",
        {**moment, "ids": str(ids)},
    ).fetchall()
    named.append((None, None))
    named.sort(key=lambda one: (one[1] is not None, one[1] or ""), reverse=query.descending)
    for _, group in groupby(named, key=lambda one: one[1]):
        yield [target for target, _ in group]


def _values(
    connection: sqlite3.Connection,
    table: EntityTable,
    key: Column,
    query: Query,
    moment: Mapping[str, Any],
    at_most: int,
) -> set[Any]:
    """Stored values of a column, now and at the moment, without null. ``at_most`` of each source; -1: all."""
    index = quoted(current_index(table.name, key.name))
    smallest = f"SELECT min({key.quoted}) FROM {table.quoted} INDEXED BY {index} WHERE to_position IS NULL"
    distinct = [
        f"WITH RECURSIVE found(value) AS (SELECT ({smallest}) UNION ALL SELECT ({smallest} AND {key.quoted} > found.value)"
        " FROM found WHERE found.value IS NOT NULL) SELECT value FROM found WHERE value IS NOT NULL"
    ]
    distinct += [
        f"SELECT DISTINCT t.{key.quoted} {source} AND t.{key.quoted} IS NOT NULL"
        for source in past.sources(table, query.at)[1:]
    ]
    bound = {**moment, "at_most": at_most}
    return {row[0] for sql in distinct for row in connection.execute(f"{sql} LIMIT :at_most", bound)}
