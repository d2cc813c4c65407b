"""The event log: one append-only order of everything that happened, in LMDB, provable to somebody who does not trust us.

Belongs here: sequencing, group commit, hash chain, checkpoints, proofs, upcasting, subscriptions, export and import; in
``eventlog.views`` the projections. Does not belong here: what events mean.
"""

from eventlog.lmdb_log import LmdbLog, open_log
from eventlog.lmdb_store import StoreOptions
from eventlog.memory_log import MemoryLog, open_memory_log
from eventlog.memory_store import MemoryStore
from eventlog.port import Batch, EventLog, LogStatistics, PendingCommit
from eventlog.upcasting import decode_event

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
