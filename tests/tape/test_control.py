"""Faults by name from outside: what is understood, what is refused, and that it happens to the library."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from drivers.simulated.tape import SimulatedLibrary
from drivers.simulated.tape import control as c
from rbcore.errors import InvalidRequest, RbError, Refused, Unavailable
from tests.tape.simulated import DRIVE, SLOT, STATION, Device, library, loaded


async def told(made: SimulatedLibrary, line: str) -> str:
    return await c.carry_out(made, line)


async def test_hands_move_cartridges() -> None:
    made = library("VT0001L9", "VT0002L9")
    changer = Device(made.changer)
    await changer.clear()
    assert await told(made, f"take_out {SLOT}") == "VT0001L9"
    assert await changer.ready() == "6/28/00"
    assert await told(made, f"put_in VT0001L9 {STATION} noticed=no") == ""
    assert await changer.inventory() == {SLOT + 1: "VT0002L9"}
    await told(made, f"swap {SLOT + 1} {SLOT + 5} noticed=yes")
    assert await changer.ready() == "6/28/00"
    assert await changer.inventory() == {SLOT + 5: "VT0002L9"}


async def test_cartridges_drives_and_robot_break_and_are_mended() -> None:
    made = library("VT0001L9")
    drive = await loaded(made)
    changer = Device(made.changer)
    await drive.write(b"abc")
    assert await told(made, "spoil_some_record VT0001L9") == "0 0"
    await drive.rewind()
    assert await drive.read(3) == "3/11/00 3"
    await told(made, "write_protect VT0001L9 protected=yes")
    assert await drive.write(b"abc") == "7/27/00"
    await told(made, "write_protect VT0001L9 protected=no")
    assert await drive.write(b"abc") == "good"
    await told(made, "require_cleaning 0")
    assert await drive.sense() == "0/00/17"
    await told(made, "kill_drive 0 after_records=1")
    await drive.write(b"abc")
    with pytest.raises(Unavailable):
        await drive.write(b"abc")
    await told(made, "reset_drive 0")
    assert (await drive.clear())[0] == "6/29/00"
    await told(made, "jam_robot")
    assert await changer.move(DRIVE, SLOT) == "4/15/01"
    assert "jammed" in await told(made, "status")
    await told(made, "clear_jam")
    await told(made, "lose_power")
    with pytest.raises(Unavailable):
        await changer.ready()
    await told(made, "restore_power")
    assert (await changer.clear())[0] == "6/29/00"


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nonsense",
        "__init__ 3",
        "_touched yes",
        "take_out",
        "take_out -1",
        "take_out 1024 yes",
        "take_out 1024 noticed",
        "take_out 1024 noticed=perhaps",
        "take_out 1024 noticed=no noticed=no",
        "take_out noticed=no 1024",
        "take_out 1024 1025",
        "take_out 1024 depth=3",
        "take_out 99999",
        "take_out ١٠٢٤",
        "put_in NOBODY 1024",
        "jam_next_move",
        "jam_next_move yes",
        "kill_drive 2",
        "kill_drive 0 after_records=",
        "reset_drive 9",
        "cut 3",
        "relabel VT0001L9 " + "x" * 33,
        "status now",
    ],
)
async def test_what_is_not_understood_is_refused_and_changes_nothing(line: str) -> None:
    made = library("VT0001L9")
    before = await told(made, "status")
    with pytest.raises(RbError):
        await told(made, line)
    assert await told(made, "status") == before


@given(st.text(max_size=60) | st.lists(st.sampled_from(["take_out", "cut", "1", "noticed=", "yes", "="])).map(" ".join))
def test_any_line_is_understood_or_refused(line: str) -> None:
    try:
        name, _, _ = c.parse_fault(line)
    except InvalidRequest:
        return
    assert name in c.fault_methods()


def test_every_fault_has_a_usage_that_is_understood() -> None:
    values = {"ADDRESS": "1024", "BARCODE": "VT0001L9", "LABEL": "VT0009L9"}
    for name in c.fault_methods():
        words = c.usage(name).replace("[", "").replace("]", "").split()
        line = " ".join(
            values.get(word, word.partition("=")[0] + "=yes" if "yes|no" in word else word) for word in words
        )
        line = " ".join(part if part == name else _with_number(part) for part in line.split())
        assert c.parse_fault(line)[0] == name, line


def _with_number(word: str) -> str:
    key, separator, value = word.partition("=")
    return f"{key}=1" if separator and value.isupper() else "1" if word.isupper() and word.isalpha() else word


# --- the socket ---


async def ask(directory: Path, line: str) -> str:
    return await trio.to_thread.run_sync(c.request, directory, line)


async def test_the_socket_belongs_to_its_user_and_goes_with_the_server(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a-directory-with-a-long-name"] * 6)
    deep.mkdir(parents=True)
    made = library("VT0001L9")
    with pytest.raises(Unavailable, match="no simulated tape library"):
        await ask(deep, "status")
    async with trio.open_nursery() as nursery:
        path = await nursery.start(c.serve_control, made, deep)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert "VT0001L9" in await ask(deep, "status")
        assert await ask(deep, "jam_robot") == ""
        with pytest.raises(InvalidRequest, match="there is no fault"):
            await ask(deep, "nonsense")
        nursery.cancel_scope.cancel()
    assert not path.exists()


async def test_a_socket_that_was_left_behind_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(f"/proc/self/fd/{os.open(tmp_path, os.O_PATH)}/control")
    left.close()
    async with trio.open_nursery() as nursery:
        await nursery.start(c.serve_control, library(), tmp_path)
        assert await ask(tmp_path, "status")
        nursery.cancel_scope.cancel()
    (tmp_path / "control").write_text("a file")
    with pytest.raises(BaseExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            await nursery.start(c.serve_control, library(), tmp_path)
    assert caught.group_contains(Unavailable, match="is no socket")


async def test_a_line_that_is_too_long_or_has_no_end(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(c.serve_control, library(), tmp_path)
        for raw in (b"x" * 1500, b"status", b"\xff\xfe\n", b""):
            descriptor = os.open(tmp_path, os.O_PATH)
            stream = await trio.open_unix_socket(f"/proc/self/fd/{descriptor}/control")
            os.close(descriptor)
            await stream.send_all(raw)
            await stream.send_eof()
            answer = b""
            while received := await stream.receive_some():
                answer += received
            assert answer.startswith(b"ok changer" if raw == b"status" else b"refused there is no fault")
            await stream.aclose()
        nursery.cancel_scope.cancel()


async def test_the_station_can_be_locked(tmp_path: Path) -> None:
    made = library("VT0001L9")
    changer = Device(made.changer)
    await changer.clear()
    await changer.do(b"\x1e\0\0\0\x01\0")
    with pytest.raises(Refused, match="locked"):
        await told(made, f"take_out {STATION}")
