"""Signed checkpoints: the Merkle tree head of the log, signed with Ed25519 by a key made at first start.

What is signed is a short text that a person can read and any tool can parse::

    rbmedia-log-checkpoint-v1
    log 0123456789abcdef0123456789abcdef
    size 10000
    root <64 hex digits>
    time_ns 1700000000000000000

``size`` is the number of events, ``root`` the tree head over their record hashes (which contain each other, so the head fixes
the chain too), ``time_ns`` the time of the newest of them. Whoever keeps one checkpoint outside of the daemon's reach can later
tell whether anything at or before ``size`` was changed, even by somebody who holds the signing key.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from Crypto.PublicKey import ECC
from Crypto.Signature import eddsa

from eventlog.record import HASH_BYTES, LOG_ID_BYTES
from rbcore.errors import UNDECODABLE, Damaged, Refused

CHECKPOINT_LABEL = "rbmedia-log-checkpoint-v1"
SIGNING_KEY_FILE = "log-signing-key.pem"


class TreeHead(msgspec.Struct, frozen=True):
    """What a checkpoint states."""

    log_id: bytes
    size: int
    root: bytes
    time_ns: int

    def text(self) -> str:
        return (
            f"{CHECKPOINT_LABEL}\nlog {self.log_id.hex()}\nsize {self.size}\nroot {self.root.hex()}\n"
            f"time_ns {self.time_ns}\n"
        )


class Checkpoint(msgspec.Struct, frozen=True):
    """A signed tree head. ``signature`` and ``public_key`` are hex."""

    text: str
    signature: str
    public_key: str

    def head(self) -> TreeHead:
        """What the text states. Raises ``Damaged`` when it is not a checkpoint text."""
        try:
            label, log, size, root, time_ns = self.text.split("\n")[:5]
            head = TreeHead(
                log_id=bytes.fromhex(log.removeprefix("log ")),
                size=int(size.removeprefix("size ")),
                root=bytes.fromhex(root.removeprefix("root ")),
                time_ns=int(time_ns.removeprefix("time_ns ")),
            )
        except ValueError as error:
            raise Damaged(f"A checkpoint of the event log has a malformed text: {self.text[:80]!r}") from error
        sound = len(head.log_id) == LOG_ID_BYTES and len(head.root) == HASH_BYTES and label == CHECKPOINT_LABEL
        if not sound or head.text() != self.text:
            raise Damaged(f"A checkpoint of the event log has a malformed text: {self.text[:80]!r}")
        return head

    def signature_holds(self) -> bool:
        """Whether ``public_key`` signed ``text``. Malformed hex or keys are simply not a signature."""
        try:
            key = eddsa.import_public_key(bytes.fromhex(self.public_key))
            eddsa.new(key, "rfc8032").verify(self.text.encode(), bytes.fromhex(self.signature))
        except ValueError:
            return False
        return True


encode_checkpoint = msgspec.msgpack.Encoder().encode
_decode_checkpoint = msgspec.msgpack.Decoder(Checkpoint).decode


def decode_checkpoint(value: bytes) -> Checkpoint:
    """Raises ``Damaged``."""
    try:
        return _decode_checkpoint(value)
    except UNDECODABLE as error:
        raise Damaged(f"A stored checkpoint of the event log cannot be decoded: {error}") from error


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
