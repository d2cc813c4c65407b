"""Tasks whose archives are on cartridges: where they are assigned, what they wait for, and that none waits for itself."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from rbcore.commands import (
    AdvanceTapeTask,
    AdvanceTask,
    AgentGone,
    AssignTask,
    ContinueTask,
    DeleteBackups,
    PauseTask,
    QueueCopy,
    QueueRestore,
    QueueTapeWork,
    QueueVerification,
    RecordCopy,
    SetDriveStatus,
    SetLibraryStatus,
)
from rbcore.dispatch import (
    CLIENT_TASKS_MAX,
    AssignStep,
    CopyStep,
    Facts,
    QueueTapeWorkStep,
    RecoverStep,
    RetryStep,
    StartOnClientStep,
    VerifyStep,
    next_steps,
)
from rbcore.entities import Backup, BackupPart, PendingRemoval, TapeCartridge, Task
from rbcore.errors import NotAllowedNow
from rbcore.events import CartridgeErasingBegun, CartridgeImported, CartridgeLabelled
from rbcore.vocabulary import TaskType
from tests.core.tape_world import DRIVES, POOL, SLOTS, A, B, TapeWorld
from tests.core.world import archive_of, whole

C = "CCC001L9"
OTHER = "Other tapes"


class Tapes(TapeWorld):
    """A library with a pool of its own and one of others' in it; A and B belong to the first, C to the second."""

    def __init__(self) -> None:
        super().__init__()
        self.with_library(A, B)
        self.pool(OTHER)
        self.register(C, OTHER)
        self.shelf[SLOTS[2]] = C
        self.sync()
        self.client()

    def steps(self, *, online: bool = True, **given: Any) -> list[Any]:
        facts = Facts(online_clients={1} if online else set(), **{"under_way": set(), **given})
        return next_steps(self.state, facts, self.now_ns)

    def part(self, tag: str, number: int = 1, position: int = 5) -> BackupPart:
        return BackupPart(
            cartridge_id=self.cartridge(tag).id,
            part=number,
            position=position,
            records=2,
            first_block=number,
            last_block=number,
            blocks=1,
            stored_bytes=1_000,
            final=True,
        )

    def on_tape(self, *tags: str, pool: str = POOL, **fields: Any) -> int:
        """A finished backup on these cartridges; its id."""
        task = self.transmitting(self.queued(pool=pool, **fields))
        parts = [self.part(tag, number) for number, tag in enumerate(tags)]
        for tag in tags:
            self.holds(tag, task.id)
        return self.run(archive_of(task, parts=parts)).ids[0]

    def restoring(self, backup_id: int) -> int:
        return self.run(QueueRestore(backup_id=backup_id, restore_task={"destination_path": "/back"})).ids[0]

    def copying(self, backup_id: int, pool: str, *, move: bool = False) -> int:
        return self.run(QueueCopy(backup_id=backup_id, pool_name=pool, move=move)).ids[0]

    def carry(self, step: QueueTapeWorkStep) -> int:
        return self.run(
            QueueTapeWork(
                task_type=step.task_type,
                task_id=step.task_id,
                library_id=step.library_id,
                cartridge_id=step.cartridge_id,
                position=step.position,
            )
        ).ids[0]

    def granted(self, step: Any, drive: int = 0) -> int:
        tape_task = self.carry(step)
        cartridge_id = step.cartridge_id or self.cartridge(A).id
        self.advanced(tape_task, "Execution", drive_id=self.drive(DRIVES[drive]).id, cartridge_id=cartridge_id)
        return tape_task

    def export(self, tag: str) -> None:
        """Somebody took it out."""
        address = next(known for known, found in self.shelf.items() if found == tag)
        del self.shelf[address]
        self.sync()


@pytest.fixture
def world() -> Tapes:
    return Tapes()


