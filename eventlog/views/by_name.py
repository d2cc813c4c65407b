"""Rows in an order that no index walk gives cheaply: group by group.

The name that a reference shows stands in another table, so no index has its order. But rows refer to few targets as a rule: sort the targets by
name, then take the rows target by target from the index of the reference until the page is full. That costs what the
page and the number of targets cost, not what the list does; and the order of the targets is remembered as long as neither
they nor their names change.

In the past, and from the end: a column of few values (a status) has nearly all rows under one of them, and in the order of ids those come first that did not
exist then. Value by value the walk begins at the last id of that time (``past.LastIds``).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any, Final

from eventlog.views import past
from eventlog.views.names import Known, NamesOf, Shown
from eventlog.views.schema import Column, current_index, quoted
from eventlog.views.search import Search

SORTED_ROWS_MAX: Final = 200
"""Up to so many matching rows are simply sorted."""
VALUES_MAX: Final = 100
"""Columns of more values than that are walked in their own order."""
REMEMBERED_MAX: Final = 50_000
"""Of columns with more values than that they are looked up each time."""
BRIDGE_POSITIONS_MAX: Final = 10_000
"""Farther than this from where they were looked up, values are looked up anew."""
GONE_MAX: Final = 64
"""Once so many values have come up since, they are looked up anew: some may be gone, and each of those costs a look."""

Group = list[Any]
"""Stored values that sort alike; None among them: the rows without one."""


def can_walk(key: Column, total: int) -> bool:
    """Is there an index to walk along, and is it worth it?"""
    return (key.in_list or key.indexed) and total > SORTED_ROWS_MAX


class _Values:
    """Values that current rows have in a column, and perhaps some more, at every position from ``first`` to ``last``."""

    def __init__(self, first: int, last: int, values: frozenset[int], came_up: int = 0) -> None:
        self.first, self.last, self.values, self.came_up = first, last, values, came_up
        self.order: tuple[Known, list[Group]] | None = None
        """By name, as of these names."""


class InGroups:
    """Pages of one table, group by group. Belongs to one reader, whose threads may share it: what is remembered says for which positions it holds."""

    def __init__(self, names_of: NamesOf) -> None:
        self._names_of = names_of
        self._values: dict[str, _Values] = {}
        self._had_many: dict[str, int] = {}
        """Column -> position at which it was last seen to have too many values. Perhaps it has fewer by now: then its own order is walked without need."""

    def by_name(self, search: Search) -> list[Any]:
        """The page: by name, rows without one first; ties go by id."""
        groups = self._groups_then(search) if search.query.at is not None else self._groups_now(search)
        return _rows(search, reversed(groups) if search.query.descending else groups)

    def by_value(self, search: Search) -> list[Any] | None:
        """The same in the order of a column's own values. None: it has too many of them."""
        name = search.key.name
        if abs(search.head - self._had_many.get(name, -BRIDGE_POSITIONS_MAX)) < BRIDGE_POSITIONS_MAX:
            return None
        values = _current_values(search, VALUES_MAX + 1)
        if len(values) <= VALUES_MAX:
            values |= _past_values(search, VALUES_MAX + 1)
        if len(values) > VALUES_MAX:
            self._had_many[name] = search.head
            return None
        ordered: list[Any] = [None, *sorted(values)]
        return _rows(search, [[one] for one in (reversed(ordered) if search.query.descending else ordered)])

    def _groups_now(self, search: Search) -> list[Group]:
        """Ids of targets that show the same name, in the order of names."""
        held = self._held(search)
        names = self._names_of(search.key)
        known = names.known(search.connection, search.head)
        if held.order is not None and held.order[0] is known:
            return held.order[1]
        groups = _grouped(held.values, names.shown(search.connection, held.values, None, search.head))
        held.order = known, groups
        return groups

    def _groups_then(self, search: Search) -> list[Group]:
        values = self._held(search).values.union(_past_values(search, -1))
        shown = self._names_of(search.key).shown(search.connection, values, search.query.at, search.head)
        return _grouped(values, shown)

    def _held(self, search: Search) -> _Values:
        held, head, name = self._values.get(search.key.name), search.head, search.key.name
        if held is None or not held.first <= head <= held.last + BRIDGE_POSITIONS_MAX or held.came_up > GONE_MAX:
            fresh = _Values(head, head, frozenset(_current_values(search, -1)))
            if (held is None or held.last <= head) and len(fresh.values) <= REMEMBERED_MAX:
                self._values[name] = fresh
            return fresh
        if held.last >= head:
            return held
        came = frozenset(_values_since(search, held.last)) - held.values
        if came:
            held = self._values[name] = _Values(held.first, head, held.values | came, held.came_up + len(came))
        else:
            held.last = head
        return held


