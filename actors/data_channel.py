"""The data channel, the daemon's side: one TLS stream per attempt, bulk only.

A stream begins with ``Attach`` and a token that was given to one client for one attempt; without it the stream is closed and that
is all it cost. Then the daemon receives a backup, or serves the blocks of a restore or a listing.

Flow of a backup. The client may have ``CREDIT_BYTES`` under way that are not on stable storage, so that is what a transfer can
take of the daemon's memory. A writer task takes whatever has arrived, writes it in one thread call, and makes it
durable after ``SYNC_BYTES``, after ``SYNC_SECONDS``, or when nothing waits; ``Stored`` returns the credit. The loop only moves references.
A client with a limit of bandwidth is held back by the next frame that is not taken yet (``actors.throttle``).
On cartridges nothing is durable before the end, and an attempt cannot be gone on with: there the credit returns when the device has taken the blocks.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import NamedTuple

import msgspec
import trio

from actors.framing import DataChannel
from actors.places import Places, Stride, split_blocks
from actors.port import ArchiveSink, ArchiveSource, Journal
from actors.quiet_log import QuietLog
from actors.supervisor import describe, leading_error
from actors.throttle import Brake, Throttle
from actors.works import STORAGE_RETRY_SECONDS, Work, Works
from rbcore.archive.keys import verify_root
from rbcore.commands import Order, RecordBackup, Reply
from rbcore.entities import Client, Task
from rbcore.errors import (
    Damaged,
    Failure,
    NotFound,
    ProtocolViolation,
    RbError,
    StorageFull,
    TooLarge,
    Unavailable,
)
from rbcore.messages import (
    FRAME_PAYLOAD_BYTES_MAX,
    PROTOCOL_VERSION,
    Attach,
    Attached,
    Blocks,
    Commit,
    Committed,
    EndOfBlocks,
    Fetch,
    FetchManifest,
    FetchTrailer,
    Received,
    Refusal,
    Stored,
)
from rbcore.ports import World
from rbcore.vocabulary import TaskStatus

_log = logging.getLogger(__name__)

CREDIT_BYTES = 32 * 1024 * 1024
SYNC_BYTES = 8 * 1024 * 1024
SYNC_SECONDS = 1.0
WRITE_BYTES_MAX = 8 * 1024 * 1024
"""Per thread call."""
READ_BYTES_MAX = 4 * 1024 * 1024
"""Per thread call and Blocks frame when serving."""
FRAME_BYTES_MAX = FRAME_PAYLOAD_BYTES_MAX // 2
READ_AHEAD_PIECES = 2
SLICE_BYTES = 256 * 1024
READ_BLOCKS_MAX = 256
"""Blocks of one thread call; more than the usual size of them is read again in halves."""
ATTACH_SECONDS_MAX = 10.0
REPORT_SECONDS_MAX = 5.0
"""When a stream ends early the client says why over the control channel; so long it is given for that."""
FETCH_NUMBERS_MAX = 65_536
PROBLEM_LINES_MAX = 1000
ROOT_BYTES, SIGNATURE_BYTES = 32, 64


class StorageUnavailable(Unavailable):
    """What the daemon reads from or writes to cannot go on, as opposed to a peer that is gone."""


class DataStatistics(msgspec.Struct, frozen=True, kw_only=True):
    streams: int
    attached: int
    refused: int
    bytes_received: int
    bytes_sent: int


class DataChannelServer:
    """Takes the streams that ``actors.link.Network.serve_data`` accepts."""

    def __init__(self, journal: Journal, works: Works, places: Places, world: World) -> None:
        self._journal = journal
        self._works = works
        self._places = places
        self._world = world
        self._throttle = Throttle(journal, world)
        self._quiet = QuietLog(_log)
        self._streams = self._attached = self._refused = self._bytes_received = self._bytes_sent = 0

    def statistics(self) -> DataStatistics:
        return DataStatistics(
            streams=self._streams,
            attached=self._attached,
            refused=self._refused,
            bytes_received=self._bytes_received,
            bytes_sent=self._bytes_sent,
        )

    async def serve(self, stream: trio.abc.Stream, address: str) -> None:
        """One stream, until it is over. Whatever a peer does ends here."""
        channel = DataChannel(stream)
        self._streams += 1
        try:
            work = await self._attach(channel, address)
            if work is not None:
                await self._carry(work, channel, address)
        except (Unavailable, ProtocolViolation) as error:
            self._refuse(address, error.message)
        except Exception:
            # A bug in one stream must not end the others.
            _log.exception("the data channel from %s failed", address)
        finally:
            self._streams -= 1
            self._bytes_received += channel.bytes_received
            self._bytes_sent += channel.bytes_sent
            await trio.aclose_forcefully(stream)

    async def _attach(self, channel: DataChannel, address: str) -> Work | None:
        with trio.move_on_after(ATTACH_SECONDS_MAX):
            frame, _ = await channel.receive(payload_bytes_max=0)
            if not isinstance(frame, Attach) or frame.protocol != PROTOCOL_VERSION:
                raise ProtocolViolation("the first frame is no Attach of this protocol")
            work = self._works.claim(frame.transfer_token)
            if work is None:
                raise ProtocolViolation("the transfer token is not valid (any more)")
            return work
        self._refuse(address, f"no Attach within {ATTACH_SECONDS_MAX} s")
        return None

    async def _carry(self, work: Work, channel: DataChannel, address: str) -> None:
        """Serve the work and see to it that it ends, however the stream does."""
        self._attached += 1
        try:
            with trio.CancelScope() as work.scope:
                await self._transfer(work, channel)
        except Exception as error:
            failure = leading_error(error)
            if failure is None:
                # A bug in one transfer must not end the others: it is written down, and the task is tried again.
                _log.exception("the data channel of %r failed", work)
                failure = Unavailable(f"The daemon failed: {describe(error)}")
            await self._failed(work, channel, failure, address)
        finally:
            self._attached -= 1

    async def _transfer(self, work: Work, channel: DataChannel) -> None:
        if work.kind == "backup":
            brake = self._throttle.of(work.client_id, "backup")
            await _BackupReceiver(work, channel, self._journal, self._works, self._places, self._world, brake).run()
        else:
            brake = self._throttle.of(work.client_id, "restore")
            async with _BlockServer(work, channel, self._places, brake=brake) as server:
                await channel.send(Attached(credit_bytes=CREDIT_BYTES, next_block=0, manifest_blocks=[]))
                await server.run()

    async def _failed(self, work: Work, channel: DataChannel, failure: RbError, address: str) -> None:
        if isinstance(failure, Unavailable) and not isinstance(failure, StorageUnavailable):
            # The peer is gone, or the stream broke. Who knows why is the client: it says so, or it is gone too.
            with trio.move_on_after(REPORT_SECONDS_MAX):
                await work.ended.wait()
            await self._works.interrupted(work, f"The data channel ended early: {failure.message}")
            return
        try:
            with trio.move_on_after(REPORT_SECONDS_MAX):
                await channel.send(Refusal(failure=Failure.of(failure)))
        except Unavailable:
            _log.debug("%s did not take its refusal", address)
        if isinstance(failure, StorageFull):
            await self._works.interrupted(work, failure.message, retry_seconds=STORAGE_RETRY_SECONDS)
        elif isinstance(failure, StorageUnavailable):
            await self._works.interrupted(work, failure.message)
        elif isinstance(failure, ProtocolViolation | Damaged):
            self._refuse(address, failure.message)
            # What arrived is not what was sent, or not what may be sent: another attempt may fare better.
            await self._works.interrupted(work, failure.message)
        else:
            await self._works.finish(work, TaskStatus.ERROR, failure.message, "error")

    def _refuse(self, address: str, reason: str) -> None:
        self._refused += 1
        self._quiet.warning("refused on the data channel from %s: %s", address, reason)


class _Piece(NamedTuple):
    data: bytes | memoryview
    """Whole blocks, one after the other."""
    blocks: int


class _BlockServer:
    """Answers ``Fetch``, ``FetchTrailer`` and ``FetchManifest``, no more than the credit ahead of ``Received``."""

    def __init__(
        self,
        work: Work,
        channel: DataChannel,
        places: Places,
        own: ArchiveSink | None = None,
        *,
        brake: Brake | None = None,
    ) -> None:
        self._work = work
        self._brake = brake
        """None: what is served for a backup, which is little."""
        self._channel = channel
        self._places = places
        self._own = own
        """The unfinished archive of a backup."""
        self._stack = AsyncExitStack()
        self._readers: dict[str, ArchiveSource] = {}
        self._tape_stack = AsyncExitStack()
        self._tape_archive = ""
        """The one archive on cartridges that is open: each holds a drive, and whoever waits for a second one with the first in his hands may wait
        for himself."""
        self._requests: deque[Fetch | FetchManifest | FetchTrailer] = deque()
        self._numbers_waiting = 0
        self._news = trio.Event()
        self._returned = trio.Event()
        self._unreturned = 0

    async def __aenter__(self) -> _BlockServer:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        try:
            await self._tape_stack.aclose()
        finally:
            await self._stack.aclose()

    def take(self, frame: object, payload: bytearray) -> None:
        """A frame of the client. Raises ``ProtocolViolation``, ``NotFound`` for an archive it may not read."""
        if payload:
            raise ProtocolViolation(f"{type(frame).__name__} carries no payload")
        match frame:
            case Received():
                if not 0 <= frame.bytes <= self._unreturned:
                    raise ProtocolViolation("more credit is returned than was taken")
                self._unreturned -= frame.bytes
                self._returned.set()
            case Fetch() | FetchManifest() | FetchTrailer():
                if frame.archive not in self._work.readable and not (self._own and frame.archive == self._work.archive):
                    raise NotFound(f"Archive {frame.archive} is not part of this task.")
                self._numbers_waiting += max(1, len(frame.numbers)) if isinstance(frame, Fetch) else 1
                if self._numbers_waiting > FETCH_NUMBERS_MAX:
                    raise ProtocolViolation(f"more than {FETCH_NUMBERS_MAX} blocks are asked for at once")
                self._requests.append(frame)
                self._news.set()
            case _:
                raise ProtocolViolation(f"{type(frame).__name__} has no place here")

    async def run(self) -> None:
        """Receive and answer until the client closes, which is how a reader says that it has enough."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.answer)
            try:
                while True:
                    self.take(*await self._channel.receive())
            finally:
                nursery.cancel_scope.cancel()

    async def answer(self) -> None:
        """Work off the requests, in order, for ever: what comes next is read while what came before is sent."""
        ahead_in, ahead = trio.open_memory_channel[_Piece | None](READ_AHEAD_PIECES)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_ahead, ahead_in)
            async for piece in ahead:
                await self._send(piece)

    async def _read_ahead(self, ahead: trio.MemorySendChannel[_Piece | None]) -> None:
        while True:
            while not self._requests:
                self._news = trio.Event()
                await self._news.wait()
            request = self._requests.popleft()
            numbers: Sequence[int]
            if isinstance(request, Fetch):
                numbers = request.numbers
                if any(one >= following for one, following in itertools.pairwise(numbers)):
                    raise ProtocolViolation("block numbers of a Fetch must ascend")
                self._numbers_waiting -= max(1, len(numbers))
            else:
                self._numbers_waiting -= 1
                numbers = await self._structure(request)
            await self._read_all(request.archive, numbers, ahead)
            await ahead.send(None)

    async def _structure(self, request: FetchManifest | FetchTrailer) -> list[int]:
        if self._own is not None and request.archive == self._work.archive:
            return list(self._own.manifest_blocks) if isinstance(request, FetchManifest) else []
        with _telling():
            reader = await self._reader(request.archive)
            trailer = [await reader.trailer_block()]
            return [*await reader.manifest_blocks(), *trailer] if isinstance(request, FetchManifest) else trailer

    async def _read_all(
        self, archive: str, numbers: Sequence[int], ahead: trio.MemorySendChannel[_Piece | None]
    ) -> None:
        """Pieces of about READ_BYTES_MAX. A block that cannot be read is left out: the client names its files."""
        stride, start = Stride(READ_BYTES_MAX, READ_BLOCKS_MAX), 0
        while start < len(numbers):
            wanted = numbers[start : start + stride.blocks]
            pieces = await self._read(archive, wanted)
            start += len(wanted)
            for piece in pieces:
                await ahead.send(piece)
            blocks = sum(piece.blocks for piece in pieces)
            if blocks:
                stride.learn(blocks, sum(len(piece.data) for piece in pieces))

    async def _send(self, piece: _Piece | None) -> None:
        """A frame, within the credit; None: the answer to one request is complete."""
        if piece is None:
            await self._channel.send(EndOfBlocks())
            return
        while self._unreturned and self._unreturned + len(piece.data) > CREDIT_BYTES:
            self._returned = trio.Event()
            await self._returned.wait()
        self._unreturned += len(piece.data)
        if self._brake is not None:
            await self._brake(len(piece.data))
        view = memoryview(piece.data)
        # In slices: what is encrypted in one go keeps everybody else on the loop waiting.
        slices = [view[start : start + SLICE_BYTES] for start in range(0, len(view), SLICE_BYTES)]
        await self._channel.send(Blocks(count=piece.blocks), slices)

    async def _read(self, archive: str, numbers: Sequence[int]) -> list[_Piece]:
        """Pieces that fit into frames."""
        try:
            with _telling():
                if self._own is not None and archive == self._work.archive:
                    data = await self._own.read(numbers)
                else:
                    data = await (await self._reader(archive)).read(numbers)
        except (Damaged, NotFound, TooLarge) as error:
            if len(numbers) == 1:
                _log.error("block %d of archive %s cannot be read: %s", numbers[0], archive, error.message)
                return []
        else:
            if len(data) <= FRAME_BYTES_MAX:
                return [_Piece(data, len(numbers))]
            return [_Piece(view, count) for count, view in split_blocks(data, FRAME_BYTES_MAX)]
        middle = len(numbers) // 2
        return [*await self._read(archive, numbers[:middle]), *await self._read(archive, numbers[middle:])]

    async def _reader(self, archive: str) -> ArchiveSource:
        backup = self._work.readable[archive]
        if archive in self._readers:
            return self._readers[archive]
        if not backup.parts:
            reader = await self._stack.enter_async_context(self._places.source(backup, self._work.task_id))
        else:
            self._readers.pop(self._tape_archive, None)
            await self._tape_stack.aclose()
            self._tape_stack, self._tape_archive = AsyncExitStack(), archive
            # Of the parent of a backup only the manifest is read, which is kept beside the cartridges since the backup was given its drive.
            task_id = 0 if self._work.kind == "backup" else self._work.task_id
            reader = await self._tape_stack.enter_async_context(self._places.source(backup, task_id))
        self._readers[archive] = reader
        return reader


