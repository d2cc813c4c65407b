"""Tape libraries: what can be added, adding it, the tree, and synchronising what the log says with what the changer says.

Whatever asks a device goes through ``services.tape``; the log changes by commands alone.
"""

from __future__ import annotations

from typing import Any

import msgspec

from actors.port import LibraryFacts, TapeCandidate
from eventlog.views.port import Condition, Query
from httpapi import schema
from httpapi.call import Call
from httpapi.envelope import Answer
from httpapi.json_body import refuse
from httpapi.listing import LIMIT_DEFAULT, LIMIT_MAX, PARAMETERS, payload, payload_of_rows
from httpapi.method import AT, Method, Parameter, Schema, StructBody
from httpapi.records import CHANGED, read_ids
from httpapi.rubackup.catalogue import action
from httpapi.rubackup.storage_rows import listed, show
from rbcore.access import Acts, Uses
from rbcore.commands import AddTapeLibrary, DeviceFacts
from rbcore.entities import MediaServer, TapeCartridge
from rbcore.errors import InvalidRequest, LibraryHoldsUnknown
from rbcore.media import named
from rbcore.resources import by_name
from rbcore.vocabulary import DESTINATION_STORAGE_TYPES, MAIN_SERVER, TAPE_POOL_TYPES, SlotType

LIBRARIES = by_name["tape_libraries"]
DRIVES = by_name["library_tape_drives"]
CHANGERS = by_name["medium_changers"]
POOLS = by_name["pool_list"]
SERVERS = by_name["media_servers"]
METHODS_OF_ADDING = ("manual", "automatic")


# --- candidates ------------------------------------------------------------------------------------------------------

MEDIA_SERVER = Parameter(
    name="media_server",
    description="Host name of the media server that sees the devices; the main server when not given.",
)
ADDING_METHOD = Parameter(
    name="adding_method",
    values=METHODS_OF_ADDING,
    default="automatic",
    description="automatic: changers are asked which drive sits at which element. manual: they are not; sys_transfer_element is set by hand.",
)
_DEVICE_PROPERTIES: Schema = {
    "device": {"type": "string", "description": "How it is reached."},
    "scsi_path": {"type": "string"},
    "vendor": {"type": "string"},
    "model": {"type": "string"},
    "revision": {"type": "string"},
    "serial": {"type": "string"},
}
_CANDIDATE_PROPERTIES: Schema = {
    "id": schema.ID | {"description": "Good until the daemon ends."},
    **_DEVICE_PROPERTIES,
    "problem": {"type": "string", "description": "What is in the way of using it; empty: nothing is known."},
}
_CHANGER_CANDIDATE: Schema = {
    "type": "object",
    "properties": _CANDIDATE_PROPERTIES,
    "required": list(_CANDIDATE_PROPERTIES),
}
DRIVE_CANDIDATE: Schema = {
    "type": "object",
    "properties": _CANDIDATE_PROPERTIES
    | {
        "medium_changer_candidate_id": {"type": ["integer", "null"], "description": "The changer that says it has it."},
        "sys_transfer_element": {"type": ["integer", "null"], "description": "The drive element at which it sits."},
    },
    "required": [*_CANDIDATE_PROPERTIES, "medium_changer_candidate_id", "sys_transfer_element"],
}
_CANDIDATES: Schema = {
    "type": "object",
    "properties": {
        "medium_changers": {"type": "array", "items": _CHANGER_CANDIDATE},
        "tape_drives": {"type": "array", "items": DRIVE_CANDIDATE},
    },
    "required": ["medium_changers", "tape_drives"],
}


async def check_media_server(call: Call, hostname: str = "") -> None:
    """Raises ``InvalidRequest`` for a host that is no media server, ``AccessDenied`` for one that the caller does not reach. Without a name the main
    server is meant."""
    state = call.services.journal.state
    if hostname:
        server = state.by_key(MediaServer, hostname)
    else:
        server = next((one for one in state.all(MediaServer) if one.type == MAIN_SERVER), None)
    if server is None:
        sentence = f"There is no media server {hostname!r}."
        raise InvalidRequest("Bad request", errors={"media_server": [sentence]})
    await call.check(Uses(MediaServer.KIND, server.id, "media_server"))
    if server.type != MAIN_SERVER:
        sentence = f"The devices of media server {server.hostname} cannot be asked in this release."
        raise InvalidRequest("Bad request", errors={"media_server": [sentence]})


