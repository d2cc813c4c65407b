"""The repository: what is more than a record of a declared resource."""

from __future__ import annotations

from typing import Any

import msgspec

from httpapi import schema
from httpapi.call import Call
from httpapi.envelope import Answer
from httpapi.method import AT, Handler, Parameter, PartsBody, Schema, StructBody
from httpapi.records import CHANGED, IdsBody, not_found, row_schema
from httpapi.rubackup import extensions
from httpapi.rubackup.catalogue import action
from httpapi.rubackup.tape_rows import ADDED, ADJUSTMENTS
from httpapi.rubackup.tasks import OPERATORS, QUEUED, Extensions, queued
from rbcore.access import Acts
from rbcore.chain import deletion_reference_chain as chains_of
from rbcore.commands import ChangeStoreUntil, DeleteBackups, QueueCopy, QueueRestore, QueueVerification
from rbcore.decide.queue import RESTORE_TASK_FIELDS
from rbcore.resource import TextList
from rbcore.resources import by_name
from rbcore.vocabulary import ResourceType

BACKUPS = by_name["repository"]
NAMES_DEFAULT = 1000
NAMES_MAX = 100_000


class RestoreData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    restore_task: dict[str, Any]
    """See ``RESTORE_TASK_FIELDS``, and ``granular_restore_files``: paths within the backup, with everything below."""
    module_extensions: Extensions = Extensions()
    common_modules_extensions: Extensions = Extensions()


class RestoreBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    data: RestoreData


class StoreUntilData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    store_until: str
    """ISO 8601."""


class StoreUntilBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    data: StoreUntilData


async def delete_one(call: Call) -> Answer:
    reply = await call.submit(DeleteBackups(ids=[call.id(BACKUPS.noun)]))
    return Answer(_deleted(reply.ids, reply.data), call.message, position=reply.position)


async def delete_many(call: Call) -> Answer:
    reply = await call.submit(DeleteBackups(ids=call.body))
    return Answer(_deleted(reply.ids, reply.data), call.message, position=reply.position)


def _deleted(ids: list[int], data: dict[str, Any]) -> dict[str, Any]:
    """Ids of all backups that went, the dependants included; what else the core tells (the Delete tasks) beside it."""
    return {"ids": ids, **data}


@action("PATCH", "/repository/{id}", roles=BACKUPS.manage, body=StructBody(StoreUntilBody), data=CHANGED)
async def change_store_until(call: Call) -> Answer:
    backup_id = call.id(BACKUPS.noun)
    reply = await call.submit(ChangeStoreUntil(backup_id=backup_id, store_until=call.body.data.store_until))
    return Answer({"id": backup_id}, call.message, position=reply.position)


_RESTORE_TASK_FIELDS = (
    *RESTORE_TASK_FIELDS,
    TextList(
        name="granular_restore_files", description="Paths within the backup; empty texts count as absent, none: all."
    ),
)
_RESTORE = PartsBody(RestoreBody, {"restore_task": schema.given(_RESTORE_TASK_FIELDS, creating=True)})


@action("POST", "/repository/{id}/restoring", roles=OPERATORS, body=_RESTORE, data=QUEUED)
async def restore(call: Call) -> Answer:
    data: RestoreData = call.body.data
    command = QueueRestore(
        backup_id=call.id(BACKUPS.noun),
        restore_task=data.restore_task,
        module_extensions=msgspec.to_builtins(data.module_extensions),
        common_modules_extensions=msgspec.to_builtins(data.common_modules_extensions),
    )
    return queued(await call.submit(command))


@action("POST", "/repository/{id}/verification", roles=OPERATORS, data=QUEUED)
async def verify(call: Call) -> Answer:
    return queued(await call.submit(QueueVerification(backup_id=call.id(BACKUPS.noun))))


_ROW_NAME, _ROW = row_schema(BACKUPS, in_list=False, added=ADDED["repository"])
_COPY_TO = (Parameter(name="pool", required=True, description="Name of the pool."),)


@action("POST", "/repository/{id}/copying", roles=OPERATORS, query=_COPY_TO, data=QUEUED)
async def copy(call: Call) -> Answer:
    return await _queue_copy(call, move=False)


@action("POST", "/repository/{id}/moving", roles=OPERATORS, query=_COPY_TO, data=QUEUED)
async def move(call: Call) -> Answer:
    return await _queue_copy(call, move=True)


