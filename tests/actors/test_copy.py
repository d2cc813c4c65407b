"""Copies and Moves between two File system pools: the real daemon, real directories, a real agent that restores what came of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from actors import copier
from actors.places import Stride, split_blocks
from actors.storage import CatalogWriter
from drivers.archive_writer import PARTIAL_SUFFIX
from rbcore.archive.block import BlockCodec
from rbcore.archive.model import BlockKind
from rbcore.commands import ContinueTask, CreateRecord, PauseTask, QueueCopy
from rbcore.entities import Backup, Client, PendingRemoval
from rbcore.errors import StorageFull
from tests.actors.house import House, house, start_agent
from tests.actors.trees import describe, make_tree

SECOND = "Second"
Write = Callable[[CatalogWriter, Sequence[Any]], Awaitable[None]]


async def second_pool(daemon: House) -> Path:
    path = daemon.path / "second"
    path.mkdir()
    await daemon.execute(CreateRecord(resource="pool_list", fields={"pool_name": SECOND, "pool_type": "File system"}))
    await daemon.execute(CreateRecord(resource="storage_local_catalogs", fields={"path": str(path), "pool": SECOND}))
    return path


async def queue_copy(daemon: House, backup: Backup, pool: str = SECOND, *, move: bool = False) -> int:
    return (await daemon.execute(QueueCopy(backup_id=backup.id, pool_name=pool, move=move))).ids[0]


def found(daemon: House, backup_id: int) -> Backup:
    backup = daemon.journal.state.find(Backup, backup_id)
    assert backup is not None
    return backup


async def copied(daemon: House, backup: Backup, pool: str = SECOND, *, move: bool = False) -> Backup:
    task = await daemon.done(await queue_copy(daemon, backup, pool, move=move))
    return found(daemon, task.backup_id)


async def settled(daemon: House) -> None:
    """No task is left."""
    await daemon.until(lambda: not daemon.journal.state.active_tasks(), "every task ends")


async def backed_up(daemon: House, nursery: trio.Nursery, source: Path, **changes: Any) -> tuple[Client, Backup]:
    agent = await start_agent(nursery, daemon.path)
    client = await daemon.authorise(agent.hwid)
    return client, await daemon.backup(client, source, **changes)


def archives(path: Path) -> set[str]:
    return {one.name for one in path.glob("??/*")}


def on_writes(monkeypatch: pytest.MonkeyPatch, hook: Write) -> None:
    """Call ``hook`` before each write to a catalog."""
    write = CatalogWriter.write

    async def hooked(self: CatalogWriter, pieces: Sequence[Any], *, sync: bool) -> int:
        await hook(self, pieces)
        return await write(self, pieces, sync=sync)

    monkeypatch.setattr(CatalogWriter, "write", hooked)


@pytest.mark.parametrize("crypto", ["nocrypt", "AES-256-GCM"])
async def test_a_copy_is_restored_after_its_source_has_gone(tmp_path: Path, crypto: str) -> None:
    source = make_tree(tmp_path / "source")
    async with house(tmp_path) as daemon, trio.open_nursery() as nursery:
        second = await second_pool(daemon)
        _, full = await backed_up(daemon, nursery, source, crypto=crypto)
        copy = await copied(daemon, full)
        assert copy.id != full.id
        assert (copy.archive, copy.root, copy.pool_id) == (full.archive, full.root, 2)
        assert archives(daemon.pool) == archives(second) == {full.archive}
        await daemon.delete(full)
        assert archives(daemon.pool) == set()
        assert (await daemon.verify(copy)).verification_status == "Trusted"
        await daemon.restore(copy, tmp_path / "restored")
        assert describe(tmp_path / "restored") == describe(source)
        back = await copied(daemon, copy, "Default")
        assert archives(daemon.pool) == {back.archive}
        nursery.cancel_scope.cancel()


async def test_a_chain_whose_full_backup_was_moved(tmp_path: Path) -> None:
    source = make_tree(tmp_path / "source")
    async with house(tmp_path) as daemon, trio.open_nursery() as nursery:
        second = await second_pool(daemon)
        client, full = await backed_up(daemon, nursery, source)
        (source / "new").write_bytes(b"new")
        incremental = await daemon.backup(client, source, backup_type="incremental")
        moved = await copied(daemon, full, move=True)
        assert (moved.id, moved.pool_id) == (full.id, 2)
        await settled(daemon)
        assert archives(second) == {full.archive}
        assert archives(daemon.pool) == {incremental.archive}
        assert not list(daemon.journal.state.all(PendingRemoval))
        await daemon.restore(incremental, tmp_path / "restored")
        assert describe(tmp_path / "restored") == describe(source)
        (source / "newer").write_bytes(b"newer")
        last = await daemon.backup(client, source, backup_type="incremental")
        assert last.ref_id == incremental.id
        await daemon.restore(last, tmp_path / "again")
        assert describe(tmp_path / "again") == describe(source)
        await copied(daemon, moved, "Default", move=True)
        await settled(daemon)
        assert archives(second) == set()
        await daemon.restore(last, tmp_path / "back")
        assert describe(tmp_path / "back") == describe(source)
        nursery.cancel_scope.cancel()


async def test_a_copy_goes_on_where_the_daemon_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_tree(tmp_path / "source", large_bytes=40_000_000)
    written: list[int] = []
    monkeypatch.setattr(copier, "SYNC_BYTES", 1)
    async with house(tmp_path) as daemon, trio.open_nursery() as nursery:
        second = await second_pool(daemon)
        _, full = await backed_up(daemon, nursery, source)
        reached = trio.Event()

        async def stop_in_the_middle(_writer: CatalogWriter, pieces: Sequence[Any]) -> None:
            if len(written) >= 5:
                reached.set()
                await trio.sleep_forever()
            written.append(sum(map(len, pieces)))

        with monkeypatch.context() as patch:
            on_writes(patch, stop_in_the_middle)
            task_id = await queue_copy(daemon, full)
            await reached.wait()
        assert archives(second) == {full.archive + PARTIAL_SUFFIX}
        nursery.cancel_scope.cancel()
    rest: list[int] = []

    async def count(_writer: CatalogWriter, pieces: Sequence[Any]) -> None:
        rest.append(sum(map(len, pieces)))

    on_writes(monkeypatch, count)
    async with house(tmp_path) as daemon, trio.open_nursery() as nursery:
        await start_agent(nursery, tmp_path)
        copy = found(daemon, (await daemon.done(task_id)).backup_id)
        assert sum(rest) < full.archive_size - sum(written) + 1_000_000, "what was durable was written again"
        assert archives(tmp_path / "second") == {full.archive}
        assert (await daemon.verify(copy)).verification_status == "Trusted"
        await daemon.delete(full)
        await daemon.restore(copy, tmp_path / "restored")
        assert describe(tmp_path / "restored") == describe(source)
        nursery.cancel_scope.cancel()


async def test_a_full_target_suspends_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_tree(tmp_path / "source")
    async with house(tmp_path) as daemon, trio.open_nursery() as nursery:
        await second_pool(daemon)
        _, full = await backed_up(daemon, nursery, source)

        async def is_full(_writer: CatalogWriter, _pieces: Sequence[Any]) -> None:
            raise StorageFull("The pool's volume has no room.")

        with monkeypatch.context() as patch:
            on_writes(patch, is_full)
            task_id = await queue_copy(daemon, full)
            await daemon.until(lambda: daemon.task(task_id).status == "Suspended", "the copy waits for room")
            assert "has no room" in daemon.task(task_id).status_reason
        assert list(daemon.journal.state.all(Backup)) == [full]
        await daemon.execute(ContinueTask(task_id=task_id))
        await daemon.done(task_id)
        nursery.cancel_scope.cancel()


async def test_a_damaged_source_is_not_copied(tmp_path: Path) -> None:
    source = make_tree(tmp_path / "source", large_bytes=8_000_000)
    async with house(tmp_path) as daemon, trio.open_nursery() as nursery:
        second = await second_pool(daemon)
        _, full = await backed_up(daemon, nursery, source)
        container = next(daemon.pool.glob(f"??/{full.archive}/*.rbc"))
        raw = bytearray(container.read_bytes())
        raw[len(raw) // 2] ^= 1
        container.write_bytes(raw)
        task = await daemon.ended(await queue_copy(daemon, full, move=True))
        assert task.status == "Error"
        assert "block " in task.status_reason
        assert "digest" in task.status_reason
        assert list(daemon.journal.state.all(Backup)) == [full], "nothing was recorded"
        with trio.fail_after(20):
            while archives(second):  # noqa: ASYNC110  (a directory has no event)
                await trio.sleep(0.05)
        nursery.cancel_scope.cancel()


async def test_a_copy_is_paused_continued_and_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_tree(tmp_path / "source", large_bytes=60_000_000)
    async with house(tmp_path) as daemon, trio.open_nursery() as nursery:
        second = await second_pool(daemon)
        _, full = await backed_up(daemon, nursery, source)
        written: list[int] = []
        gate = trio.Event()

        async def wait_at_the_gate(_writer: CatalogWriter, pieces: Sequence[Any]) -> None:
            written.append(len(pieces))
            await gate.wait()

        on_writes(monkeypatch, wait_at_the_gate)
        task_id = await queue_copy(daemon, full)
        await daemon.until(lambda: daemon.task(task_id).status == "Execution", "the copy runs")
        await daemon.execute(PauseTask(task_id=task_id))
        with trio.fail_after(10):
            while not daemon.actors.jobs.paused:  # noqa: ASYNC110
                await trio.sleep(0.02)
        gate.set()
        await trio.sleep(0.5)
        paused_at = len(written)
        assert paused_at <= copier.READ_AHEAD_PIECES + 3
        await trio.sleep(0.3)
        assert len(written) == paused_at, "nothing goes on while it is paused"
        gate = trio.Event()
        await daemon.execute(ContinueTask(task_id=task_id))
        with trio.fail_after(10):
            while len(written) == paused_at:  # noqa: ASYNC110
                await trio.sleep(0.02)
        task = await daemon.kill(task_id)
        assert task.status == "Killed"
        assert list(daemon.journal.state.all(Backup)) == [full]
        with trio.fail_after(20):
            while archives(second):  # noqa: ASYNC110
                await trio.sleep(0.05)
        gate.set()
        await copied(daemon, full)
        nursery.cancel_scope.cancel()


async def test_what_an_attempt_left_elsewhere_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of the archive alone keeps nothing: the backup that has it lies in another catalog."""
    source = make_tree(tmp_path / "source")
    async with house(tmp_path) as daemon, trio.open_nursery() as nursery:
        second = await second_pool(daemon)
        _, full = await backed_up(daemon, nursery, source)
        stray = second / full.archive[:2] / (full.archive + PARTIAL_SUFFIX)
        stray.mkdir(parents=True)
        nursery.cancel_scope.cancel()
    async with house(tmp_path) as daemon:
        with trio.fail_after(20):
            while stray.exists():  # noqa: ASYNC110
                await trio.sleep(0.05)
        assert archives(daemon.pool) == {full.archive}


