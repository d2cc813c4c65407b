"""A cartridge: what is on its tape, what its chip remembers, what it has suffered. One directory of a volume.

Layout of the directory: ``docs/tape-simulator.md``. A cartridge knows neither drive nor library; whoever holds it moves it.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

from drivers.simulated.tape.generations import Generation, generation
from drivers.simulated.tape.partition import Partition
from rbcore.errors import Damaged, InvalidRequest, NotFound
from rbcore.ports import Volume

Kind: TypeAlias = Literal["data", "worm", "cleaning"]

CARD_NAME: Final = "cartridge.json"
CLEANINGS: Final = 50
"""How often a cleaning cartridge can be used."""
EARLY_WARNING_SHARE: Final = 50
EARLY_WARNING_BYTES_MIN: Final = 4 * 1024 * 1024


class Damages(msgspec.Struct, kw_only=True):
    """What is wrong with a cartridge, by name. Set from outside, kept with the cartridge."""

    unreadable: list[tuple[int, int]] = []
    """(partition, object number): reading fails with 3/11/00. Overwriting heals it."""
    writes_left: int | None = None
    """So many records can still be written, then each write fails with 3/0c/00."""
    reads_left: int | None = None
    broken: bool = False
    """The tape is torn: it cannot be loaded."""


class Card(msgspec.Struct, kw_only=True):
    """``cartridge.json``: everything of a cartridge that is not an object on its tape."""

    layout: int = 1
    barcode: str
    generation: int
    kind: Kind = "data"
    serial: str = ""
    element: int | None = None
    """Where it lies in the library; None: outside."""
    source: int | None = None
    """The storage element from which it came last."""
    write_protected: bool = False
    barcode_readable: bool = True
    capacity_bytes: int = 0
    early_warning_bytes: int = 0
    """0: by the rule of ``early_warning_bytes``."""
    partition_wraps: list[int] = []
    attributes: dict[str, tuple[int, str]] = {}
    """``partition:identifier`` (decimal:hex) of what hosts wrote to the chip -> (format, value in hex)."""
    is_new: bool = True
    loads: int = 0
    initialisations: int = 1
    change_reference: int = 1
    bytes_written: int = 0
    bytes_read: int = 0
    metres: float = 0.0
    cleanings_left: int = CLEANINGS
    damages: Damages = msgspec.field(default_factory=Damages)


class Cartridge:
    """The contents are in ``partitions``, in memory only as far as sizes go; the records stay on the volume."""

    def __init__(self, volume: Volume, path: str, card: Card) -> None:
        self.card = card
        self.path = path
        self.generation: Generation = generation(card.generation)
        self._volume = volume
        self._partitions: list[Partition] | None = None

    @classmethod
    def create(
        cls,
        volume: Volume,
        path: str,
        *,
        barcode: str,
        generation_number: int,
        kind: Kind = "data",
        capacity_factor: float = 1.0,
        early_warning_bytes: int = 0,
    ) -> Cartridge:
        """A new one. Raises ``InvalidRequest`` for what LTO has not."""
        made = generation(generation_number)
        if kind == "worm" and not made.worm:
            raise InvalidRequest(f"{made.name} has no WORM cartridges")
        if not barcode.isascii() or not barcode.isprintable() or not 1 <= len(barcode) <= 32:
            raise InvalidRequest(f"{barcode!r} is no barcode: 1 to 32 printable ASCII characters")
        capacity_bytes = round(made.capacity_bytes * capacity_factor) // made.wraps * made.wraps
        if capacity_bytes < made.wraps * 1024:
            raise InvalidRequest(f"capacity factor {capacity_factor} leaves a wrap of {made.name} less than 1 KiB")
        if not 0 <= early_warning_bytes < capacity_bytes:
            raise InvalidRequest("the early warning must come before the end of the tape")
        card = Card(
            barcode=barcode,
            generation=generation_number,
            kind=kind,
            serial=f"SIM{barcode}"[:32],
            capacity_bytes=capacity_bytes,
            early_warning_bytes=early_warning_bytes,
            partition_wraps=[] if kind == "cleaning" else [made.wraps],
        )
        cartridge = cls(volume, path, card)
        volume.make_directory(path)
        cartridge.save()
        return cartridge

    @classmethod
    def open(cls, volume: Volume, path: str) -> Cartridge:
        """Raises ``NotFound``, ``Damaged``."""
        file = volume.open(f"{path}/{CARD_NAME}")
        try:
            raw = file.read_at(0, file.size())
        finally:
            file.close()
        try:
            card = msgspec.json.decode(raw, type=Card)
        except msgspec.MsgspecError as error:
            raise Damaged(f"{path}/{CARD_NAME} cannot be understood: {error}") from error
        if card.layout != 1:
            raise Damaged(f"{path} has layout {card.layout}; this program knows 1")
        return cls(volume, path, card)

    def __repr__(self) -> str:
        words = [self.generation.name, self.card.kind]
        words += ["write-protected"] if self.card.write_protected else []
        words += ["broken"] if self.card.damages.broken else []
        if self._partitions is not None:
            words.append(" + ".join(f"{part.used_bytes} of {part.capacity_bytes} bytes" for part in self._partitions))
        return f"<Cartridge {self.card.barcode} {', '.join(words)}>"

    @property
    def is_cleaning(self) -> bool:
        return self.card.kind == "cleaning"

    @property
    def is_worm(self) -> bool:
        return self.card.kind == "worm"

    @property
    def partitions(self) -> list[Partition]:
        """Scanned when first asked for; a cartridge in a slot costs nothing."""
        if self._partitions is None:
            self._partitions = [self._partition(number) for number in range(len(self.card.partition_wraps))]
        return self._partitions

    def save(self) -> None:
        """Write the card, durably and in one piece."""
        path = f"{self.path}/{CARD_NAME}"
        write_whole(self._volume, path, msgspec.json.format(msgspec.json.encode(self.card), indent=2) + b"\n")
        self._volume.sync_directory(self.path)

    def flush(self) -> None:
        """Bring everything that drives have taken to the tape."""
        flushed = [partition.flush() for partition in self.partitions]
        if any(flushed):
            self.card.change_reference += 1
            self.save()

    def lose_buffer(self, keep: int = 0) -> None:
        for partition in self.partitions:
            if partition.unwritten_objects:
                partition.lose_buffer(keep)

    def format(self, partition_wraps: list[int]) -> None:
        """FORMAT MEDIUM: everything is gone, also the attributes of hosts, and these are the partitions."""
        assert min(partition_wraps) > 0
        assert sum(partition_wraps) <= self.generation.wraps
        for number in reversed(range(len(self.card.partition_wraps))):
            self._volume.remove(f"{self.path}/{_directory(number)}")
        self._volume.sync_directory(self.path)
        self.card.partition_wraps = partition_wraps
        self.card.attributes = {}
        self.card.damages.unreadable = []
        self.card.initialisations += 1
        self.card.change_reference += 1
        self._partitions = None
        self.save()

    def read(self, partition: int, number: int) -> bytes:
        """A record. Raises ``Damaged`` when it cannot be read, by its damages or by the volume's."""
        damages = self.card.damages
        if damages.reads_left == 0 or (partition, number) in damages.unreadable:
            raise Damaged(f"object {number} in partition {partition} of {self.card.barcode} cannot be read")
        record = self.partitions[partition].read(number)
        if damages.reads_left is not None:
            damages.reads_left -= 1
        return record

    def heal(self, partition: int, position: int) -> None:
        """What is overwritten is readable again, and what is behind it is gone."""
        left = [
            (part, number) for part, number in self.card.damages.unreadable if part != partition or number < position
        ]
        self.card.damages.unreadable = left

    def _partition(self, number: int) -> Partition:
        path = f"{self.path}/{_directory(number)}"
        if not self._volume.exists(path):
            self._volume.make_directory(path)
            self._volume.sync_directory(self.path)
        wraps = self.card.partition_wraps[number]
        capacity = self.card.capacity_bytes // self.generation.wraps * wraps
        warning = self.card.early_warning_bytes or early_warning_bytes(capacity)
        return Partition(self._volume, path, capacity, min(warning, capacity // 4), wraps)


def _directory(partition: int) -> str:
    return f"partition-{partition}"


def early_warning_bytes(capacity_bytes: int) -> int:
    """A fiftieth, but room for some blocks also on a tape scaled down, and never more than a quarter."""
    return min(max(capacity_bytes // EARLY_WARNING_SHARE, EARLY_WARNING_BYTES_MIN), capacity_bytes // 4)


def write_whole(volume: Volume, path: str, content: bytes) -> None:
    """Replace a small file so that a crash leaves the old or the new one. Durable after ``sync_directory``."""
    unfinished = path + ".new"
    volume.remove(unfinished)
    file = volume.create(unfinished)
    try:
        file.write(content)
        file.sync()
    finally:
        file.close()
    volume.rename(unfinished, path)


def read_whole(volume: Volume, path: str) -> bytes | None:
    """None when there is no such file."""
    try:
        file = volume.open(path)
    except NotFound:
        return None
    try:
        return file.read_at(0, file.size())
    finally:
        file.close()
