"""Tape cartridges (reference 2.17): registered by hand or by an import, and what keeps one from being changed or forgotten.

Libraries, changers, drives, elements and the queue are in ``rbcore.resources.tape``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rbcore.entities import Entity, LibrarySlot, Pool, TapeCartridge
from rbcore.media import drive_with, why_kept
from rbcore.resource import Boolean, Choice, Computed, Integer, Reference, Resource, Text, Timestamp
from rbcore.resources.common import BY_POOL, KEEPERS_OF_STORAGE, active_tape_tasks, tape_tasks_sentence, unique
from rbcore.state import State
from rbcore.tape.barcode import CLEANING, agrees, can_partition, is_worm, tape_type_of
from rbcore.vocabulary import (
    CARTRIDGE_STATUSES,
    TAPE_NATIVE_CAPACITY_BYTES,
    TAPE_POOL_TYPES,
    TAPE_TYPES,
    CartridgeStatus,
    PoolType,
)


def _status_of_a_new_one(state: State, values: dict[str, Any]) -> dict[str, Any]:
    if "id" in values:  # a change: its status has a history of its own
        return values
    is_cleaning = values["type"] == CLEANING
    return {**values, "status": CartridgeStatus.CLEANING if is_cleaning else CartridgeStatus.NEW}


def _type_fits_the_bar_code(state: State, id: int, values: Mapping[str, Any]) -> str | None:
    tag, tape_type = values["volume_tag"], values["type"]
    if agrees(tag, tape_type):
        return None
    return f"{'volume_tag' if id else 'type'}: the bar code {tag} says {tape_type_of(tag)}, not {tape_type}"


def _pool_takes_it(state: State, id: int, values: Mapping[str, Any]) -> str | None:
    pool = state.find(Pool, values["pool"])
    if pool is None or id:
        return None
    if pool.pool_type not in TAPE_POOL_TYPES:
        return f"pool: '{pool.pool_name}' is of the type {pool.pool_type}; a cartridge belongs to a tape pool"
    if pool.pool_type != PoolType.TAPE_LTFS or pool.any_tape_format or values["type"] == CLEANING:
        return None
    if not can_partition(values["type"]):
        return f"pool: '{pool.pool_name}' is an LTFS pool, and LTFS needs LTO-5 or newer, not {values['type']}"
    if is_worm(values["volume_tag"]):
        return f"pool: '{pool.pool_name}' is an LTFS pool, and the bar code {values['volume_tag']} says that it is written only once"
    return None


def _tag_can_change(state: State, id: int, values: Mapping[str, Any]) -> str | None:
    """The tag names the cartridge in every message and on its own label: it changes only while nothing depends on it."""
    known = state.find(TapeCartridge, id)
    if known is None or known.volume_tag == values["volume_tag"]:
        return None
    kept = why_kept(state, known)
    if kept:
        return f"volume_tag: it stays {known.volume_tag}: {kept}"
    slot = state.find(LibrarySlot, known.slot_id)
    if slot is not None and slot.volume_tag == known.volume_tag:
        return f"volume_tag: it stays {known.volume_tag}: library {slot.library_id} reads this bar code at element {slot.address}"
    why = _is_mounted(state, known) or _has_tape_tasks(state, known)
    return f"volume_tag: it stays {known.volume_tag}: {why}" if why else None


def _is_kept(state: State, cartridge: Entity) -> str | None:
    assert isinstance(cartridge, TapeCartridge), "a refusal of cartridges"
    return why_kept(state, cartridge) or None


def _is_mounted(state: State, cartridge: Entity) -> str | None:
    drive = drive_with(state, cartridge.id)
    return f"it is mounted in drive {drive.id}" if drive is not None else None


def _has_tape_tasks(state: State, cartridge: Entity) -> str | None:
    assert isinstance(cartridge, TapeCartridge), "a refusal of cartridges"
    tasks = [one for one in active_tape_tasks(state, cartridge.library_id) if one.cartridge_id == cartridge.id]
    return tape_tasks_sentence(tasks) or ("the robot is moving it" if cartridge.moving_to_slot_id else None)


def _size(cartridge: TapeCartridge) -> int | None:
    return cartridge.capacity_bytes or TAPE_NATIVE_CAPACITY_BYTES.get(cartridge.type)


TAPE_CARTRIDGES = Resource(
    name="tape_cartridges",
    kind=TapeCartridge.KIND,
    title="Tape Cartridges",
    noun="tape cartridge",
    entity=TapeCartridge,
    fields=(
        Choice(
            name="type",
            required=True,
            values=TAPE_TYPES,
            example="LTO-9",
            description="Fits the bar code, where that tells one. CLN: a cleaning cartridge. Never changes.",
        ),
        Text(
            name="volume_tag",
            required=True,
            max_length=32,
            pattern=r"[A-Z0-9]{1,32}",
            example="RB10001L9",
            indexed=True,
            description="The bar code. Unique. Changes only while no archive is on the cartridge and no library reads the old one.",
        ),
        Reference(
            name="pool",
            required=True,
            to=Pool.KIND,
            by="pool_name",
            example="tape_pool",
            description="A tape pool. Changed by importing the cartridge into another.",
        ),
        Text(name="description", default=""),
        Choice(name="status", values=CARTRIDGE_STATUSES, indexed=True),
        Text(name="status_reason"),
        Computed(
            name="library_id",
            of=lambda cartridge: cartridge.library_id or None,
            kind="integer",
            description="Where it was seen last.",
        ),
        Computed(name="slot_id", of=lambda cartridge: cartridge.slot_id or None, kind="integer"),
        Reference(
            name="slot",
            attribute="slot_id",
            to=LibrarySlot.KIND,
            by="name",
            description="The element it lies in, type and address; null: in no library.",
        ),
        Reference(
            name="location",
            attribute="slot_id",
            to=LibrarySlot.KIND,
            by="type",
            description="storage, drive or import-export; null: in no library.",
        ),
        Boolean(name="exported", description="Taken out by an export; an import brings it back."),
        Computed(
            name="size", of=_size, kind="integer", description="Bytes, as measured or, before that, as the type says."
        ),
        Integer(name="used", attribute="used_bytes", unit="bytes"),
        Computed(
            name="free",
            of=lambda cartridge: max(0, (_size(cartridge) or 0) - cartridge.used_bytes) if _size(cartridge) else None,
            kind="integer",
            description="Bytes up to size; compression may make room for more.",
        ),
        Text(name="format", description="native or ltfs; empty: not labelled."),
        Computed(name="has_ltfs", of=lambda cartridge: cartridge.format == "ltfs", kind="boolean"),
        Boolean(name="write_protected"),
        Computed(
            name="errors",
            of=lambda cartridge: cartridge.read_errors + cartridge.write_errors + cartridge.load_errors,
            kind="integer",
        ),
        Integer(name="load_count"),
        Timestamp(name="last_mounted", attribute="last_mounted_ns", event_time=True),
        Timestamp(name="last_written", attribute="last_written_ns", event_time=True),
        Timestamp(name="created", attribute="created_ns", event_time=True),
        Timestamp(name="labelled", attribute="labelled_ns", event_time=True, in_list=False),
        Text(name="label_id", in_list=False, description="Id by its own label, hex."),
        Integer(name="use", in_list=False, description="How often it was labelled."),
        Text(name="intent", in_list=False, description="label or erase: nobody knows how that ended."),
        Reference(name="home_slot", attribute="home_slot_id", to=LibrarySlot.KIND, by="name", in_list=False),
        Reference(name="moving_to_slot", attribute="moving_to_slot_id", to=LibrarySlot.KIND, by="name", in_list=False),
        Integer(name="read_errors", in_list=False),
        Integer(name="write_errors", in_list=False),
        Integer(name="load_errors", in_list=False),
    ),
    create=("type", "pool", "volume_tag", "description"),
    change=("volume_tag", "description"),
    prepare=_status_of_a_new_one,
    rules=(
        unique(TapeCartridge.KIND, "volume_tag", "tape cartridge"),
        _type_fits_the_bar_code,
        _pool_takes_it,
        _tag_can_change,
    ),
    refusals=(_is_kept, _is_mounted, _has_tape_tasks),
    deletable=True,
    manage=KEEPERS_OF_STORAGE,
    searchable_name="volume_tag",
    scope=BY_POOL,
)
