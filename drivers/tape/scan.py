"""Reading a native cartridge from its beginning, without its server: for catalogues that are lost, and for cartridges that are damaged.

What the objects mean is ``rbcore.tape.native_scan``; here is how they are got, and how not to read what need not be read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from drivers.scsi.drive import LOCATE_10, LOCATE_16, Drive, Found, ReadResult
from drivers.tape.records import stand_at_beginning, use_variable_blocks
from rbcore import errors
from rbcore.tape.native import LABEL_POSITION, MAGIC, RECORD_BYTES_MAX, RecordKind, decode_label, parse_record
from rbcore.tape.native_scan import Contents, NativeScanner

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the position and the bytes read so far."""

UNREADABLE_MAX: Final = 64
"""Unreadable objects in a row after which the rest is given up: a drive may try each for minutes."""
_KIND_OFFSET: Final = 5


async def scan_cartridge(drive: Drive, *, quick: bool = True, progress: Progress | None = None) -> Contents:
    """What the loaded cartridge tells. The tape stands anywhere afterwards.

    ``quick``: containers of ended parts are passed over where the drive can do that (it says where it stands, and locates); other drives, and parts
    without a trailer, are read whole. Otherwise every record is read and checked. What cannot be read is among the findings; raised is what is
    wrong with the drive: ``Unavailable``, ``HardwareFailed``, ``PositionLost``.
    """
    await use_variable_blocks(drive)
    await stand_at_beginning(drive)
    return await _Scan(drive, quick, progress).run()


class _Scan:
    def __init__(self, drive: Drive, quick: bool, progress: Progress | None) -> None:
        self._drive, self._progress = drive, progress
        self._scanner = NativeScanner()
        self._record_bytes = RECORD_BYTES_MAX
        self._bytes = 0
        self._passes_over = quick and not (drive.lacks(LOCATE_10) and drive.lacks(LOCATE_16))

    async def run(self) -> Contents:
        unreadable = 0
        while unreadable < UNREADABLE_MAX:
            position = self._scanner.position
            if self._progress is not None:
                self._progress(position, self._bytes)
            try:
                result = await self._drive.read(self._record_bytes)
            except errors.TooLarge as error:
                # The tape stands behind it.
                self._scanner.unreadable(error.message)
                continue
            except errors.MediumFailed as error:
                self._scanner.unreadable(error.message)
                unreadable += 1
                if not await self._went_to(position + 1):
                    return self._scanner.end(at_end_of_data=False)
                continue
            unreadable = 0
            if result.found is Found.END_OF_DATA:
                return self._scanner.end(at_end_of_data=True)
            if result.found is Found.FILEMARK:
                self._scanner.filemark()
            else:
                await self._take(position, result)
        return self._scanner.end(at_end_of_data=False)

    async def _went_to(self, position: int) -> bool:
        try:
            await self._drive.locate(position)
        except (errors.NotFound, errors.MediumFailed):
            return False
        return True

    async def _take(self, position: int, result: ReadResult) -> None:
        data = result.data
        self._bytes += len(data)
        self._scanner.record(data)
        kind = data[_KIND_OFFSET] if data[: len(MAGIC)] == MAGIC else 0
        if position == LABEL_POSITION and kind == RecordKind.LABEL:
            try:
                # Asking for exactly what comes spares drives the answer that it was shorter.
                self._record_bytes = decode_label(parse_record(data)).record_bytes
            except (errors.Damaged, errors.ProtocolViolation):
                # The scanner has noted it; records of any length are read.
                self._record_bytes = RECORD_BYTES_MAX
        elif kind == RecordKind.ARCHIVE and self._passes_over:
            await self._pass_over(position, data)

    async def _pass_over(self, header_position: int, header_data: bytes) -> None:
        """From behind an archive header to its trailer; where that is not found at once the tape stands behind the header again."""
        try:
            header = parse_record(header_data).header
            found = await self._drive.space_filemarks(1)
            there = await self._drive.position()
            if there is None:
                self._passes_over = False
            elif found.found is Found.BLOCK and there.object_number - 2 > header_position:
                position = there.object_number - 2
                # The record before the trailer proves that the trailer continues this part.
                await self._drive.locate(position - 1)
                before = await self._drive.read(self._record_bytes)
                result = await self._drive.read(self._record_bytes)
                last, digest = parse_record(result.data).header, parse_record(before.data).digest
                if (last.kind, last.archive, last.part, last.position, last.sequence, last.previous) == (
                    RecordKind.TRAILER,
                    header.archive,
                    header.part,
                    position,
                    position - header_position,
                    digest,
                ):
                    self._bytes += len(before.data) + len(result.data)
                    if position - 1 > header_position:
                        self._scanner.skip_to(position - 1)
                        self._scanner.record(before.data)
                    self._scanner.record(result.data)
                    return
        except (errors.Damaged, errors.ProtocolViolation, errors.NotFound, errors.TooLarge):
            # No trailer where one should be: the part is read, which finds what there is.
            pass
        await self._drive.locate(header_position + 1)
