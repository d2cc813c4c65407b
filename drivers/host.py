"""What the Linux kernel counts about this host, from ``/proc`` and ``/sys`` (``rbcore.ports.Host``). Nothing is kept open, nothing is changed."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from rbcore.errors import Unavailable
from rbcore.monitoring import HostCounters

SECTOR_BYTES: Final = 512
"""Unit of ``/proc/diskstats``, whatever the device's own sectors are (kernel documentation, admin-guide/iostats)."""
_IDLE, _WAITING = 3, 4
_CPU_COLUMNS: Final = 8
"""user, nice, system, idle, iowait, irq, softirq, steal; the guests' columns after them are counted in user and nice already."""


class ProcHost:
    """Reads below ``root``: the machine's own root, or a copy in a test."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._proc, self._blocks = root / "proc", root / "sys/block"

    def read(self) -> HostCounters:
        """Blocking, some hundred microseconds. Raises ``Unavailable`` when the kernel does not show what is needed."""
        try:
            return self._read()
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise Unavailable(f"The counters of this host cannot be read: {error}") from error

    def _read(self) -> HostCounters:
        cpu = [int(one) for one in self._text("stat").split("\n", 1)[0].split()[1 : 1 + _CPU_COLUMNS]]
        memory = self._memory()
        load = [float(one) for one in self._text("loadavg").split()[:3]]
        network_in, network_out = self._network()
        reads, read_sectors, writes, written_sectors = self._disks()
        return HostCounters(
            cpu_busy_ticks=sum(cpu) - cpu[_IDLE] - cpu[_WAITING],
            cpu_ticks=sum(cpu),
            memory_total=memory["MemTotal"],
            memory_used=memory["MemTotal"] - memory["MemAvailable"],
            swap_total=memory["SwapTotal"],
            swap_used=memory["SwapTotal"] - memory["SwapFree"],
            load_1=load[0],
            load_5=load[1],
            load_15=load[2],
            network_in_bytes=network_in,
            network_out_bytes=network_out,
            disk_read_bytes=read_sectors * SECTOR_BYTES,
            disk_written_bytes=written_sectors * SECTOR_BYTES,
            disk_reads=reads,
            disk_writes=writes,
        )

    def _text(self, name: str) -> str:
        return (self._proc / name).read_text(encoding="ascii", errors="replace")

    def _memory(self) -> dict[str, int]:
        """Bytes by name; the kernel's kB are KiB."""
        found = {}
        for line in self._text("meminfo").splitlines():
            name, _, rest = line.partition(":")
            value = rest.split()
            if len(value) == 2:
                found[name] = int(value[0]) * 1024
        return found

    def _network(self) -> tuple[int, int]:
        received = sent = 0
        for line in self._text("net/dev").splitlines()[2:]:
            name, _, rest = line.partition(":")
            if name.strip() != "lo":
                columns = rest.split()
                received += int(columns[0])
                sent += int(columns[8])
        return received, sent

    def _disks(self) -> tuple[int, int, int, int]:
        """Reads, sectors read, writes, sectors written, of devices that hardware stands behind."""
        totals = [0, 0, 0, 0]
        for line in self._text("diskstats").splitlines():
            columns = line.split()
            if (self._blocks / columns[2] / "device").exists():
                for number, column in enumerate((3, 5, 7, 9)):
                    totals[number] += int(columns[column])
        return totals[0], totals[1], totals[2], totals[3]
