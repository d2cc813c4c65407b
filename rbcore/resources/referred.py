"""What refers to clients, pools, groups and users from rules, strategies, requests, plans, reports and limits: while it does, they stay."""

from __future__ import annotations

from typing import Final

from rbcore.entities import (
    BackupStrategy,
    Client,
    ClientBandwidth,
    DeleteRuleRequest,
    DisasterRecoveryPlan,
    DynamicPoolGroup,
    Entity,
    NewRuleRequest,
    Pool,
    Report,
    ScheduleRule,
    StrategyAdministrator,
    StrategyRule,
    User,
    UserGroup,
)
from rbcore.resource import Refusal
from rbcore.resources.common import ids_of
from rbcore.state import State

_BLOCK_POOLS: Final = ("full_move_copy_pool", "inc_move_copy_pool", "diff_move_copy_pool")
_TOLD: Final = (
    "inform_when_obsoleted_copy",
    "notify_normal",
    "notify_exception",
    "notify_verify",
    "notify_end_storage_capacity",
)

_REFERENCES: Final[dict[str, tuple[tuple[type[Entity], tuple[str, ...], str], ...]]] = {
    Client.KIND: (
        (ScheduleRule, ("client_id",), "rules of the global schedule"),
        (StrategyRule, ("client_id",), "rules of strategies"),
        (NewRuleRequest, ("client_id",), "requests for rules"),
        (DeleteRuleRequest, ("client_id",), "requests to delete rules"),
        (DisasterRecoveryPlan, ("client_id",), "disaster recovery plans"),
        (ClientBandwidth, ("client_id",), "bandwidth limits"),
    ),
    Pool.KIND: (
        (ScheduleRule, ("pool_id", "move_copy_pool"), "rules of the global schedule"),
        (BackupStrategy, ("pool_id", *_BLOCK_POOLS), "strategies"),
        (NewRuleRequest, ("pool_id",), "requests for rules"),
    ),
    UserGroup.KIND: (
        (ScheduleRule, (*_TOLD, "notify_rule_validity"), "rules of the global schedule"),
        (BackupStrategy, (*_TOLD, "notify_strategy_validity"), "strategies"),
        (Report, ("notify",), "reports"),
    ),
    DynamicPoolGroup.KIND: (
        (ScheduleRule, ("pool_id",), "rules of the global schedule"),
        (BackupStrategy, ("pool_id",), "strategies"),
        (NewRuleRequest, ("pool_id",), "requests for rules"),
    ),
    BackupStrategy.KIND: (
        (StrategyRule, ("strategy_id",), "rules of the strategy"),
        (StrategyAdministrator, ("strategy",), "strategy administrators"),
    ),
    User.KIND: ((Report, ("owner",), "reports"),),
}
"""Kind that is referred to -> who refers, by which attributes, and what those are called."""


def is_not_referred_to(kind: str) -> Refusal:
    """Refuses while something of the table above refers to the record, naming all of it."""

    def refusal(state: State, entity: Entity) -> str | None:
        found: list[str] = []
        # Where a pool is named, a group stands as its id with a minus (``rbcore.destination``).
        own = -entity.id if kind == DynamicPoolGroup.KIND else entity.id
        for referring, attributes, noun in _REFERENCES[kind]:
            records = [one for one in state.all(referring) if any(getattr(one, a) == own for a in attributes)]
            if records:
                found.append(f"{noun} (ids {ids_of(records)})")
        return f"{', '.join(found)} refer to it: change or delete them first" if found else None

    return refusal
