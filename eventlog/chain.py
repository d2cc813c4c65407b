"""The tip of the chain: turns payloads into sealed records, and makes a checkpoint when one is due.

Nothing changes until the store says that the records are on stable storage: :meth:`Chain.seal` returns what to write together with
where the chain will stand, and :meth:`Chain.adopt` moves it there. So a commit that failed leaves no trace.

A commit needs only the hashes. The Merkle tree is folded behind it, :data:`FOLDED_AT_ONCE` records at a time: in the middle of a lone
commit the same work takes three times as long, because it finds the processor's caches cold.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

import msgspec

from eventlog.checkpoint import Checkpoint, TreeHead
from eventlog.merkle import SUBTREE_LEAVES, Frontier
from eventlog.record import HASH_BYTES, LEAF_TAG, genesis_trailer
from eventlog.signing import Signer

CHECKPOINT_EVERY_EVENTS = 10_000
FOLDED_AT_ONCE = 64


class Chain:
    """State of the chain after ``size`` records."""

    __slots__ = (
        "_behind",
        "_frontier",
        "checkpoint_every_events",
        "checkpointed_size",
        "log_id",
        "signer",
        "size",
        "subtrees",
        "trailer",
    )

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
        self._frontier = Frontier() if frontier is None else frontier
        self._behind: list[bytes] = []
        """Hashes of adopted records that the frontier does not have yet."""
        self.size = self._frontier.size
        self.checkpointed_size = checkpointed_size
        self.checkpoint_every_events = checkpoint_every_events
        self.subtrees: list[tuple[int, bytes]] = []
        """(number, root) of subtrees that were completed: whoever stores them takes them out."""

    def seal(self, payloads: Iterable[bytes], newest_time_ns: int) -> Sealed:
        """Records for ``payloads`` in order. ``newest_time_ns`` is the time of the last of them."""
        trailer = self.trailer
        values: list[bytes] = []
        for payload in payloads:
            trailer = LEAF_TAG + sha256(trailer + payload).digest()
            values.append(payload + trailer)
        checkpoint = None
        if self.size + len(values) - self.checkpointed_size >= self.checkpoint_every_events:
            checkpoint = self._sign([value[-HASH_BYTES:] for value in values], trailer, newest_time_ns)
        return Sealed(values, checkpoint, trailer)

    def adopt(self, sealed: Sealed) -> None:
        """The sealed records are on stable storage."""
        self.trailer = sealed.trailer
        self.size += len(sealed.values)
        self._behind += sealed.values
        if len(self._behind) >= FOLDED_AT_ONCE:
            self.fold()
        if sealed.checkpoint is not None:
            self.checkpointed_size = self.size

    def fold(self) -> Frontier:
        """Bring the tree's right edge up to ``size``."""
        frontier = self._frontier
        for value in self._behind:
            completed = frontier.append(value[-HASH_BYTES:])
            if completed is not None:
                self.subtrees.append((frontier.size // SUBTREE_LEAVES - 1, completed))
        self._behind = []
        assert frontier.size == self.size, "the tree has every record"
        return frontier

    def root(self) -> bytes:
        """Merkle tree head over all records so far."""
        return self.fold().root()

    def sign(self, newest_time_ns: int) -> Checkpoint:
        """A checkpoint of all records so far."""
        return self._sign([], self.trailer, newest_time_ns)

    def _sign(self, leaves: Iterable[bytes], trailer: bytes, newest_time_ns: int) -> Checkpoint:
        """A checkpoint of all records so far and of ``leaves`` after them."""
        frontier = self.fold().copy()
        for leaf in leaves:
            frontier.append(leaf)
        head = trailer[-HASH_BYTES:]
        return self.signer.sign(TreeHead(self.log_id, frontier.size, head, frontier.root(), newest_time_ns))


class Sealed(msgspec.Struct, frozen=True):
    """What one commit writes besides its index entries, and where the chain stands after it."""

    values: Sequence[bytes]
    checkpoint: Checkpoint | None
    trailer: bytes
