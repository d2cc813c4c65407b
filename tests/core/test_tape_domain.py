"""Tape libraries as the log sees them: what lies where, moves, the queue. Mounts and cartridges: ``test_tape_cartridges``; any history:
``test_tape_histories``."""

from __future__ import annotations

from typing import Any

import pytest

from rbcore import media
from rbcore.commands import (
    AddTapeDrives,
    BeginMount,
    BeginMove,
    CreateRecord,
    DeleteRecords,
    EndMove,
    ImportCartridges,
    MarkExported,
    QueueDriveCleaning,
    QueueTapeTasks,
    QueueTapeWork,
    RecordInventory,
    RecoverTapeTasks,
    SetDriveStatus,
    SetLibraryStatus,
    TapeOrder,
)
from rbcore.entities import LibrarySlot, MediumChanger, Pool, TapeCartridge, TapeDrive, TapeLibrary
from rbcore.errors import InvalidRequest, NotAllowedNow, NotFound, RbError, Refused
from tests.core.tape_world import CLEANER, DRIVES, POOL, SLOTS, STATION, A, B, TapeWorld, device, drive_facts


@pytest.fixture
def world() -> TapeWorld:
    return TapeWorld().with_library(A, B)


def refusal(world: TapeWorld, command: Any, kind: type[RbError] = InvalidRequest) -> RbError:
    before = world.state.position
    with pytest.raises(kind) as caught:
        world.run(command)
    assert world.state.position == before
    return caught.value


# --- adding ------------------------------------------------------------------------------------------------------------------


def test_a_library_comes_with_its_changer_its_drives_and_every_element() -> None:
    world = TapeWorld()
    world.installed()
    world.pool()
    world.register(A)
    world.shelf = {SLOTS[1]: A, SLOTS[2]: "XYZ123L9", STATION[0]: CLEANER}
    reply = world.run(world.adding())
    assert reply.message == "Resource with name 'Tape Libraries' was created successfully!"
    assert reply.data == {
        "unknown": [CLEANER, "XYZ123L9"],
        "twice": [],
        "untagged": [],
        "format": "Tape library, Native",
    }
    (world.library_id,) = reply.ids
    assert len(list(world.state.all(MediumChanger))) == 1
    assert [one.element_address for one in world.state.all(TapeDrive)] == list(DRIVES)
    assert {one.address: one.type for one in world.state.all(LibrarySlot)} == world.types
    assert world.cartridge(A).slot_id == world.slot(SLOTS[1]).id
    assert world.slot(SLOTS[2]).volume_tag == "XYZ123L9"
    assert world.state.by_key(TapeCartridge, CLEANER) is None, "nothing is registered by itself"
    assert world.sync().data["changes"] == 0


@pytest.mark.parametrize(
    ("given", "field", "words"),
    [
        ({"pool": "Default"}, "pool", "of the type File system"),
        ({"pool": "nowhere"}, "pool", "there is no pool"),
        ({"media_server": "other"}, "media_server", "there is no media server"),
        ({"changer": device("changer", serial="new")}, "medium_changer_candidate_id", "the robot of library 1"),
        ({"changer": device("new", serial="serial of changer")}, "medium_changer_candidate_id", "robot of library 1"),
        ({"drives": [drive_facts("drive256", 256)]}, "tape_drives_candidates_ids", "is drive 1 of library 1"),
        ({"drives": [drive_facts("x", 0), drive_facts("x", 0)]}, "tape_drives_candidates_ids", "named twice"),
        ({"drives": [drive_facts("x", 1024)]}, "tape_drives_candidates_ids", "no drive element"),
        ({"drives": [drive_facts("x", 256), drive_facts("y", 256)]}, "tape_drives_candidates_ids", "so does another"),
        ({"description": "\ud800"}, "description", "Unicode"),
    ],
)
def test_what_cannot_be_a_library_is_refused_at_its_field(
    world: TapeWorld, given: dict[str, Any], field: str, words: str
) -> None:
    fresh: dict[str, Any] = {"changer": device("changer2"), "drives": []}
    wrong = refusal(world, world.adding(**(fresh | given)))
    assert words in wrong.errors[field][0]


