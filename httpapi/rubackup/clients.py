"""Clients: what is more than a record of a declared resource."""

from __future__ import annotations

from typing import Any

import msgspec

from eventlog.views.port import Condition, Query
from httpapi import schema
from httpapi.call import Call
from httpapi.envelope import Answer
from httpapi.json_body import refuse
from httpapi.listing import LIMIT_DEFAULT, LIMIT_MAX, PARAMETERS, payload, payload_of_rows
from httpapi.method import AT, MANAGERS, Method, Schema, StructBody
from httpapi.records import read_ids, row_schema
from httpapi.rubackup.catalogue import action
from httpapi.rubackup.dictionaries import DICTIONARIES
from httpapi.rubackup.dictionaries import row_schema as dictionary_row_schema
from rbcore.commands import AuthoriseClients
from rbcore.entities import Client
from rbcore.errors import NotFound
from rbcore.messages import ListBlockDevices, ListFilesystem, ListModuleResources
from rbcore.resources import by_name
from rbcore.vocabulary import RESOURCE_TYPES, Role

CLIENTS = by_name["clients"]
NOUN = CLIENTS.noun
OPERATORS = frozenset({Role.SUPERUSER, Role.SUPERVISOR, Role.ADMINISTRATOR})
GROUPS_IN_BODY_MAX = 1000


class AuthorizeData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    clients_ids: list[int]


class AuthorizeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    data: AuthorizeData


_AUTHORIZED: Schema = {
    "type": "object",
    "properties": {"ids": {"type": "array", "items": schema.ID, "description": "The clients that they became."}},
    "required": ["ids"],
}


@action("POST", "/clients/authorize", roles=MANAGERS, body=StructBody(AuthorizeBody), data=_AUTHORIZED)
async def authorize(call: Call) -> Answer:
    """``clients_ids`` are ids of unauthorised_clients rows; ``data.ids`` those of the clients they became."""
    reply = await call.submit(AuthoriseClients(ids=read_ids(call.body.data.clients_ids, "clients_ids")))
    return Answer({"ids": reply.ids}, call.message, position=reply.position)


_RESOURCE_TYPES = DICTIONARIES["resourse_types"][1]


@action(
    "GET",
    "/clients/{id}/resourse_type",
    roles=CLIENTS.read,
    query=PARAMETERS,
    data=schema.listing(dictionary_row_schema(_RESOURCE_TYPES)),
)
async def resource_types(call: Call) -> Answer:
    """Resource types that the agent reported it has a module for."""
    client_id = call.id(NOUN)
    row, position = await call.row("clients", client_id, await call.position_asked())
    if row is None:
        raise NotFound(f"{NOUN} not found", errors={"id": [f"There is no {NOUN} with id {client_id}."]})
    rows = [one for one in _RESOURCE_TYPES if one["name"] in row["resource_types"]]
    return Answer(payload_of_rows(rows, call.query), position=position)


