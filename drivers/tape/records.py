"""Objects of a native cartridge by their position: where the tape goes for them, what is remembered of what passed, and that each belongs.

Tapes stream forward and hate going back. So what was passed is remembered for a while, what lies a little ahead is read through, and only the rest is
located. Nothing here trusts the drive: a record says itself whose it is and where it stands (``docs/format-tape.md``).
"""

from __future__ import annotations

import functools
import itertools
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, Generic, TypeVar

from drivers.scsi.drive import Drive, Found, ReadResult
from drivers.tape.beside import beside
from rbcore import errors
from rbcore.tape.native import RECORD_BYTES_MAX, Label, Record, parse_record

K = TypeVar("K")
V = TypeVar("V")

MEMORY_BYTES: Final = 64 * 1024 * 1024
READ_THROUGH_BYTES: Final = 64 * 1024 * 1024
"""A locate takes seconds, in which a drive reads some hundred megabytes."""


async def use_variable_blocks(drive: Drive) -> None:
    """Records are blocks of any length. A drive that was reset, or belonged to another program, may have a fixed length."""
    header = await drive.mode_page(0x3F, block_descriptors=True)
    if drive.block_bytes or (len(header) >= 12 and header[3] >= 8 and any(header[9:12])):
        await drive.set_block_bytes(0)


async def stand_at_beginning(drive: Drive) -> None:
    """Before the first object of partition 0, wherever the tape was."""
    position = await drive.position()
    await (drive.locate(0, 0) if position is not None and position.partition else drive.rewind())


async def read_label_record(drive: Drive) -> Record:
    """The record behind VOL1, whole; whose it is, is for the caller to say. Raises ``Damaged``, ``MediumFailed``, ``ProtocolViolation``."""
    await stand_at_beginning(drive)
    try:
        first = await drive.read(RECORD_BYTES_MAX)
        if first.found is not Found.BLOCK:
            raise errors.Damaged("the cartridge does not begin with a record")
    except (errors.MediumFailed, errors.TooLarge):
        # VOL1 follows from the label: its loss is no loss.
        await drive.locate(1)
    try:
        found = await drive.read(RECORD_BYTES_MAX)
    except errors.TooLarge as error:
        raise errors.Damaged(f"no native label: {error.message}") from error
    if found.found is not Found.BLOCK:
        raise errors.Damaged("nothing stands where the label should")
    return parse_record(found.data)