async def test_what_is_not_the_archive_is_thrown_away_and_copied_anew(tmp_path: Path) -> None:
    """Blocks of another content in what an earlier attempt left: the root tells."""
    source = make_tree(tmp_path / "source")
    async with house(tmp_path) as daemon, trio.open_nursery() as nursery:
        await second_pool(daemon)
        _, full = await backed_up(daemon, nursery, source)
        catalog = daemon.actors.storages.get(2)
        codec = BlockCodec(bytes.fromhex(full.archive))
        async with catalog.writer(full.archive) as writer:
            await writer.write([codec.seal(BlockKind.PAYLOAD, 0, b"of another world")], sync=True)
        task_id = await queue_copy(daemon, full)
        task = await daemon.done(task_id)
        assert any("begins anew" in one for one in daemon.notes(task_id))
        assert (await daemon.verify(found(daemon, task.backup_id))).verification_status == "Trusted"
        nursery.cancel_scope.cancel()


def test_pieces_are_cut_between_blocks() -> None:
    codec = BlockCodec(bytes(16))
    blocks = [bytes(codec.seal(BlockKind.PAYLOAD, number, bytes(1000 + number))) for number in range(10)]
    pieces = split_blocks(b"".join(blocks), 2 * len(blocks[-1]))
    assert [count for count, _ in pieces] == [2] * 5
    assert b"".join(bytes(view) for _, view in pieces) == b"".join(blocks)
    assert [count for count, _ in split_blocks(b"".join(blocks), 1)] == [1] * 10


def test_a_stride_grows_slowly_and_shrinks_at_once() -> None:
    stride = Stride(bytes_wanted=4000, blocks_max=16)
    for expected in (4, 8, 16, 16):
        stride.learn(stride.blocks, 1)
        assert stride.blocks == expected
    stride.learn(16, 16 * 4000)
    assert stride.blocks == 1
