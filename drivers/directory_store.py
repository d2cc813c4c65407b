"""Archives in a directory: ``ArchiveStore`` on a ``Volume``. Layout and order of writes: ``docs/format.md``, "Catalog".

What is visible under its final name is whole and durable. What is not finished is called ``<name>.partial`` and can be gone
on with; what is being removed is called ``<name>.removing`` and can only be removed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Set
from itertools import count
from typing import Final

from drivers.archive_reader import DirectoryReader
from drivers.archive_writer import PARTIAL_SUFFIX, DirectoryWriter
from drivers.stored_index import INDEX_NAME
from drivers.verification import Verification
from rbcore.archive.container import CONTAINER_BYTES_MAX, container_number
from rbcore.archive.manifest import is_archive_name
from rbcore.archive.store import VerificationReport
from rbcore.errors import Damaged, NotFound, ProtocolViolation, Refused, Unavailable
from rbcore.ports import Volume, VolumeRoom

MARKER_NAME: Final = "rbmedia-catalog"
REMOVING_SUFFIX: Final = ".removing"
_FAN_OUT: Final = re.compile(r"[0-9a-f]{2}")


def initialise_catalog(volume: Volume, catalog: str) -> None:
    """Mark the volume as the catalog of this name; nothing happens when it is. Raises ``Refused`` when it is another's."""
    found = _marker(volume)
    if found is None:
        text = f"rbmedia catalog, format 1\n{catalog}\n".encode()
        unfinished = MARKER_NAME + ".new"
        volume.remove(unfinished)
        file = volume.create(unfinished)
        try:
            file.write(text)
            file.sync()
        finally:
            file.close()
        volume.rename(unfinished, MARKER_NAME)
    elif found != catalog:
        raise Refused(
            f"{volume} belongs to the catalog {found!r}, not to {catalog!r}: give this catalog a directory of its own"
        )
    volume.sync_directory("")


def _marker(volume: Volume) -> str | None:
    """The name in the marker file; None when there is none. Raises ``Damaged``."""
    try:
        file = volume.open(MARKER_NAME)
    except NotFound:
        return None
    try:
        raw = file.read_at(0, 4096)
    finally:
        file.close()
    try:
        head, name, rest = raw.decode().split("\n")
    except ValueError:
        head, name, rest = "", "", "?"
    if head != "rbmedia catalog, format 1" or rest:
        raise Damaged(f"{MARKER_NAME} of {volume} is not a marker that this program knows")
    return name


