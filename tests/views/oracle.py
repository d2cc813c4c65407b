"""What the views must show, computed from the declarations in the plainest way: fold the log, look names up, compare in Python."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from eventlog.upcasting import decode_event
from eventlog.views import LogTable
from eventlog.views.port import Condition
from rbcore import resource as declared
from rbcore.events import Envelope
from rbcore.evolve import apply
from rbcore.resource import Resource
from rbcore.state import State

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def state_at(envelopes: Sequence[Envelope], position: int) -> State:
    state = State()
    for one in envelopes[:position]:
        apply(state, one.stream, one.version, one.time_ns, one.position, decode_event(one))
    return state


def wire_time(time_ns: int | None) -> str | None:
    if not time_ns:
        return None
    return (EPOCH + timedelta(microseconds=time_ns // 1000)).replace(tzinfo=None).isoformat(timespec="microseconds")


def wire_value(field: declared.Field, held: Any, state: State, resources: Sequence[Resource]) -> Any:
    if held is None:
        return None
    match field:
        case declared.Timestamp():
            return wire_time(held)
        case declared.Reference():
            return shown_name(field, held, state, resources)
        case declared.TextList():
            return list(held)
        case declared.YesNo():
            return "yes" if held in (True, "yes") else "no"
        case declared.Boolean():
            return bool(held)
        case declared.Computed(kind="timestamp"):
            return wire_time(held)
        case _:
            return held


def shown_name(field: declared.Reference, id: int, state: State, resources: Sequence[Resource]) -> Any:
    kind, by, number = (field.or_to, field.or_by, -id) if id < 0 else (field.to, field.by, id)
    target = next(one for one in resources if one.kind == kind)
    entity = state.tables[kind].get(number)
    if entity is None and field.to == "client":
        former = state.tables["former_client"].get(id)
        if former is None:
            return None
        return {"client": f"{former.hostname} ({former.hwid})", "hwid": former.hwid}[field.by]
    return None if entity is None else held_by(target.field(by), entity)


def held_by(field: declared.Field, entity: Any) -> Any:
    return field.of(entity) if isinstance(field, declared.Computed) else getattr(entity, field.source)


def record(resource: Resource, id: int, state: State, resources: Sequence[Resource]) -> dict[str, Any] | None:
    entity = state.tables[resource.kind].get(id)
    if entity is None:
        return None
    fields = {one.name: wire_value(one, held_by(one, entity), state, resources) for one in resource.fields}
    return {"id": id, **fields}


def records(resource: Resource, state: State, resources: Sequence[Resource]) -> list[dict[str, Any]]:
    found = (record(resource, key, state, resources) for key in sorted(state.tables[resource.kind]))
    return [one for one in found if one is not None]


def lines(
    table: LogTable, envelopes: Sequence[Envelope], position: int, resources: Sequence[Resource]
) -> list[dict[str, Any]]:
    """References show the names of the moment that is looked at, not of the moment of the line."""
    made: list[Sequence[Any]] = []
    state = State()
    for one in envelopes[:position]:
        event = decode_event(one)
        kind, _, number = one.stream.partition("/")
        before = state.tables.get(kind, {}).get(int(number))
        apply(state, one.stream, one.version, one.time_ns, one.position, event)
        if type(event) in table.lines:
            made += table.lines[type(event)](one, event, state, before)
    return [
        {"id": number}
        | {
            field.name: wire_value(field, held, state, resources)
            for field, held in zip(table.fields, line, strict=True)
        }
        for number, line in enumerate(made, start=1)
    ]


def holds(condition: Condition, field: declared.Field | None, row: dict[str, Any]) -> bool:
    """Does a wire row satisfy the condition? ``field`` None: the id."""
    operator, value, shown = condition.operator, condition.value, row[condition.field]
    if operator == "!=":
        return not holds(Condition(condition.field, "=", value), field, row)
    if isinstance(field, declared.TextList):
        if operator == "=":
            return value in shown if value else not shown
        return any(value.casefold() in one.casefold() for one in shown)
    if operator == "=" and value == "":
        return shown is None or shown == ""
    if shown is None:
        return False
    kind = "integer" if field is None else getattr(field, "kind", "")
    if kind == "timestamp" or isinstance(field, declared.Timestamp):
        left: Any = datetime.fromisoformat(shown).replace(tzinfo=UTC)
        right: Any = datetime.fromisoformat(value)
        right = right if right.tzinfo else right.replace(tzinfo=UTC)
    elif kind == "integer" or isinstance(field, declared.Integer):
        left, right = shown, int(value)
    elif kind == "boolean" or isinstance(field, declared.Boolean | declared.YesNo):
        left, right = shown in (True, "yes"), value.lower() in ("true", "yes")
    else:
        left, right = shown, value
    match operator:
        case "=":
            return bool(left == right)
        case "~":
            return value.casefold() in shown.casefold()
        case "<":
            return bool(left < right)
        case ">":
            return bool(left > right)
        case "<=":
            return bool(left <= right)
        case ">=":
            return bool(left >= right)
    raise AssertionError(operator)


def sort_key(shown: Any, id: int) -> tuple[Any, ...]:
    """Rows without a value come first; ties go by id."""
    return (shown is not None, shown if shown is not None else 0, id)
