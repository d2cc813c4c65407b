"""A world with a tape library: its shelf is what a changer would report, its log what the daemon makes of it."""

from __future__ import annotations

from typing import Any

from rbcore.commands import (
    AddTapeLibrary,
    AdvanceTapeTask,
    BeginLabelling,
    BeginMount,
    CartridgeFacts,
    CreateRecord,
    DeviceFacts,
    DriveFacts,
    ElementFacts,
    EndDismount,
    EndLabelling,
    EndMount,
    QueueTapeWork,
    RecordCartridgeWritten,
    RecordInventory,
    Reply,
)
from rbcore.entities import LibrarySlot, TapeCartridge, TapeDrive, TapeTask
from rbcore.events import BackupPlaced, CartridgeLabelled
from tests.core.world import World, archive_of, whole

DRIVES, STATION, SLOTS = (256, 257), (768, 769), (1024, 1025, 1026, 1027)
TYPES = {
    **dict.fromkeys(DRIVES, "drive"),
    **dict.fromkeys(STATION, "import-export"),
    **dict.fromkeys(SLOTS, "storage"),
}
POOL = "Tapes"
A, B, CLEANER = "AAA001L9", "BBB001L9", "CLN001L1"


def device(name: str, **given: Any) -> DeviceFacts:
    facts: dict[str, Any] = {"device": f"/dev/{name}", "serial": f"serial of {name}", "vendor": "V", "product": "P"}
    return DeviceFacts(**{**facts, **given})


def drive_facts(name: str, address: int, **given: Any) -> DriveFacts:
    facts: dict[str, Any] = {"device": f"/dev/{name}", "serial": f"serial of {name}", "partitions_max": 4}
    return DriveFacts(**{**facts, "element_address": address, **given})


