"""Checking a disaster recovery plan: could it be carried out now (reference 1.18, 3.22)? Found out from what is recorded: repository, client,
its modules. The result stands in the plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rbcore.chain import problem_of
from rbcore.commands import Command, Context
from rbcore.decide.decision import Decision, Draft, bounded, get
from rbcore.entities import Backup, Client, DisasterRecoveryPlan
from rbcore.events import RecordChanged
from rbcore.indexes import canonical_resource
from rbcore.protectable import module_problem
from rbcore.schedule_commands import CheckPlan
from rbcore.state import State
from rbcore.vocabulary import PlanStatus


def check(state: State, command: CheckPlan, context: Context) -> Decision:
    plan = get(state, DisasterRecoveryPlan, command.plan_id, "disaster recovery plan")
    backup, no_backup = newest_restorable(state, plan)
    status, reason = _finding(state, plan, backup, no_backup)
    draft = Draft(state)
    found = {
        "status": status,
        "status_reason": bounded([reason])[0],
        "checked_ns": context.now_ns,
        "backup_id": backup.id if backup is not None else 0,
    }
    draft.add(DisasterRecoveryPlan, plan.id, RecordChanged(found))
    data = {"id": plan.id, "status": status, "status_reason": reason, "archive_id": found["backup_id"] or None}
    return draft.decision(ids=[plan.id], data=data)


def _finding(state: State, plan: DisasterRecoveryPlan, backup: Backup | None, no_backup: str) -> tuple[str, str]:
    """Status and reason: the first thing that stands in the way, the most lasting first."""
    if backup is None:
        return PlanStatus.NO_BACKUP, no_backup
    client = state.find(Client, plan.client_id)
    if client is None:
        return PlanStatus.ERROR, "The client is no longer authorised."
    if problem := module_problem(client, plan.resource_type):
        return PlanStatus.NOT_SUPPORTED, problem
    if not client.centralized_restore:
        return (
            PlanStatus.ERROR,
            f"Client {client.hostname} does not allow restores from the server (centralized_restore).",
        )
    if not client.online:
        return PlanStatus.CLIENT_OFFLINE, f"Client {client.hostname} is not connected."
    return PlanStatus.READY, f"Backup {backup.id} can be restored."


def newest_restorable(state: State, plan: DisasterRecoveryPlan) -> tuple[Backup | None, str]:
    """The newest backup of the plan's resource (of the type, when it names none) from which all can be restored; or None and why."""
    groups = state.indexes.groups
    if plan.resource:
        ids = list(groups.get((plan.client_id, plan.resource_type, canonical_resource(plan.resource)), ()))
    else:
        ids = [
            one for key, members in groups.items() if key[:2] == (plan.client_id, plan.resource_type) for one in members
        ]
    reason = ""
    faults: dict[int, str] = {}
    for backup_id in sorted(ids, reverse=True):
        backup = get(state, Backup, backup_id, "backup")
        problem = problem_of(state, backup, faults)
        if not problem:
            return backup, ""
        if not reason:
            reason = f"None of its {len(ids)} backups can be restored; of the newest, {problem}."
    return None, reason or "There is no backup of it."


DECIDERS: dict[type[Command], Callable[[State, Any, Context], Decision]] = {CheckPlan: check}
