"""Every vocabulary of the system, in one place: a string that turns out different is corrected here and nowhere else.

Source: the domain reference, section 1; where it marks a value as a guess, the choice made there is followed. Values that
are ours alone say so. Order matters: dictionary endpoints answer in this order and number rows from 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal


class TaskType:
    """Field ``task_type`` of the queue (no dictionary endpoint)."""

    BACKUP: Final = "Backup urgent"
    BACKUP_GLOBAL: Final = "Backup global"
    BACKUP_LOCAL: Final = "Backup local"
    BACKUP_STRATEGY: Final = "Backup strategy"
    RESTORE: Final = "Restore"
    VERIFY: Final = "Verify"
    DELETE: Final = "Delete"
    COPY: Final = "Copy"
    MOVE: Final = "Move"


BACKUP_TASKS: Final = frozenset(
    {TaskType.BACKUP, TaskType.BACKUP_GLOBAL, TaskType.BACKUP_LOCAL, TaskType.BACKUP_STRATEGY}
)
CLIENT_TASKS: Final = BACKUP_TASKS | {TaskType.RESTORE}
"""Tasks whose work runs on the client; all others run on the media server alone."""
COPY_TASKS: Final = frozenset({TaskType.COPY, TaskType.MOVE})
TASK_TYPES: Final = (
    TaskType.BACKUP,
    TaskType.BACKUP_GLOBAL,
    TaskType.BACKUP_LOCAL,
    TaskType.BACKUP_STRATEGY,
    TaskType.RESTORE,
    TaskType.VERIFY,
    TaskType.DELETE,
    TaskType.COPY,
    TaskType.MOVE,
)


class TaskStatus:
    """GET task_status. ``Restarted`` of the reference is a transient mark that we skip: a restart makes a new task."""

    NEW: Final = "New"
    ASSIGNED: Final = "Assigned"
    AT_CLIENT: Final = "At_Client"
    EXECUTION: Final = "Execution"
    START_TRANSFER: Final = "Start_Transfer"
    TRANSMISSION: Final = "Transmission"
    SUSPENDED: Final = "Suspended"
    PAUSED: Final = "Paused"
    DONE: Final = "Done"
    ERROR: Final = "Error"
    BROKEN: Final = "Broken"
    KILL: Final = "Kill"
    KILLED: Final = "Killed"


TASK_STATUSES: Final = (
    TaskStatus.NEW,
    TaskStatus.ASSIGNED,
    TaskStatus.AT_CLIENT,
    TaskStatus.EXECUTION,
    TaskStatus.START_TRANSFER,
    TaskStatus.TRANSMISSION,
    TaskStatus.SUSPENDED,
    TaskStatus.PAUSED,
    TaskStatus.DONE,
    TaskStatus.ERROR,
    TaskStatus.BROKEN,
    TaskStatus.KILL,
    TaskStatus.KILLED,
)
RUNNING_STATUSES: Final = (
    TaskStatus.AT_CLIENT,
    TaskStatus.EXECUTION,
    TaskStatus.START_TRANSFER,
    TaskStatus.TRANSMISSION,
)
"""Somebody works on the task. In the order in which a task goes through them."""
TERMINAL_STATUSES: Final = frozenset({TaskStatus.DONE, TaskStatus.ERROR, TaskStatus.BROKEN, TaskStatus.KILLED})
ACTIVE_STATUSES: Final = tuple(status for status in TASK_STATUSES if status not in TERMINAL_STATUSES)

REMOVAL_WORDS: Final = {
    "error": TaskStatus.ERROR,
    "killed": TaskStatus.KILLED,
    "obsoleted": TaskStatus.DONE,
}
"""The words of DELETE task_queue/{status}; the manual knows exactly these three."""


class TapeTaskType:
    """GET tl_task_queue (reference 1.3)."""

    FORMAT: Final = "Format"
    ERASE: Final = "Erase"
    CHECK_LTFS: Final = "Check LTFS"
    IMPORT: Final = "Import"
    EXPORT: Final = "Export"
    MOVE: Final = "Move"
    CLEAN: Final = "Clean drive"
    INVENTORY: Final = "Inventory"
    READ: Final = "Read"
    WRITE: Final = "Write"


TAPE_TASK_TYPES: Final = (
    "Load",
    "Unload",
    "Mount LTFS",
    "Umount LTFS",
    "Format",
    "Erase",
    "Check LTFS",
    "Import",
    "Export",
    "Move",
    "Clean drive",
    "Inventory",
    "Read",
    "Write",
)
TAPE_TASK_STATUSES: Final = (
    TaskStatus.NEW,
    TaskStatus.ASSIGNED,
    TaskStatus.EXECUTION,
    TaskStatus.DONE,
    TaskStatus.ERROR,
    TaskStatus.KILLED,
    TaskStatus.SUSPENDED,
)

ACTIVE_TAPE_TASK_STATUSES: Final = (
    TaskStatus.NEW,
    TaskStatus.ASSIGNED,
    TaskStatus.EXECUTION,
    TaskStatus.SUSPENDED,
)


class LibraryStatus:
    """Ours; no dictionary endpoint."""

    ONLINE: Final = "Online"
    OFFLINE: Final = "Offline"
    """The changer does not answer now; it is asked again by itself."""
    QUARANTINED: Final = "Quarantined"
    """It kept failing; an operator looks at it and synchronises the library."""


LIBRARY_STATUSES: Final = (LibraryStatus.ONLINE, LibraryStatus.OFFLINE, LibraryStatus.QUARANTINED)


class DriveStatus:
    """Reference 2.17; ``offline`` is ours."""

    FREE: Final = "free"
    BUSY: Final = "busy"
    CLEANING: Final = "cleaning"
    OFFLINE: Final = "offline"
    """It does not answer now; it is asked again by itself."""
    ERROR: Final = "error"
    """Quarantined: it kept failing; an operator looks at it and synchronises the library."""


DRIVE_STATUSES: Final = (
    DriveStatus.FREE,
    DriveStatus.BUSY,
    DriveStatus.CLEANING,
    DriveStatus.OFFLINE,
    DriveStatus.ERROR,
)


class CartridgeStatus:
    """Ours; no dictionary endpoint."""

    NEW: Final = "New"
    """Registered, not looked at yet: it may be blank or hold something."""
    SCRATCH: Final = "Scratch"
    """Blank, erased, or labelled without an archive: it may be written."""
    APPENDABLE: Final = "Appendable"
    FULL: Final = "Full"
    EXPIRED: Final = "Expired"
    """Full or not: no archive of the repository is left on it. It is labelled anew when no scratch is left."""
    QUARANTINED: Final = "Quarantined"
    """Not used for anything but reading what is on it, until an operator erases or formats it."""
    CLEANING: Final = "Cleaning"
    """A cleaning cartridge."""


CARTRIDGE_STATUSES: Final = (
    CartridgeStatus.NEW,
    CartridgeStatus.SCRATCH,
    CartridgeStatus.APPENDABLE,
    CartridgeStatus.FULL,
    CartridgeStatus.EXPIRED,
    CartridgeStatus.QUARANTINED,
    CartridgeStatus.CLEANING,
)


class SlotType:
    STORAGE: Final = "storage"
    IMPORT_EXPORT: Final = "import-export"
    DRIVE: Final = "drive"


SLOT_TYPES: Final = (SlotType.STORAGE, SlotType.IMPORT_EXPORT, SlotType.DRIVE)

RULE_STATUSES: Final = ("wait", "run")


class VerificationStatus:
    NOT_VERIFIED: Final = "Not Verified"
    TRUSTED: Final = "Trusted"
    """Every byte is as written and the client's signature holds."""
    SUSPICIOUS: Final = "Suspicious"
    """Every byte is as written, but the signature is absent or cannot be confirmed."""
    BROKEN: Final = "Broken"
    """Something is missing or not as written."""


