"""Where archives are: a source for whatever lies in the repository, a sink for whatever a task writes, in a catalog or on cartridges.

Belongs here: which of the two it is, and reading in pieces. Everything else asks here, so that no pool type is special in what moves bytes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

from actors.port import ArchiveSink, ArchiveSource, TapeStore
from actors.storage import Storages
from rbcore.archive.block import iter_blocks
from rbcore.entities import Backup, Task
from rbcore.errors import TooLarge, Unavailable
from rbcore.vocabulary import BACKUP_TASKS

PIECE_BYTES: Final = 4 * 1024 * 1024
"""Blocks are read, checked and written in pieces of about this size."""
PIECE_BLOCKS_MAX: Final = 32
"""How far a piece of unusually large blocks can exceed that: 32 blocks of 4 MiB."""


class Places:
    """See the module. ``tape`` is None where this daemon drives no tape libraries."""

    def __init__(self, storages: Storages, tape: TapeStore | None) -> None:
        self._storages = storages
        self.tape = tape

    def source(self, backup: Backup, task_id: int) -> AbstractAsyncContextManager[ArchiveSource]:
        """Read a backup's archive where ``backup`` says it is. Raises ``NotFound``, ``Damaged``, ``Unavailable``."""
        if backup.parts:
            return self._tape().reader(backup, task_id)
        return self._storages.get(backup.local_catalog_id).reader(backup.archive)

    def medium(self, backup: Backup, task_id: int) -> AbstractAsyncContextManager[ArchiveSource]:
        """The same for a backup on cartridges, with nothing taken from what is kept beside them: what a verification reads."""
        return self._tape().reader(backup, task_id, medium_only=True)

    def sink(self, task: Task, archive: str) -> AbstractAsyncContextManager[ArchiveSink]:
        """Write an archive where the task was assigned. Raises ``Unavailable``, ``NotAllowedNow`` while it is being written already."""
        is_backup = task.task_type in BACKUP_TASKS
        if task.library_id if is_backup else task.target_library_id:
            return self._tape().writer(task, archive)
        catalog_id = task.local_catalog_id if is_backup else task.target_local_catalog_id
        return self._storages.get(catalog_id).writer(archive)

    def _tape(self) -> TapeStore:
        if self.tape is None:
            raise Unavailable(
                "The archive belongs on cartridges, and this daemon drives no tape libraries: start it with its tape devices."
            )
        return self.tape


class Stride:
    """How many blocks make a piece of about ``bytes_wanted``. Learns from what was read, and grows slowly: a run of small blocks says little about
    those that follow."""

    def __init__(self, bytes_wanted: int = PIECE_BYTES, blocks_max: int = PIECE_BLOCKS_MAX) -> None:
        self.blocks = 2
        self._bytes_wanted = bytes_wanted
        self._blocks_max = blocks_max

    def learn(self, blocks: int, length: int) -> None:
        fits = self._bytes_wanted * blocks // max(1, length)
        self.blocks = max(1, min(fits, 2 * self.blocks, self._blocks_max))


async def pieces_of(source: ArchiveSource, numbers: Sequence[int]) -> AsyncIterator[tuple[Sequence[int], bytes]]:
    """These blocks, piece by piece, each with its numbers. Raises as ``ArchiveSource.read`` does."""
    stride, start = Stride(), 0
    while start < len(numbers):
        wanted = numbers[start : start + stride.blocks]
        try:
            data = await source.read(wanted)
        except TooLarge:
            stride.blocks = max(1, len(wanted) // 2)
            if len(wanted) == 1:
                raise
            continue
        start += len(wanted)
        stride.learn(len(wanted), len(data))
        yield wanted, data


def split_blocks(data: bytes, bytes_max: int) -> list[tuple[int, memoryview]]:
    """Whole blocks, one after the other, cut between blocks into pieces of at most ``bytes_max`` (one block at least): count and bytes of each."""
    view = memoryview(data)
    found: list[tuple[int, memoryview]] = []
    start = end = count = 0
    for header, _ in iter_blocks(view):
        if count and end + header.block_length - start > bytes_max:
            found.append((count, view[start:end]))
            start, count = end, 0
        end += header.block_length
        count += 1
    if count:
        found.append((count, view[start:end]))
    return found
