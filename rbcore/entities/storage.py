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
    created_ns: int = 0


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
