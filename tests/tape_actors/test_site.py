"""Tape libraries at work: archives go to cartridges and come back, cartridges go where they are told, and the log says what the library holds."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from actors.tape.messages import MoveCartridge
from drivers.simulated.tape import NO_DELAY, SimulatedLibrary
from rbcore.commands import CreateRecord, QueueDriveCleaning, QueueTapeTasks, TapeOrder
from rbcore.entities import Backup, LibrarySlot, TapeCartridge, TapeDrive, TapeTask
from rbcore.errors import Damaged, MediumFailed, Unavailable
from rbcore.vocabulary import CartridgeStatus, PoolType, SlotType, TapeTaskType, TaskStatus
from tests.tape_actors.site import Site, running_site

MIB = 1 << 20


def make_library(*, cartridges: int = 4, capacity_factor: float = 2e-6, drives: int = 2) -> SimulatedLibrary:
    library = SimulatedLibrary(mechanics=NO_DELAY, capacity_factor=capacity_factor, drives=drives)
    for number in range(1, cartridges + 1):
        library.add_cartridge(f"VT{number:04d}L9")
    return library


@pytest.fixture(params=[PoolType.TAPE_NATIVE, PoolType.TAPE_LTFS])
async def site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    async with running_site(make_library(), pool_type=request.param) as running:
        yield running


def check_places(site: Site) -> None:
    """What the log says is what the library holds, and a cartridge is in one place."""
    for slot in site.state.all(LibrarySlot):
        element = site.library.element(slot.address)
        held = element.cartridge.card.barcode if element.cartridge is not None else ""
        assert slot.volume_tag == held, slot
    for cartridge in site.state.all(TapeCartridge):
        holding = [one.id for one in site.state.all(LibrarySlot) if one.cartridge_id == cartridge.id]
        assert holding == ([cartridge.slot_id] if cartridge.slot_id else []), cartridge
        assert not cartridge.moving_to_slot_id


async def test_archives_come_back_as_they_were(site: Site, autojump_clock: trio.testing.MockClock) -> None:
    first = await site.write_archive([100, MIB, 5000])
    second = await site.write_archive([2 * MIB, 1])
    assert await site.read_archive(first) == site.archives[first]
    assert await site.read_archive(second) == site.archives[second]
    backup = site.one(Backup, second)
    assert [one.final for one in backup.parts] == [True]
    check_places(site)


async def test_an_archive_goes_on_on_the_next_cartridge(site: Site, autojump_clock: trio.testing.MockClock) -> None:
    number = await site.write_archive([MIB] * 60)
    backup: Backup = site.one(Backup, number)
    assert len({part.cartridge_id for part in backup.parts}) > 1
    assert [part.final for part in backup.parts] == [False] * (len(backup.parts) - 1) + [True]
    full = site.one(TapeCartridge, backup.parts[0].cartridge_id)
    assert full.status == CartridgeStatus.FULL
    assert await site.read_archive(number) == site.archives[number]
    check_places(site)


async def test_a_cartridge_is_exported_and_imported(site: Site, autojump_clock: trio.testing.MockClock) -> None:
    number = await site.write_archive([1000])
    backup: Backup = site.one(Backup, number)
    tag = site.one(TapeCartridge, backup.parts[0].cartridge_id).volume_tag
    reply = await site.execute(
        QueueTapeTasks(task_type=TapeTaskType.EXPORT, orders=[TapeOrder(library_id=1, volume_tag=tag)])
    )
    assert (await site.tape_task_ended(reply.ids[0])).status == TaskStatus.DONE
    slot = site.slot_of(tag)
    assert slot is not None
    assert slot.type == SlotType.IMPORT_EXPORT
    assert site.cartridge(tag).exported
    site.library.faults.take_out(slot.address)
    await site.tape.synchronise(1)
    assert site.slot_of(tag) is None
    site.library.faults.put_in(tag, slot.address)
    await site.tape.import_cartridges(1, "Tape")
    back = site.slot_of(tag)
    assert back is not None
    assert back.type == SlotType.STORAGE
    assert not site.cartridge(tag).exported
    assert await site.read_archive(number) == site.archives[number]
    check_places(site)


async def test_erase_is_refused_while_archives_are_on_it_and_done_otherwise(
    site: Site, autojump_clock: trio.testing.MockClock
) -> None:
    number = await site.write_archive([1000])
    tag = site.one(TapeCartridge, site.one(Backup, number).parts[0].cartridge_id).volume_tag
    with pytest.raises(Exception, match="backups of the repository"):
        await site.execute(
            QueueTapeTasks(task_type=TapeTaskType.ERASE, orders=[TapeOrder(library_id=1, volume_tag=tag)])
        )
    other = next(one.volume_tag for one in site.state.all(TapeCartridge) if one.volume_tag != tag)
    reply = await site.execute(
        QueueTapeTasks(task_type=TapeTaskType.FORMAT, orders=[TapeOrder(library_id=1, volume_tag=other)])
    )
    assert (await site.tape_task_ended(reply.ids[0])).status == TaskStatus.DONE
    assert site.cartridge(other).format
    reply = await site.execute(
        QueueTapeTasks(task_type=TapeTaskType.ERASE, orders=[TapeOrder(library_id=1, volume_tag=other)])
    )
    assert (await site.tape_task_ended(reply.ids[0])).status == TaskStatus.DONE
    assert not site.cartridge(other).format
    check_places(site)


async def test_every_mount_has_a_reason(site: Site, autojump_clock: trio.testing.MockClock) -> None:
    await site.write_archive([1000])
    drive = next(one for one in site.state.all(TapeDrive) if one.cartridge_id)
    assert "Write for task" in drive.mount_reason
    assert site.state.find(TapeTask, drive.mount_task_id) is not None


async def test_names_come_without_a_mount_and_a_verification_reads_the_medium(
    site: Site, autojump_clock: trio.testing.MockClock
) -> None:
    number = await site.write_archive([5000])
    backup: Backup = site.one(Backup, number)
    tag = site.one(TapeCartridge, backup.parts[0].cartridge_id).volume_tag
    tape = site.library.cartridge(tag)
    for partition in range(len(tape.partitions)):
        for record in range(len(tape.partitions[partition])):
            if record >= backup.parts[0].position:
                site.library.faults.spoil_record(tag, record, partition)
    async with site.tape.reader(backup, 0) as source:
        manifest = await source.manifest_blocks()
        assert await source.read(manifest) == site.archives[number][1]
    try:
        found = await site.read_archive(number, medium_only=True)
    except (Damaged, MediumFailed):
        return
    assert not found, "nothing of it can be read"


async def test_what_is_kept_beside_the_cartridges_is_made_again(
    site: Site, autojump_clock: trio.testing.MockClock
) -> None:
    number = await site.write_archive([5000])
    backup: Backup = site.one(Backup, number)
    site.tape.forget(backup.archive)
    await trio.sleep(10.0)
    with pytest.raises(Exception, match="only a task"):
        async with site.tape.reader(backup, 0) as source:
            await source.manifest_blocks()
    assert await site.read_structure(number) == (site.archives[number][1], site.archives[number][2])
    async with site.tape.reader(backup, 0) as source:
        assert await source.read(await source.manifest_blocks()) == site.archives[number][1]


async def test_a_dirty_drive_asks_for_cleaning_and_is_cleaned(
    site: Site, autojump_clock: trio.testing.MockClock
) -> None:
    site.library.add_cartridge("CLN001L9")
    await site.tape.synchronise(1)
    await site.execute(
        CreateRecord(
            resource="tape_cartridges",
            fields={"type": "CLN", "pool": "Tape", "volume_tag": "CLN001L9", "description": ""},
        )
    )
    await site.write_archive([1000])
    drive = next(one for one in site.state.all(TapeDrive) if one.cartridge_id)
    site.library.faults.require_cleaning(drive.id - 1)
    await site.until(lambda: not site.one(TapeDrive, drive.id).cartridge_id, "nobody needs the cartridge")
    assert site.one(TapeDrive, drive.id).cleaning_required
    number = (await site.execute(QueueDriveCleaning(drive_id=drive.id))).ids[0]
    task = await site.tape_task_ended(number)
    assert task.status == TaskStatus.DONE, task.status_reason
    cleaned = site.one(TapeDrive, drive.id)
    assert not cleaned.cleaning_required
    assert cleaned.last_cleaned_ns
    check_places(site)


async def test_a_write_protected_cartridge_is_passed_over_until_hands_had_it(
    site: Site, autojump_clock: trio.testing.MockClock
) -> None:
    site.library.faults.write_protect("VT0001L9")
    number = await site.write_archive([1000])
    backup: Backup = site.one(Backup, number)
    assert site.one(TapeCartridge, backup.parts[0].cartridge_id).volume_tag != "VT0001L9"
    assert site.cartridge("VT0001L9").write_protected
    assert site.cartridge("VT0001L9").status != CartridgeStatus.QUARANTINED
    slot = site.slot_of("VT0001L9")
    assert slot is not None
    site.library.faults.take_out(slot.address)
    site.library.faults.write_protect("VT0001L9", protected=False)
    await site.tape.synchronise(1)
    site.library.faults.put_in("VT0001L9", slot.address)
    await site.tape.synchronise(1)
    assert not site.cartridge("VT0001L9").write_protected
    check_places(site)


async def test_the_end_without_a_warning_fails_the_attempt_and_the_next_goes_elsewhere(
    site: Site, autojump_clock: trio.testing.MockClock
) -> None:
    await site.write_archive([1000])
    drive = next(one for one in site.state.all(TapeDrive) if one.cartridge_id)
    tag = site.one(TapeCartridge, drive.cartridge_id).volume_tag
    for partition in site.library.cartridge(tag).partitions:
        partition.capacity_bytes, partition.early_warning_bytes = partition.used_bytes + 1_500_000, 0
    if site.cartridge(tag).format == "native":
        with pytest.raises(Unavailable, match="end"):
            await site.write_archive([MIB] * 3)
        number = await site.write_archive([MIB] * 3)
        assert site.one(Backup, number).parts[0].cartridge_id != site.cartridge(tag).id
    else:  # the LTFS session asks the drive how much room is left, and has stopped before
        number = await site.write_archive([MIB] * 3)
        assert len(site.one(Backup, number).parts) > 1
    assert site.cartridge(tag).status == CartridgeStatus.FULL
    assert await site.read_archive(number) == site.archives[number]


async def test_an_import_goes_on_when_its_slot_is_taken_meanwhile(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dismount puts its cartridge into the slot that was free when the import looked: the next one will do."""
    tag = site.state.tables["tape_cartridge"][4].volume_tag
    reply = await site.execute(
        QueueTapeTasks(task_type=TapeTaskType.EXPORT, orders=[TapeOrder(library_id=1, volume_tag=tag)])
    )
    await site.tape_task_ended(reply.ids[0])
    library = site.tape.libraries()[0]
    ask = library.ask_changer
    taken: list[int] = []

    async def after_another(message: object) -> object:
        if isinstance(message, MoveCartridge) and not taken:
            taken.append(message.to_slot_id)
            other = site.state.tables["tape_cartridge"][1]
            await ask(MoveCartridge(cartridge_id=other.id, to_slot_id=message.to_slot_id, reason="another was first"))
        return await ask(message)

    monkeypatch.setattr(library, "ask_changer", after_another)
    await site.tape.import_cartridges(1, "Tape")
    back = site.slot_of(tag)
    assert back is not None
    assert back.type == SlotType.STORAGE
    assert back.id not in taken
    check_places(site)
