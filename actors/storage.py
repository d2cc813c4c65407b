"""Storage actors: one per local catalog, at ``directory/<catalog id>@<host>``. They own the archives of their catalog.

What changes names in the catalog (open, finish, remove, sweep) is done one at a time; blocks are written and read on worker
threads beside that, one thread call per archive at a time. A verification is a job in pieces, so that it can be paused and stopped.
"""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio

from actors.bus import Bus, Delivery
from actors.jobs import Job, Jobs, stopped
from actors.mailbox import Mailbox
from actors.port import Journal
from rbcore.archive.store import ArchiveReader, ArchiveStore, ArchiveSummary, ArchiveWriter, Finding
from rbcore.commands import CatalogFacts
from rbcore.entities import Backup, BackupPart, LocalCatalog, MediaServer, PendingRemoval, Pool
from rbcore.errors import NotAllowedNow, NotFound, RbError, Refused, Unavailable
from rbcore.ports import World
from rbcore.vocabulary import MAIN_SERVER

_log = logging.getLogger(__name__)

MAILBOX_BOUND = 256
FACTS_SECONDS_MAX = 10.0
"""A catalog that does not answer that long (a dead network mount) counts as offline."""


class LookAtCatalog(msgspec.Struct, frozen=True, kw_only=True):
    """Answered with ``CatalogFacts``."""


class VerifyArchive(msgspec.Struct, frozen=True, kw_only=True):
    """Read every stored byte. Answered with ``Verified``, or ``NotAllowedNow`` when it was stopped."""

    task_id: int
    archive: str


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    root: bytes
    bytes_read: int
    findings: list[Finding]


class RemoveArchive(msgspec.Struct, frozen=True, kw_only=True):
    """Answered with the bytes that were freed. Harmless to repeat."""

    archive: str
    zeroing: bool = False
    """Overwrite it before it goes (``delete_archives_with_zeroing``)."""
    unless_needed: bool = False
    """Leave it, with ``NotAllowedNow``, when something refers to it by now: an archive keeps its name when it is copied again."""


class SweepCatalog(msgspec.Struct, frozen=True, kw_only=True):
    """Remove whatever nothing refers to. Answered with ``Swept``."""

    zeroing: bool = False


class AlignProtection(msgspec.Struct, frozen=True, kw_only=True):
    """The archives of the catalog that are to be immutable; others are not."""

    wanted: frozenset[str]


class Swept(msgspec.Struct, frozen=True, kw_only=True):
    removed: list[tuple[str, int]]


class StorageStatistics(msgspec.Struct, frozen=True, kw_only=True):
    catalog_id: int
    writers: int
    readers: int
    jobs: int
    jobs_paused: int


