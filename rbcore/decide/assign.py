"""Assignment: a New task gets its media server and its place (a catalog, a tape library), a backup also its parent and the name of its archive.

What was chosen, why, and why not the others stands in the event, so that ``why`` is a query. Nothing fits: the task is
Suspended with all reasons, and tried again.

A backup names a pool or a dynamic pool group. A pool that cannot take it hands it on along its substitutions, a group chooses among its members
(``rbcore.destination``, ``rbcore.decide.pool_choice``). A Copy or Move goes to the pool that was named, or waits.

Tape: a library is judged by the state alone, and free space is not looked at: which cartridge is written is decided when a drive turns to it. An
attempt on tape begins a new archive, because the one before cannot be gone on with. What is read from cartridges needs all of them within
reach of a robot. Such a task is placed in the library of the cartridge that it reads first; the others may be elsewhere, and each is asked for where
it is when it is needed (``rbcore.dispatch``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from rbcore import media
from rbcore.chain import Parent, chain_of, choose_parent, problem_of
from rbcore.commands import AssignTask, CatalogFacts, Command, Context
from rbcore.configuration import configured
from rbcore.decide.decision import Decision, Draft, bounded, get
from rbcore.decide.pool_target import Facts, Target, is_given_out, target_in_group, target_or_substitute
from rbcore.destination import group_named
from rbcore.entities import (
    Backup,
    Client,
    LocalCatalog,
    MediaServer,
    PendingRemoval,
    Pool,
    TapeCartridge,
    Task,
)
from rbcore.errors import NotAllowedNow
from rbcore.events import TaskAssigned, TaskPlaced, TaskStatusChanged
from rbcore.indexes import canonical_resource
from rbcore.load import ServerLoad
from rbcore.state import State
from rbcore.vocabulary import (
    BACKUP_TASKS,
    CLIENT_TASKS,
    COPY_TASKS,
    POOL_TYPES_WITH_DATA_PLANE,
    TAPE_POOL_TYPES,
    BackupType,
    CartridgeStatus,
    LibraryStatus,
    TaskStatus,
    TaskType,
)


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
    archive_bytes: int = 0,
    spread: bool = False,
) -> Placement:
    """The first catalog, ascending by id, that is online and has more than ``reserve_bytes`` free (reference 3.10, "sequentially"); with
    ``spread`` ("uniformly") the one of those that has most.

    ``preferred_id``: where an earlier attempt left durable blocks; it goes first. ``archive_bytes``: size of the archive, where it is known; the
    preferred catalog has some of it already. Pure.
    """
    rejected: list[str] = []

    def rank(one: LocalCatalog) -> tuple[bool, int, int]:
        fact = facts.get(one.id)
        return one.id != preferred_id, -fact.free_bytes if spread and fact is not None else 0, one.id

    for catalog in sorted(catalogs, key=rank):
        needed_bytes = archive_bytes if catalog.id != preferred_id and reserve_bytes >= 0 else 0
        why_not = _why_not(facts.get(catalog.id), reserve_bytes, needed_bytes)
        if not why_not:
            if catalog.id == preferred_id:
                reason = f"catalog {catalog.path} has the blocks of the attempt before"
            elif spread:
                reason = f"catalog {catalog.path} has most room"
            else:
                reason = f"catalog {catalog.path} is the first with room"
            return Placement(catalog=catalog, reason=reason, rejected=rejected)
        rejected.append(f"Catalog {catalog.path}: {why_not}.")
    reason = "no catalog of the pool can take the archive" if catalogs else "the pool has no catalog"
    return Placement(catalog=None, reason=reason, rejected=rejected)


def _why_not(fact: CatalogFacts | None, reserve_bytes: int, archive_bytes: int) -> str:
    if fact is None:
        return "nobody could look at it"
    if not fact.online:
        return fact.problem or "it is offline"
    if fact.free_bytes <= reserve_bytes + archive_bytes:
        archive = f" and {archive_bytes} for the archive" if archive_bytes else ""
        return f"{fact.free_bytes} bytes are free, more than {reserve_bytes} must be (pool_storage_capacity_reserve){archive}"
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
        return _assign_backup(state, task, facts, command.loads, context)
    if task.task_type in COPY_TASKS:
        return _assign_copy(state, task, facts, context)
    return _assign_existing(state, task, facts, context)


# --- where to write ----------------------------------------------------------------------------------------------------


def _target(state: State, pool: Pool, facts: Facts, *, preferred_id: int, archive_bytes: int = 0) -> Target:
    if pool.pool_type not in POOL_TYPES_WITH_DATA_PLANE:
        return Target(reason=f"it is of the type {pool.pool_type}, to which this release cannot write yet")
    if in_service_mode := _why_in_service_mode(state, pool.id):
        return Target(reason=in_service_mode)
    server = get(state, MediaServer, pool.media_server, "media server")
    if pool.pool_type in TAPE_POOL_TYPES:
        return _choose_library(state, pool)
    placement = choose_catalog(
        [get(state, LocalCatalog, one, "catalog") for one in state.indexes.catalogs_of_pool.get(pool.id, ())],
        facts,
        reserve_bytes=-1 if pool.ignore_free_space_check else int(configured(state, "pool_storage_capacity_reserve")),
        preferred_id=preferred_id,
        archive_bytes=archive_bytes,
        spread=configured(state, "data_spred_into_pool") == "uniformly",
    )
    return Target(
        pool_id=pool.id,
        media_server_id=server.id,
        local_catalog_id=placement.catalog.id if placement.catalog is not None else 0,
        reason=placement.reason,
        rejected=placement.rejected,
    )


def _choose_library(state: State, pool: Pool) -> Target:
    """The first library that is online and has a drive that can be used."""
    libraries = media.libraries_for(state, pool)
    rejected: list[str] = []
    for library in libraries:
        if library.status != LibraryStatus.ONLINE:
            because = f" ({library.status_reason})" if library.status_reason else ""
            rejected.append(
                f"Library {library.id}: it is {library.status}{because}; synchronise it when that is mended."
            )
        elif not media.usable_drives(state, library.id):
            rejected.append(
                f"Library {library.id}: none of its drives can be used; look at them and synchronise the library."
            )
        else:
            return Target(
                pool_id=pool.id,
                media_server_id=library.media_server,
                library_id=library.id,
                reason=f"library {library.id} is online and has a drive",
                rejected=rejected,
            )
    if not libraries:
        reason = f"no library holds pool '{pool.pool_name}': add one, or import cartridges of the pool"
    else:
        reason = f"no library of pool '{pool.pool_name}' can be used now"
    return Target(reason=reason, rejected=rejected)


def _why_in_service_mode(state: State, pool_id: int) -> str:
    """The media server of the pool takes no new tasks (reference 2.5): not to write there, nor to read, nor to remove."""
    pool = state.find(Pool, pool_id)
    server = state.find(MediaServer, pool.media_server) if pool is not None else None
    if server is None or server.local_service_mode != "yes":
        return ""
    return f"media server {server.hostname} is in service mode and takes no new tasks"


def _nowhere(state: State, task: Task, target: Target, context: Context) -> Decision:
    reason = " ".join([f"{target.reason}.", *target.rejected]) if target.rejected else target.reason
    return _suspend(state, task, reason, retry_at_ns=_retry_at(state, context))


# --- backups -----------------------------------------------------------------------------------------------------------


def _assign_backup(state: State, task: Task, facts: Facts, loads: Sequence[ServerLoad], context: Context) -> Decision:
    unreadable = {one.local_catalog_id: one.problem or "it is offline" for one in facts.values() if not one.online}

    def target_in(pool: Pool) -> Target:
        return _target(state, pool, facts, preferred_id=task.local_catalog_id)

    def parent_in(pool: Pool) -> Parent:
        return choose_parent(
            state,
            backup_type=task.requested_backup_type,
            group=(task.client_id, task.resource_type, canonical_resource(task.resource)),
            pool=pool,
            crypto=task.crypto,
            unreadable_catalogs=unreadable,
        )

    group = group_named(state, task.requested_pool_id)
    if group is not None:
        target = target_in_group(state, task, group, facts, loads, target_in, parent_in)
    else:
        target = target_or_substitute(state, task, target_in)
    if not target.is_found:
        return _nowhere(state, task, target, context)
    pool = get(state, Pool, target.pool_id, "pool")
    parent = _parent_of_attempt(state, task, target, unreadable)
    goes_on = parent is not None
    if parent is None:
        parent = parent_in(pool)
    assigned = TaskAssigned(
        media_server_id=target.media_server_id,
        pool_id=pool.id,
        local_catalog_id=target.local_catalog_id,
        backup_type=task.requested_backup_type if parent.backup is not None else BackupType.FULL,
        parent_backup_id=parent.backup.id if parent.backup is not None else 0,
        archive=task.archive if goes_on else context.random[:16].hex(),
        reason=f"{target.reason}; {parent.reason}",
        rejected=bounded([*target.rejected, *parent.rejected]),
    )
    return _assigned(state, task, assigned, TaskPlaced(target.library_id))


def _parent_of_attempt(state: State, task: Task, target: Target, unreadable: Mapping[int, str]) -> Parent | None:
    """What the attempt before referred to, when its archive can be gone on with; None: begin a new archive."""
    if not task.archive or not target.local_catalog_id or target.local_catalog_id != task.local_catalog_id:
        return None
    reason = "goes on with the archive of the attempt before"
    if not task.parent_backup_id:
        return Parent(backup=None, reason=reason)
    backup = state.find(Backup, task.parent_backup_id)
    if backup is None or problem_of(state, backup) or backup.local_catalog_id in unreadable:
        return None
    return Parent(backup=backup, reason=f"{reason}, whose parent is backup {backup.id}")


def _assigned(state: State, task: Task, assigned: TaskAssigned, placed: TaskPlaced) -> Decision:
    """``task.placed`` only says what differs from catalogs alone, or from the attempt before."""
    draft = Draft(state)
    draft.add(Task, task.id, assigned)
    before = (task.library_id, task.target_local_catalog_id, task.target_library_id)
    if (placed.library_id, placed.target_local_catalog_id, placed.target_library_id) != before:
        draft.add(Task, task.id, placed)
    return draft.decision(ids=[task.id], data={"status": TaskStatus.ASSIGNED})


# --- tasks about a backup ----------------------------------------------------------------------------------------------


def read_by(state: State, task: Task, backup: Backup) -> list[Backup]:
    """Backups whose archives a task about ``backup`` reads, in reading order."""
    return chain_of(state, backup) if task.task_type == TaskType.RESTORE else [backup]


def _assign_existing(state: State, task: Task, facts: Facts, context: Context) -> Decision:
    """A task about a backup goes where its archive lies."""
    if task.task_type == TaskType.DELETE:
        return _assign_removal(state, task, facts, context)
    backup = state.find(Backup, task.backup_id)
    if backup is None:
        return _nothing_left(state, task)
    why_not = _why_unreadable(state, task, backup, facts)
    if why_not:
        return _suspend(state, task, why_not, retry_at_ns=_retry_at(state, context))
    library_id, where = _where(state, task, backup)
    assigned = TaskAssigned(
        media_server_id=_server_of(state, backup),
        pool_id=backup.pool_id,
        local_catalog_id=backup.local_catalog_id,
        backup_type=task.backup_type,
        parent_backup_id=0,
        archive=backup.archive,
        reason=where,
        rejected=[],
    )
    return _assigned(state, task, assigned, TaskPlaced(library_id))


def _why_unreadable(state: State, task: Task, backup: Backup, facts: Facts) -> str:
    """Why the archives that the task needs cannot be read now; empty: they can."""
    chain = read_by(state, task, backup)
    for one in chain:
        if why_not := _why_in_service_mode(state, one.pool_id):
            return why_not
        if not one.parts and (why_not := _why_offline(state, one.local_catalog_id, facts)):
            return why_not
    missing = media.missing_for(state, chain)
    if missing:
        return "; ".join(missing)
    return _why_in_motion(state, task, chain)


def _why_offline(state: State, catalog_id: int, facts: Facts) -> str:
    catalog = state.find(LocalCatalog, catalog_id)
    fact = facts.get(catalog_id)
    if catalog is not None and fact is not None and fact.online:
        return ""
    path = catalog.path if catalog is not None else f"{catalog_id}"
    problem = fact.problem if fact is not None and fact.problem else "it is offline"
    return f"catalog {path} cannot be used: {problem}"


def _why_in_motion(state: State, task: Task, chain: Sequence[Backup]) -> str:
    """A Move ends what a backup has on cartridges in the moment it is recorded, so it and readers of the backup keep out of each other's way.

    In catalogs nobody waits: the old bytes stay until their readers have ended (``rbcore.dispatch``).
    """
    on_tape = {one.id for one in chain if one.parts}
    if not on_tape:
        return ""
    for other in state.active_tasks():
        if other.id == task.id or not is_given_out(other):
            continue
        if other.task_type == TaskType.MOVE and other.backup_id in on_tape:
            return f"task {other.id} is moving backup {other.backup_id} off its cartridges; this one waits for its end"
        if task.task_type == TaskType.MOVE and other.task_type not in (*BACKUP_TASKS, TaskType.DELETE):
            used = state.find(Backup, other.backup_id)
            if used is not None and any(one.id in on_tape for one in read_by(state, other, used)):
                return f"task {other.id} ({other.task_type}) reads the backup; it is moved afterwards"
    return ""


def _where(state: State, task: Task, backup: Backup) -> tuple[int, str]:
    """Library of the cartridge that is read first (0: none is), and a sentence."""
    chain = read_by(state, task, backup)
    cartridges = [state.find(TapeCartridge, one) for one in media.cartridges_of(chain)]
    found = [one for one in cartridges if one is not None]
    in_catalog = "" if backup.parts else f"the archive lies in catalog {_path(state, backup.local_catalog_id)}"
    if not found:
        return 0, in_catalog
    what = "the archive lies" if len(chain) == 1 else "archives of the chain lie"
    on_tape = f"{what} on cartridges {media.named(one.volume_tag for one in found)}"
    return found[0].library_id, "; ".join(one for one in (in_catalog, on_tape) if one)


def _path(state: State, catalog_id: int) -> str:
    return get(state, LocalCatalog, catalog_id, "catalog").path


def _server_of(state: State, backup: Backup) -> int:
    pool = state.find(Pool, backup.pool_id)
    return pool.media_server if pool is not None else backup.media_server_id


def _assign_copy(state: State, task: Task, facts: Facts, context: Context) -> Decision:
    """A Copy or Move needs both: where the archive is read, and where it is written."""
    backup = state.find(Backup, task.backup_id)
    if backup is None:
        return _nothing_left(state, task)
    pool = get(state, Pool, task.target_pool_id, "pool")
    why_not = _why_unreadable(state, task, backup, facts)
    if why_not:
        return _suspend(state, task, why_not, retry_at_ns=_retry_at(state, context))
    target = _target(state, pool, facts, preferred_id=task.target_local_catalog_id, archive_bytes=backup.archive_size)
    if not target.is_found:
        return _nowhere(state, task, target, context)
    library_id, where = _where(state, task, backup)
    if target.library_id and (why_not := _why_not_from_tape_to_tape(state, backup, pool, target.library_id)):
        return _suspend(state, task, why_not, retry_at_ns=_retry_at(state, context))
    assigned = TaskAssigned(
        media_server_id=target.media_server_id,
        pool_id=backup.pool_id,
        local_catalog_id=backup.local_catalog_id,
        backup_type=task.backup_type,
        parent_backup_id=0,
        archive=backup.archive,
        reason=f"{where}; it goes to pool '{pool.pool_name}': {target.reason}",
        rejected=bounded(target.rejected),
    )
    return _assigned(
        state,
        task,
        assigned,
        TaskPlaced(library_id, pool.id, target.local_catalog_id, target.library_id),
    )


def _why_not_from_tape_to_tape(state: State, backup: Backup, pool: Pool, library_id: int) -> str:
    """One drive reads while another one writes, so the library needs both, and two cartridges."""
    cartridges = [state.find(TapeCartridge, one) for one in media.cartridges_of([backup])]
    inside = [one for one in cartridges if one is not None and one.library_id == library_id]
    if not inside:
        return ""
    drives = len(media.usable_drives(state, library_id))
    if drives < 2:
        return (
            f"copying from cartridge to cartridge within library {library_id} takes two drives, and {drives} can be used: mend or add a drive, "
            "or name a pool on disk"
        )
    for one in inside:
        if one.pool == pool.id and one.status in (CartridgeStatus.APPENDABLE, CartridgeStatus.SCRATCH):
            return (
                f"cartridge {one.volume_tag} holds the archive and belongs to pool '{pool.pool_name}' itself, so it could be read and "
                "written at once: import it into another pool first"
            )
    return ""


# --- removals ----------------------------------------------------------------------------------------------------------


def _assign_removal(state: State, task: Task, facts: Facts, context: Context) -> Decision:
    """The bytes of a deleted or moved backup. Those on cartridges have been dealt with when it went (``rbcore.decide.repository``)."""
    removal = state.find(PendingRemoval, task.backup_id)
    if removal is None:
        return _nothing_left(state, task)
    why_not = _why_offline(state, removal.local_catalog_id, facts)
    if why_not:
        return _suspend(state, task, why_not, retry_at_ns=_retry_at(state, context))
    catalog = get(state, LocalCatalog, removal.local_catalog_id, "catalog")
    pool = get(state, Pool, catalog.pool, "pool")
    if why_not := _why_in_service_mode(state, pool.id):
        return _suspend(state, task, why_not, retry_at_ns=_retry_at(state, context))
    assigned = TaskAssigned(
        media_server_id=pool.media_server,
        pool_id=pool.id,
        local_catalog_id=catalog.id,
        backup_type=task.backup_type,
        parent_backup_id=0,
        archive=removal.archive,
        reason=f"the archive lies in catalog {catalog.path}",
        rejected=[],
    )
    return _assigned(state, task, assigned, TaskPlaced(0))


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


def _retry_at(state: State, context: Context) -> int:
    return context.now_ns + int(configured(state, "suspended_task_restart_period")) * 60 * 10**9


def _suspend(state: State, task: Task, reason: str, *, retry_at_ns: int) -> Decision:
    draft = Draft(state)
    event = TaskStatusChanged(task.status, TaskStatus.SUSPENDED, bounded([reason])[0], retry_at_ns)
    draft.add(Task, task.id, event)
    return draft.decision(ids=[task.id], data={"status": TaskStatus.SUSPENDED})


DECIDERS: dict[type[Command], Callable[[State, Any, Context], Decision]] = {AssignTask: assign}