def test_a_pool_without_a_format_becomes_native_when_no_drive_can_partition() -> None:
    world = TapeWorld()
    world.installed()
    pool_id = world.pool(pool_type="Tape library")
    drives = [drive_facts("x", 256, partitions_max=1)]
    reply = world.run(world.adding(drives=drives))
    assert world.state.tables[Pool.KIND][pool_id].pool_type == reply.data["format"] == "Tape library, Native"
    assert "is of the type Tape library, Native from now on" in reply.message


def test_an_ltfs_pool_stays_one_and_needs_a_drive_that_can_partition() -> None:
    world = TapeWorld()
    world.installed()
    world.pool(pool_type="Tape library, LTFS")
    poor = drive_facts("x", 256, partitions_max=1)
    assert "name a pool of the type Tape library, Native" in str(refusal(world, world.adding(drives=[poor]), Refused))
    reply = world.run(world.adding(drives=[poor, drive_facts("y", 257)]))
    assert reply.data["format"] == "Tape library, LTFS"


def test_drives_are_added_to_a_library_once(world: TapeWorld) -> None:
    world.types[258] = "drive"
    world.sync()
    assert "where drive 1 sits" in str(refusal(world, added(world, "new", 256)).errors)
    assert world.run(added(world, "new", 258)).ids == [3]
    assert world.run(added(world, "somewhere", 0)).ids == [4], "an operator sets sys_transfer_element"
    refusal(world, added(world, "new", 0))
    refusal(world, AddTapeDrives(library_id=world.library_id, drives=[]))
    refusal(world, AddTapeDrives(library_id=9, drives=[]), NotFound)


def added(world: TapeWorld, name: str, address: int) -> AddTapeDrives:
    return AddTapeDrives(library_id=world.library_id, drives=[drive_facts(name, address)])


def test_a_library_ends_with_everything_but_its_cartridges(world: TapeWorld) -> None:
    gone = DeleteRecords(resource="tape_libraries", ids=[world.library_id])
    task = world.run(QueueDriveCleaning(drive_id=1)).ids[0]
    refusal(world, gone, Refused)
    world.advanced(task, "Killed")
    world.mounted(A)
    refusal(world, gone, Refused)
    world.run(RecoverTapeTasks())
    world.run(BeginMove(cartridge_id=world.cartridge(B).id, to_slot_id=world.slot(SLOTS[2]).id, reason="test"))
    world.run(gone)
    for kind in (TapeLibrary, MediumChanger, TapeDrive, LibrarySlot):
        assert not list(world.state.all(kind)), kind
    assert [(one.slot_id, one.moving_to_slot_id) for one in world.state.all(TapeCartridge)] == [(0, 0), (0, 0)]
    world.library_id = world.run(world.adding()).ids[0]
    assert world.slot(SLOTS[1]).cartridge_id == world.cartridge(B).id, "and come back with the next one"


# --- inventory ---------------------------------------------------------------------------------------------------------------


def test_cartridges_that_changed_places_are_found_where_they_are(world: TapeWorld) -> None:
    world.shelf = {SLOTS[0]: B, SLOTS[1]: A}
    assert world.sync().data["changes"] == 2
    assert world.slot(SLOTS[0]).cartridge_id == world.cartridge(B).id
    assert world.slot(SLOTS[1]).cartridge_id == world.cartridge(A).id
    assert world.sync().data["changes"] == 0


def test_a_cartridge_that_is_registered_later_lies_where_its_tag_is_read(world: TapeWorld) -> None:
    world.shelf[SLOTS[2]] = CLEANER
    assert world.sync().data["unknown"] == [CLEANER]
    world.register(CLEANER)
    assert world.slot(SLOTS[2]).cartridge_id == world.cartridge(CLEANER).id
    assert world.cartridge(CLEANER).status == "Cleaning"
    assert world.sync().data == {"unknown": [], "twice": [], "untagged": [], "changes": 0}


def test_elements_come_and_go(world: TapeWorld) -> None:
    world.types[1030] = "storage"
    world.types.pop(SLOTS[0])
    world.shelf[1030] = world.shelf.pop(SLOTS[0])
    world.types[SLOTS[3]] = "import-export"
    world.sync()
    assert world.cartridge(A).slot_id == world.slot(1030).id
    assert world.state.by_key(LibrarySlot, (world.library_id, SLOTS[0])) is None
    assert world.slot(SLOTS[3]).type == "import-export"
    assert world.sync().data["changes"] == 0


