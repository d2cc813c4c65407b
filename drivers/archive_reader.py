"""Reading blocks of an archive out of its containers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Final

from drivers.stored_index import load_index, rebuild_index, store_index
from rbcore.archive.block import HEADER_BYTES, check_stored, parse_header
from rbcore.archive.container import Index, IndexRow, container_name
from rbcore.archive.model import BlockKind
from rbcore.errors import Damaged, NotFound, ProtocolViolation, StorageFull, TooLarge
from rbcore.ports import Volume, VolumeFile

READ_BYTES_MAX: Final = 64 * 1024 * 1024
"""Largest answer of one ``read``."""
GAP_BYTES_MAX: Final = 64 * 1024
"""Blocks this near to each other are read in one go."""
CONTAINERS_OPEN_MAX: Final = 16


class DirectoryReader:
    """``ArchiveReader``. One thread at a time. A lost or damaged index is made again first (one pass over block headers)."""

    def __init__(self, volume: Volume, archive: str, path: str) -> None:
        self.archive = archive
        self._archive_id = bytes.fromhex(archive)
        try:
            self._index = load_index(volume, path, self._archive_id)
        except (NotFound, Damaged):
            self._index = rebuild_index(volume, path, self._archive_id)
            with suppress(StorageFull):  # a cache: reading goes on without
                store_index(volume, path, self._index)
        self._containers = OpenContainers(volume, path)

    def manifest_blocks(self) -> Sequence[int]:
        """Those of the valid manifest: what an interrupted attempt left behind is not among them."""
        return self._index.manifest_blocks(last_only=True)

    def trailer_block(self) -> int:
        """Raises ``Damaged`` when the archive has lost it."""
        if len(self._index) and (row := self._index[len(self._index) - 1]).kind == BlockKind.TRAILER:
            return row.block
        raise Damaged(f"archive {self.archive} has lost its trailer block")

    def block_numbers(self) -> Sequence[int]:
        return self._index.block_numbers()

    def read(self, numbers: Sequence[int]) -> bytes:
        """Raises ``TooLarge`` over READ_BYTES_MAX; ``Damaged`` has container, offset and block in ``data``."""
        return read_blocks(self._containers, self._index, numbers, self._archive_id)

    def locate(self, number: int) -> tuple[str, int, int]:
        row = _find(self._index, number)
        return container_name(row.container), row.offset, row.length

    def close(self) -> None:
        self._containers.close()


class OpenContainers:
    """Open container files of one archive, the least recently used closed at the bound."""

    def __init__(self, volume: Volume, path: str) -> None:
        self._volume = volume
        self._path = path
        self._files: dict[int, VolumeFile] = {}

    def get(self, number: int) -> VolumeFile:
        file = self._files.pop(number, None)
        if file is None:
            try:
                file = self._volume.open(f"{self._path}/{container_name(number)}")
            except NotFound as error:
                raise Damaged(
                    f"container missing: {error.message}", data={"container": container_name(number)}
                ) from None
            if len(self._files) >= CONTAINERS_OPEN_MAX:
                self._files.pop(next(iter(self._files))).close()
        self._files[number] = file
        return file

    def close(self) -> None:
        while self._files:
            self._files.popitem()[1].close()


def read_blocks(containers: OpenContainers, index: Index, numbers: Sequence[int], archive_id: bytes) -> bytes:
    """The stored blocks, checked, one after the other; neighbours in one read."""
    rows = [_find(index, number) for number in numbers]
    if any(later <= earlier for earlier, later in pairwise(numbers)):
        raise ProtocolViolation("block numbers to read must ascend")
    if (wanted := sum(row.length for row in rows)) > READ_BYTES_MAX:
        raise TooLarge(f"{len(rows)} blocks have {wanted} bytes, over {READ_BYTES_MAX} for one read")
    pieces: list[bytes | memoryview] = []
    for run in _runs(rows):
        first, last = run[0], run[-1]
        stored = containers.get(first.container).read_at(first.offset, last.offset + last.length - first.offset)
        view = memoryview(stored)
        for row in run:
            start = row.offset - first.offset
            _check(row, view[start : start + row.length], archive_id)
        if len(stored) == sum(row.length for row in run):
            pieces.append(stored)
        else:
            pieces += (view[row.offset - first.offset :][: row.length] for row in run)
    if len(pieces) == 1 and isinstance(pieces[0], bytes):
        return pieces[0]
    return b"".join(pieces)


def _runs(rows: Sequence[IndexRow]) -> Iterator[list[IndexRow]]:
    run: list[IndexRow] = []
    for row in rows:
        if run:
            before = run[-1]
            gap = row.offset - before.offset - before.length
            if row.container != before.container or not 0 <= gap <= GAP_BYTES_MAX:
                yield run
                run = []
        run.append(row)
    if run:
        yield run


def _check(row: IndexRow, stored: memoryview, archive_id: bytes) -> None:
    name = container_name(row.container)
    place = {"container": name, "offset": row.offset, "block": row.block}
    try:
        header = parse_header(stored)
        check_stored(header, stored[HEADER_BYTES:])
        what = f"block {header.number} of archive {header.archive_id.hex()} lies there"
    except (Damaged, ProtocolViolation) as error:
        header, what = None, error.message
    if header is None or (header.number, header.archive_id, header.block_length) != (row.block, archive_id, row.length):
        raise Damaged(f"block {row.block} in {name} at {row.offset}: {what}", data=place)


def _find(index: Index, number: int) -> IndexRow:
    row = index.find(number)
    if row is None:
        raise NotFound(f"archive {index.archive_id.hex()} has no block {number}")
    return row
