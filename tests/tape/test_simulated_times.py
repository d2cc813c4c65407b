"""What takes time takes it on trio's clock, by generation and by the metres between here and there."""

from __future__ import annotations

import trio

from drivers.simulated.tape import GENERATIONS, Mechanics, SimulatedLibrary
from drivers.simulated.tape.drive import BUFFER_BYTES
from tests.tape.simulated import DRIVE, SLOT, Device, library, loaded

GIGA = 10**9


def test_the_table_of_generations() -> None:
    assert [GENERATIONS[number].capacity_bytes // (100 * 10**9) for number in range(1, 10)] == [
        *(1, 2, 4, 8, 15, 25, 60, 120, 180)
    ]
    assert GENERATIONS[7].readable == {5, 6, 7}
    assert GENERATIONS[8].readable == {7, 8}
    assert GENERATIONS[9].writable == {8, 9}
    assert GENERATIONS[1].readable == {1}
    assert [GENERATIONS[number].partitions_max for number in range(1, 10)] == [1, 1, 1, 1, 2, 4, 4, 4, 4]


async def elapsed(answer: str, expected: str, since: float) -> float:
    assert answer == expected
    return trio.current_time() - since


async def test_loading(autojump_clock: trio.testing.MockClock) -> None:
    made = library("VT0001L8", "VT0002L9", generation_number=8, drives=[8, 9], mechanics=Mechanics())
    changer, drive, newer = Device(made.changer), Device(made.drives[0]), Device(made.drives[1])
    for device in (changer, drive, newer):
        await device.clear()
    start = trio.current_time()
    assert 8 < await elapsed(await changer.move(SLOT, DRIVE), "good", start) < 30
    assert await drive.ready() == "2/04/01"
    assert await drive.read(1) == "2/04/01"
    start = trio.current_time()
    assert await elapsed(await drive.load(), "good", start) == GENERATIONS[8].load_seconds
    assert await drive.clear() == ["6/28/00", "good"]
    # A new LTO-9 is measured once.
    await changer.move(SLOT + 1, DRIVE + 1)
    start = trio.current_time()
    assert await elapsed(await newer.load(), "good", start) > 1200
    await newer.clear()
    await newer.unload()
    start = trio.current_time()
    assert await elapsed(await newer.load(), "good", start) == GENERATIONS[9].load_seconds


async def test_data_at_the_rate_of_the_slower_of_drive_and_cartridge(
    autojump_clock: trio.testing.MockClock,
) -> None:
    made = library("VT0001L8", "VT0002L9", factor=1e-5, drives=2, mechanics=Mechanics())
    for slot, rate in ((SLOT, 360e6), (SLOT + 1, 400e6)):
        drive = await loaded(made, slot, drive=slot - SLOT)
        start = trio.current_time()
        for _ in range(9):
            await drive.write(bytes(1_000_000))
        await drive.filemarks(0)
        assert abs(trio.current_time() - start - 9e6 / rate) < 1e-6


async def test_the_buffer_takes_what_the_tape_has_not_taken_yet(autojump_clock: trio.testing.MockClock) -> None:
    """A host that brings its records as fast as the tape runs never waits; one that is faster waits for all but a buffer."""
    made = library("VT0001L9", factor=1e-4, mechanics=Mechanics())
    drive = await loaded(made)
    record, rate = bytes(1_000_000), GENERATIONS[9].rate_bytes_per_second
    for _ in range(40):
        start = trio.current_time()
        await drive.write(record)
        assert trio.current_time() == start
        await trio.sleep(len(record) / rate)
    start = trio.current_time()
    for _ in range(40):
        await drive.write(record)
    assert abs(trio.current_time() - start - (40e6 - BUFFER_BYTES) / rate) < 1e-6
    await drive.filemarks(0)
    assert abs(trio.current_time() - start - 40e6 / rate) < 1e-6
    # In reading the drive is ahead, from the second record on.
    await drive.rewind()
    await drive.read(len(record))
    await trio.sleep(1)
    start = trio.current_time()
    for _ in range(40):
        await drive.read(len(record))
    assert abs(trio.current_time() - start - (40e6 - BUFFER_BYTES) / rate) < 1e-6


