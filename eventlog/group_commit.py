"""The writer thread: everything that waits is committed in one transaction.

LMDB wants a write transaction to stay in one thread, and a flush must not stop the trio loop; so one thread does nothing but take
what is queued, append it, and tell the loop. It never lingers to gather more: while one commit is being flushed the next group gathers by
itself. A queue put costs 15 us where a hop through trio's thread cache costs 134 us.

When a commit fails, what was submitted after it was sequenced on top of it and must fail too. The loop takes all of it back and starts
a new epoch; until then the writer drops batches of the failed epoch. After a full volume the thread looks every ``probe_seconds``
whether there is room again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue

import trio

from eventlog.commit import Commit
from eventlog.doorbell import Doorbell
from eventlog.store import StoreFailed, StoreFull
from rbcore.errors import RbError, ReadOnly, Unavailable

GROUP_BATCHES_MAX = 1024
GROUP_BYTES_MAX = 8 << 20
STOP_SECONDS_MAX = 30.0
LOOK_FOR_ROOM_COMMITS = 32
"""Looking for room costs a lone commit three parts in a hundred. A volume that fills up faster than this says so itself."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class WriterActions:
    """What the writer does with the store, in its thread."""

    append: Callable[[Sequence[Commit]], None]
    room_problem: Callable[[], str | None]
    finish: Callable[[], None]
    """The last act: the closing checkpoint."""


@dataclass(frozen=True, kw_only=True)
class WriterEvents:
    """What the writer tells, in the trio thread."""

    committed: Callable[[Sequence[Commit]], None]
    failed: Callable[[type[RbError], str], None]
    room_again: Callable[[], None]


class GroupCommit:
    """The writer thread and its queue. Make it inside ``trio.run``; ``put`` never waits; ``stop`` commits what is queued."""

    def __init__(self, name: str, actions: WriterActions, events: WriterEvents, probe_seconds: float) -> None:
        self._name = name
        self._actions = actions
        self._events = events
        self._probe_seconds = probe_seconds
        self._queue: SimpleQueue[Commit | None] = SimpleQueue()
        """Bounded by the sequencer: it refuses batches when too much is pending. None ends the thread."""
        self._doorbell = Doorbell()
        self._ended = trio.Event()
        self._failed_epoch = -1
        self._no_room: str | None = None
        """Why the next commit must not be tried."""
        self._commits = 0
        self._full = False
        """Whether a commit failed for want of room: the loop takes no batch until it is told otherwise."""
        self._thread = threading.Thread(target=self._run, name=f"log writer {name}", daemon=True)
        self._thread.start()

    def put(self, commit: Commit) -> None:
        self._queue.put(commit)

    async def stop(self) -> None:
        """Commit what is queued, sign the closing checkpoint, end the thread.

        Shielded from cancellation, and bounded: raises ``Unavailable`` when the volume does not let the thread end.
        """
        self._queue.put(None)
        with trio.move_on_after(STOP_SECONDS_MAX, shield=True):
            await self._ended.wait()
            self._thread.join()
            self._doorbell.close()
            return
        raise Unavailable(
            f"The event log in {self._name} did not finish writing in {STOP_SECONDS_MAX:.0f} s: its volume does not answer."
        )

    # --- in the writer thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Nothing stands between telling the loop and waiting for the next batch: the two threads share the interpreter's lock, and
        whatever this one still did would hold up the one that was just woken."""
        try:
            self._no_room = self._actions.room_problem()
            get, empty = self._queue.get, self._queue.empty
            item = get()
            while item is not None:
                group = [item]
                last = False if empty() else self._gather(group)
                if group[0].epoch == self._failed_epoch:
                    group = [commit for commit in group if commit.epoch != self._failed_epoch]
                if group:
                    self._commit(group)
                item = None if last else self._wait_for_room() if self._full else get()
            self._actions.finish()
        finally:
            self._doorbell.ring(self._ended.set)

    def _gather(self, group: list[Commit]) -> bool:
        """Add what else is there, up to the bounds; whether nothing comes after it."""
        group_bytes = group[0].payload_bytes
        while len(group) < GROUP_BATCHES_MAX and group_bytes < GROUP_BYTES_MAX:
            try:
                item = self._queue.get_nowait()
            except Empty:
                break
            if item is None:
                return True
            group.append(item)
            group_bytes += item.payload_bytes
        return False

    def _wait_for_room(self) -> Commit | None:
        """The next batch; until there is one, look for room now and then."""
        while self._full:
            try:
                return self._queue.get(timeout=self._probe_seconds)
            except Empty:
                self._no_room = self._actions.room_problem()
                if self._no_room is None:
                    self._full = False
                    self._doorbell.ring(self._events.room_again)
        return self._queue.get()

    def _commit(self, group: Sequence[Commit]) -> None:
        failure: tuple[type[RbError], str]
        try:
            self._append(group)
        except StoreFull as full:
            self._full = True
            failure = ReadOnly, str(full)
        except StoreFailed as failed:
            failure = Unavailable, str(failed)
        except Exception as bug:
            # Whoever waits must hear of it: a writer that just died would leave them waiting for ever.
            logger.exception("event log: the writer failed")
            failure = Unavailable, f"The event log in {self._name} cannot be written: {bug!r}. Restart the daemon."
        else:
            self._commits += 1
            if self._commits % LOOK_FOR_ROOM_COMMITS == 0:
                self._no_room = self._actions.room_problem()
            self._doorbell.ring(self._events.committed, group)
            return
        self._failed_epoch = group[0].epoch
        self._doorbell.ring(self._events.failed, *failure)

    def _append(self, group: Sequence[Commit]) -> None:
        if self._no_room is not None:
            raise StoreFull(self._no_room)
        self._actions.append(group)
