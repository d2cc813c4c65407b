"""Writing an archive into containers, and going on with one that a crash interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from drivers.archive_reader import OpenContainers, read_blocks
from drivers.container_scan import ContainerScan, ScanBuffer, ScannedBlock
from drivers.stored_index import container_numbers, store_index
from rbcore.archive.block import HEADER_BYTES, BlockHeader, check_stored, iter_blocks
from rbcore.archive.container import (
    CONTAINER_BYTES_MAX,
    CONTAINER_HEADER_BYTES,
    CONTAINERS_MAX,
    ContainerHeader,
    Index,
    aligned,
    container_name,
    container_number,
)
from rbcore.archive.model import BlockKind
from rbcore.archive.root import RootHasher
from rbcore.archive.store import ArchiveSummary, Finding
from rbcore.errors import Damaged, NotFound, ProtocolViolation, RbError, Refused
from rbcore.ports import Volume, VolumeFile

PARTIAL_SUFFIX: Final = ".partial"


class DirectoryWriter:
    """``ArchiveWriter`` on ``<path>.partial``, which exists; ``path`` is its final name.

    One thread at a time. After an error of the volume nothing but ``suspend`` and ``discard`` works: nobody knows what stands in
    the file until a resume has looked.
    """

    def __init__(
        self, volume: Volume, archive: str, path: str, *, container_bytes_max: int = CONTAINER_BYTES_MAX
    ) -> None:
        self._volume = volume
        self._archive = archive
        self._archive_id = bytes.fromhex(archive)
        self._final_path = path
        self._path = path + PARTIAL_SUFFIX
        self._parent = path.rpartition("/")[0]
        self._container_bytes_max = container_bytes_max
        self._index = Index(self._archive_id)
        self._root = RootHasher(self._archive_id)
        self._last_kind: BlockKind | None = None
        self._file: VolumeFile | None = None
        self._offset = 0
        self._synced_offset = 0
        self._directory_changed = False
        self._failed: RbError | None = None
        self._recover()
        self._durable_block = -1
        self.next_block = 0
        self.root_so_far = b""
        self._note_durable()
        self.manifest_blocks: list[int] = self._index.manifest_blocks(last_only=False)

    def write(self, blocks: bytes | memoryview) -> int:
        self._check()
        view = memoryview(blocks)
        headers = self._checked(view)
        run_start = position = 0
        for header in headers:
            if self._file is None or self._offset + header.block_length > self._container_bytes_max:
                self._append(view[run_start:position])
                run_start = position
                self._next_container(header.number)
            self._index.add(header, self._index.containers, self._offset)
            self._root.add(header)
            self._last_kind = header.kind
            if header.kind is BlockKind.MANIFEST:
                self.manifest_blocks.append(header.number)
            self._offset += header.block_length
            position += header.block_length
        self._append(view[run_start:position])
        return self._root.last_block

    def sync(self) -> int:
        self._check()
        if self._file is not None and (self._offset != self._synced_offset or self._directory_changed):
            try:
                padding = aligned(self._offset) - self._offset
                if padding:
                    self._file.write(bytes(padding))
                    self._offset += padding
                self._file.sync()
                if self._directory_changed:
                    self._volume.sync_directory(self._path)
            except RbError as error:
                self._failed = error
                raise
            self._directory_changed = False
            self._synced_offset = self._offset
        self._note_durable()
        return self._durable_block

    def read(self, numbers: Sequence[int]) -> bytes:
        """Durable blocks of the unfinished archive, for an agent that goes on with it. Raises ``NotFound``, ``Damaged``."""
        if any(number > self._durable_block for number in numbers):
            raise NotFound(f"archive {self._archive} has no durable block over {self._durable_block}")
        files = OpenContainers(self._volume, self._path)
        try:
            return read_blocks(files, self._index, numbers, self._archive_id)
        finally:
            files.close()

    def finish(self) -> ArchiveSummary:
        if self._last_kind is not BlockKind.TRAILER:
            raise ProtocolViolation(f"archive {self._archive} cannot be finished without its trailer")
        self.sync()
        self._close()
        index_bytes = store_index(self._volume, self._path, self._index)
        containers = (container_name(n) for n in container_numbers(self._volume, self._path))
        stored_bytes = sum(self._volume.size(f"{self._path}/{name}") for name in containers)
        self._volume.rename(self._path, self._final_path)
        self._volume.sync_directory(self._parent)
        return ArchiveSummary(
            archive=self._archive,
            root=self._root.value,
            blocks=len(self._index),
            archive_size=stored_bytes + index_bytes,
        )

    def suspend(self) -> None:
        self._close()

    def discard(self) -> None:
        self._close()
        self._volume.remove(self._path)
        self._volume.sync_directory(self._parent)

    def _note_durable(self) -> None:
        self._durable_block = self._root.last_block
        self.next_block = self._durable_block + 1
        self.root_so_far = self._root.value if self.next_block else b""

    def _checked(self, view: memoryview) -> list[BlockHeader]:
        """Nothing of ``view`` is taken unless all of it is good."""
        headers: list[BlockHeader] = []
        last, last_kind = self._root.last_block, self._last_kind
        try:
            for header, _ in iter_blocks(view):
                if header.archive_id != self._archive_id:
                    raise ProtocolViolation(
                        f"block {header.number} is of archive {header.archive_id.hex()}, not {self._archive}"
                    )
                if header.number <= last:
                    raise ProtocolViolation(f"block {header.number} after block {last}: numbers must ascend")
                if last_kind is BlockKind.TRAILER:
                    raise ProtocolViolation(f"block {header.number} comes after the trailer")
                headers.append(header)
                last, last_kind = header.number, header.kind
        except Damaged as error:
            raise ProtocolViolation(f"malformed block: {error.message}") from None
        position = 0
        for header in headers:
            check_stored(header, view[position + HEADER_BYTES : position + header.block_length])
            position += header.block_length
        return headers

    def _append(self, run: memoryview) -> None:
        if not run:
            return
        assert self._file is not None
        try:
            self._file.write(run)
        except RbError as error:
            self._failed = error
            raise

    def _next_container(self, first_block: int) -> None:
        """The one before is durable before the next is made: a resume needs to check the payloads of the last one only."""
        try:
            if self._file is not None:
                self._file.write(bytes(aligned(self._offset) - self._offset))
                self._file.sync()
                self._close()
            number = self._index.containers + 1
            if number > CONTAINERS_MAX:
                raise Refused(f"archive {self._archive} would have more than {CONTAINERS_MAX} containers")
            self._index.containers = number
            self._file = self._volume.create(f"{self._path}/{container_name(number)}")
            self._directory_changed = True
            self._file.write(ContainerHeader(self._archive_id, number, first_block).encode())
            self._offset, self._synced_offset = CONTAINER_HEADER_BYTES, 0
        except RbError as error:
            self._failed = error
            raise

    def _check(self) -> None:
        if self._failed is not None:
            raise self._failed

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    # --- going on after a crash ---

    def _recover(self) -> None:
        """Keep the longest run of good blocks from the start, cut what comes after, make what is kept durable."""
        numbers = container_numbers(self._volume, self._path)
        if numbers:
            buffer = ScanBuffer()
            for position, number in enumerate(numbers, start=1):
                if number != position or not self._recover_container(number, buffer, last=number == numbers[-1]):
                    break
        for name in self._volume.list(self._path):
            found = container_number(name)
            if found is None or found > self._index.containers:
                self._volume.remove(f"{self._path}/{name}")
        if self._index.containers:
            self._cut()
        self._volume.sync_directory(self._path)

    def _recover_container(self, number: int, buffer: ScanBuffer, *, last: bool) -> bool:
        """Whether all of it was good. Only the last may hold what was never made durable, so only its payloads are read."""
        file = self._volume.open(f"{self._path}/{container_name(number)}")
        try:
            scan = ContainerScan(file, self._archive_id, number, buffer)
            if scan.header() is not None:
                return False
            for step in scan.blocks() if last else scan.headers():
                if isinstance(step, Finding):
                    return False
                if isinstance(step, ScannedBlock):
                    if step.header.kind is BlockKind.TRAILER or step.header.number <= self._root.last_block:
                        return False
                    self._index.add(step.header, number, step.offset)
                    self._root.add(step.header)
                    self._last_kind = step.header.kind
            return True
        finally:
            file.close()

    def _cut(self) -> None:
        """Let the last container end, padded, with the last block that is kept."""
        row = self._index[len(self._index) - 1]
        end = row.offset + row.length
        padded = aligned(end)
        file = self._volume.open(f"{self._path}/{container_name(row.container)}", writable=True)
        self._file = file
        if file.size() != padded or any(file.read_at(end, padded - end)):
            file.truncate(end)
            file.write(bytes(padded - end))
        file.sync()
        self._offset = self._synced_offset = padded
