"""The event log beside LMDB and SQLite alone and the eventsourcing package: commits, commands, replay, verification, memory.

``python -m bench.log [--quick] [--folder DIR]``. Everything is on the disk of ``--folder`` (default: the temporary directory), and every
ratio is of one run; what alternates is compared round by round.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import lmdb
import trio

from actors.journal import JournalActor
from bench.log_peers import Eventsourcing, RawLmdb, RawSqlite
from bench.measure import Verdicts, anonymous_mebibytes, rate_line, ratio_of_rounds, seconds_of
from bench.views import TasksLog, rebuild_beside_sqlite
from drivers.world import RealWorld
from eventlog import Batch, LmdbLog, decode_event, open_log
from eventlog.audit import verify
from rbcore.commands import AgentHello, AuthoriseClients, Command, Initialise, KillTask, Order, QueueBackup, RemoveTasks
from rbcore.events import Envelope, NewEvent, TaskStatusChanged
from rbcore.evolve import apply
from rbcore.state import State

CLIENTS = 64
GROWTH_MEBIBYTES_MAX = 16


def batch_of(number: int) -> Batch:
    """One event with the envelope a command would give it."""
    event = TaskStatusChanged(previous="New", status="Assigned", reason="assigned to media server 1")
    name = f"{number:032x}"
    return Batch(
        events=(NewEvent(f"task/{number % 5000}", event),),
        expected={},
        command_id=name,
        actor="user:rubackup",
        causation=0,
        correlation=name,
        time_ns=1_767_225_600_000_000_000 + number,
        answer=b"\x82\xa8position\x01\xa3ids\x90",
    )


class Appending:
    """Batches from one client or from many."""

    def __init__(self, log: LmdbLog) -> None:
        self._log = log
        self._number = 0

    def _batches(self, count: int) -> list[Batch]:
        first = self._number + 1
        self._number += count
        return [batch_of(number) for number in range(first, first + count)]

    async def one_client(self, count: int) -> float:
        submit, batches = self._log.submit, self._batches(count)
        started = time.perf_counter()
        for batch in batches:
            await submit(batch).durable()
        return count / (time.perf_counter() - started)

    async def many_clients(self, count: int) -> float:
        submit = self._log.submit

        async def client(batches: Sequence[Batch]) -> None:
            for batch in batches:
                await submit(batch).durable()

        shares = [self._batches(count // CLIENTS) for _ in range(CLIENTS)]
        started = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for share in shares:
                nursery.start_soon(client, share)
        return sum(map(len, shares)) / (time.perf_counter() - started)


async def commits(folder: Path, rounds: int, verdicts: Verdicts) -> None:
    print("commits, synchronous, one event each")
    record_bytes = await _record_bytes(folder)
    raw, sqlite = RawLmdb(folder, record_bytes), RawSqlite(folder, record_bytes)
    alone, bare, ours = [], [], []
    async with open_log(folder / "commits", secrets=folder / "secrets") as log:
        appending = Appending(log)
        await appending.one_client(100)
        for _ in range(rounds):
            alone.append(raw.commits_per_second(100))
            ours.append(await appending.one_client(100))
            bare.append(sqlite.commits_per_second(100))
        many = [await appending.many_clients(CLIENTS * 50) for _ in range(max(4, rounds // 4))]
        largest = log.statistics().largest_group
    raw.close()
    sqlite.close()
    rate_line(f"{raw.name} alone, {record_bytes} bytes", alone)
    rate_line(f"{sqlite.name} alone, WAL, synchronous=FULL", bare)
    rate_line("the log, one client, envelope and hash chain", ours)
    rate_line(f"the log, {CLIENTS} clients (largest group {largest})", many)
    verdicts.ratio("one client beside LMDB alone", ratio_of_rounds(ours, alone), 0.75)
    verdicts.ratio(f"{CLIENTS} clients beside one", sorted(many)[len(many) // 2] / sorted(ours)[len(ours) // 2], 10)


async def _record_bytes(folder: Path) -> int:
    async with open_log(folder / "size", secrets=folder / "secrets") as log:
        await log.submit(batch_of(1)).durable()
    with lmdb.open(str(folder / "size"), max_dbs=6, readonly=True, lock=False) as environment:
        events = environment.open_db(b"events", create=False)
        with environment.begin(db=events) as transaction:
            return len(transaction.get((1).to_bytes(8, "big")) or b"")


# --- commands --------------------------------------------------------------------------------------------------------

_TASK = {
    "resource_type": "File system",
    "resource": "/home/",
    "client": "alpha (525a99154f3505a2)",
    "backup_type": "full",
    "pool": "Default",
    "crypto": "nocrypt",
    "priority": 100,
    "storage_duration": "1 Years",
    "archiving": False,
}
_HELLO = AgentHello(
    hwid="525a99154f3505a2",
    hostname="alpha",
    public_key="ab" * 32,
    address="192.0.2.7",
    os_type="Linux",
    os_version="12",
    agent_version="0.1",
    resource_types=["File system"],
)


async def commands(folder: Path, rounds: int, verdicts: Verdicts) -> None:
    print(f"commands through decide, evolve and log, {CLIENTS} clients: queue a backup, kill it, remove it")
    peer = Eventsourcing(folder)
    ours, theirs = [], []
    async with open_log(folder / "commands", secrets=folder / "secrets") as log:
        journal = JournalActor(log, RealWorld())
        await journal.recover()
        sent = 0

        async def execute(command: Command) -> list[int]:
            nonlocal sent
            sent += 1
            order = Order(command=command, command_id=f"command-{sent}", actor="user:rubackup")
            return (await journal.execute(order)).ids

        await execute(
            Initialise(
                hostname="main", hwid="ab" * 8, superuser="rubackup", credential_id="1", default_catalog_path="/srv"
            )
        )
        await execute(AuthoriseClients(ids=await execute(_HELLO)))

        async def client() -> None:
            for _ in range(5):
                ids = await execute(QueueBackup(task=_TASK))
                await execute(KillTask(task_id=ids[0]))
                await execute(RemoveTasks(ids=ids))

        for _ in range(rounds):
            theirs.append(peer.saves_per_second(200))
            before, started = log.head, time.perf_counter()
            async with trio.open_nursery() as nursery:
                for _ in range(CLIENTS):
                    nursery.start_soon(client)
            ours.append((log.head - before) / (time.perf_counter() - started))
    rate_line(f"{peer.name} on SQLite, events saved", theirs)
    rate_line("events of commands", ours)
    verdicts.ratio(f"events of commands beside saves of {peer.name}", ratio_of_rounds(ours, theirs), 3)
    peer.close()


# --- a long log ------------------------------------------------------------------------------------------------------


async def long_log(folder: Path, tasks: int, verdicts: Verdicts) -> None:
    """Replay, verification and views, all over one log of the lives of ``tasks`` tasks."""
    peer = Eventsourcing(folder)
    async with open_log(folder / "long", secrets=folder / "secrets") as log:
        await _tell(log, TasksLog(tasks))
        print(f"a log of {log.head:,} events, {log.statistics().used_bytes >> 20} MiB")
        ours, theirs = [], []
        for _ in range(5):
            theirs.append(peer.replays_per_second(20_000))
            ours.append(log.head / seconds_of(lambda: _replay(log)))
        figures = rebuild_beside_sqlite(log, folder)
        size = log.head
    peer.close()
    rate_line(f"{peer.name}, events replayed", theirs)
    rate_line("events read, decoded and evolved", ours)
    verdicts.ratio(f"replay beside that of {peer.name}", ratio_of_rounds(ours, theirs), 5)
    verdicts.ratio("rebuild of the views beside executemany of the same rows", figures.ratio, 0.3)
    scanned, chained, verified = [], [], []
    for _ in range(5):
        scanned.append(size / seconds_of(lambda: _scan(folder / "long")))
        chained.append(size / seconds_of(lambda: _verify(folder / "long", tree=False)))
        verified.append(size / seconds_of(lambda: _verify(folder / "long", tree=True)))
    rate_line("records scanned with a raw cursor", scanned)
    rate_line(f"records verified: chain and signatures ({len(os.sched_getaffinity(0))} processes)", chained)
    rate_line("records verified: chain, tree and signatures", verified)
    verdicts.ratio("chain verification beside a raw cursor scan", ratio_of_rounds(chained, scanned), 0.15)


async def _tell(log: LmdbLog, story: TasksLog) -> None:
    """Put a story into the log, about 500 events a batch."""
    events: list[NewEvent] = []
    number = 0

    async def submit() -> None:
        nonlocal number
        number += 1
        batch = Batch(
            events=list(events),
            expected={},
            command_id=f"batch-{number}",
            actor="actor:dispatcher",
            causation=0,
            correlation="story",
            time_ns=number * 10**6,
            answer=b"\x80",
        )
        pending = log.submit(batch)
        if number % 8 == 0:
            await pending.durable()
        events.clear()

    for envelope in story.read():
        events.append(NewEvent(envelope.stream, decode_event(envelope)))
        if len(events) == 500:
            await submit()
    if events:
        await submit()
    while log.head < log.statistics().head:
        await log.advanced_beyond(log.head)


def _replay(log: LmdbLog) -> None:
    state = State()
    envelope: Envelope
    for envelope in log.read():
        apply(state, envelope.stream, envelope.version, envelope.time_ns, envelope.position, decode_event(envelope))
    assert state.position == log.head


def _scan(path: Path) -> None:
    with lmdb.open(str(path), max_dbs=6, readonly=True, lock=False) as environment:
        events = environment.open_db(b"events", create=False)
        with environment.begin(db=events) as transaction:
            for _ in transaction.cursor():
                pass


def _verify(path: Path, *, tree: bool) -> None:
    report = verify(path, tree=tree, indexes=False)
    assert report.sound, report.findings


# --- memory ----------------------------------------------------------------------------------------------------------


def memory(folder: Path, events: int, verdicts: Verdicts) -> None:
    """In a process of its own: anonymous memory after a short log and after one several times as long."""
    print("memory that is not mapped from the log's file")
    command = [sys.executable, "-m", "bench.log", "--memory-of", str(events), "--folder", str(folder)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    short, long = map(float, told)
    print(f"  after {events:,} events {short:.1f} MiB, after {5 * events:,} events {long:.1f} MiB")
    verdicts.ratio(f"room left of {GROWTH_MEBIBYTES_MAX} MiB of growth", 1 - (long - short) / GROWTH_MEBIBYTES_MAX, 0)


async def memory_of(folder: Path, events: int) -> None:
    async with open_log(folder / "memory", secrets=folder / "secrets") as log:
        appending = Appending(log)
        for times in (1, 4):
            for _ in range(times):
                await appending.many_clients(events)
                for _ in log.read():
                    pass
            print(f"{anonymous_mebibytes():.1f}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter rounds and a shorter log")
    parser.add_argument("--folder", type=Path, help="where the files are made (default: the temporary directory)")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    verdicts = Verdicts()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        if options.memory_of:
            trio.run(memory_of, folder, options.memory_of)
            return 0
        trio.run(commits, folder, 20 if options.quick else 60, verdicts)
        trio.run(commands, folder, 5 if options.quick else 15, verdicts)
        trio.run(long_log, folder, 80_000 if options.quick else 140_000, verdicts)
        memory(folder, 20_000 if options.quick else 60_000, verdicts)
    return verdicts.end()


if __name__ == "__main__":
    sys.exit(main())
