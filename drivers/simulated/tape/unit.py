"""What every logical unit does the same way, drive or changer: SPC-4 as far as it concerns them.

A unit is a synchronous machine. ``start`` takes one command and the time, changes the state, and says what the answer is, how long it
takes to come and what is still to happen when that time is over. It never waits; waiting is the transport's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Final

import msgspec

from drivers.simulated.tape import sense as s
from rbcore.scsi import ScsiResult

VENDOR: Final = "RBMEDIA"
REVISION: Final = "0100"
_CDB_LENGTHS: Final = {0: 6, 1: 10, 2: 10, 4: 16, 5: 12}
"""By the upper three bits of the operation code."""
_ACTIONS: Final = {0xA3: 0x0C}
"""Operation codes that mean something only with a service action, and the one that is there."""
_REPORT_LUNS, _REQUEST_SENSE, _INQUIRY, _RELEASE = 0xA0, 0x03, 0x12, 0x17
_WITHOUT_ATTENTION: Final = frozenset({_REPORT_LUNS, _REQUEST_SENSE, _INQUIRY})
"""Commands that neither report nor clear a unit attention with CHECK CONDITION."""
_IN_SPITE_OF_RESERVATION: Final = _WITHOUT_ATTENTION | {_RELEASE, 0x57, 0xA3}


class Nexus(msgspec.Struct, eq=False):
    """One initiator at one logical unit."""

    initiator: str
    attentions: list[s.Sense]
    prevents_removal: bool = False


class Command(msgspec.Struct, frozen=True):
    """What arrived."""

    nexus: Nexus
    cdb: bytes
    send: bytes
    now: float
    """Seconds on trio's clock."""

    def number(self, first: int, length: int, *, signed: bool = False) -> int:
        """The big-endian number in these bytes of the CDB."""
        return int.from_bytes(self.cdb[first : first + length], "big", signed=signed)

    def has(self, byte: int, mask: int) -> bool:
        return bool(self.cdb[byte] & mask)


class Reply(msgspec.Struct, frozen=True):
    """How a command ends well."""

    data: bytes = b""
    seconds: float = 0.0
    """Until the answer is there."""
    finish: Callable[[float], None] | None = None
    """What happens at the end of that time, given that time; at once when nobody waits for it any more. May raise ``CheckCondition``."""


class Work(msgspec.Struct, frozen=True):
    """A command that was begun."""

    result: ScsiResult
    seconds: float
    finish: Callable[[float], ScsiResult] | None = None
    """Carries the command to its end, given the time; its result counts then."""


