"""LTFS indexes, labels, memory attributes and volumes: hand-made examples read right, whatever is written reads back, what is wrong is refused."""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbcore.errors import Damaged, ProtocolViolation, RbError
from rbcore.tape import ltfs_volume as volume
from rbcore.tape.ltfs import (
    DIRECTORY_DEPTH_MAX,
    Directory,
    Extent,
    File,
    Index,
    PlacementPolicy,
    Pointer,
    Times,
    read_index,
    walk,
    write_index,
)
from rbcore.tape.ltfs_formats import format_time, parse_time
from rbcore.tape.ltfs_volume import Coherency, Label, PartitionEnd, Standing, judge
from rbcore.tape.vol1 import parse_vol1

GOLDEN = Path(__file__).parent / "golden"
UUID = "30a91a08-daae-48d1-ae75-69804e61d2ea"
INDEX_XML = (GOLDEN / "ltfs-index.xml").read_bytes()
LABEL_XML = (GOLDEN / "ltfs-label.xml").read_bytes()
VOL1 = b"VOL1RB0001L" + b" " * 13 + b"LTFS" + b" " * 51 + b"4"


def test_the_hand_made_index_says_what_it_says() -> None:
    index = read_index(INDEX_XML)
    assert index.volume_uuid == UUID
    assert (index.generation, index.highest_uid, index.lock_state) == (3, 4, "unlocked")
    assert (index.location, index.previous) == (Pointer("a", 6), Pointer("b", 20))
    assert index.comment == "A sample LTFS index & its <comment>"
    assert index.policy == PlacementPolicy(1_048_576, ("*.txt",))
    assert index.root.name == "LTFS Volume Name"
    found = dict(walk(index.root))
    assert list(found) == ["directory1", "directory1/binary:fileé.bin", "directory1/100%25 literal"]
    file, link = found["directory1/binary:fileé.bin"], found["directory1/100%25 literal"]
    assert isinstance(file, File)
    assert isinstance(link, File)
    assert file.read_only
    assert file.times.modify == 1769629193_220000000
    assert file.xattrs == {"binary_xattr": b"\x00\x01\x02\xff", "text": b"a value", "empty": b""}
    assert [extent.file_offset for extent in file.extents] == [0, 524_288]
    assert file.extents[1] == Extent(
        file_offset=524_288, partition="b", start_block=8, byte_offset=10, byte_count=100_000
    )
    assert link.symlink == "../target"


def test_unknown_elements_are_written_again() -> None:
    again = write_index(read_index(INDEX_XML))
    assert b"<vendor_note kind='a\"b'><file>kept &amp; as it is</file>\n</vendor_note>" in again
    assert write_index(read_index(again)) == again
    assert dict(walk(read_index(again).root)).keys() == dict(walk(read_index(INDEX_XML).root)).keys()


def test_the_hand_made_label_reads_and_is_written_the_same() -> None:
    label = volume.read_label(VOL1, LABEL_XML)
    assert (label.partition, label.index_partition, label.data_partition) == ("b", "a", "b")
    assert (label.block_bytes, label.compression, label.volume_identifier) == (524_288, True, "RB0001")
    vol1, xml = volume.label_records(label)
    assert vol1 == VOL1
    assert b"".join(xml.split()) == b"".join(LABEL_XML.split())
    assert volume.read_label(vol1, xml) == label
    other = msgspec.structs.replace(label, partition="a")
    volume.check_labels(label, other)
    for wrong in (label, msgspec.structs.replace(other, block_bytes=4096)):
        with pytest.raises(ProtocolViolation):
            volume.check_labels(label, wrong)


@pytest.mark.parametrize(
    "broken",
    [
        VOL1[:-1],
        VOL1 + b" ",
        VOL1.replace(b"VOL1", b"VOL2"),
        VOL1.replace(b"LTFS", b"ACME"),
        VOL1.replace(b"RB0001", b"rb0001"),
        VOL1[:-1] + b"3",
        VOL1[:-2] + b"\xff4",
        VOL1[:20] + b"x" + VOL1[21:],
    ],
)
def test_a_vol1_that_is_not_exactly_one_of_ltfs_is_refused(broken: bytes) -> None:
    with pytest.raises((Damaged, ProtocolViolation)):
        volume.read_label(broken, LABEL_XML)


