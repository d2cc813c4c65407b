"""Who is it? A look at the beginning of the loaded cartridge, and nothing more: what it holds comes with opening it."""

from __future__ import annotations

from typing import Final

from drivers.scsi.drive import Drive, Found
from drivers.scsi.drive_pages import MODE_PARTITIONS
from drivers.tape.records import read_label_record, stand_at_beginning, use_variable_blocks
from rbcore import errors
from rbcore.tape.ltfs_volume import LABEL_BYTES_MAX, read_label
from rbcore.tape.native import Record, RecordKind, decode_label
from rbcore.tape.session import Contents, Identified, LabelOrder
from rbcore.tape.vol1 import LTFS_IMPLEMENTATION, NATIVE_IMPLEMENTATION, Vol1, parse_vol1

_LOOK_BYTES: Final = 4096
"""A longer first record is of another program."""
_UNREADABLE: Final = (errors.MediumFailed, errors.WriteProtected)
"""Reading raises the latter where the key of an encrypted cartridge is missing."""


async def identify(drive: Drive) -> Identified:
    """Look at the beginning of the loaded cartridge. The tape stands anywhere afterwards; the drive is in variable block mode.

    A cartridge that cannot be read is ``Contents.UNREADABLE``, with the reason in ``detail``. Raises what drives do: ``NoCartridge``,
    ``DeviceNotReady``, ``HardwareFailed``, ``Unavailable`` ...
    """
    await use_variable_blocks(drive)
    facts = Identified(
        contents=Contents.UNREADABLE,
        write_protected=await _is_write_protected(drive),
        partitions=await _partitions(drive),
    )
    try:
        await stand_at_beginning(drive)
        return await _look(drive, facts)
    except _UNREADABLE as error:
        return _replaced(facts, Contents.UNREADABLE, f"The beginning of the cartridge cannot be read: {error.message}")


async def check_before_labelling(drive: Drive, order: LabelOrder, identified: Identified) -> None:
    """Whatever the format: nothing is written on another cartridge than the one that the caller decided by.

    Raises ``NotAllowedNow`` when it is not that one any more, ``WriteProtected``, and what drives do.
    """
    now = await identify(drive)
    if now != identified:
        raise errors.NotAllowedNow(
            f"{drive.name} does not hold what it held when labelling as {order.volume_tag} was decided. Now: {now.detail} Look at it again."
        )
    if identified.write_protected:
        raise errors.WriteProtected(
            f"The cartridge to be labelled {order.volume_tag} is write protected. Move its switch."
        )


async def _is_write_protected(drive: Drive) -> bool:
    try:
        return await drive.is_write_protected()
    except errors.Refused:
        # A drive that does not tell refuses the first write instead.
        return False


async def _partitions(drive: Drive) -> int:
    try:
        page = await drive.mode_page(MODE_PARTITIONS)
    except errors.Refused:
        return 1
    found = page[4 + page[3] :] if len(page) >= 4 else b""
    return 1 + found[3] if len(found) >= 4 and found[0] & 0x3F == MODE_PARTITIONS else 1


def _replaced(facts: Identified, contents: Contents, detail: str, **fields: str | int) -> Identified:
    return Identified(
        contents=contents,
        detail=detail,
        write_protected=facts.write_protected,
        partitions=facts.partitions,
        **fields,  # type: ignore[arg-type]
    )


