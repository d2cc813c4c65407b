"""What puts tasks into the queue: urgent backups, restores, verifications, restarts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from rbcore import destination
from rbcore.commands import Command, Context, QueueBackup, QueueCopy, QueueRestore, QueueVerification, RestartTasks
from rbcore.configuration import refuse_in_service_mode
from rbcore.decide.decision import Decision, Draft, get, get_all
from rbcore.decide.fields import accept_all, client_named, invalid, json_object, text
from rbcore.entities import Backup, Client, ClientGroup, DynamicPoolGroup, LocalCatalog, PendingRemoval, Pool, Task
from rbcore.errors import InvalidRequest, Refused
from rbcore.events import BackupRecorded, TaskQueued, TaskStatusChanged
from rbcore.protectable import is_nothing, module_problem, path_problem, resource_problem
from rbcore.quota import why_no_more
from rbcore.resource import Boolean, Choice, Integer, Interval, Reference, Text
from rbcore.state import State
from rbcore.task import require
from rbcore.vocabulary import (
    BACKUP_TASKS,
    BACKUP_TYPES,
    CLIENT_TASKS,
    COPY_TASKS,
    CRYPTO,
    POOL_TYPES_WITH_DATA_PLANE,
    PRIORITY_DEFAULT,
    PRIORITY_MAX,
    RESOURCE_TYPES,
    BackupType,
    TaskStatus,
    TaskType,
)

TITLE: Final = "Task Queue"
GRANULAR_FILES_MAX: Final = 10_000

BACKUP_TASK_FIELDS: Final = (
    Choice(name="resource_type", required=True, values=RESOURCE_TYPES),
    Text(name="resource", required=True),
    Reference(name="client", attribute="client_id", required=True, to=Client.KIND, by="client"),
    Choice(name="backup_type", required=True, values=BACKUP_TYPES),
    Reference(
        name="pool",
        attribute="pool_id",
        required=True,
        to=Pool.KIND,
        by="pool_name",
        or_to=DynamicPoolGroup.KIND,
        or_by="name",
    ),
    Choice(name="crypto", required=True, values=CRYPTO),
    Integer(name="priority", required=True, maximum=PRIORITY_MAX, default=PRIORITY_DEFAULT),
    Interval(name="storage_duration", required=True),
    Boolean(name="archiving", required=True),
)
"""The nine keys of POST task_queue, all required (manual)."""

RESTORE_TASK_FIELDS: Final = (
    Text(name="target_client", default=""),
    Text(name="destination_path", default=""),
    Boolean(name="data_deployment", default=False),
)
"""The body of POST repository/{id}/restoring, besides ``granular_restore_files``."""


def queue_backup(state: State, command: QueueBackup, context: Context) -> Decision:
    refuse_in_service_mode(state)
    values = accept_all(state, BACKUP_TASK_FIELDS, command.task, subject=TITLE, creating=True)
    check_backup(state, values)
    draft = Draft(state)
    queued = TaskQueued(
        task_type=TaskType.BACKUP,
        backup_id=0,
        parameters=_extensions(command.module_extensions, command.common_modules_extensions),
        restarted_from=0,
        **values,
    )
    return added(draft, [add_task(draft, queued)])


def check_backup(state: State, values: Mapping[str, Any]) -> None:
    """Raise ``InvalidRequest`` when no such backup can be queued. ``values`` as of ``BACKUP_TASK_FIELDS``, resolved."""
    errors: dict[str, list[str]] = {}
    client = get(state, Client, values["client_id"], "authorised client")
    if problem := module_problem(client, values["resource_type"]):
        errors["resource_type"] = [problem]
    if problem := resource_problem(values["resource_type"], values["resource"]):
        errors["resource"] = [f"resource: {problem}"]
    if problem := destination.why_not_writable(state, values["pool_id"]):
        errors["pool"] = [problem]
    if is_nothing(values["storage_duration"]):
        errors["storage_duration"] = ["storage_duration: it must be longer than nothing."]
    if problem := why_no_more(state, client):
        errors["client"] = [f"client: {problem}"]
    if errors:
        raise invalid(TITLE, errors)


def queue_restore(state: State, command: QueueRestore, context: Context) -> Decision:
    refuse_in_service_mode(state)
    backup = get(state, Backup, command.backup_id, "backup")
    given = dict(command.restore_task)
    wanted = _granular_files(given.pop("granular_restore_files", []))
    values = accept_all(state, RESTORE_TASK_FIELDS, given, subject=TITLE, creating=True)
    target = _restore_target(state, backup, values)
    restore_task = {
        "target_client": f"{target.hostname} ({target.hwid})",
        "destination_path": values["destination_path"],
        "data_deployment": values["data_deployment"],
        "granular_restore_files": wanted,
    }
    parameters = _extensions(command.module_extensions, command.common_modules_extensions)
    draft = Draft(state)
    queued = _about_backup(TaskType.RESTORE, backup, target.id, {**parameters, "restore_task": restore_task})
    return added(draft, [add_task(draft, queued)])


def _granular_files(given: Any) -> list[str]:
    """Names to restore; empty texts count as absent, and nothing means everything (reference 3.9)."""
    if not isinstance(given, list) or len(given) > GRANULAR_FILES_MAX:
        sentence = f"granular_restore_files: it is a list of at most {GRANULAR_FILES_MAX} names."
        raise invalid(TITLE, {"granular_restore_files": [sentence]})
    try:
        return [name for one in given if (name := text(one))]
    except ValueError as wrong:
        raise invalid(TITLE, {"granular_restore_files": [f"granular_restore_files: a name {wrong}"]}) from wrong


def _restore_target(state: State, backup: Backup, values: Mapping[str, Any]) -> Client:
    """The client that restores: the owner, or a member of the owner's shared group (reference 3.9)."""
    errors: dict[str, list[str]] = {}
    target: Client | None = None
    try:
        target = client_named(state, values["target_client"]) if values["target_client"] else None
    except ValueError as wrong:
        errors["target_client"] = [f"target_client: {wrong}"]
    owner = state.find(Client, backup.client_id)
    if target is None and not values["target_client"]:
        target = owner
        if owner is None:
            errors["target_client"] = ["target_client: the owner of the backup is no longer authorised; name a client."]
    path = values["destination_path"]
    if (path or not values["data_deployment"]) and (problem := path_problem(path)):
        errors["destination_path"] = [f"destination_path: {problem}"]
    if errors or target is None:
        raise invalid(TITLE, errors)
    _refuse_target(state, backup, owner, target)
    return target


