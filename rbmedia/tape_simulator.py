"""``rbmedia simulate tape-library``: a simulated tape library in a directory, served over iSCSI on loopback.

Here is what makes a program of it: what the directory was made with, the cartridges of the first start, one process per directory, the
order of coming up and going down. The library, its target and its control socket are in ``drivers.simulated.tape``.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec
import trio

from drivers.allocator import keep_freed_memory
from drivers.simulated.tape import (
    GENERATIONS,
    NO_DELAY,
    ElementAddresses,
    IscsiServing,
    Mechanics,
    SimulatedLibrary,
    serve_iscsi,
)
from drivers.simulated.tape.control import serve_control
from drivers.simulated.tape.medium import read_whole, write_whole
from drivers.volume import DirectoryVolume
from drivers.world import RealWorld
from rbcore.errors import Damaged, Refused
from rbmedia.exits import CommandFailed, Exit
from rbmedia.stopping import run_until_told

HOST: Final = "127.0.0.1"
CARD: Final = "simulator.json"
LOCK: Final = "simulator.lock"
STOP_SECONDS: Final = 60.0
FORMAT_MEDIUM: Final = 0x04
ELEMENTS_MAX: Final = 1000
_PREFIX: Final = re.compile(r"[0-9A-Z]{1,4}")
_BARCODE_CHARACTERS: Final = 6
"""Before the media identifier, as LTO labels have it."""


class Made(msgspec.Struct, kw_only=True):
    """``simulator.json``: what the directory was made with. All but the port is so for ever."""

    layout: int = 1
    slots: int = 8
    drives: int = 2
    import_export: int = 2
    generation: int = 9
    cartridges: int = 6
    prefix: str = "VT"
    capacity_factor: float = 1e-4
    serial: str = ""
    port: int = 0
    """0: none yet."""
    has_cartridges: bool = False
    """The first start came to its end."""


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """What the command says when everything answers."""

    directory: str
    control: str
    target: str
    port: int
    changer: str
    drives: list[str]

    def lines(self) -> list[str]:
        return [f"changer {self.changer}", *(f"drive{n + 1} {address}" for n, address in enumerate(self.drives))]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Of one start. ``wanted``: fields of ``Made`` that were given; ``port`` None: the one of last time, 0: any free one."""

    wanted: dict[str, int | float | str]
    port: int | None = None
    realistic_times: bool = False
    no_partitions: bool = False


