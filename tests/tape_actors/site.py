"""A journal and the actors of tape libraries over a simulated library, with tasks that are in need of cartridges by a command of the tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import trio
from msgspec.structs import replace as changed

from actors.bus import Bus
from actors.journal import JournalActor
from actors.port import ArchiveSource
from actors.tape.libraries import TapeSite
from drivers.directory_store import DirectoryStore, initialise_catalog
from drivers.simulated.tape import SimulatedLibrary
from drivers.simulated.tape.devices import SimulatedDevices
from drivers.simulated.volume import SimulatedVolume
from drivers.simulated.world import SimulatedWorld
from eventlog.memory_log import open_memory_log
from eventlog.memory_store import MemoryStore
from rbcore.commands import (
    AddTapeLibrary,
    AdvanceTask,
    Context,
    CreateRecord,
    Initialise,
    Order,
    QueueTapeWork,
    RecoverTapeTasks,
    Reply,
)
from rbcore.decide import decide
from rbcore.decide.decision import Decision, Draft
from rbcore.entities import Backup, LibrarySlot, TapeCartridge, TapeDrive, TapeLibrary, TapeTask, Task
from rbcore.errors import Unavailable
from rbcore.events import BackupPlaced, BackupRecorded, TaskAssigned, TaskPlaced, TaskQueued, TaskStatusChanged
from rbcore.state import State
from rbcore.vocabulary import LibraryStatus, PoolType, TapeTaskType, TaskStatus
from tests.archive.samples import sealed_archive

SERVER_ID = "0123456789abcdef"


class PutTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task that is Assigned to the library, as dispatching would leave it."""

    task_type: str
    pool_id: int
    library_id: int
    archive: str = ""
    backup_id: int = 0


class PutBackup(msgspec.Struct, frozen=True, kw_only=True):
    task_id: int
    library_id: int
    archive: str
    root: str
    parts: list[dict[str, Any]]


def decide_for_tests(state: State, command: Any, context: Context) -> Decision:
    if isinstance(command, PutTask):
        draft = Draft(state)
        task_id = draft.take_id(Task)
        queued = TaskQueued(
            task_type=command.task_type,
            resource_type="File system",
            resource="/data",
            backup_type="full",
            client_id=0,
            pool_id=command.pool_id,
            crypto="nocrypt",
            priority=100,
            storage_duration="1 year",
            archiving=False,
            backup_id=command.backup_id,
            parameters={},
            restarted_from=0,
        )
        draft.add(Task, task_id, queued)
        assigned = TaskAssigned(1, command.pool_id, 0, "full", 0, command.archive, "test", [])
        draft.add(Task, task_id, assigned)
        draft.add(Task, task_id, TaskPlaced(command.library_id))
        return draft.decision(ids=[task_id])
    if isinstance(command, PutBackup):
        draft = Draft(state)
        task = state.tables["task"][command.task_id]
        backup_id = draft.take_id(Backup)
        recorded = BackupRecorded(
            archive=command.archive,
            ref_id=0,
            client_id=0,
            resource_type="File system",
            resource="/data",
            backup_type="full",
            pool_id=task.pool_id,
            local_catalog_id=0,
            media_server_id=1,
            task_id=task.id,
            started_ns=0,
            archive_size=0,
            data_size=0,
            files=0,
            problems=0,
            blocks=0,
            root=command.root,
            signature="",
            crypto="nocrypt",
            compression="fast",
            key_id="",
            store_until_ns=0,
        )
        draft.add(Backup, backup_id, recorded)
        draft.add(Backup, backup_id, BackupPlaced(command.library_id, command.parts))
        draft.add(Task, task.id, TaskStatusChanged(task.status, TaskStatus.DONE, "test"))
        return draft.decision(ids=[backup_id])
    return decide(state, command, context)


