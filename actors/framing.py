"""Frames on the data channel: msgpack header and raw payload over any trio stream. Both sides use this one.

A frame is u32 length of the header, u32 length of the payload (little endian), header, payload (``docs/format.md``, "Data
channel"). Lengths are checked against their bounds before anything is kept, and memory grows only with bytes that arrived, so
a peer that announces much and sends little costs nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, TypeAlias

import msgspec
import trio

from rbcore.errors import UNDECODABLE, ProtocolViolation, Unavailable
from rbcore.messages import FRAME_HEADER_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX, DataFrame

Buffer: TypeAlias = bytes | bytearray | memoryview

_LENGTHS: Final = struct.Struct("<II")
_READ_BYTES: Final = 256 * 1024
_JOIN_BYTES: Final = 64 * 1024
"""Payload parts below this are joined before they are sent: a TLS record and a system call cost more than the copy."""

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[DataFrame] = msgspec.msgpack.Decoder(DataFrame)


class DataChannel:
    """A stream that carries frames. One task receives at a time; several may send, frame by frame."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._send_lock = trio.Lock()
        self._arrived = bytearray()
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
            joined = bytearray(_LENGTHS.pack(len(header), length))
            joined += header
            try:
                for part in payload:
                    if len(part) < _JOIN_BYTES:
                        joined += part
                        if len(joined) < _JOIN_BYTES:
                            continue
                        part = joined
                        joined = bytearray()
                    elif joined:
                        await self._stream.send_all(joined)
                        joined = bytearray()
                    await self._stream.send_all(part)
                if joined:
                    await self._stream.send_all(joined)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise Unavailable(f"the data channel broke while a frame was sent: {error}") from error
            self.bytes_sent += _LENGTHS.size + len(header) + length

    async def receive(self) -> tuple[DataFrame, bytearray]:
        """The next frame and its payload.

        Raises ``Unavailable`` when the peer is gone (between frames or amid one), ``ProtocolViolation`` when it sent something that
        is no frame. Cancelled amid a frame, nothing is lost: the next call goes on.
        """
        await self._fill(_LENGTHS.size)
        header_length, payload_length = _LENGTHS.unpack_from(self._arrived)
        if not 0 < header_length <= FRAME_HEADER_BYTES_MAX or payload_length > FRAME_PAYLOAD_BYTES_MAX:
            raise ProtocolViolation(
                f"a frame announces a header of {header_length} and a payload of {payload_length} bytes"
            )
        start = _LENGTHS.size + header_length
        total = start + payload_length
        await self._fill(start)
        try:
            frame = _decoder.decode(memoryview(self._arrived)[_LENGTHS.size : start])
        except UNDECODABLE as error:
            raise ProtocolViolation(f"a frame's header cannot be decoded: {error}") from None
        # No byte more than the frame: what came with it would have to be copied apart.
        await self._fill(total, ahead_bytes=0)
        if len(self._arrived) == total:
            payload, self._arrived = self._arrived, bytearray()
            del payload[:start]
        else:
            payload = self._arrived[start:total]
            del self._arrived[:total]
        self.bytes_received += total
        return frame, payload

    async def _fill(self, length: int, *, ahead_bytes: int = _READ_BYTES) -> None:
        """Receive until ``length`` bytes of the frame are here; where fewer are missing, up to ``ahead_bytes`` in one go."""
        while (missing := length - len(self._arrived)) > 0:
            try:
                chunk = await self._stream.receive_some(max(missing, ahead_bytes))
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise Unavailable(f"the data channel broke: {error}") from error
            if not chunk:
                raise Unavailable("the peer closed the data channel" + (" amid a frame" if self._arrived else ""))
            self._arrived += chunk

    async def aclose(self) -> None:
        """Close the stream. What the peer has not received may be lost: acknowledge first."""
        await self._stream.aclose()
