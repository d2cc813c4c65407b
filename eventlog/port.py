"""The port of the event log: what the rest of the house may ask of it, whatever stores it.

``LmdbLog`` is the store of the product, ``MemoryLog`` the one of simulation (with crash and full-disk faults). A replicated
log on an existing engine could take their place.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Protocol

import msgspec

from rbcore.events import Envelope, NewEvent


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """The events of one command, at least one: they land together or not at all."""

    events: Sequence[NewEvent]
    expected: dict[str, int]
    """Stream -> version it must have before this batch (0: it must not exist). Streams not named are not checked."""
    command_id: str
    actor: str
    causation: int
    correlation: str
    time_ns: int
    answer: bytes
    """Remembered with the command id; a repeat of the command gets it back."""


class PendingCommit(Protocol):
    """A batch that has its positions but is not yet on stable storage."""

    envelopes: tuple[Envelope, ...]
    answer: bytes
    """What the command is answered: of its first submission, if it was submitted before."""
    repeated: bool
    """Whether the command had been submitted before: then the envelopes are those of its first batch, and nothing was added."""

    async def durable(self) -> None:
        """Return when the batch is on stable storage; raise ``ReadOnly`` when the volume was full and it is not."""


class LogStatistics(msgspec.Struct, frozen=True, kw_only=True):
    head: int
    durable: int
    read_only_reason: str
    commits: int
    events: int
    largest_group: int
    map_bytes: int
    used_bytes: int


class EventLog(Protocol):
    """One order of all events, appended to by one writer. Everything read from it is on stable storage."""

    @property
    def head(self) -> int:
        """Position of the last event that is on stable storage; 0 for an empty log."""

    def submit(self, batch: Batch) -> PendingCommit:
        """Give the batch its positions and hand it to the group commit. Never waits.

        Raises ``VersionConflict``; ``ReadOnly`` while the volume is full; ``Unavailable`` when the bounded queue is full.
        A command id that is pending or durable adds nothing: the result then has ``repeated`` set and stands for the first batch.
        Command ids are remembered as long as the log.

        If a commit fails, every batch submitted after it fails too, positions are taken back, and ``on_rollback`` is called.
        """

    def on_rollback(self, callback: Callable[[int], None]) -> None:
        """Register what is called with the position up to which events stand, when submitted ones were taken back."""

    def answer_of(self, command_id: str) -> bytes | None:
        """The first answer given to this command, if its batch is on stable storage."""

    def read(self, after: int = 0, until: int | None = None) -> Iterator[Envelope]:
        """Durable events with ``after < position <= until``, upcast to the newest schema. A short read transaction per chunk."""

    def read_stream(self, stream: str, after_version: int = 0) -> Iterator[Envelope]:
        """Durable events of one stream in order, by index."""

    def position_at(self, time_ns: int) -> int:
        """Last position whose time is at or before ``time_ns`` (0: none). Times are made monotonic when appended."""

    def time_at(self, position: int) -> int:
        """Nanoseconds of the event at ``position``, which is not above the head; 0 at 0."""

    def subscribe(self, after: int) -> AsyncIterator[Sequence[Envelope]]:
        """Every durable event after ``after``, in order, in batches, for ever. A slow reader reads from the store: it never
        loses events and never makes the log wait."""

    def statistics(self) -> LogStatistics: ...
