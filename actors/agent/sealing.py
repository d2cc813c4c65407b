"""Which keys and codecs the archives of a task have. The master key stays in here; blocks leave compressed and encrypted."""

from __future__ import annotations

from typing import Final

from rbcore.archive.block import COMPRESSION_LEVELS, BlockCodec
from rbcore.archive.keys import derive_data_key, key_id
from rbcore.archive.manifest import is_archive_name
from rbcore.archive.model import Cipher
from rbcore.errors import InvalidRequest, ProtocolViolation, Refused
from rbcore.messages import Archive
from rbcore.vocabulary import NO_CRYPTO

_CIPHERS: Final = {
    NO_CRYPTO: Cipher.NONE,
    "AES-256-GCM": Cipher.AES_256_GCM,
    "ChaCha20-Poly1305": Cipher.CHACHA20_POLY1305,
}


class Sealing:
    """Codecs for archives with one kind of crypto, under one master key."""

    def __init__(self, crypto: str, master_key: bytes) -> None:
        """Raises ``InvalidRequest`` for a crypto that this agent does not have."""
        cipher = _CIPHERS.get(crypto)
        if cipher is None:
            raise InvalidRequest(f"This client has no cipher {crypto!r}; it has {', '.join(_CIPHERS)}.")
        self.cipher = cipher
        self._master_key = master_key

    def __repr__(self) -> str:
        return f"<Sealing {self.cipher.name}>"

    @property
    def key_id(self) -> str:
        """Names the master key; empty without a cipher."""
        return "" if self.cipher is Cipher.NONE else key_id(self._master_key)

    def codec(self, archive: str, compression: str = "None") -> BlockCodec:
        """A codec for one thread at a time. ``compression``: a pool's compression type; any, for opening."""
        if not is_archive_name(archive):
            raise ProtocolViolation(f"{archive!r} is no name of an archive")
        if compression not in COMPRESSION_LEVELS:
            raise InvalidRequest(f"{compression!r} is no compression type.")
        archive_id = bytes.fromhex(archive)
        key = None if self.cipher is Cipher.NONE else derive_data_key(self._master_key, archive_id, self.cipher)
        return BlockCodec(archive_id, self.cipher, key, level=COMPRESSION_LEVELS[compression])


def sealing_of(archive: Archive, master_key: bytes) -> Sealing:
    """For reading an archive. Raises ``Refused`` when it was encrypted under another master key than this client's."""
    sealing = Sealing(archive.crypto, master_key)
    if archive.key_id != sealing.key_id:
        raise Refused(
            f"Archive {archive.archive} is encrypted with the key {archive.key_id or '(none)'}; this client has the key "
            f"{sealing.key_id or '(none)'}. Put the master key it was made with in place."
        )
    return sealing
