"""Making real trees with everything a file system can hold, and comparing two of them in every byte and attribute."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
from pathlib import Path
from typing import Any

from drivers.posix_metadata import read_flags, read_xattrs

POSIX_ACL = bytes.fromhex(
    "02000000 01000700 ffffffff 02000500 01000000 04000500 ffffffff 10000500 ffffffff 20000000 ffffffff".replace(
        " ", ""
    )
)
"""user::rwx, user:1:r-x, group::r-x, mask::r-x, other::---"""
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
"""cap_net_bind_service? whatever: a version 2 capability with one bit."""

TIME_NS = 1_234_567_890_123_456_789


def describe(root: bytes | str | Path) -> dict[bytes, dict[str, Any]]:
    """Everything there is to say of each name below ``root``, itself included as ``b""``; inode numbers as classes of equals.

    Leaves access times alone, except those of symbolic links, which are not compared.
    """
    base = os.fsencode(root)
    found: dict[bytes, dict[str, Any]] = {}
    links: dict[tuple[int, int], list[bytes]] = {}

    def look(path: bytes, relative: bytes) -> None:
        status = os.lstat(path)
        row: dict[str, Any] = {
            "mode": oct(status.st_mode),
            "uid": status.st_uid,
            "gid": status.st_gid,
            "mtime_ns": status.st_mtime_ns,
            "xattrs": read_xattrs(path),
        }
        if stat.S_ISREG(status.st_mode):
            fd = os.open(path, os.O_RDONLY | os.O_NOATIME)
            row["flags"] = read_flags(fd)
            row["content"] = hashlib.blake2b(_whole(fd)).digest()
            row["size"] = status.st_size
            os.close(fd)
            row["links"] = links.setdefault((status.st_dev, status.st_ino), [])
            row["links"].append(relative)
        elif stat.S_ISLNK(status.st_mode):
            row["target"] = os.readlink(path)
        elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            row["rdev"] = status.st_rdev
        if not stat.S_ISLNK(status.st_mode):
            row["atime_ns"] = status.st_atime_ns
        found[relative] = row
        if stat.S_ISDIR(status.st_mode):
            fd = os.open(path, os.O_RDONLY | os.O_NOATIME | os.O_DIRECTORY)
            names = sorted(map(os.fsencode, os.listdir(fd)))
            os.close(fd)
            for name in names:
                look(os.path.join(path, name), os.path.join(relative, name))

    look(base, b"")
    return found


def _whole(fd: int) -> bytes:
    parts = []
    while part := os.read(fd, 1 << 20):
        parts.append(part)
    return b"".join(parts)


def make_everything(root: Path) -> None:
    """Every type of name, awkward names, every attribute. Needs root."""
    base = os.fsencode(root)
    os.makedirs(base, exist_ok=True)

    def path(name: bytes | str) -> bytes:
        return os.path.join(base, os.fsencode(name))

    def write(name: bytes | str, content: bytes) -> bytes:
        full = path(name)
        with open(full, "wb") as file:
            file.write(content)
        return full

    for directory in ("deep/er/still", "empty", "a.b", "a", "a-b"):
        os.makedirs(path(directory))
    write("a/file", b"in a")
    write("a.b/file", b"in a.b")
    write("a-b/file", b"in a-b")
    write("deep/er/still/file", b"far down")
    write(b"any \xff\xfe bytes \n\t\\", b"odd name")
    write("x" * 255, b"long name")
    write("empty file", b"")
    write("just below a block", os.urandom(1024 * 1024 - 1))
    write("one block", os.urandom(1024 * 1024))
    write("just above a block", os.urandom(1024 * 1024 + 1))
    write("large", (b"compressible " * 100_000)[: 9 * 1024 * 1024 + 17] + os.urandom(9 * 1024 * 1024))
    for number in range(300):
        write(f"small {number:03}", b"%d " % number * number)
    first = write("first name", b"linked")
    os.link(first, path("second name"))
    os.link(first, path("deep/third name"))
    os.symlink(b"deep/er", path("link"))
    os.symlink(b"/nowhere/\xff", path("dangling"))
    os.symlink(b"x" * 4000, path("long target"))
    os.mkfifo(path("pipe"), 0o640)
    os.mknod(path("null"), stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(path("loop"), stat.S_IFBLK | 0o660, os.makedev(7, 200))
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(base)
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)
    with open(path("sparse"), "wb") as file:
        file.truncate(64 * 1024 * 1024)
        file.seek(10 * 1024 * 1024)
        file.write(b"island" * 1000)
        file.seek(40 * 1024 * 1024 + 5)
        file.write(b"second" * 1000)
    with open(path("small sparse"), "wb") as file:
        file.seek(500_000)
        file.write(b"end")
        file.truncate(900_000)
    with open(path("only a hole"), "wb") as file:
        file.truncate(3 * 1024 * 1024)
    setuid = write("setuid", b"#!/bin/false\n")
    os.chown(setuid, 1234, 5678)
    os.chmod(setuid, 0o6755)
    capable = write("capable", b"cap")
    os.setxattr(capable, b"security.capability", CAPABILITY)
    attributed = write("attributed", b"x")
    os.setxattr(attributed, b"user.\xff\xfename", b"\0\1\2")
    os.setxattr(attributed, b"user.empty", b"")
    os.setxattr(attributed, b"trusted.thing", b"t" * 2000)
    os.setxattr(path("deep"), b"user.directory", b"d")
    os.setxattr(path("null"), b"trusted.device", b"v")
    os.setxattr(path("link"), b"trusted.link", b"l", follow_symlinks=False)
    os.setxattr(path("a"), b"system.posix_acl_default", POSIX_ACL)
    os.setxattr(attributed, b"system.posix_acl_access", POSIX_ACL)
    os.chmod(path("empty"), 0o1777)
    os.chown(path("dangling"), 42, 43, follow_symlinks=False)
    os.chown(path("a.b"), 1000, 1000)
    write("unwritable", b"r")
    os.chmod(path("unwritable"), 0)
    for current, directories, files in os.walk(base, topdown=False):
        for name in (*directories, *files):
            os.utime(os.path.join(current, name), ns=(TIME_NS + 1, TIME_NS - len(name)), follow_symlinks=False)
    os.utime(base, ns=(1, -5_000_000_001))
