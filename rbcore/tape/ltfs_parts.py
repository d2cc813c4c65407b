"""Parts of archives as files of an LTFS volume: names, extended attributes, and their place in the tree. ``docs/format-tape.md``, "LTFS".

A part is two files: its blocks, and the map that says where each lies. What a catalogue wants to know stands in extended attributes of the first,
so that a cartridge found without its server can be listed. A part is known by them, not by its name: files may be moved and renamed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from rbcore.errors import NotAllowedNow, ProtocolViolation
from rbcore.tape.ltfs import Directory, Extent, File, Index, Times, walk
from rbcore.tape.ltfs_formats import format_time, parse_boolean, parse_number
from rbcore.tape.session import PartPlace, PartStart

FOLDER: Final = "rbmedia"
"""In the root directory; in it a directory for each archive."""
VALUE_BYTES_MAX: Final = 4096
"""Of an extended attribute: what other implementations take."""
BLOCKS, MAP = "blocks", "map"
_PREFIX: Final = "rbmedia."
_FULL: Final = _PREFIX + "full"
_UID_MAX: Final = 2**64 - 1
_ARCHIVE_BYTES: Final = 16


class PartEnd(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a part when it ends."""

    first_block: int
    """The first block that is in it, -1: none is. (``PartStart.first_block`` says from which number on they may be.)"""
    last_block: int
    blocks: int
    final: bool
    ended_ns: int
    root: bytes = b""
    next_tag: str = ""


class StoredPart(msgspec.Struct, frozen=True, kw_only=True):
    """An ended part, as an index names it."""

    archive: bytes
    place: PartPlace
    blocks: File
    map: File | None


def blocks_name(part: int) -> str:
    return f"{part:06d}.rba"


def map_name(part: int) -> str:
    return f"{part:06d}.rbi"


