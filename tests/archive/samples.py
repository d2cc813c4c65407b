"""What the tests of the archive format share: an archive of small blocks, seeded randomness, volumes of both kinds."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

from drivers.directory_store import DirectoryStore, initialise_catalog
from drivers.simulated.volume import SimulatedVolume
from drivers.volume import DirectoryVolume
from rbcore.archive.block import NO_NONCE, BlockCodec
from rbcore.archive.model import BlockFlag, BlockKind, Cipher
from rbcore.archive.store import ArchiveStore, VerificationReport
from rbcore.ports import Volume

ARCHIVE = "5eed" + "0" * 27 + "1"
ARCHIVE_ID = bytes.fromhex(ARCHIVE)
KEY = bytes(range(32))
CATALOG = "first catalog"


class Seeded:
    """``Randomness`` from a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def token_bytes(self, length: int) -> bytes:
        return self._random.randbytes(length)


def nonce_for(cipher: Cipher, number: int) -> bytes:
    return NO_NONCE if cipher is Cipher.NONE else number.to_bytes(11, "little") + b"n"


def sealed_archive(
    plaintexts: Sequence[bytes], *, archive: str = ARCHIVE, cipher: Cipher = Cipher.NONE, level: int | None = None
) -> list[bytes]:
    """Payload blocks with gaps between their numbers, a manifest block, a trailer; the last two plaintexts are theirs."""
    codec = BlockCodec(bytes.fromhex(archive), cipher, None if cipher is Cipher.NONE else KEY, level=level)
    kinds = [BlockKind.PAYLOAD] * (len(plaintexts) - 2) + [BlockKind.MANIFEST, BlockKind.TRAILER]
    return [
        bytes(
            codec.seal(
                kind,
                3 * position,
                plaintext,
                nonce_for(cipher, position),
                flags=BlockFlag.MANIFEST_BEGINS if kind is BlockKind.MANIFEST else 0,
            )
        )
        for position, (kind, plaintext) in enumerate(zip(kinds, plaintexts, strict=True))
    ]


def plaintexts(sizes: Sequence[int], seed: int = 1) -> list[bytes]:
    source = random.Random(seed)
    return [source.randbytes(size) for size in sizes]


VolumeMaker = Callable[[Path], Volume]

VOLUMES: dict[str, VolumeMaker] = {
    "direct": lambda path: DirectoryVolume(path),
    "buffered": lambda path: DirectoryVolume(path, direct=False),
    "simulated": lambda path: SimulatedVolume(),
}


def make_store(volume: Volume, *, container_bytes_max: int = 1 << 30) -> DirectoryStore:
    initialise_catalog(volume, CATALOG)
    return DirectoryStore(volume, CATALOG, container_bytes_max=container_bytes_max)


def verified(store: ArchiveStore, archive: str = ARCHIVE) -> VerificationReport:
    report: VerificationReport | None = None
    for step in store.verify(archive):
        assert report is None, "the report comes last"
        report = step
    assert report is not None
    return report
