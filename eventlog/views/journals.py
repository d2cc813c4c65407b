"""Declarations of append-only tables: which events leave which lines (reference 2.13, 2.20).

``task_journal`` is what ``GET task_log`` lists, and of one task ``GET server_task_info`` and ``GET client_task_info``: the lines the agent and the
server wrote about it, and every change of its status with the reason. The other journals are of ``eventlog.views.operations``.
"""

from __future__ import annotations

from typing import Any

from eventlog.views.schema import LogTable
from rbcore.entities import Client, Entity, Task
from rbcore.events import Envelope, TaskAssigned, TaskNoted, TaskQueued, TaskRemoved, TaskStatusChanged
from rbcore.resource import Choice, Integer, Reference, Text, Timestamp
from rbcore.resources.common import BY_CLIENT
from rbcore.state import State
from rbcore.vocabulary import TASK_TYPES, TaskStatus

Line = tuple[Any, ...]

TIME = Timestamp(name="time", indexed=True)
SEVERITY = Choice(name="severity", values=("info", "warning", "error"))
EVENT = Text(name="event", description="What happened, in a word.")
ACTOR = Text(name="actor", description="Who did it: `user:<name>`, `client:<hwid>`, or a part of the server.")
TEXT = Text(name="text", description="What happened, in a sentence.")
CLIENT = Reference(name="client", to=Client.KIND, by="client", indexed=True)

SEVERITIES = {
    TaskStatus.ERROR: "error",
    TaskStatus.BROKEN: "error",
    TaskStatus.SUSPENDED: "warning",
    TaskStatus.KILLED: "warning",
}
"""Of a task that got into that status; ``info`` for the others."""


def id_of(envelope: Envelope) -> int:
    """The number in the stream's name."""
    return int(envelope.stream.partition("/")[2])


def word_of(envelope: Envelope) -> str:
    """``status_changed`` of ``task.status_changed``."""
    return envelope.type.partition(".")[2]


def _line(envelope: Envelope, state: State, side: str, severity: str, text: str) -> Line:
    task = state.find(Task, id_of(envelope))
    return _line_of(envelope, task, side, severity, text)


def _line_of(envelope: Envelope, task: Entity | None, side: str, severity: str, text: str) -> Line:
    task_type, client_id = (task.task_type, task.client_id) if isinstance(task, Task) else ("", 0)
    time_ns, event, actor = envelope.time_ns, word_of(envelope), envelope.actor
    return id_of(envelope), side, time_ns, severity, text, event, actor, task_type, client_id


def _queued(envelope: Envelope, event: TaskQueued, state: State, before: Entity | None) -> list[Line]:
    parts = [event.task_type, event.backup_type, event.resource_type, event.resource]
    text = f"Queued: {' '.join(part for part in parts if part)}, priority {event.priority}"
    return [_line(envelope, state, "server", "info", text)]


def _noted(envelope: Envelope, event: TaskNoted, state: State, before: Entity | None) -> list[Line]:
    return [_line(envelope, state, event.side, event.severity, text) for text in event.lines]


def _status_changed(envelope: Envelope, event: TaskStatusChanged, state: State, before: Entity | None) -> list[Line]:
    text = f"{event.previous} -> {event.status}" + (f": {event.reason}" if event.reason else "")
    return [_line(envelope, state, "server", SEVERITIES.get(event.status, "info"), text)]


def _assigned(envelope: Envelope, event: TaskAssigned, state: State, before: Entity | None) -> list[Line]:
    texts = [f"Assigned ({event.backup_type}): {event.reason}", *(f"Not taken: {one}" for one in event.rejected)]
    return [_line(envelope, state, "server", "info", text) for text in texts]


def _removed(envelope: Envelope, event: TaskRemoved, state: State, before: Entity | None) -> list[Line]:
    return [_line_of(envelope, before, "server", "info", "Removed from the queue")]


TASK_JOURNAL = LogTable(
    name="task_journal",
    fields=(
        Integer(name="task_id", indexed=True),
        Choice(name="side", values=("server", "client"), description="Who wrote the line."),
        TIME,
        SEVERITY,
        TEXT,
        EVENT,
        ACTOR,
        Choice(name="task_type", values=TASK_TYPES),
        CLIENT,
    ),
    lines={
        TaskQueued: _queued,
        TaskNoted: _noted,
        TaskStatusChanged: _status_changed,
        TaskAssigned: _assigned,
        TaskRemoved: _removed,
    },
    scope=BY_CLIENT,
)