def device_row(facts: DeviceFacts) -> dict[str, Any]:
    return {
        "device": facts.device,
        "scsi_path": facts.scsi_path,
        "vendor": facts.vendor,
        "model": facts.product,
        "revision": facts.revision,
        "serial": facts.serial,
    }


def candidate_row(one: TapeCandidate) -> dict[str, Any]:
    """A changer; of a drive without where it sits."""
    return {"id": one.id, **device_row(one.facts), "problem": one.problem}


def drive_candidate_row(one: TapeCandidate) -> dict[str, Any]:
    where = {
        "medium_changer_candidate_id": one.changer_id or None,
        "sys_transfer_element": one.element_address or None,
    }
    return candidate_row(one) | where


@action(
    "GET",
    "/tape_libraries/candidates",
    roles=LIBRARIES.manage,
    query=(MEDIA_SERVER, ADDING_METHOD),
    data=_CANDIDATES,
    asks_devices=True,
)
async def candidates(call: Call) -> Answer:
    await check_media_server(call, call.query.get("media_server", ""))
    found = await call.services.tape.candidates(automatic=call.query.get("adding_method") != "manual")
    data = {
        "medium_changers": [candidate_row(one) for one in found if one.is_changer],
        "tape_drives": [drive_candidate_row(one) for one in found if not one.is_changer],
    }
    return Answer(data)


class InfoData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    media_server: str
    medium_changer_sg_path: str


class InfoBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    data: InfoData


_ELEMENT_PROPERTIES: Schema = {
    "number": {"type": "integer", "description": "Address of the element."},
    "type": {"type": "string", "enum": [SlotType.STORAGE, SlotType.IMPORT_EXPORT, SlotType.DRIVE]},
    "is_full": {"type": "boolean"},
    "volume_tag": {"type": "string"},
    "registered": {"type": "boolean", "description": "There is a tape cartridge of this bar code."},
    "exception": {"type": "string"},
}
_CHANGER_PROPERTIES = _DEVICE_PROPERTIES | {"transport_element": {"type": "integer"}}
_INFO: Schema = {
    "type": "object",
    "properties": {
        "medium_changer": {
            "type": "object",
            "properties": _CHANGER_PROPERTIES,
            "required": list(_CHANGER_PROPERTIES),
        },
        "slots": {
            "type": "array",
            "items": {"type": "object", "properties": _ELEMENT_PROPERTIES, "required": list(_ELEMENT_PROPERTIES)},
            "description": "All elements that can hold a cartridge.",
        },
        "slots_total": {"type": "integer", "description": "Storage elements."},
        "slots_used": {"type": "integer"},
    },
    "required": ["medium_changer", "slots", "slots_total", "slots_used"],
}


async def describe(call: Call, changer_device: str, drive_devices: list[str], field: str) -> LibraryFacts:
    """Ask a changer and drives; an address that is not acceptable is blamed on ``field`` of the request."""
    try:
        return await call.services.tape.describe(changer_device, drive_devices)
    except InvalidRequest as wrong:
        raise refuse(wrong.message, field) from wrong


@action("POST", "/tape_libraries/candidates/info", roles=LIBRARIES.manage, body=StructBody(InfoBody), data=_INFO)
async def candidate_info(call: Call) -> Answer:
    data: InfoData = call.body.data
    await check_media_server(call, data.media_server)
    facts = await describe(call, data.medium_changer_sg_path, [], "medium_changer_sg_path")
    state = call.services.journal.state
    slots = [
        {
            "number": one.address,
            "type": one.type,
            "is_full": one.is_full,
            "volume_tag": one.volume_tag,
            "registered": bool(one.volume_tag) and state.by_key(TapeCartridge, one.volume_tag) is not None,
            "exception": one.exception,
        }
        for one in facts.elements
    ]
    storage = [one for one in facts.elements if one.type == SlotType.STORAGE]
    answer = {
        "medium_changer": device_row(facts.changer) | {"transport_element": facts.transport_element},
        "slots": slots,
        "slots_total": len(storage),
        "slots_used": sum(one.is_full for one in storage),
    }
    return Answer(answer)


