"""Tape: a simulated year of a library of 4 drives and 500 slots, in less than a minute.

The real journal, planner, actors and cartridge formats over a simulated library whose robot and drives take the time that LTO-9 takes, on the virtual
clock. Every night backups of three pools (native and LTFS); by day restores and checks; every week cartridges leave for the vault and others come
back; every month the drives are cleaned; what is older than its retention is deleted, and its cartridges are written again. Drives die, the robot jams,
connections break, hands exchange cartridges; an operator mends it in the morning. In the end the log is compared with the library, and every
backup that is offered is read and compared.

Capacities, and so the bytes of archives, are scaled down by the same factor: positions on tape, and with them locates, take their real time.
Transfers do not. How long the year takes depends on what its nights bring (``--backups``): the limit is for the
six of the default.
"""

from __future__ import annotations

import argparse
import cProfile
import logging
import pstats
import random
import sys
import time
from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import trio
import trio.testing
from blake3 import blake3

from bench.measure import Verdicts
from drivers.simulated.tape import SimulatedLibrary
from eventlog.memory_log import MemoryLog
from rbcore.commands import AdvanceTask, CreateRecord, DeleteBackups, QueueDriveCleaning, QueueTapeTasks, TapeOrder
from rbcore.entities import Backup, LibrarySlot, Pool, TapeCartridge, TapeDrive, TapeLibrary, TapeTask, Task
from rbcore.errors import RbError
from rbcore.vocabulary import (
    ACTIVE_STATUSES,
    ACTIVE_TAPE_TASK_STATUSES,
    CartridgeStatus,
    DriveStatus,
    LibraryStatus,
    PoolType,
    SlotType,
    TapeTaskType,
    TaskStatus,
)
from tests.tape_actors.site import PutTask, Site, running_site

SECONDS_MAX = 60.0
DAYS = 365
SLOTS, DRIVES, STATION = 500, 4, 10
CAPACITY_FACTOR = 1e-7
"""1.8 MB on a cartridge."""
LTFS_CAPACITY_FACTOR = 1e-6
"""Their index partitions take an 140th of it, and must hold an index."""
POOLS = {"Tape": PoolType.TAPE_NATIVE, "Databases": PoolType.TAPE_NATIVE, "Exchange": PoolType.TAPE_LTFS}
"""The first is the library's own."""
CARTRIDGES = {"Tape": 25, "Databases": 25, "Exchange": 40, "Reserve": 350}
"""Nothing is written to the last ones."""
_NIGHT = ["Tape", "Databases", "Tape", "Databases", "Exchange", "Tape"]
"""Pools of the backups of a night, again and again."""
BACKUPS_A_NIGHT = 6
RESTORES_A_DAY = 3
RETENTION_DAYS = 56
EXPORTS_A_WEEK = 4
VAULT_WEEKS = 4
HOUR, DAY = 3600.0, 86_400.0
BACKUP_TRIES = 20
SEED = 7


_queued: ContextVar[int] = ContextVar("queued")
"""The newest task of whoever asks."""


class YearSite(Site):
    """The site of the tests, whose waits cost nothing while nothing happens."""

    async def until(self, condition: Any, what: str, seconds: float = 2 * DAY) -> None:
        log = self.journal.log
        assert isinstance(log, MemoryLog), "the log of a simulation"
        with trio.move_on_after(seconds):
            while not condition():
                with trio.move_on_after(HOUR):  # not quite all of it is in the log
                    await log.advanced_beyond(log.head)
            return
        raise AssertionError(f"never came: {what}; {self.tape!r}")

    async def write_archive(self, sizes: list[int], **where: Any) -> int:
        """A task whose attempt failed is ended, as its dispatcher would."""
        try:
            return await super().write_archive(sizes, **where)
        except RbError as error:
            await self.execute(AdvanceTask(task_id=_queued.get(), status=TaskStatus.ERROR, reason=error.message[:200]))
            raise

    async def execute(self, command: Any) -> Any:
        reply = await super().execute(command)
        if isinstance(command, PutTask):
            _queued.set(reply.ids[0])
        return reply

    def granted(self, task_id: int) -> bool:
        numbers = self.state.indexes.tape_tasks_of_task.get(task_id, ())
        return any(self.one(TapeTask, number).status == TaskStatus.EXECUTION for number in numbers)


