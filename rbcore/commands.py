"""Commands: what somebody wants. ``decide`` answers each with events and a reply, or raises an ``RbError``.

Facts of the outside world a decision needs (free space, a verified signature) are fields of the command: the actor that
sends it has looked. ``command_id`` makes a repeat harmless: the log remembers it with the first answer.
"""

from __future__ import annotations

from typing import Any

import msgspec

from rbcore.entities import BackupPart


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
    digest: str = ""
    """Of what the sender asked for, remembered with the answer: the same id with another digest is another question, and refused.
    Empty: not compared."""


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
    """First start: media server, superuser, Default pool with its catalog, No group, Nobody. Nothing happens when done before."""

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


class AssignTask(Command, frozen=True, kw_only=True):
    """Give a New task its device, or suspend it with the reasons why none fits."""

    task_id: int
    catalogs: list[CatalogFacts]
    client_online: bool
    """Tape libraries are judged by the state alone: what their actors found is recorded there."""


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
    parts: list[BackupPart] = []
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


# --- tape libraries --------------------------------------------------------------------------------------------------


class DeviceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A changer or drive as it answered."""

    device: str
    """How it is reached: ``/dev/sg2``, ``iscsi://host:port/target/lun``."""
    scsi_path: str = ""
    vendor: str = ""
    product: str = ""
    revision: str = ""
    serial: str = ""


class DriveFacts(DeviceFacts, frozen=True, kw_only=True):
    element_address: int = 0
    """Where the changer says it sits; 0: unknown, an operator sets ``sys_transfer_element``."""
    partitions_max: int = 1
    lacks: list[str] = []


class ElementFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One element as READ ELEMENT STATUS reports it (``drivers.scsi.changer.Element``)."""

    address: int
    type: str
    """``storage``, ``import-export``, ``drive`` (vocabulary ``SlotType``)."""
    is_full: bool
    volume_tag: str = ""
    source_address: int = 0
    exception: str = ""


class CartridgeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a look at a mounted cartridge found (``rbcore.tape.session.Identified``)."""

    contents: str
    label_id: str = ""
    use: int = 0
    volume_tag: str = ""
    server: str = ""
    write_protected: bool = False
    detail: str = ""


class AddTapeLibrary(Command, frozen=True, kw_only=True):
    """POST tape_libraries, after the devices were asked who they are and what lies where.

    Reply data: as ``RecordInventory``, and ``{"format": the pool's type then}``.
    """

    pool: str
    media_server: str
    description: str = ""
    changer: DeviceFacts
    transport_element: int = 0
    drives: list[DriveFacts]
    elements: list[ElementFacts]


class AddTapeDrives(Command, frozen=True, kw_only=True):
    library_id: int
    drives: list[DriveFacts]


class RecordInventory(Command, frozen=True, kw_only=True):
    """The element status of a library, whole. Every difference to the log becomes an event; moves whose end is not known get one.

    Reply data: ``{"unknown": [tags nobody registered], "twice": [tags at two elements], "untagged": [addresses of full elements whose
    bar code nobody can read and of which nothing is known], "changes": n}``.
    """

    library_id: int
    elements: list[ElementFacts]
    reason: str
    """``start``, ``synchronised by an operator``, ``after a failed move`` ..."""


class SetLibraryStatus(Command, frozen=True, kw_only=True):
    library_id: int
    status: str
    reason: str


class BeginMove(Command, frozen=True, kw_only=True):
    """Intent. Refused unless the cartridge is there, the target is empty, and nothing else is on its way to it."""

    cartridge_id: int
    to_slot_id: int
    reason: str
    tape_task_id: int = 0


class EndMove(Command, frozen=True, kw_only=True):
    """Outcome. ``failure`` empty: it lies in the target now."""

    cartridge_id: int
    failure: str = ""


class MarkExported(Command, frozen=True, kw_only=True):
    cartridge_id: int
    reason: str


class ImportCartridges(Command, frozen=True, kw_only=True):
    """What lies in import-export elements belongs to the pool from here on; unknown tags are registered. Reply ids: the cartridges."""

    library_id: int
    pool_name: str


class BeginMount(Command, frozen=True, kw_only=True):
    drive_id: int
    cartridge_id: int
    reason: str
    rejected: list[str] = []
    tape_task_id: int = 0


