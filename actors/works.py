"""Works: attempts of tasks that run on clients, from the order to the end. What the dispatcher, the sessions and the data
channel all look at.

A work belongs to one client and one task and ends once; whoever reports its end a second time finds nothing. Everything
that happens to it becomes a command with an id made of the work's own, so that a repeated report has no second effect.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Literal

import msgspec
import trio
from blake3 import blake3

from actors.port import Journal
from rbcore.commands import AdvanceTask, NoteTask, Order
from rbcore.entities import Backup, Task
from rbcore.errors import NotAllowedNow, NotFound, Unavailable
from rbcore.messages import WorkEnded, WorkNotes, WorkStage
from rbcore.ports import World
from rbcore.task import retry_delay_seconds
from rbcore.vocabulary import RUNNING_STATUSES, TaskStatus

_log = logging.getLogger(__name__)

NOTE_LINES_MAX = 1000
NOTE_LINE_CHARACTERS_MAX = 4096
WORKS_MAX = 1024
STORAGE_RETRY_SECONDS = 30
"""How long a task waits that found its storage full; the next assignment looks at the room again."""

Kind = Literal["backup", "restore", "listing"]


class Work:
    """One attempt. ``scope`` is that of the data channel, once it is attached."""

    __slots__ = (
        "archive",
        "client_id",
        "durable_blocks",
        "ended",
        "finishing",
        "id",
        "kind",
        "readable",
        "scope",
        "task_id",
        "token_digest",
    )

    def __init__(
        self,
        *,
        id: str,
        kind: Kind,
        task_id: int,
        client_id: int,
        archive: str,
        readable: Mapping[str, Backup],
        token_digest: bytes,
    ) -> None:
        self.id = id
        self.kind: Kind = kind
        self.task_id = task_id
        """0 for listings, which belong to no task."""
        self.client_id = client_id
        self.archive = archive
        """For a backup the one that is written, else the one that is read."""
        self.readable = readable
        """Archives the client may read over this channel -> the backups, as they were when the work began: a Move does not pull a place away from
        under its readers."""
        self.token_digest = token_digest
        self.scope: trio.CancelScope | None = None
        self.ended = trio.Event()
        self.durable_blocks = 0
        """Block numbers below it are on stable storage: what makes an attempt one that got on."""
        self.finishing = False

    def __repr__(self) -> str:
        state = "ended" if self.ended.is_set() else "attached" if self.scope else "ordered"
        return f"<Work {self.kind} of task {self.task_id} at client {self.client_id}: {state}>"


class WorkStatistics(msgspec.Struct, frozen=True, kw_only=True):
    ordered: int
    attached: int
    begun: int
    ended: int
    tokens_refused: int


def digest_of(token: bytes) -> bytes:
    """Tokens are kept and looked up as digests, so that looking one up takes the same time whatever it is."""
    return blake3(token, derive_key_context="rbmedia transfer token v1").digest()


class Works:
    """The table of works under way."""

    def __init__(self, journal: Journal, world: World) -> None:
        self._journal = journal
        self._world = world
        self._by_id: dict[str, Work] = {}
        self._by_task: dict[int, Work] = {}
        self._by_token: dict[bytes, Work] = {}
        self._begun = self._ended = self._tokens_refused = 0
        self.on_end: Callable[[int], None] = lambda _task_id: None
        """Called with the task of a work that ended: the dispatcher looks again."""

    def statistics(self) -> WorkStatistics:
        attached = sum(1 for work in self._by_id.values() if work.scope is not None)
        return WorkStatistics(
            ordered=len(self._by_id) - attached,
            attached=attached,
            begun=self._begun,
            ended=self._ended,
            tokens_refused=self._tokens_refused,
        )

    def of_task(self, task_id: int) -> Work | None:
        return self._by_task.get(task_id)

    def task_ids(self) -> frozenset[int]:
        return frozenset(self._by_task)

    def of_client(self, client_id: int) -> list[Work]:
        return [work for work in self._by_id.values() if work.client_id == client_id]

    def begin(
        self, kind: Kind, *, task_id: int, client_id: int, archive: str, readable: Mapping[str, Backup]
    ) -> tuple[Work, bytes]:
        """A new work and its transfer token. Raises ``Unavailable`` at the bound."""
        assert task_id not in self._by_task, f"task {task_id} has a work under way"
        if len(self._by_id) >= WORKS_MAX:
            raise Unavailable(f"{WORKS_MAX} works are under way, which is the bound.")
        token = self._world.randomness.token_bytes(32)
        work = Work(
            id=self._world.randomness.token_bytes(12).hex(),
            kind=kind,
            task_id=task_id,
            client_id=client_id,
            archive=archive,
            readable=readable,
            token_digest=digest_of(token),
        )
        self._by_id[work.id] = work
        if task_id:
            self._by_task[task_id] = work
        self._by_token[work.token_digest] = work
        self._begun += 1
        return work, token

    def claim(self, token: bytes) -> Work | None:
        """The work whose token this is; a token is good for one attachment."""
        work = self._by_token.pop(digest_of(token), None)
        if work is None:
            self._tokens_refused += 1
        return work

    def end(self, work: Work) -> bool:
        """Take it off the table and cut its data channel; False when it had ended."""
        if self._by_id.pop(work.id, None) is None:
            return False
        self._by_task.pop(work.task_id, None)
        self._by_token.pop(work.token_digest, None)
        self._ended += 1
        work.ended.set()
        if work.scope is not None:
            work.scope.cancel()
        self.on_end(work.task_id)
        return True

    # --- what agents report -----------------------------------------------------------------------------------------

    async def stage(self, client_id: int, report: WorkStage) -> None:
        work = self._of(client_id, report.task_id)
        if report.stage not in RUNNING_STATUSES:
            raise NotFound(f"{report.stage!r} is no stage of a task.")
        await self._advance(work, report.stage)

    async def notes(self, client_id: int, report: WorkNotes, report_id: str) -> None:
        work = self._of(client_id, report.task_id)
        severity = report.severity if report.severity in ("info", "warning", "error") else "info"
        await self.note(work.task_id, "client", severity, report.lines, f"{work.id}/note/{report_id}", client_id)

    async def note(
        self, task_id: int, side: str, severity: str, lines: list[str], command_id: str, client_id: int = 0
    ) -> None:
        """Lines for the task's journal, cut to their bounds; the cut is said in the last line."""
        kept = [line[:NOTE_LINE_CHARACTERS_MAX] for line in lines[:NOTE_LINES_MAX]]
        if len(lines) > NOTE_LINES_MAX:
            kept.append(f"... and {len(lines) - NOTE_LINES_MAX} more lines.")
        await self._journal.execute(
            Order(
                command=NoteTask(task_id=task_id, side=side, severity=severity, lines=kept),
                command_id=command_id,
                actor=self._actor(client_id),
            )
        )

    async def ended(self, client_id: int, report: WorkEnded) -> None:
        """A restore is done, or any work failed."""
        work = self._of(client_id, report.task_id)
        if report.outcome == "done" and work.kind == "backup":
            return  # told by Commit on the data channel, which alone can say that it is durable
        if report.outcome == "interrupted":
            await self.interrupted(work, report.reason or "the client could not go on")
            return
        status, severity = _ENDS.get(report.outcome, (TaskStatus.ERROR, "error"))
        reason = report.reason
        if report.outcome == "done":
            reason = reason or f"{report.files} files, {report.bytes} bytes restored"
            severity = "warning" if report.problems else "info"
        await self.finish(work, status, reason, severity)

    async def finish(
        self, work: Work, status: str, reason: str, severity: str = "info", *, retry_at_ns: int = 0
    ) -> None:
        """The work ends and its task gets ``status``. Only the first end counts.

        It ends even when that cannot be recorded now (log volume full): the dispatcher then finds a task that says it runs and on
        which nobody works, and recovers it.
        """
        if work.finishing or self._by_id.get(work.id) is not work:
            return
        work.finishing = True
        try:
            if work.task_id:
                await self._advance(work, status, reason, severity, retry_at_ns)
        except Unavailable as error:
            _log.warning("task %d could not become %s: %s", work.task_id, status, error.message)
        finally:
            self.end(work)

    async def interrupted(self, work: Work, reason: str, *, retry_seconds: float | None = None) -> None:
        """The task is suspended and tried again: at once the first time, later each time without progress."""
        if self._by_id.get(work.id) is not work:
            return
        task = self._journal.state.find(Task, work.task_id)
        if task is not None and task.status == TaskStatus.KILL:
            await self.finish(work, TaskStatus.KILLED, reason)
            return
        if retry_seconds is None:
            retry_seconds = retry_delay_seconds(task.attempts if task is not None else 0)
        now_ns = self._world.clock.now_ns()
        await self.finish(
            work, TaskStatus.SUSPENDED, reason, "warning", retry_at_ns=now_ns + int(retry_seconds * 1e9) + 1
        )

    async def client_gone(self, client_id: int, reason: str) -> None:
        for work in self.of_client(client_id):
            await self.interrupted(work, reason)

    def _of(self, client_id: int, task_id: int) -> Work:
        work = self._by_task.get(task_id)
        if work is None or work.client_id != client_id:
            raise NotFound(f"Task {task_id} is not being worked on by this client.")
        return work

    async def _advance(
        self, work: Work, status: str, reason: str = "", severity: str = "", retry_at_ns: int = 0
    ) -> None:
        command = AdvanceTask(
            task_id=work.task_id,
            status=status,
            reason=reason,
            retry_at_ns=retry_at_ns,
            durable_blocks=work.durable_blocks,
            note_severity=severity if reason else "",
            notes=[reason] if reason else [],
        )
        try:
            await self._journal.execute(
                Order(command=command, command_id=f"{work.id}/{status}", actor=self._actor(work.client_id))
            )
        except (NotAllowedNow, NotFound) as error:
            # The task moved on by itself: paused, killed or removed by an operator, or it has ended.
            _log.info("task %d does not become %s: %s", work.task_id, status, error.message)

    def _actor(self, client_id: int) -> str:
        client = self._journal.state.tables["client"].get(client_id)
        return f"client:{client.hwid}" if client is not None else "actor:dispatcher"


_ENDS: dict[str, tuple[str, str]] = {
    "done": (TaskStatus.DONE, "info"),
    "error": (TaskStatus.ERROR, "error"),
    "killed": (TaskStatus.KILLED, "info"),
}
