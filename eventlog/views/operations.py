"""The journals of operations: ``clients_log``, ``media_servers_log``, ``repository_log``, ``global_schedule_log`` (reference 2.20).

Each follows from events that were recorded for their own sake, so that a log of an earlier release has these lines too.
"""

from __future__ import annotations

from typing import Any

from eventlog.views.journals import (
    ACTOR,
    CLIENT,
    EVENT,
    SEVERITIES,
    SEVERITY,
    TEXT,
    TIME,
    Line,
    id_of,
    word_of,
)
from eventlog.views.schema import LogTable
from rbcore.entities import (
    Backup,
    Client,
    Entity,
    MediaServer,
    MediumChanger,
    Pool,
    ScheduleRule,
    TapeDrive,
    TapeLibrary,
    Task,
    UnauthorisedClient,
)
from rbcore.events import (
    BackupBytesRemoved,
    BackupDeleted,
    BackupMoved,
    BackupRecorded,
    BackupStoreUntilChanged,
    BackupVerified,
    ClientAppeared,
    ClientAuthorised,
    ClientConnected,
    ClientDisconnected,
    ClientRefused,
    ClientReported,
    ClientRevoked,
    DriveStatusChanged,
    Envelope,
    LibraryStatusChanged,
    MediaServerAppeared,
    MediaServerAuthorised,
    MediaServerRefused,
    MediaServerReported,
    MediaServerRevoked,
    RecordChanged,
    RecordCreated,
    RecordDeleted,
    TaskQueued,
    TaskStatusChanged,
)
from rbcore.resource import Integer, Reference, Text
from rbcore.resources import by_kind
from rbcore.resources.common import BY_CLIENT, BY_POOL
from rbcore.state import State
from rbcore.vocabulary import (
    COPY_TASKS,
    TERMINAL_STATUSES,
    DriveStatus,
    LibraryStatus,
    Role,
    TaskType,
    VerificationStatus,
)


def _kind_of(envelope: Envelope) -> str:
    return envelope.stream.partition("/")[0]


def _changed_text(kind: str, event: RecordChanged) -> str:
    """``Changed: description, group``: what it was and is shows ``?at=``."""
    names = {one.source: one.name for one in by_kind[kind].fields}
    return f"Changed: {', '.join(sorted(names.get(one, one) for one in event.changes))}"


def _record_text(kind: str, event: RecordCreated | RecordChanged | RecordDeleted) -> str:
    if isinstance(event, RecordChanged):
        return _changed_text(kind, event)
    return "Created" if isinstance(event, RecordCreated) else "Deleted"


def _name_of(entity: Entity) -> str:
    """``pool 'Default'``, or ``local catalog 3`` of what has no name."""
    resource = by_kind[entity.KIND]
    name = getattr(entity, resource.field(resource.searchable_name).source) if resource.searchable_name else ""
    return f"{resource.noun} '{name}'" if name else f"{resource.noun} {entity.id}"


# --- clients -----------------------------------------------------------------------------------------------------------


def _client_line(
    envelope: Envelope, client_id: int, hostname: str, address: str, text: str, severity: str = "info"
) -> list[Line]:
    return [
        (envelope.time_ns, severity, client_id, hostname, address, word_of(envelope), envelope.actor, text),
    ]


def _appeared(envelope: Envelope, event: ClientAppeared, state: State, before: Entity | None) -> list[Line]:
    text = f"Asks for authorisation: hwid {event.hwid}, {event.os_type} {event.os_version}, agent {event.agent_version}"
    return _client_line(envelope, 0, event.hostname, event.address, text)


def _authorised(envelope: Envelope, event: ClientAuthorised, state: State, before: Entity | None) -> list[Line]:
    return _client_line(envelope, id_of(envelope), event.hostname, event.address, "Authorised; its key is pinned")


def _reported(envelope: Envelope, event: ClientReported, state: State, before: Entity | None) -> list[Line]:
    can = ", ".join(event.resource_types) or "nothing"
    text = f"Reports: {event.os_type} {event.os_version}, agent {event.agent_version}, can back up {can}"
    return _client_line(envelope, id_of(envelope), event.hostname, event.address, text)


def _of_client(envelope: Envelope, before: Entity | None, text: str, severity: str = "info") -> list[Line]:
    hostname, address = (before.hostname, before.address) if isinstance(before, Client) else ("", "")
    return _client_line(envelope, id_of(envelope), hostname, address, text, severity)


def _revoked(envelope: Envelope, event: ClientRevoked, state: State, before: Entity | None) -> list[Line]:
    return _of_client(envelope, before, "No longer authorised", "warning")


