"""Units of a backup: what one hop to a worker thread reads, packs into blocks, compresses and encrypts.

A unit is either some hundreds of small files (with the names that stand between them) or a range of a large one, about four to
eight megabytes each: a hop costs as much as reading ten small files, and one large file must keep all workers busy. Each unit
owns a run of block numbers, planned for the most it can need, so that units need not wait for each other to number blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import msgspec

from rbcore.archive.block import NO_NONCE, BlockCodec
from rbcore.archive.model import BlockKind, Entry, Extent
from rbcore.file_tree import Run, SourceTree

BLOCK_BYTES: Final = 1024 * 1024
"""Plaintext of a full block."""
UNIT_CONTENT_BYTES: Final = 4 * 1024 * 1024
UNIT_FILES: Final = 512
UNIT_ENTRIES: Final = 2048
RANGE_BYTES: Final = 8 * 1024 * 1024
RANGE_RUNS: Final = 512
READ_FILES: Final = 64
"""Small files read at a time within a unit: bounds what is in memory when many of them grow at once."""
NONCE_BYTES: Final = 12

Nonces: TypeAlias = Callable[[], bytes]


class SmallUnit(msgspec.Struct):
    """Names in manifest order; those at ``unread`` are small files to be read."""

    entries: list[Entry]
    unread: list[int]
    content_bytes: int = 0
    """By the scan; a file may have another size when it is read."""
    first_block: int = 0
    manifest_block: int = 0
    """The first number after the unit's payload blocks: manifest blocks that follow the unit are numbered from here."""
    nonces: bytes = b""

    def payload_blocks_max(self) -> int:
        """Every file may have grown to the limit of a small one."""
        return len(self.unread) + 1

    def manifest_blocks_max(self) -> int:
        """Every entry may fill a manifest block with its extended attributes."""
        return len(self.entries) + 1


class LargeFile:
    """A file that is being read in ranges: what its units found so far, in order."""

    __slots__ = ("entry", "extents", "problem", "shortened_to", "told_to")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.extents: list[Extent] = []
        self.problem = ""
        self.shortened_to = -1
        self.told_to = 0
        """Where the extents end that stand in a manifest block already."""

    @property
    def end(self) -> int:
        """Up to here the content is there."""
        return self.extents[-1].file_offset + self.extents[-1].length if self.extents else self.told_to

    def begun(self) -> Entry:
        """The entry with the extents that no manifest block has yet; from now on one has them."""
        begun = msgspec.structs.replace(self.entry, extents=self.extents)
        self.told_to, self.extents = self.end, []
        return begun

    def complete(self) -> Entry:
        """The entry with all that was found; when the file became shorter, with the size that could be read."""
        size = self.entry.size
        if self.shortened_to >= 0:
            size = max(self.shortened_to, self.end)
        return msgspec.structs.replace(self.entry, size=size, extents=self.extents, problem=self.problem)


class RangeUnit(msgspec.Struct):
    """A piece of a large file; the last one completes its entry."""

    file: LargeFile
    runs: list[Run]
    first: bool
    last: bool
    first_block: int = 0
    manifest_block: int = 0
    nonces: bytes = b""

    def payload_blocks_max(self) -> int:
        return sum(length for _, length in self.runs) // BLOCK_BYTES + 1

    def manifest_blocks_max(self) -> int:
        """An entry's pieces, 16,384 extents each, are far below a block: this is enough for files of 2**46 bytes."""
        return 4096


Unit: TypeAlias = SmallUnit | RangeUnit


class Packed(msgspec.Struct):
    """A unit as it goes to the daemon."""

    unit: Unit
    entries: list[Entry]
    blocks: list[bytearray]
    content_bytes: int
    files: int
    extents: list[Extent] = []
    """Of a range."""
    problem: str = ""
    """Of a range."""
    shortened_to: int = -1
    """Of a range: the file's size, when it has become shorter; else -1."""


class _Packer:
    """Fills blocks with content and seals each when it is full."""

    def __init__(self, codec: BlockCodec, first_block: int, nonces: bytes) -> None:
        self.blocks: list[bytearray] = []
        self.content_bytes = 0
        self._codec = codec
        self._number = first_block
        self._nonces = nonces
        self._parts: list[bytes | memoryview] = []
        self._filled = 0

    def add(self, content: bytes | memoryview, runs: Sequence[Run]) -> list[Extent]:
        """Extents of ``content``, which is that of ``runs`` one after the other."""
        self.content_bytes += len(content)
        if len(runs) == 1 and (length := len(content)) < BLOCK_BYTES - self._filled:
            extent = Extent(runs[0][0], length, 0, self._number, self._filled)
            self._parts.append(content)
            self._filled += length
            return [extent]
        extents: list[Extent] = []
        view = memoryview(content)
        position = 0
        for offset, length in runs:
            end = offset + length
            while offset < end:
                taken = min(end - offset, BLOCK_BYTES - self._filled)
                extents.append(Extent(offset, taken, 0, self._number, self._filled))
                self._parts.append(view[position : position + taken])
                self._filled += taken
                offset += taken
                position += taken
                if self._filled == BLOCK_BYTES:
                    self.seal()
        return extents

    def seal(self) -> None:
        """Close the block that is being filled, if there is anything in it."""
        if not self._filled:
            return
        plaintext = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        position = len(self.blocks) * NONCE_BYTES
        nonce = self._nonces[position : position + NONCE_BYTES] if self._nonces else NO_NONCE
        self.blocks.append(self._codec.seal(BlockKind.PAYLOAD, self._number, plaintext, nonce))
        self._number += 1
        self._parts = []
        self._filled = 0


def pack_small(tree: SourceTree, unit: SmallUnit, codec: BlockCodec) -> Packed:
    """Read the unit's files and pack them. Blocks and belongs on a worker thread."""
    packer = _Packer(codec, unit.first_block, unit.nonces)
    entries = unit.entries
    for start in range(0, len(unit.unread), READ_FILES):
        positions = unit.unread[start : start + READ_FILES]
        contents = tree.read_small([entries[position] for position in positions])
        for position, found in zip(positions, contents, strict=True):
            entry = found.entry
            if found.content:
                entry.extents.extend(packer.add(found.content, found.runs))
            entries[position] = entry
    packer.seal()
    return Packed(unit, entries, packer.blocks, packer.content_bytes, len(unit.unread))


def pack_range(tree: SourceTree, unit: RangeUnit, codec: BlockCodec) -> Packed:
    """Read a range of a large file and pack it. Blocks and belongs on a worker thread.

    A file that has become shorter gives shorter runs; what is missing is not covered by an extent.
    """
    packer = _Packer(codec, unit.first_block, unit.nonces)
    entries = [tree.describe(unit.file.entry)] if unit.first else []
    extents: list[Extent] = []
    problem, shortened_to = "", -1
    if unit.runs:
        found = tree.read_range(unit.file.entry, unit.runs)
        problem, shortened_to = found.problem, found.shortened_to
        for (offset, _length), part in zip(unit.runs, found.parts, strict=True):
            if part:
                extents += packer.add(part, ((offset, len(part)),))
        packer.seal()
    return Packed(unit, entries, packer.blocks, packer.content_bytes, int(unit.last), extents, problem, shortened_to)
