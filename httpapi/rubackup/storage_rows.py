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
from rbcore.decide.pool_target import tasks_under_way
from rbcore.resource import Resource


def _number(description: str) -> Schema:
    return {"type": ["integer", "null"], "minimum": 0, "description": f"{description} Null in the past."}


ADDED: dict[str, dict[str, Schema]] = {
    **tape_rows.ADDED,
    "media_servers": {"tasks": _number("Tasks under way that read or write in its pools.")},
}
"""Keys per resource, with their schemas."""


def _show_server(call: Call, row: dict[str, Any]) -> None:
    row["tasks"] = None
    if "at" not in call.query:
        row["tasks"] = tasks_under_way(call.services.journal.state)[1][row["id"]]


ADJUSTMENTS: dict[str, Callable[[Call, dict[str, Any]], None]] = {
    **tape_rows.ADJUSTMENTS,
    "media_servers": _show_server,
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
