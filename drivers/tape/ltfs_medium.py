"""An LTFS volume in a drive: its two partitions by their letters, labels and index constructs on them, and the cartridge's memory.

What the bytes are is in ``rbcore.tape.ltfs_volume``; what is written when is decided in ``ltfs``. Every place that is about to be written is
asked for (READ POSITION) before: a mismatch stops it, and what stands there is not lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from drivers.scsi import drive_pages
from drivers.scsi.drive import Drive, Found
from drivers.tape.records import stand_at_beginning
from rbcore import errors
from rbcore.tape.ltfs import FIRST_CONTENT_BLOCK, INDEX_BYTES_MAX, Index, write_index
from rbcore.tape.ltfs_volume import (
    COHERENCY_ID,
    LABEL_BYTES_MAX,
    VOLUME_CHANGE_REFERENCE_ID,
    Attribute,
    Coherency,
    Label,
    check_labels,
    coherency_attribute,
    find_index,
    index_records,
    is_usable_reference,
    label_records,
    read_coherency,
    read_label,
)

PARTITIONS: Final = (0, 1)
_REMAINING_CAPACITY_ID: Final = 0x0000
_MEDIUM_TYPE_ID: Final = 0x0408
_WORM_BIT: Final = 0x80
_LABEL_FILEMARKS: Final = 2
_XML_BEGINS: Final = b"<?xml"
_NUMBER_BYTES_MAX: Final = 8
"""Of numbers in the cartridge's memory: what is longer is none."""


class FoundIndex(msgspec.Struct, frozen=True, kw_only=True):
    """An index construct that was read."""

    index: Index
    length: int
    """Bytes of its XML."""
    end: int
    """The block behind it; behind its filemark where it has one."""
    closed: bool
    """Its last filemark is there."""


class LastIndex(msgspec.Struct, frozen=True):
    """The last index of a partition: all that the cartridge's memory says of it."""

    generation: int
    block: int

    @classmethod
    def of(cls, found: FoundIndex | None) -> LastIndex | None:
        return None if found is None else cls(found.index.generation, found.index.location.block)


class FoundEnd(msgspec.Struct, frozen=True, kw_only=True):
    """What stands at the end of a partition."""

    last: FoundIndex | None
    trailing: bool
    """Something else stands behind ``last``, or behind the label."""
    unreadable: bool
    """What stands there could not be read: it may be an index."""


async def read_attributes(drive: Drive, partition: int, first: int) -> dict[int, bytes]:
    """Attributes of the cartridge's memory from ``first`` on; none where drive or cartridge has no memory."""
    try:
        return {one.identifier: one.value for one in await drive.read_attributes(partition, first)}
    except (errors.Refused, errors.MediumFailed):
        return {}


async def write_attributes(drive: Drive, attributes: Sequence[Attribute], partition: int) -> None:
    """A cartridge without them is only found more slowly: a drive that does not take them is no reason to fail."""
    listed = [drive_pages.Attribute(one.id, one.value, int(one.format)) for one in attributes]
    try:
        await drive.write_attributes(listed, partition)
    except (errors.Refused, errors.MediumFailed):
        return


async def is_worm(drive: Drive) -> bool:
    """Whether the loaded cartridge says that it can be written only once."""
    kind = (await read_attributes(drive, 0, _MEDIUM_TYPE_ID)).get(_MEDIUM_TYPE_ID, b"")
    return bool(kind and kind[0] & _WORM_BIT)


