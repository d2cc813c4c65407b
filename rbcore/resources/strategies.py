"""``backup_strategies`` (reference 2.15): three interlocked timetables and a policy, without client and resource."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rbcore.entities import BackupStrategy, Entity
from rbcore.resource import UNLIMITED_ROLES, Boolean, Choice, Field, Resource, Rule, Text, Timestamp
from rbcore.resources import timetable as shared
from rbcore.resources.common import ids_of, unique
from rbcore.resources.referred import is_not_referred_to
from rbcore.state import State
from rbcore.vocabulary import CRYPTO, Role

BLOCKS: Final = {"full_": "full", "inc_": "incremental", "diff_": "differential"}
"""Prefix of the fields -> the type of backups they are about."""

_NOTIFIED: Final = {
    "notify_normal": "a backup is done",
    "notify_exception": "a backup failed or was killed",
    "notify_verify": "a periodic verification has ended",
    "notify_strategy_validity": "the validity of the strategy has ended",
    "notify_end_storage_capacity": "the capacity is used up",
}
_GROUPS: Final = ("inform_when_obsoleted_copy", *_NOTIFIED)


def _block(prefix: str, backup_type: str) -> tuple[Field, ...]:
    return (
        Boolean(
            name=f"{prefix}archive_enabled",
            default=False,
            description=f"The strategy makes {backup_type} backups, by the timetable that follows.",
        ),
        shared.periodic_field(prefix, in_list=False),
        shared.storage_field(prefix, in_list=False),
        *shared.moment_fields(prefix, in_list=False),
        *shared.move_fields(prefix),
    )


_BLOCK_FIELDS: Final = tuple(field for prefix, backup_type in BLOCKS.items() for field in _block(prefix, backup_type))


def _prepared(state: State, values: dict[str, Any]) -> dict[str, Any]:
    for prefix in BLOCKS:
        values = shared.normalised_moment(values, prefix)
    return shared.with_nobody(state, values, _GROUPS)


def _timetable_of(prefix: str) -> Rule:
    """What takes part has a timetable; what does not may have one, which is looked at all the same."""

    def rule(state: State, id: int, values: Mapping[str, Any]) -> str | None:
        takes_part = values[f"{prefix}archive_enabled"]
        has_one = values[f"{prefix}periodic_launch"] is not None or shared.has_moment(values, prefix)
        return shared.timetable_problem(values, prefix) if takes_part or has_one else None

    return rule


def _has_tasks(state: State, strategy: Entity) -> str | None:
    tasks = [task for task in state.active_tasks() if task.strategy_id == strategy.id]
    return f"tasks of it have not ended (ids {ids_of(tasks)}): kill them or wait" if tasks else None


_CHANGE: Final = (
    "name",
    "status",
    "pool_id",
    "crypto",
    "storage_capacity",
    "description",
    "validity_start_period",
    "validity_end_period",
    "verify_flag",
    "verify_interval",
    "auto_delete_obsoleted_copy_flag",
    "inform_when_obsoleted_copy",
    "client_delete_flag",
    *(field.name for field in _BLOCK_FIELDS),
    *(name for one in _NOTIFIED for name in (one, f"{one}_cc")),
)

BACKUP_STRATEGIES = Resource(
    name="backup_strategies",
    kind=BackupStrategy.KIND,
    title="Backup Strategies",
    noun="strategy",
    entity=BackupStrategy,
    fields=(
        Text(
            name="name",
            required=True,
            max_length=255,
            pattern=r".*\S.*",
            example="my_backup_strategy",
            description="Unique.",
            indexed=True,
        ),
        Text(name="description", default=""),
        shared.status_field(),
        shared.destination_field(),
        Choice(name="crypto", values=CRYPTO, default="nocrypt"),
        shared.capacity_field(50, "strategy"),
        *shared.validity_fields(),
        *shared.verify_fields(),
        *shared.after_fields(),
        *_BLOCK_FIELDS,
        *shared.notify_fields(_NOTIFIED),
        Timestamp(name="created", attribute="created_ns", event_time=True),
    ),
    create=_CHANGE,
    change=_CHANGE,
    prepare=_prepared,
    rules=(
        unique(BackupStrategy.KIND, "name", "strategy"),
        *(_timetable_of(prefix) for prefix in BLOCKS),
        *(shared.storage_is_some_time(prefix) for prefix in BLOCKS),
        *(shared.move_has_aim(prefix) for prefix in BLOCKS),
        shared.validity_is_one("validity_start_ns", "validity_end_ns", "validity_start_period", "validity_end_period"),
        shared.verification_has_interval,
        shared.pool_takes_backups(BackupStrategy),
        *shared.addresses_are_some(*(f"{one}_cc" for one in _NOTIFIED)),
    ),
    refusals=(is_not_referred_to(BackupStrategy.KIND), _has_tasks),
    deletable=True,
    manage=shared.ADMINISTRATORS_OF_STRATEGIES,
    searchable_name="name",
    read=UNLIMITED_ROLES | {Role.ADMINISTRATOR, Role.STRATEGY_ADMINISTRATOR},
    scope={Role.STRATEGY_ADMINISTRATOR: "id"},
)
