"""The repository: what finished work leaves behind, and what goes from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from rbcore import media
from rbcore.chain import dependants, taken_along
from rbcore.commands import (
    ChangeStoreUntil,
    Command,
    Context,
    DeleteBackups,
    RecordBackup,
    RecordBytesRemoved,
    RecordCopy,
    RecordVerification,
)
from rbcore.configuration import configured
from rbcore.decide.decision import Decision, Draft, bounded, get, get_all
from rbcore.decide.fields import Unacceptable, invalid, text
from rbcore.decide.queue import add_task, queue_deletion, verification_of
from rbcore.decide.tasks import change_status
from rbcore.entities import Backup, BackupPart, PendingRemoval, Pool, TapeCartridge, Task
from rbcore.errors import Damaged, InvalidRequest, NotAllowedNow, Refused
from rbcore.events import (
    BackupBytesRemoved,
    BackupDeleted,
    BackupMoved,
    BackupPlaced,
    BackupRecorded,
    BackupStoreUntilChanged,
    BackupVerified,
    TaskAssigned,
    TaskNoted,
    TaskStatusChanged,
)
from rbcore.interval import later, parse_interval, parse_moment
from rbcore.state import State
from rbcore.tape.session import CartridgeFormat
from rbcore.task import step
from rbcore.vocabulary import (
    BACKUP_TASKS,
    COPY_TASKS,
    VERIFICATION_STATUSES,
    TaskStatus,
    TaskType,
    VerificationStatus,
)

TITLE: Final = "Repository"
DELETED_BACKUPS_MAX: Final = 10_000
"""Backups that one deletion takes, dependants included; more are refused with a sentence."""


def record_backup(state: State, command: RecordBackup, context: Context) -> Decision:
    """The backup exists and its task is Done, in one batch. A repeat for the same archive gets the first answer."""
    task = get(state, Task, command.task_id, "task")
    draft = Draft(state)
    if task.status == TaskStatus.DONE and task.archive == command.archive:
        return draft.decision(ids=[task.backup_id], data={"backup_id": task.backup_id})
    if task.task_type not in BACKUP_TASKS or task.archive != command.archive:
        raise NotAllowedNow(f"Task {task.id} does not wait for the archive {command.archive}.")
    step(task, TaskStatus.DONE)
    pool = get(state, Pool, task.pool_id, "pool")
    backup_id = draft.take_id(Backup)
    recorded = BackupRecorded(
        archive=command.archive,
        ref_id=task.parent_backup_id,
        client_id=task.client_id,
        resource_type=task.resource_type,
        resource=task.resource,
        backup_type=task.backup_type,
        pool_id=task.pool_id,
        local_catalog_id=task.local_catalog_id,
        media_server_id=task.media_server_id,
        task_id=task.id,
        started_ns=task.started_ns,
        archive_size=command.archive_size,
        data_size=command.data_size,
        files=command.files,
        problems=command.problems,
        blocks=command.blocks,
        root=command.root,
        signature=command.signature,
        signature_valid=command.signature_valid,
        crypto=task.crypto,
        compression=pool.compression_type,
        key_id=command.key_id,
        store_until_ns=later(context.now_ns, parse_interval(task.storage_duration)),
        storage_duration=task.storage_duration,
    )
    draft.add(Backup, backup_id, recorded)
    if task.library_id:
        draft.add(Backup, backup_id, _placed(state, task.id, task.library_id, command.parts))
    if command.problem_lines:
        draft.add(Task, task.id, TaskNoted("client", "warning", bounded(command.problem_lines)))
    if command.signature and not command.signature_valid:
        line = "The signature of the archive does not hold against the client's key."
        draft.add(Task, task.id, TaskNoted("server", "error", [line]))
    problems = f", {command.problems} with problems" if command.problems else ""
    reason = f"backup {backup_id}: {command.files} files{problems}, {command.archive_size} bytes stored"
    change_status(draft, task, TaskStatus.DONE, reason)
    if configured(state, "verify_archive_after_creation") == "yes":
        add_task(draft, verification_of(recorded, backup_id))
    return draft.decision(ids=[backup_id], data={"backup_id": backup_id})


def _placed(state: State, task_id: int, library_id: int, parts: list[BackupPart]) -> BackupPlaced:
    if not parts:
        raise NotAllowedNow(f"Task {task_id} writes to tape library {library_id}, and no parts are named.")
    _require_parts(state, task_id, parts)
    return BackupPlaced(library_id, msgspec.to_builtins(parts))


def _require_parts(state: State, task_id: int, parts: list[BackupPart]) -> None:
    """Raise ``NotAllowedNow`` unless the log knows of every part that this task wrote it, and that it is still there (law 4)."""
    for cartridge_id in dict.fromkeys(part.cartridge_id for part in parts):
        cartridge = state.find(TapeCartridge, cartridge_id)
        why = _why_not_on(cartridge, task_id)
        if why:
            tag = cartridge.volume_tag if cartridge is not None else cartridge_id
            raise NotAllowedNow(
                f"The archive of task {task_id} is not recorded, for a part of it is said to be on cartridge {tag}, and {why}: "
                "restart the task."
            )


def _why_not_on(cartridge: TapeCartridge | None, task_id: int) -> str:
    if cartridge is None:
        return "that is not registered any more"
    if cartridge.intent:
        return f"nobody knows how its last {cartridge.intent} ended"
    if not cartridge.format:
        return "that has no label"
    if task_id not in cartridge.written_by:
        return "the task ended no part there"
    if cartridge.labelled_ns > cartridge.last_written_ns:
        return "that was labelled since"
    return ""


def record_copy(state: State, command: RecordCopy, context: Context) -> Decision:
    """The archive is in the other pool, and the task is Done, in one batch. A repeat gets the first answer.

    Copy: another backup, with all that is known of the first. Move: the same backup in its new place, and a removal of the bytes in the old one.
    """
    task = get(state, Task, command.task_id, "task")
    draft = Draft(state)
    if task.task_type not in COPY_TASKS:
        raise NotAllowedNow(f"Task {task.id} does not copy.")
    if task.status == TaskStatus.DONE:
        return draft.decision(ids=[task.backup_id], data={"backup_id": task.backup_id})
    step(task, TaskStatus.DONE)
    backup = get(state, Backup, task.backup_id, "backup")
    pool = get(state, Pool, task.target_pool_id, "pool")
    if command.root != backup.root:
        raise Damaged(
            f"The copy of archive {backup.archive} has the root {command.root}, the backup's is {backup.root}.",
            data={"archive": backup.archive},
        )
    if task.task_type == TaskType.MOVE:
        backup_id = _moved(draft, task, backup, pool, command)
    else:
        backup_id = _copied(draft, task, backup, pool, command)
    verb = "is now" if task.task_type == TaskType.MOVE else f"is a copy of backup {backup.id}"
    reason = f"backup {backup_id} {verb} in pool '{pool.pool_name}': {command.archive_size} bytes stored"
    change_status(draft, task, TaskStatus.DONE, reason)
    return draft.decision(ids=[backup_id], data={"backup_id": backup_id})


def _copied(draft: Draft, task: Task, backup: Backup, pool: Pool, command: RecordCopy) -> int:
    backup_id = draft.take_id(Backup)
    recorded = BackupRecorded(
        archive=backup.archive,
        ref_id=0,
        client_id=backup.client_id,
        resource_type=backup.resource_type,
        resource=backup.resource,
        backup_type=backup.backup_type,
        pool_id=pool.id,
        local_catalog_id=task.target_local_catalog_id,
        media_server_id=pool.media_server,
        task_id=task.id,
        started_ns=backup.started_ns,
        archive_size=command.archive_size,
        data_size=backup.data_size,
        files=backup.files,
        problems=backup.problems,
        blocks=backup.blocks,
        root=backup.root,
        signature=backup.signature,
        signature_valid=backup.signature_valid,
        crypto=backup.crypto,
        compression=backup.compression,
        key_id=backup.key_id,
        store_until_ns=backup.store_until_ns,
        storage_duration=backup.storage_duration,
    )
    draft.add(Backup, backup_id, recorded)
    if task.target_library_id:
        draft.add(Backup, backup_id, _placed(draft.state, task.id, task.target_library_id, command.parts))
    return backup_id


def _moved(draft: Draft, task: Task, backup: Backup, pool: Pool, command: RecordCopy) -> int:
    if bool(task.target_library_id) != bool(command.parts):
        raise NotAllowedNow(f"Task {task.id}: parts are named exactly when a tape library was written.")
    _require_parts(draft.state, task.id, command.parts)
    removal_task_id = queue_deletion(draft, backup)
    moved = BackupMoved(
        task_id=task.id,
        removal_task_id=removal_task_id,
        pool_id=pool.id,
        media_server_id=pool.media_server,
        local_catalog_id=task.target_local_catalog_id,
        archive_size=command.archive_size,
        library_id=task.target_library_id,
        parts=msgspec.to_builtins(command.parts),
    )
    draft.add(Backup, backup.id, moved)
    if backup.parts:
        _leave_on_cartridges(draft, backup, removal_task_id)
    return backup.id


def _leave_on_cartridges(draft: Draft, backup: Backup, removal_task_id: int) -> None:
    """What stands on cartridges is nobody's from here on, and nothing is mounted for that: the Delete task is Done at once and says where it is."""
    cartridges = [draft.state.find(TapeCartridge, one) for one in media.cartridges_of([backup])]
    tags = media.named(one.volume_tag for one in cartridges if one is not None)
    on = f"cartridge{'s' if len(cartridges) > 1 else ''} {tags}"
    reason = f"its bytes stay on {on} until they are labelled again"
    if any(one is not None and one.format == CartridgeFormat.LTFS for one in cartridges):
        reason += "; on LTFS cartridges its files leave the index when they are written next"
    assigned = TaskAssigned(
        media_server_id=backup.media_server_id,
        pool_id=backup.pool_id,
        local_catalog_id=0,
        backup_type=backup.backup_type,
        parent_backup_id=0,
        archive=backup.archive,
        reason=f"the archive is on {on}",
        rejected=[],
    )
    draft.add(Backup, backup.id, BackupBytesRemoved(0))
    draft.add(Task, removal_task_id, assigned)
    draft.add(Task, removal_task_id, TaskStatusChanged(TaskStatus.ASSIGNED, TaskStatus.DONE, reason))


