"""The pure dictionaries: read-only lists of ``{"id", "name"}`` from the vocabulary (reference 1), numbered from 1 in its order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from httpapi import schema
from httpapi.call import Call
from httpapi.envelope import Answer
from httpapi.listing import PARAMETERS, payload_of_rows
from httpapi.method import Method, Schema
from httpapi.rubackup.catalogue import action, documented
from rbcore import vocabulary
from rbcore.errors import NotFound

Rows = tuple[dict[str, Any], ...]


def _named(names: tuple[str, ...]) -> Rows:
    return tuple({"id": number, "name": name} for number, name in enumerate(names, start=1))


def _hash_algorithms() -> Rows:
    """One row per acceptable pair, because a pool names both."""
    pairs = [
        (algorithm, length)
        for algorithm, lengths in vocabulary.DEDUPLICATION_HASH_LENGTHS_BITS.items()
        for length in lengths
    ]
    return tuple(
        {"id": number, "name": algorithm, "hash_length": length}
        for number, (algorithm, length) in enumerate(pairs, start=1)
    )


def _tape_types() -> Rows:
    capacities = vocabulary.TAPE_NATIVE_CAPACITY_BYTES
    return tuple(row | {"native_capacity": capacities.get(row["name"])} for row in _named(vocabulary.TAPE_TYPES))


DICTIONARIES: Mapping[str, tuple[str, Rows]] = {
    "backup_types": ("backup type", _named(vocabulary.BACKUP_TYPES)),
    "compression_type": ("compression type", _named(vocabulary.COMPRESSION_TYPES)),
    "crypto": ("encryption algorithm", _named(vocabulary.CRYPTO)),
    "deduplication_hash_algorithm": ("hash algorithm", _hash_algorithms()),
    "destination_storage_types": ("storage type", _named(vocabulary.DESTINATION_STORAGE_TYPES)),
    "disaster_recovery_record_status": ("record status", _named(vocabulary.DISASTER_RECOVERY_STATUSES)),
    "license_types": ("licence type", _named(vocabulary.LICENSE_TYPES)),
    "notifications_status": ("notification status", _named(vocabulary.NOTIFICATION_STATUSES)),
    "os_types": ("OS type", _named(vocabulary.OS_TYPES)),
    "resourse_types": ("resource type", _named(vocabulary.RESOURCE_TYPES)),
    "status_of_rule": ("rule status", _named(vocabulary.RULE_STATUSES)),
    "tape_types": ("cartridge type", _tape_types()),
    "task_status": ("task status", _named(vocabulary.TASK_STATUSES)),
    "verification_status": ("verification status", _named(vocabulary.VERIFICATION_STATUSES)),
}
"""Path -> (noun, rows)."""


def row_schema(rows: Rows) -> Schema:
    properties: Schema = {"id": schema.ID, "name": {"type": "string", "enum": list({row["name"]: 0 for row in rows})}}
    for name in rows[0]:
        properties.setdefault(name, {"type": ["integer", "null"]})
    return {"type": "object", "properties": properties, "required": list(properties)}


def _methods_of(path: str, noun: str, rows: Rows) -> list[Method]:
    async def list_all(call: Call) -> Answer:
        return Answer(payload_of_rows(rows, call.query))

    async def show(call: Call) -> Answer:
        row_id = call.id(noun)
        if row_id > len(rows):
            raise NotFound(f"{noun} not found", errors={"id": [f"There is no {noun} with id {row_id}."]})
        return Answer(rows[row_id - 1])

    row = row_schema(rows)
    made = [action("GET", f"/{path}", query=PARAMETERS[:-1], data=schema.listing(row))(list_all)]
    if documented("GET", f"/{path}/{{id}}"):
        made.append(action("GET", f"/{path}/{{id}}", data=row)(show))
    return made


METHODS = tuple(method for path, (noun, rows) in DICTIONARIES.items() for method in _methods_of(path, noun, rows))
