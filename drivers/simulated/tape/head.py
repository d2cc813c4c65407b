"""Where a loaded tape stands, and every command that moves it: positions after each condition as SSC-3 and LTO drives have them.

Methods return the seconds that it takes (and data); what ends a command otherwise is raised as ``CheckCondition``, after the position
was changed, with the seconds and the data up to there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from drivers.simulated.tape import sense as s
from drivers.simulated.tape.generations import Generation
from drivers.simulated.tape.mechanics import Mechanics, metres_from_beginning, metres_run
from drivers.simulated.tape.medium import Cartridge
from drivers.simulated.tape.partition import FILEMARK, Partition
from rbcore.errors import Damaged

BLOCKS, FILEMARKS, SEQUENTIAL_FILEMARKS, END_OF_DATA = 0, 1, 2, 3
"""Codes of SPACE."""


class Meters(msgspec.Struct):
    """What a drive has done in its life."""

    bytes_written: int = 0
    bytes_read: int = 0
    records_written: int = 0
    records_read: int = 0
    filemarks_written: int = 0
    metres: float = 0.0
    write_errors: int = 0
    read_errors: int = 0


class Head:
    """A cartridge threaded into a drive, at partition and object number."""

    def __init__(
        self,
        cartridge: Cartridge,
        drive: Generation,
        mechanics: Mechanics,
        meters: Meters,
        *,
        buffer_bytes: int,
        before_record: Callable[[], None],
    ) -> None:
        """``before_record`` is called before each record that is written; it may raise: the drive dies."""
        self.cartridge = cartridge
        self.partition = 0
        self.position = 0
        self.mounted_with = (cartridge.card.bytes_written, cartridge.card.bytes_read)
        self._drive = drive
        self._mechanics = mechanics
        self._meters = meters
        self._buffer_bytes = buffer_bytes
        self._before_record = before_record

    def __repr__(self) -> str:
        return f"<Head at object {self.position} of partition {self.partition} on {self.cartridge.card.barcode}>"

    @property
    def tape(self) -> Partition:
        return self.cartridge.partitions[self.partition]

    @property
    def is_at_beginning(self) -> bool:
        return self.position == 0

    @property
    def is_past_early_warning(self) -> bool:
        return self.tape.is_past_early_warning(self.position)

    @property
    def metres(self) -> float:
        """How far from the beginning of the tape."""
        return metres_from_beginning(
            self.cartridge.generation, self.tape.wrap_bytes, self.tape.start_bytes(self.position)
        )

    # --- motion ---

    def rewind(self) -> float:
        """To the beginning of the present partition."""
        self.cartridge.flush()
        metres = self.metres
        self.position = 0
        self._run(metres)
        return self._mechanics.rewind_seconds(self._drive, metres)

    def locate(self, partition: int, number: int) -> float:
        """To object ``number``; 8/00/05 at the end of data when there are not so many."""
        tape = self._choose(partition)
        seconds = self._go(partition, min(number, len(tape)))
        if number > len(tape):
            raise s.CheckCondition(s.end_of_data(0), seconds=seconds)
        return seconds

    def locate_filemark(self, partition: int, number: int) -> float:
        """Before the filemark with this ordinal, from 0: SSC's logical file identifier."""
        tape = self._choose(partition)
        found = tape.filemark(number)
        seconds = self._go(partition, len(tape) if found is None else found)
        if found is None:
            raise s.CheckCondition(s.end_of_data(0), seconds=seconds)
        return seconds

    def locate_end_of_data(self, partition: int) -> float:
        return self._go(partition, len(self._choose(partition)))

    def space(self, code: int, count: int) -> float:
        """SPACE; negative is towards the beginning. Stops where SSC says, with the residue."""
        if code == END_OF_DATA:
            return self.locate_end_of_data(self.partition)
        if count == 0:
            return 0.0
        self.cartridge.flush()
        target, ended = (self._blocks if code == BLOCKS else self._filemarks)(count)
        seconds = self._go(self.partition, target)
        if ended is not None:
            raise s.CheckCondition(ended, seconds=seconds)
        return seconds

    def _blocks(self, count: int) -> tuple[int, s.Sense | None]:
        tape, here = self.tape, self.position
        before = tape.filemarks_before(here)
        target = here + count
        if count > 0:
            mark = tape.filemark(before)
            if mark is not None and mark < target:
                return mark + 1, s.filemark_detected(count - (mark - here))
            if target > len(tape):
                return len(tape), s.end_of_data(target - len(tape))
            return target, None
        mark = tape.filemark(before - 1)
        if mark is not None and mark >= target:
            return mark, s.filemark_detected(-count - (here - mark - 1))
        if target < 0:
            return 0, s.beginning_of_partition(-target)
        return target, None

    def _filemarks(self, count: int) -> tuple[int, s.Sense | None]:
        tape = self.tape
        before = tape.filemarks_before(self.position)
        if count > 0:
            mark = tape.filemark(before + count - 1)
            if mark is None:
                there = tape.filemarks_before(len(tape)) - before
                return len(tape), s.end_of_data(count - there)
            return mark + 1, None
        mark = tape.filemark(before + count)
        if mark is None:
            return 0, s.beginning_of_partition(-count - before)
        return mark, None

    # --- data ---

    def read_variable(self, length: int, *, silent: bool, block_bytes: int) -> tuple[bytes, float]:
        """One record; ``block_bytes`` is the block length of the mode parameters, which decides what ``silent`` (SILI) hides."""
        record, seconds = self._read_one(length, 0.0, b"")
        if len(record) != length and not (silent and (len(record) < length or block_bytes == 0)):
            wrong = s.incorrect_length(length - len(record))
            raise s.CheckCondition(wrong, data=record[:length], seconds=seconds)
        return record[:length], seconds

    def read_fixed(self, count: int, block_bytes: int) -> tuple[bytes, float]:
        """``count`` records of ``block_bytes`` each; one of another length ends it, behind that record."""
        data = bytearray()
        seconds = 0.0
        for done in range(count):
            record, seconds = self._read_one(count - done, seconds, data)
            if len(record) != block_bytes:
                raise s.CheckCondition(s.incorrect_length(count - done), data=bytes(data), seconds=seconds)
            data += record
        return bytes(data), seconds

    def _read_one(self, residue: int, seconds: float, data: bytes | bytearray) -> tuple[bytes, float]:
        self.cartridge.flush()
        tape, card, number = self.tape, self.cartridge.card, self.position
        if number == len(tape):
            raise s.CheckCondition(s.end_of_data(residue), data=bytes(data), seconds=seconds)
        self.position += 1
        if tape.size(number) == FILEMARK:
            raise s.CheckCondition(s.filemark_detected(residue), data=bytes(data), seconds=seconds)
        size = tape.size(number)
        seconds += self._mechanics.transfer_seconds(self._drive, self.cartridge.generation, size)
        self._run(metres_run(self.cartridge.generation, tape.wrap_bytes, size))
        try:
            record = self.cartridge.read(self.partition, number)
        except Damaged:
            self._meters.read_errors += 1
            failed = msgspec.structs.replace(s.READ_ERROR, information=residue)
            raise s.CheckCondition(failed, data=bytes(data), seconds=seconds) from None
        card.bytes_read += size
        self._meters.bytes_read += size
        self._meters.records_read += 1
        return record, seconds

    def write(self, blocks: Sequence[bytes], residues: Sequence[int]) -> float:
        """Write records; ``residues[n]`` is what the information field says when block ``n`` was not written."""
        seconds = 0.0
        for block, residue in zip(blocks, residues, strict=True):
            self._before_record()
            self._must_append(residue, seconds)
            damages = self.cartridge.card.damages
            if damages.writes_left == 0:
                self.cartridge.flush()
                self._meters.write_errors += 1
                raise s.CheckCondition(msgspec.structs.replace(s.WRITE_ERROR, information=residue), seconds=seconds)
            self._put(block, residue, seconds)
            if damages.writes_left is not None:
                damages.writes_left -= 1
            size = len(block)
            self.cartridge.card.bytes_written += size
            self._meters.bytes_written += size
            self._meters.records_written += 1
            self._run(metres_run(self.cartridge.generation, self.tape.wrap_bytes, size))
            seconds += self._mechanics.transfer_seconds(self._drive, self.cartridge.generation, size)
        if self.tape.unwritten_bytes > self._buffer_bytes:
            self.cartridge.flush()
        self._warn(seconds)
        return seconds

    def write_filemarks(self, count: int, *, immediate: bool) -> float:
        """``count`` 0: only bring the buffer to the tape."""
        for done in range(count):
            self._must_append(count - done, 0.0)
            self._put(None, count - done, 0.0)
            self._meters.filemarks_written += 1
        if not immediate:
            self.cartridge.flush()
        if count:
            self._warn(0.0)
        return 0.0

    def erase(self, *, is_long: bool) -> float:
        """From here to the end of the partition; the position stays. Short: an end of data, long: the surface, too."""
        if self.cartridge.is_worm:
            raise s.CheckCondition(s.WORM_OVERWRITE)
        tape = self.tape
        room = tape.capacity_bytes - tape.start_bytes(self.position)
        tape.cut(self.position)
        self.cartridge.heal(self.partition, self.position)
        self.cartridge.flush()
        if not is_long:
            return 0.0
        self._run(metres_run(self.cartridge.generation, tape.wrap_bytes, room))
        nominal = room / self.cartridge.card.capacity_bytes * self.cartridge.generation.capacity_bytes
        return self._mechanics.transfer_seconds(self._drive, self.cartridge.generation, round(nominal))

    def format(self, partition_wraps: list[int]) -> float:
        """FORMAT MEDIUM, from the beginning of partition 0 only."""
        if self.partition or self.position:
            raise s.CheckCondition(s.NOT_AT_BEGINNING)
        if self.cartridge.is_worm:
            raise s.CheckCondition(s.WORM_OVERWRITE)
        self.cartridge.format(partition_wraps)
        return self._mechanics.locate_seconds(self._drive, 2.0 * self.cartridge.generation.length_metres)

    # --- behind them ---

    def _must_append(self, residue: int, seconds: float) -> None:
        if self.cartridge.is_worm and self.position < len(self.tape):
            overwriting = msgspec.structs.replace(s.WORM_OVERWRITE, information=residue)
            raise s.CheckCondition(overwriting, seconds=seconds)

    def _put(self, record: bytes | None, residue: int, seconds: float) -> None:
        size = FILEMARK if record is None else len(record)
        if not self.tape.fits(self.position, size):
            self.cartridge.flush()
            raise s.CheckCondition(s.end_of_medium(residue), seconds=seconds)
        self.cartridge.heal(self.partition, self.position)
        self.tape.put(self.position, record)
        self.position += 1

    def _warn(self, seconds: float) -> None:
        if self.is_past_early_warning:
            raise s.CheckCondition(s.early_warning(), seconds=seconds)

    def _choose(self, partition: int) -> Partition:
        if partition >= len(self.cartridge.partitions):
            raise s.CheckCondition(s.invalid_field(8))
        self.cartridge.flush()
        return self.cartridge.partitions[partition]

    def _go(self, partition: int, position: int) -> float:
        here = self.metres
        self.partition, self.position = partition, position
        metres = abs(self.metres - here)
        self._run(metres)
        return self._mechanics.locate_seconds(self._drive, metres)

    def _run(self, metres: float) -> None:
        self._meters.metres += metres
        self.cartridge.card.metres += metres
