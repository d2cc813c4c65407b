"""``rbmedia tape``: libraries, drives and cartridges, and what an operator has done with them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from rbmedia.cli.shell import Shell, byte_text, online, print_story, print_table, printable
from rbmedia.cli.waiting import wait_for_tape_tasks
from rbmedia.client import ApiError, RestClient
from rbmedia.exits import CommandFailed, Exit

ROBOT_SECONDS = 3600.0
"""A large library that reads all bar codes anew, or a robot that carries a full station."""
LIBRARY_COLUMNS = (
    "id",
    "pool",
    "status",
    "status_reason",
    "robot",
    "drives",
    "slots",
    "import_export_slots",
    "media_server",
    "description",
)
DRIVE_COLUMNS = (
    "id",
    "library_id",
    "device",
    "vendor",
    "model",
    "serial",
    "sys_transfer_element",
    "status",
    "status_reason",
    "volume_tag",
    "mount_reason",
    "cleaning_required",
)
SLOT_COLUMNS = ("id", "library_id", "number", "type", "volume_tag", "pool", "format", "cartridge_status", "exception")
CARTRIDGE_COLUMNS = (
    "id",
    "volume_tag",
    "type",
    "pool",
    "status",
    "status_reason",
    "location",
    "slot",
    "exported",
    "size",
    "used",
    "archives",
    "format",
    "errors",
    "description",
)
QUEUE_COLUMNS = (
    "id",
    "task_type",
    "status",
    "status_reason",
    "library_id",
    "volume_tag",
    "drive",
    "slot",
    "parent_task_id",
    "created",
)
CANDIDATE_COLUMNS = (
    "id",
    "kind",
    "device",
    "vendor",
    "model",
    "serial",
    "medium_changer_candidate_id",
    "sys_transfer_element",
    "problem",
)

_LIBRARY = click.option(
    "--library", "library_id", type=click.IntRange(1), default=None, help="Id. Default: the only one."
)
_WAIT = click.option("--wait", is_flag=True, help="Until robot and drive have done it.")
_TIMEOUT = click.option(
    "--timeout",
    "timeout_seconds",
    type=click.FloatRange(0),
    default=None,
    help="With --wait: seconds; exit code 5 after it.",
)
_YES = click.option("--yes", is_flag=True, help="Do not ask.")


@click.group()
def tape() -> None:
    """Tape libraries, drives and cartridges."""


def _library_of(client: RestClient, library_id: int | None) -> int:
    """The one that was named, or the only one there is."""
    if library_id is not None:
        return library_id
    ids = [int(row["id"]) for row in client.rows("/tape_libraries")]
    if len(ids) != 1:
        why = "There is no tape library." if not ids else f"There are tape libraries {ids}: name one with --library."
        raise CommandFailed(why, Exit.USAGE if ids else Exit.FAILED)
    return ids[0]


# --- what there is ---------------------------------------------------------------------------------------------------


@tape.command("libraries")
@online
def list_libraries(shell: Shell) -> None:
    """All tape libraries."""
    with shell.client() as client:
        rows = list(client.rows("/tape_libraries"))

    def text() -> None:
        print_table([_library_row(row) for row in rows], LIBRARY_COLUMNS, "Tape libraries")
        for row in rows:
            if row["unknown_cartridges"]:
                tags = ", ".join(map(printable, row["unknown_cartridges"]))
                click.echo(f"Library {row['id']} holds cartridges that are not registered: {tags}.", err=True)

    shell.show(rows, text)


def _library_row(row: dict[str, Any]) -> dict[str, Any]:
    robot = row["medium_changer"] or {}
    words = [robot.get(name, "") for name in ("vendor", "model", "serial")]
    return {**row, "robot": " ".join(words).strip(), "slots": f"{row['slots_used']}/{row['slots_total']}"}


def _list(path: str, name: str, columns: Sequence[str], title: str, says: str, order: str = "id") -> None:
    @tape.command(name, help=says)
    @online
    @click.option("--filter", "filter_data", default="", help="""As in the API: status="Quarantined",pool="tapes".""")
    @click.option("--at", default=None, help="As it was at a log position or an ISO 8601 time.")
    def show(shell: Shell, filter_data: str, at: str | None) -> None:
        query = {key: value for key, value in (("filter_data", filter_data), ("at", at)) if value}
        with shell.client() as client:
            rows = list(client.rows(path, sort_by=order, **query))
        shell.show(rows, lambda: print_table([_readable(row) for row in rows], columns, title))


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    sizes = {name: byte_text(row[name]) for name in ("size", "used") if row.get(name) is not None}
    return {**row, **sizes}


_list("/library_tape_drives", "drives", DRIVE_COLUMNS, "Drives", "All drives, and what is mounted in them.")
_list(
    "/library_slots", "slots", SLOT_COLUMNS, "Elements", "All elements of libraries, and what lies in them.", "number"
)
_list(
    "/tape_cartridges",
    "cartridges",
    CARTRIDGE_COLUMNS,
    "Cartridges",
    "All registered cartridges, by bar code.",
    "volume_tag",
)


@tape.command("queue")
@online
@click.option("--all", "every", is_flag=True, help="Also what has ended.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Newest first.")
def queue(shell: Shell, every: bool, limit: int) -> None:
    """What robots and drives do, and are going to do; newest first."""
    query: dict[str, Any] = {"sort_by": "id", "sort_order": "desc", "limit": limit}
    if not every:
        query["filter_data"] = ",".join(f"status!={json.dumps(one)}" for one in ("Done", "Error", "Killed"))
    with shell.client() as client:
        shell.show_rows(client.get("/tl_task_queue", **query)["items"], QUEUE_COLUMNS, "Tape tasks")


@tape.command("why")
@online
@click.argument("drive_id", type=click.IntRange(1))
def why(shell: Shell, drive_id: int) -> None:
    """Why the cartridge in a drive is mounted, and which others were rejected."""
    with shell.client() as client:
        rows = list(client.rows(f"/library_tape_drives/{drive_id}/why"))

    def text() -> None:
        if not rows:
            click.echo(f"Nothing was ever mounted in drive {drive_id}.")
        print_story(rows)

    shell.show(rows, text)


# --- adding ----------------------------------------------------------------------------------------------------------


@tape.command("candidates")
@online
@click.option("--manual", is_flag=True, help="Do not ask changers which drives they have.")
def candidates(shell: Shell, manual: bool) -> None:
    """Changers and drives that answer and are in no library yet."""
    with shell.client() as client:
        found = _candidates(client, manual)
    rows = [
        {"kind": kind, **row}
        for kind, name in (("changer", "medium_changers"), ("drive", "tape_drives"))
        for row in found[name]
    ]
    shell.show(found, lambda: print_table(rows, CANDIDATE_COLUMNS, "Candidates"))


def _candidates(client: RestClient, manual: bool) -> dict[str, Any]:
    query = {"adding_method": "manual" if manual else "automatic"}
    answer = client.call("GET", "/tape_libraries/candidates", query=query, answer_seconds=ROBOT_SECONDS)
    found: dict[str, Any] = answer.data
    return found


@tape.command("add")
@online
@click.argument("pool")
@click.option("--changer", type=click.IntRange(1), default=None, help="Candidate. Default: the only one.")
@click.option(
    "--drive",
    "drives",
    type=click.IntRange(1),
    multiple=True,
    help="Candidate; repeat. Default: all that the changer has.",
)
@click.option("--media-server", default="", help="Host name. Default: that of the pool.")
@click.option("--description", default="", help="For people.")
def add(
    shell: Shell, pool: str, changer: int | None, drives: tuple[int, ...], media_server: str, description: str
) -> None:
    """Add a library for the tape pool POOL, out of `tape candidates`."""
    with shell.client() as client:
        if changer is None or not drives:
            found = _candidates(client, manual=False)
            changer = changer or _only_changer(found)
            drives = drives or _drives_of(found, changer)
        body = {
            "pool": pool,
            "media_server": media_server or _server_of(client, pool),
            "description": description,
            "medium_changer_candidate_id": changer,
            "tape_drives_candidates_ids": list(drives),
        }
        answer = client.call("POST", "/tape_libraries", body={"data": body}, answer_seconds=ROBOT_SECONDS)

    def text() -> None:
        click.echo(f"Library {answer.data['id']} is added. {answer.message}")
        if answer.data["unknown_cartridges"]:
            click.echo(_unknown(answer.data["id"], answer.data["unknown_cartridges"]), err=True)

    shell.show(answer.data, text)


def _server_of(client: RestClient, pool: str) -> str:
    rows = client.get("/pool_list", filter_data=f"pool_name={json.dumps(pool)}", limit=1)["items"]
    if not rows:
        raise CommandFailed(f"There is no pool {pool}.", Exit.FAILED)
    return str(rows[0]["media_server"])


def _only_changer(found: dict[str, Any]) -> int:
    ids = [int(row["id"]) for row in found["medium_changers"]]
    if len(ids) != 1:
        why = (
            "No changer answers that is in no library yet." if not ids else f"Changers {ids}: name one with --changer."
        )
        raise CommandFailed(why, Exit.USAGE if ids else Exit.FAILED)
    return ids[0]


def _drives_of(found: dict[str, Any], changer: int) -> tuple[int, ...]:
    ids = tuple(int(row["id"]) for row in found["tape_drives"] if row["medium_changer_candidate_id"] == changer)
    if not ids:
        raise CommandFailed(
            "The changer names none of the drives that answer: name them with --drive, and set sys_transfer_element afterwards.",
            Exit.USAGE,
        )
    return ids


@tape.command("register")
@online
@click.argument("pool")
@click.argument("tags", nargs=-1, required=True)
@click.option("--type", "tape_type", default="", help="LTO-9 ... or CLN. Default: what the bar code tells.")
@click.option("--description", default="", help="For people.")
def register(shell: Shell, pool: str, tags: tuple[str, ...], tape_type: str, description: str) -> None:
    """Make cartridges known by their bar codes TAGS, in the tape pool POOL."""
    from rbcore.tape.barcode import tape_type_of

    types = {tag: tape_type or tape_type_of(tag) or "" for tag in tags}
    silent = [tag for tag, told in types.items() if not told]
    if silent:
        raise click.UsageError(f"These bar codes tell no type, name it with --type: {', '.join(silent)}.")
    ids: dict[str, int] = {}
    with shell.client() as client:
        for tag, told in types.items():
            fields = {"type": told, "pool": pool, "volume_tag": tag, "description": description}
            ids[tag] = client.post("/tape_cartridges", fields).data["id"]
            shell.say(f"Cartridge {tag} is registered in pool {pool}.")
    if shell.as_json:
        shell.show(ids, "")


# --- the inventory ---------------------------------------------------------------------------------------------------


@tape.command("sync")
@online
@_LIBRARY
def synchronise(shell: Shell, library_id: int | None) -> Exit:
    """Compare a library with what is known of it. Exit code 1 when it holds cartridges that are not registered."""
    with shell.client() as client:
        library = _library_of(client, library_id)
        try:
            answer = client.call("POST", f"/tape_libraries/{library}/sync", body={}, answer_seconds=ROBOT_SECONDS)
        except ApiError as error:
            unknown = error.errors.get("unknown_cartridges")
            if unknown is None:
                raise
            shell.show({"library_id": library, "unknown_cartridges": unknown}, _unknown(library, unknown))
            return Exit.FAILED
    shell.show(
        {"library_id": library, "unknown_cartridges": []}, answer.message or f"Library {library} is synchronised."
    )
    return Exit.OK


def _unknown(library: int, tags: Sequence[str]) -> str:
    shown = ", ".join(map(printable, tags))
    return f"Library {library} holds cartridges that are not registered: {shown}. Register them: rbmedia tape register POOL TAGS."


@tape.command("import")
@online
@click.argument("pool")
@_LIBRARY
def import_cartridges(shell: Shell, pool: str, library_id: int | None) -> None:
    """Take what lies in the import-export station into the slots and into the tape pool POOL."""
    with shell.client() as client:
        library = _library_of(client, library_id)
        body = {"data": {"library_id": library, "pool_name": pool}}
        answer = client.call("PATCH", "/library_slots/import_cartridge", body=body, answer_seconds=ROBOT_SECONDS)
        tags = [client.get(f"/tape_cartridges/{one}")["volume_tag"] for one in answer.data["ids"]]
        shell.show({"volume_tags": tags}, f"Imported into pool {pool}: {', '.join(tags)}.")


# --- orders ----------------------------------------------------------------------------------------------------------


def _order(
    shell: Shell,
    verb: str,
    library_id: int | None,
    bodies: Sequence[dict[str, Any]],
    many: bool,
    wait: bool,
    timeout: float | None,
) -> Exit:
    """Queue what the verb means for each cartridge; all together where the API takes them together."""
    with shell.client() as client:
        library = _library_of(client, library_id)
        orders = [{"library_id": library, **one} for one in bodies]
        calls = [orders] if many else orders
        ids: list[int] = []
        for data in calls:
            ids += client.call("PATCH", f"/library_slots/{verb}", body={"data": data}).data["tasks_ids"]
        if wait:
            return wait_for_tape_tasks(shell, client, ids, timeout)
        shell.show({"tasks_ids": ids}, f"Tape tasks {', '.join(map(str, ids))} are queued.")
        return Exit.OK


@tape.command("export")
@online
@click.argument("tags", nargs=-1, required=True)
@_LIBRARY
@_WAIT
@_TIMEOUT
def export(
    shell: Shell, tags: tuple[str, ...], library_id: int | None, wait: bool, timeout_seconds: float | None
) -> Exit:
    """Bring cartridges to the import-export station, to be taken out. Their backups stay known."""
    bodies = [{"volume_tag": tag} for tag in tags]
    return _order(shell, "export_cartridge", library_id, bodies, False, wait, timeout_seconds)


@tape.command("move")
@online
@click.argument("tag")
@click.argument("slot", type=click.IntRange(1))
@_LIBRARY
@_WAIT
@_TIMEOUT
def move(shell: Shell, tag: str, slot: int, library_id: int | None, wait: bool, timeout_seconds: float | None) -> Exit:
    """Move a cartridge to the element with the id SLOT of `tape slots`."""
    bodies = [{"volume_tag": tag, "slot_id": slot}]
    return _order(shell, "move_cartridge", library_id, bodies, False, wait, timeout_seconds)


@tape.command("format")
@online
@click.argument("tags", nargs=-1, required=True)
@_LIBRARY
@_YES
@_WAIT
@_TIMEOUT
def format_cartridges(
    shell: Shell, tags: tuple[str, ...], library_id: int | None, yes: bool, wait: bool, timeout_seconds: float | None
) -> Exit:
    """Label cartridges anew, in the format of their pool. What is on them is gone; refused while backups are."""
    _confirm(yes, tags)
    bodies = [{"volume_tag": tag} for tag in tags]
    return _order(shell, "format_cartridge", library_id, bodies, True, wait, timeout_seconds)


@tape.command("erase")
@online
@click.argument("tags", nargs=-1, required=True)
@click.option("--long", "is_long", is_flag=True, help="The whole tape, which takes hours. Otherwise its beginning.")
@_LIBRARY
@_YES
@_WAIT
@_TIMEOUT
def erase(
    shell: Shell,
    tags: tuple[str, ...],
    is_long: bool,
    library_id: int | None,
    yes: bool,
    wait: bool,
    timeout_seconds: float | None,
) -> Exit:
    """Erase cartridges. Refused while backups are on them."""
    _confirm(yes, tags)
    bodies = [{"volume_tag": tag, "is_long_erase": is_long} for tag in tags]
    return _order(shell, "erase_cartridge", library_id, bodies, True, wait, timeout_seconds)


def _confirm(yes: bool, tags: Sequence[str]) -> None:
    if not yes:
        click.echo(f"What is on these cartridges will be gone: {', '.join(tags)}.", err=True)
        click.confirm("Go on?", abort=True, err=True)


@tape.command("check-ltfs")
@online
@click.argument("tags", nargs=-1, required=True)
@_LIBRARY
@_WAIT
@_TIMEOUT
def check_ltfs(
    shell: Shell, tags: tuple[str, ...], library_id: int | None, wait: bool, timeout_seconds: float | None
) -> Exit:
    """Look whether cartridges are LTFS volumes."""
    bodies = [{"volume_tag": tag} for tag in tags]
    return _order(shell, "check_ltfs", library_id, bodies, True, wait, timeout_seconds)


@tape.command("clean")
@online
@click.argument("drive_id", type=click.IntRange(1))
@_WAIT
@_TIMEOUT
def clean(shell: Shell, drive_id: int, wait: bool, timeout_seconds: float | None) -> Exit:
    """Clean a drive with a cleaning cartridge of its library."""
    with shell.client() as client:
        task = int(client.call("PATCH", f"/library_tape_drives/{drive_id}/clean").data["task_id"])
        if wait:
            return wait_for_tape_tasks(shell, client, [task], timeout_seconds)
        shell.show({"tasks_ids": [task]}, f"Tape task {task} is queued.")
        return Exit.OK
