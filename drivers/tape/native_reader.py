"""One part of an archive on a native cartridge, read by block number: maps first, then records, each checked before a byte of it is used."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from drivers.tape.records import RecordReader
from rbcore import errors
from rbcore.archive.block import check_stored, parse_header
from rbcore.archive.container import Index, IndexRow
from rbcore.tape.native import (
    HEADER_BYTES,
    BlockPlace,
    MapEntry,
    PartTrailer,
    Places,
    Record,
    RecordKind,
    decode_map,
    decode_trailer,
)
from rbcore.tape.native_scan import BlockTracker
from rbcore.tape.session import PartPlace


class NativePartReader:
    """Implements ``rbcore.tape.session.PartReader``. Rows of its index: ``container`` is the sequence of the record in which the block begins,
    ``offset`` is in that record's payload."""

    def __init__(
        self,
        records: RecordReader,
        archive: bytes,
        place: PartPlace,
        trailer: PartTrailer | None,
        *,
        places: Places | None = None,
    ) -> None:
        """``trailer``: where it is known already; otherwise it is read. ``places``: of a part that has none, what a scan found of it."""
        self.place = place
        self._records, self._archive, self._trailer = records, archive, trailer
        self._scanned = places
        self._index: Index | None = None
        self._map_sequences: frozenset[int] = frozenset()
        """Known from the trailer, so that a map in the middle of a block need not be readable."""
        self._lost: list[tuple[int, int]] = []
        """First blocks of maps that cannot be read, and of the maps behind: what is not in the index may have been there."""

    async def index(self) -> Index:
        """Where each block of the part lies. A map that cannot be read is replaced by reading the records that it is about.

        Raises ``Damaged`` or ``MediumFailed`` when the trailer, which leads to the maps, cannot be read.
        """
        if self._index is not None:
            return self._index
        if self._scanned is not None:
            self._index = Index(self._archive)
            for place in self._scanned:
                self._index.add_row(_row(place))
            return self._index
        maps = await self._maps()
        self._map_sequences = frozenset(entry.sequence for entry in maps)
        index, lost = Index(self._archive), []
        behind_last = 1
        for number, entry in enumerate(maps):
            behind = maps[number + 1].first_block if number + 1 < len(maps) else 2**63
            places = await self._places(entry, behind_last, behind)
            if len(places) < entry.rows:
                lost.append((entry.first_block, behind))
            for place in places:
                index.add_row(_row(place))
                behind_last = place.sequence
        self._index, self._lost = index, lost
        return index

    async def read(self, numbers: Sequence[int]) -> bytes:
        """These blocks, whole, one after the other; see the port. Raises ``NotFound``, ``Damaged``, ``MediumFailed``."""
        rows: list[IndexRow] = []
        pieces: list[memoryview] = []
        if numbers:
            with self._naming(numbers[0]):
                ahead = await self._positions(numbers)
            await self._records.take_ahead(ahead)
        for number in numbers:
            with self._naming(number):
                row = (await self.index()).find(number)
                if row is None:
                    raise self._missing(number)
                pieces += await self._pieces(row)
                rows.append(row)
        # Blocks begin anywhere in records: joined once, and looked at where they lie then.
        data = b"".join(pieces)
        view, start = memoryview(data), 0
        for row in rows:
            with self._naming(row.block):
                self._check(row, view[start : start + row.length])
            start += row.length
        return data

    async def _positions(self, numbers: Sequence[int]) -> list[int]:
        """Of the records in which these blocks lie, the last ones perhaps not all of them; maps among them are left to ``_pieces``."""
        index, room = await self.index(), self._records.label.record_bytes - HEADER_BYTES
        sequences: set[int] = set()
        for number in numbers:
            row = index.find(number)
            if row is not None:
                sequences.update(range(row.container, row.container + -(-(row.offset + row.length) // room)))
        return [self.place.position + one for one in sorted(sequences) if one < self.place.records]

    @contextlib.contextmanager
    def _naming(self, number: int) -> Iterator[None]:
        try:
            yield
        except (errors.Damaged, errors.ProtocolViolation) as error:
            kind = errors.MediumFailed if isinstance(error, errors.MediumFailed) else errors.Damaged
            raise kind(
                f"Block {number} of archive {self._archive.hex()}, part {self.place.part}, cannot be read: {error.message}",
                data={**error.data, "block": number},
            ) from error

    def _missing(self, number: int) -> errors.RbError:
        if any(first <= number < behind for first, behind in self._lost):
            return errors.Damaged("a map is lost, and records with it")
        return errors.NotFound(f"Block {number} of archive {self._archive.hex()} is not in part {self.place.part}.")

    async def _maps(self) -> Sequence[MapEntry]:
        """From the trailer. The last map stands right before it: passing that first spares going back."""
        if self._trailer is None:
            if self.place.blocks:
                # When it cannot be read it is asked for again, and said, when its turn comes.
                with contextlib.suppress(errors.Damaged):
                    await self._records.look(self.place.position + self.place.records - 1)
            record = await self._of_part(self.place.records)
            try:
                self._trailer = decode_trailer(record)
            except errors.ProtocolViolation as error:
                raise errors.Damaged(f"{self._where(self.place.records)}: {error.message}") from error
        return self._trailer.maps

    async def _places(self, entry: MapEntry, since: int, behind: int) -> Places:
        """Rows of a map, whose blocks are below ``behind``; ``since``: sequence of the record in which the last block before them begins."""
        try:
            places = decode_map(await self._of_part(entry.sequence))
        except (errors.Damaged, errors.ProtocolViolation):
            return (await self._looked_for(entry, since)).below(behind)
        if (len(places), places[0].block) != (entry.rows, entry.first_block):
            raise errors.Damaged(f"{self._where(entry.sequence)}: the map is not the one that the trailer names")
        return places

    async def _looked_for(self, entry: MapEntry, since: int) -> Places:
        """What the records between say themselves."""
        tracker, found = BlockTracker(self._archive, 0), Places()
        for sequence in range(since, entry.sequence):
            if sequence in self._map_sequences:
                continue
            try:
                record = await self._of_part(sequence)
                if record.header.kind is RecordKind.CONTAINER:
                    found.extend([place for place in tracker.feed(record) if place.block >= entry.first_block])
            except (errors.Damaged, errors.ProtocolViolation):
                # Its blocks are missing in the answer, which the caller counts.
                tracker.cut()
        return found

    async def _pieces(self, row: IndexRow) -> list[memoryview]:
        """Where the block lies, record by record."""
        pieces: list[memoryview] = []
        missing, offset, sequence = row.length, row.offset, row.container
        while missing:
            if sequence >= self.place.records:
                raise errors.Damaged(f"the part ends {missing} bytes before the block does")
            if sequence not in self._map_sequences:
                record = await self._of_part(sequence)
                if record.header.kind is RecordKind.MAP and self._scanned is not None:
                    # No trailer says which records are maps.
                    sequence += 1
                    continue
                if record.header.kind is not RecordKind.CONTAINER:
                    raise errors.Damaged(f"{self._where(sequence)}: not a container")
                piece = record.payload[offset : offset + missing]
                pieces.append(piece)
                missing -= len(piece)
                offset = 0
            sequence += 1
        return pieces

    def _check(self, row: IndexRow, block: memoryview) -> None:
        header = parse_header(block)
        if (header.archive_id, header.number, header.block_length) != (self._archive, row.block, row.length):
            raise errors.Damaged(f"{self._where(row.container)}: block {header.number} stands there instead")
        check_stored(header, block[len(header.raw) :])

    async def _of_part(self, sequence: int) -> Record:
        record = await self._records.record(self.place.position + sequence)
        header = record.header
        if (header.archive, header.part, header.sequence) != (self._archive, self.place.part, sequence):
            raise errors.Damaged(
                f"{self._where(sequence)}: the record is of part {header.part} of archive {header.archive.hex()}"
            )
        return record

    def _where(self, sequence: int) -> str:
        return f"cartridge {self._records.label.volume_tag}, object {self.place.position + sequence}"


def _row(place: BlockPlace) -> IndexRow:
    return IndexRow(place.block, place.sequence, place.offset, place.length, place.kind, place.flags)
