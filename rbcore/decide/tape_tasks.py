"""The queue of tape libraries: what operators order, what tasks need, and how that goes on. What is begun when: ``rbcore.tape_dispatch``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

from rbcore.commands import (
    AdvanceTapeTask,
    Command,
    Context,
    QueueDriveCleaning,
    QueueTapeTasks,
    QueueTapeWork,
    RecoverTapeTasks,
    TapeOrder,
)
from rbcore.configuration import configured
from rbcore.decide.decision import Decision, Draft, bounded, get, get_all
from rbcore.decide.fields import invalid
from rbcore.decide.tape_inventory import slots_of
from rbcore.decide.tasks import change_status
from rbcore.entities import LibrarySlot, Pool, TapeCartridge, TapeDrive, TapeLibrary, TapeTask, Task
from rbcore.errors import InvalidRequest, NotAllowedNow, NotFound, Refused
from rbcore.events import DriveDismounted, DriveStatusChanged, TapeTaskQueued, TapeTaskRemoved, TapeTaskStatusChanged
from rbcore.media import place_of, why_kept
from rbcore.state import State
from rbcore.tape.barcode import can_partition, is_worm
from rbcore.task import GIVEN_OUT
from rbcore.vocabulary import (
    ACTIVE_STATUSES,
    ACTIVE_TAPE_TASK_STATUSES,
    PRIORITY_DEFAULT,
    TAPE_TASK_STATUSES,
    CartridgeStatus,
    DriveStatus,
    PoolType,
    SlotType,
    TapeTaskType,
    TaskStatus,
)

TITLE: Final = "Tl Task Queue"
ORDERS_MAX: Final = 10_000
"""Cartridges that one request names."""
ENDED_MAX: Final = 10_000
"""Ended tape tasks that are kept of each library; the log keeps all."""
REMOVED_MAX: Final = 1_000
"""Ended ones that a newly queued one pushes out at most; later ones push out the rest."""
ORDERS: Final = (
    TapeTaskType.FORMAT,
    TapeTaskType.ERASE,
    TapeTaskType.CHECK_LTFS,
    TapeTaskType.EXPORT,
    TapeTaskType.MOVE,
)
"""What an operator orders for a cartridge."""
WORK: Final = frozenset({TapeTaskType.READ, TapeTaskType.WRITE})
"""What tasks need."""
_OVERWRITING: Final = frozenset({TapeTaskType.FORMAT, TapeTaskType.ERASE})
_MOUNTING: Final = _OVERWRITING | {TapeTaskType.CHECK_LTFS}
_ACTIVE: Final = frozenset(ACTIVE_TAPE_TASK_STATUSES)
_ANYWHERE: Final = frozenset({TaskStatus.DONE, TaskStatus.ERROR, TaskStatus.KILLED})
TRANSITIONS: Final[dict[str, frozenset[str]]] = {
    TaskStatus.NEW: _ANYWHERE | {TaskStatus.ASSIGNED, TaskStatus.EXECUTION, TaskStatus.SUSPENDED},
    TaskStatus.ASSIGNED: _ANYWHERE | {TaskStatus.NEW, TaskStatus.EXECUTION, TaskStatus.SUSPENDED},
    TaskStatus.EXECUTION: _ANYWHERE | {TaskStatus.NEW, TaskStatus.SUSPENDED},
    TaskStatus.SUSPENDED: _ANYWHERE | {TaskStatus.NEW, TaskStatus.ASSIGNED, TaskStatus.EXECUTION},
    TaskStatus.DONE: frozenset(),
    TaskStatus.ERROR: frozenset(),
    TaskStatus.KILLED: frozenset(),
}
"""Status -> statuses that may follow. A report of anything else comes late, and changes nothing."""
assert set(TRANSITIONS) == set(TAPE_TASK_STATUSES)


def active_tasks_of(state: State, library_id: int) -> list[TapeTask]:
    """Ascending by id."""
    numbers = state.indexes.active_tape_tasks.get(library_id, ())
    return [state.tables[TapeTask.KIND][one] for one in sorted(numbers)]


def _add(draft: Draft, task_type: str, library_id: int, **fields: Any) -> int:
    """A new tape task; fields that are not given are those of nothing. Its id."""
    given: dict[str, Any] = {
        "cartridge_id": 0,
        "drive_id": 0,
        "slot_id": 0,
        "pool_id": 0,
        "parent_task_id": 0,
        "backup_id": 0,
        "position": 0,
        "is_long_erase": False,
        "priority": PRIORITY_DEFAULT,
    }
    task_id = draft.take_id(TapeTask)
    event = TapeTaskQueued(task_type=task_type, library_id=library_id, **(given | fields))
    draft.add(TapeTask, task_id, event)
    return task_id


def _push_out(draft: Draft, added: int) -> None:
    """The oldest ended ones go: beyond ``ENDED_MAX`` of a library, and all of libraries that are gone. ``added``: how many were just queued."""
    room = max(REMOVED_MAX, 2 * added)
    for library_id, ended in sorted(draft.state.indexes.ended_tape_tasks.items()):
        kept = ENDED_MAX if draft.state.find(TapeLibrary, library_id) is not None else 0
        going = ended[: min(room, max(0, len(ended) - kept))]
        for tape_task_id in going:
            draft.add(TapeTask, tape_task_id, TapeTaskRemoved())
        room -= len(going)


# --- an operator's orders --------------------------------------------------------------------------------------------------


def queue_orders(state: State, command: QueueTapeTasks, context: Context) -> Decision:
    """All or nothing. Raises ``NotFound`` for libraries and tags that nobody knows, ``Refused`` with a sentence per cartridge that cannot."""
    if command.task_type not in ORDERS:
        raise InvalidRequest(f"'{command.task_type}' is not one of {', '.join(ORDERS)}.")
    orders = command.orders
    if not 0 < len(orders) <= ORDERS_MAX:
        raise invalid(TITLE, {"data": [f"data: between 1 and {ORDERS_MAX} cartridges are named"]})
    get_all(state, TapeLibrary, [one.library_id for one in orders], "tape library")
    cartridges = _named(state, orders)
    counts = Counter(one.id for one in cartridges)
    ordered = {task.cartridge_id: task for task in _orders_waiting(state, {one.library_id for one in orders})}
    targets = Counter(one.slot_id for one in orders if command.task_type == TapeTaskType.MOVE)
    targets.update(task.slot_id for task in ordered.values() if task.task_type == TapeTaskType.MOVE)
    errors: dict[str, list[str]] = {}
    for order, cartridge in zip(orders, cartridges, strict=True):
        why = _why_not(state, command.task_type, order, cartridge)
        if not why and counts[cartridge.id] > 1:
            why = "it is named twice"
        if not why and cartridge.id in ordered:
            task = ordered[cartridge.id]
            why = f"tape task {task.id} ({task.task_type}, {task.status}) is ordered for it"
        if not why and command.task_type == TapeTaskType.MOVE and targets[order.slot_id] > 1:
            why = f"another cartridge is ordered to slot {order.slot_id}"
        if why:
            errors[cartridge.volume_tag] = [
                f"{command.task_type} of cartridge {cartridge.volume_tag} is refused: {why}."
            ]
    if errors:
        raise Refused(next(iter(errors.values()))[0], errors=errors, data={"volume_tags": list(errors)})
    draft = Draft(state)
    ids = [
        _add(
            draft,
            command.task_type,
            order.library_id,
            cartridge_id=cartridge.id,
            slot_id=order.slot_id if command.task_type == TapeTaskType.MOVE else 0,
            pool_id=cartridge.pool,
            is_long_erase=order.is_long_erase and command.task_type == TapeTaskType.ERASE,
        )
        for order, cartridge in zip(orders, cartridges, strict=True)
    ]
    _push_out(draft, len(ids))
    return draft.decision(ids=ids, data={"tasks_ids": ids})


def _named(state: State, orders: list[TapeOrder]) -> list[TapeCartridge]:
    found = [state.by_key(TapeCartridge, one.volume_tag) for one in orders]
    missing = list(dict.fromkeys(one.volume_tag for one, known in zip(orders, found, strict=True) if known is None))
    if missing:
        sentences = [f"There is no tape cartridge '{one}'." for one in missing]
        raise NotFound(
            "tape cartridge not found", errors={"volume_tag": bounded(sentences)}, data={"volume_tags": missing}
        )
    return [one for one in found if one is not None]


def _orders_waiting(state: State, library_ids: set[int]) -> Iterator[TapeTask]:
    """Operators' orders that have not ended, in these libraries."""
    for library_id in sorted(library_ids):
        for task in active_tasks_of(state, library_id):
            if task.task_type in ORDERS and task.cartridge_id:
                yield task