def _connected(envelope: Envelope, event: ClientConnected, state: State, before: Entity | None) -> list[Line]:
    return _of_client(envelope, before, "Online")


def _disconnected(envelope: Envelope, event: ClientDisconnected, state: State, before: Entity | None) -> list[Line]:
    return _of_client(envelope, before, f"Offline: {event.reason}" if event.reason else "Offline")


def _refused(envelope: Envelope, event: ClientRefused, state: State, before: Entity | None) -> list[Line]:
    hostname = before.hostname if isinstance(before, Client) else ""
    text = f"Somebody came with its hwid and another key, {event.public_key[:16]}...: {event.reason}"
    return _client_line(envelope, id_of(envelope), hostname, event.address, text, "error")


def _record_of_client(envelope: Envelope, event: Any, state: State, before: Entity | None) -> list[Line]:
    kind = _kind_of(envelope)
    if kind == Client.KIND:
        return _of_client(envelope, before, _record_text(kind, event))
    if isinstance(before, UnauthorisedClient):
        return _client_line(envelope, 0, before.hostname, before.address, "Deleted from those that wait")
    return []


CLIENTS_LOG = LogTable(
    name="clients_log",
    fields=(
        TIME,
        SEVERITY,
        CLIENT,
        Text(name="hostname", description="As it called itself at that time."),
        Text(name="address"),
        EVENT,
        ACTOR,
        TEXT,
    ),
    lines={
        ClientAppeared: _appeared,
        ClientAuthorised: _authorised,
        ClientReported: _reported,
        ClientRevoked: _revoked,
        ClientConnected: _connected,
        ClientDisconnected: _disconnected,
        ClientRefused: _refused,
        RecordChanged: _record_of_client,
        RecordDeleted: _record_of_client,
    },
    scope=BY_CLIENT,
)


# --- media servers -----------------------------------------------------------------------------------------------------


def _server_of(state: State, entity: Entity) -> int:
    """The media server that the entity is, or belongs to; 0: none. Storages belong to their pool's, what stands in a library to the library's."""
    if isinstance(entity, MediaServer):
        return entity.id
    if isinstance(entity, TapeDrive | MediumChanger):
        library = state.find(TapeLibrary, entity.library_id)
        return library.media_server if library is not None else 0
    own = getattr(entity, "media_server", 0)
    if own:
        return int(own)
    pool = state.find(Pool, getattr(entity, "pool", 0))
    return pool.media_server if pool is not None else 0


_OF_SERVERS = frozenset(
    {
        "media_servers",
        "unauthorised_media_servers",
        "pool_list",
        "storage_local_catalogs",
        "storage_block_devices",
        "client_defined_storages",
        "tape_libraries",
        "library_tape_drives",
        "medium_changers",
    }
)
"""Resources whose records are made, changed and deleted on a media server."""


def _server_line(
    envelope: Envelope, state: State, entity: Entity | None, text: str, severity: str = "info"
) -> list[Line]:
    if entity is None:
        return []
    server_id, name = _server_of(state, entity), _name_of(entity)
    return [(envelope.time_ns, severity, server_id, name, word_of(envelope), envelope.actor, text)]


def _record_of_server(envelope: Envelope, event: Any, state: State, before: Entity | None) -> list[Line]:
    kind = _kind_of(envelope)
    if kind not in by_kind or by_kind[kind].name not in _OF_SERVERS:
        return []
    entity = state.tables[kind].get(id_of(envelope)) or before
    return _server_line(envelope, state, entity, _record_text(kind, event))


def _library_status(envelope: Envelope, event: LibraryStatusChanged, state: State, before: Entity | None) -> list[Line]:
    severity = {LibraryStatus.ONLINE: "info", LibraryStatus.OFFLINE: "warning"}.get(event.status, "error")
    text = event.status + (f": {event.reason}" if event.reason else "")
    return _server_line(envelope, state, before, text, severity)


_OF_SERVER_ITSELF = {
    MediaServerAppeared.TYPE: ("Asks for authorisation", "info"),
    MediaServerAuthorised.TYPE: ("Authorised; its key is pinned", "info"),
    MediaServerReported.TYPE: ("Reports another address or version", "info"),
    MediaServerRevoked.TYPE: ("No longer authorised", "warning"),
    MediaServerRefused.TYPE: ("Somebody came with its hwid", "error"),
}
"""Text and severity."""


def _server_itself(envelope: Envelope, event: Any, state: State, before: Entity | None) -> list[Line]:
    text, severity = _OF_SERVER_ITSELF[event.TYPE]
    if isinstance(event, MediaServerAppeared | MediaServerAuthorised | MediaServerReported):
        text = f"{text}: address {event.address or 'unknown'}, version {event.version or 'unknown'}"
    elif isinstance(event, MediaServerRefused):
        text = f"{text} from {event.address or 'an unknown address'}: {event.reason}"
    entity = state.tables[_kind_of(envelope)].get(id_of(envelope)) or before
    return _server_line(envelope, state, entity, text, severity)