class TapeWorld(World):
    """``shelf``: address -> bar code of what lies there; empty text: one that cannot be read."""

    def __init__(self) -> None:
        super().__init__()
        self.types = dict(TYPES)
        self.shelf: dict[int, str] = {}
        self.exceptions: dict[int, str] = {}
        self.library_id = 0

    def elements(self) -> list[ElementFacts]:
        return [
            ElementFacts(
                address=address,
                type=kind,
                is_full=address in self.shelf,
                volume_tag=self.shelf.get(address, ""),
                exception=self.exceptions.get(address, ""),
            )
            for address, kind in self.types.items()
        ]

    def pool(self, name: str = POOL, pool_type: str = "Tape library, Native") -> int:
        return self.run(CreateRecord(resource="pool_list", fields={"pool_name": name, "pool_type": pool_type})).ids[0]

    def adding(self, **given: Any) -> AddTapeLibrary:
        facts: dict[str, Any] = {
            "pool": POOL,
            "media_server": "main",
            "changer": device("changer"),
            "transport_element": 1,
            "drives": [drive_facts(f"drive{address}", address) for address in DRIVES],
            "elements": self.elements(),
        }
        return AddTapeLibrary(**{**facts, **given})

    def with_library(self, *tags: str) -> TapeWorld:
        """Installed, with registered cartridges of these tags in the first slots."""
        self.installed()
        self.pool()
        for address, tag in zip(SLOTS, tags, strict=False):
            self.register(tag)
            self.shelf[address] = tag
        self.library_id = self.run(self.adding()).ids[0]
        return self

    def register(self, tag: str, pool: str = POOL, type: str = "") -> int:
        fields = {"volume_tag": tag, "pool": pool, "type": type or ("CLN" if tag.startswith("CLN") else "LTO-9")}
        return self.run(CreateRecord(resource="tape_cartridges", fields=fields)).ids[0]

    def sync(self, reason: str = "synchronised by an operator") -> Reply:
        return self.run(RecordInventory(library_id=self.library_id, elements=self.elements(), reason=reason))

    def move_by_hand(self, source: int, target: int) -> None:
        self.shelf[target] = self.shelf.pop(source)

    # --- what is there -------------------------------------------------------------------------------------------------

    def cartridge(self, tag: str) -> TapeCartridge:
        found = self.state.by_key(TapeCartridge, tag)
        assert found is not None
        return found

    def slot(self, address: int) -> LibrarySlot:
        found = self.state.by_key(LibrarySlot, (self.library_id, address))
        assert found is not None
        return found

    def drive(self, address: int = DRIVES[0]) -> TapeDrive:
        return next(one for one in self.state.all(TapeDrive) if one.element_address == address)

    def tape_task(self, id: int) -> TapeTask:
        found = self.state.find(TapeTask, id)
        assert found is not None
        return found

    def events(self, since: int = 0) -> list[str]:
        return [one[4] for one in self.log[since:]]

    # --- stories ---------------------------------------------------------------------------------------------------------

    def place(self, tag: str, address: int) -> None:
        """The robot has brought it there, and nobody asked."""
        source = next(known for known, found in self.shelf.items() if found == tag)
        self.move_by_hand(source, address)
        self.sync("placed")

    def mounting(self, tag: str, **given: Any) -> None:
        """The intent, and the robot has done its part."""
        drive = self.drive()
        self.run(BeginMount(drive_id=drive.id, cartridge_id=self.cartridge(tag).id, reason="wanted", **given))
        self.place(tag, drive.element_address)

    def look(self, tag: str, **found: Any) -> Reply:
        facts = CartridgeFacts(**({"contents": "blank"} | found))
        return self.run(EndMount(drive_id=self.drive().id, cartridge_id=self.cartridge(tag).id, found=facts))

    def own_facts(self, tag: str) -> dict[str, Any]:
        """What a look at the right cartridge tells."""
        known = self.cartridge(tag)
        if not known.format:
            return {"contents": "blank"}
        shown = tag if known.format == "native" else tag[:6]
        return {"contents": known.format, "label_id": known.label_id, "use": known.use, "volume_tag": shown}

    def mounted(self, tag: str, **given: Any) -> None:
        self.mounting(tag, **given)
        assert self.look(tag, **self.own_facts(tag)).data["usable"]

    def labelled(self, tag: str, format: str = "native") -> None:
        """Mounted, and labelled."""
        self.mounted(tag)
        cartridge, drive = self.cartridge(tag), self.drive()
        self.run(BeginLabelling(cartridge_id=cartridge.id, drive_id=drive.id, format=format, reason="wanted"))
        label_id = f"{cartridge.id:032x}"
        self.run(
            EndLabelling(cartridge_id=cartridge.id, format=format, label_id=label_id, use=1, capacity_bytes=10**12)
        )

    def written(self, tag: str, task_id: int, *, full: bool = False) -> None:
        cartridge = self.cartridge(tag)
        used = cartridge.used_bytes + 1_000
        self.run(RecordCartridgeWritten(cartridge_id=cartridge.id, used_bytes=used, full=full, task_id=task_id))

    def holds(self, tag: str, task_id: int) -> None:
        """The task has ended a part on it; it was labelled for that, if it was not."""
        cartridge = self.cartridge(tag)
        if not cartridge.format:
            label = CartridgeLabelled("native", f"{cartridge.id:032x}", 1, 10**12)
            self._apply([(f"tape_cartridge/{cartridge.id}", label)], whole(self.state))
        self.written(tag, task_id)

    def put_on(self, backup_id: int, *tags: str) -> None:
        """The backup stands on these cartridges."""
        parts = [
            {
                "cartridge_id": self.cartridge(tag).id,
                "part": number,
                "position": 1,
                "records": 1,
                "first_block": number,
                "last_block": number,
                "blocks": 1,
                "stored_bytes": 1_000,
                "final": number + 1 == len(tags),
            }
            for number, tag in enumerate(tags)
        ]
        self._apply([(f"backup/{backup_id}", BackupPlaced(self.library_id, parts))], whole(self.state))

    def backed_up_on(self, tag: str) -> int:
        """A labelled cartridge with a backup on it, and a drive without one; the backup's id."""
        self.labelled(tag)
        task = self.transmitting(self.queued())
        self.written(tag, task.id)
        backup_id = self.finished(task.id)
        self.put_on(backup_id, tag)
        self.run(EndDismount(drive_id=self.drive().id))
        self.place(tag, next(one for one in SLOTS if one not in self.shelf))
        return backup_id

    def finished(self, task_id: int) -> int:
        return self.run(archive_of(self.task(task_id))).ids[0]

    def work(self, task_type: str, task_id: int, tag: str = "") -> int:
        cartridge_id = self.cartridge(tag).id if tag else 0
        command = QueueTapeWork(
            task_type=task_type, task_id=task_id, library_id=self.library_id, cartridge_id=cartridge_id
        )
        return self.run(command).ids[0]

    def advanced(self, tape_task_id: int, status: str, **given: Any) -> str:
        command = AdvanceTapeTask(tape_task_id=tape_task_id, status=status, **given)
        return str(self.run(command).data["status"])
