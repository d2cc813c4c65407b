"""Blocks: the unit that is compressed, encrypted, sent, stored and checked. Byte table: ``docs/format.md``, "Block".

``BlockCodec`` seals and opens the blocks of one archive; one per worker thread, because it keeps compression contexts. All that
matters for speed (zstd, AEAD, BLAKE3) runs in C without the interpreter lock, once over each byte; the only copies are the
compressed frame and the finished block.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, TypeAlias

import msgspec
import xxhash
import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from rbcore.archive.model import BLOCK_BYTES_MAX, BlockFlag, BlockKind, Cipher, Compression
from rbcore.errors import Damaged, ProtocolViolation

Buffer: TypeAlias = bytes | bytearray | memoryview

MAGIC: Final = b"RBB1"
FORMAT_VERSION: Final = 1
HEADER_BYTES: Final = 96
AUTHENTICATED_BYTES: Final = 56
"""The header up to the digest: associated data of the AEAD."""
ROOTED_BYTES: Final = 88
"""The header up to its check: what the root is computed over."""
TAG_BYTES: Final = 16
STORED_BYTES_MAX: Final = BLOCK_BYTES_MAX + TAG_BYTES
"""Largest stored payload: a frame that is not smaller than the plaintext is not kept."""
NO_NONCE: Final = bytes(12)
NUMBER_MAX: Final = 2**63 - 1

COMPRESSION_LEVELS: Final[dict[str, int | None]] = {"None": None, "fast": 1, "optimal": 3, "best": 9}
"""zstd level by the pool's ``compression_type``. Figures: ``docs/format.md``, "Compression"."""

_FIELDS: Final = struct.Struct("<4sBBBBQII16s12sI")
_CHECK: Final = struct.Struct("<Q")
assert _FIELDS.size == AUTHENTICATED_BYTES
assert AUTHENTICATED_BYTES + 32 == ROOTED_BYTES
assert ROOTED_BYTES + _CHECK.size == HEADER_BYTES

_KINDS: Final[dict[int, BlockKind]] = {int(kind): kind for kind in BlockKind}
_COMPRESSIONS: Final[dict[int, Compression]] = {int(one): one for one in Compression}
_CIPHERS: Final[dict[int, Cipher]] = {int(one): one for one in Cipher}


class BlockHeader(msgspec.Struct, frozen=True, gc=False):
    """A header whose check was right and whose values are known and in bounds."""

    kind: BlockKind
    compression: Compression
    cipher: Cipher
    number: int
    plain_length: int
    stored_length: int
    """Bytes of the payload as stored, AEAD tag included."""
    archive_id: bytes
    nonce: bytes
    digest: bytes
    """BLAKE3-256 of the stored payload."""
    flags: int
    """``BlockFlag`` bits."""
    raw: bytes
    """The 96 bytes themselves."""

    @property
    def block_length(self) -> int:
        """Header and payload."""
        return HEADER_BYTES + self.stored_length


