"""What the dispatcher does next: a pure function of the state and of what it knows about this process.

``next_steps`` looks at levels, not at edges: it compares what tasks say with what is under way, and names every step that
brings the two together. So a step that was lost (a crash, a full mailbox) comes up again, and a repeated look does no harm.
The dispatcher carries a step out and adds its task to ``Facts.under_way`` from the moment it begins until it has ended.

Costs follow the tasks that have not ended, never those that have.

Tape: an Assigned task that needs cartridges first asks for them (``QueueTapeWorkStep``) and is begun when each is in a drive for it. Which drive serves
whom is the planner's business (``rbcore.tape_dispatch``), and the more it sees waiting the better it groups; so what reads cartridges is assigned
however many there are, and the bounds apply when it begins. A task that waits for a cartridge in the middle of its work counts in no bound: those
that hold the cartridge in the meantime must be able to begin, or both would wait for ever.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from dataclasses import dataclass, field
from typing import Final

import msgspec

from rbcore import media
from rbcore.chain import ancestors, chain_of
from rbcore.configuration import configured, in_service_mode
from rbcore.destination import group_named, pools_for
from rbcore.entities import Backup, Client, PendingRemoval, TapeCartridge, TapeTask, Task
from rbcore.indexes import BackupGroup, canonical_resource
from rbcore.state import State
from rbcore.vocabulary import (
    BACKUP_TASKS,
    CLIENT_TASKS,
    COPY_TASKS,
    RUNNING_STATUSES,
    TapeTaskType,
    TaskStatus,
    TaskType,
)

CLIENT_TASKS_MAX: Final = 2
"""Tasks that run on one client at a time; each uses several workers there."""
CATALOG_TASKS_MAX: Final = 8
"""Tasks that work on one catalog at a time."""

OFFLINE_SECONDS: Final = 900
"""How long a client may be away before work that it had begun is given up, where that is configured: a restart of the machine is shorter."""

_RUNNING: Final = frozenset(RUNNING_STATUSES)
_NOT_BEGUN: Final = frozenset({TaskStatus.NEW, TaskStatus.ASSIGNED, TaskStatus.SUSPENDED})
_WAITING_FOR_CARTRIDGE: Final = frozenset({TaskStatus.NEW, TaskStatus.SUSPENDED})
"""Statuses of a tape task that no drive serves yet."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the dispatcher knows and the log does not."""

    online_clients: Set[int]
    under_way: Set[int]
    """Tasks on which this process works now: a step was begun (``AssignStep`` too) and has not ended."""
    told_to_pause: Set[int] = frozenset()
    """Those of them whose worker was told to pause."""
    told_to_stop: Set[int] = frozenset()
    """Those of them whose worker was told to stop."""


