"""Blocks: what was sealed comes out, and nothing else does."""

from __future__ import annotations

import contextlib
import struct

import pytest
import xxhash
import zstandard
from blake3 import blake3
from Crypto.Cipher import AES, ChaCha20_Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from rbcore.archive.block import (
    AUTHENTICATED_BYTES,
    HEADER_BYTES,
    NO_NONCE,
    NUMBER_MAX,
    BlockCodec,
    iter_blocks,
    parse_header,
)
from rbcore.archive.model import BLOCK_BYTES_MAX, BlockFlag, BlockKind, Cipher, Compression
from rbcore.errors import Damaged, ProtocolViolation, RbError
from tests.archive.samples import ARCHIVE_ID, KEY, nonce_for

CIPHERS = list(Cipher)


def codec(cipher: Cipher = Cipher.NONE, level: int | None = None, key: bytes = KEY) -> BlockCodec:
    return BlockCodec(ARCHIVE_ID, cipher, None if cipher is Cipher.NONE else key, level=level)


def with_check(block: bytes | bytearray, *, digest: bool = True) -> bytes:
    """A block whose header was changed by somebody who knows the format: digest and check are right again."""
    made = bytearray(block)
    if digest:
        made[56:88] = blake3(made[96:]).digest()
    made[88:96] = struct.pack("<Q", xxhash.xxh3_64_intdigest(bytes(made[:88])))
    return bytes(made)


@given(
    plaintext=st.binary(min_size=1, max_size=5000) | st.binary(min_size=1, max_size=20).map(lambda one: one * 300),
    cipher=st.sampled_from(CIPHERS),
    level=st.sampled_from([None, 1, 3, 9]),
    kind=st.sampled_from(list(BlockKind)),
    number=st.integers(0, NUMBER_MAX),
)
def test_what_was_sealed_is_opened(
    plaintext: bytes, cipher: Cipher, level: int | None, kind: BlockKind, number: int
) -> None:
    block = codec(cipher, level).seal(kind, number, plaintext, nonce_for(cipher, 1))
    header = parse_header(block)
    assert (header.kind, header.number, header.plain_length) == (kind, number, len(plaintext))
    assert header.block_length == len(block)
    assert codec(cipher).open(block) == plaintext


def test_the_largest_block() -> None:
    plaintext = bytes(BLOCK_BYTES_MAX)
    for level in (None, 1):
        assert codec(Cipher.AES_256_GCM, level).open(
            codec(Cipher.AES_256_GCM, level).seal(BlockKind.PAYLOAD, 0, plaintext, b"n" * 12)
        ) == plaintext  # fmt: skip
    with pytest.raises(ValueError, match="out of bounds"):
        codec().seal(BlockKind.PAYLOAD, 0, plaintext + b"x")


def test_a_frame_that_is_not_smaller_is_not_kept() -> None:
    incompressible = blake3(b"seed").digest(length=5000)
    assert parse_header(codec(level=9).seal(BlockKind.PAYLOAD, 0, incompressible)).compression is Compression.NONE
    assert parse_header(codec(level=1).seal(BlockKind.PAYLOAD, 0, bytes(5000))).compression is Compression.ZSTD


@pytest.mark.parametrize("cipher", [Cipher.AES_256_GCM, Cipher.CHACHA20_POLY1305])
def test_another_library_opens_it_as_the_document_says(cipher: Cipher) -> None:
    plaintext = b"what the document says is what it takes " * 100
    block = bytes(codec(cipher, 3).seal(BlockKind.PAYLOAD, 7, plaintext, b"twelve bytes"))
    other = (
        AES.new(KEY, AES.MODE_GCM, nonce=block[40:52])
        if cipher is Cipher.AES_256_GCM
        else ChaCha20_Poly1305.new(key=KEY, nonce=block[40:52])
    )
    other.update(block[:AUTHENTICATED_BYTES])
    frame = other.decrypt_and_verify(block[HEADER_BYTES:-16], block[-16:])
    assert zstandard.ZstdDecompressor().decompress(frame) == plaintext


