"""Writing a tree back to a real POSIX file system (``rbcore.file_tree.TargetTree``).

Runs as root on names that somebody else may be changing meanwhile, so nothing is ever reached by a path that the kernel resolves in one
go: directories are opened component by component with O_NOFOLLOW, files are made with O_CREAT | O_EXCL in an open directory, and
metadata is set on descriptors. A symbolic link that stands (or appears) where a directory should be is an error of the entries
below it, never a way out.

What exists is replaced: a file or link in the way is unlinked first, directories are merged and take the metadata of the backup. A
directory in the way of something else stays, and that is a problem. What cannot be restored (an owner without privilege, an
attribute the file system does not know) is a problem and ends nothing; a full file system raises ``StorageFull``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NoReturn

from drivers.direct_write import DirectWriter
from drivers.posix_metadata import (
    DIRECTORY_OPEN,
    FLAGS_FORBIDDING,
    DirectoryCursor,
    OwnerNames,
    close_quietly,
    read_xattrs,
    reason,
    write_flags,
)
from drivers.volume import Bounces
from rbcore.archive.model import Entry, EntryType
from rbcore.errors import AccessDenied, InvalidRequest, StorageFull
from rbcore.file_tree import Problem, SmallFile

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PATH_OPEN: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_PRIVATE: Final = 0o700
_ACL_PREFIX: Final = b"system.posix_acl_"
_MARK: Final = b"user.rbmedia.restore"
"""On the root of a destination while it is restored into."""
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_DEVICE_TYPES: Final = {
    EntryType.FIFO: stat.S_IFIFO,
    EntryType.SOCKET: stat.S_IFSOCK,
    EntryType.CHARACTER_DEVICE: stat.S_IFCHR,
    EntryType.BLOCK_DEVICE: stat.S_IFBLK,
}

DIRECT_FILE_BYTES_MIN: Final = 1024 * 1024
"""Files of this size and more are written past the page cache: below it a second descriptor costs more than it saves."""

Say = Callable[[str], None]


class PosixTarget:
    """One destination. See the module's header, and the port for the contract."""

    def __init__(
        self, destination: bytes, *, numeric_owner: bool = False, root_metadata: bool = False, restore: str = ""
    ) -> None:
        """Raises ``AccessDenied`` when the destination cannot be made or opened, ``InvalidRequest`` when it is no directory."""
        self._numeric_owner = numeric_owner
        self._owners = OwnerNames()
        self._late_flags: list[tuple[bytes, int]] = []
        self._open_files: set[_LargeTarget] = set()
        self.bounces = Bounces()
        self._lock = threading.Lock()
        try:
            self._root_metadata = root_metadata or not os.path.lexists(destination)
            os.makedirs(destination, mode=_PRIVATE, exist_ok=True)
            self._root_fd = os.open(destination, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileExistsError, NotADirectoryError) as error:
            raise InvalidRequest(f"{os.fsdecode(destination)} on the client is not a directory.") from error
        except OSError as error:
            raise AccessDenied(f"{os.fsdecode(destination)} cannot be used on the client: {reason(error)}") from error
        with os.scandir(self._root_fd) as names:
            self._merging = next(names, None) is not None
        self._root_metadata = self._root_metadata or not self._merging
        self._mark_root(restore.encode())

    def _mark_root(self, restore: bytes) -> None:
        """Remember on the root itself that its metadata is this restore's to set, for the attempt after an interrupted one.

        A file system without user attributes forgets it: the root then keeps what it has, as in any directory that held something.
        """
        if not restore:
            return
        with contextlib.suppress(OSError):
            if self._root_metadata:
                os.setxattr(self._root_fd, _MARK, restore)
            else:
                self._root_metadata = os.getxattr(self._root_fd, _MARK) == restore

    # --- names ------------------------------------------------------------------------------------------------------

    def make_directories(self, entries: Sequence[Entry]) -> list[Problem]:
        problems: list[Problem] = []
        with DirectoryCursor(self._root_fd) as cursor:
            for entry in entries:
                if entry.path:
                    self._attempt(entry, problems, partial(self._make_directory, cursor, entry))
        return problems

    def _make_directory(self, cursor: DirectoryCursor, entry: Entry) -> None:
        parent, name = cursor.open_parent(entry.path)
        try:
            os.mkdir(name, _PRIVATE, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=parent)
                os.mkdir(name, _PRIVATE, dir_fd=parent)

    def make_parents(self, entries: Sequence[Entry]) -> tuple[list[Entry], list[Problem]]:
        created: list[Entry] = []
        problems: list[Problem] = []
        with DirectoryCursor(self._root_fd) as cursor:
            for entry in entries:
                if not entry.path:
                    continue
                try:
                    cursor.open(entry.path)
                except OSError:
                    before = len(problems)
                    self._attempt(entry, problems, partial(self._make_directory, cursor, entry))
                    if len(problems) == before:
                        created.append(entry)
        return created, problems

    def make_special(self, entries: Sequence[Entry]) -> list[Problem]:
        problems: list[Problem] = []
        with DirectoryCursor(self._root_fd) as cursor:
            for entry in entries:
                self._attempt(entry, problems, partial(self._make_special, cursor, entry, problems))
        return problems

    def _make_special(self, cursor: DirectoryCursor, entry: Entry, problems: list[Problem]) -> None:
        parent, name = cursor.open_parent(entry.path)
        if entry.type is EntryType.SYMLINK:
            _replacing(parent, name, lambda: os.symlink(entry.link_target, name, dir_fd=parent))
        else:
            mode = _DEVICE_TYPES[entry.type] | 0o600
            _replacing(parent, name, lambda: os.mknod(name, mode, entry.rdev, dir_fd=parent))
        fd = os.open(name, _PATH_OPEN, dir_fd=parent)
        try:
            # A descriptor of the name itself: chmod and attributes go through /proc, which cannot be led elsewhere by a rename.
            self._describe(entry, fd, b"/proc/self/fd/%d" % fd, _sayer(problems, entry))
        finally:
            os.close(fd)

    def make_links(self, entries: Sequence[Entry]) -> list[Problem]:
        problems: list[Problem] = []
        with DirectoryCursor(self._root_fd) as sources, DirectoryCursor(self._root_fd) as cursor:
            for entry in entries:
                self._attempt(entry, problems, partial(self._make_link, sources, cursor, entry))
        return problems

    def _make_link(self, sources: DirectoryCursor, cursor: DirectoryCursor, entry: Entry) -> None:
        source, old = sources.open_parent(entry.link_target)
        parent, name = cursor.open_parent(entry.path)
        _replacing(
            parent, name, lambda: os.link(old, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        )

    # --- files ------------------------------------------------------------------------------------------------------

    def write_small(self, files: Sequence[SmallFile]) -> list[Problem]:
        problems: list[Problem] = []
        with DirectoryCursor(self._root_fd) as cursor:
            for file in files:
                self._attempt(file.entry, problems, partial(self._write_small, cursor, file, problems))
        return problems

    def _write_small(self, cursor: DirectoryCursor, file: SmallFile, problems: list[Problem]) -> None:
        entry = file.entry
        fd = self._create(cursor, entry)
        try:
            end = 0
            if entry.size >= DIRECT_FILE_BYTES_MIN:
                writer = DirectWriter(fd, self.bounces)
                try:
                    writer.write(file.pieces)
                finally:
                    writer.close()
                end = os.fstat(fd).st_size
            else:
                for offset, content in file.pieces:
                    _pwrite(fd, content, offset)
                    end = offset + len(content)
            if end != entry.size:
                os.ftruncate(fd, entry.size)
            self._describe(entry, fd, fd, _sayer(problems, entry))
        finally:
            os.close(fd)

    def create_large(self, entry: Entry) -> _LargeTarget:
        with DirectoryCursor(self._root_fd) as cursor:
            try:
                fd = self._create(cursor, entry)
            except OSError as error:
                _raise_full(error, entry)
                raise
        file = _LargeTarget(self, entry, fd)
        with self._lock:
            self._open_files.add(file)
        return file

    def _create(self, cursor: DirectoryCursor, entry: Entry) -> int:
        parent, name = cursor.open_parent(entry.path)
        try:
            return os.open(name, _CREATE, entry.mode & 0o777, dir_fd=parent)
        except FileExistsError:
            os.unlink(name, dir_fd=parent)
            return os.open(name, _CREATE, entry.mode & 0o777, dir_fd=parent)

    # --- metadata ---------------------------------------------------------------------------------------------------

    def finish_directories(self, entries: Sequence[Entry]) -> list[Problem]:
        problems: list[Problem] = []
        with DirectoryCursor(self._root_fd) as cursor:
            for entry in entries:
                if entry.path or self._root_metadata:
                    self._attempt(entry, problems, partial(self._finish_directory, cursor, entry, problems))
        return problems

    def _finish_directory(self, cursor: DirectoryCursor, entry: Entry, problems: list[Problem]) -> None:
        fd = cursor.open(entry.path)
        if not entry.path:
            with contextlib.suppress(OSError):
                os.removexattr(fd, _MARK)
        self._describe(entry, fd, fd, _sayer(problems, entry))

    def _describe(self, entry: Entry, fd: int, target: int | bytes, say: Say) -> None:
        """Set all metadata. ``target``: what chmod and the attribute calls take, ``fd`` or its path when it is an O_PATH descriptor.

        The order matters: chown clears capabilities and setuid, an ACL changes group bits, immutability forbids everything after it.
        """
        status = os.fstat(fd)
        uid, gid = entry.uid, entry.gid
        if not self._numeric_owner:
            uid, gid = self._owners.uid(entry.owner, uid), self._owners.gid(entry.group, gid)
        if (status.st_uid, status.st_gid) != (uid, gid):
            try:
                # An O_PATH descriptor takes no fchown; the /proc path leads to exactly what it refers to.
                os.chown(target, uid, gid)
            except OSError as error:
                say(f"owner {uid}:{gid} was not restored: {reason(error)}")
        if entry.xattrs or self._merging:
            self._set_xattrs(entry, target, say)
        if entry.type is EntryType.SYMLINK:
            _set_times(entry, target, say)
            return
        if os.fstat(fd).st_mode & 0o7777 != entry.mode:
            try:
                os.chmod(target, entry.mode)
            except OSError as error:
                say(f"mode {entry.mode:04o} was not restored: {reason(error)}")
        _set_times(entry, target, say)
        if entry.flags:
            if entry.flags & FLAGS_FORBIDDING and entry.links > 1 and entry.type is EntryType.FILE:
                with self._lock:
                    self._late_flags.append((entry.path, entry.flags))
            else:
                _set_flags(fd, entry.flags, say)

    def _set_xattrs(self, entry: Entry, target: int | bytes, say: Say) -> None:
        """Also removes ACLs that a new name inherited from a directory that was there before."""
        if self._merging:
            try:
                for name in read_xattrs(target):
                    if name.startswith(_ACL_PREFIX) and name not in entry.xattrs:
                        os.removexattr(target, name)
            except OSError as error:
                say(f"inherited access control list was not removed: {reason(error)}")
        for name, value in entry.xattrs.items():
            try:
                os.setxattr(target, name, value)
            except OSError as error:
                say(f"attribute {name.decode('utf-8', 'backslashreplace')} was not restored: {reason(error)}")

    def close(self) -> list[Problem]:
        problems: list[Problem] = []
        with DirectoryCursor(self._root_fd) as cursor:
            for path, flags in self._late_flags:
                try:
                    parent, name = cursor.open_parent(path)
                    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
                    try:
                        write_flags(fd, flags)
                    finally:
                        os.close(fd)
                except OSError as error:
                    problems.append((path, f"inode flags were not restored: {reason(error)}"))
        self._late_flags = []
        for file in list(self._open_files):
            file.abandon()
        close_quietly(self._root_fd)
        return problems

    def _attempt(self, entry: Entry, problems: list[Problem], action: Callable[[], None]) -> None:
        try:
            action()
        except OSError as error:
            _raise_full(error, entry)
            problems.append((entry.path, f"was not restored: {_words(error)}"))

    def forget(self, file: _LargeTarget) -> None:
        """The file has been closed."""
        with self._lock:
            self._open_files.discard(file)

    def describe_large(self, file: _LargeTarget, problems: list[Problem]) -> None:
        """Metadata of a large file whose content is complete."""
        self._describe(file.entry, file.fd, file.fd, _sayer(problems, file.entry))


class _LargeTarget:
    """A large file that several workers write into."""

    def __init__(self, tree: PosixTarget, entry: Entry, fd: int) -> None:
        self.entry = entry
        self.fd = fd
        self._tree = tree
        self._writer = DirectWriter(fd, tree.bounces)

    def write(self, pieces: Sequence[tuple[int, memoryview]]) -> None:
        try:
            self._writer.write(pieces)
        except OSError as error:
            _raise_full(error, self.entry)
            raise

    def finish(self) -> list[str]:
        problems: list[Problem] = []
        try:
            if os.fstat(self.fd).st_size != self.entry.size:
                os.ftruncate(self.fd, self.entry.size)
            self._tree.describe_large(self, problems)
        finally:
            self.abandon()
        return [what for _, what in problems]

    def abandon(self) -> None:
        """Close without metadata."""
        self._writer.close()
        close_quietly(self.fd)
        self._tree.forget(self)


def _replacing(parent: int, name: bytes, make: Callable[[], None]) -> None:
    """Make a name, in the place of what stands there (but for a directory). Raises ``OSError``."""
    try:
        make()
    except FileExistsError:
        os.unlink(name, dir_fd=parent)
        make()


def _pwrite(fd: int, content: memoryview, offset: int) -> None:
    done = os.pwrite(fd, content, offset)
    while done < len(content):
        done += os.pwrite(fd, content[done:], offset + done)


def _set_times(entry: Entry, target: int | bytes, say: Say) -> None:
    try:
        os.utime(target, ns=(entry.atime_ns, entry.mtime_ns))
    except (OSError, OverflowError) as error:
        say(f"times were not restored: {reason(error) if isinstance(error, OSError) else error}")


def _set_flags(fd: int, flags: int, say: Say) -> None:
    try:
        write_flags(fd, flags)
    except OSError as error:
        say(f"inode flags {flags:#x} were not restored: {reason(error)}")


def _sayer(problems: list[Problem], entry: Entry) -> Say:
    return lambda what: problems.append((entry.path, what))


def _words(error: OSError) -> str:
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return "something that is not a directory stands in its path"
    if error.errno == errno.EISDIR:
        return "a directory stands in its place"
    return reason(error)


def _raise_full(error: OSError, entry: Entry) -> None:
    if error.errno in _FULL:
        _raise_storage_full(error, entry)


def _raise_storage_full(error: OSError, entry: Entry) -> NoReturn:
    raise StorageFull(
        f"The file system of the destination is full: {entry.path.decode('utf-8', 'backslashreplace')} was not restored "
        f"({reason(error)}). Make room and restore again."
    ) from error


# ``DIRECTORY_OPEN`` is what makes the promise of the header true.
assert DIRECTORY_OPEN & os.O_NOFOLLOW
