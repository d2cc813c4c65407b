"""What is done again and again: rules and strategies of backups, and what clients ask for."""

from __future__ import annotations

from rbcore.entities.base import Entity


class BackupStrategy(Entity, frozen=True, kw_only=True):
    """Timetables of full, incremental and differential backups, for every resource that a strategy rule binds to it."""

    KIND = "backup_strategy"
    name: str
    description: str = ""
    created_ns: int = 0
