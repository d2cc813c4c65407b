"""The mailbox of an actor: a bounded queue whose behaviour at the bound is refusal, not memory."""

from __future__ import annotations

import contextlib
import math
from typing import Generic, TypeVar

import msgspec
import trio

from rbcore.errors import DeadlineExceeded, Unavailable

T = TypeVar("T")


class MailboxStatistics(msgspec.Struct, frozen=True, kw_only=True):
    waiting: int
    bound: int
    accepted: int
    refused: int
    closed: bool


class Mailbox(Generic[T]):
    """First in, first out; one actor takes, anybody puts. Closing lets the actor empty it and then end."""

    def __init__(self, owner: str, bound: int = 64) -> None:
        assert bound > 0, "a mailbox holds at least one message"
        self.owner = owner
        self._bound = bound
        self._send, self._receive = trio.open_memory_channel[T](bound)
        self._accepted = self._refused = 0
        self._closed = False

    def __repr__(self) -> str:
        waiting = self._receive.statistics().current_buffer_used
        return f"<Mailbox of {self.owner}: {waiting} of {self._bound} waiting{', closed' if self._closed else ''}>"

    def put_nowait(self, message: T) -> None:
        """Raises ``Unavailable`` at the bound and after ``close``."""
        try:
            self._send.send_nowait(message)
        except trio.WouldBlock:
            self._refused += 1
            raise Unavailable(f"{self.owner} has {self._bound} messages waiting, which is its bound.") from None
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            self._refused += 1
            raise Unavailable(f"{self.owner} is stopping.") from None
        self._accepted += 1

    async def put(self, message: T, deadline_seconds: float = math.inf) -> None:
        """Wait for room. Raises ``DeadlineExceeded``, or ``Unavailable`` when the mailbox is closed."""
        with trio.move_on_after(deadline_seconds):
            try:
                await self._send.send(message)
            except (trio.ClosedResourceError, trio.BrokenResourceError):
                self._refused += 1
                raise Unavailable(f"{self.owner} is stopping.") from None
            self._accepted += 1
            return
        self._refused += 1
        raise DeadlineExceeded(f"{self.owner} had no room for a message within {deadline_seconds} s.")

    async def get(self) -> T:
        """The oldest message. Raises ``trio.EndOfChannel`` when the mailbox is closed and empty."""
        return await self._receive.receive()

    def close(self) -> None:
        self._closed = True
        self._send.close()

    def drain(self) -> list[T]:
        """Close, and take out everything that waits: its owner will not get to it."""
        self.close()
        waiting: list[T] = []
        with contextlib.suppress(trio.WouldBlock, trio.EndOfChannel):
            while True:
                waiting.append(self._receive.receive_nowait())
        return waiting

    def statistics(self) -> MailboxStatistics:
        return MailboxStatistics(
            waiting=self._receive.statistics().current_buffer_used,
            bound=self._bound,
            accepted=self._accepted,
            refused=self._refused,
            closed=self._closed,
        )
