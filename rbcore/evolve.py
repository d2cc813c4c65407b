"""Evolve: fold one event into the state. Total: every event that ``decide`` can make has exactly one fold here.

Each fold is pure on entities (a new entity out of the old one and the event); only ``apply`` and the ``_put`` and ``_drop``
below touch the container, and they say how to take it back. The fold of a task's status is the most frequent of all and is
written for speed: a daemon starts as fast as this module replays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace as changed

from rbcore import evolve_servers, evolve_tape
from rbcore.entities import (
    ENTITIES,
    Backup,
    Client,
    Entity,
    FormerClient,
    LibrarySlot,
    LoginFailures,
    PendingRemoval,
    TapeCartridge,
    Task,
    UnauthorisedClient,
    User,
)
from rbcore.events import (
    AccessDeniedNoted,
    BackupBytesRemoved,
    BackupDeleted,
    BackupRecorded,
    BackupStoreUntilChanged,
    BackupVerified,
    ClientAppeared,
    ClientAuthorised,
    ClientConnected,
    ClientDisconnected,
    ClientRefused,
    ClientReported,
    ClientRevoked,
    Event,
    LoggedOut,
    LoginFailed,
    LoginSucceeded,
    RecordChanged,
    RecordCreated,
    RecordDeleted,
    TaskAssigned,
    TaskNoted,
    TaskQueued,
    TaskRemoved,
    TaskStatusChanged,
)
from rbcore.indexes import ASSIGNMENTS
from rbcore.roles import roles_of
from rbcore.state import State, Undo
from rbcore.task import GIVEN_OUT
from rbcore.vocabulary import COPY_TASKS, RUNNING_STATUSES, TERMINAL_STATUSES, TaskStatus

LOGIN_FAILURES_MAX = 4096
"""Pairs of user name and address whose failed logins are remembered; beyond it the oldest is forgotten."""

_RUNNING = frozenset(RUNNING_STATUSES)
E = TypeVar("E", bound=Entity)


def apply(state: State, stream: str, version: int, time_ns: int, position: int, event: Event) -> list[Undo]:
    """Fold ``event``, which stands at ``position`` and is version ``version`` of ``stream``, into ``state``.

    Returns what it replaced, for ``State.take_back_all``; every entity that changed is named there once or more. An event out
    of order is a bug of the caller and fails an assertion before anything changed.
    """
    assert position == state.position + 1, (position, state.position)
    assert version == state.versions.get(stream, 0) + 1, (stream, version)
    kind, _, number = stream.partition("/")
    undos = _FOLDS[type(event)](state, kind, int(number), time_ns, event)
    state.versions[stream] = version
    state.position = position
    return undos


Fold = Callable[[State, str, int, int, Any], list[Undo]]
"""``fold(state, kind, id, time_ns, event)``; kind and id are those of the stream."""


def _get(state: State, kind: type[E], id: int) -> E:
    """What an event is about exists: ``decide`` saw it in the same state."""
    found: E = state.tables[kind.KIND][id]
    return found


# --- records of declared resources ----------------------------------------------------------------------------------


def _record_created(state: State, kind: str, id: int, time_ns: int, event: RecordCreated) -> list[Undo]:
    entity = ENTITIES[kind]
    values: dict[str, Any] = {**event.fields, "id": id}
    if "created_ns" in entity.__struct_fields__:
        values["created_ns"] = time_ns
    undos = [state.replace(kind, id, msgspec.convert(values, entity))]
    if kind in ASSIGNMENTS:
        undos += _roles_change(state, state.tables[kind][id].user)
    return [*undos, *evolve_tape.cartridge_registered(state, id)] if kind == TapeCartridge.KIND else undos


def _record_changed(state: State, kind: str, id: int, time_ns: int, event: RecordChanged) -> list[Undo]:
    entity = ENTITIES[kind]
    before = msgspec.structs.asdict(state.tables[kind][id])
    return [state.replace(kind, id, msgspec.convert({**before, **event.changes}, entity))]


def _record_deleted(state: State, kind: str, id: int, time_ns: int, event: RecordDeleted) -> list[Undo]:
    before = state.tables[kind][id]
    undos = [state.replace(kind, id, None)]
    if isinstance(before, TapeCartridge):
        undos += evolve_tape.cartridge_forgotten(state, before)
    elif isinstance(before, LibrarySlot):
        undos += evolve_tape.slot_gone(state, before)
    elif kind in ASSIGNMENTS:
        undos += _roles_change(state, before.user)
    return undos


def _roles_change(state: State, user_id: int) -> list[Undo]:
    """A user's roles follow from what gives them, so that his own record shows them, now and in the past."""
    user = _get(state, User, user_id)
    roles = roles_of(state, user)
    return [] if roles == user.roles else [state.replace(User.KIND, user_id, changed(user, roles=roles))]


