"""Commands: what somebody wants. ``decide`` answers each with events and a reply, or raises an ``RbError``.

Facts of the outside world a decision needs (free space, a verified signature) are fields of the command: the actor that
sends it has looked. ``command_id`` makes a repeat harmless: the log remembers it with the first answer.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Command(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Base. Tagged by class name on the bus."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A command with its sender and its place in a conversation: what the journal's mailbox takes."""

    command: Any
    command_id: str
    actor: str
    causation: int = 0
    correlation: str = ""
    deadline_seconds: float = 30.0


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What ``decide`` may know besides the state: handed in, never fetched."""

    now_ns: int
    actor: str
    random: bytes
    """16 fresh random bytes, for names such as an archive's."""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of a command, given after its events are on stable storage."""

    position: int
    """The last event of the command, or the head of the log when there was nothing to record."""
    ids: list[int] = []
    message: str = ""
    data: dict[str, Any] = {}


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
    """First start: media server, superuser, Default pool with its catalog, No group. Nothing happens when done before."""

    hostname: str
    hwid: str
    superuser: str
    credential_id: str
    default_catalog_path: str


class SetCredential(Command, frozen=True, kw_only=True):
    user_id: int
    credential_id: str


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
    module_extensions: dict[str, Any] = {}
    common_modules_extensions: dict[str, Any] = {}


class QueueRestore(Command, frozen=True, kw_only=True):
    backup_id: int
    restore_task: dict[str, Any]
    module_extensions: dict[str, Any] = {}
    common_modules_extensions: dict[str, Any] = {}


class QueueVerification(Command, frozen=True, kw_only=True):
    backup_id: int


class CatalogFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the dispatcher found when it looked at a catalog."""

    local_catalog_id: int
    online: bool
    free_bytes: int
    problem: str = ""


class AssignTask(Command, frozen=True, kw_only=True):
    """Give a New task its device, or suspend it with the reasons why none fits."""

    task_id: int
    catalogs: list[CatalogFacts]
    client_online: bool


class AdvanceTask(Command, frozen=True, kw_only=True):
    """An actor reports that the task got to ``status``. A late or repeated report of a stage changes nothing.

    Reply data: ``{"status": the task's status then}``; Suspended comes back as Broken after too many attempts.
    """

    task_id: int
    status: str
    reason: str = ""
    retry_at_ns: int = 0
    note_severity: str = ""
    notes: list[str] = []
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

    ids: list[int] = []
    status_word: str = ""


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
    problem_lines: list[str] = []


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
