"""Blocks of archives on the cartridges that were found: ``actors.port.ArchiveSource``, and its end of a data channel.

Manifest and trailer are read first, in one pass, and kept in a temporary file: with one drive every look at the names would otherwise change the
cartridge. What cannot be read is noted with its cartridge, and left out: the restore names the files that needed it.
"""

from __future__ import annotations

import contextlib
import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, Final

import trio

from actors.framing import DataChannel
from actors.port import ArchiveSource
from actors.supervisor import cleanup_scope, leading_error
from rbcore import errors
from rbcore.archive.block import iter_blocks
from rbcore.archive.container import Index
from rbcore.archive.model import BlockFlag, BlockKind
from rbcore.messages import (
    FRAME_PAYLOAD_BYTES_MAX,
    Attach,
    Attached,
    Blocks,
    EndOfBlocks,
    Fetch,
    FetchManifest,
    FetchTrailer,
    Received,
    Refusal,
)
from rbcore.ports import World
from rbcore.tape.session import PartReader
from rbcore.tape.spanning import FoundArchive, PlacedPart
from rbmedia.tape_scan import Catalogue, Volume
from rbmedia.tape_workbench import Bench

READ_BLOCKS_MAX: Final = 16
"""Some megabytes: what is asked for at once when one that cannot be read costs a second try."""
READ_BYTES_MAX: Final = 2 * 1024 * 1024
CREDIT_BYTES: Final = 32 * 1024 * 1024
REFUSE_SECONDS_MAX: Final = 5.0


