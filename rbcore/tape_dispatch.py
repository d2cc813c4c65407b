"""What robots and drives do next: a pure function of the state and of what is under way here (reference 3.18).

One mount serves everything that waits for its cartridge, reads in the order of their positions, before the drive turns to another cartridge
(``consolidating_tape_library_tasks``). So that nothing starves, a task that has waited for ``STARVING_SECONDS`` gets the drive that has been
mounted longest: that one is granted nothing new, and is free when its work is done.

Like ``rbcore.dispatch`` it looks at levels, not at edges: a step that was lost comes up again. What is decided here carries its reason along,
which the mount's event keeps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Final

import msgspec

from rbcore import media
from rbcore.configuration import configured
from rbcore.entities import LibrarySlot, TapeCartridge, TapeDrive, TapeLibrary, TapeTask, Task
from rbcore.state import State
from rbcore.vocabulary import (
    CartridgeStatus,
    DriveStatus,
    LibraryStatus,
    SlotType,
    TapeTaskType,
    TaskStatus,
)

STREAMS_MAX: Final = 4
"""Backups that write to one drive side by side: together they keep it streaming."""
STARVING_SECONDS: Final = 3600
IDLE_SECONDS: Final = 600
"""A cartridge that nobody needs goes back to its slot after that."""

_EXCLUSIVE: Final = frozenset({TapeTaskType.FORMAT, TapeTaskType.ERASE, TapeTaskType.CHECK_LTFS})
_ROBOT: Final = frozenset({TapeTaskType.MOVE, TapeTaskType.EXPORT})
_SHARED: Final = frozenset({TapeTaskType.READ, TapeTaskType.WRITE})
_WAITING: Final = frozenset({TaskStatus.NEW, TaskStatus.SUSPENDED})
_PARENT_NEEDS: Final = frozenset(
    {
        TaskStatus.ASSIGNED,
        TaskStatus.AT_CLIENT,
        TaskStatus.EXECUTION,
        TaskStatus.START_TRANSFER,
        TaskStatus.TRANSMISSION,
        TaskStatus.PAUSED,
        TaskStatus.KILL,
    }
)


class DriveFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What this process knows about a drive."""

    busy: bool = False
    """A step is carried out on it, or it changes cartridges for a stream."""
    cartridge_id: int = 0
    """Mounted, with its session open; 0: none."""
    may_write: bool = False
    failed: str = ""
    """Why its session is of no use any more; empty while it is."""
    position: int = 0
    """Where its head stands, as parts count positions."""
    idle_since_ns: int = 0


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    drives: Mapping[int, DriveFacts]
    """Drives whose actor runs and answers."""
    libraries: Set[int]
    """Libraries whose robot can be told something: their actor runs and has read the inventory."""
    under_way: Set[int]
    """Tape tasks of which a step was begun and has not ended."""


