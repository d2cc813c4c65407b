"""The reader: where reads run, which moment they show, and what it says when it cannot answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest
import trio
import trio.testing

from drivers.simulated.world import InlineThreads
from drivers.world import WorkerThreads
from eventlog.views import LOGS, Condition, Query, SqliteViewReader, ViewSchema, moments, rebuild
from rbcore.errors import DeadlineExceeded, InvalidRequest, Unavailable
from rbcore.resources import RESOURCES
from tests.views.histories import History, ListedLog

SCHEMA = ViewSchema(RESOURCES, LOGS)


class Setting:
    """A log, its views, and a reader of them without a projector in the process."""

    def __init__(self, folder: Path, zone: tzinfo = UTC) -> None:
        self.history = History(11).grow(400)
        self.log = ListedLog(self.history.envelopes)
        self.path = folder / "views.sqlite"
        rebuild(self.log.as_log(), self.path, SCHEMA)
        self.reader = self.reader_in(zone)

    def reader_in(self, zone: tzinfo) -> SqliteViewReader:
        return SqliteViewReader(
            self.path,
            SCHEMA,
            InlineThreads(),
            head=lambda: self.log.head,
            position_at=self.log.position_at,
            zone=zone,
        )


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    made = Setting(tmp_path)
    yield made
    await made.reader.close()


async def test_a_record_is_read_in_the_loop(setting: Setting) -> None:
    row, position = await setting.reader.row("pool_list", 1)
    assert row is not None
    assert row["id"] == 1
    assert position == setting.log.head
    assert (setting.reader.reads_in_loop, setting.reader.reads_on_threads) == (1, 0)


async def test_what_is_not_there_is_none_at_the_same_position(setting: Setting) -> None:
    assert await setting.reader.row("pool_list", 10**6) == (None, setting.log.head)
    assert await setting.reader.row("pool_list", 1, at=0) == (None, 0)
    with pytest.raises(InvalidRequest):
        await setting.reader.row("pool_list", 1, at=setting.log.head + 1)


async def test_a_read_beyond_the_allowance_moves_to_a_thread(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    query = Query(resource="task_queue", limit=1000, sort_by="client", conditions=[Condition("resource", "~", "Е")])
    expected = await setting.reader.page(query)
    monkeypatch.setattr("eventlog.views.reader.LOOP_INSTRUCTIONS", 1)
    monkeypatch.setattr("eventlog.views.connections.INSTRUCTIONS_PER_CALL", 10)
    small = setting.reader_in(UTC)
    for _ in range(3):  # an interrupted connection answers again
        assert await small.page(query) == expected
    assert (small.reads_in_loop, small.reads_on_threads) == (0, 3)
    await small.close()


async def test_totals_follow_the_log_forwards_and_backwards(setting: Setting) -> None:
    """A remembered total that is brought to another position equals one that is counted there."""
    query = Query(resource="task_queue", limit=1, conditions=[Condition("status", "!=", "New")])
    for at in (400, 10, 200, 399, 57, 0, 404, 200):
        moment = msgspec.structs.replace(query, at=at)
        fresh = setting.reader_in(UTC)
        assert (await setting.reader.page(moment)).total == (await fresh.page(moment)).total
        await fresh.close()


async def test_positions_and_times_name_moments(setting: Setting) -> None:
    reader, head = setting.reader, setting.log.head
    assert [await reader.position_of(text) for text in ("0", " 17 ", str(head))] == [0, 17, head]
    for one in setting.history.envelopes[::37]:
        text = moments.render(one.time_ns // 1000, UTC)
        last = max(two.position for two in setting.history.envelopes if two.time_ns // 1000 <= one.time_ns // 1000)
        assert await reader.position_of(text) == last
        assert await reader.position_of(f"{text}+00:00") == last
        assert await reader.position_of(f"{text} 00:00") == last  # an unencoded plus
    assert await reader.position_of("2020-01-01") == 0
    assert await reader.position_of("2999-01-01T00:00:00+03:00") == head


@pytest.mark.parametrize(
    "moment", ["-1", "999999", "9" * 40, "yesterday", "", "2024-02-30", "１２", "1.5", "0001-01-01T00:00+23:59x"]
)
async def test_what_is_no_moment_is_refused(setting: Setting, moment: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        await setting.reader.position_of(moment)
    assert list(refusal.value.errors) == ["at"]


async def test_a_moment_that_the_views_have_not_reached_is_waited_for(
    setting: Setting, autojump_clock: trio.testing.MockClock
) -> None:
    setting.log.extend(History(11).grow(404).envelopes[setting.log.head :])
    with pytest.raises(DeadlineExceeded):
        await setting.reader.position_of(str(setting.log.head))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(setting.reader.wait_for, setting.log.head, 5)
        await trio.sleep(1)
        rebuild(setting.log.as_log(), setting.path, SCHEMA)


async def test_a_reader_reopens_after_a_swap(setting: Setting) -> None:
    before = await setting.reader.page(Query(resource="clients"))
    setting.log.extend(History(11).grow(500).envelopes[setting.log.head :])
    rebuild(setting.log.as_log(), setting.path, SCHEMA)
    after = await setting.reader.page(Query(resource="clients"))
    assert (before.position, after.position) == (404, setting.log.head)


async def test_without_a_file_reads_are_unavailable_for_a_moment(setting: Setting) -> None:
    setting.path.unlink()
    with pytest.raises(Unavailable, match="made anew"):
        await setting.reader.row("pool_list", 1)
    rebuild(setting.log.as_log(), setting.path, SCHEMA)
    assert (await setting.reader.row("pool_list", 1))[0] is not None


@pytest.mark.parametrize("zone", [UTC, ZoneInfo("Europe/Moscow"), timezone(timedelta(hours=-9, minutes=-30))])
async def test_times_stand_in_the_servers_zone(setting: Setting, zone: tzinfo) -> None:
    reader = setting.reader_in(zone)
    page = await reader.page(Query(resource="task_queue", limit=1000))
    created = {row["id"]: row["created"] for row in page.rows}
    for task in setting.history.state.tables["task"].values():
        local = datetime.fromtimestamp(task.created_ns // 10**9, zone).replace(
            tzinfo=None, microsecond=task.created_ns // 1000 % 10**6
        )
        assert created[task.id] == local.isoformat(timespec="microseconds")
        found = await reader.page(
            Query(resource="task_queue", conditions=[Condition("created", "=", created[task.id])])
        )
        assert task.id in [row["id"] for row in found.rows]
    await reader.close()


async def test_reads_of_many_tasks_share_few_connections(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventlog.views.reader.LOOP_INSTRUCTIONS", 1)
    reader = SqliteViewReader(
        setting.path, SCHEMA, WorkerThreads(3), head=lambda: setting.log.head, position_at=setting.log.position_at
    )
    answers = []

    async def read(number: int) -> None:
        answers.append(await reader.page(Query(resource="task_queue", limit=1000, page=1, at=number)))

    async with trio.open_nursery() as nursery:
        for number in range(60):
            nursery.start_soon(read, number)
    assert sorted(page.position for page in answers) == list(range(60))
    await reader.close()
