"""What rules, strategies, requests and reports have in common: when something is done, what follows it, and who is told (reference
2.14, 2.15, 2.19, 3.12).

The reference leaves open what these choices settle:

- ``min``, ``hour``, ``dom``, ``mon`` and ``dow`` are one number each (the manual's examples show nothing else); null, no value or -1 is any
  value. ``dow``: 0 and 7 are Sunday, 1 is Monday; 7 is kept as 0. All that are given must match, ``dom`` and ``dow`` too.
- ``periodic_launch`` goes before them: every such interval, counted from the start of validity, or from the making of the record.
- A record has one of the two: without either it would run every minute, which nobody means.
- An empty start of validity is at once, an empty end is never.
- The built-in user group ``Nobody`` is where nobody was named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rbcore.destination import why_not_writable
from rbcore.entities import Client, DynamicPoolGroup, Pool, UserGroup
from rbcore.interval import Duration, parse_interval
from rbcore.protectable import is_nothing, module_problem, pool_problem, resource_problem
from rbcore.resource import Boolean, Choice, Field, Integer, Interval, Reference, Rule, Text, Timestamp
from rbcore.state import State
from rbcore.vocabulary import NOBODY, PRIORITY_DEFAULT, PRIORITY_MAX, RESOURCE_TYPES, RULE_STATUSES

CAPACITY_MAX_GIB: Final = 2**33 - 1
"""In bytes it fits into 64 bits."""
CC_LENGTH_MAX: Final = 1000
SCRIPT_LENGTH_MAX: Final = 4096
ADMINISTRATORS_OF_RULES: Final = frozenset({"superuser", "supervisor", "administrator"})
"""Who makes and changes what is about one client (reference 1.17)."""
ADMINISTRATORS_OF_STRATEGIES: Final = frozenset({"superuser", "supervisor", "strategy_administrator"})

_MOMENT_FIELDS: Final = (
    ("min", 59, "Minute; null or -1: any."),
    ("hour", 23, "Hour; null or -1: any."),
    ("dom", 31, "Day of the month, from 1; null or -1: any."),
    ("mon", 12, "Month, from 1; null or -1: any."),
    ("dow", 7, "Day of the week: 1 is Monday, 0 and 7 are Sunday; null or -1: any."),
)
_DAYS_OF_MONTH: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_ADDRESS: Final = re.compile(r"[^@\s,;<>]{1,64}@[^@\s,;<>]{1,253}")
_SEPARATORS: Final = re.compile(r"[,;\s]+")


# --- fields ------------------------------------------------------------------------------------------------------------


def moment_fields(prefix: str = "", *, in_list: bool = True) -> tuple[Field, ...]:
    return tuple(
        Integer(name=f"{prefix}{name}", nullable=True, minimum=-1, maximum=largest, description=text, in_list=in_list)
        for name, largest, text in _MOMENT_FIELDS
    )


def periodic_field(prefix: str = "", *, in_list: bool = True) -> Field:
    return Interval(
        name=f"{prefix}periodic_launch",
        nullable=True,
        example="1 day",
        in_list=in_list,
        description="Every such interval; goes before the fields of the time. At least a minute.",
    )


def status_field() -> Field:
    return Choice(
        name="status",
        values=RULE_STATUSES,
        default="wait",
        indexed=True,
        description="run: works by its timetable; wait: does not.",
    )


def validity_fields() -> tuple[Field, Field]:
    return (
        Timestamp(
            name="validity_start_period",
            attribute="validity_start_ns",
            nullable=True,
            default=0,
            indexed=True,
            description="Null: at once.",
        ),
        Timestamp(
            name="validity_end_period",
            attribute="validity_end_ns",
            nullable=True,
            default=0,
            indexed=True,
            description="Null: never ends.",
        ),
    )


def verify_fields() -> tuple[Field, Field]:
    return (
        Boolean(name="verify_flag", default=False, description="Its backups are verified again and again."),
        Interval(name="verify_interval", nullable=True, example="1 day", description="How often."),
    )


def storage_field(prefix: str = "", *, in_list: bool = True) -> Field:
    return Interval(
        name=f"{prefix}storage_duration", default="1 year", in_list=in_list, description="How long a backup is kept."
    )


def move_fields(prefix: str = "") -> tuple[Field, Field, Field]:
    return (
        Boolean(
            name=f"{prefix}move_copy_flag", default=False, in_list=False, description="Backups move to another pool."
        ),
        Reference(
            name=f"{prefix}move_copy_pool",
            to=Pool.KIND,
            by="pool_name",
            nullable=True,
            default=0,
            example="Default",
            in_list=False,
            description="Where they move to.",
        ),
        Interval(
            name=f"{prefix}move_copy_while",
            nullable=True,
            example="1 day",
            in_list=False,
            description="How long they stay before they move.",
        ),
    )


def after_fields() -> tuple[Field, Field, Field]:
    return (
        Boolean(
            name="auto_delete_obsoleted_copy_flag",
            default=False,
            in_list=False,
            description="Backups that are past their storage time are deleted.",
        ),
        group_field("inform_when_obsoleted_copy", "Told when a backup is past its storage time."),
        Boolean(
            name="client_delete_flag", default=False, in_list=False, description="The client may delete its backups."
        ),
    )


def group_field(name: str, description: str) -> Field:
    return Reference(
        name=name,
        to=UserGroup.KIND,
        by="groupname",
        nullable=True,
        default=0,
        example=NOBODY,
        in_list=False,
        description=description,
    )


def notify_fields(names: Mapping[str, str]) -> tuple[Field, ...]:
    """A group and its free addresses per name; ``names`` -> when they are told."""
    found: list[Field] = []
    for name, when in names.items():
        found.append(group_field(name, f"Told when {when}."))
        found.append(cc_field(f"{name}_cc"))
    return tuple(found)


def cc_field(name: str) -> Field:
    return Text(
        name=name,
        default="",
        max_length=CC_LENGTH_MAX,
        in_list=False,
        example="email@domain.ru",
        description="Further e-mail addresses, separated by commas.",
    )


def script_field(name: str, description: str) -> Field:
    return Text(name=name, default="", max_length=SCRIPT_LENGTH_MAX, in_list=False, description=description)


def client_field() -> Field:
    return Reference(
        name="client_id",
        to=Client.KIND,
        by="client",
        required=True,
        example="rubackup-client (525a99154f3505a2)",
        description="hostname (hwid).",
    )


def resource_fields() -> tuple[Field, Field]:
    return (
        Choice(name="resource_type", required=True, values=RESOURCE_TYPES, example="File system"),
        Text(name="resource", required=True, pattern=r".*\S.*", example="/home/", indexed=True),
    )


def priority_field() -> Field:
    return Integer(name="priority", default=PRIORITY_DEFAULT, maximum=PRIORITY_MAX, description="Higher goes first.")


def destination_field() -> Field:
    return Reference(
        name="pool_id",
        required=True,
        to=Pool.KIND,
        by="pool_name",
        or_to=DynamicPoolGroup.KIND,
        or_by="name",
        example="Default",
        description="Where backups are written: a pool, or a dynamic pool group.",
    )


def capacity_field(default: int, of: str) -> Field:
    return Integer(
        name="storage_capacity",
        default=default,
        maximum=CAPACITY_MAX_GIB,
        unit="GiB",
        description=f"All backups of the {of} together; 0: no limit. Holds when the global configuration says so.",
    )


# --- preparing ---------------------------------------------------------------------------------------------------------


def normalised_moment(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """-1 becomes null, Sunday becomes 0."""
    changed: dict[str, Any] = {}
    for name, _, _ in _MOMENT_FIELDS:
        value = values[f"{prefix}{name}"]
        changed[f"{prefix}{name}"] = None if value == -1 else 0 if (name, value) == ("dow", 7) else value
    return {**values, **changed}


def with_nobody(state: State, values: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Where nobody was named stands the built-in group ``Nobody``."""
    nobody = state.by_key(UserGroup, NOBODY)
    if nobody is None:
        return values
    return {**values, **{name: values[name] or nobody.id for name in names}}


