"""Make the views anew from the log, beside the running ones, and compare two view files.

A rebuild works in steps of bounded size, so that whoever runs it can stop between two of them; what was made by then
is removed by the next one. Indexes are made after the load: a sorted build costs a fraction of a million insertions
at random places.
"""

from __future__ import annotations

import gc
import logging
import sqlite3
from pathlib import Path
from typing import Final

from blake3 import blake3

from eventlog.port import EventLog
from eventlog.views import files
from eventlog.views.rows import RowFold
from eventlog.views.schema import EntityTable, ViewSchema

logger = logging.getLogger(__name__)

STEP_EVENTS: Final = 2048
"""Events of one step: some tens of milliseconds of a thread."""


class Rebuild:
    """A new view file on its way to the log's head. Every method is a bounded piece of work for a thread, except ``make_indexes``.

    ``step`` until it returns False, ``make_indexes``, ``step`` again for what came meanwhile, ``swap``. Then ``connection``
    and ``fold`` are those of the current file. Or ``abandon``, at any time.
    """

    def __init__(self, log: EventLog, path: Path, schema: ViewSchema) -> None:
        self._log, self._path, self._schema = log, path, schema
        self.connection = files.create(path, schema)
        self.fold = RowFold(schema)
        self.rows = 0
        self._loading = True
        self.connection.execute("BEGIN")

    def step(self) -> bool:
        """Fold one piece of the log; False when its head is reached."""
        after = self.fold.position
        until = min(after + STEP_EVENTS, self._log.head)
        if until == after:
            return False
        self.fold.fold(self._log.read(after, until))
        if self._loading:
            self.rows += self.fold.write(self.connection, hold_open=True)
        else:
            with files.transaction(self.connection):
                self.rows += self.fold.write(self.connection)
        return True

    def make_indexes(self) -> None:
        """End the load: write the versions that are still open, then make the indexes."""
        self.rows += self.fold.write(self.connection)
        self.connection.execute("COMMIT")
        self._loading = False
        files.make_indexes(self.connection, self._schema)

    def swap(self) -> None:
        """From now on this is the current file."""
        files.make_current(self._path, self.connection)
        logger.info("views made anew up to position %d: %d rows, %s", self.fold.position, self.rows, self._path)

    def abandon(self) -> None:
        """Close and remove the unfinished file."""
        file = files.file_of(self.connection)
        self.connection.close()
        if file.name != files.current_generation(self._path):
            files.remove_generation(file)


def rebuild(log: EventLog, path: Path, schema: ViewSchema) -> int:
    """Rebuild the views of ``log`` at ``path`` and swap them in. Returns the position they stand at.

    For tools; a running daemon does the same in steps through its ``Projector``, which notices when somebody else did.
    """
    work = Rebuild(log, path, schema)
    collecting = gc.isenabled()
    try:
        gc.disable()  # folding makes no cycles, and the collector would look through the growing state for them again and again
        while work.step():
            pass
        work.make_indexes()
        while work.step():
            pass
        work.swap()
    except BaseException:
        work.abandon()
        raise
    finally:
        if collecting:
            gc.enable()
    work.connection.close()
    return work.fold.position


def views_digest(path: Path, schema: ViewSchema) -> str:
    """BLAKE3-256 over the position and every row of every table in a canonical order: equal for two files exactly when they
    show the same at every position. Scans and sorts everything."""
    connection = files.open_read_only(path)
    try:
        hasher = blake3(str(files.position_of(connection)).encode())
        for name in sorted(schema.tables):
            hasher.update(f"\n{name}\n".encode())
            _digest_table(connection, schema, name, hasher)
        return hasher.hexdigest()
    finally:
        connection.close()


def _digest_table(connection: sqlite3.Connection, schema: ViewSchema, name: str, hasher: blake3) -> None:
    table = schema.tables[name]
    order = "id, from_position" if isinstance(table, EntityTable) else "id"
    for row in connection.execute(f"SELECT * FROM {table.quoted} ORDER BY {order}"):
        hasher.update(repr(row).encode())
