"""What a restore does in which order: selection of names, and units of work cut from the manifest. No I/O.

A unit is what one hop to a worker thread writes: names and about eight megabytes of content, together with the blocks that hold it. Units are
cut where a file begins in a new block, so that a block is fetched once. What must wait until everything before it is there (hard
links, the metadata of a directory that is complete, a large file's end) stands in the unit's ``after`` and is done in order.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence, Set
from typing import Final, TypeAlias

import msgspec

from rbcore.archive.manifest import path_order_key
from rbcore.archive.model import Entry, EntryType, Extent, ManifestIndexRow

UNIT_CONTENT_BYTES: Final = 8 * 1024 * 1024
UNIT_BLOCKS: Final = 8
UNIT_BLOCKS_MAX: Final = 24
UNIT_FILES: Final = 512
UNIT_NAMES: Final = 2048

BlockId: TypeAlias = tuple[int, int]
"""(index into the trailer's archives, block number)."""


class LargeJob:
    """A file that is restored by several units. ``started`` by the first that runs; ended in order, after the last."""

    __slots__ = ("entry", "lock", "problem")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.problem = ""
        self.lock = threading.Lock()


class LargePiece(msgspec.Struct, frozen=True):
    job: LargeJob
    extents: list[Extent]


After: TypeAlias = Entry | LargeJob
"""A HARDLINK entry, a DIRECTORY entry whose content is complete, or a large file that is complete."""


class RestoreUnit(msgspec.Struct):
    """See the module's header."""

    files: list[Entry] = []
    """Written as a whole."""
    specials: list[Entry] = []
    pieces: list[LargePiece] = []
    blocks: set[BlockId] = set()
    after: list[After] = []
    content_bytes: int = 0

    @property
    def names(self) -> int:
        return len(self.files) + len(self.specials) + len(self.after) + len(self.pieces)


class UnitCutter:
    """Cuts entries, which come in manifest order, into units."""

    def __init__(self) -> None:
        self._unit = RestoreUnit()
        self._open_directories: list[Entry] = []

    def add(self, entry: Entry, *, finish: bool = True) -> Iterator[RestoreUnit]:
        """Units that are full now. ``finish``: a directory gets its metadata when everything below it is there."""
        self._leave(entry.path)
        if entry.type is EntryType.DIRECTORY:
            if finish:
                self._open_directories.append(entry)
        elif entry.type is EntryType.HARDLINK:
            self._unit.after.append(entry)
        elif entry.type is not EntryType.FILE:
            self._unit.specials.append(entry)
        elif sum(extent.length for extent in entry.extents) > UNIT_CONTENT_BYTES:
            yield from self._add_large(entry)
        else:
            yield from self._add_small(entry)
        if self._unit.names >= UNIT_NAMES:
            yield self._next()

    def end(self) -> Iterator[RestoreUnit]:
        """The last unit."""
        self._leave(None)
        yield self._next()

    def _leave(self, path: bytes | None) -> None:
        """Directories that ``path`` (None: nothing more) does not lie in are complete."""
        directories = self._open_directories
        while directories and (path is None or not within(path, directories[-1].path)):
            self._unit.after.append(directories.pop())

    def _add_small(self, entry: Entry) -> Iterator[RestoreUnit]:
        unit = self._unit
        needed = {(extent.archive, extent.block) for extent in entry.extents}
        full = (
            unit.content_bytes >= UNIT_CONTENT_BYTES or len(unit.blocks) >= UNIT_BLOCKS or len(unit.files) >= UNIT_FILES
        )
        begins_anew = not needed <= unit.blocks or len(unit.files) >= 4 * UNIT_FILES
        if (full and begins_anew) or len(unit.blocks | needed) > UNIT_BLOCKS_MAX:
            yield self._next()
        unit = self._unit
        unit.files.append(entry)
        unit.blocks |= needed
        unit.content_bytes += sum(extent.length for extent in entry.extents)

    def _add_large(self, entry: Entry) -> Iterator[RestoreUnit]:
        yield self._next()
        job = LargeJob(entry)
        extents: list[Extent] = []
        for extent in entry.extents:
            block = (extent.archive, extent.block)
            if self._unit.content_bytes >= UNIT_CONTENT_BYTES or (
                block not in self._unit.blocks and len(self._unit.blocks) >= UNIT_BLOCKS
            ):
                self._unit.pieces.append(LargePiece(job, extents))
                yield self._next()
                extents = []
            extents.append(extent)
            self._unit.blocks.add(block)
            self._unit.content_bytes += extent.length
        self._unit.pieces.append(LargePiece(job, extents))
        self._unit.after.append(job)
        yield self._next()

    def _next(self) -> RestoreUnit:
        unit, self._unit = self._unit, RestoreUnit()
        return unit


class Selection:
    """Which names a granular restore takes: the paths asked for with everything below, and the directories on the way."""

    def __init__(self, only: Sequence[bytes]) -> None:
        """Paths relative to the backup's root. Empty, or with the root among them: everything."""
        self.everything = not only or b"" in only
        self._wanted = frozenset(only)
        self._parents = frozenset(parent for path in only for parent in parents_of(path))

    def wants(self, path: bytes) -> bool:
        """Whether ``path`` is asked for itself or lies in a directory that is."""
        return self.everything or path in self._wanted or any(parent in self._wanted for parent in parents_of(path))

    def is_parent(self, path: bytes) -> bool:
        """Whether ``path`` is only on the way to what is asked for."""
        return path in self._parents and not self.wants(path)

    def missing(self, found: Set[bytes]) -> list[bytes]:
        """Paths that were asked for and not ``found``."""
        return [] if self.everything else [path for path in self._wanted if path not in found]

    def blocks(self, rows: Sequence[ManifestIndexRow]) -> list[int]:
        """Numbers of the manifest blocks in which something of the selection may stand, by the trailer's index."""
        if self.everything:
            return [row.block for row in rows]
        wanted, parents = map(path_order_key, self._wanted), map(path_order_key, self._parents)
        # What lies below a path has that path's key and a NUL in front: all of it sorts before key + b"\1".
        spans = [(key, key + b"\1") for key in wanted] + [(key, key) for key in parents]
        return covering(rows, spans)


def covering(rows: Sequence[ManifestIndexRow], spans: Sequence[tuple[bytes, bytes]]) -> list[int]:
    """Numbers of the manifest blocks that may hold a key between the two of any span."""
    found: list[int] = []
    keys = [path_order_key(row.first_path) for row in rows]
    for position, row in enumerate(rows):
        # A row's path is cut after 255 bytes, so it is a lower bound only: of this block and of the next one.
        following = keys[position + 1] if position + 1 < len(keys) else None
        for first, last in spans:
            if last >= keys[position] and (following is None or first <= following or first.startswith(following)):
                found.append(row.block)
                break
    return found


def parents_of(path: bytes) -> Iterator[bytes]:
    """The directories in which ``path`` lies, the nearest first, the root last."""
    while path:
        path = path.rpartition(b"/")[0]
        yield path


def within(path: bytes, directory: bytes) -> bool:
    """Whether ``path`` is ``directory`` or lies below it."""
    return not directory or path == directory or path.startswith(directory + b"/")
