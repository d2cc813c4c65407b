"""What rows of media servers and pools show beyond their own columns, and rows of any resource as lists show them.

What follows from other records is told of the present only: of the past (``?at=``) these keys are null (as in ``tape_rows``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from httpapi.call import Call
from httpapi.method import Schema
from httpapi.records import row_schema
from httpapi.rubackup import tape_rows
from rbcore.capacity import Room, room_of_catalog, room_of_pool
from rbcore.decide.pool_target import tasks_under_way
from rbcore.entities import BlockDevice, LocalCatalog, MediaServer, Pool
from rbcore.resource import Resource
from rbcore.state import State


def _number(description: str) -> Schema:
    return {"type": ["integer", "null"], "minimum": 0, "description": f"{description} Null in the past."}


def _bytes(description: str) -> Schema:
    text = f"{description} Bytes; null: not known now, or the past."
    return {"type": ["integer", "null"], "minimum": 0, "description": text}


def _name(description: str) -> Schema:
    return {"type": ["string", "null"], "description": f"{description} Null in the past."}


ADDED: dict[str, dict[str, Schema]] = {
    **tape_rows.ADDED,
    "pool_list": {
        "size": _bytes("Room of everything in it; directories on one file system count once."),
        "used": _bytes("What its archives occupy."),
        "free": _bytes("What can still be written."),
        "archives": _number("Backups of the repository in it."),
    },
    "storage_local_catalogs": {
        "media_server": _name("Host name."),
        "size": _bytes("Of its file system."),
        "used": _bytes("What its archives occupy."),
        "free": _bytes("Of its file system."),
    },
    "storage_block_devices": {"media_server": _name("Host name.")},
    "media_servers": {"tasks": _number("Tasks under way that read or write in its pools.")},
}
"""Keys per resource, with their schemas."""


def _pool(call: Call, row: dict[str, Any]) -> dict[str, Any]:
    state = call.services.journal.state
    pool = state.find(Pool, row["id"])
    if pool is None:
        return {}
    room = room_of_pool(state, pool, call.services.rooms.fact)
    return {**_figures(room), "archives": state.indexes.backups_of("pool_id", pool.id)}


def _figures(room: Room) -> dict[str, int | None]:
    return {"size": room.size, "used": room.used, "free": room.free}


def _catalog(call: Call, row: dict[str, Any]) -> dict[str, Any]:
    state = call.services.journal.state
    catalog = state.find(LocalCatalog, row["id"])
    if catalog is None:
        return {}
    room = room_of_catalog(state, catalog.id, call.services.rooms.fact(catalog.id))
    return {**_figures(room), "media_server": _server_of(state, catalog.pool)}


def _device(call: Call, row: dict[str, Any]) -> dict[str, Any]:
    state = call.services.journal.state
    device = state.find(BlockDevice, row["id"])
    return {} if device is None else {"media_server": _server_of(state, device.pool)}


def _server_of(state: State, pool_id: int) -> str | None:
    pool = state.find(Pool, pool_id)
    server = state.find(MediaServer, pool.media_server) if pool is not None else None
    return server.hostname if server is not None else None


def _server(call: Call, row: dict[str, Any]) -> dict[str, Any]:
    return {"tasks": tasks_under_way(call.services.journal.state)[1][row["id"]]}


def _adjustment(
    resource: str, of: Callable[[Call, dict[str, Any]], dict[str, Any]]
) -> Callable[[Call, dict[str, Any]], None]:
    """A record that went since the view was read shows null, as the past does."""
    nothing = dict.fromkeys(ADDED[resource])

    def adjust(call: Call, row: dict[str, Any]) -> None:
        row.update(nothing if "at" in call.query else {**nothing, **of(call, row)})

    return adjust


ADJUSTMENTS: dict[str, Callable[[Call, dict[str, Any]], None]] = {
    **tape_rows.ADJUSTMENTS,
    **{
        name: _adjustment(name, of)
        for name, of in (
            ("pool_list", _pool),
            ("storage_local_catalogs", _catalog),
            ("storage_block_devices", _device),
            ("media_servers", _server),
        )
    },
}


def listed(resource: Resource) -> tuple[str, Schema]:
    """Name and schema of a row as lists of the resource show it."""
    return row_schema(resource, in_list=True, added=ADDED.get(resource.name))


def show(call: Call, resource: str, rows: Iterable[dict[str, Any]]) -> None:
    """Give rows out of a view the keys that lists of the resource add."""
    adjust = ADJUSTMENTS.get(resource)
    if adjust is not None:
        for row in rows:
            adjust(call, row)
