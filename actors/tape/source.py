"""Reading an archive from cartridges: ``actors.port.ArchiveSource``.

A source holds one cartridge at a time. When a block lies on another one it lets go of the first, asks for the second, and waits until a drive has
it; so two readers never wait for each other's drives. Manifest and trailer come from what the daemon keeps, without a mount, or are read from
the cartridges once and kept from then on.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from actors.tape.desk import Desk
from actors.tape.kept import KINDS, KeptArchives
from rbcore.archive.block import iter_blocks
from rbcore.archive.container import Index, IndexRow
from rbcore.archive.model import BlockFlag, BlockKind
from rbcore.archive.store import ArchiveReader
from rbcore.entities import Backup, BackupPart
from rbcore.errors import Damaged, MediumFailed, NotFound, RbError, Unavailable
from rbcore.ports import World
from rbcore.tape.session import PartPlace, PartReader

_log = logging.getLogger(__name__)

KEEP_BLOCKS_MAX: Final = 16
"""Manifest blocks read from a cartridge in one go, to be kept: some megabytes."""


class Lenders(Protocol):
    """Who brings cartridges to drives (``actors.tape.library``)."""

    async def borrow(self, task_id: int, cartridge_id: int, position: int) -> Desk:
        """Wait until the cartridge is mounted for this task. Raises ``Unavailable`` when that cannot be."""

    async def give_back(self, task_id: int, cartridge_id: int) -> None: ...

    async def reading_failed(self, desk: Desk, error: RbError) -> None: ...


class TapeSource:
    """One archive being read by one task."""

    def __init__(
        self,
        backup: Backup,
        task_id: int,
        lenders: Lenders,
        kept: KeptArchives,
        world: World,
        *,
        medium_only: bool = False,
    ) -> None:
        self._medium_only = medium_only
        self._backup = backup
        self._task_id = task_id
        self._lenders = lenders
        self._kept = kept
        self._world = world
        self._archive_id = bytes.fromhex(backup.archive)
        self._parts = [part for part in backup.parts if part.blocks]
        self._first_blocks = [part.first_block for part in self._parts]
        self._desk: Desk | None = None
        self._cartridge_id = 0
        self._readers: dict[int, tuple[object, PartReader]] = {}
        """Part number -> (session, reader)."""
        self._kept_reader: ArchiveReader | None = None
        self._kept_numbers: frozenset[int] = frozenset()
        self._asked_kept = False
        self._structure: tuple[list[int], int] | None = None
        """Valid manifest blocks, trailer block."""

    def __repr__(self) -> str:
        where = f"at cartridge {self._cartridge_id}" if self._cartridge_id else "without a cartridge"
        return f"<source of archive {self._backup.archive} for task {self._task_id}: {where}>"

    async def aclose(self) -> None:
        await self._let_go()
        if self._kept_reader is not None:
            reader, self._kept_reader = self._kept_reader, None
            await self._world.threads.run(reader.close)

    # --- ArchiveSource -----------------------------------------------------------------------------------------------------

    async def read(self, numbers: Sequence[int]) -> bytes:
        await self._open_kept()
        if self._kept_reader is not None and not self._medium_only and self._kept_numbers.issuperset(numbers):
            reader = self._kept_reader
            try:
                return await self._world.threads.run(lambda: reader.read(numbers))
            except (RbError, OSError) as error:
                _log.warning(
                    "archive %s: what is kept of it cannot be read, the cartridge is: %s", self._backup.archive, error
                )
                self._kept_numbers = frozenset()
        pieces: list[bytes] = []
        start = 0
        while start < len(numbers):
            part = self._part_of(numbers[start])
            end = start + 1
            while end < len(numbers) and self._part_of(numbers[end]) is part:
                end += 1
            pieces.append(await self._read_part(part, numbers[start:end]))
            start = end
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def manifest_blocks(self) -> list[int]:
        return list((await self._structured())[0])

    async def trailer_block(self) -> int:
        return (await self._structured())[1]

    async def block_numbers(self) -> Sequence[int]:
        numbers: list[int] = []
        for at in range(len(self._parts)):
            numbers += [row.block for row in await self._rows_of(at)]
        return numbers

    # --- manifest and trailer ----------------------------------------------------------------------------------------------

    async def _open_kept(self) -> None:
        if self._asked_kept:
            return
        self._asked_kept = True
        reader = await self._kept.reader(self._backup.archive)
        if reader is None:
            return
        try:
            manifest = list(await self._world.threads.run(reader.manifest_blocks))
            trailer = await self._world.threads.run(reader.trailer_block)
        except (RbError, OSError) as error:
            _log.warning("what is kept of archive %s is not whole: %s", self._backup.archive, error)
            await self._world.threads.run(reader.close)
            return
        self._kept_reader, self._structure = reader, (manifest, trailer)
        self._kept_numbers = frozenset([*manifest, trailer])

    async def _structured(self) -> tuple[list[int], int]:
        await self._open_kept()
        if self._structure is None:
            self._structure = await self._read_structure()
            await self._keep(self._structure)
        return self._structure

    async def _read_structure(self) -> tuple[list[int], int]:
        """From the indexes of the parts. Raises ``Damaged`` when the trailer is not there."""
        manifest: list[int] = []
        trailer = -1
        for at in range(len(self._parts)):
            for row in await self._rows_of(at):
                if row.kind == BlockKind.MANIFEST:
                    if row.flags & BlockFlag.MANIFEST_BEGINS:
                        manifest.clear()
                    manifest.append(row.block)
                elif row.kind == BlockKind.TRAILER:
                    trailer = row.block
        if trailer < 0:
            raise Damaged(f"archive {self._backup.archive} has lost its trailer block")
        return manifest, trailer

    async def _keep(self, structure: tuple[list[int], int]) -> None:
        """Put what was read from the cartridges beside them again. What cannot be read or kept now is tried again next time."""
        writer = self._kept.writer(self._backup.archive)
        numbers = [*structure[0], structure[1]]
        try:
            for at in range(0, len(numbers), KEEP_BLOCKS_MAX):
                raw = memoryview(await self.read(numbers[at : at + KEEP_BLOCKS_MAX]))
                headers = [header for header, _ in iter_blocks(raw)]
                assert all(header.kind in KINDS for header in headers), "the index says so"
                offset, blocks = 0, []
                for header in headers:
                    blocks.append(_Piece(raw[offset : offset + header.block_length]))
                    offset += header.block_length
                await writer.add(blocks, headers)
            await writer.finish()
        except RbError as error:
            await writer.discard()
            _log.warning("the names of archive %s are not kept: %s", self._backup.archive, error.message)
            return
        self._asked_kept = False
        await self._open_kept()

    # --- cartridges --------------------------------------------------------------------------------------------------------

    def _part_of(self, number: int) -> BackupPart:
        at = bisect_right(self._first_blocks, number) - 1
        if at < 0:
            raise NotFound(f"archive {self._backup.archive} has no block {number}")
        return self._parts[at]

    async def _reader(self, part: BackupPart) -> PartReader:
        desk = await self._at(part)
        session = desk.ready()
        known = self._readers.get(part.part)
        if known is None or known[0] is not session:
            known = self._readers[part.part] = (session, session.reader(self._archive_id, place_of(part)))
        return known[1]

    async def _rows_of(self, at: int) -> Iterator[IndexRow]:
        """Of a part only the blocks below the first one of the next count (``docs/format-tape.md``, "Spanning")."""
        part = self._parts[at]
        limit = self._parts[at + 1].first_block if at + 1 < len(self._parts) else part.last_block + 1
        return (row for row in await self._index(part) if row.block < limit)

    async def _index(self, part: BackupPart) -> Index:
        desk = await self._at(part)
        async with desk.reading():
            return await (await self._reader(part)).index()

    async def _read_part(self, part: BackupPart, numbers: Sequence[int]) -> bytes:
        desk = await self._at(part)
        try:
            async with desk.reading():
                reader = await self._reader(part)
                data = await reader.read(numbers)
        except (NotFound, Unavailable):
            raise
        except (Damaged, MediumFailed) as error:
            await self._lenders.reading_failed(desk, error)
            raise
        except RbError as error:
            await self._lenders.reading_failed(desk, error)
            raise Unavailable(f"Reading from tape failed: {error.message}") from error
        desk.bytes_read += len(data)
        desk.position = part.position
        return data

    async def _at(self, part: BackupPart) -> Desk:
        if self._cartridge_id != part.cartridge_id or self._desk is None:
            await self._let_go()
            self._desk = await self._lenders.borrow(self._task_id, part.cartridge_id, part.position)
            self._cartridge_id = part.cartridge_id
        return self._desk

    async def _let_go(self) -> None:
        if self._cartridge_id:
            cartridge_id, self._cartridge_id, self._desk = self._cartridge_id, 0, None
            self._readers.clear()
            await self._lenders.give_back(self._task_id, cartridge_id)


class _Piece:
    __slots__ = ("bytes",)

    def __init__(self, piece: memoryview) -> None:
        self.bytes = piece


def place_of(part: BackupPart) -> PartPlace:
    """Where the part lies on its cartridge."""
    return PartPlace(
        part=part.part,
        position=part.position,
        records=part.records,
        first_block=part.first_block,
        last_block=part.last_block,
        blocks=part.blocks,
        stored_bytes=part.stored_bytes,
        final=part.final,
    )
