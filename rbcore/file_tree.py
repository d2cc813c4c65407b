"""The port of file trees: what a backup reads from and a restore writes to.

A port, so that the agent's pipelines run on an in-memory tree in simulation. Calls are coarse: one call handles hundreds of
files or megabytes of one file, because a hop to a worker thread costs more than reading ten small files. Implemented by
``drivers.file_tree`` and ``drivers.simulated.file_tree``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Protocol, TypeAlias

import msgspec

from rbcore.archive.model import Entry

SMALL_FILE_BYTES: Final = 1024 * 1024
"""Files up to this size are read whole and packed together; larger ones are cut into ranges."""

Run: TypeAlias = tuple[int, int]
"""(file offset, length) of content that is not a hole."""

Problem: TypeAlias = tuple[bytes, str]
"""A path and what is wrong with it, in a sentence without the path."""


# --- reading a tree ----------------------------------------------------------------------------------------------------


class ScanBatch(msgspec.Struct, frozen=True):
    """Some hundreds of names in manifest order, described completely except for what takes opening a regular file.

    Regular files come without ``extents``, ``xattrs`` and ``flags``: those are read together with the content.
    """

    entries: list[Entry]
    sparse: frozenset[int] = frozenset()
    """Positions in ``entries`` of files that occupy less than their size: they have holes."""


class FileContent(msgspec.Struct, frozen=True):
    """One small file: described anew at the moment it was opened, and its content as far as it could be read."""

    entry: Entry
    """``problem`` is set when the content is not (wholly) what the metadata says."""
    content: bytes
    """The bytes of ``runs``, one run after the other."""
    runs: Sequence[Run]


class RangeContent(msgspec.Struct, frozen=True):
    """A piece of a large file."""

    parts: list[bytes]
    """Content of each run that was asked for; shorter or empty where the file has become shorter."""
    problem: str = ""
    shortened_to: int = -1
    """The file's size now, when it has become shorter than it was scanned; else -1."""


class SourceTree(Protocol):
    """A tree that is backed up. All calls block and belong on a worker thread; they may run on several threads at once."""

    def scan(self) -> Iterator[ScanBatch]:
        """Every name, depth first, names within a directory ascending by bytes. One thread at a time.

        What cannot be read is an entry with a ``problem``, never an error, except for the root: ``NotFound``, ``AccessDenied``.
        """

    def read_small(self, entries: Sequence[Entry]) -> list[FileContent]:
        """Content and remaining metadata of regular files of at most SMALL_FILE_BYTES."""

    def describe(self, entry: Entry) -> Entry:
        """A large regular file with ``xattrs`` and ``flags``; with ``problem`` when it cannot be opened."""

    def data_runs(self, entry: Entry, offset: int, limit: int) -> list[Run]:
        """The next runs of data at or after ``offset``, at most ``limit`` of them, none reaching over ``entry.size``."""

    def read_range(self, entry: Entry, runs: Sequence[Run]) -> RangeContent:
        """Content of a large file. The problem says so when the file is not the one that was scanned any more."""

    def close(self) -> None: ...


# --- writing a tree ----------------------------------------------------------------------------------------------------


class SmallFile(msgspec.Struct, frozen=True):
    """A file to be written in one go."""

    entry: Entry
    pieces: list[tuple[int, memoryview]]
    """(file offset, content); what is not covered stays a hole."""


class TargetFile(Protocol):
    """A large file that is being written by several workers."""

    def write(self, pieces: Sequence[tuple[int, memoryview]]) -> None:
        """Write at offsets. Raises ``StorageFull``, ``OSError``."""

    def finish(self) -> list[str]:
        """Set the metadata and close; problems, each a sentence without the path."""


class TargetTree(Protocol):
    """A tree that is restored into. All calls block; they may run on several threads at once.

    Nothing outside of the tree is ever touched: no component of a path is followed when it is a symbolic link. A name that
    exists is replaced, directories are merged.
    """

    def make_directories(self, entries: Sequence[Entry]) -> list[Problem]:
        """Create those that are not there, parents first, accessible to the owner only until ``finish_directories``."""

    def make_parents(self, entries: Sequence[Entry]) -> tuple[list[Entry], list[Problem]]:
        """The same for directories that are only on the way to what is restored; those that had to be created come back.

        Metadata of the others is not the restore's business: they are not passed to ``finish_directories``.
        """

    def write_small(self, files: Sequence[SmallFile]) -> list[Problem]:
        """Create, write, set all metadata, close."""

    def create_large(self, entry: Entry) -> TargetFile:
        """Raises ``RbError`` or ``OSError`` when it cannot be created."""

    def make_special(self, entries: Sequence[Entry]) -> list[Problem]:
        """Symbolic links, pipes, sockets, devices."""

    def make_links(self, entries: Sequence[Entry]) -> list[Problem]:
        """Hard links: ``link_target`` exists in the tree already."""

    def finish_directories(self, entries: Sequence[Entry]) -> list[Problem]:
        """Metadata of directories in which nothing more will be created, deepest first."""

    def close(self) -> list[Problem]:
        """What had to wait for the very end (immutable flags of files with several names)."""


class Trees(Protocol):
    """Opens trees: ``drivers.file_tree`` on the host, ``drivers.simulated.file_tree`` in simulation."""

    def source(self, resource: str, *, one_file_system: bool = False) -> SourceTree:
        """``resource``: an absolute path; when it is a symbolic link, what it points to.

        ``one_file_system``: do not descend into other file systems. Raises ``NotFound``, ``AccessDenied``, ``InvalidRequest``.
        """

    def target(
        self, destination: str, *, numeric_owner: bool = False, root_metadata: bool = False, restore: str = ""
    ) -> TargetTree:
        """``destination``: an absolute path, created with its parents where it is not there.

        ``root_metadata``: set the metadata of the tree's root even when the destination existed and held something.
        ``restore`` names the restore and is the same in each of its attempts: what an interrupted attempt left behind does not make
        the destination one that held something.
        """
