"""A log opened for reading only: by the auditor's tools, beside a running daemon or on a copy."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec

from eventlog.checkpoint import Checkpoint, decode_checkpoint
from eventlog.environment import DATA_FILE, FORMAT, READER_MAP_BYTES, Environment, opening
from eventlog.indexes import stream_key, unpack_span
from eventlog.merkle import SUBTREE_LEAVES, root_of
from eventlog.merkle import node_hash as hash_node
from eventlog.record import HASH_BYTES, LOG_ID_BYTES, key_position, position_key
from rbcore.errors import Damaged, NotFound, RbError


class LogSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a log says about itself, before anything of it is verified."""

    log_id: bytes
    signing_key: str
    entries: int
    """Records that LMDB counts."""
    last_position: int
    indexed: int
    """Position up to which the indexes are written."""
    stream_entries: int
    checkpoints: list[tuple[int, Checkpoint]]
    """(size under which it is stored, checkpoint), ascending."""
    problems: list[str]
    """Sentences about what could not be read."""


class LogReader:
    """Reads what is stored, as it is stored. Raises ``NotFound`` where there is no log, ``Damaged``, ``Unavailable``."""

    def __init__(self, path: Path) -> None:
        if not (path / DATA_FILE).is_file():
            raise NotFound(f"There is no event log in {path}.")
        self.path = path
        self._environment = Environment(path, READER_MAP_BYTES, readonly=True)
        self._lmdb = self._environment.lmdb
        self._events = self._environment.events
        try:
            with opening(path), self._lmdb.begin(db=self._environment.meta) as transaction:
                found = transaction.get(b"format")
                self.log_id: bytes = transaction.get(b"log_id") or b""
                self.signing_key: str = (transaction.get(b"signing_key") or b"").decode("ascii", "replace")
                self.indexed = key_position(transaction.get(b"indexed") or bytes(8))
        except BaseException:
            self.close()
            raise
        if found != FORMAT or len(self.log_id) != LOG_ID_BYTES:
            self.close()
            raise Damaged(f"The log in {path} has the format {found!r} and the id {self.log_id.hex()!r}.")

    def close(self) -> None:
        self._environment.close()

    def __enter__(self) -> LogReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def size(self) -> int:
        """Position of the last record."""
        with self._lmdb.begin(db=self._events) as transaction:
            cursor = transaction.cursor()
            return key_position(cursor.key()) if cursor.last() else 0

    def summary(self) -> LogSummary:
        problems: list[str] = []
        last_position = 0
        try:
            last_position = self.size()
        except RbError as error:
            problems.append(error.message)
        with self._lmdb.begin() as transaction:
            entries = transaction.stat(self._events)["entries"]
            stream_entries = transaction.stat(self._environment.streams)["entries"]
        checkpoints: list[tuple[int, Checkpoint]] = []
        with self._lmdb.begin(db=self._environment.checkpoints) as transaction:
            for key, value in transaction.cursor():
                try:
                    checkpoints.append((key_position(key), decode_checkpoint(value)))
                except RbError as error:
                    problems.append(error.message)
        return LogSummary(
            log_id=self.log_id,
            signing_key=self.signing_key,
            entries=entries,
            last_position=last_position,
            indexed=self.indexed,
            stream_entries=stream_entries,
            checkpoints=checkpoints,
            problems=problems,
        )

    def value_at(self, position: int) -> bytes | None:
        with self._lmdb.begin(db=self._events) as transaction:
            value: bytes | None = transaction.get(position_key(position))
        return value

    def records_after(self, position: int, count: int) -> tuple[list[bytes], list[bytes]]:
        """Keys and values of the next ``count`` records after ``position``, as they come."""
        with self._lmdb.begin(db=self._events) as transaction:
            cursor = transaction.cursor()
            start = position_key(position + 1)
            if not cursor.set_range(start):
                return [], []
            keys = list(islice(cursor.iternext(values=False), count))
            cursor.set_range(start)
            return keys, list(islice(cursor.iternext(keys=False), count))

    def values(self, after: int, until: int) -> Iterator[bytes]:
        """Records from ``after < position <= until`` in short steps. Raises ``Damaged`` when one is missing."""
        while after < until:
            keys, values = self.records_after(after, min(SUBTREE_LEAVES, until - after))
            for key, value in zip(keys, values, strict=True):
                if key != position_key(after + 1):
                    keys = []
                    break
                after += 1
                yield value
            if not keys:
                raise Damaged(f"The log in {self.path} has no event {after + 1}. Run 'audit verify'.")

    def stream_position(self, stream: str, version: int) -> int | None:
        with self._lmdb.begin(db=self._environment.streams) as transaction:
            value = transaction.get(stream_key(stream, version))
        return None if value is None or len(value) != 8 else key_position(value)

    def batch_of(self, command_id: str) -> tuple[int, int] | None:
        with self._lmdb.begin(db=self._environment.commands) as transaction:
            value = transaction.get(command_id.encode())
        return None if value is None or len(value) != 16 else unpack_span(value)

    def tree_head(self, start: int, end: int) -> bytes:
        """Merkle tree head over records ``start < position <= end``: from stored subtree roots where they fit."""
        if start % SUBTREE_LEAVES == 0 and end - start == SUBTREE_LEAVES:
            with self._lmdb.begin(db=self._environment.subtrees) as transaction:
                root: bytes | None = transaction.get(position_key(start // SUBTREE_LEAVES))
            if root is not None:
                return root
        if end - start <= SUBTREE_LEAVES:
            return root_of([value[-HASH_BYTES:] for value in self.values(start, end)])
        split = start + (1 << (end - start - 1).bit_length() - 1)
        return hash_node(self.tree_head(start, split), self.tree_head(split, end))

    def newest_checkpoint(self) -> Checkpoint | None:
        with self._lmdb.begin(db=self._environment.checkpoints) as transaction:
            cursor = transaction.cursor()
            value = cursor.value() if cursor.last() else None
        return None if value is None else decode_checkpoint(value)
