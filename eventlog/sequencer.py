"""Gives batches their positions and versions, ahead of the disk.

Positions and versions are assigned when a batch is submitted, against what is durable plus what is pending, so that commits can be
pipelined. When a commit fails everything pending is taken back at once: what was assigned after it was assigned on top of it.

Batches are remembered here until the store has indexed them, some thousand events later: until then the store cannot look them up.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

import msgspec

from eventlog.commit import Commit
from eventlog.port import Batch
from eventlog.record import ClosingEnvelope, encode_payload
from eventlog.store import COMMAND_ID_BYTES_MAX, STREAM_BYTES_MAX, Store
from rbcore.errors import InvalidRequest, TooLarge, Unavailable, VersionConflict
from rbcore.events import Envelope

BATCH_BYTES_MAX = 16 << 20
PENDING_BATCHES_MAX = 8192
PENDING_BYTES_MAX = 64 << 20
VERSIONS_REMEMBERED_MAX = 65_536
"""Streams whose version is remembered, so that a busy one costs no look into the store."""


class Sequencer:
    """Everything about the part of the log that is not yet durable. Used by one thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.epoch = 0
        self.remembered: dict[str, Commit] = {}
        """Batches that are pending or not indexed yet: by command id, in order of submission."""
        self._indexed = store.indexed
        self._start()

    def _start(self) -> None:
        """Nothing is pending: go on from what is durable."""
        self.head = self._store.size
        self._time_ns = self._store.newest_time_ns()
        self._pending = 0
        self._pending_bytes = 0
        self._versions = self._remembered_versions()
        """Version of every stream in a remembered batch, and of others that were used lately."""

    def _remembered_versions(self) -> dict[str, int]:
        return {one.stream: one.version for commit in self.remembered.values() for one in commit.envelopes}

    def version_of(self, stream: str) -> int:
        """Version of the stream with what is pending. Raises ``InvalidRequest`` for a name that no stream can have."""
        version = self._versions.get(stream)
        if version is None:
            if not 0 < len(stream.encode()) <= STREAM_BYTES_MAX or "\0" in stream:
                raise InvalidRequest(
                    f"A stream name has 1 to {STREAM_BYTES_MAX} bytes and no NUL: {stream[:40]!r} does not."
                )
            version = self._versions[stream] = self._store.version_of(stream)
        return version

    def sequence(self, batch: Batch) -> Commit:
        """Assign positions and make the batch pending.

        Raises ``VersionConflict``, ``InvalidRequest`` and ``TooLarge`` for the batch, ``Unavailable`` when too much is pending;
        then nothing has changed.
        """
        if self._pending >= PENDING_BATCHES_MAX or self._pending_bytes >= PENDING_BYTES_MAX:
            raise Unavailable(
                f"The event log has {self._pending} batches ({self._pending_bytes} bytes) waiting for the disk. Try again."
            )
        versions = self._versions_after(batch)
        time_ns = max(batch.time_ns, self._time_ns)
        commit = self._encode(batch, versions, time_ns)
        if commit.payload_bytes > BATCH_BYTES_MAX:
            raise TooLarge(
                f"The events of command {batch.command_id} take {commit.payload_bytes} bytes; a batch may take {BATCH_BYTES_MAX}."
            )
        self._versions.update(versions)
        self.remembered[batch.command_id] = commit
        self._pending += 1
        self._pending_bytes += commit.payload_bytes
        self.head += len(commit.envelopes)
        self._time_ns = time_ns
        return commit

    def _versions_after(self, batch: Batch) -> dict[str, int]:
        """Versions that the streams of the batch had, checked; raised to what they will be by :meth:`_encode`."""
        if not batch.events:
            raise InvalidRequest(
                "A batch has at least one event: without one there is nothing to remember its answer by."
            )
        if not 0 < len(batch.command_id.encode()) <= COMMAND_ID_BYTES_MAX:
            raise InvalidRequest(f"A command id has 1 to {COMMAND_ID_BYTES_MAX} bytes, not {len(batch.command_id)}.")
        for stream, expected in batch.expected.items():
            actual = self.version_of(stream)
            if actual != expected:
                raise VersionConflict(
                    f"{stream} is at version {actual}, not {expected}: it changed meanwhile. Look again and repeat.",
                    data={"stream": stream, "expected": expected, "actual": actual},
                )
        versions: dict[str, int] = {}
        for new in batch.events:
            stream = new.stream
            if stream not in versions:
                versions[stream] = self.version_of(stream)
        return versions

    def _encode(self, batch: Batch, versions: dict[str, int], time_ns: int) -> Commit:
        """Envelopes and payloads. ``versions`` is moved on to what the streams have after the batch."""
        envelopes: list[Envelope] = []
        payloads: list[bytes] = []
        position = self.head
        last = position + len(batch.events)
        for new in batch.events:
            position += 1
            stream, event = new.stream, new.event
            versions[stream] = version = versions[stream] + 1
            fields = (
                position,
                time_ns,
                stream,
                version,
                event.TYPE,
                event.SCHEMA,
                batch.actor,
                batch.command_id,
                batch.causation,
                batch.correlation,
                msgspec.Raw(encode_payload(event)),
            )
            envelope = Envelope(*fields)
            envelopes.append(envelope)
            payloads.append(encode_payload(envelope if position < last else ClosingEnvelope(*fields, batch.answer)))
        return Commit(tuple(envelopes), payloads, batch.command_id, batch.answer, self.epoch)

    def settle(self, commits: Sequence[Commit]) -> None:
        """The batches are durable."""
        self._pending -= len(commits)
        for commit in commits:
            self._pending_bytes -= commit.payload_bytes
        # The store may be ahead of what the loop was told: what is pending stays remembered.
        indexed = min(self._store.indexed, commits[-1].envelopes[-1].position)
        if indexed > self._indexed:
            self._forget(indexed)

    def _forget(self, indexed: int) -> None:
        """The store can look up everything up to ``indexed``."""
        self._indexed = indexed
        remembered = iter(self.remembered.values())
        forgotten = list(takewhile(lambda commit: commit.envelopes[-1].position <= indexed, remembered))
        for commit in forgotten:
            del self.remembered[commit.command_id]
        if len(self._versions) > VERSIONS_REMEMBERED_MAX:
            self._versions = self._remembered_versions()

    def take_back(self) -> list[Commit]:
        """Forget everything pending, go back to what is durable, and start a new epoch. Returns what was pending."""
        lost = [commit for commit in self.remembered.values() if commit.is_pending]
        for commit in lost:
            del self.remembered[commit.command_id]
        self.epoch += 1
        self._start()
        return lost
