"""``audit verify`` names the first thing that is wrong, whatever was done to a log, and never falls over."""

from __future__ import annotations

import random
import shutil
from hashlib import sha256
from pathlib import Path

import lmdb
import msgspec
import pytest

from eventlog import open_log
from eventlog.audit import Finding, VerifyReport, verify
from eventlog.checkpoint import Checkpoint
from eventlog.damage import explain
from eventlog.record import LEAF_TAG, decode_value, genesis_trailer
from eventlog.signing import Signer, load_or_make_signer
from rbcore.errors import NotFound
from tests.eventlog.logs import fill, make_log, overwrite, stored


def first(report: VerifyReport) -> Finding:
    assert not report.sound
    return report.findings[0]


async def test_a_sound_log(tmp_path: Path) -> None:
    path = await make_log(tmp_path, 9000, checkpoint_every_events=1000)
    told: list[tuple[int, int]] = []
    report = verify(path, progress=lambda done, of: told.append((done, of)))
    assert report.sound, report.findings
    assert (report.events, report.signed_events, report.checkpoints) == (9000, 9000, 9)
    assert told[-1] == (9000, 9000)
    checkpoint = msgspec.json.decode((path / "checkpoint.json").read_bytes(), type=Checkpoint)
    assert report.root == checkpoint.head().root.hex()
    assert report.public_keys == [checkpoint.public_key]
    again = verify(path, key=checkpoint.public_key, known=[checkpoint], processes=1)
    assert again == msgspec.structs.replace(report, checkpoints=10)


async def test_an_empty_log_is_sound_and_no_log_is_not_found(tmp_path: Path) -> None:
    path = await make_log(tmp_path, 0)
    assert verify(path).sound
    with pytest.raises(NotFound):
        verify(tmp_path / "elsewhere")


async def test_a_log_is_verified_while_it_is_written(tmp_path: Path) -> None:
    async with open_log(tmp_path / "log", secrets=tmp_path / "secrets") as log:
        await fill(log, 500)
        report = verify(tmp_path / "log")
        assert report.sound, report.findings
        assert report.events == 500


async def test_every_byte_of_every_record_is_vouched_for(tmp_path: Path) -> None:
    """Each byte is changed in turn; the explanation names that byte (checked in place: verify does the same per record)."""
    path = await make_log(tmp_path, 4)
    records = list(stored(path))
    log_id = _log_id(path)
    for position, value in enumerate(records, start=1):
        for offset in range(0, len(value), 3):
            damaged = bytearray(value)
            damaged[offset] ^= 0x20
            values = {**dict(enumerate(records, start=1)), position: bytes(damaged)}
            assert not _chain_holds(log_id, list(values.values()))
            damage = explain(values.get, log_id, position)
            assert damage.position == position
            assert damage.byte_offset == offset, damage.sentence
            assert damage.stream == f"task/{position}"


@pytest.mark.parametrize(
    ("offset", "field"),
    [(0, "array header"), (1, "position"), (11, "stream"), (-80, "answer"), (-33, "leaf tag"), (-5, "hash")],
)
async def test_the_damaged_field_is_named(tmp_path: Path, offset: int, field: str) -> None:
    path = await make_log(tmp_path, 30)
    value = bytearray(stored(path)[16])
    if field == "answer":
        offset = value.rindex(b"answer")
    value[offset] ^= 1
    overwrite(path, {17: bytes(value)})
    finding = first(verify(path))
    assert (finding.kind, finding.position, finding.field) == ("record", 17, field)
    assert finding.byte_offset == offset % len(value)
    assert (finding.stream, finding.type) == ("task/7", "task.noted")


async def test_several_changed_bytes_are_narrowed_down_to_the_record(tmp_path: Path) -> None:
    path = await make_log(tmp_path, 30)
    value = bytearray(stored(path)[16])
    value[20] ^= 1
    value[60] ^= 1
    overwrite(path, {17: bytes(value)})
    report = verify(path)
    finding = first(report)
    assert (finding.kind, finding.position, report.events) == ("record", 17, 16)
    assert f"bytes 0 to {len(value) - 34}" in finding.sentence
    assert "The next event vouches for the stored hash" in finding.sentence


@pytest.mark.parametrize("left", [0, 1, 32, 33, 34, 100])
async def test_a_cut_record(tmp_path: Path, left: int) -> None:
    path = await make_log(tmp_path, 30)
    overwrite(path, {17: stored(path)[16][:left]})
    finding = first(verify(path))
    assert (finding.kind, finding.position) == ("record", 17)


