"""Cartridges in drives: what lies on one, labelling, writing and reading it in its format. Implements ``rbcore.tape.session``.

Bytes of formats live in ``rbcore.tape``, SCSI commands in ``drivers.scsi``; which cartridge is used for what is decided above.
"""

from __future__ import annotations

from drivers.scsi.drive import Drive
from drivers.tape.identify import identify
from drivers.tape.ltfs import label_ltfs, open_ltfs
from drivers.tape.native import label_native, open_native
from drivers.tape.scan import scan_cartridge
from rbcore import errors
from rbcore.tape.session import CartridgeFormat, CartridgeSession, Contents, Identified, LabelOrder

__all__ = ["identify", "label_cartridge", "open_session", "scan_cartridge"]


async def open_session(drive: Drive, identified: Identified) -> CartridgeSession:
    """Open the loaded cartridge in the format that ``identify`` found. Raises ``NotAllowedNow`` when that is none of ours."""
    if identified.contents is Contents.NATIVE:
        return await open_native(drive, identified)
    if identified.contents is Contents.LTFS:
        return await open_ltfs(drive, identified)
    raise errors.NotAllowedNow(f"{drive.name}: there is nothing to open on this cartridge. {identified.detail}")


async def label_cartridge(
    drive: Drive, order: LabelOrder, identified: Identified, format: CartridgeFormat
) -> CartridgeSession:
    """Label the loaded cartridge, of which ``identified`` was decided upon; whatever it held is gone."""
    if format is CartridgeFormat.NATIVE:
        return await label_native(drive, order, identified)
    return await label_ltfs(drive, order, identified)
