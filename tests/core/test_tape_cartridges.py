"""Mounts and what a look at a cartridge leads to, labelling and erasing, errors, drives."""

from __future__ import annotations

from typing import Any

import pytest

from rbcore import media
from rbcore.commands import (
    AdvanceTask,
    AskDriveCleaning,
    BeginDismount,
    BeginErasing,
    BeginLabelling,
    BeginMount,
    CountCartridgeError,
    CountDriveFailure,
    DeleteBackups,
    EndDismount,
    EndErasing,
    EndLabelling,
    EndMount,
    KillTask,
    QuarantineCartridge,
    QueueTapeTasks,
    QueueVerification,
    RecordCartridgeWritten,
    RecordDriveCleaned,
    RecordDriveFacts,
    RecoverTapeTasks,
    SetDriveStatus,
    SetLibraryStatus,
    TapeOrder,
)
from rbcore.decide.tape_cartridges import LOAD_ERRORS_MAX, READ_ERRORS_MAX, WRITE_ERRORS_MAX
from rbcore.decide.tape_drives import DRIVE_FAILURES_MAX
from rbcore.entities import TapeCartridge
from rbcore.errors import InvalidRequest, NotAllowedNow, NotFound, RbError, Refused
from tests.core.tape_world import CLEANER, DRIVES, SLOTS, STATION, A, B, TapeWorld, drive_facts

OWN_SERVER = "ab" * 8


@pytest.fixture
def world() -> TapeWorld:
    return TapeWorld().with_library(A, B, CLEANER)


@pytest.fixture
def holding() -> TapeWorld:
    """A holds a backup, and lies in a slot."""
    world = TapeWorld().with_library(A, B)
    world.client()
    world.backed_up_on(A)
    return world


def refused(world: TapeWorld, command: Any, kind: type[RbError] = NotAllowedNow) -> str:
    before = world.state.position
    with pytest.raises(kind) as caught:
        world.run(command)
    assert world.state.position == before
    return str(caught.value)


def mount(world: TapeWorld, tag: str, drive_id: int = 1, **given: Any) -> BeginMount:
    return BeginMount(drive_id=drive_id, cartridge_id=world.cartridge(tag).id, reason="wanted", **given)


def order(world: TapeWorld, task_type: str, tag: str) -> int:
    return world.run(QueueTapeTasks(task_type=task_type, orders=[TapeOrder(library_id=1, volume_tag=tag)])).ids[0]


# --- mounting ----------------------------------------------------------------------------------------------------------------


def test_a_mount_is_an_intent_a_look_and_an_outcome(world: TapeWorld) -> None:
    world.mounting(A, tape_task_id=order(world, "Check LTFS", A))
    drive = world.drive()
    assert (drive.status, drive.mounting, drive.mount_task_id) == ("busy", True, 1)
    assert world.look(A).data == {"usable": True, "reason": ""}
    drive = world.drive()
    assert (drive.mounting, drive.mounts, drive.cartridge_id) == (False, 1, world.cartridge(A).id)
    before = world.state.position
    assert world.look(A).data["usable"], "a repeat"
    assert world.state.position == before
    world.run(BeginDismount(drive_id=1, reason="idle"))
    world.run(BeginDismount(drive_id=1, reason="idle"))
    assert world.drive().mounting
    world.run(EndDismount(drive_id=1))
    assert (world.drive().status, world.drive().cartridge_id, world.drive().mount_task_id) == ("free", 0, 0)
    before = world.state.position
    world.run(EndDismount(drive_id=1))
    world.run(BeginDismount(drive_id=1, reason="idle"))
    assert world.state.position == before


