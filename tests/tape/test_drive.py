"""The drive's commands, against every library: what was written comes back, and the tape stands where we say it stands."""

from __future__ import annotations

import contextlib
import random

import pytest

from drivers.scsi.changer import Changer, ElementType
from drivers.scsi.drive import Drive, Found
from drivers.scsi.drive_pages import REST_OF_TAPE
from rbcore import errors
from tests.tape.libraries import LibraryUnderTest

MEBIBYTE = 1 << 20


def block(number: int, length: int = 1000) -> bytes:
    return random.Random(number).randbytes(length)


async def loaded(library: LibraryUnderTest, cartridge: int = 0) -> Drive:
    """The first drive with a blank cartridge, at its beginning."""
    changer = Changer(library.changer)
    await changer.wait_ready(60)
    parts = await changer.element_addresses()
    await changer.move(parts[ElementType.STORAGE].first + cartridge, parts[ElementType.DRIVE].first)
    drive = Drive(library.drives[0])
    await drive.probe()
    await drive.load()
    return drive


async def test_an_empty_drive_says_so(library: LibraryUnderTest) -> None:
    drive = Drive(library.drives[1])
    capabilities = await drive.probe()
    assert capabilities.identity.device_type == 1
    assert capabilities.block_limits.maximum_bytes >= MEBIBYTE
    with pytest.raises(errors.NoCartridge, match="Load"):
        await drive.wait_ready(5)
    with pytest.raises(errors.NoCartridge):
        await drive.rewind()


async def test_nothing_is_read_or_written_before_the_position_is_known(library: LibraryUnderTest) -> None:
    await loaded(library)
    newcomer = Drive(library.drives[0])
    for attempt in (newcomer.read(100), newcomer.write(b"x"), newcomer.write_filemarks(1), newcomer.space_blocks(1)):
        with pytest.raises(errors.PositionLost, match="Rewind"):
            await attempt
    await newcomer.rewind()
    assert await newcomer.write(b"now") is False


async def test_blocks_of_any_length_and_filemarks_come_back(library: LibraryUnderTest) -> None:
    drive = await loaded(library)
    lengths = [4, 5, 512, 1000, 65536, MEBIBYTE]
    for number, length in enumerate(lengths):
        assert await drive.write(block(number, length)) is False
    await drive.write_filemarks(2)
    await drive.write(memoryview(bytearray(b"behind")))
    await drive.flush()
    await drive.rewind()
    for number, length in enumerate(lengths):
        result = await drive.read(MEBIBYTE)
        assert (result.found, result.data) == (Found.BLOCK, block(number, length))
    found = [await drive.read(MEBIBYTE) for _ in range(4)]
    assert [result.found for result in found] == [Found.FILEMARK, Found.FILEMARK, Found.BLOCK, Found.END_OF_DATA]
    assert found[2].data == b"behind"
    position = await drive.position()
    assert position is not None
    assert (position.object_number, position.file_number) == (len(lengths) + 3, 2)


async def test_a_block_longer_than_asked_for_is_told_and_passed(library: LibraryUnderTest) -> None:
    drive = await loaded(library)
    await drive.write(block(1, 5000))
    await drive.write(b"next")
    await drive.rewind()
    with pytest.raises(errors.TooLarge) as caught:
        await drive.read(4096)
    assert caught.value.data["block_bytes"] == 5000
    assert (await drive.read(4096)).data == b"next"
    await drive.locate(0)
    assert (await drive.read(5000)).data == block(1, 5000)


async def test_fixed_blocks(library: LibraryUnderTest) -> None:
    drive = await loaded(library)
    await drive.set_block_bytes(512)
    data = block(7, 512 * 20)
    await drive.write(data)
    assert drive.counted_position is not None
    assert drive.counted_position.object_number == 20
    await drive.write_filemarks(1)
    await drive.rewind()
    assert (await drive.read(512 * 15)).data == data[: 512 * 15]
    result = await drive.read(512 * 5)
    assert (result.found, result.data) == (Found.BLOCK, data[512 * 15 :])
    assert (await drive.read(512)).found is Found.FILEMARK
    await drive.rewind()
    await drive.set_block_bytes(0)
    assert (await drive.read(MEBIBYTE)).data == data[:512]