def records_of(extents: Sequence[Extent], block_bytes: int) -> int:
    """How many records the extents take."""
    return sum(-(-(extent.byte_offset + extent.byte_count) // block_bytes) for extent in extents)


def _text(value: str) -> bytes:
    """For people: a longer text is cut, never within a character."""
    return value.encode(errors="replace")[:VALUE_BYTES_MAX].decode(errors="ignore").encode()


def blocks_attributes(start: PartStart, end: PartEnd) -> dict[str, bytes]:
    """Extended attributes of the file with the blocks."""
    values = {
        "holds": BLOCKS,
        "archive": start.archive.hex(),
        "part": str(start.part),
        "first_block": str(start.first_block),
        "blocks": str(end.blocks),
        "blocks_before": str(start.blocks_before),
        "stored_before": str(start.stored_before),
        "previous_tag": start.previous_tag,
        "previous_cartridge": start.previous_cartridge.hex() if any(start.previous_cartridge) else "",
        "next_tag": end.next_tag,
        "final": "true" if end.final else "false",
        "root": end.root.hex(),
        "client": start.info.client,
        "resource": start.info.resource,
        "backup_type": start.info.backup_type,
        "crypto": start.info.crypto,
        "created": format_time(start.info.created_ns),
        "ended": format_time(end.ended_ns),
    }
    if end.blocks:
        values |= {"lowest_block": str(end.first_block), "highest_block": str(end.last_block)}
    return {_PREFIX + name: _text(value) for name, value in values.items()}


def map_attributes(archive: bytes, part: int) -> dict[str, bytes]:
    """Extended attributes of the file with the map."""
    values = {"holds": MAP, "archive": archive.hex(), "part": str(part)}
    return {_PREFIX + name: value.encode() for name, value in values.items()}


# Reading


class _Values:
    """Extended attributes of one file. Raises ``ProtocolViolation`` for what is missing or malformed."""

    def __init__(self, xattrs: Mapping[str, bytes]) -> None:
        self._xattrs = xattrs

    def text(self, name: str) -> str:
        try:
            return self._xattrs[_PREFIX + name].decode()
        except (KeyError, UnicodeDecodeError):
            raise ProtocolViolation(f"no attribute {name}, or one that is no text") from None

    def number(self, name: str, *, minimum: int = 0) -> int:
        return parse_number(self.text(name), minimum=minimum)

    def key(self) -> tuple[bytes, int]:
        """Archive and part."""
        try:
            archive = bytes.fromhex(self.text("archive"))
        except ValueError:
            archive = b""
        if len(archive) != _ARCHIVE_BYTES:
            raise ProtocolViolation("no archive id of 16 bytes")
        return archive, self.number("part", minimum=1)


def _key(entry: File | Directory, holds: str) -> tuple[bytes, int] | None:
    """Archive and part, when the file says that it holds that of one."""
    if not isinstance(entry, File) or entry.xattrs.get(_PREFIX + "holds") != holds.encode():
        return None
    try:
        return _Values(entry.xattrs).key()
    except ProtocolViolation:
        return None


def _place(file: File, map_file: File | None, block_bytes: int) -> PartPlace:
    """Raises ``ProtocolViolation``. A part without blocks has no extent: its map tells where it stands."""
    values = _Values(file.xattrs)
    blocks = values.number("blocks")
    end = 0
    for extent in file.extents:
        if extent.file_offset != end:
            raise ProtocolViolation("blocks with a hole between them")
        end += extent.byte_count
    if end != file.length:
        raise ProtocolViolation("blocks whose length is not that of their extents")
    extents = file.extents or (map_file.extents if map_file is not None else ())
    return PartPlace(
        part=values.number("part", minimum=1),
        position=extents[0].start_block if extents else 0,
        records=records_of(file.extents, block_bytes),
        first_block=values.number("lowest_block") if blocks else -1,
        last_block=values.number("highest_block") if blocks else -1,
        blocks=blocks,
        stored_bytes=file.length,
        final=parse_boolean(values.text("final")),
    )


def find_parts(root: Directory, block_bytes: int) -> list[StoredPart]:
    """Parts that the tree names, by position. Files whose attributes are incomplete or malformed are files of the user's."""
    files = [entry for _, entry in walk(root)]
    maps = {key: entry for entry in files if (key := _key(entry, MAP)) is not None and isinstance(entry, File)}
    found: list[StoredPart] = []
    for entry in files:
        key = _key(entry, BLOCKS)
        if key is None or not isinstance(entry, File):
            continue
        map_file = maps.get(key)
        try:
            place = _place(entry, map_file, block_bytes)
        except ProtocolViolation:
            continue
        found.append(StoredPart(archive=key[0], place=place, blocks=entry, map=map_file))
    found.sort(key=lambda part: (part.place.position, part.archive, part.place.part))
    # A file that was copied within the volume took its attributes along: the first counts.
    first = {(part.archive, part.place.part): part for part in reversed(found)}
    return [part for part in found if first[part.archive, part.place.part] is part]


# The tree


class _Uids:
    def __init__(self, highest: int) -> None:
        self.highest = highest

    def next(self) -> int:
        if not 0 < self.highest < _UID_MAX:
            raise NotAllowedNow("the volume has given all the file numbers that there are: label the cartridge again")
        self.highest += 1
        return self.highest


def _changed(directory: Directory, contents: Sequence[File | Directory], time_ns: int) -> Directory:
    times = msgspec.structs.replace(directory.times, modify=time_ns, change=time_ns)
    return msgspec.structs.replace(directory, contents=tuple(contents), times=times)


def _put(directory: Directory, names: Sequence[str], files: Sequence[File], uids: _Uids, time_ns: int) -> Directory:
    if not names:
        taken = {entry.name for entry in directory.contents}
        for file in files:
            if file.name in taken:
                raise NotAllowedNow(f"the volume has a file {directory.name}/{file.name} already")
        new = [msgspec.structs.replace(file, uid=uids.next()) for file in files]
        return _changed(directory, (*directory.contents, *new), time_ns)
    for at, entry in enumerate(directory.contents):
        if entry.name == names[0]:
            if not isinstance(entry, Directory):
                raise NotAllowedNow(
                    f"the volume has a file {entry.name} where rbmedia's directory would be: move it away"
                )
            child = _put(entry, names[1:], files, uids, time_ns)
            kept = (*directory.contents[:at], child, *directory.contents[at + 1 :])
            return msgspec.structs.replace(directory, contents=kept)
    empty = Directory(name=names[0], uid=uids.next(), times=Times.all_at(time_ns))
    child = _put(empty, names[1:], files, uids, time_ns)
    return _changed(directory, (*directory.contents, child), time_ns)


def has_part(root: Directory, archive: bytes, part: int) -> bool:
    """Whether a part of that number, or a file of its name, is there."""
    paths = {f"{FOLDER}/{archive.hex()}/{name}" for name in (blocks_name(part), map_name(part))}
    return any(
        path in paths or (archive, part) in (_key(entry, BLOCKS), _key(entry, MAP)) for path, entry in walk(root)
    )


def with_part(
    index: Index, start: PartStart, end: PartEnd, blocks: Sequence[Extent], map_extents: Sequence[Extent]
) -> Index:
    """The index with the two files of a part, whose extents these are. Raises ``NotAllowedNow`` when something is in the way."""
    times = Times.all_at(end.ended_ns)

    def file(name: str, extents: Sequence[Extent], xattrs: dict[str, bytes]) -> File:
        length = sum(extent.byte_count for extent in extents)
        return File(name=name, uid=0, length=length, times=times, read_only=True, extents=tuple(extents), xattrs=xattrs)

    files = [
        file(blocks_name(start.part), blocks, blocks_attributes(start, end)),
        file(map_name(start.part), map_extents, map_attributes(start.archive, start.part)),
    ]
    uids = _Uids(index.highest_uid)
    root = _put(index.root, (FOLDER, start.archive.hex()), files, uids, end.ended_ns)
    return msgspec.structs.replace(index, root=root, highest_uid=uids.highest)


def without_archives(root: Directory, archives: frozenset[bytes]) -> tuple[Directory, frozenset[bytes]]:
    """The tree without the files of these archives and the directories left empty by that; and which archives there were.

    Files of other software stay, wherever they lie.
    """
    found: set[bytes] = set()
    names = {archive.hex() for archive in archives}

    def pruned(directory: Directory) -> Directory:
        kept: list[File | Directory] = []
        for entry in directory.contents:
            if isinstance(entry, Directory):
                child = pruned(entry)
                if child is entry or child.contents or entry.name not in names:
                    kept.append(child)
                continue
            key = _key(entry, BLOCKS) or _key(entry, MAP)
            if key is None or key[0] not in archives:
                kept.append(entry)
            else:
                found.add(key[0])
        same = len(kept) == len(directory.contents) and all(
            one is other for one, other in zip(kept, directory.contents, strict=True)
        )
        return directory if same else msgspec.structs.replace(directory, contents=tuple(kept))

    return pruned(root), frozenset(found)


def is_marked_full(root: Directory) -> bool:
    """Whether a session met the end of the cartridge: the format itself has no place to say so."""
    return any(
        isinstance(entry, Directory) and entry.name == FOLDER and _FULL in entry.xattrs for entry in root.contents
    )


def marked_full(root: Directory) -> Directory:
    """The tree with that mark, on our directory."""
    contents = tuple(
        msgspec.structs.replace(entry, xattrs={**entry.xattrs, _FULL: b"true"})
        if isinstance(entry, Directory) and entry.name == FOLDER
        else entry
        for entry in root.contents
    )
    return msgspec.structs.replace(root, contents=contents)


def blocked_by(root: Directory) -> str:
    """Why no part can be added to the tree; empty when it can."""
    for entry in root.contents:
        if entry.name == FOLDER and not isinstance(entry, Directory):
            return f"it has a file {FOLDER} where the directory of archives would be"
    return ""
