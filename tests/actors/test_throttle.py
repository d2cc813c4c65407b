"""Limits of bandwidth: which holds when, and that what passes keeps to it. Under the virtual clock, and with a real agent."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from actors.throttle import LOOK_SECONDS_MAX, Throttle
from drivers.simulated.world import SimulatedWorld
from rbcore.bandwidth import DAY_SECONDS, Direction, is_open, limit_of, seconds_of
from rbcore.commands import ChangeConfiguration, ChangeRecord, CreateRecord, DeleteRecords
from rbcore.entities import ClientBandwidth
from tests.actors.house import house, start_agent
from tests.actors.trees import describe
from tests.core.world import World

CLIENT = "alpha (525a99154f3505a2)"
MIB = 1024 * 1024


class Held:
    """A journal of which only the state is looked at."""

    def __init__(self) -> None:
        self.world = World().installed()
        self.world.client()

    @property
    def state(self) -> Any:
        return self.world.state

    def limit(self, **fields: Any) -> int:
        return self.world.run(CreateRecord(resource="client_bandwidth", fields={"client": CLIENT, **fields})).ids[0]


def text(second: int) -> str:
    return f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"


@given(start=st.integers(0, DAY_SECONDS - 1), end=st.integers(0, DAY_SECONDS - 1), length=st.integers(0, DAY_SECONDS))
def test_a_window_is_open_from_its_begin_to_its_end_also_over_midnight(start: int, end: int, length: int) -> None:
    limit = ClientBandwidth(id=1, client_id=1, window_start=text(start), window_end=text(end))
    assert (seconds_of(limit.window_start), seconds_of(limit.window_end)) == (start, end)
    span = (end - start) % DAY_SECONDS or DAY_SECONDS
    assert is_open(limit, (start + length) % DAY_SECONDS) == (length % DAY_SECONDS < span)


@pytest.mark.parametrize(
    ("combine", "hour", "expected"),
    [
        ("minimum", 3, 100),
        ("minimum", 12, 50),
        ("maximum", 12, 100),
        ("minimum", 20, 100),
        ("maximum", 20, 0),
        ("minimum", 23, 100),
    ],
)
def test_windows_that_overlap_combine_as_configured(combine: str, hour: int, expected: int) -> None:
    held = Held()
    held.world.run(ChangeConfiguration(changes={"bandwith_client_limit": combine}))
    held.limit(backup_bandwidth=100)
    held.limit(backup_bandwidth=50, window_start="10:00:00", window_end="14:00:00")
    held.limit(restore_bandwidth=1, window_start="19:00:00", window_end="21:00:00")
    assert limit_of(held.state, 1, "backup", hour * 3600 * 10**9) == expected * 1024
    assert limit_of(held.state, 2, "backup", hour * 3600 * 10**9) == 0


@pytest.mark.parametrize("direction", ["backup", "restore"])
async def test_streams_of_a_client_share_its_limit(autojump_clock: MockClock, direction: Direction) -> None:
    held = Held()
    held.limit(**{f"{direction}_bandwidth": 1024})
    throttle = Throttle(cast(Any, held), SimulatedWorld.of_seed(1))

    async def stream() -> None:
        brake = throttle.of(1, direction)
        for _ in range(10):
            await brake(MIB)

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream)
        nursery.start_soon(stream)
    # The first passes at once, and nobody has to wait for the time of the last.
    assert trio.current_time() - began == pytest.approx(19, abs=0.01)
    free: Direction = "restore" if direction == "backup" else "backup"
    before = trio.current_time()
    await throttle.of(1, free)(100 * MIB)
    await throttle.of(1, free)(100 * MIB)
    await throttle.of(2, direction)(100 * MIB)
    assert trio.current_time() == before, "only that client, only that direction"


async def test_a_limit_that_goes_or_grows_holds_soon(autojump_clock: MockClock) -> None:
    held = Held()
    limit = held.limit(backup_bandwidth=1)
    throttle = Throttle(cast(Any, held), SimulatedWorld.of_seed(1))
    brake = throttle.of(1, "backup")
    await brake(MIB)  # is worth 1024 seconds
    began = trio.current_time()
    with trio.move_on_after(100):
        await brake(1)
        pytest.fail("it has to wait")
    held.world.run(ChangeRecord(resource="client_bandwidth", id=limit, changes={"backup_bandwidth": 924}))
    await brake(1)
    # 924 KiB are left: a second, less what the new limit forgives of the time since the last look.
    assert 100 <= trio.current_time() - began <= 101 + LOOK_SECONDS_MAX
    held.world.run(ChangeRecord(resource="client_bandwidth", id=limit, changes={"backup_bandwidth": 1}))
    await brake(MIB)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(brake, 1)
        await trio.testing.wait_all_tasks_blocked()
        gone_at = trio.current_time()
        held.world.run(DeleteRecords(resource="client_bandwidth", ids=[limit]))
    assert trio.current_time() - gone_at <= LOOK_SECONDS_MAX


async def test_a_real_backup_and_its_restore_keep_to_the_limit(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "noise").write_bytes(SimulatedWorld.of_seed(3).randomness.token_bytes(24 * MIB))
    async with house(tmp_path) as daemon, trio.open_nursery() as nursery:
        agent = await start_agent(nursery, tmp_path)
        client = await daemon.authorise(agent.hwid)
        fields = {"client": f"{client.hostname} ({client.hwid})", "backup_bandwidth": 8192, "restore_bandwidth": 8192}
        await daemon.execute(CreateRecord(resource="client_bandwidth", fields=fields))
        began = time.monotonic()
        backup = await daemon.backup(client, source)
        backed_up = time.monotonic()
        await daemon.restore(backup, tmp_path / "restored")
        restored = time.monotonic()
        assert describe(tmp_path / "restored") == describe(source)
        nursery.cancel_scope.cancel()
    # 24 MiB at 8 MiB/s; the first frame (at most 8 MiB) has its time while the next ones come.
    assert backed_up - began > 1.9
    assert restored - backed_up > 1.9
