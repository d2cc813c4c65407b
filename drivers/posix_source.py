"""Reading a real POSIX tree for a backup (``rbcore.file_tree.SourceTree``).

The tree is alive while it is read: names vanish, files grow, directories are swapped for symbolic links. Every name is opened
relative to its directory and never through a link, what changed is said in the entry's ``problem``, and nothing of it ends
the scan. Access times are left alone where the kernel lets us (O_NOATIME).

File systems that the kernel makes up (proc, sysfs, devtmpfs, ...) are never entered: their directories are recorded as empty.
Others are crossed into unless ``one_file_system`` is asked for.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from typing import Final

from drivers.link_table import LinkTable
from drivers.posix_metadata import (
    DIRECTORY_OPEN,
    DirectoryCursor,
    OwnerNames,
    close_quietly,
    entry_type,
    read_flags,
    read_xattrs,
    reason,
)
from rbcore.archive.model import Entry, EntryType
from rbcore.errors import AccessDenied, NotFound
from rbcore.file_tree import SMALL_FILE_BYTES, FileContent, RangeContent, Run, ScanBatch

BATCH_ENTRIES: Final = 1000
OPEN_DIRECTORIES_MAX: Final = 48
"""Levels of the tree that the scan keeps open; deeper trees reopen on the way back."""

PSEUDO_FILE_SYSTEMS: Final = frozenset(
    [
        "autofs",
        "binfmt_misc",
        "bpf",
        "cgroup",
        "cgroup2",
        "configfs",
        "debugfs",
        "devpts",
        "devtmpfs",
        "efivarfs",
        "fusectl",
        "hugetlbfs",
        "mqueue",
        "nsfs",
        "proc",
        "pstore",
        "rpc_pipefs",
        "securityfs",
        "selinuxfs",
        "sysfs",
        "tracefs",
    ]
)

_READ_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_PIECE_BYTES: Final = 1024 * 1024


class _Level:
    """A directory that the scan is in."""

    __slots__ = ("device", "fd", "names", "path", "position")

    def __init__(self, path: bytes, device: int, fd: int, names: list[bytes]) -> None:
        self.path = path
        self.device = device
        self.fd = fd
        self.names = names
        self.position = 0


class PosixSource:
    """One tree. See the module's header, and the port for the contract."""

    def __init__(self, root: bytes, *, one_file_system: bool = False, links: LinkTable | None = None) -> None:
        """Raises ``NotFound``, ``AccessDenied``."""
        self._one_file_system = one_file_system
        self._owners = OwnerNames()
        self._links = LinkTable() if links is None else links
        self._pseudo_devices: dict[int, bool] = {}
        try:
            kind = os.stat(root).st_mode
            self._root_name = b""
            if not stat.S_ISDIR(kind):
                root, self._root_name = os.path.split(os.path.realpath(root))
            self._root_fd = _open(root, None, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise NotFound(f"{os.fsdecode(root)} does not exist on the client") from error
        except OSError as error:
            raise AccessDenied(f"{os.fsdecode(root)} cannot be opened on the client: {reason(error)}") from error

    def close(self) -> None:
        close_quietly(self._root_fd)
        self._links.close()

    # --- scanning ---------------------------------------------------------------------------------------------------

    def scan(self) -> Iterator[ScanBatch]:
        entries: list[Entry] = []
        sparse: set[int] = set()
        levels: list[_Level] = []
        try:
            self._begin(entries, sparse, levels)
            while levels:
                level = levels[-1]
                if level.position == len(level.names):
                    levels.pop()
                    close_quietly(level.fd)
                    continue
                if level.fd < 0 and not self._reopen(level):
                    level.position = len(level.names)
                    continue
                self._visit(level, entries, sparse, levels)
                if len(entries) >= BATCH_ENTRIES:
                    yield ScanBatch(entries, frozenset(sparse))
                    entries, sparse = [], set()
            if entries:
                yield ScanBatch(entries, frozenset(sparse))
        finally:
            for level in levels:
                close_quietly(level.fd)

    def _begin(self, entries: list[Entry], sparse: set[int], levels: list[_Level]) -> None:
        if self._root_name:
            single = _Level(b"", os.fstat(self._root_fd).st_dev, self._root_fd, [self._root_name])
            self._visit(single, entries, sparse, levels, path=b"")
        else:
            fd = os.dup(self._root_fd)
            self._enter(b"", fd, os.fstat(fd).st_dev, entries, levels)

    def _visit(
        self,
        level: _Level,
        entries: list[Entry],
        sparse: set[int],
        levels: list[_Level],
        path: bytes | None = None,
    ) -> None:
        """The next name of ``level``: describe it, enter it when it is a directory."""
        name = level.names[level.position]
        level.position += 1
        if path is None:
            path = level.path + b"/" + name if level.path else name
        try:
            status = os.stat(name, dir_fd=level.fd, follow_symlinks=False)
        except FileNotFoundError:
            return  # it went between listing and looking: as if the scan had come a moment later
        except OSError as error:
            entries.append(_unknown(path, f"cannot be examined: {reason(error)}"))
            return
        mode = status.st_mode
        if stat.S_ISDIR(mode):
            self._visit_directory(level, name, path, status, entries, levels)
            return
        if status.st_nlink > 1:
            first = self._links.first_path(status.st_dev, status.st_ino, status.st_nlink, path)
            if first is not None:
                entries.append(self._entry(path, EntryType.HARDLINK, status, first))
                return
        if stat.S_ISREG(mode):
            if status.st_blocks * 512 < status.st_size:
                sparse.add(len(entries))
            entries.append(self._entry(path, EntryType.FILE, status))
        else:
            entries.append(self._special(level, name, path, status))

    def _visit_directory(
        self,
        level: _Level,
        name: bytes,
        path: bytes,
        status: os.stat_result,
        entries: list[Entry],
        levels: list[_Level],
    ) -> None:
        try:
            fd = _open(name, level.fd, DIRECTORY_OPEN)
        except OSError as error:
            entries.append(self._entry(path, EntryType.DIRECTORY, status, problem=f"cannot be opened: {reason(error)}"))
            return
        open_levels = [above for above in levels if above.fd >= 0]
        if len(open_levels) >= OPEN_DIRECTORIES_MAX:
            close_quietly(open_levels[0].fd)
            open_levels[0].fd = -1
        self._enter(path, fd, level.device, entries, levels)

    def _enter(self, path: bytes, fd: int, parent_device: int, entries: list[Entry], levels: list[_Level]) -> None:
        """Describe the open directory and go down into it, unless it is on a file system that is left out."""
        names: list[bytes] = []
        xattrs: dict[bytes, bytes] = {}
        flags = 0
        problem = ""
        status = os.fstat(fd)
        try:
            xattrs = read_xattrs(fd)
            flags = read_flags(fd)
            if path == b"" or status.st_dev == parent_device or self._crosses(status.st_dev):
                names = sorted(map(os.fsencode, os.listdir(fd)))
        except OSError as error:
            problem = f"cannot be read: {reason(error)}"
        entries.append(self._entry(path, EntryType.DIRECTORY, status, xattrs=xattrs, flags=flags, problem=problem))
        if names:
            levels.append(_Level(path, status.st_dev, fd, names))
        else:
            close_quietly(fd)

    def _reopen(self, level: _Level) -> bool:
        """Open a directory again that was closed because too many were open; False when it has gone."""
        with DirectoryCursor(self._root_fd) as cursor:
            try:
                level.fd = os.dup(cursor.open(level.path))
            except OSError:
                return False
        return True

    def _crosses(self, device: int) -> bool:
        """Whether a scan goes into the file system ``device`` from another one."""
        if self._one_file_system:
            return False
        if device not in self._pseudo_devices:
            self._pseudo_devices |= _mounted_pseudo_file_systems()
        return not self._pseudo_devices.setdefault(device, False)

    def _special(self, level: _Level, name: bytes, path: bytes, status: os.stat_result) -> Entry:
        """A symbolic link, pipe, socket or device."""
        kind = entry_type(status.st_mode)
        target = b""
        xattrs: dict[bytes, bytes] = {}
        problem = ""
        try:
            if kind is EntryType.SYMLINK:
                target = os.readlink(name, dir_fd=level.fd)
            xattrs = read_xattrs(b"/proc/self/fd/%d/%b" % (level.fd, name))
        except OSError as error:
            problem = f"cannot be read: {reason(error)}"
            if kind is EntryType.SYMLINK and not target:
                return _unknown(path, problem)
        rdev = status.st_rdev if kind in (EntryType.CHARACTER_DEVICE, EntryType.BLOCK_DEVICE) else 0
        return self._entry(path, kind, status, target, rdev, xattrs, problem)

    def _entry(
        self,
        path: bytes,
        kind: EntryType,
        status: os.stat_result,
        link_target: bytes = b"",
        rdev: int = 0,
        xattrs: dict[bytes, bytes] | None = None,
        problem: str = "",
        flags: int = 0,
        size: int | None = None,
    ) -> Entry:
        uid, gid = status.st_uid, status.st_gid
        return Entry(
            path,
            kind,
            status.st_mode & 0o7777,
            uid,
            gid,
            self._owners.user(uid),
            self._owners.group(gid),
            status.st_mtime_ns,
            status.st_ctime_ns,
            (status.st_size if kind is EntryType.FILE else 0) if size is None else size,
            status.st_dev,
            status.st_ino,
            status.st_nlink,
            [],
            link_target,
            rdev,
            xattrs or {},
            problem,
            status.st_atime_ns,
            flags,
        )

    # --- content ----------------------------------------------------------------------------------------------------

    def read_small(self, entries: Sequence[Entry]) -> list[FileContent]:
        with DirectoryCursor(self._root_fd) as cursor:
            return [self._read_small(cursor, entry) for entry in entries]

    def _read_small(self, cursor: DirectoryCursor, entry: Entry) -> FileContent:
        try:
            fd = self._open_file(cursor, entry)
        except OSError as error:
            return FileContent(_troubled(entry, _open_problem(error)), b"", ())
        try:
            before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode):
                return FileContent(_troubled(entry, "was replaced by something that is not a regular file"), b"", ())
            wanted = before.st_size if before.st_size <= SMALL_FILE_BYTES else entry.size
            problem = ""
            runs: Sequence[Run]
            try:
                if before.st_blocks * 512 < wanted:
                    runs = _data_runs(fd, 0, wanted, SMALL_FILE_BYTES)
                    content = b"".join(_pread(fd, offset, length) for offset, length in runs)
                    short = len(content) < sum(length for _, length in runs)
                else:
                    content = _pread(fd, 0, wanted)
                    runs = ((0, len(content)),) if content else ()
                    short = len(content) < wanted
                after = os.fstat(fd)
                if short or after.st_size != wanted or after.st_mtime_ns != before.st_mtime_ns:
                    problem = f"changed while it was read: size {before.st_size}, then {after.st_size}"
                    if short:
                        runs, content, wanted = _as_read(runs, content)
                xattrs = read_xattrs(fd)
                flags = read_flags(fd)
            except OSError as error:
                return FileContent(_troubled(entry, f"cannot be read: {reason(error)}"), b"", ())
            described = self._entry(
                entry.path, EntryType.FILE, before, xattrs=xattrs, problem=problem, flags=flags, size=wanted
            )
            return FileContent(described, content, runs)
        finally:
            os.close(fd)

    def describe(self, entry: Entry) -> Entry:
        with DirectoryCursor(self._root_fd) as cursor:
            try:
                fd = self._open_file(cursor, entry)
                try:
                    xattrs, flags = read_xattrs(fd), read_flags(fd)
                    status = os.fstat(fd)
                finally:
                    os.close(fd)
            except OSError as error:
                return _troubled(entry, _open_problem(error))
        return self._entry(entry.path, EntryType.FILE, status, xattrs=xattrs, flags=flags, size=entry.size)

    def data_runs(self, entry: Entry, offset: int, limit: int) -> list[Run]:
        with DirectoryCursor(self._root_fd) as cursor:
            try:
                fd = self._open_file(cursor, entry)
                try:
                    return _data_runs(fd, offset, entry.size, limit)
                finally:
                    os.close(fd)
            except OSError:
                # Reading it will meet the same error and say so with the entry.
                return [(offset, entry.size - offset)]

    def read_range(self, entry: Entry, runs: Sequence[Run]) -> RangeContent:
        with DirectoryCursor(self._root_fd) as cursor:
            try:
                fd = self._open_file(cursor, entry)
            except OSError as error:
                return RangeContent([b""] * len(runs), _open_problem(error))
        try:
            start, end = runs[0][0], runs[-1][0] + runs[-1][1]
            os.posix_fadvise(fd, start, end - start, os.POSIX_FADV_WILLNEED)
            parts = [_pread(fd, offset, length) for offset, length in runs]
            status = os.fstat(fd)
        except OSError as error:
            return RangeContent([b""] * len(runs), f"cannot be read: {reason(error)}")
        finally:
            os.close(fd)
        problem, shortened_to = "", -1
        if (status.st_ino, status.st_size, status.st_mtime_ns) != (entry.inode, entry.size, entry.mtime_ns):
            problem = f"changed while it was backed up: size {entry.size}, then {status.st_size}"
            if status.st_size < entry.size:
                shortened_to = status.st_size
        return RangeContent(parts, problem, shortened_to)

    def _open_file(self, cursor: DirectoryCursor, entry: Entry) -> int:
        if self._root_name and not entry.path:
            return _open(self._root_name, self._root_fd, _READ_OPEN)
        parent, name = cursor.open_parent(entry.path)
        return _open(name, parent, _READ_OPEN)


