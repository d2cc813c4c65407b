"""Rules, requests and plans in the core: timetables, origins of backups, bounds."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbcore.commands import (
    AdvanceTask,
    ChangeConfiguration,
    ChangeRecord,
    CreateRecord,
    DeleteRecords,
    KillTask,
    QueueCopy,
    RecordCopy,
    RestartTasks,
)
from rbcore.decide.requests import REQUESTS_MAX
from rbcore.entities import Backup, DeleteRuleRequest, NewRuleRequest, ScheduleRule
from rbcore.errors import AccessDenied, InvalidRequest, NotFound, Refused
from rbcore.resources.timetable import moment_problem, normalised_moment, timetable_problem
from rbcore.schedule_commands import (
    AnswerRuleRequests,
    ChangeStatuses,
    ExecuteRule,
    RequestRule,
    RequestRuleDeletion,
)
from rbcore.vocabulary import TaskType
from tests.core.world import World, archive_of, hello_of

CLIENT = "alpha (525a99154f3505a2)"
FIELDS: dict[str, Any] = {
    "name": "home",
    "client_id": CLIENT,
    "resource_type": "File system",
    "resource": "/home/",
    "backup_type": "full",
    "pool_id": "Default",
    "hour": 3,
}
WISH = {name: FIELDS[name] for name in ("name", "resource_type", "resource", "backup_type", "hour")}
DAYS_OF = {1: 31, 2: 29, 3: 31, 4: 30, 5: 31, 6: 30, 7: 31, 8: 31, 9: 30, 10: 31, 11: 30, 12: 31}


@pytest.fixture
def world() -> World:
    world = World().installed()
    world.client()
    return world


def rule(world: World, **fields: Any) -> int:
    return world.run(CreateRecord(resource="global_schedule", fields=FIELDS | fields)).ids[0]


def allowed(world: World) -> None:
    world.run(ChangeRecord(resource="clients", id=1, changes={"client_side_backup": True}))


def values(**given: Any) -> dict[str, Any]:
    return {"periodic_launch": None, **dict.fromkeys(("min", "hour", "dom", "mon", "dow")), **given}


# --- timetables --------------------------------------------------------------------------------------------------------


@given(
    day=st.none() | st.integers(1, 31),
    month=st.none() | st.integers(1, 12),
    weekday=st.none() | st.integers(0, 6),
)
def test_a_day_is_refused_when_its_month_never_has_it(day: int | None, month: int | None, weekday: int | None) -> None:
    problem = moment_problem(values(min=0, hour=0, dom=day, mon=month, dow=weekday))
    never = day is not None and month is not None and day > DAYS_OF[month]
    assert (problem is not None) == never


@given(st.dictionaries(st.sampled_from(["min", "hour", "dom", "mon", "dow"]), st.none() | st.integers(-1, 7)))
def test_normalising_a_moment_twice_changes_nothing_more(given_values: dict[str, int | None]) -> None:
    once = normalised_moment(values(**given_values))
    assert normalised_moment(once) == once
    assert -1 not in once.values()
    assert once["dow"] != 7


def test_a_timetable_is_an_interval_or_a_time() -> None:
    assert timetable_problem(values()) is not None
    assert timetable_problem(values(periodic_launch="1 min")) is None
    assert timetable_problem(values(periodic_launch="59 sec")) is not None
    assert timetable_problem(values(periodic_launch="1 month")) is None
    assert timetable_problem(values(min=0)) is None, "0 is a value"


# --- changes -----------------------------------------------------------------------------------------------------------


def test_a_rule_of_a_client_that_lost_its_module_can_be_stopped(world: World) -> None:
    rule_id = rule(world, status="run")
    world.run(hello_of(resource_types=[]))
    world.run(ChangeStatuses(resource="global_schedule", statuses={rule_id: "wait"}))
    found = world.state.find(ScheduleRule, rule_id)
    assert found is not None
    assert found.status == "wait"
    with pytest.raises(InvalidRequest, match="resource_type"):
        rule(world)
    with pytest.raises(InvalidRequest, match="resource_type"):
        world.run(ExecuteRule(rule_id=rule_id))


def test_statuses_of_what_has_none_are_refused(world: World) -> None:
    with pytest.raises(Refused):
        world.run(ChangeStatuses(resource="pool_list", statuses={1: "wait"}))
    with pytest.raises(NotFound):
        world.run(ChangeStatuses(resource="nothing", statuses={1: "wait"}))


# --- where a backup comes from -----------------------------------------------------------------------------------------


def test_a_rules_number_goes_from_the_task_to_the_backup_and_to_its_copy(world: World) -> None:
    world.run(CreateRecord(resource="pool_list", fields={"pool_name": "Second", "pool_type": "File system"}))
    world.run(CreateRecord(resource="storage_local_catalogs", fields={"path": "/srv/second", "pool": "Second"}))
    rule_id = rule(world)
    first = world.run(ExecuteRule(rule_id=rule_id)).ids[0]
    world.run(KillTask(task_id=first))
    task = world.transmitting(world.run(RestartTasks(ids=[first])).ids[0])
    assert (task.task_type, task.rule_id) == (TaskType.BACKUP_GLOBAL, rule_id)
    backup = world.run(archive_of(task)).ids[0]
    copying = world.run(QueueCopy(backup_id=backup, pool_name="Second")).ids[0]
    world.run(DeleteRecords(resource="global_schedule", ids=[rule_id]))
    world.assigned(copying)
    world.run(AdvanceTask(task_id=copying, status="Execution"))
    copy = world.run(RecordCopy(task_id=copying, archive_size=9, root="0f" * 32)).ids[0]
    for backup_id in (backup, copy):
        found = world.state.find(Backup, backup_id)
        assert found is not None
        assert found.rule_id == rule_id, "the rule is gone, and what it made still says so"


def test_a_rule_that_used_its_capacity_makes_no_more_backups_when_that_is_enforced(world: World) -> None:
    rule_id = rule(world, storage_capacity=3)
    other = rule(world, resource="/home", storage_capacity=3)
    task = world.transmitting(world.run(ExecuteRule(rule_id=rule_id)).ids[0])
    world.run(archive_of(task, archive_size=2 * 2**30))
    world.run(ExecuteRule(rule_id=rule_id))
    limits = {"global_schedule_capacity_limits": True, "rule_storage_capacity_reserve": 1}
    world.run(ChangeConfiguration(changes=limits))
    with pytest.raises(Refused, match="storage capacity"):
        world.run(ExecuteRule(rule_id=rule_id))
    assert world.run(ExecuteRule(rule_id=other)).ids, "the same resource, and a rule of its own"
    world.run(ChangeRecord(resource="global_schedule", id=rule_id, changes={"storage_capacity": 4}))
    assert world.run(ExecuteRule(rule_id=rule_id)).ids
    world.run(ChangeRecord(resource="global_schedule", id=rule_id, changes={"storage_capacity": 0}))
    assert world.run(ExecuteRule(rule_id=rule_id)).ids


# --- requests ----------------------------------------------------------------------------------------------------------


def test_requests_of_a_client_are_bounded(world: World) -> None:
    allowed(world)
    for _ in range(REQUESTS_MAX):
        world.run(RequestRule(client_id=1, rule=WISH))
    with pytest.raises(Refused, match="wait for an answer"):
        world.run(RequestRule(client_id=1, rule=WISH))
    ids = [one.id for one in world.state.all(NewRuleRequest)]
    reply = world.run(AnswerRuleRequests(resource="new_rule_requests", ids=ids, approve=False))
    assert reply.data == {"succeeded": ids, "failed": {}}
    assert world.run(RequestRule(client_id=1, rule=WISH)).ids


def test_the_end_of_a_rule_is_asked_for_once(world: World) -> None:
    rule_id = rule(world)
    with pytest.raises(AccessDenied):
        world.run(RequestRuleDeletion(client_id=1, rule_id=rule_id))
    allowed(world)
    request = world.run(RequestRuleDeletion(client_id=1, rule_id=rule_id)).ids[0]
    with pytest.raises(Refused, match=f"Request {request} "):
        world.run(RequestRuleDeletion(client_id=1, rule_id=rule_id))
    world.run(DeleteRecords(resource="global_schedule", ids=[rule_id]))
    assert world.state.find(DeleteRuleRequest, request) is None


@given(st.data())
def test_each_request_is_answered_by_itself(data: st.DataObject) -> None:
    world = World().installed()
    world.client()
    allowed(world)
    known = [world.run(RequestRule(client_id=1, rule=WISH)).ids[0] for _ in range(3)]
    ids = data.draw(st.lists(st.sampled_from([*known, 98, 99]), min_size=1, max_size=6))
    approve = data.draw(st.booleans())
    command = AnswerRuleRequests(resource="new_rule_requests", ids=ids, approve=approve)
    there = [one for one in dict.fromkeys(ids) if one in known]
    if not there:
        with pytest.raises(NotFound):
            world.run(command)
        return
    reply = world.run(command)
    assert reply.data["succeeded"] == there
    assert set(reply.data["failed"]) == {str(one) for one in ids if one not in known}
    assert {one.id for one in world.state.all(NewRuleRequest)} == set(known) - set(there)
    made = list(world.state.all(ScheduleRule))
    assert [one.status for one in made] == ["wait"] * (len(there) if approve else 0)


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from([*WISH, "pool", "min", "crypto", "comment", "periodic_launch", "other"]), _values)
)
def test_whatever_an_agent_asks_for_is_a_request_or_a_refusal(wish: dict[str, Any]) -> None:
    world = World().installed()
    world.client()
    allowed(world)
    with suppress(InvalidRequest):
        world.run(RequestRule(client_id=1, rule=WISH | wish))
    with suppress(NotFound, InvalidRequest, Refused):
        world.run(RequestRuleDeletion(client_id=1, rule_id=1, comment=str(wish)))
