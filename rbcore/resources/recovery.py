"""``disaster_recovery_plan`` (reference 2.18, 3.22)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rbcore.entities import Client, DisasterRecoveryPlan
from rbcore.protectable import path_problem, resource_problem
from rbcore.resource import Boolean, Choice, Computed, Reference, Resource, Text, Timestamp
from rbcore.resources import timetable as shared
from rbcore.resources.common import BY_CLIENT
from rbcore.state import State
from rbcore.vocabulary import DISASTER_RECOVERY_STATUSES, PlanStatus


def _plan_is_possible(state: State, id: int, values: Mapping[str, Any]) -> str | None:
    """Only what no later change can mend. Whether it can be carried out today is what checking finds out."""
    if values["resource"] and (problem := resource_problem(values["resource_type"], values["resource"])):
        return f"resource: {problem}"
    if values["restore_destination"] and (problem := path_problem(values["restore_destination"])):
        return f"restore_destination: {problem}"
    return None


_AIM: Final = ("client_id", "resource_type", "resource", "restore_destination")


def _unchecked_when_changed(state: State, values: dict[str, Any]) -> dict[str, Any]:
    """What was found holds for the plan as it was."""
    before = state.find(DisasterRecoveryPlan, values.get("id", 0))
    if before is None or all(getattr(before, one) == values[one] for one in _AIM):
        return values
    return {**values, "status": PlanStatus.NOT_CHECKED, "status_reason": "", "checked_ns": 0, "backup_id": 0}


_PLAN: Final = (
    "client",
    "resource_type",
    "resource",
    "restore_destination",
    "autorun",
    "priority",
    "description",
)

DISASTER_RECOVERY_PLAN = Resource(
    name="disaster_recovery_plan",
    kind=DisasterRecoveryPlan.KIND,
    title="Disaster Recovery Plan",
    noun="disaster recovery plan",
    entity=DisasterRecoveryPlan,
    fields=(
        Reference(
            name="client",
            attribute="client_id",
            required=True,
            to=Client.KIND,
            by="client",
            example="rubackup-client (525a99154f3505a2)",
            description="hostname (hwid).",
        ),
        Text(
            name="resource_type",
            required=True,
            max_length=255,
            pattern=r".*\S.*",
            example="File system",
            description="Also one that no module knows: checking says so.",
        ),
        Text(name="resource", default="", example="/home/", description="Empty: the newest backup of the type."),
        Text(name="restore_destination", default="", description="Directory; empty: where the data came from."),
        Boolean(name="autorun", default=False, description="Starts by itself when the client comes back new."),
        shared.priority_field(),
        Text(name="description", default=""),
        Choice(
            name="status", values=DISASTER_RECOVERY_STATUSES, description="What the last check found.", indexed=True
        ),
        Text(name="status_reason", description="Why it has its status."),
        Timestamp(name="checked", attribute="checked_ns", event_time=True),
        Computed(
            name="archive_id",
            of=lambda plan: plan.backup_id or None,
            kind="integer",
            description="The backup that the last check found.",
        ),
        Timestamp(name="created", attribute="created_ns", event_time=True),
    ),
    create=_PLAN,
    change=_PLAN,
    prepare=_unchecked_when_changed,
    rules=(_plan_is_possible,),
    deletable=True,
    manage=shared.ADMINISTRATORS_OF_RULES,
    searchable_name="id",
    scope=BY_CLIENT,
)