# --- clients ---------------------------------------------------------------------------------------------------------


def _client_appeared(state: State, kind: str, id: int, time_ns: int, event: ClientAppeared) -> list[Undo]:
    known = state.find(UnauthorisedClient, id)
    client = UnauthorisedClient(
        id=id,
        hwid=event.hwid,
        hostname=event.hostname,
        public_key=event.public_key,
        address=event.address,
        os_type=event.os_type,
        os_version=event.os_version,
        agent_version=event.agent_version,
        resource_types=tuple(event.resource_types),
        first_seen_ns=known.first_seen_ns if known else time_ns,
        last_seen_ns=time_ns,
    )
    return [state.replace(kind, id, client)]


def _client_authorised(state: State, kind: str, id: int, time_ns: int, event: ClientAuthorised) -> list[Undo]:
    client = Client(
        id=id,
        hwid=event.hwid,
        hostname=event.hostname,
        public_key=event.public_key,
        address=event.address,
        os_type=event.os_type,
        os_version=event.os_version,
        agent_version=event.agent_version,
        resource_types=tuple(event.resource_types),
    )
    undos = [state.replace(UnauthorisedClient.KIND, event.unauthorised_id, None)]
    if state.find(FormerClient, id) is not None:
        undos.append(state.replace(FormerClient.KIND, id, None))
    return [*undos, state.replace(kind, id, client)]


def _client_revoked(state: State, kind: str, id: int, time_ns: int, event: ClientRevoked) -> list[Undo]:
    client = _get(state, Client, id)
    unauthorised = UnauthorisedClient(
        id=event.unauthorised_id,
        hwid=client.hwid,
        hostname=client.hostname,
        public_key=client.public_key,
        address=client.address,
        os_type=client.os_type,
        os_version=client.os_version,
        agent_version=client.agent_version,
        resource_types=client.resource_types,
        first_seen_ns=time_ns,
        last_seen_ns=client.last_online_ns or time_ns,
    )
    former = FormerClient(id=id, hwid=client.hwid, hostname=client.hostname)
    return [
        state.replace(kind, id, None),
        state.replace(FormerClient.KIND, id, former),
        state.replace(UnauthorisedClient.KIND, event.unauthorised_id, unauthorised),
    ]


def _client_reported(state: State, kind: str, id: int, time_ns: int, event: ClientReported) -> list[Undo]:
    client = changed(
        _get(state, Client, id),
        hostname=event.hostname,
        address=event.address,
        os_type=event.os_type,
        os_version=event.os_version,
        agent_version=event.agent_version,
        resource_types=tuple(event.resource_types),
    )
    return [state.replace(kind, id, client)]


def _client_connected(state: State, kind: str, id: int, time_ns: int, event: ClientConnected) -> list[Undo]:
    return [state.replace(kind, id, changed(_get(state, Client, id), online=True, last_online_ns=time_ns))]


def _client_disconnected(state: State, kind: str, id: int, time_ns: int, event: ClientDisconnected) -> list[Undo]:
    return [state.replace(kind, id, changed(_get(state, Client, id), online=False, last_online_ns=time_ns))]


# --- tasks -----------------------------------------------------------------------------------------------------------


