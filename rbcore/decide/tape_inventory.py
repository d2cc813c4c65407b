"""The inventory of a tape library: what its changer reports, against the log. The world wins, and every difference is an event.

Belongs here: comparing elements, and closing the intents that the comparison answers. Does not belong here: moves that are ordered
(``rbcore.decide.tape_moves``), what an event does to cartridges and slots (``rbcore.evolve_tape``).

A cartridge is known by its bar code. Where a changer reports a full element without one, the log is believed as long as the changer does not read
that bar code elsewhere: who the cartridge is shows its label when it is mounted. A bar code at two elements is a fault that hands must mend:
the log puts the cartridge into one of them, both get an exception, and nobody chooses it (``rbcore.media.why_unreachable``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rbcore.commands import Command, Context, ElementFacts, RecordInventory
from rbcore.decide.decision import Decision, Draft, bounded, get
from rbcore.entities import LibrarySlot, TapeCartridge, TapeDrive, TapeLibrary
from rbcore.errors import InvalidRequest
from rbcore.events import (
    CartridgeMoved,
    CartridgeMoveFailed,
    DriveDismounted,
    DriveMountFailed,
    LibraryStatusChanged,
    RecordChanged,
    RecordDeleted,
    SlotContentsChanged,
)
from rbcore.media import named
from rbcore.state import State
from rbcore.tape.barcode import clean_tag
from rbcore.vocabulary import SLOT_TYPES, LibraryStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One element as it is, told by bar code."""

    address: int
    type: str
    is_full: bool
    volume_tag: str
    cartridge_id: int
    """Registered and in this element; 0: none, or one that nobody registered."""
    exception: str

    def contents(self) -> tuple[bool, str, int, str]:
        return self.is_full, self.volume_tag, self.cartridge_id, self.exception


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """All elements of a library, ascending by address."""

    seen: list[Seen]
    unknown: list[str]
    """Tags that nobody registered."""
    twice: list[str]
    untagged: list[int]
    """Addresses of full elements of whose contents nothing is known."""

    def data(self) -> dict[str, Any]:
        return {"unknown": self.unknown, "twice": self.twice, "untagged": self.untagged}

    def message(self) -> str:
        """What hands must mend; empty when there is nothing."""
        found = [
            f"The tag {tag} is there twice: take one of the cartridges out, and synchronise the library."
            for tag in self.twice
        ]
        if self.untagged:
            where = named(self.untagged)
            found.append(f"No bar code can be read at the elements {where}: look there, and synchronise the library.")
        return " ".join(bounded(found))


def record_inventory(state: State, command: RecordInventory, context: Context) -> Decision:
    library = get(state, TapeLibrary, command.library_id, "tape library")
    look = look_at(state, library.id, command.elements)
    draft = Draft(state)
    reason = bounded([command.reason])[0]
    compare(draft, library.id, look, reason)
    places = {one.cartridge_id: one for one in look.seen if one.cartridge_id}
    _close_moves(draft, library.id, places, reason)
    _close_mounts(draft, library.id, look, places, reason)
    if library.status == LibraryStatus.OFFLINE:
        draft.add(TapeLibrary, library.id, LibraryStatusChanged(LibraryStatus.ONLINE, reason))
    data = look.data() | {"changes": len(draft.events)}
    return draft.decision(ids=[library.id], message=look.message(), data=data)


def slots_of(state: State, library_id: int) -> list[LibrarySlot]:
    """Elements of the library that can hold cartridges, ascending by address."""
    found = [state.tables[LibrarySlot.KIND][one] for one in state.indexes.slots_of_library.get(library_id, ())]
    return sorted(found, key=lambda one: one.address)


def drives_of(state: State, library_id: int) -> list[TapeDrive]:
    return [state.tables[TapeDrive.KIND][one] for one in sorted(state.indexes.drives_of_library.get(library_id, ()))]


# --- who lies where --------------------------------------------------------------------------------------------------------


