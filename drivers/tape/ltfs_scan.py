"""The parts on an LTFS volume that is found without its server, in the terms of a scanned native cartridge, so that both are joined alike.

All that is known of a part stands in the extended attributes of its files (``rbcore.tape.ltfs_parts``). Nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from drivers.scsi.drive import Drive
from drivers.tape.ltfs_medium import LtfsMedium, read_labels
from drivers.tape.ltfs_open import find_state
from drivers.tape.ltfs_reader import FileReader, LtfsPartReader, LtfsRecords
from drivers.tape.records import use_variable_blocks
from rbcore import errors
from rbcore.tape.ltfs import File
from rbcore.tape.ltfs_formats import parse_number, parse_time
from rbcore.tape.ltfs_parts import StoredPart, find_parts
from rbcore.tape.native import BlockPlace, Label, PartHeader, PartTrailer, Places
from rbcore.tape.native_scan import Contents as Scanned
from rbcore.tape.native_scan import FoundPart, TapeFinding
from rbcore.tape.session import Identified

_PREFIX = "rbmedia."
_NO_ID = bytes(16)


class LtfsFound(msgspec.Struct, frozen=True, kw_only=True):
    """A volume that was looked at."""

    scanned: Scanned
    medium: LtfsMedium
    stored: list[StoredPart]


class LtfsPartSource:
    """Hands out readers of the parts on a volume, while it is in the drive."""

    def __init__(self, found: LtfsFound) -> None:
        self._block_bytes = found.medium.block_bytes
        self._records = LtfsRecords(found.medium)
        self._stored = {(one.archive, one.place.part): one for one in found.stored}

    def reader(self, archive: bytes, part: int) -> LtfsPartReader:
        """Raises ``Damaged`` when the volume names the part no more."""
        stored = self._stored.get((archive, part))
        if stored is None:
            raise errors.Damaged(f"Part {part} of archive {archive.hex()} is not on the volume any more.")
        map_file = None if stored.map is None else self._file(stored.map)
        return LtfsPartReader(archive, stored.place, self._file(stored.blocks), map_file, self._block_bytes)

    def _file(self, file: File) -> FileReader:
        return FileReader(self._records, file.extents, file.length, self._block_bytes)


async def scan_ltfs(drive: Drive, identified: Identified, *, tag: str = "", full: bool = False) -> LtfsFound:
    """The parts that the volume's current index names. ``tag``: the bar code, of which a volume knows six characters only.

    ``full``: every block of every part is read and checked; otherwise parts count as what their attributes say. What cannot be read is among the
    findings. Raises ``PositionLost`` when the cartridge is not the one of ``identified``, ``Damaged`` when labels or index cannot be read, and what
    drives raise.
    """
    await use_variable_blocks(drive)
    label, numbers, _ = await read_labels(drive)
    if label.volume_uuid.replace("-", "").lower() != identified.cartridge:
        raise errors.PositionLost(
            f"{drive.name} holds volume {label.volume_uuid}, not {identified.cartridge} as before."
        )
    medium = LtfsMedium(drive, label, numbers)
    state = await find_state(medium)
    if state.current is None:
        raise errors.Damaged(f"No index of LTFS volume {medium.name} can be read. {state.problem}".rstrip())
    stored = find_parts(state.current.index.root, medium.block_bytes)
    findings = [TapeFinding(state.current.index.location.block, state.problem)] if state.problem else []
    parts: list[FoundPart] = []
    for one in stored:
        try:
            parts.append(_found_part(one))
        except errors.ProtocolViolation as error:
            findings.append(
                TapeFinding(
                    one.place.position, f"part {one.place.part} of archive {one.archive.hex()}: {error.message}"
                )
            )
    scanned = Scanned(
        label=Label(
            volume_tag=tag or identified.volume_tag,
            pool=identified.pool,
            server=identified.server,
            created_ns=label.format_time_ns,
            record_bytes=1024 * 1024,
            software=label.creator,
        ),
        cartridge=bytes.fromhex(identified.cartridge),
        use=0,
        parts=parts,
        findings=findings,
        findings_total=len(findings),
        append=None,
        resume=None,
    )
    found = LtfsFound(scanned=scanned, medium=medium, stored=stored)
    return await _checked(found) if full else found


async def _checked(found: LtfsFound) -> LtfsFound:
    """The same after reading every block."""
    source, findings = LtfsPartSource(found), list(found.scanned.findings)
    for part in found.scanned.parts:
        reader = source.reader(part.archive, part.part)
        part.places, part.skipped = Places(), False
        for row in await reader.index():
            try:
                await reader.read([row.block])
            except errors.Damaged as error:
                findings.append(TapeFinding(part.position, error.message))
                continue
            part.places.extend([BlockPlace(row.block, 1, 0, row.length, row.kind, row.flags)])
        if part.missing_blocks:
            findings.append(
                TapeFinding(part.position, f"{part.missing_blocks} blocks of part {part.part} cannot be read")
            )
    scanned = msgspec.structs.replace(found.scanned, findings=findings, findings_total=len(findings))
    return msgspec.structs.replace(found, scanned=scanned)


def _found_part(stored: StoredPart) -> FoundPart:
    """Raises ``ProtocolViolation`` for attributes that are missing or malformed."""
    values = _Texts(stored.blocks.xattrs)
    place = stored.place
    try:
        previous, root = values.hexadecimal("previous_cartridge"), values.hexadecimal("root")
        before = parse_number(values.text("blocks_before"))
        header = PartHeader(
            client=values.text("client"),
            resource=values.text("resource"),
            backup_type=values.text("backup_type"),
            crypto=values.text("crypto"),
            created_ns=parse_time(values.text("created")),
            first_block=parse_number(values.text("first_block")),
            blocks_before=before,
            previous_tag=values.text("previous_tag"),
            previous_cartridge=previous or _NO_ID,
        )
        trailer = PartTrailer(
            final=place.final,
            next_tag=values.text("next_tag"),
            blocks=place.blocks,
            first_block=place.first_block,
            last_block=place.last_block,
            stored_bytes=place.stored_bytes,
            maps=[],
            ended_ns=parse_time(values.text("ended")),
            blocks_total=before + place.blocks if place.final else 0,
            root=root,
        )
        # Bounds are those of native cartridges: numbers fit 63 bits, texts are short.
        header = msgspec.convert(msgspec.to_builtins(header, builtin_types=(bytes,)), PartHeader)
        trailer = msgspec.convert(msgspec.to_builtins(trailer, builtin_types=(bytes,)), PartTrailer)
    except ValueError as error:  # msgspec's is one
        raise errors.ProtocolViolation(f"its attributes are malformed: {error}") from None
    return FoundPart(
        archive=stored.archive,
        part=place.part,
        header=header,
        position=place.position,
        places=Places(),
        trailer=trailer,
        records=place.records,
        skipped=True,
    )


class _Texts:
    """Extended attributes of a part's file."""

    def __init__(self, xattrs: Mapping[str, bytes]) -> None:
        self._xattrs = xattrs

    def text(self, name: str) -> str:
        """Raises ``ProtocolViolation``."""
        try:
            return self._xattrs[_PREFIX + name].decode()
        except (KeyError, UnicodeDecodeError):
            raise errors.ProtocolViolation(f"it has no attribute {name}, or one that is no text") from None

    def hexadecimal(self, name: str) -> bytes:
        return bytes.fromhex(self.text(name))
