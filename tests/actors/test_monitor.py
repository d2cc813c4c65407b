"""The monitor under the virtual clock: its period, its bound, and that both may be changed while it runs; and one look at a real host."""

from __future__ import annotations

import itertools
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from actors.journal import JournalActor
from actors.monitor import Monitor
from drivers.host import ProcHost
from drivers.simulated.world import SimulatedWorld
from eventlog.memory_log import open_memory_log
from rbcore.commands import ChangeConfiguration, Order
from rbcore.errors import Unavailable
from rbcore.monitoring import HostCounters, sample_of

STILL = HostCounters(
    cpu_busy_ticks=1_000,
    cpu_ticks=4_000,
    memory_total=1_000,
    memory_used=250,
    swap_total=100,
    swap_used=10,
    load_1=1.5,
    load_5=1.0,
    load_15=0.5,
    network_in_bytes=0,
    network_out_bytes=0,
    disk_read_bytes=0,
    disk_written_bytes=0,
    disk_reads=0,
    disk_writes=0,
)


class BusyHost:
    """A quarter of its processors works, and every second it receives 1000 bytes and writes ten blocks of 512."""

    def __init__(self) -> None:
        self.silent = False
        self.looks = 0

    def read(self) -> HostCounters:
        self.looks += 1
        if self.silent:
            raise Unavailable("nobody answers")
        seconds = math.floor(trio.current_time() + 0.5)
        return msgspec.structs.replace(
            STILL,
            cpu_busy_ticks=25 * seconds,
            cpu_ticks=100 * seconds,
            network_in_bytes=1_000 * seconds,
            disk_written_bytes=5_120 * seconds,
            disk_writes=10 * seconds,
        )


class Site:
    def __init__(self, journal: JournalActor, monitor: Monitor, host: BusyHost) -> None:
        self.journal, self.monitor, self.host = journal, monitor, host
        self._commands = 0

    async def configure(self, **changes: Any) -> None:
        self._commands += 1
        command = ChangeConfiguration(changes=changes)
        await self.journal.execute(Order(command=command, command_id=f"{self._commands}", actor="user:rubackup"))

    def ids(self) -> list[int]:
        return [one.id for one in self.monitor.samples()]


@asynccontextmanager
async def open_site() -> AsyncIterator[Site]:
    world, host = SimulatedWorld.of_seed(1), BusyHost()
    async with open_memory_log() as log, trio.open_nursery() as nursery:
        journal = JournalActor(log, world)
        await journal.recover()
        monitor = Monitor(journal, host, world, server="main")
        nursery.start_soon(monitor.run)
        await trio.sleep(0.5)  # between two looks from here on
        yield Site(journal, monitor, host)
        nursery.cancel_scope.cancel()


async def test_a_sample_per_period_says_what_happened_in_it(autojump_clock: MockClock) -> None:
    async with open_site() as site:
        await trio.sleep(3)
        samples = site.monitor.samples()
        assert [one.id for one in samples] == [1, 2, 3]
        assert {round((b.time_ns - a.time_ns) / 1e9) for a, b in itertools.pairwise(samples)} == {1}
        newest = samples[-1]
        assert (newest.cpu_percent, newest.network_in, newest.disk_in, newest.disk_in_operations) == (
            25.0,
            1000,
            5120,
            10,
        )
        assert (newest.memory_used, newest.load_1, newest.server, newest.tasks) == (250, 1.5, "main", 0)


async def test_the_ring_is_bounded_and_both_keys_hold_at_once(autojump_clock: MockClock) -> None:
    async with open_site() as site:
        await site.configure(max_system_monitoring_records=4)
        await trio.sleep(10)
        assert site.ids() == [7, 8, 9, 10]
        await site.configure(monitoring_period=60)
        await trio.sleep(59)
        assert site.ids() == [7, 8, 9, 10]
        await trio.sleep(1)
        assert site.ids() == [8, 9, 10, 11]
        assert site.monitor.samples()[-1].network_in == 1000, "a rate is per second, whatever the period"
        await site.configure(max_system_monitoring_records=1)
        await trio.sleep(1)
        assert site.ids() == [11]
        await site.configure(monitoring_period=1, max_system_monitoring_records=100)
        await trio.sleep(5)
        assert len(site.ids()) >= 5, "a long period does not outlive its change"