def replaced(old: bytes, new: bytes) -> bytes:
    assert INDEX_XML.count(old) >= 1, old
    return INDEX_XML.replace(old, new, 1)


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"not xml",
        INDEX_XML[:-20],
        INDEX_XML.replace(b'<?xml version="1.0" encoding="UTF-8"?>\n', b""),
        replaced(b"UTF-8", b"ISO-8859-1"),
        replaced(b"<ltfsindex", b"<!DOCTYPE ltfsindex><ltfsindex"),
        replaced(b"<ltfsindex", b'<!DOCTYPE x [<!ENTITY a "aaaa">]><ltfsindex'),
        INDEX_XML.replace(b"ltfsindex", b"ltfsincrementalindex"),
        replaced(b'version="2.4.0"', b'version="3.0.0"'),
        replaced(b'version="2.4.0"', b""),
        replaced(b"<generationnumber>3", b"<generationnumber>0"),
        replaced(b"<generationnumber>3", b"<generationnumber>-3"),
        replaced(b"<generationnumber>3", b"<generationnumber>99999999999999999999"),
        replaced(b"<generationnumber>3</generationnumber>", b""),
        replaced(b"<generationnumber>3", b"<generationnumber>3</generationnumber><generationnumber>3"),
        replaced(b"<fileuid>1<", b"<fileuid>7<"),
        replaced(b"<fileuid>4<", b"<fileuid>3<"),
        replaced(b"<fileuid>4<", b"<fileuid>5<"),
        replaced(b"<name>directory1", b"<name>a/b"),
        replaced(b"<name>directory1", b"<name>.."),
        replaced(b"<name>directory1", b"<name>"),
        replaced(b"<name>directory1", b"<name>" + "e\u0301".encode()),
        replaced(b"<name>directory1", b"<name>" + b"x" * 256),
        replaced(b"%C3%A9", b"%C3"),
        replaced(b"%C3%A9", b"%C"),
        replaced(b"%C3%A9", b"%00"),
        replaced(b"100%25 literal", "binary:fileé.bin".encode()),
        replaced(b"19:39:57.245954278Z", b"19:39:57Z"),
        replaced(b"19:39:57.245954278Z", b"19:39:60.245954278Z"),
        replaced(b"2026-01-28T19:39:57.245954278Z", b"2026-02-30T19:39:57.245954278Z"),
        replaced(b"<bytecount>100000", b"<bytecount>0"),
        replaced(b"<bytecount>500000", b"<bytecount>524289"),
        replaced(b"<length>720000", b"<length>600000"),
        replaced(b"<startblock>8<", b"<startblock>3<"),
        replaced(b"<readonly>0<", b"<readonly>no<"),
        replaced(b"AAEC", b"A!EC"),
        replaced(b'type="base64"', b'type="hex"'),
        replaced(b"<key>text<", b"<key>empty<"),
        replaced(b"<symlink>", b"<extentinfo></extentinfo><symlink>"),
        replaced(b"<volumelockstate>unlocked", b"<volumelockstate>open"),
        replaced(b"<partition>a<", b"<partition>A<"),
        INDEX_XML.replace(
            b"</contents>\n    </directory>\n</ltfsindex>", b"</contents></directory><directory/></ltfsindex>"
        ),
    ],
)
def test_what_the_format_forbids_is_refused(broken: bytes) -> None:
    with pytest.raises((Damaged, ProtocolViolation)):
        read_index(broken)


def test_nesting_without_end_is_refused() -> None:
    with pytest.raises(ProtocolViolation, match="deeper"):
        read_index(b'<?xml version="1.0" encoding="UTF-8"?>' + b"<ltfsindex>" * 100_000)
    for depth, allowed in ((DIRECTORY_DEPTH_MAX, True), (DIRECTORY_DEPTH_MAX + 1, False)):
        inner: tuple[Directory, ...] = ()
        for uid in range(depth, 1, -1):
            inner = (Directory(name="d", uid=uid, times=Times.all_at(0), contents=inner),)
        index = make_index(Directory(name="", uid=1, times=Times.all_at(0), contents=inner))
        if allowed:
            assert read_index(write_index(index)) == index
        else:
            with pytest.raises(ProtocolViolation, match="deeper"):
                write_index(index)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutations_are_refused_or_read_never_anything_else(data: st.DataObject) -> None:
    raw = bytearray(data.draw(st.sampled_from([INDEX_XML, LABEL_XML])))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 20))] = data.draw(st.binary(max_size=6))
    for read in (read_index, lambda one: volume.read_label(VOL1, one)):
        reader: Callable[[bytes], object] = read
        try:
            reader(bytes(raw))
        except RbError:
            continue


