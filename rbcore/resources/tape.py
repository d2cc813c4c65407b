"""Tape libraries and what belongs to them (reference 2.17): libraries, changers, drives, elements, and the queue of their tasks.

They come from what the devices say (``AddTapeLibrary``, ``RecordInventory``); by hand only addresses of devices change. Cartridges, which are registered
by hand or by an import, are in ``rbcore.resources.tape_cartridges``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rbcore.entities import (
    Entity,
    LibrarySlot,
    MediaServer,
    MediumChanger,
    Pool,
    TapeCartridge,
    TapeDrive,
    TapeLibrary,
    TapeTask,
)
from rbcore.media import named
from rbcore.resource import (
    Boolean,
    Choice,
    Computed,
    Integer,
    Reference,
    Resource,
    Rule,
    Text,
    TextList,
    Timestamp,
)
from rbcore.resources.common import BY_LIBRARY, KEEPERS_OF_STORAGE, active_tape_tasks, tape_tasks_sentence, unique
from rbcore.resources.tape_cartridges import TAPE_CARTRIDGES
from rbcore.state import State
from rbcore.vocabulary import (
    DRIVE_STATUSES,
    LIBRARY_STATUSES,
    PRIORITY_MAX,
    SLOT_TYPES,
    TAPE_TASK_STATUSES,
    TAPE_TASK_TYPES,
    Role,
    SlotType,
)

_DEVICE = r"/dev/[A-Za-z0-9/_.:-]+|[a-z]+://[^\s@]+"
"""A generic device of the media server, or a logical unit of an iSCSI target; never with a password."""
_SCSI_PATH = re.compile(r"(\[\d+:\d+:\d+:\d+\])?")


# --- libraries -------------------------------------------------------------------------------------------------------


def _library_is_at_work(state: State, library: Entity) -> str | None:
    return tape_tasks_sentence(active_tape_tasks(state, library.id))


def _tasks_need_library(state: State, library: Entity) -> str | None:
    needing = [one.id for one in state.active_tasks() if library.id in (one.library_id, one.target_library_id)]
    return f"tasks that have not ended need it (ids {named(needing)})" if needing else None


def _library_has_mounted(state: State, library: Entity) -> str | None:
    drives = [state.find(TapeDrive, one) for one in sorted(state.indexes.drives_of_library.get(library.id, ()))]
    busy = [one.id for one in drives if one is not None and one.cartridge_id]
    return f"cartridges are mounted in its drives (ids {named(busy)})" if busy else None


TAPE_LIBRARIES = Resource(
    name="tape_libraries",
    kind=TapeLibrary.KIND,
    title="Tape Libraries",
    noun="tape library",
    entity=TapeLibrary,
    fields=(
        Reference(name="pool", to=Pool.KIND, by="pool_name", example="tape_pool", description="A tape pool."),
        Reference(name="media_server", to=MediaServer.KIND, by="hostname", example="rubackup-media"),
        Text(name="description", default=""),
        Choice(
            name="status",
            values=LIBRARY_STATUSES,
            description="Offline: the changer does not answer, it is asked again. Quarantined: it kept failing, synchronise the library.",
        ),
        Text(name="status_reason"),
        Timestamp(name="created", attribute="created_ns", event_time=True),
    ),
    refusals=(_library_is_at_work, _tasks_need_library, _library_has_mounted),
    deletable=True,
    manage=KEEPERS_OF_STORAGE,
    scope={Role.MAINTAINER: "media_server"},
)


# --- changers and drives ---------------------------------------------------------------------------------------------


def _idle_when_readdressed(kind: type[MediumChanger] | type[TapeDrive], *attributes: str) -> Rule:
    """How a device is reached does not change under its tasks."""

    def rule(state: State, id: int, values: Mapping[str, Any]) -> str | None:
        known = state.find(kind, id)
        if known is None:
            return None
        differing = [name for name in attributes if getattr(known, name) != values[name]]
        if not differing:
            return None
        tasks = active_tape_tasks(state, values["library_id"])
        if kind is TapeDrive:
            tasks = [one for one in tasks if one.drive_id == id]
            if values["cartridge_id"]:
                return f"{_KEYS.get(differing[0], differing[0])}: a cartridge is mounted in the drive"
        if not tasks:
            return None
        ids = named(one.id for one in tasks)
        return f"{_KEYS.get(differing[0], differing[0])}: tape tasks that have not ended use it (ids {ids})"

    return rule


def _scsi_path_has_its_form(kind: type[MediumChanger] | type[TapeDrive]) -> Rule:
    """As it is given by hand; what a device was found by may look otherwise."""

    def rule(state: State, id: int, values: Mapping[str, Any]) -> str | None:
        known = state.find(kind, id)
        if known is None or known.scsi_path == values["scsi_path"] or _SCSI_PATH.fullmatch(values["scsi_path"]):
            return None
        return "scsi_path: it has the form [host:channel:target:unit], for example [8:0:0:0], or is empty"

    return rule


_KEYS = {"element_address": "sys_transfer_element"}


def _sits_at_a_drive_element(state: State, id: int, values: Mapping[str, Any]) -> str | None:
    address, library_id = values["element_address"], values["library_id"]
    if not address:
        return None
    slot = state.by_key(LibrarySlot, (library_id, address))
    if slot is None or slot.type != SlotType.DRIVE:
        return f"sys_transfer_element: library {library_id} has no drive element {address}"
    for number in sorted(state.indexes.drives_of_library.get(library_id, ())):
        other = state.find(TapeDrive, number)
        if other is not None and other.id != id and other.element_address == address:
            return f"sys_transfer_element: drive {other.id} sits at element {address}"
    return None


def _of_a_device(*, scsi_path: str, device: str) -> tuple[Text, ...]:
    """What a device says it is, and how it is reached. The arguments are examples."""
    return (
        Text(name="vendor"),
        Text(name="model", attribute="product"),
        Text(name="revision"),
        Text(name="serial"),
        Text(
            name="scsi_path",
            max_length=64,
            example=scsi_path,
            description="Host, channel, target, logical unit; for people.",
        ),
        Text(
            name="device",
            max_length=512,
            pattern=_DEVICE,
            example=device,
            indexed=True,
            description="How it is reached: a generic SCSI device, or iscsi://host:port/target/lun.",
        ),
    )


MEDIUM_CHANGERS = Resource(
    name="medium_changers",
    kind=MediumChanger.KIND,
    title="Medium Changers",
    noun="robot",
    entity=MediumChanger,
    fields=(
        Integer(name="library_id", indexed=True, refers_to=TapeLibrary.KIND),
        *_of_a_device(scsi_path="[8:0:0:0]", device="/dev/sg2"),
        Integer(name="transport_element", description="Address of its hand; 0: the changer chooses."),
    ),
    change=("scsi_path", "device"),
    rules=(
        _scsi_path_has_its_form(MediumChanger),
        unique(MediumChanger.KIND, "device", "robot"),
        _idle_when_readdressed(MediumChanger, "device"),
    ),
    manage=KEEPERS_OF_STORAGE,
    searchable_name="device",
    scope=BY_LIBRARY,
)


def _drive_is_at_work(state: State, drive: Entity) -> str | None:
    assert isinstance(drive, TapeDrive), "a refusal of drives"
    return tape_tasks_sentence([one for one in active_tape_tasks(state, drive.library_id) if one.drive_id == drive.id])


def _drive_holds_a_cartridge(state: State, drive: Entity) -> str | None:
    assert isinstance(drive, TapeDrive), "a refusal of drives"
    if drive.cartridge_id:
        held = state.find(TapeCartridge, drive.cartridge_id)
        return f"cartridge {held.volume_tag if held else drive.cartridge_id} is mounted in it"
    slot = state.by_key(LibrarySlot, (drive.library_id, drive.element_address))
    if slot is not None and slot.is_full:
        return (
            f"cartridge {slot.volume_tag or 'without a bar code'} lies in it: synchronise the library, which empties it"
        )
    return None


LIBRARY_TAPE_DRIVES = Resource(
    name="library_tape_drives",
    kind=TapeDrive.KIND,
    title="Library Tape Drives",
    noun="tape drive",
    entity=TapeDrive,
    fields=(
        Integer(name="library_id", indexed=True, refers_to=TapeLibrary.KIND),
        *_of_a_device(scsi_path="[6:0:0:0]", device="/dev/sg1"),
        Text(name="st_device", description="The same drive as the system's tape driver calls it; not used."),
        Integer(
            name="sys_transfer_element",
            attribute="element_address",
            maximum=65535,
            example=3,
            description="Address of the drive element at which it sits; 0: not known, and then it is not used.",
        ),
        Choice(
            name="status",
            values=DRIVE_STATUSES,
            description="offline: it does not answer, it is asked again. error: quarantined, synchronise the library.",
        ),
        Text(name="status_reason"),
        Reference(
            name="volume_tag",
            attribute="cartridge_id",
            to=TapeCartridge.KIND,
            by="volume_tag",
            description="The cartridge that is mounted, or being mounted.",
        ),
        Boolean(name="mounting", description="A mount or a dismount is under way."),
        Text(name="mount_reason", description="Why this cartridge is mounted."),
        Timestamp(name="mounted", attribute="mounted_ns", event_time=True),
        Integer(name="mounts"),
        Integer(name="failures", description="In a row."),
        Boolean(name="cleaning_required"),
        Timestamp(name="last_cleaned", attribute="last_cleaned_ns", event_time=True),
        Integer(name="partitions_max", in_list=False, description="Partitions it can make; LTFS needs two."),
        TextList(name="lacks", in_list=False, description="What it cannot do and what is done without."),
        Timestamp(name="created", attribute="created_ns", event_time=True, in_list=False),
    ),
    change=("scsi_path", "device", "sys_transfer_element"),
    rules=(
        _scsi_path_has_its_form(TapeDrive),
        unique(TapeDrive.KIND, "device", "tape drive"),
        _sits_at_a_drive_element,
        _idle_when_readdressed(TapeDrive, "device", "element_address"),
    ),
    refusals=(_drive_is_at_work, _drive_holds_a_cartridge),
    deletable=True,
    manage=KEEPERS_OF_STORAGE,
    searchable_name="device",
    scope=BY_LIBRARY,
)


# --- elements --------------------------------------------------------------------------------------------------------

LIBRARY_SLOTS = Resource(
    name="library_slots",
    kind=LibrarySlot.KIND,
    title="Library Slots",
    noun="tape library slot",
    entity=LibrarySlot,
    fields=(
        Integer(name="library_id", indexed=True, refers_to=TapeLibrary.KIND),
        Integer(name="number", attribute="address", description="Address of the element."),
        Choice(name="type", values=SLOT_TYPES),
        Computed(
            name="name",
            of=lambda slot: f"{slot.type} {slot.address}",
            description="Type and address, as others show it.",
        ),
        Boolean(name="is_full"),
        Text(
            name="volume_tag",
            indexed=True,
            description="As the changer reads it; empty: nothing is in it, or no bar code that can be read.",
        ),
        Computed(
            name="cartridge_id",
            of=lambda slot: slot.cartridge_id or None,
            kind="integer",
            description="The registered cartridge; null with is_full: nobody registered it.",
        ),
        Reference(
            name="cartridge_type", attribute="cartridge_id", to=TapeCartridge.KIND, by="type", description="LTO-9 ..."
        ),
        Reference(
            name="cartridge_status",
            attribute="cartridge_id",
            to=TapeCartridge.KIND,
            by="status",
            description="Its status.",
        ),
        Reference(
            name="format",
            attribute="cartridge_id",
            to=TapeCartridge.KIND,
            by="format",
            description="Of its cartridge: native or ltfs; empty: not labelled.",
        ),
        Text(name="exception", description="What the changer says is wrong with the element."),
    ),
    manage=KEEPERS_OF_STORAGE,
    searchable_name="name",
    scope=BY_LIBRARY,
)


# --- the queue -------------------------------------------------------------------------------------------------------

TL_TASK_QUEUE = Resource(
    name="tl_task_queue",
    kind=TapeTask.KIND,
    title="Tl Task Queue",
    noun="tape library task",
    entity=TapeTask,
    fields=(
        Choice(name="task_type", values=TAPE_TASK_TYPES),
        Choice(name="status", values=TAPE_TASK_STATUSES, indexed=True),
        Text(name="status_reason", description="Why the task has its status."),
        Integer(name="library_id", indexed=True, refers_to=TapeLibrary.KIND),
        Reference(
            name="volume_tag",
            attribute="cartridge_id",
            to=TapeCartridge.KIND,
            by="volume_tag",
            description="Null: not chosen yet, or about no cartridge.",
        ),
        Reference(name="drive", attribute="drive_id", to=TapeDrive.KIND, by="device"),
        Reference(
            name="slot", attribute="slot_id", to=LibrarySlot.KIND, by="name", description="Where it is moved to."
        ),
        Reference(name="pool", attribute="pool_id", to=Pool.KIND, by="pool_name"),
        Computed(
            name="parent_task_id",
            of=lambda task: task.parent_task_id or None,
            kind="integer",
            description="The task of task_queue that reads or writes.",
        ),
        Computed(
            name="archive_id",
            of=lambda task: task.backup_id or None,
            kind="integer",
            description="The backup that is read.",
        ),
        Integer(name="priority", maximum=PRIORITY_MAX),
        Timestamp(name="created", attribute="created_ns", event_time=True, indexed=True),
        Timestamp(name="started", attribute="started_ns", event_time=True),
        Timestamp(name="ended", attribute="ended_ns", event_time=True),
        Boolean(name="is_long_erase", in_list=False),
        Integer(
            name="tape_position",
            attribute="position",
            in_list=False,
            description="Where on the cartridge a Read begins.",
        ),
    ),
    manage=KEEPERS_OF_STORAGE,
    searchable_name="id",
    scope=BY_LIBRARY,
)

TAPE: tuple[Resource, ...] = (
    TAPE_LIBRARIES,
    MEDIUM_CHANGERS,
    LIBRARY_TAPE_DRIVES,
    LIBRARY_SLOTS,
    TAPE_CARTRIDGES,
    TL_TASK_QUEUE,
)