VERIFICATION_STATUSES: Final = (
    VerificationStatus.NOT_VERIFIED,
    VerificationStatus.TRUSTED,
    VerificationStatus.SUSPICIOUS,
    VerificationStatus.BROKEN,
)

NOTIFICATION_STATUSES: Final = ("New", "Sent", "Error", "No recipients")


class BackupType:
    FULL: Final = "full"
    INCREMENTAL: Final = "incremental"
    DIFFERENTIAL: Final = "differential"


BACKUP_TYPES: Final = (BackupType.FULL, BackupType.INCREMENTAL, BackupType.DIFFERENTIAL)


class PoolType:
    FILE_SYSTEM: Final = "File system"
    TAPE_LTFS: Final = "Tape library, LTFS"
    TAPE_NATIVE: Final = "Tape library, Native"
    CLOUD: Final = "Cloud"
    BLOCK_DEVICE: Final = "Block device"
    CLIENT_DEFINED: Final = "Client defined"


DESTINATION_STORAGE_TYPES: Final = (
    PoolType.FILE_SYSTEM,
    PoolType.TAPE_LTFS,
    PoolType.TAPE_NATIVE,
    PoolType.CLOUD,
    PoolType.BLOCK_DEVICE,
    PoolType.CLIENT_DEFINED,
)
POOL_TYPE_SYNONYMS: Final = {"Tape library": PoolType.TAPE_LTFS}
"""Name of the generation before LTFS and native tape were told apart; taken on input."""
TAPE_POOL_TYPES: Final = frozenset({PoolType.TAPE_LTFS, PoolType.TAPE_NATIVE})
POOL_TYPES_WITH_DATA_PLANE: Final = frozenset({PoolType.FILE_SYSTEM, *TAPE_POOL_TYPES})
"""Types this release can write to. Others may be declared and are refused by name when a task needs them."""

