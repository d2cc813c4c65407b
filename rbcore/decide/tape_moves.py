"""Moves of the robot, and what they are for: exports and imports. Each is an intent and its outcome; what the changer reports corrects both
(``rbcore.decide.tape_inventory``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from rbcore.commands import BeginMove, Command, Context, EndMove, ImportCartridges, MarkExported
from rbcore.decide.decision import Decision, Draft, bounded, get
from rbcore.decide.fields import invalid
from rbcore.decide.tape_inventory import slots_of
from rbcore.entities import LibrarySlot, Pool, TapeCartridge, TapeLibrary
from rbcore.errors import NotAllowedNow, Refused
from rbcore.events import (
    CartridgeExported,
    CartridgeImported,
    CartridgeMoveBegun,
    CartridgeMoved,
    CartridgeMoveFailed,
)
from rbcore.media import drive_with, place_of, why_kept
from rbcore.state import State
from rbcore.tape.barcode import CLEANING, can_partition, is_well_formed, is_worm, tape_type_of
from rbcore.vocabulary import TAPE_POOL_TYPES, CartridgeStatus, PoolType, SlotType

TITLE: Final = "Library Slots"


def begin_move(state: State, command: BeginMove, context: Context) -> Decision:
    cartridge = get(state, TapeCartridge, command.cartridge_id, "tape cartridge")
    target = get(state, LibrarySlot, command.to_slot_id, "tape library slot")
    source = state.find(LibrarySlot, cartridge.slot_id)
    tag = cartridge.volume_tag
    if source is None:
        raise NotAllowedNow(
            f"Cartridge {tag} cannot be moved: it is {place_of(state, cartridge)}. Synchronise the library."
        )
    why = _why_not_moved(state, cartridge, source, target)
    if why:
        raise NotAllowedNow(f"Cartridge {tag} cannot be moved to element {target.address}: {why}.")
    draft = Draft(state)
    event = CartridgeMoveBegun(source.id, target.id, bounded([command.reason])[0], command.tape_task_id)
    draft.add(TapeCartridge, cartridge.id, event)
    return draft.decision(ids=[cartridge.id])


def _why_not_moved(state: State, cartridge: TapeCartridge, source: LibrarySlot, target: LibrarySlot) -> str:
    if cartridge.moving_to_slot_id:
        return "it is on its way already, and nobody knows how that ended: synchronise the library"
    if target.library_id != source.library_id:
        return f"it lies in library {source.library_id}, and that is an element of library {target.library_id}"
    if source.exception:
        return f"it lies at element {source.address}, of which the changer says: {source.exception}"
    if target.exception:
        return f"the changer says of that element: {target.exception}"
    if target.is_full:
        return f"{target.volume_tag or 'a cartridge without a bar code'} lies there"
    coming = [one for one in state.all(TapeCartridge) if one.moving_to_slot_id == target.id]
    if coming:
        return f"cartridge {coming[0].volume_tag} is on its way there"
    drive = drive_with(state, cartridge.id)
    if drive is None:
        return ""
    if not drive.mounting:
        return f"it is mounted in drive {drive.id}: dismount it first"
    if not drive.mounted_ns and target.address != drive.element_address:
        return f"it is being mounted in drive {drive.id}"
    return ""


def end_move(state: State, command: EndMove, context: Context) -> Decision:
    """A late or repeated report changes nothing: the inventory knew better by then."""
    cartridge = get(state, TapeCartridge, command.cartridge_id, "tape cartridge")
    draft = Draft(state)
    if cartridge.moving_to_slot_id:
        target = state.find(LibrarySlot, cartridge.moving_to_slot_id)
        failure = command.failure or ("" if target is not None else "the element is not there any more")
        if failure or target is None:
            draft.add(TapeCartridge, cartridge.id, CartridgeMoveFailed(bounded([failure])[0]))
        else:
            draft.add(TapeCartridge, cartridge.id, CartridgeMoved(cartridge.slot_id, target.id))
    return draft.decision(ids=[cartridge.id])


def mark_exported(state: State, command: MarkExported, context: Context) -> Decision:
    cartridge = get(state, TapeCartridge, command.cartridge_id, "tape cartridge")
    slot = state.find(LibrarySlot, cartridge.slot_id)
    draft = Draft(state)
    if not cartridge.exported:
        if slot is None or slot.type != SlotType.IMPORT_EXPORT:
            raise NotAllowedNow(
                f"Cartridge {cartridge.volume_tag} is not exported: it lies in no import-export element, but is {place_of(state, cartridge)}."
            )
        draft.add(TapeCartridge, cartridge.id, CartridgeExported(bounded([command.reason])[0]))
    return draft.decision(ids=[cartridge.id])


# --- import ----------------------------------------------------------------------------------------------------------------


def import_cartridges(state: State, command: ImportCartridges, context: Context) -> Decision:
    """All or nothing. Reply ids: the cartridges, ascending by element. Data: tags by what happened to them.

    A cartridge with archives of the repository stays in its own pool, which they belong to.
    """
    library = get(state, TapeLibrary, command.library_id, "tape library")
    pool = _pool_named(state, library, command.pool_name)
    full = [one for one in slots_of(state, library.id) if one.type == SlotType.IMPORT_EXPORT and one.is_full]
    if not full:
        raise NotAllowedNow(
            f"No cartridge lies in an import-export element of library {library.id}: put one in, and import again."
        )
    errors = {f"{one.address}": [why] for one in full if (why := _why_not_imported(state, one, pool))}
    if errors:
        raise Refused(next(iter(errors.values()))[0], errors=errors)
    draft = Draft(state)
    ids: list[int] = []
    tags: dict[str, list[str]] = {"registered": [], "imported": [], "kept_in_pool": []}
    for slot in full:
        cartridge = state.find(TapeCartridge, slot.cartridge_id)
        if cartridge is None:
            ids.append(_register(draft, slot.volume_tag, pool))
            tags["registered"].append(slot.volume_tag)
            continue
        ids.append(cartridge.id)
        stays = cartridge.pool != pool.id and bool(why_kept(state, cartridge))
        pool_id = cartridge.pool if stays else pool.id
        tags["kept_in_pool" if stays else "imported"].append(cartridge.volume_tag)
        if cartridge.exported or cartridge.pool != pool_id:
            draft.add(TapeCartridge, cartridge.id, CartridgeImported(pool_id))
    return draft.decision(ids=ids, data=tags)


def _pool_named(state: State, library: TapeLibrary, name: str) -> Pool:
    pool = state.by_key(Pool, name)
    if pool is None:
        raise invalid(TITLE, {"pool_name": [f"pool_name: there is no pool '{name}'"]})
    why = ""
    if pool.pool_type not in TAPE_POOL_TYPES:
        why = f"'{name}' is of the type {pool.pool_type}; cartridges belong to a tape pool"
    elif pool.media_server != library.media_server:
        why = f"'{name}' belongs to another media server than library {library.id}"
    if why:
        raise invalid(TITLE, {"pool_name": [f"pool_name: {why}"]})
    return pool


def _why_not_imported(state: State, slot: LibrarySlot, pool: Pool) -> str:
    tag, where = slot.volume_tag, f"import-export element {slot.address}"
    if slot.exception:
        return f"What lies in the {where} is not imported: {slot.exception}."
    if state.find(TapeCartridge, slot.cartridge_id) is not None:
        return ""
    if not tag:
        return f"The bar code of the cartridge in the {where} cannot be read: take it out, or give it another label."
    if not is_well_formed(tag):
        return f"The bar code '{tag}' in the {where} is not one of A-Z and 0-9: give the cartridge another label."
    other = state.by_key(TapeCartridge, tag)
    if other is not None:
        return f"Cartridge {tag} in the {where} is known, and {place_of(state, other)}: synchronise the libraries."
    tape_type = tape_type_of(tag)
    if tape_type is None:
        return (
            f"The bar code {tag} in the {where} does not tell the type of the cartridge: register it (tape_cartridges)."
        )
    if (
        pool.pool_type == PoolType.TAPE_LTFS
        and tape_type != CLEANING
        and (is_worm(tag) or not can_partition(tape_type))
    ):
        return f"Cartridge {tag} in the {where} cannot be an LTFS volume, which pool '{pool.pool_name}' needs: name another pool."
    return ""


def _register(draft: Draft, tag: str, pool: Pool) -> int:
    tape_type = tape_type_of(tag)
    assert tape_type is not None, "the caller has looked"
    status = CartridgeStatus.CLEANING if tape_type == CLEANING else CartridgeStatus.NEW
    cartridge = TapeCartridge(
        id=draft.take_id(TapeCartridge), type=tape_type, volume_tag=tag, pool=pool.id, status=status
    )
    draft.add_record(cartridge)
    return cartridge.id


DECIDERS: dict[type[Command], Callable[[State, Any, Context], Decision]] = {
    BeginMove: begin_move,
    EndMove: end_move,
    MarkExported: mark_exported,
    ImportCartridges: import_cartridges,
}
