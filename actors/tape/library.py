"""A library at work: its changer's actor, its drives' actors, and the loop that carries out what ``rbcore.tape_dispatch`` names.

At start the element status is read and compared with the log, drives are asked who they are, and emptied where that is configured. A changer that does not
answer makes the library Offline; it is asked again with growing pauses, and after ``SILENCES_MAX`` of them the library is quarantined until an operator
synchronises it. Drives have the same rule, kept by ``rbcore.decide.tape_drives``.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from actors.bus import Bus, Delivery
from actors.mailbox import Mailbox
from actors.supervisor import Backoff, cleanup_scope, describe, leading_error
from actors.tape.changer import ChangerActor
from actors.tape.drive import DriveActor
from actors.tape.messages import (
    CarryOutOrder,
    CleanDrive,
    DismountCartridge,
    EmptyDrive,
    Inventory,
    MountCartridge,
    Mounted,
    MoveCartridge,
    ProbeDrive,
    ReadInventory,
)
from actors.tape.orders import TapeIdentity
from actors.tape.recording import Recorder
from rbcore.commands import (
    AdvanceTapeTask,
    EndDismount,
    MarkExported,
    QueueDriveCleaning,
    SetDriveStatus,
    SetLibraryStatus,
)
from rbcore.configuration import configured
from rbcore.entities import LibrarySlot, TapeCartridge, TapeDrive, TapeLibrary, TapeTask
from rbcore.errors import NotAllowedNow, NotFound, RbError, Unavailable
from rbcore.media import changer_of
from rbcore.ports import World
from rbcore.scsi import ScsiDevices, ScsiTransport
from rbcore.state import State
from rbcore.tape_dispatch import (
    IDLE_SECONDS,
    STARVING_SECONDS,
    AnyStep,
    AskCleaningStep,
    CleanStep,
    DismountStep,
    DriveFacts,
    EmptyDriveStep,
    Facts,
    FailStep,
    GrantStep,
    MountStep,
    OrderStep,
    ReleaseStep,
    RobotStep,
    next_tape_steps,
)
from rbcore.vocabulary import DriveStatus, LibraryStatus, SlotType, TapeTaskType, TaskStatus

_log = logging.getLogger(__name__)

SILENCES_MAX: Final = 5
SILENCE_FIRST_SECONDS, SILENCE_SECONDS_MAX = 5.0, 120.0
FAILED_STEP_FIRST_SECONDS, FAILED_STEP_SECONDS_MAX = 1.0, 60.0
MOUNT_TRIES_MAX: Final = 5
"""Mounts in a row that did not work out for one Write; then its task is told."""
LOOK_SECONDS_MAX: Final = 3600.0
PROBE_SECONDS: Final = 30.0
CLOSE_SECONDS_MAX: Final = 15.0
"""An index takes seconds on a real drive; the daemon may be given twenty to stop."""
MAILBOX_BOUND: Final = 64
ROBOT_SECONDS_MAX: Final = 2 * 3600.0
DRIVE_SECONDS_MAX: Final = 48 * 3600.0
"""A long erase takes a day; the drive's own commands have bounds of their own."""


