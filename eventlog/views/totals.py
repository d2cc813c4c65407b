"""Totals of lists, remembered.

A total over a million rows takes tens of milliseconds to count, far more than the page it stands on. But row versions say
what changed: the rows that began to count between two positions are those whose version began there and still held at the
end, the rows that ceased are those whose version held at the start and ended there. So a total counted once is brought to
any other position by looking at the versions between the two, exactly, forwards and backwards in time.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from eventlog.views import past
from eventlog.views.predicates import Where
from eventlog.views.schema import EntityTable, Table, quoted

FILTERS_MAX: Final = 1024
"""Filters whose totals are remembered; the one not asked for longest goes first."""
ANCHORS_MAX: Final = 128
"""Positions at which the total of one filter is remembered; beyond it they are forgotten and begin anew."""
BRIDGE_POSITIONS_MAX: Final = 10_000
"""Farther than this from any remembered position it is counted afresh. A position between costs about 1.5 us, a row of an index
40 ns: a filter that an index answers is counted in less."""

Scalar = Callable[[str, dict[str, Any]], int]
"""Runs a query with one number as its answer, in the transaction of the page."""


class Totals:
    """Bounded memory of (filter, position, total). Belongs to one reader; its threads may share it: at worst one counts what another did."""

    def __init__(self) -> None:
        self._anchors: OrderedDict[object, list[tuple[int, int]]] = OrderedDict()

    def total(self, scalar: Scalar, table: Table, where: Where, at: int | None, position: int) -> int:
        """Rows of ``table`` for which ``where`` holds at ``at``, or now, which is ``position``."""
        key = (table.name, where.sql(), tuple(where.parameters.values()))
        wanted = position if at is None else at
        nearest = self._nearest(key, wanted)
        if nearest is not None and nearest[0] == wanted:
            return nearest[1]
        if nearest is not None and where.local and abs(nearest[0] - wanted) <= BRIDGE_POSITIONS_MAX:
            total = nearest[1] + _difference(scalar, table, where, nearest[0], wanted)
        else:
            parameters = {**where.parameters, **past.parameters(at, position)}
            counts = " + ".join(f"(SELECT count(*) {source}{where.sql()})" for source in past.sources(table, at))
            total = scalar(f"SELECT {counts}", parameters)
        self._remember(key, wanted, total)
        return total

    def _nearest(self, key: object, position: int) -> tuple[int, int] | None:
        anchors = self._anchors.get(key)
        if not anchors:
            return None
        after = bisect_left(anchors, (position, -1))
        around = anchors[max(0, after - 1) : after + 1]
        return min(around, key=lambda anchor: abs(anchor[0] - position))

    def _remember(self, key: object, position: int, total: int) -> None:
        anchors = list(self._anchors.get(key, ()))
        if len(anchors) >= ANCHORS_MAX:
            anchors = []
        insort(anchors, (position, total))
        self._anchors.pop(key, None)  # to the end, in steps of which each is harmless beside another thread's
        self._anchors[key] = anchors
        while len(self._anchors) > FILTERS_MAX:
            self._anchors.popitem(last=False)


def _difference(scalar: Scalar, table: Table, where: Where, start: int, end: int) -> int:
    """Total at ``end`` less total at ``start``."""
    low, high = min(start, end), max(start, end)
    parameters = {**where.parameters, "low": low, "high": high}
    opened, filters = quoted(f"{table.name}:opened"), where.sql()
    if isinstance(table, EntityTable):
        closed = quoted(f"{table.name}:closed")
        gained = scalar(
            f"SELECT count(*) FROM {table.quoted} AS t INDEXED BY {opened} WHERE t.from_position > :low"
            f" AND t.from_position <= :high AND (t.to_position IS NULL OR t.to_position > :high){filters}",
            parameters,
        )
        lost = scalar(
            f"SELECT count(*) FROM {table.quoted} AS t INDEXED BY {closed} WHERE t.to_position > :low"
            f" AND t.to_position <= :high AND t.from_position <= :low{filters}",
            parameters,
        )
    else:
        gained = scalar(
            f"SELECT count(*) FROM {table.quoted} AS t INDEXED BY {opened} WHERE t.position > :low AND t.position <= :high{filters}",
            parameters,
        )
        lost = 0
    return gained - lost if end >= start else lost - gained
