"""A batch on its way to stable storage, and what its submitter waits on."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from rbcore.errors import RbError
from rbcore.events import Envelope


class Commit:
    """Implements :class:`eventlog.port.PendingCommit`. Lives in the trio thread; the writer thread only reads its payloads."""

    __slots__ = ("_error", "_settled", "answer", "command_id", "envelopes", "epoch", "payload_bytes", "payloads")

    repeated = False

    def __init__(
        self, envelopes: tuple[Envelope, ...], payloads: Sequence[bytes], command_id: str, answer: bytes, epoch: int
    ) -> None:
        self.envelopes = envelopes
        self.payloads = payloads
        self.payload_bytes = sum(map(len, payloads))
        self.command_id = command_id
        self.answer = answer
        self.epoch = epoch
        """Counts rollbacks: the writer drops what was submitted before one that it caused."""
        self._settled = trio.Event()
        self._error: tuple[type[RbError], str] | None = None

    def __repr__(self) -> str:
        state = "pending" if not self._settled.is_set() else "taken back" if self._error else "durable"
        return (
            f"<Commit {self.command_id} positions {self.envelopes[0].position}..{self.envelopes[-1].position} {state}>"
        )

    @property
    def is_durable(self) -> bool:
        return self._settled.is_set() and self._error is None

    @property
    def is_pending(self) -> bool:
        return not self._settled.is_set()

    async def durable(self) -> None:
        if self._settled.is_set():
            await trio.lowlevel.checkpoint()
        else:
            await self._settled.wait()
        if self._error is not None:
            kind, message = self._error
            raise kind(message)

    def succeed(self) -> None:
        self.payloads = ()
        self._settled.set()

    def fail(self, kind: type[RbError], message: str) -> None:
        """Every waiter gets an exception of its own: a shared one would collect their tracebacks."""
        self._error = (kind, message)
        self._settled.set()


class Repeat:
    """What a repeated command gets: the batch that its first submission became, pending or durable."""

    __slots__ = ("_first", "answer", "envelopes")

    repeated = True

    def __init__(self, envelopes: tuple[Envelope, ...], answer: bytes, first: Commit | None) -> None:
        self.envelopes = envelopes
        self.answer = answer
        self._first = first

    async def durable(self) -> None:
        if self._first is None:
            await trio.lowlevel.checkpoint()
        else:
            await self._first.durable()
