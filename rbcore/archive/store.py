"""The port of an archive store: one device of a pool (a directory, later a block device or a tape) that keeps archives.

All calls block and belong on a worker thread; a store has one owner, its storage actor. Readers may run beside a writer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from typing import Protocol

import msgspec

from rbcore.ports import VolumeRoom


class ArchiveSummary(msgspec.Struct, frozen=True, kw_only=True):
    archive: str
    root: bytes
    """32 bytes, recomputed by the store from the stored blocks' headers."""
    blocks: int
    archive_size: int
    """Bytes occupied, frame overhead included."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One damage, named exactly."""

    container: str
    offset: int
    block: int
    """Block number, -1 when nothing can be trusted to say."""
    what: str


class VerificationReport(msgspec.Struct, frozen=True, kw_only=True):
    root: bytes
    """Empty when it cannot be computed."""
    blocks: int
    bytes_read: int
    findings: list[Finding]


class ArchiveWriter(Protocol):
    """An archive being written; invisible to readers until ``finish``."""

    next_block: int
    """Numbers below it are durable; a resumed writer starts with what a crash left, cut after the last whole block."""
    manifest_blocks: list[int]
    root_so_far: bytes
    """Where the root's chain stands after block ``next_block - 1``; empty when nothing is durable."""

    def read(self, numbers: Sequence[int]) -> bytes:
        """Durable blocks of this unfinished archive, as ``ArchiveReader.read`` gives them: a resumed backup reads its manifest blocks."""

    def write(self, blocks: bytes | memoryview) -> int:
        """Append whole blocks with ascending numbers >= ``next_block``; header and digest of each are checked first.

        Returns the last block's number. Raises ``ProtocolViolation`` (malformed, out of order), ``Damaged`` (digest), ``StorageFull``.
        """

    def sync(self) -> int:
        """Make everything written durable; returns the last durable block number (-1: none)."""

    def finish(self) -> ArchiveSummary:
        """Durable, closed, index written, renamed to its final name, directory synced. The archive can be read from now on."""

    def suspend(self) -> None:
        """Close; what is durable stays for a resume."""

    def discard(self) -> None:
        """Close and remove everything."""


class ArchiveReader(Protocol):
    archive: str

    def manifest_blocks(self) -> Sequence[int]:
        """Of the valid manifest only."""

    def trailer_block(self) -> int: ...

    def block_numbers(self) -> Sequence[int]:
        """Of all blocks, ascending."""

    def read(self, numbers: Sequence[int]) -> bytes:
        """The stored blocks with these (ascending) numbers, whole, one after the other. Raises ``NotFound``, ``Damaged``."""

    def locate(self, number: int) -> tuple[str, int, int]:
        """Container name, offset, stored length."""

    def close(self) -> None: ...


class ArchiveStore(Protocol):
    """A catalog: archives by name, finished and unfinished. Blocking; see ``actors.storage``."""

    def room(self) -> VolumeRoom: ...

    def archives(self) -> list[str]:
        """Names of the finished archives."""

    def unfinished(self) -> list[str]: ...

    def open_writer(self, archive: str) -> ArchiveWriter:
        """A new archive, or the unfinished one of that name to go on with."""

    def open_reader(self, archive: str) -> ArchiveReader:
        """Raises ``NotFound``."""

    def verify(
        self, archive: str, progress: Callable[[int], None] | None = None
    ) -> Iterator[VerificationReport | None]:
        """Read every stored byte. Yields None after each piece of at most 16 MiB (so that the caller can pause or stop), at last the report."""

    def remove(self, archive: str) -> int:
        """Remove a finished or unfinished archive; bytes freed; 0 when it is not there."""

    def erase(self, archive: str) -> Iterator[int]:
        """``remove``, with zeros written over every file before it goes. Yields the bytes freed so far after each piece of at most 8 MiB, at
        last in all. After the first nothing has the archive's name any more; what is left over when it is broken off, the next call and the sweep find."""

    def protect(self, archive: str, *, on: bool) -> None:
        """Make the containers of a finished archive immutable files, or lift that; ``remove`` and ``erase`` lift it. Raises ``NotFound``, ``Refused``."""

    def leftovers(self) -> list[str]:
        """Names of archives whose removal was begun and not ended."""

    def sweep(self, keep: Set[str], erased: Set[str] = frozenset()) -> list[tuple[str, int]]:
        """Remove whatever is not (part of) an archive named in ``keep``, nor of one that is being ``erased``; what was removed and how many bytes."""