def _refuse_target(state: State, backup: Backup, owner: Client | None, target: Client) -> None:
    if target.id != backup.client_id:
        group = state.find(ClientGroup, target.group_id)
        if owner is None or owner.group_id != target.group_id or group is None or not group.shared:
            raise Refused(
                f"Backup {backup.id} belongs to another client; {target.hostname} may restore it only as a member of "
                "the same shared client group."
            )
    if not target.centralized_restore:
        raise Refused(f"Client {target.hostname} does not allow restores from the server (centralized_restore).")
    if backup.resource_type not in target.resource_types:
        raise Refused(f"Client {target.hostname} has no module for {backup.resource_type}.")


def queue_verification(state: State, command: QueueVerification, context: Context) -> Decision:
    refuse_in_service_mode(state)
    backup = get(state, Backup, command.backup_id, "backup")
    draft = Draft(state)
    return added(draft, [add_task(draft, _about_backup(TaskType.VERIFY, backup, backup.client_id, {}))])


def verification_of(recorded: BackupRecorded, backup_id: int) -> TaskQueued:
    """Of a backup that the same batch records."""
    return TaskQueued(
        task_type=TaskType.VERIFY,
        resource_type=recorded.resource_type,
        resource=recorded.resource,
        backup_type=recorded.backup_type,
        client_id=recorded.client_id,
        pool_id=recorded.pool_id,
        crypto=recorded.crypto,
        priority=PRIORITY_DEFAULT,
        storage_duration=recorded.storage_duration,
        archiving=False,
        backup_id=backup_id,
        parameters={},
        restarted_from=0,
    )


# --- copies ------------------------------------------------------------------------------------------------------------


