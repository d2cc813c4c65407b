"""The channel between daemon and worker, and the handing over of connections: whole messages whatever the pieces, bounds, ends."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from httpapi import channel as module
from httpapi.channel import BODY_BYTES, Channel, ChannelClosed, FromDaemon, FromWorker, Gone, More, Part, Start
from httpapi.handover import HandedConnections, Handover, Place


@contextmanager
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


MESSAGES = st.lists(
    st.one_of(
        st.builds(More, st.integers(1, 2**40), st.binary(max_size=300), st.booleans()),
        st.builds(Gone, st.integers(1, 2**40)),
    ),
    min_size=1,
    max_size=20,
)


@given(MESSAGES, st.lists(st.integers(1, 200), max_size=40))
def test_messages_arrive_whole_and_in_order_whatever_the_pieces(messages: list[FromWorker], cuts: list[int]) -> None:
    async def run() -> None:
        encode = msgspec.msgpack.encode
        stream = b"".join(struct.pack(">I", len(encode(one))) + encode(one) for one in messages)
        with ends() as (ours, theirs):
            channel: Channel[FromDaemon, FromWorker] = Channel(ours, FromWorker)
            found: list[FromWorker] = []
            for size in [*cuts, len(stream)]:
                piece, stream = stream[:size], stream[size:]
                if piece:
                    theirs.sendall(piece)
                    with trio.move_on_after(0):  # a piece may end no message
                        found += await channel.receive()
            theirs.close()
            while more := await channel.receive():
                found += more
            assert found == messages
            assert not channel.closed_because

    trio.run(run)


@pytest.mark.parametrize(
    ("garbage", "because"),
    [
        (struct.pack(">I", module.FRAME_BYTES_MAX + 1), "was announced"),
        (struct.pack(">I", 3) + b"\xc1\xc1\xc1", "no message"),
        (struct.pack(">I", 0), "no message"),
    ],
)
async def test_what_is_no_message_ends_the_channel_with_a_reason(garbage: bytes, because: str) -> None:
    with ends() as (ours, theirs):
        channel: Channel[FromDaemon, FromWorker] = Channel(ours, FromWorker)
        theirs.sendall(garbage)
        assert await channel.receive() == []
        assert because in channel.closed_because
        with pytest.raises(ChannelClosed):
            await channel.send(Start(1, 200, []))


async def test_more_than_the_kernel_takes_is_sent_as_it_is_read(nursery: trio.Nursery) -> None:
    with ends() as (ours, theirs):
        sending: Channel[FromDaemon, FromWorker] = Channel(ours, FromWorker)
        receiving: Channel[FromWorker, FromDaemon] = Channel(theirs, FromDaemon)
        nursery.start_soon(sending.run)
        sent = [Part(number, bytes([number]) * BODY_BYTES, True) for number in range(40)]

        async def send() -> None:
            for one in sent:
                await sending.send(one)

        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        assert len(sending._pending) <= module.PENDING_BYTES + module.FRAME_BYTES_MAX  # whoever sends more waits
        found: list[FromDaemon] = []
        while len(found) < len(sent):
            found += await receiving.receive()
        assert found == sent


async def test_a_process_that_reads_nothing_loses_the_channel(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    with ends() as (ours, _theirs):
        channel: Channel[FromDaemon, FromWorker] = Channel(ours, FromWorker)
        nursery.start_soon(channel.run)

        async def send_for_ever() -> None:
            while True:
                await channel.send(Part(1, b"x" * BODY_BYTES, True))

        with pytest.raises(ChannelClosed):
            await send_for_ever()
        assert "has read nothing" in channel.closed_because


# --- handing over -----------------------------------------------------------------------------------------------------


class Counted(Place):
    """A worker that takes everything."""

    def __init__(self) -> None:
        self.connections = 0

    def take(self, stream: Any) -> bool:
        self.connections += 1
        return True


@given(st.integers(1, 8), st.integers(1, 200))
def test_connections_are_spread_evenly_and_the_daemon_has_the_fewest(workers: int, connections: int) -> None:
    handover, places, own = Handover(), [Counted() for _ in range(workers)], 0
    for place in places:
        handover.join(place)
    for _ in range(connections):
        own += not handover.take(None, own)  # type: ignore[arg-type]
    counts = [one.connections for one in places]
    assert sum(counts) + own == connections == handover.connections + own
    assert max(counts) - min(counts) <= 1
    assert own * workers <= max(counts) + workers


def test_without_workers_the_daemon_keeps_all() -> None:
    handover, place = Handover(), Counted()
    assert not handover.take(None, 0)  # type: ignore[arg-type]
    handover.join(place)
    handover.leave(place)
    handover.leave(place)
    assert not handover.take(None, 5)  # type: ignore[arg-type]


async def test_a_connection_goes_to_another_process_with_what_was_sent_on_it() -> None:
    ended: list[int] = []
    here, there = socket.socketpair(type=socket.SOCK_SEQPACKET)
    listener = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener[0], HandedConnections(there, lambda: ended.append(1)) as handed:
        client = await trio.open_tcp_stream("127.0.0.1", listener[0].socket.getsockname()[1])
        await client.send_all(b"hello")
        place = Place(here)
        assert place.take(await listener[0].accept())
        taken = await handed.accept()
        assert await taken.receive_some() == b"hello"
        await taken.send_all(b"good bye")
        assert await client.receive_some() == b"good bye"
        assert place.connections == 1
        there.close()
        second = await trio.open_tcp_stream("127.0.0.1", listener[0].socket.getsockname()[1])
        refused = await listener[0].accept()
        assert not place.take(refused)  # the worker is gone: the daemon serves it itself
        await refused.send_all(b"still here")
        assert await second.receive_some() == b"still here"
        here.close()
        for one in (client, taken, second, refused):
            await one.aclose()