class _BackupReceiver:
    """Takes the blocks of one archive in and makes a backup of it."""

    def __init__(
        self,
        work: Work,
        channel: DataChannel,
        journal: Journal,
        works: Works,
        places: Places,
        world: World,
        brake: Brake,
    ) -> None:
        self._work = work
        self._brake = brake
        self._channel = channel
        self._journal = journal
        self._works = works
        self._places = places
        self._world = world
        self._arrived: deque[bytearray] = deque()
        self._unstored_bytes = 0
        """Arrived and not acknowledged: what counts against the credit."""
        self._news = trio.Event()
        self._complete = False

    async def run(self) -> None:
        work = self._work
        task = self._journal.state.find(Task, work.task_id)
        if task is None:
            raise NotFound(f"Task {work.task_id} is not in the queue any more.")
        async with (
            self._sink(task) as writer,
            _BlockServer(work, self._channel, self._places, writer) as server,
        ):
            work.durable_blocks = writer.next_block
            await self._channel.send(
                Attached(
                    credit_bytes=CREDIT_BYTES,
                    next_block=writer.next_block,
                    manifest_blocks=writer.manifest_blocks,
                    root_so_far=writer.root_so_far,
                )
            )
            commit: Commit | None = None
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.answer)
                try:
                    async with trio.open_nursery() as inner:
                        gathered, batches = trio.open_memory_channel[list[bytearray]](0)
                        inner.start_soon(self._gather, writer, gathered)
                        inner.start_soon(self._write, writer, batches)
                        commit = await self._receive(server)
                finally:
                    nursery.cancel_scope.cancel()
            assert commit is not None, "receiving ends with a Commit or an error"
            await self._commit(writer, commit)

    @asynccontextmanager
    async def _sink(self, task: Task) -> AsyncIterator[ArchiveSink]:
        async with AsyncExitStack() as stack:
            with _telling():
                sink = await stack.enter_async_context(self._places.sink(task, self._work.archive))
            yield sink

    async def _receive(self, server: _BlockServer) -> Commit:
        while True:
            frame, payload = await self._channel.receive()
            if isinstance(frame, Blocks):
                if not payload:
                    raise ProtocolViolation("Blocks without a payload")
                self._unstored_bytes += len(payload)
                if self._unstored_bytes > CREDIT_BYTES and self._unstored_bytes > len(payload):
                    raise ProtocolViolation(f"{self._unstored_bytes} bytes are under way, {CREDIT_BYTES} are allowed")
                self._arrived.append(payload)
                self._news.set()
                await self._brake(len(payload))
            elif isinstance(frame, Commit):
                self._complete = True
                self._news.set()
                return frame
            else:
                server.take(frame, payload)

    async def _gather(self, writer: ArchiveSink, batches: trio.MemorySendChannel[list[bytearray]]) -> None:
        """What arrived, in batches for one call of the device, each prepared while the one before is written. Ends with all of a complete archive."""
        async with batches:
            while self._arrived or not self._complete:
                if not self._arrived:
                    self._news = trio.Event()
                    await self._news.wait()
                    continue
                batch = [self._arrived.popleft()]
                taken = len(batch[0])
                while self._arrived and taken + len(self._arrived[0]) <= WRITE_BYTES_MAX:
                    batch.append(self._arrived.popleft())
                    taken += len(batch[-1])
                with _telling():
                    await writer.prepare(batch)
                await batches.send(batch)

    async def _write(self, writer: ArchiveSink, batches: trio.MemoryReceiveChannel[list[bytearray]]) -> None:
        """Write each batch; sync by count, by time, and when nothing waits. What is durable when it ends is all, or the device is gone."""
        unsynced_bytes = 0
        synced_at = trio.current_time()
        async for batch in batches:
            unsynced_bytes += sum(map(len, batch))
            late = trio.current_time() - synced_at >= SYNC_SECONDS
            nothing_waits = not self._arrived and not batches.statistics().tasks_waiting_send
            sync = writer.resumable and (unsynced_bytes >= SYNC_BYTES or late or nothing_waits)
            with _telling():
                last = await writer.write(batch, sync=sync)
            if sync or not writer.resumable:
                self._unstored_bytes -= unsynced_bytes
                if sync:
                    self._work.durable_blocks = last + 1
                await self._channel.send(Stored(block=last, bytes=unsynced_bytes))
                unsynced_bytes = 0
                synced_at = trio.current_time()

    async def _commit(self, writer: ArchiveSink, commit: Commit) -> None:
        """Everything is durable. Close the archive, compare, record; only then it exists (law 4)."""
        work = self._work
        if len(commit.root) != ROOT_BYTES or len(commit.signature) not in (0, SIGNATURE_BYTES):
            await writer.discard()
            raise ProtocolViolation("root or signature of the Commit have the wrong length")
        # The archive's final name and the event belong together as closely as can be: no cancellation in between. A tape may have to change
        # cartridges before its archive ends, and that can be cancelled: nothing has a final name there before.
        with trio.CancelScope(shield=writer.resumable) as scope:
            with _telling():
                summary = await writer.finish()
            scope.shield = True
            if summary.root != commit.root:
                await writer.discard()
                raise Damaged(
                    f"Archive {work.archive} has the root {summary.root.hex()}, its client says {commit.root.hex()}.",
                    data={"archive": work.archive},
                )
            client = self._journal.state.find(Client, work.client_id)
            valid = client is not None and verify_root(
                bytes.fromhex(client.public_key), bytes.fromhex(work.archive), commit.root, commit.signature
            )
            reply = await self._record(
                commit,
                RecordBackup(
                    task_id=work.task_id,
                    archive=work.archive,
                    archive_size=summary.archive_size,
                    data_size=commit.data_size,
                    files=commit.files,
                    problems=commit.problems,
                    blocks=summary.blocks,
                    root=summary.root.hex(),
                    signature=commit.signature.hex(),
                    signature_valid=valid,
                    key_id=commit.key_id,
                    problem_lines=commit.problem_lines[:PROBLEM_LINES_MAX],
                    parts=writer.parts,
                ),
            )
        await self._channel.send(Committed(backup_id=reply.ids[0] if reply.ids else 0))
        self._works.end(work)

    async def _record(self, commit: Commit, command: RecordBackup) -> Reply:
        """Bounded by the order's own deadline. On a full log volume the finished archive stays for the next attempt to replace."""
        client = self._journal.state.find(Client, self._work.client_id)
        return await self._journal.execute(
            Order(
                command=command,
                command_id=f"{self._work.id}/backup",
                actor=f"client:{client.hwid}" if client is not None else "actor:data_channel",
            )
        )


@contextmanager
def _telling() -> Iterator[None]:
    """A place that cannot be used is the storage's matter, not the peer's."""
    try:
        yield
    except Unavailable as error:
        raise StorageUnavailable(error.message) from error