def record_verification(state: State, command: RecordVerification, context: Context) -> Decision:
    """The task did its work and is Done, whatever it found; the backup says what that was."""
    task = get(state, Task, command.task_id, "task")
    draft = Draft(state)
    if task.status == TaskStatus.DONE:
        return draft.decision(ids=[task.backup_id])
    if task.task_type != TaskType.VERIFY:
        raise NotAllowedNow(f"Task {task.id} does not verify.")
    if command.status not in VERIFICATION_STATUSES or command.status == VerificationStatus.NOT_VERIFIED:
        raise InvalidRequest(f"'{command.status}' is not a result of a verification.")
    backup = get(state, Backup, task.backup_id, "backup")
    findings = bounded(command.findings)
    verified = BackupVerified(task.id, command.status, command.bytes_read, findings)
    draft.add(Backup, backup.id, verified)
    if findings:
        draft.add(Task, task.id, TaskNoted("server", "error", findings))
    first = f": {findings[0]}" if findings else ""
    more = f" (and {len(command.findings) - 1} more)" if len(command.findings) > 1 else ""
    reason = f"backup {backup.id} is {command.status}, {command.bytes_read} bytes read{first}{more}"
    change_status(draft, task, TaskStatus.DONE, reason)
    return draft.decision(ids=[backup.id], data={"backup_id": backup.id})


