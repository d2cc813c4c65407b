"""Media management: which cartridge is used for what, and what may happen to one. Pure functions of the state (reference 3.18, 3.19).

Belongs here: who holds a cartridge, where an archive's parts are, which cartridge a new archive goes to, in which order a cartridge is
read. Does not belong here: which drive does it and when (``rbcore.tape_dispatch``), what the bytes look like (``rbcore.tape``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import msgspec

from rbcore.entities import Backup, LibrarySlot, MediumChanger, Pool, TapeCartridge, TapeDrive, TapeLibrary, Task
from rbcore.errors import NotFound
from rbcore.state import State
from rbcore.vocabulary import ACTIVE_STATUSES, CartridgeStatus, DriveStatus, LibraryStatus, SlotType

_NAMED_MAX = 20
"""Things named in one sentence; more are counted."""


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """The cartridge for a new archive or part, and why; ``rejected``: why not the others, one sentence each."""

    cartridge: TapeCartridge | None
    reason: str
    rejected: list[str] = []
    relabel: bool = False
    """What is on it is nobody's any more: label it before writing."""


def named(things: Iterable[object]) -> str:
    """``7, 8, 9`` or, of many, the first ones and how many more."""
    shown = [str(one) for one in things]
    rest = f" and {len(shown) - _NAMED_MAX} more" if len(shown) > _NAMED_MAX else ""
    return ", ".join(shown[:_NAMED_MAX]) + rest


# --- who holds a cartridge -------------------------------------------------------------------------------------------------


def backups_on(state: State, cartridge_id: int) -> list[int]:
    """Ids of the backups of the repository of which a part is on it, ascending."""
    return sorted(state.indexes.backups_on_cartridge.get(cartridge_id, ()))


def writers_of(state: State, cartridge: TapeCartridge) -> list[int]:
    """Tasks under way whose unfinished archives have a part on it."""
    tasks = [state.find(Task, one) for one in cartridge.written_by]
    return [task.id for task in tasks if task is not None and task.status in ACTIVE_STATUSES]


def why_kept(state: State, cartridge: TapeCartridge) -> str:
    """Why what is on it must stay; empty when it may be erased, formatted or labelled anew."""
    backups = backups_on(state, cartridge.id)
    if backups:
        return f"backups of the repository are on it (ids {named(backups)})"
    writers = writers_of(state, cartridge)
    return f"tasks under way have written to it (ids {named(writers)})" if writers else ""


# --- where it is -------------------------------------------------------------------------------------------------------------


def place_of(state: State, cartridge: TapeCartridge) -> str:
    """For people: ``slot 1024 of library 1``, ``exported``, ``in no library``."""
    slot = state.find(LibrarySlot, cartridge.slot_id)
    if slot is None:
        return "exported" if cartridge.exported else "in no library"
    words = {SlotType.STORAGE: "slot", SlotType.IMPORT_EXPORT: "import-export element", SlotType.DRIVE: "drive element"}
    exported = ", exported" if cartridge.exported else ""
    return f"{words[slot.type]} {slot.address} of library {slot.library_id}{exported}"


def drive_with(state: State, cartridge_id: int) -> TapeDrive | None:
    """The drive in which it is mounted, or being mounted."""
    cartridge = state.find(TapeCartridge, cartridge_id)
    for number in state.indexes.drives_of_library.get(cartridge.library_id if cartridge else 0, ()):
        drive = state.find(TapeDrive, number)
        if drive is not None and drive.cartridge_id == cartridge_id:
            return drive
    return None


def changer_of(state: State, library_id: int) -> MediumChanger:
    """Raises ``NotFound``."""
    for changer in state.all(MediumChanger):
        if changer.library_id == library_id:
            return changer
    raise NotFound(f"Library {library_id} has no medium changer.")


def why_unreachable(state: State, cartridge_id: int) -> str:
    """Why no robot can bring this cartridge to a drive now; empty when it can. Names the tag and says what to do."""
    cartridge = state.find(TapeCartridge, cartridge_id)
    if cartridge is None:
        return f"cartridge {cartridge_id} is not registered any more"
    library = state.find(TapeLibrary, cartridge.library_id)
    if cartridge.exported:
        return f"cartridge {cartridge.volume_tag} is exported: put it into the library and import it"
    if not cartridge.slot_id or library is None:
        return f"cartridge {cartridge.volume_tag} is in no library: put it in and synchronise the library"
    slot = state.find(LibrarySlot, cartridge.slot_id)
    if slot is not None and slot.exception:
        return f"cartridge {cartridge.volume_tag} is at element {slot.address}, of which the changer says: {slot.exception}"
    if library.status != LibraryStatus.ONLINE:
        return f"cartridge {cartridge.volume_tag} is in library {library.id}, which is {library.status}: {library.status_reason}"
    return ""


# --- reading -----------------------------------------------------------------------------------------------------------------


def cartridges_of(backups: Sequence[Backup]) -> list[int]:
    """Cartridges that hold the archives of a chain (full first), in the order in which they are read, each once."""
    return list(dict.fromkeys(part.cartridge_id for backup in backups for part in backup.parts))


def missing_for(state: State, backups: Sequence[Backup]) -> list[str]:
    """One sentence per cartridge that these backups need and that cannot be reached now."""
    return [why for one in cartridges_of(backups) if (why := why_unreachable(state, one))]


# --- writing -----------------------------------------------------------------------------------------------------------------


