"""The task queue and its verbs: what is more than a record of a declared resource."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from httpapi import schema
from httpapi.call import Call
from httpapi.envelope import Answer
from httpapi.json_body import refuse
from httpapi.listing import PARAMETERS, payload_of_rows
from httpapi.method import AT, Handler, Method, Parameter, PartsBody, Schema, StructBody
from httpapi.reading import Overlay
from httpapi.records import DELETED, read_ids
from httpapi.rubackup import extensions
from httpapi.rubackup.catalogue import action
from httpapi.rubackup.why import ROW as WHY_ROW
from httpapi.rubackup.why import explain, within_reach
from rbcore.commands import Command, ContinueTask, KillTask, PauseTask, QueueBackup, RemoveTasks, Reply, RestartTasks
from rbcore.decide.queue import BACKUP_TASK_FIELDS
from rbcore.errors import InvalidRequest, NotFound
from rbcore.resources import by_name
from rbcore.vocabulary import REMOVAL_WORDS, RUNNING_STATUSES

TASKS = by_name["task_queue"]
NOUN, TITLE = TASKS.noun, TASKS.title
OPERATORS = TASKS.manage
"""Who may start, stop and restore (reference 1.17)."""


class Extensions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of a module: they depend on the resource type (GET .../extension). Go into the log as they came."""

    parameters: dict[str, Any] = {}


class QueueBackupData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    task: dict[str, Any]
    """The nine required keys; see ``BACKUP_TASK_FIELDS``."""
    module_extensions: Extensions = Extensions()
    common_modules_extensions: Extensions = Extensions()


class QueueBackupBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    data: QueueBackupData


class TaskIdData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    task_id: int


class TaskIdBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    data: TaskIdData


class TasksIdsData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tasks_ids: list[int]


class TasksIdsBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    data: TasksIdsData


QUEUED: Schema = {
    "type": "object",
    "properties": {"task_id": schema.ID},
    "required": ["task_id"],
}


def queued(reply: Reply) -> Answer:
    """The answer of everything that queues a task: the manual's message, which ends with the number, and the number in ``data``."""
    (task_id,) = reply.ids
    return Answer({"task_id": task_id}, reply.message, position=reply.position)


_QUEUE_BACKUP = PartsBody(QueueBackupBody, {"task": schema.given(BACKUP_TASK_FIELDS, creating=True)})


@action("POST", "/task_queue", roles=OPERATORS, body=_QUEUE_BACKUP, data=QUEUED)
async def queue_backup(call: Call) -> Answer:
    data: QueueBackupData = call.body.data
    command = QueueBackup(
        task=data.task,
        module_extensions=msgspec.to_builtins(data.module_extensions),
        common_modules_extensions=msgspec.to_builtins(data.common_modules_extensions),
    )
    return queued(await call.submit(command))


_EXTENSION = (
    Parameter(name="resourse_type", required=True, description="Name of the resource type."),
    Parameter(name="id", type="integer", minimum=1, description="Id of a task: its stored parameters."),
    AT,
)


@action(
    "GET",
    "/task_queue/extension",
    roles=TASKS.read,
    query=_EXTENSION,
    data=extensions.DATA,
    components=extensions.COMPONENTS,
)
async def extension(call: Call) -> Answer:
    stored, position = None, None
    if "id" in call.query:
        row, position = await _row_of(call, call.query["id"])
        stored = row.get("parameters")
    return Answer(extensions.for_backup(call.query["resourse_type"], stored), position=position)


async def _row_of(call: Call, task_id: int) -> tuple[dict[str, Any], int]:
    row, position = await call.row("task_queue", task_id, await call.position_asked())
    if row is None:
        raise NotFound("task not found in the queue", errors={"id": [f"There is no task with id {task_id}."]})
    return row, position


async def delete_many(call: Call) -> Answer:
    reply = await call.submit(RemoveTasks(ids=call.body))
    return Answer({"ids": reply.ids}, call.message, position=reply.position)


_ID_OR_WORD: Schema = {"oneOf": [schema.ID, {"type": "string", "enum": list(REMOVAL_WORDS)}]}


@action("DELETE", "/task_queue/{id}", roles=OPERATORS, data=DELETED, path_schemas={"id": _ID_OR_WORD})
async def delete_by_id_or_word(call: Call) -> Answer:
    """One URL pattern for DELETE task_queue/{id} and task_queue/{status} (the manual's rb-219 and rb-221): digits are an id."""
    segment = call.segments["id"]
    if segment.isascii() and segment.isdecimal():
        command = RemoveTasks(ids=[call.id("task")])
    elif segment in REMOVAL_WORDS:
        command = RemoveTasks(status_word=segment, within=_reached_of(call, REMOVAL_WORDS[segment]))
    else:
        sentence = f"Must be the id of a task, or one of: {', '.join(REMOVAL_WORDS)}."
        raise InvalidRequest("Bad request", errors={"status": [sentence]})
    reply = await call.submit(command)
    return Answer({"ids": reply.ids}, reply.message or call.message, position=reply.position)


