"""A session that writes a native cartridge, as a state machine without I/O: what to write next, given what became of what was written.

The owner of the drive calls ``next``, carries the operation out, and reports ``done`` (with early warning or not) or ``failed``. In between it
says what it wants: ``begin``, ``add``, ``sync``, ``finish`` or ``interrupt``, ``close``. Records are sealed only when they are asked for, so
what early warning drops has left no trace in the chain. Rules: ``docs/format-tape.md``.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

import msgspec

from rbcore.archive.block import Buffer, iter_blocks
from rbcore.errors import NotAllowedNow, ProtocolViolation
from rbcore.tape.native import (
    HEADER_BYTES,
    INDEX_BYTES_MAX,
    LABEL_POSITION,
    MAPS_MAX,
    NO_ARCHIVE,
    NO_BLOCK,
    NO_DIGEST,
    PARTS_MAX,
    BlockPlace,
    IndexRow,
    Label,
    MapEntry,
    PartHeader,
    PartTrailer,
    RecordHeader,
    RecordKind,
    encode_map,
    end_reserve_bytes,
    index_payloads,
    rows_per_map,
    seal_in_place,
    seal_record,
)

_ROW_BYTES_MAX: Final = 64 * 1024
"""Longest row of an index: texts of 1024 characters, MAPS_MAX maps."""
_INDEX_ROOM_BYTES: Final = INDEX_BYTES_MAX - _ROW_BYTES_MAX
"""One more part always fits an index."""


class WriteRecord(msgspec.Struct, frozen=True):
    data: memoryview
    """One record. Nobody writes into it any more."""


class WriteFilemarks(msgspec.Struct, frozen=True):
    """IMMED 0: when it returns, everything before is on the medium. Count 0 only flushes."""

    count: int


Operation: TypeAlias = WriteRecord | WriteFilemarks


class Phase(enum.Enum):
    IDLE = "no archive is open"
    PART = "an archive is open"
    SPAN = "the open archive must go on in another part: interrupt it, or finish it where nothing was dropped"
    ENDING = "the open part is being ended"
    CLOSED = "the session was closed"
    FAILED = "a write failed: what was not made durable may not be there"


class AppendPoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where a session begins to write: a fresh cartridge, or behind the last finished group of one that was read."""

    label: Label
    cartridge: bytes
    use: int
    position: int
    previous: bytes
    """Digest of the last record that counts."""
    filemark_missing: bool = False
    rows: Sequence[IndexRow] = ()
    """The parts that stand before."""
    indexed: bool = False
    """The group before is an index that names them."""

    @classmethod
    def fresh(cls, label: Label, cartridge: bytes, use: int) -> AppendPoint:
        """A cartridge to be labelled, from its beginning."""
        return cls(label=label, cartridge=cartridge, use=use, position=0, previous=NO_DIGEST)


class OpenPart(msgspec.Struct, frozen=True, kw_only=True):
    """An unfinished part, as far as it can be read: what a writer takes up. ``AppendPoint.position`` is behind its last good record."""

    archive: bytes
    part: int
    header: PartHeader
    position: int
    """Of the archive header."""
    places: Sequence[BlockPlace]
    """Of the whole blocks that no map names yet."""
    maps: Sequence[MapEntry]
    blocks: int
    stored_bytes: int
    first_block: int
    last_block: int


class _Record(msgspec.Struct, frozen=True):
    kind: RecordKind
    payload: bytes
    sequence: int = 0
    count: int = 0


class _Raw(msgspec.Struct, frozen=True):
    data: bytes


class _Slice(msgspec.Struct):
    """A container record, while it fills and while it waits. Blocks are copied once, to where they are written from."""

    record: memoryview
    """As long as records get; the header is still to come."""
    filled: int
    """Bytes of payload."""
    begins: list[tuple[int, BlockPlace]]
    """Blocks that begin here, each with the place in the part's stream of bytes where it ends; ``sequence`` not yet known."""
    stream_end: int


class _End(msgspec.Struct, frozen=True):
    """The trailer, which is made when all containers are written."""

    final: bool
    next_tag: str
    root: bytes
    ended_ns: int


_Step: TypeAlias = _Raw | _Record | _Slice | _End | WriteFilemarks


