"""What a native cartridge tells that is read from its beginning, object by object, without its server. Rules: ``docs/format-tape.md``.

The owner of the drive feeds a ``NativeScanner`` with what each READ gave; ``end`` gives the contents: the parts with a map of every block that can be
read, what is wrong and where, and whether and where the cartridge may be written on.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import msgspec

from rbcore.archive.block import HEADER_BYTES as BLOCK_HEADER_BYTES
from rbcore.archive.block import parse_header
from rbcore.errors import Damaged, ProtocolViolation
from rbcore.tape.native import (
    INDEX_BYTES_MAX,
    LABEL_POSITION,
    MAPS_MAX,
    NO_BLOCK,
    NO_DIGEST,
    PARTS_MAX,
    BlockPlace,
    IndexRow,
    Label,
    MapEntry,
    PartHeader,
    PartTrailer,
    Places,
    Record,
    RecordKind,
    decode_index,
    decode_label,
    decode_map,
    decode_part_header,
    decode_trailer,
    parse_record,
)
from rbcore.tape.native_write import AppendPoint, OpenPart

FINDINGS_MAX: Final = 10_000
"""More are counted, not listed."""


class TapeFinding(msgspec.Struct, frozen=True):
    position: int
    what: str


class FoundPart(msgspec.Struct, kw_only=True):
    """One part on the cartridge."""

    archive: bytes
    part: int
    header: PartHeader
    position: int
    """Of the archive header."""
    places: Places
    """Blocks that can be read, ascending. Empty when the archive header could not be: then the maps lead to them."""
    trailer: PartTrailer | None = None
    records: int = 0
    """Behind the header; the trailer not counted."""

    skipped: bool = False
    """Containers were passed over on purpose: ``places`` is empty, the trailer and its maps tell what is there."""

    @property
    def missing_blocks(self) -> int:
        """Blocks that the trailer counts and that were looked for and cannot be read."""
        return 0 if self.trailer is None or self.skipped else self.trailer.blocks - len(self.places)


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    label: Label | None
    cartridge: bytes
    """Zeros when no native record was found at all."""
    use: int
    parts: list[FoundPart]
    findings: list[TapeFinding]
    findings_total: int
    append: AppendPoint | None
    """None: the cartridge may not be written on as it is."""
    resume: tuple[AppendPoint, OpenPart] | None
    """The unfinished part at the end, when there is one that can be taken up. Who appends at ``append`` instead destroys it."""


class BlockTracker:
    """Finds the blocks in the payloads of a part's container records and tells which are whole."""

    def __init__(self, archive: bytes, first_block: int) -> None:
        self._archive, self._next_block = archive, first_block
        self._head = b""
        """Beginning of a block whose header is not whole yet."""
        self._place: BlockPlace | None = None
        """The block that is not whole yet; its length is 0 while its header is not whole."""
        self._missing = 0

    def cut(self) -> None:
        """A record is missing: what began before it is not whole."""
        self._place = None

    def feed(self, record: Record) -> list[BlockPlace]:
        """Places of the blocks that end in this record. Raises ``Damaged``, ``ProtocolViolation``: what was written is no sequence of blocks."""
        header, payload = record.header, record.payload
        start = header.first_offset if header.first_block != NO_BLOCK else len(payload)
        whole = self._tail(payload[:start], ends=start < len(payload))
        offset = start
        while offset < len(payload):
            place = BlockPlace(0, header.sequence, offset, 0, 0, 0)
            rest = payload[offset:]
            if len(rest) < BLOCK_HEADER_BYTES:
                self._place, self._head, self._missing = place, bytes(rest), 0
                break
            place = self._opened(place, rest)
            if offset == start and place.block != header.first_block:
                raise ProtocolViolation(f"block {place.block} where the record says {header.first_block}")
            if place.length > len(rest):
                self._place, self._head, self._missing = place, b"", place.length - len(rest)
                break
            whole.append(place)
            self._next_block = place.block + 1
            offset += place.length
        return whole

    def _tail(self, tail: memoryview, *, ends: bool) -> list[BlockPlace]:
        """The rest of the block that began in an earlier record; ``ends``: it must end where ``tail`` does."""
        place, self._place = self._place, None
        if place is None:
            return []
        missing = self._missing
        if not place.length:
            had = len(self._head)
            self._head += bytes(tail[: BLOCK_HEADER_BYTES - had])
            if len(self._head) < BLOCK_HEADER_BYTES:
                self._place = None if ends else place
                return []
            place = self._opened(place, memoryview(self._head))
            missing = place.length - had
        if len(tail) == missing:
            self._next_block = place.block + 1
            return [place]
        if not ends and len(tail) < missing:
            self._place, self._missing = place, missing - len(tail)
        return []

    def _opened(self, place: BlockPlace, head: memoryview) -> BlockPlace:
        header = parse_header(head)
        if header.archive_id != self._archive or header.number < self._next_block:
            raise ProtocolViolation(f"block {header.number} of another archive, or out of order")
        return BlockPlace(header.number, place.sequence, place.offset, header.block_length, header.kind, header.flags)