def parse_header(buffer: Buffer, offset: int = 0) -> BlockHeader:
    """The header at ``offset``.

    Raises ``Damaged`` when the bytes are not a header that somebody wrote (too short, magic, check), ``ProtocolViolation`` when
    they are, but say something this reader does not know or allow. Lengths are in bounds afterwards.
    """
    raw = bytes(buffer[offset : offset + HEADER_BYTES])
    if len(raw) < HEADER_BYTES:
        raise Damaged(f"block header cut short: {len(raw)} of {HEADER_BYTES} bytes")
    if raw[:4] != MAGIC:
        raise Damaged(f"no block header: magic is {raw[:4].hex()}, not {MAGIC.hex()}")
    if _CHECK.unpack_from(raw, ROOTED_BYTES)[0] != xxhash.xxh3_64_intdigest(raw[:ROOTED_BYTES]):
        raise Damaged("block header does not match its check")
    _, version, kind_id, compression_id, cipher_id, number, plain_length, stored_length, archive_id, nonce, flags = (
        _FIELDS.unpack_from(raw)
    )
    if version != FORMAT_VERSION:
        raise ProtocolViolation(f"block format version {version} is not known (this reader knows {FORMAT_VERSION})")
    kind, compression, cipher = _KINDS.get(kind_id), _COMPRESSIONS.get(compression_id), _CIPHERS.get(cipher_id)
    if kind is None or compression is None or cipher is None:
        raise ProtocolViolation(
            f"block {number}: kind {kind_id}, compression {compression_id} or cipher {cipher_id} is not known"
        )
    # As numbers: the complement of a flag is taken within the flags that are known, and would let unknown ones pass.
    if flags & ~int(BlockFlag.MANIFEST_BEGINS if kind is BlockKind.MANIFEST else 0):
        raise ProtocolViolation(f"block {number}: flags {flags:#x} are not known for kind {kind.name}")
    if number > NUMBER_MAX:
        raise ProtocolViolation(f"block number {number} is over {NUMBER_MAX}")
    if not 1 <= plain_length <= BLOCK_BYTES_MAX:
        raise ProtocolViolation(f"block {number}: plain length {plain_length} is not within 1..{BLOCK_BYTES_MAX}")
    tag = 0 if cipher is Cipher.NONE else TAG_BYTES
    body = stored_length - tag
    if compression is Compression.NONE:
        if body != plain_length:
            raise ProtocolViolation(
                f"block {number}: stored length {stored_length} does not fit plain length {plain_length}"
            )
    elif not 1 <= body < plain_length:
        raise ProtocolViolation(f"block {number}: compressed length {body} is not within 1..{plain_length - 1}")
    if cipher is Cipher.NONE and nonce != NO_NONCE:
        raise ProtocolViolation(f"block {number}: a nonce without a cipher")
    return BlockHeader(
        kind,
        compression,
        cipher,
        number,
        plain_length,
        stored_length,
        archive_id,
        nonce,
        raw[AUTHENTICATED_BYTES:ROOTED_BYTES],
        flags,
        raw,
    )


def check_stored(header: BlockHeader, payload: Buffer) -> None:
    """Raises ``Damaged`` unless ``payload`` is what the header was made for. Needs no key; releases the interpreter lock."""
    if len(payload) != header.stored_length:
        raise Damaged(
            f"block {header.number}: {len(payload)} bytes of payload, the header says {header.stored_length}",
            data={"block": header.number},
        )
    if blake3(payload).digest() != header.digest:
        raise Damaged(f"block {header.number}: payload does not match its digest", data={"block": header.number})


def iter_blocks(buffer: Buffer) -> Iterator[tuple[BlockHeader, memoryview]]:
    """Headers and payloads (views into ``buffer``, unchecked) of the whole blocks that ``buffer`` consists of.

    Raises as ``parse_header`` does, and ``Damaged`` when the last block is not whole.
    """
    view = memoryview(buffer)
    offset, end = 0, len(view)
    while offset < end:
        header = parse_header(view, offset)
        start = offset + HEADER_BYTES
        offset += header.block_length
        if offset > end:
            raise Damaged(f"block {header.number} is cut short by {offset - end} bytes", data={"block": header.number})
        yield header, view[start:offset]


