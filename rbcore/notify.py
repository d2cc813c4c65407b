"""Who is told of what: the notifications that follow from the events of a decision (reference 1.6, 3.24). Pure.

A rule, or a strategy, names for each occasion a group of users and further addresses. Each notification is a record of its own, made in the same
batch as the event that it is about. It waits as ``New`` for whoever sends it; where nobody has an address it is ``No recipients``.
``Nobody``, the default of all rules, means that nobody wants to know: then there is no record, unless further addresses are given.

Belongs here: what follows from events. Does not belong here: what follows from time that passes (an expired rule, an obsolete backup), sending.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from rbcore.entities import Backup, BackupStrategy, Entity, Notification, ScheduleRule, Task, User, UserGroup
from rbcore.events import BackupVerified, Event, NewEvent, RecordCreated, RecordDeleted, TaskStatusChanged
from rbcore.state import State
from rbcore.vocabulary import BACKUP_TASKS, NOBODY, TERMINAL_STATUSES, TaskStatus

NOTIFICATIONS_MAX: Final = 10_000
"""Records that are kept; each one more takes the place of the oldest. The log has them all."""


def notifications_of(state: State, events: Sequence[NewEvent]) -> list[NewEvent]:
    """What ``events``, decided in ``state``, want told."""
    found = [one for event in events for one in _told(state, event)]
    if not found:
        return []
    first = state.next_id(Notification)
    made = [
        NewEvent(f"{Notification.KIND}/{first + number}", RecordCreated(fields)) for number, fields in enumerate(found)
    ]
    kept = state.tables[Notification.KIND]
    too_many = len(kept) + len(made) - NOTIFICATIONS_MAX
    oldest = sorted(kept)[:too_many] if too_many > 0 else []
    return [*made, *(NewEvent(f"{Notification.KIND}/{one}", RecordDeleted()) for one in oldest)]


def _told(state: State, event: NewEvent) -> Iterator[dict[str, Any]]:
    body: Event = event.event
    if isinstance(body, TaskStatusChanged) and body.status in TERMINAL_STATUSES:
        task = state.find(Task, int(event.stream.partition("/")[2]))
        if task is not None and task.task_type in BACKUP_TASKS:
            occasion = "notify_normal" if body.status == TaskStatus.DONE else "notify_exception"
            text = f"Task {task.id}, backup of {task.resource_type} {task.resource}: {body.status}"
            text += f", {body.reason}" if body.reason else ""
            yield from _notices(state, task, occasion, text, task.client_id, task.id)
    elif isinstance(body, BackupVerified):
        backup = state.find(Backup, int(event.stream.partition("/")[2]))
        if backup is not None:
            text = f"Verification of backup {backup.id}, {backup.resource_type} {backup.resource}: {body.status}"
            text += f", {body.findings[0]}" if body.findings else ""
            yield from _notices(state, backup, "notify_verify", text, backup.client_id, body.task_id)


def _notices(
    state: State, of: Task | Backup, occasion: str, text: str, client_id: int, task_id: int
) -> Iterator[dict[str, Any]]:
    """For what made the task or backup: a rule of the global schedule, or a strategy."""
    rule, strategy = state.find(ScheduleRule, of.rule_id), state.find(BackupStrategy, of.strategy_id)
    asking: list[tuple[str, Entity | None]] = [("global schedule rule", rule), ("strategy", strategy)]
    for noun, one in asking:
        if one is None:
            continue
        group, cc = state.find(UserGroup, getattr(one, occasion)), getattr(one, f"{occasion}_cc")
        is_wanted = group is not None and group.groupname != NOBODY
        if not is_wanted and not cc.strip():
            continue
        status = "New" if cc.strip() or _has_addresses(state, group) else "No recipients"
        made = Notification(
            id=0,
            event=occasion,
            object=f"{noun} '{getattr(one, 'name')}'",  # noqa: B009  both have a name, their base has none
            text=text,
            user_group=group.id if group is not None else 0,
            cc=cc,
            status=status,
            client_id=client_id,
            task_id=task_id,
        )
        fields = msgspec.to_builtins(made)
        del fields["id"], fields["created_ns"]
        yield fields


def _has_addresses(state: State, group: UserGroup | None) -> bool:
    if group is None or group.groupname == NOBODY:
        return False
    return any(user.group_id == group.id and user.email.strip() for user in state.all(User))