class Passed(Generic[K, V]):
    """What passed the head lately, by its place: at most so many bytes, what passed first goes first."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._kept: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def get(self, place: K) -> V | None:
        kept = self._kept.get(place)
        return None if kept is None else kept[0]

    def remember(self, place: K, value: V, length: int) -> None:
        self.forget(place)
        self._kept[place] = (value, length)
        self._bytes += length
        while self._bytes > self._bytes_max and self._kept:
            self._bytes -= self._kept.popitem(last=False)[1][1]

    def forget(self, place: K) -> None:
        if place in self._kept:
            self._bytes -= self._kept.pop(place)[1]

    def places(self) -> list[K]:
        return list(self._kept)


class RecordReader:
    """Objects of one cartridge. One task at a time."""

    def __init__(
        self,
        drive: Drive,
        label: Label,
        cartridge: bytes,
        use: int,
        *,
        memory_bytes: int = MEMORY_BYTES,
        read_through_bytes: int = READ_THROUGH_BYTES,
    ) -> None:
        self.drive, self.label, self.cartridge, self.use = drive, label, cartridge, use
        self._read_through_bytes = read_through_bytes
        self._passed = Passed[int, Record](memory_bytes)
        self._ahead_max = memory_bytes // 2 // label.record_bytes
        self._failed: tuple[int, errors.Damaged] | None = None
        """What ``take_ahead`` met, for whoever asks for that object."""

    async def look(self, position: int) -> Record | None:
        """The record at ``position``; None when a filemark stands there.

        Raises ``MediumFailed`` when the drive cannot read it, ``Damaged`` when it reads something else or nothing is there, and what drives
        raise. Whatever it was, another call may follow.
        """
        known = self._passed.get(position)
        if known is not None:
            return known
        failed, self._failed = self._failed, None
        if failed is not None and failed[0] == position:
            raise failed[1]
        for is_last in (False, True):
            try:
                await self._stand_before(position)
                return await self._take(position)
            except errors.PositionLost:
                # Reset, or another cartridge: the tape is found again, and what does not belong shows.
                if is_last:
                    raise
                await use_variable_blocks(self.drive)
        raise AssertionError("the loop returns or raises")

    async def record(self, position: int) -> Record:
        """As ``look``; a filemark is ``Damaged``, too."""
        found = await self.look(position)
        if found is None:
            raise self._damaged(position, "a filemark stands there, not a record")
        return found

    async def take_ahead(self, positions: Iterable[int]) -> None:
        """Read these objects, in ascending order, for ``look`` to find: each is judged while the drive reads the next. No more than are remembered; ends
        early at what cannot be read, and who asks for that one is told."""
        read: list[tuple[int, ReadResult]] = []
        failed: list[tuple[int, errors.Damaged]] = []

        def judge() -> None:
            for position, result in read:
                try:
                    self._judge(position, result)
                except errors.Damaged as error:
                    failed.append((position, error))
            read.clear()

        for position in itertools.islice(positions, self._ahead_max):
            if self._passed.get(position) is not None:
                continue
            try:
                await self._stand_before(position)
                result = await beside(functools.partial(self._read_object, position), judge)
            except errors.Damaged as error:
                failed.append((position, error))
            except errors.PositionLost:
                break
            else:
                read.append((position, result))
            if failed:
                break
        judge()
        self._failed = failed[0] if failed else None

    def forget_from(self, position: int) -> None:
        """What stood there is about to be overwritten."""
        self._failed = None
        for known in self._passed.places():
            if known >= position:
                self._passed.forget(known)

    async def stand_behind(self, position: int, digest: bytes) -> None:
        """Stand before ``position`` and make sure that the record there before (a filemark may be between) is the one with ``digest``.

        Whoever writes next would otherwise find out too late that this is another cartridge, or that the drive counts differently.
        Raises ``PositionLost`` when it is not.
        """
        try:
            await self.drive.locate(position - 2, 0)
            try:
                before = [await self._read()]
            except errors.MediumFailed:
                await self.drive.locate(position - 1, 0)
                before = []
            before.append(await self._read())
        except (errors.NotFound, errors.TooLarge) as error:
            raise self._elsewhere(position) from error
        last = before[-1] if before[-1].found is not Found.FILEMARK else before[0]
        told = await self.drive.position()
        try:
            stands = last.found is Found.BLOCK and parse_record(last.data).digest == digest
        except (errors.Damaged, errors.ProtocolViolation):
            stands = False
        if not stands or told is None or told.object_number != position:
            raise self._elsewhere(position)

    def _elsewhere(self, position: int) -> errors.PositionLost:
        return errors.PositionLost(
            f"{self.drive.name}: before object {position} does not stand what was written there on cartridge "
            f"{self.label.volume_tag}, so nothing is written. Look which cartridge is in the drive, and open it anew."
        )

    async def _read(self) -> ReadResult:
        return await self.drive.read(self.label.record_bytes)

    async def _stand_before(self, position: int) -> None:
        counted = self.drive.counted_position
        here = None if counted is None or counted.partition else counted.object_number
        if here is None or not 0 <= (position - here) * self.label.record_bytes <= self._read_through_bytes:
            await self._locate(position)
            return
        for between in range(here, position):
            try:
                await self._take(between)
            except errors.Damaged:
                # Nobody asked for this one; whoever does will be told.
                if self.drive.counted_position is None:
                    await self._locate(position)
                    return

    async def _locate(self, position: int) -> None:
        try:
            await self.drive.locate(position, 0)
        except errors.NotFound as error:
            raise self._damaged(position, "the data on the cartridge ends before it") from error

    async def _take(self, position: int) -> Record | None:
        """The object that comes next."""
        return self._judge(position, await self._read_object(position))

    async def _read_object(self, position: int) -> ReadResult:
        try:
            return await self._read()
        except errors.MediumFailed as error:
            raise errors.MediumFailed(
                f"cartridge {self.label.volume_tag}, object {position}: {error.message}", data=error.data
            ) from error
        except errors.TooLarge as error:
            raise self._damaged(position, "a record longer than the label allows") from error

    def _judge(self, position: int, result: ReadResult) -> Record | None:
        """What was read at ``position``, if it belongs there; remembered."""
        if result.found is Found.FILEMARK:
            return None
        if result.found is Found.END_OF_DATA:
            raise self._damaged(position, "the data on the cartridge ends before it")
        try:
            record = parse_record(result.data)
        except (errors.Damaged, errors.ProtocolViolation) as error:
            raise self._damaged(position, error.message) from error
        header = record.header
        if (header.cartridge, header.use, header.position) != (self.cartridge, self.use, position):
            raise self._damaged(
                position,
                f"the record is of cartridge {header.cartridge.hex()}, use {header.use}, position {header.position}, "
                f"not of {self.cartridge.hex()}, use {self.use}",
            )
        self._passed.remember(position, record, len(record.payload))
        return record

    def _damaged(self, position: int, what: str) -> errors.Damaged:
        return errors.Damaged(f"cartridge {self.label.volume_tag}, object {position}: {what}")
