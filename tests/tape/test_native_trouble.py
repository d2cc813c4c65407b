"""Native cartridges and bad luck: unreadable records, dead drives, exchanged cartridges, protection; and who a cartridge says it is."""

from __future__ import annotations

import msgspec
import pytest
import trio

from drivers.scsi.changer import Changer, ElementType
from drivers.scsi.drive import Drive, ReadResult
from drivers.scsi.drive_pages import REST_OF_TAPE
from drivers.simulated.tape import NO_DELAY, SimulatedLibrary
from drivers.tape import identify, label_cartridge, open_session, scan_cartridge
from drivers.tape.native import NativeSession
from rbcore import errors
from rbcore.tape.ltfs_volume import Label as LtfsLabel
from rbcore.tape.ltfs_volume import label_records
from rbcore.tape.native import RECORD_BYTES_MIN
from rbcore.tape.session import CartridgeFormat, Contents, PartPlace
from tests.tape.native_cases import (
    ROOT,
    archive_id,
    check,
    fresh,
    order,
    put_in,
    reopened,
    sealed,
    start,
    store,
)

ONE, TWO = "TR0001L9", "TR0002L9"
POOR = (0x2B, 0x92, 0x34)
ARCHIVE = archive_id(1)


@pytest.fixture(params=["all", "poor"])
async def library(request: pytest.FixtureRequest, autojump_clock: trio.testing.MockClock) -> SimulatedLibrary:
    made = SimulatedLibrary(
        mechanics=NO_DELAY, capacity_factor=2e-6, drives_lack=POOR if request.param == "poor" else ()
    )
    for barcode in (ONE, TWO):
        made.add_cartridge(barcode)
    return made


async def written(library: SimulatedLibrary, sizes: list[int]) -> tuple[Drive, PartPlace, dict[int, bytes]]:
    """A closed session with two archives, of which the first is returned."""
    drive = await put_in(library.changer, library.drives[0])
    session = await fresh(drive, record_bytes=RECORD_BYTES_MIN)
    blocks = sealed(ARCHIVE, sizes)
    place = await store(session, ARCHIVE, blocks)
    await store(session, archive_id(2), sealed(archive_id(2), [70_000]))
    await session.close()
    return drive, place, blocks


# --- reading what cannot be read ---


async def test_an_unreadable_record_takes_its_blocks_along_and_no_others(library: SimulatedLibrary) -> None:
    drive, place, blocks = await written(library, [60_000] * 20)
    library.faults.spoil_record(ONE, place.position + 5)
    session = await reopened(drive)
    assert session.may_write
    reader = session.reader(ARCHIVE, place)
    index = await reader.index()
    failed = []
    for row in index:
        try:
            block = await reader.read([row.block])
        except errors.MediumFailed as error:
            failed.append(error.data["block"])
        else:
            assert block == blocks[row.block]
    touched = [
        row.block
        for row in index
        if row.container <= 5 <= row.container + (row.offset + row.length - 1) // (RECORD_BYTES_MIN - 160)
    ]
    assert failed == touched
    assert len(failed) == 2
    with pytest.raises(errors.MediumFailed) as caught:
        await reader.read(list(blocks))
    assert caught.value.data["block"] == failed[0]
    await check(session, archive_id(2), (await session.parts())[1][1], sealed(archive_id(2), [70_000]))


async def test_what_cannot_be_read_is_asked_of_the_drive_once_for_a_request(library: SimulatedLibrary) -> None:
    """A real drive tries for minutes: reading ahead must not make it try again for the same answer."""
    drive, place, blocks = await written(library, [60_000] * 20)
    spoilt = place.position + 5
    library.faults.spoil_record(ONE, spoilt)
    session = await reopened(drive)
    reader = session.reader(ARCHIVE, place)
    await reader.index()
    reads: list[int | None] = []
    read = drive.read

    async def counted(length: int) -> ReadResult:
        reads.append(drive.counted_position.object_number if drive.counted_position else None)
        return await read(length)

    drive.read = counted  # type: ignore[method-assign]
    with pytest.raises(errors.MediumFailed) as caught:
        await reader.read(list(blocks))
    assert reads.count(spoilt) == 1
    assert len(reads) == len(set(reads))
    reads.clear()
    behind = [number for number in blocks if number > 2 * caught.value.data["block"]]
    assert await reader.read(behind) == b"".join(blocks[number] for number in behind)
    assert spoilt not in reads