@dataclass
class Year:
    """What was done, and what must come of it."""

    site: YearSite
    library: SimulatedLibrary
    draw: random.Random
    days: int
    backups_a_night: int = BACKUPS_A_NIGHT
    digests: dict[int, bytes] = field(default_factory=dict)
    """Backup id -> digest of its blocks."""
    counts: Counter[str] = field(default_factory=Counter)
    stored_bytes: int = 0
    vault: list[tuple[int, str]] = field(default_factory=list)
    """Day, tag."""
    station: trio.Lock = field(default_factory=trio.Lock)

    async def run(self) -> None:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for day in range(self.days):
                await trio.sleep_until(began + day * DAY)
                nursery.start_soon(self._day, day)
                await trio.sleep_until(began + day * DAY + 14 * HOUR)
                for number in range(self.backups_a_night):
                    nursery.start_soon(self._backup, number, self.draw.uniform(0, 2 * HOUR))
                if self.draw.random() < 0.1:
                    nursery.start_soon(self._bad_luck, self.draw.uniform(0, 3 * HOUR))

    # --- nights ------------------------------------------------------------------------------------------------------------

    async def _backup(self, number: int, after_seconds: float) -> None:
        await trio.sleep(after_seconds)
        pool = self.site.state.by_key(Pool, _NIGHT[number % len(_NIGHT)])
        assert pool is not None, "it was made"
        sizes = [self.draw.randrange(2_000, 12_000) for _ in range(self.draw.randrange(2, 6))]
        why = ""
        for _ in range(BACKUP_TRIES):
            try:
                backup_id = await self.site.write_archive(sizes, pool_id=pool.id)
            except RbError as error:
                why = error.message
                self.counts["attempts that failed"] += 1
                await trio.sleep(HOUR / 2)
                continue
            blocks = self.site.archives.pop(backup_id)
            self.digests[backup_id] = digest_of(blocks)
            self.stored_bytes += sum(map(len, blocks))
            self.counts["backups"] += 1
            return
        raise AssertionError(f"a backup was tried {BACKUP_TRIES} times in vain: {why}")

    async def _bad_luck(self, after_seconds: float) -> None:
        await trio.sleep(after_seconds)
        faults = self.library.faults
        what = self.draw.choice(["jam", "drive", "records", "cut", "bus", "hands"])
        self.counts[f"bad luck: {what}"] += 1
        if what == "jam":
            faults.jam_next_move(in_hand=self.draw.random() < 0.5)
        elif what == "drive":
            faults.kill_drive(self.draw.randrange(DRIVES))
        elif what == "records":
            faults.kill_drive(self.draw.randrange(DRIVES), after_records=5)
        elif what == "cut":
            faults.cut(self.draw.randrange(1 + DRIVES))
        elif what == "bus":
            faults.reset_bus()
        else:
            slots = [one.address for one in self.library.changer_unit.elements.values() if one.kind.name == "STORAGE"]
            faults.swap(*self.draw.sample(slots, 2), noticed=True)

    # --- days --------------------------------------------------------------------------------------------------------------

    async def _day(self, day: int) -> None:
        await self._mend()
        await self._expire()
        if day % 7 == 3:
            await self._exchange(day)
        if day % 30 == 29:
            for drive in list(self.site.state.all(TapeDrive)):
                await self.site.execute(QueueDriveCleaning(drive_id=drive.id, reason="monthly"))
                self.counts["cleanings ordered"] += 1
        for _ in range(RESTORES_A_DAY):
            backups = [one for one in self.site.state.tables[Backup.KIND].values() if not self._why_not_read(one)]
            if backups:
                await self._read(self.draw.choice(backups))
            await trio.sleep(self.draw.uniform(0, HOUR))

    async def _mend(self) -> None:
        """The operator looks after what the night has left: only where something is broken."""
        faults, state = self.library.faults, self.site.state
        for number, drive in enumerate(self.library.drive_units):
            drive.faults.records_until_death = None
            if drive.faults.is_dead:
                faults.reset_drive(number)
        if any(transport._gate.down for transport in self.library.transports):
            faults.mend()
        self.library.changer_unit.jams_next = None
        broken = self.library.changer_unit.is_jammed
        if broken:
            faults.clear_jam()
        broken |= self.site.one(TapeLibrary, 1).status != LibraryStatus.ONLINE
        if broken or any(one.status in (DriveStatus.OFFLINE, DriveStatus.ERROR) for one in state.all(TapeDrive)):
            await self.site.tape.synchronise(1)
            self.counts["synchronisations"] += 1

    async def _expire(self) -> None:
        before_ns = self.site.world.clock.now_ns() - RETENTION_DAYS * int(DAY) * 10**9
        old = [one.id for one in self.site.state.tables[Backup.KIND].values() if one.created_ns < before_ns]
        if old:
            await self.site.execute(DeleteBackups(ids=old))
            self.counts["deleted"] += len(old)
        for number in old:
            del self.digests[number]

    def _why_not_read(self, backup: Backup) -> bool:
        return any(not self.site.one(TapeCartridge, part.cartridge_id).slot_id for part in backup.parts)

    async def _read(self, backup: Backup) -> None:
        why = ""
        for _ in range(BACKUP_TRIES):
            try:
                found = await self.site.read_archive(backup.id)
            except RbError as error:
                why = error.message
                self.counts["reads that failed"] += 1
                await trio.sleep(HOUR / 2)
                continue
            assert digest_of(found) == self.digests[backup.id], f"backup {backup.id} is not what was backed up"
            self.counts["read and compared"] += 1
            return
        raise AssertionError(f"backup {backup.id} could not be read: {why}")

    async def _exchange(self, day: int) -> None:
        """Full cartridges go to the vault; those that were there long enough come back."""
        state = self.site.state
        full = [one for one in state.all(TapeCartridge) if one.status == CartridgeStatus.FULL and self._is_in_slot(one)]
        orders = [TapeOrder(library_id=1, volume_tag=one.volume_tag) for one in full[-EXPORTS_A_WEEK:]]
        if orders:
            reply = await self.site.execute(QueueTapeTasks(task_type=TapeTaskType.EXPORT, orders=orders))
            for number in reply.ids:
                await self.site.tape_task_ended(number)
        for slot in list(state.all(LibrarySlot)):
            if slot.type == SlotType.IMPORT_EXPORT and slot.is_full:
                self.vault.append((day, self.library.faults.take_out(slot.address)))
                self.counts["exported"] += 1
        await self.site.tape.synchronise(1)
        back = [tag for since, tag in self.vault if day - since >= 7 * VAULT_WEEKS]
        await self._bring_back(back)

    async def _bring_back(self, tags: list[str]) -> None:
        station = [one.address for one in self.site.state.all(LibrarySlot) if one.type == SlotType.IMPORT_EXPORT]
        for begin in range(0, len(tags), len(station)):
            chosen = tags[begin : begin + len(station)]
            for tag, address in zip(chosen, station, strict=False):
                self.library.faults.put_in(tag, address)
            await self.site.tape.import_cartridges(1, "Tape")
            self.vault = [one for one in self.vault if one[1] not in chosen]
            self.counts["imported"] += len(chosen)

    def _is_in_slot(self, cartridge: TapeCartridge) -> bool:
        slot = self.site.state.find(LibrarySlot, cartridge.slot_id)
        return slot is not None and slot.type == SlotType.STORAGE

    # --- the end -----------------------------------------------------------------------------------------------------------

    async def check(self) -> None:
        """Log and library agree, every tape task ended, and everything that is offered is what was backed up."""
        site, state = self.site, self.site.state
        await self._mend()
        await self._bring_back([tag for _, tag in self.vault])
        assert not state.tasks_in(*ACTIVE_STATUSES), "every task has ended"
        await site.until(lambda: not state.indexes.active_tape_tasks.get(1), "every tape task ends")
        for backup in sorted(state.all(Backup), key=lambda one: (one.parts[0].cartridge_id, one.parts[0].position)):
            await self._read(backup)
        await site.until(lambda: not state.indexes.active_tape_tasks.get(1), "every tape task ends")
        await trio.sleep(HOUR)  # until every cartridge is back in its slot
        assert {one.id for one in state.all(Backup)} == set(self.digests), "what was acknowledged is offered"
        for slot in state.all(LibrarySlot):
            held = self.library.element(slot.address).cartridge
            assert slot.volume_tag == (held.card.barcode if held is not None else ""), f"{slot} is wrong"
            assert not slot.exception, f"{slot}"
        for cartridge in state.all(TapeCartridge):
            holding = [one.id for one in state.all(LibrarySlot) if one.cartridge_id == cartridge.id]
            assert holding == [cartridge.slot_id], f"{cartridge} is in one place"
            assert not cartridge.moving_to_slot_id, f"{cartridge} has arrived"
        assert all(one.status not in ACTIVE_TAPE_TASK_STATUSES for one in state.all(TapeTask))
        assert self.counts["backups"] == self.days * self.backups_a_night