@dataclass
class Site:
    """One life of the daemon's tape part."""

    journal: JournalActor
    tape: TapeSite
    library: SimulatedLibrary
    world: SimulatedWorld
    archives: dict[int, list[bytes]] = field(default_factory=dict)
    """Backup id -> its blocks."""

    @property
    def state(self) -> State:
        return self.journal.state

    async def execute(self, command: Any) -> Reply:
        name = self.world.randomness.token_bytes(8).hex()
        return await self.journal.execute(Order(command=command, command_id=name, actor="user:test"))

    async def until(self, condition: Callable[[], bool], what: str, seconds: float = 100_000.0) -> None:
        with trio.move_on_after(seconds):
            while not condition():  # noqa: ASYNC110  (not all of it is in the log, and time is virtual)
                await trio.sleep(0.25)
            return
        tasks = [f"{one.id} {one.task_type} {one.status}: {one.status_reason}" for one in self.state.all(TapeTask)]
        drives = [f"{one.id} {one.status} {one.cartridge_id} {one.status_reason}" for one in self.state.all(TapeDrive)]
        raise AssertionError(f"never came: {what}; {tasks}; {drives}; {self.tape!r}")

    # --- things ------------------------------------------------------------------------------------------------------------

    def one(self, kind: Any, id: int) -> Any:
        found = self.state.find(kind, id)
        assert found is not None, f"{kind.__name__} {id}"
        return found

    def cartridge(self, tag: str) -> TapeCartridge:
        found = self.state.by_key(TapeCartridge, tag)
        assert found is not None, tag
        return found

    def slot_of(self, tag: str) -> LibrarySlot | None:
        return self.state.find(LibrarySlot, self.cartridge(tag).slot_id)

    async def tape_task_ended(self, number: int) -> TapeTask:
        ended = (TaskStatus.DONE, TaskStatus.ERROR, TaskStatus.KILLED)
        await self.until(lambda: self.one(TapeTask, number).status in ended, f"tape task {number} ends")
        found: TapeTask = self.one(TapeTask, number)
        return found

    # --- archives ----------------------------------------------------------------------------------------------------------

    async def write_archive(
        self, sizes: list[int], *, pool_id: int = 2, library_id: int = 1, pause_seconds: float = 0.0
    ) -> int:
        """A new archive of blocks with these payload sizes (a manifest and a trailer are added); the backup's id. ``pause_seconds``: before each."""
        archive = self.world.randomness.token_bytes(16)
        task_id = (
            await self.execute(
                PutTask(task_type="Backup urgent", pool_id=pool_id, library_id=library_id, archive=archive.hex())
            )
        ).ids[0]
        await self.execute(QueueTapeWork(task_type=TapeTaskType.WRITE, task_id=task_id, library_id=library_id))
        await self.until(lambda: self.granted(task_id) or self.suspended(task_id), f"task {task_id} may write")
        if self.suspended(task_id):
            raise Unavailable(self.one(Task, task_id).status_reason)
        blocks = make_blocks(archive, sizes, self.world.randomness.token_bytes)
        async with self.tape.writer(self.one(Task, task_id), archive.hex()) as sink:
            for block in blocks:
                if pause_seconds:
                    await trio.sleep(pause_seconds)
                await sink.write([block], sync=False)
            summary = await sink.finish()
            parts = [changed(one) for one in sink.parts]
        raw = [{name: getattr(one, name) for name in one.__struct_fields__} for one in parts]
        reply = await self.execute(
            PutBackup(task_id=task_id, library_id=library_id, archive=archive.hex(), root=summary.root.hex(), parts=raw)
        )
        self.archives[reply.ids[0]] = blocks
        return reply.ids[0]

    def granted(self, task_id: int) -> bool:
        return any(
            one.parent_task_id == task_id and one.status == TaskStatus.EXECUTION for one in self.state.all(TapeTask)
        )

    def suspended(self, task_id: int) -> bool:
        return bool(self.one(Task, task_id).status == TaskStatus.SUSPENDED)

    async def read_archive(self, backup_id: int, *, medium_only: bool = False) -> list[bytes]:
        """All blocks of a backup, by a task of its own."""
        async with self._reading(backup_id, medium_only=medium_only) as source:
            return [await source.read([number]) for number in await source.block_numbers()]

    async def read_structure(self, backup_id: int) -> tuple[bytes, bytes]:
        """Manifest and trailer blocks."""
        async with self._reading(backup_id) as source:
            manifest, trailer = await source.manifest_blocks(), await source.trailer_block()
            return await source.read(manifest), await source.read([trailer])

    @asynccontextmanager
    async def _reading(self, backup_id: int, *, medium_only: bool = False) -> AsyncIterator[ArchiveSource]:
        backup: Backup = self.one(Backup, backup_id)
        task_id = (
            await self.execute(
                PutTask(task_type="Restore", pool_id=backup.pool_id, library_id=backup.library_id, backup_id=backup_id)
            )
        ).ids[0]
        try:
            async with self.tape.reader(backup, task_id, medium_only=medium_only) as source:
                yield source
        finally:
            await self.execute(AdvanceTask(task_id=task_id, status=TaskStatus.ERROR, reason="the test has read"))


