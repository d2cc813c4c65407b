"""Copying one archive from where it is to another pool: whole blocks, as they are, from a source to a sink, whatever the types of the pools.

Reading and writing go on side by side, a few pieces apart, so that neither device waits for the other and memory stays bounded. Nothing is decrypted
or unpacked: the root, recomputed from what was written, says that it is the same archive. In a catalog an attempt goes on after the last durable
block of the one before; on cartridges it begins anew.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

from actors.jobs import Job
from actors.places import Places, pieces_of
from actors.port import ArchiveSink, ArchiveSource
from rbcore.commands import RecordCopy
from rbcore.entities import Backup, Task
from rbcore.errors import Damaged, RbError, Unavailable

READ_AHEAD_PIECES: Final = 3
SYNC_BYTES: Final = 64 * 1024 * 1024
"""So much of a copy in a catalog a crash can cost."""


async def copy_backup(
    places: Places,
    job: Job,
    task: Task,
    backup: Backup,
    record: Callable[[RecordCopy], Awaitable[None]],
    on_progress: Callable[[int], None],
) -> None:
    """Copy the archive of ``backup`` to the task's target and record it.

    ``record`` sends the command; from the archive's end to the event nothing is cancelled. ``on_progress`` is told the bytes copied. Raises ``Damaged``
    (a block of the source, by its number; the copy is not the archive), ``NotFound`` (no source), ``StorageFull``, ``Unavailable``, ``NotAllowedNow``
    (stopped, or written already), and what ``record`` does.
    """
    async with places.source(backup, task.id) as source, places.sink(task, backup.archive) as sink:
        resumed = job.durable_blocks = sink.next_block
        numbers = await source.block_numbers()
        await _transfer(job, source, sink, numbers[bisect_left(numbers, sink.next_block) :], on_progress)
        # A catalog is quick to end an archive; a tape may have to change cartridges for it, and the attempt can be had again.
        with trio.CancelScope(shield=sink.resumable) as scope:
            summary = await sink.finish()
            scope.shield = True
            if summary.root.hex() != backup.root:
                await sink.discard()
                if resumed:
                    raise Unavailable("What an earlier attempt had copied was not the archive; the copy begins anew.")
                raise Damaged(
                    f"The copy has the root {summary.root.hex()}, backup {backup.id} has {backup.root}: verify the backup.",
                    data={"archive": backup.archive},
                )
            await record(
                RecordCopy(
                    task_id=task.id, archive_size=summary.archive_size, root=summary.root.hex(), parts=sink.parts
                )
            )


async def _transfer(
    job: Job, source: ArchiveSource, sink: ArchiveSink, numbers: Sequence[int], on_progress: Callable[[int], None]
) -> None:
    """Read these blocks and write them; durable when it returns, where the sink can make them so."""
    ahead_in, ahead = trio.open_memory_channel[bytes | RbError](READ_AHEAD_PIECES)
    failure: RbError | None = None

    async def read() -> None:
        async with ahead_in:
            try:
                async for _, piece in pieces_of(source, numbers):
                    await ahead_in.send(piece)
                    await job.next_piece()
            except RbError as error:
                await ahead_in.send(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        try:
            await _write(job, ahead, sink, on_progress)
        except RbError as error:
            failure = error
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _write(
    job: Job,
    ahead: trio.MemoryReceiveChannel[bytes | RbError],
    sink: ArchiveSink,
    on_progress: Callable[[int], None],
) -> None:
    copied = unsynced = 0
    async for piece in ahead:
        if isinstance(piece, RbError):
            raise piece
        copied += len(piece)
        unsynced += len(piece)
        sync = sink.resumable and unsynced >= SYNC_BYTES
        last = await sink.write([piece], sync=sync)
        if sync:
            job.durable_blocks, unsynced = last + 1, 0
        on_progress(copied)