async def test_what_belongs_elsewhere_is_found_while_reading_ahead(library: SimulatedLibrary) -> None:
    """The record is read without an error of the drive; only its header says that it is of another use of the cartridge."""
    drive, place, blocks = await written(library, [60_000] * 20)
    session = await reopened(drive)
    reader = session.reader(ARCHIVE, place)
    await reader.index()
    read = drive.read

    async def exchanged(length: int) -> ReadResult:
        at = drive.counted_position
        result = await read(length)
        if at is not None and at.object_number == place.position + 6:
            return ReadResult(found=result.found, data=other.data)
        return result

    await drive.locate(place.position + 7)
    other = await read(RECORD_BYTES_MIN)
    drive.read = exchanged  # type: ignore[method-assign]
    with pytest.raises(errors.Damaged, match=f"position {place.position + 7}, not of") as caught:
        await reader.read(list(blocks))
    good = [number for number in blocks if number < caught.value.data["block"]]
    assert await reader.read(good) == b"".join(blocks[number] for number in good)


async def test_an_unreadable_map_is_replaced_by_what_the_records_say(library: SimulatedLibrary) -> None:
    drive, place, blocks = await written(library, [30] * 3000 + [60_000] * 5)
    session = await reopened(drive)
    assert len(session._writer.rows[0].trailer.maps) == 2  # type: ignore[union-attr]
    for entry in session._writer.rows[0].trailer.maps:  # type: ignore[union-attr]
        library.faults.spoil_record(ONE, place.position + entry.sequence)
    reader = (await reopened(drive)).reader(ARCHIVE, place)
    assert [row.block for row in await reader.index()] == list(blocks)
    assert await reader.read(list(blocks)) == b"".join(blocks.values())

    library.faults.spoil_record(ONE, place.position + place.records - 2)
    session = await reopened(drive)
    reader = session.reader(ARCHIVE, place)
    numbers = [row.block for row in await reader.index()]
    assert 3000 < len(numbers) < 3005
    assert await reader.read(numbers) == b"".join(blocks[number] for number in numbers)
    with pytest.raises(errors.Damaged, match="a map is lost"):
        await reader.read([max(blocks)])
    with pytest.raises(errors.NotFound):
        await reader.read([1])


async def test_an_unreadable_trailer_is_known_from_the_index(library: SimulatedLibrary) -> None:
    drive, place, blocks = await written(library, [60_000] * 4)
    library.faults.spoil_record(ONE, place.position + place.records)
    session = await reopened(drive)
    assert dict(await session.parts())[ARCHIVE] == place
    await check(session, ARCHIVE, place, blocks)
    assert session.may_write
    unknown = msgspec.structs.replace(place, position=place.position + 1, records=place.records - 1)
    with pytest.raises(errors.MediumFailed) as caught:
        await session.reader(ARCHIVE, unknown).read([2, 4])
    assert caught.value.data["block"] == 2


async def test_records_that_come_back_from_before_are_told_by_the_chain(library: SimulatedLibrary) -> None:
    """A part was written, lost in a crash before anybody heard of its end, and begun again by the same name; then its old end came back."""
    drive, _, _ = await written(library, [60_000] * 4)
    session = await reopened(drive)
    third = archive_id(3)
    old = await store(session, third, sealed(third, [70_000] * 4))
    await drive.locate(old.position + old.records)
    ghost = (await drive.read(RECORD_BYTES_MIN)).data
    await drive.locate(old.position)
    await drive.write(b"what the crash left of it")
    session = await reopened(drive)
    await session.begin_part(start(third))
    await session.write(list(sealed(third, [70_000] * 4, seed=5).values()))
    await session.sync()
    await session.write(list(sealed(third, [100], first=10).values()))
    await session.sync()
    await drive.write(ghost)
    assert drive.counted_position is not None
    assert drive.counted_position.object_number == old.position + old.records + 1
    for more in (0, 1):
        session = await reopened(drive)
        assert [archive for archive, _ in await session.parts()] == [ARCHIVE, archive_id(2)], more
        assert session.may_write
        await drive.space_to_end()
        await drive.write_filemarks(1)
    place = await store(session, third, sealed(third, [5]))
    await session.close()
    await check(await reopened(drive), third, place, sealed(third, [5]))


