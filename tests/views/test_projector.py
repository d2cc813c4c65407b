"""The projector: what it does with the file it finds, with one that is taken away, with crashes, and with who waits for it."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
import trio
import trio.testing

from drivers.simulated.world import InlineThreads
from drivers.world import WorkerThreads
from eventlog.views import LOGS, Query, SqliteViewReader, ViewSchema, files, rebuild, views_digest
from rbcore.errors import DeadlineExceeded
from rbcore.resources import RESOURCES
from tests.views.histories import History, ListedLog
from tests.views.running import projected

T = TypeVar("T")
SCHEMA = ViewSchema(RESOURCES, LOGS)


@pytest.fixture
def history() -> History:
    return History(3).grow(300)


def reference_digest(log: ListedLog, folder: Path) -> str:
    path = folder / "reference.sqlite"
    rebuild(log.as_log(), path, SCHEMA)
    return views_digest(path, SCHEMA)


def generations(folder: Path) -> set[str]:
    return {one.name.removesuffix("-wal").removesuffix("-shm") for one in folder.glob("views.sqlite.*")}


def damage_header(path: Path) -> None:
    path.resolve().write_bytes(b"not a database, by any means" * 40)


def damage_pages(path: Path) -> None:
    content = bytearray(path.resolve().read_bytes())
    for start in range(4096, len(content), 8192):
        content[start : start + 64] = bytes(64)
    path.resolve().write_bytes(content)


def cut_short(path: Path) -> None:
    content = path.resolve().read_bytes()
    path.resolve().write_bytes(content[: len(content) // 2])


def empty(path: Path) -> None:
    path.resolve().write_bytes(b"")


def remove_file(path: Path) -> None:
    path.resolve().unlink()


def remove_link(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("harm", [damage_header, damage_pages, cut_short, empty, remove_file, remove_link])
async def test_a_damaged_or_missing_file_is_made_anew(
    tmp_path: Path, history: History, caplog: pytest.LogCaptureFixture, harm: Callable[[Path], None]
) -> None:
    log, path = ListedLog(history.envelopes), tmp_path / "views.sqlite"
    rebuild(log.as_log(), path, SCHEMA)
    harm(path)
    with caplog.at_level(logging.WARNING):
        async with projected(log, path, SCHEMA) as projector:
            await projector.wait_for(log.head, 5)
    assert "making the views anew" in caplog.text
    assert views_digest(path, SCHEMA) == reference_digest(log, tmp_path)


async def test_a_file_of_other_declarations_is_made_anew(
    tmp_path: Path, history: History, caplog: pytest.LogCaptureFixture
) -> None:
    log, path = ListedLog(history.envelopes), tmp_path / "views.sqlite"
    rebuild(log.as_log(), path, ViewSchema(RESOURCES, LOGS, revision="before"))
    async with projected(log, path, SCHEMA) as projector:
        await projector.wait_for(log.head, 5)
    assert "other declarations" in caplog.text
    assert views_digest(path, SCHEMA) == reference_digest(log, tmp_path)


async def test_a_file_ahead_of_a_restored_log_is_made_anew(
    tmp_path: Path, history: History, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "views.sqlite"
    rebuild(ListedLog(history.envelopes).as_log(), path, SCHEMA)
    restored = ListedLog(history.envelopes[:200])
    async with projected(restored, path, SCHEMA) as projector:
        with trio.fail_after(5):
            while projector.statistics().rebuilds == 0:
                await trio.lowlevel.checkpoint()
        assert projector.position == 200
    assert "beyond the log's head 200" in caplog.text
    assert views_digest(path, SCHEMA) == reference_digest(restored, tmp_path)


@pytest.mark.parametrize("stops", [(1,), (50, 51, 200), (299, 300)])
async def test_it_goes_on_where_it_stopped(tmp_path: Path, history: History, stops: tuple[int, ...]) -> None:
    log, path = ListedLog(), tmp_path / "views.sqlite"
    for stop in (*stops, len(history.envelopes)):
        async with projected(log, path, SCHEMA) as projector:
            log.extend(history.envelopes[log.head : stop])
            await projector.wait_for(log.head, 5)
            assert projector.statistics().rebuilds == (1 if stop == stops[0] else 0)
    assert views_digest(path, SCHEMA) == reference_digest(log, tmp_path)


class CrashingThreads(InlineThreads):
    """The process dies at a step: the work of the step was done, or was not, and nothing after it happens."""

    def __init__(self, step: int, *, before: bool) -> None:
        self.left, self.before = step, before

    async def run(self, work: Callable[[], T]) -> T:
        self.left -= 1
        if self.left == 0 and self.before:
            raise SystemError("crash")
        answer = await super().run(work)
        if self.left == 0:
            raise SystemError("crash")
        return answer


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("step", range(1, 24))
async def test_after_a_crash_at_any_step_nothing_is_folded_twice(tmp_path: Path, step: int, before: bool) -> None:
    history = History(step).grow(90)
    log, path = ListedLog(history.envelopes[:30]), tmp_path / "views.sqlite"
    with pytest.RaisesGroup(SystemError, allow_unwrapped=True, flatten_subgroups=True):
        async with projected(log, path, SCHEMA, CrashingThreads(step, before=before)) as projector:
            for start in range(30, 94, 4):
                await projector.wait_for(log.head, 5)
                log.extend(history.envelopes[start : start + 4])
            raise SystemError("it ran to the end")
    log.extend(history.envelopes[log.head :])
    async with projected(log, path, SCHEMA) as projector:
        await projector.wait_for(log.head, 5)
    assert views_digest(path, SCHEMA) == reference_digest(log, tmp_path)


async def test_a_rebuild_goes_on_beside_the_running_views(tmp_path: Path, history: History) -> None:
    log, path = ListedLog(history.envelopes[:100]), tmp_path / "views.sqlite"
    threads = WorkerThreads()
    async with projected(log, path, SCHEMA, threads) as projector:
        await projector.wait_for(100, 5)
        reader = SqliteViewReader(
            path, SCHEMA, threads, head=lambda: log.head, position_at=log.position_at, wait_for=projector.wait_for
        )
        old = files.current_generation(path)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(projector.rebuild)
            for start in range(100, len(history.envelopes), 7):
                log.extend(history.envelopes[start : start + 7])
                await reader.wait_for(log.head, 5)
                page = await reader.page(Query(resource="task_queue"))
                assert page.position == log.head
        assert files.current_generation(path) != old
        assert (await reader.page(Query(resource="task_queue"))).position == log.head
        await reader.close()
    assert generations(tmp_path) == {files.current_generation(path)}
    assert views_digest(path, SCHEMA) == reference_digest(log, tmp_path)


@pytest.mark.parametrize("steps", range(1, 9))
async def test_a_cancelled_rebuild_leaves_everything_as_it_was(tmp_path: Path, history: History, steps: int) -> None:
    log, path = ListedLog(history.envelopes), tmp_path / "views.sqlite"
    async with projected(log, path, SCHEMA) as projector:
        await projector.wait_for(log.head, 5)
        before, rebuilds = files.current_generation(path), projector.statistics().rebuilds
        async with trio.open_nursery() as nursery:
            nursery.start_soon(projector.rebuild)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        finished = projector.statistics().rebuilds > rebuilds
        assert (files.current_generation(path) != before) == finished
        assert not projector.statistics().rebuilding
        assert generations(tmp_path) == {files.current_generation(path)}
        log.extend(History(3).grow(310).envelopes[log.head :])
        await projector.wait_for(log.head, 5)
    assert views_digest(path, SCHEMA) == reference_digest(log, tmp_path)


async def test_views_made_anew_by_a_tool_are_noticed(
    tmp_path: Path, history: History, autojump_clock: trio.testing.MockClock
) -> None:
    log, path = ListedLog(history.envelopes[:100]), tmp_path / "views.sqlite"
    async with projected(log, path, SCHEMA) as projector:
        await projector.wait_for(100, 5)
        rebuild(log.as_log(), path, SCHEMA)
        log.extend(history.envelopes[100:200])
        await projector.wait_for(200, 5)
        await trio.sleep(3)
        log.extend(history.envelopes[200:])
        await projector.wait_for(log.head, 5)
    assert views_digest(path, SCHEMA) == reference_digest(log, tmp_path)


async def test_who_waits_longer_than_the_deadline_is_told(
    tmp_path: Path, history: History, autojump_clock: trio.testing.MockClock
) -> None:
    log, path = ListedLog(history.envelopes), tmp_path / "views.sqlite"
    async with projected(log, path, SCHEMA) as projector:
        await projector.wait_for(log.head, 1)
        before = trio.current_time()
        with pytest.raises(DeadlineExceeded, match=f"did not reach {log.head + 1} within 3 s"):
            await projector.wait_for(log.head + 1, 3)
        assert trio.current_time() - before == pytest.approx(3)


async def test_a_full_disk_ends_the_run_and_the_next_one_goes_on(
    tmp_path: Path, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, path = ListedLog(history.envelopes[:100]), tmp_path / "views.sqlite"

    def full(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # SQLite's own way to be full: pages in use are kept

    with pytest.RaisesGroup(pytest.RaisesExc(sqlite3.OperationalError, match="full"), flatten_subgroups=True):
        async with projected(log, path, SCHEMA) as projector:
            await projector.wait_for(100, 5)
            connection = projector._connection
            assert connection is not None
            full(connection)
            log.extend(history.envelopes[100:])
            await projector.wait_for(log.head, 5)
    async with projected(log, path, SCHEMA) as projector:
        await projector.wait_for(log.head, 5)
        assert projector.statistics().rebuilds == 0
    assert views_digest(path, SCHEMA) == reference_digest(log, tmp_path)


async def test_memory_follows_the_live_state_not_the_log(tmp_path: Path, history: History) -> None:
    """Nothing that was written stays collected in the fold."""
    log, path = ListedLog(history.envelopes), tmp_path / "views.sqlite"
    async with projected(log, path, SCHEMA) as projector:
        await projector.wait_for(log.head, 5)
        assert projector._fold.pending == 0
