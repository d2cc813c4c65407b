"""Interfaces between the actors, and to the rooms above (HTTP, the command)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import msgspec

from eventlog.port import EventLog
from rbcore.archive.store import ArchiveSummary
from rbcore.commands import CatalogFacts, DeviceFacts, DriveFacts, ElementFacts, Order, Reply
from rbcore.entities import Backup, BackupPart, Task
from rbcore.load import ServerLoad
from rbcore.messages import ListArchive, ListBlockDevices, ListFilesystem, Listing, ListModuleResources
from rbcore.monitoring import MonitoringSample
from rbcore.state import State


class Journal(Protocol):
    """The one writer. Everything that changes state goes through ``execute``."""

    @property
    def state(self) -> State:
        """Live state, read-only by convention; may be ahead of the disk by what is being committed."""

    @property
    def log(self) -> EventLog: ...

    async def execute(self, order: Order) -> Reply:
        """Decide, append, and answer once the events are on stable storage. Raises ``RbError``s."""

    def knows(self, command_id: str) -> bool:
        """Whether ``execute`` would answer such an order as it did before, without deciding anew."""

    async def settled(self) -> None:
        """Return when everything the state shows now is on stable storage; before an effect outside of the log."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """The newest telemetry of a running task."""

    task_id: int
    bytes_done: int
    bytes_total: int
    files_done: int
    bytes_per_second: float
    updated_ns: int


class ServerLoads(Protocol):
    """How busy media servers are, for the choice of a pool out of a group."""

    def __call__(self, seconds: int) -> list[ServerLoad]:
        """Averages over the last ``seconds``, at once; media servers that nobody measures are left out."""


def nothing_measured(seconds: int) -> list[ServerLoad]:
    """``ServerLoads`` where nobody measures: limits of load do not apply then, and the choice says so."""
    return []


class Monitoring(Protocol):
    """The system monitoring of this host."""

    def samples(self) -> Sequence[MonitoringSample]:
        """Those that are kept, oldest first, ids ascending."""


class Rooms(Protocol):
    """What catalogs said of their room when they were looked at last."""

    def fact(self, catalog_id: int) -> CatalogFacts | None:
        """At once. None: nobody looked yet."""


class Sessions(Protocol):
    """Connected agents."""

    def online(self, client_id: int) -> bool: ...

    async def ask(
        self, client_id: int, question: ListFilesystem | ListBlockDevices | ListModuleResources, deadline_seconds: float
    ) -> Listing:
        """Raises ``Unavailable`` when the client is offline, ``DeadlineExceeded``, or what the agent answered."""

    def progress(self, task_id: int) -> Progress | None: ...

    def progress_of_all(self) -> Sequence[Progress]:
        """Of every task that told some."""


class BackupContents(Protocol):
    """Names in backups, for granular restore: read by the daemon, or asked from the client when encrypted."""

    async def list_names(self, backup_id: int, prefix: str, limit: int) -> list[dict[str, Any]]: ...


class ArchiveSink(Protocol):
    """An archive being written, wherever that is; calls may take as long as the device does. Catalogs: ``actors.storage.CatalogWriter``."""

    next_block: int
    """Block numbers below it are durable."""
    manifest_blocks: list[int]
    root_so_far: bytes
    resumable: bool
    """What is durable can be gone on with by the next attempt; otherwise an attempt that fails leaves nothing."""

    async def prepare(self, pieces: Sequence[bytes | bytearray | memoryview]) -> None:
        """Look at the very pieces that a later ``write`` will bring, while the one before is under way. Pieces are prepared in the order in which they are
        written, or not at all. Raises as ``write`` does for blocks that are no good."""

    async def write(self, pieces: Sequence[bytes | bytearray | memoryview], *, sync: bool) -> int:
        """Whole blocks. The device has them when this returns; with ``sync``, where ``resumable``, durably. The number of the last one.

        Raises ``ProtocolViolation``, ``Damaged`` or ``StorageFull``; of a tape ``Unavailable`` (drive or library failed) too.
        """

    async def read(self, numbers: Sequence[int]) -> bytes:
        """Durable blocks of this unfinished archive."""

    async def finish(self) -> ArchiveSummary:
        """Durable and re-readable when it returns."""

    async def discard(self) -> None: ...

    @property
    def parts(self) -> list[BackupPart]:
        """After ``finish``, on cartridges: where it stands. Empty in catalogs."""


class ArchiveSource(Protocol):
    """A finished archive being read, wherever it stands."""

    async def read(self, numbers: Sequence[int]) -> bytes:
        """These blocks (ascending), whole, one after the other. Raises ``NotFound``, ``Damaged`` (one of them), ``Unavailable``."""

    async def manifest_blocks(self) -> list[int]: ...

    async def trailer_block(self) -> int: ...

    async def block_numbers(self) -> Sequence[int]:
        """All blocks of the archive, ascending: what a copy or a verification reads."""


class TapeStore(Protocol):
    """Archives on cartridges (``actors.tape``). A task may use it once its tape task is in Execution."""

    def writer(self, task: Task, archive: str) -> AbstractAsyncContextManager[ArchiveSink]:
        """A new archive in the task's library and pool. Raises ``Unavailable`` when the task has no drive (any more)."""

    def reader(
        self, backup: Backup, task_id: int, *, medium_only: bool = False
    ) -> AbstractAsyncContextManager[ArchiveSource]:
        """An archive of the repository. Manifest and trailer come without a mount where the daemon still has them; what else is read waits for the
        cartridge. ``task_id`` 0: only what needs no mount; the rest raises ``Unavailable``. ``medium_only``: every block comes from the cartridges themselves, as a
        verification wants it."""

    def forget(self, archive: str) -> None:
        """Nobody needs the archive any more: what is kept of it beside the cartridges goes."""


