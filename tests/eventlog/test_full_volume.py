"""A full log volume: on a real small file system, with a floor of free bytes, and with a full map."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from eventlog import LmdbLog, StoreOptions, decode_event, open_log
from eventlog.audit import verify
from rbcore.errors import ReadOnly, Unavailable
from tests.eventlog.logs import batch, fill, note

VOLUME_BYTES = 12 << 20


@pytest.fixture(params=["tmpfs", "ext4"])
def volume(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A mounted file system of 12 MiB. Needs the right to mount."""
    place = tmp_path / "volume"
    place.mkdir()
    if request.param == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", f"size={VOLUME_BYTES}", "tmpfs", str(place)]
    else:
        image = tmp_path / "image"
        with image.open("wb") as file:
            file.truncate(VOLUME_BYTES)
        if shutil.which("mkfs.ext4") is None:
            pytest.skip("NOT TESTED: a full ext4 volume; mkfs.ext4 is not installed")
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
        command = ["mount", "-o", "loop", str(image), str(place)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(
            f"NOT TESTED: a full {request.param} volume; mounting is not permitted here: {mounted.stderr.strip()}"
        )
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


async def fill_up(log: LmdbLog, *, text: str = "x" * 20_000) -> tuple[int, ReadOnly]:
    """Append until it is refused; (batches acknowledged, the refusal)."""
    acknowledged = 0
    while True:
        try:
            await log.submit(batch(f"filling-{log.head}-{acknowledged}", text=text)).durable()
        except ReadOnly as error:
            return acknowledged, error
        acknowledged += 1
        assert acknowledged < 2000, "the volume has an end"


async def writable_again(log: LmdbLog) -> None:
    with trio.fail_after(10):
        await log.writable()
    assert log.statistics().read_only_reason == ""


@pytest.mark.parametrize("free_bytes_min", [0, 2 << 20], ids=["until the file system says so", "with a floor"])
async def test_a_full_volume_stops_writes_keeps_reads_and_resumes(
    volume: Path, tmp_path: Path, free_bytes_min: int
) -> None:
    ballast = volume / "ballast"
    ballast.write_bytes(bytes(4 << 20))
    options = StoreOptions(free_bytes_min=free_bytes_min, map_bytes=1 << 30)
    async with open_log(volume / "log", secrets=tmp_path / "secrets", options=options, probe_seconds=0.05) as log:
        rollbacks: list[int] = []
        log.on_rollback(rollbacks.append)
        await fill(log, 20)
        acknowledged, error = await fill_up(log)
        head = 20 + acknowledged
        assert "log volume full" in error.message
        assert str(volume) in error.message
        assert "resumes by itself" in error.message
        assert (log.head, log.statistics().head, rollbacks[-1]) == (head, head, head)
        assert log.statistics().read_only_reason == error.message

        assert [one.position for one in log.read()] == list(range(1, head + 1))
        assert len(list(log.read_stream("task/1"))) == 2 + acknowledged
        assert log.answer_of("command-20") == b"answer"

        ballast.unlink()
        await writable_again(log)
        await log.submit(batch("after", "task/after", expected={"task/after": 0})).durable()
        assert log.head == head + 1
    report = verify(volume / "log")
    assert report.sound, report.findings
    assert report.events == head + 1


async def test_everything_pending_fails_together_and_is_taken_back(volume: Path, tmp_path: Path) -> None:
    options = StoreOptions(free_bytes_min=0, map_bytes=1 << 30)
    async with open_log(volume / "log", secrets=tmp_path / "secrets", options=options, probe_seconds=30) as log:
        await fill(log, 20)
        stands: list[int] = []
        log.on_rollback(stands.append)
        pending = [log.submit(batch(f"big-{number}", f"big/{number}", text="x" * 300_000)) for number in range(80)]
        outcomes = []
        for one in pending:
            try:
                await one.durable()
                outcomes.append(True)
            except ReadOnly:
                outcomes.append(False)
        stored = outcomes.index(False)
        assert not any(outcomes[stored:]), "what came after a failed batch fails too"
        assert log.head == 20 + stored
        assert stands == [log.head]
        assert log.answer_of(f"big-{stored}") is None
        assert list(log.read_stream(f"big/{stored}")) == []
        with pytest.raises(ReadOnly):
            log.submit(batch("refused"))


async def test_a_log_opened_on_a_full_volume_reads(volume: Path, tmp_path: Path) -> None:
    options = StoreOptions(free_bytes_min=0, map_bytes=1 << 30)
    async with open_log(volume / "log", secrets=tmp_path / "secrets", options=options) as log:
        await fill(log, 20)
    with (volume / "ballast").open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 16)):
                pass
        except OSError:
            pass
    options = StoreOptions(free_bytes_min=1 << 20, map_bytes=1 << 30)
    async with open_log(volume / "log", secrets=tmp_path / "secrets", options=options, probe_seconds=0.05) as log:
        assert decode_event(next(iter(log.read()))) == note()
        with pytest.raises(ReadOnly):
            await log.submit(batch("refused")).durable()
        (volume / "ballast").unlink()
        await writable_again(log)
        await log.submit(batch("accepted")).durable()


async def test_a_full_map_stops_writes_until_it_is_larger(tmp_path: Path) -> None:
    options = StoreOptions(map_bytes=2 << 20)
    async with open_log(tmp_path / "log", secrets=tmp_path / "secrets", options=options, probe_seconds=0.05) as log:
        acknowledged, error = await fill_up(log)
        assert acknowledged
        assert "log map full" in error.message
        assert "larger map" in error.message
        assert len(list(log.read())) == acknowledged
    async with open_log(tmp_path / "log", secrets=tmp_path / "secrets", options=StoreOptions(map_bytes=8 << 20)) as log:
        await log.submit(batch("again")).durable()
        assert log.head == acknowledged + 1


async def test_a_batch_larger_than_the_map_fails_by_itself(tmp_path: Path) -> None:
    options = StoreOptions(map_bytes=2 << 20)
    async with open_log(tmp_path / "log", secrets=tmp_path / "secrets", options=options, probe_seconds=0.05) as log:
        with pytest.raises(ReadOnly, match="log map full"):
            await log.submit(batch("huge", text="x" * (3 << 20))).durable()
        await writable_again(log)
        await log.submit(batch("small")).durable()
        assert log.head == 1


async def test_a_writer_that_breaks_is_heard_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from eventlog.lmdb_store import LmdbStore

    async with open_log(tmp_path / "log", secrets=tmp_path / "secrets") as log:
        await fill(log, 3)

        def broken(self: LmdbStore, commits: object) -> None:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(LmdbStore, "append", broken)
        with pytest.raises(Unavailable, match="Input/output error"):
            await log.submit(batch("a")).durable()
        with pytest.raises(Unavailable, match="Input/output error"):
            log.submit(batch("b"))
        with pytest.raises(Unavailable, match="Input/output error"):
            await log.writable()
        monkeypatch.undo()
        assert len(list(log.read())) == 3
