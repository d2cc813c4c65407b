"""The manifest: every name of a backup with its metadata, as plaintexts of blocks. ``docs/format.md``, "Manifest".

A restore acts on what stands here, as root. So decoding checks everything that could lead it astray: paths stay inside the
tree, every entry lies in a directory that the manifest itself describes, order is strict, numbers are in bounds.
"""

from __future__ import annotations

import re
import struct
from collections import deque
from typing import Final

import msgspec

from rbcore.archive.block import Buffer
from rbcore.archive.model import (
    BLOCK_BYTES_MAX,
    BlockFlag,
    Entry,
    EntryType,
    ManifestIndexRow,
    Trailer,
)
from rbcore.errors import UNDECODABLE, Damaged, TooLarge

MANIFEST_MAGIC: Final = b"RBM1"
TRAILER_MAGIC: Final = b"RBT1"
TRAILER_VERSION: Final = 1
ENTRIES_PER_BLOCK: Final = 8192
MANIFEST_BYTES_TARGET: Final = 1024 * 1024
EXTENTS_PER_ENTRY: Final = 16384
"""A file with more is stored as several entries (``Entry.continued``), so that no file is too large for a block."""
ENTRY_BYTES_MAX: Final = 2 * 1024 * 1024
PATH_BYTES_MAX: Final = 65535
INDEX_PATH_BYTES_MAX: Final = 255
ARCHIVES_MAX: Final = 65536

_ARRAY32: Final = struct.Struct(">BI")
_HEAD_BYTES: Final = len(MANIFEST_MAGIC) + _ARRAY32.size
_NAME = re.compile(r"[0-9a-f]{32}")

"""What msgspec raises on bytes that are not what was asked for; text that is not UTF-8 has no error of its own there."""

_encoder = msgspec.msgpack.Encoder()
_entries_decoder = msgspec.msgpack.Decoder(list[Entry])
_trailer_decoder = msgspec.msgpack.Decoder(Trailer)


def path_order_key(path: bytes) -> bytes:
    """Byte order of these keys is depth-first order of the paths: names have no NUL, so the separator becomes the smallest byte."""
    return path.replace(b"/", b"\0")


def is_archive_name(name: str) -> bool:
    """32 lower-case hex digits: the archive id."""
    return _NAME.fullmatch(name) is not None


class ManifestWriter:
    """Collects entries in depth-first order and cuts them into plaintexts of manifest blocks.

    ::

        writer.add(entry)
        while writer.ready:
            plaintext, flags = writer.take(number)      # seal as BlockKind.MANIFEST with these flags
        writer.flush()                                  # at the end, or to make the manifest so far durable: take again
    """

    def __init__(self) -> None:
        self.rows: list[ManifestIndexRow] = []
        """For the trailer: a row for each plaintext taken."""
        self.entries = 0
        self.files = 0
        self.data_size = 0
        self.problems = 0
        self._ready: deque[tuple[bytes, bytes, int]] = deque()
        self._buffer = bytearray(_HEAD_BYTES)
        self._first_path = b""
        self._pieces = 0

    @property
    def ready(self) -> int:
        """How many plaintexts can be taken."""
        return len(self._ready)

    def add(self, entry: Entry) -> None:
        """Raises ``TooLarge`` when the entry without its extents is over ENTRY_BYTES_MAX (extended attributes)."""
        extents = entry.extents
        if len(extents) <= EXTENTS_PER_ENTRY:
            self._append(entry)
        else:
            for start in range(0, len(extents), EXTENTS_PER_ENTRY):
                end = start + EXTENTS_PER_ENTRY
                self._append(msgspec.structs.replace(entry, extents=extents[start:end], continued=end < len(extents)))
        self.entries += 1
        if entry.type is EntryType.FILE:
            self.files += 1
            self.data_size += entry.size
        if entry.problem:
            self.problems += 1

    def add_begun(self, entry: Entry) -> None:
        """The extents so far of a file that is still being read; ``add`` must follow with the rest of them and the final metadata.

        So that an interrupted attempt need not read a large file from its beginning again.
        """
        extents = entry.extents
        for start in range(0, len(extents), EXTENTS_PER_ENTRY):
            piece = extents[start : start + EXTENTS_PER_ENTRY]
            self._append(msgspec.structs.replace(entry, extents=piece, continued=True))

    def flush(self) -> None:
        """Close the plaintext that is being filled, if there is anything in it."""
        if not self._pieces:
            return
        self._buffer[:_HEAD_BYTES] = MANIFEST_MAGIC + _ARRAY32.pack(0xDD, self._pieces)
        self._ready.append((bytes(self._buffer), self._first_path, self._pieces))
        self._buffer = bytearray(_HEAD_BYTES)
        self._pieces = 0

    def take(self, block: int) -> tuple[bytes, int]:
        """The oldest closed plaintext, and the header flags of the block, which gets the number ``block``."""
        flags = 0 if self.rows else int(BlockFlag.MANIFEST_BEGINS)
        plaintext, first_path, pieces = self._ready.popleft()
        self.rows.append(ManifestIndexRow(block, first_path[:INDEX_PATH_BYTES_MAX], pieces))
        return plaintext, flags

    def _append(self, entry: Entry) -> None:
        start = len(self._buffer)
        if not self._pieces:
            self._first_path = entry.path
        _encoder.encode_into(entry, self._buffer, -1)
        size = len(self._buffer) - start
        if size > ENTRY_BYTES_MAX:
            del self._buffer[start:]
            raise TooLarge(f"{entry.path!r}: its manifest entry has {size} bytes, over {ENTRY_BYTES_MAX}")
        self._pieces += 1
        if self._pieces >= ENTRIES_PER_BLOCK or len(self._buffer) >= MANIFEST_BYTES_TARGET:
            self.flush()