# Round trips

CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="/\0")
NAMES = (
    st.one_of(st.text(CHARACTERS, min_size=1, max_size=40), st.text(":%\r\n\t é\x01\x7f<&\"'", min_size=1, max_size=9))
    .map(lambda text: unicodedata.normalize("NFC", text))
    .filter(lambda name: name not in (".", ".."))
)
TIMES = st.integers(-(60 * 10**18), 250 * 10**18)
XATTRS = st.dictionaries(NAMES, st.one_of(st.binary(max_size=40), NAMES.map(str.encode)), max_size=3)


@st.composite
def times(draw: st.DrawFn) -> Times:
    values = [draw(st.one_of(st.none(), TIMES)) for _ in range(5)]
    return Times(creation=values[0], change=values[1], modify=values[2], access=values[3], backup=values[4])


@st.composite
def files(draw: st.DrawFn) -> File:
    extents: list[Extent] = []
    end = 0
    for _ in range(draw(st.integers(0, 3))):
        start = end + draw(st.integers(0, 10))
        count = draw(st.integers(1, 2**40))
        extents.append(
            Extent(
                file_offset=start,
                partition=draw(st.sampled_from("ab")),
                start_block=draw(st.integers(4, 2**40)),
                byte_offset=draw(st.integers(0, 4095)),
                byte_count=count,
            )
        )
        end = start + count
    link = draw(NAMES) if not extents and draw(st.booleans()) else None
    return File(
        name=draw(NAMES),
        uid=0,
        length=end + draw(st.integers(0, 9)),
        times=draw(times()),
        read_only=draw(st.booleans()),
        open_for_write=draw(st.booleans()),
        extents=tuple(extents),
        symlink=link,
        xattrs=draw(XATTRS),
    )


@st.composite
def directories(draw: st.DrawFn, children: st.SearchStrategy[File | Directory]) -> Directory:
    contents = draw(st.lists(children, max_size=3, unique_by=lambda entry: entry.name))
    return Directory(
        name=draw(NAMES),
        uid=0,
        times=draw(times()),
        contents=tuple(contents),
        read_only=draw(st.booleans()),
        xattrs=draw(XATTRS),
    )


TREES = st.recursive(files(), directories, max_leaves=8)


def numbered(entry: File | Directory, last: list[int]) -> File | Directory:
    last[0] += 1
    uid = last[0]
    if isinstance(entry, File):
        return msgspec.structs.replace(entry, uid=uid)
    contents = tuple(numbered(one, last) for one in entry.contents)
    return msgspec.structs.replace(entry, uid=uid, contents=contents)


def make_index(root: Directory, **fields: object) -> Index:
    index = Index(
        creator="rbmedia - test",
        volume_uuid=UUID,
        generation=1,
        update_time_ns=1,
        location=Pointer("b", 5),
        previous=None,
        allow_policy_update=False,
        highest_uid=2**32,
        root=root,
    )
    return msgspec.structs.replace(index, **fields)


@settings(max_examples=150, deadline=None)
@given(TREES, TIMES, st.one_of(st.none(), st.just(PlacementPolicy(9, ("*.x", "a:b")))))
def test_every_index_reads_back_as_it_was_written(
    tree: File | Directory, time_ns: int, policy: PlacementPolicy | None
) -> None:
    root = numbered(Directory(name="", uid=1, times=Times.all_at(0), contents=(tree,)), [0])
    assert isinstance(root, Directory)
    index = make_index(root, update_time_ns=time_ns, policy=policy, lock_state="locked", previous=Pointer("b", 5))
    assert read_index(write_index(index)) == index


@given(TIMES)
def test_times_keep_nine_digits(time_ns: int) -> None:
    assert parse_time(format_time(time_ns)) == time_ns


def test_a_time_looks_as_the_format_says() -> None:
    assert format_time(1767323045678901234) == "2026-01-02T03:04:05.678901234Z"
    assert format_time(-1) == "1969-12-31T23:59:59.999999999Z"