def queue_copy(state: State, command: QueueCopy, context: Context) -> Decision:
    """Copy or Move of one backup into another pool, whatever the types of the two."""
    refuse_in_service_mode(state)
    backup = get(state, Backup, command.backup_id, "backup")
    pool = state.by_key(Pool, command.pool_name)
    if pool is None:
        sentence = f"pool: there is no pool '{command.pool_name[:255]}'."
        if state.by_key(DynamicPoolGroup, command.pool_name) is not None:
            sentence = f"pool: '{command.pool_name}' is a dynamic pool group; a copy goes to one pool, so name that."
        raise invalid(TITLE, {"pool": [sentence]})
    task_type = TaskType.MOVE if command.move else TaskType.COPY
    _refuse_copy(state, task_type, backup, pool)
    draft = Draft(state)
    parameters = {"copy_task": {"pool_id": pool.id, "pool": pool.pool_name}}
    return added(draft, [add_task(draft, _about_backup(task_type, backup, backup.client_id, parameters))])


def _refuse_copy(state: State, task_type: str, backup: Backup, pool: Pool, *, instead_of: int = 0) -> None:
    """Raise ``Refused`` unless the backup can go into the pool. ``instead_of``: a task that ends when the new one is queued.

    An archive keeps its name in every pool. So it is in a pool once, one task at a time writes it anywhere, and where it is being removed it
    is not written before that has ended: or the removal would take the new bytes.
    """
    verb = "moved" if task_type == TaskType.MOVE else "copied"
    prefix = f"Backup {backup.id} cannot be {verb} to pool '{pool.pool_name}'"
    if backup.backup_type != BackupType.FULL:
        raise Refused(f"Only a full backup can be {verb}, and backup {backup.id} is {backup.backup_type}.")
    if pool.id == backup.pool_id:
        raise Refused(f"{prefix}: it is there already. Name another pool.")
    if pool.pool_type not in POOL_TYPES_WITH_DATA_PLANE:
        raise Refused(
            f"{prefix}: that is of the type {pool.pool_type}, to which this release cannot write; name a pool of the type "
            f"{', '.join(sorted(POOL_TYPES_WITH_DATA_PLANE))}."
        )
    # Asked for by the archive's key, so it costs the same however many backups there are.
    same_id = state.indexes.by_key[Backup.KIND].get((backup.archive, pool.id))
    if same_id is not None:
        raise Refused(f"{prefix}: backup {same_id} is the same archive in that pool.")
    for task in state.active_tasks():
        if task.task_type not in COPY_TASKS:
            continue
        used = state.find(Backup, task.backup_id)
        if task.id != instead_of and used is not None and used.archive == backup.archive:
            raise Refused(
                f"{prefix}: task {task.id} ({task.task_type}, {task.status}) is copying that archive; wait for its end."
            )
    removal = state.find(PendingRemoval, backup.id)
    if task_type == TaskType.MOVE and removal is not None:
        raise Refused(
            f"{prefix}: it was moved before, and its bytes in the pool it came from are not removed yet; wait for task "
            f"{removal.task_id}, or restart it."
        )
    for catalog_id in sorted(state.indexes.catalogs_of_pool.get(pool.id, ())):
        if (backup.archive, catalog_id) in state.indexes.by_key[PendingRemoval.KIND]:
            catalog = get(state, LocalCatalog, catalog_id, "catalog")
            raise Refused(
                f"{prefix}: the same archive is being removed from its catalog {catalog.path}; wait for that."
            )


def _about_backup(task_type: str, backup: Backup, client_id: int, parameters: dict[str, Any]) -> TaskQueued:
    """A task about a backup shows the backup's own facts."""
    return TaskQueued(
        task_type=task_type,
        resource_type=backup.resource_type,
        resource=backup.resource,
        backup_type=backup.backup_type,
        client_id=client_id,
        pool_id=backup.pool_id,
        crypto=backup.crypto,
        priority=PRIORITY_DEFAULT,
        storage_duration=backup.storage_duration,
        archiving=False,
        backup_id=backup.id,
        parameters=parameters,
        restarted_from=0,
    )


def queue_deletion(draft: Draft, backup: Backup) -> int:
    """Add the Delete task that removes a deleted backup's bytes; its id."""
    return add_task(draft, _about_backup(TaskType.DELETE, backup, backup.client_id, {}))


def restart(state: State, command: RestartTasks, context: Context) -> Decision:
    """A new task each, which remembers the old one. A Suspended one ends as Killed, so that the work is not done twice."""
    refuse_in_service_mode(state)
    tasks = get_all(state, Task, command.ids, "task")
    for task in tasks:
        require("restarted", task)
        _refuse_restart(state, task)
    _refuse_same_archive(state, tasks)
    draft = Draft(state)
    ids = []
    for task in tasks:
        new_id = add_task(draft, _again(state, task))
        ids.append(new_id)
        if task.status == TaskStatus.SUSPENDED:
            ended = TaskStatusChanged(task.status, TaskStatus.KILLED, f"restarted as task {new_id}")
            draft.add(Task, task.id, ended)
    return added(draft, ids)


