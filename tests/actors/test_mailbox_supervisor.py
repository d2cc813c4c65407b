"""Mailboxes refuse at their bound; supervisors start again, later each time, and at last give up."""

from __future__ import annotations

import logging
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from actors.mailbox import Mailbox
from actors.progress import SAMPLES_PER_TASK, TASKS_MAX, ProgressBoard
from actors.quiet_log import LINES_PER_WINDOW, WINDOW_SECONDS, QuietLog
from actors.supervisor import Backoff, RestartPolicy, Supervisor, describe, leading_error
from drivers.simulated.world import SeededRandomness, SimulatedWorld
from rbcore.errors import Damaged, DeadlineExceeded, Unavailable
from rbcore.messages import WorkProgress


async def test_a_mailbox_keeps_order_and_bound(autojump_clock: MockClock) -> None:
    mailbox = Mailbox[int]("drive/1@here", bound=3)
    for number in range(3):
        mailbox.put_nowait(number)
    with pytest.raises(Unavailable, match=r"drive/1@here has 3 messages waiting, which is its bound"):
        mailbox.put_nowait(3)
    with pytest.raises(DeadlineExceeded):
        await mailbox.put(3, deadline_seconds=1.0)
    assert [await mailbox.get() for _ in range(3)] == [0, 1, 2]
    statistics = mailbox.statistics()
    assert (statistics.accepted, statistics.refused, statistics.waiting) == (3, 2, 0)
    assert repr(mailbox) == "<Mailbox of drive/1@here: 0 of 3 waiting>"


async def test_a_closed_mailbox_is_emptied_and_then_ends(autojump_clock: MockClock) -> None:
    mailbox = Mailbox[int]("a/1@h", bound=3)
    mailbox.put_nowait(1)
    mailbox.close()
    with pytest.raises(Unavailable, match="stopping"):
        mailbox.put_nowait(2)
    assert await mailbox.get() == 1
    with pytest.raises(trio.EndOfChannel):
        await mailbox.get()


async def test_put_waits_for_room(autojump_clock: MockClock) -> None:
    mailbox = Mailbox[int]("a/1@h", bound=1)
    mailbox.put_nowait(1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mailbox.put, 2)
        await trio.sleep(1)
        assert await mailbox.get() == 1
        assert await mailbox.get() == 2


def test_backoff_doubles_within_its_bounds() -> None:
    backoff = Backoff(0.5, 30.0, SeededRandomness(1))
    for step in range(100):
        full = min(30.0, 0.5 * 2.0**step)
        assert full / 2 <= backoff.next_seconds() <= full
    backoff.reset()
    assert backoff.next_seconds() <= 0.5


async def test_an_actor_that_recovers_is_not_given_up(autojump_clock: MockClock) -> None:
    starts: list[float] = []

    async def body() -> None:
        starts.append(trio.current_time())
        if len(starts) < 4:
            raise ValueError("not yet")

    supervisor = Supervisor(SimulatedWorld.of_seed(1))
    await supervisor.run("changer", body)
    pauses = [later - earlier for earlier, later in pairwise(starts)]
    assert len(starts) == 4
    assert all(0.1 * 2**step <= pause <= 0.2 * 2**step for step, pause in enumerate(pauses))
    (statistics,) = supervisor.statistics()
    assert (statistics.state, statistics.failures, statistics.last_error) == ("ended", 3, "ValueError: not yet")


async def test_an_actor_that_keeps_failing_is_given_up_once_and_visibly(autojump_clock: MockClock) -> None:
    given_up: list[tuple[str, str]] = []

    async def on_giving_up(name: str, reason: str) -> None:
        given_up.append((name, reason))

    async def body() -> None:
        raise OSError("drive gone")

    supervisor = Supervisor(SimulatedWorld.of_seed(1), policy=RestartPolicy(failures_max=3), on_giving_up=on_giving_up)
    await supervisor.run("drive", body)
    assert given_up == [("drive", "OSError: drive gone")]
    assert supervisor.statistics()[0].state == "given up"
    assert supervisor.statistics()[0].failures == 4


async def test_failures_far_apart_never_add_up(autojump_clock: MockClock) -> None:
    count = 0

    async def body() -> None:
        nonlocal count
        count += 1
        await trio.sleep(400)
        if count < 50:
            raise ValueError("now and then")

    await Supervisor(SimulatedWorld.of_seed(1)).run("slow", body)
    assert count == 50


async def test_cancellation_passes_through(autojump_clock: MockClock) -> None:
    supervisor = Supervisor(SimulatedWorld.of_seed(1))
    with trio.move_on_after(5) as scope:
        await supervisor.run("sleeper", trio.sleep_forever)
    assert scope.cancelled_caught


def test_the_error_that_says_most_leads() -> None:
    group = ExceptionGroup("", [Unavailable("gone"), ExceptionGroup("", [Damaged("block 7")])])
    assert isinstance(leading_error(group), Damaged)
    assert leading_error(ExceptionGroup("", [Unavailable("gone"), KeyError("bug")])) is None
    assert leading_error(KeyError("bug")) is None
    assert isinstance(leading_error(OSError("disk")), Unavailable)
    assert describe(group) == "Unavailable: gone; Damaged: block 7"


async def test_rubbish_does_not_fill_the_log(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    quiet = QuietLog(logging.getLogger("test"))
    for number in range(1000):
        quiet.warning("refused from %s", number)
    assert len(caplog.records) == LINES_PER_WINDOW
    assert quiet.left_out == 1000 - LINES_PER_WINDOW
    await trio.sleep(WINDOW_SECONDS)
    quiet.warning("refused from %s", "another")
    assert f"{1000 - LINES_PER_WINDOW} lines like these were left out" in caplog.text


def test_progress_is_bounded_and_knows_its_rate() -> None:
    board = ProgressBoard()
    for second in range(2 * SAMPLES_PER_TASK):
        report = WorkProgress(task_id=1, bytes_done=second * 1000, bytes_total=10**6, files_done=second)
        board.take(report, second * 10**9)
    newest = board.newest(1)
    assert newest is not None
    assert newest.bytes_per_second == pytest.approx(1000)
    board.take(WorkProgress(task_id=1, bytes_done=0, bytes_total=1, files_done=0), 10**12)
    again = board.newest(1)
    assert again is not None
    assert again.bytes_per_second == 0
    for task_id in range(2, TASKS_MAX + 10):
        board.take(WorkProgress(task_id=task_id, bytes_done=0, bytes_total=0, files_done=0), 10**12)
    assert len(board) == TASKS_MAX
    assert board.newest(1) is None
