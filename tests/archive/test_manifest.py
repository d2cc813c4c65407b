"""Manifests: any tree comes back, and nothing that could lead a restore astray is let through."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbcore.archive import manifest
from rbcore.archive.manifest import (
    ENTRIES_PER_BLOCK,
    EXTENTS_PER_ENTRY,
    MANIFEST_MAGIC,
    ManifestReader,
    ManifestWriter,
    decode_manifest,
    decode_trailer,
    encode_trailer,
    path_order_key,
)
from rbcore.archive.model import BLOCK_BYTES_MAX, BlockFlag, Entry, EntryType, Extent, ManifestIndexRow, Trailer
from rbcore.errors import Damaged, TooLarge
from tests.archive.samples import ARCHIVE

NAMES = st.binary(min_size=1, max_size=8).map(lambda raw: raw.replace(b"/", b"-").replace(b"\0", b"0")).filter(
    lambda name: name not in (b".", b"..")
)  # fmt: skip


def entry(path: bytes, type: EntryType = EntryType.FILE, **changes: Any) -> Entry:
    values: dict[str, Any] = {
        "path": path, "type": type, "mode": 0o644, "uid": 0, "gid": 0, "owner": "root", "group": "root", "mtime_ns": -1,
        "ctime_ns": 2, "size": 0, "device": 1, "inode": 2, "links": 1,
    }  # fmt: skip
    return Entry(**{**values, **changes})


ROOT = entry(b"", EntryType.DIRECTORY)


@st.composite
def trees(draw: st.DrawFn) -> list[Entry]:
    """Entries of a tree in depth-first order, with every type and with any bytes in names and attributes."""
    directories = [b""]
    paths: dict[bytes, EntryType] = {}
    for _ in range(draw(st.integers(0, 25))):
        parent = draw(st.sampled_from(directories))
        path = (parent + b"/" if parent else b"") + draw(NAMES)
        if path in paths:
            continue
        paths[path] = draw(st.sampled_from([EntryType.DIRECTORY, EntryType.DIRECTORY, EntryType.FILE, EntryType.SYMLINK, EntryType.FIFO]))  # fmt: skip
        if paths[path] is EntryType.DIRECTORY:
            directories.append(path)
    made = [ROOT]
    for path in sorted(paths, key=lambda path: path.split(b"/")):
        extents: list[Extent] = []
        offset = 0
        if paths[path] is EntryType.FILE:
            for length in draw(st.lists(st.integers(1, 1000), max_size=4)):
                offset += draw(st.integers(0, 10))
                extents.append(Extent(offset, length, draw(st.integers(0, 3)), draw(st.integers(0, 2**63 - 1)), 5))
                offset += length
        made.append(
            entry(
                path,
                paths[path],
                extents=extents,
                size=offset,
                link_target=b"../any\xff" if paths[path] is EntryType.SYMLINK else b"",
                xattrs=draw(st.dictionaries(NAMES, st.binary(max_size=9), max_size=2)),
                problem=draw(st.sampled_from(["", "changed while it was read"])),
                mtime_ns=draw(st.integers(-(2**63), 2**63 - 1)),
                owner=draw(st.text(max_size=5)),
            )
        )
    return made


def written(entries: list[Entry]) -> tuple[list[tuple[bytes, int]], ManifestWriter]:
    writer = ManifestWriter()
    parts: list[tuple[bytes, int]] = []
    for one in entries:
        writer.add(one)
        while writer.ready:
            parts.append(writer.take(10 * len(parts)))
    writer.flush()
    while writer.ready:
        parts.append(writer.take(10 * len(parts)))
    return parts, writer


def trailer_for(writer: ManifestWriter, **changes: Any) -> Trailer:
    values: dict[str, Any] = {
        "version": 1, "archives": [ARCHIVE, "a" * 32, "b" * 32, "c" * 32], "manifest": writer.rows, "resource": "/home",
        "entries": writer.entries, "files": writer.files, "data_size": writer.data_size, "problems": writer.problems,
        "started_ns": 1, "ended_ns": 2, "hostname": "host",
    }  # fmt: skip
    return Trailer(**{**values, **changes})


def read(parts: list[tuple[bytes, int]], trailer: Trailer) -> list[Entry]:
    reader = ManifestReader()
    found = [one for plaintext, _ in parts for one in reader.add(plaintext)]
    reader.finish(trailer)
    return found


def plaintext_of(*entries: Entry) -> bytes:
    return MANIFEST_MAGIC + msgspec.msgpack.encode(list(entries))


@given(trees())
def test_any_tree_comes_back(entries: list[Entry]) -> None:
    parts, writer = written(entries)
    trailer = decode_trailer(encode_trailer(trailer_for(writer)))
    assert read(parts, trailer) == entries
    assert [flags for _, flags in parts] == [BlockFlag.MANIFEST_BEGINS] + [0] * (len(parts) - 1)
    assert (writer.files, writer.data_size) == (
        sum(one.type is EntryType.FILE for one in entries),
        sum(one.size for one in entries),
    )


@given(st.lists(st.lists(NAMES, max_size=4), max_size=20))
def test_order_of_keys_is_order_of_components(paths: list[list[bytes]]) -> None:
    assert sorted((b"/".join(path) for path in paths), key=path_order_key) == [
        b"/".join(path) for path in sorted(paths)
    ]


def test_many_entries_become_several_blocks_that_the_index_tells_of() -> None:
    entries = [ROOT, *(entry(b"%06d" % number) for number in range(3 * ENTRIES_PER_BLOCK))]
    parts, writer = written(entries)
    assert len(parts) == 4
    assert sum(row.entries for row in writer.rows) == len(entries)
    assert read(parts, trailer_for(writer)) == entries
    for (plaintext, _), row in zip(parts, writer.rows, strict=True):
        inside = decode_manifest(plaintext)
        assert inside[0].path == row.first_path
        assert len(inside) == row.entries
        assert len(plaintext) <= BLOCK_BYTES_MAX


def test_a_file_of_very_many_extents_is_one_entry_again() -> None:
    count = 5 * EXTENTS_PER_ENTRY + 1
    huge = entry(b"huge", size=count * 1000, extents=[Extent(n * 1000, 1000, 0, n, 0) for n in range(count)])
    parts, writer = written([ROOT, entry(b"before"), huge, entry(b"later")])
    assert len(parts) > 1
    assert max(len(plaintext) for plaintext, _ in parts) <= BLOCK_BYTES_MAX
    assert [one.path for one in read(parts, trailer_for(writer))] == [b"", b"before", b"huge", b"later"]
    assert read(parts, trailer_for(writer))[2] == huge
    assert writer.entries == 4
    reader = ManifestReader()
    reader.add(parts[0][0])
    with pytest.raises(Damaged, match="amid the extents"):
        reader.finish(trailer_for(writer))


def test_attributes_that_fit_no_block_are_refused_and_leave_no_trace() -> None:
    writer = ManifestWriter()
    writer.add(ROOT)
    with pytest.raises(TooLarge, match="'big'"):
        writer.add(entry(b"big", xattrs={b"user.%d" % n: bytes(65536) for n in range(40)}))
    writer.flush()
    assert [one.path for one in decode_manifest(writer.take(0)[0])] == [b""]


def test_an_index_path_is_cut_to_a_lower_bound() -> None:
    _, writer = written([entry(b"x" * 1000, EntryType.DIRECTORY)])
    assert writer.rows[0].first_path == b"x" * 255


DIRECTORY = entry(b"d", EntryType.DIRECTORY)
HOSTILE: dict[str, list[Entry]] = {
    "absolute": [ROOT, entry(b"/etc/passwd")],
    "parent component": [ROOT, entry(b"..")],
    "parent inside": [ROOT, DIRECTORY, entry(b"d/../../etc")],
    "dot": [ROOT, entry(b".")],
    "empty component": [ROOT, DIRECTORY, entry(b"d//x")],
    "ending in a separator": [ROOT, entry(b"d/")],
    "NUL": [ROOT, entry(b"a\0b")],
    "too long": [ROOT, entry(b"n" * 65536)],
    "below a symbolic link": [ROOT, entry(b"link", EntryType.SYMLINK, link_target=b"/etc"), entry(b"link/passwd")],
    "below a file": [ROOT, entry(b"file"), entry(b"file/x")],
    "below nothing": [ROOT, entry(b"missing/x")],
    "beside its directory": [ROOT, DIRECTORY, entry(b"e"), entry(b"f/x")],
    "twice": [ROOT, entry(b"a"), entry(b"a", EntryType.SYMLINK, link_target=b"x")],
    "descending": [ROOT, entry(b"b"), entry(b"a")],
    "root twice": [ROOT, ROOT],
    "no root": [entry(b"a")],
    "hard link outside": [ROOT, entry(b"h", EntryType.HARDLINK, link_target=b"../x")],
    "hard link absolute": [ROOT, entry(b"h", EntryType.HARDLINK, link_target=b"/etc/shadow")],
    "hard link to what follows": [ROOT, entry(b"h", EntryType.HARDLINK, link_target=b"i"), entry(b"i")],
    "hard link to nothing": [ROOT, entry(b"h", EntryType.HARDLINK)],
    "symbolic link to nothing": [ROOT, entry(b"s", EntryType.SYMLINK)],
    "symbolic link with NUL": [ROOT, entry(b"s", EntryType.SYMLINK, link_target=b"a\0b")],
    "file with a target": [ROOT, entry(b"f", link_target=b"x")],
    "directory with content": [ROOT, entry(b"d", EntryType.DIRECTORY, size=9, extents=[Extent(0, 9, 0, 1, 0)])],
    "attribute without a name": [ROOT, entry(b"f", xattrs={b"": b"x"})],
    "attribute with NUL": [ROOT, entry(b"f", xattrs={b"user.\0": b"x"})],
    "extents overlap": [ROOT, entry(b"f", size=20, extents=[Extent(0, 9, 0, 1, 0), Extent(8, 9, 0, 1, 9)])],
    "extents descend": [ROOT, entry(b"f", size=20, extents=[Extent(9, 9, 0, 1, 0), Extent(0, 9, 0, 1, 9)])],
    "extent over the size": [ROOT, entry(b"f", size=8, extents=[Extent(0, 9, 0, 1, 0)])],
    "extent over the block": [ROOT, entry(b"f", size=9, extents=[Extent(0, 9, 0, 1, BLOCK_BYTES_MAX - 8)])],
    "empty extent": [ROOT, entry(b"f", size=9, extents=[Extent(0, 0, 0, 1, 0)])],
    "continued by another": [ROOT, entry(b"f", continued=True), entry(b"g")],
    "directory continued": [ROOT, entry(b"d", EntryType.DIRECTORY, continued=True), entry(b"d", EntryType.DIRECTORY)],
    "no entries": [],
}  # fmt: skip


@pytest.mark.parametrize("entries", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_manifests_are_refused(entries: list[Entry]) -> None:
    with pytest.raises(Damaged):
        ManifestReader().add(plaintext_of(*entries))


OUT_OF_BOUNDS: list[dict[str, Any]] = [
    {"mode": 0o10000}, {"uid": -1}, {"gid": 2**32}, {"size": -1}, {"links": -1}, {"mode": "rw"}, {"link_target": "text"},
    {"extents": [[-1, 1, 0, 0, 0]]}, {"extents": [[0, 1, 0, 0, 0, 0]]}, {"xattrs": []}, {"type": 99},
]  # fmt: skip


@pytest.mark.parametrize("changes", OUT_OF_BOUNDS, ids=str)
def test_values_out_of_bounds_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Damaged):
        ManifestReader().add(plaintext_of(ROOT, entry(b"f", **changes)))


def test_order_holds_across_blocks() -> None:
    reader = ManifestReader()
    reader.add(plaintext_of(ROOT, DIRECTORY, entry(b"d/x")))
    assert [one.path for one in reader.add(plaintext_of(entry(b"d/y"), entry(b"e")))] == [b"d/y", b"e"]
    with pytest.raises(Damaged, match="out of order"):
        reader.add(plaintext_of(entry(b"d/z")))


@settings(max_examples=300)
@given(entries=trees(), seed=st.integers(0, 2**32))
def test_mutated_manifests_raise_damaged_or_are_safe(entries: list[Entry], seed: int) -> None:
    (plaintext, _), *_ = written(entries)[0]
    source = random.Random(seed)
    mutated = bytearray(plaintext)
    for _ in range(source.randint(1, 8)):
        mutated[source.randrange(len(mutated))] = source.randrange(256)
    with contextlib.suppress(Damaged):
        for one in ManifestReader().add(mutated):
            assert b".." not in one.path.split(b"/")
            assert not one.path.startswith(b"/")
    with contextlib.suppress(Damaged):
        decode_manifest(mutated)


def test_a_deeply_nested_document_is_damage() -> None:
    with pytest.raises(Damaged):
        decode_manifest(MANIFEST_MAGIC + b"\x91" * 100_000)
    with pytest.raises(Damaged):
        decode_trailer(manifest.TRAILER_MAGIC + b"\x81\xa1x" * 100_000)


BAD_TRAILERS: dict[str, dict[str, Any]] = {
    "version": {"version": 2},
    "no archive": {"archives": []},
    "no archive name": {"archives": ["../../etc"]},
    "archive twice": {"archives": [ARCHIVE, ARCHIVE]},
    "no manifest": {"manifest": []},
    "blocks descend": {"manifest": [ManifestIndexRow(5, b"", 1), ManifestIndexRow(4, b"x", 1)]},
    "paths descend": {"manifest": [ManifestIndexRow(5, b"x", 1), ManifestIndexRow(6, b"", 1)]},
    "negative": {"files": -1},
}


@pytest.mark.parametrize("changes", BAD_TRAILERS.values(), ids=BAD_TRAILERS.keys())
def test_bad_trailers_are_refused(changes: dict[str, Any]) -> None:
    _, writer = written([ROOT])
    with pytest.raises(Damaged):
        decode_trailer(encode_trailer(trailer_for(writer, **changes)))


def test_the_trailer_must_fit_the_manifest() -> None:
    far = entry(b"far", size=1, extents=[Extent(0, 1, 3, 0, 0)])
    parts, writer = written([ROOT, far])
    read(parts, trailer_for(writer))
    for changes in (
        {"entries": 3},
        {"manifest": [ManifestIndexRow(0, b"", 1)]},
        {"archives": [ARCHIVE]},
        {"manifest": [*writer.rows, ManifestIndexRow(99, b"z", 1)]},
    ):
        with pytest.raises(Damaged):
            read(parts, trailer_for(writer, **changes))


def test_a_trailer_too_large_for_a_block_says_what_to_do() -> None:
    _, writer = written([ROOT])
    rows = [ManifestIndexRow(n, b"x" * 255, 1) for n in range(20_000)]
    with pytest.raises(TooLarge, match="back up parts"):
        encode_trailer(trailer_for(writer, manifest=rows))


@given(st.binary(max_size=100))
def test_garbage_is_damage(garbage: bytes) -> None:
    for prefix in (b"", MANIFEST_MAGIC, manifest.TRAILER_MAGIC):
        for decode in (decode_manifest, decode_trailer, ManifestReader().add):
            with pytest.raises(Damaged):
                decode(prefix + garbage)
