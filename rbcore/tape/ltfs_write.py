"""Blocks of an archive into the records of a part's file, and what became of them: without I/O.

A file on LTFS is made of extents: runs of full records, of which only the last may be short. ``docs/format-tape.md``, "LTFS". What early warning leaves
unwritten is dropped: the file then ends with the last block that is wholly in a written record.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

from rbcore.archive.block import BlockHeader, Buffer, iter_blocks
from rbcore.archive.container import Index
from rbcore.errors import Damaged, ProtocolViolation
from rbcore.tape.ltfs import Extent
from rbcore.tape.session import PartStart

CONTAINER: Final = 1
"""The file of a part is its only container."""


class PartWriter:
    """One open part."""

    def __init__(self, start: PartStart, partition: str, block_bytes: int) -> None:
        """``partition``: letter of the data partition. ``block_bytes``: of a full record."""
        self.start = start
        self.index = Index(start.archive)
        """Rows of the blocks that are wholly written."""
        self.first_block = self.last_block = -1
        self.stored_bytes = 0
        """Of those blocks."""
        self.extents: list[Extent] = []
        self.dropped = False
        """Blocks that were taken are not in the part: it is not the archive's last."""
        self._partition, self._block_bytes = partition, block_bytes
        self._record = memoryview(bytearray(block_bytes))
        self._filled = 0
        self._taken = self._written = 0
        self._waiting: deque[tuple[int, BlockHeader]] = deque()
        """Taken and not yet wholly written, with the offset behind each."""
        self._next_block = start.first_block

    def check(self, blocks: Sequence[Buffer]) -> list[tuple[BlockHeader, memoryview]]:
        """Every block with its header. Raises ``ProtocolViolation`` for malformed ones, those of another archive, and numbers that do not ascend."""
        checked: list[tuple[BlockHeader, memoryview]] = []
        lowest = self._next_block
        for several in blocks:
            view, offset = memoryview(several), 0
            try:
                for header, _ in iter_blocks(view):
                    if header.archive_id != self.start.archive or header.number < lowest:
                        raise ProtocolViolation(f"block {header.number} is of another archive, or below {lowest}")
                    lowest = header.number + 1
                    checked.append((header, view[offset : offset + header.block_length]))
                    offset += header.block_length
            except Damaged as error:
                raise ProtocolViolation(error.message) from error
        return checked

    def take(self, header: BlockHeader, block: memoryview) -> Iterator[memoryview]:
        """Records as they fill up. Each must be written, and ``record_written`` be called, before the next is asked for."""
        self._next_block = header.number + 1
        self._taken += len(block)
        self._waiting.append((self._taken, header))
        while len(block):
            piece = block[: self._block_bytes - self._filled]
            self._record[self._filled : self._filled + len(piece)] = piece
            self._filled += len(piece)
            block = block[len(piece) :]
            if self._filled == self._block_bytes:
                yield self._record

    def rest(self) -> memoryview | None:
        """The last record, which is not full; None when nothing waits."""
        return self._record[: self._filled] if self._filled else None

    def record_written(self, block: int) -> None:
        """What ``take`` or ``rest`` handed out stands at ``block`` of the data partition."""
        length, self._filled = self._filled, 0
        last = self.extents[-1] if self.extents else None
        if last is None or last.start_block + last.byte_count // self._block_bytes != block:
            # The first, or behind a short record or something else.
            self.extents.append(self._extent(self._written, block, length))
        else:
            self.extents[-1] = self._extent(last.file_offset, last.start_block, last.byte_count + length)
        self._written += length
        while self._waiting and self._waiting[0][0] <= self._written:
            end, header = self._waiting.popleft()
            self.index.add(header, CONTAINER, end - header.block_length)
            self.stored_bytes = end
            self.last_block = header.number
            self.first_block = header.number if self.first_block < 0 else self.first_block

    def _extent(self, file_offset: int, start_block: int, byte_count: int) -> Extent:
        return Extent(
            file_offset=file_offset,
            partition=self._partition,
            start_block=start_block,
            byte_offset=0,
            byte_count=byte_count,
        )

    def drop(self) -> None:
        """Nothing more fits: forget what is not wholly written, and what was written of it."""
        self.dropped |= bool(self._waiting)
        self._waiting.clear()
        self._filled = 0
        self._taken = self._written = self.stored_bytes
        kept = [extent for extent in self.extents if extent.file_offset < self.stored_bytes]
        if kept:
            last = kept[-1]
            length = min(last.byte_count, self.stored_bytes - last.file_offset)
            kept[-1] = self._extent(last.file_offset, last.start_block, length)
        self.extents = kept