# --- adding ----------------------------------------------------------------------------------------------------------


class AddLibraryData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pool: str
    media_server: str
    medium_changer_candidate_id: int
    tape_drives_candidates_ids: list[int]
    description: str = ""


class AddLibraryBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    data: AddLibraryData


_ADDED: Schema = {
    "type": "object",
    "properties": {
        "id": schema.ID,
        "unknown_cartridges": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Bar codes in it that are not registered.",
        },
        "inventory": {"type": "object", "description": "What else the first look at the elements found."},
    },
    "required": ["id", "unknown_cartridges", "inventory"],
}


def drive_devices_of(call: Call, ids: list[int], field: str) -> list[str]:
    """Addresses of drive candidates. Raises ``InvalidRequest``, and ``NotFound`` for an id that no listing named."""
    chosen = [call.services.tape.candidate(one) for one in read_ids(ids, field)]
    for one in chosen:
        if one.is_changer:
            raise refuse(f"Candidate {one.id} is a medium changer, not a drive.", field)
    return [one.facts.device for one in chosen]


@action("POST", "/tape_libraries", roles=LIBRARIES.manage, body=StructBody(AddLibraryBody), data=_ADDED)
async def add(call: Call) -> Answer:
    """The devices are asked again: what is recorded is what they say now, not what a listing said."""
    data: AddLibraryData = call.body.data
    await check_media_server(call, data.media_server)
    if data.medium_changer_candidate_id < 1:
        raise refuse("Must be the id of a candidate.", "medium_changer_candidate_id")
    changer = call.services.tape.candidate(data.medium_changer_candidate_id)
    if not changer.is_changer:
        raise refuse(f"Candidate {changer.id} is a drive, not a medium changer.", "medium_changer_candidate_id")
    drives = drive_devices_of(call, data.tape_drives_candidates_ids, "tape_drives_candidates_ids")
    facts = await describe(call, changer.facts.device, drives, "medium_changer_candidate_id")
    command = AddTapeLibrary(
        pool=data.pool,
        media_server=data.media_server,
        description=data.description,
        changer=facts.changer,
        transport_element=facts.transport_element,
        drives=facts.drives,
        elements=facts.elements,
    )
    reply = await call.submit(command)
    inventory = dict(reply.data)
    answer = {"id": reply.ids[0], "unknown_cartridges": inventory.pop("unknown", []), "inventory": inventory}
    return Answer(answer, reply.message or call.message, position=reply.position)


# --- the tree --------------------------------------------------------------------------------------------------------