def read(world: Tapes, task_id: int, tag: str, position: int = 5) -> QueueTapeWorkStep:
    return QueueTapeWorkStep(
        task_id=task_id, task_type="Read", library_id=1, cartridge_id=world.cartridge(tag).id, position=position
    )


def write(task_id: int) -> QueueTapeWorkStep:
    return QueueTapeWorkStep(task_id=task_id, task_type="Write", library_id=1)


# --- backups ---------------------------------------------------------------------------------------------------------


def test_a_backup_into_a_tape_pool_waits_for_a_drive(world: Tapes) -> None:
    task_id = world.queued(pool=POOL)
    assert world.steps() == [AssignStep(task_id=task_id, catalog_ids=())]
    task = world.assigned(task_id)
    assert (task.status, task.library_id, task.local_catalog_id) == ("Assigned", 1, 0)
    assert "library 1 is online and has a drive" in task.status_reason
    (step,) = world.steps()
    assert step == write(task_id)
    tape_task = world.carry(step)
    assert world.steps() == []
    world.advanced(tape_task, "Execution", drive_id=1, cartridge_id=world.cartridge(A).id)
    assert world.steps() == [StartOnClientStep(task_id=task_id, client_id=1)]
    assert world.steps(under_way={task_id}) == []


def test_without_a_library_or_a_drive_it_waits_and_says_why(world: Tapes) -> None:
    world.pool("Nowhere")
    task = world.assigned(world.queued(pool="Nowhere"))
    assert (task.status, "no library holds pool 'Nowhere'" in task.status_reason) == ("Suspended", True)
    for address in DRIVES:
        world.run(SetDriveStatus(drive_id=world.drive(address).id, status="offline", reason="silent"))
    task_id = world.queued(pool=POOL)
    assert "none of its drives can be used" in world.assigned(task_id).status_reason
    world.run(SetDriveStatus(drive_id=world.drive().id, status="free", reason="back"))
    world.run(SetLibraryStatus(library_id=1, status="Quarantined", reason="its robot is stuck"))
    world.run(AdvanceTask(task_id=task_id, status="New"))
    task = world.assigned(task_id)
    assert "it is Quarantined (its robot is stuck)" in task.status_reason
    assert task.retry_at_ns
    world.run(SetLibraryStatus(library_id=1, status="Online", reason=""))
    world.now_ns = task.retry_at_ns
    assert world.steps() == [RetryStep(task_id=1), RetryStep(task_id=task_id)]
    world.run(AdvanceTask(task_id=task_id, status="New"))
    assert world.assigned(task_id).status == "Assigned"


def test_an_attempt_on_tape_is_never_gone_on_with(world: Tapes) -> None:
    task_id = world.queued(pool=POOL)
    first = world.assigned(task_id).archive
    world.run(AdvanceTask(task_id=task_id, status="At_Client"))
    world.run(AdvanceTask(task_id=task_id, status="Suspended", retry_at_ns=1))
    world.run(AdvanceTask(task_id=task_id, status="New"))
    assert world.assigned(task_id).archive not in ("", first)


def test_a_backup_stands_on_its_cartridges_in_one_batch(world: Tapes) -> None:
    task = world.transmitting(world.queued(pool=POOL))
    with pytest.raises(NotAllowedNow, match="no parts are named"):
        world.run(archive_of(task))
    for tag in (A, B):
        world.holds(tag, task.id)
    before = len(world.log)
    backup_id = world.run(archive_of(task, parts=[world.part(A), world.part(B, 2)])).ids[0]
    assert world.events(before)[:2] == ["backup.recorded", "backup.placed"]
    backup = world.state.find(Backup, backup_id)
    assert backup is not None
    assert (backup.library_id, backup.local_catalog_id, len(backup.parts)) == (1, 0, 2)
    assert world.state.indexes.backups_on_cartridge[world.cartridge(B).id] == {backup_id}


