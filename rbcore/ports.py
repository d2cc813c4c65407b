"""Ports: what the deterministic code needs from the world that is not deterministic (DESIGN, law 6).

Interfaces only. ``drivers/`` implements them for the real world, ``drivers/simulated/`` for simulation. A test forbids
``time.time``, ``random``, ``os.urandom``, ``uuid``, ``threading`` and ``open`` outside of drivers, the log store and the
agent's file workers. Sleeping is ``trio.sleep``: trio's own clock is already virtual in tests and simulation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec

if TYPE_CHECKING:
    from rbcore.monitoring import HostCounters

T = TypeVar("T")


class Clock(Protocol):
    """Wall-clock time. May jump backwards; nothing may rely on it being monotonic."""

    def now_ns(self) -> int:
        """Nanoseconds since 1970-01-01 UTC."""


class Randomness(Protocol):
    def token_bytes(self, length: int) -> bytes:
        """``length`` bytes, unpredictable in production and drawn from the seed in simulation."""


class Threads(Protocol):
    """Where blocking or CPU-bound work goes, so that the trio loop is never blocked."""

    async def run(self, work: Callable[[], T]) -> T:
        """Run ``work`` on a worker thread (simulation: at once, in place). Bounded; waits for a free thread.

        Cancellation: not abandoned. The call returns after ``work`` did, so keep pieces of work short (1-8 MiB).
        """


class World(Protocol):
    """The three that nearly every actor needs, in one handle."""

    @property
    def clock(self) -> Clock: ...
    @property
    def randomness(self) -> Randomness: ...
    @property
    def threads(self) -> Threads: ...


class Host(Protocol):
    """The machine that the daemon runs on."""

    def read(self) -> HostCounters:
        """What it counts now. Blocking. Raises ``Unavailable``."""


class VolumeFile(Protocol):
    """An open file of a volume. Blocking calls: use them on a worker thread."""

    def write(self, data: bytes | memoryview) -> None:
        """Append all of ``data``; it may stay in memory, unseen by reads, until ``sync``, and is lost by ``close`` without it.

        Raises ``StorageFull`` when there is no room; part of ``data`` may then stand in the file.
        """

    def read_at(self, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``, fewer only at the end of the file. Raises ``Damaged`` when the device cannot read them."""

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill ``buffer`` from ``offset``; the number of bytes read, fewer only at the end of the file.

        Page-aligned buffers (anonymous ``mmap``) at offsets and lengths that are multiples of 4096 may be filled without a copy.
        Several threads may read at once.
        """

    def size(self) -> int: ...

    def truncate(self, size: int) -> None: ...

    def sync(self) -> None:
        """Return when everything written is on stable storage."""

    def close(self) -> None: ...


class VolumeRoom(msgspec.Struct, frozen=True, kw_only=True):
    """Of the file system that a volume is on."""

    size_bytes: int
    free_bytes: int
    """What this process can still write."""
    file_system: int
    """The same for volumes on one file system, whose room is there once; 0: nobody knows."""


class Volume(Protocol):
    """A directory tree that a storage actor owns. Paths are relative, ``/`` between components, never ``..``; ``""`` is the root.

    Besides what is said below, every call raises ``Unavailable`` when the volume as such fails (not mounted, read only, refused).
    """

    def create(self, path: str) -> VolumeFile:
        """A new empty file; it must not exist (``FileExistsError``: a bug of the caller). Durable after ``sync_directory``."""

    def open(self, path: str, *, writable: bool = False) -> VolumeFile:
        """Raises ``NotFound``."""

    def exists(self, path: str) -> bool: ...

    def list(self, path: str) -> list[str]:
        """Names in a directory, sorted; empty when it does not exist."""

    def size(self, path: str) -> int:
        """Raises ``NotFound``."""

    def make_directory(self, path: str) -> None:
        """With its parents; nothing happens when it is there. Durable after ``sync_directory`` of the parent."""

    def rename(self, source: str, target: str) -> None:
        """Atomic. A file takes the place of ``target``; a directory needs it to be absent. Raises ``NotFound``."""

    def remove(self, path: str) -> int:
        """Remove a file, or a directory with everything in it; the number of bytes that were freed, 0 when not there."""

    def protect(self, path: str, *, on: bool) -> None:
        """Set or lift the immutable attribute of a file: nobody changes, renames or removes it but ``remove`` and ``overwrite``, which lift it. Nothing
        happens when it is as it should be. Raises ``NotFound``, and ``Refused`` where the file system or the rights of the program do not allow it."""

    def overwrite(self, path: str) -> Iterator[None]:
        """Write zeros over all of a file, in place. Yields after each piece of at most 8 MiB; when it ends they are on stable storage. Raises ``NotFound``."""

    def sync_directory(self, path: str) -> None:
        """Make creations, renames and removals in the directory durable."""

    def free_bytes(self) -> int: ...

    def room(self) -> VolumeRoom: ...