class TapeCandidate(msgspec.Struct, frozen=True, kw_only=True):
    """A changer or drive that is there and in no library yet. Ids hold until the daemon ends."""

    id: int
    facts: DeviceFacts
    is_changer: bool
    element_address: int = 0
    """Drives, method ``automatic``: where the changer with ``changer_id`` says it sits."""
    changer_id: int = 0
    problem: str = ""


class LibraryFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A changer asked who it is and what lies where."""

    changer: DeviceFacts
    transport_element: int
    elements: list[ElementFacts]
    drives: list[DriveFacts]
    """Those asked for, with where the changer says they sit."""


class TapeLibraries(Protocol):
    """What the API asks of the libraries of this media server beside commands."""

    async def candidates(self, *, automatic: bool) -> list[TapeCandidate]:
        """Devices that answer and belong to no library. Bounded in time; what does not answer is left out with a log line."""

    def candidate(self, id: int) -> TapeCandidate:
        """Raises ``NotFound`` when no listing named it."""

    async def describe(self, changer_device: str, drive_devices: Sequence[str] = ()) -> LibraryFacts:
        """Ask a changer and drives. Raises ``Unavailable``, ``NotFound`` (no changer there), ``InvalidRequest`` (the address)."""

    async def synchronise(self, library_id: int) -> list[str]:
        """Read the element status anew and record what differs; tags that nobody registered. Ends quarantines of changer and drives that
        answer. Raises ``NotFound``, ``Unavailable``."""

    async def import_cartridges(self, library_id: int, pool_name: str) -> list[int]:
        """What lies in the import-export elements goes into free storage slots and into the pool; ids of the cartridges. Raises ``NotAllowedNow``
        when there is nothing, or no room."""


__all__ = [
    "ArchiveSink",
    "ArchiveSource",
    "BackupContents",
    "Journal",
    "LibraryFacts",
    "ListArchive",
    "Monitoring",
    "Progress",
    "Rooms",
    "ServerLoads",
    "Sessions",
    "TapeCandidate",
    "TapeLibraries",
    "TapeStore",
    "nothing_measured",
]
