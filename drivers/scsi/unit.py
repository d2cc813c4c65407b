"""One logical unit: commands with their outcome as a value or an error, unit attentions, and what all devices have (SPC-5).

``LogicalUnit.command`` is the one place where sense becomes errors. Conditions that are part of a command's normal life
(filemarks, early warning) are named by the caller in ``expected`` and come back with the outcome.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Set
from typing import Final

import msgspec
import trio

from drivers.scsi.sense import Advice, Attention, Condition, Key, Sense, decode_sense
from rbcore import errors
from rbcore.scsi import ScsiTransport

GOOD, CHECK_CONDITION, CONDITION_MET, BUSY = 0x00, 0x02, 0x04, 0x08
RESERVATION_CONFLICT, TASK_SET_FULL, TASK_ABORTED = 0x18, 0x28, 0x40

COMMAND_SECONDS_MAX: Final = 60.0
"""For commands that move nothing."""
BUSY_SECONDS_MAX: Final = 60.0
BUSY_PAUSE_SECONDS: Final = 0.25
ATTENTIONS_PER_COMMAND_MAX: Final = 16
"""A device queues one per kind of event; one that always has another is broken."""
ATTENTIONS_KEPT: Final = 64
READY_POLL_SECONDS_MIN, READY_POLL_SECONDS_MAX = 0.5, 15.0
"""A load takes seconds, an erase hours: the pauses between questions grow by half each time."""

HARMLESS_ATTENTIONS: Final = frozenset(
    {
        Attention.PARAMETERS_CHANGED,
        Attention.RESERVATIONS_CHANGED,
        Attention.ENCRYPTION_CHANGED,
        Attention.MICROCODE_CHANGED,
        Attention.FAILURE_PREDICTED,
        Attention.OPERATOR_REQUEST,
    }
)
"""After these a tape still stands where it stood, and it is still the same one."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A command that did what it could. ``sense`` is what the device had to say about it, if anything."""

    data: bytes = b""
    sense: Sense = Sense()
    residual_bytes: int = 0

    def has(self, *conditions: Condition) -> bool:
        return self.sense.has(*conditions)