class _Part:
    """State of the open part: what was written of it."""

    def __init__(self, archive: bytes, number: int, header: PartHeader, position: int) -> None:
        self.archive, self.number, self.header, self.position = archive, number, header, position
        self.begun: deque[tuple[int, BlockPlace]] = deque()
        """Begun and not yet wholly written, with the end of each in the stream."""
        self.unmapped: list[BlockPlace] = []
        self.maps: list[MapEntry] = []
        self.blocks = self.stored_bytes = 0
        self.first_block = self.last_block = -1
        self.durable_blocks, self.durable_block = 0, -1
        self.stream_written = 0

    @classmethod
    def taken_up(cls, found: OpenPart) -> _Part:
        part = cls(found.archive, found.part, found.header, found.position)
        part.unmapped, part.maps = list(found.places), list(found.maps)
        part.blocks, part.stored_bytes = found.blocks, found.stored_bytes
        part.first_block, part.last_block = found.first_block, found.last_block
        part.made_durable()
        return part

    def written(self, piece: _Slice, sequence: int) -> None:
        self.begun.extend((end, msgspec.structs.replace(place, sequence=sequence)) for end, place in piece.begins)
        self.stream_written = piece.stream_end
        while self.begun and self.begun[0][0] <= self.stream_written:
            place = self.begun.popleft()[1]
            self.unmapped.append(place)
            self.blocks += 1
            self.stored_bytes += place.length
            self.first_block = place.block if self.first_block < 0 else self.first_block
            self.last_block = place.block

    def made_durable(self) -> None:
        self.durable_blocks, self.durable_block = self.blocks, self.last_block

    @property
    def next_block(self) -> int:
        return max(self.last_block + 1, self.header.first_block)


class _Place(NamedTuple):
    """Where a record is to stand, which its header says."""

    position: int
    previous: bytes
    """Digest of the record before."""


class _Sealed(NamedTuple):
    step: _Step
    place: _Place
    data: memoryview
    digest: bytes


