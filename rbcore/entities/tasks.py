"""Work in the queue, and the backups that came of it."""

from __future__ import annotations

from typing import Any

import msgspec

from rbcore.entities.base import Entity


class Task(Entity, frozen=True, kw_only=True):
    KIND = "task"
    task_type: str
    status: str
    status_reason: str = ""
    resumes_as: str = ""
    """The status a Paused task had, restored by continue."""
    resource_type: str = ""
    resource: str = ""
    backup_type: str = ""
    requested_backup_type: str = ""
    client_id: int = 0
    pool_id: int = 0
    """Of a backup that waits to be assigned: as ``requested_pool_id``. Afterwards the pool that was chosen."""
    requested_pool_id: int = 0
    """As asked for: a pool, or a dynamic pool group as its id with a minus (``rbcore.destination``)."""
    media_server_id: int = 0
    local_catalog_id: int = 0
    library_id: int = 0
    """The tape library the task works with; 0: none."""
    target_pool_id: int = 0
    """Copy and Move: where to. Catalog and library above are where the archive lies."""
    target_local_catalog_id: int = 0
    target_library_id: int = 0
    crypto: str = "nocrypt"
    priority: int = 100
    storage_duration: str = "1 year"
    archiving: bool = False
    backup_id: int = 0
    parent_backup_id: int = 0
    archive: str = ""
    parameters: dict[str, Any] = msgspec.field(default_factory=dict)
    attempts: int = 0
    """Attempts in a row that made nothing more durable."""
    durable_blocks: int = 0
    retry_at_ns: int = 0
    restarted_from: int = 0
    rule_id: int = 0
    """What made it, as of its backup: a rule of the global schedule, or a strategy and its rule; 0: none."""
    strategy_id: int = 0
    strategy_rule_id: int = 0
    created_ns: int = 0
    started_ns: int = 0
    ended_ns: int = 0


class BackupPart(msgspec.Struct, frozen=True, kw_only=True):
    """A part of an archive on a cartridge (``rbcore.tape.session.PartPlace``, and which cartridge)."""

    cartridge_id: int
    part: int
    position: int
    records: int
    first_block: int
    last_block: int
    blocks: int
    stored_bytes: int
    final: bool


class Backup(Entity, frozen=True, kw_only=True):
    """A record of the repository."""

    KIND = "backup"
    archive: str
    ref_id: int
    client_id: int
    resource_type: str
    resource: str
    backup_type: str
    pool_id: int
    local_catalog_id: int
    media_server_id: int
    task_id: int
    created_ns: int
    started_ns: int
    archive_size: int
    data_size: int
    files: int
    problems: int
    blocks: int
    root: str
    signature: str
    crypto: str
    compression: str
    key_id: str
    store_until_ns: int
    storage_duration: str = ""
    signature_valid: bool = False
    verification_status: str = "Not Verified"
    verified_ns: int = 0
    findings: tuple[str, ...] = ()
    library_id: int = 0
    """The tape library it was written in; 0: it lies in a catalog."""
    parts: tuple[BackupPart, ...] = ()
    """On cartridges, in order; empty: it lies in a catalog."""
    rule_id: int = 0
    strategy_id: int = 0
    strategy_rule_id: int = 0


class PendingRemoval(Entity, frozen=True, kw_only=True):
    """Bytes of a deleted backup that still stand in a catalog. Same id as the backup was; stream ``backup/<id>``."""

    KIND = "pending_removal"
    archive: str
    local_catalog_id: int
    """0: the bytes stand on cartridges."""
    task_id: int
