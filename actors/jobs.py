"""Jobs: what this process does for a task by itself, in pieces (verifications, copies), so that an operator can pause and stop it.

Whatever a piece waits for, a device or a cartridge, a stop ends the wait at once; a pause takes effect between two pieces.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from rbcore.errors import NotAllowedNow


class Job:
    """One attempt of one task. Only what is done within ``Jobs.run`` can be stopped."""

    def __init__(self, task_id: int) -> None:
        self.task_id = task_id
        self.durable_blocks = 0
        """Block numbers below it are on stable storage where a copy goes: what makes an attempt one that got on."""
        self.stopped = False
        self.scope = trio.CancelScope()
        self._running = trio.Event()
        self._running.set()

    @property
    def paused(self) -> bool:
        return not self._running.is_set()

    async def next_piece(self) -> None:
        """Wait while it is paused. Raises ``NotAllowedNow`` when it was stopped."""
        await self._running.wait()
        if self.stopped:
            raise stopped(self.task_id)

    def steer(self, verb: str) -> None:
        """``pause``, ``continue`` or ``stop``."""
        if verb == "pause":
            if not self.paused:
                self._running = trio.Event()
            return
        self.stopped = self.stopped or verb == "stop"
        self._running.set()
        if self.stopped:
            self.scope.cancel()


class Jobs:
    """Those under way, by task."""

    def __init__(self) -> None:
        self._by_task: dict[int, Job] = {}

    @property
    def paused(self) -> int:
        """How many of them are paused."""
        return sum(1 for job in self._by_task.values() if job.paused)

    def steer(self, task_id: int, verb: str) -> bool:
        """False: there is no such job."""
        job = self._by_task.get(task_id)
        if job is None:
            return False
        job.steer(verb)
        return True

    @contextmanager
    def run(self, task_id: int) -> Iterator[Job]:
        """Raises ``NotAllowedNow`` while the task has a job, and when the job was stopped."""
        if task_id in self._by_task:
            raise NotAllowedNow(f"Task {task_id} is being worked on already.")
        job = self._by_task[task_id] = Job(task_id)
        try:
            with job.scope:
                yield job
        finally:
            del self._by_task[task_id]
        if job.scope.cancelled_caught:
            raise stopped(task_id)


def stopped(task_id: int) -> NotAllowedNow:
    return NotAllowedNow(f"The work of task {task_id} was stopped.")
