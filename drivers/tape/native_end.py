"""Where a native cartridge ends: its parts, and the place to append, found from its end of data backwards.

Each record says in which group it stands, and each group how it joins the one before. So it is enough to go back from the end of data, group by group, to
the last index, which names the rest: after an orderly end that is the first thing met, after a crash a few groups lie behind it.
Whatever is not as it should be there makes ``find_end`` answer None: then the cartridge is scanned from its beginning, which decides.
"""

from __future__ import annotations

from typing import Literal

from drivers.tape.records import RecordReader
from rbcore import errors
from rbcore.tape.native import (
    FIRST_GROUP_POSITION,
    INDEX_BYTES_MAX,
    LABEL_POSITION,
    PARTS_MAX,
    IndexRow,
    Record,
    RecordKind,
    decode_label,
    decode_part_header,
    decode_trailer,
)
from rbcore.tape.native_scan import append_after_index
from rbcore.tape.native_write import AppendPoint


def _unexpected(records: RecordReader) -> errors.Damaged:
    return errors.Damaged(f"cartridge {records.label.volume_tag} does not end as a session, or its crash, leaves it")


async def find_end(records: RecordReader, label: Record) -> AppendPoint | None:
    """The place behind the last finished group, with all ended parts; an unfinished part behind it is not taken up.

    ``label`` is the label record as read. None: only a scan can tell. Raises what is wrong with the drive.
    """
    try:
        end = (await records.drive.space_to_end()).object_number
        return await _Walk(records, label).back_from(end)
    except (errors.Damaged, errors.ProtocolViolation, errors.NotFound, errors.TooLarge):
        return None


class _Walk:
    def __init__(self, records: RecordReader, label: Record) -> None:
        self._records, self._label = records, label
        self._rows: list[IndexRow] = []
        """From the last part to the first."""
        self._last: Record | None = None
        """Last record of the last finished group."""
        self._marked = False
        """A filemark stands behind it."""

    async def back_from(self, end: int) -> AppendPoint:
        position, marked = await self._tail(end)
        while True:
            record = await self._records.record(position)
            kind, sequence = record.header.kind, record.header.sequence
            is_end = kind in (RecordKind.LABEL, RecordKind.TRAILER) or (
                kind is RecordKind.INDEX and sequence == record.header.count - 1
            )
            if is_end and self._last is None:
                self._last, self._marked = record, marked
            elif not is_end and (marked or self._last is not None):
                raise _unexpected(self._records)
            if kind is RecordKind.LABEL:
                return self._append([])
            if is_end and kind is RecordKind.INDEX and marked:
                return self._append(await self._index_of(record))
            first = await self._first_of(record)
            if is_end and kind is RecordKind.INDEX:
                return self._append(await self._index_of(record))
            if is_end:
                # What was overwritten by a part of the same name, and came back in a crash, does not continue it.
                if (await self._records.record(record.header.position - 1)).digest != record.header.previous:
                    raise _unexpected(self._records)
                if len(self._rows) >= PARTS_MAX:
                    raise _unexpected(self._records)
                self._rows.append(_row(first, record))
            position, marked = first.header.position - 2, True

    async def _tail(self, end: int) -> tuple[int, bool]:
        """Position of the last record, and whether a filemark stands behind it. The very last object may be what a crash left."""
        before = await self._glance(end - 2)
        for last, found in ((end - 1, await self._glance(end - 1)), (end - 2, before)):
            if last >= LABEL_POSITION and found != "damaged":
                return (last, False) if found == "record" else (last - 1, True)
        raise _unexpected(self._records)

    async def _glance(self, position: int) -> Literal["record", "filemark", "damaged"]:
        try:
            return "filemark" if await self._records.look(position) is None else "record"
        except errors.Damaged:
            return "damaged"

    async def _first_of(self, record: Record) -> Record:
        """First record of the group. On the way, so that the tape runs forward: the end of the group before, and the filemark between."""
        header = record.header
        position = header.position - header.sequence
        if position < FIRST_GROUP_POSITION:
            raise _unexpected(self._records)
        before = await self._records.record(position - 2)
        if await self._records.look(position - 1) is not None:
            raise _unexpected(self._records)
        first = await self._records.record(position)
        if first.header.previous != before.digest:
            raise _unexpected(self._records)
        expected = RecordKind.INDEX if header.kind is RecordKind.INDEX else RecordKind.ARCHIVE
        if (first.header.kind, first.header.sequence, first.header.archive, first.header.part) != (
            expected,
            0,
            header.archive,
            header.part,
        ):
            raise _unexpected(self._records)
        return first

    async def _index_of(self, last: Record) -> list[IndexRow]:
        begin = last.header.position - last.header.sequence
        index: list[Record] = []
        length = 0
        for number in range(last.header.count):
            record = await self._records.record(begin + number)
            length += len(record.payload)
            if length > INDEX_BYTES_MAX:
                raise errors.ProtocolViolation(f"index of more than {INDEX_BYTES_MAX} bytes")
            index.append(record)
        return list(append_after_index(self._label, index).rows)

    def _append(self, rows: list[IndexRow]) -> AppendPoint:
        assert self._last is not None, "a finished group was met, the label at the latest"
        header = self._last.header
        return AppendPoint(
            label=decode_label(self._label),
            cartridge=self._records.cartridge,
            use=self._records.use,
            position=header.position + 1 + int(self._marked),
            previous=self._last.digest,
            filemark_missing=not self._marked,
            rows=rows + self._rows[::-1],
            indexed=header.kind is RecordKind.INDEX,
        )


def _row(first: Record, trailer: Record) -> IndexRow:
    return IndexRow(
        first.header.position,
        first.header.archive,
        first.header.part,
        decode_part_header(first),
        decode_trailer(trailer),
        trailer.header.sequence,
    )
