"""Signed checkpoints: the Merkle tree head of the log, signed with Ed25519 by a key made at first start.

What is signed is a short text that a person can read and any tool can parse::

    rbmedia-log-checkpoint-v1
    log 0123456789abcdef0123456789abcdef
    size 10000
    head <64 hex digits>
    root <64 hex digits>
    time_ns 1700000000000000000

``size`` is the number of events, ``head`` the hash of the last of them (which fixes the whole chain: enough to verify a log), ``root`` the
tree head over all their hashes (from which single events are proved), ``time_ns`` the time of the newest of them. Whoever keeps one checkpoint outside of the daemon's reach can later
tell whether anything at or before ``size`` was changed, even by somebody who holds the signing key.
"""

from __future__ import annotations

import msgspec

from eventlog.record import HASH_BYTES, LOG_ID_BYTES
from rbcore.errors import UNDECODABLE, Damaged

CHECKPOINT_LABEL = "rbmedia-log-checkpoint-v1"


class TreeHead(msgspec.Struct, frozen=True):
    """What a checkpoint states."""

    log_id: bytes
    size: int
    head: bytes
    """Hash of the last record; of an empty log 32 zeros."""
    root: bytes
    time_ns: int

    def text(self) -> str:
        return (
            f"{CHECKPOINT_LABEL}\nlog {self.log_id.hex()}\nsize {self.size}\nhead {self.head.hex()}\n"
            f"root {self.root.hex()}\ntime_ns {self.time_ns}\n"
        )


class Checkpoint(msgspec.Struct, frozen=True):
    """A signed tree head. ``signature`` and ``public_key`` are hex."""

    text: str
    signature: str
    public_key: str

    def head(self) -> TreeHead:
        """What the text states. Raises ``Damaged`` when it is not a checkpoint text."""
        try:
            label, log, size, last, root, time_ns = self.text.split("\n")[:6]
            head = TreeHead(
                log_id=bytes.fromhex(log.removeprefix("log ")),
                size=int(size.removeprefix("size ")),
                head=bytes.fromhex(last.removeprefix("head ")),
                root=bytes.fromhex(root.removeprefix("root ")),
                time_ns=int(time_ns.removeprefix("time_ns ")),
            )
        except ValueError as error:
            raise Damaged(f"A checkpoint of the event log has a malformed text: {self.text[:80]!r}") from error
        sound = len(head.log_id) == LOG_ID_BYTES and len(head.root) == len(head.head) == HASH_BYTES
        if not sound or label != CHECKPOINT_LABEL or head.text() != self.text:
            raise Damaged(f"A checkpoint of the event log has a malformed text: {self.text[:80]!r}")
        return head


encode_checkpoint = msgspec.msgpack.Encoder().encode
_decode_checkpoint = msgspec.msgpack.Decoder(Checkpoint).decode


def decode_checkpoint(value: bytes) -> Checkpoint:
    """Raises ``Damaged``."""
    try:
        return _decode_checkpoint(value)
    except UNDECODABLE as error:
        raise Damaged(f"A stored checkpoint of the event log cannot be decoded: {error}") from error
