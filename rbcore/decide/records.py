"""Records of declared resources: create, change and delete, all from the declaration.

What a body comes to is ``rbcore.decide.declared``. A delete is all or nothing. Kinds whose deletion means more than the end of a record have a decider of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rbcore.commands import ChangeRecord, Command, Context, CreateRecord, DeleteBackups, DeleteRecords, RemoveTasks
from rbcore.decide import clients, repository, servers, tasks, users
from rbcore.decide.decision import Decision, Draft, get, get_all
from rbcore.decide.declared import changed_values, new_values
from rbcore.decide.tape_libraries import end_library
from rbcore.destination import members_of
from rbcore.entities import (
    Backup,
    Client,
    DeleteRuleRequest,
    DynamicPoolGroup,
    DynamicPoolGroupRecord,
    Entity,
    LocalCatalog,
    MediaServer,
    PendingRemoval,
    ScheduleRule,
    TapeLibrary,
    Task,
    User,
)
from rbcore.errors import NotFound, Refused
from rbcore.events import BackupBytesRemoved, RecordChanged, RecordCreated, RecordDeleted
from rbcore.resource import Resource
from rbcore.resources import by_name
from rbcore.resources.schedule import requests_about
from rbcore.state import State


def create(state: State, command: CreateRecord, context: Context) -> Decision:
    resource = declared_resource(command.resource)
    if not resource.create:
        raise Refused(f"A {resource.noun} is not made by a request.")
    values = new_values(resource, state, command.fields)
    draft = Draft(state)
    new_id = draft.take_id(resource.entity)
    draft.add(resource.kind, new_id, RecordCreated(values))
    message = f"Resource with name '{resource.title}' was created successfully!"
    return draft.decision(ids=[new_id], message=message)


def change(state: State, command: ChangeRecord, context: Context) -> Decision:
    resource = declared_resource(command.resource)
    entity = get(state, resource.entity, command.id, resource.noun)
    changes = changed_values(resource, state, entity, command.changes)
    draft = Draft(state)
    if changes:
        draft.add(resource.kind, entity.id, RecordChanged(changes))
    return draft.decision(ids=[entity.id])


def delete(state: State, command: DeleteRecords, context: Context) -> Decision:
    resource = declared_resource(command.resource)
    if not resource.deletable:
        raise Refused(f"A {resource.noun} is not deleted by a request.")
    special = _DELETED_OTHERWISE.get(resource.kind)
    if special is not None:
        return special(state, command.ids, context)
    entities = get_all(state, resource.entity, command.ids, resource.noun)
    refuse_deletion(resource, state, entities)
    draft = Draft(state)
    for entity in entities:
        end_record(draft, entity)
    return draft.decision(ids=[entity.id for entity in entities])


def refuse_deletion(resource: Resource, state: State, entities: Sequence[Entity]) -> None:
    """Raise ``Refused`` naming every record that cannot go, and why."""
    errors: dict[str, list[str]] = {}
    for entity in entities:
        reasons = [reason for refusal in resource.refusals if (reason := refusal(state, entity))]
        if reasons:
            errors[str(entity.id)] = [f"{resource.noun} {entity.id} cannot be deleted: {reason}." for reason in reasons]
    if errors:
        first = next(iter(errors.values()))[0]
        rest = f" The same goes for {len(errors) - 1} more." if len(errors) > 1 else ""
        raise Refused(f"{first[0].upper()}{first[1:]}{rest}", errors=errors, data={"ids": [int(one) for one in errors]})


def end_record(draft: Draft, entity: Entity) -> None:
    """And with it what cannot be without it."""
    if isinstance(entity, LocalCatalog):
        # Bytes of deleted backups that stand there are out of reach from here on: nobody waits for them any more.
        for removal in draft.state.all(PendingRemoval):
            if removal.local_catalog_id == entity.id:
                draft.add(Backup, removal.id, BackupBytesRemoved(0))
    elif isinstance(entity, DynamicPoolGroup):
        for record in members_of(draft.state, entity.id):
            draft.add(DynamicPoolGroupRecord, record.id, RecordDeleted())
    elif isinstance(entity, TapeLibrary):
        end_library(draft, entity)
    elif isinstance(entity, ScheduleRule):
        for request in requests_about(draft.state, entity):
            draft.add(DeleteRuleRequest, request.id, RecordDeleted())
    draft.add(entity.KIND, entity.id, RecordDeleted())


def declared_resource(name: str) -> Resource:
    """Raises ``NotFound``."""
    resource = by_name.get(name)
    if resource is None:
        raise NotFound(f"There is no resource {name}.")
    return resource


_DELETED_OTHERWISE: dict[str, Callable[[State, Sequence[int], Context], Decision]] = {
    Client.KIND: lambda state, ids, context: clients.revoke(
        state, ids, lambda entities: refuse_deletion(by_name["clients"], state, entities)
    ),
    User.KIND: lambda state, ids, context: users.delete_users(
        state, ids, context, lambda entities: refuse_deletion(by_name["users"], state, entities)
    ),
    MediaServer.KIND: lambda state, ids, context: servers.revoke(
        state, ids, lambda entities: refuse_deletion(by_name["media_servers"], state, entities)
    ),
    Task.KIND: lambda state, ids, context: tasks.remove(state, RemoveTasks(ids=list(ids)), context),
    Backup.KIND: lambda state, ids, context: repository.delete(state, DeleteBackups(ids=list(ids)), context),
}

DECIDERS: dict[type[Command], Callable[[State, Any, Context], Decision]] = {
    CreateRecord: create,
    ChangeRecord: change,
    DeleteRecords: delete,
}