def rows_without(search: Search, at_most: int) -> list[Any]:
    """The first rows that have no value there."""
    return _rows(search, [[None]], skip=0, wanted=at_most)


def _rows(search: Search, groups: Iterable[Group], *, skip: int | None = None, wanted: int | None = None) -> list[Any]:
    query, key = search.query, search.key
    skip = search.skip if skip is None else skip
    wanted = search.wanted if wanted is None else wanted
    # Otherwise SQLite may prefer an index of the filter, and look through all rows that pass it for the few of a group.
    hint = f" INDEXED BY {quoted(current_index(search.table.name, key.name))}"
    bound = {**search.where.parameters, **search.moment}
    born, filters = "", search.where.sql()
    if query.at is not None and query.descending:
        born, bound["last"] = " AND t.id <= :last", search.last_ids.at(search.connection, query.at)
    sources = past.sources(search.table, query.at, hint)
    found: list[Any] = []
    for group in groups:
        conditions, number, values = _members(key, group)
        bound |= values
        matching = [f"{source}{born} AND {one}{filters}" for source in sources for one in conditions]
        if skip:
            counts = " + ".join(f"(SELECT count(*) {one})" for one in matching)
            (count,) = search.connection.execute(f"SELECT {counts}", bound).fetchone()
            if count <= skip:
                skip -= count
                continue
        bound["limit"], bound["skip"] = wanted - len(found), skip
        found += search.fetch(matching, [number], bound, in_order=len(group) == 1)
        skip = 0
        if len(found) == wanted:
            break
    return found


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


def _grouped(values: Iterable[int], shown: Shown) -> list[Group]:
    """By name; None and targets that are gone show none and are the first group."""
    named: list[tuple[str, int]] = []
    without: Group = [None]
    for value in values:
        name = shown[value]
        if name is None:
            without.append(value)
        else:
            named.append((name, value))
    named.sort()
    return [without, *([value for _, value in group] for _, group in groupby(named, key=lambda one: one[0]))]


def _current_values(search: Search, at_most: int) -> set[Any]:
    """Stored values of a column now, without null; -1: all."""
    column, table = search.key.quoted, search.table
    index = quoted(current_index(table.name, search.key.name))
    smallest = f"SELECT min({column}) FROM {table.quoted} INDEXED BY {index} WHERE to_position IS NULL"
    sql = (
        f"WITH RECURSIVE found(value) AS (SELECT ({smallest}) UNION ALL SELECT ({smallest} AND {column} > found.value)"
        " FROM found WHERE found.value IS NOT NULL) SELECT value FROM found WHERE value IS NOT NULL LIMIT :at_most"
    )
    return {row[0] for row in search.connection.execute(sql, {"at_most": at_most})}


def _past_values(search: Search, at_most: int) -> set[Any]:
    """Of versions that held at the position asked for and have ended since; ``at_most`` of each source."""
    column, bound = search.key.quoted, {**search.moment, "at_most": at_most}
    distinct = (
        f"SELECT DISTINCT t.{column} {source} AND t.{column} IS NOT NULL LIMIT :at_most"
        for source in past.sources(search.table, search.query.at)[1:]
    )
    return {row[0] for sql in distinct for row in search.connection.execute(sql, bound)}


def _values_since(search: Search, position: int) -> Iterable[int]:
    """Of versions that have begun after a position."""
    opened = quoted(f"{search.table.name}:opened")
    sql = (
        f"SELECT DISTINCT {search.key.quoted} FROM {search.table.quoted} INDEXED BY {opened}"
        f" WHERE from_position > ? AND {search.key.quoted} IS NOT NULL"
    )
    return [row[0] for row in search.connection.execute(sql, (position,))]
