"""Rules of the global schedule: what is more than a record. Firing by the clock is not here: that is a process manager's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rbcore.commands import Command, Context
from rbcore.configuration import refuse_in_service_mode
from rbcore.decide.decision import Decision, Draft, get, get_all
from rbcore.decide.declared import changed_values
from rbcore.decide.queue import add_task, added, check_backup
from rbcore.decide.records import declared_resource
from rbcore.entities import ScheduleRule
from rbcore.errors import InvalidRequest, Refused
from rbcore.events import RecordChanged, TaskQueued
from rbcore.quota import why_no_more_of_rule
from rbcore.schedule_commands import ChangeStatuses, ExecuteRule
from rbcore.state import State
from rbcore.vocabulary import TaskType


def change_statuses(state: State, command: ChangeStatuses, context: Context) -> Decision:
    """All or nothing; every status that is none is named with its record."""
    resource = declared_resource(command.resource)
    if "status" not in resource.change:
        raise Refused(f"The status of a {resource.noun} is not changed by a request.")
    entities = get_all(state, resource.entity, command.statuses, resource.noun)
    draft = Draft(state)
    errors: dict[str, list[str]] = {}
    for entity in entities:
        try:
            changes = changed_values(resource, state, entity, {"status": command.statuses[entity.id]})
        except InvalidRequest as wrong:
            errors[str(entity.id)] = [sentence for sentences in wrong.errors.values() for sentence in sentences]
            continue
        if changes:
            draft.add(resource.kind, entity.id, RecordChanged(changes))
    if errors:
        raise InvalidRequest(f"{resource.title}: not acceptable: {next(iter(errors.values()))[0]}.", errors=errors)
    return draft.decision(ids=[entity.id for entity in entities])


def execute(state: State, command: ExecuteRule, context: Context) -> Decision:
    """A task as the rule would make it. ``wait`` does not hinder, nor does a task of the rule that has not ended: it was ordered."""
    refuse_in_service_mode(state)
    rule = get(state, ScheduleRule, command.rule_id, "global schedule rule")
    draft = Draft(state)
    task_id = add_task(draft, task_of(state, rule))
    return added(draft, [task_id])


def task_of(state: State, rule: ScheduleRule) -> TaskQueued:
    """Raises ``InvalidRequest`` when such a backup cannot be made any more, ``Refused`` when the rule's capacity is used up."""
    if problem := why_no_more_of_rule(state, rule):
        raise Refused(
            f"{problem[0].upper()}{problem[1:]}", errors={"storage_capacity": [f"storage_capacity: {problem}"]}
        )
    values: dict[str, Any] = {
        "resource_type": rule.resource_type,
        "resource": rule.resource,
        "client_id": rule.client_id,
        "backup_type": rule.backup_type,
        "pool_id": rule.pool_id,
        "crypto": rule.crypto,
        "priority": rule.priority,
        "storage_duration": rule.storage_duration,
        "archiving": False,
    }
    check_backup(state, values)
    return TaskQueued(
        task_type=TaskType.BACKUP_GLOBAL,
        backup_id=0,
        parameters={
            "module_extensions": rule.module_extensions,
            "common_modules_extensions": rule.common_modules_extensions,
        },
        restarted_from=0,
        rule_id=rule.id,
        **values,
    )


DECIDERS: dict[type[Command], Callable[[State, Any, Context], Decision]] = {
    ChangeStatuses: change_statuses,
    ExecuteRule: execute,
}
