"""Comparing two trees by every byte and every attribute, independently of the code that backs up and restores.

``describe`` walks a tree and writes down what it finds; ``differences`` compares two descriptions. Left out are only inode numbers,
change times (``ctime``) and access times, which no program can restore, and the sizes of directories, which
belong to the file system. Hard links are compared as sets of names. Owners are compared unless the caller says that nobody here could
have restored them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3

READ_BYTES = 1024 * 1024
SPARSE_SLACK_BYTES = 1024 * 1024
"""A restored file may occupy this much more than its source (preallocation, other block sizes) and still count as sparse."""
FS_IOC_GETFLAGS = 0x80086601
RESTORABLE_FLAGS = 0x10 | 0x20 | 0x40
"""Immutable, append-only, nodump."""


@dataclass(frozen=True, slots=True)
class Described:
    """One name, as found."""

    kind: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int
    digest: str
    """BLAKE3 of the content (files)."""
    target: bytes
    """Of a symlink."""
    rdev: int
    xattrs: tuple[tuple[str, bytes], ...]
    flags: int
    same_as: bytes
    """The first name (by bytes) of the same file; its own name when it has no other within the tree."""
    allocated: int
    ctime_ns: int
    """Not compared: tells whether a source changed meanwhile."""


@dataclass(slots=True)
class Description:
    """A tree: names relative to its root (``b""`` is the root itself)."""

    entries: dict[bytes, Described] = field(default_factory=dict)
    unreadable: set[bytes] = field(default_factory=set)
    """Files and directories whose content this user may not read: nobody can compare it, nor could it be backed up by him."""

    @property
    def content_bytes(self) -> int:
        """Bytes of file content, each file once, holes left out."""
        files = (one for name, one in self.entries.items() if one.kind == "file" and one.same_as == name)
        return sum(min(one.size, one.allocated) for one in files)


@dataclass(frozen=True, slots=True)
class Difference:
    path: bytes
    what: str

    def __str__(self) -> str:
        return f"{self.path.decode('utf-8', 'backslashreplace') or '.'}: {self.what}"


_KINDS = {
    stat.S_IFDIR: "directory",
    stat.S_IFREG: "file",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


def describe(root: Path | bytes) -> Description:
    """Walk ``root`` without following symlinks. Does not write anything, access times aside."""
    top = os.fsencode(root)
    found = Description()
    first_names: dict[tuple[int, int], bytes] = {}
    for name in sorted(_names(top, found.unreadable)):
        path = os.path.join(top, name) if name else top
        info = os.lstat(path)
        identity = (info.st_dev, info.st_ino)
        same_as = first_names.setdefault(identity, name) if not stat.S_ISDIR(info.st_mode) else name
        if same_as != name:
            known = found.entries[same_as]
            found.entries[name] = _again(known, same_as)
        else:
            found.entries[name] = _look(path, name, info, found.unreadable)
    return found


def differences(wanted: Description, found: Description, *, owners: bool = True) -> Iterator[Difference]:
    """What differs, in order of names. What could not be read when ``wanted`` was described is left out."""
    for path in sorted(wanted.entries.keys() | found.entries.keys()):
        if path in wanted.unreadable:
            continue
        a, b = wanted.entries.get(path), found.entries.get(path)
        if a is None:
            yield Difference(path, "is there but was not in the source")
        elif b is None:
            yield Difference(path, f"is missing ({a.kind})")
        else:
            yield from (Difference(path, what) for what in _differing(a, b, owners))


def _differing(a: Described, b: Described, owners: bool) -> Iterator[str]:
    if a.kind != b.kind:
        yield f"is a {b.kind}, was a {a.kind}"
        return
    names = ["mode", "mtime_ns", "size", "digest", "target", "rdev", "flags", "same_as"]
    names += ["uid", "gid"] if owners else []
    for name in names:
        if getattr(a, name) != getattr(b, name):
            shown = oct if name == "mode" else repr
            yield f"{name} is {shown(getattr(b, name))}, was {shown(getattr(a, name))}"
    if a.xattrs != b.xattrs:
        yield f"extended attributes are {b.xattrs!r}, were {a.xattrs!r}"
    sparse = a.kind == "file" and a.allocated < a.size
    if sparse and b.allocated > a.allocated + SPARSE_SLACK_BYTES:
        yield f"occupies {b.allocated} bytes, {a.allocated} in the source: its holes were filled"


def _names(top: bytes, unreadable: set[bytes]) -> Iterator[bytes]:
    yield b""
    waiting = [b""]
    while waiting:
        below = waiting.pop()
        try:
            listing = os.scandir(os.path.join(top, below) if below else top)
        except PermissionError:
            unreadable.add(below)
            continue
        with listing:
            for one in listing:
                name = below + b"/" + one.name if below else one.name
                yield name
                if one.is_dir(follow_symlinks=False):
                    waiting.append(name)


def _look(path: bytes, name: bytes, info: os.stat_result, unreadable: set[bytes]) -> Described:
    kind = _KINDS[stat.S_IFMT(info.st_mode)]
    digest, flags = "", 0
    try:
        if kind == "file":
            digest, flags = _content(path)
        elif kind == "directory":
            flags = _flags_of_directory(path)
    except PermissionError:
        unreadable.add(name)
    return Described(
        kind=kind,
        mode=stat.S_IMODE(info.st_mode) if kind != "symlink" else 0,
        uid=info.st_uid,
        gid=info.st_gid,
        mtime_ns=info.st_mtime_ns,
        size=info.st_size if kind == "file" else 0,
        digest=digest,
        target=os.readlink(path) if kind == "symlink" else b"",
        rdev=info.st_rdev if kind in ("character device", "block device") else 0,
        xattrs=_xattrs(path),
        flags=flags,
        same_as=name,
        allocated=info.st_blocks * 512,
        ctime_ns=info.st_ctime_ns,
    )


def _again(known: Described, first: bytes) -> Described:
    """Another name of a file that was looked at: everything is the same but where it points."""
    fields = {name: getattr(known, name) for name in Described.__slots__}
    return Described(**{**fields, "same_as": first})


def _content(path: bytes) -> tuple[str, int]:
    hasher = blake3()
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        while piece := os.read(descriptor, READ_BYTES):
            hasher.update(piece)
        return hasher.hexdigest(), _flags(descriptor)
    finally:
        os.close(descriptor)


def _flags_of_directory(path: bytes) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return _flags(descriptor)
    finally:
        os.close(descriptor)


def _flags(descriptor: int) -> int:
    try:
        raw = fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, b"\0" * 8)
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            return 0  # this file system has no inode flags
        raise
    return int(struct.unpack("@l", raw)[0]) & RESTORABLE_FLAGS


def _xattrs(path: bytes) -> tuple[tuple[str, bytes], ...]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
        return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(names))
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENOSYS):
            return ()  # this file system has none
        raise
