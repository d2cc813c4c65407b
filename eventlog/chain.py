"""The tip of the chain: turns payloads into sealed records, and makes a checkpoint when one is due.

Nothing is changed in place until the store says that the records are on stable storage: :meth:`Chain.seal` returns what to
write together with the chain that will stand afterwards, so a commit that failed leaves no trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

import msgspec

from eventlog.checkpoint import Checkpoint, Signer, TreeHead
from eventlog.merkle import SUBTREE_LEAVES, Frontier
from eventlog.record import LEAF_TAG, genesis_trailer

CHECKPOINT_EVERY_EVENTS = 10_000


class Chain:
    """State of the chain after ``size`` records."""

    __slots__ = ("checkpoint_every_events", "checkpointed_size", "frontier", "log_id", "signer", "trailer")

    def __init__(
        self,
        log_id: bytes,
        signer: Signer,
        *,
        trailer: bytes | None = None,
        frontier: Frontier | None = None,
        checkpointed_size: int = 0,
        checkpoint_every_events: int = CHECKPOINT_EVERY_EVENTS,
    ) -> None:
        self.log_id = log_id
        self.signer = signer
        self.trailer = genesis_trailer(log_id) if trailer is None else trailer
        self.frontier = Frontier() if frontier is None else frontier
        self.checkpointed_size = checkpointed_size
        self.checkpoint_every_events = checkpoint_every_events

    @property
    def size(self) -> int:
        return self.frontier.size

    def seal(self, payloads: Iterable[bytes], newest_time_ns: int) -> Sealed:
        """Records for ``payloads`` in order. ``newest_time_ns`` is the time of the last of them."""
        trailer = self.trailer
        frontier = self.frontier.copy()
        values: list[bytes] = []
        subtrees: list[tuple[int, bytes]] = []
        for payload in payloads:
            digest = sha256(trailer + payload).digest()
            trailer = LEAF_TAG + digest
            values.append(payload + trailer)
            completed = frontier.append(digest)
            if completed is not None:
                subtrees.append((frontier.size // SUBTREE_LEAVES - 1, completed))
        after = self._moved(trailer, frontier, self.checkpointed_size)
        checkpoint = None
        if frontier.size - self.checkpointed_size >= self.checkpoint_every_events:
            checkpoint = after.sign(newest_time_ns)
            after.checkpointed_size = frontier.size
        return Sealed(values, subtrees, checkpoint, after)

    def sign(self, newest_time_ns: int) -> Checkpoint:
        """A checkpoint of all records so far."""
        return self.signer.sign(TreeHead(self.log_id, self.size, self.frontier.root(), newest_time_ns))

    def _moved(self, trailer: bytes, frontier: Frontier, checkpointed_size: int) -> Chain:
        return Chain(
            self.log_id,
            self.signer,
            trailer=trailer,
            frontier=frontier,
            checkpointed_size=checkpointed_size,
            checkpoint_every_events=self.checkpoint_every_events,
        )


class Sealed(msgspec.Struct, frozen=True):
    """What one commit writes besides its index entries."""

    values: Sequence[bytes]
    subtrees: Sequence[tuple[int, bytes]]
    """(subtree number, root) of each subtree that these records completed."""
    checkpoint: Checkpoint | None
    chain: Chain
    """The chain as it stands once the records are stored."""