class CatalogActor:
    """The owner of one catalog."""

    def __init__(
        self,
        catalog: LocalCatalog,
        open_store: Callable[[LocalCatalog], ArchiveStore],
        world: World,
        *,
        kept: Callable[[int], frozenset[str]],
        jobs: Jobs,
        on_progress: Callable[[int, int], None] = lambda _task_id, _bytes: None,
    ) -> None:
        """``kept``: archives in the catalog of this id that something refers to. ``jobs``: where a verification can be paused and stopped."""
        self.catalog = catalog
        self._kept = kept
        self._jobs = jobs
        self._open_store = open_store
        self._world = world
        self._on_progress = on_progress
        self._store: ArchiveStore | None = None
        self._names = trio.Lock()
        self._written: set[str] = set()
        self._protected: frozenset[str] | None = None
        """Archives that were made immutable; None: nobody has looked since the start."""
        self._cannot_protect = False
        self._erased: set[str] = set()
        """Archives over which zeros are being written."""
        self._readers = 0
        self._verified: list[Job] = []

    def __repr__(self) -> str:
        return f"<catalog {self.catalog.id} at {self.catalog.path}: {len(self._written)} written, {len(self._verified)} verified>"

    def statistics(self) -> StorageStatistics:
        return StorageStatistics(
            catalog_id=self.catalog.id,
            writers=len(self._written),
            readers=self._readers,
            jobs=len(self._verified),
            jobs_paused=sum(1 for job in self._verified if job.paused),
        )

    # --- as an actor ----------------------------------------------------------------------------------------------------

    async def run(self, mailbox: Mailbox[Delivery]) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(self._serve, await mailbox.get())

    async def _serve(self, delivery: Delivery) -> None:
        try:
            delivery.answer(await self._answer(delivery.message))
        except RbError as error:
            delivery.fail(error)
        except OSError as error:
            delivery.fail(self._offline(error))
        except trio.Cancelled:
            delivery.fail(Unavailable(f"The catalog {self.catalog.path} is being closed."))
            raise

    async def _answer(self, message: Any) -> Any:
        match message:
            case LookAtCatalog():
                return await self.look()
            case VerifyArchive():
                return await self.verify(message.task_id, message.archive)
            case RemoveArchive():
                return await self.remove(message.archive, unless_needed=message.unless_needed, zeroing=message.zeroing)
            case AlignProtection():
                return await self.align_protection(message.wanted)
            case SweepCatalog():
                return await self.sweep(zeroing=message.zeroing)
        raise NotFound(f"A catalog does not know {type(message).__name__}.")

    # --- what it can do -------------------------------------------------------------------------------------------------

    async def look(self) -> CatalogFacts:
        """Whether it is there and how much room it has. Never raises ``RbError``: what is wrong is in the answer."""
        try:
            with trio.move_on_after(FACTS_SECONDS_MAX):
                store = await self._opened()
                room = await self._world.threads.run(store.room)
                return CatalogFacts(
                    local_catalog_id=self.catalog.id,
                    online=True,
                    free_bytes=room.free_bytes,
                    size_bytes=room.size_bytes,
                    file_system=room.file_system,
                )
            problem = f"The catalog {self.catalog.path} did not answer within {FACTS_SECONDS_MAX} s."
        except RbError as error:
            problem = error.message
        except OSError as error:
            problem = self._offline(error).message
        self._store = None
        return CatalogFacts(local_catalog_id=self.catalog.id, online=False, free_bytes=0, problem=problem)

    @asynccontextmanager
    async def writer(self, archive: str) -> AsyncIterator[CatalogWriter]:
        """A new archive or the unfinished one of that name. What is not finished or discarded inside is suspended at the end.

        Raises ``NotAllowedNow`` while it is being written already.
        """
        if archive in self._written:
            raise NotAllowedNow(f"Archive {archive} is being written already.")
        self._written.add(archive)
        try:
            store = await self._opened()
            async with self._names:
                inner = await self._world.threads.run(functools.partial(store.open_writer, archive))
            writer = CatalogWriter(inner, self._names, self._world, lambda: store.remove(archive))
            try:
                yield writer
            finally:
                with trio.CancelScope(shield=True):
                    await writer.close()
        finally:
            self._written.discard(archive)

    @asynccontextmanager
    async def reader(self, archive: str) -> AsyncIterator[CatalogReader]:
        """Raises ``NotFound``."""
        store = await self._opened()
        inner = await self._world.threads.run(lambda: store.open_reader(archive))
        self._readers += 1
        try:
            yield CatalogReader(inner, self._world)
        finally:
            self._readers -= 1
            with trio.CancelScope(shield=True):
                await self._world.threads.run(inner.close)

    async def verify(self, task_id: int, archive: str) -> Verified:
        """Raises ``NotAllowedNow`` when it was stopped."""
        store = await self._opened()
        bytes_read = 0

        def advance(count: int) -> None:
            nonlocal bytes_read
            bytes_read = count

        with self._jobs.run(task_id) as job:
            pieces = store.verify(archive, advance)
            self._verified.append(job)
            try:
                while True:
                    await job.next_piece()
                    report = await self._world.threads.run(lambda: next(pieces))
                    self._on_progress(task_id, bytes_read)
                    if report is not None:
                        return Verified(root=report.root, bytes_read=report.bytes_read, findings=report.findings)
            finally:
                self._verified.remove(job)
                if isinstance(pieces, Generator):
                    with trio.CancelScope(shield=True):
                        await self._world.threads.run(pieces.close)
        raise stopped(task_id)

    async def remove(self, archive: str, *, unless_needed: bool = False, zeroing: bool = False) -> int:
        if archive in self._written:
            raise NotAllowedNow(f"Archive {archive} is being written.")
        store = await self._opened()
        async with self._names:
            if unless_needed and archive in self._kept(self.catalog.id):
                raise NotAllowedNow(f"Archive {archive} is needed in {self.catalog.path}.")
            if not zeroing:
                return await self._world.threads.run(lambda: store.remove(archive))
            if archive in self._erased:
                raise NotAllowedNow(f"Archive {archive} is being removed.")
            pieces = store.erase(archive)
            self._erased.add(archive)
            try:
                begun = await self._world.threads.run(lambda: next(pieces, None))
            except BaseException:
                self._erased.discard(archive)
                raise
        # It has lost its name: what remains to be done is nobody's concern, and may take long.
        try:
            freed = begun or 0
            while begun is not None:
                freed, begun = begun, await self._world.threads.run(lambda: next(pieces, None))
        finally:
            self._erased.discard(archive)
        return freed

    async def align_protection(self, wanted: frozenset[str]) -> None:
        """Set and lift what differs from the last time. What the host does not allow is said once, and not tried again before the next start."""
        if self._cannot_protect:
            return
        store = await self._opened()
        known = self._protected
        there = await self._world.threads.run(store.archives) if known is None else sorted(known)
        changes = [(one, False) for one in there if one not in wanted]
        changes += [(one, True) for one in sorted(wanted - (known or frozenset()))]
        for archive, on in changes:
            try:
                await self._world.threads.run(functools.partial(store.protect, archive, on=on))
            except NotFound:
                continue  # it goes, or is gone
            except Refused as error:
                if not on:
                    continue  # what cannot be set is not set
                self._cannot_protect = True
                _log.warning(
                    "archives in %s are not immutable (immutable_archives): %s", self.catalog.path, error.message
                )
                return
        self._protected = wanted

    async def sweep(self, *, zeroing: bool = False) -> Swept:
        """What to keep is asked when names stand still: an archive that is assigned after that is opened after the sweep."""
        store = await self._opened()
        erased = await self._erase_strays(store) if zeroing else []
        async with self._names:
            kept = self._kept(self.catalog.id) | frozenset(self._written)
            erasing = frozenset(self._erased)
            removed = await self._world.threads.run(lambda: store.sweep(kept, erasing))
        for name, size in removed:
            _log.info("swept %s (%d bytes) out of %s: nothing refers to it", name, size, self.catalog.path)
        return Swept(removed=[*erased, *removed])

    async def _erase_strays(self, store: ArchiveStore) -> list[tuple[str, int]]:
        """Before the sweep: archives and leftovers that nothing refers to, each as if it had been deleted."""
        names = await self._world.threads.run(lambda: [*store.archives(), *store.unfinished(), *store.leftovers()])
        erased: list[tuple[str, int]] = []
        for archive in dict.fromkeys(names):
            try:
                erased.append((archive, await self.remove(archive, unless_needed=True, zeroing=True)))
            except NotAllowedNow:
                continue  # it is needed, or somebody is about it
        return erased

    async def _opened(self) -> ArchiveStore:
        if self._store is None:
            async with self._names:
                if self._store is None:
                    self._store = await self._world.threads.run(lambda: self._open_store(self.catalog))
        return self._store

    def _offline(self, error: OSError) -> Unavailable:
        return Unavailable(
            f"The catalog {self.catalog.path} cannot be used: {error}. Check that it is mounted and writable."
        )


