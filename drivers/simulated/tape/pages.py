"""Mode pages and log pages: their framing (SPC-4), the same for drives and changers. What is in them is the unit's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from drivers.simulated.tape import sense as s
from drivers.simulated.tape.unit import Command, Reply

SAVING_NOT_SUPPORTED: Final = s.Sense(s.ILLEGAL_REQUEST, 0x39, 0x00)
ALL_PAGES: Final = 0x3F


class ModePage(msgspec.Struct, kw_only=True):
    """Current and default values and the mask of what may be changed, all without the two bytes of the header."""

    current: bytes
    default: bytes
    changeable: bytes

    @classmethod
    def fixed(cls, values: bytes) -> ModePage:
        return cls(current=values, default=values, changeable=bytes(len(values)))

    def values(self, control: int) -> bytes:
        return (self.current, self.changeable, self.default)[control]

    def accepts(self, wanted: bytes) -> bool:
        """Whether it differs from now only where it may."""
        return len(wanted) == len(self.current) and all(
            (new ^ old) & ~mask & 0xFF == 0
            for new, old, mask in zip(wanted, self.current, self.changeable, strict=True)
        )


class ModeHeader(msgspec.Struct, frozen=True):
    """Header and block descriptor (empty when the device has none)."""

    medium_type: int = 0
    device_specific: int = 0
    block_descriptor: bytes = b""


def mode_sense(command: Command, header: ModeHeader, pages: dict[int, ModePage]) -> Reply:
    """MODE SENSE(6) and (10)."""
    is_long = command.cdb[0] == 0x5A
    control, wanted, subpage = command.cdb[2] >> 6, command.cdb[2] & 0x3F, command.cdb[3]
    allocation = command.number(7, 2) if is_long else command.cdb[4]
    if control == 3:
        raise s.CheckCondition(SAVING_NOT_SUPPORTED)
    if (wanted != ALL_PAGES and wanted != 0 and wanted not in pages) or subpage not in (0, 0xFF):
        raise s.CheckCondition(s.invalid_field(2 if subpage in (0, 0xFF) else 3))
    chosen = sorted(pages) if wanted == ALL_PAGES else [wanted] if wanted else []
    descriptor = b"" if command.has(1, 0x08) else header.block_descriptor
    body = b"".join(bytes([number, len(pages[number].current)]) + pages[number].values(control) for number in chosen)
    kinds = bytes([header.medium_type, header.device_specific])
    if is_long:
        length = 6 + len(descriptor) + len(body)
        head = length.to_bytes(2, "big") + kinds + bytes(2) + len(descriptor).to_bytes(2, "big")
    else:
        head = bytes([min(255, 3 + len(descriptor) + len(body))]) + kinds + bytes([len(descriptor)])
    return Reply((head + descriptor + body)[:allocation])


def mode_select(command: Command, pages: dict[int, ModePage]) -> tuple[ModeHeader | None, dict[int, bytes]]:
    """MODE SELECT(6) and (10): header and wanted page values, checked against what may be changed. Nothing is changed here."""
    is_long = command.cdb[0] == 0x55
    if command.has(1, 0x01):
        raise s.CheckCondition(s.invalid_field(1))
    length = command.number(7, 2) if is_long else command.cdb[4]
    if length == 0:
        return None, {}
    raw = command.send[:length]
    head_length = 8 if is_long else 4
    if len(raw) < max(length, head_length):
        raise s.CheckCondition(s.PARAMETER_LIST_LENGTH)
    descriptor_length = int.from_bytes(raw[6:8], "big") if is_long else raw[3]
    kinds = raw[2:4] if is_long else raw[1:3]
    if descriptor_length not in (0, 8) or len(raw) < head_length + descriptor_length:
        raise s.CheckCondition(s.INVALID_PARAMETER)
    at = head_length + descriptor_length
    header = ModeHeader(kinds[0], kinds[1], raw[head_length:at])
    wanted: dict[int, bytes] = {}
    while at < len(raw):
        number = raw[at] & 0x3F
        if at + 2 > len(raw) or at + 2 + raw[at + 1] > len(raw):
            raise s.CheckCondition(s.PARAMETER_LIST_LENGTH)
        values = raw[at + 2 : at + 2 + raw[at + 1]]
        if number not in pages or not pages[number].accepts(values):
            raise s.CheckCondition(s.INVALID_PARAMETER)
        wanted[number] = values
        at += 2 + len(values)
    return header, wanted


def log_sense(command: Command, pages: dict[int, Callable[[], Iterable[tuple[int, bytes]]]]) -> Reply:
    """LOG SENSE: page 00 is made of the others. A page gives (parameter code, value) in ascending order."""
    number, pointer, allocation = command.cdb[2] & 0x3F, command.number(5, 2), command.number(7, 2)
    if command.cdb[3] or (number and number not in pages):
        raise s.CheckCondition(s.invalid_field(2 if number not in pages else 3))
    if number == 0:
        body = bytes([0, *sorted(pages)])
    else:
        body = b"".join(
            code.to_bytes(2, "big") + bytes([0x03, len(value)]) + value
            for code, value in pages[number]()
            if code >= pointer
        )
    return Reply((bytes([number, 0]) + len(body).to_bytes(2, "big") + body)[:allocation])
