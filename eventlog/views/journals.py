"""Declarations of append-only tables: which events leave which lines.

``task_journal`` holds what ``GET server_task_info`` and ``GET client_task_info`` answer (reference 2.13): the lines the agent and
the server wrote about a task, and every change of its status with the reason.
"""

from __future__ import annotations

from typing import Any

from eventlog.views.schema import LogTable
from rbcore.events import Envelope, TaskAssigned, TaskNoted, TaskStatusChanged
from rbcore.resource import Choice, Integer, Text, Timestamp
from rbcore.state import State
from rbcore.vocabulary import TaskStatus

Line = tuple[Any, ...]

_SEVERITIES = {
    TaskStatus.ERROR: "error",
    TaskStatus.BROKEN: "error",
    TaskStatus.SUSPENDED: "warning",
    TaskStatus.KILLED: "warning",
}


def _id_of(envelope: Envelope) -> int:
    return int(envelope.stream.partition("/")[2])


def _noted(envelope: Envelope, event: TaskNoted, state: State) -> list[Line]:
    task = _id_of(envelope)
    return [(task, event.side, envelope.time_ns, event.severity, text) for text in event.lines]


def _status_changed(envelope: Envelope, event: TaskStatusChanged, state: State) -> list[Line]:
    text = f"{event.previous} -> {event.status}" + (f": {event.reason}" if event.reason else "")
    return [(_id_of(envelope), "server", envelope.time_ns, _SEVERITIES.get(event.status, "info"), text)]


def _assigned(envelope: Envelope, event: TaskAssigned, state: State) -> list[Line]:
    task, time_ns = _id_of(envelope), envelope.time_ns
    texts = [f"Assigned ({event.backup_type}): {event.reason}", *(f"Not taken: {one}" for one in event.rejected)]
    return [(task, "server", time_ns, "info", text) for text in texts]


TASK_JOURNAL = LogTable(
    name="task_journal",
    fields=(
        Integer(name="task_id", indexed=True),
        Choice(name="side", values=("server", "client")),
        Timestamp(name="time", indexed=True),
        Choice(name="severity", values=("info", "warning", "error")),
        Text(name="text"),
    ),
    lines={TaskNoted: _noted, TaskStatusChanged: _status_changed, TaskAssigned: _assigned},
)
