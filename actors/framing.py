"""Frames on the data channel: msgpack header and raw payload over any trio stream. Both sides use this one.

A frame is u32 length of the header, u32 length of the payload (little endian), header, payload (``docs/format.md``, "Data
channel"). Lengths are checked against their bounds before anything is kept. Room for a payload of up to four megabytes is made when it is announced, so who
has not shown yet who he is may announce none (``payload_bytes_max``).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

import msgspec
import trio

from drivers.bulk_stream import Buffer, bulk
from rbcore.errors import UNDECODABLE, ProtocolViolation, Unavailable
from rbcore.messages import FRAME_HEADER_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX, DataFrame

_LENGTHS: Final = struct.Struct("<II")
_AHEAD_BYTES: Final = 16 * 1024
"""Received with the beginning of a frame: small frames come in one go, and of a large one no more than that is copied."""
_ROOM_BYTES: Final = 4 * 1024 * 1024
"""Room made for a payload before it arrives; for a longer one as much again as has arrived."""

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[DataFrame] = msgspec.msgpack.Decoder(DataFrame)


class _UnderWay(msgspec.Struct):
    """A frame whose payload arrives."""

    frame: DataFrame
    start: int
    """Bytes before the payload."""
    payload: bytearray
    length: int
    """Of the payload when it is whole."""
    filled: int


class DataChannel:
    """A stream that carries frames. One task receives at a time; several may send, frame by frame."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = bulk(stream)
        self._send_lock = trio.Lock()
        self._arrived = bytearray()
        """Of the next frame, up to its payload; or more."""
        self._ahead = memoryview(bytearray(_AHEAD_BYTES))
        self._under_way: _UnderWay | None = None
        self.bytes_sent = 0
        self.bytes_received = 0

    def __repr__(self) -> str:
        return f"<DataChannel sent {self.bytes_sent} B, received {self.bytes_received} B>"

    async def send(self, frame: DataFrame, payload: Sequence[Buffer] = ()) -> None:
        """Send one frame; ``payload`` in parts, which are not copied when they are large.

        Raises ``Unavailable`` when the peer is gone, ``ValueError`` when the frame is over its bounds. After a cancellation amid a
        frame the channel is good for nothing but ``aclose``.
        """
        header = _encoder.encode(frame)
        length = sum(len(part) for part in payload)
        if len(header) > FRAME_HEADER_BYTES_MAX or length > FRAME_PAYLOAD_BYTES_MAX:
            raise ValueError(
                f"{type(frame).__name__}: header of {len(header)} or payload of {length} bytes is too large"
            )
        async with self._send_lock:
            try:
                await self._stream.send_parts([_LENGTHS.pack(len(header), length) + header, *payload])
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise Unavailable(f"the data channel broke while a frame was sent: {error}") from error
            self.bytes_sent += _LENGTHS.size + len(header) + length

    async def receive(self, payload_bytes_max: int = FRAME_PAYLOAD_BYTES_MAX) -> tuple[DataFrame, bytearray]:
        """The next frame and its payload, for which room is made before it has arrived.

        Raises ``Unavailable`` when the peer is gone (between frames or amid one), ``ProtocolViolation`` when it sent something that
        is no frame. Cancelled amid a frame, nothing is lost: the next call goes on.
        """
        if self._under_way is None:
            self._under_way = await self._begin(payload_bytes_max)
        begun = self._under_way
        while begun.filled < begun.length:
            if begun.filled == len(begun.payload):
                begun.payload += bytes(min(begun.length, 2 * begun.filled) - begun.filled)
            with memoryview(begun.payload) as room:
                begun.filled += await self._receive(room[begun.filled :])
        self._under_way = None
        self.bytes_received += begun.start + begun.length
        return begun.frame, begun.payload

    async def _begin(self, payload_bytes_max: int) -> _UnderWay:
        """The next frame with what has arrived of its payload."""
        await self._fill(_LENGTHS.size)
        header_length, length = _LENGTHS.unpack_from(self._arrived)
        if not 0 < header_length <= FRAME_HEADER_BYTES_MAX or length > payload_bytes_max:
            raise ProtocolViolation(f"a frame announces a header of {header_length} and a payload of {length} bytes")
        start = _LENGTHS.size + header_length
        await self._fill(start)
        try:
            frame = _decoder.decode(memoryview(self._arrived)[_LENGTHS.size : start])
        except UNDECODABLE as error:
            raise ProtocolViolation(f"a frame's header cannot be decoded: {error}") from None
        payload = bytearray(min(length, _ROOM_BYTES))
        here = min(length, len(self._arrived) - start)
        payload[:here] = memoryview(self._arrived)[start : start + here]
        self._arrived = self._arrived[start + here :]
        return _UnderWay(frame, start, payload, length, here)

    async def _fill(self, length: int) -> None:
        while len(self._arrived) < length:
            self._arrived += self._ahead[: await self._receive(self._ahead)]

    async def _receive(self, room: memoryview) -> int:
        try:
            got = await self._stream.receive_into(room)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise Unavailable(f"the data channel broke: {error}") from error
        if not got:
            amid = self._arrived or self._under_way is not None
            raise Unavailable("the peer closed the data channel" + (" amid a frame" if amid else ""))
        return got

    async def aclose(self) -> None:
        """Close the stream. What the peer has not received may be lost: acknowledge first."""
        await self._stream.aclose()
