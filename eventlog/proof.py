"""``audit prove``: that one event is in the log under a signed checkpoint, as one file.

The file holds the record's payload, the hash before it, the Merkle path from its hash to the signed tree head, and the checkpoint.
``eventlog/verifier.py`` checks it with nothing but a Python interpreter; ``docs/format-log.md`` says how to do it with anything else.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from eventlog.checkpoint import Checkpoint
from eventlog.log_reader import LogReader
from eventlog.merkle import inclusion_path, root_from_path
from eventlog.record import HASH_BYTES, genesis_trailer, payload_of, record_hash, trailer_of
from rbcore.errors import Damaged, NotFound, Refused

PROOF_FORMAT = "rbmedia-log-proof-v1"


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a log with what proves it. Bytes are hex."""

    format: str
    position: int
    payload: str
    previous_hash: str
    path: list[str]
    """Sibling hashes from the record's hash upwards."""
    checkpoint: Checkpoint

    def to_json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def prove(path: Path, position: int) -> Proof:
    """Prove that event ``position`` is in the log in directory ``path``, under its newest checkpoint.

    Raises ``NotFound`` for a log or an event that is not there, ``Refused`` when no checkpoint covers the event yet, ``Damaged`` when what
    is stored does not lead to the signed tree head.
    """
    with LogReader(path) as reader:
        size = reader.size()
        if not 1 <= position <= size:
            raise NotFound(f"The log in {path} has events 1 to {size}; there is no event {position}.")
        checkpoint = reader.newest_checkpoint()
        covered = checkpoint.head().size if checkpoint else 0
        if checkpoint is None or covered < position:
            raise Refused(
                f"Event {position} is not under a signed checkpoint yet; the newest covers {covered} events. "
                "Checkpoints are signed every 10,000 events and when the daemon stops."
            )
        value = reader.value_at(position)
        before = reader.value_at(position - 1) if position > 1 else None
        if value is None or (before is None and position > 1):
            raise Damaged(f"The log in {path} has lost event {position} or the one before it. Run 'audit verify'.")
        previous = genesis_trailer(reader.log_id) if before is None else trailer_of(before)
        siblings = inclusion_path(position - 1, covered, reader.tree_head)
    leaf = record_hash(previous, payload_of(value))
    if root_from_path(leaf, position - 1, covered, siblings) != checkpoint.head().root:
        raise Damaged(
            f"Event {position} cannot be proved: the log does not lead to the tree head that was signed over {covered} events. "
            "Run 'audit verify'."
        )
    return Proof(
        format=PROOF_FORMAT,
        position=position,
        payload=payload_of(value).hex(),
        previous_hash=previous[-HASH_BYTES:].hex(),
        path=[sibling.hex() for sibling in siblings],
        checkpoint=checkpoint,
    )
