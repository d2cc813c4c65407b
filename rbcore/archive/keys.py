"""Keys of an archive: the data key, the fingerprint of the master key, the client's signature of the root.

``docs/format.md``, "Keys". AEAD is in ``block.py`` (``cryptography`` is 8 times as fast there); what happens once per archive is
done with pycryptodome, so each is a check of the other in the tests.
"""

from __future__ import annotations

from typing import Final

from Crypto.Hash import SHA256
from Crypto.Protocol.KDF import HKDF
from Crypto.Signature import eddsa

from rbcore.archive.model import Cipher

MASTER_KEY_BYTES: Final = 32
DATA_KEY_BYTES: Final = 32
_DATA_KEY_CONTEXT: Final = b"rbmedia data key v1\0"
_KEY_ID_CONTEXT: Final = b"rbmedia key id v1\0"
_ROOT_CONTEXT: Final = b"rbmedia-archive-root-v1\0"


def derive_data_key(master_key: bytes, archive_id: bytes, cipher: Cipher) -> bytes:
    """The 32-byte key that encrypts the blocks of one archive with one cipher: HKDF-SHA256, salted with the archive id.

    A key per archive keeps random 96-bit nonces far from the 2**32 blocks at which NIST SP 800-38D draws its line.
    """
    _check_master_key(master_key)
    if len(archive_id) != 16:
        raise ValueError(f"an archive id has 16 bytes, not {len(archive_id)}")
    return _hkdf(master_key, archive_id, _DATA_KEY_CONTEXT + bytes([cipher]))


def key_id(master_key: bytes) -> str:
    """32 hex digits that name the master key and say nothing about it or the data keys (another HKDF context)."""
    _check_master_key(master_key)
    return _hkdf(master_key, b"", _KEY_ID_CONTEXT)[:16].hex()


def public_key(seed: bytes) -> bytes:
    """The Ed25519 public key, 32 bytes, of a private seed of 32 bytes."""
    exported = eddsa.import_private_key(seed).public_key().export_key(format="raw")
    assert isinstance(exported, bytes)
    return exported


def sign(seed: bytes, message: bytes) -> bytes:
    """Ed25519 (RFC 8032) signature, 64 bytes."""
    return bytes(eddsa.new(eddsa.import_private_key(seed), "rfc8032").sign(message))


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether ``signature`` is that of ``public``'s owner. False, too, when key or signature are no such thing."""
    try:
        eddsa.new(eddsa.import_public_key(public), "rfc8032").verify(message, signature)
    except ValueError:
        return False
    return True


def root_message(archive_id: bytes, root: bytes) -> bytes:
    """What the client signs for an archive."""
    return _ROOT_CONTEXT + archive_id + root


def sign_root(seed: bytes, archive_id: bytes, root: bytes) -> bytes:
    return sign(seed, root_message(archive_id, root))


def verify_root(public: bytes, archive_id: bytes, root: bytes, signature: bytes) -> bool:
    return verify(public, root_message(archive_id, root), signature)


def _hkdf(master_key: bytes, salt: bytes, context: bytes) -> bytes:
    derived = HKDF(master_key, DATA_KEY_BYTES, salt, SHA256, context=context)
    assert isinstance(derived, bytes)
    return derived


def _check_master_key(master_key: bytes) -> None:
    if len(master_key) != MASTER_KEY_BYTES:
        raise ValueError(f"a master key has {MASTER_KEY_BYTES} bytes, not {len(master_key)}")
