"""Folds of the events of tape libraries, drives, cartridges and their tasks. See ``rbcore.evolve``, which owns the table of all folds.

Where a cartridge lies is said twice, by the cartridge and by the slot, for whoever asks from either side; only ``_put_into`` and ``_take_out``
change it, so that the two agree at every position of the log.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec.structs import replace as changed

from rbcore import events as e
from rbcore.entities import Backup, BackupPart, LibrarySlot, PendingRemoval, TapeCartridge, TapeDrive, TapeTask, Task
from rbcore.state import State, Undo
from rbcore.tape.barcode import CLEANING
from rbcore.vocabulary import ACTIVE_STATUSES, CartridgeStatus, DriveStatus, SlotType, TaskStatus

Fold = Callable[[State, str, int, int, Any], list[Undo]]


def parts_of(raw: list[dict[str, Any]]) -> tuple[BackupPart, ...]:
    return tuple(msgspec.convert(raw, list[BackupPart]))


# --- where backups stand -----------------------------------------------------------------------------------------------


def _backup_placed(state: State, kind: str, id: int, time_ns: int, event: e.BackupPlaced) -> list[Undo]:
    backup: Backup = state.tables[kind][id]
    after = changed(backup, library_id=event.library_id, parts=parts_of(event.parts))
    return [state.replace(kind, id, after), *_revive(state, after)]


def _backup_moved(state: State, kind: str, id: int, time_ns: int, event: e.BackupMoved) -> list[Undo]:
    before: Backup = state.tables[kind][id]
    after = changed(
        before,
        pool_id=event.pool_id,
        media_server_id=event.media_server_id,
        local_catalog_id=event.local_catalog_id,
        archive_size=event.archive_size,
        library_id=event.library_id,
        parts=parts_of(event.parts),
    )
    removal = PendingRemoval(
        id=id, archive=before.archive, local_catalog_id=before.local_catalog_id, task_id=event.removal_task_id
    )
    return [
        state.replace(kind, id, after),
        state.replace(PendingRemoval.KIND, id, removal),
        *_expire(state, {part.cartridge_id for part in before.parts}),
        *_revive(state, after),
    ]


def _revive(state: State, backup: Backup) -> list[Undo]:
    """A cartridge that counted as expired while an archive was still being written got its backup."""
    undos = []
    for cartridge_id in sorted({part.cartridge_id for part in backup.parts}):
        cartridge = state.find(TapeCartridge, cartridge_id)
        if cartridge is not None and cartridge.status == CartridgeStatus.EXPIRED:
            after = changed(cartridge, status=CartridgeStatus.FULL, status_reason="it was expired for a while")
            undos.append(state.replace(TapeCartridge.KIND, cartridge_id, after))
    return undos


def _expire(state: State, cartridge_ids: set[int]) -> list[Undo]:
    """Cartridges that lost their last archive may be labelled anew and used again."""
    undos = []
    for cartridge_id in sorted(cartridge_ids):
        cartridge = state.find(TapeCartridge, cartridge_id)
        if cartridge is None or state.indexes.backups_on_cartridge.get(cartridge_id):
            continue
        if cartridge.status in (CartridgeStatus.APPENDABLE, CartridgeStatus.FULL):
            reason = "no archive of the repository is left on it"
            after = changed(cartridge, status=CartridgeStatus.EXPIRED, status_reason=reason)
            undos.append(state.replace(TapeCartridge.KIND, cartridge_id, after))
    return undos


def expire_cartridges_of(state: State, backup: Backup) -> list[Undo]:
    """After ``backup`` has left the repository."""
    return _expire(state, {part.cartridge_id for part in backup.parts}) if backup.parts else []


def _task_placed(state: State, kind: str, id: int, time_ns: int, event: e.TaskPlaced) -> list[Undo]:
    task: Task = state.tables[kind][id]
    after = changed(
        task,
        library_id=event.library_id,
        target_pool_id=event.target_pool_id or task.target_pool_id,
        target_local_catalog_id=event.target_local_catalog_id,
        target_library_id=event.target_library_id,
    )
    return [state.replace(kind, id, after)]


# --- libraries, elements, moves ----------------------------------------------------------------------------------------


def _library_status_changed(
    state: State, kind: str, id: int, time_ns: int, event: e.LibraryStatusChanged
) -> list[Undo]:
    library = state.tables[kind][id]
    return [state.replace(kind, id, changed(library, status=event.status, status_reason=event.reason))]


def _slot_contents_changed(state: State, kind: str, id: int, time_ns: int, event: e.SlotContentsChanged) -> list[Undo]:
    slot: LibrarySlot = state.tables[kind][id]
    undos = []
    if slot.cartridge_id and slot.cartridge_id != event.cartridge_id:
        undos += _take_out(state, slot.cartridge_id, id)
        slot = state.tables[kind][id]
    after = changed(slot, is_full=event.is_full, volume_tag=event.volume_tag, exception=event.exception)
    undos.append(state.replace(kind, id, after))
    if event.cartridge_id and after.cartridge_id != event.cartridge_id:
        undos += _put_into(state, event.cartridge_id, id)
    return undos


def _take_out(state: State, cartridge_id: int, slot_id: int) -> list[Undo]:
    """The slot does not hold the cartridge any more; the cartridge is nowhere, until it is put somewhere."""
    undos = []
    slot = state.find(LibrarySlot, slot_id)
    if slot is not None and slot.cartridge_id == cartridge_id:
        empty = changed(slot, is_full=False, volume_tag="", cartridge_id=0)
        undos.append(state.replace(LibrarySlot.KIND, slot_id, empty))
    cartridge = state.find(TapeCartridge, cartridge_id)
    if cartridge is not None and cartridge.slot_id == slot_id:
        undos.append(state.replace(TapeCartridge.KIND, cartridge_id, changed(cartridge, slot_id=0)))
    return undos


def _put_into(state: State, cartridge_id: int, slot_id: int) -> list[Undo]:
    cartridge: TapeCartridge = state.tables[TapeCartridge.KIND][cartridge_id]
    slot: LibrarySlot = state.tables[LibrarySlot.KIND][slot_id]
    by_robot = bool(cartridge.slot_id)
    undos = _take_out(state, cartridge_id, cartridge.slot_id) if by_robot else []
    cartridge = state.tables[TapeCartridge.KIND][cartridge_id]
    if slot.cartridge_id and slot.cartridge_id != cartridge_id:
        undos += _take_out(state, slot.cartridge_id, slot_id)
        slot = state.tables[LibrarySlot.KIND][slot_id]
    is_storage = slot.type == SlotType.STORAGE
    after = changed(
        cartridge,
        slot_id=slot_id,
        library_id=slot.library_id,
        home_slot_id=slot_id if is_storage else cartridge.home_slot_id,
        exported=cartridge.exported and slot.type == SlotType.IMPORT_EXPORT,
        # Hands that had it may have moved the tab: the next mount looks.
        write_protected=cartridge.write_protected and by_robot,
    )
    filled = changed(slot, is_full=True, volume_tag=cartridge.volume_tag, cartridge_id=cartridge_id)
    return [
        *undos,
        state.replace(TapeCartridge.KIND, cartridge_id, after),
        state.replace(LibrarySlot.KIND, slot_id, filled),
    ]


def cartridge_registered(state: State, id: int) -> list[Undo]:
    """A cartridge was registered: one that cleans is for that alone, and one whose tag a changer reports already lies there."""
    cartridge: TapeCartridge = state.tables[TapeCartridge.KIND][id]
    undos = []
    if cartridge.type == CLEANING:
        undos.append(state.replace(TapeCartridge.KIND, id, changed(cartridge, status=CartridgeStatus.CLEANING)))
    for slot in state.all(LibrarySlot):
        if slot.is_full and slot.volume_tag == cartridge.volume_tag and not slot.cartridge_id:
            return [*undos, *_put_into(state, id, slot.id)]
    return undos


def cartridge_forgotten(state: State, before: TapeCartridge) -> list[Undo]:
    """A cartridge is no longer registered: what lies in its slot is unknown, and still there."""
    slot = state.find(LibrarySlot, before.slot_id)
    if slot is None or slot.cartridge_id != before.id:
        return []
    return [state.replace(LibrarySlot.KIND, slot.id, changed(slot, cartridge_id=0))]


def slot_gone(state: State, before: LibrarySlot) -> list[Undo]:
    """An element is no longer there (the library shrank, or was removed): its cartridge is in none."""
    return _take_out(state, before.cartridge_id, before.id) if before.cartridge_id else []


def _move_begun(state: State, kind: str, id: int, time_ns: int, event: e.CartridgeMoveBegun) -> list[Undo]:
    return [state.replace(kind, id, changed(state.tables[kind][id], moving_to_slot_id=event.to_slot_id))]


def _moved(state: State, kind: str, id: int, time_ns: int, event: e.CartridgeMoved) -> list[Undo]:
    before: TapeCartridge = state.tables[kind][id]
    undos = [state.replace(kind, id, changed(before, moving_to_slot_id=0))]
    return [*undos, *_put_into(state, id, event.to_slot_id)]


def _move_failed(state: State, kind: str, id: int, time_ns: int, event: e.CartridgeMoveFailed) -> list[Undo]:
    return [state.replace(kind, id, changed(state.tables[kind][id], moving_to_slot_id=0))]


def _exported(state: State, kind: str, id: int, time_ns: int, event: e.CartridgeExported) -> list[Undo]:
    return [state.replace(kind, id, changed(state.tables[kind][id], exported=True))]


def _imported(state: State, kind: str, id: int, time_ns: int, event: e.CartridgeImported) -> list[Undo]:
    return [state.replace(kind, id, changed(state.tables[kind][id], exported=False, pool=event.pool_id))]


# --- cartridges --------------------------------------------------------------------------------------------------------


def _labelling_begun(state: State, kind: str, id: int, time_ns: int, event: e.CartridgeLabellingBegun) -> list[Undo]:
    after = changed(
        state.tables[kind][id],
        intent="label",
        used_bytes=0,
        status=CartridgeStatus.SCRATCH,
        status_reason="labelling has begun",
    )
    return [state.replace(kind, id, after)]


def _labelled(state: State, kind: str, id: int, time_ns: int, event: e.CartridgeLabelled) -> list[Undo]:
    after = changed(
        state.tables[kind][id],
        intent="",
        format=event.format,
        label_id=event.label_id,
        use=event.use,
        capacity_bytes=event.capacity_bytes,
        used_bytes=0,
        labelled_ns=time_ns,
        status=CartridgeStatus.SCRATCH,
        status_reason="labelled",
    )
    return [state.replace(kind, id, after)]


def _erasing_begun(state: State, kind: str, id: int, time_ns: int, event: e.CartridgeErasingBegun) -> list[Undo]:
    after = changed(state.tables[kind][id], intent="erase", used_bytes=0)
    return [state.replace(kind, id, after)]


def _erased(state: State, kind: str, id: int, time_ns: int, event: e.CartridgeErased) -> list[Undo]:
    after = changed(
        state.tables[kind][id],
        intent="",
        format="",
        label_id="",
        use=0,
        used_bytes=0,
        status=CartridgeStatus.SCRATCH,
        status_reason="erased",
    )
    return [state.replace(kind, id, after)]


def _identified(state: State, kind: str, id: int, time_ns: int, event: e.CartridgeIdentified) -> list[Undo]:
    cartridge: TapeCartridge = state.tables[kind][id]
    known = event.contents in ("native", "ltfs")
    after = changed(
        cartridge,
        format=event.contents if known else "",
        label_id=event.label_id,
        use=event.use,
        write_protected=event.write_protected,
    )
    return [state.replace(kind, id, after)]


def _cartridge_status_changed(
    state: State, kind: str, id: int, time_ns: int, event: e.CartridgeStatusChanged
) -> list[Undo]:
    after = changed(state.tables[kind][id], status=event.status, status_reason=event.reason, intent="")
    return [state.replace(kind, id, after)]


def _error_counted(state: State, kind: str, id: int, time_ns: int, event: e.CartridgeErrorCounted) -> list[Undo]:
    cartridge: TapeCartridge = state.tables[kind][id]
    name = f"{event.kind}_errors"
    return [state.replace(kind, id, changed(cartridge, **{name: getattr(cartridge, name) + 1}))]


def _written(state: State, kind: str, id: int, time_ns: int, event: e.CartridgeWritten) -> list[Undo]:
    cartridge: TapeCartridge = state.tables[kind][id]
    still = [one for one in cartridge.written_by if (task := state.find(Task, one)) and task.status in ACTIVE_STATUSES]
    written_by = tuple(dict.fromkeys([*still, event.task_id] if event.task_id else still))
    after = changed(cartridge, used_bytes=event.used_bytes, last_written_ns=time_ns, written_by=written_by)
    if cartridge.status != CartridgeStatus.QUARANTINED:
        status = CartridgeStatus.FULL if event.full else CartridgeStatus.APPENDABLE
        reason = "early warning was met" if event.full else ""
        if cartridge.status == CartridgeStatus.FULL:
            reason = cartridge.status_reason
        after = changed(after, status=status, status_reason=reason)
    return [state.replace(kind, id, after)]


# --- drives ------------------------------------------------------------------------------------------------------------


def _mount_begun(state: State, kind: str, id: int, time_ns: int, event: e.DriveMountBegun) -> list[Undo]:
    after = changed(
        state.tables[kind][id],
        cartridge_id=event.cartridge_id,
        mounting=True,
        mount_reason=event.reason,
        mount_task_id=event.tape_task_id,
        mounted_ns=0,
        status=DriveStatus.BUSY,
        status_reason=event.reason,
    )
    return [state.replace(kind, id, after)]


def _mounted(state: State, kind: str, id: int, time_ns: int, event: e.DriveMounted) -> list[Undo]:
    drive: TapeDrive = state.tables[kind][id]
    after = changed(drive, mounting=False, mounted_ns=time_ns, mounts=drive.mounts + 1, failures=0)
    undos = [state.replace(kind, id, after)]
    cartridge = state.find(TapeCartridge, event.cartridge_id)
    if cartridge is not None:
        counted = changed(cartridge, load_count=cartridge.load_count + 1, load_errors=0, last_mounted_ns=time_ns)
        undos.append(state.replace(TapeCartridge.KIND, cartridge.id, counted))
    return undos


def _unmounted(drive: TapeDrive) -> TapeDrive:
    status = DriveStatus.FREE if drive.status in (DriveStatus.BUSY, DriveStatus.CLEANING) else drive.status
    return changed(drive, mounting=False, cartridge_id=0, mount_reason="", mount_task_id=0, mounted_ns=0, status=status)


def _mount_failed(state: State, kind: str, id: int, time_ns: int, event: e.DriveMountFailed) -> list[Undo]:
    return [state.replace(kind, id, changed(_unmounted(state.tables[kind][id]), status_reason=event.reason))]


def _dismount_begun(state: State, kind: str, id: int, time_ns: int, event: e.DriveDismountBegun) -> list[Undo]:
    return [state.replace(kind, id, changed(state.tables[kind][id], mounting=True, status_reason=event.reason))]


def _dismounted(state: State, kind: str, id: int, time_ns: int, event: e.DriveDismounted) -> list[Undo]:
    return [state.replace(kind, id, changed(_unmounted(state.tables[kind][id]), status_reason=event.reason))]


def _drive_status_changed(state: State, kind: str, id: int, time_ns: int, event: e.DriveStatusChanged) -> list[Undo]:
    drive: TapeDrive = state.tables[kind][id]
    failures = drive.failures + 1 if event.status in (DriveStatus.OFFLINE, DriveStatus.ERROR) else drive.failures
    if event.status == DriveStatus.FREE:
        failures = 0 if drive.status == DriveStatus.ERROR else drive.failures
    after = changed(drive, status=event.status, status_reason=event.reason, failures=failures)
    return [state.replace(kind, id, after)]


def _facts_found(state: State, kind: str, id: int, time_ns: int, event: e.DriveFactsFound) -> list[Undo]:
    after = changed(
        state.tables[kind][id],
        vendor=event.vendor,
        product=event.product,
        revision=event.revision,
        serial=event.serial,
        partitions_max=event.partitions_max,
        lacks=tuple(event.lacks),
    )
    return [state.replace(kind, id, after)]


def _cleaning_asked(state: State, kind: str, id: int, time_ns: int, event: e.DriveCleaningAsked) -> list[Undo]:
    return [state.replace(kind, id, changed(state.tables[kind][id], cleaning_required=True))]


def _cleaned(state: State, kind: str, id: int, time_ns: int, event: e.DriveCleaned) -> list[Undo]:
    after = changed(state.tables[kind][id], cleaning_required=False, last_cleaned_ns=time_ns)
    return [state.replace(kind, id, after)]


# --- tape tasks --------------------------------------------------------------------------------------------------------


def _tape_task_queued(state: State, kind: str, id: int, time_ns: int, event: e.TapeTaskQueued) -> list[Undo]:
    task = TapeTask(
        id=id,
        task_type=event.task_type,
        status=TaskStatus.NEW,
        library_id=event.library_id,
        cartridge_id=event.cartridge_id,
        drive_id=event.drive_id,
        slot_id=event.slot_id,
        pool_id=event.pool_id,
        parent_task_id=event.parent_task_id,
        backup_id=event.backup_id,
        position=event.position,
        is_long_erase=event.is_long_erase,
        priority=event.priority,
        created_ns=time_ns,
    )
    return [state.replace(kind, id, task)]


def _tape_task_status_changed(
    state: State, kind: str, id: int, time_ns: int, event: e.TapeTaskStatusChanged
) -> list[Undo]:
    task: TapeTask = state.tables[kind][id]
    ended = event.status in (TaskStatus.DONE, TaskStatus.ERROR, TaskStatus.KILLED)
    after = changed(
        task,
        status=event.status,
        status_reason=event.reason,
        drive_id=event.drive_id or task.drive_id,
        cartridge_id=event.cartridge_id or task.cartridge_id,
        started_ns=task.started_ns or (time_ns if event.status == TaskStatus.EXECUTION else 0),
        ended_ns=time_ns if ended else 0,
    )
    return [state.replace(kind, id, after)]


def _tape_task_removed(state: State, kind: str, id: int, time_ns: int, event: e.TapeTaskRemoved) -> list[Undo]:
    return [state.replace(kind, id, None)]


FOLDS: dict[type[e.Event], Fold] = {
    e.BackupPlaced: _backup_placed,
    e.BackupMoved: _backup_moved,
    e.TaskPlaced: _task_placed,
    e.LibraryStatusChanged: _library_status_changed,
    e.SlotContentsChanged: _slot_contents_changed,
    e.CartridgeMoveBegun: _move_begun,
    e.CartridgeMoved: _moved,
    e.CartridgeMoveFailed: _move_failed,
    e.CartridgeExported: _exported,
    e.CartridgeImported: _imported,
    e.CartridgeLabellingBegun: _labelling_begun,
    e.CartridgeLabelled: _labelled,
    e.CartridgeErasingBegun: _erasing_begun,
    e.CartridgeErased: _erased,
    e.CartridgeIdentified: _identified,
    e.CartridgeStatusChanged: _cartridge_status_changed,
    e.CartridgeErrorCounted: _error_counted,
    e.CartridgeWritten: _written,
    e.DriveMountBegun: _mount_begun,
    e.DriveMounted: _mounted,
    e.DriveMountFailed: _mount_failed,
    e.DriveDismountBegun: _dismount_begun,
    e.DriveDismounted: _dismounted,
    e.DriveStatusChanged: _drive_status_changed,
    e.DriveFactsFound: _facts_found,
    e.DriveCleaningAsked: _cleaning_asked,
    e.DriveCleaned: _cleaned,
    e.TapeTaskQueued: _tape_task_queued,
    e.TapeTaskStatusChanged: _tape_task_status_changed,
    e.TapeTaskRemoved: _tape_task_removed,
}
