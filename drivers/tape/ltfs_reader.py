"""Parts on an LTFS volume, read by block number: the map of a part, its blocks, and what is remembered of records that passed.

Tapes stream forward and hate going back: records that passed are remembered for a while, what lies a little ahead is read through, and only the rest
is located. Nothing is believed: maps carry a digest, blocks say themselves whose they are and what they must be. ``ltfs`` hands readers out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

import trio

from drivers.scsi.drive import Found
from drivers.tape.ltfs_medium import LtfsMedium
from drivers.tape.records import MEMORY_BYTES, READ_THROUGH_BYTES, Passed, use_variable_blocks
from rbcore import errors
from rbcore.archive.block import HEADER_BYTES, MAGIC, STORED_BYTES_MAX, BlockHeader, check_stored, parse_header
from rbcore.archive.container import Index
from rbcore.tape.ltfs import Extent
from rbcore.tape.ltfs_write import CONTAINER
from rbcore.tape.session import PartPlace

_MAP_BLOCK_BYTES_MAX: Final = 32
_MAP_FIXED_BYTES: Final = 4096
"""A map is not longer than so much for each of its blocks and this: nothing is allocated for a file that only says that it is one."""
MAP_BYTES_MAX: Final = 2**31
"""How many blocks a part has is its own word too. So many rows, 67 million, no cartridge needs; a longer map is made anew by what is there."""
LOST_MAX: Final = 1024
"""Places in a row at which nothing can be read, after which the rest of a file is given up: how long a file is, is only said."""


class LtfsRecords:
    """Records of the volume by partition and block."""

    def __init__(
        self,
        medium: LtfsMedium,
        *,
        memory_bytes: int = MEMORY_BYTES,
        read_through_bytes: int = READ_THROUGH_BYTES,
    ) -> None:
        self._medium = medium
        self._read_through_bytes = read_through_bytes
        self._passed = Passed[tuple[str, int], bytes](memory_bytes)

    async def record(self, letter: str, block: int) -> bytes:
        """Raises ``MediumFailed`` when the drive cannot read it, ``Damaged`` when no record stands there; another may be read afterwards."""
        known = self._passed.get((letter, block))
        if known is not None:
            return known
        try:
            return await self._read(letter, block)
        except errors.PositionLost:
            # Reset, or another cartridge: the tape is found again, and what does not belong shows.
            await use_variable_blocks(self._medium.drive)
            return await self._read(letter, block)

    async def _read(self, letter: str, block: int) -> bytes:
        drive, number = self._medium.drive, self._medium.numbers[letter]
        here = drive.counted_position
        ahead = -1 if here is None or here.partition != number else block - here.object_number
        if not 0 <= ahead * self._medium.block_bytes <= self._read_through_bytes:
            await self._locate(letter, block)
            ahead = 0
        for between in range(block - ahead, block):
            try:
                await self._take(letter, between)
            except errors.Damaged:
                # Nobody asked for this one; whoever does will be told.
                if not self._medium.stands_at(letter, between + 1):
                    await self._locate(letter, block)
                    break
        data = await self._take(letter, block)
        if data is None:
            raise errors.Damaged(
                f"Volume {self._medium.name}, block {block} of partition {letter}: no record stands there."
            )
        return data

    async def _locate(self, letter: str, block: int) -> None:
        try:
            await self._medium.locate(letter, block)
        except errors.NotFound as error:
            raise errors.Damaged(
                f"Volume {self._medium.name}: partition {letter} ends before block {block}."
            ) from error

    async def _take(self, letter: str, block: int) -> bytes | None:
        """The object that comes next; None for a filemark or the end of data."""
        try:
            result = await self._medium.drive.read(self._medium.block_bytes)
        except errors.TooLarge as error:
            raise errors.Damaged(
                f"Volume {self._medium.name}, block {block} of partition {letter} is longer than its records are."
            ) from error
        if result.found is not Found.BLOCK:
            return None
        self._passed.remember((letter, block), result.data, len(result.data))
        return result.data


class FileReader:
    """Bytes of one file by their offsets."""

    def __init__(self, records: LtfsRecords, extents: Sequence[Extent], length: int, block_bytes: int) -> None:
        self._records, self._extents, self.length, self._block_bytes = records, extents, length, block_bytes
        self._offsets = [extent.file_offset for extent in extents]

    async def read(self, offset: int, length: int) -> bytes:
        """Raises ``Damaged`` where the file has no such bytes, or its records are not as long as the index says, and ``MediumFailed``."""
        pieces: list[bytes] = []
        end = offset + length
        while offset < end:
            letter, block, within, run = self._place(offset)
            record = await self._records.record(letter, block)
            piece = record[within : within + min(run, end - offset)]
            if len(piece) < min(run, end - offset):
                raise errors.Damaged(
                    f"block {block} of partition {letter} is {len(record)} bytes long, shorter than it was"
                )
            pieces.append(piece)
            offset += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _place(self, offset: int) -> tuple[str, int, int, int]:
        """Partition, block, offset in its record, and how many bytes of the record follow that belong to the file."""
        at = bisect_right(self._offsets, offset) - 1
        extent = self._extents[at] if at >= 0 else None
        if extent is None or offset >= extent.file_offset + extent.byte_count:
            raise errors.Damaged(f"the file has no byte {offset}")
        into = offset - extent.file_offset
        blocks, within = divmod(extent.byte_offset + into, self._block_bytes)
        run = min(self._block_bytes - within, extent.byte_count - into)
        return extent.partition, extent.start_block + blocks, within, run


class LtfsPartReader:
    """``rbcore.tape.session.PartReader``."""

    def __init__(
        self, archive: bytes, place: PartPlace, blocks: FileReader, map_file: FileReader | None, block_bytes: int
    ) -> None:
        """``map_file``: None when the volume does not name one; the map is made by reading the blocks' headers then."""
        self.place = place
        self._archive, self._blocks, self._map, self._block_bytes = archive, blocks, map_file, block_bytes
        self._index: Index | None = None
        self._gaps = False
        """The map was made anew, and places could not be read: blocks may be missing in it."""

    async def index(self) -> Index:
        if self._index is None:
            index = await self._stored_map() or await self._rebuilt_map()
            if self.place.blocks and not len(index):
                raise errors.Damaged(
                    f"Part {self.place.part} of archive {self._archive.hex()}: neither its map nor any of its {self.place.blocks} blocks "
                    "can be read. Try another drive."
                )
            self._index = index
        return self._index

    async def _stored_map(self) -> Index | None:
        source = self._map
        if source is None or source.length > min(
            MAP_BYTES_MAX, self.place.blocks * _MAP_BLOCK_BYTES_MAX + _MAP_FIXED_BYTES
        ):
            return None
        try:
            index = Index.decode(await source.read(0, source.length))
        except errors.Damaged:
            # The map is a cache: the headers of the blocks make the same.
            return None
        return index if index.archive_id == self._archive and len(index) == self.place.blocks else None

    async def _rebuilt_map(self) -> Index:
        index = Index(self._archive)
        offset: int | None = 0
        lowest = 0
        while offset is not None and offset < self._blocks.length:
            try:
                header = parse_header(await self._blocks.read(offset, min(HEADER_BYTES, self._blocks.length - offset)))
                self._must_follow(header, lowest, self._blocks.length - offset)
            except (errors.Damaged, errors.ProtocolViolation):
                self._gaps = True
                offset = await self._next_header(offset + 1, lowest)
                continue
            index.add(header, CONTAINER, offset)
            lowest = header.number + 1
            offset += header.block_length
        return index

    async def _next_header(self, offset: int, lowest: int) -> int | None:
        """Where a header of this archive begins, from ``offset`` on; None when none does."""
        lost = 0
        while offset < self._blocks.length and lost < LOST_MAX:
            await (
                trio.lowlevel.checkpoint()
            )  # what is remembered is there at once, and a file may be the same record over and over
            # To the end of a record at most, so that one that cannot be read costs no other; and a header more, for one that is cut.
            room = self._block_bytes - offset % self._block_bytes
            window = b""
            for more in (HEADER_BYTES - 1, 0):
                try:
                    window = await self._blocks.read(offset, min(room + more, self._blocks.length - offset))
                    break
                except errors.Damaged:
                    continue
            lost = 0 if window else lost + 1
            at = window.find(MAGIC)
            while at >= 0:
                try:
                    header = parse_header(window, at)
                    self._must_follow(header, lowest, self._blocks.length - offset - at)
                except (errors.Damaged, errors.ProtocolViolation):
                    at = window.find(MAGIC, at + 1)
                else:
                    return offset + at
            offset += room
        return None

    def _must_follow(self, header: BlockHeader, lowest: int, room: int) -> None:
        """A header that may come next in the file, where ``room`` bytes are left."""
        if header.archive_id != self._archive or header.number < lowest or header.block_length > room:
            raise errors.Damaged(f"block {header.number} is of another archive, out of order, or not whole")

    def _must_belong(self, header: BlockHeader, number: int) -> None:
        if header.archive_id != self._archive or header.number != number:
            raise errors.Damaged(
                f"block {header.number} of archive {header.archive_id.hex()} stands where block {number} should"
            )

    async def read(self, numbers: Sequence[int]) -> bytes:
        index = await self.index()
        found: list[bytes] = []
        for number in numbers:
            row = index.find(number)
            if row is None:
                if self._gaps and self.place.first_block <= number <= self.place.last_block:
                    raise errors.Damaged(
                        f"block {number}: neither the map nor the header of the block can be read",
                        data={"block": number},
                    )
                raise errors.NotFound(f"Part {self.place.part} of archive {self._archive.hex()} has no block {number}.")
            try:
                block = await self._blocks.read(row.offset, min(row.length, HEADER_BYTES + STORED_BYTES_MAX))
                header = parse_header(block)
                self._must_belong(header, number)
                check_stored(header, memoryview(block)[HEADER_BYTES:])
            except errors.ProtocolViolation as error:
                raise errors.Damaged(error.message, data={"block": number}) from error
            except errors.Damaged as error:
                raise type(error)(error.message, data={**error.data, "block": number}) from error
            found.append(block)
        return b"".join(found)
