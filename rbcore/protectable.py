"""What a backup can be ordered of and into: said once for urgent backups, rules, strategies, requests and plans. Pure."""

from __future__ import annotations

import re
from typing import Final

from rbcore.entities import Client, Pool
from rbcore.interval import Duration, parse_interval
from rbcore.vocabulary import PATH_RESOURCE_TYPES, POOL_TYPES_WITH_DATA_PLANE

_ABSOLUTE: Final = re.compile(r"/.*", re.DOTALL)


def path_problem(path: str) -> str:
    """Why it is no path that can be backed up or restored to; empty: it is one."""
    if not _ABSOLUTE.fullmatch(path):
        return "it must be an absolute path"
    if any(part in (".", "..") for part in path.split("/")):
        return "'.' and '..' have no place in it"
    return ""


def resource_problem(resource_type: str, resource: str) -> str:
    """Why no module of the type knows such a resource; empty: one may."""
    return path_problem(resource) if resource_type in PATH_RESOURCE_TYPES else ""


def module_problem(client: Client, resource_type: str) -> str:
    """Why the client cannot back the type up; empty: it can."""
    if resource_type in client.resource_types:
        return ""
    can = ", ".join(client.resource_types) or "nothing yet"
    return f"Client {client.hostname} has no module for it; it can back up: {can}."


def pool_problem(pool: Pool) -> str:
    """Why no backup can be written into the pool; empty: one can."""
    if pool.pool_type in POOL_TYPES_WITH_DATA_PLANE:
        return ""
    return (
        f"Pool '{pool.pool_name}' is of the type {pool.pool_type}, to which this release cannot write yet; "
        f"name a pool of the type {', '.join(sorted(POOL_TYPES_WITH_DATA_PLANE))}."
    )


def is_nothing(interval: str | None) -> bool:
    """Whether an interval is there and is not longer than nothing."""
    return interval is not None and parse_interval(interval) == Duration()
