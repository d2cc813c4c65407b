"""An iSCSI initiator by hand: sends what it is told, right or wrong, and takes apart what comes. For the tests of the target.

It shares no code with the target. What a correct initiator does is checked with libiscsi.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import trio
import trio.testing

from drivers.simulated.tape import IscsiTarget, SharedUnits, SimulatedLibrary
from rbcore.scsi import ScsiResult
from tests.tape.simulated import DRIVE, SLOT, Device

NO_TAG = 0xFFFFFFFF
NAME = "iqn.2026-01.test:initiator"


@dataclass(frozen=True)
class Answer:
    """A PDU of the target."""

    header: bytes
    data: bytes

    @property
    def opcode(self) -> int:
        return self.header[0]

    @property
    def flags(self) -> int:
        return self.header[1]

    def word(self, at: int) -> int:
        return int.from_bytes(self.header[at : at + 4], "big")

    @property
    def tag(self) -> int:
        return self.word(16)

    @property
    def login_status(self) -> int:
        return self.word(36) >> 16

    @property
    def residual(self) -> int:
        """Negative for an overflow."""
        return self.word(44) * (-1 if self.flags & 0x04 else 1 if self.flags & 0x02 else 0)

    @property
    def sense(self) -> str:
        """``key/asc/ascq`` of a response with CHECK CONDITION."""
        assert (self.opcode, self.header[3]) == (0x21, 2)
        length = int.from_bytes(self.data[:2], "big")
        raw = self.data[2:]
        assert len(raw) == length
        return f"{raw[2] & 15:x}/{raw[12]:02x}/{raw[13]:02x}"

    def text(self) -> dict[str, str]:
        return dict(pair.split("=", 1) for pair in self.data.decode().split("\0") if pair)


def pdu(opcode: int, flags: int, *, at: dict[int, bytes] | None = None, data: bytes = b"", extra: bytes = b"") -> bytes:
    """``at``: bytes by their place in the header."""
    head = bytearray(48)
    head[0], head[1], head[4] = opcode, flags, len(extra) // 4
    head[5:8] = len(data).to_bytes(3, "big")
    for place, value in (at or {}).items():
        head[place : place + len(value)] = value
    return bytes(head) + extra + data + bytes(-len(data) % 4)


def word(value: int) -> bytes:
    return struct.pack(">I", value & 0xFFFFFFFF)


def keys(**pairs: str) -> bytes:
    return b"".join(f"{key}={value}\0".encode() for key, value in pairs.items())


@dataclass
class Initiator:
    """One connection. ``commands`` is the next CmdSN."""

    stream: trio.abc.Stream
    isid: bytes = b"\x80\0\0\0\0\x01"
    command: int = 7
    expected_status: int = 1
    window_end: int = 0
    tags: int = 0
    _buffer: bytearray = field(default_factory=bytearray)

    async def send(self, raw: bytes) -> None:
        await self.stream.send_all(raw)

    async def receive(self) -> Answer | None:
        """None: the target closed the connection."""
        head = await self._take(48)
        if not head:
            return None
        assert head[4] == 0
        length = int.from_bytes(head[5:8], "big")
        answer = Answer(head, (await self._take(length + -length % 4))[:length])
        self.window_end = answer.word(32)
        return answer

    async def get(self) -> Answer:
        answer = await self.receive()
        assert answer is not None, "the target closed the connection"
        return answer

    async def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            try:
                received = await self.stream.receive_some(65536)
            except trio.BrokenResourceError:
                received = b""
            if not received:
                assert not self._buffer, "the target closed the connection in the middle of a PDU"
                return b""
            self._buffer += received
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    async def is_closed(self) -> bool:
        """What is still under way may come before."""
        while await self.receive() is not None:
            pass
        return True

    # --- login ---

    def login_pdu(self, flags: int, data: bytes, **at: bytes) -> bytes:
        places = {8: self.isid, 16: word(99), 20: b"\0\x05", 24: word(self.command), 28: word(self.expected_status)}
        return pdu(0x43, flags, at=places | {int(place[1:]): value for place, value in at.items()}, data=data)

    async def log_in(self, target: str, /, **more: str) -> Answer:
        """In one step, without authentication."""
        pairs = {"InitiatorName": NAME, "TargetName": target, "SessionType": "Normal", **more}
        await self.send(self.login_pdu(0x87, keys(**{key: value for key, value in pairs.items() if value})))
        answer = await self.get()
        self.expected_status = answer.word(24) + 1
        return answer

    # --- commands ---

    def next_tag(self) -> int:
        self.tags += 1
        return self.tags

    def take_number(self, *, immediate: bool) -> int:
        number = self.command
        self.command += not immediate
        return number

    def command_pdu(
        self,
        cdb: bytes,
        *,
        lun: int = 0,
        tag: int | None = None,
        reads: int = 0,
        writes: int = 0,
        data: bytes = b"",
        final: bool = True,
        immediate: bool = False,
        number: int | None = None,
    ) -> bytes:
        flags = (0x80 if final else 0) | (0x40 if reads else 0) | (0x20 if writes else 0)
        places = {
            8: bytes([0, lun]),
            16: word(self.next_tag() if tag is None else tag),
            20: word(reads or writes),
            24: word(self.take_number(immediate=immediate) if number is None else number),
            28: word(self.expected_status),
            32: cdb,
        }
        return pdu(0x41 if immediate else 0x01, flags, at=places, data=data)

    def data_pdu(
        self, tag: int, transfer: int, number: int, offset: int, data: bytes, *, final: bool, lun: int
    ) -> bytes:
        places = {8: bytes([0, lun]), 16: word(tag), 20: word(transfer), 36: word(number), 40: word(offset)}
        return pdu(0x05, 0x80 if final else 0, at=places, data=data)

    def other_pdu(
        self, opcode: int, flags: int, *, word20: int = 0, data: bytes = b"", lun: int = 0, **at: int
    ) -> bytes:
        """NOP-Out, text, logout, task management: immediate."""
        places = {8: bytes([0, lun]), 16: word(self.next_tag()), 20: word(word20), 24: word(self.command)}
        return pdu(
            opcode | 0x40, flags, at=places | {int(key[1:]): word(value) for key, value in at.items()}, data=data
        )

    async def do(self, cdb: bytes, *, lun: int = 0, reads: int = 0) -> tuple[Answer, bytes]:
        """A command without data out; the PDU with the status, and the data."""
        await self.send(self.command_pdu(cdb, lun=lun, reads=reads))
        return await self.outcome()

    async def outcome(self) -> tuple[Answer, bytes]:
        """Checks the numbers of Data-In PDUs."""
        data, number = b"", 0
        while True:
            answer = await self.get()
            if answer.opcode == 0x25:
                assert (answer.word(36), answer.word(40)) == (number, len(data))
                number += 1
                data += answer.data
            if answer.opcode != 0x25 or answer.flags & 0x01:
                return answer, data


@contextlib.asynccontextmanager
async def connected(target: IscsiTarget) -> AsyncIterator[Initiator]:
    """Over memory: no port, no kernel, time may be virtual."""
    near, far = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(target.serve, far)
        yield Initiator(near)
        await near.aclose()


# --- what is served ---

READY = bytes(6)
INQUIRY = b"\x12\0\0\0\xff\0"
REWIND = b"\x01" + bytes(5)


def write_cdb(length: int) -> bytes:
    return b"\x0a\0" + length.to_bytes(3, "big") + b"\0"


def read_cdb(length: int) -> bytes:
    return b"\x08\0" + length.to_bytes(3, "big") + b"\0"


@dataclass
class Slow:
    """A logical unit that answers when it is told to; it keeps what it was told to do."""

    name: str = "slow"
    begun: list[bytes] = field(default_factory=list)
    ended: list[bytes] = field(default_factory=list)
    go: trio.Event = field(default_factory=trio.Event)

    async def execute(
        self, cdb: bytes, *, send: bytes | memoryview = b"", receive_bytes: int = 0, timeout_seconds: float
    ) -> ScsiResult:
        self.begun.append(cdb)
        await self.go.wait()
        self.ended.append(cdb)
        return ScsiResult(status=0)

    async def aclose(self) -> None:
        raise AssertionError("the target closes what is not its own")


def target_of(made: SimulatedLibrary | SharedUnits, **options: str) -> IscsiTarget:
    return IscsiTarget(made, "127.0.0.1:3260", **options)  # type: ignore[arg-type]


async def loaded_drive(made: SimulatedLibrary) -> None:
    changer = Device(made.changer)
    await changer.clear()
    assert await changer.move(SLOT, DRIVE) == "good"


async def past_attention(initiator: Initiator, lun: int = 0) -> None:
    while (await initiator.do(READY, lun=lun))[0].header[3]:
        pass