class NativeWriter:
    """One session on one cartridge. See the module's header for how it is driven."""

    def __init__(self, start: AppendPoint, open_part: OpenPart | None = None) -> None:
        """``open_part``: the unfinished part that ends at ``start``; it is taken up, and goes on or is interrupted."""
        self.label, self.cartridge, self.use = start.label, start.cartridge, start.use
        self.position, self._previous = start.position, start.previous
        self.rows = list(start.rows)
        """Parts on the cartridge whose trailer is written."""
        self.phase = Phase.IDLE
        self.dropped = False
        """Early warning dropped blocks of the open archive: it cannot be finished in this part."""
        self._room = start.label.record_bytes - HEADER_BYTES
        self._queue: deque[_Step] = deque()
        self._current: tuple[_Step, bytes] | None = None
        """What ``next`` handed out, and the digest of the record."""
        self._ahead: _Sealed | None = None
        self._part: _Part | None = None
        self._next_block = 0
        self._filling: _Slice | None = None
        self._stream_end = 0
        self._warned = False
        self._indexed = start.indexed
        self._index_bytes = sum(len(msgspec.msgpack.encode(row)) for row in self.rows)
        if start.position == 0:
            label_record = _Record(RecordKind.LABEL, msgspec.msgpack.encode(start.label))
            self._queue += [_Raw(start.label.vol1()), label_record, WriteFilemarks(1)]
        elif start.filemark_missing:
            self._queue.append(WriteFilemarks(1))
        if open_part is not None:
            self._part = _Part.taken_up(open_part)
            self._next_block = self._part.next_block
            self.phase = Phase.PART

    @property
    def full(self) -> bool:
        """No further part may begin here."""
        return self._warned or len(self.rows) >= PARTS_MAX or self._index_bytes > _INDEX_ROOM_BYTES

    @property
    def reserve_bytes(self) -> int:
        """What may still be written when early warning comes now: for a writer that must stop by itself."""
        return end_reserve_bytes(self.label.record_bytes, self._index_bytes + _ROW_BYTES_MAX)

    @property
    def next_block(self) -> int:
        """The smallest number that ``add`` takes next; after a drop, the first block that must be sent again is not below it."""
        return self._next_block

    @property
    def durable_block(self) -> int:
        """The last block of the open part, or of the part that was open last, up to which all are on the medium; -1: none of this part."""
        return -1 if self._part is None else self._part.durable_block

    @property
    def written_block(self) -> int:
        """The last block of the part that is or was open up to which all were taken whole, durable or not; -1: none of this part."""
        return -1 if self._part is None else self._part.last_block

    @property
    def part_bytes(self) -> int:
        """Bytes of the whole blocks written of the part that is or was open last."""
        return 0 if self._part is None else self._part.stored_bytes

    @property
    def last_digest(self) -> bytes:
        """Of the record written last; zeros when there is none: what stands before ``position``, filemarks aside."""
        return self._previous

    def begin(self, archive: bytes, part: int, header: PartHeader) -> None:
        """Open a part. Raises ``NotAllowedNow`` when the cartridge is full or another part is open."""
        if self.phase is not Phase.IDLE or self.full:
            raise NotAllowedNow(f"cartridge {self.label.volume_tag} takes no archive now: {self._why_not()}")
        if part < 1 or len(archive) != len(NO_ARCHIVE):
            raise ValueError("parts count from 1, archive ids have 16 bytes")
        self._part = _Part(archive, part, header, position=-1)
        self._next_block = header.first_block
        self._filling, self._stream_end, self.dropped = None, 0, False
        self._queue.append(_Record(RecordKind.ARCHIVE, msgspec.msgpack.encode(header)))
        self._indexed = False
        self.phase = Phase.PART

    def _why_not(self) -> str:
        return "it is full" if self.full and self.phase is Phase.IDLE else self.phase.value

    @property
    def records_waiting(self) -> int:
        """Full records, and what else is to be written, behind what ``next`` handed out."""
        return len(self._queue) - (self._current is not None)

    def add(self, blocks: Buffer) -> None:
        """Whole blocks of the archive with ascending numbers. Their payloads are not checked here.

        Raises ``ProtocolViolation`` or ``Damaged`` for malformed blocks or ones out of order (those before them are taken), ``NotAllowedNow`` when no part
        takes blocks: early warning may have come since.
        """
        part = self._part
        if self.phase is not Phase.PART or part is None:
            raise NotAllowedNow(f"cartridge {self.label.volume_tag} takes no blocks now: {self.phase.value}")
        view = memoryview(blocks)
        offset = 0
        for header, _ in iter_blocks(view):
            if header.archive_id != part.archive or header.number < self._next_block:
                raise ProtocolViolation(f"block {header.number} is of another archive, or below {self._next_block}")
            place = BlockPlace(header.number, 0, 0, header.block_length, header.kind, header.flags)
            self._pack(place, view[offset : offset + header.block_length])
            offset += header.block_length
            self._next_block = header.number + 1

    def _pack(self, place: BlockPlace, block: memoryview) -> None:
        end = self._stream_end + len(block)
        begins = True
        while len(block):
            piece = self._filling
            if piece is None:
                buffer = memoryview(bytearray(self.label.record_bytes))
                piece = self._filling = _Slice(buffer, 0, [], self._stream_end)
            if begins:
                piece.begins.append((end, msgspec.structs.replace(place, offset=piece.filled)))
                begins = False
            taken = block[: self._room - piece.filled]
            at = HEADER_BYTES + piece.filled
            piece.record[at : at + len(taken)] = taken
            block = block[len(taken) :]
            piece.filled += len(taken)
            self._stream_end += len(taken)
            piece.stream_end = self._stream_end
            if piece.filled == self._room:
                self._cut()

    def _cut(self) -> None:
        """What is filling becomes a record, however short."""
        if self._filling is not None:
            self._queue.append(self._filling)
            self._filling = None

    def sync(self) -> None:
        """Ask that everything added so far and not dropped becomes durable; ``durable_block`` says when it is."""
        if self.phase in (Phase.PART, Phase.SPAN):
            self._cut()
            self._queue.append(WriteFilemarks(0))

    def finish(self, root: bytes, ended_ns: int) -> None:
        """End the archive with everything that was added. ``root``: 32 bytes, of the whole archive.

        If early warning drops blocks that are still waiting, the phase becomes ``SPAN`` and the archive is not finished.
        Raises ``NotAllowedNow`` when no part is open, or blocks were dropped.
        """
        if len(root) != 32:
            raise ValueError("a root has 32 bytes")
        if self.phase not in (Phase.PART, Phase.SPAN) or self.dropped:
            raise NotAllowedNow(f"the archive cannot be finished here: {self.phase.value}")
        self._end(_End(True, "", root, ended_ns))

    def interrupt(self, next_tag: str, ended_ns: int) -> None:
        """End the part; the archive goes on in the next, on cartridge ``next_tag`` (empty when that is not known). Raises ``NotAllowedNow``."""
        if self.phase not in (Phase.PART, Phase.SPAN):
            raise NotAllowedNow(f"no part to interrupt: {self.phase.value}")
        self._end(_End(False, next_tag, b"", ended_ns))

    def _end(self, end: _End) -> None:
        self._cut()
        self._queue += [end, WriteFilemarks(1)]
        self.phase = Phase.ENDING

    def close(self) -> None:
        """End the session: an index, unless the last group is one already. Raises ``NotAllowedNow`` while a part is open.

        Nothing may be asked for afterwards; carry out what ``next`` still gives, then unload.
        """
        if self.phase is Phase.ENDING and self._queue:
            raise NotAllowedNow("carry out what is waiting first: early warning may change what it is")
        if self.phase is not Phase.IDLE:
            raise NotAllowedNow(f"the session cannot be closed: {self.phase.value}")
        if not self._indexed and self.rows:
            payloads = index_payloads(self.rows, self.label.record_bytes)
            self._queue.extend(
                _Record(RecordKind.INDEX, payload, sequence, len(payloads)) for sequence, payload in enumerate(payloads)
            )
            self._queue.append(WriteFilemarks(1))
            self._indexed = True
        self.phase = Phase.CLOSED

    def continuation(self) -> tuple[int, PartHeader]:
        """Number and header of the part in which the archive that was open last goes on, from what is durable here. Raises ``NotAllowedNow``."""
        part = self._part
        if part is None:
            raise NotAllowedNow("no archive was open in this session")
        return part.number + 1, msgspec.structs.replace(
            part.header,
            first_block=max(part.durable_block + 1, part.header.first_block),
            blocks_before=part.header.blocks_before + part.durable_blocks,
            previous_tag=self.label.volume_tag,
            previous_cartridge=self.cartridge,
        )

    def next(self) -> Operation | None:
        """What to write now; the same again until ``done`` or ``failed`` is called. None: nothing to do until something is asked for."""
        if self.phase is Phase.FAILED or not self._queue:
            return None
        step = self._queue[0]
        part = self._part
        if part is not None and isinstance(step, _Slice | _End):
            due = bool(part.unmapped) if isinstance(step, _End) else len(part.unmapped) >= self._rows_per_map
            if due:
                rows = part.unmapped[: self._rows_per_map]
                step = _Record(RecordKind.MAP, encode_map(rows))
                self._queue.appendleft(step)
        if isinstance(step, WriteFilemarks):
            self._current = (step, self._previous)
            return step
        if isinstance(step, _Raw):
            self._current = (step, self._previous)
            return WriteRecord(memoryview(step.data))
        place = _Place(self.position, self._previous)
        ahead, self._ahead = self._ahead, None
        if ahead is None or ahead.step is not step or ahead.place != place:
            ahead = _Sealed(step, place, *self._seal(step, place))
        self._current = (step, ahead.digest)
        return WriteRecord(ahead.data)

    def seal_ahead(self) -> None:
        """Make the record of blocks that follows what ``next`` handed out, if it is full. What comes of the one before may make it needless, never wrong."""
        if self._current is None or self._ahead is not None or len(self._queue) < 2:
            return
        (step, digest), following = self._current, self._queue[1]
        if not isinstance(step, WriteFilemarks) and isinstance(following, _Slice):
            place = _Place(self.position + 1, digest)
            self._ahead = _Sealed(following, place, *self._seal(following, place))

    @property
    def _rows_per_map(self) -> int:
        return rows_per_map(self.label.record_bytes)

    def _seal(self, step: _Record | _Slice | _End, place: _Place) -> tuple[memoryview, bytes]:
        part = self._part
        header = RecordHeader(
            kind=RecordKind.CONTAINER,
            use=self.use,
            cartridge=self.cartridge,
            position=place.position,
            previous=place.previous,
        )
        if isinstance(step, _Record) and step.kind in (RecordKind.LABEL, RecordKind.INDEX):
            of_group = msgspec.structs.replace(header, kind=step.kind, sequence=step.sequence, count=step.count)
            assert step.kind is not RecordKind.LABEL or place.position == LABEL_POSITION
            return seal_record(of_group, step.payload)
        assert part is not None, "records of a part are queued by an open part"
        if isinstance(step, _Record) and step.kind is RecordKind.ARCHIVE:
            part.position = place.position
        header = msgspec.structs.replace(
            header, part=part.number, archive=part.archive, sequence=place.position - part.position
        )
        if isinstance(step, _Slice):
            first = step.begins[0][1] if step.begins else None
            header = msgspec.structs.replace(
                header,
                first_block=NO_BLOCK if first is None else first.block,
                first_offset=0 if first is None else first.offset,
            )
            record = step.record[: HEADER_BYTES + step.filled]
            return record, seal_in_place(header, record)
        if isinstance(step, _End):
            trailer = msgspec.msgpack.encode(_trailer(part, step))
            return seal_record(msgspec.structs.replace(header, kind=RecordKind.TRAILER), trailer)
        return seal_record(msgspec.structs.replace(header, kind=step.kind), step.payload)

    def done(self, *, early_warning: bool = False) -> None:
        """The operation that ``next`` gave was carried out (early warning comes with a write that was)."""
        if self._current is None:
            raise ValueError("nothing was handed out")
        step, digest = self._current
        self._current = None
        self._queue.popleft()
        part = self._part
        if isinstance(step, WriteFilemarks):
            self.position += step.count
            if part is not None:
                part.made_durable()
            if self.phase is Phase.ENDING and not self._queue:
                self.phase = Phase.IDLE
        else:
            self._previous = digest
            sequence = self.position - part.position if part is not None else 0
            self.position += 1
            if part is not None:
                self._account(part, step, sequence)
        if early_warning:
            self._warned = True
        if part is not None and (self._warned or len(part.maps) >= MAPS_MAX - 1):
            self._end_data(part)

    def _account(self, part: _Part, step: _Step, sequence: int) -> None:
        if isinstance(step, _Slice):
            part.written(step, sequence)
        elif isinstance(step, _Record) and step.kind is RecordKind.MAP:
            rows = part.unmapped[: self._rows_per_map]
            part.maps.append(MapEntry(sequence, rows[0].block, len(rows)))
            del part.unmapped[: len(rows)]
        elif isinstance(step, _End):
            row = IndexRow(part.position, part.archive, part.number, part.header, _trailer(part, step), sequence)
            self.rows.append(row)
            self._index_bytes += len(msgspec.msgpack.encode(row))

    def _end_data(self, part: _Part) -> None:
        """No further container: what waits is dropped, unless nothing does and the part is being ended."""
        waiting = self._filling is not None or any(isinstance(step, _Slice) for step in self._queue)
        if self.phase not in (Phase.PART, Phase.ENDING) or (self.phase is Phase.ENDING and not waiting):
            return
        self.dropped = waiting or bool(part.begun)
        steps = list(self._queue)
        opening = [n for n, step in enumerate(steps) if isinstance(step, _Record) and step.kind is RecordKind.ARCHIVE]
        self._queue = deque(steps[: opening[-1] + 1] if opening else ())
        self._filling = None
        part.begun.clear()
        self._next_block = part.next_block
        self.phase = Phase.SPAN

    def failed(self) -> None:
        """The operation was refused or nobody knows what became of it: physical end, write error, lost drive. Nothing more is written."""
        self._current = None
        self._queue.clear()
        self._filling = None
        self.phase = Phase.FAILED


def _trailer(part: _Part, end: _End) -> PartTrailer:
    return PartTrailer(
        final=end.final,
        next_tag=end.next_tag,
        blocks=part.blocks,
        first_block=part.first_block,
        last_block=part.last_block,
        stored_bytes=part.stored_bytes,
        maps=list(part.maps),
        ended_ns=end.ended_ns,
        blocks_total=part.header.blocks_before + part.blocks if end.final else 0,
        root=end.root,
    )
