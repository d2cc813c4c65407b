"""Where a backup may go: the pool that it names, substitutes of that, or the members of a dynamic pool group (reference 2.10, 2.11, 3.10).

A group's name stands where a pool's name stands, and both are out of one namespace. Where a pool is kept as an id, a group is kept as its id
with a minus: pool 3 is 3, group 3 is -3. Which pool takes a task is decided when it is assigned (``rbcore.decide.assign``).

Belongs here: which pools come into question, in which order. Does not belong here: what a pool can take now.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rbcore.entities import DynamicPoolGroup, DynamicPoolGroupRecord, Pool, PoolSubstitution
from rbcore.protectable import pool_problem
from rbcore.resource import Rule
from rbcore.state import State
from rbcore.vocabulary import POOL_TYPES_WITH_DATA_PLANE, TAPE_POOL_TYPES, PoolType

_CLASSES: Final = (
    ("pools that keep archives whole", frozenset({PoolType.FILE_SYSTEM, PoolType.CLOUD, *TAPE_POOL_TYPES})),
    ("pools that keep blocks once", frozenset({PoolType.BLOCK_DEVICE})),
    ("pools that clients write to by themselves", frozenset({PoolType.CLIENT_DEFINED})),
)
"""Types of pools that can stand in for each other: what is a backup in one is a backup in the other (our reading of "same type class")."""


def class_of(pool_type: str) -> str:
    """For people: what the types that can stand in for this one have in common."""
    return next(words for words, types in _CLASSES if pool_type in types)


def group_named(state: State, destination: int) -> DynamicPoolGroup | None:
    """The group that a destination names; None for a pool, and for a group that is gone."""
    return state.find(DynamicPoolGroup, -destination) if destination < 0 else None


def substitutes_of(state: State, pool_id: int) -> list[int]:
    """Ids of the pools that stand in for a pool, in the order in which they are tried. Each once, never the pool itself."""
    found: list[int] = []
    link = state.by_key(PoolSubstitution, pool_id)
    while link is not None and link.substitution not in (pool_id, *found):
        found.append(link.substitution)
        link = state.by_key(PoolSubstitution, link.substitution)
    return found


def members_of(state: State, group_id: int) -> list[DynamicPoolGroupRecord]:
    """Records of a group, ascending by id."""
    found = [
        state.find(DynamicPoolGroupRecord, one) for one in sorted(state.indexes.records_of_group.get(group_id, ()))
    ]
    return [one for one in found if one is not None]


def pools_for(state: State, destination: int) -> list[int]:
    """Ids of all pools that may take a backup for ``destination``: the pool and its substitutes, or the enabled members of the group."""
    if destination < 0:
        return [one.pool for one in members_of(state, -destination) if one.enabled]
    return [destination, *substitutes_of(state, destination)]


def name_of(state: State, destination: int) -> str:
    """For people: ``pool 'Default'``, ``group 'fast'``."""
    group = group_named(state, destination)
    if group is not None:
        return f"group '{group.name}'"
    pool = state.find(Pool, destination)
    return f"pool '{pool.pool_name}'" if pool is not None else f"pool {destination}"


def is_there(state: State, destination: int) -> bool:
    return (state.find(Pool, destination) or group_named(state, destination)) is not None


def why_not_writable(state: State, destination: int) -> str:
    """Why no backup can ever go there in this release, as a sentence; empty: it can. Asked before a task comes into being."""
    group = group_named(state, destination)
    if group is not None:
        writable = ", ".join(sorted(POOL_TYPES_WITH_DATA_PLANE))
        pools = [state.find(Pool, one) for one in pools_for(state, destination)]
        if any(one is not None and one.pool_type in POOL_TYPES_WITH_DATA_PLANE for one in pools):
            return ""
        return (
            f"Group '{group.name}' has no enabled pool to which this release can write; add a pool of the type {writable} to it "
            "(POST dynamic_pool_groups_records)."
        )
    pool = state.find(Pool, destination)
    return pool_problem(pool) if pool is not None else ""


def in_one_namespace(field: str, other: type[Pool] | type[DynamicPoolGroup], noun: str) -> Rule:
    """The name in ``field`` is not that of an ``other``: pools and dynamic pool groups are named by one name in a task."""

    def rule(state: State, id: int, values: Mapping[str, Any]) -> str | None:
        found = state.by_key(other, values[field])
        if found is None:
            return None
        return f"{field}: there is a {noun} '{values[field]}' (id {found.id}), and pools and groups share their names"

    return rule
