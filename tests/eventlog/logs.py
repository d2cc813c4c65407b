"""Small logs to test on: batches, events, and both implementations of the port."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import lmdb

from eventlog import Batch, EventLog, StoreOptions, open_log, open_memory_log
from rbcore.events import NewEvent, TaskNoted

KINDS = ("lmdb", "memory")


def note(text: str = "a line") -> TaskNoted:
    return TaskNoted(side="server", severity="info", lines=[text])


def batch(
    command_id: str,
    *streams: str,
    expected: Mapping[str, int] | None = None,
    time_ns: int = 1_700_000_000_000_000_000,
    answer: bytes = b"answer",
    text: str = "a line",
) -> Batch:
    """One event per stream named (default ``task/1``)."""
    return Batch(
        events=[NewEvent(stream, note(text)) for stream in streams or ("task/1",)],
        expected=dict(expected or {}),
        command_id=command_id,
        actor="user:rubackup",
        causation=0,
        correlation=command_id,
        time_ns=time_ns,
        answer=answer,
    )


async def fill(log: EventLog, count: int, *, text: str = "a line", group: int = 50) -> None:
    """Append ``count`` events in ``count`` batches over ten streams, a group of them at a time."""
    start = log.head
    for first in range(start + 1, start + count + 1, group):
        pending = [
            log.submit(batch(f"command-{number}", f"task/{number % 10}", text=text, time_ns=number * 1000))
            for number in range(first, min(first + group, start + count + 1))
        ]
        await pending[-1].durable()


@asynccontextmanager
async def open_any(kind: str, directory: Path) -> AsyncIterator[EventLog]:
    """A log of either kind under test."""
    if kind == "lmdb":
        async with open_log(directory / "log", secrets=directory / "secrets") as log:
            yield log
    else:
        async with open_memory_log() as memory:
            yield memory


async def make_log(directory: Path, count: int, *, checkpoint_every_events: int = 10_000, group: int = 50) -> Path:
    """A closed log of ``count`` events on LMDB; its directory."""
    options = StoreOptions(checkpoint_every_events=checkpoint_every_events, map_bytes=1 << 30)
    async with open_log(directory / "log", secrets=directory / "secrets", options=options) as log:
        await fill(log, count, group=group)
    return directory / "log"


def stored(path: Path) -> Sequence[bytes]:
    """All records of a closed log."""
    with lmdb.open(str(path), max_dbs=6, readonly=True, lock=False) as environment:
        events = environment.open_db(b"events", create=False)
        with environment.begin(db=events) as transaction:
            return list(transaction.cursor().iternext(keys=False))


def overwrite(path: Path, changes: Mapping[int, bytes | None]) -> None:
    """Replace records of a closed log behind its back; None removes one."""
    with lmdb.open(str(path), max_dbs=6, map_size=1 << 30) as environment:
        events = environment.open_db(b"events", create=False)
        with environment.begin(write=True, db=events) as transaction:
            for position, value in changes.items():
                key = position.to_bytes(8, "big")
                if value is None:
                    transaction.delete(key)
                else:
                    transaction.put(key, value)
