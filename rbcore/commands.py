"""Commands: what somebody wants. ``decide`` answers each with events and a reply, or raises an ``RbError``.

Facts of the outside world a decision needs (free space, a verified signature) are fields of the command: the actor that
sends it has looked. ``command_id`` makes a repeat harmless: the log remembers it with the first answer.
"""

from __future__ import annotations

from typing import Any

import msgspec

from rbcore.commands_base import Command as Command
from rbcore.commands_base import Context as Context
from rbcore.commands_base import Order as Order
from rbcore.commands_base import Reply as Reply
from rbcore.commands_tape import (
    AddTapeDrives as AddTapeDrives,
)
from rbcore.commands_tape import (
    AddTapeLibrary as AddTapeLibrary,
)
from rbcore.commands_tape import (
    AdvanceTapeTask as AdvanceTapeTask,
)
from rbcore.commands_tape import (
    AskDriveCleaning as AskDriveCleaning,
)
from rbcore.commands_tape import (
    BeginDismount as BeginDismount,
)
from rbcore.commands_tape import (
    BeginErasing as BeginErasing,
)
from rbcore.commands_tape import (
    BeginLabelling as BeginLabelling,
)
from rbcore.commands_tape import (
    BeginMount as BeginMount,
)
from rbcore.commands_tape import (
    BeginMove as BeginMove,
)
from rbcore.commands_tape import (
    CartridgeFacts as CartridgeFacts,
)
from rbcore.commands_tape import (
    CountCartridgeError as CountCartridgeError,
)
from rbcore.commands_tape import (
    CountDriveFailure as CountDriveFailure,
)
from rbcore.commands_tape import (
    DeviceFacts as DeviceFacts,
)
from rbcore.commands_tape import (
    DriveFacts as DriveFacts,
)
from rbcore.commands_tape import (
    ElementFacts as ElementFacts,
)
from rbcore.commands_tape import (
    EndDismount as EndDismount,
)
from rbcore.commands_tape import (
    EndErasing as EndErasing,
)
from rbcore.commands_tape import (
    EndLabelling as EndLabelling,
)
from rbcore.commands_tape import (
    EndMount as EndMount,
)
from rbcore.commands_tape import (
    EndMove as EndMove,
)
from rbcore.commands_tape import (
    ImportCartridges as ImportCartridges,
)
from rbcore.commands_tape import (
    MarkExported as MarkExported,
)
from rbcore.commands_tape import (
    QuarantineCartridge as QuarantineCartridge,
)
from rbcore.commands_tape import (
    QueueDriveCleaning as QueueDriveCleaning,
)
from rbcore.commands_tape import (
    QueueTapeTasks as QueueTapeTasks,
)
from rbcore.commands_tape import (
    QueueTapeWork as QueueTapeWork,
)
from rbcore.commands_tape import (
    RecordCartridgeWritten as RecordCartridgeWritten,
)
from rbcore.commands_tape import (
    RecordDriveCleaned as RecordDriveCleaned,
)
from rbcore.commands_tape import (
    RecordDriveFacts as RecordDriveFacts,
)
from rbcore.commands_tape import (
    RecordInventory as RecordInventory,
)
from rbcore.commands_tape import (
    RecoverTapeTasks as RecoverTapeTasks,
)
from rbcore.commands_tape import (
    SetDriveStatus as SetDriveStatus,
)
from rbcore.commands_tape import (
    SetLibraryStatus as SetLibraryStatus,
)
from rbcore.commands_tape import (
    TapeOrder as TapeOrder,
)
from rbcore.entities import BackupPart
from rbcore.load import ServerLoad

# --- declared resources -------------------------------------------------------------------------------------------


class CreateRecord(Command, frozen=True, kw_only=True):
    resource: str
    """Name of the declared resource, ``pool_list``."""
    fields: dict[str, Any]
    """As on the wire: references by name. ``decide`` validates by the declaration."""


