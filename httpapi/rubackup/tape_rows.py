"""What rows of tape resources show beyond their own columns: it follows from other records, so it is told of the present only.

Of the past (``?at=``) these keys are null. Columns that time travel can answer are declared in ``rbcore.resources.tape`` and ``tape_cartridges``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from httpapi import schema
from httpapi.call import Call
from httpapi.method import Schema
from rbcore.entities import Backup, LibrarySlot, MediumChanger, Pool, TapeCartridge
from rbcore.media import backups_on
from rbcore.state import State
from rbcore.vocabulary import SlotType


def _number(description: str) -> Schema:
    return {"type": ["integer", "null"], "minimum": 0, "description": f"{description} Null in the past."}


CHANGER: Schema = {
    "type": ["object", "null"],
    "properties": {
        "id": schema.ID,
        "device": {"type": "string"},
        "vendor": {"type": "string"},
        "model": {"type": "string"},
        "serial": {"type": "string"},
    },
    "description": "The robot. Null in the past.",
}

ADDED: dict[str, dict[str, Schema]] = {
    "tape_libraries": {
        "medium_changer": CHANGER,
        "drives": _number("Tape drives."),
        "slots_total": _number("Storage elements."),
        "slots_used": _number("Storage elements that are full."),
        "import_export_slots": _number("Import-export elements."),
        "unknown_cartridges": {
            "type": ["array", "null"],
            "items": {"type": "string"},
            "description": "Bar codes in it that nobody registered. Null in the past.",
        },
    },
    "library_slots": {
        "pool": {"type": ["string", "null"], "description": "Pool of its cartridge. Null in the past."},
    },
    "tape_cartridges": {"archives": _number("Archives of the repository of which a part is on it.")},
    "repository": {
        "parts": {
            "type": ["array", "null"],
            "items": {
                "type": "object",
                "properties": {
                    "volume_tag": {"type": ["string", "null"]},
                    "part": {"type": "integer"},
                    "stored_bytes": {"type": "integer"},
                },
                "required": ["volume_tag", "part", "stored_bytes"],
            },
            "description": "On cartridges: its parts, in order; empty: it lies in a directory. Null in the past.",
        }
    },
}
"""Keys per resource, with their schemas."""


def changer_of(state: State, library_id: int) -> MediumChanger | None:
    """The robot of a library."""
    return next((one for one in state.all(MediumChanger) if one.library_id == library_id), None)


def slots_of(state: State, library_id: int) -> list[LibrarySlot]:
    """Its elements, ascending by id."""
    found = [state.find(LibrarySlot, one) for one in sorted(state.indexes.slots_of_library.get(library_id, ()))]
    return [one for one in found if one is not None]


def _library(state: State, row: dict[str, Any]) -> dict[str, Any]:
    changer, slots = changer_of(state, row["id"]), slots_of(state, row["id"])
    total = Counter(one.type for one in slots)
    return {
        "medium_changer": None
        if changer is None
        else {
            "id": changer.id,
            "device": changer.device,
            "vendor": changer.vendor,
            "model": changer.product,
            "serial": changer.serial,
        },
        "drives": len(state.indexes.drives_of_library.get(row["id"], ())),
        "slots_total": total[SlotType.STORAGE],
        "slots_used": sum(1 for one in slots if one.type == SlotType.STORAGE and one.is_full),
        "import_export_slots": total[SlotType.IMPORT_EXPORT],
        "unknown_cartridges": unknown_in(slots),
    }


def unknown_in(slots: list[LibrarySlot]) -> list[str]:
    """Bar codes that nobody registered, each once."""
    return sorted({one.volume_tag for one in slots if one.is_full and one.volume_tag and not one.cartridge_id})


def _slot(state: State, row: dict[str, Any]) -> dict[str, Any]:
    cartridge = state.find(TapeCartridge, row["cartridge_id"] or 0)
    pool = state.find(Pool, cartridge.pool) if cartridge is not None else None
    return {"pool": pool.pool_name if pool is not None else None}


def _cartridge(state: State, row: dict[str, Any]) -> dict[str, Any]:
    return {"archives": len(backups_on(state, row["id"]))}


def _backup(state: State, row: dict[str, Any]) -> dict[str, Any]:
    backup = state.find(Backup, row["id"])
    parts = backup.parts if backup is not None else ()
    return {
        "parts": [
            {
                "volume_tag": held.volume_tag if (held := state.find(TapeCartridge, one.cartridge_id)) else None,
                "part": one.part,
                "stored_bytes": one.stored_bytes,
            }
            for one in parts
        ]
    }


def _adjustment(resource: str, of: Callable[[State, dict[str, Any]], dict[str, Any]]) -> Callable[..., None]:
    nothing = dict.fromkeys(ADDED[resource])

    def adjust(call: Call, row: dict[str, Any]) -> None:
        row.update(nothing if "at" in call.query else of(call.services.journal.state, row))

    return adjust


ADJUSTMENTS: dict[str, Callable[[Call, dict[str, Any]], None]] = {
    name: _adjustment(name, of)
    for name, of in (
        ("tape_libraries", _library),
        ("library_slots", _slot),
        ("tape_cartridges", _cartridge),
        ("repository", _backup),
    )
}
