"""The Merkle tree against the definition in RFC 6962, and against the RFC's own test vectors."""

from __future__ import annotations

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from eventlog.audit_worker import complete_levels, peaks_of
from eventlog.merkle import EMPTY_ROOT, SUBTREE_LEAVES, Frontier, complete_root, inclusion_path, root_from_path, root_of

VECTORS = ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
"""Of the Certificate Transparency reference implementation."""


def leaf(data: bytes) -> bytes:
    return sha256(b"\0" + data).digest()


def definition(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, word for word."""
    if not leaves:
        return sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\1" + definition(leaves[:split]) + definition(leaves[split:])).digest()


def test_the_reference_vectors() -> None:
    leaves = [leaf(bytes.fromhex(vector)) for vector in VECTORS]
    assert [root_of(leaves[: count + 1]).hex() for count in range(8)] == list(ROOTS)
    assert root_of([]) == EMPTY_ROOT


@given(st.integers(0, 300))
def test_a_growing_tree_is_the_tree(count: int) -> None:
    leaves = [leaf(bytes([number % 256, number >> 8])) for number in range(count)]
    frontier = Frontier()
    for one in leaves:
        frontier.append(one)
    assert frontier.root() == definition(leaves)
    if count and not count & (count - 1):
        assert complete_root(leaves) == definition(leaves)
    levels = complete_levels(leaves)
    for size in {0, 1, count // 3, count}:
        if size <= count:
            assert Frontier(size, peaks_of(levels, size)).root() == definition(leaves[:size])


@given(st.data(), st.integers(1, 200))
def test_a_path_leads_to_the_root_and_to_no_other(data: st.DataObject, size: int) -> None:
    leaves = [leaf(bytes([number])) for number in range(size)]
    index = data.draw(st.integers(0, size - 1))
    path = inclusion_path(index, size, lambda start, end: definition(leaves[start:end]))
    root = definition(leaves)
    assert root_from_path(leaves[index], index, size, path) == root
    other = data.draw(st.integers(0, size - 1).filter(lambda other: other != index)) if size > 1 else None
    if other is not None:
        assert root_from_path(leaves[other], index, size, path) != root
        assert root_from_path(leaves[index], other, size, path) != root
        assert root_from_path(leaves[index], index, size, path[:-1]) != root
    assert root_from_path(leaves[index], index, size, [*path, root]) != root
    assert root_from_path(leaves[index], size, size, path) is None


def test_subtrees_add_up() -> None:
    leaves = [leaf(number.to_bytes(4, "big")) for number in range(3 * SUBTREE_LEAVES + 5)]
    one_by_one, by_subtree = Frontier(), Frontier()
    roots = [root for one in leaves if (root := one_by_one.append(one)) is not None]
    assert roots == [complete_root(leaves[i * SUBTREE_LEAVES : (i + 1) * SUBTREE_LEAVES]) for i in range(3)]
    for root in roots:
        by_subtree.append_subtree(root)
    for one in leaves[3 * SUBTREE_LEAVES :]:
        by_subtree.append(one)
    assert by_subtree.root() == one_by_one.root()
    assert by_subtree.size == one_by_one.size
