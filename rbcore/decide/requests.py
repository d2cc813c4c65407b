"""Requests of clients: that a rule is made, or that one about the client goes (reference 2.16).

What the reference leaves open: a client may ask when its flag ``client_side_backup`` says that its users may start backups; a rule that
comes of a request waits (status ``wait``) until an administrator lets it run; a request ends when it is answered. A client has at
most ``REQUESTS_MAX`` requests of a kind that nobody has answered: it cannot fill the log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from rbcore.commands import Command, Context
from rbcore.decide.decision import Decision, Draft, get
from rbcore.decide.declared import new_values
from rbcore.decide.fields import accept_all, invalid, text
from rbcore.decide.records import refuse_deletion
from rbcore.destination import group_named
from rbcore.entities import Client, DeleteRuleRequest, NewRuleRequest, Pool, ScheduleRule
from rbcore.errors import AccessDenied, InvalidRequest, NotFound, RbError, Refused
from rbcore.events import RecordCreated, RecordDeleted
from rbcore.resources import by_name
from rbcore.schedule_commands import AnswerRuleRequests, RequestRule, RequestRuleDeletion
from rbcore.state import State

REQUESTS_MAX: Final = 100

_RULES: Final = by_name["global_schedule"]
_NEW: Final = by_name["new_rule_requests"]
_ASKED: Final = (
    "name",
    "resource_type",
    "resource",
    "backup_type",
    "pool",
    "crypto",
    "periodic_launch",
    "min",
    "hour",
    "dom",
    "mon",
    "dow",
    "storage_duration",
    "comment",
)
"""Fields of a request that the client fills in."""


# --- clients ask -------------------------------------------------------------------------------------------------------


def request_rule(state: State, command: RequestRule, context: Context) -> Decision:
    """The rule is judged now, so that the client's user hears what is wrong with it, and again when it is approved."""
    client = _asking(state, command.client_id)
    _bounded(state, NewRuleRequest, client)
    fields = [_NEW.field(name) for name in _ASKED]
    values = accept_all(state, fields, command.rule, subject=_NEW.title, creating=True)
    values["client_id"] = client.id
    values["pool_id"] = values["pool_id"] or client.ls_pool
    new_values(_RULES, state, _rule_fields(state, values))
    draft = Draft(state)
    request_id = draft.take_id(NewRuleRequest)
    draft.add(NewRuleRequest, request_id, RecordCreated(values))
    return draft.decision(ids=[request_id])


def request_deletion(state: State, command: RequestRuleDeletion, context: Context) -> Decision:
    """Only of a rule about the client itself, and once."""
    client = _asking(state, command.client_id)
    rule = state.find(ScheduleRule, command.rule_id)
    if rule is None or rule.client_id != client.id:
        # Of other clients' rules a client does not learn whether they are there.
        raise NotFound(f"There is no rule {command.rule_id} about this client.")
    known = [one for one in state.all(DeleteRuleRequest) if one.rule_id == rule.id]
    if known:
        raise Refused(f"Request {known[0].id} asks for the deletion of rule {rule.id} already.")
    _bounded(state, DeleteRuleRequest, client)
    try:
        comment = text(command.comment, 1000)
    except ValueError as wrong:
        raise invalid("Delete Rule Request", {"comment": [f"comment: {wrong}"]}) from wrong
    draft = Draft(state)
    request = DeleteRuleRequest(
        id=draft.take_id(DeleteRuleRequest),
        client_id=client.id,
        rule_id=rule.id,
        rule_name=rule.name,
        resource_type=rule.resource_type,
        resource=rule.resource,
        backup_type=rule.backup_type,
        comment=comment,
    )
    draft.add_record(request)
    return draft.decision(ids=[request.id])


def _asking(state: State, client_id: int) -> Client:
    client = get(state, Client, client_id, "authorised client")
    if not client.client_side_backup:
        raise AccessDenied(
            f"Client {client.hostname} may not ask for rules: an administrator allows it with client_side_backup."
        )
    return client


def _bounded(state: State, kind: type[NewRuleRequest] | type[DeleteRuleRequest], client: Client) -> None:
    if sum(one.client_id == client.id for one in state.all(kind)) >= REQUESTS_MAX:
        raise Refused(f"{REQUESTS_MAX} requests of client {client.hostname} wait for an answer; more are not taken.")


def _rule_fields(state: State, request: Mapping[str, Any]) -> dict[str, Any]:
    """The body of the rule that a request asks for."""
    client = get(state, Client, request["client_id"], "authorised client")
    group = group_named(state, request["pool_id"])
    pool_name = group.name if group is not None else get(state, Pool, request["pool_id"], "pool").pool_name
    same = set(_ASKED) & set(_RULES.create)
    named = {"client_id": f"{client.hostname} ({client.hwid})", "pool_id": pool_name, "status": "wait"}
    return {name: request[name] for name in sorted(same)} | named


# --- administrators answer ---------------------------------------------------------------------------------------------


def answer(state: State, command: AnswerRuleRequests, context: Context) -> Decision:
    """Each by itself. What cannot be approved stays, with the reason in the answer."""
    resource = by_name[command.resource]
    draft = Draft(state)
    succeeded: list[int] = []
    failed: dict[str, list[str]] = {}
    for request_id in dict.fromkeys(command.ids):
        request = state.find(resource.entity, request_id)
        if request is None:
            failed[str(request_id)] = [f"There is no request with id {request_id}."]
            continue
        try:
            if command.approve:
                _approve(draft, request)
        except RbError as refused:
            reasons = [sentence for sentences in refused.errors.values() for sentence in sentences]
            failed[str(request_id)] = reasons or [refused.message]
            continue
        draft.add(resource.kind, request_id, RecordDeleted())
        succeeded.append(request_id)
    if not succeeded:
        missing = [one for one in command.ids if state.find(resource.entity, one) is None]
        if len(missing) == len(command.ids):
            raise NotFound("requests not found", errors=failed, data={"ids": missing})
        raise Refused(f"None of the requests can be approved: {next(iter(failed.values()))[0]}", errors=failed)
    return draft.decision(ids=succeeded, data={"succeeded": succeeded, "failed": failed})


def _approve(draft: Draft, request: Any) -> None:
    """Make the rule that is asked for, or end it."""
    state = draft.state
    if isinstance(request, NewRuleRequest):
        asked = {name: getattr(request, name) for name in NewRuleRequest.__struct_fields__}
        values = new_values(_RULES, state, _rule_fields(state, asked))
        draft.add(ScheduleRule, draft.take_id(ScheduleRule), RecordCreated(values))
        return
    rule = state.find(ScheduleRule, request.rule_id)
    if rule is None:
        raise InvalidRequest(f"Rule {request.rule_id} is no longer there: decline the request.")
    refuse_deletion(_RULES, state, [rule])
    draft.add(ScheduleRule, rule.id, RecordDeleted())


DECIDERS: dict[type[Command], Callable[[State, Any, Context], Decision]] = {
    RequestRule: request_rule,
    RequestRuleDeletion: request_deletion,
    AnswerRuleRequests: answer,
}
