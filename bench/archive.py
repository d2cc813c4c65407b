"""What the archive format and the directory store cost, beside the bare libraries on the same bytes.

``python -m bench.archive [--mebibytes N] [--folder DIR]``. One thread. Ratios are this program's rate divided by the peer's, in the same run;
the store's peers are a bare write of the same bytes past the page cache with a flush at the end, and BLAKE3 over them in memory.
"""

from __future__ import annotations

import argparse
import mmap
import os
import sysconfig
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from drivers.directory_store import DirectoryStore, initialise_catalog
from drivers.volume import DirectoryVolume
from rbcore.archive.block import COMPRESSION_LEVELS, BlockCodec
from rbcore.archive.manifest import ManifestReader, ManifestWriter
from rbcore.archive.model import BlockKind, Cipher, Entry, EntryType, Extent

MIB = 1024 * 1024
ARCHIVE = "be" * 16
KEY = bytes(range(32))
AAD = bytes(56)
ENTRIES = 100_000
BATCH_BLOCKS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mebibytes", type=int, default=48, help="text to work on; the store gets ten times as much")
    parser.add_argument("--folder", type=Path, help="where the store is made (default: the temporary directory)")
    options = parser.parse_args()
    text = real_text(options.mebibytes)
    print(f"{len(text)} blocks of 1 MiB of source code")
    compression(text)
    blocks(text)
    manifests()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        store(Path(folder), 10 * options.mebibytes)


def real_text(mebibytes: int) -> list[bytes]:
    """Source code of the interpreter's library, repeated if it is too short (blocks do not see each other)."""
    gathered = bytearray()
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        gathered += path.read_bytes()
        if len(gathered) >= mebibytes * MIB:
            break
    whole = len(gathered) // MIB
    cut = [bytes(gathered[at * MIB : (at + 1) * MIB]) for at in range(min(whole, mebibytes))]
    return [cut[at % len(cut)] for at in range(mebibytes)]


def rate(work: Callable[[], Iterable[object]], size: int) -> float:
    """MB/s, the best of three runs. Results are dropped one by one: keeping them would measure fresh memory."""
    best = 0.0
    for _ in range(3):
        started = time.perf_counter()
        deque(work(), maxlen=0)
        best = max(best, size / (time.perf_counter() - started) / 1e6)
    return best


def report(what: str, ours: float, peer: str, theirs: float) -> None:
    print(f"  {what:<44} {ours:8.0f} MB/s   {ours / theirs:5.2f} of {peer} ({theirs:.0f})")


def compression(text: list[bytes]) -> None:
    print("zstd, 1 MiB at a time")
    size = len(text) * MIB
    for name, level in COMPRESSION_LEVELS.items():
        if level is None:
            continue
        compress = zstandard.ZstdCompressor(level=level).compress
        stored = sum(len(compress(block)) for block in text)
        speed = rate(partial(map, compress, text), size)
        print(f"  {name:<8} level {level}   {speed:6.0f} MB/s   ratio {size / stored:.2f}")


def blocks(text: list[bytes]) -> None:
    size = len(text) * MIB
    random = [os.urandom(MIB) for _ in text]
    aead, nonce = AESGCM(KEY), b"n" * 12
    compressor, decompressor = zstandard.ZstdCompressor(level=1), zstandard.ZstdDecompressor()
    packing = BlockCodec(bytes.fromhex(ARCHIVE), Cipher.AES_256_GCM, KEY, level=1)
    plain = BlockCodec(bytes.fromhex(ARCHIVE), Cipher.AES_256_GCM, KEY)

    def sealed(codec: BlockCodec, data: list[bytes]) -> list[bytes]:
        return [bytes(codec.seal(BlockKind.PAYLOAD, n, one, nonce)) for n, one in enumerate(data)]

    print("blocks of 1 MiB, AES-256-GCM")
    bare = rate(lambda: (aead.encrypt(nonce, compressor.compress(one), AAD) for one in text), size)
    ours = rate(lambda: (packing.seal(BlockKind.PAYLOAD, 1, one, nonce) for one in text), size)
    report("seal text, fast", ours, "zstd + AES", bare)
    packed = sealed(packing, text)
    encrypted = [aead.encrypt(nonce, compressor.compress(one), AAD) for one in text]
    bare = rate(lambda: (decompressor.decompress(aead.decrypt(nonce, one, AAD)) for one in encrypted), size)
    report("open text", rate(lambda: (packing.open(one) for one in packed), size), "AES + zstd", bare)
    bare = rate(lambda: (aead.encrypt(nonce, one, AAD) for one in random), size)
    ours = rate(lambda: (plain.seal(BlockKind.PAYLOAD, 1, one, nonce) for one in random), size)
    report("seal random, None", ours, "AES", bare)
    ours = rate(lambda: (packing.seal(BlockKind.PAYLOAD, 1, one, nonce) for one in random), size)
    report("seal random, fast", ours, "AES", bare)
    packed = sealed(plain, random)
    encrypted = [aead.encrypt(nonce, one, AAD) for one in random]
    bare = rate(lambda: (aead.decrypt(nonce, one, AAD) for one in encrypted), size)
    report("open random", rate(lambda: (plain.open(one) for one in packed), size), "AES", bare)


