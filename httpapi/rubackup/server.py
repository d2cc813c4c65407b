"""server_hello and server_state."""

from __future__ import annotations

from typing import Any

from eventlog.views.port import Query
from httpapi.call import Call
from httpapi.envelope import Answer
from httpapi.method import AT, Schema
from httpapi.rubackup.catalogue import action
from rbcore.entities import CONFIGURATION_ID

ROWS_MAX = 100
"""Rows of each list of server_state; ``total`` tells how many there are."""

_HELLO: Schema = {
    "type": "object",
    "properties": {
        "version": {"type": "string"},
        "product": {"type": "string"},
        "server_name": {"type": "string"},
        "server_address": {"type": "string"},
    },
    "required": ["version", "product", "server_name", "server_address"],
}


@action("GET", "/server_hello", data=_HELLO)
async def hello(call: Call) -> Answer:
    settings = call.services.settings
    data = {
        "version": settings.version,
        "product": "rbmedia",
        "server_name": settings.server_name,
        "server_address": settings.server_address,
    }
    return Answer(data)


_LISTS = (
    "unauthorised_clients",
    "unauthorised_media_servers",
    "expired_global_schedule",
    "expired_strategies",
    "new_rule_requests",
    "delete_rule_requests",
)
_SHORT_LIST: Schema = {
    "type": "object",
    "properties": {"total": {"type": "integer"}, "items": {"type": "array", "items": {"type": "object"}}},
    "required": ["total", "items"],
}
_STATE: Schema = {
    "type": "object",
    "properties": dict.fromkeys(_LISTS, _SHORT_LIST)
    | {
        "service_mode": {"type": "boolean", "description": "No tasks are taken or given out."},
        "log": {
            "type": "object",
            "properties": {
                "position": {"type": "integer"},
                "read_only_reason": {"type": "string", "description": "Why nothing can be written; empty: it can."},
            },
            "required": ["position", "read_only_reason"],
        },
    },
    "required": [*_LISTS, "service_mode", "log"],
}


@action("GET", "/server_state", query=(AT,), data=_STATE)
async def state(call: Call) -> Answer:
    """What waits for an operator. Rules, strategies and further media servers are lists that are empty in this release."""
    query = Query(resource="unauthorised_clients", limit=ROWS_MAX, at=await call.position_asked())
    waiting = await call.services.views.page(query)
    data: dict[str, Any] = {name: {"total": 0, "items": []} for name in _LISTS}
    data["unauthorised_clients"] = {"total": waiting.total, "items": waiting.rows}
    configuration, _ = await call.services.views.row("global_configuration", CONFIGURATION_ID, query.at)
    data["service_mode"] = configuration is not None and configuration["service_mode"]
    statistics = call.services.journal.log.statistics()
    data["log"] = {"position": statistics.durable, "read_only_reason": statistics.read_only_reason}
    return Answer(data, position=waiting.position)


METHODS = (hello, state)
