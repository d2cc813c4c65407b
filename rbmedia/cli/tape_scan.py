"""``rbmedia tape scan``: cartridges that are found without their server are listed and restored. It needs neither daemon nor log.

Work: ``rbmedia.tape_scan``, ``tape_restore``, ``tape_workbench``. Here are the command line, the terminal and the exit code.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from rbcore import errors
from rbmedia.cli.shell import Shell, byte_text, offline, print_table, printable
from rbmedia.exits import CommandFailed, Exit

if TYPE_CHECKING:
    from rbcore.ports import World
    from rbcore.scsi import ScsiTransport
    from rbmedia.tape_restore import Extracted, Restored
    from rbmedia.tape_scan import Catalogue
    from rbmedia.tape_workbench import Bench

T = TypeVar("T")
_ABSOLUTE = click.Path(path_type=Path, file_okay=False, resolve_path=True)
CARTRIDGE_COLUMNS = ("cartridge", "label", "format", "pool", "server", "labelled", "parts")
ARCHIVE_COLUMNS = ("archive", "client", "resource", "backup_type", "crypto", "date", "stored", "parts", "whole")


class Devices(msgspec.Struct, frozen=True, kw_only=True):
    """Where the cartridges are read."""

    drives: tuple[str, ...]
    changer: str
    elements: tuple[int, ...]
    tags: tuple[str, ...]
    """Empty: all."""
    full: bool


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done beside listing; empty archive ids: nothing."""

    restore: str
    extract: str
    to: Path | None
    only: tuple[str, ...]
    keys: Path | None
    partly: bool
    numeric_owner: bool


@click.command("scan")
@offline
@click.option(
    "--drive",
    "drives",
    metavar="ADDRESS",
    multiple=True,
    required=True,
    help="/dev/sgN or iscsi://[USER%PASSWORD@]HOST[:PORT]/TARGET/LUN. May be given more than once.",
)
@click.option("--changer", metavar="ADDRESS", default="", help="Mount the library's cartridges one after the other.")
@click.option(
    "--element",
    "elements",
    type=int,
    multiple=True,
    help="Element address of each --drive, in their order, where the changer does not say.",
)
@click.option("--slots", metavar="TAG,TAG", default="all", show_default=True, help="With --changer: bar codes.")
@click.option("--full", is_flag=True, help="Read and check every record, however long that takes.")
@click.option("--restore", metavar="ARCHIVE", default="", help="Restore this archive, with the chain that it needs.")
@click.option("--extract", metavar="ARCHIVE", default="", help="Write this archive into a catalog directory.")
@click.option("--to", type=_ABSOLUTE, help="Directory to restore or extract to.")
@click.option("--only", metavar="PATH", multiple=True, help="Restore this path of the backup only. May be repeated.")
@click.option(
    "--keys",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Data directory of the agent that made an encrypted backup.",
)
@click.option("--partial", "partly", is_flag=True, help="Restore or extract what there is, although parts are missing.")
@click.option("--numeric-owner", is_flag=True, help="Owners by number, not by name.")
def scan(
    shell: Shell,
    drives: tuple[str, ...],
    changer: str,
    elements: tuple[int, ...],
    slots: str,
    full: bool,
    restore: str,
    extract: str,
    to: Path | None,
    only: tuple[str, ...],
    keys: Path | None,
    partly: bool,
    numeric_owner: bool,
) -> Exit:
    """List and restore cartridges without their server.

    Without --changer what is loaded in the drives is read. Nothing is written on any cartridge. Exit code 4: something on a cartridge cannot
    be read; the output names it.
    """
    tags = () if slots == "all" else tuple(tag.strip() for tag in slots.split(",") if tag.strip())
    devices = Devices(drives=drives, changer=changer, elements=elements, tags=tags, full=full)
    wanted = Wanted(
        restore=restore,
        extract=extract,
        to=to,
        only=only,
        keys=keys,
        partly=partly,
        numeric_owner=numeric_owner,
    )
    _check(devices, wanted, slots)
    from drivers.world import RealWorld

    return run_scan(shell, devices, wanted, RealWorld(), open_device)


