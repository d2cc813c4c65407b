"""A tape drive's command set (SSC-5): moving, reading, writing.

Positions are logical object numbers: blocks and filemarks count alike, from 0 at the beginning of a partition. Drives differ in
what they can say and do about them, so a drive is probed (``probe``), and what it lacks is replaced:

- Where READ POSITION does not know, objects are counted here, from the last known point forward.
- Where there is no LOCATE, the tape is rewound and spaced forward by count. SPACE counts objects in drives that run over
  filemarks and stops behind each in those that follow the standard; both come out at the same object.
- Where SPACE does not say how far it came, the end of data is found by galloping.
- SPACE backward is not used at all: implementations disagree on where it ends.

Early warning is what a write returns, never an error: the data is on the tape. Some drives never report a physical end, so
whoever writes stops at early warning by itself.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Awaitable, Iterator, Sequence
from typing import Final

import msgspec

from drivers.scsi.drive_pages import DrivePages
from drivers.scsi.sense import Attention, Condition
from drivers.scsi.unit import HARMLESS_ATTENTIONS, Identity, Outcome
from rbcore import errors
from rbcore.scsi import ScsiTransport

TRANSFER_SECONDS_MAX: Final = 900.0
"""A drive that retries a bad spot with its buffer full."""
MOTION_SECONDS_MAX: Final = 1800.0
"""From one end of a long tape to the other, with retries."""
LOAD_SECONDS_MAX: Final = 3 * 3600.0
"""LTO-9 measures a new cartridge at its first load: up to two hours."""
UNLOAD_SECONDS_MAX: Final = 900.0
ERASE_LONG_SECONDS_MAX: Final = 36 * 3600.0
SPACE_COUNT_MAX: Final = 0x7FFFFF
TRANSFER_MAX: Final = 0xFFFFFF
GALLOP_START: Final = 64

READ_6, WRITE_6, WRITE_FILEMARKS_6, SPACE_6, REWIND, ERASE = 0x08, 0x0A, 0x10, 0x11, 0x01, 0x19
LOCATE_10, LOCATE_16, READ_POSITION, READ_BLOCK_LIMITS, LOAD_UNLOAD = 0x2B, 0x92, 0x34, 0x05, 0x1B
FORMAT_MEDIUM: Final = 0x04


class Found(enum.StrEnum):
    """What a read or a motion met."""

    BLOCK = "block"
    """Read: data. Motion: nothing in the way, it went as far as asked."""
    FILEMARK = "filemark"
    """The tape stands behind it."""
    END_OF_DATA = "end_of_data"


class ReadResult(msgspec.Struct, frozen=True, kw_only=True):
    found: Found
    data: bytes = b""
    """In fixed mode the blocks before a filemark or the end of data come with it."""


class Motion(msgspec.Struct, frozen=True, kw_only=True):
    found: Found
    moved: int | None
    """Blocks or filemarks passed, without the filemark that stopped it; None when the drive does not say."""


class Position(msgspec.Struct, frozen=True, kw_only=True):
    partition: int
    object_number: int
    file_number: int | None = None
    """Filemarks between the beginning of the partition and here, where known."""


class BlockLimits(msgspec.Struct, frozen=True):
    minimum_bytes: int
    maximum_bytes: int


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What ``probe`` found out. Commands that turn out to be missing later are remembered as well (``Drive.lacks``)."""

    identity: Identity
    block_limits: BlockLimits
    lists_commands: bool
    locates: bool | None
    """LOCATE(10) or (16); otherwise emulated. This and the next two are None where only trying tells, which would move or erase the tape."""
    erases: bool | None
    formats: bool | None
    compression: bool
    partitions_max: int
    tape_alert: bool
    volume_statistics: bool
    cartridge_memory: bool
    encryption: bool


