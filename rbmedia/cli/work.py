"""``rbmedia backup`` and ``restore``: one task each, with its progress when waited for."""

from __future__ import annotations

import os
import socket
from typing import Any

import click

from rbmedia.cli.shell import Shell, online
from rbmedia.cli.waiting import wait_for_task
from rbmedia.client import RestClient
from rbmedia.exits import CommandFailed, Exit

_WAIT = click.option(
    "--wait/--no-wait", default=True, show_default=True, help="Show progress until the task has ended."
)
_TIMEOUT = click.option(
    "--timeout",
    "timeout_seconds",
    type=click.FloatRange(0),
    default=None,
    help="Wait no longer (seconds); exit code 5 then.",
)


@click.command()
@online
@click.argument("path")
@click.option(
    "--client", "client_name", default="", help="Protected host: name, hwid or `name (hwid)`. Default: this one."
)
@click.option("--pool", default="Default", show_default=True)
@click.option(
    "--type",
    "backup_type",
    type=click.Choice(["full", "incremental", "differential"]),
    default="full",
    show_default=True,
)
@click.option("--crypto", default="nocrypt", show_default=True, help="Algorithm, as GET crypto lists them.")
@click.option("--keep", "storage_duration", default="1 year", show_default=True, help="How long the backup is kept.")
@click.option("--priority", type=click.IntRange(0), default=100, show_default=True)
@_WAIT
@_TIMEOUT
def backup(
    shell: Shell,
    path: str,
    client_name: str,
    pool: str,
    backup_type: str,
    crypto: str,
    storage_duration: str,
    priority: int,
    wait: bool,
    timeout_seconds: float | None,
) -> Exit:
    """Back up PATH of a protected host."""
    with shell.client() as client:
        answer = client.post(
            "/task_queue",
            {
                "task": {
                    "resource_type": "File system",
                    "resource": os.path.abspath(path) if not client_name else path,
                    "client": find_client(client, client_name)["client"],
                    "backup_type": backup_type,
                    "pool": pool,
                    "crypto": crypto,
                    "priority": priority,
                    "storage_duration": storage_duration,
                    "archiving": False,
                }
            },
        )
        return _queued(shell, client, answer, wait, timeout_seconds)


@click.command()
@online
@click.argument("backup_id", type=click.IntRange(1))
@click.option("--to", "destination", required=True, help="Directory on the client; its files are written below.")
@click.option("--only", multiple=True, help="A path within the backup, with everything below it; may be repeated.")
@click.option("--client", "client_name", default="", help="Client that restores. Default: the one that was backed up.")
@_WAIT
@_TIMEOUT
def restore(
    shell: Shell,
    backup_id: int,
    destination: str,
    only: tuple[str, ...],
    client_name: str,
    wait: bool,
    timeout_seconds: float | None,
) -> Exit:
    """Restore a backup: whole, with everything its chain holds, or only some paths of it."""
    with shell.client() as client:
        target = (
            find_client(client, client_name)["client"]
            if client_name
            else client.get(f"/repository/{backup_id}")["client"]
        )
        answer = client.post(
            f"/repository/{backup_id}/restoring",
            {
                "restore_task": {
                    "target_client": target,
                    "destination_path": destination if client_name else os.path.abspath(destination),
                    "data_deployment": False,
                    "granular_restore_files": list(only),
                }
            },
        )
        return _queued(shell, client, answer, wait, timeout_seconds)


def task_id_of(answer: Any) -> int:
    """Id of the task an answer tells of; ours carry it in ``data``, the documented place is the end of the message."""
    data = answer.data if isinstance(answer.data, dict) else {}
    for name in ("task_id", "id"):
        if isinstance(data.get(name), int):
            return int(data[name])
    ids = data.get("ids") or data.get("tasks_ids") or []
    if ids:
        return int(ids[0])
    _, colon, number = answer.message.rpartition("QUEUE:")
    if colon and number.strip().isdigit():
        return int(number)
    raise CommandFailed(f"The answer does not name the task: {answer.message}")


def find_client(client: RestClient, name: str) -> dict[str, Any]:
    """The authorised client of that name, hwid or display name, with its display name as ``client``.

    Without a name: the only one, or the one that is called like this host.
    """
    rows = [{**row, "client": f"{row['hostname']} ({row['hwid']})"} for row in client.rows("/clients")]
    if name:
        found = [row for row in rows if name in (row["hostname"], row["hwid"], row["client"])]
    else:
        found = rows if len(rows) == 1 else [row for row in rows if row["hostname"] == socket.gethostname()]
    if len(found) == 1:
        return found[0]
    known = ", ".join(row["client"] for row in rows) or "none is authorised yet (rbmedia clients authorise)"
    what = f"client {name}" if name else "client for this host"
    raise CommandFailed(f"There is {'no' if not found else 'more than one'} {what}. Clients: {known}.", Exit.USAGE)


def _queued(shell: Shell, client: RestClient, answer: Any, wait: bool, timeout_seconds: float | None) -> Exit:
    task_id = task_id_of(answer)
    if wait:
        return wait_for_task(shell, client, task_id, timeout_seconds)
    shell.show({"task_id": task_id, "message": answer.message}, f"Task {task_id} is queued.")
    return Exit.OK
