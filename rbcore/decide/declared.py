"""What a body comes to by the declaration of its resource: stored values, or every fault with its field.

- Create: a field that ``create`` does not name is ignored when the resource has it (manual, 2.6) and refused when it has not.
- Change: immutable fields are ignored, never applied; only what differs is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from rbcore.decide.fields import accept_all, invalid
from rbcore.entities import Entity
from rbcore.resource import Resource
from rbcore.state import State


def new_values(resource: Resource, state: State, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Of a new record, by attribute. Raises ``InvalidRequest``."""
    wanted = [resource.field(name) for name in resource.create]
    known = {one.name for one in resource.fields} - set(resource.create)
    given = {name: value for name, value in fields.items() if name not in known}
    values = accept_all(state, wanted, given, subject=resource.title, creating=True)
    if resource.prepare is not None:
        values = resource.prepare(state, values)
    _check_rules(resource, state, 0, values)
    return values


def changed_values(resource: Resource, state: State, entity: Entity, changes: Mapping[str, Any]) -> dict[str, Any]:
    """What differs from ``entity``, by attribute. Raises ``InvalidRequest``."""
    changeable = [resource.field(name) for name in resource.change]
    immutable = {"id", *(one.name for one in resource.fields)} - set(resource.change)
    given = {name: value for name, value in changes.items() if name not in immutable}
    accepted = accept_all(state, changeable, given, subject=resource.title, creating=False)
    before = msgspec.structs.asdict(entity)
    after = {**before, **accepted}
    if resource.prepare is not None:
        after = resource.prepare(state, after)
    _check_rules(resource, state, entity.id, after)
    return {name: value for name, value in after.items() if value != before[name]}


def _check_rules(resource: Resource, state: State, id: int, values: Mapping[str, Any]) -> None:
    """Raise ``InvalidRequest`` with the sentences of all broken rules, each at its field."""
    names = {one.name for one in resource.fields}
    errors: dict[str, list[str]] = {}
    for rule in resource.rules:
        sentence = rule(state, id, values)
        if sentence is not None:
            field = sentence.partition(":")[0]
            errors.setdefault(field if field in names else "_schema", []).append(sentence)
    if errors:
        raise invalid(resource.title, errors)