def test_an_incremental_on_tape_refers_to_the_full_one_there(world: Tapes) -> None:
    full = world.on_tape(A)
    world.export(A)
    task = world.assigned(world.queued(pool=POOL, backup_type="incremental"))
    assert (task.parent_backup_id, task.backup_type) == (full, "incremental"), "only its manifest is read"


# --- restores --------------------------------------------------------------------------------------------------------


def test_a_restore_waits_for_the_first_cartridge_of_its_chain(world: Tapes) -> None:
    world.on_tape(A)
    last = world.on_tape(B, backup_type="incremental")
    task_id = world.restoring(last)
    task = world.assigned(task_id)
    assert (task.status, task.library_id) == ("Assigned", 1)
    (step,) = world.steps()
    assert step == read(world, task_id, A)
    world.granted(step)
    assert world.steps() == [StartOnClientStep(task_id=task_id, client_id=1)]


def test_every_cartridge_of_the_chain_must_be_in_reach(world: Tapes) -> None:
    world.on_tape(A)
    last = world.on_tape(B, backup_type="incremental")
    world.export(A)
    task = world.assigned(world.restoring(last))
    assert task.status == "Suspended"
    assert A in task.status_reason
    assert B not in task.status_reason
    world.shelf[SLOTS[0]] = A
    world.sync()
    world.now_ns = task.retry_at_ns
    assert RetryStep(task_id=task.id) in world.steps()


def test_a_verification_needs_its_own_archive_only(world: Tapes) -> None:
    world.on_tape(A)
    last = world.on_tape(B, backup_type="incremental")
    world.export(A)
    task_id = world.run(QueueVerification(backup_id=last)).ids[0]
    world.assigned(task_id)
    (step,) = world.steps()
    assert step == read(world, task_id, B)
    world.granted(step)
    assert world.steps() == [VerifyStep(task_id=task_id, backup_id=last, local_catalog_id=0)]


def test_all_restores_are_seen_by_the_planner_and_few_begin(world: Tapes) -> None:
    backup = world.on_tape(A)
    tasks = [world.restoring(backup) for _ in range(3 * CLIENT_TASKS_MAX)]
    assert [type(one) for one in world.steps()] == [AssignStep] * len(tasks)
    for task_id in tasks:
        world.assigned(task_id)
    steps = world.steps()
    assert [one.task_id for one in steps] == tasks
    for step in steps:
        world.granted(step)
    assert [one.task_id for one in world.steps()] == tasks[:CLIENT_TASKS_MAX]
    assert world.steps(under_way=set(tasks[:CLIENT_TASKS_MAX])) == []


def test_tape_restores_do_not_keep_a_client_from_its_backups(world: Tapes) -> None:
    backup = world.on_tape(A)
    for _ in range(2 * CLIENT_TASKS_MAX):
        world.carry(_assigned_step(world, world.restoring(backup)))
    other = world.queued(resource="/etc")
    assert [one.task_id for one in world.steps()] == [other]


def _assigned_step(world: Tapes, task_id: int) -> QueueTapeWorkStep:
    world.assigned(task_id)
    (step,) = [one for one in world.steps() if one.task_id == task_id]
    assert isinstance(step, QueueTapeWorkStep)
    return step


def test_whoever_waits_for_a_cartridge_makes_room_for_its_holder(world: Tapes) -> None:
    """Both started restores need B next, which a third one holds: it must be able to begin."""
    world.on_tape(A)
    last = world.on_tape(B, backup_type="incremental")
    only_b = world.on_tape(B, resource="/etc")
    started = [world.restoring(last) for _ in range(CLIENT_TASKS_MAX)]
    for task_id in started:
        tape_task = world.granted(_assigned_step(world, task_id))
        world.run(AdvanceTask(task_id=task_id, status="At_Client"))
        world.advanced(tape_task, "Done")
    holder = world.restoring(only_b)
    world.granted(_assigned_step(world, holder), drive=1)
    assert world.steps(under_way=set(started)) == [], "the client is busy"
    for task_id in started:
        world.carry(read(world, task_id, B))
    assert world.steps(under_way=set(started)) == [StartOnClientStep(task_id=holder, client_id=1)]


