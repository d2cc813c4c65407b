"""The backup pipeline: scan, compare, read, compress, encrypt, send in order, commit.

::

    scan ──> compare ──> units ──> workers (read, pack, seal) ──> in order: blocks, then manifest ──> data channel
     one      with parent             ``workers`` at a time           bounded window                     credit

Memory is bounded by the window of units, the credit of the channel and a few manifest blocks, whatever the number of files.

A manifest block goes out at least every CHECKPOINT_BYTES of content. When the attempt is interrupted, the next one finds those in its own
unfinished archive and takes them as further parents: what they cover and what has not changed is not read again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Final

import trio

from actors.agent.compare import Comparison, ParentCursor
from actors.agent.manifest_stream import ManifestStream, read_trailer
from actors.agent.packing import (
    NONCE_BYTES,
    RANGE_BYTES,
    RANGE_RUNS,
    UNIT_CONTENT_BYTES,
    UNIT_ENTRIES,
    UNIT_FILES,
    LargeFile,
    Packed,
    RangeUnit,
    SmallUnit,
    Unit,
    pack_range,
    pack_small,
)
from actors.agent.port import BackupOutcome, BackupWork, WorkControl, WorkOutcome
from actors.agent.scripts import ScriptRunner, Scripts
from actors.agent.sealing import Sealing, sealing_of
from actors.agent.transfer import Transfer
from actors.agent.window import Submit, run_in_order
from actors.agent.working import BACKUP_TRY_AGAIN, carry_out
from actors.framing import DataChannel
from rbcore.archive.block import NO_NONCE, BlockCodec
from rbcore.archive.keys import sign_root
from rbcore.archive.manifest import TRAILER_VERSION, ManifestWriter, encode_trailer
from rbcore.archive.model import BlockFlag, BlockKind, Cipher, Entry, EntryType, Trailer
from rbcore.archive.root import RootHasher
from rbcore.errors import Damaged, InvalidRequest, ProtocolViolation, Unavailable
from rbcore.file_tree import SMALL_FILE_BYTES, ScanBatch, SourceTree
from rbcore.messages import Attached, Commit
from rbcore.ports import World

CHECKPOINT_BYTES: Final = 256 * 1024 * 1024
WINDOW_UNITS: Final = 6
"""Units between the scan and the channel, each at most 8 MiB of content."""
PROBLEM_LINES_MAX: Final = 1000
PROGRESS_SECONDS: Final = 1.0
RESUME_BLOCKS: Final = 4
"""Manifest blocks looked at per request when an unfinished archive is found."""


async def run_backup(work: BackupWork, channel: DataChannel, control: WorkControl, world: World) -> BackupOutcome:
    """Carry out one attempt of a backup over a connected data channel; the caller closes the channel.

    Returns when the daemon has committed, or with what went wrong: ``interrupted`` when another attempt may go on (the channel broke, the
    storage is full), ``error`` when it is the host's or the operator's matter, ``killed``. Raises only for programming errors.
    """
    transfer = Transfer(channel, work.order.transfer_token)

    async def job() -> WorkOutcome:
        return await Backup(work, transfer, control, world).run()

    return await carry_out(job, transfer, control, BACKUP_TRY_AGAIN)


class Backup:
    """One attempt."""

    def __init__(self, work: BackupWork, transfer: Transfer, control: WorkControl, world: World) -> None:
        """Raises ``InvalidRequest``, ``Refused`` when the order cannot be carried out by this client."""
        order = work.order
        self._order = order
        self._work = work
        self._transfer = transfer
        self._control = control
        self._world = world
        self._sealing = Sealing(order.crypto, work.keys.master_key)
        self._parent_sealing = (
            sealing_of(order.parent, work.keys.master_key) if order.parent and order.parent.root else None
        )
        self._codecs: list[BlockCodec] = []
        self._hands = trio.CapacityLimiter(_workers(work))
        self._archives = [order.archive]
        self._manifest = ManifestWriter()
        self._root = RootHasher(bytes.fromhex(order.archive))
        self._next_block = 0
        self._started_ns = world.clock.now_ns()
        self._comparison = Comparison([])
        self._pending = SmallUnit([], [])
        self._problem_lines: list[str] = []
        self._bytes_done = self._bytes_planned = self._files_done = self._blocks = 0
        self._unflushed_bytes = 0
        self._scanned_whole = False
        self._progress_told = trio.current_time()

    async def _say_no_snapshot(self) -> None:
        """This agent cannot make snapshots: that is a snapshot that failed, and the task says what then (module parameters)."""
        parameters = self._order.parameters
        if not parameters.get("use_snapshot", False):
            return
        if not parameters.get("ignore_errors_snapshot", True):
            raise InvalidRequest(
                "This agent cannot read from a snapshot, and the task forbids reading the live file system. "
                "Set ignore_errors_snapshot, or make the snapshot in script_before_snapshot and back up its mount point."
            )
        await self._control.notes("warning", ["no snapshot was made: the live file system is read"])

    async def run(self) -> WorkOutcome:
        scripts = ScriptRunner(Scripts.of(self._order.parameters), self._work.scripts, self._control, self._world)
        await self._control.stage("Execution")
        await self._say_no_snapshot()
        await scripts.before()
        try:
            one_file_system = bool(self._order.parameters.get("one_file_system", False))
            tree = await self._world.threads.run(
                lambda: self._work.trees.source(self._order.resource, one_file_system=one_file_system)
            )
            try:
                attached = await self._transfer.attach()
                await self._control.stage("Start_Transfer")
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._transfer.serve, nursery.cancel_scope)
                    await self._prepare(attached)
                    await self._control.stage("Transmission")
                    await run_in_order(
                        partial(self._plan, tree), partial(self._perform, tree), self._consume, window=WINDOW_UNITS
                    )
                    await scripts.after()
                    outcome = await self._finish()
                    nursery.cancel_scope.cancel()
                    return outcome
                # The channel's end cancels the block above without an error of its own.
                raise self._transfer.failure or Unavailable("The transfer ended before everything was backed up.")
            finally:
                tree.close()
        except BaseException:
            await scripts.error()
            raise

    # --- what is there already -------------------------------------------------------------------------------------

    async def _prepare(self, attached: Attached) -> None:
        """Find everything that content can be taken from: earlier attempts of this archive, and the parent."""
        order = self._order
        cursors: list[ParentCursor] = []
        if attached.next_block:
            self._next_block = attached.next_block
            self._root = RootHasher(
                bytes.fromhex(order.archive), resume=attached.root_so_far, last_block=attached.next_block - 1
            )
            for numbers in await self._earlier_attempts(attached.manifest_blocks):
                codec = self._sealing.codec(order.archive)
                stream = ManifestStream(self._transfer, self._world, order.archive, codec, numbers)
                cursors.append(ParentCursor(stream, archive_shift=0))
            await self._control.notes(
                "info", [f"The transfer goes on after block {attached.next_block - 1} of an earlier attempt."]
            )
        if order.parent is not None and self._parent_sealing is not None:
            if order.parent.crypto != order.crypto:
                await self._control.notes(
                    "info",
                    [
                        f"The parent backup has crypto {order.parent.crypto}, this one {order.crypto}: every file is read."
                    ],
                )
            else:
                cursors += await self._parent_cursor(order.parent.archive, self._parent_sealing)
        self._comparison = Comparison(cursors)

    async def _parent_cursor(self, archive: str, sealing: Sealing) -> list[ParentCursor]:
        """Empty when the parent's trailer is damaged: then every file is read, and the journal says why."""
        codec = sealing.codec(archive)
        try:
            trailer = await read_trailer(self._transfer, self._world, archive, codec)
        except (Damaged, ProtocolViolation) as error:
            await self._control.notes(
                "warning", [f"The parent backup cannot be read, so every file is: {error.message}"]
            )
            return []
        self._archives += trailer.archives
        stream = ManifestStream(self._transfer, self._world, archive, codec, [row.block for row in trailer.manifest])
        return [ParentCursor(stream, archive_shift=1, started_ns=trailer.started_ns)]

    async def _earlier_attempts(self, numbers: Sequence[int]) -> list[list[int]]:
        """The manifest blocks of each earlier attempt, newest attempt first."""
        attempts: list[list[int]] = []
        for start in range(0, len(numbers), RESUME_BLOCKS):
            answer = await self._transfer.fetch(self._order.archive, numbers[start : start + RESUME_BLOCKS])
            for header, _payload in answer.blocks():
                if header.flags & BlockFlag.MANIFEST_BEGINS or not attempts:
                    attempts.append([])
                attempts[-1].append(header.number)
        attempts.reverse()
        return attempts

    # --- planning --------------------------------------------------------------------------------------------------

    async def _plan(self, tree: SourceTree, submit: Submit[Unit]) -> None:
        threads = self._world.threads
        batches = tree.scan()
        while (batch := await threads.run(lambda: next(batches, None))) is not None:
            await self._control.turn()
            damaged = await self._comparison.advance(batch.entries)
            if damaged:
                await self._control.notes(
                    "warning", [f"{line}; the files it covers are read again" for line in damaged]
                )
            for unit in await threads.run(partial(self._cut, batch)):
                if isinstance(unit, SmallUnit):
                    await self._submit(unit, submit)
                else:
                    await self._submit_large(tree, unit, submit)
        self._scanned_whole = True
        await self._submit(self._pending, submit)

    def _cut(self, batch: ScanBatch) -> deque[SmallUnit | tuple[Entry, bool]]:
        """Compare and divide; a large file comes as (entry, sparse). Names that do not fill a unit wait for the next batch."""
        ready: deque[SmallUnit | tuple[Entry, bool]] = deque()
        unit = self._pending
        for position, entry in enumerate(batch.entries):
            if entry.type is EntryType.FILE and not entry.problem:
                known = self._comparison.find(entry)
                if known is not None:
                    unit.entries.append(known)
                elif entry.size > SMALL_FILE_BYTES:
                    ready.append(unit)
                    ready.append((entry, position in batch.sparse))
                    unit = SmallUnit([], [])
                    continue
                else:
                    unit.unread.append(len(unit.entries))
                    unit.entries.append(entry)
                    unit.content_bytes += entry.size
            else:
                unit.entries.append(entry)
            if (
                unit.content_bytes >= UNIT_CONTENT_BYTES
                or len(unit.unread) >= UNIT_FILES
                or len(unit.entries) >= UNIT_ENTRIES
            ):
                ready.append(unit)
                unit = SmallUnit([], [])
        self._pending = unit
        return ready

    async def _submit_large(self, tree: SourceTree, found: tuple[Entry, bool], submit: Submit[Unit]) -> None:
        """Cut a large file into ranges; of a sparse one only what is data."""
        entry, sparse = found
        file = LargeFile(entry)
        file.extents = list(self._comparison.find_begun(entry))
        offset, first = file.end, True
        while True:
            await self._control.turn()
            end = min(offset + RANGE_BYTES, entry.size)
            runs = [(offset, end - offset)] if end > offset else []
            if sparse:
                runs = await self._world.threads.run(partial(tree.data_runs, entry, offset, RANGE_RUNS))
                end = entry.size if len(runs) < RANGE_RUNS else sum(runs[-1])
                runs, rest = _limited(runs)
                end = rest if rest >= 0 else end
            last = end >= entry.size
            await self._submit(RangeUnit(file, runs, first, last), submit)
            if last:
                return
            offset, first = end, False

    async def _submit(self, unit: Unit, submit: Submit[Unit]) -> None:
        """Give the unit its numbers and nonces and hand it to the workers."""
        if isinstance(unit, SmallUnit):
            if not unit.entries:
                return
            self._bytes_planned += unit.content_bytes
        else:
            self._bytes_planned += sum(length for _, length in unit.runs)
        payload_blocks = unit.payload_blocks_max()
        unit.first_block = self._next_block
        unit.manifest_block = unit.first_block + payload_blocks
        self._next_block = unit.manifest_block + unit.manifest_blocks_max()
        if self._sealing.cipher is not Cipher.NONE:
            unit.nonces = self._world.randomness.token_bytes(NONCE_BYTES * payload_blocks)
        await submit(unit)

    # --- reading and sealing ---------------------------------------------------------------------------------------

    async def _perform(self, tree: SourceTree, unit: Unit) -> Packed:
        async with self._hands:
            codec = self._codecs.pop() if self._codecs else self._new_codec()
            try:
                if isinstance(unit, SmallUnit):
                    if not unit.unread:
                        return Packed(unit, unit.entries, [], 0, 0)
                    return await self._world.threads.run(partial(pack_small, tree, unit, codec))
                return await self._world.threads.run(partial(pack_range, tree, unit, codec))
            finally:
                self._codecs.append(codec)

    def _new_codec(self) -> BlockCodec:
        return self._sealing.codec(self._order.archive, self._order.compression)

    # --- sending, in order -----------------------------------------------------------------------------------------

    async def _consume(self, packed: Packed) -> None:
        await self._send(packed.blocks)
        unit = packed.unit
        entries = packed.entries
        if isinstance(unit, RangeUnit):
            entries = _range_entries(unit, packed)
        for entry in entries:
            self._manifest.add(entry)
            if entry.problem:
                self._note_problem(entry)
        self._bytes_done += packed.content_bytes
        self._files_done += packed.files
        self._unflushed_bytes += packed.content_bytes
        if self._unflushed_bytes >= CHECKPOINT_BYTES:
            if isinstance(unit, RangeUnit) and not unit.last:
                self._manifest.add_begun(unit.file.begun())
            self._manifest.flush()
            self._unflushed_bytes = 0
        await self._send_manifest(unit.manifest_block)
        now = trio.current_time()
        if now - self._progress_told >= PROGRESS_SECONDS:
            self._progress_told = now
            await self._tell_progress()

    async def _send(self, blocks: Sequence[bytearray]) -> None:
        if not blocks:
            return
        await self._control.turn()
        for block in blocks:
            self._root.add_block(block)
        self._blocks += len(blocks)
        await self._transfer.send_blocks(blocks)

    async def _send_manifest(self, number: int) -> int:
        """Seal and send what is ready of the manifest, numbered from ``number``; the next number."""
        while self._manifest.ready:
            plaintext, flags = self._manifest.take(number)
            await self._send([await self._sealed(BlockKind.MANIFEST, number, plaintext, flags)])
            number += 1
        return number

    async def _sealed(self, kind: BlockKind, number: int, plaintext: bytes, flags: int = 0) -> bytearray:
        nonce = NO_NONCE if self._sealing.cipher is Cipher.NONE else self._world.randomness.token_bytes(NONCE_BYTES)
        codec = self._codecs.pop() if self._codecs else self._new_codec()
        try:
            return await self._world.threads.run(lambda: codec.seal(kind, number, plaintext, nonce, flags=flags))
        finally:
            self._codecs.append(codec)

    def _note_problem(self, entry: Entry) -> None:
        if len(self._problem_lines) < PROBLEM_LINES_MAX:
            self._problem_lines.append(f"{printable(entry.path)}: {entry.problem}")

    async def _tell_progress(self) -> None:
        await self._control.progress(
            self._bytes_done, self._bytes_planned if self._scanned_whole else 0, self._files_done
        )

    async def _finish(self) -> WorkOutcome:
        """The rest of the manifest, the trailer, the signed root."""
        manifest, order = self._manifest, self._order
        manifest.flush()
        number = await self._send_manifest(self._next_block)
        trailer = Trailer(
            version=TRAILER_VERSION,
            archives=self._archives,
            manifest=manifest.rows,
            resource=order.resource,
            entries=manifest.entries,
            files=manifest.files,
            data_size=manifest.data_size,
            problems=manifest.problems,
            started_ns=self._started_ns,
            ended_ns=self._world.clock.now_ns(),
            hostname=self._work.hostname,
        )
        await self._send([await self._sealed(BlockKind.TRAILER, number, encode_trailer(trailer))])
        await self._tell_progress()
        root = self._root.value
        committed = await self._transfer.commit(
            Commit(
                root=root,
                signature=sign_root(self._work.keys.signing_seed, bytes.fromhex(order.archive), root),
                key_id=self._sealing.key_id,
                blocks=self._blocks,
                files=manifest.files,
                data_size=manifest.data_size,
                problems=manifest.problems,
                problem_lines=with_rest(self._problem_lines, manifest.problems),
            )
        )
        return WorkOutcome(
            "done",
            files=manifest.files,
            bytes=manifest.data_size,
            problems=manifest.problems,
            backup_id=committed.backup_id,
        )


