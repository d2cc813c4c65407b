"""Backups that go from a directory to cartridges and back because their pool cannot take them: one daemon, one agent, a simulated library."""

from __future__ import annotations

from pathlib import Path

from rbcore.commands import CreateRecord
from rbcore.entities import Pool
from tests.actors.test_tape_pools import TAPES, make_library, running


async def test_a_pool_of_directories_hands_backups_to_cartridges_and_takes_them_again(tmp_path: Path) -> None:
    async with running(tmp_path, make_library()) as site:
        daemon = site.daemon
        there = daemon.path / "gone"
        await daemon.execute(
            CreateRecord(resource="pool_list", fields={"pool_name": "Gone", "pool_type": "File system"})
        )
        fields = {"path": str(there), "pool": "Gone"}
        await daemon.execute(CreateRecord(resource="storage_local_catalogs", fields=fields))
        link = {"pool": "Gone", "substitution": TAPES}
        await daemon.execute(CreateRecord(resource="pool_substitution", fields=link))
        full = await daemon.backup(site.client, site.source, pool="Gone")
        assert site.tags(full) == ["VT0001L9"]
        await site.comes_back(full, "one")
        there.mkdir()
        site.change("new", b"new")
        # The parent lies in a pool of another type, so it cannot be one.
        again = await daemon.backup(site.client, site.source, pool="Gone", backup_type="incremental")
        assert (again.parts, again.backup_type) == ((), "full")
        await site.comes_back(again, "two")


async def test_a_group_of_tape_and_directories_keeps_an_incremental_with_its_parent(tmp_path: Path) -> None:
    async with running(tmp_path, make_library()) as site:
        daemon = site.daemon
        fields = {"name": "mixed", "max_pool_tasks": 1}
        group = (await daemon.execute(CreateRecord(resource="dynamic_pool_groups", fields=fields))).ids[0]
        for name in (TAPES, "Default"):
            record = {"dynamic_pool_group": group, "pool": name}
            await daemon.execute(CreateRecord(resource="dynamic_pool_groups_records", fields=record))
        tape = daemon.journal.state.by_key(Pool, TAPES)
        assert tape is not None
        full = await daemon.backup(site.client, site.source, pool=TAPES)
        assert full.pool_id == tape.id
        site.change("new", b"new")
        incremental = await daemon.backup(site.client, site.source, pool="mixed", backup_type="incremental")
        assert (incremental.pool_id, incremental.ref_id) == (tape.id, full.id)
        await site.comes_back(incremental, "back")
