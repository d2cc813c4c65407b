"""Chains of archives made by hand: extents anywhere, as a later agent may write them and this one must restore them.

This agent's own backups read a changed file as a whole, so the content of each file lies in one archive.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from actors.agent.sealing import Sealing
from rbcore.archive.block import iter_blocks
from rbcore.archive.manifest import TRAILER_VERSION, ManifestWriter, encode_trailer, path_order_key
from rbcore.archive.model import BlockKind, Entry, EntryType, Extent, Trailer
from rbcore.messages import Commit
from tests.agent.daemon import KEYS, Host, MemoryDaemon, StoredArchive

BLOCK_BYTES = 1024 * 1024
RESOURCE = "/crafted"


@dataclass
class File:
    """A file whose content stands in blocks of several archives."""

    path: bytes
    runs: list[tuple[int, int, int, int]]
    """(archive index, block number, KiB of hole in front, length). 0 is the newest archive, as in a trailer."""
    tail: int = 0
    """Bytes of hole at the end."""

    @property
    def extents(self) -> list[Extent]:
        found: list[Extent] = []
        offset = 0
        for archive, block, hole, length in self.runs:
            offset += hole * 1024
            # Where in the block is of no importance; a place that depends on the run shows mistakes.
            place = (offset * 7) % (BLOCK_BYTES - length + 1)
            found.append(Extent(offset, length, archive, block, place))
            offset += length
        return found

    @property
    def size(self) -> int:
        return sum(hole * 1024 + length for _, _, hole, length in self.runs) + self.tail

    @property
    def content(self) -> bytes:
        content = bytearray(self.size)
        for one in self.extents:
            plaintext = _plaintext(one.archive, one.block)
            content[one.file_offset : one.file_offset + one.length] = plaintext[one.block_offset :][: one.length]
        return bytes(content)


def craft_chain(daemon: MemoryDaemon, host: Host, files: Sequence[File], *, archives: int) -> list[str]:
    """Put a chain into the daemon whose newest archive describes ``files``, the directories around them, and a hard link.

    Returns the archives' names, the oldest first.
    """
    names = [host.new_name() for _ in range(archives)]
    newest_first = names[::-1]
    for index, name in enumerate(newest_first):
        stored = daemon.archives[name] = StoredArchive()
        numbers = {one.block for file in files for one in file.extents if one.archive == index}
        for number in sorted(numbers):
            _add(stored, name, BlockKind.PAYLOAD, number, _plaintext(index, number))
        stored.commit = Commit(
            root=bytes(32), signature=b"", key_id="", blocks=len(numbers), files=0, data_size=0, problems=0,
            problem_lines=[],
        )  # fmt: skip
    writer = ManifestWriter()
    for entry in _entries(files):
        writer.add(entry)
    writer.flush()
    newest = daemon.archives[names[-1]]
    block = 1_000_000
    while writer.ready:
        plaintext, flags = writer.take(block)
        _add(newest, names[-1], BlockKind.MANIFEST, block, plaintext, flags=flags)
        block += 1
    trailer = Trailer(
        TRAILER_VERSION, newest_first, writer.rows, RESOURCE, writer.entries, writer.files, writer.data_size, 0, 1, 2,
        "host",
    )  # fmt: skip
    _add(newest, names[-1], BlockKind.TRAILER, block, encode_trailer(trailer))
    daemon.entries(names[-1])
    return names


def _entries(files: Sequence[File]) -> list[Entry]:
    found = {b"": _entry(b"", EntryType.DIRECTORY)}
    for file in files:
        parts = file.path.split(b"/")
        for count in range(1, len(parts)):
            above = b"/".join(parts[:count])
            found[above] = _entry(above, EntryType.DIRECTORY)
        found[file.path] = _entry(file.path, EntryType.FILE, size=file.size, extents=file.extents)
    if files:
        found[b"zz/link"] = _entry(b"zz/link", EntryType.HARDLINK, link_target=files[0].path)
        found[b"zz"] = _entry(b"zz", EntryType.DIRECTORY)
    return sorted(found.values(), key=lambda entry: path_order_key(entry.path))


def _entry(
    path: bytes, kind: EntryType, *, size: int = 0, extents: Sequence[Extent] = (), link_target: bytes = b""
) -> Entry:
    mtime_ns = 1_000_000_000 * (1 + len(path))
    return Entry(path, kind, 0o750, 0, 0, "root", "root", mtime_ns, mtime_ns, size, 1, 1, 1, list(extents), link_target)


def _plaintext(archive: int, number: int) -> bytes:
    seed = hashlib.blake2b(b"%d %d" % (archive, number), digest_size=64).digest()
    return seed * (BLOCK_BYTES // len(seed))


def _add(
    stored: StoredArchive, archive: str, kind: BlockKind, number: int, plaintext: bytes, *, flags: int = 0
) -> None:
    block = Sealing("nocrypt", KEYS.master_key).codec(archive, "fast").seal(kind, number, plaintext, flags=flags)
    ((header, payload),) = iter_blocks(block)
    stored.blocks[number] = (header, bytes(payload))
