"""LTFS cartridges with damages, with files of other programs, in states that contradict themselves, and in any order of events."""

from __future__ import annotations

import contextlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.scsi.drive import Drive
from drivers.simulated.tape import NO_DELAY, SimulatedLibrary
from drivers.tape.ltfs import LtfsSession, open_ltfs
from rbcore import errors
from tests.tape.ltfs_cases import (
    BLOCK_BYTES,
    TAG,
    TIMES,
    OtherProgram,
    checked,
    labelled,
    loaded,
    made,
    read_all,
    reopened,
    revived,
    with_one_archive,
)
from tests.tape.native_cases import ROOT, archive_id, check, sealed, start, store

# Damages


async def test_an_unreadable_record_costs_the_blocks_in_it_and_no_others() -> None:
    library = made()
    drive = await loaded(library)
    session = await labelled(drive)
    archive, blocks = archive_id(1), sealed(archive_id(1), [200_000] * 30)
    place = await store(session, archive, blocks)
    await session.close()
    spoilt = place.position + 4
    library.faults.spoil_record(TAG, spoilt, 1)
    session = await reopened(drive)
    reader = session.reader(archive, place)
    offset, lost = 0, []
    for number, block in blocks.items():
        touched = range(
            place.position + offset // BLOCK_BYTES, place.position + (offset + len(block) - 1) // BLOCK_BYTES + 1
        )
        offset += len(block)
        if spoilt in touched:
            lost.append(number)
            with pytest.raises(errors.MediumFailed) as caught:
                await reader.read([number])
            assert caught.value.data["block"] == number
        else:
            assert await reader.read([number]) == block
    assert 2 <= len(lost) <= 5
    with pytest.raises(errors.MediumFailed) as caught:
        await reader.read(list(blocks))
    assert caught.value.data["block"] == lost[0]
    with pytest.raises(errors.NotFound, match="no block 1"):
        await reader.read([1])
    await store(session, archive_id(2), sealed(archive_id(2), [10]))
    await session.close()


@pytest.mark.parametrize("damage", ["map unreadable", "map changed", "map gone"])
async def test_without_its_map_a_part_is_read_by_the_headers_of_its_blocks(damage: str) -> None:
    library = made()
    drive = await loaded(library)
    session = await labelled(drive)
    archive, blocks = archive_id(1), sealed(archive_id(1), [5, 524_100, 70_000, 1_500_000, 524_192, 9])
    place = await store(session, archive, blocks)
    await session.close()
    other = OtherProgram(library)
    at = place.position + place.records
    if damage == "map unreadable":
        library.faults.spoil_record(TAG, at, 1)
    elif damage == "map changed":
        tape = other.tape(1)
        record = tape[at]
        assert record is not None
        other.replace(1, at, [record[:-1] + bytes([record[-1] ^ 1]), *tape[at + 1 :]])
    else:
        xml = other.last_index()
        begin, end = xml.rindex("<file>"), xml.rindex("</file>") + len("</file>")
        assert "000001.rbi" in xml[begin:end]
        other.write(xml[:begin] + xml[end:], data=[], in_index_partition=[])
    session = await reopened(drive)
    ((_, found),) = await session.parts()
    await check(session, archive, found, blocks)


async def test_without_map_and_with_unreadable_records_the_other_blocks_are_found() -> None:
    library = made()
    drive = await loaded(library)
    session = await labelled(drive)
    archive, blocks = archive_id(1), sealed(archive_id(1), [150_000] * 40)
    place = await store(session, archive, blocks)
    await session.close()
    spoilt = (place.position, place.position + 5, place.position + place.records)
    for number in spoilt:
        library.faults.spoil_record(TAG, number, 1)
    session = await reopened(drive)
    reader = session.reader(archive, place)
    offset = 0
    for number, block in blocks.items():
        touched = range(
            place.position + offset // BLOCK_BYTES, place.position + (offset + len(block) - 1) // BLOCK_BYTES + 1
        )
        offset += len(block)
        if set(touched) & set(spoilt):
            with pytest.raises(errors.Damaged) as caught:
                await reader.read([number])
            assert caught.value.data["block"] == number
        else:
            assert await reader.read([number]) == block


