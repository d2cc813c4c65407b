"""Cartridges: capacity and its two warnings, partitions, protection, WORM, generations, the chip, and what survives a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers.simulated.tape import NO_DELAY, SimulatedLibrary
from drivers.simulated.volume import SimulatedVolume
from drivers.simulated.world import SeededRandomness
from drivers.volume import DirectoryVolume
from rbcore.errors import InvalidRequest, Refused
from rbcore.ports import Volume
from tests.tape.simulated import DRIVE, SLOT, Device, library, loaded

BLOCK = 64 * 1024


async def test_early_warning_comes_with_the_data_and_the_end_without() -> None:
    made = library()
    made.add_cartridge("VT0001L9", early_warning_bytes=5 * BLOCK)
    capacity = made.cartridge("VT0001L9").card.capacity_bytes
    drive = await loaded(made)
    answers: list[str] = []
    while not answers or not answers[-1].startswith("d/"):
        answers.append(await drive.write(bytes(BLOCK)))
    warned = answers.index("0/00/02 EOM 0")
    assert set(answers[:warned]) == {"good"}
    assert set(answers[warned:-1]) == {"0/00/02 EOM 0"}
    assert answers[-1] == f"d/00/02 EOM {BLOCK}"
    assert (warned + 1) * BLOCK > capacity - 5 * BLOCK >= warned * BLOCK
    assert len(answers) * BLOCK > capacity >= (len(answers) - 1) * BLOCK
    written = len(answers) - 1
    assert await drive.position() == (0, written, 0)
    # Something smaller may still fit: the trailer of a writer that was warned.
    assert await drive.write(b"end") == "0/00/02 EOM 0"
    assert await drive.filemarks() == "0/00/02 EOM 0"
    await drive.do(bytes([0x34, *bytes(9)]), receive=20)
    assert drive.data[0] & 0x40
    await drive.rewind()
    assert await drive.space(0, written) == "good"
    assert await drive.read(3) == "good"
    assert drive.data == b"end"
    await drive.rewind()
    assert await drive.write(b"again") == "good"


async def test_fixed_blocks_at_the_end_say_how_many_are_missing() -> None:
    made = library()
    made.add_cartridge("VT0001L9", capacity_factor=1e-7, early_warning_bytes=1)
    drive = await loaded(made)
    await drive.block_bytes(BLOCK)
    fit = made.cartridge("VT0001L9").card.capacity_bytes // BLOCK
    assert await drive.write(bytes(BLOCK * (fit + 3)), fit + 3) == "d/00/02 EOM 3"
    assert await drive.position() == (0, fit, 0)


async def partitioned(drive: Device, additional: int, sizes: list[int], form: int = 1) -> str:
    page = bytearray(await drive.mode(0x11))
    page[3], page[4], page[6] = additional, 0x20 | 0x18 | 0x04, 9
    for at, size in enumerate(sizes):
        page[8 + 2 * at : 10 + 2 * at] = size.to_bytes(2, "big")
    answer = await drive.select(bytes(page))
    return answer if answer != "good" else await drive.do(bytes([0x04, 0, form, 0, 0, 0]))


async def test_partitions() -> None:
    made = library("VT0001L9")
    drive = await loaded(made)
    await drive.write(b"old")
    assert await partitioned(drive, 1, [100, 0xFFFF]) == "5/3b/0c"
    await drive.rewind()
    assert await partitioned(drive, 1, [100, 0xFFFF]) == "good"
    tapes = made.cartridge("VT0001L9").partitions
    assert [tape.wraps for tape in tapes] == [2, 278]
    assert await drive.read(1) == "8/00/05 1"
    assert await drive.write(b"zero") == "good"
    assert await drive.locate(0, partition=1) == "good"
    assert await drive.write(b"one") == "good"
    assert await drive.filemarks() == "good"
    assert await drive.position() == (1, 2, 1)
    assert await drive.rewind() == "good"
    assert await drive.position() == (1, 0, 0)
    assert await drive.locate(0, partition=0) == "good"
    assert await drive.read(4) == "good"
    assert drive.data == b"zero"
    page = await drive.mode(0x11)
    assert (page[2], page[3]) == (3, 1)
    assert await drive.do(bytes([0x8C, 3, *bytes(8), 0, 0, 0, 8, 0, 0]), receive=8) == "good"
    assert drive.data == bytes([0, 2, 0, 2])
    assert await drive.write_attribute(0x080C, 0, b"index", partition=1) == "good"
    assert 0x080C not in await drive.attributes(0)
    assert (await drive.attributes(1))[0x080C] == b"index"
    assert await partitioned(drive, 4, [1, 1, 1, 1]) == "5/26/00"
    assert await partitioned(drive, 1, [20_000, 0xFFFF]) == "5/26/00"
    assert await partitioned(drive, 1, [18_000, 0xFFFF]) == "5/26/00"
    await drive.rewind()
    assert await drive.do(bytes([0x04, 0, 0, 0, 0, 0])) == "good"
    assert len(made.cartridge("VT0001L9").partitions) == 1
    assert made.cartridge("VT0001L9").card.attributes == {}


async def test_old_generations_have_no_partitions() -> None:
    drive = await loaded(library("VT0001L4", generation_number=4, factor=1e-5))
    assert await drive.do(bytes([0x04, 0, 1, 0, 0, 0])) == "5/20/00"
    assert (await drive.mode(0x11))[2] == 0


async def test_write_protection() -> None:
    made = library()
    made.add_cartridge("VT0001L9", write_protected=True)
    drive = await loaded(made)
    for cdb in (bytes([0x0A, 0, 0, 0, 1, 0]), bytes([0x10, 0, 0, 0, 1, 0]), bytes([0x19, 0, 0, 0, 0, 0])):
        assert await drive.do(cdb, send=b"x" if cdb[0] == 0x0A else b"") == "7/27/00"
    await drive.do(bytes([0x1A, 0, 0, 0, 255, 0]), receive=255)
    assert drive.data[2] & 0x80
    assert 9 in await drive.alerts()
    assert await drive.alerts() == []
    made.faults.write_protect("VT0001L9", protected=False)
    assert await drive.write(b"x") == "good"


async def test_worm_is_only_appended_to() -> None:
    drive = await loaded(library("VT0001LZ"))
    assert await drive.write(b"a") == "good"
    await drive.rewind()
    assert await drive.write(b"b") == "7/30/0c 1"
    assert await drive.do(bytes([0x19, 0, 0, 0, 0, 0])) == "7/30/0c"
    assert await drive.do(bytes([0x04, 0, 0, 0, 0, 0])) == "7/30/0c"
    assert (await drive.mode(0x1D))[2] & 1
    assert (await drive.attributes())[0x0408] == b"\x80"
    await drive.space(3, 0)
    assert await drive.write(b"b") == "good"


@pytest.mark.parametrize(
    ("drive_generation", "medium", "answers"),
    [
        (9, 9, ("good", "good")),
        (9, 8, ("good", "good")),
        (9, 7, ("3/30/00", "3/30/00")),
        (7, 5, ("good", "3/30/05")),
        (7, 4, ("3/30/00", "3/30/00")),
        (6, 7, ("3/30/00", "3/30/00")),
    ],
)
async def test_generations(drive_generation: int, medium: int, answers: tuple[str, str]) -> None:
    made = library(f"VT0001L{medium}", generation_number=drive_generation, factor=1e-5)
    changer, drive = Device(made.changer), Device(made.drives[0])
    await changer.clear()
    await changer.move(SLOT, DRIVE)
    assert ((await drive.clear())[-1], await drive.write(b"x")) == answers
    if answers[0] != "good":
        assert 12 in await drive.alerts()
        assert await changer.move(DRIVE, SLOT) == "good"


async def test_the_chip() -> None:
    made = library("VT0001L9")
    drive = await loaded(made)
    found = await drive.attributes()
    assert found[0x0001] == (made.cartridge("VT0001L9").card.capacity_bytes >> 20).to_bytes(8, "big")
    assert (found[0x0003][-1], found[0x0405], found[0x0401].strip()) == (1, b"\x60", b"SIMVT0001L9")
    assert await drive.write_attribute(0x0806, 1, b"VT0001L9".ljust(32)) == "good"
    assert await drive.write_attribute(0x080C, 0, b"coherent", partition=0) == "good"
    assert await drive.write_attribute(0x0806, 1, b"short") == "5/26/00"
    assert await drive.write_attribute(0x0001, 0, bytes(8)) == "5/26/00"
    assert await drive.write_attribute(0x080C, 0, b"x", partition=1) == "5/24/00"
    before = int.from_bytes(found[0x0009], "big")
    await drive.write(b"x")
    await drive.filemarks()
    found = await drive.attributes()
    assert int.from_bytes(found[0x0009], "big") > before
    assert (found[0x0806], found[0x080C]) == (b"VT0001L9".ljust(32), b"coherent")
    assert await drive.write_attribute(0x080C, 0, b"") == "good"
    assert 0x080C not in await drive.attributes()


async def test_volume_statistics() -> None:
    drive = await loaded(library("VT0001L9"))
    for _ in range(3):
        await drive.write(bytes(1_000_000))
    await drive.filemarks()
    page = await drive.log(0x17)
    assert (page[0][0], page[1][-1], page[0x10][-1], page[0x0E][-1], page[0x17][-1]) == (1, 1, 3, 3, 3)
    assert page[0x45] == b"Ultrium 9"
    await drive.unload()
    assert (await drive.log(0x17))[0] == b"\0"


@pytest.mark.parametrize("where", ["disk", "memory"])
async def test_a_library_survives_a_restart(where: str, tmp_path: Path) -> None:
    volume: Volume = SimulatedVolume() if where == "memory" else DirectoryVolume(tmp_path)

    def start() -> SimulatedLibrary:
        return SimulatedLibrary(slots=4, volume=volume, mechanics=NO_DELAY, capacity_factor=1e-6)

    made = start()
    for barcode in ("VT0001L9", "VT0002L9", "VT0003L9"):
        made.add_cartridge(barcode)
    made.faults.take_out(SLOT + 2)
    drive = await loaded(made)
    records = [bytes([at % 251]) * (at % 7) for at in range(1, 2500)]
    for record in records:
        assert await drive.write(record or b"-") == "good"
    assert await drive.filemarks() == "good"
    await drive.write_attribute(0x0806, 1, b"VT0001L9".ljust(32))
    again = start()
    assert again.cartridge("VT0003L9") in again.outside.values()
    assert (again.where("VT0001L9"), again.where("VT0002L9")) == (again.element(DRIVE), again.element(SLOT + 1))
    drive = Device(again.drives[0])
    assert (await drive.clear())[-1] == "good"
    for record in records[:50]:
        assert await drive.read(10, silent=True) == "good"
        assert drive.data == (record or b"-")
    assert await drive.space(1, 1) == "good"
    assert await drive.position() == (0, len(records) + 1, 1)
    assert (await drive.attributes())[0x0806] == b"VT0001L9".ljust(32)
    await drive.unload()
    assert await Device(again.changer).clear() == ["6/29/00", "good"]
    assert again.element(DRIVE).source == SLOT


async def test_two_that_lay_in_one_place() -> None:
    """A crash in the middle of an exchange: the second one is found beside the library."""
    volume = SimulatedVolume()
    made = library("VT0001L9", "VT0002L9", volume=volume)
    made.cartridge("VT0002L9").card.element = SLOT
    made.cartridge("VT0002L9").save()
    again = library(volume=volume)
    assert again.where("VT0001L9") is again.element(SLOT)
    assert again.where("VT0002L9") is None
    again.faults.put_in("VT0002L9", SLOT + 1)


async def test_layout_on_disk(tmp_path: Path) -> None:
    """What the documentation promises to other programs."""
    made = SimulatedLibrary(volume=DirectoryVolume(tmp_path), mechanics=NO_DELAY, capacity_factor=1e-6)
    made.add_cartridge("VT0001L9")
    drive = await loaded(made)
    await drive.write(b"first")
    await drive.filemarks()
    await drive.write(b"second")
    await drive.unload()
    partition = tmp_path / "cartridges/VT0001L9/partition-0/000000"
    assert {path.name: path.read_bytes() for path in partition.iterdir()} == {
        "000000000.record": b"first",
        "000000001.filemark": b"",
        "000000002.record": b"second",
    }
    assert '"barcode": "VT0001L9"' in (tmp_path / "cartridges/VT0001L9/cartridge.json").read_text()
    assert '"element": 256' in (tmp_path / "cartridges/VT0001L9/cartridge.json").read_text()
    assert '"serial": "SIM0000001"' in (tmp_path / "library.json").read_text()
    with pytest.raises(Refused):
        SimulatedLibrary(volume=DirectoryVolume(tmp_path), serial="ANOTHER")


async def test_a_crash_of_the_machine_leaves_a_beginning_of_the_tape() -> None:
    """Whatever the disk makes of a power failure, what a flush had acknowledged is there, and nothing comes after a gap."""
    for seed in range(20):
        randomness = SeededRandomness(seed)
        volume = SimulatedVolume()
        made = SimulatedLibrary(slots=2, drives=1, volume=volume, mechanics=NO_DELAY, capacity_factor=1e-6)
        made.add_cartridge("VT0001L9")
        drive = await loaded(made)
        for at in range(8):
            assert await drive.write(b"%03d" % at) == "good"
        assert await drive.filemarks() == "good"
        for at in range(randomness.token_bytes(1)[0] % 8):
            assert await drive.write(b"lost%d" % at) == "good"
        survivor = volume.crash(randomness)
        made = SimulatedLibrary(slots=2, drives=1, volume=survivor, mechanics=NO_DELAY, capacity_factor=1e-6)
        drive = Device(made.drives[0])
        if made.where("VT0001L9") is not made.element(DRIVE):
            drive = await loaded(made)
        await drive.clear()
        for at in range(8):
            assert await drive.read(3) == "good"
            assert drive.data == b"%03d" % at
        assert await drive.read(1) == "0/00/01 FM 1"


async def test_cartridges_that_do_not_exist() -> None:
    made = library("VT0001L9")
    with pytest.raises(Refused):
        made.add_cartridge("VT0001L9")
    with pytest.raises(Refused):
        made.add_cartridge("VT0002L9", SLOT)
    for barcode in ("../etc", "", "a/b", "x" * 33):
        with pytest.raises(InvalidRequest):
            made.add_cartridge(barcode)
    with pytest.raises(InvalidRequest):
        made.add_cartridge("VT0003L2", kind="worm")