def test_mounts_that_cannot_be(world: TapeWorld) -> None:
    refused(world, mount(world, A, drive_id=9), NotFound)
    refused(world, mount(world, A, tape_task_id=9), NotFound)
    assert "it cleans drives" in refused(world, mount(world, CLEANER))
    world.run(mount(world, A))
    assert "is mounting or dismounting it" in refused(world, mount(world, B))
    assert "mounted in drive 1" in refused(world, mount(world, A, drive_id=2))
    assert "that ends first" in refused(world, BeginDismount(drive_id=1, reason="now"))
    world.run(SetDriveStatus(drive_id=2, status="offline", reason="silent"))
    assert "offline: silent" in refused(world, mount(world, B, drive_id=2))
    world.run(SetDriveStatus(drive_id=2, status="free", reason="it answers"))
    world.run(SetLibraryStatus(library_id=1, status="Offline", reason="no power"))
    assert "no power" in refused(world, mount(world, B, drive_id=2))
    world.shelf[DRIVES[1]] = "XYZ123L9"
    world.sync()
    assert "XYZ123L9 lies in the drive" in refused(world, mount(world, B, drive_id=2))


def test_what_cannot_be_brought_is_counted_by_whose_fault_it_is(world: TapeWorld) -> None:
    cartridge = world.cartridge(A)
    for number in range(1, LOAD_ERRORS_MAX + 1):
        for blame in ("changer", "drive", "", "cartridge"):
            world.run(mount(world, A))
            world.run(EndMount(drive_id=1, cartridge_id=cartridge.id, failure="it jammed", blame=blame))
        assert world.cartridge(A).load_errors == number
        assert world.drive().status == "free"
        assert world.drive().failures == 0, "the actor counts those of drives"
    assert world.cartridge(A).status == "Quarantined"
    assert world.cartridge(A).status_reason == "3 load errors in a row; the last: it jammed"
    refused(world, EndMount(drive_id=1, cartridge_id=cartridge.id, failure="x", blame="me"), InvalidRequest)


def test_a_mount_that_succeeds_forgets_load_errors(world: TapeWorld) -> None:
    for _ in range(LOAD_ERRORS_MAX):
        world.run(CountCartridgeError(cartridge_id=world.cartridge(A).id, kind="load", reason="x"))
        world.mounted(A)
        world.run(EndDismount(drive_id=1))
        world.place(A, SLOTS[0])
    assert world.cartridge(A).status == "New"


# --- the right one, or not -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["native", "ltfs"])
def test_the_right_cartridge_is_known_by_its_label(world: TapeWorld, format: str) -> None:
    world.labelled(A, format)
    world.run(EndDismount(drive_id=1))
    world.mounting(A)
    assert world.look(A, **world.own_facts(A), write_protected=True).data["usable"]
    assert world.cartridge(A).write_protected
    assert world.cartridge(A).label_id


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"contents": "foreign", "detail": "A tar archive."}, "holds data of another program (A tar archive)"),
        ({"contents": "ltfs", "label_id": "77"}, "an LTFS volume that the log does not know"),
        ({"contents": "native", "label_id": "77", "server": OWN_SERVER}, "archives of this server that the log"),
        ({"contents": "native", "label_id": "77", "server": "other"}, "archives of another server (other)"),
        ({"contents": "unreadable", "detail": "CRC."}, "the beginning of cartridge AAA001L9 cannot be read (CRC)"),
        ({"contents": "new kind"}, "nobody knows what is on"),
    ],
)
def test_a_new_cartridge_that_holds_something_is_quarantined(
    world: TapeWorld, found: dict[str, Any], words: str
) -> None:
    world.mounting(A)
    reply = world.look(A, **found)
    assert not reply.data["usable"]
    assert words in reply.data["reason"]
    cartridge = world.cartridge(A)
    assert (cartridge.status, cartridge.status_reason) == ("Quarantined", reply.data["reason"])
    assert (world.drive().cartridge_id, world.drive().status) == (0, "free")
    assert cartridge.load_errors == (found["contents"] == "unreadable")
    assert media.choose_for_writing(world.state, 1, cartridge.pool).cartridge == world.cartridge(B)