async def test_a_part_of_which_nothing_can_be_read_is_damaged() -> None:
    library = made()
    drive = await loaded(library)
    session = await labelled(drive)
    place = await store(session, archive_id(1), sealed(archive_id(1), [1000]))
    await session.close()
    for number in (place.position, place.position + 1):
        library.faults.spoil_record(TAG, number, 1)
    session = await reopened(drive)
    with pytest.raises(errors.Damaged, match="neither its map"):
        await session.reader(archive_id(1), place).index()


@pytest.mark.parametrize("partition", [0, 1])
async def test_one_readable_label_is_enough_to_read(partition: int) -> None:
    library, drive, session, blocks, place = await with_one_archive()
    await session.close()
    facts = session.identified
    library.faults.spoil_record(TAG, 2, partition)
    session = await open_ltfs(drive, facts)
    await check(session, archive_id(1), place, blocks)
    assert not session.may_write
    assert "label" in session.why_not
    with pytest.raises(errors.NotAllowedNow, match="label"):
        await session.begin_part(start(archive_id(2)))


@pytest.mark.parametrize("partition", [0, 1])
async def test_an_unreadable_index_in_one_partition_is_made_up_for_by_the_other(partition: int) -> None:
    library, drive, session, blocks, place = await with_one_archive()
    await session.close()
    tape = OtherProgram(library).tape(partition)
    library.faults.spoil_record(TAG, len(tape) - 2, partition)
    session = await reopened(drive)
    await check(session, archive_id(1), place, blocks)
    if partition == 0:
        await store(session, archive_id(2), sealed(archive_id(2), [10]))
        await session.close()
        assert checked(library).consistent
    else:
        with pytest.raises(errors.RbError):
            await session.begin_part(start(archive_id(2)))
        assert not session.may_write
        library.cartridge(TAG).card.attributes.clear()
        session = await reopened(drive)
        await check(session, archive_id(1), place, blocks)
        assert not session.may_write
        assert "read only" in session.why_not


async def test_behind_an_index_that_cannot_be_read_nothing_is_written() -> None:
    """The session was never closed: the index partition does not know what the lost index named."""
    library, drive, session, blocks, place = await with_one_archive()
    await store(session, archive_id(2), sealed(archive_id(2), [900_000]))
    library.faults.spoil_record(TAG, len(OtherProgram(library).tape(1)) - 2, 1)
    session = await reopened(drive)
    assert [archive for archive, _ in await session.parts()] == [archive_id(1)]
    await check(session, archive_id(1), place, blocks)
    assert not session.may_write
    assert "cannot be read" in session.why_not


async def test_a_memory_that_names_the_wrong_block_is_not_believed() -> None:
    library, drive, session, blocks, place = await with_one_archive()
    await session.close()
    attributes = library.cartridge(TAG).card.attributes
    kind, value = attributes["1:080c"]
    raw = bytearray.fromhex(value)
    assert raw[17:25] == (place.position + place.records + 2).to_bytes(8)
    raw[24] -= 1
    attributes["1:080c"] = (kind, raw.hex())
    session = await reopened(drive)
    await check(session, archive_id(1), place, blocks)
    await store(session, archive_id(2), sealed(archive_id(2), [10]))
    await session.close()
    assert checked(library).consistent