def manifests() -> None:
    entries = list(_entries())
    started = time.perf_counter()
    writer = ManifestWriter()
    for entry in entries:
        writer.add(entry)
    writer.flush()
    encoded = time.perf_counter() - started
    parts = [writer.take(number)[0] for number in range(writer.ready)]
    started = time.perf_counter()
    reader = ManifestReader()
    for part in parts:
        reader.add(part)
    decoded = time.perf_counter() - started
    size = sum(map(len, parts)) / len(entries)
    print(
        f"manifest of {len(entries)} entries: encode {encoded:.2f} s, decode and check {decoded:.2f} s, {size:.0f} bytes each"
    )


def _entries() -> Iterator[Entry]:
    yield _entry(b"", EntryType.DIRECTORY, 0, [])
    for directory in range(ENTRIES // 100):
        name = b"directory-%06d" % directory
        yield _entry(name, EntryType.DIRECTORY, 0, [])
        for file in range(99):
            extents = [Extent(0, 10_000, 0, 7 * directory, 10_000 * file)]
            yield _entry(b"%b/file-%06d.txt" % (name, file), EntryType.FILE, 10_000, extents)


def _entry(path: bytes, kind: EntryType, size: int, extents: list[Extent]) -> Entry:
    return Entry(path, kind, 0o755, 1000, 1000, "user", "user", 1 << 60, 1 << 60, size, 1, 123_456, 1, extents)


def store(folder: Path, mebibytes: int) -> None:
    codec = BlockCodec(bytes.fromhex(ARCHIVE))
    data = os.urandom(MIB)
    made = [bytes(codec.seal(BlockKind.PAYLOAD, number, data)) for number in range(mebibytes)]
    made.append(bytes(codec.seal(BlockKind.TRAILER, mebibytes, b"trailer")))
    size = sum(map(len, made))
    batches = [b"".join(made[at : at + BATCH_BLOCKS]) for at in range(0, len(made), BATCH_BLOCKS)]
    print(f"directory store, {size / 1e6:.0f} MB")
    bare = size / _bare_write(folder / "bare", mebibytes + 1) / 1e6
    volume = DirectoryVolume(folder)
    initialise_catalog(volume, "bench")
    directory = DirectoryStore(volume, "bench")
    started = time.perf_counter()
    writer = directory.open_writer(ARCHIVE)
    for batch in batches:
        writer.write(batch)
    writer.finish()
    report("write, digests checked, durable", size / (time.perf_counter() - started) / 1e6, "bare direct write", bare)
    hashed = rate(lambda: (blake3(batch).digest() for batch in batches), size)
    report("verify every byte", rate(lambda: directory.verify(ARCHIVE), size), "BLAKE3 in memory", hashed)
    reader = directory.open_reader(ARCHIVE)
    numbers = [range(at, min(at + BATCH_BLOCKS, len(made))) for at in range(0, len(made), BATCH_BLOCKS)]
    report(
        "read, digests checked", rate(lambda: (reader.read(run) for run in numbers), size), "BLAKE3 in memory", hashed
    )
    reader.close()


def _bare_write(path: Path, mebibytes: int) -> float:
    """Seconds."""
    request = mmap.mmap(-1, 4 * MIB)
    request[:] = os.urandom(len(request))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_DIRECT", 0))
    started = time.perf_counter()
    for _ in range(mebibytes // 4):
        os.write(descriptor, request)
    os.fdatasync(descriptor)
    os.close(descriptor)
    seconds = time.perf_counter() - started
    path.unlink()
    return seconds


if __name__ == "__main__":
    main()
