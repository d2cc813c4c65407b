"""The libraries that tests of the API's tape methods run against, before anybody adds them: empty, and in no log.

Both have the same elements and no cartridge. The simulated one lives in memory. The target is tgtd behind iSCSI, another program with its own idea of
the standards: it makes no partitions, so no LTFS, and has no ERASE; a cleaning cartridge is a cartridge to it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from drivers.scsi.devices import HostScsiDevices
from drivers.simulated.tape import NO_DELAY, SimulatedLibrary
from drivers.simulated.tape.devices import SimulatedDevices
from drivers.simulated.world import InlineThreads
from rbcore.scsi import ScsiDevices
from tests.tape import vtl
from tests.tape.libraries import need_target

DRIVE, IMPORT_EXPORT, STORAGE, SLOTS = 256, 768, 1024, 6
"""First addresses, and how many slots there are. Two drives, two import-export elements."""
CARTRIDGE_MEBIBYTES = 64


class Shelf(Protocol):
    """One library, and the hands of whoever stands before it."""

    name: str
    devices: ScsiDevices
    changer: str
    """Address of the changer."""
    drives: list[str]
    """Addresses of the drives, in the order of their elements."""
    nowhere: str
    """An address of the same kind at which nothing is."""
    serial: str
    """The changer's."""

    def put(self, tag: str, address: int = 0) -> None:
        """A new cartridge into the element; 0: into the first free slot."""

    def take_out(self, address: int) -> None: ...


class SimulatedShelf:
    def __init__(self) -> None:
        self.name = "simulated"
        self.library = SimulatedLibrary(slots=SLOTS, mechanics=NO_DELAY, capacity_factor=2e-6)
        self.devices: ScsiDevices = SimulatedDevices([self.library])
        self.serial = self.library.serial
        self.changer = f"simulated://{self.serial}/0"
        self.drives = [f"simulated://{self.serial}/{lun}" for lun in (1, 2)]
        self.nowhere = "simulated://OTHER/0"

    def put(self, tag: str, address: int = 0) -> None:
        self.library.add_cartridge(tag, address or None)

    def take_out(self, address: int) -> None:
        self.library.faults.take_out(address)


class TargetLibrary(vtl.VirtualLibrary):
    """tgtd without a cartridge; hands put them in while it runs."""

    def _make_media(self) -> None:
        (self.directory / "media").mkdir(parents=True)
        for number in range(self.drives):
            self._make_image(self.directory / f"drive{number}", f"EMPTY{number}", 1)
        (self.directory / "changer").write_bytes(bytes(1024))

    def put(self, tag: str, address: int) -> None:
        kind = "clean" if tag.startswith("CLN") else "data"
        self._make_image(self.directory / "media" / tag, tag, CARTRIDGE_MEBIBYTES, kind)
        self._element(address, barcode=tag, sides=1)

    def clear(self, address: int) -> None:
        self._element(address, clear_slot=1)

    def _element(self, address: int, **parameters: object) -> None:
        kind = 2 if address >= STORAGE else 3
        self._update(self.drives + 1, element_type=kind, address=address, **parameters)


class TargetShelf:
    def __init__(self, target: TargetLibrary) -> None:
        self.name = "target"
        self._target = target
        self._put: dict[int, str] = {}
        """Where hands put something first, which is where they look for it."""
        self.changer = target.changer_url
        self.drives = [target.drive_url(number) for number in range(target.drives)]
        self.devices: ScsiDevices = HostScsiDevices([self.changer.rpartition("/")[0]], InlineThreads())
        self.nowhere = f"{self.changer.rpartition('/')[0]}/200"
        self.serial = "VTLCHG0001"

    def put(self, tag: str, address: int = 0) -> None:
        address = address or next(one for one in range(STORAGE, STORAGE + SLOTS) if one not in self._put)
        self._target.put(tag, address)
        self._put[address] = tag

    def take_out(self, address: int) -> None:
        self._target.clear(address)
        del self._put[address]


@contextlib.contextmanager
def open_shelf(name: str, directory: Path) -> Iterator[Shelf]:
    """``simulated`` or ``target``. Skips the test, and says so, where there is no target."""
    if name == "simulated":
        yield SimulatedShelf()
        return
    need_target()
    target = TargetLibrary(directory / "target", slots=SLOTS)
    target.directory.mkdir()
    try:
        target.start()
        yield TargetShelf(target)
    finally:
        target.stop()


SHELVES = ("simulated", "target")
