"""The simulated drive answers like an LTO drive: every condition with its sense, its data and the position afterwards."""

from __future__ import annotations

import pytest

from tests.tape.simulated import DRIVE, SLOT, Device, library, loaded, said


async def tape_of(*objects: bytes | None) -> Device:
    """A rewound tape with these records; None is a filemark."""
    drive = await loaded(library("VT0001L9"))
    for one in objects:
        assert await (drive.filemarks() if one is None else drive.write(one)) == "good"
    assert await drive.rewind() == "good"
    return drive


async def test_life_of_a_cartridge_in_a_drive() -> None:
    made = library("VT0001L9")
    changer, drive = Device(made.changer), Device(made.drives[0])
    assert await drive.clear() == ["6/29/00", "2/3a/00"]
    assert await drive.load() == "2/3a/00"
    await changer.clear()
    await changer.move(SLOT, DRIVE)
    assert await drive.clear() == ["6/28/00", "good"]
    assert await changer.move(DRIVE, SLOT) == "5/53/01"
    assert await drive.do(bytes([0x1E, 0, 0, 0, 1, 0])) == "good"
    assert await drive.unload() == "5/53/02"
    assert await changer.move(DRIVE, SLOT) == "5/53/02"
    assert await drive.do(bytes([0x1E, 0, 0, 0, 0, 0])) == "good"
    assert await drive.unload() == "good"
    assert await drive.ready() == "2/04/02"
    assert await drive.load() == "good"
    assert await drive.clear() == ["6/28/00", "good"]
    assert await drive.unload() == "good"
    assert await changer.move(DRIVE, SLOT) == "good"
    assert await drive.ready() == "2/3a/00"
    assert await drive.sense() == "2/3a/00"


async def test_variable_records_and_incorrect_length() -> None:
    drive = await tape_of(b"x" * 10, b"y" * 20, b"z" * 30)
    assert await drive.read(10) == "good"
    assert drive.data == b"x" * 10
    assert await drive.read(5) == "0/00/00 ILI -15"
    assert (drive.data, drive.residual, await drive.position()) == (b"y" * 5, 0, (0, 2, 0))
    assert await drive.read(40) == "0/00/00 ILI 10"
    assert (drive.data, drive.residual) == (b"z" * 30, 10)
    assert await drive.position() == (0, 3, 0)
    assert await drive.read(1) == "8/00/05 1"
    assert await drive.position() == (0, 3, 0)


async def test_sili_hides_what_it_may() -> None:
    drive = await tape_of(b"x" * 10, b"y" * 10, b"z" * 10)
    assert await drive.read(20, silent=True) == "good"
    assert (drive.data, await drive.position()) == (b"x" * 10, (0, 1, 0))
    assert await drive.read(4, silent=True) == "good"
    assert drive.data == b"yyyy"
    assert await drive.block_bytes(512) == "good"
    assert await drive.read(4, silent=True) == "0/00/00 ILI -6"
    assert await drive.read(1, fixed=True, silent=True) == "5/24/00"


async def test_fixed_blocks() -> None:
    drive = await tape_of()
    assert await drive.read(1, fixed=True) == "5/24/00"
    assert await drive.write(b"", 1) == "5/24/00"
    assert await drive.block_bytes(4) == "good"
    assert await drive.write(b"aaaabbbbcccc", 3) == "good"
    assert await drive.filemarks() == "good"
    assert await drive.write(b"dddd", 1) == "good"
    assert await drive.write(b"too long") == "good"
    await drive.rewind()
    assert await drive.read(2, fixed=True, block=4) == "good"
    assert drive.data == b"aaaabbbb"
    assert await drive.read(3, fixed=True, block=4) == "0/00/01 FM 2"
    assert (drive.data, await drive.position()) == (b"cccc", (0, 4, 1))
    assert await drive.read(5, fixed=True, block=4) == "0/00/00 ILI 4"
    assert (drive.data, await drive.position()) == (b"dddd", (0, 6, 1))
    assert await drive.read(2, fixed=True, block=4) == "8/00/05 2"


async def test_reading_ends_at_a_filemark_behind_it() -> None:
    drive = await tape_of(b"x", None, b"y")
    assert await drive.read(1) == "good"
    assert await drive.read(7) == "0/00/01 FM 7"
    assert (drive.data, drive.residual, await drive.position()) == (b"", 7, (0, 2, 1))
    assert await drive.read(1) == "good"
    assert drive.data == b"y"