_USUAL = frozenset({DriveStatus.FREE, DriveStatus.BUSY})


def _drive_status(envelope: Envelope, event: DriveStatusChanged, state: State, before: Entity | None) -> list[Line]:
    """A drive that is taken and given back is no news."""
    if isinstance(before, TapeDrive) and {before.status, event.status} <= _USUAL:
        return []
    severity = {DriveStatus.ERROR: "error", DriveStatus.OFFLINE: "warning"}.get(event.status, "info")
    text = event.status + (f": {event.reason}" if event.reason else "")
    return _server_line(envelope, state, before, text, severity)


MEDIA_SERVERS_LOG = LogTable(
    name="media_servers_log",
    fields=(
        TIME,
        SEVERITY,
        Reference(name="media_server", to=MediaServer.KIND, by="hostname", indexed=True),
        Text(
            name="object",
            max_length=5000,
            description="What it is about: the server, or a pool, storage or device of it.",
        ),
        EVENT,
        ACTOR,
        TEXT,
    ),
    lines={
        RecordCreated: _record_of_server,
        RecordChanged: _record_of_server,
        RecordDeleted: _record_of_server,
        LibraryStatusChanged: _library_status,
        DriveStatusChanged: _drive_status,
        MediaServerAppeared: _server_itself,
        MediaServerAuthorised: _server_itself,
        MediaServerReported: _server_itself,
        MediaServerRevoked: _server_itself,
        MediaServerRefused: _server_itself,
    },
    scope={Role.MAINTAINER: "media_server"},
)


# --- repository --------------------------------------------------------------------------------------------------------

_ABOUT_BACKUPS = frozenset({TaskType.RESTORE, TaskType.VERIFY, TaskType.DELETE, *COPY_TASKS})


def _backup_line(
    envelope: Envelope,
    backup: Entity | None,
    text: str,
    *,
    backup_id: int = 0,
    task_id: int = 0,
    severity: str = "info",
    event: str = "",
) -> list[Line]:
    known = backup if isinstance(backup, Backup) else None
    client_id, pool_id, archive = (known.client_id, known.pool_id, known.archive) if known is not None else (0, 0, "")
    number = backup_id or id_of(envelope)
    word = event or word_of(envelope)
    return [(envelope.time_ns, severity, number, archive, client_id, pool_id, task_id, word, envelope.actor, text)]


def _recorded(envelope: Envelope, event: BackupRecorded, state: State, before: Entity | None) -> list[Line]:
    text = f"{event.backup_type} backup of {event.resource_type} {event.resource}: {event.archive_size} bytes"
    severity = "warning" if event.problems else "info"
    if event.problems:
        text += f"; {event.problems} of {event.files} files could not be read whole"
    backup = state.find(Backup, id_of(envelope))
    return _backup_line(envelope, backup, text, task_id=event.task_id, severity=severity)


def _verified(envelope: Envelope, event: BackupVerified, state: State, before: Entity | None) -> list[Line]:
    severities = {VerificationStatus.BROKEN: "error", VerificationStatus.SUSPICIOUS: "warning"}
    text = event.status + (f": {event.findings[0]}" if event.findings else "")
    severity = severities.get(event.status, "info")
    return _backup_line(envelope, before, text, task_id=event.task_id, severity=severity)


def _kept_until(envelope: Envelope, event: BackupStoreUntilChanged, state: State, before: Entity | None) -> list[Line]:
    return _backup_line(envelope, before, "Is kept until another time (store_until)")


def _deleted(envelope: Envelope, event: BackupDeleted, state: State, before: Entity | None) -> list[Line]:
    text = f"Deleted together with backup {event.because_of}" if event.because_of else "Deleted"
    return _backup_line(envelope, before, text, task_id=event.task_id)


def _moved(envelope: Envelope, event: BackupMoved, state: State, before: Entity | None) -> list[Line]:
    pool = state.find(Pool, event.pool_id)
    text = f"Moved to pool '{pool.pool_name}'" if pool is not None else "Moved to another pool"
    return _backup_line(envelope, state.find(Backup, id_of(envelope)), text, task_id=event.task_id)


def _bytes_removed(envelope: Envelope, event: BackupBytesRemoved, state: State, before: Entity | None) -> list[Line]:
    return _backup_line(envelope, before, f"{event.bytes_removed} bytes of the deleted archive are gone")


