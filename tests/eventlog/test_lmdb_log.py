"""The log on a real disk: life cycle, lock, keys, index lag, and what a process that dies leaves behind."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import lmdb
import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from eventlog import StoreOptions, open_log
from eventlog.checkpoint import Checkpoint
from eventlog.indexes import INDEX_LAG_EVENTS
from eventlog.rebuild import rebuild_indexes
from eventlog.signing import SIGNING_KEY_FILE, signature_holds
from rbcore.errors import Damaged, Refused, VersionConflict
from tests.eventlog.logs import batch, fill, make_log, overwrite, stored


async def test_a_log_survives_being_closed(tmp_path: Path) -> None:
    path = await make_log(tmp_path, 700)
    async with open_log(path, secrets=tmp_path / "secrets") as log:
        assert log.head == 700
        assert log.answer_of("command-3") == log.answer_of("command-699") == b"answer"
        assert [one.version for one in log.read_stream("task/3")] == list(range(1, 71))
        with pytest.raises(VersionConflict):
            log.submit(batch("x", "task/3", expected={"task/3": 69}))
        await log.submit(batch("x", "task/3", expected={"task/3": 70}, time_ns=1)).durable()
        (newest,) = log.read(700)
        assert newest.time_ns == 700_000, "times go on where they were"


@pytest.mark.parametrize("count", [INDEX_LAG_EVENTS - 1, INDEX_LAG_EVENTS, INDEX_LAG_EVENTS + 1, 3 * INDEX_LAG_EVENTS])
async def test_indexes_that_lag_are_seen_all_the_same(tmp_path: Path, count: int) -> None:
    async with open_log(tmp_path / "log", secrets=tmp_path / "secrets") as log:
        for number in range(1, count + 1):
            log.submit(batch(f"c{number}", f"task/{number % 3}"))
            if number % 7 == 0:
                await log.submit(batch(f"again{number}", "task/7")).durable()
        await log.submit(batch("last")).durable()
        for number in range(3):
            versions = [one.version for one in log.read_stream(f"task/{number}")]
            assert versions == list(range(1, len(versions) + 1))
        assert all(log.answer_of(f"c{number}") == b"answer" for number in range(1, count + 1))


async def test_a_second_process_cannot_append(tmp_path: Path) -> None:
    async with open_log(tmp_path / "log", secrets=tmp_path / "secrets"):
        with pytest.raises(Refused, match=rf"{tmp_path / 'log'} is open for appending by process {os.getpid()}"):
            async with open_log(tmp_path / "log", secrets=tmp_path / "secrets"):
                pass
    async with open_log(tmp_path / "log", secrets=tmp_path / "secrets"):
        pass


async def test_the_signing_key_is_made_once_and_is_private(tmp_path: Path) -> None:
    path = await make_log(tmp_path, 3)
    key = tmp_path / "secrets" / SIGNING_KEY_FILE
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    before = key.read_bytes()
    async with open_log(path, secrets=tmp_path / "secrets"):
        pass
    assert key.read_bytes() == before
    assert sorted(one.name for one in key.parent.iterdir()) == [SIGNING_KEY_FILE]


async def test_a_log_is_not_opened_with_a_foreign_or_broken_key(tmp_path: Path) -> None:
    path = await make_log(tmp_path, 3)
    with pytest.raises(Refused, match="Restore the signing key that belongs to this log"):
        async with open_log(path, secrets=tmp_path / "other"):
            pass
    (tmp_path / "secrets" / SIGNING_KEY_FILE).write_text("nonsense")
    with pytest.raises(Refused, match="cannot be read"):
        async with open_log(path, secrets=tmp_path / "secrets"):
            pass


async def test_checkpoints_are_signed_now_and_then_and_at_the_end(tmp_path: Path) -> None:
    options = StoreOptions(checkpoint_every_events=100, map_bytes=1 << 30)
    async with open_log(tmp_path / "log", secrets=tmp_path / "secrets", options=options) as log:
        await fill(log, 250, group=10)
        running = (log.path / "checkpoint.json").read_bytes()
    for data, size in ((running, 200), ((tmp_path / "log" / "checkpoint.json").read_bytes(), 250)):
        checkpoint = msgspec.json.decode(data, type=Checkpoint)
        assert signature_holds(checkpoint)
        assert checkpoint.head().size == size
        assert checkpoint.head().log_id == log.log_id


async def test_a_log_that_lost_its_tail_is_not_opened(tmp_path: Path) -> None:
    path = await make_log(tmp_path, 30)
    overwrite(path, {29: None, 30: None})
    with pytest.raises(Damaged, match="events 29 to 30 are lost"):
        async with open_log(path, secrets=tmp_path / "secrets"):
            pass


async def test_a_log_with_a_hole_or_a_damaged_tail_is_not_opened(tmp_path: Path) -> None:
    path = await make_log(tmp_path, 30)
    whole = stored(path)
    overwrite(path, {12: None})
    with pytest.raises(Damaged, match="ends at 30 and has 29 events"):
        async with open_log(path, secrets=tmp_path / "secrets"):
            pass
    overwrite(path, {12: whole[11], 28: whole[27][:20] + b"\xff" + whole[27][21:]})
    with pytest.raises(Damaged, match="Event 28 near the end"):
        async with open_log(path, secrets=tmp_path / "secrets"):
            pass


@pytest.mark.parametrize("content", [b"not lmdb" * 4096, bytes(1 << 16)])
async def test_a_file_that_is_no_log_is_told_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = await make_log(tmp_path, 3)
    (path / "data.mdb").write_bytes(content)
    with pytest.raises(Damaged, match="of the event log is damaged"):
        async with open_log(path, secrets=tmp_path / "secrets"):
            pass


async def test_indexes_can_be_thrown_away(tmp_path: Path) -> None:
    path = await make_log(tmp_path, 9000)
    with lmdb.open(str(path), max_dbs=6, map_size=1 << 30) as environment:
        for name in (b"streams", b"commands", b"subtrees"):
            database = environment.open_db(name)
            with environment.begin(write=True) as transaction:
                transaction.drop(database, delete=False)
    rebuilt = rebuild_indexes(path, 1 << 30)
    assert (rebuilt.events, rebuilt.subtrees) == (9000, 2)
    async with open_log(path, secrets=tmp_path / "secrets") as log:
        assert log.answer_of("command-8999") == b"answer"
        assert len(list(log.read_stream("task/4"))) == 900


_APPENDER = """
import sys, trio
from pathlib import Path
from eventlog import open_log
from tests.eventlog.logs import batch