class ChangeRecord(Command, frozen=True, kw_only=True):
    resource: str
    id: int
    changes: dict[str, Any]


class DeleteRecords(Command, frozen=True, kw_only=True):
    """All or nothing."""

    resource: str
    ids: list[int]


# --- installation --------------------------------------------------------------------------------------------------


class Initialise(Command, frozen=True, kw_only=True):
    """First start: media server, superuser, Default pool with its catalog, Default strategy, No group, Nobody. Nothing happens when done before."""

    hostname: str
    hwid: str
    superuser: str
    credential_id: str
    default_catalog_path: str


class AddBuiltIns(Command, frozen=True, kw_only=True):
    """At every start: what installations of earlier releases do not have yet. Nothing happens where all of it is there."""


class SetCredential(Command, frozen=True, kw_only=True):
    """Reply data as that of ``ChangeUser``."""

    user_id: int
    credential_id: str


# --- users ----------------------------------------------------------------------------------------------------------


class CreateUser(Command, frozen=True, kw_only=True):
    """POST users: the record, its password's name in the secrets store, and the first role with what that is limited to (names)."""

    fields: dict[str, Any]
    credential_id: str
    role: str = ""
    """Empty: none yet."""
    client_group: str = ""
    media_server: str = ""


class ChangeUser(Command, frozen=True, kw_only=True):
    """Reply data of a new password: ``{"former_credential_id": ...}``, a hash that is needed no longer."""

    user_id: int
    changes: dict[str, Any]
    credential_id: str = ""
    """Of a new password; empty: it stays."""


# --- configuration ---------------------------------------------------------------------------------------------------


class ChangeConfiguration(Command, frozen=True, kw_only=True):
    """PATCH global_configuration: the keys to change. Reply data: ``{"changed": names whose value is another now}``."""

    changes: dict[str, Any]


class SetServiceMode(Command, frozen=True, kw_only=True):
    on: bool


# --- clients ---------------------------------------------------------------------------------------------------------


class AgentHello(Command, frozen=True, kw_only=True):
    """An agent proved that it holds ``public_key``. Reply data: ``{"client_id": n, "authorised": bool}``.

    A pinned hwid with another key is recorded and refused (AuthenticationFailed).
    """

    hwid: str
    hostname: str
    public_key: str
    address: str
    os_type: str
    os_version: str
    agent_version: str
    resource_types: list[str]


class AgentGone(Command, frozen=True, kw_only=True):
    client_id: int
    reason: str


class AllAgentsGone(Command, frozen=True, kw_only=True):
    """At start of the daemon nobody is connected, whatever the log says."""


class AuthoriseClients(Command, frozen=True, kw_only=True):
    ids: list[int]


# --- tasks -----------------------------------------------------------------------------------------------------------


class QueueBackup(Command, frozen=True, kw_only=True):
    """An urgent backup: the body of POST task_queue."""

    task: dict[str, Any]
    module_extensions: dict[str, Any] = msgspec.field(default_factory=dict)
    common_modules_extensions: dict[str, Any] = msgspec.field(default_factory=dict)


class QueueRestore(Command, frozen=True, kw_only=True):
    backup_id: int
    restore_task: dict[str, Any]
    module_extensions: dict[str, Any] = msgspec.field(default_factory=dict)
    common_modules_extensions: dict[str, Any] = msgspec.field(default_factory=dict)


class QueueVerification(Command, frozen=True, kw_only=True):
    backup_id: int


class QueueCopy(Command, frozen=True, kw_only=True):
    """POST repository/{id}/copying and moving. Only full backups (manual)."""

    backup_id: int
    pool_name: str
    move: bool = False


class CatalogFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the dispatcher found when it looked at a catalog."""

    local_catalog_id: int
    online: bool
    free_bytes: int
    problem: str = ""
    size_bytes: int = 0
    """Of its file system; 0: not known."""
    file_system: int = 0
    """The same for catalogs on one file system, whose room is there once; 0: not known."""


class AssignTask(Command, frozen=True, kw_only=True):
    """Give a New task its device, or suspend it with the reasons why none fits."""

    task_id: int
    catalogs: list[CatalogFacts]
    client_online: bool
    """Tape libraries are judged by the state alone: what their actors found is recorded there."""
    loads: list[ServerLoad] = msgspec.field(default_factory=list)
    """For a dynamic pool group: averages over its ``calculation_period``. A media server that is missing was not measured."""


class AdvanceTask(Command, frozen=True, kw_only=True):
    """An actor reports that the task got to ``status``. A late or repeated report of a stage changes nothing.

    Reply data: ``{"status": the task's status then}``; Suspended comes back as Broken after too many attempts.
    """

    task_id: int
    status: str
    reason: str = ""
    retry_at_ns: int = 0
    note_severity: str = ""
    notes: list[str] = msgspec.field(default_factory=list)
    durable_blocks: int = 0
    """Blocks of the task's archive on stable storage, when the sender knows. More than ever reported before is progress, and
    attempts are counted anew (``rbcore.task.ATTEMPTS_MAX``)."""


class NoteTask(Command, frozen=True, kw_only=True):
    task_id: int
    side: str
    severity: str
    lines: list[str]


class PauseTask(Command, frozen=True, kw_only=True):
    task_id: int


class ContinueTask(Command, frozen=True, kw_only=True):
    task_id: int


class KillTask(Command, frozen=True, kw_only=True):
    task_id: int


class RestartTasks(Command, frozen=True, kw_only=True):
    ids: list[int]


class RemoveTasks(Command, frozen=True, kw_only=True):
    """From the queue: by ids, or by the status word of the manual (``error``, ``killed``, ``obsoleted``)."""

    ids: list[int] = msgspec.field(default_factory=list)
    status_word: str = ""
    within: list[int] | None = None
    """By the word: only those among these; None: all. The edge names what its caller reaches."""


class RecoverTasks(Command, frozen=True, kw_only=True):
    """At start of the daemon: tasks that were under way are suspended for an immediate new attempt, which resumes what is durable."""


# --- repository ------------------------------------------------------------------------------------------------------


class RecordBackup(Command, frozen=True, kw_only=True):
    """The storage actor has the whole archive on stable storage. Ends the task as Done in the same batch."""

    task_id: int
    archive: str
    archive_size: int
    data_size: int
    files: int
    problems: int
    blocks: int
    root: str
    signature: str
    signature_valid: bool
    key_id: str
    problem_lines: list[str] = msgspec.field(default_factory=list)
    parts: list[BackupPart] = msgspec.field(default_factory=list)
    """On cartridges: where; empty: in the task's catalog."""


class RecordVerification(Command, frozen=True, kw_only=True):
    task_id: int
    status: str
    bytes_read: int
    findings: list[str]


class ChangeStoreUntil(Command, frozen=True, kw_only=True):
    backup_id: int
    store_until: str


class DeleteBackups(Command, frozen=True, kw_only=True):
    """Deletes the named backups and, by ``repository_remove_chain``, everything that depends on them. One Delete task each."""

    ids: list[int]


class RecordBytesRemoved(Command, frozen=True, kw_only=True):
    backup_id: int
    bytes_removed: int


class RecordCopy(Command, frozen=True, kw_only=True):
    """A Copy or Move has the whole archive on stable storage in the other pool. Ends the task as Done in the same batch."""

    task_id: int
    archive_size: int
    root: str
    parts: list[BackupPart] = msgspec.field(default_factory=list)


# --- access ----------------------------------------------------------------------------------------------------------


class NoteLogin(Command, frozen=True, kw_only=True):
    user_name: str
    address: str
    succeeded: bool
    reason: str = ""


class NoteLogout(Command, frozen=True, kw_only=True):
    user_name: str
    reason: str


class NoteAccessDenied(Command, frozen=True, kw_only=True):
    user_name: str
    method: str
    path: str
    address: str
