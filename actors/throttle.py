"""The brake of the data channel: what a client may send and receive per second, over all its streams together (``rbcore.bandwidth``).

The daemon takes the next frame of a backup, and sends the next of a restore, when the ones before are worth their time; the transport
holds the other side back. A limit that changes, begins or ends holds within ``LOOK_SECONDS_MAX``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from actors.port import Journal
from rbcore.bandwidth import Direction, limit_of
from rbcore.ports import World

LOOK_SECONDS_MAX: Final = 1.0

Brake = Callable[[int], Awaitable[None]]
"""``await brake(bytes)``: returns when so much more may pass."""


class Throttle:
    """One per daemon."""

    def __init__(self, journal: Journal, world: World) -> None:
        self._journal = journal
        self._world = world
        self._owed: dict[tuple[int, Direction], tuple[float, float]] = {}
        """Bytes that passed and have not had their time yet, and when that was true. Of limited clients alone."""

    def of(self, client_id: int, direction: Direction) -> Brake:
        async def brake(length: int) -> None:
            await self._pass(client_id, direction, length)

        return brake

    async def _pass(self, client_id: int, direction: Direction, length: int) -> None:
        key = (client_id, direction)
        while True:
            rate = limit_of(self._journal.state, client_id, direction, self._world.clock.now_ns())
            if not rate:
                self._owed.pop(key, None)
                return
            now = trio.current_time()
            owed, since = self._owed.get(key, (0.0, now))
            owed = max(0.0, owed - (now - since) * rate)
            if not owed:
                self._owed[key] = (length, now)
                return
            self._owed[key] = (owed, now)
            await trio.sleep(min(owed / rate, LOOK_SECONDS_MAX))
