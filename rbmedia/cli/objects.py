"""``rbmedia clients`` and ``pools``: what there is, and the few things an operator does with it by hand."""

from __future__ import annotations

import click

from rbmedia.cli.shell import Shell, online

CLIENT_COLUMNS = ("id", "hostname", "hwid", "online", "address", "os_type", "os_version", "group_id", "last_online")
UNAUTHORISED_COLUMNS = ("id", "hostname", "hwid", "address", "os_type", "os_version", "first_seen", "last_seen")
POOL_COLUMNS = (
    "id",
    "pool_name",
    "pool_type",
    "media_server",
    "compression_type",
    "size",
    "used",
    "free",
    "retention_period",
    "description",
)


@click.group()
def clients() -> None:
    """Protected hosts."""


@clients.command("list")
@online
@click.option("--waiting", is_flag=True, help="Those that wait for authorisation.")
def list_clients(shell: Shell, waiting: bool) -> None:
    """Clients that are authorised, or that wait for it."""
    with shell.client() as client:
        if waiting:
            shell.show_rows(
                list(client.rows("/unauthorised_clients")), UNAUTHORISED_COLUMNS, "Waiting for authorisation"
            )
        else:
            shell.show_rows(list(client.rows("/clients")), CLIENT_COLUMNS, "Clients")


@clients.command("authorise")
@online
@click.argument("ids", type=click.IntRange(1), nargs=-1)
@click.option("--all", "every", is_flag=True, help="Everybody who waits.")
def authorise(shell: Shell, ids: tuple[int, ...], every: bool) -> None:
    """Accept waiting clients by the ids of `clients list --waiting`. Their keys are pinned from then on."""
    if bool(ids) == every:
        raise click.UsageError("Name the ids, or --all.")
    with shell.client() as client:
        chosen = [int(row["id"]) for row in client.rows("/unauthorised_clients")] if every else list(ids)
        if not chosen:
            shell.show({"clients_ids": []}, "Nobody waits.")
            return
        answer = client.post("/clients/authorize", {"clients_ids": chosen})
        shell.show({"clients_ids": chosen, "message": answer.message}, answer.message or f"Authorised: {chosen}.")


@click.group()
def pools() -> None:
    """Pools and the directories they store in."""


@pools.command("list")
@online
def list_pools(shell: Shell) -> None:
    """All pools."""
    with shell.client() as client:
        shell.show_rows(list(client.rows("/pool_list")), POOL_COLUMNS, "Pools")


@pools.command("show")
@online
@click.argument("pool_id", type=click.IntRange(1))
def show_pool(shell: Shell, pool_id: int) -> None:
    """One pool."""
    with shell.client() as client:
        shell.show_record(client.get(f"/pool_list/{pool_id}"))


@pools.command("directories")
@online
def list_directories(shell: Shell) -> None:
    """The directories (local catalogs) of File system pools."""
    columns = ("id", "path", "pool", "media_server", "size", "used", "free", "description")
    with shell.client() as client:
        shell.show_rows(list(client.rows("/storage_local_catalogs")), columns, "Directories")


FILE_SYSTEM = "File system"
TYPES = (FILE_SYSTEM, "Tape library, Native", "Tape library, LTFS", "Tape library")


@pools.command("create")
@online
@click.argument("name")
@click.option(
    "--type",
    "pool_type",
    type=click.Choice(TYPES),
    default=FILE_SYSTEM,
    show_default=True,
    help="Tape pools are filled by `tape add` and `tape register`.",
)
@click.option("--directory", default="", help="Of a File system pool: on the media server; absolute.")
@click.option("--compression", default="fast", show_default=True, help="As GET compression_type lists them.")
@click.option("--media-server", default="", help="Host name. Default: the only one.")
@click.option("--description", default="", help="Of the pool and of its directory.")
def create_pool(
    shell: Shell, name: str, pool_type: str, directory: str, compression: str, media_server: str, description: str
) -> None:
    """Make a pool: of a directory, or a tape pool."""
    if bool(directory) != (pool_type == FILE_SYSTEM):
        raise click.UsageError("A File system pool has a --directory, and no other pool has one.")
    with shell.client() as client:
        server = media_server or client.get("/pool_list", limit=1)["items"][0]["media_server"]
        answer = client.post(
            "/pool_list",
            {
                "pool_name": name,
                "pool_type": pool_type,
                "media_server": server,
                "compression_type": compression,
                "description": description,
            },
        )
        if not directory:
            shell.show({"pool_name": name, **answer.data}, f"Pool {name} is made.")
            return
        answer = client.post("/storage_local_catalogs", {"path": directory, "pool": name, "description": description})
        shell.show({"pool_name": name, "path": directory, **(answer.data or {})}, f"Pool {name} stores in {directory}.")
