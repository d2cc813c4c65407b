"""Bad luck by name: what a host hears of it, where the tape stands afterwards, and what is never lost."""

from __future__ import annotations

import pytest
import trio

from drivers.simulated.tape import Mechanics, SimulatedLibrary
from drivers.simulated.volume import SimulatedVolume
from drivers.simulated.world import SeededRandomness
from rbcore.errors import DeadlineExceeded, NotFound, Unavailable
from tests.tape.simulated import DRIVE, SLOT, Device, library, loaded


async def test_an_unreadable_record() -> None:
    made = library("VT0001L9")
    drive = await loaded(made)
    for one in (b"a", b"b", b"c"):
        await drive.write(one)
    made.faults.spoil_record("VT0001L9", 1)
    await drive.rewind()
    assert await drive.read(1) == "good"
    assert await drive.read(1) == "3/11/00 1"
    assert 5 in await drive.alerts()
    assert await drive.read(1) == "good"
    assert drive.data == b"c"
    await drive.locate(1)
    assert await drive.write(b"B") == "good"
    await drive.locate(1)
    assert await drive.read(1) == "good"
    made = library("VT0002L9", randomness=SeededRandomness(3))
    with pytest.raises(NotFound):
        made.faults.spoil_some_record("VT0002L9")
    drive = await loaded(made)
    for _ in range(9):
        await drive.write(b"x")
    await drive.filemarks()
    _, spoiled = made.faults.spoil_some_record("VT0002L9")
    await drive.locate(spoiled)
    assert await drive.read(1) == "3/11/00 1"


async def test_a_worn_medium() -> None:
    made = library("VT0001L9")
    drive = await loaded(made)
    made.faults.wear_out("VT0001L9", writes_left=2)
    assert [await drive.write(b"x") for _ in range(4)] == ["good", "good", "3/0c/00 1", "3/0c/00 1"]
    assert await drive.position() == (0, 2, 0)
    assert 6 in await drive.alerts()
    assert made.statistics().drives[0].write_errors == 2
    made.faults.wear_out("VT0001L9", reads_left=1)
    await drive.rewind()
    assert [await drive.read(1), await drive.read(1)] == ["good", "3/11/00 1"]


async def test_a_broken_cartridge() -> None:
    made = library("VT0001L9")
    made.faults.break_cartridge("VT0001L9")
    changer, drive = Device(made.changer), Device(made.drives[0])
    await changer.clear()
    await changer.move(SLOT, DRIVE)
    assert (await drive.clear())[-1] == "3/53/00"
    assert await drive.alerts() == [14]
    assert await drive.load() == "3/53/00"
    assert (await drive.clear())[-1] == "3/53/00"
    assert await drive.alerts() == [14]
    assert await changer.move(DRIVE, SLOT) == "good"


async def test_a_drive_that_dies_in_the_middle_of_writing() -> None:
    made = library("VT0001L9")
    drive = await loaded(made)
    await drive.write(b"kept")
    await drive.filemarks()
    made.faults.kill_drive(0, after_records=2)
    assert [await drive.write(b"lost"), await drive.write(b"lost")] == ["good", "good"]
    with pytest.raises(Unavailable):
        await drive.write(b"never")
    assert "dead" in repr(made)
    made.faults.reset_drive(0)
    assert await drive.clear() == ["6/29/00", "6/28/00", "good"]
    assert await drive.position() == (0, 0, 0)
    await drive.space(3, 0)
    assert await drive.position() == (0, 2, 1)


async def test_a_dead_drive_does_not_answer_anything() -> None:
    made = library("VT0001L9")
    drive = await loaded(made)
    made.faults.kill_drive(0)
    for _ in range(2):
        with pytest.raises(Unavailable):
            await drive.ready()
    assert (await Device(made.drives[1]).clear())[-1] == "2/3a/00"


