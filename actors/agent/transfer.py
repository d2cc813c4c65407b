"""The agent's end of a data channel: sends blocks within its credit, asks for blocks, commits.

One task (``serve``) receives. Whatever ends the channel (the peer's ``Refusal``, a broken connection, a frame out of place)
is kept as ``failure`` and cancels the work's scope, so that nobody waits for an answer that will not come.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

import trio

from actors.framing import DataChannel
from drivers.bulk_stream import Buffer
from rbcore.archive.block import HEADER_BYTES, BlockHeader, iter_blocks
from rbcore.errors import ProtocolViolation, RbError
from rbcore.messages import (
    PROTOCOL_VERSION,
    Attach,
    Attached,
    Blocks,
    Commit,
    Committed,
    DataFrame,
    EndOfBlocks,
    Fetch,
    FetchTrailer,
    Received,
    Refusal,
    Stored,
)

FRAME_BYTES: Final = 2 * 1024 * 1024
"""Blocks are gathered into frames of about this size: the daemon can check one while the next is under way."""


class Answer:
    """Blocks that came for one request."""

    def __init__(self) -> None:
        self.payloads: list[bytearray] = []
        self.complete = trio.Event()

    def blocks(self) -> Iterator[tuple[BlockHeader, memoryview]]:
        """Header and stored payload, in the order they came. Raises as ``iter_blocks`` does."""
        for payload in self.payloads:
            yield from iter_blocks(payload)


class Transfer:
    """One data channel of one attempt."""

    def __init__(self, channel: DataChannel, token: bytes) -> None:
        self._channel = channel
        self._token = token
        self._credit_bytes = 0
        self._outstanding_bytes = 0
        self._credit_returned = trio.Event()
        self._answers: deque[Answer] = deque()
        self._unreported_bytes = 0
        self._unreported = trio.Event()
        self._committed: Committed | None = None
        self._commit_answered = trio.Event()
        self.stored_block = -1
        """Every block up to this number is on the daemon's stable storage."""
        self.failure: RbError | None = None

    def __repr__(self) -> str:
        return f"<Transfer {self._outstanding_bytes} of {self._credit_bytes} B unacknowledged, {len(self._answers)} requests open>"

    async def attach(self) -> Attached:
        """Present the token. Raises what the daemon refused with, ``Unavailable``, ``ProtocolViolation``."""
        await self._channel.send(Attach(protocol=PROTOCOL_VERSION, transfer_token=self._token))
        frame, _ = await self._channel.receive()
        if isinstance(frame, Refusal):
            raise frame.failure.to_error()
        if not isinstance(frame, Attached) or frame.credit_bytes <= 0 or frame.next_block < 0:
            raise ProtocolViolation(f"the daemon answered an Attach with {type(frame).__name__}")
        self._credit_bytes = frame.credit_bytes
        return frame

    async def serve(self, scope: trio.CancelScope) -> None:
        """Receive until cancelled; when the channel ends, ``failure`` is set and ``scope`` cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._report)
                while True:
                    self._take(*await self._channel.receive())
        except* RbError as group:
            self.failure = first_error(group)
            scope.cancel()

    def _take(self, frame: DataFrame, payload: bytearray) -> None:
        if payload and not isinstance(frame, Blocks):
            raise ProtocolViolation(f"{type(frame).__name__} with a payload of {len(payload)} bytes")
        if isinstance(frame, Stored):
            if frame.bytes < 0 or frame.bytes > self._outstanding_bytes:
                raise ProtocolViolation(
                    f"the daemon returned {frame.bytes} bytes of {self._outstanding_bytes} under way"
                )
            self.stored_block = max(self.stored_block, frame.block)
            self._outstanding_bytes -= frame.bytes
            self._credit_returned.set()
            self._credit_returned = trio.Event()
        elif isinstance(frame, Blocks):
            if not self._answers:
                raise ProtocolViolation("the daemon sent blocks that nobody asked for")
            self._answers[0].payloads.append(payload)
            self._unreported_bytes += len(payload)
            self._unreported.set()
        elif isinstance(frame, EndOfBlocks):
            if not self._answers:
                raise ProtocolViolation("the daemon ended an answer that nobody asked for")
            self._answers.popleft().complete.set()
        elif isinstance(frame, Committed):
            self._committed = frame
            self._commit_answered.set()
        elif isinstance(frame, Refusal):
            raise frame.failure.to_error()
        else:
            raise ProtocolViolation(f"{type(frame).__name__} has no place here")

    async def _report(self) -> None:
        """Return credit for what arrived. A task of its own: the receiver must never wait for the peer to read."""
        while True:
            await self._unreported.wait()
            self._unreported = trio.Event()
            length, self._unreported_bytes = self._unreported_bytes, 0
            await self._channel.send(Received(bytes=length))

    async def send_blocks(self, blocks: Sequence[Buffer]) -> None:
        """Send whole blocks with ascending numbers; waits while the credit is used up."""
        start = 0
        while start < len(blocks):
            end, length = start, 0
            while end < len(blocks) and (end == start or length + len(blocks[end]) <= FRAME_BYTES):
                length += len(blocks[end])
                end += 1
            while self._outstanding_bytes and self._outstanding_bytes + length > self._credit_bytes:
                await self._credit_returned.wait()
            self._outstanding_bytes += length
            await self._channel.send(Blocks(count=end - start), blocks[start:end])
            start = end

    async def request(self, archive: str, numbers: Sequence[int]) -> Answer:
        """Ask for blocks; several requests may be under way. The answer is there when its ``complete`` is set.

        The caller bounds what is under way: whatever was asked for is taken into memory.
        """
        return await self._ask(Fetch(archive=archive, numbers=list(numbers)))

    async def fetch(self, archive: str, numbers: Sequence[int]) -> Answer:
        """Ask for blocks and wait for them. A block that the daemon cannot read is missing from the answer."""
        answer = await self.request(archive, numbers)
        await answer.complete.wait()
        return answer

    async def fetch_trailer(self, archive: str) -> Answer:
        answer = await self._ask(FetchTrailer(archive=archive))
        await answer.complete.wait()
        return answer

    async def _ask(self, frame: Fetch | FetchTrailer) -> Answer:
        answer = Answer()
        self._answers.append(answer)
        await self._channel.send(frame)
        return answer

    async def commit(self, frame: Commit) -> Committed:
        """The backup exists when this returns."""
        await self._channel.send(frame)
        await self._commit_answered.wait()
        assert self._committed is not None
        return self._committed


def first_error(group: BaseExceptionGroup[RbError]) -> RbError:
    """The first leaf of a group of errors: the one that made the others happen."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, RbError)
    return found


assert FRAME_BYTES > HEADER_BYTES
