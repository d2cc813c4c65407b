"""``task_queue`` (reference 2.13). Rows come from ``QueueBackup`` and its like; the queue's verbs are commands of their own."""

from __future__ import annotations

from rbcore.entities import Client, LocalCatalog, MediaServer, Pool, Task
from rbcore.resource import (
    Boolean,
    Choice,
    Computed,
    Integer,
    Interval,
    JsonObject,
    Reference,
    Resource,
    Text,
    Timestamp,
)
from rbcore.vocabulary import BACKUP_TYPES, CRYPTO, PRIORITY_MAX, TASK_STATUSES, TASK_TYPES, TaskStatus

TASK_QUEUE = Resource(
    name="task_queue",
    kind=Task.KIND,
    title="Task Queue",
    noun="task",
    entity=Task,
    fields=(
        Choice(name="task_type", values=TASK_TYPES),
        Text(name="resource"),
        Choice(name="backup_type", values=BACKUP_TYPES),
        Choice(name="status", values=TASK_STATUSES, indexed=True),
        Text(name="status_reason", description="Why the task has its status."),
        Timestamp(name="created", attribute="created_ns", indexed=True),
        Text(name="resource_type"),
        Reference(name="client", attribute="client_id", to=Client.KIND, by="client"),
        Reference(name="hwid", attribute="client_id", to=Client.KIND, by="hwid"),
        Reference(name="pool", attribute="pool_id", to=Pool.KIND, by="pool_name"),
        Reference(name="media_server", attribute="media_server_id", to=MediaServer.KIND, by="hostname"),
        Integer(name="priority", maximum=PRIORITY_MAX),
        Choice(name="crypto", values=CRYPTO),
        Interval(name="storage_duration"),
        Boolean(name="archiving", description="Kept and shown; source data is never removed."),
        Timestamp(name="started", attribute="started_ns"),
        Timestamp(name="ended", attribute="ended_ns"),
        Computed(
            name="progress",
            of=lambda task: 100 if task.status == TaskStatus.DONE else 0,
            kind="integer",
            description="Percent; of a running task the newest telemetry.",
        ),
        Computed(
            name="archive_id",
            of=lambda task: task.backup_id or None,
            kind="integer",
            description="The backup that was made, restored, verified or deleted.",
        ),
        Integer(name="attempts", description="Attempts in a row without progress."),
        Timestamp(name="retry_at", attribute="retry_at_ns", description="When a suspended task is tried again."),
        Computed(
            name="restarted_from",
            of=lambda task: task.restarted_from or None,
            kind="integer",
            description="The task this one repeats.",
        ),
        Choice(name="requested_backup_type", values=BACKUP_TYPES, in_list=False),
        Computed(
            name="parent_archive_id",
            of=lambda task: task.parent_backup_id or None,
            kind="integer",
            description="The backup the new one will refer to.",
        ),
        Reference(
            name="location",
            attribute="local_catalog_id",
            to=LocalCatalog.KIND,
            by="path",
            in_list=False,
            description="Directory the task works on.",
        ),
        Text(name="archive_name", attribute="archive", in_list=False),
        JsonObject(name="parameters", in_list=False),
    ),
    deletable=True,
    manage=frozenset({"superuser", "supervisor", "administrator"}),
    searchable_name="id",
)