def _why_not(state: State, task_type: str, order: TapeOrder, cartridge: TapeCartridge) -> str:
    if cartridge.library_id != order.library_id or not cartridge.slot_id:
        return f"it is not in library {order.library_id}, but {place_of(state, cartridge)}"
    if task_type in _MOUNTING and cartridge.status == CartridgeStatus.CLEANING:
        return "it cleans drives"
    if task_type in _OVERWRITING and (kept := why_kept(state, cartridge)):
        return f"{kept}; delete them first"
    if task_type == TapeTaskType.ERASE and is_worm(cartridge.volume_tag):
        return "it is written only once"
    if task_type == TapeTaskType.FORMAT:
        pool = state.find(Pool, cartridge.pool)
        if pool is not None and pool.pool_type == PoolType.TAPE_LTFS and not can_partition(cartridge.type):
            return f"it is {cartridge.type}, and LTFS needs LTO-5 or newer; import it into a Native pool"
    if task_type == TapeTaskType.EXPORT:
        if cartridge.exported:
            return "it is exported"
        if not any(one.type == SlotType.IMPORT_EXPORT for one in slots_of(state, order.library_id)):
            return f"library {order.library_id} has no import-export element: take it out by hand and synchronise the library"
    return _why_not_to(state, order, cartridge) if task_type == TapeTaskType.MOVE else ""


