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
from eventlog.store import StoreFailed, StoreFull
from rbcore.errors import RbError, ReadOnly, Unavailable

GROUP_BATCHES_MAX = 1024
GROUP_BYTES_MAX = 8 << 20
STOP_SECONDS_MAX = 30.0

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
        self._token = trio.lowlevel.current_trio_token()
        self._ended = trio.Event()
        self._failed_epoch = -1
        self._full = False
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
            return
        raise Unavailable(
            f"The event log in {self._name} did not finish writing in {STOP_SECONDS_MAX:.0f} s: its volume does not answer."
        )

    # --- in the writer thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            running = True
            while running:
                group, running = self._gather()
                group = [commit for commit in group if commit.epoch != self._failed_epoch]
                if group:
                    self._commit(group)
            self._actions.finish()
        finally:
            self._tell(self._ended.set)

    def _gather(self) -> tuple[list[Commit], bool]:
        """Wait for one batch, take what else is there up to the bounds: (batches, whether to go on)."""
        item = self._wait()
        group: list[Commit] = []
        group_bytes = 0
        while item is not None:
            group.append(item)
            group_bytes += item.payload_bytes
            if len(group) >= GROUP_BATCHES_MAX or group_bytes >= GROUP_BYTES_MAX:
                return group, True
            try:
                item = self._queue.get_nowait()
            except Empty:
                return group, True
        return group, False

    def _wait(self) -> Commit | None:
        while self._full:
            try:
                return self._queue.get(timeout=self._probe_seconds)
            except Empty:
                if self._actions.room_problem() is None:
                    self._full = False
                    self._tell(self._events.room_again)
        return self._queue.get()

    def _commit(self, group: Sequence[Commit]) -> None:
        failure: tuple[type[RbError], str]
        try:
            self._actions.append(group)
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
            self._tell(self._events.committed, group)
            return
        self._failed_epoch = group[0].epoch
        self._tell(self._events.failed, *failure)

    def _tell(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            self._token.run_sync_soon(callback, *arguments)
        except trio.RunFinishedError:
            logger.warning("event log: the loop ended before the writer of %s", self._name)
