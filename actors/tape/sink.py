"""Writing an archive to cartridges: ``actors.port.ArchiveSink`` over a drive's desk.

Blocks are checked on a worker thread (the next ones while the drive is busy with those before), then written within the stream's turn. What the drive has not taken whole is kept, so that it can be written
again in the next part when the cartridge is full; it is never more than a record and what one call brought. Nothing can be gone on with after a
failure: the attempt ends, and the next one begins a new archive. What this one left on cartridges is no backup, and goes when they are labelled.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Sequence
from typing import NamedTuple, Protocol, TypeVar

import msgspec
import trio

from actors.tape.desk import Desk, SessionOver
from actors.tape.kept import KeptWriter
from actors.tape.recording import Recorder
from rbcore.archive.block import HEADER_BYTES, BlockHeader, Buffer, check_stored, iter_blocks
from rbcore.archive.model import BlockKind
from rbcore.archive.root import RootHasher
from rbcore.archive.store import ArchiveSummary
from rbcore.commands import RecordCartridgeWritten
from rbcore.entities import BackupPart
from rbcore.errors import (
    Damaged,
    EndOfMedium,
    NotAllowedNow,
    NotFound,
    ProtocolViolation,
    RbError,
    StorageFull,
    Unavailable,
)
from rbcore.ports import World
from rbcore.tape.session import ArchiveInfo, CartridgeSession, PartPlace, PartStart

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Next(NamedTuple):
    """The cartridge on which writing goes on. Id 0: there is none, ``reason`` says why."""

    cartridge_id: int
    volume_tag: str
    reason: str
    label: bool


class CartridgeChanger(Protocol):
    """What a sink needs of its drive's actor."""

    def choose_next(self, pool_id: int) -> Next: ...

    async def change_to(self, chosen: Next, reason: str) -> None:
        """Take the full cartridge out and mount this one. Raises ``Unavailable``, ``StorageFull``."""

    async def writing_failed(self, error: RbError) -> None:
        """The session can write no more."""


class _Block(NamedTuple):
    number: int
    bytes: memoryview


class _Checked(NamedTuple):
    pieces: Sequence[Buffer]
    blocks: list[_Block]
    headers: list[BlockHeader]


