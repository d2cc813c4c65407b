"""An LTFS cartridge in a drive: labelled and opened. What is chosen, and why: ``docs/format-tape.md``, "LTFS".

The open volume is in ``ltfs_session``, finding out where it stands in ``ltfs_open``, reading in ``ltfs_reader``, partitions and the cartridge's memory
in ``ltfs_medium``.
"""

from __future__ import annotations

import uuid
from typing import Final

import msgspec

from drivers.scsi.drive import Drive
from drivers.scsi.drive_pages import REST_OF_TAPE
from drivers.tape.identify import check_before_labelling
from drivers.tape.ltfs_medium import (
    FoundIndex,
    LastIndex,
    LtfsMedium,
    is_worm,
    read_labels,
    write_attributes,
)
from drivers.tape.ltfs_open import VolumeState, find_state
from drivers.tape.ltfs_session import CREATOR, LtfsSession
from drivers.tape.records import MEMORY_BYTES, READ_THROUGH_BYTES, use_variable_blocks
from rbcore import errors
from rbcore.tape.ltfs import FIRST_CONTENT_BLOCK, Directory, Index, Pointer, Times
from rbcore.tape.ltfs_formats import check_name
from rbcore.tape.ltfs_volume import BLOCK_BYTES_USUAL, Label, application_attributes
from rbcore.tape.session import Contents, Identified, LabelOrder

__all__ = ["LtfsSession", "label_ltfs", "open_ltfs"]

INDEX_LETTER, DATA_LETTER = "a", "b"
_INDEX_PARTITION, _DATA_PARTITION = 0, 1
_INDEX_GIGABYTES: Final = 1
"""Drives round it up to the least that they can make."""


async def label_ltfs(drive: Drive, order: LabelOrder, identified: Identified) -> LtfsSession:
    """Make an LTFS volume of the loaded cartridge; whatever it held is gone.

    ``identified`` is what the caller decided by: when the cartridge is not that any more, ``NotAllowedNow`` is raised and nothing written.
    Raises ``UnsupportedByDevice`` when drive or cartridge cannot have two partitions or blocks of the usual size, ``WriteProtected`` also for WORM
    cartridges, and what drives raise. The data partition comes first: a crash never leaves an index partition that points at nothing.
    """
    await _must_be_labelable(drive, order, identified)
    try:
        await drive.format_medium([_INDEX_GIGABYTES, REST_OF_TAPE])
    except (errors.UnsupportedByDevice, errors.RefusedByDevice) as error:
        raise _cannot_divide(drive, error.message) from error
    volume_uuid = str(uuid.UUID(bytes=order.cartridge, version=4))
    label = Label.of_cartridge(
        order.volume_tag,
        creator=CREATOR,
        format_time_ns=order.created_ns,
        volume_uuid=volume_uuid,
        partition=INDEX_LETTER,
        index_partition=INDEX_LETTER,
        data_partition=DATA_LETTER,
        block_bytes=BLOCK_BYTES_USUAL,
        compression=bool(await drive.compression()),
    )
    medium = LtfsMedium(drive, label, {INDEX_LETTER: _INDEX_PARTITION, DATA_LETTER: _DATA_PARTITION})
    first = _first_index(label, order)
    last: dict[str, LastIndex | None] = {}
    current: FoundIndex | None = None
    for letter in (DATA_LETTER, INDEX_LETTER):
        await medium.write_label(letter)
        previous = None if letter == DATA_LETTER else first.location
        location = Pointer(letter, first.location.block)
        index = msgspec.structs.replace(first, location=location, previous=previous)
        current, _ = await medium.write_index(index)
        last[letter] = LastIndex.of(current)
    application = application_attributes(
        vendor="RBMEDIA",
        name="rbmedia",
        version=order.software.rpartition(" ")[2],
        volume_name=order.volume_tag,
        volume_tag=order.volume_tag,
        pool=order.pool,
    )
    await write_attributes(drive, application, _INDEX_PARTITION)
    await medium.write_coherencies(last)
    facts = Identified(
        contents=Contents.LTFS,
        volume_tag=label.volume_identifier,
        cartridge=volume_uuid.replace("-", ""),
        partitions=2,
        detail=f"An LTFS volume of {label.creator}, in 2 partitions.",
    )
    return LtfsSession(medium, facts, VolumeState(current=current, last=last))