# --- rules -------------------------------------------------------------------------------------------------------------


def moment_problem(values: Mapping[str, Any], prefix: str = "") -> str | None:
    """A day that its month never has, and values that are none."""
    for name in ("dom", "mon"):
        if values[f"{prefix}{name}"] == 0:
            return f"{prefix}{name}: it counts from 1"
    day, month = values[f"{prefix}dom"], values[f"{prefix}mon"]
    if day is not None and month is not None and day > _DAYS_OF_MONTH[month - 1]:
        return f"{prefix}dom: month {month} never has a day {day}"
    return None


def has_moment(values: Mapping[str, Any], prefix: str = "") -> bool:
    return any(values[f"{prefix}{name}"] is not None for name, _, _ in _MOMENT_FIELDS)


def timetable_problem(values: Mapping[str, Any], prefix: str = "") -> str | None:
    """Why this is no timetable (``prefix``: of which block)."""
    period = values[f"{prefix}periodic_launch"]
    if period is None and not has_moment(values, prefix):
        return f"{prefix}periodic_launch: name an interval, or at least one of {prefix}min, hour, dom, mon, dow"
    if period is not None and _under_a_minute(period):
        return f"{prefix}periodic_launch: it is at least a minute"
    return moment_problem(values, prefix)


def _under_a_minute(interval: str) -> bool:
    found: Duration = parse_interval(interval)
    return not found.months and not found.days and found.seconds < 60