class CatalogWriter:
    """An archive being written, with its thread calls one at a time. ``actors.port.ArchiveSink``."""

    resumable = True

    def __init__(self, inner: ArchiveWriter, names: trio.Lock, world: World, remove: Callable[[], int]) -> None:
        """``remove``: the archive, once it has its final name. Blocking."""
        self._inner = inner
        self._names = names
        self._threads = world.threads
        self._turn = trio.Lock()
        self._remove = remove
        self._closed = self._finished = False
        self.next_block = inner.next_block
        self.manifest_blocks = list(inner.manifest_blocks)
        self.root_so_far = inner.root_so_far

    @property
    def parts(self) -> list[BackupPart]:
        return []

    async def prepare(self, pieces: Sequence[bytes | bytearray | memoryview]) -> None:
        """Nothing: blocks are checked in the thread call that writes them."""

    async def write(self, pieces: Sequence[bytes | bytearray | memoryview], *, sync: bool) -> int:
        """Write whole blocks, in one thread call; with ``sync`` all of them are durable then, and the last durable number comes back.

        Raises ``ProtocolViolation``, ``Damaged`` or ``StorageFull``.
        """

        def work() -> int:
            last = -1
            for piece in pieces:
                last = self._inner.write(memoryview(piece))
            return self._inner.sync() if sync else last

        async with self._turn:
            return await self._threads.run(work)

    async def read(self, numbers: Sequence[int]) -> bytes:
        async with self._turn:
            return await self._threads.run(lambda: self._inner.read(numbers))

    async def finish(self) -> ArchiveSummary:
        async with self._turn, self._names:
            summary = await self._threads.run(self._inner.finish)
            self._closed = self._finished = True
            return summary

    async def discard(self) -> None:
        async with self._turn, self._names:
            if self._finished:
                await self._threads.run(self._remove)
            elif not self._closed:
                self._closed = True
                await self._threads.run(self._inner.discard)

    async def close(self) -> None:
        """Suspend what is neither finished nor discarded."""
        async with self._turn:
            if not self._closed:
                self._closed = True
                try:
                    await self._threads.run(self._inner.suspend)
                except (RbError, OSError) as error:
                    _log.warning("an archive could not be suspended: %s", error)