async def main(home):
    async with open_log(home / "log", secrets=home / "secrets") as log:
        async def client(name):
            step = log.head
            while True:
                step += 1
                await log.submit(batch(f"{name}-{step}", f"task/{name}", f"pool/{step % 5}", f"task/{name}")).durable()
                sys.stdout.write(f"{name}-{step}\\n")
                sys.stdout.flush()
        async with trio.open_nursery() as nursery:
            for name in range(8):
                nursery.start_soon(client, name)

trio.run(main, Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    acknowledged: set[str] = set()
    for lines in (1, 40, 300, 7, 150):
        process = subprocess.Popen([sys.executable, "-c", _APPENDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(lines):
            acknowledged.add(process.stdout.readline().strip())
        process.send_signal(signal.SIGKILL)
        acknowledged.update(process.stdout.read().split("\n")[:-1])
        process.wait()
        process.stdout.close()
        trio.run(_all_is_there, tmp_path, acknowledged)


async def _all_is_there(home: Path, acknowledged: set[str]) -> None:
    async with open_log(home / "log", secrets=home / "secrets") as log:
        versions: dict[str, int] = {}
        kept: dict[str, int] = {}
        for position, envelope in enumerate(log.read(), start=1):
            versions[envelope.stream] = versions.get(envelope.stream, 0) + 1
            kept[envelope.command_id] = kept.get(envelope.command_id, 0) + 1
            assert (envelope.position, envelope.version) == (position, versions[envelope.stream])
        assert acknowledged <= set(kept)
        assert set(kept.values()) == {3}, "batches land whole"
        assert all(log.answer_of(command_id) == b"answer" for command_id in kept)


_streams = st.sampled_from(["task/1", "task/2", "pool/1", "client/77"])
_batches = st.lists(st.lists(_streams, min_size=1, max_size=6), max_size=30)


@settings(max_examples=15, deadline=None)
@given(lives=st.lists(_batches, min_size=1, max_size=4))
def test_random_batches_over_several_lives(
    tmp_path_factory: pytest.TempPathFactory, lives: list[list[list[str]]]
) -> None:
    home = tmp_path_factory.mktemp("lives")
    versions: dict[str, int] = {}
    submitted: list[tuple[str, int, str]] = []

    async def live(number: int, batches: list[list[str]]) -> None:
        async with open_log(home / "log", secrets=home / "secrets") as log:
            assert [(one.stream, one.version, one.command_id) for one in log.read()] == submitted
            for step, streams in enumerate(batches):
                command_id = f"{number}.{step}"
                expected = {stream: versions.get(stream, 0) for stream in streams}
                pending = log.submit(batch(command_id, *streams, expected=expected))
                for stream in streams:
                    versions[stream] = versions.get(stream, 0) + 1
                    submitted.append((stream, versions[stream], command_id))
                if step % 3 == 0:
                    await pending.durable()

    for number, batches in enumerate(lives):
        trio.run(live, number, batches)
    trio.run(live, len(lives), [])
