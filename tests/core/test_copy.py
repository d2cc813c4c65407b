"""Copies and Moves: what may go where, what is recorded, and that nothing that is needed is ever removed."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbcore.commands import (
    AdvanceTask,
    CatalogFacts,
    CreateRecord,
    DeleteBackups,
    DeleteRecords,
    KillTask,
    QueueCopy,
    QueueRestore,
    RecordBytesRemoved,
    RecordCopy,
    RestartTasks,
)
from rbcore.dispatch import AssignStep, CopyStep, Facts, RemoveBytesStep, StartOnClientStep, next_steps
from rbcore.entities import Backup, PendingRemoval, Pool, Task
from rbcore.errors import Damaged, InvalidRequest, NotAllowedNow, NotFound, RbError, Refused
from rbcore.vocabulary import TERMINAL_STATUSES
from tests.core.world import World, archive_of

SECOND, THIRD = "Second", "Third"


class Pools(World):
    """Three File system pools with a catalog each."""

    def __init__(self) -> None:
        super().__init__()
        self.installed()
        self.client()
        for name in (SECOND, THIRD):
            self.run(CreateRecord(resource="pool_list", fields={"pool_name": name, "pool_type": "File system"}))
            fields = {"path": f"/srv/{name.lower()}", "pool": name}
            self.run(CreateRecord(resource="storage_local_catalogs", fields=fields))

    def backup(self, id: int) -> Backup:
        found = self.state.find(Backup, id)
        assert found is not None
        return found

    def queued_copy(self, backup_id: int, pool: str = SECOND, *, move: bool = False) -> int:
        return self.run(QueueCopy(backup_id=backup_id, pool_name=pool, move=move)).ids[0]

    def begun(self, task_id: int) -> Task:
        self.assigned(task_id)
        self.run(AdvanceTask(task_id=task_id, status="Execution"))
        return self.task(task_id)

    def copied(self, backup_id: int, pool: str = SECOND, *, move: bool = False) -> int:
        return self.record(self.begun(self.queued_copy(backup_id, pool, move=move)))

    def record(self, task: Task, **given: Any) -> int:
        facts = {"task_id": task.id, "archive_size": 1_100, "root": self.backup(task.backup_id).root, **given}
        return self.run(RecordCopy(**facts)).ids[0]

    def steps(self, **given: Any) -> list[Any]:
        facts = Facts(online_clients={1}, **{"under_way": set(), **given})
        return next_steps(self.state, facts, self.now_ns)


@pytest.fixture
def world() -> Pools:
    return Pools()


def refused(world: Pools, backup_id: int, pool: str, *, move: bool = False) -> str:
    with pytest.raises((Refused, InvalidRequest, NotFound)) as error:
        world.queued_copy(backup_id, pool, move=move)
    sentences = [one for lines in error.value.errors.values() for one in lines]
    return " ".join([error.value.message, *sentences])


# --- queueing --------------------------------------------------------------------------------------------------------


def test_what_cannot_be_copied_says_why(world: Pools) -> None:
    full = world.backed_up()
    incremental = world.backed_up(backup_type="incremental")
    world.run(CreateRecord(resource="pool_list", fields={"pool_name": "Own", "pool_type": "Client defined"}))
    assert "Only a full backup can be copied" in refused(world, incremental, SECOND)
    assert "Only a full backup can be moved" in refused(world, incremental, SECOND, move=True)
    assert "it is there already" in refused(world, full, "Default")
    assert "no pool 'Nowhere'" in refused(world, full, "Nowhere")
    assert "of the type Client defined" in refused(world, full, "Own")
    assert "backup not found" in refused(world, 99, SECOND)


def test_an_archive_is_in_a_pool_once_and_copied_by_one_task_at_a_time(world: Pools) -> None:
    full = world.backed_up()
    task_id = world.queued_copy(full)
    assert f"task {task_id} (Copy, New) is copying" in refused(world, full, THIRD, move=True)
    copy = world.record(world.begun(task_id))
    assert f"backup {copy} is the same archive" in refused(world, full, SECOND)
    assert f"backup {full} is the same archive" in refused(world, copy, "Default")


def test_where_bytes_are_being_removed_nothing_of_the_same_name_is_written(world: Pools) -> None:
    full = world.backed_up()
    copy = world.copied(full)
    world.run(DeleteBackups(ids=[full]))
    assert "is being removed from its catalog /srv/default" in refused(world, copy, "Default")
    world.run(RecordBytesRemoved(backup_id=full, bytes_removed=1))
    world.copied(copy, "Default")


def test_a_backup_is_not_moved_on_before_its_old_bytes_are_gone(world: Pools) -> None:
    full = world.backed_up()
    world.copied(full, move=True)
    assert "are not removed yet" in refused(world, full, THIRD, move=True)
    with pytest.raises(Refused, match="removes its bytes"):
        world.run(DeleteBackups(ids=[full]))
    world.copied(full, THIRD)
    (delete,) = [one.id for one in world.state.active_tasks() if one.task_type == "Delete"]
    world.begun(delete)
    world.run(RecordBytesRemoved(backup_id=full, bytes_removed=1))
    world.run(DeleteBackups(ids=[full]))


# --- assigning -------------------------------------------------------------------------------------------------------


def test_a_copy_needs_its_source_and_room_for_it(world: Pools) -> None:
    full = world.backed_up()
    task_id = world.queued_copy(full)
    assert world.steps() == [AssignStep(task_id=task_id, catalog_ids=(1, 2))]
    size = world.backup(full).archive_size
    room = [
        CatalogFacts(local_catalog_id=1, online=True, free_bytes=0),
        CatalogFacts(local_catalog_id=2, online=True, free_bytes=2_000_000_000 + size),
    ]
    task = world.assigned(task_id, catalogs=room)
    assert task.status == "Suspended"
    assert f"and {size} for the archive" in task.status_reason
    world.run(AdvanceTask(task_id=task_id, status="New"))
    gone = [CatalogFacts(local_catalog_id=1, online=False, free_bytes=0, problem="nobody mounted it"), world.facts()[1]]
    task = world.assigned(task_id, catalogs=gone)
    assert "catalog /srv/default cannot be used: nobody mounted it" in task.status_reason
    world.run(AdvanceTask(task_id=task_id, status="New"))
    task = world.assigned(task_id)
    assert (task.status, task.archive) == ("Assigned", world.backup(full).archive)
    assert (task.pool_id, task.local_catalog_id, task.target_pool_id, task.target_local_catalog_id) == (1, 1, 2, 2)
    assert world.steps() == [CopyStep(task_id=task_id, backup_id=full)]


def test_pools_and_catalogs_that_a_copy_writes_to_are_not_deleted(world: Pools) -> None:
    task_id = world.queued_copy(world.backed_up())
    with pytest.raises(Refused) as refusal:
        world.run(DeleteRecords(resource="pool_list", ids=[2]))
    assert any("tasks that have not ended need it" in one for one in refusal.value.errors["2"])
    world.assigned(task_id)
    with pytest.raises(Refused, match="work there"):
        world.run(DeleteRecords(resource="storage_local_catalogs", ids=[2]))


# --- recording -------------------------------------------------------------------------------------------------------


def test_a_copy_is_a_backup_with_all_that_is_known_of_the_first(world: Pools) -> None:
    full = world.backed_up()
    task = world.begun(world.queued_copy(full))
    assert not world.state.indexes.by_key[Backup.KIND].get((task.archive, 2))
    copy = world.backup(world.record(task))
    first = world.backup(full)
    assert (copy.pool_id, copy.local_catalog_id, copy.task_id, copy.ref_id) == (2, 2, task.id, 0)
    for name in ("archive", "root", "signature", "files", "data_size", "store_until_ns", "crypto", "started_ns"):
        assert getattr(copy, name) == getattr(first, name), name
    assert copy.verification_status == "Not Verified"
    assert world.task(task.id).status == "Done"
    assert world.record(world.task(task.id)) == copy.id, "a repeat gets the first answer"


def test_a_move_keeps_the_backup_and_what_depends_on_it(world: Pools) -> None:
    full = world.backed_up()
    incremental = world.backed_up(backup_type="incremental")
    assert world.copied(full, move=True) == full
    moved = world.backup(full)
    assert (moved.pool_id, moved.local_catalog_id) == (2, 2)
    assert world.backup(incremental).ref_id == full
    removal = world.state.find(PendingRemoval, full)
    assert removal is not None
    assert (removal.local_catalog_id, removal.archive) == (1, moved.archive)
    (delete,) = [one for one in world.state.active_tasks() if one.task_type == "Delete"]
    assert removal.task_id == delete.id
    assert world.steps() == [AssignStep(task_id=delete.id, catalog_ids=(1,))]
    world.assigned(delete.id)
    step = RemoveBytesStep(task_id=delete.id, backup_id=full, local_catalog_id=1, archive=moved.archive)
    assert world.steps() == [step]
    world.run(RecordBytesRemoved(backup_id=full, bytes_removed=7))
    assert world.task(delete.id).status == "Done"
    assert world.backup(full) == moved


def test_a_copy_with_another_root_is_none(world: Pools) -> None:
    full = world.backed_up()
    task = world.begun(world.queued_copy(full, move=True))
    with pytest.raises(Damaged, match="has the root"):
        world.record(task, root="00" * 32)
    assert world.backup(full).pool_id == 1
    with pytest.raises(NotAllowedNow, match="RecordCopy"):
        world.run(AdvanceTask(task_id=task.id, status="Done"))


def test_what_was_killed_is_not_recorded(world: Pools) -> None:
    full = world.backed_up()
    task = world.begun(world.queued_copy(full))
    world.run(KillTask(task_id=task.id))
    with pytest.raises(NotAllowedNow):
        world.record(task)
    world.run(AdvanceTask(task_id=task.id, status="Killed"))
    again = world.run(RestartTasks(ids=[task.id])).ids[0]
    assert f"task {again}" in refused(world, full, THIRD)
    copy = world.record(world.begun(again))
    assert world.backup(copy).pool_id == 2
    with pytest.raises(Refused, match="the same archive"):
        world.run(RestartTasks(ids=[task.id]))


def test_two_copies_of_one_archive_are_not_restarted_together(world: Pools) -> None:
    full = world.backed_up()
    ended = []
    for pool in (SECOND, THIRD):
        ended.append(world.queued_copy(full, pool))
        world.run(KillTask(task_id=ended[-1]))
    with pytest.raises(Refused, match="both copy the same archive"):
        world.run(RestartTasks(ids=ended))
    for task_id in ended[:1]:
        world.run(RestartTasks(ids=[task_id]))


def test_a_suspended_copy_can_be_restarted(world: Pools) -> None:
    task = world.begun(world.queued_copy(world.backed_up()))
    world.run(AdvanceTask(task_id=task.id, status="Suspended", retry_at_ns=1))
    (again,) = world.run(RestartTasks(ids=[task.id])).ids
    assert world.task(task.id).status == "Killed"
    assert world.task(again).target_pool_id == 2


# --- readers ---------------------------------------------------------------------------------------------------------


def test_the_old_bytes_stay_while_somebody_reads_them(world: Pools) -> None:
    full = world.backed_up()
    last = world.backed_up(backup_type="incremental")
    restore = world.run(QueueRestore(backup_id=last, restore_task={"destination_path": "/back"})).ids[0]
    world.assigned(restore)
    world.run(AdvanceTask(task_id=restore, status="At_Client"))
    world.copied(full, move=True)
    (delete,) = [one.id for one in world.state.active_tasks() if one.task_type == "Delete"]
    world.assigned(delete)
    assert world.steps(under_way={restore}) == []
    world.run(AdvanceTask(task_id=restore, status="Done"))
    assert [type(one) for one in world.steps()] == [RemoveBytesStep]


def test_a_backup_that_compares_with_a_moved_parent_holds_its_old_bytes(world: Pools) -> None:
    full = world.backed_up()
    task = world.transmitting(world.queued(backup_type="incremental"))
    world.copied(full, move=True)
    (delete,) = [one.id for one in world.state.active_tasks() if one.task_type == "Delete"]
    world.assigned(delete)
    assert world.steps(under_way={task.id}) == []
    world.run(archive_of(task))
    assert [type(one) for one in world.steps()] == [RemoveBytesStep]


def test_a_restore_that_was_assigned_before_reads_the_new_place(world: Pools) -> None:
    full = world.backed_up()
    restore = world.run(QueueRestore(backup_id=full, restore_task={"destination_path": "/back"})).ids[0]
    world.assigned(restore)
    world.copied(full, move=True)
    assert StartOnClientStep(task_id=restore, client_id=1) in world.steps()


# --- any history -----------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_removal_ever_names_bytes_of_a_backup(data: st.DataObject) -> None:
    world = Pools()
    world.backed_up()
    pools = ["Default", SECOND, THIRD]
    for _ in range(data.draw(st.integers(1, 14))):
        backups = [one.id for one in world.state.all(Backup)]
        verb = data.draw(st.sampled_from(["backup", "copy", "move", "delete", "removed", "begin", "record", "kill"]))
        tasks = [one for one in world.state.active_tasks() if one.task_type in ("Copy", "Move")]
        with suppress(RbError):
            if verb == "backup":
                world.backed_up(backup_type=data.draw(st.sampled_from(["full", "incremental"])))
            elif verb in ("copy", "move") and backups:
                pool = data.draw(st.sampled_from(pools))
                world.queued_copy(data.draw(st.sampled_from(backups)), pool, move=verb == "move")
            elif verb == "delete" and backups:
                world.run(DeleteBackups(ids=[data.draw(st.sampled_from(backups))]))
            elif verb == "removed":
                for removal in list(world.state.all(PendingRemoval))[:1]:
                    world.run(RecordBytesRemoved(backup_id=removal.id, bytes_removed=1))
            elif verb == "begin" and tasks:
                world.begun(data.draw(st.sampled_from(tasks)).id)
            elif verb == "record" and tasks:
                world.record(data.draw(st.sampled_from(tasks)))
            elif verb == "kill" and tasks:
                task = data.draw(st.sampled_from(tasks))
                world.run(KillTask(task_id=task.id))
        _check(world)


def _check(world: Pools) -> None:
    state = world.state
    backups = list(state.all(Backup))
    places = [(one.archive, one.local_catalog_id) for one in backups]
    assert len({(one.archive, one.pool_id) for one in backups}) == len(backups)
    removals = [(one.archive, one.local_catalog_id) for one in state.all(PendingRemoval)]
    assert not set(places) & set(removals), "a removal would take the bytes of a backup"
    assert len(set(removals)) == len(removals)
    written = [
        (one.archive, one.target_local_catalog_id)
        for one in state.all(Task)
        if one.task_type in ("Copy", "Move") and one.status not in TERMINAL_STATUSES and one.target_local_catalog_id
    ]
    assert not set(written) & (set(places) | set(removals)), "a copy is written where something of its name is"
    assert len(set(written)) == len(written)
    for backup in backups:
        assert state.find(Pool, backup.pool_id) is not None
        assert not backup.ref_id or state.find(Backup, backup.ref_id) is not None