assert MANIFEST_BYTES_TARGET + ENTRY_BYTES_MAX + _HEAD_BYTES <= BLOCK_BYTES_MAX


class ManifestReader:
    """Decodes the manifest blocks of one manifest in order and checks them as a whole.

    ``add`` each plaintext, then ``finish`` with the trailer. Without ``finish`` (an unfinished archive that is resumed) what
    ``add`` returned is good as far as it goes. A block with ``BlockFlag.MANIFEST_BEGINS`` wants a new reader.
    """

    def __init__(self) -> None:
        self.blocks = 0
        self.entries = 0
        self._pieces: list[int] = []
        self._archives_named = 0
        self._last_key: bytes | None = None
        self._directories: list[bytes] = []
        self._held: Entry | None = None

    def add(self, plaintext: Buffer) -> list[Entry]:
        """Entries of the next block; a file whose extents go on in the following block comes with that. Raises ``Damaged``."""
        decoded = _decode(plaintext)
        self._pieces.append(len(decoded))
        self.blocks += 1
        entries: list[Entry] = []
        directories = self._directories
        last_key = self._last_key
        for piece in decoded:
            entry = self._joined(piece) if piece.continued or self._held is not None else piece
            if entry is None:
                continue
            path = entry.path
            key = _checked_key(entry)
            if last_key is None:
                if path:
                    raise Damaged(f"the manifest begins with {path!r}, not with its root")
            else:
                if key <= last_key:
                    raise Damaged(f"manifest entry {path!r} is out of order")
                parent = path[:cut] if (cut := path.rfind(b"/")) >= 0 else b""
                while directories and directories[-1] != parent:
                    directories.pop()
                if not directories:
                    raise Damaged(f"manifest entry {path!r} does not lie in a directory of the manifest")
            last_key = key
            if entry.type is EntryType.DIRECTORY:
                directories.append(path)
            elif entry.extents:
                self._archives_named = max(self._archives_named, _check_extents(entry))
            entries.append(entry)
        self._last_key = last_key
        self.entries += len(entries)
        return entries

    def finish(self, trailer: Trailer) -> None:
        """The trailer must tell of exactly these blocks and entries. Raises ``Damaged``."""
        if self._held is not None:
            raise Damaged(f"the manifest ends amid the extents of {self._held.path!r}")
        if [row.entries for row in trailer.manifest] != self._pieces or trailer.entries != self.entries:
            raise Damaged(
                f"the trailer tells of {len(trailer.manifest)} manifest blocks with {trailer.entries} entries, "
                f"read were {self.blocks} with {self.entries}"
            )
        if self._archives_named > len(trailer.archives):
            raise Damaged(f"an extent names archive {self._archives_named - 1} of {len(trailer.archives)}")

    def _joined(self, piece: Entry) -> Entry | None:
        """The entry that ``piece`` completes; None while there is more of it to come."""
        held = self._held
        if piece.type is not EntryType.FILE or (held is not None and piece.path != held.path):
            raise Damaged(f"manifest entry {piece.path!r} does not go on with extents of one file")
        if held is None:
            self._held = held = msgspec.structs.replace(piece, extents=[])
        held.extents.extend(piece.extents)
        if piece.continued:
            return None
        self._held = None
        return msgspec.structs.replace(held, continued=False)


def decode_manifest(plaintext: Buffer) -> list[Entry]:
    """The stored entries of one manifest block alone, for looking into the middle of a manifest by its index.

    Each entry and the order within the block are checked; parents and ``continued`` pieces are the caller's. Raises ``Damaged``.
    """
    entries = _decode(plaintext)
    last: Entry | None = None
    last_key = b""
    for entry in entries:
        key = _checked_key(entry)
        if last is not None and (key != last_key if last.continued else key <= last_key):
            raise Damaged(f"manifest entry {entry.path!r} is out of order")
        if entry.extents:
            _check_extents(entry)
        last, last_key = entry, key
    return entries


