"""What a tape drive tells and lets be set about itself and its cartridge: mode pages, logs, cartridge memory, encryption (SSC-5, SPC-5).

Nothing here moves the tape, except formatting. What a drive lacks raises ``UnsupportedByDevice`` or ``RefusedByDevice``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from drivers.scsi.unit import LogicalUnit, device_text
from rbcore import errors

MODE_COMPRESSION, MODE_PARTITIONS = 0x0F, 0x11
LOG_TAPE_ALERT, LOG_VOLUME_STATISTICS = 0x2E, 0x17
FORMAT_SECONDS_MAX: Final = 4 * 3600.0
GIGABYTE_EXPONENT: Final = 9
REST_OF_TAPE: Final = 0xFFFF
"""A partition size that takes what the others leave."""
SECURITY_TAPE: Final = 0x20
ATTRIBUTE_BYTES_MAX: Final = 65536
NUMBER_BYTES_MAX: Final = 8
"""A counter that is longer is none: nothing that is kept could hold it."""

TAPE_ALERTS: Final[dict[int, str]] = {
    1: "read warning: the drive has trouble reading",
    2: "write warning: the drive has trouble writing",
    3: "hard error: data could not be read or written",
    4: "media: the data on the cartridge is at risk; copy what is needed and retire it",
    5: "read failure: cartridge or drive is damaged",
    6: "write failure: the cartridge is faulty or from a bad batch",
    7: "the cartridge has reached the end of its life",
    8: "not data grade: the cartridge must not be used for data",
    9: "the cartridge is write protected",
    10: "removal is prevented: the drive is in use",
    11: "a cleaning cartridge is loaded",
    12: "unsupported format: the drive cannot use this cartridge",
    13: "the tape broke inside the drive and can be recovered",
    14: "the tape broke inside the drive and cannot be recovered",
    15: "the memory chip of the cartridge failed",
    16: "the cartridge was forced out while the drive was busy",
    17: "read only format: the drive can read this cartridge, not write it",
    18: "the directory on the cartridge is corrupted; searching is slow until it is rebuilt by reading all of it",
    19: "the cartridge is nearing the end of its life",
    20: "clean the drive now",
    21: "clean the drive soon",
    22: "the cleaning cartridge is worn out",
    23: "the cleaning cartridge is of the wrong type",
    30: "hardware failure: the drive must be reset or repaired",
    31: "hardware failure: the drive failed a test",
    32: "the drive has trouble with its interface",
    33: "the cartridge could not be ejected; take it out and insert it again",
    34: "firmware download failed",
    36: "drive temperature out of range",
    37: "drive voltage out of range",
    38: "the drive is expected to fail",
    39: "the drive needs a diagnosis",
    51: "the directory was not written at the last unload",
    52: "the system area of the cartridge cannot be written",
    53: "the system area of the cartridge cannot be read",
    54: "the start of data on the cartridge was not found",
    55: "the cartridge could not be loaded",
    56: "the cartridge could not be unloaded",
    57: "the automation interface failed",
    59: "the integrity check of a WORM cartridge failed",
    60: "overwriting a WORM cartridge was tried",
}
"""Flags of TapeAlert, specification 3; those not listed are reserved or obsolete."""


class VolumeStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Log page 17h, what is used of it. None where the drive does not tell."""

    loads: int | None = None
    write_retries: int | None = None
    write_errors: int | None = None
    read_retries: int | None = None
    read_errors: int | None = None
    lifetime_megabytes_written: int | None = None
    lifetime_megabytes_read: int | None = None
    volume_serial: str = ""
    barcode: str = ""


class Attribute(msgspec.Struct, frozen=True):
    """One attribute of a cartridge's memory (SPC-5, 7.4). ``format``: 0 binary, 1 ASCII, 2 text."""

    identifier: int
    value: bytes
    format: int = 0
    read_only: bool = False


class EncryptionStatus(msgspec.Struct, frozen=True, kw_only=True):
    encrypts: bool
    decrypts: bool
    algorithm_index: int
    key_instance: int


