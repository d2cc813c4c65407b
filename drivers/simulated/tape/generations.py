"""What the generations of LTO are able to: one table, used by media and drives.

Rounded figures of data sheets for full-height drives; no single product. Capacities and rates are native (2:1 compression is
nobody's promise). Compatibility: up to LTO-7 a drive reads two generations back and writes one; LTO-8 and LTO-9 do both one back.
"""

from __future__ import annotations

from typing import Final

import msgspec

from rbcore.errors import InvalidRequest

BLOCK_BYTES_MAX: Final = 8 * 1024 * 1024
"""Of READ BLOCK LIMITS; the limit of most LTO drives."""


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """One generation: its cartridge and its drive."""

    number: int
    capacity_bytes: int
    rate_bytes_per_second: int
    length_metres: int
    wraps: int
    """Passes over the whole length, to and fro; a partition has whole pairs of them."""
    partitions_max: int
    load_seconds: float
    """From insertion to ready."""
    unload_seconds: float
    locate_metres_per_second: float
    density: int
    worm: bool
    optimisation_seconds: float = 0.0
    """At the first load of a new cartridge (LTO-9 measures it)."""

    @property
    def name(self) -> str:
        return f"LTO-{self.number}"

    @property
    def readable(self) -> frozenset[int]:
        oldest = self.number - 2 if self.number <= 7 else self.number - 1
        return frozenset(range(max(1, oldest), self.number + 1))

    @property
    def writable(self) -> frozenset[int]:
        return frozenset(range(max(1, self.number - 1), self.number + 1))


def _row(
    number: int,
    capacity_gb: int,
    rate_mb: int,
    length_metres: int,
    wraps: int,
    partitions_max: int,
    load_seconds: float,
    unload_seconds: float,
    speed: float,
    density: int,
) -> Generation:
    return Generation(
        number=number,
        capacity_bytes=capacity_gb * 10**9,
        rate_bytes_per_second=rate_mb * 10**6,
        length_metres=length_metres,
        wraps=wraps,
        partitions_max=partitions_max,
        load_seconds=load_seconds,
        unload_seconds=unload_seconds,
        locate_metres_per_second=speed,
        density=density,
        worm=number >= 3,
        optimisation_seconds=2400.0 if number == 9 else 0.0,
    )


GENERATIONS: Final[dict[int, Generation]] = {
    row.number: row
    for row in (
        _row(1, 100, 20, 609, 48, 1, 15, 20, 6.0, 0x40),
        _row(2, 200, 40, 609, 64, 1, 15, 20, 7.0, 0x42),
        _row(3, 400, 80, 680, 44, 1, 15, 20, 7.0, 0x44),
        _row(4, 800, 120, 820, 56, 1, 15, 20, 8.0, 0x46),
        _row(5, 1_500, 140, 846, 80, 2, 12, 17, 9.0, 0x58),
        _row(6, 2_500, 160, 846, 136, 4, 12, 17, 9.0, 0x5A),
        _row(7, 6_000, 300, 960, 112, 4, 15, 24, 10.0, 0x5C),
        _row(8, 12_000, 360, 960, 208, 4, 15, 24, 10.0, 0x5E),
        _row(9, 18_000, 400, 1_035, 280, 4, 15, 24, 10.0, 0x60),
    )
}


def generation(number: int) -> Generation:
    """Raises ``InvalidRequest`` for a number that is none of 1 to 9."""
    found = GENERATIONS.get(number)
    if found is None:
        raise InvalidRequest(f"there is no LTO generation {number}: 1 to 9 are known")
    return found
