"""The verbs of ``library_slots``: what an operator wants done with cartridges. All but the import queue tape tasks.

Bodies are as documented: a list in ``data`` where several cartridges may be named, an object where one is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from httpapi import schema
from httpapi.call import Call
from httpapi.envelope import Answer
from httpapi.json_body import refuse
from httpapi.method import Method, Schema, StructBody
from httpapi.records import IDS_MAX
from httpapi.rubackup.catalogue import action
from httpapi.rubackup.tape import LIBRARIES, shown
from rbcore.access import Acts, Uses
from rbcore.commands import QueueTapeTasks, TapeOrder
from rbcore.entities import Pool
from rbcore.vocabulary import TapeTaskType


class Named(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A cartridge in a library."""

    library_id: int
    volume_tag: str


class NamedBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    data: Named


class NamedListBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    data: list[Named]


class ToErase(Named, frozen=True, forbid_unknown_fields=True):
    is_long_erase: bool = False
    """True: the whole tape, which takes hours. False: its beginning."""


class EraseBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    data: list[ToErase]


class ToMove(Named, frozen=True, forbid_unknown_fields=True):
    slot_id: int
    """Id of the library slot that it goes to."""


class MoveBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    data: ToMove


class ImportData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    library_id: int
    pool_name: str


class ImportBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    data: ImportData


_QUEUED: Schema = {
    "type": "object",
    "properties": {
        "tasks_ids": {
            "type": "array",
            "items": schema.ID,
            "description": "Tasks of tl_task_queue, one per cartridge, in order.",
        }
    },
    "required": ["tasks_ids"],
}


def _check_library(library_id: int) -> None:
    if library_id < 1:
        raise refuse("Must be the id of a tape library.", "library_id")


async def _queue(call: Call, task_type: str, orders: Sequence[TapeOrder]) -> Answer:
    if not 0 < len(orders) <= IDS_MAX:
        raise refuse(f"Must name between 1 and {IDS_MAX} cartridges.", "data")
    for one in orders:
        _check_library(one.library_id)
    named = Counter(one.volume_tag for one in orders)
    twice = next((tag for tag, count in named.items() if count > 1), None)
    if twice is not None:
        raise refuse(f"Cartridge {twice} is named twice.", "volume_tag")
    reply = await call.submit(QueueTapeTasks(task_type=task_type, orders=list(orders)))
    return Answer({"tasks_ids": reply.ids}, call.message, position=reply.position)


def _order(one: Any) -> TapeOrder:
    return TapeOrder(**msgspec.structs.asdict(one))


def _for_many(path: str, kind: type[msgspec.Struct], task_type: str) -> Method:
    async def handle(call: Call) -> Answer:
        return await _queue(call, task_type, [_order(one) for one in call.body.data])

    return action("PATCH", path, roles=LIBRARIES.manage, body=StructBody(kind), data=_QUEUED)(handle)


def _for_one(path: str, kind: type[msgspec.Struct], task_type: str) -> Method:
    async def handle(call: Call) -> Answer:
        return await _queue(call, task_type, [_order(call.body.data)])

    return action("PATCH", path, roles=LIBRARIES.manage, body=StructBody(kind), data=_QUEUED)(handle)


async def _move(call: Call) -> Answer:
    if call.body.data.slot_id < 1:
        raise refuse("Must be the id of a library slot.", "slot_id")
    return await _queue(call, TapeTaskType.MOVE, [_order(call.body.data)])


_IMPORTED: Schema = {
    "type": "object",
    "properties": {"ids": {"type": "array", "items": schema.ID, "description": "The tape cartridges."}},
    "required": ["ids"],
}


@action("PATCH", "/library_slots/import_cartridge", roles=LIBRARIES.manage, body=StructBody(ImportBody), data=_IMPORTED)
async def import_cartridge(call: Call) -> Answer:
    """Answered when the robot has done it, as documented."""
    data: ImportData = call.body.data
    _check_library(data.library_id)
    pool = call.services.journal.state.by_key(Pool, data.pool_name)
    await call.check(
        Acts(LIBRARIES.name, (data.library_id,), "library_id"), Uses(Pool.KIND, pool.id if pool else 0, "pool_name")
    )
    ids = await call.services.tape.import_cartridges(data.library_id, data.pool_name)
    return Answer({"ids": ids}, call.message, position=await shown(call))


METHODS: tuple[Method, ...] = (
    _for_many("/library_slots/check_ltfs", NamedListBody, TapeTaskType.CHECK_LTFS),
    _for_many("/library_slots/erase_cartridge", EraseBody, TapeTaskType.ERASE),
    _for_many("/library_slots/format_cartridge", NamedListBody, TapeTaskType.FORMAT),
    _for_one("/library_slots/export_cartridge", NamedBody, TapeTaskType.EXPORT),
    action("PATCH", "/library_slots/move_cartridge", roles=LIBRARIES.manage, body=StructBody(MoveBody), data=_QUEUED)(
        _move
    ),
    import_cartridge,
)
