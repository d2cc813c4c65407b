"""``backup_strategies`` (reference 2.15)."""

from __future__ import annotations

from rbcore.entities import BackupStrategy
from rbcore.resource import Resource, Text, Timestamp
from rbcore.resources.common import unique

BACKUP_STRATEGIES = Resource(
    name="backup_strategies",
    kind=BackupStrategy.KIND,
    title="Backup Strategies",
    noun="strategy",
    entity=BackupStrategy,
    fields=(
        Text(
            name="name",
            required=True,
            max_length=255,
            pattern=r".*\S.*",
            example="my_backup_strategy",
            description="Unique.",
            indexed=True,
        ),
        Text(name="description", default=""),
        Timestamp(name="created", attribute="created_ns"),
    ),
    rules=(unique(BackupStrategy.KIND, "name", "strategy"),),
    searchable_name="name",
)