class TapeTreePools(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    limit: int = LIMIT_DEFAULT
    page: int = 1


class TapeTreeData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pools: TapeTreePools = TapeTreePools()


class TapeTreeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    data: TapeTreeData = TapeTreeData()


_ROWS = {one.name: listed(one) for one in (LIBRARIES, CHANGERS, DRIVES, POOLS)}


def _row(resource: str) -> Schema:
    return {"$ref": f"#/components/schemas/{_ROWS[resource][0]}"}


_TREE_LIBRARY: Schema = {
    "allOf": [
        _row("tape_libraries"),
        {
            "type": "object",
            "properties": {
                "medium_changers": {"type": "array", "items": _row("medium_changers")},
                "tape_drives": {"type": "array", "items": _row("library_tape_drives")},
                "slots": {"type": "array", "maxItems": 0, "description": "Always empty: GET library_slots lists them."},
            },
            "required": ["medium_changers", "tape_drives", "slots"],
        },
    ]
}
_TREE_POOL: Schema = {
    "allOf": [
        _row("pool_list"),
        {
            "type": "object",
            "properties": {"tape_libraries_ids": {"type": "array", "items": schema.ID}},
            "required": ["tape_libraries_ids"],
        },
    ]
}
_TREE: Schema = {
    "type": "object",
    "properties": {
        "tape_libraries": {"type": "array", "items": _TREE_LIBRARY},
        "pools": schema.listing(_TREE_POOL) | {"description": "Tape pools, with a library or without."},
    },
    "required": ["tape_libraries", "pools"],
}
_NOT_TAPE = tuple(
    Condition("pool_type", "!=", kind) for kind in DESTINATION_STORAGE_TYPES if kind not in TAPE_POOL_TYPES
)


async def all_rows(
    call: Call, resource: str, at: int | None, conditions: tuple[Condition, ...] = ()
) -> tuple[list[dict[str, Any]], int]:
    """Every row of a list, page after page, as of one position, with the keys that lists add; and that position."""
    rows: list[dict[str, Any]] = []
    page = 1
    while True:
        query = Query(resource=resource, conditions=conditions, page=page, limit=LIMIT_MAX, at=at)
        found = await call.page(query)
        rows += found.rows
        at, page = found.position, page + 1
        if not found.rows or len(rows) >= found.total:
            show(call, resource, rows)
            return rows, found.position


@action(
    "POST",
    "/tape_libraries/tree",
    roles=LIBRARIES.read,
    body=StructBody(TapeTreeBody),
    query=(AT,),
    data=_TREE,
    components=dict(_ROWS.values()),
)
async def tree(call: Call) -> Answer:
    """Libraries with robots and drives, and a page of the tape pools, all as of one position of the log."""
    asked: TapeTreePools = call.body.data.pools
    if not 1 <= asked.page <= 10**9:
        raise refuse("Must be a whole number from 1.", "page")
    if not 1 <= asked.limit <= LIMIT_MAX:
        raise refuse(f"Must be a whole number between 1 and {LIMIT_MAX}.", "limit")
    libraries, at = await all_rows(call, LIBRARIES.name, await call.position_asked())
    changers, _ = await all_rows(call, CHANGERS.name, at)
    drives, _ = await all_rows(call, DRIVES.name, at)
    for row in libraries:
        row["medium_changers"] = [one for one in changers if one["library_id"] == row["id"]]
        row["tape_drives"] = [one for one in drives if one["library_id"] == row["id"]]
        row["slots"] = []
    query = Query(resource=POOLS.name, conditions=_NOT_TAPE, page=asked.page, limit=asked.limit, at=at)
    pools = await call.page(query)
    show(call, POOLS.name, pools.rows)
    for row in pools.rows:
        row["tape_libraries_ids"] = [one["id"] for one in libraries if one["pool"] == row["pool_name"]]
    paging = {"page": asked.page, "limit": asked.limit}
    return Answer({"tape_libraries": libraries, "pools": payload(pools.rows, pools.total, paging)}, position=at)


# --- the rest --------------------------------------------------------------------------------------------------------


@action("POST", "/tape_libraries/{id}/sync", roles=LIBRARIES.manage, data=CHANGED)
async def synchronise(call: Call) -> Answer:
    """What is known is recorded in any case; what nobody registered is then the answer 422."""
    library_id = call.id(LIBRARIES.noun)
    await call.check(Acts(LIBRARIES.name, (library_id,)))
    unknown = await call.services.tape.synchronise(library_id)
    position = await shown(call)
    if unknown:
        raise LibraryHoldsUnknown(
            f"Library {library_id} is synchronised, but it holds cartridges that are not registered: {named(unknown)}. "
            "Register them (POST tape_cartridges), or take them out.",
            errors={"unknown_cartridges": unknown},
            data={"unknown_cartridges": unknown},
        )
    return Answer({"id": library_id}, call.message, position=position)


async def shown(call: Call) -> int:
    """Return when the views show what an actor has recorded by now: a client reads its own writes."""
    services = call.services
    await services.journal.settled()
    position = services.journal.log.head
    await services.views.wait_for(position, services.settings.view_wait_seconds)
    return position


_SERVER_ROW_NAME, _SERVER_ROW = listed(SERVERS)


@action(
    "GET",
    "/media_servers/filtered_by_tape_library_pool",
    query=PARAMETERS,
    data=schema.listing({"$ref": f"#/components/schemas/{_SERVER_ROW_NAME}"}),
    components={_SERVER_ROW_NAME: _SERVER_ROW},
)
async def media_servers_with_tape_pools(call: Call) -> Answer:
    pools, at = await all_rows(call, POOLS.name, await call.position_asked(), _NOT_TAPE)
    owners = {row["media_server"] for row in pools}
    servers, _ = await all_rows(call, SERVERS.name, at)
    return Answer(payload_of_rows([row for row in servers if row["hostname"] in owners], call.query), position=at)


METHODS: tuple[Method, ...] = (candidates, candidate_info, add, tree, synchronise, media_servers_with_tape_pools)
