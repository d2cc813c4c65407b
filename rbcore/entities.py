"""Entities: the live state, one frozen struct per kind. ``evolve`` makes new ones; nothing changes one in place.

Times are nanoseconds since 1970-01-01 UTC, 0 meaning never or not yet. References are integer ids, 0 meaning none;
names are looked up where a view shows them.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec


class Entity(msgspec.Struct, frozen=True, kw_only=True):
    KIND: ClassVar[str] = ""
    """Stream kind: ``task`` in ``task/17``."""

    id: int


class User(Entity, frozen=True, kw_only=True):
    KIND = "user"
    username: str
    fullname: str = ""
    email: str = ""
    roles: tuple[str, ...] = ()
    credential_id: str = ""
    """Names the password hash in the secrets store; the hash itself never stands in the log."""
    protected: bool = False


class ClientGroup(Entity, frozen=True, kw_only=True):
    KIND = "client_group"
    name: str
    description: str = ""
    shared: bool = False
    clustered: bool = False
    launch_attempts_limit: int = 1
    protected: bool = False


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


class UnauthorisedClient(Entity, frozen=True, kw_only=True):
    KIND = "unauthorised_client"
    hwid: str
    hostname: str
    public_key: str
    address: str = ""
    os_type: str = "Linux"
    os_version: str = ""
    agent_version: str = ""
    resource_types: tuple[str, ...] = ()
    first_seen_ns: int = 0
    last_seen_ns: int = 0


class Client(Entity, frozen=True, kw_only=True):
    KIND = "client"
    hwid: str
    hostname: str
    public_key: str
    address: str = ""
    os_type: str = "Linux"
    os_version: str = ""
    agent_version: str = ""
    resource_types: tuple[str, ...] = ()
    online: bool = False
    last_online_ns: int = 0
    group_id: int = 1
    lsf_flag: bool = False
    ls_pool: int = 1
    lrl_flag: bool = False
    storage_capacity: int = 0
    description: str = ""
    centralized_restore: bool = True
    client_side_backup: bool = False
    client_side_restore: bool = False


class FormerClient(Entity, frozen=True, kw_only=True):
    """A client that is no longer authorised. Same id as the client had, which it gets back when it is authorised again."""

    KIND = "former_client"
    hwid: str
    hostname: str


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
    parameters: dict[str, Any] = {}
    attempts: int = 0
    """Attempts in a row that made nothing more durable."""
    durable_blocks: int = 0
    retry_at_ns: int = 0
    restarted_from: int = 0
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


class PendingRemoval(Entity, frozen=True, kw_only=True):
    """Bytes of a deleted backup that still stand in a catalog. Same id as the backup was; stream ``backup/<id>``."""

    KIND = "pending_removal"
    archive: str
    local_catalog_id: int
    """0: the bytes stand on cartridges."""
    task_id: int


class TapeLibrary(Entity, frozen=True, kw_only=True):
    """A changer with its drives and elements, for one pool (cartridges may belong to others of the same media server)."""

    KIND = "tape_library"
    pool: int
    media_server: int
    description: str = ""
    status: str = "Online"
    status_reason: str = ""
    created_ns: int = 0


class MediumChanger(Entity, frozen=True, kw_only=True):
    """The robot of a library."""

    KIND = "medium_changer"
    library_id: int
    vendor: str
    product: str
    revision: str = ""
    serial: str = ""
    scsi_path: str = ""
    device: str = ""
    """How it is reached: ``/dev/sg2``, ``iscsi://host:port/target/lun``."""
    transport_element: int = 0


