"""What may be asked of the views: typed predicates in, rows out. No SQL crosses this line."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import msgspec

Operator = Literal["=", "!=", "~", "<", ">", "<=", ">="]


class Condition(msgspec.Struct, frozen=True):
    """``field operator value``; the value is text as it came, converted by the column's type."""

    field: str
    operator: Operator
    value: str


Visible = Sequence[tuple[str, Sequence[int]]] | None
"""Access scope (``rbcore.access.Reach``): rows in which one of the (``id`` or referring field, allowed ids) holds; None: every row."""


class Query(msgspec.Struct, frozen=True, kw_only=True):
    resource: str
    conditions: Sequence[Condition] = ()
    sort_by: str = "id"
    descending: bool = False
    page: int = 1
    limit: int = 20
    at: int | None = None
    """Log position to look at; None: now."""
    visible: Visible = None


class Page(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    records: list[Any]
    """A row each, encoded as JSON with the wire values of the fields of lists (``in_list``): references as names, times as ISO 8601, in declared order, ``id`` first."""
    total: int
    position: int
    """Where the answer stands."""

    @functools.cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The records for those who read or change them: made when first asked for, and shown from then on."""
        return [msgspec.structs.asdict(one) for one in self.records]

    @property
    def items(self) -> Sequence[Any]:
        """What is shown of the page: ``rows`` if somebody has asked for them and may have changed them."""
        rows: Sequence[Any] | None = self.__dict__.get("rows")
        return self.records if rows is None else rows


class ViewReader(Protocol):
    async def page(self, query: Query) -> Page:
        """Raises ``InvalidRequest`` naming an unknown field, a field that cannot be compared or a malformed value."""

    async def row(
        self, resource: str, id: int, at: int | None = None, visible: Visible = None
    ) -> tuple[dict[str, Any] | None, int]:
        """The record, None when it is not there or not visible, and the position of the answer."""

    async def wait_for(self, position: int, deadline_seconds: float) -> None:
        """Return when the views have folded ``position`` (a client reads its own writes). Raises ``DeadlineExceeded``."""

    async def position_of(self, moment: str) -> int:
        """``?at=``: a position, or an ISO 8601 time, as a position. Raises ``InvalidRequest``."""
