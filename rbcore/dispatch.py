"""What the dispatcher does next: a pure function of the state and of what it knows about this process.

``next_steps`` looks at levels, not at edges: it compares what tasks say with what is under way, and names every step that
brings the two together. So a step that was lost (a crash, a full mailbox) comes up again, and a repeated look does no harm.
The dispatcher carries a step out and adds its task to ``Facts.under_way`` from the moment it begins until it has ended.

Costs follow the tasks that have not ended, never those that have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from typing import Final

import msgspec

from rbcore.entities import Backup, PendingRemoval, Task
from rbcore.indexes import BackupGroup, canonical_resource
from rbcore.state import State
from rbcore.vocabulary import BACKUP_TASKS, CLIENT_TASKS, RUNNING_STATUSES, TaskStatus, TaskType, configured

CLIENT_TASKS_MAX: Final = 2
"""Tasks that run on one client at a time; each uses several workers there."""
CATALOG_TASKS_MAX: Final = 8
"""Tasks that work on one catalog at a time."""

_RUNNING: Final = frozenset(RUNNING_STATUSES)


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the dispatcher knows and the log does not."""

    online_clients: Set[int]
    under_way: Set[int]
    """Tasks on which this process works now: a step was begun (``AssignStep`` too) and has not ended."""
    told_to_pause: Set[int] = frozenset()
    """Those of them whose worker was told to pause."""
    told_to_stop: Set[int] = frozenset()
    """Those of them whose worker was told to stop."""


