"""Media servers: authorisation by host name, the tree down to the storages, and hardware ids with licences."""

from __future__ import annotations

from typing import Any

import msgspec

from httpapi import schema
from httpapi.call import Call
from httpapi.envelope import Answer
from httpapi.listing import PARAMETERS, payload_of_rows
from httpapi.method import AT, MANAGERS, Method, Schema, StructBody
from httpapi.rubackup.catalogue import action
from httpapi.rubackup.storage_rows import listed
from httpapi.rubackup.tape import all_rows
from rbcore.commands_servers import AuthoriseMediaServer
from rbcore.errors import NotFound
from rbcore.resources import by_name
from rbcore.vocabulary import LICENSE_TYPES

SERVERS = by_name["media_servers"]
POOLS = by_name["pool_list"]
STORAGES = ("storage_local_catalogs", "storage_block_devices", "tape_cartridges", "client_defined_storages")
"""Resources of which pools are made, and keys of a pool in the tree."""


class AuthorizeServerData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    hostname: str


class AuthorizeServerBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    data: AuthorizeServerData


_AUTHORIZED: Schema = {"type": "object", "properties": {"id": schema.ID}, "required": ["id"]}


@action("POST", "/media_servers/authorize", roles=MANAGERS, body=StructBody(AuthorizeServerBody), data=_AUTHORIZED)
async def authorize(call: Call) -> Answer:
    """``data.id`` is that of the media server it became."""
    reply = await call.submit(AuthoriseMediaServer(hostname=call.body.data.hostname))
    return Answer({"id": reply.ids[0]}, call.message, position=reply.position)


# --- the tree ------------------------------------------------------------------------------------------------------------

_KNOWN = tuple(one for one in STORAGES if one in by_name)
_ROWS = {one: listed(by_name[one]) for one in (SERVERS.name, POOLS.name, *_KNOWN)}


def _row(resource: str) -> Schema:
    return {"$ref": f"#/components/schemas/{_ROWS[resource][0]}"}


def _with_lists(row: str, lists: dict[str, Schema]) -> Schema:
    properties = {name: {"type": "array", "items": item} for name, item in lists.items()}
    return {"allOf": [_row(row), {"type": "object", "properties": properties, "required": list(properties)}]}


_TREE_POOL = _with_lists(POOLS.name, {one: _row(one) for one in _KNOWN})
_TREE = schema.listing(_with_lists(SERVERS.name, {"pools": _TREE_POOL}))


@action("GET", "/media_servers/tree", query=PARAMETERS, data=_TREE, components=dict(_ROWS.values()))
async def tree(call: Call) -> Answer:
    """Media servers, with pools or without; each with all its pools, and each of those with all its storages, as of one position."""
    servers, at = await all_rows(call, SERVERS.name, await call.position_asked())
    pools, _ = await all_rows(call, POOLS.name, at)
    for storage in _KNOWN:
        by_pool: dict[str | None, list[dict[str, Any]]] = {}
        for one in (await all_rows(call, storage, at))[0]:
            by_pool.setdefault(one["pool"], []).append(one)
        for pool in pools:
            pool[storage] = by_pool.get(pool["pool_name"], [])
    answer = payload_of_rows(servers, call.query)
    for server in answer["items"]:
        server["pools"] = [one for one in pools if one["media_server"] == server["hostname"]]
    return Answer(answer, position=at)


# --- hardware ids ----------------------------------------------------------------------------------------------------------

_HARDWARE_PROPERTIES: Schema = {
    "id": schema.ID | {"description": "Of the media server."},
    "server_name": {"type": "string"},
    "hwid": {"type": "string"},
    "license_type": {"type": "string", "enum": list(LICENSE_TYPES)},
    "client": {
        "type": ["string", "null"],
        "description": "The client of the host that is both: the one with the same hwid, else the only one with the same host name.",
    },
    "client_id": {"type": ["integer", "null"]},
}
_HARDWARE: Schema = {
    "type": "object",
    "properties": _HARDWARE_PROPERTIES,
    "required": list(_HARDWARE_PROPERTIES),
}
_HARDWARE_ROW: Schema = {"$ref": "#/components/schemas/servers_hw_id_tmp"}


def _client_of(server: dict[str, Any], clients: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Agents draw a hwid of their own unless they are told one, so a host often has two."""
    for key, name in (("hwid", server["hwid"]), ("hostname", server["hostname"])):
        found = [one for one in clients if one[key] == name]
        if len(found) == 1:
            return found[0]
    return None


async def _hardware(call: Call) -> tuple[list[dict[str, Any]], int]:
    """A row per media server."""
    servers, at = await all_rows(call, SERVERS.name, await call.position_asked())
    clients, _ = await all_rows(call, "clients", at)
    rows = []
    for one in servers:
        client = _client_of(one, clients)
        rows.append(
            {
                "id": one["id"],
                "server_name": one["hostname"],
                "hwid": one["hwid"],
                "license_type": LICENSE_TYPES[0],
                "client": client["client"] if client is not None else None,
                "client_id": client["id"] if client is not None else None,
            }
        )
    return rows, at


@action(
    "GET",
    "/servers_hw_id_tmp",
    roles=MANAGERS,
    query=PARAMETERS,
    data=schema.listing(_HARDWARE_ROW),
    components={"servers_hw_id_tmp": _HARDWARE},
)
async def hardware_ids(call: Call) -> Answer:
    rows, at = await _hardware(call)
    return Answer(payload_of_rows(rows, call.query), position=at)


@action(
    "GET",
    "/servers_hw_id_tmp/{id}",
    roles=MANAGERS,
    query=(AT,),
    data=_HARDWARE_ROW,
    components={"servers_hw_id_tmp": _HARDWARE},
)
async def hardware_id(call: Call) -> Answer:
    server_id = call.id(SERVERS.noun)
    rows, at = await _hardware(call)
    for row in rows:
        if row["id"] == server_id:
            return Answer(row, position=at)
    raise NotFound(f"{SERVERS.noun} not found", errors={"id": [f"There is no {SERVERS.noun} with id {server_id}."]})


METHODS: tuple[Method, ...] = (authorize, tree, hardware_ids, hardware_id)
