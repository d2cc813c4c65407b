"""Frames: what was sent arrives, however the bytes are cut; what is no frame is refused before it costs anything."""

from __future__ import annotations

import struct

import msgspec
import pytest
import trio.testing

from actors.framing import DataChannel
from rbcore.errors import ProtocolViolation, Unavailable
from rbcore.messages import (
    FRAME_HEADER_BYTES_MAX,
    FRAME_PAYLOAD_BYTES_MAX,
    Blocks,
    DataFrame,
    EndOfBlocks,
    Fetch,
    Stored,
)


async def test_frames_arrive_whole_and_in_order() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    sent: list[tuple[DataFrame, list[bytes]]] = [
        (Stored(block=5, bytes=2**40), []),
        (Blocks(count=3), [b"a" * 100, b"b" * 200_000, b"c"]),
        (EndOfBlocks(), []),
        (Fetch(archive="0" * 32, numbers=list(range(1000))), []),
        (Blocks(count=1), [b"x" * FRAME_PAYLOAD_BYTES_MAX]),
    ]

    async def send() -> None:
        channel = DataChannel(ours)
        for frame, parts in sent:
            await channel.send(frame, parts)
        await channel.aclose()

    channel = DataChannel(theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        for frame, parts in sent:
            received, payload = await channel.receive()
            assert received == frame
            assert payload == b"".join(parts)
        with pytest.raises(Unavailable, match="closed"):
            await channel.receive()


async def test_a_cancelled_receive_loses_nothing() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    header = msgspec.msgpack.encode(Blocks(count=1))
    frame = struct.pack("<II", len(header), 5) + header + b"hello"
    channel = DataChannel(theirs)
    for position in range(len(frame) - 1):
        await ours.send_all(frame[position : position + 1])
        with trio.move_on_after(0.001) as scope:
            await channel.receive()
        assert scope.cancelled_caught
    await ours.send_all(frame[-1:])
    received, payload = await channel.receive()
    assert (received, bytes(payload)) == (Blocks(count=1), b"hello")


@pytest.mark.parametrize(
    "bad",
    [
        struct.pack("<II", 0, 0),
        struct.pack("<II", FRAME_HEADER_BYTES_MAX + 1, 0),
        struct.pack("<II", 10, FRAME_PAYLOAD_BYTES_MAX + 1),
        struct.pack("<II", 4, 0) + b"\xff\xff\xff\xff",
        struct.pack("<II", 2, 0) + msgspec.msgpack.encode([1]),
        struct.pack("<II", 8, 0) + b"\x81\xa4type\xa1\xff",
        struct.pack("<II", 18, 0) + msgspec.msgpack.encode({"type": "Unheard"}) + b"\0\0\0\0\0",
    ],
)
async def test_what_is_no_frame_is_refused(bad: bytes) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await ours.send_all(bad)
    with pytest.raises(ProtocolViolation):
        await DataChannel(theirs).receive()


async def test_a_frame_over_its_bounds_is_not_sent() -> None:
    ours, _theirs = trio.testing.memory_stream_pair()
    with pytest.raises(ValueError, match="too large"):
        await DataChannel(ours).send(Blocks(count=1), [bytes(FRAME_PAYLOAD_BYTES_MAX), b"x"])
