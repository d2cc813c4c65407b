"""Row versions of a past position: the tree names exactly those that held, and looking at them stays cheap."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bench.views import SCHEMA, TasksLog, numbered, step, story
from drivers.simulated.world import InlineThreads
from eventlog.port import EventLog
from eventlog.views import Condition, Query, SqliteViewReader, rebuild
from eventlog.views.past import nodes
from eventlog.views.schema import fork_of
from tests.views.histories import ListedLog

TASKS = 3_000
positions = st.integers(0, 2**40) | st.integers(0, 40)


@given(begin=positions, length=st.integers(1, 2**20) | st.integers(1, 5), at=positions, later=st.integers(0, 2**20))
@example(begin=1, length=1, at=1, later=0)
def test_a_version_held_exactly_when_its_fork_says_so(begin: int, length: int, at: int, later: int) -> None:
    end = begin + length
    fork = fork_of(begin, end)
    assert begin <= fork < end
    before, after = nodes(at, max(at, end) + later)
    found = (fork in before and end > at) or (fork in after and begin <= at)
    assert found == (begin <= at < end)
    assert not set(before) & set(after)


@pytest.fixture
async def big(tmp_path: Path) -> AsyncIterator[tuple[SqliteViewReader, TasksLog]]:
    log, path = TasksLog(TASKS), tmp_path / "views.sqlite"
    rebuild(cast(EventLog, log), path, SCHEMA)
    reader = SqliteViewReader(
        path, SCHEMA, InlineThreads(), head=lambda: log.head, position_at=log.position_at, time_at=log.time_at
    )
    yield reader, log
    await reader.close()


def orders() -> list[dict[str, Any]]:
    columns = SCHEMA.tables["task_queue"].columns.values()
    names = ["id", *(one.name for one in columns if one.sortable and one.in_list)]
    return [{"sort_by": name, "descending": descending} for name in names for descending in (False, True)]


async def test_a_page_in_any_order_is_within_the_allowance_of_the_loop(big: tuple[SqliteViewReader, TasksLog]) -> None:
    """Nothing is sorted and nothing scanned for it: that costs instructions, which are counted, not seconds."""
    reader, _ = big
    for conditions in ((), (Condition("status", "=", "Done"), Condition("priority", ">=", "0"))):
        for order in orders():
            query = Query(resource="task_queue", limit=50, conditions=conditions, **order)
            await reader.page(query)  # counts the total once
            before = reader.reads_on_threads
            assert (await reader.page(query)).total == TASKS
            assert reader.reads_on_threads == before, order


async def test_the_same_at_a_past_position(big: tuple[SqliteViewReader, TasksLog]) -> None:
    reader, log = big
    for order in orders():
        query = Query(resource="task_queue", limit=50, at=log.head // 2, **order)
        await reader.page(query)
        before = reader.reads_on_threads
        assert TASKS // 3 < (await reader.page(query)).total < TASKS
        assert reader.reads_on_threads == before, order


async def test_rows_of_one_value_are_found_wherever_they_stand(tmp_path: Path) -> None:
    """Here at the end of the list: a walk by id would pass all the others first."""
    last = [(f"task/{number}", step(number, "New", "Done")) for number in range(11_001, 12_001)]
    log, path = ListedLog(list(numbered(itertools.chain(story(12_000, ()), last)))), tmp_path / "views.sqlite"
    rebuild(log.as_log(), path, SCHEMA)
    reader = SqliteViewReader(path, SCHEMA, InlineThreads(), head=lambda: log.head, position_at=log.position_at)
    query = Query(resource="task_queue", limit=50, conditions=[Condition("status", "=", "Done")])
    await reader.page(query)
    before = reader.reads_on_threads
    assert [row["id"] for row in (await reader.page(query)).rows] == list(range(11_001, 11_051))
    assert reader.reads_on_threads == before
    await reader.close()


async def test_downwards_is_upwards_from_the_end(big: tuple[SqliteViewReader, TasksLog]) -> None:
    """However the two are looked for, in the past and now."""
    reader, log = big

    async def ids(at: int | None, order: dict[str, Any], limit: int) -> list[int]:
        found: list[int] = []
        while True:
            query = Query(resource="task_queue", limit=limit, page=len(found) // limit + 1, at=at, **order)
            page = await reader.page(query)
            found += [row["id"] for row in page.rows]
            if len(found) == page.total:
                return found
            assert len(page.rows) == limit

    for at in (None, log.head // 2, log.head // 5):
        for column in {order["sort_by"] for order in orders()}:
            up = await ids(at, {"sort_by": column}, 1000)
            down = await ids(at, {"sort_by": column, "descending": True}, 900)
            assert down == up[::-1], (at, column)
