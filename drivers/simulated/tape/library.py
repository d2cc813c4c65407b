"""A simulated tape library: one changer, drives and cartridges, to be talked to in SCSI. See ``docs/tape-simulator.md``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

import msgspec
import trio

from drivers.simulated.tape.changer import SimulatedChanger
from drivers.simulated.tape.drive import BUFFER_BYTES, SimulatedDrive
from drivers.simulated.tape.elements import Element, ElementAddresses, ElementType
from drivers.simulated.tape.faults import Faults
from drivers.simulated.tape.generations import generation
from drivers.simulated.tape.mechanics import Mechanics
from drivers.simulated.tape.medium import CARD_NAME, Cartridge, Kind, read_whole, write_whole
from drivers.simulated.tape.transport import Gate, SimulatedTransport
from drivers.simulated.volume import SimulatedVolume
from drivers.simulated.world import InlineThreads
from rbcore.errors import Damaged, InvalidRequest, NotFound, Refused
from rbcore.ports import Randomness, Threads, Volume

CARD_OF_LIBRARY: Final = "library.json"
CARTRIDGES: Final = "cartridges"
INITIATOR: Final = "host"
T = TypeVar("T")
_BARCODE: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,31}")


class LibraryCard(msgspec.Struct, frozen=True, kw_only=True):
    """``library.json``: whose directory it is. Where cartridges lie stands in their own ``cartridge.json``."""

    layout: int = 1
    serial: str


class DriveStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What one drive has done since it was made."""

    number: int
    state: str
    loads: int
    cleanings: int
    bytes_written: int
    bytes_read: int
    records_written: int
    records_read: int
    filemarks_written: int
    write_errors: int
    read_errors: int
    metres: float
    busy_seconds: float


class LibraryStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What the library has done since it was made."""

    moves: int
    mounts: int
    """Moves into a drive."""
    failed_moves: int
    scans: int
    robot_busy_seconds: float
    cartridges_inside: int
    cartridges_outside: int
    drives: tuple[DriveStatistics, ...]


class SimulatedLibrary:
    """LUN 0 is the changer, LUN 1.. are the drives; ``changer`` and ``drives`` are the transports of one initiator.

    ``volume``: where cartridges are kept; a volume that was a library's is that library again. None: in memory. Make it inside of a trio
    run. ``threads`` carries the work on the volume and should be real threads for a real disk.
    """

    def __init__(
        self,
        *,
        slots: int = 24,
        drives: int | Sequence[int] = 2,
        import_export: int = 2,
        generation_number: int = 9,
        volume: Volume | None = None,
        threads: Threads | None = None,
        randomness: Randomness | None = None,
        mechanics: Mechanics | None = None,
        capacity_factor: float = 1.0,
        addresses: ElementAddresses | None = None,
        serial: str = "SIM0000001",
        buffer_bytes: int = BUFFER_BYTES,
        unloads_drives: bool = False,
        clean_after_metres: float | None = None,
        drives_lack: Iterable[int] = (),
        changer_lacks: Iterable[int] = (),
    ) -> None:
        """``drives``: how many of ``generation_number``, or the generation of each. ``unloads_drives``: a move out of a loaded drive unloads
        it (else 5/53/01). ``..._lack``: operation codes that are refused as 5/20/00, as by lesser devices. Raises ``Refused`` when the
        volume holds a library that does not fit, ``InvalidRequest``, ``Damaged``."""
        numbers = [generation_number] * drives if isinstance(drives, int) else list(drives)
        if slots < 1 or not numbers or import_export < 0:
            raise InvalidRequest("a library has at least one slot and one drive")
        self.serial = serial
        self.volume: Volume = volume if volume is not None else SimulatedVolume()
        self.randomness = randomness
        self.capacity_factor = capacity_factor
        self.outside: dict[str, Cartridge] = {}
        """By directory name: cartridges that exist and are in no element."""
        self.drive_units = tuple(
            SimulatedDrive(
                number,
                generation(of),
                f"{serial[-6:]}D{number:03d}",
                mechanics or Mechanics(),
                lacks=frozenset(drives_lack),
                buffer_bytes=buffer_bytes,
                draw=self.draw,
                clean_after_metres=clean_after_metres,
            )
            for number, of in enumerate(numbers)
        )
        self.changer_unit = SimulatedChanger(
            addresses or ElementAddresses(),
            slots,
            import_export,
            self.drive_units,
            serial,
            mechanics or Mechanics(),
            unloads_drives=unloads_drives,
            lacks=frozenset(changer_lacks),
        )
        self._state = trio.Lock()
        self._threads = threads or InlineThreads()
        self._gates = [Gate(self._state, self._threads) for _ in range(1 + len(numbers))]
        for unit in (self.changer_unit, *self.drive_units):
            unit.luns = tuple(range(1 + len(numbers)))
        self._take_stock()
        self.transports: list[SimulatedTransport] = []
        self.changer = self.connect(0)
        self.drives = tuple(self.connect(1 + number) for number in range(len(numbers)))
        self.faults = Faults(self)

    def __repr__(self) -> str:
        drives = ", ".join(repr(drive)[1:-1] for drive in self.drive_units)
        return (
            f"<SimulatedLibrary {self.serial}: {repr(self.changer_unit)[1:-1]}; {drives}; {len(self.outside)} outside>"
        )

    def connect(self, lun: int, initiator: str = INITIATOR) -> SimulatedTransport:
        """A login of an initiator at a LUN; its first command gets 6/29/00. An earlier login of the same initiator there ends."""
        unit = (self.changer_unit, *self.drive_units)[lun]
        for earlier in self.transports:
            if earlier.unit is unit and earlier.initiator == initiator:
                earlier.log_out()
        self.transports = [transport for transport in self.transports if not transport.is_closed]
        transport = SimulatedTransport(f"simulated://{self.serial}/{lun}", unit, self._gates[lun], initiator)
        self.transports.append(transport)
        return transport

    @property
    def luns(self) -> tuple[int, ...]:
        return tuple(range(1 + len(self.drive_units)))

    async def reset(self, lun: int) -> None:
        """LOGICAL UNIT RESET: holds, reservations and mode parameters are gone, everybody gets 6/29/00. A drive keeps its position."""
        reset = self.drive_units[lun - 1].reset_bus if lun else self.changer_unit.reset
        async with self._state:
            await self._threads.run(reset)

    async def flush(self) -> None:
        """Bring what drives have in their buffers to the tapes, as before an orderly power off."""
        async with self._state:
            for drive in self.drive_units:
                if drive.head is not None and not drive.faults.is_dead:
                    await self._threads.run(drive.head.cartridge.flush)

    async def at_rest(self, act: Callable[[], T]) -> T:
        """Do something (a fault, a look) while no thread works on the state: between the beginnings and the ends of commands."""
        async with self._state:
            return act()

    # --- cartridges ---

    def add_cartridge(
        self,
        barcode: str,
        address: int | None = None,
        *,
        generation_number: int | None = None,
        kind: Kind | None = None,
        capacity_factor: float | None = None,
        early_warning_bytes: int = 0,
        write_protected: bool = False,
    ) -> Cartridge:
        """Make a new cartridge and put it into the element, or the first free slot; the library knows it is there.

        Generation and kind follow from the barcode where they are not given: ``CLN...`` cleans, ``...L7`` is an LTO-7, ``...LT`` to
        ``...LZ`` are WORM of LTO-3 to LTO-9. Raises ``Refused`` when the barcode is taken or there is no room.
        """
        if not _BARCODE.fullmatch(barcode):
            raise InvalidRequest(f"{barcode!r} is no barcode of this library: letters, digits and . _ - , at most 32")
        if self.volume.exists(f"{CARTRIDGES}/{barcode}"):
            raise Refused(f"there is a cartridge {barcode} already")
        element = self._free_slot() if address is None else self.element(address)
        if element.cartridge is not None:
            raise Refused(f"element {element.address} is full")
        marked = _marked(barcode)
        cartridge = Cartridge.create(
            self.volume,
            f"{CARTRIDGES}/{barcode}",
            barcode=barcode,
            generation_number=generation_number or marked[0] or self.drive_units[0].generation.number,
            kind=kind or marked[1],
            capacity_factor=self.capacity_factor if capacity_factor is None else capacity_factor,
            early_warning_bytes=early_warning_bytes,
        )
        cartridge.card.write_protected = write_protected
        self.volume.sync_directory(CARTRIDGES)
        element.put(cartridge, trio.current_time())
        element.scan()
        cartridge.save()
        return cartridge

    def cartridges(self) -> list[Cartridge]:
        """All there are, inside first, in the order of the elements."""
        inside = [element.cartridge for element in self.changer_unit.elements.values() if element.cartridge]
        return [*inside, *self.outside.values()]

    def cartridge(self, barcode: str) -> Cartridge:
        """Raises ``NotFound``."""
        for cartridge in self.cartridges():
            if cartridge.card.barcode == barcode:
                return cartridge
        raise NotFound(f"there is no cartridge {barcode} in or beside the library {self.serial}")

    def element(self, address: int) -> Element:
        """Raises ``NotFound``."""
        found = self.changer_unit.elements.get(address)
        if found is None:
            raise NotFound(f"the library {self.serial} has no element {address}")
        return found

    def where(self, barcode: str) -> Element | None:
        """The element that really holds it; None when it is outside. Raises ``NotFound``."""
        wanted = self.cartridge(barcode)
        return next((one for one in self.changer_unit.elements.values() if one.cartridge is wanted), None)

    def statistics(self) -> LibraryStatistics:
        """As of now; frozen."""
        counts = self.changer_unit.counts
        inside = sum(element.cartridge is not None for element in self.changer_unit.elements.values())
        return LibraryStatistics(
            moves=counts.moves,
            mounts=counts.loads,
            failed_moves=counts.failed_moves,
            scans=counts.scans,
            robot_busy_seconds=self.changer_unit.busy_seconds,
            cartridges_inside=inside,
            cartridges_outside=len(self.outside),
            drives=tuple(_drive_statistics(drive) for drive in self.drive_units),
        )

    def draw(self, below: int) -> int:
        """A number from 0, of the seed; 0 when no randomness was given."""
        return 0 if self.randomness is None else int.from_bytes(self.randomness.token_bytes(6), "big") % below

    # --- what survives a restart ---

    def _take_stock(self) -> None:
        raw = read_whole(self.volume, CARD_OF_LIBRARY)
        if raw is None:
            self.volume.make_directory(CARTRIDGES)
            card = msgspec.json.encode(LibraryCard(serial=self.serial))
            write_whole(self.volume, CARD_OF_LIBRARY, msgspec.json.format(card, indent=2) + b"\n")
            self.volume.sync_directory("")
            return
        try:
            found = msgspec.json.decode(raw, type=LibraryCard)
        except msgspec.MsgspecError as error:
            raise Damaged(f"{CARD_OF_LIBRARY} of {self.volume} cannot be understood: {error}") from error
        if found.layout != 1 or found.serial != self.serial:
            raise Refused(f"{self.volume} is the library {found.serial}, layout {found.layout}")
        for name in self.volume.list(CARTRIDGES):
            if self.volume.exists(f"{CARTRIDGES}/{name}/{CARD_NAME}"):
                self._put_back(name, Cartridge.open(self.volume, f"{CARTRIDGES}/{name}"))

    def _put_back(self, name: str, cartridge: Cartridge) -> None:
        """Where it lay; beside the library when something lies there already (a crash in the middle of an exchange)."""
        address = cartridge.card.element
        if address is not None and address not in self.changer_unit.elements:
            raise Refused(f"{self.volume} has a cartridge at element {address}, which this library has not")
        element = None if address is None else self.changer_unit.elements[address]
        if element is None or element.cartridge is not None:
            cartridge.card.element = None
            self.outside[name] = cartridge
            return
        element.put(cartridge, float("-inf"))
        element.scan()
        element.source = cartridge.card.source

    def _free_slot(self) -> Element:
        for element in self.changer_unit.of_kind(ElementType.STORAGE):
            if element.cartridge is None:
                return element
        raise Refused(f"no slot of the library {self.serial} is free")


def _marked(barcode: str) -> tuple[int | None, Kind]:
    """Generation and kind by the media identifier at the end of the barcode (L1 to L9; WORM: LT to LZ)."""
    found = re.search(r"L([1-9T-Z])\Z", barcode)
    if barcode.startswith("CLN"):
        return (int(found[1]) if found and found[1].isdigit() else None), "cleaning"
    if found is None:
        return None, "data"
    return (int(found[1]), "data") if found[1].isdigit() else ("TUVWXYZ".index(found[1]) + 3, "worm")


def _drive_statistics(drive: SimulatedDrive) -> DriveStatistics:
    meters = drive.meters
    return DriveStatistics(
        number=drive.number,
        state=drive.state.value,
        loads=drive.loads,
        cleanings=drive.cleanings,
        bytes_written=meters.bytes_written,
        bytes_read=meters.bytes_read,
        records_written=meters.records_written,
        records_read=meters.records_read,
        filemarks_written=meters.filemarks_written,
        write_errors=meters.write_errors,
        read_errors=meters.read_errors,
        metres=meters.metres,
        busy_seconds=drive.busy_seconds,
    )
