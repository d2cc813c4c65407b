"""Reads as data: what is asked of the views, once it is judged who asks and what he reaches.

Lists and records of declared resources, and lines of append-only views, are read in two steps. The first (``Method.read``) needs the live
state and judges; its result is one of the two here, which can be sent to another process. The second needs the views and nothing else. So a
worker that holds no state and no secret carries out what the daemon judged, with the very code that the daemon uses.
"""

from __future__ import annotations

from typing import Any

import msgspec

from eventlog.views.port import Query, ViewReader, Visible
from httpapi.envelope import Answer
from rbcore.errors import NotFound


class Overlay(msgspec.Struct, frozen=True, kw_only=True):
    """What no view knows and rows of the present show all the same: telemetry."""

    column: str
    values: tuple[str, ...]
    """Only rows whose ``column`` has one of these are changed: what was told of a task that has ended meanwhile is not shown."""
    shown: dict[int, dict[str, Any]]
    """Id -> values by column."""

    def concerns(self, record: Any) -> bool:
        """Of a record as a page has it (``Page.records``)."""
        return record.id in self.shown and getattr(record, self.column) in self.values

    def lay_on(self, row: dict[str, Any]) -> None:
        values = self.shown.get(row["id"])
        if values is not None and row[self.column] in self.values:
            row.update(values)


class PageReading(msgspec.Struct, frozen=True, kw_only=True, tag="page"):
    """A page of a list."""

    query: Query
    """With what the caller reaches."""
    overlay: Overlay | None = None

    async def answer(self, views: ViewReader) -> Answer:
        """Raises ``InvalidRequest`` naming what cannot be filtered or sorted by."""
        page = await views.page(self.query)
        if self.overlay is not None and any(map(self.overlay.concerns, page.records)):
            for row in page.rows:
                self.overlay.lay_on(row)
        query = self.query
        payload = {"items": page.items, "total": page.total, "page": query.page, "limit": query.limit}
        return Answer(payload, position=page.position)

    @property
    def at(self) -> int | None:
        return self.query.at


class RowReading(msgspec.Struct, frozen=True, kw_only=True, tag="row"):
    """One record, or one line of an append-only view."""

    resource: str
    id: int
    noun: str
    """What it is called in the sentence that says that there is none."""
    at: int | None = None
    visible: Visible = None
    overlay: Overlay | None = None

    async def answer(self, views: ViewReader) -> Answer:
        """Raises ``NotFound``, also when the caller does not reach it."""
        row, position = await views.row(self.resource, self.id, self.at, self.visible)
        if row is None:
            raise NotFound(f"{self.noun} not found", errors={"id": [f"There is no {self.noun} with id {self.id}."]})
        if self.overlay is not None:
            self.overlay.lay_on(row)
        return Answer(row, position=position)


Reading = PageReading | RowReading
