"""Starting a task on its client: what the order says, and what becomes of the task when the client does not take it."""

from __future__ import annotations

import logging

from actors.client_session import ClientSessions
from actors.port import Journal
from actors.works import Work, Works
from rbcore.chain import chain_of
from rbcore.commands import AdvanceTask, Order
from rbcore.entities import Backup, Pool, Task
from rbcore.errors import NotAllowedNow, NotFound, RbError, Unavailable
from rbcore.messages import Archive, StartBackup, StartRestore
from rbcore.state import State
from rbcore.vocabulary import BACKUP_TASKS, TaskStatus

_log = logging.getLogger(__name__)

ORDER_SECONDS_MAX = 30.0


class Starter:
    """Sends StartBackup and StartRestore."""

    def __init__(self, journal: Journal, works: Works, sessions: ClientSessions) -> None:
        self._journal = journal
        self._works = works
        self._sessions = sessions

    async def start(self, task_id: int) -> None:
        """Order the work of an Assigned task. The task then is At_Client, or Suspended or Error with the reason."""
        await self._journal.settled()
        task = self._journal.state.find(Task, task_id)
        if task is None or task.status != TaskStatus.ASSIGNED or self._works.of_task(task_id) is not None:
            return
        try:
            work, order = self._order(task)
        except NotFound as error:
            await self._advance(task_id, f"{task_id}/{task.archive}/gone", TaskStatus.ERROR, error.message)
            return
        try:
            await self._sessions.request(task.client_id, order, ORDER_SECONDS_MAX, work.id)
        except Unavailable as error:
            await self._works.interrupted(work, f"The client did not take the task: {error.message}")
            return
        except RbError as error:
            await self._works.finish(work, TaskStatus.ERROR, f"The client refused the task: {error.message}", "error")
            return
        await self._advance(task_id, f"{work.id}/{TaskStatus.AT_CLIENT}", TaskStatus.AT_CLIENT)

    async def _advance(self, task_id: int, command_id: str, status: str, reason: str = "") -> None:
        command = AdvanceTask(task_id=task_id, status=status, reason=reason)
        try:
            await self._journal.execute(Order(command=command, command_id=command_id, actor="actor:dispatcher"))
        except (NotAllowedNow, NotFound) as error:
            _log.info("task %d does not become %s: %s", task_id, status, error.message)

    def _order(self, task: Task) -> tuple[Work, StartBackup | StartRestore]:
        state = self._journal.state
        if task.task_type in BACKUP_TASKS:
            return self._backup(state, task)
        return self._restore(state, task)

    def _backup(self, state: State, task: Task) -> tuple[Work, StartBackup]:
        parent = state.find(Backup, task.parent_backup_id) if task.parent_backup_id else None
        pool = state.find(Pool, task.pool_id)
        assert pool is not None, "a pool with tasks is not deleted"
        work, token = self._works.begin(
            "backup",
            task_id=task.id,
            client_id=task.client_id,
            archive=task.archive,
            readable=readable_with(state, parent) if parent is not None else {},
        )
        return work, StartBackup(
            task_id=task.id,
            transfer_token=token,
            archive=task.archive,
            resource_type=task.resource_type,
            resource=task.resource,
            compression=pool.compression_type,
            crypto=task.crypto,
            parent=_described(parent) if parent is not None else None,
            parameters=_extensions_of(task),
        )

    def _restore(self, state: State, task: Task) -> tuple[Work, StartRestore]:
        backup = state.find(Backup, task.backup_id)
        if backup is None:
            raise NotFound(f"Backup {task.backup_id} is not in the repository any more.")
        wanted = task.parameters.get("restore_task", {})
        readable = readable_with(state, backup)
        work, token = self._works.begin(
            "restore",
            task_id=task.id,
            client_id=task.client_id,
            archive=backup.archive,
            readable=readable,
        )
        return work, StartRestore(
            task_id=task.id,
            transfer_token=token,
            archive=_described(backup),
            # A deployment without a destination goes back to where it came from.
            destination_path=wanted.get("destination_path") or backup.resource,
            only=list(wanted.get("granular_restore_files", [])),
            parameters=_extensions_of(task),
            medium_order=any(one.parts for one in readable.values()),
        )


def readable_with(state: State, backup: Backup) -> dict[str, Backup]:
    """Archive -> backup, for a backup and everything it builds on."""
    return {one.archive: one for one in chain_of(state, backup)}


def _described(backup: Backup) -> Archive:
    return Archive(archive=backup.archive, root=backup.root, crypto=backup.crypto, key_id=backup.key_id)


def _extensions_of(task: Task) -> dict[str, object]:
    """Module parameters as the agent takes them: by name. What belongs to the module wins over what is common to all."""
    flat: dict[str, object] = {}
    for extension in ("common_modules_extensions", "module_extensions"):
        flat |= task.parameters.get(extension, {}).get("parameters", {})
    return flat