TAPE_TYPES: Final = (*(f"LTO-{generation}" for generation in range(1, 10)), "CLN")
TAPE_NATIVE_CAPACITY_BYTES: Final = {
    "LTO-1": 100 * 10**9,
    "LTO-2": 200 * 10**9,
    "LTO-3": 400 * 10**9,
    "LTO-4": 800 * 10**9,
    "LTO-5": 1_500 * 10**9,
    "LTO-6": 2_500 * 10**9,
    "LTO-7": 6_000 * 10**9,
    "LTO-8": 12_000 * 10**9,
    "LTO-9": 18_000 * 10**9,
}

COMPRESSION_TYPES: Final = ("None", "fast", "optimal", "best")

NO_CRYPTO: Final = "nocrypt"
CRYPTO: Final = (NO_CRYPTO, "AES-256-GCM", "ChaCha20-Poly1305")
"""``nocrypt`` is documented; the two ciphers are ours, as the endpoint is the authority (reference 1.12)."""

DEDUPLICATION_HASH_LENGTHS_BITS: Final = {
    "sha1": (160,),
    "sha2": (256, 512),
    "skein": (256, 512),
    "blake2b": (256, 512),
    "streebog": (256, 512),
}
"""Algorithm -> lengths; any other pair is not acceptable."""
BLOCK_SIZES_BYTES: Final = (16_384, 32_768, 65_536, 131_072, 262_144, 524_288, 1_048_576)
DEDUPLICATION_DEFAULT: Final = ("streebog", 256, 131_072)
"""Algorithm, length in bits, block size in bytes of the manual's example."""


class ResourceType:
    FILE_SYSTEM: Final = "File system"
    BLOCK_DEVICE: Final = "Block device"
    LVM: Final = "LVM logical volume"
    POSTGRESQL: Final = "PostgreSQL universal"


RESOURCE_TYPES: Final = (
    ResourceType.FILE_SYSTEM,
    ResourceType.BLOCK_DEVICE,
    ResourceType.LVM,
    ResourceType.POSTGRESQL,
)
PATH_RESOURCE_TYPES: Final = frozenset({ResourceType.FILE_SYSTEM, ResourceType.BLOCK_DEVICE})
"""Types whose resource is an absolute path."""

OS_TYPES: Final = ("Linux", "Windows")
LICENSE_TYPES: Final = ("Open",)


class Role:
    SUPERUSER: Final = "superuser"
    SUPERVISOR: Final = "supervisor"
    MAINTAINER: Final = "maintainer"
    ADMINISTRATOR: Final = "administrator"
    STRATEGY_ADMINISTRATOR: Final = "strategy_administrator"


ROLES: Final = (
    Role.SUPERUSER,
    Role.SUPERVISOR,
    Role.MAINTAINER,
    Role.ADMINISTRATOR,
    Role.STRATEGY_ADMINISTRATOR,
)


class PlanStatus:
    """Of a disaster recovery plan (GET disaster_recovery_record_status)."""

    NOT_CHECKED: Final = "Not checked"
    CHECKING: Final = "Checking"
    READY: Final = "Ready"
    NO_BACKUP: Final = "No backup"
    CLIENT_OFFLINE: Final = "Client offline"
    NOT_SUPPORTED: Final = "Resource type not supported"
    RUNNING: Final = "Running"
    DONE: Final = "Done"
    ERROR: Final = "Error"


DISASTER_RECOVERY_STATUSES: Final = (
    PlanStatus.NOT_CHECKED,
    PlanStatus.CHECKING,
    PlanStatus.READY,
    PlanStatus.NO_BACKUP,
    PlanStatus.CLIENT_OFFLINE,
    PlanStatus.NOT_SUPPORTED,
    PlanStatus.RUNNING,
    PlanStatus.DONE,
    PlanStatus.ERROR,
)

