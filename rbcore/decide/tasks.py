"""The life of queued tasks: operators' verbs, reports of actors, recovery, removal. Every change goes through ``rbcore.task``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from rbcore.commands import (
    AdvanceTask,
    Command,
    Context,
    ContinueTask,
    KillTask,
    NoteTask,
    PauseTask,
    RecoverTasks,
    RemoveTasks,
)
from rbcore.decide.decision import Decision, Draft, bounded, get, get_all
from rbcore.entities import TapeTask, Task
from rbcore.errors import InvalidRequest, NotAllowedNow, NotFound
from rbcore.events import TapeTaskRemoved, TaskNoted, TaskRemoved, TaskStatusChanged
from rbcore.state import State
from rbcore.task import ATTEMPTS_MAX, GIVEN_OUT, already_reached, killed_status, require, step
from rbcore.vocabulary import (
    BACKUP_TASKS,
    COPY_TASKS,
    REMOVAL_WORDS,
    RUNNING_STATUSES,
    TASK_STATUSES,
    TaskStatus,
    TaskType,
)

REMOVED_TASKS_MAX: Final = 10_000
"""Tasks that one removal by status word takes. The reply says how many are left."""
SIDES: Final = ("server", "client")
SEVERITIES: Final = ("info", "warning", "error")
_ENDED_BY: Final = {
    **dict.fromkeys(BACKUP_TASKS, "RecordBackup"),
    **dict.fromkeys(COPY_TASKS, "RecordCopy"),
    TaskType.VERIFY: "RecordVerification",
    TaskType.DELETE: "RecordBytesRemoved",
}
"""What was achieved is recorded in the same batch as Done."""


def change_status(
    draft: Draft, task: Task, status: str, reason: str, retry_at_ns: int = 0, durable_blocks: int = 0
) -> str:
    """Add the change, or raise ``NotAllowedNow``. An attempt too many without progress makes Broken of Suspended."""
    step(task, status)
    if status == TaskStatus.SUSPENDED and task.status in GIVEN_OUT:
        progressed = durable_blocks > task.durable_blocks
        if not progressed and task.attempts + 1 >= ATTEMPTS_MAX:
            status, retry_at_ns = TaskStatus.BROKEN, 0
            reason = f"{ATTEMPTS_MAX} attempts in a row made no progress; the last: {reason}"
    event = TaskStatusChanged(task.status, status, bounded([reason])[0], retry_at_ns, durable_blocks)
    draft.add(Task, task.id, event)
    return status


def advance(state: State, command: AdvanceTask, context: Context) -> Decision:
    """A report of an actor. A late or repeated one changes nothing."""
    task = get(state, Task, command.task_id, "task")
    if command.status not in TASK_STATUSES:
        raise InvalidRequest(f"'{command.status}' is not a status of tasks.")
    if command.status == TaskStatus.DONE != task.status and task.task_type in _ENDED_BY:
        raise NotAllowedNow(f"Task {task.id} is Done by {_ENDED_BY[task.task_type]}, not by a report of its status.")
    draft = Draft(state)
    if command.notes:
        _note(draft, task, "server", command.note_severity or "info", command.notes)
    status = task.status
    more_is_durable = command.durable_blocks > task.durable_blocks
    if not already_reached(task, command.status):
        status = change_status(draft, task, command.status, command.reason, command.retry_at_ns, command.durable_blocks)
    elif more_is_durable and task.status in RUNNING_STATUSES:
        event = TaskStatusChanged(task.status, task.status, task.status_reason, 0, command.durable_blocks)
        draft.add(Task, task.id, event)
    return draft.decision(ids=[task.id], data={"status": status})


def note(state: State, command: NoteTask, context: Context) -> Decision:
    task = get(state, Task, command.task_id, "task")
    draft = Draft(state)
    if command.lines:
        _note(draft, task, command.side, command.severity, command.lines)
    return draft.decision(ids=[task.id])


def _note(draft: Draft, task: Task, side: str, severity: str, lines: Sequence[str]) -> None:
    if side not in SIDES:
        raise InvalidRequest(f"side: one of {', '.join(SIDES)} is expected.")
    if severity not in SEVERITIES:
        raise InvalidRequest(f"severity: one of {', '.join(SEVERITIES)} is expected.")
    draft.add(Task, task.id, TaskNoted(side, severity, bounded(lines)))


def pause(state: State, command: PauseTask, context: Context) -> Decision:
    task = get(state, Task, command.task_id, "task")
    require("paused", task)
    return _by_operator(state, task, TaskStatus.PAUSED, context)


def continue_(state: State, command: ContinueTask, context: Context) -> Decision:
    """A Paused task is again what it was; a Suspended one is tried at once."""
    task = get(state, Task, command.task_id, "task")
    require("continued", task)
    status = task.resumes_as if task.status == TaskStatus.PAUSED else TaskStatus.NEW
    return _by_operator(state, task, status, context)


def kill(state: State, command: KillTask, context: Context) -> Decision:
    task = get(state, Task, command.task_id, "task")
    require("killed", task)
    return _by_operator(state, task, killed_status(task), context)


def _by_operator(state: State, task: Task, status: str, context: Context) -> Decision:
    draft = Draft(state)
    change_status(draft, task, status, f"ordered by {context.actor}")
    return draft.decision(ids=[task.id], data={"status": status})


def remove(state: State, command: RemoveTasks, context: Context) -> Decision:
    """From the queue; journals and backups stay. By ids: all or nothing."""
    if command.status_word:
        return _remove_by_word(state, command.status_word, command.within)
    tasks = get_all(state, Task, command.ids, "task")
    errors: dict[str, list[str]] = {}
    for task in tasks:
        try:
            require("deleted", task)
        except NotAllowedNow as refused:
            errors[str(task.id)] = [f"{refused.message} Kill it first."]
    if errors:
        raise NotAllowedNow(next(iter(errors.values()))[0], errors=errors, data={"ids": [int(one) for one in errors]})
    draft = Draft(state)
    for task in tasks:
        _remove(draft, task.id)
    return draft.decision(ids=[task.id for task in tasks])


def _remove(draft: Draft, task_id: int) -> None:
    """And with it what robots and drives did for it and have ended."""
    for tape_task_id in sorted(draft.state.indexes.ended_tape_tasks_of_task.get(task_id, ())):
        draft.add(TapeTask, tape_task_id, TapeTaskRemoved())
    draft.add(Task, task_id, TaskRemoved())


def _remove_by_word(state: State, word: str, within: list[int] | None) -> Decision:
    status = REMOVAL_WORDS.get(word)
    if status is None:
        raise InvalidRequest(f"'{word}' is not one of {', '.join(REMOVAL_WORDS)}.")
    found = sorted(state.indexes.tasks_by_status[status])
    if within is not None:
        chosen_from = set(within)
        found = [one for one in found if one in chosen_from]
    if not found:
        raise NotFound("no tasks with the chosen status in the queue")
    chosen = found[:REMOVED_TASKS_MAX]
    draft = Draft(state)
    for task_id in chosen:
        _remove(draft, task_id)
    left = len(found) - len(chosen)
    message = f"{len(chosen)} tasks deleted; {left} are left, repeat the request for more." if left else ""
    return draft.decision(ids=chosen, message=message, data={"deleted": len(chosen), "left": left})


def recover(state: State, command: RecoverTasks, context: Context) -> Decision:
    """After a start nobody works on anything: what was under way is tried again at once, what was being killed is dead.

    A task that was Assigned or Paused stays so. Attempts that made nothing more durable count (``ATTEMPTS_MAX``).
    """
    draft = Draft(state)
    reason = "the daemon was started anew"
    for task in state.tasks_in(*RUNNING_STATUSES):
        change_status(draft, task, TaskStatus.SUSPENDED, reason, context.now_ns)
    for task in state.tasks_in(TaskStatus.KILL):
        change_status(draft, task, TaskStatus.KILLED, reason)
    return draft.decision()


DECIDERS: dict[type[Command], Callable[[State, Any, Context], Decision]] = {
    AdvanceTask: advance,
    NoteTask: note,
    PauseTask: pause,
    ContinueTask: continue_,
    KillTask: kill,
    RemoveTasks: remove,
    RecoverTasks: recover,
}
