"""The directory store: what is finished is whole, what is damaged is named, the rest stays readable."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.container_scan import PIECE_BYTES
from drivers.directory_store import DirectoryStore, initialise_catalog
from drivers.simulated.volume import SimulatedVolume
from rbcore.archive.block import BlockCodec, iter_blocks, parse_header
from rbcore.archive.container import aligned
from rbcore.archive.model import BlockFlag, BlockKind, Cipher
from rbcore.archive.root import RootHasher
from rbcore.archive.store import ArchiveReader, ArchiveStore, ArchiveWriter
from rbcore.errors import Damaged, NotFound, ProtocolViolation, Refused, StorageFull, TooLarge, Unavailable
from rbcore.ports import Volume
from tests.archive.samples import (
    ARCHIVE,
    ARCHIVE_ID,
    CATALOG,
    VOLUMES,
    Seeded,
    make_store,
    plaintexts,
    sealed_archive,
    verified,
)

DIRECTORY = f"{ARCHIVE[:2]}/{ARCHIVE}"
SIZES = [500, 1, 20_000, 4096, 9000, 300, 200]


@pytest.fixture(params=VOLUMES)
def volume(request: pytest.FixtureRequest, tmp_path: Path) -> Volume:
    return VOLUMES[request.param](tmp_path)


def stored(
    volume: Volume, blocks: list[bytes], *, container_bytes_max: int = 1 << 30, archive: str = ARCHIVE
) -> DirectoryStore:
    store = make_store(volume, container_bytes_max=container_bytes_max)
    writer = store.open_writer(archive)
    writer.write(b"".join(blocks))
    writer.finish()
    return store


def root_of(blocks: list[bytes]) -> bytes:
    root = RootHasher(ARCHIVE_ID)
    for header, _ in iter_blocks(b"".join(blocks)):
        root.add(header)
    return root.value


def number_of(block: bytes) -> int:
    return parse_header(block).number


@pytest.mark.parametrize("container_bytes_max", [1 << 30, 25_000, 1000])
def test_what_was_written_is_read(volume: Volume, container_bytes_max: int) -> None:
    blocks = sealed_archive(plaintexts(SIZES), cipher=Cipher.AES_256_GCM)
    store = make_store(volume, container_bytes_max=container_bytes_max)
    writer = store.open_writer(ARCHIVE)
    assert (store.archives(), store.unfinished()) == ([], [ARCHIVE])
    assert writer.write(blocks[0]) == 0
    assert writer.write(b"".join(blocks[1:4])) == 9
    assert writer.next_block == 0
    assert writer.sync() == 9
    assert (writer.next_block, writer.root_so_far) == (10, root_of(blocks[:4]))
    writer.write(memoryview(b"".join(blocks[4:])))
    summary = writer.finish()
    assert (store.archives(), store.unfinished()) == ([ARCHIVE], [])
    assert (summary.root, summary.blocks) == (root_of(blocks), len(blocks))
    assert summary.archive_size == sum(volume.size(f"{DIRECTORY}/{name}") for name in volume.list(DIRECTORY))
    reader = store.open_reader(ARCHIVE)
    numbers = [number_of(block) for block in blocks]
    assert reader.read(numbers) == b"".join(blocks)
    assert reader.read(numbers[::2]) == b"".join(blocks[::2])
    assert [reader.read([number]) for number in numbers] == blocks
    assert (reader.manifest_blocks(), reader.trailer_block()) == ([numbers[-2]], numbers[-1])
    name, offset, length = reader.locate(numbers[2])
    assert volume.open(f"{DIRECTORY}/{name}").read_at(offset, length) == blocks[2]
    reader.close()
    report = verified(store)
    assert (report.root, report.blocks, report.findings) == (summary.root, len(blocks), [])


def test_ports_are_kept(volume: Volume) -> None:
    store: ArchiveStore = make_store(volume)
    writer: ArchiveWriter = store.open_writer(ARCHIVE)
    writer.write(b"".join(sealed_archive(plaintexts(SIZES))))
    writer.finish()
    reader: ArchiveReader = store.open_reader(ARCHIVE)
    assert reader.archive == ARCHIVE


# --- what the writer refuses ---


def test_the_writer_takes_good_blocks_of_its_archive_in_order_only() -> None:
    store = make_store(SimulatedVolume())
    writer = store.open_writer(ARCHIVE)
    blocks = sealed_archive(plaintexts(SIZES))
    foreign = sealed_archive(plaintexts(SIZES), archive="ab" * 16)
    writer.write(blocks[1])
    broken = bytearray(blocks[3])
    broken[-1] ^= 1
    with pytest.raises(Damaged, match="digest"):
        writer.write(blocks[2] + bytes(broken))  # nothing of it is taken
    for bad in (blocks[0], blocks[1], blocks[3] + blocks[2], foreign[2], b"garbage", blocks[2][:-1], blocks[2] + b"x"):
        with pytest.raises(ProtocolViolation):
            writer.write(bad)
    with pytest.raises(ProtocolViolation, match="without its trailer"):
        writer.finish()
    writer.write(b"".join(blocks[2:]))
    after = bytes(BlockCodec(ARCHIVE_ID).seal(BlockKind.PAYLOAD, 1000, b"x"))
    with pytest.raises(ProtocolViolation, match="after the trailer"):
        writer.write(after)
    writer.finish()
    assert store.open_reader(ARCHIVE).read([3, 6, 9]) == b"".join(blocks[1:4])


def test_an_empty_write_is_harmless() -> None:
    writer = make_store(SimulatedVolume()).open_writer(ARCHIVE)
    assert writer.write(b"") == -1
    assert writer.sync() == -1
    assert writer.root_so_far == b""


@pytest.mark.parametrize("archive", ["", "..", "a" * 31, "A" * 32, "../" + "a" * 29, "a" * 32 + "\n", "a" * 33])
def test_names_cannot_lead_out_of_the_catalog(archive: str) -> None:
    store = make_store(SimulatedVolume())
    with pytest.raises(ProtocolViolation):
        store.open_writer(archive)
    with pytest.raises(ProtocolViolation):
        store.remove(archive)
    with pytest.raises(NotFound):
        store.open_reader(archive)
    with pytest.raises(NotFound):
        next(store.verify(archive))


def test_the_reader_refuses_what_it_cannot_give(volume: Volume) -> None:
    reader = stored(volume, sealed_archive(plaintexts(SIZES))).open_reader(ARCHIVE)
    with pytest.raises(NotFound, match="no block 1"):
        reader.read([0, 1])
    with pytest.raises(ProtocolViolation, match="ascend"):
        reader.read([3, 0])
    with pytest.raises(NotFound):
        reader.locate(2)
    assert reader.read([]) == b""


def test_one_read_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = stored(SimulatedVolume(), sealed_archive(plaintexts(SIZES))).open_reader(ARCHIVE)
    monkeypatch.setattr("drivers.archive_reader.READ_BYTES_MAX", 10_000)
    with pytest.raises(TooLarge):
        reader.read([0, 6])


# --- the catalog ---


def test_a_wrong_or_missing_catalog_is_no_empty_pool() -> None:
    volume = SimulatedVolume()
    with pytest.raises(Unavailable, match="no marker"):
        DirectoryStore(volume, CATALOG).archives()
    initialise_catalog(volume, CATALOG)
    initialise_catalog(volume, CATALOG)
    assert DirectoryStore(volume, CATALOG).archives() == []
    with pytest.raises(Unavailable, match="first catalog"):
        DirectoryStore(volume, "another").open_writer(ARCHIVE)
    with pytest.raises(Refused, match="directory of its own"):
        initialise_catalog(volume, "another")
    volume.flip_bit("rbmedia-catalog", 3)
    with pytest.raises(Damaged):
        DirectoryStore(volume, CATALOG).room()


def test_removal_frees_everything(volume: Volume) -> None:
    store = stored(volume, sealed_archive(plaintexts(SIZES)))
    size = sum(volume.size(f"{DIRECTORY}/{name}") for name in volume.list(DIRECTORY))
    assert store.remove(ARCHIVE) == size
    assert store.remove(ARCHIVE) == 0
    assert volume.list(ARCHIVE[:2]) == []
    with pytest.raises(NotFound):
        store.open_reader(ARCHIVE)


def test_discard_leaves_nothing(volume: Volume) -> None:
    writer = make_store(volume).open_writer(ARCHIVE)
    writer.write(sealed_archive(plaintexts(SIZES))[0])
    writer.sync()
    writer.discard()
    assert volume.list(ARCHIVE[:2]) == []


def test_a_sweep_removes_what_nobody_knows_and_nothing_else(volume: Volume) -> None:
    unknown, unfinished = "5e" + "0" * 30, "77" + "0" * 30
    store = stored(volume, sealed_archive(plaintexts(SIZES)))
    stored(volume, sealed_archive(plaintexts(SIZES), archive=unknown), archive=unknown)
    for archive in (unfinished, "78" + "0" * 30):
        writer = store.open_writer(archive)
        writer.write(sealed_archive(plaintexts(SIZES), archive=archive)[0])
        writer.sync()
        writer.suspend()
    for path in (f"{DIRECTORY}/core", "5e/stray", f"5e/{'5e' + '1' * 30}.removing/x", "lost+found/y"):
        volume.make_directory(path.rpartition("/")[0])
        volume.create(path).close()
    removed = dict(store.sweep({ARCHIVE, unfinished}))
    assert set(removed) == {f"{DIRECTORY}/core", "5e/stray", f"5e/{'5e' + '1' * 30}.removing", f"5e/{unknown}", f"78/78{'0' * 30}.partial"}  # fmt: skip
    assert removed[f"5e/{unknown}"] > sum(SIZES)
    assert (store.archives(), store.unfinished()) == ([ARCHIVE], [unfinished])
    assert verified(store).findings == []
    assert volume.exists("lost+found/y")
    assert store.sweep({ARCHIVE, unfinished}) == []


# --- damage ---


def damage(volume: Volume, path: str, change: Callable[[bytearray], None]) -> None:
    """Rewrite a file with something changed."""
    file = volume.open(path, writable=True)
    content = bytearray(file.read_at(0, file.size()))
    change(content)
    file.truncate(0)
    file.write(bytes(content))
    file.sync()
    file.close()


@pytest.mark.parametrize("lose", ["removed", "damaged", "of another archive"])
def test_a_lost_index_is_made_again(volume: Volume, lose: str) -> None:
    blocks = sealed_archive(plaintexts(SIZES))
    store = stored(volume, blocks, container_bytes_max=25_000)
    path = f"{DIRECTORY}/index"
    before = volume.open(path).read_at(0, 10_000)
    if lose == "removed":
        volume.remove(path)
    elif lose == "damaged":
        damage(volume, path, lambda content: content.__setitem__(60, content[60] ^ 1))
    else:
        other = "ab" * 16
        stored(volume, sealed_archive(plaintexts([1, 2], 9), archive=other), archive=other)
        volume.remove(path)
        volume.rename(f"ab/{other}/index", path)
    assert [finding.container for finding in verified(store).findings] == ["index"]
    reader = store.open_reader(ARCHIVE)
    assert reader.read([number_of(block) for block in blocks]) == b"".join(blocks)
    assert volume.open(path).read_at(0, 10_000) == before
    assert verified(store).findings == []


def test_every_single_bit_flip_of_a_stored_archive_is_found() -> None:
    volume = SimulatedVolume()
    blocks = sealed_archive([b"first", b"second", b"manifest", b"trailer"])
    store = stored(volume, blocks)
    whole = verified(store)
    path = f"{DIRECTORY}/000001.rbc"
    used = 64 + sum(map(len, blocks))
    assert volume.size(path) == aligned(used)
    for bit in [*range(8 * used), *range(8 * used, 8 * volume.size(path), 61)]:
        volume.flip_bit(path, bit)
        report = verified(store)
        assert report.findings, bit
        assert report.findings[0].container == "000001.rbc"
        assert report.root in (b"", whole.root)
        assert len(report.findings) == 1
        volume.flip_bit(path, bit)
    assert verified(store) == whole


@pytest.mark.parametrize("position", range(7))
@pytest.mark.parametrize("part", ["header", "payload"])
@pytest.mark.parametrize("container_bytes_max", [1 << 30, 1000])
def test_damage_is_named_exactly_and_the_rest_is_restorable(position: int, part: str, container_bytes_max: int) -> None:
    volume = SimulatedVolume()
    blocks = sealed_archive(plaintexts(SIZES))
    store = stored(volume, blocks, container_bytes_max=container_bytes_max)
    reader = store.open_reader(ARCHIVE)
    number = number_of(blocks[position])
    name, offset, length = reader.locate(number)
    volume.flip_bit(f"{DIRECTORY}/{name}", 8 * (offset + (30 if part == "header" else length - 1)))
    report = verified(store)
    assert [(one.container, one.offset, one.block) for one in report.findings if one.container] == [
        (name, offset, number)
    ]
    assert report.blocks == len(blocks) - 1
    assert report.root == (b"" if part == "header" else root_of(blocks))
    with pytest.raises(Damaged) as caught:
        reader.read([number])
    assert caught.value.data == {"container": name, "offset": offset, "block": number}
    # Also when the index is lost together with the block.
    volume.remove(f"{DIRECTORY}/index")
    reader = store.open_reader(ARCHIVE)
    for other in blocks:
        if other is not blocks[position]:
            assert reader.read([number_of(other)]) == other


def test_a_missing_container_costs_its_blocks_only() -> None:
    volume = SimulatedVolume()
    blocks = sealed_archive(plaintexts(SIZES))
    store = stored(volume, blocks, container_bytes_max=25_000)
    assert volume.list(DIRECTORY) == ["000001.rbc", "000002.rbc", "index"]
    volume.remove(f"{DIRECTORY}/000001.rbc")
    report = verified(store)
    assert report.root == b""
    assert [(one.container, one.block) for one in report.findings] == [
        ("000001.rbc", -1),
        *(("000001.rbc", number_of(block)) for block in blocks[:3]),
    ]
    reader = store.open_reader(ARCHIVE)
    with pytest.raises(Damaged, match="missing"):
        reader.read([0])
    assert reader.read([number_of(block) for block in blocks[3:]]) == b"".join(blocks[3:])


@pytest.mark.parametrize("keep", [0, 40, 64, 100, 700, 21_000])
def test_a_container_cut_short(keep: int) -> None:
    volume = SimulatedVolume()
    blocks = sealed_archive(plaintexts(SIZES))
    store = stored(volume, blocks)
    volume.open(f"{DIRECTORY}/000001.rbc", writable=True).truncate(keep)
    report = verified(store)
    assert report.root == b""
    named = {one.block for one in report.findings if one.block >= 0}
    reader = store.open_reader(ARCHIVE)
    for block in blocks:
        if number_of(block) in named:
            with pytest.raises(Damaged):
                reader.read([number_of(block)])
        else:
            assert reader.read([number_of(block)]) == block
    assert report.blocks == len(blocks) - len(named)


def test_bytes_lost_inside_a_block_do_not_cost_its_neighbours(volume: Volume) -> None:
    blocks = sealed_archive(plaintexts(SIZES))
    store = stored(volume, blocks)
    _, offset, _ = store.open_reader(ARCHIVE).locate(number_of(blocks[2]))
    damage(volume, f"{DIRECTORY}/000001.rbc", lambda content: content.__delitem__(slice(offset + 5000, offset + 5100)))
    volume.remove(f"{DIRECTORY}/index")
    reader = store.open_reader(ARCHIVE)
    for block in blocks:
        if block is blocks[2]:
            with pytest.raises((Damaged, NotFound)):
                reader.read([number_of(block)])
        else:
            assert reader.read([number_of(block)]) == block


def test_what_the_device_cannot_read_is_found_and_read_around() -> None:
    volume = SimulatedVolume()
    blocks = sealed_archive(plaintexts([300_000] * 5))
    store = stored(volume, blocks)
    _, offset, _ = store.open_reader(ARCHIVE).locate(number_of(blocks[2]))
    volume.spoil(f"{DIRECTORY}/000001.rbc", offset + 150_000, 512)
    report = verified(store)
    assert {one.block for one in report.findings} == {number_of(blocks[2]), -1}
    assert any("cannot be read" in one.what for one in report.findings)
    assert report.blocks == 4


def test_a_misdirected_write_is_found() -> None:
    volume = SimulatedVolume()
    store = make_store(volume)
    blocks = sealed_archive(plaintexts(SIZES))
    writer = store.open_writer(ARCHIVE)
    writer.write(b"".join(blocks[:3]))
    volume.misdirect_next_write(f"{DIRECTORY}.partial/000001.rbc", 300)
    writer.write(blocks[3])
    writer.write(b"".join(blocks[4:]))
    writer.finish()
    report = verified(store)
    assert {one.block for one in report.findings if one.block >= 0} == {number_of(block) for block in blocks[:4]}
    assert report.blocks == len(blocks) - 4


def test_verification_comes_in_pieces_and_tells_how_far_it_is() -> None:
    volume = SimulatedVolume()
    blocks = sealed_archive(plaintexts([4_000_000] * 6 + [10, 10]))
    store = stored(volume, blocks)
    heard: list[int] = []
    steps = list(store.verify(ARCHIVE, heard.append))
    assert len(steps) == 4
    assert heard == sorted(heard)
    assert max(later - earlier for earlier, later in zip([0, *heard], heard, strict=False)) <= PIECE_BYTES
    report = steps[-1]
    assert report is not None
    assert report.bytes_read == heard[-1] == volume.size(f"{DIRECTORY}/000001.rbc")


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), flips=st.lists(st.integers(0, 2**40), min_size=1, max_size=6))
def test_whatever_rots_what_verification_calls_good_is_good(seed: int, flips: list[int]) -> None:
    volume = SimulatedVolume()
    blocks = sealed_archive(plaintexts(SIZES, seed))
    store = stored(volume, blocks, container_bytes_max=25_000)
    for flip in flips:
        path = f"{DIRECTORY}/{('000001.rbc', '000002.rbc', 'index')[flip % 3]}"
        volume.flip_bit(path, flip % (8 * volume.size(path)))
    report = verified(store)
    reader = store.open_reader(ARCHIVE)
    readable = 0
    for block in blocks:
        try:
            assert reader.read([number_of(block)]) == block
            readable += 1
        except (Damaged, NotFound):
            pass
    assert readable == report.blocks
    assert report.findings or report.root == root_of(blocks)


# --- going on ---


def test_a_resumed_archive_has_one_trailer_and_the_last_manifest(volume: Volume) -> None:
    store = make_store(volume)
    codec = BlockCodec(ARCHIVE_ID)
    begin = BlockFlag.MANIFEST_BEGINS

    def seal(kind: BlockKind, number: int, plaintext: bytes, flags: int = 0) -> bytes:
        return bytes(codec.seal(kind, number, plaintext, flags=flags))

    writer = store.open_writer(ARCHIVE)
    writer.write(
        seal(BlockKind.PAYLOAD, 1, b"a") + seal(BlockKind.MANIFEST, 2, b"old", begin)
        + seal(BlockKind.TRAILER, 3, b"old")
    )  # fmt: skip
    writer.finish()
    # The daemon died before the event: the same archive is opened for writing once more.
    writer = store.open_writer(ARCHIVE)
    assert (store.archives(), store.unfinished()) == ([], [ARCHIVE])
    assert (writer.next_block, writer.manifest_blocks) == (3, [2])
    assert parse_header(writer.read([2])).kind is BlockKind.MANIFEST
    with pytest.raises(NotFound):
        writer.read([3])
    writer.write(seal(BlockKind.MANIFEST, 5, b"new", begin) + seal(BlockKind.MANIFEST, 6, b"more"))
    writer.write(seal(BlockKind.TRAILER, 7, b"new"))
    assert writer.manifest_blocks == [2, 5, 6]
    writer.finish()
    reader = store.open_reader(ARCHIVE)
    assert (reader.manifest_blocks(), reader.trailer_block()) == ([5, 6], 7)
    assert verified(store).findings == []


def test_a_full_disk_leaves_what_is_durable() -> None:
    volume = SimulatedVolume(capacity_bytes=30_000)
    store = make_store(volume)
    blocks = sealed_archive(plaintexts(SIZES))
    writer = store.open_writer(ARCHIVE)
    writer.write(b"".join(blocks[:2]))
    writer.sync()
    with pytest.raises(StorageFull):
        writer.write(b"".join(blocks[2:]))
    with pytest.raises(StorageFull):
        writer.sync()
    writer.suspend()
    volume.capacity_bytes = 1 << 30
    writer = store.open_writer(ARCHIVE)
    assert writer.next_block > number_of(blocks[1])
    kept = [block for block in blocks if number_of(block) < writer.next_block]
    writer.write(b"".join(blocks[len(kept) :]))
    assert writer.finish().root == root_of(blocks)
    assert verified(store).findings == []


def test_going_on_keeps_the_run_of_good_blocks_in_order(volume: Volume) -> None:
    store = make_store(volume)
    blocks = sealed_archive(plaintexts(SIZES))
    writer = store.open_writer(ARCHIVE)
    writer.write(b"".join(blocks[:2]))
    writer.sync()
    writer.suspend()
    path = f"{DIRECTORY}.partial/000001.rbc"
    end = 64 + len(blocks[0]) + len(blocks[1])
    damage(volume, path, lambda content: content.__setitem__(slice(end, None), blocks[0] + blocks[2]))
    assert store.open_writer(ARCHIVE).next_block == number_of(blocks[1]) + 1
    assert volume.size(path) == aligned(end)


def test_a_misdirected_block_does_not_hide_those_behind_it() -> None:
    """The last payload block also lands in the first one's place, and the index is lost: all but the first can be read."""
    volume = SimulatedVolume()
    blocks = sealed_archive(plaintexts([8000, 100, 200, 300, 50, 60]))
    store = stored(volume, blocks)
    copy = blocks[3]
    damage(volume, f"{DIRECTORY}/000001.rbc", lambda content: content.__setitem__(slice(1000, 1000 + len(copy)), copy))
    findings = verified(store).findings
    assert [(one.offset, one.block) for one in findings] == [(64, 0), (1000, number_of(copy))]
    volume.remove(f"{DIRECTORY}/index")
    reader = store.open_reader(ARCHIVE)
    assert reader.read([number_of(block) for block in blocks[1:]]) == b"".join(blocks[1:])


def crash_of(store_volume: SimulatedVolume, seed: int) -> tuple[SimulatedVolume, DirectoryStore]:
    survivor = store_volume.crash(Seeded(seed))
    return survivor, DirectoryStore(survivor, CATALOG, container_bytes_max=25_000)


def test_a_crash_right_after_a_sync_loses_nothing() -> None:
    blocks = sealed_archive(plaintexts(SIZES))
    for seed in range(40):
        volume = SimulatedVolume()
        writer = make_store(volume, container_bytes_max=25_000).open_writer(ARCHIVE)
        writer.write(b"".join(blocks[:5]))
        writer.sync()
        writer.write(blocks[5])
        _, store = crash_of(volume, seed)
        resumed = store.open_writer(ARCHIVE)
        assert resumed.next_block in (number_of(blocks[4]) + 1, number_of(blocks[5]) + 1)
        assert resumed.read([number_of(block) for block in blocks[:5]]) == b"".join(blocks[:5])