async def test_partitions_that_contradict_each_other_are_read_only() -> None:
    library, drive, session, blocks, place = await with_one_archive()
    await store(session, archive_id(2), sealed(archive_id(2), [900_000]))
    await session.close()
    other = OtherProgram(library)
    end = next(at for at in range(len(other.tape(1)) - 4, 0, -1) if other.tape(1)[at] is None) + 1
    other.replace(1, end, [])
    session = await reopened(drive)
    assert len(await session.parts()) == 2
    await check(session, archive_id(1), place, blocks)
    assert not session.may_write
    assert "does not follow" in session.why_not
    with pytest.raises(errors.NotAllowedNow, match="does not follow"):
        await session.forget(frozenset({archive_id(1)}))
    before = other.tape(0), other.tape(1)
    await session.close()
    assert (other.tape(0), other.tape(1)) == before


async def test_labelling_that_was_interrupted_leaves_nothing_to_write_to() -> None:
    for crash_after in range(6):
        library = made(seed=crash_after)
        drive = await loaded(library)
        library.faults.kill_drive(0, after_records=crash_after)
        with pytest.raises(errors.Unavailable):
            await labelled(drive)
        library.faults.reset_drive(0)
        await drive.wait_ready(600)
        await drive.load()
        with contextlib.suppress(errors.RbError):
            session = await reopened(drive)
            assert await session.parts() == []
        session = await labelled(drive)
        await store(session, archive_id(1), sealed(archive_id(1), [10]))
        await session.close()
        assert checked(library).consistent


async def test_records_behind_the_last_index_are_kept_by_an_index_behind_them() -> None:
    library, drive, session, blocks, place = await with_one_archive()
    await session.close()
    other = OtherProgram(library)
    end = len(other.tape(1))
    lost = [random.Random(number).randbytes(BLOCK_BYTES) for number in range(3)]
    other.replace(1, end, [*lost, None, b'<?xml version="1.0" encoding="UTF-8"?><ltfsindex>'])
    session = await reopened(drive)
    await check(session, archive_id(1), place, blocks)
    await store(session, archive_id(2), sealed(archive_id(2), [10]))
    await session.close()
    assert checked(library).consistent
    assert other.tape(1)[end : end + 3] == lost


async def test_a_worn_cartridge_fails_and_keeps_what_was_ended() -> None:
    library, drive, session, blocks, place = await with_one_archive()
    library.faults.wear_out(TAG, writes_left=3)
    await session.begin_part(start(archive_id(2)))
    with pytest.raises(errors.MediumFailed):
        await session.write(list(sealed(archive_id(2), [900_000] * 6).values()))
    assert not session.may_write
    with pytest.raises(errors.NotAllowedNow, match="failed"):
        await session.end_part(next_tag="", ended_ns=9)
    await session.close()
    library.faults.wear_out(TAG)
    session = await reopened(drive)
    await check(session, archive_id(1), place, blocks)


# Early warning


