"""Containers and their index: how the blocks of an archive lie in files. Byte tables: ``docs/format.md``, "Container" and "Index"."""

from __future__ import annotations

import re
import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

import msgspec
import xxhash
from blake3 import blake3

from rbcore.archive.block import BlockHeader, Buffer
from rbcore.archive.model import BlockFlag, BlockKind
from rbcore.errors import Damaged, ProtocolViolation

CONTAINER_MAGIC: Final = b"RBC1"
CONTAINER_VERSION: Final = 1
CONTAINER_HEADER_BYTES: Final = 64
CONTAINER_BYTES_MAX: Final = 1024 * 1024 * 1024
CONTAINERS_MAX: Final = 999_999
ALIGNMENT: Final = 4096
"""What is made durable ends at a multiple of this, zeros filling up: durable bytes share no page with later ones."""

INDEX_MAGIC: Final = b"RBI1"
INDEX_VERSION: Final = 1

_HEADER: Final = struct.Struct("<4sB3xI4x16sQ16xQ")
_INDEX_HEAD: Final = struct.Struct("<4sB3xI4x16sQ")
_ROW: Final = struct.Struct("<QQIIBB2x")
_U64: Final = struct.Struct("<Q")
_NAME: Final = re.compile(r"([0-9]{6})\.rbc")
assert _HEADER.size == CONTAINER_HEADER_BYTES


def container_name(number: int) -> str:
    """``000001.rbc`` for 1."""
    return f"{number:06d}.rbc"


def container_number(name: str) -> int | None:
    """The number in a container's name; None when it is no such name."""
    found = _NAME.fullmatch(name)
    return int(found[1]) if found and int(found[1]) > 0 else None


