"""The event log: one append-only order of everything that happened, in LMDB, provable to somebody who does not trust us.

Belongs here: sequencing, group commit, hash chain, checkpoints, proofs, upcasting, subscriptions, export and import; in
``eventlog.views`` the projections. Does not belong here: what events mean.

The names below are loaded when they are first used: a process that only reads a log (an auditor's worker) starts in half the time
without the loop and the signing library.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eventlog.lmdb_log import LmdbLog, open_log
    from eventlog.lmdb_store import StoreOptions
    from eventlog.memory_log import MemoryLog, open_memory_log
    from eventlog.memory_store import MemoryStore
    from eventlog.port import Batch, EventLog, LogStatistics, PendingCommit
    from eventlog.upcasting import decode_event

_HOMES = {
    "Batch": "port",
    "EventLog": "port",
    "LmdbLog": "lmdb_log",
    "LogStatistics": "port",
    "MemoryLog": "memory_log",
    "MemoryStore": "memory_store",
    "PendingCommit": "port",
    "StoreOptions": "lmdb_store",
    "decode_event": "upcasting",
    "open_log": "lmdb_log",
    "open_memory_log": "memory_log",
}

__all__ = [
    "Batch",
    "EventLog",
    "LmdbLog",
    "LogStatistics",
    "MemoryLog",
    "MemoryStore",
    "PendingCommit",
    "StoreOptions",
    "decode_event",
    "open_log",
    "open_memory_log",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"eventlog has no {name}")
    return getattr(import_module(f"eventlog.{_HOMES[name]}"), name)
