"""Is a simulated cartridge a valid LTFS volume? By ISO/IEC 20919 alone, from the records on its tape: nothing of ours reads them here.

``check_volume`` asserts whatever the format demands of labels, index constructs, pointers, generations and extents, and returns the files.
"""

from __future__ import annotations

import base64
import re
import unicodedata
from dataclasses import dataclass, field
from itertools import pairwise
from urllib.parse import unquote
from xml.etree import ElementTree

from drivers.simulated.tape.medium import Cartridge
from drivers.simulated.tape.partition import FILEMARK

TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{9}Z")
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TIMES = ("creationtime", "changetime", "modifytime", "accesstime", "backuptime")


@dataclass
class CheckedFile:
    content: bytes
    xattrs: dict[str, bytes]


@dataclass
class CheckedIndex:
    root: ElementTree.Element
    partition: str
    block: int
    end: int
    """Behind its last filemark."""
    generation: int
    previous: tuple[str, int] | None


@dataclass
class CheckedVolume:
    uuid: str
    generation: int
    files: dict[str, CheckedFile] = field(default_factory=dict)
    consistent: bool = False
    """The index partition's last index points to the data partition's last, and nothing stands behind either."""
    indexes: dict[str, list[CheckedIndex]] = field(default_factory=dict)


def objects(cartridge: Cartridge, partition: int) -> list[bytes | None]:
    """What stands on the tape; None for a filemark."""
    tape = cartridge.partitions[partition]
    return [None if tape.size(number) == FILEMARK else tape.read(number) for number in range(len(tape))]


def only(element: ElementTree.Element, name: str) -> ElementTree.Element:
    found = element.findall(name)
    assert len(found) == 1, f"{name} stands {len(found)} times in {element.tag}"
    return found[0]


def text_of(element: ElementTree.Element, name: str) -> str:
    return (only(element, name).text or "").strip()


def name_of(element: ElementTree.Element) -> str:
    text = element.text or ""
    return unquote(text, errors="strict") if element.get("percentencoded") == "true" else text


def pointer(element: ElementTree.Element) -> tuple[str, int]:
    return text_of(element, "partition"), int(text_of(element, "startblock"))


def check_label(tape: list[bytes | None]) -> tuple[bytes, dict[str, str]]:
    assert len(tape) >= 4
    vol1, mark, xml, last = tape[:4]
    assert vol1 is not None
    assert xml is not None
    assert mark is last is None
    assert len(vol1) == 80
    assert (vol1[:4], vol1[10:11], vol1[24:28], vol1[79:]) == (b"VOL1", b"L", b"LTFS", b"4")
    assert re.fullmatch(rb"[A-Z0-9]{6}| {6}", vol1[4:10])
    assert len(xml) <= 4096
    assert xml.startswith(b'<?xml version="1.0" encoding="UTF-8"?>')
    root = ElementTree.fromstring(xml)
    assert (root.tag, root.get("version")) == ("ltfslabel", "2.4.0")
    assert len(text_of(root, "creator")) <= 1024
    assert TIME.fullmatch(text_of(root, "formattime"))
    assert UUID.fullmatch(text_of(root, "volumeuuid"))
    assert text_of(root, "compression") in ("true", "false")
    names = ("creator", "formattime", "volumeuuid", "blocksize", "compression")
    label = {name: text_of(root, name) for name in names}
    for at, name in (("location", "partition"), ("partitions", "index"), ("partitions", "data")):
        label[name] = text_of(only(root, at), name)
    return vol1, label


def find_indexes(tape: list[bytes | None], label: dict[str, str]) -> list[CheckedIndex]:
    """Index constructs of a partition, in order; every other filemark is refused."""
    found: list[CheckedIndex] = []
    marks = [at for at, one in enumerate(tape) if one is None and at >= 4]
    used: set[int] = set()
    for start, end in pairwise(marks):
        records = [one for one in tape[start + 1 : end] if one is not None]
        raw = b"".join(records)
        if not raw.startswith(b"<?xml") or b"<ltfsindex" not in raw[:200]:
            continue
        root = ElementTree.fromstring(raw)
        location = pointer(only(root, "location"))
        if location != (label["partition"], start + 1):
            continue
        size = int(label["blocksize"])
        assert all(len(record) == size for record in records[:-1])
        assert 0 < len(records[-1]) <= size
        back = root.find("previousgenerationlocation")
        generation = int(text_of(root, "generationnumber"))
        assert text_of(root, "volumeuuid") == label["volumeuuid"]
        found.append(CheckedIndex(root, *location, end + 1, generation, None if back is None else pointer(back)))
        used |= {start, end}
    last = found[-1].end if found else 4
    assert {mark for mark in marks if mark < last} <= used, "a filemark that belongs to no index"
    assert [one.generation for one in found] == sorted({one.generation for one in found})
    return found


