"""What each command of the API touches: records it acts on, records it would put in place, records it names. Pure.

Of a command that is not listed nothing is known: who is limited to a part of the records may not send it (``rbcore.access``). A name in a request may be
anything yet; what cannot be read as a name is left to ``decide``, which refuses it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from rbcore import commands, commands_servers, commands_tape, schedule_commands
from rbcore.access import Acts, Puts, Target, Uses
from rbcore.decide.fields import client_named
from rbcore.decide.queue import BACKUP_TASK_FIELDS
from rbcore.entities import ENTITIES, Client, MediaServer, Pool, TapeCartridge
from rbcore.resource import Field, Integer, Reference
from rbcore.resources import by_name
from rbcore.state import State
from rbcore.vocabulary import REMOVAL_WORDS


def targets_of(state: State, command: commands.Command) -> list[Target] | None:
    """None: nothing is known of this command."""
    of = TARGETS.get(type(command))
    return None if of is None else list(of(state, command))


def _named(state: State, field: Reference, name: Any) -> tuple[str, int]:
    """(kind, id) of what a reference names; id 0: nothing."""
    if not isinstance(name, str):
        return field.to, 0
    if field.to == Client.KIND:
        try:
            return field.to, client_named(state, name).id
        except ValueError:
            return field.to, 0
    found = state.by_key(ENTITIES[field.to], name)
    if found is None and field.or_to:
        other = state.by_key(ENTITIES[field.or_to], name)
        if other is not None:
            return field.or_to, other.id
    return field.to, 0 if found is None else found.id


def _given(state: State, fields: Sequence[Field], given: Mapping[str, Any]) -> tuple[list[Target], dict[str, Any]]:
    """What the given fields name, and their values by attribute as far as they refer to something."""
    uses: list[Target] = []
    values: dict[str, Any] = {}
    for field in fields:
        if field.name not in given or given[field.name] is None:
            continue
        value = given[field.name]
        if isinstance(field, Reference):
            kind, number = _named(state, field, value)
            uses.append(Uses(kind, number, field.name))
            values[field.source] = number if kind == field.to else -number
        elif isinstance(field, Integer) and field.refers_to and type(value) is int:
            uses.append(Uses(field.refers_to, value, field.name))
            values[field.source] = value
    return uses, values


def created(state: State, resource_name: str, given: Mapping[str, Any]) -> list[Target]:
    """Of a request that makes a record of the resource from these fields."""
    resource = by_name[resource_name]
    fields = [resource.field(name) for name in resource.create]
    uses, values = _given(state, fields, given)
    defaults = {one.source: one.default for one in fields if one.default is not None}
    return [*uses, Puts(resource_name, {**defaults, **values})]


def changed(state: State, resource_name: str, id: int, given: Mapping[str, Any]) -> list[Target]:
    """Of a request that changes these fields of a record: it is judged as it is and as it would be."""
    resource = by_name[resource_name]
    acts = Acts(resource_name, (id,))
    before = state.tables[resource.kind].get(id)
    if before is None:
        return [acts]
    uses, values = _given(state, [resource.field(name) for name in resource.change], given)
    return [acts, *uses, Puts(resource_name, {**msgspec.structs.asdict(before), **values})]


def _queue_backup(state: State, command: commands.QueueBackup) -> list[Target]:
    uses, values = _given(state, BACKUP_TASK_FIELDS, command.task)
    return [*uses, Puts("task_queue", values)]


def _queue_restore(state: State, command: commands.QueueRestore) -> Iterator[Target]:
    yield Acts("repository", (command.backup_id,))
    if name := command.restore_task.get("target_client"):
        field = Reference(name="target_client", to=Client.KIND, by="client")
        yield Uses(*_named(state, field, name), field.name)


def _pool(state: State, name: Any, field: str) -> Uses:
    return Uses(*_named(state, Reference(name=field, to=Pool.KIND, by="pool_name"), name), field)


def _queue_copy(state: State, command: commands.QueueCopy) -> list[Target]:
    return [Acts("repository", (command.backup_id,)), _pool(state, command.pool_name, "pool")]


def _task(state: State, command: Any) -> list[Target]:
    return [Acts("task_queue", (command.task_id,), "task_id")]


def _remove_tasks(state: State, command: commands.RemoveTasks) -> list[Target]:
    """By a status word: those that the edge named, or all there are."""
    ids = command.ids
    if command.status_word and command.within is not None:
        ids = command.within
    elif command.status_word:
        ids = sorted(state.indexes.tasks_by_status[REMOVAL_WORDS[command.status_word]])
    return [Acts("task_queue", tuple(ids), "ids")]


def _tape_orders(state: State, command: commands_tape.QueueTapeTasks) -> Iterator[Target]:
    """A cartridge belongs to the library it is named with, whatever pool it is registered for; both must be within reach."""
    for one in command.orders:
        yield Acts("tape_libraries", (one.library_id,), "library_id")
        cartridge = state.by_key(TapeCartridge, one.volume_tag)
        if cartridge is not None:
            yield Acts("tape_cartridges", (cartridge.id,), "volume_tag")
        if one.slot_id:
            yield Acts("library_slots", (one.slot_id,), "slot_id")


def _add_library(state: State, command: commands_tape.AddTapeLibrary) -> list[Target]:
    server = Reference(name="media_server", to=MediaServer.KIND, by="hostname")
    kind, number = _named(state, server, command.media_server)
    pool = _pool(state, command.pool, "pool")
    return [Uses(kind, number, server.name), pool, Puts("tape_libraries", {"media_server": number, "pool": pool.id})]


def _add_block_device(state: State, command: commands_servers.AddBlockDevice) -> list[Target]:
    pool = _pool(state, command.fields.get("pool"), "pool")
    return [pool, Puts("storage_block_devices", {"pool": pool.id})]


TARGETS: dict[type[commands.Command], Callable[[State, Any], Iterable[Target]]] = {
    commands_servers.AddBlockDevice: _add_block_device,
    commands.CreateRecord: lambda state, command: created(state, command.resource, command.fields),
    commands.ChangeRecord: lambda state, command: changed(state, command.resource, command.id, command.changes),
    commands.DeleteRecords: lambda state, command: [Acts(command.resource, tuple(command.ids), "ids")],
    commands.QueueBackup: _queue_backup,
    commands.QueueRestore: _queue_restore,
    commands.QueueVerification: lambda state, command: [Acts("repository", (command.backup_id,))],
    commands.QueueCopy: _queue_copy,
    commands.ChangeStoreUntil: lambda state, command: [Acts("repository", (command.backup_id,))],
    commands.DeleteBackups: lambda state, command: [Acts("repository", tuple(command.ids), "ids")],
    commands.PauseTask: _task,
    commands.ContinueTask: _task,
    commands.KillTask: _task,
    commands.RestartTasks: lambda state, command: [Acts("task_queue", tuple(command.ids), "tasks_ids")],
    commands.RemoveTasks: _remove_tasks,
    commands_tape.AddTapeLibrary: _add_library,
    commands_tape.AddTapeDrives: lambda state, command: [
        Acts("tape_libraries", (command.library_id,), "tape_library_id")
    ],
    commands_tape.QueueTapeTasks: _tape_orders,
    commands_tape.QueueDriveCleaning: lambda state, command: [Acts("library_tape_drives", (command.drive_id,))],
    schedule_commands.ChangeStatuses: lambda state, command: [Acts(command.resource, tuple(command.statuses), "ids")],
    schedule_commands.ExecuteRule: lambda state, command: [Acts("global_schedule", (command.rule_id,))],
    schedule_commands.AnswerRuleRequests: lambda state, command: [Acts(command.resource, tuple(command.ids), "ids")],
    schedule_commands.CheckPlan: lambda state, command: [Acts("disaster_recovery_plan", (command.plan_id,))],
    commands.SetCredential: lambda state, command: [],
}
"""By command. ``SetCredential`` is sent for the caller's own password alone."""