def digest_of(blocks: list[bytes]) -> bytes:
    return blake3(b"".join(blocks)).digest()


async def live(days: int, backups_a_night: int = BACKUPS_A_NIGHT) -> Year:
    library = SimulatedLibrary(
        slots=SLOTS, drives=DRIVES, import_export=STATION, capacity_factor=CAPACITY_FACTOR, buffer_bytes=64 << 10
    )
    for at, (pool, count) in enumerate(CARTRIDGES.items()):
        for number in range(count):
            factor = LTFS_CAPACITY_FACTOR if pool == "Exchange" else CAPACITY_FACTOR
            library.add_cartridge(f"{pool[:1]}{at}{number:04d}L9", capacity_factor=factor)
    library.add_cartridge("CLN001L1", capacity_factor=1.0)
    library.add_cartridge("CLN002L1", capacity_factor=1.0)
    async with running_site(library, seed=SEED, cartridges=False, make=YearSite) as site:
        assert isinstance(site, YearSite)
        for pool, kind in (POOLS | {"Reserve": PoolType.TAPE_NATIVE}).items():
            if pool != "Tape":  # the library's own
                fields = {"pool_name": pool, "pool_type": kind, "media_server": "media-1"}
                await site.execute(CreateRecord(resource="pool_list", fields=fields))
        names = {f"{pool[:1]}{at}": pool for at, pool in enumerate(CARTRIDGES)}
        for cartridge in library.cartridges():
            tag = cartridge.card.barcode
            fields = {
                "type": "CLN" if tag.startswith("CLN") else "LTO-9",
                "pool": names.get(tag[:2], "Tape"),
                "volume_tag": tag,
                "description": "",
            }
            await site.execute(CreateRecord(resource="tape_cartridges", fields=fields))
        year = Year(site, library, random.Random(SEED), days, backups_a_night)
        await year.run()
        await year.check()
        return year