def change_store_until(state: State, command: ChangeStoreUntil, context: Context) -> Decision:
    """Longer or shorter, but not into the past (reference 3.6)."""
    backup = get(state, Backup, command.backup_id, "backup")
    try:
        store_until_ns = _future(state, command.store_until, backup, context)
    except ValueError as wrong:
        raise invalid(TITLE, {"store_until": [f"store_until: {wrong}"]}) from wrong
    draft = Draft(state)
    if store_until_ns != backup.store_until_ns:
        draft.add(Backup, backup.id, BackupStoreUntilChanged(store_until_ns))
    return draft.decision(ids=[backup.id])


def _future(state: State, given: str, backup: Backup, context: Context) -> int:
    store_until_ns = parse_moment(text(given, 64))
    if store_until_ns <= context.now_ns:
        raise Unacceptable("it lies in the past")
    if store_until_ns < backup.created_ns + _mandatory_storage_ns(state):
        raise Unacceptable("it is earlier than mandatory_storage_time allows")
    return store_until_ns


def _mandatory_storage_ns(state: State) -> int:
    return int(configured(state, "mandatory_storage_time")) * 86_400 * 10**9


def delete(state: State, command: DeleteBackups, context: Context) -> Decision:
    """Named backups and, by ``repository_remove_chain``, what depends on them; one Delete task each. All or nothing."""
    named = get_all(state, Backup, command.ids, "backup")
    _refuse_early(state, named, context)
    if configured(state, "repository_remove_chain") != "yes":
        refuse_dependants(state, named)
    because_of = taken_along(state, [backup.id for backup in named])
    if len(because_of) > DELETED_BACKUPS_MAX:
        raise Refused(f"{len(because_of)} backups would go at once; at most {DELETED_BACKUPS_MAX} may: name fewer.")
    _refuse_in_use(state, because_of)
    draft = Draft(state)
    task_ids = []
    # Youngest first: at no point of the log does a backup refer to one that is not there.
    for backup_id in sorted(because_of, reverse=True):
        backup = get(state, Backup, backup_id, "backup")
        task_id = queue_deletion(draft, backup)
        task_ids.append(task_id)
        draft.add(Backup, backup_id, BackupDeleted(task_id, because_of[backup_id]))
        if backup.parts:
            _leave_on_cartridges(draft, backup, task_id)
    return draft.decision(ids=sorted(because_of), data={"task_ids": task_ids})


