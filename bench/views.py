"""What views cost: making them anew beside what SQLite alone needs for the same rows, and reads now and then.

``python -m bench.views [--tasks N] [--folder DIR]``. Ratios are of one run, on one disk; the peer is the ``sqlite3`` of the interpreter.
``rebuild_beside_sqlite`` takes any log, so that the benchmark of the log can use its own.
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import msgspec
import trio

from drivers.world import WorkerThreads
from eventlog.port import EventLog
from eventlog.views import LOGS, Condition, Query, SqliteViewReader, ViewSchema, files, rebuild
from rbcore.events import (
    Envelope,
    Event,
    RecordCreated,
    TaskAssigned,
    TaskQueued,
    TaskStatusChanged,
)
from rbcore.resources import RESOURCES
from rbcore.vocabulary import CRYPTO, TASK_TYPES

SCHEMA = ViewSchema(RESOURCES, LOGS)
POOLS, CLIENTS = 8, 200
STATUSES = ("Assigned", "At_Client", "Execution", "Start_Transfer", "Transmission", "Done")
START_NS = 1_750_000_000_000_000_000


class TasksLog:
    """The reading side of a log that nobody stored: ``tasks`` tasks from queued to done, 32 of them under way at a time.

    Envelopes are encoded beforehand as a store would hold them and decoded when read.
    """

    def __init__(self, tasks: int, statuses: tuple[str, ...] = STATUSES) -> None:
        self._statuses = statuses
        encode = msgspec.msgpack.encode
        self._stored = [encode(one) for one in numbered(story(tasks, statuses))]
        self._decode = msgspec.msgpack.Decoder(Envelope).decode

    @property
    def head(self) -> int:
        return len(self._stored)

    def read(self, after: int = 0, until: int | None = None) -> Iterator[Envelope]:
        return map(self._decode, self._stored[after:until])

    def position_at(self, time_ns: int) -> int:
        return min(self.head, max(0, (time_ns - START_NS) // 1_000_000))

    def time_at(self, position: int) -> int:
        return START_NS + position * 1_000_000


def story(tasks: int, statuses: tuple[str, ...]) -> Iterator[tuple[str, Event]]:
    yield "media_server/1", RecordCreated({"hostname": "server", "hwid": "00ff"})
    yield "client_group/1", RecordCreated({"name": "No group"})
    for pool in range(1, POOLS + 1):
        fields = {"pool_name": f"pool {pool}", "pool_type": "File system", "media_server": 1}
        yield f"pool/{pool}", RecordCreated(fields)
    yield "local_catalog/1", RecordCreated({"path": "/var/lib/pool", "pool": 1})
    for client in range(1, CLIENTS + 1):
        hwid = f"{client * 7919:016x}"
        yield f"client/{client}", RecordCreated({"hwid": hwid, "hostname": f"host{client}", "public_key": hwid})
    for first in range(1, tasks + 1, 32):
        group = range(first, min(first + 32, tasks + 1))
        for number in group:
            yield f"task/{number}", queued(number)
        before = "New"
        for status in statuses:
            for number in group:
                yield f"task/{number}", step(number, before, status)
            before = status


def queued(number: int) -> TaskQueued:
    return TaskQueued(
        task_type=TASK_TYPES[number % 3], resource_type="File system", resource=f"/srv/data/{number % 977}",
        backup_type=("full", "incremental")[number % 7 > 0], client_id=1 + number % CLIENTS, pool_id=1 + number % POOLS,
        crypto=CRYPTO[number % len(CRYPTO)], priority=(number * 7919) % 1000, storage_duration="1 year", archiving=False,
        backup_id=0, parameters={"module_extensions": {"worker_parallel": 8}}, restarted_from=0,
    )  # fmt: skip


def step(number: int, before: str, status: str) -> Event:
    if status == "Assigned":
        return TaskAssigned(1, 1 + number % POOLS, 1, "full", 0, f"{number:032x}", "the pool has room", [])
    return TaskStatusChanged(before, status, "")


def numbered(events: Iterable[tuple[str, Event]]) -> Iterator[Envelope]:
    versions: dict[str, int] = {}
    for position, (stream, event) in enumerate(events, start=1):
        version = versions[stream] = versions.get(stream, 0) + 1
        body = msgspec.Raw(msgspec.msgpack.encode(event))
        time_ns = START_NS + position * 1_000_000
        yield Envelope(
            position,
            time_ns,
            stream,
            version,
            event.TYPE,
            1,
            "actor:dispatcher",
            f"c{position}",
            0,
            f"c{position}",
            body,
        )


class RebuildFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds over the same rows, best of the rounds."""

    events: int
    rows: int
    rebuild_seconds: float
    bare_seconds: float
    """``executemany`` into the same tables without an index."""
    bare_indexed_seconds: float
    """The same, and then the same indexes."""

    @property
    def ratio(self) -> float:
        """Speed of the rebuild, decoding and folding included, over that of bare ``executemany``."""
        return self.bare_seconds / self.rebuild_seconds

    @property
    def ratio_indexed(self) -> float:
        return self.bare_indexed_seconds / self.rebuild_seconds


