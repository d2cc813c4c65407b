"""The log's signing key (Ed25519): made at first start, used for checkpoints, checked by whoever holds its public half.

Apart from ``eventlog.checkpoint``, so that whoever only reads checkpoints does not load a cryptographic library.
"""

from __future__ import annotations

import os
from pathlib import Path

from Crypto.PublicKey import ECC
from Crypto.Signature import eddsa

from eventlog.checkpoint import Checkpoint, TreeHead
from rbcore.errors import Refused

SIGNING_KEY_FILE = "log-signing-key.pem"


def signature_holds(checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint's key signed its text. Malformed hex or keys are simply not a signature."""
    try:
        key = eddsa.import_public_key(bytes.fromhex(checkpoint.public_key))
        eddsa.new(key, "rfc8032").verify(checkpoint.text.encode(), bytes.fromhex(checkpoint.signature))
    except ValueError:
        return False
    return True


class Signer:
    """The log's signing key (Ed25519)."""

    def __init__(self, seed: bytes) -> None:
        assert len(seed) == 32, "an Ed25519 seed has 32 bytes"
        key = ECC.construct(curve="Ed25519", seed=seed)
        self._signature = eddsa.new(key, "rfc8032")
        self.public_key: str = key.public_key().export_key(format="raw").hex()

    def sign(self, head: TreeHead) -> Checkpoint:
        text = head.text()
        return Checkpoint(text, self._signature.sign(text.encode()).hex(), self.public_key)


def load_or_make_signer(secrets: Path) -> Signer:
    """The key in ``secrets/log-signing-key.pem``; made at first start, readable by the owner only.

    Raises ``Refused`` when the file is there and is not an Ed25519 private key.
    """
    secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = secrets / SIGNING_KEY_FILE
    if not path.exists():
        _write_new_key(path)
    try:
        key = ECC.import_key(path.read_text(encoding="ascii"))
        seed = key.seed if key.has_private() else None
    except (ValueError, OSError) as error:
        raise Refused(f"The signing key of the event log, {path}, cannot be read: {error}. Restore it.") from error
    if seed is None or key.curve != "Ed25519":
        raise Refused(
            f"The signing key of the event log, {path}, is not an Ed25519 private key. Restore the right file."
        )
    return Signer(seed)


def _write_new_key(path: Path) -> None:
    """Complete or not there: written under another name, flushed, then linked to its own (which never replaces a key)."""
    pem = ECC.generate(curve="Ed25519").export_key(format="PEM")
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        if not path.exists():
            os.link(fresh, path)
    finally:
        fresh.unlink()
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