def _work_queued(envelope: Envelope, event: TaskQueued, state: State, before: Entity | None) -> list[Line]:
    if event.task_type not in _ABOUT_BACKUPS - {TaskType.DELETE}:
        return []  # a deletion is its own event
    backup, task_id = state.find(Backup, event.backup_id), id_of(envelope)
    text = f"{event.task_type} ordered: task {task_id}"
    return _backup_line(envelope, backup, text, backup_id=event.backup_id, task_id=task_id)


def _work_ended(envelope: Envelope, event: TaskStatusChanged, state: State, before: Entity | None) -> list[Line]:
    if event.status not in TERMINAL_STATUSES:
        return []
    task = state.find(Task, id_of(envelope))
    if task is None or task.task_type not in _ABOUT_BACKUPS:
        return []
    text = f"{task.task_type} ended: {event.status}" + (f", {event.reason}" if event.reason else "")
    backup = state.find(Backup, task.backup_id)
    severity = SEVERITIES.get(event.status, "info")
    return _backup_line(
        envelope, backup, text, backup_id=task.backup_id, task_id=task.id, severity=severity, event="ended"
    )


REPOSITORY_LOG = LogTable(
    name="repository_log",
    fields=(
        TIME,
        SEVERITY,
        Integer(
            name="backup_id", indexed=True, description="Id in `repository`, also when the backup is there no more."
        ),
        Text(name="archive"),
        CLIENT,
        Reference(name="pool", to=Pool.KIND, by="pool_name"),
        Integer(name="task_id", description="0: no task."),
        EVENT,
        ACTOR,
        TEXT,
    ),
    lines={
        BackupRecorded: _recorded,
        BackupVerified: _verified,
        BackupStoreUntilChanged: _kept_until,
        BackupDeleted: _deleted,
        BackupMoved: _moved,
        BackupBytesRemoved: _bytes_removed,
        TaskQueued: _work_queued,
        TaskStatusChanged: _work_ended,
    },
    scope={**BY_CLIENT, **BY_POOL},
)


# --- rules of the global schedule --------------------------------------------------------------------------------------


def _rule_line(
    envelope: Envelope, rule_id: int, rule: Entity | None, text: str, *, task_id: int = 0, severity: str = "info"
) -> Line:
    name, client_id = (rule.name, rule.client_id) if isinstance(rule, ScheduleRule) else ("", 0)
    return envelope.time_ns, severity, rule_id, name, client_id, task_id, word_of(envelope), envelope.actor, text


def _record_of_rule(envelope: Envelope, event: Any, state: State, before: Entity | None) -> list[Line]:
    if _kind_of(envelope) != ScheduleRule.KIND:
        return []
    rule = state.find(ScheduleRule, id_of(envelope)) or before
    return [_rule_line(envelope, id_of(envelope), rule, _record_text(ScheduleRule.KIND, event))]


def _task_of_rule(envelope: Envelope, event: TaskQueued, state: State, before: Entity | None) -> list[Line]:
    if not event.rule_id:
        return []
    task_id, rule = id_of(envelope), state.find(ScheduleRule, event.rule_id)
    return [_rule_line(envelope, event.rule_id, rule, f"Made task {task_id}", task_id=task_id)]


def _task_of_rule_ended(
    envelope: Envelope, event: TaskStatusChanged, state: State, before: Entity | None
) -> list[Line]:
    task = state.find(Task, id_of(envelope)) if event.status in TERMINAL_STATUSES else None
    if task is None or not task.rule_id:
        return []
    text = f"Task {task.id} ended: {event.status}" + (f", {event.reason}" if event.reason else "")
    rule, severity = state.find(ScheduleRule, task.rule_id), SEVERITIES.get(event.status, "info")
    return [_rule_line(envelope, task.rule_id, rule, text, task_id=task.id, severity=severity)]


GLOBAL_SCHEDULE_LOG = LogTable(
    name="global_schedule_log",
    fields=(
        TIME,
        SEVERITY,
        Integer(
            name="rule_id", indexed=True, description="Id in `global_schedule`, also when the rule is there no more."
        ),
        Text(name="rule", description="Its name at that time."),
        CLIENT,
        Integer(name="task_id", description="0: no task."),
        EVENT,
        ACTOR,
        TEXT,
    ),
    lines={
        RecordCreated: _record_of_rule,
        RecordChanged: _record_of_rule,
        RecordDeleted: _record_of_rule,
        TaskQueued: _task_of_rule,
        TaskStatusChanged: _task_of_rule_ended,
    },
    scope=BY_CLIENT,
)

OPERATIONS: tuple[LogTable, ...] = (CLIENTS_LOG, MEDIA_SERVERS_LOG, REPOSITORY_LOG, GLOBAL_SCHEDULE_LOG)
