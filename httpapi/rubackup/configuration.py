"""The global configuration and the service mode (reference 1.21, 3.15)."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec.structs import asdict

from httpapi import schema
from httpapi.call import Call
from httpapi.envelope import Answer
from httpapi.method import AT, Schema, StructBody
from httpapi.records import FieldsBody
from httpapi.rubackup.catalogue import action
from rbcore.commands import ChangeConfiguration, SetServiceMode
from rbcore.entities import CONFIGURATION_ID, Configuration
from rbcore.resources import by_name

RESOURCE = by_name["global_configuration"]

_CHANGED: Schema = {
    "type": "object",
    "properties": {
        "changed": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Keys that have another value now; those that were sent with the value they had are not named.",
        }
    },
    "required": ["changed"],
}


def _answer_schema() -> Schema:
    properties = {one.name: schema.of_field(one, in_answer=True) for one in RESOURCE.fields}
    return {"type": "object", "properties": properties, "required": list(properties)}


@action("GET", "/global_configuration", roles=RESOURCE.read, query=(AT,), data=_answer_schema())
async def show(call: Call) -> Answer:
    """Before the first change there is no record, and every key has its default."""
    row, position = await call.row(RESOURCE.name, CONFIGURATION_ID, await call.position_asked())
    if row is None:
        row = asdict(Configuration(id=CONFIGURATION_ID))
    return Answer({one.name: row[one.name] for one in RESOURCE.fields}, position=position)


@action(
    "PATCH",
    "/global_configuration",
    roles=RESOURCE.manage,
    body=FieldsBody(RESOURCE, RESOURCE.change, creating=False),
    data=_CHANGED,
)
async def change(call: Call) -> Answer:
    reply = await call.submit(ChangeConfiguration(changes=call.body))
    return Answer(reply.data, call.message, position=reply.position)


class ServiceModeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Without the ``data`` wrapper (manual)."""

    service_mode: bool | Literal["yes", "no"]


_SERVICE_MODE: Schema = {
    "type": "object",
    "properties": {"service_mode": {"type": "boolean"}},
    "required": ["service_mode"],
}


@action(
    "PATCH",
    "/global_configuration/service_mode",
    roles=RESOURCE.manage,
    body=StructBody(ServiceModeBody),
    data=_SERVICE_MODE,
)
async def set_service_mode(call: Call) -> Answer:
    on = call.body.service_mode in (True, "yes")
    reply = await call.submit(SetServiceMode(on=on))
    return Answer({"service_mode": on}, call.message, position=reply.position)


METHODS = (show, change, set_service_mode)
