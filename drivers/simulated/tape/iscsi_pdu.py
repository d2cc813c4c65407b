"""iSCSI on the wire (RFC 7143), as a target needs it: PDUs in and out of a byte stream, text keys, numbers of logical units.

Nothing here knows a session. What comes from the network is bounded before it is kept: a length is compared with what was agreed, and
a peer that sends its megabytes in single bytes costs no more than one that does not. Digests and markers are not spoken.
"""

from __future__ import annotations

import re
import struct
from enum import Enum
from typing import Final

import msgspec
import trio

from rbcore.errors import ProtocolViolation

HEADER_BYTES: Final = 48
NO_TAG: Final = 0xFFFFFFFF
PLAIN_SEGMENT_BYTES: Final = 8192
"""MaxRecvDataSegmentLength of both sides while they log in, and of one that never declares another."""
KEYS_MAX: Final = 64
"""In one text; so many answers fit into the 8 KiB that everybody can receive."""
IMMEDIATE: Final = 0x40
"""Bit of byte 0: to be carried out at once, beside the order of command numbers."""
FINAL: Final = 0x80
"""Bit of byte 1: the last of a sequence; in a login, T: ready for the next stage."""
CONTINUES: Final = 0x40
"""Bit of byte 1 in logins and texts: the text goes on in the next PDU."""
_READ_AHEAD_BYTES: Final = 65536
_RECEIVE_BYTES_MAX: Final = 1 << 20
_SMALL_BYTES: Final = 4096
_KEY: Final = re.compile(r"[A-Za-z0-9.+@_-]{1,63}")
_HEADER: Final = struct.Struct(">BBBBI8sII6I")
_NUMBERS: Final = struct.Struct(">III")


class Opcode:
    """Byte 0, the lower six bits."""

    NOP_OUT, COMMAND, MANAGEMENT, LOGIN, TEXT, DATA_OUT, LOGOUT, SNACK = 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x10
    NOP_IN, RESPONSE, MANAGED, LOGIN_RESPONSE, TEXT_RESPONSE, DATA_IN, LOGGED_OUT = range(0x20, 0x27)
    READY_TO_TRANSFER, REJECT = 0x31, 0x3F


class RejectReason:
    """Byte 2 of a Reject."""

    SNACK, PROTOCOL_ERROR, NOT_SUPPORTED, TOO_MANY_IMMEDIATE, TASK_IN_PROGRESS = 0x03, 0x04, 0x05, 0x06, 0x07


class StatusNumber(Enum):
    """What a PDU does with StatSN."""

    TAKES = "the PDU has a number of its own"
    SHOWS = "it tells the number that the next one will have"
    NONE = "the field is reserved"


class Pieces:
    """Bytes as they come. Small pieces are put together: each costs more than it holds, otherwise."""

    __slots__ = ("_pieces", "length")

    def __init__(self) -> None:
        self._pieces: list[bytes | bytearray] = []
        self.length = 0

    def add(self, piece: bytes) -> None:
        self.length += len(piece)
        last = self._pieces[-1] if self._pieces else None
        if len(piece) >= _SMALL_BYTES:
            self._pieces.append(piece)
        elif isinstance(last, bytearray):
            last += piece
        else:
            self._pieces.append(bytearray(piece))

    def take_over(self, other: Pieces) -> None:
        """Everything of another one, behind what is here; the other must not be used any more."""
        if self.length:
            for piece in other._pieces:
                self.add(bytes(piece))
        else:
            self._pieces, self.length = other._pieces, other.length

    def join(self) -> bytes:
        return b"".join(self._pieces)


class Pdu(msgspec.Struct, frozen=True):
    """One that arrived."""

    header: bytes
    extra: bytes
    """Additional header segments."""
    data: Pieces

    @property
    def opcode(self) -> int:
        return self.header[0] & 0x3F

    @property
    def is_immediate(self) -> bool:
        return bool(self.header[0] & IMMEDIATE)

    @property
    def flags(self) -> int:
        return self.header[1]

    @property
    def tag(self) -> int:
        """Initiator task tag."""
        return self.word(16)

    def word(self, at: int) -> int:
        """The 32 bits at this byte of the header."""
        return int.from_bytes(self.header[at : at + 4], "big")


class Outgoing(msgspec.Struct):
    """One to be sent; whoever sends it puts the session's numbers in."""

    header: bytearray
    data: bytes | memoryview = b""
    status_number: StatusNumber = StatusNumber.TAKES
    is_last: bool = False
    """The connection ends behind it."""

    def number(self, status_number: int, expected_command: int, last_command: int) -> None:
        """Put StatSN, ExpCmdSN and MaxCmdSN in."""
        shown = 0 if self.status_number is StatusNumber.NONE else status_number
        _NUMBERS.pack_into(self.header, 24, shown, expected_command, last_command)


