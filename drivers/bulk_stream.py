"""Streams that carry gigabytes: what they send comes in parts that nobody joins, what they receive goes where it is to lie.

The data channel takes any trio stream; of one that is none of these it copies every byte once more on either way.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeAlias

import trio

Buffer: TypeAlias = bytes | bytearray | memoryview


class BulkStream(trio.abc.Stream):
    """Errors as the ``trio.abc.Stream`` interface has them."""

    @abstractmethod
    async def send_parts(self, parts: Sequence[Buffer]) -> None:
        """All of them, in order, as ``send_all`` would send them joined."""

    @abstractmethod
    async def receive_into(self, view: memoryview) -> int:
        """Fill the beginning of ``view``, which is not empty: the number of bytes, at least one; 0 after the peer's orderly end."""


class CopyingStream(BulkStream):
    """Any trio stream as one of these."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def send_all(self, data: Buffer) -> None:
        await self._stream.send_all(data)

    async def send_parts(self, parts: Sequence[Buffer]) -> None:
        for part in parts:
            await self._stream.send_all(part)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def receive_into(self, view: memoryview) -> int:
        chunk = await self._stream.receive_some(len(view))
        view[: len(chunk)] = chunk
        return len(chunk)

    async def aclose(self) -> None:
        await self._stream.aclose()


def bulk(stream: trio.abc.Stream) -> BulkStream:
    return stream if isinstance(stream, BulkStream) else CopyingStream(stream)
