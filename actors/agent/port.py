"""What the session program needs from the agent's data work, and hands to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import trio

from rbcore.file_tree import Trees
from rbcore.messages import StartBackup, StartRestore

Outcome: TypeAlias = Literal["done", "error", "killed", "interrupted"]


@dataclass(frozen=True, slots=True)
class AgentKeys:
    """The two secrets of a client, which never leave it."""

    signing_seed: bytes = field(repr=False)
    """Ed25519, 32 bytes."""
    master_key: bytes = field(repr=False)
    """256 bit."""


@dataclass(frozen=True, slots=True)
class ScriptSettings:
    """What the host's own settings allow the server to have run (``actors.agent.scripts``)."""

    allowed: bool = True
    timeout_seconds: float = 600.0
    output_bytes_max: int = 64 * 1024


@dataclass(frozen=True, slots=True)
class BackupWork:
    """One attempt of one backup task."""

    order: StartBackup
    keys: AgentKeys
    hostname: str
    trees: Trees
    scripts: ScriptSettings = field(default_factory=ScriptSettings)
    workers: int = 2
    """Units read, compressed and encrypted at the same time; the task's ``worker_parallelism`` may lower it."""


@dataclass(frozen=True, slots=True)
class RestoreWork:
    order: StartRestore
    keys: AgentKeys
    trees: Trees
    workers: int = 2


@dataclass(frozen=True, slots=True)
class WorkOutcome:
    """How a backup or restore ended, in the terms of ``rbcore.messages.WorkEnded``."""

    outcome: Outcome
    reason: str = ""
    files: int = 0
    bytes: int = 0
    problems: int = 0
    backup_id: int = 0


BackupOutcome = WorkOutcome
RestoreOutcome = WorkOutcome


async def _ignore_stage(_stage: str) -> None: ...


async def _ignore_notes(_severity: str, _lines: list[str]) -> None: ...


async def _ignore_progress(_bytes_done: int, _bytes_total: int, _files_done: int) -> None: ...


class WorkControl:
    """The handle by which the session program steers a running work and hears from it.

    ``pause``, ``resume`` and ``kill`` are called from other tasks; the work waits at ``turn`` between units. ``kill`` cancels
    whatever the work waits for: it then ends with outcome ``killed``.
    """

    def __init__(
        self,
        *,
        stage: Callable[[str], Awaitable[None]] = _ignore_stage,
        notes: Callable[[str, list[str]], Awaitable[None]] = _ignore_notes,
        progress: Callable[[int, int, int], Awaitable[None]] = _ignore_progress,
    ) -> None:
        """``stage(stage)``, ``notes(severity, lines)``, ``progress(bytes_done, bytes_total, files_done)``."""
        self.stage = stage
        self.notes = notes
        self.progress = progress
        self.scope = trio.CancelScope()
        self.killed = False
        self._running = trio.Event()
        self._running.set()

    def __repr__(self) -> str:
        state = "killed" if self.killed else "running" if self._running.is_set() else "paused"
        return f"<WorkControl {state}>"

    def pause(self) -> None:
        if self._running.is_set():
            self._running = trio.Event()

    def resume(self) -> None:
        self._running.set()

    def kill(self) -> None:
        self.killed = True
        self.scope.cancel()

    async def turn(self) -> None:
        """Returns at once while the work runs; waits while it is paused."""
        if not self._running.is_set():
            await self._running.wait()
