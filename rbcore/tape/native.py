"""Records of native cartridges: each proves itself. Byte tables and rules: ``docs/format-tape.md``, which leads.

What a session writes and when is in ``native_write``; what a cartridge tells is in ``native_scan``.
"""

from __future__ import annotations

import enum
import struct
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Annotated, Final, TypeAlias, TypeVar, overload

import msgspec
from blake3 import blake3

from rbcore.archive.block import HEADER_BYTES as BLOCK_HEADER_BYTES
from rbcore.archive.block import NUMBER_MAX, STORED_BYTES_MAX, Buffer
from rbcore.archive.model import U32, U63, BlockFlag, BlockKind
from rbcore.errors import UNDECODABLE, Damaged, ProtocolViolation
from rbcore.tape.vol1 import NATIVE_IMPLEMENTATION, Vol1, volume_identifier

MAGIC: Final = b"RBN1"
VERSION: Final = 1
HEADER_BYTES: Final = 160
RECORD_BYTES_MIN: Final = 64 * 1024
RECORD_BYTES_MAX: Final = 1024 * 1024
RECORD_BYTES_UNIT: Final = 4096
PARTS_MAX: Final = 65_536
MAPS_MAX: Final = 2048
"""Maps of one part, so that its trailer fits the smallest record; the archive goes on in another part."""
INDEX_BYTES_MAX: Final = 64 * 1024 * 1024
NO_BLOCK: Final = 2**64 - 1
"""First block of a container record in which no block begins."""
NO_ARCHIVE: Final = bytes(16)
NO_DIGEST: Final = bytes(32)
LABEL_POSITION: Final = 1
"""Behind VOL1."""
FIRST_GROUP_POSITION: Final = 3

_PROVED_BYTES: Final = 128
_FIELDS: Final = struct.Struct("<4sBBHII16sQQII16sQI12s32s")
assert _FIELDS.size == _PROVED_BYTES
_ROW: Final = struct.Struct("<QIIIBBH")
MAP_ROW_BYTES: Final = _ROW.size
_NO_RESERVE: Final = bytes(12)

Id: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Digest: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
VolumeTag: TypeAlias = Annotated[str, msgspec.Meta(max_length=40)]
Text: TypeAlias = Annotated[str, msgspec.Meta(max_length=1024)]
PartNumber: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=2**32 - 1)]
BlockOrNone: TypeAlias = Annotated[int, msgspec.Meta(ge=-1, le=NUMBER_MAX)]
RecordBytes: TypeAlias = Annotated[
    int, msgspec.Meta(ge=RECORD_BYTES_MIN, le=RECORD_BYTES_MAX, multiple_of=RECORD_BYTES_UNIT)
]


class RecordKind(enum.IntEnum):
    LABEL = 1
    ARCHIVE = 2
    CONTAINER = 3
    MAP = 4
    TRAILER = 5
    INDEX = 6


PART_KINDS: Final = frozenset({RecordKind.ARCHIVE, RecordKind.CONTAINER, RecordKind.MAP, RecordKind.TRAILER})
_KINDS: Final[dict[int, RecordKind]] = {int(kind): kind for kind in RecordKind}


class Label(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, kw_only=True):
    volume_tag: VolumeTag
    pool: Text
    server: Text
    """Id of the server that labelled the cartridge."""
    created_ns: int
    record_bytes: RecordBytes
    """Longest record on the cartridge, header included."""
    software: Text

    def vol1(self) -> bytes:
        """The record before the label."""
        return Vol1(
            volume_identifier=volume_identifier(self.volume_tag),
            accessibility=" ",
            implementation=NATIVE_IMPLEMENTATION,
        ).encode()


class PartHeader(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, kw_only=True):
    """Payload of an archive header: what a catalogue wants to know, and how the part joins the ones before."""

    client: Text
    resource: Text
    backup_type: Text
    crypto: Text
    created_ns: int
    """Time of the archive, the same in all parts."""
    first_block: U63 = 0
    """This part holds blocks from this number on; of the parts before only those below count."""
    blocks_before: U63 = 0
    previous_tag: VolumeTag = ""
    previous_cartridge: Id = NO_ARCHIVE


