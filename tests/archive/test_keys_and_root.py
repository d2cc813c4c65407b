"""Keys are what the document says and what another library says; a root can be gone on with from anywhere."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from rbcore.archive import keys
from rbcore.archive.block import iter_blocks
from rbcore.archive.model import Cipher
from rbcore.archive.root import RootHasher
from rbcore.errors import ProtocolViolation
from tests.archive.samples import ARCHIVE_ID, plaintexts, sealed_archive

MASTER = bytes(range(100, 132))


def hkdf_of_rfc_5869(key: bytes, salt: bytes, info: bytes) -> bytes:
    extracted = hmac.digest(salt or bytes(32), key, hashlib.sha256)
    return hmac.digest(extracted, info + b"\x01", hashlib.sha256)


def test_derivation_is_what_the_document_says() -> None:
    for cipher in Cipher:
        expected = hkdf_of_rfc_5869(MASTER, ARCHIVE_ID, b"rbmedia data key v1\0" + bytes([cipher]))
        assert keys.derive_data_key(MASTER, ARCHIVE_ID, cipher) == expected
    assert keys.key_id(MASTER) == hkdf_of_rfc_5869(MASTER, b"", b"rbmedia key id v1\0")[:16].hex()


def test_keys_of_archives_and_ciphers_are_unrelated() -> None:
    made = {keys.derive_data_key(MASTER, bytes([n]) * 16, cipher) for n in range(20) for cipher in Cipher}
    assert len(made) == 20 * len(Cipher)
    assert keys.key_id(MASTER) not in {key.hex()[:32] for key in made}


def test_ed25519_of_rfc_8032() -> None:
    seed = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    public = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    assert keys.public_key(seed) == public
    signature = keys.sign(seed, b"\x72")
    assert signature.hex().startswith("92a009a9f0d4cab8720e820b5f642540")
    assert keys.verify(public, b"\x72", signature)


@given(message=st.binary(max_size=100), seed=st.binary(min_size=32, max_size=32))
def test_another_library_agrees_on_signatures(message: bytes, seed: bytes) -> None:
    other = Ed25519PrivateKey.from_private_bytes(seed)
    assert keys.public_key(seed) == other.public_key().public_bytes_raw()
    assert keys.sign(seed, message) == other.sign(message)


@given(public=st.binary(max_size=40), signature=st.binary(max_size=70))
def test_a_signature_that_is_none_is_false_and_no_error(public: bytes, signature: bytes) -> None:
    assert not keys.verify(public, b"message", signature)


def test_a_root_is_signed_for_its_archive() -> None:
    seed, root = b"s" * 32, b"r" * 32
    signature = keys.sign_root(seed, ARCHIVE_ID, root)
    public = keys.public_key(seed)
    assert keys.verify_root(public, ARCHIVE_ID, root, signature)
    assert not keys.verify_root(public, b"o" * 16, root, signature)
    assert not keys.verify_root(public, ARCHIVE_ID, b"q" * 32, signature)
    assert not keys.verify_root(keys.public_key(b"t" * 32), ARCHIVE_ID, root, signature)


def test_short_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        keys.key_id(b"short")
    with pytest.raises(ValueError, match="16 bytes"):
        keys.derive_data_key(MASTER, b"short", Cipher.NONE)


def test_a_root_goes_on_from_anywhere() -> None:
    blocks = sealed_archive(plaintexts([10, 20, 30, 40, 50]))
    headers = [header for header, _ in iter_blocks(b"".join(blocks))]
    whole = RootHasher(ARCHIVE_ID)
    sealed = RootHasher(ARCHIVE_ID)
    stations = [(whole.value, whole.last_block)]
    for header, block in zip(headers, blocks, strict=True):
        whole.add(header)
        sealed.add_block(block)
        stations.append((whole.value, whole.last_block))
    assert sealed.value == whole.value
    assert len({value for value, _ in stations}) == len(stations)
    for position, (value, last_block) in enumerate(stations):
        resumed = RootHasher(ARCHIVE_ID, resume=value, last_block=last_block)
        for header in headers[position:]:
            resumed.add(header)
        assert resumed.value == whole.value


def test_a_root_takes_ascending_numbers_only() -> None:
    block = sealed_archive(plaintexts([10, 20]))[1]
    root = RootHasher(ARCHIVE_ID)
    root.add_block(block)
    with pytest.raises(ProtocolViolation, match="ascend"):
        root.add_block(block)
    with pytest.raises(ProtocolViolation, match="32 bytes"):
        RootHasher(ARCHIVE_ID, resume=b"short", last_block=1)