async def test_a_host_that_cannot_be_read_is_tried_again_and_said_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_site() as site:
        await trio.sleep(2)
        site.host.silent = True
        await trio.sleep(20)
        assert len([one for one in caplog.records if "nobody answers" in one.message]) == 1
        assert site.ids() == [1, 2]
        assert site.host.looks > 15
        site.host.silent = False
        await trio.sleep(3)
        assert len(site.ids()) == 4


async def test_the_load_of_the_server_is_the_average_over_the_time_asked_for(autojump_clock: MockClock) -> None:
    async with open_site() as site:
        assert site.monitor.loads(10) == []
        await trio.sleep(5)
        (load,) = site.monitor.loads(3)
        assert (load.media_server_id, load.cpu_percent, load.in_operations, load.out_operations) == (1, 25.0, 10, 0)
        await site.configure(monitoring_period=3600)
        await trio.sleep(600)
        assert len(site.monitor.loads(3)) == 1, "the newest sample counts however old it is"


COUNTERS = st.builds(
    HostCounters,
    **{name: st.integers(0, 2**63) for name in HostCounters.__struct_fields__ if not name.startswith("load")},
    **{name: st.floats(0, 1e4) for name in ("load_1", "load_5", "load_15")},
)


@given(before=COUNTERS, now=COUNTERS, seconds=st.floats(0, 1e6))
def test_whatever_counters_do_a_sample_is_possible(before: HostCounters, now: HostCounters, seconds: float) -> None:
    sample = sample_of(before, now, seconds, id=1, time_ns=0, server="main", tasks=0)
    assert 0 <= sample.cpu_percent <= 100
    rates = ("network_in", "network_out", "disk_in", "disk_out", "disk_in_operations", "disk_out_operations")
    assert all(getattr(sample, name) >= 0 for name in rates)


def test_a_real_host_tells_real_figures() -> None:
    host = ProcHost()
    first = host.read()
    total = sum(range(2_000_000))
    second = host.read()
    assert total
    assert 0 < first.memory_used < first.memory_total
    assert 0 <= first.swap_used <= first.swap_total
    assert first.cpu_ticks <= second.cpu_ticks
    assert 0 < first.cpu_busy_ticks <= second.cpu_busy_ticks
    assert first.disk_reads <= second.disk_reads
    sample = sample_of(first, second, 1.0, id=1, time_ns=1, server="here", tasks=0)
    assert 0 <= sample.cpu_percent <= 100


def test_figures_are_the_kernels(tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    (proc / "net").mkdir(parents=True)
    (tmp_path / "sys/block/sda/device").mkdir(parents=True)
    (tmp_path / "sys/block/dm-0").mkdir(parents=True)
    (proc / "stat").write_text("cpu  10 1 5 100 20 2 3 4 7 0\ncpu0 1 1 1 1 1 1 1 1 1 1\nintr 5\n")
    (proc / "loadavg").write_text("0.50 1.25 2.00 3/104 4918\n")
    (proc / "meminfo").write_text(
        "MemTotal:        1000 kB\nMemFree: 1 kB\nMemAvailable: 400 kB\nSwapTotal: 8 kB\nSwapFree: 2 kB\nHugePages_Total: 0\n"
    )
    (proc / "net/dev").write_text(
        "Inter-|   Receive |  Transmit\n face |bytes |bytes\n"
        "    lo: 99 1 0 0 0 0 0 0 99 1 0 0 0 0 0 0\n  eth0:700 1 0 0 0 0 0 0 70 1 0 0 0 0 0 0\n"
    )
    disks = [
        "8 0 sda 11 0 100 0 22 0 200 0 0 0 0",
        "8 1 sda1 9 0 9 0 9 0 9 0 0 0 0",
        "253 0 dm-0 9 0 9 0 9 0 9 0 0 0 0",
    ]
    (proc / "diskstats").write_text("\n".join(disks) + "\n")
    assert ProcHost(tmp_path).read() == HostCounters(
        cpu_busy_ticks=25,
        cpu_ticks=145,
        memory_total=1000 * 1024,
        memory_used=600 * 1024,
        swap_total=8 * 1024,
        swap_used=6 * 1024,
        load_1=0.5,
        load_5=1.25,
        load_15=2.0,
        network_in_bytes=700,
        network_out_bytes=70,
        disk_read_bytes=100 * 512,
        disk_written_bytes=200 * 512,
        disk_reads=11,
        disk_writes=22,
    )
    (proc / "meminfo").unlink()
    with pytest.raises(Unavailable, match="cannot be read"):
        ProcHost(tmp_path).read()
