"""The simulated library behind its iSCSI target, used with libiscsi through the command sets of the product: what arrives there is what
is done here. The rules of the protocol are in ``test_iscsi_protocol``."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest
import trio

from drivers.scsi.changer import Changer
from drivers.scsi.drive import Drive, Found
from drivers.scsi.iscsi import IscsiTransport
from drivers.simulated.tape import IscsiServing, SharedUnits, SimulatedLibrary, serve_iscsi
from rbcore import errors
from rbcore.errors import DeadlineExceeded, Unavailable
from tests.tape.libraries import need_libiscsi
from tests.tape.simulated import DRIVE, SLOT, Device, library

MEBIBYTE = 1 << 20
PREVENT, ALLOW = b"\x1e\0\0\0\x01\0", b"\x1e\0\0\0\0\0"
RESERVE, RELEASE = b"\x16" + bytes(5), b"\x17" + bytes(5)


@dataclass
class Served:
    """A library with a cartridge in its first drive, its target, and devices with sessions of their own."""

    library: SimulatedLibrary
    serving: IscsiServing

    def transport(self, lun: int, initiator: str = "iqn.2026-01.test:one") -> IscsiTransport:
        return IscsiTransport(self.serving.address(lun), initiator_name=initiator)

    async def device(self, lun: int, initiator: str = "iqn.2026-01.test:one") -> Device:
        """Past its unit attentions."""
        device = Device(self.transport(lun, initiator))
        await device.clear()
        return device


@pytest.fixture
def has_libiscsi() -> None:
    need_libiscsi()


@pytest.fixture
async def served(has_libiscsi: None) -> AsyncIterator[Served]:
    made = library("VT0001L9", "VT0002L9", factor=1e-5)
    changer = Device(made.changer)
    await changer.clear()
    assert await changer.move(SLOT, DRIVE) == "good"
    async with trio.open_nursery() as nursery:
        yield Served(made, await nursery.start(serve_iscsi, made))
        nursery.cancel_scope.cancel()


async def test_inventory_and_moves(served: Served) -> None:
    changer = Changer(served.transport(0))
    found = {one.address: one.volume_tag for one in await changer.elements() if one.full}
    assert found == {DRIVE: "VT0001L9", SLOT + 1: "VT0002L9"}
    await changer.move(SLOT + 1, DRIVE + 1)
    assert str(served.library.where("VT0002L9")) == str(served.library.element(DRIVE + 1))
    with pytest.raises(errors.ElementEmpty):
        await changer.move(SLOT + 1, SLOT + 2)
    await changer.aclose()


async def test_records_of_every_size_come_back(served: Served) -> None:
    drive = Drive(served.transport(1))
    await drive.load()
    sizes = [1, 2, 3, 511, 4096, 65535, 262143, 262144, 262145, MEBIBYTE, 3 * MEBIBYTE + 1, 8 * MEBIBYTE]
    draw = random.Random(3)
    written = [draw.randbytes(size) for size in sizes]
    for data in written:
        await drive.write(data)
    await drive.write_filemarks(1)
    await drive.rewind()
    for data in written:
        result = await drive.read(8 * MEBIBYTE)
        assert result.found is Found.BLOCK
        assert result.data == data
    assert (await drive.read(8 * MEBIBYTE)).found is Found.FILEMARK
    assert (await drive.read(8 * MEBIBYTE)).found is Found.END_OF_DATA
    await drive.aclose()


async def test_sense_arrives_with_flags_and_information(served: Served) -> None:
    drive = await served.device(1)
    for data in (b"abc", bytes(5000)):
        assert await drive.write(data) == "good"
    assert await drive.filemarks(2) == "good"
    assert await drive.rewind() == "good"
    assert await drive.read(10) == "0/00/00 ILI 7"
    assert (drive.data, drive.residual) == (b"abc", 7)
    assert await drive.read(4000) == "0/00/00 ILI -1000"
    assert await drive.read(10) == "0/00/01 FM 10"
    assert await drive.space(1, -9) == "0/00/04 EOM 8"
    assert await drive.do(b"\xc1" + bytes(9)) == "5/20/00"


async def test_every_login_learns_of_a_reset_and_all_of_a_change(served: Served) -> None:
    one, other = Device(served.transport(0)), Device(served.transport(0, "iqn.2026-01.test:other"))
    assert await one.clear() == ["6/29/00", "good"]
    assert await other.clear() == ["6/29/00", "good"]
    served.library.faults.take_out(SLOT + 1)
    assert await one.clear() == ["6/28/00", "good"]
    assert await other.clear() == ["6/28/00", "good"]
    await one.transport.aclose()
    assert await Device(served.transport(0)).clear() == ["6/29/00", "good"]


async def test_what_one_initiator_holds_ends_with_its_session(served: Served) -> None:
    one, other = await served.device(1), await served.device(1, "iqn.2026-01.test:other")
    changer = await served.device(0)
    assert await one.do(RESERVE) == "good"
    assert await other.ready() == "conflict"
    assert await one.do(RELEASE) == "good"
    assert await other.ready() == "good"
    assert await one.do(PREVENT) == "good"
    assert await other.unload() == "5/53/02"
    await one.transport.aclose()
    await other.ready()
    assert await other.unload() == "good"
    assert await changer.move(DRIVE, SLOT) == "good"


async def test_two_initiators_write_in_turns(served: Served) -> None:
    devices = [await served.device(1, f"iqn.2026-01.test:{name}") for name in ("one", "other")]

    async def write(device: Device, mark: int) -> None:
        for _ in range(20):
            assert await device.write(bytes([mark]) * 300_000) == "good"

    async with trio.open_nursery() as nursery:
        for mark, device in enumerate(devices):
            nursery.start_soon(write, device, mark)
    assert await devices[0].rewind() == "good"
    seen = []
    for _ in range(40):
        assert await devices[0].read(300_000) == "good"
        assert len(set(devices[0].data)) == 1
        seen.append(devices[0].data[0])
    assert sorted(seen) == [0] * 20 + [1] * 20


async def test_a_session_that_is_lost_in_the_middle_of_a_write_leaves_whole_records(served: Served) -> None:
    device = await served.device(1)
    data = bytes(8 * MEBIBYTE)
    acknowledged = 0
    with trio.move_on_after(0.15):
        while await device.write(data) == "good":
            acknowledged += 1
    await device.transport.aclose()
    again = await served.device(1)
    _, written, _ = await again.position()
    assert acknowledged <= written <= acknowledged + 1
    await again.rewind()
    for _ in range(written):
        assert await again.read(len(data)) == "good"
        assert again.data == data


@pytest.mark.parametrize(
    "strike",
    [
        lambda faults: faults.kill_drive(0),
        lambda faults: faults.lose_power(),
        lambda faults: faults.cut(),
    ],
)
async def test_a_unit_that_does_not_answer_is_a_lost_connection(
    served: Served, strike: Callable[[object], None]
) -> None:
    device = await served.device(1)
    strike(served.library.faults)
    for _ in range(2):
        with pytest.raises(Unavailable, match="connection was lost"):
            await device.ready()
    served.library.faults.restore_power()
    assert await device.clear() in (["6/29/00", "good"], ["6/29/00", "6/28/00", "good"])


async def test_a_command_that_takes_too_long_is_given_up_and_ends(has_libiscsi: None) -> None:
    class Stuck:
        name = "stuck"
        ended = trio.Event()

        async def execute(self, cdb: bytes, **_: object) -> None:
            try:
                await trio.sleep_forever()
            finally:
                self.ended.set()

        async def aclose(self) -> None:
            raise AssertionError

    stuck = Stuck()
    async with trio.open_nursery() as nursery:
        serving = await nursery.start(serve_iscsi, SharedUnits([stuck]))  # type: ignore[list-item]
        transport = IscsiTransport(serving.address(0))
        with pytest.raises(DeadlineExceeded):
            await transport.execute(bytes(6), timeout_seconds=0.2)
        with trio.fail_after(5):
            await stuck.ended.wait()
        await transport.aclose()
        nursery.cancel_scope.cancel()


async def test_a_password(has_libiscsi: None) -> None:
    async def serve(*, task_status: trio.TaskStatus[IscsiServing]) -> None:
        await serve_iscsi(library(), user="me", password="a-long-secret", task_status=task_status)

    async with trio.open_nursery() as nursery:
        serving: IscsiServing = await nursery.start(serve)
        address = serving.address(0)
        right = IscsiTransport(address.replace("iscsi://", "iscsi://me%a-long-secret@"))
        assert await Device(right).clear() == ["6/29/00", "good"]
        await right.aclose()
        for wrong in ("iscsi://", "iscsi://me%another-secret@", "iscsi://you%a-long-secret@"):
            with pytest.raises(Unavailable, match="cannot be reached"):
                await IscsiTransport(address.replace("iscsi://", wrong)).execute(bytes(6), timeout_seconds=5)
        nursery.cancel_scope.cancel()


async def test_targets_and_ports_that_are_not_there(served: Served) -> None:
    address = served.serving.address(0)
    with pytest.raises(Unavailable, match="cannot be reached"):
        await IscsiTransport(address.replace("simulated", "nobody")).execute(bytes(6), timeout_seconds=5)
    taken = pytest.raises(BaseExceptionGroup)
    with taken as caught:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_iscsi, served.library, "127.0.0.1", served.serving.port)
    assert isinstance(caught.value.exceptions[0], OSError)