class ClientsTreeGroup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which clients of a group: groups that are not named show their first page."""

    client_group_id: int
    clients_limit: int = LIMIT_DEFAULT
    clients_page: int = 1


class ClientsTreeData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    clients: list[ClientsTreeGroup] = []
    client_groups_page: int = 1
    client_groups_limit: int = LIMIT_DEFAULT
    filter_clients_hostname: str = ""


class ClientsTreeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    data: ClientsTreeData


def _check_page(page: int, limit: int, prefix: str) -> None:
    if not 1 <= page <= 10**9:
        raise refuse("Must be a whole number from 1.", f"{prefix}_page")
    if not 1 <= limit <= LIMIT_MAX:
        raise refuse(f"Must be a whole number between 1 and {LIMIT_MAX}.", f"{prefix}_limit")


_GROUP_NAME, _GROUP = row_schema(by_name["client_groups"], in_list=True)
_CLIENT_NAME, _CLIENT = row_schema(CLIENTS, in_list=True)
_TREE = schema.listing(
    {
        "allOf": [
            {"$ref": f"#/components/schemas/{_GROUP_NAME}"},
            {
                "type": "object",
                "properties": {"clients": schema.listing({"$ref": f"#/components/schemas/{_CLIENT_NAME}"})},
                "required": ["clients"],
            },
        ]
    }
)


@action(
    "POST",
    "/clients/tree",
    roles=by_name["client_groups"].read,
    body=StructBody(ClientsTreeBody),
    query=(AT,),
    data=_TREE,
    components={_GROUP_NAME: _GROUP, _CLIENT_NAME: _CLIENT},
)
async def tree(call: Call) -> Answer:
    """A page of groups, each with a page of its clients, all as of one position of the log."""
    data: ClientsTreeData = call.body.data
    _check_page(data.client_groups_page, data.client_groups_limit, "client_groups")
    if len(data.clients) > GROUPS_IN_BODY_MAX:
        raise refuse(f"Must name at most {GROUPS_IN_BODY_MAX} groups.", "clients")
    for one in data.clients:
        _check_page(one.clients_page, one.clients_limit, "clients")
    groups = await call.page(
        Query(
            resource="client_groups",
            page=data.client_groups_page,
            limit=data.client_groups_limit,
            at=await call.position_asked(),
        )
    )
    asked = {one.client_group_id: one for one in data.clients}
    await _check_groups(call, asked.keys() - {row["id"] for row in groups.rows}, groups.position)
    items: list[dict[str, Any]] = []
    for row in groups.rows:
        part = asked.get(row["id"], ClientsTreeGroup(row["id"]))
        items.append(row | {"clients": await _clients_of(call, row["name"], part, data, groups.position)})
    paging = {"page": data.client_groups_page, "limit": data.client_groups_limit}
    return Answer(payload(items, groups.total, paging), position=groups.position)


async def _check_groups(call: Call, ids: set[int], position: int) -> None:
    """A group that is not on this page may be named; one that does not exist may not."""
    for group_id in sorted(ids):
        row = (await call.row("client_groups", group_id, position))[0] if 0 < group_id < 2**63 else None
        if row is None:
            sentence = f"There is no client group with id {group_id}."
            raise NotFound("client group not found", errors={"client_group_id": [sentence]})


async def _clients_of(
    call: Call, group: str, part: ClientsTreeGroup, data: ClientsTreeData, position: int
) -> dict[str, Any]:
    conditions = [Condition("group_id", "=", group)]
    if data.filter_clients_hostname:
        conditions.append(Condition("hostname", "~", data.filter_clients_hostname))
    page = await call.page(
        Query(
            resource="clients",
            conditions=conditions,
            page=part.clients_page,
            limit=part.clients_limit,
            at=position,
        )
    )
    return payload(page.items, page.total, {"page": part.clients_page, "limit": part.clients_limit})


class ClientPathData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    client_hwid: str
    path: str


class ClientPathBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    data: ClientPathData


_LISTED: Schema = schema.listing({"type": "object"})


async def _ask(call: Call, question: ListFilesystem | ListBlockDevices | ListModuleResources) -> Answer:
    services = call.services
    hwid = call.body.data.client_hwid
    client = services.journal.state.by_key(Client, hwid)
    if client is not None and call.is_limited and not call.reached(CLIENTS.name, [client.id]):
        await call.note_denied(f"client {client.id} is out of reach")
        client = None
    if client is None:
        raise NotFound("client not found", errors={"client_hwid": [f"There is no client with hwid {hwid}."]})
    listing = await services.sessions.ask(client.id, question, services.settings.agent_wait_seconds)
    rows = listing.rows
    return Answer(payload(rows, len(rows), {"limit": max(1, len(rows))}))


@action("POST", "/list_client_filesystem", roles=OPERATORS, body=StructBody(ClientPathBody), data=_LISTED)
async def list_filesystem(call: Call) -> Answer:
    return await _ask(call, ListFilesystem(path=call.body.data.path))


@action("POST", "/list_client_block_devices", roles=OPERATORS, body=StructBody(ClientPathBody), data=_LISTED)
async def list_block_devices(call: Call) -> Answer:
    return await _ask(call, ListBlockDevices(path=call.body.data.path))


class ModuleData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    client_hwid: str
    resource_type: str
    secret_method: int = 0
    """0: no secret method. This release knows no other."""


class ModuleBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    data: ModuleData


@action("POST", "/module_resource_list", roles=OPERATORS, body=StructBody(ModuleBody), data=_LISTED)
async def module_resource_list(call: Call) -> Answer:
    """What the client's module finds that it could back up: the agent looks, at this moment, and refuses a type without a module."""
    data: ModuleData = call.body.data
    if data.resource_type not in RESOURCE_TYPES:
        raise refuse(f"Must be one of: {', '.join(RESOURCE_TYPES)}.", "resource_type")
    if data.secret_method != 0:
        raise refuse("Must be 0 (no secret method); this release knows no other.", "secret_method")
    return await _ask(call, ListModuleResources(resource_type=data.resource_type))


METHODS: tuple[Method, ...] = (
    authorize,
    resource_types,
    tree,
    list_filesystem,
    list_block_devices,
    module_resource_list,
)
