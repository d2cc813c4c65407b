"""Containers' headers and the index."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbcore.archive.block import BlockCodec, parse_header
from rbcore.archive.container import (
    ContainerHeader,
    Index,
    aligned,
    container_name,
    container_number,
    parse_container_header,
)
from rbcore.archive.model import BlockFlag, BlockKind
from rbcore.errors import Damaged, ProtocolViolation
from tests.archive.samples import ARCHIVE_ID


def index_of(kinds: list[tuple[BlockKind, int]]) -> Index:
    codec = BlockCodec(ARCHIVE_ID)
    index = Index(ARCHIVE_ID)
    offset = 64
    for number, (kind, flags) in enumerate(kinds):
        header = parse_header(codec.seal(kind, 2 * number, b"x" * (number + 1), flags=flags))
        index.add(header, 1 + number // 3, offset)
        offset += header.block_length
    return index


PAYLOAD, MANIFEST, BEGIN = (
    (BlockKind.PAYLOAD, 0),
    (BlockKind.MANIFEST, 0),
    (BlockKind.MANIFEST, BlockFlag.MANIFEST_BEGINS),
)
KINDS = st.lists(st.sampled_from([PAYLOAD, MANIFEST, BEGIN]), max_size=30)


def test_names_of_containers() -> None:
    assert container_name(1) == "000001.rbc"
    for number in (1, 42, 999_999):
        assert container_number(container_name(number)) == number
    for name in ("000000.rbc", "1.rbc", "0000001.rbc", "000001.rbc.new", "index", "../000001.rbc", "٠٠٠٠٠١.rbc"):
        assert container_number(name) is None


@given(st.integers(0, 2**40))
def test_alignment(length: int) -> None:
    assert aligned(length) % 4096 == 0
    assert 0 <= aligned(length) - length < 4096


def test_every_bit_of_a_container_header_counts() -> None:
    header = ContainerHeader(ARCHIVE_ID, 7, 1234)
    raw = bytearray(header.encode())
    assert parse_container_header(raw) == header
    for bit in range(8 * len(raw)):
        raw[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises((Damaged, ProtocolViolation)):
            parse_container_header(raw)
        raw[bit // 8] ^= 1 << (bit % 8)
    with pytest.raises(Damaged, match="short"):
        parse_container_header(raw[:-1])


@given(KINDS)
def test_an_index_comes_back_and_finds_what_is_in_it(kinds: list[tuple[BlockKind, int]]) -> None:
    index = index_of(kinds)
    again = Index.decode(index.encode())
    assert list(again) == list(index)
    assert (again.containers, len(again)) == (index.containers, len(kinds))
    for position, row in enumerate(index):
        assert again.find(row.block) == row == again[position]
        assert again.position_at(row.container, row.offset) == position
        assert again.position_at(row.container, row.offset + 1) is None
        assert again.find(row.block + 1) is None
    assert again.find(2 * len(kinds)) is None


@given(KINDS)
def test_only_the_last_manifest_is_valid(kinds: list[tuple[BlockKind, int]]) -> None:
    every = [2 * n for n, kind in enumerate(kinds) if kind != PAYLOAD]
    begins = [2 * n for n, kind in enumerate(kinds) if kind == BEGIN]
    index = index_of(kinds)
    assert index.manifest_blocks(last_only=False) == every
    assert index.manifest_blocks(last_only=True) == [n for n in every if not begins or n >= begins[-1]]


def test_rows_in_any_order_are_merged_and_the_first_of_two_counts() -> None:
    codec = BlockCodec(ARCHIVE_ID)
    headers = {number: parse_header(codec.seal(BlockKind.PAYLOAD, number, b"x")) for number in (1, 2, 3, 5)}
    index, strays = Index(ARCHIVE_ID), Index(ARCHIVE_ID)
    for number, offset in ((1, 100), (5, 200)):
        index.add(headers[number], 1, offset)
    for number, offset in ((3, 300), (2, 400), (3, 500), (5, 600)):
        strays.add(headers[number], 2, offset)
    index.merge(strays)
    assert [(row.block, row.container, row.offset) for row in index] == [
        (1, 1, 100),
        (2, 2, 400),
        (3, 2, 300),
        (5, 1, 200),
    ]


def test_every_bit_of_an_index_counts() -> None:
    raw = bytearray(index_of([PAYLOAD, BEGIN]).encode())
    for bit in range(8 * len(raw)):
        raw[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(Damaged):
            Index.decode(bytes(raw))
        raw[bit // 8] ^= 1 << (bit % 8)


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda rest: b"RBI1\x01" + rest))
def test_garbage_is_no_index(garbage: bytes) -> None:
    with pytest.raises(Damaged):
        Index.decode(garbage)
    with contextlib.suppress(Damaged, ProtocolViolation):
        raise AssertionError(parse_container_header(garbage))
