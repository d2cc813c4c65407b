"""Records of native cartridges: every damaged bit is detected, lengths are never trusted, the golden cartridge reads for ever."""

from __future__ import annotations

import contextlib
import hashlib
import random
from pathlib import Path

import msgspec
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from rbcore.errors import Damaged, ProtocolViolation, RbError
from rbcore.tape import native
from rbcore.tape.native import (
    BlockPlace,
    IndexRow,
    MapEntry,
    PartTrailer,
    RecordHeader,
    RecordKind,
    parse_record,
    seal_record,
)
from rbcore.tape.native_write import AppendPoint, NativeWriter
from rbcore.tape.spanning import join_parts
from tests.tape.model import ARCHIVE, CARTRIDGE, HEADER, ROOT, Tape, block, carry_out, label

GOLDEN = Path(__file__).parent / "golden"


def small_cartridge() -> Tape:
    tape = Tape()
    writer = NativeWriter(AppendPoint.fresh(label(), CARTRIDGE, 1))
    writer.begin(ARCHIVE, 1, HEADER)
    writer.add(block(0, 300) + block(3, 200) + block(9, 100))
    writer.finish(ROOT, 7)
    carry_out(writer, tape)
    writer.close()
    carry_out(writer, tape)
    return tape


def test_every_flipped_bit_of_every_record_is_found() -> None:
    for position, one in enumerate(small_cartridge().objects):
        if one is None or position == 0:
            continue
        for bit in range(len(one) * 8):
            broken = bytearray(one)
            broken[bit // 8] ^= 1 << bit % 8
            with pytest.raises((Damaged, ProtocolViolation)):
                parse_record(broken)


def test_every_flipped_bit_of_the_cartridge_is_told_by_a_scan() -> None:
    whole = small_cartridge()
    source = random.Random(3)
    for position, one in enumerate(whole.objects):
        if one is None:
            continue
        for bit in source.sample(range(len(one) * 8), 64):
            broken = bytearray(one)
            broken[bit // 8] ^= 1 << bit % 8
            tape = Tape(objects=[*whole.objects])
            tape.objects[position] = bytes(broken)
            assert tape.scan().findings, (position, bit)


@given(st.binary(max_size=400), st.booleans())
def test_garbage_is_refused_and_nothing_else(garbage: bytes, with_magic: bool) -> None:
    with pytest.raises((Damaged, ProtocolViolation)):
        parse_record(native.MAGIC + garbage if with_magic else garbage)


def record(kind: RecordKind, payload: bytes, **fields: object) -> bytes:
    values: dict[str, object] = {"kind": kind, "use": 1, "cartridge": CARTRIDGE, "position": 50, **fields}
    if kind in native.PART_KINDS:
        values = {"part": 1, "archive": ARCHIVE, "sequence": 0 if kind is RecordKind.ARCHIVE else 9, **values}
    return bytes(seal_record(msgspec.convert(values, RecordHeader, strict=False), payload)[0])


@pytest.mark.parametrize(
    "raw",
    [
        record(RecordKind.LABEL, b"x"),
        record(RecordKind.LABEL, b"x", position=1, sequence=1),
        record(RecordKind.LABEL, b"x", position=1, part=1),
        record(RecordKind.ARCHIVE, b"x", sequence=2),
        record(RecordKind.ARCHIVE, b"x", part=0),
        record(RecordKind.CONTAINER, b"x", sequence=0),
        record(RecordKind.CONTAINER, b"x", sequence=48),
        record(RecordKind.CONTAINER, b"x", first_block=3, first_offset=1),
        record(RecordKind.CONTAINER, b"x", first_block=2**63),
        record(RecordKind.CONTAINER, b"x", first_block=native.NO_BLOCK, first_offset=1),
        record(RecordKind.MAP, b"x", first_block=1),
        record(RecordKind.INDEX, b"x"),
        record(RecordKind.INDEX, b"x", count=2, sequence=2),
        record(RecordKind.INDEX, b"x", count=1, archive=ARCHIVE),
        record(RecordKind.CONTAINER, b"x", use=0),
    ],
)
def test_a_whole_record_that_says_what_cannot_be_is_refused(raw: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        parse_record(raw)


def test_an_unknown_version_is_no_damage() -> None:
    raw = bytearray(record(RecordKind.CONTAINER, b"x"))
    raw[4] = 2
    raw[128:160] = blake3(bytes(raw[:128])).update(bytes(raw[160:])).digest()
    with pytest.raises(ProtocolViolation, match="version 2"):
        parse_record(raw)


GOOD_TRAILER = PartTrailer(
    final=True,
    next_tag="",
    blocks=3,
    first_block=4,
    last_block=9,
    stored_bytes=900,
    maps=[MapEntry(3, 4, 2), MapEntry(6, 9, 1)],
    ended_ns=1,
    blocks_total=3,
    root=ROOT,
)


@pytest.mark.parametrize(
    "change",
    [
        {"root": b""},
        {"final": False},
        {"blocks_total": 2},
        {"next_tag": "X"},
        {"first_block": -1},
        {"last_block": 5},
        {"blocks": 0},
        {"maps": []},
        {"maps": [MapEntry(3, 5, 3)]},
        {"maps": [MapEntry(3, 4, 1), MapEntry(3, 9, 2)]},
        {"maps": [MapEntry(3, 4, 1), MapEntry(77, 9, 2)]},
    ],
)
def test_trailers_that_contradict_themselves_are_refused(change: dict[str, object]) -> None:
    native.check_trailer(GOOD_TRAILER, 9)
    with pytest.raises(ProtocolViolation):
        native.check_trailer(msgspec.structs.replace(GOOD_TRAILER, **change), 9)


def parsed(kind: RecordKind, payload: bytes, **fields: object) -> native.Record:
    return parse_record(record(kind, payload, **fields))


def test_places_are_a_sequence() -> None:
    rows = [BlockPlace(n * n, 1 + n, n, 100 + n, 1, 0) for n in range(20)]
    places = native.Places()
    places.extend(rows[:7])
    places.extend(rows[7:])
    assert list(places) == rows
    assert (places[3], places[-1], list(places[4:9])) == (rows[3], rows[-1], rows[4:9])
    assert [len(places.below(block)) for block in (0, 1, 2, 17, 10**6)] == [0, 1, 2, 5, 20]
    assert places.stored_bytes() == sum(row.length for row in rows)
    with pytest.raises(IndexError):
        places[20]
    places.clear()
    assert not places
    assert places == native.Places()
    assert places != []


def test_maps_come_back_and_wrong_ones_are_refused() -> None:
    places = [BlockPlace(4, 1, 0, 200, 1, 0), BlockPlace(7, 2, 65_000, 4_000_000, 2, 1)]
    assert native.decode_map(parsed(RecordKind.MAP, native.encode_map(places))) == native.Places(
        native.encode_map(places)
    )
    for wrong in (
        [places[1], places[0]],
        [BlockPlace(4, 0, 0, 200, 1, 0)],
        [BlockPlace(4, 9, 0, 200, 1, 0)],
        [BlockPlace(4, 1, 2**20, 200, 1, 0)],
        [BlockPlace(4, 1, 0, 2**30, 1, 0)],
        [BlockPlace(4, 1, 0, 96, 1, 0)],
        [BlockPlace(4, 1, 0, 200, 7, 0)],
        [BlockPlace(4, 1, 0, 200, 1, 2)],
    ):
        with pytest.raises(ProtocolViolation):
            native.decode_map(parsed(RecordKind.MAP, native.encode_map(wrong)))
    with pytest.raises(ProtocolViolation):
        native.decode_map(parsed(RecordKind.MAP, native.encode_map(places)[:-1]))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1500))
def test_an_index_of_any_size_comes_back_from_its_records(parts: int) -> None:
    rows = [IndexRow(3 + 12 * n, ARCHIVE, n + 1, HEADER, GOOD_TRAILER, 9) for n in range(parts)]
    payloads = native.index_payloads(rows, native.RECORD_BYTES_MIN)
    records = [
        parsed(RecordKind.INDEX, payload, position=100_000 + n, sequence=n, count=len(payloads))
        for n, payload in enumerate(payloads)
    ]
    assert native.decode_index(records) == rows
    if len(records) > 1:
        with pytest.raises(ProtocolViolation):
            native.decode_index(records[:-1])


def test_an_index_cannot_name_parts_that_overlap_or_lie_behind_it() -> None:
    row = IndexRow(3, ARCHIVE, 1, HEADER, GOOD_TRAILER, 9)
    for rows in ([row, row], [msgspec.structs.replace(row, position=45)], [msgspec.structs.replace(row, position=2)]):
        (payload,) = native.index_payloads(rows, native.RECORD_BYTES_MIN)
        with pytest.raises(ProtocolViolation):
            native.decode_index([parsed(RecordKind.INDEX, payload, count=1)])


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_payloads_with_a_right_digest_and_wrong_contents_raise_nothing_but_refusals(data: st.DataObject) -> None:
    """Somebody who writes records as we do, with any MessagePack or bytes inside, cannot make a reader fail otherwise."""
    kind = data.draw(st.sampled_from(RecordKind))
    good = msgspec.msgpack.encode(
        data.draw(st.sampled_from([HEADER, GOOD_TRAILER, label(), [[1, 2]], 2**40, b"x" * 9]))
    )
    payload = bytearray(good)
    for _ in range(data.draw(st.integers(0, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    fields: dict[str, object] = {"position": 1} if kind is RecordKind.LABEL else {}
    if kind is RecordKind.INDEX:
        fields["count"] = 1
    one = parsed(kind, bytes(payload), **fields)
    for decode in (native.decode_label, native.decode_part_header, native.decode_trailer, native.decode_map):
        try:
            decode(one)
        except RbError:
            continue
    with contextlib.suppress(RbError):
        native.decode_index([one])


def test_the_golden_cartridge_reads_and_is_written_the_same() -> None:
    """The bytes of version 1, as a listing: length and SHA-256 of each object, and the first records in full."""
    tape = small_cartridge()
    lines = ["filemark" if one is None else f"{len(one)} {hashlib.sha256(one).hexdigest()}" for one in tape.objects]
    assert lines == (GOLDEN / "native-v1.txt").read_text().split("\n")[:-1]
    stored = bytes.fromhex((GOLDEN / "native-v1-records.hex").read_text().replace("\n", ""))
    assert stored == b"".join(one for one in tape.objects if one is not None)
    (archive,) = join_parts([tape.scan()])
    assert archive.whole
    assert [place.block for place in archive.parts[0].places] == [0, 3, 9]