async def test_an_unreadable_index_is_replaced_by_a_scan_and_nothing_is_appended_over_it(
    library: SimulatedLibrary,
) -> None:
    drive, place, blocks = await written(library, [60_000] * 4)
    end = (await drive.space_to_end()).object_number
    library.faults.spoil_record(ONE, end - 2)
    session = await reopened(drive)
    parts = await session.parts()
    assert [archive for archive, _ in parts] == [ARCHIVE, archive_id(2)]
    await check(session, ARCHIVE, place, blocks)
    assert not session.may_write
    assert "no safe place" in session.why_not
    with pytest.raises(errors.NotAllowedNow, match="no safe place"):
        await session.begin_part(start(archive_id(3)))
    await session.close()
    contents = await scan_cartridge(drive)
    assert any(finding.position == end - 2 for finding in contents.findings)


async def test_more_than_one_bad_object_at_the_end_may_hide_a_group(library: SimulatedLibrary) -> None:
    """A crash leaves one. Two may be a trailer and what followed it."""
    drive, place, _ = await written(library, [60_000] * 4)
    await drive.space_to_end()
    await drive.write(b"what a crash left")
    assert (await reopened(drive)).may_write
    await drive.space_to_end()
    await drive.write(b"and something else")
    session = await reopened(drive)
    assert not session.may_write
    assert dict(await session.parts())[ARCHIVE] == place


async def test_a_cartridge_whose_end_is_all_unreadable_is_given_up_in_time(library: SimulatedLibrary) -> None:
    drive, place, blocks = await written(library, [60_000] * 200)
    for number in range(place.position + 20, place.position + 120):
        library.faults.spoil_record(ONE, number)
    contents = await scan_cartridge(drive, quick=False)
    assert contents.append is None
    assert contents.findings_total < 100
    session = await reopened(drive)
    assert session.may_write, "the index at the end tells it all"
    assert await session.reader(ARCHIVE, place).read([0]) == blocks[0]


async def test_a_lost_first_record_is_no_loss(library: SimulatedLibrary) -> None:
    drive, place, blocks = await written(library, [60_000] * 2)
    library.faults.spoil_record(ONE, 0)
    identified = await identify(drive)
    assert identified.contents is Contents.NATIVE
    session = await reopened(drive)
    await check(session, ARCHIVE, place, blocks)
    library.faults.spoil_record(ONE, 1)
    identified = await identify(drive)
    assert identified.contents is Contents.UNREADABLE
    assert "cannot be read" in identified.detail


# --- writing into trouble ---


async def begun(drive: Drive, session: NativeSession) -> None:
    await session.begin_part(start(archive_id(3)))
    await session.write(list(sealed(archive_id(3), [100_000] * 3).values()))


async def whole(drive: Drive, session: NativeSession) -> None:
    await begun(drive, session)
    await session.finish_part(root=ROOT, ended_ns=1)
    await session.close()


@pytest.mark.parametrize("records", range(8))
async def test_a_drive_that_dies_while_writing(library: SimulatedLibrary, records: int) -> None:
    drive, place, blocks = await written(library, [60_000] * 4)
    parts = await (await reopened(drive)).parts()
    session = await reopened(drive)
    library.faults.kill_drive(0, after_records=records)
    with pytest.raises(errors.Unavailable):
        await whole(drive, session)
    assert not session.may_write
    await session.close()
    library.faults.reset_drive(0)
    await drive.wait_ready(600)
    await check(session, ARCHIVE, place, blocks)
    session = await reopened(drive)
    assert (await session.parts())[:2] == parts
    if len(await session.parts()) == 2:
        await store(session, archive_id(3), sealed(archive_id(3), [5]))
    await session.close()


