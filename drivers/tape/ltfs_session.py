"""One LTFS volume in a drive, while it is open: parts are written behind what stands there, read, and left out. Made by ``ltfs``.

Implements ``rbcore.tape.session.CartridgeSession``. A part is two files in the data partition, named by an index that is written behind them when the part
ends; so what was ended is found without its server, by any software that knows LTFS. The index partition gets its index when the session is closed. A write
that failed or was cancelled ends the writing: nobody knows how much of it is on the tape. Opening anew finds out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from drivers.tape.ltfs_medium import FoundIndex, LastIndex, LtfsMedium
from drivers.tape.ltfs_open import VolumeState
from drivers.tape.ltfs_reader import FileReader, LtfsPartReader, LtfsRecords
from drivers.tape.records import MEMORY_BYTES, READ_THROUGH_BYTES, use_variable_blocks
from rbcore import errors
from rbcore.archive.block import BlockHeader, Buffer
from rbcore.tape.ltfs import FIRST_CONTENT_BLOCK, VERSION, Extent, File, Pointer, walk
from rbcore.tape.ltfs_parts import (
    PartEnd,
    StoredPart,
    find_parts,
    has_part,
    is_marked_full,
    marked_full,
    records_of,
    with_part,
    without_archives,
)
from rbcore.tape.ltfs_volume import index_records
from rbcore.tape.ltfs_write import PartWriter
from rbcore.tape.session import CartridgeFormat, Identified, PartPlace, PartReader, PartStart, Written

CREATOR: Final = "RBMEDIA rbmedia 1 - Linux - rbmedia"
"""Of labels and indexes: company, product, version of what is written, platform, program."""
PARTS_MAX: Final = 65_536
INDEX_BYTES_ROOM: Final = 64 * 1024 * 1024
"""A volume with more parts, or a longer index, is full: both are read and written whole."""
_INDEX_GROWTH_BYTES: Final = 128 * 1024
"""What a part adds to an index, extents aside: two files with texts of up to 4096 bytes, escaped."""
_EXTENT_BYTES: Final = 256
_MAP_ROW_BYTES: Final = 28


class LtfsSession:
    """See the module and the port."""

    format = CartridgeFormat.LTFS

    def __init__(
        self,
        medium: LtfsMedium,
        identified: Identified,
        state: VolumeState,
        *,
        memory_bytes: int = MEMORY_BYTES,
        read_through_bytes: int = READ_THROUGH_BYTES,
    ) -> None:
        self.identified = identified
        self._medium, self._drive = medium, medium.drive
        self._records = LtfsRecords(medium, memory_bytes=memory_bytes, read_through_bytes=read_through_bytes)
        self._problem = state.problem
        self._last = dict(state.last)
        self._index = None if state.current is None else state.current.index
        """The tree as it is to be written next; the same as on the medium unless ``_changed``."""
        self._index_bytes = 0 if state.current is None else state.current.length
        self._changed = False
        self._parts: list[StoredPart] = []
        self._take_stock()
        self._part: PartWriter | None = None
        self._append_at: int | None = None
        """Where the data partition ends, once that was looked for; None: not yet."""
        self._behind_index = False
        """What stands before ``_append_at`` is the last index."""
        self._room_bytes: int | None = None
        """What the data partition takes by the drive's own account, less what was written since it was asked."""
        self._warned = self._index is not None and is_marked_full(self._index.root)
        self._failure = ""
        self._wrote = self._closed = False

    def _take_stock(self) -> None:
        self._parts = [] if self._index is None else find_parts(self._index.root, self._medium.block_bytes)

    # --- state ---

    @property
    def _read_only(self) -> str:
        """Why nothing may be written, not even an index."""
        name = self._medium.name
        if self.identified.write_protected:
            return f"Cartridge {name} is write protected."
        if self._index is None or self._problem:
            why = self._problem or "it holds no index"
            return f"LTFS volume {name} is read only: {why}. It can be labelled again when nothing on it is needed."
        if self._failure:
            return f"Writing LTFS volume {name} failed: {self._failure} Open it again to find out what is on it."
        return f"The session of LTFS volume {name} was closed." if self._closed else ""

    @property
    def why_not(self) -> str:
        return self._read_only or (f"LTFS volume {self._medium.name} is full." if self.full else "")

    @property
    def may_write(self) -> bool:
        return not self.why_not

    @property
    def full(self) -> bool:
        return self._warned or len(self._parts) >= PARTS_MAX or self._index_bytes > INDEX_BYTES_ROOM

    @property
    def used_bytes(self) -> int:
        opened = self._part.stored_bytes if self._part is not None else 0
        return sum(part.place.stored_bytes for part in self._parts) + opened

    @property
    def part_open(self) -> bool:
        return self._part is not None

    async def parts(self) -> list[tuple[bytes, PartPlace]]:
        return [(part.archive, part.place) for part in self._parts]

    # --- writing ---

    async def begin_part(self, start: PartStart) -> None:
        if not self.may_write or self._part is not None or self._index is None:
            raise errors.NotAllowedNow(self.why_not or f"A part is open on LTFS volume {self._medium.name}.")
        if has_part(self._index.root, start.archive, start.part):
            raise errors.NotAllowedNow(
                f"LTFS volume {self._medium.name} has a part {start.part} of archive {start.archive.hex()} already. Part numbers are used once."
            )
        with self._writing():
            await self._stand_at_end()
            self._room_bytes = await self._medium.remaining_bytes()
        self._part = PartWriter(start, self._medium.data_letter, self._medium.block_bytes)

    async def write(self, blocks: Sequence[Buffer]) -> Written:
        part = self._with_part()
        checked = part.check(blocks)
        if self._warned:
            # What does not fit any more is not begun either.
            part.dropped |= bool(checked)
            return self._written(part)
        with self._writing():
            await self._stand_at_end()
            for header, block in checked:
                if not await self._write_block(part, header, block):
                    part.dropped |= header is not checked[-1][0]
                    part.drop()
                    break
        return self._written(part)

    async def sync(self) -> Written:
        part = self._with_part()
        with self._writing():
            await self._write_rest(part)
            await self._drive.flush()
        return self._written(part)

    async def end_part(self, *, next_tag: str, ended_ns: int) -> PartPlace:
        return await self._end(next_tag=next_tag, ended_ns=ended_ns)

    async def finish_part(self, *, root: bytes, ended_ns: int) -> PartPlace | None:
        part = self._with_part()
        if part.dropped:
            return None
        return await self._end(root=root, ended_ns=ended_ns, final=True)

    def _with_part(self) -> PartWriter:
        if self._part is None or self._read_only:
            raise errors.NotAllowedNow(self._read_only or f"No part is open on LTFS volume {self._medium.name}.")
        return self._part

    def _written(self, part: PartWriter) -> Written:
        return Written(last_block=part.last_block, full=self._warned)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Whatever ends a writing call early, a cancellation too, leaves a tape of which nobody knows how far it was written."""
        try:
            yield
        except BaseException as error:
            self._failure = error.message if isinstance(error, errors.RbError) else "it was interrupted."
            raise

    async def _write_block(self, part: PartWriter, header: BlockHeader, block: memoryview) -> bool:
        """False: early warning was met, nothing is to be written behind it."""
        for record in part.take(header, block):
            await self._write_record(part, record)
            if self._warned:
                return False
        return True

    async def _write_record(self, part: PartWriter, record: memoryview) -> None:
        assert self._append_at is not None
        self._wrote, self._behind_index = True, False
        length = len(record)
        self._warned |= await self._drive.write(record)
        part.record_written(self._append_at)
        self._append_at += 1
        if self._room_bytes is not None:
            self._room_bytes -= length
            if self._room_bytes < self._reserve_bytes(part):
                await self._ask_for_room(part)

    async def _ask_for_room(self, part: PartWriter) -> None:
        """A drive that compresses has more room than the count says: what it answers holds."""
        told = await self._medium.remaining_bytes()
        if told is None or told < self._reserve_bytes(part):
            self._warned = True
        else:
            self._room_bytes = told

    def _reserve_bytes(self, part: PartWriter) -> int:
        """What still has to be written behind the blocks: a record, the map, an index that names the part, and one more at the end of the session."""
        index_bytes = self._index_bytes + _INDEX_GROWTH_BYTES + len(part.extents) * _EXTENT_BYTES
        return 2 * self._medium.block_bytes + len(part.index) * _MAP_ROW_BYTES + 2 * index_bytes

    async def _write_rest(self, part: PartWriter) -> None:
        await self._stand_at_end()
        rest = part.rest()
        if rest is not None:
            await self._write_record(part, rest)

    async def _end(self, *, ended_ns: int, root: bytes = b"", next_tag: str = "", final: bool = False) -> PartPlace:
        """Rest, map, index: when this returns the part is found without its server."""
        part = self._with_part()
        with self._writing():
            await self._write_rest(part)
            end = PartEnd(
                first_block=part.first_block,
                last_block=part.last_block,
                blocks=len(part.index),
                final=final,
                ended_ns=ended_ns,
                root=root,
                next_tag=next_tag,
            )
            map_extents = await self._write_map(part)
            assert self._index is not None
            self._index = with_part(self._index, part.start, end, part.extents, map_extents)
            await self._write_data_index(ended_ns)
            await self._medium.write_coherencies(self._last)
        self._part = None
        self._take_stock()
        return self._stored(part.start.archive, part.start.part).place

    def _stored(self, archive: bytes, part: int) -> StoredPart:
        return next(one for one in self._parts if (one.archive, one.place.part) == (archive, part))

    async def _write_map(self, part: PartWriter) -> list[Extent]:
        assert self._append_at is not None
        raw, start = part.index.encode(), self._append_at
        for record in index_records(raw, self._medium.block_bytes):
            self._warned |= await self._drive.write(record)
            self._append_at += 1
        self._wrote, self._behind_index = True, False
        return [
            Extent(
                file_offset=0,
                partition=self._medium.data_letter,
                start_block=start,
                byte_offset=0,
                byte_count=len(raw),
            )
        ]

    async def _write_data_index(self, time_ns: int | None = None) -> None:
        """The tree as it is, behind everything in the data partition. ``time_ns`` None: the time of what was written last."""
        index, at, letter = self._index, self._append_at, self._medium.data_letter
        assert index is not None
        assert at is not None
        before = self._last[letter]
        root = marked_full(index.root) if self._warned else index.root
        index = msgspec.structs.replace(
            index,
            creator=CREATOR,
            version=VERSION,
            generation=index.generation + 1,
            update_time_ns=index.update_time_ns if time_ns is None else max(time_ns, index.update_time_ns),
            location=Pointer(letter, at + 1),
            previous=None if before is None else Pointer(letter, before.block),
            root=root,
        )
        self._wrote = True
        found, warned = await self._medium.write_index(index)
        self._warned |= warned
        self._index, self._index_bytes, self._append_at = index, found.length, found.end
        self._last[letter] = LastIndex.of(found)
        self._behind_index, self._changed = True, False

    # --- the place to append ---

    async def _stand_at_end(self) -> None:
        """Before ``_append_at``, from wherever the tape stands, or was moved to by a reader."""
        if self._append_at is None:
            await self._find_end()
        elif not self._medium.stands_at(self._medium.data_letter, self._append_at):
            await self._must_be_ours()
            try:
                await self._medium.locate(self._medium.data_letter, self._append_at)
            except errors.NotFound as error:
                raise errors.PositionLost(
                    f"{self._drive.name}: {error.message} What was written on volume {self._medium.name} is not all there. Open it anew."
                ) from error
            await self._medium.must_stand_at(self._medium.data_letter, self._append_at)

    async def _must_be_ours(self) -> FoundIndex | None:
        """The last index of the data partition, looked at again. Raises ``PositionLost`` when it is not there: this is another cartridge."""
        last = self._last[self._medium.data_letter]
        if last is None:
            return None
        found = await self._medium.read_index_at(self._medium.data_letter, last.block)
        if found is None or found.index.generation != last.generation:
            raise errors.PositionLost(
                f"{self._drive.name}: at block {last.block} of the data partition does not stand the last index of LTFS volume "
                f"{self._medium.name}, so nothing is written. Look which cartridge is in the drive, and open it anew."
            )
        return found

    async def _find_end(self) -> None:
        """Where the data partition ends. Records that a crash left behind its last index stay as they are, in no file: the next index stands
        behind them. An index that was cut short is overwritten."""
        letter = self._medium.data_letter
        await use_variable_blocks(self._drive)
        await self._compress_as_labelled()
        found = await self._must_be_ours()
        end, _ = await self._medium.end_of_data(letter)
        is_behind_index = found is not None and found.end == end
        if not is_behind_index:
            torn = await self._medium.torn_index(letter, FIRST_CONTENT_BLOCK if found is None else found.end)
            end = end if torn is None else torn
            await self._medium.locate(letter, end)
        await self._medium.must_stand_at(letter, end)
        if found is not None and is_behind_index and not found.closed:
            self._wrote = True
            await self._drive.write_filemarks(1)
            end += 1
        self._append_at, self._behind_index = end, is_behind_index

    async def _compress_as_labelled(self) -> None:
        now = await self._drive.compression()
        if now is not None and now != self._medium.label.compression:
            await self._drive.set_compression(self._medium.label.compression)

    # --- forgetting, closing ---

    async def forget(self, archives: frozenset[bytes]) -> int:
        if self._index is None:
            return 0
        root, found = without_archives(self._index.root, archives)
        if not found:
            return 0
        if self._read_only:
            raise errors.NotAllowedNow(self._read_only)
        self._index = msgspec.structs.replace(self._index, root=root)
        self._changed = True
        self._take_stock()
        return len(found)

    async def close(self) -> None:
        if self._closed:
            return
        writes = (self._wrote or self._changed) and not self._read_only
        if writes:
            with self._writing():
                await self._stand_at_end()
                if self._changed or not self._behind_index:
                    await self._write_data_index()
                await self._write_index_partition()
                await self._medium.write_coherencies(self._last)
        self._part = None
        self._closed = True

    async def _write_index_partition(self) -> None:
        """The same tree over the last index there. Files of other software in that partition, and what stands between them, stay."""
        assert self._index is not None
        letter, of_data = self._medium.index_letter, self._last[self._medium.data_letter]
        assert of_data is not None
        last = self._last[letter]
        place = max(FIRST_CONTENT_BLOCK if last is None else last.block - 1, self._end_of_files(letter))
        await self._medium.locate(letter, place)
        location, previous = Pointer(letter, place + 1), Pointer(self._medium.data_letter, of_data.block)
        # While it is written, the partition has none.
        self._last[letter] = None
        found, _ = await self._medium.write_index(
            msgspec.structs.replace(self._index, location=location, previous=previous)
        )
        self._last[letter] = LastIndex.of(found)

    def _end_of_files(self, letter: str) -> int:
        assert self._index is not None
        end = FIRST_CONTENT_BLOCK
        for _, entry in walk(self._index.root):
            for extent in entry.extents if isinstance(entry, File) else ():
                if extent.partition == letter:
                    end = max(end, extent.start_block + records_of([extent], self._medium.block_bytes))
        return end

    # --- reading ---

    def reader(self, archive: bytes, place: PartPlace) -> PartReader:
        """By the files that the index names; a part that it does not name any more is read at its place."""
        block_bytes = self._medium.block_bytes
        for part in self._parts:
            if (part.archive, part.place.part, part.place.position) == (archive, place.part, place.position):
                files = [
                    None if file is None else FileReader(self._records, file.extents, file.length, block_bytes)
                    for file in (part.blocks, part.map)
                ]
                blocks = files[0]
                assert blocks is not None
                return LtfsPartReader(archive, part.place, blocks, files[1], block_bytes)
        extent = Extent(
            file_offset=0,
            partition=self._medium.data_letter,
            start_block=place.position,
            byte_offset=0,
            byte_count=place.stored_bytes,
        )
        extents = [extent] if place.stored_bytes else []
        blocks = FileReader(self._records, extents, place.stored_bytes, block_bytes)
        return LtfsPartReader(archive, place, blocks, None, block_bytes)