@pytest.mark.parametrize(
    "found",
    [
        {"contents": "blank"},
        {"contents": "foreign"},
        {"contents": "unreadable"},
        {"contents": "native", "label_id": "77", "use": 1, "volume_tag": A},
        {"contents": "native", "label_id": f"{1:032x}", "use": 2, "volume_tag": A},
        {"contents": "ltfs", "label_id": f"{1:032x}", "use": 1, "volume_tag": A[:6]},
    ],
)
@pytest.mark.parametrize("task_type", ["Read", "Write", ""])
def test_a_cartridge_with_backups_is_not_mistaken_for_another(
    holding: TapeWorld, found: dict[str, Any], task_type: str
) -> None:
    known, own = holding.cartridge(A), holding.own_facts(A)
    task_id = holding.assigned(holding.queued()).id
    tape_task = holding.work(task_type, task_id, A if task_type == "Read" else "") if task_type else 0
    holding.mounting(A, tape_task_id=tape_task)
    reply = holding.look(A, **found)
    assert not reply.data["usable"]
    assert "backups of the repository are on it (ids 1)" in reply.data["reason"]
    after = holding.cartridge(A)
    assert after.status == "Quarantined"
    assert (after.format, after.label_id, after.use) == (known.format, known.label_id, known.use)
    holding.place(A, SLOTS[3])
    read = holding.work("Read", task_id, A)
    holding.mounting(A, tape_task_id=read)
    assert holding.look(A, **own).data["usable"], "the right one can be read all the same"
    assert holding.cartridge(A).status == "Quarantined"


def test_bar_codes_that_were_exchanged_end_writing_not_reading(holding: TapeWorld) -> None:
    facts = holding.own_facts(A) | {"volume_tag": "ZZZ999L9"}
    holding.mounting(A)
    reply = holding.look(A, **facts)
    assert not reply.data["usable"]
    assert "says on its own label that it is ZZZ999L9" in reply.data["reason"]
    assert holding.cartridge(A).status == "Quarantined"
    holding.place(A, SLOTS[3])
    read = holding.work("Read", holding.assigned(holding.queued()).id, A)
    holding.mounting(A, tape_task_id=read)
    assert holding.look(A, **facts).data["usable"]


def test_blank_is_right_where_nothing_is_expected(world: TapeWorld) -> None:
    world.labelled(A)
    world.run(EndDismount(drive_id=1))
    world.mounting(A)
    assert world.look(A).data["usable"], "labelled, never written"
    assert world.cartridge(A).format == ""
    world.run(EndDismount(drive_id=1))
    world.labelled(A)
    world.written(A, 0)
    world.run(EndDismount(drive_id=1))
    world.mounting(A)
    assert "is blank although something was written" in world.look(A).data["reason"]


@pytest.mark.parametrize("task_type", ["Format", "Erase", "Check LTFS"])
@pytest.mark.parametrize("contents", ["foreign", "unreadable", "native", "ltfs", "blank"])
def test_an_order_mounts_anything(world: TapeWorld, task_type: str, contents: str) -> None:
    world.mounting(A, tape_task_id=order(world, task_type, A))
    label_id = "77" if contents in ("native", "ltfs") else ""
    assert world.look(A, contents=contents, label_id=label_id, server=OWN_SERVER).data["usable"]
    assert world.drive().cartridge_id == world.cartridge(A).id
    is_judged = task_type == "Check LTFS" and contents != "blank"
    assert world.cartridge(A).status == ("Quarantined" if is_judged else "New")
    assert world.cartridge(A).format == (contents if is_judged and label_id else "")


def test_an_order_that_does_not_come_leaves_the_unknown_unknown(world: TapeWorld) -> None:
    facts = {"contents": "native", "label_id": "77", "use": 1, "server": OWN_SERVER, "volume_tag": A}
    world.mounting(A, tape_task_id=order(world, "Format", A))
    world.look(A, **facts)
    world.run(EndDismount(drive_id=1))
    world.mounting(A)
    assert not world.look(A, **facts).data["usable"], "archives that the log does not know are not written over"


# --- labelling and erasing -----------------------------------------------------------------------------------------------------


def test_a_cartridge_is_labelled_where_it_is_mounted(world: TapeWorld) -> None:
    begin = BeginLabelling(cartridge_id=1, drive_id=1, format="native", reason="wanted")
    assert "not mounted in drive 1" in refused(world, begin)
    world.labelled(A)
    cartridge = world.cartridge(A)
    assert (cartridge.status, cartridge.format, cartridge.use, cartridge.intent) == ("Scratch", "native", 1, "")
    repeat = EndLabelling(cartridge_id=1, format="native", label_id=cartridge.label_id, use=1)
    before = world.state.position
    world.run(repeat)
    assert world.state.position == before
    other = EndLabelling(cartridge_id=1, format="native", label_id="99", use=1)
    assert "Nobody began" in refused(world, other)
    refused(world, BeginLabelling(cartridge_id=1, drive_id=1, format="tar", reason="x"), InvalidRequest)


