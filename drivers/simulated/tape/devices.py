"""``rbcore.scsi.ScsiDevices`` over simulated libraries: what a daemon in simulation can reach."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from rbcore.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from drivers.simulated.tape.library import SimulatedLibrary
    from drivers.simulated.tape.transport import SimulatedTransport

_ADDRESS: Final = re.compile(r"simulated://([^/]+)/([0-9]{1,5})")


class SimulatedDevices:
    """Addresses are ``simulated://<serial of the library>/<lun>``. Every ``open`` is a login of its own."""

    def __init__(self, libraries: Sequence[SimulatedLibrary]) -> None:
        self._libraries = {library.serial: library for library in libraries}
        self._logins = 0

    async def addresses(self) -> list[str]:
        return [
            f"simulated://{serial}/{lun}"
            for serial, library in self._libraries.items()
            for lun in range(1 + len(library.drive_units))
        ]

    async def scsi_path(self, address: str) -> str:
        return address.rpartition("/")[2]

    def open(self, address: str) -> SimulatedTransport:
        found = _ADDRESS.fullmatch(address)
        if found is None:
            raise InvalidRequest(
                f"{address.rpartition('@')[2][:200]!r} is no address of a simulated device: simulated://SERIAL/LUN."
            )
        library, lun = self._libraries.get(found[1]), int(found[2])
        if library is None or lun > len(library.drive_units):
            raise NotFound(f"There is no simulated device {address}.")
        self._logins += 1
        return library.connect(lun, f"login-{self._logins}")
