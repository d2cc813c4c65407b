"""Many restores queued at once from several cartridges, with the real daemon and a real agent over a simulated library.

Shared by a test and by ``bench.tape mounts``, which does the same with a thousand of them.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import trio

from drivers.simulated.tape import NO_DELAY, SimulatedLibrary
from rbcore.commands import AddTapeLibrary, CreateRecord, QueueTapeTasks, TapeOrder
from rbcore.entities import Backup, LibrarySlot, TapeDrive, TapeTask
from rbcore.vocabulary import TERMINAL_STATUSES, PoolType, SlotType, TapeTaskType, TaskStatus
from tests.actors.house import House, house, start_agent


async def loads_by_queued_restores(
    path: Path, *, cartridges: int, backups_each: int, restores: int, seconds_max: float
) -> Counter[str]:
    """Volume tag -> how often the cartridge was loaded, as its own memory counts it, for all the restores together.

    Every cartridge has a pool of its own with ``backups_each`` small backups. No cartridge is in a drive when the restores are queued, and
    neighbours in the queue want different cartridges. All of them must be done, and give back what was backed up.
    """
    library = SimulatedLibrary(mechanics=NO_DELAY, capacity_factor=1e-5, drives=2, slots=cartridges + 2)
    for number in range(1, cartridges + 1):
        library.add_cartridge(f"VT{number:04d}L9")
    source = path / "source"
    source.mkdir(parents=True)
    async with house(path, library=library) as daemon, trio.open_nursery() as nursery:
        agent = await start_agent(nursery, path)
        client = await daemon.authorise(agent.hwid)
        await _add_library(daemon)
        backups: list[tuple[Backup, bytes]] = []
        for number in range(cartridges * backups_each):
            content = b"%d " % number * 1000
            (source / "file").write_bytes(content)
            backup = await daemon.backup(client, source, pool=f"Pool {number % cartridges + 1}")
            backups.append((backup, content))
        await _empty_the_drives(daemon)
        before = {one.card.barcode: one.card.loads for one in library.cartridges()}
        wanted: list[tuple[int, bytes]] = []
        for number in range(restores):
            backup, content = backups[number % len(backups)]
            wanted.append((await daemon.queue_restore(backup, path / "restored" / str(number)), content))
        with trio.fail_after(seconds_max):
            while not all(daemon.task(one).status in TERMINAL_STATUSES for one, _ in wanted):  # noqa: ASYNC110
                await trio.sleep(0.05)
        for number, (task_id, content) in enumerate(wanted):
            assert daemon.task(task_id).status == TaskStatus.DONE, daemon.task(task_id)
            [found] = (path / "restored" / str(number)).rglob("file")
            assert found.read_bytes() == content
        nursery.cancel_scope.cancel()
    return Counter({one.card.barcode: one.card.loads - before[one.card.barcode] for one in library.cartridges()})


async def _add_library(daemon: House) -> None:
    """A pool for each cartridge."""
    tape = daemon.actors.tape
    assert tape is not None
    candidates = await tape.candidates(automatic=True)
    changer = next(one for one in candidates if one.is_changer)
    found = await tape.describe(changer.facts.device, [one.facts.device for one in candidates if not one.is_changer])
    await _add_pool(daemon, "Pool 1")
    reply = await daemon.execute(
        AddTapeLibrary(
            pool="Pool 1",
            media_server="media-1",
            changer=found.changer,
            transport_element=found.transport_element,
            drives=found.drives,
            elements=found.elements,
        )
    )
    for number, tag in enumerate(sorted(reply.data["unknown"]), 1):
        if number > 1:
            await _add_pool(daemon, f"Pool {number}")
        fields = {"type": "LTO-9", "pool": f"Pool {number}", "volume_tag": tag}
        await daemon.execute(CreateRecord(resource="tape_cartridges", fields=fields))


async def _add_pool(daemon: House, name: str) -> None:
    fields = {"pool_name": name, "pool_type": PoolType.TAPE_NATIVE}
    await daemon.execute(CreateRecord(resource="pool_list", fields=fields))


async def _empty_the_drives(daemon: House) -> None:
    state = daemon.journal.state
    for drive in list(state.all(TapeDrive)):
        held = next((one for one in state.all(LibrarySlot) if one.address == drive.element_address), None)
        if held is None or not held.volume_tag:
            continue
        free = next(one for one in state.all(LibrarySlot) if one.type == SlotType.STORAGE and not one.is_full)
        order = TapeOrder(library_id=1, volume_tag=held.volume_tag, slot_id=free.id)
        reply = await daemon.execute(QueueTapeTasks(task_type=TapeTaskType.MOVE, orders=[order]))
        await daemon.until(lambda number=reply.ids[0]: _is_done(daemon, number), f"{held.volume_tag} is in a slot")  # type: ignore[misc]


def _is_done(daemon: House, number: int) -> bool:
    task = daemon.journal.state.find(TapeTask, number)
    return task is not None and task.status == TaskStatus.DONE
