"""The desk of a drive: its open cartridge session, and the streams that share it.

Several backups write to one drive side by side. On the tape their archives stand one after the other, in parts: a stream has the turn while it has
something to write, gives it up when it has written ``TURN_BYTES`` while others wait, and loses it when nothing came from it for
``STARVED_SECONDS`` and others have something. So the drive keeps streaming while any of them delivers, and what waits is bounded by the
credit of each transfer. Reads take turns by the call.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Protocol

import trio

from rbcore.errors import Unavailable
from rbcore.tape.session import CartridgeSession

TURN_BYTES: Final = 1024 * 1024 * 1024
STARVED_SECONDS: Final = 2.0


class SessionOver(Unavailable):
    """The session this was about has ended, for a reason that is known and blamed already."""


class Stream(Protocol):
    """Somebody who writes."""

    async def give_up_turn(self) -> None:
        """End the open part, so that another one can begin."""


class Desk:
    """Of one drive. ``session`` is None while nothing is mounted, or while cartridges are changed."""

    def __init__(self, drive_id: int) -> None:
        self.drive_id = drive_id
        self.session: CartridgeSession | None = None
        self.cartridge_id = 0
        self.position = 0
        """Where the last read ended, as parts count positions."""
        self.failure = ""
        """Why the session can write no more."""
        self.streams: set[Stream] = set()
        self.bytes_written = self.bytes_read = 0
        self.idle_since = 0.0
        self._lock = trio.Lock()
        self._holder: Stream | None = None
        self._held_bytes = 0
        self._last_write = 0.0
        self._waiting: deque[Stream] = deque()
        self._news = trio.Event()

    def __repr__(self) -> str:
        state = f"cartridge {self.cartridge_id}" if self.session is not None else "empty"
        return f"<desk of drive {self.drive_id}: {state}, {len(self.streams)} streams, {len(self._waiting)} waiting>"

    def open(self, session: CartridgeSession, cartridge_id: int) -> None:
        self.session, self.cartridge_id, self.position, self.failure = session, cartridge_id, 0, ""
        self.idle_since = trio.current_time()

    def shut(self) -> CartridgeSession | None:
        """Nothing is mounted any more; the session, for whoever closes it."""
        session, self.session, self.cartridge_id = self.session, None, 0
        self._wake()
        return session

    def ready(self) -> CartridgeSession:
        """Raises ``SessionOver`` when nothing is mounted."""
        if self.session is None:
            raise SessionOver(f"Drive {self.drive_id} has no cartridge mounted any more. {self.failure}".strip())
        return self.session

    # --- writing -----------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def turn(self, stream: Stream) -> AsyncIterator[None]:
        """The drive is this stream's alone inside. It keeps its turn, and its open part, until another one takes it over."""
        await self._take_turn(stream)
        await self._lock.acquire()
        while self._turn_holder() is not stream:
            # Between the turn and the lock another one took it over, because nothing had come for so long.
            self._lock.release()
            await self._take_turn(stream)
            await self._lock.acquire()
        try:
            yield
        finally:
            self._last_write = self.idle_since = trio.current_time()
            self._lock.release()
            self._wake()

    def count_written(self, length: int) -> None:
        self._held_bytes += length
        self.bytes_written += length

    async def _take_turn(self, stream: Stream) -> None:
        await trio.lowlevel.checkpoint()
        if self._turn_holder() is stream:
            if not self._waiting or self._held_bytes < TURN_BYTES:
                return
            await self._end_turn(stream)
        self._waiting.append(stream)
        try:
            while True:
                holder = self._turn_holder()
                if holder is None and self._waiting[0] is stream:
                    break
                left = self._last_write + STARVED_SECONDS - trio.current_time()
                if holder is not None and self._waiting[0] is stream and left <= 0 and not self._lock.locked():
                    await self._end_turn(holder)
                    continue
                news = self._news
                # While somebody is at it (a change of cartridges takes minutes) only its end is news.
                with trio.move_on_after(math.inf if self._lock.locked() or left <= 0 else left):
                    await news.wait()
        finally:
            self._waiting.remove(stream)
            self._wake()
        self._begin_turn(stream)

    def _turn_holder(self) -> Stream | None:
        return self._holder

    def _begin_turn(self, stream: Stream) -> None:
        self._holder, self._held_bytes, self._last_write = stream, 0, trio.current_time()

    async def _end_turn(self, holder: Stream) -> None:
        async with self._lock:
            if self._holder is holder:
                await holder.give_up_turn()
                self._holder = None
        self._wake()

    def leave(self, stream: Stream) -> None:
        """It has no open part any more, and writes nothing more."""
        self.streams.discard(stream)
        if self._holder is stream:
            self._holder = None
        self.idle_since = trio.current_time()
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()

    # --- reading -----------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[CartridgeSession]:
        """The drive for one call. Raises ``SessionOver`` when nothing is mounted."""
        async with self._lock:
            try:
                yield self.ready()
            finally:
                self.idle_since = trio.current_time()
                self._wake()
