"""Users: making one with a first role, and everything that touches a password (reference 2.1).

A password is hashed into the secrets store here, before the command that names the hash is submitted, and never goes any further: the
core, the log and the views see its name alone. What a refused or repeated command left there is removed again; what a crash leaves is
removed at the next start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from httpapi.call import Call
from httpapi.envelope import Answer
from httpapi.json_body import refuse
from httpapi.method import ANY_USER, Method, Parameter, Schema, StructBody
from httpapi.records import CHANGED, DELETED, FieldsBody, IdsBody
from httpapi.rubackup.catalogue import action
from rbcore import passwords
from rbcore.commands import ChangeUser, CreateUser, DeleteRecords, Reply, SetCredential
from rbcore.decide.users import ROLES_AT_CREATION
from rbcore.entities import User
from rbcore.errors import InvalidRequest, NotFound, Refused
from rbcore.resources import by_name

USERS = by_name["users"]
_PASSWORD: Schema = {
    "type": "string",
    "minLength": passwords.LENGTH_MIN,
    "maxLength": passwords.BYTES_MAX,
    "writeOnly": True,
    "description": "Never shown, never recorded.",
}


@dataclass(frozen=True, slots=True)
class UserBody(FieldsBody):
    """Fields of a user, and the password beside them."""

    password: str
    """Its key."""

    def parse(self, document: dict[str, Any]) -> dict[str, Any]:
        fields = FieldsBody.parse(self, document)
        if self.password in fields:
            check_password(fields[self.password], self.password)
        elif self.creating:
            raise refuse("This field is required.", self.password)
        return fields

    def schema(self, components: dict[str, Schema]) -> Schema:
        reference = FieldsBody.schema(self, components)
        whole = components[f"{self.resource.name}_{'create' if self.creating else 'change'}"]
        whole["properties"][self.password] = _PASSWORD
        if self.creating:
            whole["required"] = [*whole.get("required", ()), self.password]
        return reference


class ChangePasswordBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    new_password: str


class _NewPassword(StructBody):
    def parse(self, document: dict[str, Any]) -> ChangePasswordBody:
        body: ChangePasswordBody = StructBody.parse(self, document)
        check_password(body.new_password, "new_password")
        return body

    def schema(self, components: dict[str, Schema]) -> Schema:
        reference = StructBody.schema(self, components)
        components[self.kind.__name__]["properties"]["new_password"] = _PASSWORD
        return reference


def check_password(password: Any, field: str) -> None:
    """Raises ``InvalidRequest``."""
    fault = "must be a text" if not isinstance(password, str) else passwords.password_fault(password)
    if fault is not None:
        raise refuse(f"{field}: {fault}", field)


async def _with_password(call: Call, password: str, command: CreateUser | ChangeUser | SetCredential) -> Reply:
    """Submit the command with the name of a new hash in it; a hash that came to nothing is removed."""
    credentials = call.services.credentials
    credential_id = await credentials.create(password)
    try:
        reply = await call.submit(msgspec.structs.replace(command, credential_id=credential_id))
    except (InvalidRequest, NotFound, Refused):
        await credentials.remove(credential_id)
        raise
    user = call.services.journal.state.find(User, reply.ids[0])
    if user is None or user.credential_id != credential_id:  # a repeat, which got the first answer
        await credentials.remove(credential_id)
    if former := reply.data.get("former_credential_id"):
        await credentials.remove(former)
    return reply


_ROLE = (
    Parameter(name="role", values=ROLES_AT_CREATION, description="Role of the new user; none when not given."),
    Parameter(name="client_group", description="Name of the client group; for administrators."),
    Parameter(name="media_server", description="Host name of the media server; for maintainers."),
)
_CREATED: Schema = {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}


@action(
    "POST",
    "/users",
    roles=USERS.manage,
    body=UserBody(USERS, USERS.create, True, "user_password"),
    query=_ROLE,
    data=_CREATED,
)
async def create(call: Call) -> Answer:
    fields = dict(call.body)
    password = fields.pop("user_password")
    command = CreateUser(fields=fields, credential_id="", **call.query)
    reply = await _with_password(call, password, command)
    return Answer({"id": reply.ids[0]}, reply.message, position=reply.position)


@action(
    "PATCH",
    "/users/{id}",
    roles=USERS.manage,
    body=UserBody(USERS, USERS.change, False, "new_password"),
    data=_CREATED,
)
async def change(call: Call) -> Answer:
    fields = dict(call.body)
    password = fields.pop("new_password", "")
    command = ChangeUser(user_id=call.id(USERS.noun), changes=fields)
    reply = await _with_password(call, password, command) if password else await call.submit(command)
    return Answer({"id": command.user_id}, call.message, position=reply.position)


@action("PATCH", "/users/change_password", roles=ANY_USER, body=_NewPassword(ChangePasswordBody), data=CHANGED)
async def change_password(call: Call) -> Answer:
    """Of whoever asks. Every login of his ends with it, this one too."""
    command = SetCredential(user_id=call.caller.user_id, credential_id="")
    reply = await _with_password(call, call.body.new_password, command)
    return Answer({"id": call.caller.user_id}, call.message, position=reply.position)


async def _delete(call: Call, ids: list[int]) -> Answer:
    reply = await call.submit(DeleteRecords(resource=USERS.name, ids=ids))
    for credential_id in reply.data["former_credential_ids"]:
        await call.services.credentials.remove(credential_id)
    return Answer({"ids": reply.ids}, call.message, position=reply.position)


@action("DELETE", "/users/{id}", roles=USERS.manage, data=DELETED)
async def delete_one(call: Call) -> Answer:
    return await _delete(call, [call.id(USERS.noun)])


@action("DELETE", "/users", roles=USERS.manage, body=IdsBody(), data=DELETED)
async def delete_many(call: Call) -> Answer:
    return await _delete(call, call.body)


METHODS: tuple[Method, ...] = (create, change, change_password, delete_one, delete_many)
