"""Which SCSI devices this host can reach: Linux generic devices, and the logical units of configured iSCSI targets.

Addresses stand in events and answers, so they never carry a password: user and password of a target stay here, in the configuration it
was named in.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import trio
from msgspec.structs import replace

from drivers.scsi.iscsi import IscsiAddress, IscsiTransport
from drivers.scsi.sg_io import SgTransport
from drivers.scsi.unit import LogicalUnit
from rbcore.errors import InvalidRequest, NotFound, RbError
from rbcore.ports import Threads
from rbcore.scsi import ScsiTransport

_log = logging.getLogger(__name__)

LISTING_SECONDS_MAX: Final = 10.0
_SG: Final = re.compile(r"/dev/sg[0-9]{1,4}")
_PLACE: Final = re.compile(r"\d+:\d+:\d+:\d+")


class HostScsiDevices:
    """``rbcore.scsi.ScsiDevices`` of a Linux host.

    ``targets``: iSCSI targets as ``iscsi://[user%password@]host[:port]/target``, with ``/lun`` for a single logical unit. Raises
    ``InvalidRequest`` for anything else.
    """

    def __init__(
        self,
        targets: Sequence[str],
        threads: Threads,
        *,
        directory: Path = Path("/dev"),
        generic: Path = Path("/sys/class/scsi_generic"),
    ) -> None:
        self._threads = threads
        self._directory = directory
        self._generic = generic
        self._targets: list[tuple[IscsiAddress, bool]] = []
        """Each with whether a single logical unit was named."""
        for url in targets:
            is_unit = url.rpartition("/")[2].isdecimal()
            self._targets.append((IscsiAddress.parse(url if is_unit else f"{url.rstrip('/')}/0"), is_unit))

    async def addresses(self) -> list[str]:
        found = await self._threads.run(self._generic_devices)
        for address, is_unit in self._targets:
            if is_unit:
                found.append(str(address))
            else:
                found += await self._units_of(address)
        return list(dict.fromkeys(found))

    def _generic_devices(self) -> list[str]:
        names = [path.name for path in self._directory.glob("sg*") if path.name[2:].isdecimal()]
        return [f"{self._directory}/{name}" for name in sorted(names, key=lambda name: int(name[2:]))]

    async def _units_of(self, address: IscsiAddress) -> list[str]:
        """REPORT LUNS of the target. One that does not answer is said in the log."""
        unit = LogicalUnit(IscsiTransport(address))
        try:
            with trio.fail_after(LISTING_SECONDS_MAX):
                luns = await unit.report_luns()
        except (RbError, trio.TooSlowError) as error:
            _log.warning("the iSCSI target %s/%s is left out: %s", address.host, address.target, error)
            return []
        finally:
            await unit.aclose()
        return [str(replace(address, lun=lun)) for lun in luns]

    async def scsi_path(self, address: str) -> str:
        name = address.rpartition("/")[2]
        return await self._threads.run(lambda: self._path_of(name)) if _SG.fullmatch(address) else name

    def _path_of(self, name: str) -> str:
        """The link ends with what ``lsscsi`` shows: ``../../../8:0:0:0``."""
        try:
            last = (self._generic / name / "device").readlink().name
        except OSError as error:
            _log.info("the system does not say where %s is: %s", name, error)
            return ""
        return f"[{last}]" if _PLACE.fullmatch(last) else ""

    def open(self, address: str) -> ScsiTransport:
        if address.startswith("iscsi://"):
            wanted = IscsiAddress.parse(address)
            if wanted.user:
                raise InvalidRequest(
                    "An address carries no password: name user and password with the target in the configuration."
                )
            for known, _ in self._targets:
                if (known.host, known.port, known.target) == (wanted.host, wanted.port, wanted.target):
                    return IscsiTransport(replace(wanted, user=known.user, password=known.password))
            raise NotFound(f"The iSCSI target of {address} is not configured here: name it in iscsi_targets.")
        if _SG.fullmatch(address):
            return SgTransport(address, self._threads)
        raise InvalidRequest(
            f"{address.rpartition('@')[2][:200]!r} is no address of a SCSI device: /dev/sgN or iscsi://HOST[:PORT]/TARGET/LUN."
        )
