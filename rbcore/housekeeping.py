"""What goes by itself when it is old enough, ended tasks (reference 3.4), and what must not go before: immutable archives (3.6). Pure.

Journals of tasks stay. In service mode nothing goes.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from rbcore.configuration import configured, in_service_mode
from rbcore.entities import Backup, PendingRemoval, Task
from rbcore.state import State
from rbcore.vocabulary import TaskStatus, TaskType

REMOVED_AT_ONCE_MAX: Final = 500
"""Tasks of one look; the next one comes soon."""

PERIODS: Final = {
    TaskStatus.DONE: "done_tasks_remove_period",
    TaskStatus.ERROR: "error_tasks_remove_period",
    TaskStatus.BROKEN: "broken_tasks_remove_period",
    TaskStatus.KILLED: "killed_tasks_remove_period",
}
"""Status -> the key that says after how many minutes its tasks go; 0: never."""


def tasks_to_remove(state: State, now_ns: int) -> list[int]:
    """Ids, ascending within a status, at most ``REMOVED_AT_ONCE_MAX``: any that are old enough, not the oldest ones. With a million tasks to go each look
    costs what it finds, because nothing is sorted but that.

    A Delete task that failed stays while bytes wait for it: whoever restarts it needs it.
    """
    if in_service_mode(state):
        return []
    tasks: dict[int, Task] = state.tables[Task.KIND]
    found: list[int] = []
    for status, key in PERIODS.items():
        minutes = int(configured(state, key))
        if not minutes:
            continue
        before_ns = now_ns - minutes * 60 * 10**9
        old = (
            number
            for number in state.indexes.tasks_by_status[status]
            if tasks[number].ended_ns <= before_ns and not _is_awaited(state, tasks[number])
        )
        found += sorted(islice(old, REMOVED_AT_ONCE_MAX - len(found)))
    return found


def _is_awaited(state: State, task: Task) -> bool:
    if task.task_type != TaskType.DELETE or task.status == TaskStatus.DONE:
        return False
    removal = state.find(PendingRemoval, task.backup_id)
    return removal is not None and removal.task_id == task.id


def archives_to_protect(state: State, now_ns: int) -> dict[int, frozenset[str]]:
    """Catalog id -> archives in it that are immutable now: those of backups whose ``store_until`` has not come. Costs a pass over the repository."""
    if not configured(state, "immutable_archives"):
        return {}
    found: dict[int, set[str]] = {}
    for backup in state.tables[Backup.KIND].values():
        if backup.local_catalog_id and backup.store_until_ns > now_ns:
            found.setdefault(backup.local_catalog_id, set()).add(backup.archive)
    return {catalog_id: frozenset(archives) for catalog_id, archives in found.items()}
