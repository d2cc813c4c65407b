"""Interfaces between the actors, and to the rooms above (HTTP, the command)."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from eventlog.port import EventLog
from rbcore.commands import Order, Reply
from rbcore.messages import ListArchive, ListBlockDevices, ListFilesystem, Listing
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


class Sessions(Protocol):
    """Connected agents."""

    def online(self, client_id: int) -> bool: ...

    async def ask(
        self, client_id: int, question: ListFilesystem | ListBlockDevices, deadline_seconds: float
    ) -> Listing:
        """Raises ``Unavailable`` when the client is offline, ``DeadlineExceeded``, or what the agent answered."""

    def progress(self, task_id: int) -> Progress | None: ...


class BackupContents(Protocol):
    """Names in backups, for granular restore: read by the daemon, or asked from the client when encrypted."""

    async def list_names(self, backup_id: int, prefix: str, limit: int) -> list[dict[str, Any]]: ...


__all__ = ["BackupContents", "Journal", "ListArchive", "Progress", "Sessions"]