def check_index(index: CheckedIndex, tapes: dict[str, list[bytes | None]], size: int) -> dict[str, CheckedFile]:
    root = index.root
    assert root.get("version") == "2.4.0"
    assert index.generation >= 1
    assert TIME.fullmatch(text_of(root, "updatetime"))
    assert text_of(root, "allowpolicyupdate") in ("true", "false")
    assert len(text_of(root, "creator")) <= 1024
    highest = int(text_of(root, "highestfileuid"))
    uids: list[int] = []
    files: dict[str, CheckedFile] = {}

    def walk(directory: ElementTree.Element, path: str) -> None:
        common(directory)
        names: list[str] = []
        for entry in only(directory, "contents"):
            assert entry.tag in ("file", "directory")
            name = name_of(only(entry, "name"))
            names.append(name)
            assert 1 <= len(name) <= 255
            assert "/" not in name
            assert unicodedata.is_normalized("NFC", name)
            if entry.tag == "directory":
                walk(entry, f"{path}{name}/")
            else:
                common(entry)
                files[path + name] = CheckedFile(check_extents(entry, index, tapes, size), xattrs_of(entry))
        assert len(set(names)) == len(names)

    def common(entry: ElementTree.Element) -> None:
        uids.append(int(text_of(entry, "fileuid")))
        assert text_of(entry, "readonly") in ("true", "false")
        for name in TIMES:
            assert TIME.fullmatch(text_of(entry, name))

    top = only(root, "directory")
    assert text_of(top, "fileuid") == "1"
    walk(top, "")
    assert len(set(uids)) == len(uids)
    assert max(uids) <= highest
    return files


def xattrs_of(entry: ElementTree.Element) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for one in entry.findall("extendedattributes/xattr"):
        value = only(one, "value")
        raw = (value.text or "").encode()
        found[name_of(only(one, "key"))] = base64.b64decode(raw) if value.get("type") == "base64" else raw
        assert len(raw) <= 4096 or value.get("type") == "base64"
    return found


def check_extents(
    entry: ElementTree.Element, index: CheckedIndex, tapes: dict[str, list[bytes | None]], size: int
) -> bytes:
    length = int(text_of(entry, "length"))
    content = bytearray(length)
    end = 0
    extents = entry.findall("extentinfo/extent")
    for extent in sorted(extents, key=lambda one: int(text_of(one, "fileoffset"))):
        at, start, into, count = (
            int(text_of(extent, name)) for name in ("fileoffset", "startblock", "byteoffset", "bytecount")
        )
        letter = text_of(extent, "partition")
        assert at >= end, "extents overlap"
        assert count >= 1
        assert start >= 4
        end = at + count
        blocks = -(-(into + count) // size)
        if letter == index.partition:
            assert start + blocks < index.block, "an extent behind the index that names it"
        records = tapes[letter][start : start + blocks]
        assert len(records) == blocks, "an extent behind the end of data"
        assert None not in records, "a filemark in an extent"
        whole = [record for record in records if record is not None]
        assert all(len(record) == size for record in whole[:-1]), "a short record within an extent"
        data = b"".join(whole)[into : into + count]
        assert len(data) == count, "the last record is shorter than the extent says"
        content[at:end] = data
    assert end <= length
    return bytes(content)


def check_volume(cartridge: Cartridge) -> CheckedVolume:
    """Raises ``AssertionError``. The volume need not be consistent: what a crash left is valid as long as its indexes are."""
    assert len(cartridge.partitions) == 2
    raw = [objects(cartridge, number) for number in (0, 1)]
    (vol1, label), (other_vol1, other) = check_label(raw[0]), check_label(raw[1])
    assert vol1 == other_vol1
    assert (label["partition"], other["partition"]) == (label["index"], label["data"]) == ("a", "b")
    assert {**label, "partition": ""} == {**other, "partition": ""}
    size = int(label["blocksize"])
    tapes = {label["partition"]: raw[0], other["partition"]: raw[1]}
    assert all(one is None or 0 < len(one) <= size for tape in raw for one in tape)
    of_index, of_data = find_indexes(raw[0], label), find_indexes(raw[1], other)
    assert of_data, "the data partition has no index"
    before: CheckedIndex | None = None
    for index in of_data:
        assert index.previous == (None if before is None else ("b", before.block))
        check_index(index, tapes, size)
        before = index
    places = {("b", one.block): one.generation for one in of_data}
    for index in of_index:
        assert index.previous is not None
        assert places.get(index.previous, 2**64) <= index.generation, "the index partition points at nothing"
        check_index(index, tapes, size)
    last = of_data[-1]
    consistent = (
        bool(of_index)
        and of_index[-1].previous == ("b", last.block)
        and of_index[-1].end == len(raw[0])
        and last.end == len(raw[1])
    )
    files = check_index(last, tapes, size)
    if consistent:
        assert check_index(of_index[-1], tapes, size) == files
    return CheckedVolume(label["volumeuuid"], last.generation, files, consistent, {"a": of_index, "b": of_data})