def rebuild_beside_sqlite(log: EventLog, folder: Path, schema: ViewSchema = SCHEMA, rounds: int = 3) -> RebuildFigures:
    """Make views from ``log`` in ``folder``, then the same rows with ``sqlite3`` alone; in turns, the best of each counts."""
    path = folder / "views.sqlite"
    taken: list[tuple[float, float, float]] = []
    rows: dict[str, list[Any]] = {}
    for _ in range(rounds):
        started = time.perf_counter()
        rebuild(log, path, schema)
        rebuild_seconds = time.perf_counter() - started
        if not rows:
            source = files.open_read_only(path)
            names = {name: table.quoted for name, table in schema.tables.items()}
            rows = {name: source.execute(f"SELECT * FROM {table}").fetchall() for name, table in names.items()}
            source.close()
        bare, indexed = (_bare_seconds(folder, schema, rows, indexes=indexes) for indexes in (False, True))
        taken.append((rebuild_seconds, bare, indexed))
    best = [min(one[kind] for one in taken) for kind in range(3)]
    return RebuildFigures(
        events=log.head,
        rows=sum(map(len, rows.values())),
        rebuild_seconds=best[0],
        bare_seconds=best[1],
        bare_indexed_seconds=best[2],
    )


def _bare_seconds(folder: Path, schema: ViewSchema, rows: dict[str, list[Any]], *, indexes: bool) -> float:
    file = folder / "bare.sqlite"
    file.unlink(missing_ok=True)
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    for sql in schema.create_tables_sql():
        connection.execute(sql)
    started = time.perf_counter()
    connection.execute("BEGIN")
    for name, table in schema.tables.items():
        marks = ", ".join("?" * (len(rows[name][0]) if rows[name] else 0))
        if marks:
            connection.executemany(f"INSERT INTO {table.quoted} VALUES ({marks})", rows[name])
    for sql in schema.create_indexes_sql() if indexes else ():
        connection.execute(sql)
    connection.execute("COMMIT")
    seconds = time.perf_counter() - started
    connection.close()
    file.unlink()
    return seconds


