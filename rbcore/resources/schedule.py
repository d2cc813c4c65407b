"""``global_schedule`` (reference 2.14) and ``strategy_rules`` (2.15): what is backed up of a client again and again."""

from __future__ import annotations

from typing import Any, Final

from rbcore.entities import BackupStrategy, DeleteRuleRequest, Entity, ScheduleRule, StrategyRule
from rbcore.resource import Choice, Field, JsonObject, Reference, Resource, Text, Timestamp
from rbcore.resources import timetable as shared
from rbcore.resources.common import BY_CLIENT_ID, ids_of
from rbcore.state import State
from rbcore.vocabulary import BACKUP_TYPES, CRYPTO, Role

EXTENSIONS: Final[tuple[Field, ...]] = (
    JsonObject(
        name="module_extensions",
        default={"parameters": {}},
        in_list=False,
        description="Parameters of the resource type's module.",
    ),
    JsonObject(
        name="common_modules_extensions",
        default={"parameters": {}},
        in_list=False,
        description="Parameters that every module has.",
    ),
)
"""They stand beside the rule in a body, and in the rule in an answer."""

_NOTIFIED: Final = {
    "notify_normal": "a backup is done",
    "notify_exception": "a backup failed or was killed",
    "notify_rule_validity": "the validity of the rule has ended",
    "notify_verify": "a periodic verification has ended",
    "notify_end_storage_capacity": "the capacity is used up",
}
_GROUPS: Final = ("inform_when_obsoleted_copy", *_NOTIFIED)


def _has_tasks(state: State, rule: Entity) -> str | None:
    tasks = [task for task in state.active_tasks() if task.rule_id == rule.id]
    return f"tasks of it have not ended (ids {ids_of(tasks)}): kill them or wait" if tasks else None


def _prepared(state: State, values: dict[str, Any]) -> dict[str, Any]:
    return shared.with_nobody(state, shared.normalised_moment(values), _GROUPS)


_RULE_CHANGE: Final = (
    "name",
    "pool_id",
    "storage_capacity",
    "priority",
    "validity_start_period",
    "validity_end_period",
    "periodic_launch",
    "min",
    "hour",
    "dom",
    "mon",
    "dow",
    "verify_flag",
    "verify_interval",
    "storage_duration",
    "move_copy_flag",
    "move_copy_pool",
    "move_copy_while",
    "auto_delete_obsoleted_copy_flag",
    "inform_when_obsoleted_copy",
    "client_delete_flag",
    *(name for one in _NOTIFIED for name in (one, f"{one}_cc")),
    "status",
    "notify_normal_script",
    "notify_exception_script",
    "restore_script",
    "module_extensions",
    "common_modules_extensions",
)
_RULE_IMMUTABLE: Final = ("client_id", "resource_type", "resource", "backup_type", "crypto")
"""The manual's change does not know them."""

GLOBAL_SCHEDULE = Resource(
    name="global_schedule",
    kind=ScheduleRule.KIND,
    title="Global Schedule",
    noun="global schedule rule",
    entity=ScheduleRule,
    fields=(
        Text(name="name", required=True, max_length=255, pattern=r".*\S.*", example="home of alpha", indexed=True),
        shared.status_field(),
        shared.client_field(),
        *shared.resource_fields(),
        Choice(name="backup_type", required=True, values=BACKUP_TYPES, example="full"),
        shared.destination_field(),
        shared.capacity_field(10, "rule"),
        shared.priority_field(),
        Choice(name="crypto", values=CRYPTO, default="nocrypt", description="Never changes."),
        *shared.validity_fields(),
        shared.periodic_field(),
        *shared.moment_fields(),
        *shared.verify_fields(),
        shared.storage_field(),
        *shared.move_fields(),
        *shared.after_fields(),
        *shared.notify_fields(_NOTIFIED),
        shared.script_field("notify_normal_script", "Program to run when a backup is done."),
        shared.script_field("notify_exception_script", "Program to run when a backup failed."),
        shared.script_field("restore_script", "Program to run after a restore."),
        *EXTENSIONS,
        Timestamp(name="created", attribute="created_ns", event_time=True),
    ),
    create=(*_RULE_IMMUTABLE, *_RULE_CHANGE),
    change=_RULE_CHANGE,
    prepare=_prepared,
    rules=(
        shared.timetable_is_one,
        shared.validity_is_one("validity_start_ns", "validity_end_ns", "validity_start_period", "validity_end_period"),
        shared.verification_has_interval,
        shared.storage_is_some_time(),
        shared.move_has_aim(),
        shared.resource_can_be_backed_up(ScheduleRule),
        shared.pool_takes_backups(ScheduleRule),
        *shared.addresses_are_some(*(f"{one}_cc" for one in _NOTIFIED)),
    ),
    refusals=(_has_tasks,),
    deletable=True,
    manage=shared.ADMINISTRATORS_OF_RULES,
    searchable_name="name",
    scope=BY_CLIENT_ID,
)


def requests_about(state: State, rule: Entity) -> list[DeleteRuleRequest]:
    """Requests that end with the rule: what they wish has come true."""
    return [one for one in state.all(DeleteRuleRequest) if one.rule_id == rule.id]


def _strategy_rule_has_tasks(state: State, rule: Entity) -> str | None:
    tasks = [task for task in state.active_tasks() if task.strategy_rule_id == rule.id]
    return f"tasks of it have not ended (ids {ids_of(tasks)}): kill them or wait" if tasks else None


_STRATEGY_RULE: Final = (
    "client_id",
    "strategy_id",
    "resource_type",
    "resource",
    "normal_execution_script",
    "exception_execution_script",
    "priority",
    "restore_script",
    "module_extensions",
    "common_modules_extensions",
)

STRATEGY_RULES = Resource(
    name="strategy_rules",
    kind=StrategyRule.KIND,
    title="Strategy Rules",
    noun="strategy rule",
    entity=StrategyRule,
    fields=(
        shared.client_field(),
        Reference(name="strategy_id", required=True, to=BackupStrategy.KIND, by="name", example="Default"),
        *shared.resource_fields(),
        shared.priority_field(),
        shared.script_field("normal_execution_script", "Program to run when a backup is done."),
        shared.script_field("exception_execution_script", "Program to run when a backup failed."),
        shared.script_field("restore_script", "Program to run after a restore."),
        *EXTENSIONS,
        Timestamp(name="created", attribute="created_ns", event_time=True),
    ),
    create=_STRATEGY_RULE,
    change=_STRATEGY_RULE,
    rules=(shared.resource_can_be_backed_up(StrategyRule),),
    refusals=(_strategy_rule_has_tasks,),
    deletable=True,
    manage=shared.ADMINISTRATORS_OF_STRATEGIES | {"administrator"},
    searchable_name="id",
    scope={**BY_CLIENT_ID, Role.STRATEGY_ADMINISTRATOR: "strategy_id"},
)
