"""What the reader remembers of names and of their order never shows: it answers as one that remembers nothing."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
import trio

from drivers.simulated.world import InlineThreads
from eventlog.views import LOGS, Query, SqliteViewReader, ViewSchema, by_name, files, names, selection
from eventlog.views.names import NamesOf
from eventlog.views.queries import TableReader
from eventlog.views.totals import Totals
from rbcore import resource as declared
from rbcore.entities import Pool
from rbcore.events import RecordChanged, RecordCreated
from rbcore.resource import Resource
from rbcore.resources import RESOURCES, by_kind
from tests.views import oracle
from tests.views.histories import History, ListedLog
from tests.views.running import projected

SCHEMA = ViewSchema(RESOURCES, LOGS)
REFERENCES = [
    (resource, field.name)
    for resource in RESOURCES
    for field in resource.fields
    if isinstance(field, declared.Reference) and field.in_list
]


@pytest.fixture(autouse=True)
def always_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_name, "SORTED_ROWS_MAX", 0)


def expected(history: History, at: int, resource: Resource, sort_by: str, descending: bool) -> list[dict[str, Any]]:
    shown = ("id", *(one.name for one in resource.fields if one.in_list))
    rows = oracle.records(resource, oracle.state_at(history.envelopes, at), RESOURCES)
    rows.sort(key=lambda row: oracle.sort_key(row[sort_by], row["id"]), reverse=descending)
    return [{name: row[name] for name in shown} for row in rows]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "bounds",
    [{}, {"GONE_MAX": 1}, {"BRIDGE_POSITIONS_MAX": 5}, {"REMEMBERED_MAX": 2}, {"NAMES_MAX": 3}, {"TIMES_MAX": 3}],
)
async def test_pages_by_name_follow_a_log_that_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, bounds: dict[str, int]
) -> None:
    modules = {"NAMES_MAX": names, "TIMES_MAX": selection}
    for name, bound in bounds.items():
        monkeypatch.setattr(modules.get(name, by_name), name, bound)
    draw, history, log, path = random.Random(seed), History(seed), ListedLog(), tmp_path / "views.sqlite"
    reader = SqliteViewReader(
        path, SCHEMA, InlineThreads(), head=lambda: log.head, position_at=log.position_at, time_at=log.time_at
    )
    async with projected(log, path, SCHEMA) as projector:
        for _ in range(8):
            history.grow(draw.choice((1, 3, 40)))
            log.extend(history.envelopes[log.head :])
            await projector.wait_for(log.head, 5)
            for resource, name in draw.sample(REFERENCES, 8):
                at, descending = draw.choice((None, None, draw.randrange(log.head + 1))), draw.random() < 0.5
                query = Query(resource=resource.name, sort_by=name, descending=descending, limit=1000, at=at)
                wanted = expected(history, log.head if at is None else at, resource, name, descending)
                assert (await reader.page(query)).rows == wanted, query
    await reader.close()


@pytest.fixture(params=range(3))
def snapshots(
    tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[tuple[History, list[tuple[int, sqlite3.Connection]]]]:
    """Transactions at several positions of one history, between which a pool is renamed, one appears, and tasks come and go."""
    history, log, path = History(request.param).grow(200), ListedLog(), tmp_path / "views.sqlite"
    opened: list[tuple[int, sqlite3.Connection]] = []

    async def fold() -> None:
        async with projected(log, path, SCHEMA) as projector:
            for step in range(4):
                pool = history.state.next_id(Pool)
                history.record("pool/1", RecordChanged({"pool_name": ("zz", "a", "mm", "Default")[step]}))
                fields = {"pool_name": f"new {9 - step}", "pool_type": "File system", "media_server": 1}
                history.record(f"pool/{pool}", RecordCreated(fields))
                history.grow(100)
                log.extend(history.envelopes[log.head :])
                await projector.wait_for(log.head, 5)
                connection = files.open_read_only(path)
                connection.execute("BEGIN")
                opened.append((files.position_of(connection), connection))

    trio.run(fold)
    yield history, opened
    for _, connection in opened:
        connection.close()


@pytest.mark.parametrize("bridge", [10_000, 5])
def test_reads_at_different_positions_do_not_disturb_each_other(
    snapshots: tuple[History, list[tuple[int, sqlite3.Connection]]], monkeypatch: pytest.MonkeyPatch, bridge: int
) -> None:
    """Threads share what is remembered, and each may read an older state than the one before."""
    monkeypatch.setattr(by_name, "BRIDGE_POSITIONS_MAX", bridge)
    history, opened = snapshots
    tasks = by_kind["task"]
    reader = TableReader(SCHEMA, SCHEMA.tables[tasks.name], Totals(), NamesOf(SCHEMA), UTC, None)
    draw = random.Random(5)
    for _ in range(60):
        position, connection = draw.choice(opened)
        name, descending = draw.choice(("pool", "client", "hwid")), draw.random() < 0.5
        query = Query(resource=tasks.name, sort_by=name, descending=descending, limit=1000)
        assert reader.page(connection, query=query).rows == expected(history, position, tasks, name, descending)
