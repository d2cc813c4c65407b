"""Reading connections: kept between reads, replaced when the views were made anew, with an allowance per read."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from eventlog.views import files
from rbcore.errors import RbError, Unavailable

T = TypeVar("T")

_BUGS: Final = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISUSE, sqlite3.SQLITE_RANGE})
"""Primary result codes that blame the query, not the file."""

INSTRUCTIONS_PER_CALL: Final = 2_000
"""SQLite instructions between two looks at the allowance."""


class Interrupted(Exception):
    """The read needs more instructions than it was allowed."""


class _Reading:
    """A connection, the generation it reads, and what the present read may still cost."""

    def __init__(self, path: Path) -> None:
        self.generation = files.current_generation(path)
        self.connection = files.open_read_only(path)
        self._calls_left = -1
        self.connection.set_progress_handler(self._count, INSTRUCTIONS_PER_CALL)

    def run(self, work: Callable[[sqlite3.Connection], T], instructions_max: int | None) -> T:
        connection = self.connection
        self._calls_left = -1 if instructions_max is None else max(1, instructions_max // INSTRUCTIONS_PER_CALL)
        connection.execute("BEGIN")
        try:
            return work(connection)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
                raise Interrupted from None
            raise
        finally:
            self._calls_left = -1
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _count(self) -> int:
        if self._calls_left < 0:
            return 0
        if self._calls_left == 0:
            return 1
        self._calls_left -= 1
        return 0


class ReadConnections:
    """At most ``kept`` idle connections. Threads may share it; a connection serves one read at a time."""

    def __init__(self, path: Path, kept: int) -> None:
        self._path = path
        self._idle: deque[_Reading] = deque()
        self._kept = kept
        self._closed = False

    def read(self, work: Callable[[sqlite3.Connection], T], instructions_max: int | None = None) -> T:
        """Run ``work`` in a read transaction: all it sees stands at one position.

        Raises ``Interrupted`` beyond the allowance, ``Unavailable`` while the views are made anew.
        """
        usable = False
        try:
            reading = self._take()
            try:
                answer = reading.run(work, instructions_max)
                usable = True
            except (Interrupted, RbError):
                usable = True
                raise
            finally:
                self._put(reading, usable)
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF in _BUGS:
                raise
            raise Unavailable(
                f"The views cannot be read ({error}). They are made anew from the log: repeat the request in a moment."
            ) from error
        return answer

    def close(self) -> None:
        self._closed = True
        while self._idle:
            self._idle.pop().connection.close()

    def _take(self) -> _Reading:
        current = files.current_generation(self._path)
        while True:
            try:
                reading = self._idle.pop()
            except IndexError:
                return _Reading(self._path)
            if reading.generation == current:
                return reading
            reading.connection.close()

    def _put(self, reading: _Reading, usable: bool) -> None:
        if usable and not self._closed and len(self._idle) < self._kept:
            self._idle.append(reading)
        else:
            reading.connection.close()
