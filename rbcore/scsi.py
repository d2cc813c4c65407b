"""The port of SCSI transports: one logical unit that takes commands. Implemented in ``drivers/scsi/`` (iSCSI, Linux SG_IO) and
``drivers/simulated/`` (a whole tape library); command sets (SMC, SSC) and sense decoding are built on it and know no transport.
"""

from __future__ import annotations

from typing import Protocol

import msgspec


class ScsiResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one command that reached the device."""

    status: int
    """SAM status: 0x00 GOOD, 0x02 CHECK CONDITION, 0x08 BUSY, 0x18 RESERVATION CONFLICT, 0x28 TASK SET FULL ..."""
    sense: bytes = b""
    """As sent with CHECK CONDITION, fixed (70h, 71h) or descriptor (72h, 73h) format; empty otherwise."""
    data: bytes = b""
    """What the device sent."""
    residual_bytes: int = 0
    """Expected minus transferred; negative when the device had more (overflow)."""


class ScsiTransport(Protocol):
    """One logical unit (LUN). One command at a time: callers wait for each other."""

    name: str
    """Where it is, for people: ``iscsi://127.0.0.1:3260/iqn.../1``, ``/dev/sg3``."""

    async def execute(
        self,
        cdb: bytes,
        *,
        send: bytes | memoryview = b"",
        receive_bytes: int = 0,
        timeout_seconds: float,
    ) -> ScsiResult:
        """Send one command and wait for its end.

        ``send`` or ``receive_bytes``, not both. Raises ``Unavailable`` when the transport failed and it is not known whether the command
        was carried out (connection lost, device gone), ``DeadlineExceeded`` when it did not end in time (the task is aborted where the
        transport can). A status other than GOOD is a result, not an error.
        Cancellation: the command is aborted where possible; afterwards the position of a tape is not known.
        """

    async def aclose(self) -> None:
        """Log out or close. Idempotent."""


class ScsiDevices(Protocol):
    """The changers and drives that this host can reach. Implemented in ``drivers/scsi/devices.py`` and, for simulation, by a simulated library."""

    async def addresses(self) -> list[str]:
        """Where logical units are, as ``open`` takes them: ``/dev/sg3``, ``iscsi://host:port/target/lun``. What does not answer is left out."""

    async def scsi_path(self, address: str) -> str:
        """Where people look for it: ``[host:channel:target:unit]`` of a generic device, and empty where the system does not tell; else the logical unit."""

    def open(self, address: str) -> ScsiTransport:
        """Raises ``InvalidRequest`` when that is no address, ``NotFound`` when nothing is known of it. Nothing is sent yet."""