def make_blocks(archive: bytes, sizes: list[int], draw: Callable[[int], bytes]) -> list[bytes]:
    return sealed_archive([draw(size) for size in [*sizes, 500, 300]], archive=archive.hex())


@asynccontextmanager
async def running_site(
    library: SimulatedLibrary,
    *,
    store: MemoryStore | None = None,
    seed: int = 1,
    cartridges: bool = True,
    pool_type: str = PoolType.TAPE_NATIVE,
    kept: SimulatedVolume | None = None,
    make: type[Site] = Site,
) -> AsyncIterator[Site]:
    """The library is added and its cartridges are registered, unless the store knows it already."""
    world = SimulatedWorld.of_seed(seed)
    volume = kept or SimulatedVolume()

    def open_kept() -> DirectoryStore:
        initialise_catalog(volume, "kept")
        return DirectoryStore(volume, "kept")

    async with open_memory_log(store or MemoryStore()) as log, trio.open_nursery() as nursery:
        journal = JournalActor(log, world, decide=decide_for_tests)
        await journal.recover()
        tape = TapeSite(
            journal,
            Bus("local", world),
            world,
            SimulatedDevices([library]),
            open_kept,
            server_id=SERVER_ID,
            software="rbmedia test",
        )
        site = make(journal, tape, library, world)
        await site.execute(RecoverTapeTasks())
        nursery.start_soon(tape.run)
        if not any(True for _ in journal.state.all(TapeLibrary)):
            await add_library(site, pool_type, cartridges=cartridges)
        await site.until(
            lambda: (
                (bool(tape.libraries()) and all(one.is_ready for one in tape.libraries()))
                or any(one.status != LibraryStatus.ONLINE for one in journal.state.all(TapeLibrary))
            ),
            "ready, or told why not",
        )
        yield site
        nursery.cancel_scope.cancel()


async def add_library(site: Site, pool_type: str, *, cartridges: bool) -> None:
    await site.execute(
        Initialise(
            hostname="media-1",
            hwid=SERVER_ID,
            superuser="rubackup",
            credential_id="none",
            default_catalog_path="/pool",
        )
    )
    await site.execute(
        CreateRecord(
            resource="pool_list", fields={"pool_name": "Tape", "pool_type": pool_type, "media_server": "media-1"}
        )
    )
    candidates = await site.tape.candidates(automatic=True)
    changer = next(one for one in candidates if one.is_changer)
    drives = [one.facts.device for one in candidates if not one.is_changer]
    found = await site.tape.describe(changer.facts.device, drives)
    reply = await site.execute(
        AddTapeLibrary(
            pool="Tape",
            media_server="media-1",
            changer=found.changer,
            transport_element=found.transport_element,
            drives=found.drives,
            elements=found.elements,
        )
    )
    if cartridges:
        for tag in reply.data["unknown"]:
            kind = "CLN" if tag.startswith("CLN") else f"LTO-{tag[-1]}"
            fields = {"type": kind, "pool": "Tape", "volume_tag": tag, "description": ""}
            await site.execute(CreateRecord(resource="tape_cartridges", fields=fields))