async def test_what_was_not_flushed_is_lost_with_the_power_and_what_was_is_not() -> None:
    for seed in range(10):
        made = library("VT0001L9", randomness=SeededRandomness(seed))
        drive, changer = await loaded(made), Device(made.changer)
        for at in range(3):
            await drive.write(b"kept%d" % at)
        await drive.filemarks()
        for at in range(4):
            await drive.write(b"lost%d" % at)
        made.faults.lose_power()
        for device in (drive, changer):
            with pytest.raises(Unavailable):
                await device.ready()
        made.faults.restore_power()
        assert await drive.clear() == ["6/29/00", "6/28/00", "good"]
        assert await changer.clear() == ["6/29/00", "good"]
        assert await drive.position() == (0, 0, 0)
        await drive.space(3, 0)
        _, end, marks = await drive.position()
        assert 4 <= end <= 8
        assert marks == 1
        await drive.rewind()
        for at in range(3):
            assert await drive.read(5) == "good"
            assert drive.data == b"kept%d" % at


async def test_an_overwrite_that_was_not_flushed_never_happened() -> None:
    made = library("VT0001L9")
    drive = await loaded(made)
    for one in (b"a", b"b", b"c"):
        await drive.write(one)
    await drive.rewind()
    await drive.write(b"new")
    made.faults.lose_power()
    made.faults.restore_power()
    await drive.clear()
    assert await drive.read(1) == "good"
    assert drive.data == b"a"


async def test_power_fails_while_the_robot_carries(autojump_clock: trio.testing.MockClock) -> None:
    made = library("VT0001L9", mechanics=Mechanics())
    changer = Device(made.changer)
    await changer.clear()
    async with trio.open_nursery() as nursery:

        async def fail() -> None:
            await trio.sleep(5)
            made.faults.lose_power()

        nursery.start_soon(fail)
        with pytest.raises(Unavailable):
            await changer.move(SLOT, DRIVE)
    assert made.where("VT0001L9") is made.element(1)
    made.faults.restore_power()
    assert await changer.clear() == ["6/29/00", "2/04/01"]
    await trio.sleep(60)
    assert await changer.inventory() == {1: "VT0001L9"}
    assert await changer.move(1, SLOT) == "good"


async def test_a_cut_connection_does_not_stop_the_robot(autojump_clock: trio.testing.MockClock) -> None:
    made = library("VT0001L9", mechanics=Mechanics())
    changer = Device(made.changer)
    await changer.clear()
    await changer.do(bytes([0x1E, 0, 0, 0, 1, 0]))
    async with trio.open_nursery() as nursery:

        async def cut() -> None:
            await trio.sleep(5)
            made.faults.cut(0)

        nursery.start_soon(cut)
        with pytest.raises(Unavailable):
            await changer.move(SLOT, SLOT + 5)
    with pytest.raises(Unavailable):
        await changer.ready()
    made.faults.mend(0)
    assert await changer.clear() == ["6/29/00", "good"]
    assert await changer.inventory() == {SLOT + 5: "VT0001L9"}
    assert not made.changer_unit.is_removal_prevented


async def test_a_bus_reset_keeps_data_and_position_and_nothing_else() -> None:
    made = library("VT0001L9")
    drive = await loaded(made)
    await drive.block_bytes(4)
    await drive.do(bytes([0x16, *bytes(5)]))
    await drive.write(b"data")
    made.faults.reset_bus()
    assert await drive.clear() == ["6/29/00", "good"]
    assert await drive.position() == (0, 1, 0)
    assert await drive.read(1, fixed=True, block=4) == "5/24/00"


async def test_cleaning() -> None:
    made = library("VT0001L9", "CLN001L9")
    drive, changer = await loaded(made), Device(made.changer)
    made.faults.require_cleaning(0)
    assert await drive.sense() == "0/00/17"
    assert await drive.alerts() == [20]
    assert await drive.alerts() == [20]
    assert "needs cleaning" in repr(made)
    await drive.unload()
    await changer.move(DRIVE, SLOT)
    assert await changer.move(SLOT + 1, DRIVE) == "good"
    assert await drive.ready() == "2/3a/00"
    assert await changer.move(DRIVE, SLOT + 1) == "good"
    assert await drive.alerts() == []
    assert made.cartridge("CLN001L9").card.cleanings_left == 49
    made.cartridge("CLN001L9").card.cleanings_left = 0
    await changer.move(SLOT + 1, DRIVE)
    assert await drive.ready() == "3/30/07"
    assert await drive.alerts() == [22]
    assert await changer.move(DRIVE, SLOT + 1) == "good"