class DrivePages(LogicalUnit):
    """Pages of one drive."""

    # --- mode pages ---

    async def compression(self) -> bool | None:
        """Whether it compresses what is written; None when it cannot."""
        page = await self._page(MODE_COMPRESSION)
        if page is None or not page[2] & 0x40:
            return None
        return bool(page[2] & 0x80)

    async def set_compression(self, on: bool) -> None:
        """Raises ``UnsupportedByDevice`` when the drive does not compress."""
        page = await self._page(MODE_COMPRESSION)
        if page is None or not page[2] & 0x40:
            raise errors.UnsupportedByDevice(f"{self.name} does not compress.")
        changed = bytearray(page)
        changed[0] &= 0x3F
        changed[2] = changed[2] & 0x7F | (0x80 if on else 0)
        changed[3] |= 0x80  # what is compressed is always decompressed
        await self._select_page(bytes(changed), f"switch compression {'on' if on else 'off'}")

    async def partitions_max(self) -> int:
        """How many partitions a cartridge can have in this drive; 1 when it cannot be divided."""
        page = await self._page(MODE_PARTITIONS)
        return 1 + page[2] if page is not None and len(page) >= 8 else 1

    async def format_medium(self, partition_gigabytes: Sequence[int] = ()) -> None:
        """Make the loaded cartridge anew with these partitions (``REST_OF_TAPE`` once), or with one. The tape must stand at its beginning.

        Everything on it is lost. Raises ``UnsupportedByDevice`` when the drive cannot divide this cartridge.
        """
        if len(partition_gigabytes) > 1:
            page = await self._page(MODE_PARTITIONS)
            if page is None or len(page) < 8 or page[2] < len(partition_gigabytes) - 1:
                raise errors.UnsupportedByDevice(
                    f"{self.name} cannot make {len(partition_gigabytes)} partitions on the loaded cartridge."
                )
            changed = bytearray(8) + b"".join(size.to_bytes(2, "big") for size in partition_gigabytes)
            changed[0:2] = bytes([MODE_PARTITIONS, len(changed) - 2])
            changed[2:4] = bytes([page[2], len(partition_gigabytes) - 1])
            changed[4] = 0x20 | 0x18 | page[4] & 0x04  # sizes given by the initiator, in units as in byte 6
            changed[5:7] = bytes([page[5], GIGABYTE_EXPONENT])
            await self._select_page(bytes(changed), "set the sizes of partitions")
        kind = 1 if len(partition_gigabytes) > 1 else 0
        await self.command(
            bytes([0x04, 0, kind, 0, 0, 0]),
            "format the medium",
            timeout_seconds=FORMAT_SECONDS_MAX,
            needs_position=True,
        )

    async def _page(self, page: int) -> bytes | None:
        """The page alone, without headers; None when the drive does not have it."""
        try:
            data = await self.mode_page(page)
        except errors.Refused:
            return None
        if len(data) < 4:
            return None
        found = data[4 + data[3] :]
        return found if len(found) >= 4 and found[0] & 0x3F == page else None

    async def _select_page(self, page: bytes, what: str) -> None:
        header = await self.mode_page(page[0] & 0x3F, block_descriptors=True)
        # Mode data length is reserved in MODE SELECT; buffered mode and speed stay as they are, write protection cannot be set.
        descriptors = header[4 : 4 + header[3]]
        await self.select_mode(bytes([0, 0, header[2] & 0x7F, len(descriptors)]) + descriptors + page, what)

    # --- logs ---

    async def tape_alerts(self) -> frozenset[int]:
        """Flags that are up, 1 to 64; reading clears them in most drives. ``TAPE_ALERTS`` says what they mean."""
        flags = await self.log_page(LOG_TAPE_ALERT)
        return frozenset(code for code, value in flags.items() if 1 <= code <= 64 and value and value[-1] & 0x01)

    async def volume_statistics(self) -> VolumeStatistics:
        page = await self.log_page(LOG_VOLUME_STATISTICS)

        def number(code: int) -> int | None:
            value = page.get(code)
            return int.from_bytes(value, "big") if value and len(value) <= NUMBER_BYTES_MAX else None

        def text(code: int) -> str:
            return device_text(page.get(code, b""))

        return VolumeStatistics(
            loads=number(0x0001),
            write_retries=number(0x0003),
            write_errors=number(0x0004),
            read_retries=number(0x0008),
            read_errors=number(0x0009),
            lifetime_megabytes_written=number(0x0010),
            lifetime_megabytes_read=number(0x0011),
            volume_serial=text(0x0040),
            barcode=text(0x0042),
        )

    # --- cartridge memory ---

    async def read_attributes(self, partition: int = 0, first: int = 0) -> list[Attribute]:
        """The loaded cartridge's attributes from identifier ``first`` on."""
        cdb = (
            bytes([0x8C, 0, 0, 0, 0, 0, 0, partition])
            + first.to_bytes(2, "big")
            + ATTRIBUTE_BYTES_MAX.to_bytes(4, "big")
            + bytes(2)
        )
        outcome = await self.command(cdb, "read the cartridge's memory", receive_bytes=ATTRIBUTE_BYTES_MAX)
        return parse_attributes(outcome.data)

    async def write_attributes(self, attributes: Sequence[Attribute], partition: int = 0) -> None:
        """An empty value removes an attribute."""
        listed = b"".join(
            attribute.identifier.to_bytes(2, "big")
            + bytes([attribute.format & 0x03])
            + len(attribute.value).to_bytes(2, "big")
            + attribute.value
            for attribute in attributes
        )
        parameters = len(listed).to_bytes(4, "big") + listed
        cdb = bytes([0x8D, 0x01, 0, 0, 0, 0, 0, partition, 0, 0]) + len(parameters).to_bytes(4, "big") + bytes(2)
        await self.command(cdb, "write the cartridge's memory", send=parameters)

    # --- encryption in the drive ---

    async def encryption_status(self) -> EncryptionStatus:
        page = await self._security_page(0x0020)
        if len(page) < 12:
            raise errors.RefusedByDevice(f"{self.name} does not tell its encryption status: {page.hex()}")
        return EncryptionStatus(
            encrypts=page[5] == 2,
            decrypts=page[6] in (2, 3),
            algorithm_index=page[7],
            key_instance=int.from_bytes(page[8:12], "big"),
        )

    async def encryption_algorithms(self) -> Mapping[int, int]:
        """Algorithm index -> longest key in bytes."""
        page = await self._security_page(0x0010)
        found: dict[int, int] = {}
        offset = 20
        while offset + 12 <= len(page):
            found[page[offset]] = int.from_bytes(page[offset + 10 : offset + 12], "big")
            offset += 4 + int.from_bytes(page[offset + 2 : offset + 4], "big")
        return found

    async def set_encryption(self, key: bytes | None, *, algorithm_index: int = 1) -> None:
        """Encrypt and decrypt with ``key`` from here on, for every host; or neither. The key is forgotten with power and reset."""
        mode = 2 if key else 0
        body = bytes([0x40, 0, mode, mode, algorithm_index, 0, 0]) + bytes(7)
        body += len(key or b"").to_bytes(2, "big") + (key or b"")
        parameters = (0x0010).to_bytes(2, "big") + len(body).to_bytes(2, "big") + body
        cdb = bytes([0xB5, SECURITY_TAPE, 0x00, 0x10, 0, 0]) + len(parameters).to_bytes(4, "big") + bytes(2)
        await self.command(cdb, "set the encryption key" if key else "switch encryption off", send=parameters)

    async def _security_page(self, page: int) -> bytes:
        length = 8192
        cdb = bytes([0xA2, SECURITY_TAPE]) + page.to_bytes(2, "big") + bytes(2) + length.to_bytes(4, "big") + bytes(2)
        data = (await self.command(cdb, f"read encryption page {page:04x}h", receive_bytes=length)).data
        return data[: 4 + int.from_bytes(data[2:4], "big")]


def parse_attributes(data: bytes) -> list[Attribute]:
    """The list of READ ATTRIBUTE, as far as whole attributes go."""
    found = []
    offset, end = 4, min(len(data), 4 + int.from_bytes(data[0:4], "big"))
    while offset + 5 <= end:
        length = int.from_bytes(data[offset + 3 : offset + 5], "big")
        if offset + 5 + length > end:
            break
        found.append(
            Attribute(
                identifier=int.from_bytes(data[offset : offset + 2], "big"),
                value=data[offset + 5 : offset + 5 + length],
                format=data[offset + 2] & 0x03,
                read_only=bool(data[offset + 2] & 0x80),
            )
        )
        offset += 5 + length
    return found