def timetable_is_one(state: State, id: int, values: Mapping[str, Any]) -> str | None:
    return timetable_problem(values)


def validity_is_one(start: str, end: str, start_name: str, end_name: str) -> Rule:
    """It ends after it begins. ``start``, ``end``: attributes."""

    def rule(state: State, id: int, values: Mapping[str, Any]) -> str | None:
        if values[end] and values[end] <= values[start]:
            return f"{end_name}: it must be later than {start_name}"
        return None

    return rule


def verification_has_interval(state: State, id: int, values: Mapping[str, Any]) -> str | None:
    if values["verify_flag"] and values["verify_interval"] is None:
        return "verify_interval: verify_flag needs one"
    if is_nothing(values["verify_interval"]):
        return "verify_interval: it must be longer than nothing"
    return None


def storage_is_some_time(prefix: str = "") -> Rule:
    def rule(state: State, id: int, values: Mapping[str, Any]) -> str | None:
        if is_nothing(values[f"{prefix}storage_duration"]):
            return f"{prefix}storage_duration: it must be longer than nothing"
        return None

    return rule


def move_has_aim(prefix: str = "") -> Rule:
    """What moves has another pool to go to and a time to wait."""

    def rule(state: State, id: int, values: Mapping[str, Any]) -> str | None:
        if not values[f"{prefix}move_copy_flag"]:
            return None
        if not values[f"{prefix}move_copy_pool"]:
            return f"{prefix}move_copy_pool: {prefix}move_copy_flag needs one"
        if values[f"{prefix}move_copy_pool"] == values["pool_id"]:
            return f"{prefix}move_copy_pool: the backups are in that pool already; name another"
        if values[f"{prefix}move_copy_while"] is None:
            return f"{prefix}move_copy_while: {prefix}move_copy_flag needs one"
        pool = state.find(Pool, values[f"{prefix}move_copy_pool"])
        problem = "" if pool is None else pool_problem(pool)
        return f"{prefix}move_copy_pool: {problem}" if problem else None

    return rule


def addresses_are_some(*names: str) -> Sequence[Rule]:
    """Each of the fields holds e-mail addresses or nothing."""

    def of(name: str) -> Rule:
        def rule(state: State, id: int, values: Mapping[str, Any]) -> str | None:
            for one in _SEPARATORS.split(values[name].strip()):
                if one and not (_ADDRESS.fullmatch(one) and one.isprintable()):
                    return f"{name}: '{one[:80]}' is no e-mail address; write addresses separated by commas"
            return None

        return rule

    return [of(name) for name in names]


def resource_can_be_backed_up(kind: type[Any]) -> Rule:
    """The client has a module for it. Judged when the record is made or aims at something else: a module that is gone later does not keep
    anybody from changing the record."""

    def rule(state: State, id: int, values: Mapping[str, Any]) -> str | None:
        before = state.find(kind, id)
        aim = ("client_id", "resource_type", "resource")
        if before is not None and all(getattr(before, one) == values[one] for one in aim):
            return None
        if problem := resource_problem(values["resource_type"], values["resource"]):
            return f"resource: {problem}"
        client = state.find(Client, values["client_id"])
        if client is not None and (problem := module_problem(client, values["resource_type"])):
            return f"resource_type: {problem}"
        return None

    return rule


def pool_takes_backups(kind: type[Any]) -> Rule:
    """Judged when the record is made or gets another pool."""

    def rule(state: State, id: int, values: Mapping[str, Any]) -> str | None:
        before = state.find(kind, id)
        if before is not None and before.pool_id == values["pool_id"]:
            return None
        problem = why_not_writable(state, values["pool_id"])
        return f"pool_id: {problem}" if problem else None

    return rule