def test_a_client_that_is_gone_holds_no_drive(world: Tapes) -> None:
    task_id = world.restoring(world.on_tape(A))
    step = _assigned_step(world, task_id)
    assert world.steps(online=False) == []
    world.granted(step)
    world.run(AgentGone(client_id=1, reason="lost"))
    (recover,) = world.steps(online=False)
    assert isinstance(recover, RecoverStep)
    assert "its client is offline" in recover.reason


def test_a_cartridge_that_went_after_the_assignment_is_named(world: Tapes) -> None:
    task_id = world.restoring(world.on_tape(A))
    world.assigned(task_id)
    world.export(A)
    (step,) = world.steps()
    assert isinstance(step, RecoverStep)
    assert A in step.reason


def test_a_restore_of_a_chain_in_both_kinds_of_pools_waits_for_both(world: Tapes) -> None:
    full = world.backed_up()
    last = world.backed_up(backup_type="incremental")
    _record(world, world.copying(full, POOL, move=True), parts=[world.part(A)])
    task_id = world.restoring(last)
    (assign,) = [one for one in world.steps() if one.task_id == task_id]
    assert assign == AssignStep(task_id=task_id, catalog_ids=(1,))
    task = world.assigned(task_id)
    assert (task.local_catalog_id, task.library_id) == (1, 1)
    assert A in task.status_reason
    (step,) = [one for one in world.steps() if one.task_id == task_id]
    assert step == read(world, task_id, A)


def _record(world: Tapes, task_id: int, **given: Any) -> int:
    """Assign and carry out a Copy or Move."""
    task = world.assigned(task_id)
    assert task.status == "Assigned", task.status_reason
    world.run(AdvanceTask(task_id=task_id, status="Execution"))
    backup = world.state.find(Backup, task.backup_id)
    assert backup is not None
    for part in given.get("parts", ()):
        world.holds(world.state.tables[TapeCartridge.KIND][part.cartridge_id].volume_tag, task_id)
    return world.run(RecordCopy(task_id=task_id, archive_size=9, root=backup.root, **given)).ids[0]


# --- law 4: parts that are there --------------------------------------------------------------------------------------


def _erased_meanwhile(world: Tapes) -> None:
    event = CartridgeErasingBegun(False, 1, "by a hand that asked nobody")
    world._apply([(f"tape_cartridge/{world.cartridge(B).id}", event)], whole(world.state))


def _labelled_meanwhile(world: Tapes) -> None:
    world.now_ns += 10**9
    event = CartridgeLabelled("native", "ff" * 16, 2, 10**12)
    world._apply([(f"tape_cartridge/{world.cartridge(B).id}", event)], whole(world.state))


@pytest.mark.parametrize("kind", ["backup", "copy", "move"])
@pytest.mark.parametrize(
    ("meanwhile", "why"),
    [(_erased_meanwhile, "nobody knows how its last erase ended"), (_labelled_meanwhile, "that was labelled since")],
)
def test_an_archive_is_not_recorded_where_its_parts_are_not(world: Tapes, kind: str, meanwhile: Any, why: str) -> None:
    parts = [world.part(A, 0), world.part(B, 1)]
    if kind == "backup":
        task = world.transmitting(world.queued(pool=POOL))
        command: Any = archive_of(task, parts=parts)
    else:
        task = world.assigned(world.copying(world.backed_up(), POOL, move=kind == "move"))
        world.run(AdvanceTask(task_id=task.id, status="Execution"))
        command = RecordCopy(task_id=task.id, archive_size=9, root="0f" * 32, parts=parts)
    before = len(list(world.state.all(Backup)))

    def refused(sentence: str) -> None:
        position = world.state.position
        with pytest.raises(NotAllowedNow, match=sentence):
            world.run(command)
        assert world.state.position == position

    refused(f"cartridge {A}, and that has no label: restart the task")
    world.holds(A, task.id)
    world.holds(B, world.queued(pool=POOL))
    refused(f"cartridge {B}, and the task ended no part there")
    world.holds(B, task.id)
    meanwhile(world)
    refused(f"cartridge {B}, and {why}")
    parts[1] = msgspec.structs.replace(parts[1], cartridge_id=99)
    refused("cartridge 99, and that is not registered any more")
    parts[1:] = []
    world.run(command)
    assert len(list(world.state.all(Backup))) == before + (kind != "move")
    assert {part.cartridge_id for one in world.state.all(Backup) for part in one.parts} == {world.cartridge(A).id}