def run(
    directory: Path, options: Options, announce: Callable[[Running], None], *, until_stdin_closes: bool = False
) -> int:
    """Serve until a signal; the exit code. Raises ``CommandFailed`` or an ``RbError`` when it cannot start or go on."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CommandFailed(f"The directory {directory} cannot be made: {error.strerror}.") from error
    program = functools.partial(_program, directory, options, announce)
    keep_freed_memory()
    return run_until_told(program, "the tape library", STOP_SECONDS, until_stdin_closes=until_stdin_closes)


async def _program(directory: Path, options: Options, announce: Callable[[Running], None], stop: trio.Event) -> None:
    with _only_one(directory):
        world, volume = RealWorld(), DirectoryVolume(directory)
        made = open_directory(volume, directory, options.wanted, world.randomness.token_bytes(4).hex().upper())
        library = SimulatedLibrary(
            slots=made.slots,
            drives=made.drives,
            import_export=made.import_export,
            generation_number=made.generation,
            volume=volume,
            threads=world.threads,
            randomness=world.randomness,
            mechanics=Mechanics() if options.realistic_times else NO_DELAY,
            capacity_factor=made.capacity_factor,
            serial=made.serial,
            drives_lack=(FORMAT_MEDIUM,) if options.no_partitions else (),
        )
        make_cartridges(library, made)
        _save(volume, made)
        try:
            await _serve(directory, volume, library, made, options, announce, stop)
        finally:
            # What drives have acknowledged is on the tapes after an orderly stop.
            with trio.CancelScope(shield=True):
                await library.flush()


async def _serve(
    directory: Path,
    volume: DirectoryVolume,
    library: SimulatedLibrary,
    made: Made,
    options: Options,
    announce: Callable[[Running], None],
    stop: trio.Event,
) -> None:
    async with trio.open_nursery() as nursery:
        port = made.port if options.port is None else options.port
        try:
            serving: IscsiServing = await nursery.start(serve_iscsi, library, HOST, port)
        except OSError as error:
            raise CommandFailed(
                f"The tape library cannot listen on port {port} ({error.strerror}). "
                "Name another with --port; 0 takes any free one, which is kept."
            ) from error
        made.port = serving.port
        _save(volume, made)
        control: Path = await nursery.start(serve_control, library, directory)
        announce(
            Running(
                directory=str(directory),
                control=str(control),
                target=serving.target_name,
                port=serving.port,
                changer=serving.address(0),
                drives=[serving.address(lun) for lun in library.luns[1:]],
            )
        )
        await stop.wait()
        nursery.cancel_scope.cancel()


# --- the directory ---


def open_directory(volume: DirectoryVolume, directory: Path, wanted: dict[str, int | float | str], serial: str) -> Made:
    """What it was made with, or is now; ``serial`` is for a new one. Raises ``Refused`` when something else is wanted or there."""
    raw = read_whole(volume, CARD)
    if raw is None:
        others = [name for name in volume.list("") if name not in (LOCK, f"{CARD}.new")]
        if others:
            raise Refused(f"{directory} holds {others[0]} and no simulated tape library: name another directory")
        made = Made(**wanted, serial=f"SIM{serial}")  # type: ignore[arg-type]  # the command line has checked the types
        if "cartridges" not in wanted:
            made.cartridges = max(0, made.slots - 2)
        _check(made)
        _save(volume, made)
        return made
    try:
        made = msgspec.json.decode(raw, type=Made)
    except msgspec.MsgspecError as error:
        raise Damaged(f"{directory / CARD} cannot be understood: {error}") from error
    if made.layout != 1:
        raise Refused(f"{directory / CARD} has layout {made.layout}; this program knows 1")
    for name, value in wanted.items():
        if getattr(made, name) != value:
            raise Refused(
                f"the library in {directory} was made with {name.replace('_', ' ')} {getattr(made, name)}, not {value}: "
                "leave the option out, or name another directory"
            )
    return made


def _check(made: Made) -> None:
    """Raises ``Refused``: what the library itself would not say so well."""
    addresses = ElementAddresses()
    if made.generation not in GENERATIONS:
        raise Refused(f"there is no LTO-{made.generation}: {min(GENERATIONS)} to {max(GENERATIONS)}")
    if made.drives > addresses.import_export - addresses.drives or made.slots > ELEMENTS_MAX:
        raise Refused(f"a simulated library has at most {ELEMENTS_MAX} slots and 512 drives")
    if made.import_export > addresses.storage - addresses.import_export:
        raise Refused("a simulated library has at most 256 import/export elements")
    if not _PREFIX.fullmatch(made.prefix) or made.prefix.startswith("CLN"):
        raise Refused("the prefix of barcodes is one to four of A to Z and 0 to 9, and not CLN (cleaning)")
    if made.cartridges >= 10 ** (_BARCODE_CHARACTERS - len(made.prefix)):
        raise Refused(f"there are not so many barcodes that begin with {made.prefix}")
    if made.cartridges + 1 > made.slots:
        raise Refused(f"{made.cartridges} cartridges and one for cleaning do not fit into {made.slots} slots")


def make_cartridges(library: SimulatedLibrary, made: Made) -> None:
    """At the first start, or the end of a first start that was interrupted: data cartridges from the first slot, a cleaning one in the last."""
    if made.has_cartridges:
        return
    there = {cartridge.card.barcode for cartridge in library.cartridges()}
    digits = _BARCODE_CHARACTERS - len(made.prefix)
    slot = ElementAddresses().storage
    wanted = [(f"{made.prefix}{n + 1:0{digits}d}L{made.generation}", slot + n) for n in range(made.cartridges)]
    wanted.append((f"CLN001L{made.generation}", slot + made.slots - 1))
    for barcode, address in wanted:
        if barcode not in there:
            library.add_cartridge(barcode, address)
    made.has_cartridges = True


def _save(volume: DirectoryVolume, made: Made) -> None:
    write_whole(volume, CARD, msgspec.json.format(msgspec.json.encode(made), indent=2) + b"\n")
    volume.sync_directory("")


@contextlib.contextmanager
def _only_one(directory: Path) -> Iterator[None]:
    """Two processes on the same cartridges would ruin them."""
    descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CommandFailed(f"The tape library in {directory} is served by another process.", Exit.FAILED) from None
        yield
    finally:
        os.close(descriptor)
