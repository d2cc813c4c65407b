"""Works of one session on the agent: started, steered, reported, and ended with it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

from actors.agent.archive_names import list_archive
from actors.agent.backup import run_backup
from actors.agent.port import AgentKeys, BackupWork, RestoreWork, ScriptSettings, WorkControl, WorkOutcome
from actors.agent.restore import run_restore
from actors.agent.transfer import first_error
from actors.conversation import Conversation
from actors.framing import DataChannel
from actors.link import LinkClosed
from actors.supervisor import cleanup_scope, describe, leading_error
from rbcore.errors import NotFound, RbError, Unavailable
from rbcore.file_tree import Trees
from rbcore.messages import (
    ListArchive,
    Listing,
    StartBackup,
    StartRestore,
    WorkEnded,
    WorkNotes,
    WorkProgress,
    WorkStage,
)
from rbcore.ports import World

_log = logging.getLogger(__name__)

REPORT_SECONDS_MAX = 60.0
REPLACE_SECONDS_MAX = 10.0
PROGRESS_SECONDS = 0.5
"""Telemetry is told at most this often per work."""
CLOSE_SECONDS_MAX = 2.0


class _Work:
    def __init__(self, order: StartBackup | StartRestore) -> None:
        self.order = order
        self.control = WorkControl()
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        self.told_at = float("-inf")


class AgentWorks:
    """What the daemon ordered in this session."""

    def __init__(
        self,
        conversation: Conversation,
        nursery: trio.Nursery,
        world: World,
        *,
        open_data: Callable[[], Awaitable[trio.abc.Stream]],
        keys: AgentKeys,
        hostname: str,
        trees: Trees,
        scripts: ScriptSettings,
        works_max: int,
        workers: int,
    ) -> None:
        self._conversation = conversation
        self._nursery = nursery
        self._world = world
        self._open_data = open_data
        self._keys = keys
        self._hostname = hostname
        self._trees = trees
        self._scripts = scripts
        self._works_max = works_max
        self._workers = workers
        self._works: dict[int, _Work] = {}

    async def start(self, order: StartBackup | StartRestore) -> None:
        """Begin; the order is answered when this returns. An earlier attempt of the same task is ended first.

        Raises ``Unavailable`` when as many works run as may, or the earlier attempt does not end in time.
        """
        earlier = self._works.get(order.task_id)
        if earlier is not None:
            if earlier.order.transfer_token == order.transfer_token:
                return
            earlier.scope.cancel()
            with trio.move_on_after(REPLACE_SECONDS_MAX):
                await earlier.ended.wait()
            if not earlier.ended.is_set():
                raise Unavailable(f"The attempt of task {order.task_id} before this one has not ended yet.")
        if len(self._works) >= self._works_max:
            raise Unavailable(f"{self._works_max} works run on this client, which is its bound.")
        work = self._works[order.task_id] = _Work(order)
        self._nursery.start_soon(self._carry, work)

    def steer(self, task_id: int, verb: str) -> None:
        """``pause``, ``continue`` or ``kill``. Raises ``NotFound`` when nothing runs for the task."""
        work = self._works.get(task_id)
        if work is None:
            raise NotFound(f"Nothing runs for task {task_id} on this client.")
        actions = {"pause": work.control.pause, "continue": work.control.resume, "kill": work.control.kill}
        actions[verb]()

    async def list_archive(self, order: ListArchive) -> Listing:
        """Raises what keeps the names from being read."""
        try:
            stream = await self._open_data()
        except LinkClosed as error:
            raise Unavailable(str(error)) from error
        try:
            rows = await list_archive(order, DataChannel(stream), self._keys.master_key, self._world)
        except BaseExceptionGroup as group:
            known, others = group.split(RbError)
            if known is None or others is not None:
                raise others or group from None
            raise first_error(known) from None
        finally:
            with cleanup_scope(CLOSE_SECONDS_MAX):
                await stream.aclose()
        return Listing(rows=rows)

    async def _carry(self, work: _Work) -> None:
        outcome = WorkOutcome("interrupted", "the session ended")
        try:
            with work.scope:
                outcome = await self._attempt(work)
        finally:
            del self._works[work.order.task_id]
            work.ended.set()
        if work.scope.cancelled_caught:
            return  # a newer attempt took its place; nobody waits for this one's report
        if isinstance(work.order, StartBackup) and outcome.outcome == "done":
            return  # the daemon knows: it said Committed
        await self._report(work, outcome)

    async def _attempt(self, work: _Work) -> WorkOutcome:
        stream: trio.abc.Stream | None = None
        try:
            stream = await self._open_data()
            return await self._run(work, DataChannel(stream))
        except LinkClosed as error:
            return WorkOutcome("interrupted", str(error))
        except Exception as error:
            known = leading_error(error)
            if known is None:
                _log.exception("the work of task %d failed", work.order.task_id)
                return WorkOutcome("error", f"the agent failed: {describe(error)}")
            return WorkOutcome("interrupted" if isinstance(known, Unavailable) else "error", known.message)
        finally:
            if stream is not None:
                with cleanup_scope(CLOSE_SECONDS_MAX):
                    await stream.aclose()

    async def _run(self, work: _Work, channel: DataChannel) -> WorkOutcome:
        order, task_id = work.order, work.order.task_id

        async def stage(name: str) -> None:
            await self._ask(WorkStage(task_id=task_id, stage=name))

        async def notes(severity: str, lines: list[str]) -> None:
            await self._ask(WorkNotes(task_id=task_id, severity=severity, lines=lines))

        async def progress(bytes_done: int, bytes_total: int, files_done: int) -> None:
            now = trio.current_time()
            if now - work.told_at >= PROGRESS_SECONDS:
                work.told_at = now
                await self._tell(
                    WorkProgress(task_id=task_id, bytes_done=bytes_done, bytes_total=bytes_total, files_done=files_done)
                )

        control = work.control
        control.stage, control.notes, control.progress = stage, notes, progress
        if isinstance(order, StartBackup):
            backup = BackupWork(
                order, self._keys, self._hostname, self._trees, scripts=self._scripts, workers=self._workers
            )
            return await run_backup(backup, channel, control, self._world)
        restore = RestoreWork(order, self._keys, self._trees, workers=self._workers)
        return await run_restore(restore, channel, control, self._world)

    async def _report(self, work: _Work, outcome: WorkOutcome) -> None:
        await self._ask(
            WorkEnded(
                task_id=work.order.task_id,
                outcome=outcome.outcome,
                reason=outcome.reason,
                files=outcome.files,
                bytes=outcome.bytes,
                problems=outcome.problems,
            )
        )

    async def _ask(self, body: WorkStage | WorkNotes | WorkEnded) -> None:
        """Report until it is answered. What the daemon does not want to hear (any more) is written down here and no more."""
        try:
            await self._conversation.ask(body, REPORT_SECONDS_MAX)
        except RbError as error:
            _log.info("the daemon did not take %s of task %d: %s", type(body).__name__, body.task_id, error.message)

    async def _tell(self, body: WorkProgress) -> None:
        try:
            await self._conversation.tell(body)
        except LinkClosed:
            _log.debug("progress of task %d was not told: the session is over", body.task_id)
