"""Commands about rules, strategies, requests of clients and plans (``rbcore.commands`` says what a command is)."""

from __future__ import annotations

from typing import Any

from rbcore.commands import Command


class ChangeStatuses(Command, frozen=True, kw_only=True):
    """The bulk PATCH of rules, strategies and reports. All or nothing."""

    resource: str
    statuses: dict[int, str]
    """By id; what they may be is judged by the declaration."""


class ExecuteRule(Command, frozen=True, kw_only=True):
    """Queue a backup by a rule of the global schedule, whatever its timetable and status say."""

    rule_id: int


class RequestRule(Command, frozen=True, kw_only=True):
    """A client asks for a rule."""

    client_id: int
    rule: dict[str, Any]
    """As ``new_rule_requests`` shows it, without client and id."""


class RequestRuleDeletion(Command, frozen=True, kw_only=True):
    """A client asks that a rule about it goes."""

    client_id: int
    rule_id: int
    comment: str = ""


class AnswerRuleRequests(Command, frozen=True, kw_only=True):
    """Approve or decline. Each request by itself: reply data ``{"succeeded": [ids], "failed": {id: [sentences]}}``.

    Raises ``NotFound`` when none of them is there, ``Refused`` when none of those that are can be answered so.
    """

    resource: str
    """``new_rule_requests`` or ``delete_rule_requests``."""
    ids: list[int]
    approve: bool


class CheckPlan(Command, frozen=True, kw_only=True):
    """Look whether a disaster recovery plan could be carried out now. Reply data ``{"status": ..., "reason": ...}``."""

    plan_id: int