def _open(name: bytes, directory: int | None, flags: int) -> int:
    """Open without touching the access time; whoever is neither owner nor privileged may only do it the ordinary way."""
    try:
        return os.open(name, flags | os.O_NOATIME, dir_fd=directory)
    except PermissionError as error:
        if error.errno != errno.EPERM:
            raise
        return os.open(name, flags, dir_fd=directory)


def _pread(fd: int, offset: int, length: int) -> bytes:
    """``length`` bytes from ``offset``, fewer only when the file ends."""
    data = os.pread(fd, length, offset)
    if len(data) == length or not data:
        return data
    parts = [data]
    done = len(data)
    while done < length and (data := os.pread(fd, min(length - done, _PIECE_BYTES), offset + done)):
        parts.append(data)
        done += len(data)
    return b"".join(parts)


def _data_runs(fd: int, offset: int, end: int, limit: int) -> list[Run]:
    """Runs of data between ``offset`` and ``end``, at most ``limit``. Everything, where the file system knows no holes."""
    runs: list[Run] = []
    while offset < end and len(runs) < limit:
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
            stop = min(os.lseek(fd, start, os.SEEK_HOLE), end)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
                runs.append((offset, end - offset))
                break
            raise
        if start >= end:
            break
        runs.append((start, stop - start))
        offset = stop
    return runs