# Volumes

LABEL = Label(
    volume_identifier="RB0001",
    creator="rbmedia",
    format_time_ns=0,
    volume_uuid=UUID,
    partition="a",
    index_partition="a",
    data_partition="b",
    block_bytes=4096,
    compression=False,
)
EMPTY = Directory(name="", uid=1, times=Times.all_at(0))


def index_at(partition: str, block: int, generation: int, previous: int | None = None) -> Index:
    return make_index(
        EMPTY,
        location=Pointer(partition, block),
        generation=generation,
        previous=None if previous is None else Pointer("b", previous),
    )


def test_an_index_construct_is_known_by_its_self_pointer_and_its_volume() -> None:
    directory = msgspec.structs.replace(EMPTY, xattrs={"user.long": b"x" * 9_000})
    index = make_index(directory, location=Pointer("b", 30))
    records = volume.index_records(write_index(index), LABEL.block_bytes)
    assert [len(one) for one in records[:-1]] == [4096] * (len(records) - 1)
    assert volume.find_index(records, LABEL, "b", 30) == index
    assert volume.find_index(records, LABEL, "b", 31) is None
    assert volume.find_index(records, LABEL, "a", 30) is None
    assert volume.find_index(records[:-1], LABEL, "b", 30) is None
    assert volume.find_index([records[0][:9], *records[1:]], LABEL, "b", 30) is None
    assert volume.find_index([], LABEL, "b", 30) is None
    other = msgspec.structs.replace(LABEL, volume_uuid=UUID.replace("3", "4"))
    assert volume.find_index(records, other, "b", 30) is None


@pytest.mark.parametrize(
    ("extent_block", "count", "allowed"),
    [(20, 4096 * 9, True), (20, 4096 * 9 + 1, False), (40, 1, False), (4, 1, True)],
)
def test_an_index_names_only_what_stands_before_it(extent_block: int, count: int, allowed: bool) -> None:
    extent = Extent(file_offset=0, partition="b", start_block=extent_block, byte_offset=0, byte_count=count)
    file = File(name="f", uid=2, length=count, times=Times.all_at(0), extents=(extent,))
    index = make_index(msgspec.structs.replace(EMPTY, contents=(file,)), location=Pointer("b", 30))
    if allowed:
        volume.check_index(index, LABEL)
    else:
        with pytest.raises(ProtocolViolation):
            volume.check_index(index, LABEL)


@pytest.mark.parametrize(
    ("of_ip", "of_dp", "trailing", "standing", "current"),
    [
        (index_at("a", 5, 1, 5), index_at("b", 5, 1), "", Standing.CONSISTENT, "a"),
        (index_at("a", 5, 4, 9), index_at("b", 9, 3, 5), "", Standing.CONSISTENT, "a"),
        (index_at("a", 5, 1, 5), index_at("b", 9, 2, 5), "", Standing.INDEX_PARTITION_BEHIND, "b"),
        (None, index_at("b", 9, 2, 5), "", Standing.INDEX_PARTITION_BEHIND, "b"),
        (index_at("a", 5, 1, 5), index_at("b", 5, 1), "a", Standing.INDEX_PARTITION_BEHIND, "a"),
        (index_at("a", 5, 1, 5), index_at("b", 5, 1), "b", Standing.DATA_AFTER_INDEX, "a"),
        (index_at("a", 5, 1, 5), index_at("b", 9, 2, 5), "b", Standing.DATA_AFTER_INDEX, "b"),
        (index_at("a", 5, 3, 20), index_at("b", 9, 2, 5), "", Standing.CONTRADICTION, "a"),
        (index_at("a", 5, 3, 5), index_at("b", 9, 2, 5), "", Standing.CONTRADICTION, "a"),
        (index_at("a", 5, 3, 5), None, "", Standing.CONTRADICTION, "a"),
        (index_at("a", 5, 3), None, "", Standing.DATA_PARTITION_BEHIND, "a"),
        (None, None, "b", Standing.NO_INDEX, ""),
    ],
)
def test_the_state_of_a_volume(
    of_ip: Index | None, of_dp: Index | None, trailing: str, standing: Standing, current: str
) -> None:
    verdict = judge(
        PartitionEnd(index=of_ip, trailing="a" in trailing), PartitionEnd(index=of_dp, trailing="b" in trailing)
    )
    assert verdict.standing is standing
    assert verdict.current is {"a": of_ip, "b": of_dp, "": None}[current]


