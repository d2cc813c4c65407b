"""The dispatcher: sees to it that every task ends.

What to do next is a pure function (``rbcore.dispatch.next_steps``) of the state and of what is under way here. The dispatcher looks
when something durable happened, when somebody came or went, and when the time of a suspended task has come; it carries the
steps out side by side. A step that fails is tried again later: its task stays under way for a growing pause, then the next
look names the step anew. Nothing is remembered that a restart would lose.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any

import msgspec
import trio

from actors.client_session import ClientSessions
from actors.copier import copy_backup
from actors.jobs import Jobs
from actors.places import Places
from actors.port import Journal, ServerLoads, nothing_measured
from actors.starting import Starter
from actors.storage import LookAtCatalog, RemoveArchive, Storages, SweepCatalog
from actors.supervisor import Backoff, describe, leading_error
from actors.verifier import Verifier
from actors.works import STORAGE_RETRY_SECONDS, Works
from rbcore.commands import (
    AdvanceTask,
    AllAgentsGone,
    AssignTask,
    CatalogFacts,
    Order,
    QueueTapeWork,
    RecordBytesRemoved,
    RecordCopy,
    RecoverTapeTasks,
    RecoverTasks,
    Reply,
)
from rbcore.configuration import configured, in_service_mode
from rbcore.dispatch import (
    AnyStep,
    AssignStep,
    ContinueStep,
    CopyStep,
    EndKillStep,
    Facts,
    GiveUpStep,
    PauseStep,
    QueueTapeWorkStep,
    RecoverStep,
    RemoveBytesStep,
    RetryStep,
    StartOnClientStep,
    StopStep,
    VerifyStep,
    next_steps,
)
from rbcore.entities import Backup, LocalCatalog, Pool, Task
from rbcore.errors import (
    Damaged,
    NotAllowedNow,
    NotFound,
    ProtocolViolation,
    RbError,
    StorageFull,
    Unavailable,
)
from rbcore.events import (
    BackupDeleted,
    BackupMoved,
    BackupRecorded,
    ClientAuthorised,
    ClientRevoked,
    Envelope,
    TaskStatusChanged,
)
from rbcore.messages import ContinueWork, KillWork, PauseWork, WorkProgress
from rbcore.ports import World
from rbcore.task import retry_delay_seconds
from rbcore.vocabulary import BACKUP_TASKS, COPY_TASKS, TERMINAL_STATUSES, TapeTaskType, TaskStatus

_log = logging.getLogger(__name__)

STEPS_AT_ONCE_MAX = 64
CATALOG_SECONDS_MAX = 30.0
REMOVE_SECONDS_MAX = 3600.0
DISCARD_PAUSES_SECONDS = (0.0, 0.5, 5.0)
STEER_SECONDS_MAX = 30.0
TELL_AGAIN_SECONDS = 0.5
STOP_SECONDS_MAX = 60.0
"""A client that was told to stop and does not end its work by then is cut off."""
LOOK_SECONDS_MAX = 60.0
"""It looks at least this often, whatever the clock on the wall does."""
FAILED_STEP_FIRST_SECONDS, FAILED_STEP_SECONDS_MAX = 1.0, 60.0

ACTOR = "actor:dispatcher"


class DispatcherStatistics(msgspec.Struct, frozen=True, kw_only=True):
    looks: int
    steps: int
    failed: int
    under_way: int
    swept_bytes: int


class Dispatcher:
    """Make it, then ``run``."""

    def __init__(
        self,
        journal: Journal,
        works: Works,
        sessions: ClientSessions,
        storages: Storages,
        places: Places,
        jobs: Jobs,
        world: World,
        *,
        loads: ServerLoads = nothing_measured,
    ) -> None:
        self._journal = journal
        self._loads = loads
        self._works = works
        self._sessions = sessions
        self._storages = storages
        self._places = places
        self._jobs = jobs
        self._world = world
        self._verifier = Verifier(journal, storages, places, jobs, world, self._note_progress)
        self._starter = Starter(journal, works, sessions)
        self._steps: set[int] = set()
        """Tasks with a step under way; ``Works`` knows those that run on clients."""
        self._told_to_pause: set[int] = set()
        self._told_to_stop: set[int] = set()
        self._failures: dict[int, Backoff] = {}
        self._latest: dict[int, Envelope] = {}
        """Newest event of each task that has not ended: the cause of what is done about it."""
        self._wake = trio.Event()
        self.has_recorded_start = trio.Event()
        """What the last run left is recorded: from here on others may begin, too."""
        self._looks = self._begun = self._failed = self._swept_bytes = 0
        sessions.on_presence = self.look_again
        works.on_end = self._work_ended

    def statistics(self) -> DispatcherStatistics:
        return DispatcherStatistics(
            looks=self._looks,
            steps=self._begun,
            failed=self._failed,
            under_way=len(self._steps | self._works.task_ids()),
            swept_bytes=self._swept_bytes,
        )

    def look_again(self) -> None:
        self._wake.set()

    def _work_ended(self, _task_id: int) -> None:
        self._wake.set()

    async def run(self) -> None:
        """Record what the last run left, then dispatch until cancelled."""
        await self._record_new_start()
        self._steps.clear()
        self._told_to_pause.clear()
        self._told_to_stop.clear()
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            after = self._journal.log.head
            for task in self._journal.state.active_tasks():
                self._remember_cause(task.id)
            nursery.start_soon(self._listen, after)
            nursery.start_soon(self._sweep_for_ever)
            while True:
                await self._wait(self._look())

    async def _record_new_start(self) -> None:
        """At start of the daemon, before any agent is let in: nobody is connected, nobody works.

        While the log volume is full that cannot be recorded; HTTP answers from the views meanwhile.
        """
        backoff = Backoff(FAILED_STEP_FIRST_SECONDS, FAILED_STEP_SECONDS_MAX, self._world.randomness)
        while not self._sessions.admitting:
            try:
                await self._execute(AllAgentsGone())
                await self._execute(RecoverTapeTasks())
                await self._execute(RecoverTasks())
            except Unavailable as error:
                _log.warning("the daemon cannot begin its work yet: %s", error.message)
                await trio.sleep(backoff.next_seconds())
            else:
                self._sessions.admitting = True
                self.has_recorded_start.set()

    # --- looking ----------------------------------------------------------------------------------------------------

    def _look(self) -> int:
        """Begin every step that can be begun; the wall time at which a suspended task is due, 0 for none."""
        self._wake = trio.Event()
        self._looks += 1
        now_ns = self._world.clock.now_ns()
        under_way = frozenset(self._steps | self._works.task_ids())
        self._told_to_pause &= under_way
        self._told_to_stop &= under_way
        facts = Facts(
            online_clients=self._sessions.online_ids(),
            under_way=under_way,
            told_to_pause=frozenset(self._told_to_pause),
            told_to_stop=frozenset(self._told_to_stop),
        )
        for step in next_steps(self._journal.state, facts, now_ns):
            if len(self._steps) >= STEPS_AT_ONCE_MAX and not isinstance(step, StopStep | PauseStep | ContinueStep):
                continue  # the end of a step wakes the dispatcher, and the next look names this one again
            self._begin(step)
        due = [task.retry_at_ns for task in self._journal.state.tasks_in(TaskStatus.SUSPENDED) if task.retry_at_ns]
        return min((one for one in due if one > now_ns), default=0)

    async def _wait(self, due_ns: int) -> None:
        seconds = LOOK_SECONDS_MAX
        if due_ns:
            seconds = min(seconds, max(0.0, (due_ns - self._world.clock.now_ns()) / 1e9) + 0.001)
        with trio.move_on_after(seconds):
            await self._wake.wait()

    def _begin(self, step: AnyStep) -> None:
        self._begun += 1
        match step:
            case PauseStep():
                self._told_to_pause.add(step.task_id)
            case ContinueStep():
                self._told_to_pause.discard(step.task_id)
            case StopStep():
                self._told_to_stop.add(step.task_id)
            case _:
                self._steps.add(step.task_id)
                self._nursery.start_soon(self._carry, step)
                return
        self._nursery.start_soon(self._steer, step)

    async def _carry(self, step: AnyStep) -> None:
        """One step to its end. What fails is written down and tried again after a pause."""
        try:
            await self._actions[type(step)](self, step)
            self._failures.pop(step.task_id, None)
        except Exception as error:
            self._failed += 1
            known = leading_error(error)
            if known is None:
                _log.exception("%s failed", step)
            else:
                _log.warning("%s of task %d: %s", type(step).__name__, step.task_id, describe(known))
            backoff = self._failures.get(step.task_id)
            if backoff is None:
                backoff = Backoff(FAILED_STEP_FIRST_SECONDS, FAILED_STEP_SECONDS_MAX, self._world.randomness)
                self._failures[step.task_id] = backoff
            await trio.sleep(backoff.next_seconds())
        finally:
            self._steps.discard(step.task_id)
            self._wake.set()

    # --- the steps ----------------------------------------------------------------------------------------------------

    async def _assign(self, step: AssignStep) -> None:
        facts: list[CatalogFacts] = []

        async def look(catalog_id: int) -> None:
            facts.append(await self._look_at(catalog_id))

        async with trio.open_nursery() as nursery:
            for catalog_id in step.catalog_ids:
                nursery.start_soon(look, catalog_id)
        task = self._journal.state.find(Task, step.task_id)
        if task is not None and task.status == TaskStatus.NEW:
            online = self._sessions.online(task.client_id)
            facts.sort(key=lambda one: one.local_catalog_id)
            loads = self._loads(step.load_seconds) if step.load_seconds else []
            command = AssignTask(task_id=task.id, catalogs=facts, client_online=online, loads=loads)
            await self._execute(command, task.id)

    async def _look_at(self, catalog_id: int) -> CatalogFacts:
        try:
            found = await self._storages.ask(catalog_id, LookAtCatalog(), CATALOG_SECONDS_MAX)
            assert isinstance(found, CatalogFacts), "the answer to LookAtCatalog"
        except RbError as error:
            return CatalogFacts(local_catalog_id=catalog_id, online=False, free_bytes=0, problem=error.message)
        return found

    async def _start(self, step: StartOnClientStep) -> None:
        await self._starter.start(step.task_id)

    async def _verify(self, step: VerifyStep) -> None:
        backup = self._journal.state.find(Backup, step.backup_id)
        if backup is None:
            await self._advance(step.task_id, TaskStatus.ERROR, f"backup {step.backup_id} is not there any more")
            return
        await self._advance(step.task_id, TaskStatus.EXECUTION)
        try:
            command = await self._verifier.verify(step.task_id, backup)
        except NotAllowedNow:
            return  # stopped on order: the next look ends the kill
        except Unavailable as error:
            await self._suspend(step.task_id, error.message)
            return
        await self._execute(command, step.task_id)
        self._sessions.forget_progress(step.task_id)

    async def _queue_tape_work(self, step: QueueTapeWorkStep) -> None:
        try:
            await self._have_manifest_of_parent(step)
        except Unavailable as error:
            await self._suspend(step.task_id, error.message)
            return
        command = QueueTapeWork(
            task_type=step.task_type,
            task_id=step.task_id,
            library_id=step.library_id,
            cartridge_id=step.cartridge_id,
            position=step.position,
        )
        try:
            await self._execute(command, step.task_id)
        except (NotAllowedNow, NotFound) as error:
            await self._suspend(step.task_id, error.message)

    async def _have_manifest_of_parent(self, step: QueueTapeWorkStep) -> None:
        """Before a backup is given a drive to write: its parent's manifest has to be there without a cartridge, which may be the very one it writes to.

        Where it is not kept any more it is read once, and kept. The task holds nothing meanwhile. Raises ``Unavailable``.
        """
        state = self._journal.state
        task = state.find(Task, step.task_id)
        parent = state.find(Backup, task.parent_backup_id) if task is not None else None
        if step.task_type != TapeTaskType.WRITE or parent is None or not parent.parts:
            return
        try:
            async with self._places.source(parent, step.task_id) as source:
                await source.manifest_blocks()
        except (Damaged, NotFound) as error:
            # The agent finds out the same, and says which files that costs.
            _log.error("the manifest of backup %d cannot be read: %s", parent.id, error.message)

    async def _copy(self, step: CopyStep) -> None:
        await self._journal.settled()
        task = self._journal.state.find(Task, step.task_id)
        backup = self._journal.state.find(Backup, step.backup_id)
        if task is None or backup is None:
            await self._advance(step.task_id, TaskStatus.ERROR, f"backup {step.backup_id} is not there any more")
            return
        await self._advance(task.id, TaskStatus.EXECUTION)
        durable_blocks = 0
        if self._has_ended(task.id):
            return

        async def record(command: RecordCopy) -> None:
            await self._execute(command, task.id)

        try:
            with self._jobs.run(task.id) as job:
                try:
                    await copy_backup(
                        self._places, job, task, backup, record, lambda count: self._note_progress(task.id, count)
                    )
                finally:
                    durable_blocks = job.durable_blocks
        except NotAllowedNow as error:
            if not self._has_ended(task.id):
                await self._suspend(task.id, error.message)
        except StorageFull as error:
            await self._suspend(task.id, error.message, durable_blocks, STORAGE_RETRY_SECONDS)
        except Unavailable as error:
            await self._suspend(task.id, error.message, durable_blocks)
        except (NotFound, Damaged, ProtocolViolation) as error:
            await self._advance(task.id, TaskStatus.ERROR, error.message)
        finally:
            self._sessions.forget_progress(task.id)

    def _has_ended(self, task_id: int) -> bool:
        """Or is about to, on order."""
        task = self._journal.state.find(Task, task_id)
        return task is None or task.status == TaskStatus.KILL or task.status in TERMINAL_STATUSES

    def _note_progress(self, task_id: int, bytes_done: int) -> None:
        self._sessions.take_progress(WorkProgress(task_id=task_id, bytes_done=bytes_done, bytes_total=0, files_done=0))

    async def _remove(self, step: RemoveBytesStep) -> None:
        await self._advance(step.task_id, TaskStatus.EXECUTION)
        try:
            freed = await self._storages.ask(
                step.local_catalog_id, RemoveArchive(archive=step.archive, zeroing=self._zeroing), REMOVE_SECONDS_MAX
            )
        except (Unavailable, NotAllowedNow) as error:
            await self._suspend(step.task_id, error.message)
            return
        await self._execute(RecordBytesRemoved(backup_id=step.backup_id, bytes_removed=freed), step.task_id)

    async def _retry(self, step: RetryStep) -> None:
        await self._advance(step.task_id, TaskStatus.NEW, "tried again")

    async def _recover(self, step: RecoverStep) -> None:
        await self._suspend(step.task_id, step.reason)

    async def _give_up(self, step: GiveUpStep) -> None:
        await self._advance(step.task_id, TaskStatus.KILLED, step.reason)

    async def _end_kill(self, step: EndKillStep) -> None:
        await self._advance(step.task_id, TaskStatus.KILLED, "stopped on order")

    async def _suspend(
        self, task_id: int, reason: str, durable_blocks: int = 0, retry_seconds: int | None = None
    ) -> None:
        task = self._journal.state.find(Task, task_id)
        if retry_seconds is None:
            retry_seconds = retry_delay_seconds(task.attempts if task is not None else 0)
        retry_at_ns = self._world.clock.now_ns() + retry_seconds * 10**9 + 1
        await self._advance(task_id, TaskStatus.SUSPENDED, reason, retry_at_ns, durable_blocks)

    async def _advance(
        self, task_id: int, status: str, reason: str = "", retry_at_ns: int = 0, durable_blocks: int = 0
    ) -> None:
        command = AdvanceTask(
            task_id=task_id, status=status, reason=reason, retry_at_ns=retry_at_ns, durable_blocks=durable_blocks
        )
        try:
            await self._execute(command, task_id)
        except (NotAllowedNow, NotFound) as error:
            # It moved on meanwhile: the next look sees where to.
            _log.info("task %d does not become %s: %s", task_id, status, error.message)

    async def _steer(self, step: PauseStep | ContinueStep | StopStep) -> None:
        """Tell whoever works on the task. A worker that cannot be told has ended, or is about to."""
        messages = {PauseStep: PauseWork, ContinueStep: ContinueWork, StopStep: KillWork}
        verbs = {PauseStep: "pause", ContinueStep: "continue", StopStep: "stop"}
        work = self._works.of_task(step.task_id)
        try:
            if work is None:
                if not self._jobs.steer(step.task_id, verbs[type(step)]):
                    await self._tell_again(step)
                return
            body = messages[type(step)](task_id=step.task_id)
            await self._sessions.request(work.client_id, body, STEER_SECONDS_MAX)
            if isinstance(step, StopStep):
                with trio.move_on_after(STOP_SECONDS_MAX):
                    await work.ended.wait()
        except RbError as error:
            _log.info("task %d could not be told to %s: %s", step.task_id, verbs[type(step)], error.message)
        if work is not None and isinstance(step, StopStep) and not work.ended.is_set():
            await self._works.finish(work, TaskStatus.KILLED, "stopped on order; its client did not answer")

    async def _tell_again(self, step: PauseStep | ContinueStep | StopStep) -> None:
        """The job is not there yet, or not any more: the next look knows which."""
        await trio.sleep(TELL_AGAIN_SECONDS)
        self._told_to_pause.discard(step.task_id)
        self._told_to_stop.discard(step.task_id)
        self._wake.set()

    _actions: dict[type[Any], Callable[[Dispatcher, Any], Awaitable[None]]] = {  # noqa: RUF012
        AssignStep: _assign,
        StartOnClientStep: _start,
        QueueTapeWorkStep: _queue_tape_work,
        VerifyStep: _verify,
        CopyStep: _copy,
        RemoveBytesStep: _remove,
        RetryStep: _retry,
        RecoverStep: _recover,
        EndKillStep: _end_kill,
        GiveUpStep: _give_up,
    }

    # --- the log ------------------------------------------------------------------------------------------------------

    async def _execute(self, command: Any, task_id: int = 0) -> Reply:
        cause = self._latest.get(task_id)
        return await self._journal.execute(
            Order(
                command=command,
                command_id=f"dispatch/{self._world.randomness.token_bytes(12).hex()}",
                actor=ACTOR,
                causation=cause.position if cause is not None else 0,
                correlation=cause.correlation if cause is not None else "",
            )
        )

    def _remember_cause(self, task_id: int) -> None:
        version = self._journal.state.versions.get(f"task/{task_id}", 0)
        for envelope in self._journal.log.read_stream(f"task/{task_id}", max(0, version - 1)):
            self._latest[task_id] = envelope

    async def _listen(self, after: int) -> None:
        """Every durable event wakes; some of them are somebody's business at once."""
        async for batch in self._journal.log.subscribe(after):
            for envelope in batch:
                kind, _, number = envelope.stream.partition("/")
                if kind == Task.KIND:
                    self._note_task(int(number), envelope)
                elif envelope.type in (BackupDeleted.TYPE, BackupMoved.TYPE):
                    self._forget_backup(int(number))
                elif envelope.type == ClientAuthorised.TYPE:
                    hwid = msgspec.msgpack.decode(envelope.body, type=ClientAuthorised).hwid
                    self._nursery.start_soon(self._sessions.authorised, hwid)
                elif envelope.type == ClientRevoked.TYPE:
                    self._nursery.start_soon(self._sessions.revoked, int(number))
            self._wake.set()

    def _note_task(self, task_id: int, envelope: Envelope) -> None:
        self._latest[task_id] = envelope
        if envelope.type == TaskStatusChanged.TYPE:
            change = msgspec.msgpack.decode(envelope.body, type=TaskStatusChanged)
            if change.status in TERMINAL_STATUSES:
                self._sessions.forget_progress(task_id)
                self._failures.pop(task_id, None)
                if change.status != TaskStatus.DONE:
                    self._nursery.start_soon(self._discard, task_id)
        task = self._journal.state.find(Task, task_id)
        if task is None or task.status in TERMINAL_STATUSES:
            self._latest.pop(task_id, None)

    # --- what nobody needs any more -----------------------------------------------------------------------------------

    async def _discard(self, task_id: int) -> None:
        """The unfinished archive of a backup or copy that will not be. What cannot be removed now, the next sweep removes."""
        task = self._journal.state.find(Task, task_id)
        if task is None or task.task_type not in (*BACKUP_TASKS, *COPY_TASKS) or not task.archive:
            return
        work = self._works.of_task(task_id)
        if work is not None:
            self._works.end(work)
        is_backup = task.task_type in BACKUP_TASKS
        catalog_id = task.local_catalog_id if is_backup else task.target_local_catalog_id
        if task.library_id if is_backup else task.target_library_id:
            self._forget_archive(task.archive)
        if not catalog_id:
            return
        order = RemoveArchive(archive=task.archive, unless_needed=True, zeroing=self._zeroing)
        why_not = ""
        for pause in DISCARD_PAUSES_SECONDS:
            await trio.sleep(pause)
            try:
                await self._storages.ask(catalog_id, order, REMOVE_SECONDS_MAX)
            except NotAllowedNow as error:
                why_not = error.message  # its writer is about to close it
            except (NotFound, Unavailable) as error:
                why_not = error.message
                break
            else:
                return
        _log.info("the unfinished archive of task %d stays until the next sweep: %s", task_id, why_not)

    @property
    def _zeroing(self) -> bool:
        return bool(configured(self._journal.state, "delete_archives_with_zeroing"))

    def _forget_backup(self, backup_id: int) -> None:
        """A backup was deleted or moved: what is kept of it beside cartridges may go."""
        for envelope in self._journal.log.read_stream(f"backup/{backup_id}", 0):
            recorded = msgspec.msgpack.decode(envelope.body, type=BackupRecorded)
            self._forget_archive(recorded.archive)
            return

    def _forget_archive(self, archive: str) -> None:
        """A copy has the same archive; what is kept of that serves both."""
        state = self._journal.state
        ids = state.indexes.by_key[Backup.KIND]
        copies = (state.find(Backup, ids.get((archive, pool.id), 0)) for pool in state.all(Pool))
        if self._places.tape is not None and not any(one is not None and one.parts for one in copies):
            self._places.tape.forget(archive)

    async def _sweep_for_ever(self) -> None:
        """At start, and then every ``filesystems_clean_period``; not in service mode. Both are looked at every minute."""
        swept_at = -inf
        while True:
            state = self._journal.state
            due_at = swept_at + 60.0 * int(configured(state, "filesystems_clean_period"))
            if trio.current_time() >= due_at and not in_service_mode(state):
                await self._sweep()
                swept_at = trio.current_time()
            else:
                await trio.sleep(min(LOOK_SECONDS_MAX, max(1.0, due_at - trio.current_time())))

    async def _sweep(self) -> None:
        for catalog in list(self._journal.state.all(LocalCatalog)):
            try:
                swept = await self._storages.ask(catalog.id, SweepCatalog(zeroing=self._zeroing), REMOVE_SECONDS_MAX)
                self._swept_bytes += sum(size for _, size in swept.removed)
            except RbError as error:
                _log.warning("catalog %s is not swept: %s", catalog.path, error.message)