def aligned(length: int) -> int:
    """``length`` rounded up to ALIGNMENT."""
    return -(-length // ALIGNMENT) * ALIGNMENT


class ContainerHeader(msgspec.Struct, frozen=True, gc=False):
    archive_id: bytes
    number: int
    first_block: int

    def encode(self) -> bytes:
        raw = _HEADER.pack(CONTAINER_MAGIC, CONTAINER_VERSION, self.number, self.archive_id, self.first_block, 0)
        return raw[:-8] + _U64.pack(xxhash.xxh3_64_intdigest(raw[:-8]))


def parse_container_header(buffer: Buffer) -> ContainerHeader:
    """Raises ``Damaged`` (short, magic, check), ``ProtocolViolation`` (version)."""
    raw = bytes(buffer[:CONTAINER_HEADER_BYTES])
    if len(raw) < CONTAINER_HEADER_BYTES:
        raise Damaged(f"container header cut short: {len(raw)} of {CONTAINER_HEADER_BYTES} bytes")
    magic, version, number, archive_id, first_block, check = _HEADER.unpack(raw)
    if magic != CONTAINER_MAGIC:
        raise Damaged(f"no container: magic is {magic.hex()}, not {CONTAINER_MAGIC.hex()}")
    if check != xxhash.xxh3_64_intdigest(raw[:-8]):
        raise Damaged("container header does not match its check")
    header = ContainerHeader(archive_id, number, first_block)
    if version != CONTAINER_VERSION or header.encode() != raw:
        raise ProtocolViolation(f"container version {version}, or a field that is not known")
    return header


class IndexRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a block lies."""

    block: int
    container: int
    offset: int
    length: int
    """Header and payload."""
    kind: int
    flags: int


class Index:
    """Where the blocks of an archive lie, ascending by block. A cache: scanning the containers makes the same.

    Rows are kept packed, 28 bytes each, so that the index of a 1 TiB archive takes 28 MB and opens without a loop over blocks.
    """

    __slots__ = ("_rows", "archive_id", "containers")

    def __init__(self, archive_id: bytes) -> None:
        self.archive_id = archive_id
        self.containers = 0
        self._rows = bytearray()

    def __len__(self) -> int:
        return len(self._rows) // _ROW.size

    def __getitem__(self, position: int) -> IndexRow:
        if not 0 <= position < len(self):
            raise IndexError(position)
        block, offset, length, container, kind, flags = _ROW.unpack_from(self._rows, position * _ROW.size)
        return IndexRow(block, container, offset, length, kind, flags)

    def __iter__(self) -> Iterator[IndexRow]:
        for block, offset, length, container, kind, flags in _ROW.iter_unpack(bytes(self._rows)):
            yield IndexRow(block, container, offset, length, kind, flags)

    def add(self, header: BlockHeader, container: int, offset: int) -> None:
        self._rows += _ROW.pack(header.number, offset, header.block_length, container, header.kind, header.flags)
        self.containers = max(self.containers, container)

    def add_row(self, row: IndexRow) -> None:
        """A row that is known from elsewhere than a block's header; ``block`` is above those that are there."""
        self._rows += _ROW.pack(row.block, row.offset, row.length, row.container, row.kind, row.flags)
        self.containers = max(self.containers, row.container)

    def merge(self, strays: Index) -> None:
        """Take in rows of blocks that this index does not have, whatever their order."""
        size = _ROW.size
        rows = [bytes(strays._rows[at : at + size]) for at in range(0, len(strays._rows), size)]
        new = {number: row for row in reversed(rows) if self.position_of(number := _U64.unpack_from(row)[0]) is None}
        if new:
            rows = [bytes(self._rows[at : at + size]) for at in range(0, len(self._rows), size)] + list(new.values())
            self._rows = bytearray(b"".join(sorted(rows, key=lambda row: _U64.unpack_from(row)[0])))
            self.containers = max(self.containers, strays.containers)

    def find(self, block: int) -> IndexRow | None:
        position = self.position_of(block)
        return None if position is None else self[position]

    def position_of(self, block: int) -> int | None:
        """Which row is the block's. Binary search."""
        position = bisect_left(self, block, key=lambda row: row.block)
        return position if position < len(self) and self[position].block == block else None

    def position_at(self, container: int, offset: int) -> int | None:
        """Which row says that a block begins here. Sure to find it only where blocks lie in ascending order, as they are written."""
        place = (container, offset)
        position = bisect_left(self, place, key=_place)
        return position if position < len(self) and _place(self[position]) == place else None

    def block_numbers(self) -> array[int]:
        """Of all rows. Eight bytes each: an archive of a tebibyte has a million."""
        return array("Q", (row.block for row in self))

    def manifest_blocks(self, *, last_only: bool) -> list[int]:
        """Numbers of the manifest blocks; with ``last_only`` from the last ``MANIFEST_BEGINS`` on: those of the valid manifest."""
        kinds = bytes(self._rows[24 :: _ROW.size])
        found: list[int] = []
        position = kinds.find(BlockKind.MANIFEST)
        while position >= 0:
            row = self[position]
            if last_only and row.flags & BlockFlag.MANIFEST_BEGINS:
                found.clear()
            found.append(row.block)
            position = kinds.find(BlockKind.MANIFEST, position + 1)
        return found

    def encode(self) -> bytes:
        head = _INDEX_HEAD.pack(INDEX_MAGIC, INDEX_VERSION, self.containers, self.archive_id, len(self))
        body = head + self._rows
        return body + blake3(body).digest()

    @classmethod
    def decode(cls, raw: bytes) -> Index:
        """Raises ``Damaged`` for whatever is not exactly an index that ``encode`` made."""
        if len(raw) < _INDEX_HEAD.size + 32 or raw[:4] != INDEX_MAGIC:
            raise Damaged("no index: too short, or wrong magic")
        if blake3(memoryview(raw)[:-32]).digest() != raw[-32:]:
            raise Damaged("index does not match its digest")
        _, version, containers, archive_id, count = _INDEX_HEAD.unpack_from(raw)
        if version != INDEX_VERSION or len(raw) != _INDEX_HEAD.size + count * _ROW.size + 32:
            raise Damaged(f"index version {version} with {count} rows in {len(raw)} bytes is not known")
        index = cls(archive_id)
        index.containers = containers
        index._rows = bytearray(memoryview(raw)[_INDEX_HEAD.size : -32])
        return index


def _place(row: IndexRow) -> tuple[int, int]:
    return row.container, row.offset