async def test_locate_finds_every_object_from_everywhere(library: LibraryUnderTest) -> None:
    drive = await loaded(library)
    objects: list[bytes | None] = []
    order = random.Random(5)
    for number in range(40):
        content = None if order.random() < 0.3 else block(number, 200)
        objects.append(content)
        await (drive.write_filemarks(1) if content is None else drive.write(content))
    for number in [order.randrange(len(objects)) for _ in range(25)] + [0, len(objects) - 1]:
        await drive.locate(number)
        result = await drive.read(4096)
        assert (result.data or None) == objects[number], number
        assert result.found is (Found.FILEMARK if objects[number] is None else Found.BLOCK)
    with pytest.raises(errors.NotFound, match="ends before"):
        await drive.locate(len(objects) + 5)
    await drive.locate(3)
    assert ((await drive.read(4096)).data or None) == objects[3]
    await drive.locate(len(objects))
    await drive.write(b"at the end")
    await drive.locate(len(objects) - 1)
    assert ((await drive.read(4096)).data or None) == objects[-1]
    assert (await drive.read(4096)).data == b"at the end"


async def test_files_are_found_by_their_number(library: LibraryUnderTest) -> None:
    drive = await loaded(library)
    for number in range(4):
        await drive.write(block(number))
        await drive.write(block(number + 100))
        await drive.write_filemarks(1)
    for number in (2, 0, 3, 1):
        await drive.locate_file(number)
        assert (await drive.read(4096)).data == block(number)
    with pytest.raises(errors.NotFound, match="fewer than"):
        await drive.locate_file(9)


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 200])
async def test_appending_goes_on_at_the_end_of_data(library: LibraryUnderTest, count: int) -> None:
    drive = await loaded(library)
    for number in range(count):
        await (drive.write_filemarks(1) if number % 7 == 6 else drive.write(block(number, 50)))
    await drive.rewind()
    assert (await drive.space_to_end()).object_number == count
    await drive.write(b"appended")
    await drive.locate(count)
    assert (await drive.read(100)).data == b"appended"
    assert (await drive.read(100)).found is Found.END_OF_DATA


async def test_a_write_in_the_middle_ends_the_tape_there(library: LibraryUnderTest) -> None:
    drive = await loaded(library)
    for number in range(6):
        await drive.write(block(number))
    await drive.locate(2)
    await drive.write(b"new end")
    assert (await drive.read(4096)).found is Found.END_OF_DATA
    assert (await drive.space_to_end()).object_number == 3


async def test_early_warning_is_returned_and_the_block_is_there(library: LibraryUnderTest) -> None:
    drive = await loaded(library)
    written, data = 0, block(1, MEBIBYTE)
    while not await drive.write(data):
        written += 1
        assert written < 1000
    await drive.write_filemarks(1)
    assert drive.counted_position is not None
    assert drive.counted_position.object_number == written + 2
    await drive.locate(written)
    assert (await drive.read(MEBIBYTE)).data == data
    assert (await drive.read(MEBIBYTE)).found is Found.FILEMARK


async def test_short_erase_leaves_nothing_to_read(library: LibraryUnderTest) -> None:
    drive = await loaded(library)
    await drive.write(block(1))
    await drive.write(block(2))
    erased = await drive.erase(long=False)
    result = await drive.read(4096)
    assert result.found is (Found.END_OF_DATA if erased else Found.FILEMARK)
    if not erased:
        assert (await drive.read(4096)).found is Found.END_OF_DATA
        with pytest.raises(errors.UnsupportedByDevice):
            await drive.erase(long=True)


async def test_pages_are_there_or_said_not_to_be(library: LibraryUnderTest) -> None:
    drive = await loaded(library)
    capabilities = await drive.probe()
    assert await drive.is_write_protected() is False
    assert await drive.partitions_max() == capabilities.partitions_max
    if capabilities.compression:
        for on in (True, False):
            await drive.set_compression(on)
            assert await drive.compression() is on
    else:
        with pytest.raises(errors.UnsupportedByDevice):
            await drive.set_compression(True)
    for present, ask in (
        (capabilities.tape_alert, drive.tape_alerts),
        (capabilities.volume_statistics, drive.volume_statistics),
        (capabilities.cartridge_memory, drive.read_attributes),
        (capabilities.encryption, drive.encryption_status),
    ):
        if present:
            await ask()
        else:
            with pytest.raises(errors.Refused):
                await ask()