class TapeSink:
    """One archive being written. A stream of the desk."""

    resumable = False

    def __init__(
        self,
        desk: Desk,
        drive: CartridgeChanger,
        recorder: Recorder,
        world: World,
        *,
        archive: str,
        pool_id: int,
        task_id: int,
        info: ArchiveInfo,
        kept: KeptWriter,
    ) -> None:
        self._desk = desk
        self._drive = drive
        self._recorder = recorder
        self._world = world
        self._archive = archive
        self._archive_id = bytes.fromhex(archive)
        self._pool_id = pool_id
        self._task_id = task_id
        self._info = info
        self._kept = kept
        self._root = RootHasher(self._archive_id)
        self._blocks = 0
        self._ended_with_trailer = False
        self._prepared: deque[_Checked] = deque()
        """Checked, and not written yet."""
        self._unsent: deque[_Block] = deque()
        """Not handed to a session yet."""
        self._held: deque[_Block] = deque()
        """Handed over, and not known to be whole on the medium."""
        self._open = False
        self._over = False
        self._parts: list[BackupPart] = []
        self.next_block = 0
        self.manifest_blocks: list[int] = []
        self.root_so_far = b""
        desk.streams.add(self)

    def __repr__(self) -> str:
        state = "over" if self._over else "part open" if self._open else "between parts"
        return f"<sink of archive {self._archive}: {state}, {self._blocks} blocks, {len(self._parts)} parts>"

    @property
    def parts(self) -> list[BackupPart]:
        return list(self._parts)

    # --- ArchiveSink -------------------------------------------------------------------------------------------------------

    async def prepare(self, pieces: Sequence[bytes | bytearray | memoryview]) -> None:
        self._must_be_under_way()
        self._prepared.append(await self._world.threads.run(lambda: self._check(pieces)))

    async def write(self, pieces: Sequence[bytes | bytearray | memoryview], *, sync: bool) -> int:
        self._must_be_under_way()
        if not self._prepared:
            await self.prepare(pieces)
        checked = self._prepared.popleft()
        assert checked.pieces is pieces, "pieces are written in the order in which they were prepared"
        await self._kept.add(checked.blocks, checked.headers)
        self._unsent.extend(checked.blocks)
        async with self._desk.turn(self):
            await self._guarded(self._put)
        return checked.blocks[-1].number

    async def read(self, numbers: Sequence[int]) -> bytes:
        raise NotFound(f"archive {self._archive} is being written to tape and cannot be read before it is finished")

    async def finish(self) -> ArchiveSummary:
        self._must_be_under_way()
        if not self._ended_with_trailer:
            raise ProtocolViolation(f"archive {self._archive} cannot be finished without its trailer")
        async with self._desk.turn(self):
            await self._guarded(self._finish)
        self._over = True
        self._desk.leave(self)
        await self._kept.finish()
        return ArchiveSummary(
            archive=self._archive,
            root=self._root.value,
            blocks=self._blocks,
            archive_size=sum(part.stored_bytes for part in self._parts),
        )

    async def discard(self) -> None:
        """End what is open, so that the cartridge can be read without a guess."""
        if self._over:
            return
        self._over = True
        self._prepared.clear()
        self._unsent.clear()
        self._held.clear()
        try:
            if self._open and self._desk.session is not None and not self._desk.failure:
                async with self._desk.turn(self):
                    await self._end_part("")
        except RbError as error:
            _log.info("archive %s was given up; its part was not ended: %s", self._archive, error.message)
        finally:
            self._open = False
            self._desk.leave(self)
            await self._kept.discard()

    # --- Stream ------------------------------------------------------------------------------------------------------------

    async def give_up_turn(self) -> None:
        """Another stream takes over: what was taken so far becomes a part of its own."""
        if self._open:
            session = self._desk.ready()
            written = await _to_its_end(session.sync())
            self._taken(written.last_block)
            assert written.full or not self._held, "what is synced is taken"
            await self._end_part(session.identified.volume_tag)
            self._send_again()

    # --- how ---------------------------------------------------------------------------------------------------------------

    def _must_be_under_way(self) -> None:
        if self._over:
            raise NotAllowedNow(f"archive {self._archive} is not being written any more")

    def _check(self, pieces: Sequence[Buffer]) -> _Checked:
        """Every block: its place in the archive and its digest. Nothing of ``pieces`` is taken unless all of it is good. On a worker thread."""
        blocks: list[_Block] = []
        headers: list[BlockHeader] = []
        last, trailer_seen = self._root.last_block, self._ended_with_trailer
        for piece in pieces:
            view, offset = memoryview(piece), 0
            try:
                for header, _ in iter_blocks(view):
                    if header.archive_id != self._archive_id or header.number <= last or trailer_seen:
                        raise ProtocolViolation(f"block {header.number} is of another archive, or out of order")
                    block = view[offset : offset + header.block_length]
                    offset += header.block_length
                    blocks.append(_Block(header.number, block))
                    headers.append(header)
                    last, trailer_seen = header.number, header.kind is BlockKind.TRAILER
            except Damaged as error:
                raise ProtocolViolation(f"malformed block: {error.message}") from None
        for header, found in zip(headers, blocks, strict=True):
            check_stored(header, found.bytes[HEADER_BYTES:])
        for header in headers:
            self._root.add(header)
        self._blocks += len(headers)
        self._ended_with_trailer = trailer_seen
        return _Checked(pieces, blocks, headers)

    async def _guarded(self, work: _Work) -> None:
        """Errors of the drive end the attempt: they come out as ``Unavailable`` or ``StorageFull``, for the task to be tried again."""
        try:
            await work()
        except SessionOver:
            raise
        except EndOfMedium as error:
            # The end came without a warning: what was not durable may not be there. The cartridge takes no more.
            await self._end_of_medium(error)
            raise Unavailable(f"Writing to tape failed: {error.message}") from error
        except (ProtocolViolation, StorageFull) as error:
            if isinstance(error, ProtocolViolation) or not self._desk.failure:
                raise
            raise Unavailable(error.message) from error
        except RbError as error:
            self._desk.failure = self._desk.failure or error.message
            await self._drive.writing_failed(error)
            raise Unavailable(f"Writing to tape failed: {error.message}") from error

    async def _end_of_medium(self, error: EndOfMedium) -> None:
        self._desk.failure = error.message
        session = self._desk.session
        await self._recorder.outcome(
            RecordCartridgeWritten(
                cartridge_id=self._desk.cartridge_id,
                used_bytes=session.used_bytes if session is not None else 0,
                full=True,
                task_id=self._task_id,
            )
        )

    async def _put(self) -> None:
        while self._unsent:
            session = await self._writable()
            batch = list(self._unsent)
            self._unsent.clear()
            self._held.extend(batch)
            written = await _to_its_end(session.write([one.bytes for one in batch]))
            self._desk.count_written(sum(len(one.bytes) for one in batch))
            self._taken(written.last_block)
            if written.full:
                await self._go_on_elsewhere()

    async def _finish(self) -> None:
        while True:
            await self._put()
            session = await self._writable()
            place = await _to_its_end(session.finish_part(root=self._root.value, ended_ns=self._world.clock.now_ns()))
            if place is not None:
                self._open = False
                self._held.clear()
                await self._ended(session, place)
                return
            written = await _to_its_end(session.sync())
            self._taken(written.last_block)
            await self._go_on_elsewhere()

    async def _writable(self) -> CartridgeSession:
        """The session, with a part of this archive open."""
        session = self._desk.ready()
        if self._desk.failure:
            raise SessionOver(self._desk.failure)
        if self._open:
            return session
        if not session.may_write:
            await self._change(self._drive.choose_next(self._pool_id), session.why_not)
            session = self._desk.ready()
        await _to_its_end(session.begin_part(self._start()))
        self._open = True
        return session

    def _start(self) -> PartStart:
        last = self._parts[-1] if self._parts else None
        # The first block that no part before holds: of those that wait, or the next that may come.
        following = next((one.number for one in self._unsent), self._last_stored + 1)
        return PartStart(
            archive=self._archive_id,
            part=len(self._parts) + 1,
            info=self._info,
            first_block=following if last is not None else 0,
            blocks_before=sum(part.blocks for part in self._parts),
            stored_before=sum(part.stored_bytes for part in self._parts),
            previous_tag=self._previous_tag if last is not None else "",
            previous_cartridge=self._previous_cartridge if last is not None else bytes(16),
        )

    _last_stored = -1
    _previous_tag = ""
    _previous_cartridge = bytes(16)

    def _taken(self, last_block: int) -> None:
        while self._held and self._held[0].number <= last_block:
            self._held.popleft()

    def _send_again(self) -> None:
        """What was handed over and is in no part goes first into the next one."""
        self._unsent.extendleft(reversed(self._held))
        self._held.clear()

    async def _go_on_elsewhere(self) -> None:
        """The cartridge is full: end the part, mount the next one, and write again what is on none of them."""
        chosen = self._drive.choose_next(self._pool_id)
        await self._end_part(chosen.volume_tag)
        self._send_again()
        await self._change(chosen, "the cartridge before is full")

    async def _change(self, chosen: Next, why: str) -> None:
        if not chosen.cartridge_id:
            raise StorageFull(f"The archive does not fit: {chosen.reason}. What was written is given up.")
        reason = f"task {self._task_id} goes on writing: {why}; cartridge {chosen.volume_tag} {chosen.reason}"
        await self._drive.change_to(chosen, reason)

    async def _end_part(self, next_tag: str) -> None:
        session = self._desk.ready()
        place = await _to_its_end(session.end_part(next_tag=next_tag, ended_ns=self._world.clock.now_ns()))
        self._open = False
        await self._ended(session, place)

    async def _ended(self, session: CartridgeSession, place: PartPlace) -> None:
        fields = msgspec.structs.asdict(place)
        self._parts.append(BackupPart(cartridge_id=self._desk.cartridge_id, **fields))
        self._last_stored = max(self._last_stored, place.last_block)
        self._previous_tag = session.identified.volume_tag
        self._previous_cartridge = bytes.fromhex(session.identified.cartridge)
        await self._recorder.outcome(
            RecordCartridgeWritten(
                cartridge_id=self._desk.cartridge_id,
                used_bytes=session.used_bytes,
                full=session.full,
                task_id=self._task_id,
            )
        )


async def _to_its_end(call: Awaitable[T]) -> T:
    """A call of the session is not cut off by whoever cancels one of the streams that share it: afterwards nobody would know where the tape stands, and all
    of them would end. The drive's own commands have bounds."""
    with trio.CancelScope(shield=True):
        result = await call
    return result


class _Work(Protocol):
    async def __call__(self) -> None: ...
