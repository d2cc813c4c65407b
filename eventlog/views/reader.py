"""Reading the views: queries to SQL, rows to wire values.

Where a read runs. A hop to a worker thread and back costs 134 us, several times what a record or a page of a list costs
(figures in ``bench/views.py``). So a read begins in the loop, on a connection of its own, with an allowance of
SQLite instructions; one that turns out to need more is interrupted there and repeated on a worker thread. The loop is never
held longer than the allowance, whatever is asked. (A page of the file that is not in memory costs a read of the disk within it.)
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from datetime import UTC, tzinfo
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import trio

from eventlog.views import files, moments
from eventlog.views.connections import Interrupted, ReadConnections
from eventlog.views.names import NamesOf
from eventlog.views.port import Page, Query, Visible
from eventlog.views.queries import TableReader
from eventlog.views.schema import ViewSchema
from eventlog.views.totals import Totals
from rbcore.errors import DeadlineExceeded, InvalidRequest
from rbcore.ports import Threads

T = TypeVar("T")

LOOP_INSTRUCTIONS: Final = 30_000
"""Allowance of a read in the loop, in SQLite instructions: about half a millisecond."""
THREAD_CONNECTIONS_MAX: Final = 8
"""Connections kept for worker threads between reads."""
POLL_SECONDS: Final = 0.002
"""How often a reader in a process without a projector looks whether the views have moved."""
CATCH_UP_SECONDS: Final = 10.0
"""How long ``position_of`` waits for the views to reach a position that the log has."""
POSITION_DIGITS_MAX: Final = 19

WaitFor = Callable[[int, float], Awaitable[None]]


class SqliteViewReader:
    """``ViewReader`` on the file that ``path`` means; also in processes that do not project.

    ``head``, ``position_at`` and ``time_at`` are the log's; without the last lists of the past by time, newest first, take longer. ``wait_for`` is the projector's; without it the file's position is polled.
    ``zone`` is the zone of answered times and of those in filters that name none. Belongs to one trio loop; ``close`` it
    when nobody reads any more. While there is no view file (the first moments of a rebuild), reads raise ``Unavailable``.
    """

    def __init__(
        self,
        path: Path,
        schema: ViewSchema,
        threads: Threads,
        *,
        head: Callable[[], int],
        position_at: Callable[[int], int],
        wait_for: WaitFor | None = None,
        time_at: Callable[[int], int] | None = None,
        zone: tzinfo = UTC,
    ) -> None:
        self._schema, self._threads, self._zone = schema, threads, zone
        self._head, self._position_at = head, position_at
        self._wait_for = wait_for or self._poll_for
        totals, names_of = Totals(), NamesOf(schema)
        self._tables = {
            name: TableReader(schema, table, totals, names_of, zone, time_at) for name, table in schema.tables.items()
        }
        self._in_loop = ReadConnections(path, 1)
        self._on_threads = ReadConnections(path, THREAD_CONNECTIONS_MAX)
        self.reads_in_loop = 0
        self.reads_on_threads = 0

    async def page(self, query: Query) -> Page:
        """Rows carry the fields of lists (``in_list``). Raises ``InvalidRequest`` naming what is not acceptable."""
        return await self._read(partial(self._tables[query.resource].page, query=query))

    async def row(
        self, resource: str, id: int, at: int | None = None, visible: Visible = None
    ) -> tuple[dict[str, Any] | None, int]:
        """All fields of a record, or None, and the position of the answer. Raises ``InvalidRequest`` for a position to come."""
        return await self._read(partial(self._tables[resource].row, id=id, at=at, visible=visible))

    async def wait_for(self, position: int, deadline_seconds: float) -> None:
        """Return when the views have folded ``position``. Raises ``DeadlineExceeded``."""
        await self._wait_for(position, deadline_seconds)

    async def position_of(self, moment: str) -> int:
        """``?at=`` as a position that the views have reached.

        Digits are a position, 0 (before everything) to the log's head. Anything else is an ISO 8601 time: the last position at
        or before it; without a zone it is in the server's. Raises ``InvalidRequest``.
        """
        text, head = moment.strip(), self._head()
        if text.lstrip("+-").isdecimal():
            if not (text.isascii() and len(text) <= POSITION_DIGITS_MAX and 0 <= int(text) <= head):
                raise _bad_moment(moment, f"positions go from 0 to {head}, the head of the log")
            position = int(text)
        else:
            try:
                position = self._position_at(moments.parse(text, self._zone) * 1000 + 999)
            except ValueError:
                wanted = "a log position or an ISO 8601 time such as 2024-08-19T19:20:28+03:00 is expected"
                raise _bad_moment(moment, wanted) from None
        await self._wait_for(position, CATCH_UP_SECONDS)
        return position

    async def close(self) -> None:
        """Close the connections. Reads that are under way end as they would."""
        self._in_loop.close()
        self._on_threads.close()

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        await trio.lowlevel.checkpoint()
        try:
            answer = self._in_loop.read(work, LOOP_INSTRUCTIONS)
        except Interrupted:
            self.reads_on_threads += 1
            return await self._threads.run(partial(self._on_threads.read, work))
        self.reads_in_loop += 1
        return answer

    async def _poll_for(self, position: int, deadline_seconds: float) -> None:
        reached = -1
        with trio.move_on_after(deadline_seconds):
            reached = await self._read(files.position_of)
            while reached < position:  # another process moves the views: there is no event to wait for
                await trio.sleep(POLL_SECONDS)
                reached = await self._read(files.position_of)
        if reached < position:
            raise DeadlineExceeded(
                f"The views stand at position {reached} and did not reach {position} within {deadline_seconds:g} s. "
                "What was asked for may have been carried out: read again later.",
                data={"position": reached},
            )


def _bad_moment(moment: str, sentence: str) -> InvalidRequest:
    shown = moment if len(moment) <= 80 else f"{moment[:80]}..."
    return InvalidRequest(f"at={shown!r} is no moment of the log: {sentence}.", errors={"at": [sentence]})