MAIN_SERVER: Final = "main"
FURTHER_SERVER: Final = "media"
MEDIA_SERVER_TYPES: Final = (MAIN_SERVER, "reserve", FURTHER_SERVER)
"""The main server is the one this daemon is; it has no session with another in this release."""

DEFAULT_POOL: Final = "Default"
DEFAULT_STRATEGY: Final = "Default"
NO_GROUP: Final = "No group"
NOBODY: Final = "Nobody"
"""Built-in names (reference 1.19): neither renamed nor deleted."""

PRIORITY_MAX: Final = 1000
PRIORITY_DEFAULT: Final = 100
"""Higher goes first; the same priority goes by id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationKey:
    """One key of PATCH global_configuration. Misspelt names are the manual's and are kept."""

    name: str
    type: Literal["integer", "text", "path", "time", "yes_no", "boolean", "choice"]
    default: Any
    meaning: str
    minimum: int = 0
    maximum: int = 2**63 - 1
    multiple_of: int = 1
    unit: str = ""
    values: tuple[str, ...] = ()


def _whole(name: str, default: int, unit: str, minimum: int, maximum: int, meaning: str) -> ConfigurationKey:
    return ConfigurationKey(
        name=name, type="integer", default=default, unit=unit, minimum=minimum, maximum=maximum, meaning=meaning
    )


def _yes_no(name: str, default: str, meaning: str) -> ConfigurationKey:
    return ConfigurationKey(name=name, type="yes_no", default=default, meaning=meaning, values=("yes", "no"))


def _flag(name: str, default: bool, meaning: str) -> ConfigurationKey:
    return ConfigurationKey(name=name, type="boolean", default=default, meaning=meaning)


def _choice(name: str, values: tuple[str, ...], meaning: str) -> ConfigurationKey:
    return ConfigurationKey(name=name, type="choice", default=values[0], values=values, meaning=meaning)


_YEAR_MINUTES: Final = 525_600
_LARGEST: Final = 2**63 - 1

