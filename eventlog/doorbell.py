"""How the writer thread wakes the trio loop: an event counter of the kernel and one task that waits for it.

``TrioToken.run_sync_soon`` does the same for everybody, through a socket pair that is drained until it says it is empty. On a lone
commit that cost 22 us more than this (63 against 41 us on top of a flush of 290 us), which is a part in fourteen of the commit rate.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable

import trio


class Doorbell:
    """Calls from one other thread, carried out in order in the trio thread. Make it inside ``trio.run``."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._calls: deque[tuple[Callable[..., None], tuple[object, ...]]] = deque()
        self._serving = True
        # A system task: what was committed is told even while whoever opened the log is being cancelled.
        trio.lowlevel.spawn_system_task(self._serve, name="event log doorbell")

    def ring(self, call: Callable[..., None], *arguments: object) -> None:
        """Have ``call`` made in the trio thread. From any thread; never waits.

        Bounded by whoever rings: the log rings once per group that was submitted.
        """
        self._calls.append((call, arguments))
        os.eventfd_write(self._descriptor, 1)

    def close(self) -> None:
        """In the trio thread, when nobody rings any more."""
        self._serving = False
        os.eventfd_write(self._descriptor, 1)

    async def _serve(self) -> None:
        descriptor, calls = self._descriptor, self._calls
        try:
            while self._serving:
                await trio.lowlevel.wait_readable(descriptor)
                os.eventfd_read(descriptor)
                while calls:
                    call, arguments = calls.popleft()
                    call(*arguments)
        finally:
            os.close(descriptor)
