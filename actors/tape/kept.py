"""What the daemon keeps of archives on cartridges: their manifest and trailer blocks, so that the next incremental, a list of names and the plan of a
restore need no mount.

A cache (law 5): what is missing is read from the cartridge again. It is a catalog of the same format as a pool's (``docs/format.md``), whose
archives hold nothing but these blocks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import trio

from rbcore.archive.block import BlockHeader
from rbcore.archive.model import BlockKind
from rbcore.archive.store import ArchiveReader, ArchiveStore, ArchiveWriter
from rbcore.errors import NotFound, RbError
from rbcore.ports import World

_log = logging.getLogger(__name__)

KINDS = frozenset({BlockKind.MANIFEST, BlockKind.TRAILER})


class _Block(Protocol):
    @property
    def bytes(self) -> memoryview: ...


class KeptArchives:
    """The store, opened when it is first needed."""

    def __init__(self, open_store: Callable[[], ArchiveStore], world: World) -> None:
        self._open_store = open_store
        self._world = world
        self._store: ArchiveStore | None = None
        self._turn = trio.Lock()

    async def _opened(self) -> ArchiveStore:
        async with self._turn:
            if self._store is None:
                self._store = await self._world.threads.run(self._open_store)
            return self._store

    def writer(self, archive: str) -> KeptWriter:
        return KeptWriter(self, archive, self._world)

    async def begin(self, archive: str) -> ArchiveWriter:
        store = await self._opened()

        def work() -> ArchiveWriter:
            store.remove(archive)
            return store.open_writer(archive)

        return await self._world.threads.run(work)

    async def reader(self, archive: str) -> ArchiveReader | None:
        """None when nothing of the archive is kept, or it cannot be read."""
        store = await self._opened()
        try:
            return await self._world.threads.run(lambda: store.open_reader(archive))
        except NotFound:
            return None
        except (RbError, OSError) as error:
            _log.warning("what is kept of archive %s cannot be read, the cartridge will be: %s", archive, error)
            return None

    async def remove(self, archive: str) -> None:
        store = await self._opened()
        await self._world.threads.run(lambda: store.remove(archive))

    async def sweep(self, keep: frozenset[str]) -> None:
        store = await self._opened()
        await self._world.threads.run(lambda: store.sweep(keep))


class KeptWriter:
    """Takes the blocks of an archive and keeps those that matter. A failure costs the cache its archive, never the backup."""

    def __init__(self, kept: KeptArchives, archive: str, world: World) -> None:
        self._kept = kept
        self._archive = archive
        self._world = world
        self._writer: ArchiveWriter | None = None
        self._failed = False

    async def add(self, blocks: Sequence[_Block], headers: Sequence[BlockHeader]) -> None:
        chosen = [one.bytes for one, header in zip(blocks, headers, strict=True) if header.kind in KINDS]
        if not chosen or self._failed:
            return
        try:
            if self._writer is None:
                self._writer = await self._kept.begin(self._archive)
            writer = self._writer

            def work() -> None:
                for block in chosen:
                    writer.write(block)

            await self._world.threads.run(work)
        except (RbError, OSError) as error:
            await self._fail(error)

    async def finish(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None and not self._failed:
            try:
                await self._world.threads.run(writer.finish)
            except (RbError, OSError) as error:
                await self._fail(error)

    async def discard(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                await self._world.threads.run(writer.discard)
            except (RbError, OSError) as error:
                _log.info("what was kept of archive %s stays until the next sweep: %s", self._archive, error)

    async def _fail(self, error: Exception) -> None:
        self._failed = True
        _log.warning("the names of archive %s are not kept beside the cartridge: %s", self._archive, error)
        await self.discard()


__all__ = ["KINDS", "KeptArchives", "KeptWriter"]