def test_ltfs_needs_a_drive_and_a_cartridge_that_can(world: TapeWorld) -> None:
    old = world.register("OLD001L4", type="LTO-4")
    world.shelf[SLOTS[3]] = "OLD001L4"
    world.sync()
    world.mounted("OLD001L4")
    begin = BeginLabelling(cartridge_id=old, drive_id=1, format="ltfs", reason="wanted")
    assert "LTO-5 or newer" in refused(world, begin, Refused)
    world.run(EndDismount(drive_id=1))
    world.place("OLD001L4", SLOTS[3])
    world.run(RecordDriveFacts(drive_id=1, facts=drive_facts("drive256", 256, partitions_max=1)))
    world.mounted(A)
    begin = BeginLabelling(cartridge_id=1, drive_id=1, format="ltfs", reason="wanted")
    assert "cannot partition" in refused(world, begin, Refused)


def test_what_must_stay_is_neither_labelled_nor_erased(holding: TapeWorld) -> None:
    holding.mounted(A)
    label = BeginLabelling(cartridge_id=1, drive_id=1, format="native", reason="wanted")
    erase = BeginErasing(cartridge_id=1, drive_id=1, is_long=False, reason="wanted")
    for command in (label, erase):
        assert "backups of the repository are on it" in refused(holding, command, Refused)
    holding.run(DeleteBackups(ids=[1]))
    assert holding.cartridge(A).status == "Expired"
    writer = holding.transmitting(holding.queued()).id
    holding.written(A, writer)
    for command in (label, erase):
        assert f"tasks under way have written to it (ids {writer})" in refused(holding, command, Refused)
    holding.run(KillTask(task_id=writer))
    holding.run(AdvanceTask(task_id=writer, status="Killed"))
    holding.run(label)


def test_a_drive_that_cannot_overwrite_costs_the_cartridge_nothing(world: TapeWorld) -> None:
    world.run(RecordDriveFacts(drive_id=1, facts=drive_facts("drive256", 256, lacks=["ERASE"])))
    world.mounted(A)
    long = BeginErasing(cartridge_id=1, drive_id=1, is_long=True, reason="wanted")
    assert "drive 1 has no ERASE. Order a short erase" in refused(world, long, Refused)
    world.run(BeginErasing(cartridge_id=1, drive_id=1, is_long=False, reason="wanted"))
    world.run(EndErasing(cartridge_id=1, is_long=False))
    assert world.cartridge(A).status == "Scratch"


@pytest.mark.parametrize("verb", ["label", "erase"])
def test_nobody_writes_to_what_may_be_half_labelled_or_erased(world: TapeWorld, verb: str) -> None:
    world.mounted(A)
    if verb == "label":
        world.run(BeginLabelling(cartridge_id=1, drive_id=1, format="native", reason="wanted"))
    else:
        world.run(BeginErasing(cartridge_id=1, drive_id=1, is_long=True, reason="wanted"))
    refused(world, RecordCartridgeWritten(cartridge_id=1, used_bytes=1, full=False))
    world.run(RecoverTapeTasks())
    world.place(A, SLOTS[0])
    assert f"nobody knows how its last {verb} ended" in refused(world, mount(world, A))
    assert media.choose_for_writing(world.state, 1, world.cartridge(A).pool).cartridge == world.cartridge(B)
    world.mounting(A, tape_task_id=order(world, "Format", A))
    assert world.look(A, contents="unreadable").data["usable"], "an order mends it"


