"""Native cartridges in drives, against every library: what was acknowledged is there, after everything that happens to drives and cartridges."""

from __future__ import annotations

import pytest

from drivers.tape.identify import identify
from rbcore import errors
from rbcore.tape.session import Contents
from tests.tape.libraries import LibraryUnderTest
from tests.tape.native_cases import (
    archive_id,
    check,
    fresh,
    put_back,
    put_in,
    reopened,
    sealed,
    store,
)

RECORD_BYTES = 65_536


async def test_archives_are_written_appended_and_read_in_any_order(library: LibraryUnderTest) -> None:
    drive = await put_in(library.changer, library.drives[0])
    assert (await identify(drive)).contents is Contents.BLANK
    session = await fresh(drive, record_bytes=RECORD_BYTES)
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
