"""What an archive is made of, as values. The codec is in ``block.py`` and ``manifest.py``."""

from __future__ import annotations

import enum
from typing import Annotated, TypeAlias

import msgspec

U32: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
U63: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""Bounds are checked when a manifest is decoded: a restore trusts what it reads."""

BLOCK_BYTES_MAX = 4 * 1024 * 1024
"""Largest plaintext of one block. Writers choose less (the agent: 1 MiB)."""


class BlockKind(enum.IntEnum):
    PAYLOAD = 1
    MANIFEST = 2
    TRAILER = 3


class BlockFlag(enum.IntFlag):
    MANIFEST_BEGINS = 1
    """First block of a manifest: manifest blocks before it are of an attempt that was interrupted, and superseded."""


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


class Extent(msgspec.Struct, frozen=True, array_like=True, gc=False, forbid_unknown_fields=True):
    """Where a run of file content stands. Runs are ascending by ``file_offset``; what none covers is a hole (zeros)."""

    file_offset: U63
    length: U32
    archive: U32
    """Index into the trailer's ``archives``: 0 is this archive, others are ancestors."""
    block: U63
    block_offset: U32
    """Into the plaintext of the block. A run lies within one block."""


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False, forbid_unknown_fields=True):
    """One name. Entries stand in depth-first order, names within a directory ascending by bytes: sorted by components."""

    path: bytes
    """Relative to the root of the backup, ``/`` between components, no leading ``/``; the root itself is ``b""``."""
    type: EntryType
    mode: Annotated[int, msgspec.Meta(ge=0, le=0o7777)]
    """Permission bits including setuid, setgid, sticky."""
    uid: U32
    gid: U32
    owner: str
    group: str
    mtime_ns: int
    ctime_ns: int
    """For comparing only; cannot be restored."""
    size: U63
    device: int
    inode: int
    """``device`` and ``inode`` of the source: for comparing and hard links only."""
    links: U32
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
    continued: bool = False
    """In stored manifests only: the next entry has the same path and goes on with the extents. ``ManifestReader`` joins them."""


class ManifestIndexRow(msgspec.Struct, frozen=True, array_like=True, gc=False, forbid_unknown_fields=True):
    block: U63
    first_path: bytes
    """The path of the block's first entry, cut after 255 bytes: a lower bound of what stands in the block."""
    entries: U32


class Trailer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Plaintext of the trailer block."""

    version: int
    archives: list[str]
    """Names of the archives extents refer to; the first is this one."""
    manifest: list[ManifestIndexRow]
    resource: str
    """The path that was backed up."""
    entries: U63
    files: U63
    data_size: U63
    problems: U63
    started_ns: int
    ended_ns: int
    hostname: str
