"""Which files a backup need not read: a merge of the scan with the manifests of earlier attempts and of the parent.

Scan and manifests stand in the same order, so what is in memory is a manifest block or two for each. A file is unchanged when type, size,
mtime, ctime and inode are what they were. ctime cannot be set by programs, so a restored mtime hides nothing; the device number is not
compared, because it changes with a restart of the host while the files do not.

A file whose ctime is not older than the start of the parent backup may have been written again within the same tick of the
file system's clock after it was read; it is read again ("racily clean" in the words of git).
"""

from __future__ import annotations

from collections import deque
from typing import Final

from actors.agent.manifest_stream import ManifestStream
from rbcore.archive.manifest import path_order_key
from rbcore.archive.model import Entry, EntryType, Extent

CLOCK_TICK_NS: Final = 10_000_000
"""No file system's clock is coarser than the kernel's tick, and no kernel's tick than 10 ms."""
ANY_TIME_NS: Final = 2**63 - 1


class ParentCursor:
    """One manifest, walked along with the scan."""

    def __init__(self, stream: ManifestStream, *, archive_shift: int, started_ns: int = ANY_TIME_NS) -> None:
        """``archive_shift``: what to add to the archive index of an extent to name it in the new archive."""
        self._stream = stream
        self._shift = archive_shift
        self._trusted_before_ns = started_ns - CLOCK_TICK_NS
        self._pieces: deque[tuple[bytes, dict[bytes, Entry]]] = deque()
        self._loaded_key = b""
        self._ended = False

    async def advance(self, first_key: bytes, last_key: bytes) -> list[str]:
        """Have what stands between the two keys in memory, and nothing that stands before. Returns what was damaged."""
        damaged: list[str] = []
        while self._pieces and self._pieces[0][0] < first_key:
            self._pieces.popleft()
        while not self._ended and (self._loaded_key < last_key or not self._loaded_key):
            piece = await self._stream.read()
            if piece is None:
                self._ended = True
            elif piece.problem:
                damaged.append(piece.problem)
            elif piece.entries:
                self._loaded_key = path_order_key(piece.entries[-1].path)
                if self._loaded_key >= first_key:
                    self._pieces.append((self._loaded_key, {entry.path: entry for entry in piece.entries}))
        return damaged

    def find(self, entry: Entry) -> Entry | None:
        """``entry`` with content, attributes and flags from the manifest, when it is unchanged."""
        for _, entries in self._pieces:
            known = entries.get(entry.path)
            if known is not None:
                return self._carried(known, entry) if self._unchanged(known, entry) else None
        return None

    def find_begun(self, entry: Entry) -> list[Extent]:
        """Extents of a file that the attempt was reading when it ended, when it is unchanged."""
        known = self._stream.begun
        if known is None or known.path != entry.path or not self._unchanged(known, entry):
            return []
        return self._carried(known, entry).extents

    def _unchanged(self, known: Entry, entry: Entry) -> bool:
        return (
            known.ctime_ns == entry.ctime_ns
            and known.mtime_ns == entry.mtime_ns
            and known.size == entry.size
            and known.inode == entry.inode
            and known.type is EntryType.FILE
            and not known.problem
            and known.ctime_ns < self._trusted_before_ns
        )

    def _carried(self, known: Entry, entry: Entry) -> Entry:
        shift = self._shift
        extents = (
            [
                Extent(one.file_offset, one.length, one.archive + shift, one.block, one.block_offset)
                for one in known.extents
            ]
            if shift
            else known.extents
        )
        return Entry(
            entry.path, EntryType.FILE, entry.mode, entry.uid, entry.gid, entry.owner, entry.group, entry.mtime_ns,
            entry.ctime_ns, entry.size, entry.device, entry.inode, entry.links, extents, b"", 0, known.xattrs, "",
            entry.atime_ns, known.flags,
        )  # fmt: skip


class Comparison:
    """All manifests a backup may take content from, the best first."""

    def __init__(self, cursors: list[ParentCursor]) -> None:
        self._cursors = cursors
        self.carried_files = 0

    async def advance(self, entries: list[Entry]) -> list[str]:
        """Be ready for ``find`` on these entries, which follow those before. Returns what was damaged, in sentences."""
        first, last = path_order_key(entries[0].path), path_order_key(entries[-1].path)
        return [line for cursor in self._cursors for line in await cursor.advance(first, last)]

    def find(self, entry: Entry) -> Entry | None:
        """The entry with its content from earlier, when the file need not be read."""
        for cursor in self._cursors:
            found = cursor.find(entry)
            if found is not None:
                self.carried_files += 1
                return found
        return None

    def find_begun(self, entry: Entry) -> list[Extent]:
        """The extents that are there already of a large file of which an interrupted attempt read the beginning."""
        return max((cursor.find_begun(entry) for cursor in self._cursors), key=len, default=[])