def _task_queued(state: State, kind: str, id: int, time_ns: int, event: TaskQueued) -> list[Undo]:
    task = Task(
        id=id,
        task_type=event.task_type,
        status=TaskStatus.NEW,
        resource_type=event.resource_type,
        resource=event.resource,
        backup_type=event.backup_type,
        requested_backup_type=event.backup_type,
        client_id=event.client_id,
        pool_id=event.pool_id,
        requested_pool_id=event.pool_id,
        crypto=event.crypto,
        priority=event.priority,
        storage_duration=event.storage_duration,
        archiving=event.archiving,
        backup_id=event.backup_id,
        parameters=event.parameters,
        target_pool_id=event.parameters.get("copy_task", {}).get("pool_id", 0),
        restarted_from=event.restarted_from,
        rule_id=event.rule_id,
        strategy_id=event.strategy_id,
        strategy_rule_id=event.strategy_rule_id,
        created_ns=time_ns,
    )
    return [state.replace(kind, id, task)]


def _task_assigned(state: State, kind: str, id: int, time_ns: int, event: TaskAssigned) -> list[Undo]:
    before = _get(state, Task, id)
    task = changed(
        before,
        status=TaskStatus.ASSIGNED,
        status_reason=event.reason,
        media_server_id=event.media_server_id,
        pool_id=event.pool_id,
        local_catalog_id=event.local_catalog_id,
        backup_type=event.backup_type,
        parent_backup_id=event.parent_backup_id,
        archive=event.archive,
        durable_blocks=before.durable_blocks if before.archive == event.archive else 0,
    )
    return [state.replace_task(before, task)]


def _task_status_changed(state: State, kind: str, id: int, time_ns: int, event: TaskStatusChanged) -> list[Undo]:
    task: Task = state.tables["task"][id]
    return [state.replace_task(task, with_status(task, time_ns, event))]


def with_status(task: Task, time_ns: int, event: TaskStatusChanged) -> Task:
    """The task after the change. Pure.

    Attempts: one that ends in Suspended counts, unless more blocks are durable than were ever reported before.
    """
    status = event.status
    if status in _RUNNING and task.started_ns and not event.durable_blocks and not task.resumes_as:
        return changed(task, status=status, status_reason=event.reason)  # the usual step, kept cheap
    values: dict[str, Any] = {"status": status, "status_reason": event.reason, "retry_at_ns": event.retry_at_ns}
    if event.durable_blocks > task.durable_blocks:
        values["durable_blocks"] = event.durable_blocks
        values["attempts"] = 0
    elif status == TaskStatus.SUSPENDED and event.previous in GIVEN_OUT:
        values["attempts"] = task.attempts + 1
    if status == TaskStatus.PAUSED:
        values["resumes_as"] = event.previous
        values["retry_at_ns"] = task.retry_at_ns  # a suspended task that is paused keeps its appointment
    elif event.previous == TaskStatus.PAUSED:
        values["resumes_as"] = ""
        if status == TaskStatus.SUSPENDED:
            values["retry_at_ns"] = task.retry_at_ns
    if status in TERMINAL_STATUSES:
        values["ended_ns"] = time_ns
    elif status in _RUNNING and not task.started_ns:
        values["started_ns"] = time_ns
    return changed(task, **values)


def _task_removed(state: State, kind: str, id: int, time_ns: int, event: TaskRemoved) -> list[Undo]:
    return [state.replace(kind, id, None)]


# --- repository ------------------------------------------------------------------------------------------------------


def _backup_recorded(state: State, kind: str, id: int, time_ns: int, event: BackupRecorded) -> list[Undo]:
    task = _get(state, Task, event.task_id)
    # A copy is of the rule that its original is of.
    origin: Task | Backup = (state.find(Backup, task.backup_id) if task.task_type in COPY_TASKS else None) or task
    backup = Backup(
        id=id,
        archive=event.archive,
        ref_id=event.ref_id,
        client_id=event.client_id,
        resource_type=event.resource_type,
        resource=event.resource,
        backup_type=event.backup_type,
        pool_id=event.pool_id,
        local_catalog_id=event.local_catalog_id,
        media_server_id=event.media_server_id,
        task_id=event.task_id,
        created_ns=time_ns,
        started_ns=event.started_ns,
        archive_size=event.archive_size,
        data_size=event.data_size,
        files=event.files,
        problems=event.problems,
        blocks=event.blocks,
        root=event.root,
        signature=event.signature,
        signature_valid=event.signature_valid,
        crypto=event.crypto,
        compression=event.compression,
        key_id=event.key_id,
        store_until_ns=event.store_until_ns,
        storage_duration=event.storage_duration,
        rule_id=origin.rule_id,
        strategy_id=origin.strategy_id,
        strategy_rule_id=origin.strategy_rule_id,
    )
    return [state.replace(kind, id, backup), state.replace(Task.KIND, task.id, changed(task, backup_id=id))]