async def test_partitions_are_made_or_said_not_to_be_possible(library: LibraryUnderTest) -> None:
    drive = await loaded(library)
    await drive.write(b"old")
    capabilities = await drive.probe()
    if capabilities.partitions_max == 1 or not capabilities.formats:
        with pytest.raises(errors.UnsupportedByDevice):
            await drive.format_medium([1, REST_OF_TAPE])
        return
    await drive.format_medium([1, REST_OF_TAPE])
    assert (await drive.read(100)).found is Found.END_OF_DATA
    for partition in (1, 0):
        await drive.locate(0, partition)
        await drive.write(b"partition %d" % partition)
        await drive.write_filemarks(1)
        position = await drive.position()
        assert position is not None
        assert (position.partition, position.object_number) == (partition, 2)
    for partition in (1, 0):
        await drive.locate(0, partition)
        assert (await drive.read(100)).data == b"partition %d" % partition
    await drive.format_medium()
    assert (await drive.read(100)).found is Found.END_OF_DATA
    with pytest.raises(errors.RbError):
        await drive.locate(0, 1)


async def test_the_physical_end_is_an_error_where_it_is_one(library: LibraryUnderTest) -> None:
    """Some drives take data for ever after early warning; where the end is reported, what was written before it is there."""
    drive = await loaded(library)
    data = block(1, MEBIBYTE // 2)
    written = 0
    while not await drive.write(data):
        written += 1
    with contextlib.suppress(errors.EndOfMedium):
        for _ in range(40):
            written += 1
            await drive.write(data)
        return
    await drive.locate(written - 1)
    assert (await drive.read(MEBIBYTE)).data == data
    assert (await drive.space_to_end()).object_number >= written


async def test_unloading_and_loading_keeps_the_data(library: LibraryUnderTest) -> None:
    drive = await loaded(library)
    await drive.write(block(9))
    await drive.unload()
    assert drive.counted_position is None
    changer = Changer(library.changer)
    parts = await changer.element_addresses()
    home, first = parts[ElementType.STORAGE].first, parts[ElementType.DRIVE].first
    await changer.move(first, home)
    await changer.move(home, first + 1)
    other = Drive(library.drives[1])
    await other.load()
    assert (await other.read(4096)).data == block(9)


@pytest.mark.parametrize("seed", range(4))
async def test_any_history_reads_back_like_a_list(library: LibraryUnderTest, seed: int) -> None:
    """The tape is a list of objects (blocks, and None for filemarks) and an index into it, whatever the drive can or cannot do."""
    drive, draw = await loaded(library), random.Random(seed)
    tape: list[bytes | None] = []
    at = 0
    for step in range(150):
        match draw.choices(["write", "mark", "read", "locate", "end", "rewind", "file"], [9, 3, 8, 5, 1, 1, 1])[0]:
            case "write":
                data = block(step, draw.choice([1, 4, 100, 5000]) + 3)
                await drive.write(data)
                tape[at:], at = [data], at + 1
            case "mark":
                count = draw.randint(1, 2)
                await drive.write_filemarks(count)
                tape[at:], at = [None] * count, at + count
            case "read":
                result = await drive.read(6000)
                if at == len(tape):
                    assert result.found is Found.END_OF_DATA
                else:
                    assert (result.data if result.found is Found.BLOCK else None) == tape[at]
                    at += 1
            case "locate":
                at = draw.randint(0, len(tape))
                await drive.locate(at)
            case "end":
                at = len(tape)
                assert (await drive.space_to_end()).object_number == at
            case "rewind":
                at = 0
                await drive.rewind()
            case "file":
                marks = [index for index, content in enumerate(tape) if content is None]
                number = draw.randint(0, len(marks))
                at = marks[number - 1] + 1 if number else 0
                await drive.locate_file(number)
        counted = drive.counted_position
        assert counted is None or counted.object_number == at, step