@pytest.mark.parametrize("block_bytes", [1000, 400_000, 3_000_000])
async def test_at_the_end_of_the_cartridge_everything_still_fits(block_bytes: int) -> None:
    """Map and indexes stand behind early warning; and whatever was said to be on the cartridge is."""
    library = made(factor=8e-7)
    drive = await loaded(library)
    session = await labelled(drive)
    archive = archive_id(1)
    await session.begin_part(start(archive))
    blocks: dict[int, bytes] = {}
    written = None
    while written is None or not written.full:
        more = sealed(archive, [block_bytes] * max(1, 1_000_000 // block_bytes), first=len(blocks) * 2)
        blocks |= more
        written = await session.write(list(more.values()))
    place = await session.end_part(next_tag="VT0002L9", ended_ns=9)
    assert place.last_block == written.last_block
    await session.close()
    volume = checked(library)
    assert volume.consistent
    on_it = {number: block for number, block in blocks.items() if number <= written.last_block}
    assert volume.files[f"rbmedia/{archive.hex()}/000001.rba"].content == b"".join(on_it.values())
    session = await reopened(drive)
    assert session.full
    await check(session, archive, place, on_it)
    assert await session.forget(frozenset({archive})) == 1
    await session.close()
    assert checked(library).files == {}


@pytest.mark.parametrize("block_bytes", [1000, 400_000])
async def test_a_warning_that_comes_too_late_is_not_waited_for(block_bytes: int) -> None:
    """Where less stands behind the warning than map and indexes need, writing stops by what the drive says is left."""
    library = SimulatedLibrary(mechanics=NO_DELAY, capacity_factor=8e-7)
    library.add_cartridge(TAG, early_warning_bytes=1)
    drive = await loaded(library)
    session = await labelled(drive)
    archive = archive_id(1)
    await session.begin_part(start(archive))
    number, full = 0, False
    while not full:
        more = sealed(archive, [block_bytes] * max(1, 500_000 // block_bytes), first=number)
        full = (await session.write(list(more.values()))).full
        number = max(more) + 1
    place = await session.end_part(next_tag="", ended_ns=9)
    await session.close()
    assert checked(library).consistent
    assert place.stored_bytes > 10_000_000


async def test_blocks_that_were_not_looked_at_any_more_are_not_taken_for_written() -> None:
    library = made(factor=8e-7)
    drive = await loaded(library)
    session = await labelled(drive)
    archive = archive_id(1)
    await session.begin_part(start(archive))
    blocks = sealed(archive, [BLOCK_BYTES - 96] * 40)
    written = await session.write(list(blocks.values()))
    assert written.full
    assert 0 < written.last_block < max(blocks)
    assert await session.finish_part(root=ROOT, ended_ns=9) is None
    place = await session.end_part(next_tag="", ended_ns=9)
    assert place.last_block == written.last_block


# Forgetting, and other programs


async def test_what_is_forgotten_is_left_out_and_nothing_else() -> None:
    library = made()
    drive = await loaded(library)
    session = await labelled(drive)
    stored = {archive_id(number): sealed(archive_id(number), [9000], seed=number) for number in range(1, 5)}
    for archive, blocks in stored.items():
        await store(session, archive, blocks)
    gone = dict(await session.parts())[archive_id(2)]
    assert await session.forget(frozenset({archive_id(2), archive_id(77)})) == 1
    assert await session.forget(frozenset({archive_id(2)})) == 0
    assert [archive for archive, _ in await session.parts()] == [archive_id(number) for number in (1, 3, 4)]
    await check(session, archive_id(2), gone, stored[archive_id(2)])
    await session.close()
    assert {path.split("/")[1] for path in checked(library).files} == {archive_id(number).hex() for number in (1, 3, 4)}
    session = await reopened(drive)
    assert await session.forget(frozenset({archive_id(1)})) == 1
    await store(session, archive_id(5), sealed(archive_id(5), [10]))
    await session.close()
    assert {path.split("/")[1] for path in checked(library).files} == {archive_id(number).hex() for number in (3, 4, 5)}


async def test_files_and_elements_of_other_programs_are_kept_as_they_were() -> None:
    library = made()
    drive = await loaded(library)
    session = await labelled(drive)
    blocks = sealed(archive_id(1), [900_000])
    await store(session, archive_id(1), blocks)
    await session.close()
    other = OtherProgram(library)
    xml = other.last_index()
    end = len(other.tape(1))
    extent = "<extent><fileoffset>{}</fileoffset><partition>{}</partition><startblock>{}</startblock><byteoffset>{}</byteoffset><bytecount>{}</bytecount></extent>"
    file = (
        "<file><name>{}</name><fileuid>{}</fileuid><readonly>false</readonly>" + TIMES + "<length>{}</length>"
        "<extendedattributes><xattr><key>other.key</key><value type='base64'>AP8=</value></xattr></extendedattributes>"
        "<extentinfo>{}</extentinfo><otherfile kind='k'>kept &amp; whole</otherfile></file>"
    )
    sparse = extent.format(10, "b", end, 3, 20) + extent.format(700_000, "b", end, 0, 90)
    files = file.format("notes.txt", 101, 800_000, sparse) + file.format(
        "small", 102, 11, extent.format(0, "a", 4, 0, 11)
    )
    # The part's files were moved by somebody: they are known by their attributes.
    xml = xml.replace("000001.rba", "moved.bin").replace("<contents>", "<contents>" + files, 1)
    xml = xml.replace("<highestfileuid>5<", "<highestfileuid>102<")
    xml = xml.replace(
        "</highestfileuid>",
        "</highestfileuid><volumelockstate>unlocked</volumelockstate><comment>a comment</comment>"
        "<dataplacementpolicy><indexpartitioncriteria><size>1000</size><name>*.txt</name></indexpartitioncriteria></dataplacementpolicy>"
        "<otherelement a='1'><inner>text</inner></otherelement>",
    )
    assert "<highestfileuid>102<" in xml
    data = random.Random(5).randbytes(100)
    other.write(xml, data=[data], in_index_partition=[b"hello there"])
    before = checked(library)
    assert before.consistent
    session = await reopened(drive)
    ((archive, place),) = await session.parts()
    assert session.may_write
    await check(session, archive, place, blocks)
    await store(session, archive_id(2), sealed(archive_id(2), [10]))
    assert await session.forget(frozenset({archive_id(1)})) == 1
    await session.close()
    volume = checked(library)
    assert volume.consistent
    assert {path for path in volume.files if not path.startswith("rbmedia/")} == {"notes.txt", "small"}
    content = bytes(10) + data[3:23] + bytes(700_000 - 30) + data[:90] + bytes(800_000 - 700_090)
    assert volume.files["notes.txt"].content == content
    assert volume.files["small"].content == b"hello there"
    assert volume.files["small"].xattrs == {"other.key": b"\x00\xff"}
    last = volume.indexes["a"][-1].root
    assert last.findtext("comment") == "a comment"
    assert last.findtext("otherelement/inner") == "text"
    assert last.findtext("dataplacementpolicy/indexpartitioncriteria/size") == "1000"
    assert [one.text for one in last.iter("otherfile")] == ["kept & whole"] * 2


async def test_files_in_an_index_partition_without_an_index_are_not_overwritten() -> None:
    library = made(factor=1e-5)
    drive = await loaded(library)
    await (await labelled(drive)).close()
    other = OtherProgram(library)
    extent = "<fileoffset>0</fileoffset><partition>a</partition><startblock>4</startblock><byteoffset>0</byteoffset><bytecount>600000</bytecount>"
    file = f"<file><name>f</name><fileuid>2</fileuid><readonly>false</readonly>{TIMES}<length>600000</length><extentinfo><extent>{extent}</extent></extentinfo></file>"
    xml = (
        other.last_index()
        .replace("<contents>", "<contents>" + file)
        .replace("<highestfileuid>1<", "<highestfileuid>2<")
    )
    data = random.Random(5).randbytes(600_000)
    other.write(xml, data=[], in_index_partition=[data[:BLOCK_BYTES], data[BLOCK_BYTES:]])
    other.replace(0, 6, [None, b"<?xml"])
    session = await reopened(drive)
    await store(session, archive_id(1), sealed(archive_id(1), [10]))
    await session.close()
    volume = checked(library)
    assert volume.consistent
    assert volume.files["f"].content == data


async def test_a_locked_volume_and_one_with_our_name_taken_are_read_only() -> None:
    library = made()
    drive = await loaded(library)
    await (await labelled(drive)).close()
    other = OtherProgram(library)
    xml = other.last_index()
    locked = xml.replace("</highestfileuid>", "</highestfileuid><volumelockstate>permlocked</volumelockstate>")
    link = "<file><name>rbmedia</name><fileuid>2</fileuid><readonly>false</readonly>" + TIMES
    taken = xml.replace("<contents>", f"<contents>{link}<length>0</length></file>").replace(
        "<highestfileuid>1<", "<highestfileuid>2<"
    )
    for wrong, word in ((locked, "locked"), (taken, "file rbmedia")):
        other.write(wrong, data=[], in_index_partition=[])
        session = await reopened(drive)
        assert not session.may_write
        assert word in session.why_not


# Anything, in any order

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("store"), st.lists(st.integers(1, 1_200_000), max_size=4)),
        st.tuples(st.just("span"), st.lists(st.integers(1, 700_000), max_size=3)),
        st.tuples(st.just("sync"), st.lists(st.integers(1, 700_000), max_size=3)),
        st.tuples(st.just("read"), st.just([])),
        st.tuples(st.just("forget"), st.just([])),
        st.tuples(st.just("close"), st.just([])),
        st.tuples(st.just("reset"), st.just([])),
        st.tuples(st.just("crash"), st.lists(st.integers(0, 12), min_size=1, max_size=1)),
    ),
    max_size=14,
)


class Story:
    """A cartridge through a list of steps; ``stored`` is what was acknowledged."""

    def __init__(self, library: SimulatedLibrary, drive: Drive, session: LtfsSession) -> None:
        self.library, self.drive, self.session = library, drive, session
        self.stored: dict[bytes, dict[int, bytes]] = {}
        self.count = 0
        self.dies = False

    async def step(self, name: str, numbers: list[int]) -> None:
        if name == "crash":
            self.library.faults.kill_drive(0, after_records=numbers[0])
            self.dies = True
        elif name in ("store", "span", "sync"):
            await self.write(name, numbers)
        elif name == "read":
            for archive, place in await self.session.parts():
                if archive in self.stored:
                    assert await read_all(self.session, archive, place) == self.stored[archive]
        elif name == "forget" and self.stored and not self.session.why_not:
            archive = min(self.stored)
            del self.stored[archive]
            await self.session.forget(frozenset({archive}))
        elif name == "close":
            await self.session.close()
            self.session = await reopened(self.drive)
        elif name == "reset":
            self.library.faults.reset_drive(0)
            await self.drive.wait_ready(600)

    async def write(self, name: str, sizes: list[int]) -> None:
        if not self.session.may_write:
            return
        self.count += 1
        archive = archive_id(self.count)
        blocks = sealed(archive, sizes, seed=self.count)
        await self.session.begin_part(start(archive))
        last = -1
        for block in blocks.values():
            written = await self.session.write([block])
            if name == "sync":
                written = await self.session.sync()
            last = written.last_block
        place = await self.session.finish_part(root=ROOT, ended_ns=9) if name == "store" else None
        if place is None:
            place = await self.session.end_part(next_tag="", ended_ns=9)
            assert place.last_block >= last
        self.stored[archive] = {number: block for number, block in blocks.items() if number <= place.last_block}

    async def recover(self) -> None:
        """Whatever the drive did: afterwards it answers, and the cartridge is opened anew."""
        if self.dies:
            self.library.faults.kill_drive(0)
            self.dies = False
        self.session = await revived(self.library, self.drive)


@settings(max_examples=100, deadline=None)
@given(steps=STEPS, seed=st.integers(0, 1000))
async def test_whatever_happens_what_was_acknowledged_is_there(steps: list[tuple[str, list[int]]], seed: int) -> None:
    library = made(factor=1.2e-6, seed=seed)
    drive = await loaded(library)
    story = Story(library, drive, await labelled(drive))
    for name, numbers in steps:
        try:
            await story.step(name, numbers)
        except (errors.Unavailable, errors.PositionLost):
            await story.recover()
    await story.recover()
    for archive, blocks in story.stored.items():
        assert await read_all(story.session, archive, dict(await story.session.parts())[archive]) == blocks
    if story.session.may_write:
        await story.write("store", [1000])
    await story.session.close()
    volume = checked(library)
    assert volume.consistent or not story.session.may_write
    for archive, blocks in story.stored.items():
        assert volume.files[f"rbmedia/{archive.hex()}/000001.rba"].content == b"".join(blocks.values())
