"""Several streams on one drive: they take turns, their archives stand in parts, and each comes back whole; also when cartridges change under them."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.simulated.tape import NO_DELAY, SimulatedLibrary
from rbcore.commands import AdvanceTask
from rbcore.entities import Backup, TapeDrive, Task
from rbcore.vocabulary import ACTIVE_STATUSES, PoolType, TaskStatus
from tests.tape_actors.site import Site, running_site
from tests.tape_actors.test_site import check_places

KIB = 1 << 10


async def write_together(site: Site, archives: list[list[int]], pauses: list[float]) -> list[int]:
    """Backups, in the order in which they ended; a writer pauses before each block, so that others get their turn."""
    done: list[int] = []

    async def write(sizes: list[int], pause: float) -> None:
        done.append(await site.write_archive(sizes, pause_seconds=pause))

    async with trio.open_nursery() as nursery:
        for sizes, pause in zip(archives, pauses, strict=True):
            nursery.start_soon(write, sizes, pause)
    return done


def make_library(capacity_factor: float) -> SimulatedLibrary:
    library = SimulatedLibrary(mechanics=NO_DELAY, capacity_factor=capacity_factor, drives=1, slots=20)
    for number in range(1, 16):
        library.add_cartridge(f"VT{number:04d}L9")
    return library


@pytest.mark.parametrize("pool_type", [PoolType.TAPE_NATIVE, PoolType.TAPE_LTFS])
async def test_slow_streams_share_a_drive(pool_type: str, autojump_clock: trio.testing.MockClock) -> None:
    async with running_site(make_library(1e-5), pool_type=pool_type) as site:
        done = await write_together(site, [[500 * KIB] * 6] * 4, [5.0, 5.0, 7.0, 1.0])
        assert len(done) == 4
        assert site.library.statistics().mounts == 1, "one mount for all of them"
        backups: list[Backup] = [site.one(Backup, one) for one in done]
        assert any(len(one.parts) > 1 for one in backups), "nobody waits for a stream that has nothing to write"
        for number in done:
            assert await site.read_archive(number) == site.archives[number]
        check_places(site)


async def test_a_fast_stream_keeps_its_turn(autojump_clock: trio.testing.MockClock) -> None:
    async with running_site(make_library(1e-5)) as site:
        done = await write_together(site, [[500 * KIB] * 20] * 3, [0.0, 0.0, 0.0])
        assert all(len(site.one(Backup, one).parts) == 1 for one in done)


@settings(max_examples=40, deadline=None)
@given(
    archives=st.lists(
        st.lists(st.sampled_from([1, 70 * KIB, 900 * KIB, 3000 * KIB]), min_size=1, max_size=10), min_size=2, max_size=4
    ),
    pauses=st.lists(st.sampled_from([0.0, 0.5, 3.0, 20.0]), min_size=4, max_size=4),
    pool_type=st.sampled_from([PoolType.TAPE_NATIVE, PoolType.TAPE_LTFS]),
)
def test_whatever_their_pace_they_come_back_whole(
    archives: list[list[int]], pauses: list[float], pool_type: str
) -> None:
    async def main() -> None:
        async with running_site(make_library(6e-7), pool_type=pool_type) as site:
            done = await write_together(site, archives, pauses[: len(archives)])
            for number in done:
                assert await site.read_archive(number) == site.archives[number]
            assert all(not one.failures for one in site.state.all(TapeDrive))
            check_places(site)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_a_stream_that_is_cancelled_leaves_the_others_their_drive(autojump_clock: trio.testing.MockClock) -> None:
    async with running_site(make_library(1e-5)) as site:
        done: list[int] = []

        async def write() -> None:
            done.append(await site.write_archive([500 * KIB] * 8, pause_seconds=1.0))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            nursery.start_soon(write)
            for seconds in (2.2, 4.7):
                with trio.move_on_after(seconds):
                    await site.write_archive([500 * KIB] * 30, pause_seconds=0.3)
        assert len(done) == 2
        assert site.library.statistics().mounts == 1
        for task in list(site.state.all(Task)):
            if task.status in ACTIVE_STATUSES:
                await site.execute(AdvanceTask(task_id=task.id, status=TaskStatus.ERROR, reason="it was cancelled"))
        for number in done:
            assert await site.read_archive(number) == site.archives[number]
