"""Tape libraries: making one of devices that were asked, more drives, its status, its end. What lies where: ``rbcore.decide.tape_inventory``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from rbcore.commands import AddTapeDrives, AddTapeLibrary, Command, Context, DriveFacts, SetLibraryStatus
from rbcore.decide.decision import Decision, Draft, bounded, get
from rbcore.decide.fields import invalid, text
from rbcore.decide.tape_inventory import Look, compare, drives_of, look_at, slots_of
from rbcore.entities import LibrarySlot, MediaServer, MediumChanger, Pool, TapeCartridge, TapeDrive, TapeLibrary
from rbcore.errors import InvalidRequest, Refused
from rbcore.events import CartridgeMoveFailed, LibraryStatusChanged, RecordChanged, RecordDeleted
from rbcore.media import why_kept
from rbcore.state import State
from rbcore.vocabulary import LIBRARY_STATUSES, MAIN_SERVER, TAPE_POOL_TYPES, LibraryStatus, PoolType, SlotType

TITLE: Final = "Tape Libraries"
_CREATED: Final = f"Resource with name '{TITLE}' was created successfully!"
_LTFS_PARTITIONS: Final = 2


def add_library(state: State, command: AddTapeLibrary, context: Context) -> Decision:
    """Library, changer, drives and elements in one batch; registered cartridges get their place."""
    pool, server = _accepted(state, command)
    draft = Draft(state)
    library_id = draft.take_id(TapeLibrary)
    look = look_at(state, library_id, command.elements)
    _check_drives(state, library_id, command.drives, {one.address for one in look.seen if one.type == SlotType.DRIVE})
    format_now, why = _fit_format(draft, pool, [one.partitions_max for one in command.drives])
    library = TapeLibrary(id=library_id, pool=pool.id, media_server=server.id, description=command.description)
    changer = MediumChanger(
        id=draft.take_id(MediumChanger),
        library_id=library_id,
        vendor=command.changer.vendor,
        product=command.changer.product,
        revision=command.changer.revision,
        serial=command.changer.serial,
        scsi_path=command.changer.scsi_path,
        device=command.changer.device,
        transport_element=command.transport_element,
    )
    draft.add_record(library)
    draft.add_record(changer)
    _add_drives(draft, library_id, command.drives)
    compare(draft, library_id, look, "the library was added")
    data = look.data() | {"format": format_now}
    return draft.decision(ids=[library_id], message=_message(look, why), data=data)


def _message(look: Look, why: str) -> str:
    return " ".join(one for one in (_CREATED, why, look.message()) if one)


def _accepted(state: State, command: AddTapeLibrary) -> tuple[Pool, MediaServer]:
    """Raises ``InvalidRequest`` that names every fault but those of drives."""
    errors: dict[str, list[str]] = {}
    server = state.by_key(MediaServer, command.media_server)
    pool = state.by_key(Pool, command.pool)
    if server is None:
        errors["media_server"] = [f"media_server: there is no media server '{command.media_server}'"]
    elif server.type != MAIN_SERVER:
        sentence = f"media_server: the devices of {server.hostname} cannot be asked in this release"
        errors["media_server"] = [sentence]
    if pool is None:
        errors["pool"] = [f"pool: there is no pool '{command.pool}'"]
    elif pool.pool_type not in TAPE_POOL_TYPES:
        types = " or ".join(sorted(TAPE_POOL_TYPES))
        errors["pool"] = [f"pool: '{pool.pool_name}' is of the type {pool.pool_type}; name one of the type {types}"]
    elif server is not None and pool.media_server != server.id:
        errors["pool"] = [f"pool: '{pool.pool_name}' belongs to another media server than {server.hostname}"]
    try:
        text(command.description)
    except ValueError as wrong:
        errors["description"] = [f"description: {wrong}"]
    changer = command.changer
    for known in state.all(MediumChanger):
        if known.device == changer.device or (changer.serial and known.serial == changer.serial):
            sentence = f"changer {changer.device} ({changer.serial}) is the robot of library {known.library_id} already"
            errors["medium_changer_candidate_id"] = [f"medium_changer_candidate_id: {sentence}"]
    if errors or pool is None or server is None:
        raise invalid(TITLE, errors)
    return pool, server


def _fit_format(draft: Draft, pool: Pool, partitions: Sequence[int]) -> tuple[str, str]:
    """The pool's type from here on, and a sentence when that is another one.

    LTFS needs a drive that makes two partitions. A pool that was declared without a format becomes a Native one; one that was declared as
    LTFS is refused. Without any drive there is nothing to judge yet.
    """
    if pool.pool_type != PoolType.TAPE_LTFS or not partitions or max(partitions) >= _LTFS_PARTITIONS:
        return pool.pool_type, ""
    what = f"Pool '{pool.pool_name}' is of the type {pool.pool_type}, and no drive of the library can partition cartridges, which LTFS needs"
    if not pool.any_tape_format:
        raise Refused(f"{what}: name a pool of the type {PoolType.TAPE_NATIVE}.", errors={"pool": [f"{what}."]})
    if _is_used(draft.state, pool):
        raise Refused(
            f"{what}; it cannot become a {PoolType.TAPE_NATIVE} one, because archives are in it: name another pool of that type.",
            errors={"pool": [f"{what}."]},
        )
    draft.add(Pool, pool.id, RecordChanged({"pool_type": PoolType.TAPE_NATIVE}))
    return PoolType.TAPE_NATIVE, (
        f"Pool '{pool.pool_name}' is of the type {PoolType.TAPE_NATIVE} from now on: no drive of the library can partition "
        "cartridges, which LTFS needs."
    )


def _is_used(state: State, pool: Pool) -> bool:
    """Whether archives are in the pool, finished ones or not."""
    cartridges = [state.tables[TapeCartridge.KIND][one] for one in state.indexes.cartridges_of_pool.get(pool.id, ())]
    return bool(state.indexes.backups_of("pool_id", pool.id)) or any(why_kept(state, one) for one in cartridges)


# --- drives ----------------------------------------------------------------------------------------------------------------


def add_drives(state: State, command: AddTapeDrives, context: Context) -> Decision:
    library = get(state, TapeLibrary, command.library_id, "tape library")
    if not command.drives:
        raise invalid(TITLE, {"ids": ["ids: name at least one drive"]})
    addresses = {one.address for one in slots_of(state, library.id) if one.type == SlotType.DRIVE}
    _check_drives(state, library.id, command.drives, addresses)
    draft = Draft(state)
    known = [one.partitions_max for one in drives_of(state, library.id)]
    pool = get(state, Pool, library.pool, "pool")
    format_now, why = _fit_format(draft, pool, [*known, *(one.partitions_max for one in command.drives)])
    ids = _add_drives(draft, library.id, command.drives)
    return draft.decision(ids=ids, message=why, data={"format": format_now})


def _check_drives(state: State, library_id: int, drives: Sequence[DriveFacts], addresses: set[int]) -> None:
    """Each is new, is named once, and sits at a drive element of its own, or nobody knows where. Raises ``InvalidRequest`` for all."""
    faults: list[str] = []
    known = list(state.all(TapeDrive))
    taken = {one.element_address: one for one in known if one.library_id == library_id and one.element_address}
    counts = Counter(one.device for one in drives)
    places = Counter(one.element_address for one in drives if one.element_address)
    serials = Counter(one.serial for one in drives if one.serial)
    for drive in drives:
        what = f"drive {drive.device} ({drive.serial})"
        at = drive.element_address
        faults.extend(
            f"{what} is drive {other.id} of library {other.library_id} already"
            for other in known
            if other.device == drive.device or (drive.serial and other.serial == drive.serial)
        )
        if counts[drive.device] > 1 or serials[drive.serial] > 1:
            faults.append(f"{what} is named twice")
        if not at:
            continue
        if at not in addresses:
            faults.append(f"{what} sits at element {at}, which is no drive element of this changer")
        elif places[at] > 1:
            faults.append(f"{what} sits at element {at}, and so does another one")
        elif at in taken:
            faults.append(f"{what} sits at element {at}, where drive {taken[at].id} sits")
    if faults:
        lines = [f"tape_drives_candidates_ids: {one}" for one in dict.fromkeys(faults)]
        raise invalid(TITLE, {"tape_drives_candidates_ids": bounded(lines)})


def _add_drives(draft: Draft, library_id: int, drives: Sequence[DriveFacts]) -> list[int]:
    ids = []
    for facts in drives:
        drive = TapeDrive(
            id=draft.take_id(TapeDrive),
            library_id=library_id,
            vendor=facts.vendor,
            product=facts.product,
            revision=facts.revision,
            serial=facts.serial,
            scsi_path=facts.scsi_path,
            device=facts.device,
            element_address=facts.element_address,
            partitions_max=facts.partitions_max,
            lacks=tuple(facts.lacks),
        )
        draft.add_record(drive)
        ids.append(drive.id)
    return ids


# --- status and end --------------------------------------------------------------------------------------------------------


def set_status(state: State, command: SetLibraryStatus, context: Context) -> Decision:
    """Nothing new changes nothing; while it is out of use, a new reason is news."""
    library = get(state, TapeLibrary, command.library_id, "tape library")
    if command.status not in LIBRARY_STATUSES:
        raise InvalidRequest(f"'{command.status}' is not one of {', '.join(LIBRARY_STATUSES)}.")
    reason = bounded([command.reason])[0]
    draft = Draft(state)
    is_other_reason = reason != library.status_reason and command.status != LibraryStatus.ONLINE
    if command.status != library.status or is_other_reason:
        draft.add(TapeLibrary, library.id, LibraryStatusChanged(command.status, reason))
    return draft.decision(ids=[library.id], data={"status": command.status})


def end_library(draft: Draft, library: TapeLibrary) -> None:
    """Its changer, drives and elements end with it; cartridges stay known, in no element. What refuses is declared (``rbcore.resources.tape``)."""
    state = draft.state
    slots = slots_of(state, library.id)
    targets = {one.id for one in slots}
    for cartridge in state.all(TapeCartridge):
        if cartridge.moving_to_slot_id in targets:
            draft.add(TapeCartridge, cartridge.id, CartridgeMoveFailed(f"library {library.id} was removed"))
    for slot in slots:
        draft.add(LibrarySlot, slot.id, RecordDeleted())
    for drive in drives_of(state, library.id):
        draft.add(TapeDrive, drive.id, RecordDeleted())
    for changer in state.all(MediumChanger):
        if changer.library_id == library.id:
            draft.add(MediumChanger, changer.id, RecordDeleted())


DECIDERS: dict[type[Command], Callable[[State, Any, Context], Decision]] = {
    AddTapeLibrary: add_library,
    AddTapeDrives: add_drives,
    SetLibraryStatus: set_status,
}