def _why_not_to(state: State, order: TapeOrder, cartridge: TapeCartridge) -> str:
    slot = state.find(LibrarySlot, order.slot_id)
    if slot is None or slot.library_id != order.library_id:
        return f"library {order.library_id} has no slot {order.slot_id}"
    if slot.type == SlotType.DRIVE:
        return f"slot {slot.id} is a drive; cartridges are brought there when they are needed"
    if slot.is_full:
        return f"slot {slot.id} holds {slot.volume_tag or 'a cartridge without a bar code'}"
    if slot.exception:
        return f"the changer says of slot {slot.id}: {slot.exception}"
    if any(one.moving_to_slot_id == slot.id for one in state.all(TapeCartridge) if one.id != cartridge.id):
        return f"another cartridge is on its way to slot {slot.id}"
    return ""


def queue_cleaning(state: State, command: QueueDriveCleaning, context: Context) -> Decision:
    """One at a time: a repeat gets the first."""
    drive = get(state, TapeDrive, command.drive_id, "tape drive")
    draft = Draft(state)
    for task in active_tasks_of(state, drive.library_id):
        if task.task_type == TapeTaskType.CLEAN and task.drive_id == drive.id:
            return draft.decision(ids=[task.id], data={"tasks_ids": [task.id]})
    if drive.status == DriveStatus.ERROR:
        raise NotAllowedNow(f"Drive {drive.id} is quarantined ({drive.status_reason}): synchronise its library first.")
    task_id = _add(draft, TapeTaskType.CLEAN, drive.library_id, drive_id=drive.id)
    why = TapeTaskStatusChanged(TaskStatus.NEW, TaskStatus.NEW, bounded([command.reason])[0])
    draft.add(TapeTask, task_id, why)
    _push_out(draft, 1)
    return draft.decision(ids=[task_id], data={"tasks_ids": [task_id]})


# --- what tasks need -------------------------------------------------------------------------------------------------------


