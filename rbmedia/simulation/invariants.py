"""What must hold after every step of a simulation, whatever went wrong before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from drivers.directory_store import DirectoryStore
from eventlog.memory_store import MemoryStore
from eventlog.record import decode_value
from eventlog.upcasting import decode_event
from rbcore.entities import Backup, PendingRemoval, Task
from rbcore.events import Envelope
from rbcore.evolve import apply
from rbcore.state import State
from rbcore.task import successors
from rbcore.vocabulary import BACKUP_TASKS, COPY_TASKS, TERMINAL_STATUSES, TaskStatus
from rbmedia.simulation.site import SERVER_ID, Daemon, Site


class Broken(AssertionError):
    """An invariant does not hold: a bug. The seed and the trace repeat it."""


@dataclass(slots=True)
class Watch:
    """Follows the durable log and compares the world with it."""

    state: State = field(default_factory=State)
    """Our own fold, independent of the journal's."""
    acknowledged: int = 0
    """Highest position a consumer was told."""
    checks: Counter[str] = field(default_factory=Counter)

    def acknowledge(self, position: int) -> None:
        self.acknowledged = max(self.acknowledged, position)

    def fold(self, site: Site) -> list[str]:
        """Fold what is durable and new; one line per event for the trace."""
        lines: list[str] = []
        log_records = site.store.size
        if self.acknowledged > log_records:
            raise Broken(f"position {self.acknowledged} was acknowledged, the log ends at {log_records}")
        if self.state.position > log_records:
            raise Broken(f"the log was at {self.state.position} and ends at {log_records} now")
        for envelope in _read(site.store, self.state.position):
            event = decode_event(envelope)
            if envelope.position != self.state.position + 1:
                raise Broken(f"event {envelope.position} follows {self.state.position}")
            before = self.state.find(Task, _number(envelope.stream)) if envelope.stream.startswith("task/") else None
            apply(self.state, envelope.stream, envelope.version, envelope.time_ns, envelope.position, event)
            after = self.state.find(Task, _number(envelope.stream)) if before is not None else None
            if before is not None and after is not None and before.status != after.status:
                self._transition(before, after)
            lines.append(f"{envelope.position} {envelope.stream} v{envelope.version} {event}")
        self.checks["events"] += len(lines)
        return lines

    def _transition(self, before: Task, after: Task) -> None:
        if after.status not in successors(before):
            raise Broken(f"task {after.id} went from {before.status} to {after.status}")
        self.checks["transitions"] += 1
        if after.task_type in COPY_TASKS and after.status == TaskStatus.DONE:
            self.checks["copies"] += 1

    def check(self, site: Site) -> None:
        """Data before metadata; nothing that is referred to is freed."""
        finished = _finished(site)
        for backup in self.state.all(Backup):
            if not backup.parts and (backup.local_catalog_id, backup.archive) not in finished:
                raise Broken(f"backup {backup.id} is in the repository and archive {backup.archive} is not in the pool")
            if backup.ref_id and self.state.find(Backup, backup.ref_id) is None:
                raise Broken(f"backup {backup.id} refers to {backup.ref_id}, which is gone")
        if site.tape is not None and (why := site.tape.broken(self.state)):
            raise Broken(why)
        self.checks["looks at the pool"] += 1

    def check_journal(self, daemon: Daemon) -> None:
        """When nothing is under way the journal's state is the fold of the log."""
        if daemon.journal.state.position == self.state.position:
            if daemon.journal.state.digest() != self.state.digest():
                raise Broken(f"the journal's state at {self.state.position} is not the fold of the log")
            self.checks["state digests"] += 1

    def check_end(self, site: Site) -> None:
        """When all faults have been mended and enough time has passed: every task has ended and no stray byte is left."""
        for task in self.state.all(Task):
            if task.status not in TERMINAL_STATUSES and task.status != "Paused":
                raise Broken(f"task {task.id} ({task.task_type}) never ended: {task.status}, {task.status_reason}")
        for removal in self.state.all(PendingRemoval):
            raise Broken(f"the bytes of deleted backup {removal.id} are still pending")
        if site.tape is not None and (why := site.tape.broken_at_end(self.state)):
            raise Broken(why)
        wanted = {(backup.local_catalog_id, backup.archive) for backup in self.state.all(Backup)}
        resumable = {
            (task.target_local_catalog_id if task.task_type in COPY_TASKS else task.local_catalog_id, task.archive)
            for task in self.state.all(Task)
            if task.task_type in (*BACKUP_TASKS, *COPY_TASKS) and task.status == "Paused" and task.archive
        }
        self.checks["backups on tape"] += sum(1 for backup in self.state.all(Backup) if backup.parts)
        stray = (_finished(site) | _unfinished(site)) - wanted - resumable
        if stray:
            raise Broken(f"archives that nobody refers to: {sorted(stray)}")
        self.check(site)


def _finished(site: Site) -> set[tuple[int, str]]:
    """(catalog id, archive)."""
    return _archives(site, DirectoryStore.archives)


def _unfinished(site: Site) -> set[tuple[int, str]]:
    return _archives(site, DirectoryStore.unfinished)


def _archives(site: Site, listed: Callable[[DirectoryStore], list[str]]) -> set[tuple[int, str]]:
    found: set[tuple[int, str]] = set()
    for number, volume in site.volumes.items():
        hook, volume.before_each = volume.before_each, None
        try:
            if volume.list(""):
                found |= {(number, name) for name in listed(DirectoryStore(volume, f"{SERVER_ID}/{number}"))}
        finally:
            volume.before_each = hook
    return found


def _number(stream: str) -> int:
    return int(stream.partition("/")[2])


def _read(store: MemoryStore, after: int) -> Iterator[Envelope]:
    return map(decode_value, store.values(after, store.size, store.size))
