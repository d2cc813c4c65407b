"""The tip of the chain: turns payloads into sealed records, and makes a checkpoint when one is due.

Nothing changes until the store says that the records are on stable storage: :meth:`Chain.seal` returns what to write together with
where the chain will stand, and :meth:`Chain.adopt` moves it there. So a commit that failed leaves no trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

import msgspec

from eventlog.checkpoint import Checkpoint, TreeHead
from eventlog.merkle import SUBTREE_LEAVES, Frontier
from eventlog.record import LEAF_TAG, genesis_trailer
from eventlog.signing import Signer

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
        checkpoint = None
        if frontier.size - self.checkpointed_size >= self.checkpoint_every_events:
            checkpoint = self._sign(frontier, newest_time_ns)
        return Sealed(values, subtrees, checkpoint, trailer, frontier)

    def adopt(self, sealed: Sealed) -> None:
        """The sealed records are on stable storage."""
        assert sealed.frontier.size == self.size + len(sealed.values), "records are adopted in order"
        self.trailer = sealed.trailer
        self.frontier = sealed.frontier
        if sealed.checkpoint is not None:
            self.checkpointed_size = sealed.frontier.size

    def sign(self, newest_time_ns: int) -> Checkpoint:
        """A checkpoint of all records so far."""
        return self._sign(self.frontier, newest_time_ns)

    def _sign(self, frontier: Frontier, newest_time_ns: int) -> Checkpoint:
        return self.signer.sign(TreeHead(self.log_id, frontier.size, frontier.root(), newest_time_ns))


class Sealed(msgspec.Struct, frozen=True):
    """What one commit writes besides its index entries, and where the chain stands after it."""

    values: Sequence[bytes]
    subtrees: Sequence[tuple[int, bytes]]
    """(subtree number, root) of each subtree that these records completed."""
    checkpoint: Checkpoint | None
    trailer: bytes
    frontier: Frontier
