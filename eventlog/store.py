"""What a log needs of the place where its records are kept: the seam between sequencing and storage.

``LmdbStore`` keeps them in LMDB, ``MemoryStore`` in lists that survive a simulated crash. ``append`` is called from one
thread only; reads may come from any.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from eventlog.checkpoint import Checkpoint
from eventlog.commit import Commit

STREAM_BYTES_MAX = 400
COMMAND_ID_BYTES_MAX = 400
"""Index keys hold these; LMDB allows 511 bytes in a key."""


class StoreFull(Exception):
    """There is no room; nothing of the commit is stored. Writing may succeed later. The text says what is full."""


class StoreFailed(Exception):
    """The store cannot be trusted with writes any more until it is opened again. The text says why."""


class Store(Protocol):
    """Where records stand: LMDB in the product, memory in simulation. One thread appends, any may read."""

    log_id: bytes

    @property
    def size(self) -> int:
        """Records on stable storage, which is also the position of the last one."""

    @property
    def indexed(self) -> int:
        """Position up to which streams and commands can be looked up; what is newer the log remembers itself."""

    def newest_time_ns(self) -> int:
        """Time of the last record; 0 for an empty log."""

    def append(self, commits: Sequence[Commit]) -> None:
        """Store the batches in one atomic, durable step. Raises ``StoreFull``, ``StoreFailed``; then nothing is stored."""

    def room_problem(self) -> str | None:
        """Why nothing can be written now, as a sentence; None when there is room."""

    def value_at(self, position: int) -> bytes | None: ...

    def values(self, after: int, until: int, limit: int) -> list[bytes]:
        """At most ``limit`` records from ``after < position <= until``, in order."""

    def positions_of(self, stream: str, after_version: int, limit: int) -> list[int]:
        """Positions of the stream's next ``limit`` indexed events after ``after_version``."""

    def version_of(self, stream: str) -> int:
        """Version of the stream's last indexed event; 0 when it has none."""

    def batch_of(self, command_id: str) -> tuple[int, int] | None:
        """First and last position of the batch of a command, if it is indexed."""

    def newest_checkpoint(self) -> Checkpoint | None: ...

    def usage_bytes(self) -> tuple[int, int]:
        """(reserved, used)."""
