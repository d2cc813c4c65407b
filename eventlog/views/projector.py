"""The projector: keeps the views at the log's durable head.

It pulls batches from a subscription of the log, folds each on a worker thread and writes rows and position in one transaction.
One batch is under way at a time and the subscription is pulled, never pushed: a slow disk makes the views late, it
does not make anything grow. At start the state at the views' position is refolded from the log without writing; views that
cannot be gone on with are rebuilt, with a line in the program's log that says why.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import trio

from eventlog.port import EventLog
from eventlog.views import files
from eventlog.views.rebuild import STEP_EVENTS, Rebuild
from eventlog.views.rows import RowFold
from eventlog.views.schema import ViewSchema
from rbcore.errors import DeadlineExceeded
from rbcore.events import Envelope
from rbcore.ports import Threads

logger = logging.getLogger(__name__)

BATCH_EVENTS_MAX: Final = 512
"""Events of one transaction: some milliseconds of the worker thread, which shares the interpreter with the loop."""
WATCH_SECONDS: Final = 2.0
"""How often it is looked whether the file is still there; a tool may have made it anew."""
CLOSE_SECONDS_MAX: Final = 5.0
"""How long closing the file may take after a cancellation."""


class ProjectorStatistics(msgspec.Struct, frozen=True, kw_only=True):
    position: int
    behind: int
    """Durable events that are not in the views yet."""
    transactions: int
    rows: int
    rebuilds: int
    rebuilding: bool


class Projector:
    """Owns the writing connection and the state the views are at.

    ``run`` belongs in a nursery, once at a time. It raises, in an exception group, what makes going on impossible (``Damaged``
    events, ``sqlite3.Error`` such as a full disk): the supervisor starts it again, and it goes on where the file stands.
    ``threads`` should not be those of bulk work: who reads its own write waits for the projector.
    """

    def __init__(self, log: EventLog, path: Path, schema: ViewSchema, threads: Threads) -> None:
        self._log, self._path, self._schema, self._threads = log, path, schema, threads
        self._connection: sqlite3.Connection | None = None
        self._generation = ""
        self._fold = RowFold(schema)
        self._position = 0
        self._moved = trio.Event()
        self._turn = trio.Lock()
        """Held while the connection and the fold are used or exchanged."""
        self._one_rebuild = trio.Lock()
        self._rebuilding = False
        self._transactions = self._rows = self._rebuilds = 0

    @property
    def position(self) -> int:
        """Where the views stand."""
        return self._position

    def statistics(self) -> ProjectorStatistics:
        return ProjectorStatistics(
            position=self._position,
            behind=max(0, self._log.head - self._position),
            transactions=self._transactions,
            rows=self._rows,
            rebuilds=self._rebuilds,
            rebuilding=self._rebuilding,
        )

    async def run(self) -> None:
        """Bring the views to the log's head and keep them there, until cancelled."""
        try:
            while True:
                await self._start()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._watch, nursery.cancel_scope)
                    nursery.start_soon(self._follow, nursery.cancel_scope)
        finally:
            with _closing():
                async with self._turn:
                    await self._threads.run(self._close)

    async def wait_for(self, position: int, deadline_seconds: float) -> None:
        """Return when the views have folded ``position``. Raises ``DeadlineExceeded``."""
        with trio.move_on_after(deadline_seconds):
            while self._position < position:
                await self._moved.wait()
        if self._position < position:
            raise DeadlineExceeded(
                f"The views stand at position {self._position} and did not reach {position} within {deadline_seconds:g} s. "
                "What was asked for may have been carried out: read again later.",
                data={"position": self._position},
            )

    async def rebuild(self) -> None:
        """Make the views anew beside the running ones, which go on meanwhile, then go on with the new file.

        Only the end, catching up with what came while the indexes were made, holds the running views up. Cancelled, it leaves
        everything as it was.
        """
        async with self._one_rebuild:
            work = await self._threads.run(partial(Rebuild, self._log, self._path, self._schema))
            self._rebuilding = True
            try:
                replaced = await self._bring_up(work)
            except BaseException:
                with _closing():
                    await self._threads.run(work.abandon)
                raise
            finally:
                self._rebuilding = False
            if replaced is not None:
                with _closing():
                    await self._threads.run(replaced.close)

    async def _bring_up(self, work: Rebuild) -> sqlite3.Connection | None:
        """Load, index, catch up, swap. Returns the connection that was written until then."""
        while await self._threads.run(work.step):
            pass
        await self._threads.run(work.make_indexes)
        while await self._threads.run(work.step):
            pass
        async with self._turn:
            while work.fold.position < self._position and await self._threads.run(work.step):
                pass
            await self._threads.run(work.swap)
            return self._adopt(work)

    # --- start ---------------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        """Open what is there and refold its state, or rebuild."""
        async with self._turn:
            await self._threads.run(self._close)
            head = self._log.head
            try:
                connection = await self._threads.run(partial(files.open_checked, self._path, self._schema, head))
            except files.UnusableViews as unusable:
                problem = str(unusable)
            else:
                problem = ""
                self._connection = connection
                self._generation = files.current_generation(self._path)
                await self._refold(connection)
        if problem:
            logger.warning("%s: %s; making the views anew from the log", self._path, problem)
            await self.rebuild()

    async def _refold(self, connection: sqlite3.Connection) -> None:
        """Fold the state at the position of the file; its rows are there."""
        fold = self._fold = RowFold(self._schema)
        stored = await self._threads.run(partial(files.position_of, connection))
        while fold.position < stored:
            until = min(fold.position + STEP_EVENTS, stored)
            await self._threads.run(partial(_refold, fold, self._log, until))
        await self._threads.run(partial(fold.resume, connection))
        self._moved_to(stored)

    def _adopt(self, work: Rebuild) -> sqlite3.Connection | None:
        """Go on with the new file; returns the connection to the old one. No checkpoint between the swap and this."""
        replaced, self._connection = self._connection, work.connection
        self._fold = work.fold
        self._generation = files.current_generation(self._path)
        self._rebuilds += 1
        self._moved_to(work.fold.position)
        return replaced

    # --- following the log ---------------------------------------------------------------------------------------

    async def _follow(self, following: trio.CancelScope) -> None:
        """Fold what the log gets. What went into a file that somebody else has replaced does not count: readers see the other one."""
        async for batch in self._log.subscribe(self._position):
            for start in range(0, len(batch), BATCH_EVENTS_MAX):
                async with self._turn:
                    fresh = [one for one in batch[start : start + BATCH_EVENTS_MAX] if one.position > self._position]
                    if fresh:
                        await self._threads.run(partial(self._project, fresh))
                        if self._replaced():
                            following.cancel()
                            return
                        self._moved_to(self._fold.position)

    async def _watch(self, following: trio.CancelScope) -> None:
        """End the following when the file was replaced or removed by somebody else: the next start deals with what is there."""
        while True:
            await trio.sleep(WATCH_SECONDS)
            async with self._turn:
                if self._replaced():
                    following.cancel()

    def _replaced(self) -> bool:
        """Whether the file that is written is no longer the one that is read."""
        if files.current_generation(self._path) == self._generation and self._path.exists():
            return False
        logger.warning("%s is no longer the file that was written; starting again with what is there", self._path)
        return True

    def _project(self, envelopes: Sequence[Envelope]) -> None:
        """One transaction."""
        connection = self._connection
        assert connection is not None, "started"
        self._fold.fold(envelopes)
        with files.transaction(connection):
            self._rows += self._fold.write(connection)
        self._transactions += 1

    def _moved_to(self, position: int) -> None:
        self._position = position
        self._moved.set()
        self._moved = trio.Event()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _closing() -> trio.CancelScope:
    """What must be done although cancelled, and may not take long."""
    return trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_SECONDS_MAX)


def _refold(fold: RowFold, log: EventLog, until: int) -> None:
    fold.refold(log.read(fold.position, until))
