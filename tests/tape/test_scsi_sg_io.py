"""SG_IO: the structure byte for byte, and what becomes of what the kernel answers. No kernel takes part."""

from __future__ import annotations

import ctypes
import errno
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from drivers.scsi.sg_io import SG_IO, Command, Header, SgTransport
from drivers.world import WorkerThreads
from rbcore.errors import DeadlineExceeded, Unavailable

SENSE = bytes.fromhex("7000050000000a00000000003b0e00000000")


@pytest.mark.skipif(sys.maxsize < 2**32, reason="the layout of 64-bit machines")
def test_the_header_is_the_kernels() -> None:
    """Offsets after scsi/sg.h, worked out by hand."""
    command = Command(bytes(range(12)), b"", 512, 1.5)
    raw = bytes(command.header)
    assert len(raw) == ctypes.sizeof(Header) == 88
    fields = struct.unpack("=iiBBHIQQQII i4xQ BBBB HH iII 4x", raw)
    interface, direction, command_bytes, sense_bytes, iovecs, length = fields[:6]
    assert (interface, direction, command_bytes, sense_bytes, iovecs, length) == (ord("S"), -3, 12, 252, 0, 512)
    data, cdb, sense, timeout, flags, pack = fields[6:12]
    assert all((data, cdb, sense))
    assert ctypes.string_at(cdb, 12) == bytes(range(12))
    assert (timeout, flags, pack) == (1500, 0, 0)
    assert fields[12:] == (0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    assert SG_IO == 0x2285


def test_directions() -> None:
    assert Command(bytes(6), b"", 0, 1).header.dxfer_direction == -1
    assert Command(bytes(6), b"", 0, 1).header.dxferp is None
    sending = Command(bytes(6), memoryview(b"abc"), 0, 1).header
    assert (sending.dxfer_direction, sending.dxfer_len) == (-2, 3)
    assert ctypes.string_at(sending.dxferp, 3) == b"abc"


def transport(path: Path, answer: Callable[[Header], None]) -> SgTransport:
    path.touch()
    return SgTransport(str(path), WorkerThreads(1), ioctl=lambda _, header: answer(header))


async def test_data_and_residual(tmp_path: Path) -> None:
    def answer(header: Header) -> None:
        ctypes.memmove(header.dxferp, b"hello", 5)
        header.resid = 3

    result = await transport(tmp_path / "sg0", answer).execute(bytes(6), receive_bytes=8, timeout_seconds=1)
    assert (result.status, result.data, result.residual_bytes, result.sense) == (0, b"hello", 3, b"")


@pytest.mark.parametrize("status", [0, 2])
async def test_sense(tmp_path: Path, status: int) -> None:
    def answer(header: Header) -> None:
        ctypes.memmove(header.sbp, SENSE, len(SENSE))
        header.sb_len_wr, header.status, header.driver_status = len(SENSE), status, 0x08

    result = await transport(tmp_path / "sg0", answer).execute(bytes(12), timeout_seconds=1)
    assert (result.status, result.sense) == (2, SENSE)


@pytest.mark.parametrize(
    ("host", "driver", "kind"), [(3, 0, DeadlineExceeded), (0, 6, DeadlineExceeded), (1, 0, Unavailable)]
)
async def test_the_way_to_the_device_fails(tmp_path: Path, host: int, driver: int, kind: type[Unavailable]) -> None:
    def answer(header: Header) -> None:
        header.host_status, header.driver_status = host, driver

    with pytest.raises(kind) as caught:
        await transport(tmp_path / "sg0", answer).execute(bytes(6), timeout_seconds=1)
    assert type(caught.value) is kind


async def test_what_cannot_be_opened_says_what_to_do(tmp_path: Path) -> None:
    missing = SgTransport(str(tmp_path / "sg9"), WorkerThreads(1))
    with pytest.raises(Unavailable, match="module sg"):
        await missing.execute(bytes(6), timeout_seconds=1)


async def test_a_file_is_no_device(tmp_path: Path) -> None:
    (tmp_path / "sg1").touch()
    with pytest.raises(Unavailable):
        await SgTransport(str(tmp_path / "sg1"), WorkerThreads(1)).execute(bytes(6), timeout_seconds=1)


async def test_it_is_opened_again_after_it_was_gone(tmp_path: Path) -> None:
    calls = 0

    def answer(_: Header) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError(errno.ENODEV, "No such device")

    device = transport(tmp_path / "sg0", answer)
    with pytest.raises(Unavailable, match="connected"):
        await device.execute(bytes(6), timeout_seconds=1)
    assert (await device.execute(bytes(6), timeout_seconds=1)).status == 0
    await device.aclose()
    await device.aclose()
    with pytest.raises(Unavailable, match="closed"):
        await device.execute(bytes(6), timeout_seconds=1)
