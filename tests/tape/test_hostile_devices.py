"""Devices that answer what no device may: nothing of it ends in an error of the program, is kept as it came, or tells a password."""

from __future__ import annotations

import pytest
import trio

from drivers.scsi.changer import Changer, ElementRange, ElementType, parse_element_status
from drivers.scsi.devices import HostScsiDevices
from drivers.scsi.drive import Drive
from drivers.scsi.iscsi import IscsiAddress
from drivers.scsi.unit import LogicalUnit
from drivers.simulated.tape import NO_DELAY, SimulatedLibrary, serve_iscsi
from drivers.world import WorkerThreads
from rbcore import errors
from rbcore.scsi import ScsiResult


class Peer:
    """Answers by operation code; the rest is refused."""

    name = "the peer"

    def __init__(self, answers: dict[int, bytes]) -> None:
        self.answers = answers

    async def execute(
        self, cdb: bytes, *, send: bytes | memoryview = b"", receive_bytes: int = 0, timeout_seconds: float
    ) -> ScsiResult:
        await trio.lowlevel.checkpoint()
        data = self.answers.get(cdb[0], b"")[:receive_bytes]
        return ScsiResult(status=0, sense=b"", data=data, residual_bytes=receive_bytes - len(data))

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def report(tag: bytes, address: int) -> bytes:
    """One full storage element."""
    descriptor = address.to_bytes(2, "big") + bytes([9, *bytes(9)]) + tag.ljust(32) + bytes(4)
    page = bytes([2, 0x80]) + len(descriptor).to_bytes(2, "big") + bytes(1) + len(descriptor).to_bytes(3, "big")
    return bytes(5) + (len(page) + len(descriptor)).to_bytes(3, "big") + page + descriptor


def test_what_steers_a_terminal_is_not_taken_over() -> None:
    (element,) = parse_element_status(report(b"RB\x1b[2J\r\n001", 7))
    assert element.volume_tag.isprintable()
    assert element.volume_tag.startswith("RB")


async def test_names_are_printable() -> None:
    standard = bytes([1, 0x80, 6, 2, 31, 0, 0, 0]) + b"\x1b]0;evil" + b"\x07" * 16 + b"\x9b\n12"
    identity = await LogicalUnit(Peer({0x12: standard})).identity()
    assert all(one.isprintable() for one in (identity.vendor, identity.product, identity.revision, identity.serial))


async def test_elements_behind_the_last_address_are_not_asked_for() -> None:
    found = await Changer(Peer({0xB8: report(b"RB0001L9", 65535)})).element_status(
        ElementType.STORAGE, ElementRange(65535, 65535)
    )
    assert [one.address for one in found] == [65535]


async def test_counters_that_nothing_could_hold_are_none() -> None:
    value = b"\xff" * 255
    listed = b"".join(code.to_bytes(2, "big") + bytes([3, len(value)]) + value for code in (1, 3, 16))
    barcode = (0x42).to_bytes(2, "big") + bytes([3, 4]) + b"A\x1b\nB"
    page = bytes([0x17, 0]) + (len(listed) + len(barcode)).to_bytes(2, "big") + listed + barcode
    told = await Drive(Peer({0x4D: page})).volume_statistics()
    assert (told.loads, told.write_retries, told.lifetime_megabytes_written) == (None, None, None)
    assert told.barcode.isprintable()


@pytest.mark.parametrize("lun", ["9" * 5000, "99999", "16384"])
def test_a_unit_has_a_small_number(lun: str) -> None:
    with pytest.raises(errors.InvalidRequest):
        IscsiAddress.parse(f"iscsi://host/target/{lun}")


def test_no_form_of_an_address_tells_the_password() -> None:
    address = IscsiAddress.parse("iscsi://me%a-long-secret@host/target/1")
    assert address.password == "a-long-secret"
    assert "secret" not in f"{address} {address!r} {(address,)}"
    devices = HostScsiDevices((), WorkerThreads())
    for wrong in (
        "ISCSI://me%a-long-secret@host/target/1",
        "iscsi://me%a-long-secret@host/target/1",
        "me%a-long-secret@",
    ):
        with pytest.raises(errors.RbError) as caught:
            devices.open(wrong)
        assert "secret" not in caught.value.message


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "", "localhost"])
async def test_a_simulated_library_listens_on_loopback_only(host: str) -> None:
    with pytest.raises(errors.InvalidRequest):
        await serve_iscsi(SimulatedLibrary(drives=1, slots=1, mechanics=NO_DELAY), host)
