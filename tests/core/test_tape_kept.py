"""What of tapes is kept and for how long: pools with cartridges stay, tags stay while they are needed, ended tape tasks go in the end."""

from __future__ import annotations

from typing import Any

import pytest

from rbcore.commands import (
    AdvanceTask,
    ChangeRecord,
    DeleteRecords,
    KillTask,
    QueueDriveCleaning,
    QueueTapeTasks,
    RecoverTapeTasks,
    RemoveTasks,
    TapeOrder,
)
from rbcore.decide import tape_tasks
from rbcore.entities import Pool, TapeTask
from rbcore.errors import InvalidRequest, RbError, Refused
from tests.core.tape_world import DRIVES, POOL, A, B, TapeWorld


@pytest.fixture
def world() -> TapeWorld:
    return TapeWorld().with_library(A, B)


def why_refused(world: TapeWorld, command: Any, kind: type[RbError]) -> str:
    before = world.state.position
    with pytest.raises(kind) as caught:
        world.run(command)
    assert world.state.position == before
    return f"{caught.value.message} {caught.value.errors}"


# --- pools and tags --------------------------------------------------------------------------------------------------


def test_a_pool_with_cartridges_or_libraries_stays(world: TapeWorld) -> None:
    pool = world.state.by_key(Pool, POOL)
    assert pool is not None
    gone = DeleteRecords(resource="pool_list", ids=[pool.id])
    said = why_refused(world, gone, Refused)
    assert f"cartridges belong to it ({A}, {B}): import them into another pool, or delete them" in said
    world.run(DeleteRecords(resource="tape_cartridges", ids=[world.cartridge(tag).id for tag in (A, B)]))
    said = why_refused(world, gone, Refused)
    assert f"it is the pool of tape libraries (ids {world.library_id}): delete them first" in said
    world.run(DeleteRecords(resource="tape_libraries", ids=[world.library_id]))
    world.run(gone)
    assert world.state.find(Pool, pool.id) is None


def test_the_tag_of_what_is_mounted_or_needed_stays(world: TapeWorld) -> None:
    cartridge = world.cartridge(A)
    change = ChangeRecord(resource="tape_cartridges", id=cartridge.id, changes={"volume_tag": "NEW001L9"})
    assert "reads this bar code at element 1024" in why_refused(world, change, InvalidRequest)
    world.mounted(A)
    world.shelf[DRIVES[0]] = ""
    world.sync()
    said = why_refused(world, change, InvalidRequest)
    assert "reads this bar code at element 256" in said, "it has read it there before"
    world.run(RecoverTapeTasks())
    order = TapeOrder(library_id=world.library_id, volume_tag=A)
    task_id = world.run(QueueTapeTasks(task_type="Format", orders=[order])).ids[0]
    del world.shelf[DRIVES[0]]
    world.sync("hands took it out")
    assert f"tape tasks that have not ended need it (ids {task_id})" in why_refused(world, change, InvalidRequest)
    world.advanced(task_id, "Killed")
    world.run(change)
    assert world.cartridge("NEW001L9").id == cartridge.id


# --- ended tape tasks ------------------------------------------------------------------------------------------------


def ended(world: TapeWorld, times: int = 1) -> list[int]:
    """Ids of cleanings that were ordered and have ended, each before the next."""
    ids = []
    for _ in range(times):
        ids += world.run(QueueDriveCleaning(drive_id=1)).ids
        world.advanced(ids[-1], "Done")
    return ids


def kept(world: TapeWorld) -> list[int]:
    return sorted(one.id for one in world.state.all(TapeTask))


def test_the_oldest_ended_ones_are_pushed_out(world: TapeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tape_tasks, "ENDED_MAX", 3)
    ids = ended(world, 3)
    order = TapeOrder(library_id=world.library_id, volume_tag=A)
    waiting = world.run(QueueTapeTasks(task_type="Format", orders=[order])).ids
    assert kept(world) == ids + waiting
    ids += ended(world, 3)
    assert kept(world) == sorted(waiting + ids[-4:]), (
        "the newest one pushed out those that had ended before it was queued"
    )
    assert world.events().count("tape_task.removed") == 2
    world.advanced(waiting[0], "Error", reason="worn out")
    later = world.run(QueueDriveCleaning(drive_id=1)).ids
    assert kept(world) == sorted(ids[-3:] + later), "the first one queued is the first to go, though it ended last"


def test_a_log_of_before_is_worked_off_in_bounded_steps(world: TapeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = ended(world, 8)
    monkeypatch.setattr(tape_tasks, "ENDED_MAX", 2)
    monkeypatch.setattr(tape_tasks, "REMOVED_MAX", 3)
    ids += ended(world)
    assert kept(world) == ids[3:]
    ids += ended(world)
    assert kept(world) == ids[6:]


def test_what_libraries_left_that_are_gone_goes(world: TapeWorld) -> None:
    ended(world, 2)
    world.run(DeleteRecords(resource="tape_libraries", ids=[world.library_id]))
    assert len(kept(world)) == 2, "they say what was done, until somebody needs a library again"
    world.library_id = world.run(world.adding()).ids[0]
    drive = world.drive()
    ids = world.run(QueueDriveCleaning(drive_id=drive.id)).ids
    assert kept(world) == ids


@pytest.mark.parametrize("by_word", [False, True])
def test_with_its_task_goes_what_was_done_for_it(world: TapeWorld, by_word: bool) -> None:
    world.client()
    first, second = (world.transmitting(world.queued(pool=POOL)).id for _ in range(2))
    done, other = (world.work("Write", task_id) for task_id in (first, second))
    world.advanced(done, "Execution")
    world.advanced(done, "Done")
    world.advanced(other, "Done")
    world.run(KillTask(task_id=first))
    world.run(AdvanceTask(task_id=first, status="Killed"))
    world.run(RemoveTasks(status_word="killed") if by_word else RemoveTasks(ids=[first]))
    assert kept(world) == [other], "its task has not ended"
    assert not world.state.indexes.ended_tape_tasks_of_task.get(first)