async def test_a_locate_pays_for_the_metres_and_not_for_the_bytes(autojump_clock: trio.testing.MockClock) -> None:
    made = library("VT0001L8", generation_number=8, mechanics=Mechanics())
    drive = await loaded(made)
    wrap = made.cartridge("VT0001L8").partitions[0].wrap_bytes
    block = round(wrap / 4)
    for _ in range(12):
        await drive.write(bytes(block))
    await drive.rewind()
    seconds = []
    for target in (4, 0, 8, 0):
        start = trio.current_time()
        await drive.locate(target)
        seconds.append(trio.current_time() - start)
    length, speed = GENERATIONS[8].length_metres, GENERATIONS[8].locate_metres_per_second
    assert abs(seconds[0] - (2 + length / speed)) < 1
    # Eight blocks are two wraps: there and back again, the head stands nearly above the beginning.
    assert seconds[2] < 3
    assert made.statistics().drives[0].metres > 5 * length


async def test_immediate_commands_return_at_once(autojump_clock: trio.testing.MockClock) -> None:
    made = library("VT0001L8", generation_number=8, mechanics=Mechanics())
    drive = await loaded(made)
    await drive.write(bytes(round(made.cartridge("VT0001L8").partitions[0].wrap_bytes)))
    start = trio.current_time()
    assert await elapsed(await drive.do(bytes([0x01, 1, 0, 0, 0, 0])), "good", start) == 0
    assert await drive.ready() == "2/04/07"
    assert await elapsed(await drive.write(b"x"), "good", start) > 60
    assert await drive.ready() == "good"


async def test_drives_work_side_by_side_and_the_robot_one_by_one(autojump_clock: trio.testing.MockClock) -> None:
    made = library("VT0001L8", "VT0002L8", generation_number=8, mechanics=Mechanics())
    first, second = await loaded(made, SLOT, 0), await loaded(made, SLOT + 1, 1)

    async def write(drive: Device) -> None:
        for _ in range(10):
            assert await drive.write(bytes(720_000)) == "good"
        assert await drive.filemarks(0) == "good"

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write, first)
        nursery.start_soon(write, second)
    assert abs(trio.current_time() - start - 0.02) < 1e-6
    await first.unload()
    await second.unload()
    start, changer = trio.current_time(), Device(made.changer)

    async def bring_back(drive: int) -> None:
        assert await changer.move(DRIVE + drive, SLOT + drive) == "good"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bring_back, 0)
        nursery.start_soon(bring_back, 1)
    assert trio.current_time() - start > 2 * 8


async def test_a_long_erase_takes_hours_and_cleaning_minutes(autojump_clock: trio.testing.MockClock) -> None:
    made = library("VT0001L8", "CLN001L8", generation_number=8, mechanics=Mechanics())
    drive, changer = await loaded(made), Device(made.changer)
    start = trio.current_time()
    await drive.do(bytes([0x19, 1, 0, 0, 0, 0]))
    assert trio.current_time() - start > 8 * 3600
    await drive.unload()
    await changer.move(DRIVE, SLOT)
    await changer.move(SLOT + 1, DRIVE)
    assert await drive.ready() == "2/30/03"
    await trio.sleep(200)
    assert await drive.ready() == "2/3a/00"


async def test_a_day_of_a_large_library_is_quick(autojump_clock: trio.testing.MockClock) -> None:
    """What the simulated year will be made of."""
    made = SimulatedLibrary(slots=200, drives=4, capacity_factor=1e-6)
    for at in range(100):
        made.add_cartridge(f"VT{at:04d}L8")
    changer = Device(made.changer)
    await changer.clear()
    for round_ in range(10):
        for at in range(4):
            drive = Device(made.drives[at])
            assert await changer.move(SLOT + 4 * round_ + at, DRIVE + at) == "good"
            await drive.clear()
            assert await drive.load() in ("good", "6/28/00")
            await drive.clear()
            assert await drive.write(bytes(65536)) == "good"
            assert await drive.filemarks() == "good"
            assert await drive.unload() == "good"
            assert await changer.move(DRIVE + at, SLOT + 4 * round_ + at) == "good"
    assert made.statistics().moves == 80
