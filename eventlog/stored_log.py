"""The event log over any store: the face that ``LmdbLog`` and ``MemoryLog`` share.

They differ only in how a submitted batch reaches the store (a writer thread, or a trio task under the virtual clock).
Reads decode straight from the store in short steps, so a reader holds nothing and stops nobody.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import trio

from eventlog.commit import Commit, Repeat
from eventlog.port import Batch, LogStatistics
from eventlog.record import decode_answer, decode_time, decode_value
from eventlog.sequencer import Sequencer
from eventlog.store import Store
from eventlog.upcasting import upcast
from rbcore.errors import Damaged, RbError, ReadOnly, Unavailable
from rbcore.events import Envelope

READ_CHUNK_EVENTS = 256
SUBSCRIPTION_CHUNK_EVENTS = 512


class StoredLog:
    """Implements :class:`eventlog.port.EventLog` except for :meth:`_hand_over`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sequencer = Sequencer(store)
        self._durable = store.size
        self._advanced = trio.lowlevel.ParkingLot()
        self._resumed = trio.lowlevel.ParkingLot()
        self._rollbacks: list[Callable[[int], None]] = []
        self._refusal: tuple[type[RbError], str] | None = None
        """Why nothing can be written now."""
        self._closed = False
        self._commits = 0
        self._events = 0
        self._largest_group = 0

    def __repr__(self) -> str:
        state = "closed" if self._closed else self._refusal[1] if self._refusal else "open"
        return f"<{type(self).__name__} head {self._sequencer.head} durable {self._durable}, {state}>"

    # --- writing ---------------------------------------------------------------------------------------------------

    @property
    def head(self) -> int:
        return self._durable

    def submit(self, batch: Batch) -> Commit | Repeat:
        if self._closed:
            raise Unavailable("The event log is closed.")
        if self._refusal is not None:
            kind, reason = self._refusal
            raise kind(reason)
        first = self.first_of(batch.command_id)
        if first is not None:
            return first
        commit = self._sequencer.sequence(batch)
        self._hand_over(commit)
        return commit

    def first_of(self, command_id: str) -> Repeat | None:
        """The batch that this command already became: pending or durable."""
        remembered = self._sequencer.remembered.get(command_id)
        if remembered is not None:
            return Repeat(remembered.envelopes, remembered.answer, remembered)
        span = self._store.batch_of(command_id)
        if span is None:
            return None
        first, last = span
        return Repeat(tuple(self.read(first - 1, last)), decode_answer(self._value_at(last)), None)

    def on_rollback(self, callback: Callable[[int], None]) -> None:
        self._rollbacks.append(callback)

    def _hand_over(self, commit: Commit) -> None:
        """Bring a sequenced batch on its way to the store."""
        raise AssertionError("a log knows how its batches reach the store")

    def _committed(self, group: Sequence[Commit]) -> None:
        """A group is on stable storage."""
        self._sequencer.settle(group)
        head = group[-1].envelopes[-1].position
        self._events += head - self._durable
        self._durable = head
        self._commits += 1
        if len(group) > self._largest_group:
            self._largest_group = len(group)
        for commit in group:
            commit.succeed()
        if self._advanced:
            self._advanced.unpark_all()

    def _taken_back(self, kind: type[RbError], reason: str) -> None:
        """A commit failed: nothing pending will be stored, and until :meth:`_room_again` nothing is accepted.

        Who folded the events is told before anybody who waits for them.
        """
        self._refusal = kind, reason
        lost = self._sequencer.take_back()
        for callback in self._rollbacks:
            callback(self._sequencer.head)
        for commit in lost:
            commit.fail(kind, reason)

    def _room_again(self) -> None:
        if self._refusal is not None and issubclass(self._refusal[0], ReadOnly):
            self._refusal = None
            self._resumed.unpark_all()

    def _close(self) -> None:
        """No batch is accepted and no subscriber waits after this."""
        self._closed = True
        self._advanced.unpark_all()
        self._resumed.unpark_all()

    # --- reading ---------------------------------------------------------------------------------------------------

    def answer_of(self, command_id: str) -> bytes | None:
        remembered = self._sequencer.remembered.get(command_id)
        if remembered is not None:
            return remembered.answer if remembered.is_durable else None
        span = self._store.batch_of(command_id)
        return None if span is None else decode_answer(self._value_at(span[1]))

    def read(self, after: int = 0, until: int | None = None) -> Iterator[Envelope]:
        end = self._durable if until is None else min(until, self._durable)
        while after < end:
            values = self._store.values(after, end, READ_CHUNK_EVENTS)
            if not values:
                raise Damaged(f"The event log has no event {after + 1}, though it goes to {end}. Run 'audit verify'.")
            for value in values:
                yield upcast(decode_value(value))
            after += len(values)

    def read_stream(self, stream: str, after_version: int = 0) -> Iterator[Envelope]:
        # Taken before the store is asked: what is indexed meanwhile is then in both, and not in neither.
        remembered = [
            one
            for commit in tuple(self._sequencer.remembered.values())
            if commit.is_durable
            for one in commit.envelopes
            if one.stream == stream
        ]
        more = True
        while more:
            positions = self._store.positions_of(stream, after_version, READ_CHUNK_EVENTS)
            more = len(positions) == READ_CHUNK_EVENTS
            for position in positions:
                if position > self._durable:
                    return
                yield upcast(decode_value(self._value_at(position)))
            after_version += len(positions)
        yield from (upcast(one) for one in remembered if one.version > after_version)

    def position_at(self, time_ns: int) -> int:
        """Binary search: times only grow with positions, so the log is its own index by time."""
        low, high = 0, self._durable
        while low < high:
            middle = (low + high + 1) // 2
            if decode_time(self._value_at(middle)) <= time_ns:
                low = middle
            else:
                high = middle - 1
        return low

    def time_at(self, position: int) -> int:
        """Nanoseconds of the last event up to ``position``; 0 before the first one."""
        return decode_time(self._value_at(position)) if position else 0

    def subscribe(self, after: int) -> AsyncIterator[Sequence[Envelope]]:
        return Subscription(self, after)

    async def advanced_beyond(self, position: int) -> None:
        """Return when an event after ``position`` is durable. Raises ``Unavailable`` when the log is closed before that."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._durable <= position:
            if self._closed:
                raise Unavailable("The event log is closed.")
            await self._advanced.park()

    async def writable(self) -> None:
        """Return when batches are accepted: at once, or when a full volume has room again. Raises ``Unavailable`` when that will
        not happen by itself."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            if self._closed:
                raise Unavailable("The event log is closed.")
            if self._refusal is None:
                return
            kind, reason = self._refusal
            if not issubclass(kind, ReadOnly):
                raise kind(reason)
            await self._resumed.park()

    def statistics(self) -> LogStatistics:
        reserved_bytes, used_bytes = self._store.usage_bytes()
        return LogStatistics(
            head=self._sequencer.head,
            durable=self._durable,
            read_only_reason=self._refusal[1] if self._refusal else "",
            commits=self._commits,
            events=self._events,
            largest_group=self._largest_group,
            map_bytes=reserved_bytes,
            used_bytes=used_bytes,
        )

    def _value_at(self, position: int) -> bytes:
        value = self._store.value_at(position)
        if value is None:
            raise Damaged(f"The event log has no event {position}, though it should. Run 'audit verify'.")
        return value


class Subscription:
    """Every durable event after a position, in order and in batches. It remembers only its position: what it has not yet
    delivered stays in the store, so neither side waits for the other and nothing is buffered."""

    def __init__(self, log: StoredLog, after: int) -> None:
        self._log = log
        self.position = after

    def __repr__(self) -> str:
        return f"<Subscription at {self.position} of {self._log.head}>"

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Sequence[Envelope]:
        if self._log.head <= self.position:
            await self._log.advanced_beyond(self.position)
        else:
            await trio.lowlevel.checkpoint()
        batch = tuple(self._log.read(self.position, self.position + SUBSCRIPTION_CHUNK_EVENTS))
        self.position = batch[-1].position
        return batch