_ABOUT_BACKUP: Final = frozenset({TaskType.RESTORE, TaskType.VERIFY, *COPY_TASKS})


def _refuse_restart(state: State, task: Task) -> None:
    backup = state.find(Backup, task.backup_id)
    if task.task_type in _ABOUT_BACKUP and backup is None:
        raise Refused(f"Task {task.id} cannot be restarted: backup {task.backup_id} is no longer in the repository.")
    if task.task_type == TaskType.DELETE and state.find(PendingRemoval, task.backup_id) is None:
        raise Refused(f"Task {task.id} cannot be restarted: no bytes of backup {task.backup_id} are left.")
    client = state.find(Client, task.client_id)
    if task.task_type in CLIENT_TASKS and client is None:
        raise Refused(f"Task {task.id} cannot be restarted: its client is no longer authorised.")
    if task.task_type in BACKUP_TASKS and client is not None and (no_more := why_no_more(state, client)):
        raise Refused(f"Task {task.id} cannot be restarted: {no_more}")
    if task.task_type in COPY_TASKS and backup is not None:
        pool = state.find(Pool, task.target_pool_id)
        if pool is None:
            raise Refused(f"Task {task.id} cannot be restarted: the pool it writes to is no longer there.")
        _refuse_copy(state, task.task_type, backup, pool, instead_of=task.id)
    elif backup is None and not destination.is_there(state, task.requested_pool_id):
        raise Refused(f"Task {task.id} cannot be restarted: its pool is no longer there.")


def _refuse_same_archive(state: State, tasks: list[Task]) -> None:
    """One archive is copied by one task at a time; of those restarted together none is active yet."""
    copied: dict[str, int] = {}
    for task in tasks:
        backup = state.find(Backup, task.backup_id) if task.task_type in COPY_TASKS else None
        if backup is not None and copied.setdefault(backup.archive, task.id) != task.id:
            raise Refused(
                f"Task {task.id} cannot be restarted together with task {copied[backup.archive]}: both copy the same archive."
            )


def _again(state: State, task: Task) -> TaskQueued:
    backup = state.find(Backup, task.backup_id) if task.task_type in _ABOUT_BACKUP else None
    is_about_backup = task.task_type in _ABOUT_BACKUP or task.task_type == TaskType.DELETE
    return TaskQueued(
        task_type=task.task_type,
        resource_type=task.resource_type,
        resource=task.resource,
        backup_type=task.requested_backup_type,
        client_id=task.client_id,
        pool_id=backup.pool_id if backup is not None else task.requested_pool_id,
        crypto=task.crypto,
        priority=task.priority,
        storage_duration=task.storage_duration,
        archiving=task.archiving,
        backup_id=task.backup_id if is_about_backup else 0,
        parameters=task.parameters,
        restarted_from=task.id,
        rule_id=task.rule_id,
        strategy_id=task.strategy_id,
        strategy_rule_id=task.strategy_rule_id,
    )


def _extensions(module: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return {
            "module_extensions": json_object(module),
            "common_modules_extensions": json_object(common),
        }
    except ValueError as wrong:
        raise InvalidRequest(f"The parameters of a module are not acceptable: one of them {wrong}.") from wrong


def add_task(draft: Draft, queued: TaskQueued) -> int:
    task_id = draft.take_id(Task)
    draft.add(Task, task_id, queued)
    return task_id


def added(draft: Draft, ids: list[int]) -> Decision:
    """The message ends with the number of the task, as documented; of several, with the number of each."""
    numbers = ",".join(map(str, ids))
    message = f"Resource with name '{TITLE}' was created successfully! TASK WAS ADDED TO QUEUE:{numbers}"
    return draft.decision(ids=ids, message=message, data={"task_id": ids[0]} if len(ids) == 1 else {"task_ids": ids})


DECIDERS: dict[type[Command], Callable[[State, Any, Context], Decision]] = {
    QueueBackup: queue_backup,
    QueueRestore: queue_restore,
    QueueVerification: queue_verification,
    QueueCopy: queue_copy,
    RestartTasks: restart,
}