class Drive(DrivePages):
    """Commands of one drive. It has one owner: two hands on one tape cannot both know where it stands."""

    def __init__(self, transport: ScsiTransport) -> None:
        super().__init__(transport)
        self.block_bytes = 0
        """Fixed block length; 0 in variable mode."""
        self._lost = True
        """The tape may stand anywhere, and may be another one."""
        self._partition = 0
        self._partition_lost = False
        """It was another one than 0, and a reset may have changed that."""
        self._object: int | None = None
        self._file: int | None = None

    # --- what it has ---

    async def probe(self) -> Capabilities:
        """Find out what the drive has. Works without a cartridge; then what depends on the cartridge (partitions) counts as absent."""
        identity = await self.identity()
        await self.find_commands()
        with contextlib.suppress(errors.Unavailable, errors.NoCartridge):
            await self.test_unit_ready()
        return Capabilities(
            identity=identity,
            block_limits=await self.block_limits(),
            lists_commands=self.knows_its_commands,
            locates=self._has_any(LOCATE_10, LOCATE_16),
            erases=self._has_any(ERASE),
            formats=self._has_any(FORMAT_MEDIUM),
            compression=await self.compression() is not None,
            partitions_max=await self.partitions_max(),
            tape_alert=await self._has_log_page(0x2E),
            volume_statistics=await self._has_log_page(0x17),
            cartridge_memory=await self._answers(self.read_attributes()),
            encryption=await self._answers(self.encryption_algorithms()),
        )

    def _has_any(self, *operations: int) -> bool | None:
        if all(self.lacks(operation) for operation in operations):
            return False
        return True if self.knows_its_commands else None

    async def _answers(self, question: Awaitable[object]) -> bool:
        """Whether the drive knows a question; that it needs a cartridge for the answer does not count against it."""
        try:
            await question
        except errors.Refused:
            return False
        except (errors.NoCartridge, errors.DeviceNotReady):
            pass
        return True

    async def _has_log_page(self, page: int) -> bool:
        try:
            cdb = bytes([0x4D, 0, 0x40, 0, 0, 0, 0, 1, 0, 0])
            data = (await self.command(cdb, "list log pages", receive_bytes=256)).data
        except errors.Refused:
            return False
        return page in data[4 : 4 + int.from_bytes(data[2:4], "big")]

    async def block_limits(self) -> BlockLimits:
        data = (
            await self.command(bytes([READ_BLOCK_LIMITS, 0, 0, 0, 0, 0]), "read block limits", receive_bytes=6)
        ).data
        return BlockLimits(int.from_bytes(data[4:6], "big"), int.from_bytes(data[1:4], "big"))

    async def set_block_bytes(self, length: int) -> None:
        """Fixed blocks of ``length`` bytes, or variable ones (0). Read back: some drives accept and do something else."""
        header = await self.mode_page(0x3F, block_descriptors=True)
        density = header[4] if header[3] >= 8 else 0
        descriptor = bytes([density, 0, 0, 0, 0]) + length.to_bytes(3, "big")
        await self.select_mode(bytes([0, 0, header[2] & 0x7F, 8]) + descriptor, f"set the block length to {length}")
        header = await self.mode_page(0x3F, block_descriptors=True)
        set_length = int.from_bytes(header[9:12], "big") if header[3] >= 8 else -1
        if set_length != length:
            raise errors.RefusedByDevice(f"{self.name} did not take a block length of {length}, it has {set_length}.")
        self.block_bytes = length

    async def is_write_protected(self) -> bool:
        """As the loaded cartridge's switch (or WORM state) says."""
        header = await self.mode_page(0x3F, block_descriptors=True)
        return bool(header[2] & 0x80)

    # --- position ---

    @property
    def counted_position(self) -> Position | None:
        """Where the tape stands by our own count; None when it is not known."""
        if self._lost or self._object is None:
            return None
        return Position(partition=self._partition, object_number=self._object, file_number=self._file)

    async def position(self) -> Position | None:
        """Where the tape stands: what the drive says, or the own count where it does not know. None when neither knows."""
        told = await self._told_position()
        if told is None:
            return self.counted_position
        file_number = self._file if told.object_number == self._object and not self._lost else told.file_number
        self._stands_at(told.object_number, file_number, told.partition)
        return self.counted_position

    async def _told_position(self) -> Position | None:
        """READ POSITION, short form first: its "unknown" bit is the one that drives set when they cannot count."""
        if self.lacks(READ_POSITION):
            return None
        cdb = bytes([READ_POSITION, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        try:
            short = (await self.command(cdb, "read position", receive_bytes=20)).data
        except errors.Refused:
            return None
        overflow = len(short) >= 20 and short[0] & 0x02
        if len(short) < 20 or (short[0] & 0x04 and not overflow):
            return None
        told = Position(partition=short[1], object_number=int.from_bytes(short[4:8], "big"))
        try:
            cdb = bytes([READ_POSITION, 0x06, 0, 0, 0, 0, 0, 0, 32, 0])
            long = (await self.command(cdb, "read position", receive_bytes=32)).data
        except errors.Refused:
            return None if overflow else told
        if len(long) < 32 or long[0] & 0x04:
            return None if overflow else told
        return Position(
            partition=int.from_bytes(long[4:8], "big"),
            object_number=int.from_bytes(long[8:16], "big"),
            file_number=None if long[0] & 0x08 else int.from_bytes(long[16:24], "big"),
        )

    def _stands_at(self, object_number: int | None, file_number: int | None, partition: int | None = None) -> None:
        self._lost, self._object, self._file = False, object_number, file_number
        if partition is not None:
            self._partition, self._partition_lost = partition, False

    def heard(self, attention: Attention) -> None:
        """A reset rewinds the tape, also when a question that does not move it is the first to hear of it."""
        if attention not in HARMLESS_ATTENTIONS:
            self._lost, self._object, self._file = True, None, None
            self._partition_lost |= self._partition != 0

    @contextlib.contextmanager
    def _moving(self) -> Iterator[tuple[int | None, int | None]]:
        """Between start and success of a command nobody knows where the tape is. Yields (object, file) where it stood."""
        before = (self._object, self._file)
        self._lost, self._object, self._file = True, None, None
        yield before

    def _must_know(self, what: str) -> None:
        if self._lost:
            raise errors.PositionLost(
                f"{self.name} does not know where the tape stands, not done: {what}. Rewind or locate first."
            )

    async def rewind(self) -> None:
        """To the beginning of the partition."""
        with self._moving():
            await self.command(bytes([REWIND, 0, 0, 0, 0, 0]), "rewind", timeout_seconds=MOTION_SECONDS_MAX)
        self._stands_at(0, 0)

    async def load(self, timeout_seconds: float = LOAD_SECONDS_MAX) -> None:
        """Thread the cartridge and wait until it is ready, at the beginning of partition 0. Raises ``NoCartridge``."""
        with self._moving():
            # Immediate: the drive then says that it is busy, instead of holding the connection.
            await self.command(bytes([LOAD_UNLOAD, 1, 0, 0, 1, 0]), "load", timeout_seconds=MOTION_SECONDS_MAX)
            await self.wait_ready(timeout_seconds)
        # Loaded already means that nothing moved: only a rewind makes sure.
        self._partition, self._partition_lost = 0, False
        await self.rewind()

    async def unload(self, timeout_seconds: float = UNLOAD_SECONDS_MAX) -> None:
        """Rewind and unthread, so that the robot can take the cartridge. What is buffered gets written first."""
        with self._moving():
            await self.command(bytes([LOAD_UNLOAD, 0, 0, 0, 0, 0]), "unload", timeout_seconds=timeout_seconds)

    async def locate(self, object_number: int, partition: int | None = None) -> None:
        """Stand before the object of that number. Raises ``NotFound`` when data ends before it (the tape stands at the end then)."""
        change = partition is not None and (partition != self._partition or self._partition_lost)
        for operation in (LOCATE_16, LOCATE_10):
            if self.lacks(operation) or (operation == LOCATE_10 and object_number > 0xFFFFFFFF):
                continue
            cdb = _locate_cdb(operation, object_number, partition if change else None)
            with self._moving(), contextlib.suppress(errors.UnsupportedByDevice):
                outcome = await self.command(
                    cdb,
                    f"locate object {object_number}",
                    timeout_seconds=MOTION_SECONDS_MAX,
                    expected=frozenset({Condition.END_OF_DATA}),
                )
                if outcome.has(Condition.END_OF_DATA):
                    self._lost = False
                    raise self._no_object(object_number)
                self._stands_at(object_number, 0 if object_number == 0 else None, partition)
                return
        if change:
            raise errors.UnsupportedByDevice(f"{self.name} has no LOCATE: it cannot go to partition {partition}.")
        await self._locate_by_counting(object_number)

    async def _locate_by_counting(self, object_number: int) -> None:
        """Some drives report the end of data also when they come to it exactly: the last object is passed by reading then."""
        for last_step_by_reading in (False, True):
            if self._lost or self._object is None or self._object > object_number:
                await self.rewind()
            goal = object_number - int(last_step_by_reading)
            while (here := self._object) is not None and here < goal:
                motion = await self.space_blocks(min(goal - here, SPACE_COUNT_MAX))
                if motion.found is Found.END_OF_DATA and (motion.moved is not None or last_step_by_reading):
                    raise self._no_object(object_number)
            if self._object == goal and last_step_by_reading and not await self._step_over():
                raise self._no_object(object_number)
            if self._object == object_number:
                return
        raise errors.PositionLost(
            f"{self.name} does not say how far it spaced: object {object_number} cannot be found."
        )

    async def _step_over(self) -> bool:
        """Pass one object by reading it; False at the end of data."""
        try:
            return (await self.read(self.block_bytes or 1)).found is not Found.END_OF_DATA
        except errors.TooLarge:
            return True

    def _no_object(self, object_number: int) -> errors.NotFound:
        return errors.NotFound(f"{self.name}: the data on the tape ends before object {object_number}.")

    async def locate_file(self, number: int) -> None:
        """Stand behind the ``number``-th filemark, 0 is the beginning of the partition. Raises ``NotFound``."""
        await self.rewind()
        if number:
            motion = await self.space_filemarks(number)
            if motion.found is Found.END_OF_DATA:
                raise errors.NotFound(f"{self.name}: the tape has fewer than {number} filemarks.")

    async def space_blocks(self, count: int) -> Motion:
        """Forward over ``count`` blocks, at most 8388607. A filemark on the way stops it behind the mark in most drives."""
        self._must_know(f"space over {count} blocks")
        with self._moving() as (start, file_number):
            outcome = await self._space(0, count)
        moved = count - _left(outcome, count) if outcome.sense.information is not None else None
        if outcome.has(Condition.FILEMARK):
            passed = None if start is None or moved is None else start + moved + 1
            self._stands_at(passed, None if file_number is None else file_number + 1)
            return Motion(found=Found.FILEMARK, moved=moved)
        if outcome.has(Condition.END_OF_DATA):
            # How many filemarks were among them is not known: this drive may have counted them as blocks.
            self._stands_at(None if start is None or moved is None else start + moved, None)
            return Motion(found=Found.END_OF_DATA, moved=moved)
        self._stands_at(None if start is None else start + count, None)
        return Motion(found=Found.BLOCK, moved=count)

    async def space_filemarks(self, count: int) -> Motion:
        """Forward behind the ``count``-th filemark from here. The object number is known afterwards only where the drive tells it."""
        self._must_know(f"space over {count} filemarks")
        with self._moving() as (_, file_number):
            outcome = await self._space(1, count)
        moved = count - _left(outcome, count) if outcome.sense.information is not None else None
        if outcome.has(Condition.END_OF_DATA):
            self._stands_at(None, None if file_number is None or moved is None else file_number + moved)
            return Motion(found=Found.END_OF_DATA, moved=moved)
        self._stands_at(None, None if file_number is None else file_number + count)
        return Motion(found=Found.BLOCK, moved=count)

    async def _space(self, code: int, count: int) -> Outcome:
        assert 1 <= count <= SPACE_COUNT_MAX, "forward, and as far as the command can say"
        return await self.command(
            bytes([SPACE_6, code]) + count.to_bytes(3, "big") + bytes(1),
            f"space over {count} {'filemarks' if code else 'blocks'}",
            timeout_seconds=MOTION_SECONDS_MAX,
            expected=frozenset({Condition.FILEMARK, Condition.END_OF_DATA, Condition.EARLY_WARNING}),
            needs_position=True,
        )

    async def space_to_end(self) -> Position:
        """Stand at the end of data, where appending goes on, and say where that is."""
        with self._moving():
            await self.command(
                bytes([SPACE_6, 3, 0, 0, 0, 0]),
                "space to the end of data",
                timeout_seconds=MOTION_SECONDS_MAX,
                expected=frozenset({Condition.END_OF_DATA, Condition.EARLY_WARNING}),
            )
        self._stands_at(None, None)
        return await self.position() or await self._gallop_to_end()

    async def _gallop_to_end(self) -> Position:
        """Count up to the end with a drive that does not count: ever longer steps until one is too long, then halves of it."""
        await self.rewind()
        reached, step = 0, GALLOP_START
        beyond: int | None = None
        while beyond is None or beyond - reached > 1:
            step = min(step * 2, SPACE_COUNT_MAX) if beyond is None else (beyond - reached) // 2
            motion = await self.space_blocks(step)
            if self._object is None:
                beyond = reached + step
                await self._locate_by_counting(reached)
            else:
                reached = self._object
                if motion.found is Found.END_OF_DATA:
                    break
        while await self._step_over():
            reached += 1
        self._stands_at(reached, None)
        return Position(partition=self._partition, object_number=reached)

    # --- data ---

    async def read(self, length: int) -> ReadResult:
        """The next block, of at most ``length`` bytes; in fixed mode as many blocks as fit into ``length``.

        Raises ``TooLarge`` when the block is longer (``data["block_bytes"]``; the tape then stands behind it), ``MediumFailed`` when it cannot
        be read (then locate to go on).
        """
        self._must_know("read")
        fixed = bool(self.block_bytes)
        count = length // self.block_bytes if fixed else length
        wanted = count * (self.block_bytes or 1)
        assert 1 <= count <= TRANSFER_MAX, "a transfer length of 24 bits"
        with self._moving() as (start, file_number):
            outcome = await self.command(
                bytes([READ_6, int(fixed)]) + count.to_bytes(3, "big") + bytes(1),
                "read",
                receive_bytes=wanted,
                timeout_seconds=TRANSFER_SECONDS_MAX,
                expected=frozenset(
                    {Condition.FILEMARK, Condition.END_OF_DATA, Condition.INCORRECT_LENGTH, Condition.EARLY_WARNING}
                ),
                needs_position=True,
            )
        mark, end = outcome.has(Condition.FILEMARK), outcome.has(Condition.END_OF_DATA)
        left = _left(outcome, count if mark or end else 0)
        if outcome.has(Condition.INCORRECT_LENGTH) and not mark and not end:
            return await self._read_of_other_length(outcome, count, left, start, file_number)
        read = max(0, count - left)
        passed = (read if fixed else int(read > 0)) + int(mark)
        self._stands_at(_plus(start, passed), _plus(file_number, int(mark)))
        data = outcome.data[: read * (self.block_bytes or 1)]
        if len(data) < read * (self.block_bytes or 1):
            return await self._read_again(start, read, file_number)
        return ReadResult(found=Found.FILEMARK if mark else Found.END_OF_DATA if end else Found.BLOCK, data=data)

    async def _read_of_other_length(
        self, outcome: Outcome, count: int, left: int, start: int | None, file_number: int | None
    ) -> ReadResult:
        if self.block_bytes:
            raise errors.PositionLost(
                f"{self.name} met a block that is not {self.block_bytes} bytes long. Locate, and read it in variable mode."
            )
        self._stands_at(_plus(start, 1), file_number)
        if left < 0:
            raise errors.TooLarge(
                f"{self.name} met a block of {count - left} bytes, longer than the {count} that were asked for.",
                data={"block_bytes": count - left},
            )
        length = count - left if outcome.sense.information is not None else len(outcome.data)
        if len(outcome.data) < length:
            return await self._read_again(start, length, file_number)
        return ReadResult(found=Found.BLOCK, data=outcome.data[:length])

    async def _read_again(self, start: int | None, count: int, file_number: int | None) -> ReadResult:
        """A drive said that it read more than it handed over, as one known target does for short blocks: ask for exactly that much."""
        if start is None:
            self._lost = True
            raise errors.PositionLost(f"{self.name} did not hand over all that it read. Locate, and read again.")
        await self.locate(start)
        with self._moving():
            outcome = await self.command(
                bytes([READ_6, int(bool(self.block_bytes))]) + count.to_bytes(3, "big") + bytes(1),
                "read",
                receive_bytes=count * (self.block_bytes or 1),
                timeout_seconds=TRANSFER_SECONDS_MAX,
                needs_position=True,
            )
            if len(outcome.data) < count * (self.block_bytes or 1):
                raise errors.HardwareFailed(f"{self.name} hands over less than it reads: its data cannot be trusted.")
        self._stands_at(start + (count if self.block_bytes else 1), file_number)
        return ReadResult(found=Found.BLOCK, data=outcome.data)

    async def write(self, data: bytes | memoryview) -> bool:
        """Write one block (in fixed mode: whole blocks). Everything behind it is gone. True at early warning: little more will fit.

        Raises ``EndOfMedium`` when it did not fit: ``data["unwritten"]`` blocks (bytes in variable mode) are not on the tape, and what was
        buffered before may not be either; ``WriteProtected``, ``MediumFailed``.
        """
        self._must_know("write")
        fixed = bool(self.block_bytes)
        assert not fixed or len(data) % self.block_bytes == 0, "whole blocks"
        count = len(data) // self.block_bytes if fixed else len(data)
        assert 1 <= count <= TRANSFER_MAX, "a transfer length of 24 bits"
        cdb = bytes([WRITE_6, int(fixed)]) + count.to_bytes(3, "big") + bytes(1)
        with self._moving() as (start, file_number):
            outcome = await self._write_command(cdb, "write", data, unwritten_max=count)
        self._stands_at(_plus(start, count if fixed else 1), file_number)
        return outcome.has(Condition.EARLY_WARNING)

    async def write_filemarks(self, count: int, *, immediate: bool = False) -> bool:
        """Write filemarks; what was written before is on the tape when this returns, unless ``immediate``. True at early warning."""
        assert 0 <= count <= TRANSFER_MAX, "a count of 24 bits"
        self._must_know(f"write {count} filemarks")
        cdb = bytes([WRITE_FILEMARKS_6, int(immediate)]) + count.to_bytes(3, "big") + bytes(1)
        with self._moving() as (start, file_number):
            outcome = await self._write_command(cdb, f"write {count} filemarks", b"", unwritten_max=count)
        self._stands_at(_plus(start, count), _plus(file_number, count))
        return outcome.has(Condition.EARLY_WARNING)

    async def flush(self) -> bool:
        """Return when everything written is on the tape. True at early warning."""
        return await self.write_filemarks(0)

    async def _write_command(self, cdb: bytes, what: str, data: bytes | memoryview, *, unwritten_max: int) -> Outcome:
        outcome = await self.command(
            cdb,
            what,
            send=data,
            timeout_seconds=TRANSFER_SECONDS_MAX,
            expected=frozenset({Condition.EARLY_WARNING, Condition.END_OF_MEDIUM}),
            needs_position=True,
        )
        if outcome.has(Condition.END_OF_MEDIUM):
            raise errors.EndOfMedium(
                f"{self.name}: the tape has ended: {outcome.sense.text}. Go on with another cartridge.",
                data={"sense": outcome.sense.numbers, "unwritten": _left(outcome, unwritten_max)},
            )
        return outcome

    # --- erasing ---

    async def format_medium(self, partition_gigabytes: Sequence[int] = ()) -> None:
        """As in ``DrivePages``, from wherever the tape stands; afterwards it stands at the beginning of partition 0."""
        await (self.locate(0, 0) if self._partition or self._partition_lost else self.rewind())
        with self._moving():
            await super().format_medium(partition_gigabytes)
        await self.rewind()

    async def erase(self, *, long: bool) -> bool:
        """Erase from the beginning of the partition: mark it empty (short), or overwrite all of it (long; hours).

        False when the drive has no ERASE and a short erase was replaced: one filemark at the beginning, behind which nothing can be read.
        Raises ``UnsupportedByDevice`` when a long one is not possible.
        """
        await self.rewind()
        if not self.lacks(ERASE):
            with self._moving(), contextlib.suppress(errors.UnsupportedByDevice):
                # Immediate: the drive then says that it is busy, instead of holding the connection for hours.
                cdb = bytes([ERASE, 0x02 | int(long), 0, 0, 0, 0])
                await self.command(cdb, "erase", timeout_seconds=MOTION_SECONDS_MAX, needs_position=True)
                await self.wait_ready(ERASE_LONG_SECONDS_MAX)
                await self.rewind()
                return True
            await self.rewind()
        if long:
            raise errors.UnsupportedByDevice(
                f"{self.name} has no ERASE: the cartridge cannot be overwritten by the drive."
            )
        await self.write_filemarks(1)
        await self.rewind()
        return False


def _plus(number: int | None, count: int) -> int | None:
    return None if number is None else number + count


def _left(outcome: Outcome, otherwise: int) -> int:
    """The information field: what of the request was not done; ``otherwise`` where the drive does not say."""
    information = outcome.sense.information
    return otherwise if information is None else information


def _locate_cdb(operation: int, object_number: int, partition: int | None) -> bytes:
    """``partition`` None: stay in this one."""
    change = 0x02 if partition is not None else 0
    if operation == LOCATE_16:
        return bytes([operation, change, 0, partition or 0]) + object_number.to_bytes(8, "big") + bytes(4)
    return bytes([operation, change, 0]) + object_number.to_bytes(4, "big") + bytes([0, partition or 0, 0])
