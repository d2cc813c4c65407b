"""A writing session and the scan, against a tape that is a list: capacity, early warning, crashes, bogus records, many cartridges.

What must hold: whatever was acknowledged as durable is found by a scan and reads back; whatever the scan shows is what was written; an archive
that was finished is whole from its cartridges alone.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbcore.errors import NotAllowedNow, ProtocolViolation
from rbcore.tape import native_write
from rbcore.tape.native import BlockPlace, RecordKind, decode_map, parse_record
from rbcore.tape.native_scan import Contents, NativeScanner, append_after_index
from rbcore.tape.native_write import AppendPoint, NativeWriter, Phase, WriteRecord
from rbcore.tape.spanning import join_parts
from tests.tape.model import ARCHIVE, CARTRIDGE, HEADER, ROOT, Crash, Tape, block, carry_out, label

SIZES = st.sampled_from([1, 40, 5_000, 65_000, 65_280, 65_281, 150_000, 400_000])


def fresh(tape: Tape, number: int) -> NativeWriter:
    writer = NativeWriter(AppendPoint.fresh(label(f"RB{number:04}L9"), bytes([number]) * 16, 1))
    carry_out(writer, tape)
    return writer


def phase_of(writer: NativeWriter) -> Phase:
    return writer.phase


def check_blocks(tape: Tape, contents: Contents, written: dict[tuple[bytes, int], bytes]) -> None:
    """Everything the scan shows reads back as it was written."""
    for part in contents.parts:
        for place in part.places:
            assert tape.read(part, place) == written[part.archive, place.block]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(SIZES, min_size=1, max_size=12),
    st.lists(st.integers(300_000, 1_500_000), min_size=6, max_size=6),
    st.integers(0, 400_000),
    st.data(),
)
def test_an_archive_spans_cartridges_and_is_whole(
    sizes: list[int], warnings: list[int], reserve: int, data: st.DataObject
) -> None:
    """Whatever early warning and the physical end cut, the parts make the archive; only durable blocks are relied on."""
    blocks = {(ARCHIVE, 3 * n): block(3 * n, size) for n, size in enumerate(sizes)}
    numbers = [number for _, number in blocks]
    tapes: list[Tape] = []
    part, header = 1, HEADER
    finished = False
    while not finished:
        assert len(tapes) < 40, "every cartridge takes something"
        warning = data.draw(st.sampled_from(warnings), "early warning") + 60_000 * len(tapes)
        tape = Tape(warning_bytes=warning, capacity_bytes=warning + reserve)
        tapes.append(tape)
        writer = fresh(tape, len(tapes))
        writer.begin(ARCHIVE, part, header)
        finished = False
        for number in (one for one in numbers if one >= header.first_block):
            carry_out(writer, tape)
            if writer.phase is not Phase.PART:
                break
            writer.add(blocks[ARCHIVE, number])
            if data.draw(st.booleans(), "sync"):
                writer.sync()
        if writer.phase is Phase.PART:
            writer.finish(ROOT, 9)
            carry_out(writer, tape)
            finished = phase_of(writer) is Phase.IDLE
        if writer.phase is Phase.SPAN:
            if not writer.dropped and writer.next_block > numbers[-1]:
                writer.finish(ROOT, 9)
                finished = True
            else:
                writer.interrupt(f"RB{len(tapes) + 1:04}L9", 9)
            carry_out(writer, tape)
        if writer.phase is Phase.IDLE:
            writer.close()
            carry_out(writer, tape)
        finished = finished and bool(writer.rows)
        part, header = writer.continuation()
    contents = [tape.scan() for tape in tapes]
    for tape, found in zip(tapes, contents, strict=True):
        assert not found.findings
        check_blocks(tape, found, blocks)
    (archive,) = join_parts(contents)
    assert archive.whole, archive.problems
    assert [place.block for one in archive.parts for place in one.places] == numbers


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_what_was_acknowledged_survives_crashes(data: st.DataObject) -> None:
    """Sessions on one cartridge, each ended by a crash: durable blocks are found, an unfinished part is taken up, finished ones stay."""
    tape = Tape()
    written: dict[tuple[bytes, int], bytes] = {}
    acknowledged: set[tuple[bytes, int]] = set()
    ended: set[tuple[bytes, int]] = set()
    for session in range(data.draw(st.integers(1, 5), "sessions")):
        crash_after = data.draw(st.integers(0, 25), "operations until the crash")
        writer = open_session(tape, session, data)
        try:
            run_session(tape, writer, session, data, crash_at(crash_after), written, acknowledged, ended)
        except Crash:
            survivors = data.draw(st.integers(0, 6), "survivors")
            tape.crash(survivors, data.draw(bogus_records(tape), "bogus"), data.draw(st.booleans(), "ghost"))
        contents = tape.scan()
        check_blocks(tape, contents, written)
        found = {(part.archive, place.block) for part in contents.parts for place in part.places}
        assert acknowledged <= found
        assert ended <= {(part.archive, part.part) for part in contents.parts if part.trailer is not None}
        if contents.label is not None:
            assert contents.append is not None, "one bogus record at the end forbids nothing"


def crash_at(count: int) -> Callable[[], bool]:
    left = iter(range(count))
    return lambda: next(left, None) is None


def bogus_records(tape: Tape) -> st.SearchStrategy[bytes | None]:
    """Nothing, garbage, or any whole record of this very cartridge."""
    records = [one for one in tape.objects if one]
    if not records:
        return st.none()
    return st.one_of(
        st.none(),
        st.binary(min_size=1, max_size=300),
        st.sampled_from(records),
        st.sampled_from(records).map(lambda one: one[:-1] + bytes([one[-1] ^ 1])),
    )


def open_session(tape: Tape, session: int, data: st.DataObject) -> NativeWriter:
    contents = tape.scan()
    if contents.label is None or contents.append is None:
        tape.objects.clear()
        tape.position = 0
        return NativeWriter(AppendPoint.fresh(label(), CARTRIDGE, session + 1))
    if contents.resume is not None:
        start, part = contents.resume
        tape.position = start.position
        return NativeWriter(start, part)
    tape.position = contents.append.position
    return NativeWriter(contents.append)


def run_session(
    tape: Tape,
    writer: NativeWriter,
    session: int,
    data: st.DataObject,
    crash: Callable[[], bool],
    written: dict[tuple[bytes, int], bytes],
    acknowledged: set[tuple[bytes, int]],
    ended: set[tuple[bytes, int]],
) -> None:
    for turn in range(data.draw(st.integers(0, 3), "archives")):
        archive = bytes([session, turn]) * 8
        if writer.phase is Phase.PART:
            interrupted = writer.continuation()[0] - 1
            archive = _open_archive(tape)
        else:
            interrupted = 1
            writer.begin(archive, 1, HEADER)
        added: list[tuple[bytes, int]] = []
        for size in data.draw(st.lists(SIZES, max_size=4), "blocks"):
            number = writer.next_block + data.draw(st.integers(0, 3), "gap")
            written[archive, number] = block(number, size, archive)
            writer.add(written[archive, number])
            added.append((archive, number))
            if data.draw(st.booleans(), "sync"):
                writer.sync()
            carry_out(writer, tape, crash)
            acknowledged |= {one for one in added if one[1] <= writer.durable_block}
        if data.draw(st.booleans(), "finish"):
            writer.finish(ROOT, 9)
        else:
            writer.interrupt("", 9)
        carry_out(writer, tape, crash)
        acknowledged |= set(added)
        ended.add((archive, interrupted))
    if writer.phase is Phase.IDLE:
        writer.close()
        carry_out(writer, tape, crash)


def _open_archive(tape: Tape) -> bytes:
    resume = tape.scan().resume
    assert resume is not None
    return resume[1].archive


def test_reading_one_block_needs_the_map_and_its_records_only() -> None:
    tape = Tape()
    writer = fresh(tape, 1)
    writer.begin(ARCHIVE, 1, HEADER)
    for number in range(6_000):
        writer.add(block(number, 8))
        carry_out(writer, tape)
    writer.add(block(9_000, 200_000))
    writer.finish(ROOT, 1)
    carry_out(writer, tape)
    (row,) = writer.rows
    assert len(row.trailer.maps) == 3
    (part,) = tape.scan().parts
    places: list[BlockPlace] = []
    for entry in row.trailer.maps:
        raw = tape.objects[row.position + entry.sequence]
        assert raw is not None
        places += list(decode_map(parse_record(raw)))
        assert places[-entry.rows].block == entry.first_block
    assert places == list(part.places)
    assert tape.read(part, places[-1]) == block(9_000, 200_000)
    assert tape.read(part, places[4_321]) == block(4_321, 8)


@settings(max_examples=40, deadline=None)
@given(st.integers(1_000, 900_000), st.lists(SIZES, min_size=1, max_size=6))
def test_the_reserve_is_enough_for_the_end_of_a_cartridge(warning: int, sizes: list[int]) -> None:
    """Archives until early warning: with the reserve behind it, trailer and index always fit."""
    tape = Tape(warning_bytes=warning)
    writer = fresh(tape, 1)
    number = 0
    while writer.phase is Phase.IDLE and not writer.full:
        tape.capacity_bytes = max(warning, tape.used()) + writer.reserve_bytes
        writer.begin(number.to_bytes(16), 1, HEADER)
        for one, size in enumerate(sizes):
            if phase_of(writer) is Phase.PART:
                writer.add(block(one, size, number.to_bytes(16)))
                carry_out(writer, tape)
        writer.interrupt("", 1)
        carry_out(writer, tape)
        number += 1
    writer.close()
    carry_out(writer, tape)
    assert writer.phase is Phase.CLOSED
    contents = tape.scan()
    assert not contents.findings
    assert len(contents.parts) == number


def test_a_part_with_too_many_maps_goes_on_in_another_on_the_same_cartridge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_write, "MAPS_MAX", 2)
    tape = Tape()
    writer = fresh(tape, 1)
    writer.begin(ARCHIVE, 1, HEADER)
    number = 0
    while writer.phase is Phase.PART:
        writer.add(block(number, 8))
        carry_out(writer, tape)
        number += 1
    assert writer.phase is Phase.SPAN
    assert not writer.full
    writer.interrupt(writer.label.volume_tag, 1)
    carry_out(writer, tape)
    writer.begin(ARCHIVE, *writer.continuation())
    for again in range(writer.next_block, number + 5):
        writer.add(block(again, 8))
    writer.finish(ROOT, 1)
    carry_out(writer, tape)
    (archive,) = join_parts([tape.scan()])
    assert archive.whole
    assert [place.block for part in archive.parts for place in part.places] == list(range(number + 5))


def three_archives() -> Tape:
    tape = Tape()
    writer = fresh(tape, 1)
    for number in range(3):
        writer.begin(bytes([number]) * 16, 1, HEADER)
        for one in range(4):
            writer.add(block(one, 90_000, bytes([number]) * 16))
        writer.finish(ROOT, 1)
        carry_out(writer, tape)
    writer.close()
    carry_out(writer, tape)
    return tape


INDEX_POSITION = len(three_archives().objects) - 2


@pytest.mark.parametrize("position", range(len(three_archives().objects)))
def test_an_unreadable_object_costs_what_was_in_it(position: int) -> None:
    """At most the blocks that touch the record; the other archives are whole, and the damage is named."""
    tape = three_archives()
    was_filemark = tape.objects[position] is None
    contents = tape.scan(unreadable=[position])
    assert contents.findings[0].position == position
    archives = join_parts([contents])
    assert len(archives) == 3
    assert sum(archive.whole for archive in archives) >= 2
    assert sum(len(part.places) for part in contents.parts) >= 12 - 4
    if was_filemark and position > 2:
        assert all(archive.whole for archive in archives)
    assert (contents.label is None) == (position == 1)
    assert (contents.append is None) == (position in (1, INDEX_POSITION)), "a whole group may hide in the last place"


def test_headers_and_trailers_alone_tell_the_archives() -> None:
    """A scan that passes the containers over knows the same archives and the same place to append."""
    tape = three_archives()
    scanner = NativeScanner()
    fed = 0
    while scanner.position < len(tape.objects):
        one = tape.objects[scanner.position]
        fed += 1
        if one is None:
            scanner.filemark()
            continue
        scanner.record(one)
        if scanner.position > 2 and parse_record(one).header.kind == RecordKind.ARCHIVE:
            scanner.skip_to(tape.objects.index(None, scanner.position) - 1)
    assert fed < len(tape.objects) / 2
    contents, whole = scanner.end(at_end_of_data=True), tape.scan()
    assert not contents.findings
    assert contents.append == whole.append
    assert [one.whole for one in join_parts([contents])] == [True] * 3
    assert [part.trailer for part in contents.parts] == [part.trailer for part in whole.parts]
    with pytest.raises(ValueError, match="open part"):
        scanner.skip_to(10**6)


def test_an_unfinished_part_that_was_passed_over_is_not_overwritten() -> None:
    tape = three_archives()
    scanner = NativeScanner()
    for one in tape.objects[:5]:
        if one is None:
            scanner.filemark()
        else:
            scanner.record(one)
    scanner.skip_to(7)
    contents = scanner.end(at_end_of_data=True)
    assert contents.append is None
    assert contents.resume is None


def test_a_skipped_part_whose_last_blocks_stand_again_must_be_read() -> None:
    """The trailer was written and its filemark was not: the next part begins at what was durable."""
    tape, second = Tape(), Tape()
    writer = fresh(tape, 1)
    writer.begin(ARCHIVE, 1, HEADER)
    writer.add(block(0, 10))
    writer.sync()
    carry_out(writer, tape)
    writer.add(block(1, 10))
    writer.interrupt("", 1)
    while isinstance(operation := writer.next(), WriteRecord):
        tape.write(operation.data)
        writer.done()
    writer.failed()
    other = fresh(second, 2)
    other.begin(ARCHIVE, *writer.continuation())
    other.add(block(1, 10))
    other.finish(ROOT, 1)
    carry_out(other, second)
    whole, after = tape.scan(), second.scan()
    (archive,) = join_parts([whole, after])
    assert archive.whole
    assert [[place.block for place in part.places] for part in archive.parts] == [[0], [1]]
    whole.parts[0].skipped = True
    (archive,) = join_parts([whole, after])
    assert "read as a whole" in archive.problems[0]


def test_a_cartridge_that_ends_in_its_index_is_appended_to_without_a_scan() -> None:
    tape = three_archives()
    records = {n: parse_record(one) for n, one in enumerate(tape.objects) if one is not None and n > 0}
    assert append_after_index(records[1], [records[INDEX_POSITION]]) == tape.scan().append
    with pytest.raises(ProtocolViolation):
        append_after_index(records[1], [records[1]])
    with pytest.raises(ProtocolViolation):
        append_after_index(records[INDEX_POSITION], [records[INDEX_POSITION]])
    again = Tape()
    carry_out(NativeWriter(AppendPoint.fresh(label(), bytes([1]) * 16, 2)), again)
    relabelled = again.objects[1]
    assert relabelled is not None
    with pytest.raises(ProtocolViolation):
        append_after_index(parse_record(relabelled), [records[INDEX_POSITION]])


def test_damage_behind_the_last_finished_group_forbids_writing() -> None:
    tape = three_archives()
    end = len(tape.objects)
    tape.objects += [b"not", b"ours", None]
    contents = tape.scan()
    assert contents.append is None
    assert [finding.position for finding in contents.findings[:2]] == [end, end + 1]
    tape.objects[end + 1 :] = []
    again = tape.scan().append
    assert again is not None
    assert again.position == end


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_a_damaged_cartridge_shows_is_what_was_written(data: st.DataObject) -> None:
    """Records flipped, cut, moved, repeated, lost: a scan never fails, and never shows a block that does not read back."""
    tape = three_archives()
    written = {(bytes([n]) * 16, one): block(one, 90_000, bytes([n]) * 16) for n in range(3) for one in range(4)}
    for _ in range(data.draw(st.integers(1, 5))):
        at, other = (data.draw(st.integers(0, len(tape.objects) - 1)) for _ in range(2))
        record = tape.objects[at] or b""
        bit = data.draw(st.integers(0, max(0, 8 * len(record) - 1)))
        flipped = bytearray(record or b"x")
        flipped[bit // 8 % len(flipped)] ^= 1 << bit % 8
        match data.draw(st.sampled_from(["flip", "cut", "copy", "insert", "lose", "mark"])):
            case "flip":
                tape.objects[at] = bytes(flipped)
            case "cut":
                tape.objects[at] = record[: bit // 8] or None
            case "copy":
                tape.objects[at] = tape.objects[other]
            case "insert":
                tape.objects.insert(at, tape.objects[other])
            case "lose":
                del tape.objects[at]
            case "mark":
                tape.objects.insert(at, None)
    contents = tape.scan()
    check_blocks(tape, contents, written)
    join_parts([contents])


def test_reading_that_was_given_up_gives_no_place_to_append() -> None:
    scanner = NativeScanner()
    scanner.record(label().vol1())
    assert scanner.end(at_end_of_data=False).append is None


def test_records_of_the_use_before_do_not_count() -> None:
    old = three_archives()
    tape = Tape()
    again = NativeWriter(AppendPoint.fresh(label("RB0001L9"), bytes([1]) * 16, 2))
    carry_out(again, tape)
    tape.objects += old.objects[3:]
    contents = tape.scan()
    assert contents.parts == []
    assert contents.append is not None
    assert contents.append.position == 3


def test_a_record_of_an_overwritten_session_at_its_old_place_does_not_count() -> None:
    """Same cartridge, same use, same position, whole: only the chain tells that it is not what follows."""
    tape = Tape()
    first = fresh(tape, 1)
    append = tape.scan().append
    assert append is not None
    first.begin(ARCHIVE, 1, HEADER)
    first.add(block(0, 70_000) + block(1, 70_000))
    first.finish(ROOT, 1)
    carry_out(first, tape)
    ghost = tape.objects[4]
    assert ghost is not None
    tape.position = append.position
    second = NativeWriter(append)
    second.begin(ARCHIVE, 1, msgspec.structs.replace(HEADER, client="another"))
    carry_out(second, tape)
    tape.objects.append(ghost)
    contents = tape.scan()
    assert not contents.parts[0].places
    assert contents.resume is not None
    assert contents.resume[0].position == 4


def test_a_filemark_that_a_crash_left_out_is_written_first() -> None:
    tape = three_archives()
    last_trailer = max(n for n, one in enumerate(tape.objects) if one and n > 1 and parse_record(one).header.kind == 5)
    del tape.objects[last_trailer + 1 :]
    append = tape.scan().append
    assert append is not None
    assert append.filemark_missing
    tape.position = append.position
    writer = NativeWriter(append)
    writer.close()
    carry_out(writer, tape)
    assert tape.objects == three_archives().objects


def test_a_session_refuses_what_would_break_the_cartridge() -> None:
    tape = Tape(warning_bytes=200_000)
    writer = fresh(tape, 1)
    with pytest.raises(NotAllowedNow):
        writer.add(block(0, 1))
    with pytest.raises(NotAllowedNow):
        writer.finish(ROOT, 1)
    writer.begin(ARCHIVE, 1, HEADER)
    with pytest.raises(NotAllowedNow):
        writer.begin(ARCHIVE, 2, HEADER)
    with pytest.raises(NotAllowedNow):
        writer.close()
    with pytest.raises(ProtocolViolation):
        writer.add(block(0, 1, bytes(16)))
    writer.add(block(5, 1))
    with pytest.raises(ProtocolViolation):
        writer.add(block(5, 1))
    for number in range(6, 12):
        writer.add(block(number, 60_000))
    carry_out(writer, tape)
    assert writer.phase is Phase.SPAN
    assert writer.dropped
    assert writer.full
    with pytest.raises(NotAllowedNow):
        writer.finish(ROOT, 1)
    writer.interrupt("RB0002L9", 1)
    carry_out(writer, tape)
    assert writer.rows[0].trailer.last_block + 1 == writer.next_block
    with pytest.raises(NotAllowedNow):
        writer.begin(bytes(16), 1, HEADER)
    writer.close()
    carry_out(writer, tape)
    (archive,) = join_parts([tape.scan()])
    assert not archive.whole
    assert archive.wanted_tags == ["RB0002L9"]


def test_after_a_write_error_the_next_part_goes_on_from_what_was_durable() -> None:
    tape = Tape()
    writer = fresh(tape, 1)
    writer.begin(ARCHIVE, 1, HEADER)
    writer.add(block(0, 100_000))
    writer.sync()
    carry_out(writer, tape)
    writer.add(block(1, 100_000))
    operation = writer.next()
    assert operation is not None
    assert writer.next() == operation
    writer.failed()
    assert writer.next() is None
    part, header = writer.continuation()
    assert (part, header.first_block, header.blocks_before) == (2, 1, 1)
    assert (header.previous_tag, header.previous_cartridge) == ("RB0001L9", bytes([1]) * 16)
