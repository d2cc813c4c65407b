"""Names that references show, remembered.

A name stands in the table of its target, and looking it up costs a third of a page. But pages show the same few targets over and over again, and targets
change seldom: what was looked up is kept for as long as no row of the tables in question has begun or ended, which two look-ups per table tell, and at
a position that was seen before nothing has to be asked at all. A name of today is also that of a past position if its row had begun by then.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Final

from eventlog.views.predicates import shown_name_sql, valid_sql
from eventlog.views.schema import Column, Target, ViewSchema, quoted

NAMES_MAX: Final = 50_000
"""Names of one kind that are remembered; beyond it they are forgotten and begin anew."""

Shown = Mapping[int | None, str | None]
"""Stored reference -> name; None: it shows none."""


class Known:
    """Names of one kind of target, as of the last change of their tables. What is in it holds for whoever reads at the same ``changed``."""

    def __init__(self, changed: int, position: int) -> None:
        self.changed = changed
        """Position of the last change of the tables."""
        self.position = position
        """At which that was looked up."""
        self.names: dict[int | None, str | None] = {None: None}
        self.since: dict[int | None, float] = {None: 0}
        """From which position on a reference has shown its name all the time; infinity: not known."""


class Names:
    """Names of one kind of target. Threads may share it: each takes and leaves what holds at the position that it reads."""

    def __init__(self, schema: ViewSchema, column: Column) -> None:
        """``column``: one of those that refer to these targets."""
        self._known = Known(-1, -1)
        targets = schema.targets_of(column)
        self._changed_sql = _changed_sql(targets)
        asked = f"FROM (SELECT value AS {column.quoted} FROM json_each(:references)) AS t"
        self._now, self._then = (
            f"SELECT t.{column.quoted}, {shown_name_sql(schema, column, at)} {asked}" for at in (None, 0)
        )
        # The other targets of a reference show only as long as the first one does not.
        first = targets[0]
        begun = (
            f"(SELECT r.from_position FROM {first.table.quoted} AS r WHERE r.id = {first.sign}t.{column.quoted}"
            f" AND {valid_sql('r', None)} AND r.{quoted(first.by)} IS NOT NULL)"
        )
        self._learn_sql = f"SELECT t.{column.quoted}, {shown_name_sql(schema, column, None)}, {begun} {asked}"

    def known(self, connection: sqlite3.Connection, head: int) -> Known:
        """What is remembered. ``head``: position of the read transaction."""
        known = self._known
        if known.position == head:
            return known
        (changed,) = connection.execute(self._changed_sql).fetchone()
        if known.changed == changed:
            known.position = head
            return known
        self._known = made = Known(changed, head)
        return made

    def shown(
        self, connection: sqlite3.Connection, references: Iterable[int | None], at: int | None, head: int
    ) -> Shown:
        """Names of at least ``references``, now or at position ``at``."""
        known = self.known(connection, head)
        wanted = set(references)
        missing = wanted - known.names.keys()
        if len(missing) > NAMES_MAX:
            return self._looked_up(connection, wanted, at)
        if missing:
            if len(known.names) + len(missing) > NAMES_MAX:
                self._known = known = Known(known.changed, head)
                missing = wanted
            for reference, name, since in connection.execute(self._learn_sql, {"references": _json(missing)}):
                known.since[reference] = math.inf if since is None else since
                known.names[reference] = name
        if at is None:
            return known.names
        since = known.since
        others = [one for one in wanted if since[one] > at]
        if not others:
            return known.names
        return {**{one: known.names[one] for one in wanted}, **self._looked_up(connection, others, at)}

    def _looked_up(
        self, connection: sqlite3.Connection, references: Iterable[int | None], at: int | None
    ) -> dict[int | None, str | None]:
        sql = self._now if at is None else self._then
        return {None: None, **dict(connection.execute(sql, {"references": _json(references), "at": at}).fetchall())}


class NamesOf:
    """Names for all tables of a reader: columns with the same targets share them."""

    def __init__(self, schema: ViewSchema) -> None:
        self._schema = schema
        self._names: dict[tuple[Target, ...], Names] = {}

    def __call__(self, column: Column) -> Names:
        """Of the references in ``column``."""
        targets = self._schema.targets_of(column)
        if targets not in self._names:
            self._names[targets] = Names(self._schema, column)
        return self._names[targets]


def _json(references: Iterable[int | None]) -> str:
    return str([one for one in references if one is not None])


def _changed_sql(targets: tuple[Target, ...]) -> str:
    changes = [
        change
        for table in {one.table.quoted: one.table for one in targets}.values()
        for change in (
            f"(SELECT max(from_position) FROM {table.quoted} INDEXED BY {quoted(f'{table.name}:opened')})",
            f"(SELECT max(to_position) FROM {table.quoted} INDEXED BY {quoted(f'{table.name}:closed')} WHERE to_position IS NOT NULL)",
        )
    ]
    return f"SELECT max({', '.join(f'ifnull({one}, 0)' for one in changes)}, 0)"
