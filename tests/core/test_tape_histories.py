"""Any history of a tape library: random hands in it, robots, drives, operators and crashes, with references that exist and others that do not.

Held after every command (``World``): decide changes nothing, everything can be taken back, indexes are what the tables say. Held by this machine:
nothing is raised but ``RbError``; cartridges and slots agree; a move is open exactly as long as its intent has no outcome; what holds
archives is not overwritten; an inventory says everything there is to say at once.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rbcore import commands as c
from rbcore.entities import Backup, LibrarySlot, TapeCartridge, TapeDrive, TapeTask, Task
from rbcore.errors import RbError
from rbcore.vocabulary import (
    ACTIVE_STATUSES,
    DRIVE_STATUSES,
    LIBRARY_STATUSES,
    SLOT_TYPES,
    TAPE_TASK_STATUSES,
    CartridgeStatus,
    DriveStatus,
)
from tests.core.tape_world import CLEANER, POOL, TYPES, A, B, TapeWorld, device, drive_facts
from tests.core.world import replay

TAGS = (A, B, "CCC001L9", "DDD001L8", CLEANER, "EEE001", "")
ADDRESSES = (*TYPES, 1030)
BLAMES = ("", "cartridge", "drive", "changer")
_OPENS, _CLOSES = "cartridge.move_begun", ("cartridge.moved", "cartridge.move_failed")
_OVERWRITES = ("cartridge.labelling_begun", "cartridge.labelled", "cartridge.erasing_begun", "cartridge.erased")

reasons = st.sampled_from(["", "as drawn", "it jammed"])


class Tapes(RuleBasedStateMachine):
    """See the module."""

    @initialize(count=st.integers(0, 3), pool_type=st.sampled_from(["Tape library", "Tape library, Native"]))
    def begin(self, count: int, pool_type: str) -> None:
        self.world = TapeWorld()
        self.world.installed()
        self.world.client()
        self.world.pool(pool_type=pool_type)
        for tag in TAGS[:count]:
            self.world.register(tag)
        self.world.shelf = dict(zip((1024, 1025, 768, 1026), TAGS, strict=False))
        self.world.library_id = self.world.run(self.world.adding()).ids[0]
        self.seen = 0
        self.moves: set[str] = set()

    # --- what goes on ------------------------------------------------------------------------------------------------------

    def ask(self, command: c.Command) -> bool:
        """Whether it was accepted. Anything but an ``RbError`` is a bug."""
        try:
            self.world.run(command)
        except RbError:
            return False
        finally:
            self.look_at_news()
        return True

    def look_at_news(self) -> None:
        state = self.world.state
        for stream, _, _, _, type_, _ in self.world.log[self.seen :]:
            if type_ == _OPENS:
                assert stream not in self.moves
                self.moves.add(stream)
            elif type_ in _CLOSES:
                self.moves.discard(stream)
            elif type_ in _OVERWRITES:
                assert not state.indexes.backups_on_cartridge.get(int(stream.partition("/")[2]))
        self.seen = len(self.world.log)

    def pick(self, data: st.DataObject, kind: str) -> int:
        """An id, mostly one that exists."""
        known = sorted(self.world.state.tables[kind])
        return data.draw(st.sampled_from([*known, *known, *known, 0, 99]))

    # --- hands ---------------------------------------------------------------------------------------------------------------

    @rule(address=st.sampled_from(ADDRESSES), tag=st.sampled_from(TAGS))
    def put_in(self, address: int, tag: str) -> None:
        self.world.shelf[address] = tag

    @rule(address=st.sampled_from(ADDRESSES))
    def take_out(self, address: int) -> None:
        self.world.shelf.pop(address, None)

    @rule(source=st.sampled_from(ADDRESSES), other=st.sampled_from(ADDRESSES))
    def exchange(self, source: int, other: int) -> None:
        shelf = self.world.shelf
        here, there = shelf.pop(source, None), shelf.pop(other, None)
        if here is not None:
            shelf[other] = here
        if there is not None:
            shelf[source] = there

    @rule(address=st.sampled_from(ADDRESSES), type=st.sampled_from([None, *SLOT_TYPES]))
    def rebuild(self, address: int, type: str | None) -> None:
        if type is not None:
            self.world.types[address] = type
        elif len(self.world.types) > 1:
            self.world.types.pop(address, None)

    @rule(address=st.sampled_from(ADDRESSES), text=st.sampled_from(["", "the door is open"]))
    def complain(self, address: int, text: str) -> None:
        self.world.exceptions[address] = text

    # --- inventories -----------------------------------------------------------------------------------------------------------

    def library_is_there(self) -> bool:
        return self.world.library_id in self.world.state.tables["tape_library"]

    @precondition(library_is_there)
    @rule(reason=reasons)
    def look(self, reason: str) -> None:
        world = self.world
        reply = world.sync(reason)
        self.look_at_news()
        full = [one.volume_tag for one in world.elements() if one.is_full]
        for tag in {tag for tag in full if tag}:
            assert (tag in reply.data["unknown"]) == (world.state.by_key(TapeCartridge, tag) is None)
            if full.count(tag) > 1:
                assert tag in reply.data["twice"]
        for element in world.elements():
            slot = world.slot(element.address)
            assert (slot.is_full, slot.type) == (element.is_full, element.type)
            if element.volume_tag and element.is_full:
                assert slot.volume_tag == element.volume_tag
        for cartridge in world.state.all(TapeCartridge):
            target = world.state.find(LibrarySlot, cartridge.moving_to_slot_id)
            assert target is None or target.library_id != world.library_id, "no intent stays open"
            if full.count(cartridge.volume_tag) == 1:
                assert cartridge.slot_id
        before = world.state.position
        again = world.sync(reason)
        assert (again.data["changes"], world.state.position) == (0, before)
        assert again.data | {"changes": 0} == reply.data | {"changes": 0}

    @rule(data=st.data())
    def look_at_nonsense(self, data: st.DataObject) -> None:
        elements = data.draw(st.lists(st.sampled_from(self.world.elements()), max_size=3))
        if data.draw(st.booleans()):
            elements.append(c.ElementFacts(address=data.draw(st.integers(-1, 3)), type="hand", is_full=True))
        library_id = self.pick(data, "tape_library")
        self.ask(c.RecordInventory(library_id=library_id, elements=elements, reason="nonsense"))

    # --- records ---------------------------------------------------------------------------------------------------------------

    @rule(tag=st.sampled_from(TAGS), type=st.sampled_from(["LTO-9", "LTO-8", "CLN"]))
    def register(self, tag: str, type: str) -> None:
        fields = {"volume_tag": tag, "pool": POOL, "type": type}
        self.ask(c.CreateRecord(resource="tape_cartridges", fields=fields))

    @rule(data=st.data(), tag=st.sampled_from(TAGS))
    def rename(self, data: st.DataObject, tag: str) -> None:
        cartridge_id = self.pick(data, "tape_cartridge")
        self.ask(c.ChangeRecord(resource="tape_cartridges", id=cartridge_id, changes={"volume_tag": tag}))

    @precondition(lambda self: len(self.world.log) % 4 == 0)  # now and then: without a library little happens
    @rule(data=st.data(), which=st.sampled_from(["tape_cartridges", "library_tape_drives", "tape_libraries"]))
    def delete(self, data: st.DataObject, which: str) -> None:
        kinds = {
            "tape_cartridges": "tape_cartridge",
            "library_tape_drives": "tape_drive",
            "tape_libraries": "tape_library",
        }
        self.ask(c.DeleteRecords(resource=which, ids=[self.pick(data, kinds[which])]))

    @precondition(lambda self: len(self.world.log) % 4 == 0 or not self.library_is_there())
    @rule(number=st.integers(1, 3), with_drives=st.booleans())
    def add_library(self, number: int, with_drives: bool) -> None:
        drives = [drive_facts(f"{number}d", 256, partitions_max=number)] if with_drives else []
        if self.ask(self.world.adding(changer=device(f"changer{number}"), drives=drives)):
            self.world.library_id = max(self.world.state.tables["tape_library"])

    @rule(data=st.data(), name=st.sampled_from(["drive256", "drive257", "extra"]), address=st.sampled_from(ADDRESSES))
    def add_drive(self, data: st.DataObject, name: str, address: int) -> None:
        drives = [drive_facts(name, address)]
        self.ask(c.AddTapeDrives(library_id=self.pick(data, "tape_library"), drives=drives))

    @rule(data=st.data(), status=st.sampled_from([*LIBRARY_STATUSES, "?"]), reason=reasons)
    def set_library_status(self, data: st.DataObject, status: str, reason: str) -> None:
        library_id = self.pick(data, "tape_library")
        self.ask(c.SetLibraryStatus(library_id=library_id, status=status, reason=reason))

    # --- robots and drives ---------------------------------------------------------------------------------------------------------

    @rule(data=st.data(), failure=reasons, ends=st.booleans())
    def move(self, data: st.DataObject, failure: str, ends: bool) -> None:
        cartridge_id = self.pick(data, "tape_cartridge")
        begin = c.BeginMove(cartridge_id=cartridge_id, to_slot_id=self.pick(data, "library_slot"), reason="as drawn")
        self.ask(begin)
        if ends:
            self.ask(c.EndMove(cartridge_id=cartridge_id, failure=failure))
            self.ask(c.MarkExported(cartridge_id=cartridge_id, reason="as drawn"))

    @rule(data=st.data(), pool=st.sampled_from([POOL, "Default", "nowhere"]))
    def bring_in(self, data: st.DataObject, pool: str) -> None:
        self.ask(c.ImportCartridges(library_id=self.pick(data, "tape_library"), pool_name=pool))

    @rule(data=st.data())
    def begin_mount(self, data: st.DataObject) -> None:
        command = c.BeginMount(
            drive_id=self.pick(data, "tape_drive"),
            cartridge_id=self.pick(data, "tape_cartridge"),
            reason="as drawn",
            tape_task_id=self.pick(data, "tape_task"),
        )
        self.ask(command)

    @rule(data=st.data(), is_right=st.booleans(), failure=reasons, blame=st.sampled_from(BLAMES))
    def end_mount(self, data: st.DataObject, is_right: bool, failure: str, blame: str) -> None:
        state = self.world.state
        mounting = [one for one in state.all(TapeDrive) if one.mounting]
        drive_id = data.draw(st.sampled_from([one.id for one in mounting] or [0]))
        drive = state.find(TapeDrive, drive_id)
        cartridge_id = drive.cartridge_id if drive is not None else self.pick(data, "tape_cartridge")
        cartridge = state.find(TapeCartridge, cartridge_id)
        found = c.CartridgeFacts(
            contents=data.draw(st.sampled_from(["blank", "native", "ltfs", "foreign", "unreadable", "?"])),
            label_id=data.draw(st.sampled_from(["", "77"])),
            server=data.draw(st.sampled_from(["", "ab" * 8])),
            volume_tag=data.draw(st.sampled_from(["", *TAGS])),
        )
        if is_right and cartridge is not None:
            found = c.CartridgeFacts(**self.world.own_facts(cartridge.volume_tag))
            failure = ""
        command = c.EndMount(drive_id=drive_id, cartridge_id=cartridge_id, found=found, failure=failure, blame=blame)
        self.ask(command)

    @rule(data=st.data(), writes=st.booleans())
    def mount_and_label(self, data: st.DataObject, writes: bool) -> None:
        """The way it mostly goes, so that histories get somewhere."""
        free = [one.id for one in self.world.state.all(TapeDrive) if one.status == DriveStatus.FREE]
        drive_id, cartridge_id = data.draw(st.sampled_from(free or [0])), self.pick(data, "tape_cartridge")
        state = self.world.state
        if not self.ask(c.BeginMount(drive_id=drive_id, cartridge_id=cartridge_id, reason="as drawn")):
            return
        drive, cartridge = state.tables["tape_drive"][drive_id], state.tables["tape_cartridge"][cartridge_id]
        slot = state.by_key(LibrarySlot, (drive.library_id, drive.element_address))
        if slot is not None and self.ask(c.BeginMove(cartridge_id=cartridge_id, to_slot_id=slot.id, reason="as drawn")):
            self.ask(c.EndMove(cartridge_id=cartridge_id))
        found = c.CartridgeFacts(**self.world.own_facts(cartridge.volume_tag))
        self.ask(c.EndMount(drive_id=drive_id, cartridge_id=cartridge_id, found=found))
        self.ask(c.BeginLabelling(cartridge_id=cartridge_id, drive_id=drive_id, format="native", reason="as drawn"))
        use = cartridge.use + 1
        self.ask(c.EndLabelling(cartridge_id=cartridge_id, format="native", label_id=f"{cartridge_id:032x}", use=use))
        if writes:
            task_id = self.world.transmitting(self.world.queued()).id
            command = c.RecordCartridgeWritten(cartridge_id=cartridge_id, used_bytes=9, full=False, task_id=task_id)
            if self.ask(command) and data.draw(st.booleans()):
                self.record(task_id)

    @rule(data=st.data(), failure=reasons, blame=st.sampled_from(BLAMES), begins=st.booleans(), ends=st.booleans())
    def dismount(self, data: st.DataObject, failure: str, blame: str, begins: bool, ends: bool) -> None:
        drive_id = self.pick(data, "tape_drive")
        if begins:
            self.ask(c.BeginDismount(drive_id=drive_id, reason="as drawn"))
        if ends:
            self.ask(c.EndDismount(drive_id=drive_id, failure=failure, blame=blame))

    @rule(data=st.data(), status=st.sampled_from([*DRIVE_STATUSES, "?"]), reason=reasons)
    def drive_reports(self, data: st.DataObject, status: str, reason: str) -> None:
        drive_id, cartridge_id = self.pick(data, "tape_drive"), self.pick(data, "tape_cartridge")
        facts = drive_facts("drive256", 256, partitions_max=data.draw(st.integers(1, 4)))
        commands: list[c.Command] = [
            c.SetDriveStatus(drive_id=drive_id, status=status, reason=reason),
            c.CountDriveFailure(drive_id=drive_id, reason=reason),
            c.RecordDriveFacts(drive_id=drive_id, facts=facts),
            c.AskDriveCleaning(drive_id=drive_id, reason=reason),
            c.RecordDriveCleaned(drive_id=drive_id, cartridge_id=cartridge_id),
            c.QueueDriveCleaning(drive_id=drive_id),
        ]
        self.ask(data.draw(st.sampled_from(commands)))

    @rule(data=st.data(), failure=reasons, is_long=st.booleans())
    def overwrite(self, data: st.DataObject, failure: str, is_long: bool) -> None:
        busy = [one.id for one in self.world.state.all(TapeDrive) if one.mounted_ns]
        drive_id = data.draw(st.sampled_from(busy)) if busy else self.pick(data, "tape_drive")
        drive = self.world.state.find(TapeDrive, drive_id)
        mounted = drive.cartridge_id if drive is not None else 0
        cartridge_id = mounted or self.pick(data, "tape_cartridge")
        named: dict[str, Any] = {"cartridge_id": cartridge_id, "drive_id": drive_id, "reason": "as drawn"}
        label: dict[str, Any] = {"cartridge_id": cartridge_id, "format": "native", "label_id": "77", "use": 1}
        commands: list[c.Command] = [
            c.BeginLabelling(format=data.draw(st.sampled_from(["native", "ltfs", "tar"])), **named),
            c.EndLabelling(failure=failure, **label),
            c.BeginErasing(is_long=is_long, **named),
            c.EndErasing(cartridge_id=cartridge_id, is_long=is_long, failure=failure),
        ]
        self.ask(data.draw(st.sampled_from(commands)))

    @rule(data=st.data(), kind=st.sampled_from(["read", "write", "load", "mood"]), reason=reasons)
    def cartridge_fails(self, data: st.DataObject, kind: str, reason: str) -> None:
        cartridge_id = self.pick(data, "tape_cartridge")
        self.ask(c.CountCartridgeError(cartridge_id=cartridge_id, kind=kind, reason=reason))
        if kind == "mood":
            self.ask(c.QuarantineCartridge(cartridge_id=cartridge_id, reason=reason))

    # --- archives --------------------------------------------------------------------------------------------------------------

    @rule(data=st.data(), full=st.booleans(), used_bytes=st.integers(-1, 10**6))
    def write(self, data: st.DataObject, full: bool, used_bytes: int) -> None:
        tasks = [one.id for one in self.world.state.all(Task) if one.status in ACTIVE_STATUSES]
        task_id = data.draw(st.sampled_from([*tasks, 0, 99]))
        cartridge_id = self.pick(data, "tape_cartridge")
        command = c.RecordCartridgeWritten(cartridge_id=cartridge_id, used_bytes=used_bytes, full=full, task_id=task_id)
        self.ask(command)

    @rule(goes_on=st.booleans())
    def back_up(self, goes_on: bool) -> None:
        task_id = self.world.queued()
        if goes_on:
            self.world.transmitting(task_id)
        self.look_at_news()

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """An archive is recorded with the cartridges to which its task has written."""
        running = [one.id for one in self.world.state.tasks_in("Transmission")]
        if not running:
            return
        self.record(data.draw(st.sampled_from(running)))

    def record(self, task_id: int) -> None:
        tags = [one.volume_tag for one in self.world.state.all(TapeCartridge) if task_id in one.written_by]
        backup_id = self.world.finished(task_id)
        if tags:
            self.world.put_on(backup_id, *tags)
        self.look_at_news()

    @rule(data=st.data())
    def delete_backup(self, data: st.DataObject) -> None:
        self.ask(c.DeleteBackups(ids=[self.pick(data, "backup")]))

    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        task_id = self.pick(data, "task")
        self.ask(c.KillTask(task_id=task_id))
        self.ask(c.AdvanceTask(task_id=task_id, status="Killed"))

    # --- the queue -------------------------------------------------------------------------------------------------------------

    @rule(data=st.data(), type=st.sampled_from(["Format", "Erase", "Check LTFS", "Export", "Move", "Read"]))
    def order(self, data: st.DataObject, type: str) -> None:
        known = list(self.world.state.all(TapeCartridge))
        named = [(one.volume_tag, one.library_id) for one in known] * 3 + [("GONE01L9", 1), (A, 99)]
        orders = [
            c.TapeOrder(library_id=library_id, volume_tag=tag, slot_id=self.pick(data, "library_slot"))
            for tag, library_id in data.draw(st.lists(st.sampled_from(named), max_size=2))
        ]
        self.ask(c.QueueTapeTasks(task_type=type, orders=orders))

    @rule(data=st.data(), type=st.sampled_from(["Read", "Write", "Move"]), position=st.integers(-1, 5))
    def need(self, data: st.DataObject, type: str, position: int) -> None:
        command = c.QueueTapeWork(
            task_type=type,
            task_id=self.pick(data, "task"),
            library_id=self.pick(data, "tape_library"),
            cartridge_id=self.pick(data, "tape_cartridge"),
            position=position,
        )
        if self.ask(command):
            before = self.world.state.position
            self.world.run(command)
            assert self.world.state.position == before, "a repeat gets the first"

    @rule(data=st.data(), status=st.sampled_from([*TAPE_TASK_STATUSES, "Broken"]), reason=reasons)
    def advance(self, data: st.DataObject, status: str, reason: str) -> None:
        command = c.AdvanceTapeTask(
            tape_task_id=self.pick(data, "tape_task"),
            status=status,
            reason=reason,
            drive_id=self.pick(data, "tape_drive"),
        )
        if self.ask(command):
            before = self.world.state.position
            self.ask(command)
            assert self.world.state.position == before, "a repeat changes nothing"

    @rule()
    def crash(self) -> None:
        self.world.run(c.RecoverTasks())
        self.world.run(c.RecoverTapeTasks())
        self.look_at_news()
        for drive in self.world.state.all(TapeDrive):
            assert not drive.cartridge_id
            assert not drive.mounting
            assert drive.status not in (DriveStatus.BUSY, DriveStatus.CLEANING)
        for task in self.world.state.all(TapeTask):
            assert task.status not in ("Assigned", "Execution")

    # --- what must hold ----------------------------------------------------------------------------------------------------------

    @invariant()
    def cartridges_and_slots_agree(self) -> None:
        state = self.world.state
        for slot in state.all(LibrarySlot):
            if slot.cartridge_id:
                cartridge = state.tables["tape_cartridge"][slot.cartridge_id]
                assert (cartridge.slot_id, cartridge.library_id) == (slot.id, slot.library_id)
                assert slot.is_full
        for cartridge in state.all(TapeCartridge):
            if cartridge.slot_id:
                assert state.tables["library_slot"][cartridge.slot_id].cartridge_id == cartridge.id

    @invariant()
    def moves_are_open_as_long_as_they_are(self) -> None:
        moving = {f"tape_cartridge/{one.id}" for one in self.world.state.all(TapeCartridge) if one.moving_to_slot_id}
        gone = {
            one for one in self.moves if int(one.partition("/")[2]) not in self.world.state.tables["tape_cartridge"]
        }
        assert moving == self.moves - gone

    @invariant()
    def what_holds_archives_is_left_alone(self) -> None:
        state = self.world.state
        for backup in state.all(Backup):
            for part in backup.parts:
                cartridge = state.tables["tape_cartridge"][part.cartridge_id]
                assert not cartridge.intent
                assert cartridge.status in (
                    CartridgeStatus.APPENDABLE,
                    CartridgeStatus.FULL,
                    CartridgeStatus.QUARANTINED,
                ), cartridge

    @invariant()
    def drives_hold_one_each(self) -> None:
        held = [one.cartridge_id for one in self.world.state.all(TapeDrive) if one.cartridge_id]
        assert len(held) == len(set(held))
        for drive in self.world.state.all(TapeDrive):
            assert not drive.mounting or drive.cartridge_id
            assert drive.status != DriveStatus.FREE or not drive.cartridge_id
            assert drive.status != DriveStatus.BUSY or drive.cartridge_id

    def teardown(self) -> None:
        if hasattr(self, "world"):
            assert replay(self.world.log).digest() == self.world.state.digest()


TestTapes: Any = Tapes.TestCase
TestTapes.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
