"""Who is told of what: exactly what rules ask for, in the batch of what happened, and no more than is kept."""

from __future__ import annotations

from typing import Any

import pytest

from rbcore import notify
from rbcore.commands import AdvanceTask, CreateRecord, CreateUser, KillTask, QueueVerification, RecordVerification
from rbcore.entities import Notification
from rbcore.schedule_commands import ExecuteRule
from tests.core.test_schedule import rule
from tests.core.world import World, archive_of


@pytest.fixture
def world() -> World:
    world = World().installed()
    world.client()
    for name in ("operators", "readers"):
        world.run(CreateRecord(resource="user_groups", fields={"groupname": name}))
    fields = {"username": "olga", "email": "olga@example.org", "group_id": "operators"}
    world.run(CreateUser(fields=fields, credential_id="second"))
    return world


def told(world: World) -> list[tuple[str, str, str]]:
    """(event, status, cc) of each, oldest first."""
    return [(one.event, one.status, one.cc) for one in world.state.all(Notification)]


def executed(world: World, **fields: Any) -> int:
    return world.run(ExecuteRule(rule_id=rule(world, **fields))).ids[0]


ASKED = {
    "notify_normal": "operators",
    "notify_exception": "readers",
    "notify_verify": "Nobody",
    "notify_verify_cc": "boss@example.org",
}


def test_a_done_backup_is_told_to_those_who_asked_for_it(world: World) -> None:
    task = world.transmitting(executed(world, **ASKED))
    assert told(world) == []
    before = world.state.position
    reply = world.run(archive_of(task))
    assert told(world) == [("notify_normal", "New", "")]
    assert reply.position == world.state.position > before + 1, "one batch, and the answer stands at its end"
    (one,) = world.state.all(Notification)
    assert (one.object, one.task_id, one.client_id) == ("global schedule rule 'home'", task.id, 1)
    assert "Done" in one.text


@pytest.mark.parametrize("status", ["Error", "Broken", "Killed"])
def test_what_went_wrong_is_told_to_others_and_nobody_with_an_address_is_said(world: World, status: str) -> None:
    task = world.transmitting(executed(world, **ASKED))
    if status == "Killed":
        world.run(KillTask(task_id=task.id))
        assert told(world) == [], "not before it has ended"
    world.run(AdvanceTask(task_id=task.id, status=status, reason="the module said no"))
    assert told(world) == [("notify_exception", "No recipients", "")]
    (one,) = world.state.all(Notification)
    assert one.text.endswith(f"{status}, the module said no")


def test_a_verification_is_told_and_a_further_address_is_enough(world: World) -> None:
    task = world.transmitting(executed(world, **{**ASKED, "notify_normal": "Nobody"}))
    backup_id = world.run(archive_of(task)).ids[0]
    assert told(world) == []
    verification = world.assigned(world.run(QueueVerification(backup_id=backup_id)).ids[0])
    damaged = ["block 7 is damaged"]
    world.run(RecordVerification(task_id=verification.id, status="Broken", bytes_read=1, findings=damaged))
    assert told(world) == [("notify_verify", "New", "boss@example.org")]
    (one,) = world.state.all(Notification)
    assert one.text.endswith("Broken, block 7 is damaged")


def test_what_nobody_made_a_rule_for_and_what_nobody_wants_to_know_is_not_told(world: World) -> None:
    world.run(archive_of(world.transmitting(world.queued())))
    world.run(archive_of(world.transmitting(executed(world, resource="/srv"))))
    assert told(world) == []


def test_the_oldest_make_room(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "NOTIFICATIONS_MAX", 3)
    rule_id = rule(world, **ASKED)
    for _ in range(5):
        task_id = world.run(ExecuteRule(rule_id=rule_id)).ids[0]
        world.run(KillTask(task_id=task_id))
    assert [one.id for one in world.state.all(Notification)] == [3, 4, 5]