GLOBAL_CONFIGURATION: Final[dict[str, ConfigurationKey]] = {
    key.name: key
    for key in (
        ConfigurationKey(
            name="file_transfer_block_size",
            type="integer",
            default=16_384,
            unit="bytes",
            minimum=4_096,
            maximum=20_971_520,
            multiple_of=512,
            meaning="Block of a transfer between client and media server.",
        ),
        _choice(
            "data_spred_into_pool",
            ("sequentially", "uniformly"),
            "How a pool picks a device for a new archive: fill in order, or most free space.",
        ),
        ConfigurationKey(
            name="emergency_storage_local_catalog",
            type="path",
            default="/tmp/rubackup_emergency_storage_local_catalog",  # noqa: S108  the manual's default
            meaning="Where a media server puts an archive that it can place nowhere else.",
        ),
        _whole("done_tasks_remove_period", 1_440, "minutes", 0, _YEAR_MINUTES, "Age at which Done tasks go; 0: never."),
        _whole("error_tasks_remove_period", 10_080, "minutes", 0, _YEAR_MINUTES, "The same for Error."),
        _whole("broken_tasks_remove_period", 10_080, "minutes", 0, _YEAR_MINUTES, "The same for Broken."),
        _whole("killed_tasks_remove_period", 10_080, "minutes", 0, _YEAR_MINUTES, "The same for Killed."),
        _whole(
            "obsoleted_backup_notification_period",
            1_440,
            "minutes",
            1,
            _YEAR_MINUTES,
            "Repeat interval of mail about obsolete backups.",
        ),
        _whole(
            "rule_validity_end_notification_period",
            1_440,
            "minutes",
            1,
            _YEAR_MINUTES,
            "Repeat interval of mail about expired rules.",
        ),
        _whole(
            "strategy_validity_end_notification_period",
            1_440,
            "minutes",
            1,
            _YEAR_MINUTES,
            "Repeat interval of mail about expired strategies.",
        ),
        _whole("rule_storage_capacity_reserve", 0, "GiB", 0, _LARGEST, "Threshold before a rule's capacity ends."),
        _whole("strategy_storage_capacity_reserve", 0, "GiB", 0, _LARGEST, "The same for a strategy."),
        _whole(
            "rule_storage_capacity_notification_period",
            1_440,
            "minutes",
            1,
            _YEAR_MINUTES,
            "Repeat interval of mail about a rule's capacity.",
        ),
        _whole(
            "strategy_storage_capacity_notification_period",
            1_440,
            "minutes",
            1,
            _YEAR_MINUTES,
            "Repeat interval of mail about a strategy's capacity.",
        ),
        ConfigurationKey(
            name="service_window_start",
            type="time",
            default="00:00:00",
            meaning="Local time at which background maintenance may begin.",
        ),
        ConfigurationKey(
            name="service_window_end",
            type="time",
            default="23:59:59",
            meaning="Its end; a start after the end means over midnight.",
        ),
        _whole(
            "pool_storage_capacity_reserve",
            2_000_000_000,
            "bytes",
            0,
            _LARGEST,
            "Free space that must remain on a device.",
        ),
        ConfigurationKey(
            name="tape_library_mount_point",
            type="path",
            default="/opt/rubackup/mnt",
            meaning="Parent directory of LTFS mounts.",
        ),
        _whole("suspended_task_restart_period", 1, "minutes", 1, 1_440, "When a Suspended task is tried again."),
        _yes_no("unload_tape_cartriges_whes_media_server_starts", "yes", "Empty all drives at start."),
        _whole("ltfs_umount_timeout", 50, "seconds", 1, 3_600, "How long an LTFS unmount may take."),
        _whole("max_system_monitoring_records", 3_600, "rows", 1, 1_000_000, "Size of the monitoring ring."),
        _whole("monitoring_period", 1, "seconds", 1, 3_600, "Sampling period of the monitoring."),
        _whole(
            "digital_signature_public_key_obsolence",
            1_440,
            "minutes",
            1,
            _YEAR_MINUTES,
            "How long a client's public key is trusted without asking again.",
        ),
        ConfigurationKey(name="rb_key_hash", type="text", default="", meaning="Hash of a key, hex; empty: none."),
        _yes_no("verify_archive_after_creation", "no", "Queue a Verify after every backup."),
        _yes_no("kill_task_of_offline_client", "yes", "Running tasks of a client that went away become Killed."),
        _choice(
            "create_new_task_if_client_offline",
            ("create new task", "don't create new task"),
            "What the scheduler does for an offline client.",
        ),
        _yes_no("auto_delete_archive_from_broken_chain", "no", "Remove backups whose parent is gone."),
        _yes_no("consolidating_tape_library_tasks", "yes", "Group queued tape work by cartridge."),
        _whole("clean_tape_drives_period", 30, "days", 1, 3_650, "Interval between drive cleanings."),
        _yes_no("auto_clean_tape_drives", "no", "Clean without an operator."),
        _yes_no("dedup_clean_unused_blocks", "yes", "Collect unused deduplication blocks."),
        _whole("dedup_clean_period", 30, "minutes", 1, 10_080, "Interval between collections."),
        _yes_no("dedup_provide_common_hash_table_for_client", "yes", "Send all hashes of the client."),
        _yes_no("dedup_provide_common_hash_table", "yes", "Send the pool's hash table."),
        _yes_no("dedup_verify_only_meta_data", "yes", "Verify of a deduplicated backup checks the metafile only."),
        _whole("mandatory_storage_time", 0, "days", 0, 36_500, "Least age before any backup may be deleted."),
        _flag("clients_capacity_limits", False, "Enforce clients.storage_capacity."),
        _flag("global_schedule_capacity_limits", False, "Enforce a rule's storage_capacity."),
        _flag("backup_strategies_capacity_limits", False, "Enforce a strategy's storage_capacity."),
        _flag("immutable_archives", True, "Set the immutable attribute on archives until store_until."),
        _flag("delete_archives_with_zeroing", True, "Overwrite with zeros before unlinking."),
        _flag("dont_delete_last_gs_rule_archive", True, "Retention keeps a rule's newest restorable backup."),
        _flag("dont_delete_last_strategy_rule_archive", True, "The same for a strategy rule."),
        _whole("wrong_auth_attempts_count", 5, "attempts", 0, 100, "Failed logins before a block; 0: no block."),
        _whole("wrong_auth_block_period", 30, "minutes", 1, 10_080, "Length of the block."),
        _yes_no("repository_remove_chain", "yes", "Deleting a backup also deletes what depends on it."),
        _whole("filesystems_clean_period", 30, "minutes", 1, _YEAR_MINUTES, "Interval of sweeping File system pools."),
        _yes_no("show_previous_login_attempts_after_logging_in", "yes", "The console shows the last attempts."),
        _flag("search_backup_in_cluster_group", True, "A parent may come from another node of the cluster group."),
        _choice("bandwith_limit_advantage", ("client", "rule"), "Which limit wins when client and rule have one."),
        _choice("bandwith_client_limit", ("minimum", "maximum"), "How overlapping windows of a client combine."),
        _choice("bandwith_rule_limit", ("minimum", "maximum"), "The same for limits of rules."),
    )
}