class DirectoryStore:
    """``ArchiveStore``. Every call first looks for the catalog's marker, so that an unmounted file system is not an empty pool."""

    def __init__(self, volume: Volume, catalog: str, *, container_bytes_max: int = CONTAINER_BYTES_MAX) -> None:
        self._volume = volume
        self._catalog = catalog
        self._container_bytes_max = container_bytes_max

    def check(self) -> None:
        """Raises ``Unavailable`` unless the catalog is there and is the right one."""
        found = _marker(self._volume)
        if found != self._catalog:
            what = "has no marker" if found is None else f"is the catalog {found!r}"
            raise Unavailable(f"{self._volume} {what}, wanted is {self._catalog!r}: is the right file system mounted?")

    def room(self) -> VolumeRoom:
        self.check()
        return self._volume.room()

    def archives(self) -> list[str]:
        return [name for _, name in self._entries() if is_archive_name(name)]

    def unfinished(self) -> list[str]:
        names = (name.removesuffix(PARTIAL_SUFFIX) for _, name in self._entries() if name.endswith(PARTIAL_SUFFIX))
        return [name for name in names if is_archive_name(name)]

    def open_writer(self, archive: str) -> DirectoryWriter:
        """A new archive, or the unfinished one of that name.

        A finished one is made unfinished again: its ``finish`` was not followed by the event that makes a backup of it, or the
        caller would not ask (law 4). A trailer at the end is dropped: whoever goes on writes a new one.
        """
        self.check()
        path = _path(archive)
        partial = path + PARTIAL_SUFFIX
        if self._volume.exists(path):
            if self._volume.exists(partial):
                raise Damaged(f"archive {archive} is there twice, finished and unfinished")
            self._volume.rename(path, partial)
        self._volume.make_directory(partial)
        # Also when it was there: whoever made it may have been killed before this.
        self._volume.sync_directory("")
        self._volume.sync_directory(archive[:2])
        return DirectoryWriter(self._volume, archive, path, container_bytes_max=self._container_bytes_max)

    def open_reader(self, archive: str) -> DirectoryReader:
        self.check()
        self._must_exist(archive)
        return DirectoryReader(self._volume, archive, _path(archive))

    def verify(
        self, archive: str, progress: Callable[[int], None] | None = None
    ) -> Iterator[VerificationReport | None]:
        """``progress`` is told the bytes read so far."""
        self.check()
        self._must_exist(archive)
        yield from Verification(self._volume, _path(archive), bytes.fromhex(archive)).run(progress)

    def remove(self, archive: str) -> int:
        """The directory is renamed, durably, before its files go, so that no crash leaves half an archive under its name."""
        self.check()
        path = _path(archive)
        if not self._volume.exists(archive[:2]):
            return 0
        freed = self._take_away(path + REMOVING_SUFFIX)
        for there in (path, path + PARTIAL_SUFFIX):
            if self._volume.exists(there):
                self._volume.rename(there, path + REMOVING_SUFFIX)
                freed += self._take_away(path + REMOVING_SUFFIX)
        return freed

    def erase(self, archive: str) -> Iterator[int]:
        """All directories get names of what is being removed before the first byte is overwritten, so that no crash leaves a spoilt archive under
        its name. Each file goes as soon as it is overwritten: a repeat goes on with the others."""
        self.check()
        path, fan_out = _path(archive), archive[:2]
        if not self._volume.exists(fan_out):
            return
        going = [f"{fan_out}/{one}" for one in self._volume.list(fan_out) if one.startswith(archive + REMOVING_SUFFIX)]
        for there in (path, path + PARTIAL_SUFFIX):
            if self._volume.exists(there):
                free = next(one for one in _names_of_removal(path) if one not in going)
                self._volume.rename(there, free)
                going.append(free)
        self._volume.sync_directory(fan_out)
        freed = 0
        yield freed
        for directory in going:
            for name in self._volume.list(directory):
                try:
                    for _ in self._volume.overwrite(f"{directory}/{name}"):
                        yield freed
                except NotFound:
                    continue
                freed += self._volume.remove(f"{directory}/{name}")
            freed += self._take_away(directory)
        yield freed

    def protect(self, archive: str, *, on: bool) -> None:
        """The index is left out: it follows from the containers, and is made anew when it is damaged."""
        self.check()
        self._must_exist(archive)
        for name in self._volume.list(_path(archive)):
            if container_number(name) is not None:
                self._volume.protect(f"{_path(archive)}/{name}", on=on)

    def leftovers(self) -> list[str]:
        names = (name.partition(REMOVING_SUFFIX)[0] for _, name in self._entries() if REMOVING_SUFFIX in name)
        return sorted({name for name in names if is_archive_name(name)})

    def sweep(self, keep: Set[str], erased: Set[str] = frozenset()) -> list[tuple[str, int]]:
        """Only the fan-out directories are ours to sweep: the root of a file system also has its ``lost+found``."""
        removed: list[tuple[str, int]] = []
        for fan_out, name in list(self._entries()):
            path = f"{fan_out}/{name}"
            archive = name.removesuffix(PARTIAL_SUFFIX)
            if archive in keep and is_archive_name(archive) and archive[:2] == fan_out:
                inner = [f"{path}/{one}" for one in self._volume.list(path) if not _belongs(one)]
                removed += [(stray, self._volume.remove(stray)) for stray in inner]
            elif is_archive_name(archive):
                removing = f"{fan_out}/{archive}{REMOVING_SUFFIX}"
                freed = self._take_away(removing)
                self._volume.rename(path, removing)
                removed.append((path, freed + self._take_away(removing)))
            elif name.partition(REMOVING_SUFFIX)[0] not in erased:
                removed.append((path, self._take_away(path)))
        return removed

    def _take_away(self, path: str) -> int:
        """Remove what is under no archive's name (any more), once that is durable; and the removal is durable, too."""
        fan_out = path[: path.index("/")]
        self._volume.sync_directory(fan_out)
        freed = self._volume.remove(path)
        self._volume.sync_directory(fan_out)
        return freed

    def _entries(self) -> Iterator[tuple[str, str]]:
        self.check()
        for fan_out in self._volume.list(""):
            if _FAN_OUT.fullmatch(fan_out):
                for name in self._volume.list(fan_out):
                    yield fan_out, name

    def _must_exist(self, archive: str) -> None:
        if not is_archive_name(archive) or not self._volume.exists(_path(archive)):
            raise NotFound(f"archive {archive[:64]!r} is not in the catalog {self._catalog!r}")


def _names_of_removal(path: str) -> Iterator[str]:
    """``<archive>.removing``, ``<archive>.removing.1``, ..."""
    yield path + REMOVING_SUFFIX
    yield from (f"{path}{REMOVING_SUFFIX}.{number}" for number in count(1))


def _belongs(name: str) -> bool:
    return container_number(name) is not None or name == INDEX_NAME


def _path(archive: str) -> str:
    if not is_archive_name(archive):
        raise ProtocolViolation(f"{archive[:64]!r} is not the name of an archive")
    return f"{archive[:2]}/{archive}"
