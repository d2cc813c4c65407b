"""The repository: what finished work leaves behind, and what goes from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from rbcore.chain import dependants, taken_along
from rbcore.commands import (
    ChangeStoreUntil,
    Command,
    Context,
    DeleteBackups,
    RecordBackup,
    RecordBytesRemoved,
    RecordVerification,
)
from rbcore.decide.decision import Decision, Draft, bounded, get, get_all
from rbcore.decide.fields import Unacceptable, invalid, text
from rbcore.decide.queue import queue_deletion
from rbcore.decide.tasks import change_status
from rbcore.entities import Backup, PendingRemoval, Pool, Task
from rbcore.errors import InvalidRequest, NotAllowedNow, Refused
from rbcore.events import (
    BackupBytesRemoved,
    BackupDeleted,
    BackupRecorded,
    BackupStoreUntilChanged,
    BackupVerified,
    TaskNoted,
)
from rbcore.interval import later, parse_interval, parse_moment
from rbcore.state import State
from rbcore.task import step
from rbcore.vocabulary import (
    BACKUP_TASKS,
    VERIFICATION_STATUSES,
    TaskStatus,
    TaskType,
    VerificationStatus,
    configured,
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
    if command.problem_lines:
        draft.add(Task, task.id, TaskNoted("client", "warning", bounded(command.problem_lines)))
    if command.signature and not command.signature_valid:
        line = "The signature of the archive does not hold against the client's key."
        draft.add(Task, task.id, TaskNoted("server", "error", [line]))
    problems = f", {command.problems} with problems" if command.problems else ""
    reason = f"backup {backup_id}: {command.files} files{problems}, {command.archive_size} bytes stored"
    change_status(draft, task, TaskStatus.DONE, reason)
    return draft.decision(ids=[backup_id], data={"backup_id": backup_id})


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
        store_until_ns = _future(command.store_until, backup, context)
    except ValueError as wrong:
        raise invalid(TITLE, {"store_until": [f"store_until: {wrong}"]}) from wrong
    draft = Draft(state)
    if store_until_ns != backup.store_until_ns:
        draft.add(Backup, backup.id, BackupStoreUntilChanged(store_until_ns))
    return draft.decision(ids=[backup.id])


def _future(given: str, backup: Backup, context: Context) -> int:
    store_until_ns = parse_moment(text(given, 64))
    if store_until_ns <= context.now_ns:
        raise Unacceptable("it lies in the past")
    if store_until_ns < backup.created_ns + _mandatory_storage_ns():
        raise Unacceptable("it is earlier than mandatory_storage_time allows")
    return store_until_ns


def _mandatory_storage_ns() -> int:
    return int(configured("mandatory_storage_time")) * 86_400 * 10**9


def delete(state: State, command: DeleteBackups, context: Context) -> Decision:
    """Named backups and, by ``repository_remove_chain``, what depends on them; one Delete task each. All or nothing."""
    named = get_all(state, Backup, command.ids, "backup")
    _refuse_early(named, context)
    if configured("repository_remove_chain") != "yes":
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
    return draft.decision(ids=sorted(because_of), data={"task_ids": task_ids})


def _refuse_early(named: list[Backup], context: Context) -> None:
    early = [one for one in named if context.now_ns < one.created_ns + _mandatory_storage_ns()]
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
                errors.setdefault(str(used), []).append(
                    f"Backup {used} cannot be deleted: task {task.id} ({task.task_type}, {task.status}) needs it."
                )
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
    ChangeStoreUntil: change_store_until,
    DeleteBackups: delete,
    RecordBytesRemoved: record_bytes_removed,
}
