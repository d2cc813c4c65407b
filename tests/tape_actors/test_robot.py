"""A robot in trouble: what the log says of the library and its cartridges meanwhile, and how work goes on."""

from __future__ import annotations

import trio
import trio.testing

from drivers.simulated.tape import NO_DELAY, SimulatedLibrary
from rbcore.commands import QueueTapeWork
from rbcore.entities import TapeLibrary, Task
from rbcore.vocabulary import LibraryStatus, TapeTaskType
from tests.tape_actors.site import PutTask, running_site
from tests.tape_actors.test_site import check_places


async def test_a_robot_that_keeps_a_cartridge_is_out_of_use_and_the_cartridge_is_not_lost(
    autojump_clock: trio.testing.MockClock,
) -> None:
    library = SimulatedLibrary(mechanics=NO_DELAY, capacity_factor=2e-6)
    library.add_cartridge("VT0001L9")
    async with running_site(library) as site:
        library.faults.jam_next_move(in_hand=True)
        put = PutTask(task_type="Backup urgent", pool_id=2, library_id=1, archive="ab" * 16)
        task_id = (await site.execute(put)).ids[0]
        await site.execute(QueueTapeWork(task_type=TapeTaskType.WRITE, task_id=task_id, library_id=1))
        await site.until(lambda: site.suspended(task_id), "the task is told")
        assert "robot holds cartridge VT0001L9" in site.one(Task, task_id).status_reason
        assert site.one(TapeLibrary, 1).status != LibraryStatus.ONLINE
        slot = site.slot_of("VT0001L9")
        assert slot is not None, "it is in the library"

        library.faults.clear_jam()
        await site.until(lambda: site.one(TapeLibrary, 1).status == LibraryStatus.ONLINE, "it is asked again")
        number = await site.write_archive([1000])
        assert await site.read_archive(number) == site.archives[number]
        check_places(site)
