"""The peers of the event log, on the same disk: LMDB alone, SQLite alone, and the ``eventsourcing`` package on SQLite."""

from __future__ import annotations

import os
import sqlite3
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lmdb
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event


class RawLmdb:
    """One record a commit, synchronous, nothing around it."""

    name = f"LMDB {'.'.join(map(str, lmdb.version()))}"

    def __init__(self, folder: Path, value_bytes: int) -> None:
        self._environment = lmdb.open(str(folder / "raw"), map_size=64 << 30)
        self._value = os.urandom(value_bytes)
        self._position = 0

    def commits_per_second(self, count: int) -> float:
        environment, value = self._environment, self._value
        started = time.perf_counter()
        for position in range(self._position + 1, self._position + count + 1):
            with environment.begin(write=True) as transaction:
                transaction.put(position.to_bytes(8, "big"), value, append=True)
        self._position += count
        return count / (time.perf_counter() - started)

    def close(self) -> None:
        self._environment.close()


class RawSqlite:
    """One row a commit, ``journal_mode=WAL``, ``synchronous=FULL``."""

    name = f"SQLite {sqlite3.sqlite_version}"

    def __init__(self, folder: Path, value_bytes: int) -> None:
        self._connection = sqlite3.connect(folder / "raw.sqlite", isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("CREATE TABLE events (position INTEGER PRIMARY KEY, value BLOB)")
        self._value = os.urandom(value_bytes)

    def commits_per_second(self, count: int) -> float:
        insert, value = self._connection.execute, self._value
        started = time.perf_counter()
        for _ in range(count):
            insert("INSERT INTO events (value) VALUES (?)", (value,))
        return count / (time.perf_counter() - started)

    def close(self) -> None:
        self._connection.close()


class Journey(Aggregate):
    """A task of the peer: one event a step, with about as much in it as ours has."""

    def __init__(self) -> None:
        self.status = "New"
        self.reason = ""

    @event("StatusChanged")
    def change(self, previous: str, status: str, reason: str) -> None:
        self.status = status
        self.reason = reason


class Eventsourcing:
    """Save one event at a time, and get an aggregate back from all of its events."""

    name = f"eventsourcing {version('eventsourcing')}"

    def __init__(self, folder: Path) -> None:
        environment = {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(folder / "peer.sqlite")}
        self._application: Application[Any] = Application(env=environment)
        self._journey = Journey()
        self._application.save(self._journey)

    def saves_per_second(self, count: int) -> float:
        save, journey = self._application.save, self._journey
        started = time.perf_counter()
        for _ in range(count):
            journey.change("New", "Assigned", "assigned to media server 1")
            save(journey)
        return count / (time.perf_counter() - started)

    def replays_per_second(self, count: int) -> float:
        """Events per second when an aggregate of ``count`` events is made from them."""
        told = Journey()
        for _ in range(count - 1):
            told.change("New", "Assigned", "assigned to media server 1")
        self._application.save(told)
        started = time.perf_counter()
        made: Any = self._application.repository.get(told.id)
        seconds = time.perf_counter() - started
        assert made.version == count
        return count / seconds

    def close(self) -> None:
        self._application.close()
