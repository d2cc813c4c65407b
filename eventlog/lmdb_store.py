"""Records in LMDB: layout of the environment, the one write transaction, short reads.

Named databases (``docs/format.md``, "Event log"):

============ ======================================== ======================================================
events       position, u64 big endian                 record (``eventlog.record``)
streams      stream, 0x00, version u64 big endian     position, u64 big endian
commands     command id                               first and last position of its batch, two u64 big endian
subtrees     number of the subtree, u64 big endian    Merkle root of 4,096 record hashes, 32 bytes
checkpoints  size, u64 big endian                     msgpack of the signed checkpoint
meta         name                                     format, log id, public key of the first signer
============ ======================================== ======================================================

``streams``, ``commands`` and ``subtrees`` follow from ``events`` and can be rebuilt. Command ids are kept as long as the log: about 50
bytes each. There is no index by time, because times only grow with positions.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
import msgspec

from eventlog.chain import CHECKPOINT_EVERY_EVENTS, Chain
from eventlog.checkpoint import Checkpoint, Signer, decode_checkpoint, encode_checkpoint
from eventlog.commit import Commit
from eventlog.merkle import SUBTREE_LEAVES, Frontier, complete_root
from eventlog.record import (
    HASH_BYTES,
    LOG_ID_BYTES,
    TRAILER_BYTES,
    decode_time,
    genesis_trailer,
    key_position,
    payload_of,
    position_key,
    record_hash,
    trailer_of,
)
from eventlog.store import StoreFailed, StoreFull
from rbcore.errors import Damaged, Refused, Unavailable

FORMAT = b"rbmedia-log-1"
DATABASES = (b"events", b"streams", b"commands", b"subtrees", b"checkpoints", b"meta")
DATA_FILE = "data.mdb"
WRITER_LOCK_FILE = "writer.lock"
TAIL_CHECK_RECORDS = 64
"""Records whose chain is checked whenever the log is opened; all of them is ``audit verify``'s job."""

_SPAN = struct.Struct(">QQ")
_NEWEST_VERSION = b"\xff" * 8


class StoreOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a log uses its volume."""

    map_bytes: int = 64 << 30
    """Address space reserved for the data file; the file itself grows only with its contents."""
    free_bytes_min: int = 64 << 20
    """Writing stops when the volume has less than this free, before the file system says so in the middle of a commit."""
    checkpoint_every_events: int = CHECKPOINT_EVERY_EVENTS


def stream_key(stream: str, version: int) -> bytes:
    return stream.encode() + b"\0" + position_key(version)


def open_environment(path: Path, map_bytes: int, *, readonly: bool) -> tuple[lmdb.Environment, dict[bytes, Any]]:
    """The LMDB environment and its named databases. Durable settings: both flushes of a commit are done."""
    environment = lmdb.open(
        str(path),
        map_size=map_bytes,
        max_dbs=len(DATABASES),
        readonly=readonly,
        create=not readonly,
        sync=True,
        metasync=True,
        readahead=True,
        meminit=False,
    )
    try:
        return environment, {name: environment.open_db(name, create=not readonly) for name in DATABASES}
    except BaseException:
        environment.close()
        raise


class WriterLock:
    """Held by the one process that may append to a log. The kernel drops it when the process ends, however it ends."""

    def __init__(self, directory: Path) -> None:
        """Raises ``Refused`` when another process, or this one, holds it."""
        path = directory / WRITER_LOCK_FILE
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._descriptor, 20, 0).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            raise Refused(
                f"The event log in {directory} is open for appending by process {holder or 'unknown'}. "
                "Stop that daemon, or start this one with another home directory."
            ) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._descriptor)


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
            with _opening(path):
                self._environment, self._databases = open_environment(path, self._options.map_bytes, readonly=False)
        except BaseException:
            self._lock.release()
            raise
        try:
            with _opening(path):
                self.log_id = self._identify(signer, log_id or os.urandom(LOG_ID_BYTES))
                self._chain = self._load_chain(signer)
        except BaseException:
            self.close()
            raise
        self._page_bytes: int = self._environment.stat()["psize"]
        self._map_bytes_min = min(32 << 20, self._options.map_bytes // 8)

    def close(self) -> None:
        self._environment.close()
        self._lock.release()

    # --- opening ---------------------------------------------------------------------------------------------------

    def _identify(self, signer: Signer, fresh_log_id: bytes) -> bytes:
        meta = self._databases[b"meta"]
        with self._environment.begin(write=True, db=meta) as transaction:
            found = transaction.get(b"format")
            if found is None:
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
                f"The checkpoints of the event log in {self.path} are signed by key {signing_key.decode('ascii', 'replace')}, and the "
                f"secrets directory holds {signer.public_key}. Restore the signing key that belongs to this log."
            )
        return log_id

    def _load_chain(self, signer: Signer) -> Chain:
        with self._environment.begin() as transaction:
            cursor = transaction.cursor(self._databases[b"events"])
            size = key_position(cursor.key()) if cursor.last() else 0
            count = transaction.stat(self._databases[b"events"])["entries"]
            if count != size:
                raise Damaged(
                    f"The event log in {self.path} ends at {size} and has {count} events. Run 'audit verify'."
                )
            newest = transaction.cursor(self._databases[b"checkpoints"])
            checkpointed_size = key_position(newest.key()) if newest.last() else 0
        if checkpointed_size > size:
            raise Damaged(
                f"The event log in {self.path} ends at event {size}, and a checkpoint was signed over {checkpointed_size} events: "
                f"events {size + 1} to {checkpointed_size} are lost. Restore the log from an export or a copy."
            )
        trailer = self._check_tail(size)
        return Chain(
            self.log_id,
            signer,
            trailer=trailer,
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
        subtrees = self._databases[b"subtrees"]
        with self._environment.begin() as transaction:
            for number in range(size // SUBTREE_LEAVES):
                root = transaction.get(position_key(number), db=subtrees)
                if root is None:
                    start = number * SUBTREE_LEAVES
                    root = complete_root(
                        [value[-HASH_BYTES:] for value in self.all_values(start, start + SUBTREE_LEAVES)]
                    )
                frontier.append_subtree(root)
        for value in self.all_values(frontier.size, size):
            frontier.append(value[-HASH_BYTES:])
        return frontier

    # --- writing ---------------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        return self._chain.size

    @property
    def checkpointed_size(self) -> int:
        """Events that the newest checkpoint covers."""
        return self._chain.checkpointed_size

    def append(self, commits: Sequence[Commit]) -> None:
        problem = self.room_problem()
        if problem is not None:
            raise StoreFull(problem)
        payloads = [payload for commit in commits for payload in commit.payloads]
        sealed = self._chain.seal(payloads, commits[-1].envelopes[-1].time_ns)
        position = commits[0].envelopes[0].position
        assert position == self._chain.size + 1, "batches arrive in order and without gaps"
        events, streams, spans = [], [], []
        values = iter(sealed.values)
        for commit in commits:
            first = position
            for envelope in commit.envelopes:
                key = position_key(position)
                events.append((key, next(values)))
                streams.append((stream_key(envelope.stream, envelope.version), key))
                position += 1
            spans.append((commit.command_id.encode(), _SPAN.pack(first, position - 1)))
        with self._writing():
            with self._environment.begin(write=True) as transaction:
                put = transaction.cursor
                _, added = put(self._databases[b"events"]).putmulti(events, append=True)
                put(self._databases[b"streams"]).putmulti(streams)
                put(self._databases[b"commands"]).putmulti(spans)
                if added != len(events):
                    raise StoreFailed(
                        f"The event log in {self.path} has an event {position - 1} already. Run 'audit verify'."
                    )
                for number, root in sealed.subtrees:
                    transaction.put(position_key(number), root, db=self._databases[b"subtrees"])
                if sealed.checkpoint is not None:
                    self._put_checkpoint(transaction, sealed.chain.size, sealed.checkpoint)
        self._chain = sealed.chain

    def checkpoint_now(self) -> Checkpoint | None:
        """Sign all records so far, unless the newest checkpoint covers them already. Raises as :meth:`append` does."""
        chain = self._chain
        if chain.size == chain.checkpointed_size:
            return None
        checkpoint = chain.sign(self.newest_time_ns())
        with self._writing(), self._environment.begin(write=True) as transaction:
            self._put_checkpoint(transaction, chain.size, checkpoint)
        chain.checkpointed_size = chain.size
        return checkpoint

    def _put_checkpoint(self, transaction: Any, size: int, checkpoint: Checkpoint) -> None:
        transaction.put(position_key(size), encode_checkpoint(checkpoint), db=self._databases[b"checkpoints"])

    def room_problem(self) -> str | None:
        volume = os.statvfs(self.path)
        free_bytes = volume.f_bavail * volume.f_frsize
        if free_bytes < self._options.free_bytes_min:
            return (
                f"read only: log volume full. {self.path} has {free_bytes >> 10} KiB free and needs "
                f"{self._options.free_bytes_min >> 10} KiB; free some space there, writing resumes by itself."
            )
        reserved_bytes, used_bytes = self.usage_bytes()
        if reserved_bytes - used_bytes < self._map_bytes_min:
            return self._map_full(reserved_bytes)
        return None

    def _map_full(self, reserved_bytes: int) -> str:
        return (
            f"read only: log map full. The event log in {self.path} may take {reserved_bytes >> 20} MiB and has; "
            "restart the daemon with a larger map size."
        )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """LMDB's errors as the store's: which of them can pass by themselves?"""
        try:
            yield
        except lmdb.MapFullError as error:
            raise StoreFull(self._map_full(self._options.map_bytes)) from error
        except lmdb.DiskError as error:
            raise StoreFull(self._volume_full()) from error
        except lmdb.Error as error:
            if os.strerror(errno.EDQUOT) in str(error):
                raise StoreFull(self._volume_full()) from error
            raise StoreFailed(
                f"The event log in {self.path} cannot be written: {error}. Check the volume, then restart the daemon."
            ) from error

    def _volume_full(self) -> str:
        return f"read only: log volume full. Free some space on the volume of {self.path}, writing resumes by itself."

    # --- reading ---------------------------------------------------------------------------------------------------

    def newest_time_ns(self) -> int:
        value = self.value_at(self.size)
        return 0 if value is None else decode_time(value)

    def value_at(self, position: int) -> bytes | None:
        with self._environment.begin(db=self._databases[b"events"]) as transaction:
            value: bytes | None = transaction.get(position_key(position))
        return value

    def values(self, after: int, until: int, limit: int) -> list[bytes]:
        count = min(limit, until - after)
        found: list[bytes] = []
        with self._environment.begin(db=self._databases[b"events"]) as transaction:
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
        with self._environment.begin(db=self._databases[b"streams"]) as transaction:
            cursor = transaction.cursor()
            if cursor.set_range(stream_key(stream, after_version + 1)):
                for key, value in cursor:
                    if len(key) != key_bytes or not key.startswith(prefix) or len(found) == limit:
                        break
                    found.append(key_position(value))
        return found

    def version_of(self, stream: str) -> int:
        prefix = stream.encode() + b"\0"
        with self._environment.begin(db=self._databases[b"streams"]) as transaction:
            cursor = transaction.cursor()
            there = cursor.prev() if cursor.set_range(prefix + _NEWEST_VERSION) else cursor.last()
            key: bytes = cursor.key() if there else b""
        if len(key) != len(prefix) + 8 or not key.startswith(prefix):
            return 0
        return key_position(key[-8:])

    def batch_of(self, command_id: str) -> tuple[int, int] | None:
        key = command_id.encode()
        if not 0 < len(key) <= self._environment.max_key_size():
            return None
        with self._environment.begin(db=self._databases[b"commands"]) as transaction:
            span = transaction.get(key)
        if span is None:
            return None
        first, last = _SPAN.unpack(span)
        return first, last

    def newest_checkpoint(self) -> Checkpoint | None:
        with self._environment.begin(db=self._databases[b"checkpoints"]) as transaction:
            cursor = transaction.cursor()
            value = cursor.value() if cursor.last() else None
        return None if value is None else decode_checkpoint(value)

    def usage_bytes(self) -> tuple[int, int]:
        info = self._environment.info()
        return info["map_size"], (info["last_pgno"] + 1) * self._page_bytes


@contextmanager
def _opening(path: Path) -> Iterator[None]:
    """LMDB's errors while a log is opened, as sentences."""
    try:
        yield
    except (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.VersionMismatchError) as error:
        raise Damaged(
            f"The file {path / DATA_FILE} of the event log is damaged: {error}. Run 'audit verify'."
        ) from error
    except lmdb.Error as error:
        raise Unavailable(f"The event log in {path} cannot be opened: {error}.") from error
