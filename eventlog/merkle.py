"""Merkle tree over record hashes, as in RFC 6962 section 2.1 (Certificate Transparency), with the record hash as leaf hash.

The tree of n leaves splits at the largest power of two below n; an inner node is ``SHA-256(0x01 || left || right)``. It is never
stored whole: appending needs only the roots of the complete subtrees that end at the right edge (:class:`Frontier`, one hash per
event on average), and proofs are made from leaves plus the stored roots of complete subtrees of :data:`SUBTREE_LEAVES` leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256

NODE_TAG = b"\x01"
SUBTREE_LEVEL = 12
SUBTREE_LEAVES = 1 << SUBTREE_LEVEL
"""Leaves under one stored subtree root: 32 bytes per 4,096 events make a proof cheap in a log of any length."""

EMPTY_ROOT = sha256().digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(NODE_TAG + left + right).digest()


class Frontier:
    """The right edge of a growing tree: roots of the complete subtrees that make it up, largest first.

    Peak sizes are the binary digits of ``size``.
    """

    __slots__ = ("peaks", "size")

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        assert len(peaks) == size.bit_count(), "one peak per binary digit of the size"
        self.size = size
        self.peaks = list(peaks)

    def copy(self) -> Frontier:
        return Frontier(self.size, self.peaks)

    def append(self, leaf: bytes) -> bytes | None:
        """Add a leaf. Returns the root of the subtree of ``SUBTREE_LEAVES`` leaves that it completed, if it did."""
        node = leaf
        rest = self.size
        level = 0
        completed = None
        peaks = self.peaks
        while rest & 1:
            node = sha256(NODE_TAG + peaks.pop() + node).digest()
            rest >>= 1
            level += 1
            if level == SUBTREE_LEVEL:
                completed = node
        peaks.append(node)
        self.size += 1
        return completed

    def append_subtree(self, root: bytes) -> None:
        """Add ``SUBTREE_LEAVES`` leaves at once. The size must be a multiple of that."""
        assert self.size % SUBTREE_LEAVES == 0, "a subtree starts at a multiple of its size"
        node = root
        rest = self.size >> SUBTREE_LEVEL
        while rest & 1:
            node = node_hash(self.peaks.pop(), node)
            rest >>= 1
        self.peaks.append(node)
        self.size += SUBTREE_LEAVES

    def root(self) -> bytes:
        """Tree head of all leaves so far; of the empty tree ``SHA-256("")``."""
        if not self.peaks:
            return EMPTY_ROOT
        node = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            node = node_hash(peak, node)
        return node


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Tree head over record hashes that are all at hand."""
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    return frontier.root()


def complete_root(leaves: Sequence[bytes]) -> bytes:
    """Root over a power of two of leaves, level by level: the fast way for bulk verification."""
    assert leaves, "a complete tree has leaves"
    assert len(leaves) & (len(leaves) - 1) == 0, "a complete tree has a power of two of leaves"
    level = list(leaves)
    hashed = sha256
    while len(level) > 1:
        level = [hashed(NODE_TAG + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=True)]
    return level[0]


def inclusion_path(index: int, size: int, subtree_root: Callable[[int, int], bytes]) -> list[bytes]:
    """Audit path of leaf ``index`` in the tree of ``size`` leaves, from the leaf upwards (RFC 6962, 2.1.1).

    ``subtree_root(start, end)`` gives the tree head over leaves ``start <= i < end``.
    """
    assert 0 <= index < size, "the leaf is in the tree"
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        split = start + (1 << (end - start - 1).bit_length() - 1)
        if index < split:
            path.append(subtree_root(split, end))
            end = split
        else:
            path.append(subtree_root(start, split))
            start = split
    path.reverse()
    return path


def root_from_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The tree head that an audit path leads to (RFC 9162, 2.1.3.2); None when the path does not fit index and size."""
    if not 0 <= index < size:
        return None
    first, last = index, size - 1
    node = leaf
    for sibling in path:
        if last == 0:
            return None
        if first & 1 or first == last:
            node = node_hash(sibling, node)
            while not first & 1 and first:
                first >>= 1
                last >>= 1
        else:
            node = node_hash(node, sibling)
        first >>= 1
        last >>= 1
    return node if last == 0 else None
