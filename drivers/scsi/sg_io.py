"""SCSI through Linux's generic driver: the SG_IO ioctl on ``/dev/sgN`` (``scsi/sg.h``, interface version 3).

NOT TESTED AGAINST A KERNEL: it was written where no SCSI driver is. Its structure is tested byte for byte, the rest against an
ioctl that answers like the documentation of the driver.

The ioctl blocks for as long as the command takes, so it runs on a worker thread. It is never interrupted: the kernel itself aborts
the command at the timeout given to it and recovers the device. A cancelled caller therefore waits until then.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import math
import os
from collections.abc import Callable
from typing import Final

import trio

from drivers.scsi.buffers import place_of, room
from rbcore.errors import DeadlineExceeded, Unavailable
from rbcore.ports import Threads
from rbcore.scsi import ScsiResult

SG_IO: Final = 0x2285
TRANSFER_NONE, TRANSFER_TO_DEVICE, TRANSFER_FROM_DEVICE = -1, -2, -3
SENSE_BYTES_MAX: Final = 252
TIMEOUT_MILLISECONDS_MAX: Final = 0xFFFFFFFF
CHECK_CONDITION: Final = 0x02

HOST_OK, HOST_TIME_OUT = 0x00, 0x03
HOST_STATUS: Final = {
    0x01: "no connection to the device",
    0x02: "the bus was busy",
    0x03: "the command timed out",
    0x04: "bad target",
    0x05: "the command was aborted",
    0x06: "parity error",
    0x07: "internal error of the adapter",
    0x08: "the device or bus was reset",
    0x09: "unexpected interrupt",
    0x0A: "passed through",
    0x0B: "soft error",
    0x0C: "retry at once",
    0x0D: "requeue",
    0x0E: "the transport was disrupted",
    0x0F: "the transport failed fast",
}
DRIVER_TIMEOUT, DRIVER_SENSE = 0x06, 0x08
DRIVER_STATUS_MASK: Final = 0x0F


class Header(ctypes.Structure):
    """``sg_io_hdr_t``: 88 bytes on 64-bit machines, 64 on 32-bit ones."""

    _fields_ = (
        ("interface_id", ctypes.c_int),
        ("dxfer_direction", ctypes.c_int),
        ("cmd_len", ctypes.c_ubyte),
        ("mx_sb_len", ctypes.c_ubyte),
        ("iovec_count", ctypes.c_ushort),
        ("dxfer_len", ctypes.c_uint),
        ("dxferp", ctypes.c_void_p),
        ("cmdp", ctypes.c_void_p),
        ("sbp", ctypes.c_void_p),
        ("timeout", ctypes.c_uint),
        ("flags", ctypes.c_uint),
        ("pack_id", ctypes.c_int),
        ("usr_ptr", ctypes.c_void_p),
        ("status", ctypes.c_ubyte),
        ("masked_status", ctypes.c_ubyte),
        ("msg_status", ctypes.c_ubyte),
        ("sb_len_wr", ctypes.c_ubyte),
        ("host_status", ctypes.c_ushort),
        ("driver_status", ctypes.c_ushort),
        ("resid", ctypes.c_int),
        ("duration", ctypes.c_uint),
        ("info", ctypes.c_uint),
    )


class Command:
    """One command with its buffers, which live as long as it does."""

    def __init__(self, cdb: bytes, send: bytes | memoryview, receive_bytes: int, timeout_seconds: float) -> None:
        assert not (len(send) and receive_bytes), "one direction at a time"
        length = len(send) or receive_bytes
        self._cdb = ctypes.create_string_buffer(cdb, len(cdb))
        self._sense = ctypes.create_string_buffer(SENSE_BYTES_MAX)
        # The kernel may copy from memory that nobody else may change meanwhile: what is sent is kept here.
        self._data = (send if isinstance(send, bytes) else bytes(send)) if len(send) else room(receive_bytes)
        self._receive_bytes = receive_bytes
        self.header = Header(
            interface_id=ord("S"),
            dxfer_direction=(
                TRANSFER_TO_DEVICE if len(send) else TRANSFER_FROM_DEVICE if receive_bytes else TRANSFER_NONE
            ),
            cmd_len=len(cdb),
            mx_sb_len=SENSE_BYTES_MAX,
            dxfer_len=length,
            dxferp=place_of(self._data) if length else None,
            cmdp=ctypes.addressof(self._cdb),
            sbp=ctypes.addressof(self._sense),
            timeout=min(TIMEOUT_MILLISECONDS_MAX, math.ceil(timeout_seconds * 1000)),
        )

    def result(self, name: str) -> ScsiResult:
        """Raises ``DeadlineExceeded`` and ``Unavailable`` for what the adapter and the driver report."""
        header = self.header
        driver = header.driver_status & DRIVER_STATUS_MASK
        if header.host_status == HOST_TIME_OUT or driver == DRIVER_TIMEOUT:
            raise DeadlineExceeded(
                f"{name} did not end command {self._cdb.raw[0]:02x}h within {header.timeout / 1000:g} s; the kernel aborted it"
            )
        if header.host_status != HOST_OK or driver not in (0, DRIVER_SENSE):
            why = HOST_STATUS.get(
                header.host_status, f"host status {header.host_status:02x}h, driver status {driver:02x}h"
            )
            raise Unavailable(
                f"{name}: command {self._cdb.raw[0]:02x}h failed on the way ({why}); whether it was carried out is not known"
            )
        sense = self._sense.raw[: header.sb_len_wr]
        # Some kernels leave the status at zero when only the driver noted the sense.
        status = CHECK_CONDITION if driver == DRIVER_SENSE and sense and not header.status else header.status
        received = max(0, self._receive_bytes - max(0, header.resid))
        return ScsiResult(
            status=status,
            sense=sense if status == CHECK_CONDITION else b"",
            data=self._data[:received],
            residual_bytes=header.resid,
        )


def _ioctl(descriptor: int, header: Header) -> None:
    fcntl.ioctl(descriptor, SG_IO, header, True)


class SgTransport:
    """``rbcore.scsi.ScsiTransport`` for ``/dev/sgN``. Opened at the first command, and again after the device was gone."""

    def __init__(self, device: str, threads: Threads, *, ioctl: Callable[[int, Header], None] = _ioctl) -> None:
        self.name = device
        self._threads = threads
        self._ioctl = ioctl
        self._descriptor: int | None = None
        self._turn = trio.Lock()
        self._closed = False

    async def execute(
        self,
        cdb: bytes,
        *,
        send: bytes | memoryview = b"",
        receive_bytes: int = 0,
        timeout_seconds: float,
    ) -> ScsiResult:
        try:
            with trio.fail_after(timeout_seconds):
                await self._turn.acquire()
        except trio.TooSlowError:
            raise DeadlineExceeded(f"{self.name} was busy with another command for {timeout_seconds:g} s") from None
        try:
            if self._closed:
                raise Unavailable(f"{self.name} is closed")
            return await self._threads.run(lambda: self._run(Command(cdb, send, receive_bytes, timeout_seconds)))
        finally:
            self._turn.release()

    async def aclose(self) -> None:
        self._closed = True
        with trio.CancelScope(shield=True):
            async with self._turn:
                self._close()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _run(self, command: Command) -> ScsiResult:
        try:
            if self._descriptor is None:
                # Non-blocking, or opening waits for whoever has the device exclusively.
                self._descriptor = os.open(self.name, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
            self._ioctl(self._descriptor, command.header)
        except OSError as error:
            self._close()
            raise Unavailable(f"{self.name}: {_advice(error)}") from error
        return command.result(self.name)


def _advice(error: OSError) -> str:
    reason = error.strerror or str(error)
    match error.errno:
        case errno.ENOENT | errno.ENXIO | errno.ENODEV:
            return f"{reason}. Is the device connected, and is the kernel module sg loaded?"
        case errno.EACCES | errno.EPERM:
            return f"{reason}. The server needs permission to read and write the device (group tape)."
        case errno.EBUSY:
            return f"{reason}. Another program has it open exclusively."
        case errno.ENOMEM:
            return f"{reason}. The transfer is larger than the adapter takes; use smaller blocks."
    return reason