def _timed(work: Callable[[], Any], times: int) -> tuple[float, float]:
    """Median and 99th percentile in microseconds."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        taken.append((time.perf_counter() - started) * 1e6)
    taken.sort()
    return statistics.median(taken), taken[min(len(taken) - 1, int(len(taken) * 0.99))]


async def _timed_async(work: Callable[[], Any], times: int) -> tuple[float, float]:
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        await work()
        taken.append((time.perf_counter() - started) * 1e6)
    taken.sort()
    return statistics.median(taken), taken[min(len(taken) - 1, int(len(taken) * 0.99))]


QUERIES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("page 1 by id", {}),
    ("page 1 by id, descending", {"descending": True}),
    *((f"page 1 by {one.name}", {"sort_by": one.name}) for one in SCHEMA.tables["task_queue"].columns.values() if one.sortable and one.in_list),
    ("page 1 by created, descending", {"sort_by": "created", "descending": True}),
    ('status="Done" by created, descending', {"conditions": [Condition("status", "=", "Done")], "sort_by": "created", "descending": True}),
    ('pool="pool 3" by priority', {"conditions": [Condition("pool", "=", "pool 3")], "sort_by": "priority"}),
    ('client~"HOST17" by created', {"conditions": [Condition("client", "~", "HOST17")], "sort_by": "created"}),
    ('resource~"DATA/97" by id', {"conditions": [Condition("resource", "~", "DATA/97")]}),
    ('priority="7",status!="Done"', {"conditions": [Condition("priority", "=", "7"), Condition("status", "!=", "Done")]}),
)  # fmt: skip


async def _reads(path: Path, log: TasksLog, tasks: int) -> None:
    reader = SqliteViewReader(
        path, SCHEMA, WorkerThreads(), head=lambda: log.head, position_at=log.position_at, time_at=log.time_at
    )
    middle = log.head // 2
    direct = reader._in_loop
    row = partial(reader._tables["task_queue"].row, id=tasks // 2, at=None)
    print(f"record by id, bare call      {_timed(lambda: direct.read(row), 2000)[0]:8.0f} us")
    print(
        f"record by id, through row()  {(await _timed_async(lambda: reader.row('task_queue', tasks // 2), 2000))[0]:8.0f} us"
    )
    at = (await _timed_async(lambda: reader.row("task_queue", tasks // 4, middle), 2000))[0]
    print(f"record by id, at the middle  {at:8.0f} us")
    threads = WorkerThreads()
    hop = (await _timed_async(lambda: threads.run(partial(direct.read, row)), 1000))[0]
    print(f"record by id, on a thread    {hop:8.0f} us")
    print(
        f"{'lists of 50 of ' + str(tasks):42}{'first ms':>9}{'p50 us':>9}{'p99 us':>9}{'loop':>6}{'total':>9}   at middle: first ms, p50 us"
    )
    for name, arguments in QUERIES:
        query = Query(resource="task_queue", limit=50, **arguments)
        figures = await _list_figures(reader, query)
        then = await _list_figures(reader, msgspec.structs.replace(query, at=middle))
        print(
            f"{name:42}{figures[0]:9.1f}{figures[1]:9.0f}{figures[2]:9.0f}{'yes' if figures[3] else 'no':>6}{figures[4]:9d}"
            f"{then[0]:12.1f}{then[1]:9.0f}   ratio {then[1] / figures[1]:.2f}"
        )
    await reader.close()


async def _list_figures(reader: SqliteViewReader, query: Query) -> tuple[float, float, float, bool, int]:
    started = time.perf_counter()
    page = await reader.page(query)
    first_ms = (time.perf_counter() - started) * 1e3
    times = max(5, min(300, int(1000 / max(first_ms, 0.5))))
    before = reader.reads_on_threads
    p50, p99 = await _timed_async(lambda: reader.page(query), times)
    return first_ms, p50, p99, reader.reads_on_threads == before, page.total


def _substrings() -> None:
    """What the case-folded substring costs per row: native, and by a call back into Python."""
    connection = sqlite3.connect(":memory:")
    connection.create_function("folded", 2, lambda text, needle: int(needle in text.casefold()), deterministic=True)
    connection.execute("CREATE TABLE t (x TEXT)")
    connection.executemany("INSERT INTO t VALUES (?)", [(f"/srv/data/{number}",) for number in range(200_000)])
    for name, predicate in (
        ("LIKE", "x LIKE '%DATA/97%'"),
        (
            "LIKE if ASCII",
            "CASE WHEN length(x) = length(CAST(x AS BLOB)) THEN x LIKE '%DATA/97%' ELSE folded(x, 'data/97') END",
        ),
        ("Python function", "folded(x, 'data/97')"),
    ):
        started = time.perf_counter()
        connection.execute(f"SELECT count(*) FROM t WHERE {predicate}").fetchone()
        print(f"substring, {name:16} {(time.perf_counter() - started) / 200_000 * 1e9:6.0f} ns a row")
    connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3, help="of the rebuild and its peers")
    parser.add_argument("--versions", type=int, default=len(STATUSES), help="status changes of a task")
    parser.add_argument("--folder", type=Path, help="where the files are made; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        log = TasksLog(options.tasks, STATUSES[-options.versions :] if options.versions else ())
        figures = rebuild_beside_sqlite(cast(EventLog, log), folder, rounds=options.rounds)
        print(f"SQLite {sqlite3.sqlite_version}; {figures.events} events, {figures.rows} rows")
        print(
            f"rebuild                     {figures.rebuild_seconds:7.2f} s, {figures.rows / figures.rebuild_seconds:9.0f} rows/s"
        )
        print(f"bare executemany            {figures.bare_seconds:7.2f} s, ratio {figures.ratio:.2f} (at least 0.3)")
        print(f"bare executemany + indexes  {figures.bare_indexed_seconds:7.2f} s, ratio {figures.ratio_indexed:.2f}")
        print(f"file {(folder / 'views.sqlite').stat().st_size / 2**20:.0f} MiB")
        _substrings()
        trio.run(_reads, folder / "views.sqlite", log, options.tasks)


if __name__ == "__main__":
    main()
