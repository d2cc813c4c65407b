"""``index rebuild``: the log's own indexes, made again from its events. No fact lives only in them."""

from __future__ import annotations

from pathlib import Path

import msgspec

from eventlog.environment import DATA_FILE, Environment, WriterLock, opening
from eventlog.indexes import INDEXED_AT_ONCE_EVENTS, IndexEntries
from eventlog.merkle import SUBTREE_LEAVES, Frontier
from eventlog.record import HASH_BYTES, decode_value, position_key
from rbcore.errors import Damaged, NotFound


class RebuiltIndexes(msgspec.Struct, frozen=True):
    """What an index rebuild wrote."""

    events: int
    subtrees: int


def rebuild_indexes(path: Path, map_bytes: int = 64 << 30) -> RebuiltIndexes:
    """Throw the stream index, the command index and the subtree roots away and make them from the events.

    Offline: raises ``Refused`` while a daemon has the log open, ``NotFound``, ``Damaged`` when an event cannot be read. Safe to stop at any
    moment: opening the log goes on where it stopped. ``map_bytes`` as in ``StoreOptions``.
    """
    if not (path / DATA_FILE).is_file():
        raise NotFound(f"There is no event log in {path}.")
    lock = WriterLock(path)
    try:
        environment = Environment(path, map_bytes, readonly=False)
        try:
            with opening(path):
                return _rebuild(path, environment)
        finally:
            environment.close()
    finally:
        lock.release()


def _rebuild(path: Path, environment: Environment) -> RebuiltIndexes:
    with environment.lmdb.begin(write=True) as transaction:
        for database in (environment.streams, environment.commands, environment.subtrees):
            transaction.drop(database, delete=False)
        transaction.put(b"indexed", position_key(0), db=environment.meta)
    position = subtrees = 0
    frontier = Frontier()
    while True:
        with environment.lmdb.begin(write=True) as transaction:
            entries = IndexEntries(position)
            cursor = transaction.cursor(environment.events)
            if cursor.set_range(position_key(position + 1)):
                for key, value in cursor:
                    position += 1
                    if key != position_key(position):
                        raise Damaged(f"The log in {path} has no event {position}. Run 'audit verify'.")
                    entries.add(decode_value(value))
                    root = frontier.append(value[-HASH_BYTES:])
                    if root is not None:
                        transaction.put(position_key(position // SUBTREE_LEAVES - 1), root, db=environment.subtrees)
                        subtrees += 1
                    if entries.events == INDEXED_AT_ONCE_EVENTS:
                        break
            if not entries.events:
                return RebuiltIndexes(position, subtrees)
            entries.write(transaction, environment)
