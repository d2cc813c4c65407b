"""The planner of tape libraries against a small world in which every step succeeds at once: what it asks for, in which order, and that it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as changed

from rbcore.entities import (
    CONFIGURATION_ID,
    Configuration,
    Entity,
    LibrarySlot,
    MediumChanger,
    Pool,
    TapeCartridge,
    TapeDrive,
    TapeLibrary,
    TapeTask,
    Task,
)
from rbcore.state import State
from rbcore.tape_dispatch import (
    IDLE_SECONDS,
    STARVING_SECONDS,
    STREAMS_MAX,
    AnyStep,
    AskCleaningStep,
    DismountStep,
    DriveFacts,
    Facts,
    FailStep,
    GrantStep,
    MountStep,
    OrderStep,
    ReleaseStep,
    RobotStep,
    next_tape_steps,
)
from rbcore.vocabulary import CartridgeStatus, DriveStatus, LibraryStatus, PoolType, SlotType, TapeTaskType, TaskStatus

SECOND_NS = 10**9
POOL, OTHER_POOL = 1, 2


@dataclass
class Library:
    """One library; carrying out a step changes the state as its events would."""

    drives: int = 1
    cartridges: int = 3
    state: State = field(default_factory=State)
    now_ns: int = 10**18
    facts: dict[int, DriveFacts] = field(default_factory=dict)
    mounts: list[tuple[int, int]] = field(default_factory=list)
    """(drive, cartridge), in order."""
    granted: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        for number, name in ((POOL, "Tape"), (OTHER_POOL, "Other")):
            self.put(Pool(id=number, pool_name=name, pool_type=PoolType.TAPE_NATIVE, media_server=1))
        self.put(TapeLibrary(id=1, pool=POOL, media_server=1))
        self.put(MediumChanger(id=1, library_id=1, vendor="V", product="P", device="changer"))
        for number in range(1, self.drives + 1):
            self.put(LibrarySlot(id=1000 + number, library_id=1, address=255 + number, type=SlotType.DRIVE))
            self.put(
                TapeDrive(
                    id=number,
                    library_id=1,
                    vendor="V",
                    product="P",
                    device=f"drive{number}",
                    element_address=255 + number,
                )
            )
            self.facts[number] = DriveFacts()
        for number in range(1, self.cartridges + 1):
            self.add_cartridge(number, POOL)

    def add_cartridge(self, number: int, pool: int, status: str = CartridgeStatus.APPENDABLE) -> None:
        tag = f"VT{number:04d}L9"
        self.put(
            LibrarySlot(
                id=number,
                library_id=1,
                address=1023 + number,
                type=SlotType.STORAGE,
                is_full=True,
                volume_tag=tag,
                cartridge_id=number,
            )
        )
        self.put(
            TapeCartridge(
                id=number,
                type="LTO-9",
                volume_tag=tag,
                pool=pool,
                library_id=1,
                slot_id=number,
                home_slot_id=number,
                status=status,
                used_bytes=1000 * number,
                format="native",
            )
        )

    def fill(self, number: int) -> None:
        """The cartridge takes no more, and a task under way has written to it."""
        writer = self.state.next_id(Task)
        self.put(Task(id=writer, task_type="Backup urgent", status=TaskStatus.SUSPENDED))
        cartridge = self.state.tables["tape_cartridge"][number]
        self.put(changed(cartridge, status=CartridgeStatus.FULL, written_by=(writer,)))

    def put(self, entity: Entity) -> None:
        self.state.replace(entity.KIND, entity.id, entity)

    def ask(self, task_type: str, cartridge_id: int = 0, position: int = 0, pool: int = POOL) -> int:
        """A tape task with a parent that needs it."""
        number = self.state.next_id(TapeTask)
        parent = 0
        if task_type in (TapeTaskType.READ, TapeTaskType.WRITE):
            parent = self.state.next_id(Task)
            self.put(Task(id=parent, task_type="Restore", status=TaskStatus.ASSIGNED))
        self.put(
            TapeTask(
                id=number,
                task_type=task_type,
                status=TaskStatus.NEW,
                library_id=1,
                cartridge_id=cartridge_id,
                position=position,
                pool_id=pool if task_type == TapeTaskType.WRITE else 0,
                parent_task_id=parent,
                created_ns=self.now_ns,
            )
        )
        return number

    def look(self) -> list[AnyStep]:
        facts = Facts(drives=self.facts, libraries={1}, under_way=frozenset())
        return next_tape_steps(self.state, facts, self.now_ns, 1)

    def drive(self, number: int) -> TapeDrive:
        found = self.state.find(TapeDrive, number)
        assert found is not None
        return found

    def task(self, number: int) -> TapeTask:
        found = self.state.find(TapeTask, number)
        assert found is not None
        return found

    # --- carrying out -----------------------------------------------------------------------------------------------------

    def carry_out(self, step: AnyStep) -> None:
        match step:
            case MountStep():
                assert not self.drive(step.drive_id).cartridge_id, "only into an empty drive"
                assert step.cartridge_id not in {one.cartridge_id for one in self.state.all(TapeDrive)}
                assert step.reason
                self.mounts.append((step.drive_id, step.cartridge_id))
                drive = changed(self.drive(step.drive_id), cartridge_id=step.cartridge_id, mounted_ns=self.now_ns)
                self.put(changed(drive, status=DriveStatus.BUSY))
                self.facts[step.drive_id] = DriveFacts(
                    cartridge_id=step.cartridge_id, may_write=True, idle_since_ns=self.now_ns
                )
            case DismountStep():
                assert not self.running(step.drive_id), "nothing is taken away from a task"
                self.put(changed(self.drive(step.drive_id), cartridge_id=0, mounted_ns=0, status=DriveStatus.FREE))
                self.facts[step.drive_id] = DriveFacts()
            case GrantStep():
                task = self.task(step.tape_task_id)
                assert self.facts[step.drive_id].cartridge_id == step.cartridge_id
                self.put(
                    changed(task, status=TaskStatus.EXECUTION, drive_id=step.drive_id, cartridge_id=step.cartridge_id)
                )
                self.granted.append(task.id)
            case OrderStep() | RobotStep() | ReleaseStep():
                self.end(step.tape_task_id)
                if isinstance(step, OrderStep):
                    self.carry_out(DismountStep(library_id=1, drive_id=step.drive_id, reason="done"))
            case FailStep():
                self.end(step.tape_task_id, TaskStatus.ERROR)

    def running(self, drive_id: int) -> list[TapeTask]:
        return [
            one for one in self.state.all(TapeTask) if one.status == TaskStatus.EXECUTION and one.drive_id == drive_id
        ]

    def end(self, number: int, status: str = TaskStatus.DONE) -> None:
        task = self.task(number)
        parent = self.state.find(Task, task.parent_task_id)
        if parent is not None:
            self.put(changed(parent, status=TaskStatus.DONE))
        drive_id = task.drive_id
        self.put(changed(task, status=status))
        if drive_id and drive_id in self.facts:
            self.facts[drive_id] = changed(self.facts[drive_id], position=task.position, idle_since_ns=self.now_ns)

    def step(self) -> list[AnyStep]:
        steps = self.look()
        for one in steps:
            self.carry_out(one)
        return steps

    def work_off(self, rounds: int = 100_000) -> None:
        """Carry out, and end whatever was granted, until nothing is waiting."""
        for _ in range(rounds):
            if not self.state.indexes.active_tape_tasks.get(1):
                return
            self.step()
            for task in [one for one in self.state.all(TapeTask) if one.status == TaskStatus.EXECUTION]:
                self.end(task.id)
            self.now_ns += SECOND_NS
        raise AssertionError("tasks wait for ever")


def test_a_thousand_reads_of_ten_cartridges_mount_each_once() -> None:
    for drives in (1, 4):
        library = Library(drives=drives, cartridges=10)
        for number in range(1000):
            library.ask(TapeTaskType.READ, cartridge_id=number * 7 % 10 + 1, position=number * 37 % 1000)
        library.work_off()
        assert len(library.granted) == 1000
        assert sorted(cartridge for _, cartridge in library.mounts) == list(range(1, 11))


def test_reads_are_granted_in_the_order_of_their_positions() -> None:
    library = Library()
    tasks = {library.ask(TapeTaskType.READ, cartridge_id=1, position=place): place for place in (500, 20, 900, 0, 300)}
    library.work_off()
    first, *others = [tasks[one] for one in library.granted]
    assert first == 0 or others
    assert [first, *others] == [0, 20, 300, 500, 900]


def test_what_comes_while_the_tape_is_ahead_waits_for_the_way_back() -> None:
    library = Library()
    library.ask(TapeTaskType.READ, cartridge_id=1, position=500)
    library.step()
    library.step()
    late = library.ask(TapeTaskType.READ, cartridge_id=1, position=100)
    ahead = library.ask(TapeTaskType.READ, cartridge_id=1, position=600)
    library.end(library.granted[0])
    library.work_off()
    assert library.granted[1:] == [ahead, late]


def test_one_read_at_a_time_and_writers_side_by_side() -> None:
    library = Library(cartridges=1)
    for _ in range(STREAMS_MAX + 2):
        library.ask(TapeTaskType.WRITE)
    library.step()
    library.step()
    assert len(library.running(1)) == STREAMS_MAX
    assert library.look() == []
    library.end(library.granted[0])
    library.step()
    assert len(library.running(1)) == STREAMS_MAX


def test_writes_of_two_pools_use_two_drives() -> None:
    library = Library(drives=2, cartridges=2)
    library.add_cartridge(3, OTHER_POOL)
    library.ask(TapeTaskType.WRITE, pool=POOL)
    library.ask(TapeTaskType.WRITE, pool=OTHER_POOL)
    library.step()
    assert {library.state.tables["tape_cartridge"][one].pool for _, one in library.mounts} == {POOL, OTHER_POOL}


def test_the_fullest_appendable_cartridge_is_taken_then_scratch_then_expired() -> None:
    library = Library(cartridges=2)
    library.add_cartridge(3, POOL, CartridgeStatus.SCRATCH)
    library.add_cartridge(4, POOL, CartridgeStatus.EXPIRED)
    library.add_cartridge(5, POOL)
    library.fill(5)
    library.add_cartridge(6, POOL, CartridgeStatus.QUARANTINED)
    order = []
    for _ in range(5):
        library.ask(TapeTaskType.WRITE)
        library.work_off()
        last = library.mounts[-1][1]
        order.append(last)
        if len(order) == 5:
            break  # nothing was mounted for this one
        library.carry_out(DismountStep(library_id=1, drive_id=1, reason="test"))
        library.fill(last)
    assert order[:4] == [2, 1, 3, 4]
    assert library.state.tables["tape_task"][5].status == TaskStatus.ERROR, "no cartridge is left, and that is said"


def test_scratch_and_expired_are_labelled_appendable_are_not() -> None:
    library = Library(cartridges=1)
    library.ask(TapeTaskType.WRITE)
    (step,) = library.look()
    assert isinstance(step, MountStep)
    assert not step.label
    library = Library(cartridges=0)
    library.add_cartridge(1, POOL, CartridgeStatus.NEW)
    library.ask(TapeTaskType.WRITE)
    (step,) = library.look()
    assert isinstance(step, MountStep)
    assert step.label


@pytest.mark.parametrize("passed_seconds", [STARVING_SECONDS + 1, -86_400], ids=["an hour", "the clock is set back"])
def test_a_task_that_waited_too_long_gets_the_drive(passed_seconds: int) -> None:
    library = Library(cartridges=2)
    library.now_ns = 10 * 86_400 * SECOND_NS
    library.ask(TapeTaskType.READ, cartridge_id=1)
    library.step()
    starving = library.ask(TapeTaskType.READ, cartridge_id=2)
    for number in range(3):  # the stream of reads from the mounted cartridge never ends
        library.ask(TapeTaskType.READ, cartridge_id=1, position=number)
    library.now_ns += passed_seconds * SECOND_NS
    late = library.ask(TapeTaskType.READ, cartridge_id=1, position=9)
    for _ in range(4):
        library.step()
        for task in library.running(1):
            if task.id == starving:
                assert late not in library.granted
                return
            library.end(task.id)
    raise AssertionError("it starves")


def test_a_cartridge_out_of_reach_fails_the_read_with_its_tag() -> None:
    library = Library()
    library.put(changed(library.state.tables["tape_cartridge"][2], slot_id=0, exported=True))
    library.ask(TapeTaskType.READ, cartridge_id=2)
    (step,) = library.look()
    assert isinstance(step, FailStep)
    assert "VT0002L9" in step.reason
    assert "import" in step.reason


def test_a_library_that_is_offline_says_so_to_who_waits() -> None:
    library = Library()
    library.put(
        changed(library.state.tables["tape_library"][1], status=LibraryStatus.OFFLINE, status_reason="no answer")
    )
    library.ask(TapeTaskType.WRITE)
    (step,) = library.look()
    assert isinstance(step, FailStep)
    assert "no answer" in step.reason


def test_what_nobody_needs_any_more_is_released() -> None:
    library = Library()
    number = library.ask(TapeTaskType.READ, cartridge_id=1)
    library.step()
    library.step()
    parent = library.task(number).parent_task_id
    library.put(changed(library.state.tables["task"][parent], status=TaskStatus.KILLED))
    (step,) = library.look()
    assert isinstance(step, ReleaseStep)


def test_an_idle_cartridge_goes_back_after_a_while() -> None:
    library = Library()
    library.ask(TapeTaskType.READ, cartridge_id=1)
    library.work_off()
    assert library.look() == []
    library.now_ns += (IDLE_SECONDS + 1) * SECOND_NS
    (step,) = library.look()
    assert isinstance(step, DismountStep)


def test_a_mounted_cartridge_is_dismounted_before_it_is_moved() -> None:
    library = Library()
    library.ask(TapeTaskType.READ, cartridge_id=1)
    library.work_off()
    library.ask(TapeTaskType.EXPORT, cartridge_id=1)
    assert [type(one) for one in library.step()] == [DismountStep]
    assert [type(one) for one in library.step()] == [RobotStep]


def test_a_drive_whose_session_failed_is_emptied() -> None:
    library = Library()
    library.ask(TapeTaskType.READ, cartridge_id=1)
    library.work_off()
    library.facts[1] = changed(library.facts[1], failed="a write failed", may_write=False)
    (step,) = library.look()
    assert isinstance(step, DismountStep)
    assert step.reason == "a write failed"


ORDERS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                TapeTaskType.READ,
                TapeTaskType.READ,
                TapeTaskType.WRITE,
                TapeTaskType.ERASE,
                TapeTaskType.FORMAT,
                TapeTaskType.CHECK_LTFS,
                TapeTaskType.MOVE,
                TapeTaskType.EXPORT,
            ]
        ),
        st.integers(1, 6),
        st.integers(0, 1000),
        st.integers(0, 4000),
    ),
    max_size=25,
)


@settings(max_examples=100, deadline=None)
@given(drives=st.integers(1, 4), orders=ORDERS)
def test_everything_ends_and_nothing_is_taken_from_anybody(
    drives: int, orders: list[tuple[str, int, int, int]]
) -> None:
    library = Library(drives=drives, cartridges=6)
    for task_type, cartridge_id, position, seconds in orders:
        if task_type == TapeTaskType.WRITE:
            library.ask(task_type)
        else:
            library.ask(task_type, cartridge_id=cartridge_id, position=position)
        library.now_ns += seconds * SECOND_NS
        library.step()
    library.work_off(400)
    assert all(one.status in (TaskStatus.DONE, TaskStatus.ERROR) for one in library.state.all(TapeTask))


# --- keys of the configuration -----------------------------------------------------------------------------------------


def configured(library: Library, **values: Any) -> Library:
    library.put(Configuration(id=CONFIGURATION_ID, **values))
    return library


@pytest.mark.parametrize(("consolidating", "mounts"), [("yes", [1, 2]), ("no", [1, 2, 1, 2])])
def test_consolidating_tape_library_tasks_says_whether_work_is_grouped(consolidating: str, mounts: list[int]) -> None:
    library = configured(Library(cartridges=2), consolidating_tape_library_tasks=consolidating)
    for cartridge in (1, 2, 1, 2):
        library.ask(TapeTaskType.READ, cartridge_id=cartridge)
    library.work_off()
    assert [cartridge for _, cartridge in library.mounts] == mounts


@pytest.mark.parametrize("auto", ["yes", "no"])
def test_auto_clean_tape_drives_says_whether_a_drive_that_asks_is_cleaned(auto: str) -> None:
    library = configured(Library(), auto_clean_tape_drives=auto)
    library.put(changed(library.drive(1), cleaning_required=True))
    assert [isinstance(one, AskCleaningStep) for one in library.look()] == [True] * (auto == "yes")


@pytest.mark.parametrize("days", [1, 30])
def test_clean_tape_drives_period_says_when_a_drive_in_use_is_cleaned(days: int) -> None:
    library = configured(Library(), auto_clean_tape_drives="yes", clean_tape_drives_period=days)
    library.put(changed(library.drive(1), last_cleaned_ns=library.now_ns, mounts=5))
    library.now_ns += days * 86_400 * SECOND_NS
    assert library.look() == []
    library.now_ns += 1
    assert [type(one) for one in library.look()] == [AskCleaningStep]