def _check(devices: Devices, wanted: Wanted, slots: str) -> None:
    """Raises ``click.UsageError`` for options that do not go together."""
    from rbcore.archive.manifest import is_archive_name

    if wanted.restore and wanted.extract:
        raise click.UsageError("--restore and --extract are two things: name one of them.")
    named = wanted.restore or wanted.extract
    if named and not is_archive_name(named):
        raise click.UsageError(f"{named!r} is no archive id: 32 hexadecimal digits, as the list shows them.")
    if bool(named) != (wanted.to is not None):
        raise click.UsageError("--to says where --restore or --extract write to, and is needed for them.")
    if not wanted.restore and (wanted.only or wanted.keys or wanted.numeric_owner):
        raise click.UsageError("--only, --keys and --numeric-owner belong to --restore.")
    if wanted.partly and not named:
        raise click.UsageError("--partial belongs to --restore or --extract.")
    if not devices.changer and (slots != "all" or devices.elements):
        raise click.UsageError("--slots and --element belong to --changer.")
    if len(set(devices.drives)) != len(devices.drives):
        raise click.UsageError("A --drive is named twice.")


def open_device(address: str, world: World) -> ScsiTransport:
    """Raises ``InvalidRequest`` when that is no address. A password may stand in it: nobody but the caller sees it."""
    from drivers.scsi.devices import HostScsiDevices
    from drivers.scsi.iscsi import IscsiAddress, IscsiTransport

    if address.startswith("iscsi://"):
        return IscsiTransport(IscsiAddress.parse(address))
    return HostScsiDevices((), world.threads).open(address)


def run_scan(
    shell: Shell,
    devices: Devices,
    wanted: Wanted,
    world: World,
    open_device: Callable[[str, World], ScsiTransport],
) -> Exit:
    """The whole command, in an event loop of its own."""
    import trio

    return trio.run(carry_out, shell, devices, wanted, world, open_device)


async def carry_out(
    shell: Shell,
    devices: Devices,
    wanted: Wanted,
    world: World,
    open_device: Callable[[str, World], ScsiTransport],
) -> Exit:
    """The command. Raises ``CommandFailed`` and ``RbError``, whatever nursery they come from."""
    import trio

    from rbmedia.tape_workbench import open_bench

    async def work() -> Exit:
        transports = [open_device(address, world) for address in devices.drives]
        changer = open_device(devices.changer, world) if devices.changer else None
        async with trio.open_nursery() as nursery:
            for transport in (*transports, *([changer] if changer is not None else [])):
                # A target that pings drops who does not answer; a drive's position is lost with the session.
                if (keep_alive := getattr(transport, "keep_alive", None)) is not None:
                    nursery.start_soon(keep_alive)
            async with open_bench(
                transports, changer, elements=devices.elements, say=_say, ask=_ask if sys.stdin.isatty() else None
            ) as bench:
                code = await _on(bench, shell, devices, wanted, world)
            nursery.cancel_scope.cancel()
        return code

    return await _unwrapped(work)


async def _unwrapped(work: Callable[[], Awaitable[T]]) -> T:
    """Errors as they would be without nurseries around them."""
    from actors.supervisor import leading_error

    try:
        return await work()
    except errors.InvalidRequest as error:
        raise CommandFailed(error.message, Exit.USAGE) from error
    except BaseExceptionGroup as group:
        interrupted, _ = group.split(KeyboardInterrupt)
        if interrupted is not None:
            raise KeyboardInterrupt from None
        failure = leading_error(group)
        if failure is None:
            raise
        if isinstance(failure, errors.InvalidRequest):
            raise CommandFailed(failure.message, Exit.USAGE) from group
        raise failure from group


