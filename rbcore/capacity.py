"""Room: size, used and free bytes of what a pool is made of (reference 2.6).

What is used follows from the log. Of directories, size and free space are facts of the outside (``CatalogFacts``) and belong to the file system, where others may
write too; of cartridges and block devices the log knows both.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from rbcore.commands import CatalogFacts
from rbcore.entities import BlockDevice, Pool, TapeCartridge
from rbcore.media import standing
from rbcore.state import State
from rbcore.vocabulary import TAPE_NATIVE_CAPACITY_BYTES, TAPE_POOL_TYPES, CartridgeStatus, PoolType

_HOLDS_NOTHING = frozenset({CartridgeStatus.NEW, CartridgeStatus.SCRATCH, CartridgeStatus.EXPIRED})


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes. ``free`` is what can still be written, so it may be less than the difference of the others."""

    size: int | None
    """None: nobody knows now."""
    used: int
    free: int | None


def room_of_pool(state: State, pool: Pool, fact_of: Callable[[int], CatalogFacts | None]) -> Room:
    """Of everything in the pool. ``fact_of(catalog id)``: the newest look at a catalog; a directory that does not answer leaves size and free unknown.

    Directories on one file system count once. A pool of which this release writes nothing, and which has no device, has no room at all.
    """
    if pool.pool_type in TAPE_POOL_TYPES:
        return room_on_cartridges(state, pool.id)
    if pool.pool_type == PoolType.BLOCK_DEVICE:
        size = sum(one.size_bytes for one in state.all(BlockDevice) if one.pool == pool.id)
        return Room(size=size, used=0, free=size)
    used = state.indexes.backup_bytes_of("pool_id", pool.id)
    if pool.pool_type != PoolType.FILE_SYSTEM:
        return Room(size=None, used=used, free=None)
    facts = [fact_of(one) for one in sorted(state.indexes.catalogs_of_pool.get(pool.id, ()))]
    known = [one for one in facts if one is not None and one.online]
    if len(known) < len(facts):
        return Room(size=None, used=used, free=None)
    # Of a file system that nobody can tell from others each directory counts by itself.
    once = {one.file_system or -one.local_catalog_id: one for one in known}.values()
    return Room(size=sum(one.size_bytes for one in once), used=used, free=sum(one.free_bytes for one in once))


def room_of_catalog(state: State, catalog_id: int, fact: CatalogFacts | None) -> Room:
    used = state.indexes.backup_bytes_of("local_catalog_id", catalog_id)
    if fact is None or not fact.online:
        return Room(size=None, used=used, free=None)
    return Room(size=fact.size_bytes, used=used, free=fact.free_bytes)


def free_on_cartridges(state: State, pool_id: int) -> int:
    """Bytes that can still be written on the pool's cartridges."""
    return room_on_cartridges(state, pool_id).free or 0


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