class _Open(msgspec.Struct):
    """The part that is being read."""

    found: FoundPart
    tracker: BlockTracker
    digest: bytes
    """Of its last good record."""
    mapped: int = 0
    """Blocks that maps name."""
    maps: list[MapEntry] = []
    whole: bool = True
    """No record of it is missing before its last good one, and none contradicts: it can be taken up."""


class NativeScanner:
    """Feed it with every object from position 0 on, in order; then ``end``."""

    def __init__(self) -> None:
        self.position = 0
        """Of the object that comes next."""
        self._label: Label | None = None
        self._cartridge, self._use = bytes(16), 0
        self._parts: list[FoundPart] = []
        self._findings: list[TapeFinding] = []
        self._findings_total = 0
        self._previous: bytes | None = NO_DIGEST
        """Digest of the record before; None behind one that could not be read."""
        self._vol1 = b""
        self._open: _Open | None = None
        self._index: list[Record] = []
        """Of the index that is being read, as far as one may be long."""
        self._index_bytes = 0
        self._index_rows: list[IndexRow] = []
        self._group_end = 0
        """Behind the last finished group and its filemark, 0: none."""
        self._group_digest = NO_DIGEST
        self._group_marked = False
        self._indexed = False
        self._last_bad = -1
        """Position of the last object that could not be read or is not known."""
        self._hidden = False
        """Behind the last finished group stands one that is not the last object: it may have been the end of a group."""
        self._resume_position = 0

    def _find(self, what: str, position: int | None = None) -> None:
        self._findings_total += 1
        if len(self._findings) < FINDINGS_MAX:
            self._findings.append(TapeFinding(self.position if position is None else position, what))

    def unreadable(self, what: str) -> None:
        """The drive could not read the object."""
        self._find(what)
        self._bad()
        self.position += 1

    def _bad(self) -> None:
        self._hidden |= self._last_bad >= self._group_end
        self._last_bad = self.position
        self._previous = None
        self._forget_index()
        if self._open is not None:
            self._open.tracker.cut()

    def _forget_index(self) -> None:
        self._index, self._index_bytes = [], 0

    def record(self, data: bytes | memoryview) -> None:
        """What one READ gave. The bytes are not kept."""
        if self.position == 0:
            self._vol1 = bytes(data[:81])
        else:
            try:
                self._take(parse_record(data))
            except (Damaged, ProtocolViolation) as error:
                self._find(error.message)
                self._bad()
        self.position += 1

    def _take(self, record: Record) -> None:
        header = record.header
        if self._use == 0:
            self._cartridge, self._use = header.cartridge, header.use
        if (header.cartridge, header.use, header.position) != (self._cartridge, self._use, self.position):
            self._find(
                f"a record of cartridge {header.cartridge.hex()}, use {header.use}, position {header.position} does not belong here"
            )
            return
        if self._previous is not None and header.previous != self._previous:
            self._find("a record that does not continue the one before: left behind by an earlier session")
            return
        handle = {
            RecordKind.LABEL: self._take_label,
            RecordKind.ARCHIVE: self._take_header,
            RecordKind.INDEX: self._take_index,
        }.get(header.kind, self._take_of_part)
        handle(record)
        self._previous = record.digest
        if self._open is not None and header.kind is not RecordKind.INDEX:
            self._open.digest = record.digest
            self._resume_position = self.position + 1

    def skip_to(self, position: int) -> None:
        """Objects up to ``position`` are passed over on purpose, within a part: behind the archive header, a drive that can space to the
        filemark goes on with the trailer, which stands before it. What is passed over is neither found nor missed.

        Raises ``ValueError`` when no part is open, or the position is behind: a bug of the caller.
        """
        if self._open is None or position < self.position:
            raise ValueError("only containers of an open part can be passed over, forwards")
        if position > self.position:
            self._open.found.skipped, self._open.whole = True, False
            self._open.found.places.clear()
            self._open.tracker.cut()
            self._previous = None
            self.position = position

    def _finished(self, record: Record) -> None:
        """A group ends with this record."""
        self._group_end, self._group_digest, self._group_marked = self.position + 1, record.digest, False
        self._hidden = False
        self._indexed = record.header.kind is RecordKind.INDEX

    def _take_label(self, record: Record) -> None:
        label = decode_label(record)
        self._label = label
        if self._vol1 != label.vol1():
            self._find("VOL1 is not that of the label", 0)
        self._finished(record)

    def _take_header(self, record: Record) -> None:
        header = decode_part_header(record)
        self._leave_open()
        if len(self._parts) >= PARTS_MAX:
            raise ProtocolViolation(f"a part behind {PARTS_MAX} others: no cartridge holds so many")
        found = FoundPart(
            archive=record.header.archive,
            part=record.header.part,
            header=header,
            position=self.position,
            places=Places(),
        )
        self._parts.append(found)
        self._open = _Open(found, BlockTracker(found.archive, header.first_block), record.digest)

    def _leave_open(self) -> None:
        """The part that was read has no trailer, and something else follows."""
        if self._open is not None:
            self._find(
                f"part {self._open.found.part} of archive {self._open.found.archive.hex()} has no trailer",
                self._open.found.position,
            )
            self._open = None

    def _take_of_part(self, record: Record) -> None:
        header, opened = record.header, self._open
        if (
            opened is None
            or (header.archive, header.part) != (opened.found.archive, opened.found.part)
            or header.position - header.sequence != opened.found.position
        ):
            raise ProtocolViolation(
                f"{header.kind.name} record of part {header.part} of archive {header.archive.hex()} without its header"
            )
        if self._previous is None:
            opened.whole = False
        if opened.found.skipped and header.kind is not RecordKind.TRAILER:
            return
        if header.kind is RecordKind.CONTAINER:
            try:
                opened.found.places.extend(opened.tracker.feed(record))
            except (Damaged, ProtocolViolation) as error:
                self._find(error.message)
                opened.tracker.cut()
                opened.whole = False
        elif header.kind is RecordKind.MAP:
            places = decode_map(record)
            opened.maps.append(MapEntry(header.sequence, places[0].block, len(places)))
            opened.mapped += len(places)
            if opened.whole and places != opened.found.places[opened.mapped - len(places) : opened.mapped]:
                self._find("a map that does not say what is there")
                opened.whole = False
        else:
            opened.found.trailer = decode_trailer(record)
            if opened.found.missing_blocks:
                self._find(f"{opened.found.missing_blocks} blocks of part {header.part} cannot be read")
            self._open = None
            self._finished(record)
        opened.found.records = header.sequence

    def _take_index(self, record: Record) -> None:
        self._leave_open()
        if record.header.sequence == 0:
            self._forget_index()
        if self._index_bytes <= INDEX_BYTES_MAX:
            # Of a longer one the rest is let pass: it is refused at its end, and must not fill the memory until then.
            self._index.append(record)
            self._index_bytes += len(record.payload)
        if record.header.sequence == record.header.count - 1:
            records = self._index
            self._forget_index()
            rows = decode_index(records)
            self._index_rows = rows
            self._finished(record)
            self._indexed = {row.position for row in rows} >= {part.position for part in self._parts if part.trailer}

    def filemark(self) -> None:
        """A filemark was met."""
        if self._group_end == self.position and not self._group_marked:
            self._group_end, self._group_marked = self.position + 1, True
        elif self._last_bad < self._group_end:
            self._find("a filemark where none belongs")
        self.position += 1

    def _rows(self) -> list[IndexRow]:
        """All ended parts; what could not be read of them is taken from the last index."""
        found = {part.position: part for part in self._parts}
        for known in self._index_rows:
            part = found.get(known.position)
            if part is None:
                self._find("the archive header cannot be read; the index tells of it", known.position)
                part = FoundPart(
                    archive=known.archive,
                    part=known.part,
                    header=known.header,
                    position=known.position,
                    places=Places(),
                )
                self._parts.append(part)
            if part.trailer is None:
                part.trailer, part.records = known.trailer, known.records
        self._parts.sort(key=lambda part: part.position)
        return [row for part in self._parts if (row := _row_of(part)) is not None]

    def end(self, *, at_end_of_data: bool) -> Contents:
        """``at_end_of_data``: the drive said that nothing follows; otherwise reading was given up here."""
        rows = self._rows()
        append, resume = None, None
        hidden = self._hidden or self._group_end <= self._last_bad < self.position - 1
        if self._open is not None and self._open.found.skipped:
            hidden = True
            self._find("an unfinished part was passed over: its blocks must be looked for", self._open.found.position)
        label = self._label
        if label is None:
            self._find("no label that can be read", LABEL_POSITION)
        elif at_end_of_data and not hidden and len(self._parts) < PARTS_MAX:
            append = AppendPoint(
                label=label,
                cartridge=self._cartridge,
                use=self._use,
                position=self._group_end,
                previous=self._group_digest,
                filemark_missing=not self._group_marked,
                rows=rows,
                indexed=self._indexed,
            )
            resume = self._resumable(append)
        return Contents(
            label=label,
            cartridge=self._cartridge,
            use=self._use,
            parts=self._parts,
            findings=self._findings,
            findings_total=self._findings_total,
            append=append,
            resume=resume,
        )

    def _resumable(self, append: AppendPoint) -> tuple[AppendPoint, OpenPart] | None:
        opened = self._open
        if opened is None or not opened.whole or len(opened.maps) >= MAPS_MAX - 1:
            return None
        found = opened.found
        start = msgspec.structs.replace(
            append,
            position=self._resume_position,
            previous=opened.digest,
            filemark_missing=False,
            indexed=False,
        )
        part = OpenPart(
            archive=found.archive,
            part=found.part,
            header=found.header,
            position=found.position,
            places=found.places[opened.mapped :],
            maps=opened.maps,
            blocks=len(found.places),
            stored_bytes=found.places.stored_bytes(),
            first_block=found.places[0].block if found.places else -1,
            last_block=found.places[-1].block if found.places else -1,
        )
        return start, part


def append_after_index(label: Record, index: Sequence[Record]) -> AppendPoint:
    """Where to append on a cartridge whose last group is ``index``, known without reading the rest.

    The caller has read the label and all records of the index, and met one filemark and the end of data behind them; when it met anything else it
    must scan. Raises ``ProtocolViolation`` when the records are not of one cartridge and use, or not an index.
    """
    known = decode_label(label)
    rows = decode_index(index)
    owner = (label.header.cartridge, label.header.use)
    if any((record.header.cartridge, record.header.use) != owner for record in index):
        raise ProtocolViolation("an index of another cartridge, or of another use")
    if any(later.header.previous != earlier.digest for earlier, later in pairwise(index)):
        raise ProtocolViolation("records of an index that do not continue each other")
    return AppendPoint(
        label=known,
        cartridge=label.header.cartridge,
        use=label.header.use,
        position=index[-1].header.position + 2,
        previous=index[-1].digest,
        rows=rows,
        indexed=True,
    )


def _row_of(part: FoundPart) -> IndexRow | None:
    if part.trailer is None:
        return None
    return IndexRow(part.position, part.archive, part.part, part.header, part.trailer, part.records)