class FoundSource:
    """One archive. Whoever reads it goes forwards as far as possible; each step to another part may be a mount."""

    def __init__(self, archive: FoundArchive, catalogue: Catalogue, world: World, spool: IO[bytes]) -> None:
        """``spool``: an empty file for this archive alone, open for reading and writing."""
        self.archive = archive
        self._damage: dict[int, str] = {}
        """Sentences, by the block that could not be read; negative: index of the part whose maps are lost."""
        self._bench: Bench = catalogue.bench
        self._world = world
        self._spool = spool
        self._parts: list[PlacedPart] = archive.parts
        self._first_blocks = [one.found.header.first_block for one in self._parts]
        self._volumes: list[Volume] = [catalogue.volume_of(one) for one in self._parts]
        self._readers: dict[int, tuple[int, PartReader]] = {}
        """Index of the part -> (mounts of its cartridge, reader)."""
        self._kept: dict[int, tuple[int, int]] = {}
        """Blocks of manifest and trailer: offset and length in the spool."""
        self._lost: set[int] = set()
        """Manifest blocks that could not be read: they are not tried again, so that each pass over the names sees the same ones."""
        self._structure: tuple[list[int], int] | None = None

    def __repr__(self) -> str:
        return (
            f"<source of archive {self.archive.archive.hex()}: {len(self._parts)} parts, {len(self._damage)} damages>"
        )

    @property
    def damage(self) -> list[str]:
        """What could not be read, in sentences."""
        return [self._damage[key] for key in sorted(self._damage)]

    # --- ArchiveSource -----------------------------------------------------------------------------------------------------

    async def read(self, numbers: Sequence[int]) -> bytes:
        """These blocks (ascending), whole, one after the other. Raises ``NotFound``, ``Damaged`` (one of them), ``Unavailable``."""
        pieces: list[bytes] = []
        start = 0
        while start < len(numbers):
            if numbers[start] in self._lost:
                raise errors.Damaged(
                    f"Block {numbers[start]} could not be read before.", data={"block": numbers[start]}
                )
            at, is_kept = self._part_of(numbers[start]), numbers[start] in self._kept
            end = start + 1
            while end < len(numbers) and self._goes_on(numbers[end], at, is_kept):
                end += 1
            run = numbers[start:end]
            pieces.append(await self._read_kept(run) if is_kept else await (await self._reader(at)).read(run))
            start = end
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def manifest_blocks(self) -> list[int]:
        return list((await self._structured())[0])

    async def trailer_block(self) -> int:
        return (await self._structured())[1]

    async def block_numbers(self) -> Sequence[int]:
        numbers = array("Q")
        for at in range(self.part_count):
            numbers.extend(await self.block_numbers_of(at))
        return numbers

    @property
    def part_count(self) -> int:
        return len(self._parts)

    async def block_numbers_of(self, at: int) -> array[int]:
        """Blocks in the part with this index, ascending: who goes part by part mounts each cartridge once."""
        index, count = await self._index(at)
        return array("Q", (index[position].block for position in range(count)))

    # --- for those who go on without what is damaged -----------------------------------------------------------------------

    async def read_most(self, numbers: Sequence[int]) -> tuple[bytes, int]:
        """What of these blocks can be read, and how many those are; the rest is noted as damage."""
        try:
            return await self.read(numbers), len(numbers)
        except (errors.Damaged, errors.NotFound) as error:
            if len(numbers) == 1:
                self._note(numbers[0], error)
                return b"", 0
        found = [await self.read_most([number]) for number in numbers]
        return b"".join(data for data, _ in found), sum(count for _, count in found)

    def _note(self, number: int, error: errors.RbError) -> None:
        at = bisect_right(self._first_blocks, number) - 1
        where = f"cartridge {self._volumes[at].name}" if at >= 0 else "a part that is missing"
        line = f"archive {self.archive.archive.hex()}, block {number}, on {where}: {error.message}"
        self._damage.setdefault(number, line)

    # --- parts -------------------------------------------------------------------------------------------------------------

    def _part_of(self, number: int) -> int:
        """Of a part only the blocks below the first one of the next count (``docs/format-tape.md``, "Spanning")."""
        at = bisect_right(self._first_blocks, number) - 1
        if at < 0:
            raise errors.NotFound(f"The part with block {number} of archive {self.archive.archive.hex()} is missing.")
        return at

    def _goes_on(self, number: int, at: int, is_kept: bool) -> bool:
        return (self._part_of(number), number in self._kept) == (at, is_kept) and number not in self._lost

    async def _reader(self, at: int) -> PartReader:
        volume = self._volumes[at]
        drive = await self._bench.mount(volume.cartridge)
        known = self._readers.get(at)
        if known is None or known[0] != volume.cartridge.mounts:
            known = self._readers[at] = (volume.cartridge.mounts, await volume.reader(drive, self._parts[at]))
        return known[1]

    async def _index(self, at: int) -> tuple[Index, int]:
        """Where the blocks of a part lie, and how many of them count. One whose maps are lost has none, which is noted."""
        placed = self._parts[at]
        try:
            index = await (await self._reader(at)).index()
        except errors.Damaged as error:
            where = (
                f"archive {self.archive.archive.hex()}, part {placed.found.part}, on cartridge {self._volumes[at].name}"
            )
            self._damage[at - len(self._parts)] = f"{where}: {error.message}"
            return Index(self.archive.archive), 0
        if at + 1 == len(self._parts):
            return index, len(index)
        return index, bisect_left(index, self._first_blocks[at + 1], key=lambda row: row.block)

    # --- manifest and trailer ----------------------------------------------------------------------------------------------

    async def _structured(self) -> tuple[list[int], int]:
        if self._structure is not None:
            return self._structure
        manifest: list[int] = []
        trailer = -1
        for at in range(self.part_count):
            index, count = await self._index(at)
            limit = index[count - 1].block if count else -1
            found = [number for number in index.manifest_blocks(last_only=False) if number <= limit]
            for number in found:
                row = index.find(number)
                if row is not None and row.flags & BlockFlag.MANIFEST_BEGINS:
                    manifest.clear()
                manifest.append(number)
            if count and index[count - 1].kind == BlockKind.TRAILER:
                trailer = limit
                found.append(limit)
            await self._keep(found)
        if trailer < 0:
            raise errors.Damaged(
                f"The trailer block of archive {self.archive.archive.hex()} is not there, without which its names cannot be found. "
                + " ".join(f"{one[:1].upper()}{one[1:]}." for one in self.archive.problems)
            )
        self._structure = (manifest, trailer)
        return self._structure

    async def _keep(self, numbers: Sequence[int]) -> None:
        for start in range(0, len(numbers), READ_BLOCKS_MAX):
            data, _ = await self.read_most(numbers[start : start + READ_BLOCKS_MAX])
            offset = await self._world.threads.run(lambda data=data: self._append(data))  # type: ignore[misc]
            for header, _ in iter_blocks(data):
                self._kept[header.number] = (offset, header.block_length)
                offset += header.block_length
        self._lost.update(number for number in numbers if number not in self._kept)

    def _append(self, data: bytes) -> int:
        offset = self._spool.seek(0, 2)
        self._spool.write(data)
        return offset

    async def _read_kept(self, numbers: Sequence[int]) -> bytes:
        return await self._world.threads.run(lambda: b"".join(self._kept_block(number) for number in numbers))

    def _kept_block(self, number: int) -> bytes:
        offset, length = self._kept[number]
        self._spool.seek(offset)
        return self._spool.read(length)


