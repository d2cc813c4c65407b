"""The promises of the port, held by the log on LMDB and by the one in memory alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from eventlog import EventLog, decode_event
from rbcore.errors import InvalidRequest, TooLarge, Unavailable, VersionConflict
from rbcore.events import Envelope
from tests.eventlog.logs import KINDS, batch, fill, note, open_any


@pytest.fixture(params=KINDS)
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EventLog]:
    async with open_any(request.param, tmp_path) as opened:
        yield opened


async def test_an_empty_log(log: EventLog) -> None:
    assert log.head == 0
    assert list(log.read()) == []
    assert list(log.read_stream("task/1")) == []
    assert log.position_at(2**62) == 0
    assert log.answer_of("never") is None


async def test_positions_and_versions_have_no_gaps(log: EventLog) -> None:
    first = log.submit(batch("a", "task/1", "task/2", "task/1"))
    second = log.submit(batch("b", "task/1"))
    await second.durable()
    assert [(one.position, one.stream, one.version) for one in (*first.envelopes, *second.envelopes)] == [
        (1, "task/1", 1),
        (2, "task/2", 1),
        (3, "task/1", 2),
        (4, "task/1", 3),
    ]
    assert tuple(log.read()) == (*first.envelopes, *second.envelopes)
    assert log.head == 4


async def test_what_is_read_is_what_was_submitted(log: EventLog) -> None:
    pending = log.submit(batch("a", text="größer als Null \N{SNOWMAN}"))
    await pending.durable()
    (envelope,) = log.read()
    assert decode_event(envelope) == note("größer als Null \N{SNOWMAN}")
    assert (envelope.actor, envelope.command_id, envelope.correlation) == ("user:rubackup", "a", "a")


async def test_nothing_is_readable_before_it_is_durable(log: EventLog) -> None:
    pending = log.submit(batch("a"))
    assert log.head == 0
    assert list(log.read()) == []
    assert log.statistics().head == 1
    await pending.durable()
    assert log.head == 1


async def test_the_expected_version_is_checked_against_what_is_pending(log: EventLog) -> None:
    log.submit(batch("a", "task/1", expected={"task/1": 0}))
    with pytest.raises(VersionConflict, match="task/1 is at version 1, not 0") as caught:
        log.submit(batch("b", "task/1", expected={"task/1": 0}))
    assert caught.value.data == {"stream": "task/1", "expected": 0, "actual": 1}
    await log.submit(batch("c", "task/1", expected={"task/1": 1})).durable()
    with pytest.raises(VersionConflict):
        log.submit(batch("d", "task/1", expected={"task/1": 1}))
    with pytest.raises(VersionConflict):
        log.submit(batch("e", "task/9", expected={"task/9": 3}))
    assert log.statistics().head == 2, "a refused batch leaves nothing"


async def test_a_stream_is_not_confused_with_one_that_starts_like_it(log: EventLog) -> None:
    await fill(log, 300)
    await log.submit(batch("a", "task/1", "task/11", "task/1\x01", "task", "task/1/x")).durable()
    assert [one.version for one in log.read_stream("task/11")] == [1]
    assert [one.version for one in log.read_stream("task")] == [1]
    assert [one.version for one in log.read_stream("task/1")] == list(range(1, 32))
    log.submit(batch("b", "task/1", expected={"task/1": 31, "task/11": 1, "task/": 0, "task/12": 0}))


async def test_reading_in_parts(log: EventLog) -> None:
    await fill(log, 700)
    assert [one.position for one in log.read()] == list(range(1, 701))
    assert [one.position for one in log.read(695)] == list(range(696, 701))
    assert [one.position for one in log.read(10, 12)] == [11, 12]
    assert [one.position for one in log.read(699, 10_000)] == [700]
    assert list(log.read(700)) == []
    assert list(log.read(12, 12)) == []
    assert [one.position for one in log.read_stream("task/3", 68)] == [683, 693]


async def test_a_long_stream_is_read_whole(log: EventLog) -> None:
    for number in range(7):
        await log.submit(batch(f"c{number}", *["task/1"] * 100)).durable()
    assert [one.version for one in log.read_stream("task/1")] == list(range(1, 701))


async def test_a_repeated_command_gets_the_first_answer(log: EventLog) -> None:
    first = log.submit(batch("a", "task/1", "task/2", answer=b"first"))
    again = log.submit(batch("a", "task/7", answer=b"second"))
    assert not first.repeated
    assert again.repeated
    assert (again.answer, again.envelopes) == (b"first", first.envelopes)
    assert log.answer_of("a") is None, "the answer is given once it is durable"
    await again.durable()
    assert log.answer_of("a") == b"first"
    later = log.submit(batch("a", "task/8", answer=b"third"))
    await later.durable()
    assert later.repeated
    assert (later.answer, later.envelopes) == (b"first", first.envelopes)
    assert log.head == 2


async def test_times_never_go_back(log: EventLog) -> None:
    for number, time_ns in enumerate((100, 300, 200, 400), start=1):
        await log.submit(batch(f"c{number}", time_ns=time_ns)).durable()
    assert [one.time_ns for one in log.read()] == [100, 300, 300, 400]
    assert [log.position_at(at) for at in (99, 100, 299, 300, 399, 400, 2**62)] == [0, 1, 1, 3, 3, 4, 4]


@pytest.mark.parametrize("command_id", ["", "x" * 401, "ü" * 201])
async def test_command_ids_have_bounds(log: EventLog, command_id: str) -> None:
    with pytest.raises(InvalidRequest):
        log.submit(batch(command_id))
    assert log.answer_of(command_id) is None


@pytest.mark.parametrize("stream", ["", "x" * 401, "task/\x001"])
async def test_stream_names_have_bounds(log: EventLog, stream: str) -> None:
    with pytest.raises(InvalidRequest):
        log.submit(batch("a", "task/1", stream))
    assert log.statistics().head == 0


async def test_the_longest_names_are_kept(log: EventLog) -> None:
    await log.submit(batch("c" * 400, "s" * 400)).durable()
    await fill(log, 300)
    assert log.answer_of("c" * 400) == b"answer"
    assert [one.position for one in log.read_stream("s" * 400)] == [1]


async def test_a_batch_has_events_and_a_bound(log: EventLog) -> None:
    with pytest.raises(InvalidRequest):
        log.submit(msgspec.structs.replace(batch("a"), events=[]))
    with pytest.raises(TooLarge):
        log.submit(batch("a", text="x" * (17 << 20)))
    assert log.statistics().head == 0


async def test_too_much_pending_is_refused_and_passes(log: EventLog) -> None:
    pending = [log.submit(batch(f"c{number}")) for number in range(8192)]
    with pytest.raises(Unavailable, match="waiting for the disk"):
        log.submit(batch("one more"))
    for one in pending:
        await one.durable()
    await log.submit(batch("one more")).durable()
    assert log.head == 8193


async def test_many_waiters_are_committed_in_groups(log: EventLog) -> None:
    async def client(number: int) -> None:
        for step in range(10):
            await log.submit(batch(f"{number}-{step}", f"task/{number}", expected={f"task/{number}": step})).durable()

    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(client, number)
    statistics = log.statistics()
    assert statistics.events == statistics.durable == log.head == 500
    assert statistics.commits < 500
    assert 1 < statistics.largest_group <= 50


async def test_a_waiter_that_is_cancelled_takes_nothing_along(log: EventLog) -> None:
    pending = log.submit(batch("a"))
    with trio.CancelScope() as scope:
        scope.cancel()
        await pending.durable()
    await pending.durable()
    assert log.head == 1


async def test_subscribers_see_everything_in_order_wherever_they_start(log: EventLog) -> None:
    await fill(log, 100)
    seen: dict[int, list[int]] = {0: [], 40: [], 100: [], 900: []}

    async def follow(after: int) -> None:
        async for group in log.subscribe(after):
            assert group
            seen[after] += [one.position for one in group]
            if seen[after][-1] >= 1500:
                return

    async with trio.open_nursery() as nursery:
        for after in seen:
            nursery.start_soon(follow, after)
        await fill(log, 1400)
    for after, positions in seen.items():
        assert positions == list(range(after + 1, 1501))


async def test_a_slow_subscriber_neither_loses_nor_delays(log: EventLog) -> None:
    subscription = log.subscribe(0)
    await fill(log, 2000)
    seen: list[Envelope] = []
    while len(seen) < 2000:
        seen += await anext(subscription)
    assert [one.position for one in seen] == list(range(1, 2001))


async def test_a_subscriber_can_be_cancelled_and_go_on(log: EventLog) -> None:
    subscription = log.subscribe(0)
    with trio.move_on_after(0):
        await anext(subscription)
    await fill(log, 3)
    assert [one.position for one in await anext(subscription)] == [1, 2, 3]


@pytest.mark.parametrize("kind", KINDS)
async def test_closing_commits_what_is_queued_and_ends_subscribers(kind: str, tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        async with open_any(kind, tmp_path) as log:
            ended = trio.Event()

            async def follow() -> None:
                with pytest.raises(Unavailable, match="closed"):
                    async for _ in log.subscribe(0):
                        pass
                ended.set()

            nursery.start_soon(follow)
            await trio.testing.wait_all_tasks_blocked()
            pending = [log.submit(batch(f"c{number}")) for number in range(20)]
        for one in pending:
            await one.durable()
        await ended.wait()
        with pytest.raises(Unavailable, match="closed"):
            log.submit(batch("late"))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cancelled_owner_still_commits_what_was_submitted(kind: str, tmp_path: Path) -> None:
    with trio.CancelScope() as scope:
        async with open_any(kind, tmp_path) as log:
            pending = log.submit(batch("a"))
            scope.cancel()
            await trio.lowlevel.checkpoint()
    await pending.durable()
    assert log.head == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_an_error_of_the_owner_comes_out_as_it_is(kind: str, tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with open_any(kind, tmp_path):
            raise KeyError("mine")
