"""``repository``: the backups made so far (reference 2.12). Rows come from finished tasks; only ``store_until`` changes."""

from __future__ import annotations

from rbcore.entities import Backup, BackupStrategy, Client, LocalCatalog, MediaServer, Pool
from rbcore.resource import Boolean, Choice, Computed, Integer, Interval, Reference, Resource, Text, TextList, Timestamp
from rbcore.resources.common import BY_CLIENT, BY_POOL, BY_STRATEGY
from rbcore.vocabulary import BACKUP_TYPES, CRYPTO, VERIFICATION_STATUSES, Role

REPOSITORY = Resource(
    name="repository",
    kind=Backup.KIND,
    title="Repository",
    noun="backup",
    entity=Backup,
    fields=(
        Computed(
            name="ref_id",
            of=lambda backup: backup.ref_id or None,
            kind="integer",
            description="Parent in the chain; null for a full backup.",
        ),
        Reference(name="client", attribute="client_id", to=Client.KIND, by="client"),
        Reference(name="hwid", attribute="client_id", to=Client.KIND, by="hwid"),
        Text(name="resource_type"),
        Text(name="resource", indexed=True),
        Choice(name="backup_type", values=BACKUP_TYPES),
        Reference(name="pool", attribute="pool_id", to=Pool.KIND, by="pool_name"),
        Reference(name="media_server", attribute="media_server_id", to=MediaServer.KIND, by="hostname"),
        Integer(name="task_id", indexed=True),
        Computed(
            name="rule_id",
            of=lambda backup: backup.rule_id or None,
            kind="integer",
            description="The rule of the global schedule that made it.",
        ),
        Computed(
            name="strategy_id",
            of=lambda backup: backup.strategy_id or None,
            kind="integer",
            refers_to=BackupStrategy.KIND,
            description="The strategy that made it.",
        ),
        Computed(
            name="strategy_rule_id",
            of=lambda backup: backup.strategy_rule_id or None,
            kind="integer",
            description="The rule of that strategy.",
        ),
        Timestamp(name="created", attribute="created_ns", event_time=True, indexed=True),
        Computed(
            name="duration",
            of=lambda backup: max(0, backup.created_ns - backup.started_ns) // 10**9 if backup.started_ns else 0,
            kind="integer",
            description="Seconds from the start of the task to the backup.",
        ),
        Text(name="archive_name", attribute="archive", indexed=True),
        Integer(name="archive_size", unit="bytes", description="What the archive occupies."),
        Integer(name="data_size", unit="bytes", description="File content the backup describes."),
        Integer(name="files"),
        Integer(name="problems", description="Files that could not be read whole."),
        Integer(name="blocks", in_list=False),
        Text(name="checksum", attribute="root", in_list=False, description="Root digest, hex (docs/format.md)."),
        Computed(name="signed", of=lambda backup: bool(backup.signature), kind="boolean"),
        Boolean(name="signature_valid", in_list=False, description="The signature held when the archive arrived."),
        Choice(name="verification_status", values=VERIFICATION_STATUSES),
        Timestamp(name="last_verified", attribute="verified_ns", event_time=True),
        TextList(name="findings", in_list=False, description="What the last verification found damaged."),
        Choice(name="crypto", values=CRYPTO),
        Text(name="compression"),
        Text(name="key_id", in_list=False, description="Fingerprint of the client's master key."),
        Timestamp(name="store_until", attribute="store_until_ns", indexed=True),
        Interval(name="storage_duration"),
        Reference(
            name="location",
            attribute="local_catalog_id",
            to=LocalCatalog.KIND,
            by="path",
            description="Directory in which the archive lies; null: on cartridges.",
        ),
        Computed(
            name="library_id",
            of=lambda backup: backup.library_id or None,
            kind="integer",
            description="The tape library in which it was written; null: it lies in a directory.",
        ),
    ),
    deletable=True,
    searchable_name="archive_name",
    manage=frozenset({Role.SUPERUSER, Role.SUPERVISOR, Role.ADMINISTRATOR}),
    scope={**BY_CLIENT, **BY_POOL, **BY_STRATEGY},
)