def report(year: Year, seconds: float) -> int:
    state, statistics = year.site.state, year.library.statistics()
    loads = sum(cartridge.card.loads for cartridge in year.library.cartridges())
    written = [one for one in year.library.cartridges() if one.card.initialisations > 1 or one.card.bytes_written]
    capacity = year.library.cartridges()[0].card.capacity_bytes
    reused = [one for one in written if one.card.bytes_written > 1.5 * capacity]
    print(
        f"{year.days} days of a library with {DRIVES} drives and {SLOTS} slots, LTO-9 mechanics; {year.backups_a_night} backups a night; seed {SEED}"
    )
    print(f"  robot: {statistics.moves:,} moves, {statistics.mounts:,} mounts, {statistics.failed_moves} failed moves")
    drives = statistics.drives
    print(f"  drives: {loads:,} loads, {sum(one.cleanings for one in drives)} cleanings, ", end="")
    print(f"{sum(one.metres for one in drives) / 1000:,.0f} km of tape, ", end="")
    print(f"busy {sum(one.busy_seconds for one in drives) / len(drives) / year.days / HOUR:.1f} h a day each")
    fill = sum(one.partitions[-1].used_bytes / one.card.capacity_bytes for one in written) / len(written)
    print(f"  cartridges: {fill:.0%} full, {len(written)} written, {len(reused)} of them more than once")
    print(
        f"  archives: {year.counts['backups']:,} with {year.stored_bytes / 1e6:,.0f} MB ({CAPACITY_FACTOR:g} of life)"
    )
    print(f"  {', '.join(f'{name} {count:,}' for name, count in sorted(year.counts.items()))}")
    print(f"  log: {state.position:,} events, {len(state.tables[TapeTask.KIND]):,} tape tasks")
    print(f"  {year.days / seconds:,.1f} virtual days a second; {seconds:.1f} s in all")
    print(f"  {len(state.tables[Task.KIND]):,} tasks; {seconds / max(1, state.position) * 1e6:,.0f} us per event")
    verdicts = Verdicts()
    if year.days >= DAYS:
        verdicts.ratio("a year in less than a minute: limit / measured", SECONDS_MAX / seconds, 1.0)
    return verdicts.end()


def main() -> int:
    logging.disable(logging.CRITICAL)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("days", nargs="?", type=int, default=DAYS)
    parser.add_argument("--backups", type=int, default=BACKUPS_A_NIGHT, help="every night")
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    profile = cProfile.Profile() if given.profile else None
    started = time.perf_counter()
    if profile is not None:
        profile.enable()
    year = trio.run(live, given.days, given.backups, clock=trio.testing.MockClock(autojump_threshold=0))
    if profile is not None:
        profile.disable()
        pstats.Stats(profile).sort_stats("tottime").print_stats(60)
    return report(year, time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(main())
