"""Cartridges that somebody wrote to do harm: whole records and indexes that say what takes for ever, or more memory than there is."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest
import trio

from drivers.scsi.drive_pages import Attribute
from drivers.tape import ltfs_medium, ltfs_reader, ltfs_scan, native_end
from drivers.tape.ltfs_medium import LtfsMedium
from drivers.tape.ltfs_reader import FileReader, LtfsPartReader, LtfsRecords
from rbcore import errors
from rbcore.tape import ltfs_xml, native_scan
from rbcore.tape.ltfs import Directory, Extent, File, Times, read_index
from rbcore.tape.ltfs_parts import StoredPart, find_parts
from rbcore.tape.native import Places, Record, RecordHeader, RecordKind, seal_record
from rbcore.tape.native_scan import Contents, FoundPart, NativeScanner
from rbcore.tape.session import PartPlace
from rbcore.tape.spanning import join_parts
from tests.tape.model import ARCHIVE, CARTRIDGE, HEADER, label
from tests.tape.test_format_ltfs import INDEX_XML

ATTRIBUTES = {
    "holds": "blocks",
    "archive": ARCHIVE.hex(),
    "part": "1",
    "first_block": "0",
    "blocks": "1",
    "lowest_block": "0",
    "highest_block": "0",
    "blocks_before": "0",
    "stored_before": "0",
    "previous_tag": "",
    "previous_cartridge": "",
    "next_tag": "",
    "final": "true",
    "root": "00" * 32,
    "client": "host",
    "resource": "/srv",
    "backup_type": "full",
    "crypto": "nocrypt",
    "created": "2026-01-01T00:00:00.000000000Z",
    "ended": "2026-01-01T00:00:00.000000000Z",
}


def extent(offset: int, count: int) -> Extent:
    return Extent(file_offset=offset, partition="b", start_block=5, byte_offset=0, byte_count=count)


def stored(extents: tuple[Extent, ...], length: int, **attributes: str) -> list[StoredPart]:
    """The parts on a volume with one file."""
    xattrs = {f"rbmedia.{name}": value.encode() for name, value in (ATTRIBUTES | attributes).items()}
    file = File(name="a", uid=2, length=length, times=Times.all_at(0), extents=extents, xattrs=xattrs)
    root = Directory(name="", uid=1, times=Times.all_at(0), contents=(file,))
    return find_parts(root, 4096)


def test_any_part_number_is_joined_at_once() -> None:
    part = FoundPart(archive=ARCHIVE, part=2**32 - 1, header=HEADER, position=3, places=Places())
    contents = Contents(
        label=None,
        cartridge=CARTRIDGE,
        use=1,
        parts=[part],
        findings=[],
        findings_total=0,
        append=None,
        resume=None,
    )
    (found,) = join_parts([contents])
    assert found.problems[:3] == [
        "part 1 was not found",
        f"parts 2 to {2**32 - 3} were not found",
        f"part {2**32 - 2} was not found",
    ]
    assert len(found.parts) == 1


@pytest.mark.parametrize("text", ["\u00e9", "A", "===="])
def test_a_value_that_is_no_base64_is_refused(text: str) -> None:
    value = f'<extendedattributes><xattr><key>k</key><value type="base64">{text}</value></xattr></extendedattributes>'
    broken = INDEX_XML.replace(b"<contents>", value.encode() + b"<contents>", 1)
    with pytest.raises(errors.ProtocolViolation):
        read_index(broken)


def test_unknown_elements_are_kept_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ltfs_xml, "UNBUILT_MAX", 200)
    read_index(INDEX_XML)
    for where in (b"<contents>", b"</directory>", b"<highestfileuid>"):
        broken = INDEX_XML.replace(where, b"<x/>" * 200 + where, 1)
        with pytest.raises(errors.ProtocolViolation, match="not known"):
            read_index(broken)


def test_files_without_end_do_not_count_as_unknown_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    file = "<file><name>f{0}</name><fileuid>{0}</fileuid><length>0</length><readonly>false</readonly><unknown/></file>"
    many = "".join(file.format(number) for number in range(100, 160)).encode()
    grown = INDEX_XML.replace(b"<contents>", b"<contents>" + many, 1)
    grown = grown.replace(b"<highestfileuid>4<", b"<highestfileuid>400<")
    assert grown != INDEX_XML
    monkeypatch.setattr(ltfs_xml, "UNBUILT_MAX", 200)
    assert len(read_index(grown).root.contents) > 60
    monkeypatch.setattr(ltfs_xml, "UNBUILT_MAX", 80)
    with pytest.raises(errors.ProtocolViolation, match="not known"):
        read_index(grown)


@pytest.mark.parametrize(
    ("extents", "length", "found"),
    [((extent(0, 100),), 100, 1), ((), 2**63, 0), ((extent(0, 100),), 2**63, 0), ((extent(50, 100),), 150, 0)],
)
def test_a_part_with_holes_is_no_part(extents: tuple[Extent, ...], length: int, found: int) -> None:
    assert len(stored(extents, length)) == found


@pytest.mark.parametrize(
    "attributes",
    [
        {"blocks_before": "9" * 5000},
        {"first_block": "-1"},
        {"first_block": str(2**63)},
        {"client": "x" * 2000},
        {"previous_tag": "x" * 41},
        {"previous_cartridge": "00"},
        {"root": "00" * 33},
    ],
)
def test_attributes_of_a_part_have_the_bounds_of_native_ones(attributes: dict[str, str]) -> None:
    (part,) = stored((extent(0, 100),), 100)
    assert ltfs_scan._found_part(part).header.client == "host"
    (part,) = stored((extent(0, 100),), 100, **attributes)
    with pytest.raises(errors.ProtocolViolation):
        ltfs_scan._found_part(part)


class NoTape(LtfsRecords):
    """Every record is lost, at once."""

    def __init__(self) -> None:
        self.asked = 0

    async def record(self, letter: str, block: int) -> bytes:
        self.asked += 1
        raise errors.Damaged("the partition ends before")


def reader(records: LtfsRecords, blocks: int, map_bytes: int | None) -> LtfsPartReader:
    place = PartPlace(
        part=1,
        position=5,
        records=1,
        first_block=0,
        last_block=blocks - 1,
        blocks=blocks,
        stored_bytes=2**62,
        final=True,
    )
    file = FileReader(records, [extent(0, 2**62)], 2**62, 4096)
    map_file = None if map_bytes is None else FileReader(records, [extent(0, map_bytes)], map_bytes, 4096)
    return LtfsPartReader(ARCHIVE, place, file, map_file, 4096)


async def test_a_file_that_says_it_is_endless_is_given_up() -> None:
    records = NoTape()
    with trio.fail_after(30), pytest.raises(errors.Damaged, match="neither its map nor"):
        await reader(records, 1, None).index()
    assert records.asked <= 3 * ltfs_reader.LOST_MAX


async def test_a_map_that_says_it_is_endless_is_not_read() -> None:
    class Zeros(NoTape):
        async def record(self, letter: str, block: int) -> bytes:
            self.asked += 1
            return bytes(4096)

    records = Zeros()
    assert await reader(records, 2**60, 2**60)._stored_map() is None
    assert records.asked == 0


async def test_numbers_in_a_memory_have_eight_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Memory:
        async def read_attributes(self, partition: int, first: int) -> list[Attribute]:
            return [Attribute(identifier=first, value=b"\xff" * 60_000)]

    medium = object.__new__(LtfsMedium)
    medium.drive, medium.numbers, medium.data_letter = Memory(), {"b": 1}, "b"  # type: ignore[assignment]
    assert await medium.remaining_bytes() is None
    assert await medium.change_reference() == 0
    assert ltfs_medium._NUMBER_BYTES_MAX == 8


def scanned(*records: tuple[RecordKind, bytes, Mapping[str, object]]) -> NativeScanner:
    scanner = NativeScanner()
    scanner.record(label().vol1())
    payload = msgspec.msgpack.encode(label())
    raw, digest = seal_record(RecordHeader(kind=RecordKind.LABEL, use=1, cartridge=CARTRIDGE, position=1), payload)
    scanner.record(raw)
    scanner.filemark()
    for kind, content, fields in records:
        header = RecordHeader(
            kind=kind,
            use=1,
            cartridge=CARTRIDGE,
            position=scanner.position,
            previous=digest,
            **fields,  # type: ignore[arg-type]
        )
        raw, digest = seal_record(header, content)
        scanner.record(raw)
    return scanner


def test_an_index_without_end_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_scan, "INDEX_BYTES_MAX", 1000)
    scanner = scanned(*((RecordKind.INDEX, bytes(100), {"sequence": at, "count": 50}) for at in range(49)))
    assert sum(len(one.payload) for one in scanner._index) <= 1100
    assert scanner.end(at_end_of_data=True).findings_total == 0
    scanner = scanned(*((RecordKind.INDEX, bytes(100), {"sequence": at, "count": 50}) for at in range(50)))
    assert not scanner._index
    assert scanner.end(at_end_of_data=True).findings_total == 1


def test_parts_without_end_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_scan, "PARTS_MAX", 5)
    header = msgspec.msgpack.encode(HEADER)
    scanner = scanned(*((RecordKind.ARCHIVE, header, {"part": at, "archive": ARCHIVE}) for at in range(1, 20)))
    contents = scanner.end(at_end_of_data=True)
    assert len(contents.parts) == 5
    assert contents.append is None
    assert any("no cartridge holds so many" in one.what for one in contents.findings)


async def test_opening_does_not_read_an_index_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_end, "INDEX_BYTES_MAX", 1000)
    count = 2**32 - 1
    header = RecordHeader(
        kind=RecordKind.INDEX, use=1, cartridge=CARTRIDGE, position=count + 10, sequence=count - 1, count=count
    )
    asked: list[int] = []

    class Records:
        async def record(self, position: int) -> Record:
            asked.append(position)
            return Record(header, memoryview(bytes(100)), bytes(32))

    last = Record(header, memoryview(bytes(100)), bytes(32))
    with pytest.raises(errors.ProtocolViolation, match="more than 1000 bytes"):
        await native_end._Walk(Records(), last)._index_of(last)  # type: ignore[arg-type]
    assert len(asked) == 11