async def test_drives_get_dirty_by_use() -> None:
    made = library("VT0001L9", clean_after_metres=100.0)
    drive = await loaded(made)
    assert await drive.sense() == "0/00/00"
    await drive.write(bytes(1_000_000))
    assert await drive.sense() == "0/00/17"


async def test_closed_and_late(autojump_clock: trio.testing.MockClock) -> None:
    made = library("VT0001L9", mechanics=Mechanics())
    changer = Device(made.changer)
    await changer.clear()
    with pytest.raises(DeadlineExceeded):
        await changer.move(SLOT, SLOT + 3, timeout=2)
    assert await changer.inventory() == {SLOT + 3: "VT0001L9"}
    with trio.move_on_after(1) as scope:
        await changer.move(SLOT + 3, SLOT)
    assert scope.cancelled_caught
    assert await changer.inventory() == {SLOT: "VT0001L9"}
    await changer.transport.aclose()
    await changer.transport.aclose()
    with pytest.raises(Unavailable):
        await changer.ready()


async def test_two_libraries_from_one_seed_fare_alike() -> None:
    def story(seed: int) -> SimulatedLibrary:
        return library("VT0001L9", randomness=SeededRandomness(seed))

    ends = []
    for made in (story(5), story(5)):
        drive = await loaded(made)
        for at in range(50):
            await drive.write(b"%d" % at)
        made.faults.lose_power()
        made.faults.restore_power()
        await drive.clear()
        await drive.space(3, 0)
        ends.append(await drive.position())
    assert ends[0] == ends[1]


async def test_a_new_login_of_the_same_initiator_ends_the_old_one() -> None:
    made = library("VT0001L9")
    old = Device(made.changer)
    await old.clear()
    await old.do(bytes([0x1E, 0, 0, 0, 1, 0]))
    new = Device(made.connect(0))
    assert await new.clear() == ["6/29/00", "good"]
    assert not made.changer_unit.is_removal_prevented
    with pytest.raises(Unavailable):
        await old.ready()
    made.faults.lose_power()
    with pytest.raises(Unavailable):
        await Device(made.connect(0)).ready()


async def test_a_hand_does_not_wait_for_the_buffer() -> None:
    made = library("VT0001L9")
    drive = await loaded(made)
    await drive.write(b"kept")
    await drive.filemarks(0)
    await drive.write(b"lost")
    assert made.faults.take_out(DRIVE) == "VT0001L9"
    assert await drive.ready() == "2/3a/00"
    assert len(made.cartridge("VT0001L9").partitions[0]) == 1


async def test_without_a_buffer_nothing_is_lost() -> None:
    made = library("VT0001L9")
    drive = await loaded(made)
    assert await drive.do(bytes([0x15, 0x10, 0, 0, 4, 0]), send=bytes(4)) == "good"
    await drive.write(b"kept")
    made.faults.lose_power()
    made.faults.restore_power()
    await drive.clear()
    assert await drive.read(4) == "good"


async def test_a_robot_that_was_given_up_on_is_still_busy(autojump_clock: trio.testing.MockClock) -> None:
    made = library("VT0001L9", "VT0002L9", mechanics=Mechanics())
    changer = Device(made.changer)
    await changer.clear()
    start = trio.current_time()
    with pytest.raises(DeadlineExceeded):
        await changer.move(SLOT, SLOT + 5, timeout=1)
    assert await changer.move(SLOT + 1, SLOT + 6) == "good"
    assert trio.current_time() - start > 16


async def test_a_full_disk_under_the_library_is_no_answer_and_costs_nothing() -> None:
    volume = SimulatedVolume()
    made = library("VT0001L9", volume=volume)
    drive = await loaded(made)
    await drive.write(bytes(10_000))
    await drive.filemarks()
    capacity, volume.capacity_bytes = volume.capacity_bytes, 15_000
    await drive.write(bytes(10_000))
    with pytest.raises(Unavailable):
        await drive.filemarks(0)
    volume.capacity_bytes = capacity
    assert await drive.filemarks(0) == "good"
    await drive.locate(2)
    assert await drive.read(10_000) == "good"