class TapeDrive(Entity, frozen=True, kw_only=True):
    KIND = "tape_drive"
    library_id: int
    vendor: str
    product: str
    revision: str = ""
    serial: str = ""
    scsi_path: str = ""
    device: str = ""
    st_device: str = ""
    element_address: int = 0
    """Data transfer element of the changer at which it sits."""
    partitions_max: int = 1
    lacks: tuple[str, ...] = ()
    """What was found missing and is worked around or done without."""
    status: str = "free"
    status_reason: str = ""
    cartridge_id: int = 0
    """The cartridge that is mounted (or being mounted) in it; what lies in its element is the slot's to say."""
    mounting: bool = False
    """An intent without its outcome: between begin and end of a mount or a dismount."""
    mount_reason: str = ""
    mount_task_id: int = 0
    """The tape task it was mounted for; 0: a stream that goes on."""
    mounted_ns: int = 0
    """0 while it is only being mounted: an intent with it is a dismount's, one without it a mount's."""
    mounts: int = 0
    failures: int = 0
    """In a row."""
    cleaning_required: bool = False
    last_cleaned_ns: int = 0
    created_ns: int = 0


class LibrarySlot(Entity, frozen=True, kw_only=True):
    """An element of a library that can hold a cartridge: storage, import-export, or drive."""

    KIND = "library_slot"
    library_id: int
    address: int
    type: str
    is_full: bool = False
    volume_tag: str = ""
    """As the changer reads it; also of cartridges that nobody registered."""
    cartridge_id: int = 0
    """The registered cartridge in it; 0: none, or one that nobody registered."""
    exception: str = ""


class TapeCartridge(Entity, frozen=True, kw_only=True):
    KIND = "tape_cartridge"
    type: str
    volume_tag: str
    pool: int
    description: str = ""
    library_id: int = 0
    slot_id: int = 0
    """The element it lies in; 0: in none."""
    home_slot_id: int = 0
    """The storage element it goes back to from a drive."""
    moving_to_slot_id: int = 0
    """An intent without its outcome."""
    exported: bool = False
    status: str = "New"
    status_reason: str = ""
    intent: str = ""
    """``label`` or ``erase`` while nobody knows how that ended; what was on it does not count any more."""
    format: str = ""
    """``native``, ``ltfs``; empty: not labelled."""
    label_id: str = ""
    """Id by its own label, hex: what a mount is compared with."""
    use: int = 0
    write_protected: bool = False
    capacity_bytes: int = 0
    used_bytes: int = 0
    written_by: tuple[int, ...] = ()
    """Tasks that ended a part on it and had not ended themselves when the newest did: their archives count although no backup names
    them yet (``rbcore.media.holders``)."""
    read_errors: int = 0
    write_errors: int = 0
    load_errors: int = 0
    """In a row: a mount that succeeds begins anew."""
    load_count: int = 0
    labelled_ns: int = 0
    last_mounted_ns: int = 0
    last_written_ns: int = 0
    created_ns: int = 0


class TapeTask(Entity, frozen=True, kw_only=True):
    """A task of ``tl_task_queue``: what robot and drives do."""

    KIND = "tape_task"
    task_type: str
    status: str
    status_reason: str = ""
    library_id: int = 0
    cartridge_id: int = 0
    """0: a Write whose cartridge is not chosen yet, and what is about no cartridge."""
    drive_id: int = 0
    slot_id: int = 0
    """Where a Move or an Export goes."""
    pool_id: int = 0
    parent_task_id: int = 0
    """The task that reads or writes."""
    backup_id: int = 0
    position: int = 0
    """Where on the cartridge a Read begins."""
    is_long_erase: bool = False
    priority: int = 100
    created_ns: int = 0
    started_ns: int = 0
    ended_ns: int = 0


class LoginFailures(Entity, frozen=True, kw_only=True):
    """Failed logins in a row of one user name from one address. A newer failure gets a newer id: the lowest is the oldest."""

    KIND = "login_failures"
    user_name: str
    address: str
    count: int
    last_ns: int


ENTITIES: dict[str, type[Entity]] = {
    kind.KIND: kind
    for kind in (
        User,
        ClientGroup,
        MediaServer,
        Pool,
        LocalCatalog,
        UnauthorisedClient,
        Client,
        FormerClient,
        Task,
        Backup,
        PendingRemoval,
        TapeLibrary,
        MediumChanger,
        TapeDrive,
        LibrarySlot,
        TapeCartridge,
        TapeTask,
        LoginFailures,
    )
}