def header(
    opcode: int,
    flags: int = FINAL,
    *,
    byte2: int = 0,
    byte3: int = 0,
    length: int = 0,
    lun: bytes = bytes(8),
    tag: int = NO_TAG,
    word20: int = 0,
    words36: tuple[int, int, int] = (0, 0, 0),
) -> bytearray:
    """48 bytes; ``length`` is that of the data segment, ``words36`` are bytes 36 to 47. Bytes 24 to 35 are left to ``Outgoing.number``."""
    return bytearray(_HEADER.pack(opcode, flags, byte2, byte3, length, lun, tag, word20, 0, 0, 0, *words36))


class PduReader:
    """Cuts a byte stream into PDUs. One reader per stream, for it reads ahead. Not to be used after a cancelled ``read``."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._ahead = memoryview(b"")

    async def read(self, segment_bytes_max: int) -> Pdu | None:
        """The next one; None at the end of the stream.

        Raises ``ProtocolViolation`` when the data segment is longer than agreed or the stream ends in the middle of a PDU.
        """
        start = await self._take(HEADER_BYTES)
        if not start.length:
            return None
        head = start.join()
        length = int.from_bytes(head[5:8], "big")
        if len(head) == HEADER_BYTES and length > segment_bytes_max:
            raise ProtocolViolation(f"a data segment of {length} bytes came, {segment_bytes_max} were agreed")
        extra_bytes = head[4] * 4 if len(head) == HEADER_BYTES else 0
        extra = (await self._take(extra_bytes)).join() if extra_bytes else b""
        data = await self._take(length)
        padding = await self._take(-length % 4)
        if (len(head), len(extra), data.length, padding.length) != (HEADER_BYTES, extra_bytes, length, -length % 4):
            raise ProtocolViolation("the connection ended in the middle of a message")
        return Pdu(head, extra, data)

    async def _take(self, count: int) -> Pieces:
        """So many bytes, or less at the end of the stream."""
        taken = Pieces()
        while (missing := count - taken.length) > 0:
            if self._ahead:
                taken.add(bytes(self._ahead[:missing]))
                self._ahead = self._ahead[missing:]
            elif missing >= _READ_AHEAD_BYTES:
                # The end of this segment is the end of what is asked for: its bytes need not be moved once more.
                received = bytes(await self._stream.receive_some(min(missing, _RECEIVE_BYTES_MAX)))
                if not received:
                    break
                taken.add(received)
            else:
                self._ahead = memoryview(bytes(await self._stream.receive_some(_READ_AHEAD_BYTES)))
                if not self._ahead:
                    break
        return taken


async def send_pdu(stream: trio.abc.SendStream, pdu: Outgoing) -> None:
    """The length in its header must be that of its data."""
    length = len(pdu.data)
    if length < _READ_AHEAD_BYTES:
        await stream.send_all(b"".join((pdu.header, pdu.data, bytes(-length % 4))))
        return
    await stream.send_all(pdu.header)
    await stream.send_all(pdu.data)
    if length % 4:
        await stream.send_all(bytes(-length % 4))


def parse_text(raw: bytes) -> dict[str, str]:
    """``key=value`` pairs, each ended by a zero byte. Raises ``ProtocolViolation``; also for a key that is there twice."""
    keys: dict[str, str] = {}
    pairs = raw.split(b"\0", KEYS_MAX + 1)
    if len(pairs) > KEYS_MAX + 1:
        raise ProtocolViolation(f"more than {KEYS_MAX} text keys came at once")
    if pairs.pop():
        raise ProtocolViolation("the last text key has no end")
    for pair in pairs:
        try:
            key, separator, value = pair.decode().partition("=")
        except UnicodeDecodeError as error:
            raise ProtocolViolation("a text is not UTF-8") from error
        if not separator or not _KEY.fullmatch(key) or key in keys:
            raise ProtocolViolation(f"{printable(pair)} is no text key, or came twice")
        keys[key] = value
    return keys


def encode_text(pairs: dict[str, str]) -> bytes:
    return b"".join(f"{key}={value}\0".encode() for key, value in pairs.items())


def printable(raw: bytes) -> str:
    """What a peer sent, for a sentence: short, and nothing that steers a terminal."""
    return repr(raw[:80].decode("ascii", "replace"))


def lun_number(raw: bytes) -> int | None:
    """Of the eight bytes (SAM-5, 4.7): peripheral or flat addressing of a single level; None for all other forms."""
    if any(raw[2:]) or raw[0] & 0xC0 not in (0x00, 0x40):
        return None
    return None if 0 < raw[0] < 0x40 else (raw[0] & 0x3F) << 8 | raw[1]


def is_after(number: int, other: int) -> bool:
    """Serial number arithmetic of 32 bits (RFC 1982)."""
    return 0 < (number - other) & 0xFFFFFFFF < 1 << 31
