"""Cartridges in drives when the daemon starts: brought back to their slots, or left, as the global configuration says."""

from __future__ import annotations

import pytest
import trio.testing

from drivers.simulated.tape import NO_DELAY, SimulatedLibrary
from eventlog.memory_store import MemoryStore
from rbcore.commands import ChangeConfiguration
from rbcore.entities import LibrarySlot, TapeDrive
from tests.tape_actors.site import running_site
from tests.tape_actors.test_site import check_places

KEY = "unload_tape_cartriges_whes_media_server_starts"
TAG = "VT0001L9"


@pytest.mark.parametrize(("value", "is_emptied"), [("yes", True), ("no", False)])
async def test_drives_are_emptied_at_start_when_that_is_configured(
    autojump_clock: trio.testing.MockClock, value: str, is_emptied: bool
) -> None:
    library, store = SimulatedLibrary(mechanics=NO_DELAY, capacity_factor=2e-6), MemoryStore()
    library.add_cartridge(TAG)
    async with running_site(library, store=store) as site:
        await site.execute(ChangeConfiguration(changes={KEY: value}))
        number = await site.write_archive([1000])
        blocks = site.archives[number]
        drive = site.one(TapeDrive, 1)
        assert in_drive(site.slot_of(TAG), drive), "it stays mounted for whoever comes next"
    async with running_site(library, store=store, seed=2) as site:
        if is_emptied:
            await site.until(lambda: not in_drive(site.slot_of(TAG), drive), "the drive is empty")
        # Whether it had to be mounted again or not, it is the cartridge that the log says.
        assert in_drive(site.slot_of(TAG), drive) is not is_emptied
        check_places(site)
        assert await site.read_archive(number) == blocks


def in_drive(slot: LibrarySlot | None, drive: TapeDrive) -> bool:
    assert slot is not None, "the cartridge is in the library"
    return slot.address == drive.element_address
