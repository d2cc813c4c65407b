"""Backups whose pool cannot take them: the real daemon, real directories, a real agent; substitutions, groups, and service mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio

from rbcore.commands import ChangeRecord, CreateRecord
from rbcore.commands_servers import AuthoriseMediaServer, MediaServerHello
from rbcore.entities import Backup, Pool
from tests.actors.house import House, house, start_agent
from tests.actors.trees import describe, make_tree


async def create(daemon: House, resource: str, **fields: Any) -> int:
    return (await daemon.execute(CreateRecord(resource=resource, fields=fields))).ids[0]


async def add_pool(daemon: House, name: str, *, mounted: bool = True) -> Path:
    """A File system pool with one catalog; one that is not mounted has no directory there."""
    path = daemon.path / name
    if mounted:
        path.mkdir()
    await create(daemon, "pool_list", pool_name=name, pool_type="File system")
    await create(daemon, "storage_local_catalogs", path=str(path), pool=name)
    return path


def pool_of(daemon: House, backup: Backup) -> str:
    pool = daemon.journal.state.find(Pool, backup.pool_id)
    assert pool is not None
    return pool.pool_name


def archives(path: Path) -> set[str]:
    return {one.name for one in path.glob("??/*")}


async def test_a_backup_is_redirected_along_the_substitutions_and_restored_from_there(tmp_path: Path) -> None:
    source = make_tree(tmp_path / "source")
    async with house(tmp_path) as daemon, trio.open_nursery() as nursery:
        await add_pool(daemon, "Gone", mounted=False)
        await add_pool(daemon, "Gone too", mounted=False)
        third = await add_pool(daemon, "Third")
        await create(daemon, "pool_substitution", pool="Gone", substitution="Gone too")
        await create(daemon, "pool_substitution", pool="Gone too", substitution="Third")
        client = await daemon.authorise((await start_agent(nursery, daemon.path)).hwid)
        backup = await daemon.backup(client, source, pool="Gone")
        assert pool_of(daemon, backup) == "Third"
        assert archives(third) == {backup.archive}
        (assigned,) = [one for one in daemon.notes(backup.task_id) if one.startswith("task.assigned")]
        assert "pool 'Gone' cannot take it" in assigned
        assert "so pool 'Third', its substitution, does" in assigned
        assert "Pool 'Gone too'" in assigned
        await daemon.restore(backup, tmp_path / "restored")
        assert describe(tmp_path / "restored") == describe(source)
        (daemon.path / "Gone").mkdir()
        (source / "new").write_bytes(b"new")
        again = await daemon.backup(client, source, pool="Gone", backup_type="incremental")
        assert (pool_of(daemon, again), again.ref_id) == ("Gone", backup.id)
        await daemon.restore(again, tmp_path / "both")
        assert describe(tmp_path / "both") == describe(source)
        nursery.cancel_scope.cancel()


async def test_a_group_gives_each_backup_a_pool_that_can_take_it(tmp_path: Path) -> None:
    source = make_tree(tmp_path / "source")
    async with house(tmp_path) as daemon, trio.open_nursery() as nursery:
        await add_pool(daemon, "Gone", mounted=False)
        await add_pool(daemon, "There")
        group = await create(daemon, "dynamic_pool_groups", name="fast", max_pool_tasks=1)
        for name in ("Gone", "There"):
            await create(daemon, "dynamic_pool_groups_records", dynamic_pool_group=group, pool=name)
        client = await daemon.authorise((await start_agent(nursery, daemon.path)).hwid)
        backup = await daemon.backup(client, source, pool="fast")
        assert pool_of(daemon, backup) == "There"
        await daemon.restore(backup, tmp_path / "restored")
        assert describe(tmp_path / "restored") == describe(source)
        nursery.cancel_scope.cancel()


async def test_a_server_in_service_mode_begins_nothing_until_it_leaves_it(tmp_path: Path) -> None:
    source = make_tree(tmp_path / "source")
    async with house(tmp_path) as daemon, trio.open_nursery() as nursery:
        client = await daemon.authorise((await start_agent(nursery, daemon.path)).hwid)
        mode = {"local_service_mode": "yes"}
        await daemon.execute(ChangeRecord(resource="media_servers", id=1, changes=mode))
        task_id = await daemon.queue_backup(client, source)
        await daemon.until(lambda: daemon.task(task_id).status == "Suspended", "the task waits")
        assert "service mode" in daemon.task(task_id).status_reason
        assert daemon.archives_on_disk() == set()
        nursery.cancel_scope.cancel()


async def test_a_catalog_of_another_media_server_is_not_taken_for_one_of_this_host(tmp_path: Path) -> None:
    source = make_tree(tmp_path / "source")
    async with house(tmp_path) as daemon, trio.open_nursery() as nursery:
        hello = MediaServerHello(hwid="ab" * 8, hostname="far", public_key="cd" * 32, address="", version="")
        await daemon.execute(hello)
        await daemon.execute(AuthoriseMediaServer(hostname="far"))
        there = daemon.path / "far"
        there.mkdir()
        await create(daemon, "pool_list", pool_name="Far", pool_type="File system", media_server="far")
        await create(daemon, "storage_local_catalogs", path=str(there), pool="Far")
        client = await daemon.authorise((await start_agent(nursery, daemon.path)).hwid)
        task_id = await daemon.queue_backup(client, source, pool="Far")
        await daemon.until(lambda: daemon.task(task_id).status == "Suspended", "the task waits")
        assert "it is on media server far, with which this release has no session" in daemon.task(task_id).status_reason
        await create(daemon, "pool_substitution", pool="Far", substitution="Default")
        backup = await daemon.backup(client, source, pool="Far", resource_type="File system")
        assert pool_of(daemon, backup) == "Default"
        assert list(there.iterdir()) == []
        nursery.cancel_scope.cancel()
