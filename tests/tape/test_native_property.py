"""Any sequence of archives, reopenings, power losses and dead drives: what was acknowledged is read back as it was written, and appending goes on."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.scsi.drive import Drive
from drivers.simulated.tape import NO_DELAY, SimulatedLibrary
from drivers.tape.native import NativeSession
from rbcore import errors
from rbcore.tape.native import RECORD_BYTES_MIN
from rbcore.tape.session import PartPlace
from tests.archive.samples import Seeded
from tests.tape.native_cases import ROOT, archive_id, fresh, put_in, reopened, sealed, start

BARCODE = "PR0001L9"
NO_LOCATE = (0x2B, 0x92, 0x34)

archives = st.tuples(
    st.just("archive"),
    st.lists(st.sampled_from([1, 500, 60_000, 65_280, 65_376, 70_000, 200_000, 600_000]), max_size=8),
    st.sampled_from(["finish", "finish", "finish", "end", "abandon"]),
    st.booleans(),
    st.one_of(st.none(), st.none(), st.integers(0, 12)),
)
"""Sizes of blocks, how it ends, whether it is synced in the middle, after how many records the drive dies."""
events = st.one_of(
    archives,
    archives,
    st.just(("close",)),
    st.just(("drop",)),
    st.just(("power",)),
    st.tuples(st.just("garbage"), st.booleans()),
)


@dataclass
class World:
    library: SimulatedLibrary
    drive: Drive
    session: NativeSession
    acknowledged: dict[bytes, PartPlace] = field(default_factory=dict)
    offered: dict[bytes, dict[int, bytes]] = field(default_factory=dict)
    is_full: bool = False
    ends_in_garbage: bool = False

    async def archive(self, sizes: list[int], ending: str, syncs: bool, dies_after: int | None) -> None:
        if not self.session.may_write:
            assert self.session.full, self.session.why_not
            self.is_full = True
            return
        archive = archive_id(len(self.offered) + 1)
        blocks = self.offered[archive] = sealed(archive, sizes, seed=len(self.offered))
        if dies_after is not None:
            self.library.faults.kill_drive(0, after_records=dies_after)
        try:
            await self._write(archive, blocks, ending, syncs)
        except (errors.Unavailable, errors.EndOfMedium, errors.PositionLost):
            assert self.session.why_not
            await self.session.close()
        self.library.drive_units[0].faults.records_until_death = None
        if self.session.part_open or not self.session.may_write:
            await self.power()

    async def _write(self, archive: bytes, blocks: dict[int, bytes], ending: str, syncs: bool) -> None:
        session = self.session
        await session.begin_part(start(archive))
        taken = -1
        for number, block in blocks.items():
            written = await session.write([block])
            assert written.last_block <= number
            assert written.last_block >= taken
            taken = written.last_block
            if syncs and number == 2:
                written = await session.sync()
                assert written.last_block == 2 or written.full
            if written.full:
                ending = "end"
                break
        if ending == "abandon":
            return
        place = await session.finish_part(root=ROOT, ended_ns=1) if ending == "finish" else None
        if place is None:
            place = await session.end_part(next_tag="", ended_ns=1)
            assert place.last_block >= taken
        self.acknowledged[archive] = place
        self.ends_in_garbage = False

    async def close(self) -> None:
        await self.session.close()
        await self.drop()

    async def drop(self) -> None:
        """The server died, the library did not."""
        self.session = await reopened(self.drive, read_through_bytes=200_000, memory_bytes=300_000)
        await self.verify()

    async def power(self) -> None:
        self.library.faults.lose_power()
        self.library.faults.restore_power()
        await self.drive.wait_ready(600)
        await self.drop()

    async def garbage(self, copies: bool) -> None:
        """What crashes leave: at the end of data one record more, with wrong contents or of another place. The next crash overwrites it."""
        if self.ends_in_garbage:
            return
        self.ends_in_garbage = True
        data = random.Random(1).randbytes(70_000)
        if copies:
            await self.drive.locate(1)
            data = (await self.drive.read(RECORD_BYTES_MIN)).data
        await self.drive.space_to_end()
        await self.drive.write(data)
        await self.drop()

    async def verify(self) -> None:
        parts = dict(await self.session.parts())
        assert self.acknowledged.items() <= parts.items()
        assert self.session.may_write or self.session.full, self.session.why_not
        for archive, place in parts.items():
            blocks = self.offered[archive]
            reader = self.session.reader(archive, place)
            index = await reader.index()
            numbers = [row.block for row in index]
            assert numbers == [number for number in blocks if number <= place.last_block]
            for number in random.Random(len(parts)).sample(numbers, min(4, len(numbers))):
                assert await reader.read([number]) == blocks[number]
            assert await reader.read(numbers) == b"".join(blocks[number] for number in numbers)


async def live(
    history: list[tuple[object, ...]], seed: int, factor: float, poor: bool, buffer_bytes: int, early_warning_bytes: int
) -> None:
    library = SimulatedLibrary(
        mechanics=NO_DELAY,
        capacity_factor=factor,
        randomness=Seeded(seed),
        drives_lack=NO_LOCATE if poor else (),
        buffer_bytes=buffer_bytes,
    )
    library.add_cartridge(BARCODE, early_warning_bytes=early_warning_bytes)
    drive = await put_in(library.changer, library.drives[0])
    world = World(library, drive, await fresh(drive, record_bytes=RECORD_BYTES_MIN))
    for name, *arguments in history:
        await getattr(world, str(name))(*arguments)
    await world.close()
    if not world.is_full:
        await world.archive([100_000, 5], "finish", False, None)
        await world.close()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(events, max_size=9),
    st.integers(0, 1000),
    st.sampled_from([2e-6, 2e-7, 8e-8]),
    st.booleans(),
    st.sampled_from([100_000, 1_000_000]),
    st.sampled_from([0, 200_000]),
)
def test_what_was_acknowledged_is_there(
    history: list[tuple[object, ...]], seed: int, factor: float, poor: bool, buffer_bytes: int, early_warning_bytes: int
) -> None:
    trio.run(
        live,
        history,
        seed,
        factor,
        poor,
        buffer_bytes,
        early_warning_bytes,
        clock=trio.testing.MockClock(autojump_threshold=0),
    )
