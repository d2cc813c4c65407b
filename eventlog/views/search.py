"""One page that is looked for, and the SQL that fetches its rows in their order."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eventlog.views.past import LastIds
from eventlog.views.port import Query
from eventlog.views.predicates import Where
from eventlog.views.schema import Column, Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What is known of a page before its rows are looked for, in one read transaction."""

    connection: sqlite3.Connection
    table: Table
    columns: str
    """What is selected of row ``t``."""
    query: Query
    key: Column
    """Sorted by this one, ties by id."""
    where: Where
    moment: Mapping[str, Any]
    """What ``past.sources`` refers to."""
    last_ids: LastIds
    head: int
    """Position of the transaction."""
    total: int
    skip: int
    """Rows before the page."""

    @property
    def wanted(self) -> int:
        """Rows on the page."""
        return min(self.query.limit, self.total - self.skip)

    @property
    def direction(self) -> str:
        return "DESC" if self.query.descending else "ASC"

    def fetch(
        self, matching: Sequence[str], order: Sequence[str], bound: Mapping[str, Any], *, in_order: bool = False
    ) -> list[Any]:
        """``:limit`` rows after ``:skip`` of all that ``matching`` (fragments ``FROM ... WHERE ...``) have together, by ``order``, expressions on ``t``.

        ``in_order``: a single fragment has its rows in that order already. Otherwise row ids are put in order first, and the columns
        are read of the page's rows alone.
        """
        by = ", ".join(f"{one} {self.direction}" for one in order)
        if in_order and len(matching) == 1:
            sql = f"SELECT {self.columns} {matching[0]} ORDER BY {by} LIMIT :limit OFFSET :skip"
        else:
            marks = [f"o{number}" for number in range(len(order))]
            sorts = ", ".join(f"{one} AS {mark}" for one, mark in zip(order, marks, strict=True))
            union = " UNION ALL ".join(f"SELECT t.rowid AS chosen, {sorts} {one}" for one in matching)
            inner = ", ".join(f"{mark} {self.direction}" for mark in marks)
            outer = ", ".join(f"k.{mark} {self.direction}" for mark in marks)
            sql = (
                f"SELECT {self.columns} FROM ({union} ORDER BY {inner} LIMIT :limit OFFSET :skip) AS k"
                f" CROSS JOIN {self.table.quoted} AS t ON t.rowid = k.chosen ORDER BY {outer}"
            )
        return self.connection.execute(sql, bound).fetchall()