class LogicalUnit:
    """Commands to one device. One at a time comes from the transport; a tape's position needs one owner besides."""

    def __init__(self, transport: ScsiTransport) -> None:
        self.transport = transport
        self.name = transport.name
        self._attentions: deque[Sense] = deque(maxlen=ATTENTIONS_KEPT)
        self._listed: frozenset[tuple[int, int | None]] | None = None
        self._refused: set[tuple[int, int | None]] = set()
        self.cleaning_required = False
        """Whether any sense since the start asked for it."""

    def take_attentions(self) -> list[Sense]:
        """Unit attentions since the last call, oldest first; the newest ``ATTENTIONS_KEPT`` are kept."""
        taken = list(self._attentions)
        self._attentions.clear()
        return taken

    def heard(self, attention: Attention) -> None:
        """The device reported a change, whatever the command was. For devices that lose something by it."""

    async def command(
        self,
        cdb: bytes,
        what: str,
        *,
        send: bytes | memoryview = b"",
        receive_bytes: int = 0,
        timeout_seconds: float = COMMAND_SECONDS_MAX,
        expected: Set[Condition] = frozenset(),
        needs_position: bool = False,
    ) -> Outcome:
        """Carry out ``cdb``. ``what`` says it for people: "write", "move 1024 to 256".

        Unit attentions are noted and the command is sent again, for it was not carried out; except that with ``needs_position`` one
        that may have moved or exchanged the tape raises ``PositionLost``. A busy device is asked again for a minute.
        Any condition besides ``expected`` that means failure is raised as the error it is.
        """
        attentions, busy_until = 0, trio.current_time() + BUSY_SECONDS_MAX
        while True:
            result = await self.transport.execute(
                cdb, send=send, receive_bytes=receive_bytes, timeout_seconds=timeout_seconds
            )
            if result.status in (GOOD, CONDITION_MET):
                return Outcome(data=result.data, residual_bytes=result.residual_bytes)
            if result.status in (BUSY, TASK_SET_FULL) and trio.current_time() < busy_until:
                await trio.sleep(BUSY_PAUSE_SECONDS)
                continue
            if result.status != CHECK_CONDITION:
                raise _error_of_status(result.status, self.name, what)
            sense = decode_sense(result.sense)
            self.cleaning_required |= sense.has(Condition.CLEANING_REQUIRED)
            if sense.attention is not None and not sense.deferred:
                self._attentions.append(sense)
                self.heard(sense.attention)
                attentions += 1
                if needs_position and sense.attention not in HARMLESS_ATTENTIONS:
                    raise errors.PositionLost(
                        f"{self.name}: {sense.text} before: {what}. Rewind or locate, and make sure that it is still the same cartridge.",
                        data=_data(sense),
                    )
                if attentions <= ATTENTIONS_PER_COMMAND_MAX:
                    continue
            harmless = sense.key in (Key.NO_SENSE, Key.RECOVERED_ERROR) and not sense.has(Condition.UNREADABLE)
            if not sense.deferred and (sense.conditions & expected or harmless):
                return Outcome(data=result.data, sense=sense, residual_bytes=result.residual_bytes)
            if sense.has(Condition.UNSUPPORTED_COMMAND):
                self._refused.add(_command_id(cdb))
            raise error_of(sense, self.name, what)

    # --- what the device has ---

    async def find_commands(self) -> frozenset[tuple[int, int | None]] | None:
        """Operation codes (with service action where they have one) that the device lists; None when it has no list."""
        cdb = bytes([0xA3, 0x0C, 0, 0, 0, 0]) + (16384).to_bytes(4, "big") + bytes(2)
        try:
            listing = (await self.command(cdb, "report supported commands", receive_bytes=16384)).data
        except errors.Refused:
            self._listed = None
        else:
            self._listed = frozenset(_listed_commands(listing)) or None
        return self._listed

    @property
    def knows_its_commands(self) -> bool:
        """Whether ``find_commands`` got a list."""
        return self._listed is not None

    def lacks(self, operation: int, service_action: int | None = None) -> bool:
        """Whether the device is known not to have a command: it is not in its list, or it was refused once."""
        wanted = (operation, service_action)
        if wanted in self._refused or (operation, None) in self._refused:
            return True
        if self._listed is None:
            return False
        if service_action is None:
            return all(listed != operation for listed, _ in self._listed)
        return not {wanted, (operation, None)} & self._listed

    # --- common commands ---

    async def test_unit_ready(self) -> Outcome:
        """Raises ``DeviceNotReady``, ``NoCartridge`` ..."""
        return await self.command(bytes(6), "test unit ready")

    async def not_ready_because(self) -> Sense | None:
        """None when it is ready."""
        outcome = await self.command(
            bytes(6), "test unit ready", expected=frozenset({Condition.NOT_READY, Condition.CLEANING_IN_PROGRESS})
        )
        return outcome.sense if outcome.has(Condition.NOT_READY) else None

    async def wait_ready(self, timeout_seconds: float) -> None:
        """Wait while the device says that it becomes ready. Raises ``NoCartridge`` or ``DeviceNotReady`` as soon as waiting is no use."""
        until, pause = trio.current_time() + timeout_seconds, READY_POLL_SECONDS_MIN
        while (sense := await self.not_ready_because()) is not None:
            if sense.advice is not Advice.WAIT or trio.current_time() >= until:
                raise error_of(sense, self.name, "wait for it to become ready")
            await trio.sleep(min(pause, max(0.0, until - trio.current_time())))
            pause = min(READY_POLL_SECONDS_MAX, pause * 1.5)

    async def prevent_removal(self, prevent: bool) -> None:
        """Lock or unlock the cartridge (or the door). Ends with the session."""
        await self.command(bytes([0x1E, 0, 0, 0, int(prevent), 0]), "prevent removal" if prevent else "allow removal")

    async def inquiry(self, page: int | None = None, *, length: int = 252) -> bytes:
        """Standard data, or a page of vital product data."""
        cdb = bytes([0x12, int(page is not None), page or 0]) + length.to_bytes(2, "big") + bytes(1)
        return (await self.command(cdb, "inquiry", receive_bytes=length)).data

    async def mode_page(self, page: int, subpage: int = 0, *, block_descriptors: bool = False) -> bytes:
        """MODE SENSE(6): the whole answer, header and all, cut to the length that it claims."""
        cdb = bytes([0x1A, 0 if block_descriptors else 0x08, page, subpage, 252, 0])
        data = (await self.command(cdb, f"read mode page {page:02x}h", receive_bytes=252)).data
        return data[: data[0] + 1] if data else data

    async def select_mode(self, parameters: bytes, what: str) -> None:
        """MODE SELECT(6) with header, block descriptor and pages as given."""
        await self.command(bytes([0x15, 0x10, 0, 0, len(parameters), 0]), what, send=parameters)

    async def log_page(self, page: int, subpage: int = 0, *, length: int = 8192) -> dict[int, bytes]:
        """LOG SENSE, current cumulative values: parameter code -> value."""
        cdb = bytes([0x4D, 0, 0x40 | page, subpage, 0, 0, 0]) + length.to_bytes(2, "big") + bytes(1)
        data = (await self.command(cdb, f"read log page {page:02x}h", receive_bytes=length)).data
        found: dict[int, bytes] = {}
        offset, end = 4, min(len(data), 4 + int.from_bytes(data[2:4], "big"))
        while offset + 4 <= end:
            size = data[offset + 3]
            found[int.from_bytes(data[offset : offset + 2], "big")] = data[offset + 4 : min(end, offset + 4 + size)]
            offset += 4 + size
        return found

    async def identity(self) -> Identity:
        """Who it is. Serial numbers come from VPD pages 80h and 83h, and are empty where the device has neither."""
        standard = await self.inquiry(length=96)
        try:
            pages = frozenset((await self.inquiry(0x00))[4:])
            serial = (await self.inquiry(0x80))[4:] if 0x80 in pages else b""
            designators = _designators(await self.inquiry(0x83)) if 0x83 in pages else ()
        except errors.Refused:
            serial, designators = b"", ()
        return Identity(
            device_type=standard[0] & 0x1F if standard else 0x1F,
            removable=bool(standard[1:2] and standard[1] & 0x80),
            vendor=device_text(standard[8:16]),
            product=device_text(standard[16:32]),
            revision=device_text(standard[32:36]),
            serial=device_text(serial),
            designators=designators,
        )

    async def report_luns(self) -> list[int]:
        """Numbers of the logical units beside this one, itself included; any unit of a target answers, LUN 0 does for certain."""
        length = 16384
        cdb = bytes([0xA0, 0, 0, 0, 0, 0]) + length.to_bytes(4, "big") + bytes(2)
        data = (await self.command(cdb, "report logical units", receive_bytes=length)).data
        end = min(len(data), 8 + int.from_bytes(data[0:4], "big"))
        # Single level: peripheral device addressing (00b) and flat space (01b) both have the number in the first two bytes.
        return [
            int.from_bytes(data[at : at + 2], "big") & 0x3FFF
            for at in range(8, end - 7, 8)
            if data[at] & 0xC0 in (0, 0x40)
        ]

    async def aclose(self) -> None:
        await self.transport.aclose()


