"""Commands about tape libraries, cartridges, drives and what robots and drives are to do. Everybody imports them from ``rbcore.commands``."""

from __future__ import annotations

import msgspec

from rbcore.commands_base import Command


class DeviceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A changer or drive as it answered."""

    device: str
    """How it is reached: ``/dev/sg2``, ``iscsi://host:port/target/lun``."""
    scsi_path: str = ""
    vendor: str = ""
    product: str = ""
    revision: str = ""
    serial: str = ""


class DriveFacts(DeviceFacts, frozen=True, kw_only=True):
    element_address: int = 0
    """Where the changer says it sits; 0: unknown, an operator sets ``sys_transfer_element``."""
    partitions_max: int = 1
    lacks: list[str] = msgspec.field(default_factory=list)


class ElementFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One element as READ ELEMENT STATUS reports it (``drivers.scsi.changer.Element``)."""

    address: int
    type: str
    """``storage``, ``import-export``, ``drive`` (vocabulary ``SlotType``)."""
    is_full: bool
    volume_tag: str = ""
    source_address: int = 0
    exception: str = ""


class CartridgeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a look at a mounted cartridge found (``rbcore.tape.session.Identified``)."""

    contents: str
    label_id: str = ""
    use: int = 0
    volume_tag: str = ""
    server: str = ""
    write_protected: bool = False
    detail: str = ""


class AddTapeLibrary(Command, frozen=True, kw_only=True):
    """POST tape_libraries, after the devices were asked who they are and what lies where.

    Reply data: as ``RecordInventory``, and ``{"format": the pool's type then}``.
    """

    pool: str
    media_server: str
    description: str = ""
    changer: DeviceFacts
    transport_element: int = 0
    drives: list[DriveFacts]
    elements: list[ElementFacts]


class AddTapeDrives(Command, frozen=True, kw_only=True):
    library_id: int
    drives: list[DriveFacts]


class RecordInventory(Command, frozen=True, kw_only=True):
    """The element status of a library, whole. Every difference to the log becomes an event; moves whose end is not known get one.

    Reply data: ``{"unknown": [tags nobody registered], "twice": [tags at two elements], "untagged": [addresses of full elements whose
    bar code nobody can read and of which nothing is known], "changes": n}``.
    """

    library_id: int
    elements: list[ElementFacts]
    reason: str
    """``start``, ``synchronised by an operator``, ``after a failed move`` ..."""


class SetLibraryStatus(Command, frozen=True, kw_only=True):
    library_id: int
    status: str
    reason: str


class BeginMove(Command, frozen=True, kw_only=True):
    """Intent. Refused unless the cartridge is there, the target is empty, and nothing else is on its way to it."""

    cartridge_id: int
    to_slot_id: int
    reason: str
    tape_task_id: int = 0


class EndMove(Command, frozen=True, kw_only=True):
    """Outcome. ``failure`` empty: it lies in the target now."""

    cartridge_id: int
    failure: str = ""


class MarkExported(Command, frozen=True, kw_only=True):
    cartridge_id: int
    reason: str


class ImportCartridges(Command, frozen=True, kw_only=True):
    """What lies in import-export elements belongs to the pool from here on; unknown tags are registered. Reply ids: the cartridges."""

    library_id: int
    pool_name: str


class BeginMount(Command, frozen=True, kw_only=True):
    drive_id: int
    cartridge_id: int
    reason: str
    rejected: list[str] = msgspec.field(default_factory=list)
    tape_task_id: int = 0


class EndMount(Command, frozen=True, kw_only=True):
    """``found``: what the look at the cartridge told. Decides whether it is the right one: a wrong, foreign or unreadable cartridge is
    quarantined, with the reason. Reply data: ``{"usable": bool, "reason": "..."}``. ``failure``: the mount did not get that far; ``blame`` says whose
    fault that looks like: ``cartridge``, ``drive``, ``changer`` or empty. A cartridge's fault is counted here, a drive's by ``CountDriveFailure``."""

    drive_id: int
    cartridge_id: int
    found: CartridgeFacts | None = None
    failure: str = ""
    blame: str = ""


class BeginDismount(Command, frozen=True, kw_only=True):
    drive_id: int
    reason: str


class EndDismount(Command, frozen=True, kw_only=True):
    drive_id: int
    failure: str = ""
    blame: str = ""


class SetDriveStatus(Command, frozen=True, kw_only=True):
    drive_id: int
    status: str
    reason: str


class CountDriveFailure(Command, frozen=True, kw_only=True):
    """It did not answer, or said that it is broken. Too many in a row quarantine it (``rbcore.decide.tape_drives``)."""

    drive_id: int
    reason: str


class RecordDriveFacts(Command, frozen=True, kw_only=True):
    drive_id: int
    facts: DriveFacts


class AskDriveCleaning(Command, frozen=True, kw_only=True):
    drive_id: int
    reason: str


class RecordDriveCleaned(Command, frozen=True, kw_only=True):
    drive_id: int
    cartridge_id: int


class BeginLabelling(Command, frozen=True, kw_only=True):
    """Intent. Refused while archives of the repository are on the cartridge."""

    cartridge_id: int
    drive_id: int
    format: str
    reason: str


class EndLabelling(Command, frozen=True, kw_only=True):
    cartridge_id: int
    format: str
    label_id: str = ""
    use: int = 0
    capacity_bytes: int = 0
    failure: str = ""


class BeginErasing(Command, frozen=True, kw_only=True):
    cartridge_id: int
    drive_id: int
    is_long: bool
    reason: str


class EndErasing(Command, frozen=True, kw_only=True):
    cartridge_id: int
    is_long: bool
    failure: str = ""


class RecordCartridgeWritten(Command, frozen=True, kw_only=True):
    cartridge_id: int
    used_bytes: int
    full: bool
    task_id: int = 0


class CountCartridgeError(Command, frozen=True, kw_only=True):
    """``kind``: ``read``, ``write`` or ``load``. Too many quarantine it."""

    cartridge_id: int
    kind: str
    reason: str


class QuarantineCartridge(Command, frozen=True, kw_only=True):
    cartridge_id: int
    reason: str


class TapeOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One cartridge of a request."""

    library_id: int
    volume_tag: str
    is_long_erase: bool = False
    slot_id: int = 0


class QueueTapeTasks(Command, frozen=True, kw_only=True):
    """An operator wants ``Format``, ``Erase``, ``Check LTFS``, ``Export`` or ``Move``. All or nothing. Reply ids: the tape tasks."""

    task_type: str
    orders: list[TapeOrder]


class QueueDriveCleaning(Command, frozen=True, kw_only=True):
    drive_id: int
    reason: str = "ordered by an operator"


class QueueTapeWork(Command, frozen=True, kw_only=True):
    """A task needs a cartridge: ``Read`` one that is named, or ``Write`` into a pool. Repeats for the same task and cartridge return the first."""

    task_type: str
    task_id: int
    library_id: int
    cartridge_id: int = 0
    position: int = 0


class AdvanceTapeTask(Command, frozen=True, kw_only=True):
    """A report of the library's actor. When the tape task of a waiting task fails, that task is Suspended in the same batch."""

    tape_task_id: int
    status: str
    reason: str = ""
    drive_id: int = 0
    cartridge_id: int = 0


class RecoverTapeTasks(Command, frozen=True, kw_only=True):
    """At start of the daemon: nothing is mounted for anybody. Reads and writes end with their attempt; an operator's orders begin again."""
