"""The journals of tasks as an append-only view: what server_task_info and client_task_info show.

Declared here and handed to the views by the composition root (``LOGS``). The client's journal is what the client told; the server's
is what the daemon noted, and every step of the task with its reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec.structs import replace

from eventlog.views.port import Condition
from eventlog.views.schema import LogTable
from httpapi import schema
from httpapi.call import Call
from httpapi.envelope import Answer
from httpapi.listing import PARAMETERS, payload_of_page, query_of
from httpapi.method import Handler, Parameter
from httpapi.rubackup.catalogue import action
from rbcore.errors import NotFound
from rbcore.events import Envelope, TaskAssigned, TaskNoted, TaskQueued, TaskStatusChanged
from rbcore.resource import Choice, Field, Integer, Text, Timestamp
from rbcore.vocabulary import TaskStatus

SIDES = ("server", "client")
SEVERITIES = ("info", "warning", "error")

FIELDS: tuple[Field, ...] = (
    Integer(name="task_id", indexed=True, description="The task whose journal this is."),
    Timestamp(name="time", description="When it was recorded."),
    Choice(name="side", values=SIDES, description="Who tells."),
    Choice(name="severity", values=SEVERITIES, description="How bad it is."),
    Text(name="text", description="The line."),
)

Line = tuple[int, int, str, str, str]


def _line(envelope: Envelope, text: str, *, side: str = "server", severity: str = "info") -> Line:
    return _task_id(envelope), envelope.time_ns, side, severity, text


def _task_id(envelope: Envelope) -> int:
    return int(envelope.stream.rpartition("/")[2])


def _noted(envelope: Envelope, event: TaskNoted, _: Any) -> Iterator[Line]:
    for text in event.lines:
        yield _line(envelope, text, side=event.side, severity=event.severity)


def _queued(envelope: Envelope, event: TaskQueued, _: Any) -> Iterator[Line]:
    again = f", again for task {event.restarted_from}" if event.restarted_from else ""
    yield _line(envelope, f"{event.task_type} queued by {envelope.actor}{again}.")


def _assigned(envelope: Envelope, event: TaskAssigned, _: Any) -> Iterator[Line]:
    yield _line(envelope, f"Assigned: {event.reason}.")
    for sentence in event.rejected:
        yield _line(envelope, f"Not taken: {sentence}")


def _status_changed(envelope: Envelope, event: TaskStatusChanged, _: Any) -> Iterator[Line]:
    because = f": {event.reason}" if event.reason else ""
    failed = event.status in (TaskStatus.ERROR, TaskStatus.BROKEN)
    waits = event.status == TaskStatus.SUSPENDED
    severity = "error" if failed else "warning" if waits else "info"
    yield _line(envelope, f"{event.previous} -> {event.status}{because}.", severity=severity)


TASK_JOURNAL = LogTable(
    name="task_journal",
    fields=FIELDS,
    lines={
        TaskNoted: _noted,
        TaskQueued: _queued,
        TaskAssigned: _assigned,
        TaskStatusChanged: _status_changed,
    },
)
LOGS: tuple[LogTable, ...] = (TASK_JOURNAL,)

_ID = Parameter(name="id", type="integer", minimum=1, required=True, description="Id of the task.")


def _lines_of(side: str) -> Handler:
    async def handle(call: Call) -> Answer:
        """A task that was deleted from the queue keeps its journal (reference 3.4)."""
        at = await call.position_asked()
        task_id: int = call.query["id"]
        query = query_of(TASK_JOURNAL.name, call.query, at)
        own = (Condition("task_id", "=", str(task_id)), Condition("side", "=", side), *query.conditions)
        page = await call.services.views.page(replace(query, conditions=own))
        if not page.total:
            await _check_known(call, task_id, at)
        return Answer(payload_of_page(page, call.query), position=page.position)

    return handle


async def _check_known(call: Call, task_id: int, at: int | None) -> None:
    """Raises ``NotFound`` unless the task was ever queued: its journal has a line then, whatever the filter says."""
    query = query_of(TASK_JOURNAL.name, {"limit": 1}, at)
    known = replace(query, conditions=(Condition("task_id", "=", str(task_id)),))
    if not (await call.services.views.page(known)).total:
        raise NotFound("task not found", errors={"id": [f"There is no task with id {task_id}."]})


_ROW = schema.fields_object(FIELDS)
_DATA = schema.listing(_ROW)

METHODS = tuple(
    action("GET", f"/{side}_task_info", query=(_ID, *PARAMETERS), data=_DATA)(_lines_of(side)) for side in SIDES
)