class Step(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One thing to do about one task."""

    task_id: int


class AssignStep(Step, frozen=True, kw_only=True):
    """Look at the catalogs in ``catalog_ids`` and send ``AssignTask``."""

    catalog_ids: tuple[int, ...]
    load_seconds: int = 0
    """Also tell how busy media servers were, averaged over so many seconds; 0: nobody wants to know."""


class StartOnClientStep(Step, frozen=True, kw_only=True):
    """Send StartBackup or StartRestore to the client."""

    client_id: int


class QueueTapeWorkStep(Step, frozen=True, kw_only=True):
    """Send ``QueueTapeWork``: the task needs a cartridge to read, or one to write on."""

    task_type: str
    library_id: int
    cartridge_id: int = 0
    position: int = 0


class VerifyStep(Step, frozen=True, kw_only=True):
    """Send ``AdvanceTask(Execution)``, verify the archive, send ``RecordVerification``."""

    backup_id: int
    local_catalog_id: int
    """0: it stands on cartridges."""


class CopyStep(Step, frozen=True, kw_only=True):
    """Send ``AdvanceTask(Execution)``, copy the archive, send ``RecordCopy``. Also for a Move."""

    backup_id: int


class RemoveBytesStep(Step, frozen=True, kw_only=True):
    """Send ``AdvanceTask(Execution)``, remove the archive, send ``RecordBytesRemoved``."""

    backup_id: int
    local_catalog_id: int
    archive: str


class RetryStep(Step, frozen=True, kw_only=True):
    """Send ``AdvanceTask(New)``: the time of a Suspended task has come, or its client is back."""


class RecoverStep(Step, frozen=True, kw_only=True):
    """Send ``AdvanceTask(Suspended, retry_at_ns)``: the task says it runs, and nobody works on it; or it cannot get what it was assigned."""

    reason: str = "nobody worked on the task"


class GiveUpStep(Step, frozen=True, kw_only=True):
    """Send ``AdvanceTask(Killed)``: its client went away in the middle of it, and did not come back (``kill_task_of_offline_client``)."""

    reason: str


class PauseStep(Step, frozen=True, kw_only=True):
    """Tell the worker to pause; then the task belongs to ``told_to_pause``."""


class ContinueStep(Step, frozen=True, kw_only=True):
    """Tell the worker to go on; then the task no longer belongs to ``told_to_pause``."""


class StopStep(Step, frozen=True, kw_only=True):
    """Tell the worker to stop; then the task belongs to ``told_to_stop``."""


class EndKillStep(Step, frozen=True, kw_only=True):
    """Send ``AdvanceTask(Killed)``: the order was given, and nobody works on the task (any more)."""


AnyStep = (
    AssignStep
    | StartOnClientStep
    | QueueTapeWorkStep
    | VerifyStep
    | CopyStep
    | RemoveBytesStep
    | RetryStep
    | RecoverStep
    | GiveUpStep
    | PauseStep
    | ContinueStep
    | StopStep
    | EndKillStep
)


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """A cartridge in a drive, without which a task cannot begin."""

    task_type: str
    library_id: int
    cartridge_id: int = 0
    """0: for writing, any of the pool."""
    position: int = 0


@dataclass(slots=True)
class _Load:
    """What is taken already, and by this look."""

    clients: Counter[int] = field(default_factory=Counter)
    """Tasks that run on a client, or are about to without waiting for a cartridge."""
    working_clients: Counter[int] = field(default_factory=Counter)
    """Those of them that run."""
    working_catalogs: Counter[int] = field(default_factory=Counter)
    resources: set[BackupGroup] = field(default_factory=set)
    """Resources of which a backup is being made: a second one waits, so that it can refer to the first."""
    copying_libraries: set[int] = field(default_factory=set)
    """Libraries in which a Copy or Move from tape to tape is under way: each holds one drive while it waits for another, so two could wait for
    each other for ever."""

    def given_out(self, state: State, task: Task, *, is_running: bool) -> None:
        """The task is Assigned, or somebody works on it."""
        if task.task_type in BACKUP_TASKS:
            self.resources.add(_group(task))
        works = is_running and not any(one.status in _WAITING_FOR_CARTRIDGE for one in _tape_tasks(state, task))
        if works:
            self.begin(task)
        if task.task_type in CLIENT_TASKS and (works or not _needs_reading(state, task)):
            self.clients[task.client_id] += 1

    def begin(self, task: Task) -> None:
        if task.task_type in CLIENT_TASKS:
            self.working_clients[task.client_id] += 1
        for catalog_id in _catalogs_at_work(task):
            self.working_catalogs[catalog_id] += 1


def _group(task: Task) -> BackupGroup:
    return task.client_id, task.resource_type, canonical_resource(task.resource)


def _catalogs_at_work(task: Task) -> set[int]:
    return {task.local_catalog_id, task.target_local_catalog_id} - {0}


# --- cartridges --------------------------------------------------------------------------------------------------------


def needs_of(state: State, task: Task) -> list[Need]:
    """Cartridges that must be in drives before the task begins, in the order in which they are asked for.

    Of what is read that is the first cartridge in reading order; the others are asked for when it is their turn. A Copy from tape to tape gets its
    drive to write with first: it is the one that lasts. Follows from where backups are now, not from where they were when the task was assigned.
    """
    needs: list[Need] = []
    write_library = task.library_id if task.task_type in BACKUP_TASKS else task.target_library_id
    if write_library:
        needs.append(Need(task_type=TapeTaskType.WRITE, library_id=write_library))
    part = next((part for backup in _read_by(state, task) for part in backup.parts), None)
    if part is not None:
        cartridge = state.find(TapeCartridge, part.cartridge_id)
        needs.append(
            Need(
                task_type=TapeTaskType.READ,
                library_id=cartridge.library_id if cartridge is not None else 0,
                cartridge_id=part.cartridge_id,
                position=part.position,
            )
        )
    return needs


def _read_by(state: State, task: Task) -> list[Backup]:
    """Backups whose archives the task reads whole or in part, in reading order. Of a parent only the manifest is read: that needs no mount."""
    backup = state.find(Backup, task.backup_id)
    if backup is None or task.task_type in BACKUP_TASKS or task.task_type == TaskType.DELETE:
        return []
    return chain_of(state, backup) if task.task_type == TaskType.RESTORE else [backup]


def _needs_reading(state: State, task: Task) -> bool:
    return any(backup.parts for backup in _read_by(state, task))


def _is_tape_to_tape(state: State, task: Task) -> bool:
    return task.task_type in COPY_TASKS and task.target_library_id != 0 and _needs_reading(state, task)


def _libraries(state: State, task: Task) -> set[int]:
    return {task.target_library_id, *(one.library_id for one in needs_of(state, task))} - {0}


def _tape_tasks(state: State, task: Task) -> list[TapeTask]:
    """Those of the task that have not ended."""
    numbers = state.indexes.tape_tasks_of_task.get(task.id)
    return [state.tables[TapeTask.KIND][one] for one in sorted(numbers)] if numbers else []


def _meets(need: Need, tape_task: TapeTask) -> bool:
    return tape_task.task_type == need.task_type and (
        need.task_type == TapeTaskType.WRITE or tape_task.cartridge_id == need.cartridge_id
    )


# --- steps -------------------------------------------------------------------------------------------------------------


def next_steps(state: State, facts: Facts, now_ns: int) -> list[AnyStep]:
    """Every step that can be begun now, higher priority first, then lower id. Pure; bounds of clients and catalogs hold."""
    tasks = sorted(state.active_tasks(), key=lambda task: (-task.priority, task.id))
    load = _Load()
    for task in tasks:
        is_running = task.status in _RUNNING or task.id in facts.under_way
        if task.status == TaskStatus.ASSIGNED or is_running:
            load.given_out(state, task, is_running=is_running)
        if _is_tape_to_tape(state, task) and (is_running or _tape_tasks(state, task)):
            load.copying_libraries |= _libraries(state, task)  # also while it is paused, with a drive in its hands
    steps: list[AnyStep] = []
    for task in tasks:
        step = _step(state, facts, task, now_ns, load)
        if step is not None:
            steps.append(step)
    return steps


def _step(state: State, facts: Facts, task: Task, now_ns: int, load: _Load) -> AnyStep | None:
    if task.id in facts.under_way:
        return _about_worker(facts, task)
    if task.status in _NOT_BEGUN and in_service_mode(state):
        return _in_service_mode(state, task)
    match task.status:
        case TaskStatus.NEW:
            return _assign(state, task, load)
        case TaskStatus.ASSIGNED:
            return _start(state, facts, task, load)
        case TaskStatus.SUSPENDED:
            if why := _why_given_up(state, facts, task, now_ns):
                return GiveUpStep(task_id=task.id, reason=why)
            return RetryStep(task_id=task.id) if _may_retry(state, facts, task, now_ns) else None
        case TaskStatus.KILL:
            return EndKillStep(task_id=task.id)
        case status if status in _RUNNING:
            return RecoverStep(task_id=task.id)
    return None


def _about_worker(facts: Facts, task: Task) -> AnyStep | None:
    if task.status == TaskStatus.KILL:
        return None if task.id in facts.told_to_stop else StopStep(task_id=task.id)
    if task.status == TaskStatus.PAUSED:
        return None if task.id in facts.told_to_pause else PauseStep(task_id=task.id)
    return ContinueStep(task_id=task.id) if task.id in facts.told_to_pause else None


def _why_given_up(state: State, facts: Facts, task: Task, now_ns: int) -> str:
    """A task that was at work when its client went away. One that nobody has begun waits for the client (reference 3.20), and so does what was
    begun for as long as a client may need to start anew: then it goes on where it was."""
    if task.task_type not in CLIENT_TASKS or not task.started_ns or task.client_id in facts.online_clients:
        return ""
    client = state.find(Client, task.client_id)
    if client is None or now_ns - client.last_online_ns < OFFLINE_SECONDS * 10**9:
        return ""
    if configured(state, "kill_task_of_offline_client") != "yes":
        return ""
    return (
        f"client {client.hostname} has been offline for {OFFLINE_SECONDS // 60} minutes (kill_task_of_offline_client)"
    )


def _in_service_mode(state: State, task: Task) -> RecoverStep | None:
    """Nothing is given out. A task that has cartridges in its hands gives them back: operators work on drives in that time."""
    if task.status == TaskStatus.ASSIGNED and _tape_tasks(state, task):
        return RecoverStep(task_id=task.id, reason="the server is in service mode")
    return None


def _may_retry(state: State, facts: Facts, task: Task, now_ns: int) -> bool:
    """A time that lies further ahead than any retry is ever set comes from a wall clock that has been set back since."""
    if task.retry_at_ns:
        longest_wait_ns = (int(configured(state, "suspended_task_restart_period")) + 1) * 60 * 10**9
        return now_ns >= task.retry_at_ns or task.retry_at_ns - now_ns > longest_wait_ns
    return task.task_type in CLIENT_TASKS and task.client_id in facts.online_clients


def _assign(state: State, task: Task, load: _Load) -> AssignStep | None:
    is_bounded = task.task_type in CLIENT_TASKS and not _needs_reading(state, task)
    if is_bounded and load.clients[task.client_id] >= CLIENT_TASKS_MAX:
        return None
    if task.task_type in BACKUP_TASKS and _group(task) in load.resources:
        return None
    if is_bounded:
        load.clients[task.client_id] += 1
    if task.task_type in BACKUP_TASKS:
        load.resources.add(_group(task))
    group = group_named(state, task.requested_pool_id) if task.task_type in BACKUP_TASKS else None
    return AssignStep(
        task_id=task.id,
        catalog_ids=tuple(_catalogs_of(state, task)),
        load_seconds=group.calculation_period if group is not None else 0,
    )


def _catalogs_of(state: State, task: Task) -> list[int]:
    """Where the task could work: what ``AssignTask`` has to know about."""
    found: set[int] = set()
    if task.task_type == TaskType.DELETE:
        removal = state.find(PendingRemoval, task.backup_id)
        found |= {removal.local_catalog_id} if removal is not None else set()
    else:
        found |= {backup.local_catalog_id for backup in _read_by(state, task)}
    is_backup = task.task_type in BACKUP_TASKS
    for pool_id in pools_for(state, task.requested_pool_id) if is_backup else (task.target_pool_id,):
        found |= state.indexes.catalogs_of_pool.get(pool_id, set())
    return sorted(found - {0})


def _start(state: State, facts: Facts, task: Task, load: _Load) -> AnyStep | None:
    """An Assigned task waits for its client, for cartridges, and for room at its client and its catalogs."""
    is_at_client = task.task_type in CLIENT_TASKS
    if is_at_client and task.client_id not in facts.online_clients:
        if _tape_tasks(state, task):
            return RecoverStep(task_id=task.id, reason="its client is offline, and others need the cartridge")
        return None
    waits, step = _cartridges(state, task, load)
    if waits:
        return step
    if is_at_client and load.working_clients[task.client_id] >= CLIENT_TASKS_MAX:
        return None
    if any(load.working_catalogs[one] >= CATALOG_TASKS_MAX for one in _catalogs_at_work(task)):
        return None
    if task.task_type == TaskType.DELETE and _is_read(state, facts, task):
        return None
    load.begin(task)
    if is_at_client:
        return StartOnClientStep(task_id=task.id, client_id=task.client_id)
    if task.task_type == TaskType.VERIFY:
        return VerifyStep(task_id=task.id, backup_id=task.backup_id, local_catalog_id=task.local_catalog_id)
    if task.task_type in COPY_TASKS:
        return CopyStep(task_id=task.id, backup_id=task.backup_id)
    assert task.task_type == TaskType.DELETE, task.task_type
    return RemoveBytesStep(
        task_id=task.id, backup_id=task.backup_id, local_catalog_id=task.local_catalog_id, archive=task.archive
    )


def _cartridges(state: State, task: Task, load: _Load) -> tuple[bool, AnyStep | None]:
    """Whether the task waits for cartridges, and the step that brings it further, if there is one now."""
    needs = needs_of(state, task)
    active = _tape_tasks(state, task) if needs else []
    if len(needs) > 1 and not active:
        libraries = _libraries(state, task)
        if libraries & load.copying_libraries:
            return True, None
        load.copying_libraries |= libraries
    for need in needs:
        found = next((one for one in active if _meets(need, one)), None)
        if found is None:
            return True, _ask_for(state, task, need)
        if found.status != TaskStatus.EXECUTION:
            return True, None
        if len(needs) > 1 and (why_not := _why_no_second_drive(state, needs)):
            return True, RecoverStep(task_id=task.id, reason=why_not)
    return False, None


def _ask_for(state: State, task: Task, need: Need) -> AnyStep:
    why_not = media.why_unreachable(state, need.cartridge_id) if need.task_type == TapeTaskType.READ else ""
    if why_not:
        return RecoverStep(task_id=task.id, reason=why_not)
    return QueueTapeWorkStep(
        task_id=task.id,
        task_type=need.task_type,
        library_id=need.library_id,
        cartridge_id=need.cartridge_id,
        position=need.position,
    )


def _why_no_second_drive(state: State, needs: list[Need]) -> str:
    """A drive that was lost since the task was assigned would leave it waiting with the only one in its hands."""
    libraries = {one.library_id for one in needs}
    if len(libraries) > 1 or all(len(media.usable_drives(state, one)) >= len(needs) for one in libraries):
        return ""
    return f"library {needs[0].library_id} has lost a drive, and copying from cartridge to cartridge takes two"


def _is_read(state: State, facts: Facts, removal: Task) -> bool:
    """Whether somebody still reads the bytes of a backup that was moved. They began before the Move ended; who begins now reads the new place."""
    if state.find(Backup, removal.backup_id) is None:
        return False  # deleted: refused while anybody needed it
    for task in state.active_tasks():
        if task.id == removal.id or not (task.status in _RUNNING or task.id in facts.under_way):
            continue
        read = _read_by(state, task)
        parent = state.find(Backup, task.parent_backup_id) if task.parent_backup_id else None
        if parent is not None:
            read = [parent, *ancestors(state, parent)]
        if any(one.id == removal.backup_id for one in read):
            return True
    return False