class EndMount(Command, frozen=True, kw_only=True):
    """``found``: what the look at the cartridge told. Decides whether it is the right one: a wrong, foreign or unreadable cartridge is
    quarantined, with the reason. Reply data: ``{"usable": bool, "reason": "..."}``. ``failure``: the mount did not get that far; ``blame`` says whose
    fault that looks like: ``cartridge``, ``drive``, ``changer`` or empty. A cartridge's fault is counted here, a drive's by ``CountDriveFailure``."""

    drive_id: int
    cartridge_id: int
    found: CartridgeFacts | None = None
    failure: str = ""
    blame: str = ""


class BeginDismount(Command, frozen=True, kw_only=True):
    drive_id: int
    reason: str


class EndDismount(Command, frozen=True, kw_only=True):
    drive_id: int
    failure: str = ""
    blame: str = ""


class SetDriveStatus(Command, frozen=True, kw_only=True):
    drive_id: int
    status: str
    reason: str


class CountDriveFailure(Command, frozen=True, kw_only=True):
    """It did not answer, or said that it is broken. Too many in a row quarantine it (``rbcore.decide.tape_drives``)."""

    drive_id: int
    reason: str


class RecordDriveFacts(Command, frozen=True, kw_only=True):
    drive_id: int
    facts: DriveFacts


class AskDriveCleaning(Command, frozen=True, kw_only=True):
    drive_id: int
    reason: str


class RecordDriveCleaned(Command, frozen=True, kw_only=True):
    drive_id: int
    cartridge_id: int


class BeginLabelling(Command, frozen=True, kw_only=True):
    """Intent. Refused while archives of the repository are on the cartridge."""

    cartridge_id: int
    drive_id: int
    format: str
    reason: str


class EndLabelling(Command, frozen=True, kw_only=True):
    cartridge_id: int
    format: str
    label_id: str = ""
    use: int = 0
    capacity_bytes: int = 0
    failure: str = ""


class BeginErasing(Command, frozen=True, kw_only=True):
    cartridge_id: int
    drive_id: int
    is_long: bool
    reason: str


class EndErasing(Command, frozen=True, kw_only=True):
    cartridge_id: int
    is_long: bool
    failure: str = ""


class RecordCartridgeWritten(Command, frozen=True, kw_only=True):
    cartridge_id: int
    used_bytes: int
    full: bool
    task_id: int = 0


class CountCartridgeError(Command, frozen=True, kw_only=True):
    """``kind``: ``read``, ``write`` or ``load``. Too many quarantine it."""

    cartridge_id: int
    kind: str
    reason: str


class QuarantineCartridge(Command, frozen=True, kw_only=True):
    cartridge_id: int
    reason: str


class TapeOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One cartridge of a request."""

    library_id: int
    volume_tag: str
    is_long_erase: bool = False
    slot_id: int = 0


class QueueTapeTasks(Command, frozen=True, kw_only=True):
    """An operator wants ``Format``, ``Erase``, ``Check LTFS``, ``Export`` or ``Move``. All or nothing. Reply ids: the tape tasks."""

    task_type: str
    orders: list[TapeOrder]


class QueueDriveCleaning(Command, frozen=True, kw_only=True):
    drive_id: int
    reason: str = "ordered by an operator"


class QueueTapeWork(Command, frozen=True, kw_only=True):
    """A task needs a cartridge: ``Read`` one that is named, or ``Write`` into a pool. Repeats for the same task and cartridge return the first."""

    task_type: str
    task_id: int
    library_id: int
    cartridge_id: int = 0
    position: int = 0


class AdvanceTapeTask(Command, frozen=True, kw_only=True):
    """A report of the library's actor. When the tape task of a waiting task fails, that task is Suspended in the same batch."""

    tape_task_id: int
    status: str
    reason: str = ""
    drive_id: int = 0
    cartridge_id: int = 0


class RecoverTapeTasks(Command, frozen=True, kw_only=True):
    """At start of the daemon: nothing is mounted for anybody. Reads and writes end with their attempt; an operator's orders begin again."""


class RecordCopy(Command, frozen=True, kw_only=True):
    """A Copy or Move has the whole archive on stable storage in the other pool. Ends the task as Done in the same batch."""

    task_id: int
    archive_size: int
    root: str
    parts: list[BackupPart] = []


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
