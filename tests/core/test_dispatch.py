"""The dispatcher's next steps: levels in, steps out."""

from __future__ import annotations

from typing import Any

import pytest

from rbcore.commands import (
    AdvanceTask,
    AgentGone,
    AssignTask,
    ContinueTask,
    DeleteBackups,
    KillTask,
    PauseTask,
    QueueRestore,
    QueueVerification,
)
from rbcore.dispatch import (
    CATALOG_TASKS_MAX,
    CLIENT_TASKS_MAX,
    AssignStep,
    ContinueStep,
    EndKillStep,
    Facts,
    PauseStep,
    RecoverStep,
    RemoveBytesStep,
    RetryStep,
    StartOnClientStep,
    StopStep,
    VerifyStep,
    next_steps,
)
from rbcore.entities import Task
from rbcore.vocabulary import RUNNING_STATUSES
from tests.core.world import World


@pytest.fixture
def world() -> World:
    world = World().installed()
    world.client()
    return world


def steps(world: World, *, online: bool = True, **given: Any) -> list[Any]:
    facts = Facts(online_clients={1} if online else set(), **{"under_way": set(), **given})
    return next_steps(world.state, facts, world.now_ns)


def test_a_backup_is_assigned_then_started(world: World) -> None:
    task_id = world.queued()
    assert steps(world) == [AssignStep(task_id=task_id, catalog_ids=(1,))]
    assert steps(world, under_way={task_id}) == []
    world.assigned(task_id)
    assert steps(world, online=False) == []
    assert steps(world) == [StartOnClientStep(task_id=task_id, client_id=1)]
    assert steps(world, under_way={task_id}) == []


def test_higher_priority_goes_first_then_the_older(world: World) -> None:
    low = world.queued(resource="/low", priority=1)
    high = [world.queued(resource=f"/high/{number}", priority=900) for number in range(CLIENT_TASKS_MAX)]
    assert [step.task_id for step in steps(world)] == high
    assert low not in [step.task_id for step in steps(world)]


def test_a_client_has_a_bound(world: World) -> None:
    tasks = [world.queued(resource=f"/{number}") for number in range(CLIENT_TASKS_MAX + 3)]
    assert [step.task_id for step in steps(world)] == tasks[:CLIENT_TASKS_MAX]
    world.transmitting(tasks[0])
    assert [step.task_id for step in steps(world, under_way={tasks[0]})] == tasks[1:CLIENT_TASKS_MAX]


def test_two_backups_of_one_resource_come_after_each_other(world: World) -> None:
    first, second = world.queued(resource="/home"), world.queued(resource="/home/", backup_type="incremental")
    assert [step.task_id for step in steps(world)] == [first]
    world.transmitting(first)
    assert steps(world, under_way={first}) == []
    world.run(AdvanceTask(task_id=first, status="Error"))
    assert [step.task_id for step in steps(world)] == [second]


def test_a_catalog_has_a_bound(world: World) -> None:
    backup = world.backed_up()
    tasks = [world.run(QueueVerification(backup_id=backup)).ids[0] for _ in range(CATALOG_TASKS_MAX + 2)]
    for task_id in tasks:
        world.assigned(task_id)
    expected = [VerifyStep(task_id=one, backup_id=backup, local_catalog_id=1) for one in tasks[:CATALOG_TASKS_MAX]]
    assert steps(world) == expected
    assert steps(world, under_way=set(tasks[:CATALOG_TASKS_MAX])) == []


def test_a_suspended_task_is_retried_when_its_time_has_come(world: World) -> None:
    task_id = world.queued()
    world.assigned(task_id)
    world.run(AdvanceTask(task_id=task_id, status="Suspended", retry_at_ns=world.now_ns + 60 * 10**9))
    assert steps(world) == []
    world.now_ns += 61 * 10**9
    assert steps(world) == [RetryStep(task_id=task_id)]


def test_a_clock_that_was_set_back_delays_no_retry(world: World) -> None:
    """Found by simulation: the task would have waited a day for a minute."""
    task_id = world.queued()
    world.assigned(task_id)
    world.run(AdvanceTask(task_id=task_id, status="Suspended", retry_at_ns=world.now_ns + 60 * 10**9))
    world.now_ns -= 24 * 3600 * 10**9
    assert steps(world) == [RetryStep(task_id=task_id)]


def test_a_task_of_an_offline_client_is_retried_when_it_is_back(world: World) -> None:
    task_id = world.queued()
    world.run(AgentGone(client_id=1, reason="lost"))
    world.run(AssignTask(task_id=task_id, catalogs=world.facts(), client_online=False))
    task = world.task(task_id)
    assert (task.status, task.retry_at_ns) == ("Suspended", 0)
    assert "client alpha is offline" in task.status_reason
    assert steps(world, online=False) == []
    assert steps(world) == [RetryStep(task_id=task_id)]


@pytest.mark.parametrize("status", RUNNING_STATUSES)
def test_what_says_it_runs_and_is_not_under_way_is_recovered(world: World, status: str) -> None:
    task_id = world.queued()
    world.assigned(task_id)
    world.run(AdvanceTask(task_id=task_id, status="At_Client"))
    world.run(AdvanceTask(task_id=task_id, status=status))
    assert steps(world, under_way={task_id}) == []
    assert steps(world) == [RecoverStep(task_id=task_id)]


def test_orders_reach_the_worker_once(world: World) -> None:
    task = world.transmitting(world.queued())
    mine = {task.id}
    world.run(PauseTask(task_id=task.id))
    assert steps(world, under_way=mine) == [PauseStep(task_id=task.id)]
    assert steps(world, under_way=mine, told_to_pause=mine) == []
    assert steps(world) == []
    world.run(ContinueTask(task_id=task.id))
    assert steps(world, under_way=mine, told_to_pause=mine) == [ContinueStep(task_id=task.id)]
    world.run(KillTask(task_id=task.id))
    assert steps(world, under_way=mine) == [StopStep(task_id=task.id)]
    assert steps(world, under_way=mine, told_to_stop=mine) == []
    assert steps(world) == [EndKillStep(task_id=task.id)]


def test_restore_and_deletion(world: World) -> None:
    backup = world.backed_up()
    archive = world.state.tables["backup"][backup].archive
    restore = world.run(QueueRestore(backup_id=backup, restore_task={"destination_path": "/back"})).ids[0]
    assert steps(world) == [AssignStep(task_id=restore, catalog_ids=(1,))]
    world.assigned(restore)
    assert steps(world) == [StartOnClientStep(task_id=restore, client_id=1)]
    world.run(AdvanceTask(task_id=restore, status="At_Client"))
    world.run(AdvanceTask(task_id=restore, status="Done"))
    (delete,) = world.run(DeleteBackups(ids=[backup])).data["task_ids"]
    assert steps(world, online=False) == [AssignStep(task_id=delete, catalog_ids=(1,))]
    world.assigned(delete)
    expected = RemoveBytesStep(task_id=delete, backup_id=backup, local_catalog_id=1, archive=archive)
    assert steps(world, online=False) == [expected]


def test_tasks_that_have_ended_are_not_looked_at(world: World) -> None:
    for number in range(5):
        task_id = world.queued(resource=f"/{number}")
        world.run(KillTask(task_id=task_id))
    table: dict[int, Task] = world.state.tables["task"]
    assert len(table) == 5
    assert world.state.active_tasks() == []
    assert steps(world) == []