def libraries_for(state: State, pool: Pool) -> list[TapeLibrary]:
    """Libraries in which the pool can be written: those made for it, and those that hold cartridges of it; those online first."""
    holding = {
        cartridge.library_id
        for one in state.indexes.cartridges_of_pool.get(pool.id, ())
        if (cartridge := state.find(TapeCartridge, one)) is not None
    }
    found = [one for one in state.all(TapeLibrary) if one.pool == pool.id or one.id in holding]
    return sorted(found, key=lambda one: (one.status != LibraryStatus.ONLINE, one.pool != pool.id, one.id))


def usable_drives(state: State, library_id: int) -> list[TapeDrive]:
    """Drives that are not quarantined and answer, ascending by id."""
    drives = [state.find(TapeDrive, one) for one in sorted(state.indexes.drives_of_library.get(library_id, ()))]
    return [one for one in drives if one is not None and one.status not in (DriveStatus.OFFLINE, DriveStatus.ERROR)]


_ORDER = {
    CartridgeStatus.APPENDABLE: 0,
    CartridgeStatus.SCRATCH: 1,
    CartridgeStatus.NEW: 1,
    CartridgeStatus.EXPIRED: 2,
}


def standing(state: State, cartridge: TapeCartridge) -> str:
    """Its status as writing sees it: a full one on which nothing must stay (its task ended without an archive) is as good as expired."""
    is_free = cartridge.status == CartridgeStatus.FULL and not why_kept(state, cartridge)
    return CartridgeStatus.EXPIRED if is_free else cartridge.status


def choose_for_writing(
    state: State, library_id: int, pool_id: int, *, taken: Collection[int] = (), prefer: int = 0
) -> Chosen:
    """The cartridge on which a new archive or part of the pool begins.

    First one that is appendable, the fullest first so that cartridges get full one after the other; then scratch; then one whose archives are
    all gone, the one longest not written. ``taken``: cartridges in use otherwise. ``prefer``: a cartridge that is mounted, taken when it is
    appendable.
    """
    candidates: list[TapeCartridge] = []
    rejected: list[str] = []
    for number in sorted(state.indexes.cartridges_of_pool.get(pool_id, ())):
        cartridge = state.find(TapeCartridge, number)
        assert cartridge is not None, "the index follows the table"
        why_not = _why_not_written(state, cartridge, library_id, taken)
        if why_not:
            rejected.append(f"Cartridge {cartridge.volume_tag}: {why_not}.")
        else:
            candidates.append(cartridge)
    if not candidates:
        pool = state.find(Pool, pool_id)
        name = pool.pool_name if pool is not None else f"{pool_id}"
        reason = f"no cartridge of pool '{name}' in library {library_id} can be written: add or import one"
        return Chosen(cartridge=None, reason=reason, rejected=rejected[:_NAMED_MAX])
    chosen = min(
        candidates,
        key=lambda one: (
            _ORDER[standing(state, one)],
            one.id != prefer,
            -one.used_bytes if one.status == CartridgeStatus.APPENDABLE else one.last_written_ns,
            one.volume_tag,
        ),
    )
    why = {
        CartridgeStatus.APPENDABLE: "is the fullest of the pool that takes more",
        CartridgeStatus.SCRATCH: "is the first scratch of the pool",
        CartridgeStatus.NEW: "is the first scratch of the pool",
        CartridgeStatus.EXPIRED: "holds no archive any more, and no scratch is left",
    }[standing(state, chosen)]
    if chosen.id == prefer and chosen.status == CartridgeStatus.APPENDABLE:
        why = "is mounted and takes more"
    relabel = chosen.status != CartridgeStatus.APPENDABLE
    reason = f"cartridge {chosen.volume_tag} {why}"
    return Chosen(cartridge=chosen, reason=reason, rejected=rejected[:_NAMED_MAX], relabel=relabel)


def _why_not_written(state: State, cartridge: TapeCartridge, library_id: int, taken: Collection[int]) -> str:
    if standing(state, cartridge) not in _ORDER:
        reason = f" ({cartridge.status_reason})" if cartridge.status_reason else ""
        return f"it is {cartridge.status}{reason}"
    if cartridge.library_id != library_id or not cartridge.slot_id:
        return f"it is not in the library, but {place_of(state, cartridge)}"
    if (why := why_unreachable(state, cartridge.id)) != "":
        return why
    slot = state.find(LibrarySlot, cartridge.slot_id)
    if slot is not None and slot.type == SlotType.IMPORT_EXPORT:
        return "it lies in an import-export element: import it"
    if slot is not None and slot.type == SlotType.DRIVE and (why := _why_drive_keeps(state, slot)):
        return why
    if cartridge.write_protected:
        return "it is write protected"
    if cartridge.intent:
        return f"nobody knows how its last {cartridge.intent} ended: format or erase it"
    if cartridge.id in taken:
        return "it is in use"
    if cartridge.status != CartridgeStatus.APPENDABLE and (why := why_kept(state, cartridge)):
        return why
    return ""


def _why_drive_keeps(state: State, slot: LibrarySlot) -> str:
    """A drive that does not answer does not unload either: another cartridge is written meanwhile, if there is one."""
    for number in sorted(state.indexes.drives_of_library.get(slot.library_id, ())):
        drive = state.find(TapeDrive, number)
        if drive is None or drive.element_address != slot.address:
            continue
        if drive.status in (DriveStatus.OFFLINE, DriveStatus.ERROR):
            return f"it lies in drive {drive.id}, which is {drive.status} ({drive.status_reason}): unload it by hand"
    return ""