class BlockCodec:
    """Seals and opens the blocks of one archive. Not shared between threads."""

    __slots__ = ("_aead", "_archive_id", "_cipher", "_compressor", "_decompressor")

    def __init__(
        self, archive_id: bytes, cipher: Cipher = Cipher.NONE, key: bytes | None = None, *, level: int | None = None
    ) -> None:
        """``key``: 32 bytes, the archive's data key (``keys.derive_data_key``); None exactly without a cipher.

        ``level``: zstd level for ``seal``, None to store as it is. ``open`` handles both.
        """
        if len(archive_id) != 16:
            raise ValueError(f"an archive id has 16 bytes, not {len(archive_id)}")
        if (cipher is Cipher.NONE) != (key is None) or (key is not None and len(key) != 32):
            raise ValueError("a cipher needs a key of 32 bytes, and no cipher none")
        self._archive_id = archive_id
        self._cipher = cipher
        self._aead = _aead(cipher, key)
        self._compressor = (
            None
            if level is None
            else zstandard.ZstdCompressor(level=level, write_checksum=False, write_content_size=True)
        )
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=BLOCK_BYTES_MAX)

    def seal(
        self, kind: BlockKind, number: int, plaintext: Buffer, nonce: bytes = NO_NONCE, *, flags: int = 0
    ) -> bytearray:
        """Header and payload in one buffer. ``nonce``: 12 bytes, never used twice with this key; ``NO_NONCE`` without a cipher."""
        plain_length = len(plaintext)
        if not 1 <= plain_length <= BLOCK_BYTES_MAX or not 0 <= number <= NUMBER_MAX:
            raise ValueError(f"block {number} of {plain_length} bytes is out of bounds")
        if len(nonce) != 12 or (self._aead is None) != (nonce == NO_NONCE):
            raise ValueError("a cipher needs a nonce of 12 bytes, and no cipher none")
        body, compression = plaintext, Compression.NONE
        if self._compressor is not None:
            frame = self._compressor.compress(plaintext)
            if len(frame) < plain_length:
                body, compression = frame, Compression.ZSTD
        stored_length = len(body) + (0 if self._aead is None else TAG_BYTES)
        block = bytearray(HEADER_BYTES + stored_length)
        _FIELDS.pack_into(
            block, 0, MAGIC, FORMAT_VERSION, kind, compression, self._cipher, number, plain_length, stored_length,
            self._archive_id, nonce, flags,
        )  # fmt: skip
        view = memoryview(block)
        if self._aead is None:
            view[HEADER_BYTES:] = body
        else:
            self._aead.encrypt_into(nonce, body, bytes(view[:AUTHENTICATED_BYTES]), view[HEADER_BYTES:])
        view[AUTHENTICATED_BYTES:ROOTED_BYTES] = blake3(view[HEADER_BYTES:]).digest()
        _CHECK.pack_into(block, ROOTED_BYTES, xxhash.xxh3_64_intdigest(view[:ROOTED_BYTES]))
        return block

    def open(self, block: Buffer) -> bytes:
        """Plaintext of one whole stored block, everything checked. Raises ``Damaged``, ``ProtocolViolation``."""
        view = memoryview(block)
        header = parse_header(view)
        return self.open_payload(header, view[HEADER_BYTES:])

    def open_payload(self, header: BlockHeader, payload: Buffer) -> bytes:
        """The same with the header parsed already.

        Of an encrypted archive nothing unauthenticated is accepted: a block that claims another cipher is refused, so that
        whoever keeps the blocks cannot pass off plaintext of his own.
        """
        check_stored(header, payload)
        if header.archive_id != self._archive_id:
            raise Damaged(
                f"block {header.number} belongs to archive {header.archive_id.hex()}, not {self._archive_id.hex()}",
                data={"block": header.number},
            )
        if header.cipher is not self._cipher:
            raise ProtocolViolation(
                f"block {header.number} has cipher {header.cipher.name}, the archive {self._cipher.name}"
            )
        body = payload if self._aead is None else self._decrypt(self._aead, header, payload)
        if header.compression is Compression.NONE:
            return bytes(body)  # no copy of what was decrypted: it is bytes already
        return self._decompress(header, body)

    def _decrypt(self, aead: AESGCM | ChaCha20Poly1305, header: BlockHeader, payload: Buffer) -> bytes:
        try:
            return aead.decrypt(header.nonce, payload, header.raw[:AUTHENTICATED_BYTES])
        except InvalidTag:
            raise Damaged(
                f"block {header.number} does not authenticate: it was changed, or this is not its key",
                data={"block": header.number},
            ) from None

    def _decompress(self, header: BlockHeader, frame: Buffer) -> bytes:
        """The frame must announce exactly the header's length before anything is allocated, and hold exactly that."""
        try:
            announced = zstandard.frame_content_size(frame)
            if announced != header.plain_length:
                raise Damaged(
                    f"block {header.number}: frame announces {announced} bytes, the header {header.plain_length}",
                    data={"block": header.number},
                )
            plaintext = self._decompressor.decompress(frame, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise Damaged(
                f"block {header.number} cannot be decompressed: {error}", data={"block": header.number}
            ) from None
        if len(plaintext) != header.plain_length:
            raise Damaged(
                f"block {header.number}: {len(plaintext)} bytes of plaintext, the header says {header.plain_length}",
                data={"block": header.number},
            )
        return plaintext


def _aead(cipher: Cipher, key: bytes | None) -> AESGCM | ChaCha20Poly1305 | None:
    if key is None:
        return None
    return AESGCM(key) if cipher is Cipher.AES_256_GCM else ChaCha20Poly1305(key)