class Step(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One thing to do about one task."""

    task_id: int


class AssignStep(Step, frozen=True, kw_only=True):
    """Look at the catalogs in ``catalog_ids`` and send ``AssignTask``."""

    catalog_ids: tuple[int, ...]


class StartOnClientStep(Step, frozen=True, kw_only=True):
    """Send StartBackup or StartRestore to the client."""

    client_id: int


class VerifyStep(Step, frozen=True, kw_only=True):
    """Send ``AdvanceTask(Execution)``, verify the archive, send ``RecordVerification``."""

    backup_id: int
    local_catalog_id: int


class RemoveBytesStep(Step, frozen=True, kw_only=True):
    """Send ``AdvanceTask(Execution)``, remove the archive, send ``RecordBytesRemoved``."""

    backup_id: int
    local_catalog_id: int
    archive: str


class RetryStep(Step, frozen=True, kw_only=True):
    """Send ``AdvanceTask(New)``: the time of a Suspended task has come, or its client is back."""


class RecoverStep(Step, frozen=True, kw_only=True):
    """Send ``AdvanceTask(Suspended, retry_at_ns)``: the task says it runs, and nobody works on it."""


class PauseStep(Step, frozen=True, kw_only=True):
    """Tell the worker to pause; then the task belongs to ``told_to_pause``."""


class ContinueStep(Step, frozen=True, kw_only=True):
    """Tell the worker to go on; then the task no longer belongs to ``told_to_pause``."""


class StopStep(Step, frozen=True, kw_only=True):
    """Tell the worker to stop; then the task belongs to ``told_to_stop``."""


class EndKillStep(Step, frozen=True, kw_only=True):
    """Send ``AdvanceTask(Killed)``: the order was given, and nobody works on the task (any more)."""


AnyStep = (
    AssignStep
    | StartOnClientStep
    | VerifyStep
    | RemoveBytesStep
    | RetryStep
    | RecoverStep
    | PauseStep
    | ContinueStep
    | StopStep
    | EndKillStep
)


@dataclass(slots=True)
class _Load:
    """What is taken already, and by this look."""

    clients: Counter[int] = field(default_factory=Counter)
    catalogs: Counter[int] = field(default_factory=Counter)
    resources: set[BackupGroup] = field(default_factory=set)
    """Resources of which a backup is being made: a second one waits, so that it can refer to the first."""

    def add(self, task: Task) -> None:
        if task.task_type in CLIENT_TASKS:
            self.clients[task.client_id] += 1
        if task.local_catalog_id:
            self.catalogs[task.local_catalog_id] += 1
        if task.task_type in BACKUP_TASKS:
            self.resources.add(_group(task))


def _group(task: Task) -> BackupGroup:
    return task.client_id, task.resource_type, canonical_resource(task.resource)


def next_steps(state: State, facts: Facts, now_ns: int) -> list[AnyStep]:
    """Every step that can be begun now, higher priority first, then lower id. Pure; bounds of clients and catalogs hold."""
    tasks = sorted(state.active_tasks(), key=lambda task: (-task.priority, task.id))
    load = _Load()
    for task in tasks:
        if task.status == TaskStatus.ASSIGNED or task.status in _RUNNING or task.id in facts.under_way:
            load.add(task)
    working = Counter(task.local_catalog_id for task in tasks if task.status in _RUNNING or task.id in facts.under_way)
    steps: list[AnyStep] = []
    for task in tasks:
        step = _step(state, facts, task, now_ns, load, working)
        if step is not None:
            steps.append(step)
    return steps


def _step(state: State, facts: Facts, task: Task, now_ns: int, load: _Load, working: Counter[int]) -> AnyStep | None:
    if task.id in facts.under_way:
        return _about_worker(facts, task)
    match task.status:
        case TaskStatus.NEW:
            return _assign(state, task, load)
        case TaskStatus.ASSIGNED:
            return _start(facts, task, working)
        case TaskStatus.SUSPENDED:
            return RetryStep(task_id=task.id) if _may_retry(facts, task, now_ns) else None
        case TaskStatus.KILL:
            return EndKillStep(task_id=task.id)
        case status if status in _RUNNING:
            return RecoverStep(task_id=task.id)
    return None


def _about_worker(facts: Facts, task: Task) -> AnyStep | None:
    if task.status == TaskStatus.KILL:
        return None if task.id in facts.told_to_stop else StopStep(task_id=task.id)
    if task.status == TaskStatus.PAUSED:
        return None if task.id in facts.told_to_pause else PauseStep(task_id=task.id)
    return ContinueStep(task_id=task.id) if task.id in facts.told_to_pause else None


def _may_retry(facts: Facts, task: Task, now_ns: int) -> bool:
    """A time that lies further ahead than any retry is ever set comes from a wall clock that has been set back since."""
    if task.retry_at_ns:
        longest_wait_ns = (int(configured("suspended_task_restart_period")) + 1) * 60 * 10**9
        return now_ns >= task.retry_at_ns or task.retry_at_ns - now_ns > longest_wait_ns
    return task.task_type in CLIENT_TASKS and task.client_id in facts.online_clients


def _assign(state: State, task: Task, load: _Load) -> AssignStep | None:
    if task.task_type in CLIENT_TASKS and load.clients[task.client_id] >= CLIENT_TASKS_MAX:
        return None
    if task.task_type in BACKUP_TASKS and _group(task) in load.resources:
        return None
    load.add(task)
    return AssignStep(task_id=task.id, catalog_ids=tuple(_catalogs_of(state, task)))


def _catalogs_of(state: State, task: Task) -> Iterable[int]:
    """Where the task could work."""
    if task.task_type not in BACKUP_TASKS:
        place = state.find(Backup, task.backup_id) or state.find(PendingRemoval, task.backup_id)
        return [] if place is None else [place.local_catalog_id]
    return sorted(state.indexes.catalogs_of_pool.get(task.pool_id, ()))


def _start(facts: Facts, task: Task, working: Counter[int]) -> AnyStep | None:
    """An Assigned task waits for its client, and for room at its catalog."""
    if task.task_type in CLIENT_TASKS and task.client_id not in facts.online_clients:
        return None
    if working[task.local_catalog_id] >= CATALOG_TASKS_MAX:
        return None
    working[task.local_catalog_id] += 1
    if task.task_type in CLIENT_TASKS:
        return StartOnClientStep(task_id=task.id, client_id=task.client_id)
    if task.task_type == TaskType.VERIFY:
        return VerifyStep(task_id=task.id, backup_id=task.backup_id, local_catalog_id=task.local_catalog_id)
    assert task.task_type == TaskType.DELETE, task.task_type
    return RemoveBytesStep(
        task_id=task.id, backup_id=task.backup_id, local_catalog_id=task.local_catalog_id, archive=task.archive
    )