def printable(path: bytes) -> str:
    """A path for people: bytes that are no UTF-8, and control characters, are shown as escapes; the root as ``.``."""
    text = path.decode("utf-8", "backslashreplace") or "."
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def with_rest(lines: list[str], total: int) -> list[str]:
    """The lines, at most PROBLEM_LINES_MAX, the last of which says how many more there were."""
    if total <= len(lines):
        return lines
    kept = lines[: PROBLEM_LINES_MAX - 1]
    return [*kept, f"and {total - len(kept)} more"]


def _range_entries(unit: RangeUnit, packed: Packed) -> list[Entry]:
    """Take a range's result into its file; the file's entry when that was the last range."""
    file = unit.file
    if packed.entries:
        file.entry = packed.entries[0]
        file.problem = file.entry.problem
    file.extents += packed.extents
    file.problem = file.problem or packed.problem
    if packed.shortened_to >= 0:
        file.shortened_to = packed.shortened_to
    return [file.complete()] if unit.last else []


def _limited(runs: list[tuple[int, int]]) -> tuple[list[tuple[int, int]], int]:
    """The runs up to RANGE_BYTES in all, and where the next range begins; -1 when they are all there."""
    kept: list[tuple[int, int]] = []
    left = RANGE_BYTES
    for offset, length in runs:
        if not left:
            return kept, offset
        taken = min(length, left)
        kept.append((offset, taken))
        left -= taken
        if taken < length:
            return kept, offset + taken
    return kept, -1


def _workers(work: BackupWork) -> int:
    asked = work.order.parameters.get("worker_parallelism")
    return max(1, min(work.workers, asked)) if isinstance(asked, int) and not isinstance(asked, bool) else work.workers