def look_at(state: State, library_id: int, elements: Sequence[ElementFacts]) -> Look:
    """What the changer reports, with registered cartridges in place. Raises ``InvalidRequest`` for a report that cannot be one."""
    _check(elements)
    ordered = sorted(elements, key=lambda one: one.address)
    tags = {one.address: clean_tag(one.volume_tag) for one in ordered if one.is_full}
    counts = Counter(tag for tag in tags.values() if tag)
    slots = {one.address: one for one in slots_of(state, library_id)}
    empty = {slots[one.address].id for one in ordered if not one.is_full and one.address in slots}
    moving = _moving(state, slots.values())
    places, elsewhere = _places(state, library_id, tags)
    seen: list[Seen] = []
    unknown: list[str] = []
    untagged: list[int] = []
    for element in ordered:
        tag = tags.get(element.address, "")
        cartridge_id, exceptions = 0, [element.exception] if element.exception else []
        if element.is_full and not tag:
            silent = _untold(state, slots.get(element.address), moving, counts, empty)
            if silent is None:
                untagged.append(element.address)
            else:
                cartridge_id, tag = silent.id, silent.volume_tag
        elif tag:
            known = state.by_key(TapeCartridge, tag)
            if known is None:
                unknown.append(tag)
            elif places.get(known.id) == element.address:
                cartridge_id = known.id
            if counts[tag] > 1:
                exceptions.append(f"the tag {tag} is there twice")
            elif known is not None and known.id in elsewhere:
                exceptions.append(f"the tag {tag} is there twice: it is mounted in library {elsewhere[known.id]}")
        seen.append(
            Seen(
                address=element.address,
                type=element.type,
                is_full=element.is_full,
                volume_tag=tag,
                cartridge_id=cartridge_id,
                exception="; ".join(exceptions),
            )
        )
    twice = [tag for tag, count in counts.items() if count > 1]
    twice += [state.tables[TapeCartridge.KIND][one].volume_tag for one in sorted(elsewhere)]
    return Look(seen=seen, unknown=list(dict.fromkeys(unknown)), twice=list(dict.fromkeys(twice)), untagged=untagged)


def _check(elements: Sequence[ElementFacts]) -> None:
    if not elements:
        raise InvalidRequest("The changer reports no element at all: that is no inventory. Look at the library.")
    counts = Counter(one.address for one in elements)
    again = sorted(address for address, count in counts.items() if count > 1)
    if again:
        raise InvalidRequest(f"The changer reports elements twice (addresses {named(again)}): that is no inventory.")
    strange = sorted(one.address for one in elements if one.type not in SLOT_TYPES or one.address < 0)
    if strange:
        raise InvalidRequest(f"Elements that hold no cartridges are in the inventory (addresses {named(strange)}).")


def _places(state: State, library_id: int, tags: dict[int, str]) -> tuple[dict[int, int], dict[int, int]]:
    """Cartridge id -> the one address where it counts as lying; cartridge id -> the other library in which it is mounted.

    Of two elements with its tag: the drive in which it is mounted, because there its label was read; otherwise the first.
    """
    places: dict[int, int] = {}
    elsewhere: dict[int, int] = {}
    mounted = {one.cartridge_id: one for one in state.all(TapeDrive) if one.cartridge_id}
    for address, tag in tags.items():
        cartridge = state.by_key(TapeCartridge, tag) if tag else None
        if cartridge is None:
            continue
        drive = mounted.get(cartridge.id)
        if drive is not None and drive.library_id != library_id:
            elsewhere[cartridge.id] = drive.library_id
        elif cartridge.id not in places or (drive is not None and drive.element_address == address):
            places[cartridge.id] = address
    return places, elsewhere


def _moving(state: State, slots: Iterable[LibrarySlot]) -> dict[int, TapeCartridge]:
    """Slot id -> the cartridge that was on its way there."""
    known = {one.id for one in slots}
    return {
        one.moving_to_slot_id: one
        for one in state.all(TapeCartridge)
        if one.moving_to_slot_id and one.moving_to_slot_id in known
    }


def _untold(
    state: State,
    slot: LibrarySlot | None,
    moving: dict[int, TapeCartridge],
    counts: Counter[str],
    empty: set[int],
) -> TapeCartridge | None:
    """Whose element it is by the log, when it is full and tells no bar code: the one that lies there, or was on its way there from a slot that is
    empty now."""
    if slot is None:
        return None
    lies = state.find(TapeCartridge, slot.cartridge_id)
    if lies is not None:
        return None if counts[lies.volume_tag] else lies
    comes = moving.get(slot.id)
    if comes is None or counts[comes.volume_tag] or comes.slot_id not in empty:
        return None
    return comes


