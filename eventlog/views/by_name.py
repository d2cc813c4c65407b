"""Rows in the order of the names their references show.

The name stands in another table, so no index has that order. But rows refer to few targets as a rule: sort the targets by
name, then take the rows target by target from the index of the reference until the page is full. That costs what the
page and the number of targets cost, not what the list does.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any, Final

from eventlog.views import past
from eventlog.views.port import Query
from eventlog.views.predicates import Where, shown_name_sql
from eventlog.views.schema import Column, EntityTable, ViewSchema, current_index, quoted

SORTED_ROWS_MAX: Final = 200
"""Up to so many matching rows are simply sorted."""


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
    direction = "DESC" if query.descending else "ASC"
    # Otherwise SQLite may prefer an index of the filter, and look through all rows that pass it for the few of a group.
    hint = f" INDEXED BY {quoted(current_index(table.name, key.name))}"
    chosen: list[int] = []
    for targets in _groups(connection, schema, table, key, query, moment):
        conditions, number = _members(key, targets)
        sources = past.sources(table, query.at, hint)
        matching = [f"{source} AND {one}{where.sql()}" for source in sources for one in conditions]
        bound = {**where.parameters, **moment}
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


def _members(key: Column, targets: list[int | None]) -> tuple[list[str], str]:
    """(conditions that the rows of a group meet one of, their order). Only the rows of one target stand in the index in the order of ids; for
    several the order must not tempt SQLite to walk all rows by id instead (that is what the ``+`` says)."""
    named = [one for one in targets if one is not None]
    conditions = [f"t.{key.quoted} IS NULL"] if None in targets else []
    if len(named) == 1:
        conditions.append(f"t.{key.quoted} = {named[0]}")
    elif named:
        conditions.append(f"t.{key.quoted} IN ({', '.join(map(str, named))})")
    return conditions, "t.id" if len(targets) == 1 else "+t.id"


def _groups(
    connection: sqlite3.Connection,
    schema: ViewSchema,
    table: EntityTable,
    key: Column,
    query: Query,
    moment: Mapping[str, Any],
) -> Iterator[list[int | None]]:
    """Ids of targets that show the same name, in the order of names; None and targets that are gone show none and are one group."""
    index = quoted(current_index(table.name, key.name))
    smallest = f"SELECT min({key.quoted}) FROM {table.quoted} INDEXED BY {index} WHERE to_position IS NULL"
    distinct = [
        f"WITH RECURSIVE found(id) AS (SELECT ({smallest}) UNION ALL SELECT ({smallest} AND {key.quoted} > found.id)"
        " FROM found WHERE found.id IS NOT NULL) SELECT id FROM found WHERE id IS NOT NULL"
    ]
    distinct += [
        f"SELECT DISTINCT t.{key.quoted} {source} AND t.{key.quoted} IS NOT NULL"
        for source in past.sources(table, query.at)[1:]
    ]
    ids = sorted({row[0] for sql in distinct for row in connection.execute(sql, moment)})
    named: list[tuple[int | None, Any]] = connection.execute(
        f"SELECT t.{key.quoted}, {shown_name_sql(schema, key, query.at)}"
        f" FROM (SELECT value AS {key.quoted} FROM json_each(:ids)) AS t",
        {**moment, "ids": str(ids)},
    ).fetchall()
    named.append((None, None))
    named.sort(key=lambda one: (one[1] is not None, one[1] or ""), reverse=query.descending)
    for _, group in groupby(named, key=lambda one: one[1]):
        yield [target for target, _ in group]
