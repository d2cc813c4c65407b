"""Following a task to its end through the public API: the newest row of the queue, again and again, never faster than it helps."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from rbcore.vocabulary import TaskStatus
from rbmedia.client import RestClient

POLL_SECONDS_MIN = 0.05
POLL_SECONDS_MAX = 1.0

ENDED = frozenset({TaskStatus.DONE, TaskStatus.ERROR, TaskStatus.BROKEN, TaskStatus.KILLED})


class StillRunning(Exception):
    """The time allowed for waiting is over; the task goes on."""

    def __init__(self, row: dict[str, Any]) -> None:
        super().__init__(f"Task {row['id']} is {row['status']}.")
        self.row = row


def follow_task(client: RestClient, task_id: int, timeout_seconds: float | None = None) -> Iterator[dict[str, Any]]:
    """What is told of the task's progress, again and again; the last one is the whole row of the ended task.

    Raises :class:`StillRunning` after ``timeout_seconds``, and what :meth:`RestClient.call` raises.
    """
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    pause = POLL_SECONDS_MIN
    while True:
        told: dict[str, Any] = client.get(f"/task_queue/{task_id}/progress")
        if told["status"] in ENDED:
            yield client.get(f"/task_queue/{task_id}")
            return
        yield told
        if deadline is not None and time.monotonic() >= deadline:
            raise StillRunning(client.get(f"/task_queue/{task_id}"))
        time.sleep(pause)
        pause = min(POLL_SECONDS_MAX, pause * 1.3)


def ends_of_tape_tasks(
    client: RestClient, ids: Sequence[int], timeout_seconds: float | None = None
) -> list[dict[str, Any]]:
    """The rows of these tasks of ``tl_task_queue`` when all of them have ended.

    Raises :class:`StillRunning` with the first that has not after ``timeout_seconds``.
    """
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    pause = POLL_SECONDS_MIN
    ended: list[dict[str, Any]] = []
    while len(ended) < len(ids):
        row: dict[str, Any] = client.get(f"/tl_task_queue/{ids[len(ended)]}")
        if row["status"] in ENDED:
            ended.append(row)
            continue
        if deadline is not None and time.monotonic() >= deadline:
            raise StillRunning(row)
        time.sleep(pause)
        pause = min(POLL_SECONDS_MAX, pause * 1.3)
    return ended


def end_of_task(client: RestClient, task_id: int, timeout_seconds: float | None = None) -> dict[str, Any]:
    """The row of the task when it has ended."""
    *_, last = follow_task(client, task_id, timeout_seconds)
    return last
