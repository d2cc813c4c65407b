"""Random histories of operations and bad luck over a simulated library, with the daemon killed in between.

After every history somebody mends what is broken and synchronises the library. Then: a cartridge is in exactly one place; what the log says is what the
library holds; every tape task has ended; every backup that is offered comes back as it was written, unless somebody spoiled its very records; no
archive of a cartridge that was erased or formatted is offered.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drivers.simulated.tape import NO_DELAY, SimulatedLibrary
from drivers.simulated.volume import SimulatedVolume
from eventlog.memory_store import MemoryStore
from rbcore.commands import AdvanceTask, DeleteBackups, QueueTapeTasks, TapeOrder
from rbcore.entities import Backup, LibrarySlot, TapeCartridge, TapeDrive, TapeTask, Task
from rbcore.errors import Damaged, MediumFailed, RbError, Unavailable
from rbcore.vocabulary import (
    ACTIVE_STATUSES,
    CartridgeStatus,
    DriveStatus,
    PoolType,
    SlotType,
    TapeTaskType,
    TaskStatus,
)
from tests.tape_actors.site import Site, running_site
from tests.tape_actors.test_site import check_places

KIB = 1 << 10


@dataclass
class History:
    """One history; ``site`` is the present life of the daemon."""

    draw: random.Random
    library: SimulatedLibrary
    site: Site = field(init=False)
    archives: dict[int, list[bytes]] = field(default_factory=dict)
    """Backup id -> blocks, of every backup ever acknowledged."""
    spoiled: set[str] = field(default_factory=set)
    """Tags of cartridges on which a record was made unreadable, or that were broken."""
    told: list[str] = field(default_factory=list)
    restart: bool = False

    # --- operations ------------------------------------------------------------------------------------------------------

    async def write(self) -> None:
        sizes = [self.draw.choice([10, 3000, 200 * KIB, 900 * KIB]) for _ in range(self.draw.randint(1, 12))]
        number = await self.site.write_archive(sizes)
        self.archives[number] = self.site.archives[number]

    async def read(self) -> None:
        """Amid bad luck what cannot be read now is said; what is read is right."""
        offered = list(self.site.state.all(Backup))
        if offered:
            backup = self.draw.choice(offered)
            try:
                found = await self.site.read_archive(backup.id)
            except RbError as error:
                self.told.append(f"backup {backup.id}: {error.message}")
                return
            assert found == self.archives[backup.id]

    async def check(self, backup: Backup) -> None:
        try:
            found = await self.site.read_archive(backup.id)
        except (Damaged, MediumFailed, Unavailable):
            # Its very records are spoiled, or the label without which nobody reads on.
            tags = {self.site.one(TapeCartridge, part.cartridge_id).volume_tag for part in backup.parts}
            assert tags & self.spoiled, f"backup {backup.id} is damaged and nobody did it"
            return
        assert found == self.archives[backup.id]

    async def delete(self) -> None:
        offered = list(self.site.state.all(Backup))
        if offered:
            await self.site.execute(DeleteBackups(ids=[self.draw.choice(offered).id]))

    async def order(self) -> None:
        kinds = [
            TapeTaskType.ERASE,
            TapeTaskType.FORMAT,
            TapeTaskType.EXPORT,
            TapeTaskType.CHECK_LTFS,
            TapeTaskType.MOVE,
        ]
        kind = self.draw.choice(kinds)
        cartridge = self.draw.choice(list(self.site.state.all(TapeCartridge)))
        free = [one for one in self.site.state.all(LibrarySlot) if not one.is_full and one.type == SlotType.STORAGE]
        slot_id = self.draw.choice(free).id if free and kind == TapeTaskType.MOVE else 0
        order = TapeOrder(library_id=1, volume_tag=cartridge.volume_tag, slot_id=slot_id)
        reply = await self.site.execute(QueueTapeTasks(task_type=kind, orders=[order]))
        await self.site.tape_task_ended(reply.ids[0])

    async def import_all(self) -> None:
        await self.site.tape.import_cartridges(1, "Tape")

    async def synchronise(self) -> None:
        await self.site.tape.synchronise(1)

    async def crash(self) -> None:
        self.restart = True

    async def wait(self) -> None:
        await trio.sleep(self.draw.choice([1.0, 60.0, 1000.0, 5000.0]))

    # --- bad luck ----------------------------------------------------------------------------------------------------------

    async def hands(self) -> None:
        full = [one for one in self.library.changer_unit.elements.values() if one.cartridge is not None]
        reachable = [one for one in full if one.kind.name in ("STORAGE", "IMPORT_EXPORT")]
        if self.library.outside and self.draw.random() < 0.5:
            barcode = next(iter(self.library.outside.values())).card.barcode
            empty = [
                one
                for one in self.library.changer_unit.elements.values()
                if one.cartridge is None and one.kind.name in ("STORAGE", "IMPORT_EXPORT")
            ]
            self.library.faults.put_in(barcode, self.draw.choice(empty).address, noticed=self.draw.random() < 0.5)
        elif reachable and self.draw.random() < 0.5:
            self.library.faults.take_out(self.draw.choice(reachable).address, noticed=self.draw.random() < 0.5)
        elif len(reachable) > 1:
            one, other = self.draw.sample(reachable, 2)
            # A blank cartridge cannot tell who it is: exchanged behind everybody's back it gets the other one's label, and only people
            # who compare it with its bar code can find out.
            told = [each.cartridge is not None and bool(len(each.cartridge.partitions[0])) for each in (one, other)]
            noticed = not all(told) or self.draw.random() < 0.5
            self.library.faults.swap(one.address, other.address, noticed=noticed)

    async def jam(self) -> None:
        self.library.faults.jam_next_move(in_hand=self.draw.random() < 0.5)

    async def kill_drive(self) -> None:
        number = self.draw.randrange(len(self.library.drive_units))
        self.library.faults.kill_drive(number, after_records=self.draw.choice([None, 0, 1, 2, 5]))

    async def reset_drive(self) -> None:
        self.library.faults.reset_drive(self.draw.randrange(len(self.library.drive_units)))

    async def cut(self) -> None:
        lun = self.draw.choice([None, 0, 1, 2])
        self.library.faults.cut(lun)
        self.mend_later()

    async def power(self) -> None:
        self.library.faults.lose_power()
        self.mend_later()

    async def reset_bus(self) -> None:
        self.library.faults.reset_bus()

    def mend_later(self) -> None:
        self.told.append("mended")
        self.library.faults.mend()
        self.library.faults.restore_power()

    async def spoil(self) -> None:
        tag = self.draw.choice(self.library.cartridges()).card.barcode
        try:
            self.library.faults.spoil_some_record(tag)
        except RbError:
            return
        self.spoiled.add(tag)

    async def write_protect(self) -> None:
        cartridge = self.draw.choice(self.library.cartridges())
        protected = self.draw.random() < 0.5
        self.library.faults.write_protect(cartridge.card.barcode, protected=protected)

    async def require_cleaning(self) -> None:
        self.library.faults.require_cleaning(self.draw.randrange(len(self.library.drive_units)))

    # --- the end -----------------------------------------------------------------------------------------------------------

    async def mend(self) -> None:
        """What an operator does on the day after."""
        faults = self.library.faults
        faults.mend()
        faults.restore_power()
        for drive in self.library.drive_units:
            drive.faults.records_until_death = None
        self.library.changer_unit.jams_next = None
        for number in range(len(self.library.drive_units)):
            faults.reset_drive(number)
        for cartridge in self.library.cartridges():
            faults.write_protect(cartridge.card.barcode, protected=False)
        for _ in range(20):
            faults.clear_jam()
            await trio.sleep(300.0)
            try:
                await self.site.tape.synchronise(1)
                if any(one.type == SlotType.IMPORT_EXPORT and one.is_full for one in self.site.state.all(LibrarySlot)):
                    await self.site.tape.import_cartridges(1, "Tape")
            except RbError as error:
                self.told.append(f"not yet: {error.message}")
                continue
            if not self.library.outside and all(
                one.status not in (DriveStatus.OFFLINE, DriveStatus.ERROR) for one in self.site.state.all(TapeDrive)
            ):
                return
            if self.library.outside:
                empty = [
                    one
                    for one in self.library.changer_unit.elements.values()
                    if one.cartridge is None and one.kind.name == "STORAGE"
                ]
                faults.put_in(next(iter(self.library.outside.values())).card.barcode, empty[0].address)
        raise AssertionError(f"the library does not come back: {self.told[-5:]}")

    async def at_rest(self) -> None:
        """Nobody is in the middle of a move or a mount."""
        await self.site.until(
            lambda: (
                not any(one.moving_to_slot_id for one in self.site.state.all(TapeCartridge))
                and not any(one.mounting for one in self.site.state.all(TapeDrive))
            ),
            "the robot rests",
        )

    async def check_all(self) -> None:
        site = self.site
        await self.mend()
        active = [TaskStatus.NEW, TaskStatus.ASSIGNED, TaskStatus.EXECUTION, TaskStatus.SUSPENDED]
        for task in site.state.all(Task):
            if task.status in ACTIVE_STATUSES:
                await site.execute(AdvanceTask(task_id=task.id, status=TaskStatus.ERROR, reason="the history is over"))
        await site.until(
            lambda: not [one for one in site.state.all(TapeTask) if one.status in active], "every tape task ends"
        )
        await self.mend()  # what was still ordered has been done: an export, too
        await self.at_rest()
        check_places(site)
        for backup in site.state.all(Backup):
            assert backup.id in self.archives
            await self.check(backup)
            for part in backup.parts:
                cartridge = site.one(TapeCartridge, part.cartridge_id)
                assert cartridge.format, f"backup {backup.id} is on {cartridge.volume_tag}, which holds nothing"
                assert cartridge.status != CartridgeStatus.SCRATCH
        await self.at_rest()
        check_places(site)


OPERATIONS: dict[str, Callable[[History], Awaitable[None]]] = {
    name: getattr(History, name)
    for name in (
        "write",
        "read",
        "delete",
        "order",
        "import_all",
        "synchronise",
        "crash",
        "wait",
        "hands",
        "jam",
        "kill_drive",
        "reset_drive",
        "cut",
        "power",
        "reset_bus",
        "spoil",
        "write_protect",
        "require_cleaning",
    )
}
STEPS = st.lists(
    st.sampled_from(["write", "write", "write", "write", "read", "read", *OPERATIONS]), min_size=1, max_size=14
)


async def live_through(pool_type: str, seed: int, steps: list[str]) -> None:
    draw = random.Random(seed)
    library = SimulatedLibrary(mechanics=NO_DELAY, capacity_factor=5e-7, drives=2, slots=10)
    for number in range(1, 6):
        library.add_cartridge(f"VT{number:04d}L9")
    history = History(draw, library)
    store, kept = MemoryStore(), SimulatedVolume()
    waiting = list(steps)
    lives = 0
    while True:
        lives += 1
        history.restart = False
        async with running_site(
            library, store=store, seed=seed + lives, pool_type=pool_type, kept=kept
        ) as history.site:
            while waiting and not history.restart:
                name = waiting.pop(0)
                task_ids = {one.id for one in history.site.state.all(Task)}
                try:
                    with trio.move_on_after(20_000.0) as patience:
                        await OPERATIONS[name](history)
                    history.told.append(f"{name}: {'gave up' if patience.cancelled_caught else 'done'}")
                except RbError as error:
                    history.told.append(f"{name}: {error}")
                for task in list(history.site.state.all(Task)):
                    if task.id not in task_ids and task.status in ACTIVE_STATUSES and name != "crash":
                        await history.site.execute(
                            AdvanceTask(task_id=task.id, status=TaskStatus.ERROR, reason="given up by the test")
                        )
            if not waiting and not history.restart:
                await history.check_all()
                return


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(seed=st.integers(0, 10**6), steps=STEPS, pool_type=st.sampled_from([PoolType.TAPE_NATIVE, PoolType.TAPE_LTFS]))
def test_nothing_acknowledged_is_lost(seed: int, steps: list[str], pool_type: str) -> None:
    trio.run(live_through, pool_type, seed, steps, clock=trio.testing.MockClock(autojump_threshold=0))
