"""What happens to tape libraries, by name. ``library.faults`` does it to a simulated one.

The fault model. Cartridges wear out, break, lose single records, are write-protected, carry a wrong or unreadable barcode; hands put
them in, take them out and swap them, with the library noticing or not. Drives die and get dirty. The robot jams, with the hand empty or
full. Connections are cut, buses reset, and the power of the whole library fails: what drives had in their buffers is then lost, or a
drawn part of it. Never happens: a record that a flush had acknowledged is lost or changed.

Call these between trio's scheduling points, as everything here; with real threads, while no command is under way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from drivers.simulated.tape import sense as s
from drivers.simulated.tape.elements import Element, ElementType
from drivers.simulated.tape.partition import FILEMARK
from rbcore.errors import NotFound, Refused

if TYPE_CHECKING:
    from drivers.simulated.tape.library import SimulatedLibrary


class Faults:
    """Bad luck on demand."""

    def __init__(self, library: SimulatedLibrary) -> None:
        self._library = library

    # --- cartridges ---

    def wear_out(self, barcode: str, *, writes_left: int | None = None, reads_left: int | None = None) -> None:
        """After so many more records each write fails with 3/0c/00, each read with 3/11/00. None: no limit."""
        cartridge = self._library.cartridge(barcode)
        cartridge.card.damages.writes_left = writes_left
        cartridge.card.damages.reads_left = reads_left
        cartridge.save()

    def break_cartridge(self, barcode: str, *, broken: bool = True) -> None:
        """The next load fails with 3/53/00."""
        cartridge = self._library.cartridge(barcode)
        cartridge.card.damages.broken = broken
        cartridge.save()

    def spoil_record(self, barcode: str, number: int, partition: int = 0) -> None:
        """Reading this object fails with 3/11/00 until it is overwritten."""
        cartridge = self._library.cartridge(barcode)
        cartridge.card.damages.unreadable.append((partition, number))
        cartridge.save()

    def spoil_some_record(self, barcode: str) -> tuple[int, int]:
        """One that is drawn; (partition, object number). Raises ``NotFound`` when there is none."""
        cartridge = self._library.cartridge(barcode)
        records = [
            (partition, number)
            for partition, tape in enumerate(cartridge.partitions)
            for number in range(len(tape))
            if tape.size(number) != FILEMARK
        ]
        if not records:
            raise NotFound(f"there is no record on {barcode}")
        partition, number = records[self._library.draw(len(records))]
        self.spoil_record(barcode, number, partition)
        return partition, number

    def write_protect(self, barcode: str, *, protected: bool = True) -> None:
        """Move the tab."""
        cartridge = self._library.cartridge(barcode)
        cartridge.card.write_protected = protected
        cartridge.save()

    def hide_barcode(self, barcode: str, *, hidden: bool = True) -> None:
        """The label cannot be read at the next scan."""
        cartridge = self._library.cartridge(barcode)
        cartridge.card.barcode_readable = not hidden
        cartridge.save()

    def relabel(self, barcode: str, label: str) -> None:
        """Stick another label on it, also one that another cartridge has."""
        cartridge = self._library.cartridge(barcode)
        cartridge.card.barcode = label
        cartridge.save()

    # --- hands ---

    def take_out(self, address: int, *, noticed: bool = True) -> str:
        """Take what lies there out of the library; its barcode. ``noticed``: the library scans and says 6/28/00."""
        element = self._library.element(address)
        self._reach_into(element)
        if element.cartridge is None:
            raise NotFound(f"there is nothing at element {address}")
        cartridge = element.take()
        self._library.outside[cartridge.path.rpartition("/")[2]] = cartridge
        cartridge.save()
        self._touched(noticed, element)
        return cartridge.card.barcode

    def put_in(self, barcode: str, address: int, *, noticed: bool = True) -> None:
        """Put a cartridge that is outside into an element."""
        element = self._library.element(address)
        self._reach_into(element)
        if element.cartridge is not None:
            raise Refused(f"element {address} is full")
        cartridge = self._library.cartridge(barcode)
        name = cartridge.path.rpartition("/")[2]
        if name not in self._library.outside:
            raise Refused(f"{barcode} is in the library")
        del self._library.outside[name]
        element.put(cartridge, trio.current_time())
        element.was_put_by_operator = True
        cartridge.save()
        self._touched(noticed, element)

    def swap(self, one: int, other: int, *, noticed: bool = False) -> None:
        """Exchange what lies at two elements; one of them may be empty."""
        first, second = self._library.element(one), self._library.element(other)
        self._reach_into(first)
        self._reach_into(second)
        held = [element.take() if element.cartridge is not None else None for element in (first, second)]
        for element, cartridge in zip((second, first), held, strict=True):
            if cartridge is not None:
                element.put(cartridge, trio.current_time())
                cartridge.save()
        self._touched(noticed, first, second)

    def _reach_into(self, element: Element) -> None:
        changer = self._library.changer_unit
        if element.kind is ElementType.IMPORT_EXPORT and changer.is_removal_prevented:
            raise Refused("the import/export station is locked")

    def _touched(self, noticed: bool, *elements: Element) -> None:
        if noticed:
            for element in elements:
                element.scan()
            station = all(element.kind is ElementType.IMPORT_EXPORT for element in elements)
            self._library.changer_unit.attention(s.IMPORT_EXPORT_ACCESSED if station else s.MEDIUM_CHANGED)

    # --- drives and robot ---

    def kill_drive(self, number: int, *, after_records: int | None = None) -> None:
        """No answers any more, at once or instead of writing the record after so many; its buffer is lost. Until ``reset_drive``."""
        drive = self._library.drive_units[number]
        if after_records is not None:
            drive.faults.records_until_death = after_records
            return
        drive.die()
        self._strike(f"drive {number} died", lun=1 + number, carries_on=False, stays_down=False)

    def reset_drive(self, number: int) -> None:
        """A dead drive comes back with 6/29/00 and threads its cartridge again; a living one loses its buffer."""
        self._library.drive_units[number].power_up(trio.current_time())

    def require_cleaning(self, number: int) -> None:
        """Dirty heads: TapeAlert 20, REQUEST SENSE 0/00/17."""
        self._library.drive_units[number].require_cleaning()

    def jam_robot(self) -> None:
        """Every move fails with 4/15/01 until ``clear_jam``."""
        self._library.changer_unit.jam()

    def jam_next_move(self, *, in_hand: bool) -> None:
        """The next move jams, with the cartridge still in its place or in the hand."""
        self._library.changer_unit.jams_next = ElementType.TRANSPORT if in_hand else ElementType.STORAGE

    def clear_jam(self) -> None:
        """Somebody opened the door and helped; what was in the hand stays there. The library scans: 6/28/00."""
        changer = self._library.changer_unit
        changer.is_jammed = False
        changer.scan_all()
        changer.attention(s.MEDIUM_CHANGED)

    # --- connections and power ---

    def cut(self, lun: int | None = None) -> None:
        """The connection is gone (all of them for None); devices go on with what they do. Until ``mend``."""
        self._strike("the connection is cut", lun=lun, carries_on=True, stays_down=True)

    def mend(self, lun: int | None = None) -> None:
        """The connection can be made again: a new login, first command 6/29/00, earlier holds gone."""
        for transport in self._library.transports:
            if lun is None or transport.unit is self._unit(lun):
                transport.mend()
                transport.log_in_again()

    def reset_bus(self) -> None:
        """Commands under way get no answer; holds, reservations and mode parameters are gone; everybody gets 6/29/00."""
        self._strike("the bus was reset", lun=None, carries_on=True, stays_down=False)
        self._library.changer_unit.reset()
        for drive in self._library.drive_units:
            drive.reset_bus()

    def lose_power(self) -> None:
        """Everything stands still; the drives' buffers are lost. Until ``restore_power``."""
        self._strike("the library has no power", lun=None, carries_on=False, stays_down=True)
        for drive in self._library.drive_units:
            drive.die()
        carried = self._library.changer_unit.hand.cartridge
        if carried is not None:
            carried.save()

    def restore_power(self) -> None:
        """Drives thread what lies in them, the library scans itself, then all is ready: 6/29/00."""
        now = trio.current_time()
        for drive in self._library.drive_units:
            drive.power_up(now)
        self._library.changer_unit.power_up(now)
        for transport in self._library.transports:
            transport.mend()

    def _unit(self, lun: int) -> object:
        return (self._library.changer_unit, *self._library.drive_units)[lun]

    def _strike(self, reason: str, *, lun: int | None, carries_on: bool, stays_down: bool) -> None:
        for transport in self._library.transports:
            if lun is None or transport.unit is self._unit(lun):
                transport.strike(reason, carries_on=carries_on, stays_down=stays_down)