def _backup_verified(state: State, kind: str, id: int, time_ns: int, event: BackupVerified) -> list[Undo]:
    backup = changed(
        _get(state, Backup, id),
        verification_status=event.status,
        verified_ns=time_ns,
        findings=tuple(event.findings),
    )
    return [state.replace(kind, id, backup)]


def _store_until_changed(state: State, kind: str, id: int, time_ns: int, event: BackupStoreUntilChanged) -> list[Undo]:
    return [state.replace(kind, id, changed(_get(state, Backup, id), store_until_ns=event.store_until_ns))]


def _backup_deleted(state: State, kind: str, id: int, time_ns: int, event: BackupDeleted) -> list[Undo]:
    backup = _get(state, Backup, id)
    removal = PendingRemoval(
        id=id, archive=backup.archive, local_catalog_id=backup.local_catalog_id, task_id=event.task_id
    )
    undos = [state.replace(kind, id, None), state.replace(PendingRemoval.KIND, id, removal)]
    return [*undos, *evolve_tape.expire_cartridges_of(state, backup)]


def _bytes_removed(state: State, kind: str, id: int, time_ns: int, event: BackupBytesRemoved) -> list[Undo]:
    return [state.replace(PendingRemoval.KIND, id, None)]


# --- access ----------------------------------------------------------------------------------------------------------


def _login_succeeded(state: State, kind: str, id: int, time_ns: int, event: LoginSucceeded) -> list[Undo]:
    user = _get(state, User, id)
    failures = state.by_key(LoginFailures, (user.username, event.address))
    return [] if failures is None else [state.replace(LoginFailures.KIND, failures.id, None)]


def _login_failed(state: State, kind: str, id: int, time_ns: int, event: LoginFailed) -> list[Undo]:
    if not event.in_a_row:
        return []
    undos = []
    table = state.tables[LoginFailures.KIND]
    known = state.by_key(LoginFailures, (event.user_name, event.address))
    if known is not None:
        undos.append(state.replace(LoginFailures.KIND, known.id, None))
    elif len(table) >= LOGIN_FAILURES_MAX:
        undos.append(state.replace(LoginFailures.KIND, min(table), None))
    new = LoginFailures(
        id=state.next_id(LoginFailures),
        user_name=event.user_name,
        address=event.address,
        count=event.in_a_row,
        last_ns=time_ns,
    )
    undos.append(state.replace(LoginFailures.KIND, new.id, new))
    return undos


def _nothing(state: State, kind: str, id: int, time_ns: int, event: Event) -> list[Undo]:
    """The event is a fact for people and views; no decision depends on it."""
    return []


_FOLDS: dict[type[Event], Fold] = {
    RecordCreated: _record_created,
    RecordChanged: _record_changed,
    RecordDeleted: _record_deleted,
    ClientAppeared: _client_appeared,
    ClientAuthorised: _client_authorised,
    ClientRevoked: _client_revoked,
    ClientReported: _client_reported,
    ClientConnected: _client_connected,
    ClientDisconnected: _client_disconnected,
    ClientRefused: _nothing,
    TaskQueued: _task_queued,
    TaskAssigned: _task_assigned,
    TaskStatusChanged: _task_status_changed,
    TaskNoted: _nothing,
    TaskRemoved: _task_removed,
    BackupRecorded: _backup_recorded,
    BackupVerified: _backup_verified,
    BackupStoreUntilChanged: _store_until_changed,
    BackupDeleted: _backup_deleted,
    BackupBytesRemoved: _bytes_removed,
    LoginSucceeded: _login_succeeded,
    LoginFailed: _login_failed,
    LoggedOut: _nothing,
    AccessDeniedNoted: _nothing,
    **evolve_tape.FOLDS,
    **evolve_servers.FOLDS,
}
assert set(_FOLDS) == set(Event.__subclasses__()), "every event has a fold"