def _as_read(runs: Sequence[Run], content: bytes) -> tuple[list[Run], bytes, int]:
    """What is left of ``runs`` when only ``content`` could be read, because the file became shorter; and the size that makes."""
    kept: list[Run] = []
    left = len(content)
    for offset, length in runs:
        taken = min(length, left)
        if taken:
            kept.append((offset, taken))
        left -= taken
    return kept, content, (kept[-1][0] + kept[-1][1]) if kept else 0


def _troubled(entry: Entry, problem: str) -> Entry:
    """The entry as it was scanned, and why its content is not here."""
    return Entry(
        entry.path, entry.type, entry.mode, entry.uid, entry.gid, entry.owner, entry.group, entry.mtime_ns, entry.ctime_ns,
        entry.size, entry.device, entry.inode, entry.links, problem=problem, atime_ns=entry.atime_ns,
    )  # fmt: skip


def _unknown(path: bytes, problem: str) -> Entry:
    """A name of which nothing could be found out."""
    return Entry(path, EntryType.FILE, 0, 0, 0, "", "", 0, 0, 0, 0, 0, 1, problem=problem)


def _open_problem(error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ESTALE):
        return "vanished before it was read"
    if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
        return "was replaced by something that is not a regular file"
    return f"cannot be opened: {reason(error)}"


def _mounted_pseudo_file_systems() -> dict[int, bool]:
    """Device numbers of everything mounted: whether the kernel makes its content up. Empty when it cannot be told."""
    found: dict[int, bool] = {}
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
            for line in table:
                before, _, after = line.partition(" - ")
                major, _, minor = before.split(" ")[2].partition(":")
                found[os.makedev(int(major), int(minor))] = after.split(" ")[0] in PSEUDO_FILE_SYSTEMS
    except FileNotFoundError:
        return {}
    return found
