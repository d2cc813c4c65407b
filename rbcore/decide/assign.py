"""Assignment: a New task gets its media server and its catalog, a backup also its parent and the name of its archive.

What was chosen, why, and why not the others stands in the event, so that ``why`` is a query. Nothing fits: the task is
Suspended with all reasons, and tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from rbcore.chain import Parent, choose_parent, problem_of
from rbcore.commands import AssignTask, CatalogFacts, Command, Context
from rbcore.decide.decision import Decision, Draft, bounded, get
from rbcore.entities import Backup, Client, LocalCatalog, MediaServer, PendingRemoval, Pool, Task
from rbcore.errors import NotAllowedNow
from rbcore.events import TaskAssigned, TaskStatusChanged
from rbcore.indexes import canonical_resource
from rbcore.state import State
from rbcore.vocabulary import BACKUP_TASKS, CLIENT_TASKS, BackupType, TaskStatus, TaskType, configured


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of ``choose_catalog``."""

    catalog: LocalCatalog | None
    reason: str
    rejected: list[str]


def choose_catalog(
    catalogs: Sequence[LocalCatalog],
    facts: Mapping[int, CatalogFacts],
    *,
    reserve_bytes: int,
    preferred_id: int = 0,
) -> Placement:
    """The first catalog, ascending by id, that is online and has more than ``reserve_bytes`` free (reference 3.10, "sequentially").

    ``preferred_id``: where an earlier attempt left durable blocks; it goes first. Pure.
    """
    rejected: list[str] = []
    for catalog in sorted(catalogs, key=lambda one: (one.id != preferred_id, one.id)):
        why_not = _why_not(facts.get(catalog.id), reserve_bytes)
        if not why_not:
            if catalog.id == preferred_id:
                reason = f"catalog {catalog.path} has the blocks of the attempt before"
            else:
                reason = f"catalog {catalog.path} is the first with room"
            return Placement(catalog=catalog, reason=reason, rejected=rejected)
        rejected.append(f"Catalog {catalog.path}: {why_not}.")
    reason = "no catalog of the pool can take the archive" if catalogs else "the pool has no catalog"
    return Placement(catalog=None, reason=reason, rejected=rejected)


def _why_not(fact: CatalogFacts | None, reserve_bytes: int) -> str:
    if fact is None:
        return "nobody could look at it"
    if not fact.online:
        return fact.problem or "it is offline"
    if fact.free_bytes <= reserve_bytes:
        return f"{fact.free_bytes} bytes are free, more than {reserve_bytes} must be (pool_storage_capacity_reserve)"
    return ""


def assign(state: State, command: AssignTask, context: Context) -> Decision:
    task = get(state, Task, command.task_id, "task")
    if task.status != TaskStatus.NEW:
        raise NotAllowedNow(f"Task {task.id} is {task.status}: only a New task is assigned.")
    if task.task_type in CLIENT_TASKS and not command.client_online:
        client = state.find(Client, task.client_id)
        name = client.hostname if client is not None else f"{task.client_id}"
        return _suspend(state, task, f"client {name} is offline; the task goes on when it returns", retry_at_ns=0)
    facts = {one.local_catalog_id: one for one in command.catalogs}
    if task.task_type in BACKUP_TASKS:
        return _assign_backup(state, task, facts, context)
    return _assign_existing(state, task, facts, context)


def _assign_backup(state: State, task: Task, facts: Mapping[int, CatalogFacts], context: Context) -> Decision:
    pool = get(state, Pool, task.pool_id, "pool")
    server = get(state, MediaServer, pool.media_server, "media server")
    if server.local_service_mode == "yes":
        reason = f"media server {server.hostname} is in service mode and takes no new tasks"
        return _suspend(state, task, reason, retry_at_ns=_retry_at(context))
    placement = choose_catalog(
        [get(state, LocalCatalog, one, "catalog") for one in state.indexes.catalogs_of_pool.get(pool.id, ())],
        facts,
        reserve_bytes=-1 if pool.ignore_free_space_check else int(configured("pool_storage_capacity_reserve")),
        preferred_id=task.local_catalog_id,
    )
    if placement.catalog is None:
        reason = " ".join([f"{placement.reason}.", *placement.rejected])
        return _suspend(state, task, reason, retry_at_ns=_retry_at(context))
    unreadable = {one.local_catalog_id: one.problem or "it is offline" for one in facts.values() if not one.online}
    parent = _parent_of_attempt(state, task, placement.catalog, unreadable)
    goes_on = parent is not None
    if parent is None:
        parent = choose_parent(
            state,
            backup_type=task.requested_backup_type,
            group=(task.client_id, task.resource_type, canonical_resource(task.resource)),
            pool=pool,
            crypto=task.crypto,
            unreadable_catalogs=unreadable,
        )
    assigned = TaskAssigned(
        media_server_id=server.id,
        pool_id=pool.id,
        local_catalog_id=placement.catalog.id,
        backup_type=task.requested_backup_type if parent.backup is not None else BackupType.FULL,
        parent_backup_id=parent.backup.id if parent.backup is not None else 0,
        archive=task.archive if goes_on else context.random[:16].hex(),
        reason=f"{placement.reason}; {parent.reason}",
        rejected=bounded([*placement.rejected, *parent.rejected]),
    )
    draft = Draft(state)
    draft.add(Task, task.id, assigned)
    return draft.decision(ids=[task.id], data={"status": TaskStatus.ASSIGNED})


