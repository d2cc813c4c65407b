"""Room on cartridges: size, used and free bytes of what a tape pool is made of, as far as the log knows.

Belongs here: what follows from the state alone. Does not belong here: what a directory or a device says of itself now (``CatalogFacts``).
"""

from __future__ import annotations

import msgspec

from rbcore.entities import TapeCartridge
from rbcore.media import standing
from rbcore.state import State
from rbcore.vocabulary import TAPE_NATIVE_CAPACITY_BYTES, CartridgeStatus

_HOLDS_NOTHING = frozenset({CartridgeStatus.NEW, CartridgeStatus.SCRATCH, CartridgeStatus.EXPIRED})


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes. ``free`` is what can still be written, so it may be less than the difference of the others."""

    size: int
    used: int
    free: int


def room_on_cartridges(state: State, pool_id: int) -> Room:
    """Of all cartridges of the pool, in a library or not. A cartridge that was never labelled counts with its generation's native capacity."""
    size = used = free = 0
    for number in state.indexes.cartridges_of_pool.get(pool_id, ()):
        cartridge: TapeCartridge = state.tables[TapeCartridge.KIND][number]
        capacity = cartridge.capacity_bytes or TAPE_NATIVE_CAPACITY_BYTES.get(cartridge.type, 0)
        status = standing(state, cartridge)
        taken = 0 if status in _HOLDS_NOTHING else cartridge.used_bytes
        size += capacity
        used += taken
        if status in _HOLDS_NOTHING or status == CartridgeStatus.APPENDABLE:
            free += max(0, capacity - taken)
    return Room(size=size, used=used, free=free)