def _reached_of(call: Call, status: str) -> list[int] | None:
    """Tasks of the status that a limited caller may remove; None: he may remove all."""
    if not call.is_limited:
        return None
    return call.reached("task_queue", sorted(call.services.journal.state.indexes.tasks_by_status[status]))


def _verb(path: str, make: Callable[[int], Command]) -> Method:
    async def handle(call: Call) -> Answer:
        task_id: int = call.body.data.task_id
        if task_id < 1:
            raise refuse("Must be the id of a task.", "task_id")
        reply = await call.submit(make(task_id))
        return Answer({"task_id": task_id}, call.message, position=reply.position)

    return action("POST", path, roles=OPERATORS, body=StructBody(TaskIdBody), data=QUEUED)(handle)


_RESTARTED: Schema = {
    "type": "object",
    "properties": {"tasks_ids": {"type": "array", "items": schema.ID, "description": "The new tasks, in order."}},
    "required": ["tasks_ids"],
}


@action("POST", "/restart_task", roles=OPERATORS, body=StructBody(TasksIdsBody), data=_RESTARTED)
async def restart(call: Call) -> Answer:
    reply = await call.submit(RestartTasks(ids=read_ids(call.body.data.tasks_ids, "tasks_ids")))
    return Answer({"tasks_ids": reply.ids}, reply.message, position=reply.position)


_PROGRESS: Schema = {
    "type": "object",
    "properties": {
        "task_id": schema.ID,
        "status": {"type": "string"},
        "bytes_done": {"type": "integer"},
        "bytes_total": {"type": "integer", "description": "Best estimate; it may grow."},
        "files_done": {"type": "integer"},
        "bytes_per_second": {"type": "number"},
        "percent": {"type": ["number", "null"]},
        "seconds_remaining": {"type": ["number", "null"]},
    },
    "required": ["task_id", "status"],
}


@action(
    "GET",
    "/task_queue/{id}/progress",
    roles=TASKS.read,
    query=(AT,),
    data=_PROGRESS,
    addition="How far a running task is: the newest telemetry, without the log",
    group=TITLE,
)
async def progress(call: Call) -> Answer:
    task_id = call.id(NOUN)
    row, position = await _row_of(call, task_id)
    data: dict[str, Any] = {"task_id": task_id, "status": row["status"]}
    newest = None if "at" in call.query else call.services.sessions.progress(task_id)  # telemetry has no past
    if newest is not None:
        total, rate = newest.bytes_total, newest.bytes_per_second
        data |= {
            "bytes_done": newest.bytes_done,
            "bytes_total": total,
            "files_done": newest.files_done,
            "bytes_per_second": rate,
            "percent": round(min(100.0, 100 * newest.bytes_done / total), 2) if total else None,
            "seconds_remaining": round(max(0, total - newest.bytes_done) / rate, 1) if total and rate > 0 else None,
        }
    return Answer(data, position=position)


@action(
    "GET",
    "/task_queue/{id}/why",
    roles=TASKS.read,
    query=PARAMETERS,
    data=schema.listing(WHY_ROW),
    addition="Which event of the log caused what, and which options were rejected",
    group=TITLE,
)
async def why(call: Call) -> Answer:
    task_id = call.id(NOUN)
    position = await call.position_asked()
    position = call.services.journal.log.head if position is None else position
    rows = await explain(call.services.journal.log, task_id, position)
    if call.is_limited:
        known, _ = await call.row(TASKS.name, task_id, position)
        rows = within_reach(rows, f"task/{task_id}", call.sees) if known is not None else []
    if not rows:
        raise NotFound("task not found in the queue", errors={"id": [f"There is no task with id {task_id}."]})
    return Answer(payload_of_rows(rows, {"limit": 1000} | call.query), position=position)


def live_progress(call: Call, task_id: int | None) -> Overlay | None:
    """The newest telemetry of running tasks, or of one, for their rows; the past has none."""
    if "at" in call.query:
        return None
    sessions = call.services.sessions
    newest = sessions.progress_of_all() if task_id is None else [sessions.progress(task_id)]
    shown = {
        one.task_id: {"progress": min(99, 100 * one.bytes_done // one.bytes_total)}
        for one in newest
        if one is not None and one.bytes_total
    }
    return Overlay(column="status", values=tuple(RUNNING_STATUSES), shown=shown) if shown else None


OVERRIDES: dict[str, Handler] = {"DELETE /task_queue": delete_many}
METHODS = (
    queue_backup,
    extension,
    delete_by_id_or_word,
    _verb("/put_task_on_pause", lambda task_id: PauseTask(task_id=task_id)),
    _verb("/continue_task_working", lambda task_id: ContinueTask(task_id=task_id)),
    _verb("/kill_task", lambda task_id: KillTask(task_id=task_id)),
    restart,
    progress,
    why,
)
