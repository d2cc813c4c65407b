"""Tape pools with the real daemon and a real agent, over a simulated library: what is on cartridges comes back, is verified, copied and moved."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from drivers.simulated.tape import NO_DELAY, SimulatedLibrary
from rbcore.commands import AddTapeLibrary, CreateRecord, QueueCopy
from rbcore.entities import Backup, Client, PendingRemoval, TapeCartridge, TapeLibrary, TapeTask
from rbcore.errors import Unavailable
from rbcore.vocabulary import PoolType
from tests.actors.house import House, house, start_agent
from tests.actors.trees import describe, make_tree

TAPES, VAULT = "Tapes", "Vault"


def make_library(*, drives: int = 2, capacity_factor: float = 1e-5, cartridges: int = 4) -> SimulatedLibrary:
    """Cartridges of 180 MB and no time."""
    library = SimulatedLibrary(mechanics=NO_DELAY, capacity_factor=capacity_factor, drives=drives)
    for number in range(1, cartridges + 1):
        library.add_cartridge(f"VT{number:04d}L9")
    return library


async def add_library(daemon: House, pool_type: str) -> None:
    """Two pools; every other cartridge belongs to the second."""
    for name in (TAPES, VAULT):
        await daemon.execute(CreateRecord(resource="pool_list", fields={"pool_name": name, "pool_type": pool_type}))
    tape = daemon.actors.tape
    assert tape is not None
    candidates = await tape.candidates(automatic=True)
    changer = next(one for one in candidates if one.is_changer)
    found = await tape.describe(changer.facts.device, [one.facts.device for one in candidates if not one.is_changer])
    reply = await daemon.execute(
        AddTapeLibrary(
            pool=TAPES,
            media_server="media-1",
            changer=found.changer,
            transport_element=found.transport_element,
            drives=found.drives,
            elements=found.elements,
        )
    )
    for tag in reply.data["unknown"]:
        fields = {"type": "LTO-9", "pool": TAPES if int(tag[2:6]) % 2 else VAULT, "volume_tag": tag}
        await daemon.execute(CreateRecord(resource="tape_cartridges", fields=fields))


@dataclass
class Site:
    daemon: House
    client: Client
    source: Path
    nursery: trio.Nursery

    @property
    def destination(self) -> Path:
        return self.daemon.path / "restored"

    def backup(self, backup_id: int) -> Backup:
        found = self.daemon.journal.state.find(Backup, backup_id)
        assert found is not None
        return found

    def tags(self, backup: Backup) -> list[str]:
        table = self.daemon.journal.state.tables[TapeCartridge.KIND]
        return [table[part.cartridge_id].volume_tag for part in backup.parts]

    def change(self, name: str, content: bytes) -> None:
        (self.source / name).write_bytes(content)

    async def comes_back(self, backup: Backup, name: str) -> None:
        await self.daemon.restore(backup, self.daemon.path / name)
        assert describe(self.daemon.path / name) == describe(self.source)

    async def copied(self, backup: Backup, pool: str, *, move: bool = False) -> Backup:
        reply = await self.daemon.execute(QueueCopy(backup_id=backup.id, pool_name=pool, move=move))
        return self.backup((await self.daemon.done(reply.ids[0])).backup_id)

    def happened(self, type_: str) -> int:
        return sum(1 for one in self.daemon.journal.log.read() if one.type == type_)


@asynccontextmanager
async def running(
    path: Path, library: SimulatedLibrary, *, pool_type: str = PoolType.TAPE_NATIVE, large_bytes: int = 3_000_000
) -> AsyncIterator[Site]:
    source = path / "source"
    if not source.exists():
        make_tree(source, large_bytes=large_bytes)
    async with house(path, library=library) as daemon, trio.open_nursery() as nursery:
        agent = await start_agent(nursery, path)
        state = daemon.journal.state
        if any(one.hwid == agent.hwid for one in state.all(Client)):
            client = await daemon.online(agent.hwid)
        else:
            client = await daemon.authorise(agent.hwid)
        if not any(True for _ in state.all(TapeLibrary)):
            await add_library(daemon, pool_type)
        yield Site(daemon, client, source, nursery)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("pool_type", [PoolType.TAPE_NATIVE, PoolType.TAPE_LTFS])
async def test_what_is_on_cartridges_comes_back(tmp_path: Path, pool_type: str) -> None:
    async with running(tmp_path, make_library(), pool_type=pool_type) as site:
        daemon = site.daemon
        full = await daemon.backup(site.client, site.source, pool=TAPES, crypto="AES-256-GCM")
        assert full.library_id == 1
        assert site.tags(full) == ["VT0001L9"]
        site.change("new", b"new")
        incremental = await daemon.backup(
            site.client, site.source, pool=TAPES, crypto="AES-256-GCM", backup_type="incremental"
        )
        assert incremental.ref_id == full.id
        assert incremental.archive_size < full.archive_size / 2
        await site.comes_back(incremental, "restored")
        assert (await daemon.verify(incremental)).verification_status == "Trusted"
        assert (await daemon.verify(full)).verification_status == "Trusted"
        mounts = site.happened("drive.mounted")
        await daemon.delete(full)
        assert site.happened("drive.mounted") == mounts, "nothing is mounted to delete"
        assert not list(daemon.journal.state.all(PendingRemoval))


async def test_names_are_listed_without_a_mount(tmp_path: Path) -> None:
    async with running(tmp_path, make_library()) as site:
        backup = await site.daemon.backup(site.client, site.source, pool=TAPES)
        mounts = site.happened("drive.mounted")
        names = await site.daemon.actors.contents.list_names(backup.id, "d0", 1000)
        assert names[0]["path"] == "d0"
        tape = site.daemon.actors.tape
        assert tape is not None
        tape.forget(backup.archive)
        await trio.sleep(0.3)
        with pytest.raises(Unavailable, match="only a task may have it mounted"):
            await site.daemon.actors.contents.list_names(backup.id, "d0", 1000)
        assert site.happened("drive.mounted") == mounts
        await site.comes_back(backup, "restored")


@pytest.mark.parametrize("pool_type", [PoolType.TAPE_NATIVE, PoolType.TAPE_LTFS])
async def test_from_disk_to_tape_and_back(tmp_path: Path, pool_type: str) -> None:
    async with running(tmp_path, make_library(), pool_type=pool_type) as site:
        daemon = site.daemon
        full = await daemon.backup(site.client, site.source)
        site.change("new", b"new")
        incremental = await daemon.backup(site.client, site.source, backup_type="incremental")
        moved = await site.copied(full, TAPES, move=True)
        assert (moved.id, moved.local_catalog_id, site.tags(moved)) == (full.id, 0, ["VT0001L9"])
        await daemon.until(lambda: not daemon.journal.state.active_tasks(), "the old bytes are removed")
        assert {one.name for one in daemon.pool.glob("??/*")} == {incremental.archive}
        await site.comes_back(incremental, "mixed")
        assert (await daemon.verify(moved)).verification_status == "Trusted"
        back = await site.copied(moved, "Default", move=True)
        assert (back.parts, back.local_catalog_id, back.library_id) == ((), 1, 0)
        await site.comes_back(incremental, "back")
        assert (await daemon.verify(back)).verification_status == "Trusted"


async def test_from_tape_to_tape(tmp_path: Path) -> None:
    async with running(tmp_path, make_library()) as site:
        full = await site.daemon.backup(site.client, site.source, pool=TAPES)
        copy = await site.copied(full, VAULT)
        assert (site.tags(full), site.tags(copy)) == (["VT0001L9"], ["VT0002L9"])
        assert copy.root == full.root
        await site.daemon.delete(full)
        assert (await site.daemon.verify(copy)).verification_status == "Trusted"
        await site.comes_back(copy, "restored")
        names = await site.daemon.actors.contents.list_names(copy.id, "d0", 10)
        assert names, "what is kept of the archive serves both"


async def test_many_restores_take_few_mounts(tmp_path: Path) -> None:
    """One drive, three cartridges' worth of backups, restored in an order that would change cartridges each time."""
    async with running(tmp_path, make_library(drives=1)) as site:
        daemon = site.daemon
        full = await daemon.backup(site.client, site.source, pool=TAPES)
        other = await daemon.backup(site.client, site.source / "d0", pool=VAULT)
        mounts = site.happened("drive.mounted")
        tasks = [
            await daemon.queue_restore(one, daemon.path / f"r{number}", ["e0"] if one is other else ["d0"])
            for number in range(8)
            for one in (full, other)
        ]
        for task_id in tasks:
            await daemon.done(task_id)
        assert site.happened("drive.mounted") - mounts <= 3


