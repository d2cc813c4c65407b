"""The published RuBackup REST API: its methods, from the declared resources and from small handlers.

Belongs here: what the manual says of this API (``catalogue``) and the methods that are more than records. Does not belong here:
decisions (``rbcore``), SQL (``eventlog.views``), and whatever the other APIs need too (``httpapi``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from httpapi.call import Call
from httpapi.method import Handler, Method, Schema, at_any_moment
from httpapi.records import Live, methods_of
from httpapi.rubackup import (
    auth,
    clients,
    configuration,
    devices,
    dictionaries,
    journals,
    logs,
    media_servers,
    monitoring,
    pools,
    repository,
    requests,
    schedule,
    server,
    storage_rows,
    tape,
    tape_drives,
    tape_slots,
    tasks,
    users,
)
from httpapi.rubackup.catalogue import complete, documented
from rbcore.resources import RESOURCES

_MODULES = (
    auth,
    server,
    configuration,
    devices,
    clients,
    pools,
    media_servers,
    tasks,
    journals,
    logs,
    monitoring,
    repository,
    dictionaries,
    tape,
    tape_slots,
    tape_drives,
    users,
    schedule,
    requests,
)
_OVERRIDES: dict[str, dict[str, Handler]] = {"task_queue": tasks.OVERRIDES, "repository": repository.OVERRIDES}
_ADJUSTMENTS: dict[str, Callable[[Call, dict[str, Any]], None]] = storage_rows.ADJUSTMENTS
_LIVE: dict[str, Live] = {"task_queue": tasks.live_progress}
_ADDED: dict[str, dict[str, Schema]] = storage_rows.ADDED


def methods() -> tuple[Method, ...]:
    """Every method that is served: declared records first, then handlers, which take the place of a record's method."""
    found: dict[str, Method] = {}
    for resource in RESOURCES:
        made = methods_of(
            resource,
            documented,
            overrides=_OVERRIDES.get(resource.name),
            adjust=_ADJUSTMENTS.get(resource.name),
            added=_ADDED.get(resource.name),
            live=_LIVE.get(resource.name),
        )
        found |= {one.name: complete(one) for one in made}
    for module in _MODULES:
        for method in module.METHODS:
            found[method.name] = method
    return tuple(at_any_moment(found[name]) for name in sorted(found, key=_place))


def _place(name: str) -> tuple[str, str]:
    verb, _, path = name.partition(" ")
    return path, verb


__all__ = ["methods"]