def test_an_element_of_a_drive_in_use_does_not_vanish(world: TapeWorld) -> None:
    world.mounted(A)
    world.types.pop(DRIVES[0])
    kept = world.shelf.pop(DRIVES[0])
    world.sync()
    assert world.slot(DRIVES[0]).volume_tag == kept
    assert world.drive().cartridge_id == world.cartridge(A).id
    assert world.sync().data["changes"] == 0


def test_a_tag_at_two_elements_is_said_and_its_cartridge_is_not_used(world: TapeWorld) -> None:
    world.shelf[SLOTS[3]] = A
    reply = world.sync()
    assert reply.data["twice"] == [A]
    assert f"The tag {A} is there twice" in reply.message
    assert world.cartridge(A).slot_id == world.slot(SLOTS[0]).id, "the first by address"
    assert not world.slot(SLOTS[3]).cartridge_id
    for address in (SLOTS[0], SLOTS[3]):
        assert world.slot(address).exception == f"the tag {A} is there twice"
    assert "there twice" in media.why_unreachable(world.state, world.cartridge(A).id)
    assert world.sync().data["changes"] == 0
    world.shelf.pop(SLOTS[3])
    world.sync()
    assert not media.why_unreachable(world.state, world.cartridge(A).id)


def test_of_two_with_one_tag_the_mounted_one_counts(world: TapeWorld) -> None:
    world.mounted(A)
    world.shelf[DRIVES[0]], world.shelf[SLOTS[0]] = A, A
    world.types[10] = "storage"
    world.shelf[10] = A
    world.sync()
    assert world.cartridge(A).slot_id == world.slot(DRIVES[0]).id
    assert world.drive().cartridge_id == world.cartridge(A).id
    assert world.sync().data["changes"] == 0


def test_a_full_element_without_a_bar_code_keeps_what_the_log_has(world: TapeWorld) -> None:
    world.shelf[SLOTS[0]] = ""
    assert world.sync().data["changes"] == 0
    world.shelf[SLOTS[2]] = A
    reply = world.sync()
    assert reply.data["untagged"] == [SLOTS[0]], "its cartridge is elsewhere: nobody knows what that is"
    assert world.cartridge(A).slot_id == world.slot(SLOTS[2]).id
    assert world.slot(SLOTS[0]).is_full
    assert world.sync().data["changes"] == 0


@pytest.mark.parametrize("tag", [A, ""])
def test_an_inventory_ends_moves_as_they_went(world: TapeWorld, tag: str) -> None:
    for target, arrives in ((DRIVES[0], True), (SLOTS[3], False)):
        move = BeginMove(cartridge_id=world.cartridge(A).id, to_slot_id=world.slot(target).id, reason="test")
        world.run(move)
        if arrives:
            world.shelf.pop(SLOTS[0])
            world.shelf[target] = tag
        since = len(world.log)
        world.sync("after a failed move")
        assert world.cartridge(A).moving_to_slot_id == 0
        assert world.cartridge(A).slot_id == world.slot(DRIVES[0]).id
        assert ("cartridge.moved" in world.events(since)) == arrives
        assert ("cartridge.move_failed" in world.events(since)) != arrives
        assert world.sync().data["changes"] == 0


def test_a_cartridge_that_hands_took_out_of_a_drive_is_not_mounted(world: TapeWorld) -> None:
    world.mounted(A)
    world.move_by_hand(DRIVES[0], SLOTS[3])
    world.sync()
    drive = world.drive()
    assert (drive.cartridge_id, drive.status, drive.mounting) == (0, "free", False)
    assert f"storage element {SLOTS[3]}" in drive.status_reason


def test_a_mount_waits_for_the_robot_through_an_inventory_but_not_for_a_cartridge_that_is_gone(
    world: TapeWorld,
) -> None:
    world.run(BeginMount(drive_id=1, cartridge_id=world.cartridge(A).id, reason="test"))
    assert world.sync().data["changes"] == 0
    assert world.drive().mounting
    world.shelf.pop(SLOTS[0])
    world.sync()
    assert not world.drive().mounting
    assert not world.look(A).data["usable"], "a late look at a mount that was given up"