@pytest.mark.parametrize("cipher", CIPHERS)
@pytest.mark.parametrize("level", [None, 3])
def test_every_single_bit_flip_is_found(cipher: Cipher, level: int | None) -> None:
    block = codec(cipher, level).seal(BlockKind.PAYLOAD, 5, b"forty bytes or so " * 5, nonce_for(cipher, 1))
    reader = codec(cipher)
    for bit in range(8 * len(block)):
        block[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(Damaged):
            reader.open(block)
        block[bit // 8] ^= 1 << (bit % 8)
    assert reader.open(block)


@pytest.mark.parametrize("cipher", [Cipher.AES_256_GCM, Cipher.CHACHA20_POLY1305])
def test_whoever_keeps_the_blocks_cannot_change_them(cipher: Cipher) -> None:
    """Digest and check hold against accidents; the tag holds against somebody who makes them anew."""
    reader = codec(cipher)
    block = codec(cipher, 3).seal(BlockKind.PAYLOAD, 5, b"secret " * 50, nonce_for(cipher, 1))
    for position in [*range(AUTHENTICATED_BYTES), *range(HEADER_BYTES, len(block))]:
        for bit in range(8):
            changed = bytearray(block)
            changed[position] ^= 1 << bit
            with pytest.raises(RbError):
                reader.open(with_check(changed))


def test_plaintext_is_not_accepted_in_an_encrypted_archive() -> None:
    forged = codec().seal(BlockKind.PAYLOAD, 5, b"do this instead")
    with pytest.raises(ProtocolViolation, match="cipher NONE"):
        codec(Cipher.AES_256_GCM).open(forged)


def test_a_block_of_another_archive_is_not_accepted() -> None:
    other = BlockCodec(b"o" * 16).seal(BlockKind.PAYLOAD, 5, b"payload")
    with pytest.raises(Damaged, match="belongs to archive"):
        codec().open(other)


def test_the_wrong_key_says_so() -> None:
    block = codec(Cipher.AES_256_GCM).seal(BlockKind.PAYLOAD, 5, b"payload", b"n" * 12)
    with pytest.raises(Damaged, match="not its key"):
        codec(Cipher.AES_256_GCM, key=b"k" * 32).open(block)


@pytest.mark.parametrize("announced", [2**62, BLOCK_BYTES_MAX + 1, 1001, 999])
def test_a_frame_cannot_unfold_to_more_than_the_header_says(announced: int) -> None:
    """A zstd frame header that announces 4 EiB must not be believed, nor one that is a byte off."""
    frame = zstandard.ZstdCompressor(write_content_size=True).compress(bytes(1000))
    lying = bytearray(frame[:4] + bytes([0xE0]) + struct.pack("<Q", announced) + frame[7:])
    assert zstandard.frame_content_size(lying) == announced
    forged = codec().seal(BlockKind.PAYLOAD, 5, bytes(lying))
    struct.pack_into("<BBQII", forged, 6, Compression.ZSTD, Cipher.NONE, 5, 1000, len(lying))
    with pytest.raises(Damaged, match="announces"):
        codec().open(with_check(forged))


def test_a_frame_without_its_size_or_with_something_behind_it_is_refused() -> None:
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1000))
    sized = zstandard.ZstdCompressor(write_content_size=True).compress(bytes(1000))
    for frame in (unsized, sized + b"more", sized[:-1], b"no frame at all"):
        forged = codec().seal(BlockKind.PAYLOAD, 5, frame)
        struct.pack_into("<BBQII", forged, 6, Compression.ZSTD, Cipher.NONE, 5, 1000, len(frame))
        with pytest.raises(Damaged):
            codec().open(with_check(forged))


@settings(max_examples=500)
@given(fields=st.dictionaries(st.integers(0, 55), st.integers(0, 255), min_size=1, max_size=12))
def test_a_header_that_says_anything_raises_one_of_two_errors(fields: dict[int, int]) -> None:
    block = codec(level=3).seal(BlockKind.MANIFEST, 5, b"abc" * 100, flags=BlockFlag.MANIFEST_BEGINS)
    for offset, value in fields.items():
        block[offset] = value
    with contextlib.suppress(Damaged, ProtocolViolation):
        assert len(codec().open(with_check(block))) <= BLOCK_BYTES_MAX


@given(st.binary(max_size=300) | st.binary(max_size=200).map(lambda rest: b"RBB1\x01\x01\x00\x00" + rest))
def test_garbage_raises_an_error_with_an_address(garbage: bytes) -> None:
    with pytest.raises((Damaged, ProtocolViolation)):
        codec().open(garbage)
    if garbage:
        with pytest.raises((Damaged, ProtocolViolation)):
            list(iter_blocks(garbage))


@pytest.mark.parametrize(
    ("offset", "value", "what"),
    [
        (4, 2, "version 2"),
        (5, 9, "kind 9"),
        (6, 2, "compression 2"),
        (7, 3, "cipher 3"),
        (52, 1, "flags 0x1"),
        (15, 0x80, "number"),
        (19, 0x01, "plain length"),
        (40, 1, "nonce"),
    ],
)
def test_unknown_or_forbidden_values_are_named(offset: int, value: int, what: str) -> None:
    block = codec().seal(BlockKind.PAYLOAD, 5, b"payload")
    block[offset] = value
    with pytest.raises(ProtocolViolation, match=what):
        parse_header(with_check(block))


@pytest.mark.parametrize("flags", [2, 3, 6, 0x80, 0x8000])
def test_flags_that_are_not_known_are_refused_beside_those_that_are(flags: int) -> None:
    block = codec().seal(BlockKind.MANIFEST, 5, b"manifest", flags=BlockFlag.MANIFEST_BEGINS)
    struct.pack_into("<H", block, 52, flags)
    with pytest.raises(ProtocolViolation, match="flags"):
        parse_header(with_check(block))


def test_blocks_in_a_buffer_are_views_of_it() -> None:
    blocks = [bytes(codec().seal(BlockKind.PAYLOAD, number, b"x" * (number + 1))) for number in range(5)]
    found = list(iter_blocks(b"".join(blocks)))
    assert [header.number for header, _ in found] == list(range(5))
    assert [bytes(payload) for _, payload in found] == [b"x" * (number + 1) for number in range(5)]
    with pytest.raises(Damaged, match="cut short by 1 bytes"):
        list(iter_blocks(b"".join(blocks)[:-1]))


def test_misuse_is_a_bug_and_said_to_be_one() -> None:
    with pytest.raises(ValueError, match="key"):
        BlockCodec(ARCHIVE_ID, Cipher.AES_256_GCM)
    with pytest.raises(ValueError, match="key"):
        BlockCodec(ARCHIVE_ID, Cipher.NONE, KEY)
    with pytest.raises(ValueError, match="16 bytes"):
        BlockCodec(b"short")
    with pytest.raises(ValueError, match="nonce"):
        codec(Cipher.AES_256_GCM).seal(BlockKind.PAYLOAD, 0, b"x", NO_NONCE)
