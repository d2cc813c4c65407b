"""server_task_info and client_task_info: the journals of a task, from the append-only view of them."""

from __future__ import annotations

from msgspec.structs import replace

from eventlog.views import TASK_JOURNAL, Condition
from httpapi import schema
from httpapi.call import Call
from httpapi.envelope import Answer
from httpapi.listing import PARAMETERS, payload_of_page, query_of
from httpapi.method import Handler, Parameter
from httpapi.records import not_found
from httpapi.rubackup.catalogue import action
from rbcore.resources import by_name

TASKS = by_name["task_queue"]
SIDES = ("server", "client")

_ID = Parameter(name="id", type="integer", minimum=1, required=True, description="Id of the task.")


def _lines_of(side: str) -> Handler:
    async def handle(call: Call) -> Answer:
        at = await call.position_asked()
        task_id: int = call.query["id"]
        query = query_of(TASK_JOURNAL.name, call.query, at)
        if call.is_limited and (await call.row(TASKS.name, task_id, at))[0] is None:
            raise not_found(TASKS, task_id)
        own = (Condition("task_id", "=", str(task_id)), Condition("side", "=", side))
        page = await call.services.views.page(replace(query, conditions=(*own, *query.conditions)))
        if not page.total:
            await _check_known(call, task_id, at)
        return Answer(payload_of_page(page, call.query), position=page.position)

    return handle


async def _check_known(call: Call, task_id: int, at: int | None) -> None:
    """Raises ``NotFound`` for a task that never was. One that was deleted from the queue keeps its journal (reference 3.4)."""
    if (await call.row(TASKS.name, task_id, at))[0] is not None:
        return
    query = query_of(TASK_JOURNAL.name, {"limit": 1}, at)
    lines = await call.services.views.page(replace(query, conditions=(Condition("task_id", "=", str(task_id)),)))
    if not lines.total:
        raise not_found(TASKS, task_id)


_DATA = schema.listing(schema.fields_object(TASK_JOURNAL.fields))

METHODS = tuple(
    action("GET", f"/{side}_task_info", roles=TASKS.read, query=(_ID, *PARAMETERS), data=_DATA)(_lines_of(side))
    for side in SIDES
)
