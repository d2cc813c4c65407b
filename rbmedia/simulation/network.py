"""The network of a simulation: the one in memory, and every connection of it can be broken from outside."""

from __future__ import annotations

import weakref

import trio

from actors.bus_memory import Faults, MemoryLink, MemoryNetwork


class BreakableStream(trio.abc.Stream):
    """The dialling end of a bulk stream. ``cut`` breaks it as a pulled cable does: both ends hear of it."""

    def __init__(
        self, inner: trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]
    ) -> None:
        self._inner = inner
        self._cut = False

    def cut(self) -> None:
        self._cut = True
        self._inner.send_stream.close()
        self._inner.receive_stream.close()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._inner.send_all(data)
        except trio.ClosedResourceError:
            self._complain()

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            return await self._inner.receive_some(max_bytes)
        except trio.ClosedResourceError:
            self._complain()
            raise

    async def aclose(self) -> None:
        await self._inner.aclose()

    def _complain(self) -> None:
        if self._cut:
            raise trio.BrokenResourceError("the connection broke")
        raise trio.ClosedResourceError


class BreakableNetwork(MemoryNetwork):
    """Remembers its connections, in the order in which they were made."""

    def __init__(self, faults: Faults) -> None:
        super().__init__(faults)
        self._links: list[weakref.ref[MemoryLink]] = []
        self._streams: list[weakref.ref[BreakableStream]] = []

    async def dial_control(self, host: str, port: int) -> MemoryLink:
        link = await super().dial_control(host, port)
        self._links = [*(one for one in self._links if one() is not None), weakref.ref(link)]
        return link

    async def dial_data(self, host: str, port: int) -> trio.abc.Stream:
        inner = await super().dial_data(host, port)
        assert isinstance(inner, trio.StapledStream), "what memory_stream_pair makes"
        stream = BreakableStream(inner)
        self._streams = [*(one for one in self._streams if one() is not None), weakref.ref(stream)]
        return stream

    def cut(self) -> None:
        for link in [one() for one in self._links]:
            if link is not None:
                link.close()
        for stream in [one() for one in self._streams]:
            if stream is not None:
                stream.cut()
        self._links.clear()
        self._streams.clear()
