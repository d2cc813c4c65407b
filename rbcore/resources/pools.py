"""``pool_list`` and ``storage_local_catalogs`` (reference 2.6, 2.7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rbcore.destination import in_one_namespace
from rbcore.entities import (
    BlockDevice,
    Client,
    ClientDefinedStorage,
    DynamicPoolGroup,
    DynamicPoolGroupRecord,
    Entity,
    LocalCatalog,
    MediaServer,
    Pool,
    PoolSubstitution,
    TapeCartridge,
    TapeLibrary,
)
from rbcore.media import named
from rbcore.resource import Boolean, Choice, Integer, Interval, Reference, Resource, Text
from rbcore.resources.common import (
    BY_POOL,
    EVERYBODY,
    KEEPERS_OF_STORAGE,
    counted,
    ids_of,
    is_protected,
    keeps_its_name,
    unique,
)
from rbcore.resources.referred import is_not_referred_to
from rbcore.state import State
from rbcore.vocabulary import (
    BLOCK_SIZES_BYTES,
    COMPRESSION_TYPES,
    DEDUPLICATION_DEFAULT,
    DEDUPLICATION_HASH_LENGTHS_BITS,
    DESTINATION_STORAGE_TYPES,
    POOL_TYPE_SYNONYMS,
    PoolType,
    Role,
)

_WITHOUT_COMPRESSION = frozenset({PoolType.BLOCK_DEVICE, PoolType.CLIENT_DEFINED})


def _only_what_fits_the_type(state: State, values: dict[str, Any]) -> dict[str, Any]:
    """Parameters that do not fit the type are ignored, not rejected (manual); a Block device pool gets the defaults of the rest."""
    kept = dict(values)
    kept.setdefault("any_tape_format", kept["pool_type"] in POOL_TYPE_SYNONYMS)
    kept["pool_type"] = POOL_TYPE_SYNONYMS.get(kept["pool_type"], kept["pool_type"])
    if kept["pool_type"] in _WITHOUT_COMPRESSION:
        kept["compression_type"] = "None"
    if kept["pool_type"] == PoolType.BLOCK_DEVICE:
        algorithm, hash_length, block_size = DEDUPLICATION_DEFAULT
        if kept["algorithm"] is None:
            kept["algorithm"] = algorithm
        if kept["hash_length"] is None:
            lengths = DEDUPLICATION_HASH_LENGTHS_BITS[kept["algorithm"]]
            kept["hash_length"] = hash_length if hash_length in lengths else lengths[0]
        if kept["block_size"] is None:
            kept["block_size"] = block_size
    else:
        kept.update(algorithm=None, hash_length=None, block_size=None, meta_data_pool=0)
    return kept


def _deduplication_fits(state: State, id: int, values: Mapping[str, Any]) -> str | None:
    if values["pool_type"] != PoolType.BLOCK_DEVICE:
        return None
    lengths = DEDUPLICATION_HASH_LENGTHS_BITS[values["algorithm"]]
    if values["hash_length"] not in lengths:
        return f"hash_length: {values['algorithm']} has {' or '.join(map(str, lengths))} bits"
    if values["block_size"] not in BLOCK_SIZES_BYTES:
        return f"block_size: it is one of {', '.join(map(str, BLOCK_SIZES_BYTES))} bytes"
    meta = state.find(Pool, values["meta_data_pool"])
    if meta is None:
        return "meta_data_pool: a Block device pool needs a File system pool for its metadata"
    if meta.pool_type != PoolType.FILE_SYSTEM or meta.media_server != values["media_server"]:
        return "meta_data_pool: it is a File system pool of the same media server"
    return None


def _has_backups(state: State, pool: Entity) -> str | None:
    backups = state.indexes.backups_of("pool_id", pool.id)
    return f"the repository has {counted(backups, 'backup')} in it" if backups else None


def _has_catalogs(state: State, pool: Entity) -> str | None:
    catalogs = [one for one in state.all(LocalCatalog) if one.pool == pool.id]
    return f"local catalogs belong to it (ids {ids_of(catalogs)})" if catalogs else None


def _has_cartridges(state: State, pool: Entity) -> str | None:
    cartridges = sorted(state.indexes.cartridges_of_pool.get(pool.id, ()))
    if not cartridges:
        return None
    tags = named(state.tables[TapeCartridge.KIND][one].volume_tag for one in cartridges)
    return f"cartridges belong to it ({tags}): import them into another pool, or delete them"


def _has_libraries(state: State, pool: Entity) -> str | None:
    libraries = [one for one in state.all(TapeLibrary) if one.pool == pool.id]
    return f"it is the pool of tape libraries (ids {ids_of(libraries)}): delete them first" if libraries else None


def _has_tasks(state: State, pool: Entity) -> str | None:
    tasks = [
        task for task in state.active_tasks() if pool.id in (task.pool_id, task.target_pool_id, task.requested_pool_id)
    ]
    return f"tasks that have not ended need it (ids {ids_of(tasks)})" if tasks else None


def _is_pool_of_clients(state: State, pool: Entity) -> str | None:
    clients = [one for one in state.all(Client) if one.ls_pool == pool.id]
    return f"it is the local-schedule pool of clients (ids {ids_of(clients)})" if clients else None


def _keeps_metadata(state: State, pool: Entity) -> str | None:
    pools = [one for one in state.all(Pool) if one.meta_data_pool == pool.id]
    return f"it keeps the metadata of other pools (ids {ids_of(pools)})" if pools else None


def _is_in_substitutions(state: State, pool: Entity) -> str | None:
    found = [one for one in state.all(PoolSubstitution) if pool.id in (one.pool, one.substitution)]
    return f"pool substitutions name it (ids {ids_of(found)})" if found else None


def _is_in_groups(state: State, pool: Entity) -> str | None:
    found = [one for one in state.all(DynamicPoolGroupRecord) if one.pool == pool.id]
    return f"it is in dynamic pool groups (dynamic_pool_groups_records {ids_of(found)})" if found else None


def _has_block_devices(state: State, pool: Entity) -> str | None:
    found = [one for one in state.all(BlockDevice) if one.pool == pool.id]
    return f"block devices belong to it (ids {ids_of(found)})" if found else None


def _has_client_storages(state: State, pool: Entity) -> str | None:
    found = [one for one in state.all(ClientDefinedStorage) if pool.id in (one.pool, one.metadata_fs_pool)]
    return f"client-defined storages name it (ids {ids_of(found)})" if found else None


POOL_LIST = Resource(
    name="pool_list",
    kind=Pool.KIND,
    title="Pool List",
    noun="pool",
    entity=Pool,
    fields=(
        Text(
            name="pool_name",
            required=True,
            max_length=255,
            pattern=r".*\S.*",
            example="my_pool_name",
            description="Unique.",
            indexed=True,
        ),
        Choice(
            name="pool_type",
            required=True,
            values=(*DESTINATION_STORAGE_TYPES, *POOL_TYPE_SYNONYMS),
            example="File system",
            description="Never changes. 'Tape library' is a synonym of 'Tape library, LTFS'. This release writes to pools of the types "
            "File system and Tape library; the others can be managed, and no task goes there.",
        ),
        Reference(
            name="media_server",
            to=MediaServer.KIND,
            by="hostname",
            default=1,
            example="rubackup-server",
            description="Never changes. The main server when not given.",
        ),
        Choice(
            name="compression_type",
            values=COMPRESSION_TYPES,
            default="fast",
            description="Not for Block device and Client defined.",
        ),
        Text(name="description", default=""),
        Interval(name="retention_period", nullable=True, example="1 year", description="Storage time of its backups."),
        Boolean(
            name="ignore_free_space_check",
            default=False,
            description="Use a device although less than pool_storage_capacity_reserve is free.",
        ),
        Choice(
            name="algorithm",
            values=tuple(DEDUPLICATION_HASH_LENGTHS_BITS),
            nullable=True,
            example="streebog",
            description="Only for Block device.",
        ),
        Integer(name="block_size", nullable=True, unit="bytes", example=131072, description="Only for Block device."),
        Integer(name="hash_length", nullable=True, unit="bits", example=256, description="Only for Block device."),
        Reference(
            name="meta_data_pool",
            to=Pool.KIND,
            by="pool_name",
            nullable=True,
            default=0,
            example="Default",
            description="File system pool for the metadata of a Block device pool.",
        ),
    ),
    create=(
        "pool_name",
        "pool_type",
        "media_server",
        "compression_type",
        "description",
        "retention_period",
        "ignore_free_space_check",
        "algorithm",
        "block_size",
        "hash_length",
        "meta_data_pool",
    ),
    change=("pool_name", "compression_type", "description", "retention_period", "ignore_free_space_check"),
    prepare=_only_what_fits_the_type,
    rules=(
        unique(Pool.KIND, "pool_name", "pool"),
        in_one_namespace("pool_name", DynamicPoolGroup, "pool group"),
        _deduplication_fits,
        keeps_its_name(Pool.KIND, "pool_name", "pool"),
    ),
    refusals=(
        is_protected,
        _has_backups,
        _has_catalogs,
        _has_cartridges,
        _has_libraries,
        _has_tasks,
        _is_pool_of_clients,
        _keeps_metadata,
        _is_in_substitutions,
        _is_in_groups,
        _has_block_devices,
        _has_client_storages,
        is_not_referred_to(Pool.KIND),
    ),
    deletable=True,
    manage=KEEPERS_OF_STORAGE,
    searchable_name="pool_name",
    read=EVERYBODY,
    scope={Role.MAINTAINER: "media_server"},
)


def _pool_takes_directories(state: State, id: int, values: Mapping[str, Any]) -> str | None:
    pool = state.find(Pool, values["pool"])
    if pool is not None and pool.pool_type != PoolType.FILE_SYSTEM:
        return f"pool: '{pool.pool_name}' is of the type {pool.pool_type}; a directory belongs to a File system pool"
    return None


def _path_is_plain(state: State, id: int, values: Mapping[str, Any]) -> str | None:
    components = values["path"].split("/")[1:]
    if any(part in ("", ".", "..") for part in components):
        return "path: write it without '.', '..', double or trailing slashes"
    return None


def _not_nested(state: State, id: int, values: Mapping[str, Any]) -> str | None:
    path = values["path"]
    for other in state.all(LocalCatalog):
        if other.id == id:
            continue
        inside, outside = sorted((path, other.path), key=len, reverse=True)
        if inside.startswith(f"{outside}/"):
            return f"path: catalogs are not nested, and catalog {other.id} is {other.path}"
    return None


def _has_archives(state: State, catalog: Entity) -> str | None:
    backups = state.indexes.backups_of("local_catalog_id", catalog.id)
    return (
        f"{counted(backups, 'backup')} of the repository {'is' if backups == 1 else 'are'} stored there"
        if backups
        else None
    )


def _has_work(state: State, catalog: Entity) -> str | None:
    tasks = [
        task for task in state.active_tasks() if catalog.id in (task.local_catalog_id, task.target_local_catalog_id)
    ]
    return f"tasks that have not ended work there (ids {ids_of(tasks)})" if tasks else None


STORAGE_LOCAL_CATALOGS = Resource(
    name="storage_local_catalogs",
    kind=LocalCatalog.KIND,
    title="Storage Local Catalogs",
    noun="local file storage",
    entity=LocalCatalog,
    fields=(
        Text(
            name="path",
            required=True,
            pattern=r"/[^\x00]+",
            example="/var/lib/backups",
            description="Directory on the media server, absolute. Never changes.",
            indexed=True,
        ),
        Reference(
            name="pool",
            required=True,
            to=Pool.KIND,
            by="pool_name",
            example="Default",
            description="A File system pool. Never changes.",
        ),
        Text(name="description", default=""),
    ),
    create=("path", "pool", "description"),
    change=("description",),
    rules=(
        unique(LocalCatalog.KIND, "path", "local catalog"),
        _path_is_plain,
        _not_nested,
        _pool_takes_directories,
    ),
    refusals=(_has_archives, _has_work),
    deletable=True,
    manage=KEEPERS_OF_STORAGE,
    searchable_name="path",
    scope=BY_POOL,
)
