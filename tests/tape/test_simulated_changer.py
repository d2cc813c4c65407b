"""The simulated changer answers like the robot of a library: what lies where, moves, and their refusals."""

from __future__ import annotations

import pytest

from rbcore.errors import Refused
from tests.tape.simulated import DRIVE, SLOT, STATION, Device, library, loaded, number


async def test_inventory_by_type_and_all_at_once() -> None:
    made = library("VT0001L9", "CLN001L9", slots=3, drives=2, import_export=1)
    changer = Device(made.changer)
    assert await changer.clear() == ["6/29/00", "good"]
    assert await changer.inventory() == {SLOT: "VT0001L9", SLOT + 1: "CLN001L9"}
    assert await changer.report(0) == "good"
    head = changer.data
    assert (int.from_bytes(head[0:2], "big"), int.from_bytes(head[2:4], "big")) == (1, 7)
    pages, at = [], 8
    while at < len(head):
        pages.append((head[at], head[at + 1] >> 7, int.from_bytes(head[at + 2 : at + 4], "big")))
        at += 8 + int.from_bytes(head[at + 5 : at + 8], "big")
    assert pages == [(1, 1, 52), (2, 1, 52), (3, 1, 52), (4, 1, 52)]
    assert await changer.report(2, tags=False) == "good"
    assert int.from_bytes(changer.data[10:12], "big") == 16
    assert await changer.report(2, first=SLOT + 1) == "good"
    assert int.from_bytes(changer.data[2:4], "big") == 2
    assert await changer.report(5) == "5/24/00"
    short = b"\xb8\x12" + bytes(2) + b"\xff\xff" + bytes(1) + number(8, 3) + bytes(2)
    assert await changer.do(short, receive=8) == "good"
    assert len(changer.data) == 8
    assert int.from_bytes(changer.data[5:8], "big") == 8 + 3 * 52


async def test_drives_are_known_by_their_serial_numbers() -> None:
    made = library(drives=2)
    changer, drive = Device(made.changer), Device(made.drives[1])
    await changer.clear()
    assert await changer.report(4, devices=True) == "good"
    assert int.from_bytes(changer.data[10:12], "big") == 86
    last = changer.data[-38:]
    assert last[:4] == bytes([2, 1, 0, 34])
    assert await drive.do(bytes([0x12, 1, 0x80, 0, 96, 0]), receive=96) == "good"
    assert last[4:12] == b"RBMEDIA "
    assert last[28:].strip() == drive.data[4:]
    assert await drive.do(bytes([0x12, 1, 0x83, 0, 96, 0]), receive=96) == "good"
    assert drive.data[8:] == last[4:].strip()


async def test_element_addresses() -> None:
    made = library(slots=5, drives=2, import_export=3)
    changer = Device(made.changer)
    await changer.clear()
    raw = await changer.mode(0x1D)
    ranges = [int.from_bytes(raw[at : at + 2], "big") for at in range(2, 18, 2)]
    assert ranges == [1, 1, SLOT, 5, STATION, 3, DRIVE, 2]
    assert len(await changer.mode(0x1F)) == 20
    assert len(await changer.mode(0x1E)) == 4


async def test_moves_and_their_refusals() -> None:
    made = library("VT0001L9", "VT0002L9")
    changer = Device(made.changer)
    await changer.clear()
    assert await changer.move(SLOT, SLOT + 1) == "5/3b/0d"
    assert await changer.move(SLOT + 7, SLOT + 8) == "5/3b/0e"
    assert await changer.move(SLOT, 9999) == "5/21/01"
    assert await changer.move(SLOT, 1) == "5/21/01"
    assert await changer.move(SLOT, SLOT) == "5/3b/0d"
    assert await changer.move(SLOT, STATION) == "good"
    assert await changer.inventory() == {STATION: "VT0001L9", SLOT + 1: "VT0002L9"}
    assert await changer.move(STATION, DRIVE) == "good"
    await changer.report(4)
    assert (changer.data[16 + 2] & 1, changer.data[16 + 9] & 0x80) == (1, 0x80)
    assert int.from_bytes(changer.data[16 + 10 : 16 + 12], "big") == SLOT
    assert made.statistics().moves == 2
    assert made.statistics().mounts == 1
    assert made.statistics().failed_moves == 3