async def test_a_chain_over_cartridges_is_restored_with_one_drive(tmp_path: Path) -> None:
    """Cartridges of 36 MB: the incremental goes on on the second, and a restore needs both, one after the other."""
    library = make_library(drives=1, capacity_factor=2e-6, cartridges=6)
    async with running(tmp_path, library, large_bytes=25_000_000) as site:
        full = await site.daemon.backup(site.client, site.source, pool=TAPES)
        site.change("more", (site.source / "large").read_bytes()[::-1])
        last = await site.daemon.backup(site.client, site.source, pool=TAPES, backup_type="incremental")
        assert set(site.tags(last)) - set(site.tags(full))
        await site.comes_back(last, "restored")
        assert (await site.daemon.verify(last)).verification_status == "Trusted"
        tape = site.daemon.actors.tape
        assert tape is not None
        for backup in (full, last):
            tape.forget(backup.archive)
        await trio.sleep(0.3)
        await site.comes_back(last, "without")


async def test_a_manifest_that_is_not_kept_is_read_with_one_drive(tmp_path: Path) -> None:
    """The restore was promised the cartridge it reads first, and needs the last one before: it must let go of what it has not used."""
    library = make_library(drives=1, capacity_factor=2e-6, cartridges=6)
    async with running(tmp_path, library, large_bytes=45_000_000) as site:
        full = await site.daemon.backup(site.client, site.source, pool=TAPES)
        site.change("more", b"more")
        last = await site.daemon.backup(site.client, site.source, pool=TAPES, backup_type="incremental")
        assert site.tags(last) == site.tags(full)[-1:]
        tape = site.daemon.actors.tape
        assert tape is not None
        tape.forget(last.archive)
        await trio.sleep(0.3)
        await site.comes_back(last, "restored")


