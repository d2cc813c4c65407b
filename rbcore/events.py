"""Events: every state change, as it stands in the log for ever.

A released shape is never edited: a new shape gets a new ``schema`` number and an upcaster in ``eventlog/upcasting.py``.
Bodies are msgpack maps with the field names below, so that an auditor can read them without this code. Times are
nanoseconds since 1970-01-01 UTC. No event carries a secret: credentials and keys live in the secrets store and events
name them by id.
"""

from __future__ import annotations

from typing import Any

import msgspec

from rbcore.events_base import Event as Event
from rbcore.events_servers import MediaServerAppeared as MediaServerAppeared
from rbcore.events_servers import MediaServerAuthorised as MediaServerAuthorised
from rbcore.events_servers import MediaServerRefused as MediaServerRefused
from rbcore.events_servers import MediaServerReported as MediaServerReported
from rbcore.events_servers import MediaServerRevoked as MediaServerRevoked


class Envelope(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One event as stored. ``body`` is the raw msgpack of the event struct named by ``type`` and ``schema``."""

    position: int
    """Place in the one order of all events: 1, 2, 3, ... without gaps."""
    time_ns: int
    stream: str
    """``<kind>/<id>``: ``task/17``, ``pool/1``."""
    version: int
    """1 for the first event of the stream, without gaps."""
    type: str
    schema: int
    actor: str
    """Who: ``user:rubackup``, ``client:525a99154f3505a2``, ``actor:dispatcher``."""
    command_id: str
    causation: int
    """Position of the event that led to this one; 0 when a person or a device did."""
    correlation: str
    """Names the conversation: command id of the first command in it."""
    body: msgspec.Raw


class NewEvent(msgspec.Struct, frozen=True, gc=False):
    """What ``decide`` returns: an event and the stream it belongs to."""

    stream: str
    event: Event


# --- records of declared resources (users, pools, local catalogs, clients' parameters, ...) -------------------------


class RecordCreated(Event, frozen=True, gc=False):
    TYPE = "record.created"
    fields: dict[str, Any]
    """Every field of the new record except ``id`` (the stream names it). References are ids."""


class RecordChanged(Event, frozen=True, gc=False):
    TYPE = "record.changed"
    changes: dict[str, Any]


class RecordDeleted(Event, frozen=True, gc=False):
    TYPE = "record.deleted"


# --- clients ---------------------------------------------------------------------------------------------------------


class ClientAppeared(Event, frozen=True, gc=False):
    """An agent that nobody authorised yet reported itself. Stream ``unauthorised_client/<id>``."""

    TYPE = "client.appeared"
    hwid: str
    hostname: str
    public_key: str
    """Ed25519 public key, hex."""
    address: str
    os_type: str
    os_version: str
    agent_version: str
    resource_types: list[str] = msgspec.field(default_factory=list)


class ClientAuthorised(Event, frozen=True, gc=False):
    """The identity is pinned from here on. Stream ``client/<id>``; ``unauthorised_client/<unauthorised_id>`` ends."""

    TYPE = "client.authorised"
    unauthorised_id: int
    hwid: str
    hostname: str
    public_key: str
    address: str
    os_type: str
    os_version: str
    agent_version: str
    resource_types: list[str] = msgspec.field(default_factory=list)


class ClientRevoked(Event, frozen=True, gc=False):
    """The client is no longer authorised (DELETE clients): ``unauthorised_client/<unauthorised_id>`` takes its facts over.

    Stream ``client/<id>``. Backups and tasks keep the client's id, and the same hwid gets it back when it is authorised again.
    """

    TYPE = "client.revoked"
    unauthorised_id: int


class ClientReported(Event, frozen=True, gc=False):
    """Facts an agent told about itself that differ from what was known."""

    TYPE = "client.reported"
    hostname: str
    address: str
    os_type: str
    os_version: str
    agent_version: str
    resource_types: list[str]


class ClientConnected(Event, frozen=True, gc=False):
    TYPE = "client.connected"


class ClientDisconnected(Event, frozen=True, gc=False):
    TYPE = "client.disconnected"
    reason: str


class ClientRefused(Event, frozen=True, gc=False):
    """Somebody came with this client's hwid and another key. Stream ``client/<id>``; state does not change."""

    TYPE = "client.refused"
    address: str
    public_key: str
    reason: str


# --- tasks -----------------------------------------------------------------------------------------------------------


class TaskQueued(Event, frozen=True, gc=False):
    TYPE = "task.queued"
    SCHEMA = 2
    task_type: str
    resource_type: str
    resource: str
    backup_type: str
    client_id: int
    """Owner of the data; for Restore the client that restores."""
    pool_id: int
    """A dynamic pool group stands as its id with a minus (``rbcore.destination``)."""
    crypto: str
    priority: int
    storage_duration: str
    archiving: bool
    backup_id: int
    """The backup that is restored, verified or deleted; 0 for backups."""
    parameters: dict[str, Any]
    """``module_extensions``, ``common_modules_extensions`` and, for Restore, ``restore_task``, as they came."""
    restarted_from: int
    rule_id: int = 0
    """The rule of the global schedule that made it; 0: none. Since schema 2, as the two that follow."""
    strategy_id: int = 0
    strategy_rule_id: int = 0


class TaskAssigned(Event, frozen=True, gc=False):
    """Where the task will run, and what else was looked at. Its status is Assigned from here on."""

    TYPE = "task.assigned"
    media_server_id: int
    pool_id: int
    local_catalog_id: int
    backup_type: str
    """As carried out: an incremental without a usable parent becomes full."""
    parent_backup_id: int
    archive: str
    """Name of the archive to be written: 32 hex digits."""
    reason: str
    rejected: list[str]
    """One sentence per option that was not taken, with its reason."""


class TaskStatusChanged(Event, frozen=True, gc=False):
    TYPE = "task.status_changed"
    previous: str
    status: str
    reason: str
    retry_at_ns: int = 0
    """When a Suspended task is tried again; 0: on an event (a peer returns, an operator continues)."""
    durable_blocks: int = 0
    """Blocks of the task's archive on stable storage; 0: the reporter does not know. More than before is progress."""


class TaskNoted(Event, frozen=True, gc=False):
    """Lines of the task's journals (server_task_info, client_task_info)."""

    TYPE = "task.noted"
    side: str
    """``server`` or ``client``."""
    severity: str
    """``info``, ``warning`` or ``error``."""
    lines: list[str]


class TaskRemoved(Event, frozen=True, gc=False):
    TYPE = "task.removed"


# --- repository ------------------------------------------------------------------------------------------------------


class BackupRecorded(Event, frozen=True, gc=False):
    """The archive is on stable storage, complete and re-readable: from here on it can be restored."""

    TYPE = "backup.recorded"
    archive: str
    ref_id: int
    """Parent in the chain; 0 for a full backup."""
    client_id: int
    resource_type: str
    resource: str
    backup_type: str
    pool_id: int
    local_catalog_id: int
    media_server_id: int
    task_id: int
    started_ns: int
    archive_size: int
    """Stored bytes: what the archive occupies."""
    data_size: int
    """Bytes of file content the backup describes."""
    files: int
    problems: int
    """Files that could not be read whole."""
    blocks: int
    root: str
    """Root digest, hex (docs/format.md)."""
    signature: str
    """Ed25519 signature of the root by the client, hex; empty: unsigned."""
    crypto: str
    compression: str
    key_id: str
    """Fingerprint of the client's master key, hex; empty without encryption."""
    store_until_ns: int
    storage_duration: str = ""
    signature_valid: bool = False
    """Whether the signature held against the pinned key when the archive arrived."""


class BackupVerified(Event, frozen=True, gc=False):
    TYPE = "backup.verified"
    task_id: int
    status: str
    """Verification status (vocabulary)."""
    bytes_read: int
    findings: list[str]
    """What is damaged, named exactly: block, container, offset. Bounded; the last line says how many more."""


class BackupStoreUntilChanged(Event, frozen=True, gc=False):
    TYPE = "backup.store_until_changed"
    store_until_ns: int


class BackupDeleted(Event, frozen=True, gc=False):
    """The backup is no longer offered. Its bytes go later (law 4)."""

    TYPE = "backup.deleted"
    task_id: int
    """The Delete task that removes the bytes."""
    because_of: int
    """Id of the backup whose deletion took this one along; 0: asked for by itself."""


class BackupBytesRemoved(Event, frozen=True, gc=False):
    TYPE = "backup.bytes_removed"
    bytes_removed: int


class BackupPlaced(Event, frozen=True, gc=False):
    """Where the parts of a new backup stand on cartridges; in one batch with ``backup.recorded``, right behind it."""

    TYPE = "backup.placed"
    library_id: int
    parts: list[dict[str, Any]]
    """As ``rbcore.entities.BackupPart``, in order."""


class BackupMoved(Event, frozen=True, gc=False):
    """The archive stands in another pool, whole and re-readable. What stood in the old one is a pending removal now."""

    TYPE = "backup.moved"
    task_id: int
    """The Move task."""
    removal_task_id: int
    """The Delete task that removes the old bytes."""
    pool_id: int
    media_server_id: int
    local_catalog_id: int
    archive_size: int
    library_id: int
    parts: list[dict[str, Any]]


# --- tape libraries --------------------------------------------------------------------------------------------------


class LibraryStatusChanged(Event, frozen=True, gc=False):
    """``Online``, ``Offline`` or ``Quarantined`` (vocabulary). Stream ``tape_library/<id>``."""

    TYPE = "library.status_changed"
    status: str
    reason: str


class SlotContentsChanged(Event, frozen=True, gc=False):
    """What the changer reports at an element differs from the log: the world wins. Stream ``library_slot/<id>``."""

    TYPE = "slot.contents_changed"
    is_full: bool
    volume_tag: str
    cartridge_id: int
    """Registered under that tag; 0: none."""
    exception: str
    reason: str


class CartridgeMoveBegun(Event, frozen=True, gc=False):
    """The robot is about to move it. Stream ``tape_cartridge/<id>``, as all of these."""

    TYPE = "cartridge.move_begun"
    from_slot_id: int
    to_slot_id: int
    reason: str
    tape_task_id: int = 0


class CartridgeMoved(Event, frozen=True, gc=False):
    TYPE = "cartridge.moved"
    from_slot_id: int
    to_slot_id: int
    reason: str = ""


class CartridgeMoveFailed(Event, frozen=True, gc=False):
    """It was not moved; where it is says the inventory that follows."""

    TYPE = "cartridge.move_failed"
    reason: str


class CartridgeExported(Event, frozen=True, gc=False):
    """On order of an operator: it lies in an import-export element, to be taken out."""

    TYPE = "cartridge.exported"
    reason: str


class CartridgeImported(Event, frozen=True, gc=False):
    TYPE = "cartridge.imported"
    pool_id: int


class CartridgeLabellingBegun(Event, frozen=True, gc=False):
    """What is on it ends here, however the labelling ends."""

    TYPE = "cartridge.labelling_begun"
    format: str
    drive_id: int
    reason: str


class CartridgeLabelled(Event, frozen=True, gc=False):
    TYPE = "cartridge.labelled"
    format: str
    label_id: str
    use: int
    capacity_bytes: int


class CartridgeErasingBegun(Event, frozen=True, gc=False):
    TYPE = "cartridge.erasing_begun"
    is_long: bool
    drive_id: int
    reason: str


class CartridgeErased(Event, frozen=True, gc=False):
    TYPE = "cartridge.erased"
    is_long: bool


class CartridgeIdentified(Event, frozen=True, gc=False):
    """A look at the beginning of the tape found what the log did not know."""

    TYPE = "cartridge.identified"
    contents: str
    """``blank``, ``native``, ``ltfs``, ``foreign``, ``unreadable``."""
    label_id: str
    use: int
    write_protected: bool
    detail: str


class CartridgeStatusChanged(Event, frozen=True, gc=False):
    TYPE = "cartridge.status_changed"
    status: str
    reason: str


class CartridgeErrorCounted(Event, frozen=True, gc=False):
    TYPE = "cartridge.error_counted"
    kind: str
    """``read``, ``write`` or ``load``."""
    reason: str


class CartridgeWritten(Event, frozen=True, gc=False):
    """A part was ended on it."""

    TYPE = "cartridge.written"
    used_bytes: int
    full: bool
    task_id: int


class DriveMountBegun(Event, frozen=True, gc=False):
    """Stream ``tape_drive/<id>``, as all of these. ``reason`` says why this cartridge and this drive."""

    TYPE = "drive.mount_begun"
    cartridge_id: int
    reason: str
    rejected: list[str] = msgspec.field(default_factory=list)
    """One sentence per cartridge or drive that was not taken."""
    tape_task_id: int = 0


class DriveMounted(Event, frozen=True, gc=False):
    TYPE = "drive.mounted"
    cartridge_id: int


class DriveMountFailed(Event, frozen=True, gc=False):
    TYPE = "drive.mount_failed"
    cartridge_id: int
    reason: str


class DriveDismountBegun(Event, frozen=True, gc=False):
    TYPE = "drive.dismount_begun"
    cartridge_id: int
    reason: str


class DriveDismounted(Event, frozen=True, gc=False):
    """The drive holds no mounted cartridge any more."""

    TYPE = "drive.dismounted"
    cartridge_id: int
    reason: str = ""


class DriveStatusChanged(Event, frozen=True, gc=False):
    """``free``, ``busy``, ``cleaning``, ``offline`` or ``error`` (quarantined; vocabulary)."""

    TYPE = "drive.status_changed"
    status: str
    reason: str


class DriveFactsFound(Event, frozen=True, gc=False):
    """What the drive can do, asked from it."""

    TYPE = "drive.facts_found"
    vendor: str
    product: str
    revision: str
    serial: str
    partitions_max: int
    lacks: list[str]


class DriveCleaningAsked(Event, frozen=True, gc=False):
    TYPE = "drive.cleaning_asked"
    reason: str


class DriveCleaned(Event, frozen=True, gc=False):
    TYPE = "drive.cleaned"
    cartridge_id: int


class TapeTaskQueued(Event, frozen=True, gc=False):
    """Stream ``tape_task/<id>``."""

    TYPE = "tape_task.queued"
    task_type: str
    library_id: int
    cartridge_id: int
    drive_id: int
    slot_id: int
    pool_id: int
    parent_task_id: int
    backup_id: int
    position: int
    is_long_erase: bool
    priority: int


class TapeTaskStatusChanged(Event, frozen=True, gc=False):
    TYPE = "tape_task.status_changed"
    previous: str
    status: str
    reason: str
    drive_id: int = 0
    """0: as before."""
    cartridge_id: int = 0
    """0: as before."""


class TapeTaskRemoved(Event, frozen=True, gc=False):
    """It has ended, and is not kept any more: its task was removed, or newer ones have pushed it out."""

    TYPE = "tape_task.removed"


class TaskPlaced(Event, frozen=True, gc=False):
    """What ``task.assigned`` does not say: the tape library, and where a Copy or Move goes. In one batch with it, right behind it."""

    TYPE = "task.placed"
    library_id: int
    target_pool_id: int = 0
    target_local_catalog_id: int = 0
    target_library_id: int = 0


# --- access ----------------------------------------------------------------------------------------------------------


class LoginSucceeded(Event, frozen=True, gc=False):
    """Stream ``user/<id>``."""

    TYPE = "access.login_succeeded"
    address: str


class LoginFailed(Event, frozen=True, gc=False):
    """Stream ``access/0``: the name need not exist."""

    TYPE = "access.login_failed"
    user_name: str
    address: str
    reason: str
    in_a_row: int = 0
    """Failures of this name from this address without a success or a block's end between; 0: not counted, it was blocked."""


class LoggedOut(Event, frozen=True, gc=False):
    TYPE = "access.logged_out"
    reason: str
    """``logout``, ``refresh token reused``."""


class AccessDeniedNoted(Event, frozen=True, gc=False):
    """Stream ``access/0``."""

    TYPE = "access.denied"
    user_name: str
    method: str
    path: str
    address: str


def all_events() -> dict[str, type[Event]]:
    """Event type name -> struct, for decoding."""
    found = {kind.TYPE: kind for kind in Event.__subclasses__()}
    assert len(found) == len(Event.__subclasses__()), "event type names are unique"
    return found
