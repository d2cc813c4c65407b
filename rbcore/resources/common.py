"""What several declarations share: rules, refusals, and the words of the sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rbcore.entities import ENTITIES, Entity, TapeTask
from rbcore.media import named
from rbcore.resource import Rule
from rbcore.state import State
from rbcore.vocabulary import ROLES, Role

KEEPERS_OF_STORAGE = frozenset({"superuser", "supervisor", "maintainer"})
"""Pools, catalogs, libraries and cartridges are theirs to change."""


EVERYBODY = frozenset(ROLES)
"""Whoever has a role may read it, because others are told of it by name: pools, media servers, groups of users."""
BY_POOL = {Role.MAINTAINER: "pool.media_server"}
"""What belongs to a pool belongs to the media server of the pool."""
BY_LIBRARY = {Role.MAINTAINER: "library_id.media_server"}
BY_CLIENT = {Role.ADMINISTRATOR: "client.group_id"}
BY_STRATEGY = {Role.STRATEGY_ADMINISTRATOR: "strategy_id"}
BY_CLIENT_ID = {Role.ADMINISTRATOR: "client_id.group_id"}


def unique(kind: str, field: str, noun: str) -> Rule:
    """No two records of the kind have the same ``field``, which is the kind's own key (``rbcore.indexes.KEYS``)."""

    def rule(state: State, id: int, values: Mapping[str, Any]) -> str | None:
        other = state.by_key(ENTITIES[kind], values[field])
        if other is None or other.id == id:
            return None
        return f"{field}: there is a {noun} '{values[field]}' already (id {other.id})"

    return rule


def is_protected(state: State, entity: Entity) -> str | None:
    """Built-in records stay (reference 1.19)."""
    return "it is built in" if getattr(entity, "protected", False) else None


def keeps_its_name(kind: str, field: str, noun: str) -> Rule:
    """A built-in record is not renamed."""

    def rule(state: State, id: int, values: Mapping[str, Any]) -> str | None:
        known = state.tables[kind].get(id)
        if known is None or not known.protected or getattr(known, field) == values[field]:
            return None
        return f"{field}: the built-in {noun} '{getattr(known, field)}' is not renamed"

    return rule


def counted(number: int, noun: str) -> str:
    return f"1 {noun}" if number == 1 else f"{number} {noun}s"


def ids_of(entities: list[Any]) -> str:
    """``7, 8, 9`` or, of many, the first ten and how many more."""
    shown = ", ".join(str(one.id) for one in entities[:10])
    return shown if len(entities) <= 10 else f"{shown} and {len(entities) - 10} more"


def active_tape_tasks(state: State, library_id: int) -> list[TapeTask]:
    """Tape tasks of the library that have not ended, ascending by id."""
    found = [state.find(TapeTask, one) for one in sorted(state.indexes.active_tape_tasks.get(library_id, ()))]
    return [one for one in found if one is not None]


def tape_tasks_sentence(tasks: list[TapeTask]) -> str | None:
    return f"tape tasks that have not ended need it (ids {named(one.id for one in tasks)})" if tasks else None
