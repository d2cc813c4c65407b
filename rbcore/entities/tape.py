"""Tape libraries and all that is in them."""

from __future__ import annotations

from rbcore.entities.base import Entity


class TapeLibrary(Entity, frozen=True, kw_only=True):
    """A changer with its drives and elements, for one pool (cartridges may belong to others of the same media server)."""

    KIND = "tape_library"
    pool: int
    media_server: int
    description: str = ""
    status: str = "Online"
    status_reason: str = ""
    created_ns: int = 0


class MediumChanger(Entity, frozen=True, kw_only=True):
    """The robot of a library."""

    KIND = "medium_changer"
    library_id: int
    vendor: str
    product: str
    revision: str = ""
    serial: str = ""
    scsi_path: str = ""
    device: str = ""
    """How it is reached: ``/dev/sg2``, ``iscsi://host:port/target/lun``."""
    transport_element: int = 0


class TapeDrive(Entity, frozen=True, kw_only=True):
    KIND = "tape_drive"
    library_id: int
    vendor: str
    product: str
    revision: str = ""
    serial: str = ""
    scsi_path: str = ""
    device: str = ""
    st_device: str = ""
    element_address: int = 0
    """Data transfer element of the changer at which it sits."""
    partitions_max: int = 1
    lacks: tuple[str, ...] = ()
    """What was found missing and is worked around or done without."""
    status: str = "free"
    status_reason: str = ""
    cartridge_id: int = 0
    """The cartridge that is mounted (or being mounted) in it; what lies in its element is the slot's to say."""
    mounting: bool = False
    """An intent without its outcome: between begin and end of a mount or a dismount."""
    mount_reason: str = ""
    mount_task_id: int = 0
    """The tape task it was mounted for; 0: a stream that goes on."""
    mounted_ns: int = 0
    """0 while it is only being mounted: an intent with it is a dismount's, one without it a mount's."""
    mounts: int = 0
    failures: int = 0
    """In a row."""
    cleaning_required: bool = False
    last_cleaned_ns: int = 0
    created_ns: int = 0


class LibrarySlot(Entity, frozen=True, kw_only=True):
    """An element of a library that can hold a cartridge: storage, import-export, or drive."""

    KIND = "library_slot"
    library_id: int
    address: int
    type: str
    is_full: bool = False
    volume_tag: str = ""
    """As the changer reads it; also of cartridges that nobody registered."""
    cartridge_id: int = 0
    """The registered cartridge in it; 0: none, or one that nobody registered."""
    exception: str = ""


class TapeCartridge(Entity, frozen=True, kw_only=True):
    KIND = "tape_cartridge"
    type: str
    volume_tag: str
    pool: int
    description: str = ""
    library_id: int = 0
    slot_id: int = 0
    """The element it lies in; 0: in none."""
    home_slot_id: int = 0
    """The storage element it goes back to from a drive."""
    moving_to_slot_id: int = 0
    """An intent without its outcome."""
    exported: bool = False
    status: str = "New"
    status_reason: str = ""
    intent: str = ""
    """``label`` or ``erase`` while nobody knows how that ended; what was on it does not count any more."""
    format: str = ""
    """``native``, ``ltfs``; empty: not labelled."""
    label_id: str = ""
    """Id by its own label, hex: what a mount is compared with."""
    use: int = 0
    write_protected: bool = False
    capacity_bytes: int = 0
    used_bytes: int = 0
    written_by: tuple[int, ...] = ()
    """Tasks that ended a part on it and had not ended themselves when the newest did: their archives count although no backup names
    them yet (``rbcore.media.holders``)."""
    read_errors: int = 0
    write_errors: int = 0
    load_errors: int = 0
    """In a row: a mount that succeeds begins anew."""
    load_count: int = 0
    labelled_ns: int = 0
    last_mounted_ns: int = 0
    last_written_ns: int = 0
    created_ns: int = 0


class TapeTask(Entity, frozen=True, kw_only=True):
    """A task of ``tl_task_queue``: what robot and drives do."""

    KIND = "tape_task"
    task_type: str
    status: str
    status_reason: str = ""
    library_id: int = 0
    cartridge_id: int = 0
    """0: a Write whose cartridge is not chosen yet, and what is about no cartridge."""
    drive_id: int = 0
    slot_id: int = 0
    """Where a Move or an Export goes."""
    pool_id: int = 0
    parent_task_id: int = 0
    """The task that reads or writes."""
    backup_id: int = 0
    position: int = 0
    """Where on the cartridge a Read begins."""
    is_long_erase: bool = False
    priority: int = 100
    created_ns: int = 0
    started_ns: int = 0
    ended_ns: int = 0