def coherency(**fields: object) -> Coherency:
    return msgspec.structs.replace(
        Coherency(change_reference=7, generation=3, block=5, volume_uuid=UUID),
        **fields,
    )


def test_memory_attributes_are_trusted_only_together() -> None:
    both = {"a": coherency(), "b": coherency(block=99)}
    assert volume.trusted_block(dict(both), LABEL, 7) == ("a", 5)
    assert volume.trusted_block({**both, "b": coherency(generation=4, block=99)}, LABEL, 7) == ("b", 99)
    for reference in (8, 0, 2**32 - 1, 2**64 - 1):
        assert volume.trusted_block(dict(both), LABEL, reference) is None
    assert volume.trusted_block({**both, "b": None}, LABEL, 7) is None
    assert volume.trusted_block({**both, "a": coherency(volume_uuid=UUID.replace("3", "4"))}, LABEL, 7) is None


def test_the_coherency_value_has_the_bytes_of_the_standard() -> None:
    attribute = volume.coherency_attribute(coherency())
    expected = "08 0000000000000007 0000000000000003 0000000000000005 002b 4c54465300"
    assert attribute.value == bytes.fromhex(expected) + UUID.encode() + b"\0\1"
    assert attribute.encode()[:5] == bytes.fromhex("080c 00 0046")
    assert volume.read_coherency(attribute.value) == coherency()


@given(st.integers(0, 70 * 8 - 1))
def test_a_coherency_value_with_another_shape_is_refused(bit: int) -> None:
    raw = bytearray(volume.coherency_attribute(coherency()).value)
    raw[bit // 8] ^= 1 << bit % 8
    with contextlib.suppress(ProtocolViolation):
        assert volume.read_coherency(bytes(raw)) != coherency() or 32 <= bit // 8 < 68
    with pytest.raises(ProtocolViolation):
        volume.read_coherency(bytes(raw[:-1]))


def test_attribute_lists_come_back_and_never_overrun() -> None:
    attributes = volume.application_attributes(
        vendor="RBMEDIA", name="rbmedia", version="0.1.0", volume_name="é" * 100, volume_tag="RB0001L9", pool="Tapes"
    )
    assert [(one.id, len(one.value)) for one in attributes] == [
        (0x0800, 8),
        (0x0801, 32),
        (0x0802, 8),
        (0x0803, 160),
        (0x0805, 1),
        (0x0806, 32),
        (0x0808, 160),
        (0x080B, 16),
    ]
    assert attributes[3].value.decode() == "é" * 80
    raw = b"".join(one.encode() for one in attributes)
    assert volume.read_attributes(raw) == attributes
    with pytest.raises(ProtocolViolation):
        volume.read_attributes(raw[:-1])
    with pytest.raises(ProtocolViolation):
        volume.read_attributes(raw + b"\x08")


@pytest.mark.parametrize(
    ("policy", "name", "size", "index_partition"),
    [
        (None, "a.txt", 1, False),
        (PlacementPolicy(100), "a.txt", 100, True),
        (PlacementPolicy(100), "a.txt", 101, False),
        (PlacementPolicy(100, ("*.txt", "b?")), "a.txt", 1, True),
        (PlacementPolicy(100, ("*.txt", "b?")), "A.TXT", 1, False),
        (PlacementPolicy(100, ("*.txt", "b?")), "bc", 1, True),
        (PlacementPolicy(100, ("[ab]",)), "a", 1, False),
        (PlacementPolicy(100, ("[ab]",)), "[ab]", 1, True),
    ],
)
def test_placement(policy: PlacementPolicy | None, name: str, size: int, index_partition: bool) -> None:
    assert volume.belongs_in_index_partition(policy, name, size) is index_partition


def test_a_label_of_a_cartridge_takes_its_identifier_from_the_bar_code() -> None:
    fields = msgspec.structs.asdict(LABEL)
    del fields["volume_identifier"]
    assert Label.of_cartridge("RB0001L9", **fields) == LABEL
    assert Label.of_cartridge("", **fields).volume_identifier == ""
    assert parse_vol1(volume.label_records(LABEL)[0]).volume_identifier == "RB0001"
