"""Records in memory: the disk of a simulated log. It outlives the log that was opened on it, as a disk outlives a process."""

from __future__ import annotations

from collections.abc import Sequence

from eventlog.chain import CHECKPOINT_EVERY_EVENTS, Chain
from eventlog.checkpoint import Checkpoint
from eventlog.commit import Commit
from eventlog.record import LOG_ID_BYTES, decode_time
from eventlog.signing import Signer
from eventlog.store import StoreFull


class MemoryStore:
    """Implements :class:`eventlog.store.Store`. ``full`` is a fault: while it is not empty, appending fails with that reason."""

    def __init__(
        self,
        log_id: bytes = bytes(LOG_ID_BYTES),
        signer: Signer | None = None,
        checkpoint_every_events: int = CHECKPOINT_EVERY_EVENTS,
    ) -> None:
        self.log_id = log_id
        self.full = ""
        self.records: list[bytes] = []
        self.checkpoints: list[Checkpoint] = []
        self._streams: dict[str, list[int]] = {}
        self._commands: dict[str, tuple[int, int]] = {}
        self._bytes = 0
        self._chain = Chain(log_id, signer or Signer(bytes(32)), checkpoint_every_events=checkpoint_every_events)

    @property
    def size(self) -> int:
        return len(self.records)

    @property
    def indexed(self) -> int:
        return len(self.records)

    def root(self) -> bytes:
        """Merkle tree head over everything stored."""
        return self._chain.root()

    def newest_time_ns(self) -> int:
        return decode_time(self.records[-1]) if self.records else 0

    def append(self, commits: Sequence[Commit]) -> None:
        if self.full:
            raise StoreFull(self.full)
        payloads = [payload for commit in commits for payload in commit.payloads]
        sealed = self._chain.seal(payloads, commits[-1].envelopes[-1].time_ns)
        for commit in commits:
            assert commit.envelopes[0].position > self.size, "batches arrive in order"
            for envelope in commit.envelopes:
                self._streams.setdefault(envelope.stream, []).append(envelope.position)
            self._commands[commit.command_id] = (commit.envelopes[0].position, commit.envelopes[-1].position)
        self.records.extend(sealed.values)
        self._bytes += sum(map(len, sealed.values))
        if sealed.checkpoint is not None:
            self.checkpoints.append(sealed.checkpoint)
        self._chain.adopt(sealed)
        self._chain.subtrees.clear()
        assert self._chain.size == self.size == commits[-1].envelopes[-1].position, "positions have no gaps"

    def round_off(self) -> None:
        """Sign all records so far, unless the newest checkpoint covers them already."""
        if self.size > self._chain.checkpointed_size:
            self.checkpoints.append(self._chain.sign(self.newest_time_ns()))
            self._chain.checkpointed_size = self.size

    def room_problem(self) -> str | None:
        return self.full or None

    def value_at(self, position: int) -> bytes | None:
        return self.records[position - 1] if 0 < position <= len(self.records) else None

    def values(self, after: int, until: int, limit: int) -> list[bytes]:
        return self.records[after : min(until, after + limit)]

    def positions_of(self, stream: str, after_version: int, limit: int) -> list[int]:
        return self._streams.get(stream, [])[after_version : after_version + limit]

    def version_of(self, stream: str) -> int:
        return len(self._streams.get(stream, ()))

    def batch_of(self, command_id: str) -> tuple[int, int] | None:
        return self._commands.get(command_id)

    def newest_checkpoint(self) -> Checkpoint | None:
        return self.checkpoints[-1] if self.checkpoints else None

    def usage_bytes(self) -> tuple[int, int]:
        return self._bytes, self._bytes
