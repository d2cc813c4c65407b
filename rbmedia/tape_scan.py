"""What cartridges tell that are found without their server: who they are, which archives they hold, and what of those is whole.

Everything comes from the cartridges themselves (``docs/format-tape.md``). Nothing is written. Restoring is in ``tape_restore``, how cartridges
come into drives in ``tape_workbench``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from drivers.scsi.drive import Drive
from drivers.tape.identify import identify
from drivers.tape.ltfs_scan import LtfsFound, LtfsPartSource, scan_ltfs
from drivers.tape.native_reader import NativePartReader
from drivers.tape.records import RecordReader
from drivers.tape.scan import scan_cartridge
from rbcore import errors
from rbcore.tape.native import RECORD_BYTES_MAX, Label
from rbcore.tape.native_scan import Contents as Scanned
from rbcore.tape.native_scan import FoundPart
from rbcore.tape.session import CartridgeFormat, Contents, Identified, PartPlace, PartReader
from rbcore.tape.spanning import FoundArchive, PlacedPart, join_parts
from rbmedia.tape_workbench import Bench, Cartridge, is_same

FINDINGS_LISTED_MAX: Final = 100
"""Of one cartridge; the rest are counted."""


@dataclass(eq=False)
class Volume:
    """One cartridge that was looked at."""

    cartridge: Cartridge
    identified: Identified
    scanned: Scanned | None = None
    """None: there is nothing of ours on it, or it cannot be read."""
    format: CartridgeFormat | None = None
    problem: str = ""
    """Why it cannot be listed, where it might have been one of ours."""
    _opened: tuple[int, RecordReader | LtfsPartSource] | None = None
    """What reads it, good for one mount."""

    @property
    def name(self) -> str:
        return self.cartridge.name

    async def reader(self, drive: Drive, placed: PlacedPart) -> PartReader:
        """The part, on the cartridge that is in ``drive`` now. Raises what drives raise, ``Damaged``."""
        assert self.scanned is not None, "a part was found on it"
        mounts = self.cartridge.mounts
        if self._opened is None or self._opened[0] != mounts:
            self._opened = (mounts, await self._open(drive, self.scanned))
        opened, found = self._opened[1], placed.found
        if isinstance(opened, LtfsPartSource):
            return opened.reader(found.archive, found.part)
        unfinished = found.trailer is None
        return NativePartReader(
            opened, found.archive, place_of(found), found.trailer, places=found.places if unfinished else None
        )

    async def _open(self, drive: Drive, scanned: Scanned) -> RecordReader | LtfsPartSource:
        if self.format is CartridgeFormat.LTFS:
            return LtfsPartSource(await scan_ltfs(drive, self.identified))
        label = scanned.label or _unreadable_label(self.name)
        return RecordReader(drive, label, scanned.cartridge, scanned.use)


@dataclass(eq=False)
class Catalogue:
    """The cartridges that were looked at, and what their parts make together."""

    bench: Bench
    full: bool
    volumes: list[Volume] = field(default_factory=list)
    archives: list[FoundArchive] = field(default_factory=list)
    _homes: dict[int, Volume] = field(default_factory=dict)
    """By the identity of the part."""

    async def read(self, cartridges: Sequence[Cartridge]) -> None:
        """Look at these cartridges, one after the other. One that cannot be read is listed as such; raised is what is wrong with devices."""
        for cartridge in cartridges:
            try:
                drive = await self.bench.mount(cartridge)
            except errors.Damaged as error:
                facts = Identified(contents=Contents.UNREADABLE, detail="It cannot be loaded.")
                self.volumes.append(Volume(cartridge, facts, problem=error.message))
                continue
            identified = cartridge.identified = await identify(drive)
            known = next((one for one in self.volumes if one.scanned and is_same(one.identified, identified)), None)
            if known is not None and not known.cartridge.home:
                self.bench.say(f"Cartridge {known.name} was read already.")
                known.cartridge = cartridge
                continue
            self.bench.say(f"Reading cartridge {cartridge.name}. {identified.detail}")
            self.volumes.append(await look_at(drive, cartridge, identified, full=self.full))
        scanned = [(one, one.scanned) for one in self.volumes if one.scanned is not None]
        self.archives = join_parts([contents for _, contents in scanned])
        self._homes = {id(part): one for one, contents in scanned for part in contents.parts}

    async def complete(self, names: Sequence[str]) -> None:
        """Ask for the cartridges that parts of these archives are said to be on, as far as somebody can be asked."""
        while tags := self._wanted(names):
            cartridge = await self.bench.another(tags)
            if cartridge is None:
                return
            await self.read([cartridge])

    def _wanted(self, names: Sequence[str]) -> list[str]:
        tags = [tag for name in names if (found := self.find(name)) for tag in found.wanted_tags]
        return list(dict.fromkeys(tags))

    def find(self, name: str) -> FoundArchive | None:
        return next((one for one in self.archives if one.archive.hex() == name), None)

    def volume_of(self, placed: PlacedPart) -> Volume:
        return self._homes[id(placed.found)]

    @property
    def is_damaged(self) -> bool:
        """Something on a cartridge cannot be read, or is not what was written."""
        return any(one.problem or (one.scanned is not None and one.scanned.findings_total) for one in self.volumes)


async def look_at(drive: Drive, cartridge: Cartridge, identified: Identified, *, full: bool) -> Volume:
    """What one loaded cartridge holds. ``full``: every record is read and checked, and a native cartridge is searched whose label is lost."""
    volume = Volume(cartridge, identified)
    try:
        if identified.contents is Contents.NATIVE or (identified.contents is Contents.UNREADABLE and full):
            scanned = await scan_cartridge(drive, quick=not full)
            if scanned.parts or identified.contents is Contents.NATIVE:
                volume.scanned, volume.format = scanned, CartridgeFormat.NATIVE
        elif identified.contents is Contents.LTFS:
            found: LtfsFound = await scan_ltfs(drive, identified, tag=cartridge.tag, full=full)
            volume.scanned, volume.format = found.scanned, CartridgeFormat.LTFS
    except (errors.Damaged, errors.ProtocolViolation) as error:
        volume.problem = error.message
    if volume.scanned is None and identified.contents is Contents.UNREADABLE:
        advice = "" if full else " With --full it is searched from its beginning."
        volume.problem = volume.problem or f"{identified.detail}{advice}"
    return volume


def place_of(found: FoundPart) -> PartPlace:
    """Of a native part; of one without a trailer, as far as it was read."""
    trailer, places = found.trailer, found.places
    return PartPlace(
        part=found.part,
        position=found.position,
        records=found.records if trailer is not None else found.records + 1,
        first_block=trailer.first_block if trailer is not None else places[0].block if places else -1,
        last_block=trailer.last_block if trailer is not None else places[-1].block if places else -1,
        blocks=trailer.blocks if trailer is not None else len(places),
        stored_bytes=trailer.stored_bytes if trailer is not None else places.stored_bytes(),
        final=trailer is not None and trailer.final,
    )


def _unreadable_label(name: str) -> Label:
    """Records prove themselves; the label is only asked how long they are at most."""
    return Label(volume_tag=name[:40], pool="", server="", created_ns=0, record_bytes=RECORD_BYTES_MAX, software="")


# Listing


def time_text(time_ns: int) -> str:
    """ISO 8601, to the second; empty for none."""
    if not time_ns:
        return ""
    return datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).isoformat().replace("+00:00", "Z")


def cartridge_row(volume: Volume) -> dict[str, Any]:
    """One cartridge for the list of cartridges."""
    identified, scanned = volume.identified, volume.scanned
    label = scanned.label if scanned is not None else None
    findings = scanned.findings if scanned is not None else []
    problems = [f"object {one.position}: {one.what}" for one in findings[:FINDINGS_LISTED_MAX]]
    if scanned is not None and scanned.findings_total > len(problems):
        problems.append(f"and {scanned.findings_total - len(problems)} more findings")
    return {
        "cartridge": volume.name,
        "bar_code": volume.cartridge.tag,
        "label": label.volume_tag if label is not None else identified.volume_tag,
        "format": str(volume.format or identified.contents),
        "pool": label.pool if label is not None else identified.pool,
        "server": label.server if label is not None else identified.server,
        "labelled": time_text(label.created_ns) if label is not None else "",
        "parts": len(scanned.parts) if scanned is not None else 0,
        "found": identified.detail,
        "problems": [volume.problem, *problems] if volume.problem else problems,
    }


def archive_row(archive: FoundArchive, catalogue: Catalogue) -> dict[str, Any]:
    """One archive for the list of archives, joined over all cartridges."""
    header = archive.parts[0].found.header
    parts = [
        {
            "part": one.found.part,
            "cartridge": catalogue.volume_of(one).name,
            "blocks": place_of(one.found).blocks,
            "stored_bytes": place_of(one.found).stored_bytes,
        }
        for one in archive.parts
    ]
    return {
        "archive": archive.archive.hex(),
        "client": header.client,
        "resource": header.resource,
        "backup_type": header.backup_type,
        "crypto": header.crypto,
        "date": time_text(header.created_ns),
        "parts": parts,
        "whole": archive.whole,
        "problems": archive.problems,
        "wanted_cartridges": archive.wanted_tags,
    }
