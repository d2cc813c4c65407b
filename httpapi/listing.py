"""Lists: the documented parameters to a ``Query``, a ``Page`` to the documented payload; the same for small fixed lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from eventlog.views.filter import parse as parse_filter
from eventlog.views.port import Condition, Page, Query
from httpapi.method import AT, Parameter
from rbcore.errors import InvalidRequest

LIMIT_DEFAULT = 20
LIMIT_MAX = 1000
ORDERS = ("asc", "desc")

PARAMETERS: tuple[Parameter, ...] = (
    Parameter(name="page", type="integer", minimum=1, maximum=10**9, default=1, description="Number of the page."),
    Parameter(
        name="limit",
        type="integer",
        minimum=1,
        maximum=LIMIT_MAX,
        default=LIMIT_DEFAULT,
        description="Entries per page.",
    ),
    Parameter(name="sort_by", default="id", description="Field to sort by."),
    Parameter(name="sort", synonym_of="sort_by", description="The same as `sort_by`."),
    Parameter(name="sort_order", values=ORDERS, default="asc", description="Sort direction."),
    Parameter(name="order", values=ORDERS, synonym_of="sort_order", description="The same as `sort_order`."),
    Parameter(
        name="filter_data",
        repeatable=True,
        description='Conditions `field operator "value"` joined by `,` (all must hold), operators `= != ~ < > <= >=`, '
        '`~` meaning contains: `pool_name~"te",pool_type="File system"`. May be repeated.',
    ),
    AT,
)


def query_of(resource: str, asked: dict[str, Any], at: int | None) -> Query:
    return Query(
        resource=resource,
        conditions=conditions_of(asked),
        sort_by=asked.get("sort_by", "id"),
        descending=asked.get("sort_order") == "desc",
        page=asked.get("page", 1),
        limit=asked.get("limit", LIMIT_DEFAULT),
        at=at,
    )


def conditions_of(asked: dict[str, Any]) -> tuple[Condition, ...]:
    return tuple(condition for text in asked.get("filter_data", ()) for condition in parse_filter(text))


def payload(rows: Sequence[Any], total: int, asked: dict[str, Any]) -> dict[str, Any]:
    return {"items": rows, "total": total, "page": asked.get("page", 1), "limit": asked.get("limit", LIMIT_DEFAULT)}


def payload_of_page(page: Page, asked: dict[str, Any]) -> dict[str, Any]:
    return payload(page.items, page.total, asked)


def payload_of_rows(rows: Sequence[dict[str, Any]], asked: dict[str, Any]) -> dict[str, Any]:
    """Filter, sort and cut a list that is held whole: dictionaries, and what an agent answered.

    Raises ``InvalidRequest`` for a field that the rows do not have, or a number that is none.
    """
    names = set(rows[0]) if rows else None
    kept = list(rows)
    for condition in conditions_of(asked):
        _check_name(condition.field, names, condition.field)
        kept = [row for row in kept if _holds(condition, row[condition.field])]
    sort_by = asked.get("sort_by")
    if sort_by is not None:
        _check_name(sort_by, names, "sort_by")
        kept.sort(key=lambda row: _rank(row[sort_by]), reverse=asked.get("sort_order") == "desc")
    elif asked.get("sort_order") == "desc":
        kept.reverse()
    page, limit = asked.get("page", 1), asked.get("limit", LIMIT_DEFAULT)
    return payload(kept[(page - 1) * limit : page * limit], len(kept), asked)


def _check_name(name: str, names: set[str] | None, field: str) -> None:
    if names is not None and name not in names:
        known = ", ".join(sorted(names))
        raise InvalidRequest("Bad request", errors={field: [f"{name!r} is not a field here; fields are: {known}."]})


def _rank(value: Any) -> tuple[int, Any]:
    """None first, then numbers, then texts: rows of one list may differ in type."""
    if value is None:
        return (0, 0)
    if isinstance(value, bool | int | float):
        return (1, value)
    return (2, str(value))


_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda have, want: have == want,
    "!=": lambda have, want: have != want,
    "<": lambda have, want: have < want,
    ">": lambda have, want: have > want,
    "<=": lambda have, want: have <= want,
    ">=": lambda have, want: have >= want,
}


def _holds(condition: Condition, value: Any) -> bool:
    if condition.operator == "~":
        return condition.value.casefold() in _as_text(value).casefold()
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return _COMPARISONS[condition.operator](value, float(condition.value))
        except ValueError as error:
            sentence = f"{condition.value!r} is not a number."
            raise InvalidRequest("Bad request", errors={condition.field: [sentence]}) from error
    return _COMPARISONS[condition.operator](_as_text(value), condition.value)


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
