"""Reading containers from front to back: for verification, for going on after a crash, for making a lost index again.

What a scan promises: a block it yields as intact is one that was written whole for this archive; behind damage it finds the next
block, so that one bad place costs the blocks it touches and no other.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Generator, Iterator
from typing import Final, TypeAlias

import msgspec

from rbcore.archive.block import HEADER_BYTES, MAGIC, STORED_BYTES_MAX, BlockHeader, check_stored, parse_header
from rbcore.archive.container import (
    ALIGNMENT,
    CONTAINER_HEADER_BYTES,
    aligned,
    container_name,
    parse_container_header,
)
from rbcore.archive.store import Finding
from rbcore.errors import Damaged, ProtocolViolation
from rbcore.ports import VolumeFile

PIECE_BYTES: Final = 8 * 1024 * 1024
"""One read."""
_KEPT_BYTES: Final = aligned(HEADER_BYTES + STORED_BYTES_MAX) + ALIGNMENT
"""Room before a piece for what is not worked off of the piece before: less than one block."""
_UNREADABLE_STEP_BYTES: Final = 64 * 1024
_MAGIC: Final = re.compile(re.escape(MAGIC))


class ScannedBlock(msgspec.Struct, frozen=True, gc=False):
    header: BlockHeader
    offset: int
    intact: bool
    """The payload matches its digest; unknown, and said to be so, when only headers are read."""


Step: TypeAlias = ScannedBlock | Finding | None
"""None: another piece was read."""


class ScanBuffer:
    """The memory of a scan, made once for all containers of an archive. Page-aligned, so that reads need no copy."""

    def __init__(self) -> None:
        self.memory = memoryview(mmap.mmap(-1, _KEPT_BYTES + PIECE_BYTES))


class _Pieces:
    """A file as a window that moves forward; offsets are the file's."""

    def __init__(self, file: VolumeFile, buffer: ScanBuffer, start: int) -> None:
        self._file = file
        self._memory = buffer.memory
        self.size = file.size()
        self._piece_start = start // ALIGNMENT * ALIGNMENT
        self.end = self._piece_start
        """What lies before is in memory, from the last ``keep_from`` on."""
        self.unreadable: list[tuple[int, int]] = []

    def view(self, start: int, end: int) -> memoryview:
        shift = _KEPT_BYTES - self._piece_start
        return self._memory[start + shift : end + shift]

    def read_on(self, keep_from: int) -> None:
        """Read the next piece; bytes from ``keep_from`` on stay in memory in front of it."""
        kept = self.end - keep_from
        assert 0 <= kept <= _KEPT_BYTES
        self._memory[_KEPT_BYTES - kept : _KEPT_BYTES] = bytes(self.view(keep_from, self.end))
        self._piece_start = self.end
        piece = self._memory[_KEPT_BYTES:]
        try:
            count = self._file.read_into(self.end, piece)
        except Damaged:
            count = self._read_around(piece)
        if count == 0:
            self.size = self.end  # cut shorter meanwhile
        self.end += min(count, self.size - self.end)

    def _read_around(self, piece: memoryview) -> int:
        """The device refuses part of the piece: read it in small steps, with zeros for what cannot be read."""
        done = 0
        wanted = min(len(piece), self.size - self.end)
        while done < wanted:
            step = piece[done : done + _UNREADABLE_STEP_BYTES]
            try:
                count = self._file.read_into(self.end + done, step)
            except Damaged:
                step[:] = bytes(len(step))
                self.unreadable.append((self.end + done, len(step)))
                count = len(step)
            if count == 0:
                break
            done += count
        return min(done, wanted)


