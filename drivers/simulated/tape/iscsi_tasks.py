"""What waits and runs in a session of the iSCSI target: commands, their data, the line of each logical unit; and what a unit is."""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

import msgspec
import trio

from drivers.simulated.tape import sense as s
from drivers.simulated.tape.iscsi_pdu import Pdu, Pieces
from rbcore.scsi import ScsiResult, ScsiTransport

_READS, _WRITES = 0x40, 0x20
_COMMAND_LENGTHS: Final = (6, 10, 10, 16, 16, 12, 16, 16)
"""Bytes of a CDB by the upper three bits of its operation code; what has no fixed length gets all that came."""
_LOGICAL_UNIT_NOT_SUPPORTED: Final = s.Sense(s.ILLEGAL_REQUEST, 0x25, 0x00)


class Units(Protocol):
    """What is served: logical units, which give every initiator port an I_T nexus of its own. ``SimulatedLibrary`` is one."""

    @property
    def luns(self) -> tuple[int, ...]: ...

    def connect(self, lun: int, initiator: str) -> ScsiTransport:
        """The nexus of a new session; closing it ends the nexus."""

    async def reset(self, lun: int) -> None:
        """LOGICAL UNIT RESET."""


class Burst(msgspec.Struct, eq=False):
    """Data-Out PDUs that are expected: unsolicited ones (``tag`` is ``NO_TAG``), or those of one R2T."""

    tag: int
    end: int
    """Offset in the data of the command, behind the last byte."""
    is_over: trio.Event
    next_number: int = 0


class Task(msgspec.Struct, eq=False):
    """A SCSI command from its arrival to its answer."""

    tag: int
    lun: bytes
    cdb: bytes
    length: int
    """Expected data transfer length."""
    reads: bool
    writes: bool
    is_immediate: bool
    pieces: Pieces
    received: int = 0
    burst: Burst | None = None
    refusal: s.Sense | None = None
    """How it ends without being carried out."""
    transfers: int = 0
    """R2T or Data-In PDUs that were sent: ExpDataSN."""
    is_aborted: bool = False
    scope: trio.CancelScope = msgspec.field(default_factory=trio.CancelScope)
    ended: trio.Event = msgspec.field(default_factory=trio.Event)


def task_of(pdu: Pdu) -> Task:
    """Out of a SCSI Command PDU, unchecked."""
    opcode = pdu.header[32]
    return Task(
        tag=pdu.tag,
        lun=pdu.header[8:16],
        cdb=pdu.header[32 : 32 + _COMMAND_LENGTHS[opcode >> 5]],
        length=pdu.word(20),
        reads=bool(pdu.flags & _READS),
        writes=bool(pdu.flags & _WRITES),
        is_immediate=pdu.is_immediate,
        pieces=pdu.data,
        received=pdu.data.length,
    )


class Line:
    """The commands of one unit in this session, and the nexus."""

    def __init__(self, transport: ScsiTransport) -> None:
        self.transport = transport
        self.waiting: deque[Task] = deque()
        self._arrived = trio.Event()

    def put(self, task: Task) -> None:
        self.waiting.append(task)
        self._arrived.set()

    async def next(self) -> Task:
        while not self.waiting:
            self._arrived = trio.Event()
            await self._arrived.wait()
        return self.waiting.popleft()


class NoUnit:
    """What stands for all logical units that are not there (SPC-4)."""

    name = "no logical unit"

    def __init__(self, luns: tuple[int, ...]) -> None:
        self._luns = luns

    async def execute(
        self,
        cdb: bytes,
        *,
        send: bytes | memoryview = b"",
        receive_bytes: int = 0,
        timeout_seconds: float,
    ) -> ScsiResult:
        del send, timeout_seconds
        await trio.lowlevel.checkpoint()
        data = b""
        if cdb[0] == 0x12 and not cdb[1] & 1:
            data = bytes([0x7F, 0, 0x06, 0x02, 31, *bytes(31)])[: int.from_bytes(cdb[3:5], "big")]
        elif cdb[0] == 0x03:
            data = _LOGICAL_UNIT_NOT_SUPPORTED.encode()[: cdb[4]]
        elif cdb[0] == 0xA0:
            rows = b"".join(lun.to_bytes(2, "big") + bytes(6) for lun in self._luns)
            data = (len(rows).to_bytes(4, "big") + bytes(4) + rows)[: int.from_bytes(cdb[6:10], "big")]
        else:
            return checked(_LOGICAL_UNIT_NOT_SUPPORTED, receive_bytes)
        return ScsiResult(status=s.GOOD, data=data[:receive_bytes], residual_bytes=receive_bytes - len(data))

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def checked(sense: s.Sense, residual_bytes: int) -> ScsiResult:
    return ScsiResult(status=s.CHECK_CONDITION, sense=sense.encode(), residual_bytes=residual_bytes)
