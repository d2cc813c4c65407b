"""``storage_block_devices`` and ``client_defined_storages`` (reference 2.8, 2.9): what pools are made of, besides directories and cartridges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rbcore.entities import BlockDevice, ClientDefinedStorage, MediaServer, Pool
from rbcore.resource import Boolean, Computed, Integer, Reference, Resource, Text, TextList, Timestamp
from rbcore.resources.common import BY_POOL, KEEPERS_OF_STORAGE
from rbcore.state import State
from rbcore.vocabulary import MAIN_SERVER, PoolType


def pool_takes_block_devices(state: State, id: int, values: Mapping[str, Any]) -> str | None:
    pool = state.find(Pool, values["pool"])
    if pool is None:
        return None
    if pool.pool_type != PoolType.BLOCK_DEVICE:
        return (
            f"pool: '{pool.pool_name}' is of the type {pool.pool_type}; name a pool of the type {PoolType.BLOCK_DEVICE}"
        )
    server = state.find(MediaServer, pool.media_server)
    if server is not None and server.type != MAIN_SERVER:
        return f"pool: it belongs to media server {server.hostname}, whose devices cannot be asked in this release"
    return None


STORAGE_BLOCK_DEVICES = Resource(
    name="storage_block_devices",
    kind=BlockDevice.KIND,
    title="Storage Block Devices",
    noun="block device",
    entity=BlockDevice,
    fields=(
        Text(
            name="device",
            required=True,
            max_length=255,
            pattern=r"/dev/[^\x00]+",
            example="/dev/disk/by-id/wwn-0x5000c500a1b2c3d4",
            description="Block device of the media server. Never changes; a link that stays the same at the next start is better than /dev/sdb.",
            indexed=True,
        ),
        Reference(
            name="pool",
            required=True,
            to=Pool.KIND,
            by="pool_name",
            example="blocks",
            description="A pool of the type Block device. Never changes.",
        ),
        Boolean(
            name="overwrite_file_system",
            default=False,
            description="yes: a file system, partition table or the like on it may go. Otherwise such a device is refused.",
        ),
        Text(name="description", default=""),
        Integer(
            name="parallel_workers",
            default=2,
            minimum=1,
            maximum=64,
            unit="workers",
            description="How many read and write at once.",
        ),
        Integer(name="size", attribute="size_bytes", unit="bytes", description="As it said when it was added."),
        Computed(name="used", of=lambda device: 0, kind="integer", description="This release writes nothing to it."),
        Computed(name="free", of=lambda device: device.size_bytes, kind="integer"),
        Computed(
            name="status", of=lambda device: "Registered", description="Registered: in its pool, not initialised."
        ),
        TextList(name="contents", in_list=False, description="What stood on it when it was added, by its signatures."),
        Timestamp(name="created", attribute="created_ns", event_time=True),
    ),
    change=("description", "parallel_workers"),
    deletable=True,
    manage=KEEPERS_OF_STORAGE,
    searchable_name="device",
    scope=BY_POOL,
)
"""Made by ``AddBlockDevice``, because the device is asked first."""
BLOCK_DEVICE_GIVEN = ("device", "pool", "overwrite_file_system", "description")
"""The documented body of POST."""


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