class ContainerScan:
    """One container. ``bytes_read`` grows as the scan goes.

    Block numbers are not compared: behind damage a block may come to light that was misdirected there, and those after it are no
    worse for that. Whoever needs order looks himself.
    """

    def __init__(self, file: VolumeFile, archive_id: bytes, number: int, buffer: ScanBuffer) -> None:
        self._file = file
        self._archive_id = archive_id
        self._number = number
        self._name = container_name(number)
        self._buffer = buffer
        self.bytes_read = 0

    def header(self) -> Finding | None:
        """What is wrong with the container's own header."""
        try:
            found = parse_container_header(self._file.read_at(0, CONTAINER_HEADER_BYTES))
        except (Damaged, ProtocolViolation) as error:
            return self._finding(0, error.message)
        if found.archive_id != self._archive_id or found.number != self._number:
            return self._finding(0, f"this is container {found.number} of archive {found.archive_id.hex()}")
        return None

    def headers(self) -> Iterator[Step]:
        """Block headers only, hopping over payloads; from the first damage on everything is read.

        A block is yielded when the hop over it has landed on another: if it has not, bytes may be missing in this one.
        """
        size = self._file.size()
        offset = CONTAINER_HEADER_BYTES
        held: ScannedBlock | None = None
        while offset < size:
            raw = self._file.read_at(offset, HEADER_BYTES)
            if offset % ALIGNMENT and not any(raw[:4]):
                offset = aligned(offset)
                continue
            try:
                header = self._accepted(raw)
            except (Damaged, ProtocolViolation):
                header = None
            if header is None or offset + header.block_length > size:
                yield from self.blocks(offset if held is None else held.offset)
                return
            if held is not None:
                yield held
            held = ScannedBlock(header, offset, intact=True)
            offset += header.block_length
        if held is not None:
            yield held

    def blocks(self, offset: int = CONTAINER_HEADER_BYTES) -> Iterator[Step]:
        """Every byte from ``offset`` on, which must be where a block begins."""
        pieces = _Pieces(self._file, self._buffer, offset)
        damaged_end = 0
        while offset < pieces.size:
            yield from self._fill(pieces, offset, offset + HEADER_BYTES)
            padding_end = min(aligned(offset), pieces.size)
            yield from self._fill(pieces, offset, padding_end)
            if offset < padding_end and not any(pieces.view(offset, padding_end)):
                offset = padding_end
                continue
            try:
                header = self._accepted(pieces.view(offset, min(offset + HEADER_BYTES, pieces.size)))
            except (Damaged, ProtocolViolation) as error:
                if offset >= damaged_end:
                    yield self._finding(offset, error.message)
                offset = yield from self._next_header(pieces, offset + 1)
                continue
            end = offset + header.block_length
            yield from self._fill(pieces, offset, end)
            try:
                check_stored(header, pieces.view(offset + HEADER_BYTES, min(end, pieces.size)))
            except Damaged as error:
                yield self._finding(offset, error.message, header.number)
                yield ScannedBlock(header, offset, intact=False)
                damaged_end = end
                # Not simply ``end``: where bytes were lost, the next block begins earlier.
                offset = yield from self._next_header(pieces, offset + HEADER_BYTES)
                continue
            yield ScannedBlock(header, offset, intact=True)
            offset = end
        for start, length in pieces.unreadable:
            yield self._finding(start, f"{length} bytes cannot be read from the device")

    def _next_header(self, pieces: _Pieces, offset: int) -> Generator[Step, None, int]:
        """Offset of the next header that belongs here; the end of the file when there is none."""
        while True:
            yield from self._fill(pieces, offset, offset + HEADER_BYTES)
            found = _MAGIC.search(pieces.view(offset, pieces.end))
            if found is None:
                if pieces.end >= pieces.size:
                    return pieces.size
                offset = max(offset, pieces.end - len(MAGIC) + 1)
                yield from self._fill(pieces, offset, pieces.end + 1)
                continue
            offset += found.start()
            yield from self._fill(pieces, offset, offset + HEADER_BYTES)
            try:
                self._accepted(pieces.view(offset, min(offset + HEADER_BYTES, pieces.size)))
            except (Damaged, ProtocolViolation):
                offset += 1
                continue
            return offset

    def _accepted(self, buffer: bytes | memoryview) -> BlockHeader:
        header = parse_header(buffer)
        if header.archive_id != self._archive_id:
            raise Damaged(f"a block of archive {header.archive_id.hex()} lies here")
        return header

    def _fill(self, pieces: _Pieces, keep_from: int, wanted: int) -> Iterator[None]:
        """Read until the file is in memory up to ``wanted``, or to its end."""
        while pieces.end < min(wanted, pieces.size):
            before = pieces.end
            pieces.read_on(min(keep_from, pieces.end))
            self.bytes_read += pieces.end - before
            yield None

    def _finding(self, offset: int, what: str, block: int = -1) -> Finding:
        return Finding(container=self._name, offset=offset, block=block, what=what)
