"""What an archive is made of, as values. The codec is in ``block.py`` and ``manifest.py``."""

from __future__ import annotations

import enum

import msgspec

BLOCK_BYTES_MAX = 4 * 1024 * 1024
"""Largest plaintext of one block. Writers choose less (the agent: 1 MiB)."""


class BlockKind(enum.IntEnum):
    PAYLOAD = 1
    MANIFEST = 2
    TRAILER = 3


class Compression(enum.IntEnum):
    NONE = 0
    ZSTD = 1


class Cipher(enum.IntEnum):
    NONE = 0
    AES_256_GCM = 1
    CHACHA20_POLY1305 = 2


class EntryType(enum.IntEnum):
    DIRECTORY = 1
    FILE = 2
    SYMLINK = 3
    FIFO = 4
    SOCKET = 5
    CHARACTER_DEVICE = 6
    BLOCK_DEVICE = 7
    HARDLINK = 8
    """A further name of a file that stands earlier in the manifest under ``link_target``."""


class Extent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a run of file content stands. Runs are ascending by ``file_offset``; what none covers is a hole (zeros)."""

    file_offset: int
    length: int
    archive: int
    """Index into the trailer's ``archives``: 0 is this archive, others are ancestors."""
    block: int
    block_offset: int
    """Into the plaintext of the block. A run lies within one block."""


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One name. Entries stand in depth-first order, names within a directory ascending by bytes: sorted by components."""

    path: bytes
    """Relative to the root of the backup, ``/`` between components, no leading ``/``; the root itself is ``b""``."""
    type: EntryType
    mode: int
    """Permission bits including setuid, setgid, sticky."""
    uid: int
    gid: int
    owner: str
    group: str
    mtime_ns: int
    ctime_ns: int
    """For comparing only; cannot be restored."""
    size: int
    device: int
    inode: int
    """``device`` and ``inode`` of the source: for comparing and hard links only."""
    links: int
    extents: list[Extent] = []
    link_target: bytes = b""
    rdev: int = 0
    xattrs: dict[bytes, bytes] = {}
    """All namespaces, so POSIX ACLs (``system.posix_acl_access``) and capabilities are among them."""
    problem: str = ""
    """Why the content is not (wholly) here; empty when all is well."""
    atime_ns: int = 0
    flags: int = 0
    """Inode flags as of FS_IOC_GETFLAGS that a restore may set (immutable, append-only, nodump); 0 when not read."""


class ManifestIndexRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    block: int
    first_path: bytes
    entries: int


class Trailer(msgspec.Struct, frozen=True):
    """Plaintext of the trailer block."""

    version: int
    archives: list[str]
    """Names of the archives extents refer to; the first is this one."""
    manifest: list[ManifestIndexRow]
    resource: str
    """The path that was backed up."""
    entries: int
    files: int
    data_size: int
    problems: int
    started_ns: int
    ended_ns: int
    hostname: str