async def _on(bench: Bench, shell: Shell, devices: Devices, wanted: Wanted, world: World) -> Exit:
    from rbmedia.tape_restore import RestoreOrder, extract, restore
    from rbmedia.tape_scan import Catalogue

    catalogue = Catalogue(bench, devices.full)
    await catalogue.read(await bench.cartridges(devices.tags))
    if wanted.restore:
        order = RestoreOrder(
            archive=wanted.restore,
            destination=str(wanted.to),
            only=list(wanted.only),
            keys=wanted.keys,
            partly=wanted.partly,
            numeric_owner=wanted.numeric_owner,
        )
        return _show_restored(shell, wanted, await restore(catalogue, order, world))
    if wanted.extract:
        assert wanted.to is not None, "checked before"
        return _show_extracted(
            shell, wanted, await extract(catalogue, wanted.extract, wanted.to, world, partly=wanted.partly)
        )
    return _show_list(shell, catalogue)


def _say(text: str) -> None:
    click.echo(printable(text), err=True)


async def _ask(text: str) -> None:
    import trio

    _say(text)
    # Nobody can interrupt a thread that waits for a terminal: it is left behind when the command is.
    if not await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
        raise errors.NotAllowedNow("The terminal was closed; there is nobody to ask for a cartridge.")


# Showing


def _show_list(shell: Shell, catalogue: Catalogue) -> Exit:
    from rbmedia.tape_scan import archive_row, cartridge_row

    cartridges = [cartridge_row(one) for one in catalogue.volumes]
    archives = [archive_row(one, catalogue) for one in catalogue.archives]

    def text() -> None:
        print_table(cartridges, CARTRIDGE_COLUMNS, "Cartridges")
        for row in cartridges:
            for problem in row["problems"]:
                click.echo(f"  {printable(row['cartridge'])}: {printable(problem)}")
        click.echo()
        print_table([_flat(row) for row in archives], ARCHIVE_COLUMNS, "Archives")
        for row in archives:
            for problem in row["problems"]:
                click.echo(f"  {row['archive']}: {printable(problem)}")

    shell.show({"cartridges": cartridges, "archives": archives}, text)
    return Exit.DAMAGE if catalogue.is_damaged else Exit.OK


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    parts = row["parts"]
    return {
        **row,
        "stored": byte_text(sum(part["stored_bytes"] for part in parts)),
        "parts": [f"{part['part']} on {part['cartridge']}" for part in parts],
    }


def _show_restored(shell: Shell, wanted: Wanted, restored: Restored) -> Exit:
    def text() -> None:
        for line in restored.lines:
            click.echo(printable(line))
        for line in restored.damage:
            click.echo(f"Damaged: {printable(line)}")
        click.echo(
            f"Restored {restored.files} files, {byte_text(restored.bytes)}, to {printable(str(wanted.to))}; {restored.problems} problems."
            + (f" {printable(restored.reason)}" if restored.outcome != "done" and restored.reason else "")
        )

    shell.show(restored, text)
    if restored.damage:
        return Exit.DAMAGE
    return Exit.OK if restored.outcome == "done" else Exit.FAILED


def _show_extracted(shell: Shell, wanted: Wanted, extracted: Extracted) -> Exit:
    whole = extracted.root_agrees and not extracted.damage

    def text() -> None:
        for line in extracted.damage:
            click.echo(f"Damaged: {printable(line)}")
        said = (
            "its root is that of the backup"
            if extracted.root_agrees
            else "its root is not that of the backup: blocks are missing"
            if extracted.root_agrees is not None
            else "the root of the backup is not known"
        )
        click.echo(
            f"Archive {extracted.archive} is in {printable(str(wanted.to))}: {extracted.blocks} blocks, {byte_text(extracted.stored_bytes)}; {said}."
        )

    shell.show(extracted, text)
    return Exit.OK if whole else Exit.DAMAGE
