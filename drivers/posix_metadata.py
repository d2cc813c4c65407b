"""Metadata of POSIX names that ``os.stat`` does not tell: owner names, extended attributes, inode flags; and safe walking.

Shared by the reading side (``posix_source``) and the writing side (``posix_target``) of file trees.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import pwd
import stat
import struct
from types import TracebackType
from typing import Final

from rbcore.archive.model import EntryType

FLAGS_RESTORABLE: Final = 0x10 | 0x20 | 0x40 | 0x80 | 0x08 | 0x10000
"""immutable, append-only, nodump, noatime, sync, dirsync: what ``chattr`` sets and what says nothing of the disk's layout."""
FLAGS_FORBIDDING: Final = 0x10 | 0x20
"""immutable, append-only: once set, nothing more can be done to the name."""

_FS_IOC_GETFLAGS: Final = 0x80086601
_FS_IOC_SETFLAGS: Final = 0x40086602
_NO_FLAGS: Final = frozenset({errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})
_NO_XATTRS: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS})

DIRECTORY_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_TYPES: Final = {
    stat.S_IFDIR: EntryType.DIRECTORY,
    stat.S_IFREG: EntryType.FILE,
    stat.S_IFLNK: EntryType.SYMLINK,
    stat.S_IFIFO: EntryType.FIFO,
    stat.S_IFSOCK: EntryType.SOCKET,
    stat.S_IFCHR: EntryType.CHARACTER_DEVICE,
    stat.S_IFBLK: EntryType.BLOCK_DEVICE,
}


def entry_type(mode: int) -> EntryType:
    """Type of a name by its ``st_mode``."""
    return _TYPES[stat.S_IFMT(mode)]


class OwnerNames:
    """Names of user and group numbers, and back; each looked up once (a name service may be a network away)."""

    def __init__(self) -> None:
        self._users: dict[int, str] = {}
        self._groups: dict[int, str] = {}
        self._uids: dict[str, int | None] = {"": None}
        self._gids: dict[str, int | None] = {"": None}

    def user(self, uid: int) -> str:
        """Empty when the number has no name here."""
        name = self._users.get(uid)
        if name is None:
            try:
                name = pwd.getpwuid(uid).pw_name
            except KeyError:
                name = ""
            self._users[uid] = name
        return name

    def group(self, gid: int) -> str:
        name = self._groups.get(gid)
        if name is None:
            try:
                name = grp.getgrgid(gid).gr_name
            except KeyError:
                name = ""
            self._groups[gid] = name
        return name

    def uid(self, name: str, otherwise: int) -> int:
        """The number that ``name`` has on this host; ``otherwise`` when it has none."""
        if name not in self._uids:
            try:
                self._uids[name] = pwd.getpwnam(name).pw_uid
            except KeyError:
                self._uids[name] = None
        found = self._uids[name]
        return otherwise if found is None else found

    def gid(self, name: str, otherwise: int) -> int:
        if name not in self._gids:
            try:
                self._gids[name] = grp.getgrnam(name).gr_gid
            except KeyError:
                self._gids[name] = None
        found = self._gids[name]
        return otherwise if found is None else found


def read_xattrs(target: int | bytes) -> dict[bytes, bytes]:
    """All extended attributes of an open file, or of the name itself (never of what a symbolic link points to).

    Empty where the file system has none. An attribute that vanishes meanwhile is left out. Raises ``OSError``.
    """
    followed = isinstance(target, int)
    try:
        names = os.listxattr(target, follow_symlinks=followed)
    except OSError as error:
        if error.errno in _NO_XATTRS:
            return {}
        raise
    if not names:
        return {}
    found: dict[bytes, bytes] = {}
    for name in names:
        try:
            found[os.fsencode(name)] = os.getxattr(target, name, follow_symlinks=followed)
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise
    return found


def read_flags(descriptor: int) -> int:
    """Inode flags that a restore may set; 0 where the file system has none."""
    try:
        answer = fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, b"\0" * 8)
    except OSError as error:
        if error.errno in _NO_FLAGS:
            return 0
        raise
    flags: int = struct.unpack_from("=I", answer)[0]
    return flags & FLAGS_RESTORABLE


def write_flags(descriptor: int, flags: int) -> None:
    """Set the restorable flags to ``flags``, leave the others. Raises ``OSError``."""
    present = struct.unpack_from("=I", fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, b"\0" * 8))[0]
    wanted = (present & ~FLAGS_RESTORABLE) | (flags & FLAGS_RESTORABLE)
    if wanted != present:
        fcntl.ioctl(descriptor, _FS_IOC_SETFLAGS, struct.pack("=Ixxxx", wanted))


def reason(error: OSError) -> str:
    """The system's words for an error, without the path."""
    return os.strerror(error.errno) if error.errno else str(error)


class DirectoryCursor:
    """Opens directories below a root one component at a time, so that no symbolic link is ever followed.

    Also the way to reach paths longer than PATH_MAX. The last directory stays open, for names mostly come directory by directory;
    its child is one step, any other a walk from the root (about 1.5 us a component).
    """

    __slots__ = ("_fd", "_path", "_root_fd")

    def __init__(self, root_fd: int) -> None:
        self._root_fd = root_fd
        self._fd = -1
        self._path = b""

    def open(self, path: bytes) -> int:
        """A descriptor that is good until the next call. Raises ``OSError`` (ELOOP or ENOTDIR where a symbolic link stands)."""
        if not path:
            return self._root_fd
        if self._fd >= 0:
            if path == self._path:
                return self._fd
            if path.startswith(self._path + b"/"):
                start, rest = self._fd, path[len(self._path) + 1 :]
            else:
                start, rest = self._root_fd, path
        else:
            start, rest = self._root_fd, path
        current = start
        try:
            for name in rest.split(b"/"):
                following = os.open(name, DIRECTORY_OPEN, dir_fd=current)
                if current != start:
                    os.close(current)
                current = following
        except OSError:
            if current != start:
                os.close(current)
            raise
        self.close()
        self._fd, self._path = current, path
        return current

    def open_parent(self, path: bytes) -> tuple[int, bytes]:
        """The directory in which ``path`` stands, and its last component."""
        parent, _, name = path.rpartition(b"/")
        return self.open(parent), name

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> DirectoryCursor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def close_quietly(descriptor: int) -> None:
    """Close what was only read or has been dealt with: an error of ``close`` says nothing that matters any more."""
    with contextlib.suppress(OSError):
        os.close(descriptor)