def _parent_of_attempt(state: State, task: Task, catalog: LocalCatalog, unreadable: Mapping[int, str]) -> Parent | None:
    """What the attempt before referred to, when its archive can be gone on with; None: begin a new archive."""
    if not task.archive or catalog.id != task.local_catalog_id:
        return None
    reason = "goes on with the archive of the attempt before"
    if not task.parent_backup_id:
        return Parent(backup=None, reason=reason)
    backup = state.find(Backup, task.parent_backup_id)
    if backup is None or problem_of(state, backup) or backup.local_catalog_id in unreadable:
        return None
    return Parent(backup=backup, reason=f"{reason}, whose parent is backup {backup.id}")


def _assign_existing(state: State, task: Task, facts: Mapping[int, CatalogFacts], context: Context) -> Decision:
    """A task about a backup goes where its archive lies."""
    backup = state.find(Backup, task.backup_id)
    removal = state.find(PendingRemoval, task.backup_id)
    place = removal if task.task_type == TaskType.DELETE else backup
    if place is None:
        return _nothing_left(state, task)
    catalog = state.find(LocalCatalog, place.local_catalog_id)
    fact = facts.get(place.local_catalog_id)
    if catalog is None or fact is None or not fact.online:
        path = catalog.path if catalog is not None else f"{place.local_catalog_id}"
        problem = fact.problem if fact is not None and fact.problem else "it is offline"
        return _suspend(state, task, f"catalog {path} cannot be used: {problem}", retry_at_ns=_retry_at(context))
    pool = get(state, Pool, catalog.pool, "pool")
    assigned = TaskAssigned(
        media_server_id=pool.media_server,
        pool_id=pool.id,
        local_catalog_id=catalog.id,
        backup_type=task.backup_type,
        parent_backup_id=0,
        archive=place.archive,
        reason=f"the archive lies in catalog {catalog.path}",
        rejected=[],
    )
    draft = Draft(state)
    draft.add(Task, task.id, assigned)
    return draft.decision(ids=[task.id], data={"status": TaskStatus.ASSIGNED})


def _nothing_left(state: State, task: Task) -> Decision:
    """The bytes went another way (a sweep, the end of the catalog): a Delete is done, anything else cannot be."""
    draft = Draft(state)
    if task.task_type == TaskType.DELETE:
        assigned = TaskAssigned(
            media_server_id=0,
            pool_id=task.pool_id,
            local_catalog_id=0,
            backup_type=task.backup_type,
            parent_backup_id=0,
            archive="",
            reason="no bytes of the backup are left",
            rejected=[],
        )
        draft.add(Task, task.id, assigned)
        status, reason = TaskStatus.DONE, "no bytes of the backup were left"
        draft.add(Task, task.id, TaskStatusChanged(TaskStatus.ASSIGNED, status, reason))
    else:
        status, reason = TaskStatus.ERROR, f"backup {task.backup_id} is no longer in the repository"
        draft.add(Task, task.id, TaskStatusChanged(task.status, status, reason))
    return draft.decision(ids=[task.id], data={"status": status})


def _retry_at(context: Context) -> int:
    return context.now_ns + int(configured("suspended_task_restart_period")) * 60 * 10**9


def _suspend(state: State, task: Task, reason: str, *, retry_at_ns: int) -> Decision:
    draft = Draft(state)
    event = TaskStatusChanged(task.status, TaskStatus.SUSPENDED, bounded([reason])[0], retry_at_ns)
    draft.add(Task, task.id, event)
    return draft.decision(ids=[task.id], data={"status": TaskStatus.SUSPENDED})


DECIDERS: dict[type[Command], Callable[[State, Any, Context], Decision]] = {AssignTask: assign}