@pytest.mark.parametrize("long", [False, True])
async def test_space_stops_where_it_must(long: bool) -> None:
    drive = await tape_of(b"a", b"b", None, b"c", None, None, b"d")
    for code, count, answer, at in [
        (0, 1, "good", 1),
        (0, 5, "0/00/01 FM 4", 3),
        (0, 1, "good", 4),
        (0, -2, "0/00/01 FM 1", 2),
        (0, -2, "good", 0),
        (0, -1, "0/00/04 EOM 1", 0),
        (1, 1, "good", 3),
        (1, 2, "good", 6),
        (1, 1, "8/00/05 1", 7),
        (0, 1, "8/00/05 1", 7),
        (1, -1, "good", 5),
        (1, -2, "good", 2),
        (1, -1, "0/00/04 EOM 1", 0),
        (3, 0, "good", 7),
        (0, -9, "0/00/01 FM 8", 5),
        (1, -9, "0/00/04 EOM 7", 0),
        (0, 0, "good", 0),
        (2, 1, "5/24/00", 0),
    ]:
        assert (await drive.space(code, count, long=long), (await drive.position())[1]) == (answer, at), (code, count)


async def test_locate() -> None:
    drive = await tape_of(b"a", None, b"b", None, b"c")
    assert (await drive.locate(4), await drive.position()) == ("good", (0, 4, 2))
    assert (await drive.locate(1), await drive.position()) == ("good", (0, 1, 0))
    assert (await drive.locate(5), await drive.position()) == ("good", (0, 5, 2))
    assert (await drive.locate(6), await drive.position()) == ("8/00/05 0", (0, 5, 2))
    assert (await drive.locate(1, kind=1), await drive.position()) == ("good", (0, 3, 1))
    assert (await drive.locate(0, kind=3), await drive.position()) == ("good", (0, 5, 2))
    assert (await drive.locate(0, partition=1)) == "5/24/00"
    assert await drive.do(bytes([0x2B, 0, 0, 0, 0, 0, 2, 0, 0, 0])) == "good"
    assert await drive.read(1) == "good"
    assert drive.data == b"b"


async def test_writing_in_the_middle_ends_the_data_there() -> None:
    drive = await tape_of(b"a", None, b"b", b"c")
    await drive.locate(1)
    assert await drive.write(b"new") == "good"
    assert await drive.read(1) == "8/00/05 1"
    await drive.rewind()
    assert await drive.space(3, 0) == "good"
    assert await drive.position() == (0, 2, 0)


async def test_forms_of_read_position() -> None:
    drive = await tape_of(b"a" * 100, None)
    assert await drive.do(bytes([0x34, *bytes(9)]), receive=20) == "good"
    assert (drive.data[0], drive.data[4:8]) == (0x80, bytes(4))
    await drive.space(3, 0)
    await drive.write(b"b" * 50)
    await drive.do(bytes([0x34, *bytes(9)]), receive=20)
    assert drive.data == bytes([0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 50])
    await drive.do(bytes([0x34, 8, 0, 0, 0, 0, 0, 0, 32, 0]), receive=32)
    assert (drive.data[8:16], drive.data[16:24], drive.data[5:8]) == (b"\0" * 7 + b"\3", b"\0" * 7 + b"\2", b"\0\0\1")
    assert await drive.filemarks(0) == "good"
    await drive.do(bytes([0x34, *bytes(9)]), receive=20)
    assert drive.data[4:16] == bytes([0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, 0])
    assert await drive.do(bytes([0x34, 3, *bytes(8)]), receive=20) == "5/24/00"


async def test_erase_and_format() -> None:
    drive = await tape_of(b"a", b"b")
    await drive.locate(1)
    assert await drive.do(bytes([0x04, 0, 0, 0, 0, 0])) == "5/3b/0c"
    assert await drive.do(bytes([0x19, 0, 0, 0, 0, 0])) == "good"
    assert await drive.read(1) == "8/00/05 1"
    await drive.rewind()
    assert await drive.read(1) == "good"
    assert await drive.do(bytes([0x19, 1, 0, 0, 0, 0])) == "good"
    await drive.rewind()
    assert await drive.do(bytes([0x04, 0, 0, 0, 0, 0])) == "good"
    assert await drive.read(1) == "8/00/05 1"