def test_an_inventory_brings_a_library_back(world: TapeWorld) -> None:
    world.run(SetLibraryStatus(library_id=1, status="Offline", reason="silent"))
    before = world.state.position
    world.run(SetLibraryStatus(library_id=1, status="Offline", reason="silent"))
    assert world.state.position == before
    world.sync("start")
    assert world.state.tables[TapeLibrary.KIND][1].status == "Online"
    refusal(world, SetLibraryStatus(library_id=1, status="Broken", reason=""))


def test_reports_that_cannot_be_inventories_are_refused(world: TapeWorld) -> None:
    elements = world.elements()
    for wrong in ([], [*elements, elements[0]], [elements[0], *elements]):
        refusal(world, RecordInventory(library_id=1, elements=wrong, reason="test"))
    refusal(world, RecordInventory(library_id=2, elements=elements, reason="test"), NotFound)


# --- moves, exports, imports ---------------------------------------------------------------------------------------------------


def move(world: TapeWorld, tag: str, address: int) -> BeginMove:
    return BeginMove(cartridge_id=world.cartridge(tag).id, to_slot_id=world.slot(address).id, reason="test")


def test_a_move_is_an_intent_and_an_outcome(world: TapeWorld) -> None:
    world.run(move(world, A, SLOTS[3]))
    assert "on its way already" in str(refusal(world, move(world, A, SLOTS[2]), NotAllowedNow))
    assert "is on its way there" in str(refusal(world, move(world, B, SLOTS[3]), NotAllowedNow))
    world.run(EndMove(cartridge_id=world.cartridge(A).id))
    assert world.cartridge(A).slot_id == world.cartridge(A).home_slot_id == world.slot(SLOTS[3]).id
    assert not world.slot(SLOTS[0]).is_full
    before = world.state.position
    world.run(EndMove(cartridge_id=world.cartridge(A).id))
    assert world.state.position == before, "a repeat"
    world.run(move(world, A, SLOTS[0]))
    world.run(EndMove(cartridge_id=world.cartridge(A).id, failure="the robot is stuck"))
    assert world.cartridge(A).slot_id == world.slot(SLOTS[3]).id


def test_moves_that_cannot_be(world: TapeWorld) -> None:
    assert f"{B} lies there" in str(refusal(world, move(world, A, SLOTS[1]), NotAllowedNow))
    world.exceptions[SLOTS[2]] = "the door is open"
    world.exceptions[SLOTS[0]] = "the gripper slipped"
    world.sync()
    assert "the door is open" in str(refusal(world, move(world, B, SLOTS[2]), NotAllowedNow))
    assert "the gripper slipped" in str(refusal(world, move(world, A, SLOTS[3]), NotAllowedNow))
    world.exceptions.clear()
    world.sync()
    world.mounted(A)
    assert "is mounted in drive 1" in str(refusal(world, move(world, A, SLOTS[0]), NotAllowedNow))
    world.shelf.pop(SLOTS[1])
    world.sync()
    assert "in no library" in str(refusal(world, move(world, B, SLOTS[3]), NotAllowedNow))


def test_an_exported_cartridge_lies_in_the_station_and_is_out_of_reach(world: TapeWorld) -> None:
    mark = MarkExported(cartridge_id=world.cartridge(A).id, reason="ordered")
    refusal(world, mark, NotAllowedNow)
    world.place(A, STATION[0])
    world.run(mark)
    before = world.state.position
    world.run(mark)
    assert world.state.position == before
    assert "import it" in media.why_unreachable(world.state, world.cartridge(A).id)
    world.shelf.pop(STATION[0])
    world.sync()
    assert world.cartridge(A).exported


def test_an_import_registers_what_is_unknown(world: TapeWorld) -> None:
    command = ImportCartridges(library_id=1, pool_name=POOL)
    assert "put one in" in str(refusal(world, command, NotAllowedNow))
    world.shelf |= {STATION[0]: CLEANER, STATION[1]: "NEW001L8"}
    world.sync()
    reply = world.run(command)
    assert reply.data["registered"] == [CLEANER, "NEW001L8"]
    assert reply.ids == [world.cartridge(CLEANER).id, world.cartridge("NEW001L8").id]
    assert (world.cartridge(CLEANER).status, world.cartridge("NEW001L8").type) == ("Cleaning", "LTO-8")
    assert world.cartridge("NEW001L8").slot_id == world.slot(STATION[1]).id
    before = world.state.position
    assert world.run(command).ids == reply.ids
    assert world.state.position == before, "a repeat"