async def read_labels(drive: Drive) -> tuple[Label, dict[str, int], str]:
    """The volume's label, the number of each partition by its letter, and why it must not be written (empty: it may).

    One label is enough to read a volume. Raises ``Damaged``, ``MediumFailed`` when there is none.
    """
    await stand_at_beginning(drive)
    labels: dict[int, Label] = {}
    problem: errors.RbError | None = None
    for number in PARTITIONS:
        try:
            await drive.locate(0, number)
            vol1 = await drive.read(LABEL_BYTES_MAX)
            await drive.read(1)
            labels[number] = read_label(vol1.data, (await drive.read(LABEL_BYTES_MAX)).data)
        except (errors.Damaged, errors.ProtocolViolation, errors.TooLarge, errors.NotFound, errors.Refused) as error:
            problem = error
    if not labels:
        assert problem is not None
        raise errors.Damaged(
            f"{drive.name}: no partition of the cartridge has an LTFS label: {problem.message}"
        ) from problem
    number, label = next(iter(labels.items()))
    other_letter = label.data_partition if label.partition == label.index_partition else label.index_partition
    numbers = {label.partition: number, other_letter: 1 - number}
    if problem is not None:
        return label, numbers, f"The label of partition {other_letter} cannot be read: {problem.message}"
    try:
        check_labels(*labels.values())
    except errors.ProtocolViolation as error:
        return label, numbers, f"The volume contradicts itself: {error.message}."
    return label, numbers, ""