async def test_exchange() -> None:
    made = library("VT0001L9", "VT0002L9")
    drive, changer = await loaded(made), Device(made.changer)
    assert await changer.exchange(SLOT + 1, DRIVE, SLOT + 1) == "5/53/01"
    await drive.unload()
    assert await changer.exchange(SLOT + 1, DRIVE, SLOT) == "good"
    assert await changer.inventory() == {SLOT: "VT0001L9", DRIVE: "VT0002L9"}
    assert await drive.clear() == ["6/28/00", "good"]
    await drive.unload()
    assert await changer.exchange(SLOT, DRIVE, SLOT) == "good"
    assert await changer.inventory() == {SLOT: "VT0002L9", DRIVE: "VT0001L9"}
    assert await changer.exchange(SLOT, SLOT + 5, SLOT + 6) == "5/3b/0e"


async def test_other_commands() -> None:
    made = library("VT0001L9", unloads_drives=True)
    changer = Device(made.changer)
    await changer.clear()
    assert await changer.initialize() == "good"
    assert await changer.do(b"\x37\x01" + number(SLOT, 2) + bytes(2) + number(2, 2) + bytes(2)) == "good"
    assert await changer.do(b"\x2b\0\0\0" + number(SLOT, 2) + bytes(4)) == "good"
    assert await changer.do(b"\x2b\0\0\0" + number(77, 2) + bytes(4)) == "5/21/01"
    assert await changer.do(bytes([0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0]), receive=64) == "good"
    assert int.from_bytes(changer.data[:4], "big") == 8 * 3
    await loaded(made)
    assert await changer.move(DRIVE, SLOT) == "good"


async def test_hands_that_the_library_notices() -> None:
    made = library("VT0001L9", "VT0002L9")
    changer = Device(made.changer)
    await changer.clear()
    made.faults.take_out(SLOT)
    assert await changer.clear() == ["6/28/00", "good"]
    assert await changer.inventory() == {SLOT + 1: "VT0002L9"}
    made.faults.put_in("VT0001L9", STATION)
    assert await changer.clear() == ["6/28/01", "good"]
    await changer.report(3)
    assert changer.data[16 + 2] & 0x03 == 0x03
    await changer.do(bytes([0x1E, 0, 0, 0, 1, 0]))
    with pytest.raises(Refused):
        made.faults.take_out(STATION)


async def test_hands_behind_the_back() -> None:
    """The library tells what it believes until it looks again, or until a move finds out."""
    made = library("VT0001L9", "VT0002L9")
    changer = Device(made.changer)
    await changer.clear()
    made.faults.swap(SLOT, SLOT + 1)
    assert await changer.inventory() == {SLOT: "VT0001L9", SLOT + 1: "VT0002L9"}
    assert "believed VT0001L9" in repr(made.element(SLOT))
    assert await changer.initialize() == "good"
    assert await changer.inventory() == {SLOT: "VT0002L9", SLOT + 1: "VT0001L9"}
    made.faults.take_out(SLOT, noticed=False)
    assert await changer.ready() == "good"
    assert await changer.move(SLOT, DRIVE) == "5/3b/0e"
    assert await changer.inventory() == {SLOT + 1: "VT0001L9"}


async def test_labels() -> None:
    made = library("VT0001L9", "VT0002L9")
    changer = Device(made.changer)
    await changer.clear()
    made.faults.hide_barcode("VT0001L9")
    made.faults.relabel("VT0002L9", "WRONGXL9")
    await changer.initialize()
    assert await changer.inventory() == {SLOT: "?", SLOT + 1: "WRONGXL9"}


async def test_jams() -> None:
    made = library("VT0001L9", "VT0002L9")
    changer = Device(made.changer)
    await changer.clear()
    made.faults.jam_next_move(in_hand=False)
    assert await changer.move(SLOT, DRIVE) == "4/15/01"
    assert (await changer.ready(), await changer.move(SLOT, DRIVE)) == ("2/04/03", "4/15/01")
    assert await changer.alerts() == [1]
    made.faults.clear_jam()
    assert await changer.clear() == ["6/28/00", "good"]
    made.faults.jam_next_move(in_hand=True)
    assert await changer.move(SLOT, DRIVE) == "4/15/01"
    assert await changer.inventory() == {1: "VT0001L9", SLOT + 1: "VT0002L9"}
    assert "VT0001L9 in the hand" in repr(made)
    made.faults.clear_jam()
    await changer.clear()
    assert await changer.move(SLOT + 1, SLOT + 2) == "5/3b/0d"
    assert await changer.move(1, SLOT) == "good"
    assert await changer.inventory() == {SLOT: "VT0001L9", SLOT + 1: "VT0002L9"}