def _refuse_early(state: State, named: list[Backup], context: Context) -> None:
    early = [one for one in named if context.now_ns < one.created_ns + _mandatory_storage_ns(state)]
    if early:
        errors = {str(one.id): [f"Backup {one.id} is younger than mandatory_storage_time."] for one in early}
        raise Refused(next(iter(errors.values()))[0], errors=errors)


def refuse_dependants(state: State, named: list[Backup]) -> None:
    """Raise ``Refused`` when something that is not named itself depends on a named backup."""
    ids = [one.id for one in named]
    errors: dict[str, list[str]] = {}
    for backup in named:
        left = [one for one in dependants(state, [backup.id]) if one not in ids]
        if left:
            shown = ", ".join(map(str, left[:10]))
            errors[str(backup.id)] = [f"Backup {backup.id} cannot be deleted: backups {shown} depend on it."]
    if errors:
        raise Refused(next(iter(errors.values()))[0], errors=errors)


def _refuse_in_use(state: State, going: dict[int, int]) -> None:
    """A backup that a task reads, or that a running backup refers to, stays. Ancestors are held by their dependants."""
    errors: dict[str, list[str]] = {}
    for task in state.active_tasks():
        for used in (task.backup_id, task.parent_backup_id):
            if used in going:
                why = f"task {task.id} ({task.task_type}, {task.status}) needs it"
                if task.task_type == TaskType.DELETE:  # of what a Move left behind
                    why = f"task {task.id} removes its bytes in the pool it came from first"
                errors.setdefault(str(used), []).append(f"Backup {used} cannot be deleted: {why}.")
    if errors:
        raise Refused(next(iter(errors.values()))[0], errors=errors, data={"ids": [int(one) for one in errors]})


def record_bytes_removed(state: State, command: RecordBytesRemoved, context: Context) -> Decision:
    """The bytes are gone; Delete tasks that were to remove them are Done. A repeat changes nothing."""
    draft = Draft(state)
    if state.find(PendingRemoval, command.backup_id) is not None:
        draft.add(Backup, command.backup_id, BackupBytesRemoved(command.bytes_removed))
    for task in state.active_tasks():
        if task.task_type == TaskType.DELETE and task.backup_id == command.backup_id and _can_end(task):
            change_status(draft, task, TaskStatus.DONE, f"{command.bytes_removed} bytes removed")
    return draft.decision(ids=[command.backup_id])


def _can_end(task: Task) -> bool:
    """A Delete that is not assigned yet finds out by itself that nothing is left; one that is being killed ends as Killed."""
    return task.status not in (TaskStatus.NEW, TaskStatus.SUSPENDED, TaskStatus.KILL)


DECIDERS: dict[type[Command], Callable[[State, Any, Context], Decision]] = {
    RecordBackup: record_backup,
    RecordVerification: record_verification,
    RecordCopy: record_copy,
    ChangeStoreUntil: change_store_until,
    DeleteBackups: delete,
    RecordBytesRemoved: record_bytes_removed,
}
