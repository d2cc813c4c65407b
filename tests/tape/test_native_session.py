"""Native cartridges in drives, against every library: what was acknowledged is there and is read as it was written, wherever the drive puts the tape."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from drivers.scsi.drive import LOCATE_16, READ_6, Drive
from drivers.scsi.iscsi import IscsiTransport
from drivers.simulated.tape import NO_DELAY, SimulatedLibrary
from drivers.tape import identify, label_cartridge, open_session, scan_cartridge
from rbcore import errors
from rbcore.tape.native import RECORD_BYTES_MIN
from rbcore.tape.session import CartridgeFormat, Contents, Written
from tests.tape import vtl
from tests.tape.libraries import NEEDS, LibraryUnderTest, need_target
from tests.tape.native_cases import (
    ROOT,
    Counted,
    archive_id,
    check,
    fresh,
    order,
    put_back,
    put_in,
    reopened,
    sealed,
    start,
    store,
)

POOR = (0x2B, 0x92, 0x34)
MEBIBYTE = 1 << 20


@contextlib.asynccontextmanager
async def small_target(directory: Path) -> AsyncIterator[LibraryUnderTest]:
    target = vtl.VirtualLibrary(directory, cartridge_mebibytes=3)
    transports: list[IscsiTransport] = []
    try:
        target.start()
        transports += [IscsiTransport(target.changer_url), IscsiTransport(target.drive_url(0))]
        yield LibraryUnderTest(transports[0], [transports[1]], ["VT0001L9", "VT0002L9"])
    finally:
        for transport in transports:
            await transport.aclose()
        target.stop()


@pytest.fixture(params=["poor", "simulated", "target"])
def small_kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    if kind in NEEDS:
        NEEDS[kind]()
    return kind


@pytest.fixture
async def small(small_kind: str, tmp_path: Path) -> AsyncIterator[LibraryUnderTest]:
    """Cartridges of three to four megabytes."""
    if small_kind == "target":
        async with small_target(tmp_path) as under_test:
            yield under_test
        return
    library = SimulatedLibrary(
        mechanics=NO_DELAY, capacity_factor=2e-7, drives_lack=POOR if small_kind == "poor" else ()
    )
    for barcode in ("SI0001L9", "SI0002L9"):
        library.add_cartridge(barcode)
    yield LibraryUnderTest(library.changer, list(library.drives), ["SI0001L9", "SI0002L9"])


async def test_archives_are_written_appended_and_read_in_any_order(library: LibraryUnderTest) -> None:
    drive = await put_in(library.changer, library.drives[0])
    assert (await identify(drive)).contents is Contents.BLANK
    session = await fresh(drive, record_bytes=RECORD_BYTES_MIN)
    sizes = [1, 100_000, 65_536, 300_000, 7, 8, 9, 200_000]
    kept = {}
    for number in (1, 2):
        archive = archive_id(number)
        blocks = sealed(archive, sizes, seed=number)
        kept[archive] = (await store(session, archive, blocks), blocks)
    for archive, (place, blocks) in kept.items():
        await check(session, archive, place, blocks)
    await session.close()
    await session.close()
    assert not session.may_write
    await put_back(library.changer, drive)

    drive = await put_in(library.changer, library.drives[0])
    identified = await identify(drive)
    assert (identified.contents, identified.volume_tag, identified.use) == (Contents.NATIVE, "RB0001L9", 1)
    session = await reopened(drive)
    assert await session.parts() == [(archive, place) for archive, (place, _) in kept.items()]
    archive = archive_id(3)
    blocks = sealed(archive, [500_000, 3], seed=3)
    kept[archive] = (await store(session, archive, blocks), blocks)
    await session.close()
    assert session.used_bytes == sum(place.stored_bytes for place, _ in kept.values())

    session = await reopened(drive)
    assert [archive for archive, _ in await session.parts()] == list(kept)
    for archive, (place, blocks) in reversed(kept.items()):
        reader = session.reader(archive, place)
        for number in reversed(blocks):
            assert await reader.read([number]) == blocks[number]
        assert await reader.read(list(blocks)) == b"".join(blocks.values())
        with pytest.raises(errors.NotFound, match="not in part"):
            await reader.read([1])


async def test_a_session_that_was_not_closed_is_taken_up_behind_its_last_part(library: LibraryUnderTest) -> None:
    drive = await put_in(library.changer, library.drives[0])
    session = await fresh(drive, record_bytes=RECORD_BYTES_MIN)
    one, two, three = (archive_id(number) for number in (1, 2, 3))
    blocks = {archive: sealed(archive, [70_000, 70_000], seed=archive[0]) for archive in (one, two, three)}
    places = {one: await store(session, one, blocks[one])}
    await session.close()
    session = await reopened(drive)
    places[two] = await store(session, two, blocks[two])
    await session.begin_part(start(three))
    await session.write(list(blocks[three].values()))
    assert await session.sync() == Written(last_block=2, full=False)

    session = await reopened(drive)
    assert dict(await session.parts()) == places
    places[three] = await store(session, three, blocks[three])
    await session.close()
    session = await reopened(drive)
    assert dict(await session.parts()) == places
    for archive, place in places.items():
        await check(session, archive, place, blocks[archive])


async def test_reading_between_the_writes_of_a_part(library: LibraryUnderTest) -> None:
    drive = await put_in(library.changer, library.drives[0])
    session = await fresh(drive, record_bytes=RECORD_BYTES_MIN)
    one, two = archive_id(1), archive_id(2)
    first, second = sealed(one, [70_000] * 3), sealed(two, [50_000] * 6, seed=2)
    place = await store(session, one, first)
    await session.begin_part(start(two))
    for number, block in second.items():
        await session.write([block])
        assert await session.reader(one, place).read([4]) == first[4], number
    later = await session.finish_part(root=ROOT, ended_ns=1)
    assert later is not None
    await check(session, two, later, second)
    await session.close()


async def test_an_archive_goes_on_on_another_cartridge(small: LibraryUnderTest) -> None:
    """As the layers above do it: what was not taken whole is written again, into the next part."""
    archive = archive_id(1)
    blocks = sealed(archive, [200_000] * 22)
    drive = await put_in(small.changer, small.drives[0])
    session = await fresh(drive, record_bytes=RECORD_BYTES_MIN)
    await session.begin_part(start(archive))
    written = Written(last_block=-1, full=False)
    for block in blocks.values():
        written = await session.write([block])
        if written.full:
            break
    assert written.full
    assert await session.write([blocks[42]]) == written, "nothing more is taken"
    assert (await session.sync()).last_block == written.last_block
    assert await session.finish_part(root=ROOT, ended_ns=1) is None
    first = await session.end_part(next_tag="RB0002L9", ended_ns=1)
    assert first.last_block == written.last_block
    assert session.full
    assert "full" in session.why_not
    with pytest.raises(errors.NotAllowedNow, match="full"):
        await session.begin_part(start(archive_id(2)))
    await session.close()
    assert dict(await (await reopened(drive)).parts()) == {archive: first}
    await put_back(small.changer, drive)

    drive = await put_in(small.changer, small.drives[0], cartridge=1)
    session = await fresh(drive, "RB0002L9", record_bytes=RECORD_BYTES_MIN)
    rest = {number: block for number, block in blocks.items() if number > first.last_block}
    await session.begin_part(
        start(
            archive,
            part=2,
            first_block=first.last_block + 1,
            blocks_before=first.blocks,
            stored_before=first.stored_bytes,
            previous_tag="RB0001L9",
            previous_cartridge=order().cartridge,
        )
    )
    assert not (await session.write(list(rest.values()))).full
    second = await session.finish_part(root=ROOT, ended_ns=1)
    assert second is not None
    assert first.blocks + second.blocks == len(blocks)
    await session.close()
    await check(session, archive, second, rest)
    await put_back(small.changer, drive, cartridge=1)

    drive = await put_in(small.changer, small.drives[0])
    session = await reopened(drive)
    taken = {number: block for number, block in blocks.items() if number <= first.last_block}
    await check(session, archive, first, taken)


@pytest.mark.parametrize("lacks", [(), POOR], ids=["all", "poor"])
async def test_early_warning_at_any_record_loses_nothing(lacks: tuple[int, ...]) -> None:
    """Among others on the last record of an archive, on its trailer, and on its filemark."""
    dropped = finished = 0
    for blocks_before in range(25, 56):
        library = SimulatedLibrary(mechanics=NO_DELAY, capacity_factor=2e-7, drives_lack=lacks)
        library.add_cartridge("EW0001L9")
        drive = await put_in(library.changer, library.drives[0])
        session = await fresh(drive, record_bytes=RECORD_BYTES_MIN)
        archive = archive_id(1)
        blocks = sealed(archive, [65_280] * blocks_before + [10, 20])
        await session.begin_part(start(archive))
        written = await session.write(list(blocks.values()))
        place = await session.finish_part(root=ROOT, ended_ns=1)
        dropped += place is None
        finished += place is not None
        if place is None:
            place = await session.end_part(next_tag="", ended_ns=1)
            assert not place.final
            assert place.last_block >= written.last_block
        await session.close()
        session = await reopened(drive)
        assert dict(await session.parts()) == {archive: place}
        await check(session, archive, place, {n: one for n, one in blocks.items() if n <= place.last_block})
    assert dropped
    assert finished


async def test_writing_stops_by_itself_where_a_target_knows_no_end(library: LibraryUnderTest) -> None:
    drive = await put_in(library.changer, library.drives[0])
    session = await fresh(drive, record_bytes=RECORD_BYTES_MIN, capacity_bytes=3 * MEBIBYTE)
    archive = archive_id(1)
    await session.begin_part(start(archive))
    blocks = sealed(archive, [100_000] * 40)
    written = await session.write(list(blocks.values()))
    assert written.full
    place = await session.end_part(next_tag="", ended_ns=1)
    assert MEBIBYTE < place.stored_bytes < 3 * MEBIBYTE
    assert session.full
    await session.close()


async def test_labelling_again_disowns_what_was_there(library: LibraryUnderTest) -> None:
    drive = await put_in(library.changer, library.drives[0])
    session = await fresh(drive)
    archive = archive_id(1)
    blocks = sealed(archive, [100_000] * 3)
    place = await store(session, archive, blocks)
    await session.close()
    before = await identify(drive)
    again = await label_cartridge(drive, order("RB0009L9", seed=9), before, CartridgeFormat.NATIVE)
    now = await identify(drive)
    assert (now.volume_tag, now.cartridge, now.use) == ("RB0009L9", before.cartridge, 2)
    assert await again.parts() == []
    opened = await open_session(drive, now)
    assert await opened.parts() == []
    assert opened.used_bytes == 0
    with pytest.raises(errors.Damaged, match="ends before"):
        await opened.reader(archive, place).read([0])
    with pytest.raises(errors.PositionLost, match="Identify"):
        await open_session(drive, before)
    with pytest.raises(errors.NotAllowedNow, match="Look at it again"):
        await label_cartridge(drive, order(), before, CartridgeFormat.NATIVE)
    await session.close()


async def test_a_part_needs_to_be_open_and_only_one_is(library: LibraryUnderTest) -> None:
    drive = await put_in(library.changer, library.drives[0])
    session = await fresh(drive)
    for attempt in (session.write([]), session.sync(), session.end_part(next_tag="", ended_ns=1)):
        with pytest.raises(errors.NotAllowedNow, match="No part"):
            await attempt
    archive = archive_id(1)
    with pytest.raises(errors.InvalidRequest, match="cannot stand"):
        await session.begin_part(start(archive, previous_tag="T" * 41))
    await session.begin_part(start(archive))
    with pytest.raises(errors.NotAllowedNow, match="open"):
        await session.begin_part(start(archive_id(2)))
    with pytest.raises(errors.NotAllowedNow, match="end it before"):
        await session.close()
    for wrong in (sealed(archive_id(2), [5])[0], b"no block", sealed(archive, [500])[0][:-1]):
        with pytest.raises(errors.ProtocolViolation):
            await session.write([wrong])
    blocks = sealed(archive, [5, 6])
    await session.write([blocks[0]])
    with pytest.raises(errors.ProtocolViolation):
        await session.write([blocks[0]])
    await session.write([blocks[2]])
    place = await session.finish_part(root=ROOT, ended_ns=1)
    assert place is not None
    assert not session.part_open
    await check(session, archive, place, blocks)
    assert await session.forget(frozenset({archive})) == 0


async def test_a_scan_tells_the_same_as_the_session(library: LibraryUnderTest) -> None:
    drive = await put_in(library.changer, library.drives[0])
    session = await fresh(drive, record_bytes=RECORD_BYTES_MIN)
    blocks = {archive_id(number): sealed(archive_id(number), [90_000] * 5, seed=number) for number in (1, 2, 3)}
    places = [await store(session, archive, of_it) for archive, of_it in blocks.items()]
    await session.close()
    for quick in (True, False):
        seen: list[tuple[int, int]] = []
        contents = await scan_cartridge(drive, quick=quick, progress=lambda *at, seen=seen: seen.append(at))
        assert contents.findings == []
        assert [(part.archive, part.position, part.records) for part in contents.parts] == [
            (archive, place.position, place.records) for archive, place in zip(blocks, places, strict=True)
        ]
        assert contents.append is not None
        assert seen == sorted(seen)
        if not quick:
            assert [len(part.places) for part in contents.parts] == [5, 5, 5]
            assert seen[-1][1] > 15 * 90_000


async def test_reading_forward_streams_and_a_little_back_is_remembered() -> None:
    library = SimulatedLibrary(mechanics=NO_DELAY, capacity_factor=2e-6)
    library.add_cartridge("RD0001L9")
    drive = await put_in(library.changer, library.drives[0])
    session = await fresh(drive, record_bytes=RECORD_BYTES_MIN)
    archive = archive_id(1)
    blocks = sealed(archive, [60_000] * 100)
    place = await store(session, archive, blocks)
    await session.close()

    counted = Counted(library.drives[0])
    session = await reopened(
        Drive(counted), memory_bytes=10 * RECORD_BYTES_MIN, read_through_bytes=20 * RECORD_BYTES_MIN
    )
    assert sum(counted.commands.values()) < 30, "label, end of data, index"
    reader = session.reader(archive, place)
    await reader.index()

    async def locates(numbers: list[int]) -> int:
        before = counted.commands[LOCATE_16]
        for number in numbers:
            assert await reader.read([number]) == blocks[number]
        return counted.commands[LOCATE_16] - before

    assert await locates(list(blocks)) == 1
    assert await locates([4, 0, 10, 6, 2, 16, 12, 14]) <= 2
    assert await locates([20, 40]) == 0, "a little ahead"
    assert await locates([190]) == 1, "far ahead"
    assert await locates([100]) == 1, "back"
    before = counted.commands[READ_6]
    assert (await scan_cartridge(Drive(counted))).parts[0].skipped
    assert counted.commands[READ_6] - before < 12, "containers are passed over"


async def test_a_cancelled_write_ends_the_writing_and_not_the_reading() -> None:
    library = SimulatedLibrary(mechanics=NO_DELAY, capacity_factor=2e-6)
    library.add_cartridge("CA0001L9")
    drive = await put_in(library.changer, library.drives[0])
    session = await fresh(drive, record_bytes=RECORD_BYTES_MIN)
    archive = archive_id(1)
    blocks = sealed(archive, [100_000] * 4)
    place = await store(session, archive, blocks)
    await session.begin_part(start(archive_id(2)))
    with trio.CancelScope() as scope:
        scope.cancel()
        await session.write(list(sealed(archive_id(2), [100_000] * 4).values()))
    assert scope.cancelled_caught
    assert not session.may_write
    assert not session.part_open
    assert "interrupted" in session.why_not
    with trio.CancelScope() as scope:
        scope.cancel()
        await session.reader(archive, place).read([0])
    await check(session, archive, place, blocks)
    await session.close()
    session = await reopened(drive)
    assert dict(await session.parts()) == {archive: place}
    await store(session, archive_id(2), sealed(archive_id(2), [5]))
    await session.close()


async def test_a_target_that_is_killed_in_mid_write(tmp_path: Path) -> None:
    need_target()
    archive, lost = archive_id(1), archive_id(2)
    blocks = sealed(archive, [300_000] * 5)
    target = vtl.VirtualLibrary(tmp_path)
    try:
        target.start()
        changer, transport = IscsiTransport(target.changer_url), IscsiTransport(target.drive_url(0))
        session = await fresh(await put_in(changer, transport))
        place = await store(session, archive, blocks)
        await session.begin_part(start(lost))
        await session.write(list(sealed(lost, [900_000] * 10).values()))
        target.kill()
        with pytest.raises(errors.Unavailable):
            await session.write(list(sealed(lost, [900_000] * 10, first=20).values()))
        assert not session.may_write
        await session.close()
        for one in (changer, transport):
            await one.aclose()
        target.start()
        changer, transport = IscsiTransport(target.changer_url), IscsiTransport(target.drive_url(0))
        session = await reopened(await put_in(changer, transport))
        assert dict(await session.parts()) == {archive: place}
        await check(session, archive, place, blocks)
        again = await store(session, lost, sealed(lost, [900_000] * 3))
        await session.close()
        await check(session, lost, again, sealed(lost, [900_000] * 3))
        for one in (changer, transport):
            await one.aclose()
    finally:
        target.stop()