class LtfsMedium:
    """A volume whose label is known."""

    def __init__(self, drive: Drive, label: Label, numbers: dict[str, int]) -> None:
        """``numbers``: of the partitions, as SCSI counts them, by their letters."""
        self.drive, self.label, self.numbers = drive, label, numbers
        self.index_letter, self.data_letter = label.index_partition, label.data_partition
        self.block_bytes = label.block_bytes

    @property
    def name(self) -> str:
        return self.label.volume_identifier or self.label.volume_uuid

    # --- places ---

    def stands_at(self, letter: str, block: int) -> bool:
        """By our own count."""
        here = self.drive.counted_position
        return here is not None and (here.partition, here.object_number) == (self.numbers[letter], block)

    async def locate(self, letter: str, block: int) -> None:
        """Raises ``NotFound`` when the partition ends before."""
        await self.drive.locate(block, self.numbers[letter])

    async def must_stand_at(self, letter: str, block: int) -> None:
        """Ask the drive. Raises ``PositionLost``: whatever would be written now would overwrite something else."""
        told = await self.drive.position()
        if told is None or (told.partition, told.object_number) != (self.numbers[letter], block):
            raise errors.PositionLost(
                f"{self.drive.name} does not stand at block {block} of partition {letter} of volume {self.name}, so nothing is written. "
                "Look which cartridge is in the drive, and open it anew."
            )

    async def end_of_data(self, letter: str) -> tuple[int, int]:
        """Stand there; the block, and the number of filemarks before it. Raises ``UnsupportedByDevice`` when the drive does not count them."""
        await self.locate(letter, 0)
        end = await self.drive.space_to_end()
        if end.file_number is None:
            raise errors.UnsupportedByDevice(
                f"{self.drive.name} does not count filemarks: an LTFS volume needs a drive that does."
            )
        return end.object_number, end.file_number

    # --- index constructs ---

    async def read_index_at(self, letter: str, block: int) -> FoundIndex | None:
        """The index whose first record is ``block``; None when something else stands there. Raises ``MediumFailed``."""
        try:
            await self.locate(letter, block)
        except errors.NotFound:
            return None
        records: list[bytes] = []
        length = 0
        while True:
            try:
                result = await self.drive.read(self.block_bytes)
            except errors.TooLarge:
                return None
            if result.found is not Found.BLOCK:
                break
            length += len(result.data)
            if length > INDEX_BYTES_MAX or (not records and not result.data.startswith(_XML_BEGINS)):
                return None
            records.append(result.data)
        index = find_index(records, self.label, letter, block)
        if index is None:
            return None
        closed = result.found is Found.FILEMARK
        return FoundIndex(index=index, length=length, end=block + len(records) + int(closed), closed=closed)

    async def find_end(self, letter: str) -> FoundEnd:
        """The last index of a partition, from its end backwards, one filemark at a time."""
        end, filemarks = await self.end_of_data(letter)
        trailing = unreadable = False
        for number in range(filemarks, _LABEL_FILEMARKS, -1):
            await self.drive.locate_file(number)
            told = await self.drive.position()
            start = end if told is None else told.object_number
            if start == end:
                continue
            try:
                found = await self.read_index_at(letter, start)
            except errors.MediumFailed:
                found, unreadable = None, True
            if found is not None:
                return FoundEnd(last=found, trailing=trailing, unreadable=unreadable)
            trailing = True
        return FoundEnd(last=None, trailing=trailing or end > FIRST_CONTENT_BLOCK, unreadable=unreadable)

    async def torn_index(self, letter: str, behind: int) -> int | None:
        """The filemark before an index that a crash cut short at the end of data; None when there is none behind block ``behind``.

        The tape stands anywhere afterwards.
        """
        _, filemarks = await self.end_of_data(letter)
        await self.drive.locate_file(filemarks)
        told = await self.drive.position()
        if told is None or told.object_number <= behind:
            return None
        try:
            next_one = await self.drive.read(self.block_bytes)
        except errors.TooLarge:
            return None
        if next_one.found is Found.BLOCK and not next_one.data.startswith(_XML_BEGINS):
            return None
        return told.object_number - 1

    async def write_index(self, index: Index) -> tuple[FoundIndex, bool]:
        """The construct whose first record is at ``index.location``: filemark, index, filemark, all on the medium when it returns.

        The tape stands before the first filemark. Also answers whether early warning was met.
        """
        letter, block = index.location.partition, index.location.block
        xml = write_index(index)
        records = index_records(xml, self.block_bytes)
        await self.must_stand_at(letter, block - 1)
        warned = await self.drive.write_filemarks(1, immediate=True)
        for record in records:
            warned |= await self.drive.write(record)
        warned |= await self.drive.write_filemarks(1)
        found = FoundIndex(index=index, length=len(xml), end=block + len(records) + 1, closed=True)
        return found, warned

    async def write_label(self, letter: str) -> None:
        """The label construct, from the beginning of a partition."""
        await self.locate(letter, 0)
        await self.must_stand_at(letter, 0)
        for record in label_records(msgspec.structs.replace(self.label, partition=letter)):
            await self.drive.write(record)
            await self.drive.write_filemarks(1)

    # --- memory of the cartridge ---

    async def remaining_bytes(self) -> int | None:
        """What the data partition still takes, as the drive says; None when it does not."""
        found = await read_attributes(self.drive, self.numbers[self.data_letter], _REMAINING_CAPACITY_ID)
        value = found.get(_REMAINING_CAPACITY_ID)
        return None if value is None or len(value) > _NUMBER_BYTES_MAX else int.from_bytes(value, "big") * 1024 * 1024

    async def change_reference(self) -> int:
        """0 when there is none."""
        found = await read_attributes(self.drive, 0, VOLUME_CHANGE_REFERENCE_ID)
        value = found.get(VOLUME_CHANGE_REFERENCE_ID, b"")
        return int.from_bytes(value, "big") if len(value) <= _NUMBER_BYTES_MAX else 0

    async def coherencies(self) -> dict[str, Coherency | None]:
        """By partition; None where there is none that can be understood."""
        found: dict[str, Coherency | None] = {}
        for letter, number in self.numbers.items():
            value = (await read_attributes(self.drive, number, COHERENCY_ID)).get(COHERENCY_ID)
            try:
                found[letter] = None if value is None else read_coherency(value)
            except errors.ProtocolViolation:
                found[letter] = None
        return found

    async def write_coherencies(self, last: dict[str, LastIndex | None]) -> None:
        """Say where the last index of each complete partition is, as of now: whoever opens the volume need not search."""
        reference = await self.change_reference()
        if not is_usable_reference(reference):
            return
        for letter, found in last.items():
            if found is None:
                continue
            coherency = Coherency(
                change_reference=reference,
                generation=found.generation,
                block=found.block,
                volume_uuid=self.label.volume_uuid,
            )
            await write_attributes(self.drive, [coherency_attribute(coherency)], self.numbers[letter])
