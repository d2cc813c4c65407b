"""What is done again and again: rules and strategies of backups, what clients ask for, plans, reports and limits.

Times of a timetable: ``None`` in ``min``, ``hour``, ``dom``, ``mon``, ``dow`` is any value; ``periodic_launch``, when there is one, goes before
them (``rbcore.resources.timetable``).
"""

from __future__ import annotations

from typing import Any

import msgspec

from rbcore.entities.base import Entity


class ScheduleRule(Entity, frozen=True, kw_only=True):
    """A rule of the global schedule: one resource of one client, backed up in one way again and again."""

    KIND = "schedule_rule"
    name: str
    client_id: int
    resource_type: str
    resource: str
    backup_type: str
    pool_id: int
    status: str = "wait"
    storage_capacity: int = 10
    priority: int = 100
    crypto: str = "nocrypt"
    validity_start_ns: int = 0
    validity_end_ns: int = 0
    periodic_launch: str | None = None
    min: int | None = None
    hour: int | None = None
    dom: int | None = None
    mon: int | None = None
    dow: int | None = None
    verify_flag: bool = False
    verify_interval: str | None = None
    storage_duration: str = "1 year"
    move_copy_flag: bool = False
    move_copy_pool: int = 0
    move_copy_while: str | None = None
    auto_delete_obsoleted_copy_flag: bool = False
    inform_when_obsoleted_copy: int = 0
    client_delete_flag: bool = False
    notify_normal: int = 0
    notify_normal_cc: str = ""
    notify_exception: int = 0
    notify_exception_cc: str = ""
    notify_rule_validity: int = 0
    notify_rule_validity_cc: str = ""
    notify_verify: int = 0
    notify_verify_cc: str = ""
    notify_end_storage_capacity: int = 0
    notify_end_storage_capacity_cc: str = ""
    notify_normal_script: str = ""
    notify_exception_script: str = ""
    restore_script: str = ""
    module_extensions: dict[str, Any] = msgspec.field(default_factory=dict)
    common_modules_extensions: dict[str, Any] = msgspec.field(default_factory=dict)
    created_ns: int = 0


class BackupStrategy(Entity, frozen=True, kw_only=True):
    """Timetables of full, incremental and differential backups, for every resource that a strategy rule binds to it."""

    KIND = "backup_strategy"
    name: str
    pool_id: int
    description: str = ""
    status: str = "wait"
    crypto: str = "nocrypt"
    storage_capacity: int = 50
    validity_start_ns: int = 0
    validity_end_ns: int = 0
    verify_flag: bool = False
    verify_interval: str | None = None
    auto_delete_obsoleted_copy_flag: bool = False
    inform_when_obsoleted_copy: int = 0
    client_delete_flag: bool = False
    full_archive_enabled: bool = False
    full_periodic_launch: str | None = None
    full_storage_duration: str = "1 year"
    full_min: int | None = None
    full_hour: int | None = None
    full_dom: int | None = None
    full_mon: int | None = None
    full_dow: int | None = None
    full_move_copy_flag: bool = False
    full_move_copy_while: str | None = None
    full_move_copy_pool: int = 0
    inc_archive_enabled: bool = False
    inc_periodic_launch: str | None = None
    inc_storage_duration: str = "1 year"
    inc_min: int | None = None
    inc_hour: int | None = None
    inc_dom: int | None = None
    inc_mon: int | None = None
    inc_dow: int | None = None
    inc_move_copy_flag: bool = False
    inc_move_copy_while: str | None = None
    inc_move_copy_pool: int = 0
    diff_archive_enabled: bool = False
    diff_periodic_launch: str | None = None
    diff_storage_duration: str = "1 year"
    diff_min: int | None = None
    diff_hour: int | None = None
    diff_dom: int | None = None
    diff_mon: int | None = None
    diff_dow: int | None = None
    diff_move_copy_flag: bool = False
    diff_move_copy_while: str | None = None
    diff_move_copy_pool: int = 0
    notify_normal: int = 0
    notify_normal_cc: str = ""
    notify_exception: int = 0
    notify_exception_cc: str = ""
    notify_verify: int = 0
    notify_verify_cc: str = ""
    notify_strategy_validity: int = 0
    notify_strategy_validity_cc: str = ""
    notify_end_storage_capacity: int = 0
    notify_end_storage_capacity_cc: str = ""
    created_ns: int = 0


class StrategyRule(Entity, frozen=True, kw_only=True):
    """A resource of a client that a strategy takes care of."""

    KIND = "strategy_rule"
    client_id: int
    strategy_id: int
    resource_type: str
    resource: str
    normal_execution_script: str = ""
    exception_execution_script: str = ""
    restore_script: str = ""
    priority: int = 100
    module_extensions: dict[str, Any] = msgspec.field(default_factory=dict)
    common_modules_extensions: dict[str, Any] = msgspec.field(default_factory=dict)
    created_ns: int = 0


class NewRuleRequest(Entity, frozen=True, kw_only=True):
    """What a client asks to have backed up; it ends when somebody approves or declines it."""

    KIND = "new_rule_request"
    client_id: int
    name: str
    resource_type: str
    resource: str
    backup_type: str
    pool_id: int
    crypto: str = "nocrypt"
    periodic_launch: str | None = None
    min: int | None = None
    hour: int | None = None
    dom: int | None = None
    mon: int | None = None
    dow: int | None = None
    storage_duration: str = "1 year"
    comment: str = ""
    created_ns: int = 0


class DeleteRuleRequest(Entity, frozen=True, kw_only=True):
    """A client's wish that a rule about it goes. What the rule is about never changes, so it is written down here."""

    KIND = "delete_rule_request"
    client_id: int
    rule_id: int
    rule_name: str
    resource_type: str
    resource: str
    backup_type: str
    comment: str = ""
    created_ns: int = 0


class DisasterRecoveryPlan(Entity, frozen=True, kw_only=True):
    """Which resource of which client is restored where, when the client is lost."""

    KIND = "disaster_recovery_plan"
    client_id: int
    resource_type: str
    resource: str
    restore_destination: str = ""
    autorun: bool = False
    priority: int = 100
    description: str = ""
    status: str = "Not checked"
    status_reason: str = ""
    checked_ns: int = 0
    backup_id: int = 0
    """The backup that the last check found; 0: none."""
    created_ns: int = 0


class Report(Entity, frozen=True, kw_only=True):
    """A digest that is mailed by a timetable."""

    KIND = "report"
    name: str
    owner: int = 0
    min: int | None = None
    hour: int | None = None
    dom: int | None = None
    mon: int | None = None
    dow: int | None = None
    perpetually: bool = True
    start_ns: int = 0
    end_ns: int = 0
    status: str = "wait"
    notify: int = 0
    notify_cc: str = ""
    description: str = ""
    created_ns: int = 0


class ClientBandwidth(Entity, frozen=True, kw_only=True):
    """How fast a client may send and receive within a daily window."""

    KIND = "client_bandwidth"
    client_id: int
    backup_bandwidth: int = 0
    restore_bandwidth: int = 0
    window_start: str = "00:00:00"
    window_end: str = "00:00:00"
    created_ns: int = 0