async def test_a_worn_medium_ends_the_writing(library: SimulatedLibrary) -> None:
    drive, place, blocks = await written(library, [60_000] * 4)
    session = await reopened(drive)
    library.faults.wear_out(ONE, writes_left=2)
    with pytest.raises(errors.MediumFailed):
        await begun(drive, session)
    assert not session.may_write
    assert "failed" in session.why_not
    with pytest.raises(errors.NotAllowedNow):
        await session.begin_part(start(archive_id(4)))
    await session.close()
    library.faults.wear_out(ONE)
    await check(session, ARCHIVE, place, blocks)


async def test_a_bus_reset_in_mid_write(library: SimulatedLibrary) -> None:
    drive, place, blocks = await written(library, [60_000] * 4)
    session = await reopened(drive)
    await begun(drive, session)
    library.faults.reset_bus()
    with pytest.raises(errors.PositionLost):
        await session.finish_part(root=ROOT, ended_ns=1)
    assert not session.may_write
    await check(session, ARCHIVE, place, blocks)
    library.faults.reset_bus()
    await check(session, ARCHIVE, place, blocks)


async def exchange(library: SimulatedLibrary) -> None:
    """Another host unloads the cartridge and puts in the other one."""
    hand = Changer(library.connect(0, "other"))
    drive = Drive(library.connect(1, "other"))
    parts = await hand.element_addresses()
    slot, element = parts[ElementType.STORAGE].first, parts[ElementType.DRIVE].first
    await drive.unload()
    await hand.move(element, slot)
    await hand.move(slot + 1, element)
    await drive.load()


@pytest.mark.parametrize("wrote_before", [False, True])
async def test_an_exchanged_cartridge_is_not_written_on(library: SimulatedLibrary, wrote_before: bool) -> None:
    """It looks much the same: as many objects, the same tag."""
    other = await put_in(library.changer, library.drives[0], cartridge=1)
    session = await fresh(other, seed=2, record_bytes=RECORD_BYTES_MIN)
    theirs = sealed(ARCHIVE, [60_000] * 4, seed=9)
    their_place = await store(session, ARCHIVE, theirs)
    await session.close()
    await other.unload()
    changer = Changer(library.changer)
    parts = await changer.element_addresses()
    await changer.move(parts[ElementType.DRIVE].first, parts[ElementType.STORAGE].first + 1)

    drive, place, blocks = await written(library, [60_000] * 4)
    session = await reopened(drive)
    if wrote_before:
        await begun(drive, session)
    await exchange(library)
    with pytest.raises(errors.PositionLost):
        await (session.sync() if wrote_before else begun(drive, session))
    assert not session.may_write
    with pytest.raises(errors.Damaged):
        await session.reader(ARCHIVE, place).read(list(blocks))
    await session.close()
    session = await reopened(drive)
    assert dict(await session.parts()) == {ARCHIVE: their_place}
    await check(session, ARCHIVE, their_place, theirs)


async def test_a_protected_cartridge_is_read_only(library: SimulatedLibrary) -> None:
    drive, place, blocks = await written(library, [60_000] * 4)
    library.faults.write_protect(ONE)
    identified = await identify(drive)
    assert identified.write_protected
    session = await open_session(drive, identified)
    assert not session.may_write
    assert "write protected" in session.why_not
    await check(session, ARCHIVE, place, blocks)
    with pytest.raises(errors.WriteProtected, match="switch"):
        await fresh(drive)
    await session.close()


# --- who is it ---


async def test_a_blank_cartridge_and_an_erased_one(library: SimulatedLibrary) -> None:
    drive = await put_in(library.changer, library.drives[0])
    identified = await identify(drive)
    assert identified.contents is Contents.BLANK
    assert (identified.cartridge, identified.volume_tag) == ("", "")
    await fresh(drive)
    await drive.erase(long=False)
    assert (await identify(drive)).contents is Contents.BLANK
    await drive.rewind()
    await drive.write_filemarks(1)
    assert (await identify(drive)).contents is Contents.BLANK
    with pytest.raises(errors.NotAllowedNow, match="nothing to open"):
        await open_session(drive, await identify(drive))