# --- the differences -------------------------------------------------------------------------------------------------------


def compare(draft: Draft, library_id: int, look: Look, reason: str) -> None:
    """Add an event for every difference: new and vanished elements, then what is empty or unknown, then what holds a cartridge.

    So a cartridge leaves its element before it appears in another one, and two that changed places are nowhere in between.
    """
    slots = {one.address: one for one in slots_of(draft.state, library_id)}
    emptied: list[tuple[int, SlotContentsChanged]] = []
    filled: list[tuple[int, SlotContentsChanged]] = []
    for one in look.seen:
        slot = slots.get(one.address)
        if slot is None:
            slot = _new_slot(draft, library_id, one)
        elif slot.type != one.type:
            draft.add(LibrarySlot, slot.id, RecordChanged({"type": one.type}))
        if (slot.is_full, slot.volume_tag, slot.cartridge_id, slot.exception) != one.contents():
            changes = filled if one.cartridge_id else emptied
            event = SlotContentsChanged(one.is_full, one.volume_tag, one.cartridge_id, one.exception, reason)
            changes.append((slot.id, event))
    reported = {one.address for one in look.seen}
    in_use = {one.element_address for one in drives_of(draft.state, library_id) if one.cartridge_id}
    for address, slot in slots.items():
        if address not in reported and address not in in_use:
            draft.add(LibrarySlot, slot.id, RecordDeleted())
    for slot_id, event in [*emptied, *filled]:
        draft.add(LibrarySlot, slot_id, event)


def _new_slot(draft: Draft, library_id: int, seen: Seen) -> LibrarySlot:
    """A registered cartridge is put into it by an event of its own."""
    is_known = bool(seen.cartridge_id)
    slot = LibrarySlot(
        id=draft.take_id(LibrarySlot),
        library_id=library_id,
        address=seen.address,
        type=seen.type,
        is_full=seen.is_full and not is_known,
        volume_tag="" if is_known else seen.volume_tag,
        exception="" if is_known else seen.exception,
    )
    draft.add_record(slot)
    return slot


def _close_moves(draft: Draft, library_id: int, places: dict[int, Seen], reason: str) -> None:
    """No move of this library stays without its outcome."""
    state = draft.state
    for cartridge in state.all(TapeCartridge):
        if not cartridge.moving_to_slot_id:
            continue
        target = state.find(LibrarySlot, cartridge.moving_to_slot_id)
        if (target.library_id if target is not None else cartridge.library_id) != library_id:
            continue
        place = places.get(cartridge.id)
        if target is not None and place is not None and place.address == target.address:
            event = CartridgeMoved(cartridge.slot_id, target.id, reason)
            draft.add(TapeCartridge, cartridge.id, event)
        else:
            where = f"it lies in the {place.type} element {place.address}" if place is not None else "it is not there"
            draft.add(TapeCartridge, cartridge.id, CartridgeMoveFailed(f"{reason}: {where}"))


def _close_mounts(draft: Draft, library_id: int, look: Look, places: dict[int, Seen], reason: str) -> None:
    """A drive does not hold what its element does not hold. A mount whose cartridge is still waiting for the robot goes on."""
    state = draft.state
    reported = {one.address for one in look.seen}
    for drive in drives_of(state, library_id):
        if not drive.cartridge_id or drive.element_address not in reported:
            continue
        place = places.get(drive.cartridge_id)
        if place is not None and place.address == drive.element_address:
            continue
        where = f"it lies in the {place.type} element {place.address}" if place is not None else "it is not there"
        text = f"{reason}: the cartridge is not in the drive any more, {where}"
        if not drive.mounting or drive.mounted_ns:
            draft.add(TapeDrive, drive.id, DriveDismounted(drive.cartridge_id, text))
            continue
        cartridge = state.find(TapeCartridge, drive.cartridge_id)
        slot = state.by_key(LibrarySlot, (library_id, drive.element_address))
        was_brought = (
            cartridge is not None and slot is not None and slot.id in (cartridge.slot_id, cartridge.moving_to_slot_id)
        )
        if place is None or was_brought:
            draft.add(TapeDrive, drive.id, DriveMountFailed(drive.cartridge_id, text))


DECIDERS: dict[type[Command], Callable[[State, Any, Context], Decision]] = {RecordInventory: record_inventory}
