"""Where backups are kept."""

from __future__ import annotations

from rbcore.entities.base import Entity


class MediaServer(Entity, frozen=True, kw_only=True):
    KIND = "media_server"
    hostname: str
    hwid: str
    type: str = "main"
    description: str = ""
    local_service_mode: str = "no"
    public_key: str = ""
    """Pinned when it was authorised; empty: the main server, which nobody has to prove anything to."""
    address: str = ""
    version: str = ""
    created_ns: int = 0


class UnauthorisedMediaServer(Entity, frozen=True, kw_only=True):
    """A media server that reported itself and waits for an administrator."""

    KIND = "unauthorised_media_server"
    hwid: str
    hostname: str
    public_key: str
    address: str = ""
    version: str = ""
    first_seen_ns: int = 0
    last_seen_ns: int = 0


class Pool(Entity, frozen=True, kw_only=True):
    KIND = "pool"
    pool_name: str
    pool_type: str
    media_server: int
    compression_type: str = "fast"
    description: str = ""
    retention_period: str | None = None
    ignore_free_space_check: bool = False
    algorithm: str | None = None
    block_size: int | None = None
    hash_length: int | None = None
    meta_data_pool: int = 0
    any_tape_format: bool = False
    """Made as ``Tape library``, which names no format: the first library decides (``rbcore.decide.tape_libraries``)."""
    protected: bool = False


class LocalCatalog(Entity, frozen=True, kw_only=True):
    """A directory of a File system pool."""

    KIND = "local_catalog"
    path: str
    pool: int
    description: str = ""


class PoolSubstitution(Entity, frozen=True, kw_only=True):
    """Where a backup goes that its pool cannot take."""

    KIND = "pool_substitution"
    pool: int
    substitution: int


class DynamicPoolGroup(Entity, frozen=True, kw_only=True):
    """Pools among which the least loaded takes a backup. 0 in a limit of block operations: it is not looked at."""

    KIND = "dynamic_pool_group"
    name: str
    max_pool_tasks: int = 10
    max_media_server_tasks: int = 10
    max_cpu_usage: int = 80
    """Percent of all processors of the media server."""
    max_in_block_operations: int = 0
    """Per second, written to the media server's block devices."""
    max_out_block_operations: int = 0
    """Per second, read from them."""
    calculation_period: int = 10
    """Seconds over which load is averaged."""
    description: str = ""


class DynamicPoolGroupRecord(Entity, frozen=True, kw_only=True):
    """A pool in a dynamic pool group."""

    KIND = "dynamic_pool_group_record"
    dynamic_pool_group: int
    pool: int
    enabled: bool = True


class BlockDevice(Entity, frozen=True, kw_only=True):
    """A disk, a logical unit or a partition of a Block device pool. This release writes nothing to it."""

    KIND = "block_device"
    device: str
    pool: int
    overwrite_file_system: bool = False
    """An operator said that what stood on it may go."""
    description: str = ""
    parallel_workers: int = 2
    size_bytes: int = 0
    contents: tuple[str, ...] = ()
    """What stood on it when it was added, by its signatures."""
    created_ns: int = 0


class ClientDefinedStorage(Entity, frozen=True, kw_only=True):
    """Storage that a client's module writes to by itself; the server keeps the metadata."""

    KIND = "client_defined_storage"
    pool: int
    metadata_fs_pool: int
    name: str = ""
    description: str = ""
