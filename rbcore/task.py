"""The life of a task: every legal change of status, as a table.

Source: the domain reference, 1.2 (verbs and internal transitions). ``decide`` changes a status only through ``step``;
what the table does not name is refused with a sentence.

Ours, where the reference is silent:
- Kill of a task that nobody has started ends it at once; otherwise it is ``Kill`` until its worker has stopped.
- A restart makes a new task that remembers the old one. A Suspended task that is restarted ends as Killed, so that the work
  is not done twice.
- Work may end while its task is Paused (the pause came between the last block and the end).
- A task without a client side goes from Assigned to Execution, or straight to Done.
"""

from __future__ import annotations

from typing import Final

from rbcore.entities import Task
from rbcore.errors import NotAllowedNow
from rbcore.vocabulary import RUNNING_STATUSES, TASK_STATUSES, TERMINAL_STATUSES, TaskStatus

ATTEMPTS_MAX: Final = 10
"""Attempts in a row that make nothing more durable; the last of them leaves the task Broken."""

_NEW, _ASSIGNED, _SUSPENDED, _PAUSED = TaskStatus.NEW, TaskStatus.ASSIGNED, TaskStatus.SUSPENDED, TaskStatus.PAUSED
_AT_CLIENT, _EXECUTION, _START_TRANSFER, _TRANSMISSION = RUNNING_STATUSES
_FAILED: Final = frozenset({TaskStatus.ERROR, TaskStatus.BROKEN})

PAUSABLE: Final = frozenset({_NEW, _ASSIGNED, *RUNNING_STATUSES, _SUSPENDED})
CONTINUABLE: Final = frozenset({_SUSPENDED, _PAUSED})
KILLABLE: Final = frozenset({_NEW, _ASSIGNED, *RUNNING_STATUSES, _SUSPENDED, _PAUSED})
RESTARTABLE: Final = frozenset({_SUSPENDED, TaskStatus.ERROR, TaskStatus.BROKEN, TaskStatus.KILLED})
REMOVABLE: Final = frozenset({_NEW, _SUSPENDED, *TERMINAL_STATUSES})

VERBS: Final[dict[str, frozenset[str]]] = {
    "paused": PAUSABLE,
    "continued": CONTINUABLE,
    "killed": KILLABLE,
    "restarted": RESTARTABLE,
    "deleted": REMOVABLE,
}
"""Verb (as in sentences) -> statuses in which it is allowed."""

GIVEN_OUT: Final = frozenset({_ASSIGNED, *RUNNING_STATUSES})
"""An attempt is on: one that ends in Suspended counts, also when the worker never took the task."""

NOT_STARTED: Final = frozenset({_NEW, _SUSPENDED})
"""Nobody can be working on the task: a kill ends it at once."""

_UNDER_WAY_ENDS: Final = frozenset({_SUSPENDED, _PAUSED, TaskStatus.KILL, *_FAILED})
TRANSITIONS: Final[dict[str, frozenset[str]]] = {
    _NEW: frozenset({_ASSIGNED, _SUSPENDED, _PAUSED, TaskStatus.KILLED, *_FAILED}),
    _ASSIGNED: _UNDER_WAY_ENDS | {_AT_CLIENT, _EXECUTION, TaskStatus.DONE},
    _AT_CLIENT: _UNDER_WAY_ENDS | {_EXECUTION, _START_TRANSFER, _TRANSMISSION, TaskStatus.DONE},
    _EXECUTION: _UNDER_WAY_ENDS | {_START_TRANSFER, _TRANSMISSION, TaskStatus.DONE},
    _START_TRANSFER: _UNDER_WAY_ENDS | {_TRANSMISSION, TaskStatus.DONE},
    _TRANSMISSION: _UNDER_WAY_ENDS | {TaskStatus.DONE},
    _SUSPENDED: frozenset({_NEW, _PAUSED, TaskStatus.KILLED, *_FAILED}),
    # And back to what it was, which is not the same for every task: ``successors``.
    _PAUSED: frozenset({TaskStatus.KILL, TaskStatus.KILLED, TaskStatus.DONE, *_FAILED}),
    TaskStatus.KILL: frozenset({TaskStatus.KILLED}),
    TaskStatus.DONE: frozenset(),
    TaskStatus.ERROR: frozenset(),
    TaskStatus.BROKEN: frozenset(),
    TaskStatus.KILLED: frozenset(),
}
"""Status -> statuses that may follow, whoever asks."""
assert set(TRANSITIONS) == set(TASK_STATUSES)
assert all(bool(TRANSITIONS[status]) != (status in TERMINAL_STATUSES) for status in TASK_STATUSES)

_STAGE: Final = {status: number for number, status in enumerate(RUNNING_STATUSES)}


def require(verb: str, task: Task) -> None:
    """Raise ``NotAllowedNow`` unless the task's status allows the operator's verb."""
    allowed = VERBS[verb]
    if task.status not in allowed:
        statuses = ", ".join(status for status in TASK_STATUSES if status in allowed)
        raise NotAllowedNow(f"Task {task.id} is {task.status}: it can be {verb} only while it is one of {statuses}.")


def successors(task: Task) -> frozenset[str]:
    """Statuses that may follow the task's: the table, and what a Paused task was."""
    followers = TRANSITIONS[task.status]
    return followers | {task.resumes_as} if task.status == _PAUSED else followers


def step(task: Task, status: str) -> None:
    """Raise ``NotAllowedNow`` unless ``status`` may follow the task's."""
    if status not in successors(task):
        allowed = ", ".join(one for one in TASK_STATUSES if one in successors(task))
        after = f"after that come {allowed}" if allowed else "that is an end"
        raise NotAllowedNow(f"Task {task.id} is {task.status} and cannot become {status}: {after}.")


def already_reached(task: Task, status: str) -> bool:
    """Whether an actor's report comes late or again, so that there is nothing to change.

    The order of an operator outlives what happens to the work: when the worker of a Paused task is lost, the task stays Paused; once
    continued, it says that it runs, nobody works on it, and it is recovered.
    """
    if task.status == _PAUSED:
        was_given_out = task.resumes_as in GIVEN_OUT
        return status in (_PAUSED, task.resumes_as) or (was_given_out and (status in _STAGE or status == _SUSPENDED))
    if status in _STAGE and task.status in _STAGE:
        return _STAGE[task.status] >= _STAGE[status]
    return task.status == status


def killed_status(task: Task) -> str:
    """What a kill order makes of the task: Killed when nobody can be working on it, else Kill."""
    status = task.resumes_as if task.status == _PAUSED else task.status
    return TaskStatus.KILLED if status in NOT_STARTED else TaskStatus.KILL


def retry_delay_seconds(attempts: int) -> int:
    """How long to wait after ``attempts`` attempts without progress: at once, then 1, 2, 4, ... at most 60 seconds."""
    return 0 if attempts == 0 else int(min(60, 2 ** (min(attempts, 7) - 1)))
