"""A medium changer's command set (SMC-3): what lies where, and moving it.

Elements are asked for one type at a time: asking for all at once makes one known target crash, and no device needs it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from drivers.scsi.asc import additional_sense_text
from drivers.scsi.sense import Condition
from drivers.scsi.unit import Identity, LogicalUnit, device_text
from rbcore import errors
from rbcore.scsi import ScsiTransport

INVENTORY_SECONDS_MAX: Final = 1800.0
"""A library that reads every barcode anew."""
MOVE_SECONDS_MAX: Final = 600.0
REPORT_BYTES_MAX: Final = 65536
REPORT_HEADER_BYTES, PAGE_HEADER_BYTES, VOLUME_TAG_BYTES = 8, 8, 36
ADDRESSES: Final = 0x10000
"""Addresses have two bytes. A changer may claim more elements than fit behind its first one."""
REPORTS_MAX: Final = 4096
"""Bounds the paging through one element type."""


class ElementType(enum.IntEnum):
    TRANSPORT = 1
    STORAGE = 2
    IMPORT_EXPORT = 3
    DRIVE = 4


_KINDS: Final = frozenset(int(kind) for kind in ElementType)


class ElementRange(msgspec.Struct, frozen=True):
    first: int
    count: int

    def __contains__(self, address: int) -> bool:
        return self.first <= address < self.first + self.count


class Element(msgspec.Struct, frozen=True, kw_only=True):
    """One place that can hold a cartridge, as the changer reports it."""

    address: int
    type: ElementType
    full: bool
    volume_tag: str = ""
    """The barcode; empty when the element is empty, the label is missing, or the changer cannot read it."""
    alternate_tag: str = ""
    source: int | None = None
    """Where its cartridge came from, when the changer knows."""
    accessible: bool = True
    """Whether the robot can get at it now. A loaded drive often is not, until it is unloaded."""
    exception: str = ""
    """What is wrong with the element, from its sense codes; empty when nothing is."""
    exception_code: tuple[int, int] | None = None
    by_operator: bool = False
    """Import and export elements: somebody put it in, not the robot."""
    import_enabled: bool = False
    export_enabled: bool = False
    inverted: bool = False
    device: str = ""
    """Drives: the identifier that the changer knows it by (vendor, product, serial number), to pair it with its drive."""


class Changer(LogicalUnit):
    """Commands of one changer. Moves are serialised by whoever owns it."""

    def __init__(self, transport: ScsiTransport) -> None:
        super().__init__(transport)
        self._knows_devices = True

    async def element_addresses(self) -> dict[ElementType, ElementRange]:
        """Mode page 1Dh: the first address and the number of each type."""
        data = await self.mode_page(0x1D)
        page = data[4 + data[3] :] if len(data) >= 4 else b""
        if len(page) < 18 or page[0] & 0x3F != 0x1D:
            raise errors.RefusedByDevice(f"{self.name} does not say which elements it has: {data.hex()}")
        numbers = [int.from_bytes(page[offset : offset + 2], "big") for offset in range(2, 18, 2)]
        return {
            kind: ElementRange(numbers[2 * index], numbers[2 * index + 1]) for index, kind in enumerate(ElementType)
        }

    async def initialize_element_status(self, part: ElementRange | None = None) -> None:
        """Let the changer look at its elements (of a range, where it can do that), barcodes included. Minutes in a large library."""
        if part is not None and not self.lacks(0x37):
            cdb = (
                bytes([0x37, 0x01])
                + part.first.to_bytes(2, "big")
                + bytes(2)
                + part.count.to_bytes(2, "big")
                + bytes(2)
            )
            try:
                await self.command(cdb, "initialize element status of a range", timeout_seconds=INVENTORY_SECONDS_MAX)
            except errors.UnsupportedByDevice:
                pass
            else:
                return
        await self.command(
            bytes([0x07, 0, 0, 0, 0, 0]), "initialize element status", timeout_seconds=INVENTORY_SECONDS_MAX
        )

    async def elements(self) -> list[Element]:
        """Everything, in the order transport, storage, import and export, drives."""
        found: list[Element] = []
        for kind, part in (await self.element_addresses()).items():
            if part.count:
                found += await self.element_status(kind, part)
        return found

    async def element_status(
        self, kind: ElementType, part: ElementRange, *, report_bytes_max: int = REPORT_BYTES_MAX
    ) -> list[Element]:
        """READ ELEMENT STATUS of one type within ``part``, with volume tags and device identifiers, in as many reports as it takes."""
        found: dict[int, Element] = {}
        address, end = part.first, min(part.first + part.count, ADDRESSES)
        for _ in range(REPORTS_MAX):
            if address >= end:
                break
            report = await self._report(kind, address, end - address, report_bytes_max)
            if len(report) < report_bytes_max:
                report = _filled_up(report)
            batch = [
                element
                for element in parse_element_status(report)
                if element.type is kind and address <= element.address < end
            ]
            if not batch:
                break
            found.update((element.address, element) for element in batch)
            address = max(element.address for element in batch) + 1
        return [found[key] for key in sorted(found)]

    async def element(self, kind: ElementType, address: int) -> Element:
        """Raises ``UnknownElement``."""
        for element in await self.element_status(kind, ElementRange(address, 1)):
            if element.address == address:
                return element
        raise errors.UnknownElement(
            f"{self.name} has no {kind.name.lower()} element {address}; synchronise the library."
        )

    async def _report(self, kind: ElementType, first: int, count: int, length: int) -> bytes:
        """Device identifiers are asked for until the changer refuses once: older ones do not know that bit."""
        what = f"read the status of {kind.name.lower()} elements"
        while True:
            cdb = (
                bytes([0xB8, 0x10 | kind])
                + first.to_bytes(2, "big")
                + min(count, 0xFFFF).to_bytes(2, "big")
                + bytes([int(self._knows_devices)])
                + length.to_bytes(3, "big")
                + bytes(2)
            )
            expected = frozenset({Condition.INVALID_FIELD}) if self._knows_devices else frozenset[Condition]()
            outcome = await self.command(
                cdb, what, receive_bytes=length, timeout_seconds=INVENTORY_SECONDS_MAX, expected=expected
            )
            if not outcome.has(Condition.INVALID_FIELD):
                return outcome.data
            self._knows_devices = False

    async def move(self, source: int, destination: int, *, transport: int = 0, invert: bool = False) -> None:
        """Move a cartridge. ``transport`` 0 lets the changer choose its robot.

        Raises ``ElementEmpty``, ``ElementFull``, ``RemovalPrevented``, ``UnknownElement`` ...; after ``Unavailable`` and
        ``DeadlineExceeded`` only the element status tells where the cartridge is.
        """
        cdb = bytes([0xA5, 0]) + _addresses(transport, source, destination) + bytes([0, 0, int(invert), 0])
        await self._move_command(cdb, f"move the cartridge of element {source} to {destination}")

    async def exchange(self, source: int, first: int, second: int, *, transport: int = 0) -> None:
        """``source`` goes to ``first``, what was there goes to ``second``. Raises ``UnsupportedByDevice`` where there is no such command."""
        cdb = bytes([0xA6, 0]) + _addresses(transport, source, first, second) + bytes(2)
        await self._move_command(cdb, f"exchange elements {source}, {first} and {second}")

    async def position(self, destination: int, *, transport: int = 0) -> None:
        """Send the robot before an element. Raises ``UnsupportedByDevice`` where there is no such command."""
        cdb = bytes([0x2B, 0]) + _addresses(transport, destination) + bytes(4)
        await self._move_command(cdb, f"position the robot at element {destination}")

    async def _move_command(self, cdb: bytes, what: str) -> None:
        if self.lacks(cdb[0]):
            raise errors.UnsupportedByDevice(f"{self.name} cannot do this: {what}")
        try:
            await self.command(cdb, what, timeout_seconds=MOVE_SECONDS_MAX)
        except errors.RefusedByDevice as refusal:
            # "Invalid field in CDB": the addresses are all that a device could object to.
            if refusal.data.get("sense") == "5/24/00":
                raise errors.UnknownElement(refusal.message, data=refusal.data) from None
            raise


def _addresses(*addresses: int) -> bytes:
    return b"".join(address.to_bytes(2, "big") for address in addresses)


def _filled_up(report: bytes) -> bytes:
    """A report that ends before the length it claims, though there was room: some devices forget to count the header itself, which
    cuts the end off the last descriptor. Zeros there say "nothing known", which is better than an element that is not there."""
    missing = REPORT_HEADER_BYTES + int.from_bytes(report[5:8], "big") - len(report)
    return report + bytes(missing) if 0 < missing <= REPORT_HEADER_BYTES else report


def pair_drives(elements: Sequence[Element], drives: Sequence[Identity]) -> dict[int, int]:
    """Which drive sits at which element: address -> index into ``drives``, by serial number; what does not pair is left out.

    An identifier that was cut off pairs with the one drive that it is the beginning of, when only one is left.
    """
    paired: dict[int, int] = {}
    for element in elements:
        matching = [index for index, drive in enumerate(drives) if drive.serial and drive.serial in element.device]
        if len(matching) == 1:
            paired[element.address] = matching[0]
    for element in elements:
        left = set(range(len(drives))) - set(paired.values())
        beginning = [index for index in left if element.device and _full_name(drives[index]).startswith(element.device)]
        if element.address not in paired and len(beginning) == 1:
            paired[element.address] = beginning[0]
    return paired


def _full_name(drive: Identity) -> str:
    return " ".join(f"{drive.vendor} {drive.product} {drive.serial}".split())


def parse_element_status(report: bytes) -> Iterator[Element]:
    """The elements of a READ ELEMENT STATUS report, as far as whole descriptors go: a report may be cut off anywhere."""
    offset, end = REPORT_HEADER_BYTES, min(len(report), REPORT_HEADER_BYTES + int.from_bytes(report[5:8], "big"))
    while offset + PAGE_HEADER_BYTES <= end:
        header = report[offset : offset + PAGE_HEADER_BYTES]
        length = int.from_bytes(header[2:4], "big")
        offset += PAGE_HEADER_BYTES
        page_end = min(end, offset + int.from_bytes(header[5:8], "big"))
        if length < 12 or header[0] & 0x0F not in _KINDS:
            offset = page_end
            continue
        while offset + length <= page_end:
            yield _element(ElementType(header[0] & 0x0F), header[1], report[offset : offset + length])
            offset += length
        offset = page_end


def _element(kind: ElementType, page_flags: int, descriptor: bytes) -> Element:
    flags, full, exceptional = descriptor[2], bool(descriptor[2] & 0x01), bool(descriptor[2] & 0x04)
    tags, offset = ["", ""], 12
    for index, present in enumerate((page_flags & 0x80, page_flags & 0x40)):
        if present:
            tags[index] = device_text(descriptor[offset : offset + 32])
            offset += VOLUME_TAG_BYTES
    identifier = descriptor[offset + 4 : offset + 4 + descriptor[offset + 3]] if len(descriptor) > offset + 4 else b""
    binary = bool(identifier) and descriptor[offset] & 0x0F == 1
    code = (descriptor[4], descriptor[5])
    return Element(
        address=int.from_bytes(descriptor[0:2], "big"),
        type=kind,
        full=full,
        volume_tag=tags[0] if full else "",
        alternate_tag=tags[1] if full else "",
        source=int.from_bytes(descriptor[10:12], "big") if descriptor[9] & 0x80 else None,
        accessible=bool(flags & 0x08) or kind is ElementType.TRANSPORT,
        exception=additional_sense_text(*code) if exceptional else "",
        exception_code=code if exceptional else None,
        by_operator=kind is ElementType.IMPORT_EXPORT and bool(flags & 0x02),
        import_enabled=kind is ElementType.IMPORT_EXPORT and bool(flags & 0x20),
        export_enabled=kind is ElementType.IMPORT_EXPORT and bool(flags & 0x10),
        inverted=bool(descriptor[9] & 0x80 and descriptor[9] & 0x40),
        device=identifier.hex() if binary else " ".join(device_text(identifier.replace(b"\0", b" ")).split()),
    )