async def _look(drive: Drive, facts: Identified) -> Identified:
    vol1: Vol1 | None = None
    raw = b""
    try:
        first = await drive.read(_LOOK_BYTES)
    except errors.TooLarge:
        return _replaced(facts, Contents.FOREIGN, "The first record is longer than any label.")
    except errors.MediumFailed as error:
        return await _behind_unreadable(drive, facts, error)
    if first.found is Found.END_OF_DATA:
        return await _blank(drive, facts, "Nothing is written on the cartridge.")
    if first.found is Found.FILEMARK:
        return await _behind_filemark(drive, facts)
    try:
        raw = first.data
        vol1 = parse_vol1(raw)
    except (errors.Damaged, errors.ProtocolViolation) as error:
        native = await _native_label(drive)
        if native is not None:
            return _native(native, facts)
        return _replaced(facts, Contents.FOREIGN, f"The cartridge holds data of another program: {error.message}.")
    if vol1.implementation == LTFS_IMPLEMENTATION:
        return await _ltfs(drive, facts, raw, vol1)
    native = await _native_label(drive)
    if native is not None:
        return _native(native, facts)
    if vol1.implementation != NATIVE_IMPLEMENTATION:
        return _replaced(
            facts,
            Contents.FOREIGN,
            f"The cartridge has a label of {vol1.implementation or 'another program'}.",
            volume_tag=vol1.volume_identifier,
        )
    await drive.locate(1)
    if (await _found(drive)) is Found.END_OF_DATA:
        return await _blank(drive, facts, "Labelling was interrupted: behind the first label stands nothing.")
    return _replaced(
        facts,
        Contents.UNREADABLE,
        "The cartridge is a native one, and its label cannot be read.",
        volume_tag=vol1.volume_identifier,
    )


async def _found(drive: Drive) -> Found | None:
    """What stands next; None for something that is no use."""
    try:
        return (await drive.read(_LOOK_BYTES)).found
    except (errors.TooLarge, errors.MediumFailed):
        return None


async def _native_label(drive: Drive) -> Record | None:
    """The native label, if there is one that is whole."""
    try:
        record = await read_label_record(drive)
    except (errors.Damaged, errors.ProtocolViolation, errors.NotFound):
        return None
    return record if record.header.kind is RecordKind.LABEL else None


def _native(record: Record, facts: Identified) -> Identified:
    try:
        label = decode_label(record)
    except errors.ProtocolViolation as error:
        return _replaced(
            facts, Contents.UNREADABLE, f"The cartridge is a native one of another version: {error.message}."
        )
    return _replaced(
        facts,
        Contents.NATIVE,
        f"A native cartridge of pool {label.pool}, labelled {label.volume_tag}, use {record.header.use}.",
        volume_tag=label.volume_tag,
        cartridge=record.header.cartridge.hex(),
        use=record.header.use,
        server=label.server,
        pool=label.pool,
    )


async def _ltfs(drive: Drive, facts: Identified, raw: bytes, vol1: Vol1) -> Identified:
    try:
        await drive.read(_LOOK_BYTES)
        record = await drive.read(LABEL_BYTES_MAX)
        label = read_label(raw, record.data)
    except (errors.Damaged, errors.ProtocolViolation, errors.TooLarge) as error:
        return _replaced(
            facts,
            Contents.UNREADABLE,
            f"The cartridge is an LTFS volume whose label cannot be read: {error.message}",
            volume_tag=vol1.volume_identifier,
        )
    return _replaced(
        facts,
        Contents.LTFS,
        f"An LTFS volume of {label.creator}, in {facts.partitions} partitions.",
        volume_tag=label.volume_identifier,
        cartridge=label.volume_uuid.replace("-", "").lower(),
    )


async def _behind_unreadable(drive: Drive, facts: Identified, error: errors.MediumFailed) -> Identified:
    """A native cartridge needs its first record for nothing."""
    native = await _native_label(drive)
    if native is not None:
        return _native(native, facts)
    return _replaced(facts, Contents.UNREADABLE, f"The beginning of the cartridge cannot be read: {error.message}")


async def _behind_filemark(drive: Drive, facts: Identified) -> Identified:
    """A drive without ERASE erases by one filemark at the beginning."""
    if (await _found(drive)) is Found.END_OF_DATA:
        return await _blank(drive, facts, "The cartridge was erased.")
    return _replaced(facts, Contents.FOREIGN, "The cartridge begins with a filemark: data of another program.")


async def _blank(drive: Drive, facts: Identified, detail: str) -> Identified:
    for partition in range(1, facts.partitions):
        await drive.locate(0, partition)
        if (await _found(drive)) is not Found.END_OF_DATA:
            return _replaced(facts, Contents.FOREIGN, f"Partition 0 is empty, partition {partition} holds data.")
    if facts.partitions > 1:
        await drive.locate(0, 0)
    return _replaced(facts, Contents.BLANK, detail)
