"""server_hello and server_state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eventlog.views.port import Condition, Page, Query
from httpapi.call import Call
from httpapi.envelope import Answer
from httpapi.method import AT, Schema
from httpapi.rubackup.catalogue import action
from rbcore.entities import CONFIGURATION_ID
from rbcore.interval import format_moment

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
    """What waits for an operator, all as of one position."""
    at = await call.position_asked()
    expired = (Condition("validity_end_period", "<", _moment(call, at)),)
    waiting = await _short_list(call, "unauthorised_clients", at)
    position = waiting.position
    found = {
        "unauthorised_clients": waiting,
        "unauthorised_media_servers": await _short_list(call, "unauthorised_media_servers", position),
        "expired_global_schedule": await _short_list(call, "global_schedule", position, expired),
        "expired_strategies": await _short_list(call, "backup_strategies", position, expired),
        "new_rule_requests": await _short_list(call, "new_rule_requests", position),
        "delete_rule_requests": await _short_list(call, "delete_rule_requests", position),
    }
    data: dict[str, Any] = {name: {"total": found[name].total, "items": found[name].items} for name in _LISTS}
    configuration, _ = await call.services.views.row("global_configuration", CONFIGURATION_ID, position)
    data["service_mode"] = configuration is not None and configuration["service_mode"]
    statistics = call.services.journal.log.statistics()
    data["log"] = {"position": statistics.durable, "read_only_reason": statistics.read_only_reason}
    return Answer(data, position=position)


async def _short_list(call: Call, resource: str, at: int | None, conditions: Sequence[Condition] = ()) -> Page:
    query = Query(resource=resource, conditions=conditions, limit=ROWS_MAX, at=at)
    return await call.page(query)


def _moment(call: Call, at: int | None) -> str:
    """The time by which something had expired: now, or when the event at the position was recorded."""
    if at is None:
        return format_moment(call.services.clock.now_ns())
    newest = next(iter(call.services.journal.log.read(at - 1, at)), None) if at else None
    return format_moment(newest.time_ns if newest is not None else 0)


METHODS = (hello, state)