class LogicalUnit:
    """Base of drives and changers. Subclasses give ``handlers`` by operation code and the pages."""

    device_type: ClassVar[int]
    product: str
    serial: str

    def __init__(self, *, lacks: frozenset[int]) -> None:
        self.handlers: dict[int, Callable[[Command], Reply]] = {
            0x12: self._inquiry,
            0x16: self._reserve,
            0x17: self._release,
            0x1E: self._prevent_allow,
            0x56: self._reserve,
            0x57: self._release,
            _REPORT_LUNS: self._report_luns,
            0xA3: self._report_opcodes,
            _REQUEST_SENSE: self._request_sense,
        }
        self._lacks = lacks
        self._nexuses: dict[str, Nexus] = {}
        self._reserved_by: str | None = None
        self.luns: tuple[int, ...] = (0,)
        self.busy_seconds = 0.0

    def supports(self, opcode: int) -> bool:
        return opcode in self.handlers and opcode not in self._lacks

    def nexus(self, initiator: str) -> Nexus:
        """The login of an initiator: its first command learns that there was a reset."""
        nexus = Nexus(initiator, [s.RESET_OCCURRED])
        self._nexuses[initiator] = nexus
        return nexus

    def logout(self, nexus: Nexus) -> None:
        """Holds and reservations end with the login."""
        if self._nexuses.get(nexus.initiator) is nexus:
            del self._nexuses[nexus.initiator]
            if self._reserved_by == nexus.initiator:
                self._reserved_by = None

    def attention(self, condition: s.Sense, *, beside: Nexus | None = None) -> None:
        """Let every initiator (``beside`` this one) know with its next command."""
        for nexus in self._nexuses.values():
            if nexus is not beside and condition not in nexus.attentions:
                nexus.attentions.append(condition)

    def reset(self) -> None:
        """As after power on or a reset: nothing held, nothing reserved, everybody is told."""
        self._reserved_by = None
        for nexus in self._nexuses.values():
            nexus.prevents_removal = False
            nexus.attentions[:] = [s.RESET_OCCURRED]

    @property
    def is_removal_prevented(self) -> bool:
        return any(nexus.prevents_removal for nexus in self._nexuses.values())

    def start(self, command: Command, receive_bytes: int) -> Work:
        """Begin a command."""
        opcode = command.cdb[0] if command.cdb else 0xFF
        if self._reserved_by not in (None, command.nexus.initiator) and opcode not in _IN_SPITE_OF_RESERVATION:
            return Work(ScsiResult(status=s.RESERVATION_CONFLICT, residual_bytes=receive_bytes), 0.0)
        self.settle(command.now)
        try:
            self._check(command, opcode)
            reply = self.handlers[opcode](command)
        except s.CheckCondition as ended:
            return Work(_checked(ended, receive_bytes), ended.seconds)
        result = _good(reply.data, receive_bytes)
        finish = reply.finish
        if finish is None:
            return Work(result, reply.seconds)

        def carry_out(now: float) -> ScsiResult:
            try:
                finish(now)
            except s.CheckCondition as ended:
                return _checked(ended, receive_bytes)
            return result

        return Work(result, reply.seconds, carry_out)

    def _check(self, command: Command, opcode: int) -> None:
        if command.nexus.attentions and opcode not in _WITHOUT_ATTENTION:
            raise s.CheckCondition(command.nexus.attentions.pop(0))
        if not self.supports(opcode):
            raise s.CheckCondition(s.INVALID_OPCODE)
        if len(command.cdb) != _CDB_LENGTHS.get(opcode >> 5):
            raise s.CheckCondition(s.invalid_field(0))

    # --- what differs ---

    def settle(self, now: float) -> None:
        """Bring the state up to the time: what was under way may be over."""
        raise AssertionError("every unit has its own")

    def present_sense(self) -> s.Sense:
        """What REQUEST SENSE answers when there is no unit attention."""
        return s.NOTHING

    def vital_pages(self) -> dict[int, bytes]:
        """Vital product data beside 00, without the four bytes of the header."""
        return {0x80: self.serial.encode(), 0x83: self._identification()}

    # --- commands ---

    def _inquiry(self, command: Command) -> Reply:
        allocation = command.number(3, 2)
        if command.has(1, 0x01):
            pages = self.vital_pages()
            pages[0x00] = bytes(sorted([0x00, *pages]))
            page = pages.get(command.cdb[2])
            if page is None:
                raise s.CheckCondition(s.invalid_field(2))
            head = bytes([self.device_type, command.cdb[2]]) + len(page).to_bytes(2, "big")
            return Reply((head + page)[:allocation])
        if command.cdb[2]:
            raise s.CheckCondition(s.invalid_field(2))
        raw = bytes([self.device_type, 0x80, 0x06, 0x02, 0, 0, 0, 0x02])
        raw += text(VENDOR, 8) + text(self.product, 16) + text(REVISION, 4)
        raw += text(self.serial, 20) + bytes(40)
        raw = raw[:4] + bytes([len(raw) - 5]) + raw[5:]
        return Reply(raw[:allocation])

    def _identification(self) -> bytes:
        identifier = text(VENDOR, 8) + text(self.product, 16) + self.serial.encode()
        return bytes([0x02, 0x01, 0, len(identifier)]) + identifier

    def _request_sense(self, command: Command) -> Reply:
        attentions = command.nexus.attentions
        condition = attentions.pop(0) if attentions else self.present_sense()
        return Reply(condition.encode()[: command.cdb[4]])

    def _report_luns(self, command: Command) -> Reply:
        body = b"".join(lun.to_bytes(2, "big") + bytes(6) for lun in self.luns)
        return Reply((len(body).to_bytes(4, "big") + bytes(4) + body)[: command.number(6, 4)])

    def _reserve(self, command: Command) -> Reply:
        self._reserved_by = command.nexus.initiator
        return Reply()

    def _release(self, command: Command) -> Reply:
        if self._reserved_by == command.nexus.initiator:
            self._reserved_by = None
        return Reply()

    def _prevent_allow(self, command: Command) -> Reply:
        if command.cdb[4] & 0x02:
            raise s.CheckCondition(s.invalid_field(4))
        command.nexus.prevents_removal = command.has(4, 0x01)
        return Reply()

    def _report_opcodes(self, command: Command) -> Reply:
        if command.cdb[1] & 0x1F != 0x0C:
            raise s.CheckCondition(s.invalid_field(1))
        allocation, option, opcode = command.number(6, 4), command.cdb[2] & 0x07, command.cdb[3]
        if option == 0:
            body = b"".join(_listed(one) for one in sorted(self.handlers) if self.supports(one))
            return Reply((len(body).to_bytes(4, "big") + body)[:allocation])
        if option > 3:
            raise s.CheckCondition(s.invalid_field(2))
        if not self.supports(opcode):
            return Reply(bytes([0, 0x01, 0, 0])[:allocation])
        length = _CDB_LENGTHS[opcode >> 5]
        return Reply((bytes([0, 0x03, 0, length, opcode]) + b"\xff" * (length - 1))[:allocation])


def _listed(opcode: int) -> bytes:
    """Descriptor of a command in REPORT SUPPORTED OPERATION CODES."""
    action = _ACTIONS.get(opcode)
    return bytes([opcode, 0, 0, action or 0, 0, action is not None, 0, _CDB_LENGTHS[opcode >> 5]])


def text(value: str, length: int) -> bytes:
    """ASCII, cut or filled with blanks to ``length`` bytes."""
    return value.encode("ascii", "replace")[:length].ljust(length)


def _good(data: bytes, receive_bytes: int) -> ScsiResult:
    return ScsiResult(status=s.GOOD, data=data[:receive_bytes], residual_bytes=receive_bytes - len(data))


def _checked(ended: s.CheckCondition, receive_bytes: int) -> ScsiResult:
    data = ended.data
    return ScsiResult(
        status=s.CHECK_CONDITION,
        sense=ended.sense.encode(),
        data=data[:receive_bytes],
        residual_bytes=receive_bytes - len(data),
    )
