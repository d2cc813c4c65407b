"""``client_defined_storages`` (reference 2.9): what pools are made of, besides directories and cartridges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rbcore.entities import ClientDefinedStorage, Pool
from rbcore.resource import Reference, Resource, Text
from rbcore.resources.common import BY_POOL, KEEPERS_OF_STORAGE
from rbcore.state import State
from rbcore.vocabulary import PoolType


def _pool_is_the_clients(state: State, id: int, values: Mapping[str, Any]) -> str | None:
    pool = state.find(Pool, values["pool"])
    if pool is None or pool.pool_type == PoolType.CLIENT_DEFINED:
        return None
    return (
        f"pool: '{pool.pool_name}' is of the type {pool.pool_type}; name a pool of the type {PoolType.CLIENT_DEFINED}"
    )


def _metadata_has_a_place(state: State, id: int, values: Mapping[str, Any]) -> str | None:
    pool, metadata = state.find(Pool, values["pool"]), state.find(Pool, values["metadata_fs_pool"])
    if pool is None or metadata is None:
        return None
    if metadata.pool_type != PoolType.FILE_SYSTEM or metadata.media_server != pool.media_server:
        return "metadata_fs_pool: it is a File system pool of the same media server as the pool"
    return None


CLIENT_DEFINED_STORAGES = Resource(
    name="client_defined_storages",
    kind=ClientDefinedStorage.KIND,
    title="Client defined storages",
    noun="client-defined storage",
    entity=ClientDefinedStorage,
    fields=(
        Reference(
            name="pool",
            required=True,
            to=Pool.KIND,
            by="pool_name",
            example="Clients_own",
            description="A pool of the type Client defined. Never changes.",
        ),
        Reference(
            name="metadata_fs_pool",
            required=True,
            to=Pool.KIND,
            by="pool_name",
            example="Default",
            description="File system pool for the metadata, on the same media server.",
        ),
        Text(name="name", default="", max_length=255, indexed=True),
        Text(name="description", default=""),
    ),
    create=("pool", "metadata_fs_pool", "name", "description"),
    change=("metadata_fs_pool", "name", "description"),
    rules=(_pool_is_the_clients, _metadata_has_a_place),
    deletable=True,
    manage=KEEPERS_OF_STORAGE,
    searchable_name="name",
    scope=BY_POOL,
)
