"""Mode pages, log pages and TapeAlert of a drive; what the partition page (11h) means for the tape.

Capacities that the partition page gives are nominal: on a cartridge that was scaled down, one "GB" is as large a share of the tape as
on a real one, so that software which asks for an index partition of so many GB gets one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from drivers.simulated.tape import sense as s
from drivers.simulated.tape.generations import BLOCK_BYTES_MAX, GENERATIONS, Generation
from drivers.simulated.tape.pages import ModeHeader, ModePage
from drivers.simulated.tape.unit import Command, Reply, text

if TYPE_CHECKING:
    from drivers.simulated.tape.drive import SimulatedDrive

COMPRESSION, PARTITIONS, DEVICE, MEDIUM_CONFIGURATION = 0x0F, 0x11, 0x10, 0x1D
REST: Final = 0xFFFF
"""As a partition size: whatever is left."""
FIXED_PARTITIONS, SELECTED_PARTITIONS, INITIATOR_PARTITIONS = 0x80, 0x40, 0x20
GIGABYTE_EXPONENT: Final = 9
_UNIT_EXPONENTS: Final = {0: 0, 1: 3, 2: 6}
"""PSUM: bytes, kilobytes, megabytes; 3 is by PARTITION UNITS."""
ALERTS_MAX: Final = 64
_MEGA: Final = 10**6


class DrivePages:
    """Parameters of one drive, as they are between two resets."""

    def __init__(self, drive: SimulatedDrive) -> None:
        self._drive = drive
        self.block_bytes = 0
        """Of the block descriptor; 0: variable."""
        self.is_buffered = True
        self.alerts: set[int] = set()
        self._asked_partitions: bytes | None = None
        compression = bytes([0xC0, 0x80]) + (1).to_bytes(4, "big") + (1).to_bytes(4, "big") + bytes(4)
        self._pages = {
            0x01: ModePage.fixed(bytes([0x00, 0x03, 0, 0, 0, 0, 0x03, 0, 0, 0])),
            0x02: ModePage.fixed(bytes(14)),
            0x0A: ModePage.fixed(bytes([0x02, *bytes(9)])),
            COMPRESSION: ModePage(current=compression, default=compression, changeable=bytes([0x80, 0x80]) + bytes(12)),
            0x1C: ModePage(
                current=bytes([0x08, 0x03, *bytes(8)]),
                default=bytes([0x08, 0x03, *bytes(8)]),
                changeable=bytes([0x0D, 0x0F]) + b"\xff" * 8,
            ),
        }

    # --- mode ---

    def header(self) -> ModeHeader:
        cartridge = self._drive.head.cartridge if self._drive.head else None
        density, medium_type, protected = GENERATIONS[self._drive.generation.number].density, 0, 0
        if cartridge is not None:
            density = cartridge.generation.density
            medium_type = cartridge.generation.number << 4 | (0x0C if cartridge.is_worm else 0x08)
            writable = cartridge.generation.number in self._drive.generation.writable
            protected = 0x80 if cartridge.card.write_protected or not writable else 0
        elif self._drive.cartridge is not None and self._drive.cartridge.is_cleaning:
            medium_type = 0x01
        specific = protected | (0x10 if self.is_buffered else 0)
        descriptor = bytes([density]) + bytes(4) + self.block_bytes.to_bytes(3, "big")
        return ModeHeader(medium_type, specific, descriptor)

    def mode_pages(self) -> dict[int, ModePage]:
        head = self._drive.head
        active = head.partition if head else 0
        device = bytearray(14)
        device[1], device[6], device[8], device[12] = active, 0x40, 0x18, 0x01
        worm = head is not None and head.cartridge.is_worm
        pages = self._pages | {
            DEVICE: ModePage.fixed(bytes(device)),
            MEDIUM_CONFIGURATION: ModePage.fixed(bytes([0x01 if worm else 0x00, *bytes(29)])),
        }
        pages[PARTITIONS] = self._partition_page()
        return pages

    def _partition_page(self) -> ModePage:
        head, drive = self._drive.head, self._drive.generation
        made = head.cartridge.generation if head else drive
        most = min(made.partitions_max, drive.partitions_max)
        wraps = head.cartridge.card.partition_wraps if head else []
        sizes = [_units(made, count) for count in wraps] + [0] * (most - len(wraps))
        flags = INITIATOR_PARTITIONS | 0x18 | 0x04
        current = bytes([most - 1, max(0, len(wraps) - 1), flags, 0x03, GIGABYTE_EXPONENT, 0])
        current += b"".join(size.to_bytes(2, "big") for size in sizes)
        changeable = bytes([0, 0xFF, 0xFC, 0, 0x0F, 0]) + b"\xff" * (len(current) - 6)
        asked = self._asked_partitions
        return PartitionPage(current=asked or current, default=current, changeable=changeable)

    def select(self, header: ModeHeader | None, pages: dict[int, bytes]) -> None:
        """Take over what MODE SELECT gave; it was checked against the masks."""
        if header is None:
            return
        if header.block_descriptor:
            wanted = int.from_bytes(header.block_descriptor[5:8], "big")
            if wanted > BLOCK_BYTES_MAX:
                raise s.CheckCondition(s.INVALID_PARAMETER)
            self.block_bytes = wanted
        self.is_buffered = bool(header.device_specific & 0x70)
        for number, values in pages.items():
            if number == PARTITIONS:
                self._ask_partitions(values)
            elif number in self._pages:
                self._pages[number].current = values

    def _ask_partitions(self, values: bytes) -> None:
        page = self._partition_page()
        if values[1] > page.current[0]:
            raise s.CheckCondition(s.INVALID_PARAMETER)
        before, self._asked_partitions = self._asked_partitions, values.ljust(len(page.current), b"\0")
        head = self._drive.head
        try:
            if values[2] & 0xE0 and head is not None:
                self.partition_wraps(head.cartridge.generation)
        except s.CheckCondition:
            self._asked_partitions = before
            raise

    def forget_asked_partitions(self) -> None:
        """With a format, or another cartridge, the page tells of what is there again."""
        self._asked_partitions = None

    def partition_wraps(self, made: Generation) -> list[int]:
        """The wraps of each partition that the page asks for; real drives, too, give whole pairs of wraps."""
        values = self._partition_page().current
        count = values[1] + 1
        if count > min(made.partitions_max, self._drive.generation.partitions_max):
            raise s.CheckCondition(s.INVALID_PARAMETER)
        if count == 1:
            return [made.wraps]
        if values[2] & FIXED_PARTITIONS:
            return [2] * (count - 1) + [made.wraps - 2 * (count - 1)]
        if values[2] & SELECTED_PARTITIONS:
            share = made.wraps // count // 2 * 2
            return [made.wraps - share * (count - 1)] + [share] * (count - 1)
        scale = values[2] >> 3 & 0x03
        unit = 10 ** _UNIT_EXPONENTS.get(scale, values[4] & 0x0F)
        sizes = [int.from_bytes(values[at : at + 2], "big") for at in range(6, 6 + 2 * count, 2)]
        wraps = [0 if size == REST else _wrap_pairs(made, size * unit) for size in sizes]
        left = made.wraps - sum(wraps)
        if sizes.count(REST) > 1 or 0 in [size for size in sizes if size != REST]:
            raise s.CheckCondition(s.INVALID_PARAMETER)
        if left < (2 if REST in sizes else 0):
            raise s.CheckCondition(s.INVALID_PARAMETER)
        return [left if size == REST else count for size, count in zip(sizes, wraps, strict=True)]

    # --- TapeAlert and log ---

    def alert(self, flag: int) -> None:
        assert 1 <= flag <= ALERTS_MAX
        self.alerts.add(flag)

    def alert_bits(self) -> int:
        """As in the cartridge's chip: flag 1 is the highest of 64 bits."""
        return sum(1 << (ALERTS_MAX - flag) for flag in self.alerts)

    def log_pages(self) -> dict[int, Callable[[], Iterable[tuple[int, bytes]]]]:
        """By number; each gives (parameter, value)."""
        return {
            0x02: lambda: _errors(self._drive.meters.write_errors, self._drive.meters.bytes_written),
            0x03: lambda: _errors(self._drive.meters.read_errors, self._drive.meters.bytes_read),
            0x0C: self._sequential_access,
            0x17: self._volume_statistics,
            0x2E: self._take_alerts,
            0x31: self._capacity,
        }

    def _take_alerts(self) -> list[tuple[int, bytes]]:
        """Reading clears them; what is still true comes again when it happens again, except the wish to be cleaned."""
        values = [(flag, bytes([flag in self.alerts])) for flag in range(1, ALERTS_MAX + 1)]
        self.alerts &= {20} if self._drive.needs_cleaning else set()
        return values

    def _sequential_access(self) -> list[tuple[int, bytes]]:
        meters = self._drive.meters
        values = [meters.bytes_written, meters.bytes_written, meters.bytes_read, meters.bytes_read]
        found = [(code, value.to_bytes(8, "big")) for code, value in enumerate(values)]
        return [*found, (0x0100, bytes([self._drive.needs_cleaning]))]

    def _capacity(self) -> list[tuple[int, bytes]]:
        """Vendor page of most LTO drives: remaining and maximum capacity in MiB of the first two partitions."""
        head = self._drive.head
        tapes = head.cartridge.partitions[:2] if head else []
        left = [(tape.capacity_bytes - tape.used_bytes) >> 20 for tape in tapes] + [0] * (2 - len(tapes))
        most = [tape.capacity_bytes >> 20 for tape in tapes] + [0] * (2 - len(tapes))
        return [(code, value.to_bytes(4, "big")) for code, value in enumerate([*left, *most], start=1)]

    def _volume_statistics(self) -> list[tuple[int, bytes]]:
        head = self._drive.head
        if head is None:
            return [(0x0000, b"\0")]
        cartridge, meters = head.cartridge, self._drive.meters
        card, tapes = cartridge.card, cartridge.partitions
        written, read = head.mounted_with
        capacity, used = sum(tape.capacity_bytes for tape in tapes), sum(tape.used_bytes for tape in tapes)
        return [
            (0x0000, b"\x01"),
            (0x0001, card.loads.to_bytes(4, "big")),
            (0x0004, meters.write_errors.to_bytes(4, "big")),
            (0x0009, meters.read_errors.to_bytes(4, "big")),
            (0x000E, ((card.bytes_written - written) // _MEGA).to_bytes(4, "big")),
            (0x000F, ((card.bytes_read - read) // _MEGA).to_bytes(4, "big")),
            (0x0010, (card.bytes_written // _MEGA).to_bytes(8, "big")),
            (0x0011, (card.bytes_read // _MEGA).to_bytes(8, "big")),
            (0x0016, (capacity // _MEGA).to_bytes(4, "big")),
            (0x0017, (used // _MEGA).to_bytes(4, "big")),
            (0x0040, text(card.serial, 32)),
            (0x0042, text(card.barcode if card.barcode_readable else "", 32)),
            (0x0043, text("RBMEDIA", 8)),
            (0x0045, text(f"Ultrium{cartridge.generation.number:2d}", 9)),
            (0x0080, bytes([card.write_protected])),
            (0x0081, bytes([cartridge.is_worm])),
            (0x0203, _per_partition([tape.capacity_bytes // _MEGA for tape in tapes])),
            (0x0204, _per_partition([tape.used_bytes // _MEGA for tape in tapes])),
            (
                0x0205,
                _per_partition(
                    [
                        max(0, tape.capacity_bytes - tape.early_warning_bytes - tape.used_bytes) // _MEGA
                        for tape in tapes
                    ]
                ),
            ),
        ]

    def density_support(self, command: Command) -> Reply:
        """REPORT DENSITY SUPPORT: of the drive, or of the cartridge in it."""
        drive, allocation = self._drive.generation, command.number(7, 2)
        if command.has(1, 0x02):
            raise s.CheckCondition(s.invalid_field(1))
        if command.has(1, 0x01):
            if self._drive.head is None:
                raise s.CheckCondition(self._drive.present_sense())
            known = [self._drive.head.cartridge.generation.number]
        else:
            known = sorted(drive.readable)
        body = b"".join(_density(GENERATIONS[number], drive) for number in known)
        return Reply(((len(body) + 2).to_bytes(2, "big") + bytes(2) + body)[:allocation])


class PartitionPage(ModePage):
    """May come with fewer sizes than the drive has partitions."""

    def accepts(self, wanted: bytes) -> bool:
        shorter = ModePage(current=self.current[: len(wanted)], default=b"", changeable=self.changeable[: len(wanted)])
        return len(wanted) >= 6 and len(wanted) % 2 == 0 and ModePage.accepts(shorter, wanted)


def _units(made: Generation, wraps: int) -> int:
    return made.capacity_bytes // made.wraps * wraps // 10**GIGABYTE_EXPONENT


def _wrap_pairs(made: Generation, size_bytes: int) -> int:
    pair = made.capacity_bytes // made.wraps * 2
    return -(-size_bytes // pair) * 2


def _errors(total: int, processed: int) -> list[tuple[int, bytes]]:
    """0003 total errors corrected .. 0006 total uncorrected."""
    return [(0x0003, bytes(4)), (0x0005, processed.to_bytes(8, "big")), (0x0006, total.to_bytes(4, "big"))]


def _per_partition(values: list[int]) -> bytes:
    return b"".join(
        bytes([7, 0]) + number.to_bytes(2, "big") + value.to_bytes(4, "big") for number, value in enumerate(values)
    )


def _density(made: Generation, drive: Generation) -> bytes:
    flags = (0x80 if made.number in drive.writable else 0) | (0x20 if made.number == drive.number else 0)
    raw = bytes([made.density, made.density, flags, 0, 0]) + (0).to_bytes(3, "big") + (127).to_bytes(2, "big")
    raw += made.wraps.to_bytes(2, "big") + (made.capacity_bytes // _MEGA).to_bytes(4, "big")
    return raw + text("LTO-CVE", 8) + text(f"U-{made.number}", 8) + text(f"Ultrium {made.number}", 20)