class MapEntry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where a map record is: position of the archive header + ``sequence``."""

    sequence: U32
    first_block: U63
    rows: Annotated[int, msgspec.Meta(ge=1, le=RECORD_BYTES_MAX // MAP_ROW_BYTES)]


class PartTrailer(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, kw_only=True):
    final: bool
    next_tag: VolumeTag
    blocks: U63
    first_block: BlockOrNone
    """-1: the part holds no block."""
    last_block: BlockOrNone
    stored_bytes: U63
    """Of the blocks, headers included."""
    maps: Annotated[list[MapEntry], msgspec.Meta(max_length=MAPS_MAX)]
    ended_ns: int
    blocks_total: U63 = 0
    """Of all parts; in the final trailer only."""
    root: Annotated[bytes, msgspec.Meta(max_length=32)] = b""
    """32 bytes in the final trailer; empty elsewhere."""


class IndexRow(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A part on the cartridge."""

    position: U63
    """Of the archive header."""
    archive: Id
    part: PartNumber
    header: PartHeader
    trailer: PartTrailer
    records: U32
    """Sequence of the trailer: records of the part before it."""


class RecordHeader(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    kind: RecordKind
    use: int
    cartridge: bytes
    position: int
    sequence: int = 0
    count: int = 0
    part: int = 0
    archive: bytes = NO_ARCHIVE
    first_block: int = 0
    first_offset: int = 0
    previous: bytes = NO_DIGEST


class Record(msgspec.Struct, frozen=True, gc=False):
    """A record whose digest was right and whose values are known and in bounds."""

    header: RecordHeader
    payload: memoryview
    digest: bytes


class BlockPlace(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A row of a map: where a block of the part begins."""

    block: int
    sequence: int
    offset: int
    """In the record's payload."""
    length: int
    """Header and payload."""
    kind: int
    flags: int


class Places(Sequence[BlockPlace]):
    """Rows of a map, ascending by block, kept packed: a cartridge holds some 10^7 blocks."""

    __slots__ = ("_rows",)

    def __init__(self, rows: Buffer = b"") -> None:
        self._rows = bytearray(rows)

    def __len__(self) -> int:
        return len(self._rows) // MAP_ROW_BYTES

    @overload
    def __getitem__(self, at: int) -> BlockPlace: ...
    @overload
    def __getitem__(self, at: slice) -> Places: ...
    def __getitem__(self, at: int | slice) -> BlockPlace | Places:
        """A row; a run of rows (without a step) as a copy."""
        if isinstance(at, slice):
            start, stop, _ = at.indices(len(self))
            return Places(self._rows[start * MAP_ROW_BYTES : stop * MAP_ROW_BYTES])
        position = at + len(self) if at < 0 else at
        if not 0 <= position < len(self):
            raise IndexError(at)
        return BlockPlace(*_ROW.unpack_from(self._rows, position * MAP_ROW_BYTES)[:6])

    def __iter__(self) -> Iterator[BlockPlace]:
        return (BlockPlace(*row[:6]) for row in _ROW.iter_unpack(bytes(self._rows)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Places) and self._rows == other._rows

    __hash__ = None  # type: ignore[assignment]

    def extend(self, places: Sequence[BlockPlace]) -> None:
        self._rows += encode_map(places)

    def clear(self) -> None:
        self._rows.clear()

    def below(self, block: int) -> Places:
        """Those of smaller block numbers."""
        return self[: bisect_left(self, block, key=lambda place: place.block)]

    def stored_bytes(self) -> int:
        return sum(row[3] for row in _ROW.iter_unpack(bytes(self._rows)))


def seal_record(header: RecordHeader, payload: Buffer) -> tuple[memoryview, bytes]:
    """The record and its digest. One copy of the payload."""
    record = memoryview(bytearray(HEADER_BYTES + len(payload)))
    record[HEADER_BYTES:] = payload
    return record, seal_in_place(header, record)


def seal_in_place(header: RecordHeader, record: memoryview) -> bytes:
    """Fill in the header before the payload that stands in ``record`` behind HEADER_BYTES; the digest. The hash runs without the
    interpreter lock."""
    payload = record[HEADER_BYTES:]
    _FIELDS.pack_into(
        record,
        0,
        MAGIC,
        VERSION,
        header.kind,
        0,
        len(payload),
        header.use,
        header.cartridge,
        header.position,
        header.sequence,
        header.count,
        header.part,
        header.archive,
        header.first_block,
        header.first_offset,
        _NO_RESERVE,
        header.previous,
    )
    digest: bytes = blake3(record[:_PROVED_BYTES]).update(payload).digest()
    record[_PROVED_BYTES:HEADER_BYTES] = digest
    return digest


def parse_record(data: Buffer) -> Record:
    """The record that one READ gave.

    Raises ``Damaged`` when the bytes are no record that somebody wrote (length, magic, digest), ``ProtocolViolation`` when they are, but
    say something that this reader does not know or allow. Says nothing about whether it belongs where it was found: ``belongs``.
    """
    view = memoryview(data)
    if not HEADER_BYTES < len(view) <= RECORD_BYTES_MAX:
        raise Damaged(f"no native record: {len(view)} bytes")
    if bytes(view[:4]) != MAGIC:
        raise Damaged(f"no native record: magic is {bytes(view[:4]).hex()}, not {MAGIC.hex()}")
    payload = view[HEADER_BYTES:]
    digest = bytes(view[_PROVED_BYTES:HEADER_BYTES])
    if blake3(view[:_PROVED_BYTES]).update(payload).digest() != digest:
        raise Damaged("record does not match its digest")
    (
        _,
        version,
        kind_id,
        zero,
        length,
        use,
        cartridge,
        position,
        sequence,
        count,
        part,
        archive,
        first_block,
        first_offset,
        reserve,
        previous,
    ) = _FIELDS.unpack_from(view)
    if version != VERSION:
        raise ProtocolViolation(f"record format version {version} is not known (this reader knows {VERSION})")
    kind = _KINDS.get(kind_id)
    if kind is None or zero or reserve != _NO_RESERVE or length != len(payload) or use == 0:
        raise ProtocolViolation(f"record of kind {kind_id} with a field that is not known or not allowed")
    header = RecordHeader(
        kind=kind,
        use=use,
        cartridge=cartridge,
        position=position,
        sequence=sequence,
        count=count,
        part=part,
        archive=archive,
        first_block=first_block,
        first_offset=first_offset,
        previous=previous,
    )
    _check_header(header, length)
    return Record(header, payload, digest)


def _check_header(header: RecordHeader, payload_bytes: int) -> None:
    kind = header.kind
    of_part = kind in PART_KINDS
    if of_part != (header.part > 0) or (not of_part and header.archive != NO_ARCHIVE):
        raise ProtocolViolation(f"{kind.name} record with part {header.part}")
    if (kind is RecordKind.INDEX) != (header.count > 0) or (
        kind is RecordKind.INDEX and header.sequence >= header.count
    ):
        raise ProtocolViolation(f"{kind.name} record {header.sequence} of {header.count}")
    if kind is RecordKind.LABEL:
        if header.sequence or header.position != LABEL_POSITION or header.previous != NO_DIGEST:
            raise ProtocolViolation("label record that is not the first of its cartridge")
    elif header.sequence + FIRST_GROUP_POSITION > header.position:
        raise ProtocolViolation(f"{kind.name} record {header.sequence} at position {header.position}")
    if of_part and (kind is RecordKind.ARCHIVE) != (header.sequence == 0):
        raise ProtocolViolation(f"{kind.name} record with sequence {header.sequence}")
    begins = kind is RecordKind.CONTAINER and header.first_block != NO_BLOCK
    if begins:
        if header.first_block > NUMBER_MAX or header.first_offset >= payload_bytes:
            raise ProtocolViolation(f"block {header.first_block} begins at {header.first_offset} of {payload_bytes}")
    elif header.first_offset or (kind is not RecordKind.CONTAINER and header.first_block):
        raise ProtocolViolation(f"{kind.name} record in which a block begins")


_Payload = TypeVar("_Payload", Label, PartHeader, PartTrailer)


def _decode(record: Record, kind: RecordKind, shape: type[_Payload]) -> _Payload:
    if record.header.kind is not kind:
        raise ProtocolViolation(f"{record.header.kind.name} record where {kind.name} is asked for")
    try:
        return msgspec.msgpack.decode(record.payload, type=shape)
    except UNDECODABLE as error:
        raise ProtocolViolation(f"{kind.name} record: {error}") from None


def decode_label(record: Record) -> Label:
    """Raises ``ProtocolViolation``."""
    return _decode(record, RecordKind.LABEL, Label)


def decode_part_header(record: Record) -> PartHeader:
    """Raises ``ProtocolViolation``."""
    return _decode(record, RecordKind.ARCHIVE, PartHeader)


def decode_trailer(record: Record) -> PartTrailer:
    """Raises ``ProtocolViolation``."""
    trailer = _decode(record, RecordKind.TRAILER, PartTrailer)
    check_trailer(trailer, record.header.sequence)
    return trailer


def check_trailer(trailer: PartTrailer, records: int) -> None:
    """Raises ``ProtocolViolation`` when a trailer with ``records`` records of the part before it contradicts itself."""
    wrong = (
        len(trailer.root) != (32 if trailer.final else 0)
        or (not trailer.final and trailer.blocks_total != 0)
        or (trailer.final and trailer.blocks_total < trailer.blocks)
        or (trailer.final and trailer.next_tag != "")
        or (trailer.blocks == 0) != (trailer.first_block == -1)
        or (trailer.blocks == 0) != (trailer.last_block == -1)
        or trailer.last_block - trailer.first_block < trailer.blocks - 1
        or sum(entry.rows for entry in trailer.maps) != trailer.blocks
        or (bool(trailer.maps) and trailer.maps[0].first_block != trailer.first_block)
        or any(not 1 <= entry.sequence < records for entry in trailer.maps)
        or any(
            later.sequence <= earlier.sequence or later.first_block <= earlier.first_block
            for earlier, later in zip(trailer.maps, trailer.maps[1:], strict=False)
        )
    )
    if wrong:
        raise ProtocolViolation("trailer that contradicts itself")


def encode_map(places: Sequence[BlockPlace]) -> bytes:
    """Payload of a map record."""
    return b"".join(_ROW.pack(p.block, p.sequence, p.offset, p.length, p.kind, p.flags, 0) for p in places)


def decode_map(record: Record) -> Places:
    """Rows of a map record. Raises ``ProtocolViolation`` for rows out of order or out of bounds."""
    if record.header.kind is not RecordKind.MAP or len(record.payload) % MAP_ROW_BYTES:
        raise ProtocolViolation(f"{record.header.kind.name} record of {len(record.payload)} bytes is no map")
    last = -1
    for block, sequence, offset, length, kind, flags, zero in _ROW.iter_unpack(record.payload):
        if (
            not last < block <= NUMBER_MAX
            or not 1 <= sequence < record.header.sequence
            or offset >= RECORD_BYTES_MAX - HEADER_BYTES
            or not BLOCK_HEADER_BYTES < length <= BLOCK_HEADER_BYTES + STORED_BYTES_MAX
            or kind not in _BLOCK_KINDS
            or flags > BlockFlag.MANIFEST_BEGINS
            or zero
        ):
            raise ProtocolViolation(f"map row of block {block} is not allowed")
        last = block
    return Places(bytes(record.payload))


_BLOCK_KINDS: Final = frozenset(int(kind) for kind in BlockKind)


def rows_per_map(record_bytes: int) -> int:
    return (record_bytes - HEADER_BYTES) // MAP_ROW_BYTES


def index_payloads(rows: Sequence[IndexRow], record_bytes: int) -> list[bytes]:
    """Payloads of the records of an index, in order."""
    whole = msgspec.msgpack.encode(list(rows))
    room = record_bytes - HEADER_BYTES
    return [whole[start : start + room] for start in range(0, len(whole), room)]


def decode_index(records: Sequence[Record]) -> list[IndexRow]:
    """Rows of an index from all its records, ascending. Raises ``ProtocolViolation``."""
    if not records or [r.header.sequence for r in records] != list(range(records[0].header.count)):
        raise ProtocolViolation("index with a record missing")
    first = records[0].header
    if any(
        r.header.kind is not RecordKind.INDEX
        or r.header.count != first.count
        or r.header.position != first.position + r.header.sequence
        for r in records
    ):
        raise ProtocolViolation("records that are not of one index")
    if sum(len(record.payload) for record in records) > INDEX_BYTES_MAX:
        raise ProtocolViolation(f"index of more than {INDEX_BYTES_MAX} bytes")
    try:
        rows = msgspec.msgpack.decode(b"".join(record.payload for record in records), type=list[IndexRow])
    except UNDECODABLE as error:
        raise ProtocolViolation(f"index: {error}") from None
    if len(rows) > PARTS_MAX:
        raise ProtocolViolation(f"index of {len(rows)} parts")
    end = FIRST_GROUP_POSITION
    for row in rows:
        check_trailer(row.trailer, row.records)
        if row.position < end or row.records < 1 or row.position + row.records >= first.position:
            raise ProtocolViolation(f"index: part at position {row.position} is not where a part can be")
        end = row.position + row.records + 2
    return rows


def end_reserve_bytes(record_bytes: int, index_bytes: int) -> int:
    """How much may follow early warning: the command on its way, map, trailer, and an index of ``index_bytes``.
    Filemarks are counted as records."""
    index_records = -(-index_bytes // (record_bytes - HEADER_BYTES)) + 1
    return (3 + index_records + 2) * record_bytes


def slices(place: BlockPlace, payloads: Iterator[memoryview]) -> bytes:
    """The block at ``place`` from the payloads of the part's container records, the one it begins in first (maps left out).

    Raises ``Damaged`` when they end before the block does. Takes no more of them than it needs.
    """
    pieces: list[memoryview] = []
    missing, offset = place.length, place.offset
    for payload in payloads:
        piece = payload[offset : offset + missing]
        pieces.append(piece)
        missing -= len(piece)
        offset = 0
        if not missing:
            return b"".join(pieces)
    raise Damaged(f"block {place.block} is cut short by {missing} bytes", data={"block": place.block})
