"""The watch over the room of catalogs, over real directories."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from actors import room
from actors.room import RoomWatch
from rbcore.commands import CreateRecord, DeleteRecords
from tests.actors.house import House, house


async def add_catalog(daemon: House, path: Path) -> int:
    fields = {"path": str(path), "pool": "Default"}
    return (await daemon.execute(CreateRecord(resource="storage_local_catalogs", fields=fields))).ids[0]


async def test_figures_are_those_of_the_file_system(tmp_path: Path) -> None:
    async with house(tmp_path) as daemon:
        watch = RoomWatch(daemon.journal, daemon.actors.storages)
        assert watch.fact(1) is None
        await watch.turn()
        fact = watch.fact(1)
        assert fact is not None
        figures = os.statvfs(daemon.pool)
        assert (fact.online, fact.size_bytes) == (True, figures.f_blocks * figures.f_frsize)
        assert 0 < fact.free_bytes <= fact.size_bytes
        assert fact.file_system == daemon.pool.stat().st_dev


async def test_catalogs_come_fail_return_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(tmp_path) as daemon:
        watch = RoomWatch(daemon.journal, daemon.actors.storages)
        await watch.turn()
        later = await add_catalog(daemon, daemon.path / "later")
        await watch.turn()
        fact = watch.fact(later)
        assert fact is not None
        assert not fact.online
        assert "is its file system mounted" in fact.problem
        (daemon.path / "later").mkdir()
        await watch.turn()
        assert watch.fact(later) == fact, "its time has not come"
        monkeypatch.setattr(room, "LOOK_SECONDS", 0.0)
        await watch.turn()
        fact = watch.fact(later)
        assert fact is not None
        assert fact.online
        await daemon.execute(DeleteRecords(resource="storage_local_catalogs", ids=[later]))
        await watch.turn()
        assert watch.fact(later) is None
