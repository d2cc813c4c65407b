"""The journals: clients_log, global_schedule_log, media_servers_log, repository_log, task_log (reference 2.20). Lists and single lines of
append-only views; nobody writes them, they follow from the events.

Whose roles are limited sees the lines about clients, media servers and pools that are within his reach now (``LogTable.scope``).
"""

from __future__ import annotations

from dataclasses import replace

from eventlog.views import OPERATIONS, TASK_JOURNAL, LogTable
from httpapi import schema
from httpapi.call import Call
from httpapi.envelope import Answer
from httpapi.listing import PARAMETERS, query_of
from httpapi.method import AT, Method
from httpapi.reading import Reading
from httpapi.rubackup.catalogue import action

NOUNS = {
    "clients_log": "client operation journal record",
    "global_schedule_log": "global schedule journal record",
    "media_servers_log": "media server operation journal record",
    "repository_log": "repository journal record",
    "task_log": "task journal record",
}
"""Path -> what a line is called in sentences, as in the manual."""

TABLES: dict[str, LogTable] = {"task_log": TASK_JOURNAL, **{one.name: one for one in OPERATIONS}}


def _methods_of(path: str, table: LogTable) -> list[Method]:
    noun = NOUNS[path]

    def read_all(call: Call, at: int | None) -> Reading:
        return call.reading_of_page(query_of(table.name, call.query, at))

    def read_one(call: Call, at: int | None) -> Reading:
        return call.reading_of_row(table.name, call.id(noun), noun, at)

    async def list_all(call: Call) -> Answer:
        return await call.carry_out(read_all(call, await call.position_asked()))

    async def show(call: Call) -> Answer:
        return await call.carry_out(read_one(call, await call.position_asked()))

    reference = {"$ref": f"#/components/schemas/{path}"}
    components = {path: schema.fields_object(table.fields)}
    every = action(
        "GET", f"/{path}", roles=table.read, query=PARAMETERS, data=schema.listing(reference), components=components
    )(list_all)
    one = action("GET", f"/{path}/{{id}}", roles=table.read, query=(AT,), data=reference, components=components)(show)
    return [replace(every, read=read_all), replace(one, read=read_one)]


METHODS = tuple(method for path, table in TABLES.items() for method in _methods_of(path, table))