def test_what_fails_is_quarantined(world: TapeWorld) -> None:
    world.mounted(A)
    for _ in range(2):
        world.run(BeginLabelling(cartridge_id=1, drive_id=1, format="native", reason="wanted"))
        world.run(EndLabelling(cartridge_id=1, format="native", failure="write protected"))
        cartridge = world.cartridge(A)
        assert (cartridge.status, cartridge.status_reason) == ("Quarantined", "labelling failed: write protected")
        assert not cartridge.intent
    world.run(BeginErasing(cartridge_id=1, drive_id=1, is_long=True, reason="wanted"))
    world.run(EndErasing(cartridge_id=1, is_long=True, failure="worn out"))
    assert world.cartridge(A).status_reason == "erasing failed: worn out"
    world.run(BeginErasing(cartridge_id=1, drive_id=1, is_long=False, reason="wanted"))
    world.run(EndErasing(cartridge_id=1, is_long=False))
    assert (world.cartridge(A).status, world.cartridge(A).format) == ("Scratch", "")
    before = world.state.position
    world.run(EndErasing(cartridge_id=1, is_long=False))
    assert world.state.position == before


# --- writing and errors --------------------------------------------------------------------------------------------------------


def count(world: TapeWorld, kind: str, tag: str = A) -> TapeCartridge:
    world.run(CountCartridgeError(cartridge_id=world.cartridge(tag).id, kind=kind, reason="medium error"))
    return world.cartridge(tag)


def test_a_write_error_sends_the_next_archive_elsewhere_and_three_end_it(holding: TapeWorld) -> None:
    cartridge = count(holding, "write")
    assert (cartridge.status, cartridge.status_reason) == ("Full", "it takes no more after a write error: medium error")
    holding.run(RecordCartridgeWritten(cartridge_id=cartridge.id, used_bytes=2_000, full=False))
    assert holding.cartridge(A).status == "Full", "a part that was ended before does not open it again"
    for _ in range(WRITE_ERRORS_MAX - 1):
        cartridge = count(holding, "write")
    assert (cartridge.status, cartridge.write_errors) == ("Quarantined", WRITE_ERRORS_MAX)


def test_read_errors_end_writing_and_never_reading(holding: TapeWorld) -> None:
    for _ in range(READ_ERRORS_MAX):
        assert holding.cartridge(A).status == "Appendable"
        count(holding, "read")
    assert holding.cartridge(A).status == "Quarantined"
    assert not media.why_unreachable(holding.state, holding.cartridge(A).id)
    holding.mounted(A)
    refused(holding, CountCartridgeError(cartridge_id=1, kind="mood", reason="x"), InvalidRequest)


def test_quarantine_is_said_once_and_cleaning_cartridges_stay_what_they_are(world: TapeWorld) -> None:
    world.run(QuarantineCartridge(cartridge_id=1, reason="smells"))
    before = world.state.position
    world.run(QuarantineCartridge(cartridge_id=1, reason="smells"))
    assert world.state.position == before
    for _ in range(LOAD_ERRORS_MAX):
        assert count(world, "load", CLEANER).status == "Cleaning"


def test_a_full_cartridge_that_nobody_needs_is_used_again(world: TapeWorld) -> None:
    world.client()
    world.shelf.pop(SLOTS[1])
    world.labelled(A)
    writer = world.transmitting(world.queued()).id
    world.written(A, writer, full=True)
    pool_id = world.cartridge(A).pool
    assert media.choose_for_writing(world.state, 1, pool_id).cartridge is None
    world.run(KillTask(task_id=writer))
    world.run(AdvanceTask(task_id=writer, status="Killed"))
    chosen = media.choose_for_writing(world.state, 1, pool_id)
    assert chosen.cartridge == world.cartridge(A)
    assert chosen.relabel


def test_a_cartridge_in_a_drive_that_does_not_answer_is_not_chosen(world: TapeWorld) -> None:
    world.labelled(A)
    pool_id = world.cartridge(A).pool
    assert world.slot(DRIVES[0]).cartridge_id == world.cartridge(A).id
    assert media.choose_for_writing(world.state, 1, pool_id).cartridge == world.cartridge(A)
    world.run(CountDriveFailure(drive_id=world.drive().id, reason="it does not answer"))
    assert world.drive().status == "offline"
    chosen = media.choose_for_writing(world.state, 1, pool_id)
    assert chosen.cartridge == world.cartridge(B)
    assert f"{A}: it lies in drive {world.drive().id}, which is offline" in " ".join(chosen.rejected)


