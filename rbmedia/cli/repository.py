"""``rbmedia repository``: the backups there are, what is in them, whether they are good, and their end."""

from __future__ import annotations

import json
from typing import Any

import click

from rbmedia.cli.shell import Shell, byte_text, online, print_table, printable
from rbmedia.cli.waiting import wait_for_task
from rbmedia.cli.work import task_id_of
from rbmedia.exits import Exit

COLUMNS = (
    "id",
    "ref_id",
    "client",
    "resource",
    "backup_type",
    "created",
    "data",
    "stored",
    "files",
    "crypto",
    "pool",
    "verification_status",
    "store_until",
)


@click.group()
def repository() -> None:
    """Backups."""


@repository.command("list")
@online
@click.option("--filter", "filter_data", default="", help="""As in the API: resource="/home",backup_type="full".""")
@click.option("--at", default=None, help="As it was at a log position or an ISO 8601 time.")
def list_backups(shell: Shell, filter_data: str, at: str | None) -> None:
    """All backups, oldest first."""
    query = {name: value for name, value in (("filter_data", filter_data), ("at", at)) if value}
    with shell.client() as client:
        rows = list(client.rows("/repository", **query))
    shell.show(rows, lambda: print_table([_with_sizes(row) for row in rows], COLUMNS, "Backups"))


def _with_sizes(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "data": byte_text(row.get("data_size") or 0), "stored": byte_text(row.get("archive_size") or 0)}


@repository.command("show")
@online
@click.argument("backup_id", type=click.IntRange(1))
def show_backup(shell: Shell, backup_id: int) -> None:
    """One backup."""
    with shell.client() as client:
        shell.show_record(client.get(f"/repository/{backup_id}"))


@repository.command("files")
@online
@click.argument("backup_id", type=click.IntRange(1))
@click.option("--below", default="", help="Only this path of the backup and what is below it.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=1000, show_default=True)
def files(shell: Shell, backup_id: int, below: str, limit: int) -> None:
    """Names in a backup."""
    query: dict[str, Any] = {"id": backup_id, "limit": limit}
    if below:
        query["path"] = below
    with shell.client() as client:
        answer = client.get("/repository_record_file_list", **query)
    items = answer["items"]

    def text() -> None:
        for row in items:
            click.echo(f"{row['type']:<10} {row['size']:>14}  {printable(row['path'])}")
        if not answer["complete"]:
            click.echo(f"There are more names: these are the first {limit}.", err=True)

    shell.show(items, text)


@repository.command("verify")
@online
@click.argument("backup_id", type=click.IntRange(1))
@click.option(
    "--timeout", "timeout_seconds", type=click.FloatRange(0), default=None, help="Seconds; exit code 5 after it."
)
def verify(shell: Shell, backup_id: int, timeout_seconds: float | None) -> Exit:
    """Read every stored byte of a backup and check it. Exit code 4 when it is damaged."""
    with shell.client() as client:
        answer = client.call("POST", f"/repository/{backup_id}/verification")
        quiet = Shell(as_json=False) if not shell.as_json else shell
        ended = wait_for_task(quiet, client, task_id_of(answer), timeout_seconds)
        row = client.get(f"/repository/{backup_id}")
    status = row["verification_status"]
    findings = row.get("findings") or []

    def text() -> None:
        click.echo(f"Backup {backup_id}: {status}")
        for line in findings:
            click.echo(f"  {printable(str(line))}")

    if not shell.as_json:
        text()
    if ended is not Exit.OK and status != "Broken":
        return ended
    return Exit.DAMAGE if status == "Broken" else Exit.OK


@repository.command("keep")
@online
@click.argument("backup_id", type=click.IntRange(1))
@click.argument("until")
def keep(shell: Shell, backup_id: int, until: str) -> None:
    """Keep a backup UNTIL an ISO 8601 time."""
    with shell.client() as client:
        answer = client.call("PATCH", f"/repository/{backup_id}", body={"data": {"store_until": until}})
        shell.show(
            {"id": backup_id, "store_until": until}, answer.message or f"Backup {backup_id} is kept until {until}."
        )


@repository.command("delete")
@online
@click.argument("backup_ids", type=click.IntRange(1), nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(shell: Shell, backup_ids: tuple[int, ...], yes: bool) -> None:
    """Delete backups with everything that depends on them. Says first what that is."""
    with shell.client() as client:
        chain = client.call("POST", "/repository/deletion_reference_chain", body={"ids": list(backup_ids)}).data
        if not yes:
            click.echo(f"This deletes: {json.dumps(chain, ensure_ascii=False)}", err=True)
            click.confirm("Go on?", abort=True, err=True)
        answer = client.call("DELETE", "/repository", body={"ids": list(backup_ids)})
        shell.show({"chain": chain, "message": answer.message}, answer.message or "Deleted.")
