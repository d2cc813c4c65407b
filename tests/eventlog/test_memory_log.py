"""The simulated log: the virtual clock, and its faults."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from eventlog import MemoryStore, open_memory_log
from rbcore.errors import ReadOnly, Unavailable, VersionConflict
from tests.eventlog.logs import batch, fill


async def test_a_commit_takes_time_of_the_virtual_clock(autojump_clock: trio.testing.MockClock) -> None:
    async with open_memory_log(commit_seconds=0.25) as log:
        start = trio.current_time()
        await log.submit(batch("a")).durable()
        assert trio.current_time() - start == pytest.approx(0.25)
        first, second = log.submit(batch("b")), log.submit(batch("c"))
        await first.durable()
        await second.durable()
        assert log.statistics().largest_group == 2, "what waits goes together"


@pytest.mark.parametrize("lose", [True, False])
async def test_a_crash_keeps_exactly_what_was_stored(autojump_clock: trio.testing.MockClock, lose: bool) -> None:
    store = MemoryStore()
    async with open_memory_log(store, commit_seconds=1.0) as log:
        await log.submit(batch("stored")).durable()
        under_way = log.submit(batch("under way"))
        await trio.sleep(0.5)
        queued = log.submit(batch("queued"))
        assert log.crash(lose_commit_under_way=lose) is store
        for one in (under_way, queued):
            with pytest.raises(Unavailable, match="crashed"):
                await one.durable()
        with pytest.raises(Unavailable):
            log.submit(batch("later"))
    async with open_memory_log(store) as log:
        assert [one.command_id for one in log.read()] == (["stored"] if lose else ["stored", "under way"])
        await log.submit(batch("queued", expected={"task/1": log.head})).durable()


async def test_a_full_volume_takes_back_and_resumes(autojump_clock: trio.testing.MockClock) -> None:
    async with open_memory_log(commit_seconds=0.01) as log:
        stands: list[int] = []
        log.on_rollback(stands.append)
        await fill(log, 5)
        log.fill()
        pending = [log.submit(batch(f"c{number}", f"s/{number}")) for number in range(3)]
        for one in pending:
            with pytest.raises(ReadOnly, match="log volume full"):
                await one.durable()
        assert (log.head, log.statistics().head, stands) == (5, 5, [5])
        with pytest.raises(ReadOnly):
            log.submit(batch("d"))
        assert len(list(log.read())) == 5
        log.make_room()
        assert log.statistics().read_only_reason == ""
        await log.submit(batch("c0", "s/0", expected={"s/0": 0})).durable()
        assert log.head == 6


_steps = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.lists(st.sampled_from("abc"), min_size=1, max_size=4)),
        st.tuples(st.sampled_from(["wait", "fill", "room", "crash", "crash late"]), st.just([])),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(steps=_steps)
def test_what_is_acknowledged_is_there_whatever_happens(steps: list[tuple[str, list[str]]]) -> None:
    async def main() -> None:
        store = MemoryStore()
        acknowledged: list[str] = []
        remaining = list(enumerate(steps))
        while True:
            crashed = False
            async with open_memory_log(store, commit_seconds=0.5) as log:
                assert store.full or [one.position for one in log.read()] == list(range(1, log.head + 1))
                while remaining and not crashed:
                    number, (action, streams) = remaining.pop(0)
                    if action == "submit":
                        try:
                            pending = log.submit(batch(f"c{number}", *streams))
                            if number % 2:
                                await pending.durable()
                                acknowledged.append(f"c{number}")
                        except ReadOnly:
                            assert store.full
                    elif action == "wait":
                        await trio.sleep(0.7)
                    elif action == "fill":
                        log.fill()
                    elif action == "room":
                        log.make_room()
                    else:
                        log.crash(lose_commit_under_way=action == "crash")
                        crashed = True
                log.make_room()
            if not remaining and not crashed:
                break
        versions: dict[str, int] = {}
        async with open_memory_log(store) as log:
            for position, envelope in enumerate(log.read(), start=1):
                versions[envelope.stream] = versions.get(envelope.stream, 0) + 1
                assert (envelope.position, envelope.version) == (position, versions[envelope.stream])
            assert all(log.answer_of(command_id) == b"answer" for command_id in acknowledged)
            for stream, version in versions.items():
                with pytest.raises(VersionConflict):
                    log.submit(batch("x", stream, expected={stream: version + 1}))

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