class Designator(msgspec.Struct, frozen=True):
    """One of a device's names from VPD page 83h: type 1 vendor and serial, 2 EUI-64, 3 NAA, 8 SCSI name."""

    type: int
    association: int
    """0 logical unit, 1 port, 2 target."""
    value: str
    """As text where it is text, as hexadecimal digits where it is not."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    device_type: int
    """1 tape drive, 8 medium changer."""
    removable: bool
    vendor: str
    product: str
    revision: str
    serial: str
    designators: tuple[Designator, ...] = ()


def device_text(raw: bytes) -> str:
    """ASCII padded with spaces or NUL, as devices write it. It gets into events, answers and log lines: what cannot be printed is replaced."""
    text = raw.split(b"\0")[0].decode("ascii", "replace").strip()
    return text if text.isprintable() else "".join(one if one.isprintable() else "\ufffd" for one in text)


def _designators(page: bytes) -> tuple[Designator, ...]:
    found = []
    offset, end = 4, min(len(page), 4 + int.from_bytes(page[2:4], "big"))
    while offset + 4 <= end:
        code_set, kind, length = page[offset] & 0x0F, page[offset + 1], page[offset + 3]
        value = page[offset + 4 : min(end, offset + 4 + length)]
        text = device_text(value) if code_set in (2, 3) else value.hex()
        if text.strip("0"):
            found.append(Designator(kind & 0x0F, kind >> 4 & 0x03, text))
        offset += 4 + length
    return tuple(found)


def _listed_commands(data: bytes) -> list[tuple[int, int | None]]:
    found: list[tuple[int, int | None]] = []
    offset, end = 4, min(len(data), 4 + int.from_bytes(data[0:4], "big"))
    while offset + 8 <= end:
        operation, flags = data[offset], data[offset + 5]
        action = int.from_bytes(data[offset + 2 : offset + 4], "big") if flags & 0x01 else None
        found.append((operation, action))
        offset += 20 if flags & 0x02 else 8
    return found


def _command_id(cdb: bytes) -> tuple[int, int | None]:
    """The service action matters for the operation codes that are families of commands."""
    return (cdb[0], cdb[1] & 0x1F) if cdb[0] in (0x9E, 0x9F, 0xA3, 0xA4) else (cdb[0], None)


def _data(sense: Sense) -> dict[str, str]:
    return {"sense": sense.numbers}


def _error_of_status(status: int, name: str, what: str) -> errors.RbError:
    match status:
        case 0x08 | 0x28:
            return errors.DeviceNotReady(f"{name} was busy for {BUSY_SECONDS_MAX:g} s, not done: {what}")
        case 0x18:
            return errors.ReservedByAnother(
                f"{name} is reserved by another host, not done: {what}. Find out who uses it, and let only one server have it."
            )
        case 0x40:
            return errors.HardwareFailed(f"{name} aborted: {what}. Another host may have reset it.")
    return errors.HardwareFailed(f"{name} answered status {status:02x}h to: {what}")


_ERRORS: Final[tuple[tuple[Condition, type[errors.RbError], str], ...]] = (
    (Condition.SOURCE_EMPTY, errors.ElementEmpty, "There is no cartridge to take; synchronise the library."),
    (Condition.DESTINATION_FULL, errors.ElementFull, "A cartridge is there already; synchronise the library."),
    (
        Condition.REMOVAL_PREVENTED,
        errors.RemovalPrevented,
        "The cartridge is locked; unload it or allow its removal first.",
    ),
    (Condition.UNKNOWN_ELEMENT, errors.UnknownElement, "There is no such element; synchronise the library."),
    (Condition.UNSUPPORTED_COMMAND, errors.UnsupportedByDevice, "The device does not have this command."),
    (Condition.ILLEGAL_REQUEST, errors.RefusedByDevice, "The device does not accept this."),
    (Condition.WRITE_PROTECTED, errors.WriteProtected, "Move the cartridge's switch, or take another one."),
    (
        Condition.DATA_PROTECT,
        errors.WriteProtected,
        "The cartridge is protected: WORM, or an encryption key is missing.",
    ),
    (Condition.CLEANING_IN_PROGRESS, errors.DeviceNotReady, "A cleaning cartridge is in it; it ends by itself."),
    (Condition.NO_MEDIUM, errors.NoCartridge, "Load a cartridge first."),
    (Condition.CLEANING_REQUIRED, errors.CleaningRequired, "Load a cleaning cartridge."),
    (Condition.END_OF_MEDIUM, errors.EndOfMedium, "Go on with another cartridge."),
    (Condition.MEDIUM_ERROR, errors.MediumFailed, "Try another drive; when it fails there too, retire the cartridge."),
    (Condition.END_OF_DATA, errors.MediumFailed, "There is no data where some was expected."),
    (Condition.HARDWARE_ERROR, errors.HardwareFailed, "Look at the device's own display and log."),
    (Condition.ABORTED, errors.HardwareFailed, "The device gave up; try again, then look at cables and adapter."),
    (
        Condition.UNREADABLE,
        errors.HardwareFailed,
        "The device does not say why; what became of the command is not known.",
    ),
    (Condition.UNIT_ATTENTION, errors.DeviceNotReady, "It reports one change after another; look at the device."),
)
"""The first that holds decides."""

_NOT_READY_ADVICE: Final = {
    Advice.WAIT: "It is becoming ready; wait.",
    Advice.LOAD: "It needs to be loaded.",
    Advice.INTERVENE: "Somebody has to look at it: door, magazine, robot, display.",
    Advice.NOTHING: "",
}


def error_of(sense: Sense, name: str, what: str) -> errors.RbError:
    """The error that sense means, with a sentence that says what to do. ``data["sense"]`` has the numbers."""
    if sense.deferred:
        kind = (
            errors.MediumFailed if sense.has(Condition.MEDIUM_ERROR, Condition.END_OF_MEDIUM) else errors.HardwareFailed
        )
        return kind(
            f"{name}: an earlier command failed after it had been acknowledged: {sense.text}. What was written last is not safe.",
            data={**_data(sense), "deferred": True},
        )
    for condition, kind_of, advice in _ERRORS:
        if sense.has(condition):
            return kind_of(f"{name}, {what}: {sense.text}. {advice}", data=_data(sense))
    if sense.has(Condition.NOT_READY):
        return errors.DeviceNotReady(
            f"{name}, {what}: {sense.text}. {_NOT_READY_ADVICE[sense.advice]}", data=_data(sense)
        )
    return errors.HardwareFailed(f"{name}, {what}: {sense.text}.", data=_data(sense))