@pytest.mark.parametrize(
    ("tag", "words"), [("SHORT", "does not tell the type"), ("", "cannot be read"), ("low001l9", "A-Z and 0-9")]
)
def test_what_cannot_be_registered_is_not_imported(world: TapeWorld, tag: str, words: str) -> None:
    world.shelf |= {STATION[0]: "NEW001L8", STATION[1]: tag}
    world.sync()
    assert words in str(refusal(world, ImportCartridges(library_id=1, pool_name=POOL), Refused))
    refusal(world, ImportCartridges(library_id=1, pool_name="Default"))
    refusal(world, ImportCartridges(library_id=1, pool_name="nowhere"))


def test_an_imported_cartridge_belongs_to_the_pool_unless_archives_keep_it_in_its_own(world: TapeWorld) -> None:
    world.client()
    world.backed_up_on(A)
    other = world.pool("Others")
    for tag, address in ((A, STATION[0]), (B, STATION[1])):
        world.place(tag, address)
        world.run(MarkExported(cartridge_id=world.cartridge(tag).id, reason="ordered"))
    reply = world.run(ImportCartridges(library_id=1, pool_name="Others"))
    assert reply.data == {"registered": [], "imported": [B], "kept_in_pool": [A]}
    assert not world.cartridge(A).exported
    assert world.cartridge(A).pool != other == world.cartridge(B).pool


# --- the queue -----------------------------------------------------------------------------------------------------------------


def order(task_type: str, tag: str, **given: Any) -> QueueTapeTasks:
    return QueueTapeTasks(task_type=task_type, orders=[TapeOrder(library_id=1, volume_tag=tag, **given)])


def test_orders_are_queued_one_per_cartridge(world: TapeWorld) -> None:
    orders = [TapeOrder(library_id=1, volume_tag=tag, is_long_erase=True) for tag in (A, B)]
    reply = world.run(QueueTapeTasks(task_type="Erase", orders=orders))
    assert reply.data == {"tasks_ids": reply.ids}
    assert [world.tape_task(one).cartridge_id for one in reply.ids] == [1, 2]
    assert world.tape_task(reply.ids[0]).is_long_erase
    assert "tape task 1 (Erase, New) is ordered for it" in str(refusal(world, order("Check LTFS", A), Refused))
    world.advanced(reply.ids[0], "Done")
    world.run(order("Check LTFS", A))


@pytest.mark.parametrize(
    ("command", "kind", "words"),
    [
        (order("Read", A), InvalidRequest, "is not one of"),
        (QueueTapeTasks(task_type="Format", orders=[]), InvalidRequest, "not acceptable"),
        (order("Format", "GONE01L9"), NotFound, "not found"),
        (
            QueueTapeTasks(task_type="Format", orders=[TapeOrder(library_id=9, volume_tag=A)]),
            NotFound,
            "library not found",
        ),
        (order("Format", CLEANER), Refused, "it cleans drives"),
        (order("Move", A), Refused, "has no slot 0"),
        (order("Move", A, slot_id=1), Refused, "is a drive"),
        (order("Move", A, slot_id=6), Refused, f"holds {B}"),
        (QueueTapeTasks(task_type="Erase", orders=[TapeOrder(library_id=1, volume_tag=A)] * 2), Refused, "named twice"),
    ],
)
def test_orders_that_cannot_be(command: QueueTapeTasks, kind: type[RbError], words: str) -> None:
    world = TapeWorld().with_library(A, B, CLEANER)
    assert words in str(refusal(world, command, kind))


def test_two_cartridges_are_not_ordered_to_one_slot(world: TapeWorld) -> None:
    slot_id = world.slot(SLOTS[3]).id
    world.run(order("Move", A, slot_id=slot_id))
    assert "another cartridge is ordered to" in str(refusal(world, order("Move", B, slot_id=slot_id), Refused))


def test_nothing_with_archives_is_formatted_or_erased(world: TapeWorld) -> None:
    world.client()
    world.backed_up_on(A)
    for task_type in ("Format", "Erase"):
        wrong = refusal(world, order(task_type, A), Refused)
        assert "backups of the repository are on it (ids 1)" in str(wrong)
        assert wrong.data == {"volume_tags": [A]}
    world.run(order("Check LTFS", A))


