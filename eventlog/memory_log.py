"""The event log of simulation: no threads, commits under trio's virtual clock, faults on demand.

Fault model: a commit is atomic, as LMDB's is. A crash loses what was not yet committed; whether the commit that was under way made it
to the disk is the simulation's choice (``lose_commit_under_way``), because its sender never heard of either outcome. A full disk
fails the commit and refuses further batches until there is room.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from eventlog.commit import Commit
from eventlog.group_commit import GROUP_BATCHES_MAX
from eventlog.memory_store import MemoryStore
from eventlog.store import StoreFull
from eventlog.stored_log import StoredLog
from rbcore.errors import ReadOnly, Unavailable

CRASHED = "The simulated process of the event log crashed."
FULL = "read only: log volume full. The simulated log volume has no room; make some, writing resumes by itself."


class MemoryLog(StoredLog):
    """Implements :class:`eventlog.port.EventLog` over a :class:`MemoryStore`. Made by :func:`open_memory_log`."""

    def __init__(self, store: MemoryStore, commit_seconds: float) -> None:
        super().__init__(store)
        self._memory = store
        self._commit_seconds = commit_seconds
        self._queue: list[Commit] = []
        self._under_way: list[Commit] = []
        self._work = trio.lowlevel.ParkingLot()
        self._crashed = False

    @property
    def store(self) -> MemoryStore:
        """The simulated disk: open the next log on it after a crash."""
        return self._memory

    def _hand_over(self, commit: Commit) -> None:
        self._queue.append(commit)
        self._work.unpark()

    async def _commit_loop(self) -> None:
        while True:
            while not self._queue:
                if self._closed:
                    return
                with trio.CancelScope(shield=True):
                    await self._work.park()
            self._under_way = self._queue[:GROUP_BATCHES_MAX]
            del self._queue[:GROUP_BATCHES_MAX]
            # A disk does not stop because somebody no longer waits for it.
            with trio.CancelScope(shield=True):
                await trio.sleep(self._commit_seconds)
            self._commit_group()

    def _commit_group(self) -> None:
        group, self._under_way = self._under_way, []
        if self._crashed or not group:
            return
        try:
            self._memory.append(group)
        except StoreFull as full:
            self._queue.clear()
            self._taken_back(ReadOnly, str(full))
        else:
            self._committed(group)

    # --- faults ----------------------------------------------------------------------------------------------------

    def fill(self, reason: str = FULL) -> None:
        """The volume is full: the next commit fails, and writing is refused until :meth:`make_room`."""
        self._memory.full = reason

    def make_room(self) -> None:
        self._memory.full = ""
        self._room_again()

    def crash(self, *, lose_commit_under_way: bool = True) -> MemoryStore:
        """The process of the log is gone: nothing more is answered, stored or accepted. Returns the disk it leaves behind.

        Waiters get ``Unavailable`` (in reality they would be gone too). With ``lose_commit_under_way=False`` the commit that was under way
        is on the disk all the same: what was never acknowledged may still be there.
        """
        group, self._under_way = self._under_way, []
        if group and not lose_commit_under_way and not self._memory.full:
            self._memory.append(group)
        self._crashed = True
        self._queue.clear()
        self._close()
        for commit in self._sequencer.take_back():
            commit.fail(Unavailable, CRASHED)
        return self._memory

    def _close(self) -> None:
        super()._close()
        self._work.unpark_all()


@asynccontextmanager
async def open_memory_log(store: MemoryStore | None = None, *, commit_seconds: float = 0.0) -> AsyncIterator[MemoryLog]:
    """A log on a simulated disk. A commit takes ``commit_seconds`` of the (virtual) clock, at least one trip through the scheduler.

    Leaving the block commits what is queued and signs a closing checkpoint, unless it crashed.
    """
    log = MemoryLog(store or MemoryStore(), commit_seconds)
    body_error: BaseException | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log._commit_loop)
        try:
            yield log
        except BaseException as error:
            body_error = error
        log._close()
    if not log._crashed:
        log.store.round_off()
    if body_error is not None:
        raise body_error
