"""Sense data to typed conditions (SPC-5 4.5, SSC-5 4.2, SMC-3). Pure; no bytes crash it.

Several conditions may hold at once: a filemark may be met beyond early warning, a block of the wrong length too. Whoever
sent the command picks those that matter to it.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from drivers.scsi.asc import additional_sense_text


class Key(enum.IntEnum):
    NO_SENSE = 0x0
    RECOVERED_ERROR = 0x1
    NOT_READY = 0x2
    MEDIUM_ERROR = 0x3
    HARDWARE_ERROR = 0x4
    ILLEGAL_REQUEST = 0x5
    UNIT_ATTENTION = 0x6
    DATA_PROTECT = 0x7
    BLANK_CHECK = 0x8
    VENDOR_SPECIFIC = 0x9
    COPY_ABORTED = 0xA
    ABORTED_COMMAND = 0xB
    RESERVED = 0xC
    VOLUME_OVERFLOW = 0xD
    MISCOMPARE = 0xE
    COMPLETED = 0xF


class Condition(enum.StrEnum):
    FILEMARK = "filemark"
    BEGINNING_OF_PARTITION = "beginning_of_partition"
    END_OF_DATA = "end_of_data"
    EARLY_WARNING = "early_warning"
    """The end is near: what was sent is on the medium or in the buffer, little more will fit."""
    END_OF_MEDIUM = "end_of_medium"
    """The physical end: what was sent is not on the medium, or not all of it."""
    INCORRECT_LENGTH = "incorrect_length"
    BLANK_CHECK = "blank_check"
    RECOVERED = "recovered"
    NOT_READY = "not_ready"
    BECOMING_READY = "becoming_ready"
    NO_MEDIUM = "no_medium"
    MEDIUM_ERROR = "medium_error"
    HARDWARE_ERROR = "hardware_error"
    WRITE_PROTECTED = "write_protected"
    DATA_PROTECT = "data_protect"
    """Refused for another reason than the write protection: a key is missing, WORM."""
    CLEANING_REQUIRED = "cleaning_required"
    CLEANING_IN_PROGRESS = "cleaning_in_progress"
    UNIT_ATTENTION = "unit_attention"
    ILLEGAL_REQUEST = "illegal_request"
    UNSUPPORTED_COMMAND = "unsupported_command"
    INVALID_FIELD = "invalid_field"
    UNKNOWN_ELEMENT = "unknown_element"
    SOURCE_EMPTY = "source_empty"
    DESTINATION_FULL = "destination_full"
    REMOVAL_PREVENTED = "removal_prevented"
    ABORTED = "aborted"
    UNREADABLE = "unreadable"
    """Sense bytes that no standard format explains."""


class Attention(enum.StrEnum):
    """Why a unit attention was raised."""

    RESET = "reset"
    MEDIUM_CHANGED = "medium_changed"
    IMPORT_EXPORT_ACCESSED = "import_export_accessed"
    PARAMETERS_CHANGED = "parameters_changed"
    RESERVATIONS_CHANGED = "reservations_changed"
    ENCRYPTION_CHANGED = "encryption_changed"
    MICROCODE_CHANGED = "microcode_changed"
    MAGAZINE_CHANGED = "magazine_changed"
    OPERATOR_REQUEST = "operator_request"
    COMMANDS_CLEARED = "commands_cleared"
    FAILURE_PREDICTED = "failure_predicted"
    EARLY_WARNING = "early_warning"
    OTHER = "other"


class Advice(enum.StrEnum):
    """What gets a device that is not ready there."""

    NOTHING = "nothing"
    WAIT = "wait"
    LOAD = "load"
    """A command is needed (LOAD), or a cartridge."""
    INTERVENE = "intervene"
    """Somebody has to go there."""


class Sense(msgspec.Struct, frozen=True, kw_only=True):
    """Sense data, decoded. ``information`` is signed: for incorrect length, requested minus actual length."""

    key: Key = Key.NO_SENSE
    asc: int = 0
    ascq: int = 0
    deferred: bool = False
    """Of an earlier command, not of the one that it came with."""
    filemark_flag: bool = False
    end_of_medium_flag: bool = False
    incorrect_length_flag: bool = False
    information: int | None = None
    progress: float | None = None
    """0 to 1, where the device tells."""
    field_pointer: int | None = None
    """Byte of the command (or of its parameter list) that the device objects to."""
    field_in_command: bool = False
    conditions: frozenset[Condition] = frozenset()
    attention: Attention | None = None
    advice: Advice = Advice.NOTHING

    @property
    def numbers(self) -> str:
        """``5/3b/0e``, as people look them up."""
        return f"{self.key:x}/{self.asc:02x}/{self.ascq:02x}"

    @property
    def text(self) -> str:
        where = ""
        if self.field_pointer is not None:
            where = f", byte {self.field_pointer} of the {'command' if self.field_in_command else 'parameters'}"
        key = self.key.name.lower().replace("_", " ")
        return f"{key}: {additional_sense_text(self.asc, self.ascq)}{where} ({self.numbers})"

    def has(self, *conditions: Condition) -> bool:
        return any(condition in self.conditions for condition in conditions)


def decode_sense(sense: bytes) -> Sense:
    """Fixed (70h, 71h) or descriptor (72h, 73h) format. Whatever is cut off counts as zero; anything else is ``UNREADABLE``."""
    response = sense[0] & 0x7F if sense else 0
    if response in (0x70, 0x71):
        fields = _fixed(sense)
    elif response in (0x72, 0x73):
        fields = _descriptors(sense)
    else:
        return Sense(conditions=frozenset({Condition.UNREADABLE}))
    raw = msgspec.structs.replace(fields, deferred=response in (0x71, 0x73))
    conditions = frozenset(_conditions(raw))
    return msgspec.structs.replace(
        raw,
        conditions=conditions,
        attention=_attention(raw) if raw.key is Key.UNIT_ATTENTION else None,
        advice=_advice(raw, conditions),
    )


def _fixed(sense: bytes) -> Sense:
    padded = sense + bytes(max(0, 18 - len(sense)))
    # What lies beyond the additional length was not sent as sense: some devices leave rubbish there.
    end = 8 + padded[7]
    padded = padded[:end] + bytes(max(0, 18 - end))
    key = Key(padded[2] & 0x0F)
    pointer, in_command, progress = _key_specific(key, padded[15:18])
    valid = bool(padded[0] & 0x80)
    return Sense(
        key=key,
        asc=padded[12],
        ascq=padded[13],
        filemark_flag=bool(padded[2] & 0x80),
        end_of_medium_flag=bool(padded[2] & 0x40),
        incorrect_length_flag=bool(padded[2] & 0x20),
        information=int.from_bytes(padded[3:7], "big", signed=True) if valid else None,
        field_pointer=pointer,
        field_in_command=in_command,
        progress=progress,
    )


def _descriptors(sense: bytes) -> Sense:
    padded = sense + bytes(max(0, 8 - len(sense)))
    key = Key(padded[1] & 0x0F)
    flags, information = 0, None
    pointer, in_command, progress = None, False, None
    offset, end = 8, min(len(sense), 8 + padded[7])
    while offset + 2 <= end:
        kind, length = sense[offset], sense[offset + 1]
        body = sense[offset + 2 : min(end, offset + 2 + length)]
        offset += 2 + length
        if kind == 0x00 and len(body) >= 10 and body[0] & 0x80:
            information = int.from_bytes(body[2:10], "big", signed=True)
        elif kind == 0x02 and len(body) >= 5:
            pointer, in_command, progress = _key_specific(key, body[2:5])
        elif kind == 0x04 and len(body) >= 2:
            flags = body[1]
    return Sense(
        key=key,
        asc=padded[2],
        ascq=padded[3],
        filemark_flag=bool(flags & 0x80),
        end_of_medium_flag=bool(flags & 0x40),
        incorrect_length_flag=bool(flags & 0x20),
        information=information,
        field_pointer=pointer,
        field_in_command=in_command,
        progress=progress,
    )


def _key_specific(key: Key, field: bytes) -> tuple[int | None, bool, float | None]:
    """Three bytes whose meaning depends on the key: (field pointer, is it in the command, progress)."""
    if not field[0] & 0x80:
        return None, False, None
    number = int.from_bytes(field[1:3], "big")
    if key is Key.ILLEGAL_REQUEST:
        return number, bool(field[0] & 0x40), None
    if key in (Key.NOT_READY, Key.NO_SENSE):
        return None, False, number / 65536
    return None, False, None


_OF_KEY: Final[dict[Key, Condition]] = {
    Key.RECOVERED_ERROR: Condition.RECOVERED,
    Key.NOT_READY: Condition.NOT_READY,
    Key.MEDIUM_ERROR: Condition.MEDIUM_ERROR,
    Key.HARDWARE_ERROR: Condition.HARDWARE_ERROR,
    Key.ILLEGAL_REQUEST: Condition.ILLEGAL_REQUEST,
    Key.UNIT_ATTENTION: Condition.UNIT_ATTENTION,
    Key.BLANK_CHECK: Condition.BLANK_CHECK,
    Key.ABORTED_COMMAND: Condition.ABORTED,
    Key.COPY_ABORTED: Condition.ABORTED,
    Key.VOLUME_OVERFLOW: Condition.END_OF_MEDIUM,
}

_BECOMING_READY: Final = frozenset(
    {(0x04, qualifier) for qualifier in (0x01, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0A, 0x13, 0x14, 0x1B, 0x1C)}
)

_OF_CODE: Final[dict[tuple[Key, int, int], Condition]] = {
    (Key.ILLEGAL_REQUEST, 0x20, 0x00): Condition.UNSUPPORTED_COMMAND,
    (Key.ILLEGAL_REQUEST, 0x21, 0x01): Condition.UNKNOWN_ELEMENT,
    (Key.ILLEGAL_REQUEST, 0x3B, 0x0D): Condition.DESTINATION_FULL,
    (Key.ILLEGAL_REQUEST, 0x3B, 0x0E): Condition.SOURCE_EMPTY,
    (Key.ILLEGAL_REQUEST, 0x53, 0x02): Condition.REMOVAL_PREVENTED,
    (Key.ILLEGAL_REQUEST, 0x53, 0x03): Condition.REMOVAL_PREVENTED,
    (Key.NOT_READY, 0x53, 0x02): Condition.REMOVAL_PREVENTED,
    (Key.NOT_READY, 0x30, 0x03): Condition.CLEANING_IN_PROGRESS,
}


def _conditions(sense: Sense) -> set[Condition]:
    key, code = sense.key, (sense.asc, sense.ascq)
    found: set[Condition] = set()
    if key in _OF_KEY:
        found.add(_OF_KEY[key])
    if (key, *code) in _OF_CODE:
        found.add(_OF_CODE[key, *code])
    if key is Key.ILLEGAL_REQUEST and sense.asc in (0x24, 0x26):
        found.add(Condition.INVALID_FIELD)
    if key is Key.NOT_READY and code in _BECOMING_READY:
        found.add(Condition.BECOMING_READY)
    if key is Key.NOT_READY and sense.asc == 0x3A:
        found.add(Condition.NO_MEDIUM)
    if key is Key.DATA_PROTECT:
        found.add(Condition.WRITE_PROTECTED if sense.asc == 0x27 else Condition.DATA_PROTECT)
    if code in ((0x00, 0x17), (0x82, 0x00)) and key is not Key.ILLEGAL_REQUEST:
        found.add(Condition.CLEANING_REQUIRED)
    return found | _position_conditions(sense)


def _position_conditions(sense: Sense) -> set[Condition]:
    """What a tape met while it moved. Devices differ in key, code and flags for the same thing (SSC-5 table 13)."""
    key, code = sense.key, (sense.asc, sense.ascq)
    found: set[Condition] = set()
    if key is Key.UNIT_ATTENTION or key is Key.ILLEGAL_REQUEST:
        return found
    if sense.filemark_flag or code == (0x00, 0x01):
        found.add(Condition.FILEMARK)
    if sense.incorrect_length_flag:
        found.add(Condition.INCORRECT_LENGTH)
    if code == (0x00, 0x05) or key is Key.BLANK_CHECK:
        found.add(Condition.END_OF_DATA)
    if code == (0x00, 0x04):
        found.add(Condition.BEGINNING_OF_PARTITION)
    elif Condition.END_OF_DATA in found:
        return found
    elif key in (Key.NO_SENSE, Key.RECOVERED_ERROR, Key.COMPLETED) and (
        sense.end_of_medium_flag or code in ((0x00, 0x02), (0x00, 0x07))
    ):
        found.add(Condition.EARLY_WARNING)
    elif key is Key.MEDIUM_ERROR and (sense.end_of_medium_flag or code == (0x00, 0x02)):
        found.add(Condition.END_OF_MEDIUM)
    return found


_ATTENTION_OF_CODE: Final[dict[tuple[int, int], Attention]] = {
    (0x28, 0x01): Attention.IMPORT_EXPORT_ACCESSED,
    (0x28, 0x03): Attention.IMPORT_EXPORT_ACCESSED,
    (0x2A, 0x03): Attention.RESERVATIONS_CHANGED,
    (0x2A, 0x04): Attention.RESERVATIONS_CHANGED,
    (0x2A, 0x05): Attention.RESERVATIONS_CHANGED,
    (0x2A, 0x11): Attention.ENCRYPTION_CHANGED,
    (0x2A, 0x12): Attention.ENCRYPTION_CHANGED,
    (0x2A, 0x13): Attention.ENCRYPTION_CHANGED,
    (0x3F, 0x01): Attention.MICROCODE_CHANGED,
    (0x00, 0x07): Attention.EARLY_WARNING,
}
_ATTENTION_OF_ASC: Final[dict[int, Attention]] = {
    0x28: Attention.MEDIUM_CHANGED,
    0x29: Attention.RESET,
    0x2A: Attention.PARAMETERS_CHANGED,
    0x2F: Attention.COMMANDS_CLEARED,
    0x3B: Attention.MAGAZINE_CHANGED,
    0x5A: Attention.OPERATOR_REQUEST,
    0x5D: Attention.FAILURE_PREDICTED,
}


def _attention(sense: Sense) -> Attention:
    exact = _ATTENTION_OF_CODE.get((sense.asc, sense.ascq))
    return exact or _ATTENTION_OF_ASC.get(sense.asc, Attention.OTHER)


def _advice(sense: Sense, conditions: frozenset[Condition]) -> Advice:
    if sense.key is not Key.NOT_READY:
        return Advice.NOTHING
    if conditions & {Condition.BECOMING_READY, Condition.CLEANING_IN_PROGRESS}:
        return Advice.WAIT
    if Condition.NO_MEDIUM in conditions or (sense.asc, sense.ascq) == (0x04, 0x02):
        return Advice.LOAD
    # "Cause not reportable" is what many devices say in the seconds after a load.
    return Advice.WAIT if (sense.asc, sense.ascq) == (0x04, 0x00) else Advice.INTERVENE