class LibraryActor:
    """One library of this media server."""

    def __init__(
        self,
        library_id: int,
        devices: ScsiDevices,
        recorder: Recorder,
        bus: Bus,
        world: World,
        identity: TapeIdentity,
    ) -> None:
        self.library_id = library_id
        self.drives: dict[int, DriveActor] = {}
        self._devices = devices
        self._recorder = recorder
        self._bus = bus
        self._world = world
        self._identity = identity
        self._opened: dict[int, str] = {}
        """By drive: the device that its actor has opened."""
        self._scopes: dict[int, trio.CancelScope] = {}
        self._wake = trio.Event()
        self.is_ready = False
        """The inventory was read since the start, or since the changer was silent."""
        self._silence = ""
        self._silent = trio.Event()
        self._on_drives: set[int] = set()
        self._on_tasks: set[int] = set()
        self._failures: dict[int, Backoff] = {}
        self._mount_tries: dict[int, int] = {}
        self._probed: dict[int, float] = {}
        self._resting: set[int] = set()
        """Tape tasks whose last step failed and that wait for a while."""

    def __repr__(self) -> str:
        return f"<library {self.library_id}: {'ready' if self.is_ready else 'not ready'}, {len(self.drives)} drives>"

    @property
    def _state(self) -> State:
        return self._recorder.journal.state

    def look_again(self) -> None:
        self._wake.set()

    # --- life --------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until the library is removed, or cancelled. When its changer is reached otherwise, everything begins anew."""
        while self._state.find(TapeLibrary, self.library_id) is not None:
            device = changer_of(self._state, self.library_id).device
            try:
                transport = self._devices.open(device)
            except RbError as error:
                await self._not_online(error.message, silences=1)
                self._wake = trio.Event()
                await self._wake.wait()  # for another address: every event of the log wakes
                continue
            await self._live(device, transport)

    async def _live(self, device: str, transport: ScsiTransport) -> None:
        self.is_ready, self._silence = False, ""
        self._on_drives.clear()
        self._on_tasks.clear()
        self._resting.clear()
        changer = ChangerActor(self.library_id, transport, self._recorder, on_silence=self._changer_is_silent)
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(changer.run, self._bus.serve(self._changer_address, MAILBOX_BOUND))
                await self._forget_mounts()
                nursery.start_soon(self._keep_changer)
                while (
                    self._state.find(TapeLibrary, self.library_id)
                    and changer_of(self._state, self.library_id).device == device
                ):
                    self._keep_actors()
                    self._look()
                    with trio.move_on_after(self._next_look_seconds()):
                        await self._wake.wait()
                nursery.cancel_scope.cancel()
        finally:
            self.is_ready = False
            self._bus.withdraw(self._changer_address)
            with cleanup_scope(CLOSE_SECONDS_MAX):
                await changer.aclose()
            for by_drive in (self.drives, self._opened, self._scopes):
                by_drive.clear()

    async def _forget_mounts(self) -> None:
        """When this actor starts nothing is mounted for anybody, whatever the log says: sessions live in the actors of drives."""
        why = "the actor of the library was started anew"
        for drive_id in sorted(self._state.indexes.drives_of_library.get(self.library_id, ())):
            drive = self._state.find(TapeDrive, drive_id)
            if drive is not None and drive.cartridge_id:
                await self._recorder.outcome(EndDismount(drive_id=drive_id, failure=why))
        for number in sorted(self._state.indexes.active_tape_tasks.get(self.library_id, ())):
            task = self._state.find(TapeTask, number)
            if task is not None and task.status in (TaskStatus.EXECUTION, TaskStatus.ASSIGNED):
                await self._advance(number, TaskStatus.ERROR, why)

    @property
    def _changer_address(self) -> str:
        return f"changer/{self.library_id}@{self._bus.host}"

    async def ask_changer(self, message: Any) -> Any:
        return await self._bus.ask(self._changer_address, message, ROBOT_SECONDS_MAX)

    async def ask_drive(self, drive_id: int, message: Any) -> Any:
        return await self._bus.ask(self._drive_address(drive_id), message, DRIVE_SECONDS_MAX)

    def _drive_address(self, drive_id: int) -> str:
        return f"drive/{drive_id}@{self._bus.host}"

    # --- the changer's moods -----------------------------------------------------------------------------------------------

    def _changer_is_silent(self, error: Unavailable) -> None:
        self._silence = error.message
        self._silent.set()

    async def _keep_changer(self) -> None:
        """Read the inventory at the start, and after every silence."""
        backoff = Backoff(SILENCE_FIRST_SECONDS, SILENCE_SECONDS_MAX, self._world.randomness)
        silences, reason = 0, "start"
        while True:
            self._silent = trio.Event()
            try:
                await self.ask_changer(ReadInventory(reason=reason))
            except RbError as error:
                silences += 1
                await self._not_online(error.message, silences)
                await trio.sleep(backoff.next_seconds())
                continue
            silences = 0
            backoff.reset()
            await self._online(first=reason == "start")
            await self._silent.wait()
            self.is_ready = False
            reason = f"the changer was silent: {self._silence}"
            await trio.sleep(backoff.next_seconds())

    async def _not_online(self, reason: str, silences: int) -> None:
        self.is_ready = False
        library = self._state.find(TapeLibrary, self.library_id)
        quarantined = silences >= SILENCES_MAX or (library is not None and library.status == LibraryStatus.QUARANTINED)
        status = LibraryStatus.QUARANTINED if quarantined else LibraryStatus.OFFLINE
        _log.warning("library %d is %s: %s", self.library_id, status, reason)
        await self._recorder.outcome(SetLibraryStatus(library_id=self.library_id, status=status, reason=reason))
        if quarantined:
            self._silent = trio.Event()
            await self._silent.wait()  # a synchronisation wakes it

    async def _online(self, *, first: bool) -> None:
        await self._recorder.outcome(
            SetLibraryStatus(library_id=self.library_id, status=LibraryStatus.ONLINE, reason="")
        )
        self._keep_actors()
        if first:
            async with trio.open_nursery() as nursery:
                for drive_id in list(self.drives):
                    nursery.start_soon(self._begin_drive, drive_id)
        self.is_ready = True
        self.look_again()

    async def _begin_drive(self, drive_id: int) -> None:
        """Who it is, and empty it where that is configured."""
        try:
            await self.ask_drive(drive_id, ProbeDrive())
            if configured(self._state, "unload_tape_cartriges_whes_media_server_starts") == "yes":
                slot = self._slot_of_drive(drive_id)
                if slot is not None and slot.is_full:
                    await self.ask_drive(drive_id, EmptyDrive(reason="the daemon was started"))
        except RbError as error:
            _log.warning("drive %d of library %d: %s", drive_id, self.library_id, error.message)

    def _slot_of_drive(self, drive_id: int) -> LibrarySlot | None:
        drive = self._state.find(TapeDrive, drive_id)
        address = drive.element_address if drive is not None else -1
        return self._state.by_key(LibrarySlot, (self.library_id, address))

    async def synchronise(self) -> list[str]:
        """For an operator: look at everything anew, and give everybody another chance. Unknown tags."""
        inventory = await self.ask_changer(ReadInventory(reason="synchronised by an operator", anew=True))
        assert isinstance(inventory, Inventory), "the answer to ReadInventory"
        await self._recorder.outcome(
            SetLibraryStatus(library_id=self.library_id, status=LibraryStatus.ONLINE, reason="synchronised")
        )
        for drive_id in list(self.drives):
            drive = self._state.find(TapeDrive, drive_id)
            if drive is not None and drive.status in (DriveStatus.OFFLINE, DriveStatus.ERROR):
                try:
                    await self.ask_drive(drive_id, ProbeDrive())
                    await self._recorder.outcome(
                        SetDriveStatus(drive_id=drive_id, status=DriveStatus.FREE, reason="synchronised by an operator")
                    )
                except RbError as error:
                    _log.warning("drive %d stays out of use: %s", drive_id, error.message)
        if not self.is_ready:
            self._silent.set()
        self.look_again()
        return inventory.unknown

    # --- the drives' actors ------------------------------------------------------------------------------------------------

    def _keep_actors(self) -> None:
        """Start actors of drives that were added, end those of drives that were removed; both for idle ones that are reached otherwise."""
        wanted = self._state.indexes.drives_of_library.get(self.library_id, set())
        for drive_id in sorted(self.drives):
            if drive_id not in wanted or self._is_readdressed(drive_id):
                self.drives.pop(drive_id)
                self._scopes[drive_id].cancel()
        for drive_id in sorted(wanted - self._scopes.keys()):  # an actor has its scope until it has closed its device
            drive = self._state.tables[TapeDrive.KIND][drive_id]
            try:
                transport = self._devices.open(drive.device)
            except RbError as error:
                if drive.status not in (DriveStatus.OFFLINE, DriveStatus.ERROR):
                    self._nursery.start_soon(self._cannot_open, drive_id, error.message)
                continue
            actor = DriveActor(
                drive_id,
                transport,
                self._recorder,
                self._identity,
                self.ask_changer,
                on_change=self.look_again,
            )
            self.drives[drive_id] = actor
            is_news = self.is_ready or drive_id in self._opened  # the others begin with the library
            self._opened[drive_id] = drive.device
            self._scopes[drive_id] = trio.CancelScope()
            self._nursery.start_soon(
                self._run_drive, actor, self._bus.serve(self._drive_address(drive_id), MAILBOX_BOUND)
            )
            if is_news:
                self._on_drives.add(drive_id)
                self._nursery.start_soon(self._probe, drive_id)

    def _is_readdressed(self, drive_id: int) -> bool:
        actor = self.drives[drive_id]
        is_idle = not (actor.busy or actor.desk.cartridge_id or drive_id in self._on_drives)
        return is_idle and self._state.tables[TapeDrive.KIND][drive_id].device != self._opened[drive_id]

    async def _cannot_open(self, drive_id: int, reason: str) -> None:
        _log.warning("drive %d cannot be used: %s", drive_id, reason)
        await self._recorder.outcome(SetDriveStatus(drive_id=drive_id, status=DriveStatus.OFFLINE, reason=reason))

    async def _run_drive(self, actor: DriveActor, mailbox: Mailbox[Delivery]) -> None:
        try:
            with self._scopes[actor.drive_id]:
                await actor.run(mailbox)
        finally:
            self._bus.withdraw(self._drive_address(actor.drive_id))
            with cleanup_scope(CLOSE_SECONDS_MAX):
                await actor.aclose()
            del self._scopes[actor.drive_id]
            self.look_again()

    def _probe_silent_drives(self) -> None:
        """Ask drives that were silent again. Quarantined ones are an operator's matter."""
        now = trio.current_time()
        for drive_id, actor in self.drives.items():
            drive = self._state.find(TapeDrive, drive_id)
            if drive is None or drive.status != DriveStatus.OFFLINE or actor.busy or drive_id in self._on_drives:
                continue
            if now - self._probed.get(drive_id, -PROBE_SECONDS) >= PROBE_SECONDS:
                self._probed[drive_id] = now
                self._on_drives.add(drive_id)
                self._nursery.start_soon(self._probe, drive_id)

    async def _probe(self, drive_id: int) -> None:
        try:
            await self.ask_drive(drive_id, ProbeDrive())
        except RbError as error:
            _log.info("drive %d is still silent: %s", drive_id, error.message)
        finally:
            self._on_drives.discard(drive_id)
            self.look_again()

    # --- the loop ----------------------------------------------------------------------------------------------------------

    def facts(self) -> dict[int, DriveFacts]:
        """By drive; those out of use are left out."""
        now = trio.current_time()
        found: dict[int, DriveFacts] = {}
        for drive_id, actor in self.drives.items():
            drive = self._state.find(TapeDrive, drive_id)
            if drive is None or drive.status in (DriveStatus.OFFLINE, DriveStatus.ERROR):
                continue
            desk, session = actor.desk, actor.desk.session
            idle_ns = self._world.clock.now_ns() - round((now - desk.idle_since) * 1e9)
            found[drive_id] = DriveFacts(
                busy=actor.busy or drive_id in self._on_drives,
                cartridge_id=desk.cartridge_id,
                may_write=session is not None and session.may_write and not desk.failure,
                failed=desk.failure,
                position=desk.position,
                idle_since_ns=idle_ns,
            )
        return found

    def _next_look_seconds(self) -> float:
        """When time alone makes a difference: a silent drive is asked again, an idle cartridge goes back, a task has waited too long."""
        seconds = LOOK_SECONDS_MAX
        now, now_ns = trio.current_time(), self._world.clock.now_ns()
        for drive_id, actor in self.drives.items():
            drive = self._state.find(TapeDrive, drive_id)
            if drive is not None and drive.status == DriveStatus.OFFLINE:
                seconds = min(seconds, PROBE_SECONDS)
            left = actor.desk.idle_since + IDLE_SECONDS - now
            if actor.desk.cartridge_id and left > 0:  # else it is idle no longer, or somebody's: an event will tell
                seconds = min(seconds, left + 1.0)
        for number in self._state.indexes.active_tape_tasks.get(self.library_id, ()):
            task = self._state.find(TapeTask, number)
            if task is not None and task.status == TaskStatus.NEW:
                left = STARVING_SECONDS - (now_ns - task.created_ns) / 1e9
                seconds = min(seconds, left if left > 0 else LOOK_SECONDS_MAX)
        return max(1.0, seconds)

    def _look(self) -> None:
        """Begin every step that can be begun."""
        self._wake = trio.Event()
        self._probe_silent_drives()
        facts = Facts(
            drives=self.facts(),
            libraries=frozenset([self.library_id] if self.is_ready else []),
            under_way=frozenset(self._on_tasks | self._resting),
        )
        for step in next_tape_steps(self._state, facts, self._world.clock.now_ns(), self.library_id):
            drive_id, tape_task_id = getattr(step, "drive_id", 0), getattr(step, "tape_task_id", 0)
            if drive_id in self._on_drives or tape_task_id in self._on_tasks:
                continue
            if drive_id and not isinstance(step, GrantStep | AskCleaningStep):
                self._on_drives.add(drive_id)
            if tape_task_id:
                self._on_tasks.add(tape_task_id)
            self._nursery.start_soon(self._carry, step, drive_id, tape_task_id)

    async def _carry(self, step: AnyStep, drive_id: int, tape_task_id: int) -> None:
        """One step to its end. What fails is written down, and tried again after a pause."""
        rest = 0.0
        try:
            await self._actions[type(step)](self, step)
            self._failures.pop(tape_task_id or -drive_id, None)
        except Exception as error:
            known = leading_error(error)
            if known is None:
                _log.exception("%s failed", step)
            else:
                _log.warning("library %d, %s: %s", self.library_id, type(step).__name__, describe(known))
            key = tape_task_id or -drive_id
            backoff = self._failures.get(key)
            if backoff is None:
                backoff = Backoff(FAILED_STEP_FIRST_SECONDS, FAILED_STEP_SECONDS_MAX, self._world.randomness)
                self._failures[key] = backoff
            rest = backoff.next_seconds()
        finally:
            if not isinstance(step, GrantStep | AskCleaningStep):
                self._on_drives.discard(drive_id)
            if tape_task_id and rest:
                self._resting.add(tape_task_id)
            self._on_tasks.discard(tape_task_id)
            self.look_again()
        if rest:
            await trio.sleep(rest)
            self._resting.discard(tape_task_id)
            self.look_again()

    # --- the steps ---------------------------------------------------------------------------------------------------------

    async def _mount(self, step: MountStep) -> None:
        answer = await self.ask_drive(
            step.drive_id,
            MountCartridge(
                cartridge_id=step.cartridge_id,
                reason=step.reason,
                rejected=step.rejected,
                tape_task_id=step.tape_task_id,
                label=step.label,
            ),
        )
        assert isinstance(answer, Mounted), "the answer to MountCartridge"
        if answer.usable:
            self._mount_tries.pop(step.tape_task_id, None)
            return
        tries = self._mount_tries[step.tape_task_id] = self._mount_tries.get(step.tape_task_id, 0) + 1
        task = self._state.find(TapeTask, step.tape_task_id)
        if task is not None and (task.task_type != TapeTaskType.WRITE or tries >= MOUNT_TRIES_MAX):
            self._mount_tries.pop(step.tape_task_id, None)
            cartridge = self._state.find(TapeCartridge, step.cartridge_id)
            tag = cartridge.volume_tag if cartridge is not None else f"{step.cartridge_id}"
            await self._advance(task.id, TaskStatus.ERROR, f"cartridge {tag} could not be mounted: {answer.reason}")
            return
        raise Unavailable(answer.reason)

    async def _dismount(self, step: DismountStep) -> None:
        await self.ask_drive(step.drive_id, DismountCartridge(reason=step.reason))

    async def _empty(self, step: EmptyDriveStep) -> None:
        await self.ask_drive(step.drive_id, EmptyDrive(reason=step.reason))

    async def _grant(self, step: GrantStep) -> None:
        actor = self.drives.get(step.drive_id)
        if actor is None or actor.desk.cartridge_id != step.cartridge_id:
            return  # the next look knows better
        await self._advance(
            step.tape_task_id,
            TaskStatus.EXECUTION,
            f"cartridge is mounted in drive {step.drive_id}",
            drive_id=step.drive_id,
            cartridge_id=step.cartridge_id,
        )

    async def _order(self, step: OrderStep) -> None:
        async def work() -> str:
            return str(await self.ask_drive(step.drive_id, CarryOutOrder(tape_task_id=step.tape_task_id)))

        await self._to_its_end(step.tape_task_id, work, drive_id=step.drive_id)

    async def _clean(self, step: CleanStep) -> None:
        async def work() -> str:
            await self.ask_drive(
                step.drive_id, CleanDrive(tape_task_id=step.tape_task_id, cartridge_id=step.cartridge_id)
            )
            return f"drive {step.drive_id} was cleaned"

        await self._to_its_end(step.tape_task_id, work, drive_id=step.drive_id, cartridge_id=step.cartridge_id)

    async def _robot(self, step: RobotStep) -> None:
        task = self._state.find(TapeTask, step.tape_task_id)
        if task is None:
            return

        async def work() -> str:
            target = self._target_of(task)
            reason = f"{task.task_type} ordered by an operator (tape task {task.id})"
            cartridge = self._state.find(TapeCartridge, task.cartridge_id)
            if cartridge is not None and cartridge.slot_id == target.id:
                return f"it lies in element {target.address}"  # the dismount has put it there
            await self.ask_changer(
                MoveCartridge(cartridge_id=task.cartridge_id, to_slot_id=target.id, reason=reason, tape_task_id=task.id)
            )
            if task.task_type == TapeTaskType.EXPORT:
                await self._recorder.outcome(MarkExported(cartridge_id=task.cartridge_id, reason=reason))
            return f"it lies in element {target.address}"

        await self._to_its_end(step.tape_task_id, work)

    def _target_of(self, task: TapeTask) -> LibrarySlot:
        state = self._state
        if task.task_type == TapeTaskType.MOVE:
            slot = state.find(LibrarySlot, task.slot_id)
            if slot is None:
                raise NotFound(f"Element {task.slot_id} is not there any more.")
            return slot
        for number in sorted(state.indexes.slots_of_library.get(self.library_id, ())):
            slot = state.find(LibrarySlot, number)
            if slot is not None and slot.type == SlotType.IMPORT_EXPORT and not slot.is_full:
                return slot
        raise NotAllowedNow(
            f"No import-export element of library {self.library_id} is free: take out what lies there, and export again."
        )

    async def _to_its_end(
        self, tape_task_id: int, work: Callable[[], Awaitable[str]], *, drive_id: int = 0, cartridge_id: int = 0
    ) -> None:
        """An operator's order: Execution, the work, Done or Error with a sentence."""
        await self._advance(tape_task_id, TaskStatus.EXECUTION, "", drive_id=drive_id, cartridge_id=cartridge_id)
        try:
            sentence = await work()
        except RbError as error:
            await self._advance(tape_task_id, TaskStatus.ERROR, error.message)
            return
        await self._advance(tape_task_id, TaskStatus.DONE, sentence)

    async def _release(self, step: ReleaseStep) -> None:
        task = self._state.find(TapeTask, step.tape_task_id)
        if task is not None:
            status = TaskStatus.DONE if task.status == TaskStatus.EXECUTION else TaskStatus.KILLED
            await self._advance(task.id, status, "its task does not need the cartridge any more")

    async def _fail(self, step: FailStep) -> None:
        await self._advance(step.tape_task_id, TaskStatus.ERROR, step.reason)

    async def _ask_cleaning(self, step: AskCleaningStep) -> None:
        await self._recorder.intend(QueueDriveCleaning(drive_id=step.drive_id, reason=step.reason))

    async def _advance(
        self, tape_task_id: int, status: str, reason: str, *, drive_id: int = 0, cartridge_id: int = 0
    ) -> None:
        command = AdvanceTapeTask(
            tape_task_id=tape_task_id, status=status, reason=reason, drive_id=drive_id, cartridge_id=cartridge_id
        )
        try:
            await self._recorder.outcome(command)
        except (NotAllowedNow, NotFound) as error:
            _log.info("tape task %d does not become %s: %s", tape_task_id, status, error.message)

    _actions: dict[type[Any], Callable[[LibraryActor, Any], Awaitable[None]]] = {  # noqa: RUF012
        MountStep: _mount,
        DismountStep: _dismount,
        EmptyDriveStep: _empty,
        GrantStep: _grant,
        OrderStep: _order,
        CleanStep: _clean,
        RobotStep: _robot,
        ReleaseStep: _release,
        FailStep: _fail,
        AskCleaningStep: _ask_cleaning,
    }


__all__ = ["LibraryActor"]