class Step(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    library_id: int


class MountStep(Step, frozen=True, kw_only=True):
    """Bring the cartridge to the drive. ``label``: it is going to be written and holds nothing that counts."""

    drive_id: int
    cartridge_id: int
    tape_task_id: int
    """The one that asked first."""
    reason: str
    rejected: list[str]
    label: bool = False


class DismountStep(Step, frozen=True, kw_only=True):
    drive_id: int
    reason: str


class EmptyDriveStep(Step, frozen=True, kw_only=True):
    """A cartridge lies in the drive's element that nobody mounted (after a start, a failure, by hand): put it into a slot."""

    drive_id: int
    reason: str


class GrantStep(Step, frozen=True, kw_only=True):
    """A Read or Write has its cartridge: its tape task becomes Execution."""

    tape_task_id: int
    drive_id: int
    cartridge_id: int


class OrderStep(Step, frozen=True, kw_only=True):
    """Format, Erase or Check LTFS the cartridge that is mounted for it."""

    tape_task_id: int
    drive_id: int


class RobotStep(Step, frozen=True, kw_only=True):
    """Move or Export."""

    tape_task_id: int


class CleanStep(Step, frozen=True, kw_only=True):
    tape_task_id: int
    drive_id: int
    cartridge_id: int


class ReleaseStep(Step, frozen=True, kw_only=True):
    """Nobody needs what a Read or Write was granted, or waits for, any more."""

    tape_task_id: int


class FailStep(Step, frozen=True, kw_only=True):
    """It cannot be carried out now; ``reason`` names the cartridge and says what to do."""

    tape_task_id: int
    reason: str


class AskCleaningStep(Step, frozen=True, kw_only=True):
    """``auto_clean_tape_drives``: queue a cleaning."""

    drive_id: int
    reason: str


AnyStep = (
    MountStep
    | DismountStep
    | EmptyDriveStep
    | GrantStep
    | OrderStep
    | RobotStep
    | CleanStep
    | ReleaseStep
    | FailStep
    | AskCleaningStep
)


def next_tape_steps(state: State, facts: Facts, now_ns: int, library_id: int) -> list[AnyStep]:
    """Every step of the library that can be begun now. Pure."""
    library = state.find(TapeLibrary, library_id)
    return [] if library is None else _Look(state, facts, now_ns, library).steps()


@dataclass(slots=True)
class _Look:
    """One look at one library."""

    state: State
    facts: Facts
    now_ns: int
    library: TapeLibrary
    tasks: list[TapeTask] = field(default_factory=list)
    """Waiting, and not begun: the more urgent first, then the older."""
    running: dict[int, list[TapeTask]] = field(default_factory=dict)
    """Drive id -> tape tasks in Execution there."""
    claimed: dict[int, int] = field(default_factory=dict)
    """Cartridge id -> drive id: mounted, being mounted, or going to be by this look."""
    turned: set[int] = field(default_factory=set)
    """Drives that got a step in this look."""

    def steps(self) -> list[AnyStep]:
        numbers = self.state.indexes.active_tape_tasks.get(self.library.id, ())
        active = [self.state.tables[TapeTask.KIND][one] for one in sorted(numbers)]
        found: list[AnyStep] = []
        for task in active:
            if task.id in self.facts.under_way:
                continue
            if task.task_type in _SHARED and not self._is_needed(task):
                found.append(ReleaseStep(library_id=self.library.id, tape_task_id=task.id))
            elif task.status in _WAITING:
                self.tasks.append(task)
        for task in active:
            if task.status in (TaskStatus.EXECUTION, TaskStatus.ASSIGNED) and task.drive_id:
                self.running.setdefault(task.drive_id, []).append(task)
        self.tasks.sort(key=lambda one: (-one.priority, one.id))
        for drive in self._drives():
            if drive.cartridge_id:
                self.claimed[drive.cartridge_id] = drive.id
        if self.library.status != LibraryStatus.ONLINE or self.library.id not in self.facts.libraries:
            if self.library.status != LibraryStatus.ONLINE:
                found += self._fail_all()
            return found
        found += self._serve()
        found += self._robot()
        found += self._turn_to_others()
        found += self._tidy()
        return found

    def _is_needed(self, task: TapeTask) -> bool:
        parent = self.state.find(Task, task.parent_task_id)
        return parent is not None and parent.status in _PARENT_NEEDS

    def _drives(self) -> list[TapeDrive]:
        numbers = self.state.indexes.drives_of_library.get(self.library.id, ())
        return [self.state.tables[TapeDrive.KIND][one] for one in sorted(numbers)]

    def _fail_all(self) -> Iterator[AnyStep]:
        reason = f"library {self.library.id} is {self.library.status}: {self.library.status_reason}"
        for task in self.tasks:
            if task.task_type in _SHARED:
                yield FailStep(library_id=self.library.id, tape_task_id=task.id, reason=reason)

    # --- drives that have a cartridge --------------------------------------------------------------------------------------

    def _serve(self) -> Iterator[AnyStep]:
        """Grant what mounted cartridges can serve."""
        for drive in self._drives():
            fact = self.facts.drives.get(drive.id)
            if fact is None or fact.busy or not fact.cartridge_id or drive.mounting:
                continue
            if drive.cartridge_id != fact.cartridge_id:
                continue  # its actor is about to find out
            if fact.failed:
                if not self.running.get(drive.id):
                    self.turned.add(drive.id)
                    yield DismountStep(library_id=self.library.id, drive_id=drive.id, reason=fact.failed)
                continue
            if self._must_make_way(drive):
                if not self.running.get(drive.id):
                    self.turned.add(drive.id)
                    reason = "others have waited too long for a drive"
                    yield DismountStep(library_id=self.library.id, drive_id=drive.id, reason=reason)
                continue
            yield from self._grant(drive, fact)

    def _grant(self, drive: TapeDrive, fact: DriveFacts) -> Iterator[AnyStep]:
        cartridge = self.state.find(TapeCartridge, fact.cartridge_id)
        if cartridge is None:
            return
        running = self.running.get(drive.id, [])
        kinds = {one.task_type for one in running}
        waiting = [one for one in self.tasks if self._can_serve(one, cartridge, fact)]
        if not waiting or kinds & _EXCLUSIVE or TapeTaskType.READ in kinds:
            return
        first = waiting[0]
        if TapeTaskType.WRITE in kinds and first.task_type != TapeTaskType.WRITE and self._waited_long(first):
            return
        if running or first.task_type == TapeTaskType.WRITE:
            writes = [one for one in waiting if one.task_type == TapeTaskType.WRITE]
            chosen = writes[: STREAMS_MAX - len(running)]
        elif first.task_type == TapeTaskType.READ:
            reads = sorted((one for one in waiting if one.task_type == TapeTaskType.READ), key=_by_position)
            ahead = [one for one in reads if one.position >= fact.position]
            chosen = [(ahead or reads)[0]]
        else:
            self.tasks.remove(first)
            self.turned.add(drive.id)
            yield OrderStep(library_id=self.library.id, tape_task_id=first.id, drive_id=drive.id)
            return
        for task in chosen:
            self.tasks.remove(task)
            self.turned.add(drive.id)
            self.running.setdefault(drive.id, []).append(task)
            yield GrantStep(
                library_id=self.library.id, tape_task_id=task.id, drive_id=drive.id, cartridge_id=cartridge.id
            )

    @staticmethod
    def _can_serve(task: TapeTask, cartridge: TapeCartridge, fact: DriveFacts) -> bool:
        if task.task_type == TapeTaskType.WRITE:
            return task.pool_id == cartridge.pool and fact.may_write and cartridge.status != CartridgeStatus.QUARANTINED
        return task.cartridge_id == cartridge.id and (
            task.task_type in _EXCLUSIVE or task.task_type == TapeTaskType.READ
        )

    def _waited_long(self, task: TapeTask) -> bool:
        # A task from so far in the future was queued before the clock was set back: nobody knows how long it has waited.
        return abs(self.now_ns - task.created_ns) > STARVING_SECONDS * 10**9

    def _must_make_way(self, drive: TapeDrive) -> bool:
        """Whether a task has waited too long for a cartridge that is in no drive, longer than any that waits for this one, and this drive has
        been mounted longest.

        Without consolidation the next task in the queue's order is enough, however short it has waited.
        """
        if any(self._is_empty(one) for one in self._drives()):
            return False
        consolidating = configured(self.state, "consolidating_tape_library_tasks") == "yes"
        for task in sorted(self.tasks, key=lambda one: one.id) if consolidating else self.tasks[:1]:
            if self._is_served_by(task, drive):
                return False  # it is this drive's turn to serve the oldest
            if task.task_type in _ROBOT or (consolidating and not self._waited_long(task)):
                continue
            if task.cartridge_id in self.claimed or self._joins_a_session(task):
                continue
            mounted = [one for one in self._drives() if one.cartridge_id and one.id in self.facts.drives]
            return bool(mounted) and drive.id == min(mounted, key=lambda one: (one.mounted_ns, one.id)).id
        return False

    def _is_served_by(self, task: TapeTask, drive: TapeDrive) -> bool:
        cartridge = self.state.find(TapeCartridge, drive.cartridge_id)
        fact = self.facts.drives.get(drive.id)
        return cartridge is not None and fact is not None and self._can_serve(task, cartridge, fact)

    def _joins_a_session(self, task: TapeTask) -> bool:
        """A Write that a cartridge mounted now could take as soon as there is a place among its streams."""
        if task.task_type != TapeTaskType.WRITE:
            return False
        return any(
            fact.may_write
            and (cartridge := self.state.find(TapeCartridge, fact.cartridge_id)) is not None
            and cartridge.pool == task.pool_id
            for number, fact in self.facts.drives.items()
            if (drive := self.state.find(TapeDrive, number)) is not None and drive.library_id == self.library.id
        )

    # --- drives that could turn to another cartridge -----------------------------------------------------------------------

    def _is_empty(self, drive: TapeDrive) -> bool:
        fact = self.facts.drives.get(drive.id)
        return (
            fact is not None
            and not fact.busy
            and not fact.cartridge_id
            and not drive.cartridge_id
            and not drive.mounting
            and drive.status == DriveStatus.FREE
            and drive.id not in self.turned
        )

    def _idle(self) -> list[TapeDrive]:
        """Drives whose cartridge nobody uses, the one idle longest first."""
        found = [
            drive
            for drive in self._drives()
            if drive.id not in self.turned
            and not drive.mounting
            and (fact := self.facts.drives.get(drive.id)) is not None
            and fact.cartridge_id
            and not fact.busy
            and not self.running.get(drive.id)
        ]
        return sorted(found, key=lambda one: (self.facts.drives[one.id].idle_since_ns, one.id))

    def _turn_to_others(self) -> Iterator[AnyStep]:
        """Mount what the tasks still wait for, as far as drives go."""
        counted: dict[int, int] = {}
        for task in self.tasks:
            counted[task.cartridge_id] = counted.get(task.cartridge_id, 0) + 1
        writes_coming: dict[int, int] = {}
        """Pool id -> Writes that a mount under way can take."""
        for drive in self._drives():
            cartridge = self.state.find(TapeCartridge, drive.cartridge_id)
            if drive.mounting and cartridge is not None:
                writes_coming[cartridge.pool] = writes_coming.get(cartridge.pool, 0) + STREAMS_MAX
        empty = [drive for drive in self._drives() if self._is_empty(drive)]
        idle = self._idle()
        for task in sorted(self.tasks, key=lambda one: not self._waited_long(one)):
            if task.task_type in _ROBOT or task.cartridge_id in self.claimed:
                continue
            if task.task_type == TapeTaskType.CLEAN:
                yield from self._clean(task, empty, idle)
                continue
            if task.task_type == TapeTaskType.WRITE and writes_coming.get(task.pool_id, 0) > 0:
                writes_coming[task.pool_id] -= 1
                continue
            chosen = self._cartridge_for(task)
            if chosen.cartridge is None:
                if chosen.reason:
                    yield FailStep(library_id=self.library.id, tape_task_id=task.id, reason=_sentence(chosen))
                continue
            if empty:
                drive = min(empty, key=lambda one: self._suits(one, chosen.cartridge))
                empty.remove(drive)
                self.turned.add(drive.id)
                self.claimed[chosen.cartridge.id] = drive.id
                if task.task_type == TapeTaskType.WRITE:
                    writes_coming[task.pool_id] = STREAMS_MAX - 1
                slot = self.state.find(LibrarySlot, self._slot_of(drive))
                if slot is not None and slot.is_full and slot.cartridge_id != chosen.cartridge.id:
                    reason = f"drive {drive.id} is needed, and something lies in it"
                    yield EmptyDriveStep(library_id=self.library.id, drive_id=drive.id, reason=reason)
                    continue
                yield self._mount(task, drive, chosen, counted.get(task.cartridge_id, 1) if task.cartridge_id else 1)
            elif idle:
                drive = idle.pop(0)
                self.turned.add(drive.id)
                self.claimed[chosen.cartridge.id] = drive.id  # so that one drive makes way for it, not two
                reason = f"cartridge {chosen.cartridge.volume_tag} is needed, and nobody uses the one that is in"
                yield DismountStep(library_id=self.library.id, drive_id=drive.id, reason=reason)

    def _suits(self, drive: TapeDrive, cartridge: TapeCartridge | None) -> tuple[bool, bool, int]:
        """The drive it lies in already, then one in which nothing lies."""
        slot = self.state.find(LibrarySlot, self._slot_of(drive))
        lies_in = slot.cartridge_id if slot is not None else 0
        is_there = cartridge is not None and lies_in == cartridge.id
        return not is_there, slot is not None and slot.is_full, drive.id

    def _slot_of(self, drive: TapeDrive) -> int:
        return self.state.indexes.by_key[LibrarySlot.KIND].get((self.library.id, drive.element_address), 0)

    def _cartridge_for(self, task: TapeTask) -> media.Chosen:
        """What the task needs. No cartridge and no reason: it waits for one that others use."""
        if task.task_type == TapeTaskType.WRITE:
            chosen = media.choose_for_writing(self.state, self.library.id, task.pool_id, taken=self.claimed)
            if chosen.cartridge is None and self._pool_is_mounted(task.pool_id):
                return media.Chosen(cartridge=None, reason="")
            return chosen
        why_not = media.why_unreachable(self.state, task.cartridge_id)
        cartridge = self.state.find(TapeCartridge, task.cartridge_id)
        if why_not or cartridge is None:
            return media.Chosen(cartridge=None, reason=why_not)
        return media.Chosen(cartridge=cartridge, reason=f"cartridge {cartridge.volume_tag} is wanted")

    def _pool_is_mounted(self, pool_id: int) -> bool:
        """A cartridge of the pool is in use: it may take the Write when it is free."""
        return any(
            (cartridge := self.state.find(TapeCartridge, one)) is not None
            and cartridge.pool == pool_id
            and cartridge.status in (CartridgeStatus.APPENDABLE, CartridgeStatus.SCRATCH, CartridgeStatus.NEW)
            for one in self.claimed
        )

    def _mount(self, task: TapeTask, drive: TapeDrive, chosen: media.Chosen, waiting: int) -> MountStep:
        assert chosen.cartridge is not None, "the caller has looked"
        others = f", and {waiting - 1} more wait for it" if waiting > 1 else ""
        for_whom = f" for task {task.parent_task_id}" if task.parent_task_id else ""
        reason = f"{task.task_type}{for_whom} (tape task {task.id}): {chosen.reason}{others}; drive {drive.id} is empty"
        return MountStep(
            library_id=self.library.id,
            drive_id=drive.id,
            cartridge_id=chosen.cartridge.id,
            tape_task_id=task.id,
            reason=reason,
            rejected=chosen.rejected,
            label=chosen.relabel and task.task_type == TapeTaskType.WRITE,
        )

    def _clean(self, task: TapeTask, empty: list[TapeDrive], idle: list[TapeDrive]) -> Iterator[AnyStep]:
        if any(one.id == task.drive_id for one in empty):
            cleaner = self._cleaning_cartridge()
            if cleaner is None:
                reason = f"no cleaning cartridge lies in a slot of library {self.library.id}: put one in and import it"
                yield FailStep(library_id=self.library.id, tape_task_id=task.id, reason=reason)
                return
            empty[:] = [one for one in empty if one.id != task.drive_id]
            self.turned.add(task.drive_id)
            self.claimed[cleaner.id] = task.drive_id
            yield CleanStep(
                library_id=self.library.id, tape_task_id=task.id, drive_id=task.drive_id, cartridge_id=cleaner.id
            )
        elif any(one.id == task.drive_id for one in idle):
            idle[:] = [one for one in idle if one.id != task.drive_id]
            self.turned.add(task.drive_id)
            yield DismountStep(library_id=self.library.id, drive_id=task.drive_id, reason="the drive is to be cleaned")

    def _cleaning_cartridge(self) -> TapeCartridge | None:
        for cartridge in self.state.all(TapeCartridge):
            slot = self.state.find(LibrarySlot, cartridge.slot_id)
            if (
                cartridge.status == CartridgeStatus.CLEANING
                and cartridge.library_id == self.library.id
                and slot is not None
                and slot.type == SlotType.STORAGE
                and cartridge.id not in self.claimed
            ):
                return cartridge
        return None

    # --- robot alone -------------------------------------------------------------------------------------------------------

    def _robot(self) -> Iterator[AnyStep]:
        """Moves and exports, one at a time; a cartridge that is mounted is dismounted first."""
        for task in [one for one in self.tasks if one.task_type in _ROBOT]:
            drive_id = self.claimed.get(task.cartridge_id)
            if drive_id is None:
                if why := self._why_not_moved(task):
                    yield FailStep(library_id=self.library.id, tape_task_id=task.id, reason=why)
                else:
                    yield RobotStep(library_id=self.library.id, tape_task_id=task.id)
                continue
            if any(one.id == drive_id for one in self._idle()):
                self.turned.add(drive_id)
                reason = f"tape task {task.id} ({task.task_type}) wants the cartridge"
                yield DismountStep(library_id=self.library.id, drive_id=drive_id, reason=reason)

    def _why_not_moved(self, task: TapeTask) -> str:
        cartridge = self.state.find(TapeCartridge, task.cartridge_id)
        if cartridge is None or not cartridge.slot_id or cartridge.library_id != self.library.id:
            return f"the cartridge is not in library {self.library.id} any more"
        return ""

    # --- when nobody wants anything ----------------------------------------------------------------------------------------

    def _tidy(self) -> Iterator[AnyStep]:
        auto_clean = configured(self.state, "auto_clean_tape_drives") == "yes"
        period_ns = int(configured(self.state, "clean_tape_drives_period")) * 86_400 * 10**9
        cleaning = {task.drive_id for task in self.tasks if task.task_type == TapeTaskType.CLEAN}
        for drive in self._drives():
            last_ns = max(drive.last_cleaned_ns, drive.created_ns)
            due = drive.cleaning_required or (last_ns and drive.mounts and self.now_ns - last_ns > period_ns)
            if auto_clean and due and drive.id in self.facts.drives and drive.id not in cleaning | self.turned:
                why = "the drive asks for it" if drive.cleaning_required else "clean_tape_drives_period has passed"
                if not any(one.task_type == TapeTaskType.CLEAN for one in self.running.get(drive.id, [])):
                    yield AskCleaningStep(library_id=self.library.id, drive_id=drive.id, reason=why)
        for drive in self._idle():
            if self.now_ns - self.facts.drives[drive.id].idle_since_ns > IDLE_SECONDS * 10**9:
                self.turned.add(drive.id)
                yield DismountStep(library_id=self.library.id, drive_id=drive.id, reason="nobody needs it")


def _by_position(task: TapeTask) -> tuple[int, int]:
    return task.position, task.id


def _sentence(chosen: media.Chosen) -> str:
    return " ".join([f"{chosen.reason}.", *chosen.rejected])