def test_an_export_needs_an_import_export_element(world: TapeWorld) -> None:
    for address in STATION:
        world.types.pop(address)
    world.sync()
    assert "no import-export element" in str(refusal(world, order("Export", A), Refused))


def test_a_drive_is_cleaned_once_at_a_time(world: TapeWorld) -> None:
    task_id = world.run(QueueDriveCleaning(drive_id=1, reason="the drive asks for it")).ids[0]
    assert world.tape_task(task_id).status_reason == "the drive asks for it"
    assert world.run(QueueDriveCleaning(drive_id=1)).ids == [task_id]
    world.run(SetDriveStatus(drive_id=2, status="error", reason="broken"))
    refusal(world, QueueDriveCleaning(drive_id=2), NotAllowedNow)


def test_work_of_a_task_is_queued_once_with_its_priority(world: TapeWorld) -> None:
    world.client()
    task = world.assigned(world.queued(priority=500))
    read, write = world.work("Read", task.id, A), world.work("Write", task.id)
    assert (world.work("Read", task.id, A), world.work("Write", task.id)) == (read, write)
    assert world.work("Read", task.id, B) not in (read, write)
    assert (world.tape_task(read).priority, world.tape_task(write).pool_id) == (500, task.pool_id)
    world.advanced(read, "Done")
    assert world.work("Read", task.id, A) != read
    refusal(world, QueueTapeWork(task_type="Erase", task_id=task.id, library_id=1))
    refusal(world, QueueTapeWork(task_type="Read", task_id=task.id, library_id=1, cartridge_id=77), NotFound)
    refusal(world, QueueTapeWork(task_type="Write", task_id=77, library_id=1), NotFound)


@pytest.mark.parametrize("running", [False, True])
def test_a_task_whose_cartridge_cannot_be_had_is_suspended(world: TapeWorld, running: bool) -> None:
    world.client()
    task_id = world.queued()
    if running:
        world.transmitting(task_id)
    else:
        world.assigned(task_id)
    tape_task = world.work("Write", task_id)
    world.advanced(tape_task, "Execution", drive_id=1, cartridge_id=1)
    assert world.advanced(tape_task, "Error", reason="it is jammed") == "Error"
    task = world.task(task_id)
    assert (task.status, task.status_reason) == ("Suspended", "it is jammed")
    assert task.retry_at_ns == world.now_ns + 60 * 10**9
    assert world.advanced(tape_task, "Done") == "Error", "late"


def test_late_and_repeated_reports_change_nothing(world: TapeWorld) -> None:
    task_id = world.run(order("Erase", A)).ids[0]
    assert world.advanced(task_id, "Execution", drive_id=1) == "Execution"
    before = world.state.position
    assert world.advanced(task_id, "Execution", drive_id=1) == "Execution"
    assert world.advanced(task_id, "Assigned") == "Execution"
    assert world.state.position == before
    assert world.advanced(task_id, "Execution", drive_id=2) == "Execution"
    assert world.tape_task(task_id).drive_id == 2
    with pytest.raises(InvalidRequest):
        world.advanced(task_id, "Broken")


def test_after_a_start_orders_begin_again_and_nothing_is_mounted(world: TapeWorld) -> None:
    world.client()
    task_id = world.transmitting(world.queued()).id
    work, erase = world.work("Write", task_id), world.run(order("Erase", B)).ids[0]
    world.advanced(erase, "Execution", drive_id=2)
    world.mounted(A)
    world.run(SetDriveStatus(drive_id=2, status="offline", reason="silent"))
    world.run(RecoverTapeTasks())
    assert (world.tape_task(work).status, world.tape_task(erase).status) == ("Killed", "New")
    assert "begins again" in world.tape_task(erase).status_reason
    assert (world.drive().cartridge_id, world.drive().status) == (0, "free")
    assert world.drive(DRIVES[1]).status == "offline"
    before = world.state.position
    world.run(RecoverTapeTasks())
    assert world.state.position == before


def test_a_pool_declared_by_the_synonym_keeps_that_through_changes(world: TapeWorld) -> None:
    fields = {"pool_name": "any", "pool_type": "Tape library"}
    pool_id = world.run(CreateRecord(resource="pool_list", fields=fields)).ids[0]
    assert world.state.tables[Pool.KIND][pool_id].any_tape_format
