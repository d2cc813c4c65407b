"""Indexes of the state: what decisions look up instead of scanning.

An index is a function of the tables alone. ``State.replace`` changes it together with its table and ``State.take_back`` does
the same with the two sides exchanged, so indexes are never recorded, never digested, and right after every undo.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from typing import Any

from rbcore.entities import (
    Administrator,
    Backup,
    BackupStrategy,
    BlockDevice,
    Client,
    ClientGroup,
    DynamicPoolGroup,
    DynamicPoolGroupRecord,
    Entity,
    FormerClient,
    LibrarySlot,
    LocalCatalog,
    LoginFailures,
    Maintainer,
    MediaServer,
    MediumChanger,
    PendingRemoval,
    Pool,
    PoolSubstitution,
    StrategyAdministrator,
    Supervisor,
    TapeCartridge,
    TapeDrive,
    TapeTask,
    Task,
    UnauthorisedClient,
    UnauthorisedMediaServer,
    User,
    UserGroup,
)
from rbcore.vocabulary import ACTIVE_TAPE_TASK_STATUSES, TASK_STATUSES

_ACTIVE = frozenset(ACTIVE_TAPE_TASK_STATUSES)

KEYS: dict[str, Callable[[Any], Any]] = {
    User.KIND: lambda user: user.username,
    UserGroup.KIND: lambda group: group.groupname,
    Supervisor.KIND: lambda role: role.user,
    Maintainer.KIND: lambda role: (role.media_server, role.user),
    Administrator.KIND: lambda role: (role.client_group, role.user),
    StrategyAdministrator.KIND: lambda role: (role.strategy, role.user),
    ClientGroup.KIND: lambda group: group.name,
    MediaServer.KIND: lambda server: server.hostname,
    Pool.KIND: lambda pool: pool.pool_name,
    LocalCatalog.KIND: lambda catalog: catalog.path,
    Client.KIND: lambda client: client.hwid,
    FormerClient.KIND: lambda client: client.hwid,
    UnauthorisedClient.KIND: lambda client: (client.hwid, client.public_key),
    UnauthorisedMediaServer.KIND: lambda server: (server.hwid, server.public_key),
    Backup.KIND: lambda backup: (backup.archive, backup.pool_id),
    PendingRemoval.KIND: lambda removal: (removal.archive, removal.local_catalog_id),
    LoginFailures.KIND: lambda failures: (failures.user_name, failures.address),
    MediumChanger.KIND: lambda changer: changer.device,
    TapeDrive.KIND: lambda drive: drive.device,
    LibrarySlot.KIND: lambda slot: (slot.library_id, slot.address),
    TapeCartridge.KIND: lambda cartridge: cartridge.volume_tag,
    BackupStrategy.KIND: lambda strategy: strategy.name,
    BlockDevice.KIND: lambda device: device.device,
    PoolSubstitution.KIND: lambda substitution: substitution.pool,
    DynamicPoolGroup.KIND: lambda group: group.name,
    DynamicPoolGroupRecord.KIND: lambda record: (record.dynamic_pool_group, record.pool),
}
"""Kind -> the key, besides its id, that names one entity of the kind."""

ASSIGNMENTS = frozenset({Supervisor.KIND, Maintainer.KIND, Administrator.KIND, StrategyAdministrator.KIND})
"""Kinds that give a user a role."""

BackupGroup = tuple[int, str, str]
"""Client id, resource type, canonical resource: backups that may form chains with each other."""


class Indexes:
    """See the module. Read by decisions; changed by ``State`` alone."""

    __slots__ = (
        "_backup_bytes",
        "_backups",
        "active_tape_tasks",
        "assignments_of_user",
        "backups_on_cartridge",
        "by_key",
        "cartridges_of_pool",
        "catalogs_of_pool",
        "children",
        "drives_of_library",
        "ended_tape_tasks",
        "ended_tape_tasks_of_task",
        "groups",
        "limits_of_client",
        "online_clients",
        "records_of_group",
        "slots_of_library",
        "tape_tasks_of_task",
        "tasks_by_status",
    )

    def __init__(self) -> None:
        self.by_key: dict[str, dict[Any, int]] = {kind: {} for kind in KEYS}
        self.tasks_by_status: dict[str, set[int]] = {status: set() for status in TASK_STATUSES}
        self.online_clients: set[int] = set()
        self.assignments_of_user: dict[int, set[tuple[str, int]]] = {}
        """User id -> kinds and ids of what gives him roles."""
        self.children: dict[int, set[int]] = {}
        """Backup id -> ids of the backups whose parent it is."""
        self.groups: dict[BackupGroup, set[int]] = {}
        self.catalogs_of_pool: dict[int, set[int]] = {}
        self.limits_of_client: dict[int, set[int]] = {}
        """Client id -> ids of its limits of bandwidth."""
        self.records_of_group: dict[int, set[int]] = {}
        """Dynamic pool group id -> ids of its records."""
        self.backups_on_cartridge: dict[int, set[int]] = {}
        self.cartridges_of_pool: dict[int, set[int]] = {}
        self.slots_of_library: dict[int, set[int]] = {}
        self.drives_of_library: dict[int, set[int]] = {}
        self.active_tape_tasks: dict[int, set[int]] = {}
        """Library id -> ids of its tape tasks that have not ended."""
        self.tape_tasks_of_task: dict[int, set[int]] = {}
        """Task id -> ids of its tape tasks that have not ended."""
        self.ended_tape_tasks: dict[int, list[int]] = {}
        """Library id -> ids of its tape tasks that have ended, ascending. The oldest ones are removed, so they have an order."""
        self.ended_tape_tasks_of_task: dict[int, set[int]] = {}
        """Task id -> ids of its tape tasks that have ended."""
        self._backups: dict[tuple[str, int], int] = {}
        self._backup_bytes: dict[tuple[str, int], int] = {}

    def backups_of(self, attribute: str, id: int) -> int:
        """How many backups name ``id`` in ``client_id``, ``pool_id``, ``local_catalog_id`` or ``library_id``."""
        return self._backups.get((attribute, id), 0)

    def backup_bytes_of(self, attribute: str, id: int) -> int:
        """How many bytes the archives of those backups occupy."""
        return self._backup_bytes.get((attribute, id), 0)

    def update(self, kind: str, before: Any, after: Any) -> None:
        """``before`` was the entity, ``after`` is; None: there was or is none."""
        if kind == "task":
            self._update_task(before, after)
            return
        key_of = KEYS.get(kind)
        if key_of is not None:
            self._update_key(self.by_key[kind], key_of, before, after)
        if kind == "backup":
            self._update_backup(before, after)
        elif kind == "local_catalog":
            _regroup(self.catalogs_of_pool, "pool", before, after)
        elif kind == "dynamic_pool_group_record":
            _regroup(self.records_of_group, "dynamic_pool_group", before, after)
        elif kind == "client_bandwidth":
            _regroup(self.limits_of_client, "client_id", before, after)
        elif kind == "tape_cartridge":
            _regroup(self.cartridges_of_pool, "pool", before, after)
        elif kind == "library_slot":
            _regroup(self.slots_of_library, "library_id", before, after)
        elif kind == "tape_drive":
            _regroup(self.drives_of_library, "library_id", before, after)
        elif kind == "tape_task":
            self._update_tape_task(before, after)
        elif kind in ASSIGNMENTS:
            if before is not None:
                _remove(self.assignments_of_user, before.user, (kind, before.id))
            if after is not None:
                self.assignments_of_user.setdefault(after.user, set()).add((kind, after.id))
        elif kind == "client":
            if before is not None:
                self.online_clients.discard(before.id)
            if after is not None and after.online:
                self.online_clients.add(after.id)

    def _update_tape_task(self, before: TapeTask | None, after: TapeTask | None) -> None:
        was, is_ = (one if one is not None and one.status in _ACTIVE else None for one in (before, after))
        _regroup(self.active_tape_tasks, "library_id", was, is_)
        _regroup(self.tape_tasks_of_task, "parent_task_id", was, is_)
        was, is_ = (one if one is not None and one.status not in _ACTIVE else None for one in (before, after))
        if was is not None:
            ended = self.ended_tape_tasks[was.library_id]
            del ended[bisect_left(ended, was.id)]
            if not ended:
                del self.ended_tape_tasks[was.library_id]
        if is_ is not None:
            insort(self.ended_tape_tasks.setdefault(is_.library_id, []), is_.id)
        _regroup(
            self.ended_tape_tasks_of_task,
            "parent_task_id",
            *(one if one and one.parent_task_id else None for one in (was, is_)),
        )

    def _update_task(self, before: Task | None, after: Task | None) -> None:
        old = None if before is None else before.status
        new = None if after is None else after.status
        if old == new:
            return
        if before is not None:
            self.tasks_by_status[before.status].discard(before.id)
        if after is not None:
            self.tasks_by_status[after.status].add(after.id)

    @staticmethod
    def _update_key(
        ids: dict[Any, int], key_of: Callable[[Any], Any], before: Entity | None, after: Entity | None
    ) -> None:
        if before is not None:
            key = key_of(before)
            # Another entity may have taken the key over within the same batch; its entry stays.
            if ids.get(key) == before.id:
                del ids[key]
        if after is not None:
            ids[key_of(after)] = after.id

    def _update_backup(self, before: Backup | None, after: Backup | None) -> None:
        if before is not None and after is not None:
            assert group_of(before) == group_of(after), "a backup does not change its chain"
            assert before.ref_id == after.ref_id, "a backup does not change its chain"
            is_same_size = before.archive_size == after.archive_size
            if _place(before) == _place(after) and before.parts == after.parts and is_same_size:
                return
        if before is not None:
            _remove(self.children, before.ref_id, before.id)
            _remove(self.groups, group_of(before), before.id)
            for place in _place(before):
                self._backups[place] -= 1
                self._backup_bytes[place] -= before.archive_size
                if not self._backups[place]:
                    del self._backups[place], self._backup_bytes[place]
            for part in before.parts:
                _remove(self.backups_on_cartridge, part.cartridge_id, before.id)
        if after is not None:
            if after.ref_id:
                self.children.setdefault(after.ref_id, set()).add(after.id)
            self.groups.setdefault(group_of(after), set()).add(after.id)
            for place in _place(after):
                self._backups[place] = self._backups.get(place, 0) + 1
                self._backup_bytes[place] = self._backup_bytes.get(place, 0) + after.archive_size
            for part in after.parts:
                self.backups_on_cartridge.setdefault(part.cartridge_id, set()).add(after.id)


def canonical_resource(resource: str) -> str:
    """``/home`` and ``/home/`` are one resource; what is not a path stays as it is."""
    return "/" + "/".join(part for part in resource.split("/") if part) if resource.startswith("/") else resource


def group_of(backup: Backup) -> BackupGroup:
    return backup.client_id, backup.resource_type, canonical_resource(backup.resource)


def _place(backup: Backup) -> tuple[tuple[str, int], ...]:
    return (
        ("client_id", backup.client_id),
        ("pool_id", backup.pool_id),
        ("local_catalog_id", backup.local_catalog_id),
        ("library_id", backup.library_id),
    )


def _regroup(groups: dict[int, set[int]], attribute: str, before: Entity | None, after: Entity | None) -> None:
    """Keep the groups of entities by one of their references."""
    if before is not None:
        _remove(groups, getattr(before, attribute), before.id)
    if after is not None:
        groups.setdefault(getattr(after, attribute), set()).add(after.id)


def _remove(sets: dict[Any, set[Any]], key: Any, id: Any) -> None:
    members = sets.get(key)
    if members is not None:
        members.discard(id)
        if not members:
            del sets[key]
