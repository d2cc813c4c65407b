"""``reports`` (reference 2.19): digests that are mailed by a timetable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rbcore.entities import Report, User
from rbcore.resource import Boolean, Reference, Resource, Text, Timestamp
from rbcore.resources import timetable as shared
from rbcore.state import State
from rbcore.vocabulary import NOBODY


def _report_prepared(state: State, values: dict[str, Any]) -> dict[str, Any]:
    return shared.with_nobody(state, shared.normalised_moment(values), ("notify",))


def _report_has_moment(state: State, id: int, values: Mapping[str, Any]) -> str | None:
    if not shared.has_moment(values):
        return "min: name at least one of min, hour, dom, mon, dow"
    return shared.moment_problem(values)


_validity = shared.validity_is_one("start_ns", "end_ns", "start_period", "end_period")


def _period_is_one(state: State, id: int, values: Mapping[str, Any]) -> str | None:
    """``perpetually``: the period is kept and not looked at."""
    return None if values["perpetually"] else _validity(state, id, values)


_REPORT_CHANGE: Final = ("perpetually", "start_period", "end_period", "status", "notify", "notify_cc", "description")

REPORTS = Resource(
    name="reports",
    kind=Report.KIND,
    title="Reports",
    noun="report",
    entity=Report,
    fields=(
        Text(name="name", required=True, max_length=255, pattern=r".*\S.*", example="my_report_name", indexed=True),
        Reference(
            name="owner",
            to=User.KIND,
            by="username",
            nullable=True,
            default=0,
            placeholder=NOBODY,
            example="rubackup",
            description=f"A user; {NOBODY} or null: nobody.",
        ),
        *shared.moment_fields(),
        Boolean(name="perpetually", default=True, description="Without end; the period is not looked at."),
        Timestamp(name="start_period", attribute="start_ns", nullable=True, default=0, description="Null: at once."),
        Timestamp(name="end_period", attribute="end_ns", nullable=True, default=0, description="Null: never ends."),
        shared.status_field(),
        shared.group_field("notify", "Gets the report."),
        shared.cc_field("notify_cc"),
        Text(name="description", default=""),
        Timestamp(name="created", attribute="created_ns", event_time=True),
    ),
    create=("name", "owner", "min", "hour", "dom", "mon", "dow", *_REPORT_CHANGE),
    change=_REPORT_CHANGE,
    prepare=_report_prepared,
    rules=(_report_has_moment, _period_is_one, *shared.addresses_are_some("notify_cc")),
    deletable=True,
    searchable_name="name",
)
