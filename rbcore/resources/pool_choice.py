"""``pool_substitution``, ``dynamic_pool_groups`` and ``dynamic_pool_groups_records`` (reference 2.10, 2.11, 3.11).

What they do to a task stands in ``rbcore.destination`` and ``rbcore.decide.assign``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rbcore.destination import class_of, in_one_namespace, substitutes_of
from rbcore.entities import DynamicPoolGroup, DynamicPoolGroupRecord, Entity, Pool, PoolSubstitution
from rbcore.resource import Boolean, Integer, Reference, Resource, Text
from rbcore.resources.common import BY_POOL, EVERYBODY, KEEPERS_OF_STORAGE, ids_of, unique
from rbcore.resources.referred import is_not_referred_to
from rbcore.state import State

# --- substitution ------------------------------------------------------------------------------------------------------


def _one_substitute(state: State, id: int, values: Mapping[str, Any]) -> str | None:
    known = state.by_key(PoolSubstitution, values["pool"])
    if known is None or known.id == id:
        return None
    return f"pool: it has a substitution already (id {known.id}); delete that first"


def _ends_somewhere(state: State, id: int, values: Mapping[str, Any]) -> str | None:
    pool, substitution = values["pool"], values["substitution"]
    if pool == substitution:
        return "substitution: a pool does not stand in for itself"
    if pool in substitutes_of(state, substitution):
        return "substitution: the chain of substitutions would come back to the pool"
    return None


def _same_class(state: State, id: int, values: Mapping[str, Any]) -> str | None:
    pool, substitution = state.find(Pool, values["pool"]), state.find(Pool, values["substitution"])
    if pool is None or substitution is None or class_of(pool.pool_type) == class_of(substitution.pool_type):
        return None
    return (
        f"substitution: '{substitution.pool_name}' is one of the {class_of(substitution.pool_type)}, and '{pool.pool_name}' is one of the "
        f"{class_of(pool.pool_type)}"
    )


POOL_SUBSTITUTION = Resource(
    name="pool_substitution",
    kind=PoolSubstitution.KIND,
    title="Pool Substitution",
    noun="pool substitution",
    entity=PoolSubstitution,
    fields=(
        Reference(
            name="pool",
            required=True,
            to=Pool.KIND,
            by="pool_name",
            example="Default",
            description="A backup that it cannot take goes to the substitution. A pool has one.",
        ),
        Reference(
            name="substitution",
            required=True,
            to=Pool.KIND,
            by="pool_name",
            example="Default2",
            description="May have a substitution itself: the chain is followed to its end, and it has no cycle.",
        ),
    ),
    create=("pool", "substitution"),
    rules=(_one_substitute, _ends_somewhere, _same_class),
    deletable=True,
    manage=KEEPERS_OF_STORAGE,
    scope=BY_POOL,
)

# --- groups --------------------------------------------------------------------------------------------------------------


def _has_tasks(state: State, group: Entity) -> str | None:
    tasks = [task for task in state.active_tasks() if task.requested_pool_id == -group.id]
    return f"tasks that have not ended name it (ids {ids_of(tasks)})" if tasks else None


def _limit(name: str, default: int, unit: str, description: str, *, minimum: int = 0, maximum: int = 10**9) -> Integer:
    return Integer(name=name, default=default, unit=unit, description=description, minimum=minimum, maximum=maximum)


_LIMITS = (
    _limit("max_pool_tasks", 10, "tasks", "A pool with so many tasks under way takes no more.", minimum=1),
    _limit("max_media_server_tasks", 10, "tasks", "The same for the media server of the pool.", minimum=1),
    _limit(
        "max_cpu_usage", 80, "percent", "A media server that is as busy as that takes no more.", minimum=1, maximum=100
    ),
    _limit("max_in_block_operations", 0, "operations per second", "Writes to its block devices; 0: not looked at."),
    _limit("max_out_block_operations", 0, "operations per second", "Reads from its block devices; 0: not looked at."),
    _limit("calculation_period", 10, "seconds", "Load is averaged over it.", minimum=1, maximum=86_400),
)
_GROUP_FIELDS = ("name", *(one.name for one in _LIMITS), "description")

DYNAMIC_POOL_GROUPS = Resource(
    name="dynamic_pool_groups",
    kind=DynamicPoolGroup.KIND,
    title="Dynamic Pool Groups",
    noun="pool group",
    entity=DynamicPoolGroup,
    fields=(
        Text(
            name="name",
            required=True,
            max_length=255,
            pattern=r".*\S.*",
            example="fast_pools",
            description="Unique, and no pool's name: it can stand where a backup names a pool.",
            indexed=True,
        ),
        *_LIMITS,
        Text(name="description", default=""),
    ),
    create=_GROUP_FIELDS,
    change=_GROUP_FIELDS,
    rules=(unique(DynamicPoolGroup.KIND, "name", "pool group"), in_one_namespace("name", Pool, "pool")),
    refusals=(_has_tasks, is_not_referred_to(DynamicPoolGroup.KIND)),
    deletable=True,
    read=EVERYBODY,
    searchable_name="name",
)


def _group_is_there(state: State, id: int, values: Mapping[str, Any]) -> str | None:
    group_id = values["dynamic_pool_group"]
    if state.find(DynamicPoolGroup, group_id) is None:
        return f"dynamic_pool_group: there is no pool group with id {group_id}"
    return None


def _once_in_a_group(state: State, id: int, values: Mapping[str, Any]) -> str | None:
    known = state.by_key(DynamicPoolGroupRecord, (values["dynamic_pool_group"], values["pool"]))
    if known is None or known.id == id:
        return None
    return f"pool: it is in the group already (record {known.id})"


DYNAMIC_POOL_GROUPS_RECORDS = Resource(
    name="dynamic_pool_groups_records",
    kind=DynamicPoolGroupRecord.KIND,
    title="Dynamic Pool Groups Records",
    noun="pool of a dynamic group",
    entity=DynamicPoolGroupRecord,
    fields=(
        Integer(
            name="dynamic_pool_group",
            required=True,
            minimum=1,
            refers_to=DynamicPoolGroup.KIND,
            example=1,
            description="Id of a dynamic pool group.",
            indexed=True,
        ),
        Reference(name="pool", required=True, to=Pool.KIND, by="pool_name", example="Default"),
        Boolean(name="enabled", default=True, description="no: it stays in the group and takes nothing."),
    ),
    create=("dynamic_pool_group", "pool", "enabled"),
    rules=(_group_is_there, _once_in_a_group),
    deletable=True,
    manage=KEEPERS_OF_STORAGE,
    scope=BY_POOL,
)