def test_a_copy_under_way_holds_what_it_wrote_although_its_backup_is_another(holding: TapeWorld) -> None:
    task_id = holding.run(QueueVerification(backup_id=1)).ids[0]
    holding.written(B, task_id, full=True)
    assert f"tasks under way have written to it (ids {task_id})" in media.why_kept(holding.state, holding.cartridge(B))
    assert media.standing(holding.state, holding.cartridge(B)) == "Full"


# --- drives --------------------------------------------------------------------------------------------------------------------


def test_a_drive_that_keeps_failing_is_quarantined_until_somebody_looks(world: TapeWorld) -> None:
    for number in range(1, DRIVE_FAILURES_MAX):
        world.run(CountDriveFailure(drive_id=1, reason="no answer"))
        assert (world.drive().status, world.drive().failures) == ("offline", number)
        world.run(SetDriveStatus(drive_id=1, status="free", reason="it answers again"))
    world.run(CountDriveFailure(drive_id=1, reason="it burns"))
    assert world.drive().status == "error"
    assert world.drive().status_reason == "5 failures in a row; the last: it burns"
    before = world.state.position
    world.run(CountDriveFailure(drive_id=1, reason="it burns"))
    world.run(SetDriveStatus(drive_id=1, status="offline", reason="silent"))
    assert world.state.position == before
    world.run(SetDriveStatus(drive_id=1, status="free", reason="synchronised by an operator"))
    assert (world.drive().status, world.drive().failures) == ("free", 0)


def test_a_mount_that_succeeds_forgets_failures(world: TapeWorld) -> None:
    world.run(CountDriveFailure(drive_id=1, reason="no answer"))
    world.run(SetDriveStatus(drive_id=1, status="free", reason="it answers again"))
    world.mounted(A)
    assert world.drive().failures == 0


def test_the_status_of_a_drive_fits_what_is_in_it(world: TapeWorld) -> None:
    world.mounted(A)
    before = world.state.position
    world.run(SetDriveStatus(drive_id=1, status="free", reason="x"))
    assert (world.state.position, world.drive().status) == (before, "busy")
    refused(world, SetDriveStatus(drive_id=1, status="cleaning", reason="x"))
    refused(world, SetDriveStatus(drive_id=1, status="broken", reason="x"), InvalidRequest)
    world.run(SetDriveStatus(drive_id=2, status="cleaning", reason="x"))
    world.run(RecoverTapeTasks())
    assert world.drive(DRIVES[1]).status == "free"


def test_a_dismount_that_failed_leaves_nothing_mounted(world: TapeWorld) -> None:
    world.mounted(A)
    world.run(BeginDismount(drive_id=1, reason="idle"))
    world.run(EndDismount(drive_id=1, failure="it sticks", blame="cartridge"))
    assert (world.drive().cartridge_id, world.drive().status_reason) == (0, "it sticks")
    assert world.cartridge(A).load_errors == 1
    assert world.slot(DRIVES[0]).cartridge_id == world.cartridge(A).id
    refused(world, EndDismount(drive_id=1, blame="me"), InvalidRequest)


def test_facts_and_cleaning(world: TapeWorld) -> None:
    facts = drive_facts("drive256", 256, revision="2", lacks=["ERASE"])
    for _ in range(2):
        world.run(RecordDriveFacts(drive_id=1, facts=facts))
        world.run(AskDriveCleaning(drive_id=1, reason="dirty"))
    assert (world.drive().revision, world.drive().lacks) == ("2", ("ERASE",))
    assert world.drive().cleaning_required
    assert world.events().count("drive.facts_found") == world.events().count("drive.cleaning_asked") == 1
    world.run(RecordDriveCleaned(drive_id=1, cartridge_id=world.cartridge(CLEANER).id))
    assert not world.drive().cleaning_required
    assert world.drive().last_cleaned_ns == world.now_ns


def test_a_cartridge_in_the_station_can_be_mounted(world: TapeWorld) -> None:
    world.place(A, STATION[0])
    world.mounted(A)
