"""``rbmedia rules``: rules of the global schedule, run by hand, and what clients ask for."""

from __future__ import annotations

from typing import Any

import click

from rbmedia.cli.shell import Shell, online
from rbmedia.cli.waiting import wait_for_task
from rbmedia.client import RestClient
from rbmedia.exits import Exit

COLUMNS = (
    "id",
    "name",
    "status",
    "client_id",
    "resource",
    "backup_type",
    "pool_id",
    "periodic_launch",
    "min",
    "hour",
    "dom",
    "mon",
    "dow",
    "validity_end_period",
)
REQUEST_COLUMNS = ("wish", "id", "client", "rule_id", "name", "resource", "backup_type", "periodic_launch", "comment")
_PATHS = {"new": "/new_rule_requests", "deletion": "/delete_rule_requests"}
_WISH = click.argument("wish", type=click.Choice(sorted(_PATHS)))


@click.group()
def rules() -> None:
    """Rules of the global schedule."""


@rules.command("list")
@online
@click.option("--filter", "filter_data", default="", help="""As in the API: status="run",client_id~"web".""")
def list_rules(shell: Shell, filter_data: str) -> None:
    """All rules."""
    query: dict[str, Any] = {"filter_data": filter_data} if filter_data else {}
    with shell.client() as client:
        shell.show_rows(list(client.rows("/global_schedule", **query)), COLUMNS, "Rules")


@rules.command("show")
@online
@click.argument("rule_id", type=click.IntRange(1))
def show_rule(shell: Shell, rule_id: int) -> None:
    """One rule, whole."""
    with shell.client() as client:
        shell.show_record(client.get(f"/global_schedule/{rule_id}"))


@rules.command("execute")
@online
@click.argument("rule_id", type=click.IntRange(1))
@click.option("--wait/--no-wait", default=True, show_default=True, help="Show progress until the task has ended.")
@click.option(
    "--timeout",
    "timeout_seconds",
    type=click.FloatRange(0),
    default=None,
    help="Wait no longer (seconds); exit code 5 then.",
)
def execute(shell: Shell, rule_id: int, wait: bool, timeout_seconds: float | None) -> Exit:
    """Make the backup of a rule now, whatever its timetable and status say."""
    with shell.client() as client:
        answer = client.call("POST", f"/global_schedule/{rule_id}/execution")
        task_id = int(answer.data["task_id"])
        if wait:
            return wait_for_task(shell, client, task_id, timeout_seconds)
    shell.show({"task_id": task_id, "message": answer.message}, f"Task {task_id} is queued.")
    return Exit.OK


def _switch(name: str, status: str, says: str) -> None:
    @rules.command(name, help=says)
    @online
    @click.argument("rule_ids", type=click.IntRange(1), nargs=-1, required=True)
    def act(shell: Shell, rule_ids: tuple[int, ...]) -> None:
        with shell.client() as client:
            data = [{"id": one, "status": status} for one in dict.fromkeys(rule_ids)]
            answer = client.call("PATCH", "/global_schedule", body={"data": data})
            shell.show({"ids": answer.data["ids"], "status": status}, answer.message)


_switch("start", "run", "Let rules work by their timetables.")
_switch("stop", "wait", "Keep rules from working by their timetables.")


@rules.command("requests")
@online
def requests(shell: Shell) -> None:
    """What clients ask for: new rules, and the deletion of rules."""
    with shell.client() as client:
        found = [{"wish": wish, **row} for wish, path in _PATHS.items() for row in client.rows(path)]
        shell.show_rows(found, REQUEST_COLUMNS, "Requests")


@rules.command("approve")
@online
@_WISH
@click.argument("request_ids", type=click.IntRange(1), nargs=-1, required=True)
def approve(shell: Shell, wish: str, request_ids: tuple[int, ...]) -> None:
    """Do what clients ask for. A new rule waits until it is started."""
    with shell.client() as client:
        _answer(shell, client, "POST", f"{_PATHS[wish]}/approve", request_ids, "approved")


@rules.command("decline")
@online
@_WISH
@click.argument("request_ids", type=click.IntRange(1), nargs=-1, required=True)
def decline(shell: Shell, wish: str, request_ids: tuple[int, ...]) -> None:
    """Do not do what clients ask for."""
    with shell.client() as client:
        _answer(shell, client, "DELETE", f"{_PATHS[wish]}/decline", request_ids, "declined")


def _answer(shell: Shell, client: RestClient, verb: str, path: str, request_ids: tuple[int, ...], past: str) -> None:
    """Some done and some not is an error that names those that are not."""
    ids = list(dict.fromkeys(request_ids))
    client.call(verb, path, body={"ids": ids})
    shell.show({"succeeded": ids}, f"Requests {', '.join(map(str, ids))} are {past}.")
