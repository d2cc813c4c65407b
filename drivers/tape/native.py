"""A native cartridge in a drive: labelled, opened, written and read. Implements ``rbcore.tape.session.CartridgeSession``.

What is written, and when, is decided by ``rbcore.tape.native_write``; here it is carried out, and what becomes of it is believed only as far as the drive
said so. A write that failed or was cancelled ends the writing: nobody knows how much of it is on the tape. Opening anew finds out.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import msgspec

from drivers.scsi.drive import Drive
from drivers.tape.beside import beside
from drivers.tape.identify import check_before_labelling
from drivers.tape.native_end import find_end
from drivers.tape.native_reader import NativePartReader
from drivers.tape.records import (
    MEMORY_BYTES,
    READ_THROUGH_BYTES,
    RecordReader,
    read_label_record,
    stand_at_beginning,
    use_variable_blocks,
)
from drivers.tape.scan import scan_cartridge
from rbcore import errors
from rbcore.archive.block import Buffer
from rbcore.tape.native import (
    RECORD_BYTES_MAX,
    RECORD_BYTES_MIN,
    RECORD_BYTES_UNIT,
    IndexRow,
    Label,
    PartHeader,
    decode_label,
)
from rbcore.tape.native_scan import Contents as Scanned
from rbcore.tape.native_write import AppendPoint, NativeWriter, Phase, WriteRecord
from rbcore.tape.session import (
    CartridgeFormat,
    Contents,
    Identified,
    LabelOrder,
    PartPlace,
    PartReader,
    PartStart,
    Written,
)
from rbcore.tape.vol1 import VOL1_BYTES

_Payload = TypeVar("_Payload", Label, PartHeader)
_OPEN_PHASES: Final = frozenset({Phase.PART, Phase.SPAN, Phase.ENDING})


async def open_native(
    drive: Drive,
    identified: Identified,
    *,
    capacity_bytes: int | None = None,
    memory_bytes: int = MEMORY_BYTES,
    read_through_bytes: int = READ_THROUGH_BYTES,
) -> NativeSession:
    """Find the parts of a labelled cartridge and the place to append.

    ``capacity_bytes``: writing stops when so many bytes are on the cartridge, for targets that report no end; early warning stops it in any case.
    ``memory_bytes``: of records that were passed, kept for slightly unordered reading. ``read_through_bytes``: how far ahead a record may be to be
    reached by reading. Raises ``PositionLost`` when the cartridge is not the one of ``identified``, ``Damaged`` when its label cannot be read,
    ``RefusedByDevice`` when its records are too long for the drive, and what is wrong with the drive.
    """
    await use_variable_blocks(drive)
    try:
        record = await read_label_record(drive)
        label = decode_label(record)
    except errors.ProtocolViolation as error:
        raise errors.Damaged(
            f"The label of cartridge {identified.volume_tag} cannot be read: {error.message}"
        ) from error
    cartridge, use = record.header.cartridge, record.header.use
    if (cartridge.hex(), use) != (identified.cartridge, identified.use):
        raise errors.PositionLost(
            f"{drive.name} holds {label.volume_tag}, not {identified.volume_tag} as before. Identify the cartridge again."
        )
    if record_bytes_for(label.record_bytes, (await drive.block_limits()).maximum_bytes) < label.record_bytes:
        raise errors.RefusedByDevice(
            f"{drive.name} cannot read records of {label.record_bytes} bytes, as cartridge {label.volume_tag} has. Use another drive."
        )
    records = RecordReader(
        drive, label, cartridge, use, memory_bytes=memory_bytes, read_through_bytes=read_through_bytes
    )
    append = await find_end(records, record)
    rows: Sequence[IndexRow]
    if append is None:
        scanned = await scan_cartridge(drive)
        append, rows = scanned.append, _rows(scanned)
    else:
        rows = append.rows
    writer = None if append is None else NativeWriter(append)
    return NativeSession(records, identified, writer, rows, capacity_bytes=capacity_bytes)


async def label_native(
    drive: Drive,
    order: LabelOrder,
    identified: Identified,
    *,
    record_bytes: int = RECORD_BYTES_MAX,
    capacity_bytes: int | None = None,
) -> NativeSession:
    """Label the cartridge; whatever it held is gone. A native one keeps its id and counts one use more, which disowns the records of before.

    ``identified`` is what the caller decided by: when the cartridge is not that any more, ``NotAllowedNow`` is raised and nothing written.
    Raises ``WriteProtected``, ``RefusedByDevice`` for a drive whose blocks are too short, ``UnsupportedByDevice`` when its partitions cannot be
    undone, ``InvalidRequest`` for texts that are too long, and what drives raise.
    """
    await check_before_labelling(drive, order, identified)
    limits = await drive.block_limits()
    length = record_bytes_for(record_bytes, limits.maximum_bytes)
    if length < RECORD_BYTES_MIN or limits.minimum_bytes > VOL1_BYTES:
        raise errors.RefusedByDevice(
            f"{drive.name} takes blocks of {limits.minimum_bytes} to {limits.maximum_bytes} bytes; native cartridges need 80 to "
            f"{RECORD_BYTES_MIN}. Use another drive."
        )
    label = _checked(
        Label(
            volume_tag=order.volume_tag,
            pool=order.pool,
            server=order.server,
            created_ns=order.created_ns,
            record_bytes=length,
            software=order.software,
        ),
        Label,
    )
    if identified.partitions > 1:
        await drive.format_medium()
    known = identified.contents is Contents.NATIVE
    cartridge = bytes.fromhex(identified.cartridge) if known else order.cartridge
    use = identified.use + 1 if known else 1
    writer = NativeWriter(AppendPoint.fresh(label, cartridge, use))
    facts = Identified(
        contents=Contents.NATIVE,
        volume_tag=label.volume_tag,
        cartridge=cartridge.hex(),
        use=use,
        server=label.server,
        pool=label.pool,
        detail=f"A native cartridge of pool {label.pool}, labelled {label.volume_tag}, use {use}.",
    )
    session = NativeSession(
        RecordReader(drive, label, cartridge, use), facts, writer, (), capacity_bytes=capacity_bytes
    )
    await session.write_label()
    return session


def record_bytes_for(wanted: int, maximum: int) -> int:
    """The longest records up to ``wanted`` that a drive takes whose longest block is ``maximum`` (0: it has no bound)."""
    bounded = min(wanted, maximum) if maximum else wanted
    return bounded // RECORD_BYTES_UNIT * RECORD_BYTES_UNIT


def _checked(value: _Payload, shape: type[_Payload]) -> _Payload:
    """What is written must be readable: bounds hold when reading. Raises ``InvalidRequest``."""
    try:
        return msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=shape)
    except msgspec.ValidationError as error:
        raise errors.InvalidRequest(f"This cannot stand on a native cartridge: {error}") from error


def _rows(scanned: Scanned) -> list[IndexRow]:
    return [
        IndexRow(part.position, part.archive, part.part, part.header, part.trailer, part.records)
        for part in scanned.parts
        if part.trailer is not None
    ]


def _place(row: IndexRow) -> PartPlace:
    trailer = row.trailer
    return PartPlace(
        part=row.part,
        position=row.position,
        records=row.records,
        first_block=trailer.first_block,
        last_block=trailer.last_block,
        blocks=trailer.blocks,
        stored_bytes=trailer.stored_bytes,
        final=trailer.final,
    )


class NativeSession:
    """See the module and the port. ``open_native`` and ``label_native`` make it."""

    format = CartridgeFormat.NATIVE

    def __init__(
        self,
        records: RecordReader,
        identified: Identified,
        writer: NativeWriter | None,
        rows: Sequence[IndexRow],
        *,
        capacity_bytes: int | None = None,
    ) -> None:
        """``writer`` None: there is no place to append. ``rows``: parts that were ended before."""
        self.identified = identified
        self._records, self._drive, self._writer = records, records.drive, writer
        self._rows = list(rows)
        """Ended, and known to be on the medium."""
        self._capacity_bytes = capacity_bytes
        self._written_bytes = sum(row.trailer.stored_bytes for row in rows)
        """Roughly what is on the cartridge: for ``capacity_bytes`` alone."""
        self._left_out = False
        """Blocks of the open part came after early warning: it cannot be the last of its archive."""
        self._failure = ""
        self._wrote = self._closed = False

    # --- state ---

    @property
    def why_not(self) -> str:
        tag = self._records.label.volume_tag
        if self.identified.write_protected:
            return f"Cartridge {tag} is write protected."
        if self._writer is None:
            return (
                f"Cartridge {tag} has no safe place to append: its end cannot be read, or something unreadable stands before it. "
                "It can be read, and be labelled again when nothing on it is needed."
            )
        if self._failure:
            return f"Writing cartridge {tag} failed: {self._failure} Open it again to find out what is on it."
        if self._closed:
            return f"The session of cartridge {tag} was closed."
        return f"Cartridge {tag} is full." if self._writer.full else ""

    @property
    def may_write(self) -> bool:
        return not self.why_not

    @property
    def full(self) -> bool:
        return self._writer is not None and self._writer.full

    @property
    def used_bytes(self) -> int:
        opened = self._writer.part_bytes if self._writer is not None and self.part_open else 0
        return sum(row.trailer.stored_bytes for row in self._rows) + opened

    @property
    def part_open(self) -> bool:
        return self._writer is not None and self._writer.phase in _OPEN_PHASES

    async def parts(self) -> list[tuple[bytes, PartPlace]]:
        return [(row.archive, _place(row)) for row in self._rows]

    # --- writing ---

    async def write_label(self) -> None:
        """What a fresh cartridge begins with, by ``label_native``."""
        await self._carry_out()

    async def begin_part(self, start: PartStart) -> None:
        if not self.may_write or self._writer is None or self.part_open:
            raise errors.NotAllowedNow(self.why_not or f"A part is open on cartridge {self._records.label.volume_tag}.")
        header = PartHeader(
            client=start.info.client,
            resource=start.info.resource,
            backup_type=start.info.backup_type,
            crypto=start.info.crypto,
            created_ns=start.info.created_ns,
            first_block=start.first_block,
            blocks_before=start.blocks_before,
            previous_tag=start.previous_tag,
            previous_cartridge=start.previous_cartridge,
        )
        self._left_out = False
        self._writer.begin(start.archive, start.part, _checked(header, PartHeader))
        await self._carry_out()

    async def write(self, blocks: Sequence[Buffer]) -> Written:
        writer = self._with_part()
        waiting = deque(blocks)
        trouble: errors.Damaged | errors.ProtocolViolation | None = None

        def make_next() -> None:
            """What takes the processor is done while the drive is busy with a record, and no further ahead than one."""
            nonlocal trouble
            try:
                while waiting and not writer.records_waiting and writer.phase is Phase.PART:
                    writer.add(waiting.popleft())
            except (errors.Damaged, errors.ProtocolViolation) as error:
                trouble = error
                waiting.clear()
            writer.seal_ahead()

        while waiting and writer.phase is Phase.PART:
            make_next()
            await self._carry_out(make_next)
        if trouble is not None:
            raise errors.ProtocolViolation(trouble.message) from trouble
        self._left_out |= bool(waiting)
        return self._written(writer.written_block)

    async def sync(self) -> Written:
        writer = self._with_part()
        writer.sync()
        await self._carry_out()
        if writer.phase is Phase.SPAN:
            # Early warning dropped what waited, the flush as well.
            writer.sync()
            await self._carry_out()
        return self._written(writer.durable_block)

    async def end_part(self, *, next_tag: str, ended_ns: int) -> PartPlace:
        writer = self._with_part()
        while writer.phase is not Phase.IDLE:
            # Early warning on the way drops what waited, the trailer as well: once more then, without that.
            writer.interrupt(next_tag, ended_ns)
            await self._carry_out()
        return self._ended()

    async def finish_part(self, *, root: bytes, ended_ns: int) -> PartPlace | None:
        writer = self._with_part()
        if writer.dropped or self._left_out:
            return None
        writer.finish(root, ended_ns)
        await self._carry_out()
        return self._ended() if writer.phase is Phase.IDLE else None

    async def forget(self, archives: frozenset[bytes]) -> int:
        return 0

    async def close(self) -> None:
        if self._closed:
            return
        if self.part_open:
            raise errors.NotAllowedNow(
                f"A part is open on cartridge {self._records.label.volume_tag}: end it before closing, or it is lost."
            )
        if self._writer is not None and self._wrote and not self._failure:
            self._writer.close()
            await self._carry_out()
        self._closed = True

    def _with_part(self) -> NativeWriter:
        if self._writer is None or not self.part_open:
            raise errors.NotAllowedNow(
                self.why_not or f"No part is open on cartridge {self._records.label.volume_tag}."
            )
        return self._writer

    def _written(self, last_block: int) -> Written:
        writer = self._with_part()
        return Written(last_block=last_block, full=writer.phase is not Phase.PART)

    def _ended(self) -> PartPlace:
        assert self._writer is not None, "a part was ended"
        self._rows.append(self._writer.rows[-1])
        return _place(self._rows[-1])

    async def _carry_out(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Write what the writer wants written. Whatever interrupts it, cancellation as well, ends the writing of this session.

        ``meanwhile`` is called for each record once the drive has been told to write it.
        """
        writer, drive = self._writer, self._drive
        assert writer is not None, "whoever writes has a writer"
        operation = writer.next()
        if operation is None:
            return
        try:
            await self._stand_to_write(writer)
            while operation is not None:
                if isinstance(operation, WriteRecord):
                    warned = await beside(functools.partial(drive.write, operation.data), meanwhile)
                    self._written_bytes += len(operation.data)
                else:
                    warned = await drive.write_filemarks(operation.count)
                writer.done(early_warning=warned or self._is_at_capacity(writer))
                operation = writer.next()
        except BaseException as error:
            writer.failed()
            self._failure = error.message if isinstance(error, errors.RbError) else "it was interrupted."
            raise

    async def _stand_to_write(self, writer: NativeWriter) -> None:
        """The tape is where the last write left it, or is brought there, and what stands before is what we know to stand there."""
        here = self._drive.counted_position
        if self._wrote and here is not None and (here.partition, here.object_number) == (0, writer.position):
            return
        if writer.position == 0:
            await stand_at_beginning(self._drive)
        else:
            await self._records.stand_behind(writer.position, writer.last_digest)
        self._records.forget_from(writer.position)
        self._wrote = True

    def _is_at_capacity(self, writer: NativeWriter) -> bool:
        if self._capacity_bytes is None:
            return False
        return self._written_bytes + writer.reserve_bytes >= self._capacity_bytes

    # --- reading ---

    def reader(self, archive: bytes, place: PartPlace) -> PartReader:
        known = [
            row.trailer
            for row in self._rows
            if (row.archive, row.part, row.position, row.records)
            == (archive, place.part, place.position, place.records)
        ]
        return NativePartReader(self._records, archive, place, known[0] if known else None)
