"""From events to row versions: folds a state with ``rbcore.evolve`` and collects what to write.

An entity that changes at position p ends the version it had and begins one at p. Within a batch only the newest version of
an entity is still open when it is written; the ones before are inserted as already ended, so a current row of the
database is touched at most once per batch. A rebuild goes further and holds every open version back until the end: its
rows are all inserted complete, and what is held is one number per live entity.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

from eventlog.upcasting import decode_event
from eventlog.views.schema import POSITION_TABLE, LinesTable, ViewSchema
from rbcore.entities import Entity
from rbcore.events import Envelope, Event
from rbcore.evolve import apply
from rbcore.state import State, Undo


class RowFold:
    """State at a position, and the row versions of the events folded since the last ``write``.

    Not safe for use by two threads at once. After an exception the state and the database no longer belong together: throw the
    fold away and start from the database's position.
    """

    def __init__(self, schema: ViewSchema) -> None:
        self.state = State()
        self._schema = schema
        self._open: dict[str, dict[int, int]] = {kind: {} for kind in schema.entities}
        """Kind -> id -> position at which the version that is held back began."""
        self._ends: dict[str, list[tuple[int, int]]] = {kind: [] for kind in schema.entities}
        """Kind -> (position, id): current versions in the database that end."""
        self._ended: dict[str, list[tuple[Any, ...]]] = {kind: [] for kind in schema.entities}
        self._lines: dict[str, list[tuple[Any, ...]]] = {name: [] for name in schema.logs}
        self._line_ids: dict[str, int] = dict.fromkeys(schema.logs, 0)
        self._logs_of: dict[type[Event], list[LinesTable]] = {}
        for log in schema.logs.values():
            for kind in log.lines:
                self._logs_of.setdefault(kind, []).append(log)

    @property
    def position(self) -> int:
        return self.state.position

    @property
    def pending(self) -> int:
        """Rows and ends of rows that are collected or held back and not written."""
        collected: list[dict[str, Any]] = [self._open, self._ends, self._ended, self._lines]
        return sum(len(one) for kinds in collected for one in kinds.values())

    def refold(self, envelopes: Iterable[Envelope]) -> None:
        """Fold events whose rows are in the database already: state only."""
        state = self.state
        for one in envelopes:
            apply(state, one.stream, one.version, one.time_ns, one.position, decode_event(one))

    def resume(self, connection: sqlite3.Connection) -> None:
        """The state is at the database's position now: go on numbering lines where it ended."""
        for name, table in self._schema.logs.items():
            (last,) = connection.execute(f"SELECT ifnull(max(id), 0) FROM {table.quoted}").fetchone()
            self._line_ids[name] = last

    def fold(self, envelopes: Iterable[Envelope]) -> None:
        """Fold events and remember the rows they make."""
        state, entities, logs_of = self.state, self._schema.entities, self._logs_of
        for one in envelopes:
            event = decode_event(one)
            undos = apply(state, one.stream, one.version, one.time_ns, one.position, event)
            for undo in undos if len(undos) < 2 else _first_of_each(undos):
                if undo.kind in entities:
                    self._turn(undo, one.position)
            logs = logs_of.get(type(event))
            if logs:
                before = self._before(one.stream, undos)
                for log in logs:
                    self._append(log, one, event, before)

    def _turn(self, undo: Undo, position: int) -> None:
        """The version that held before ends at ``position``; if the entity is still there, the next begins."""
        kind, key, before = undo.kind, undo.id, undo.before
        held = self._open[kind]
        if before is not None:
            begun = held.pop(key, 0)
            if begun:
                self._ended[kind].append(self._schema.entities[kind].row(before, begun, position))
            else:
                self._ends[kind].append((position, key))
        if key in self.state.tables[kind]:
            held[key] = position

    def _before(self, stream: str, undos: list[Undo]) -> Entity | None:
        """The entity that the stream names, before the event that made ``undos``."""
        kind, _, number = stream.partition("/")
        key = int(number)
        for undo in undos:
            if undo.kind == kind and undo.id == key:
                return undo.before
        found: Entity | None = self.state.tables.get(kind, {}).get(key)
        return found

    def _append(self, log: LinesTable, envelope: Envelope, event: Event, before: Entity | None) -> None:
        collected, last = self._lines[log.name], self._line_ids[log.name]
        for line in log.lines[type(event)](envelope, event, self.state, before):
            last += 1
            collected.append(log.row(last, envelope.position, line))
        self._line_ids[log.name] = last

    def write(self, connection: sqlite3.Connection, *, hold_open: bool = False) -> int:
        """Write what was collected and the position, in the caller's transaction. Returns the number of rows inserted.

        ``hold_open``: keep open versions back (a rebuild, until its last write). The position is then not yet true for a reader,
        which a rebuild's file has none of.
        """
        written = 0
        for kind, table in self._schema.entities.items():
            if self._ends[kind]:
                connection.executemany(table.close_sql, self._ends[kind])
                self._ends[kind] = []
            rows = self._ended[kind]
            if not hold_open and self._open[kind]:
                live = self.state.tables[kind]
                rows.extend([table.row(live[key], begun, None) for key, begun in self._open[kind].items()])
                self._open[kind] = {}
            if rows:
                connection.executemany(table.insert_sql, rows)
                written += len(rows)
                self._ended[kind] = []
        for name, log in self._schema.logs.items():
            if self._lines[name]:
                connection.executemany(log.insert_sql, self._lines[name])
                written += len(self._lines[name])
                self._lines[name] = []
        connection.execute(f"UPDATE {POSITION_TABLE} SET position = ?", (self.state.position,))
        return written


def _first_of_each(undos: list[Undo]) -> list[Undo]:
    """The first undo of an entity says what was there before the event."""
    first: dict[tuple[str, int], Undo] = {}
    for undo in undos:
        first.setdefault((undo.kind, undo.id), undo)
    return list(first.values())
