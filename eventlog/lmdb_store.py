"""Records in LMDB: the one write transaction of a group of batches, short reads, and what is checked when a log is opened."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lmdb
import msgspec

from eventlog.chain import CHECKPOINT_EVERY_EVENTS, Chain
from eventlog.checkpoint import Checkpoint, decode_checkpoint, encode_checkpoint
from eventlog.commit import Commit
from eventlog.environment import DATA_FILE, FORMAT, Environment, WriterLock, opening
from eventlog.indexes import (
    INDEX_LAG_BYTES,
    INDEX_LAG_EVENTS,
    INDEXED_AT_ONCE_EVENTS,
    IndexEntries,
    stream_key,
    unpack_span,
)
from eventlog.merkle import SUBTREE_LEAVES, Frontier, complete_root
from eventlog.record import (
    HASH_BYTES,
    LOG_ID_BYTES,
    decode_time,
    decode_value,
    genesis_trailer,
    key_position,
    payload_of,
    position_key,
    record_hash,
    trailer_of,
)
from eventlog.runway import RUNWAY_BYTES, Runway
from eventlog.signing import Signer
from eventlog.store import COMMAND_ID_BYTES_MAX, StoreFailed, StoreFull
from rbcore.errors import Damaged, Refused

TAIL_CHECK_RECORDS = 64
"""Records whose chain is checked whenever the log is opened; all of them is ``audit verify``'s job."""

RESUME_BYTES_MIN = 1 << 20
"""What a volume that ran full must have free before a commit is tried again."""

_NEWEST_VERSION = b"\xff" * 8


class StoreOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a log uses its volume."""

    map_bytes: int = 64 << 30
    """Address space reserved for the data file; the file itself grows only with its contents."""
    free_bytes_min: int = 64 << 20
    """Writing stops when the volume has less than this free, before the file system says so in the middle of a commit."""
    checkpoint_every_events: int = CHECKPOINT_EVERY_EVENTS


class LmdbStore:
    """Implements :class:`eventlog.store.Store`. Opening it makes an empty log when there is none.

    Raises ``Refused`` when another process appends to the log or when it belongs to another signing key, ``Damaged`` when its tail
    does not hold together, ``Unavailable`` when the volume does not let it open.
    """

    def __init__(
        self, path: Path, signer: Signer, options: StoreOptions | None = None, log_id: bytes | None = None
    ) -> None:
        self.path = path
        self._options = options or StoreOptions()
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = WriterLock(path)
        try:
            self._environment = Environment(path, self._options.map_bytes, readonly=False)
        except BaseException:
            self._lock.release()
            raise
        self._runway = Runway(path / DATA_FILE)
        self._lmdb = self._environment.lmdb
        self._events = self._environment.events
        self._page_bytes: int = self._lmdb.stat()["psize"]
        self._ran_full = False
        self._unindexed: list[Commit] = []
        self._unindexed_bytes = 0
        self._map_bytes_min = min(32 << 20, self._options.map_bytes // 8)
        try:
            with opening(path):
                self.log_id = self._identify(signer, log_id or os.urandom(LOG_ID_BYTES))
                self._chain = self._load_chain(signer)
                self.indexed = self._catch_up()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._runway.close()
        self._environment.close()
        self._lock.release()

    # --- opening ---------------------------------------------------------------------------------------------------

    def _identify(self, signer: Signer, fresh_log_id: bytes) -> bytes:
        with self._lmdb.begin(write=True, db=self._environment.meta) as transaction:
            found = transaction.get(b"format")
            if found is None:
                if transaction.stat(self._events)["entries"]:
                    raise Refused(f"{self.path} holds an import that did not finish. Remove it and import again.")
                transaction.put(b"format", FORMAT)
                transaction.put(b"log_id", fresh_log_id)
                transaction.put(b"signing_key", signer.public_key.encode())
                return fresh_log_id
            if found != FORMAT:
                raise Refused(f"The event log in {self.path} has the format {found!r}; this version knows {FORMAT!r}.")
            log_id: bytes = transaction.get(b"log_id") or b""
            signing_key = transaction.get(b"signing_key") or b""
        if len(log_id) != LOG_ID_BYTES:
            raise Damaged(f"The event log in {self.path} has lost its id. Run 'audit verify'.")
        if signing_key != signer.public_key.encode():
            raise Refused(
                f"The checkpoints of the event log in {self.path} are signed by key "
                f"{signing_key.decode('ascii', 'replace')}, and the secrets directory holds {signer.public_key}. "
                "Restore the signing key that belongs to this log."
            )
        return log_id

    def _load_chain(self, signer: Signer) -> Chain:
        with self._lmdb.begin() as transaction:
            cursor = transaction.cursor(self._events)
            size = key_position(cursor.key()) if cursor.last() else 0
            count = transaction.stat(self._events)["entries"]
            newest = transaction.cursor(self._environment.checkpoints)
            checkpointed_size = key_position(newest.key()) if newest.last() else 0
        if count != size:
            raise Damaged(f"The event log in {self.path} ends at {size} and has {count} events. Run 'audit verify'.")
        if checkpointed_size > size:
            raise Damaged(
                f"The event log in {self.path} ends at event {size}, and a checkpoint was signed over "
                f"{checkpointed_size} events: events {size + 1} to {checkpointed_size} are lost. "
                "Restore the log from an export or a copy."
            )
        return Chain(
            self.log_id,
            signer,
            trailer=self._check_tail(size),
            frontier=self._load_frontier(size),
            checkpointed_size=checkpointed_size,
            checkpoint_every_events=self._options.checkpoint_every_events,
        )

    def _check_tail(self, size: int) -> bytes:
        """Check the chain of the last records; the trailer of the last."""
        first = max(1, size - TAIL_CHECK_RECORDS + 1)
        before = self.value_at(first - 1) if first > 1 else None
        trailer = genesis_trailer(self.log_id) if before is None else trailer_of(before)
        for position in range(first, size + 1):
            value = self.value_at(position)
            if value is None or record_hash(trailer, payload_of(value)) != value[-HASH_BYTES:]:
                raise Damaged(
                    f"Event {position} near the end of the log in {self.path} is damaged. Run 'audit verify'."
                )
            trailer = trailer_of(value)
        return trailer

    def _load_frontier(self, size: int) -> Frontier:
        """The tree's right edge from stored subtree roots; a root that is missing is made from its leaves."""
        frontier = Frontier()
        with self._lmdb.begin(db=self._environment.subtrees) as transaction:
            for number in range(size // SUBTREE_LEAVES):
                root = transaction.get(position_key(number))
                if root is None:
                    start = number * SUBTREE_LEAVES
                    leaves = [value[-HASH_BYTES:] for value in self.all_values(start, start + SUBTREE_LEAVES)]
                    root = complete_root(leaves)
                frontier.append_subtree(root)
        for value in self.all_values(frontier.size, size):
            frontier.append(value[-HASH_BYTES:])
        return frontier

    def _catch_up(self) -> int:
        """Index the events that came after the last time the indexes were written. Returns where that leads: to the end."""
        with self._lmdb.begin(db=self._environment.meta) as transaction:
            indexed = key_position(transaction.get(b"indexed") or position_key(0))
        while indexed < self.size:
            entries = IndexEntries(indexed)
            for value in self.all_values(indexed, min(self.size, indexed + INDEXED_AT_ONCE_EVENTS)):
                entries.add(decode_value(value))
            with self._lmdb.begin(write=True) as transaction:
                entries.write(transaction, self._environment)
            indexed = entries.position
        return indexed

    # --- writing ---------------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        return self._chain.size

    @property
    def checkpointed_size(self) -> int:
        """Events that the newest checkpoint covers."""
        return self._chain.checkpointed_size

    def append(self, commits: Sequence[Commit]) -> None:
        payloads = [payload for commit in commits for payload in commit.payloads]
        position = commits[0].envelopes[0].position
        assert position == self._chain.size + 1, "batches arrive in order and without gaps"
        sealed = self._chain.seal(payloads, commits[-1].envelopes[-1].time_ns)
        unindexed_bytes = self._unindexed_bytes + sum(map(len, payloads))
        index_now = position + len(payloads) > self.indexed + INDEX_LAG_EVENTS or unindexed_bytes > INDEX_LAG_BYTES
        try:
            with self._lmdb.begin(write=True) as transaction:
                for value in sealed.values:
                    if not transaction.put(position_key(position), value, append=True, db=self._events):
                        raise StoreFailed(f"The event log in {self.path} has an event {position} already.")
                    position += 1
                if sealed.checkpoint is not None:
                    self._put_checkpoint(transaction, position - 1, sealed.checkpoint)
                if index_now:
                    self._put_indexes(transaction, [*self._unindexed, *commits])
        except lmdb.Error as error:
            raise self._as_store_error(error, sum(map(len, payloads))) from error
        self._chain.adopt(sealed)
        self._ran_full = False
        if index_now:
            self._indexes_written()
        else:
            self._unindexed += commits
            self._unindexed_bytes = unindexed_bytes

    def _put_indexes(self, transaction: Any, commits: Sequence[Commit]) -> None:
        """Everything that follows from the events and is not written yet."""
        entries = IndexEntries(self.indexed)
        for commit in commits:
            for envelope in commit.envelopes:
                entries.add(envelope)
        entries.write(transaction, self._environment)
        for number, root in self._chain.subtrees:
            transaction.put(position_key(number), root, db=self._environment.subtrees)

    def _indexes_written(self) -> None:
        self.indexed = self._chain.size
        self._unindexed = []
        self._unindexed_bytes = 0
        self._chain.subtrees.clear()

    def _put_checkpoint(self, transaction: Any, size: int, checkpoint: Checkpoint) -> None:
        transaction.put(position_key(size), encode_checkpoint(checkpoint), db=self._environment.checkpoints)

    def round_off(self) -> None:
        """Write what only lags for speed: index entries, and a checkpoint of all records. Raises as :meth:`append` does."""
        chain = self._chain
        checkpoint = chain.sign(self.newest_time_ns()) if chain.size > chain.checkpointed_size else None
        if checkpoint is None and self.indexed == chain.size:
            return
        try:
            with self._lmdb.begin(write=True) as transaction:
                self._put_indexes(transaction, self._unindexed)
                if checkpoint is not None:
                    self._put_checkpoint(transaction, chain.size, checkpoint)
        except lmdb.Error as error:
            raise self._as_store_error(error, 0) from error
        chain.checkpointed_size = chain.size
        self._indexes_written()

    def room_problem(self) -> str | None:
        free_bytes, needed_bytes = self._free_bytes(), self._needed_bytes()
        if free_bytes < needed_bytes:
            return (
                f"read only: log volume full. {self.path} has {free_bytes >> 10} KiB free and needs "
                f"{needed_bytes >> 10} KiB; free some space there, writing resumes by itself."
            )
        reserved_bytes, used_bytes = self.usage_bytes()
        if reserved_bytes - used_bytes < self._map_bytes_min:
            return self._map_full(used_bytes)
        return None

    def extend_runway(self) -> None:
        """Make the next commits cheap, if there is plenty of room. Called by the writer now and then."""
        if self._free_bytes() >= 2 * RUNWAY_BYTES + self._needed_bytes():
            self._runway.extend(self.usage_bytes()[1])

    def _needed_bytes(self) -> int:
        return max(self._options.free_bytes_min, RESUME_BYTES_MIN) if self._ran_full else self._options.free_bytes_min

    def _free_bytes(self) -> int:
        volume = os.statvfs(self.path)
        return volume.f_bavail * volume.f_frsize

    def _map_full(self, used_bytes: int) -> str:
        return (
            f"read only: log map full. The event log in {self.path} has {used_bytes >> 20} MiB of the "
            f"{self._options.map_bytes >> 20} MiB that are reserved for it; restart the daemon with a larger map."
        )

    def _as_store_error(self, error: lmdb.Error, written_bytes: int) -> StoreFull | StoreFailed:
        """Which of LMDB's errors can pass by themselves? A volume that is full, or a quota that is.

        A write that a full volume cuts short is reported as an input/output error: then it decides whether there is room for what was
        to be written, pages and all.
        """
        if isinstance(error, lmdb.MapFullError):
            return StoreFull(self._map_full(self.usage_bytes()[1]))
        text = str(error)
        cut_short = os.strerror(errno.EIO) in text and self._free_bytes() < RESUME_BYTES_MIN + 2 * written_bytes
        if isinstance(error, lmdb.DiskError) or os.strerror(errno.EDQUOT) in text or cut_short:
            self._ran_full = True
            return StoreFull(
                f"read only: log volume full. Free some space on the volume of {self.path}, writing resumes by itself."
            )
        return StoreFailed(
            f"The event log in {self.path} cannot be written: {error}. Check the volume, then restart the daemon."
        )

    # --- reading ---------------------------------------------------------------------------------------------------

    def newest_time_ns(self) -> int:
        value = self.value_at(self.size)
        return 0 if value is None else decode_time(value)

    def value_at(self, position: int) -> bytes | None:
        with self._lmdb.begin(db=self._events) as transaction:
            value: bytes | None = transaction.get(position_key(position))
        return value

    def values(self, after: int, until: int, limit: int) -> list[bytes]:
        count = min(limit, until - after)
        found: list[bytes] = []
        with self._lmdb.begin(db=self._events) as transaction:
            cursor = transaction.cursor()
            if count > 0 and cursor.set_key(position_key(after + 1)):
                for value in cursor.iternext(keys=False):
                    found.append(value)
                    if len(found) == count:
                        break
        return found

    def all_values(self, after: int, until: int) -> Iterator[bytes]:
        """Records from ``after < position <= until``, read in short steps. Raises ``Damaged`` when there are fewer."""
        while after < until:
            values = self.values(after, until, SUBTREE_LEAVES)
            if not values:
                raise Damaged(f"The event log in {self.path} has no event {after + 1}. Run 'audit verify'.")
            yield from values
            after += len(values)

    def positions_of(self, stream: str, after_version: int, limit: int) -> list[int]:
        prefix = stream.encode() + b"\0"
        key_bytes = len(prefix) + 8
        found: list[int] = []
        with self._lmdb.begin(db=self._environment.streams) as transaction:
            cursor = transaction.cursor()
            if cursor.set_range(stream_key(stream, after_version + 1)):
                for key, value in cursor:
                    if len(key) != key_bytes or not key.startswith(prefix) or len(found) == limit:
                        break
                    found.append(key_position(value))
        return found

    def version_of(self, stream: str) -> int:
        prefix = stream.encode() + b"\0"
        with self._lmdb.begin(db=self._environment.streams) as transaction:
            cursor = transaction.cursor()
            there = cursor.prev() if cursor.set_range(prefix + _NEWEST_VERSION) else cursor.last()
            key: bytes = cursor.key() if there else b""
        if len(key) != len(prefix) + 8 or not key.startswith(prefix):
            return 0
        return key_position(key[-8:])

    def batch_of(self, command_id: str) -> tuple[int, int] | None:
        key = command_id.encode()
        if not 0 < len(key) <= COMMAND_ID_BYTES_MAX:
            return None
        with self._lmdb.begin(db=self._environment.commands) as transaction:
            value = transaction.get(key)
        return None if value is None else unpack_span(value)

    def newest_checkpoint(self) -> Checkpoint | None:
        with self._lmdb.begin(db=self._environment.checkpoints) as transaction:
            cursor = transaction.cursor()
            value = cursor.value() if cursor.last() else None
        return None if value is None else decode_checkpoint(value)

    def usage_bytes(self) -> tuple[int, int]:
        info = self._lmdb.info()
        return info["map_size"], (info["last_pgno"] + 1) * self._page_bytes