# --- deletions -------------------------------------------------------------------------------------------------------


def test_deleting_from_tape_mounts_nothing_and_says_where_the_bytes_are(world: Tapes) -> None:
    backup = world.on_tape(A, B)
    world.written(A, 0)
    before = len(world.log)
    (delete,) = world.run(DeleteBackups(ids=[backup])).data["task_ids"]
    kinds = ["task.queued", "backup.deleted", "backup.bytes_removed", "task.assigned", "task.status_changed"]
    assert world.events(before) == kinds
    task = world.task(delete)
    assert task.status == "Done"
    assert task.status_reason == f"its bytes stay on cartridges {A}, {B} until they are labelled again"
    assert world.state.find(PendingRemoval, backup) is None
    assert world.cartridge(A).status == "Expired"
    assert world.steps() == []


# --- copies ----------------------------------------------------------------------------------------------------------


def test_a_copy_to_tape_waits_for_a_drive_to_write(world: Tapes) -> None:
    full = world.backed_up()
    task_id = world.copying(full, POOL)
    assert world.steps() == [AssignStep(task_id=task_id, catalog_ids=(1,))]
    task = world.assigned(task_id)
    assert (task.local_catalog_id, task.library_id, task.target_library_id) == (1, 0, 1)
    (step,) = world.steps()
    assert step == write(task_id)
    world.granted(step)
    assert world.steps() == [CopyStep(task_id=task_id, backup_id=full)]
    world.run(AdvanceTask(task_id=task_id, status="Execution"))
    with pytest.raises(NotAllowedNow, match="no parts"):
        world.run(RecordCopy(task_id=task_id, archive_size=9, root="0f" * 32))
    world.holds(A, task_id)
    copy = world.run(RecordCopy(task_id=task_id, archive_size=9, root="0f" * 32, parts=[world.part(A)])).ids[0]
    backup = world.state.find(Backup, copy)
    assert backup is not None
    assert (backup.library_id, backup.local_catalog_id, backup.parts[0].cartridge_id) == (1, 0, world.cartridge(A).id)


def test_a_move_off_tape_ends_what_was_there(world: Tapes) -> None:
    backup = world.on_tape(A)
    world.written(A, 0)
    task_id = world.copying(backup, "Default", move=True)
    _record(world, task_id)
    found = world.state.find(Backup, backup)
    assert found is not None
    assert (found.parts, found.library_id, found.local_catalog_id) == ((), 0, 1)
    assert world.state.find(PendingRemoval, backup) is None
    (delete,) = [one for one in world.state.all(Task) if one.task_type == TaskType.DELETE]
    assert (delete.status, A in delete.status_reason) == ("Done", True)
    assert world.cartridge(A).status == "Expired"


def test_from_tape_to_tape_writing_is_asked_for_first(world: Tapes) -> None:
    full = world.on_tape(A)
    task_id = world.copying(full, OTHER)
    task = world.assigned(task_id)
    assert (task.library_id, task.target_library_id) == (1, 1)
    (step,) = world.steps()
    assert step == write(task_id)
    tape_task = world.carry(step)
    assert world.steps() == []
    world.advanced(tape_task, "Execution", drive_id=1, cartridge_id=world.cartridge(C).id)
    (step,) = world.steps()
    assert step == read(world, task_id, A)
    world.granted(step, drive=1)
    assert world.steps() == [CopyStep(task_id=task_id, backup_id=full)]