async def _must_be_labelable(drive: Drive, order: LabelOrder, identified: Identified) -> None:
    await check_before_labelling(drive, order, identified)
    if await is_worm(drive):
        raise errors.WriteProtected(
            f"The cartridge to be labelled {order.volume_tag} is a WORM cartridge: the index of an LTFS volume must be written again and again. "
            "Take another cartridge, or a pool of native ones."
        )
    if await drive.partitions_max() < len((_INDEX_PARTITION, _DATA_PARTITION)):
        raise _cannot_divide(drive, "it has one partition at most.")
    longest = (await drive.block_limits()).maximum_bytes
    if 0 < longest < BLOCK_BYTES_USUAL:
        raise errors.UnsupportedByDevice(
            f"{drive.name} takes blocks of up to {longest} bytes, LTFS volumes are written with {BLOCK_BYTES_USUAL}. Use another drive."
        )


def _cannot_divide(drive: Drive, why: str) -> errors.UnsupportedByDevice:
    return errors.UnsupportedByDevice(
        f"{drive.name} cannot divide the loaded cartridge into two partitions, which an LTFS volume needs: {why} "
        "Take a drive and cartridge of LTO-5 or later, or a pool of native cartridges."
    )


def _first_index(label: Label, order: LabelOrder) -> Index:
    """Empty; of the data partition."""
    try:
        name = check_name(order.volume_tag, root=True)
    except errors.ProtocolViolation:
        name = ""
    return Index(
        creator=CREATOR,
        volume_uuid=label.volume_uuid,
        generation=1,
        update_time_ns=order.created_ns,
        location=Pointer(DATA_LETTER, FIRST_CONTENT_BLOCK + 1),
        previous=None,
        allow_policy_update=True,
        highest_uid=1,
        root=Directory(name=name, uid=1, times=Times.all_at(order.created_ns)),
    )


async def open_ltfs(
    drive: Drive,
    identified: Identified,
    *,
    memory_bytes: int = MEMORY_BYTES,
    read_through_bytes: int = READ_THROUGH_BYTES,
) -> LtfsSession:
    """Find the current index of a volume, of whatever software, and whether it may be appended to. Writes nothing.

    ``memory_bytes``: of records that were passed, kept for slightly unordered reading. ``read_through_bytes``: how far ahead a record may be to be
    reached by reading. Raises ``PositionLost`` when the cartridge is not the one of ``identified``, ``Damaged`` when it has no label that can be
    read, ``UnsupportedByDevice`` when its records are too long for the drive, and what is wrong with the drive.
    """
    await use_variable_blocks(drive)
    label, numbers, problem = await read_labels(drive)
    if label.volume_uuid.replace("-", "") != identified.cartridge:
        raise errors.PositionLost(
            f"{drive.name} holds volume {label.volume_uuid}, not {identified.cartridge} as before. Identify the cartridge again."
        )
    longest = (await drive.block_limits()).maximum_bytes
    if 0 < longest < label.block_bytes:
        raise errors.UnsupportedByDevice(
            f"{drive.name} cannot read records of {label.block_bytes} bytes, as volume {label.volume_uuid} has. Use another drive."
        )
    medium = LtfsMedium(drive, label, numbers)
    state = await find_state(medium)
    if not problem and await is_worm(drive):
        problem = "it is on a WORM cartridge, whose index cannot be written again"
    if problem:
        state = msgspec.structs.replace(state, problem=problem)
    return LtfsSession(medium, identified, state, memory_bytes=memory_bytes, read_through_bytes=read_through_bytes)
