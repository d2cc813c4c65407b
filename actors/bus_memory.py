"""Links and bulk streams in memory, for simulation and tests: every transport fault, drawn from one seed.

The fault model: a message may be lost, come twice, or come late (in order: a link is a stream underneath); a link or a
stream may break at any message. Bytes are never altered: TLS sees to that in the real network.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio
from trio.testing import memory_stream_pair

from actors.link import Link, LinkClosed
from rbcore.ports import Randomness

LINK_MESSAGES_MAX = 256
"""Messages under way on one link; what comes on top is lost, as in nng."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultPlan:
    """Probabilities per message, and how late a late one is (seconds, drawn uniformly)."""

    lose: float = 0.0
    repeat: float = 0.0
    delay: float = 0.0
    delay_seconds_max: float = 1.0
    cut: float = 0.0
    """The link breaks instead of carrying the message."""


@dataclass(slots=True)
class FaultStatistics:
    sent: int = 0
    lost: int = 0
    repeated: int = 0
    delayed: int = 0
    cut: int = 0


class Faults:
    """The decisions of one (seeded) randomness, shared by all links of a network. ``plan`` may be changed while it runs."""

    def __init__(self, randomness: Randomness | None = None, plan: FaultPlan | None = None) -> None:
        assert plan is None or randomness is not None, "faults are drawn from something"
        self.plan = plan or FaultPlan()
        self.statistics = FaultStatistics()
        self._randomness = randomness

    def _draw(self) -> float:
        assert self._randomness is not None, "faults are drawn from something"
        return int.from_bytes(self._randomness.token_bytes(4), "big") / 2**32

    def happens(self, probability: float) -> bool:
        return probability > 0 and self._draw() < probability

    def seconds(self, seconds_max: float) -> float:
        return self._draw() * seconds_max


class MemoryLink:
    """One end of a link."""

    def __init__(self, address: str, faults: Faults) -> None:
        self.address = address
        self._faults = faults
        self._peer: MemoryLink | None = None
        self._inbox_in, self._inbox_out = trio.open_memory_channel[tuple[float, bytes]](LINK_MESSAGES_MAX)
        self._due = 0.0

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        peer, faults, plan = self._peer, self._faults, self._faults.plan
        if peer is None:
            raise LinkClosed(f"The link to {self.address} is closed.")
        faults.statistics.sent += 1
        if faults.happens(plan.cut):
            faults.statistics.cut += 1
            self.close()
            raise LinkClosed(f"The link to {self.address} broke.")
        if faults.happens(plan.lose):
            faults.statistics.lost += 1
            return
        self._due = max(self._due, trio.current_time())
        if faults.happens(plan.delay):
            faults.statistics.delayed += 1
            self._due += faults.seconds(plan.delay_seconds_max)
        copies = 2 if faults.happens(plan.repeat) else 1
        faults.statistics.repeated += copies - 1
        for _ in range(copies):
            try:
                peer._inbox_in.send_nowait((self._due, bytes(data)))
            except trio.WouldBlock:
                faults.statistics.lost += 1

    async def receive(self) -> bytes:
        try:
            due, data = await self._inbox_out.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise LinkClosed(f"The link to {self.address} is closed.") from None
        await trio.sleep_until(due)
        return data

    def close(self) -> None:
        peer, self._peer = self._peer, None
        self._inbox_in.close()
        self._inbox_out.close()
        if peer is not None:
            peer._peer = None
            peer._inbox_in.close()


def memory_link_pair(
    faults: Faults | None = None, names: tuple[str, str] = ("a", "b")
) -> tuple[MemoryLink, MemoryLink]:
    """The two ends; each has the other's name as its address."""
    faults = faults or Faults()
    left, right = MemoryLink(names[1], faults), MemoryLink(names[0], faults)
    left._peer, right._peer = right, left
    return left, right


class MemoryListener:
    def __init__(self, network: MemoryNetwork, port: int) -> None:
        self.port = port
        self._network = network
        self._incoming_in, self._incoming = trio.open_memory_channel[Link](64)

    async def serve(self, handler: Callable[[Link], Awaitable[None]]) -> None:
        async def one(link: Link) -> None:
            try:
                await handler(link)
            finally:
                link.close()

        try:
            async with trio.open_nursery() as nursery:
                async for link in self._incoming:
                    nursery.start_soon(one, link)
        finally:
            self._incoming_in.close()
            self._network.control.pop(self.port, None)


class MemoryNetwork:
    """Implements ``actors.link.Network``. Ports are numbers in a dictionary; bulk streams hold what the credit of the data
    channel allows to be under way."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.control: dict[int, MemoryListener] = {}
        self.data: dict[int, trio.MemorySendChannel[tuple[trio.abc.Stream, str]]] = {}
        self._next_port = 1
        self._dialled = 0

    def _port(self, wanted: int) -> int:
        if wanted:
            return wanted
        self._next_port += 1
        return self._next_port - 1

    async def listen_control(self, host: str, port: int) -> MemoryListener:
        await trio.lowlevel.checkpoint()
        port = self._port(port)
        listener = self.control[port] = MemoryListener(self, port)
        return listener

    async def dial_control(self, host: str, port: int) -> MemoryLink:
        await trio.lowlevel.checkpoint()
        listener = self.control.get(port)
        if listener is None:
            raise LinkClosed(f"Nobody listens at {host}:{port}.")
        self._dialled += 1
        ours, theirs = memory_link_pair(self.faults, (f"agent-{self._dialled}", f"{host}:{port}"))
        try:
            listener._incoming_in.send_nowait(theirs)
        except (trio.WouldBlock, trio.ClosedResourceError, trio.BrokenResourceError):
            raise LinkClosed(f"Nobody listens at {host}:{port}.") from None
        return ours

    async def serve_data(
        self,
        host: str,
        port: int,
        handler: Callable[[trio.abc.Stream, str], Awaitable[None]],
        *,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        port = self._port(port)
        incoming_in, incoming = trio.open_memory_channel[tuple[trio.abc.Stream, str]](64)
        self.data[port] = incoming_in

        async def one(stream: trio.abc.Stream, address: str) -> None:
            try:
                await handler(stream, address)
            finally:
                await trio.aclose_forcefully(stream)

        try:
            async with trio.open_nursery() as nursery:
                task_status.started(port)
                async for stream, address in incoming:
                    nursery.start_soon(one, stream, address)
        finally:
            self.data.pop(port, None)

    async def dial_data(self, host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        listener = self.data.get(port)
        if listener is None:
            raise LinkClosed(f"Nobody takes bulk at {host}:{port}.")
        ours, theirs = memory_stream_pair()
        self._dialled += 1
        try:
            listener.send_nowait((theirs, f"agent-{self._dialled}"))
        except (trio.WouldBlock, trio.ClosedResourceError, trio.BrokenResourceError):
            raise LinkClosed(f"Nobody takes bulk at {host}:{port}.") from None
        return ours
