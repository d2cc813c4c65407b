"""Parameters of modules (reference 2.24): what the .../extension methods return.

The answer has the shape of a task's body, so that it can be sent back with changes, and a ``form`` that describes each
parameter to a user interface.
"""

from __future__ import annotations

from typing import Any

import msgspec

from httpapi import schema
from rbcore.errors import InvalidRequest
from rbcore.vocabulary import RESOURCE_TYPES, ResourceType


class ModuleParameter(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    type: str
    """``boolean``, ``integer``, ``text``."""
    default: Any
    description: str
    minimum: int | None = None
    maximum: int | None = None
    choices: list[str] = []


def _flag(name: str, default: bool, description: str) -> ModuleParameter:
    return ModuleParameter(name=name, type="boolean", default=default, description=description)


def _text(name: str, description: str) -> ModuleParameter:
    return ModuleParameter(name=name, type="text", default="", description=description)


_WORKERS = ModuleParameter(
    name="worker_parallelism",
    type="integer",
    default=8,
    minimum=1,
    maximum=64,
    description="Workers that read, compress and encrypt side by side.",
)
_MEMORY = ModuleParameter(
    name="memory_threshold",
    type="integer",
    default=0,
    minimum=0,
    maximum=1_048_576,
    description="GiB of memory that the module may use; 0: no limit of its own.",
)
COMMON: tuple[ModuleParameter, ...] = (
    _WORKERS,
    _flag("enable_multithreading", False, "Several threads within one worker."),
    _flag("enable_flexible_dedup", False, "Variable placement of deduplicated blocks."),
    ModuleParameter(
        name="network_parallelism",
        type="integer",
        default=8,
        minimum=1,
        maximum=64,
        description="Transfers side by side.",
    ),
    _MEMORY,
    _flag("deny_memory_exceed", False, "Fail rather than go slower at the limit."),
)
COMMON_RESTORE: tuple[ModuleParameter, ...] = (_WORKERS, _MEMORY)

FILE_SYSTEM: tuple[ModuleParameter, ...] = (
    _flag("file_list", True, "Keep the names of all files with the backup."),
    _flag("numeric_owner", False, "Restore owners by number instead of by name."),
    _flag("use_snapshot", False, "Read from a snapshot of the volume."),
    _flag("ignore_errors_snapshot", True, "Read the live file system when the snapshot fails."),
    _text("snapshot_type", "Kind of snapshot; empty: what the volume offers."),
    ModuleParameter(
        name="snapshot_size",
        type="integer",
        default=10,
        minimum=1,
        maximum=100,
        description="Size of the snapshot in percent of the volume.",
    ),
    _text("script_before_snapshot", "Program to run before the snapshot or the first read."),
    _text("script_after_snapshot", "Program to run afterwards."),
    _text("script_error_snapshot", "Program to run when it failed."),
)
FILE_SYSTEM_RESTORE: tuple[ModuleParameter, ...] = (
    _text("new_name", "Name of the restored resource where it has one; files keep theirs."),
)

_BACKUP: dict[str, tuple[ModuleParameter, ...]] = {ResourceType.FILE_SYSTEM: FILE_SYSTEM}
_RESTORE: dict[str, tuple[ModuleParameter, ...]] = {ResourceType.FILE_SYSTEM: FILE_SYSTEM_RESTORE}


def for_backup(resource_type: str, stored: dict[str, Any] | None = None) -> dict[str, Any]:
    """Parameters of a backup of this type; ``stored`` are those of a task, which win over the defaults."""
    _check(resource_type)
    return _answer(_BACKUP.get(resource_type, ()), COMMON, stored or {})


def for_restore(resource_type: str, stored: dict[str, Any] | None = None) -> dict[str, Any]:
    _check(resource_type)
    return _answer(_RESTORE.get(resource_type, ()), COMMON_RESTORE, stored or {})


def _check(resource_type: str) -> None:
    if resource_type not in RESOURCE_TYPES:
        sentence = f"Must be one of: {', '.join(RESOURCE_TYPES)}."
        raise InvalidRequest("Bad request", errors={"resourse_type": [sentence]})


def _answer(
    module: tuple[ModuleParameter, ...], common: tuple[ModuleParameter, ...], stored: dict[str, Any]
) -> dict[str, Any]:
    return {
        "module_extensions": {"parameters": _values(module, stored.get("module_extensions"))},
        "common_modules_extensions": {"parameters": _values(common, stored.get("common_modules_extensions"))},
        "form": {
            "module_extensions": [msgspec.to_builtins(one) for one in module],
            "common_modules_extensions": [msgspec.to_builtins(one) for one in common],
        },
    }


def _values(parameters: tuple[ModuleParameter, ...], stored: Any) -> dict[str, Any]:
    defaults = {one.name: one.default for one in parameters}
    given = stored.get("parameters", stored) if isinstance(stored, dict) else {}
    return defaults | given


_PARAMETERS = {
    "type": "object",
    "properties": {"parameters": {"type": "object", "description": "Values by name."}},
    "required": ["parameters"],
}
_FORM = {"type": "array", "items": {"$ref": "#/components/schemas/ModuleParameter"}}
DATA: schema.Schema = {
    "type": "object",
    "properties": {
        "module_extensions": _PARAMETERS,
        "common_modules_extensions": _PARAMETERS,
        "form": {
            "type": "object",
            "properties": {"module_extensions": _FORM, "common_modules_extensions": _FORM},
            "required": ["module_extensions", "common_modules_extensions"],
        },
    },
    "required": ["module_extensions", "common_modules_extensions", "form"],
}
COMPONENTS: dict[str, schema.Schema] = msgspec.json.schema_components(
    [ModuleParameter], ref_template="#/components/schemas/{name}"
)[1]
