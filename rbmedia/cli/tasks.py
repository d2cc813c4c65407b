"""``rbmedia tasks``: the queue, a task's journals, why it stands where it stands, and the operator's verbs."""

from __future__ import annotations

import json
from typing import Any

import click

from rbmedia.cli.shell import Shell, cell, online, print_story, printable
from rbmedia.cli.waiting import wait_for_task
from rbmedia.exits import Exit

COLUMNS = (
    "id",
    "task_type",
    "status",
    "status_reason",
    "client",
    "resource",
    "backup_type",
    "pool",
    "created",
    "progress",
)


@click.group()
def tasks() -> None:
    """Look at tasks and steer them."""


@tasks.command("list")
@online
@click.option("--status", default="", help="Only tasks of this status.")
@click.option("--filter", "filter_data", default="", help="""As in the API: status="Error",client~"web".""")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Newest first.")
@click.option("--at", default=None, help="As it was at a log position or an ISO 8601 time.")
def list_tasks(shell: Shell, status: str, filter_data: str, limit: int, at: str | None) -> None:
    """The task queue, newest first."""
    conditions = [filter_data] if filter_data else []
    if status:
        conditions.append(f"status={json.dumps(status)}")
    query: dict[str, Any] = {"sort_by": "id", "sort_order": "desc", "limit": limit}
    if conditions:
        query["filter_data"] = ",".join(conditions)
    if at:
        query["at"] = at
    with shell.client() as client:
        shell.show_rows(client.get("/task_queue", **query)["items"], COLUMNS, "Tasks")


@tasks.command("show")
@online
@click.argument("task_id", type=click.IntRange(1))
def show_task(shell: Shell, task_id: int) -> None:
    """One task with its journals."""
    with shell.client() as client:
        row = client.get(f"/task_queue/{task_id}")
        journals = {
            side: client.get(f"/{side}_task_info", id=task_id, limit=1000)["items"] for side in ("server", "client")
        }

    def text() -> None:
        for name, value in row.items():
            click.echo(f"{name.replace('_', ' '):<22}  {cell(value)}")
        for side, lines in journals.items():
            if lines:
                click.echo(f"\n{side} journal:")
            for line in lines:
                click.echo("  " + "  ".join(printable(str(part)) for name, part in line.items() if name not in _QUIET))

    shell.show({"task": row, "journals": journals}, text)


_QUIET = frozenset({"id", "task", "task_id", "side", "position"})


@tasks.command("why")
@online
@click.argument("task_id", type=click.IntRange(1))
def why(shell: Shell, task_id: int) -> None:
    """Which event caused what, and which options were rejected."""
    with shell.client() as client:
        rows = list(client.rows(f"/task_queue/{task_id}/why"))
    shell.show(rows, lambda: print_story(rows))


def _verb(name: str, path: str, past: str, says: str) -> None:
    @tasks.command(name, help=says)
    @online
    @click.argument("task_ids", type=click.IntRange(1), nargs=-1, required=True)
    def act(shell: Shell, task_ids: tuple[int, ...]) -> None:
        with shell.client() as client:
            for task_id in task_ids:
                client.post(path, {"task_id": task_id})
                shell.say(f"Task {task_id} {past}.")
        if shell.as_json:
            shell.show({"tasks": list(task_ids)}, "")


_verb("pause", "/put_task_on_pause", "is paused", "Hold tasks where they are.")
_verb("continue", "/continue_task_working", "goes on", "Let paused or suspended tasks go on.")
_verb("kill", "/kill_task", "is being stopped", "Stop tasks for good.")


@tasks.command("restart")
@online
@click.argument("task_ids", type=click.IntRange(1), nargs=-1, required=True)
def restart(shell: Shell, task_ids: tuple[int, ...]) -> None:
    """Queue ended tasks again."""
    with shell.client() as client:
        answer = client.post("/restart_task", {"tasks_ids": list(task_ids)})
        shell.show({"message": answer.message, **(answer.data or {})}, answer.message)


@tasks.command("wait")
@online
@click.argument("task_id", type=click.IntRange(1))
@click.option(
    "--timeout", "timeout_seconds", type=click.FloatRange(0), default=None, help="Seconds; exit code 5 after it."
)
def wait(shell: Shell, task_id: int, timeout_seconds: float | None) -> Exit:
    """Show a task's progress until it ends."""
    with shell.client() as client:
        return wait_for_task(shell, client, task_id, timeout_seconds)


@tasks.command("remove")
@online
@click.argument("task_ids", type=click.IntRange(1), nargs=-1, required=True)
def remove(shell: Shell, task_ids: tuple[int, ...]) -> None:
    """Take ended tasks out of the queue."""
    with shell.client() as client:
        answer = client.call("DELETE", "/task_queue", body={"ids": list(task_ids)})
        shell.show({"tasks": list(task_ids), "message": answer.message}, answer.message or "Removed.")
