"""The plan of a restore from media on which a jump costs a minute: pass by pass, archive by archive. No I/O.

A chain's archives lie one after the other on tape. So the manifest is read once for each archive that holds content, the oldest first
(an archive's own trailer lists it first and its ancestors after it, the full backup last), and each pass restores what lies in its archive.
A file whose content is spread over several archives is made in the pass of the oldest of them, gets a piece in each pass, and
its metadata in the pass of the newest. Names without content are made in the first pass; hard links and the metadata of directories
come in the last, when everything is there.

Within a pass a window of names is collected and sorted by block numbers. All that is in memory is that window, the spread files that are
open, and what a single entry holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Final, NamedTuple

from actors.agent.restore_plan import (
    UNIT_BLOCKS,
    UNIT_BLOCKS_MAX,
    UNIT_CONTENT_BYTES,
    UNIT_FILES,
    UNIT_NAMES,
    After,
    BlockId,
    LargeJob,
    LargePiece,
    RestoreUnit,
    within,
)
from rbcore.archive.model import Entry, EntryType, Extent
from rbcore.errors import Damaged

WINDOW_BYTES: Final = 64 * 1024 * 1024
"""Of plan, not of content: some 60,000 files."""
WINDOW_LARGE_FILES: Final = 128
"""Each may be open until the window is worked off."""
SPREAD_FILES: Final = 128
SPREAD_BYTES: Final = 32 * 1024 * 1024
"""Spread files that stay open from pass to pass, and what their entries take. One beyond that is restored as a whole in the pass of its
oldest archive, together with the others of its window: for such a window each archive is visited once more."""
NO_ARCHIVE: Final = -1
"""Of a last pass that has no content to restore."""


class MediumOrder:
    """The passes of one restore, and what they have to know of each other."""

    def __init__(self, archives: int) -> None:
        """``archives``: how many the trailer names."""
        self.archives = archives
        self.referred: set[int] = set()
        """Archives that hold content of what is restored; known after the first pass."""
        self.foreign: set[bytes] = set()
        """Directories on the way that were there before: their metadata is not the restore's business."""
        self._spread: dict[bytes, tuple[LargeJob, int]] = {}
        self._spread_bytes = 0

    def passes(self) -> Iterator[PassCutter]:
        """One after the other: a pass must be over before the next is asked for."""
        oldest = self.archives - 1
        yield PassCutter(self, oldest, first=True, last=oldest == 0)
        if oldest:
            later = sorted(self.referred - {oldest}, reverse=True) or [NO_ARCHIVE]
            for archive in later:
                yield PassCutter(self, archive, first=False, last=archive == later[-1])

    def begin_spread(self, job: LargeJob) -> bool:
        """Whether the file can stay open until the pass of its newest archive."""
        held_bytes = _held_bytes(job.entry)
        if len(self._spread) >= SPREAD_FILES or self._spread_bytes + held_bytes > SPREAD_BYTES:
            return False
        self._spread[job.entry.path] = (job, held_bytes)
        self._spread_bytes += held_bytes
        return True

    def spread_job(self, path: bytes) -> LargeJob | None:
        """The file, when an earlier pass began it and left it open."""
        found = self._spread.get(path)
        return found[0] if found is not None else None

    def end_spread(self, path: bytes) -> None:
        """The file's newest archive has its turn."""
        self._spread_bytes -= self._spread.pop(path)[1]


class _Item(NamedTuple):
    """What is written from one run of blocks: a whole file, or a piece of ``job``."""

    order: tuple[int, int]
    """Ascending as the blocks lie on the medium: the older the archive (the higher its index), the earlier."""
    extents: list[Extent]
    entry: Entry
    job: LargeJob | None


