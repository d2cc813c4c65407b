"""The tape library of a simulated site: hardware that outlives the daemon, what operators order of it, what goes wrong with it, and what must hold.

The fault model is that of ``drivers.simulated.tape.faults`` without spoiled records and broken cartridges: nothing else has copies of what lies on
tape, so whatever is acknowledged must come back. Hands exchange two labelled cartridges unnoticed, but not a blank one: nothing on it says who it is.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import trio

from actors.bus import Bus
from actors.journal import JournalActor
from actors.tape.libraries import TapeSite
from drivers.directory_store import DirectoryStore, initialise_catalog
from drivers.simulated.tape import ElementType, Mechanics, SimulatedLibrary
from drivers.simulated.tape.devices import SimulatedDevices
from drivers.simulated.volume import SimulatedVolume
from drivers.simulated.world import SimulatedWorld
from rbcore.commands import AddTapeLibrary, CreateRecord, QueueTapeTasks, TapeOrder
from rbcore.entities import Backup, LibrarySlot, TapeCartridge, TapeDrive, TapeTask
from rbcore.errors import RbError, Unavailable
from rbcore.state import State
from rbcore.vocabulary import (
    ACTIVE_TAPE_TASK_STATUSES,
    CartridgeStatus,
    DriveStatus,
    PoolType,
    SlotType,
    TapeTaskType,
)

if TYPE_CHECKING:
    from rbmedia.simulation.site import Site
    from rbmedia.simulation.trace import Trace

TAPE_POOL: Final = "Tapes"
LIBRARY_ID: Final = 1
DRIVES, SLOTS, CARTRIDGES = 2, 10, 6
CAPACITY_FACTORS: Final[dict[str, float]] = {PoolType.TAPE_NATIVE: 5e-8, PoolType.TAPE_LTFS: 1e-6}
"""900 kB on a cartridge, 18 MB where an index partition must find room."""
SLOWNESS: Final = (0.0, 0.005, 0.05)
"""Factors of the time that LTO-9 takes."""
MENDED_SECONDS_MAX: Final = 600.0
KEPT: Final = "kept of tape"
MEND_TRIES: Final = 30


@dataclass(slots=True, eq=False)
class TapeRoom:
    """The library, and what a daemon keeps of archives on tape beside it."""

    world: SimulatedWorld
    trace: Trace
    draw: random.Random
    library: SimulatedLibrary = field(init=False)
    pool_type: str = field(init=False)
    kept: SimulatedVolume = field(default_factory=SimulatedVolume)
    is_mended: bool = False

    def __post_init__(self) -> None:
        self.pool_type = self.draw.choice([PoolType.TAPE_NATIVE, PoolType.TAPE_LTFS])
        self.library = SimulatedLibrary(
            mechanics=Mechanics(factor=self.draw.choice(SLOWNESS)),
            capacity_factor=CAPACITY_FACTORS[self.pool_type],
            drives=DRIVES,
            slots=SLOTS,
            randomness=self.world.randomness,
        )
        for number in range(1, CARTRIDGES + 1):
            self.library.add_cartridge(f"VT{number:04d}L9")
        self.trace.note("tape", f"{self.pool_type}, {self.library.changer_unit.mechanics}")

    # --- the daemon's side -------------------------------------------------------------------------------------------------

    def site(self, journal: JournalActor, server_id: str, bus: Bus) -> TapeSite:
        """The actors of one life of the daemon."""
        kept = self.kept

        def open_kept() -> DirectoryStore:
            initialise_catalog(kept, KEPT)
            return DirectoryStore(kept, KEPT)

        return TapeSite(
            journal,
            bus,
            self.world,
            SimulatedDevices([self.library]),
            open_kept,
            server_id=server_id,
            software="rbmedia simulation",
        )

    def crash(self) -> None:
        """The daemon's process is gone: its connections end, what devices were told they go on with."""
        for transport in self.library.transports:
            transport.strike("the process is gone", carries_on=True, stays_down=False)
            transport.log_out()
        before_each, self.kept.before_each = self.kept.before_each, None
        self.kept = self.kept.crash(self.world.randomness)
        self.kept.before_each = before_each

    async def install(self, site: Site) -> None:
        """What an operator does on the first day."""
        number = 0

        async def give(command: Any) -> Any:
            nonlocal number
            number += 1
            return await site.execute(command, f"tape/{number}")

        await give(CreateRecord(resource="pool_list", fields={"pool_name": TAPE_POOL, "pool_type": self.pool_type}))
        tape = _running(site)
        candidates = await tape.candidates(automatic=True)
        changer = next(one for one in candidates if one.is_changer)
        found = await tape.describe(
            changer.facts.device, [one.facts.device for one in candidates if not one.is_changer]
        )
        reply = await give(
            AddTapeLibrary(
                pool=TAPE_POOL,
                media_server="daemon",
                changer=found.changer,
                transport_element=found.transport_element,
                drives=found.drives,
                elements=found.elements,
            )
        )
        for tag in reply.data["unknown"]:
            fields = {"type": "LTO-9", "pool": TAPE_POOL, "volume_tag": tag}
            await give(CreateRecord(resource="tape_cartridges", fields=fields))

    # --- operators ---------------------------------------------------------------------------------------------------------

    def order(self, state: State) -> Any:
        """A command for one cartridge."""
        kinds = [TapeTaskType.EXPORT, TapeTaskType.EXPORT, TapeTaskType.FORMAT, TapeTaskType.ERASE]
        kind = self.draw.choice([*kinds, TapeTaskType.CHECK_LTFS, TapeTaskType.MOVE])
        cartridge = self.draw.choice(list(state.all(TapeCartridge)))
        free = [one for one in state.all(LibrarySlot) if not one.is_full and one.type == SlotType.STORAGE]
        slot_id = self.draw.choice(free).id if free and kind == TapeTaskType.MOVE else 0
        order = TapeOrder(library_id=LIBRARY_ID, volume_tag=cartridge.volume_tag, slot_id=slot_id)
        return QueueTapeTasks(task_type=kind, orders=[order])

    async def look_after(self, site: Site) -> None:
        """Synchronise, and take in what lies in the import-export station. Refusals are answers."""
        what = self.draw.choice(["synchronise", "import"])
        with trio.move_on_after(MENDED_SECONDS_MAX):
            try:
                if what == "synchronise":
                    await _running(site).synchronise(LIBRARY_ID)
                else:
                    await _running(site).import_cartridges(LIBRARY_ID, TAPE_POOL)
            except (RbError, trio.BrokenResourceError) as error:
                self.trace.note("consumer", f"{what} refused: {error}")

    # --- bad luck ----------------------------------------------------------------------------------------------------------

    def fault(self, site: Site) -> None:
        faults, number = self.library.faults, self.draw.randrange(DRIVES)
        name = self.draw.choice(
            ["jam", "drive death", "drive reset", "cut", "power", "bus", "hands", "hands", "dirt", "protection"]
        )
        self.trace.note("fault", f"library: {name}")
        later_seconds = self.draw.uniform(1.0, 300.0)

        def later(mend: Callable[[], None]) -> None:
            """Unless everything was mended before: a drive that is reset then would be bad luck again."""
            site.after(later_seconds, lambda: None if self.is_mended else mend())

        if name == "jam":
            faults.jam_next_move(in_hand=self.draw.random() < 0.5)
            later(faults.clear_jam)
        elif name == "drive death":
            faults.kill_drive(number, after_records=self.draw.choice([None, 0, 1, 2, 5]))
            later(lambda: faults.reset_drive(number))
        elif name == "drive reset":
            faults.reset_drive(number)
        elif name == "cut":
            faults.cut(self.draw.choice([None, *self.library.luns, 0]))
            later(faults.mend)
        elif name == "power":
            faults.lose_power()
            later(faults.restore_power)
        elif name == "bus":
            faults.reset_bus()
        elif name == "hands":
            self._hands()
        elif name == "dirt":
            faults.require_cleaning(number)
        else:
            cartridge = self.draw.choice(self.library.cartridges())
            faults.write_protect(cartridge.card.barcode, protected=self.draw.random() < 0.5)

    def _hands(self) -> None:
        reachable = [
            one
            for one in self.library.changer_unit.elements.values()
            if one.kind in (ElementType.STORAGE, ElementType.IMPORT_EXPORT)
        ]
        full = [one for one in reachable if one.cartridge is not None]
        empty = [one for one in reachable if one.cartridge is None]
        noticed = self.draw.random() < 0.5
        faults = self.library.faults
        try:
            if self.library.outside and empty and self.draw.random() < 0.5:
                barcode = next(iter(self.library.outside.values())).card.barcode
                faults.put_in(barcode, self.draw.choice(empty).address, noticed=noticed)
            elif full and self.draw.random() < 0.5:
                faults.take_out(self.draw.choice(full).address, noticed=noticed)
            elif len(full) > 1:
                one, other = self.draw.sample(full, 2)
                told = [each.cartridge is not None and bool(len(each.cartridge.partitions[0])) for each in (one, other)]
                faults.swap(one.address, other.address, noticed=noticed or not all(told))
        except RbError as error:
            self.trace.note("fault", f"hands: {error.message}")

    # --- the end -----------------------------------------------------------------------------------------------------------

    async def mend(self, site: Site, state: Callable[[], State]) -> None:
        """What an operator does on the day after: everything is repaired, brought back, and synchronised. Raises ``RbError`` when that fails."""
        self.is_mended = True
        faults = self.library.faults
        faults.mend()
        faults.restore_power()
        self.library.changer_unit.jams_next = None
        for number, drive in enumerate(self.library.drive_units):
            drive.faults.records_until_death = None
            faults.reset_drive(number)
        for cartridge in self.library.cartridges():
            faults.write_protect(cartridge.card.barcode, protected=False)
        last = "nothing was tried"
        for _ in range(MEND_TRIES):
            faults.clear_jam()
            for outside in list(self.library.outside.values()):
                slots = self.library.changer_unit.of_kind(ElementType.STORAGE)
                faults.put_in(outside.card.barcode, next(one.address for one in slots if one.cartridge is None))
            await trio.sleep(60.0)
            await site.started.wait()
            try:
                with trio.fail_after(MENDED_SECONDS_MAX):
                    await _running(site).synchronise(LIBRARY_ID)
                    if any(one.type == SlotType.IMPORT_EXPORT and one.is_full for one in state().all(LibrarySlot)):
                        await _running(site).import_cartridges(LIBRARY_ID, TAPE_POOL)
            except (RbError, trio.TooSlowError) as error:
                last = f"{error}"
                continue
            if any(one.status in ACTIVE_TAPE_TASK_STATUSES for one in state().all(TapeTask) if not one.parent_task_id):
                last = "an order for a cartridge does not end"
                continue
            if all(one.status not in (DriveStatus.OFFLINE, DriveStatus.ERROR) for one in state().all(TapeDrive)):
                return
            last = "a drive stays out of use"
        raise AssertionError(f"the tape library does not come back: {last}")

    def why_not_quiet(self, state: State) -> str:
        """Empty when nothing is mounted, moved or waited for."""
        busy = [f"tape task {one.id}" for one in state.all(TapeTask) if one.status in ACTIVE_TAPE_TASK_STATUSES]
        busy += [f"drive {one.id}" for one in state.all(TapeDrive) if one.cartridge_id]
        busy += [f"cartridge {one.volume_tag} moves" for one in state.all(TapeCartridge) if one.moving_to_slot_id]
        return ", ".join(busy)

    def broken(self, state: State) -> str:
        """After every step: no backup is offered whose cartridge holds nothing that counts. Empty while that is so."""
        for backup in state.all(Backup):
            for part in backup.parts:
                cartridge = state.find(TapeCartridge, part.cartridge_id)
                if cartridge is None or not cartridge.format or cartridge.status == CartridgeStatus.SCRATCH:
                    return f"backup {backup.id} is offered, and lies on {cartridge}"
        return ""

    def broken_at_end(self, state: State) -> str:
        """When all is mended: the log says what the library holds, and a cartridge is in one place."""
        if busy := self.why_not_quiet(state):
            return f"the tape library does not come to rest: {busy}"
        for slot in state.all(LibrarySlot):
            held = self.library.element(slot.address).cartridge
            tag = held.card.barcode if held is not None else ""
            if slot.volume_tag != tag:
                return f"element {slot.address} holds '{tag}', the log says '{slot.volume_tag}'"
        for cartridge in state.all(TapeCartridge):
            holding = [one.id for one in state.all(LibrarySlot) if one.cartridge_id == cartridge.id]
            if holding != [cartridge.slot_id]:
                return f"cartridge {cartridge.volume_tag} is in slot {cartridge.slot_id}, and in {holding}"
        return self.broken(state)


def _running(site: Site) -> TapeSite:
    """Of the present life. Raises ``RbError`` between two."""
    actors = site.daemon.actors if site.daemon is not None else None
    if actors is None or actors.tape is None:
        raise Unavailable("the daemon is down")
    return actors.tape