async def test_what_a_drive_lacks_is_refused() -> None:
    made = library("VT0001L9", drives_lack=(0x92, 0x2B))
    drive = await loaded(made)
    assert await drive.locate(0) == "5/20/00"
    assert await drive.do(bytes([0xC1, *bytes(5)])) == "5/20/00"
    assert await drive.do(bytes([0xA3, 0x0C, 0, *bytes(9)])[:6] + b"\0\0\xff\xff\0\0", receive=0xFFFF) == "good"
    rows = [drive.data[at] for at in range(4, len(drive.data), 8)]
    assert 0x0A in rows
    assert 0x92 not in rows
    for opcode, support in ((0x92, 1), (0x0A, 3)):
        assert await drive.do(bytes([0xA3, 0x0C, 1, opcode, 0, 0, 0, 0, 0, 64, 0, 0]), receive=64) == "good"
        assert drive.data[1] & 7 == support


async def test_inquiry_and_pages() -> None:
    drive = await tape_of()
    assert await drive.do(bytes([0x12, 0, 0, 0, 96, 0]), receive=96) == "good"
    assert (drive.data[0], drive.data[8:16], drive.data[16:27]) == (1, b"RBMEDIA ", b"ULTRIUM-TD9")
    serial = drive.data[36:56].strip()
    assert await drive.do(bytes([0x12, 1, 0x80, 0, 96, 0]), receive=96) == "good"
    assert drive.data[4:] == serial
    assert await drive.do(bytes([0x12, 1, 0, 0, 96, 0]), receive=96) == "good"
    assert drive.data[4:] == bytes([0, 0x80, 0x83, 0xB0, 0xB1])
    assert await drive.do(bytes([0x12, 1, 0x99, 0, 96, 0]), receive=96) == "5/24/00"
    assert await drive.do(bytes([0x05, *bytes(5)]), receive=6) == "good"
    assert drive.data == bytes([0, 0x80, 0, 0, 0, 1])
    assert await drive.do(bytes([0x1A, 0, 0x3F, 0, 255, 0]), receive=255) == "good"
    assert drive.data[0] == len(drive.data) - 1
    assert (drive.data[3], drive.data[4]) == (8, 0x60)
    for page in (0x0F, 0x10, 0x11, 0x1D):
        assert (await drive.mode(page))[0] == page
    assert await drive.do(bytes([0x1A, 0, 0x2A, 0, 255, 0]), receive=255) == "5/24/00"
    assert await drive.do(bytes([0x44, 0, 0, 0, 0, 0, 0, 2, 0, 0]), receive=512) == "good"
    assert (len(drive.data) - 4) % 52 == 0


async def test_compression_is_a_parameter_that_others_hear_of() -> None:
    made = library("VT0001L9")
    drive = await loaded(made)
    other = Device(made.connect(1, "other"))
    await other.clear()
    page = await drive.mode(0x0F)
    assert page[2] & 0x80
    assert await drive.select(page[:2] + bytes([page[2] & 0x7F]) + page[3:]) == "good"
    assert not (await drive.mode(0x0F))[2] & 0x80
    assert await other.clear() == ["6/2a/01", "good"]
    assert await drive.select(page[:4] + b"\x77" + page[5:]) == "5/26/00"


async def test_reservation_and_holds_belong_to_an_initiator() -> None:
    made = library("VT0001L9")
    drive = await loaded(made)
    other = Device(made.connect(1, "other"))
    await other.clear()
    assert await drive.do(bytes([0x16, *bytes(5)])) == "good"
    assert await other.ready() == "conflict"
    assert await other.do(bytes([0x12, 0, 0, 0, 36, 0]), receive=36) == "good"
    assert await other.do(bytes([0x17, *bytes(5)])) == "good"
    assert await other.ready() == "conflict"
    await drive.transport.aclose()
    assert await other.ready() == "good"


async def test_wrong_commands() -> None:
    drive = await tape_of()
    assert await drive.do(bytes([0x00] * 10)) == "5/24/00"
    result = await drive.transport.execute(bytes([0x0A, 0, 0, 0, 9, 0]), send=b"short", timeout_seconds=1)
    assert said(result) == "5/1a/00"
    assert await drive.position() == (0, 0, 0)