def queue_work(state: State, command: QueueTapeWork, context: Context) -> Decision:
    """A Write names no cartridge: which one is decided when a drive turns to it."""
    if command.task_type not in WORK:
        raise InvalidRequest(f"'{command.task_type}' is not one of {', '.join(sorted(WORK))}.")
    if command.position < 0:
        raise InvalidRequest("position: it is not negative.")
    task = get(state, Task, command.task_id, "task")
    library = get(state, TapeLibrary, command.library_id, "tape library")
    is_read = command.task_type == TapeTaskType.READ
    cartridge = get(state, TapeCartridge, command.cartridge_id, "tape cartridge") if is_read else None
    draft = Draft(state)
    for number in sorted(state.indexes.tape_tasks_of_task.get(task.id, ())):
        known = state.tables[TapeTask.KIND][number]
        if known.task_type == command.task_type and (cartridge is None or known.cartridge_id == cartridge.id):
            return draft.decision(ids=[known.id])
    if task.status not in ACTIVE_STATUSES:
        raise NotAllowedNow(f"Task {task.id} is {task.status}: it needs no cartridge any more.")
    if cartridge is not None and cartridge.library_id != library.id:
        raise NotAllowedNow(
            f"Cartridge {cartridge.volume_tag} is not in library {library.id}, but {place_of(state, cartridge)}."
        )
    pool_id = cartridge.pool if cartridge is not None else (task.target_pool_id or task.pool_id)
    task_id = _add(
        draft,
        command.task_type,
        library.id,
        cartridge_id=cartridge.id if cartridge is not None else 0,
        pool_id=pool_id,
        parent_task_id=task.id,
        backup_id=task.backup_id,
        position=command.position,
        priority=task.priority,
    )
    _push_out(draft, 1)
    return draft.decision(ids=[task_id])


# --- how it goes on --------------------------------------------------------------------------------------------------------


def advance(state: State, command: AdvanceTapeTask, context: Context) -> Decision:
    """Reply data: ``{"status": the tape task's status then}``."""
    task = get(state, TapeTask, command.tape_task_id, "tape library task")
    if command.status not in TRANSITIONS:
        raise InvalidRequest(f"'{command.status}' is not a status of tape library tasks.")
    draft = Draft(state)
    reason = bounded([command.reason])[0]
    drive_id, cartridge_id = command.drive_id or task.drive_id, command.cartridge_id or task.cartridge_id
    if command.status == task.status:
        says = (reason or task.status_reason, drive_id, cartridge_id)
        is_news = task.status in _ACTIVE and says != (task.status_reason, task.drive_id, task.cartridge_id)
        follows = is_news
        reason = reason or task.status_reason
    else:
        follows = command.status in TRANSITIONS[task.status]
    if not follows:
        return draft.decision(ids=[task.id], data={"status": task.status})
    event = TapeTaskStatusChanged(task.status, command.status, reason, command.drive_id, command.cartridge_id)
    draft.add(TapeTask, task.id, event)
    if command.status == TaskStatus.ERROR and task.task_type in WORK:
        parent = state.find(Task, task.parent_task_id)
        if parent is not None and parent.status in GIVEN_OUT:
            period_ns = int(configured(state, "suspended_task_restart_period")) * 60 * 10**9
            change_status(draft, parent, TaskStatus.SUSPENDED, reason, context.now_ns + period_ns)
    return draft.decision(ids=[task.id], data={"status": command.status})


def recover(state: State, command: RecoverTapeTasks, context: Context) -> Decision:
    """After a start nothing is mounted for anybody. Where cartridges lie says the inventory; a drive that was silent is asked again."""
    draft = Draft(state)
    reason = "the daemon was started anew"
    for library_id in sorted(state.indexes.active_tape_tasks):
        for task in active_tasks_of(state, library_id):
            if task.task_type in WORK:
                draft.add(TapeTask, task.id, TapeTaskStatusChanged(task.status, TaskStatus.KILLED, reason))
            elif task.status in (TaskStatus.ASSIGNED, TaskStatus.EXECUTION):
                again = f"begins again: {reason}"
                draft.add(TapeTask, task.id, TapeTaskStatusChanged(task.status, TaskStatus.NEW, again))
    for drive in state.all(TapeDrive):
        if drive.cartridge_id or drive.mounting:
            draft.add(TapeDrive, drive.id, DriveDismounted(drive.cartridge_id, reason))
        elif drive.status in (DriveStatus.BUSY, DriveStatus.CLEANING):
            draft.add(TapeDrive, drive.id, DriveStatusChanged(DriveStatus.FREE, reason))
    return draft.decision()


DECIDERS: dict[type[Command], Callable[[State, Any, Context], Decision]] = {
    QueueTapeTasks: queue_orders,
    QueueDriveCleaning: queue_cleaning,
    QueueTapeWork: queue_work,
    AdvanceTapeTask: advance,
    RecoverTapeTasks: recover,
}