async def test_a_deleted_record(tmp_path: Path) -> None:
    path = await make_log(tmp_path, 30)
    overwrite(path, {17: None})
    finding = first(verify(path))
    assert (finding.kind, finding.position, finding.sentence) == ("missing", 17, "Event 17 is missing.")


async def test_swapped_records(tmp_path: Path) -> None:
    path = await make_log(tmp_path, 30)
    records = stored(path)
    overwrite(path, {17: records[20], 21: records[16]})
    finding = first(verify(path))
    assert (finding.position, finding.sentence) == (
        17,
        "Where event 17 should be there is the record of event 21.",
    )


async def test_a_lost_tail(tmp_path: Path) -> None:
    path = await make_log(tmp_path, 30)
    overwrite(path, dict.fromkeys(range(25, 31)))
    report = verify(path)
    finding = first(report)
    assert (finding.kind, finding.position, report.events) == ("missing", 25, 24)
    assert "events 25 to 30 are lost" in finding.sentence


async def test_a_tail_lost_together_with_its_checkpoint(tmp_path: Path) -> None:
    path = await make_log(tmp_path, 30)
    kept = msgspec.json.decode((path / "checkpoint.json").read_bytes(), type=Checkpoint)
    overwrite(path, dict.fromkeys(range(25, 31)))
    _drop_checkpoints(path)
    assert "The indexes go up to event 30" in first(verify(path)).sentence
    finding = first(verify(path, known=[kept], indexes=False))
    assert "The known checkpoint over 30 events" in finding.sentence


async def test_a_forged_history_with_all_hashes_made_anew(tmp_path: Path) -> None:
    path = await make_log(tmp_path, 300, checkpoint_every_events=100)
    forged = _forge(path, position=150)
    assert _chain_holds(_log_id(path), forged)
    for tree in (True, False):
        report = verify(path, tree=tree, indexes=False)
        finding = first(report)
        assert (finding.kind, finding.position) == ("checkpoint", 101)
        assert "at least one of events 101 to 200 was replaced" in finding.sentence
        assert report.signed_events == 100


async def test_a_forger_who_signs_with_another_key(tmp_path: Path) -> None:
    path = await make_log(tmp_path, 30)
    kept = msgspec.json.decode((path / "checkpoint.json").read_bytes(), type=Checkpoint)
    _forge(path, position=10)
    forger = Signer(sha256(b"forger").digest())
    from eventlog.merkle import root_of

    hashes = [value[-32:] for value in stored(path)]
    head = msgspec.structs.replace(kept.head(), head=hashes[-1], root=root_of(hashes))
    _put(path, b"checkpoints", (30).to_bytes(8, "big"), msgspec.msgpack.encode(forger.sign(head)))
    assert "is signed by key" in first(verify(path, indexes=False)).sentence
    _put(path, b"meta", b"signing_key", forger.public_key.encode())
    assert verify(path, indexes=False).sound, "whoever rewrites everything is caught only by what was kept elsewhere"
    assert first(verify(path, key=kept.public_key, indexes=False)).kind == "checkpoint"
    assert first(verify(path, known=[kept], indexes=False)).kind == "checkpoint"


async def test_a_signed_tree_head_that_is_not_that_of_the_events(tmp_path: Path) -> None:
    path = await make_log(tmp_path, 30)
    kept = msgspec.json.decode((path / "checkpoint.json").read_bytes(), type=Checkpoint)
    signer = load_or_make_signer(tmp_path / "secrets")
    wrong = signer.sign(msgspec.structs.replace(kept.head(), root=bytes(32)))
    _put(path, b"checkpoints", (30).to_bytes(8, "big"), msgspec.msgpack.encode(wrong))
    assert verify(path, tree=False, indexes=False).sound
    assert first(verify(path)).kind == "checkpoint"


@pytest.mark.parametrize("damage", ["signature", "text", "bytes"])
async def test_a_damaged_checkpoint(tmp_path: Path, damage: str) -> None:
    path = await make_log(tmp_path, 30)
    kept = msgspec.json.decode((path / "checkpoint.json").read_bytes(), type=Checkpoint)
    if damage == "signature":
        value = msgspec.msgpack.encode(msgspec.structs.replace(kept, signature="00" + kept.signature[2:]))
    elif damage == "text":
        value = msgspec.msgpack.encode(msgspec.structs.replace(kept, text="nonsense"))
    else:
        value = b"\xc1\xc1"
    _put(path, b"checkpoints", (30).to_bytes(8, "big"), value)
    finding = first(verify(path))
    assert "heckpoint" in finding.sentence