async def _queue_copy(call: Call, *, move: bool) -> Answer:
    command = QueueCopy(backup_id=call.id(BACKUPS.noun), pool_name=call.query["pool"], move=move)
    return queued(await call.submit(command))


_CHAIN: Schema = {
    "type": "object",
    "properties": {
        "items": {
            "type": "array",
            "items": {"$ref": f"#/components/schemas/{_ROW_NAME}"},
            "description": "Backups that would be deleted with the given ones, without these, ascending by id.",
        },
        "total": {"type": "integer"},
        "references": {
            "type": "object",
            "additionalProperties": {"type": "array", "items": schema.ID},
            "description": "Given id -> ids that depend on it.",
        },
    },
    "required": ["items", "total", "references"],
}


@action(
    "POST",
    "/repository/deletion_reference_chain",
    roles=BACKUPS.read,
    body=IdsBody(),
    data=_CHAIN,
    components={_ROW_NAME: _ROW},
)
async def deletion_reference_chain(call: Call) -> Answer:
    """A dry run of a deletion: call it, show it, then DELETE."""
    await call.check(Acts(BACKUPS.name, tuple(call.body), "ids"))
    references = chains_of(call.services.journal.state, call.body)
    for backup_id in call.body:
        if backup_id not in references:
            raise not_found(BACKUPS, backup_id)
    dependants = sorted(set().union(*references.values()) - set(call.body))
    items = [row for one in dependants if (row := (await call.row(BACKUPS.name, one))[0]) is not None]
    for row in items:
        ADJUSTMENTS["repository"](call, row)
    data = {"items": items, "total": len(items), "references": {str(one): ids for one, ids in references.items()}}
    return Answer(data)


_EXTENSION = (
    Parameter(name="resourse_type", default=ResourceType.FILE_SYSTEM, description="Name of the resource type."),
    Parameter(name="id", type="integer", minimum=1, description="Id of a backup: decides the resource type."),
    AT,
)


@action(
    "GET",
    "/repository/extension",
    roles=BACKUPS.read,
    query=_EXTENSION,
    data=extensions.DATA,
    components=extensions.COMPONENTS,
)
async def extension(call: Call) -> Answer:
    resource_type, position = call.query.get("resourse_type", ResourceType.FILE_SYSTEM), None
    if "id" in call.query:
        backup_id = call.query["id"]
        row, position = await call.row(BACKUPS.name, backup_id, await call.position_asked())
        if row is None:
            raise not_found(BACKUPS, backup_id)
        resource_type = row["resource_type"]
    return Answer(extensions.for_restore(resource_type), position=position)


_FILE_LIST = (
    Parameter(name="id", type="integer", minimum=1, required=True, description="Id of the backup."),
    Parameter(name="path", default="", description="Only names that begin so."),
    Parameter(
        name="limit",
        type="integer",
        minimum=1,
        maximum=NAMES_MAX,
        default=NAMES_DEFAULT,
        description="Names at most.",
    ),
    AT,
)
_NAMES: Schema = {
    "type": "object",
    "properties": {
        "items": {"type": "array", "items": {"type": "object"}},
        "total": {"type": ["integer", "null"], "description": "Null when the list was cut."},
        "complete": {"type": "boolean", "description": "False: there are more names than `limit`."},
        "limit": {"type": "integer"},
    },
    "required": ["items", "total", "complete", "limit"],
}


@action("GET", "/repository_record_file_list", roles=BACKUPS.read, query=_FILE_LIST, data=_NAMES)
async def file_list(call: Call) -> Answer:
    """Names in a backup, for granular restore. One more than asked for is fetched, to know whether the list was cut."""
    backup_id: int = call.query["id"]
    row, position = await call.row(BACKUPS.name, backup_id, await call.position_asked())
    if row is None:
        raise not_found(BACKUPS, backup_id)
    limit: int = call.query.get("limit", NAMES_DEFAULT)
    names = await call.services.contents.list_names(backup_id, call.query.get("path", ""), limit + 1)
    complete = len(names) <= limit
    data = {"items": names[:limit], "total": len(names) if complete else None, "complete": complete, "limit": limit}
    return Answer(data, position=position)


OVERRIDES: dict[str, Handler] = {"DELETE /repository": delete_many, "DELETE /repository/{id}": delete_one}
METHODS = (change_store_until, restore, verify, copy, move, deletion_reference_chain, extension, file_list)