class CatalogReader:
    """A finished archive, read on worker threads. ``actors.port.ArchiveSource``."""

    def __init__(self, inner: ArchiveReader, world: World) -> None:
        self._inner = inner
        self._threads = world.threads

    async def read(self, numbers: Sequence[int]) -> bytes:
        return await self._threads.run(lambda: self._inner.read(numbers))

    async def manifest_blocks(self) -> list[int]:
        return list(await self._threads.run(self._inner.manifest_blocks))

    async def trailer_block(self) -> int:
        return await self._threads.run(self._inner.trailer_block)

    async def block_numbers(self) -> Sequence[int]:
        return await self._threads.run(self._inner.block_numbers)


class Storages:
    """The catalogs of this host: makes an actor for each when it is first needed."""

    def __init__(
        self,
        journal: Journal,
        bus: Bus,
        world: World,
        open_store: Callable[[LocalCatalog], ArchiveStore],
        start: Callable[[str, Callable[[], Awaitable[None]]], None],
        *,
        jobs: Jobs,
        on_progress: Callable[[int, int], None] = lambda _task_id, _bytes: None,
    ) -> None:
        """``start(name, body)`` runs an actor under supervision."""
        self._journal = journal
        self._bus = bus
        self._world = world
        self._open_store = open_store
        self._start = start
        self._jobs = jobs
        self._on_progress = on_progress
        self._actors: dict[int, CatalogActor] = {}

    def address(self, catalog_id: int) -> str:
        return f"directory/{catalog_id}@{self._bus.host}"

    def get(self, catalog_id: int) -> CatalogActor:
        """Raises ``NotFound`` when there is no such catalog, ``Unavailable`` when it is on another media server: its path means nothing here."""
        actor = self._actors.get(catalog_id)
        if actor is None:
            catalog = self._journal.state.find(LocalCatalog, catalog_id)
            if catalog is None:
                raise NotFound(f"Local catalog {catalog_id} is not known.")
            self._refuse_elsewhere(catalog)
            actor = CatalogActor(
                catalog,
                self._open_store,
                self._world,
                kept=self._kept,
                jobs=self._jobs,
                on_progress=self._on_progress,
            )
            self._actors[catalog_id] = actor
            address = self.address(catalog_id)
            self._start(address, functools.partial(actor.run, self._bus.serve(address, MAILBOX_BOUND)))
        return actor

    def _refuse_elsewhere(self, catalog: LocalCatalog) -> None:
        pool = self._journal.state.find(Pool, catalog.pool)
        server = self._journal.state.find(MediaServer, pool.media_server) if pool is not None else None
        if server is not None and server.type != MAIN_SERVER:
            raise Unavailable(f"it is on media server {server.hostname}, with which this release has no session")

    def _kept(self, catalog_id: int) -> frozenset[str]:
        """Live backups, archives of tasks that have not ended, and what a Delete task is about to remove itself. By catalog: a copy has the name of
        what it is a copy of, so that a name alone would keep what an attempt left elsewhere, for ever."""
        state = self._journal.state
        backups: Iterable[Backup | PendingRemoval] = itertools.chain(
            state.tables[Backup.KIND].values(), state.tables[PendingRemoval.KIND].values()
        )
        tasks = (one for one in state.active_tasks() if one.archive)
        return frozenset(
            [
                *(one.archive for one in backups if one.local_catalog_id == catalog_id),
                *(one.archive for one in tasks if catalog_id in (one.local_catalog_id, one.target_local_catalog_id)),
            ]
        )

    async def ask(self, catalog_id: int, message: Any, deadline_seconds: float) -> Any:
        """Ask the actor of a catalog by its address. Raises what it answers."""
        self.get(catalog_id)
        return await self._bus.ask(self.address(catalog_id), message, deadline_seconds)

    def statistics(self) -> list[StorageStatistics]:
        return [actor.statistics() for actor in self._actors.values()]