async def test_indexes_that_lie(tmp_path: Path) -> None:
    path = await make_log(tmp_path, 30)
    _put(path, b"streams", b"task/3\0" + (1).to_bytes(8, "big"), (4).to_bytes(8, "big"))
    finding = first(verify(path))
    assert (finding.kind, verify(path, indexes=False).sound) == ("index", True)
    assert "task/3 version 1, which is event 3" in finding.sentence
    assert "rebuild the indexes" in finding.sentence


async def test_damage_far_into_a_log_is_found_at_its_place(tmp_path: Path) -> None:
    path = await make_log(tmp_path, 70_000, group=1000)
    assert verify(path, indexes=False, processes=2).sound
    value = bytearray(stored(path)[68_000])
    value[30] ^= 4
    overwrite(path, {68_001: bytes(value)})
    finding = first(verify(path, processes=2))
    assert (finding.position, finding.byte_offset) == (68_001, 30)


@pytest.mark.slow
async def test_a_damaged_data_file_is_reported_or_harmless(tmp_path: Path) -> None:
    """Bytes all over the LMDB file are changed, one at a time: verify finds it, or every event is what it was."""
    path = await make_log(tmp_path, 40)
    before = stored(path)
    whole = (path / "data.mdb").read_bytes()
    generator = random.Random(20260101)
    used = [offset for offset in range(len(whole)) if whole[offset]]
    found = 0
    for offset in [*range(0, 96, 8), *generator.sample(used, 50)]:
        damaged = bytearray(whole)
        damaged[offset] ^= 1 << generator.randrange(8)
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        (copy / "data.mdb").write_bytes(damaged)
        report = verify(copy, processes=1)
        if report.sound:
            assert report.events == 40
            assert stored(copy) == before
        else:
            found += 1
            assert all(finding.sentence for finding in report.findings)
    assert found > 8, "most of the file is pages that nothing refers to any more"


@pytest.mark.parametrize("pages", [0, 1, 2, 3, 5])
async def test_a_data_file_that_was_cut_off(tmp_path: Path, pages: int) -> None:
    path = await make_log(tmp_path, 400)
    with (path / "data.mdb").open("r+b") as file:
        file.truncate(pages * 4096 + 100 * (pages > 0))
    report = verify(path, processes=1)
    assert first(report).sentence
    assert report.findings[0].kind in {"file", "missing", "record"}


@pytest.mark.parametrize("content", [b"", b"x", b"not a database" * 1000, bytes(40_960)])
async def test_a_file_that_is_something_else(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "log"
    path.mkdir()
    (path / "data.mdb").write_bytes(content)
    assert first(verify(path, processes=1)).kind == "file"


def _log_id(path: Path) -> bytes:
    with lmdb.open(str(path), max_dbs=6, readonly=True, lock=False) as environment:
        meta = environment.open_db(b"meta", create=False)
        with environment.begin(db=meta) as transaction:
            return transaction.get(b"log_id") or b""


def _put(path: Path, database: bytes, key: bytes, value: bytes) -> None:
    with lmdb.open(str(path), max_dbs=6, map_size=1 << 30) as environment:
        opened = environment.open_db(database, create=False)
        with environment.begin(write=True, db=opened) as transaction:
            transaction.put(key, value)


def _drop_checkpoints(path: Path) -> None:
    with lmdb.open(str(path), max_dbs=6, map_size=1 << 30) as environment:
        opened = environment.open_db(b"checkpoints", create=False)
        with environment.begin(write=True) as transaction:
            transaction.drop(opened, delete=False)


def _chain_holds(log_id: bytes, values: list[bytes]) -> bool:
    trailer = genesis_trailer(log_id)
    for value in values:
        expected = LEAF_TAG + sha256(trailer + value[:-33]).digest()
        if value[-33:] != expected:
            return False
        trailer = expected
    return True


def _forge(path: Path, position: int) -> list[bytes]:
    """Replace one event and make all hashes after it anew."""
    values = list(stored(path))
    trailer = values[position - 2][-33:]
    for index in range(position - 1, len(values)):
        payload = values[index][:-33]
        if index == position - 1:
            assert decode_value(values[index]).actor == "user:rubackup"
            payload = payload.replace(b"user:rubackup", b"user:somebody"[:13])
        trailer = LEAF_TAG + sha256(trailer + payload).digest()
        values[index] = payload + trailer
    overwrite(path, dict(enumerate(values, start=1)))
    return values