@pytest.mark.parametrize("drives", [1, 2])
async def test_an_incremental_backup_reads_a_manifest_that_is_not_kept_first(tmp_path: Path, drives: int) -> None:
    """From the cartridge that it is going to write to."""
    async with running(tmp_path, make_library(drives=drives)) as site:
        full = await site.daemon.backup(site.client, site.source, pool=TAPES)
        tape = site.daemon.actors.tape
        assert tape is not None
        tape.forget(full.archive)
        await trio.sleep(0.3)
        site.change("new", b"new")
        last = await site.daemon.backup(site.client, site.source, pool=TAPES, backup_type="incremental")
        assert (last.ref_id, site.tags(last)) == (full.id, site.tags(full))
        await site.comes_back(last, "restored")


async def test_a_copy_to_tape_begins_anew_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from actors.tape.sink import TapeSink

    library = make_library()
    write = TapeSink.write
    reached = trio.Event()
    calls: list[int] = []

    async def stop_in_the_middle(self: TapeSink, pieces: object, *, sync: bool) -> int:
        calls.append(1)
        if len(calls) > 3:
            reached.set()
            await trio.sleep_forever()
        return await write(self, pieces, sync=sync)  # type: ignore[arg-type]

    async with running(tmp_path, library, large_bytes=30_000_000) as site:
        full = await site.daemon.backup(site.client, site.source)
        with monkeypatch.context() as patch:
            patch.setattr(TapeSink, "write", stop_in_the_middle)
            reply = await site.daemon.execute(QueueCopy(backup_id=full.id, pool_name=TAPES))
            await reached.wait()
    async with running(tmp_path, library) as site:
        copy = site.backup((await site.daemon.done(reply.ids[0])).backup_id)
        assert (await site.daemon.verify(copy)).verification_status == "Trusted"
        await site.daemon.delete(full)
        await site.comes_back(copy, "restored")


async def test_a_damaged_block_on_a_cartridge_is_named(tmp_path: Path) -> None:
    library = make_library()
    async with running(tmp_path, library) as site:
        daemon = site.daemon
        backup = await daemon.backup(site.client, site.source, pool=TAPES)
        (tag,) = site.tags(backup)
        library.faults.spoil_record(tag, backup.parts[0].position + 3)
        task_id = (await daemon.execute(QueueCopy(backup_id=backup.id, pool_name="Default"))).ids[0]
        task = await daemon.ended(task_id)
        assert (task.status, "Block " in task.status_reason) == ("Error", True), task.status_reason
        found = await daemon.verify(backup)
        assert found.verification_status == "Broken"
        assert any(one.startswith("block ") and f"on cartridge {tag}" in one for one in found.findings), found.findings
        assert list(daemon.journal.state.all(Backup)) == [found]
        assert {one.name for one in daemon.pool.glob("??/*")} == set()


async def test_no_task_is_left_waiting(tmp_path: Path) -> None:
    """Everything at once, and all of it ends; no tape task outlives its task."""
    async with running(tmp_path, make_library()) as site:
        daemon = site.daemon
        full = await daemon.backup(site.client, site.source, pool=TAPES)
        disk = await daemon.backup(site.client, site.source / "d1")
        queued = [
            await daemon.queue_restore(full, daemon.path / "one"),
            (await daemon.execute(QueueCopy(backup_id=full.id, pool_name=VAULT))).ids[0],
            (await daemon.execute(QueueCopy(backup_id=disk.id, pool_name=TAPES))).ids[0],
            await daemon.queue_backup(site.client, site.source / "d2", pool=TAPES),
            await daemon.queue_restore(full, daemon.path / "two"),
            await daemon.queue_backup(site.client, site.source / "d3", pool=VAULT),
        ]
        for task_id in queued:
            await daemon.done(task_id)
        ended: Callable[[TapeTask], bool] = lambda one: one.status in ("Done", "Error", "Killed")  # noqa: E731
        await daemon.until(
            lambda: all(ended(one) for one in daemon.journal.state.all(TapeTask)), "every tape task ends"
        )
