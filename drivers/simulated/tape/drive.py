"""A tape drive as a logical unit: life of a cartridge in it, and the commands of SSC-3.

What moves the tape is in ``head``, pages are in ``drive_pages``, the cartridge's chip is in ``attributes``.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final

import msgspec

from drivers.simulated.tape import sense as s
from drivers.simulated.tape.attributes import read_attribute, write_attribute
from drivers.simulated.tape.drive_pages import DrivePages
from drivers.simulated.tape.generations import BLOCK_BYTES_MAX, Generation
from drivers.simulated.tape.head import END_OF_DATA, SEQUENTIAL_FILEMARKS, Head, Meters
from drivers.simulated.tape.mechanics import Mechanics
from drivers.simulated.tape.medium import Cartridge
from drivers.simulated.tape.pages import log_sense, mode_select, mode_sense
from drivers.simulated.tape.unit import Command, LogicalUnit, Reply, Work

BUFFER_BYTES: Final = 8 * 1024 * 1024
"""What a drive holds back before it writes; real ones have some hundred MB, but a write here is a file per record."""


class DriveState(Enum):
    """What a drive does with its cartridge."""

    EMPTY = "empty"
    LOADING = "loading"
    READY = "ready"
    UNLOADED = "unloaded"
    CLEANING = "cleaning"
    INCOMPATIBLE = "holds a cartridge that it cannot read"
    FAILED = "could not load the cartridge"
    EXPIRED = "holds a used-up cleaning cartridge"


_REFUSALS: Final = {
    DriveState.EMPTY: s.NO_MEDIUM,
    DriveState.LOADING: s.BECOMING_READY,
    DriveState.UNLOADED: s.LOAD_NEEDED,
    DriveState.CLEANING: s.CLEANING_CARTRIDGE,
    DriveState.INCOMPATIBLE: s.INCOMPATIBLE_MEDIUM,
    DriveState.FAILED: s.LOAD_FAILED,
    DriveState.EXPIRED: s.CLEANING_FAILURE,
}

CLEAN_NOW, CLEANING_EXPIRED = 20, 22
READ_FAILURE, WRITE_FAILURE, WRITE_PROTECTED_ALERT = 5, 6, 9
UNRECOVERABLE_CARTRIDGE, UNSUPPORTED_FORMAT = 14, 12
"""TapeAlert flags (SSC-3 annex A)."""


class DriveDied(Exception):
    """The drive gives no answer to the command that is under way."""


class DriveFaults(msgspec.Struct):
    """What is wrong with a drive."""

    is_dead: bool = False
    records_until_death: int | None = None


class SimulatedDrive(LogicalUnit):
    """One drive. ``cartridge`` is what lies in it, loaded or not."""

    device_type = 0x01

    def __init__(
        self,
        number: int,
        generation: Generation,
        serial: str,
        mechanics: Mechanics,
        *,
        lacks: frozenset[int] = frozenset(),
        buffer_bytes: int = BUFFER_BYTES,
        draw: Callable[[int], int] = lambda below: 0,
        clean_after_metres: float | None = None,
    ) -> None:
        super().__init__(lacks=lacks)
        self.number = number
        self.generation = generation
        self.product = f"ULTRIUM-TD{generation.number}"
        self.serial = serial
        self.mechanics = mechanics
        self.cartridge: Cartridge | None = None
        self.head: Head | None = None
        self.state = DriveState.EMPTY
        self.meters = Meters()
        self.faults = DriveFaults()
        self.loads = 0
        self.cleanings = 0
        self.needs_cleaning = False
        self.pages = DrivePages(self)
        self._buffer_bytes = buffer_bytes
        self._draw = draw
        self._clean_after_metres = clean_after_metres
        self._clean_at_metres = clean_after_metres
        self._ready_at = 0.0
        self._busy_until = 0.0
        self._written_at = 0.0
        """When everything that was written is on the tape, as long as nothing else moves it."""
        self._read_at = 0.0
        """When what was read last had come off the tape."""
        self._reads_on_at: tuple[int, int] | None = None
        """Partition and object behind what was read last: from there the drive reads on by itself."""
        self.handlers |= self._data_handlers() | self._other_handlers()

    def __repr__(self) -> str:
        what = self.state.value if self.cartridge is None else f"{self.state.value} {self.cartridge.card.barcode}"
        where = f" at object {self.head.position} of partition {self.head.partition}" if self.head else ""
        words = [f"drive {self.number}", self.generation.name, what + where]
        words += ["needs cleaning"] if self.needs_cleaning else []
        words += ["dead"] if self.faults.is_dead else []
        return f"<{', '.join(words)}>"

    def _data_handlers(self) -> dict[int, Callable[[Command], Reply]]:
        return {
            0x01: self._rewind,
            0x04: self._format_medium,
            0x08: self._read,
            0x0A: self._write,
            0x10: self._write_filemarks,
            0x11: self._space,
            0x19: self._erase,
            0x2B: self._locate,
            0x34: self._read_position,
            0x91: self._space,
            0x92: self._locate,
        }

    def _other_handlers(self) -> dict[int, Callable[[Command], Reply]]:
        return {
            0x00: self._test_unit_ready,
            0x05: self._read_block_limits,
            0x15: self._mode_select,
            0x1A: self._mode_sense,
            0x1B: self._load_unload,
            0x44: self._density_support,
            0x4D: lambda command: log_sense(command, self.pages.log_pages()),
            0x55: self._mode_select,
            0x5A: self._mode_sense,
            0x8C: lambda command: read_attribute(command, self._loaded(), self.pages.alert_bits(), self.serial),
            0x8D: lambda command: write_attribute(command, self._loaded()),
        }

    # --- life of a cartridge ---

    @property
    def holds_fast(self) -> bool:
        """The robot cannot take the cartridge before an unload."""
        return self.state in (DriveState.READY, DriveState.LOADING, DriveState.CLEANING)

    def insert(self, cartridge: Cartridge, now: float) -> None:
        """The robot or a hand puts it in; the drive takes it by itself."""
        assert self.cartridge is None
        self.cartridge = cartridge
        self._begin_load(now)

    def check_removable(self) -> None:
        """Raises what the changer answers when the cartridge cannot be taken now."""
        if self.is_removal_prevented:
            raise s.CheckCondition(s.REMOVAL_PREVENTED)
        if self.holds_fast:
            raise s.CheckCondition(s.NOT_UNLOADED)

    def remove(self) -> Cartridge:
        """Take it out, in whatever state: a hand does not ask. What was in the buffer is lost unless it was unloaded."""
        assert self.cartridge is not None
        cartridge, self.cartridge = self.cartridge, None
        if self.head is not None:
            cartridge.lose_buffer()
        self.head, self.state = None, DriveState.EMPTY
        return cartridge

    def unload(self) -> float:
        """Write the buffer, rewind, unthread."""
        assert self.head is not None
        self.head.cartridge.flush()
        seconds = self.mechanics.unload_seconds(self.generation, self.head.metres)
        self.head.cartridge.save()
        self.head, self.state = None, DriveState.UNLOADED
        return seconds

    def die(self) -> None:
        """No answers until a reset, and the buffer is gone (all, or what is drawn of it)."""
        self.faults.is_dead = True
        self.faults.records_until_death = None
        self._lose_buffer()

    def power_up(self, now: float) -> None:
        """After power loss or the reset of a dead drive: whatever lies in it is threaded again."""
        self._lose_buffer()
        self.faults.is_dead = False
        self._forget_parameters()
        self._busy_until = self._written_at = 0.0
        self._reads_on_at = None
        self.head = None
        if self.cartridge is None:
            self.state = DriveState.EMPTY
        else:
            self._begin_load(now)

    def reset_bus(self) -> None:
        """Reservations, holds and mode parameters are gone; buffer and position are kept."""
        if self.head is not None:
            self.head.cartridge.flush()
        self._forget_parameters()

    def start(self, command: Command, receive_bytes: int) -> Work:
        """Begin a command. Raises ``DriveDied``: there will be no answer."""
        if self.faults.is_dead:
            raise DriveDied(f"drive {self.number} is dead")
        return super().start(command, receive_bytes)

    def settle(self, now: float) -> None:
        if self.faults.is_dead:
            return
        if self.state is DriveState.LOADING and now >= self._ready_at:
            self._end_load()
        elif self.state is DriveState.CLEANING and now >= self._ready_at:
            self.state = DriveState.UNLOADED
        if self._clean_at_metres is not None and self.meters.metres >= self._clean_at_metres:
            self._clean_at_metres = None
            self.require_cleaning()

    def require_cleaning(self) -> None:
        """As when the heads are dirty: TapeAlert 20 and 0/00/17 until a cleaning cartridge was there."""
        self.needs_cleaning = True
        self.pages.alert(CLEAN_NOW)

    def ready_at(self) -> float:
        """When what is under way by itself (loading, cleaning, an immediate command) is over, on trio's clock."""
        return max(self._ready_at, self._busy_until)

    def _begin_load(self, now: float) -> None:
        cartridge = self.cartridge
        assert cartridge is not None
        if cartridge.is_cleaning:
            self._begin_cleaning(cartridge, now)
            return
        self.pages.forget_asked_partitions()
        readable = cartridge.generation.number in self.generation.readable
        is_new = cartridge.card.is_new and cartridge.generation.number == self.generation.number
        self.state = DriveState.LOADING
        self._ready_at = now + self.mechanics.load_seconds(self.generation, is_new_medium=is_new and readable)

    def _end_load(self) -> None:
        cartridge = self.cartridge
        assert cartridge is not None
        self.attention(s.MEDIUM_CHANGED)
        if cartridge.card.damages.broken:
            self.state = DriveState.FAILED
            self.pages.alert(UNRECOVERABLE_CARTRIDGE)
        elif cartridge.generation.number not in self.generation.readable:
            self.state = DriveState.INCOMPATIBLE
            self.pages.alert(UNSUPPORTED_FORMAT)
        else:
            cartridge.card.is_new = False
            cartridge.card.loads += 1
            cartridge.save()
            self.loads += 1
            self.state = DriveState.READY
            self._reads_on_at = None
            self.head = Head(
                cartridge,
                self.generation,
                self.mechanics,
                self.meters,
                buffer_bytes=self._buffer_bytes,
                before_record=self._count_to_death,
            )

    def _begin_cleaning(self, cartridge: Cartridge, now: float) -> None:
        if cartridge.card.cleanings_left == 0:
            self.state = DriveState.EXPIRED
            self.pages.alert(CLEANING_EXPIRED)
            return
        cartridge.card.cleanings_left -= 1
        cartridge.save()
        self.cleanings += 1
        self.needs_cleaning = False
        if self._clean_after_metres is not None:
            self._clean_at_metres = self.meters.metres + self._clean_after_metres
        self.pages.alerts.discard(CLEAN_NOW)
        self.state = DriveState.CLEANING
        loading = self.mechanics.load_seconds(self.generation, is_new_medium=False)
        self._ready_at = now + loading + self.mechanics.clean_seconds()

    def _lose_buffer(self) -> None:
        if self.head is not None:
            waiting = sum(partition.unwritten_objects for partition in self.head.cartridge.partitions)
            self.head.cartridge.lose_buffer(self._draw(waiting + 1) if waiting else 0)
            self.head.position = min(self.head.position, len(self.head.tape))

    def _count_to_death(self) -> None:
        left = self.faults.records_until_death
        if left is not None:
            if left == 0:
                self.die()
                raise DriveDied(f"drive {self.number} died")
            self.faults.records_until_death = left - 1

    def _forget_parameters(self) -> None:
        self.pages = DrivePages(self)
        if self.needs_cleaning:
            self.pages.alert(CLEAN_NOW)
        self.reset()

    # --- readiness ---

    def present_sense(self) -> s.Sense:
        if self.state is not DriveState.READY:
            return self._refusal()
        return s.CLEANING_REQUESTED if self.needs_cleaning else s.NOTHING

    def _refusal(self) -> s.Sense:
        if self.state is DriveState.UNLOADED and self.cartridge is not None and self.cartridge.is_cleaning:
            return s.NO_MEDIUM
        return _REFUSALS[self.state]

    def _loaded(self) -> Head:
        if self.head is None:
            raise s.CheckCondition(self._refusal())
        return self.head

    def _writable(self) -> Head:
        head = self._loaded()
        if head.cartridge.card.write_protected:
            self.pages.alert(WRITE_PROTECTED_ALERT)
            raise s.CheckCondition(s.WRITE_PROTECTED)
        if head.cartridge.generation.number not in self.generation.writable:
            raise s.CheckCondition(s.CANNOT_WRITE_FORMAT)
        return head

    def _wait_for_motion(self, command: Command, seconds: float = 0.0) -> float:
        """A command that comes while the tape still runs for an immediate one, or for records in the buffer, waits for it."""
        return max(0.0, self._busy_until - command.now, self._written_at - command.now) + seconds

    def _ahead_seconds(self, head: Head) -> float:
        """How long the tape runs for what the buffer holds: so far it may be behind the host in writing, and before him in reading."""
        return self.mechanics.transfer_seconds(self.generation, head.cartridge.generation, self._buffer_bytes)

    def _read_seconds(
        self, command: Command, head: Head, waited: float, transfer: float, place: tuple[int, int]
    ) -> float:
        """Until a record is here. Behind the one before, the drive went on reading meanwhile, as far as its buffer has room."""
        begin = command.now + waited
        if place == self._reads_on_at:
            begin = max(self._read_at, begin - self._ahead_seconds(head))
        self._read_at = begin + transfer
        self._reads_on_at = (head.partition, head.position)
        return max(waited, self._read_at - command.now)

    def _write_seconds(self, command: Command, head: Head, waited: float, transfer: float) -> float:
        """Until the buffer has taken records, which is before they are on the tape."""
        self._written_at = max(self._written_at, command.now + waited) + transfer
        if not self.pages.is_buffered:
            return self._written_at - command.now
        return max(waited, self._written_at - command.now - self._ahead_seconds(head))

    def _moved(self, command: Command, seconds: float, *, immediate: bool) -> Reply:
        seconds = self._wait_for_motion(command, seconds)
        if not immediate:
            return Reply(seconds=seconds)
        self._busy_until = command.now + seconds
        return Reply()

    def _test_unit_ready(self, command: Command) -> Reply:
        self._loaded()
        if command.now < self._busy_until:
            raise s.CheckCondition(s.IN_PROGRESS)
        return Reply()

    def _load_unload(self, command: Command) -> Reply:
        wants_load, immediate = command.has(4, 0x01), command.has(1, 0x01)
        if command.cdb[4] & 0x04 and wants_load:
            raise s.CheckCondition(s.invalid_field(4))
        if self.cartridge is None:
            raise s.CheckCondition(s.NO_MEDIUM)
        if wants_load:
            return self._load(command, immediate=immediate)
        if self.is_removal_prevented:
            raise s.CheckCondition(s.REMOVAL_PREVENTED)
        if self.state in (DriveState.LOADING, DriveState.CLEANING):
            raise s.CheckCondition(self._refusal())
        if self.head is None:
            self.state = DriveState.UNLOADED
            return Reply()
        return self._moved(command, self.unload(), immediate=immediate)

    def _load(self, command: Command, *, immediate: bool) -> Reply:
        if self.head is not None:
            return self._moved(command, self.head.rewind(), immediate=immediate)
        if self.state in (DriveState.UNLOADED, DriveState.FAILED, DriveState.INCOMPATIBLE):
            self._begin_load(command.now)
        elif self.state is DriveState.EXPIRED:
            raise s.CheckCondition(s.CLEANING_FAILURE)
        if immediate:
            return Reply()

        def finish(now: float) -> None:
            self.settle(now)
            if self.head is None and self.state is not DriveState.UNLOADED:
                raise s.CheckCondition(self._refusal())

        return Reply(seconds=max(0.0, self._ready_at - command.now), finish=finish)

    # --- data ---

    def _read(self, command: Command) -> Reply:
        fixed, silent, length = command.has(1, 0x01), command.has(1, 0x02), command.number(2, 3)
        block_bytes = self.pages.block_bytes
        if fixed and (silent or block_bytes == 0):
            raise s.CheckCondition(s.invalid_field(1))
        head = self._loaded()
        waited = self._wait_for_motion(command)
        if length == 0:
            return Reply()
        place = (head.partition, head.position)
        try:
            if fixed:
                data, seconds = head.read_fixed(length, block_bytes)
            else:
                data, seconds = head.read_variable(length, silent=silent, block_bytes=block_bytes)
        except s.CheckCondition as ended:
            if ended.sense.key == s.MEDIUM_ERROR:
                self.pages.alert(READ_FAILURE)
            ended.seconds = self._read_seconds(command, head, waited, ended.seconds, place)
            raise
        return Reply(data, self._read_seconds(command, head, waited, seconds, place))

    def _write(self, command: Command) -> Reply:
        fixed, length = command.has(1, 0x01), command.number(2, 3)
        block_bytes = self.pages.block_bytes if fixed else length
        if fixed and block_bytes == 0:
            raise s.CheckCondition(s.invalid_field(1))
        head = self._writable()
        if length == 0:
            return Reply()
        count = length if fixed else 1
        if block_bytes > BLOCK_BYTES_MAX:
            raise s.CheckCondition(s.invalid_field(2))
        if len(command.send) < count * block_bytes:
            raise s.CheckCondition(s.PARAMETER_LIST_LENGTH)
        blocks = [command.send[at * block_bytes : (at + 1) * block_bytes] for at in range(count)]
        waited = max(0.0, self._busy_until - command.now)
        try:
            seconds = head.write(blocks, [count - done for done in range(count)] if fixed else [length])
        except s.CheckCondition as ended:
            if ended.sense.key == s.MEDIUM_ERROR:
                self.pages.alert(WRITE_FAILURE)
            ended.seconds = self._write_seconds(command, head, waited, ended.seconds)
            raise
        finally:
            if not self.pages.is_buffered and not self.faults.is_dead:
                head.cartridge.flush()
        return Reply(seconds=self._write_seconds(command, head, waited, seconds))

    def _write_filemarks(self, command: Command) -> Reply:
        if command.has(1, 0x02):
            raise s.CheckCondition(s.invalid_field(1))
        head = self._writable()
        immediate = command.has(1, 0x01)
        seconds = head.write_filemarks(command.number(2, 3), immediate=immediate)
        return Reply(seconds=seconds if immediate else self._wait_for_motion(command, seconds))

    def _space(self, command: Command) -> Reply:
        code = command.cdb[1] & 0x0F
        count = command.number(4, 8, signed=True) if command.cdb[0] == 0x91 else command.number(2, 3, signed=True)
        if code == SEQUENTIAL_FILEMARKS or code > END_OF_DATA:
            raise s.CheckCondition(s.invalid_field(1))
        head = self._loaded()
        return Reply(seconds=self._wait_for_motion(command, head.space(code, count)))

    def _rewind(self, command: Command) -> Reply:
        return self._moved(command, self._loaded().rewind(), immediate=command.has(1, 0x01))

    def _locate(self, command: Command) -> Reply:
        is_long, immediate, changes = command.cdb[0] == 0x92, command.has(1, 0x01), command.has(1, 0x02)
        kind = command.cdb[1] >> 3 & 0x07 if is_long else 0
        number = command.number(4, 8) if is_long else command.number(3, 4)
        head = self._loaded()
        partition = command.cdb[3 if is_long else 8] if changes else head.partition
        if kind == 0:
            seconds = head.locate(partition, number)
        elif kind == 1:
            seconds = head.locate_filemark(partition, number)
        elif kind == 3:
            seconds = head.locate_end_of_data(partition)
        else:
            raise s.CheckCondition(s.invalid_field(1))
        return self._moved(command, seconds, immediate=immediate)

    def _read_position(self, command: Command) -> Reply:
        form = command.cdb[1] & 0x1F
        if form not in (0x00, 0x01, 0x06, 0x08):
            raise s.CheckCondition(s.invalid_field(1))
        head = self._loaded()
        tape, position = head.tape, head.position
        flags = (0x80 if position == 0 else 0) | (0x40 if head.is_past_early_warning else 0)
        if form == 0x06:
            raw = bytes([flags, 0, 0, 0]) + head.partition.to_bytes(4, "big") + position.to_bytes(8, "big")
            return Reply(raw + tape.filemarks_before(position).to_bytes(8, "big") + bytes(8))
        waiting, waiting_bytes = tape.unwritten_objects, tape.unwritten_bytes
        last = position - waiting
        if form == 0x08:
            raw = bytes([flags, head.partition, 0, 0x1C, 0]) + waiting.to_bytes(3, "big")
            raw += position.to_bytes(8, "big") + last.to_bytes(8, "big") + waiting_bytes.to_bytes(8, "big")
            return Reply(raw[: command.number(7, 2)])
        if position >= 1 << 32:
            return Reply(bytes([flags | 0x04, head.partition]) + bytes(18))
        raw = bytes([flags, head.partition, 0, 0]) + position.to_bytes(4, "big") + last.to_bytes(4, "big")
        return Reply(raw + b"\0" + waiting.to_bytes(3, "big") + waiting_bytes.to_bytes(4, "big"))

    def _erase(self, command: Command) -> Reply:
        is_long, immediate = command.has(1, 0x01), command.has(1, 0x02)
        return self._moved(command, self._writable().erase(is_long=is_long), immediate=immediate)

    def _format_medium(self, command: Command) -> Reply:
        form = command.cdb[2] & 0x0F
        if self.generation.partitions_max < 2:
            raise s.CheckCondition(s.INVALID_OPCODE)
        if form > 2:
            raise s.CheckCondition(s.invalid_field(2))
        head = self._writable()
        made = head.cartridge.generation
        wraps = [made.wraps] if form == 0 else self.pages.partition_wraps(made)
        self.pages.forget_asked_partitions()
        return self._moved(command, head.format(wraps), immediate=command.has(1, 0x01))

    # --- what there is to know ---

    def _density_support(self, command: Command) -> Reply:
        return self.pages.density_support(command)

    def _read_block_limits(self, command: Command) -> Reply:
        return Reply(bytes([0]) + BLOCK_BYTES_MAX.to_bytes(3, "big") + (1).to_bytes(2, "big"))

    def vital_pages(self) -> dict[int, bytes]:
        worm = b"\x01" if self.generation.worm else b"\x00"
        return super().vital_pages() | {0xB0: worm + bytes(3), 0xB1: self.serial.encode()}

    def _mode_sense(self, command: Command) -> Reply:
        return mode_sense(command, self.pages.header(), self.pages.mode_pages())

    def _mode_select(self, command: Command) -> Reply:
        self.pages.select(*mode_select(command, self.pages.mode_pages()))
        self.attention(s.MODE_CHANGED, beside=command.nexus)
        return Reply()
