"""What is asked of the actors of changers and drives, by their addresses: ``changer/<library id>@host``, ``drive/<drive id>@host``.

Each takes one message at a time, in order; the answer comes when the device has done it and the log has its outcome.
"""

from __future__ import annotations

import msgspec

from rbcore.commands import DeviceFacts, ElementFacts


class ReadInventory(msgspec.Struct, frozen=True, kw_only=True):
    """Read the element status and record what differs. Answered with ``Inventory``. ``anew``: let the robot look at the bar codes first."""

    reason: str
    anew: bool = False


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    unknown: list[str]
    """Tags that nobody registered."""
    changes: int


class MoveCartridge(msgspec.Struct, frozen=True, kw_only=True):
    """Intent, move, outcome. Answered with None; raises what the changer refused with, after the inventory was read anew."""

    cartridge_id: int
    to_slot_id: int
    reason: str
    tape_task_id: int = 0


class MoveUnknown(msgspec.Struct, frozen=True, kw_only=True):
    """Move what lies in an element although nobody registered it: a drive must be emptied. Followed by an inventory."""

    from_address: int
    to_address: int
    reason: str


class MountCartridge(msgspec.Struct, frozen=True, kw_only=True):
    """Answered with ``Mounted``. ``label``: it holds nothing that counts and is going to be written."""

    cartridge_id: int
    reason: str
    rejected: list[str] = []
    tape_task_id: int = 0
    label: bool = False


class Mounted(msgspec.Struct, frozen=True, kw_only=True):
    usable: bool
    reason: str = ""


class DismountCartridge(msgspec.Struct, frozen=True, kw_only=True):
    """Close the session, unload, put the cartridge back. Answered with None."""

    reason: str


class EmptyDrive(msgspec.Struct, frozen=True, kw_only=True):
    """Put what lies in the drive into a slot, whatever it is. Answered with None."""

    reason: str


class CarryOutOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Format, Erase or Check LTFS the mounted cartridge. Answered with a sentence that says what came of it."""

    tape_task_id: int


class CleanDrive(msgspec.Struct, frozen=True, kw_only=True):
    tape_task_id: int
    cartridge_id: int


class ProbeDrive(msgspec.Struct, frozen=True, kw_only=True):
    """Ask the drive who it is and what it can do, and record what differs. Answered with None."""


class ChangerStatistics(msgspec.Struct, frozen=True, kw_only=True):
    library_id: int
    moves: int
    failed_moves: int
    inventories: int


class DriveStatistics(msgspec.Struct, frozen=True, kw_only=True):
    drive_id: int
    mounts: int
    failed_mounts: int
    bytes_written: int
    bytes_read: int
    streams: int


class LibraryReport(msgspec.Struct, frozen=True, kw_only=True):
    """A changer asked who it is and what lies where."""

    changer: DeviceFacts
    transport_element: int
    elements: list[ElementFacts]
    devices: dict[int, str]
    """Drive element address -> identifier by which the changer knows the drive."""
