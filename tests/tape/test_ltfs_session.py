"""LTFS cartridges in drives: what is ended is there, by our reading and by the format's rules alone, whatever happens to drive and cartridge."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
import trio

from drivers.scsi.drive import Drive
from drivers.simulated.tape import NO_DELAY, SimulatedLibrary
from drivers.tape.identify import identify
from drivers.tape.ltfs import label_ltfs, open_ltfs
from rbcore import errors
from rbcore.archive.container import Index
from rbcore.tape.session import CartridgeFormat, Contents, PartPlace
from tests.tape.libraries import LibraryUnderTest
from tests.tape.ltfs_cases import (
    BLOCK_BYTES,
    TAG,
    checked,
    labelled,
    loaded,
    made,
    read_all,
    reopened,
    revived,
    with_one_archive,
)
from tests.tape.ltfs_checker import objects
from tests.tape.native_cases import INFO, ROOT, archive_id, check, order, put_back, put_in, sealed, start, store

# Labelling


async def test_a_labelled_cartridge_is_a_volume_by_the_rules_of_the_format() -> None:
    library = made()
    drive = await loaded(library)
    session = await labelled(drive)
    assert session.format is CartridgeFormat.LTFS
    assert session.may_write
    assert not session.why_not
    assert (await session.parts(), session.used_bytes, session.full) == ([], 0, False)
    await session.close()
    volume = checked(library)
    assert volume.consistent
    assert (volume.generation, volume.files) == (1, {})
    facts = await identify(drive)
    assert facts.contents is Contents.LTFS
    assert facts.cartridge == session.identified.cartridge == volume.uuid.replace("-", "")
    assert (facts.volume_tag, facts.partitions) == ("SI0001", 2)
    card = library.cartridge(TAG).card.attributes
    values = {key: bytes.fromhex(value) for key, (_, value) in card.items()}
    assert values["0:0800"] == b"RBMEDIA "
    assert values["0:0806"] == TAG.encode().ljust(32)
    assert values["0:0808"].rstrip(b"\0") == b"Tapes"
    assert values["0:080b"] == b"2.4.0".ljust(16)
    assert len(values["0:080c"]) == len(values["1:080c"]) == 70


async def test_what_cannot_be_divided_is_not_labelled(library: LibraryUnderTest, library_kind: str) -> None:
    drive = await put_in(library.changer, library.drives[0])
    if library_kind in ("simulated", "served"):
        await labelled(drive)
        return
    with pytest.raises(errors.UnsupportedByDevice, match=r"partition|divide"):
        await labelled(drive)


@pytest.mark.parametrize("tag", ["VT0001L4", "VT0001LZ"])
async def test_old_and_worm_cartridges_are_refused_before_anything_is_written(tag: str) -> None:
    generation = 4 if tag.endswith("4") else 9
    library = SimulatedLibrary(mechanics=NO_DELAY, capacity_factor=1e-4, generation_number=generation)
    library.add_cartridge(tag)
    drive = await loaded(library)
    kind = errors.UnsupportedByDevice if generation == 4 else errors.WriteProtected
    with pytest.raises(kind, match=r"two partitions|WORM"):
        await labelled(drive, tag)
    assert (await identify(drive)).contents is Contents.BLANK


async def test_what_changed_since_it_was_decided_is_not_labelled() -> None:
    library = made()
    drive = await loaded(library)
    before = await identify(drive)
    session = await labelled(drive)
    await session.close()
    with pytest.raises(errors.NotAllowedNow, match="Look at it again"):
        await label_ltfs(drive, order(TAG, 2), before)
    library.faults.write_protect(TAG)
    with pytest.raises(errors.WriteProtected, match="switch"):
        await labelled(drive)


async def test_labelling_again_makes_another_volume() -> None:
    library = made()
    drive = await loaded(library)
    session = await labelled(drive)
    await store(session, archive_id(1), sealed(archive_id(1), [1000]))
    await session.close()
    again = await labelled(drive, seed=2)
    assert await again.parts() == []
    assert again.identified.cartridge != session.identified.cartridge
    await again.close()
    assert checked(library).files == {}


# Round trips


async def test_archives_come_back_after_closing_and_opening() -> None:
    library = made()
    drive = await loaded(library)
    session = await labelled(drive)
    sizes = [1, 100_000, 1_000_000, 524_192, 524_288, 7, 2_000_000]
    stored: dict[bytes, tuple[PartPlace, dict[int, bytes]]] = {}
    for number in range(1, 4):
        blocks = sealed(archive_id(number), sizes, first=number, seed=number)
        stored[archive_id(number)] = (await store(session, archive_id(number), blocks), blocks)
    for archive, (place, blocks) in stored.items():
        await check(session, archive, place, blocks)
    await session.close()
    await session.close()
    assert not session.may_write
    volume = checked(library)
    assert volume.consistent
    drive = Drive(library.drives[0])
    session = await reopened(drive)
    assert await session.parts() == [(archive, place) for archive, (place, _) in stored.items()]
    assert session.used_bytes == sum(len(block) for _, blocks in stored.values() for block in blocks.values())
    for archive, (place, blocks) in stored.items():
        await check(session, archive, place, blocks)
        assert volume.files[f"rbmedia/{archive.hex()}/000001.rba"].content == b"".join(blocks.values())
    before = [objects(library.cartridge(TAG), number) for number in (0, 1)]
    await session.close()
    assert [objects(library.cartridge(TAG), number) for number in (0, 1)] == before, "a session that wrote nothing"


async def test_the_files_say_what_a_catalogue_wants_to_know() -> None:
    library = made()
    drive = await loaded(library)
    session = await labelled(drive)
    archive, blocks = archive_id(9), sealed(archive_id(9), [300, 400], first=6)
    info = msgspec.structs.replace(INFO, client="häst", resource="/a:b\x01c", created_ns=1_750_000_000_123_456_789)
    begun = start(archive, part=3, first_block=5, blocks_before=2, stored_before=77, previous_tag="VT0002L9")
    await session.begin_part(msgspec.structs.replace(begun, info=info, previous_cartridge=b"p" * 16))
    await session.write(list(blocks.values()))
    place = await session.end_part(next_tag="VT0003L9", ended_ns=1_750_000_001_000_000_000)
    assert (place.first_block, place.last_block, place.blocks, place.final) == (6, 8, 2, False)
    await session.close()
    files = checked(library).files
    file = files[f"rbmedia/{archive.hex()}/000003.rba"]
    said = {name.removeprefix("rbmedia."): value.decode() for name, value in file.xattrs.items()}
    assert said == {
        "holds": "blocks",
        "archive": archive.hex(),
        "part": "3",
        "first_block": "5",
        "lowest_block": "6",
        "highest_block": "8",
        "blocks": "2",
        "blocks_before": "2",
        "stored_before": "77",
        "previous_tag": "VT0002L9",
        "previous_cartridge": (b"p" * 16).hex(),
        "next_tag": "VT0003L9",
        "final": "false",
        "root": "",
        "client": "häst",
        "resource": "/a:b\x01c",
        "backup_type": "full",
        "crypto": "nocrypt",
        "created": "2025-06-15T15:06:40.123456789Z",
        "ended": "2025-06-15T15:06:41.000000000Z",
    }
    index = Index.decode(files[f"rbmedia/{archive.hex()}/000003.rbi"].content)
    lengths = [len(block) for block in blocks.values()]
    assert [(row.block, row.container, row.offset, row.length) for row in index] == [
        (6, 1, 0, lengths[0]),
        (8, 1, lengths[0], lengths[1]),
    ]


async def test_a_part_without_blocks_and_one_that_was_synced_in_between() -> None:
    library = made()
    drive = await loaded(library)
    session = await labelled(drive)
    await session.begin_part(start(archive_id(1)))
    empty = await session.end_part(next_tag="", ended_ns=9)
    assert (empty.first_block, empty.last_block, empty.blocks, empty.records, empty.stored_bytes) == (-1, -1, 0, 0, 0)
    blocks = sealed(archive_id(2), [600_000, 10, 700_000, 524_192, 5])
    await session.begin_part(start(archive_id(2)))
    for number, block in blocks.items():
        await session.write([block])
        written = await session.sync()
        assert (written.last_block, written.full) == (number, False)
    place = await session.finish_part(root=ROOT, ended_ns=9)
    assert place is not None
    await check(session, archive_id(2), place, blocks)
    await session.close()
    files = checked(library).files
    assert files[f"rbmedia/{archive_id(2).hex()}/000001.rba"].content == b"".join(blocks.values())
    session = await reopened(drive)
    assert [found for _, found in await session.parts()] == [empty, place]
    assert await read_all(session, archive_id(1), empty) == {}
    await check(session, archive_id(2), place, blocks)


async def test_a_part_that_is_open_when_the_session_closes_is_in_no_file() -> None:
    library = made()
    drive = await loaded(library)
    session = await labelled(drive)
    await session.begin_part(start(archive_id(1)))
    await session.write(list(sealed(archive_id(1), [900_000] * 3).values()))
    await session.close()
    volume = checked(library)
    assert (volume.consistent, volume.files) == (True, {})


async def test_malformed_blocks_are_refused_and_the_part_goes_on() -> None:
    library = made()
    drive = await loaded(library)
    session = await labelled(drive)
    archive, blocks = archive_id(1), sealed(archive_id(1), [1000, 2000, 3000])
    listed = list(blocks.values())
    await session.begin_part(start(archive))
    await session.write(listed[:1])
    alien = next(iter(sealed(archive_id(2), [10], first=50).values()))
    for wrong in (listed[0], alien, listed[1][:-1], b"x" * 500):
        with pytest.raises(errors.ProtocolViolation):
            await session.write([listed[1], wrong])
    await session.write([b"".join(listed[1:])])
    with pytest.raises(errors.NotAllowedNow, match="open"):
        await session.begin_part(start(archive, part=2))
    place = await session.finish_part(root=ROOT, ended_ns=9)
    assert place is not None
    await check(session, archive, place, blocks)
    with pytest.raises(errors.NotAllowedNow, match="No part"):
        await session.write(listed)
    with pytest.raises(errors.NotAllowedNow, match="used once"):
        await session.begin_part(start(archive))


async def test_reading_while_a_part_is_open_does_not_disturb_it() -> None:
    library = made()
    drive = await loaded(library)
    session = await labelled(drive)
    old = sealed(archive_id(1), [900_000] * 3)
    old_place = await store(session, archive_id(1), old)
    blocks = sealed(archive_id(2), [700_000] * 6)
    await session.begin_part(start(archive_id(2)))
    for block in blocks.values():
        await session.write([block])
        await check(session, archive_id(1), old_place, old)
    place = await session.finish_part(root=ROOT, ended_ns=9)
    assert place is not None
    await check(session, archive_id(2), place, blocks)
    await session.close()
    assert checked(library).consistent


async def test_appending_goes_on_behind_what_stands_there() -> None:
    library = made()
    drive = await loaded(library)
    stored: dict[bytes, dict[int, bytes]] = {}
    session = await labelled(drive)
    for number in range(1, 6):
        archive = archive_id(number)
        stored[archive] = sealed(archive, [100_000, 900_000], seed=number)
        await store(session, archive, stored[archive])
        await session.close()
        assert checked(library).consistent
        await put_back(library.changer, drive)
        drive = await loaded(library)
        session = await reopened(drive)
    for archive, place in await session.parts():
        await check(session, archive, place, stored[archive])
    assert len(await session.parts()) == 5


# Spanning


async def test_an_archive_goes_over_two_cartridges() -> None:
    library = made("SI0001L9", "SI0002L9", factor=1e-6)
    drive = await loaded(library)
    session = await labelled(drive)
    archive, blocks = archive_id(7), sealed(archive_id(7), [700_000] * 36)
    await session.begin_part(start(archive))
    waiting = list(blocks.values())
    written = await session.write([waiting.pop(0)])
    while not written.full:
        written = await session.write([waiting.pop(0)])
    last = written.last_block
    assert session.full
    assert not session.may_write
    assert "full" in session.why_not
    assert await session.write([blocks[70]]) == written, "nothing is taken any more"
    assert await session.finish_part(root=ROOT, ended_ns=9) is None
    first = await session.end_part(next_tag="SI0002L9", ended_ns=9)
    assert (first.last_block, first.final) == (last, False)
    await session.close()
    assert checked(library).consistent
    await put_back(library.changer, drive)
    drive = await loaded(library, 1)
    second = await labelled(drive, "SI0002L9", seed=2)
    rest = {number: block for number, block in blocks.items() if number > last}
    await second.begin_part(start(archive, part=2, first_block=last + 1, blocks_before=first.blocks))
    written = await second.write(list(rest.values()))
    assert not written.full
    place = await second.finish_part(root=ROOT, ended_ns=9)
    assert place is not None
    await second.close()
    assert checked(library, "SI0002L9").consistent
    found = await read_all(await reopened(drive), archive, place)
    await put_back(library.changer, drive, 1)
    drive = await loaded(library)
    session = await reopened(drive)
    assert session.full, "that it is full is remembered"
    assert not session.may_write
    found |= await read_all(session, archive, first)
    assert found == blocks


async def test_what_is_all_written_when_the_warning_comes_is_finished_here() -> None:
    library = made(factor=1e-6)
    drive = await loaded(library)
    session = await labelled(drive)
    archive = archive_id(1)
    await session.begin_part(start(archive))
    blocks: dict[int, bytes] = {}
    while True:
        number = len(blocks)
        made_blocks = sealed(archive, [BLOCK_BYTES - 96], first=number, seed=number)
        written = await session.write(list(made_blocks.values()))
        blocks |= made_blocks
        if written.full:
            break
    assert written.last_block == number
    place = await session.finish_part(root=ROOT, ended_ns=9)
    assert place is not None
    await session.close()
    assert checked(library).consistent
    await check(await reopened(drive), archive, place, blocks)


# Crashes


async def test_every_crash_while_writing_leaves_what_was_ended() -> None:
    for crash_after in range(0, 34, 3):
        library = made(seed=crash_after)
        drive = await loaded(library)
        session = await labelled(drive)
        stored: dict[bytes, dict[int, bytes]] = {}
        library.faults.kill_drive(0, after_records=crash_after)
        with contextlib.suppress(errors.Unavailable):
            for number in range(1, 30):
                archive = archive_id(number)
                blocks = sealed(archive, [300_000, 900_000, 200_000], seed=number)
                await store(session, archive, blocks)
                stored[archive] = blocks
        assert not session.may_write
        assert "failed" in session.why_not
        await session.close()
        session = await revived(library, drive)
        found = dict(await session.parts())
        assert set(stored) <= set(found), "what was acknowledged is there"
        for archive, place in found.items():
            if archive in stored:
                await check(session, archive, place, stored[archive])
        assert session.may_write, session.why_not
        extra = sealed(archive_id(99), [900_000])
        place = await store(session, archive_id(99), extra)
        await session.close()
        assert checked(library).consistent, crash_after
        session = await reopened(drive)
        await check(session, archive_id(99), place, extra)
        for archive, blocks in stored.items():
            await check(session, archive, dict(await session.parts())[archive], blocks)


async def test_a_crash_while_closing_costs_nothing() -> None:
    for crash_after in range(2):
        library = made(seed=crash_after)
        drive = await loaded(library)
        session = await labelled(drive)
        blocks = sealed(archive_id(1), [900_000])
        await store(session, archive_id(1), blocks)
        library.faults.kill_drive(0, after_records=crash_after)
        with contextlib.suppress(errors.Unavailable):
            await session.close()
        library.faults.kill_drive(0)
        session = await revived(library, drive)
        ((archive, place),) = await session.parts()
        await check(session, archive, place, blocks)
        await store(session, archive_id(2), sealed(archive_id(2), [10]))
        await session.close()
        assert checked(library).consistent


async def test_an_index_whose_last_filemark_is_missing_counts() -> None:
    library = made()
    drive = await loaded(library)
    session = await labelled(drive)
    blocks = sealed(archive_id(1), [900_000])
    await store(session, archive_id(1), blocks)
    await drive.unload()
    tape = library.cartridge(TAG).partitions[1]
    tape.cut(len(tape) - 1)
    tape.flush()
    library.cartridge(TAG).card.change_reference += 1
    await drive.load()
    session = await reopened(drive)
    ((archive, place),) = await session.parts()
    await check(session, archive, place, blocks)
    await store(session, archive_id(2), sealed(archive_id(2), [10]))
    await session.close()
    volume = checked(library)
    assert volume.consistent
    assert len(volume.files) == 4


@pytest.mark.parametrize("kept", ["", "0:", "1:"])
async def test_a_lost_or_stale_memory_of_the_cartridge_only_costs_a_search(kept: str) -> None:
    library = made()
    drive = await loaded(library)
    session = await labelled(drive)
    blocks = sealed(archive_id(1), [900_000])
    await store(session, archive_id(1), blocks)
    await session.close()
    card = library.cartridge(TAG).card
    card.attributes = {key: value for key, value in card.attributes.items() if kept and key.startswith(kept)}
    session = await reopened(drive)
    ((archive, place),) = await session.parts()
    await check(session, archive, place, blocks)
    await store(session, archive_id(2), sealed(archive_id(2), [10]))
    await session.close()
    assert checked(library).consistent


async def test_the_memory_of_the_cartridge_spares_the_search() -> None:
    library = made()
    drive = await loaded(library)
    session = await labelled(drive)
    await store(session, archive_id(1), sealed(archive_id(1), [900_000]))
    await session.close()
    before = library.statistics().drives[0].records_read
    await reopened(drive)
    read = library.statistics().drives[0].records_read - before
    assert read <= 2 + 4 + 1, "labels for identification, labels, and one index"


async def test_a_cancelled_write_ends_the_writing(autojump_clock: trio.testing.MockClock) -> None:
    library = SimulatedLibrary(capacity_factor=4e-6)
    library.add_cartridge(TAG)
    drive = await loaded(library)
    session = await labelled(drive)
    ended = sealed(archive_id(1), [900_000])
    await store(session, archive_id(1), ended)
    blocks = sealed(archive_id(2), [900_000] * 20)
    await session.begin_part(start(archive_id(2)))
    with trio.move_on_after(0.02) as scope:
        await session.write(list(blocks.values()))
    assert scope.cancelled_caught
    assert not session.may_write
    with pytest.raises(errors.NotAllowedNow, match="interrupted"):
        await session.end_part(next_tag="", ended_ns=9)
    ((archive, place),) = await session.parts()
    await check(session, archive, place, ended)
    await session.close()
    session = await reopened(drive)
    await check(session, archive, place, ended)
    await store(session, archive_id(3), blocks={})
    await session.close()
    volume = checked(library)
    assert volume.consistent
    assert len(volume.files) == 4


async def test_a_reset_between_two_parts_is_noticed_before_anything_is_overwritten() -> None:
    library, drive, session, blocks, place = await with_one_archive()
    library.faults.reset_drive(0)
    await drive.wait_ready(600)
    await check(session, archive_id(1), place, blocks)
    more = sealed(archive_id(2), [100])
    await store(session, archive_id(2), more)
    await session.close()
    volume = checked(library)
    assert volume.consistent
    assert len(volume.files) == 4


async def test_another_cartridge_is_not_written() -> None:
    library = made("SI0001L9", "SI0002L9")
    drive = await loaded(library)
    session = await labelled(drive)
    await store(session, archive_id(1), sealed(archive_id(1), [900_000]))
    await session.close()
    session = await reopened(drive)
    await put_back(library.changer, drive)
    other = await loaded(library, 1)
    second = await labelled(other, "SI0002L9", seed=5)
    await store(second, archive_id(3), sealed(archive_id(3), [900_000]))
    await second.close()
    before = objects(library.cartridge("SI0002L9"), 1)
    with pytest.raises((errors.PositionLost, errors.DeviceNotReady)):
        await session.begin_part(start(archive_id(2)))
    assert not session.may_write
    assert objects(library.cartridge("SI0002L9"), 1) == before
    with pytest.raises(errors.PositionLost, match="Identify"):
        await open_ltfs(other, session.identified)


async def test_another_cartridge_is_not_written_in_the_middle_of_a_session() -> None:
    """It is longer, so that every position of the first is there, too."""
    library = made("SI0001L9", "SI0002L9")
    drive = await loaded(library, 1)
    second = await labelled(drive, "SI0002L9", seed=5)
    for number in range(3, 6):
        await store(second, archive_id(number), sealed(archive_id(number), [900_000] * 3))
    await second.close()
    await put_back(library.changer, drive, 1)
    drive = await loaded(library)
    session = await labelled(drive)
    blocks = sealed(archive_id(1), [900_000])
    place = await store(session, archive_id(1), blocks)
    await drive.unload()
    library.faults.swap(256, 1025)
    await drive.load()
    before = objects(library.cartridge("SI0002L9"), 1)
    with pytest.raises(errors.PositionLost, match="open it anew"):
        await session.begin_part(start(archive_id(2)))
    assert not session.may_write
    with pytest.raises(errors.Damaged):
        await session.reader(archive_id(1), place).read([0])
    await session.close()
    assert objects(library.cartridge("SI0002L9"), 1) == before
