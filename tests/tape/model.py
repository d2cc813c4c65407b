"""A tape as a list of records and filemarks, for the tests of the native format: capacity, early warning, crashes, bogus records."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from rbcore.archive.block import NO_NONCE, BlockCodec
from rbcore.archive.model import BlockKind
from rbcore.tape.native import BlockPlace, Label, PartHeader, parse_record, slices
from rbcore.tape.native_scan import Contents, FoundPart, NativeScanner
from rbcore.tape.native_write import NativeWriter, WriteFilemarks, WriteRecord

RECORD_BYTES = 65_536
ARCHIVE = bytes(range(16))
CARTRIDGE = bytes(range(100, 116))
HEADER = PartHeader(client="host.example", resource="/srv", backup_type="full", crypto="nocrypt", created_ns=5)
ROOT = bytes(32)
_CODECS: dict[bytes, BlockCodec] = {}


class EndOfMedium(Exception):
    """The write did not fit."""


class Crash(Exception):
    """The drive, the target or the daemon died during this operation."""


def label(tag: str = "RB0001L9") -> Label:
    return Label(
        volume_tag=tag, pool="Tapes", server="server", created_ns=1, record_bytes=RECORD_BYTES, software="rbmedia test"
    )


def block(number: int, size: int, archive: bytes = ARCHIVE) -> bytes:
    """A block whose bytes follow from its number."""
    codec = _CODECS.setdefault(archive, BlockCodec(archive))
    text = (number.to_bytes(8, "little") * (size // 8 + 1))[:size]
    return bytes(codec.seal(BlockKind.PAYLOAD, number, text, NO_NONCE))


@dataclass
class Tape:
    """``objects``: bytes of a record, None for a filemark. ``flushed``: how many are on the medium for sure."""

    warning_bytes: int = 2**60
    capacity_bytes: int = 2**60
    objects: list[bytes | None] = field(default_factory=list)
    position: int = 0
    flushed: int = 0
    ghosts: dict[int, bytes] = field(default_factory=dict)
    """Records that were overwritten or lost, by position: what a crash may bring back."""

    def _cut(self, position: int) -> None:
        self.ghosts |= {n: one for n, one in enumerate(self.objects) if n >= position and one is not None}
        del self.objects[position:]

    def used(self) -> int:
        return sum(len(one or b"") for one in self.objects)

    def write(self, data: memoryview) -> bool:
        """Whether early warning came with it."""
        assert len(data) <= RECORD_BYTES
        self._cut(self.position)
        if self.used() + len(data) > self.capacity_bytes:
            raise EndOfMedium
        self.objects.append(bytes(data))
        self.position += 1
        self.flushed = min(self.flushed, self.position - 1)
        return self.used() >= self.warning_bytes

    def filemarks(self, count: int) -> bool:
        if count:
            self._cut(self.position)
            self.objects += [None] * count
            self.position += count
        self.flushed = self.position
        return self.used() >= self.warning_bytes

    def crash(self, survivors: int, bogus: bytes | None, ghost: bool) -> None:
        """What was flushed stays, up to ``survivors`` more objects do, and perhaps one more with wrong contents if there was writing."""
        written = self.position == len(self.objects)
        self._cut(self.flushed + survivors)
        if ghost:
            bogus = self.ghosts.get(len(self.objects), bogus)
        if bogus is not None and written:
            self.objects.append(bogus)
        self.flushed = len(self.objects)

    def scan(self, *, unreadable: Iterable[int] = ()) -> Contents:
        scanner = NativeScanner()
        bad = set(unreadable)
        for position, one in enumerate(self.objects):
            if position in bad:
                scanner.unreadable("medium error")
            elif one is None:
                scanner.filemark()
            else:
                scanner.record(one)
        return scanner.end(at_end_of_data=True)

    def read(self, part: FoundPart, place: BlockPlace) -> bytes:
        """The block, by positioning at the record the map names."""
        start = part.position + place.sequence
        records = (parse_record(one) for one in self.objects[start:] if one is not None)
        return slices(place, (record.payload for record in records if record.header.kind == 3))


def carry_out(writer: NativeWriter, tape: Tape, crash: Callable[[], bool] = lambda: False) -> None:
    """Do what the writer wants until it wants nothing. Raises ``Crash`` when ``crash`` says so, before the operation."""
    while (operation := writer.next()) is not None:
        if crash():
            raise Crash
        try:
            warned = (
                tape.write(operation.data) if isinstance(operation, WriteRecord) else tape.filemarks(operation.count)
            )
        except EndOfMedium:
            writer.failed()
            return
        assert isinstance(operation, WriteRecord | WriteFilemarks)
        assert writer.position <= tape.position
        writer.done(early_warning=warned)