class PassCutter:
    """Cuts the entries of one pass, which come in manifest order, into units in the order of the medium."""

    def __init__(self, plan: MediumOrder, archive: int, *, first: bool, last: bool) -> None:
        self.first = first
        self._last = last
        self._plan = plan
        self._archive = archive
        self._open_directories: list[Entry] = []
        self._bare = RestoreUnit()
        """Names that need no block."""
        self._items: list[_Item] = []
        self._complete: set[LargeJob] = set()
        """Large files of the window that end with it."""
        self._large_files = 0
        self._after: list[After] = []
        self._held_bytes = 0

    def __repr__(self) -> str:
        return f"<pass of archive {self._archive}: {len(self._items)} items, {len(self._after)} names wait>"

    def add(self, entry: Entry, *, finish: bool = True) -> Iterator[RestoreUnit]:
        """Units that are full now. ``finish``, in the first pass: the directory's metadata is to be set.

        Raises ``Damaged`` for an extent in an archive that the trailer does not name.
        """
        if self._last:
            self._leave(entry.path)
        if entry.type is EntryType.DIRECTORY:
            if self.first and not finish:
                self._plan.foreign.add(entry.path)
            if self._last and entry.path not in self._plan.foreign:
                self._open_directories.append(entry)
        elif entry.type is EntryType.HARDLINK:
            if self._last:
                self._put_after(entry)
        elif entry.extents:
            self._add_content(entry)
        elif self.first:
            yield from self._add_bare(entry)
        if self._held_bytes >= WINDOW_BYTES or self._large_files >= WINDOW_LARGE_FILES:
            yield from self._flush()

    def end(self) -> Iterator[RestoreUnit]:
        """The last units."""
        self._leave(None)
        yield from self._flush()

    def _leave(self, path: bytes | None) -> None:
        """Directories that ``path`` (None: nothing more) does not lie in are complete."""
        directories = self._open_directories
        while directories and (path is None or not within(path, directories[-1].path)):
            self._put_after(directories.pop())

    def _put_after(self, entry: Entry) -> None:
        self._after.append(entry)
        self._held_bytes += _held_bytes(entry)

    def _add_bare(self, entry: Entry) -> Iterator[RestoreUnit]:
        unit = self._bare
        (unit.files if entry.type is EntryType.FILE else unit.specials).append(entry)
        if unit.names >= UNIT_FILES:
            self._bare = RestoreUnit()
            yield unit

    def _add_content(self, entry: Entry) -> None:
        archives = {extent.archive for extent in entry.extents}
        if self.first:
            if max(archives) >= self._plan.archives:
                raise Damaged(f"an extent names archive {max(archives)} of {self._plan.archives}")
            self._plan.referred |= archives
        if len(archives) > 1:
            self._add_spread(entry, archives)
        elif self._archive in archives:
            if sum(extent.length for extent in entry.extents) <= UNIT_CONTENT_BYTES and _in_one_run(entry.extents):
                self._items.append(_Item(min(map(_order, entry.extents)), entry.extents, entry, None))
                self._held_bytes += _held_bytes(entry)
            else:
                self._add_pieces(LargeJob(entry), entry.extents, complete=True)

    def _add_spread(self, entry: Entry, archives: set[int]) -> None:
        oldest, newest = max(archives), min(archives)
        job = self._plan.spread_job(entry.path)
        if job is None:
            if self._archive != oldest:
                return
            job = LargeJob(entry)
            if not self._plan.begin_spread(job):
                self._add_pieces(job, entry.extents, complete=True)
                return
        if self._archive in archives:
            here = [extent for extent in entry.extents if extent.archive == self._archive]
            self._add_pieces(job, here, complete=self._archive == newest)
            if self._archive == newest:
                self._plan.end_spread(entry.path)

    def _add_pieces(self, job: LargeJob, extents: Iterable[Extent], *, complete: bool) -> None:
        """Cut where the blocks do not follow each other, too: what lies between them can be read in its turn."""
        piece: list[Extent] = []
        archive = block = -1
        blocks = length = 0
        for extent in sorted(extents, key=_order):
            anew = extent.block != block or extent.archive != archive
            if piece and (
                length >= UNIT_CONTENT_BYTES
                or (anew and (blocks >= UNIT_BLOCKS or extent.block != block + 1 or extent.archive != archive))
            ):
                self._put_piece(job, piece)
                piece, blocks, length = [], 0, 0
                anew = True
            archive, block = extent.archive, extent.block
            blocks += anew
            length += extent.length
            piece.append(extent)
        self._put_piece(job, piece)
        self._large_files += 1
        self._held_bytes += _held_bytes(job.entry)
        if complete:
            self._complete.add(job)

    def _put_piece(self, job: LargeJob, piece: list[Extent]) -> None:
        order = _order(piece[0])
        piece.sort(key=attrgetter("file_offset"))
        self._items.append(_Item(order, piece, job.entry, job))

    def _flush(self) -> Iterator[RestoreUnit]:
        """The window's units: by block numbers, then what had to wait for them."""
        bare, items, complete, after = self._bare, self._items, self._complete, self._after
        self._bare, self._items, self._complete, self._after = RestoreUnit(), [], set(), []
        self._held_bytes = self._large_files = 0
        if bare.names:
            yield bare
        items.sort(key=attrgetter("order"))
        pieces_left = Counter(item.job for item in items if item.job in complete)
        unit = RestoreUnit()
        for item in items:
            needed = _blocks(item.extents)
            if unit.blocks and _begins_anew(unit, needed):
                yield unit
                unit = RestoreUnit()
            unit.blocks |= needed
            unit.content_bytes += sum(extent.length for extent in item.extents)
            if item.job is None:
                unit.files.append(item.entry)
                continue
            unit.pieces.append(LargePiece(item.job, item.extents))
            pieces_left[item.job] -= 1
            if not pieces_left[item.job]:
                unit.after.append(item.job)
        if unit.names:
            yield unit
        for start in range(0, len(after), UNIT_NAMES):
            yield RestoreUnit(after=after[start : start + UNIT_NAMES])


def _begins_anew(unit: RestoreUnit, needed: set[BlockId]) -> bool:
    """Whether what needs these blocks is better written by another unit. Blocks of two archives are never asked for by one."""
    full = unit.content_bytes >= UNIT_CONTENT_BYTES or len(unit.blocks) >= UNIT_BLOCKS or len(unit.files) >= UNIT_FILES
    return (
        next(iter(needed))[0] != next(iter(unit.blocks))[0]
        or (full and (not needed <= unit.blocks or len(unit.files) >= 4 * UNIT_FILES))
        or len(unit.blocks | needed) > UNIT_BLOCKS_MAX
    )


def _in_one_run(extents: Sequence[Extent]) -> bool:
    """Whether the blocks, of one archive, follow each other and are few enough for one unit."""
    if len(extents) == 1:
        return True
    numbers = {extent.block for extent in extents}
    return max(numbers) - min(numbers) + 1 == len(numbers) <= UNIT_BLOCKS_MAX


def _order(extent: Extent) -> tuple[int, int]:
    return (-extent.archive, extent.block)


def _blocks(extents: Sequence[Extent]) -> set[BlockId]:
    return {(extent.archive, extent.block) for extent in extents}


def _held_bytes(entry: Entry) -> int:
    """About what an entry of the window takes in memory, as part of a unit."""
    attributes = sum(len(name) + len(value) + 100 for name, value in entry.xattrs.items())
    return 1000 + len(entry.path) + len(entry.link_target) + 200 * len(entry.extents) + attributes
