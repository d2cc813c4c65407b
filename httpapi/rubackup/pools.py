"""Pools: what is more than a record of a declared resource."""

from __future__ import annotations

from msgspec.structs import replace

from eventlog.views.port import Condition
from httpapi import schema
from httpapi.call import Call
from httpapi.envelope import Answer
from httpapi.listing import PARAMETERS, payload_of_page, query_of
from httpapi.method import Parameter
from httpapi.records import not_found
from httpapi.rubackup.catalogue import action
from httpapi.rubackup.storage_rows import listed, show
from rbcore.resources import by_name
from rbcore.vocabulary import DESTINATION_STORAGE_TYPES, POOL_TYPES_WITH_DATA_PLANE

POOLS = by_name["pool_list"]
BACKUPS = by_name["repository"]

_BACKUP = Parameter(
    name="id",
    type="integer",
    minimum=1,
    description="Id of the backup that is to be copied or moved: its own pool is left out.",
)
_WITHOUT_DATA_PLANE = tuple(one for one in DESTINATION_STORAGE_TYPES if one not in POOL_TYPES_WITH_DATA_PLANE)
_ROW_NAME, _ROW = listed(POOLS)


@action(
    "GET",
    "/pool_list/available_for_copy_or_move",
    query=(_BACKUP, *PARAMETERS),
    data=schema.listing({"$ref": f"#/components/schemas/{_ROW_NAME}"}),
    components={_ROW_NAME: _ROW},
)
async def available_for_copy_or_move(call: Call) -> Answer:
    """Pools that can take a backup (reference 2.6): those of the types to which a copy can be queued, but its own."""
    at = await call.position_asked()
    conditions = [Condition("pool_type", "!=", kind) for kind in _WITHOUT_DATA_PLANE]
    if "id" in call.query:
        backup, _ = await call.row(BACKUPS.name, call.query["id"], at)
        if backup is None:
            raise not_found(BACKUPS, call.query["id"])
        conditions.append(Condition("pool_name", "!=", backup["pool"] or ""))
    query = query_of(POOLS.name, call.query, at)
    page = await call.page(replace(query, conditions=(*conditions, *query.conditions)))
    show(call, POOLS.name, page.rows)
    return Answer(payload_of_page(page, call.query), position=page.position)


METHODS = (available_for_copy_or_move,)
