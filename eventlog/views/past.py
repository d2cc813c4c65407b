"""Which row versions held at a past position, found without looking at the others.

At position p two kinds of versions hold: those that still do and began by then (an index walk over current rows), and those that
ended since. The latter are intervals that contain p, the classic stabbing query, for which one index on begin or end would
walk half of history. They are kept as a relational interval tree (Kriegel, Pötke, Seidl, VLDB 2000): each ended version is
filed under one number, its fork, the roundest position within it; an interval that contains p can only be filed under one of
the ~2 log2(head) numbers that ``nodes`` names, and under each of them begin or end alone decides.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from eventlog.views.schema import EntityTable, Table, quoted

POSITIONS_MAX: Final = 1024
"""At which the highest id of a table is remembered; beyond it they are forgotten and begin anew."""


def nodes(position: int, head: int) -> tuple[list[int], list[int]]:
    """Forks under which versions that held at ``position`` may be filed: those up to it, and those after it."""
    forks = {position}
    for bit in range(head.bit_length()):
        forks.add((position >> (bit + 1) << (bit + 1)) | (1 << bit))
    return sorted(one for one in forks if one <= position), sorted(one for one in forks if position < one <= head)


def parameters(at: int | None, head: int) -> dict[str, int | str | None]:
    """What ``sources`` refers to."""
    if at is None:
        return {"at": None}
    before, after = nodes(at, head)
    return {"at": at, "before": str(before), "after": str(after)}


def sources(table: Table, at: int | None, hint: str = "") -> list[str]:
    """``FROM ... WHERE`` fragments whose rows ``t`` together are those that held at ``:at``, or hold now.

    ``hint`` (``INDEXED BY ...``) goes to the first, which has nearly all of the rows as a rule.
    """
    name = table.quoted
    if not isinstance(table, EntityTable):
        return [f"FROM {name} AS t{hint} WHERE {'1' if at is None else 't.position <= :at'}"]
    current = f"FROM {name} AS t{hint} WHERE t.to_position IS NULL"
    if at is None:
        return [current]
    return [
        f"{current} AND +t.from_position <= :at",  # the + keeps SQLite from looking through all that began before
        f"FROM json_each(:before) AS n CROSS JOIN {name} AS t INDEXED BY {table.ended_by_end}"
        " ON t.fork = n.value AND t.to_position > :at WHERE 1",
        f"FROM json_each(:after) AS n CROSS JOIN {name} AS t INDEXED BY {table.ended_by_begin}"
        " ON t.fork = n.value AND t.from_position <= :at WHERE 1",
    ]


class LastIds:
    """Highest ids that existed at past positions, of one table. They do not change any more, so they are remembered; threads may share it."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._found: dict[int, int] = {}

    def at(self, connection: sqlite3.Connection, position: int) -> int:
        """No record with a higher id existed at ``position``, which the views have reached."""
        last = self._found.get(position)
        if last is None:
            if len(self._found) >= POSITIONS_MAX:
                self._found.clear()
            last = self._found[position] = _last_id(connection, self._table, position)
        return last


def _last_id(connection: sqlite3.Connection, table: Table, at: int) -> int:
    """Ids are given in the order in which records come into being (``State.next_id``; within
    a command as well), so twenty steps find the last one of a million."""
    low, high = 0, connection.execute(f"SELECT max(id) FROM {table.quoted}").fetchone()[0] or 0
    born = (
        f"SELECT from_position FROM {table.quoted} INDEXED BY {quoted(f'{table.name}:versions')} WHERE id >= ?"
        " ORDER BY id, from_position LIMIT 1"
    )
    while low < high:
        middle = (low + high + 1) // 2
        found = connection.execute(born, (middle,)).fetchone()
        if found is None or found[0] > at:
            high = middle - 1
        else:
            low = middle
    return low
