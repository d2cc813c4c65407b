"""Samples of a host: what its kernel counts, and what two readings of the counters say about the time between them. Telemetry, not state:
samples go into a bounded ring and never into the log (reference 2.22)."""

from __future__ import annotations

from typing import Final

import msgspec

SECONDS_MIN: Final = 0.001
"""Readings that are closer to each other say nothing about a rate."""


class HostCounters(msgspec.Struct, frozen=True, kw_only=True):
    """One reading. Counters only grow, but for a device that leaves or a machine that sleeps; sizes are bytes."""

    cpu_busy_ticks: int
    """Of all processors together, in a unit of the kernel's own."""
    cpu_ticks: int
    """Busy, idle and waiting."""
    memory_total: int
    memory_used: int
    """What programs could not get any more: total without what is free or can be freed at once."""
    swap_total: int
    swap_used: int
    load_1: float
    load_5: float
    load_15: float
    network_in_bytes: int
    """Of all interfaces but the loopback."""
    network_out_bytes: int
    disk_read_bytes: int
    """Of all disks; partitions and devices that are made of others are not counted again."""
    disk_written_bytes: int
    disk_reads: int
    disk_writes: int


class MonitoringSample(msgspec.Struct, frozen=True, kw_only=True):
    """A row of ``rubackup_server_system_monitoring``. Rates are per second, over the time since the sample before."""

    id: int
    time_ns: int
    server: str
    cpu_percent: float
    """Of all processors: 0 to 100."""
    memory_total: int
    memory_used: int
    swap_total: int
    swap_used: int
    load_1: float
    load_5: float
    load_15: float
    network_in: int
    network_out: int
    disk_in: int
    """Bytes written to disks."""
    disk_out: int
    """Bytes read from disks."""
    disk_in_operations: int
    disk_out_operations: int
    tasks: int
    """Tasks that have not ended."""


def sample_of(
    before: HostCounters, now: HostCounters, seconds: float, *, id: int, time_ns: int, server: str, tasks: int
) -> MonitoringSample:
    """What happened between two readings that are ``seconds`` apart. A counter that was set back counts as 0. Pure."""

    def rate(earlier: int, later: int) -> int:
        return round(max(0, later - earlier) / seconds) if seconds >= SECONDS_MIN else 0

    ticks = now.cpu_ticks - before.cpu_ticks
    busy = now.cpu_busy_ticks - before.cpu_busy_ticks
    return MonitoringSample(
        id=id,
        time_ns=time_ns,
        server=server,
        cpu_percent=round(min(100.0, max(0.0, 100 * busy / ticks)), 1) if ticks > 0 else 0.0,
        memory_total=now.memory_total,
        memory_used=now.memory_used,
        swap_total=now.swap_total,
        swap_used=now.swap_used,
        load_1=now.load_1,
        load_5=now.load_5,
        load_15=now.load_15,
        network_in=rate(before.network_in_bytes, now.network_in_bytes),
        network_out=rate(before.network_out_bytes, now.network_out_bytes),
        disk_in=rate(before.disk_written_bytes, now.disk_written_bytes),
        disk_out=rate(before.disk_read_bytes, now.disk_read_bytes),
        disk_in_operations=rate(before.disk_writes, now.disk_writes),
        disk_out_operations=rate(before.disk_reads, now.disk_reads),
        tasks=tasks,
    )