@pytest.mark.parametrize(
    "objects",
    [
        [b"x" * 512],
        [b"x" * 100_000],
        [b"VOL1" + b" " * 76],
        [None, b"x"],
        [b"VOL1ABC123" + b" " * 69 + b"3", None, b"HDR1"],
    ],
)
async def test_a_foreign_cartridge(library: SimulatedLibrary, objects: list[bytes | None]) -> None:
    drive = await put_in(library.changer, library.drives[0])
    for one in objects:
        await (drive.write_filemarks(1) if one is None else drive.write(one))
    identified = await identify(drive)
    assert identified.contents is Contents.FOREIGN
    assert identified.detail
    session = await fresh(drive)
    assert (await identify(drive)).contents is Contents.NATIVE
    await session.close()


async def test_labelling_that_was_interrupted(library: SimulatedLibrary) -> None:
    drive = await put_in(library.changer, library.drives[0])
    library.faults.kill_drive(0, after_records=1)
    with pytest.raises(errors.Unavailable):
        await fresh(drive)
    library.faults.reset_drive(0)
    await drive.wait_ready(600)
    assert (await identify(drive)).contents in (Contents.BLANK, Contents.NATIVE)
    await fresh(drive)
    await drive.rewind()
    first, label = await drive.read(80), await drive.read(RECORD_BYTES_MIN)
    await drive.rewind()
    await drive.write(first.data)
    identified = await identify(drive)
    assert identified.contents is Contents.BLANK
    assert "interrupted" in identified.detail
    await drive.locate(1)
    await drive.write(label.data)
    session = await reopened(drive)
    assert session.may_write, "only the filemark was missing"
    place = await store(session, ARCHIVE, sealed(ARCHIVE, [5]))
    assert place.position == 3
    await session.close()
    await check(await reopened(drive), ARCHIVE, place, sealed(ARCHIVE, [5]))


async def test_an_ltfs_volume_is_told_and_can_be_labelled_native() -> None:
    library = SimulatedLibrary(mechanics=NO_DELAY, capacity_factor=2e-6)
    library.add_cartridge(ONE)
    drive = await put_in(library.changer, library.drives[0])
    await drive.format_medium([1, REST_OF_TAPE])
    label = LtfsLabel.of_cartridge(
        ONE,
        creator="rbmedia test",
        format_time_ns=10**18,
        volume_uuid="01234567-89ab-cdef-0123-456789abcdef",
        partition="a",
        index_partition="a",
        data_partition="b",
        block_bytes=524_288,
        compression=True,
    )
    await drive.locate(0, 1)
    await drive.write(b"data in the other partition")
    await drive.locate(0, 0)
    assert (await identify(drive)).contents is Contents.FOREIGN
    await drive.locate(0, 0)
    for record in label_records(label):
        await drive.write(record)
        await drive.write_filemarks(1)
    await drive.locate(0, 1)
    identified = await identify(drive)
    assert (identified.contents, identified.volume_tag) == (Contents.LTFS, "TR0001")
    assert (identified.cartridge, identified.partitions) == ("0123456789abcdef0123456789abcdef", 2)
    session = await fresh(drive)
    place = await store(session, ARCHIVE, sealed(ARCHIVE, [5]))
    await session.close()
    identified = await identify(drive)
    assert (identified.contents, identified.partitions) == (Contents.NATIVE, 1)
    await check(await reopened(drive), ARCHIVE, place, sealed(ARCHIVE, [5]))


async def test_a_cartridge_is_opened_in_the_format_that_it_has() -> None:
    library = SimulatedLibrary(mechanics=NO_DELAY, capacity_factor=2e-6)
    library.add_cartridge(ONE)
    drive = await put_in(library.changer, library.drives[0])
    blocks = sealed(ARCHIVE, [100_000] * 3)
    for kind in (CartridgeFormat.NATIVE, CartridgeFormat.LTFS, CartridgeFormat.NATIVE):
        session = await label_cartridge(drive, order(ONE), await identify(drive), kind)
        place = await store(session, ARCHIVE, blocks)
        await session.close()
        session = await open_session(drive, await identify(drive))
        assert session.format is kind
        assert await session.parts() == [(ARCHIVE, place)]
        reader = session.reader(ARCHIVE, place)
        assert await reader.read(list(blocks)) == b"".join(blocks.values())
        await session.close()


async def test_an_empty_drive_is_no_unreadable_cartridge(library: SimulatedLibrary) -> None:
    drive = Drive(library.drives[0])
    with pytest.raises(errors.NoCartridge):
        await identify(drive)
