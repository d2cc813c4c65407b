"""Sense data as a device makes it: what a simulated drive or changer answers with CHECK CONDITION.

Only the making. Taking apart is the business of the command sets, which must understand this like any other device's.
Codes: SPC-4 annex D; which of them a drive or library uses for what: SSC-3, SMC-3.
"""

from __future__ import annotations

from typing import Final

import msgspec

GOOD: Final = 0x00
CHECK_CONDITION: Final = 0x02
RESERVATION_CONFLICT: Final = 0x18

NO_SENSE, RECOVERED, NOT_READY, MEDIUM_ERROR, HARDWARE_ERROR, ILLEGAL_REQUEST = range(6)
UNIT_ATTENTION, DATA_PROTECT, BLANK_CHECK = 6, 7, 8
VOLUME_OVERFLOW: Final = 13


class Sense(msgspec.Struct, frozen=True):
    """Key and additional codes, and what goes with them in the fixed format (70h)."""

    key: int
    asc: int
    ascq: int
    filemark: bool = False
    eom: bool = False
    """At or behind early warning, or at the beginning of the partition when moving backwards."""
    ili: bool = False
    information: int | None = None
    """Residue, usually; two's complement of 32 bits when negative. None: VALID is 0."""
    field: int | None = None
    """The byte of the CDB that is wrong."""

    def encode(self) -> bytes:
        """18 bytes, fixed format, current error."""
        raw = bytearray(18)
        raw[0] = 0x70
        raw[2] = self.key | self.filemark << 7 | self.eom << 6 | self.ili << 5
        if self.information is not None and -(1 << 31) <= self.information < 1 << 32:
            raw[0] |= 0x80
            raw[3:7] = (self.information & 0xFFFFFFFF).to_bytes(4, "big")
        raw[7] = 10
        raw[12], raw[13] = self.asc, self.ascq
        if self.field is not None:
            raw[15] = 0xC0
            raw[16:18] = self.field.to_bytes(2, "big")
        return bytes(raw)

    def __str__(self) -> str:
        return f"{self.key:x}/{self.asc:02x}/{self.ascq:02x}"


class CheckCondition(Exception):
    """A command ends with CHECK CONDITION; what it transferred before that comes with it."""

    def __init__(self, sense: Sense, *, data: bytes = b"", seconds: float = 0.0) -> None:
        super().__init__(str(sense))
        self.sense = sense
        self.data = data
        self.seconds = seconds


NOTHING: Final = Sense(NO_SENSE, 0x00, 0x00)
CLEANING_REQUESTED: Final = Sense(NO_SENSE, 0x00, 0x17)

BECOMING_READY: Final = Sense(NOT_READY, 0x04, 0x01)
LOAD_NEEDED: Final = Sense(NOT_READY, 0x04, 0x02)
INTERVENTION_NEEDED: Final = Sense(NOT_READY, 0x04, 0x03)
IN_PROGRESS: Final = Sense(NOT_READY, 0x04, 0x07)
CLEANING_CARTRIDGE: Final = Sense(NOT_READY, 0x30, 0x03)
NO_MEDIUM: Final = Sense(NOT_READY, 0x3A, 0x00)

WRITE_ERROR: Final = Sense(MEDIUM_ERROR, 0x0C, 0x00)
READ_ERROR: Final = Sense(MEDIUM_ERROR, 0x11, 0x00)
INCOMPATIBLE_MEDIUM: Final = Sense(MEDIUM_ERROR, 0x30, 0x00)
CANNOT_WRITE_FORMAT: Final = Sense(MEDIUM_ERROR, 0x30, 0x05)
CLEANING_FAILURE: Final = Sense(MEDIUM_ERROR, 0x30, 0x07)
LOAD_FAILED: Final = Sense(MEDIUM_ERROR, 0x53, 0x00)

ROBOT_JAMMED: Final = Sense(HARDWARE_ERROR, 0x15, 0x01)

PARAMETER_LIST_LENGTH: Final = Sense(ILLEGAL_REQUEST, 0x1A, 0x00)
INVALID_OPCODE: Final = Sense(ILLEGAL_REQUEST, 0x20, 0x00)
INVALID_ELEMENT: Final = Sense(ILLEGAL_REQUEST, 0x21, 0x01)
INVALID_PARAMETER: Final = Sense(ILLEGAL_REQUEST, 0x26, 0x00)
NOT_AT_BEGINNING: Final = Sense(ILLEGAL_REQUEST, 0x3B, 0x0C)
DESTINATION_FULL: Final = Sense(ILLEGAL_REQUEST, 0x3B, 0x0D)
SOURCE_EMPTY: Final = Sense(ILLEGAL_REQUEST, 0x3B, 0x0E)
NOT_UNLOADED: Final = Sense(ILLEGAL_REQUEST, 0x53, 0x01)
REMOVAL_PREVENTED: Final = Sense(ILLEGAL_REQUEST, 0x53, 0x02)

MEDIUM_CHANGED: Final = Sense(UNIT_ATTENTION, 0x28, 0x00)
IMPORT_EXPORT_ACCESSED: Final = Sense(UNIT_ATTENTION, 0x28, 0x01)
RESET_OCCURRED: Final = Sense(UNIT_ATTENTION, 0x29, 0x00)
MODE_CHANGED: Final = Sense(UNIT_ATTENTION, 0x2A, 0x01)

WRITE_PROTECTED: Final = Sense(DATA_PROTECT, 0x27, 0x00)
WORM_OVERWRITE: Final = Sense(DATA_PROTECT, 0x30, 0x0C)


def invalid_field(byte: int) -> Sense:
    """5/24/00, INVALID FIELD IN CDB, with the byte."""
    return Sense(ILLEGAL_REQUEST, 0x24, 0x00, field=byte)


def end_of_data(residue: int) -> Sense:
    """8/00/05."""
    return Sense(BLANK_CHECK, 0x00, 0x05, information=residue)


def filemark_detected(residue: int) -> Sense:
    """0/00/01."""
    return Sense(NO_SENSE, 0x00, 0x01, filemark=True, information=residue)


def beginning_of_partition(residue: int) -> Sense:
    """0/00/04."""
    return Sense(NO_SENSE, 0x00, 0x04, eom=True, information=residue)


def early_warning(residue: int = 0) -> Sense:
    """0/00/02: everything up to the residue was written, and there is not much room any more."""
    return Sense(NO_SENSE, 0x00, 0x02, eom=True, information=residue)


def end_of_medium(residue: int) -> Sense:
    """D/00/02: the residue was not written."""
    return Sense(VOLUME_OVERFLOW, 0x00, 0x02, eom=True, information=residue)


def incorrect_length(residue: int) -> Sense:
    """0/00/00 with ILI."""
    return Sense(NO_SENSE, 0x00, 0x00, ili=True, information=residue)
