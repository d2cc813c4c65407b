"""How long things take, and how far the tape runs: pure functions of where head and robot stand.

A tape is a serpentine: data run to the end of the tape, come back on the next wrap, and so on. Where a byte lies along the tape
follows from its number, and a locate pays for the metres between, whatever lies logically between: two blocks a terabyte apart may
be neighbours.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import msgspec

from drivers.simulated.tape.generations import Generation


class Mechanics(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds before ``factor``. They pass on trio's clock, which is virtual in simulation."""

    factor: float = 1.0
    """Multiplies every time; 0: nothing takes time."""
    pick_seconds: float = 4.0
    place_seconds: float = 4.0
    travel_seconds_per_element: float = 0.02
    position_seconds: float = 1.0
    scan_seconds_per_element: float = 0.5
    """Reading one barcode: INITIALIZE ELEMENT STATUS, and at power on."""
    locate_settle_seconds: float = 2.0
    cleaning_seconds: float = 120.0

    def robot_seconds(self, *places: int) -> float:
        """Take what is at the first of ``places`` (element addresses) to the second; four of them are two journeys."""
        journeys = len(places) // 2
        travelled = sum(abs(after - before) for before, after in pairwise(places))
        busy = journeys * (self.pick_seconds + self.place_seconds) + travelled * self.travel_seconds_per_element
        return busy * self.factor

    def position_robot_seconds(self) -> float:
        return self.position_seconds * self.factor

    def scan_seconds(self, elements: int) -> float:
        return elements * self.scan_seconds_per_element * self.factor

    def load_seconds(self, drive: Generation, *, is_new_medium: bool) -> float:
        return (drive.load_seconds + (drive.optimisation_seconds if is_new_medium else 0.0)) * self.factor

    def unload_seconds(self, drive: Generation, metres: float) -> float:
        return (drive.unload_seconds + metres / drive.locate_metres_per_second) * self.factor

    def rewind_seconds(self, drive: Generation, metres: float) -> float:
        return metres / drive.locate_metres_per_second * self.factor

    def locate_seconds(self, drive: Generation, metres: float) -> float:
        if metres == 0:
            return 0.0
        return (self.locate_settle_seconds + metres / drive.locate_metres_per_second) * self.factor

    def transfer_seconds(self, drive: Generation, medium: Generation, length_bytes: int) -> float:
        rate = min(drive.rate_bytes_per_second, medium.rate_bytes_per_second)
        return length_bytes / rate * self.factor

    def clean_seconds(self) -> float:
        return self.cleaning_seconds * self.factor


def metres_from_beginning(medium: Generation, wrap_bytes: float, start_bytes: int) -> float:
    """Where along the tape byte ``start_bytes`` of a partition lies; ``wrap_bytes`` fit on one wrap."""
    wrap, within = divmod(start_bytes, wrap_bytes)
    along = within / wrap_bytes * medium.length_metres
    return along if int(wrap) % 2 == 0 else medium.length_metres - along


def metres_run(medium: Generation, wrap_bytes: float, length_bytes: int) -> float:
    """How much tape passes the head for so many bytes in one go."""
    return length_bytes / wrap_bytes * medium.length_metres


NO_DELAY: Final = Mechanics(factor=0.0)