def test_one_copy_from_tape_to_tape_at_a_time(world: Tapes) -> None:
    tasks = [world.copying(world.on_tape(A, resource=name), OTHER) for name in ("/one", "/two")]
    for task_id in tasks:
        world.assigned(task_id)
    (step,) = world.steps()
    assert step == write(tasks[0])
    world.granted(step)
    world.run(PauseTask(task_id=tasks[0]))
    assert world.steps() == [], "paused with a drive in its hands"
    world.run(ContinueTask(task_id=tasks[0]))
    (step,) = world.steps()
    assert step == read(world, tasks[0], A)
    world.granted(step, drive=1)
    world.run(AdvanceTask(task_id=tasks[0], status="Execution"))
    assert world.steps(under_way={tasks[0]}) == []
    world.holds(C, tasks[0])
    world.run(RecordCopy(task_id=tasks[0], archive_size=9, root="0f" * 32, parts=[world.part(C)]))
    assert world.steps() == [write(tasks[1])]


def test_from_tape_to_tape_takes_two_drives(world: Tapes) -> None:
    first, second = (world.copying(world.on_tape(A, resource=name), OTHER) for name in ("/one", "/two"))
    world.assigned(first)
    world.granted(world.steps()[0])
    world.run(SetDriveStatus(drive_id=world.drive(DRIVES[1]).id, status="offline", reason="silent"))
    (step,) = [one for one in world.steps() if one.task_id == first]
    assert isinstance(step, RecoverStep), "it would wait for a drive that it has in its hands"
    assert "has lost a drive" in step.reason
    assert "takes two drives, and 1 can be used" in world.assigned(second).status_reason


def test_a_cartridge_is_not_read_and_written_at_once(world: Tapes) -> None:
    full = world.on_tape(A)
    world.written(A, 0)
    pool_id = world.pool("Third")
    imported = (f"tape_cartridge/{world.cartridge(A).id}", CartridgeImported(pool_id))
    world._apply([imported], whole(world.state))
    task = world.assigned(world.copying(full, "Third"))
    assert (task.status, "read and written at once" in task.status_reason) == ("Suspended", True)


# --- Moves off cartridges and readers of them --------------------------------------------------------------------------


def test_readers_and_a_move_off_cartridges_keep_out_of_each_others_way(world: Tapes) -> None:
    full = world.on_tape(A)
    last = world.on_tape(B, backup_type="incremental")
    restore, move = world.restoring(last), world.copying(full, "Default", move=True)
    world.assigned(restore)
    task = world.assigned(move)
    assert (task.status, f"task {restore} (Restore) reads" in task.status_reason) == ("Suspended", True)
    world.run(AdvanceTask(task_id=restore, status="Error"))
    world.run(AdvanceTask(task_id=move, status="New"))
    assert world.assigned(move).status == "Assigned"
    later = world.assigned(world.restoring(last))
    assert (later.status, f"task {move} is moving backup {full}" in later.status_reason) == ("Suspended", True)
    world.run(PauseTask(task_id=move))
    world.run(AdvanceTask(task_id=later.id, status="New"))
    assert world.assigned(later.id).status == "Suspended"


def test_reports_of_a_failed_cartridge_suspend_the_task(world: Tapes) -> None:
    task_id = world.restoring(world.on_tape(A))
    tape_task = world.carry(_assigned_step(world, task_id))
    world.run(AdvanceTapeTask(tape_task_id=tape_task, status="Error", reason="its drive is gone"))
    task = world.task(task_id)
    assert (task.status, task.status_reason) == ("Suspended", "its drive is gone")
    world.run(AdvanceTask(task_id=task_id, status="New"))
    world.run(AssignTask(task_id=task_id, catalogs=[], client_online=True))
    assert isinstance(world.steps()[0], QueueTapeWorkStep)
