"""Answers to what clients ask for, and the checking of disaster recovery plans."""

from __future__ import annotations

from typing import Any

from httpapi import schema
from httpapi.call import Call
from httpapi.envelope import Answer, partial
from httpapi.method import Method, Schema
from httpapi.records import IdsBody
from httpapi.rubackup.catalogue import action
from rbcore.resources import by_name
from rbcore.schedule_commands import AnswerRuleRequests, CheckPlan
from rbcore.vocabulary import DISASTER_RECOVERY_STATUSES

PLANS = by_name["disaster_recovery_plan"]

_SUCCEEDED: Schema = {
    "type": "object",
    "properties": {"succeeded": {"type": "array", "items": schema.ID}},
    "required": ["succeeded"],
}


def _answer(name: str, verb: str, word: str) -> Method:
    resource = by_name[name]

    async def handle(call: Call) -> Answer:
        command = AnswerRuleRequests(resource=name, ids=call.body, approve=word == "approve")
        reply = await call.submit(command)
        failed: dict[str, list[str]] = reply.data["failed"]
        if failed:
            sentences = {int(one): " ".join(reasons) for one, reasons in failed.items()}
            message = f"{len(reply.ids)} of {len(call.body)} requests were answered."
            return partial(reply.ids, sentences, message, reply.position)
        return Answer({"succeeded": reply.ids}, call.message, position=reply.position)

    return action(verb, f"/{name}/{word}", roles=resource.manage, body=IdsBody(), data=_SUCCEEDED)(handle)


_CHECKED: Schema = {
    "type": "object",
    "properties": {
        "id": schema.ID,
        "status": {"type": "string", "enum": list(DISASTER_RECOVERY_STATUSES)},
        "status_reason": {"type": "string"},
        "archive_id": {"type": ["integer", "null"], "description": "The backup that would be restored."},
    },
    "required": ["id", "status", "status_reason", "archive_id"],
}


@action("POST", "/disaster_recovery_plan/{id}/checking", roles=PLANS.manage, data=_CHECKED)
async def checking(call: Call) -> Answer:
    """200 says that the plan was checked; ``status`` says with what result, and stands in the plan from then on."""
    reply = await call.submit(CheckPlan(plan_id=call.id(PLANS.noun)))
    data: dict[str, Any] = reply.data
    return Answer(data, call.message, position=reply.position)


METHODS: tuple[Method, ...] = (
    _answer("new_rule_requests", "POST", "approve"),
    _answer("new_rule_requests", "DELETE", "decline"),
    _answer("delete_rule_requests", "POST", "approve"),
    _answer("delete_rule_requests", "DELETE", "decline"),
    checking,
)