class SourceServer:
    """The daemon's end of a data channel, for one restore: answers ``Fetch``, ``FetchManifest`` and ``FetchTrailer`` in their order."""

    def __init__(self, channel: DataChannel, sources: Mapping[str, FoundSource]) -> None:
        self._channel = channel
        self._sources = sources
        self._unreturned = 0
        self._returned = trio.Event()

    async def run(self) -> None:
        """Until the other end is closed. What ends it otherwise is told there, as a refusal."""
        failure: errors.RbError | None = None
        try:
            await self._serve()
        except* errors.RbError as group:
            failure = leading_error(group)
        # The restore ends with this sentence; when it closed its end, it has ended already.
        with cleanup_scope(REFUSE_SECONDS_MAX), contextlib.suppress(errors.Unavailable):
            if failure is not None:
                await self._channel.send(Refusal(failure=errors.Failure.of(failure)))

    async def _serve(self) -> None:
        frame, _ = await self._channel.receive()
        if not isinstance(frame, Attach):
            raise errors.ProtocolViolation(f"{type(frame).__name__} came instead of an Attach")
        await self._channel.send(Attached(credit_bytes=CREDIT_BYTES, next_block=0, manifest_blocks=[]))
        # Without a bound: the other end is in this process, and has a few requests under way.
        requests_in, requests = trio.open_memory_channel[Any](math.inf)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._answer, requests)
            while True:
                frame, _ = await self._channel.receive()
                if isinstance(frame, Received):
                    self._unreturned -= frame.bytes
                    self._returned.set()
                elif isinstance(frame, Fetch | FetchManifest | FetchTrailer):
                    requests_in.send_nowait(frame)
                else:
                    raise errors.ProtocolViolation(f"{type(frame).__name__} has no place here")

    async def _answer(self, requests: trio.MemoryReceiveChannel[Any]) -> None:
        async for request in requests:
            source = self._sources.get(request.archive)
            if source is not None:
                await self._send_blocks(source, await _numbers(request, source))
            await self._channel.send(EndOfBlocks())

    async def _send_blocks(self, source: FoundSource, numbers: Sequence[int]) -> None:
        start, step = 0, 2
        while start < len(numbers):
            data, count = await source.read_most(numbers[start : start + step])
            start += step
            if not count:
                continue
            while self._unreturned and self._unreturned + len(data) > CREDIT_BYTES:
                self._returned = trio.Event()
                await self._returned.wait()
            self._unreturned += len(data)
            for blocks in _frames(data):
                await self._channel.send(Blocks(count=len(blocks)), blocks)
            step = max(1, min(READ_BLOCKS_MAX, READ_BYTES_MAX * count // len(data)))


def _frames(data: bytes) -> Iterator[list[memoryview]]:
    """The blocks, in lots that a frame takes."""
    view, start, length = memoryview(data), 0, 0
    lot: list[memoryview] = []
    for header, _ in iter_blocks(view):
        end = start + header.block_length
        if lot and length + header.block_length > FRAME_PAYLOAD_BYTES_MAX:
            yield lot
            lot, length = [], 0
        lot.append(view[start:end])
        length += header.block_length
        start = end
    yield lot


async def _numbers(request: Fetch | FetchManifest | FetchTrailer, source: ArchiveSource) -> Sequence[int]:
    if isinstance(request, Fetch):
        return request.numbers
    trailer = await source.trailer_block()
    return [*await source.manifest_blocks(), trailer] if isinstance(request, FetchManifest) else [trailer]
