"""Rules of the global schedule, strategies and their rules: bodies in which a rule stands beside its module's parameters, statuses of
several records at once, execution by hand, parameters of a rule."""

from __future__ import annotations

from typing import Any

import msgspec

from httpapi import schema
from httpapi.call import Call
from httpapi.envelope import Answer
from httpapi.json_body import refuse
from httpapi.method import AT, Method, Parameter, PartsBody, Schema, StructBody
from httpapi.records import IDS_MAX, not_found
from httpapi.rubackup import extensions
from httpapi.rubackup.catalogue import action
from httpapi.rubackup.tasks import QUEUED, Extensions
from rbcore.commands import ChangeRecord, CreateRecord
from rbcore.resource import Resource
from rbcore.resources import by_name
from rbcore.resources.schedule import EXTENSIONS
from rbcore.schedule_commands import ChangeStatuses, ExecuteRule

RULES = by_name["global_schedule"]
STRATEGIES = by_name["backup_strategies"]
STRATEGY_RULES = by_name["strategy_rules"]
REPORTS = by_name["reports"]

_BESIDE = frozenset(field.name for field in EXTENSIONS)
_MADE: Schema = {"type": "object", "properties": {"id": schema.ID}, "required": ["id"]}

# --- a rule beside the parameters of its module ------------------------------------------------------------------------


class RuleData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    global_schedule: dict[str, Any]
    module_extensions: Extensions | msgspec.UnsetType = msgspec.UNSET
    common_modules_extensions: Extensions | msgspec.UnsetType = msgspec.UNSET


class RuleBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    data: RuleData


class RuleChangeData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    global_schedule: dict[str, Any] = {}
    module_extensions: Extensions | msgspec.UnsetType = msgspec.UNSET
    common_modules_extensions: Extensions | msgspec.UnsetType = msgspec.UNSET


class RuleChangeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    data: RuleChangeData


class StrategyRuleData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    strategy_rule: dict[str, Any]
    module_extensions: Extensions | msgspec.UnsetType = msgspec.UNSET
    common_modules_extensions: Extensions | msgspec.UnsetType = msgspec.UNSET


class StrategyRuleBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    data: StrategyRuleData


class StrategyRuleChangeData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    strategy_rule: dict[str, Any] = {}
    module_extensions: Extensions | msgspec.UnsetType = msgspec.UNSET
    common_modules_extensions: Extensions | msgspec.UnsetType = msgspec.UNSET


class StrategyRuleChangeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    data: StrategyRuleChangeData


def _fields(call: Call, key: str) -> dict[str, Any]:
    """Fields of the record: what stands under ``key``, and the parameters that stand beside it."""
    data = call.body.data
    given: dict[str, Any] = getattr(data, key)
    for name in given:
        if name in _BESIDE:
            raise refuse(f'It stands beside "{key}", not in it.', name)
    beside = {name: getattr(data, name) for name in sorted(_BESIDE)}
    return given | {name: msgspec.to_builtins(one) for name, one in beside.items() if one is not msgspec.UNSET}


def _create(resource: Resource, key: str, kind: type[msgspec.Struct]) -> Method:
    async def handle(call: Call) -> Answer:
        reply = await call.submit(CreateRecord(resource=resource.name, fields=_fields(call, key)))
        return Answer({"id": reply.ids[0]}, reply.message, position=reply.position)

    fields = [resource.field(name) for name in resource.create if name not in _BESIDE]
    body = PartsBody(kind, {key: schema.given(fields, creating=True)})
    return action("POST", f"/{resource.name}", roles=resource.manage, body=body, data=_MADE)(handle)


def _change(resource: Resource, key: str, kind: type[msgspec.Struct]) -> Method:
    async def handle(call: Call) -> Answer:
        command = ChangeRecord(resource=resource.name, id=call.id(resource.noun), changes=_fields(call, key))
        reply = await call.submit(command)
        return Answer({"id": command.id}, call.message, position=reply.position)

    fields = [resource.field(name) for name in resource.change if name not in _BESIDE]
    part = schema.given(fields, creating=False)
    body = PartsBody(kind, {key: part})
    return action("PATCH", f"/{resource.name}/{{id}}", roles=resource.manage, body=body, data=_MADE)(handle)


# --- statuses ----------------------------------------------------------------------------------------------------------


class StatusOfRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: int
    status: str


class StatusesBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    data: list[StatusOfRecord]


class StatusOfStrategy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    strategy_id: int
    status: str


class StrategyStatusesBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    data: list[StatusOfStrategy]


_IDS: Schema = {
    "type": "object",
    "properties": {"ids": {"type": "array", "items": schema.ID}},
    "required": ["ids"],
}


def _statuses(resource: Resource, kind: type[msgspec.Struct], key: str = "id") -> Method:
    async def handle(call: Call) -> Answer:
        asked: dict[int, str] = {}
        if not 0 < len(call.body.data) <= IDS_MAX:
            raise refuse(f"Must name between 1 and {IDS_MAX} records.", "data")
        for one in call.body.data:
            record_id: int = getattr(one, key)
            if not 0 < record_id < 2**63:
                raise refuse("Must be an id (a whole number from 1).", key)
            if asked.setdefault(record_id, one.status) != one.status:
                raise refuse(f"{record_id} stands twice, with two statuses.", key)
        reply = await call.submit(ChangeStatuses(resource=resource.name, statuses=asked))
        return Answer({"ids": reply.ids}, call.message, position=reply.position)

    return action("PATCH", f"/{resource.name}", roles=resource.manage, body=StructBody(kind), data=_IDS)(handle)


# --- execution and parameters ------------------------------------------------------------------------------------------


@action("POST", "/global_schedule/{id}/execution", roles=RULES.manage, data=QUEUED)
async def execution(call: Call) -> Answer:
    """The number of the task stands in ``data`` and, as for every queued task, at the end of the message."""
    reply = await call.submit(ExecuteRule(rule_id=call.id(RULES.noun)))
    (task_id,) = reply.ids
    return Answer({"task_id": task_id}, f"{call.message} TASK WAS ADDED TO QUEUE:{task_id}", position=reply.position)


_EXTENSION = (
    Parameter(name="resourse_type", required=True, description="Name of the resource type."),
    Parameter(name="id", type="integer", minimum=1, description="Id of a rule: its stored parameters."),
    AT,
)


@action(
    "GET",
    "/global_schedule/extension",
    roles=RULES.read,
    query=_EXTENSION,
    data=extensions.DATA,
    components=extensions.COMPONENTS,
)
async def extension(call: Call) -> Answer:
    stored, position = None, None
    if "id" in call.query:
        rule_id = call.query["id"]
        stored, position = await call.row(RULES.name, rule_id, await call.position_asked())
        if stored is None:
            raise not_found(RULES, rule_id)
    return Answer(extensions.for_backup(call.query["resourse_type"], stored), position=position)


METHODS: tuple[Method, ...] = (
    _create(RULES, "global_schedule", RuleBody),
    _change(RULES, "global_schedule", RuleChangeBody),
    _create(STRATEGY_RULES, "strategy_rule", StrategyRuleBody),
    _change(STRATEGY_RULES, "strategy_rule", StrategyRuleChangeBody),
    _statuses(RULES, StatusesBody),
    _statuses(REPORTS, StatusesBody),
    _statuses(STRATEGIES, StrategyStatusesBody, "strategy_id"),
    execution,
    extension,
)