def encode_trailer(trailer: Trailer) -> bytes:
    """Raises ``TooLarge`` when there are more manifest blocks than the index has room for (some 10**8 entries)."""
    plaintext = TRAILER_MAGIC + _encoder.encode(trailer)
    if len(plaintext) > BLOCK_BYTES_MAX:
        raise TooLarge(
            f"the trailer of {trailer.resource!r} has {len(plaintext)} bytes, over {BLOCK_BYTES_MAX}: back up parts of it"
        )
    return plaintext


def decode_trailer(plaintext: Buffer) -> Trailer:
    """Raises ``Damaged``."""
    view = memoryview(plaintext)
    if bytes(view[:4]) != TRAILER_MAGIC:
        raise Damaged("no trailer: wrong magic")
    try:
        trailer = _trailer_decoder.decode(view[4:])
    except UNDECODABLE as error:
        raise Damaged(f"trailer cannot be decoded: {error}") from None
    if trailer.version != TRAILER_VERSION:
        raise Damaged(f"trailer version {trailer.version} is not known (this reader knows {TRAILER_VERSION})")
    names = trailer.archives
    if not 1 <= len(names) <= ARCHIVES_MAX or len(set(names)) != len(names) or not all(map(is_archive_name, names)):
        raise Damaged("the trailer's archives are not distinct archive names")
    if not trailer.manifest:
        raise Damaged("the trailer tells of no manifest block")
    last_block, last_key = -1, b""
    for row in trailer.manifest:
        key = path_order_key(row.first_path)
        if row.block <= last_block or key < last_key:
            raise Damaged(f"the trailer's index is out of order at manifest block {row.block}")
        last_block, last_key = row.block, key
    return trailer


def _decode(plaintext: Buffer) -> list[Entry]:
    view = memoryview(plaintext)
    if bytes(view[:4]) != MANIFEST_MAGIC:
        raise Damaged("no manifest block: wrong magic")
    try:
        entries = _entries_decoder.decode(view[4:])
    except UNDECODABLE as error:
        raise Damaged(f"manifest block cannot be decoded: {error}") from None
    if not entries:
        raise Damaged("manifest block without entries")
    return entries


def _checked_key(entry: Entry) -> bytes:
    """The order key of an entry whose own fields are safe to act on. Raises ``Damaged``."""
    path = entry.path
    key = path.replace(b"/", b"\0")
    if path:
        fenced = b"\0%b\0" % key
        if (
            b"\0\0" in fenced
            or b"\0.\0" in fenced
            or b"\0..\0" in fenced
            or b"\0" in path
            or len(path) > PATH_BYTES_MAX
        ):
            raise Damaged(f"manifest entry {path[:256]!r} has no acceptable path")
    kind = entry.type
    if kind is EntryType.FILE or kind is EntryType.DIRECTORY:
        if entry.link_target:
            raise Damaged(f"manifest entry {path!r} is a {kind.name} with a link target")
    elif kind is EntryType.HARDLINK:
        target_key = path_order_key(entry.link_target)
        fenced = b"\0%b\0" % target_key
        if (
            b"\0\0" in fenced
            or b"\0.\0" in fenced
            or b"\0..\0" in fenced
            or b"\0" in entry.link_target
            or target_key >= key
        ):
            raise Damaged(
                f"manifest entry {path!r} is a hard link to {entry.link_target[:256]!r}, which does not precede it"
            )
    elif kind is EntryType.SYMLINK and (not entry.link_target or b"\0" in entry.link_target):
        raise Damaged(f"manifest entry {path!r} is a symbolic link to nowhere")
    if entry.extents and kind is not EntryType.FILE:
        raise Damaged(f"manifest entry {path!r} is a {kind.name} with content")
    if entry.xattrs:
        for name in entry.xattrs:
            if not name or b"\0" in name:
                raise Damaged(f"manifest entry {path!r} has an attribute without an acceptable name")
    return key


def _check_extents(entry: Entry) -> int:
    """Ascending, apart, within file and block; returns one more than the largest archive index named. Raises ``Damaged``."""
    end = 0
    archives = 0
    for extent in entry.extents:
        if extent.file_offset < end or extent.length == 0 or extent.block_offset + extent.length > BLOCK_BYTES_MAX:
            raise Damaged(f"manifest entry {entry.path!r}: extent at {extent.file_offset} is out of order or bounds")
        end = extent.file_offset + extent.length
        if extent.archive >= archives:
            archives = extent.archive + 1
    if end > entry.size:
        raise Damaged(f"manifest entry {entry.path!r}: extents reach to {end}, over its size {entry.size}")
    return archives
