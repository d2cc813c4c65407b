"""Waiting for tasks: the progress bar of one (bytes, rate, remaining time, the status in words), and how those of the tape queue ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from rbcore.vocabulary import TaskStatus
from rbmedia.cli.shell import Shell, cell
from rbmedia.client import RestClient
from rbmedia.exits import Exit
from rbmedia.waiting import StillRunning, ends_of_tape_tasks, follow_task


def wait_for_task(shell: Shell, client: RestClient, task_id: int, timeout_seconds: float | None) -> Exit:
    """Show progress on stderr until the task ends, then its row. The code says how it ended."""
    row: dict[str, Any] = {}
    code = Exit.OK
    try:
        with _progress() as bar:
            shown = bar.add_task(f"task {task_id}", total=None, status="")
            for row in follow_task(client, task_id, timeout_seconds):
                total, done = row.get("bytes_total") or 0, row.get("bytes_done") or 0
                bar.update(
                    shown, total=total or None, completed=min(done, total) if total else done, status=_words(row)
                )
    except StillRunning as still:
        row, code = still.row, Exit.STILL_RUNNING
    else:
        code = Exit.OK if row["status"] == TaskStatus.DONE else Exit.FAILED
    shell.show(row, lambda: click.echo(f"Task {task_id}: {_words(row)}"))
    return code


def wait_for_tape_tasks(shell: Shell, client: RestClient, ids: Sequence[int], timeout_seconds: float | None) -> Exit:
    """Return when all tasks of the tape queue have ended; their rows. The code says whether all are Done."""
    try:
        rows, code = ends_of_tape_tasks(client, ids, timeout_seconds), Exit.OK
    except StillRunning:
        rows, code = [client.get(f"/tl_task_queue/{one}") for one in ids], Exit.STILL_RUNNING
    if code is Exit.OK and any(row["status"] != TaskStatus.DONE for row in rows):
        code = Exit.FAILED

    def text() -> None:
        for row in rows:
            click.echo(f"{row['task_type']} {cell(row['volume_tag'])}: {_words(row)}")

    shell.show(rows, text)
    return code


def _words(row: dict[str, Any]) -> str:
    reason = row.get("status_reason")
    return f"{row['status']} ({cell(reason)})" if reason else str(row["status"])


def _progress() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}", markup=False),
        console=Console(stderr=True),
        transient=True,
    )
