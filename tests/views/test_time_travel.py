"""The strongest property of the views: at every position they show exactly what folding the log up to there gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers.simulated.world import InlineThreads
from eventlog.views import LOGS, Query, SqliteViewReader, ViewSchema, rebuild, views_digest
from rbcore.resources import RESOURCES
from tests.views import oracle
from tests.views.histories import History, ListedLog
from tests.views.running import projected

SCHEMA = ViewSchema(RESOURCES, LOGS)


def reader_of(path: Path, log: ListedLog) -> SqliteViewReader:
    return SqliteViewReader(
        path, SCHEMA, InlineThreads(), head=lambda: log.head, position_at=log.position_at, time_at=log.time_at
    )


@pytest.mark.parametrize("seed", range(6))
async def test_at_every_position_the_view_is_the_fold_of_the_log(tmp_path: Path, seed: int) -> None:
    history = History(seed).grow(120)
    log = ListedLog()
    path = tmp_path / "views.sqlite"
    async with projected(log, path, SCHEMA) as projector:
        for start in range(0, history.state.position, 17):  # batches that split and join changes of the same record
            log.extend(history.envelopes[start : start + 17])
            await projector.wait_for(log.head, 5)
    reader = reader_of(path, log)
    for position in range(log.head + 1):
        state = oracle.state_at(history.envelopes, position)
        for resource in RESOURCES:
            expected = oracle.records(resource, state, RESOURCES)
            page = await reader.page(Query(resource=resource.name, limit=1000, at=position))
            shown = ("id", *(one.name for one in resource.fields if one.in_list))
            assert page.rows == [{name: row[name] for name in shown} for row in expected], (position, resource.name)
            assert (page.total, page.position) == (len(expected), position)
            for row in expected:
                assert await reader.row(resource.name, row["id"], position) == (row, position)
        for table in LOGS:
            page = await reader.page(Query(resource=table.name, limit=1000, at=position))
            assert page.rows == oracle.lines(table, history.envelopes, position, RESOURCES), table.name
    for resource in RESOURCES:
        now = await reader.page(Query(resource=resource.name, limit=1000))
        then = await reader.page(Query(resource=resource.name, limit=1000, at=log.head))
        assert now == then
    await reader.close()


@pytest.mark.parametrize("seed", range(6))
async def test_rebuilt_views_equal_live_ones(tmp_path: Path, seed: int) -> None:
    history = History(seed).grow(400)
    log = ListedLog()
    live, rebuilt = tmp_path / "live.sqlite", tmp_path / "rebuilt.sqlite"
    async with projected(log, live, SCHEMA) as projector:
        for start in range(0, history.state.position, 23):
            log.extend(history.envelopes[start : start + 23])
            await projector.wait_for(log.head, 5)
    assert rebuild(log.as_log(), rebuilt, SCHEMA) == log.head
    assert views_digest(live, SCHEMA) == views_digest(rebuilt, SCHEMA)
