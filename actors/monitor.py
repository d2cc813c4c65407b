"""The monitor: looks at the host every ``monitoring_period`` seconds and keeps the last ``max_system_monitoring_records`` samples.

Both are read at every turn, so a change holds at once. Samples are telemetry: they are in no log, and a restart begins anew.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence

import trio

from actors.port import Journal
from rbcore.configuration import configured
from rbcore.errors import Unavailable
from rbcore.load import ServerLoad
from rbcore.monitoring import HostCounters, MonitoringSample, sample_of
from rbcore.ports import Host, World

_log = logging.getLogger(__name__)

TURN_SECONDS = 1.0
"""How long it sleeps at most before it reads the configuration again."""


class Monitor:
    """Make it, then ``run``. ``media_server_id``: the server whose host this is."""

    def __init__(self, journal: Journal, host: Host, world: World, *, server: str, media_server_id: int = 1) -> None:
        self._journal, self._host, self._world = journal, host, world
        self._server, self._media_server_id = server, media_server_id
        self._ring: deque[MonitoringSample] = deque()
        self._next_id = 1
        self._is_silent = False

    def samples(self) -> Sequence[MonitoringSample]:
        """The samples that are kept, oldest first."""
        return tuple(self._ring)

    def loads(self, seconds: int) -> list[ServerLoad]:
        """``actors.port.ServerLoads`` of this media server; empty before the first sample."""
        since_ns = self._world.clock.now_ns() - seconds * 10**9
        newest = len(self._ring) - 1
        # The newest always counts: with a long period it may be older than what is asked for.
        used = [one for number, one in enumerate(self._ring) if one.time_ns >= since_ns or number == newest]
        if not used:
            return []
        return [
            ServerLoad(
                media_server_id=self._media_server_id,
                cpu_percent=sum(one.cpu_percent for one in used) / len(used),
                in_operations=sum(one.disk_in_operations for one in used) / len(used),
                out_operations=sum(one.disk_out_operations for one in used) / len(used),
            )
        ]

    async def run(self) -> None:
        """Sample until cancelled. What cannot be read is said once, and tried again."""
        before, at = await self._read(), trio.current_time()
        while True:
            period = int(configured(self._journal.state, "monitoring_period"))
            self._forget_old()
            left = at + period - trio.current_time()
            if left > 0:
                await trio.sleep(min(left, TURN_SECONDS))
                continue
            now, moment = await self._read(), trio.current_time()
            if before is not None and now is not None:
                self._keep(before, now, moment - at)
            before, at = now, moment

    async def _read(self) -> HostCounters | None:
        try:
            counters = await self._world.threads.run(self._host.read)
        except Unavailable as error:
            if not self._is_silent:
                _log.warning("no samples of the system monitoring: %s", error.message)
            self._is_silent = True
            return None
        self._is_silent = False
        return counters

    def _keep(self, before: HostCounters, now: HostCounters, seconds: float) -> None:
        sample = sample_of(
            before,
            now,
            seconds,
            id=self._next_id,
            time_ns=self._world.clock.now_ns(),
            server=self._server,
            tasks=len(self._journal.state.active_tasks()),
        )
        self._next_id += 1
        self._ring.append(sample)
        self._forget_old()

    def _forget_old(self) -> None:
        length_max = int(configured(self._journal.state, "max_system_monitoring_records"))
        while len(self._ring) > length_max:
            self._ring.popleft()
