"""All tape libraries of this media server: ``actors.port.TapeStore`` for tasks, ``actors.port.TapeLibraries`` for the API.

An actor per library runs while the library is in the log. What a task reads or writes goes through the desk of the drive that the planner granted it;
which device belongs to which library an operator decides, out of the candidates that answer here.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import msgspec
import trio

from actors.bus import Bus
from actors.port import ArchiveSink, ArchiveSource, Journal, LibraryFacts, TapeCandidate
from actors.supervisor import RestartPolicy, Supervisor, cleanup_scope
from actors.tape.changer import report_library
from actors.tape.desk import Desk
from actors.tape.drive import DriveActor
from actors.tape.kept import KeptArchives
from actors.tape.library import LibraryActor
from actors.tape.messages import MoveCartridge
from actors.tape.orders import TapeIdentity
from actors.tape.recording import Recorder
from actors.tape.sink import TapeSink
from actors.tape.source import TapeSource
from drivers.scsi.changer import Changer, Element, ElementType, pair_drives
from drivers.scsi.drive import Drive
from drivers.scsi.unit import Identity, LogicalUnit
from rbcore.archive.store import ArchiveStore
from rbcore.commands import (
    AdvanceTapeTask,
    DeviceFacts,
    DriveFacts,
    ImportCartridges,
    QueueTapeWork,
    SetLibraryStatus,
)
from rbcore.entities import (
    Backup,
    Client,
    LibrarySlot,
    MediumChanger,
    TapeCartridge,
    TapeDrive,
    TapeLibrary,
    TapeTask,
    Task,
)
from rbcore.errors import NotAllowedNow, NotFound, RbError, Unavailable
from rbcore.ports import World
from rbcore.scsi import ScsiDevices
from rbcore.tape.session import ArchiveInfo
from rbcore.vocabulary import BACKUP_TASKS, LibraryStatus, SlotType, TapeTaskType, TaskStatus

_log = logging.getLogger(__name__)

DEVICE_SECONDS_MAX: Final = 15.0
"""A candidate that does not answer that long is left out of the listing."""
CANDIDATES_MAX: Final = 4096
CHANGER_TYPE, DRIVE_TYPE = 8, 1
IMPORT_TRIES: Final = 5
CLOSE_SECONDS_MAX: Final = 60.0
"""For a stream to let go of its cartridge when its task was cancelled."""


class TapeSite:
    """Make it, then ``run`` it beside the other actors."""

    def __init__(
        self,
        journal: Journal,
        bus: Bus,
        world: World,
        devices: ScsiDevices,
        open_kept: Callable[[], ArchiveStore],
        *,
        server_id: str,
        software: str,
        policy: RestartPolicy | None = None,
    ) -> None:
        self._journal = journal
        self._bus = bus
        self._world = world
        self._devices = devices
        self._identity = TapeIdentity(server_id, software, world)
        self._recorder = Recorder(journal, world, "actor:tape")
        self._kept = KeptArchives(open_kept, world)
        self._supervisor = Supervisor(world, policy=policy, on_giving_up=self._give_up)
        self._libraries: dict[int, LibraryActor] = {}
        self._changed = trio.Event()
        self._candidates: dict[int, TapeCandidate] = {}
        self._forgotten_in, self._forgotten = trio.open_memory_channel[str](1024)

    def __repr__(self) -> str:
        return f"<tape site: {list(self._libraries.values())!r}>"

    def libraries(self) -> list[LibraryActor]:
        return list(self._libraries.values())

    # --- life --------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled. What the last run left (``RecoverTapeTasks``) has been recorded."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen)
            nursery.start_soon(self._forget_for_ever)
            while True:
                changed = self._changed
                for library in self._journal.state.all(TapeLibrary):
                    if library.id not in self._libraries:
                        actor = LibraryActor(
                            library.id, self._devices, self._recorder, self._bus, self._world, self._identity
                        )
                        self._libraries[library.id] = actor
                        nursery.start_soon(self._keep, actor)
                await changed.wait()

    async def _keep(self, actor: LibraryActor) -> None:
        try:
            await self._supervisor.run(f"library/{actor.library_id}", actor.run)
        finally:
            self._libraries.pop(actor.library_id, None)

    async def _give_up(self, name: str, reason: str) -> None:
        """An actor that keeps failing: the library is quarantined, with the reason, and nothing else stops."""
        library_id = int(name.rpartition("/")[2])
        try:
            await self._recorder.outcome(
                SetLibraryStatus(
                    library_id=library_id,
                    status=LibraryStatus.QUARANTINED,
                    reason=f"its actor failed too often: {reason}. Restart the daemon when that is mended.",
                )
            )
        except RbError as error:
            _log.error("library %d could not be quarantined: %s", library_id, error.message)
        await trio.sleep_forever()

    async def _listen(self) -> None:
        """Every durable event may be somebody's."""
        async for _batch in self._journal.log.subscribe(self._journal.log.head):
            changed, self._changed = self._changed, trio.Event()
            changed.set()
            for actor in self._libraries.values():
                actor.look_again()

    async def _forget_for_ever(self) -> None:
        """Remove what is kept of archives that are gone; first of all those that went while nobody listened."""
        keep = frozenset(
            [
                *(one.archive for one in self._journal.state.all(Backup) if one.parts),
                *(one.archive for one in self._journal.state.active_tasks() if one.archive),
            ]
        )
        try:
            await self._kept.sweep(keep)
        except (RbError, OSError) as error:
            _log.warning("what is kept of archives on tape was not swept: %s", error)
        async for archive in self._forgotten:
            try:
                await self._kept.remove(archive)
            except (RbError, OSError) as error:
                _log.info("what is kept of archive %s stays until the next start: %s", archive, error)

    # --- TapeStore ---------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def writer(self, task: Task, archive: str) -> AsyncIterator[ArchiveSink]:
        is_backup = task.task_type in BACKUP_TASKS
        pool_id = task.pool_id if is_backup else task.target_pool_id
        desk, drive = self._granted(task, TapeTaskType.WRITE)
        sink = TapeSink(
            desk,
            drive,
            self._recorder,
            self._world,
            archive=archive,
            pool_id=pool_id,
            task_id=task.id,
            info=self._info(task),
            kept=self._kept.writer(archive),
        )
        try:
            yield sink
        finally:
            with cleanup_scope(CLOSE_SECONDS_MAX):
                await sink.discard()

    def _granted(self, task: Task, task_type: str) -> tuple[Desk, DriveActor]:
        state = self._journal.state
        for number in sorted(state.indexes.tape_tasks_of_task.get(task.id, ())):
            tape_task = state.find(TapeTask, number)
            if tape_task is None or tape_task.task_type != task_type or tape_task.status != TaskStatus.EXECUTION:
                continue
            library = self._libraries.get(tape_task.library_id)
            drive = library.drives.get(tape_task.drive_id) if library is not None else None
            if drive is not None and drive.desk.session is not None:
                return drive.desk, drive
        raise Unavailable(f"Task {task.id} has no tape drive to write with (any more); it is tried again.")

    def _info(self, task: Task) -> ArchiveInfo:
        state = self._journal.state
        backup = state.find(Backup, task.backup_id) if task.task_type not in BACKUP_TASKS else None
        client = state.find(Client, task.client_id)
        return ArchiveInfo(
            client=f"{client.hostname} ({client.hwid})" if client is not None else f"client {task.client_id}",
            resource=task.resource[:1024],
            backup_type=backup.backup_type if backup is not None else task.backup_type,
            crypto=task.crypto,
            created_ns=backup.created_ns if backup is not None else self._world.clock.now_ns(),
        )

    @asynccontextmanager
    async def reader(self, backup: Backup, task_id: int, *, medium_only: bool = False) -> AsyncIterator[ArchiveSource]:
        source = TapeSource(backup, task_id, self, self._kept, self._world, medium_only=medium_only)
        try:
            yield source
        finally:
            with cleanup_scope(CLOSE_SECONDS_MAX):
                await source.aclose()

    def forget(self, archive: str) -> None:
        try:
            self._forgotten_in.send_nowait(archive)
        except trio.WouldBlock:
            _log.info("what is kept of archive %s stays until the next start", archive)

    # --- Lenders -----------------------------------------------------------------------------------------------------------

    async def borrow(self, task_id: int, cartridge_id: int, position: int) -> Desk:
        if not task_id:
            raise Unavailable("What is asked for lies on a cartridge, and only a task may have it mounted.")
        state = self._journal.state
        cartridge = state.find(TapeCartridge, cartridge_id)
        if cartridge is None or not cartridge.library_id:
            raise Unavailable(f"Cartridge {cartridge_id} is in no library: put it in and synchronise the library.")
        await self._let_go_of_others(task_id, cartridge_id)
        reply = await self._recorder.intend(
            QueueTapeWork(
                task_type=TapeTaskType.READ,
                task_id=task_id,
                library_id=cartridge.library_id,
                cartridge_id=cartridge_id,
                position=position,
            )
        )
        tape_task_id = reply.ids[0]
        while True:
            changed = self._changed
            task = state.find(TapeTask, tape_task_id)
            if task is None or task.status in (TaskStatus.DONE, TaskStatus.ERROR, TaskStatus.KILLED):
                raise Unavailable(task.status_reason if task is not None else f"Tape task {tape_task_id} is gone.")
            if task.status == TaskStatus.EXECUTION:
                library = self._libraries.get(task.library_id)
                drive = library.drives.get(task.drive_id) if library is not None else None
                if drive is None or drive.desk.cartridge_id != cartridge_id or drive.desk.session is None:
                    raise Unavailable(f"Cartridge {cartridge.volume_tag} is not mounted any more.")
                return drive.desk
            await changed.wait()

    async def _let_go_of_others(self, task_id: int, cartridge_id: int) -> None:
        """A task has one cartridge to read in its hands. What it was promised when it began and did not use, it would keep from itself."""
        state = self._journal.state
        for number in sorted(state.indexes.tape_tasks_of_task.get(task_id, ())):
            task = state.find(TapeTask, number)
            if task is not None and task.task_type == TapeTaskType.READ and task.cartridge_id != cartridge_id:
                await self.give_back(task_id, task.cartridge_id)

    async def give_back(self, task_id: int, cartridge_id: int) -> None:
        state = self._journal.state
        for number in sorted(state.indexes.tape_tasks_of_task.get(task_id, ())):
            task = state.find(TapeTask, number)
            if task is not None and task.task_type == TapeTaskType.READ and task.cartridge_id == cartridge_id:
                command = AdvanceTapeTask(tape_task_id=number, status=TaskStatus.DONE, reason="read")
                try:
                    await self._recorder.outcome(command)
                except (NotAllowedNow, NotFound) as error:
                    _log.info("tape task %d: %s", number, error.message)

    async def reading_failed(self, desk: Desk, error: RbError) -> None:
        for library in self._libraries.values():
            drive = library.drives.get(desk.drive_id)
            if drive is not None and drive.desk is desk:
                await drive.reading_failed(error)

    # --- TapeLibraries -----------------------------------------------------------------------------------------------------

    async def candidates(self, *, automatic: bool) -> list[TapeCandidate]:
        addresses = await self._devices.addresses()
        state = self._journal.state
        taken = {one.device for one in state.all(MediumChanger)} | {one.device for one in state.all(TapeDrive)}
        found: list[tuple[DeviceFacts, Identity]] = []

        async def ask(address: str) -> None:
            identity = await self._identity_of(address)
            if identity is not None and identity.device_type in (CHANGER_TYPE, DRIVE_TYPE):
                found.append((facts_of(address, await self._devices.scsi_path(address), identity), identity))

        async with trio.open_nursery() as nursery:
            for address in addresses:
                if address not in taken:
                    nursery.start_soon(ask, address)
        order = {address: at for at, address in enumerate(addresses)}
        found.sort(key=lambda one: order[one[0].device])
        changers = [self._remember(facts, is_changer=True) for facts, one in found if one.device_type == CHANGER_TYPE]
        drives = [(facts, one) for facts, one in found if one.device_type == DRIVE_TYPE]
        places: dict[str, tuple[int, int]] = {}
        if automatic:
            for changer in changers:
                places |= await self._paired(changer, drives)
        for facts, _ in drives:
            element_address, changer_id = places.get(facts.device, (0, 0))
            changers.append(
                self._remember(facts, is_changer=False, element_address=element_address, changer_id=changer_id)
            )
        return changers

    async def _identity_of(self, address: str) -> Identity | None:
        unit = LogicalUnit(self._devices.open(address))
        try:
            with trio.fail_after(DEVICE_SECONDS_MAX):
                return await unit.identity()
        except (RbError, trio.TooSlowError) as error:
            _log.warning("the device %s is left out: %s", address, error)
            return None
        finally:
            await unit.aclose()

    async def _paired(
        self, changer: TapeCandidate, drives: Sequence[tuple[DeviceFacts, Identity]]
    ) -> dict[str, tuple[int, int]]:
        """Device of a drive -> (element address, candidate id of the changer), by serial numbers."""
        device = Changer(self._devices.open(changer.facts.device))
        try:
            with trio.fail_after(10 * DEVICE_SECONDS_MAX):
                elements = await device.element_status(
                    ElementType.DRIVE, (await device.element_addresses())[ElementType.DRIVE]
                )
        except (RbError, trio.TooSlowError) as error:
            _log.warning("the changer %s does not say which drives it has: %s", changer.facts.device, error)
            return {}
        finally:
            await device.aclose()
        paired = pair_drives(elements, [identity for _, identity in drives])
        return {drives[index][0].device: (address, changer.id) for address, index in paired.items()}

    def _remember(
        self, facts: DeviceFacts, *, is_changer: bool, element_address: int = 0, changer_id: int = 0
    ) -> TapeCandidate:
        """The same device keeps its number while the daemon runs."""
        known = next((one for one in self._candidates.values() if one.facts.device == facts.device), None)
        if known is None and len(self._candidates) >= CANDIDATES_MAX:
            raise Unavailable(f"More than {CANDIDATES_MAX} devices were listed since the start; restart the daemon.")
        number = known.id if known is not None else len(self._candidates) + 1
        candidate = TapeCandidate(
            id=number,
            facts=facts,
            is_changer=is_changer,
            element_address=element_address,
            changer_id=changer_id,
        )
        self._candidates[number] = candidate
        return candidate

    def candidate(self, id: int) -> TapeCandidate:
        found = self._candidates.get(id)
        if found is None:
            raise NotFound(
                f"There is no candidate {id}. Candidates have numbers since GET tape_libraries/candidates listed them.",
                errors={"id": [f"There is no candidate {id}."]},
                data={"ids": [id]},
            )
        return found

    async def describe(self, changer_device: str, drive_devices: Sequence[str] = ()) -> LibraryFacts:
        transport = self._devices.open(changer_device)
        try:
            report = await report_library(transport, changer_device)
        finally:
            await transport.aclose()
        drives: list[tuple[DriveFacts, Identity]] = []
        for device in drive_devices:
            drive = Drive(self._devices.open(device))
            try:
                capabilities = await drive.probe()
            finally:
                await drive.aclose()
            identity = capabilities.identity
            if identity.device_type != DRIVE_TYPE:
                raise NotFound(f"{device} is no tape drive: it says that it is {identity.vendor} {identity.product}.")
            facts = facts_of(device, await self._devices.scsi_path(device), identity)
            drives.append(
                (
                    DriveFacts(
                        device=facts.device,
                        scsi_path=facts.scsi_path,
                        vendor=facts.vendor,
                        product=facts.product,
                        revision=facts.revision,
                        serial=facts.serial,
                        partitions_max=capabilities.partitions_max,
                    ),
                    identity,
                )
            )
        return LibraryFacts(
            changer=msgspec.structs.replace(report.changer, scsi_path=await self._devices.scsi_path(changer_device)),
            transport_element=report.transport_element,
            elements=report.elements,
            drives=_placed(report.devices, drives),
        )

    async def synchronise(self, library_id: int) -> list[str]:
        return await self._library(library_id).synchronise()

    def _library(self, library_id: int) -> LibraryActor:
        actor = self._libraries.get(library_id)
        if actor is None:
            raise NotFound("tape library not found", errors={"id": [f"There is no tape library with id {library_id}."]})
        return actor

    async def import_cartridges(self, library_id: int, pool_name: str) -> list[int]:
        library = self._library(library_id)
        await library.synchronise()
        state = self._journal.state
        slots = [state.tables[LibrarySlot.KIND][one] for one in sorted(state.indexes.slots_of_library[library_id])]
        waiting = [one for one in slots if one.type == SlotType.IMPORT_EXPORT and one.is_full]
        free = [one for one in slots if one.type == SlotType.STORAGE and not one.is_full and not one.exception]
        if len(free) < len(waiting):
            raise NotAllowedNow(
                f"{len(waiting)} cartridges lie in the import-export elements of library {library_id} and {len(free)} storage "
                "slots are free: export some first, or take some out."
            )
        reply = await self._recorder.intend(ImportCartridges(library_id=library_id, pool_name=pool_name))
        for cartridge_id in reply.ids:
            await self._into_a_slot(library, cartridge_id, f"imported into pool '{pool_name}'")
        return reply.ids

    async def _into_a_slot(self, library: LibraryActor, cartridge_id: int, reason: str) -> None:
        """The first free one. A dismount may take it before the robot's turn comes: then the next one."""
        state = self._journal.state
        for tries_left in reversed(range(IMPORT_TRIES)):
            coming = {one.moving_to_slot_id for one in state.all(TapeCartridge)}
            slots = (
                state.tables[LibrarySlot.KIND][one]
                for one in sorted(state.indexes.slots_of_library[library.library_id])
            )
            target = next(
                (
                    one
                    for one in slots
                    if one.type == SlotType.STORAGE and not one.is_full and not one.exception and one.id not in coming
                ),
                None,
            )
            if target is None:
                raise NotAllowedNow(
                    f"No storage slot of library {library.library_id} is free any more: export a cartridge."
                )
            try:
                await library.ask_changer(MoveCartridge(cartridge_id=cartridge_id, to_slot_id=target.id, reason=reason))
            except NotAllowedNow:
                if not tries_left:
                    raise
            else:
                return


def facts_of(address: str, scsi_path: str, identity: Identity) -> DeviceFacts:
    """A device as it answered."""
    return DeviceFacts(
        device=address,
        scsi_path=scsi_path,
        vendor=identity.vendor,
        product=identity.product,
        revision=identity.revision,
        serial=identity.serial,
    )


def _placed(devices: dict[int, str], drives: Sequence[tuple[DriveFacts, Identity]]) -> list[DriveFacts]:
    """Drives with the element at which the changer says they sit; 0 where it does not tell them apart."""
    elements = [
        Element(address=address, type=ElementType.DRIVE, full=False, device=name) for address, name in devices.items()
    ]
    paired = pair_drives(elements, [identity for _, identity in drives])
    places = {index: address for address, index in paired.items()}
    unpaired = sorted(set(devices) - set(places.values()))
    if len(drives) == 1 and len(devices) == 1 and not places:
        places = {0: unpaired[0]}  # one drive, one place
    return [msgspec.structs.replace(facts, element_address=places.get(at, 0)) for at, (facts, _) in enumerate(drives)]
