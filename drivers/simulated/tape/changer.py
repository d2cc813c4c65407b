"""The changer as a logical unit: one robot, and the commands of SMC-3.

A move takes the cartridge at once, has it in the hand for as long as the journey takes, and puts it down at the end. A move that is
aborted is carried to its end all the same; one whose power fails leaves the cartridge in the hand.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import msgspec

from drivers.simulated.tape import sense as s
from drivers.simulated.tape.drive import SimulatedDrive
from drivers.simulated.tape.elements import Element, ElementAddresses, ElementType, status_report
from drivers.simulated.tape.mechanics import Mechanics
from drivers.simulated.tape.medium import Cartridge
from drivers.simulated.tape.pages import ModeHeader, ModePage, log_sense, mode_sense
from drivers.simulated.tape.unit import Command, LogicalUnit, Reply

Placement: TypeAlias = tuple[Cartridge, Element, int | None]
"""What is in the robot's hand, where it goes, and the storage element it came from."""

HARDWARE_ALERT = 1
"""TapeAlert flag of libraries: the robot has trouble."""


class ChangerCounts(msgspec.Struct):
    """What the robot has done in its life."""

    moves: int = 0
    loads: int = 0
    """Moves into a drive."""
    failed_moves: int = 0
    scans: int = 0


class SimulatedChanger(LogicalUnit):
    """The robot and its places. Where a cartridge lies is saved with it when it is put down."""

    device_type = 0x08
    product = "SIM-LIBRARY"

    def __init__(
        self,
        addresses: ElementAddresses,
        slots: int,
        import_export: int,
        drives: Iterable[SimulatedDrive],
        serial: str,
        mechanics: Mechanics,
        *,
        unloads_drives: bool = False,
        lacks: frozenset[int] = frozenset(),
    ) -> None:
        super().__init__(lacks=lacks)
        self.serial = serial
        self.mechanics = mechanics
        self.addresses = addresses
        self.counts = ChangerCounts()
        self.is_jammed = False
        self.jams_next: ElementType | None = None
        """The next move jams before (STORAGE) or after (TRANSPORT) the cartridge is in the hand."""
        self.elements: dict[int, Element] = {}
        self._unloads_drives = unloads_drives
        self._ready_at = float("-inf")
        self._free_at = float("-inf")
        self._stands_at = addresses.storage
        self._alerts: set[int] = set()
        self._add(Element(addresses.transport, ElementType.TRANSPORT))
        for at, drive in enumerate(drives):
            self._add(Element(addresses.drives + at, ElementType.DRIVE, drive))
        for at in range(import_export):
            self._add(Element(addresses.import_export + at, ElementType.IMPORT_EXPORT))
        for at in range(slots):
            self._add(Element(addresses.storage + at, ElementType.STORAGE))
        self.handlers |= {
            0x00: self._test_unit_ready,
            0x07: self._initialize_element_status,
            0x1A: self._mode_sense,
            0x2B: self._position_to_element,
            0x37: self._initialize_element_status,
            0x4D: lambda command: log_sense(command, {0x2E: self._take_alerts}),
            0x5A: self._mode_sense,
            0xA5: self._move_medium,
            0xA6: self._exchange_medium,
            0xB8: self._read_element_status,
        }

    def __repr__(self) -> str:
        full = [element for element in self.elements.values() if element.cartridge is not None]
        words = [f"changer with {len(full)} of {len(self.elements)} elements full"]
        words += ["jammed"] if self.is_jammed else []
        words += [f"{self.hand.cartridge.card.barcode} in the hand"] if self.hand.cartridge else []
        return f"<{', '.join(words)}>"

    def _add(self, element: Element) -> None:
        assert element.address not in self.elements, "ranges of element addresses overlap"
        self.elements[element.address] = element

    @property
    def hand(self) -> Element:
        return self.elements[self.addresses.transport]

    def of_kind(self, kind: ElementType) -> list[Element]:
        return [element for element in self.elements.values() if element.kind is kind]

    def power_up(self, now: float) -> None:
        """The library looks into every place before it is ready."""
        self.reset()
        self._free_at = now
        self._ready_at = now + self.scan_all()

    def scan_all(self, chosen: Iterable[Element] | None = None) -> float:
        """Read the barcodes; the seconds it takes."""
        looked_at = list(self.elements.values() if chosen is None else chosen)
        for element in looked_at:
            element.scan()
        self.counts.scans += 1
        return self.mechanics.scan_seconds(len(looked_at))

    def jam(self) -> None:
        self.is_jammed = True
        self._alerts.add(HARDWARE_ALERT)

    def settle(self, now: float) -> None:
        for element in self.of_kind(ElementType.DRIVE):
            assert element.drive is not None
            element.drive.settle(now)

    def present_sense(self) -> s.Sense:
        return s.INTERVENTION_NEEDED if self.is_jammed else s.NOTHING

    # --- commands ---

    def _test_unit_ready(self, command: Command) -> Reply:
        self._must_be_ready(command)
        if self.is_jammed:
            raise s.CheckCondition(s.INTERVENTION_NEEDED)
        return Reply()

    def _must_be_ready(self, command: Command) -> None:
        if command.now < self._ready_at:
            raise s.CheckCondition(s.BECOMING_READY)

    def _initialize_element_status(self, command: Command) -> Reply:
        self._must_be_ready(command)
        self._must_move()
        chosen = None
        if command.cdb[0] == 0x37 and command.has(1, 0x01):
            first, count = command.number(2, 2), command.number(6, 2)
            self._element(first, 2)
            chosen = self._from(first)[: count or None]
        return self._busy(command, self.scan_all(chosen), None)

    def _read_element_status(self, command: Command) -> Reply:
        if not command.has(6, 0x02):
            self._must_be_ready(command)
        kind, first, count = command.cdb[1] & 0x0F, command.number(2, 2), command.number(4, 2)
        if kind > max(ElementType):
            raise s.CheckCondition(s.invalid_field(1))
        chosen = [element for element in self._from(first) if kind in (0, element.kind)][:count]
        report = status_report(chosen, with_tags=command.has(1, 0x10), with_devices=command.has(6, 0x01))
        return Reply(report[: command.number(7, 3)])

    def _from(self, first: int) -> list[Element]:
        return [self.elements[address] for address in sorted(self.elements) if address >= first]

    def _position_to_element(self, command: Command) -> Reply:
        self._must_be_ready(command)
        self._hand_of(command.number(2, 2))
        target = self._element(command.number(4, 2), 4)
        self._must_move()
        self._stands_at = target.address
        return self._busy(command, self.mechanics.position_robot_seconds(), None)

    def _move_medium(self, command: Command) -> Reply:
        self._must_be_ready(command)
        self._hand_of(command.number(2, 2))
        source, target = self._element(command.number(4, 2), 4), self._element(command.number(6, 2), 6)
        self._must_move()
        if target is self.hand:
            raise s.CheckCondition(msgspec.structs.replace(s.INVALID_ELEMENT, field=6))
        self._must_be_full(source)
        self._must_be_empty(target)
        if source is not self.hand:
            self._must_be_empty(self.hand)
        seconds = self._free_from_drive(source)
        self._may_jam(source)
        cartridge, origin = self._pick(source)
        if source is not self.hand:
            self.hand.put(cartridge, command.now)
            self.hand.scan()
        self.hand.source = origin
        seconds += self.mechanics.robot_seconds(source.address, target.address)
        if self.jams_next is ElementType.TRANSPORT:
            self.jams_next = None
            self.jam()
            cartridge.save()
            self.counts.failed_moves += 1
            raise s.CheckCondition(s.ROBOT_JAMMED, seconds=seconds)
        self._stands_at = target.address
        return self._busy(command, seconds, (cartridge, target, origin))

    def _exchange_medium(self, command: Command) -> Reply:
        self._must_be_ready(command)
        self._hand_of(command.number(2, 2))
        source = self._element(command.number(4, 2), 4)
        first, second = self._element(command.number(6, 2), 6), self._element(command.number(8, 2), 8)
        self._must_move()
        if self.hand in (source, first, second):
            raise s.CheckCondition(s.INVALID_ELEMENT)
        self._must_be_empty(self.hand)
        self._must_be_full(source)
        self._must_be_full(first)
        if second is not source:
            self._must_be_empty(second)
        if source is first:
            raise s.CheckCondition(s.DESTINATION_FULL)
        seconds = self._free_from_drive(source) + self._free_from_drive(first)
        self._may_jam(source)
        incoming, origin = self._pick(source)
        outgoing, home = self._pick(first)
        places = (source.address, first.address, first.address, second.address)
        seconds += self.mechanics.robot_seconds(*places)
        first.put(incoming, command.now + seconds)
        self._arrived(first, origin)
        second.put(outgoing, command.now + seconds)
        self._arrived(second, home)
        return self._busy(command, seconds, None)

    # --- behind them ---

    def _busy(self, command: Command, seconds: float, placement: Placement | None) -> Reply:
        """The robot begins when it is free and is free again when it has done this."""
        begin = max(command.now, self._free_at)
        self._free_at = begin + seconds

        def finish(now: float) -> None:
            assert placement is not None
            self._put_down(*placement, now)

        return Reply(seconds=self._free_at - command.now, finish=finish if placement else None)

    def _put_down(self, cartridge: Cartridge, target: Element, origin: int | None, now: float) -> None:
        if target.cartridge is not None or self.hand.cartridge is not cartridge:
            target.scan()
            self.hand.scan()
            self.counts.failed_moves += 1
            raise s.CheckCondition(s.DESTINATION_FULL)
        self.hand.take()
        self.hand.scan()
        target.put(cartridge, max(now, self._free_at))
        self._arrived(target, origin)

    def _arrived(self, target: Element, origin: int | None) -> None:
        target.scan()
        target.source = origin
        target.was_put_by_operator = False
        assert target.cartridge is not None
        target.cartridge.card.source = origin
        target.cartridge.save()
        self.counts.moves += 1
        self.counts.loads += target.kind is ElementType.DRIVE

    def _pick(self, source: Element) -> tuple[Cartridge, int | None]:
        """The cartridge and the storage element that it belongs to."""
        origin = source.address if source.kind is ElementType.STORAGE else source.source
        if source is self.hand:
            assert source.cartridge is not None
            return source.cartridge, origin
        cartridge = source.take()
        source.scan()
        return cartridge, origin

    def _free_from_drive(self, source: Element) -> float:
        drive = source.drive
        if drive is None:
            return 0.0
        if self._unloads_drives and drive.head is not None and not drive.is_removal_prevented:
            return drive.unload()
        drive.check_removable()
        return 0.0

    def _may_jam(self, source: Element) -> None:
        if self.jams_next is ElementType.STORAGE:
            self.jams_next = None
            self.jam()
            self.counts.failed_moves += 1
            raise s.CheckCondition(
                s.ROBOT_JAMMED, seconds=self.mechanics.robot_seconds(self._stands_at, source.address)
            )

    def _must_move(self) -> None:
        if self.is_jammed:
            raise s.CheckCondition(s.ROBOT_JAMMED)

    def _must_be_full(self, source: Element) -> None:
        if source.cartridge is None:
            source.scan()
            self.counts.failed_moves += 1
            raise s.CheckCondition(s.SOURCE_EMPTY)

    def _must_be_empty(self, target: Element) -> None:
        if target.cartridge is not None:
            target.scan()
            self.counts.failed_moves += 1
            raise s.CheckCondition(s.DESTINATION_FULL)

    def _hand_of(self, address: int) -> None:
        """0 stands for the only robot there is."""
        if address not in (0, self.addresses.transport):
            raise s.CheckCondition(msgspec.structs.replace(s.INVALID_ELEMENT, field=2))

    def _element(self, address: int, field: int) -> Element:
        found = self.elements.get(address)
        if found is None:
            raise s.CheckCondition(msgspec.structs.replace(s.INVALID_ELEMENT, field=field))
        return found

    def _take_alerts(self) -> list[tuple[int, bytes]]:
        values = [(flag, bytes([flag in self._alerts])) for flag in range(1, 65)]
        self._alerts = {HARDWARE_ALERT} if self.is_jammed else set()
        return values

    def _mode_sense(self, command: Command) -> Reply:
        ranges = (ElementType.TRANSPORT, ElementType.STORAGE, ElementType.IMPORT_EXPORT, ElementType.DRIVE)
        first = self.addresses
        starts = (first.transport, first.storage, first.import_export, first.drives)
        assignment = b"".join(
            start.to_bytes(2, "big") + len(self.of_kind(kind)).to_bytes(2, "big")
            for start, kind in zip(starts, ranges, strict=True)
        )
        moves = bytes([0x0E] * 4)
        pages = {
            0x1D: ModePage.fixed(assignment + bytes(2)),
            0x1E: ModePage.fixed(bytes(2)),
            0x1F: ModePage.fixed(bytes([0x0E, 0]) + moves + bytes(4) + moves + bytes(4)),
        }
        return mode_sense(command, ModeHeader(), pages)
